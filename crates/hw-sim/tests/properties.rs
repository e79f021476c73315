//! What every accelerator must satisfy, on random layers.

use core_tensor::workload::{Layer, Operator, Pass, Workload};
use hw_sim::bitfusion::{BitFusion, FusionLayer};
use hw_sim::comparison::{Sweep, compare};
use hw_sim::engine::Engine;
use hw_sim::networks::{builtin, with_bits, with_densities};
use hw_sim::task::{OperandKind, Task};
use hw_sim::{Accelerator, LayerCost, NetworkCost, explain};
use proptest::prelude::*;

fn presets() -> Vec<Accelerator> {
    let mut all: Vec<_> = Accelerator::presets().map(|name| Accelerator::preset(name).unwrap()).collect();
    for accelerator in &mut all {
        if let Engine::LoopNest(engine) = &mut accelerator.engine {
            engine.candidates = 200;
        }
    }
    all
}

prop_compose! {
    fn network()(c in 1_u64..70, k in 1_u64..70, kernel in 1_u64..4, stride in 1_u64..3, size in 4_u64..20, batch in 1_u64..3) -> Workload {
        let conv = Operator::conv2d(c, k, kernel, stride, kernel / 2, [size; 2]);
        let layers = vec![Layer::new("conv", conv), Layer::new("fc", Operator::linear(c * 8, k))];
        let mut net = with_bits(Workload::new("random", layers), [8, 8, 8]);
        net.batch = batch;
        net
    }
}

fn close(a: f64, b: f64) -> bool {
    // Sums of the same terms in another order.
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

fn dram_bandwidth(accelerator: &Accelerator) -> Option<u64> {
    accelerator.memory[0].bandwidth_bits
}

fn cost(accelerator: &Accelerator, net: &Workload) -> NetworkCost {
    accelerator.cost(net).unwrap()
}

/// Bits of an operand that DRAM gives or takes beyond what its distinct words need once; negative is impossible. SmartDeal keeps
/// fewer bits than there are weights: that is its point.
fn beyond_compulsory(accelerator: &Accelerator, layer: &LayerCost, task: &Task) -> [i128; 3] {
    let compressed = matches!(accelerator.engine, Engine::SmartDeal(_)) && task.pass != Pass::WeightGradient;
    OperandKind::ALL.map(|operand| {
        let here = layer.traffic.iter().filter(|traffic| traffic.level == 0 && traffic.operand == operand);
        let (moved, bits): (u64, u8) = match operand {
            OperandKind::Input => (here.map(|traffic| traffic.read_bits).sum(), task.input.bits),
            OperandKind::Weight if compressed => return 0,
            OperandKind::Weight => (here.map(|traffic| traffic.read_bits).sum(), task.weight.bits),
            OperandKind::Output => (here.map(|traffic| traffic.write_bits).sum(), task.output_bits),
        };
        i128::from(moved) - i128::from(task.shape.words[operand as usize]) * i128::from(bits)
    })
}

/// What a layer of dense operands can reach. Bit-serial lanes skip the zeros of a word, SCNN those of padding: its products are
/// of the pixels that it holds.
fn most_utilisation(accelerator: &Accelerator, task: &Task) -> f64 {
    let shape = &task.shape;
    match accelerator.engine {
        Engine::BitPragmatic(_) => f64::INFINITY,
        Engine::Scnn(_) => {
            let pixels: u64 = shape.input.iter().product();
            let products = shape.groups * shape.n * shape.c * pixels * shape.k * shape.r * shape.s;
            (shape.macs() as f64 / products as f64).max(1.0)
        }
        _ => 1.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn energy_adds_up_over_components_and_layers(net in network()) {
        for accelerator in presets() {
            let found = cost(&accelerator, &net);
            let components: f64 = found.components().iter().map(|part| part.energy_pj).sum();
            prop_assert!(close(components, found.energy_pj()), "{}", accelerator.name);
            let layers: f64 = found.layers.iter().map(|layer| layer.energy_pj()).sum();
            prop_assert!(close(layers, found.energy_pj()));
            prop_assert_eq!(found.macs(), net.macs().unwrap());
        }
    }

    #[test]
    fn no_cost_is_below_the_roofline_or_the_compulsory_traffic(net in network()) {
        let tasks = Task::of_workload(&net, &Pass::TRAINING).unwrap();
        for accelerator in presets() {
            let found = accelerator.cost_tasks(&net.name, &tasks).unwrap();
            for (layer, task) in found.layers.iter().zip(&tasks) {
                let most = most_utilisation(&accelerator, task);
                prop_assert!(layer.utilisation <= most + 1e-12, "{}: {} > {most}", accelerator.name, layer.utilisation);
                if let Some(bandwidth) = dram_bandwidth(&accelerator) {
                    let floor = layer.level_bits(0) / bandwidth;
                    prop_assert!(layer.cycles() >= floor, "{}: {} < {floor}", accelerator.name, layer.cycles());
                }
                let beyond = beyond_compulsory(&accelerator, layer, task);
                prop_assert!(beyond.iter().all(|&bits| bits >= 0), "{} {:?}: {beyond:?}", accelerator.name, task.pass);
                prop_assert_eq!(layer.macs, net.layers.iter().find(|known| known.name == task.name).unwrap().op.macs().unwrap() * net.batch);
            }
        }
    }

    #[test]
    fn more_buffer_or_bandwidth_never_costs_more(net in network(), grow in 2_u64..9, bandwidth in 1_u64..300) {
        for mut accelerator in presets() {
            // BitFusion's reuse rule and a search for cycles may trade energy; their cycles are tested where they live.
            if matches!(accelerator.engine, Engine::BitComposable(_) | Engine::LoopNest(_)) {
                continue;
            }
            accelerator.memory[0].bandwidth_bits = Some(bandwidth);
            let before = cost(&accelerator, &net);
            let mut roomy = accelerator.clone();
            for level in &mut roomy.memory[1..] {
                level.capacity_bytes = level.capacity_bytes.map(|bytes| bytes * grow);
            }
            let mut fast = accelerator.clone();
            fast.memory[0].bandwidth_bits = Some(bandwidth + grow);
            for better in [cost(&roomy, &net), cost(&fast, &net)] {
                prop_assert!(better.cycles() <= before.cycles(), "{}", accelerator.name);
                prop_assert!(better.energy_pj() <= before.energy_pj() * (1.0 + 1e-12), "{}", accelerator.name);
            }
        }
    }

    #[test]
    fn small_buffers_refetch_but_never_below_what_large_ones_do(net in network(), shrink in 1_u64..2000) {
        for mut accelerator in presets().into_iter().filter(|it| !matches!(it.engine, Engine::BitComposable(_) | Engine::LoopNest(_))) {
            let large = cost(&accelerator, &net);
            for level in &mut accelerator.memory[1..] {
                level.capacity_bytes = level.capacity_bytes.map(|bytes| (bytes / shrink).max(1));
            }
            prop_assert!(cost(&accelerator, &net).level_bits(0) >= large.level_bits(0));
        }
    }

    #[test]
    fn fewer_non_zeros_or_bits_never_cost_more(net in network(), dense in 0.0_f64..1.0, share in 0.0_f64..1.0) {
        for accelerator in presets() {
            let at = |density: f64| cost(&accelerator, &with_densities(net.clone(), [density, density]));
            let (more, less) = (at(dense), at(dense * share));
            // Waiting for the slowest of several filters is worst at intermediate densities; energy and traffic are not.
            prop_assert!(less.energy_pj() <= more.energy_pj() * (1.0 + 1e-9), "{}", accelerator.name);
            prop_assert!(less.level_bits(0) <= more.level_bits(0));
            let full = at(1.0);
            prop_assert!(more.cycles() <= full.cycles(), "{}", accelerator.name);
        }
        for name in ["stripes-like", "bit-pragmatic-like", "smartdeal"] {
            let accelerator = Accelerator::preset(name).unwrap();
            let (wide, narrow) = (cost(&accelerator, &net), cost(&accelerator, &with_bits(net.clone(), [4, 4, 4])));
            prop_assert!(narrow.cycles() <= wide.cycles() && narrow.energy_pj() <= wide.energy_pj(), "{name}");
        }
    }

    #[test]
    fn energy_is_linear_in_the_unit_energies(net in network(), factor in 0.1_f64..10.0) {
        for mut accelerator in presets() {
            if matches!(accelerator.engine, Engine::LoopNest(_) | Engine::BitComposable(_)) {
                continue; // a search may break ties between energies differently
            }
            let before = cost(&accelerator, &net);
            for level in &mut accelerator.memory {
                level.read_pj *= factor;
                level.write_pj *= factor;
            }
            let after = cost(&accelerator, &net);
            let memory = |found: &NetworkCost| found.layers.iter().map(|layer| layer.memory_pj()).sum::<f64>();
            prop_assert!(close(memory(&after), factor * memory(&before)));
            prop_assert_eq!(after.cycles(), before.cycles());
        }
    }

    #[test]
    fn energy_is_linear_in_every_unit_cost(net in network(), factor in 0.1_f64..10.0) {
        for accelerator in presets() {
            if matches!(accelerator.engine, Engine::LoopNest(_) | Engine::BitComposable(_)) {
                continue; // a search may break ties between energies differently
            }
            let before = cost(&accelerator, &net).energy_pj();
            let at = |path: &[String], times: f64| {
                let mut table = toml::Table::try_from(&accelerator).unwrap();
                scale(&mut table, path, times);
                cost(&table.try_into::<Accelerator>().unwrap(), &net).energy_pj()
            };
            let units = units(&toml::Table::try_from(&accelerator).unwrap());
            // Two a memory level, MACs, static.
            prop_assert!(units.len() >= 2 * accelerator.memory.len() + 2, "{units:?}");
            for unit in units {
                let (none, more) = (at(&unit, 0.0), at(&unit, factor));
                prop_assert!(close(more - none, factor * (before - none)), "{} {:?}", accelerator.name, unit);
            }
        }
    }

    #[test]
    fn no_bytes_in_an_accelerator_file_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), at in 0_usize..3000, which in 0_usize..11) {
        let name = Accelerator::presets().nth(which).unwrap();
        let mut text = Accelerator::preset_text(name).unwrap().as_bytes().to_vec();
        let at = at.min(text.len());
        text.splice(at..(at + 4).min(text.len()), bytes.iter().copied());
        let net = builtin("mlp").unwrap();
        for text in [text, bytes] {
            if let Ok(accelerator) = Accelerator::from_toml("x.toml", &String::from_utf8_lossy(&text))
                && !matches!(accelerator.engine, Engine::LoopNest(_) | Engine::BitComposable(_))
            {
                let _ = accelerator.cost(&net);
            }
        }
    }
}

/// Paths of the unit energies of an accelerator: keys that speak of pJ. The energies of a MAC are one unit.
fn units(table: &toml::Table) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (key, value) in table {
        let nested = match value {
            toml::Value::Table(inner) => units(inner),
            toml::Value::Array(_) if key == "mac_energy" => vec![Vec::new()],
            toml::Value::Array(all) => all
                .iter()
                .enumerate()
                .filter_map(|(index, one)| Some((index, one.as_table()?)))
                .flat_map(|(index, one)| {
                    units(one).into_iter().map(move |path| [vec![index.to_string()], path].concat())
                })
                .collect(),
            toml::Value::Float(_) if key.split('_').any(|word| word == "pj") => vec![Vec::new()],
            _ => Vec::new(),
        };
        found.extend(nested.into_iter().map(|path| [vec![key.clone()], path].concat()));
    }
    found
}

fn scale(table: &mut toml::Table, path: &[String], times: f64) {
    match (&mut table[&path[0]], &path[1..]) {
        (toml::Value::Float(unit), _) => *unit *= times,
        (toml::Value::Table(inner), rest) => scale(inner, rest, times),
        (toml::Value::Array(all), []) => {
            all.iter_mut().for_each(|one| scale(one.as_table_mut().unwrap(), &["pj".to_owned()], times));
        }
        (toml::Value::Array(all), rest) => {
            scale(all[rest[0].parse::<usize>().unwrap()].as_table_mut().unwrap(), &rest[1..], times);
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn every_cost_survives_a_round_trip_through_json() {
    fn round<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(it: &T) {
        let json = serde_json::to_string(it).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), it, "{json}");
    }
    let net = with_bits(builtin("mlp").unwrap(), [8; 3]);
    let machines = presets();
    for accelerator in &machines {
        let found = cost(accelerator, &net);
        round(&found);
        found.components().iter().for_each(round);
        let sweep = Sweep { buffer_scales: vec![1.0, 2.0], densities: vec![[0.5, 1.0]], ..Sweep::default() };
        round(&sweep.run(accelerator, &net).unwrap());
    }
    round(&compare(&machines, &[net], 0).unwrap());
    let layer = FusionLayer {
        kernel: [3; 2],
        output: [8; 2],
        stride: 1,
        in_channels: 64,
        out_channels: 64,
        batch: 1,
        input_bits: 4,
        weight_bits: 4,
        im2col: false,
    };
    round(&BitFusion::default().search("c", &layer).unwrap());
}

/// 64 → 64 channels, 8 × 16 pixels: sizes that divide every array of the comparison.
fn even() -> Workload {
    let op = Operator::conv2d(64, 64, 3, 1, 1, [8, 16]);
    with_bits(Workload::new("even", vec![Layer::new("conv", op)]), [8, 8, 8])
}

fn compute(accelerator: &Accelerator, net: &Workload) -> u64 {
    cost(accelerator, net).layers[0].compute_cycles
}

#[test]
fn at_density_one_and_eight_bits_every_rival_is_the_dense_machine() {
    // 1024 8-bit multipliers: 64·64·9·128 / 1024 = 4608 cycles.
    let preset = |name: &str| Accelerator::preset(name).unwrap();
    assert_eq!(compute(&preset("diannao-like"), &even()), 4608);
    assert_eq!(compute(&preset("cambricon-x-like"), &even()), 4608);
    assert_eq!(compute(&preset("stripes-like"), &even()), 4608);
    let mut pragmatic = preset("bit-pragmatic-like");
    let Engine::BitPragmatic(engine) = &mut pragmatic.engine else { panic!("{:?}", pragmatic.engine) };
    engine.essential_bits = 1.0;
    assert_eq!(compute(&pragmatic, &even()), 4608);
    let mut smartdeal = preset("smartdeal");
    let Engine::SmartDeal(engine) = &mut smartdeal.engine else { panic!("{:?}", smartdeal.engine) };
    engine.digits = hw_sim::engine::Digits::Plain;
    assert_eq!(compute(&smartdeal, &even()), 4608);
    // SCNN: an element's tile of 1 × 2 pixels fills half of its 4 activations.
    assert_eq!(compute(&preset("scnn-like"), &even()), 2 * 4608);
    // Energy of a sparse machine at density 1 is that of the dense one, in all its memories too.
    let (dense, sparse) = (cost(&preset("diannao-like"), &even()), cost(&preset("cambricon-x-like"), &even()));
    assert_eq!((dense.energy_pj(), dense.level_bits(0)), (sparse.energy_pj(), sparse.level_bits(0)));
}

#[test]
fn scnn_holds_and_multiplies_all_of_its_input() {
    let scnn = Accelerator::preset("scnn-like").unwrap();
    let Engine::Scnn(engine) = &scnn.engine else { panic!("{:?}", scnn.engine) };
    // 64 channels to 64, all dense, 8 bits; stored dense, that being smaller than run lengths.
    let conv = |kernel, stride, padding, input| {
        let op = Operator::conv2d(64, 64, kernel, stride, padding, input);
        with_bits(Workload::new("conv", vec![Layer::new("conv", op)]), [8; 3])
    };
    // Kernel, stride, padding, input; then by hand: pixels held, taps that outputs take, and cycles: 64 maps × 8 groups of 8 filters ×
    // fours of a tile's pixels × fours of a group's weights.
    for (kernel, stride, padding, input, pixels, taken, cycles) in [
        // As many outputs as `even`, of four times the pixels: tiles of 2 × 4, all 1024 multipliers busy.
        (3, 2, 1, [16, 32], 512, 9 * 128, 64 * 8 * 2 * 18),
        // Nothing is left out.
        (3, 1, 1, [16, 32], 512, 9 * 512, 64 * 8 * 2 * 18),
        // Between windows of one pixel that stand four apart, and after the last of them.
        (1, 4, 0, [16, 32], 512, 4 * 8, 64 * 8 * 2 * 2),
        // Of one output, at any stride: each of 49 pixels meets each of 49 weights.
        (7, 1, 0, [7, 7], 49, 49, 64 * 8 * 98),
        (7, 7, 0, [7, 7], 49, 49, 64 * 8 * 98),
        // Padding is not held. Windows reach into it: 144 taps, of which the chip makes those within the map.
        (3, 2, 1, [7, 7], 49, 9 * 16, 64 * 8 * 18),
    ] {
        let net = conv(kernel, stride, padding, input);
        assert_eq!(net.macs().unwrap(), 64 * 64 * taken, "{net:?}");
        let found = &cost(&scnn, &net).layers[0];
        let products = (64 * 64 * pixels * kernel * kernel) as f64;
        let expected = products * scnn.mac_pj(8, 8) + (64 * 64 * taken) as f64 * engine.accumulator_pj;
        assert!((found.mac_pj / expected - 1.0).abs() < 1e-12, "{net:?}: {} pJ, expected {expected}", found.mac_pj);
        let input = found.traffic.iter().find(|it| it.level == 0 && it.operand == OperandKind::Input).unwrap();
        assert_eq!((found.compute_cycles, input.read_bits), (cycles, 8 * 64 * pixels), "{net:?}");
    }
}

#[test]
fn scnn_does_not_work_on_padding_which_counts_among_the_macs() {
    let scnn = Accelerator::preset("scnn-like").unwrap();
    // 17² outputs of 16² pixels, which fill tiles of 2 × 2: 64 maps × 8 groups × 1 × 8, all 1024 multipliers busy.
    let op = Operator::conv2d(64, 64, 2, 1, 1, [16, 16]);
    let net = with_bits(Workload::new("conv", vec![Layer::new("conv", op)]), [8; 3]);
    let found = &cost(&scnn, &net).layers[0];
    assert_eq!((found.macs, found.compute_cycles), (64 * 64 * 4 * 289, 4096));
    let working = found.utilisation * found.cycles() as f64 / 4096.0;
    assert!((working - 289.0 / 256.0).abs() < 1e-12, "{working}");
    let task = &Task::of_workload(&net, &[Pass::Forward]).unwrap()[0];
    assert!((most_utilisation(&scnn, task) - 289.0 / 256.0).abs() < 1e-12);
}

#[test]
fn the_gradient_of_a_strided_convolution_is_read_and_written_whole() {
    // 16 → 32 channels, 3 × 3, stride 2, 32 × 32: the pass reads 16²·32 gradients and writes 32²·16.
    let mut net =
        with_bits(Workload::new("strided", vec![Layer::new("c", Operator::conv2d(16, 32, 3, 2, 1, [32; 2]))]), [8; 3]);
    net.batch = 2;
    let tasks = Task::of_workload(&net, &[Pass::InputGradient]).unwrap();
    assert_eq!(tasks[0].shape.words, [2 * 256 * 32, 16 * 32 * 9, 2 * 1024 * 16]);
    for accelerator in presets() {
        let found = accelerator.cost_tasks("strided", &tasks).unwrap();
        let beyond = beyond_compulsory(&accelerator, &found.layers[0], &tasks[0]);
        assert!(beyond.iter().all(|&bits| bits >= 0), "{}: {beyond:?}", accelerator.name);
        assert_eq!(found.macs(), 2 * 256 * 9 * 16 * 32);
    }
}

#[test]
fn bit_serial_cycles_follow_the_published_products() {
    let mut stripes = Accelerator::preset("stripes-like").unwrap();
    let at = |accelerator: &Accelerator, bits| compute(accelerator, &with_bits(even(), bits));
    assert_eq!([8, 4, 2].map(|bits| at(&stripes, [8, bits, 8])), [4608, 2304, 1152]);
    let Engine::BitSerial(engine) = &mut stripes.engine else { panic!("{:?}", stripes.engine) };
    engine.serial = hw_sim::engine::SerialOperands::Both;
    assert_eq!(at(&stripes, [8, 8, 8]) / at(&stripes, [4, 2, 8]), 8);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let accelerator = Accelerator::preset("eyeriss-mapped").unwrap();
    let net = with_bits(builtin("resnet20-cifar").unwrap(), [8, 8, 8]);
    let mut net = net;
    net.layers.truncate(5);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cost(&accelerator, &net))
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn presets_survive_a_round_trip_through_toml() {
    for accelerator in Accelerator::presets().map(|name| Accelerator::preset(name).unwrap()) {
        let text = toml::to_string(&accelerator).unwrap();
        assert_eq!(Accelerator::from_toml("round.toml", &text).unwrap(), accelerator);
    }
}

#[test]
fn impossible_accelerators_are_refused_by_field_or_line() {
    let refuse = |from: &str, to: &str, needle: &str| {
        let text = Accelerator::preset_text("diannao-like").unwrap().replace(from, to);
        let message = Accelerator::from_toml("a.toml", &text).unwrap_err().to_string();
        assert!(message.contains(needle), "{message}");
    };
    refuse("filters = 64", "filters = 0", "filters is 0");
    refuse("filters = 64", "filters = -4", "a.toml:");
    refuse("clock_mhz = 1000.0", "clock_mhz = 0.0", "clock_mhz is 0, expected 1e-6 to 1e9");
    // Finite, but no sum of them is.
    refuse("clock_mhz = 1000.0", "clock_mhz = 1e-320", "expected 1e-6 to 1e9");
    refuse("clock_mhz = 1000.0", "clock_mhz = 1000.0\nstatic_pj_per_cycle = 1e300", "static_pj_per_cycle");
    refuse("read_pj = 2.45", "read_pj = 1e300", "expected 0 to 1e12 pJ");
    refuse("read_pj = 2.45", "read_pj = nan", "memory `activations` read_pj is NaN");
    refuse("pj = 0.143", "pj = 1e300", "expected bits 1 to 32, 0 to 1e12 pJ");
    refuse("pj = 0.143", "pj = -0.143", "mac_energy");
    refuse("read_pj = 2.45", "", "a.toml:");
    refuse("bandwidth_bits = 512", "capacity_bytes = 8192", "memory `dram` capacity_bytes is 8192, expected none");
    refuse("capacity_bytes = 524288", "capacity_bytes = 0", "capacity_bytes");
    refuse("name = \"activations\"", "name = \"activations", "a.toml:");
    refuse("kind = \"diannao\"", "kind = \"abacus\"", "abacus");
    refuse("filters = 64", "filters = 64\nrows = 3", "rows");
}

#[test]
fn impossible_tasks_are_refused_by_name_and_field() {
    let good = Task::new(&even().layers[0], 1, Pass::Forward).unwrap();
    let refuse = |change: fn(&mut Task), needle: &str| {
        let mut task = good.clone();
        change(&mut task);
        for accelerator in presets() {
            let cost = accelerator.cost_tasks("one", std::slice::from_ref(&task)).map(drop);
            for found in [cost, explain(&accelerator, &task).map(drop)] {
                let message = found.unwrap_err().to_string();
                assert!(message.contains("layer `conv`") && message.contains(needle), "{message}");
            }
        }
    };
    refuse(|task| task.input.bits = 0, "input bits is 0");
    refuse(|task| task.weight.bits = 33, "weight bits is 33");
    refuse(|task| task.output_bits = 0, "output bits is 0");
    refuse(|task| task.input.density = f64::NAN, "input density is NaN");
    refuse(|task| task.weight.density = -0.5, "weight density is -0.5");
    refuse(|task| task.shape.groups = 0, "groups is 0");
    refuse(|task| task.shape.s = 0, "s is 0");
    refuse(|task| task.shape.stride[1] = 0, "horizontal stride is 0");
    refuse(|task| task.shape.words[1] = 0, "weight words is 0");
    refuse(|task| task.shape.words[2] = u64::MAX, "its output words do not fit");
    refuse(|task| task.shape.n = u64::MAX, "its MACs do not fit");
}

#[test]
fn impossible_layers_are_refused_by_name() {
    let accelerator = Accelerator::preset("diannao-like").unwrap();
    let refuse = |change: fn(&mut Workload), needle: &str| {
        let mut net = even();
        change(&mut net);
        let message = accelerator.cost(&net).unwrap_err().to_string();
        assert!(message.contains("conv") && message.contains(needle), "{message}");
    };
    refuse(|net| net.layers[0].weight.bits = 0, "bits");
    refuse(|net| net.layers[0].activation.bits = 33, "bits");
    refuse(|net| net.layers[0].weight.density = 1.5, "density");
    refuse(|net| net.layers[0].op = Operator::conv2d(4, 4, 9, 1, 0, [8, 8]), "kernel");
    refuse(|net| net.layers[0].op = Operator::conv2d(0, 4, 3, 1, 0, [8, 8]), "in_channels");
    refuse(|net| net.layers[0].op = Operator::linear(1 << 40, 1 << 40), "64 bits");
    let narrow = Accelerator::preset("bitfusion-like").unwrap();
    let error = narrow.cost(&with_bits(even(), [16, 16, 16])).unwrap_err().to_string();
    assert!(error.contains("16") && error.contains("max_bits"), "{error}");
}
