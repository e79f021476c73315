//! Where in a network its weights survive.

use std::fmt::Write;

use crate::mask::{Mask, MaskSet, kept_share};

/// One tensor of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProfile {
    /// The tensor's name.
    pub name: String,
    /// Its weights.
    pub weights: usize,
    /// Weights kept.
    pub survivors: usize,
    /// `[out, in]` slices: 3 × 3 kernels, or single weights of 1 × 1 and linear layers.
    pub kernels: usize,
    /// Slices of which nothing is kept.
    pub zero_kernels: usize,
    /// Filters (rows of a linear layer) of which nothing is kept: outputs that are a constant.
    pub zero_filters: usize,
    /// Weights of a slice.
    pub kernel_weights: usize,
}

impl LayerProfile {
    fn new((name, mask): (&str, &Mask)) -> Self {
        let area = mask.shape().iter().skip(2).product::<i64>().max(1) as usize;
        let filter = mask.shape().iter().skip(1).product::<i64>().max(1) as usize;
        let (weights, survivors) = (mask.weights(), mask.survivors());
        let zero_kernels = if area == 1 { weights - survivors } else { empty(mask, area) };
        Self {
            name: name.to_owned(),
            weights,
            survivors,
            kernels: weights / area,
            zero_kernels,
            zero_filters: empty(mask, filter),
            kernel_weights: area,
        }
    }

    /// Share of the weights dropped; 0 of none.
    pub fn sparsity(&self) -> f64 {
        1.0 - kept_share(self.survivors, self.weights)
    }
}

/// Groups of `unit` neighbouring bits that are all 0.
fn empty(mask: &Mask, unit: usize) -> usize {
    let words = mask.bits().words();
    let is_empty = |start: usize| {
        let end = start + unit;
        let (first, last) = (start / 64, (end - 1) / 64);
        let low = u64::MAX << (start % 64);
        let high = u64::MAX >> (63 - (end - 1) % 64);
        if first == last {
            return words[first] & low & high == 0;
        }
        words[first] & low == 0 && words[last] & high == 0 && words[first + 1..last].iter().all(|word| *word == 0)
    };
    (0..mask.weights()).step_by(unit).filter(|start| is_empty(*start)).count()
}

/// A mask's tensors in order of depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// In the mask's order.
    pub layers: Vec<LayerProfile>,
}

impl Profile {
    /// Counts what is left of every tensor.
    pub fn of(mask: &MaskSet) -> Self {
        Self { layers: mask.iter().map(LayerProfile::new).collect() }
    }

    /// Empty slices over all tensors, and over those whose slices have more than one weight: in a 1 × 1 layer an empty slice
    /// is only a dropped weight.
    pub fn zero_kernels(&self) -> (usize, usize) {
        let sum = |least: usize| {
            let layers = self.layers.iter().filter(|layer| layer.kernel_weights >= least);
            layers.map(|layer| layer.zero_kernels).sum()
        };
        (sum(1), sum(2))
    }

    /// One line a layer: `layer,weights,survivors,sparsity,kernels,zero_kernels,zero_filters`.
    pub fn to_csv(&self) -> String {
        let mut csv = "layer,weights,survivors,sparsity,kernels,zero_kernels,zero_filters\n".to_owned();
        for layer in &self.layers {
            let LayerProfile { name, weights, survivors, kernels, zero_kernels, zero_filters, .. } = layer;
            let sparsity = layer.sparsity();
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{name},{weights},{survivors},{sparsity},{kernels},{zero_kernels},{zero_filters}");
        }
        csv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    fn mask(bits: &[u8], shape: &[i64]) -> MaskSet {
        MaskSet::from_tensors(&[("x".into(), Tensor::from_slice(bits).view(shape))]).unwrap()
    }

    #[test]
    fn empty_kernels_and_filters_are_counted_by_hand() {
        // Two filters of two 1 × 2 kernels: the first keeps one weight of its second kernel, the second nothing.
        let profile = Profile::of(&mask(&[0, 0, 0, 1, 0, 0, 0, 0], &[2, 2, 1, 2]));
        let layer = &profile.layers[0];
        assert_eq!((layer.kernels, layer.zero_kernels, layer.zero_filters, layer.sparsity()), (4, 3, 1, 0.875));
        assert_eq!(profile.zero_kernels(), (3, 3));
        // As a linear layer every weight is a slice of its own.
        let profile = Profile::of(&mask(&[0, 0, 0, 1, 0, 0, 0, 0], &[2, 4]));
        assert_eq!((profile.layers[0].zero_kernels, profile.zero_kernels()), (7, (7, 0)));
        assert!(profile.to_csv().ends_with("x,8,1,0.875,8,7,1\n"));
    }

    #[test]
    fn of_a_layer_without_weights_nothing_is_dropped() {
        let empty = Tensor::zeros([4, 0, 3, 3], (Kind::Uint8, Device::Cpu));
        let profile = Profile::of(&MaskSet::from_tensors(&[("x".into(), empty)]).unwrap());
        assert_eq!(profile.layers[0].sparsity(), 0.0);
        assert!(profile.to_csv().ends_with("x,0,0,0,0,0,0\n"), "{}", profile.to_csv());
    }

    proptest! {
        #[test]
        fn whole_words_count_as_single_bits_do(
            bits in prop::collection::vec(prop::bool::weighted(0.1), 1..8), out in 1_i64..6, inner in 1_i64..5, area in 1_i64..80,
        ) {
            let total = (out * inner * area) as usize;
            let bits: Vec<u8> = (0..total).map(|at| u8::from(bits[at * 7 % bits.len()] && at % 11 == 0)).collect();
            let mask = mask(&bits, &[out, inner, area, 1]);
            let profile = Profile::of(&mask);
            let empty = |unit: i64| bits.chunks(unit as usize).filter(|slice| slice.iter().all(|bit| *bit == 0)).count();
            prop_assert_eq!(profile.layers[0].zero_kernels, empty(area));
            prop_assert_eq!(profile.layers[0].zero_filters, empty(inner * area));
        }
    }
}
