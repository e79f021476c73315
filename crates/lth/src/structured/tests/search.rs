use super::*;

/// Coefficients of one group of eight neurons, moved by hand.
fn watched(config: SearchConfig) -> (Search, Tensor, SlimGroup) {
    let group = SlimGroup {
        coefficient: "c".into(),
        layer: 0,
        gated: Gated::Neurons,
        units: 8,
        followers: vec![Follower::new("w", 0, 1)],
    };
    let head = SlimGroup { coefficient: "h".into(), gated: Gated::Heads, units: 2, ..group.clone() };
    let live = Tensor::ones([1, 8], (Kind::Float, Device::Cpu));
    let heads = Tensor::from_slice(&[0.9_f32, 1.0]).view([1, 2, 1, 1]);
    let named = [("c".to_owned(), live.shallow_clone()), ("h".to_owned(), heads)];
    (Search::new(&[group.clone(), head], &named, config).unwrap(), live, group)
}

fn move_to(live: &Tensor, values: [f32; 8]) {
    no_grad(|| live.shallow_clone().copy_(&Tensor::from_slice(&values).view([1, 8])));
}

#[test]
fn a_search_draws_at_its_step_and_not_before() {
    let (mut search, live, group) = watched(SearchConfig { rule: DrawRule::AtFraction(0.2), ..Default::default() });
    // 0.2 of 12 steps is 2.4: step 2.
    assert!(!search.see(1, 12).unwrap());
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    assert!(search.see(2, 12).unwrap());
    let found = search.found().unwrap();
    assert_eq!((found.step, found.drawn.distinct), (2, [1.0, 1.0]));
    // round(0.4 · 8) = 3 neurons go.
    assert_eq!(found.drawn.mask.kept(&group).unwrap(), [0, 1, 2, 4, 6]);
    assert_eq!(search.trace().steps.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_stable_mask_is_found_only_once_ties_do_not_draw_it() {
    let rule = DrawRule::Stable(EarlyBirdConfig { window: 3, threshold: 0.1 });
    let (mut search, live, _) = watched(SearchConfig { rule, every: 2, ..Default::default() });
    // Two values among eight: ties decide, and five equal masks mean nothing.
    move_to(&live, [1.0, 1.0, 0.9, 0.9, 1.0, 0.9, 1.0, 0.9]);
    let ties: Vec<bool> = (1..=10).map(|step| search.see(step, 100).unwrap()).collect();
    assert!(ties.iter().all(|found| !found));
    let error = search.ticket().unwrap_err().to_string();
    assert!(error.contains("Stable") && error.contains("step 10"), "{error}");
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    let steps: Vec<bool> = (11..=16).map(|step| search.see(step, 100).unwrap()).collect();
    // Masks at 12, 14 and 16: the third fills the window.
    assert_eq!(steps, [false, false, false, false, false, true]);
    assert_eq!(search.found().unwrap().step, 16);
}

#[test]
fn equal_scores_away_from_the_line_keep_no_stable_mask_waiting() {
    let rule = DrawRule::Stable(EarlyBirdConfig { window: 2, threshold: 0.1 });
    let (mut search, live, _) = watched(SearchConfig { rule, every: 1, ..Default::default() });
    // Three go. Two values in all, and none of them on both sides.
    move_to(&live, [0.9, 1.0, 0.9, 1.0, 1.0, 0.9, 1.0, 1.0]);
    assert_eq!([1, 2].map(|step| search.see(step, 100).unwrap()), [false, true]);
    let drawn = &search.ticket().unwrap().drawn;
    assert_eq!((drawn.tied, drawn.distinct), ([0.0; 2], [1.0, 0.25]));
}

#[test]
fn a_loop_that_looks_at_some_steps_only_draws_at_the_next_it_sees() {
    for rule in [DrawRule::AtStep(25), DrawRule::AtFraction(0.25)] {
        let (mut search, live, _) = watched(SearchConfig { rule, keep_going: true, ..Default::default() });
        move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
        let error = search.ticket().unwrap_err().to_string();
        assert!(error.contains("none after any step") && error.contains("25"), "{error}");
        assert_eq!([10, 20, 30, 40].map(|step| search.see(step, 100).unwrap()), [false, false, true, true]);
        assert_eq!(search.ticket().unwrap().step, 30);
    }
    let (mut search, _, _) = watched(SearchConfig { rule: DrawRule::AtStep(60), ..Default::default() });
    for step in [7, 14, 21] {
        search.see(step, 100).unwrap();
    }
    let error = search.ticket().unwrap_err().to_string();
    assert_eq!(error, "ticket is none after step 21, the last looked at, expected one drawn by AtStep(60)");
}

#[test]
fn a_model_with_neurons_alone_settles_too() {
    let (_, live, group) = watched(SearchConfig::default());
    let rule = DrawRule::Stable(EarlyBirdConfig { window: 2, threshold: 0.1 });
    let config = SearchConfig { rule, every: 1, ..Default::default() };
    let named = [("c".to_owned(), live.shallow_clone())];
    let mut search = Search::new(&[group], &named, config).unwrap();
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    assert_eq!([1, 2].map(|step| search.see(step, 100).unwrap()), [false, true]);
    let mask = &search.found().unwrap().drawn.mask;
    assert_eq!(mask.distance(mask).unwrap(), [0.0, 0.0]);
}

#[test]
fn a_search_goes_on_where_its_saved_state_left_it() {
    use core_tensor::train::Observer;
    for rule in [DrawRule::AtStep(3), DrawRule::Stable(EarlyBirdConfig { window: 2, threshold: 0.1 })] {
        let config = SearchConfig { rule, every: 1, ..Default::default() };
        let (mut search, live, _) = watched(config.clone());
        move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
        for step in 1..=3 {
            search.see(step, 100).unwrap();
        }
        let (mut resumed, _, _) = watched(config);
        resumed.load_state(&search.state()).unwrap();
        assert_eq!(resumed.found(), search.found());
        assert!(resumed.found().is_some());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.safetensors");
        search.trace().save(&path).unwrap();
        let trace = CoefficientTrace::load(&path).unwrap();
        assert_eq!(trace.steps.len(), search.trace().steps.len());
        assert!(trace.steps[&2]["c"].equal(&search.trace().steps[&2]["c"]));
    }
}

#[test]
fn what_makes_no_search_or_draw_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut SearchConfig)| {
        let mut config = SearchConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert!(refuse(&|config| config.rule = DrawRule::AtStep(0)).contains("draw step"));
    assert!(refuse(&|config| config.rule = DrawRule::AtFraction(-0.2)).contains("draw fraction"));
    assert!(refuse(&|config| config.rule = DrawRule::AtFraction(f64::NAN)).contains("draw fraction"));
    assert!(refuse(&|config| config.every = 0).contains("every"));
    assert!(refuse(&|config| config.ignore_while_tied = f64::NAN).contains("ignore_while_tied"));
    assert!(refuse(&|config| config.draw.heads.ratio = 1.0).contains("heads.ratio"));
    assert!(refuse(&|config| config.draw.neurons.ratio = f64::NAN).contains("neurons.ratio"));
    let groups = bert_groups(&small(), "bert.");
    let broken = scores(&groups, |number, unit| if number == 1 && unit == 3 { f32::NAN } else { unit as f32 });
    let error = DrawConfig::default().draw(&broken).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 3, .. }), "{error}");
    let short = [("bert.encoder.layer.0.slimming_coef".to_owned(), Tensor::ones([11], (Kind::Float, Device::Cpu)))];
    assert!(Scores::of(&groups[1..2], &short).unwrap_err().to_string().contains("12 scores"));
    let (plain, _model) = built(&Standard, &small());
    assert!(coefficients(&plain, &groups).unwrap_err().to_string().contains("no such variable"));
    for kind in ["BFloat16", "Half"] {
        let (mut store, _model) = built(&Slimming(Standard), &small());
        if kind == "Half" {
            store.half()
        } else {
            store.bfloat16()
        };
        let error = coefficients(&store, &groups).unwrap_err().to_string();
        assert_eq!(error, format!("`{}`: expected f32 or f64, found {kind}", groups[0].coefficient));
    }
    assert!(fold(&state_of(&plain), &groups).unwrap_err().to_string().contains("expected 4 coefficients, found none"));
    let (search, _, _) = watched(SearchConfig::default());
    assert!(matches!(search.trace().scores(7, &groups), Err(Error::NoSnapshot { step: 7, .. })));
}
