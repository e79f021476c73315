//! Tickets to compare with.

use super::{Follower, Scores, SlimGroup};
use crate::criterion::gradients;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use core_tensor::networks::bert::BertConfig;
use core_tensor::optim::NamedTensors;
use tch::{Kind, Tensor, no_grad};

/// `‖what makes a unit‖ · ‖what reads it‖`: for heads the value rows times the output columns, for neurons the first
/// layer's rows times the second's columns.
///
/// It takes a group's last two followers with two axes, and of a follower in blocks the last block: put what makes a
/// unit right before what reads it, the value projection behind queries and keys. Biases and other axes do not count.
///
/// # Errors
/// Tensors that do not fit the groups, or a group without a matrix.
pub fn magnitude(state: &NamedTensors, groups: &[SlimGroup]) -> Result<Scores> {
    let of = |group: &SlimGroup| -> Result<NamedTensor> {
        group.check(state)?;
        let norms = |Follower { axis, blocks, .. }: &Follower, tensor: &Tensor| {
            let rows = if *axis == 0 { tensor.detach() } else { tensor.detach().transpose(0, *axis).contiguous() };
            rows.reshape([*blocks, group.units as i64, -1])
                .select(0, blocks - 1)
                .square()
                .sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)
                .sqrt()
        };
        // Of the weights before the reader, the last is the value projection, or the first feed-forward layer.
        let matrices = group.followers.iter().filter(|follower| state[&follower.tensor].dim() == 2);
        let pair: Vec<_> = matrices.rev().take(2).map(|f| norms(f, &state[&f.tensor])).collect();
        let score = pair.into_iter().reduce(|a, b| a * b);
        let score = score.ok_or_else(|| Error::mismatch(&group.coefficient, "a group with matrices", "none"))?;
        Ok((group.coefficient.clone(), score))
    };
    Scores::of(groups, &groups.iter().map(of).collect::<Result<Vec<_>>>()?)
}

/// First-order importance (Michel et al., arXiv 1905.10650): the mean over batches of `|∂L/∂c|` at coefficients of 1.
/// Weights and coefficients stay as they are.
///
/// # Errors
/// Losses that do not depend on the coefficients, an empty list of losses, and what `losses` itself refuses.
pub fn first_order(
    groups: &[SlimGroup],
    coefficients: &[NamedTensor],
    losses: impl IntoIterator<Item = Result<Tensor>>,
) -> Result<Scores> {
    let mut sums: Vec<Tensor> = coefficients.iter().map(|(_, tensor)| tensor.detach().zeros_like()).collect();
    let mut batches = 0;
    for loss in losses {
        for (sum, gradient) in sums.iter_mut().zip(gradients(&loss?, coefficients, false)?) {
            let _ = no_grad(|| sum.f_add_(&gradient.abs()))?;
        }
        batches += 1;
    }
    if batches == 0 {
        return Err(Error::setting("losses", "at least one", 0));
    }
    let mean = |((name, _), sum): (&NamedTensor, Tensor)| (name.clone(), sum / f64::from(batches));
    Scores::of(groups, &coefficients.iter().zip(sums).map(mean).collect::<Vec<_>>())
}

/// `keep` of `layers` layers, spread evenly from the first on.
pub fn every_other(layers: usize, keep: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..keep).map(|place| place * layers / keep.max(1)).collect();
    kept.dedup();
    kept
}

/// A BERT that keeps whole layers only, renumbered from 0: the other way to a lower cost (Sajjad et al., arXiv
/// 2004.03844). With [`every_other`] of them it is LayerDrop (Fan et al., arXiv 1909.11556) only for a network that was
/// trained with [`layer_drop`](BertConfig::layer_drop). `prefix` is `bert.` for task models and empty for a bare
/// encoder.
///
/// # Errors
/// Layers that do not exist, out of order or twice, or none; [`Error::Mismatch`] for a kept layer without a tensor under
/// `prefix`.
pub fn keep_layers(
    state: &NamedTensors,
    config: &BertConfig,
    prefix: &str,
    kept: &[usize],
) -> Result<(NamedTensors, BertConfig)> {
    let ascending = kept.windows(2).all(|pair| pair[0] < pair[1]);
    if kept.is_empty() || !ascending || kept.last().is_some_and(|last| *last >= config.num_hidden_layers) {
        let expected = format!("some of the layers below {}, ascending", config.num_hidden_layers);
        return Err(Error::setting("kept layers", expected, format!("{kept:?}")));
    }
    let root = format!("{prefix}encoder.layer.");
    let mut shallow = NamedTensors::new();
    let mut found = vec![0_usize; kept.len()];
    for (name, tensor) in state {
        let Some((number, rest)) = name.strip_prefix(&root).and_then(|rest| rest.split_once('.')) else {
            shallow.insert(name.clone(), tensor.detach().copy());
            continue;
        };
        let number: usize = number.parse().map_err(|_| Error::mismatch(name, "a layer's number", number))?;
        if let Some(place) = kept.iter().position(|kept| *kept == number) {
            shallow.insert(format!("{root}{place}.{rest}"), tensor.detach().copy());
            found[place] += 1;
        }
    }
    if let Some((layer, _)) = kept.iter().zip(found).find(|(_, found)| *found == 0) {
        return Err(Error::mismatch(format!("{root}{layer}."), "tensors of a kept layer", "none"));
    }
    let moved = |pruned: &std::collections::BTreeMap<usize, Vec<usize>>| {
        let of = |(place, layer): (usize, &usize)| Some((place, pruned.get(layer)?.clone()));
        kept.iter().enumerate().filter_map(of).collect()
    };
    let config = BertConfig {
        num_hidden_layers: kept.len(),
        pruned_heads: moved(&config.pruned_heads),
        pruned_neurons: moved(&config.pruned_neurons),
        ..config.clone()
    };
    Ok((shallow, config))
}
