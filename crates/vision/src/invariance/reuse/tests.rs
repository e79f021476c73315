use super::*;
use crate::invariance::{Background, NetworkProbe, Picture, Placer, Similarity};
use core_tensor::checkpoint::state_of;
use core_tensor::networks::{Architecture, ConvNetConfig, ResNetConfig, Stem};
use core_tensor::nn::Standard;
use proptest::prelude::*;
use tch::{Device, Kind, nn};

fn object(channels: usize, size: [usize; 2]) -> Sprite {
    let count = channels * size[0] * size[1];
    let values = (0..count).map(|value| (value * 7919 % 101) as f32 / 50.0 - 1.0).collect();
    let alpha = (0..size[0] * size[1]).map(|place| if place % 5 == 3 { 0.0 } else { 1.0 }).collect();
    Sprite::new(Picture::new(channels, size, values).unwrap(), alpha).unwrap()
}

fn gap(a: &ShiftMaps, b: &ShiftMaps, layer: &str) -> f64 {
    (a.features(layer).unwrap() - b.features(layer).unwrap()).abs().max().double_value(&[])
}

/// A trained network's batch norms are no identities: give them something to do.
fn roughen(store: &nn::VarStore) {
    tch::no_grad(|| {
        for (name, tensor) in store.variables() {
            let noise = Tensor::rand(tensor.size(), (Kind::Float, Device::Cpu));
            let value = match name.rsplit('.').next() {
                Some("running_var") => noise + 0.5,
                Some("running_mean") => noise - 0.5,
                Some("bias") => noise - 0.5,
                Some("weight") if tensor.dim() == 1 => noise + 0.5,
                _ => continue,
            };
            tensor.shallow_clone().copy_(&value);
        }
    });
}

fn compare(architecture: &Architecture, study: &ShiftStudy, object: &Sprite, layers: &[&str]) -> f64 {
    tch::manual_seed(5);
    let store = nn::VarStore::new(Device::Cpu);
    let network = architecture.build(&store.root(), &Standard).unwrap();
    roughen(&store);
    let program = ConvProgram::from_state(architecture, &state_of(&store)).unwrap();
    let [height, width] = study.placer.output_size(&study.grid);
    let sample = [object.picture().channels() as i64, height as i64, width as i64];
    let probe = NetworkProbe::new(network.as_ref(), layers, sample).unwrap();
    let (naive, reused) = (study.run(&probe, object).unwrap(), program.run(study, object, layers).unwrap());
    layers.iter().map(|layer| gap(&naive, &reused, layer)).fold(0.0, f64::max)
}

#[test]
fn networks_of_the_house_give_what_they_give_naively() {
    let conv_net = Architecture::ConvNet(ConvNetConfig { in_channels: 3, widths: vec![4, 6, 8], classes: 5 });
    let grid = ShiftGrid::new([21, 18], [6, 5], 1).unwrap();
    let study = ShiftStudy::new(grid, Placer::on_colour(vec![0.3, 0.6, 0.1]));
    let layers = ["conv1", "conv3", "avgpool", "logits"];
    // Sums of at most 9 · 64 products of order 1 in another order, batch norms folded in 64 bits.
    assert!(compare(&conv_net, &study, &object(3, [6, 5]), &layers) < 1e-4);

    let small = |stem: ResNetConfig| {
        Architecture::ResNet(ResNetConfig { widths: vec![4, 6, 8], blocks: vec![1, 2, 1], classes: 3, ..stem })
    };
    let grid = ShiftGrid::new([32, 32], [8, 8], 3).unwrap();
    let study = ShiftStudy { batch: 17, ..ShiftStudy::new(grid, Placer::white_imagenet()) };
    for stem in [
        ResNetConfig::cifar(20, 3).unwrap(),
        ResNetConfig { stem: Stem::Strided, ..ResNetConfig::cifar(20, 3).unwrap() },
        ResNetConfig::imagenet(18, 3).unwrap(),
        ResNetConfig::imagenet(50, 3).unwrap(),
    ] {
        let layers = ["conv1", "layer1", "layer2", "layer3", "logits"];
        assert!(compare(&small(stem), &study, &object(3, [8, 8]), &layers) < 1e-3);
    }
}

#[test]
fn wide_networks_give_what_they_give_naively() {
    // Where channels are many, the convolutions after the shared ones are Winograd's: some positions of the published size.
    let whole = ShiftGrid::new([96, 96], [32, 32], 1).unwrap();
    let study = ShiftStudy::new(whole.window([30, 63], [2, 2]).unwrap(), Placer::white_imagenet());
    let architecture =
        Architecture::ResNet(ResNetConfig { widths: vec![16, 32, 48, 64], ..ResNetConfig::imagenet(18, 3).unwrap() });
    let layers = ["layer2", "layer3", "layer4", "logits"];
    assert!(compare(&architecture, &study, &object(3, [32, 32]), &layers) < 1e-4);
}

#[test]
fn tables_convolved_by_tiles_are_those_convolved_by_windows() {
    let steps = vec![conv(8, 48, 1, 3, 1, 1), Step::Relu, conv(9, 40, 48, 3, 1, 1), Step::Tap("map".into())];
    let program = ConvProgram::new(steps, None).unwrap();
    let study = ShiftStudy::new(ShiftGrid::new([26, 19], [6, 5], 1).unwrap(), Placer::on_colour(vec![0.3]));
    let object = object(1, [6, 5]);
    // The second convolution has so many channels that tiles take fewer multiplications than windows, and all steps are shared.
    let from = axis::pixels(&Motion::Paste, true, &study.grid).map(|axis| axis.windows(3, 1, 1).unwrap().0);
    let to = from.each_ref().map(|axis| axis.windows(3, 1, 1).unwrap().0);
    let windows = (axis::cell_count(&to[0], &to[1]) * 9 * 48 * 40) as f64;
    let axes = winograd::Axes { from: from.each_ref(), to: to.each_ref() };
    assert!(axes.macs([40, 48]) < windows, "{}, {windows}", axes.macs([40, 48]));
    assert_eq!(program.savings(&study, &object).unwrap().shared_steps, 4);
    let naive = study.run(&|images: &Tensor| program.forward(images), &object).unwrap();
    let reused = program.run(&study, &object, &["map", "avgpool"]).unwrap();
    // Means of sums of 432 products of order 1.
    assert!(gap(&naive, &reused, "map") < 1e-5 && gap(&naive, &reused, "avgpool") < 1e-5);
}

#[test]
fn backgrounds_crops_and_rolls_are_exact_too() {
    let net = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![3, 4], classes: 2 });
    let layers = ["conv1", "conv2", "logits"];
    let texture = object(1, [14, 13]).picture().clone();
    let placer = Placer { background: Background::Picture(texture.clone()), ..Placer::on_colour(vec![0.0]) };
    let study = ShiftStudy::new(ShiftGrid::new([14, 13], [5, 4], 2).unwrap(), placer.clone());
    assert!(compare(&net, &study, &object(1, [5, 4]), &layers) < 1e-5);
    // An object that covers its canvas leaves no bare background.
    let study = ShiftStudy::new(ShiftGrid::new([14, 13], [14, 12], 1).unwrap(), placer.clone());
    assert!(compare(&net, &study, &object(1, [14, 12]), &layers) < 1e-5);
    let photograph = Sprite::opaque(texture);
    let crops = Placer { motion: Motion::Crop, ..placer.clone() };
    let study = ShiftStudy::new(ShiftGrid::crops([14, 13], [8, 9], 1).unwrap(), crops);
    assert!(compare(&net, &study, &photograph, &layers) < 1e-5);
    let rolls = Placer { motion: Motion::Roll, ..placer };
    let study = ShiftStudy::new(ShiftGrid::rolls([14, 13], 1).unwrap(), rolls);
    assert!(compare(&net, &study, &photograph, &layers) < 1e-5);
}

#[test]
fn a_cell_is_counted_once_by_hand() {
    // One conv 3 × 3, stride 1, padding 1, on 12 × 12 with an object of 4 × 4 in one colour: along an axis a cell sees the object
    // at 6 offsets, without a border; next to a border (first or last cell) at 2: object in the window's first pixels. Cells 0
    // and 11 see rows 0, 1 and 10, 11: 1 or 2 of the object's rows, so 2 more names each.
    let weight = Tensor::ones([2, 1, 3, 3], (Kind::Float, Device::Cpu));
    let program = ConvProgram::new(vec![Step::Conv { weight, bias: None, stride: 1, padding: 1 }], None).unwrap();
    let study = ShiftStudy::new(ShiftGrid::new([12, 12], [4, 4], 1).unwrap(), Placer::on_colour(vec![0.0]));
    let savings = program.savings(&study, &object(1, [4, 4])).unwrap();
    // 81 positions of 144 cells; (6 + 4)² cells with the object and (interior, first, last)² without.
    assert_eq!(savings.naive, 81.0 * 144.0 * 18.0);
    assert_eq!(savings.reused, f64::from(10 * 10 + 3 * 3) * 18.0);
    assert_eq!(savings.shared_steps, 1);
}

#[test]
fn what_cannot_be_taken_apart_is_refused() {
    let state = IndexMap::new();
    let error = ConvProgram::from_state(&Architecture::LeNet5 { classes: 10 }, &state).unwrap_err();
    assert!(matches!(error, Error::NotConvolutional { .. }), "{error}");
    let net = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![3], classes: 2 });
    assert!(ConvProgram::from_state(&net, &state).unwrap_err().to_string().contains("conv1.weight"));
    let store = nn::VarStore::new(Device::Cpu);
    let _network = net.build(&store.root(), &Standard).unwrap();
    let other = Architecture::ConvNet(ConvNetConfig { in_channels: 3, widths: vec![3], classes: 2 });
    let error = ConvProgram::from_state(&other, &state_of(&store)).unwrap_err().to_string();
    assert!(error.contains("[3, 3, 3, 3]") && error.contains("[3, 1, 3, 3]"), "{error}");

    let program = ConvProgram::from_state(&net, &state_of(&store)).unwrap();
    let grid = ShiftGrid::new([9, 9], [3, 3], 1).unwrap();
    let study = ShiftStudy::new(grid, Placer::on_colour(vec![0.0]));
    let error = program.run(&study, &object(1, [3, 3]), &["layer1"]).unwrap_err();
    assert!(matches!(error, Error::UnknownLayer { ref known, .. } if known.len() == 3), "{error}");
    assert!(program.run(&study, &object(1, [4, 3]), &["conv1"]).is_err());
    let fractions = ShiftGrid::subpixel([9, 9], [3, 3], 1, 2).unwrap();
    let fractions =
        ShiftStudy::new(fractions, Placer { blend: crate::invariance::Blend::Alpha, ..study.placer.clone() });
    assert!(matches!(program.run(&fractions, &object(1, [3, 3]), &["conv1"]), Err(Error::NotConvolutional { .. })));
    assert!(ConvProgram::new(vec![Step::MaxPool { kernel: 2, stride: 0, padding: 0 }], None).is_err());
    let padded = ConvProgram::new(vec![Step::MaxPool { kernel: 3, stride: 1, padding: 2 }], None).unwrap_err();
    assert!(matches!(padded, Error::Setting { setting: "padding of max pooling", .. }), "{padded}");
    for (weight, bias) in [([2, 5], 2), ([2, 4], 3)] {
        let [weight, bias] = [weight.as_slice(), &[bias]].map(|size| Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        let head = Head { weight, bias: Some(bias) };
        assert!(matches!(ConvProgram::new(vec![conv(0, 4, 2, 1, 1, 0)], Some(head)), Err(Error::Shape { .. })));
    }
    let flat =
        Step::Conv { weight: Tensor::zeros([3, 3], (Kind::Float, Device::Cpu)), bias: None, stride: 1, padding: 0 };
    assert!(ConvProgram::new(vec![flat], None).is_err());
    let tapped = Step::Sum { branch: vec![Step::Tap("inside".into())], shortcut: vec![] };
    assert!(ConvProgram::new(vec![tapped], None).unwrap_err().to_string().contains("inside"));
    for (first, second) in [("map", "map"), ("map", "avgpool")] {
        let taps = [first, second].map(|name| Step::Tap(name.into()));
        let error = ConvProgram::new(taps.into(), None).unwrap_err().to_string();
        assert_eq!(error, format!("tap is `{second}`, expected a name that no other layer has"));
    }
}

#[test]
fn weights_of_half_precision_are_computed_with_in_single() {
    let net = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![3], classes: 2 });
    let store = nn::VarStore::new(Device::Cpu);
    let network = net.build(&store.root(), &Standard).unwrap();
    // What half precision makes of the weights, in single.
    tch::no_grad(|| {
        for mut tensor in store.variables().into_values() {
            let rounded = tensor.to_kind(Kind::Half).to_kind(Kind::Float);
            tensor.copy_(&rounded);
        }
    });
    let half = state_of(&store).into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half))).collect();
    let program = ConvProgram::from_state(&net, &half).unwrap();
    let study = ShiftStudy::new(ShiftGrid::new([9, 9], [3, 3], 1).unwrap(), Placer::on_colour(vec![0.3]));
    let probe = NetworkProbe::new(network.as_ref(), &["logits"], [1, 9, 9]).unwrap();
    let naive = study.run(&probe, &object(1, [3, 3])).unwrap();
    // Sums of 9 products of order 1, batch norms folded in 64 bits.
    assert!(gap(&naive, &program.run(&study, &object(1, [3, 3]), &["logits"]).unwrap(), "logits") < 1e-5);
}

#[test]
fn images_keep_their_values_even_where_nothing_but_a_tap_precedes_a_rectifier() {
    let program = ConvProgram::new(vec![Step::Tap("images".into()), Step::Relu], None).unwrap();
    let images = Tensor::from_slice(&[-1.0_f32, 2.0, -3.0, 4.0]).view([1, 1, 2, 2]);
    let found = program.forward(&images).unwrap();
    // Means of (−1, 2, −3, 4) and of (0, 2, 0, 4).
    assert_eq!(found[0].1.double_value(&[0, 0]), 0.5);
    assert_eq!(found[1].1.double_value(&[0, 0]), 1.5);
    assert_eq!(images.double_value(&[0, 0, 0, 0]), -1.0);
}

fn conv(seed: i64, outputs: i64, inputs: i64, kernel: i64, stride: usize, padding: usize) -> Step {
    tch::manual_seed(seed);
    let weight =
        Tensor::randn([outputs, inputs, kernel, kernel], (Kind::Float, Device::Cpu)) / (kernel * kernel) as f64;
    let bias = Tensor::randn([outputs], (Kind::Float, Device::Cpu));
    Step::Conv { weight, bias: Some(bias), stride, padding }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_stack_of_windows_gives_what_it_gives_on_whole_images(
        canvas in [16_usize..24, 16_usize..24], object_size in [1_usize..9, 1_usize..9], step in 1_usize..4,
        kernels in [1_i64..6, 1_i64..4, 1_i64..4], strides in [1_usize..3, 1_usize..3, 1_usize..3], pad in 0_usize..2,
        pool in 1_usize..4, hidden in any::<bool>(), seed in 0_i64..100,
    ) {
        let padding = |kernel: i64| pad * (kernel as usize / 2);
        let (k1, k2, k3) = (kernels[0], kernels[1], kernels[2]);
        // The branch keeps its size: odd kernel, "same" padding, stride 1.
        let odd = k2 | 1;
        let steps = vec![
            conv(seed, 3, 2, k1, strides[0], padding(k1)),
            Step::Relu,
            Step::Tap("first".into()),
            Step::MaxPool { kernel: pool, stride: strides[1], padding: pool / 2 },
            Step::Sum { branch: vec![Step::Relu, conv(seed + 1, 3, 3, odd, 1, odd as usize / 2)], shortcut: vec![] },
            Step::Relu,
            Step::Tap("second".into()),
            conv(seed + 2, 4, 3, k3, strides[2], padding(k3)),
        ];
        let program = ConvProgram::new(steps, None).unwrap();
        let grid = ShiftGrid::new(canvas, object_size, step).unwrap();
        let background = if hidden {
            Background::Colour(vec![0.4, -0.2])
        } else {
            Background::Picture(object(2, canvas).picture().clone())
        };
        let placer = Placer { background, ..Placer::on_colour(vec![]) };
        let study = ShiftStudy { batch: 7, similarity: Similarity::Cosine, ..ShiftStudy::new(grid, placer) };
        let sprite = object(2, object_size);
        let naive = study.run(&|images: &Tensor| program.forward(images), &sprite).unwrap();
        let layers = ["first", "second", "avgpool"];
        let reused = program.run(&study, &sprite, &layers).unwrap();
        for layer in layers {
            // Sums of at most 75 products of order 1.
            prop_assert!(gap(&naive, &reused, layer) < 1e-4, "{}: {}", layer, gap(&naive, &reused, layer));
        }
        let savings = program.savings(&study, &sprite).unwrap();
        prop_assert!(savings.reused <= savings.naive);
    }
}
