//! Which parts of which tensors belong to a head or a neuron.

use crate::prunable::NamedTensor;
use crate::{Error, Result};
use core_tensor::nn::Gated;
use core_tensor::optim::NamedTensors;
use tch::Kind;
use tch::nn::VarStore;

/// The heads or the neurons of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct SlimGroup {
    /// The name of the coefficients, in a network that has them, and of the group's mask.
    pub coefficient: String,
    /// The layer's number.
    pub layer: usize,
    /// Heads or neurons.
    pub gated: Gated,
    /// How many there are now.
    pub units: usize,
    /// What goes with a unit. The last one is what reads the units' output: scaling its slices by the coefficients
    /// replaces them.
    pub followers: Vec<Follower>,
}

/// A tensor of which `width` consecutive slices along `axis` belong to each unit, once or in several blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The tensor's name.
    pub tensor: String,
    /// The axis along which units lie.
    pub axis: i64,
    /// Slices a unit and block.
    pub width: i64,
    /// Equal parts of the axis, one after the other, in each of which every unit has its slices.
    pub blocks: i64,
}

impl Follower {
    /// `width` slices of `tensor` a unit, along `axis`, in one block.
    pub fn new(tensor: impl Into<String>, axis: i64, width: i64) -> Self {
        Self { tensor: tensor.into(), axis, width, blocks: 1 }
    }

    /// In so many blocks: 3 for a projection to all queries, then all keys, then all values; 2 for all gates and then
    /// what they gate. Where query, key and value of one head lie together, that is one block three times as wide.
    #[must_use]
    pub fn in_blocks(self, blocks: i64) -> Self {
        Self { blocks, ..self }
    }

    /// The slices of some units, block by block, of `units` that there are.
    pub(super) fn slices(&self, units: usize, kept: &[usize]) -> Vec<i64> {
        let starts =
            (0..self.blocks).flat_map(|block| kept.iter().map(move |unit| block * units as i64 + *unit as i64));
        starts.flat_map(|start| (0..self.width).map(move |slice| start * self.width + slice)).collect()
    }
}

impl SlimGroup {
    /// The shape of the group's coefficients and mask: `[1, heads, 1, 1]` or `[1, neurons]`, as the reference code has
    /// them.
    pub fn shape(&self) -> Vec<i64> {
        shape(self.gated, self.units as i64)
    }

    /// Parameters that a unit takes with it, from the tensors' shapes.
    ///
    /// # Errors
    /// A tensor that `state` lacks or whose shape does not fit.
    pub fn unit_parameters(&self, state: &NamedTensors) -> Result<usize> {
        self.check(state)?;
        Ok(self.followers.iter().map(|follower| state[&follower.tensor].numel() / self.units).sum())
    }

    /// Checks that every follower is there with as many slices as the units need.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the tensor.
    pub(super) fn check(&self, state: &NamedTensors) -> Result<()> {
        for Follower { tensor, axis, width, blocks } in &self.followers {
            if *width < 1 || *blocks < 1 {
                let found = format!("{width} in {blocks} blocks");
                return Err(Error::mismatch(tensor, "at least one slice a unit", found));
            }
            let slices = self.units as i64 * width * blocks;
            let expected = || format!("{slices} slices along axis {axis} for {} units", self.units);
            let found = state.get(tensor).ok_or_else(|| Error::mismatch(tensor, expected(), "no such tensor"))?;
            if found.size().get(*axis as usize) != Some(&slices) {
                return Err(Error::mismatch(tensor, expected(), format!("{:?}", found.size())));
            }
        }
        Ok(())
    }
}

pub(super) fn shape(gated: Gated, units: i64) -> Vec<i64> {
    match gated {
        Gated::Heads => vec![1, units, 1, 1],
        Gated::Neurons => vec![1, units],
    }
}

/// The live coefficients of a slimmed network, in the groups' order.
///
/// # Errors
/// [`Error::Mismatch`] for a group without coefficients, with others, or with some in half precision: that has steps of
/// 5e-4 (`f16`) and 4e-3 (`bf16`) just below 1, in which the updates of a search are rounded away.
pub fn coefficients(store: &VarStore, groups: &[SlimGroup]) -> Result<Vec<NamedTensor>> {
    let variables = store.variables();
    let find = |group: &SlimGroup| {
        let expected = || format!("coefficients of shape {:?}", group.shape());
        let found = variables.get(&group.coefficient);
        let found = found.ok_or_else(|| Error::mismatch(&group.coefficient, expected(), "no such variable"))?;
        if found.size() != group.shape() {
            return Err(Error::mismatch(&group.coefficient, expected(), format!("{:?}", found.size())));
        }
        if matches!(found.kind(), Kind::Half | Kind::BFloat16) {
            return Err(Error::mismatch(&group.coefficient, "f32 or f64", format!("{:?}", found.kind())));
        }
        Ok((group.coefficient.clone(), found.shallow_clone()))
    };
    groups.iter().map(find).collect()
}
