use super::*;
use crate::learn::{DualBatchNorm, ProjectorConfig, SimClr, SimClrConfig};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::optim::named_trainable;
use tch::nn::VarStore;
use tch::{Device, Kind};

struct Model {
    switch: BranchSwitch,
    store: VarStore,
    network: Box<dyn Network>,
    projector: Projector,
}

fn model() -> Model {
    let switch = BranchSwitch::default();
    let store = VarStore::new(Device::Cpu);
    let layers = DualBatchNorm::new(&switch);
    let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 6], classes: 3 });
    let network = architecture.build(&store.root(), &layers).unwrap();
    let projector = Projector::new(&(store.root() / "projector"), &layers, 6, &ProjectorConfig::acl(6)).unwrap();
    // The same weights in every model, whatever other tests draw from libtorch's generator meanwhile.
    let drawn = |(name, weight): &(String, Tensor)| weight.dim() > 1 || name.contains("fc");
    for (index, (_, weight)) in named_trainable(&store).into_iter().filter(drawn).enumerate() {
        let angles = Tensor::arange(weight.numel() as i64, (Kind::Float, Device::Cpu)) * 1.3 + index as f64;
        tch::no_grad(|| weight.shallow_clone().copy_(&(angles.sin() * 0.4).view_as(&weight)));
    }
    Model { switch, store, network, projector }
}

impl Model {
    fn acl(&self, formulation: Formulation, radius: f64) -> Acl<'_> {
        let attack = Pgd::new(Ball::linf(radius)).with_steps(3);
        let config = AclConfig { formulation, attack, ..AclConfig::default() };
        Acl::new((self.network.as_ref(), &self.projector), &self.switch, config, 7).unwrap()
    }

    fn loss(&self, formulation: Formulation, radius: f64) -> f64 {
        self.acl(formulation, radius).loss(&batch(), &Progress::default()).unwrap().total.double_value(&[])
    }

    fn bytes(&self) -> Vec<(String, Tensor)> {
        let mut all: Vec<_> =
            self.store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Four images of 8 × 8 and two views of each, values in `[0, 1]`.
fn batch() -> ViewBatch {
    let values = (Tensor::arange(8 * 64, (Kind::Float, Device::Cpu)) * 0.37).sin() * 0.5 + 0.5;
    ViewBatch { views: values.view([8, 1, 8, 8]), index: vec![0, 1, 2, 3] }
}

const BOTH: Formulation = Formulation::AdversarialToAdversarial;
const NONE: Formulation = Formulation::StandardToStandard;
const ONE: Formulation = Formulation::AdversarialToStandard;
const DUAL: Formulation = Formulation::DUAL_STREAM;
const RADIUS: f64 = 8.0 / 255.0;

#[test]
fn the_dual_stream_is_the_mean_of_its_streams() {
    // Each call starts from the same statistics and perturbs alike: training passes use the batch's statistics, and the
    // attack those of the adversarial branch, which only the call before it moved; so every loss takes a fresh model.
    let (dual, both, none) = (model().loss(DUAL, RADIUS), model().loss(BOTH, RADIUS), model().loss(NONE, RADIUS));
    // One rounding of f32 for a loss of order 1.
    assert!((dual - (both + none) / 2.0).abs() < 3e-7, "{dual} {both} {none}");
    let weighted = model().loss(Formulation::DualStream { adversarial_weight: 1.5 }, RADIUS);
    assert!((weighted - (0.5 * none + 1.5 * both) / 2.0).abs() < 3e-7);
}

#[test]
fn without_a_budget_every_formulation_is_simclr() {
    let fresh = model();
    let mut simclr = SimClr::new(fresh.network.as_ref(), &fresh.projector, SimClrConfig::default()).unwrap();
    let expected = simclr.loss(&batch(), &Progress::default()).unwrap().total.double_value(&[]);
    for formulation in [NONE, BOTH, DUAL] {
        // Both branches start equal, so that it does not matter which is used.
        let found = model().loss(formulation, 0.0);
        assert!((found - expected).abs() < 3e-7, "{formulation:?}: {found} for {expected}");
    }
    // With the first and second views in norms of their own, the batch statistics differ: another loss.
    assert!(model().loss(ONE, 0.0).is_finite());
}

#[test]
fn the_attack_stays_in_ball_and_box_and_raises_the_loss_it_is_made_against() {
    let fresh = model();
    let batch = batch();
    for formulation in [BOTH, ONE, DUAL] {
        let acl = fresh.acl(formulation, RADIUS);
        let moved = acl.perturb(&batch, 0).unwrap();
        let distance = (&moved - &batch.views).abs().max().double_value(&[]);
        assert!(distance > 0.9 * RADIUS && distance <= RADIUS + 1e-6, "{distance}");
        assert!(moved.min().double_value(&[]) >= 0.0 && moved.max().double_value(&[]) <= 1.0);
        let loss = |views: &Tensor| {
            let embeddings = match formulation {
                Formulation::AdversarialToStandard => Tensor::cat(
                    &[
                        acl.embed(&views.narrow(0, 0, 4), Branch::Adversarial, false),
                        acl.embed(&views.narrow(0, 4, 4), Branch::Normal, false),
                    ],
                    0,
                ),
                _ => acl.embed(views, Branch::Adversarial, false),
            };
            acl.nt_xent(&embeddings).unwrap().double_value(&[])
        };
        assert!(loss(&moved) > loss(&batch.views), "{formulation:?}");
    }
}

#[test]
fn one_sided_attacks_leave_the_other_view_untouched() {
    let fresh = model();
    let batch = batch();
    let moved = fresh.acl(ONE, RADIUS).perturb(&batch, 0).unwrap();
    let (first, second) = batch.halves();
    assert!(moved.narrow(0, 4, 4).equal(&second));
    assert!(!moved.narrow(0, 0, 4).equal(&first));
    assert!(fresh.acl(NONE, RADIUS).perturb(&batch, 0).unwrap().equal(&batch.views));
}

#[test]
fn the_attack_changes_nothing_of_the_model() {
    let fresh = model();
    let before = fresh.bytes();
    for formulation in [BOTH, ONE, DUAL] {
        let _ = fresh.acl(formulation, RADIUS).perturb(&batch(), 3).unwrap();
    }
    for ((name, before), (_, after)) in before.iter().zip(fresh.bytes()) {
        assert!(before.equal(&after), "{name}");
        assert!(!fresh.store.variables()[name].grad().defined(), "{name}");
    }
    assert_eq!(fresh.switch.current(), Branch::Normal);
}

#[test]
fn each_formulation_moves_the_statistics_of_its_branches_only() {
    for (formulation, normal, adversarial) in
        [(NONE, true, false), (BOTH, false, true), (ONE, true, true), (DUAL, true, true)]
    {
        let fresh = model();
        let before = fresh.bytes();
        fresh.acl(formulation, RADIUS).loss(&batch(), &Progress::default()).unwrap();
        for ((name, before), (_, after)) in before.iter().zip(fresh.bytes()) {
            let statistics = name.contains("running_");
            let branch = if name.contains("adversarial") { adversarial } else { normal };
            assert_eq!(!before.equal(&after), statistics && branch, "{name} under {formulation:?}");
        }
    }
}

#[test]
fn each_branch_sees_its_own_views() {
    for (formulation, seen) in [(ONE, 4), (DUAL, 8)] {
        let (trained, twin) = (model(), model());
        let (batch, acl) = (batch(), twin.acl(formulation, RADIUS));
        let moved = acl.perturb(&batch, 0).unwrap();
        trained.acl(formulation, RADIUS).loss(&batch, &Progress::default()).unwrap();
        // The perturbed views (of ONE only the first half), and the clean ones (of ONE the second).
        let _ = acl.embed(&moved.narrow(0, 0, seen), Branch::Adversarial, true);
        let _ = acl.embed(&batch.views.narrow(0, 8 - seen, seen), Branch::Normal, true);
        for ((name, found), (_, expected)) in trained.bytes().iter().zip(twin.bytes()) {
            assert!(found.equal(&expected), "{name} under {formulation:?}");
        }
    }
}

#[test]
fn attacks_on_both_views_go_through_the_adversarial_branch() {
    let perturbed = |formulation, shifted: Option<bool>| {
        let model = model();
        for (name, mut tensor) in model.store.variables() {
            if name.contains("running_mean") && Some(name.contains("adversarial")) == shifted {
                let shift = Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)).sin();
                let _ = tch::no_grad(|| tensor.f_add_(&shift)).unwrap();
            }
        }
        model.acl(formulation, RADIUS).perturb(&batch(), 0).unwrap()
    };
    for formulation in [BOTH, DUAL] {
        let plain = perturbed(formulation, None);
        assert!(perturbed(formulation, Some(false)).equal(&plain), "{formulation:?} looks at the normal branch");
        assert!(!perturbed(formulation, Some(true)).equal(&plain), "{formulation:?} does not look at its own");
    }
}

#[test]
fn both_branches_and_the_shared_weights_get_gradients() {
    let fresh = model();
    fresh.acl(DUAL, RADIUS).loss(&batch(), &Progress::default()).unwrap().total.backward();
    for (name, tensor) in fresh.store.variables() {
        // The classifier is no part of pre-training.
        let expected = tensor.requires_grad() && !name.starts_with("fc.");
        assert_eq!(tensor.grad().defined(), expected, "{name}");
    }
}

#[test]
fn a_seed_and_a_step_fix_the_perturbation() {
    let fresh = model();
    let acl = fresh.acl(DUAL, RADIUS);
    let (first, again, later) =
        (acl.perturb(&batch(), 0).unwrap(), acl.perturb(&batch(), 0).unwrap(), acl.perturb(&batch(), 1).unwrap());
    assert!(first.equal(&again));
    assert!(!first.equal(&later));
}

#[test]
fn settings_and_images_that_do_not_fit_are_refused() {
    let fresh = model();
    let parts = || (fresh.network.as_ref(), &fresh.projector);
    let refuse = |config| Acl::new(parts(), &fresh.switch, config, 0).unwrap_err();
    let cold = AclConfig { temperature: 0.0, ..AclConfig::default() };
    assert!(matches!(refuse(cold), Error::InvalidTemperature { .. }));
    let heavy = AclConfig { formulation: Formulation::DualStream { adversarial_weight: 2.5 }, ..AclConfig::default() };
    assert!(matches!(refuse(heavy), Error::Setting { setting: "adversarial_weight", .. }));
    let negative = AclConfig { attack: Pgd::new(Ball::linf(-0.1)), ..AclConfig::default() };
    assert!(matches!(refuse(negative), Error::Attack(crate::attack::Error::InvalidBudget { .. })));

    // Normalised images are outside the box.
    let outside = ViewBatch { views: batch().views * 4.0 - 2.0, index: vec![0, 1, 2, 3] };
    let refused = fresh.acl(DUAL, RADIUS).perturb(&outside, 0);
    assert!(matches!(refused, Err(Error::Attack(crate::attack::Error::InputOutOfBounds { .. }))));
    // One image has no negatives.
    let single = ViewBatch { views: batch().views.narrow(0, 0, 2), index: vec![0] };
    assert!(matches!(fresh.acl(NONE, RADIUS).step(&single, 0), Err(Error::ViewsLayout { .. })));
    // The view that is left over would be lost without a word where the halves go separate ways.
    let odd = ViewBatch { views: batch().views.narrow(0, 0, 5), index: vec![0, 1] };
    for formulation in [NONE, BOTH, ONE, DUAL] {
        let refused = fresh.acl(formulation, RADIUS).step(&odd, 0);
        assert!(matches!(refused, Err(Error::ViewsLayout { .. })), "{formulation:?}");
    }
}
