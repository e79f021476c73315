//! Made-up problems with known answers, for tests, examples and benches.

use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Exclusive or of two half planes rotated by `angle` radians, in the first two of `columns` features drawn uniformly from
/// [-1, 1]; the other features are noise. One soft tree of depth 2 can represent it, while axis-aligned trees need many
/// splits. Returns features `[rows, columns]` and labels 0 or 1. `columns` below 2 counts as 2.
#[must_use]
pub fn oblique_xor(rows: usize, columns: usize, angle: f32, seed: u64) -> (Array2<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut x = Array2::zeros((rows, columns.max(2)));
    x.iter_mut().for_each(|v| *v = rng.random_range(-1.0..1.0));
    let (sin, cos) = angle.sin_cos();
    let labels = x
        .rows()
        .into_iter()
        .map(|row| {
            let first = cos * row[0] + sin * row[1] > 0.0;
            let second = cos * row[1] - sin * row[0] > 0.0;
            usize::from(first != second)
        })
        .collect();
    (x, labels)
}

/// Gaussian blobs on the corners of a scaled simplex: class k sits at `distance` along axis k. Returns features
/// `[rows, columns]` with unit noise, and labels below `classes`; classes beyond the number of columns share axes with the
/// opposite sign, so at most twice as many classes as columns are told apart.
#[must_use]
pub fn blobs(rows: usize, columns: usize, classes: usize, distance: f32, seed: u64) -> (Array2<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns = columns.max(1);
    let mut x = Array2::zeros((rows, columns));
    let labels: Vec<usize> = (0..rows).map(|row| row % classes.max(1)).collect();
    for (mut row, &label) in x.rows_mut().into_iter().zip(&labels) {
        for value in &mut row {
            *value = rng.sample::<f32, _>(rand_distr::StandardNormal);
        }
        let sign = if (label / columns).is_multiple_of(2) { 1.0 } else { -1.0 };
        row[label % columns] += sign * distance;
    }
    (x, labels)
}
