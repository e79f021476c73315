//! How alike two masks are, and how alike chance would make them.

use std::fmt::Write;

use crate::Result;
use crate::mask::{Mask, MaskSet};

/// What two masks of one tensor have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerComparison {
    /// The tensor's name.
    pub name: String,
    /// Its weights.
    pub weights: usize,
    /// Weights that the first mask keeps.
    pub first: usize,
    /// Weights that the second mask keeps.
    pub second: usize,
    /// Weights that both keep.
    pub both: usize,
}

impl LayerComparison {
    fn new((name, a, b): (&str, &Mask, &Mask)) -> Self {
        // One walk through both: a ResNet-50's masks are 3 MB each, and memory is what takes time.
        let (mut first, mut second, mut both) = (0_u64, 0_u64, 0_u64);
        for (a, b) in a.bits().words().iter().zip(b.bits().words()) {
            first += u64::from(a.count_ones());
            second += u64::from(b.count_ones());
            both += u64::from((a & b).count_ones());
        }
        // At most the number of weights.
        let [first, second, both] = [first, second, both].map(|count| count as usize);
        Self { name: name.to_owned(), weights: a.weights(), first, second, both }
    }

    /// Weights that at least one mask keeps.
    pub fn either(&self) -> usize {
        self.first + self.second - self.both
    }

    /// `|a ∩ b| / |a ∪ b|`, the paper's relative mask similarity; 1 for two empty masks.
    pub fn jaccard(&self) -> f64 {
        ratio(self.both as f64, self.either() as f64)
    }

    /// What [`jaccard`](Self::jaccard) is for independent masks that keep as many weights: the ratio of the expected
    /// intersection `ab/n` to the expected union `a + b − ab/n`. Equal densities `d` give `d / (2 − d)`.
    pub fn jaccard_by_chance(&self) -> f64 {
        let both = self.expected_both();
        ratio(both, (self.first + self.second) as f64 - both)
    }

    /// Share of the weights on which the two differ.
    pub fn hamming(&self) -> f64 {
        share((self.either() - self.both) as f64, self.weights as f64)
    }

    fn expected_both(&self) -> f64 {
        share(self.first as f64 * self.second as f64, self.weights as f64)
    }
}

/// What two masks of a network have in common, from their packed bits in one walk.
///
/// Masks of low density overlap little even when one made the other, and dense ones overlap much by chance: read
/// [`jaccard`](Self::jaccard) beside [`jaccard_by_chance`](Self::jaccard_by_chance).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskComparison {
    /// In the order of the first mask's tensors.
    pub layers: Vec<LayerComparison>,
}

impl MaskComparison {
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for masks of different tensors, naming the first.
    pub fn new(first: &MaskSet, second: &MaskSet) -> Result<Self> {
        Ok(Self { layers: first.pairs(second)?.into_iter().map(LayerComparison::new).collect() })
    }

    /// `|a ∩ b| / |a ∪ b|` over all tensors together.
    pub fn jaccard(&self) -> f64 {
        ratio(self.sum(|layer| layer.both as f64), self.sum(|layer| layer.either() as f64))
    }

    /// What [`jaccard`](Self::jaccard) is for masks that are independent within each tensor and keep as many weights of it.
    pub fn jaccard_by_chance(&self) -> f64 {
        let both = self.sum(LayerComparison::expected_both);
        ratio(both, self.sum(|layer| (layer.first + layer.second) as f64) - both)
    }

    /// Share of all weights on which the two differ.
    pub fn hamming(&self) -> f64 {
        let differ = self.sum(|layer| (layer.either() - layer.both) as f64);
        share(differ, self.sum(|layer| layer.weights as f64))
    }

    /// One line a layer: `layer,weights,density_first,density_second,jaccard,jaccard_by_chance,hamming`.
    pub fn to_csv(&self) -> String {
        let mut csv = "layer,weights,density_first,density_second,jaccard,jaccard_by_chance,hamming\n".to_owned();
        for layer in &self.layers {
            let density = |kept: usize| ratio(kept as f64, layer.weights as f64);
            let (first, second) = (density(layer.first), density(layer.second));
            let (jaccard, chance, hamming) = (layer.jaccard(), layer.jaccard_by_chance(), layer.hamming());
            let row = format_args!("{},{first},{second},{jaccard},{chance},{hamming}", layer.weights);
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{},{row}", layer.name);
        }
        csv
    }

    fn sum(&self, of: impl Fn(&LayerComparison) -> f64) -> f64 {
        self.layers.iter().map(of).sum()
    }
}

/// 1 where there is nothing to compare.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 1.0 } else { part / whole }
}

/// 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Tensor;

    fn set(layers: &[(&str, &[u8])]) -> MaskSet {
        let tensors: Vec<_> =
            layers.iter().map(|(name, bits)| ((*name).to_owned(), Tensor::from_slice(bits))).collect();
        MaskSet::from_tensors(&tensors).unwrap()
    }

    #[test]
    fn layers_and_network_are_those_worked_out_by_hand() {
        let a = set(&[("x", &[1, 1, 0, 0]), ("y", &[1, 1, 1, 1, 0, 0])]);
        let b = set(&[("x", &[1, 0, 1, 0]), ("y", &[1, 1, 0, 0, 0, 0])]);
        let found = MaskComparison::new(&a, &b).unwrap();
        // x: 1 of 3; by chance both is 1, either 3: the same. y: nested, 2 of 4; by chance 4·2/6 = 4/3 of 14/3.
        assert_eq!((found.layers[0].jaccard(), found.layers[1].jaccard()), (1.0 / 3.0, 0.5));
        assert_eq!(found.layers[0].jaccard_by_chance(), 1.0 / 3.0);
        assert!((found.layers[1].jaccard_by_chance() - 4.0 / 14.0).abs() < 1e-15);
        assert_eq!((found.jaccard(), found.hamming()), (3.0 / 7.0, 0.4));
        // (1 + 4/3) of (3 + 14/3).
        assert!((found.jaccard_by_chance() - 7.0 / 23.0).abs() < 1e-15);
        assert!(
            found
                .to_csv()
                .ends_with("\ny,6,0.6666666666666666,0.3333333333333333,0.5,0.2857142857142857,0.3333333333333333\n")
        );
    }

    #[test]
    fn tensors_without_weights_do_not_count() {
        let found = MaskComparison::new(&set(&[]), &set(&[])).unwrap();
        assert_eq!((found.jaccard(), found.jaccard_by_chance(), found.hamming()), (1.0, 1.0, 0.0));
        let (a, b) = (set(&[("x", &[]), ("y", &[1, 0])]), set(&[("x", &[]), ("y", &[1, 1])]));
        let found = MaskComparison::new(&a, &b).unwrap();
        assert_eq!((found.jaccard(), found.jaccard_by_chance(), found.hamming()), (0.5, 0.5, 0.5));
        assert_eq!(found.hamming(), a.hamming(&b).unwrap());
        assert_eq!((found.layers[0].jaccard_by_chance(), found.layers[0].hamming()), (1.0, 0.0));
        assert!(found.to_csv().contains("\nx,0,1,1,1,1,0\n"), "{}", found.to_csv());
    }

    #[test]
    fn a_mask_of_another_architecture_is_refused_by_name() {
        let error = MaskComparison::new(&set(&[("x", &[1, 0])]), &set(&[("x", &[1, 0, 1])])).unwrap_err().to_string();
        assert_eq!(error, "`x`: expected a mask of shape [2], found [3]");
        let error = MaskComparison::new(&set(&[("x", &[1])]), &set(&[("z", &[1])])).unwrap_err().to_string();
        assert!(error.starts_with("`z`"), "{error}");
    }

    #[test]
    fn independent_masks_overlap_as_chance_says() {
        for (density, expected) in [(0.64, 0.4706), (0.3277, 0.1959), (0.1074, 0.0567)] {
            let ones = (density * 100_000.0) as usize;
            let mask = set(&[("x", &(0..100_000).map(|i| u8::from(i < ones)).collect::<Vec<_>>())]);
            let found = MaskComparison::new(&mask.shuffle_within_layers(1), &mask.shuffle_within_layers(2)).unwrap();
            // Expectations are given to four digits; the ratio's standard deviation is below 0.0015 at this size.
            assert!((found.jaccard_by_chance() - expected).abs() < 1e-4, "{}", found.jaccard_by_chance());
            assert!((found.jaccard() - expected).abs() < 0.006, "{}", found.jaccard());
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_plain_walks(pairs in prop::collection::vec((0_u8..2, 0_u8..2), 1..300)) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let (a, b) = (set(&[("x", &a)]), set(&[("x", &b)]));
            let found = MaskComparison::new(&a, &b).unwrap();
            prop_assert_eq!(found.jaccard(), a.jaccard(&b).unwrap());
            prop_assert_eq!(found.hamming(), a.hamming(&b).unwrap());
            prop_assert_eq!(found.layers[0].both, a.overlap(&b).unwrap());
        }
    }
}
