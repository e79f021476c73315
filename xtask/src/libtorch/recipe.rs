//! What libtorch is made of: archives with their checksums, and what to keep of each. See `libtorch.toml`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Sources of one version of libtorch, in the order in which they are tried.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) version: String,
    #[serde(rename = "source")]
    pub(crate) sources: Vec<Source>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Source {
    /// One archive at one address.
    Zip { name: String, url: String, file: String, sha256: Option<String>, take: Vec<Take> },
    /// Wheels of a Python index, fetched by pip.
    Wheels {
        name: String,
        #[serde(rename = "wheel")]
        wheels: Vec<Wheel>,
    },
}

/// One wheel, pinned to the byte.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) take: Vec<Take>,
}

/// What to keep of an archive, and under which name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Take {
    /// A member, or everything below a folder when it ends in `/`.
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only members whose name holds this.
    #[serde(default)]
    pub(crate) containing: String,
}

impl Recipe {
    /// The pinned recipe, or the one in `file`.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        match file {
            None => Self::parse(include_str!("../../libtorch.toml")).context("the built-in recipe is wrong"),
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read the recipe {}", path.display()))?;
                Self::parse(&text).with_context(|| format!("{} is not a recipe", path.display()))
            }
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let recipe: Self = toml::from_str(text)?;
        for source in &recipe.sources {
            if let Source::Wheels { wheels, .. } = source {
                for wheel in wheels {
                    wheel.platforms()?;
                }
            }
        }
        Ok(recipe)
    }
}

impl Source {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Zip { name, .. } | Self::Wheels { name, .. } => name,
        }
    }
}

impl Wheel {
    /// The wheel as people name it.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.package, self.version)
    }

    /// The platform tags in the file's name (PEP 427: name-version-python-abi-platform.whl, tags joined by dots).
    pub(crate) fn platforms(&self) -> Result<Vec<&str>> {
        match self.file.strip_suffix(".whl").and_then(|stem| stem.rsplit_once('-')) {
            Some((_, platforms)) => Ok(platforms.split('.').collect()),
            None => bail!("{} is not a wheel's name", self.file),
        }
    }
}

impl Take {
    /// The name under which the archive's member `name` is kept; `None` when it is not.
    pub(crate) fn rename(&self, name: &str) -> Option<String> {
        if self.from.ends_with('/') {
            let rest = name.strip_prefix(&self.from)?;
            (!rest.is_empty() && rest.contains(&self.containing)).then(|| format!("{}{rest}", self.to))
        } else {
            (name == self.from).then(|| self.to.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_recipe_pins_every_wheel() {
        let recipe = Recipe::read(None).unwrap();
        assert_eq!(recipe.version, "2.11.0");
        let wheels: Vec<&Wheel> = recipe
            .sources
            .iter()
            .filter_map(|source| match source {
                Source::Wheels { wheels, .. } => Some(wheels),
                Source::Zip { .. } => None,
            })
            .flatten()
            .collect();
        assert_eq!(wheels.len(), 3);
        assert!(wheels.iter().all(|wheel| wheel.sha256.len() == 64 && wheel.file.contains(&wheel.version)));
    }

    #[test]
    fn a_wheels_platforms_are_its_last_tag() {
        let recipe = Recipe::read(None).unwrap();
        let Source::Wheels { wheels, .. } = &recipe.sources[1] else { panic!("the second source is the index") };
        assert_eq!(wheels[0].platforms().unwrap(), ["manylinux_2_28_x86_64"]);
        assert_eq!(wheels[2].platforms().unwrap(), ["manylinux2014_x86_64", "manylinux_2_17_x86_64"]);
    }

    #[test]
    fn members_are_kept_by_folder_by_part_of_their_name_or_one_by_one() {
        let folder = Take { from: "t/lib/".into(), to: "lib/".into(), containing: ".so".into() };
        assert_eq!(folder.rename("t/lib/libc10.so").as_deref(), Some("lib/libc10.so"));
        assert_eq!(folder.rename("t/lib/libdnnl.a"), None);
        assert_eq!(folder.rename("t/lib/"), None);
        let one = Take { from: "t/a.so".into(), to: "lib/b.so".into(), containing: String::new() };
        assert_eq!(one.rename("t/a.so").as_deref(), Some("lib/b.so"));
        assert_eq!(one.rename("t/a.so.1"), None);
    }

    #[test]
    fn a_recipe_with_an_unknown_key_is_refused() {
        let error = Recipe::parse("version = '1'\nsource = []\nsize = 3").unwrap_err();
        assert!(error.to_string().contains("size"), "{error}");
    }
}
