//! What can go wrong when invariance is measured, each variant naming the thing, what was expected and what was found.

/// This module's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in [`invariance`](super).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting outside its range.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An object that leaves no position on its canvas.
    #[error("an object of {object:?} pixels does not fit on a canvas of {canvas:?}")]
    ObjectTooLarge {
        /// Height and width of the object (or crop).
        object: [usize; 2],
        /// Height and width of the canvas (or photograph).
        canvas: [usize; 2],
    },
    /// A layer that the network does not have.
    #[error("no layer `{name}`; the layers are {known:?}")]
    UnknownLayer {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A feature vector of zeros, whose angle to anything is undefined.
    #[error("layer `{layer}`: the feature at position {position:?} has norm 0, so that similarity is undefined")]
    ZeroNorm {
        /// The layer.
        layer: String,
        /// Row and column of the grid.
        position: [usize; 2],
    },
    /// A feature that is NaN or infinite.
    #[error("layer `{layer}`: the feature at position {position:?} is not finite")]
    NotFinite {
        /// The layer.
        layer: String,
        /// Row and column of the grid.
        position: [usize; 2],
    },
    /// A tensor or image of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Which one.
        what: String,
        /// The expected shape.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An object without a single visible pixel.
    #[error("the object's mask has no pixel")]
    EmptyMask,
    /// An anchor that is no position of the grid.
    #[error("anchor {anchor:?} lies outside a grid of {grid:?} positions")]
    AnchorOutside {
        /// Row and column.
        anchor: [usize; 2],
        /// Rows and columns of the grid.
        grid: [usize; 2],
    },
    /// A map too small for its padding.
    #[error("{mode} padding of {padding} needs a side of at least {needed}, found {found}")]
    Padding {
        /// How the border is filled.
        mode: &'static str,
        /// Pixels on the wider side.
        padding: i64,
        /// The smallest side that can be padded so.
        needed: i64,
        /// The side given.
        found: i64,
    },
    /// An odd side where polyphase sampling needs an even one.
    #[error("polyphase sampling needs even sides, found {found:?}; pad circularly (not exact) or change the input")]
    OddSide {
        /// Height and width.
        found: [i64; 2],
    },
    /// A network that cannot be taken apart into layers.
    #[error("{network} cannot be evaluated by reuse: {reason}")]
    NotConvolutional {
        /// The network.
        network: String,
        /// What stands in the way.
        reason: String,
    },
    /// An error of `core-tensor`, such as a checkpoint that does not match.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A picture that cannot be read or written.
    #[error("picture: {0}")]
    Picture(#[from] image::ImageError),
    /// A table or page that cannot be written.
    #[error("{path}: write failed: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// A setting outside its range.
    pub(crate) fn setting(setting: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting { setting, expected: expected.into(), found: found.to_string() }
    }

    /// A tensor of the wrong shape.
    pub(crate) fn shape(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Shape { what: what.into(), expected: expected.into(), found: found.into() }
    }
}
