use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn draws_prune_exactly_what_was_asked_and_are_nested(
        seed: u64, heads in 0.0..0.75_f64, neurons in 0.0..0.9_f64, less in 0.0..1.0_f64,
    ) {
        let groups = bert_groups(&small(), "bert.");
        let random = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(heads, neurons) };
        let ticket = random.random(&groups, seed).unwrap();
        for group in groups.iter().filter(|group| group.gated == Gated::Heads) {
            prop_assert_eq!(4 - ticket.kept(group).unwrap().len(), (4.0 * heads).round_ties_even() as usize);
        }
        prop_assert_eq!(24 - ticket.neurons.survivors(), (24.0 * neurons).round_ties_even() as usize);
        // The same scores with less pruned keep at least as much.
        let fewer = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(heads * less, neurons * less) };
        let larger = fewer.random(&groups, seed).unwrap();
        prop_assert!(ticket.heads.is_subset_of(&larger.heads).unwrap());
        prop_assert!(ticket.neurons.is_subset_of(&larger.neurons).unwrap());
    }

    #[test]
    fn ranks_decide_and_nothing_else(seed: u64, scale in 0.1..3.0_f64, lift in 0.5..2.0_f64) {
        let groups = bert_groups(&small(), "bert.");
        let mut random = core_tensor::seed::generator(seed, Purpose::Mask, 0);
        let raw: Vec<Vec<f32>> = groups
            .iter()
            .map(|group| (0..group.units).map(|_| rand::Rng::random::<f32>(&mut random)).collect())
            .collect();
        let config = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(0.5, 0.4) };
        let plain = config.draw(&scores(&groups, |number, unit| raw[number][unit])).unwrap().mask;
        // A strictly increasing map of all scores (f64 arithmetic may merge neighbours, hence well-separated ranks).
        let mapped = scores(&groups, |number, unit| (f64::from(raw[number][unit]).powi(3) * scale) as f32);
        let same = config.draw(&mapped).unwrap();
        if same.distinct == [1.0, 1.0] {
            prop_assert_eq!(&same.mask, &plain);
        }
        // A constant on one layer leaves the layer-wise mask alone.
        let lifted = scores(&groups, |number, unit| raw[number][unit] + if number < 2 { lift as f32 } else { 0.0 });
        prop_assert_eq!(config.draw(&lifted).unwrap().mask.heads, plain.heads);
    }

    #[test]
    fn distances_are_a_metric(a: u64, b: u64, c: u64) {
        let [a, b, c] = [a, b, c].map(|seed| random_ticket(seed, 0.5, 0.4));
        let distance = |x: &TicketMask, y: &TicketMask| x.distance(y).unwrap();
        for kind in 0..2 {
            prop_assert_eq!(distance(&a, &b)[kind], distance(&b, &a)[kind]);
            prop_assert!(distance(&a, &c)[kind] <= distance(&a, &b)[kind] + distance(&b, &c)[kind] + 1e-12);
            let share = [0.5, 10.0 / 24.0][kind];
            prop_assert!(distance(&a, &b)[kind] <= 2.0 * f64::min(share, 1.0 - share) + 1e-12);
        }
    }

    #[test]
    fn permuting_heads_changes_nothing_but_their_numbers(order in Just([0_i64, 1, 2, 3]).prop_shuffle()) {
        let groups = bert_groups(&small(), "bert.");
        let (store, model) = built(&Standard, &small());
        let before = logits(&model);
        let scored = magnitude(&state_of(&store), &groups).unwrap();
        let rows: Vec<i64> = order.iter().flat_map(|head| (0..4).map(move |row| head * 4 + row)).collect();
        let rows = Tensor::from_slice(&rows);
        let variables = store.variables();
        for follower in &groups[0].followers {
            let mut tensor = variables[&follower.tensor].shallow_clone();
            let moved = tensor.index_select(follower.axis, &rows).detach();
            no_grad(|| tensor.copy_(&moved));
        }
        prop_assert!(difference(&logits(&model), &before) < 1e-5);
        let after = magnitude(&state_of(&store), &groups).unwrap();
        let expected = scored.heads[0].1.index_select(1, &Tensor::from_slice(&order));
        prop_assert!(difference(&after.heads[0].1, &expected) < 1e-5);
    }
}
