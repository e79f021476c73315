//! What every network offers.

use tch::Tensor;

/// Receives a named intermediate feature map during a forward pass.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// A classifier over images or vectors, with its intermediate features in reach.
///
/// Parameters live in the `VarStore` whose path the network was built under, named as torchvision names them.
///
/// Passes return no `Result`, as tch's modules do not: what libtorch refuses panics with its message.
pub trait Network: std::fmt::Debug + Send {
    /// Logits `[batch, classes]`. Calls `tap` with each named feature map on the way: the stem (`conv1`), every stage
    /// (`layer1`), every block (`layer1.0`), the pooled vector (`avgpool`), in execution order.
    ///
    /// # Panics
    /// On an input of another number of channels, a size, a kind or a device that the network cannot take.
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor;

    /// The pooled features `[batch, features]` that the classifier sees.
    ///
    /// # Panics
    /// As [`forward_tapped`](Self::forward_tapped).
    fn features(&self, input: &Tensor, train: bool) -> Tensor;

    /// Length of a feature vector.
    fn feature_size(&self) -> i64;

    /// The prefix of the classifier's parameters, such as `fc`: what pruning and transfer leave alone.
    fn classifier(&self) -> &str;

    /// Logits `[batch, classes]`.
    ///
    /// # Panics
    /// As [`forward_tapped`](Self::forward_tapped).
    fn forward(&self, input: &Tensor, train: bool) -> Tensor {
        self.forward_tapped(input, train, &mut |_, _| {})
    }
}
