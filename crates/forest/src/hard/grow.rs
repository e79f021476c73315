//! Growing one hard tree on binned rows, and walking it.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::bins::Bins;
use super::{HardForestParams, HardKind};
use crate::error::{ForestError, Result};
use crate::store::Numbers;

/// A tree of axis-aligned splits. A child below `splits` is a split, any other is a leaf.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HardTree {
    splits: Vec<Split>,
    /// `[leaves, classes]`
    leaves: Vec<f32>,
    classes: usize,
    root: Child,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Child {
    Split(u32),
    Leaf(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Split {
    feature: u32,
    threshold: f32,
    left: Child,
    right: Child,
}

impl HardTree {
    pub(super) fn leaf(&self, row: &[f32]) -> &[f32] {
        let mut at = self.root;
        loop {
            match at {
                Child::Leaf(leaf) => {
                    let start = leaf as usize * self.classes;
                    return &self.leaves[start..start + self.classes];
                }
                Child::Split(index) => {
                    let split = self.splits[index as usize];
                    at = if row[split.feature as usize] <= split.threshold { split.left } else { split.right };
                }
            }
        }
    }

    pub(super) fn splits(&self) -> usize {
        self.splits.len()
    }

    pub(super) fn leaves(&self) -> usize {
        self.leaves.len() / self.classes
    }

    /// Leaves with a single class.
    pub(super) fn pure_leaves(&self) -> usize {
        let shares = self.leaves.chunks_exact(self.classes);
        shares.filter(|shares| shares.iter().filter(|share| **share > 0.0).count() == 1).count()
    }

    pub(super) fn nodes(&self) -> usize {
        self.splits() + self.leaves()
    }

    /// Numbers of a file: per split feature, threshold and children (leaves as -1 - number), then the leaves. Whole numbers
    /// below 2^24 are exact in single precision.
    pub(super) fn write(&self, numbers: &mut Vec<f32>) {
        let number = |child: Child| match child {
            Child::Split(n) => n as f32,
            Child::Leaf(n) => -1.0 - n as f32,
        };
        for split in &self.splits {
            numbers.extend([split.feature as f32, split.threshold, number(split.left), number(split.right)]);
        }
        numbers.extend(&self.leaves);
    }

    pub(super) fn read(
        splits: usize,
        leaves: usize,
        columns: usize,
        classes: usize,
        numbers: &mut Numbers,
    ) -> Result<Self> {
        let bad = || ForestError::Malformed("a hard tree contradicts itself".to_owned());
        if leaves != splits + 1 {
            return Err(bad());
        }
        let raw = numbers.take(splits.checked_mul(4).ok_or_else(bad)?)?;
        let values = numbers.take(leaves.checked_mul(classes).ok_or_else(bad)?)?;
        let mut read = Vec::with_capacity(splits);
        for (index, row) in raw.chunks_exact(4).enumerate() {
            let child = |value: f32| {
                // Children come after their parent, so a walk always ends.
                if value >= 0.0 && (value as usize) > index && (value as usize) < splits {
                    Some(Child::Split(value as u32))
                } else if value < 0.0 && ((-1.0 - value) as usize) < leaves {
                    Some(Child::Leaf((-1.0 - value) as u32))
                } else {
                    None
                }
            };
            if !(row[0] >= 0.0 && (row[0] as usize) < columns && row[1].is_finite()) {
                return Err(bad());
            }
            read.push(Split {
                feature: row[0] as u32,
                threshold: row[1],
                left: child(row[2]).ok_or_else(bad)?,
                right: child(row[3]).ok_or_else(bad)?,
            });
        }
        Ok(Self {
            root: if splits == 0 { Child::Leaf(0) } else { Child::Split(0) },
            splits: read,
            leaves: values,
            classes,
        })
    }
}

/// Rows with few enough codes for a core's cache get a table of their own: each tree looks up few rows of many columns, and
/// in the whole table every one of them would be fetched from main memory.
const CACHED: usize = 1 << 19;

/// The codes `[columns][rows]` and labels that a node's rows are numbers of.
#[derive(Clone, Copy)]
struct Table<'a> {
    codes: &'a [u8],
    labels: &'a [usize],
}

impl Table<'_> {
    fn column(&self, j: usize) -> &[u8] {
        &self.codes[j * self.labels.len()..][..self.labels.len()]
    }
}

/// Grows one tree.
pub(super) struct Grower<'a> {
    params: &'a HardForestParams,
    bins: &'a Bins,
    labels: &'a [usize],
    classes: usize,
    /// Most codes of a table of its own.
    cached: usize,
    rng: ChaCha8Rng,
    features: Vec<u32>,
    counts: Vec<u32>,
    /// Rows on their way to the right.
    spare: Vec<u32>,
    tree: HardTree,
}

/// A node that is still to be grown.
struct Task<'r> {
    rows: &'r mut [u32],
    depth: usize,
    /// Its parent's split, and whether it is the left child; `None` at the top.
    parent: Option<(usize, bool)>,
}

/// Where a node is cut.
struct Cut {
    feature: u32,
    bin: u8,
    gain: f64,
}

impl<'a> Grower<'a> {
    pub(super) fn new(
        params: &'a HardForestParams,
        bins: &'a Bins,
        labels: &'a [usize],
        classes: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        Self {
            params,
            bins,
            labels,
            classes,
            cached: CACHED,
            rng,
            features: (0..bins.columns() as u32).collect(),
            counts: vec![0; 256 * classes],
            spare: Vec::new(),
            tree: HardTree { splits: Vec::new(), leaves: Vec::new(), classes, root: Child::Leaf(0) },
        }
    }

    pub(super) fn grow(mut self, mut rows: Vec<u32>) -> HardTree {
        // In order, so that columns are read from front to back; no cut depends on it.
        rows.sort_unstable();
        let (bins, labels) = (self.bins, self.labels);
        let whole = Table { codes: bins.codes(), labels };
        self.tree.root = self.subtree(whole, &mut rows, 0, whole.codes.len() > self.cached);
        self.tree
    }

    /// A node and all below it, parents before children and left before right. With `cut`, what is small enough gets a table
    /// of its own. A list of what is left to do, and no recursion: a tree may be as deep as it has rows, a thread's stack not.
    fn subtree(&mut self, table: Table, rows: &mut [u32], depth: usize, cut: bool) -> Child {
        let mut top = Child::Leaf(0);
        let mut tasks = vec![Task { rows, depth, parent: None }];
        while let Some(Task { rows, depth, parent }) = tasks.pop() {
            let (child, middle) = if cut && rows.len() * self.bins.columns() <= self.cached {
                (self.own_table(table, rows, depth), None)
            } else {
                self.node(table, rows, depth)
            };
            match parent {
                None => top = child,
                Some((split, true)) => self.tree.splits[split].left = child,
                Some((split, false)) => self.tree.splits[split].right = child,
            }
            if let (Child::Split(index), Some(middle)) = (child, middle) {
                let (left, right) = rows.split_at_mut(middle);
                let task = |rows, is_left| Task { rows, depth: depth + 1, parent: Some((index as usize, is_left)) };
                // The last is the next.
                tasks.extend([task(right, false), task(left, true)]);
            }
        }
        top
    }

    /// A subtree whose rows get a table of their own.
    fn own_table(&mut self, whole: Table, rows: &[u32], depth: usize) -> Child {
        let codes = self.bins.columns_of(rows);
        let labels: Vec<usize> = rows.iter().map(|&row| whole.labels[row as usize]).collect();
        let mut rows: Vec<u32> = (0..rows.len() as u32).collect();
        self.subtree(Table { codes: &codes, labels: &labels }, &mut rows, depth, false)
    }

    /// One node, whose children are still to come. Where it is a split, those of its rows that go left come first; their
    /// number is returned.
    fn node(&mut self, table: Table, rows: &mut [u32], depth: usize) -> (Child, Option<usize>) {
        let totals = self.totals(table, rows);
        let pure = totals.iter().filter(|&&c| c > 0).count() < 2;
        let deep = self.params.max_depth.is_some_and(|most| depth >= most);
        let small = rows.len() < 2 * self.params.min_samples_leaf;
        let cut = if pure || deep || small { None } else { self.cut(table, rows, &totals) };
        let Some(cut) = cut else {
            let leaf = self.tree.leaves();
            let count = rows.len().max(1) as f32;
            self.tree.leaves.extend(totals.iter().map(|&c| c as f32 / count));
            return (Child::Leaf(leaf as u32), None);
        };
        let column = table.column(cut.feature as usize);
        let middle = partition(rows, &mut self.spare, |row| column[row as usize] <= cut.bin);
        let index = self.tree.splits.len();
        self.tree.splits.push(Split {
            feature: cut.feature,
            threshold: self.bins.threshold(cut.feature as usize, usize::from(cut.bin)),
            left: Child::Leaf(0),
            right: Child::Leaf(0),
        });
        (Child::Split(index as u32), Some(middle))
    }

    fn totals(&self, table: Table, rows: &[u32]) -> Vec<u32> {
        let mut totals = vec![0; self.classes];
        rows.iter().for_each(|&row| totals[table.labels[row as usize]] += 1);
        totals
    }

    /// The best cut among the features drawn; features that do not vary in the node do not count.
    fn cut(&mut self, table: Table, rows: &[u32], totals: &[u32]) -> Option<Cut> {
        let columns = self.features.len();
        let wanted = match self.params.kind {
            HardKind::CompletelyRandom => 1,
            HardKind::Greedy => columns,
            _ => self.params.max_features.unwrap_or((columns as f64).sqrt().round() as usize).clamp(1, columns),
        };
        let mut best: Option<Cut> = None;
        let mut tried = 0;
        for drawn in 0..columns {
            let swap = self.rng.random_range(drawn..columns);
            self.features.swap(drawn, swap);
            let feature = self.features[drawn];
            let column = table.column(feature as usize);
            let codes = rows.iter().map(|&row| column[row as usize]);
            let (low, high) = codes.fold((u8::MAX, 0), |(lo, hi), c| (lo.min(c), hi.max(c)));
            if low >= high {
                continue;
            }
            let found = match self.params.kind {
                HardKind::RandomForest | HardKind::Greedy => self.best_bin((table, rows), feature, low..high, totals),
                HardKind::ExtraTrees | HardKind::CompletelyRandom => {
                    let bin = self.rng.random_range(low..high);
                    self.at_bin((table, rows), feature, bin, totals)
                }
            };
            if let Some(found) = found
                && best.as_ref().is_none_or(|b| found.gain > b.gain)
            {
                best = Some(found);
            }
            tried += 1;
            if tried >= wanted && best.is_some() {
                break;
            }
        }
        best
    }

    /// Best Gini gain over all these bins; the rows' codes reach up to the end of them.
    fn best_bin(
        &mut self,
        (table, rows): (Table, &[u32]),
        feature: u32,
        bins: Range<u8>,
        totals: &[u32],
    ) -> Option<Cut> {
        let classes = self.classes;
        let span = usize::from(bins.start) * classes..(usize::from(bins.end) + 1) * classes;
        self.counts[span].fill(0);
        let column = table.column(feature as usize);
        for &row in rows {
            let at = usize::from(column[row as usize]) * classes + table.labels[row as usize];
            self.counts[at] += 1;
        }
        let mut left = vec![0u32; classes];
        let mut best: Option<Cut> = None;
        for bin in bins {
            let counts = &self.counts[usize::from(bin) * classes..][..classes];
            let mut any = 0;
            for (l, &c) in left.iter_mut().zip(counts) {
                *l += c;
                any += c;
            }
            if any == 0 {
                continue;
            }
            if let Some(gain) = gain(&left, totals, self.params.min_samples_leaf)
                && best.as_ref().is_none_or(|b| gain > b.gain)
            {
                best = Some(Cut { feature, bin, gain });
            }
        }
        best
    }

    fn at_bin(&self, (table, rows): (Table, &[u32]), feature: u32, bin: u8, totals: &[u32]) -> Option<Cut> {
        let column = table.column(feature as usize);
        let mut left = vec![0u32; self.classes];
        for &row in rows {
            if column[row as usize] <= bin {
                left[table.labels[row as usize]] += 1;
            }
        }
        let gain = gain(&left, totals, self.params.min_samples_leaf)?;
        Some(Cut { feature, bin, gain })
    }
}

/// Sum over both sides of (sum of squared counts) / count: larger means lower weighted Gini impurity. `None` when a side is
/// too small.
fn gain(left: &[u32], totals: &[u32], least: usize) -> Option<f64> {
    let (mut n_left, mut n_right, mut s_left, mut s_right) = (0.0, 0.0, 0.0, 0.0);
    for (&l, &t) in left.iter().zip(totals) {
        let (l, r) = (f64::from(l), f64::from(t - l));
        n_left += l;
        n_right += r;
        s_left += l * l;
        s_right += r * r;
    }
    (n_left >= least as f64 && n_right >= least as f64).then(|| s_left / n_left + s_right / n_right)
}

/// Moves rows that satisfy `is_left` to the front, all of them keeping their order; returns their number.
fn partition(rows: &mut [u32], spare: &mut Vec<u32>, is_left: impl Fn(u32) -> bool) -> usize {
    spare.clear();
    let mut middle = 0;
    for i in 0..rows.len() {
        let row = rows[i];
        if is_left(row) {
            rows[middle] = row;
            middle += 1;
        } else {
            spare.push(row);
        }
    }
    rows[middle..].copy_from_slice(spare);
    middle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_their_own_change_no_tree() {
        use rand::SeedableRng;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let x = ndarray::Array2::from_shape_simple_fn((300, 7), || rng.random_range(0.0f32..1.0));
        let labels: Vec<usize> = x.rows().into_iter().map(|row| (3.0 * row[1] + row[4]) as usize % 3).collect();
        let bins = Bins::new(x.view());
        for kind in [HardKind::RandomForest, HardKind::ExtraTrees, HardKind::CompletelyRandom, HardKind::Greedy] {
            let params = HardForestParams { kind, ..HardForestParams::default() };
            let grown = |cached| {
                let mut grower = Grower::new(&params, &bins, &labels, 3, ChaCha8Rng::seed_from_u64(1));
                grower.cached = cached;
                // Rows drawn twice, as a bootstrap has them.
                grower.grow((0..300).chain(100..200).collect())
            };
            let whole = grown(usize::MAX);
            assert!(whole.splits() > 20);
            assert_eq!(grown(700), whole);
            assert_eq!(grown(0), whole);
        }
    }

    /// Six rows, three of each class, perfectly cut: 9/3 + 9/3 = 6; a useless cut: (1 + 1)/2 + (4 + 4)/4 = 3.
    #[test]
    fn gain_prefers_the_pure_cut() {
        assert_eq!(gain(&[3, 0], &[3, 3], 1), Some(6.0));
        assert_eq!(gain(&[1, 1], &[3, 3], 1), Some(3.0));
        assert_eq!(gain(&[1, 1], &[3, 3], 3), None);
        assert_eq!(gain(&[0, 0], &[3, 3], 1), None);
    }
}
