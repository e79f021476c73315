//! An accelerator as plain data: an engine, its memory levels, the energy of a MAC, a clock. Read from TOML.

use core_tensor::workload::{Pass, Workload};
use serde::{Deserialize, Serialize};

use crate::cost::NetworkCost;
use crate::engine::{Engine, MAX_PJ, price};
use crate::error::HwError;
use crate::task::{OperandKind, Task};

/// A description that every layer can be priced on.
///
/// ```
/// use hw_sim::{Accelerator, networks};
///
/// let tpu = Accelerator::preset("tpu-like")?;
/// let resnet = networks::with_bits(networks::builtin("resnet18")?, [8, 8, 8]);
/// let cost = tpu.cost(&resnet)?;
/// assert!(cost.latency_ms() > 0.0 && cost.utilisation() <= 1.0);
/// # Ok::<(), hw_sim::HwError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// A name for reports.
    pub name: String,
    /// Where the organisation comes from, and how well it is known.
    pub source: String,
    /// Cycles per microsecond, 1e-6 to 1e9.
    pub clock_mhz: f64,
    /// Energy of an idle cycle, in pJ; as all energies here, 0 to 1e12.
    #[serde(default)]
    pub static_pj_per_cycle: f64,
    /// What computes.
    pub engine: Engine,
    /// Memory levels, outermost (DRAM) first.
    pub memory: Vec<MemoryLevel>,
    /// Energy of one MAC by operand widths.
    pub mac_energy: Vec<MacEnergy>,
}

/// One memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLevel {
    /// A name for reports, such as `dram`.
    pub name: String,
    /// What it holds; an operand that is not held passes by.
    #[serde(default = "everything")]
    pub holds: Vec<OperandKind>,
    /// Bytes; absent for a level that never fills, as the outermost never does.
    #[serde(default)]
    pub capacity_bytes: Option<u64>,
    /// Bits a cycle to the next level in; absent where it never limits.
    #[serde(default)]
    pub bandwidth_bits: Option<u64>,
    /// Whether half of it is being filled while the other half is used.
    #[serde(default = "yes")]
    pub double_buffered: bool,
    /// Bits of the access that `read_pj` and `write_pj` are given for.
    pub access_bits: u32,
    /// Energy of reading `access_bits`, in pJ.
    pub read_pj: f64,
    /// Energy of writing `access_bits`, in pJ.
    pub write_pj: f64,
    /// Where the energies come from.
    pub source: String,
}

/// Energy of a MAC at one pair of operand widths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacEnergy {
    /// Input and weight bits.
    pub bits: [u8; 2],
    /// In pJ.
    pub pj: f64,
    /// Where it comes from.
    pub source: String,
}

fn everything() -> Vec<OperandKind> {
    OperandKind::ALL.to_vec()
}

fn yes() -> bool {
    true
}

/// The presets: name and file.
const PRESETS: [(&str, &str); 11] = [
    ("eyeriss-like", include_str!("../presets/eyeriss-like.toml")),
    ("eyeriss-mapped", include_str!("../presets/eyeriss-mapped.toml")),
    ("tpu-like", include_str!("../presets/tpu-like.toml")),
    ("diannao-like", include_str!("../presets/diannao-like.toml")),
    ("scnn-like", include_str!("../presets/scnn-like.toml")),
    ("cambricon-x-like", include_str!("../presets/cambricon-x-like.toml")),
    ("bit-pragmatic-like", include_str!("../presets/bit-pragmatic-like.toml")),
    ("bitfusion-like", include_str!("../presets/bitfusion-like.toml")),
    ("bitfusion-training", include_str!("../presets/bitfusion-training.toml")),
    ("stripes-like", include_str!("../presets/stripes-like.toml")),
    ("smartdeal", include_str!("../presets/smartdeal.toml")),
];

impl Accelerator {
    /// Names of the built-in descriptions.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|&(name, _)| name)
    }

    /// The TOML text of a built-in description, with its comments.
    ///
    /// # Errors
    /// A name that is not among [`Accelerator::presets`].
    pub fn preset_text(name: &str) -> Result<&'static str, HwError> {
        PRESETS.iter().find(|&&(known, _)| known == name).map(|&(_, text)| text).ok_or_else(|| HwError::Unknown {
            kind: "accelerator",
            name: name.to_owned(),
            known: Self::presets().collect::<Vec<_>>().join(", "),
        })
    }

    /// A built-in description.
    ///
    /// # Errors
    /// A name that is not among [`Accelerator::presets`].
    pub fn preset(name: &str) -> Result<Self, HwError> {
        Self::from_toml(name, Self::preset_text(name)?)
    }

    /// Reads and checks a description; `file` names it in errors.
    ///
    /// # Errors
    /// Line and column of what does not parse, or the field that makes no sense.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, HwError> {
        let accelerator: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..start).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            HwError::Parse {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                column: start - line_start + 1,
                message: error.message().to_owned(),
            }
        })?;
        accelerator.validate()?;
        Ok(accelerator)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn validate(&self) -> Result<(), HwError> {
        let fail = |field: &str, expected: &str, found: String| {
            Err(HwError::field(format!("accelerator `{}`", self.name), field, expected, found))
        };
        // Beyond these bounds, sums over 64-bit counts would not stay finite.
        if !(1e-6..=1e9).contains(&self.clock_mhz) {
            return fail("clock_mhz", "1e-6 to 1e9", self.clock_mhz.to_string());
        }
        let payable = |pj: f64| (0.0..=MAX_PJ).contains(&pj);
        if !payable(self.static_pj_per_cycle) {
            return fail("static_pj_per_cycle", "0 to 1e12 pJ", self.static_pj_per_cycle.to_string());
        }
        if self.memory.is_empty() || self.memory.len() > 8 {
            return fail("memory", "1 to 8 levels, outermost first", format!("{} levels", self.memory.len()));
        }
        for (index, level) in self.memory.iter().enumerate() {
            let field = |name: &str| format!("memory `{}` {name}", level.name);
            if index == 0 && level.holds.len() != 3 {
                return fail(&field("holds"), "the outermost level holds everything", format!("{:?}", level.holds));
            }
            if let Some(bytes) = level.capacity_bytes.filter(|_| index == 0) {
                return fail(&field("capacity_bytes"), "none: the outermost level never fills", bytes.to_string());
            }
            let distinct = level.holds.iter().collect::<std::collections::BTreeSet<_>>().len();
            if distinct == 0 || distinct != level.holds.len() {
                return fail(&field("holds"), "each operand at most once, at least one", format!("{:?}", level.holds));
            }
            if level.capacity_bytes.is_some_and(|bytes| !(1..=1 << 50).contains(&bytes)) {
                return fail(&field("capacity_bytes"), "1 to 2^50", format!("{:?}", level.capacity_bytes));
            }
            if level.bandwidth_bits.is_some_and(|bits| !(1..=1 << 32).contains(&bits)) {
                return fail(&field("bandwidth_bits"), "1 to 2^32", format!("{:?}", level.bandwidth_bits));
            }
            if level.access_bits == 0 {
                return fail(&field("access_bits"), "at least 1", "0".into());
            }
            for (name, energy) in [("read_pj", level.read_pj), ("write_pj", level.write_pj)] {
                if !payable(energy) {
                    return fail(&field(name), "0 to 1e12 pJ", energy.to_string());
                }
            }
        }
        if self.mac_energy.is_empty() {
            return fail("mac_energy", "at least one entry", "none".into());
        }
        for entry in &self.mac_energy {
            if !payable(entry.pj) || entry.bits.iter().any(|bits| !(1..=32).contains(bits)) {
                let found = format!("{:?}: {}", entry.bits, entry.pj);
                return fail("mac_energy", "bits 1 to 32, 0 to 1e12 pJ", found);
            }
        }
        self.engine.validate(self)
    }

    /// Energy of one MAC, in pJ: the cheapest entry that is wide enough for both operands or, where none is, the cheapest once
    /// each is scaled by the product of the widths it lacks.
    pub fn mac_pj(&self, input_bits: u8, weight_bits: u8) -> f64 {
        let wide_enough = |entry: &&MacEnergy| entry.bits[0] >= input_bits && entry.bits[1] >= weight_bits;
        let covering = self.mac_energy.iter().filter(wide_enough).map(|entry| entry.pj).min_by(f64::total_cmp);
        covering.unwrap_or_else(|| {
            let scaled = self.mac_energy.iter().map(|entry| {
                let missing = |bits: u8, have: u8| (f64::from(bits) / f64::from(have)).max(1.0);
                entry.pj * missing(input_bits, entry.bits[0]) * missing(weight_bits, entry.bits[1])
            });
            scaled.min_by(f64::total_cmp).unwrap_or(0.0)
        })
    }

    /// Inference of a workload.
    ///
    /// # Errors
    /// A workload without layers or one that does not validate, or a layer that the engine cannot run.
    pub fn cost(&self, workload: &Workload) -> Result<NetworkCost, HwError> {
        self.cost_of(workload, &[Pass::Forward])
    }

    /// The given passes of a workload; [`Pass::TRAINING`] is a training step.
    ///
    /// # Errors
    /// As [`cost`](Self::cost).
    pub fn cost_of(&self, workload: &Workload, passes: &[Pass]) -> Result<NetworkCost, HwError> {
        has_layers(workload)?;
        self.cost_tasks(&workload.name, &Task::of_workload(workload, passes)?)
    }

    /// Tasks that were prepared by the caller, with measured storage for example; none cost nothing.
    ///
    /// # Errors
    /// A task that does not validate, or that the engine cannot run.
    pub fn cost_tasks(&self, network: &str, tasks: &[Task]) -> Result<NetworkCost, HwError> {
        self.validate()?;
        let priced = |task: &Task| task.validate().and_then(|()| price(self, task));
        let layers = tasks.iter().map(priced).collect::<Result<_, _>>()?;
        Ok(NetworkCost {
            accelerator: self.name.clone(),
            network: network.to_owned(),
            clock_mhz: self.clock_mhz,
            levels: self.memory.iter().map(|level| level.name.clone()).collect(),
            layers,
        })
    }
}

/// A network without layers costs nothing anywhere: more likely it was not recorded than meant.
pub(crate) fn has_layers(network: &Workload) -> Result<(), HwError> {
    if network.layers.is_empty() {
        return Err(HwError::field(format!("network `{}`", network.name), "layers", "at least 1", 0));
    }
    Ok(())
}

impl MemoryLevel {
    /// Bits that one tile may take for an operand: the level's share for it, half of that when double-buffered.
    /// A level's capacity is split evenly over the operands it holds.
    pub fn tile_bits(&self) -> u64 {
        let Some(bytes) = self.capacity_bytes else { return u64::MAX };
        let halves = if self.double_buffered { 2 } else { 1 };
        bytes.saturating_mul(8) / (halves * self.holds.len().max(1) as u64)
    }

    /// Whether the level holds an operand.
    pub fn holds(&self, operand: OperandKind) -> bool {
        self.holds.contains(&operand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_layers_has_no_cost_and_no_tasks_cost_nothing() {
        let (accelerator, empty) = (Accelerator::preset("tpu-like").unwrap(), Workload::new("empty", Vec::new()));
        for refused in [accelerator.cost(&empty), accelerator.cost_of(&empty, &Pass::TRAINING)] {
            assert_eq!(refused.unwrap_err().to_string(), "network `empty`: layers is 0, expected at least 1");
        }
        assert_eq!(accelerator.cost_tasks("empty", &[]).unwrap().energy_pj(), 0.0);
    }

    #[test]
    fn a_level_made_by_hand_offers_at_most_what_fits_64_bits() {
        let mut level = Accelerator::preset("diannao-like").unwrap().memory.remove(1);
        assert_eq!((level.holds.len(), level.tile_bits()), (2, 524_288 * 8 / 4));
        level.capacity_bytes = Some(u64::MAX);
        assert_eq!(level.tile_bits(), u64::MAX / 4);
    }

    #[test]
    fn a_mac_takes_the_cheapest_entry_that_is_wide_enough() {
        let mut accelerator = Accelerator::preset("diannao-like").unwrap();
        let entry = |bits, pj| MacEnergy { bits, pj, source: "chosen here".into() };
        accelerator.mac_energy = vec![entry([16, 16], 1.0), entry([8, 8], 0.25), entry([8, 16], 0.375)];
        let pj = |[input, weight]: [u8; 2]| accelerator.mac_pj(input, weight);
        assert_eq!([[8, 8], [2, 5], [8, 9], [9, 8], [16, 16]].map(pj), [0.25, 0.25, 0.375, 1.0, 1.0]);
        // None is: 1·2·1, 0.25·4·2 and 0.375·4·1; then 1·2·2, 0.25·4·4 and 0.375·4·2.
        assert_eq!([[32, 16], [32, 32]].map(pj), [1.5, 3.0]);
    }
}
