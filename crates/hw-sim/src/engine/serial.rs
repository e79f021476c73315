//! Engines that take operands bit by bit: Stripes, Loom and Bit-pragmatic.

use serde::{Deserialize, Serialize};

use super::{Activity, Flows, dense_bits, rounded_up, share, side, width};
use crate::accelerator::Accelerator;
use crate::error::HwError;
use crate::task::{OperandKind, Task};

/// Which operands are serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SerialOperands {
    /// Activations: cycles grow with their bits (Stripes, Judd et al., MICRO 2016).
    Activation,
    /// Both: cycles grow with the product of the bits (Loom, Sharify et al., DAC 2018).
    Both,
}

/// `filters × channels × windows` single-bit multipliers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitSerial {
    /// Filters at once.
    pub filters: u64,
    /// Input channels at once.
    pub channels: u64,
    /// Output pixels at once.
    pub windows: u64,
    /// Which operands are serial.
    pub serial: SerialOperands,
    /// Bits of the operand that is not serial; wider ones take several passes. A serial step is priced as its share of a
    /// MAC of this width.
    pub parallel_bits: u8,
}

/// Like [`BitSerial`] with serial activations, but only their non-zero bits cost a step; a group waits for its
/// slowest lane (Bit-pragmatic, Albericio et al., MICRO 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitPragmatic {
    /// Filters at once.
    pub filters: u64,
    /// Input channels at once.
    pub channels: u64,
    /// Output pixels at once.
    pub windows: u64,
    /// Share of one-bits in a non-zero activation; 1 makes the engine plain serial.
    pub essential_bits: f64,
    /// Bits of the weights; wider ones take several passes.
    pub parallel_bits: u8,
}

/// What the two engines share: a DianNao-shaped loop with windows besides.
struct Lanes {
    filters: u64,
    channels: u64,
    windows: u64,
}

impl Lanes {
    fn validate(&self, engine: &str) -> Result<(), HwError> {
        side(engine, &[("filters", self.filters), ("channels", self.channels), ("windows", self.windows)])
    }

    /// `steps` cycles a lane; a MAC burns the energy of `work` serial steps.
    fn activity(&self, accelerator: &Accelerator, task: &Task, steps: f64, work: f64, step_pj: f64) -> Activity {
        let shape = &task.shape;
        let groups = u128::from(shape.groups);
        let taps = groups * u128::from(shape.r * shape.s);
        let filter_groups = u128::from(shape.k.div_ceil(self.filters));
        let windows = u128::from(shape.pixels().div_ceil(self.windows));
        let tiles = taps * filter_groups * windows * u128::from(shape.c.div_ceil(self.channels));
        let macs = u128::from(shape.macs());
        let mut flows = Flows::new(accelerator);
        let pixels = u128::from(shape.pixels());
        flows.array(OperandKind::Input, taps * pixels * u128::from(shape.c) * filter_groups, 0, task.input.bits);
        let weight_reads = taps * windows * u128::from(shape.c) * u128::from(shape.k);
        flows.array(OperandKind::Weight, weight_reads, 0, task.weight.bits);
        flows.array(OperandKind::Output, 0, u128::from(shape.words[2]), task.output_bits);
        let lanes = self.filters as f64 * self.channels as f64 * self.windows as f64;
        let tile_bits = self.filters as u128 * self.channels as u128 * u128::from(task.weight.bits);
        Activity {
            compute_cycles: rounded_up(tiles as f64 * steps),
            peak_macs: lanes / steps.max(1.0),
            mac_pj: macs as f64 * work * step_pj,
            flows: flows.memory(task, dense_bits(task)),
            first_load_bits: tile_bits
                + u128::from(self.channels) * u128::from(self.windows) * u128::from(task.input.bits),
            last_store_bits: u128::from(self.filters) * u128::from(self.windows) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}

impl BitSerial {
    fn lanes(&self) -> Lanes {
        Lanes { filters: self.filters, channels: self.channels, windows: self.windows }
    }

    pub(super) fn validate(&self) -> Result<(), HwError> {
        self.lanes().validate("bit_serial")?;
        width("bit_serial", "parallel_bits", self.parallel_bits)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let steps = match self.serial {
            SerialOperands::Activation => {
                f64::from(task.input.bits) * f64::from(task.weight.bits.div_ceil(self.parallel_bits))
            }
            SerialOperands::Both => f64::from(task.input.bits) * f64::from(task.weight.bits),
        };
        let parallel = f64::from(self.parallel_bits);
        let steps_of_a_mac = match self.serial {
            SerialOperands::Activation => parallel,
            SerialOperands::Both => parallel * parallel,
        };
        let step_pj = accelerator.mac_pj(self.parallel_bits, self.parallel_bits) / steps_of_a_mac;
        self.lanes().activity(accelerator, task, steps, steps, step_pj)
    }
}

impl BitPragmatic {
    fn lanes(&self) -> Lanes {
        Lanes { filters: self.filters, channels: self.channels, windows: self.windows }
    }

    pub(super) fn validate(&self) -> Result<(), HwError> {
        self.lanes().validate("bit_pragmatic")?;
        share("bit_pragmatic", "essential_bits", self.essential_bits)?;
        width("bit_pragmatic", "parallel_bits", self.parallel_bits)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let bits = f64::from(task.input.bits);
        let ones = self.essential_bits * task.input.density;
        let mean = bits * ones;
        // The slowest of a window group's lanes, at least one step a group.
        let lanes = (self.channels * self.windows) as f64;
        let spread = (2.0 * lanes.ln() * mean * (1.0 - ones)).sqrt();
        let slowest = (mean + spread).clamp(1.0, bits);
        let passes = f64::from(task.weight.bits.div_ceil(self.parallel_bits));
        let step_pj = accelerator.mac_pj(self.parallel_bits, self.parallel_bits) / f64::from(self.parallel_bits);
        self.lanes().activity(accelerator, task, slowest * passes, mean * passes, step_pj)
    }
}
