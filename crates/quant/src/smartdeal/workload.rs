//! What compression means for hardware: densities, widths, and the bits that leave memory.

use core_tensor::workload::Workload;
use serde::{Deserialize, Serialize};

use super::{SdLayer, SdzModel, smallest_scheme, storage};
use crate::{Error, Result};

/// What a hardware model needs to know of one compressed layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HardwareStats {
    /// The layer's parameter prefix, as in the workload.
    pub name: String,
    /// Share of coefficient rows that are kept: zero rows cancel the matching multiplications.
    pub row_density: f64,
    /// Non-zeros among the coefficients of kept rows.
    pub row_fill: f64,
    /// Bits of the compressed weight under its cheapest index: what is fetched.
    pub stored_bits: u64,
    /// Shift-and-adds of one rebuilding: each non-zero scales a basis row of so many columns; the first of a row
    /// needs no addition.
    pub rebuild_adds: u64,
}

impl HardwareStats {
    /// The figures of one layer.
    ///
    /// # Errors
    /// None for a layer that was built; the accounting's own.
    pub fn of_layer(name: &str, layer: &SdLayer) -> Result<Self> {
        let stats = layer.stats();
        let columns = layer.layout().columns;
        let kept = stats.rows - stats.zero_rows;
        let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Ok(Self {
            name: name.into(),
            row_density: share(kept, stats.rows),
            row_fill: share(stats.non_zeros, kept * columns),
            stored_bits: storage(layer, smallest_scheme(layer)?)?.total_bits(),
            rebuild_adds: ((stats.non_zeros - kept) * columns) as u64,
        })
    }
}

/// The figures of every compressed layer of a model.
///
/// # Errors
/// As [`HardwareStats::of_layer`].
pub fn hardware_stats(model: &SdzModel) -> Result<Vec<HardwareStats>> {
    model.layers().map(|(name, layer)| HardwareStats::of_layer(name.trim_end_matches(".weight"), layer)).collect()
}

/// The workload of a compressed network: a layer's weight density becomes its row density and its width that of a
/// rebuilt weight, `weight_bits` (8 on SmartExchange's chip). Layers that stayed dense are unchanged.
///
/// # Errors
/// [`Error::Missing`] for a compressed layer that the workload does not name; as [`HardwareStats::of_layer`].
pub fn compressed_workload(dense: &Workload, model: &SdzModel, weight_bits: u8) -> Result<Workload> {
    let mut workload = dense.clone();
    for stats in hardware_stats(model)? {
        let mut named = false;
        for layer in workload.layers.iter_mut().filter(|layer| layer.name == stats.name) {
            layer.weight.density = stats.row_density;
            layer.weight.bits = weight_bits;
            named = true;
        }
        if !named {
            return Err(Error::Missing { name: stats.name, place: "the workload".into() });
        }
    }
    Ok(workload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{Basis, BlockRule, LayerShape, Layout, Record};
    use core_tensor::workload::{Layer, Operator};

    #[test]
    fn figures_of_a_hand_made_layer() {
        // Four rows of one filter: full, one non-zero, none, two non-zeros.
        let layout =
            Layout::new(LayerShape::Linear { out_features: 1, in_features: 12 }, BlockRule::Reference).unwrap();
        let codes = vec![60, -61, 60, 0, 60, 0, 0, 0, 0, 61, 0, 60];
        let layer = SdLayer::from_parts(layout, codes, Basis::Float(vec![0.5; 9])).unwrap();
        let stats = HardwareStats::of_layer("fc", &layer).unwrap();
        assert_eq!((stats.row_density, stats.row_fill), (0.75, 6.0 / 9.0));
        // (3 − 1 + 1 − 1 + 2 − 1) additions of 3 columns.
        assert_eq!(stats.rebuild_adds, 9);

        let mut model = SdzModel::default();
        model.records.insert("fc.weight".into(), Record::Layer(layer));
        let layers = vec![Layer::new("fc", Operator::linear(12, 1)), Layer::new("fc2", Operator::linear(1, 1))];
        let workload = compressed_workload(&Workload::new("w", layers), &model, 8).unwrap();
        assert_eq!((workload.layers[0].weight.density, workload.layers[0].weight.bits), (0.75, 8));
        assert_eq!((workload.layers[1].weight.density, workload.layers[1].weight.bits), (1.0, 32));
        let other = Workload::new("w", vec![Layer::new("head", Operator::linear(12, 1))]);
        let refused = compressed_workload(&other, &model, 8);
        assert!(matches!(refused, Err(Error::Missing { name, .. }) if name == "fc"));
    }
}
