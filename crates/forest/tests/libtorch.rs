//! libtorch as a witness: same predictions, same gradients.
#![cfg(feature = "libtorch")]

use forest::libtorch::TorchForest;
use forest::synthetic::blobs;
use forest::{
    Evaluation, ForestError, Gate, LeafModel, Leafness, Loss, Mix, Optimiser, Regularisers, SoftForest,
    SoftForestParams,
};
use ndarray::{Array2, ArrayView2, aview1};
use proptest::prelude::*;

fn params(depth: usize, gate: Gate, mix: Mix, nodes: Option<usize>) -> SoftForestParams {
    SoftForestParams::default()
        .trees(3)
        .depth(depth)
        .gate(gate)
        .mix(mix)
        .leafness(nodes.map_or(Leafness::Logit { init: 0.0 }, |nodes| Leafness::Random { nodes }))
        .epochs(2)
        .harden(false)
}

fn choices() -> impl Strategy<Value = (Gate, Mix, Option<usize>)> {
    (any::<bool>(), any::<bool>(), proptest::option::of(1usize..30)).prop_map(|(g, m, n)| {
        (
            if g { Gate::Sigmoid } else { Gate::SmoothStep { width: 6.0 } },
            if m { Mix::Probabilities } else { Mix::Logits },
            n,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Two independent computations in single precision of outputs below 1.
    #[test]
    fn the_kernel_equals_libtorch_to_1e_5(seed: u64, depth in 1usize..6, (gate, mix, nodes) in choices()) {
        let (x, y) = blobs(60, 7, 3, 2.0, seed);
        let forest = params(depth, gate, mix, nodes).seed(seed).fit(x.view(), aview1(&y))?;
        let (torch, scaled) = forest.torch(x.view(), tch::Device::Cpu)?;
        let wanted = torch.predict_proba(scaled.view())?;
        let found = forest.evaluate(x.view(), Evaluation::Exact)?.output;
        for (f, w) in found.iter().zip(&wanted) {
            prop_assert!((f - w).abs() < 1e-5, "{f} {w}");
        }
    }

    /// One full-batch step of the pure trainer and of libtorch from the same trees with plain parametrised leafness: Adam's
    /// first step is the rate times the sign of the gradient, so a gradient of the wrong sign or place would show at once.
    #[test]
    fn a_training_step_equals_libtorchs(seed: u64, depth in 1usize..5, joint: bool, (gate, mix, _) in choices()) {
        let (x, y) = blobs(40, 5, 3, 2.0, seed);
        let base = params(depth, gate, mix, None)
            .seed(seed)
            .leafness(Leafness::Clamped { init: 0.4 })
            .scaling(forest::Scaling::None)
            .loss(if joint { forest::Loss::Joint } else { forest::Loss::PerTree })
            .batch(1000);
        let start = base.clone().epochs(0).fit(x.view(), aview1(&y))?;
        let after = base.clone().epochs(1).fit(x.view(), aview1(&y))?;
        let (torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
        let (loss, gradients) = torch.gradients(scaled.view(), aview1(&y))?;
        // Ours is per tree; libtorch's sums over the three trees unless the loss is the forest's.
        let trees = if joint { 1.0 } else { 3.0 };
        prop_assert!((after.history()[0].loss * trees - loss).abs() < 1e-4);
        let rate = base.optimiser.rate;
        for ((old, new), gradient) in start.trees().iter().zip(after.trees()).zip(&gradients) {
            for gate in 0..old.biases().len() {
                let width = old.inputs();
                let steps = old.gate_weights(gate).iter().zip(new.gate_weights(gate));
                for ((o, n), g) in steps.zip(&gradient.weights[gate * width..]) {
                    check_step(*o, *n, *g, rate)?;
                }
                check_step(old.biases()[gate], new.biases()[gate], gradient.bias[gate], rate)?;
                check_step(old.leafness()[gate], new.leafness()[gate], gradient.leafness[gate], 3.0 * rate)?;
            }
            for node in 0..old.topology().nodes() {
                let steps = old.response(node).iter().zip(new.response(node));
                for ((o, n), g) in steps.zip(&gradient.responses[node * old.outputs()..]) {
                    check_step(*o, *n, *g, rate)?;
                }
            }
        }
    }
}

/// A first Adam step is -rate g / (|g| + 1e-8). Gradients within rounding of 0 have no certain sign.
fn check_step(old: f32, new: f32, gradient: f32, rate: f32) -> Result<(), TestCaseError> {
    if gradient.abs() > 1e-5 {
        let wanted = -rate * gradient / (gradient.abs() + 1e-8);
        prop_assert!((new - old - wanted).abs() < 1e-5, "{old} {new} {gradient}");
    }
    Ok(())
}

#[test]
fn training_in_libtorch_lowers_the_loss_and_gives_trees_back() -> forest::Result<()> {
    let (x, y) = blobs(300, 5, 3, 4.0, 1);
    let settings = params(3, Gate::Sigmoid, Mix::Probabilities, None).epochs(0);
    let start = settings.fit(x.view(), aview1(&y))?;
    let (mut torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
    let settings = settings.epochs(20).batch(50);
    let losses = torch.train(scaled.view(), aview1(&y), &settings)?;
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
    let again = TorchForest::new(&torch.trees()?, &settings, 1.0, tch::Device::Cpu)?;
    let view: ArrayView2<f32> = scaled.view();
    assert_eq!(torch.predict_proba(view)?, again.predict_proba(view)?);
    Ok(())
}

/// Below a leaf that is not on the last level lies padding. Responses are still random, so that half of the leaves say worse
/// than padding would, and a gate that could open would.
#[test]
fn trees_of_uneven_depth_are_what_was_trained() -> forest::Result<()> {
    let (x, y) = blobs(300, 5, 3, 4.0, 1);
    let start = params(4, Gate::Sigmoid, Mix::Probabilities, Some(9)).epochs(0).fit(x.view(), aview1(&y))?;
    let shapes = |trees: &[forest::Tree]| trees.iter().map(|t| t.topology().clone()).collect::<Vec<_>>();
    for (leafness, moves) in [(Leafness::Logit { init: 0.0 }, true), (Leafness::Fixed, false)] {
        let (mut torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
        let settings = start.params().clone().leafness(leafness).epochs(20).batch(50);
        torch.train(scaled.view(), aview1(&y), &settings)?;
        let trees = torch.trees()?;
        assert_eq!(shapes(&trees), shapes(start.trees()));
        assert_eq!(trees.iter().any(|t| t.leafness().iter().any(|&g| g > 0.0)), moves);
        let again = TorchForest::new(&trees, &settings, 1.0, tch::Device::Cpu)?;
        assert_eq!(torch.predict_proba(scaled.view())?, again.predict_proba(scaled.view())?);
    }
    Ok(())
}

#[test]
fn what_it_cannot_train_on_is_refused() -> forest::Result<()> {
    let (x, y) = blobs(30, 5, 3, 4.0, 1);
    let labels = aview1(&y);
    let settings = params(2, Gate::Sigmoid, Mix::Probabilities, None).epochs(0);
    let (mut torch, scaled) = settings.fit(x.view(), labels)?.torch(x.view(), tch::Device::Cpu)?;
    let rows = scaled.view();
    let mut wrong = y.clone();
    wrong[7] = 3;
    let found = torch.gradients(rows, aview1(&wrong));
    assert!(matches!(found, Err(ForestError::Label { row: 7, label: 3, classes: 3 })));
    let found = torch.train(rows, aview1(&wrong), &settings);
    assert!(matches!(found, Err(ForestError::Label { row: 7, label: 3, classes: 3 })));
    let found = torch.gradients(rows, aview1(&y[..29]));
    assert!(matches!(found, Err(ForestError::Rows { expected: 30, found: 29, .. })));
    let none = Array2::zeros((0, 5));
    assert!(matches!(torch.gradients(none.view(), aview1(&[])), Err(ForestError::Empty { .. })));
    assert!(matches!(torch.gradients(x.slice(ndarray::s![.., ..2]), labels), Err(ForestError::Width { .. })));
    let penalised = Regularisers { size: 0.1, ..Regularisers::default() };
    for (other, field) in [
        (settings.clone().batch(0), "batch"),
        (settings.clone().loss(Loss::Joint), "loss"),
        (settings.clone().gate(Gate::SmoothStep { width: 6.0 }), "gate"),
        (settings.clone().mix(Mix::Logits), "mix"),
        (settings.clone().regularisers(penalised), "regularisers"),
        (settings.clone().inverse_temperature(2.0), "inverse_temperature"),
        (settings.clone().leaf(LeafModel::Linear), "leaf"),
        (settings.clone().bagging(true), "bagging"),
    ] {
        match torch.train(rows, labels, &other) {
            Err(ForestError::Setting { name, .. }) => assert_eq!(name, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let settings = settings.loss(Loss::LeafCrossEntropy);
    let (torch, scaled) = settings.fit(x.view(), labels)?.torch(x.view(), tch::Device::Cpu)?;
    assert!(matches!(torch.gradients(scaled.view(), labels), Err(ForestError::Setting { name: "loss", .. })));
    Ok(())
}

#[test]
fn a_batch_may_have_room_for_more_than_all_rows() -> forest::Result<()> {
    let (x, y) = blobs(30, 5, 3, 2.0, 1);
    let start = params(2, Gate::Sigmoid, Mix::Probabilities, None).epochs(0).fit(x.view(), aview1(&y))?;
    let [all, more] = [30, usize::MAX].map(|batch| {
        let (mut torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
        torch.train(scaled.view(), aview1(&y), &start.params().clone().epochs(2).batch(batch))
    });
    assert_eq!(all?, more?);
    Ok(())
}

/// Every gate but the first sits at the left child of the one before.
#[test]
fn chains_too_long_to_be_padded_are_refused() {
    let chain: Vec<u32> = std::iter::once(0).chain((0..69).map(|gate| 2 * gate + 1)).collect();
    let tree = forest::Topology::from_gate_nodes(&chain).and_then(|topology| {
        let (weights, bias, leafness) = (vec![0.0; 70], vec![0.0; 70], vec![0.5; 70]);
        forest::Tree::from_parts(topology, 1, 2, weights, bias, leafness, vec![0.0; 2 * 141], Vec::new())
    });
    let trees: Vec<forest::Tree> = tree.into_iter().collect();
    let made = TorchForest::new(&trees, &SoftForestParams::default(), 1.0, tch::Device::Cpu);
    assert!(matches!(made, Err(ForestError::Setting { name: "depth", .. })), "{made:?}");
}

#[test]
fn trees_trained_in_libtorch_are_a_model_again() -> forest::Result<()> {
    let (x, y) = blobs(300, 5, 3, 4.0, 1);
    let (new_x, new_y) = blobs(100, 5, 3, 4.0, 2);
    for leafness in [Leafness::Logit { init: 0.0 }, Leafness::Fixed] {
        let settings = params(3, Gate::Sigmoid, Mix::Probabilities, None).leafness(leafness).epochs(0);
        let start = settings.fit(x.view(), aview1(&y))?;
        let (mut torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
        torch.train(scaled.view(), aview1(&y), &settings.epochs(20).batch(50))?;
        let model = start.with_trees(torch.trees()?)?;
        assert!(model.score(new_x.view(), aview1(&new_y))? > 0.9);
        // Rows that the forest was not made with need no second forest.
        let wanted = torch.predict_proba(start.scaled(new_x.view())?.view())?;
        let found = model.predict_proba(new_x.view())?;
        assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-5));
        let loaded = SoftForest::from_bytes(&model.to_bytes()?)?;
        assert_eq!(loaded.predict_proba(new_x.view())?, found);
    }
    Ok(())
}

/// The sum over rows of the class probabilities, each class weighed by its number.
#[test]
fn gradients_of_the_forest_as_a_layer_are_central_differences() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 3, 2.0, 1);
    let rate = Optimiser { rate: 0.05, ..Optimiser::default() };
    for (gate, mix) in [(Gate::Sigmoid, Mix::Probabilities), (Gate::SmoothStep { width: 6.0 }, Mix::Logits)] {
        let settings = params(3, gate, mix, None).epochs(20).optimiser(rate);
        let (torch, scaled) = settings.fit(x.view(), aview1(&y))?.torch(x.view(), tch::Device::Cpu)?;
        let rows = scaled.slice(ndarray::s![..5, ..]);
        let said = |out: &Array2<f32>| out.indexed_iter().map(|((_, k), p)| k as f64 * f64::from(*p)).sum::<f64>();
        let flat: Vec<f32> = rows.iter().copied().collect();
        let layer = tch::Tensor::from_slice(&flat).reshape([5, 4]).set_requires_grad(true);
        let classes = tch::Tensor::from_slice(&[0f32, 1.0, 2.0]);
        (torch.forward(&layer)? * classes).sum(tch::Kind::Float).backward();
        let h = 1e-2;
        let mut largest = 0f64;
        for (at, _) in rows.indexed_iter() {
            let moved = |delta: f32| {
                let mut rows = rows.to_owned();
                rows[at] += delta;
                torch.predict_proba(rows.view()).map(|out| said(&out))
            };
            let numeric = (moved(h)? - moved(-h)?) / f64::from(2.0 * h);
            let found = layer.grad().double_value(&[at.0 as i64, at.1 as i64]);
            // Single precision, over a step of 0.02, and the third derivative's h^2.
            assert!((found - numeric).abs() < 1e-3, "{at:?}: {found} {numeric}");
            largest = largest.max(found.abs());
        }
        assert!(largest > 0.05, "{largest}");
        for parameter in torch.parameters() {
            assert!(parameter.grad().abs().max().double_value(&[]) > 0.0);
        }
        let narrow = tch::Tensor::zeros([5, 3], (tch::Kind::Float, tch::Device::Cpu));
        assert!(matches!(torch.forward(&narrow), Err(ForestError::Width { expected: 4, found: 3 })));
        let twice = tch::Tensor::zeros([5, 4], (tch::Kind::Double, tch::Device::Cpu));
        assert!(matches!(torch.forward(&twice), Err(ForestError::Libtorch(_))));
    }
    Ok(())
}

/// Trees of uneven depth: what is not theirs gets no gradient, so that any optimiser leaves it alone.
#[test]
fn padding_has_no_part_in_training_by_other_means() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 3, 2.0, 1);
    let settings = params(4, Gate::Sigmoid, Mix::Probabilities, Some(9)).epochs(0);
    let start = settings.fit(x.view(), aview1(&y))?;
    let (torch, scaled) = start.torch(x.view(), tch::Device::Cpu)?;
    let flat: Vec<f32> = scaled.iter().copied().collect();
    let rows = tch::Tensor::from_slice(&flat).reshape([60, 4]);
    (torch.forward(&rows)?.narrow(1, 0, 1)).log().mean(tch::Kind::Float).backward();
    tch::no_grad(|| {
        for parameter in torch.parameters() {
            let _ = parameter.shallow_clone().g_add_(&(parameter.grad() * 10.0));
        }
        let _ = torch.parameters()[2].shallow_clone().clamp_(0.0, 1.0);
    });
    let model = start.with_trees(torch.trees()?)?;
    assert_ne!(model.predict_proba(x.view())?, start.predict_proba(x.view())?);
    let (found, wanted) = (model.predict_proba(x.view())?, torch.predict_proba(scaled.view())?);
    assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-5));
    Ok(())
}

#[test]
fn a_loss_that_is_no_number_names_its_epoch_and_step() -> forest::Result<()> {
    let (x, y) = blobs(100, 5, 3, 2.0, 1);
    let settings = params(2, Gate::Sigmoid, Mix::Probabilities, None).epochs(0).batch(30);
    let (mut torch, mut scaled) = settings.fit(x.view(), aview1(&y))?.torch(x.view(), tch::Device::Cpu)?;
    scaled[[70, 2]] = f32::NAN;
    let found = torch.train(scaled.view(), aview1(&y), &settings.epochs(2));
    assert!(matches!(found, Err(ForestError::Diverged { epoch: 0, step: 2, .. })), "{found:?}");
    Ok(())
}
