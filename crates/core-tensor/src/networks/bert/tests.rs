use super::*;
use crate::checkpoint::{read_state, state_of, write_safetensors};
use crate::nn::Standard;
use crate::optim::NamedTensors;
use crate::seed::{Purpose, seed_libtorch};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn, no_grad};

/// The shape of `benches/peers/bert_golden.py`.
fn small() -> BertConfig {
    BertConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 12,
        ..BertConfig::nano(40)
    }
}

fn small_input() -> BertInput {
    let matrix = |values: &[i64]| Tensor::from_slice(values).view([2, 7]);
    BertInput::new(matrix(&[2, 17, 5, 39, 8, 3, 0, 2, 11, 3, 30, 3, 0, 0]))
        .with_types(matrix(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]))
        .with_mask(matrix(&[1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0]))
}

/// The formula of `benches/peers/bert_golden.py`.
fn fill(store: &nn::VarStore) {
    let mut named: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (n, (name, tensor)) in named.iter_mut().enumerate() {
        let shift = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f64> =
            (0..tensor.numel()).map(|j| shift + 0.3 * (1.7 * n as f64 + 0.9 * j as f64).sin()).collect();
        no_grad(|| tensor.copy_(&Tensor::from_slice(&values).view(tensor.size().as_slice())));
    }
}

fn store() -> nn::VarStore {
    nn::VarStore::new(Device::Cpu)
}

fn classifier(config: &BertConfig, labels: i64) -> (nn::VarStore, BertForSequenceClassification) {
    seed_libtorch(7, Purpose::Initialisation, 0);
    let store = store();
    let model = BertForSequenceClassification::new(&store.root(), &Standard, config, labels).unwrap();
    (store, model)
}

/// Golden values come with six decimals; our sums may round differently in the last f32 bits.
fn assert_close(found: &Tensor, expected: &[f64]) {
    let found: Vec<f32> = found.detach().reshape([-1]).try_into().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn classification_and_regression_are_hugging_faces() {
    let (store, model) = classifier(&small(), 3);
    fill(&store);
    let logits = model.forward(&small_input(), false).unwrap();
    assert_close(&logits, &[0.281987, 0.214572, -0.891315, 0.36027, 0.204025, -0.964118]);
    assert_close(&model.loss(&logits, &Tensor::from_slice(&[2_i64, 0])).unwrap(), &[1.366833]);
    let hidden = model.bert().hidden(&small_input(), false).unwrap();
    let expected = [
        -1.987002, 1.638722, 0.433953, -0.745441, 0.360619, 0.123597, -0.150246, -1.891671, 2.116541, -0.310305,
        -0.412789, 0.318888, 0.21663, -0.428579, -1.611843, 2.338884,
    ];
    assert_close(&hidden.get(0).get(1), &expected);
    let (store, model) = classifier(&small(), 1);
    fill(&store);
    let numbers = model.forward(&small_input(), false).unwrap();
    assert_close(&numbers, &[0.281987, 0.36027]);
    assert_close(&model.loss(&numbers, &Tensor::from_slice(&[0.5_f32, 4.0])).unwrap(), &[6.647582]);
}

#[test]
fn spans_are_hugging_faces() {
    let store = store();
    let model = BertForQuestionAnswering::new(&store.root(), &Standard, &small()).unwrap();
    fill(&store);
    let [start, end] = model.forward(&small_input(), false).unwrap();
    let starts = [
        -0.929918, -0.759516, -1.507875, -0.089466, -0.929499, -0.605804, 0.1578, -1.488949, -1.214458, 0.060143,
        0.429734, 0.027142, 0.07977, 0.421194,
    ];
    let ends = [
        0.713116, -0.638724, 0.142065, 1.052299, 0.713753, -0.802184, -1.129387, 1.043188, -0.242792, -0.730183,
        -0.893934, -0.809034, -0.740333, -0.892613,
    ];
    assert_close(&start, &starts);
    assert_close(&end, &ends);
    let (first, last) = (Tensor::from_slice(&[3_i64, 0]), Tensor::from_slice(&[4_i64, 9]));
    assert_close(&model.loss([&start, &end], [&first, &last]).unwrap(), &[1.988924]);
}

#[test]
fn pre_training_is_hugging_faces() {
    let store = store();
    let model = BertForPreTraining::new(&store.root(), &Standard, &small(), true).unwrap();
    fill(&store);
    let (words, next) = model.forward(&small_input(), false).unwrap();
    let expected = [0.019866, -1.158021, 0.084052, 0.665081, -0.490356, -0.03648, 1.034726, -0.22179];
    assert_close(&words.get(1).get(3).narrow(0, 0, 8), &expected);
    assert_close(&next.unwrap(), &[0.095548, -0.629532, 0.056518, -0.685648]);
    let mut labels = vec![IGNORED; 14];
    (labels[2], labels[8], labels[10]) = (7, 22, 30);
    let labels = Tensor::from_slice(&labels).view([2, 7]);
    let follows = Tensor::from_slice(&[0_i64, 1]);
    let losses = model.losses(&small_input(), &labels, Some(&follows), false).unwrap();
    assert_close(&(losses.masked_words + losses.next_sentence.unwrap()), &[4.556354]);
}

#[test]
fn pruned_heads_are_hugging_faces() {
    let (full, model) = classifier(&small(), 3);
    fill(&full);
    drop(model);
    let mut config = small();
    config.pruned_heads = [(0, vec![1]), (1, vec![0, 3])].into();
    let (pruned, model) = classifier(&config, 3);
    let state = state_of(&full);
    for (name, mut tensor) in pruned.variables() {
        let kept = |layer: usize| -> Vec<i64> {
            config.heads(layer).iter().flat_map(|head| (0..4).map(move |row| (head * 4 + row) as i64)).collect()
        };
        let layer = if name.contains("layer.0") { 0 } else { 1 };
        let rows = Tensor::from_slice(&kept(layer));
        let source = match &name {
            name if name.contains("attention.self") => state[name].index_select(0, &rows),
            name if name.contains("attention.output.dense.weight") => state[name].index_select(1, &rows),
            name => state[name].shallow_clone(),
        };
        no_grad(|| tensor.copy_(&source));
    }
    let expected = [0.277877, 0.218514, -0.889254, 0.276378, 0.222952, -0.890061];
    assert_close(&model.forward(&small_input(), false).unwrap(), &expected);
}

#[test]
fn parameters_count_as_published() {
    // Linear in the vocabulary and in the number of layers, so that small copies tell the size of bert-base.
    let count = |build: &dyn Fn(&nn::Path, &BertConfig), in_words: i64| {
        let of = |layers| {
            let store = store();
            build(&store.root(), &BertConfig { vocab_size: 1, num_hidden_layers: layers, ..BertConfig::base() });
            store.trainable_variables().iter().map(|tensor| tensor.numel() as i64).sum::<i64>()
        };
        let (one, two) = (of(1), of(2));
        assert_eq!(two - one, 85_054_464 / 12);
        one + 11 * (two - one) + 30_521 * in_words
    };
    let pre_training = |next| {
        move |root: &nn::Path, config: &BertConfig| {
            BertForPreTraining::new(root, &Standard, config, next).unwrap();
        }
    };
    let classes = |root: &nn::Path, config: &BertConfig| {
        BertForSequenceClassification::new(root, &Standard, config, 2).unwrap();
    };
    let spans = |root: &nn::Path, config: &BertConfig| {
        BertForQuestionAnswering::new(root, &Standard, config).unwrap();
    };
    // Hugging Face transformers 4.57: BertForPreTraining, BertForMaskedLM, two classes, question answering.
    assert_eq!(count(&pre_training(true), 769), 110_106_428);
    assert_eq!(count(&pre_training(false), 769), 109_514_298);
    assert_eq!(count(&classes, 768), 109_483_778);
    assert_eq!(count(&spans, 768), 108_893_186);
    // Four layers of 256, counted whole: tables 256·(8192 + 128 + 2), their norm 512, and 789,760 a layer.
    let store = store();
    Bert::encoder_only(&store.root(), &Standard, &BertConfig::tiny(8192)).unwrap();
    let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!(parameters, 5_289_984);
}

#[test]
fn names_and_shapes_are_hugging_faces() {
    let store = store();
    BertForPreTraining::new(&store.root(), &Standard, &small(), true).unwrap();
    let variables = store.variables();
    for (name, shape) in [
        ("bert.embeddings.word_embeddings.weight", vec![40, 16]),
        ("bert.embeddings.position_embeddings.weight", vec![12, 16]),
        ("bert.embeddings.token_type_embeddings.weight", vec![2, 16]),
        ("bert.embeddings.LayerNorm.weight", vec![16]),
        ("bert.encoder.layer.1.attention.self.query.weight", vec![16, 16]),
        ("bert.encoder.layer.1.attention.self.value.bias", vec![16]),
        ("bert.encoder.layer.0.attention.output.dense.weight", vec![16, 16]),
        ("bert.encoder.layer.0.attention.output.LayerNorm.bias", vec![16]),
        ("bert.encoder.layer.0.intermediate.dense.weight", vec![24, 16]),
        ("bert.encoder.layer.0.output.dense.weight", vec![16, 24]),
        ("bert.encoder.layer.0.output.LayerNorm.weight", vec![16]),
        ("bert.pooler.dense.weight", vec![16, 16]),
        ("cls.predictions.transform.dense.weight", vec![16, 16]),
        ("cls.predictions.transform.LayerNorm.bias", vec![16]),
        ("cls.predictions.bias", vec![40]),
        ("cls.seq_relationship.weight", vec![2, 16]),
    ] {
        assert_eq!(variables[name].size(), shape, "{name}");
    }
    // 3 tables, 2 of a norm, 16 a layer, pooler 2, transform 4, bias 1, next sentence 2.
    assert_eq!(variables.len(), 3 + 2 + 2 * 16 + 2 + 4 + 1 + 2);
}

#[test]
fn a_layers_macs_are_the_closed_form() {
    // 4·768² + 2·128·768 + 2·768·3,072 a token; twelve of them are the 87,293,952 of bert-base at 128 tokens.
    let one = BertConfig { num_hidden_layers: 1, ..BertConfig::base() };
    assert_eq!(one.workload("w", 128).unwrap().macs().unwrap(), 128 * 87_293_952 / 12);
    let mut pruned = small();
    pruned.pruned_heads = [(0, vec![1])].into();
    pruned.pruned_neurons = [(1, vec![0, 5, 6])].into();
    let layer = |attended: u64, neurons: u64| 10 * (4 * 16 * attended + 2 * 10 * attended + 2 * 16 * neurons);
    assert_eq!(pruned.workload("w", 10).unwrap().macs().unwrap(), layer(12, 24) + layer(16, 21));
    assert!(small().workload("w", 13).unwrap_err().to_string().contains("[1, 12]"));
    let wordless = BertConfig { vocab_size: 0, ..small() };
    assert!(wordless.workload("w", 10).unwrap_err().to_string().contains("vocab_size is 0"));
}

#[test]
fn a_fresh_model_guesses_words_at_chance() {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = store();
    let config = BertConfig { vocab_size: 500, ..small() };
    let model = BertForPreTraining::new(&store.root(), &Standard, &config, false).unwrap();
    let ids = Tensor::randint(500, [4, 12], (Kind::Int64, Device::Cpu));
    let loss = model.losses(&BertInput::new(ids.shallow_clone()), &ids, None, false).unwrap().masked_words;
    assert!((loss.double_value(&[]) - 500_f64.ln()).abs() < 0.2);
}

#[test]
fn words_of_masked_tokens_alone_give_the_loss_of_all() {
    let store = store();
    let model = BertForPreTraining::new(&store.root(), &Standard, &small(), false).unwrap();
    fill(&store);
    let labels = small_input().ids.where_scalarother(&small_input().ids.gt(9), IGNORED);
    let ours = model.losses(&small_input(), &labels, None, false).unwrap().masked_words;
    let (words, next) = model.forward(&small_input(), false).unwrap();
    assert!(next.is_none());
    let all =
        words.view([-1, 40]).cross_entropy_loss(&labels.view([-1]), None::<Tensor>, tch::Reduction::Mean, IGNORED, 0.0);
    assert!((ours - all).abs().double_value(&[]) < 1e-6);
}

#[test]
fn a_pruned_model_survives_a_folder_bit_for_bit() {
    let mut config = small();
    config.pruned_heads = [(1, vec![2])].into();
    config.pruned_neurons = [(0, vec![3, 7]), (1, vec![23])].into();
    let (store, model) = classifier(&config, 2);
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), &store, &config).unwrap();
    let read = BertConfig::from_file(&folder.path().join("config.json")).unwrap();
    assert_eq!(read, config);
    let (again, copy) = {
        seed_libtorch(99, Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let model = BertForSequenceClassification::new(&store.root(), &Standard, &read, 2).unwrap();
        (store, model)
    };
    let load = load_weights(&folder.path().join("model.safetensors"), &again).unwrap();
    assert!(load.renamed.is_empty() && load.report.missing.is_empty() && load.report.unexpected.is_empty());
    let logits = |model: &BertForSequenceClassification| model.forward(&small_input(), false).unwrap();
    assert!(logits(&model).equal(&logits(&copy)));
}

#[test]
fn checkpoints_of_every_published_form_load() {
    let (full, model) = classifier(&small(), 2);
    let expected = model.bert().hidden(&small_input(), false).unwrap();
    let mut published = NamedTensors::new();
    for (name, tensor) in state_of(&full) {
        // A bare encoder, in half precision of values that halves hold, with the old names of norms.
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        if let Some(name) = name.strip_prefix("bert.") {
            published.insert(name.to_owned(), tensor.shallow_clone());
        }
    }
    published.insert("embeddings.position_ids".into(), Tensor::arange(12, (Kind::Int64, Device::Cpu)));
    published.insert("cls.predictions.decoder.weight".into(), Tensor::zeros([40, 16], (Kind::Float, Device::Cpu)));
    published.insert("cls.seq_relationship.bias".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &published, &Default::default()).unwrap();

    let (other, copy) = {
        seed_libtorch(99, Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let model = BertForSequenceClassification::new(&store.root(), &Standard, &small(), 2).unwrap();
        (store, model)
    };
    let load = load_weights(&path, &other).unwrap();
    assert!(copy.bert().hidden(&small_input(), false).unwrap().equal(&expected));
    assert_eq!(load.report.missing, ["classifier.bias", "classifier.weight"]);
    assert_eq!(load.report.unexpected, ["cls.seq_relationship.bias"]);
    assert!(load.renamed.contains(&("embeddings.LayerNorm.gamma".into(), "bert.embeddings.LayerNorm.weight".into())));

    // The other way: a task model's weights into a bare encoder, in half precision.
    let halves: NamedTensors =
        state_of(&full).iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(Kind::BFloat16))).collect();
    let bare_store = nn::VarStore::new(Device::Cpu);
    let bare = Bert::new(&bare_store.root(), &Standard, &small()).unwrap();
    let load = load_state_into(&bare_store, &halves).unwrap();
    assert_eq!(load.report.unexpected, ["classifier.bias", "classifier.weight"]);
    // bfloat16 keeps 8 bits: relative steps of 2^-9 on weights of 0.02, states of order 1.
    let difference = (bare.hidden(&small_input(), false).unwrap() - &expected).abs().max().double_value(&[]);
    assert!(difference > 0.0 && difference < 0.05, "{difference}");

    // And as `DataParallel` names them.
    let parallel: NamedTensors =
        halves.iter().map(|(name, tensor)| (format!("module.{name}"), tensor.shallow_clone())).collect();
    assert_eq!(load_state_into(&bare_store, &parallel).unwrap().report, load.report);
}

#[test]
fn a_checkpoint_loads_under_a_head_of_ones_own() {
    let (full, model) = classifier(&small(), 2);
    let expected = model.bert().hidden(&small_input(), false).unwrap();
    let published = state_of(&full);
    let own = || {
        let store = store();
        let bert = Bert::new(&(store.root() / "bert"), &Standard, &small()).unwrap();
        let head = nn::linear(store.root() / "tagger", 16, 5, Default::default());
        (store, bert, head.ws.copy())
    };
    let (store, bert, head) = own();
    let refused = load_state_into(&store, &published).unwrap_err().to_string();
    assert!(refused.contains("tagger.bias") && refused.contains("tagger.weight"), "{refused}");
    assert!(load_state_keeping(&store, &published, &[""]).unwrap_err().to_string().contains("keep"));
    // Neither a piece from the middle nor another name lets anything go.
    assert!(load_state_keeping(&store, &published, &["agger.", "head."]).is_err());
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), &full, &small()).unwrap();
    let load = load_weights_keeping(&folder.path().join("model.safetensors"), &store, &["tagger."]).unwrap();
    assert_eq!(load.report.missing, ["tagger.bias", "tagger.weight"]);
    assert!(store.variables()["tagger.weight"].equal(&head));
    assert!(bert.hidden(&small_input(), false).unwrap().equal(&expected));
    // What the file does hold is loaded all the same.
    let (other, _bert, _) = own();
    let load = load_state_keeping(&other, &state_of(&store), &["tagger.", "weight"]).unwrap();
    assert!(load.report.missing.is_empty());
    assert!(other.variables()["tagger.weight"].equal(&head));
}

#[test]
fn checkpoints_that_do_not_fit_are_refused_by_name() {
    let (full, model) = classifier(&small(), 2);
    drop(model);
    let refuse = |config: &BertConfig, change: &dyn Fn(&mut NamedTensors)| {
        let (store, _model) = classifier(config, 2);
        let before = state_of(&store);
        let mut state: NamedTensors = state_of(&full);
        change(&mut state);
        let error = load_state_into(&store, &state).unwrap_err().to_string();
        assert!(state_of(&store).iter().all(|(name, tensor)| tensor.equal(&before[name])));
        error
    };
    let vocabulary = BertConfig { vocab_size: 41, ..small() };
    let error = refuse(&vocabulary, &|_| ());
    assert!(error.contains("word_embeddings") && error.contains("41") && error.contains("40"), "{error}");
    let mut fewer = small();
    fewer.pruned_heads = [(0, vec![0])].into();
    let error = refuse(&fewer, &|_| ());
    assert!(error.contains("layer.0.attention") && error.contains("[16, 16]"), "{error}");
    let missing = refuse(&small(), &|state| {
        state.shift_remove("bert.encoder.layer.1.output.dense.bias");
    });
    assert!(missing.contains("encoder.layer.1.output.dense.bias"), "{missing}");
    let shallow = BertConfig { num_hidden_layers: 1, ..small() };
    assert!(refuse(&shallow, &|_| ()).contains("encoder.layer.1"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.safetensors");
    write_safetensors(&path, &state_of(&full), &Default::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read_state(&path).unwrap_err().to_string().contains("cut.safetensors"));
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let (_store, model) = classifier(&small(), 2);
    let refuse = |input: BertInput| model.forward(&input, false).unwrap_err().to_string();
    let ids = || Tensor::zeros([2, 5], (Kind::Int64, Device::Cpu));
    assert!(refuse(BertInput::new(Tensor::zeros([1, 13], (Kind::Int64, Device::Cpu)))).contains("1 to 12 tokens"));
    assert!(refuse(BertInput::new(ids() + 40)).contains("[0, 40), found 40"));
    assert!(refuse(BertInput::new(ids() - 1)).contains("found -1"));
    assert!(refuse(BertInput::new(Tensor::zeros([5], (Kind::Int64, Device::Cpu)))).contains("[batch, tokens]"));
    assert!(refuse(BertInput::new(ids().to_kind(Kind::Float))).contains("Float"));
    assert!(refuse(BertInput::new(ids()).with_types(ids() + 2)).contains("types"));
    assert!(refuse(BertInput::new(ids()).with_mask(Tensor::ones([2, 4], (Kind::Int64, Device::Cpu)))).contains("mask"));
    assert!(refuse(BertInput::new(ids()).with_mask(ids() + 2)).contains("`mask`: expected numbers in [0, 2), found 2"));
    assert!(refuse(BertInput::new(ids()).with_mask(ids() - 1)).contains("found -1"));
    let floats = Tensor::zeros([2, 5], (Kind::Float, Device::Cpu));
    // Of two faults the first is named, whether it is one of shape or of values.
    assert!(refuse(BertInput::new(ids() + 40).with_types(floats.shallow_clone())).contains("`ids`"));
    assert!(refuse(BertInput::new(ids()).with_types(floats).with_mask(ids() + 2)).contains("`types`"));
    assert!(refuse(BertInput::new(ids()).with_types(ids() + 2).with_mask(ids() + 2)).contains("`types`"));
    let logits = model.forward(&BertInput::new(ids()), false).unwrap();
    assert!(model.loss(&logits, &Tensor::from_slice(&[0_i64, 2])).unwrap_err().to_string().contains("[0, 2)"));
    assert!(model.loss(&logits, &Tensor::from_slice(&[0_i64])).unwrap_err().to_string().contains("Int64 [2]"));
    let error = model.loss(&logits.get(0), &Tensor::from_slice(&[0_i64])).unwrap_err().to_string();
    assert_eq!(error, "`logits`: expected [batch, 2], found [2]");
    assert!(BertForSequenceClassification::new(&store().root(), &Standard, &small(), 0).is_err());
}

#[test]
fn losses_over_nothing_are_refused() {
    let spans = BertForQuestionAnswering::new(&store().root(), &Standard, &small()).unwrap();
    let logits = Tensor::zeros([2, 5], (Kind::Float, Device::Cpu));
    let loss = |logits: &Tensor, positions: [i64; 2]| {
        let positions = Tensor::from_slice(&positions);
        spans.loss([logits, logits], [&positions, &positions])
    };
    // One position within is enough: −ln(1/5).
    assert_close(&loss(&logits, [4, 5]).unwrap(), &[5_f64.ln()]);
    let error = loss(&logits, [5, 9]).unwrap_err().to_string();
    assert_eq!(error, "`first`: expected a position below 5, found none");
    let error = loss(&logits.get(0), [0, 0]).unwrap_err().to_string();
    assert_eq!(error, "`first's logits`: expected [batch, tokens], found [5]");

    let model = BertForPreTraining::new(&store().root(), &Standard, &small(), true).unwrap();
    let labels = small_input().ids;
    let refuse = |next: &Tensor| model.losses(&small_input(), &labels, Some(next), false).unwrap_err().to_string();
    assert_eq!(refuse(&Tensor::from_slice(&[0_i64])), "`next`: expected Int64 [2], found Int64 [1]");
    assert_eq!(refuse(&Tensor::from_slice(&[0.0_f32, 1.0])), "`next`: expected Int64 [2], found Float [2]");
}

#[test]
fn padding_is_masked_with_a_finite_number_in_every_kind() {
    let ids = Tensor::zeros([1, 2], (Kind::Int64, Device::Cpu));
    let input = BertInput::new(ids).with_mask(Tensor::from_slice(&[1_i64, 0]).view([1, 2]));
    for (kind, below) in [(Kind::Half, -6e4), (Kind::BFloat16, -3e38), (Kind::Float, -3e38), (Kind::Double, -3e38)] {
        let mask = input.additive_mask(kind, true).unwrap().to_kind(Kind::Double);
        let (token, padding) = (mask.double_value(&[0, 0, 0, 0]), mask.double_value(&[0, 0, 0, 1]));
        assert!(token == 0.0 && padding.is_finite() && padding < below, "{kind:?} {token} {padding}");
    }
    assert!(input.checked(&small()).unwrap().padded);
    let whole = input.with_mask(Tensor::ones([1, 2], (Kind::Int64, Device::Cpu)));
    assert!(!whole.checked(&small()).unwrap().padded && whole.additive_mask(Kind::Float, false).is_none());
}

#[test]
fn configs_outside_their_range_are_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut BertConfig)| {
        let mut config = small();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert!(refuse(&|config| config.hidden_size = 18).contains("multiple of the 4 heads"));
    assert!(refuse(&|config| config.num_hidden_layers = 0).contains("num_hidden_layers"));
    assert!(refuse(&|config| config.hidden_act = "relu".into()).contains("`relu`"));
    assert!(refuse(&|config| config.hidden_dropout_prob = 1.0).contains("hidden_dropout_prob"));
    assert!(refuse(&|config| config.layer_drop = f64::NAN).contains("layer_drop"));
    assert!(refuse(&|config| config.layer_norm_eps = -1.0).contains("layer_norm_eps"));
    assert!(refuse(&|config| config.pad_token_id = 40).contains("pad_token_id"));
    assert!(refuse(&|config| config.pruned_heads = [(2, vec![0])].into()).contains("layers below 2"));
    assert!(refuse(&|config| config.pruned_heads = [(0, vec![4])].into()).contains("numbers below 4"));
    assert!(refuse(&|config| config.pruned_heads = [(0, vec![1, 1])].into()).contains("1 twice"));
    assert!(refuse(&|config| config.pruned_heads = [(1, vec![3, 2, 1, 0])].into()).contains("layer 1 emptied"));
    assert!(refuse(&|config| config.pruned_neurons = [(0, vec![24])].into()).contains("pruned_neurons"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, "{\"vocab_size\": 40,\n \"hidden_size\": \"wide\"}").unwrap();
    assert!(BertConfig::from_file(&path).unwrap_err().to_string().contains("config.json"));
    // What a published config.json holds beside our keys is passed over, and its absent keys are bert-base's.
    std::fs::write(&path, "{\"architectures\": [\"BertModel\"], \"hidden_size\": 24, \"model_type\": \"bert\"}")
        .unwrap();
    assert_eq!(BertConfig::from_file(&path).unwrap(), BertConfig { hidden_size: 24, ..BertConfig::base() });
}

#[test]
fn layer_drop_skips_layers_in_training_only() {
    let config = BertConfig { layer_drop: 0.5, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..small() };
    let (store, model) = classifier(&config, 2);
    fill(&store);
    let (plain_store, plain) = classifier(&small(), 2);
    fill(&plain_store);
    let evaluated = |model: &BertForSequenceClassification| model.forward(&small_input(), false).unwrap();
    assert!(evaluated(&model).equal(&evaluated(&plain)));
    let expected = evaluated(&plain);
    // Both layers run with probability 1/4. Tests share libtorch's generator, so that no seed fixes what is drawn: that all or
    // none of 200 run whole has probability 1e-25.
    let whole = |_: &i32| model.forward(&small_input(), true).unwrap().allclose(&expected, 0.0, 1e-6, false);
    let kept = (0..200).filter(whole).count();
    assert!((1..200).contains(&kept), "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn padding_and_company_change_no_real_token(
        rows in prop::collection::vec(prop::collection::vec(1_i64..40, 1..9), 1..4),
    ) {
        let (store, model) = classifier(&small(), 2);
        fill(&store);
        let longest = rows.iter().map(Vec::len).max().unwrap() + 2;
        let padded: Vec<i64> = rows.iter().flat_map(|row| {
            row.iter().copied().chain(std::iter::repeat_n(0, longest - row.len()))
        }).collect();
        let mask: Vec<i64> =
            rows.iter().flat_map(|row| (0..longest).map(|place| i64::from(place < row.len()))).collect();
        let shape = [rows.len() as i64, longest as i64];
        let input = BertInput::new(Tensor::from_slice(&padded).view(shape))
            .with_mask(Tensor::from_slice(&mask).view(shape));
        let together = model.bert().hidden(&input, false).unwrap();
        for (number, row) in rows.iter().enumerate() {
            let alone = BertInput::new(Tensor::from_slice(row).view([1, row.len() as i64]));
            let alone = model.bert().hidden(&alone, false).unwrap();
            let same = together.get(number as i64).narrow(0, 0, row.len() as i64);
            // States of order 1; f32 sums in another order.
            prop_assert!((same - alone.get(0)).abs().max().double_value(&[]) < 1e-5);
        }
        let booleans = BertInput { mask: input.mask.as_ref().map(|mask| mask.to_kind(Kind::Bool)), types: None, ids: input.ids.shallow_clone() };
        prop_assert!(model.bert().hidden(&booleans, false).unwrap().equal(&together));
        let first = model.bert().hidden_rows(&input, Rows::First, false).unwrap();
        prop_assert!((together.narrow(1, 0, 1) - first).abs().max().double_value(&[]) < 1e-5);
    }
}
