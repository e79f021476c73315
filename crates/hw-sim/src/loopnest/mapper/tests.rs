use super::cost::{INPUT, OUTPUT, WEIGHT};
use super::mapping::{GROUPS, MAX_LEVELS, ORDERS};
use super::space::{Space, ways};
use super::*;
use crate::Accelerator;
use crate::engine::Engine;
use crate::loopnest::Dim;
use crate::loopnest::nest::{Access, LoopNest, Step};
use crate::task::OperandKind;
use core_tensor::workload::{Layer, Operator, Pass};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

fn accelerator() -> (Accelerator, LoopNestEngine) {
    let accelerator = Accelerator::preset("eyeriss-mapped").unwrap();
    match accelerator.engine {
        Engine::LoopNest(engine) => (accelerator.clone(), engine),
        ref other => panic!("the preset holds {other:?}"),
    }
}

fn conv(c: u64, k: u64, size: u64, kernel: u64, stride: u64) -> Task {
    let mut layer = Layer::new("c", Operator::conv2d(c, k, kernel, stride, 0, [size; 2]));
    (layer.weight.bits, layer.activation.bits) = (8, 8);
    Task::new(&layer, 1, Pass::Forward).unwrap()
}

/// The same nest, loop by loop.
fn written_out(problem: &Problem<'_>, factors: &Factors) -> LoopNest {
    let mut steps = Vec::new();
    for level in 0..problem.levels.len() {
        if level == problem.engine.first_private_level {
            steps.push(Step::Spatial(factors.rows.0, factors.rows.1));
            steps.push(Step::Spatial(factors.cols.0, factors.cols.1));
        }
        if level > 0 {
            steps.extend(OperandKind::ALL.map(|operand| Step::Keep(operand, level)));
        }
        for &group in &ORDERS[factors.order[level] as usize] {
            // Loops of one iteration are no loops.
            let loops = GROUPS[group].iter().map(|&dim| (dim, factors.temporal[level][dim as usize]));
            steps.extend(loops.filter(|&(_, bound)| bound > 1).map(|(dim, bound)| Step::Loop(dim, bound)));
        }
    }
    LoopNest { steps, stride: problem.shape.stride, dilation: problem.shape.dilation }
}

#[test]
fn a_register_file_is_accessed_four_times_a_mac() {
    let (accelerator, engine) = accelerator();
    let task = conv(16, 32, 14, 3, 1);
    let problem = Problem::new(&engine, &accelerator, &task).unwrap();
    let counts = problem.count(&problem.trivial()).unwrap();
    let registers = accelerator.memory.len() - 1;
    let macs = task.shape.macs();
    // One weight, one input, one partial sum read and one written, besides what moves in and out of it.
    let inner = |index: usize| counts.reads[registers][index];
    assert_eq!(inner(INPUT) + inner(WEIGHT), 2 * macs);
    assert!(inner(OUTPUT) >= macs && counts.writes[registers][OUTPUT] >= macs);
}

#[test]
fn enumeration_visits_every_arrangement_once() {
    assert_eq!((ways(0, 3), ways(2, 3), ways(5, 1)), (1, 6, 1));
    let (accelerator, engine) = accelerator();
    let task = conv(2, 3, 5, 1, 1);
    let problem = Problem::new(&engine, &accelerator, &task).unwrap();
    let space = Space::new(&problem, &problem.pairs());
    let mut seen: Vec<String> = (0..space.size as u64).map(|index| format!("{:?}", space.nth(index))).collect();
    seen.sort();
    let total = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), total);
}

#[test]
fn a_level_too_small_for_a_word_is_named() {
    let (mut accelerator, engine) = accelerator();
    accelerator.memory[2].capacity_bytes = Some(1);
    let error = engine.map(&accelerator, &conv(4, 4, 8, 3, 1)).unwrap_err();
    assert!(error.to_string().contains("rf"), "{error}");
}

#[test]
fn energy_has_what_macs_cost_and_what_time_costs() {
    let cycles = |objective, static_pj, mac_pj| {
        let (mut accelerator, mut engine) = accelerator();
        (engine.objective, engine.candidates, accelerator.static_pj_per_cycle) = (objective, 1000, static_pj);
        accelerator.mac_energy.iter_mut().for_each(|entry| entry.pj = mac_pj);
        let problem = Problem::new(&engine, &accelerator, &conv(16, 32, 14, 3, 1)).unwrap();
        problem.cycles_and_energy(&problem.count(&problem.search("c").unwrap()).unwrap()).0
    };
    let fewest = cycles(Objective::Cycles, 0.0, 0.0);
    assert!(cycles(Objective::Energy, 0.0, 1e9) > fewest && cycles(Objective::EnergyDelay, 0.0, 0.0) > fewest);
    // Where time or MACs cost all there is, the fastest mapping is the best.
    assert_eq!(cycles(Objective::Energy, 1e9, 0.0), fewest);
    assert_eq!(cycles(Objective::EnergyDelay, 0.0, 1e9), fewest);
}

#[test]
fn what_a_level_offers_is_less_than_what_it_is_said_to_need() {
    let (mut accelerator, engine) = accelerator();
    accelerator.memory[1].capacity_bytes = Some(16);
    // 6 × 6 elements, a pixel each: 36 inputs and a weight of 8 bits, 36 sums of 32 bits, in half of 16 bytes.
    let message = "layer `c`: the smallest tile of all operands needs 1448 bits, `glb` offers 64";
    assert_eq!(engine.map(&accelerator, &conv(4, 4, 8, 3, 1)).unwrap_err().to_string(), message);
}

#[test]
fn machines_and_tasks_that_make_no_sense_are_refused() {
    let (accelerator, engine) = accelerator();
    let refused = |engine: LoopNestEngine, accelerator: &Accelerator, task: &Task| {
        let both = [engine.map(accelerator, task).map(drop), engine.default_cycles(accelerator, task).map(drop)];
        both.map(|found| found.unwrap_err().to_string())
    };
    let mut task = conv(4, 4, 8, 3, 1);
    for error in refused(LoopNestEngine { rows: 0, ..engine }, &accelerator, &task) {
        assert!(error.contains("rows is 0"), "{error}");
    }
    task.shape.groups = 0;
    for error in refused(engine, &accelerator, &task) {
        assert!(error.contains("groups is 0"), "{error}");
    }
    let mut deep = accelerator;
    deep.memory = vec![deep.memory[0].clone(); 9];
    for error in refused(engine, &deep, &conv(4, 4, 8, 3, 1)) {
        assert!(error.contains("9 levels"), "{error}");
    }
}

/// Every layer of ResNet-20 at 8 bits, as inference.
fn resnet20() -> Vec<Task> {
    let net = crate::networks::with_bits(crate::networks::builtin("resnet20-cifar").unwrap(), [8; 3]);
    Task::of_workload(&net, &[Pass::Forward]).unwrap()
}

#[test]
fn a_mapping_that_was_found_costs_what_the_search_says_also_from_a_file() {
    let (mut accelerator, mut engine) = accelerator();
    engine.candidates = 300;
    accelerator.engine = Engine::LoopNest(engine);
    for task in resnet20() {
        let mapping = engine.map(&accelerator, &task).unwrap();
        let read = serde_json::from_str(&serde_json::to_string(&mapping).unwrap()).unwrap();
        assert_eq!(mapping, read);
        let found = engine.cost_of(&accelerator, &task, &read).unwrap();
        assert_eq!(found, crate::engine::price(&accelerator, &task).unwrap(), "{}", task.name);
    }
}

#[test]
fn no_search_is_worse_than_the_mapping_with_all_loops_at_dram() {
    let (accelerator, mut engine) = accelerator();
    (engine.objective, engine.candidates) = (Objective::EnergyDelay, 300);
    for task in resnet20() {
        let problem = Problem::new(&engine, &accelerator, &task).unwrap();
        let default = problem.describe(&problem.trivial());
        let cost = |mapping: &Mapping| engine.cost_of(&accelerator, &task, mapping).unwrap();
        let delay = |mapping: &Mapping| cost(mapping).energy_pj() * cost(mapping).cycles() as f64;
        // The search sums the same terms in another order.
        assert!(delay(&engine.map(&accelerator, &task).unwrap()) <= delay(&default) * (1.0 + 1e-9), "{}", task.name);
        assert_eq!(cost(&default).cycles(), engine.default_cycles(&accelerator, &task).unwrap());
    }
}

#[test]
fn a_mapping_that_is_none_of_the_task_or_the_machine_is_refused() {
    let (accelerator, engine) = accelerator();
    // 4 → 4 channels, 3 × 3, 6 × 6 outputs: rows take the channels, columns the output columns.
    let task = conv(4, 4, 8, 3, 1);
    let levels = vec![vec![(Dim::Y, 6), (Dim::C, 4)], vec![(Dim::R, 3)], vec![(Dim::S, 3)]];
    let good = Mapping { levels, rows: (Dim::K, 4), cols: (Dim::X, 6) };
    engine.cost_of(&accelerator, &task, &good).unwrap();
    let refused = |change: fn(&mut Mapping)| {
        let mut mapping = good.clone();
        change(&mut mapping);
        let error = engine.cost_of(&accelerator, &task, &mapping).unwrap_err().to_string();
        error.strip_prefix("mapping of layer `c`: ").unwrap().to_owned()
    };
    let halved = refused(|mapping| mapping.levels[0][0].1 = 3);
    assert_eq!(halved, "product of the bounds of Y is 3, expected 6 to 12");
    let again = refused(|mapping| mapping.levels[2].push((Dim::C, 4)));
    assert_eq!(again, "product of the bounds of C is 16, expected 4 to 8");
    let none = refused(|mapping| mapping.levels[1][0].1 = 0);
    assert_eq!(none, "product of the bounds of R is 0, expected 3 to 6");
    assert_eq!(refused(|mapping| mapping.levels.truncate(2)), "levels is 2, expected 3");
    assert_eq!(refused(|mapping| mapping.rows.1 = 13), "rows is 13, expected 1 to 12");
    let parted = refused(|mapping| {
        mapping.levels[0] = vec![(Dim::Y, 2), (Dim::C, 4), (Dim::Y, 3)];
    });
    let expected = "those over N, Y, X, and over C, R, S, side by side";
    assert_eq!(parted, format!("loops at `dram` is [(Y, 2), (C, 4), (Y, 3)], expected {expected}"));
    // An element with one filter and one column has 4·8·3 inputs and 4·9 weights of 8 bits, and 6 sums of 32.
    let mut small = accelerator.clone();
    small.memory[2].capacity_bytes = Some(128);
    let inside = Mapping { levels: vec![Vec::new(), Vec::new(), good.levels.concat()], ..good.clone() };
    engine.cost_of(&accelerator, &task, &inside).unwrap();
    let error = engine.cost_of(&small, &task, &inside).unwrap_err().to_string();
    assert_eq!(error, "mapping of layer `c`: tiles at `rf` is 1248 bits, expected at most 1024 bits");
}

#[test]
fn a_layer_whose_bits_over_all_groups_pass_64_bits_is_refused() {
    let (accelerator, engine) = accelerator();
    // 2^42 products of 32 × 16 × 32: small enough one by one.
    let heads = Operator::MatMul { m: 32, n: 32, k: 16, count: 1 << 42 };
    let task = Task::new(&Layer::new("heads", heads), 1, Pass::Forward).unwrap();
    let error = HwError::Overflow { layer: "heads".into(), quantity: "accesses" };
    assert_eq!(engine.map(&accelerator, &task), Err(error.clone()));
    assert_eq!(engine.default_cycles(&accelerator, &task), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_fast_count_equals_the_written_out_nest(c in 1_u64..20, k in 1_u64..20, size in 3_u64..20, kernel in 1_u64..4, stride in 1_u64..3, seed in any::<u64>()) {
        let (accelerator, engine) = accelerator();
        let task = conv(c, k, size, kernel, stride);
        let mut problem = Problem::new(&engine, &accelerator, &task).unwrap();
        problem.room = [u64::MAX; MAX_LEVELS];
        problem.holds = [[true; 3]; MAX_LEVELS];
        let pairs = problem.pairs();
        let space = Space::new(&problem, &pairs);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..20 {
            let factors = space.draw(&mut random);
            let counts = problem.count(&factors).unwrap();
            let accesses = written_out(&problem, &factors).accesses().unwrap();
            let get = |operand: OperandKind, level: usize| -> Access {
                *accesses.iter().find(|a| a.operand == operand && a.level == level).unwrap()
            };
            for operand in [OperandKind::Input, OperandKind::Weight] {
                prop_assert_eq!(counts.reads[0][operand as usize], get(operand, 1).outer_words().unwrap());
                prop_assert_eq!(counts.writes[1][operand as usize], get(operand, 1).inner_words().unwrap());
                prop_assert_eq!(counts.reads[1][operand as usize], get(operand, 2).outer_words().unwrap());
                prop_assert_eq!(counts.writes[2][operand as usize], get(operand, 2).inner_words().unwrap());
            }
            let output = get(OperandKind::Output, 1);
            prop_assert_eq!(counts.writes[0][OUTPUT] + counts.reads[0][OUTPUT], output.outer_words().unwrap());
            let inner = get(OperandKind::Output, 2);
            let drained = output.fills * output.footprint;
            prop_assert_eq!(counts.writes[1][OUTPUT], inner.fills * inner.footprint * inner.distinct + counts.reads[0][OUTPUT]);
            prop_assert_eq!(counts.reads[1][OUTPUT], drained + inner.outer_words().unwrap() - inner.fills * inner.footprint * inner.distinct);
            // Every MAC is done: iterations times the array cover the loops.
            prop_assert!(counts.cycles * factors.rows.1 * factors.cols.1 >= task.shape.macs());
            let words = task.shape.words;
            prop_assert!(counts.reads[0][INPUT] >= words[0] && counts.reads[0][WEIGHT] >= words[1]);
            prop_assert!(counts.writes[0][OUTPUT] >= words[2]);
        }
    }

    #[test]
    fn no_mapping_of_an_input_gradient_moves_less_than_its_words(c in 1_u64..20, k in 1_u64..20, size in 3_u64..20, kernel in 1_u64..4, stride in 1_u64..4, seed in any::<u64>()) {
        let (accelerator, engine) = accelerator();
        let layer = Layer::new("c", Operator::conv2d(c, k, kernel, stride, kernel / 2, [size; 2]));
        let task = Task::new(&layer, 1, Pass::InputGradient).unwrap();
        let mut problem = Problem::new(&engine, &accelerator, &task).unwrap();
        problem.room = [u64::MAX; MAX_LEVELS];
        let space = Space::new(&problem, &problem.pairs());
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..20 {
            let counts = problem.count(&space.draw(&mut random)).unwrap();
            let words = task.shape.words;
            prop_assert!(counts.reads[0][INPUT] >= words[0] && counts.reads[0][WEIGHT] >= words[1]);
            prop_assert!(counts.writes[0][OUTPUT] >= words[2]);
        }
    }

    #[test]
    fn more_room_or_bandwidth_never_costs_cycles(c in 1_u64..40, k in 1_u64..40, size in 3_u64..30, grow in 1_u64..5, bandwidth in 1_u64..200) {
        let (mut accelerator, mut engine) = accelerator();
        engine.candidates = 300;
        let task = conv(c, k, size, 3, 1);
        let cycles = |accelerator: &Accelerator| {
            let problem = Problem::new(&engine, accelerator, &task).unwrap();
            let counts = problem.count(&problem.search("c").unwrap()).unwrap();
            problem.cycles_and_energy(&counts).0
        };
        accelerator.memory[0].bandwidth_bits = Some(bandwidth);
        let before = cycles(&accelerator);
        prop_assert!(before <= engine.default_cycles(&accelerator, &task).unwrap());
        let mut larger = accelerator.clone();
        larger.memory[1].capacity_bytes = larger.memory[1].capacity_bytes.map(|bytes| bytes * (1 + grow));
        larger.memory[2].capacity_bytes = larger.memory[2].capacity_bytes.map(|bytes| bytes * (1 + grow));
        prop_assert!(cycles(&larger) <= before);
        accelerator.memory[0].bandwidth_bits = Some(bandwidth + grow);
        prop_assert!(cycles(&accelerator) <= before);
    }
}
