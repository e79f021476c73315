//! The steps behind the table, made ready for many maps of one size.

use super::networks::Head;
use super::winograd::{MapAxes, Room, Winograd};
use super::{Result, Step};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Steps on dense maps, then the mean over all places, then the head.
pub(super) struct Tail {
    steps: Vec<Ready>,
    head: Option<Head>,
}

enum Ready {
    Plain(Step),
    Winograd(Arc<Winograd>),
    Sum { branch: Vec<Ready>, shortcut: Vec<Ready> },
}

impl Tail {
    /// As the steps are written.
    pub(super) fn plain(steps: &[Step], head: Option<&Head>) -> Self {
        let steps = steps.iter().map(Ready::plain).collect();
        Self { steps, head: head.map(Head::shared) }
    }

    /// Each convolution the cheaper way, for maps of `[height, width]`.
    pub(super) fn quick(steps: &[Step], head: Option<&Head>, side: [usize; 2]) -> Result<Self> {
        Ok(Self { steps: Ready::quick(steps, side)?, head: head.map(Head::shared) })
    }

    /// The same for another thread.
    pub(super) fn another(&self) -> Self {
        Self { steps: Ready::all_shared(&self.steps), head: self.head.as_ref().map(Head::shared) }
    }

    /// Hands `found` what is tapped on the way, the mean and the logits.
    pub(super) fn run(&self, map: Tensor, room: &mut Room, found: &mut dyn FnMut(&str, Tensor)) -> Result<()> {
        // The first map may be somebody else's memory; what a step made is ours to overwrite.
        let (mut map, mut owned) = (map, false);
        for step in &self.steps {
            if let Ready::Plain(Step::Tap(name)) = step {
                found(name, mean_over_places(&map)?);
                continue;
            }
            map = step.run(map, owned, room)?;
            owned = true;
        }
        self.pooled(mean_over_places(&map)?, found)
    }

    /// What comes after the mean.
    pub(super) fn pooled(&self, pooled: Tensor, found: &mut dyn FnMut(&str, Tensor)) -> Result<()> {
        if let Some(head) = &self.head {
            found("logits", head.logits(&pooled)?);
        }
        found("avgpool", pooled);
        Ok(())
    }
}

impl Ready {
    fn plain(step: &Step) -> Self {
        match step {
            Step::Sum { branch, shortcut } => {
                let [branch, shortcut] = [branch, shortcut].map(|steps| steps.iter().map(Self::plain).collect());
                Self::Sum { branch, shortcut }
            }
            step => Self::Plain(step.shared()),
        }
    }

    fn quick(steps: &[Step], mut side: [usize; 2]) -> Result<Vec<Self>> {
        let mut ready = Vec::new();
        for step in steps {
            ready.push(match step {
                Step::Conv { weight, bias, .. } if step.quick_macs(side).is_some() => {
                    let conv = Winograd::new(weight, bias.as_ref(), MapAxes::new(side)?.axes())?;
                    Self::Winograd(Arc::new(conv))
                }
                Step::Sum { branch, shortcut } => {
                    Self::Sum { branch: Self::quick(branch, side)?, shortcut: Self::quick(shortcut, side)? }
                }
                step => Self::Plain(step.shared()),
            });
            side = step.side_after(side);
        }
        Ok(ready)
    }

    fn all_shared(steps: &[Self]) -> Vec<Self> {
        let one = |step: &Self| match step {
            Self::Plain(step) => Self::Plain(step.shared()),
            Self::Winograd(conv) => Self::Winograd(conv.clone()),
            Self::Sum { branch, shortcut } => {
                Self::Sum { branch: Self::all_shared(branch), shortcut: Self::all_shared(shortcut) }
            }
        };
        steps.iter().map(one).collect()
    }

    /// `owned`: whether the map may be overwritten.
    fn run(&self, map: Tensor, owned: bool, room: &mut Room) -> Result<Tensor> {
        match self {
            Self::Plain(step) => step.on_map(map, owned),
            Self::Winograd(conv) => conv.on_maps(&map, room),
            Self::Sum { branch, shortcut } => {
                let mut sum = Self::all(branch, &map, room)?;
                let other = Self::all(shortcut, &map, room)?;
                Ok(if branch.is_empty() { sum.f_add(&other)? } else { sum.f_add_(&other)? })
            }
        }
    }

    fn all(steps: &[Self], map: &Tensor, room: &mut Room) -> Result<Tensor> {
        let start = map.shallow_clone();
        steps.iter().enumerate().try_fold(start, |map, (index, step)| step.run(map, index > 0, room))
    }
}

fn mean_over_places(map: &Tensor) -> Result<Tensor> {
    Ok(map.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float)?)
}
