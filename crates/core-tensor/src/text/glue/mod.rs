//! GLUE (Wang et al., arXiv 1804.07461): nine tasks and a diagnostic set, their files, labels and scores.
//!
//! ```no_run
//! use core_tensor::text::glue::{Split, Task};
//! use core_tensor::text::{Casing, TokenLoader, TokenLoaderConfig, WordPiece};
//!
//! # fn main() -> core_tensor::Result<()> {
//! let pieces = WordPiece::from_file("vocab.txt".as_ref(), Casing::Lower)?;
//! let task: Task = "sst-2".parse()?;
//! let train = task.load("data/glue".as_ref(), Split::Train)?.labelled(&pieces, 128)?;
//! let batches = TokenLoader::new(train, pieces.special().pad, TokenLoaderConfig::training(32), 0)?;
//! # Ok(())
//! # }
//! ```

mod read;
mod score;
mod task;

pub use read::{Sentences, TaskSet};
pub use score::{Predictions, Scores};
pub use task::{Metric, Split, Task};
