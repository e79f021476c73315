//! Storages, and tensors as views into them.

use std::sync::Arc;

use tch::Kind;

use super::PickleLimits;

/// Libtorch's own limit.
const MOST_DIMENSIONS: usize = 64;

/// Elements of one kind in one member of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StorageRef {
    pub(super) key: Arc<str>,
    pub(super) kind: Kind,
    pub(super) elements: i64,
}

/// Where a tensor lies: a view into a storage. It has been checked to stay inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRef {
    storage: StorageRef,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl TensorRef {
    /// A view, or why it is impossible.
    pub(super) fn new(
        storage: StorageRef,
        offset: i64,
        shape: Vec<i64>,
        strides: Vec<i64>,
        limits: &PickleLimits,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
            let (dimensions, steps) = (shape.len(), strides.len());
            return Err(format!("a tensor of {dimensions} dimensions and {steps} strides"));
        }
        let impossible = || format!("a tensor of shape {shape:?}, strides {strides:?} and offset {offset}");
        if offset < 0 || shape.iter().chain(&strides).any(|&number| number < 0) {
            return Err(impossible());
        }
        let mut elements = 1_i64;
        let mut last = offset;
        for (&dimension, &stride) in shape.iter().zip(&strides) {
            // An empty dimension does not excuse the others: their strides must still be possible.
            elements = elements.checked_mul(dimension.max(1)).ok_or_else(impossible)?;
            let reach = (dimension - 1).max(0).checked_mul(stride).ok_or_else(impossible)?;
            last = last.checked_add(reach).ok_or_else(impossible)?;
        }
        let bytes = elements.checked_mul(storage.kind.elt_size_in_bytes() as i64).ok_or_else(impossible)?;
        let is_empty = shape.contains(&0);
        if (is_empty && offset > storage.elements) || (!is_empty && last >= storage.elements) {
            return Err(format!("{} reaches behind its storage of {} elements", impossible(), storage.elements));
        }
        if elements > storage.elements && bytes as u64 > limits.expanded_bytes {
            return Err(format!(
                "{} repeats its storage to {bytes} bytes, more than the limit of {}",
                impossible(),
                limits.expanded_bytes
            ));
        }
        Ok(Self { storage, offset, shape, strides })
    }

    /// The kind of its elements.
    pub fn kind(&self) -> Kind {
        self.storage.kind
    }

    /// Its shape; empty for a scalar.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Its strides, in elements.
    pub fn strides(&self) -> &[i64] {
        &self.strides
    }

    /// Its first element in the storage.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The name of the storage; tensors that share it share memory.
    pub fn storage(&self) -> &str {
        &self.storage.key
    }

    /// Elements of the whole storage.
    pub(super) fn storage_elements(&self) -> i64 {
        self.storage.elements
    }
}
