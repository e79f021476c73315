//! The peers' scripts, run by Python.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::environment::Environments;
use super::manifest::Peer;
use super::places::Places;
use super::threads;

/// How scripts are run.
pub(super) struct Scripts<'a> {
    /// Where they lie.
    pub(super) folder: &'a Path,
    pub(super) data: &'a Path,
    pub(super) target: &'a Path,
    pub(super) threads: NonZeroUsize,
    pub(super) places: &'a Places,
    pub(super) environments: Environments<'a>,
}

impl Scripts<'_> {
    /// What the peer's script prints, or why it failed.
    pub(super) fn run(&mut self, peer: &Peer) -> Result<String, String> {
        self.try_run(peer).map_err(|error| {
            let why = crate::commands::with_reasons(&error);
            eprintln!("{}: {why}", peer.name);
            self.places.hide(&why)
        })
    }

    fn try_run(&mut self, peer: &Peer) -> Result<String> {
        let python = self.environments.python(&peer.environment).map_err(|why| anyhow!(why))?;
        let mut command = Command::new(&python);
        threads::give(&mut command, self.threads);
        command.arg(self.folder.join(&peer.script)).args(peer.args.iter().map(|argument| self.fill(argument)));
        let output = command.output().with_context(|| format!("cannot run {}", python.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        eprint!("{said}");
        if !output.status.success() {
            bail!("{} failed ({}){}", peer.script, output.status, last_line(&said));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn fill(&self, argument: &str) -> String {
        let argument = argument.replace("{data}", &self.data.to_string_lossy());
        let argument = argument.replace("{target}", &self.target.to_string_lossy());
        argument.replace("{threads}", &self.threads.to_string())
    }
}

/// A tool's last words behind a colon: where Python and most others put the reason of a failure. Nothing of one that said
/// nothing.
fn last_line(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Manifest;
    use super::*;

    /// What a shell, in place of Python, makes of a script that does `script`.
    fn run(script: &str, args: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.py"), script).unwrap();
        let peer = format!("[[peer]]\nname = 'x'\nscript = 'p.py'\nours = 'x'\nwant = 1\nargs = [{args}]");
        let manifest = Manifest::parse(&format!("[environments]\ndefault = []\n{peer}")).unwrap();
        let mut scripts = Scripts {
            folder: folder.path(),
            data: Path::new("/srv/data"),
            target: Path::new("/srv/target"),
            threads: NonZeroUsize::new(3).unwrap(),
            places: &Places::new([(Path::new("/srv/data"), "{data}"), (folder.path(), "{scripts}")]),
            environments: Environments::new(&manifest, folder.path().to_owned(), Some(Path::new("sh"))),
        };
        scripts.run(&manifest.peers[0])
    }

    #[test]
    fn the_reason_of_a_failure_is_its_last_words() {
        let said = "Traceback (most recent call last):\n  File \"p.py\"\nOSError: no vocab.txt\n\n";
        assert_eq!(last_line(said), ": OSError: no vocab.txt");
        assert_eq!(last_line("\n"), "");
    }

    #[test]
    #[cfg(unix)]
    fn a_script_gets_places_and_threads() {
        let said = run("echo \"$@ $OMP_NUM_THREADS\"", "'{data}/glue', '{target}/x', '--jobs={threads}'").unwrap();
        assert_eq!(said, "/srv/data/glue /srv/target/x --jobs=3 3\n");
    }

    #[test]
    #[cfg(unix)]
    fn a_reason_has_no_place_of_this_machine() {
        let why =
            run("echo reading >&2; echo \"no $1 nor $0 nor /opt/there/x\" >&2; exit 3", "'{data}/glue'").unwrap_err();
        assert_eq!(why, "p.py failed (exit status: 3): no {data}/glue nor {scripts}/p.py nor …/x");
    }
}
