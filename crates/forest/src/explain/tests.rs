use super::*;
use crate::params::{Leafness, Optimiser, SoftForestParams};
use crate::synthetic::oblique_xor;
use ndarray::aview1;

fn model() -> Result<(SoftForest, ndarray::Array2<f32>)> {
    let (x, y) = oblique_xor(400, 4, 0.6, 1);
    let params = SoftForestParams::default()
        .trees(3)
        .depth(3)
        .epochs(30)
        .batch(32)
        .leafness(Leafness::Logit { init: 0.0 })
        .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() });
    Ok((params.fit(x.view(), aview1(&y))?, x))
}

#[test]
fn an_explanation_agrees_with_the_model() -> Result<()> {
    let (forest, x) = model()?;
    let row = x.row(7).to_vec();
    let explanation = forest.explain(&row, 4)?;
    assert_eq!(explanation.paths.len(), 3);
    assert_eq!(explanation.class, forest.predict(x.view())?[7]);
    for path in &explanation.paths {
        let tree = &forest.trees()[path.tree];
        // Hardened trees stop nowhere on the way, so a path's mass is the product of its gates' probabilities.
        let product: f64 = path.steps.iter().map(|s| s.probability).product();
        assert!((product - path.mass).abs() < 1e-9);
        for step in &path.steps {
            // With all four terms shown, they and the bias make up the score.
            let score: f32 = step.terms.iter().map(|t| t.contribution).sum();
            let z = f64::from(score + tree.biases()[step.gate]);
            let p = 1.0 / (1.0 + (-z).exp());
            let side = if step.left { p } else { 1.0 - p };
            assert!((side - step.probability).abs() < 1e-5);
        }
    }
    let mean: f64 = explanation.paths.iter().map(|p| p.mass).sum::<f64>() / 3.0;
    assert_eq!(mean, explanation.explained_mass);
    Ok(())
}

#[test]
fn effects_are_the_first_order_change_of_the_prediction() -> Result<()> {
    let (forest, x) = model()?;
    let row = x.row(3).to_vec();
    let class = forest.explain(&row, 4)?.class;
    let inputs = forest.expanded(&row)?;
    for column in 0..4 {
        let mut total = 0.0;
        for tree in forest.trees() {
            let routed = forest.route_row(tree, &inputs);
            let own: Vec<f64> =
                forest.distributions(tree, &inputs).chunks_exact(2).map(|q| f64::from(q[class])).collect();
            let gradient = value_gradient(tree.topology(), &routed.p, &leafness(tree), &own);
            for gate in 0..tree.biases().len() {
                let slope = gradient.probability[gate] * routed.slope[gate];
                let terms = forest.terms(tree, gate, &inputs, slope, 4);
                let found = terms.iter().find(|t| t.column == column);
                total += found.map_or(0.0, |t| t.effect) / 3.0;
            }
        }
        let at = |delta: f32| -> Result<f64> {
            let mut moved = row.clone();
            moved[column] += delta;
            let mut out = [0.0; 2];
            forest.predict_one(&moved, crate::Evaluation::Exact, &mut out)?;
            Ok(f64::from(out[class]))
        };
        let h = 1e-2;
        let numeric = (at(h)? - at(-h)?) / f64::from(2.0 * h);
        // Single-precision outputs over a step of 0.02: rounding of 1e-5, and the third derivative's h^2.
        assert!((numeric - total).abs() < 0.02 * (1.0 + total.abs()), "{numeric} {total}");
    }
    Ok(())
}

#[test]
fn the_features_that_decide_are_the_important_ones() -> Result<()> {
    let (forest, x) = model()?;
    let importance = forest.feature_importance(x.view())?;
    assert!((importance.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    // Only the first two features carry the label.
    assert!(importance[0] + importance[1] > 0.8, "{importance:?}");
    let masses = forest.node_importance(0, x.view())?;
    assert!((masses.iter().map(|m| m.stop).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!((masses[0].reach - 1.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn leafness_by_depth_of_hard_trees_counts_leaves() -> Result<()> {
    let (forest, _) = model()?;
    let by_depth = forest.leafness_by_depth();
    assert_eq!(by_depth.last(), Some(&1.0));
    assert!(by_depth.iter().all(|l| (0.0..=1.0).contains(l)));
    Ok(())
}

#[test]
fn drawings_mention_every_node_and_escape_names() -> Result<()> {
    let (forest, _) = model()?;
    let names = Names { columns: vec!["a<b".to_owned(); 4], classes: vec!["yes & no".to_owned(), "\"q\"".to_owned()] };
    let topology = forest.trees()[0].topology();
    let drawing = Drawing { names: names.clone(), image: None };
    let svg = forest.tree_svg(0, &drawing)?;
    assert_eq!(svg.matches("<circle").count(), topology.nodes() - topology.gates().len());
    assert_eq!(svg.matches("<line").count(), 2 * topology.gates().len());
    assert!(!svg.contains("a<b") && !svg.contains("yes & no"));
    let image = Drawing { names: names.clone(), image: Some((2, 2)) };
    assert!(forest.tree_svg(0, &image)?.contains("fill-opacity"));
    let wrong = Drawing { image: Some((3, 2)), ..image };
    assert!(forest.tree_svg(0, &wrong).is_err());
    let dot = forest.tree_dot(0, &names)?;
    assert_eq!(dot.matches(" -> ").count(), 2 * topology.gates().len());
    let rules = forest.tree_rules(0, &Names::default())?;
    assert_eq!(rules.matches("if ").count(), topology.gates().len());
    assert_eq!(rules.matches("else:").count(), topology.gates().len());
    assert!(matches!(forest.tree_svg(9, &drawing), Err(ForestError::Index { .. })));
    assert!(forest.gate_image(0, 999).is_err());
    Ok(())
}

#[test]
fn drawings_say_at_which_gates_rows_stop_and_what_these_say() -> Result<()> {
    let (x, y) = oblique_xor(100, 4, 0.6, 1);
    let params = SoftForestParams::default().trees(1).depth(2).epochs(2).harden(false);
    let mut forest = params.leafness(Leafness::Logit { init: 0.0 }).fit(x.view(), aview1(&y))?;
    let names = Names { classes: vec!["a&b".to_owned(), "c".to_owned()], ..Names::default() };
    let drawings = |forest: &SoftForest| -> Result<[String; 4]> {
        let drawing = |image| Drawing { names: names.clone(), image };
        Ok([
            forest.tree_rules(0, &names)?,
            forest.tree_dot(0, &names)?,
            forest.tree_svg(0, &drawing(None))?,
            forest.tree_svg(0, &drawing(Some((2, 2))))?,
        ])
    };
    let tree = forest.trees()[0].clone();
    let says = forest.says(&tree);
    for (format, drawn) in drawings(&forest)?.into_iter().enumerate() {
        assert_eq!(drawn.matches("stops here").count(), 3, "{drawn}");
        for (gate, g) in tree.topology().gates().iter().zip(tree.leafness()) {
            let (class, p) = says[gate.node as usize];
            let class = if format < 2 { names.class(class) } else { names.class(class).replace('&', "&amp;") };
            assert!(drawn.contains(&format!("stops here {g:.2}: {class} ({p:.2})")), "{drawn}");
        }
    }
    // Rules stay one condition a line, each behind what stops before it.
    let rules = forest.tree_rules(0, &names)?;
    assert!(rules.starts_with("stops here") && rules.lines().nth(1).is_some_and(|line| line.starts_with("if ")));
    forest.harden();
    assert!(drawings(&forest)?.iter().all(|drawn| !drawn.contains("stops here")));
    Ok(())
}

#[test]
fn importance_is_the_same_sum_whatever_the_number_of_threads() -> Result<()> {
    let (forest, x) = model()?;
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let found = pool.map(|pool| pool.install(|| forest.feature_importance(x.view())));
        found.map_err(|e| ForestError::Malformed(e.to_string()))?
    };
    let found = run(1)?;
    assert_eq!(run(3)?, found);
    // Row by row.
    let (mut wanted, sources) = (vec![0.0; 4], forest.ensemble.encoder.source_columns());
    for (row, class) in x.rows().into_iter().zip(forest.predict(x.view())?) {
        for tree in forest.trees() {
            forest.add_effects(tree, &row.to_vec(), class, &sources, &mut wanted);
        }
    }
    let sum: f64 = wanted.iter().sum();
    assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w / sum).abs() < 1e-12), "{found:?} {wanted:?}");
    Ok(())
}

/// Follows printed rules for a row of columns called x0, x1, ...: what they say, and whether every condition on the way is
/// decided by the digits that are printed.
fn follow(rules: &str, row: &[f32]) -> Option<(String, bool)> {
    let lines: Vec<(usize, &str)> =
        rules.lines().map(|line| (line.len() - line.trim_start().len(), line.trim_start())).collect();
    let half_a_digit = |number: &str| 0.5 * 0.1f64.powi(number.split('.').nth(1).map_or(0, str::len) as i32);
    let (mut at, mut decided) = (0, true);
    while let Some(condition) = lines[at].1.strip_prefix("if ") {
        let (sum, threshold) = condition.strip_suffix(':')?.split_once(" > ")?;
        let (mut above, mut unsure) = (-threshold.parse::<f64>().ok()?, half_a_digit(threshold));
        for pair in sum.split(' ').collect::<Vec<_>>().chunks_exact(2) {
            let column: usize = pair[1].strip_prefix('x')?.parse().ok()?;
            above += pair[0].parse::<f64>().ok()? * f64::from(row[column]);
            unsure += half_a_digit(pair[0]) * f64::from(row[column].abs());
        }
        decided &= above.abs() > unsure;
        let other = (lines[at].0, "else:");
        at += if above > 0.0 { 1 } else { 1 + lines[at..].iter().position(|line| *line == other)? };
    }
    Some((lines[at].1.to_owned(), decided))
}

#[test]
fn rules_say_what_hard_routing_does_wherever_the_columns_lie() -> Result<()> {
    let (mut x, y) = oblique_xor(400, 2, 0.6, 1);
    // One column in the thousands, one in hundredths.
    x.column_mut(0).mapv_inplace(|v| 5000.0 + 300.0 * v);
    x.column_mut(1).mapv_inplace(|v| 0.07 + 0.01 * v);
    for scaling in [crate::Scaling::Standardise, crate::Scaling::Centre] {
        let params = SoftForestParams::default()
            .trees(1)
            .depth(3)
            .epochs(20)
            .batch(32)
            .scaling(scaling)
            .leafness(Leafness::Fixed)
            .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() });
        let forest = params.fit(x.view(), aview1(&y))?;
        let rules = forest.tree_rules(0, &Names::default())?;
        let hard = forest.evaluate(x.view(), crate::Evaluation::Hard)?.output;
        let mut compared = 0;
        for (row, says) in x.rows().into_iter().zip(hard.rows()) {
            let (said, decided) = follow(&rules, &row.to_vec()).ok_or_else(|| ForestError::Malformed(rules.clone()))?;
            let class = arg_max(says.iter().copied());
            if decided {
                assert!(said.starts_with(&format!("class {class} ")), "{said}, {says}\n{rules}");
                compared += 1;
            }
        }
        // Four digits decide nearly every row.
        assert!(compared > 350, "{compared}");
    }
    Ok(())
}

#[test]
fn the_text_names_class_mass_and_columns() -> Result<()> {
    let (forest, x) = model()?;
    let explanation = forest.explain(&x.row(0).to_vec(), 2)?;
    let names = Names {
        columns: ["north", "east", "n1", "n2"].map(str::to_owned).to_vec(),
        classes: ["same", "different"].map(str::to_owned).to_vec(),
    };
    let text = explanation.to_text(&names);
    assert!(text.contains(&names.classes[explanation.class]));
    assert!(text.contains(&format!("{:.0} %", 100.0 * explanation.explained_mass)));
    assert!(text.contains(&names.columns[explanation.columns()[0]]));
    let back: Explanation =
        serde_json::from_str(&explanation.to_json()?).map_err(|e| ForestError::Malformed(e.to_string()))?;
    assert_eq!(back.class, explanation.class);
    Ok(())
}
