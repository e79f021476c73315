//! Which weights a sub-network keeps.

mod file;
mod similarity;
mod variants;

pub(crate) use file::MaskLayout;
pub use file::MaskRecord;

use crate::bits::Bits;
use crate::memory::HostValues;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use core_tensor::checkpoint::LoadPolicy;
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor, no_grad};

/// The mask of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    shape: Vec<i64>,
    bits: Bits,
}

impl Mask {
    /// A mask given as a tensor of zeros and ones.
    ///
    /// # Errors
    /// [`Error::NotBinary`] for another entry.
    pub(crate) fn from_tensor(name: &str, tensor: &Tensor) -> Result<Self> {
        // In the tensor's own kind: as `f32`, 1e-60 would be 0.
        let neither = tensor.f_ne(0.0)?.f_logical_and(&tensor.f_ne(1.0)?)?.f_flatten(0, -1)?.f_nonzero()?;
        if neither.size()[0] > 0 {
            let index = neither.int64_value(&[0, 0]);
            let value = tensor.f_flatten(0, -1)?.f_double_value(&[index])?;
            return Err(Error::NotBinary { name: name.to_owned(), index: index as usize, value });
        }
        let host = HostValues::new(name, &tensor.f_to_kind(Kind::Float)?)?;
        let bits = Bits::from_bools(host.values().iter().map(|value| *value == 1.0));
        Ok(Self::new(tensor.size(), bits))
    }

    pub(crate) fn new(shape: Vec<i64>, bits: Bits) -> Self {
        debug_assert_eq!(shape.iter().product::<i64>(), bits.len() as i64);
        Self { shape, bits }
    }

    /// The tensor's shape.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Number of weights, kept or not.
    pub fn weights(&self) -> usize {
        self.bits.len()
    }

    /// Number of weights kept.
    pub fn survivors(&self) -> usize {
        self.bits.count_ones()
    }

    /// Share of the weights kept; 1 of none.
    pub fn density(&self) -> f64 {
        kept_share(self.survivors(), self.weights())
    }

    /// Whether the weight at a flat (row-major) index is kept; `None` beyond the end.
    pub fn keeps(&self, index: usize) -> Option<bool> {
        (index < self.weights()).then(|| self.bits.get(index))
    }

    /// The mask as zeros and ones of any kind, shaped as the tensor.
    pub fn to_tensor(&self, options: (Kind, Device)) -> Tensor {
        let bytes: Vec<u8> = self.bits.iter().map(u8::from).collect();
        Tensor::from_slice(&bytes).view(self.shape.as_slice()).to_kind(options.0).to_device(options.1)
    }

    pub(crate) fn bits(&self) -> &Bits {
        &self.bits
    }
}

/// Masks by tensor name, one bit a weight. The order of the names is the order in which pruning breaks ties: equal sets
/// have equal masks in the same order.
///
/// Names that are absent are not prunable; [`density`](Self::density) and [`sparsity`](Self::sparsity) count only what
/// is present, so two masks' sparsities compare only if they cover the same tensors.
///
/// ```
/// use lth::{Amount, MaskSet, Selector, criterion::{Criterion, Magnitude}};
/// use tch::Tensor;
/// let weights = [("fc.weight".to_owned(), Tensor::from_slice(&[3_f32, -1., 2., -2., 0.5, 1.]).view([2, 3]))];
/// let scores = Magnitude.score(&weights, None)?;
/// let mask = Selector::global().prune(&scores, Amount::Count(3), None)?;
/// assert_eq!(mask.sparsity(), 0.5);
/// assert_eq!(Vec::<i64>::try_from(mask["fc.weight"].to_tensor((tch::Kind::Int64, tch::Device::Cpu)).view(-1))?,
///            [1, 0, 1, 1, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Eq)]
pub struct MaskSet {
    layers: IndexMap<String, Mask>,
}

impl PartialEq for MaskSet {
    fn eq(&self, other: &Self) -> bool {
        // Maps would be equal in any order.
        self.layers.as_slice() == other.layers.as_slice()
    }
}

impl MaskSet {
    pub(crate) fn from_layers(layers: impl IntoIterator<Item = (String, Mask)>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    /// A mask that keeps everything.
    pub fn ones_like(tensors: &[NamedTensor]) -> Self {
        let ones = |(name, tensor): &NamedTensor| (name.clone(), Mask::new(tensor.size(), Bits::ones(tensor.numel())));
        Self::from_layers(tensors.iter().map(ones))
    }

    /// Masks given as tensors of zeros and ones. `torch.nn.utils.prune` calls them `{weight}_mask`; the suffix is taken
    /// off.
    ///
    /// # Errors
    /// [`Error::NotBinary`] for another entry, [`Error::Mismatch`] if two tensors mask the same weight.
    pub fn from_tensors(tensors: &[NamedTensor]) -> Result<Self> {
        let mut layers = IndexMap::new();
        for (name, tensor) in tensors {
            let mask = Mask::from_tensor(name, tensor)?;
            let weight = name.strip_suffix("_mask").unwrap_or(name);
            if layers.insert(weight.to_owned(), mask).is_some() {
                return Err(Error::mismatch(weight, "one mask", "two"));
            }
        }
        Ok(Self { layers })
    }

    /// The entries that are `torch.nn.utils.prune` masks (`…_mask`) in a state dict, as a mask set in the same order.
    /// Sort what a hash map holds: ties and seeded shuffles follow the order.
    ///
    /// # Errors
    /// As [`from_tensors`](Self::from_tensors); [`Error::NothingToPrune`] if there are none.
    pub fn from_state_dict<'a>(state: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> Result<Self> {
        let mut seen = 0;
        let masks: Vec<NamedTensor> = state
            .into_iter()
            .inspect(|_| seen += 1)
            .filter(|(name, _)| name.ends_with("_mask"))
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        if masks.is_empty() {
            return Err(Error::NothingToPrune { tensors: seen, predicate: "names ending in `_mask`".into() });
        }
        Self::from_tensors(&masks)
    }

    /// The same masks under a model's names: those of other code, translated as
    /// [`load_state`](core_tensor::checkpoint::load_state) translates its weights. Masks outside the policy's `select` or under
    /// its `drop` are left out.
    ///
    /// ```
    /// use core_tensor::checkpoint::{LoadPolicy, Rename};
    /// use lth::MaskSet;
    /// let theirs = ("module.blocks.1.shortcut.0.weight".to_owned(), tch::Tensor::from_slice(&[1_u8, 0]));
    /// let policy = LoadPolicy { rename: Rename::from_open_lth(1), ..LoadPolicy::strict() };
    /// let mask = MaskSet::from_tensors(&[theirs])?.renamed(&policy)?;
    /// assert!(mask.get("layer2.0.downsample.0.weight").is_some());
    /// # Ok::<(), lth::Error>(())
    /// ```
    ///
    /// # Errors
    /// A policy that is not valid, [`Error::Mismatch`] for two masks that get one name, [`Error::NothingToPrune`] if none is
    /// left.
    pub fn renamed(&self, policy: &LoadPolicy) -> Result<Self> {
        policy.validate()?;
        let mut layers = IndexMap::<String, (&str, &Mask)>::new();
        for (theirs, mask) in self.iter() {
            let dropped = |name: &String| policy.drop.iter().any(|prefix| name.starts_with(prefix.as_str()));
            let Some(ours) = policy.translate(theirs).filter(|name| !dropped(name)) else { continue };
            if let Some((other, _)) = layers.insert(ours.clone(), (theirs, mask)) {
                let found = format!("both `{other}` and `{theirs}`");
                return Err(Error::mismatch(ours, "one mask of that name", found));
            }
        }
        if layers.is_empty() {
            let predicate = "what the policy selects and does not drop".to_owned();
            return Err(Error::NothingToPrune { tensors: self.layers.len(), predicate });
        }
        Ok(Self::from_layers(layers.into_iter().map(|(ours, (_, mask))| (ours, mask.clone()))))
    }

    /// Names and masks in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Mask)> {
        self.layers.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// The mask of one tensor.
    pub fn get(&self, name: &str) -> Option<&Mask> {
        self.layers.get(name)
    }

    /// Number of weights, kept or not: the denominator of the sparsity.
    pub fn weights(&self) -> usize {
        self.layers.values().map(Mask::weights).sum()
    }

    /// Number of weights kept.
    pub fn survivors(&self) -> usize {
        self.layers.values().map(Mask::survivors).sum()
    }

    /// Share of the weights kept; 1 where there are none.
    pub fn density(&self) -> f64 {
        kept_share(self.survivors(), self.weights())
    }

    /// Share of the weights dropped, `1 − density`.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.density()
    }

    /// Share of the weights kept in each tensor.
    pub fn layer_densities(&self) -> IndexMap<String, f64> {
        self.layers.iter().map(|(name, mask)| (name.clone(), mask.density())).collect()
    }

    /// Sets the dropped weights of live tensors to exactly 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a masked tensor that is absent or of another shape; nothing is changed then.
    pub fn apply(&self, tensors: &[NamedTensor]) -> Result<()> {
        for (mask, mut tensor) in self.matched(tensors)? {
            let dropped = mask.to_tensor((Kind::Bool, tensor.device())).logical_not();
            let _ = no_grad(|| tensor.f_masked_fill_(&dropped, 0.0))?;
        }
        Ok(())
    }

    /// Each mask with the live tensor it belongs to.
    pub(crate) fn matched(&self, tensors: &[NamedTensor]) -> Result<Vec<(&Mask, Tensor)>> {
        self.iter()
            .map(|(name, mask)| {
                let shape = || format!("a tensor of shape {:?}", mask.shape);
                let found = tensors.iter().find(|(candidate, _)| candidate == name);
                let (_, tensor) = found.ok_or_else(|| Error::mismatch(name, shape(), "no such tensor"))?;
                if tensor.size() != mask.shape {
                    return Err(Error::mismatch(name, shape(), format!("{:?}", tensor.size())));
                }
                Ok((mask, tensor.shallow_clone()))
            })
            .collect()
    }

    /// The pairs of masks of the same tensors in two sets.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if one covers a tensor that the other does not, or with another shape.
    pub(crate) fn pairs<'a>(&'a self, other: &'a Self) -> Result<Vec<(&'a str, &'a Mask, &'a Mask)>> {
        if let Some((name, mask)) = other.iter().find(|(name, _)| self.get(name).is_none()) {
            return Err(Error::mismatch(name, "a mask in both sets", format!("{:?} in one only", mask.shape)));
        }
        self.iter()
            .map(|(name, mask)| {
                let shape = || format!("a mask of shape {:?}", mask.shape);
                let paired = other.get(name).ok_or_else(|| Error::mismatch(name, shape(), "none"))?;
                if paired.shape != mask.shape {
                    return Err(Error::mismatch(name, shape(), format!("{:?}", paired.shape)));
                }
                Ok((name, mask, paired))
            })
            .collect()
    }

    /// A SHA-256 over names, shapes and bits, in hexadecimal: equal for equal masks in the same order.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, mask) in self.iter() {
            hash.update(format!("{name}{:?}", mask.shape));
            hash.update(mask.bits.to_bytes());
        }
        hexadecimal(&hash.finalize())
    }
}

impl std::ops::Index<&str> for MaskSet {
    type Output = Mask;

    /// The mask of one tensor.
    ///
    /// # Panics
    /// If there is none; [`get`](MaskSet::get) does not panic.
    fn index(&self, name: &str) -> &Mask {
        &self.layers[name]
    }
}

/// Of no weights none is dropped.
pub(crate) fn kept_share(kept: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { kept as f64 / of as f64 }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
