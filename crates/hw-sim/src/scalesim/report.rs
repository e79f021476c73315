//! Runs a topology and writes the tool's report files.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Interface, ScaleSimConfig, Topology, TopologyLayer};
use crate::error::HwError;
use crate::parallel::try_map;
use crate::stall::DoubleBuffer;
use crate::systolic::{Dataflow, Emulation, Gemm, SparseStorage, SystolicArray, SystolicCost, emulate};

/// One layer as SCALE-Sim reports it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Cycles with the time before the first demand and after the last, in which DRAM is busy.
    pub total_cycles_with_prefetch: i64,
    /// The index of the last cycle: one less than the number of cycles.
    pub total_cycles: u64,
    /// Cycles in which the array waits.
    pub stall_cycles: u64,
    /// Percent; above 100 where sparsity skips MACs that are still counted.
    pub overall_util: f64,
    /// Percent.
    pub mapping_efficiency: f64,
    /// Percent.
    pub compute_util: f64,
    /// Words read by the array; a sparse block is read `m/n` times.
    pub sram_ifmap_reads: f64,
    /// Words read by the array.
    pub sram_filter_reads: u64,
    /// Words written by the array, with the tool's excess of `R + C` a fold for output stationary.
    pub sram_ofmap_writes: u64,
    /// The three streams, with their start and stop cycles and DRAM words.
    pub streams: Emulation,
    /// The filter's size, when the run is sparse.
    pub storage: Option<SparseStorage>,
}

/// Every layer's report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reports {
    /// `run_name`: the tool's folder for the files.
    pub run_name: String,
    /// The network.
    pub network: String,
    /// The layers, in order.
    pub layers: Vec<LayerReport>,
    /// The sparse format's name, when the run is sparse.
    pub sparse_format: Option<String>,
}

/// Runs every layer, in parallel; the result does not depend on the number of threads.
///
/// # Errors
/// A configuration that does not validate, or the first layer that cannot be run: one of sizes that make no sense, one that
/// [`emulate`] refuses, or one that takes a single cycle, which the tool counts as none and divides by.
pub fn run(config: &ScaleSimConfig, topology: &Topology) -> Result<Reports, HwError> {
    config.validate()?;
    let layers = try_map(&topology.layers, |layer| run_layer(config, layer))?;
    let sparse_format = config.sparsity.map(|sparsity| {
        let json = serde_json::to_value(sparsity.format).ok();
        json.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    });
    Ok(Reports { run_name: config.run_name.clone(), network: topology.name.clone(), layers, sparse_format })
}

fn run_layer(config: &ScaleSimConfig, layer: &TopologyLayer) -> Result<LayerReport, HwError> {
    let array = &config.array;
    let mut operands = layer.operands();
    operands.sparsity = operands.sparsity.filter(|_| config.sparsity.is_some());
    if let Some(ratio) = operands.sparsity {
        ratio.validate(&layer.name)?;
    }
    let [height, width] = layer.outputs();
    let overflow = |quantity| HwError::Overflow { layer: layer.name.clone(), quantity };
    let m = height.checked_mul(width).ok_or_else(|| overflow("output pixels"))?;
    let dense_k = operands.kernel[0]
        .checked_mul(operands.kernel[1])
        .and_then(|taps| taps.checked_mul(operands.channels))
        .ok_or_else(|| overflow("window elements"))?;
    let n = operands.filters;
    let k = operands.sparsity.map_or(dense_k, |ratio| ratio.kept(dense_k));
    let cost = array.cost(&layer.name, Gemm { m, n, k })?;
    let streams = emulate(&layer.name, array, &operands, config.buffer_kb)?;

    let stall_cycles = match config.interface {
        Interface::Calc => streams.stall_cycles,
        Interface::User { words } => user_stall(&cost, &streams, words, array),
    };
    let total_cycles = cost.cycles - 1 + stall_cycles;
    if total_cycles == 0 {
        let thing = format!("layer `{}`", layer.name);
        let reason = "the tool divides by its cycles, of which it counts none".into();
        return Err(HwError::Unsupported { thing, reason });
    }
    let elements = (array.rows * array.cols) as f64;
    let [down, across, streamed] = array.layout(Gemm { m, n, k });
    let fold_cycles = match array.dataflow {
        Dataflow::OutputStationary => cost.cycles_per_fold,
        // The tool's fold is longer here by the columns that its bookkeeping appends.
        _ => cost.cycles_per_fold + array.cols - 1,
    };
    let [mapping_efficiency, compute_util] = averages(&cost, array, [down, across], |used| {
        let busy = (used * streamed) as f64 / (elements * fold_cycles as f64);
        [used as f64 / elements, busy]
    });
    let sram_ifmap_reads = match (array.dataflow, operands.sparsity) {
        (Dataflow::WeightStationary, Some(ratio)) => {
            // Added up fold by fold, as the tool does, so that its rounding is kept.
            let reads_per_element = ratio.m as f64 / ratio.n as f64;
            let fold = |row: u64| (m * array.rows.min(k - row * array.rows)) as f64 * reads_per_element;
            let folds = (0..cost.folds[1]).flat_map(|_| 0..cost.folds[0]);
            folds.fold(0.0, |total, row| total + fold(row))
        }
        _ => cost.input_reads as f64,
    };
    let folds = cost.folds[0] * cost.folds[1];
    let os_excess = if array.dataflow == Dataflow::OutputStationary { folds * (array.rows + array.cols) } else { 0 };
    let dram_start = streams.input.dram_cycles[0].min(streams.weight.dram_cycles[0]);
    // A wide interface may stall less than the write buffer does.
    let late = stall_cycles as i64 - streams.stall_cycles as i64;
    let storage = config.sparsity.map(|sparsity| {
        let ratio = operands.sparsity.unwrap_or(crate::systolic::NmRatio { n: 1, m: 1 });
        ratio.storage(sparsity.format, dense_k, n)
    });
    Ok(LayerReport {
        name: layer.name.clone(),
        total_cycles_with_prefetch: streams.output.dram_cycles[1] + late - dram_start,
        total_cycles,
        stall_cycles,
        overall_util: (m as f64 * n as f64 * dense_k as f64) * 100.0 / (total_cycles as f64 * elements),
        mapping_efficiency: mapping_efficiency * 100.0,
        compute_util: compute_util * 100.0,
        sram_ifmap_reads,
        sram_filter_reads: cost.weight_reads,
        sram_ofmap_writes: cost.output_writes + os_excess,
        streams,
        storage,
    })
}

/// Shares of the array, averaged over folds in the tool's order, so that its rounding is kept.
fn averages(
    cost: &SystolicCost,
    array: &SystolicArray,
    [down, across]: [u64; 2],
    of_fold: impl Fn(u64) -> [f64; 2],
) -> [f64; 2] {
    let used = |fold: u64, side: u64, size: u64| side.min(size - fold * side);
    let mut sums = [0.0; 2];
    for fold_col in 0..cost.folds[1] {
        for fold_row in 0..cost.folds[0] {
            let busy = used(fold_row, array.rows, down) * used(fold_col, array.cols, across);
            for (sum, share) in sums.iter_mut().zip(of_fold(busy)) {
                *sum += share;
            }
        }
    }
    sums.map(|sum| sum / (cost.folds[0] * cost.folds[1]) as f64)
}

/// Stalls under a given bandwidth: the emulated DRAM words against double buffering, one array of operands first.
fn user_stall(cost: &SystolicCost, streams: &Emulation, words: u64, array: &SystolicArray) -> u64 {
    let traffic = streams.input.dram_reads + streams.weight.dram_reads + streams.output.dram_writes;
    let first_load = array.first_words().iter().sum::<u64>().min(traffic);
    DoubleBuffer { compute: cost.cycles, traffic, first_load, last_store: 0 }.stall(words)
}

impl Reports {
    /// Sum of the reported cycles over layers.
    pub fn total_cycles(&self) -> u64 {
        self.layers.iter().fold(0, |total, layer| total.saturating_add(layer.total_cycles))
    }

    /// `(file name, contents)` of the report files.
    pub fn files(&self) -> Vec<(&'static str, String)> {
        let mut files = vec![
            ("COMPUTE_REPORT.csv", self.compute()),
            ("BANDWIDTH_REPORT.csv", self.bandwidth()),
            ("DETAILED_ACCESS_REPORT.csv", self.detail()),
        ];
        if self.sparse_format.is_some() {
            files.push(("SPARSE_REPORT.csv", self.sparse()));
        }
        files
    }

    fn compute(&self) -> String {
        let header = "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, \
                      Mapping Efficiency %, Compute Util %,\n";
        self.file(header, |layer| {
            vec![
                layer.total_cycles_with_prefetch.to_string(),
                layer.total_cycles.to_string(),
                layer.stall_cycles.to_string(),
                float(layer.overall_util),
                float(layer.mapping_efficiency),
                float(layer.compute_util),
            ]
        })
    }

    fn bandwidth(&self) -> String {
        let metadata = if self.sparse_format.is_some() { " Avg FILTER Metadata SRAM BW," } else { "" };
        let header = format!(
            "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW,{metadata} Avg OFMAP SRAM BW, Avg IFMAP DRAM BW, \
             Avg FILTER DRAM BW, Avg OFMAP DRAM BW,\n"
        );
        self.file(&header, |layer| {
            let cycles = layer.total_cycles as f64;
            let dram = |words: u64, [start, stop]: [i64; 2]| float(words as f64 / (stop - start + 1) as f64);
            let Emulation { input, weight, output, .. } = layer.streams;
            let mut row = vec![float(layer.sram_ifmap_reads / cycles), float(layer.sram_filter_reads as f64 / cycles)];
            row.extend(layer.storage.map(|storage| float(storage.metadata / cycles)));
            row.push(float(layer.sram_ofmap_writes as f64 / cycles));
            row.push(dram(input.dram_reads, input.dram_cycles));
            row.push(dram(weight.dram_reads, weight.dram_cycles));
            row.push(dram(output.dram_writes, output.dram_cycles));
            row
        })
    }

    fn detail(&self) -> String {
        let mut header = String::from("LayerID, ");
        for level in ["SRAM", "DRAM"] {
            for (operand, action) in [("IFMAP", "Reads"), ("Filter", "Reads"), ("OFMAP", "Writes")] {
                let start = format!("{level} {operand} Start Cycle, {level} {operand} Stop Cycle, ");
                header += &start;
                header += &format!("{level} {operand} {action}, ");
            }
        }
        header.pop();
        header.push('\n');
        self.file(&header, |layer| {
            let Emulation { input, weight, output, .. } = layer.streams;
            let reads = if self.sparse_format.is_some() {
                float(layer.sram_ifmap_reads)
            } else {
                (layer.sram_ifmap_reads as u64).to_string()
            };
            let streams = [
                (input.sram_cycles, reads),
                (weight.sram_cycles, layer.sram_filter_reads.to_string()),
                (output.sram_cycles, layer.sram_ofmap_writes.to_string()),
                (input.dram_cycles, input.dram_reads.to_string()),
                (weight.dram_cycles, weight.dram_reads.to_string()),
                (output.dram_cycles, output.dram_writes.to_string()),
            ];
            streams
                .into_iter()
                .flat_map(|([start, stop], count)| [float(start as f64), float(stop as f64), count])
                .collect()
        })
    }

    fn sparse(&self) -> String {
        let format = self.sparse_format.as_deref().unwrap_or_default();
        let header = "LayerID, Sparsity Representation, Original Filter Storage, New Storage (Filter+Metadata), \
                      Filter Metadata Storage, Avg FILTER Metadata SRAM BW, \n";
        self.file(header, |layer| {
            let storage = layer.storage.unwrap_or(SparseStorage { dense: 0.0, compressed: 0.0, metadata: 0.0 });
            let words = |value: f64| if format == "ellpack_block" { float(value) } else { (value as u64).to_string() };
            vec![
                format.to_owned(),
                (storage.dense as u64).to_string(),
                words(storage.compressed),
                words(storage.metadata),
                float(storage.metadata / layer.total_cycles as f64),
            ]
        })
    }

    fn file(&self, header: &str, row: impl Fn(&LayerReport) -> Vec<String>) -> String {
        let mut text = header.to_owned();
        for (id, layer) in self.layers.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{id}, {},", row(layer).join(", "));
        }
        text
    }
}

/// A float as Python prints it: shortest digits, `.0` for whole numbers, two exponent digits.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalesim::{Sparsity, TopologyShape};
    use crate::systolic::{NmRatio, SparseFormat};

    fn config(side: u64) -> ScaleSimConfig {
        ScaleSimConfig {
            run_name: "run".into(),
            array: SystolicArray::new(side, side, Dataflow::OutputStationary),
            buffer_kb: [1; 3],
            interface: Interface::Calc,
            sparsity: None,
        }
    }

    /// A matrix product of three equal sizes.
    fn cube(size: u64, sparsity: Option<NmRatio>) -> Topology {
        let shape = TopologyShape::Gemm { m: size, n: size, k: size };
        Topology { name: "one".into(), layers: vec![TopologyLayer { name: "fc".into(), shape, sparsity }] }
    }

    #[test]
    fn a_ratio_that_keeps_more_than_there_is_is_refused_by_layer() {
        let topology = cube(4, Some(NmRatio { n: 1, m: 0 }));
        let sparse = ScaleSimConfig { sparsity: Some(Sparsity { format: SparseFormat::Csr }), ..config(4) };
        let message = run(&sparse, &topology).unwrap_err().to_string();
        assert!(message.starts_with("layer `fc`: sparsity is 1:0"), "{message}");
        // A run without sparsity does not look at it.
        assert!(run(&config(4), &topology).is_ok());
    }

    #[test]
    fn a_layer_of_a_single_cycle_is_refused_where_the_tool_divides_by_zero() {
        let error = run(&config(1), &cube(1, None)).unwrap_err();
        let message = "layer `fc` is not supported: the tool divides by its cycles, of which it counts none";
        assert_eq!(error.to_string(), message);
        // 8 MACs in as many cycles, the last of which has index 7.
        let mut reports = run(&config(1), &cube(2, None)).unwrap();
        assert_eq!((reports.layers[0].total_cycles, reports.layers[0].overall_util), (7, 800.0 / 7.0));
        // A sum past 64 bits stops there.
        let endless = LayerReport { total_cycles: u64::MAX, ..reports.layers[0].clone() };
        reports.layers.push(endless);
        assert_eq!(reports.total_cycles(), u64::MAX);
    }

    #[test]
    fn configurations_made_by_hand_are_refused_by_field() {
        let refused = |config: ScaleSimConfig| run(&config, &cube(4, None)).unwrap_err().to_string();
        assert_eq!(refused(config(0)), "systolic array: rows is 0, expected 1 to 65536");
        let message = "configuration `run`: KiB of the weight buffer is 0, expected 1 to 2^30";
        assert_eq!(refused(ScaleSimConfig { buffer_kb: [1, 0, 1], ..config(4) }), message);
        let message = "configuration `run`: words a cycle is 0, expected 1 to 2^29";
        assert_eq!(refused(ScaleSimConfig { interface: Interface::User { words: 0 }, ..config(4) }), message);
    }

    #[test]
    fn floats_are_printed_as_python_prints_them() {
        let printed = [1.0, 0.1, 1.5977789594240838e-05, 1e16, 57.673894677555616, 0.0001].map(float);
        assert_eq!(printed, ["1.0", "0.1", "1.5977789594240838e-05", "1e+16", "57.673894677555616", "0.0001"]);
    }
}
