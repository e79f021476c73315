//! Trees as pictures and as programs: SVG, Graphviz, rules.

use std::fmt::Write;

use super::Names;
use crate::classifier::SoftForest;
use crate::error::{ForestError, Result};
use crate::tree::Tree;

/// Settings of a drawing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawing {
    /// Names of columns and classes.
    pub names: Names,
    /// Height and width in pixels when rows are images: gates are then drawn as the picture of their weights.
    pub image: Option<(usize, usize)>,
}

/// Horizontal room of a leaf, vertical room of a level, side of a gate's picture.
const LEAF_WIDTH: f64 = 64.0;
const LEVEL_HEIGHT: f64 = 96.0;
const SIDE: f64 = 56.0;
/// Fills of the classes, repeated when there are more; distinguishable also without colour vision.
const COLOURS: [&str; 10] =
    ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#ee8866", "#44bb99", "#99ddff"];

impl SoftForest {
    /// One tree as a self-contained SVG: gates as boxes (or pictures of their weights), leaves coloured by class. Where
    /// rows stop at a gate, its leafness and what it says stand below it.
    ///
    /// # Errors
    /// For a tree number out of range, and an image size that is not the number of columns.
    pub fn tree_svg(&self, tree: usize, drawing: &Drawing) -> Result<String> {
        let found = self.tree(tree)?;
        if let Some((height, width)) = drawing.image
            && height.checked_mul(width) != Some(self.ensemble.encoder.width())
        {
            return Err(ForestError::Setting {
                name: "image",
                expected: "height x width equal to the number of columns",
                found: format!("{height} x {width}"),
            });
        }
        let places = places(found);
        let gate_of = found.topology().gate_of();
        let says = self.says(found);
        let wide = places.iter().fold(0.0, |w: f64, p| w.max(p.0)) + LEAF_WIDTH / 2.0;
        let tall = places.iter().fold(0.0, |h: f64, p| h.max(p.1)) + LEVEL_HEIGHT / 2.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {tall}\" \
             font-family=\"sans-serif\" font-size=\"9\" text-anchor=\"middle\">\n"
        );
        for gate in found.topology().gates() {
            let from = places[gate.node as usize];
            for child in [gate.left, gate.right] {
                let to = places[child as usize];
                line(&mut svg, from, to);
            }
        }
        for (node, &(x, y)) in places.iter().enumerate() {
            match (gate_of[node], drawing.image) {
                (None, _) => {
                    let (class, p) = says[node];
                    let colour = COLOURS[class % COLOURS.len()];
                    let name = escaped(&drawing.names.class(class));
                    let _ = writeln!(
                        svg,
                        "<circle cx=\"{x}\" cy=\"{y}\" r=\"14\" fill=\"{colour}\"><title>{name} {p:.3}</title></circle>\
                         <text x=\"{x}\" y=\"{}\">{name}</text>",
                        y + 26.0
                    );
                }
                (Some(gate), Some((height, width))) => {
                    let weights = self.gate_image(tree, gate)?;
                    picture(&mut svg, &weights, height, width, (x, y));
                }
                (Some(gate), None) => {
                    let label = escaped(&self.gate_label(found, gate, &drawing.names));
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{}\" y=\"{}\" width=\"{SIDE}\" height=\"24\" fill=\"#ffffff\" stroke=\"#333333\">\
                         <title>{label}</title></rect><text x=\"{x}\" y=\"{}\">gate {gate}</text>",
                        x - SIDE / 2.0,
                        y - 12.0,
                        y + 3.0
                    );
                }
            }
            if let Some(stop) = stops_here(found, gate_of[node], says[node], &drawing.names) {
                let below = y + if drawing.image.is_some() { SIDE / 2.0 } else { 12.0 } + 8.0;
                let _ = writeln!(svg, "<text x=\"{x}\" y=\"{below}\" font-size=\"7\">{}</text>", escaped(&stop));
            }
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    /// One tree in Graphviz's language. Where rows stop at a gate, a second line of its label has its leafness and what
    /// it says.
    ///
    /// # Errors
    /// For a tree number out of range.
    pub fn tree_dot(&self, tree: usize, names: &Names) -> Result<String> {
        let found = self.tree(tree)?;
        let gate_of = found.topology().gate_of();
        let mut dot = String::from("digraph tree {\n");
        for (node, (class, p)) in self.says(found).into_iter().enumerate() {
            let mut label = match gate_of[node] {
                Some(gate) => self.gate_label(found, gate, names),
                None => said((class, p), names),
            };
            if let Some(stop) = stops_here(found, gate_of[node], (class, p), names) {
                label = format!("{label}\n{stop}");
            }
            let label = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(dot, "  n{node} [shape=box, label=\"{label}\"];");
        }
        for gate in found.topology().gates() {
            for (child, side) in [(gate.left, "left"), (gate.right, "right")] {
                let _ = writeln!(dot, "  n{} -> n{child} [label=\"{side}\"];", gate.node);
            }
        }
        dot.push_str("}\n");
        Ok(dot)
    }

    /// One tree as nested conditions on its gates' largest weights, in units of the inputs; each gate reads "goes left
    /// when the weighted sum is above its threshold", which is what hard routing does. The threshold is that of the sum
    /// over all inputs. Where rows stop at a gate, the line before it has its leafness, the part of what arrives that
    /// stops, and what it says.
    ///
    /// # Errors
    /// For a tree number out of range.
    pub fn tree_rules(&self, tree: usize, names: &Names) -> Result<String> {
        let found = self.tree(tree)?;
        let gate_of = found.topology().gate_of();
        let says = self.says(found);
        let mut text = String::new();
        // (node, indentation, whether to print "else" first)
        let mut open = vec![(0usize, 0usize, false)];
        while let Some((node, indent, is_else)) = open.pop() {
            let pad = "  ".repeat(indent);
            if is_else {
                let _ = writeln!(text, "{}else:", "  ".repeat(indent - 1));
            }
            if let Some(stop) = stops_here(found, gate_of[node], says[node], names) {
                let _ = writeln!(text, "{pad}{stop}");
            }
            match gate_of[node] {
                None => {
                    let _ = writeln!(text, "{pad}{}", said(says[node], names));
                }
                Some(gate) => {
                    let shape = found.topology().gates()[gate];
                    let _ = writeln!(text, "{pad}if {}:", self.gate_label(found, gate, names));
                    open.push((shape.right as usize, indent + 1, true));
                    open.push((shape.left as usize, indent + 1, false));
                }
            }
        }
        Ok(text)
    }

    /// When a gate goes left: its three largest weights in units of the inputs, and the threshold of the sum over all of them,
    /// sum w m - b with training means m, since gates see what is left after the mean.
    fn gate_label(&self, tree: &Tree, gate: usize, names: &Names) -> String {
        let encoder = &self.ensemble.encoder;
        let sources = encoder.source_columns();
        let mut terms: Vec<(f64, usize)> = tree
            .gate_weights(gate)
            .iter()
            .zip(encoder.inverse_scale())
            .zip(&sources)
            .map(|((&w, &s), &column)| (f64::from(w) * f64::from(s), column))
            .collect();
        let centre: f64 = terms.iter().zip(encoder.mean()).map(|((w, _), &mean)| w * f64::from(mean)).sum();
        let threshold = centre - f64::from(tree.biases()[gate]);
        terms.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
        let shown = terms.iter().take(3).map(|&(w, column)| {
            let digits = decimals(w);
            format!("{w:+.digits$} {}", names.column(column))
        });
        let shown: Vec<String> = shown.collect();
        let rest = if terms.len() > 3 { " ..." } else { "" };
        let digits = decimals(threshold);
        format!("{}{rest} > {threshold:.digits$}", shown.join(" "))
    }
}

/// A class and its probability.
fn said((class, p): (usize, f32), names: &Names) -> String {
    format!("{} ({p:.2})", names.class(class))
}

/// The part of what arrives at a gate that goes no further, and what the gate's node says; `None` where all goes on,
/// and at leaves.
fn stops_here(tree: &Tree, gate: Option<usize>, says: (usize, f32), names: &Names) -> Option<String> {
    let g = tree.leafness()[gate?];
    (g > 0.0).then(|| format!("stops here {g:.2}: {}", said(says, names)))
}

/// Decimals that show four digits of a number, at least two and at most nine.
fn decimals(number: f64) -> usize {
    let leading = if number == 0.0 { 0.0 } else { number.abs().log10().floor() };
    (3.0 - leading).clamp(2.0, 9.0) as usize
}

/// Centre of every node: leaves side by side, parents above the middle of their children.
fn places(tree: &Tree) -> Vec<(f64, f64)> {
    let topology = tree.topology();
    let depths = topology.depths();
    let gate_of = topology.gate_of();
    let mut x = vec![f64::NAN; topology.nodes()];
    let mut leaves = 0.0;
    let mut open = vec![0usize];
    while let Some(node) = open.pop() {
        match gate_of[node] {
            Some(gate) => {
                let shape = topology.gates()[gate];
                open.push(shape.right as usize);
                open.push(shape.left as usize);
            }
            None => {
                leaves += 1.0;
                x[node] = (leaves - 0.5) * LEAF_WIDTH;
            }
        }
    }
    for gate in topology.gates().iter().rev() {
        x[gate.node as usize] = f64::midpoint(x[gate.left as usize], x[gate.right as usize]);
    }
    x.into_iter().zip(depths).map(|(x, depth)| (x, (depth as f64 + 0.5) * LEVEL_HEIGHT)).collect()
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#999999\"/>");
}

/// Weights as a picture: red pushes left, blue right, in nine shades; neighbours of one shade become one rectangle.
fn picture(svg: &mut String, weights: &[f32], height: usize, width: usize, (x, y): (f64, f64)) {
    let largest = weights.iter().fold(f32::MIN_POSITIVE, |m, w| m.max(w.abs()));
    let (left, top) = (x - SIDE / 2.0, y - SIDE / 2.0);
    let (step_x, step_y) = (SIDE / width as f64, SIDE / height as f64);
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"#ffffff\" stroke=\"#333333\"/>"
    );
    for (row, weights) in weights.chunks_exact(width).enumerate() {
        let shade = |w: f32| (4.0 * w / largest).round() as i32;
        let mut start = 0;
        while start < width {
            let level = shade(weights[start]);
            let run = weights[start..].iter().take_while(|&&w| shade(w) == level).count();
            if level != 0 {
                let colour = if level > 0 { "#cc3311" } else { "#0077bb" };
                let _ = write!(
                    svg,
                    "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{colour}\" fill-opacity=\"{}\"/>",
                    left + start as f64 * step_x,
                    top + row as f64 * step_y,
                    run as f64 * step_x,
                    step_y,
                    f64::from(level.abs()) / 4.0
                );
            }
            start += run;
        }
    }
    svg.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
