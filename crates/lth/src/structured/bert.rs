//! What heads and neurons of a BERT consist of.

use super::{Follower, SlimGroup, TicketMask};
use crate::Result;
use core_tensor::networks::bert::BertConfig;
use core_tensor::nn::Gated;

/// The groups of a BERT, layer by layer, heads before neurons. `prefix` is `bert.` for task models and empty for a bare
/// encoder.
pub fn bert_groups(config: &BertConfig, prefix: &str) -> Vec<SlimGroup> {
    let d = config.head_size();
    let of_layer = |layer: usize| {
        let root = format!("{prefix}encoder.layer.{layer}");
        let attention = format!("{root}.attention.self");
        let rows = ["query", "key", "value"]
            .into_iter()
            .flat_map(|part| ["weight", "bias"].map(|kind| Follower::new(format!("{attention}.{part}.{kind}"), 0, d)));
        let heads = SlimGroup {
            coefficient: format!("{attention}.slimming_coef"),
            layer,
            gated: Gated::Heads,
            units: config.heads(layer).len(),
            followers: rows.chain([Follower::new(format!("{root}.attention.output.dense.weight"), 1, d)]).collect(),
        };
        let neurons = SlimGroup {
            coefficient: format!("{root}.slimming_coef"),
            layer,
            gated: Gated::Neurons,
            units: config.neurons(layer).len(),
            followers: vec![
                Follower::new(format!("{root}.intermediate.dense.bias"), 0, 1),
                Follower::new(format!("{root}.intermediate.dense.weight"), 0, 1),
                Follower::new(format!("{root}.output.dense.weight"), 1, 1),
            ],
        };
        [heads, neurons]
    };
    (0..config.num_hidden_layers).flat_map(of_layer).collect()
}

/// The shape of a BERT after a ticket was cut out of it. Numbers of heads and neurons stay the original ones, however
/// often it is pruned.
///
/// # Errors
/// A ticket of other groups, or one that empties a layer.
pub fn pruned_config(config: &BertConfig, groups: &[SlimGroup], ticket: &TicketMask) -> Result<BertConfig> {
    let mut pruned = config.clone();
    for group in groups {
        let kept = ticket.kept(group)?;
        let (original, gone) = match group.gated {
            Gated::Heads => (config.heads(group.layer), &mut pruned.pruned_heads),
            Gated::Neurons => (config.neurons(group.layer), &mut pruned.pruned_neurons),
        };
        if kept.len() < original.len() {
            let gone = gone.entry(group.layer).or_default();
            let lost = original.iter().enumerate().filter(|(now, _)| kept.binary_search(now).is_err());
            gone.extend(lost.map(|(_, original)| *original));
            gone.sort_unstable();
        }
    }
    pruned.validate()?;
    Ok(pruned)
}
