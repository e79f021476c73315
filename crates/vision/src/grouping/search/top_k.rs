//! The k nearest of each query.

use super::{BLOCK, BlockState};

/// Candidates of a block's rows. A row's list grows to twice k, then loses its worse half.
pub(super) struct TopK {
    k: usize,
    /// Position of the first row in the gallery, when queries and gallery are one set.
    own: Option<usize>,
    gallery: Vec<Vec<(f32, u32)>>,
    floors: Vec<f32>,
}

impl TopK {
    /// For the rows of this block of `queries`.
    pub(super) fn new(k: usize, block: usize, queries: usize, own: Option<usize>) -> Self {
        let rows = BLOCK.min(queries - block * BLOCK);
        let mut floors = vec![f32::INFINITY; BLOCK];
        floors[..rows].fill(f32::NEG_INFINITY);
        Self { k, own, gallery: vec![Vec::new(); rows], floors }
    }

    /// Candidates that a row holds at most.
    pub(super) fn capacity(k: usize) -> usize {
        2 * k + 16
    }

    /// Each row's nearest, nearest first.
    pub(super) fn finish(mut self) -> Vec<Vec<(f32, u32)>> {
        for row in &mut self.gallery {
            row.sort_unstable_by(nearer);
            row.truncate(self.k);
        }
        self.gallery
    }
}

impl BlockState for TopK {
    fn floors(&self) -> &[f32] {
        &self.floors
    }

    fn offer(&mut self, row: usize, position: usize, score: f32) {
        if score == f32::NEG_INFINITY || self.own.is_some_and(|first| first + row == position) {
            return;
        }
        let candidates = &mut self.gallery[row];
        candidates.push((score, position as u32));
        if candidates.len() == Self::capacity(self.k) {
            candidates.select_nth_unstable_by(self.k - 1, nearer);
            candidates.truncate(self.k);
            self.floors[row] = candidates[self.k - 1].0;
        }
    }
}

/// Higher scores first, of equals the earlier in the gallery.
fn nearer(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
