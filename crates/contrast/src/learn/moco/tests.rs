use super::*;
use core_tensor::train::TrainConfig;
use proptest::prelude::*;
use tch::{Device, nn};

fn vector(values: &[f64], width: i64) -> Tensor {
    Tensor::from_slice(values).view([-1, width])
}

#[test]
fn info_nce_worked_out_by_hand() {
    // Logits (.6, 0, 1) / .2 = (3, 0, 5): −log softmax of the first.
    let (query, key) = (vector(&[1.0, 0.0], 2), vector(&[0.6, 0.8], 2));
    let queue = vector(&[0.0, 1.0, 1.0, 0.0], 2);
    let expected = (3.0_f64.exp() + 1.0 + 5.0_f64.exp()).ln() - 3.0;
    let found = info_nce(&query, &key, &queue, 0.2).unwrap().double_value(&[]);
    assert!((found - expected).abs() < 1e-12 && (found - 2.1328452337).abs() < 1e-9, "{found}");
    // A positive that is no better than K negatives: log(K + 1).
    let same = vector(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2);
    let found = info_nce(&query, &query, &same, 0.2).unwrap().double_value(&[]);
    assert!((found - 4.0_f64.ln()).abs() < 1e-12);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let (rows, queue) = (vector(&[1.0, 0.0], 2), vector(&[1.0, 0.0, 0.0], 3));
    assert!(matches!(info_nce(&rows, &rows, &queue, 0.2), Err(Error::Mismatch { name, .. }) if name == "queue"));
    assert!(matches!(info_nce(&rows, &queue, &rows, 0.2), Err(Error::Mismatch { name, .. }) if name == "keys"));
    assert!(matches!(info_nce(&rows, &rows, &rows, 0.0), Err(Error::InvalidTemperature { .. })));
}

/// A linear map of 2 × 2 images to 3 numbers.
fn tower(value: f64) -> (VarStore, Tensor) {
    let store = VarStore::new(Device::Cpu);
    let weight = store.root().var("weight", &[3, 4], nn::Init::Const(value));
    (store, weight)
}

fn linear<'a>(weight: &'a Tensor) -> Embed<'a> {
    Box::new(move |images, _| images.flatten(1, -1).linear(weight, None::<Tensor>))
}

fn batch(images: i64, phase: f64) -> ViewBatch {
    let values = (Tensor::arange(2 * images * 4, (Kind::Float, Device::Cpu)) * 1.3 + phase).sin();
    ViewBatch { views: values.view([2 * images, 1, 2, 2]), index: (0..images as usize).collect() }
}

fn config(queue: i64, momentum: f64) -> MoCoConfig {
    MoCoConfig { queue, momentum, ..MoCoConfig::default() }
}

#[test]
fn the_key_encoder_follows_as_an_exponential_mean() {
    for (momentum, expected) in [(0.999, 0.002_997_001), (1.0, 0.0), (0.0, 1.0)] {
        let ((query_store, query), (key_store, key)) = (tower(0.0), tower(0.5));
        let embeds = (linear(&query), linear(&key));
        let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config(8, momentum), 0).unwrap();
        // Made equal at the start, whatever it was before, and no longer trainable.
        assert_eq!(key.abs().max().double_value(&[]), 0.0);
        assert!(!key.requires_grad());
        let _ = no_grad(|| query.shallow_clone().fill_(1.0));
        for _ in 0..3 {
            moco.move_key_encoder().unwrap();
        }
        // 1 − .999³, in f32.
        assert!((key.double_value(&[0, 0]) - expected).abs() < 1e-7, "{momentum}");
    }
}

#[test]
fn the_queue_forgets_its_first_content_in_order_and_wraps() {
    let ((query_store, query), (key_store, key)) = (tower(0.1), tower(0.0));
    let embeds = (linear(&query), linear(&key));
    let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config(6, 1.0), 0).unwrap();
    let rows =
        |from: i64| Tensor::arange_start(from, from + 2, (Kind::Float, Device::Cpu)).view([2, 1]).expand([2, 3], false);
    let firsts = |moco: &MoCo| Vec::<f64>::try_from(moco.queue().select(1, 0).to_kind(Kind::Double)).unwrap();
    for from in [10, 20, 30] {
        moco.enqueue(&rows(from)).unwrap();
    }
    assert_eq!(firsts(&moco), [10.0, 11.0, 20.0, 21.0, 30.0, 31.0]);
    moco.enqueue(&rows(40)).unwrap();
    assert_eq!(firsts(&moco), [40.0, 41.0, 20.0, 21.0, 30.0, 31.0]);
}

#[test]
fn no_gradient_reaches_the_key_encoder_and_the_query_gets_one() {
    for symmetric in [false, true] {
        let ((query_store, query), (key_store, key)) = (tower(0.0), tower(0.0));
        no_grad(|| query.shallow_clone().copy_(&(Tensor::arange(12, (Kind::Float, Device::Cpu)).sin().view([3, 4]))));
        let embeds = (linear(&query), linear(&key));
        let config = MoCoConfig { symmetric, ..config(8, 0.9) };
        let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config, 0).unwrap();
        let loss = moco.loss(&batch(2, 0.0), &Progress::default()).unwrap();
        loss.total.backward();
        assert!(query.grad().abs().max().double_value(&[]) > 0.0);
        assert!(!key.grad().defined());
        let names: Vec<_> = loss.parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["info_nce", "contrast_accuracy"]);
    }
}

#[test]
fn a_symmetric_loss_is_the_mean_of_both_directions() {
    let ((query_store, query), (key_store, key)) = (tower(0.0), tower(0.0));
    no_grad(|| query.shallow_clone().copy_(&(Tensor::arange(12, (Kind::Float, Device::Cpu)).sin().view([3, 4]))));
    let embeds = (linear(&query), linear(&key));
    // With a momentum of 1 the key encoder stays what it starts as, the query's.
    let config = MoCoConfig { symmetric: true, ..config(8, 1.0) };
    let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config, 0).unwrap();
    let (queue, batch) = (moco.queue().copy(), batch(2, 0.0));
    let unit = |images: &Tensor| unit_rows(&linear(&query)(images, true)).unwrap().detach();
    let (first, second) = batch.halves();
    let (first, second) = (unit(&first), unit(&second));
    let one_way = |queries: &Tensor, keys: &Tensor| info_nce(queries, keys, &queue, 0.1).unwrap().double_value(&[]);
    let expected = (one_way(&first, &second) + one_way(&second, &first)) / 2.0;
    let found = moco.loss(&batch, &Progress::default()).unwrap().total.double_value(&[]);
    // Logits of up to 10 in f32.
    assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    assert!(moco.queue().narrow(0, 0, 4).equal(&Tensor::cat(&[second, first], 0)));
}

#[test]
fn a_restart_that_is_refused_changes_nothing() {
    let ((query_store, query), (key_store, key)) = (tower(0.5), tower(0.0));
    let embeds = (linear(&query), linear(&key));
    let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config(4, 0.0), 0).unwrap();
    let queue = moco.queue().copy();
    let (named, shaped) = (VarStore::new(Device::Cpu), VarStore::new(Device::Cpu));
    let _ = (named.root().zeros("bias", &[3]), shaped.root().zeros("weight", &[3, 5]));
    assert!(matches!(moco.restart(&named, 1), Err(Error::Core(core_tensor::Error::Names { .. }))));
    assert!(matches!(moco.restart(&shaped, 1), Err(Error::Mismatch { name, .. }) if name == "weight"));
    assert!(moco.queue().equal(&queue) && key.double_value(&[0, 0]) == 0.5);
    // The key encoder still follows.
    let _ = no_grad(|| query.shallow_clone().fill_(1.0));
    moco.move_key_encoder().unwrap();
    assert_eq!(key.double_value(&[0, 0]), 1.0);
}

#[test]
fn a_restored_training_goes_on_bit_for_bit() {
    use core_tensor::data::BatchSource;
    use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
    use core_tensor::train::Trainer;
    struct Two;
    impl BatchSource for Two {
        type Batch = ViewBatch;
        fn batches_per_epoch(&self) -> u64 {
            2
        }
        fn epoch(
            &self,
            epoch: u64,
        ) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<ViewBatch>> + '_>> {
            Ok(Box::new((0..2).map(move |step| Ok(batch(2, epoch as f64 * 2.0 + step as f64)))))
        }
    }
    let train = |epochs: [u64; 2]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("training.safetensors");
        let mut last = Tensor::new();
        for (part, &until) in epochs.iter().enumerate() {
            let ((query_store, query), (key_store, key)) = (tower(0.3), tower(0.0));
            no_grad(|| {
                query.shallow_clone().copy_(&(Tensor::arange(12, (Kind::Float, Device::Cpu)).sin().view([3, 4])))
            });
            let embeds = (linear(&query), linear(&key));
            // A queue of other content when resumed: what counts is what was saved.
            let mut moco =
                MoCo::embedding(embeds, (&query_store, &key_store), 3, config(6, 0.9), part as u64 * 7).unwrap();
            let mut keeper = moco.keeper();
            let mut optimizer = Sgd::new(parameters(&query_store, 0.0), SgdConfig::default()).unwrap();
            let training = TrainConfig { epochs: until, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
            let mut trainer = Trainer::new(training, &mut moco, &mut optimizer).unwrap();
            trainer.observe(&mut keeper);
            trainer.restore_if_present::<()>(&file, &query_store).unwrap();
            trainer.fit(&Two).unwrap();
            trainer.save(&file, &query_store, &()).unwrap();
            last = query.detach().copy();
        }
        last
    };
    assert!(train([2, 4]).equal(&train([4, 4])));
}

#[test]
fn towers_and_settings_that_do_not_fit_are_refused() {
    let ((query_store, query), (key_store, key)) = (tower(0.0), tower(0.0));
    let make =
        |config| MoCo::embedding((linear(&query), linear(&key)), (&query_store, &key_store), 3, config, 0).map(drop);
    let bad = |config| make(config).unwrap_err();
    assert!(matches!(bad(config(0, 0.9)), Error::Setting { setting: "queue", .. }));
    assert!(matches!(bad(config(8, 1.5)), Error::Setting { setting: "momentum", .. }));
    let cold = MoCoConfig { temperature: -1.0, ..MoCoConfig::default() };
    assert!(matches!(bad(cold), Error::InvalidTemperature { .. }));

    let other = VarStore::new(Device::Cpu);
    let _ = other.root().zeros("bias", &[3]);
    let refused = MoCo::embedding((linear(&query), linear(&key)), (&query_store, &other), 3, config(8, 0.9), 0);
    assert!(matches!(refused, Err(Error::Core(core_tensor::Error::Names { .. }))));

    // One store for both would freeze the query too.
    let refused = MoCo::embedding((linear(&query), linear(&query)), (&query_store, &query_store), 3, config(8, 0.9), 0);
    assert!(matches!(refused, Err(Error::Mismatch { name, .. }) if name == "weight") && query.requires_grad());

    // A queue of 8 keys takes batches of 4, not of 3; the error says so at the first step.
    let embeds = (linear(&query), linear(&key));
    let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config(8, 0.9), 0).unwrap();
    let error = moco.loss(&batch(3, 0.0), &Progress::default()).unwrap_err().to_string();
    assert!(error.contains("queue is 8") && error.contains("multiple of the 3 keys"), "{error}");
    assert!(moco.loss(&batch(0, 0.0), &Progress::default()).is_err());
    let odd = ViewBatch { views: batch(2, 0.0).views.narrow(0, 0, 3), index: vec![0] };
    assert!(matches!(moco.step(&odd), Err(Error::ViewsLayout { .. })));
    // Two keys in, four more would cover row 2 to 5 and in the end run over.
    moco.loss(&batch(2, 0.0), &Progress::default()).unwrap();
    let error = moco.loss(&batch(4, 0.0), &Progress::default()).unwrap_err().to_string();
    assert!(error.contains("place"), "{error}");
    // Nor is a place taken from a file that is no row of the queue.
    let mut keeper = moco.keeper();
    for place in [-1_i64, 8] {
        let mut state = keeper.state();
        state.insert("place".to_owned(), Tensor::from_slice(&[place]));
        assert!(keeper.load_state(&state).unwrap_err().to_string().contains("place"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn after_enough_steps_every_key_in_the_queue_is_a_key_encoders(images in 2_i64..5, times in 1_i64..5) {
        let ((query_store, query), (key_store, key)) = (tower(0.0), tower(0.0));
        no_grad(|| query.shallow_clone().copy_(&(Tensor::arange(12, (Kind::Float, Device::Cpu)).cos().view([3, 4]))));
        let queue = images * times;
        let embeds = (linear(&query), linear(&key));
        let mut moco = MoCo::embedding(embeds, (&query_store, &key_store), 3, config(queue, 1.0), 0).unwrap();
        let mut expected = Vec::new();
        for step in 0..times {
            let batch = batch(images, step as f64);
            moco.loss(&batch, &Progress::default()).unwrap();
            expected.push(unit_rows(&linear(&key)(&batch.halves().1, true)).unwrap().detach());
        }
        prop_assert!(moco.queue().equal(&Tensor::cat(&expected, 0)));
        // Unit rows, to f32.
        let norms = moco.queue().norm_scalaropt_dim(2, [1], false);
        prop_assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-6);
    }
}
