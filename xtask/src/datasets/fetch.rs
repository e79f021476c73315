//! Getting a set: from a folder of the user's, or from the first source that can be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::archive;
use super::catalogue::{DataSet, Layout, PinnedFile, Source};
use super::verify::{State, existing, packed, verify, verify_file, verify_layout};
use crate::progress::Progress;
use crate::staging::{self, Staging};
use crate::{digest, disk, download, process};

/// What `fetch` did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The set was there, and is whole.
    Present(PathBuf),
    /// It was put in this folder, from this source.
    Fetched(PathBuf, String),
}

/// Puts `set` below `root`, from the folder `from` if given, else from its sources in order.
/// Nothing below `root` changes until every byte is verified.
pub(crate) fn fetch(set: &DataSet, root: &Path, from: Option<&Path>) -> Result<Outcome> {
    if let State::Present { folder, .. } = verify(set, root) {
        return Ok(Outcome::Present(folder));
    }
    if !set.is_fetchable() {
        bail!(
            "{} is brought by the user (licence: {}): put it in {}",
            set.name,
            set.licence,
            root.join(set.layouts[0].folder()).display(),
        );
    }
    staging::create_dir(root)?;
    disk::require(root, set.megabytes << 20)?;
    match from {
        Some(folder) => from_folder(set, root, folder),
        None => from_sources(set, root),
    }
}

fn from_sources(set: &DataSet, root: &Path) -> Result<Outcome> {
    let mut reasons = Vec::new();
    for layout in &set.layouts {
        let Layout::Files { folder, files, .. } = layout else { continue };
        let target = root.join(folder);
        let staging = Staging::open(&target)?;
        if verify_layout(layout, &target).is_ok() {
            // Another process fetched it while we waited for the lock.
            staging.discard();
            return Ok(Outcome::Present(target));
        }
        for source in &set.sources {
            let fetched =
                from_source(source, folder, files, &staging).and_then(|()| verify_layout(layout, &staging.tree()));
            match fetched {
                Ok(()) => {
                    staging.merge()?;
                    return Ok(Outcome::Fetched(target, source.name()));
                }
                Err(error) => {
                    eprintln!("{}: not available", source.name());
                    reasons.push(format!("{}: {error:#}", source.name()));
                }
            }
        }
    }
    if packed(set, root).is_some() {
        return from_folder(set, root, root);
    }
    Err(anyhow!(reasons.join("\n  and: ")).context(format!(
        "it could not be fetched from anywhere. By hand: get the files from one of these sources on a machine that has \
         a network, put them in one folder, and run `cargo xtask data fetch {} --from FOLDER`",
        set.name
    )))
}

fn from_source(source: &Source, folder: &str, files: &[PinnedFile], staging: &Staging) -> Result<()> {
    let (downloads, tree) = (staging.downloads(), staging.empty_tree()?);
    match source {
        Source::Files { url } => {
            for file in files {
                let path = downloads.join(&file.name);
                let check = |path: &Path| verify_file(path, file);
                download::fetch(&format!("{url}{}", file.name), &path, Some(check), &staging.log())?;
                staging::copy(&path, &tree.join(&file.name))?;
            }
        }
        Source::Archive { url, sha256 } => {
            let path = downloads.join(file_name(url));
            download::fetch(url, &path, Some(|path: &Path| digest::expect_file(path, sha256)), &staging.log())?;
            unpack_layout(&path, folder, &tree)?;
        }
        Source::Debian { package, folder } => {
            let unpacked = debian(package, staging)?.join(folder);
            copy_files(files, &[&unpacked], &tree)?;
        }
    }
    Ok(())
}

/// Downloads and unpacks a Debian package without installing it. Needs no root: where the system's package lists are
/// empty, as in fresh containers, they are fetched into the staging folder.
fn debian(package: &str, staging: &Staging) -> Result<PathBuf> {
    let work = staging.empty_scratch()?;
    for folder in ["lists/partial", "cache/archives/partial", "unpacked"] {
        staging::create_dir(&work.join(folder))?;
    }
    let progress = Progress::uncounted(&format!("fetching Debian package {package}"));
    let apt = |arguments: &[&str], private: bool| {
        let mut command = Command::new("apt-get");
        command.current_dir(&work).args(["-q", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=1"]);
        if private {
            command.arg("-o").arg(format!("Dir::State::Lists={}", work.join("lists").display()));
            command.arg("-o").arg(format!("Dir::Cache={}", work.join("cache").display()));
        }
        command.args(arguments);
        process::run_quietly(command, &staging.log(), || ())
    };
    if let Err(first) = apt(&["download", package], false) {
        apt(&["update"], true)
            .and_then(|()| apt(&["download", package], true))
            .with_context(|| format!("{first:#}; and with fresh package lists"))?;
    }
    let file = fs::read_dir(&work)
        .with_context(|| format!("cannot list {}", work.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| anyhow!("apt-get left no package behind"))?;
    let unpacked = work.join("unpacked");
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(&file).arg(&unpacked);
    process::run_quietly(command, &staging.log(), || ())?;
    progress.done();
    Ok(unpacked)
}

/// Takes a set from a folder that the user names: the files themselves, or an archive of them.
fn from_folder(set: &DataSet, root: &Path, from: &Path) -> Result<Outcome> {
    let mut reasons = Vec::new();
    for layout in &set.layouts {
        let target = root.join(layout.folder());
        if matches!(layout, Layout::Images { .. }) && target.exists() {
            reasons.push(format!(
                "{}: {} is there already and not complete: move it away, then run the same command again",
                layout.title(),
                target.display()
            ));
            continue;
        }
        let staging = Staging::open(&target)?;
        let taken = take_layout(set, layout, from, &staging.tree())
            .and_then(|source| verify_layout(layout, &staging.tree()).map(|()| source));
        match taken {
            Ok(source) => {
                staging.merge()?;
                uncover(layout, &target)?;
                return Ok(Outcome::Fetched(target, source.display().to_string()));
            }
            Err(error) => {
                reasons.push(format!("{}: {error:#}", layout.title()));
            }
        }
    }
    Err(anyhow!(reasons.join("\n  and: ")).context(format!(
        "{} holds no copy of {} that can be used",
        from.display(),
        set.name
    )))
}

/// Copies or unpacks one layout into `tree`; returns what it was taken from.
fn take_layout(set: &DataSet, layout: &Layout, from: &Path, tree: &Path) -> Result<PathBuf> {
    match layout {
        Layout::Files { folder, files, .. } => {
            let archive = set.sources.iter().find_map(|source| match source {
                Source::Archive { url, .. } => {
                    let name = file_name(url);
                    [from.join(name), from.join(&set.name).join(name)].into_iter().find(|path| path.is_file())
                }
                _ => None,
            });
            match archive {
                Some(archive) => {
                    unpack_layout(&archive, folder, tree)?;
                    Ok(archive)
                }
                None => {
                    copy_files(files, &[from, &from.join(folder)], tree)?;
                    Ok(from.to_path_buf())
                }
            }
        }
        Layout::Images { archive: name, classes, splits, .. } => {
            let path = packed(set, from).ok_or_else(|| anyhow!("{} is not there", from.join(name).display()))?;
            archive::unpack(&path, tree, |member| {
                let parts: Vec<&str> = member.iter().filter_map(|part| part.to_str()).collect();
                match parts.as_slice() {
                    [split, class, image]
                        if splits.contains_key(*split)
                            && classes.iter().any(|known| known == class)
                            && image.ends_with(".jpg") =>
                    {
                        Some(member.to_path_buf())
                    }
                    _ => None,
                }
            })?;
            Ok(path)
        }
        Layout::User { folder, .. } => bail!("{folder} is brought by the user"),
    }
}

/// Copies the pinned files from the first of `folders` that has them.
fn copy_files(files: &[PinnedFile], folders: &[&Path], tree: &Path) -> Result<()> {
    for file in files {
        let path = folders
            .iter()
            .find_map(|folder| existing(folder, file).ok())
            .ok_or_else(|| anyhow!("{} is not there", folders[0].join(&file.name).display()))?;
        verify_file(&path, file)?;
        staging::copy(&path, &tree.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Removes damaged `.gz` files whose good content now lies beside them unpacked: loaders would go on reading them.
fn uncover(layout: &Layout, target: &Path) -> Result<()> {
    let Layout::Files { files, .. } = layout else { return Ok(()) };
    for file in files.iter().filter(|file| file.name.ends_with(".gz")) {
        let damaged = target.join(&file.name);
        if damaged.is_file() && verify_file(&damaged, file).is_err() {
            staging::remove(&damaged)?;
        }
    }
    Ok(())
}

/// Unpacks what an archive holds in `folder` straight into `tree`.
fn unpack_layout(path: &Path, folder: &str, tree: &Path) -> Result<()> {
    archive::unpack(path, tree, |member| member.strip_prefix(folder).ok().map(Path::to_path_buf))
}

fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
