//! What stands before the camera: a height field with materials.

use super::brdf::Material;
use super::periodic::Periodic;
use super::plane::{Raster, Rgb, gaussian};

/// Height of what is not there: a ray that meets it goes on to the background.
pub(crate) const MISS: f32 = -1000.0;

/// A height field `z = h(x, y)` over `[−half_x, half_x] × [−half_y, half_y]` mm, with colour and material by texel.
///
/// Row 0 is the top (`y = +half_y`). Faces, masks, sheets and screens are all of this one kind.
#[derive(Debug, Clone)]
pub(crate) struct Surface {
    pub(crate) half_x: f32,
    pub(crate) half_y: f32,
    /// Texels per mm across and down.
    pub(crate) per_mm: [f32; 2],
    /// mm, towards the camera.
    pub(crate) height: Raster<f32>,
    pub(crate) albedo: Raster<Rgb>,
    /// Index into `materials` by texel.
    pub(crate) index: Raster<u8>,
    pub(crate) materials: Vec<Material>,
    /// Openness to ambient light by texel, in [0.5, 1].
    pub(crate) openness: Raster<f32>,
    /// Light given off by a display.
    pub(crate) emission: Option<Emission>,
    /// Pixel grid of a display or halftone screen of a print.
    pub(crate) periodic: Option<Periodic>,
    /// Standard deviation of the slope of paper fibres.
    pub(crate) fibre: f32,
    /// Semi-axes of the presented face, mm: what a face detector would box.
    pub(crate) face: [f32; 2],
}

/// Light given off by a display.
#[derive(Debug, Clone)]
pub(crate) struct Emission {
    pub(crate) radiance: Raster<Rgb>,
    /// Exponent of the fall-off with the viewing angle.
    pub(crate) kappa: f32,
}

impl Surface {
    /// Texel coordinates of a point in mm.
    #[inline]
    pub(crate) fn texel(&self, x: f32, y: f32) -> [f32; 2] {
        let [across, down] = self.per_mm;
        [(x + self.half_x) * across - 0.5, (self.half_y - y) * down - 0.5]
    }

    /// Centre of a texel in mm.
    pub(crate) fn position(&self, i: usize, j: usize) -> [f32; 2] {
        [
            ((i as f32 + 0.5) / self.height.width as f32 * 2.0 - 1.0) * self.half_x,
            (1.0 - (j as f32 + 0.5) / self.height.height as f32 * 2.0) * self.half_y,
        ]
    }

    /// Interpolated height; [`MISS`] outside and where any of the four texels around is.
    #[inline]
    pub(crate) fn height_at(&self, x: f32, y: f32) -> f32 {
        let [tx, ty] = self.texel(x, y);
        let (width, rows) = (self.height.width, self.height.height);
        if tx < 0.0 || ty < 0.0 || tx >= width as f32 - 1.0 || ty >= rows as f32 - 1.0 {
            return MISS;
        }
        let (i, j) = (tx as usize, ty as usize);
        let (fx, fy) = (tx - i as f32, ty - j as f32);
        let at = j * width + i;
        let quad = [
            self.height.data[at],
            self.height.data[at + 1],
            self.height.data[at + width],
            self.height.data[at + width + 1],
        ];
        if quad.iter().any(|&height| height <= MISS) {
            return MISS;
        }
        let top = quad[0] + fx * (quad[1] - quad[0]);
        let bottom = quad[2] + fx * (quad[3] - quad[2]);
        top + fy * (bottom - top)
    }

    /// The unit normal by central differences over a texel.
    pub(crate) fn normal_at(&self, x: f32, y: f32) -> [f32; 3] {
        let step = self.half_x / self.height.width as f32;
        let here = self.height_at(x, y);
        let slope = |forward: f32, backward: f32| match (forward > MISS, backward > MISS) {
            (true, true) => (forward - backward) / (2.0 * step),
            (true, false) => (forward - here) / step,
            (false, true) => (here - backward) / step,
            (false, false) => 0.0,
        };
        let along_x = slope(self.height_at(x + step, y), self.height_at(x - step, y));
        let along_y = slope(self.height_at(x, y + step), self.height_at(x, y - step));
        let length = (1.0 + along_x * along_x + along_y * along_y).sqrt();
        [-along_x / length, -along_y / length, 1.0 / length]
    }

    /// Where heights are present; `None` for an empty surface.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let mut extent = Extent { low: f32::MAX, high: f32::MIN, reach: [0.0; 2], corner: 0.0 };
        for (j, row) in self.height.data.chunks_exact(self.height.width).enumerate() {
            let mut widest = 0.0_f32;
            let (mut low, mut high) = (f32::MAX, f32::MIN);
            for (i, &height) in row.iter().enumerate() {
                if height > MISS {
                    (low, high) = (low.min(height), high.max(height));
                    widest = widest.max(self.position(i, j)[0].abs());
                }
            }
            if low <= high {
                let y = self.position(0, j)[1].abs();
                (extent.low, extent.high) = (extent.low.min(low), extent.high.max(high));
                extent.reach = [extent.reach[0].max(widest), extent.reach[1].max(y)];
                extent.corner = extent.corner.max(widest + y);
            }
        }
        (extent.low <= extent.high).then_some(extent)
    }
}

/// Bounds of what is present: heights, and an octagon around it in the plane, all in mm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) low: f32,
    pub(crate) high: f32,
    /// Largest |x| and |y|.
    pub(crate) reach: [f32; 2],
    /// Largest |x| + |y|.
    pub(crate) corner: f32,
}

impl Extent {
    /// Whether the straight way between two points passes by on one side of the octagon.
    pub(crate) fn passed_by(&self, [ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> bool {
        let both = |a: f32, b: f32, limit: f32| a.min(b) > limit || a.max(b) < -limit;
        both(ax, bx, self.reach[0])
            || both(ay, by, self.reach[1])
            || both(ax + ay, bx + by, self.corner)
            || both(ax - ay, bx - by, self.corner)
    }
}

/// Openness to ambient light: `clamp(1 − 0.02 · max(0, blur₈(h) − h), 0.5, 1)`, the blur being of 8 mm.
pub(crate) fn openness(height: &Raster<f32>, mm_per_texel: f32) -> Raster<f32> {
    let blurred = blurred_present(height, 8.0 / mm_per_texel);
    let open = |(&smooth, &height): (&f32, &f32)| (1.0 - 0.02 * (smooth - height).max(0.0)).clamp(0.5, 1.0);
    Raster {
        width: height.width,
        height: height.height,
        data: blurred.data.iter().zip(&height.data).map(open).collect(),
    }
}

/// A Gaussian blur that ignores what is not there; [`MISS`] stays.
pub(crate) fn blurred_present(height: &Raster<f32>, sigma: f32) -> Raster<f32> {
    let kernel = gaussian(sigma);
    let present = |h: &f32| if *h > MISS { 1.0 } else { 0.0 };
    let like = |data: Vec<f32>| Raster { width: height.width, height: height.height, data };
    let weight = like(height.data.iter().map(present).collect());
    let value = like(height.data.iter().map(|&h| if h > MISS { h } else { 0.0 }).collect());
    let blur = |raster: Raster<f32>| raster.convolved(&kernel, true).convolved(&kernel, false);
    let (weight, mut value) = (blur(weight), blur(value));
    for ((value, weight), &original) in value.data.iter_mut().zip(&weight.data).zip(&height.data) {
        *value = if original > MISS { *value / weight.max(1e-6) } else { MISS };
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn flat(height: Raster<f32>) -> Surface {
        let (width, rows) = (height.width, height.height);
        Surface {
            half_x: 50.0,
            half_y: 50.0,
            per_mm: [width as f32 / 100.0, rows as f32 / 100.0],
            albedo: Raster::filled(width, rows, [0.5; 3]),
            index: Raster::filled(width, rows, 0),
            materials: vec![Material::bezel()],
            openness: openness(&height, 1.0),
            height,
            emission: None,
            periodic: None,
            fibre: 0.0,
            face: [50.0, 50.0],
        }
    }

    #[test]
    fn a_slope_has_the_normal_of_its_plane() {
        let mut surface = flat(Raster::filled(100, 100, 0.0));
        for j in 0..100 {
            for i in 0..100 {
                let [x, y] = surface.position(i, j);
                surface.height.data[j * 100 + i] = 0.5 * x - 0.25 * y;
            }
        }
        let normal = surface.normal_at(3.0, -7.0);
        let length = (1.0_f32 + 0.25 + 0.0625).sqrt();
        for (found, expected) in normal.iter().zip([-0.5 / length, 0.25 / length, 1.0 / length]) {
            // Heights of tens of mm in f32, differences over 1 mm.
            assert!((found - expected).abs() < 1e-4, "{normal:?}");
        }
        assert!((surface.height_at(3.0, -7.0) - 3.25).abs() < 1e-4);
    }

    #[test]
    fn what_is_not_there_is_missed_and_not_blurred_in() {
        let mut height = Raster::filled(20, 20, 10.0);
        height.data[..20 * 10].fill(MISS);
        let blurred = blurred_present(&height, 2.0);
        assert!(blurred.data[..200].iter().all(|&h| h == MISS));
        assert!(blurred.data[200..].iter().all(|&h| (h - 10.0).abs() < 1e-4));
        assert!(openness(&height, 1.0).data[200..].iter().all(|&open| (open - 1.0).abs() < 1e-4));
        assert_eq!(flat(height).height_at(0.0, 20.0), MISS);
    }
}
