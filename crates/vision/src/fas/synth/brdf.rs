//! How surfaces answer to light.

use super::plane::Rgb;

/// What a texel's surface is made of, apart from its colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Material {
    /// Class in the material map.
    pub(crate) class: MaterialClass,
    /// Roughness of the GGX lobe.
    pub(crate) alpha: f32,
    /// Reflectance at normal incidence.
    pub(crate) f0: f32,
    /// Gain of the specular lobe.
    pub(crate) specular: f32,
    /// Wrap of the diffuse lobe by channel: light bleeding around the terminator.
    pub(crate) wrap: Rgb,
    /// Subsurface blur of irradiance, mm by channel; zeros for none.
    pub(crate) scatter: Rgb,
    /// Gain of the mirrored surroundings.
    pub(crate) environment: f32,
}

/// The classes of the material map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaterialClass {
    /// Background, bezels, anything else.
    Other,
    /// Living skin, eyes included.
    Skin,
    /// Printed paper.
    Paper,
    /// Glass of a display.
    Display,
    /// Rigid plastic or resin.
    Rigid,
    /// Silicone.
    Silicone,
    /// Hair, eyebrows included.
    Hair,
}

impl MaterialClass {
    /// All classes, in the order of the map's channels.
    pub const ALL: [Self; 7] =
        [Self::Other, Self::Skin, Self::Paper, Self::Display, Self::Rigid, Self::Silicone, Self::Hair];
}

impl Material {
    const MATTE: Self = Self {
        class: MaterialClass::Other,
        alpha: 0.35,
        f0: 0.04,
        specular: 1.0,
        wrap: [0.0; 3],
        scatter: [0.0; 3],
        environment: 0.2,
    };

    /// Skin with the person's roughness and specular gain.
    pub(crate) fn skin(alpha: f32, specular: f32) -> Self {
        Self {
            class: MaterialClass::Skin,
            alpha,
            f0: 0.028,
            specular,
            wrap: [0.35, 0.18, 0.10],
            scatter: [1.4, 0.5, 0.35],
            environment: 0.0,
        }
    }

    pub(crate) fn hair(alpha: f32, specular: f32) -> Self {
        Self { class: MaterialClass::Hair, alpha: alpha + 0.25, scatter: [0.0; 3], ..Self::skin(alpha, specular) }
    }

    pub(crate) fn eyeball() -> Self {
        let skin = Self::skin(0.06, 1.0);
        Self { f0: 0.025, wrap: [0.0; 3], scatter: [0.0; 3], ..skin }
    }

    /// Paper: matte, office, glossy.
    pub(crate) fn paper(finish: usize) -> Self {
        let (alpha, f0, specular, environment) =
            [(0.65, 0.04, 0.35, 0.3), (0.55, 0.04, 0.5, 0.3), (0.16, 0.045, 1.0, 1.0)][finish.min(2)];
        Self { class: MaterialClass::Paper, alpha, f0, specular, environment, ..Self::MATTE }
    }

    pub(crate) fn display(alpha: f32) -> Self {
        Self { class: MaterialClass::Display, alpha, f0: 0.043, environment: 1.0, ..Self::MATTE }
    }

    pub(crate) fn bezel() -> Self {
        Self::MATTE
    }

    pub(crate) fn resin(alpha: f32) -> Self {
        Self { class: MaterialClass::Rigid, alpha, f0: 0.045, scatter: [0.15; 3], environment: 0.0, ..Self::MATTE }
    }

    pub(crate) fn plastic(alpha: f32) -> Self {
        Self { class: MaterialClass::Rigid, alpha, f0: 0.05, scatter: [0.1; 3], environment: 1.0, ..Self::MATTE }
    }

    pub(crate) fn silicone(alpha: f32) -> Self {
        Self {
            class: MaterialClass::Silicone,
            alpha,
            f0: 0.03,
            specular: 1.0,
            wrap: [0.24, 0.22, 0.20],
            scatter: [1.2, 1.1, 1.0],
            environment: 0.0,
        }
    }
}

/// Irradiance / (π · intensity) of a directional light: `max(0, (n·l + w) / (1 + w)²)`, which integrates to π over the
/// sphere of directions for every wrap `w` in [0, 1], so wrapping moves light and makes none.
pub(crate) fn wrapped(n_dot_l: f32, wrap: f32) -> f32 {
    ((n_dot_l + wrap) / ((1.0 + wrap) * (1.0 + wrap))).max(0.0)
}

/// The GGX distribution of normals, `∫ D(h) (n·h) dω = 1`.
pub(crate) fn ggx(n_dot_h: f32, alpha: f32) -> f32 {
    let a2 = alpha * alpha;
    let d = n_dot_h * n_dot_h * (a2 - 1.0) + 1.0;
    a2 / (std::f32::consts::PI * d * d)
}

/// Schlick's approximation of Fresnel reflectance.
pub(crate) fn schlick(f0: f32, cosine: f32) -> f32 {
    let m = (1.0 - cosine).clamp(0.0, 1.0);
    let m2 = m * m;
    f0 + (1.0 - f0) * m2 * m2 * m
}

/// One side of the Smith–Schlick shadowing term with `k = (α + 1)² / 8`.
pub(crate) fn shadowing(cosine: f32, alpha: f32) -> f32 {
    let k = (alpha + 1.0) * (alpha + 1.0) / 8.0;
    cosine / (cosine * (1.0 - k) + k)
}

/// Radiance of the specular lobe under a directional light of irradiance π: `k_s π D F G / (4 n·v)`.
///
/// `spread` is the light's angular radius; it widens the lobe (`α² ≥ 0.09 ρ`).
pub(crate) fn specular(material: &Material, [n_dot_l, n_dot_v, n_dot_h, v_dot_h]: [f32; 4], spread: f32) -> f32 {
    if n_dot_l <= 0.0 || n_dot_v <= 0.0 {
        return 0.0;
    }
    let alpha = material.alpha.max((0.09 * spread).sqrt());
    let lobe = ggx(n_dot_h, alpha) * schlick(material.f0, v_dot_h);
    let masking = shadowing(n_dot_l, alpha) * shadowing(n_dot_v, alpha);
    material.specular * std::f32::consts::PI * lobe * masking / (4.0 * n_dot_v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::PI;

    /// ∫ f(cos θ, φ) dω over the sphere by the midpoint rule.
    fn over_sphere(steps: usize, f: impl Fn([f32; 3]) -> f32) -> f32 {
        let mut sum = 0.0_f64;
        for i in 0..steps {
            let cos = 1.0 - 2.0 * (i as f32 + 0.5) / steps as f32;
            let sin = (1.0 - cos * cos).sqrt();
            for j in 0..steps {
                let phi = 2.0 * PI * (j as f32 + 0.5) / steps as f32;
                sum += f64::from(f([sin * phi.cos(), sin * phi.sin(), cos]));
            }
        }
        (sum / (steps * steps) as f64) as f32 * 4.0 * PI
    }

    #[test]
    fn wrapped_light_integrates_to_pi_for_every_wrap() {
        for wrap in [0.0, 0.2, 0.5, 1.0] {
            let total = over_sphere(400, |l| wrapped(l[2], wrap));
            assert!((total / PI - 1.0).abs() < 0.01, "wrap {wrap}: {total}");
        }
    }

    #[test]
    fn the_normal_distribution_is_normalised() {
        for alpha in [0.1, 0.3, 0.65, 1.0] {
            let total = over_sphere(2000, |h| if h[2] > 0.0 { ggx(h[2], alpha) * h[2] } else { 0.0 });
            assert!((total - 1.0).abs() < 0.01, "alpha {alpha}: {total}");
        }
    }

    #[test]
    fn flat_lambert_answers_with_albedo_times_cosine() {
        assert_eq!(0.5 * wrapped(1.0, 0.0), 0.5);
        assert!((0.5 * wrapped((PI / 3.0).cos(), 0.0) - 0.25).abs() < 1e-6);
    }

    /// Every material's specular lobe reflects at most all light at any view angle, and with a diffuse albedo of 0.87
    /// (bare paper, the brightest surface of the model) at most all light up to 60° from the normal. Beyond, the sum
    /// may exceed 1, since the model does not take from the diffuse part what the specular one reflects.
    #[test]
    fn no_material_gives_more_light_than_it_gets() {
        let materials = [
            Material::skin(0.30, 1.0),
            Material::eyeball(),
            Material::paper(0),
            Material::paper(1),
            Material::paper(2),
            Material::display(0.30),
            Material::plastic(0.14),
            Material::resin(0.45),
            Material::silicone(0.3),
        ];
        for material in materials {
            for degrees in [0.0_f32, 30.0, 60.0, 75.0, 85.0] {
                let (sin, cos) = degrees.to_radians().sin_cos();
                let albedo = over_sphere(700, |l| {
                    if l[2] <= 0.0 {
                        return 0.0;
                    }
                    let half = [l[0] + sin, l[1], l[2] + cos];
                    let length = half.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let v_dot_h = (half[0] * sin + half[2] * cos) / length;
                    specular(&material, [l[2], cos, half[2] / length, v_dot_h], 0.0) / PI
                });
                assert!(albedo <= 1.0, "{:?} at {degrees}°: {albedo}", material.class);
                if degrees <= 60.0 {
                    assert!(albedo + 0.87 <= 1.0, "{:?} at {degrees}°: {albedo}", material.class);
                }
            }
        }
    }
}
