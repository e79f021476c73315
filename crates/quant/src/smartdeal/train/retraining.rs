//! Alternating re-training: an epoch of ordinary training on dense weights, then every weight replaced by its
//! decomposition, and so on from there.

use core_tensor::optim::Optimizer;
use core_tensor::train::{Control, EpochReport, Observer};
use tch::Tensor;
use tch::nn::VarStore;

use crate::Result;
use crate::smartdeal::model::floats;
use crate::smartdeal::{CompressPolicy, CompressReport, Record, SdzModel, compress_tensors};

/// After each epoch decomposes every weight of a network and writes the rebuilt weights back in place.
///
/// Adds the metrics `smartdeal/element_sparsity`, `smartdeal/vector_sparsity`, `smartdeal/compression_ratio` and, with
/// an evaluation, `smartdeal/score`. Keeps the model with the best score after decomposition, or the last without one;
/// a score that is NaN is worse than any other. What the evaluation leaves in tensors that stay dense, norms measured
/// anew for instance, is the best model's. The best model is not part of the observer's state: a resumed training knows
/// only those of its own epochs.
pub struct AlternateRetraining<'a> {
    variables: Vec<(String, Tensor)>,
    policy: CompressPolicy,
    evaluate: Option<Evaluate<'a>>,
    best: Option<(f64, SdzModel, CompressReport)>,
}

type Evaluate<'a> = Box<dyn FnMut() -> core_tensor::Result<f64> + 'a>;

impl std::fmt::Debug for AlternateRetraining<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("AlternateRetraining").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<'a> AlternateRetraining<'a> {
    /// Watches the variables of a store.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a policy that cannot run, or one that keeps a prefix dense that no name begins
    /// with.
    pub fn new(store: &VarStore, policy: CompressPolicy) -> Result<Self> {
        policy.validate()?;
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        policy.check_prefixes(variables.iter().map(|(name, _)| name))?;
        Ok(Self { variables, policy, evaluate: None, best: None })
    }

    /// Scores the network after each decomposition, higher being better. It may change what stays dense, such as the
    /// running statistics of norms; rebuilt weights it must leave.
    pub fn scored_by(mut self, evaluate: impl FnMut() -> core_tensor::Result<f64> + 'a) -> Self {
        self.evaluate = Some(Box::new(evaluate));
        self
    }

    /// Decomposes now and writes back; returns the compressed model and what was done.
    ///
    /// # Errors
    /// A weight that is not finite, by name.
    pub fn project(&mut self) -> Result<(SdzModel, CompressReport)> {
        let named = self.variables.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        let (model, report) = compress_tensors(named, &self.policy)?;
        tch::no_grad(|| -> Result<()> {
            for (name, tensor) in &mut self.variables {
                if let Some(layer) = model.layer(name) {
                    let rebuilt = Tensor::f_from_slice(&layer.rebuild())?.f_view_as(tensor)?;
                    tensor.f_copy_(&rebuilt)?;
                }
            }
            Ok(())
        })?;
        Ok((model, report))
    }

    /// The dense records of a model as the variables are now.
    fn refresh(&self, model: &mut SdzModel) -> Result<()> {
        for (name, tensor) in &self.variables {
            if let Some(Record::Dense(dense)) = model.records.get_mut(name) {
                dense.values = floats(tensor)?;
            }
        }
        Ok(())
    }

    /// The best model so far, its score, and its report; the score is 0 without an evaluation.
    pub fn best(&self) -> Option<(f64, &SdzModel, &CompressReport)> {
        self.best.as_ref().map(|(score, model, report)| (*score, model, report))
    }
}

impl Observer for AlternateRetraining<'_> {
    fn name(&self) -> &str {
        "smartdeal-retraining"
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let (mut model, compressed) = self.project().map_err(crate::Error::into_core)?;
        let metrics = &mut report.metrics;
        metrics.insert("smartdeal/element_sparsity".into(), compressed.element_sparsity());
        metrics.insert("smartdeal/vector_sparsity".into(), compressed.vector_sparsity());
        metrics.insert("smartdeal/compression_ratio".into(), compressed.storage().compression_ratio());
        let score = self.evaluate.as_mut().map(|evaluate| evaluate()).transpose()?;
        if let Some(score) = score {
            metrics.insert("smartdeal/score".into(), score);
        }
        let is_best = match (&self.best, score) {
            (Some((best, ..)), Some(score)) => score > *best || (best.is_nan() && !score.is_nan()),
            _ => true,
        };
        if is_best {
            if score.is_some() {
                self.refresh(&mut model).map_err(crate::Error::into_core)?;
            }
            self.best = Some((score.unwrap_or(0.0), model, compressed));
        }
        Ok(Control::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::optim::{Sgd, SgdConfig, parameters};
    use tch::{Device, nn};

    fn store() -> VarStore {
        let store = VarStore::new(Device::Cpu);
        nn::linear(store.root() / "fc", 30, 10, Default::default());
        store
    }

    /// The best score after each epoch, given each epoch's.
    fn best_after(scores: &[f64]) -> Vec<f64> {
        let store = store();
        let mut next = scores.iter().copied();
        let score = move || -> core_tensor::Result<f64> { Ok(next.next().unwrap_or(f64::NAN)) };
        let mut retraining = AlternateRetraining::new(&store, CompressPolicy::default()).unwrap().scored_by(score);
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let after = |epoch: usize| {
            let metrics = indexmap::IndexMap::new();
            let mut report = EpochReport { epoch: epoch as u64, step: 0, learning_rate: 0.1, metrics };
            retraining.after_epoch(&mut report, &mut optimizer).unwrap();
            retraining.best().unwrap().0
        };
        (0..scores.len()).map(after).collect()
    }

    #[test]
    fn a_score_that_is_nan_is_the_worst() {
        assert_eq!(best_after(&[0.3, f64::NAN, 0.2, 0.4]), [0.3, 0.3, 0.3, 0.4]);
        let first = best_after(&[f64::NAN, f64::NAN, -1.0, f64::NAN, -2.0]);
        assert!(first[0].is_nan() && first[1].is_nan(), "{first:?}");
        assert_eq!(first[2..], [-1.0; 3]);
    }

    #[test]
    fn norms_that_the_scorer_measured_anew_are_the_best_models() {
        let store = store();
        let norm = nn::batch_norm2d(store.root() / "bn", 3, Default::default());
        let mut means = norm.running_mean.shallow_clone();
        let mut passes = 0.0;
        // A first score of 1 with means of 7, and a worse one with means of 8.
        let score = move || -> core_tensor::Result<f64> {
            let _ = tch::no_grad(|| means.fill_(7.0 + passes));
            passes += 1.0;
            Ok(1.0 / passes)
        };
        let mut retraining = AlternateRetraining::new(&store, CompressPolicy::default()).unwrap().scored_by(score);
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        for epoch in 0..2 {
            let mut report = EpochReport { epoch, step: 0, learning_rate: 0.1, metrics: indexmap::IndexMap::new() };
            retraining.after_epoch(&mut report, &mut optimizer).unwrap();
        }
        let (score, model, _) = retraining.best().unwrap();
        let Record::Dense(means) = &model.records["bn.running_mean"] else { panic!("a norm has no layer") };
        assert_eq!((score, means.values.as_slice()), (1.0, &[7.0; 3][..]));
    }

    #[test]
    fn the_best_model_is_not_in_the_state() {
        let store = store();
        let mut retraining = AlternateRetraining::new(&store, CompressPolicy::default()).unwrap();
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let metrics = indexmap::IndexMap::new();
        let mut report = EpochReport { epoch: 0, step: 0, learning_rate: 0.1, metrics };
        retraining.after_epoch(&mut report, &mut optimizer).unwrap();
        assert!(retraining.best().is_some() && retraining.state().is_empty());
    }

    #[test]
    fn a_prefix_that_no_name_begins_with_is_refused_at_once() {
        let policy = CompressPolicy { keep_dense: vec!["cf".into()], ..CompressPolicy::default() };
        let refused = AlternateRetraining::new(&store(), policy).map(drop);
        assert!(matches!(refused, Err(crate::Error::Config { name: "keep_dense", .. })));
    }
}
