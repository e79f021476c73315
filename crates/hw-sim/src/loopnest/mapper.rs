//! Mappings whose tiles change at level boundaries, their cost, and the search over them.
//!
//! A mapping splits each loop over the memory levels and over the two axes of the array. Loops of a level fall into
//! three groups that leave one operand alone each: N, Y, X the weight, K the input, C, R, S the output. Only the order
//! of the groups matters to the counts, so the search orders groups, not loops. Small spaces are enumerated; larger ones
//! are sampled with a seed. Results do not depend on the number of threads.

mod array;
mod cost;
mod count;
mod mapping;
mod problem;
mod search;
mod space;

pub use mapping::{Factors, Mapping};

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::cost::LayerCost;
use crate::engine::{Activity, priced, side, unit_energy, width};
use crate::error::HwError;
use crate::task::Task;
use problem::Problem;

/// A `rows × cols` array under any memory levels, mapped by search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopNestEngine {
    /// Rows of processing elements.
    pub rows: u64,
    /// Columns of processing elements.
    pub cols: u64,
    /// Levels from this index on lie in each element; those before are shared.
    pub first_private_level: usize,
    /// Bits of partial sums on chip.
    pub partial_sum_bits: u8,
    /// Energy of moving one bit into or between elements, in pJ.
    #[serde(default)]
    pub hop_pj_per_bit: f64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
    /// What to minimise.
    #[serde(default)]
    pub objective: Objective,
    /// Mappings to try a layer; a space that is no larger is enumerated instead.
    #[serde(default = "ten_thousand")]
    pub candidates: usize,
    /// Seed of the sampling.
    #[serde(default)]
    pub seed: u64,
}

fn ten_thousand() -> usize {
    10_000
}

/// What a mapping is chosen for; ties are broken by the other quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Fewest cycles.
    #[default]
    Cycles,
    /// Least energy.
    Energy,
    /// Least product of both, by the energy that [`NetworkCost`](crate::NetworkCost) has: MACs and static energy included.
    EnergyDelay,
}

impl LoopNestEngine {
    pub(crate) fn validate(&self) -> Result<(), HwError> {
        side("loop_nest", &[("rows", self.rows), ("cols", self.cols)])?;
        width("loop_nest", "multiplier_bits", self.multiplier_bits)?;
        width("loop_nest", "partial_sum_bits", self.partial_sum_bits)?;
        if self.first_private_level == 0 {
            return Err(HwError::field("engine loop_nest", "first_private_level", "at least 1: DRAM is shared", 0));
        }
        if !(1..=10_000_000).contains(&self.candidates) {
            return Err(HwError::field("engine loop_nest", "candidates", "1 to 10 000 000", self.candidates));
        }
        unit_energy("loop_nest", "hop_pj_per_bit", self.hop_pj_per_bit)
    }

    /// The best mapping of a task.
    ///
    /// # Errors
    /// A machine or a task that does not validate, or a task that fits no mapping.
    pub fn map(&self, accelerator: &Accelerator, task: &Task) -> Result<Mapping, HwError> {
        let problem = self.checked(accelerator, task)?;
        Ok(problem.describe(&problem.search(&task.name)?))
    }

    /// What a task costs with a given mapping: one found before, or written by hand.
    ///
    /// # Errors
    /// A machine or a task that does not validate; a mapping of another number of levels, wider than the array, whose bounds cover a
    /// loop not at all or more than twice, whose loops over one operand's dimensions ([`Mapping`]) do not lie side by side, or with a
    /// tile that exceeds its level.
    pub fn cost_of(&self, accelerator: &Accelerator, task: &Task, mapping: &Mapping) -> Result<LayerCost, HwError> {
        let problem = self.checked(accelerator, task)?;
        let counts = problem.counts_of(&task.name, mapping)?;
        priced(accelerator, task, problem.activity(&counts))
    }

    /// The mapping that everything is compared with: each loop at DRAM, tiles of one word, the array filled.
    ///
    /// # Errors
    /// A machine or a task that does not validate, or a level that does not hold one word of each operand.
    pub fn default_cycles(&self, accelerator: &Accelerator, task: &Task) -> Result<u64, HwError> {
        let problem = self.checked(accelerator, task)?;
        let factors = problem.trivial();
        let counts = problem.count(&factors).ok_or_else(|| problem.no_fit(&task.name))?;
        Ok(problem.cycles_and_energy(&counts).0)
    }

    /// The problem of parts that nobody has checked yet.
    fn checked<'a>(&'a self, accelerator: &'a Accelerator, task: &Task) -> Result<Problem<'a>, HwError> {
        accelerator.validate()?;
        self.validate()?;
        task.validate()?;
        Problem::new(self, accelerator, task)
    }

    pub(crate) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Result<Activity, HwError> {
        let problem = Problem::new(self, accelerator, task)?;
        let factors = problem.search(&task.name)?;
        let counts = problem.count(&factors).ok_or_else(|| problem.no_fit(&task.name))?;
        Ok(problem.activity(&counts))
    }
}

#[cfg(test)]
mod tests;
