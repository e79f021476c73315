//! A training that ends and goes on in another process is the training that never ended, bit for bit: with dropout, with layers
//! that a step leaves out, and with an observer that remembers.
//!
//! One test alone, since libtorch's generator belongs to the whole process.
#![cfg(feature = "torch")]

use core_tensor::data::BatchSource;
use core_tensor::networks::bert::{BertConfig, BertForSequenceClassification, BertInput};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Optimizer, Schedule, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Control, Loss, Objective, Observer, Progress, StepContext, TrainConfig, Trainer};
use core_tensor::{Error, Result};
use tch::{Device, Kind, Tensor, nn::VarStore};

const STEPS: u64 = 6;

/// Sentences of five words of ten; the class is the first word's parity.
struct Sentences;

impl BatchSource for Sentences {
    type Batch = (Tensor, Tensor);

    fn batches_per_epoch(&self) -> u64 {
        STEPS
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<Self::Batch>> + '_>> {
        Ok(Box::new((0..STEPS).map(move |step| {
            let words =
                (Tensor::arange(40, (Kind::Int64, Device::Cpu)) * 7 + (epoch * STEPS + step) as i64).remainder(10);
            let words = words.view([8, 5]);
            let parity = words.select(1, 0).remainder(2);
            Ok((words, parity))
        })))
    }
}

struct Classify<'a>(&'a BertForSequenceClassification);

impl Objective<(Tensor, Tensor)> for Classify<'_> {
    fn loss(&mut self, (words, classes): &(Tensor, Tensor), _: &Progress) -> Result<Loss> {
        let logits = self.0.forward(&BertInput::new(words.shallow_clone()), true)?;
        Ok(Loss::single("loss of classes", logits.cross_entropy_for_logits(classes)))
    }
}

/// Slows down by what it has seen so far, so that a forgotten memory shows in the weights.
#[derive(Default)]
struct Counts(i64);

impl Observer for Counts {
    fn name(&self) -> &str {
        "counts"
    }

    fn after_backward(&mut self, step: &mut StepContext, _: &mut dyn Optimizer) -> Result<()> {
        self.0 += 1;
        step.learning_rate /= self.0 as f64;
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, _: &mut dyn Optimizer) -> Result<Control> {
        Ok(Control::Continue)
    }

    fn state(&self) -> NamedTensors {
        NamedTensors::from_iter([("seen".to_owned(), Tensor::from(self.0))])
    }

    fn load_state(&mut self, state: &NamedTensors) -> Result<()> {
        let seen = state.get("seen").ok_or(Error::Names { missing: vec!["seen".into()], unexpected: Vec::new() })?;
        self.0 = seen.int64_value(&[]);
        Ok(())
    }
}

struct Model {
    store: VarStore,
    network: BertForSequenceClassification,
}

/// The same weights every time.
fn model() -> Model {
    let config = BertConfig {
        num_hidden_layers: 3,
        hidden_size: 16,
        intermediate_size: 32,
        num_attention_heads: 2,
        layer_drop: 0.3,
        ..BertConfig::nano(10)
    };
    let store = VarStore::new(Device::Cpu);
    seed_libtorch(1, Purpose::Initialisation, 0);
    let network = BertForSequenceClassification::new(&store.root(), &Standard, &config, 2).unwrap();
    Model { store, network }
}

/// Trains to the end of `epochs`, on from `from` if there is one, and keeps the training in `to` if asked.
fn train(model: &Model, epochs: u64, from: Option<&std::path::Path>, to: Option<&std::path::Path>) {
    let mut objective = Classify(&model.network);
    let mut optimizer = Adam::new(parameters(&model.store, 0.01), AdamConfig::decoupled()).unwrap();
    let mut counts = Counts::default();
    let config = TrainConfig { epochs, seed: 3, schedule: Schedule::Constant { peak: 1e-2 } };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut counts);
    if let Some(file) = from {
        trainer.restore::<()>(file, &model.store).unwrap();
    }
    trainer.fit(&Sentences).unwrap();
    if let Some(file) = to {
        trainer.save(file, &model.store, &()).unwrap();
    }
}

#[test]
fn dropout_left_out_layers_and_an_observers_memory_survive_a_file() {
    let whole = model();
    let start: Vec<Tensor> = whole.store.trainable_variables().iter().map(Tensor::copy).collect();
    train(&whole, 4, None, None);
    let moved = whole.store.trainable_variables().iter().zip(start).all(|(now, start)| !now.equal(&start));
    assert!(moved, "a weight that was not trained proves nothing");

    let folder = tempfile::tempdir().unwrap();
    for resumed_at in 1..4 {
        let file = folder.path().join("training.safetensors");
        let (first, second) = (model(), model());
        train(&first, resumed_at, None, Some(&file));
        // Whatever other draws the new process has made before.
        seed_libtorch(resumed_at, Purpose::Initialisation, 99);
        train(&second, 4, Some(&file), None);
        let (whole, second) = (whole.store.variables(), second.store.variables());
        for (name, tensor) in &whole {
            assert!(tensor.equal(&second[name]), "{name} differs after a resume at epoch {resumed_at}");
        }
    }
}
