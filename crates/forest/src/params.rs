//! Every setting of a soft forest, with its default and where the default comes from.

use serde::{Deserialize, Serialize};

use crate::error::{ForestError, Result};
use crate::gate::Gate;

/// How the shape of the trees is learned. The leafness of a gate is the probability that the node is a leaf after all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Leafness {
    /// Leafness = sigmoid(s) with s free, starting at `init`. +2 starts as "buds" (leafness 0.88) and ends in small trees,
    /// 0 with [`Regularisers::size`] 1e-3 in the smallest at equal accuracy, -2 in almost full trees.
    Logit {
        /// Starting value of s.
        init: f32,
    },
    /// Leafness stored directly and projected on [0, 1] after each step, as budding trees do (Irsoy et al. 2014).
    Clamped {
        /// Starting leafness in [0, 1]. 1 is a trap: a pure leaf sends its children no gradient.
        init: f32,
    },
    /// Full trees of the given depth; nothing is learned about the shape.
    Fixed,
    /// Random trees of about this many nodes each; nothing is learned about the shape. The control that a learned shape
    /// has to beat.
    Random {
        /// Nodes a tree.
        nodes: usize,
    },
}

/// What is averaged on the way up a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mix {
    /// Distributions: every node's response goes through softmax, and the tree mixes the results. A tree's output is a
    /// convex combination of what its leaves say.
    #[default]
    Probabilities,
    /// Logits: softmax is applied once, to the mixture, as the budding-tree reference does.
    Logits,
}

/// What a node says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeafModel {
    /// A constant: a class distribution, or values.
    #[default]
    Constant,
    /// A linear function of the inputs, as in budding trees: logits, or values. Fewer and larger nodes. For classification
    /// only with [`Mix::Logits`]. Skipping has no useful bound, as nothing limits what a skipped leaf would have said.
    Linear,
}

/// What training minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Sum over trees of each tree's own negative log-likelihood (or squared error): trees do not see one another.
    #[default]
    PerTree,
    /// Negative log-likelihood (or squared error) of the forest's mean, of each row over the trees that see it.
    Joint,
    /// Per tree, the cross-entropy of every node weighted by its stop mass: an upper bound of `PerTree` by Jensen, and the
    /// loss of Frosst and Hinton (2017). Classification with [`Mix::Probabilities`] only.
    LeafCrossEntropy,
}

/// How node responses (and, with `ClosedForm`, leafness) are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LeafUpdate {
    /// By gradient, with everything else.
    #[default]
    Gradient,
    /// By expectation-maximisation over the whole training set after each epoch, gates held fixed, each node counting 0.1 rows
    /// more, spread evenly over the classes. What never falls in a round is the likelihood times that prior; by itself it may
    /// fall a little. Classification with [`Mix::Probabilities`] and [`Loss::PerTree`] only. It is of a whole fit:
    /// [`partial_fit`](crate::SoftForest::partial_fit) goes by gradient.
    ClosedForm {
        /// Rounds an epoch.
        rounds: usize,
        /// Whether leafness is updated in the same way.
        leafness: bool,
    },
}

/// Penalties added to the loss. All 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Regularisers {
    /// Times the expected number of nodes of a tree. 1e-3 with `Leafness::Logit { init: 0.0 }` is a good start.
    pub size: f32,
    /// Times the expected number of gates evaluated per sample: the cost of prediction itself. A sample counts as often as the
    /// tree has it: by its bag, and not at all where it is hidden from the tree.
    pub path: f32,
    /// Times the sum over gates of (1 - leafness): the sparsity term of the budding-tree reference (1e-3 there).
    pub leafness: f32,
    /// Times the routing-balance term of Frosst and Hinton (2017), decayed by 2^-depth (0.1 there) and weighted by the gate's
    /// existence, held constant. Samples count as in `path`.
    pub balance: f32,
    /// Times the sum of leafness (1 - leafness) over gates, weighted by their existence, held constant; ramped up linearly
    /// over the epochs: makes shapes binary before hardening.
    pub polarise: f32,
}

/// Adam (betas 0.9 and 0.999, epsilon 1e-8) with cosine decay to 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Optimiser {
    /// Initial step size. Default 0.01; 0.03 for tables of a thousand rows.
    pub rate: f32,
    /// Step size of the leafness over that of the gates. Default 3.
    pub leafness_factor: f32,
    /// Decoupled weight decay of the gates, scaled by each gate's existence so that buds are not decayed to death, and
    /// of linear leaves' slopes, not scaled by anything. Default 0.
    pub weight_decay: f32,
}

impl Default for Optimiser {
    fn default() -> Self {
        Self { rate: 0.01, leafness_factor: 3.0, weight_decay: 0.0 }
    }
}

/// How numeric columns are brought to a common scale before training. Folded into the gates afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scaling {
    /// Subtract the training mean and divide by the training standard deviation: for tables.
    #[default]
    Standardise,
    /// Subtract the training mean: for images scaled to [0, 1].
    Centre,
    /// Nothing.
    None,
}

/// What a NaN feature means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// An error.
    #[default]
    Reject,
    /// A missing value: the training mean takes its place, and one extra 0/1 input per column that had missing values in
    /// training says so. A missing category is none of those seen. Infinite values stay errors.
    Indicate,
}

/// Weights of the classes in the loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ClassWeights {
    /// Every sample counts the same.
    #[default]
    Uniform,
    /// Inversely proportional to the class frequencies.
    Balanced,
    /// One weight a class.
    Given(Vec<f32>),
}

/// Stop when a held-out part of the training set stops improving, and go back to the best epoch. Not in cascades: their
/// class vectors are to know nothing of a row's label, and here it has a part in choosing the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// Part of the rows held out, in (0, 1).
    pub fraction: f32,
    /// Epochs without improvement that are tolerated.
    pub patience: usize,
}

/// Random shifts and mirrorings of image rows, drawn anew for every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augment {
    /// Rows of pixels; row-major images, one channel.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Largest shift in pixels along each axis, at most the longer side; what moves in is 0.
    pub shift: usize,
    /// Whether half of the images are mirrored left to right.
    pub mirror: bool,
}

/// Settings of a soft forest. Build with [`Default`] and the methods named after the fields, then call
/// [`fit`](crate::SoftForestParams::fit).
///
/// The abstract of Shen, Wang and Wang (arXiv 2012.14878) gives one number: 1 layer of 15 trees. The other defaults were
/// measured on Fashion-MNIST and digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SoftForestParams {
    /// Number of trees. Default 15, the paper's.
    pub trees: usize,
    /// Largest depth, 1 to 16. Default 6.
    pub depth: usize,
    /// Routing function. Default sigmoid.
    pub gate: Gate,
    /// Inverse temperature of the routing. Default 1; hard routing in the limit.
    pub inverse_temperature: f32,
    /// Inverse temperature at the last epoch, approached geometrically. Default: no annealing.
    pub anneal_to: Option<f32>,
    /// How shapes are learned. Default `Logit { init: 2.0 }`.
    pub leafness: Leafness,
    /// What trees mix. Default probabilities.
    pub mix: Mix,
    /// What a node says. Default a constant.
    pub leaf: LeafModel,
    /// What is minimised. Default the sum over trees.
    pub loss: Loss,
    /// How responses are updated. Default by gradient.
    pub leaf_update: LeafUpdate,
    /// Penalties. Default none.
    pub regularisers: Regularisers,
    /// Step sizes.
    pub optimiser: Optimiser,
    /// Samples a step. Default 128.
    pub batch: usize,
    /// Passes over the training set. Default 15.
    pub epochs: usize,
    /// Poisson(1) sample weights per tree. Default off.
    pub bagging: bool,
    /// Part of the inputs that each tree may look at, in (0, 1]. Default 1.
    pub feature_fraction: f32,
    /// Scaling of numeric columns. Default standardise.
    pub scaling: Scaling,
    /// Treatment of NaN. Default reject.
    pub missing: Missing,
    /// Columns that hold category codes; expanded to one input per category. Default none.
    pub categorical: Vec<usize>,
    /// Number of classes. Default: the largest label plus 1, where that is no more than there are rows, else an error.
    pub classes: Option<usize>,
    /// Class weights. Default uniform.
    pub class_weights: ClassWeights,
    /// Early stopping. Default none.
    pub early_stopping: Option<EarlyStopping>,
    /// Image augmentation. Default none.
    pub augment: Option<Augment>,
    /// Whether the learned shape is made binary and everything that cannot be reached is dropped after training. Default yes.
    pub harden: bool,
    /// Epochs at a tenth of the rate after training and hardening, the shape held fixed; none without `harden`. Shapes that
    /// are not learned have nothing to harden and get them too, so that all are trained for as long. Default 1.
    pub fine_tune: usize,
    /// Seed of everything random. Default 0.
    pub seed: u64,
}

impl Default for SoftForestParams {
    fn default() -> Self {
        Self {
            trees: 15,
            depth: 6,
            gate: Gate::Sigmoid,
            inverse_temperature: 1.0,
            anneal_to: None,
            leafness: Leafness::Logit { init: 2.0 },
            mix: Mix::Probabilities,
            leaf: LeafModel::Constant,
            loss: Loss::PerTree,
            leaf_update: LeafUpdate::Gradient,
            regularisers: Regularisers::default(),
            optimiser: Optimiser::default(),
            batch: 128,
            epochs: 15,
            bagging: false,
            feature_fraction: 1.0,
            scaling: Scaling::Standardise,
            missing: Missing::Reject,
            categorical: Vec::new(),
            classes: None,
            class_weights: ClassWeights::Uniform,
            early_stopping: None,
            augment: None,
            harden: true,
            fine_tune: 1,
            seed: 0,
        }
    }
}

/// Writes one builder method per field: takes the value, returns the settings.
macro_rules! builder {
    ($($field:ident: $type:ty),* $(,)?) => {
        impl SoftForestParams {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

builder! {
    trees: usize,
    depth: usize,
    gate: Gate,
    inverse_temperature: f32,
    anneal_to: Option<f32>,
    leafness: Leafness,
    mix: Mix,
    leaf: LeafModel,
    loss: Loss,
    leaf_update: LeafUpdate,
    regularisers: Regularisers,
    optimiser: Optimiser,
    batch: usize,
    epochs: usize,
    bagging: bool,
    feature_fraction: f32,
    scaling: Scaling,
    missing: Missing,
    categorical: Vec<usize>,
    classes: Option<usize>,
    class_weights: ClassWeights,
    early_stopping: Option<EarlyStopping>,
    augment: Option<Augment>,
    harden: bool,
    fine_tune: usize,
    seed: u64,
}

impl SoftForestParams {
    /// Checks every range.
    ///
    /// # Errors
    /// [`ForestError::Setting`], naming the first field that is out of range. Class weights are checked with labels.
    pub fn validate(&self) -> Result<()> {
        let non_negative = |x: f32| x.is_finite() && x >= 0.0;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        require(self.trees > 0, "trees", "at least 1", &self.trees)?;
        require((1..=16).contains(&self.depth), "depth", "1 to 16", &self.depth)?;
        require(self.batch > 0, "batch", "at least 1", &self.batch)?;
        if let Gate::SmoothStep { width } = self.gate {
            require(positive(width), "gate", "a positive width", &width)?;
        }
        require(
            positive(self.inverse_temperature),
            "inverse_temperature",
            "a positive number",
            &self.inverse_temperature,
        )?;
        if let Some(last) = self.anneal_to {
            require(positive(last), "anneal_to", "a positive number", &last)?;
        }
        match self.leafness {
            Leafness::Logit { init } => require(init.abs() <= 15.0, "leafness", "a logit in [-15, 15]", &init)?,
            Leafness::Clamped { init } => require((0.0..=1.0).contains(&init), "leafness", "a probability", &init)?,
            Leafness::Random { nodes } => {
                require(nodes > 0, "leafness", "at least 1 node", &nodes)?;
            }
            Leafness::Fixed => {}
        }
        let r = &self.regularisers;
        for (name, value) in [
            ("regularisers.size", r.size),
            ("regularisers.path", r.path),
            ("regularisers.leafness", r.leafness),
            ("regularisers.balance", r.balance),
            ("regularisers.polarise", r.polarise),
            ("optimiser.leafness_factor", self.optimiser.leafness_factor),
            ("optimiser.weight_decay", self.optimiser.weight_decay),
        ] {
            require(non_negative(value), name, "a non-negative number", &value)?;
        }
        require(positive(self.optimiser.rate), "optimiser.rate", "a positive number", &self.optimiser.rate)?;
        require(
            self.feature_fraction > 0.0 && self.feature_fraction <= 1.0,
            "feature_fraction",
            "a number in (0, 1]",
            &self.feature_fraction,
        )?;
        if let Some(stop) = self.early_stopping {
            require(
                stop.fraction > 0.0 && stop.fraction < 1.0,
                "early_stopping.fraction",
                "a number in (0, 1)",
                &stop.fraction,
            )?;
        }
        if let Some(augment) = self.augment {
            let most = augment.height.max(augment.width);
            require(augment.shift <= most, "augment", "a shift of at most the longer side", &augment)?;
        }
        if let Some(classes) = self.classes {
            require(classes >= 2, "classes", "at least 2", &classes)?;
        }
        let closed = matches!(self.leaf_update, LeafUpdate::ClosedForm { .. });
        require(
            !closed || (self.mix == Mix::Probabilities && self.loss == Loss::PerTree),
            "leaf_update",
            "closed-form updates only with Mix::Probabilities and Loss::PerTree",
            &self.loss,
        )?;
        require(
            self.loss != Loss::LeafCrossEntropy || self.mix == Mix::Probabilities,
            "loss",
            "LeafCrossEntropy only with Mix::Probabilities",
            &self.mix,
        )
    }
}

/// [`ForestError::Setting`] unless `holds`.
pub(crate) fn require(
    holds: bool,
    name: &'static str,
    expected: &'static str,
    found: &impl std::fmt::Debug,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(ForestError::Setting { name, expected, found: format!("{found:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_out_of_range_is_named() {
        let base = SoftForestParams::default;
        for (params, field) in [
            (base().trees(0), "trees"),
            (base().depth(0), "depth"),
            (base().depth(17), "depth"),
            (base().batch(0), "batch"),
            (base().inverse_temperature(0.0), "inverse_temperature"),
            (base().anneal_to(Some(f32::NAN)), "anneal_to"),
            (base().feature_fraction(0.0), "feature_fraction"),
            (base().classes(Some(1)), "classes"),
            (base().leafness(Leafness::Clamped { init: 1.5 }), "leafness"),
            (base().loss(Loss::LeafCrossEntropy).mix(Mix::Logits), "loss"),
            (base().early_stopping(Some(EarlyStopping { fraction: 1.0, patience: 1 })), "early_stopping.fraction"),
            (base().augment(Some(Augment { height: 2, width: 3, shift: usize::MAX, mirror: false })), "augment"),
        ] {
            match params.validate() {
                Err(ForestError::Setting { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(base().validate().is_ok());
    }
}
