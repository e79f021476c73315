//! Compressing a whole network, whatever it is made of: named weights are taken by their shape.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use super::{
    DecomposeConfig, DenseTensor, LayerShape, LayerStats, Layout, Record, SdLayer, SdzModel, Storage, VectorPruning,
    prune_vectors, smallest_scheme, storage,
};
use crate::{Error, Result};

/// Which kernels are decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// 1×1, 3×3 and linear layers, as the published code.
    Published,
    /// Also others of 2 to 12 columns: a K×K kernel gets a K×K basis.
    Any,
}

/// What happens to a layer that has no useful decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undecomposable {
    /// It stays dense and is listed in the report.
    KeepDense,
    /// Compression fails.
    Refuse,
}

/// How a network is compressed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressPolicy {
    /// The fit of each block.
    pub decompose: DecomposeConfig,
    /// Bits of a basis entry, 2 to 16; `None` keeps 32. SmartExchange's hardware takes 8, SmartDeal's training 32.
    pub basis_bits: Option<u8>,
    /// Which kernels. Published: [`Kernels::Published`].
    pub kernels: Kernels,
    /// What to do with the rest. Published: kept dense.
    pub undecomposable: Undecomposable,
    /// Name prefixes of layers to keep dense, such as `fc`; one that no name begins with is refused. Published: none.
    pub keep_dense: Vec<String>,
    /// Apply the row threshold to 1×1 and linear layers too, not only to spatial kernels. Published: no.
    pub threshold_vectors_everywhere: bool,
    /// Prune kernel rows of convolutions before decomposing them. Published: one share a layer, off by default.
    pub vector_pruning: Option<VectorPruning>,
}

impl Default for CompressPolicy {
    fn default() -> Self {
        Self {
            decompose: DecomposeConfig::default(),
            basis_bits: Some(8),
            kernels: Kernels::Any,
            undecomposable: Undecomposable::KeepDense,
            keep_dense: Vec::new(),
            threshold_vectors_everywhere: false,
            vector_pruning: None,
        }
    }
}

impl CompressPolicy {
    /// The defaults with another threshold.
    pub fn with_theta(theta: f64) -> Self {
        Self { decompose: DecomposeConfig::with_theta(theta), ..Self::default() }
    }

    /// Refuses what cannot run. Whether names begin with the prefixes of `keep_dense` is seen when a network is there.
    ///
    /// # Errors
    /// [`Error::Config`] for the first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.decompose.validate()?;
        if let Some(bits) = self.basis_bits.filter(|bits| !(2..=16).contains(bits)) {
            return Err(Error::Config { name: "basis_bits", expected: "2 to 16, or none", found: bits.to_string() });
        }
        self.vector_pruning.map_or(Ok(()), |pruning| pruning.validate())
    }

    /// Refuses a prefix to keep dense that none of a network's names begins with: most likely a slip of the pen.
    ///
    /// # Errors
    /// [`Error::Config`] with the first such prefix.
    pub(super) fn check_prefixes<S: AsRef<str>>(&self, names: impl Iterator<Item = S> + Clone) -> Result<()> {
        let fits = |prefix: &String| names.clone().any(|name| name.as_ref().starts_with(prefix.as_str()));
        match self.keep_dense.iter().find(|prefix| !fits(prefix)) {
            None => Ok(()),
            Some(prefix) => Err(Error::Config {
                name: "keep_dense",
                expected: "prefixes that names of the network begin with",
                found: format!("`{prefix}`"),
            }),
        }
    }

    /// Whether this policy decomposes a tensor, and if not, why.
    fn shape_of(&self, name: &str, dims: &[usize]) -> std::result::Result<LayerShape, Kept> {
        // A norm's has one dimension.
        if name.rsplit('.').next() != Some("weight") || dims.len() < 2 {
            return Err(Kept::NotAWeight);
        }
        if let Some(prefix) = self.keep_dense.iter().find(|prefix| name.starts_with(prefix.as_str())) {
            return Err(Kept::Because(format!("`{prefix}` is kept dense")));
        }
        let Some(shape) = LayerShape::of_weight(dims) else {
            return Err(Kept::Because(format!("a weight of {} dimensions", dims.len())));
        };
        if let LayerShape::Conv { kernel, .. } = shape
            && self.kernels == Kernels::Published
            && ![[1, 1], [3, 3]].contains(&kernel)
        {
            return Err(Kept::Because(format!("kernel {}×{}", kernel[0], kernel[1])));
        }
        match Layout::new(shape, self.decompose.block_rule) {
            Ok(layout) if layout.rows <= layout.columns => {
                Err(Kept::Because("the basis of a filter would be as large as the filter".into()))
            }
            Ok(_) => Ok(shape),
            Err(Error::NotDecomposable { reason, .. }) => Err(Kept::Because(reason)),
            Err(other) => Err(Kept::Because(other.to_string())),
        }
    }

    /// The shape under which this policy decomposes a weight, `None` where it stays dense.
    pub(super) fn decomposable(&self, name: &str, dims: &[usize]) -> Result<Option<LayerShape>> {
        match self.shape_of(name, dims) {
            Ok(shape) => Ok(Some(shape)),
            Err(Kept::Because(reason)) if self.undecomposable == Undecomposable::Refuse => {
                Err(Error::NotDecomposable { layer: name.into(), reason })
            }
            Err(_) => Ok(None),
        }
    }

    /// Decomposes one layer as this policy says.
    ///
    /// # Errors
    /// As [`SdLayer::decompose`]; [`Error::Config`] also for vector pruning or basis bits outside their range.
    pub fn compress_layer(&self, mut weights: Vec<f32>, shape: LayerShape) -> Result<SdLayer> {
        if let Some(pruning) = self.vector_pruning {
            prune_vectors(&mut weights, &shape, pruning, PRUNING_GROUP)?;
        }
        let spatial = matches!(shape, LayerShape::Conv { kernel: [_, width], .. } if width > 1);
        let config = DecomposeConfig {
            row_threshold: self.decompose.row_threshold && (spatial || self.threshold_vectors_everywhere),
            ..self.decompose.clone()
        };
        let layer = SdLayer::decompose(&weights, shape, &config)?;
        match self.basis_bits {
            Some(bits) => layer.with_basis_bits(bits),
            None => Ok(layer),
        }
    }
}

/// Filters that are pruned together, as published.
const PRUNING_GROUP: usize = 32;

enum Kept {
    NotAWeight,
    Because(String),
}

/// One compressed layer in a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The weight's name.
    pub name: String,
    /// Its shape.
    pub shape: LayerShape,
    /// `‖W − Ce·B‖_F / ‖W‖_F`.
    pub relative_error: f64,
    /// Sparsity and magnitudes.
    pub stats: LayerStats,
    /// Bits under the layer's cheapest index.
    pub storage: Storage,
}

/// What a compression did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CompressReport {
    /// Compressed layers, by name.
    pub layers: Vec<LayerReport>,
    /// Weights that stayed dense, and why.
    pub kept_dense: Vec<(String, String)>,
}

impl CompressReport {
    /// Zeros among all coefficients; 0 where nothing was compressed.
    pub fn element_sparsity(&self) -> f64 {
        let sum = |f: fn(&LayerStats) -> usize| self.layers.iter().map(|l| f(&l.stats)).sum::<usize>();
        let entries = sum(|s| s.entries);
        if entries == 0 { 0.0 } else { 1.0 - sum(|s| s.non_zeros) as f64 / entries as f64 }
    }

    /// Zero rows among all rows; 0 where nothing was compressed.
    pub fn vector_sparsity(&self) -> f64 {
        let sum = |f: fn(&LayerStats) -> usize| self.layers.iter().map(|l| f(&l.stats)).sum::<usize>();
        sum(|s| s.zero_rows) as f64 / sum(|s| s.rows).max(1) as f64
    }

    /// Bits of the compressed layers.
    pub fn storage(&self) -> Storage {
        self.layers.iter().map(|layer| layer.storage).sum()
    }
}

/// Compresses every weight of a store; everything else is carried along dense.
///
/// A weight is what is named `weight` and has four dimensions (a convolution) or two (a linear layer). Those of other
/// numbers of dimensions, but for one, have no useful decomposition. A table of embeddings has two as well and is taken
/// for a linear layer: name it in [`CompressPolicy::keep_dense`] unless that is wanted.
///
/// ```
/// use quant::smartdeal::{compress, CompressPolicy};
/// use tch::{nn, Device};
/// let store = nn::VarStore::new(Device::Cpu);
/// nn::linear(store.root() / "fc", 64, 10, Default::default());
/// let (model, report) = compress(&store, &CompressPolicy::with_theta(0.02))?;
/// assert_eq!((model.records.len(), report.layers.len()), (2, 1));
/// # Ok::<(), quant::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for a setting outside its range, and for a prefix of [`CompressPolicy::keep_dense`] that no name
/// begins with; [`Error::NotFinite`] for a weight that is not finite, by name; under [`Undecomposable::Refuse`],
/// [`Error::NotDecomposable`] for a layer without a useful decomposition.
pub fn compress(store: &VarStore, policy: &CompressPolicy) -> Result<(SdzModel, CompressReport)> {
    compress_tensors(store.variables(), policy)
}

/// [`compress`] for any named tensors; the result is sorted by name.
///
/// # Errors
/// As [`compress`].
pub fn compress_tensors(
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    policy: &CompressPolicy,
) -> Result<(SdzModel, CompressReport)> {
    policy.validate()?;
    let mut dense = Vec::new();
    for (name, tensor) in tensors {
        let dims = tensor.size().iter().map(|d| *d as usize).collect();
        dense.push((name, DenseTensor { dims, values: floats(&tensor)? }));
    }
    policy.check_prefixes(dense.iter().map(|(name, _)| name))?;
    dense.sort_by(|a, b| a.0.cmp(&b.0));
    let done: Vec<(String, Record, Done)> = dense
        .into_par_iter()
        .map(|(name, tensor)| match policy.shape_of(&name, &tensor.dims) {
            Ok(shape) => {
                let layer = policy.compress_layer(tensor.values.clone(), shape).map_err(|e| name_it(e, &name))?;
                let report = LayerReport {
                    name: name.clone(),
                    shape,
                    relative_error: layer.relative_error(&tensor.values)?,
                    stats: layer.stats(),
                    storage: storage(&layer, smallest_scheme(&layer)?)?,
                };
                Ok((name, Record::Layer(layer), Done::Compressed(report)))
            }
            Err(Kept::NotAWeight) => Ok((name, Record::Dense(tensor), Done::Carried)),
            Err(Kept::Because(reason)) if policy.undecomposable == Undecomposable::Refuse => {
                Err(Error::NotDecomposable { layer: name, reason })
            }
            Err(Kept::Because(reason)) => Ok((name, Record::Dense(tensor), Done::Kept(reason))),
        })
        .collect::<Result<_>>()?;
    let (mut model, mut report) = (SdzModel::default(), CompressReport::default());
    for (name, record, done) in done {
        match done {
            Done::Compressed(layer) => report.layers.push(layer),
            Done::Kept(reason) => report.kept_dense.push((name.clone(), reason)),
            Done::Carried => {}
        }
        model.records.insert(name, record);
    }
    Ok((model, report))
}

enum Done {
    Compressed(LayerReport),
    Kept(String),
    Carried,
}

fn name_it(error: Error, name: &str) -> Error {
    match error {
        Error::NotFinite { position, value, .. } => {
            Error::NotFinite { what: format!("weight `{name}`"), position, value }
        }
        other => other,
    }
}

/// A tensor's values as f32, row-major.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat =
        tensor.detach().f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_reshape([-1])?;
    Ok(Vec::<f32>::try_from(flat)?)
}

/// A tensor of the given values and dimensions.
pub(crate) fn tensor_of(values: &[f32], dims: &[usize]) -> Result<Tensor> {
    let dims: Vec<i64> = dims.iter().map(|d| *d as i64).collect();
    Ok(Tensor::f_from_slice(values)?.f_reshape(dims)?)
}

impl SdzModel {
    /// Copies every tensor of this model, compressed weights rebuilt, into the variables of the same names.
    ///
    /// # Errors
    /// A record without a variable of its name and shape; the store is then unchanged.
    pub fn write_into(&self, store: &VarStore) -> Result<()> {
        self.copy_into(store, |_| true)
    }

    /// Copies the dense tensors only.
    pub(super) fn write_dense_into(&self, store: &VarStore) -> Result<()> {
        self.copy_into(store, |record| matches!(record, Record::Dense(_)))
    }

    fn copy_into(&self, store: &VarStore, wanted: impl Fn(&Record) -> bool) -> Result<()> {
        let variables = store.variables();
        let mut copies = Vec::new();
        for (name, record) in self.records.iter().filter(|(_, record)| wanted(record)) {
            let variable = variables
                .get(name)
                .ok_or_else(|| Error::Missing { name: name.clone(), place: "the variable store".into() })?;
            let DenseTensor { dims, values } = record.to_dense();
            let expected = variable.size();
            if !expected.iter().map(|d| *d as usize).eq(dims.iter().copied()) {
                return Err(Error::Shape {
                    what: format!("`{name}`"),
                    expected: format!("{expected:?}"),
                    found: format!("{dims:?}"),
                });
            }
            copies.push((variable.shallow_clone(), tensor_of(&values, &dims)?));
        }
        tch::no_grad(|| copies.into_iter().try_for_each(|(mut to, from)| to.f_copy_(&from)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn};

    /// Weights of every size up to a fifth, the same whoever else draws from libtorch's generator meanwhile.
    fn store() -> VarStore {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        nn::conv2d(&root / "conv1", 4, 8, 3, Default::default());
        nn::conv2d(&root / "depthwise", 8, 8, 3, nn::ConvConfig { groups: 8, ..Default::default() });
        nn::conv2d(&root / "stem", 3, 4, 5, Default::default());
        nn::linear(&root / "fc", 30, 10, Default::default());
        nn::batch_norm2d(&root / "bn1", 8, Default::default());
        let variables: std::collections::BTreeMap<_, _> = store.variables().into_iter().collect();
        for (place, mut variable) in (0_i64..).zip(variables.into_values()) {
            let count = variable.numel() as i64;
            let places = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.7 + place;
            let values = (places.square() * 0.37).sin().view_as(&variable) * 0.2;
            tch::no_grad(|| variable.copy_(&values));
        }
        store
    }

    #[test]
    fn every_weight_is_compressed_or_listed() {
        let (model, report) = compress(&store(), &CompressPolicy::with_theta(0.05)).unwrap();
        let names: Vec<&str> = report.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["conv1.weight", "fc.weight", "stem.weight"]);
        assert_eq!(report.kept_dense.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["depthwise.weight"]);
        assert_eq!(model.records.len(), store().variables().len());
        assert!(report.element_sparsity() > 0.0 && report.storage().compression_ratio() > 4.0);
    }

    #[test]
    fn policies_keep_layers_dense() {
        let policy = CompressPolicy {
            kernels: Kernels::Published,
            keep_dense: vec!["fc".into()],
            ..CompressPolicy::with_theta(0.05)
        };
        let (_, report) = compress(&store(), &policy).unwrap();
        assert_eq!(report.layers.len(), 1);
        assert_eq!(report.kept_dense.len(), 3);
        let strict = CompressPolicy { undecomposable: Undecomposable::Refuse, ..policy };
        assert!(matches!(compress(&store(), &strict), Err(Error::NotDecomposable { .. })));
    }

    #[test]
    fn a_weight_of_three_dimensions_is_listed_or_refused_and_nothing_compressed_saves_nothing() {
        let store = VarStore::new(Device::Cpu);
        nn::conv1d(store.root() / "conv", 4, 8, 3, Default::default());
        nn::batch_norm1d(store.root() / "bn", 8, Default::default());
        let policy = CompressPolicy::with_theta(0.05);
        let (model, report) = compress(&store, &policy).unwrap();
        assert_eq!((model.layers().count(), report.layers.len()), (0, 0));
        assert_eq!(report.kept_dense, [("conv.weight".to_owned(), "a weight of 3 dimensions".to_owned())]);
        assert_eq!((report.element_sparsity(), report.vector_sparsity()), (0.0, 0.0));
        assert_eq!(report.storage().compression_ratio(), 1.0);
        let strict = CompressPolicy { undecomposable: Undecomposable::Refuse, ..policy };
        let refused = compress(&store, &strict);
        assert!(matches!(refused, Err(Error::NotDecomposable { layer, .. }) if layer == "conv.weight"));
    }

    #[test]
    fn a_prefix_that_no_name_begins_with_is_refused() {
        let with = |prefixes: &[&str]| {
            let keep_dense = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            compress(&store(), &CompressPolicy { keep_dense, ..CompressPolicy::with_theta(0.05) }).map(drop)
        };
        let refused = with(&["fc", "classifier"]).unwrap_err().to_string();
        assert_eq!(refused, "`keep_dense`: expected prefixes that names of the network begin with, found `classifier`");
        assert!(matches!(with(&["c.weight"]), Err(Error::Config { name: "keep_dense", .. })));
        // A norm has no weight to decompose, but it is there.
        assert!(with(&["bn1", "conv", "fc.weight"]).is_ok());
    }

    #[test]
    fn a_table_of_embeddings_counts_as_a_linear_weight_unless_it_is_kept() {
        let store = VarStore::new(Device::Cpu);
        nn::embedding(store.root() / "words", 20, 12, nn::EmbeddingConfig::default());
        let (model, _) = compress(&store, &CompressPolicy::with_theta(0.05)).unwrap();
        let shape = LayerShape::Linear { out_features: 20, in_features: 12 };
        assert_eq!(model.layer("words.weight").map(SdLayer::shape), Some(shape));
        let keep = CompressPolicy { keep_dense: vec!["words".into()], ..CompressPolicy::with_theta(0.05) };
        assert!(compress(&store, &keep).unwrap().0.layer("words.weight").is_none());
    }

    #[test]
    fn rebuilt_weights_land_in_the_store() {
        let (from, to) = (store(), store());
        let (model, _) = compress(&from, &CompressPolicy::with_theta(0.02)).unwrap();
        tch::no_grad(|| to.variables().values_mut().for_each(|v| drop(v.fill_(0.5))));
        model.write_into(&to).unwrap();
        let weight = floats(&to.variables()["fc.weight"]).unwrap();
        assert_eq!(weight, model.layer("fc.weight").unwrap().rebuild());
        let bias = |s: &VarStore| floats(&s.variables()["fc.bias"]).unwrap();
        assert_eq!(bias(&to), bias(&from));
        let other = VarStore::new(Device::Cpu);
        assert!(matches!(model.write_into(&other), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_broken_weight_is_named() {
        let store = store();
        let _ = tch::no_grad(|| store.variables()["conv1.weight"].get(0).fill_(f64::NAN));
        let error = compress(&store, &CompressPolicy::default()).unwrap_err();
        assert!(error.to_string().contains("conv1.weight"), "{error}");
    }

    #[test]
    fn row_thresholds_spare_linear_layers_unless_told() {
        let mut policy = CompressPolicy::with_theta(0.05);
        policy.decompose.row_threshold = true;
        let zero_rows = |policy: &CompressPolicy| {
            let (model, _) = compress(&store(), policy).unwrap();
            ["conv1.weight", "fc.weight"].map(|name| model.layer(name).unwrap().stats().zero_rows)
        };
        let [conv, linear] = zero_rows(&policy);
        policy.threshold_vectors_everywhere = true;
        let [conv_again, linear_now] = zero_rows(&policy);
        assert_eq!(conv, conv_again);
        assert!(linear_now > linear);
    }
}
