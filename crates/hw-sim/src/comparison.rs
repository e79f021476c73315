//! Accelerators × networks with ratios to a baseline, and sweeps with their Pareto front.

use core_tensor::workload::{Pass, Workload};
use serde::{Deserialize, Serialize};

use crate::accelerator::{Accelerator, has_layers};
use crate::engine::price;
use crate::error::HwError;
use crate::networks::{with_bits, with_densities};
use crate::parallel::try_map;
use crate::sram::Growth;
use crate::task::Task;

/// One network on one accelerator, set beside the baseline accelerator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The accelerator.
    pub accelerator: String,
    /// The network.
    pub network: String,
    /// Cycles.
    pub cycles: u64,
    /// Milliseconds.
    pub latency_ms: f64,
    /// Energy, in pJ.
    pub energy_pj: f64,
    /// Bits across DRAM.
    pub dram_bits: u64,
    /// Share of the energy that DRAM takes; 0 of none.
    pub dram_energy_share: f64,
    /// The baseline's latency over this one's; 1 where neither takes any, none (`null` in JSON) where this one alone takes
    /// none.
    pub speedup: Option<f64>,
    /// The baseline's energy over this one's; 1 where neither takes any, none (`null` in JSON) where this one alone takes
    /// none.
    pub energy_ratio: Option<f64>,
}

/// Every network on every accelerator; ratios are to `accelerators[baseline]` on the same network.
///
/// # Errors
/// No such baseline, a network without layers, or the first layer that some accelerator cannot run.
pub fn compare(
    accelerators: &[Accelerator],
    networks: &[Workload],
    baseline: usize,
) -> Result<Vec<Comparison>, HwError> {
    if baseline >= accelerators.len() {
        let expected = format!("an index below {}", accelerators.len());
        return Err(HwError::field("comparison", "baseline", expected, baseline));
    }
    networks.iter().try_for_each(has_layers)?;
    let mut rows = Vec::with_capacity(accelerators.len() * networks.len());
    for network in networks {
        let costs = try_map(accelerators, |it| it.cost(network))?;
        let base = &costs[baseline];
        rows.extend(costs.iter().map(|cost| {
            let dram: f64 = cost
                .layers
                .iter()
                .flat_map(|layer| &layer.traffic)
                .filter(|traffic| traffic.level == 0)
                .map(|traffic| traffic.energy_pj)
                .sum();
            Comparison {
                accelerator: cost.accelerator.clone(),
                network: cost.network.clone(),
                cycles: cost.cycles(),
                latency_ms: cost.latency_ms(),
                energy_pj: cost.energy_pj(),
                dram_bits: cost.level_bits(0),
                dram_energy_share: if dram > 0.0 { dram / cost.energy_pj() } else { 0.0 },
                speedup: ratio(base.latency_ms(), cost.latency_ms()),
                energy_ratio: ratio(base.energy_pj(), cost.energy_pj()),
            }
        }));
    }
    Ok(rows)
}

/// Theirs over ours; 1 of equal amounts, also where both are 0; none where it would be infinite.
fn ratio(theirs: f64, ours: f64) -> Option<f64> {
    let ratio = if theirs == ours { 1.0 } else { theirs / ours };
    ratio.is_finite().then_some(ratio)
}

/// Points of a sweep, at most.
const MAX_POINTS: u128 = 1 << 18;
/// Layers of a sweep's networks, at most.
const MAX_LAYERS: u128 = 1 << 22;

/// The axes of a sweep; an empty axis keeps what the accelerator or the network has.
///
/// A sweep may have 2^18 points, and 2^22 layers over all pairs of bits and densities, each of which has a copy of the network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// Array sides.
    pub arrays: Vec<[u64; 2]>,
    /// Factors on the capacity of every on-chip level. An access then costs more or less, as CACTI has it at 45 nm between 128
    /// bytes and 16 KiB, interpolated on log-log axes; sizes beyond count as the nearest of these.
    pub buffer_scales: Vec<f64>,
    /// `[weight, activation]` bits.
    pub bits: Vec<[u8; 2]>,
    /// `[weight, activation]` densities.
    pub densities: Vec<[f64; 2]>,
}

/// One point of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Array sides, when swept.
    pub array: Option<[u64; 2]>,
    /// Factor on the buffers.
    pub buffer_scale: f64,
    /// Whether a buffer that was scaled is, before or after, outside the sizes whose energies are known, so that an access there
    /// costs what it does at the nearest of them.
    pub energy_clamped: bool,
    /// `[weight, activation]` bits, when swept.
    pub bits: Option<[u8; 2]>,
    /// `[weight, activation]` densities, when swept.
    pub densities: Option<[f64; 2]>,
    /// Cycles.
    pub cycles: u64,
    /// Energy, in pJ.
    pub energy_pj: f64,
    /// Whether no other point is at least as good in both and better in one.
    pub pareto: bool,
}

impl Sweep {
    /// Every combination, in parallel; the order and the result do not depend on the number of threads.
    ///
    /// # Errors
    /// A network without layers, more points or layers than a sweep may have, or the first combination that makes no sense or
    /// cannot run.
    pub fn run(&self, accelerator: &Accelerator, network: &Workload) -> Result<Vec<Point>, HwError> {
        fn axis<T: Copy>(values: &[T]) -> Vec<Option<T>> {
            if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
        }
        has_layers(network)?;
        self.check_size(network)?;
        let mut machines = Vec::new();
        for array in axis(&self.arrays) {
            for scale in axis(&self.buffer_scales) {
                let scale = scale.unwrap_or(1.0);
                if !(scale.is_finite() && scale > 0.0) {
                    return Err(HwError::field("sweep", "buffer_scales", "positive", scale));
                }
                let mut machine = accelerator.clone();
                if let Some(sides) = array {
                    machine.engine.resize(sides);
                }
                let mut clamped = false;
                for level in machine.memory.iter_mut().skip(1) {
                    let Some(bytes) = level.capacity_bytes else { continue };
                    let scaled = ((bytes as f64 * scale) as u64).max(1);
                    let growth = Growth::between(bytes, scaled);
                    level.capacity_bytes = Some(scaled);
                    level.read_pj *= growth.factors[0];
                    level.write_pj *= growth.factors[1];
                    clamped |= growth.clamped;
                }
                machine.validate()?;
                machines.push((array, (scale, clamped), machine));
            }
        }
        let mut networks = Vec::new();
        for bits in axis(&self.bits) {
            for densities in axis(&self.densities) {
                let mut net = network.clone();
                if let Some([weight, activation]) = bits {
                    net = with_bits(net, [weight, activation, activation]);
                }
                if let Some(densities) = densities {
                    net = with_densities(net, densities);
                }
                networks.push((bits, densities, Task::of_workload(&net, &[Pass::Forward])?));
            }
        }
        let pairs: Vec<_> =
            machines.iter().flat_map(|machine| networks.iter().map(move |net| (machine, net))).collect();
        let mut points = try_map(&pairs, |&((array, scale, machine), (bits, densities, tasks))| {
            let (mut cycles, mut energy_pj) = (0_u64, 0.0);
            for task in tasks {
                let cost = price(machine, task)?;
                cycles = cycles.saturating_add(cost.cycles());
                energy_pj += cost.energy_pj();
            }
            let (array, (buffer_scale, energy_clamped)) = (*array, *scale);
            let (bits, densities) = (*bits, *densities);
            Ok(Point { array, buffer_scale, energy_clamped, bits, densities, cycles, energy_pj, pareto: false })
        })?;
        mark_pareto(&mut points);
        Ok(points)
    }

    /// Refuses what would fill the memory.
    fn check_size(&self, network: &Workload) -> Result<(), HwError> {
        let combinations = |first: usize, second: usize| first.max(1) as u128 * second.max(1) as u128;
        let machines = combinations(self.arrays.len(), self.buffer_scales.len());
        let networks = combinations(self.bits.len(), self.densities.len());
        let layers = networks.saturating_mul(network.layers.len() as u128);
        let sizes = [
            ("points", machines.saturating_mul(networks), MAX_POINTS),
            ("layers of all its networks", layers, MAX_LAYERS),
        ];
        match sizes.into_iter().find(|&(_, found, most)| found > most) {
            Some((field, found, most)) => Err(HwError::field("sweep", field, format!("at most {most}"), found)),
            None => Ok(()),
        }
    }
}

/// Marks the points that no other one dominates: sorted by cycles, those that lower the energy.
fn mark_pareto(points: &mut [Point]) {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&points[a], &points[b]);
        a.cycles.cmp(&b.cycles).then(a.energy_pj.total_cmp(&b.energy_pj))
    });
    let (mut least, mut at) = (f64::INFINITY, u64::MAX);
    for index in order {
        let point = &mut points[index];
        // Twins of a front point are on the front too.
        point.pareto = point.energy_pj < least || (point.energy_pj == least && point.cycles == at);
        if point.energy_pj < least {
            (least, at) = (point.energy_pj, point.cycles);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::networks::builtin;
    use proptest::prelude::*;

    #[test]
    fn smartdeal_saves_energy_over_dense_and_more_so_with_sparsity() {
        let net = with_bits(builtin("resnet20-cifar").unwrap(), [8, 8, 8]);
        let mut machines = ["diannao-like", "smartdeal", "smartdeal"].map(|name| Accelerator::preset(name).unwrap());
        if let Engine::SmartDeal(engine) = &mut machines[2].engine {
            engine.dense_weights = true;
        }
        let at = |density: f64| compare(&machines, &[with_densities(net.clone(), [density, 1.0])], 0).unwrap();
        let (at_80, at_50) = (at(0.2), at(0.5));
        assert!(
            at_80[1].energy_ratio > at_50[1].energy_ratio && at_50[1].energy_ratio > Some(1.0),
            "{at_80:?} {at_50:?}"
        );
        let [_, compressed, dense] = &at_80[..] else { panic!("{at_80:?}") };
        assert!(compressed.energy_pj < dense.energy_pj && compressed.dram_bits < dense.dram_bits);
        // Of the energy, what fetching weights takes falls; DRAM's whole share does not, as multiplying is saved too.
        let fetching = |machine: &Accelerator| {
            let cost = machine.cost(&with_densities(net.clone(), [0.2, 1.0])).unwrap();
            let part = cost.components().into_iter().find(|part| part.name == "dram weight").unwrap();
            part.energy_pj / cost.energy_pj()
        };
        assert!(fetching(&machines[1]) < 0.5 * fetching(&machines[2]));
        // Set beside another baseline, the same costs in another ratio.
        let beside = compare(&machines, &[with_densities(net, [0.2, 1.0])], 1).unwrap();
        assert_eq!((beside[1].speedup, beside[1].energy_ratio), (Some(1.0), Some(1.0)));
        assert_eq!(beside[0].speedup, Some(beside[1].latency_ms / beside[0].latency_ms));
        assert_eq!(beside[0].energy_ratio, Some(beside[1].energy_pj / beside[0].energy_pj));
    }

    #[test]
    fn a_network_without_layers_is_neither_compared_nor_swept() {
        let machines = [Accelerator::preset("diannao-like").unwrap()];
        let networks = [builtin("mlp").unwrap(), Workload::new("empty", Vec::new())];
        let compared = compare(&machines, &networks, 0).unwrap_err();
        let swept = Sweep::default().run(&machines[0], &networks[1]).unwrap_err();
        for error in [compared, swept] {
            assert_eq!(error.to_string(), "network `empty`: layers is 0, expected at least 1");
        }
    }

    #[test]
    fn machines_that_take_nothing_are_equal() {
        assert_eq!([ratio(2.0, 1.0), ratio(0.0, 1.0), ratio(0.0, 0.0)], [Some(2.0), Some(0.0), Some(1.0)]);
        assert_eq!([ratio(1.0, 0.0), ratio(1.0, 1e-320)], [None; 2]);
        let mut free = Accelerator::preset("diannao-like").unwrap();
        free.static_pj_per_cycle = 0.0;
        free.mac_energy.iter_mut().for_each(|entry| entry.pj = 0.0);
        free.memory.iter_mut().for_each(|level| (level.read_pj, level.write_pj) = (0.0, 0.0));
        let rows = compare(&[free], &[builtin("mlp").unwrap()], 0).unwrap();
        assert_eq!((rows[0].energy_pj, rows[0].energy_ratio, rows[0].dram_energy_share), (0.0, Some(1.0), 0.0));
    }

    #[test]
    fn a_sweep_prices_every_combination_in_order() {
        let net = with_bits(builtin("resnet20-cifar").unwrap(), [8, 8, 8]);
        let sweep = Sweep {
            arrays: vec![[8, 8], [16, 16]],
            buffer_scales: vec![0.01, 1.0, 2.0],
            bits: vec![[8, 4]],
            densities: vec![[1.0, 1.0], [0.5, 1.0]],
        };
        let accelerator = Accelerator::preset("cambricon-x-like").unwrap();
        let points = sweep.run(&accelerator, &net).unwrap();
        assert_eq!(points.len(), 12);
        assert!(points.iter().any(|point| point.pareto));
        // The same, one by one: arrays outermost, then buffers, then densities.
        for (index, point) in points.iter().enumerate() {
            let (array, scale) = (sweep.arrays[index / 6], sweep.buffer_scales[index / 2 % 3]);
            let densities = sweep.densities[index % 2];
            assert_eq!((point.array, point.buffer_scale, point.densities), (Some(array), scale, Some(densities)));
            let mut machine = accelerator.clone();
            machine.engine.resize(array);
            for level in &mut machine.memory[1..] {
                let bytes = level.capacity_bytes.unwrap();
                let scaled = (bytes as f64 * scale) as u64;
                let [read, write] = Growth::between(bytes, scaled).factors;
                level.capacity_bytes = Some(scaled);
                (level.read_pj, level.write_pj) = (level.read_pj * read, level.write_pj * write);
            }
            // 512 and 128 KiB are beyond the table of energies.
            assert_eq!(point.energy_clamped, scale != 1.0);
            let cost = machine.cost(&with_densities(with_bits(net.clone(), [8, 4, 4]), densities)).unwrap();
            assert_eq!((point.cycles, point.energy_pj), (cost.cycles(), cost.energy_pj()));
        }
        // Every axis tells: density, buffer (dearer DRAM traffic, cheaper accesses), array.
        assert!(points[2].energy_pj > points[3].energy_pj && points[0].energy_pj != points[2].energy_pj);
        assert!(points[2].cycles > points[8].cycles);
        let bad = Sweep { buffer_scales: vec![0.0], ..sweep };
        assert!(bad.run(&accelerator, &net).is_err());
    }

    #[test]
    fn the_energy_of_a_buffer_grows_with_it() {
        let net = with_bits(builtin("mlp").unwrap(), [8, 8, 8]);
        let mut small = Accelerator::preset("diannao-like").unwrap();
        small.memory[1..].iter_mut().for_each(|level| level.capacity_bytes = Some(4096));
        let scales = |buffer_scales| Sweep { buffer_scales, ..Sweep::default() }.run(&small, &net).unwrap();
        let points = scales(vec![1.0, 4.0, 8.0]);
        let mut large = small.clone();
        for level in &mut large.memory[1..] {
            level.capacity_bytes = Some(16384);
            level.read_pj *= 9.982 / 3.430;
            level.write_pj *= 8.421 / 4.310;
        }
        let expected = [small.cost(&net).unwrap(), large.cost(&net).unwrap()];
        assert_eq!(points[0].energy_pj, expected[0].energy_pj());
        assert!((points[1].energy_pj / expected[1].energy_pj() - 1.0).abs() < 1e-12, "{points:?}");
        // Beyond 16 KiB energies are those of 16 KiB, which is said.
        assert_eq!(points.iter().map(|point| point.energy_clamped).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_sweep_that_would_fill_the_memory_is_refused_by_its_size() {
        let accelerator = Accelerator::preset("diannao-like").unwrap();
        let net = builtin("mlp").unwrap();
        let large = Sweep { arrays: vec![[8, 8]; 513], buffer_scales: vec![1.0; 512], ..Sweep::default() };
        let error = large.run(&accelerator, &net).unwrap_err();
        assert_eq!(error.to_string(), "sweep: points is 262656, expected at most 262144");
        let deep = Workload::new("deep", vec![net.layers[0].clone(); 4097]);
        let wide = Sweep { bits: vec![[8, 8]; 32], densities: vec![[1.0, 1.0]; 32], ..Sweep::default() };
        let error = wide.run(&accelerator, &deep).unwrap_err();
        assert_eq!(error.to_string(), "sweep: layers of all its networks is 4195328, expected at most 4194304");
    }

    proptest! {
        #[test]
        fn the_front_is_what_nothing_dominates(values in proptest::collection::vec((0_u64..20, 0_u32..20), 1..40)) {
            let mut points: Vec<_> = values
                .iter()
                .map(|&(cycles, energy)| Point { array: None, buffer_scale: 1.0, energy_clamped: false, bits: None, densities: None, cycles,
                    energy_pj: f64::from(energy), pareto: false })
                .collect();
            mark_pareto(&mut points);
            for point in &points {
                let dominated = points.iter().any(|other| other.cycles <= point.cycles && other.energy_pj <= point.energy_pj
                    && (other.cycles < point.cycles || other.energy_pj < point.energy_pj));
                prop_assert_eq!(point.pareto, !dominated);
            }
        }
    }
}
