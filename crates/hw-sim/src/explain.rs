//! One layer on one accelerator, written out: its loops, its cycles, and every term of its energy.

use crate::accelerator::Accelerator;
use crate::engine::{Engine, price};
use crate::error::HwError;
use crate::systolic::{Dataflow, SystolicArray};
use crate::task::Task;

/// The text of `hw-sim explain`.
///
/// # Errors
/// A task that does not validate, or that the accelerator cannot run.
pub fn explain(accelerator: &Accelerator, task: &Task) -> Result<String, HwError> {
    accelerator.validate()?;
    task.validate()?;
    let cost = price(accelerator, task)?;
    let shape = &task.shape;
    let mut text = String::new();
    let [inputs, weights, outputs] = shape.words;
    let mut line = |words: String| {
        text += &words;
        text.push('\n');
    };
    line(format!("{} ({:?}) on {}", task.name, task.pass, accelerator.name));
    line(format!(
        "shape: groups {} · n {} · k {} · c {} · y {} · x {} · r {} · s {} = {} MACs",
        shape.groups,
        shape.n,
        shape.k,
        shape.c,
        shape.y,
        shape.x,
        shape.r,
        shape.s,
        shape.macs()
    ));
    line(format!(
        "words: input {inputs} at {} bits, density {}; weight {weights} at {} bits, density {}; output {outputs} at {} bits",
        task.input.bits, task.input.density, task.weight.bits, task.weight.density, task.output_bits
    ));
    line(String::new());
    for (depth, words) in nest(accelerator, task)?.into_iter().enumerate() {
        line(format!("{}{words}", "  ".repeat(depth)));
    }
    line(String::new());
    line(format!(
        "cycles: {} compute + {} stall = {}; utilisation {:.6}",
        cost.compute_cycles,
        cost.stall_cycles,
        cost.cycles(),
        cost.utilisation
    ));
    line(String::new());
    line(format!("mac: {:.3} pJ", cost.mac_pj));
    for (name, energy) in [("network", cost.network_pj), ("rebuild", cost.rebuild_pj), ("static", cost.static_pj)] {
        if energy != 0.0 {
            line(format!("{name}: {energy:.3} pJ"));
        }
    }
    for traffic in &cost.traffic {
        let level = &accelerator.memory[traffic.level];
        let mut terms = Vec::new();
        for (action, words, bits, pj) in [
            ("read", traffic.reads, traffic.read_bits, level.read_pj),
            ("written", traffic.writes, traffic.write_bits, level.write_pj),
        ] {
            if bits > 0 {
                terms.push(format!("{words} words {action} = {bits} bits × {} pJ", pj / f64::from(level.access_bits)));
            }
        }
        let operand = traffic.operand.name();
        line(format!("{} {operand}: {} = {:.3} pJ", level.name, terms.join(" + "), traffic.energy_pj));
    }
    line(format!("total: {:.3} pJ", cost.energy_pj()));
    Ok(text)
}

/// The loops of the engine on this task, outermost first.
fn nest(accelerator: &Accelerator, task: &Task) -> Result<Vec<String>, HwError> {
    let shape = &task.shape;
    let mut lines = Vec::new();
    let mut loop_over = |what: &str, size: u64, step: u64| {
        let count = size.div_ceil(step.max(1));
        if count > 1 {
            let by = if step > 1 { format!(", {step} of {size} at once") } else { String::new() };
            lines.push(format!("for {count} {what}{by}"));
        }
    };
    loop_over("groups", shape.groups, 1);
    let pixels = shape.pixels();
    match &accelerator.engine {
        Engine::Systolic(engine) => {
            let array =
                SystolicArray { drain: engine.drain, ..SystolicArray::new(engine.rows, engine.cols, engine.dataflow) };
            let gemm = shape.gemm();
            let cost = array.cost(&task.name, gemm)?;
            let [down, across, streamed] = array.layout(gemm);
            let [rows, cols, time] = match engine.dataflow {
                Dataflow::OutputStationary => ["pixels (M)", "filters (N)", "window elements (K)"],
                Dataflow::WeightStationary => ["window elements (K)", "filters (N)", "pixels (M)"],
                Dataflow::InputStationary => ["window elements (K)", "pixels (M)", "filters (N)"],
            };
            lines.push(format!("for {} folds of {cols}: {across} over {} columns", cost.folds[1], engine.cols));
            lines.push(format!("for {} folds of {rows}: {down} over {} rows", cost.folds[0], engine.rows));
            let fill = cost.cycles_per_fold - streamed;
            lines.push(format!("for {} cycles: {streamed} {time} + {fill} of fill and drain", cost.cycles_per_fold));
        }
        Engine::LoopNest(engine) => {
            let mapping = engine.map(accelerator, task)?;
            for (index, (level, loops)) in accelerator.memory.iter().zip(&mapping.levels).enumerate() {
                if index == engine.first_private_level {
                    spatial(&mut lines, &mapping);
                }
                lines.push(format!("{}:", level.name));
                lines.extend(loops.iter().map(|(dim, bound)| format!("for {dim:?} in 0..{bound}")));
            }
            if engine.first_private_level >= accelerator.memory.len() {
                spatial(&mut lines, &mapping);
            }
        }
        Engine::RowStationary(engine) => {
            loop_over("passes of filters", shape.k, engine.filters_per_pass);
            loop_over("strips of output rows", shape.y, engine.cols);
            let active = engine.active_elements(shape)?;
            lines.push(format!(
                "{} kernel rows × output rows over {}×{}: {active} active elements",
                shape.r, engine.rows, engine.cols
            ));
        }
        Engine::DianNao(engine) => {
            loop_over("groups of filters", shape.k, engine.filters);
            loop_over("pixels", pixels, 1);
            loop_over("kernel taps", shape.r * shape.s, 1);
            loop_over("cycles of channels", shape.c, engine.channels);
        }
        Engine::CambriconX(engine) => {
            loop_over("groups of filters", shape.k, engine.elements);
            loop_over("pixels", pixels, 1);
            let window = shape.c * shape.r * shape.s;
            let slowest = crate::engine::slowest_of(window, task.weight.density, engine.elements.min(shape.k));
            loop_over("cycles of non-zero weights of the fullest filter", slowest, engine.multipliers);
        }
        Engine::Scnn(engine) => {
            loop_over("samples and channels", shape.n * shape.c, 1);
            loop_over("groups of filters", shape.k, engine.filters_per_group);
            lines.push(format!(
                "every non-zero activation of a tile × every non-zero weight, {}×{} a cycle",
                engine.activations, engine.weights
            ));
        }
        Engine::BitPragmatic(engine) => serial(&mut loop_over, task, [engine.filters, engine.channels, engine.windows]),
        Engine::BitSerial(engine) => serial(&mut loop_over, task, [engine.filters, engine.channels, engine.windows]),
        Engine::BitComposable(engine) => {
            loop_over("groups of output channels", shape.k, engine.cols);
            loop_over("pixels", pixels, 1);
            lines.push(format!("tiles and loop order by search; {} × {} fusion units", engine.rows, engine.cols));
        }
        Engine::SmartDeal(engine) => {
            loop_over("groups of filters", shape.k, engine.slices);
            loop_over("output rows", shape.n * shape.y, 1);
            loop_over("strips of pixels", shape.x, engine.macs);
            let rows = crate::engine::slowest_of(shape.c * shape.r, engine.density(task), engine.slices.min(shape.k));
            loop_over("sets of non-zero weight rows of the fullest filter", rows, engine.lines);
            loop_over("kernel columns", shape.s, 1);
            let form = engine.form(task);
            let bits = engine.weight_bits(task, form);
            lines.push(match (form, task.stored_weight_bits) {
                (None, _) => format!("weights: {bits} bits, not decomposed"),
                (Some(form), Some(_)) => format!(
                    "weights: {bits} bits, measured, against {} dense; {} shift-adds to rebuild",
                    form.dense_bits, form.rebuild_adds
                ),
                (Some(form), None) => format!(
                    "weights: {} coefficient + {} index + {} basis bits against {} dense; {} shift-adds to rebuild",
                    form.coefficient_bits, form.index_bits, form.basis_bits, form.dense_bits, form.rebuild_adds
                ),
            });
        }
    }
    Ok(lines)
}

fn spatial(lines: &mut Vec<String>, mapping: &crate::loopnest::Mapping) {
    let ((rows, down), (cols, across)) = (mapping.rows, mapping.cols);
    lines.push(format!("in parallel: {rows:?} over {down} rows, {cols:?} over {across} columns"));
}

fn serial(loop_over: &mut impl FnMut(&str, u64, u64), task: &Task, [filters, channels, windows]: [u64; 3]) {
    let shape = &task.shape;
    loop_over("groups of filters", shape.k, filters);
    loop_over("groups of windows", shape.pixels(), windows);
    loop_over("kernel taps", shape.r * shape.s, 1);
    loop_over("groups of channels", shape.c, channels);
    loop_over("activation bits at most", u64::from(task.input.bits), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{builtin, with_bits};
    use core_tensor::workload::Pass;

    fn written(accelerator: &str, network: &str, layer: &str) -> String {
        let net = with_bits(builtin(network).unwrap(), [8, 8, 8]);
        let layer = net.layers.iter().find(|known| known.name == layer).unwrap();
        let task = Task::new(layer, 1, Pass::Forward).unwrap();
        explain(&Accelerator::preset(accelerator).unwrap(), &task).unwrap()
    }

    #[test]
    fn a_linear_layer_on_a_systolic_array_agrees_with_the_hand_calculation() {
        // 784 → 300 at 8 bits on 256 × 256, weight stationary. M = 1, N = 300, K = 784, so ⌈300/256⌉ = 2 by
        // ⌈784/256⌉ = 4 folds of 1 + 2·256 + 256 − 2 = 767 cycles: 6136. DRAM at 388 bits a cycle moves
        // (784 + 235 200 + 300)·8 = 1 890 272 bits, of which 256·256·8 + 256·8 = 526 336 come first and 2048 go last:
        // ⌈1 361 888/388⌉ = 3511 are hidden, ⌈526 336/388⌉ + ⌈2048/388⌉ = 1357 + 6 are not.
        let text = written("tpu-like", "mlp", "fc1");
        // On chip: inputs 2·784 read, 784 filled; weights 235 200 both ways; partial sums 3·300 back and forth at 32 bits,
        // 300 results in and out at 8. A bit costs 100/64 = 1.5625 pJ there and 1300/64 = 20.3125 pJ in DRAM, a MAC 0.3 pJ.
        let on_chip = ((1568 + 784) * 8 + 2 * 235_200 * 8 + 2 * 900 * 32 + 2 * 300 * 8) as f64 * 1.5625;
        let total = 235_200.0 * 0.3 + 1_890_272.0 * 20.3125 + on_chip;
        for needle in [
            "cycles: 6136 compute + 1363 stall = 7499",
            "mac: 70560.000 pJ",
            "dram weight: 235200 words read = 1881600 bits × 20.3125 pJ = 38220000.000 pJ",
            "activations input: 1568 words read = 12544 bits × 1.5625 pJ + 784 words written = 6272 bits × 1.5625 pJ = 29400.000 pJ",
            &format!("total: {total:.3} pJ"),
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn the_documented_example_is_what_is_printed() {
        let docs = include_str!("../../../docs/papers/hw-sim.md");
        assert!(docs.contains(&written("tpu-like", "mlp", "fc1")), "docs/papers/hw-sim.md is out of date");
    }

    #[test]
    fn weights_are_explained_in_the_form_that_is_priced() {
        // 16 → 32 channels of 1 × 1: 32·(6·3·4 + 6 + 72) bits in SmartDeal form against 512·8.
        let text = written("smartdeal", "resnet20-cifar", "layer2.0.downsample.0");
        assert!(text.contains("weights: 4096 bits, not decomposed") && !text.contains("rebuild"), "{text}");
        for layer in &builtin("resnet20-cifar").unwrap().layers {
            let text = written("smartdeal", "resnet20-cifar", &layer.name);
            assert_eq!(text.contains("shift-adds to rebuild"), text.contains("rebuild: "), "{text}");
        }
        let net = with_bits(builtin("resnet20-cifar").unwrap(), [8, 8, 8]);
        let layer = net.layers.iter().find(|known| known.name == "layer2.0.conv2").unwrap();
        let mut task = Task::new(layer, 1, Pass::Forward).unwrap();
        task.stored_weight_bits = Some(16_000);
        let text = explain(&Accelerator::preset("smartdeal").unwrap(), &task).unwrap();
        // 32·32·3 rows of three coefficients, each added to three columns.
        for needle in
            ["weights: 16000 bits, measured, against 73728 dense; 27648 shift-adds", "dram weight: 2000 words read"]
        {
            assert!(text.contains(needle), "{text}");
        }
    }

    #[test]
    fn every_preset_explains_a_convolution() {
        for name in Accelerator::presets() {
            let text = written(name, "resnet20-cifar", "layer2.0.conv1");
            assert!(text.contains("total: ") && text.contains("dram weight: "), "{text}");
        }
    }
}
