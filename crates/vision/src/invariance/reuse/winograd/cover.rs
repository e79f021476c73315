//! Tiles that together hold every name of an axis.
//!
//! Windows that follow one another on a map overlap, which is what the schemes live on. On an axis of names they do so along each
//! position's line, and one tile serves all lines on which its window is found: interior cells are covered at the first position, and
//! later ones only add what the borders make of them.

use super::scheme::Scheme;
use crate::invariance::reuse::axis::{Axis, Name};
use std::ops::Range;

/// Which names are to be covered, and how lines are read for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Those that see the object.
    Objects,
    /// Those that do not, on lines without the object.
    Backgrounds,
}

impl Sort {
    /// How many there are.
    pub(super) fn count(self, axis: &Axis) -> usize {
        match self {
            Self::Objects => axis.objects(),
            Self::Backgrounds => axis.backgrounds(),
        }
    }

    fn read(self, axis: &Axis, name: Name) -> Name {
        if self == Self::Backgrounds { axis.ground(name) } else { name }
    }

    fn number(self, axis: &Axis, name: Name) -> Option<u32> {
        match (self, self.read(axis, name)) {
            (Self::Objects, Name::Object(number)) | (Self::Backgrounds, Name::Background(number)) => Some(number),
            _ => None,
        }
    }
}

/// Tiles of a scheme that hold each name of an axis once.
pub(super) struct Cover {
    window: usize,
    tile: usize,
    /// `[tiles][window]`: names of the axis that is read.
    windows: Vec<Name>,
    /// `[tiles][tile]`: numbers on the axis that is written, or nothing where another tile has it.
    places: Vec<Option<u32>>,
}

impl Cover {
    /// Of the axis `to` behind a convolution of three taps on `from`, stride 1, one zero at each end.
    pub(super) fn new(scheme: &Scheme, from: &Axis, to: &Axis, sort: Sort) -> Self {
        let mut cover = Self { window: scheme.window(), tile: scheme.tile(), windows: vec![], places: vec![] };
        let mut covered = vec![false; sort.count(to)];
        for position in 0..to.positions() {
            let (read, written) = (from.at(position), to.at(position));
            let mut fresh = |cell: usize| {
                let number = sort.number(to, *written.get(cell)?)?;
                let known = std::mem::replace(&mut covered[number as usize], true);
                (!known).then_some(number)
            };
            let mut cell = 0;
            while cell < written.len() {
                // Where the window knows no zeros before it, the only tile begins with the axis.
                let start = if scheme.padded { cell } else { 0 };
                let before = (start..cell).map(|_| None);
                let Some(first) = fresh(cell) else {
                    cell += 1;
                    continue;
                };
                cover.places.extend(before.chain([Some(first)]));
                cover.places.extend((cell + 1..start + scheme.tile()).map(&mut fresh));
                let seen = (start..start + scheme.window()).map(|at| {
                    let name = at.checked_sub(usize::from(scheme.padded)).and_then(|at| read.get(at));
                    name.map_or(Name::Outside, |name| sort.read(from, *name))
                });
                cover.windows.extend(seen);
                cell = start + scheme.tile();
            }
        }
        cover
    }

    pub(super) fn tiles(&self) -> usize {
        self.windows.len() / self.window
    }

    pub(super) fn window(&self, tile: usize) -> &[Name] {
        &self.windows[tile * self.window..][..self.window]
    }

    pub(super) fn places(&self, tile: usize) -> &[Option<u32>] {
        &self.places[tile * self.tile..][..self.tile]
    }

    /// The numbers that a tile has. They follow one another, since names are numbered in the order in which tiles are laid.
    pub(super) fn numbers(&self, tile: usize) -> Range<usize> {
        let mut numbers = self.places(tile).iter().flatten().map(|number| *number as usize);
        let first = numbers.next().unwrap_or(0);
        first..numbers.next_back().unwrap_or(first) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariance::reuse::axis::pixels;
    use crate::invariance::{Motion, ShiftGrid};
    use proptest::prelude::*;

    #[test]
    fn a_map_by_itself_is_covered_as_it_is_tiled() {
        let (from, scheme) = (Axis::plain(7), Scheme::three());
        let (to, _) = from.windows(3, 1, 1).unwrap();
        let cover = Cover::new(&scheme, &from, &to, Sort::Backgrounds);
        assert_eq!(cover.tiles(), 3);
        assert_eq!(cover.numbers(1), 3..6);
        let [two, three] = [2, 3].map(Name::Background);
        assert_eq!(&cover.window(1)[..2], [two, three]);
        assert_eq!(cover.window(2)[2..], [Name::Outside; 3]);
        assert_eq!(cover.places(2), [Some(6), None, None]);
        assert_eq!(Cover::new(&scheme, &from, &to, Sort::Objects).tiles(), 0);
    }

    proptest! {
        /// Every name once, tile after tile in order; and each window is what its names are made of.
        #[test]
        fn every_name_is_covered_once(
            canvas in 5_usize..30, object in 1_usize..5, step in 1_usize..4, stride in 1_usize..3, plain: bool, deep: bool, which in 0_usize..3,
            motion in prop::sample::select(vec![Motion::Paste, Motion::Roll]),
        ) {
            let grid = match motion {
                Motion::Roll => ShiftGrid::rolls([canvas; 2], step),
                _ => ShiftGrid::new([canvas; 2], [object; 2], step),
            };
            let mut from = pixels(&motion, plain, &grid.unwrap())[0].windows(3, stride, 1).unwrap().0;
            if deep {
                from = from.windows(3, 1, 1).unwrap().0;
            }
            let (to, made_of) = from.windows(3, 1, 1).unwrap();
            let schemes = Scheme::all(from.cells());
            let scheme = &schemes[which % schemes.len()];
            for (sort, made_of) in [(Sort::Objects, &made_of.objects), (Sort::Backgrounds, &made_of.backgrounds)] {
                let cover = Cover::new(scheme, &from, &to, sort);
                let mut next = 0;
                for tile in 0..cover.tiles() {
                    let numbers = cover.numbers(tile);
                    prop_assert_eq!(numbers.start, next);
                    next = numbers.end;
                    let places = cover.places(tile).iter().enumerate();
                    let held: Vec<_> = places.filter_map(|(place, number)| Some((place, (*number)? as usize))).collect();
                    prop_assert_eq!(held.len(), numbers.len());
                    for (place, number) in held {
                        let window = cover.window(tile);
                        let at = |tap: usize| match (place + tap + usize::from(scheme.padded)).checked_sub(1) {
                            Some(at) if scheme.padded || at < window.len() => window[at],
                            _ => Name::Outside,
                        };
                        let seen: Vec<_> = (0..3).map(at).collect();
                        prop_assert_eq!(&seen, &made_of[3 * number..][..3]);
                    }
                }
                prop_assert_eq!(next, sort.count(&to));
            }
        }
    }
}
