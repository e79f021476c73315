//! Numbers of tensors as slices, and room to work in.

use crate::invariance::{Error, Result};
use std::mem::MaybeUninit;
use tch::{Device, Kind, Tensor};

/// Memory of one thread, kept from one piece of work to the next.
#[derive(Default)]
pub(in super::super) struct Room([Vec<f32>; 2]);

impl Room {
    /// So many numbers each, whatever they are.
    pub(super) fn of(&mut self, sizes: [usize; 2]) -> [&mut [f32]; 2] {
        let [first, second] = &mut self.0;
        [(first, sizes[0]), (second, sizes[1])].map(|(room, size)| {
            if room.len() < size {
                room.resize(size, 0.0);
            }
            &mut room[..size]
        })
    }
}

/// A tensor's numbers in the order of memory.
pub(super) fn numbers(tensor: &Tensor) -> Result<&[f32]> {
    check(tensor)?;
    if tensor.numel() == 0 {
        return Ok(&[]);
    }
    // SAFETY: `numel` numbers of this kind lie one after the other from `data_ptr` on, and live as long as the tensor that the
    // slice borrows from. Nobody writes to them: libtorch's operations run in between, never at the same time.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// A tensor's memory, to be written.
pub(super) fn unwritten(tensor: &mut Tensor) -> Result<&mut [MaybeUninit<f32>]> {
    check(tensor)?;
    if tensor.numel() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as above; the tensors that come here were made a moment ago and are known to their maker alone, who gives each of its
    // threads a part of its own.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}

fn check(tensor: &Tensor) -> Result<()> {
    if tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous() {
        return Ok(());
    }
    let found = format!("{:?} on {:?}", tensor.kind(), tensor.device());
    Err(Error::shape("map", "contiguous single precision on the CPU", found))
}
