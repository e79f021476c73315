use super::*;
use crate::grouping::head::unit;
use crate::grouping::{Error, Miner, MultiSimilarityMiner};
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;
use tch::{Device, Kind, nn};

const ITEMS: i64 = 12;
const DIM: i64 = 8;
const CLASSES: i64 = 4;

/// `sin(0.7 i + 1.3 j + 0.1 i j + phase)`, as `benches/peers/grouping_fixtures.py` makes it.
fn pattern(rows: i64, columns: i64, phase: f64) -> Tensor {
    let value = |i: i64, j: i64| (0.7 * i as f64 + 1.3 * j as f64 + 0.1 * (i * j) as f64 + phase).sin();
    let values: Vec<f64> = (0..rows).flat_map(|i| (0..columns).map(move |j| value(i, j))).collect();
    Tensor::from_slice(&values).view([rows, columns])
}

fn labels() -> Vec<i64> {
    (0..ITEMS).map(|item| item % CLASSES).collect()
}

/// The loss on the pattern's unit vectors, and the gradient's inner product with another pattern.
fn on_pattern(loss: &dyn MetricLoss, mined: Option<&Mined>) -> (f64, f64) {
    let raw = pattern(ITEMS, DIM, 0.0).set_requires_grad(true);
    let embeddings = unit(&raw);
    let labels = labels();
    let total = loss.loss(&Embedded::new(&embeddings, &labels).unwrap(), mined).unwrap();
    total.backward();
    (scalar(&total), scalar(&(raw.grad() * pattern(ITEMS, DIM, 2.0)).sum(Kind::Double)))
}

fn store() -> nn::VarStore {
    nn::VarStore::new(Device::Cpu)
}

fn proxies() -> Tensor {
    pattern(CLASSES, DIM, 1.0)
}

fn compare(name: &str, found: (f64, f64), loss: f64, gradient: f64) {
    // Both in f64; distances differ by our 1e-8 under the root, which the gradient of close pairs feels most.
    assert!((found.0 - loss).abs() < 1e-6 * loss.max(1.0), "{name}: {} instead of {loss}", found.0);
    assert!((found.1 - gradient).abs() < 1e-5, "{name}: gradient {} instead of {gradient}", found.1);
}

#[test]
fn values_and_gradients_are_those_of_pytorch_metric_learning() {
    // pytorch-metric-learning 2.9.0 on torch 2.11.0, printed by benches/peers/grouping_fixtures.py.
    let contrastive = Contrastive::default();
    compare("contrastive", on_pattern(&contrastive, None), 1.5937097765249633, 0.04951849144056601);
    let all = Contrastive { averaging: Averaging::All, ..contrastive };
    compare("contrastive, all", on_pattern(&all, None), 1.5554863301025261, 0.008268697840979562);
    compare("triplet", on_pattern(&Triplet::default(), None), 0.46746949452758463, 0.0049326731393035325);
    let mut margin = Margin::new(&store().root(), MarginConfig::new(CLASSES)).unwrap();
    margin.beta = margin.beta.to_kind(Kind::Double).fill_(1.2);
    compare("margin", on_pattern(&margin, None), 0.436358787906874, 0.001932418327137586);
    let similarity = MultiSimilarity::default();
    compare("multi-similarity", on_pattern(&similarity, None), 1.1625483506640168, 0.025561998494957806);
    compare("N-pair", on_pattern(&NPair::default(), None), 1.612930139790021, -0.04941350920854293);
    compare("lifted", on_pattern(&Lifted::default(), None), 4.087458775195063, 0.0066842755873414705);

    let config = ProxyNcaConfig { own_in_sum: true, ..ProxyNcaConfig::new(CLASSES, DIM) };
    let mut nca = ProxyNca::new(&store().root(), config).unwrap();
    nca.proxies = proxies();
    compare("proxy-NCA", on_pattern(&nca, None), 1.8065407122812622, -0.4284304632724879);
    let mut anchor = ProxyAnchor::new(&store().root(), ProxyAnchorConfig::new(CLASSES, DIM)).unwrap();
    anchor.proxies = proxies();
    compare("proxy-anchor", on_pattern(&anchor, None), 58.25455785026696, -2.6018987430855596);
    let mut softmax = NormalisedSoftmax::new(&store().root(), CLASSES, DIM, 0.05).unwrap();
    softmax.proxies = proxies();
    compare("normalised softmax", on_pattern(&softmax, None), 10.595482249146333, -4.706998930740841);
}

#[test]
fn mined_pairs_give_the_values_of_pytorch_metric_learning() {
    let embeddings = unit(&pattern(ITEMS, DIM, 0.0));
    let labels = labels();
    let batch = Embedded::new(&embeddings, &labels).unwrap();
    let mined = MultiSimilarityMiner::default().mine(&batch, &mut generator(0, Purpose::Noise, 0)).unwrap();
    let found = on_pattern(&MultiSimilarity::default(), Some(&mined));
    compare("multi-similarity", found, 1.1625483506640168, 0.025561998494957806);
    let found = on_pattern(&Contrastive::default(), Some(&mined));
    compare("contrastive", found, 1.5937097765249633, 0.04951849144056601);
}

/// Unit vectors in the plane with the given angles to the first axis.
fn plane(cosines: &[f64]) -> Tensor {
    let points: Vec<f64> = cosines.iter().flat_map(|cosine| [*cosine, (1.0 - cosine * cosine).sqrt()]).collect();
    Tensor::from_slice(&points).view([-1, 2])
}

fn of_one_anchor(loss: &dyn MetricLoss, cosines: &[f64], labels: &[i64]) -> f64 {
    // The anchor is the first axis; the others are references.
    let (anchor, others) = (plane(&[1.0]), plane(cosines));
    let batch = Embedded::new(&anchor, &[0]).unwrap();
    scalar(&loss.loss(&batch.against(&others, labels).unwrap(), None).unwrap())
}

#[test]
fn worked_values_of_single_pairs() {
    // ½ ln(1 + e^{−0.6}) + 1/50 ln(1 + e^{−10})
    let similarity = of_one_anchor(&MultiSimilarity::default(), &[0.8, 0.3], &[0, 1]);
    assert!((similarity - 0.218745).abs() < 1e-6);
    // ln(1 + e^{−0.6}) and ln(1 + e^{15})
    assert!((of_one_anchor(&BinomialDeviance::default(), &[0.8], &[0]) - 0.437488).abs() < 1e-6);
    assert!((of_one_anchor(&BinomialDeviance::default(), &[0.8], &[1]) - 15.0).abs() < 1e-5);
}

#[test]
fn pairs_that_were_not_mined_do_not_count() {
    // One positive at a cosine of 0.8 and one negative at 0.9, of four vectors in two classes.
    let (rows, labels) = (plane(&[1.0, 0.8, 0.9, -0.2]), [0, 0, 1, 1]);
    let batch = Embedded::new(&rows, &labels).unwrap();
    let mined = Mined::Pairs { positives: vec![[0, 1]], negatives: vec![[0, 2]] };
    let similarity = MultiSimilarity::default();
    // D of a cosine c is √(2 − 2c); ½ ln(1 + e^{−0.6}) + 1/50 ln(1 + e^{20}), a mean over four anchors; ln(1 +
    // e^{−0.6}) + 20.
    let of: [(&dyn MetricLoss, f64); 3] = [
        (&Contrastive::default(), 0.4_f64.sqrt() + 1.0 - 0.2_f64.sqrt()),
        (&similarity, (0.218744 + 0.4) / 4.0),
        (&BinomialDeviance::default(), 0.437488 + 20.0),
    ];
    for (loss, expected) in of {
        let (few, all) = (loss.loss(&batch, Some(&mined)).unwrap(), loss.loss(&batch, None).unwrap());
        assert!((scalar(&few) - expected).abs() < 2e-6, "{loss:?}: {}", scalar(&few));
        assert!((scalar(&all) - expected).abs() > 1e-3, "{loss:?}: all pairs cost as much");
    }
}

#[test]
fn margin_losses_worked_by_hand() {
    // (D_ap, D_an) with β = 1.2 and m = 0.2: the sum of hinges over the number of hinges above 0.
    for (positive, negative, expected) in [(0.5, 1.5, 0.0), (1.1, 1.5, 0.1), (1.1, 1.3, 0.1), (1.3, 1.1, 0.3)] {
        let rows = Tensor::from_slice(&[0.0_f64, positive, -negative]).view([3, 1]);
        let mut margin = Margin::new(&store().root(), MarginConfig::new(2)).unwrap();
        margin.beta = margin.beta.to_kind(Kind::Double).fill_(1.2);
        let mined = Mined::Triplets(vec![[0, 1, 2]]);
        let batch = Embedded::new(&rows, &[0, 0, 1]).unwrap();
        let found = scalar(&margin.loss(&batch, Some(&mined)).unwrap());
        // √(D² + 1e-8) is 5e-9 more than D near 1.
        assert!((found - expected).abs() < 3e-8, "({positive}, {negative}): {found}");
    }
}

#[test]
fn each_class_has_its_own_boundary_and_its_gradient() {
    let rows = Tensor::from_slice(&[0.0_f64, 1.1, -1.5, -1.6]).view([4, 1]);
    let mut margin = Margin::new(&store().root(), MarginConfig::new(2)).unwrap();
    let beta = Tensor::from_slice(&[1.2_f64, 9.0]).set_requires_grad(true);
    margin.beta = beta.shallow_clone();
    let batch = Embedded::new(&rows, &[0, 0, 1, 1]).unwrap();
    let mined = Mined::Triplets(vec![[0, 1, 2]]);
    margin.loss(&batch, Some(&mined)).unwrap().backward();
    // One active hinge, 1.1 − β₀ + 0.2: its derivative by β₀ is −1, and β₁ takes no part.
    assert_eq!(Vec::<f64>::try_from(beta.grad()).unwrap(), [-1.0, 0.0]);
}

#[test]
fn proxies_worked_by_hand() {
    // Squared distances 0.5 (own), 1.5 and 2.0 are cosines 0.75, 0.25 and 0.
    let with = |own_in_sum| {
        let config = ProxyNcaConfig { own_in_sum, ..ProxyNcaConfig::new(3, 2) };
        let mut nca = ProxyNca::new(&store().root(), config).unwrap();
        nca.proxies = plane(&[0.75, 0.25, 0.0]);
        scalar(&nca.loss(&Embedded::new(&plane(&[1.0]), &[0]).unwrap(), None).unwrap())
    };
    assert!((with(true) - 0.464369).abs() < 1e-6 && (with(false) + 0.525923).abs() < 1e-6);

    // One proxy with one positive at 0.6 and one negative at 0.2: ln(1 + e^{−16}) and ln(1 + e^{9.6}), where the second
    // proxy, opposite to the first, adds ln(1 + e^{−32·(−0.2 − 0.1)}) for its positive and ln(1 + e^{−16}) to its
    // negatives.
    let mut anchor = ProxyAnchor::new(&store().root(), ProxyAnchorConfig::new(2, 2)).unwrap();
    anchor.proxies = Tensor::from_slice(&[1.0_f64, 0.0, -1.0, 0.0]).view([2, 2]);
    let found = scalar(&anchor.loss(&Embedded::new(&plane(&[0.6, 0.2]), &[0, 1]).unwrap(), None).unwrap());
    let (first, second) = (1.125e-7, 9.600068);
    let other_positive = (1.0 + (-32.0 * (-0.2_f64 - 0.1)).exp()).ln();
    let other_negative = (1.0 + (32.0 * (-0.6_f64 + 0.1)).exp()).ln();
    assert!((found - (first + other_positive + second + other_negative) / 2.0).abs() < 1e-6, "{found}");
}

#[test]
fn n_pairs_worked_by_hand() {
    // Anchors e₁, e₂ with themselves as positives: −ln(e / (e + 1)), and mean squared length 1.
    let rows = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]).view([4, 2]);
    let batch = Embedded::new(&rows, &[0, 1, 0, 1]).unwrap();
    let expected = (1.0 + (-1.0_f64).exp()).ln();
    assert!((scalar(&NPair::default().loss(&batch, None).unwrap()) - expected).abs() < 1e-12);
    let penalised = NPair { length_penalty: 0.5 }.loss(&batch, None).unwrap();
    assert!((scalar(&penalised) - expected - 0.5).abs() < 1e-12);
}

#[test]
fn batches_without_pairs_are_errors_and_never_nan() {
    let rows = plane(&[1.0, 0.5, 0.1]);
    let (one_class, all_different) = (vec![0, 0, 0], vec![0, 1, 2]);
    let margin = Margin::new(&store().root(), MarginConfig::new(3)).unwrap();
    let losses: [&dyn MetricLoss; 4] = [&Triplet::default(), &margin, &Lifted::default(), &NPair::default()];
    for loss in losses {
        for labels in [&one_class, &all_different] {
            let refused = loss.loss(&Embedded::new(&rows, labels).unwrap(), None);
            assert!(matches!(refused, Err(Error::NothingMined { .. })), "{loss:?} {labels:?}");
        }
    }
    let pairwise: [&dyn MetricLoss; 3] =
        [&Contrastive::default(), &MultiSimilarity::default(), &BinomialDeviance::default()];
    let pairs = vec![[0, 1], [1, 2]];
    for loss in pairwise {
        for (labels, kind) in [(&one_class, "negative pair"), (&all_different, "positive pair")] {
            let refused = loss.loss(&Embedded::new(&rows, labels).unwrap(), None);
            assert!(matches!(refused, Err(Error::NothingMined { kind: found, .. }) if found == kind), "{loss:?}");
        }
        // A miner may find one kind only, and references may have no more.
        let positive = Mined::Pairs { positives: pairs.clone(), negatives: Vec::new() };
        let negative = Mined::Pairs { positives: Vec::new(), negatives: pairs.clone() };
        let (mined, against) = ([(&one_class, &positive), (&all_different, &negative)], [vec![0; 3], vec![5; 3]]);
        let mined = mined.map(|(labels, mined)| (labels, Some(mined), None));
        let against = against.each_ref().map(|references| (&one_class, None, Some(references)));
        for (labels, mined, references) in mined.into_iter().chain(against) {
            let leaf = rows.copy().set_requires_grad(true);
            let batch = Embedded::new(&leaf, labels).unwrap();
            let batch = references.map_or(batch, |others| batch.against(&rows, others).unwrap());
            let total = loss.loss(&batch, mined).unwrap();
            total.backward();
            assert!(scalar(&total).is_finite() && leaf.grad().isfinite().all().int64_value(&[]) == 1, "{loss:?}");
        }
        let alone = plane(&[1.0]);
        let refused = loss.loss(&Embedded::new(&alone, &[0]).unwrap(), None);
        assert!(matches!(refused, Err(Error::NothingMined { .. })), "{loss:?}");
    }
}

#[test]
fn labels_outside_the_classes_and_bad_settings_are_refused() {
    let rows = plane(&[1.0, 0.5]);
    let margin = Margin::new(&store().root(), MarginConfig::new(2)).unwrap();
    let nca = ProxyNca::new(&store().root(), ProxyNcaConfig::new(2, 2)).unwrap();
    for loss in [&margin as &dyn MetricLoss, &nca] {
        let refused = loss.loss(&Embedded::new(&rows, &[0, 2]).unwrap(), None);
        assert!(matches!(refused, Err(Error::Label { label: 2, position: 1, classes: 2 })), "{loss:?}");
    }
    let wide = pattern(2, 3, 0.0);
    assert!(matches!(nca.loss(&Embedded::new(&wide, &[0, 1]).unwrap(), None), Err(Error::Shape { .. })));
    assert!(Margin::new(&store().root(), MarginConfig { margin: f64::NAN, ..MarginConfig::new(2) }).is_err());
    assert!(Margin::new(&store().root(), MarginConfig::new(0)).is_err());
    assert!(NormalisedSoftmax::new(&store().root(), 2, 2, 0.0).is_err());
    assert!(ProxyAnchor::new(&store().root(), ProxyAnchorConfig::new(1, 2)).is_err());
    assert!(
        ProxyAnchor::new(&store().root(), ProxyAnchorConfig { alpha: 0.0, ..ProxyAnchorConfig::new(2, 2) }).is_err()
    );
    assert!(ProxyNca::new(&store().root(), ProxyNcaConfig { scale: f64::NAN, ..ProxyNcaConfig::new(2, 2) }).is_err());
    assert!(Margin::new(&store().root(), MarginConfig { beta: f64::INFINITY, ..MarginConfig::new(2) }).is_err());
    let zero = Tensor::from_slice(&[0.0_f64, 0.0, 1.0, 0.0, 0.0, 1.0]).view([3, 2]);
    let refused = MultiSimilarity::default().loss(&Embedded::new(&zero, &[0, 1, 0]).unwrap(), None);
    assert!(matches!(refused, Err(Error::ZeroNorm { position: 0 })));
}

#[test]
fn settings_that_make_no_number_are_refused() {
    let rows = pattern(ITEMS, DIM, 0.0);
    let labels = labels();
    let batch = Embedded::new(&rows, &labels).unwrap();
    let similar = MultiSimilarity::default();
    let losses: [(&str, &dyn MetricLoss); 10] = [
        ("alpha", &MultiSimilarity { alpha: 0.0, ..similar }),
        ("beta", &MultiSimilarity { beta: -1.0, ..similar }),
        ("base", &MultiSimilarity { base: f64::NAN, ..similar }),
        ("positive_margin", &Contrastive { positive_margin: f64::NAN, ..Default::default() }),
        ("negative_margin", &Contrastive { negative_margin: f64::INFINITY, ..Default::default() }),
        ("margin", &Triplet { margin: f64::NAN, ..Default::default() }),
        ("margin", &Lifted { margin: f64::NAN }),
        ("mu", &BinomialDeviance { mu: f64::NAN, ..Default::default() }),
        ("negative_cost", &BinomialDeviance { negative_cost: 0.0, ..Default::default() }),
        ("length_penalty", &NPair { length_penalty: f64::NAN }),
    ];
    for (name, loss) in losses {
        let refused = loss.loss(&batch, None);
        assert!(matches!(refused, Err(Error::Setting { setting, .. }) if setting == name), "{name}: {loss:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_batch_does_not_matter(shift in 1_i64..ITEMS, phase in 0.0..6.0_f64) {
        // N-pair is left out: which item of a class is its anchor depends on the order.
        let losses: [&dyn MetricLoss; 5] = [
            &Contrastive::default(), &Triplet::default(), &MultiSimilarity::default(), &BinomialDeviance::default(),
            &Lifted::default(),
        ];
        let rows = unit(&pattern(ITEMS, DIM, phase));
        let (moved, mut moved_labels) = (rows.roll([shift], [0]), labels());
        moved_labels.rotate_right(shift as usize);
        for loss in losses {
            let one = scalar(&loss.loss(&Embedded::new(&rows, &labels()).unwrap(), None).unwrap());
            let other = scalar(&loss.loss(&Embedded::new(&moved, &moved_labels).unwrap(), None).unwrap());
            // Sums of some hundred f64 in another order.
            prop_assert!((one - other).abs() < 1e-9, "{:?}", loss);
        }
    }

    #[test]
    fn turning_all_embeddings_changes_no_loss(angle in 0.0..6.0_f64) {
        let rotation = Tensor::eye(DIM, (Kind::Double, Device::Cpu));
        let block = Tensor::from_slice(&[angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view([2, 2]);
        rotation.narrow(0, 2, 2).narrow(1, 2, 2).copy_(&block);
        let rows = unit(&pattern(ITEMS, DIM, 0.5));
        let turned = rows.matmul(&rotation);
        for loss in [&Triplet::default() as &dyn MetricLoss, &MultiSimilarity::default(), &NPair::default()] {
            let one = scalar(&loss.loss(&Embedded::new(&rows, &labels()).unwrap(), None).unwrap());
            let other = scalar(&loss.loss(&Embedded::new(&turned, &labels()).unwrap(), None).unwrap());
            prop_assert!((one - other).abs() < 1e-9, "{:?}", loss);
        }
    }
}
