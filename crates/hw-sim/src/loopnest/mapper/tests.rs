use super::cost::{INPUT, OUTPUT, WEIGHT};
use super::mapping::{GROUPS, MAX_LEVELS, ORDERS};
use super::space::{Space, ways};
use super::*;
use crate::Accelerator;
use crate::engine::Engine;
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
