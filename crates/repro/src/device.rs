//! Where tensors live.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The device that was asked for: `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor, one thread a worker.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

/// What of a device decides the numbers: which GPU it was does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Processor.
    Cpu,
    /// Any CUDA GPU.
    Cuda,
}

impl Device {
    /// The part that belongs into a run's description.
    pub fn kind(self) -> DeviceKind {
        match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Cuda(_) => DeviceKind::Cuda,
        }
    }

    /// Asked before hours are planned on it.
    ///
    /// # Errors
    /// A GPU that libtorch does not see: there is none of this number, or libtorch is not built or loaded for CUDA.
    pub fn check(self) -> Result<(), Error> {
        let seen = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        match self {
            Self::Cuda(index) if index >= seen => {
                Err(Error::setting("device", format!("one of the {seen} GPUs that libtorch sees"), format!("`{self}`")))
            }
            Self::Cpu | Self::Cuda(_) => Ok(()),
        }
    }
}

impl From<Device> for tch::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(index) => Self::Cuda(index),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::setting("device", "`cpu` or `cuda:N`", format!("`{text}`"));
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_refused() {
        Device::Cpu.check().unwrap();
        for index in [1000, usize::MAX] {
            let error = Device::Cuda(index).check().unwrap_err().to_string();
            assert!(error.contains("GPUs that libtorch sees") && error.contains(&format!("cuda:{index}")), "{error}");
        }
    }

    #[test]
    fn devices_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "CPU"] {
            let error = bad.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("`cpu` or `cuda:N`"), "{error}");
        }
    }
}
