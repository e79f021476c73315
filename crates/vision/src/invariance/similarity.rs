//! Maps of similarity, and the numbers read off them.

use super::{Error, Result};
use image::{ImageFormat, Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use std::io::Cursor;
use std::path::Path;
use tch::{Kind, Tensor};

/// Differences of similarities that mean nothing: cosines of features that agree to single precision differ by some 1e-14.
const ROUNDING: f64 = 1e-12;

/// Points of viridis at equal distances, dark to bright: the page's colours.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];

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
#[serde(try_from = "Written")]
pub struct SimilarityMap {
    /// Rows and columns.
    pub size: [usize; 2],
    /// Row and column of the anchor.
    pub anchor: [usize; 2],
    /// Row by row.
    pub values: Vec<f64>,
}

/// A map as it stands in a file, not yet checked.
#[derive(Deserialize)]
struct Written {
    size: [usize; 2],
    anchor: [usize; 2],
    values: Vec<f64>,
}

impl TryFrom<Written> for SimilarityMap {
    type Error = Error;

    fn try_from(Written { size, anchor, values }: Written) -> Result<Self> {
        Self::new(size, anchor, values)
    }
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
        if size[0].checked_mul(size[1]) != Some(values.len()) || values.is_empty() {
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

    /// Share of the power of the differences along rows that a wave of each period (in grid steps) explains.
    ///
    /// With `d` the `n` differences of a row's neighbours under a Hann window `w`, their mean under it taken off, and
    /// `ω = 2π / period`: `Σ |Σ w d e^(−iωt)|²` over rows, divided by what a pure wave of the period and as much power gets at most,
    /// `½ (Σ w + |Σ w e^(−2iωt)|) Σ w d²`. A wave so has a share of 1 at its own period, wherever that falls between the
    /// frequencies of a row. Periods whose `n / period` lie less than 2 apart share their power; differences in random order have
    /// about `3 / n` at every period, half of it at 2. 0 for a period below 2 or above `n`, and where differences are all the same.
    pub fn stride_spectrum(&self, periods: &[usize]) -> Vec<f64> {
        let n = self.size[1].saturating_sub(1);
        let phase = |at: usize| TAU * (at as f64 + 0.5) / n as f64;
        let window: Vec<f64> = (0..n).map(|at| 0.5 * (1.0 - phase(at).cos())).collect();
        let weight: f64 = window.iter().sum();
        let mut rows = self.row_differences();
        for row in &mut rows {
            let mean = window.iter().zip(&*row).map(|(w, d)| w * d).sum::<f64>() / weight;
            row.iter_mut().for_each(|d| *d -= mean);
        }
        let power: f64 = rows.iter().flat_map(|row| window.iter().zip(row)).map(|(w, d)| w * d * d).sum();
        let flat = power <= ROUNDING.powi(2) * weight * rows.len() as f64;
        let share = |&period: &usize| {
            if period < 2 || period > n || flat {
                return 0.0;
            }
            let frequency = TAU / period as f64;
            let explained = |row: &Vec<f64>| squared_amplitude(window.iter().zip(row).map(|(w, d)| w * d), frequency);
            let twice = squared_amplitude(window.iter().copied(), 2.0 * frequency).sqrt();
            rows.iter().map(explained).sum::<f64>() / (0.5 * (weight + twice) * power)
        };
        periods.iter().map(share).collect()
    }

    /// How much better rows repeat after `period` steps than after one step less or more: whether the map has structure of this
    /// period, such as a network's total stride.
    ///
    /// `1 − D(period) / ½ (D(period − 1) + D(period + 1))`, where `D(lag)` is the mean square of how much the differences along rows
    /// change over `lag` steps. 1 for rows that repeat exactly, whatever their shape, so also for shorter periods that divide this
    /// one; about 0 for noise, be it in the map or in its slopes; little for a single slope or hill, within ± 0.1 for a period of 8
    /// on 21 positions; below 0 where another period fits better. 0 for a period below 3 or rows of fewer than `period + 3`
    /// positions, and where no lag changes anything.
    pub fn repetition(&self, period: usize) -> f64 {
        let rows = self.row_differences();
        let n = self.size[1].saturating_sub(1);
        if period < 3 || n < period.saturating_add(2) {
            return 0.0;
        }
        let change = |lag: usize| {
            let squares =
                |row: &Vec<f64>| row.iter().zip(&row[lag..]).map(|(d, later)| (later - d).powi(2)).sum::<f64>();
            rows.iter().map(squares).sum::<f64>() / (rows.len() * (n - lag)) as f64
        };
        let beside = 0.5 * (change(period - 1) + change(period + 1));
        if beside <= ROUNDING.powi(2) { 0.0 } else { 1.0 - change(period) / beside }
    }

    /// The largest difference between positions that are `period` steps apart along a row or column; 0 where none are.
    pub fn aperiodicity(&self, period: usize) -> f64 {
        let [rows, columns] = self.size;
        let mut largest = 0.0_f64;
        for row in 0..rows {
            for column in 0..columns {
                if row.saturating_add(period) < rows {
                    largest = largest.max((self.at(row, column) - self.at(row + period, column)).abs());
                }
                if column.saturating_add(period) < columns {
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

    /// Writes a picture with a pixel a position, in viridis from `low` to 1, the colours of a [`Page`](super::Page). What is lower has
    /// the colour of `low`: give the same to maps that are compared.
    ///
    /// # Errors
    /// A `low` that is not below 1, a map too large for a picture, or a file that cannot be written.
    pub fn write_png(&self, path: &Path, low: f64) -> Result<()> {
        if !(low.is_finite() && low < 1.0) {
            return Err(Error::setting("lowest colour", "below 1", low));
        }
        let [rows, columns] = self.size.map(u32::try_from);
        let (Ok(rows), Ok(columns)) = (rows, columns) else {
            return Err(Error::shape("similarity map", "at most 2^32 − 1 a side", format!("{:?}", self.size)));
        };
        let image = RgbImage::from_fn(columns, rows, |column, row| {
            Rgb(viridis((self.at(row as usize, column as usize) - low) / (1.0 - low)))
        });
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png)?;
        std::fs::write(path, png.into_inner()).map_err(|source| Error::Write { path: path.into(), source })
    }

    /// Differences of neighbours, row by row.
    fn row_differences(&self) -> Vec<Vec<f64>> {
        let differences = |row: &[f64]| row.windows(2).map(|pair| pair[1] - pair[0]).collect();
        self.values.chunks_exact(self.size[1]).map(differences).collect()
    }

    fn distances(&self) -> impl Iterator<Item = (usize, f64)> {
        let columns = self.size[1];
        self.values.iter().enumerate().map(move |(index, value)| {
            let [row, column] = [index / columns, index % columns];
            (row.abs_diff(self.anchor[0]).max(column.abs_diff(self.anchor[1])), *value)
        })
    }
}

/// The colour at a share of the scale; 0 and 1 beyond its ends.
fn viridis(share: f64) -> [u8; 3] {
    let at = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let low = (at as usize).min(VIRIDIS.len() - 2);
    let [below, above] = [VIRIDIS[low], VIRIDIS[low + 1]].map(|colour| colour.map(f64::from));
    [0, 1, 2].map(|channel| (below[channel] + (at - low as f64) * (above[channel] - below[channel])).round() as u8)
}

/// `|Σ x e^(−iωt)|²` with the frequency `ω` in radians a step.
fn squared_amplitude(values: impl Iterator<Item = f64>, frequency: f64) -> f64 {
    let (real, imaginary) = values.enumerate().fold((0.0, 0.0), |(real, imaginary), (at, value)| {
        let (sine, cosine) = (frequency * at as f64).sin_cos();
        (real + value * cosine, imaginary - value * sine)
    });
    real * real + imaginary * imaginary
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
mod tests;
