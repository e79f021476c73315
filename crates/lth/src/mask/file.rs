//! Masks in files, one bit a weight.

use super::{Mask, MaskSet};
use crate::bits::Bits;
use crate::{Error, Prunable, Result};
use core_tensor::checkpoint::{Header, Metadata, SafetensorsFile, write_safetensors};
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

const SCHEMA: &str = "lth.mask";
const VERSION: u32 = 1;

/// Where a mask comes from. Travels with it in its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MaskRecord {
    /// What weights were ranked by, such as `magnitude`.
    pub criterion: String,
    /// Within what they were ranked, such as `global`.
    pub scope: String,
    /// Which tensors were prunable: the denominator, without which sparsities cannot be compared.
    pub prunable: Prunable,
    /// What identifies the training that was pruned, such as a run's hash.
    pub source: Option<String>,
}

impl MaskRecord {
    /// Whether the predicate that is the denominator in words allows every tensor that a mask covers.
    pub(crate) fn check(&self, mask: &MaskSet) -> Result<()> {
        match mask.iter().find(|(name, mask)| !self.prunable.allows(name, mask.shape.len())) {
            Some((name, mask)) => {
                let expected = format!("no mask where the record prunes {}", self.prunable);
                Err(Error::mismatch(name, expected, format!("one of shape {:?}", mask.shape)))
            }
            None => Ok(()),
        }
    }
}

/// The file's header: the record, and what the mask itself says, so that a reader need not unpack bits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MaskHeader {
    #[serde(flatten)]
    pub(crate) record: MaskRecord,
    #[serde(flatten)]
    pub(crate) layout: MaskLayout,
}

/// What unpacking needs, and the counts to check it against.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MaskLayout {
    /// Dropped share of the denominator.
    sparsity: f64,
    /// Weights in all masked tensors.
    denominator: usize,
    /// Tensors in order.
    layers: Vec<LayerLayout>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerLayout {
    name: String,
    shape: Vec<i64>,
    survivors: usize,
}

impl MaskSet {
    /// Writes the mask to a safetensors file, atomically, eight weights a byte. See `docs/formats/mask.md` for the
    /// layout and for how to read it in Python.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a masked tensor that the record's predicate does not choose, as far as its name and number of
    /// axes tell; what the disk refuses.
    pub fn save(&self, path: &Path, record: &MaskRecord) -> Result<()> {
        record.check(self)?;
        let header = MaskHeader { record: record.clone(), layout: self.layout() };
        let metadata = Header::new(SCHEMA, VERSION, header).to_metadata()?;
        Ok(write_safetensors(path, &self.packed(""), &metadata)?)
    }

    /// Reads back what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is not a mask, or whose bits, names, shapes, counts and predicate contradict each other.
    pub fn load(path: &Path) -> Result<(Self, MaskRecord)> {
        let mut file = SafetensorsFile::open(path)?;
        let header: MaskHeader = read_header(&file, path)?;
        let mask = Self::unpack(&mut file, "", &header.layout, path)?;
        if file.tensors().len() != mask.layers.len() {
            let found = format!("{} tensors for {} layers", file.tensors().len(), mask.layers.len());
            return Err(Error::file(path, found));
        }
        header.record.check(&mask).map_err(|error| Error::file(path, error.to_string()))?;
        Ok((mask, header.record))
    }

    pub(crate) fn layout(&self) -> MaskLayout {
        let layer = |(name, mask): (&str, &Mask)| LayerLayout {
            name: name.to_owned(),
            shape: mask.shape.clone(),
            survivors: mask.survivors(),
        };
        MaskLayout { sparsity: self.sparsity(), denominator: self.weights(), layers: self.iter().map(layer).collect() }
    }

    /// `{prefix}{name}` → `uint8 [⌈weights / 8⌉]`, the first weight in the lowest bit.
    pub(crate) fn packed(&self, prefix: &str) -> NamedTensors {
        let pack = |(name, mask): (&str, &Mask)| (format!("{prefix}{name}"), Tensor::from_slice(&mask.bits.to_bytes()));
        self.iter().map(pack).collect()
    }

    pub(crate) fn unpack(file: &mut SafetensorsFile, prefix: &str, layout: &MaskLayout, path: &Path) -> Result<Self> {
        let mut layers = Vec::with_capacity(layout.layers.len());
        for LayerLayout { name, shape, survivors } in &layout.layers {
            let refuse = |reason: String| Error::file(path, format!("mask `{name}`: {reason}"));
            let weights = checked_weights(shape).ok_or_else(|| refuse(format!("its shape is {shape:?}")))?;
            let packed = file.tensor(&format!("{prefix}{name}"))?;
            let expected = weights.div_ceil(8);
            if packed.kind() != Kind::Uint8 || packed.size() != [expected as i64] {
                let found = format!("{:?} of shape {:?}", packed.kind(), packed.size());
                return Err(refuse(format!("expected {expected} bytes for shape {shape:?}, found {found}")));
            }
            let bytes = Vec::<u8>::try_from(&packed)?;
            let bits = Bits::from_bytes(weights, &bytes).ok_or_else(|| refuse("bits are set beyond its end".into()))?;
            let mask = Mask::new(shape.clone(), bits);
            if mask.survivors() != *survivors {
                return Err(refuse(format!("expected {survivors} survivors, found {}", mask.survivors())));
            }
            layers.push((name.clone(), mask));
        }
        let mask = Self::from_layers(layers);
        if mask.layers.len() != layout.layers.len() {
            return Err(Error::file(path, "a tensor is masked twice"));
        }
        let (weights, dropped) = (mask.weights(), mask.weights() - mask.survivors());
        if layout.denominator != weights {
            let found = format!("its denominator is {}, its layers have {weights} weights", layout.denominator);
            return Err(Error::file(path, found));
        }
        // To the weight: writers may round.
        let said = layout.sparsity * weights as f64;
        if (said - dropped as f64).abs() >= 0.5 || !(0.0..=1.0).contains(&layout.sparsity) {
            let found = format!("its sparsity is {}, its bits drop {dropped} of {weights}", layout.sparsity);
            return Err(Error::file(path, found));
        }
        Ok(mask)
    }
}

fn read_header(file: &SafetensorsFile, path: &Path) -> Result<MaskHeader> {
    let metadata: &Metadata = file.metadata();
    Ok(Header::from_metadata(metadata, SCHEMA, VERSION, path)?.content)
}

/// The number of weights of a shape, unless a size is negative or the product of the others than 0 overflows.
fn checked_weights(shape: &[i64]) -> Option<usize> {
    if shape.iter().any(|size| *size < 0) {
        return None;
    }
    let mut sizes = shape.iter().filter(|size| **size != 0);
    let product = sizes.try_fold(1_i64, |product, size| product.checked_mul(*size))?;
    usize::try_from(if shape.contains(&0) { 0 } else { product }).ok()
}
