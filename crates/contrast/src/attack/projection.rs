//! Exact projections onto the intersection of a ball or a hyperplane with the box, one example at a time.
//!
//! Everything here is in closed form: breakpoints are sorted, or Newton's method runs on a function that is concave and
//! piecewise linear and so ends after finitely many steps. Nothing iterates to a tolerance.

use super::{Error, Norm, Result};

/// The Euclidean projection of `image + delta` onto `{ |d|₁ ≤ radius, low ≤ image + d ≤ high }`, as a change of `image`.
///
/// `d_i = sign(δ_i) · min(max(|δ_i| − λ, 0), u_i)` with `u_i` the room to the bound that `δ_i` points at and the least
/// `λ ≥ 0` that keeps the budget.
///
/// # Errors
/// [`Error::Images`] unless both are of one length.
pub fn l1_ball_and_box(delta: &mut [f64], image: &[f64], radius: f64, low: f64, high: f64) -> Result<()> {
    check_lengths(image, &[("delta", delta.len())])?;
    onto_l1_ball_and_box(delta, image, radius, low, high);
    Ok(())
}

/// [`l1_ball_and_box`] of slices of one length.
pub(crate) fn onto_l1_ball_and_box(delta: &mut [f64], image: &[f64], radius: f64, low: f64, high: f64) {
    let room = |delta: f64, pixel: f64| (if delta >= 0.0 { high - pixel } else { pixel - low }).max(0.0);
    let clipped: f64 = delta.iter().zip(image).map(|(&d, &x)| d.abs().min(room(d, x))).sum();
    let mut threshold = 0.0;
    if clipped > radius {
        // The sum as a function of λ falls with slope −(how many entries lie strictly between 0 and their bound). An
        // entry starts to fall at |δ| − u and is gone at |δ|.
        let mut breaks: Vec<(f64, f64)> = Vec::with_capacity(2 * delta.len());
        let (mut sum, mut slope) = (clipped, 0.0);
        for (&d, &x) in delta.iter().zip(image) {
            let (size, room) = (d.abs(), room(d, x));
            if size > 0.0 && room > 0.0 {
                let start = size - room;
                if start <= 0.0 {
                    slope += 1.0;
                } else {
                    breaks.push((start, 1.0));
                }
                breaks.push((size, -1.0));
            }
        }
        breaks.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        for (at, change) in breaks {
            let next = sum - slope * (at - threshold);
            if next <= radius {
                break;
            }
            (sum, threshold) = (next, at);
            slope += change;
        }
        if slope > 0.0 {
            threshold += (sum - radius) / slope;
        }
    }
    for (d, &x) in delta.iter_mut().zip(image) {
        *d = d.signum() * (d.abs() - threshold).max(0.0).min(room(*d, x));
    }
}

/// The smallest change `d` of `image`, measured in `norm`, with `normal · (image + d) = offset` and `image + d` in the box.
///
/// Where the hyperplane misses the box, the corner of the box nearest to it. Written to `change`.
///
/// # Errors
/// [`Error::Images`] unless all three are of one length.
pub fn hyperplane_and_box(
    norm: Norm,
    image: &[f64],
    normal: &[f64],
    offset: f64,
    limits: (f64, f64),
    change: &mut [f64],
) -> Result<()> {
    check_lengths(image, &[("normal", normal.len()), ("change", change.len())])?;
    onto_hyperplane_and_box(norm, image, normal, offset, limits, change);
    Ok(())
}

fn check_lengths(image: &[f64], others: &[(&str, usize)]) -> Result<()> {
    let Some((name, length)) = others.iter().find(|(_, length)| *length != image.len()) else { return Ok(()) };
    let expected = format!("as many values as the {name}, {length}");
    Err(Error::Images { expected, found: image.len().to_string() })
}

/// [`hyperplane_and_box`] of slices of one length.
pub(crate) fn onto_hyperplane_and_box(
    norm: Norm,
    image: &[f64],
    normal: &[f64],
    offset: f64,
    (low, high): (f64, f64),
    change: &mut [f64],
) {
    let excess: f64 = image.iter().zip(normal).map(|(x, w)| x * w).sum::<f64>() - offset;
    // Every pixel moves against the sign of its weight when the excess is positive, with it when negative.
    let side = -excess.signum();
    let room = |x: f64, w: f64| (if side * w >= 0.0 { high - x } else { x - low }).max(0.0);
    let needed = excess.abs();
    match norm {
        Norm::L1 => {
            let mut order: Vec<usize> = (0..image.len()).filter(|&i| normal[i] != 0.0).collect();
            order.sort_unstable_by(|&a, &b| normal[b].abs().total_cmp(&normal[a].abs()));
            change.fill(0.0);
            let mut left = needed;
            for i in order {
                let step = (left / normal[i].abs()).min(room(image[i], normal[i]));
                change[i] = side * normal[i].signum() * step;
                left -= step * normal[i].abs();
                if left <= 0.0 {
                    break;
                }
            }
        }
        // `size(w)` is how far a pixel goes per unit of the multiplier; the gain Σ |w| min(m · size, room) is concave.
        Norm::Linf | Norm::L2 => {
            let size = |w: f64| if norm == Norm::Linf { 1.0 } else { w.abs() };
            let pixels = Pixels::new(image, normal, &size, &room);
            let multiplier = pixels.newton(needed);
            for ((d, &x), &w) in change.iter_mut().zip(image).zip(normal) {
                let moved = side * w.signum() * (multiplier * size(w)).min(room(x, w));
                *d = if w == 0.0 { 0.0 } else { moved };
            }
        }
    }
}

/// Additions that go on side by side. One after the other each would wait for the one before.
const LANES: usize = 8;

/// Of every pixel `|w| · size(w)`, `|w| · room` and the multiplier at which the room is used up; pixels of no weight are added
/// to a whole number of lanes.
struct Pixels(Vec<[[f64; LANES]; 3]>);

impl Pixels {
    fn new(image: &[f64], normal: &[f64], size: &impl Fn(f64) -> f64, room: &impl Fn(f64, f64) -> f64) -> Self {
        let groups = image.chunks(LANES).zip(normal.chunks(LANES)).map(|(image, normal)| {
            let mut group = [[0.0; LANES]; 3];
            let [slopes, gains, ends] = &mut group;
            for (lane, (&x, &w)) in image.iter().zip(normal).enumerate() {
                let (size, room) = (size(w), room(x, w));
                slopes[lane] = w.abs() * size;
                gains[lane] = w.abs() * room;
                ends[lane] = if size > 0.0 { room / size } else { 0.0 };
            }
            group
        });
        Self(groups.collect())
    }

    /// The least `m` with `Σ |w| min(m · size(w), room(x, w)) ≥ needed`, or the largest that still changes anything.
    // Side by side is how the lanes are meant.
    #[allow(clippy::needless_range_loop)]
    fn newton(&self, needed: f64) -> f64 {
        let mut multiplier = 0.0;
        loop {
            let (mut full, mut slope) = ([0.0; LANES], [0.0; LANES]);
            for [slopes, gains, ends] in &self.0 {
                for lane in 0..LANES {
                    let done = multiplier >= ends[lane];
                    full[lane] += if done { gains[lane] } else { 0.0 };
                    slope[lane] += if done { 0.0 } else { slopes[lane] };
                }
            }
            let (full, slope) = (full.iter().sum::<f64>(), slope.iter().sum::<f64>());
            if slope <= 0.0 {
                return multiplier;
            }
            let next = (needed - full) / slope;
            // In this order NaN ends the search too.
            if next > multiplier {
                multiplier = next;
            } else {
                return multiplier;
            }
        }
    }
}
