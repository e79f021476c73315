//! Faces: a superellipsoid with Gaussian features, and skin coloured by melanin and haemoglobin.

use super::brdf::Material;
use super::plane::{Raster, Rgb};
use super::random::{Stream, smooth_step, value_noise};
use super::surface::{MISS, Surface, openness};

/// Texels of a face, over 180 × 240 mm.
const WIDTH: usize = 160;
const HEIGHT: usize = 213;
const HALF_X: f32 = 90.0;
const HALF_Y: f32 = 120.0;

/// Indices into a face's materials.
const SKIN: u8 = 0;
const EYE: u8 = 1;
const HAIR: u8 = 2;

/// A person's face and what attacks on it need to know.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) surface: Surface,
    /// Semi-axes, mm.
    pub(crate) axes: [f32; 2],
    /// Centre of the right eye, as a share of the semi-axes; the left one is its mirror image.
    pub(crate) eye: [f32; 2],
    /// Height of the mouth, as a share of the vertical semi-axis.
    pub(crate) mouth: f32,
    /// Half length of the mouth relative to the average.
    pub(crate) mouth_length: f32,
    /// Melanin, from 0 (none) to 1.3.
    pub(crate) melanin: f32,
}

/// A Gaussian bump in face coordinates, which is a product of a row and a column.
struct Bump {
    columns: Vec<f32>,
    rows: Vec<f32>,
}

/// Face coordinates of the texel columns and rows.
struct Frame {
    u: Vec<f32>,
    v: Vec<f32>,
}

impl Frame {
    fn new([a, b]: [f32; 2]) -> Self {
        let u = (0..WIDTH).map(|i| ((i as f32 + 0.5) / WIDTH as f32 * 2.0 - 1.0) * HALF_X / a).collect();
        let v = (0..HEIGHT).map(|j| (1.0 - (j as f32 + 0.5) / HEIGHT as f32 * 2.0) * HALF_Y / b).collect();
        Self { u, v }
    }

    fn bump(&self, [u0, v0]: [f32; 2], [su, sv]: [f32; 2], gain: f32) -> Bump {
        let at = |x: f32, centre: f32, width: f32| (-0.5 * ((x - centre) / width).powi(2)).exp();
        Bump {
            columns: self.u.iter().map(|&u| gain * at(u, u0, su)).collect(),
            rows: self.v.iter().map(|&v| at(v, v0, sv)).collect(),
        }
    }

    /// The same bump on both sides, each with a gain of its own.
    fn pair(&self, [u0, v0]: [f32; 2], widths: [f32; 2], gain: f32, asymmetry: [f32; 2]) -> Bump {
        let mut right = self.bump([u0, v0], widths, gain * (1.0 + asymmetry[0]));
        let left = self.bump([-u0, v0], widths, gain * (1.0 + asymmetry[1]));
        right.columns.iter_mut().zip(left.columns).for_each(|(right, left)| *right += left);
        right
    }
}

fn add_all(field: &mut [f32], bumps: &[Bump]) {
    for bump in bumps {
        for (row, &down) in field.chunks_exact_mut(WIDTH).zip(&bump.rows) {
            if down.abs() > 1e-5 {
                row.iter_mut().zip(&bump.columns).for_each(|(value, &across)| *value += down * across);
            }
        }
    }
}

impl Face {
    /// The face of identity `identity` under a master seed.
    pub(crate) fn new(master: u64, identity: u64) -> Self {
        let mut draw = Stream::new(master, "identity", identity, 0);
        let axes = [70.0 + draw.n(3.5), 98.0 + draw.n(5.0)];
        let depth = 72.0 + draw.n(5.0);
        let powers = [2.2 + draw.n(0.12), 2.35 + draw.n(0.12)];
        let frame = Frame::new(axes);
        let eye = [0.45 + draw.n(0.025), 0.14 + draw.n(0.02)];
        let mouth = -0.475 + draw.n(0.02);
        let mouth_length = 1.0 + draw.n(0.15);
        let nose_tip = -0.20 + draw.n(0.03);

        let mut height = shell(&frame, depth, powers);
        let mut features = Vec::new();
        {
            let mut pair = |gain: f32, centre: [f32; 2], widths: [f32; 2], draw: &mut Stream| {
                let asymmetry = [draw.n(0.06), draw.n(0.06)];
                features.push(frame.pair(centre, widths, gain, asymmetry));
            };
            let brow = (4.0 + draw.n(1.2), [0.38 + draw.n(0.03), 0.28 + draw.n(0.02)]);
            pair(brow.0, brow.1, [0.25, 0.07], &mut draw);
            let socket = -7.0 + draw.n(1.5);
            pair(socket, eye, [0.17, 0.10], &mut draw);
            pair(5.0, eye, [0.10, 0.06], &mut draw);
            let cheek = (5.0 + draw.n(1.5), [0.52 + draw.n(0.03), -0.10 + draw.n(0.04)]);
            pair(cheek.0, cheek.1, [0.22, 0.20], &mut draw);
            let hollow = (-3.0 + draw.n(1.2), [0.56 + draw.n(0.03), -0.42 + draw.n(0.03)]);
            pair(hollow.0, hollow.1, [0.16, 0.14], &mut draw);
            let nostril = (6.0 + draw.n(1.2), [0.13 * (1.0 + draw.n(0.12)), nose_tip + 0.02]);
            pair(nostril.0, nostril.1, [0.065, 0.05], &mut draw);
        }
        features.push(frame.bump([0.0, mouth + 0.05], [0.20 * mouth_length, 0.04], 6.0 + draw.n(1.2)));
        features.push(frame.bump([0.0, mouth - 0.055], [0.17 * mouth_length, 0.05], 7.0 + draw.n(1.3)));
        features.push(frame.bump([0.0, mouth], [0.22 * mouth_length, 0.014], -3.5));
        features.push(frame.bump([0.0, -0.80 + draw.n(0.02)], [0.18, 0.11], 8.0 + draw.n(2.0)));
        features.push(frame.bump([0.0, 0.6], [0.4, 0.25], 3.0 + draw.n(1.2)));
        let inside: Vec<bool> = height.iter().map(|&h| h > MISS).collect();
        add_all(&mut height, &features);
        add_nose(&mut height, &frame, nose_tip, 23.0 + draw.n(3.0), 1.0 + draw.n(0.12));
        for cells in [8, 16, 32] {
            let noise = value_noise(&mut draw, WIDTH, HEIGHT, cells);
            height.iter_mut().zip(noise).for_each(|(h, noise)| *h += 0.6 * noise * 8.0 / cells as f32);
        }
        height.iter_mut().zip(&inside).filter(|(_, inside)| !**inside).for_each(|(h, _)| *h = MISS);

        let melanin = ([0.1, 0.35, 0.65, 1.05][draw.index(4)] + draw.n(0.12)).clamp(0.0, 1.3);
        let paint = Paint { frame: &frame, axes, eye, mouth, mouth_length, nose_tip, melanin };
        let (albedo, index) = paint.skin(&mut draw);
        let height = Raster { width: WIDTH, height: HEIGHT, data: height };
        let (alpha, specular) = (0.30 + draw.n(0.04), 0.7 + draw.n(0.15));
        let surface = Surface {
            half_x: HALF_X,
            half_y: HALF_Y,
            per_mm: [WIDTH as f32 / (2.0 * HALF_X), HEIGHT as f32 / (2.0 * HALF_Y)],
            openness: openness(&height, 2.0 * HALF_X / WIDTH as f32),
            height,
            albedo,
            index,
            materials: vec![Material::skin(alpha, specular), Material::eyeball(), Material::hair(alpha, specular)],
            emission: None,
            periodic: None,
            fibre: 0.0,
            face: axes,
        };
        Self { surface, axes, eye, mouth, mouth_length, melanin }
    }

    /// The same person with the mouth opened by `depth` mm (0 to 3).
    pub(crate) fn with_open_mouth(&self, depth: f32) -> Surface {
        let mut surface = self.surface.clone();
        if depth <= 0.0 {
            return surface;
        }
        let frame = Frame::new(self.axes);
        let slit = frame.bump([0.0, self.mouth], [0.17 * self.mouth_length, 0.014 + 0.006 * depth], 1.0);
        for j in 0..HEIGHT {
            if slit.rows[j] < 1e-3 {
                continue;
            }
            for i in 0..WIDTH {
                let (at, share) = (j * WIDTH + i, slit.rows[j] * slit.columns[i]);
                if surface.height.data[at] > MISS {
                    surface.height.data[at] -= depth * share;
                    // The dark of the mouth's inside.
                    surface.albedo.data[at] = surface.albedo.data[at].map(|c| c * (1.0 - 0.25 * depth * share));
                }
            }
        }
        surface
    }

    /// Whether a point (mm) lies in an ellipse of the given semi-axes (mm) around either eye.
    pub(crate) fn in_eye(&self, x: f32, y: f32, [rx, ry]: [f32; 2]) -> bool {
        let dx = (x.abs() - self.eye[0] * self.axes[0]) / rx;
        let dy = (y - self.eye[1] * self.axes[1]) / ry;
        dx * dx + dy * dy < 1.0
    }
}

/// The superellipsoid; [`MISS`] outside.
fn shell(frame: &Frame, depth: f32, [p, q]: [f32; 2]) -> Vec<f32> {
    let across: Vec<f32> = frame.u.iter().map(|u| u.abs().powf(p)).collect();
    let mut height = Vec::with_capacity(WIDTH * HEIGHT);
    for v in &frame.v {
        let down = v.abs().powf(q);
        height.extend(across.iter().map(|across| {
            let rest = 1.0 - across - down;
            if rest > 0.0 { depth * rest.sqrt() } else { MISS }
        }));
    }
    height
}

fn add_nose(height: &mut [f32], frame: &Frame, tip: f32, gain: f32, breadth: f32) {
    for (row, &v) in height.chunks_exact_mut(WIDTH).zip(&frame.v) {
        let along = smooth_step(0.24, tip + 0.02, v) * (1.0 - smooth_step(tip - 0.015, tip - 0.085, v));
        if along > 0.0 {
            let width = (0.065 + 0.085 * smooth_step(0.05, tip, v)) * breadth;
            for (h, &u) in row.iter_mut().zip(&frame.u) {
                *h += gain * along * (-0.5 * (u / width) * (u / width)).exp();
            }
        }
    }
}

/// What decides a face's colours.
struct Paint<'a> {
    frame: &'a Frame,
    axes: [f32; 2],
    eye: [f32; 2],
    mouth: f32,
    mouth_length: f32,
    nose_tip: f32,
    melanin: f32,
}

/// `exp(−A)`, `A = base + M·melanin + Hb·haemoglobin` by channel.
pub(crate) fn skin_albedo(melanin: f32, haemoglobin: f32) -> Rgb {
    let exponent = |base: f32, m: f32, hb: f32| (-(base + m * melanin + hb * haemoglobin)).exp();
    [exponent(0.30, 0.95, 0.04), exponent(0.60, 1.30, 0.42), exponent(0.78, 1.55, 0.30)]
}

impl Paint<'_> {
    fn skin(&self, draw: &mut Stream) -> (Raster<Rgb>, Raster<u8>) {
        let mut melanin = vec![self.melanin; WIDTH * HEIGHT];
        for (cells, amplitude) in [(8, 0.06), (16, 0.04), (32, 0.03), (64, 0.05), (128, 0.05)] {
            let noise = value_noise(draw, WIDTH, HEIGHT, cells);
            melanin.iter_mut().zip(noise).for_each(|(m, noise)| *m += amplitude * noise);
        }
        let beard = if draw.chance(0.5) { draw.uniform(0.0, 1.0).powi(2) * 0.5 } else { 0.0 };
        let mut blood = vec![0.25 + draw.n(0.1); WIDTH * HEIGHT];
        let lips = self.lips();
        let cheeks = self.frame.pair([0.52, -0.10], [0.22, 0.20], 0.25, [0.0; 2]);
        add_all(&mut blood, &[cheeks, self.frame.bump([0.0, self.nose_tip], [0.10, 0.08], 0.2)]);
        add_all(&mut blood, &lips);

        let hair_tone = draw.uniform(0.0, 1.0).powi(2);
        let hair_colour = [0.02 + hair_tone * 0.25, 0.015 + hair_tone * 0.17, 0.012 + hair_tone * 0.08];
        let hairline = 0.62 + draw.n(0.06);
        let strands = value_noise(draw, WIDTH, HEIGHT, 96);
        let fine = value_noise(draw, WIDTH, HEIGHT, 140);
        let iris = [[0.05, 0.03, 0.02], [0.10, 0.06, 0.03], [0.08, 0.12, 0.20], [0.09, 0.12, 0.06]][draw.index(4)];
        let brow_lift = draw.n(0.012);

        let mut albedo = Vec::with_capacity(WIDTH * HEIGHT);
        let mut index = Vec::with_capacity(WIDTH * HEIGHT);
        for (j, &v) in self.frame.v.iter().enumerate() {
            let stubble = beard * smooth_step(-0.25, -0.5, v);
            for (i, &u) in self.frame.u.iter().enumerate() {
                let at = j * WIDTH + i;
                let strand = strands[at] + fine[at];
                let (colour, class) = if let Some(colour) = self.eyeball(u, v, iris) {
                    (colour, EYE)
                } else if self.is_hair([u, v], hairline, strand, brow_lift) {
                    (hair_colour.map(|c| c * (0.35 * strand).exp()), HAIR)
                } else {
                    (skin_albedo((melanin[at] + stubble * (1.0 + 0.4 * fine[at])).max(0.0), blood[at]), SKIN)
                };
                albedo.push(colour);
                index.push(class);
            }
        }
        let raster = |data| Raster { width: WIDTH, height: HEIGHT, data };
        (raster(albedo), Raster { width: WIDTH, height: HEIGHT, data: index })
    }

    fn lips(&self) -> [Bump; 2] {
        let length = self.mouth_length;
        [
            self.frame.bump([0.0, self.mouth + 0.045], [0.17 * length, 0.028], 0.9),
            self.frame.bump([0.0, self.mouth - 0.05], [0.15 * length, 0.036], 0.9),
        ]
    }

    fn eyeball(&self, u: f32, v: f32, iris: Rgb) -> Option<Rgb> {
        let (du, dv) = (u.abs() - self.eye[0], v - self.eye[1]);
        if (du / 0.105).powi(2) + (dv / 0.040).powi(2) >= 1.0 {
            return None;
        }
        let radius = (du * self.axes[0]).hypot(dv * self.axes[1]);
        Some(match radius {
            r if r < 2.5 => [0.015; 3],
            r if r < 6.0 => iris,
            _ => [0.62, 0.58, 0.55],
        })
    }

    fn is_hair(&self, [u, v]: [f32; 2], hairline: f32, strand: f32, lift: f32) -> bool {
        let scalp = v > hairline - 0.25 * u * u + 0.03 * strand;
        // An arch over each eye, thinner outwards.
        let across = (u.abs() - self.eye[0] + 0.02) / 0.21;
        let arch = self.eye[1] + 0.135 + lift - 0.03 * across * across;
        let brow = across.abs() < 1.0 && (v - arch).abs() < 0.028 * (1.15 - 0.55 * across) * (1.0 + 0.25 * strand);
        let lash = {
            let (du, dv) = ((u.abs() - self.eye[0]) / 0.115, (v - self.eye[1]) / 0.052);
            dv > 0.25 && du * du + dv * dv < 1.0
        };
        scalp || brow || lash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skin_colours_follow_from_melanin_and_blood() {
        // exp of the table's exponents by hand.
        let close = |found: Rgb, expected: Rgb| found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 6e-4);
        assert!(close(skin_albedo(0.35, 0.25), [0.526, 0.313, 0.247]));
        assert!(close(skin_albedo(1.05, 0.25), [0.270, 0.126, 0.084]));
    }

    #[test]
    fn faces_have_human_measures() {
        let faces: Vec<Face> = (0..40).map(|identity| Face::new(11, identity)).collect();
        let mean = |f: &dyn Fn(&Face) -> f32| faces.iter().map(f).sum::<f32>() / 40.0;
        let [x, y] = [mean(&|face| 2.0 * face.axes[0]), mean(&|face| 2.0 * face.axes[1])];
        // 2a = 140, 2b = 196; four standard errors of a, b with s.d. 3.5 and 5 over 40 faces are 4.4 and 6.3 mm.
        assert!((x - 140.0).abs() < 4.5 && (y - 196.0).abs() < 6.4, "{x} × {y} mm");
        let eyes = mean(&|face| 2.0 * face.eye[0] * face.axes[0]);
        assert!((eyes - 63.0).abs() < 3.5, "{eyes} mm between the eyes");
        let nose = mean(&|face| {
            let bridge = (-35..=-5).map(|v| face.surface.height_at(0.0, v as f32 * 0.01 * face.axes[1]));
            bridge.fold(MISS, f32::max) - face.surface.height_at(0.52 * face.axes[0], -0.10 * face.axes[1])
        });
        // A nose tip stands 20 to 32 mm above the cheek.
        assert!((20.0..32.0).contains(&nose), "{nose} mm");
    }

    #[test]
    fn identities_differ_and_come_back() {
        let heights = |identity| Face::new(3, identity).surface.height;
        assert_eq!(heights(5), heights(5));
        let (one, other) = (heights(5), heights(6));
        let both = one.data.iter().zip(&other.data).filter(|(a, b)| **a > MISS && **b > MISS);
        let squares: Vec<f32> = both.map(|(a, b)| (a - b).powi(2)).collect();
        let rms = (squares.iter().sum::<f32>() / squares.len() as f32).sqrt();
        assert!(rms > 1.0, "two people differ by {rms} mm only");
    }
}
