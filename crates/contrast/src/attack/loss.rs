//! What an attack on a classifier maximises.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

use super::{Error, Goal, Result};

/// A user's loss: logits `[batch, classes]` and the goal give `[batch]` values to maximise.
pub type CustomLoss = Arc<dyn Fn(&Tensor, &Goal) -> Tensor + Send + Sync>;

/// What an attack on a classifier maximises, for every example by itself; `z` are logits, `y` the label, `t` the target.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// `−log softmax(z)_y`; with a target `log softmax(z)_t`.
    #[default]
    CrossEntropy,
    /// `max_{j ≠ y} z_j − z_y` (Carlini and Wagner 2017, arXiv 1608.04644); with a target `z_t − max_{j ≠ t} z_j`.
    Margin,
    /// The difference of logits ratio, `−(z_y − max_{j ≠ y} z_j) / (z_(1) − z_(3))` with the logits sorted from the largest
    /// (Croce and Hein 2020, arXiv 2003.01690, equation 6); with a target `−(z_y − z_t) / (z_(1) − (z_(3) + z_(4)) / 2)`
    /// (equation 7). Needs 3 classes, with a target 4. Unlike cross-entropy it does not change when all logits are scaled,
    /// and so cannot be starved of its gradient by large logits.
    Dlr,
    /// `KL(softmax(clean z) ‖ softmax(z))`, what TRADES maximises (Zhang et al. 2019, arXiv 1901.08573). Needs no label. At
    /// the image itself its gradient is exactly zero: start at a random point.
    KullbackLeibler,
    /// The user's.
    #[serde(skip)]
    Custom(CustomLoss),
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossEntropy => "CrossEntropy",
            Self::Margin => "Margin",
            Self::Dlr => "Dlr",
            Self::KullbackLeibler => "KullbackLeibler",
            Self::Custom(_) => "Custom",
        })
    }
}

impl PartialEq for Loss {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Custom(a), Self::Custom(b)) => Arc::ptr_eq(a, b),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Loss {
    /// A loss of the user's own.
    pub fn custom(loss: impl Fn(&Tensor, &Goal) -> Tensor + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(loss))
    }

    /// One value an example, `[batch]`. `clean` are the logits of the images themselves, which only
    /// [`Loss::KullbackLeibler`] needs.
    ///
    /// # Errors
    /// Logits or clean logits that are not `[batch, classes]`, labels that do not fit them, [`Error::TooFewClasses`], or a
    /// custom loss of a wrong shape.
    pub fn per_example(&self, logits: &Tensor, goal: &Goal, clean: &Tensor) -> Result<Tensor> {
        let shape = logits.size();
        let &[examples, classes] = shape.as_slice() else {
            return Err(Error::LogitsShape { expected: "[batch, classes]".to_owned(), found: format!("{shape:?}") });
        };
        if *self == Self::KullbackLeibler && clean.size() != shape {
            let expected = format!("clean logits {shape:?}");
            return Err(Error::LogitsShape { expected, found: format!("{:?}", clean.size()) });
        }
        goal.check(examples, classes, logits.device())?;
        self.values(logits, goal, clean)
    }

    /// The same for a goal and logits that were checked before.
    pub(crate) fn values(&self, logits: &Tensor, goal: &Goal, clean: &Tensor) -> Result<Tensor> {
        let classes = logits.size()[1];
        self.check_classes(classes, goal.targets().is_some())?;
        Ok(match (self, goal) {
            (Self::CrossEntropy, Goal::Untargeted { labels }) => cross_entropy(logits, labels)?,
            (Self::CrossEntropy, Goal::Targeted { targets, .. }) => cross_entropy(logits, targets)?.neg(),
            (Self::Margin, Goal::Untargeted { labels }) => -margin(logits, labels),
            (Self::Margin, Goal::Targeted { targets, .. }) => margin(logits, targets),
            (Self::Dlr, Goal::Untargeted { labels }) => {
                let (sorted, _) = logits.topk(3, 1, true, true);
                -margin(logits, labels) / (sorted.select(1, 0) - sorted.select(1, 2) + 1e-12)
            }
            (Self::Dlr, Goal::Targeted { labels, targets }) => {
                let (sorted, _) = logits.topk(4, 1, true, true);
                let scale = sorted.select(1, 0) - (sorted.select(1, 2) + sorted.select(1, 3)) * 0.5 + 1e-12;
                (of_class(logits, targets) - of_class(logits, labels)) / scale
            }
            (Self::KullbackLeibler, _) => {
                let expected = clean.detach().log_softmax(-1, logits.kind());
                let found = logits.log_softmax(-1, logits.kind());
                (expected.exp() * (&expected - found)).sum_dim_intlist([1].as_slice(), false, logits.kind())
            }
            (Self::Custom(loss), _) => {
                let value = loss(logits, goal);
                let (examples, found) = (logits.size()[0], value.size());
                if found != [examples] {
                    return Err(Error::LossShape { examples, found });
                }
                // Kept beside numbers of the model: losses so far, of one restart and another.
                value.f_to_kind(logits.kind())?
            }
        })
    }

    /// Refuses a model with too few classes.
    pub(crate) fn check_classes(&self, classes: i64, targeted: bool) -> Result<()> {
        let (loss, needed) = match (self, targeted) {
            (Self::Dlr, false) => ("the DLR loss", 3),
            (Self::Dlr, true) => ("the targeted DLR loss", 4),
            (Self::Margin, _) => ("the margin loss", 2),
            _ => ("a classifier", 1),
        };
        if classes < needed { Err(Error::TooFewClasses { loss, needed, found: classes }) } else { Ok(()) }
    }
}

/// `z_y − max_{j ≠ y} z_j`: positive where the label wins. The label is masked with −∞: multiplied by 0 it would win over
/// negative logits.
pub(crate) fn margin(logits: &Tensor, labels: &Tensor) -> Tensor {
    let others = logits.scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    of_class(logits, labels) - others.amax([1].as_slice(), false)
}

/// `z_c` of every example.
pub(crate) fn of_class(logits: &Tensor, classes: &Tensor) -> Tensor {
    logits.gather(1, &classes.unsqueeze(1), false).squeeze_dim(1)
}

pub(crate) fn cross_entropy(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    Ok(logits.f_cross_entropy_loss(classes, None::<Tensor>, Reduction::None, -100, 0.0)?)
}
