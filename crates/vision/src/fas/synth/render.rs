//! From a surface under light to radiance at the camera: rays, shadows, shading.

use super::brdf::{self, MaterialClass};
use super::light::Light;
use super::plane::{Raster, Rgb, gaussian};
use super::random::Stream;
use super::surface::{Extent, MISS, Surface};

const MARCH_STEPS: usize = 36;
const BISECTIONS: usize = 5;

/// Where the surface is and how it is seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// Object to camera axes: x right, y up, z towards the camera.
    pub(crate) rotation: [[f32; 3]; 3],
    /// The object's centre in the plane z = 0, mm.
    pub(crate) offset: [f32; 2],
    /// Camera to that plane, mm.
    pub(crate) distance: f32,
    /// Width of the picture in that plane, mm.
    pub(crate) field: f32,
    /// Pixels across.
    pub(crate) size: usize,
}

/// Rotation by roll, then pitch, then yaw. Angles in degrees.
pub(crate) fn rotation(yaw: f32, pitch: f32, roll: f32) -> [[f32; 3]; 3] {
    let ((sy, cy), (sp, cp), (sr, cr)) =
        (yaw.to_radians().sin_cos(), pitch.to_radians().sin_cos(), roll.to_radians().sin_cos());
    let about_y = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
    let about_x = [[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]];
    let about_z = [[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]];
    multiply(&about_y, &multiply(&about_x, &about_z))
}

fn multiply(a: &[[f32; 3]; 3], b: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

impl View {
    fn to_object(&self, v: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|j| (0..3).map(|i| self.rotation[i][j] * v[i]).sum())
    }

    fn z_in_camera(&self, p: [f32; 3]) -> f32 {
        (0..3).map(|j| self.rotation[2][j] * p[j]).sum()
    }

    fn y_in_camera(&self, p: [f32; 3]) -> f32 {
        (0..3).map(|j| self.rotation[1][j] * p[j]).sum()
    }
}

/// What each pixel of the scene raster sees.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Light towards the camera, linear RGB.
    pub(crate) radiance: Raster<Rgb>,
    /// The specular part of it.
    pub(crate) specular: Raster<Rgb>,
    /// Light given off by the surface itself, without what it reflects.
    pub(crate) emitted: Raster<f32>,
    /// 1 on the object, 0 on the background.
    pub(crate) object: Raster<f32>,
    /// Object coordinates of the hit, mm; extended over the background so that they can be interpolated.
    pub(crate) coordinates: Raster<[f32; 2]>,
    /// Height in camera axes, mm.
    pub(crate) depth: Raster<f32>,
    pub(crate) material: Raster<MaterialClass>,
}

struct Ray {
    origin: [f32; 3],
    direction: [f32; 3],
}

impl Ray {
    fn at(&self, t: f32) -> [f32; 3] {
        std::array::from_fn(|k| self.origin[k] + t * self.direction[k])
    }

    /// First crossing of the height field from above.
    ///
    /// Steps are a 36th of the way, or as long as half the gap to the surface below if that is more: rays come from
    /// the front, so that a surface steeper than 1 : 1 along the ray's path is met by the short steps.
    fn meet(&self, surface: &Surface, extent: &Extent) -> Option<[f32; 3]> {
        if self.direction[2] >= -1e-6 {
            return None;
        }
        let reach = |z: f32| (z - self.origin[2]) / self.direction[2];
        let (start, end) = (reach(extent.high + 0.5), reach(extent.low - 0.5));
        let plan = |t: f32| [self.origin[0] + t * self.direction[0], self.origin[1] + t * self.direction[1]];
        if extent.passed_by(plan(start), plan(end)) {
            return None;
        }
        let step = (end - start) / MARCH_STEPS as f32;
        let above = |t: f32| {
            let [x, y, z] = self.at(t);
            z - surface.height_at(x, y)
        };
        let mut before = start;
        let mut here = start;
        while before < end {
            let gap = above(here);
            if gap <= 0.0 {
                let (mut outside, mut inside) = (before, here);
                for _ in 0..BISECTIONS {
                    let middle = 0.5 * (outside + inside);
                    if above(middle) > 0.0 {
                        outside = middle;
                    } else {
                        inside = middle;
                    }
                }
                let mut point = self.at(inside);
                let height = surface.height_at(point[0], point[1]);
                // A crossing of the rim's vertical wall is no surface.
                if height > MISS {
                    point[2] = height;
                    return Some(point);
                }
            }
            before = here;
            let stride = if gap < -0.5 * MISS { -0.5 * gap / self.direction[2] } else { step };
            here += stride.max(step);
        }
        None
    }
}

/// Renders a surface before a background.
pub(crate) fn render(
    surface: &Surface,
    view: &View,
    light: &Light,
    background: &Raster<Rgb>,
    jitter: &mut Stream,
) -> Scene {
    let size = view.size;
    let blank = |value: f32| Raster::filled(size, size, value);
    let mut scene = Scene {
        radiance: background.clone(),
        specular: Raster::filled(size, size, [0.0; 3]),
        emitted: blank(0.0),
        object: blank(0.0),
        coordinates: Raster::filled(size, size, [0.0; 2]),
        depth: blank(0.0),
        material: Raster::filled(size, size, MaterialClass::Other),
    };
    let Some(extent) = surface.extent() else { return scene };
    let eye = [-view.offset[0], -view.offset[1], view.distance];
    let origin = view.to_object(eye);
    let pitch = view.field / size as f32;
    let mut hits: Vec<(usize, [f32; 3], [f32; 3])> = Vec::with_capacity(size * size);
    for j in 0..size {
        for i in 0..size {
            let x = (i as f32 + 0.5 - 0.5 * size as f32) * pitch;
            let y = (0.5 * size as f32 - j as f32 - 0.5) * pitch;
            let ray = Ray { origin, direction: view.to_object([x, y, -view.distance]) };
            let at = j * size + i;
            if let Some(point) = ray.meet(surface, &extent) {
                let length = ray.direction.iter().map(|d| d * d).sum::<f32>().sqrt();
                hits.push((at, point, ray.direction.map(|d| -d / length)));
                scene.coordinates.data[at] = [point[0], point[1]];
            } else {
                // Where the ray meets the plane z = 0.
                let t = -ray.origin[2] / ray.direction[2];
                let point = ray.at(t);
                scene.coordinates.data[at] = [point[0], point[1]];
            }
        }
    }
    shade(surface, view, (light, extent.high), &hits, &mut scene, jitter);
    let covered = |x: usize, y: usize| {
        let quarters = [[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]];
        let met = quarters.iter().filter(|[dx, dy]| {
            let across = (x as f32 + dx + 0.5 - 0.5 * size as f32) * pitch;
            let up = (0.5 * size as f32 - y as f32 - dy - 0.5) * pitch;
            let ray = Ray { origin, direction: view.to_object([across, up, -view.distance]) };
            ray.meet(surface, &extent).is_some()
        });
        met.count() as f32 / 4.0
    };
    soften_outline(&mut scene, background, covered);
    scene
}

/// Mixes object and background in the pixels of the outline by the share that `covered` finds.
///
/// Without it the outline of what is really there would be jagged and that of a printed face smooth, which would tell
/// them apart by the raster.
fn soften_outline(scene: &mut Scene, background: &Raster<Rgb>, covered: impl Fn(usize, usize) -> f32) {
    let size = scene.object.width;
    let before = scene.radiance.clone();
    for y in 1..size.saturating_sub(1) {
        for x in 1..size - 1 {
            let at = y * size + x;
            let inside = scene.object.data[at];
            let around = [at - 1, at + 1, at - size, at + size];
            let Some(&other) = around.iter().find(|&&near| scene.object.data[near] != inside) else { continue };
            let share = covered(x, y);
            let object = if inside > 0.0 { before.data[at] } else { before.data[other] };
            let behind = background.data[at];
            scene.radiance.data[at] = std::array::from_fn(|c| share * object[c] + (1.0 - share) * behind[c]);
        }
    }
}

/// Lamps seen from the object.
struct LocalLamp {
    direction: [f32; 3],
    colour: Rgb,
    spread: f32,
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// `top`: the highest point of the surface, above which nothing is in a lamp's way.
fn shade(
    surface: &Surface,
    view: &View,
    (light, top): (&Light, f32),
    hits: &[(usize, [f32; 3], [f32; 3])],
    scene: &mut Scene,
    jitter: &mut Stream,
) {
    let size = view.size;
    let lamps: Vec<LocalLamp> = light
        .lamps
        .iter()
        .map(|lamp| LocalLamp { direction: view.to_object(lamp.direction), colour: lamp.colour, spread: lamp.spread })
        .collect();
    let mut irradiance = Raster::filled(size, size, [0.0_f32; 3]);
    let mut scatters = Raster::filled(size, size, 0_u8);
    for &(at, point, to_eye) in hits {
        let [x, y, z] = point;
        let [tx, ty] = surface.texel(x, y);
        let which = surface.index.nearest(tx, ty);
        let material = &surface.materials[which as usize];
        let mut normal = surface.normal_at(x, y);
        if surface.fibre > 0.0 {
            let slope = jitter.pair().map(|n| n.clamp(-2.5, 2.5) * surface.fibre);
            normal = [normal[0] + slope[0] * normal[2], normal[1] + slope[1] * normal[2], normal[2]];
            let length = dot(normal, normal).sqrt();
            normal = normal.map(|n| n / length);
        }
        let n_dot_v = dot(normal, to_eye);
        let mut shine = [0.0_f32; 3];
        let mut diffuse = light.ambient_on(view.y_in_camera(normal)).map(|c| c * surface.openness.sample(tx, ty));
        for lamp in &lamps {
            let n_dot_l = dot(normal, lamp.direction);
            if n_dot_l + material.wrap[0] <= 0.0 {
                continue;
            }
            let lit = shadow(surface, point, lamp, top);
            for (c, value) in diffuse.iter_mut().enumerate() {
                *value += lamp.colour[c] * brdf::wrapped(n_dot_l, material.wrap[c]) * lit;
            }
            let mut half: [f32; 3] = std::array::from_fn(|k| lamp.direction[k] + to_eye[k]);
            let length = dot(half, half).sqrt().max(1e-6);
            half = half.map(|h| h / length);
            let cosines = [n_dot_l, n_dot_v, dot(normal, half).max(0.0), dot(to_eye, half).max(0.0)];
            let lobe = brdf::specular(material, cosines, lamp.spread) * lit;
            for (c, value) in shine.iter_mut().enumerate() {
                *value += lamp.colour[c] * lobe;
            }
        }
        if material.environment > 0.0 {
            let mirrored: [f32; 3] = std::array::from_fn(|k| 2.0 * n_dot_v * normal[k] - to_eye[k]);
            let outside: [f32; 3] = std::array::from_fn(|i| (0..3).map(|j| view.rotation[i][j] * mirrored[j]).sum());
            let seen = light.mirrored(outside, material.alpha);
            let gain = material.environment * brdf::schlick(material.f0, n_dot_v.max(0.0));
            (0..3).for_each(|c| shine[c] += gain * seen[c]);
        }
        irradiance.data[at] = diffuse;
        scatters.data[at] = u8::from(material.scatter[0] > 0.0);
        scene.specular.data[at] = shine;
        scene.object.data[at] = 1.0;
        scene.depth.data[at] = view.z_in_camera([x, y, z]);
        scene.material.data[at] = material.class;
        if let Some(emission) = &surface.emission {
            let fall_off = n_dot_v.max(0.0).powf(emission.kappa);
            let given = emission.radiance.sample(tx, ty).map(|c| c * fall_off);
            scene.emitted.data[at] = luminance(given);
            scene.radiance.data[at] = given;
        } else {
            scene.radiance.data[at] = [0.0; 3];
        }
    }
    let scatter = hits.first().map(|_| {
        let largest = |c: usize| surface.materials.iter().map(|m| m.scatter[c]).fold(0.0, f32::max);
        [largest(0), largest(1), largest(2)].map(|mm| mm * size as f32 / view.field)
    });
    if let Some(sigma) = scatter.filter(|sigma| sigma[0] > 0.0) {
        scattered(&mut irradiance, &scatters, sigma);
    }
    for &(at, [x, y, _], _) in hits {
        let [tx, ty] = surface.texel(x, y);
        let albedo = surface.albedo.sample(tx, ty);
        for (c, albedo) in albedo.into_iter().enumerate() {
            scene.radiance.data[at][c] += albedo * irradiance.data[at][c] + scene.specular.data[at][c];
        }
    }
}

/// The share of a lamp that is not hidden, by ten steps of 3 to 55 mm towards it.
fn shadow(surface: &Surface, [x, y, z]: [f32; 3], lamp: &LocalLamp, top: f32) -> f32 {
    let mut lit = 1.0_f32;
    for k in 0..10 {
        let s = 3.0 + 52.0 * k as f32 / 9.0;
        let here = z + s * lamp.direction[2];
        if here > top + 2.0 || lit <= 0.0 {
            break;
        }
        let height = surface.height_at(x + s * lamp.direction[0], y + s * lamp.direction[1]);
        lit = lit.min((0.5 + (here - height) / (2.0 * s * lamp.spread + 0.5)).clamp(0.0, 1.0));
    }
    lit
}

/// Blurs irradiance within the texels that scatter, with a width in pixels by channel.
fn scattered(irradiance: &mut Raster<Rgb>, scatters: &Raster<u8>, sigma: [f32; 3]) {
    let mask = Raster {
        width: scatters.width,
        height: scatters.height,
        data: scatters.data.iter().map(|&s| f32::from(s)).collect::<Vec<f32>>(),
    };
    for c in 0..3 {
        if sigma[c] < 0.1 {
            continue;
        }
        let kernel = gaussian(sigma[c]);
        let blur = |data: Vec<f32>| {
            let plane = Raster { width: mask.width, height: mask.height, data };
            plane.convolved(&kernel, true).convolved(&kernel, false)
        };
        let value = blur(irradiance.data.iter().zip(&mask.data).map(|(e, m)| e[c] * m).collect());
        let weight = blur(mask.data.clone());
        for (at, &inside) in scatters.data.iter().enumerate() {
            if inside == 1 {
                irradiance.data[at][c] = value.data[at] / weight.data[at].max(1e-6);
            }
        }
    }
}

/// Relative luminance of linear Rec. 709 colours.
pub(crate) fn luminance([r, g, b]: Rgb) -> f32 {
    0.2126 * r + 0.7152 * g + 0.0722 * b
}
