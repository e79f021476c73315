//! A mapping, compact for the search and written out for people.

use serde::Serialize;

use super::problem::Problem;
use crate::loopnest::Dim;

pub(super) const MAX_LEVELS: usize = 8;
/// Loops of a level by group; the group leaves one operand alone.
pub(super) const GROUPS: [&[Dim]; 3] = [&[Dim::N, Dim::Y, Dim::X], &[Dim::K], &[Dim::C, Dim::R, Dim::S]];
/// Orders of the groups, outermost first.
pub(super) const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A loop and its bound.
pub(super) type Bound = (Dim, u64);

/// A mapping in compact form: what the search works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// Bounds of each loop at each level, outermost first.
    pub temporal: [[u64; 7]; MAX_LEVELS],
    /// Order of the groups at each level: an index into the six orders.
    pub order: [u8; MAX_LEVELS],
    /// The loop over the rows and its bound.
    pub rows: (Dim, u64),
    /// The loop over the columns and its bound.
    pub cols: (Dim, u64),
}

/// A mapping for people: loops of more than one iteration, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Loops at each memory level.
    pub levels: Vec<Vec<(Dim, u64)>>,
    /// The loop over the rows.
    pub rows: (Dim, u64),
    /// The loop over the columns.
    pub cols: (Dim, u64),
}

impl Problem<'_> {
    pub(super) fn describe(&self, factors: &Factors) -> Mapping {
        let levels = (0..self.levels.len()).map(|level| {
            let order = ORDERS[factors.order[level] as usize];
            let dims = order.iter().flat_map(|&group| GROUPS[group]);
            dims.map(|&dim| (dim, factors.temporal[level][dim as usize])).filter(|&(_, bound)| bound > 1).collect()
        });
        Mapping { levels: levels.collect(), rows: factors.rows, cols: factors.cols }
    }
}
