//! Vectors laid out for the kernel.

use super::super::{Error, Result};
use super::{Distance, STRIP};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Vectors in a panel: the lanes of a 512-bit register.
pub(in super::super) const PANEL: usize = 16;

/// The largest ‖v‖², from the origin, that is searched: (‖v‖ + ‖w‖)² is then at most `f32::MAX`, so that no distance and
/// no score becomes infinite, as only those of filled-up vectors may.
const LARGEST_SQUARE: f32 = f32::MAX / 4.0;

/// Vectors whose mean has a ‖m‖² above so many times their mean square around it are searched from there. Unit vectors stay
/// as they are, unless their mean cosine is above 0.985.
const FAR: f64 = 64.0;

/// Rows of numbers on the host, checked to be finite.
pub(in super::super) struct Rows {
    pub(in super::super) values: Vec<f32>,
    pub(in super::super) count: usize,
    pub(in super::super) dim: usize,
}

/// Copies `[n, d]` to the host.
///
/// # Errors
/// Another shape, no row, NaN or infinity.
pub(in super::super) fn host_rows(what: &'static str, tensor: &Tensor) -> Result<Rows> {
    let size = tensor.size();
    let &[count, dim] = size.as_slice() else {
        return Err(Error::shape(what, "[n, d]", format!("{size:?}")));
    };
    if count < 1 || dim < 1 {
        return Err(Error::Empty(what));
    }
    let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    let dim = dim as usize;
    let broken = values.par_chunks_exact(dim).position_first(|row| row.iter().any(|value| !value.is_finite()));
    match broken {
        Some(position) => Err(Error::NotFinite { what, position }),
        None => Ok(Rows { values, count: count as usize, dim }),
    }
}

/// Vectors in panels of sixteen: for each dimension the sixteen numbers of a panel side by side. Filled up with zero vectors
/// to a whole strip.
#[derive(Debug)]
pub(in super::super) struct Panels {
    values: Vec<f32>,
    /// ½‖v‖², which Euclidean scores subtract; 0 for cosines; ∞ for what was filled up, so that it never comes near.
    half_norms: Vec<f32>,
    rows: usize,
    dim: usize,
    /// What was taken from every vector; `None` for nothing.
    origin: Option<Vec<f64>>,
}

/// The place that vectors are measured from where they lie together far from zero, since a distance is a small difference
/// of large products there.
fn far_origin(rows: &Rows) -> Option<Vec<f64>> {
    let count = rows.count as f64;
    let mut mean = vec![0.0_f64; rows.dim];
    let mut squares = 0.0;
    for row in rows.values.chunks_exact(rows.dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        squares += row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let square: f64 = mean.iter().map(|value| value * value).sum();
    let spread = (squares / count - square).max(0.0);
    if square <= FAR * spread {
        return None;
    }
    // A multiple of a power of two of the spread's size: what is exact before, such as whole numbers, stays so.
    let unit = (spread / rows.dim as f64).sqrt().log2().floor().exp2();
    if unit > 0.0 {
        mean.iter_mut().for_each(|value| *value = (*value / unit).round() * unit);
    }
    Some(mean)
}

impl Panels {
    /// Packs the rows of a gallery in this order, scaled to length 1 for cosines.
    ///
    /// # Errors
    /// A row of norm zero, for cosines; one whose squared length is above [`LARGEST_SQUARE`].
    pub(in super::super) fn pack(rows: &Rows, order: &[u32], distance: Distance) -> Result<Self> {
        let origin = if distance == Distance::Euclidean { far_origin(rows) } else { None };
        Self::pack_from(origin, rows, order, distance)
    }

    /// Packs queries to this gallery: as [`pack`](Self::pack), from the same origin.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub(in super::super) fn pack_queries(&self, rows: &Rows, order: &[u32], distance: Distance) -> Result<Self> {
        Self::pack_from(self.origin.clone(), rows, order, distance)
    }

    fn pack_from(origin: Option<Vec<f64>>, rows: &Rows, order: &[u32], distance: Distance) -> Result<Self> {
        let (count, dim) = (order.len(), rows.dim);
        let filled = count.next_multiple_of(STRIP);
        let mut values = vec![0.0_f32; filled * dim];
        let mut half_norms = vec![f32::INFINITY; filled];
        let row = |position: usize| {
            let at = order[position] as usize * dim;
            &rows.values[at..at + dim]
        };
        let panels = values.par_chunks_exact_mut(PANEL * dim).zip(half_norms.par_chunks_exact_mut(PANEL)).enumerate();
        panels.try_for_each(|(panel, (values, half_norms))| {
            for (lane, half_norm) in half_norms.iter_mut().enumerate().take(count.saturating_sub(panel * PANEL)) {
                let row = row(panel * PANEL + lane);
                let scale = match distance {
                    Distance::Euclidean => 1.0,
                    Distance::Cosine => {
                        let squares: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
                        if squares == 0.0 {
                            let position = order[panel * PANEL + lane] as usize;
                            return Err(Error::ZeroNorm { position });
                        }
                        squares.sqrt().recip()
                    }
                };
                let mut square = 0.0_f32;
                for (k, &value) in row.iter().enumerate() {
                    let value = match (distance, &origin) {
                        (Distance::Cosine, _) => (f64::from(value) * scale) as f32,
                        (Distance::Euclidean, Some(origin)) => (f64::from(value) - origin[k]) as f32,
                        (Distance::Euclidean, None) => value,
                    };
                    values[k * PANEL + lane] = value;
                    square = value.mul_add(value, square);
                }
                if square > LARGEST_SQUARE {
                    let position = order[panel * PANEL + lane] as usize;
                    return Err(Error::NotFinite { what: "a squared distance from row", position });
                }
                *half_norm = if distance == Distance::Cosine { 0.0 } else { 0.5 * square };
            }
            Ok(())
        })?;
        Ok(Self { values, half_norms, rows: count, dim, origin })
    }

    /// Vectors, without what was filled up.
    pub(in super::super) fn rows(&self) -> usize {
        self.rows
    }

    /// With what was filled up: a multiple of the strip.
    pub(in super::super) fn filled(&self) -> usize {
        self.half_norms.len()
    }

    pub(in super::super) fn dim(&self) -> usize {
        self.dim
    }

    pub(in super::super) fn half_norm(&self, row: usize) -> f32 {
        self.half_norms[row]
    }

    /// ½‖v‖² of rows `start..end`.
    pub(in super::super) fn half_norms(&self, start: usize, end: usize) -> &[f32] {
        &self.half_norms[start..end]
    }

    /// The panels of rows `start..end`, both multiples of the panel.
    pub(in super::super) fn panels(&self, start: usize, end: usize) -> &[f32] {
        &self.values[start * self.dim..end * self.dim]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: Vec<f32>, dim: usize) -> Rows {
        Rows { count: values.len() / dim, values, dim }
    }

    #[test]
    fn only_what_lies_together_far_from_zero_gets_another_origin() {
        // Unit vectors within 0.3 rad of one direction, whose mean has ‖m‖² of about 1 − 0.3² / 3: 33 times their spread.
        let cone = |i: i16| [(0.3 * f32::from(i) / 50.0).cos(), (0.3 * f32::from(i) / 50.0).sin()];
        assert_eq!(far_origin(&rows((-50..=50).flat_map(cone).collect(), 2)), None);
        assert_eq!(far_origin(&rows(vec![0.0; 6], 2)), None);
        // Around (101.25, −50) by 1.4 in each coordinate: to whole numbers.
        let near = rows(vec![102.0, -48.0, 100.0, -52.0, 103.0, -49.0, 100.0, -51.0], 2);
        assert_eq!(far_origin(&near), Some(vec![101.0, -50.0]));
        assert_eq!(far_origin(&rows(vec![0.1; 9], 3)), Some(vec![f64::from(0.1_f32); 3]));
    }
}
