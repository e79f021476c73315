//! The rank of every item of a query's class, by counting who comes before it.
//!
//! The items of the class are scored first and sorted. Then all others pass by: one that comes before the r-th item of the
//! class, and not before the one ahead of it, is counted in bin r. Ranks are sums of bins. An item whose rank has grown past
//! the point up to which anybody asks is dropped, which raises the score that passers-by must reach, so that soon nearly all
//! of them are turned away by a single comparison. Counts do not depend on the order of passing, hence not on threads.

use super::super::search::{BLOCK, BlockState, Panels, STRIP, strip_scores, sweep_gallery, sweep_itself};
use std::ops::Range;

/// Up to which rank anybody asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the nearest item of the class: the largest K of Recall@K. R counts as well.
    pub(super) first: usize,
    /// For all items, however far, instead of up to R.
    pub(super) follow_all: bool,
}

/// Who is ranked against whom; vectors are packed in the order of their classes.
pub(super) struct Sides<'a> {
    pub(super) queries: &'a Panels,
    pub(super) query_order: &'a [u32],
    pub(super) query_labels: &'a [i64],
    /// `None`: the queries themselves, each without itself.
    pub(super) gallery: Option<(&'a Panels, &'a [u32], &'a [i64])>,
}

/// The metrics of one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) relevant: usize,
    pub(super) best_rank: Option<usize>,
    pub(super) r_precision: f64,
    pub(super) ap_at_r: f64,
    pub(super) ap: Option<f64>,
}

/// Items of classes, over all queries, that may be in memory at once: 200 MB.
const RELEVANT_AT_ONCE: usize = 1 << 24;

/// Ranks in the original order of the queries; `None` where the gallery has nothing of the query's class.
pub(super) fn rank(sides: &Sides, limits: Limits) -> Vec<Option<Outcome>> {
    let itself = sides.gallery.is_none();
    let (gallery, gallery_order, gallery_labels) =
        sides.gallery.unwrap_or((sides.queries, sides.query_order, sides.query_labels));
    let classes: Vec<Range<usize>> = class_ranges(sides, gallery_order, gallery_labels);
    let relevant: usize = classes.iter().map(Range::len).sum();
    let make = |block: usize| RankBlock::new(block, sides.queries, gallery, gallery_order, &classes, itself, limits);
    let finish = |state: RankBlock| state.finish();
    let blocks: Vec<Vec<Option<Outcome>>> = if itself && relevant <= RELEVANT_AT_ONCE {
        sweep_itself(gallery, make).into_iter().map(finish).collect()
    } else {
        sweep_gallery(sides.queries, gallery, make, |_, state| finish(state))
    };
    let mut outcomes = vec![None; sides.query_order.len()];
    for (outcome, &query) in blocks.into_iter().flatten().zip(sides.query_order) {
        outcomes[query as usize] = outcome;
    }
    outcomes
}

/// For each query, in packed order, where its class lies in the packed gallery.
fn class_ranges(sides: &Sides, gallery_order: &[u32], gallery_labels: &[i64]) -> Vec<Range<usize>> {
    let label = |position: &u32| gallery_labels[*position as usize];
    let range = |query: &u32| {
        let wanted = sides.query_labels[*query as usize];
        let start = gallery_order.partition_point(|position| label(position) < wanted);
        start..start + gallery_order[start..].partition_point(|position| label(position) == wanted)
    };
    sides.query_order.iter().map(range).collect()
}

/// The items of the class of each of a block's queries, and who comes before them.
struct RankBlock<'a> {
    gallery_order: &'a [u32],
    floors: Vec<f32>,
    rows: Vec<Row>,
    /// Of all rows, one after the other, each row's nearest first: score, then position in the original gallery.
    relevant: Vec<(f32, u32)>,
    /// Beside `relevant`: others that come before this item and not before the one ahead of it.
    bins: Vec<u32>,
}

struct Row {
    /// Where its class lies in the packed gallery.
    class: Range<usize>,
    /// Its part of `relevant` and `bins`.
    items: Range<usize>,
    /// Items whose rank is still asked for: the first so many.
    active: usize,
    /// Others that come before the last active item.
    before: usize,
    /// Ranks asked for: of the nearest item, and of the others.
    limits: [usize; 2],
}

impl<'a> RankBlock<'a> {
    fn new(
        block: usize,
        queries: &Panels,
        gallery: &Panels,
        gallery_order: &'a [u32],
        classes: &[Range<usize>],
        itself: bool,
        limits: Limits,
    ) -> Self {
        let first = block * BLOCK;
        let classes = &classes[first..(first + BLOCK).min(classes.len())];
        // Classes come in order, so the block's lie side by side.
        let start = classes.iter().map(|class| class.start).min().unwrap_or(0) / STRIP * STRIP;
        let end = classes.iter().map(|class| class.end).max().unwrap_or(0);
        let mut found: Vec<Vec<(f32, u32)>> = classes.iter().map(|class| Vec::with_capacity(class.len())).collect();
        let mut scores = Vec::new();
        for column in (start..end).step_by(STRIP) {
            strip_scores(queries, block, gallery, column, &mut scores);
            for (row, (class, found)) in classes.iter().zip(&mut found).enumerate() {
                for position in class.start.max(column)..class.end.min(column + STRIP) {
                    if !(itself && position == first + row) {
                        found.push((scores[row * STRIP + position - column], gallery_order[position]));
                    }
                }
            }
        }
        let mut state = Self {
            gallery_order,
            floors: vec![f32::INFINITY; BLOCK],
            rows: Vec::with_capacity(classes.len()),
            relevant: Vec::with_capacity(found.iter().map(Vec::len).sum()),
            bins: Vec::new(),
        };
        for (number, (class, mut found)) in classes.iter().zip(found).enumerate() {
            found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let (start, count) = (state.relevant.len(), found.len());
            state.relevant.append(&mut found);
            let others = if limits.follow_all { usize::MAX } else { count };
            let limits = [others.max(limits.first), others];
            let row = Row { class: class.clone(), items: start..start + count, active: count, before: 0, limits };
            state.floors[number] = state.floor(&row);
            state.rows.push(row);
        }
        state.bins = vec![0; state.relevant.len()];
        state
    }

    fn floor(&self, row: &Row) -> f32 {
        match row.active {
            0 => f32::INFINITY,
            active => self.relevant[row.items.start + active - 1].0,
        }
    }

    fn finish(self) -> Vec<Option<Outcome>> {
        let outcome = |row: &Row| {
            let relevant = row.items.len();
            if relevant == 0 {
                return None;
            }
            let (mut before, mut best_rank, mut within, mut at_r, mut all) = (0, None, 0, 0.0, 0.0);
            for number in 1..=row.active {
                before += self.bins[row.items.start + number - 1] as usize;
                let rank = number + before;
                best_rank = best_rank.or(Some(rank));
                let precision = number as f64 / rank as f64;
                all += precision;
                if rank <= relevant {
                    within += 1;
                    at_r += precision;
                }
            }
            let share = |sum: f64| sum / relevant as f64;
            let follows_all = row.limits[1] == usize::MAX;
            Some(Outcome {
                relevant,
                best_rank,
                r_precision: share(f64::from(within)),
                ap_at_r: share(at_r),
                ap: follows_all.then(|| share(all)),
            })
        };
        self.rows.iter().map(outcome).collect()
    }
}

impl BlockState for RankBlock<'_> {
    fn floors(&self) -> &[f32] {
        &self.floors
    }

    fn offer(&mut self, number: usize, position: usize, score: f32) {
        let row = &mut self.rows[number];
        if row.class.contains(&position) || position >= self.gallery_order.len() {
            return;
        }
        let original = self.gallery_order[position];
        let first = row.items.start;
        let active = &self.relevant[first..first + row.active];
        let behind = |&(other, at): &(f32, u32)| other > score || (other == score && at < original);
        let bin = active.partition_point(behind);
        if bin == row.active {
            return;
        }
        self.bins[first + bin] += 1;
        row.before += 1;
        let before = row.active;
        while row.active > 0 {
            let limit = row.limits[usize::from(row.active > 1)];
            if row.active + row.before <= limit {
                break;
            }
            row.active -= 1;
            row.before -= self.bins[first + row.active] as usize;
        }
        if row.active != before {
            self.floors[number] = if row.active == 0 { f32::INFINITY } else { self.relevant[first + row.active - 1].0 };
        }
    }
}
