//! The catalogue of data sets: layouts, checksums, sources. See `datasets.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

/// Every set that an experiment can ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalogue {
    #[serde(rename = "set")]
    pub(crate) sets: Vec<DataSet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSet {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) licence: String,
    /// Room that fetching takes, archive included.
    #[serde(default)]
    pub(crate) megabytes: u64,
    /// The set is there when one of these is complete.
    #[serde(rename = "layout")]
    pub(crate) layouts: Vec<Layout>,
    #[serde(rename = "source", default)]
    pub(crate) sources: Vec<Source>,
}

/// One way in which a set may lie below the data root.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Layout {
    /// Pinned files.
    Files { title: String, folder: String, files: Vec<PinnedFile> },
    /// `<split>/<class>/<image>.jpg`, with so many images of each class in a split; kept in an archive of this name.
    Images { title: String, folder: String, archive: String, classes: Vec<String>, splits: BTreeMap<String, usize> },
    /// Brought by the user: these entries are looked for, nothing is pinned.
    User { folder: String, expect: Vec<String> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedFile {
    pub(crate) name: String,
    /// Of the content: for a `.gz` of what it unpacks to.
    pub(crate) sha256: String,
}

/// Where the pinned files can be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Source {
    /// Each file at `url` + its name.
    Files { url: String },
    /// A Debian package that holds them in `folder`.
    Debian { package: String, folder: String },
    /// A `.tar.gz` that holds the layout's folder.
    Archive { url: String, sha256: String },
}

impl Catalogue {
    /// The built-in catalogue, or the one in `file`.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        match file {
            None => toml::from_str(include_str!("../../datasets.toml")).context("the built-in catalogue is wrong"),
            Some(path) => {
                let text = fs::read_to_string(path)
                    .with_context(|| format!("cannot read the catalogue {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("{} is not a catalogue", path.display()))
            }
        }
    }

    /// The set of that name; an error lists the names there are.
    pub(crate) fn find(&self, name: &str) -> Result<&DataSet> {
        self.sets.iter().find(|set| set.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.sets.iter().map(|set| set.name.as_str()).collect();
            anyhow!("there is no data set {name:?}; there are {}", names.join(", "))
        })
    }
}

impl DataSet {
    /// Whether `data fetch` can get it at all.
    pub(crate) fn is_fetchable(&self) -> bool {
        !self.sources.is_empty()
    }
}

impl Layout {
    pub(crate) fn folder(&self) -> &str {
        match self {
            Self::Files { folder, .. } | Self::Images { folder, .. } | Self::User { folder, .. } => folder,
        }
    }

    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Files { title, .. } | Self::Images { title, .. } => title,
            Self::User { .. } => "brought by the user",
        }
    }
}

impl Source {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Files { url } | Self::Archive { url, .. } => url.clone(),
            Self::Debian { package, .. } => format!("Debian package {package}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_pins_every_file_of_what_can_be_fetched() {
        let catalogue = Catalogue::read(None).unwrap();
        for set in catalogue.sets.iter().filter(|set| set.is_fetchable()) {
            let Layout::Files { files, .. } = &set.layouts[0] else { panic!("{} has no pinned layout", set.name) };
            assert!(!files.is_empty() && files.iter().all(|file| file.sha256.len() == 64), "{}", set.name);
            assert!(set.megabytes > 0, "{}", set.name);
        }
    }

    #[test]
    fn an_unknown_set_is_answered_with_the_known_ones() {
        let error = Catalogue::read(None).unwrap().find("cifar10").unwrap_err().to_string();
        assert!(error.contains("\"cifar10\"") && error.contains("cifar-10, cifar-100"), "{error}");
    }
}
