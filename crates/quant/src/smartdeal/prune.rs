//! Structural pruning before the decomposition: whole kernel rows of whole groups of filters.

use serde::{Deserialize, Serialize};

use super::LayerShape;
use super::layer::check_weights;
use crate::{Error, Result};

/// Which (channel, kernel row) positions go; those of a 1×1 kernel are its channels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorPruning {
    /// This share of the positions, rounded up, the weakest first ("population" in the published code).
    Share(f64),
    /// Positions whose absolute weights, summed over the group's filters, stay below this ("value").
    Below(f64),
}

impl VectorPruning {
    /// Refuses shares outside [0, 1] and limits that are no numbers ≥ 0.
    ///
    /// # Errors
    /// [`Error::Config`], named `vector_pruning`.
    pub fn validate(&self) -> Result<()> {
        let (ok, found) = match *self {
            Self::Share(share) => ((0.0..=1.0).contains(&share), share),
            Self::Below(limit) => (limit >= 0.0, limit),
        };
        if ok {
            return Ok(());
        }
        Err(Error::Config {
            name: "vector_pruning",
            expected: "a share in [0, 1], or a limit ≥ 0",
            found: found.to_string(),
        })
    }
}

/// Zeroes the chosen positions of a convolution's weights and returns, group by group of up to `group` filters (32 in
/// the published code), which went. Linear layers are left alone.
///
/// # Errors
/// Weights that do not fit the shape or are not finite; a setting outside its range.
pub fn prune_vectors(
    weights: &mut [f32],
    shape: &LayerShape,
    pruning: VectorPruning,
    group: usize,
) -> Result<Vec<Vec<bool>>> {
    check_weights(weights, shape)?;
    pruning.validate()?;
    if group == 0 {
        return Err(Error::Config { name: "group", expected: "at least one filter", found: "0".into() });
    }
    let LayerShape::Conv { in_channels, kernel: [height, width], .. } = *shape else { return Ok(Vec::new()) };
    let positions = in_channels * height;
    if weights.is_empty() {
        return Ok(Vec::new());
    }
    let prune_group = |filters: &mut [f32]| {
        let mut sums = vec![0f64; positions];
        for row in filters.chunks_exact(width).enumerate() {
            sums[row.0 % positions] += row.1.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        }
        let pruned = choose(&sums, pruning);
        for (row, weights) in filters.chunks_exact_mut(width).enumerate() {
            if pruned[row % positions] {
                weights.fill(0.0);
            }
        }
        pruned
    };
    Ok(weights.chunks_mut(group * positions * width).map(prune_group).collect())
}

fn choose(sums: &[f64], pruning: VectorPruning) -> Vec<bool> {
    match pruning {
        VectorPruning::Below(limit) => sums.iter().map(|sum| *sum < limit).collect(),
        VectorPruning::Share(share) => {
            let mut order: Vec<usize> = (0..sums.len()).collect();
            order.sort_by(|a, b| sums[*a].total_cmp(&sums[*b]));
            let count = ((share * sums.len() as f64).ceil() as usize).min(sums.len());
            let mut pruned = vec![false; sums.len()];
            order[..count].iter().for_each(|position| pruned[*position] = true);
            pruned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: LayerShape = LayerShape::Conv { out_channels: 4, in_channels: 2, kernel: [3, 3] };

    /// `(((37k + 11) mod 101) − 50) / 500`.
    fn oracle_weights() -> Vec<f32> {
        (0..72).map(|k| (((37 * k + 11) % 101) as f32 - 50.0) / 500.0).collect()
    }

    fn positions(pruned: &[bool]) -> Vec<usize> {
        pruned.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| i).collect()
    }

    #[test]
    fn the_weakest_positions_of_all_filters_go() {
        // Sums over the four filters: .614 .622 .606 .628 .596 .596, so ceil(.4 · 6) = 3 positions are 4, 5, 2.
        let mut weights = oracle_weights();
        let pruned = prune_vectors(&mut weights, &SHAPE, VectorPruning::Share(0.4), 32).unwrap();
        assert_eq!(pruned.iter().map(|p| positions(p)).collect::<Vec<_>>(), [vec![2, 4, 5]]);
        for (i, (now, before)) in weights.iter().zip(oracle_weights()).enumerate() {
            assert_eq!(*now, if [2, 4, 5].contains(&(i % 18 / 3)) { 0.0 } else { before });
        }
    }

    #[test]
    fn groups_of_filters_choose_for_themselves() {
        let mut weights = oracle_weights();
        let pruned = prune_vectors(&mut weights, &SHAPE, VectorPruning::Share(0.5), 2).unwrap();
        assert_eq!(pruned.iter().map(|p| positions(p)).collect::<Vec<_>>(), [vec![0, 1, 4], vec![2, 3, 5]]);
    }

    #[test]
    fn a_limit_prunes_what_lies_below_it() {
        let mut weights = oracle_weights();
        let pruned = prune_vectors(&mut weights, &SHAPE, VectorPruning::Below(0.61), 32).unwrap();
        assert_eq!(positions(&pruned[0]), [2, 4, 5]);
    }

    #[test]
    fn bad_settings_are_refused() {
        for pruning in [VectorPruning::Share(1.1), VectorPruning::Share(f64::NAN), VectorPruning::Below(-1.0)] {
            let refused = prune_vectors(&mut oracle_weights(), &SHAPE, pruning, 32);
            assert!(matches!(refused, Err(Error::Config { name: "vector_pruning", .. })));
        }
        assert!(prune_vectors(&mut oracle_weights(), &SHAPE, VectorPruning::Share(0.5), 0).is_err());
        assert!(prune_vectors(&mut [0.0; 3], &SHAPE, VectorPruning::Share(0.5), 32).is_err());
    }

    proptest! {
        #[test]
        fn the_share_is_kept_to_the_letter(share in 0.0f64..=1.0, group in 1usize..5) {
            let mut weights = oracle_weights();
            for pruned in prune_vectors(&mut weights, &SHAPE, VectorPruning::Share(share), group).unwrap() {
                prop_assert_eq!(positions(&pruned).len(), (share * 6.0).ceil() as usize);
            }
        }
    }
}
