//! Crops and mirrors as one lookup: they are composed first and move the pixels once.

use std::ops::Range;

use super::pipeline::Affine;

/// Where each pixel of an output image comes from.
///
/// Rows and columns outside `rows` and `columns` are fill. Inside, the source advances with the output, backwards in a
/// mirrored row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    size: [usize; 2],
    rows: Range<usize>,
    columns: Range<usize>,
    /// The source pixel at the window's top, and at its left or, mirrored, its right end.
    from: [usize; 2],
    mirrored: bool,
}

impl Placement {
    /// Every pixel stays.
    pub(super) fn identity(size: [usize; 2]) -> Self {
        Self { size, rows: 0..size[0], columns: 0..size[1], from: [0, 0], mirrored: false }
    }

    pub(super) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Cuts out `size` with its corner at `offset`, which may lie outside: what is not there is fill.
    pub(super) fn crop(&mut self, offset: [isize; 2], size: [usize; 2]) {
        let (rows, [top, _]) = cut(&self.rows, offset[0], size[0]);
        let (columns, [left, right]) = cut(&self.columns, offset[1], size[1]);
        // The first source column belongs to the window's right end when mirrored.
        self.from = [self.from[0] + top, self.from[1] + if self.mirrored { right } else { left }];
        (self.size, self.rows, self.columns) = (size, rows, columns);
    }

    /// Swaps left and right.
    pub(super) fn mirror(&mut self) {
        self.columns = self.size[1] - self.columns.end..self.size[1] - self.columns.start;
        self.mirrored = !self.mirrored;
    }

    /// Writes `scale · source + bias` for one plane of a source that is `source_width` wide; fill is a source of 0.
    pub(super) fn write<T: Copy + Into<f32>>(
        &self,
        source: &[T],
        source_width: usize,
        output: &mut [f32],
        affine: Affine,
    ) {
        let Affine { scale, bias } = affine;
        let affine = |value: T| value.into() * scale + bias;
        let (left, width) = (self.columns.start, self.columns.len());
        for (row, line) in output.chunks_exact_mut(self.size[1]).enumerate() {
            if !self.rows.contains(&row) || width == 0 {
                line.fill(bias);
                continue;
            }
            let start = (self.from[0] + row - self.rows.start) * source_width + self.from[1];
            let pixels = &source[start..start + width];
            line[..left].fill(bias);
            line[left + width..].fill(bias);
            let window = line[left..left + width].iter_mut();
            if self.mirrored {
                window.zip(pixels.iter().rev()).for_each(|(to, &from)| *to = affine(from));
            } else {
                window.zip(pixels).for_each(|(to, &from)| *to = affine(from));
            }
        }
    }
}

/// A window seen from a crop of `size` at `offset`: where it is there, and how much its start and end lost.
fn cut(window: &Range<usize>, offset: isize, size: usize) -> (Range<usize>, [usize; 2]) {
    let moved = |position: usize| (position as isize - offset).clamp(0, size as isize) as usize;
    let seen = moved(window.start)..moved(window.end);
    if seen.is_empty() {
        return (0..0, [0, 0]);
    }
    let lost_at_start = (seen.start as isize + offset) as usize - window.start;
    (seen.clone(), [lost_at_start, window.len() - seen.len() - lost_at_start])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain version: an image with fill marked, one step after the other.
    #[derive(Clone)]
    struct Pixels {
        size: [usize; 2],
        values: Vec<Option<u8>>,
    }

    impl Pixels {
        fn crop(&self, offset: [isize; 2], size: [usize; 2]) -> Self {
            let at = |row: isize, column: isize| {
                let inside = |position: isize, length: usize| (0..length as isize).contains(&position);
                (inside(row, self.size[0]) && inside(column, self.size[1]))
                    .then(|| self.values[row as usize * self.size[1] + column as usize])
                    .flatten()
            };
            let pixel = |i: usize| at((i / size[1]) as isize + offset[0], (i % size[1]) as isize + offset[1]);
            Self { size, values: (0..size[0] * size[1]).map(pixel).collect() }
        }

        fn mirror(&self) -> Self {
            let values = self.values.chunks(self.size[1]).flat_map(|row| row.iter().rev()).copied().collect();
            Self { size: self.size, values }
        }
    }

    fn step() -> impl Strategy<Value = Option<([isize; 2], [usize; 2])>> {
        prop_oneof![Just(None), ([-4_isize..5, -4_isize..5], [1_usize..8, 1_usize..8]).prop_map(Some)]
    }

    proptest! {
        #[test]
        fn composed_steps_move_pixels_as_one_after_the_other(
            size in [1_usize..7, 1_usize..7],
            steps in prop::collection::vec(step(), 0..6),
        ) {
            let source: Vec<u8> = (1..=(size[0] * size[1]) as u8).collect();
            let mut plain = Pixels { size, values: source.iter().copied().map(Some).collect() };
            let mut placement = Placement::identity(size);
            for step in steps {
                match step {
                    None => {
                        plain = plain.mirror();
                        placement.mirror();
                    }
                    Some((offset, size)) => {
                        plain = plain.crop(offset, size);
                        placement.crop(offset, size);
                    }
                }
            }
            let mut found = vec![f32::NAN; plain.values.len()];
            placement.write(&source, size[1], &mut found, Affine { scale: 2.0, bias: 0.5 });
            let expected: Vec<f32> = plain.values.iter().map(|v| f32::from(v.unwrap_or(0)) * 2.0 + 0.5).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
