use super::*;

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

    // Rewinding is bit for bit: every surviving weight is theta's own.
    for (name, tensor) in &smaller {
        if tensor.size() == theta[name].size() {
            assert!(tensor.equal(&theta[name]), "{name}");
        }
    }
    let kept = ticket.kept(&groups[1]).unwrap();
    let bias = "bert.encoder.layer.0.intermediate.dense.bias";
    let rows = Tensor::from_slice(&kept.iter().map(|unit| *unit as i64).collect::<Vec<_>>());
    assert!(smaller[bias].equal(&theta[bias].index_select(0, &rows)));
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
