//! Making a libtorch tree from the first source that can be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::recipe::{Recipe, Source, Wheel};
use super::{Request, symlink, unpack};
use crate::progress::Progress;
use crate::staging::{self, Staging};
use crate::{digest, disk, download, process};

/// Room for the wheels (0.55 GB) and what is kept of them (0.5 GB).
const ROOM: u64 = 1_100_000_000;

/// Fills the staging tree and returns the source's name.
pub(super) fn fetch(request: &Request, recipe: &Recipe, staging: &Staging) -> Result<String> {
    disk::require(&staging.tree(), ROOM)?;
    let mut reasons = Vec::new();
    for source in &recipe.sources {
        staging.empty_tree()?;
        match from_source(source, request, staging) {
            Ok(provenance) => {
                complete(&staging.tree(), &recipe.version, source.name(), &provenance)?;
                return Ok(source.name().to_owned());
            }
            Err(error) if is_about_the_disk(&error) => return Err(error),
            Err(error) => {
                eprintln!("{}: not available", source.name());
                reasons.push(format!("{}: {error:#}", source.name()));
            }
        }
    }
    Err(anyhow!(reasons.join("\n  and: ")).context(by_hand(request, recipe)))
}

/// Another source cannot help against a full or read-only disk.
fn is_about_the_disk(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
}

/// What to do where nothing can be reached, with the exact files.
fn by_hand(request: &Request, recipe: &Recipe) -> String {
    let mut text = format!("libtorch {} could not be fetched from anywhere", recipe.version);
    if let Some(from) = &request.from {
        text += &format!(" ({} was searched, no network was used)", from.display());
    }
    text += ".\nBy hand: on a machine that has a network, download";
    let choices: Vec<String> = recipe
        .sources
        .iter()
        .map(|source| match source {
            Source::Zip { url, .. } => format!("\n  {url}"),
            Source::Wheels { wheels, .. } => wheels
                .iter()
                .map(|wheel| format!("\n  {} (PyPI: {} {})", wheel.file, wheel.package, wheel.version))
                .collect(),
        })
        .collect();
    text += &choices.join("\nor");
    text += "\nput them in one folder, and run `cargo xtask setup --from FOLDER`. \
             An unpacked libtorch of this version can be used by setting LIBTORCH to its folder.";
    text
}

/// Unpacks one source into the tree; returns `file = checksum` pairs for the record.
fn from_source(source: &Source, request: &Request, staging: &Staging) -> Result<Vec<(String, String)>> {
    let mut provenance = Vec::new();
    match source {
        Source::Zip { url, file, sha256, take, .. } => {
            let archive = match &request.from {
                Some(folder) => given(folder, file)?,
                None => {
                    let archive = staging.downloads().join(file);
                    let check = sha256.as_deref().map(|sum| move |path: &Path| digest::expect_file(path, sum));
                    download::fetch(url, &archive, check, &staging.log())?;
                    archive
                }
            };
            let found = digest::of_file(&archive)?;
            if let Some(expected) = sha256
                && found != *expected
            {
                bail!("{} has the wrong checksum: expected SHA-256 {expected}, found {found}", archive.display());
            }
            unpack_with_progress(file, &archive, take, &staging.tree())?;
            provenance.push((file.clone(), found));
        }
        Source::Wheels { wheels, .. } => {
            for wheel in wheels {
                let archive = match &request.from {
                    Some(folder) => given(folder, &wheel.file)?,
                    None => pip_download(wheel, staging)?,
                };
                digest::expect_file(&archive, &wheel.sha256)?;
                unpack_with_progress(&wheel.title(), &archive, &wheel.take, &staging.tree())?;
                provenance.push((wheel.file.clone(), wheel.sha256.clone()));
            }
        }
    }
    Ok(provenance)
}

fn given(folder: &Path, file: &str) -> Result<PathBuf> {
    let path = folder.join(file);
    if !path.is_file() {
        bail!("{} is not there", path.display());
    }
    Ok(path)
}

fn unpack_with_progress(title: &str, archive: &Path, take: &[super::recipe::Take], tree: &Path) -> Result<()> {
    let total = unpack::unpacked_size(archive, take)?;
    let progress = Progress::bytes(&format!("unpacking {title}"), total);
    unpack::unpack(archive, take, tree, |bytes| progress.advance(bytes))?;
    progress.done();
    Ok(())
}

/// Lets pip fetch one wheel, whatever Python it runs on, or takes the one that an earlier attempt left whole.
fn pip_download(wheel: &Wheel, staging: &Staging) -> Result<PathBuf> {
    let path = staging.downloads().join(&wheel.file);
    if path.is_file() && digest::expect_file(&path, &wheel.sha256).is_ok() {
        return Ok(path);
    }
    let arriving = staging.empty_scratch()?;
    let mut command = pip()?;
    command
        // pip writes to its temporary folder first: here, where there is room and the bytes can be counted.
        .env("TMPDIR", &arriving)
        .args(["download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"])
        .args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
    for platform in wheel.platforms()? {
        command.args(["--platform", platform]);
    }
    command.arg("--dest").arg(&arriving).arg(format!("{}=={}", wheel.package, wheel.version));

    let progress = Progress::bytes(&format!("fetching {}", wheel.title()), wheel.bytes);
    process::run_quietly(command, &staging.log(), || progress.set(size_of(&arriving)))?;
    progress.done();
    let arrived = given(&arriving, &wheel.file)
        .with_context(|| format!("pip fetched another build of {} than the pinned one", wheel.package))?;
    digest::expect_file(&arrived, &wheel.sha256)?;
    staging::rename(&arrived, &path)?;
    Ok(path)
}

/// The first pip that answers.
fn pip() -> Result<Command> {
    const CANDIDATES: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];
    for candidate in CANDIDATES {
        let (program, arguments) = (candidate[0], &candidate[1..]);
        if process::works(program, &[arguments, &["--version"]].concat()) {
            let mut command = Command::new(program);
            command.args(arguments);
            return Ok(command);
        }
    }
    bail!("neither `python3 -m pip` nor `pip` works here: install pip (Debian: `apt-get install python3-pip`)")
}

/// Bytes of all files below `folder`, as far as they can be seen while another process writes.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Adds what no archive holds: the names that the linker looks for, the version, and where it all came from.
fn complete(tree: &Path, version: &str, source: &str, provenance: &[(String, String)]) -> Result<()> {
    let lib = tree.join("lib");
    // Everything is in libtorch_cpu; tch still links `-ltorch`.
    if !lib.join("libtorch.so").exists() {
        symlink(Path::new("libtorch_cpu.so"), &lib.join("libtorch.so"))?;
    }
    if !lib.join("libgomp.so").exists()
        && let Some(openmp) = names(&lib)?.into_iter().find(|name| name.starts_with("libgomp"))
    {
        symlink(Path::new(&openmp), &lib.join("libgomp.so"))?;
    }
    staging::write(&tree.join("build-version"), format!("{version}\n").as_bytes())?;
    let mut text = String::from("# Where these files came from, with the SHA-256 of each archive.\n");
    text += &format!("source = {source:?}\n\n[archives]\n");
    for (file, sha256) in provenance {
        text += &format!("{file:?} = {sha256:?}\n");
    }
    staging::write(&tree.join("provenance.toml"), text.as_bytes())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}
