//! A mapping, compact for the search and written out for people.

use serde::{Deserialize, Serialize};

use super::count::Counts;
use super::problem::Problem;
use crate::error::HwError;
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
///
/// At one level, loops over N, Y and X stand side by side, as do those over C, R and S: within such a group their order changes
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// The accesses of a mapping that anybody may have written.
    pub(super) fn counts_of(&self, layer: &str, mapping: &Mapping) -> Result<Counts, HwError> {
        let fail = |field: String, expected: String, found: String| {
            Err(HwError::field(format!("mapping of layer `{layer}`"), field, expected, found))
        };
        if mapping.levels.len() != self.levels.len() {
            return fail("levels".into(), self.levels.len().to_string(), mapping.levels.len().to_string());
        }
        let sides = [("rows", mapping.rows.1, self.engine.rows), ("cols", mapping.cols.1, self.engine.cols)];
        if let Some((field, found, side)) = sides.into_iter().find(|&(_, found, side)| found == 0 || found > side) {
            return fail(field.into(), format!("1 to {side}"), found.to_string());
        }
        let mut factors =
            Factors { temporal: [[1; 7]; MAX_LEVELS], order: [0; MAX_LEVELS], rows: mapping.rows, cols: mapping.cols };
        let mut covered = [1_u64; 7];
        for (dim, bound) in [mapping.rows, mapping.cols].iter().chain(mapping.levels.iter().flatten()) {
            covered[*dim as usize] = covered[*dim as usize].saturating_mul(*bound);
        }
        for dim in Dim::ALL {
            // Twice is what filling the array can take; counts of more might pass 64 bits.
            let (size, found) = (self.sizes[dim as usize], covered[dim as usize]);
            if !(size..=2 * size).contains(&found) {
                return fail(
                    format!("product of the bounds of {dim:?}"),
                    format!("{size} to {}", 2 * size),
                    found.to_string(),
                );
            }
        }
        for (level, loops) in mapping.levels.iter().enumerate() {
            let mut groups: Vec<usize> = Vec::new();
            for &(dim, bound) in loops.iter().filter(|&&(_, bound)| bound > 1) {
                factors.temporal[level][dim as usize] *= bound;
                groups.extend(GROUPS.iter().position(|group| group.contains(&dim)));
            }
            groups.dedup();
            // Groups without a loop may stand anywhere.
            let ordered = |order: &[usize; 3]| order.iter().filter(|group| groups.contains(group)).eq(&groups);
            let Some(order) = ORDERS.iter().position(ordered) else {
                let field = format!("loops at `{}`", self.levels[level].name);
                return fail(field, "those over N, Y, X, and over C, R, S, side by side".into(), format!("{loops:?}"));
            };
            factors.order[level] = order as u8;
        }
        match (self.tiles(&factors), self.count(&factors)) {
            (Ok(_), Some(counts)) => Ok(counts),
            (Err((level, used)), _) => {
                let field = format!("tiles at `{}`", self.levels[level].name);
                fail(field, format!("at most {} bits", self.room[level]), format!("{used} bits"))
            }
            (Ok(_), None) => Err(self.no_fit(layer)),
        }
    }
}
