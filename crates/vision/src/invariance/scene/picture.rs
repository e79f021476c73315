//! A picture: the values of an object, of a background or of a photograph.

use crate::invariance::{Error, Result};
use tch::{Kind, Tensor};

/// A picture in `[channels, height, width]`, values as the network's data set has them before normalisation (0 to 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub(super) channels: usize,
    pub(super) size: [usize; 2],
    pub(super) values: Vec<f32>,
}

impl Picture {
    /// Values channel by channel, row by row.
    ///
    /// # Errors
    /// An empty size, or another number of values.
    pub fn new(channels: usize, size: [usize; 2], values: Vec<f32>) -> Result<Self> {
        let expected = size[0].checked_mul(size[1]).and_then(|pixels| pixels.checked_mul(channels));
        if values.is_empty() || expected != Some(values.len()) {
            let found = format!("{} values", values.len());
            return Err(Error::shape("picture", format!("{channels} × {size:?} values, at least one"), found));
        }
        Ok(Self { channels, size, values })
    }

    /// From a tensor `[channels, height, width]`, any kind.
    ///
    /// # Errors
    /// Another number of dimensions.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let size = tensor.size();
        let &[channels, height, width] = size.as_slice() else {
            return Err(Error::shape("picture", "[channels, height, width]", format!("{size:?}")));
        };
        Self::new(channels as usize, [height as usize, width as usize], floats(tensor)?)
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Values channel by channel, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Resized bilinearly with anti-aliasing, aspect ratio not kept.
    ///
    /// # Errors
    /// An empty size.
    pub fn resized(&self, size: [usize; 2]) -> Result<Self> {
        if size.contains(&0) {
            return Err(Error::setting("size", "sides of at least 1", format!("{size:?}")));
        }
        let tensor = Tensor::f_from_slice(&self.values)?.f_view([
            1,
            self.channels as i64,
            self.size[0] as i64,
            self.size[1] as i64,
        ])?;
        let small = tensor.f_internal_upsample_bilinear2d_aa([size[0] as i64, size[1] as i64], false, None, None)?;
        Self::from_tensor(&small.f_squeeze_dim(0)?)
    }
}

/// A tensor's values as 32-bit floats, in order.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_values_is_refused() {
        assert!(Picture::new(1, [2, 2], vec![0.0; 3]).is_err());
        assert!(Picture::new(1, [0, 2], Vec::new()).is_err());
        assert!(Picture::new(2, [usize::MAX, 2], vec![0.0; 4]).is_err());
    }
}
