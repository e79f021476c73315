//! Fetching one URL through `curl`: quick to give up, able to resume.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::process::ToolFailed;
use crate::progress::Progress;
use crate::staging::{remove, rename};

/// Seconds after which a host that does not answer counts as out of reach.
const CONNECT_SECONDS: &str = "5";

/// Fetches `url` into `file`, going on from `file.part` if an earlier attempt was cut short.
/// With a check, a finished file of an earlier attempt that passes is used again, and one that does not is removed.
pub(crate) fn fetch(url: &str, file: &Path, check: Option<impl Fn(&Path) -> Result<()>>, log: &Path) -> Result<()> {
    if let Some(check) = &check
        && file.is_file()
    {
        if check(file).is_ok() {
            return Ok(());
        }
        remove(file)?;
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let part = file.with_file_name(format!("{name}.part"));
    let host = url.split('/').nth(2).filter(|host| !host.is_empty()).unwrap_or("this machine");
    let progress = Progress::uncounted(&format!("fetching {name} from {host}"));
    let attempt = || -> Result<()> {
        curl(url, &part, log, &progress).with_context(|| format!("cannot fetch {url}"))?;
        rename(&part, file)?;
        if let Some(check) = &check
            && let Err(error) = check(file)
        {
            remove(file)?;
            return Err(error.context(format!("what {url} sent is not what was published")));
        }
        Ok(())
    };
    let resumed = part.exists();
    let mut result = attempt();
    if result.is_err() && resumed && !is_network(&result) {
        // A server that cannot resume, a part that was already whole, or one of another mirror's file: begin again.
        remove(&part)?;
        result = attempt();
    }
    result?;
    progress.done();
    Ok(())
}

fn curl(url: &str, part: &Path, log: &Path, progress: &Progress) -> Result<()> {
    let mut command = Command::new("curl");
    command
        .args(["--fail", "--location", "--silent", "--show-error"])
        .args(["--connect-timeout", CONNECT_SECONDS, "--retry", "1"])
        // A transfer below 1 kB/s for half a minute is dead.
        .args(["--speed-limit", "1000", "--speed-time", "30"])
        .args(["--continue-at", "-", "--output"])
        .arg(part)
        .arg(url);
    process::run_quietly(command, log, || {
        if let Ok(metadata) = part.metadata() {
            progress.set(metadata.len());
        }
    })
}

/// Whether curl failed because a host was out of reach or a transfer broke: what was received is then worth keeping.
fn is_network(result: &Result<()>) -> bool {
    // curl(1), "EXIT CODES": proxy, host, connection, partial file, time-out, receiving.
    const NETWORK: [i32; 6] = [5, 6, 7, 18, 28, 56];
    result
        .as_ref()
        .err()
        .and_then(|error| error.downcast_ref::<ToolFailed>())
        .and_then(|failed| failed.status.code())
        .is_some_and(|code| NETWORK.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_abc(file: &Path) -> Result<()> {
        anyhow::ensure!(std::fs::read(file)? == b"abc", "not the right file");
        Ok(())
    }

    fn url(path: &Path) -> String {
        format!("file://{}", path.display())
    }

    #[test]
    fn a_partial_file_is_continued_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (source, file) = (folder.path().join("source"), folder.path().join("file"));
        std::fs::write(&source, b"abc").unwrap();
        std::fs::write(folder.path().join("file.part"), b"ab").unwrap();
        fetch(&url(&source), &file, Some(is_abc), &folder.path().join("log")).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"abc");
        assert!(!folder.path().join("file.part").exists());
    }

    #[test]
    fn a_part_of_another_file_is_given_up_and_not_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let (source, file) = (folder.path().join("source"), folder.path().join("file"));
        std::fs::write(&source, b"abc").unwrap();
        std::fs::write(folder.path().join("file.part"), b"XY").unwrap();
        fetch(&url(&source), &file, Some(is_abc), &folder.path().join("log")).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"abc");
        assert!(!folder.path().join("file.part").exists());
    }

    #[test]
    fn a_wrong_file_is_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (source, file) = (folder.path().join("source"), folder.path().join("file"));
        // From the beginning, and from the middle.
        for part in [None, Some(b"ab")] {
            std::fs::write(&source, b"abd").unwrap();
            part.into_iter().for_each(|part| std::fs::write(folder.path().join("file.part"), part).unwrap());
            let error = fetch(&url(&source), &file, Some(is_abc), &folder.path().join("log")).unwrap_err();
            assert!(format!("{error:#}").contains("not the right file"), "{error:#}");
            assert!(!file.exists() && !folder.path().join("file.part").exists());
        }
    }

    #[test]
    fn a_finished_file_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"abc").unwrap();
        fetch("file:///nowhere", &file, Some(is_abc), &folder.path().join("log")).unwrap();
    }

    #[test]
    fn an_unreachable_source_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            fetch("file:///no/such/file", &folder.path().join("file"), Some(is_abc), &folder.path().join("log"))
                .unwrap_err();
        assert!(error.to_string().contains("cannot fetch file:///no/such/file"), "{error}");
    }
}
