//! `cargo xtask data`, end to end, on machines without a network.
#![cfg(unix)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Machine, gzip, names, run, sha256};

const CONTENT: [(&str, &[u8]); 2] = [("images.gz", b"many images"), ("labels.gz", b"their labels")];

/// A machine with a catalogue of one set of two gzipped files, one of an archive and image folders, one of the user's.
fn machine() -> Machine {
    let machine = Machine::new();
    let files: Vec<String> = CONTENT
        .iter()
        .map(|(name, content)| format!("{{ name = \"{name}\", sha256 = \"{}\" }}", sha256(content)))
        .collect();
    let upstream = machine.path("upstream");
    fs::create_dir(&upstream).unwrap();
    for (name, content) in CONTENT {
        fs::write(upstream.join(name), gzip(content, 9)).unwrap();
    }
    let archive = upstream.join("binary.tar.gz");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("binary/train.bin", &b"train"[..]), ("binary/readme.html", b"read me")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, content).unwrap();
    }
    fs::write(&archive, gzip(&tar.into_inner().unwrap(), 6)).unwrap();
    let catalogue = format!(
        r#"
        [[set]]
        name = "fashion"
        title = "Fashion"
        licence = "MIT"
        megabytes = 1
        [[set.layout]]
        kind = "files"
        title = "IDX"
        folder = "fashion"
        files = [{files}]
        [[set.source]]
        kind = "files"
        url = "file://{upstream}/"
        [[set.source]]
        kind = "debian"
        package = "dataset-fashion"
        folder = "usr/share/fashion"

        [[set]]
        name = "colours"
        title = "Colours"
        licence = "none"
        megabytes = 1
        [[set.layout]]
        kind = "files"
        title = "binary"
        folder = "binary"
        files = [{{ name = "train.bin", sha256 = "{train}" }}]
        [[set.layout]]
        kind = "images"
        title = "JPEG folders"
        folder = "colours-jpeg"
        archive = "colours-jpeg.tar.xz"
        classes = ["cat", "dog"]
        splits = {{ train = 2, test = 1 }}
        [[set.source]]
        kind = "archive"
        url = "file://{archive}"
        sha256 = "{archive_sum}"

        [[set]]
        name = "yours"
        title = "Yours"
        licence = "your own"
        [[set.layout]]
        kind = "user"
        folder = "yours"
        expect = ["train"]
        "#,
        files = files.join(", "),
        upstream = upstream.display(),
        train = sha256(b"train"),
        archive = archive.display(),
        archive_sum = sha256(&fs::read(&archive).unwrap()),
    );
    fs::write(machine.path("catalogue.toml"), catalogue).unwrap();
    machine
}

fn data(machine: &Machine, arguments: &[&str]) -> (bool, String) {
    let mut command = machine.xtask();
    command.arg("data").args(arguments);
    command.arg("--data").arg(machine.path("root")).arg("--catalogue").arg(machine.path("catalogue.toml"));
    run(command)
}

/// Packs `<split>/<class>/<n>.jpg` of the catalogue's image set, with `extra` members besides.
fn pack_images(machine: &Machine, folder: &str, damage: bool) -> PathBuf {
    let images = machine.path("images");
    for (split, count) in [("train", 2), ("test", 1)] {
        for class in ["cat", "dog"] {
            let folder = images.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let end: &[u8] = if damage { b"" } else { &[0xff, 0xd9] };
                fs::write(folder.join(format!("{index:04}.jpg")), [&[0xff, 0xd8, 1, 2], end].concat()).unwrap();
            }
        }
    }
    let target = machine.path(folder);
    fs::create_dir_all(&target).unwrap();
    let archive = target.join("colours-jpeg.tar.xz");
    let packed =
        Command::new("tar").arg("-cJf").arg(&archive).arg("-C").arg(&images).args(["train", "test"]).status().unwrap();
    assert!(packed.success());
    archive
}

#[test]
fn a_set_is_fetched_verified_and_found_again() {
    let machine = machine();
    machine.real_tool("curl");
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok && said.contains("fashion: in"), "{said}");
    assert_eq!(names(&machine.path("root")), ["fashion"]);
    assert_eq!(names(&machine.path("root/fashion")), ["images.gz", "labels.gz"]);
    assert!(data(&machine, &["verify", "fashion"]).1.contains("fashion: verified (IDX"));
    assert!(data(&machine, &["list"]).1.contains("here (IDX)"));

    machine.tool("curl", "exit 6");
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok && said.contains("here and whole"), "{said}");
}

#[test]
fn an_archive_is_unpacked_without_its_own_folder() {
    let machine = machine();
    machine.real_tool("curl");
    let (ok, said) = data(&machine, &["fetch", "colours"]);
    assert!(ok, "{said}");
    assert_eq!(names(&machine.path("root/binary")), ["readme.html", "train.bin"]);
}

#[test]
fn where_the_official_site_is_out_of_reach_the_distribution_helps() {
    let machine = machine();
    let packed = machine.path("packed");
    fs::create_dir(&packed).unwrap();
    // A distribution compresses anew: other bytes, the same content.
    for (name, content) in CONTENT {
        fs::write(packed.join(name), gzip(content, 1)).unwrap();
    }
    machine.tool("apt-get", "case \"$*\" in *download*) touch dataset-fashion.deb;; esac");
    machine
        .tool("dpkg-deb", &format!("mkdir -p \"$3/usr/share\"; cp -r {} \"$3/usr/share/fashion\"", packed.display()));
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok && said.contains("from Debian package dataset-fashion"), "{said}");
    assert_eq!(names(&machine.path("root")), ["fashion"]);
    assert!(data(&machine, &["verify", "fashion"]).0);
}

#[test]
fn where_the_package_lists_are_empty_fresh_ones_are_used() {
    let machine = machine();
    let packed = machine.path("packed");
    fs::create_dir(&packed).unwrap();
    for (name, content) in CONTENT {
        fs::write(packed.join(name), gzip(content, 1)).unwrap();
    }
    machine.tool(
        "apt-get",
        "case \"$*\" in *Dir::State::Lists*update*) touch fresh;; *download*) [ -e fresh ] || exit 100; touch a.deb;; esac",
    );
    machine
        .tool("dpkg-deb", &format!("mkdir -p \"$3/usr/share\"; cp -r {} \"$3/usr/share/fashion\"", packed.display()));
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok, "{said}");
}

#[test]
fn without_any_source_the_message_names_them_all_and_the_way_by_hand() {
    let machine = machine();
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(!ok);
    for part in ["by hand", "data fetch fashion --from FOLDER", "file://", "Unable to locate package"] {
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "no {part:?} in: {said}");
    }
    assert!(names(&machine.path("root")).is_empty(), "nothing is left behind");
}

#[test]
fn a_wrong_file_from_upstream_is_refused_and_not_kept() {
    let machine = machine();
    machine.real_tool("curl");
    fs::write(machine.path("upstream/labels.gz"), gzip(b"other labels", 9)).unwrap();
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(!ok && said.contains("labels.gz is not the published file"), "{said}");
    assert!(!machine.path("root/fashion").exists());

    // The good file is kept and only the bad one is asked for again.
    fs::write(machine.path("upstream/labels.gz"), gzip(b"their labels", 9)).unwrap();
    fs::remove_file(machine.path("upstream/images.gz")).unwrap();
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok, "{said}");
}

#[test]
fn what_another_mirror_has_begun_does_not_spoil_this_ones_file() {
    let machine = machine();
    let downloads = machine.path("root/fashion.setup/downloads");
    fs::create_dir_all(&downloads).unwrap();
    // The same content, compressed otherwise: the end of the one does not fit the beginning of the other.
    fs::write(downloads.join("images.gz.part"), &gzip(b"many images", 0)[..20]).unwrap();
    machine.tool("curl", "exit 6");
    assert!(!data(&machine, &["fetch", "fashion"]).0);
    assert!(downloads.join("images.gz.part").exists(), "without a network nothing is given up");
    machine.real_tool("curl");
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(ok && said.contains("from file://"), "{said}");
    assert!(data(&machine, &["verify", "fashion"]).0);
}

#[test]
fn a_folder_of_the_users_serves_as_a_source_in_either_shape() {
    for folder in ["upstream", "elsewhere/fashion"] {
        let machine = machine();
        fs::create_dir_all(machine.path("elsewhere")).unwrap();
        if folder != "upstream" {
            fs::rename(machine.path("upstream"), machine.path(folder)).unwrap();
        }
        let from = machine.path(folder.split('/').next().unwrap());
        let (ok, said) = data(&machine, &["fetch", "fashion", "--from", from.to_str().unwrap()]);
        assert!(ok, "{said}");
        assert!(data(&machine, &["verify", "fashion"]).0);
    }
}

#[test]
fn a_corrupt_file_is_reported_and_repaired_and_other_files_stay() {
    let machine = machine();
    machine.real_tool("curl");
    assert!(data(&machine, &["fetch", "fashion"]).0);
    fs::write(machine.path("root/fashion/LICENSE"), b"MIT").unwrap();
    for damage in [&gzip(b"other", 9)[..], b"not gzip", &gzip(b"many images", 9)[..12], b""] {
        fs::write(machine.path("root/fashion/images.gz"), damage).unwrap();
        let (ok, said) = data(&machine, &["verify"]);
        assert!(!ok && said.contains("fashion: BROKEN") && said.contains("images.gz"), "{said}");
        assert!(data(&machine, &["fetch", "fashion"]).0);
        assert!(data(&machine, &["verify", "fashion"]).0);
    }
    assert_eq!(fs::read(machine.path("root/fashion/LICENSE")).unwrap(), b"MIT");
}

#[test]
fn a_damaged_packed_file_does_not_hide_the_good_plain_one_that_the_user_brings() {
    let machine = machine();
    fs::create_dir_all(machine.path("root/fashion")).unwrap();
    fs::write(machine.path("root/fashion/images.gz"), &gzip(b"many images", 9)[..12]).unwrap();
    fs::write(machine.path("root/fashion/labels.gz"), gzip(b"their labels", 9)).unwrap();
    fs::create_dir(machine.path("given")).unwrap();
    for (name, content) in CONTENT {
        fs::write(machine.path("given").join(name.trim_end_matches(".gz")), content).unwrap();
    }
    let (ok, said) = data(&machine, &["fetch", "fashion", "--from", machine.path("given").to_str().unwrap()]);
    assert!(ok, "{said}");
    let (ok, said) = data(&machine, &["verify", "fashion"]);
    assert!(ok && said.contains("fashion: verified"), "{said}");
    assert_eq!(names(&machine.path("root/fashion")), ["images", "labels", "labels.gz"]);
}

#[test]
fn an_image_archive_becomes_image_folders() {
    let machine = machine();
    let archive = pack_images(&machine, "given/colours", false);
    for from in [archive.parent().unwrap(), &machine.path("given")] {
        let (ok, said) = data(&machine, &["fetch", "colours", "--from", from.to_str().unwrap()]);
        assert!(ok, "{said}");
        assert_eq!(names(&machine.path("root/colours-jpeg/train/cat")), ["0000.jpg", "0001.jpg"]);
        assert_eq!(names(&machine.path("root")), ["colours-jpeg"]);
        assert!(data(&machine, &["verify", "colours"]).1.contains("complete (JPEG folders"));
        fs::remove_dir_all(machine.path("root")).unwrap();
    }
}

#[test]
fn an_image_archive_below_the_root_is_seen_and_unpacked_when_nothing_better_is_there() {
    let machine = machine();
    pack_images(&machine, "root/colours", false);
    assert!(data(&machine, &["list"]).1.contains("packed: `cargo xtask data fetch colours --from"));
    let (ok, said) = data(&machine, &["verify"]);
    assert!(ok && said.contains("colours: packed"), "{said}");
    let (ok, said) = data(&machine, &["fetch", "colours"]);
    assert!(ok && said.contains("colours-jpeg.tar.xz"), "{said}");
    assert_eq!(names(&machine.path("root")), ["colours", "colours-jpeg"]);
}

#[test]
fn a_damaged_image_archive_changes_nothing() {
    let machine = machine();
    let archive = pack_images(&machine, "given", true);
    let fetch = || data(&machine, &["fetch", "colours", "--from", machine.path("given").to_str().unwrap()]);
    let (ok, said) = fetch();
    assert!(!ok && said.contains("is not a whole JPEG file"), "{said}");
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let (ok, said) = fetch();
    assert!(!ok && said.contains("cannot be unpacked"), "{said}");
    assert!(names(&machine.path("root")).is_empty());
}

#[test]
fn an_archive_with_a_link_is_refused() {
    let machine = machine();
    pack_images(&machine, "given", false);
    std::os::unix::fs::symlink("/etc", machine.path("images/train/cat/evil")).unwrap();
    pack_images(&machine, "given", false);
    let (ok, said) = data(&machine, &["fetch", "colours", "--from", machine.path("given").to_str().unwrap()]);
    assert!(!ok && said.contains("neither a file nor a folder"), "{said}");
    assert!(names(&machine.path("root")).is_empty());
}

#[test]
fn what_only_the_user_can_bring_is_said_so() {
    let machine = machine();
    let (ok, said) = data(&machine, &["fetch", "yours"]);
    assert!(!ok && said.contains("brought by the user") && said.contains("root/yours"), "{said}");
    fs::create_dir_all(machine.path("root/yours/train")).unwrap();
    assert!(data(&machine, &["verify", "yours"]).1.contains("no checksum is published"));
}

#[test]
fn an_unknown_set_and_a_missing_catalogue_are_named() {
    let machine = machine();
    let (ok, said) = data(&machine, &["fetch", "cifar"]);
    assert!(!ok && said.contains("there is no data set \"cifar\"; there are fashion, colours, yours"), "{said}");
    fs::remove_file(machine.path("catalogue.toml")).unwrap();
    assert!(data(&machine, &["list"]).1.contains("cannot read the catalogue"));
}

#[test]
fn a_root_that_cannot_be_written_to_is_named() {
    let machine = machine();
    fs::write(machine.path("root"), b"a file, not a folder").unwrap();
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(!ok && said.contains("cannot create") && said.contains("root"), "{said}");
}

#[test]
fn a_read_only_root_is_explained_and_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let machine = machine();
    machine.real_tool("curl");
    let root = machine.path("root");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o555)).unwrap();
    let (ok, said) = data(&machine, &["fetch", "fashion"]);
    assert!(!ok && said.contains("cannot be written to") && said.contains("root"), "{said}");
    assert!(names(&root).is_empty());
}

#[test]
fn the_data_root_comes_from_the_option_then_the_environment_then_the_checkout() {
    let machine = machine();
    let root = |command: &mut Command| {
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let expected = |path: &Path| format!("data root: {}", path.display());
    let mut command = machine.xtask();
    command.args(["data", "list"]);
    assert_eq!(root(&mut command), expected(&machine.path("checkout/data")));
    command.env("REPRO_DATA", "/elsewhere");
    assert_eq!(root(&mut command), expected(Path::new("/elsewhere")));
    command.args(["--data", "/chosen"]);
    assert_eq!(root(&mut command), expected(Path::new("/chosen")));
}
