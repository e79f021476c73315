//! Multi-grained scanning: forests that look at windows of an image or a sequence, and pass on what they see as a map.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::folds::{ClassVector, FoldedForest, Forest, StoredFolded};
use crate::error::Result;
use crate::params::require;
use crate::store::Numbers;

/// Rows handled at a time, so that their windows fit in memory.
const CHUNK: usize = 512;

/// A window that slides over the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Side of the square window in pixels; length of it for sequences.
    pub size: usize,
    /// Step between windows.
    pub stride: usize,
}

/// Settings of the scanning stage. Samples are row-major images of `height` x `width`, or sequences with `height` 1. Each
/// window size makes one grain; layer l of the cascade looks at grain l modulo their number, in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scanning {
    /// Rows of pixels; 1 for sequences.
    pub height: usize,
    /// Columns of pixels; length of a sequence.
    pub width: usize,
    /// Windows. gcForest's demonstration on MNIST: sizes 7, 10 and 13 with stride 2.
    pub windows: Vec<Window>,
    /// Forests per window, without early stopping; each passes on one class distribution per position.
    pub forests: Vec<Forest>,
    /// Average pooling of the maps with this side and stride; 1 for none. gcForest's demonstration: 2.
    pub pool: usize,
    /// Windows per sample used for fitting, drawn at random; all of them when there are no more.
    pub fit_windows: usize,
}

impl Scanning {
    /// Checks every range.
    ///
    /// # Errors
    /// [`ForestError::Setting`](crate::ForestError::Setting), naming the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        require(
            self.height > 0 && self.width > 0,
            "scanning.height, scanning.width",
            "at least 1",
            &(self.height, self.width),
        )?;
        require(!self.windows.is_empty(), "scanning.windows", "at least 1", &0)?;
        require(!self.forests.is_empty(), "scanning.forests", "at least 1", &0)?;
        require(self.pool > 0, "scanning.pool", "at least 1", &self.pool)?;
        require(self.fit_windows > 0, "scanning.fit_windows", "at least 1", &0)?;
        for window in &self.windows {
            let fits = window.size > 0 && window.size <= self.width && (self.height == 1 || window.size <= self.height);
            require(
                fits && window.stride > 0,
                "scanning.windows",
                "windows inside the sample with a stride of at least 1",
                window,
            )?;
        }
        self.forests.iter().try_for_each(Forest::validate)
    }

    /// Pixels of a sample; `None` when there are more than can be counted.
    pub(super) fn pixels(&self) -> Option<usize> {
        self.height.checked_mul(self.width)
    }

    fn grid(&self, window: Window) -> Grid {
        let tall = window.size.min(self.height);
        let steps = |length: usize, size: usize| (length - size) / window.stride + 1;
        Grid {
            tall,
            wide: window.size,
            stride: window.stride,
            rows: steps(self.height, tall),
            columns: steps(self.width, window.size),
            sample_width: self.width,
        }
    }
}

/// Where a window's positions lie.
#[derive(Clone, Copy)]
struct Grid {
    tall: usize,
    wide: usize,
    stride: usize,
    rows: usize,
    columns: usize,
    sample_width: usize,
}

impl Grid {
    fn positions(&self) -> usize {
        self.rows * self.columns
    }

    /// Pixels of the window at a position.
    fn cut(&self, sample: ndarray::ArrayView1<f32>, position: usize, out: &mut Vec<f32>) {
        let top = position / self.columns * self.stride;
        let left = position % self.columns * self.stride;
        for row in top..top + self.tall {
            let start = row * self.sample_width + left;
            out.extend(sample.slice(ndarray::s![start..start + self.wide]));
        }
    }

    /// Windows of samples at the given positions each, `[samples x positions, pixels]`.
    fn windows(&self, x: ArrayView2<f32>, positions: impl Fn(usize) -> Vec<usize>) -> Array2<f32> {
        let mut pixels = Vec::new();
        for (row, sample) in x.rows().into_iter().enumerate() {
            for position in positions(row) {
                self.cut(sample, position, &mut pixels);
            }
        }
        let width = self.tall * self.wide;
        let rows = pixels.len() / width;
        // The length is a multiple of the width by construction, so nothing is ever cut off or padded here.
        Array2::from_shape_fn((rows, width), |(i, j)| pixels[i * width + j])
    }

    /// Averages `[positions][classes]` maps over squares of side `pool`; the last ones may be smaller.
    fn pooled(&self, map: &[f32], classes: usize, pool: usize, out: &mut Vec<f32>) {
        for top in (0..self.rows).step_by(pool) {
            for left in (0..self.columns).step_by(pool) {
                let bottom = (top + pool).min(self.rows);
                let right = (left + pool).min(self.columns);
                let count = ((bottom - top) * (right - left)) as f32;
                for k in 0..classes {
                    let mut sum = 0.0;
                    for r in top..bottom {
                        for c in left..right {
                            sum += map[(r * self.columns + c) * classes + k];
                        }
                    }
                    out.push(sum / count);
                }
            }
        }
    }

    fn pooled_positions(&self, pool: usize) -> usize {
        self.rows.div_ceil(pool) * self.columns.div_ceil(pool)
    }
}

/// Fitted window forests.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    pub(super) settings: Scanning,
    /// `[windows][forests]`
    grains: Vec<Vec<FoldedForest>>,
}

impl Scanner {
    /// Fits the window forests; windows of one sample stay in one fold.
    pub(super) fn fit(
        settings: &Scanning,
        x: ArrayView2<f32>,
        labels: &[usize],
        classes: usize,
        fold_of: &[u16],
        folds: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut grains = Vec::with_capacity(settings.windows.len());
        for (which, &window) in settings.windows.iter().enumerate() {
            let grid = settings.grid(window);
            let each = settings.fit_windows.min(grid.positions());
            let drawn: Vec<Vec<usize>> = (0..x.nrows())
                .map(|row| {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed);
                    rng.set_stream(((which as u64) << 32) | row as u64);
                    let mut positions: Vec<usize> = (0..grid.positions()).collect();
                    positions.shuffle(&mut rng);
                    positions.truncate(each);
                    positions
                })
                .collect();
            let windows = grid.windows(x, |row| drawn[row].clone());
            let repeated =
                |values: &[u16]| -> Vec<u16> { values.iter().flat_map(|&v| std::iter::repeat_n(v, each)).collect() };
            let window_labels: Vec<usize> = labels.iter().flat_map(|&l| std::iter::repeat_n(l, each)).collect();
            let window_folds = repeated(fold_of);
            let forests = settings
                .forests
                .iter()
                .enumerate()
                .map(|(index, forest)| {
                    let place = 1_000 + (which * settings.forests.len() + index) as u64;
                    FoldedForest::fit(
                        &forest.placed(place, false),
                        windows.view(),
                        &window_labels,
                        classes,
                        &window_folds,
                        folds,
                    )
                })
                .collect::<Result<_>>()?;
            grains.push(forests);
        }
        Ok(Self { settings: settings.clone(), grains })
    }

    pub(super) fn grains(&self) -> usize {
        self.grains.len()
    }

    /// Features of one grain, `[rows, forests x pooled positions x classes]`. With `fold_of`, every row's windows are seen
    /// only by forests that were not fitted on that row.
    pub(super) fn features(
        &self,
        grain: usize,
        x: ArrayView2<f32>,
        fold_of: Option<&[u16]>,
        classes: usize,
    ) -> Result<Array2<f32>> {
        self.features_in(CHUNK, grain, x, fold_of, classes)
    }

    /// The same of so many rows at a time.
    fn features_in(
        &self,
        at_a_time: usize,
        grain: usize,
        x: ArrayView2<f32>,
        fold_of: Option<&[u16]>,
        classes: usize,
    ) -> Result<Array2<f32>> {
        let grid = self.settings.grid(self.settings.windows[grain]);
        let (positions, pool) = (grid.positions(), self.settings.pool);
        let forests = &self.grains[grain];
        let width = forests.len() * grid.pooled_positions(pool) * classes;
        let mut out = Array2::zeros((x.nrows(), width));
        for start in (0..x.nrows()).step_by(at_a_time) {
            let end = (start + at_a_time).min(x.nrows());
            let rows = x.slice(ndarray::s![start..end, ..]);
            let windows = grid.windows(rows, |_| (0..positions).collect());
            let mut maps = Vec::with_capacity(forests.len());
            for forest in forests {
                maps.push(match fold_of {
                    None => forest.vectors(windows.view(), ClassVector::PerForest, classes)?,
                    Some(fold_of) => {
                        let folds: Vec<u16> =
                            fold_of[start..end].iter().flat_map(|&f| std::iter::repeat_n(f, positions)).collect();
                        let per_forest = ClassVector::PerForest;
                        forest.unseen(windows.view(), &folds, per_forest, classes)?
                    }
                });
            }
            for row in start..end {
                let mut features = Vec::with_capacity(width);
                for map in &maps {
                    let at = (row - start) * positions;
                    let map = map.slice(ndarray::s![at..at + positions, ..]);
                    let flat: Vec<f32> = map.iter().copied().collect();
                    grid.pooled(&flat, classes, pool, &mut features);
                }
                out.row_mut(row).assign(&ndarray::aview1(&features));
            }
        }
        Ok(out)
    }

    pub(super) fn forests(&self) -> impl Iterator<Item = &FoldedForest> {
        self.grains.iter().flatten()
    }

    pub(super) fn parts(&self, numbers: &mut Vec<f32>) -> StoredScanner {
        StoredScanner {
            settings: self.settings.clone(),
            grains: self.grains.iter().map(|forests| forests.iter().map(|f| f.parts(numbers)).collect()).collect(),
        }
    }

    pub(super) fn from_parts(stored: StoredScanner, numbers: &mut Numbers) -> Result<Self> {
        stored.settings.validate()?;
        let grains = stored
            .grains
            .into_iter()
            .map(|forests| {
                forests.into_iter().map(|f| FoldedForest::from_parts(f, numbers)).collect::<Result<Vec<_>>>()
            })
            .collect::<Result<Vec<_>>>()?;
        if grains.len() != stored.settings.windows.len() {
            return Err(crate::error::ForestError::Malformed("grains do not fit the windows".to_owned()));
        }
        Ok(Self { settings: stored.settings, grains })
    }
}

/// A scanner in a file's header.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredScanner {
    settings: Scanning,
    grains: Vec<Vec<StoredFolded>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanning(size: usize, stride: usize) -> Scanning {
        Scanning {
            height: 28,
            width: 28,
            windows: vec![Window { size, stride }],
            forests: vec![Forest::Hard(crate::HardForestParams::default())],
            pool: 2,
            fit_windows: 4,
        }
    }

    /// The map sizes of gcForest's demonstration on MNIST: 11, 10 and 8, pooled to 6, 5 and 4.
    #[test]
    fn maps_have_the_sizes_of_the_published_demonstration() {
        for (size, side, pooled) in [(7, 11, 6), (10, 10, 5), (13, 8, 4)] {
            let settings = scanning(size, 2);
            let grid = settings.grid(settings.windows[0]);
            assert_eq!((grid.rows, grid.columns), (side, side));
            assert_eq!(grid.pooled_positions(2), pooled * pooled);
        }
    }

    #[test]
    fn windows_are_cut_where_they_should_be_and_pooled_by_hand() {
        let settings = Scanning { height: 3, width: 4, ..scanning(2, 1) };
        let grid = settings.grid(settings.windows[0]);
        let sample: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let mut out = Vec::new();
        grid.cut(ndarray::aview1(&sample), 4, &mut out);
        assert_eq!(out, [5.0, 6.0, 9.0, 10.0]);
        // A 2 x 3 map of one class, pooled by 2: the left square is full, the right one a column.
        let mut pooled = Vec::new();
        grid.pooled(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1, 2, &mut pooled);
        assert_eq!(pooled, [3.0, 4.5]);
    }

    #[test]
    fn features_made_chunk_by_chunk_are_those_of_each_sample_alone() -> Result<()> {
        let (x, labels) = crate::synthetic::blobs(20, 12, 2, 4.0, 1);
        let hard = crate::HardForestParams { trees: 3, ..crate::HardForestParams::default() };
        let settings = Scanning { height: 3, width: 4, forests: vec![Forest::Hard(hard)], ..scanning(2, 1) };
        let fold_of: Vec<u16> = (0..20).map(|row| row / 2 % 2).collect();
        let scanner = Scanner::fit(&settings, x.view(), &labels, 2, &fold_of, 2, 1)?;
        let unseen = scanner.features(0, x.view(), Some(&fold_of), 2)?;
        let new = scanner.features(0, x.view(), None, 2)?;
        assert_ne!(unseen, new);
        // Eight, eight and four.
        assert_eq!(scanner.features_in(8, 0, x.view(), Some(&fold_of), 2)?, unseen);
        assert_eq!(scanner.features_in(8, 0, x.view(), None, 2)?, new);
        for row in 0..20 {
            let (only, own) = (x.slice(ndarray::s![row..=row, ..]), ndarray::s![row..=row, ..]);
            assert_eq!(scanner.features(0, only, Some(&fold_of[row..=row]), 2)?, unseen.slice(own));
            assert_eq!(scanner.features(0, only, None, 2)?, new.slice(own));
        }
        Ok(())
    }

    #[test]
    fn windows_larger_than_the_sample_are_refused() {
        assert!(scanning(29, 1).validate().is_err());
        assert!(scanning(7, 0).validate().is_err());
        assert!(scanning(7, 2).validate().is_ok());
    }
}
