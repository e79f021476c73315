//! Cutting for real.

use super::{Follower, SlimGroup, TicketMask};
use crate::{Error, Result};
use core_tensor::nn::Gated;
use core_tensor::optim::NamedTensors;
use serde::Serialize;
use tch::{Tensor, no_grad};

/// What a ticket cost a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Group by group.
    pub cuts: Vec<LayerCut>,
    /// Parameters before.
    pub parameters_before: usize,
    /// Parameters after.
    pub parameters_after: usize,
}

/// What is left of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerCut {
    /// The layer.
    pub layer: usize,
    /// Whether these are heads (or else neurons).
    pub heads: bool,
    /// Units kept.
    pub kept: usize,
    /// Units there were.
    pub of: usize,
}

/// The weights of the smaller model: of every follower the slices of kept units, in their order; all else as it is.
/// Weights are copied bit for bit, so that pruning the weights before a search is what rewinding means.
///
/// Coefficients that `state` holds are cut like the rest; [`fold`] them first to be rid of them.
///
/// # Errors
/// Tensors or masks that do not fit the groups, or a ticket that empties one.
pub fn prune(state: &NamedTensors, groups: &[SlimGroup], ticket: &TicketMask) -> Result<(NamedTensors, PruneReport)> {
    let count = |state: &NamedTensors| state.values().map(Tensor::numel).sum();
    let mut pruned: NamedTensors = state.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect();
    let mut cuts = Vec::with_capacity(groups.len());
    for group in groups {
        group.check(state)?;
        let kept = ticket.kept(group)?;
        if kept.is_empty() {
            return Err(Error::EmptiedLayer { layer: group.coefficient.clone(), weights: group.units });
        }
        cuts.push(LayerCut {
            layer: group.layer,
            heads: group.gated == Gated::Heads,
            kept: kept.len(),
            of: group.units,
        });
        if kept.len() == group.units {
            continue;
        }
        let take = |pruned: &mut NamedTensors, follower: &Follower| -> Result<()> {
            let index = Tensor::from_slice(&follower.slices(group.units, &kept));
            if let Some(tensor) = pruned.get_mut(&follower.tensor) {
                *tensor = tensor.f_index_select(follower.axis, &index.to_device(tensor.device()))?;
            }
            Ok(())
        };
        for follower in &group.followers {
            take(&mut pruned, follower)?;
        }
        take(&mut pruned, &Follower::new(&group.coefficient, 1, 1))?;
    }
    let (parameters_before, parameters_after) = (count(state), count(&pruned));
    Ok((pruned, PruneReport { cuts, parameters_before, parameters_after }))
}

/// The same function without coefficients: each is multiplied into the slices that read its unit, and dropped.
///
/// # Errors
/// A group without coefficients in `state`, or tensors that do not fit.
pub fn fold(state: &NamedTensors, groups: &[SlimGroup]) -> Result<NamedTensors> {
    let mut folded: NamedTensors = state.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect();
    for group in groups {
        group.check(state)?;
        let coefficients = folded.shift_remove(&group.coefficient);
        let expected = || format!("{} coefficients", group.units);
        let coefficients = coefficients.ok_or_else(|| Error::mismatch(&group.coefficient, expected(), "none"))?;
        if coefficients.numel() != group.units {
            let found = format!("{:?}", coefficients.size());
            return Err(Error::mismatch(&group.coefficient, expected(), found));
        }
        if let Some(reader) = group.followers.last()
            && let Some(tensor) = folded.get_mut(&reader.tensor)
        {
            let scale = coefficients.reshape([-1]).repeat_interleave_self_int(reader.width, 0, None);
            let scale = scale.repeat([reader.blocks]);
            let mut shape = vec![1; tensor.dim()];
            shape[reader.axis as usize] = -1;
            *tensor = no_grad(|| tensor.f_mul(&scale.view(shape.as_slice())))?;
        }
    }
    Ok(folded)
}
