//! From a pre-trained encoder to a classifier.

use super::error::{Error, Result};
use core_tensor::nn::Network;
use core_tensor::optim::{Parameter, parameters};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tch::nn::VarStore;
use tch::{Tensor, no_grad};

/// What fine-tuning may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The classifier alone. With [`RobustTraining::tuning`](super::RobustTraining::tuning) the encoder's statistics stay too.
    Linear,
    /// Everything.
    Full,
}

/// Readies a network for fine-tuning: the classifier starts at zero, as in ACL's reference code, and under
/// [`Scope::Linear`] all other variables are frozen. Returns what an optimizer updates.
///
/// Standard linear fine-tuning (SLF), adversarial linear (ALF) and adversarial full (AFF) are
///
/// ```
/// # use contrast::learn::{RobustConfig, RobustTraining, Scope, fine_tuned};
/// # use core_tensor::{networks::{Architecture, ConvNetConfig}, nn::Standard};
/// # use tch::{Device, nn::VarStore};
/// # let store = VarStore::new(Device::Cpu);
/// # let config = ConvNetConfig { in_channels: 1, widths: vec![4], classes: 2 };
/// # let network = Architecture::ConvNet(config).build(&store.root(), &Standard)?;
/// # let (network, radius) = (network.as_ref(), 8.0 / 255.0);
/// // … load the pre-trained branch into `store` …
/// let (slf, alf, aff) = (RobustConfig::standard(), RobustConfig::pgd_at(radius), RobustConfig::trades(radius));
/// for (scope, config) in [(Scope::Linear, slf), (Scope::Linear, alf), (Scope::Full, aff)] {
///     let parameters = fine_tuned(&store, network, scope, 2e-4)?;
///     let objective = RobustTraining::tuning(network, scope, config, 0)?;
///     // … train …
/// #   let _ = (parameters, objective);
/// }
/// # Ok::<(), contrast::learn::Error>(())
/// ```
///
/// What is frozen here are variables. Statistics move in any pass in training mode, such as
/// [`RobustTraining::full`](super::RobustTraining::full) makes under either scope: give the objective the same scope.
///
/// Only what was made to be trained is zeroed, frozen or freed: statistics, and whatever else a layer holds constant, stay
/// as they are.
///
/// # Errors
/// A network whose classifier has nothing to train in the store; nothing has changed then.
pub fn fine_tuned(store: &VarStore, network: &dyn Network, scope: Scope, weight_decay: f64) -> Result<Vec<Parameter>> {
    let prefix = format!("{}.", network.classifier());
    // Frozen at present or not.
    let trainable: HashSet<usize> =
        store.trainable_variables().iter().map(|tensor| tensor.data_ptr() as usize).collect();
    let variables = store.variables().into_iter();
    let variables: Vec<(String, Tensor)> =
        variables.filter(|(_, variable)| trainable.contains(&(variable.data_ptr() as usize))).collect();
    if !variables.iter().any(|(name, _)| name.starts_with(&prefix)) {
        return Err(Error::mismatch(prefix, "the classifier's variables", "none to train in the store"));
    }
    for (name, mut variable) in variables {
        let classifier = name.starts_with(&prefix);
        if classifier {
            let _ = no_grad(|| variable.f_zero_())?;
        }
        let _ = variable.set_requires_grad(classifier || scope == Scope::Full);
    }
    Ok(parameters(store, weight_decay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Ball, Pgd};
    use crate::learn::{Defence, RobustConfig, RobustTraining};
    use core_tensor::data::Batch;
    use core_tensor::networks::{Architecture, ConvNetConfig};
    use core_tensor::nn::Standard;
    use core_tensor::optim::{Optimizer, Sgd, SgdConfig};
    use core_tensor::train::{Objective, Progress};
    use tch::{Device, Kind, Tensor};

    fn network() -> (VarStore, Box<dyn Network>) {
        let store = VarStore::new(Device::Cpu);
        let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4], classes: 3 });
        let network = architecture.build(&store.root(), &Standard).unwrap();
        (store, network)
    }

    fn batch() -> Batch {
        let input = (Tensor::arange(6 * 64, (Kind::Float, Device::Cpu)).sin() * 0.5 + 0.5).view([6, 1, 8, 8]);
        Batch { input, target: Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2]), index: (0..6).collect() }
    }

    fn copies(store: &VarStore) -> Vec<(String, Tensor)> {
        store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
    }

    #[test]
    fn full_fine_tuning_trains_what_was_made_to_be_trained_and_nothing_else() {
        let (store, network) = network();
        // A constant of a layer of somebody's own, which is no statistic by its name.
        let constant = store.root().zeros_no_train("filter", &[3]);
        let of_the_classifier = (store.root() / "fc").ones_no_train("scale", &[3]);
        let mut store = store;
        store.freeze();
        let parameters = fine_tuned(&store, network.as_ref(), Scope::Full, 0.0).unwrap();
        assert!(!constant.requires_grad() && parameters.iter().all(|parameter| parameter.name != "filter"));
        assert!(!of_the_classifier.requires_grad() && of_the_classifier.min().double_value(&[]) == 1.0);
        assert_eq!(parameters.len(), store.trainable_variables().len());
        assert!(store.trainable_variables().iter().all(Tensor::requires_grad));
    }

    #[test]
    fn linear_fine_tuning_leaves_every_byte_of_the_encoder_and_full_fine_tuning_none() {
        let attack = Pgd::new(Ball::linf(0.03)).with_steps(2);
        for (scope, defence) in [Scope::Linear, Scope::Full].into_iter().flat_map(|scope| {
            [Defence::None, Defence::PgdAt, Defence::Trades { beta: 6.0 }].map(|defence| (scope, defence))
        }) {
            let (store, network) = network();
            let config = RobustConfig { defence, attack: attack.clone() };
            let parameters = fine_tuned(&store, network.as_ref(), scope, 1e-2).unwrap();
            let names: Vec<_> = parameters.iter().map(|parameter| parameter.name.clone()).collect();
            assert!(scope == Scope::Full || names == ["fc.bias", "fc.weight"]);
            let before = copies(&store);
            assert!(before.iter().any(|(name, _)| name.ends_with("running_mean")));
            let mut objective = RobustTraining::tuning(network.as_ref(), scope, config, 0).unwrap();
            let mut optimizer = Sgd::new(parameters, SgdConfig::default()).unwrap();
            for step in 0..3 {
                optimizer.zero_grad().unwrap();
                let loss = objective.loss(&batch(), &Progress { epoch: 0, step }).unwrap();
                loss.total.backward();
                optimizer.step(0.5).unwrap();
            }
            for (name, before) in before {
                let moved = !store.variables()[&name].equal(&before);
                let free = scope == Scope::Full || name.starts_with("fc.");
                assert_eq!(moved, free, "{name} under {defence:?}, {scope:?}");
            }
        }
    }

    #[test]
    fn the_classifier_starts_at_zero_and_full_fine_tuning_frees_what_was_frozen() {
        let (store, network) = network();
        fine_tuned(&store, network.as_ref(), Scope::Linear, 0.0).unwrap();
        let all = fine_tuned(&store, network.as_ref(), Scope::Full, 0.0).unwrap();
        let names: Vec<_> = all.iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["bn1.bias", "bn1.weight", "conv1.weight", "fc.bias", "fc.weight"]);
        assert_eq!(network.forward(&batch().input, false).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_store_of_another_network_is_refused_and_left_as_it_was() {
        let (_, network) = network();
        let store = VarStore::new(Device::Cpu);
        // The network's own name, but not at the root.
        let weight = (store.root() / "net" / "fc").ones("weight", &[3]);
        for scope in [Scope::Linear, Scope::Full] {
            let refused = fine_tuned(&store, network.as_ref(), scope, 0.0);
            assert!(matches!(refused, Err(Error::Mismatch { name, .. }) if name == "fc."));
            assert!(weight.requires_grad() && weight.min().double_value(&[]) == 1.0);
        }
    }
}
