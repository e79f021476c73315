//! Which scripts do the same work as which of our benches: `benches/peers/peers.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// What pip installs for each environment; `default` is that of peers which name none.
    environments: BTreeMap<String, Vec<String>>,
    #[serde(rename = "peer", default)]
    pub(super) peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) script: String,
    /// The Python environment it runs in.
    #[serde(default = "default_environment")]
    pub(super) environment: String,
    /// `{data}` stands for the data root, `{target}` for cargo's target folder.
    #[serde(default)]
    pub(super) args: Vec<String>,
    /// The line of the script's output: the JSON object in which these fields have these values.
    #[serde(default)]
    pub(super) select: BTreeMap<String, Value>,
    /// The field with the seconds that one iteration takes: a median.
    #[serde(default = "seconds")]
    pub(super) field: String,
    /// Criterion's id of our bench.
    pub(super) ours: String,
    /// Bound of ours ÷ theirs.
    pub(super) want: f64,
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
        }
        Ok(manifest)
    }

    /// What pip installs into the environment.
    pub(super) fn requirements(&self, environment: &str) -> &[String] {
        self.environments.get(environment).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

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
    fn an_environment_that_is_not_listed_is_refused() {
        let peer = "[[peer]]\nname = 'x'\nscript = 'p.py'\nours = 'x'\nwant = 1.0\nenvironment = 'moon'\n";
        let error = Manifest::parse(&format!("[environments]\ndefault = []\n{peer}")).unwrap_err();
        assert!(error.to_string().contains("moon"), "{error}");
    }
}
