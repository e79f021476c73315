//! Cutout: a square of nothing (DeVries and Taylor, arXiv 1708.04552).

use rand::Rng;

use super::pipeline::Planes;

/// Zeroes a square of `side` around a pixel drawn evenly; the part that lies outside the image is lost, as in the paper.
pub(super) fn cut_out(image: &mut Planes, side: usize, rng: &mut impl Rng) {
    let [height, width] = image.size;
    let mut range = |length: usize| {
        let centre = rng.random_range(0..length as u64) as usize;
        let start = centre.saturating_sub(side / 2);
        // An odd side has its centre in the middle; an even one reaches one pixel further up and left.
        start..(centre + side.div_ceil(2)).min(length)
    };
    let (rows, columns) = (range(height), range(width));
    for plane in image.values.chunks_exact_mut(height * width) {
        for row in plane.chunks_exact_mut(width).skip(rows.start).take(rows.len()) {
            row[columns.clone()].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, generator};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_clipped_square_is_zero_and_the_rest_untouched(
            size in [1_usize..12, 1_usize..12], side in 1_usize..8, seed: u64,
        ) {
            let mut image = Planes { size, values: vec![1.0; 2 * size[0] * size[1]] };
            cut_out(&mut image, side, &mut generator(seed, Purpose::Augmentation, 0));
            let (first, second) = image.values.split_at(size[0] * size[1]);
            prop_assert_eq!(first, second);
            let zero = |row: usize, column: usize| first[row * size[1] + column] == 0.0;
            let rows: Vec<_> = (0..size[0]).filter(|&r| (0..size[1]).any(|c| zero(r, c))).collect();
            let columns: Vec<_> = (0..size[1]).filter(|&c| (0..size[0]).any(|r| zero(r, c))).collect();
            // The zeros are a full rectangle, no wider than the square, and shorter only where the border cut it.
            let zeros = first.iter().filter(|&&v| v == 0.0).count();
            prop_assert_eq!(zeros, rows.len() * columns.len());
            for (hit, length) in [(&rows, size[0]), (&columns, size[1])] {
                prop_assert_eq!(hit.len(), hit.last().unwrap() - hit[0] + 1);
                prop_assert!(hit.len() == side || hit[0] == 0 || hit.last() == Some(&(length - 1)));
                prop_assert!(hit.len() <= side && hit.len() >= (side / 2).max(1).min(length));
            }
        }
    }
}
