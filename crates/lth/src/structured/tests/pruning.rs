use super::*;
use tch::nn::{Init, Linear};

#[test]
fn coefficients_of_one_change_nothing() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    let (plain_store, plain) = built(&Standard, &small());
    let state: NamedTensors = state_of(&slim_store);
    let plain_state = NamedTensors::from_iter(
        state.iter().filter(|(name, _)| !name.ends_with("slimming_coef")).map(|(n, t)| (n.clone(), t.shallow_clone())),
    );
    restore(&plain_state, &plain_store).unwrap();
    assert!(logits(&slim).equal(&logits(&plain)));
    let shapes: Vec<Vec<i64>> =
        coefficients(&slim_store, &groups).unwrap().iter().map(|(_, tensor)| tensor.size()).collect();
    assert_eq!(shapes, [vec![1, 4, 1, 1], vec![1, 12], vec![1, 4, 1, 1], vec![1, 12]]);
    assert_eq!(groups[0].coefficient, "bert.encoder.layer.0.attention.self.slimming_coef");
    assert_eq!(groups[3].coefficient, "bert.encoder.layer.1.slimming_coef");
}

#[test]
fn a_pruned_model_equals_the_masked_one_and_is_ordinary() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    let full = logits(&slim);
    let ticket = random_ticket(1, 0.5, 0.4);
    let theta: NamedTensors = crate::copies(&state_of(&slim_store));
    apply(&slim_store, &groups, &ticket);
    let masked = logits(&slim);
    assert!(difference(&full, &masked) > 1e-2, "the mask must matter for this test to say something");

    let plain = fold(&theta, &groups).unwrap();
    let (smaller, report) = prune(&plain, &groups, &ticket).unwrap();
    let config = pruned_config(&small(), &groups, &ticket).unwrap();
    let (store, model) = built(&Standard, &config);
    load_state_into(&store, &smaller).unwrap();
    assert!(difference(&logits(&model), &masked) < 1e-5);

    // 2 of 4 heads in both layers, round(0.4 · 24) = 10 neurons of the whole: 3(16·4 + 4) + 4·16 a head, 2·16 + 1 a
    // neuron.
    assert_eq!(report.parameters_before - report.parameters_after, 4 * (3 * (16 * 4 + 4) + 4 * 16) + 10 * 33);
    assert_eq!(report.cuts.iter().filter(|cut| cut.heads).map(|cut| cut.kept).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(groups[0].unit_parameters(&plain).unwrap(), 268);
    assert_eq!(groups[1].unit_parameters(&plain).unwrap(), 33);

    is_thetas_own(&smaller, &theta, &groups, &ticket);
}

/// Rewinding is bit for bit: every surviving weight is theta's own, at its new place.
fn is_thetas_own(smaller: &NamedTensors, theta: &NamedTensors, groups: &[SlimGroup], ticket: &TicketMask) {
    let mut cut = Vec::new();
    for group in groups {
        let kept = ticket.kept(group).unwrap();
        assert!(kept.len() < group.units, "{} is to be cut", group.coefficient);
        for Follower { tensor, axis, width, blocks } in &group.followers {
            assert_eq!(smaller[tensor].size()[*axis as usize], blocks * kept.len() as i64 * width, "{tensor}");
            for block in 0..*blocks {
                for (place, unit) in kept.iter().enumerate() {
                    let now = smaller[tensor].narrow(*axis, (block * kept.len() as i64 + place as i64) * width, *width);
                    let then = theta[tensor].narrow(*axis, (block * group.units as i64 + *unit as i64) * width, *width);
                    assert!(now.equal(&then), "{tensor}: {unit}");
                }
            }
            cut.push(tensor);
        }
    }
    for (name, tensor) in smaller.iter().filter(|(name, _)| !cut.contains(name) && !name.ends_with(COEFFICIENT)) {
        assert!(tensor.equal(&theta[name]), "{name}");
    }
}

#[test]
fn published_weights_load_into_the_network_that_is_searched() {
    let groups = bert_groups(&small(), "bert.");
    let (published, plain) = built(&Standard, &small());
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), &published, &small()).unwrap();
    let path = folder.path().join("model.safetensors");

    let (store, slim) = built(&Slimming(Standard), &small());
    // Other weights, so that loading must do something.
    no_grad(|| store.trainable_variables().into_iter().for_each(|mut tensor| tensor.copy_(&(&tensor * -1.5))));
    set(&store, &groups, |_, _| 1.0);
    let refused = load_weights(&path, &store).unwrap_err().to_string();
    assert!(refused.contains(&groups[0].coefficient), "{refused}");
    let load = load_weights_keeping(&path, &store, &[COEFFICIENT]).unwrap();
    let mut names: Vec<&str> = groups.iter().map(|group| group.coefficient.as_str()).collect();
    names.sort_unstable();
    assert_eq!(load.report.missing, names);
    assert!(load.report.unexpected.is_empty());
    assert!(logits(&slim).equal(&logits(&plain)));
    let ones = |(_, tensor): &NamedTensor| tensor.equal(&tensor.ones_like());
    assert!(coefficients(&store, &groups).unwrap().iter().all(ones));

    // Under a head of one's own, which begins as it was made.
    let own = VarStore::new(Device::Cpu);
    let bert = Bert::new(&(own.root() / "bert"), &Slimming(Standard), &small()).unwrap();
    let tagger = tch::nn::linear(own.root() / "tagger", 16, 3, Default::default());
    let before = tagger.ws.copy();
    assert!(load_weights_keeping(&path, &own, &[COEFFICIENT]).unwrap_err().to_string().contains("tagger.bias"));
    let load = load_weights_keeping(&path, &own, &[COEFFICIENT, "tagger."]).unwrap();
    names.extend(["tagger.bias", "tagger.weight"]);
    assert_eq!(load.report.missing, names);
    assert!(tagger.ws.equal(&before));
    let hidden = |bert: &Bert| no_grad(|| bert.hidden(&input(), false).unwrap());
    assert!(hidden(&bert).equal(&hidden(plain.bert())));
}

/// Attention with one projection to queries, keys and values, and a feed-forward part with one to gates and what they
/// gate.
struct Fused {
    store: VarStore,
    qkv: Linear,
    heads: Tensor,
    out: Linear,
    gate_up: Linear,
    neurons: Tensor,
    down: Linear,
}

/// Length of a vector and of a head's.
const WIDTH: i64 = 6;
const HEAD: i64 = 2;

impl Fused {
    fn new(heads: i64, neurons: i64) -> Self {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let linear = |name: &str, inputs, outputs| tch::nn::linear(&root / name, inputs, outputs, Default::default());
        let ones = |name: &str, shape: &[i64]| (&root / name).var(COEFFICIENT, shape, Init::Const(1.0));
        let fused = Self {
            qkv: linear("qkv", WIDTH, 3 * heads * HEAD),
            heads: ones("attention", &[1, heads, 1, 1]),
            out: linear("out", heads * HEAD, WIDTH),
            gate_up: linear("gate_up", WIDTH, 2 * neurons),
            neurons: ones("feed_forward", &[1, neurons]),
            down: linear("down", neurons, WIDTH),
            store,
        };
        let variables = fused.store.variables();
        let mut named: Vec<_> = variables.into_iter().filter(|(name, _)| !name.ends_with(COEFFICIENT)).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for (number, (_, tensor)) in named.iter_mut().enumerate() {
            let values: Vec<f64> =
                (0..tensor.numel()).map(|at| 0.4 * (1.7 * number as f64 + 0.9 * at as f64).sin()).collect();
            no_grad(|| tensor.copy_(&Tensor::from_slice(&values).view(tensor.size().as_slice())));
        }
        fused
    }

    fn groups(&self) -> Vec<SlimGroup> {
        let heads = SlimGroup {
            coefficient: "attention.slimming_coef".into(),
            layer: 0,
            gated: Gated::Heads,
            units: self.heads.numel(),
            followers: vec![
                Follower::new("qkv.weight", 0, HEAD).in_blocks(3),
                Follower::new("qkv.bias", 0, HEAD).in_blocks(3),
                Follower::new("out.weight", 1, HEAD),
            ],
        };
        let neurons = SlimGroup {
            coefficient: "feed_forward.slimming_coef".into(),
            layer: 0,
            gated: Gated::Neurons,
            units: self.neurons.numel(),
            followers: vec![
                Follower::new("gate_up.weight", 0, 1).in_blocks(2),
                Follower::new("gate_up.bias", 0, 1).in_blocks(2),
                Follower::new("down.weight", 1, 1),
            ],
        };
        vec![heads, neurons]
    }

    fn forward(&self) -> Tensor {
        let x = (Tensor::arange(2 * 3 * WIDTH, (Kind::Float, Device::Cpu)) * 0.7).cos().view([2, 3, WIDTH]);
        let parts = x.apply(&self.qkv).view([2, 3, 3, -1, HEAD]).permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|part| parts.get(part));
        let context = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        let context = (context * &self.heads).transpose(1, 2).reshape([2, 3, -1]);
        let x = x + context.apply(&self.out);
        let parts = x.apply(&self.gate_up).chunk(2, -1);
        &x + (parts[0].silu() * &parts[1] * &self.neurons).apply(&self.down)
    }
}

#[test]
fn fused_projections_are_cut_in_every_block() {
    let full = Fused::new(3, 5);
    let groups = full.groups();
    let ticket = TicketMask {
        heads: MaskSet::from_tensors(&[(groups[0].coefficient.clone(), Tensor::from_slice(&[1_u8, 0, 1]))]).unwrap(),
        neurons: MaskSet::from_tensors(&[(groups[1].coefficient.clone(), Tensor::from_slice(&[0_u8, 1, 1, 0, 1]))])
            .unwrap(),
    };
    let theta: NamedTensors = crate::copies(&state_of(&full.store));
    let whole = no_grad(|| full.forward());
    apply(&full.store, &groups, &ticket);
    let masked = no_grad(|| full.forward());
    assert!(difference(&whole, &masked) > 1e-2, "the mask must matter for this test to say something");
    let (weights, report) = prune(&theta, &groups, &ticket).unwrap();
    let smaller = Fused::new(2, 3);
    restore(&weights, &smaller.store).unwrap();
    let apart = difference(&no_grad(|| smaller.forward()), &masked);
    assert!(apart < 1e-5, "{apart}");
    is_thetas_own(&weights, &theta, &groups, &ticket);
    // A head: 3·2 rows of 6 and their biases, 2 columns of 6. A neuron: 2 rows of 6, 2 biases, a column. And
    // coefficients.
    let unit = groups.iter().map(|group| group.unit_parameters(&theta).unwrap()).collect::<Vec<_>>();
    assert_eq!(unit, [54, 20]);
    assert_eq!(report.parameters_before - report.parameters_after, 54 + 2 * 20 + 3);

    // Values are the last block of three, and what is gated the last of two.
    let scores = magnitude(&theta, &groups).unwrap();
    let norm = |name: &str, axis: i64, from: i64, width: i64| theta[name].narrow(axis, from, width).norm();
    let head = norm("qkv.weight", 0, (2 * 3 + 1) * HEAD, HEAD) * norm("out.weight", 1, HEAD, HEAD);
    let neuron = norm("gate_up.weight", 0, 5 + 3, 1) * norm("down.weight", 1, 3, 1);
    assert!(difference(&scores.heads[0].1.view(-1).get(1), &head) < 1e-5);
    assert!(difference(&scores.neurons[0].1.view(-1).get(3), &neuron) < 1e-5);

    // Coefficients fold away.
    set(&full.store, &groups, |number, unit| 0.5 + 0.25 * (number + unit) as f64);
    let expected = no_grad(|| full.forward());
    let mut folded = fold(&state_of(&full.store), &groups).unwrap();
    for group in &groups {
        folded.insert(group.coefficient.clone(), Tensor::ones(group.shape(), (Kind::Float, Device::Cpu)));
    }
    let plain = Fused::new(3, 5);
    restore(&folded, &plain.store).unwrap();
    assert!(difference(&no_grad(|| plain.forward()), &expected) < 1e-5);
}

#[test]
fn a_reader_in_blocks_is_scaled_in_each_of_them() {
    let group = SlimGroup {
        coefficient: "c".into(),
        layer: 0,
        gated: Gated::Neurons,
        units: 2,
        followers: vec![Follower::new("w", 0, 2).in_blocks(2)],
    };
    let state = NamedTensors::from_iter([
        ("c".to_owned(), Tensor::from_slice(&[2_f32, 3.0]).view([1, 2])),
        ("w".to_owned(), Tensor::ones([8], (Kind::Float, Device::Cpu))),
    ]);
    let folded = fold(&state, std::slice::from_ref(&group)).unwrap();
    assert_eq!(Vec::<f32>::try_from(&folded["w"]).unwrap(), [2.0, 2.0, 3.0, 3.0, 2.0, 2.0, 3.0, 3.0]);
    let refuse = |width, blocks| {
        let follower = Follower::new("w", 0, width).in_blocks(blocks);
        let group = SlimGroup { followers: vec![follower], ..group.clone() };
        group.unit_parameters(&state).unwrap_err().to_string()
    };
    assert_eq!(refuse(2, 3), "`w`: expected 12 slices along axis 0 for 2 units, found [8]");
    // Two negative ones would have the right product.
    assert!(refuse(-2, -2).contains("-2 in -2 blocks") && refuse(4, 0).contains("4 in 0 blocks"));
}

#[test]
fn a_ticket_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.safetensors");
    let whole = random_ticket(2, 0.5, 0.4);
    let headless = TicketMask { heads: MaskSet::from_tensors(&[]).unwrap(), ..whole.clone() };
    for ticket in [whole, headless] {
        ticket.save(&path).unwrap();
        assert_eq!(TicketMask::load(&path).unwrap(), ticket);
    }
    let steps = [(1, NamedTensors::from_iter([("c".to_owned(), Tensor::from(1.0_f32))]))].into();
    CoefficientTrace { steps }.save(&path).unwrap();
    assert!(TicketMask::load(&path).unwrap_err().to_string().contains("lth.coefficient-trace"));
}

#[test]
fn folding_coefficients_away_keeps_the_function() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    set(&slim_store, &groups, |number, unit| 0.5 + 0.1 * ((number * 7 + unit * 3) % 11) as f64);
    let expected = logits(&slim);
    let folded = fold(&state_of(&slim_store), &groups).unwrap();
    let (store, model) = built(&Standard, &small());
    load_state_into(&store, &folded).unwrap();
    // The same products in another order.
    assert!(difference(&logits(&model), &expected) < 1e-5);
    assert!(folded.keys().all(|name| !name.ends_with("slimming_coef")));
}

#[test]
fn pruning_twice_is_pruning_once_with_original_numbers() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Standard, &small());
    let state: NamedTensors = crate::copies(&state_of(&store));
    let ticket = |keep: &dyn Fn(&SlimGroup, usize) -> bool, groups: &[SlimGroup]| {
        let of = |gated| {
            let named: Vec<NamedTensor> = groups
                .iter()
                .filter(|group| group.gated == gated)
                .map(|group| {
                    let bits: Vec<u8> = (0..group.units).map(|unit| u8::from(keep(group, unit))).collect();
                    (group.coefficient.clone(), Tensor::from_slice(&bits))
                })
                .collect();
            MaskSet::from_tensors(&named).unwrap()
        };
        TicketMask { heads: of(Gated::Heads), neurons: of(Gated::Neurons) }
    };
    let heads = |group: &SlimGroup| group.gated == Gated::Heads;
    // Head 1, then original head 3, which is number 2 by then; neurons 0 and then original 5, number 4 by then.
    let first = ticket(&|group, unit| unit != if heads(group) { 1 } else { 0 }, &groups);
    let (once, _) = prune(&state, &groups, &first).unwrap();
    let config = pruned_config(&small(), &groups, &first).unwrap();
    let smaller_groups = bert_groups(&config, "bert.");
    let second = ticket(&|group, unit| unit != if heads(group) { 2 } else { 4 }, &smaller_groups);
    let (twice, _) = prune(&once, &smaller_groups, &second).unwrap();
    let config = pruned_config(&config, &smaller_groups, &second).unwrap();
    assert_eq!(config.pruned_heads, [(0, vec![1, 3]), (1, vec![1, 3])].into());
    assert_eq!(config.pruned_neurons, [(0, vec![0, 5]), (1, vec![0, 5])].into());
    let at_once =
        ticket(&|group, unit| if heads(group) { unit != 1 && unit != 3 } else { unit != 0 && unit != 5 }, &groups);
    let (expected, _) = prune(&state, &groups, &at_once).unwrap();
    assert!(twice.iter().all(|(name, tensor)| tensor.equal(&expected[name])));
    // Pruning nothing is the identity.
    let (same, report) = prune(&state, &groups, &ticket(&|_, _| true, &groups)).unwrap();
    assert!(same.iter().all(|(name, tensor)| tensor.equal(&state[name])));
    assert_eq!(report.parameters_before, report.parameters_after);
}
