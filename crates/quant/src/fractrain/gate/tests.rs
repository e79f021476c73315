use super::*;
use crate::fractrain::{Bits, PlateauConfig, PlateauIndicator, QuantConfig, QuantFactory};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::Network;
use core_tensor::train::{Loss, Objective, Progress};
use tch::{Device, Kind, Tensor, nn};

fn options(list: &[(u32, u32)]) -> Vec<DfqOption> {
    list.iter().map(|&(activation, gradient)| DfqOption::bits(activation, gradient).unwrap()).collect()
}

fn config(list: &[(u32, u32)]) -> DfqConfig {
    DfqConfig { options: options(list), hidden: 4, embedding: 4, ..DfqConfig::default() }
}

fn waves(shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.713).sin() + 0.2).view(shape)
}

/// Weights that depend on nothing but their shape.
fn fill(store: &nn::VarStore) {
    tch::no_grad(|| {
        for (name, mut variable) in store.variables() {
            if variable.dim() > 1 && variable.requires_grad() {
                let values = waves(&variable.size()) * if name.starts_with("gates") { 1.5 } else { 0.3 };
                variable.copy_(&values);
            } else if name.contains("bias") {
                let _ = variable.zero_();
            }
        }
    });
}

struct Net {
    store: nn::VarStore,
    network: Box<dyn Network>,
    gates: Gates,
}

fn gated(architecture: &Architecture, config: DfqConfig) -> Net {
    let store = nn::VarStore::new(Device::Cpu);
    let (network, gates) = {
        let factory = QuantFactory::gated(QuantConfig::default(), config, store.root() / "gates").unwrap();
        let network = architecture.build(&store.root(), &factory).unwrap();
        (network, factory.gates().unwrap())
    };
    fill(&store);
    Net { store, network, gates }
}

fn small() -> Architecture {
    Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 4, 6], classes: 3 })
}

#[test]
fn costs_of_the_hand_worked_example() {
    // W4: (4·3 + 4·6 + 3·6)/1024 = 0.052734375 and so on. Blocks of 4718592 and 3538944 MACs; choices [0,0,1,2] and
    // [1,1,2,0]: Σ c·F / (3·4·ΣF) = 2.792504 %; C = Σ c·F / mean F / 4 samples = 0.670201 / 4.
    let config = config(&[(3, 6), (4, 8), (6, 12)]);
    let costs = config.option_costs();
    assert_eq!(costs, [0.052_734_375, 0.078_125, 0.140_625]);
    let net = gated(&small(), config.clone());
    {
        let mut state = net.gates.lock();
        let decide = |choices: [usize; 4]| {
            let mut mask = [0.0_f32; 12];
            choices.iter().enumerate().for_each(|(sample, choice)| mask[3 * sample + choice] = 1.0);
            Some(Decision {
                mask: Tensor::from_slice(&mask).view([4, 3]),
                choice: choices.into(),
                options: config.options.clone().into(),
            })
        };
        state.pass =
            Pass { decisions: vec![decide([0, 0, 1, 2]), decide([1, 1, 2, 0])], macs: vec![4_718_592, 3_538_944] };
    }
    let pass = net.gates.finish().unwrap();
    assert!((pass.cp - 2.792_504).abs() < 5e-7, "{}", pass.cp);
    assert!((4.0 * pass.cost.double_value(&[]) - 0.670_201).abs() < 1e-6);
    assert_eq!(pass.histogram, [[2, 1, 1], [1, 2, 1]]);
    assert!(matches!(net.gates.finish(), Err(Error::Shape { .. })));
}

#[test]
fn blocks_are_made_of_layers_that_share_a_name() {
    let net = gated(&Architecture::cifar_resnet(8, 3).unwrap(), config(&[(3, 6), (4, 8)]));
    // The stem stays out; a shortcut's convolution belongs to its block.
    assert_eq!(net.gates.blocks(), ["layer1.0", "layer2.0", "layer3.0"]);
    assert_eq!(net.gates.block_layers()[1], ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]);
    assert_eq!(gated(&small(), config(&[(3, 6)])).gates.blocks(), ["conv2", "conv3"]);
    // 16 → 4 → 4, an LSTM of 8 → 16, 4 → 2 options: 64 + 16 + 128 + 8 multiply-accumulates for the first block.
    let control = net.gates.control_layers();
    assert_eq!(control[..4].iter().map(|layer| layer.op.macs().unwrap()).sum::<u64>(), 216);
    assert!(control.iter().all(|layer| layer.role == Role::Control));
}

#[test]
fn one_option_is_the_static_network_bit_for_bit() {
    let architecture = Architecture::cifar_resnet(8, 3).unwrap();
    let dynamic = gated(&architecture, config(&[(4, 8)]));
    let store = nn::VarStore::new(Device::Cpu);
    let precision = DfqOption::bits(4, 8).unwrap().precision(Bits::new(4).unwrap()).unwrap();
    let settings = QuantConfig { full_precision_stem: true, ..QuantConfig::default() };
    let factory = QuantFactory::new(settings, precision).unwrap();
    let network = architecture.build(&store.root(), &factory).unwrap();
    fill(&store);
    let gradients = |store: &nn::VarStore, network: &dyn Network| {
        network.forward(&waves(&[4, 3, 8, 8]), true).square().sum(Kind::Float).backward();
        let named =
            core_tensor::optim::named_trainable(store).into_iter().filter(|(name, _)| !name.starts_with("gates"));
        named.map(|(name, variable)| (name, variable.grad())).collect::<Vec<_>>()
    };
    let ours = gradients(&dynamic.store, dynamic.network.as_ref());
    let theirs = gradients(&store, network.as_ref());
    assert_eq!(ours.len(), theirs.len());
    for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
        assert!(a.equal(b), "{name}");
    }
    let pass = dynamic.gates.finish().unwrap();
    assert!((pass.cp - precision.cost_percent()).abs() < 1e-9);
}

#[test]
fn a_gates_gradient_is_that_of_the_weighted_sum_of_its_options() {
    // Composed: x_q = Σ mask·Q(x), with every option rounded by plain operations.
    let net = gated(&small(), config(&[(1, 6), (3, 6), (8, 8)]));
    let x = waves(&[4, 1, 8, 8]);
    let logits = net.network.forward(&x, true);
    let masks: Vec<Tensor> = {
        let state = net.gates.lock();
        state.pass.decisions.iter().map(|decision| decision.as_ref().unwrap().mask.shallow_clone()).collect()
    };
    for mask in &masks {
        let sums = Vec::<f32>::try_from(mask.detach().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)).unwrap();
        assert!(sums.iter().all(|sum| *sum == 1.0));
        assert_eq!(mask.detach().max().double_value(&[]), 1.0);
        assert_eq!(mask.detach().min().double_value(&[]), 0.0);
    }
    let weight = &net.store.variables()["gates.projection.weight"];
    logits.square().sum(Kind::Float).backward();
    assert!(weight.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);

    // The kernel's share of it, against autograd on the composition.
    let values = waves(&[3, 2, 4, 4]).set_requires_grad(true);
    let mask = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 1.0, 0.0, 1.0]).view([3, 2]).set_requires_grad(true);
    let upstream = waves(&[3, 2, 4, 4]).flip([0]);
    let rounded = |width| {
        let affine = crate::fractrain::Affine::per_tensor(Bits::new(width).unwrap());
        affine.fake_quant(&values, crate::fractrain::Rounding::Nearest).unwrap()
    };
    let sum = rounded(2) * mask.select(1, 0).view([3, 1, 1, 1]) + rounded(5) * mask.select(1, 1).view([3, 1, 1, 1]);
    (sum * &upstream).sum(Kind::Float).backward();
    let extent = crate::fractrain::memory::scan(&values.detach()).unwrap();
    let grids =
        [2, 5].map(|width| crate::fractrain::GridKind::MinMax.of(extent, Bits::new(width).unwrap(), "x").unwrap());
    let ours = crate::fractrain::memory::products(&values.detach(), &upstream, &grids).unwrap();
    // Sums of 32 products of order one in another order.
    assert!((ours - mask.grad()).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn evaluation_decides_for_each_sample_by_itself() {
    let net = gated(&small(), config(&[(3, 6), (4, 8), (6, 12)]));
    let x = waves(&[6, 1, 8, 8]);
    let _ = net.network.forward(&x, true);
    net.gates.begin();
    let choices = |input: &Tensor| {
        let _ = tch::no_grad(|| net.network.forward(input, false));
        let chosen: Vec<Vec<usize>> = {
            let state = net.gates.lock();
            state.pass.decisions.iter().map(|decision| decision.as_ref().unwrap().choice.to_vec()).collect()
        };
        chosen
    };
    // A second pass begins by itself.
    let (all, again) = (choices(&x), choices(&x));
    assert_eq!(all, again);
    for sample in 0..6 {
        let alone = choices(&x.narrow(0, sample, 1));
        assert!(alone.iter().zip(&all).all(|(alone, all)| alone[0] == all[sample as usize]));
    }
}

#[test]
fn a_skipped_block_is_its_shortcut_and_costs_nothing() {
    let skip = DfqConfig { options: vec![DfqOption::Skip], ..config(&[(3, 6)]) };
    let net = gated(&Architecture::cifar_resnet(8, 3).unwrap(), skip);
    let mut maps = Vec::new();
    let logits = net.network.forward_tapped(&waves(&[2, 3, 8, 8]), true, &mut |name, map| {
        if ["conv1", "layer1.0"].contains(&name) {
            maps.push(map.copy());
        }
    });
    // The first block has an identity shortcut on a map that is not negative.
    assert!(maps[0].equal(&maps[1]));
    assert_eq!(net.gates.finish().unwrap().cp, 0.0);
    logits.square().sum(Kind::Float).backward();
    let gradient = |name: &str| net.store.variables()[name].grad().abs().sum(Kind::Float).double_value(&[]);
    assert_eq!(gradient("layer1.0.conv1.weight"), 0.0);
    assert!(gradient("conv1.weight") > 0.0);
}

#[test]
fn gates_of_a_store_that_was_cast_decide_too() {
    let mut list = options(&[(3, 6), (4, 8)]);
    list.push(DfqOption::Skip);
    let config = DfqConfig { options: list, ..config(&[]) };
    for kind in [Kind::Double, Kind::BFloat16] {
        let mut net = gated(&Architecture::cifar_resnet(8, 3).unwrap(), config.clone());
        match kind {
            Kind::Double => net.store.double(),
            _ => net.store.bfloat16(),
        }
        let logits = net.network.forward(&waves(&[4, 3, 8, 8]).to_kind(kind), true);
        let pass = net.gates.finish().unwrap();
        assert_eq!((logits.kind(), pass.histogram[0].iter().sum::<u64>()), (kind, 4));
        (logits.square().sum(kind) + pass.cost).backward();
        let gradient = net.store.variables()["gates.projection.weight"].grad();
        assert!(gradient.kind() == kind && gradient.abs().max().double_value(&[]) > 0.0, "{kind:?}");
    }
}

#[test]
fn random_draws_keep_their_shares() {
    let net = gated(&small(), config(&[(3, 6), (4, 8)]));
    net.gates.draw_at_random(vec![vec![0.25, 0.75], vec![1.0, 0.0]], 3).unwrap();
    let mut counts = [[0_u64; 2]; 2];
    for _ in 0..20 {
        let _ = net.network.forward(&waves(&[64, 1, 8, 8]), true);
        for (sums, row) in counts.iter_mut().zip(net.gates.finish().unwrap().histogram) {
            sums.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
    }
    // 1280 draws with probability 0.25: four standard deviations are 62.
    assert!(counts[0][0].abs_diff(320) < 62 && counts[1] == [1280, 0], "{counts:?}");
    assert!(net.gates.draw_at_random(vec![vec![1.0, 0.0]], 0).is_err());
    assert!(net.gates.draw_at_random(vec![vec![0.5, 0.4], vec![1.0, 0.0]], 0).is_err());
    assert!(net.gates.draw_at_random(vec![vec![1.0], vec![1.0, 0.0]], 0).is_err());
}

/// A loss of one value, whatever the network says.
struct Constant<'a>(&'a dyn Network, f64);

impl Objective<Tensor> for Constant<'_> {
    fn loss(&mut self, batch: &Tensor, _: &Progress) -> core_tensor::Result<Loss> {
        let total = self.0.forward(batch, true).sum(Kind::Float) * 0.0 + self.1;
        Ok(Loss::single("constant", total))
    }
}

#[test]
fn a_limited_cost_term_keeps_to_its_share_and_a_loss_that_is_nan_passes() {
    let net = gated(&small(), DfqConfig { beta: 100.0, limit: Some(0.1), ..config(&[(3, 6), (4, 8)]) });
    let total = |value: f64| {
        let mut inner = Constant(net.network.as_ref(), value);
        let mut objective = WithGateCost::<Tensor>::new(&mut inner, &net.gates);
        let loss = objective.loss(&waves(&[4, 1, 8, 8]), &Progress::default()).unwrap();
        loss.total.double_value(&[])
    };
    // Either option costs less than the target of 3 %: a cost is wished for, as far as the limit goes.
    assert!((total(1.0) - 0.9).abs() < 1e-6, "{}", total(1.0));
    assert!(total(f64::NAN).is_nan());
}

#[test]
fn targets_that_would_never_come_are_refused() {
    let net = gated(&small(), config(&[(3, 6), (4, 8)]));
    // The published rule ends three stages.
    let plateau = || PlateauIndicator::new(PlateauConfig::default()).unwrap();
    let targets = [1.8, 2.0, 2.2, 2.4, 2.6].map(|percent| CpTarget::new(percent).unwrap());
    let refused = FollowTarget::staged(&net.gates, targets.to_vec(), plateau());
    assert!(matches!(refused, Err(Error::Config { name: "turning_points", .. })));
    assert_eq!(net.gates.config().target, CpTarget::default());
    assert!(FollowTarget::staged(&net.gates, targets[1..].to_vec(), plateau()).is_ok());
}

#[test]
fn controllers_push_towards_the_target() {
    let mut memory = 0.0;
    let sign = CostController::Sign { band: 0.5 };
    let reach = (1.5, 4.5);
    assert_eq!([2.9, 3.0, 3.4, 3.5].map(|cp| sign.weight(&mut memory, cp, 3.0, reach)), [-1.0, 0.0, 0.0, 1.0]);
    let relax = CostController::Relax { rho: 0.5 };
    assert_eq!([2.4, 2.9, 3.1, 3.5].map(|cp| relax.weight(&mut memory, cp, 3.0, reach)), [-1.0, -0.1, 0.1, 1.0]);
    assert_eq!(memory, 0.0);
    let adaptive = CostController::Adaptive { rate: 1.0, gain: 2.0, limit: 3.0 };
    // d = 1/3: λ = 1/3, weight 2/3 + 1/3; then λ = 2/3, weight 4/3; in the end the limit.
    assert!((adaptive.weight(&mut memory, 4.0, 3.0, reach) - 1.0).abs() < 1e-12);
    assert!((adaptive.weight(&mut memory, 4.0, 3.0, reach) - 4.0 / 3.0).abs() < 1e-12);
    for _ in 0..20 {
        adaptive.weight(&mut memory, 4.0, 3.0, reach);
    }
    assert_eq!(adaptive.weight(&mut memory, 4.0, 3.0, reach), 3.0);
    // At the cheapest option, below which a target lies, the multiplier stands still, and above the dearest, too.
    for (cp, target) in [(1.5, 1.0), (4.5, 6.0)] {
        let mut memory = 0.7;
        for _ in 0..100 {
            assert_eq!(adaptive.weight(&mut memory, cp, target, reach), 0.7);
        }
        assert!(adaptive.weight(&mut memory, 3.0, target, reach) * (3.0 - target) > 0.0, "still pushed towards it");
    }
}

#[test]
fn targets_of_stages_that_no_mix_of_options_reaches_are_warned_of() {
    let net = gated(&small(), DfqConfig::default());
    assert!(FollowTarget::constant(&net.gates).warnings().is_empty());
    // The published stages: the cheapest option costs 1.7578 %.
    let targets = [1.5, 2.0, 2.5, 3.0].map(|percent| CpTarget::new(percent).unwrap());
    let plateau = PlateauIndicator::new(PlateauConfig::default()).unwrap();
    let follow = FollowTarget::staged(&net.gates, targets.to_vec(), plateau).unwrap();
    let said: Vec<String> = follow.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(said, ["a cost of 1.5 % cannot be reached: the options cost between 1.7578 % and 4.6875 %"]);
}

#[test]
fn the_cost_is_that_of_the_weights_bits_that_ran() {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::gated(QuantConfig::default(), config(&[(3, 6)]), store.root() / "gates").unwrap();
    let network = small().build(&store.root(), &factory).unwrap();
    let (handle, gates) = (factory.handle(), factory.gates().unwrap());
    let cp = || {
        let _ = network.forward(&waves(&[2, 1, 8, 8]), true);
        gates.finish().unwrap()
    };
    // (b·3 + b·6 + 3·6) of 3·1024.
    for (weight, sum) in [(None, 54.0), (Some(8), 90.0), (Some(2), 36.0)] {
        if let Some(weight) = weight {
            // As a schedule for the whole network would; the gates keep activations and gradients.
            handle.set_precision(crate::fractrain::Precision::new(weight, 12).unwrap());
        }
        let pass = cp();
        assert!((pass.cp - 100.0 * sum / 3072.0).abs() < 1e-9, "{weight:?}: {}", pass.cp);
        // Two blocks of unlike size.
        assert!((pass.cost.double_value(&[]) - 2.0 * sum / 1024.0).abs() < 1e-6);
    }
    let [warning] = &FollowTarget::constant(&gates).warnings()[..] else { panic!("3 % is beyond the one option") };
    assert!(warning.to_string().contains("1.1719 % and 1.1719 %"), "{warning}");
}
