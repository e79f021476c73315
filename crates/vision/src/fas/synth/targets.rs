//! The crop around the face and the true maps in it.

use super::brdf::MaterialClass;
use super::plane::{Raster, Rgb};
use super::render::{Scene, luminance};
use serde::{Deserialize, Serialize};

/// A square in picture pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FaceBox {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width and height.
    pub side: f32,
}

/// Depth range of the depth map, mm.
const DEPTH_RANGE: f32 = 110.0;

/// A square of 1.10 times the longer side around the pixels of the face.
pub(crate) fn box_of(face: &[bool], size: usize, factor: f32) -> FaceBox {
    let (mut low, mut high) = ([size; 2], [0_usize; 2]);
    for (at, _) in face.iter().enumerate().filter(|(_, inside)| **inside) {
        for (axis, place) in [at % size, at / size].into_iter().enumerate() {
            low[axis] = low[axis].min(place);
            high[axis] = high[axis].max(place + 1);
        }
    }
    if low[0] >= high[0] {
        return FaceBox { x: 0.0, y: 0.0, side: size as f32 * factor };
    }
    let extent = |axis: usize| (high[axis] - low[axis]) as f32;
    let side = 1.10 * extent(0).max(extent(1));
    let corner = |axis: usize| (0.5 * (high[axis] + low[axis]) as f32 - 0.5 * side) * factor;
    FaceBox { x: corner(0), y: corner(1), side: side * factor }
}

/// Cuts the box out and resamples it to `size`, by as many bilinear samples as a pixel covers picture pixels, at least
/// 2 × 2; 8-bit values in rows of RGB.
pub(crate) fn crop_picture(picture: &Raster<Rgb>, face: FaceBox, size: usize) -> Vec<u8> {
    let samples = ((face.side / size as f32).round() as usize).clamp(2, 16);
    let step = face.side / (samples * size) as f32;
    let share = 255.0 / (samples * samples) as f32;
    let mut out = Vec::with_capacity(size * size * 3);
    for j in 0..size {
        for i in 0..size {
            let mut sum = [0.0_f32; 3];
            for b in 0..samples {
                let y = face.y + (samples * j + b) as f32 * step + 0.5 * step - 0.5;
                for a in 0..samples {
                    let x = face.x + (samples * i + a) as f32 * step + 0.5 * step - 0.5;
                    let sample = picture.sample(x, y);
                    (0..3).for_each(|c| sum[c] += sample[c]);
                }
            }
            // The conversion saturates.
            out.extend(sum.map(|c| (c * share + 0.5) as u8));
        }
    }
    out
}

/// Depth, reflection and material in a crop, averaged over the map's pixels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Maps {
    pub(crate) depth: Vec<f32>,
    pub(crate) reflection: Vec<f32>,
    /// Class by class, each a map.
    pub(crate) material: Vec<f32>,
}

/// The maps in a box given in scene pixels.
pub(crate) fn maps(scene: &Scene, face: FaceBox, gain: f32, size: usize) -> Maps {
    const SAMPLES: usize = 6;
    let farthest = scene
        .depth
        .data
        .iter()
        .zip(&scene.object.data)
        .filter(|(_, object)| **object > 0.0)
        .fold(f32::MIN, |farthest, (&z, _)| farthest.max(z));
    let step = face.side / (SAMPLES * size) as f32;
    let share = 1.0 / (SAMPLES * SAMPLES) as f32;
    let cells = size * size;
    let mut out = Maps {
        depth: vec![0.0; cells],
        reflection: vec![0.0; cells],
        material: vec![0.0; cells * MaterialClass::ALL.len()],
    };
    let raster = scene.object.width as isize;
    for j in 0..size {
        for i in 0..size {
            let cell = j * size + i;
            for b in 0..SAMPLES {
                let y = (face.y + ((j * SAMPLES + b) as f32 + 0.5) * step).floor() as isize;
                for a in 0..SAMPLES {
                    let x = (face.x + ((i * SAMPLES + a) as f32 + 0.5) * step).floor() as isize;
                    let (column, row) = (x.clamp(0, raster - 1), y.clamp(0, raster - 1));
                    let at = (row * raster + column) as usize;
                    let class = scene.material.data[at] as usize;
                    out.material[class * cells + cell] += share;
                    if scene.object.data[at] > 0.0 {
                        let near = (scene.depth.data[at] - (farthest - DEPTH_RANGE)) / DEPTH_RANGE;
                        out.depth[cell] += share * near.clamp(0.0, 1.0);
                        let shine = luminance(scene.specular.data[at]) * gain;
                        out.reflection[cell] += share * shine / (shine + 0.2);
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_the_square_around_the_face() {
        let mut face = vec![false; 100];
        for row in 2..8 {
            for column in 3..7 {
                face[row * 10 + column] = true;
            }
        }
        // Rows 2 to 8, columns 3 to 7: side 6.6 around (5, 5), in a picture twice as large.
        let found = box_of(&face, 10, 2.0);
        let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(close(found.side, 13.2) && close(found.x, 3.4) && close(found.y, 3.4), "{found:?}");
    }

    #[test]
    fn a_crop_of_a_ramp_is_a_ramp() {
        let data = (0..64 * 64).map(|at| [(at % 64) as f32 / 255.0, 0.0, 1.0]).collect();
        let picture: Raster<Rgb> = Raster { width: 64, height: 64, data };
        let crop = crop_picture(&picture, FaceBox { x: 8.0, y: 8.0, side: 32.0 }, 16);
        for i in 0..16 {
            // Pixel i covers 8 + 2 i … 10 + 2 i, whose mean of pixel values is 8.5 + 2 i; 8 bit rounds by a half.
            assert!((f32::from(crop[i * 3]) - (8.5 + 2.0 * i as f32)).abs() <= 0.51);
            assert_eq!(crop[i * 3 + 2], 255);
        }
    }
}
