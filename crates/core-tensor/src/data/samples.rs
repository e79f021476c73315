//! Where images come from, one at a time and from several threads.

use std::borrow::Cow;

use crate::Result;

/// Labelled `u8` images that can be fetched by position: all in memory ([`Dataset`](super::Dataset)), or decoded when
/// asked for ([`ImageFolder`](super::ImageFolder)).
pub trait Samples: Send + Sync + 'static {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of every image.
    fn channels(&self) -> usize;

    /// `[height, width]` when every image has the same.
    fn size(&self) -> Option<[usize; 2]>;

    /// The class number of one image. `index` is below [`len`](Self::len).
    fn label(&self, index: usize) -> i64;

    /// One image. `index` is below [`len`](Self::len).
    ///
    /// # Errors
    /// What keeps it from being read or decoded.
    fn image(&self, index: usize) -> Result<Image<'_>>;
}

/// The shape of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// 1 for grey, 3 for red, green, blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Channels, height and width.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// `[height, width]`.
    pub const fn size(self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Values in one image; `None` when they do not fit in memory's address range.
    pub fn values(self) -> Option<usize> {
        self.channels.checked_mul(self.height)?.checked_mul(self.width)
    }
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}, {}]", self.channels, self.height, self.width)
    }
}

/// The pixels of one image: one plane a channel, row by row.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// `channels · height · width` bytes.
    pub pixels: Cow<'a, [u8]>,
    /// Their arrangement.
    pub shape: ImageShape,
}
