//! Batch norm with two sets of statistics, one for clean and one for adversarial images.

use super::error::{Error, Result};
use core_tensor::nn::{
    BatchNorm2d, BatchNormConfig, Conv2dConfig, EmbeddingConfig, GateConfig, LayerFactory, LayerNormConfig,
    LinearConfig, Module, PoolConfig, Standard, StridedConv2d,
};
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;
use tch::nn::{ModuleT, Path, VarStore};

/// Which set of batch-norm scales, shifts and statistics a forward pass uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// That of clean images; under the usual names, such as `bn1.weight`.
    #[default]
    Normal,
    /// That of adversarial images; such as `bn1.adversarial.weight`.
    Adversarial,
}

/// What stands in the names of the adversarial branch's variables.
const SEGMENT: &str = "adversarial";

impl std::str::FromStr for Branch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "normal" => Ok(Self::Normal),
            SEGMENT => Ok(Self::Adversarial),
            other => Err(Error::NoSuchBranch { found: other.into(), known: vec!["normal".into(), SEGMENT.into()] }),
        }
    }
}

/// Chooses the branch of every [`DualNorm`] that was built with it. Clones are handles on the same switch.
#[derive(Debug, Clone, Default)]
pub struct BranchSwitch(Arc<AtomicBool>);

impl BranchSwitch {
    /// The branch that forward passes use now; [`Branch::Normal`] at first.
    pub fn current(&self) -> Branch {
        if self.0.load(Ordering::Relaxed) { Branch::Adversarial } else { Branch::Normal }
    }

    /// From now on.
    pub fn select(&self, branch: Branch) {
        self.0.store(branch == Branch::Adversarial, Ordering::Relaxed);
    }

    /// While `run` runs; then whatever it was before, even if `run` panics.
    pub fn during<R>(&self, branch: Branch, run: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a BranchSwitch, Branch);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.select(self.1);
            }
        }
        let _restore = Restore(self, self.current());
        self.select(branch);
        run()
    }
}

/// Makes every batch norm a [`DualNorm`]; all other layers are those of the factory it wraps.
///
/// Adversarial images have other activation statistics than clean ones, and one batch norm would estimate a mixture that is
/// right for neither (Xie et al., arXiv 1911.09665; Jiang et al., *ACL*, arXiv 2010.13337). All weights but the norms' are
/// shared.
///
/// ```
/// use contrast::learn::{Branch, BranchSwitch, DualBatchNorm, extract};
/// use core_tensor::{checkpoint::{LoadPolicy, load_state}, networks::{Architecture, ConvNetConfig}, nn::Standard};
/// use tch::{Device, Kind, Tensor, nn::VarStore};
///
/// let switch = BranchSwitch::default();
/// let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4], classes: 2 });
/// let store = VarStore::new(Device::Cpu);
/// let network = architecture.build(&store.root(), &DualBatchNorm::new(&switch))?;
///
/// // A training pass in one branch leaves the other's statistics alone.
/// let images = Tensor::ones([2, 1, 8, 8], (Kind::Float, Device::Cpu));
/// switch.during(Branch::Adversarial, || network.forward(&images, true));
///
/// // Afterwards one branch is kept, in an ordinary network.
/// let plain = VarStore::new(Device::Cpu);
/// let kept = architecture.build(&plain.root(), &Standard)?;
/// load_state(&plain, &extract(&store, Branch::Adversarial)?, &LoadPolicy::strict())?;
/// let dual = switch.during(Branch::Adversarial, || network.forward(&images, false));
/// assert!(kept.forward(&images, false).equal(&dual));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct DualBatchNorm<F = Standard> {
    layers: F,
    switch: BranchSwitch,
}

impl DualBatchNorm {
    /// Over plain layers.
    pub fn new(switch: &BranchSwitch) -> Self {
        Self::over(Standard, switch)
    }
}

impl<F: LayerFactory> DualBatchNorm<F> {
    /// Over the layers of another factory, whose own batch norms are not used.
    pub fn over(layers: F, switch: &BranchSwitch) -> Self {
        Self { layers, switch: switch.clone() }
    }
}

impl<F: LayerFactory> LayerFactory for DualBatchNorm<F> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.layers.conv2d(path, config)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        self.layers.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Box::new(DualNorm::new(path, config, &self.switch))
    }

    fn embedding(&self, path: &Path, config: EmbeddingConfig) -> Module {
        self.layers.embedding(path, config)
    }

    fn layer_norm(&self, path: &Path, config: LayerNormConfig) -> Module {
        self.layers.layer_norm(path, config)
    }

    fn gate(&self, path: &Path, config: GateConfig) -> Option<Module> {
        self.layers.gate(path, config)
    }

    fn max_pool2d(&self, config: PoolConfig) -> Module {
        self.layers.max_pool2d(config)
    }

    fn strided_conv2d(&self, path: &Path, config: Conv2dConfig) -> StridedConv2d {
        self.layers.strided_conv2d(path, config)
    }

    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.layers.shortcut_conv2d(path, config)
    }
}

/// Two complete batch norms, of which a switch chooses one.
#[derive(Debug)]
pub struct DualNorm {
    normal: BatchNorm2d,
    adversarial: BatchNorm2d,
    switch: BranchSwitch,
}

impl DualNorm {
    /// Creates both under `path`. They start equal.
    pub fn new(path: &Path, config: BatchNormConfig, switch: &BranchSwitch) -> Self {
        Self {
            normal: BatchNorm2d::new(path, config),
            adversarial: BatchNorm2d::new(&(path / SEGMENT), config),
            switch: switch.clone(),
        }
    }
}

impl ModuleT for DualNorm {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        match self.switch.current() {
            Branch::Normal => self.normal.forward_t(input, train),
            Branch::Adversarial => self.adversarial.forward_t(input, train),
        }
    }
}

/// The variables of one branch under their usual names, as an ordinary network has them. They share the store's memory.
///
/// A variable is of the adversarial branch if the last segment of its name but one is `adversarial`, and the store has
/// one of that name without the segment. All others are shared, or of the normal branch.
///
/// # Errors
/// [`Error::NoSuchBranch`] when the adversarial branch is asked of a store without dual norms.
pub fn extract(store: &VarStore, branch: Branch) -> Result<NamedTensors> {
    let variables = store.variables();
    let (mut own, mut other) = (NamedTensors::new(), NamedTensors::new());
    for (name, tensor) in &variables {
        if let Some(usual) = usual_name(name).filter(|usual| variables.contains_key(usual)) {
            other.insert(usual, tensor.detach());
        } else {
            own.insert(name.clone(), tensor.detach());
        }
    }
    if branch == Branch::Adversarial {
        if other.is_empty() {
            return Err(Error::NoSuchBranch { found: SEGMENT.into(), known: vec!["normal".into()] });
        }
        own.extend(other);
    }
    own.sort_keys();
    Ok(own)
}

/// The name without the segment of the adversarial branch, if the last segment but one is that.
fn usual_name(name: &str) -> Option<String> {
    let (path, own) = name.rsplit_once('.')?;
    let path = path.strip_suffix(SEGMENT)?;
    (path.is_empty() || path.ends_with('.')).then(|| format!("{path}{own}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::checkpoint::{LoadPolicy, load_state};
    use core_tensor::networks::{Architecture, ConvNetConfig};
    use core_tensor::nn::Network;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn images(count: i64, phase: f64) -> Tensor {
        let values = (Tensor::arange(count * 64, (Kind::Float, Device::Cpu)) * 0.7 + phase).sin();
        values.view([count, 1, 8, 8])
    }

    fn architecture() -> Architecture {
        Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![3, 5], classes: 4 })
    }

    type Model = (VarStore, Box<dyn Network>);

    /// A dual network, and an ordinary one with the weights of its normal branch.
    fn twins() -> (BranchSwitch, Model, Model) {
        let switch = BranchSwitch::default();
        let (dual_store, plain_store) = (VarStore::new(Device::Cpu), VarStore::new(Device::Cpu));
        let dual = architecture().build(&dual_store.root(), &DualBatchNorm::new(&switch)).unwrap();
        let plain = architecture().build(&plain_store.root(), &Standard).unwrap();
        load_state(&plain_store, &extract(&dual_store, Branch::Normal).unwrap(), &LoadPolicy::strict()).unwrap();
        (switch, (dual_store, dual), (plain_store, plain))
    }

    #[test]
    fn used_with_one_branch_it_is_an_ordinary_batch_norm() {
        let (switch, (dual_store, dual), (plain_store, plain)) = twins();
        for phase in [0.0, 1.0, 2.0] {
            let (ours, theirs) = (dual.forward(&images(4, phase), true), plain.forward(&images(4, phase), true));
            assert!(ours.equal(&theirs));
            ours.square().sum(Kind::Float).backward();
            theirs.square().sum(Kind::Float).backward();
        }
        assert!(dual.forward(&images(3, 5.0), false).equal(&plain.forward(&images(3, 5.0), false)));
        let kept = extract(&dual_store, Branch::Normal).unwrap();
        for (name, tensor) in plain_store.variables() {
            assert!(kept[&name].equal(&tensor), "{name}");
            let gradient = dual_store.variables()[&name].grad();
            assert_eq!(gradient.defined(), tensor.grad().defined(), "{name}");
            assert!(!gradient.defined() || gradient.equal(&tensor.grad()), "{name}");
        }
        assert_eq!(switch.current(), Branch::Normal);
    }

    #[test]
    fn a_pass_in_one_branch_leaves_the_other_alone() {
        let (switch, (store, dual), _) = twins();
        for branch in [Branch::Normal, Branch::Adversarial] {
            let before: Vec<(String, Tensor)> =
                store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
            let _ = switch.during(branch, || dual.forward(&images(4, 3.0), true));
            for (name, tensor) in before {
                let moved = !store.variables()[&name].equal(&tensor);
                let statistics = name.ends_with("running_mean") || name.ends_with("running_var");
                let own = name.contains(SEGMENT) == (branch == Branch::Adversarial);
                assert_eq!(moved, statistics && own, "{name} in {branch:?}");
            }
        }
    }

    #[test]
    fn an_extracted_branch_is_that_branch_to_the_bit() {
        let (switch, (store, dual), (plain_store, plain)) = twins();
        let _ = switch.during(Branch::Adversarial, || dual.forward(&images(4, 3.0), true));
        let _ = dual.forward(&images(4, 1.0), true);
        for branch in [Branch::Normal, Branch::Adversarial] {
            load_state(&plain_store, &extract(&store, branch).unwrap(), &LoadPolicy::strict()).unwrap();
            let expected = switch.during(branch, || dual.forward(&images(2, 0.5), false));
            assert!(plain.forward(&images(2, 0.5), false).equal(&expected), "{branch:?}");
        }
    }

    #[test]
    fn a_mixture_of_two_distributions_is_right_for_neither_and_two_branches_are() {
        // N(0, 1) and N(2, 4): one norm estimates mean 1 and variance (1 + 4)/2 + ((0 − 2)/2)² = 3.5.
        let store = VarStore::new(Device::Cpu);
        let switch = BranchSwitch::default();
        let config = BatchNormConfig { momentum: 1.0, ..BatchNormConfig::new(1) };
        let dual = DualNorm::new(&(store.root() / "dual"), config, &switch);
        let one = BatchNorm2d::new(&(store.root() / "one"), config);
        // ±1 has mean 0, variance 1; 2 ± 2 has mean 2, variance 4.
        let signs = Tensor::from_slice(&[1.0_f32, -1.0]).repeat([50]).view([100, 1, 1, 1]);
        let (clean, adversarial) = (signs.shallow_clone(), &signs * 2.0 + 2.0);
        let _ = one.forward_t(&Tensor::cat(&[&clean, &adversarial], 0), true);
        let _ = dual.forward_t(&clean, true);
        let _ = switch.during(Branch::Adversarial, || dual.forward_t(&adversarial, true));
        let found = |norm: &BatchNorm2d, samples: f64| {
            // The running variance is the unbiased one.
            let variance = norm.running_var.double_value(&[0]) * (samples - 1.0) / samples;
            [norm.running_mean.double_value(&[0]), variance]
        };
        for (norm, samples, expected) in
            [(&one, 200.0, [1.0, 3.5]), (&dual.normal, 100.0, [0.0, 1.0]), (&dual.adversarial, 100.0, [2.0, 4.0])]
        {
            let [mean, variance] = found(norm, samples);
            // f32 sums of 200 small integers, divided.
            assert!((mean - expected[0]).abs() < 1e-5 && (variance - expected[1]).abs() < 1e-5, "{mean} {variance}");
        }
    }

    #[test]
    fn the_switch_is_restored_after_a_panic() {
        let switch = BranchSwitch::default();
        let panics = || switch.during(Branch::Adversarial, || panic!("in the forward pass"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(switch.current(), Branch::Normal);
    }

    #[test]
    fn a_norm_at_the_root_has_branches_and_modules_called_adversarial_have_none() {
        let store = VarStore::new(Device::Cpu);
        let (switch, config) = (BranchSwitch::default(), BatchNormConfig::new(1));
        let outer = DualNorm::new(&store.root(), config, &switch);
        let own = store.root() / "nets" / SEGMENT;
        let inner = DualNorm::new(&(&own / "bn1"), config, &switch);
        let _plain = BatchNorm2d::new(&(&own / "bn2"), config);
        for norm in [&outer, &inner] {
            let _ = norm.adversarial.running_var.shallow_clone().fill_(2.0);
        }
        let of_one = ["bias", "running_mean", "running_var", "weight"];
        let prefixes = ["", "nets.adversarial.bn1.", "nets.adversarial.bn2."];
        let mut names: Vec<String> =
            prefixes.iter().flat_map(|prefix| of_one.map(|name| format!("{prefix}{name}"))).collect();
        names.sort();
        for (branch, variance) in [(Branch::Normal, 1.0), (Branch::Adversarial, 2.0)] {
            let kept = extract(&store, branch).unwrap();
            assert_eq!(kept.keys().cloned().collect::<Vec<_>>(), names, "{branch:?}");
            let found = prefixes.map(|prefix| kept[&format!("{prefix}running_var")].double_value(&[0]));
            assert_eq!(found, [variance, variance, 1.0], "{branch:?}");
        }
    }

    #[test]
    fn branches_that_are_not_there_are_refused() {
        let store = VarStore::new(Device::Cpu);
        let _network = architecture().build(&store.root(), &Standard).unwrap();
        let refused = extract(&store, Branch::Adversarial);
        assert!(matches!(refused, Err(Error::NoSuchBranch { found, .. }) if found == "adversarial"));
        assert!(extract(&store, Branch::Normal).is_ok());
        assert!(matches!("pgd2".parse::<Branch>(), Err(Error::NoSuchBranch { found, .. }) if found == "pgd2"));
        assert_eq!("adversarial".parse::<Branch>().unwrap(), Branch::Adversarial);
    }

    proptest! {
        #[test]
        fn nested_switches_unwind_in_order(branches in prop::collection::vec(any::<bool>(), 0..8)) {
            fn nest(switch: &BranchSwitch, branches: &[bool]) {
                let before = switch.current();
                if let Some((&adversarial, rest)) = branches.split_first() {
                    let branch = if adversarial { Branch::Adversarial } else { Branch::Normal };
                    switch.during(branch, || {
                        assert_eq!(switch.current(), branch);
                        nest(switch, rest);
                    });
                }
                assert_eq!(switch.current(), before);
            }
            nest(&BranchSwitch::default(), &branches);
        }
    }
}
