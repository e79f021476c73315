//! The light of a scene and what is mirrored in glossy surfaces.

use super::domain::{Lighting, within};
use super::plane::Rgb;
use super::random::{Stream, smooth_step};

/// Directional lamps, ambient light, and the surroundings as seen in a mirror.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Light {
    pub(crate) lamps: Vec<Lamp>,
    pub(crate) ambient: Rgb,
    /// Ambient light from below, as a share of that from above.
    pub(crate) ground: f32,
    windows: Vec<Window>,
    /// Angular radius of the camera and its operator, dark against the surroundings.
    operator: f32,
}

/// A distant lamp.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lamp {
    /// Unit vector towards it.
    pub(crate) direction: [f32; 3],
    /// Irradiance / π at normal incidence.
    pub(crate) colour: Rgb,
    /// Angular radius, rad.
    pub(crate) spread: f32,
}

/// A bright rectangle in the surroundings. Angles in rad.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    centre: [f32; 2],
    half: [f32; 2],
    gain: f32,
}

/// Linear RGB of a black body with the green channel at 1.
pub(crate) fn temperature_colour(kelvin: f32) -> Rgb {
    const TABLE: [(f32, Rgb); 7] = [
        (2700.0, [2.598, 1.0, 0.250]),
        (3200.0, [2.096, 1.0, 0.416]),
        (4000.0, [1.624, 1.0, 0.620]),
        (5000.0, [1.289, 1.0, 0.795]),
        (5600.0, [1.155, 1.0, 0.873]),
        (6500.0, [1.008, 1.0, 0.964]),
        (7500.0, [0.953, 1.0, 1.206]),
    ];
    let kelvin = kelvin.clamp(2700.0, 7500.0);
    let above = TABLE.iter().position(|(t, _)| *t >= kelvin).unwrap_or(TABLE.len() - 1).max(1);
    let ((cold, from), (warm, to)) = (TABLE[above - 1], TABLE[above]);
    let t = (1.0 / kelvin - 1.0 / cold) / (1.0 / warm - 1.0 / cold);
    std::array::from_fn(|channel| from[channel] + t * (to[channel] - from[channel]))
}

impl Light {
    /// Draws a scene's light; `dimmed` scales all of it (displays are shown in darker rooms).
    pub(crate) fn draw(lighting: &Lighting, draw: &mut Stream, dimmed: f32) -> Self {
        let count = if lighting.lamps > 1 && draw.chance(0.5) { 2 } else { 1 };
        let kelvin = within(draw, lighting.temperature);
        let side = if draw.chance(0.5) { 1.0 } else { -1.0 };
        let lamps = (0..count)
            .map(|which| {
                // A second lamp fills from the other side.
                let (side, gain) = if which == 0 { (side, dimmed) } else { (-side, 0.5 * dimmed) };
                let azimuth = side * within(draw, lighting.azimuth).to_radians();
                let elevation = within(draw, lighting.elevation).to_radians();
                let intensity = gain * within(draw, lighting.intensity);
                let colour = temperature_colour(kelvin + draw.n(150.0));
                let direction = [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()];
                Lamp { direction, colour: colour.map(|c| c * intensity), spread: draw.uniform(0.04, 0.25) }
            })
            .collect();
        let ambient = within(draw, lighting.ambient) * dimmed;
        let windows = (0..1 + draw.index(3))
            .map(|_| Window {
                centre: [draw.uniform(-1.2, 1.2), draw.uniform(-0.1, 0.9)],
                half: [draw.uniform(0.08, 0.35), draw.uniform(0.08, 0.30)],
                gain: draw.uniform(2.0, 9.0),
            })
            .collect();
        Self {
            lamps,
            ambient: temperature_colour(kelvin).map(|c| c * ambient),
            ground: draw.uniform(0.2, 0.6),
            windows,
            operator: draw.uniform(0.12, 0.25),
        }
    }

    /// Ambient irradiance / π on a surface whose normal has the vertical component `up`.
    pub(crate) fn ambient_on(&self, up: f32) -> Rgb {
        let t = 0.5 + 0.5 * up;
        self.ambient.map(|c| c * (t + (1.0 - t) * self.ground))
    }

    /// What a surface of roughness `alpha` mirrors from a direction.
    pub(crate) fn mirrored(&self, [x, y, z]: [f32; 3], alpha: f32) -> Rgb {
        let edge = 0.04 + 0.6 * alpha;
        let (azimuth, elevation) = (x.atan2(z), y.clamp(-1.0, 1.0).asin());
        let mut gain = 0.35 + 0.65 * (0.5 + 0.5 * y);
        for window in &self.windows {
            let inside = |angle: f32, centre: f32, half: f32| {
                smooth_step(half + edge, (half - edge).max(0.0), (angle - centre).abs())
            };
            let share =
                inside(azimuth, window.centre[0], window.half[0]) * inside(elevation, window.centre[1], window.half[1]);
            // Wider edges spread the same light.
            let area = window.half[0] * window.half[1];
            let spread = (window.half[0].max(0.5 * edge)) * (window.half[1].max(0.5 * edge));
            gain += window.gain * share * area / spread;
        }
        let away = azimuth.hypot(elevation);
        gain *= 1.0 - 0.7 * smooth_step(self.operator + edge, (self.operator - edge).max(0.0), away);
        self.ambient.map(|c| c * gain)
    }

    /// The colour that a camera would take for white: all light on a surface facing it.
    pub(crate) fn illuminant(&self) -> Rgb {
        let mut sum = self.ambient;
        for lamp in &self.lamps {
            let facing = lamp.direction[2].max(0.0) + 0.2;
            (0..3).for_each(|c| sum[c] += lamp.colour[c] * facing);
        }
        let green = sum[1].max(1e-6);
        sum.map(|c| c / green)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::synth::domain::Domain;

    #[test]
    fn temperatures_meet_their_table_and_lie_between() {
        assert_eq!(temperature_colour(2700.0), [2.598, 1.0, 0.250]);
        assert!((temperature_colour(7500.0)[2] - 1.206).abs() < 1e-6);
        let between = temperature_colour(3600.0);
        assert!(between[0] < 2.096 && between[0] > 1.624 && between[2] > 0.416 && between[2] < 0.620);
    }

    #[test]
    fn ambient_of_equal_sky_and_ground_is_the_same_at_any_tilt() {
        let mut light = Light::draw(&Domain::OfficeHd.lighting(), &mut Stream::new(1, "light", 0, 0), 1.0);
        (light.ground, light.ambient) = (1.0, [1.0; 3]);
        for up in [-1.0, -0.3, 0.0, 0.7, 1.0] {
            assert!(light.ambient_on(up).iter().all(|c| (0.5 * c - 0.5).abs() < 1e-6));
        }
    }
}
