//! Steps made ready for many maps of one size.

use super::winograd::Winograd;
use super::{Result, Step};
use tch::Tensor;

/// A step on dense maps.
pub(super) enum Ready<'a> {
    Plain(&'a Step),
    Winograd(Winograd),
    Sum { branch: Vec<Ready<'a>>, shortcut: Vec<Ready<'a>> },
}

impl<'a> Ready<'a> {
    /// As the steps are written.
    pub(super) fn plain(steps: &'a [Step]) -> Vec<Self> {
        steps.iter().map(Self::Plain).collect()
    }

    /// Each convolution the cheaper way, for maps of `[height, width]`.
    pub(super) fn quick(steps: &'a [Step], mut side: [usize; 2]) -> Result<Vec<Self>> {
        let mut ready = Vec::new();
        for step in steps {
            ready.push(match step {
                Step::Conv { weight, bias, .. } if step.quick_macs(side).is_some() => {
                    Self::Winograd(Winograd::new(weight, bias.as_ref(), side)?)
                }
                Step::Sum { branch, shortcut } => {
                    let [branch, shortcut] = [branch, shortcut].map(|steps| Self::quick(steps, side));
                    Self::Sum { branch: branch?, shortcut: shortcut? }
                }
                _ => Self::Plain(step),
            });
            side = step.side_after(side);
        }
        Ok(ready)
    }

    /// The name of a tap.
    pub(super) fn tap(&self) -> Option<&'a str> {
        match self {
            Self::Plain(Step::Tap(name)) => Some(name),
            _ => None,
        }
    }

    /// `owned`: whether the map may be overwritten.
    pub(super) fn run(&self, map: Tensor, owned: bool) -> Result<Tensor> {
        let sum = |branch: &[Self], shortcut: &[Self], map: &Tensor| {
            let (mut sum, other) = (Self::all(branch, map)?, Self::all(shortcut, map)?);
            Ok(if branch.is_empty() { sum.f_add(&other)? } else { sum.f_add_(&other)? })
        };
        match self {
            Self::Plain(Step::Sum { branch, shortcut }) => sum(&Self::plain(branch), &Self::plain(shortcut), &map),
            Self::Plain(step) => step.on_map(map, owned),
            Self::Winograd(conv) => conv.forward(&map),
            Self::Sum { branch, shortcut } => sum(branch, shortcut, &map),
        }
    }

    fn all(steps: &[Self], map: &Tensor) -> Result<Tensor> {
        let start = map.shallow_clone();
        steps.iter().enumerate().try_fold(start, |map, (index, step)| step.run(map, index > 0))
    }
}
