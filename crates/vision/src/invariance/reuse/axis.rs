//! Rows and columns named by what they see.

use crate::invariance::{Error, Motion, Result, ShiftGrid};
use std::collections::HashMap;

/// A name: of a row (or column) that sees the object, of one that does not, or of what lies beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Object(u32),
    Background(u32),
    Outside,
}

/// The rows (or columns) of a map for every position of the object along this axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    cells: usize,
    /// `[positions][cells]`, each the name of what is seen there.
    names: Vec<Name>,
    /// For each name of a row that sees the object, the number of the one that sees background instead.
    hidden: Vec<u32>,
    backgrounds: usize,
}

/// What each name of the new axis is made of: names of the old one, `width` for each.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) width: usize,
    pub(super) objects: Vec<Name>,
    pub(super) backgrounds: Vec<Name>,
}

/// One place of an image in which a name can be seen: position along the axis and pixel.
pub(super) type Witness = [usize; 2];

/// The rows and the columns of pixels of a study.
pub(super) fn pixels(motion: &Motion, plain: bool, grid: &ShiftGrid) -> [Axis; 2] {
    [0, 1].map(|axis| pixel_axis(motion, plain, grid, axis).0)
}

/// As [`pixels`] for one axis, with a witness for each name that sees the object and each that does not.
pub(super) fn pixel_axis(motion: &Motion, plain: bool, grid: &ShiftGrid, axis: usize) -> (Axis, [Vec<Witness>; 2]) {
    let (canvas, object) = (grid.canvas()[axis], grid.object()[axis]);
    let cells = if *motion == Motion::Crop { object } else { canvas };
    let count = [grid.rows(), grid.columns()][axis];
    let offset = |position: usize| grid.offset(if axis == 0 { position * grid.columns() } else { position })[axis];
    let mut interner = Interner::default();
    let mut witnesses = [Vec::new(), Vec::new()];
    let mut names = Vec::with_capacity(count * cells);
    for position in 0..count {
        let start = offset(position);
        for pixel in 0..cells {
            // What is seen as a tuple of numbers, and what were there without the object; one colour is one name.
            let ground = vec![Name::Background(if plain { 0 } else { pixel as u32 })];
            let name = match motion {
                Motion::Paste if (start..start + object).contains(&pixel) => {
                    let seen = vec![Name::Object((pixel - start) as u32), ground[0]];
                    interner.object(seen, &ground)
                }
                Motion::Paste => interner.background(ground),
                Motion::Crop => interner.background(vec![Name::Background((start + pixel) as u32)]),
                Motion::Roll => {
                    let source = (pixel + canvas - start % canvas) % canvas;
                    interner.background(vec![Name::Background(source as u32)])
                }
            };
            let (list, number) = match name {
                Name::Object(number) => (0, number),
                Name::Background(number) => (1, number),
                Name::Outside => continue,
            };
            let list: &mut Vec<Witness> = &mut witnesses[list];
            if list.len() <= number as usize {
                list.resize(number as usize + 1, [usize::MAX; 2]);
            }
            list[number as usize] = [position, pixel];
            names.push(name);
        }
    }
    // The ground behind an object that no position leaves bare has no witness; any pixel of its row will do, background alone.
    witnesses[1].resize(interner.backgrounds.len(), [usize::MAX; 2]);
    for (tuple, &number) in &interner.backgrounds {
        if let (Name::Background(pixel), [usize::MAX, _]) = (tuple[0], witnesses[1][number as usize]) {
            witnesses[1][number as usize] = [usize::MAX, pixel as usize];
        }
    }
    let (axis, _) = interner.finish(cells, names, if *motion == Motion::Paste { 2 } else { 1 });
    (axis, witnesses)
}

/// Distinct cells of a map with these rows and columns.
pub(super) fn cell_count(rows: &Axis, columns: &Axis) -> usize {
    rows.objects() * columns.objects() + rows.backgrounds * columns.backgrounds
}

/// The number of a cell among them; nothing beyond the border.
pub(super) fn cell(rows: &Axis, columns: &Axis, row: Name, column: Name) -> Option<usize> {
    match (row, column) {
        (Name::Outside, _) | (_, Name::Outside) => None,
        (Name::Object(row), Name::Object(column)) => Some(row as usize * columns.objects() + column as usize),
        (row, column) => {
            let hidden = |axis: &Axis, name: Name| match name {
                Name::Object(number) => axis.hidden[number as usize] as usize,
                Name::Background(number) => number as usize,
                Name::Outside => 0,
            };
            let place = hidden(rows, row) * columns.backgrounds + hidden(columns, column);
            Some(rows.objects() * columns.objects() + place)
        }
    }
}

impl Axis {
    /// One position at which every cell shows a background of its own: a map by itself.
    pub(super) fn plain(cells: usize) -> Self {
        Self { cells, names: (0..cells as u32).map(Name::Background).collect(), hidden: vec![], backgrounds: cells }
    }

    /// Rows (or columns) of a map.
    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// Names that see the object.
    pub(super) fn objects(&self) -> usize {
        self.hidden.len()
    }

    /// Names that do not.
    pub(super) fn backgrounds(&self) -> usize {
        self.backgrounds
    }

    pub(super) fn positions(&self) -> usize {
        self.names.len() / self.cells
    }

    /// What is seen at each cell, with the object at `position`.
    pub(super) fn at(&self, position: usize) -> &[Name] {
        &self.names[position * self.cells..][..self.cells]
    }

    /// The axis after a window of `kernel` cells every `stride` cells.
    pub(super) fn windows(&self, kernel: usize, stride: usize, padding: usize) -> Result<(Self, Windows)> {
        let padded = self.cells + 2 * padding;
        if padded < kernel {
            let expected = format!("{kernel} cells, the window of a layer");
            return Err(Error::shape("side of a map", expected, format!("{padded} with padding")));
        }
        let cells = (padded - kernel) / stride + 1;
        Ok(self.renamed(cells, kernel, |line, cell| {
            let window = (0..kernel).map(|tap| (cell * stride + tap).checked_sub(padding));
            window.map(|at| at.and_then(|at| line.get(at)).copied().unwrap_or(Name::Outside)).collect()
        }))
    }

    /// The axis on which two maps of equal size are added.
    pub(super) fn joined(&self, other: &Self) -> (Self, Windows) {
        let mut interner = Interner::default();
        let mut names = Vec::with_capacity(self.names.len());
        for (&a, &b) in self.names.iter().zip(&other.names) {
            names.push(interner.name(vec![a, b], vec![self.ground(a), other.ground(b)]));
        }
        interner.finish(self.cells, names, 2)
    }

    fn renamed(&self, cells: usize, width: usize, tuple: impl Fn(&[Name], usize) -> Vec<Name>) -> (Self, Windows) {
        let mut interner = Interner::default();
        let mut names = Vec::with_capacity(self.positions() * cells);
        for position in 0..self.positions() {
            for cell in 0..cells {
                let seen = tuple(self.at(position), cell);
                let ground = seen.iter().map(|name| self.ground(*name)).collect();
                names.push(interner.name(seen, ground));
            }
        }
        interner.finish(cells, names, width)
    }

    /// What is seen without the object.
    pub(super) fn ground(&self, name: Name) -> Name {
        match name {
            Name::Object(number) => Name::Background(self.hidden[number as usize]),
            other => other,
        }
    }
}

/// Gives equal tuples equal numbers, in the order in which they are first met.
#[derive(Default)]
struct Interner {
    objects: HashMap<Vec<Name>, u32>,
    hidden: Vec<u32>,
    backgrounds: HashMap<Vec<Name>, u32>,
}

impl Interner {
    fn name(&mut self, seen: Vec<Name>, ground: Vec<Name>) -> Name {
        if seen == ground { self.background(seen) } else { self.object(seen, &ground) }
    }

    fn background(&mut self, tuple: Vec<Name>) -> Name {
        let next = self.backgrounds.len() as u32;
        Name::Background(*self.backgrounds.entry(tuple).or_insert(next))
    }

    fn object(&mut self, seen: Vec<Name>, ground: &[Name]) -> Name {
        if let Some(&number) = self.objects.get(&seen) {
            return Name::Object(number);
        }
        let Name::Background(ground) = self.background(ground.to_vec()) else { return Name::Outside };
        let number = self.hidden.len() as u32;
        self.hidden.push(ground);
        self.objects.insert(seen, number);
        Name::Object(number)
    }

    fn finish(self, cells: usize, names: Vec<Name>, width: usize) -> (Axis, Windows) {
        let listed = |tuples: HashMap<Vec<Name>, u32>| {
            let mut list = vec![Name::Outside; tuples.len() * width];
            for (tuple, number) in tuples {
                let place = number as usize * width;
                list[place..place + tuple.len()].copy_from_slice(&tuple);
            }
            list
        };
        let axis = Axis { cells, names, hidden: self.hidden, backgrounds: self.backgrounds.len() };
        let windows = Windows { width, objects: listed(self.objects), backgrounds: listed(self.backgrounds) };
        (axis, windows)
    }
}
