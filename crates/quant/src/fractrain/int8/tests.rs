use super::*;
use crate::fractrain::{Precision, QuantConfig, QuantFactory};
use core_tensor::checkpoint::Tolerance;

fn waves(shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.713).sin() + 0.2).view(shape)
}

struct Net {
    store: VarStore,
    network: Box<dyn Network>,
    handle: QuantHandle,
}

fn trained(precision: Precision) -> Net {
    let config = QuantConfig { activation_grid: GridKind::IntegerZeroPoint, ..QuantConfig::default() };
    trained_as(config, precision)
}

fn trained_as(config: QuantConfig, precision: Precision) -> Net {
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(config, precision).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    Net { network, handle: factory.handle(), store }
}

fn architecture() -> Architecture {
    Architecture::cifar_resnet(8, 5).unwrap()
}

#[test]
fn integers_give_what_fake_quantisation_gives_through_a_file() {
    for (bits, weight_grid) in [(4, GridKind::MinMax), (8, GridKind::MinMax), (4, GridKind::Symmetric)] {
        let config = QuantConfig { weight_grid, activation_grid: GridKind::IntegerZeroPoint, ..QuantConfig::default() };
        // A sum in another order may move a value that lies half-way to the next level. In most networks none does, or
        // one of little weight; in one of forty with 4 bits it grows on its way through eight layers. So five are asked.
        let (mut agree, mut off): (Vec<f64>, Vec<f64>) = (0..5).map(|_| exported(&config, bits)).unzip();
        agree.sort_by(f64::total_cmp);
        off.sort_by(f64::total_cmp);
        assert!(agree[2] >= 0.93, "{bits} bits: {agree:?}");
        assert!(off[2] < 0.05, "{bits} bits: {off:?}");
    }
}

/// How many images a network and its export put into the same class, and how far their logits are apart, as a share of
/// their spread.
fn exported(config: &QuantConfig, bits: u32) -> (f64, f64) {
    let net = trained_as(config.clone(), Precision::new(bits, 8).unwrap());
    let images = waves(&[16, 3, 12, 12]);
    for _ in 0..3 {
        let _ = tch::no_grad(|| net.network.forward(&images, true));
    }
    let model = export_int8(&net.store, &net.handle).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("net.safetensors");
    model.write(&file).unwrap();
    let read = Int8Model::read(&file).unwrap();
    assert_eq!(read.bytes(), model.bytes());
    // Convolutions of 8 bits against 32, norms and classifier in full precision.
    let dense: i64 = net.store.variables().values().map(|variable| 4 * variable.numel() as i64).sum();
    assert!(2 * model.bytes() < dense as u64, "{} of {dense}", model.bytes());
    let store = VarStore::new(Device::Cpu);
    let integers = read.build(&architecture(), &store).unwrap();
    let (ours, theirs) = tch::no_grad(|| (integers.forward(&images, false), net.network.forward(&images, false)));
    let agree = ours.argmax(1, false).eq_tensor(&theirs.argmax(1, false)).to_kind(Kind::Float).mean(Kind::Float);
    let off = (&ours - &theirs).abs().mean(Kind::Float) / theirs.std(true);
    (agree.double_value(&[]), off.double_value(&[]))
}

#[test]
fn one_layer_is_exact_but_for_the_order_of_its_sum() {
    let images = waves(&[4, 3, 12, 12]);
    let stem = |network: &dyn Network| {
        let mut found = None;
        let mut tap = |name: &str, map: &Tensor| {
            if name == "conv1" {
                found = Some(map.copy());
            }
        };
        let _ = tch::no_grad(|| network.forward_tapped(&images, false, &mut tap));
        found.unwrap()
    };
    // Every grid whose zero is a level, for weights and inputs, and the reference's uncorrected average of ranges.
    let grids = [GridKind::MinMax, GridKind::IntegerZeroPoint, GridKind::Symmetric];
    let inputs =
        [(GridKind::IntegerZeroPoint, false), (GridKind::IntegerZeroPoint, true), (GridKind::Symmetric, false)];
    for (bits, weight_grid, (activation_grid, reference_compat)) in [4, 8]
        .into_iter()
        .flat_map(|bits| grids.into_iter().flat_map(move |grid| inputs.map(|input| (bits, grid, input))))
    {
        let config = QuantConfig { weight_grid, activation_grid, reference_compat, ..QuantConfig::default() };
        let net = trained_as(config.clone(), Precision::new(bits, 8).unwrap());
        let _ = tch::no_grad(|| net.network.forward(&images, true));
        let model = export_int8(&net.store, &net.handle).unwrap();
        let integers = model.build(&architecture(), &VarStore::new(Device::Cpu)).unwrap();
        let (ours, theirs) = (stem(integers.as_ref()), stem(net.network.as_ref()));
        // 27 products of order one in single precision.
        let off = (ours - theirs).abs().max().double_value(&[]);
        assert!(off < 1e-4, "{bits} bits, {config:?}: {off}");
    }
}

#[test]
fn what_has_no_integer_form_is_refused_by_name() {
    let fresh = trained(Precision::new(8, 8).unwrap());
    assert!(matches!(export_int8(&fresh.store, &fresh.handle), Err(Error::Uncalibrated { layer }) if layer == "conv1"));
    for precision in [Precision::FULL, Precision::new(9, 8).unwrap()] {
        let wide = trained(precision);
        assert!(export_int8(&wide.store, &wide.handle).unwrap_err().to_string().contains("8 bits"));
    }
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::gated(QuantConfig::default(), Default::default(), store.root() / "gates").unwrap();
    architecture().build(&store.root(), &factory).unwrap();
    let error = export_int8(&store, &factory.handle()).unwrap_err().to_string();
    assert!(error.contains("layer1.0.conv1") && error.contains("`QuantFactory::new`"), "{error}");
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::new(8, 8).unwrap()).unwrap();
    let grouped = Conv2dConfig { groups: 2, ..Conv2dConfig::new(2, 2, 3, 1) };
    let _layer = factory.conv2d(&(store.root() / "conv"), grouped);
    let error = export_int8(&store, &factory.handle()).unwrap_err().to_string();
    assert!(error.contains("`conv`") && error.contains("groups"), "{error}");
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::new(8, 8).unwrap()).unwrap();
    let _site = factory.site(&(store.root() / "own"), 2);
    let error = export_int8(&store, &factory.handle()).unwrap_err().to_string();
    assert!(error.contains("`own`"), "{error}");
}

#[test]
fn a_network_with_gates_is_exported_by_way_of_one_option() {
    let gated = VarStore::new(Device::Cpu);
    let factory = QuantFactory::gated(QuantConfig::default(), Default::default(), gated.root() / "gates").unwrap();
    let network = architecture().build(&gated.root(), &factory).unwrap();
    let _ = tch::no_grad(|| network.forward(&waves(&[2, 3, 12, 12]), true));
    let store = VarStore::new(Device::Cpu);
    let config = QuantConfig { full_precision_stem: true, ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision::new(6, 8).unwrap()).unwrap();
    architecture().build(&store.root(), &factory).unwrap();
    let gates = Tolerance::Under(vec!["gates.".into()]);
    load_state(&store, &state_of(&gated), &LoadPolicy { unexpected: gates, ..LoadPolicy::strict() }).unwrap();
    let exported = export_int8(&store, &factory.handle()).unwrap();
    exported.build(&architecture(), &VarStore::new(Device::Cpu)).unwrap();
}

#[test]
fn images_that_take_turns_come_out_bit_for_bit_as_together() {
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::new(8, 8).unwrap()).unwrap();
    let config = Conv2dConfig { bias: true, ..Conv2dConfig::new(3, 5, 3, 2) };
    let layer = factory.conv2d(&(store.root() / "conv"), config);
    let images = waves(&[7, 3, 9, 10]);
    let _ = layer.forward_t(&images, true);
    let model = export_int8(&store, &factory.handle()).unwrap();
    let integers = Int8Factory::new(&model).convolution("conv", &(VarStore::new(Device::Cpu).root() / "conv"), config);
    let integers = integers.unwrap();
    let together = integers.in_turns(&images, 7);
    assert!(together.equal(&nn::Module::forward(&integers, &images)) && together.size() == [7, 5, 5, 5]);
    for images_at_once in [1, 2, 3, 100] {
        let found = integers.in_turns(&images, images_at_once);
        assert!(found.equal(&together) && found.stride() == together.stride(), "{images_at_once} at once");
    }
}

#[test]
fn a_network_that_is_not_the_models_is_refused_by_name() {
    let net = trained(Precision::new(8, 8).unwrap());
    let _ = tch::no_grad(|| net.network.forward(&waves(&[2, 3, 12, 12]), true));
    let model = export_int8(&net.store, &net.handle).unwrap();
    let refused = |make: &dyn Fn(&Path, &Int8Factory)| {
        let (store, factory) = (VarStore::new(Device::Cpu), Int8Factory::new(&model));
        make(&store.root(), &factory);
        factory.finish(&store).unwrap_err().to_string()
    };
    let error = refused(&|path, factory| drop(factory.conv2d(&(path / "conv1"), Conv2dConfig::new(3, 16, 5, 1))));
    assert!(error.contains("`conv1`") && error.contains("[16, 3, 5, 5]"), "{error}");
    let error = refused(&|path, factory| drop(factory.conv2d(&(path / "conv1"), Conv2dConfig::new(3, 16, 3, 1))));
    assert!(error.contains("layer1.0.conv1") && error.contains("no convolution"), "{error}");
}

#[test]
fn tensors_that_no_convolution_reads_are_refused_by_name() {
    let net = trained(Precision::new(8, 8).unwrap());
    let _ = tch::no_grad(|| net.network.forward(&waves(&[2, 3, 12, 12]), true));
    let cpu = |kind| (kind, Device::Cpu);
    for (part, wrong) in [
        ("weight", Tensor::zeros([16, 27], cpu(Kind::Int8))),
        ("weight_min", Tensor::zeros([1], cpu(Kind::Float))),
        ("input", Tensor::zeros([3], cpu(Kind::Float))),
    ] {
        let mut model = export_int8(&net.store, &net.handle).unwrap();
        model.tensors.insert(format!("conv1.{part}"), wrong);
        let error = model.build(&architecture(), &VarStore::new(Device::Cpu)).unwrap_err().to_string();
        assert!(error.contains(&format!("`conv1.{part}`")), "{error}");
    }
}
