//! Precision as a resource: FracTrain and SmartDeal.

mod error;
pub mod smartdeal;

pub use error::{Error, Result};
