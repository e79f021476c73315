//! Inline SVG, laid by hand: line charts with interval bands, and a small interval plot for each claim.

use std::fmt::Write;

use super::number;
use crate::claim::{JudgedClaim, Relation};
use crate::section::{Axis, Curve, Point, Scale};

/// A straight map from numbers to pixels.
struct Ruler {
    scale: Scale,
    lo: f64,
    hi: f64,
    from: f64,
    to: f64,
}

impl Ruler {
    fn new(scale: Scale, numbers: impl Iterator<Item = f64>, [from, to]: [f64; 2]) -> Self {
        let place = |x: f64| if scale == Scale::Log { x.log10() } else { x };
        let (lo, hi) = numbers
            .map(place)
            .filter(|x| x.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |range, x| (range.0.min(x), range.1.max(x)));
        // A single position gets room on both sides.
        let room = if hi > lo { 0.0 } else { (0.05 * hi.abs()).max(0.5) };
        let (lo, hi) = if lo.is_finite() { (lo - room, hi + room) } else { (0.0, 1.0) };
        Self { scale, lo, hi, from, to }
    }

    /// Widened by a share of its length on both sides.
    fn padded(mut self, share: f64) -> Self {
        let pad = (self.hi - self.lo) * share;
        (self.lo, self.hi) = (self.lo - pad, self.hi + pad);
        self
    }

    fn at(&self, x: f64) -> f64 {
        let x = if self.scale == Scale::Log { x.log10() } else { x };
        self.from + (x - self.lo) / (self.hi - self.lo) * (self.to - self.from)
    }

    /// Round numbers, three to eight of them.
    fn ticks(&self) -> Vec<f64> {
        let (lo, hi) = (self.lo - 1e-9 * (self.hi - self.lo), self.hi + 1e-9 * (self.hi - self.lo));
        if self.scale == Scale::Log {
            let decades = |steps: &[f64]| -> Vec<f64> {
                (lo.floor() as i32..=hi.ceil() as i32)
                    .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
                    .filter(|tick| (lo..=hi).contains(&tick.log10()))
                    .collect()
            };
            let coarse = decades(&[1.0]);
            if coarse.len() >= 4 {
                return coarse;
            }
            let fine = decades(&[1.0, 2.0, 5.0]);
            return if fine.len() >= 3 { fine } else { linear_ticks(10_f64.powf(lo), 10_f64.powf(hi)) };
        }
        linear_ticks(lo, hi)
    }
}

fn linear_ticks(lo: f64, hi: f64) -> Vec<f64> {
    let raw = (hi - lo) / 7.0;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|&step| step >= raw).unwrap_or(raw);
    let first = (lo / step).ceil() as i64;
    // Multiplying, not adding, keeps 0.1 · 3 from drifting; rounding removes what is left.
    let decimals = (-step.log10().floor()).max(0.0) as i32 + 1;
    let round = |x: f64| (x * 10_f64.powi(decimals)).round() / 10_f64.powi(decimals);
    (first..).map(|count| round(count as f64 * step)).take_while(|&tick| tick <= hi).take(12).collect()
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// A chart. Colours, widths and dashes are the page's: classes `s0` to `s7`.
pub(super) fn line_chart(curve: &Curve) -> String {
    let points = || curve.series.iter().flat_map(|series| &series.points);
    let ends = |point: &Point| {
        let [lo, hi] = point.interval.map_or([point.mean; 2], <[f64; 2]>::from);
        // An interval that comes near 0 would take a logarithmic axis down without end: it is cut at the frame.
        [if curve.y.scale == Scale::Log { lo.max(point.mean / 4.0) } else { lo }, hi]
    };
    let x = ruler(&curve.x, points().map(|point| point.x), [LEFT, WIDTH - RIGHT], 0.02);
    let levels = curve.levels.iter().map(|level| level.y);
    let y = ruler(&curve.y, points().flat_map(ends).chain(levels), [HEIGHT - BOTTOM, TOP], 0.06);

    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_chart(curve, &x, &y, &mut out);
    out
}

fn ruler(axis: &Axis, numbers: impl Iterator<Item = f64>, pixels: [f64; 2], pad: f64) -> Ruler {
    Ruler::new(axis.scale, numbers, pixels).padded(pad)
}

fn write_chart(curve: &Curve, x: &Ruler, y: &Ruler, out: &mut String) -> std::fmt::Result {
    let label = escape(&format!("{}: {} against {}", curve.title, curve.y.label, curve.x.label));
    write!(out, r#"<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#)?;
    for tick in y.ticks() {
        let at = y.at(tick);
        write!(out, r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/>"#, WIDTH - RIGHT)?;
        write!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 4.0,
            number(tick)
        )?;
    }
    let base = HEIGHT - BOTTOM;
    write!(out, r#"<line class="axis" x1="{LEFT}" x2="{:.1}" y1="{base}" y2="{base}"/>"#, WIDTH - RIGHT)?;
    for tick in x.ticks() {
        let at = x.at(tick);
        write!(out, r#"<line class="axis" x1="{at:.1}" x2="{at:.1}" y1="{base}" y2="{:.1}"/>"#, base + 4.0)?;
        write!(
            out,
            r#"<text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            base + 18.0,
            number(tick)
        )?;
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let bottom = HEIGHT - 8.0;
    write!(
        out,
        r#"<text class="label" x="{middle}" y="{bottom}" text-anchor="middle">{}</text>"#,
        escape(&curve.x.label)
    )?;
    for (position, level) in curve.levels.iter().enumerate() {
        let at = y.at(level.y);
        let title = escape(&format!("{}: {}", level.name, number(level.y)));
        write!(
            out,
            r#"<line class="level l{}" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"><title>{title}</title></line>"#,
            position % 3,
            WIDTH - RIGHT
        )?;
    }
    for (position, series) in curve.series.iter().enumerate() {
        write!(out, r#"<g class="s{}">"#, position % 8)?;
        write_band(&series.points, x, y, out)?;
        let line: Vec<String> =
            series.points.iter().map(|point| format!("{:.1},{:.1}", x.at(point.x), y.at(point.mean))).collect();
        write!(out, r#"<polyline class="line" points="{}"/>"#, line.join(" "))?;
        // Beyond some forty points the dots hide the line.
        let radius = if series.points.len() > 40 { 1.5 } else { 3.2 };
        for point in &series.points {
            let interval =
                point.interval.map_or_else(String::new, |i| format!(" [{}, {}]", number(i.lo), number(i.hi)));
            let seeds = if point.seeds == 1 { "1 seed".into() } else { format!("{} seeds", point.seeds) };
            let title = format!(
                "{}\n{}: {}\n{}{interval}, {seeds}",
                series.name,
                curve.x.label,
                number(point.x),
                number(point.mean)
            );
            write!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="{radius}"><title>{}</title></circle>"#,
                x.at(point.x),
                y.at(point.mean),
                escape(&title)
            )?;
        }
        write!(out, "</g>")?;
    }
    write!(out, "</svg>")
}

/// The area between the intervals' ends; a lone point gets a bar.
fn write_band(points: &[Point], x: &Ruler, y: &Ruler, out: &mut String) -> std::fmt::Result {
    // What lies below the frame ends at it.
    let lowest = |value: f64| if y.scale == Scale::Log && value <= 0.0 { y.from } else { y.at(value).min(y.from) };
    let ends: Vec<_> = points.iter().filter_map(|point| point.interval.map(|interval| (point.x, interval))).collect();
    if let [(only, interval)] = ends[..] {
        let at = x.at(only);
        return write!(
            out,
            r#"<line class="bar" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            lowest(interval.lo),
            y.at(interval.hi)
        );
    }
    let upper = ends.iter().map(|(at, interval)| format!("{:.1},{:.1}", x.at(*at), y.at(interval.hi)));
    let lower = ends.iter().rev().map(|(at, interval)| format!("{:.1},{:.1}", x.at(*at), lowest(interval.lo)));
    let outline: Vec<String> = upper.chain(lower).collect();
    if outline.is_empty() { Ok(()) } else { write!(out, r#"<polygon class="band" points="{}"/>"#, outline.join(" ")) }
}

/// A claim at a glance: where the inequality holds, the interval, the mean, and each seed.
pub(super) fn interval_plot(claim: &JudgedClaim) -> String {
    let (width, height, middle, seeds) = (220.0, 46.0, 13.0, 26.0);
    let relation = claim.test().relation;
    let bounds = relation.bounds();
    let ends = claim.interval().map_or(Vec::new(), |interval| vec![interval.lo, interval.hi]);
    let numbers = bounds.iter().copied().chain(ends.iter().copied()).chain(claim.samples().map(|(_, sample)| sample));
    let x = Ruler::new(Scale::Linear, numbers, [0.0, width]).padded(0.12);
    let clamp = |at: f64| at.clamp(0.0, width);
    let [from, to] = match relation {
        Relation::Above(bound) | Relation::AtLeast(bound) => [clamp(x.at(bound)), width],
        Relation::Below(bound) | Relation::AtMost(bound) => [0.0, clamp(x.at(bound))],
        Relation::Within(band) => [clamp(x.at(band.lo)), clamp(x.at(band.hi))],
    };
    let mut out = String::new();
    let mut draw = || -> std::fmt::Result {
        let label = escape(&format!("{} {}", claim.test(), super::measured(claim)));
        write!(out, r#"<svg class="interval" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">"#)?;
        write!(
            out,
            r#"<rect class="holds" x="{from:.1}" y="2" width="{:.1}" height="30"><title>the inequality holds here</title></rect>"#,
            to - from
        )?;
        for &bound in &bounds {
            let at = x.at(bound);
            let anchor = if at < 24.0 {
                "start"
            } else if at > width - 24.0 {
                "end"
            } else {
                "middle"
            };
            write!(
                out,
                r#"<line class="bound" x1="{at:.1}" x2="{at:.1}" y1="2" y2="32"/><text class="tick" x="{at:.1}" y="44" text-anchor="{anchor}">{}</text>"#,
                number(bound)
            )?;
        }
        if let [lo, hi] = ends[..] {
            write!(
                out,
                r#"<line class="span" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/>"#,
                x.at(lo),
                x.at(hi)
            )?;
        }
        for (seed, sample) in claim.samples() {
            write!(
                out,
                r#"<circle class="seed" cx="{:.1}" cy="{seeds}" r="2.6"><title>seed {seed}: {}</title></circle>"#,
                x.at(sample),
                number(sample)
            )?;
        }
        if let Some(mean) = claim.mean() {
            let at = x.at(mean);
            write!(
                out,
                r#"<line class="mean" x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{}"><title>mean {}</title></line>"#,
                middle - 8.0,
                middle + 8.0,
                number(mean)
            )?;
        }
        write!(out, "</svg>")
    };
    // Writing into a string cannot fail.
    let _ = draw();
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let linear = |lo, hi| Ruler::new(Scale::Linear, [lo, hi].into_iter(), [0.0, 1.0]).ticks();
        assert_eq!(linear(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(linear(78.3, 84.2), [79.0, 80.0, 81.0, 82.0, 83.0, 84.0]);
        assert_eq!(linear(-0.3, 0.9), [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]);
        let log = |lo, hi| Ruler::new(Scale::Log, [lo, hi].into_iter(), [0.0, 1.0]).ticks();
        let close = |found: &[f64], expected: &[f64]| {
            assert!(
                found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-9),
                "{found:?}"
            );
        };
        close(&log(0.0115, 1.0), &[0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        close(&log(1e-4, 1.0), &[1e-4, 1e-3, 1e-2, 1e-1, 1.0]);
    }

    proptest! {
        #[test]
        fn any_finite_range_has_a_few_ticks_inside(a in -1e9_f64..1e9, b in -1e9_f64..1e9) {
            let ruler = Ruler::new(Scale::Linear, [a, b].into_iter(), [0.0, 100.0]);
            let ticks = ruler.ticks();
            prop_assert!(!ticks.is_empty() && ticks.len() <= 12);
            for tick in ticks {
                prop_assert!((-0.1..=100.1).contains(&ruler.at(tick)), "{tick} at {}", ruler.at(tick));
            }
        }
    }
}
