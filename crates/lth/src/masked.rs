//! Masks held exactly through training.

use crate::bits::Bits;
use crate::mask::{Mask, MaskSet};
use crate::memory::{dense_strides, zero_dropped};
use crate::prunable::{NamedTensor, trainable_variables};
use crate::{Error, Result};
use core_tensor::optim::Optimizer;
use core_tensor::train::{Control, Observer, Progress, StepContext};
use tch::{Kind, Tensor, nn, no_grad};

/// Keeps pruned weights, their gradients and their optimizer state at exactly 0.
///
/// Gradients are masked between the backward pass and the optimizer's step, and weights after it. For element-wise
/// optimizers (SGD, momentum, L2 decay, Adam) the second is then a no-op; it is done anyway. Masking gradients first
/// matters to whatever looks at a gradient's norm: add this observer *before* one that clips, and LARS's trust ratios
/// see live weights only. Batch norm is not masked: a channel without weights still emits its bias.
///
/// ```
/// # use core_tensor::{networks::Architecture, nn::Standard};
/// # use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
/// # use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
/// use lth::{MaskObserver, Prunable, PruningSchedule, Selector, criterion::Magnitude};
/// # let store = tch::nn::VarStore::new(tch::Device::Cpu);
/// # let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard)?;
/// let weights = Prunable::default().select_from(&store)?;
/// let mask = PruningSchedule::OneShot { density: 0.2 }.prune(&weights, &Magnitude, &Selector::global())?;
/// let mut masked = MaskObserver::new(&mask, &store)?;
/// # let mut objective = CrossEntropy::new(network.as_ref());
/// # let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default())?;
/// # let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.05 } };
/// let mut trainer = Trainer::<core_tensor::data::Batch>::new(config, &mut objective, &mut optimizer)?;
/// trainer.observe(&mut masked);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MaskObserver {
    layers: Vec<Layer>,
}

impl MaskObserver {
    /// Holds `mask` on the variables of a store, and applies it to their present values.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a masked tensor that is absent, frozen or of another shape; nothing is changed then.
    pub fn new(mask: &MaskSet, store: &nn::VarStore) -> Result<Self> {
        Self::on(mask, &trainable(mask, store)?)
    }

    /// The same on tensors that the caller names. The optimizer's state is found by these names, too.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(mask: &MaskSet, tensors: &[NamedTensor]) -> Result<Self> {
        let matched = mask.matched(tensors)?;
        let layers = mask.iter().zip(matched).map(|((name, mask), (_, weight))| Layer::new(name, mask, weight));
        let mut observer = Self { layers: layers.collect() };
        observer.mask_weights()?;
        Ok(observer)
    }

    /// Sets the gradients of dropped weights to 0: for training loops of one's own.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn mask_gradients(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| {
            let gradient = layer.weight.grad();
            if gradient.defined() { layer.zero(&gradient) } else { Ok(()) }
        })
    }

    /// Sets dropped weights to 0: for training loops of one's own.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn mask_weights(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| {
            let weight = layer.weight.detach();
            layer.zero(&weight)
        })
    }

    /// Sets the optimizer's memory of dropped weights (momentum, second moments) to 0, so that nothing from before the
    /// mask lingers.
    pub(crate) fn mask_state(&mut self, optimizer: &dyn Optimizer) -> Result<()> {
        for (name, tensor) in optimizer.state() {
            let owner = |layer: &&mut Layer| {
                let rest = name.strip_prefix(layer.name.as_str());
                rest.is_some_and(|rest| rest.starts_with('.')) && tensor.size() == layer.mask.shape()
            };
            if let Some(layer) = self.layers.iter_mut().find(owner) {
                layer.zero(&tensor)?;
            }
        }
        Ok(())
    }
}

impl Observer for MaskObserver {
    fn name(&self) -> &str {
        "mask"
    }

    fn before_epoch(&mut self, _progress: Progress, optimizer: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.mask_state(optimizer).map_err(refused)?;
        self.mask_weights().map_err(refused)
    }

    fn after_backward(&mut self, _step: &mut StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.mask_gradients().map_err(refused)
    }

    fn after_step(&mut self, _step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        self.mask_weights().map_err(refused)?;
        Ok(Control::Continue)
    }
}

/// The trainable variables of a store, unless one that a mask covers is frozen.
///
/// # Errors
/// [`Error::Mismatch`] for a masked variable that is frozen.
pub(crate) fn trainable(mask: &MaskSet, store: &nn::VarStore) -> Result<Vec<NamedTensor>> {
    let variables = store.variables();
    let frozen = |(name, _): &(&str, &Mask)| variables.get(*name).is_some_and(|variable| !variable.requires_grad());
    if let Some((name, _)) = mask.iter().find(frozen) {
        let found = "a frozen one, which `MaskSet::apply` masks for good";
        return Err(Error::mismatch(name, "a trainable variable", found));
    }
    Ok(trainable_variables(store))
}

fn refused(error: Error) -> core_tensor::Error {
    core_tensor::Error::Observer { observer: "mask".into(), source: Box::new(error) }
}

/// A weight and its mask in every memory layout met so far: usually one, two where gradients are laid out otherwise.
#[derive(Debug)]
struct Layer {
    name: String,
    mask: Mask,
    weight: Tensor,
    layouts: Vec<(Vec<i64>, Bits)>,
    /// Where the fused pass cannot go: another device, another kind, gaps between elements.
    dropped: Option<Tensor>,
}

impl Layer {
    fn new(name: &str, mask: &Mask, weight: Tensor) -> Self {
        Self { name: name.to_owned(), mask: mask.clone(), weight, layouts: Vec::new(), dropped: None }
    }

    fn zero(&mut self, tensor: &Tensor) -> Result<()> {
        let strides = tensor.stride();
        let known = self.layouts.iter().position(|(known, _)| *known == strides);
        let known = known.or_else(|| {
            let bits = laid_out(&self.mask, &dense_strides(tensor)?);
            self.layouts.push((strides.clone(), bits));
            Some(self.layouts.len() - 1)
        });
        if known.is_some_and(|known| zero_dropped(tensor, &strides, self.layouts[known].1.words())) {
            return Ok(());
        }
        if self.dropped.as_ref().is_none_or(|dropped| dropped.device() != tensor.device()) {
            self.dropped = Some(self.mask.to_tensor((Kind::Bool, tensor.device())).logical_not());
        }
        if let Some(dropped) = &self.dropped {
            let _ = no_grad(|| tensor.shallow_clone().f_masked_fill_(dropped, 0.0))?;
        }
        Ok(())
    }
}

/// A mask's bits in the order in which a tensor with these strides lies in memory.
fn laid_out(mask: &Mask, strides: &[i64]) -> Bits {
    let mut axes: Vec<usize> = (0..strides.len()).collect();
    axes.sort_by_key(|axis| std::cmp::Reverse(strides[*axis]));
    // Row by row is how the mask is stored, and how most weights lie.
    if axes.is_sorted() {
        return mask.bits().clone();
    }
    let shape = mask.shape();
    // Where each axis steps in row-major order, which is how the mask is stored.
    let mut steps = vec![1_usize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * shape[axis + 1] as usize;
    }
    let sizes: Vec<(usize, usize)> = axes.iter().map(|axis| (shape[*axis] as usize, steps[*axis])).collect();
    Bits::from_bools((0..mask.weights()).map(|place| {
        let (mut rest, mut index) = (place, 0);
        for (size, step) in sizes.iter().rev() {
            index += rest % size * step;
            rest /= size;
        }
        mask.bits().get(index)
    }))
}

#[cfg(test)]
pub(crate) mod tests;
