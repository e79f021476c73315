//! Which tensors pruning may touch.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::{Tensor, nn};

/// Tensors by name, in an order that means something: pruning breaks ties by it. They share memory with the model.
pub type NamedTensor = (String, Tensor);

/// A predicate on named tensors. It is data, and goes into a ticket's record, because sparsities with different
/// denominators cannot be compared.
///
/// A tensor is a weight if its name's last component is `weight` (or `weight__3`, as tch numbers those of layers that
/// share a path) and it has two axes (linear) or more (convolution). Biases, and norms over one axis, are never chosen
/// unless a pattern asks for them.
///
/// An embedding table has two axes too, and counts as a linear weight. `.except(["*embeddings*"])` leaves out those of
/// a BERT; in other models put their own names in, since each pattern must fit some tensor. So it is with a layer norm
/// over several axes, such as `tch::nn::layer_norm(path, vec![28, 28], …)`: a weight of as many axes, to be excepted.
///
/// ```
/// use lth::Prunable;
/// use tch::{Device, Kind, Tensor};
/// let zeros = |name: &str, shape: &[i64]| (name.to_owned(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
/// let model = [
///     zeros("conv1.weight", &[8, 3, 3, 3]),
///     zeros("bn1.weight", &[8]),
///     zeros("fc1.weight", &[16, 8]),
///     zeros("fc2.weight", &[10, 16]),
/// ];
/// let names = |prunable: Prunable| -> lth::Result<Vec<String>> {
///     Ok(prunable.select(&model)?.into_iter().map(|(name, _)| name).collect())
/// };
/// assert_eq!(names(Prunable::default())?, ["conv1.weight", "fc1.weight"]);
/// assert_eq!(names(Prunable::conv_only())?, ["conv1.weight"]);
/// assert_eq!(names(Prunable::conv_and_linear().except(["conv1.*"]))?, ["fc1.weight", "fc2.weight"]);
/// assert_eq!(names(Prunable::matching(["bn*.weight"]))?, ["bn1.weight"]);
/// # Ok::<(), lth::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prunable {
    /// What is chosen.
    pub choose: Choice,
    /// Patterns of names that are not chosen after all. Each must fit some tensor.
    #[serde(default)]
    pub except: Vec<String>,
}

/// What a [`Prunable`] chooses before its exceptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Convolution and linear weights except the last in order: the classifier.
    ConvAndLinearExceptLast,
    /// All convolution and linear weights.
    ConvAndLinear,
    /// Convolution weights, the first and the 1 × 1 shortcuts included, as in the KD-ticket reference code.
    ConvOnly,
    /// Any tensor whose name fits one of the patterns. `*` stands for any run of characters; a name must fit as a whole.
    Matching(Vec<String>),
}

impl Default for Prunable {
    fn default() -> Self {
        Self::conv_and_linear_except_last()
    }
}

impl Prunable {
    /// Convolution and linear weights, embedding tables among them, except the last in order. The default.
    pub fn conv_and_linear_except_last() -> Self {
        Self { choose: Choice::ConvAndLinearExceptLast, except: Vec::new() }
    }

    /// All convolution and linear weights; embedding tables are among them.
    pub fn conv_and_linear() -> Self {
        Self { choose: Choice::ConvAndLinear, except: Vec::new() }
    }

    /// Convolution weights only.
    pub fn conv_only() -> Self {
        Self { choose: Choice::ConvOnly, except: Vec::new() }
    }

    /// Tensors whose whole name fits one of the patterns, in which `*` stands for any run of characters.
    pub fn matching<S: Into<String>>(patterns: impl IntoIterator<Item = S>) -> Self {
        Self { choose: Choice::Matching(patterns.into_iter().map(Into::into).collect()), except: Vec::new() }
    }

    /// The same without the tensors whose names fit one of these patterns.
    pub fn except<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.except.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// The chosen tensors, in the given order.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a pattern that fits nothing, [`Error::NothingToPrune`] if nothing is left.
    pub fn select(&self, tensors: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
        let patterns = match &self.choose {
            Choice::Matching(patterns) => patterns.as_slice(),
            _ => &[],
        };
        for pattern in patterns.iter().chain(&self.except) {
            if !tensors.iter().any(|(name, _)| fits(pattern, name)) {
                let known = tensors.iter().map(|(name, _)| name.clone()).collect();
                return Err(Error::UnknownName { pattern: pattern.clone(), known });
            }
        }
        let mut chosen: Vec<&NamedTensor> =
            tensors.iter().filter(|(name, tensor)| self.choose.allows(name, tensor.dim())).collect();
        if self.choose == Choice::ConvAndLinearExceptLast {
            chosen.pop();
        }
        chosen.retain(|(name, tensor)| tensor.numel() > 0 && !self.excepts(name));
        if chosen.is_empty() {
            return Err(Error::NothingToPrune { tensors: tensors.len(), predicate: self.to_string() });
        }
        Ok(chosen.into_iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect())
    }

    /// Whether a tensor may be among the chosen, as far as its name and number of axes tell: which one is the last, they do not.
    pub(crate) fn allows(&self, name: &str, axes: usize) -> bool {
        self.choose.allows(name, axes) && !self.excepts(name)
    }

    fn excepts(&self, name: &str) -> bool {
        self.except.iter().any(|pattern| fits(pattern, name))
    }

    /// [`select`](Self::select) on the trainable variables of a store in the order they were created.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn select_from(&self, store: &nn::VarStore) -> Result<Vec<NamedTensor>> {
        self.select(&trainable_variables(store))
    }
}

impl Choice {
    fn allows(&self, name: &str, axes: usize) -> bool {
        match self {
            Self::ConvAndLinear | Self::ConvAndLinearExceptLast => is_weight(name) && axes >= 2,
            Self::ConvOnly => is_weight(name) && axes >= 3,
            Self::Matching(patterns) => patterns.iter().any(|pattern| fits(pattern, name)),
        }
    }
}

impl std::fmt::Display for Prunable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match &self.choose {
            Choice::ConvAndLinearExceptLast => formatter.write_str("convolution and linear weights except the last")?,
            Choice::ConvAndLinear => formatter.write_str("convolution and linear weights")?,
            Choice::ConvOnly => formatter.write_str("convolution weights")?,
            Choice::Matching(patterns) => write!(formatter, "tensors matching {}", patterns.join(", "))?,
        }
        if self.except.is_empty() { Ok(()) } else { write!(formatter, ", except {}", self.except.join(", ")) }
    }
}

/// The trainable variables of a store in the order they were created, which for a network is the order of its layers.
pub fn trainable_variables(store: &nn::VarStore) -> Vec<NamedTensor> {
    // The store keeps names in a hash map and creation order in a list without names; the address of a variable's
    // memory joins them. Variables without elements have no address of their own and go last, by name.
    let place: HashMap<_, _> = store
        .trainable_variables()
        .iter()
        .enumerate()
        .filter(|(_, tensor)| tensor.numel() > 0)
        .map(|(place, tensor)| (tensor.data_ptr(), place))
        .collect();
    let mut variables: Vec<_> = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    variables.sort_by_cached_key(|(name, tensor)| {
        (place.get(&tensor.data_ptr()).copied().unwrap_or(usize::MAX), name.clone())
    });
    variables
}

/// Whether a variable is called `weight`. tch numbers a name that its path has already: `weight__3`.
fn is_weight(name: &str) -> bool {
    let (_, last) = name.rsplit_once('.').unwrap_or(("", name));
    let numbered = last.strip_prefix("weight__");
    last == "weight" || numbered.is_some_and(|number| number.parse::<usize>().is_ok())
}

/// Whether `name` as a whole fits `pattern`, in which `*` stands for any run of characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|at| fits(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn zeros(name: &str, shape: &[i64]) -> NamedTensor {
        (name.to_owned(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
    }

    #[test]
    fn a_pattern_fits_the_whole_name() {
        assert!(fits("conv1.weight", "conv1.weight"));
        assert!(!fits("conv1.weight", "layer1.0.conv1.weight"));
        assert!(fits("*conv1.weight", "layer1.0.conv1.weight"));
        assert!(fits("layer*.bn*.weight", "layer1.0.bn2.weight"));
        assert!(!fits("layer*.bn*.weight", "layer1.0.bn2.bias"));
        assert!(fits("*", "") && fits("a*", "a") && !fits("a*b", "a"));
    }

    #[test]
    fn creation_order_decides_what_the_last_layer_is() {
        // By name `classifier` would come before `features`.
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let features = nn::linear(&root / "features", 4, 3, Default::default());
        let classifier = nn::linear(&root / "classifier", 3, 2, Default::default());
        let names: Vec<_> = trainable_variables(&store).into_iter().map(|(name, _)| name).collect();
        // tch creates a linear layer's bias first.
        assert_eq!(names, ["features.bias", "features.weight", "classifier.bias", "classifier.weight"]);
        let chosen = Prunable::default().select_from(&store).unwrap();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].0, "features.weight");
        drop((features, classifier));
    }

    #[test]
    fn weights_of_layers_that_share_a_path_are_weights() {
        // As in the MNIST example of tch, which numbers their names.
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        nn::conv2d(&root, 1, 2, 3, Default::default());
        nn::conv2d(&root, 2, 2, 3, Default::default());
        nn::linear(&root, 8, 4, Default::default());
        nn::linear(&root, 4, 2, Default::default());
        let names = |prunable: Prunable| -> Vec<String> {
            prunable.select_from(&store).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        // Each layer makes a bias and a weight, and the number is that of the variables so far.
        let all = ["weight", "weight__3", "weight__5", "weight__7"];
        assert_eq!(names(Prunable::conv_and_linear()), all);
        assert_eq!(names(Prunable::default()), all[..3]);
        assert_eq!(names(Prunable::conv_only()), all[..2]);
        assert!(is_weight("fc.weight") && is_weight("fc.weight__12"));
        assert!(!is_weight("fc.weight__mask") && !is_weight("fc.weight__") && !is_weight("weight.bias__3"));
    }

    #[test]
    fn embedding_tables_are_linear_weights_unless_a_pattern_excepts_them() {
        let model = [
            zeros("bert.embeddings.word_embeddings.weight", &[40, 16]),
            zeros("bert.embeddings.LayerNorm.weight", &[16]),
            zeros("bert.encoder.layer.0.output.dense.weight", &[16, 64]),
            zeros("classifier.weight", &[2, 16]),
        ];
        let names = |prunable: Prunable| -> Vec<String> {
            prunable.select(&model).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        let encoder = "bert.encoder.layer.0.output.dense.weight";
        assert_eq!(names(Prunable::default()), ["bert.embeddings.word_embeddings.weight", encoder]);
        assert_eq!(names(Prunable::default().except(["*embeddings*"])), [encoder]);
    }

    #[test]
    fn a_layer_norm_over_several_axes_counts_as_a_weight_unless_a_pattern_excepts_it() {
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        nn::layer_norm(&root / "image", vec![4, 4], Default::default());
        nn::layer_norm(&root / "row", vec![4], Default::default());
        nn::linear(&root / "fc", 4, 2, Default::default());
        let names = |prunable: Prunable| -> Vec<String> {
            prunable.select_from(&store).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Prunable::conv_and_linear()), ["image.weight", "fc.weight"]);
        assert_eq!(names(Prunable::conv_and_linear().except(["image.*"])), ["fc.weight"]);
    }

    #[test]
    fn names_and_axes_tell_what_may_be_chosen() {
        let conv = Prunable::conv_only().except(["conv1.weight"]);
        assert!(conv.allows("layer1.0.conv1.weight", 4));
        assert!(
            !conv.allows("conv1.weight", 4) && !conv.allows("fc.weight", 2) && !conv.allows("layer1.0.conv1.bias", 4)
        );
        // Which of them is the last is not known.
        assert!(Prunable::default().allows("fc.weight", 2) && !Prunable::default().allows("bn1.weight", 1));
        let norms = Prunable::matching(["*bn*.weight"]);
        assert!(norms.allows("layer1.0.bn2.weight", 1) && !norms.allows("layer2.0.downsample.1.weight", 1));
    }

    #[test]
    fn patterns_that_fit_nothing_and_empty_choices_are_refused() {
        let model = [zeros("fc.weight", &[2, 2]), zeros("fc.bias", &[2])];
        let refuse = |prunable: Prunable| prunable.select(&model).unwrap_err().to_string();
        assert!(refuse(Prunable::conv_and_linear().except(["conv1.weight"])).contains("`conv1.weight` fits no tensor"));
        assert!(refuse(Prunable::matching(["bn*"])).contains("`bn*` fits no tensor"));
        assert!(refuse(Prunable::conv_only()).contains("none of 2 tensors is chosen by convolution weights"));
        assert!(refuse(Prunable::default()).contains("nothing to prune"));
        assert!(refuse(Prunable::conv_and_linear().except(["fc.*"])).contains("except fc.*"));
    }
}
