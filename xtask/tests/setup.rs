//! `cargo xtask setup`, end to end, on machines without a network.
#![cfg(unix)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Machine, names, run, write_zip};

/// The whole tree that the wheels of `Machine::wheels` make.
fn assert_whole(target: &Path) {
    assert_eq!(names(target), ["build-version", "cargo-config.toml", "include", "lib", "provenance.toml"]);
    assert_eq!(
        names(&target.join("lib")),
        ["libc10.so", "libcudart.so.13", "libgomp.so", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so"]
    );
    assert_eq!(fs::read_link(target.join("lib/libtorch.so")).unwrap(), Path::new("libtorch_cpu.so"));
    assert_eq!(fs::read_link(target.join("lib/libgomp.so")).unwrap(), Path::new("libgomp.so.1"));
    assert_eq!(fs::read_to_string(target.join("build-version")).unwrap(), "2.11.0\n");
}

#[test]
fn where_only_the_python_index_answers_its_wheels_are_used_and_nothing_else_is_left() {
    let machine = Machine::new();
    machine.wheels(3);
    machine.pip("");
    let (ok, said) = run(machine.setup());
    assert!(ok, "{said}");
    assert!(said.contains("the archive: not available") && said.contains("from the index"), "{said}");
    assert_whole(&machine.path("libtorch"));
    assert!(!machine.path("libtorch.setup").exists());
    let provenance = fs::read_to_string(machine.path("libtorch/provenance.toml")).unwrap();
    assert!(provenance.contains("torch-2.11.0-cp311"), "{provenance}");

    // A second run finds it in order: no tool is asked again.
    fs::remove_file(machine.path("pip.log")).unwrap();
    let (ok, said) = run(machine.setup());
    assert!(ok && said.contains("is in order"), "{said}");
    assert!(!machine.path("pip.log").exists());
}

#[test]
fn the_archive_is_preferred_where_it_can_be_reached() {
    let machine = Machine::new();
    machine.wheels(0);
    let member = |name: &str| (format!("libtorch/{name}"), name.as_bytes().to_vec());
    let archive = machine.path("upstream.zip");
    let members = [
        "include/torch/csrc/api/include/torch/torch.h",
        "lib/libc10.so",
        "lib/libtorch_cpu.so",
        "lib/libtorch.so",
        "lib/libgomp-98b21ff3.so.1",
        "lib/libdnnl.a",
    ];
    write_zip(&archive, &members.map(member));
    machine.tool(
        "curl",
        &format!(
            "for a; do [ \"$previous\" = --output ] && out=$a; previous=$a; done; cp {} \"$out\"",
            archive.display()
        ),
    );
    let (ok, said) = run(machine.setup());
    assert!(ok && said.contains("from the archive"), "{said}");
    let lib = machine.path("libtorch/lib");
    assert!(!lib.join("libdnnl.a").exists(), "static libraries are not kept");
    assert_eq!(fs::read_link(lib.join("libgomp.so")).unwrap(), Path::new("libgomp-98b21ff3.so.1"));
}

#[test]
fn archives_brought_by_hand_need_no_network() {
    let machine = Machine::new();
    machine.wheels(3);
    let mut setup = machine.setup();
    setup.arg("--from").arg(machine.path("wheels"));
    let (ok, said) = run(setup);
    assert!(ok, "{said}");
    assert_whole(&machine.path("libtorch"));
}

#[test]
fn where_nothing_can_be_reached_the_message_says_what_to_do_by_hand() {
    let machine = Machine::new();
    machine.wheels(0);
    let (ok, said) = run(machine.setup());
    assert!(!ok);
    for part in [
        "could not be fetched from anywhere",
        "https://example.invalid/libtorch.zip",
        "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "setup --from",
        "LIBTORCH",
        "Could not resolve host",
        "install pip",
    ] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!machine.path("libtorch").exists());
}

#[test]
fn a_wheel_with_another_checksum_is_refused() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    let torch = machine.path("wheels").join("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    write_zip(&torch, &[("torch/lib/libc10.so".into(), b"something else".to_vec())]);
    let (ok, said) = run(machine.setup());
    assert!(!ok && said.contains("wrong checksum: expected SHA-256"), "{said}");
    assert!(!machine.path("libtorch").exists() && !machine.path("libtorch.setup").exists());
}

#[test]
fn a_truncated_wheel_is_refused() {
    let machine = Machine::new();
    machine.wheels(20);
    machine.pip("");
    let torch = machine.path("wheels").join("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    let bytes = fs::read(&torch).unwrap();
    fs::write(&torch, &bytes[..bytes.len() / 2]).unwrap();
    let (ok, said) = run(machine.setup());
    assert!(!ok && said.contains("wrong checksum") && said.contains("_x86_64.whl"), "{said}");
    assert!(!machine.path("libtorch").exists());

    // Nothing of the bad file is remembered: with a good one, the same command succeeds.
    fs::write(&torch, &bytes).unwrap();
    let (ok, said) = run(machine.setup());
    assert!(ok, "{said}");
}

#[test]
fn an_archive_that_would_write_elsewhere_is_refused_even_when_its_checksum_is_right() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    let torch = machine.path("wheels").join("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    write_zip(&torch, &[("torch/include/../../../../evil".into(), b"x".to_vec())]);
    machine.recipe(&[("torch", &torch, r#"{ from = "torch/include/", to = "include/" }"#)]);
    let (ok, said) = run(machine.setup());
    assert!(!ok && said.contains("written outside the folder"), "{said}");
    assert!(!machine.path("libtorch").exists() && !machine.path("evil").exists());
}

#[test]
fn another_build_of_the_wheel_is_refused_by_name() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    let wheels = machine.path("wheels");
    fs::rename(
        wheels.join("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl"),
        wheels.join("torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
    )
    .unwrap();
    let (ok, said) = run(machine.setup());
    assert!(!ok && said.contains("another build of torch than the pinned one"), "{said}");
}

#[test]
fn a_place_that_cannot_be_written_to_is_named() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    fs::write(machine.path("file"), b"").unwrap();
    let mut setup = machine.xtask();
    setup.args(["setup", "--recipe"]).arg(machine.path("recipe.toml"));
    setup.arg("--dir").arg(machine.path("file/libtorch"));
    let (ok, said) = run(setup);
    assert!(!ok && said.contains("cannot create") && said.contains("file/libtorch.setup"), "{said}");
}

#[test]
fn a_folder_without_write_permission_is_explained() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    let folder = machine.path("read-only");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let mut setup = machine.xtask();
    setup.args(["setup", "--recipe"]).arg(machine.path("recipe.toml")).arg("--dir").arg(folder.join("libtorch"));
    let (ok, said) = run(setup);
    assert!(
        !ok && said.contains("cannot be written to") && said.contains("cannot write to") && said.contains("read-only"),
        "{said}"
    );
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(names(&folder).is_empty());
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_fetched() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    machine.tool("df", "echo header; echo '/dev/x 1000000 999000 1000 99% /'");
    let (ok, said) = run(machine.setup());
    assert!(!ok && said.contains("not enough room") && said.contains("1 MiB are free"), "{said}");
    assert!(!machine.path("pip.log").exists() && !machine.path("libtorch").exists());
}

#[test]
fn a_kill_while_fetching_leaves_no_half_made_folder_and_the_next_run_finishes() {
    let machine = Machine::new();
    machine.wheels(3);
    machine.pip("echo half > \"$dest/torch-half\"; exec sleep 30");
    let mut child = machine.setup().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let half = machine.path("libtorch.setup/scratch/torch-half");
    wait_for(|| half.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!machine.path("libtorch").exists());

    machine.pip("");
    let (ok, said) = run(machine.setup());
    assert!(ok, "{said}");
    assert_whole(&machine.path("libtorch"));
    assert!(!machine.path("libtorch.setup").exists());
}

#[test]
fn a_kill_at_any_moment_leaves_all_or_nothing() {
    let machine = Machine::new();
    machine.wheels(300);
    machine.pip("");
    let target = machine.path("libtorch");
    // The undisturbed run tells how long there is to strike.
    let begun = Instant::now();
    assert!(run(machine.setup()).0);
    let whole = begun.elapsed();
    let expected = names(&target.join("include")).len();
    for tenths in 1..10 {
        let _ = fs::remove_dir_all(&target);
        let mut child = machine.setup().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * tenths / 10);
        let _ = child.kill();
        child.wait().unwrap();
        if target.exists() {
            assert_whole(&target);
            assert_eq!(names(&target.join("include")).len(), expected, "killed at {tenths}/10");
        }
    }
    let _ = fs::remove_dir_all(&target);
    assert!(run(machine.setup()).0, "and after all that, it still works");
    assert_whole(&target);
}

#[test]
fn two_set_ups_at_once_do_the_work_once() {
    let machine = Machine::new();
    machine.wheels(3);
    machine.pip("sleep 0.3");
    let children: Vec<_> =
        (0..2).map(|_| machine.setup().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_whole(&machine.path("libtorch"));
    let asked = fs::read_to_string(machine.path("pip.log")).unwrap();
    assert_eq!(asked.lines().count(), 2, "one request a wheel: {asked}");
}

#[test]
fn a_libtorch_that_the_environment_names_is_linked() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    assert!(run(machine.setup()).0);
    let mut setup = machine.xtask();
    setup.arg("setup").env("LIBTORCH", machine.path("libtorch"));
    fs::create_dir(machine.path("checkout")).unwrap();
    let (ok, said) = run(setup);
    assert!(ok && said.contains("is linked to"), "{said}");
    let link = machine.path("checkout/.libtorch");
    assert_eq!(link.join("lib").canonicalize().unwrap(), machine.path("libtorch/lib").canonicalize().unwrap());
    let config = fs::read_to_string(link.join("cargo-config.toml")).unwrap();
    assert!(config.contains(&format!("-Wl,-rpath,{}/lib", link.display())), "{config}");
}

#[test]
fn pythons_torch_is_taken_only_when_asked_for_and_only_in_the_right_version() {
    let machine = Machine::new();
    machine.wheels(0);
    machine.pip("");
    assert!(run(machine.setup()).0);
    machine.tool("python3", &format!("echo {}", machine.path("libtorch").display()));
    fs::create_dir(machine.path("checkout")).unwrap();
    let mut setup = machine.xtask();
    setup.arg("setup").env("LIBTORCH_USE_PYTORCH", "1");
    let (ok, said) = run(setup);
    assert!(ok && said.contains("is linked to"), "{said}");

    fs::write(machine.path("libtorch/build-version"), "2.4.0").unwrap();
    let mut setup = machine.xtask();
    setup.arg("setup").env("LIBTORCH_USE_PYTORCH", "1");
    let (ok, said) = run(setup);
    assert!(!ok && said.contains("Python has no torch 2.11.0") && said.contains("2.4.0"), "{said}");
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain");
        sleep(Duration::from_millis(5));
    }
}
