//! What attackers present: prints, displays, masks. Prints and displays start from a portrait of the victim.

use super::brdf::Material;
use super::camera::to_linear;
use super::face::Face;
use super::ink::{PAPER, PRINTERS, Power, Press};
use super::periodic::{Pattern, Periodic};
use super::plane::{Raster, Rgb};
use super::random::{Stream, value_noise};
use super::surface::{Emission, MISS, Surface, blurred_present, openness};
use serde::{Deserialize, Serialize};

/// Half sizes of a portrait, mm at the victim's scale.
pub(crate) const PORTRAIT: [f32; 2] = [122.0, 134.0];
/// Half sizes of what a tight print or display shows of it.
const TIGHT: [f32; 2] = [90.0, 112.0];

/// A picture of the victim, 8-bit sRGB, over twice [`PORTRAIT`].
#[derive(Debug, Clone)]
pub(crate) struct Portrait {
    pub(crate) picture: Raster<Rgb>,
}

impl Portrait {
    /// The sRGB colour at a point in mm from the face's centre.
    fn at(&self, x: f32, y: f32) -> Rgb {
        let px = (x / PORTRAIT[0] + 1.0) * 0.5 * self.picture.width as f32 - 0.5;
        let py = (1.0 - y / PORTRAIT[1]) * 0.5 * self.picture.height as f32 - 0.5;
        self.picture.sample(px, py)
    }
}

/// How a printed sheet is held; the four shapes of published attack sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Flat.
    Normal,
    /// Bent away at the sides.
    Inside,
    /// Bent towards the camera at the sides.
    Outside,
    /// Folded along a line.
    Corner,
}

/// What a sheet or screen came out as.
pub(crate) struct Presented {
    pub(crate) surface: Surface,
    pub(crate) shape: Shape,
    /// Whether an edge of the artefact lies within the picture of the face.
    pub(crate) border: bool,
    /// Colour that a camera takes for white, if not the room's.
    pub(crate) white: Option<Rgb>,
    pub(crate) bands: Option<[f32; 2]>,
    pub(crate) is_display: bool,
}

/// Half sizes in mm shown of the portrait, and whether they are tight.
fn visible(draw: &mut Stream) -> ([f32; 2], bool) {
    let tight = draw.chance(0.35);
    (if tight { TIGHT } else { PORTRAIT }, tight)
}

/// A print of the victim, optionally with the eyes cut out for the attacker's own.
pub(crate) fn print(
    portrait: &Portrait,
    printer: u8,
    victim: &Face,
    behind: Option<&Face>,
    draw: &mut Stream,
) -> Presented {
    let which = usize::from(printer).min(PRINTERS.len() - 1);
    let press = Press::new(PRINTERS[which]);
    let scale = draw.uniform(0.88, 1.08);
    let (shown, tight) = visible(draw);
    let margin = if draw.chance(0.5) { 1.0 } else { 1.08 };
    let half = shown.map(|size| size * scale * margin);
    let shape = match draw.uniform(0.0, 1.0) {
        t if t < 0.4 => Shape::Normal,
        t if t < 0.6 => Shape::Inside,
        t if t < 0.8 => Shape::Outside,
        _ => Shape::Corner,
    };
    let (width, rows) = (160, (160.0 * half[1] / half[0]).round() as usize);
    let mut surface = blank(half, width, rows);
    let bend = Bend::draw(shape, draw);
    // Printer drivers compress contrast.
    let driver = Power::new(|value| to_linear(value).powf(0.92));
    let crumple = value_noise(draw, width, rows, 16);
    for j in 0..rows {
        for i in 0..width {
            let (at, [x, y]) = (j * width + i, surface.position(i, j));
            let inside = x.abs() <= shown[0] * scale && y.abs() <= shown[1] * scale;
            surface.height.data[at] = bend.height(x, y) + 0.25 * crumple[at];
            surface.albedo.data[at] = if inside {
                press.print_driven(portrait.at(x / scale, y / scale).map(|value| driver.at(value)))
            } else {
                PAPER
            };
        }
    }
    surface.materials = vec![Material::paper(which)];
    // A whole sheet is open everywhere.
    if let Some(attacker) = behind {
        cut_eyes(&mut surface, victim, attacker, scale);
        surface.openness = openness(&surface.height, 2.0 * half[0] / width as f32);
    }
    surface.fibre = draw.uniform(0.015, 0.05);
    surface.face = victim.axes.map(|axis| axis * scale);
    let phase = [draw.uniform(0.0, 1.0), draw.uniform(0.0, 1.0)];
    surface.periodic = Some(Periodic { pitch: PRINTERS[which].pitch, kind: Pattern::Halftone, phase });
    Presented { surface, shape, border: tight, white: None, bands: None, is_display: false }
}

/// A sheet with a shape and nothing on it.
fn blank(half: [f32; 2], width: usize, rows: usize) -> Surface {
    Surface {
        half_x: half[0],
        half_y: half[1],
        per_mm: [width as f32 / (2.0 * half[0]), rows as f32 / (2.0 * half[1])],
        height: Raster::filled(width, rows, 0.0),
        albedo: Raster::filled(width, rows, [0.0; 3]),
        index: Raster::filled(width, rows, 0),
        materials: Vec::new(),
        openness: Raster::filled(width, rows, 1.0),
        emission: None,
        periodic: None,
        fibre: 0.0,
        face: half,
    }
}

/// How a sheet leaves its plane.
struct Bend {
    shape: Shape,
    axis: [f32; 2],
    radius: f32,
    fold: f32,
}

impl Bend {
    fn draw(shape: Shape, draw: &mut Stream) -> Self {
        let (sin, cos) = draw.uniform(-30.0, 30.0).to_radians().sin_cos();
        Self {
            shape,
            axis: [cos, sin],
            radius: draw.uniform(90.0, 400.0),
            fold: draw.uniform(5.0, 25.0).to_radians().tan(),
        }
    }

    fn height(&self, x: f32, y: f32) -> f32 {
        let s = self.axis[0] * x + self.axis[1] * y;
        match self.shape {
            Shape::Normal => 0.0,
            Shape::Inside => -s * s / (2.0 * self.radius),
            Shape::Outside => s * s / (2.0 * self.radius),
            Shape::Corner => -(s * s + 25.0).sqrt() * self.fold,
        }
    }
}

/// Opens the printed eyes onto the attacker's, 6 mm behind.
fn cut_eyes(surface: &mut Surface, victim: &Face, attacker: &Face, scale: f32) {
    let first = surface.materials.len() as u8;
    surface.materials.extend_from_slice(&attacker.surface.materials);
    let width = surface.height.width;
    let shift = [
        attacker.eye[0] * attacker.axes[0] - victim.eye[0] * victim.axes[0] * scale,
        attacker.eye[1] * attacker.axes[1] - victim.eye[1] * victim.axes[1] * scale,
    ];
    let eye = [attacker.eye[0] * attacker.axes[0], attacker.eye[1] * attacker.axes[1]];
    let level = attacker.surface.height_at(eye[0], eye[1]);
    for j in 0..surface.height.height {
        for i in 0..width {
            let [x, y] = surface.position(i, j);
            if !victim.in_eye(x / scale, y / scale, [11.0, 6.5]) {
                continue;
            }
            // The attacker's eye as seen through the hole.
            let (ax, ay) = (x + shift[0] * x.signum(), y + shift[1]);
            let [tx, ty] = attacker.surface.texel(ax, ay);
            let at = j * width + i;
            let relief = attacker.surface.height_at(ax, ay) - level;
            surface.height.data[at] -= 6.0 - relief.clamp(-6.0, 5.0);
            surface.albedo.data[at] = attacker.surface.albedo.sample(tx, ty);
            surface.index.data[at] = first + attacker.surface.index.nearest(tx, ty);
        }
    }
}

/// A display: how it turns a picture into light.
struct Display {
    pitch: f32,
    gamma: f32,
    saturation: f32,
    black: f32,
    white: Rgb,
    kappa: f32,
    alpha: f32,
    bezel: f32,
}

/// Monitor, tablet, OLED phone, TN laptop.
const DISPLAYS: [Display; 4] = [
    Display {
        pitch: 0.265,
        gamma: 2.2,
        saturation: 1.0,
        black: 0.006,
        white: [0.93, 1.0, 1.08],
        kappa: 1.0,
        alpha: 0.30,
        bezel: 20.0,
    },
    Display {
        pitch: 0.096,
        gamma: 2.25,
        saturation: 1.08,
        black: 0.004,
        white: [0.97, 1.0, 1.05],
        kappa: 0.8,
        alpha: 0.04,
        bezel: 10.0,
    },
    Display {
        pitch: 0.062,
        gamma: 2.3,
        saturation: 1.22,
        black: 0.0008,
        white: [0.95, 1.0, 1.06],
        kappa: 1.5,
        alpha: 0.04,
        bezel: 4.0,
    },
    Display {
        pitch: 0.17,
        gamma: 2.15,
        saturation: 0.88,
        black: 0.009,
        white: [0.92, 1.0, 1.12],
        kappa: 2.5,
        alpha: 0.06,
        bezel: 12.0,
    },
];

/// How many displays and printers there are.
pub(crate) const DEVICES: [u8; 2] = [PRINTERS.len() as u8, DISPLAYS.len() as u8];

/// A display showing the victim.
pub(crate) fn replay(portrait: &Portrait, display: u8, victim: &Face, draw: &mut Stream) -> Presented {
    let device = &DISPLAYS[usize::from(display).min(DISPLAYS.len() - 1)];
    let scale = draw.uniform(0.88, 1.08);
    let (shown, tight) = visible(draw);
    let bezel = if draw.chance(0.5) { device.bezel } else { 0.0 };
    let screen = shown.map(|size| size * scale);
    let half = screen.map(|size| size + bezel);
    let (width, rows) = (160, (160.0 * half[1] / half[0]).round() as usize);
    let mut surface = blank(half, width, rows);
    let peak = draw.uniform(0.9, 1.6);
    let gamma = Power::new(|value| value.powf(device.gamma));
    let mut radiance = Raster::filled(width, rows, [0.0; 3]);
    for j in 0..rows {
        for i in 0..width {
            let (at, [x, y]) = (j * width + i, surface.position(i, j));
            if x.abs() <= screen[0] && y.abs() <= screen[1] {
                let linear = portrait.at(x / scale, y / scale).map(|value| gamma.at(value));
                let grey = super::render::luminance(linear);
                radiance.data[at] = std::array::from_fn(|c| {
                    let value = (grey + device.saturation * (linear[c] - grey)).clamp(0.0, 1.0);
                    peak * device.white[c] * (device.black + (1.0 - device.black) * value)
                });
                surface.albedo.data[at] = [0.012; 3];
            } else {
                surface.albedo.data[at] = [0.04; 3];
                surface.index.data[at] = 1;
            }
        }
    }
    surface.materials = vec![Material::display(device.alpha), Material::bezel()];
    surface.emission = Some(Emission { radiance, kappa: device.kappa });
    surface.face = victim.axes.map(|axis| axis * scale);
    let phase = [draw.uniform(0.0, 1.0), draw.uniform(0.0, 1.0)];
    surface.periodic = Some(Periodic { pitch: device.pitch, kind: Pattern::Stripes, phase });
    let bands = Some([draw.uniform(0.0, 0.08), draw.uniform(40.0, 200.0)]);
    Presented { surface, shape: Shape::Normal, border: tight, white: Some(device.white), bands, is_display: true }
}

/// What a rigid mask is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskMaterial {
    /// Matte resin or plaster.
    Resin,
    /// Glossy plastic.
    Plastic,
    /// Silicone.
    Silicone,
}

impl MaskMaterial {
    /// All mask materials.
    pub const ALL: [Self; 3] = [Self::Resin, Self::Plastic, Self::Silicone];
}

/// A mask of the victim on a wearer.
///
/// Geometry and paint are drawn before and apart from the material, so that another material changes nothing else.
pub(crate) fn mask(victim: &Face, wearer: &Face, material: MaskMaterial, draw: &mut Stream) -> Surface {
    let softening = draw.uniform(1.5, 4.0);
    let thickness = draw.uniform(1.5, 6.0);
    let reach = draw.uniform(0.80, 0.97);
    let holes = draw.chance(0.6);
    let faithful = draw.uniform(0.5, 1.0);
    let cast: Rgb = std::array::from_fn(|_| draw.n(0.12).exp());
    let gloss = draw.uniform(0.0, 1.0);

    let mut surface = wearer.surface.clone();
    let mm = 2.0 * surface.half_x / surface.height.width as f32;
    let moulded = blurred_present(&victim.surface.height, softening / mm);
    let smooth = victim.surface.albedo.clone().blurred(1.0);
    let present = || smooth.data.iter().zip(&moulded.data).filter(|(_, h)| **h > MISS).map(|(colour, _)| colour);
    let count = present().count().max(1) as f32;
    let mean: Rgb = std::array::from_fn(|c| present().map(|colour| colour[c]).sum::<f32>() / count);
    let first = surface.materials.len() as u8;
    surface.materials.push(match material {
        MaskMaterial::Resin => Material::resin(0.45 + 0.30 * gloss),
        MaskMaterial::Plastic => Material::plastic(0.14 + 0.16 * gloss),
        MaskMaterial::Silicone => Material::silicone(0.30 + 0.15 * gloss),
    });
    let width = surface.height.width;
    for j in 0..surface.height.height {
        for i in 0..width {
            let (at, [x, y]) = (j * width + i, surface.position(i, j));
            let (u, v) = (x / victim.axes[0], y / victim.axes[1]);
            if u.abs().powf(2.2) + v.abs().powf(2.35) >= reach || moulded.data[at] <= MISS {
                continue;
            }
            if holes && wearer.in_eye(x, y, [11.0, 6.5]) {
                continue;
            }
            surface.height.data[at] = moulded.data[at] + thickness;
            let colour = smooth.data[at];
            surface.albedo.data[at] =
                std::array::from_fn(|c| (cast[c] * (mean[c] + faithful * (colour[c] - mean[c]))).clamp(0.005, 0.9));
            surface.index.data[at] = first;
        }
    }
    surface.openness = openness(&surface.height, mm);
    surface
}
