//! Maps of similarity, and the numbers read off them.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// How alike two feature vectors are. All are symmetric and 1 for equal vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// `⟨f, g⟩ / (‖f‖ ‖g‖)`, the paper's; −1 to 1.
    #[default]
    Cosine,
    /// `1 − ‖f − g‖ / (‖f‖ + ‖g‖)`; 0 to 1. Unlike the cosine it sees changes of length.
    Euclidean,
}

impl Similarity {
    /// The similarity of two vectors.
    ///
    /// # Errors
    /// Lengths that differ, numbers that are not finite, and vectors without a direction. (Their position in an error is that
    /// of the vector: 0 or 1.)
    pub fn of(self, f: &[f32], g: &[f32]) -> Result<f64> {
        if f.len() != g.len() {
            let found = format!("{} numbers", g.len());
            return Err(Error::shape("second feature vector", format!("{} numbers", f.len()), found));
        }
        let rows = Tensor::f_stack(&[Tensor::f_from_slice(f)?, Tensor::f_from_slice(g)?], 0)?;
        let anchor = rows.f_narrow(0, 0, 1)?;
        Ok(self.to_anchors("vectors", &rows, &anchor, &|index| [0, index])?[0][1])
    }

    /// Similarities of `features` `[positions, length]` to each of `anchors` `[anchors, length]`, one list an anchor.
    pub(crate) fn to_anchors(
        self,
        layer: &str,
        features: &Tensor,
        anchors: &Tensor,
        position: &dyn Fn(usize) -> [usize; 2],
    ) -> Result<Vec<Vec<f64>>> {
        let (features, anchors) = (features.f_to_kind(Kind::Double)?, anchors.f_to_kind(Kind::Double)?);
        let norms = checked_norms(layer, &features, position)?;
        let lengths = anchors.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?;
        let products = anchors.f_matmul(&features.f_transpose(0, 1)?)?;
        let similarity = match self {
            Self::Cosine => (products / (&lengths * norms.f_unsqueeze(0)?)).f_clamp(-1.0, 1.0)?,
            Self::Euclidean => {
                let norms = norms.f_unsqueeze(0)?;
                // ‖f − g‖² from its parts loses half the digits; 16 are enough to start with.
                let squares = (lengths.f_square()? + norms.f_square()? - products * 2.0).f_clamp_min(0.0)?;
                1.0 - squares.f_sqrt()? / (&lengths + &norms)
            }
        };
        (0..similarity.size()[0]).map(|row| doubles(&similarity.f_get(row)?)).collect()
    }
}

/// Norms of the rows, none of which may be zero or not finite.
fn checked_norms(layer: &str, features: &Tensor, position: &dyn Fn(usize) -> [usize; 2]) -> Result<Tensor> {
    let norms = features.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), false)?;
    for (index, norm) in doubles(&norms)?.into_iter().enumerate() {
        if !norm.is_finite() {
            return Err(Error::NotFinite { layer: layer.into(), position: position(index) });
        }
        if norm == 0.0 {
            return Err(Error::ZeroNorm { layer: layer.into(), position: position(index) });
        }
    }
    Ok(norms)
}

pub(crate) fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    let flat = tensor.f_to_kind(Kind::Double)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

/// Similarity to the anchor at every position of a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimilarityMap {
    /// Rows and columns.
    pub size: [usize; 2],
    /// Row and column of the anchor.
    pub anchor: [usize; 2],
    /// Row by row.
    pub values: Vec<f64>,
}

/// A map's mean at one distance from the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProfilePoint {
    /// Chebyshev distance in grid steps.
    pub distance: usize,
    /// Mean similarity.
    pub mean: f64,
    /// Positions at this distance.
    pub positions: usize,
}

impl SimilarityMap {
    /// A map of these values.
    ///
    /// # Errors
    /// Another number of values than positions, none at all, an anchor outside, values that are not finite.
    pub fn new(size: [usize; 2], anchor: [usize; 2], values: Vec<f64>) -> Result<Self> {
        if values.len() != size[0] * size[1] || values.is_empty() {
            let expected = format!("{size:?} values, at least one");
            return Err(Error::shape("similarity map", expected, format!("{} values", values.len())));
        }
        if anchor[0] >= size[0] || anchor[1] >= size[1] {
            return Err(Error::AnchorOutside { anchor, grid: size });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let position = [index / size[1], index % size[1]];
            return Err(Error::NotFinite { layer: "similarity map".into(), position });
        }
        Ok(Self { size, anchor, values })
    }

    /// The value at a row and column.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size[1] + column]
    }

    /// The mean over all positions, the anchor included, as the paper's logs have it.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// `1 − mean`: how much is lost over the whole frame.
    pub fn global_drop(&self) -> f64 {
        1.0 - self.mean()
    }

    /// `1 −` the mean over positions at Chebyshev distances 1 to `radius` of the anchor: how much a small shift loses. 0 where
    /// there is no such position.
    pub fn local_drop(&self, radius: usize) -> f64 {
        let near = self.distances().filter(|(distance, _)| (1..=radius).contains(distance));
        let (sum, count) = near.fold((0.0, 0_usize), |(sum, count), (_, value)| (sum + value, count + 1));
        if count == 0 { 0.0 } else { 1.0 - sum / count as f64 }
    }

    /// Mean absolute difference between neighbours along rows and columns. 0 for a single position.
    pub fn jaggedness(&self) -> f64 {
        let [rows, columns] = self.size;
        let mut sum = 0.0;
        let mut count = 0;
        for row in 0..rows {
            for column in 0..columns {
                if column + 1 < columns {
                    sum += (self.at(row, column) - self.at(row, column + 1)).abs();
                    count += 1;
                }
                if row + 1 < rows {
                    sum += (self.at(row, column) - self.at(row + 1, column)).abs();
                    count += 1;
                }
            }
        }
        if count == 0 { 0.0 } else { sum / f64::from(count) }
    }

    /// Mean similarity by Chebyshev distance, from 0 outwards.
    pub fn profile(&self) -> Vec<ProfilePoint> {
        profile_of(self.distances())
    }

    /// Mean drop along the anchor's row divided by that along its column; above 1 where horizontal shifts lose more. `None`
    /// where there is no drop along the column.
    pub fn anisotropy(&self) -> Option<f64> {
        let [row, column] = self.anchor;
        let drop = |values: Vec<f64>| values.iter().map(|value| 1.0 - value).sum::<f64>() / values.len().max(1) as f64;
        let along_row = (0..self.size[1]).filter(|at| *at != column).map(|at| self.at(row, at)).collect();
        let along_column = (0..self.size[0]).filter(|at| *at != row).map(|at| self.at(at, column)).collect();
        let (along_row, along_column) = (drop(along_row), drop(along_column));
        (along_column > 0.0).then(|| along_row / along_column)
    }

    /// Share of the power of the differences along rows that lies in the frequency bin nearest to each period (in grid steps).
    ///
    /// Differences of neighbours, each row's mean taken off, under a Hann window, all rows added up; bins 1 to `n / 2` of `n`
    /// differences make 1. A period whose bin another one of the list has already, or that is longer than `n`, gets 0; so
    /// does everything in a map without any difference. Noise without structure has a share of about `2 / n` a period.
    pub fn stride_spectrum(&self, periods: &[usize]) -> Vec<f64> {
        let n = self.size[1].saturating_sub(1);
        let mut power = vec![0.0; n / 2 + 1];
        for row in self.values.chunks_exact(self.size[1]) {
            let differences: Vec<f64> = row.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = differences.iter().sum::<f64>() / n.max(1) as f64;
            let windowed: Vec<f64> = differences
                .iter()
                .enumerate()
                .map(|(at, difference)| {
                    let phase = std::f64::consts::TAU * (at as f64 + 0.5) / n as f64;
                    (difference - mean) * 0.5 * (1.0 - phase.cos())
                })
                .collect();
            for (bin, power) in power.iter_mut().enumerate().skip(1) {
                let turn = |at: usize| std::f64::consts::TAU * (bin * at) as f64 / n as f64;
                let real: f64 = windowed.iter().enumerate().map(|(at, value)| value * turn(at).cos()).sum();
                let imaginary: f64 = windowed.iter().enumerate().map(|(at, value)| value * turn(at).sin()).sum();
                *power += real * real + imaginary * imaginary;
            }
        }
        let total: f64 = power.iter().sum();
        let mut used = Vec::new();
        let share = |&period: &usize| {
            let bin = (n as f64 / period.max(1) as f64).round() as usize;
            if total <= 0.0 || bin == 0 || bin >= power.len() || used.contains(&bin) {
                return 0.0;
            }
            used.push(bin);
            power[bin] / total
        };
        periods.iter().map(share).collect()
    }

    /// The largest difference between positions that are `period` steps apart along a row or column; 0 where none are.
    pub fn aperiodicity(&self, period: usize) -> f64 {
        let [rows, columns] = self.size;
        let mut largest = 0.0_f64;
        for row in 0..rows {
            for column in 0..columns {
                if row + period < rows {
                    largest = largest.max((self.at(row, column) - self.at(row + period, column)).abs());
                }
                if column + period < columns {
                    largest = largest.max((self.at(row, column) - self.at(row, column + period)).abs());
                }
            }
        }
        largest
    }

    /// Rows `row,column,similarity` with a header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let mut text = String::from("row,column,similarity\n");
        for (index, value) in self.values.iter().enumerate() {
            text.push_str(&format!("{},{},{value}\n", index / self.size[1], index % self.size[1]));
        }
        std::fs::write(path, text).map_err(|source| Error::Write { path: path.into(), source })
    }

    fn distances(&self) -> impl Iterator<Item = (usize, f64)> {
        let columns = self.size[1];
        self.values.iter().enumerate().map(move |(index, value)| {
            let [row, column] = [index / columns, index % columns];
            (row.abs_diff(self.anchor[0]).max(column.abs_diff(self.anchor[1])), *value)
        })
    }
}

fn profile_of(distances: impl Iterator<Item = (usize, f64)>) -> Vec<ProfilePoint> {
    let mut sums = std::collections::BTreeMap::<usize, (f64, usize)>::new();
    for (distance, value) in distances {
        let entry = sums.entry(distance).or_default();
        *entry = (entry.0 + value, entry.1 + 1);
    }
    let point = |(distance, (sum, positions)): (usize, (f64, usize))| ProfilePoint {
        distance,
        mean: sum / positions as f64,
        positions,
    };
    sums.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> SimilarityMap {
        let values = (0..rows * columns).map(|index| value(index / columns, index % columns)).collect();
        SimilarityMap::new([rows, columns], [rows / 2, columns / 2], values).unwrap()
    }

    #[test]
    fn similarities_of_two_small_vectors_by_hand() {
        // (3·4 + 4·3) / 25; 1 − √2 / 10.
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
        near(Similarity::Cosine.of(&[3.0, 4.0], &[4.0, 3.0]).unwrap(), 0.96);
        near(Similarity::Euclidean.of(&[3.0, 4.0], &[4.0, 3.0]).unwrap(), 1.0 - 2_f64.sqrt() / 10.0);
        near(Similarity::Cosine.of(&[1.0, 0.0], &[-2.0, 0.0]).unwrap(), -1.0);
        near(Similarity::Euclidean.of(&[1.0, 0.0], &[-2.0, 0.0]).unwrap(), 0.0);
    }

    #[test]
    fn vectors_without_direction_are_refused_by_position() {
        let error = Similarity::Cosine.of(&[1.0, 0.0], &[0.0, 0.0]).unwrap_err();
        assert!(matches!(error, Error::ZeroNorm { position: [0, 1], .. }), "{error}");
        let error = Similarity::Cosine.of(&[f32::NAN, 0.0], &[0.0, 1.0]).unwrap_err();
        assert!(matches!(error, Error::NotFinite { position: [0, 0], .. }), "{error}");
        assert!(Similarity::Cosine.of(&[1.0], &[1.0, 2.0]).is_err());
    }

    #[test]
    fn a_constant_map_loses_nothing() {
        let flat = map(5, 7, |_, _| 1.0);
        assert_eq!((flat.jaggedness(), flat.local_drop(2), flat.global_drop()), (0.0, 0.0, 0.0));
        assert_eq!(flat.stride_spectrum(&[2, 4]), [0.0, 0.0]);
        assert_eq!(flat.anisotropy(), None);
        assert_eq!(flat.aperiodicity(2), 0.0);
    }

    #[test]
    fn drops_and_profiles_of_a_cone_by_hand() {
        // 1 − .1 · distance on 5 × 5: 1, 8 and 16 positions at distances 0, 1, 2.
        let cone = map(5, 5, |row, column| 1.0 - 0.1 * row.abs_diff(2).max(column.abs_diff(2)) as f64);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
        near(cone.local_drop(1), 0.1);
        near(cone.local_drop(2), (8.0 * 0.1 + 16.0 * 0.2) / 24.0);
        near(cone.global_drop(), (8.0 * 0.1 + 16.0 * 0.2) / 25.0);
        near(cone.anisotropy().unwrap(), 1.0);
        let profile: Vec<_> = cone.profile().into_iter().map(|point| (point.distance, point.positions)).collect();
        assert_eq!(profile, [(0, 1), (1, 8), (2, 16)]);
        // Steps of .1 wherever the ring changes: in rows 1 to 3 … counted: each of rows 0, 4: 0; rows 1, 3: 2; row 2: 4.
        near(cone.jaggedness(), 0.1 * 2.0 * 8.0 / 40.0);
    }

    #[test]
    fn a_wave_has_its_power_at_its_period() {
        let wave = map(3, 33, |_, column| (std::f64::consts::TAU * column as f64 / 8.0).sin());
        let shares = wave.stride_spectrum(&[2, 4, 8, 16]);
        // A Hann window spreads a line over three bins with powers ¼ : 1 : ¼, so that the middle one holds two thirds.
        assert!((shares[2] - 2.0 / 3.0).abs() < 0.01 && shares[0] + shares[1] < 0.01, "{shares:?}");
        // Differences of sines, exact to rounding.
        assert!(wave.aperiodicity(8) < 1e-12 && wave.aperiodicity(4) > 1.0);
    }

    #[test]
    fn maps_that_are_none_are_refused() {
        assert!(SimilarityMap::new([2, 2], [0, 0], vec![0.0; 3]).is_err());
        assert!(SimilarityMap::new([0, 2], [0, 0], vec![]).is_err());
        assert!(matches!(SimilarityMap::new([1, 2], [0, 2], vec![0.0; 2]), Err(Error::AnchorOutside { .. })));
        let error = SimilarityMap::new([2, 2], [0, 0], vec![0.0, 0.0, f64::NAN, 0.0]).unwrap_err();
        assert!(matches!(error, Error::NotFinite { position: [1, 0], .. }));
    }

    #[test]
    fn a_table_has_a_row_a_position() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.csv");
        map(1, 2, |_, column| column as f64 / 2.0).write_csv(&path).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "row,column,similarity\n0,0,0\n0,1,0.5\n");
        let error = map(1, 1, |_, _| 1.0).write_csv(Path::new("/no/such/folder/map.csv")).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/folder/map.csv"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn similarity_is_symmetric_bounded_and_one_for_equals(
            f in prop::collection::vec(-9.0_f32..9.0, 4), g in prop::collection::vec(-9.0_f32..9.0, 4), scale in 0.1_f32..9.0,
        ) {
            prop_assume!(f.iter().any(|x| x.abs() > 1e-3) && g.iter().any(|x| x.abs() > 1e-3));
            for (measure, low) in [(Similarity::Cosine, -1.0), (Similarity::Euclidean, 0.0)] {
                let there = measure.of(&f, &g).unwrap();
                // 64-bit sums of four products; the root of a difference keeps half the digits.
                prop_assert!((there - measure.of(&g, &f).unwrap()).abs() < 1e-12);
                prop_assert!((measure.of(&f, &f).unwrap() - 1.0).abs() < 1e-6);
                prop_assert!((low - 1e-9..=1.0 + 1e-9).contains(&there));
            }
            let scaled: Vec<f32> = f.iter().map(|x| x * scale).collect();
            let cosine = |f: &[f32]| Similarity::Cosine.of(f, &g).unwrap();
            // The scaled vector is rounded to 24 bits.
            prop_assert!((cosine(&f) - cosine(&scaled)).abs() < 1e-5);
        }

        #[test]
        fn drops_stay_within_the_range_of_the_map(values in prop::collection::vec(-1.0_f64..1.0, 12)) {
            let map = SimilarityMap::new([3, 4], [1, 2], values).unwrap();
            for drop in [map.local_drop(1), map.local_drop(9), map.global_drop()] {
                prop_assert!((0.0..=2.0).contains(&drop));
            }
            prop_assert!(map.jaggedness() >= 0.0);
            let shares: f64 = map.stride_spectrum(&[2, 3]).iter().sum();
            prop_assert!((0.0..=1.0 + 1e-9).contains(&shares));
        }
    }
}
