use super::*;
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, GateConfig, LinearConfig, Module};
use tch::nn::Path;

#[test]
fn the_gradient_of_a_coefficient_is_a_central_difference() {
    let groups = bert_groups(&small(), "bert.");
    let (mut store, model) = built(&Slimming(Standard), &small());
    store.double();
    let targets = Tensor::from_slice(&[1_i64, 0]);
    let loss = || model.loss(&model.forward(&input(), true).unwrap(), &targets).unwrap();
    loss().backward();
    let live = coefficients(&store, &groups).unwrap();
    let step = 1e-5;
    let mut checked = 0;
    for (_, tensor) in &live {
        let gradient = tensor.grad().reshape([-1]);
        let flat = tensor.detach().view([-1]);
        for unit in (0..tensor.numel() as i64).step_by(2) {
            let at = |shift: f64| {
                no_grad(|| {
                    let _ = flat.get(unit).g_add_scalar_(shift);
                    let value = loss().double_value(&[]);
                    let _ = flat.get(unit).g_sub_scalar_(shift);
                    value
                })
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            // f64; the error of a central difference is of order step².
            assert!((slope - gradient.double_value(&[unit])).abs() < 1e-7, "{slope}");
            checked += 1;
        }
    }
    assert!(checked >= 16);
}

/// A loss of nothing, so that the penalty alone acts.
struct Nothing;

impl Objective<()> for Nothing {
    fn loss(&mut self, (): &(), _: &Progress) -> core_tensor::Result<Loss> {
        Ok(Loss::single("nothing", Tensor::zeros([], (Kind::Double, Device::Cpu))))
    }
}

/// Ten batches of nothing an epoch.
struct Ten;

impl BatchSource for Ten {
    type Batch = ();

    fn batches_per_epoch(&self) -> u64 {
        10
    }

    fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<()>> + '_>> {
        Ok(Box::new((0..10).map(|_| Ok(()))))
    }
}

#[test]
fn a_dead_structure_sinks_by_the_closed_form() {
    // Only the penalty acts: AdamW moves c by lr·λ/(λ + ε) a step, SGD by lr·λ.
    let after = |adam: bool| {
        let groups = bert_groups(&small(), "bert.");
        let (mut store, _model) = built(&Slimming(Standard), &small());
        store.double();
        let live = coefficients(&store, &groups).unwrap();
        let mut task = Nothing;
        let mut objective = SlimmedObjective::new(&mut task, &live, SlimConfig::default()).unwrap();
        let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 1e-3 } };
        let parameters = slim_parameters(&store, 0.0);
        if adam {
            let mut optimizer = Adam::new(parameters, AdamConfig::decoupled()).unwrap();
            Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&Ten).unwrap();
        } else {
            let plain = SgdConfig { momentum: 0.0, ..SgdConfig::default() };
            let mut optimizer = Sgd::new(parameters, plain).unwrap();
            Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&Ten).unwrap();
        }
        let values: Vec<f64> = live.iter().map(|(_, tensor)| tensor.mean(Kind::Double).double_value(&[])).collect();
        assert!(values.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-12));
        values[0]
    };
    assert!((after(true) - 0.990_000_999_900).abs() < 1e-10);
    assert!((after(false) - (1.0 - 1e-3 * 10.0 * 1e-4)).abs() < 1e-12);
}

#[test]
fn the_penalty_is_a_sum_with_a_weight_a_kind() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Slimming(Standard), &small());
    set(&store, &groups, |_, unit| if unit == 0 { -2.0 } else { 1.0 });
    let live = coefficients(&store, &groups).unwrap();
    let config = SlimConfig { lambda_heads: 0.5, lambda_neurons: 0.25 };
    let penalty = slim_penalty(&live, config).unwrap();
    // Heads: 2 layers of 2 + 1 + 1 + 1; neurons: 2 layers of 2 + 11.
    assert!((penalty.double_value(&[]) - (0.5 * 10.0 + 0.25 * 26.0)).abs() < 1e-6);
    assert!(matches!(slim_penalty(&[], config), Err(Error::NothingToPrune { .. })));
    let refuse =
        |lambda_heads: f64| SlimConfig { lambda_heads, ..SlimConfig::default() }.validate().unwrap_err().to_string();
    assert!(refuse(-1.0).contains("lambda_heads") && refuse(f64::INFINITY).contains("lambda_heads"));
}

/// Standard layers, and gates that halve.
struct Halving;

impl LayerFactory for Halving {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        Standard.conv2d(path, config)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }

    fn gate(&self, _: &Path, _: GateConfig) -> Option<Module> {
        Some(Box::new(tch::nn::func(|input| input * 0.5)))
    }
}

#[test]
fn a_gate_of_the_inner_factory_stays() {
    let store = VarStore::new(Device::Cpu);
    let config = GateConfig { gated: Gated::Neurons, units: 3 };
    let gate = Slimming(Halving).gate(&store.root(), config).unwrap();
    let mut coefficient = store.variables()["slimming_coef"].shallow_clone();
    no_grad(|| coefficient.copy_(&Tensor::from_slice(&[1_f32, 0.0, -3.0]).view([1, 3])));
    let output = gate.forward_t(&Tensor::from_slice(&[2_f32, 4.0, 6.0]).view([1, 3]), true);
    assert_eq!(Vec::<f32>::try_from(output.detach().view(-1)).unwrap(), [1.0, 0.0, -9.0]);
}
