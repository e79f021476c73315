//! Which scripts do the same work as which of our benches, and what is wanted of them: `benches/peers/peers.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// What pip installs for each environment; `default` is that of peers which name none.
    environments: BTreeMap<String, Vec<String>>,
    #[serde(rename = "peer", default)]
    pub(super) peers: Vec<Peer>,
    #[serde(rename = "target", default)]
    pub(super) targets: Vec<Target>,
    #[serde(default)]
    pub(super) unmeasured: Vec<Unmeasured>,
}

/// Somebody else's way of doing what one of our benches does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) script: String,
    /// The Python environment it runs in.
    #[serde(default = "default_environment")]
    pub(super) environment: String,
    /// `{data}` stands for the data root, `{target}` for cargo's target folder, `{threads}` for the number of threads.
    #[serde(default)]
    pub(super) args: Vec<String>,
    /// The line of the script's output: the JSON object in which these fields have these values.
    #[serde(default)]
    pub(super) select: BTreeMap<String, Value>,
    /// The field with the seconds that one iteration takes: a list of them, or their median.
    #[serde(default = "seconds")]
    pub(super) field: String,
    /// Criterion's id of our bench.
    pub(super) ours: String,
    /// Bound of ours ÷ theirs.
    pub(super) want: f64,
    /// The most rounds that it takes part in, for scripts that take long.
    rounds: Option<usize>,
    /// Results that both sides must have, and how far they may lie apart.
    #[serde(default)]
    pub(super) agree: BTreeMap<String, f64>,
    /// What a reader of the report should know.
    pub(super) note: Option<String>,
}

/// A bound of our own for one of our benches.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) name: Option<String>,
    /// Criterion's id of our bench.
    pub(super) bench: String,
    /// Another bench, which the bound is relative to.
    pub(super) of: Option<String>,
    /// Seconds, or bench ÷ `of`.
    pub(super) at_most: f64,
}

/// A goal that no bench measures.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unmeasured {
    pub(super) name: String,
    pub(super) why: String,
}

fn default_environment() -> String {
    "default".to_owned()
}

fn seconds() -> String {
    "seconds".to_owned()
}

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a list of peers", path.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text)?;
        for peer in &manifest.peers {
            if !manifest.environments.contains_key(&peer.environment) {
                bail!("{}: there is no environment {:?}", peer.name, peer.environment);
            }
            peer.validate()?;
        }
        for Target { name, bench, at_most, .. } in &manifest.targets {
            ensure!(
                is_bound(*at_most),
                "target {}: at_most must be finite and above 0, not {at_most}",
                name.as_ref().unwrap_or(bench)
            );
        }
        Ok(manifest)
    }

    /// What pip installs into the environment.
    pub(super) fn requirements(&self, environment: &str) -> &[String] {
        self.environments.get(environment).map_or(&[], Vec::as_slice)
    }
}

impl Peer {
    fn validate(&self) -> Result<()> {
        let Self { name, want, .. } = self;
        ensure!(is_bound(*want), "{name}: want must be finite and above 0, not {want}");
        ensure!(self.rounds != Some(0), "{name}: rounds must be at least 1");
        for (result, tolerance) in &self.agree {
            ensure!(
                tolerance.is_finite() && *tolerance >= 0.0,
                "{name}: the tolerance of {result:?} must be finite and at least 0, not {tolerance}"
            );
        }
        Ok(())
    }

    /// The rounds it takes part in when there are `all`.
    pub(super) fn rounds(&self, all: usize) -> usize {
        self.rounds.map_or(all, |most| most.min(all))
    }

    /// What is run for it. Of one environment: the same script may time another version of a library in another.
    pub(super) fn invocation(&self) -> (&str, &str, &[String]) {
        (&self.environment, &self.script, &self.args)
    }
}

fn is_bound(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    const PEER: &str = "[environments]\ndefault = []\n[[peer]]\nname = 'forest'\nscript = 'p.py'\nours = 'x'\n";

    /// Why the text is refused.
    fn refusal(text: &str) -> String {
        format!("{:#}", Manifest::parse(text).unwrap_err())
    }

    #[test]
    fn the_projects_own_list_of_peers_can_be_read() {
        let workspace = Workspace::current().unwrap();
        let folder = workspace.root().join("benches/peers");
        let manifest = Manifest::read(&folder.join("peers.toml")).unwrap();
        for peer in manifest.peers {
            assert!(folder.join(&peer.script).is_file(), "{} is not there", peer.script);
        }
    }

    #[test]
    fn every_key_is_read() {
        let manifest = Manifest::parse(&format!(
            "{PEER}want = 1\nrounds = 1\nagree = {{ accuracy = 0.01, rows = 0 }}\nnote = 'n'\nargs = ['{{threads}}']\n\
             [[target]]\nbench = 'x'\nat_most = 0.3\n\
             [[target]]\nname = 'overhead'\nbench = 'x'\nof = 'y'\nat_most = 1.1\n\
             [[unmeasured]]\nname = 'memory'\nwhy = 'no bench reads it'\n"
        ))
        .unwrap();
        let peer = &manifest.peers[0];
        assert_eq!((peer.rounds(3), peer.note.as_deref()), (1, Some("n")));
        assert_eq!(peer.agree, BTreeMap::from([("accuracy".to_owned(), 0.01), ("rows".to_owned(), 0.0)]));
        assert_eq!(manifest.targets[1].of.as_deref(), Some("y"));
        assert_eq!(manifest.unmeasured[0].why, "no bench reads it");
    }

    #[test]
    fn a_peer_takes_part_in_every_round_unless_it_says_how_many() {
        let peer = |rounds: &str| Manifest::parse(&format!("{PEER}want = 1\n{rounds}")).unwrap().peers.remove(0);
        assert_eq!(peer("").rounds(3), 3);
        assert_eq!(peer("rounds = 2").rounds(3), 2);
        assert_eq!(peer("rounds = 5").rounds(3), 3);
    }

    #[test]
    fn an_environment_that_is_not_listed_is_refused() {
        let said = refusal(&format!("{PEER}want = 1.0\nenvironment = 'moon'\n"));
        assert!(said.contains("forest") && said.contains("moon"), "{said}");
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_by_its_name() {
        for table in ["peer", "target", "unmeasured"] {
            let said = refusal(&format!("[environments]\ndefault = []\n[[{table}]]\nfild = 1\n"));
            assert!(said.contains("unknown field `fild`"), "{said}");
        }
        let said = refusal("[environments]\ndefault = []\n[[peers]]\n");
        assert!(said.contains("unknown field `peers`"), "{said}");
    }

    #[test]
    fn a_number_that_makes_no_sense_is_refused_with_the_peers_name() {
        for want in ["0", "-1.0", "inf", "nan"] {
            let said = refusal(&format!("{PEER}want = {want}\n"));
            assert!(said.starts_with("forest: want must be finite and above 0"), "{said}");
            let said = refusal(&format!("[environments]\n[[target]]\nname = 'speed'\nbench = 'x'\nat_most = {want}\n"));
            assert!(said.starts_with("target speed: at_most must be finite and above 0"), "{said}");
        }
        let said = refusal(&format!("{PEER}want = 1\nrounds = 0\n"));
        assert_eq!(said, "forest: rounds must be at least 1");
        let said = refusal(&format!("{PEER}want = 1\nagree = {{ accuracy = -0.1 }}\n"));
        assert_eq!(said, "forest: the tolerance of \"accuracy\" must be finite and at least 0, not -0.1");
    }

    #[test]
    fn a_peer_without_a_bound_is_refused() {
        assert!(refusal(PEER).contains("missing field `want`"));
    }
}
