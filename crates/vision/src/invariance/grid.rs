//! Where an object is put.

use super::{Error, Result};
use serde::{Deserialize, Serialize};

/// Every position at which an object is shown, row by row.
///
/// ```
/// use vision::invariance::ShiftGrid;
/// // The paper's large objects: 125 × 125 on 224 × 224 gives 100 × 100 positions.
/// let grid = ShiftGrid::new([224, 224], [125, 125], 1)?;
/// assert_eq!((grid.rows(), grid.columns(), grid.len()), (100, 100, 10_000));
/// # Ok::<(), vision::invariance::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct ShiftGrid {
    canvas: [usize; 2],
    object: [usize; 2],
    stride: usize,
    subdivisions: usize,
    counts: [usize; 2],
    start: [usize; 2],
}

/// A grid as it stands in a file, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    canvas: [usize; 2],
    object: [usize; 2],
    stride: usize,
    subdivisions: usize,
    counts: [usize; 2],
    start: [usize; 2],
}

impl TryFrom<Written> for ShiftGrid {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let Written { canvas, object, stride, subdivisions, counts, start } = written;
        let shifts = Self::subpixel(canvas, object, stride, subdivisions)?;
        // Only rolls move an object that fills its canvas.
        let whole = if canvas == object && subdivisions == 1 { Self::rolls(canvas, stride)? } else { shifts };
        whole.window(start, counts)
    }
}

/// A position that others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// Row 0, column 0.
    TopLeft,
    /// Row 0, last column.
    TopRight,
    /// `(rows / 2 − 1, columns / 2 − 1)` as published: of an even number of positions the upper left of the middle ones.
    /// (Of a single row or column, that one.)
    Centre,
    /// Last row, column 0.
    BottomLeft,
    /// Last row, last column.
    BottomRight,
    /// Any row and column.
    At([usize; 2]),
}

impl Anchor {
    /// The five anchors of the paper.
    pub const FIVE: [Self; 5] = [Self::TopLeft, Self::TopRight, Self::Centre, Self::BottomLeft, Self::BottomRight];

    /// `TL`, `TR`, `C`, `BL`, `BR`, or `row,column`.
    pub fn label(self) -> String {
        match self {
            Self::TopLeft => "TL".into(),
            Self::TopRight => "TR".into(),
            Self::Centre => "C".into(),
            Self::BottomLeft => "BL".into(),
            Self::BottomRight => "BR".into(),
            Self::At([row, column]) => format!("{row},{column}"),
        }
    }
}

impl ShiftGrid {
    /// An object of `[height, width]` at every `stride`-th pixel of a canvas.
    ///
    /// # Errors
    /// An object larger than the canvas, an empty one, or a stride of 0.
    pub fn new(canvas: [usize; 2], object: [usize; 2], stride: usize) -> Result<Self> {
        Self::subpixel(canvas, object, stride, 1)
    }

    /// As [`new`](Self::new), with positions in units of `1 / subdivisions` pixel: `stride` 1 and `subdivisions` 4 moves
    /// by quarters of a pixel.
    ///
    /// # Errors
    /// As [`new`](Self::new), and no subdivision.
    pub fn subpixel(canvas: [usize; 2], object: [usize; 2], stride: usize, subdivisions: usize) -> Result<Self> {
        if stride == 0 {
            return Err(Error::setting("stride", "at least 1", stride));
        }
        if subdivisions == 0 {
            return Err(Error::setting("subdivisions", "at least 1", subdivisions));
        }
        if object.contains(&0) || canvas.contains(&0) {
            return Err(Error::setting("size", "sides of at least 1", format!("{object:?} on {canvas:?}")));
        }
        if (0..2).any(|axis| object[axis] > canvas[axis]) {
            return Err(Error::ObjectTooLarge { object, canvas });
        }
        if canvas.iter().any(|side| side.checked_mul(subdivisions).is_none()) {
            return Err(Error::setting("subdivisions", format!("fewer on {canvas:?}"), subdivisions));
        }
        let counts = [0, 1].map(|axis| (canvas[axis] - object[axis]) * subdivisions / stride + 1);
        Ok(Self { canvas, object, stride, subdivisions, counts, start: [0, 0] })
    }

    /// All windows of `[height, width]` of a larger photograph.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn crops(photograph: [usize; 2], window: [usize; 2], stride: usize) -> Result<Self> {
        Self::new(photograph, window, stride)
    }

    /// All circular rolls of an image: as many positions as pixels.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn rolls(image: [usize; 2], stride: usize) -> Result<Self> {
        let grid = Self::new(image, image, stride)?;
        Ok(Self { counts: image.map(|side| (side - 1) / stride + 1), ..grid })
    }

    /// The part of this grid that begins at position `start` and has `counts` rows and columns.
    ///
    /// # Errors
    /// A part that sticks out or is empty.
    pub fn window(&self, start: [usize; 2], counts: [usize; 2]) -> Result<Self> {
        let end = |axis: usize| start[axis].checked_add(counts[axis]);
        let fits = (0..2).all(|axis| counts[axis] > 0 && end(axis).is_some_and(|end| end <= self.counts[axis]));
        if !fits {
            let expected = format!("a part of {:?} positions", self.counts);
            return Err(Error::setting("window", expected, format!("{counts:?} from {start:?}")));
        }
        Ok(Self { counts, start: [0, 1].map(|axis| self.start[axis] + start[axis]), ..*self })
    }

    /// Positions in a column of the grid.
    pub fn rows(&self) -> usize {
        self.counts[0]
    }

    /// Positions in a row of the grid.
    pub fn columns(&self) -> usize {
        self.counts[1]
    }

    /// All positions.
    pub fn len(&self) -> usize {
        self.counts[0] * self.counts[1]
    }

    /// Never: a grid has a position.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Height and width of the canvas.
    pub fn canvas(&self) -> [usize; 2] {
        self.canvas
    }

    /// Height and width of the object.
    pub fn object(&self) -> [usize; 2] {
        self.object
    }

    /// Units of `1 / subdivisions` pixel between neighbouring positions.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Units in one pixel.
    pub fn subdivisions(&self) -> usize {
        self.subdivisions
    }

    /// Where the object's upper left corner goes at grid index `index`, in units of `1 / subdivisions` pixel.
    pub fn offset(&self, index: usize) -> [usize; 2] {
        let [row, column] = self.position(index);
        [(self.start[0] + row) * self.stride, (self.start[1] + column) * self.stride]
    }

    /// Row and column of a grid index.
    pub fn position(&self, index: usize) -> [usize; 2] {
        [index / self.counts[1], index % self.counts[1]]
    }

    /// The grid index of an anchor.
    ///
    /// # Errors
    /// An anchor outside the grid.
    pub fn index(&self, anchor: Anchor) -> Result<usize> {
        let [rows, columns] = self.counts;
        let [row, column] = match anchor {
            Anchor::TopLeft => [0, 0],
            Anchor::TopRight => [0, columns - 1],
            Anchor::Centre => [(rows / 2).saturating_sub(1), (columns / 2).saturating_sub(1)],
            Anchor::BottomLeft => [rows - 1, 0],
            Anchor::BottomRight => [rows - 1, columns - 1],
            Anchor::At(position) => position,
        };
        if row >= rows || column >= columns {
            return Err(Error::AnchorOutside { anchor: [row, column], grid: self.counts });
        }
        Ok(row * columns + column)
    }

    /// All pairs of grid indices that are one step apart along a row or a column.
    pub fn neighbours(&self) -> impl Iterator<Item = (usize, usize)> {
        let [rows, columns] = self.counts;
        (0..rows * columns).flat_map(move |index| {
            let right = ((index % columns) + 1 < columns).then_some((index, index + 1));
            let below = (index / columns + 1 < rows).then_some((index, index + columns));
            right.into_iter().chain(below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_paper_and_its_site() {
        let side = |canvas, object| ShiftGrid::new([canvas; 2], [object; 2], 1).unwrap().rows();
        assert_eq!([side(224, 125), side(224, 75), side(224, 100), side(40, 20)], [100, 150, 125, 21]);
        assert_eq!(ShiftGrid::crops([356; 2], [224; 2], 1).unwrap().len(), 133 * 133);
        assert_eq!(ShiftGrid::rolls([40, 30], 1).unwrap().len(), 1200);
        assert_eq!(ShiftGrid::subpixel([10, 10], [8, 8], 1, 4).unwrap().rows(), 9);
    }

    #[test]
    fn the_published_centre_is_upper_left_of_the_middle() {
        let grid = ShiftGrid::new([224; 2], [125; 2], 1).unwrap();
        assert_eq!(grid.position(grid.index(Anchor::Centre).unwrap()), [49, 49]);
        assert_eq!(grid.position(grid.index(Anchor::BottomLeft).unwrap()), [99, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = ShiftGrid::new([10, 10], [11, 3], 1).unwrap_err();
        assert!(matches!(error, Error::ObjectTooLarge { object: [11, 3], canvas: [10, 10] }), "{error}");
        assert!(ShiftGrid::new([10, 10], [3, 3], 0).unwrap_err().to_string().contains("stride"));
        assert!(ShiftGrid::new([10, 10], [0, 3], 1).unwrap_err().to_string().contains("size"));
        assert!(ShiftGrid::subpixel([10, 10], [3, 3], 1, 0).is_err());
        let grid = ShiftGrid::new([10, 10], [3, 3], 1).unwrap();
        assert!(matches!(grid.index(Anchor::At([0, 8])), Err(Error::AnchorOutside { anchor: [0, 8], grid: [8, 8] })));
        assert!(grid.window([4, 0], [5, 1]).is_err());
        assert!(grid.window([usize::MAX, 0], [2, 1]).is_err());
        assert!(ShiftGrid::subpixel([10, 10], [3, 3], 1, usize::MAX).is_err());
        assert_eq!(grid.window([4, 1], [2, 2]).unwrap().offset(3), [5, 2]);
    }

    #[test]
    fn grids_survive_their_file_and_impossible_ones_are_refused() {
        let part = ShiftGrid::new([10, 12], [3, 4], 2).unwrap().window([1, 2], [3, 2]).unwrap();
        let rolls = ShiftGrid::rolls([5, 4], 1).unwrap();
        for grid in [part, rolls, ShiftGrid::subpixel([6, 6], [4, 4], 1, 4).unwrap()] {
            let text = serde_json::to_string(&grid).unwrap();
            assert_eq!(serde_json::from_str::<ShiftGrid>(&text).unwrap(), grid);
        }
        let text = serde_json::to_string(&part).unwrap();
        for (from, to) in [("\"stride\":2", "\"stride\":0"), ("\"counts\":[3,2]", "\"counts\":[4,2]")] {
            assert!(serde_json::from_str::<ShiftGrid>(&text.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn neighbours_are_counted_once() {
        let grid = ShiftGrid::new([12, 11], [10, 10], 1).unwrap();
        // 3 × 2 positions: 3 pairs along rows, 4 along columns.
        assert_eq!(grid.neighbours().count(), 7);
    }
}
