use super::*;

/// A folder with the least that counts as libtorch.
fn fake(folder: &Path, version: &str) {
    for name in
        ["lib/libc10.so", "lib/libtorch_cpu.so", "lib/libtorch.so", "include/torch/csrc/api/include/torch/torch.h"]
    {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
    fs::write(folder.join("build-version"), version).unwrap();
}

fn recipe() -> Recipe {
    Recipe { version: "2.11.0".into(), sources: Vec::new() }
}

fn request(target: PathBuf) -> Request {
    Request { target, named: None, ask_python: false, from: None, force: false }
}

#[test]
fn a_folder_in_order_is_left_alone_and_told_to_cargo() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join(".libtorch");
    fake(&target, "2.11.0+cpu\n");
    assert_eq!(ensure(&request(target.clone()), &recipe()).unwrap(), Outcome::Present);
    let config: toml::Table = fs::read_to_string(target.join(CARGO_CONFIG)).unwrap().parse().unwrap();
    let flag = config["build"]["rustdocflags"][1].as_str().unwrap();
    assert_eq!(flag, format!("link-arg=-Wl,-rpath,{}/lib", target.display()));
}

#[test]
fn a_configuration_that_says_the_same_is_not_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join(".libtorch");
    fake(&target, "2.11.0");
    ensure(&request(target.clone()), &recipe()).unwrap();
    let path = target.join(CARGO_CONFIG);
    let text = fs::read_to_string(&path).unwrap() + "# a comment of the user's\n";
    fs::write(&path, &text).unwrap();
    ensure(&request(target), &recipe()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_moved_checkout_gets_its_new_path() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fake(&old, "2.11.0");
    ensure(&request(old.clone()), &recipe()).unwrap();
    fs::rename(&old, &new).unwrap();
    ensure(&request(new.clone()), &recipe()).unwrap();
    let text = fs::read_to_string(new.join(CARGO_CONFIG)).unwrap();
    assert!(text.contains(&format!("{}/lib", new.display())), "{text}");
}

#[test]
fn an_empty_library_and_a_wrong_version_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fake(folder.path(), "2.10.0");
    let error = check(folder.path(), "2.11.0").unwrap_err().to_string();
    assert!(error.contains("is libtorch 2.10.0, but 2.11.0 is needed"), "{error}");
    fake(folder.path(), "2.11.0");
    fs::write(folder.path().join("lib/libc10.so"), b"").unwrap();
    let error = check(folder.path(), "2.11.0").unwrap_err().to_string();
    assert!(error.contains("lib/libc10.so is missing or empty"), "{error}");
}

#[test]
fn a_python_package_states_its_version_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("version.py"), "x = 1\n__version__ = '2.11.0+cu130'\n").unwrap();
    assert_eq!(version_of(folder.path()).as_deref(), Some("2.11.0"));
}

#[cfg(unix)]
#[test]
fn what_the_user_names_is_linked_and_followed_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join(".libtorch");
    for name in ["first", "second"] {
        let installed = folder.path().join(name);
        fake(&installed, "2.11.0");
        let request = Request { named: Some(installed.clone()), ..request(target.clone()) };
        for _ in 0..2 {
            assert_eq!(ensure(&request, &recipe()).unwrap(), Outcome::Linked(installed.clone()));
        }
        assert_eq!(target.join("lib").canonicalize().unwrap(), installed.join("lib").canonicalize().unwrap());
        assert!(!installed.join(CARGO_CONFIG).exists(), "the user's own folder is not written to");
    }
}

#[cfg(unix)]
#[test]
fn a_copy_of_our_own_is_not_thrown_away_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let (target, installed) = (folder.path().join(".libtorch"), folder.path().join("installed"));
    fake(&target, "2.11.0");
    fake(&installed, "2.11.0");
    let mut request = Request { named: Some(installed.clone()), ..request(target.clone()) };
    let error = ensure(&request, &recipe()).unwrap_err().to_string();
    assert!(error.contains("setup --force"), "{error}");
    request.force = true;
    assert_eq!(ensure(&request, &recipe()).unwrap(), Outcome::Linked(installed));
}

#[test]
fn a_named_folder_that_is_no_libtorch_is_an_error_not_a_fall_back() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request { named: Some(folder.path().join("nothing")), ..request(folder.path().join("target")) };
    let error = format!("{:#}", ensure(&request, &recipe()).unwrap_err());
    assert!(error.contains("LIBTORCH is set") && error.contains("libc10.so"), "{error}");
}

#[test]
fn without_any_source_the_message_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let error = ensure(&request(target.clone()), &recipe()).unwrap_err().to_string();
    assert!(error.contains("could not be fetched") && error.contains("setup --from"), "{error}");
    assert!(!target.exists());
}
