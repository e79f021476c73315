//! What all parts share: token batches drawn from a seed, the objective, tickets and their models.

use crate::statistics;
use core_tensor::checkpoint::state_of;
use core_tensor::data::{BatchSource, OnDevice, ToDevice};
use core_tensor::networks::bert::{Bert, BertConfig, BertInput, Rows, load_state_into, load_state_keeping};
use core_tensor::nn::{Init, LayerFactory, LinearConfig, Module, Standard};
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Schedule};
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::train::{Loss, Objective, Observer, Progress, TrainConfig, Trainer};
use lth::structured::{
    COEFFICIENT, SlimConfig, SlimGroup, SlimmedObjective, Slimming, TicketMask, bert_groups, coefficients, prune,
    pruned_config, slim_parameters,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::nn::VarStore;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

/// Token sequences of one length with a class each.
pub(super) struct Tokens {
    pub(super) input: BertInput,
    pub(super) target: Tensor,
}

impl Tokens {
    /// From rows of tokens and their classes.
    pub(super) fn new(ids: &[i64], classes: &[i64]) -> Self {
        let (rows, length) = (classes.len() as i64, (ids.len() / classes.len()) as i64);
        Self {
            input: BertInput::new(Tensor::from_slice(ids).view([rows, length])),
            target: Tensor::from_slice(classes),
        }
    }

    /// Some of the rows.
    pub(super) fn rows(&self, rows: &Tensor) -> Self {
        let select = |tensor: &Tensor| tensor.index_select(0, rows);
        let input = BertInput {
            ids: select(&self.input.ids),
            types: self.input.types.as_ref().map(select),
            mask: self.input.mask.as_ref().map(select),
        };
        Self { input, target: select(&self.target) }
    }
}

impl ToDevice for Tokens {
    fn to_device(self, device: Device) -> Self {
        Self { input: self.input.to_device(device), target: self.target.to_device(device) }
    }
}

/// Batches that a function draws anew for each step, from the seed, the epoch and the step.
pub(super) struct Drawn<F> {
    pub(super) draw: F,
    pub(super) steps: u64,
    pub(super) seed: u64,
}

impl<F: Fn(&mut ChaCha8Rng) -> Tokens> BatchSource for Drawn<F> {
    type Batch = Tokens;

    fn batches_per_epoch(&self) -> u64 {
        self.steps
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Tokens>> + '_>> {
        let mut random = ChaCha8Rng::seed_from_u64(derive(self.seed, Purpose::Data, epoch));
        Ok(Box::new((0..self.steps).map(move |_| Ok((self.draw)(&mut random)))))
    }
}

/// A BERT that classifies from its first token, through the published pooler or directly.
///
/// At the published initial range the pooler passes on a sixth of the gradient in a network 64 wide, so that the penalty
/// drowns the rest of it in a search from scratch: that one is run without the pooler, and once with it for comparison.
#[derive(Debug)]
pub(super) struct Classifier {
    bert: Bert,
    head: Module,
    pooled: bool,
}

impl Classifier {
    fn new(
        path: &tch::nn::Path,
        factory: &dyn LayerFactory,
        config: &BertConfig,
        Shape { labels, pooled }: Shape,
    ) -> anyhow::Result<Self> {
        let root = path / "bert";
        let bert =
            if pooled { Bert::new(&root, factory, config)? } else { Bert::encoder_only(&root, factory, config)? };
        let init = Init::Normal { std: config.initializer_range };
        let head = LinearConfig { init, ..LinearConfig::new(config.hidden_size, labels) };
        Ok(Self { bert, head: factory.linear(&(path / "classifier"), head), pooled })
    }

    pub(super) fn forward(&self, input: &BertInput, train: bool) -> core_tensor::Result<Tensor> {
        let first = match self.pooled {
            true => self.bert.pooled(input, train)?,
            false => self.bert.hidden_rows(input, Rows::First, train)?.squeeze_dim(1),
        };
        Ok(self.head.forward_t(&first, train))
    }
}

/// Classes, and whether the pooler stands before them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) labels: i64,
    pub(super) pooled: bool,
}

/// Cross-entropy of a classifier.
pub(super) struct Classify<'a>(pub(super) &'a Classifier);

impl Objective<Tokens> for Classify<'_> {
    fn loss(&mut self, batch: &Tokens, _: &Progress) -> core_tensor::Result<Loss> {
        let logits = self.0.forward(&batch.input, true)?;
        let loss = logits.f_cross_entropy_loss(&batch.target, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        Ok(Loss::single("cross_entropy", loss))
    }
}

/// A task's objective that keeps the loss of every step, before a penalty is added.
pub(super) struct Recorded<O> {
    task: O,
    losses: Vec<f64>,
}

impl<O> Recorded<O> {
    pub(super) fn new(task: O) -> Self {
        Self { task, losses: Vec::new() }
    }

    /// A loss a step.
    pub(super) fn losses(&self) -> &[f64] {
        &self.losses
    }
}

impl<B, O: Objective<B>> Objective<B> for Recorded<O> {
    fn loss(&mut self, batch: &B, progress: &Progress) -> core_tensor::Result<Loss> {
        let loss = self.task.loss(batch, progress)?;
        self.losses.push(loss.total.double_value(&[]));
        Ok(loss)
    }
}

/// Means of `length` losses in turn, each under the step that it ends with. What is left at the end does not count.
pub(super) fn stretch_means(losses: &[f64], length: usize) -> Vec<(u64, f64)> {
    let last = |place: usize| ((place + 1) * length) as u64;
    let stretches = losses.chunks_exact(length).enumerate();
    stretches.filter_map(|(place, stretch)| Some((last(place), statistics::mean(stretch)?))).collect()
}

/// A classifier with its variables.
pub(super) struct Model {
    pub(super) store: VarStore,
    pub(super) network: Classifier,
    pub(super) config: BertConfig,
    shape: Shape,
}

impl Model {
    /// Fresh weights from a seed, or another factory's layers around them, on a device.
    pub(super) fn fresh(
        factory: &dyn LayerFactory,
        config: &BertConfig,
        shape: Shape,
        (seed, device): (u64, Device),
    ) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let network = Classifier::new(&store.root(), factory, config, shape)?;
        store.set_device(device);
        Ok(Self { store, network, config: config.clone(), shape })
    }

    /// With these weights.
    pub(super) fn with(
        config: &BertConfig,
        shape: Shape,
        weights: &NamedTensors,
        device: Device,
    ) -> anyhow::Result<Self> {
        let model = Self::fresh(&Standard, config, shape, (0, device))?;
        load_state_into(&model.store, weights)?;
        Ok(model)
    }

    /// With coefficients of 1 on these weights.
    pub(super) fn slimmed(
        config: &BertConfig,
        shape: Shape,
        weights: &NamedTensors,
        device: Device,
    ) -> anyhow::Result<Self> {
        let model = Self::fresh(&Slimming(Standard), config, shape, (0, device))?;
        load_state_keeping(&model.store, weights, &[COEFFICIENT])?;
        Ok(model)
    }

    /// The ticket's part of these weights, cut out.
    pub(super) fn cut(&self, weights: &NamedTensors, ticket: &TicketMask) -> anyhow::Result<Self> {
        let groups = self.groups();
        let (smaller, _) = prune(weights, &groups, ticket)?;
        let config = pruned_config(&self.config, &groups, ticket)?;
        Self::with(&config, self.shape, &smaller, self.device())
    }

    pub(super) fn groups(&self) -> Vec<SlimGroup> {
        bert_groups(&self.config, "bert.")
    }

    /// Where its weights are.
    pub(super) fn device(&self) -> Device {
        self.store.device()
    }

    /// Copies of all weights.
    pub(super) fn weights(&self) -> NamedTensors {
        lth::copies(&state_of(&self.store))
    }

    /// Share of correct classes.
    pub(super) fn accuracy(&self, set: &Tokens) -> anyhow::Result<f64> {
        let BertInput { ids, types, mask } = &set.input;
        let to = |tensor: &Tensor| tensor.to_device(self.device());
        let input = BertInput { ids: to(ids), types: types.as_ref().map(to), mask: mask.as_ref().map(to) };
        let logits = no_grad(|| self.network.forward(&input, false))?;
        Ok(logits
            .argmax(-1, false)
            .eq_tensor(&to(&set.target))
            .to_kind(Kind::Float)
            .mean(Kind::Double)
            .double_value(&[]))
    }

    /// Trains with AdamW without decay on batches brought to its device, watched by `observers`; with `slim`, under its
    /// penalty.
    pub(super) fn train(
        &self,
        source: &dyn BatchSource<Batch = Tokens>,
        (epochs, schedule, seed): (u64, Schedule, u64),
        slim: Option<SlimConfig>,
        observers: Vec<&mut dyn Observer>,
    ) -> anyhow::Result<()> {
        let mut task = Classify(&self.network);
        let mut optimizer = Adam::new(slim_parameters(&self.store, 0.0), AdamConfig::decoupled())?;
        let mut slimmed;
        let objective: &mut dyn Objective<Tokens> = match slim {
            None => &mut task,
            Some(config) => {
                slimmed = SlimmedObjective::new(&mut task, &coefficients(&self.store, &self.groups())?, config)?;
                &mut slimmed
            }
        };
        let mut trainer = Trainer::new(TrainConfig { epochs, seed, schedule }, objective, &mut optimizer)?;
        for observer in observers {
            trainer.observe(observer);
        }
        trainer.fit(&OnDevice::new(source, self.device()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls by one each step.
    struct Falling(f64);

    impl Objective<()> for Falling {
        fn loss(&mut self, _: &(), _: &Progress) -> core_tensor::Result<Loss> {
            self.0 -= 1.0;
            Ok(Loss::single("falling", Tensor::from(self.0)))
        }
    }

    #[test]
    fn the_loss_of_every_step_is_kept_and_averaged_by_stretches() {
        let mut recorded = Recorded::new(Falling(6.0));
        for _ in 0..5 {
            recorded.loss(&(), &Progress::default()).unwrap();
        }
        assert_eq!(recorded.losses(), [5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(stretch_means(recorded.losses(), 2), [(2, 4.5), (4, 2.5)]);
        assert!(stretch_means(recorded.losses(), 6).is_empty());
    }
}
