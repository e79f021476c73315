//! Generated faces and attacks with their true depth, reflection and material.
//!
//! A picture is rendered, not drawn: everything presented is a height field with a colour, a material and possibly
//! light of its own. Lamps and surroundings light it, a camera with optics, sensor and processing takes the picture,
//! and the crop around the face is what a detector sees. Prints and displays start from a portrait taken by another
//! camera, so that they carry two captures, as in reality.
//!
//! ```
//! use vision::fas::synth::{Attack, Domain, Generator, GeneratorConfig, SceneSpec};
//! let generator = Generator::new(7, GeneratorConfig { raster: 48, crop: 32, map: 8 })?;
//! let picture = generator.render(&SceneSpec::new(0, Domain::OfficeHd, Attack::Replay(0), 0))?;
//! assert_eq!(picture.image.len(), 32 * 32 * 3);
//! assert_eq!(picture.material.len(), 7 * 8 * 8);
//! # Ok::<(), vision::fas::Error>(())
//! ```
//!
//! **A detector trained on these pictures has no validity on real faces.** Faces are smooth height fields without ears,
//! neck, teeth or hair volume; light bounces once; material constants are plausible, not measured; and how far domains
//! lie apart was designed, not observed. What is learned here shows a mechanism, never that a product is secure.

mod attacks;
mod brdf;
mod camera;
mod dataset;
mod domain;
mod face;
mod ink;
mod jpeg;
mod light;
mod periodic;
mod plane;
mod random;
mod render;
mod spec;
mod surface;
mod targets;

pub use attacks::{MaskMaterial, Shape};
pub use brdf::MaterialClass;
pub use dataset::Population;
pub use domain::Domain;
pub(crate) use random::hash;
pub use spec::{Attack, Attributes, SceneSpec, Species};
pub use targets::FaceBox;

use super::error::{Error, Result};
use attacks::{Portrait, Presented};
use camera::{Exposure, shoot};
use domain::{CameraModel, Lighting};
use face::Face;
use light::Light;
use plane::{Raster, Rgb};
use random::Stream;
use rayon::prelude::*;
use render::{View, render, rotation};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// Sizes of what is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Pixels across of the scene; the camera's picture has twice as many. Default 96.
    pub raster: usize,
    /// Pixels across of the crop around the face. Default 64.
    pub crop: usize,
    /// Pixels across of the maps. Default 16.
    pub map: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { raster: 96, crop: 64, map: 16 }
    }
}

impl GeneratorConfig {
    /// The quick tier: crops of 32, maps of 8.
    pub fn quick() -> Self {
        Self { raster: 96, crop: 32, map: 8 }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::BadParam`], naming the first that does not fit.
    pub fn validate(&self) -> Result<()> {
        let check = |name, expected, value: usize, fits: bool| {
            if fits { Ok(()) } else { Err(Error::BadParam { name, expected, value: value as f64 }) }
        };
        check("raster", "16 to 1024", self.raster, (16..=1024).contains(&self.raster))?;
        check("crop", "8 to 1024", self.crop, (8..=1024).contains(&self.crop))?;
        check("map", "1 to the crop's size", self.map, (1..=self.crop).contains(&self.map))
    }
}

/// A picture and everything true about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The crop around the face: `crop × crop` pixels of 8-bit sRGB, in rows.
    pub image: Vec<u8>,
    /// The whole picture, `2 raster` pixels across, in the same form.
    pub frame: Vec<u8>,
    /// The face in the frame, in pixels.
    pub face_box: FaceBox,
    /// `map × map` heights in [0, 1]: 1 nearest to the camera, 0 at 110 mm behind that and on the background.
    pub depth: Vec<f32>,
    /// `map × map` shares of mirrored light, `S / (S + 0.2)` of the exposed picture.
    pub reflection: Vec<f32>,
    /// `7 × map × map` shares of the classes of [`MaterialClass`].
    pub material: Vec<f32>,
    /// Pose, devices and the like.
    pub attributes: Attributes,
}

/// Makes pictures from descriptions, the same ones on any number of threads.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    config: GeneratorConfig,
}

/// A person with what attackers need of them: made once for all pictures of an identity.
struct Person {
    face: Face,
    wearer: OnceLock<Face>,
    portraits: [OnceLock<Portrait>; 2],
}

impl Generator {
    /// A generator with a master seed.
    ///
    /// # Errors
    /// [`Error::BadParam`] for sizes that do not fit.
    pub fn new(seed: u64, config: GeneratorConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { seed, config })
    }

    /// The sizes in use.
    pub fn config(&self) -> GeneratorConfig {
        self.config
    }

    /// One picture.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a device or session that does not exist.
    pub fn render(&self, spec: &SceneSpec) -> Result<Rendered> {
        spec.validate()?;
        Ok(self.picture(&self.person(spec.identity), spec))
    }

    /// Many pictures in the order of their descriptions, on all of rayon's threads.
    ///
    /// # Errors
    /// As [`render`](Self::render), before anything is rendered.
    pub fn render_all(&self, specs: &[SceneSpec]) -> Result<Vec<Rendered>> {
        specs.iter().try_for_each(SceneSpec::validate)?;
        let mut by_identity: std::collections::BTreeMap<u32, Vec<usize>> = std::collections::BTreeMap::new();
        for (at, spec) in specs.iter().enumerate() {
            by_identity.entry(spec.identity).or_default().push(at);
        }
        let groups: Vec<(u32, Vec<usize>)> = by_identity.into_iter().collect();
        let mut done: Vec<(usize, Rendered)> = groups
            .into_par_iter()
            .flat_map(|(identity, places)| {
                let person = self.person(identity);
                places.into_par_iter().map(|at| (at, self.picture(&person, &specs[at]))).collect::<Vec<_>>()
            })
            .collect();
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, rendered)| rendered).collect())
    }

    fn person(&self, identity: u32) -> Person {
        Person {
            face: Face::new(self.seed, u64::from(identity)),
            wearer: OnceLock::new(),
            portraits: [OnceLock::new(), OnceLock::new()],
        }
    }

    fn stream(&self, purpose: &str, spec: &SceneSpec, frame: bool) -> Stream {
        let take = (u64::from(spec.video) << 8) | if frame { u64::from(spec.frame) + 1 } else { 0 };
        Stream::new(self.seed, purpose, u64::from(spec.identity), take)
    }

    fn picture(&self, person: &Person, spec: &SceneSpec) -> Rendered {
        let mut device = self.stream("device", spec, false);
        let presented = self.present(person, spec, &mut device);
        let flat = matches!(spec.attack.species(), Species::Print | Species::Replay);
        let mut pose = self.stream("pose", spec, false);
        let (turn, nod, lean) = if flat { (20.0, 20.0, 8.0) } else { (18.0, 12.0, 6.0) };
        let mut angles = [pose.uniform(-turn, turn), pose.uniform(-nod, nod), pose.uniform(-lean, lean)];
        let offset = [pose.uniform(-8.0, 8.0), pose.uniform(-8.0, 8.0)];
        let (distance, zoom) = (pose.uniform(350.0, 650.0), pose.uniform(0.94, 1.06));
        let mut sway = self.stream("frame", spec, true);
        if spec.frame > 0 {
            angles.iter_mut().for_each(|angle| *angle += sway.uniform(-2.0, 2.0));
        }
        let view = View {
            rotation: rotation(angles[0], angles[1], angles[2]),
            offset,
            distance,
            field: 300.0 * zoom,
            size: self.config.raster,
        };
        let dimmed = if presented.is_display { 0.5 } else { 1.0 };
        let lighting = spec.domain.lighting().in_session(spec.session);
        let mut light = Stream::new(
            self.seed,
            "light",
            u64::from(spec.identity),
            (u64::from(spec.video) << 32) | u64::from(spec.relight),
        );
        let light = Light::draw(&lighting, &mut light, dimmed);
        let model = spec.domain.camera();
        let taken = self.take(&presented, &view, &light, &model, spec);
        let melanin = person.face.melanin;
        let attributes = Attributes {
            spec: *spec,
            yaw: angles[0],
            pitch: angles[1],
            roll: angles[2],
            shape: presented.shape,
            melanin: [0.225, 0.5, 0.85].iter().filter(|&&limit| melanin > limit).count() as u8,
            border: presented.border,
            gain: taken.gain,
        };
        let crop = targets::crop_picture(&taken.picture, taken.face, self.config.crop);
        let half = FaceBox { x: taken.face.x / 2.0, y: taken.face.y / 2.0, side: taken.face.side / 2.0 };
        let maps = targets::maps(&taken.scene, half, taken.gain, self.config.map);
        Rendered {
            image: crop,
            frame: taken.picture.data.iter().flatten().map(|value| (value * 255.0 + 0.5) as u8).collect(),
            face_box: taken.face,
            depth: maps.depth,
            reflection: maps.reflection,
            material: maps.material,
            attributes,
        }
    }

    /// What stands before the camera.
    fn present(&self, person: &Person, spec: &SceneSpec, draw: &mut Stream) -> Presented {
        let portrait = || {
            let which = (spec.video % 2) as usize;
            person.portraits[which].get_or_init(|| self.portrait(&person.face, spec.identity, which as u64))
        };
        // Who holds or wears the attack is nobody of the data set.
        let wearer = || person.wearer.get_or_init(|| Face::new(self.seed, u64::from(spec.identity) | (1 << 40)));
        let worn = |surface| Presented {
            surface,
            shape: Shape::Normal,
            border: false,
            white: None,
            bands: None,
            is_display: false,
        };
        match spec.attack {
            Attack::Live => {
                let open = if draw.chance(0.35) { draw.uniform(0.5, 3.0) } else { 0.0 };
                worn(person.face.with_open_mouth(open))
            }
            Attack::Print(printer) => attacks::print(portrait(), printer, &person.face, None, draw),
            Attack::CutPrint(printer) => attacks::print(portrait(), printer, &person.face, Some(wearer()), draw),
            Attack::Replay(display) => attacks::replay(portrait(), display, &person.face, draw),
            Attack::Mask(material) => worn(attacks::mask(&person.face, wearer(), material, draw)),
        }
    }

    /// The picture that an attacker got hold of.
    fn portrait(&self, face: &Face, identity: u32, which: u64) -> Portrait {
        let mut draw = Stream::new(self.seed, "portrait", u64::from(identity), which);
        let view = View {
            rotation: rotation(draw.uniform(-8.0, 8.0), draw.uniform(-4.0, 4.0), draw.uniform(-2.0, 2.0)),
            offset: [0.0, 0.0],
            distance: draw.uniform(500.0, 700.0),
            field: 2.0 * attacks::PORTRAIT[1],
            size: self.config.raster,
        };
        let light = Light::draw(&Lighting::enrolment(), &mut draw, 1.0);
        let background = self.background(&light, &mut draw);
        let scene = render(&face.surface, &view, &light, &background, &mut draw);
        let inside = face_pixels(&scene, face.axes);
        let model = CameraModel::enrolment();
        let exposure =
            Exposure { model: &model, illuminant: light.illuminant(), face: &inside, harmonics: &[], bands: None };
        let shot = shoot(&scene, &exposure, &mut draw);
        // Full height, and the width that a portrait has.
        let size = shot.picture.width;
        let kept = (size as f32 * attacks::PORTRAIT[0] / attacks::PORTRAIT[1]).round() as usize;
        let left = (size - kept) / 2;
        let rows = shot.picture.data.chunks_exact(size).flat_map(|row| row[left..left + kept].iter().copied());
        Portrait { picture: Raster { width: kept, height: size, data: rows.collect() } }
    }

    /// A wall with blotches and a few boxes, lit by the scene's own light.
    fn background(&self, light: &Light, draw: &mut Stream) -> Raster<Rgb> {
        let size = self.config.raster;
        let mut base: Rgb = {
            let grey = draw.uniform(0.08, 0.7);
            std::array::from_fn(|_| (grey * draw.n(0.12).exp()).min(0.9))
        };
        let noise = random::value_noise(draw, size, size, 6);
        let fine = random::value_noise(draw, size, size, 24);
        let mut wall = Raster::filled(size, size, base);
        for ((pixel, coarse), fine) in wall.data.iter_mut().zip(noise).zip(fine) {
            *pixel = pixel.map(|c| c * (1.0 + 0.18 * coarse + 0.06 * fine));
        }
        for _ in 0..draw.index(7) {
            let (x, y) = (draw.uniform(-0.1, 0.9), draw.uniform(-0.1, 0.9));
            let (w, h) = (draw.uniform(0.05, 0.45), draw.uniform(0.05, 0.6));
            base = std::array::from_fn(|_| draw.uniform(0.03, 0.75));
            let pixels = |low: f32, extent: f32| {
                let end = ((low + extent) * size as f32).clamp(0.0, size as f32) as usize;
                (low * size as f32).clamp(0.0, size as f32) as usize..end
            };
            for row in pixels(y, h) {
                for column in pixels(x, w) {
                    wall.data[row * size + column] = base;
                }
            }
        }
        let mut irradiance = light.ambient_on(0.0);
        for lamp in &light.lamps {
            (0..3).for_each(|c| irradiance[c] += lamp.colour[c] * (0.3 + 0.7 * lamp.direction[2].max(0.0)));
        }
        // Walls stand farther from the lamp than the face.
        let reach = draw.uniform(0.35, 1.0);
        wall.data.iter_mut().for_each(|pixel| *pixel = std::array::from_fn(|c| pixel[c] * irradiance[c] * reach));
        wall.blurred(draw.uniform(0.4, 1.6))
    }

    fn take(&self, presented: &Presented, view: &View, light: &Light, model: &CameraModel, spec: &SceneSpec) -> Taken {
        let mut wall = self.stream("background", spec, false);
        let background = self.background(light, &mut wall);
        let mut jitter = self.stream("fibre", spec, false);
        let scene = render(&presented.surface, view, light, &background, &mut jitter);
        let inside = face_pixels(&scene, presented.surface.face);
        // Twice as many picture pixels as scene pixels.
        let footprint = 0.5 * view.field / view.size as f32;
        let harmonics = presented
            .surface
            .periodic
            .map(|periodic| periodic.seen(footprint, model.sub_sampling, model.point_spread))
            .unwrap_or_default();
        let exposure = Exposure {
            model,
            illuminant: presented.white.unwrap_or_else(|| light.illuminant()),
            face: &inside,
            harmonics: &harmonics,
            bands: presented.bands,
        };
        let shot = shoot(&scene, &exposure, &mut self.stream("camera", spec, true));
        let face = targets::box_of(&inside, view.size, 2.0);
        Taken { scene, picture: shot.picture, gain: shot.gain, face }
    }
}

struct Taken {
    scene: render::Scene,
    picture: Raster<Rgb>,
    gain: f32,
    face: FaceBox,
}

/// The pixels on the object within an ellipse of semi-axes `axes` mm.
fn face_pixels(scene: &render::Scene, axes: [f32; 2]) -> Vec<bool> {
    let inside =
        |(&[x, y], &object): (&[f32; 2], &f32)| object > 0.0 && (x / axes[0]).powi(2) + (y / axes[1]).powi(2) < 1.0;
    scene.coordinates.data.iter().zip(&scene.object.data).map(inside).collect()
}

#[cfg(test)]
mod tests;
