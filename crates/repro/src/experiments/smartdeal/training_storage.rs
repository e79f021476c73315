//! What weights take while they learn in SmartDeal form, and what rebuilding them takes, by the share of zeros.
//!
//! Bits as the published training code counts them: one an entry for where non-zeros are, a code of each non-zero with
//! its sign, as wide as the magnitudes of the whole network ask for, and bases of 32 bits. Dense weights have 32.
//! Biases and norms are in neither.

use super::first_weights;
use super::training_energy::{NETWORKS, architecture};
use crate::section::{Table, cell};
use crate::{Metrics, Results};
use quant::smartdeal::{CompressPolicy, CompressReport, SdzModel, compress, hardware_stats, nonzero_code_bits};
use std::collections::BTreeSet;
use tch::nn::VarStore;

/// Shares of zeros in percent: that at which the network on images learns in form, and the next.
const ZEROS: [u32; 2] = [50, 70];
/// The metric that a claim asks for.
pub(super) const AT_HALF: &str = "resnet20_storage_50";
/// Bits of a basis entry in training.
const BASIS_BITS: u64 = 32;

pub(super) fn measure(seed: u64) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    for (network, _) in NETWORKS {
        let architecture = architecture(network)?;
        let store = first_weights(&architecture, seed)?;
        let macs = architecture.workload(network, &[3, 32, 32])?.macs()?;
        for zeros in ZEROS {
            let (model, report) = compress_to(&store, f64::from(zeros) / 100.0)?;
            let adds: u64 = hardware_stats(&model)?.iter().map(|layer| layer.rebuild_adds).sum();
            metrics.extend([
                (metric(network, "zeros", zeros), 100.0 * report.element_sparsity()),
                (metric(network, "magnitudes", zeros), magnitudes(&model) as f64),
                (metric(network, "storage", zeros), saving(&model)),
                (metric(network, "rebuild", zeros), 100.0 * adds as f64 / macs as f64),
            ]);
        }
    }
    Ok(metrics)
}

fn metric(network: &str, what: &str, zeros: u32) -> String {
    format!("{network}_{what}_{zeros}")
}

/// Compressed at a threshold that gives this share of zeros to half a percent, by bisection.
fn compress_to(store: &VarStore, zeros: f64) -> anyhow::Result<(SdzModel, CompressReport)> {
    let (mut low, mut high) = (1e-3_f64, 0.3_f64);
    for _ in 0..20 {
        let theta = (low * high).sqrt();
        let (model, report) = compress(store, &CompressPolicy::with_theta(theta))?;
        let found = report.element_sparsity();
        if (found - zeros).abs() < 5e-3 {
            return Ok((model, report));
        }
        *(if found < zeros { &mut low } else { &mut high }) = theta;
    }
    anyhow::bail!("no threshold gives {zeros} of zeros")
}

/// Distinct magnitudes of the non-zeros of a whole network.
fn magnitudes(model: &SdzModel) -> usize {
    model.layers().flat_map(|(_, layer)| layer.exponents()).collect::<BTreeSet<_>>().len()
}

/// Bits of the dense weights over those of the form, while both learn.
fn saving(model: &SdzModel) -> f64 {
    let code = u64::from(nonzero_code_bits(magnitudes(model)));
    let (mut dense, mut bits) = (0, 0);
    for (_, layer) in model.layers() {
        let stats = layer.stats();
        dense += 32 * layer.shape().weights() as u64;
        bits += stats.non_zeros as u64 * code + stats.entries as u64 + layer.basis().len() as u64 * BASIS_BITS;
    }
    dense as f64 / bits as f64
}

pub(super) fn table(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for (network, name) in NETWORKS {
        for zeros in ZEROS {
            let mut row = vec![format!("{name}, {zeros} % zeros")];
            for (what, decimals) in [("zeros", 1), ("magnitudes", 0), ("storage", 2), ("rebuild", 2)] {
                let samples = results.samples(&metric(network, what, zeros), |run| run.kind == "energy")?;
                row.push(cell(&samples.values(), decimals));
            }
            rows.push(row);
        }
    }
    rows.push(vec!["published".into(), "–".into(), "–".into(), "10.56".into(), "–".into()]);
    Ok(Table {
        title: "Weights while they learn, and their rebuilding".into(),
        caption: "First random weights, decomposed at a threshold that gives so many zeros; no kernel rows pruned. \
                  Bits: one an entry, codes of the non-zeros, as wide as all magnitudes of the network ask for, bases \
                  of 32 bits; dense weights have 32. Counters and momentum of the update are left out, as dense \
                  training's momentum is. Additions: shift-adds of one rebuilding of all weights, beside the \
                  multiply-accumulates of one image of 32 × 32. The published figure is of networks and zeros that the \
                  abstract does not name."
            .into(),
        header: ["", "zeros, %", "magnitudes", "dense bits / bits", "additions / MACs of an image, %"]
            .map(String::from)
            .into(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::Standard;
    use quant::smartdeal::{Basis, BlockRule, LayerShape, Layout, Record, SdLayer, encode_coefficient};
    use tch::Device;

    #[test]
    fn a_threshold_gives_the_share_of_zeros_that_was_asked_for_or_none_does() {
        let store = VarStore::new(Device::Cpu);
        super::super::blobs::Mlp::new(&store.root(), &Standard);
        let (model, report) = compress_to(&store, 0.5).unwrap();
        assert!((report.element_sparsity() - 0.5).abs() < 5e-3);
        // Its filters of 22 rows pay 288 bits of basis each, more than for all else.
        assert!((3.0..6.0).contains(&saving(&model)), "{}", saving(&model));
        assert!(compress_to(&store, -0.1).is_err());
    }

    #[test]
    fn codes_are_as_wide_as_the_magnitudes_of_the_whole_network_ask_for() {
        let ladder = quant::smartdeal::Ladder::default();
        let layer = |out_features, in_features, values: &[f64]| {
            let layout = Layout::new(LayerShape::Linear { out_features, in_features }, BlockRule::Reference).unwrap();
            let mut codes = vec![0; layout.entries()];
            for (code, value) in codes.iter_mut().zip(values) {
                *code = encode_coefficient(*value, &ladder).unwrap();
            }
            let bases = vec![0.5; layout.blocks() * layout.basis_len()];
            // Eight bits in the file; training has 32.
            let basis = Basis::Float(bases);
            Record::Layer(SdLayer::from_parts(layout, codes, basis).unwrap().with_basis_bits(8).unwrap())
        };
        let mut model = SdzModel::default();
        // 18 weights, four rows of three: two non-zeros of two magnitudes, a basis of nine for each of two neurons.
        model.records.insert("a.weight".into(), layer(2, 9, &[1.0, -0.5]));
        // Ten weights, padded to twelve entries: three non-zeros of two magnitudes, one of them new; one basis.
        model.records.insert("b.weight".into(), layer(1, 10, &[0.25, 0.5, 0.0, -0.25]));
        assert_eq!(magnitudes(&model), 3);
        // Three magnitudes and a sign: three bits, where two would do for either layer.
        let bits = 5 * 3 + (18 + 12) + (2 + 1) * 9 * 32;
        assert_eq!(saving(&model), f64::from(32 * 28) / f64::from(bits));
    }
}
