//! What may differ between a file and the model it is loaded into.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the names of a file become the names of a model, and which differences are accepted.
///
/// A name in the file is translated in four steps (unless nothing is selected and the model has a variable of exactly
/// that name already): prefixes are [stripped](Self::strip), one subtree is [selected](Self::select), segments are
/// [renamed](Self::rename), and what lies under a [dropped](Self::drop) prefix is left out.
///
/// ```
/// use core_tensor::checkpoint::LoadPolicy;
/// // `module.encoder_q.layer1.0.conv1.weight` → `layer1.0.conv1.weight`; the projection head stays the model's own.
/// let moco = LoadPolicy { select: Some("encoder_q.".into()), ..LoadPolicy::without(["fc."]) };
/// moco.validate().unwrap();
/// assert_eq!(moco.translate("module.encoder_q.conv1.weight").as_deref(), Some("conv1.weight"));
/// assert_eq!(moco.translate("module.encoder_k.conv1.weight"), None);
/// assert_eq!(moco.translate("module.queue"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadPolicy {
    /// Prefixes taken off, each once and in this order, where a name has them. Default: `module.` (which
    /// `DataParallel` puts on) and `model.`.
    pub strip: Vec<String>,
    /// Keep only the names under this prefix, and take it off: `encoder_q.` of a MoCo checkpoint. Default: none.
    pub select: Option<String>,
    /// Renamed segments, applied in this order. Default: none.
    pub rename: Vec<Rename>,
    /// Prefixes of the model's names that keep the model's own values whatever the file holds: a head for other
    /// classes. Default: none.
    pub drop: Vec<String>,
    /// Variables of the model that the file lacks. Default: refuse.
    pub missing: Tolerance,
    /// Tensors of the file that the model lacks. Default: refuse. (A batch norm's `num_batches_tracked`, which tch
    /// has no use for, is always accepted.)
    pub unexpected: Tolerance,
    /// Variables whose shape differs between the two, which then keep the model's values. Default: refuse.
    pub mismatched: Tolerance,
}

/// Where a difference is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// Nowhere.
    #[default]
    Refuse,
    /// For names that begin with one of these.
    Under(Vec<String>),
    /// Everywhere.
    Anywhere,
}

/// One renaming: the first place where the dotted segments `from` appear whole becomes `to`.
///
/// `shortcut → downsample` turns `layer2.0.shortcut.0.weight` into `layer2.0.downsample.0.weight` and leaves
/// `layer2.0.shortcuts.weight` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Dotted segments, such as `blocks.3`.
    pub from: String,
    /// What takes their place, such as `layer2.0`.
    pub to: String,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        Self::strict()
    }
}

impl LoadPolicy {
    /// Every variable comes from the file, and everything in the file is used.
    pub fn strict() -> Self {
        Self {
            strip: vec!["module.".into(), "model.".into()],
            select: None,
            rename: Vec::new(),
            drop: Vec::new(),
            missing: Tolerance::Refuse,
            unexpected: Tolerance::Refuse,
            mismatched: Tolerance::Refuse,
        }
    }

    /// As [strict](Self::strict), except that what lies under these prefixes keeps the model's values: a backbone
    /// for a new task, with `["fc."]`.
    pub fn without<S: Into<String>>(heads: impl IntoIterator<Item = S>) -> Self {
        Self { drop: heads.into_iter().map(Into::into).collect(), ..Self::strict() }
    }

    /// Whatever fits by name and shape is loaded, the rest is only reported. (A file of which nothing fits is still
    /// refused.)
    pub fn overlap() -> Self {
        Self {
            missing: Tolerance::Anywhere,
            unexpected: Tolerance::Anywhere,
            mismatched: Tolerance::Anywhere,
            ..Self::strict()
        }
    }

    /// Checks that no prefix or renaming is empty.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let prefixes = [
            ("strip", self.strip.as_slice()),
            ("select", self.select.as_slice()),
            ("drop", self.drop.as_slice()),
            ("missing", self.missing.prefixes()),
            ("unexpected", self.unexpected.prefixes()),
            ("mismatched", self.mismatched.prefixes()),
        ];
        for (setting, prefixes) in prefixes {
            if prefixes.iter().any(String::is_empty) {
                return Err(Error::setting(setting, "prefixes of at least one character", "an empty one"));
            }
        }
        for Rename { from, to } in &self.rename {
            if [from, to].into_iter().any(|segments| segments.split('.').any(str::is_empty)) {
                return Err(Error::setting("rename", "dotted segments on both sides", format!("`{from}` → `{to}`")));
            }
        }
        Ok(())
    }

    /// The model's name for a tensor of the file, before [`drop`](Self::drop) is considered; nothing when it lies
    /// outside [`select`](Self::select).
    pub fn translate(&self, name: &str) -> Option<String> {
        let mut rest = name;
        for prefix in &self.strip {
            rest = rest.strip_prefix(prefix.as_str()).unwrap_or(rest);
        }
        if let Some(prefix) = &self.select {
            rest = rest.strip_prefix(prefix.as_str())?;
        }
        Some(self.rename.iter().fold(rest.to_owned(), |name, rule| rule.apply(&name).unwrap_or(name)))
    }

    /// Whether a variable of the model keeps its own value whatever the file holds.
    pub(super) fn drops(&self, name: &str) -> bool {
        self.drop.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

impl Tolerance {
    /// Whether the difference is accepted at this name.
    pub fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Refuse => false,
            Self::Under(prefixes) => prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())),
            Self::Anywhere => true,
        }
    }

    fn prefixes(&self) -> &[String] {
        match self {
            Self::Under(prefixes) => prefixes,
            Self::Refuse | Self::Anywhere => &[],
        }
    }
}

impl Rename {
    /// One renaming.
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: from.into(), to: to.into() }
    }

    /// Names of the usual stand-alone CIFAR ResNets (`shortcut`, `linear`) as torchvision's.
    pub fn from_shortcut_style() -> Vec<Self> {
        vec![Self::new("shortcut", "downsample"), Self::new("linear", "fc")]
    }

    /// Names of open_lth's CIFAR ResNets (`conv`, `bn`, `blocks.{i}`, `shortcut`) as torchvision's, for a network of
    /// three stages with this many blocks each.
    pub fn from_open_lth(blocks_per_stage: usize) -> Vec<Self> {
        let mut rules = vec![Self::new("conv", "conv1"), Self::new("bn", "bn1"), Self::new("shortcut", "downsample")];
        rules.extend((0..3 * blocks_per_stage).map(|block| {
            let (stage, place) = (block / blocks_per_stage + 1, block % blocks_per_stage);
            Self::new(format!("blocks.{block}"), format!("layer{stage}.{place}"))
        }));
        rules
    }

    /// The renamed name, or nothing when `from` does not appear.
    fn apply(&self, name: &str) -> Option<String> {
        let (segments, from): (Vec<&str>, Vec<&str>) = (name.split('.').collect(), self.from.split('.').collect());
        let start = segments.windows(from.len()).position(|window| window == from)?;
        Some([&segments[..start], &[self.to.as_str()], &segments[start + from.len()..]].concat().join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_stripped_in_order_and_once() {
        let policy = LoadPolicy::strict();
        assert_eq!(policy.translate("module.model.conv1.weight").as_deref(), Some("conv1.weight"));
        assert_eq!(policy.translate("module.module.conv1.weight").as_deref(), Some("module.conv1.weight"));
        assert_eq!(policy.translate("conv1.weight").as_deref(), Some("conv1.weight"));
    }

    #[test]
    fn renaming_only_touches_whole_segments() {
        let rule = Rename::new("blocks.1", "layer1.1");
        assert_eq!(rule.apply("blocks.1.conv1.weight").as_deref(), Some("layer1.1.conv1.weight"));
        assert_eq!(rule.apply("net.blocks.1").as_deref(), Some("net.layer1.1"));
        assert_eq!(rule.apply("blocks.10.conv1.weight"), None);
        assert_eq!(rule.apply("subblocks.1.conv1.weight"), None);
        // `0.0` is also found across `10.0`, where it is not whole.
        assert_eq!(Rename::new("0.0", "3").apply("10.0.0.weight").as_deref(), Some("10.3.weight"));
        let twice = Rename::new("a", "b");
        assert_eq!(twice.apply("xa.a.a").as_deref(), Some("xa.b.a"));
    }

    #[test]
    fn open_lth_names_become_torchvisions() {
        let policy = LoadPolicy { rename: Rename::from_open_lth(3), ..LoadPolicy::strict() };
        for (theirs, ours) in [
            ("model.conv.weight", "conv1.weight"),
            ("model.bn.running_mean", "bn1.running_mean"),
            ("model.blocks.0.conv1.weight", "layer1.0.conv1.weight"),
            ("model.blocks.3.shortcut.0.weight", "layer2.0.downsample.0.weight"),
            ("model.blocks.8.bn2.bias", "layer3.2.bn2.bias"),
            ("model.fc.weight", "fc.weight"),
        ] {
            assert_eq!(policy.translate(theirs).as_deref(), Some(ours));
        }
    }

    #[test]
    fn shortcut_style_names_become_torchvisions() {
        let policy = LoadPolicy { rename: Rename::from_shortcut_style(), ..LoadPolicy::strict() };
        assert_eq!(policy.translate("module.layer2.0.shortcut.1.bias").as_deref(), Some("layer2.0.downsample.1.bias"));
        assert_eq!(policy.translate("module.linear.weight").as_deref(), Some("fc.weight"));
    }

    #[test]
    fn empty_prefixes_and_segments_are_refused_by_field() {
        let refused = |policy: LoadPolicy| policy.validate().unwrap_err().to_string();
        assert!(refused(LoadPolicy { select: Some(String::new()), ..LoadPolicy::strict() }).starts_with("select"));
        assert!(refused(LoadPolicy::without([""])).starts_with("drop"));
        let missing = Tolerance::Under(vec![String::new()]);
        assert!(refused(LoadPolicy { missing, ..LoadPolicy::strict() }).starts_with("missing"));
        let rename = vec![Rename::new("a..b", "c")];
        assert!(refused(LoadPolicy { rename, ..LoadPolicy::strict() }).starts_with("rename"));
    }

    #[test]
    fn a_policy_reads_from_json_with_its_defaults() {
        let policy: LoadPolicy =
            serde_json::from_str(r#"{"drop": ["fc."], "unexpected": {"under": ["head."]}, "missing": "anywhere"}"#)
                .unwrap();
        assert_eq!(policy.strip, LoadPolicy::strict().strip);
        assert!(policy.unexpected.accepts("head.0.weight") && !policy.unexpected.accepts("conv1.weight"));
        assert_eq!(policy.missing, Tolerance::Anywhere);
        assert!(serde_json::from_str::<LoadPolicy>(r#"{"strict": true}"#).is_err());
    }
}
