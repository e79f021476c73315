//! The gates' own layers.

use crate::fractrain::Result;
use tch::Tensor;
use tch::nn::{Init, Path};

/// A pair of layers a block, one LSTM and one projection for all.
#[derive(Debug)]
pub(super) struct GateNetwork {
    blocks: Vec<[Tensor; 4]>,
    lstm: [Tensor; 4],
    projection: [Tensor; 2],
    state: Option<(Tensor, Tensor)>,
}

impl GateNetwork {
    pub(super) fn new(path: &Path, embedding: i64, options: i64) -> Self {
        let bound = 1.0 / (embedding as f64).sqrt();
        let uniform = Init::Uniform { lo: -bound, up: bound };
        let lstm = path / "lstm";
        let projection = path / "projection";
        // The reference starts linear layers from N(0, 2/(inputs · outputs)).
        let spread = (2.0 / (embedding * options) as f64).sqrt();
        Self {
            blocks: Vec::new(),
            lstm: [
                lstm.var("weight_ih", &[4 * embedding, embedding], uniform),
                lstm.var("weight_hh", &[4 * embedding, embedding], uniform),
                lstm.var("bias_ih", &[4 * embedding], uniform),
                lstm.var("bias_hh", &[4 * embedding], uniform),
            ],
            projection: [
                projection.var("weight", &[options, embedding], Init::Randn { mean: 0.0, stdev: spread }),
                projection.var("bias", &[options], Init::Const(0.0)),
            ],
            state: None,
        }
    }

    pub(super) fn add_block(&mut self, path: &Path, channels: i64, hidden: i64, embedding: i64) {
        // 1 × 1 convolutions there: N(0, 2 / outputs).
        let start = |outputs: i64| Init::Randn { mean: 0.0, stdev: (2.0 / outputs as f64).sqrt() };
        let (first, second) = (path / "first", path / "second");
        self.blocks.push([
            first.var("weight", &[hidden, channels], start(hidden)),
            first.var("bias", &[hidden], Init::Const(0.0)),
            second.var("weight", &[embedding, hidden], start(embedding)),
            second.var("bias", &[embedding], Init::Const(0.0)),
        ]);
    }

    /// The recurrent state is zero at the start of a pass.
    pub(super) fn reset(&mut self) {
        self.state = None;
    }

    /// `[batch, options]`: one-hot forward, the gradient of the probabilities backward.
    pub(super) fn decide(&mut self, block: usize, input: &Tensor) -> Result<Tensor> {
        let [first, first_bias, second, second_bias] = &self.blocks[block];
        // A store that is cast takes the weights along.
        let kind = first.kind();
        let pooled = if input.dim() > 2 {
            let axes: Vec<i64> = (2..input.dim() as i64).collect();
            input.f_mean_dim(&axes[..], false, kind)?
        } else {
            input.f_to_kind(kind)?
        };
        let embedded = pooled.f_linear(first, Some(first_bias))?.f_relu()?.f_linear(second, Some(second_bias))?;
        let zeros = || embedded.f_zeros_like();
        let (hidden, cell) = match self.state.take() {
            Some(state) => state,
            None => (zeros()?, zeros()?),
        };
        let [weight_ih, weight_hh, bias_ih, bias_hh] = &self.lstm;
        let (hidden, cell) =
            embedded.f_lstm_cell(&[&hidden, &cell], weight_ih, weight_hh, Some(bias_ih), Some(bias_hh))?;
        let [projection, bias] = &self.projection;
        let probabilities = hidden.f_linear(projection, Some(bias))?.f_softmax(-1, kind)?;
        self.state = Some((hidden, cell));
        let choice = probabilities.detach().f_argmax(1, false)?;
        let hard = choice.f_one_hot(probabilities.size()[1])?.f_to_kind(kind)?;
        // The difference is exactly zero, so that the mask is exactly one-hot.
        Ok(hard.f_add(&probabilities.f_sub(&probabilities.detach())?)?)
    }
}
