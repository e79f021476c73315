use super::*;
use crate::fractrain::{Bits, DfqConfig, QuantConfig, QuantFactory};
use core_tensor::networks::{Architecture, ConvNetConfig, LanguageModel, LanguageModelConfig};
use core_tensor::nn::{Network, trace_workload};
use core_tensor::workload::Workload;
use tch::{Device, nn};

fn architecture() -> Architecture {
    Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![2, 3], classes: 2 })
}

fn images(batch: i64) -> Tensor {
    (Tensor::arange(batch * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().view([batch, 1, 8, 8])
}

/// The network with the store that keeps its weights.
fn quantised(precision: Precision) -> (nn::VarStore, Box<dyn Network>, Workload, QuantHandle) {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), precision).unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    (store, net, workload, factory.handle())
}

#[test]
fn a_step_of_two_layers_costs_what_a_hand_count_says() {
    let precision = Precision::new(4, 8).unwrap();
    let (_store, net, workload, handle) = quantised(precision);
    let mut ledger = CostLedger::new(&workload, &handle, None).unwrap();
    assert_eq!(ledger.cp(), 0.0);
    let _ = net.forward(&images(5), true);
    ledger.step().unwrap();
    // conv1: 2·1·9·64 = 1152 MACs, conv2: 3·2·9·16 = 864, fc: 6. Passes cost 16, 32 and 32 of 1024; conv1 has no input
    // gradient; fc is in full precision.
    let expected = 1152.0 * 48.0 / 1024.0 + 864.0 * 80.0 / 1024.0 + 18.0;
    assert!((ledger.effective_macs() - 5.0 * expected).abs() < 1e-9);
    assert!((ledger.reference_macs() - 5.0 * 2016.0 * 80.0 / 1024.0).abs() < 1e-9);
    assert!((ledger.cp() - precision.cost_percent()).abs() < 1e-12);
    // The same by way of the workload, with the input gradient of conv1 that it cannot know to leave out.
    let priced = step_cost(&at_precision(&workload, &handle.layers(), precision)).unwrap();
    assert!((5.0 * (priced - 1152.0 * 32.0 / 1024.0) - ledger.effective_macs()).abs() < 1e-9);
}

#[test]
fn a_step_counts_all_its_passes_and_none_before_it() {
    let precision = Precision::new(4, 8).unwrap();
    let (_store, net, workload, handle) = quantised(precision);
    let _ = net.forward(&images(3), true);
    let mut ledger = CostLedger::new(&workload, &handle, None).unwrap();
    let mut another = CostLedger::new(&workload, &handle, None).unwrap();
    // Gradients of two batches are added up; an evaluation costs no training.
    for _ in 0..2 {
        let _ = net.forward(&images(5), true);
        let _ = net.forward(&images(7), false);
    }
    ledger.step().unwrap();
    another.step().unwrap();
    let samples = |ledger: &CostLedger| ledger.phases().collect::<Vec<_>>();
    assert_eq!(samples(&ledger), [(precision, 10.0)]);
    assert_eq!(samples(&another), samples(&ledger));
    // One batch after each of two steps, at two precisions.
    let _ = net.forward(&images(2), true);
    ledger.step().unwrap();
    handle.set_precision(Precision::FULL);
    let _ = net.forward(&images(4), true);
    ledger.step().unwrap();
    ledger.step().unwrap();
    assert_eq!(samples(&ledger), [(precision, 12.0), (Precision::FULL, 4.0)]);
}

#[test]
fn a_bifurcated_step_is_two_passes_of_one_workload_and_the_third_of_another() {
    let store = nn::VarStore::new(Device::Cpu);
    let precision = Precision { weight_gradient: Some(Bits::new(16).unwrap()), ..Precision::new(4, 8).unwrap() };
    let factory = QuantFactory::new(QuantConfig::default(), precision).unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let handle = factory.handle();
    let mut ledger = CostLedger::new(&workload, &handle, None).unwrap().behind_embedding();
    ledger.add(1.0, precision).unwrap();
    let priced = |precision, passes: &[Pass]| {
        let workload = at_precision(&workload, &handle.layers(), precision);
        passes.iter().map(|pass| workload.effective_macs(*pass).unwrap()).sum::<f64>()
    };
    let wide = Precision { gradient: precision.weight_gradient, ..precision };
    let expected = priced(precision, &Pass::TRAINING[..2]) + priced(wide, &[Pass::WeightGradient]);
    assert!((ledger.effective_macs() - expected).abs() < 1e-9);
}

#[test]
fn behind_an_embedding_the_first_layers_input_gradient_is_counted() {
    let store = nn::VarStore::new(Device::Cpu);
    let precision = Precision::new(4, 8).unwrap();
    let factory = QuantFactory::new(QuantConfig { linear: true, ..QuantConfig::default() }, precision).unwrap();
    let config = LanguageModelConfig { width: 8, heads: 2, neurons: 12, ..LanguageModelConfig::small(13) };
    let model = LanguageModel::new(&store.root(), &factory, config).unwrap();
    let (workload, handle) = (model.workload("sequence", 5).unwrap(), factory.handle());
    assert_eq!(workload.layers[0].name, handle.layers()[0]);
    let ledger = || CostLedger::new(&workload, &handle, None).unwrap();
    let (mut reads_data, mut embedded) = (ledger(), ledger().behind_embedding());
    for ledger in [&mut reads_data, &mut embedded] {
        ledger.add(3.0, precision).unwrap();
    }
    let whole = 3.0 * step_cost(&at_precision(&workload, &handle.layers(), precision)).unwrap();
    assert!((embedded.effective_macs() - whole).abs() < 1e-9);
    // The queries: 5 vectors through 8 × 8 weights of 4 bits, gradients of 8.
    assert!((whole - reads_data.effective_macs() - 3.0 * 320.0 * 32.0 / 1024.0).abs() < 1e-9);
    assert_eq!(embedded.reference_macs(), reads_data.reference_macs());
}

#[test]
fn phases_of_a_progressive_training_add_up_to_the_published_sum() {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::FULL).unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let mut ledger = CostLedger::new(&workload, &factory.handle(), None).unwrap();
    // 60, 40, 30, 30 epochs at 3/6, 4/6, 6/8, 8/8: 3.047689 % of full precision, worked by hand.
    for ((forward, gradient), epochs) in [((3, 6), 60.0), ((4, 6), 40.0), ((6, 8), 30.0), ((8, 8), 30.0)] {
        ledger.add(epochs, Precision::new(forward, gradient).unwrap()).unwrap();
    }
    assert!((ledger.cp() - 3.047_689).abs() < 5e-7, "{}", ledger.cp());
    let saved = ledger.state();
    let mut other = CostLedger::new(&workload, &factory.handle(), None).unwrap();
    other.load_state(&saved).unwrap();
    assert_eq!(other.effective_macs(), ledger.effective_macs());
    assert_eq!(other.phases().collect::<Vec<_>>(), ledger.phases().collect::<Vec<_>>());
    assert!(other.load_state(&NamedTensors::new()).is_err());
}

#[test]
fn gates_pay_for_themselves_and_for_what_they_choose() {
    let store = nn::VarStore::new(Device::Cpu);
    let dfq = DfqConfig {
        hidden: 4,
        embedding: 4,
        options: DfqConfig::default().options[..1].to_vec(),
        ..DfqConfig::default()
    };
    let factory = QuantFactory::gated(QuantConfig::default(), dfq, store.root() / "gates").unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let (handle, gates) = (factory.handle(), factory.gates().unwrap());
    let mut ledger = CostLedger::new(&workload, &handle, Some(&gates)).unwrap();
    gates.begin();
    let _ = net.forward(&images(5), true);
    gates.finish().unwrap();
    ledger.step().unwrap();
    // conv2 at W4, (3, 6): 12, 24 and 18 of 1024. conv1 and fc in full precision, conv1 without input gradient; the gate:
    // 2·4 + 4·4 + 8·16 + 4·1 = 156, three passes in full precision.
    let gated = 864.0 * 54.0 / 1024.0;
    let expected = gated + 1152.0 * 2.0 + 3.0 * 6.0 + 3.0 * 156.0;
    assert!((ledger.reference_macs() - 5.0 * gated).abs() < 1e-6);
    assert!((ledger.effective_macs() - 5.0 * expected).abs() < 1e-6, "{}", ledger.effective_macs());
    assert_eq!(ledger.option_shares(), [[1.0]]);
    // Without the gates it would price the layers as if their activations and gradients were never rounded.
    let refused = CostLedger::new(&workload, &handle, None).unwrap_err().to_string();
    assert_eq!(refused, "`gates`: expected the network's, which choose the bits of `conv2`, found none");
    let mut other = CostLedger::new(&workload, &handle, Some(&gates)).unwrap();
    other.load_state(&ledger.state()).unwrap();
    assert_eq!((other.option_shares(), other.effective_macs()), (ledger.option_shares(), ledger.effective_macs()));
}

#[test]
fn a_workload_of_another_network_is_refused() {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::FULL).unwrap();
    architecture().build(&store.root(), &factory).unwrap();
    let error = CostLedger::new(&Workload::new("other", Vec::new()), &factory.handle(), None).unwrap_err();
    assert!(error.to_string().contains("conv1"), "{error}");
}

#[test]
fn gates_whose_passes_nobody_finishes_are_an_error_and_not_a_static_training() {
    let store = nn::VarStore::new(Device::Cpu);
    let dfq = DfqConfig { hidden: 4, embedding: 4, ..DfqConfig::default() };
    let factory = QuantFactory::gated(QuantConfig::default(), dfq, store.root() / "gates").unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let mut ledger = CostLedger::new(&workload, &factory.handle(), factory.gates().as_ref()).unwrap();
    let _ = net.forward(&images(5), true);
    let error = ledger.add(5.0, Precision::FULL).unwrap_err();
    assert!(error.to_string().contains("WithGateCost"), "{error}");
    assert_eq!(ledger.phases().count(), 0);
}

#[test]
fn a_network_without_quantised_layers_is_refused_since_nothing_would_count_its_samples() {
    let store = nn::VarStore::new(Device::Cpu);
    let config =
        QuantConfig { full_precision: vec!["conv1".into(), "conv2".into(), "fc".into()], ..Default::default() };
    let factory = QuantFactory::new(config, Precision::new(4, 8).unwrap()).unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let _ = net.forward(&images(5), true);
    assert!(factory.handle().samples().is_empty());
    let error = CostLedger::new(&workload, &factory.handle(), None).unwrap_err();
    assert!(matches!(&error, Error::Shape { found, .. } if found == "none"), "{error}");
    assert!(error.to_string().starts_with("quantised layers of the network"), "{error}");
}

#[test]
fn a_layer_that_the_workload_lacks_is_left_out_of_its_precisions() {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::FULL).unwrap();
    let net = architecture().build(&store.root(), &factory).unwrap();
    let workload = trace_workload("net", net.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let precision = Precision::new(4, 8).unwrap();
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        at_precision(&workload, &names, precision)
    };
    assert_eq!(of(&["conv", "conv12"]), workload);
    assert_eq!(of(&["conv2", "conv12"]), of(&["conv2"]));
    assert_ne!(of(&["conv2"]), workload);
}
