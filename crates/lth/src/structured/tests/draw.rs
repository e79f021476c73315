use super::*;

#[test]
fn both_rules_draw_what_was_worked_by_hand() {
    let group = SlimGroup {
        coefficient: "c".into(),
        layer: 0,
        gated: Gated::Heads,
        units: 12,
        followers: vec![Follower::new("w", 0, 1)],
    };
    let values = [0.90, 0.95, 0.97, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07];
    let kept = |values: &dyn Fn(usize) -> f32, threshold, ratio| -> Result<Vec<usize>, Error> {
        let cut = Cut { scope: Scope::PerLayer, ratio };
        let config = DrawConfig { heads: cut.clone(), neurons: cut, threshold, min_per_layer: 0 };
        let drawn = config.draw(&scores(std::slice::from_ref(&group), |_, unit| values(unit)))?;
        drawn.mask.kept(&group)
    };
    let given = |unit: usize| values[unit];
    let last_eight: Vec<usize> = (4..12).collect();
    // The quantile at 1/3 is 0.996667.
    assert_eq!(kept(&given, Threshold::BottomK, 1.0 / 3.0).unwrap(), last_eight);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 1.0 / 3.0).unwrap(), last_eight);
    // All equal: exact counts drop the first, the strict rule drops all.
    assert_eq!(kept(&|_| 1.0, Threshold::BottomK, 1.0 / 3.0).unwrap(), last_eight);
    assert!(kept(&|_| 1.0, Threshold::StrictQuantile, 1.0 / 3.0).unwrap().is_empty());
    // Ratio 0 prunes nothing, and one by the strict rule.
    assert_eq!(kept(&given, Threshold::BottomK, 0.0).unwrap().len(), 12);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 0.0).unwrap().len(), 11);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 0.5).unwrap().len(), 6);
}

#[test]
fn only_ties_on_both_sides_of_the_line_count() {
    let group = SlimGroup { coefficient: "c".into(), layer: 0, gated: Gated::Heads, units: 12, followers: Vec::new() };
    let tied = |values: [f32; 12], threshold| {
        let config = DrawConfig { threshold, min_per_layer: 0, ..DrawConfig::ratios(1.0 / 3.0, 0.0) };
        config.draw(&scores(std::slice::from_ref(&group), |_, unit| values[unit])).unwrap().tied
    };
    // Four go: the fourth smallest is shared with two that stay.
    let shared = [1.0, 2.0, 1.0, 1.0, 0.9, 2.0, 0.8, 2.0, 0.7, 2.0, 2.0, 2.0];
    assert_eq!(tied(shared, Threshold::BottomK), [0.25, 0.0]);
    // What is above a quantile is above all that is dropped.
    assert_eq!(tied(shared, Threshold::StrictQuantile), [0.0, 0.0]);
    let apart = [1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0];
    assert_eq!(tied(apart, Threshold::BottomK), [0.0, 0.0]);
    assert_eq!(tied([1.0; 12], Threshold::BottomK), [1.0, 0.0]);
    // Layers ranked apart are counted apart: 1 is on both sides in the first, and all that is dropped in the second.
    let groups =
        [("a", 0), ("b", 1)].map(|(name, layer)| SlimGroup { coefficient: name.into(), layer, ..group.clone() });
    let both = scores(&groups, |number, unit| [shared, apart][number][unit]);
    assert_eq!(DrawConfig::ratios(1.0 / 3.0, 0.0).draw(&both).unwrap().tied, [0.125, 0.0]);
}

#[test]
fn scores_crowded_near_one_are_few_at_the_line_and_after_one_step_all_of_them_are() {
    let groups = bert_groups(&BertConfig::base(), "bert.");
    let mut random = core_tensor::seed::generator(0, Purpose::Mask, 0);
    let near_one = rand_distr::Normal::new(1.0, 5e-5).unwrap();
    let drawn: Vec<Vec<f32>> = groups
        .iter()
        .map(|group| (0..group.units).map(|_| rand::Rng::sample::<f64, _>(&mut random, near_one) as f32).collect())
        .collect();
    let settled = DrawConfig::default().draw(&scores(&groups, |number, unit| drawn[number][unit])).unwrap();
    // 36,864 neurons on the few thousand numbers that f32 has there.
    assert!(settled.distinct[1] < 0.5 && settled.tied[1] < 1e-3, "{:?} {:?}", settled.distinct, settled.tied);
    // After one step of Adam at 2e-5.
    let one_step = scores(&groups, |_, unit| if unit % 2 == 0 { 1.0 - 2e-5 } else { 1.0 + 2e-5 });
    let tied = DrawConfig::default().draw(&one_step).unwrap().tied;
    assert!(tied.iter().all(|share| *share > 0.3), "{tied:?}");
}

#[test]
fn a_constant_on_one_layer_moves_the_global_line_only() {
    let groups = bert_groups(&small(), "bert.");
    let draw = |lift: f32| {
        let lifted =
            |number: usize, unit: usize| ((unit * 5 + number) % 12) as f32 + if number < 2 { lift } else { 0.0 };
        DrawConfig::ratios(0.5, 10.0 / 24.0).draw(&scores(&groups, lifted)).unwrap().mask
    };
    let (plain, lifted) = (draw(0.0), draw(100.0));
    assert_eq!(lifted.heads, plain.heads);
    let kept = |ticket: &TicketMask| [1, 3].map(|neurons| ticket.kept(&groups[neurons]).unwrap().len());
    assert_eq!((kept(&plain), kept(&lifted)), ([7, 7], [12, 2]));
}

#[test]
fn a_floor_keeps_every_layer_alive_and_says_so() {
    let groups = bert_groups(&small(), "bert.");
    // Layer 0's neurons are all worse than layer 1's: a global cut of half would empty it.
    let uneven = scores(&groups, |number, unit| number as f32 + 0.01 * unit as f32);
    let drawn = DrawConfig::ratios(0.5, 0.5).draw(&uneven).unwrap();
    assert!(drawn.floored);
    assert_eq!(drawn.mask.kept(&groups[1]).unwrap(), [11]);
    assert_eq!(drawn.mask.kept(&groups[3]).unwrap().len(), 11);
    let free = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(0.5, 0.5) }.draw(&uneven).unwrap();
    assert!(!free.floored && free.mask.kept(&groups[1]).unwrap().is_empty());
    let (store, _model) = built(&Standard, &small());
    let refused = prune(&state_of(&store), &groups, &free.mask).unwrap_err();
    assert!(matches!(refused, Error::EmptiedLayer { .. }));
    assert!(pruned_config(&small(), &groups, &free.mask).unwrap_err().to_string().contains("layer 0 emptied"));
}

#[test]
fn layer_by_layer_the_floor_costs_the_ratio_and_says_so() {
    let groups = bert_groups(&small(), "bert.");
    let scored = scores(&groups, |number, unit| 0.1 * number as f32 + ((unit * 5 + 3) % 12) as f32);
    // round(0.9 · 4) = 4 heads would be all that a layer has; (unit · 5 + 3) mod 12 is largest at unit 1.
    let drawn = DrawConfig::ratios(0.9, 0.4).draw(&scored).unwrap();
    assert!(drawn.floored);
    for heads in [0, 2] {
        assert_eq!(drawn.mask.kept(&groups[heads]).unwrap(), [1]);
    }
    assert_eq!(24 - drawn.mask.neurons.survivors(), 10);
    // The floor has nothing to do where it is not reached.
    assert!(!DrawConfig::ratios(0.75, 0.4).draw(&scored).unwrap().floored);
    // All equal: nothing is above the quantile, and the best of equals is the last.
    let cut = |scope| Cut { scope, ratio: 0.5 };
    let strict = |scope: Scope| DrawConfig {
        heads: cut(scope.clone()),
        neurons: cut(scope),
        threshold: Threshold::StrictQuantile,
        min_per_layer: 2,
    };
    let equal = scores(&groups, |_, _| 1.0);
    let drawn = strict(Scope::PerLayer).draw(&equal).unwrap();
    assert!(drawn.floored);
    assert_eq!(drawn.mask.kept(&groups[0]).unwrap(), [2, 3]);
    assert_eq!(drawn.mask.kept(&groups[3]).unwrap(), [10, 11]);
    assert!(matches!(strict(Scope::Global).draw(&equal), Err(Error::EmptiedLayer { .. })));
}

#[test]
fn a_layer_smaller_than_the_floor_only_has_to_stay_whole() {
    let group = |name: &str, layer, units| SlimGroup {
        coefficient: name.into(),
        layer,
        gated: Gated::Neurons,
        units,
        followers: Vec::new(),
    };
    let groups = [group("a", 0, 1), group("b", 1, 4)];
    let scored = scores(&groups, |number, unit| if number == 0 { 1.0 } else { 0.1 * (unit + 1) as f32 });
    // round(0.25 · 5) = 1 goes; above the quantile, which is the second smallest, are three.
    for (threshold, left) in [(Threshold::BottomK, vec![1, 2, 3]), (Threshold::StrictQuantile, vec![2, 3])] {
        let cut = Cut { scope: Scope::Global, ratio: 0.25 };
        let config = DrawConfig { heads: cut.clone(), neurons: cut, threshold, min_per_layer: 2 };
        let drawn = config.draw(&scored).unwrap();
        assert_eq!((drawn.mask.kept(&groups[0]).unwrap(), drawn.mask.kept(&groups[1]).unwrap()), (vec![0], left));
        assert!(!drawn.floored);
    }
}

#[test]
fn mask_distances_are_those_worked_by_hand() {
    let a = masks(&[&[1, 1, 0, 0], &[1, 0, 1, 0]]);
    let b = masks(&[&[1, 0, 1, 0], &[1, 0, 1, 0]]);
    assert_eq!(a.hamming(&b).unwrap(), 0.25);
    assert_eq!(a.hamming(&a).unwrap(), 0.0);
    assert_eq!(a.hamming(&a.complement()).unwrap(), 1.0);
    assert_eq!(mask_distances(&[a, b]).unwrap(), [[0.0, 0.25], [0.25, 0.0]]);
    assert_eq!(chance_distance(0.5), 0.5);
    assert!((chance_distance(0.4) - 0.48).abs() < 1e-12);
    let ticket = random_ticket(0, 0.5, 0.4);
    assert_eq!(ticket.distance(&ticket).unwrap(), [0.0, 0.0]);
    assert_eq!(ticket.distance(&ticket.complement()).unwrap(), [1.0, 1.0]);
}

#[test]
fn random_tickets_are_of_the_asked_size_and_repeat_for_a_seed() {
    let groups = bert_groups(&small(), "bert.");
    let ticket = random_ticket(3, 0.25, 0.5);
    assert_eq!(ticket, random_ticket(3, 0.25, 0.5));
    assert_ne!(ticket, random_ticket(4, 0.25, 0.5));
    assert_eq!(
        groups.iter().filter(|g| g.gated == Gated::Heads).map(|g| ticket.kept(g).unwrap().len()).sum::<usize>(),
        6
    );
    assert_eq!(ticket.neurons.survivors(), 12);
    let matched = ticket.random_matched(9);
    for group in &groups {
        assert_eq!(matched.kept(group).unwrap().len(), ticket.kept(group).unwrap().len());
    }
    assert_ne!(matched.neurons, ticket.neurons);
}

#[test]
fn magnitude_is_the_product_of_the_two_norms() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Standard, &small());
    let state = state_of(&store);
    let found = magnitude(&state, &groups).unwrap();
    let norm = |tensor: Tensor| tensor.norm().double_value(&[]);
    let root = "bert.encoder.layer.1";
    for unit in [0_i64, 3] {
        let value = norm(state[&format!("{root}.attention.self.value.weight")].narrow(0, unit * 4, 4));
        let output = norm(state[&format!("{root}.attention.output.dense.weight")].narrow(1, unit * 4, 4));
        assert!((found.heads[1].1.view([-1]).double_value(&[unit]) - value * output).abs() < 1e-5);
        let inner = norm(state[&format!("{root}.intermediate.dense.weight")].get(unit));
        let outer = norm(state[&format!("{root}.output.dense.weight")].select(1, unit));
        assert!((found.neurons[1].1.view([-1]).double_value(&[unit]) - inner * outer).abs() < 1e-5);
    }
}

#[test]
fn first_order_importance_is_the_mean_gradient_at_one() {
    let groups = bert_groups(&small(), "bert.");
    let (store, model) = built(&Slimming(Standard), &small());
    let live = coefficients(&store, &groups).unwrap();
    let loss = |target: i64| Ok(model.loss(&model.forward(&input(), true)?, &Tensor::from_slice(&[target, target]))?);
    let both = first_order(&groups, &live, [loss(0), loss(1)]).unwrap();
    let each = [first_order(&groups, &live, [loss(0)]).unwrap(), first_order(&groups, &live, [loss(1)]).unwrap()];
    let mean = (&each[0].heads[0].1 + &each[1].heads[0].1) / 2.0;
    assert!(difference(&both.heads[0].1, &mean) < 1e-6);
    loss(0).unwrap().backward();
    for (name, found) in each[0].heads.iter().chain(&each[0].neurons) {
        let (_, coefficient) = live.iter().find(|(candidate, _)| candidate == name).unwrap();
        let gradient = coefficient.grad().abs();
        assert!(difference(found, &gradient) < 1e-6 && gradient.max().double_value(&[]) > 1e-4, "{name}");
    }
    assert!(both.neurons[1].1.min().double_value(&[]) >= 0.0);
    assert!(first_order(&groups, &live, []).unwrap_err().to_string().contains("at least one"));
    let blind = first_order(&groups, &live, [no_grad(|| loss(0))]).unwrap_err().to_string();
    assert!(blind.contains("expected a graph back to the weights"), "{blind}");
}

#[test]
fn whole_layers_can_go_instead() {
    let config = BertConfig { num_hidden_layers: 4, ..small() };
    let (store, _model) = built(&Standard, &config);
    let state = state_of(&store);
    assert_eq!(every_other(4, 2), [0, 2]);
    assert_eq!(every_other(12, 8), [0, 1, 3, 4, 6, 7, 9, 10]);
    let (shallow, shape) = keep_layers(&state, &config, "bert.", &[0, 2]).unwrap();
    assert_eq!(shape.num_hidden_layers, 2);
    let (smaller, _model) = built(&Standard, &shape);
    load_state_into(&smaller, &shallow).unwrap();
    let name = |layer: usize| format!("bert.encoder.layer.{layer}.output.dense.weight");
    assert!(smaller.variables()[&name(1)].equal(&state[&name(2)]));
    for kept in [&[][..], &[1, 1], &[2, 0], &[4]] {
        assert!(keep_layers(&state, &config, "bert.", kept).unwrap_err().to_string().contains("kept layers"));
    }
    // A prefix that fits nothing must not keep everything.
    let refused = keep_layers(&state, &config, "", &[0, 2]).unwrap_err();
    assert!(matches!(&refused, Error::Mismatch { name, .. } if name == "encoder.layer.0."), "{refused}");
}
