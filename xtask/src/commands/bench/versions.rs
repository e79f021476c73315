//! What is installed in a Python environment.

use std::path::Path;
use std::process::Command;

use serde::{Serialize, Serializer};

use super::machine::{said, unknown};

/// Python's version and its packages'.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Versions {
    python: String,
    /// `name==version`, sorted; nothing where pip is not there.
    #[serde(serialize_with = "known_or_not")]
    packages: Option<Vec<String>>,
}

impl Versions {
    pub(super) fn of(python: &Path) -> Self {
        let ask = |arguments: &[&str]| said(Command::new(python).args(arguments));
        let packages = ask(&["-m", "pip", "--disable-pip-version-check", "freeze"]);
        Self {
            python: ask(&["--version"]).filter(|version| !version.is_empty()).unwrap_or_else(unknown),
            packages: packages.map(|frozen| pinned(&frozen)),
        }
    }

    /// Python's version, and those of the packages that the requirements name.
    pub(super) fn describe(&self, requirements: &[String]) -> String {
        let version = |requirement: &String| {
            let name = package(requirement);
            format!("{name} {}", self.version(name).unwrap_or("unknown"))
        };
        let packages = requirements.iter().map(version);
        std::iter::once(self.python.clone()).chain(packages).collect::<Vec<_>>().join(", ")
    }

    fn version(&self, name: &str) -> Option<&str> {
        let pins = self.packages.iter().flatten().filter_map(|pin| pin.split_once("=="));
        pins.into_iter().find(|(installed, _)| normal(installed) == normal(name)).map(|(_, version)| version)
    }
}

/// The lines of `pip freeze` that name a version, sorted. The others say where on this machine a package came from.
fn pinned(frozen: &str) -> Vec<String> {
    let is_pin = |line: &&str| line.contains("==") && !line.contains(" @ ") && !line.contains('/');
    let mut lines: Vec<String> = frozen
        .lines()
        .map(str::trim)
        .filter(is_pin)
        .filter(|line| !line.starts_with(['-', '#']))
        .map(str::to_owned)
        .collect();
    lines.sort_by_key(|line| line.to_lowercase());
    lines
}

/// The name in front of a requirement's extras and bounds.
fn package(requirement: &str) -> &str {
    let end = requirement.find(|letter: char| !(letter.is_alphanumeric() || "-_.".contains(letter)));
    &requirement[..end.unwrap_or(requirement.len())]
}

/// pip takes `Foo_Bar` and `foo-bar` for one (PEP 503).
fn normal(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

fn known_or_not<S: Serializer>(packages: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    match packages {
        Some(packages) => packages.serialize(serializer),
        None => unknown().serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROZEN: &str = "torch==2.11.0+cpu\nnumpy==2.1.0\nantialiased-cnns @ file:///srv/wheels/a.whl\n\
        -e /home/somebody/thing\n# Editable install with no version control (thing==0.1)\n\
        other @ git+https://example.org/other@abc\nscikit_learn==1.7\n";

    #[test]
    fn lines_that_name_a_place_are_left_out() {
        assert_eq!(pinned(FROZEN), ["numpy==2.1.0", "scikit_learn==1.7", "torch==2.11.0+cpu"]);
    }

    #[test]
    fn a_reader_gets_the_packages_that_the_manifest_names() {
        let versions = Versions { python: "Python 3.11.2".to_owned(), packages: Some(pinned(FROZEN)) };
        let requirements = ["torch==2.11.0", "Scikit-Learn<2", "numpy", "gone[extra]>=1"].map(str::to_owned);
        assert_eq!(
            versions.describe(&requirements),
            "Python 3.11.2, torch 2.11.0+cpu, Scikit-Learn 1.7, numpy 2.1.0, gone unknown"
        );
    }

    #[test]
    fn a_python_without_pip_has_unknown_packages() {
        let versions = Versions::of(Path::new("no-such-python"));
        let json = serde_json::to_value(&versions).unwrap();
        assert_eq!(json, serde_json::json!({"python": "unknown", "packages": "unknown"}));
        assert_eq!(versions.describe(&["numpy".to_owned()]), "unknown, numpy unknown");
    }
}
