//! Exact nearest neighbours, in blocks, on all threads, without ever holding the matrix of distances.
//!
//! Vectors are packed once into panels of sixteen. Blocks of queries meet strips of the gallery in a kernel that keeps its
//! sums in registers; what comes out is compared at once with what each query already has, and forgotten. When queries and
//! gallery are one set, the product of two blocks serves both, which halves the work.
//!
//! Every product is one chain of fused multiply-adds in the order of the dimensions, whatever the processor, the block, or
//! the thread. So equal vectors have equal distances to the bit, and results do not depend on how the work was cut.
//!
//! **Ties.** Neighbours are ordered by distance, then by position in the gallery. An item is kept out of its own neighbours by
//! its position, not by being nearest, so that duplicates count.

mod kernel;
mod panels;
mod sweep;
mod top_k;

pub(super) use panels::{Panels, host_rows};
pub(super) use sweep::{BLOCK, BlockState, STRIP, strip_scores, sweep_gallery, sweep_itself};

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use top_k::TopK;

/// What "near" means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// Euclidean. Of unit vectors, and of unit groups, it ranks as the (mean) cosine does. Squares err by about 1e-7 of ‖v‖²,
    /// which is measured from near the gallery's mean where that is more than 8 times as far from zero as its vectors are
    /// from it.
    #[default]
    Euclidean,
    /// One minus the cosine. Vectors of norm zero are an error.
    Cosine,
}

/// A gallery to search exactly.
///
/// ```
/// use tch::Tensor;
/// use vision::grouping::{Distance, RetrievalIndex};
///
/// let gallery = Tensor::from_slice(&[0.0_f32, 1.0, 2.1, 3.3, 6.0]).view([5, 1]);
/// let index = RetrievalIndex::exact(&gallery, Distance::Euclidean)?;
/// let found = index.search(&Tensor::from_slice(&[2.9_f32]).view([1, 1]), 2)?;
/// assert_eq!(found.of(0).0, [3, 2]);
/// // Among themselves, an item is no neighbour of its own.
/// assert_eq!(index.search_itself(2)?.of(0).0, [1, 2]);
/// # Ok::<(), vision::grouping::Error>(())
/// ```
#[derive(Debug)]
pub struct RetrievalIndex {
    gallery: Panels,
    distance: Distance,
}

/// The neighbours of each query, nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    k: usize,
    positions: Vec<u32>,
    distances: Vec<f32>,
}

impl Neighbours {
    /// Positions in the gallery, and distances, of a query's neighbours.
    ///
    /// # Panics
    /// A query that is not there.
    pub fn of(&self, query: usize) -> (&[u32], &[f32]) {
        let range = query * self.k..(query + 1) * self.k;
        (&self.positions[range.clone()], &self.distances[range])
    }

    /// How many queries.
    pub fn queries(&self) -> usize {
        self.positions.len() / self.k
    }

    /// Neighbours of each.
    pub fn k(&self) -> usize {
        self.k
    }
}

/// Above this many bytes of candidates, a set is searched block by block instead of both ways at once.
const CANDIDATES_AT_ONCE: usize = 256 << 20;

impl RetrievalIndex {
    /// Packs a gallery, `[n, d]`.
    ///
    /// # Errors
    /// Another shape, no vector, a number that is not finite or a vector so long that squared distances are not, with [`Distance::Cosine`] a vector of norm zero.
    pub fn exact(gallery: &Tensor, distance: Distance) -> Result<Self> {
        let rows = host_rows("gallery", gallery)?;
        let order: Vec<u32> = (0..rows.count as u32).collect();
        Ok(Self { gallery: Panels::pack(&rows, &order, distance)?, distance })
    }

    /// Vectors in the gallery.
    pub fn len(&self) -> usize {
        self.gallery.rows()
    }

    /// Never: an index has a vector at least.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `k` nearest of the gallery for each of `queries`, `[q, d]`.
    ///
    /// # Errors
    /// As [`exact`](Self::exact); vectors of another length; `k` of 0 or above the size of the gallery.
    pub fn search(&self, queries: &Tensor, k: usize) -> Result<Neighbours> {
        self.check(k, self.len())?;
        let rows = host_rows("queries", queries)?;
        if rows.dim != self.gallery.dim() {
            let expected = format!("vectors of {} numbers", self.gallery.dim());
            return Err(Error::shape("queries", expected, rows.dim.to_string()));
        }
        let order: Vec<u32> = (0..rows.count as u32).collect();
        let queries = self.gallery.pack_queries(&rows, &order, self.distance)?;
        Ok(self.block_by_block(&queries, k, false))
    }

    /// The `k` nearest others for each of the gallery's own vectors.
    ///
    /// # Errors
    /// `k` of 0, or not below the size of the gallery.
    pub fn search_itself(&self, k: usize) -> Result<Neighbours> {
        self.check(k, self.len() - 1)?;
        let bytes = self.len() * TopK::capacity(k) * size_of::<(f32, u32)>();
        if bytes > CANDIDATES_AT_ONCE {
            return Ok(self.block_by_block(&self.gallery, k, true));
        }
        let blocks = sweep_itself(&self.gallery, |block| TopK::new(k, block, self.len(), Some(block * BLOCK)));
        Ok(self.collect(&self.gallery, k, blocks.into_iter().map(TopK::finish)))
    }

    fn block_by_block(&self, queries: &Panels, k: usize, itself: bool) -> Neighbours {
        let make = |block: usize| TopK::new(k, block, queries.rows(), itself.then_some(block * BLOCK));
        let blocks = sweep_gallery(queries, &self.gallery, make, |_, state| state.finish());
        self.collect(queries, k, blocks.into_iter())
    }

    /// Scores become distances.
    fn collect(&self, queries: &Panels, k: usize, blocks: impl Iterator<Item = Vec<Vec<(f32, u32)>>>) -> Neighbours {
        let mut found = Neighbours { k, positions: Vec::new(), distances: Vec::new() };
        for (query, nearest) in blocks.flatten().enumerate() {
            let half = queries.half_norm(query);
            for (score, position) in nearest {
                found.positions.push(position);
                found.distances.push(match self.distance {
                    Distance::Euclidean => (2.0 * (half - score)).max(0.0).sqrt(),
                    Distance::Cosine => 1.0 - score,
                });
            }
        }
        found
    }

    fn check(&self, k: usize, gallery: usize) -> Result<()> {
        match k {
            0 => Err(Error::setting("k", "at least 1", k)),
            k if k > gallery => Err(Error::TooManyNeighbours { k, gallery }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
