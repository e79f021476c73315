//! What an attack is to achieve.

use tch::{Device, Kind, Tensor};

use super::{Error, Result};

/// What an attack is to achieve on every example; tensors are `[batch]` of 64-bit integers, on the images' device.
#[derive(Debug)]
pub enum Goal {
    /// Any class but the label.
    Untargeted {
        /// The true classes.
        labels: Tensor,
    },
    /// A given class.
    Targeted {
        /// The true classes.
        labels: Tensor,
        /// The classes to be taken for, none equal to its label.
        targets: Tensor,
    },
}

impl Goal {
    /// Any class but the label.
    pub fn untargeted(labels: &Tensor) -> Self {
        Self::Untargeted { labels: labels.shallow_clone() }
    }

    /// A given class.
    pub fn targeted(labels: &Tensor, targets: &Tensor) -> Self {
        Self::Targeted { labels: labels.shallow_clone(), targets: targets.shallow_clone() }
    }

    /// The same goal, sharing its tensors.
    pub(crate) fn shallow_clone(&self) -> Self {
        match self {
            Self::Untargeted { labels } => Self::untargeted(labels),
            Self::Targeted { labels, targets } => Self::targeted(labels, targets),
        }
    }

    /// The true classes.
    pub fn labels(&self) -> &Tensor {
        match self {
            Self::Untargeted { labels } | Self::Targeted { labels, .. } => labels,
        }
    }

    /// The classes to be taken for, if any are given.
    pub fn targets(&self) -> Option<&Tensor> {
        match self {
            Self::Untargeted { .. } => None,
            Self::Targeted { targets, .. } => Some(targets),
        }
    }

    /// Which of the logits' examples `[batch]` achieve it.
    ///
    /// # Panics
    /// On logits of another batch or on another device.
    pub fn reached(&self, logits: &Tensor) -> Tensor {
        let predicted = logits.argmax(-1, false);
        match self {
            Self::Untargeted { labels } => predicted.ne_tensor(labels),
            Self::Targeted { targets, .. } => predicted.eq_tensor(targets),
        }
    }

    /// The goal of the examples at `places`.
    pub(crate) fn select(&self, places: &Tensor) -> Self {
        let rows = |tensor: &Tensor| tensor.index_select(0, places);
        match self {
            Self::Untargeted { labels } => Self::Untargeted { labels: rows(labels) },
            Self::Targeted { labels, targets } => Self::Targeted { labels: rows(labels), targets: rows(targets) },
        }
    }

    /// The goal of `length` examples from `start` on.
    pub(crate) fn narrow(&self, start: i64, length: i64) -> Self {
        let rows = |tensor: &Tensor| tensor.narrow(0, start, length);
        match self {
            Self::Untargeted { labels } => Self::Untargeted { labels: rows(labels) },
            Self::Targeted { labels, targets } => Self::Targeted { labels: rows(labels), targets: rows(targets) },
        }
    }

    /// Checks numbers, kinds, devices and ranges; `device` is the images'.
    pub(crate) fn check(&self, examples: i64, classes: i64, device: Device) -> Result<()> {
        check_classes("labels", self.labels(), examples, classes, device)?;
        let Some(targets) = self.targets() else { return Ok(()) };
        check_classes("targets", targets, examples, classes, device)?;
        let same = targets.eq_tensor(self.labels()).to_kind(Kind::Int64);
        if examples > 0 && same.max().int64_value(&[]) != 0 {
            let example = same.argmax(0, false).int64_value(&[]);
            return Err(Error::BadTarget { example: example as usize, target: targets.int64_value(&[example]) });
        }
        Ok(())
    }
}

fn check_classes(name: &str, values: &Tensor, examples: i64, classes: i64, device: Device) -> Result<()> {
    let (shape, kind) = (values.size(), values.f_kind()?);
    if shape != [examples] || kind != Kind::Int64 {
        let expected = format!("{name} [{examples}] of kind Int64");
        return Err(Error::LabelMismatch { expected, found: format!("{shape:?} of kind {kind:?}") });
    }
    if values.device() != device {
        let expected = format!("{name} on {device:?}, where images and logits are");
        return Err(Error::LabelMismatch { expected, found: format!("{:?}", values.device()) });
    }
    if examples == 0 {
        return Ok(());
    }
    let (least, largest) = (values.min().int64_value(&[]), values.max().int64_value(&[]));
    if least < 0 || largest >= classes {
        let found = if least < 0 { least } else { largest };
        let expected = format!("{name} from 0 to {}", classes - 1);
        return Err(Error::LabelMismatch { expected, found: found.to_string() });
    }
    Ok(())
}
