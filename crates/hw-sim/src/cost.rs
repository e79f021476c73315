//! What a network costs: cycles, traffic and energy, a layer at a time and in total.

use core_tensor::workload::{Pass, Role};
use serde::{Deserialize, Serialize};

use crate::task::OperandKind;

/// One operand at one memory level over one pass of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Index into [`NetworkCost::levels`], 0 outermost.
    pub level: usize,
    /// Which operand.
    pub operand: OperandKind,
    /// Words read from the level.
    pub reads: u64,
    /// Words written to the level.
    pub writes: u64,
    /// Bits read from the level, indices of compressed formats included.
    pub read_bits: u64,
    /// Bits written to the level.
    pub write_bits: u64,
    /// Energy of these accesses, in pJ.
    pub energy_pj: f64,
}

/// One pass of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// Which pass.
    pub pass: Pass,
    /// The network's own layer, or a method's control.
    pub role: Role,
    /// Dense multiply-accumulates.
    pub macs: u64,
    /// Cycles in which the array works.
    pub compute_cycles: u64,
    /// Cycles in which it waits for memory.
    pub stall_cycles: u64,
    /// Dense MACs, padding's among them, over what the array could do in all cycles at these widths; skipping zeros can
    /// exceed 1.
    pub utilisation: f64,
    /// Energy of multiplying and accumulating, in pJ.
    pub mac_pj: f64,
    /// Energy of moving words between processing elements, in pJ.
    pub network_pj: f64,
    /// Energy of rebuilding compressed weights, in pJ.
    pub rebuild_pj: f64,
    /// Energy that flows whether or not anything happens, in pJ.
    pub static_pj: f64,
    /// Every operand at every level that it passes.
    pub traffic: Vec<Traffic>,
}

impl LayerCost {
    /// Compute and stall cycles.
    pub fn cycles(&self) -> u64 {
        self.compute_cycles.saturating_add(self.stall_cycles)
    }

    /// All components, in pJ.
    pub fn energy_pj(&self) -> f64 {
        self.mac_pj + self.network_pj + self.rebuild_pj + self.static_pj + self.memory_pj()
    }

    /// Energy of all memory levels, in pJ.
    pub fn memory_pj(&self) -> f64 {
        self.traffic.iter().map(|traffic| traffic.energy_pj).sum()
    }

    /// Bits read and written at a level.
    pub fn level_bits(&self, level: usize) -> u64 {
        let here = self.traffic.iter().filter(|traffic| traffic.level == level);
        here.fold(0, |total, traffic| total.saturating_add(traffic.read_bits).saturating_add(traffic.write_bits))
    }
}

/// A named share of the energy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// `mac`, `network`, `rebuild`, `static`, or a level and operand such as `dram weight`.
    pub name: String,
    /// In pJ.
    pub energy_pj: f64,
}

/// A network on an accelerator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkCost {
    /// The accelerator's name.
    pub accelerator: String,
    /// The network's name.
    pub network: String,
    /// Cycles per microsecond.
    pub clock_mhz: f64,
    /// Names of the memory levels, outermost first.
    pub levels: Vec<String>,
    /// Every pass of every layer.
    pub layers: Vec<LayerCost>,
}

impl NetworkCost {
    /// Cycles of all layers, one after the other.
    pub fn cycles(&self) -> u64 {
        self.layers.iter().fold(0, |total, layer| total.saturating_add(layer.cycles()))
    }

    /// Cycles in which the array waits.
    pub fn stall_cycles(&self) -> u64 {
        self.layers.iter().fold(0, |total, layer| total.saturating_add(layer.stall_cycles))
    }

    /// Dense MACs.
    pub fn macs(&self) -> u64 {
        self.layers.iter().fold(0, |total, layer| total.saturating_add(layer.macs))
    }

    /// Energy of all layers, in pJ.
    pub fn energy_pj(&self) -> f64 {
        self.layers.iter().map(LayerCost::energy_pj).sum()
    }

    /// Time of all layers, in ms.
    pub fn latency_ms(&self) -> f64 {
        self.cycles() as f64 / (self.clock_mhz * 1e3)
    }

    /// Energy times latency, in µJ·ms.
    pub fn energy_delay(&self) -> f64 {
        self.energy_pj() * 1e-6 * self.latency_ms()
    }

    /// Utilisation over all cycles.
    pub fn utilisation(&self) -> f64 {
        let cycles = self.cycles() as f64;
        let busy: f64 = self.layers.iter().map(|layer| layer.utilisation * layer.cycles() as f64).sum();
        if cycles > 0.0 { busy / cycles } else { 0.0 }
    }

    /// Bits read and written at a level.
    pub fn level_bits(&self, level: usize) -> u64 {
        self.layers.iter().fold(0, |total, layer| total.saturating_add(layer.level_bits(level)))
    }

    /// Energy by component over all layers; they add up to [`NetworkCost::energy_pj`].
    pub fn components(&self) -> Vec<Component> {
        let sum = |name: &str, part: fn(&LayerCost) -> f64| Component {
            name: name.to_owned(),
            energy_pj: self.layers.iter().map(part).sum(),
        };
        let mut components = vec![
            sum("mac", |layer| layer.mac_pj),
            sum("network", |layer| layer.network_pj),
            sum("rebuild", |layer| layer.rebuild_pj),
            sum("static", |layer| layer.static_pj),
        ];
        for (level, name) in self.levels.iter().enumerate() {
            for operand in OperandKind::ALL {
                let traffic = self.layers.iter().flat_map(|layer| &layer.traffic);
                let here = traffic.filter(|traffic| traffic.level == level && traffic.operand == operand);
                let energy_pj: f64 = here.map(|traffic| traffic.energy_pj).sum();
                components.push(Component { name: format!("{name} {}", operand.name()), energy_pj });
            }
        }
        components.retain(|component| component.energy_pj != 0.0);
        components
    }
}
