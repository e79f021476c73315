//! Fetching one URL through `curl`: quick to give up, able to resume.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::ToolFailed;
use crate::progress::Progress;
use crate::staging::{remove, rename};
use crate::{digest, process};

/// Seconds after which a host that does not answer counts as out of reach.
const CONNECT_SECONDS: &str = "5";

/// Fetches `url` into `file`, going on from `file.part` if an earlier attempt was cut short.
/// With a checksum, a finished file of an earlier attempt is used again, and a wrong one is removed.
pub(crate) fn fetch(url: &str, file: &Path, sha256: Option<&str>, log: &Path) -> Result<()> {
    if let Some(expected) = sha256
        && file.is_file()
        && digest::expect_file(file, expected).is_ok()
    {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let part = file.with_file_name(format!("{name}.part"));
    let host = url.split('/').nth(2).filter(|host| !host.is_empty()).unwrap_or("this machine");
    let progress = Progress::uncounted(&format!("fetching {name} from {host}"));
    let resumed = part.exists();
    let mut result = curl(url, &part, log, &progress);
    if result.is_err() && resumed && !is_network(&result) {
        // A server that cannot resume, or a part that was already whole: begin again.
        remove(&part)?;
        result = curl(url, &part, log, &progress);
    }
    result.with_context(|| format!("cannot fetch {url}"))?;
    progress.done();
    if let Some(expected) = sha256
        && let Err(error) = digest::expect_file(&part, expected)
    {
        remove(&part)?;
        return Err(error.context(format!("what {url} sent is not what was published")));
    }
    rename(&part, file)
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

    /// SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn url(path: &Path) -> String {
        format!("file://{}", path.display())
    }

    #[test]
    fn a_partial_file_is_continued_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (source, file) = (folder.path().join("source"), folder.path().join("file"));
        std::fs::write(&source, b"abc").unwrap();
        std::fs::write(folder.path().join("file.part"), b"ab").unwrap();
        fetch(&url(&source), &file, Some(ABC), &folder.path().join("log")).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"abc");
        assert!(!folder.path().join("file.part").exists());
    }

    #[test]
    fn a_wrong_file_is_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (source, file) = (folder.path().join("source"), folder.path().join("file"));
        std::fs::write(&source, b"abd").unwrap();
        let error = fetch(&url(&source), &file, Some(ABC), &folder.path().join("log")).unwrap_err();
        assert!(format!("{error:#}").contains("wrong checksum"), "{error:#}");
        assert!(!file.exists() && !folder.path().join("file.part").exists());
    }

    #[test]
    fn a_finished_file_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"abc").unwrap();
        fetch("file:///nowhere", &file, Some(ABC), &folder.path().join("log")).unwrap();
    }

    #[test]
    fn an_unreachable_source_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            fetch("file:///no/such/file", &folder.path().join("file"), None, &folder.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("cannot fetch file:///no/such/file"), "{error}");
    }
}
