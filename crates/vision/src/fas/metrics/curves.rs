//! ROC and DET curves, as numbers, CSV and SVG.

use super::sorted::Scores;
use std::fmt::Write;

/// Which two rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurveKind {
    /// True positive rate of live over false accept rate.
    Roc,
    /// BPCER over FAR, both on the scale of normal deviates.
    Det,
}

/// A curve over all thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    kind: CurveKind,
    /// Threshold, FAR, FRR, from the lowest threshold up.
    points: Vec<[f64; 3]>,
}

impl Curve {
    /// The curve of a set.
    pub fn new(scores: &Scores, kind: CurveKind) -> Self {
        let point = |(threshold, rejected, accepted): (f64, usize, usize)| {
            [threshold, accepted as f64 / scores.attack.len() as f64, rejected as f64 / scores.live.len() as f64]
        };
        Self { kind, points: scores.operating_points().map(point).collect() }
    }

    /// Threshold, FAR, FRR, from the lowest threshold up.
    pub fn points(&self) -> &[[f64; 3]] {
        &self.points
    }

    /// `threshold,far,frr` in lines.
    pub fn csv(&self) -> String {
        self.points.iter().fold(String::from("threshold,far,frr\n"), |mut text, [threshold, far, frr]| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{threshold},{far},{frr}");
            text
        })
    }

    /// A drawing of 420 × 420, at most 600 points of the curve.
    pub fn svg(&self) -> String {
        let place = |[_, far, frr]: [f64; 3]| match self.kind {
            CurveKind::Roc => [far, 1.0 - frr],
            CurveKind::Det => [deviate(far), deviate(frr)],
        };
        let at = |[x, y]: [f64; 2]| (60.0 + 340.0 * x, 380.0 - 340.0 * y);
        let step = self.points.len().div_ceil(600).max(1);
        let last = self.points.len().saturating_sub(1);
        let kept = self.points.iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
        let line: Vec<String> = kept
            .map(|(_, &point)| {
                let (x, y) = at(place(point));
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let (across, up, ticks): (_, _, &[f64]) = match self.kind {
            CurveKind::Roc => ("attacks accepted (FAR)", "live accepted (1 − BPCER)", &[0.0, 0.25, 0.5, 0.75, 1.0]),
            CurveKind::Det => ("attacks accepted (FAR)", "live rejected (BPCER)", &[0.01, 0.05, 0.2, 0.5, 0.8]),
        };
        let mut marks = String::new();
        for &tick in ticks {
            let share = if self.kind == CurveKind::Det { deviate(tick) } else { tick };
            let ((x, _), (_, y)) = (at([share, 0.0]), at([0.0, share]));
            let label = format!("{:.0} %", 100.0 * tick);
            let _ = write!(
                marks,
                "<text x=\"{x:.1}\" y=\"396\" text-anchor=\"middle\">{label}</text>\
                 <text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                y + 4.0
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 420 420\" font-family=\"sans-serif\" \
             font-size=\"11\" fill=\"#333\"><rect x=\"60\" y=\"40\" width=\"340\" height=\"340\" fill=\"none\" \
             stroke=\"#999\"/><polyline fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\" points=\"{}\"/>{marks}\
             <text x=\"230\" y=\"414\" text-anchor=\"middle\">{across}</text><text x=\"12\" y=\"210\" \
             text-anchor=\"middle\" transform=\"rotate(-90 12 210)\">{up}</text></svg>",
            line.join(" ")
        )
    }
}

/// The normal deviate of a rate, from 0.1 % to 99.9 %, scaled to [0, 1].
fn deviate(rate: f64) -> f64 {
    const LIMIT: f64 = 3.0902;
    ((probit(rate.clamp(0.001, 0.999)) + LIMIT) / (2.0 * LIMIT)).clamp(0.0, 1.0)
}

/// The inverse of the normal distribution within 4.5e-4 (Abramowitz and Stegun, formula 26.2.23).
fn probit(p: f64) -> f64 {
    let tail = p.min(1.0 - p);
    let t = (-2.0 * tail.ln()).sqrt();
    let upper = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let lower = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let x = t - upper / lower;
    if p < 0.5 { -x } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviates_are_those_of_printed_tables() {
        // Φ(1.959964) = 0.975, Φ(−1.281552) = 0.1; the formula is good to 4.5e-4.
        assert!((probit(0.975) - 1.959_964).abs() < 4.5e-4 && (probit(0.1) + 1.281_552).abs() < 4.5e-4);
    }
}
