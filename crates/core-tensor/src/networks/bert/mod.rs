//! BERT (Devlin et al., arXiv 1810.04805), written against [`LayerFactory`](crate::nn::LayerFactory) with Hugging
//! Face's parameter names.
//!
//! | type | output |
//! |---|---|
//! | [`Bert`] | hidden states, and the pooled first token |
//! | [`BertForSequenceClassification`] | class logits, or one number for regression |
//! | [`BertForQuestionAnswering`] | start and end logits of an answer span |
//! | [`BertForPreTraining`] | masked words, and optionally whether the second sentence follows the first |
//!
//! ```
//! use core_tensor::networks::bert::{BertConfig, BertForSequenceClassification, BertInput};
//! use core_tensor::nn::Standard;
//! use core_tensor::seed::{Purpose, seed_libtorch};
//! use tch::{Device, Tensor, nn};
//!
//! seed_libtorch(0, Purpose::Initialisation, 0);
//! let config = BertConfig::nano(100);
//! let store = nn::VarStore::new(Device::Cpu);
//! let model = BertForSequenceClassification::new(&store.root(), &Standard, &config, 2)?;
//! let ids = Tensor::from_slice(&[2_i64, 17, 41, 3, 0]).view([1, 5]);
//! let mask = Tensor::from_slice(&[1_i64, 1, 1, 1, 0]).view([1, 5]);
//! let logits = model.forward(&BertInput::new(ids).with_mask(mask), false)?;
//! assert_eq!(logits.size(), [1, 2]);
//! # Ok::<(), core_tensor::Error>(())
//! ```

mod config;
mod heads;
mod input;
mod layer;
mod model;
mod pretrained;

pub use config::BertConfig;
pub use heads::{
    BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification, IGNORED, PreTrainingLosses,
};
pub use input::BertInput;
pub(super) use input::in_table;
pub(super) use layer::dropout;
pub use model::{Bert, Rows};
pub use pretrained::{
    BertLoad, load_state_into, load_state_keeping, load_weights, load_weights_keeping, save_pretrained,
};

#[cfg(test)]
mod tests;
