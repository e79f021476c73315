//! Alternating re-training: an epoch of ordinary training on dense weights, then every weight replaced by its
//! decomposition, and so on from there.

use core_tensor::optim::Optimizer;
use core_tensor::train::{Control, EpochReport, Observer};
use tch::Tensor;
use tch::nn::VarStore;

use crate::Result;
use crate::smartdeal::{CompressPolicy, CompressReport, SdzModel, compress_tensors};

/// After each epoch decomposes every weight of a network and writes the rebuilt weights back in place.
///
/// Adds the metrics `smartdeal/element_sparsity`, `smartdeal/vector_sparsity`, `smartdeal/compression_ratio` and, with
/// an evaluation, `smartdeal/score`. Keeps the model with the best score after decomposition, or the last without one.
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
    /// A policy that cannot run.
    pub fn new(store: &VarStore, policy: CompressPolicy) -> Result<Self> {
        policy.validate()?;
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { variables, policy, evaluate: None, best: None })
    }

    /// Scores the network after each decomposition, higher being better.
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
        let (model, compressed) = self.project().map_err(crate::Error::into_core)?;
        let metrics = &mut report.metrics;
        metrics.insert("smartdeal/element_sparsity".into(), compressed.element_sparsity());
        metrics.insert("smartdeal/vector_sparsity".into(), compressed.vector_sparsity());
        metrics.insert("smartdeal/compression_ratio".into(), compressed.storage().compression_ratio());
        let score = self.evaluate.as_mut().map(|evaluate| evaluate()).transpose()?;
        if let Some(score) = score {
            metrics.insert("smartdeal/score".into(), score);
        }
        let is_best = match (&self.best, score) {
            (Some((best, ..)), Some(score)) => score > *best,
            _ => true,
        };
        if is_best {
            self.best = Some((score.unwrap_or(0.0), model, compressed));
        }
        Ok(Control::Continue)
    }
}
