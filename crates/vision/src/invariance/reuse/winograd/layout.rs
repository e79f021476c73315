//! Where the cells of windows and tiles lie in memory.

use super::cover::{Cover, Sort};
use super::scheme::Scheme;
use crate::invariance::reuse::axis::{Axis, cell, cell_count};
use std::ops::Range;

/// What lies beyond the border, and what another tile writes.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Tiles that together hold every cell of a table, or of a map, once.
pub(super) struct Layout {
    window: usize,
    tile: usize,
    /// `[tiles][window]`: cells that are read.
    windows: Vec<u32>,
    /// `[tiles][tile]`: cells that are written.
    places: Vec<u32>,
    /// Tiles that no other tiles share their cells with, in order.
    strips: Vec<Strip>,
}

struct Strip {
    tiles: Range<usize>,
    cells: Range<usize>,
}

/// Neighbouring tiles of some images, and the cells that they write in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) images: Range<usize>,
    pub(super) tiles: Range<usize>,
    pub(super) cells: Range<usize>,
}

impl Piece {
    /// Tiles of all its images.
    pub(super) fn rows(&self) -> usize {
        self.images.len() * self.tiles.len()
    }
}

impl Layout {
    /// From rows and columns that are read and those that are written, by a scheme for each.
    pub(super) fn new(schemes: &[Scheme; 2], from: [&Axis; 2], to: [&Axis; 2]) -> Self {
        let square = |part: fn(&Scheme) -> usize| schemes.iter().map(part).product();
        let (window, tile) = (square(Scheme::window), square(Scheme::tile));
        let mut layout = Self { window, tile, windows: vec![], places: vec![], strips: vec![] };
        for (sort, first) in [(Sort::Objects, 0), (Sort::Backgrounds, to[0].objects() * to[1].objects())] {
            let [rows, columns] = [0, 1].map(|axis| Cover::new(&schemes[axis], from[axis], to[axis], sort));
            let line = sort.count(to[1]);
            for row in 0..rows.tiles() {
                for column in 0..columns.tiles() {
                    layout.windows.extend(
                        pairs(rows.window(row), columns.window(column)).map(|(row, column)| {
                            cell(from[0], from[1], row, column).map_or(NOWHERE, |cell| cell as u32)
                        }),
                    );
                    layout.places.extend(pairs(rows.places(row), columns.places(column)).map(|(row, column)| {
                        row.zip(column).map_or(NOWHERE, |(row, column)| (first + row as usize * line) as u32 + column)
                    }));
                }
                let (numbers, tiles) = (rows.numbers(row), layout.tiles());
                layout.strips.push(Strip {
                    tiles: tiles - columns.tiles()..tiles,
                    cells: first + numbers.start * line..first + numbers.end * line,
                });
            }
        }
        debug_assert_eq!(layout.cells(), cell_count(to[0], to[1]));
        layout
    }

    pub(super) fn tiles(&self) -> usize {
        self.windows.len() / self.window
    }

    /// Cells that are written, of one image.
    pub(super) fn cells(&self) -> usize {
        self.strips.last().map_or(0, |strip| strip.cells.end)
    }

    /// The cells that a tile reads, row by row.
    pub(super) fn window(&self, tile: usize) -> &[u32] {
        &self.windows[tile * self.window..][..self.window]
    }

    /// The cells that it writes.
    pub(super) fn places(&self, tile: usize) -> &[u32] {
        &self.places[tile * self.tile..][..self.tile]
    }

    /// All tiles of all images, so many at a time where that can be.
    pub(super) fn pieces(&self, images: usize, tiles: usize) -> Vec<Piece> {
        let together = tiles / self.tiles().max(1);
        if together > 0 {
            let cells = 0..self.cells();
            let some = (0..images).step_by(together).map(|start| start..(start + together).min(images));
            return some.map(|images| Piece { images, tiles: 0..self.tiles(), cells: cells.clone() }).collect();
        }
        let mut parts: Vec<Piece> = Vec::new();
        for Strip { tiles: more, cells } in &self.strips {
            match parts.last_mut() {
                Some(last) if more.end - last.tiles.start <= tiles => {
                    (last.tiles.end, last.cells.end) = (more.end, cells.end);
                }
                _ => parts.push(Piece { images: 0..1, tiles: more.clone(), cells: cells.clone() }),
            }
        }
        let all = (0..images)
            .flat_map(|image| parts.iter().map(move |part| Piece { images: image..image + 1, ..part.clone() }));
        all.collect()
    }
}

/// Every one of `rows` with every one of `columns`.
fn pairs<'a, T: Copy>(rows: &'a [T], columns: &'a [T]) -> impl Iterator<Item = (T, T)> + 'a {
    rows.iter().flat_map(move |row| columns.iter().map(move |column| (*row, *column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(height: usize, width: usize) -> Layout {
        let from = [height, width].map(Axis::plain);
        let to = from.each_ref().map(|axis| axis.windows(3, 1, 1).unwrap().0);
        Layout::new(&[Scheme::three(), Scheme::three()], from.each_ref(), to.each_ref())
    }

    #[test]
    fn tiles_of_a_map_by_hand() {
        let layout = map(4, 3);
        assert_eq!(layout.tiles(), 2);
        assert_eq!(layout.window(0)[..10], [[NOWHERE; 6].as_slice(), &[0, 1, 2, NOWHERE]].concat());
        assert_eq!(layout.places(0), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(layout.window(1)[..10], [NOWHERE, 6, 7, 8, NOWHERE, NOWHERE, 9, 10, 11, NOWHERE]);
        assert_eq!(layout.places(1), [[9, 10, 11].as_slice(), &[NOWHERE; 6]].concat());
    }

    #[test]
    fn pieces_hold_every_tile_of_every_image() {
        let layout = map(7, 5);
        let piece = |images, tiles, cells| Piece { images, tiles, cells };
        assert_eq!(
            layout.pieces(5, 12),
            [piece(0..2, 0..6, 0..35), piece(2..4, 0..6, 0..35), piece(4..5, 0..6, 0..35)]
        );
        let parts = [(0..4, 0..30), (4..6, 30..35)];
        let all = (0..2).flat_map(|image| parts.clone().map(|(tiles, cells)| piece(image..image + 1, tiles, cells)));
        assert_eq!(layout.pieces(2, 5), all.collect::<Vec<_>>());
        // Fewer than a strip has are not to be had.
        assert_eq!(layout.pieces(1, 1).len(), 3);
        assert!(layout.pieces(0, 6).is_empty());
    }
}
