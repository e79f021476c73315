//! Domains: camera, light, background and attack devices that change together, as between real data sets.

use super::random::Stream;
use serde::{Deserialize, Serialize};

/// A place with its camera, its light and its attackers' devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// An office filmed in HD.
    OfficeHd,
    /// A webcam under ceiling lamps.
    Webcam,
    /// A phone outdoors.
    SunnyPhone,
    /// A tablet in a dim room.
    DimTablet,
}

impl Domain {
    /// All domains.
    pub const ALL: [Self; 4] = [Self::OfficeHd, Self::Webcam, Self::SunnyPhone, Self::DimTablet];

    /// A name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::OfficeHd => "office-hd",
            Self::Webcam => "webcam",
            Self::SunnyPhone => "sunny-phone",
            Self::DimTablet => "dim-tablet",
        }
    }

    /// Printers used in this domain, as indices into laser, inkjet, photo.
    pub fn printers(self) -> &'static [u8] {
        match self {
            Self::OfficeHd => &[0, 2],
            Self::Webcam => &[1],
            Self::SunnyPhone => &[2, 0],
            Self::DimTablet => &[1, 0],
        }
    }

    /// Displays used in this domain, as indices into monitor, tablet, OLED phone, TN laptop.
    pub fn displays(self) -> &'static [u8] {
        match self {
            Self::OfficeHd => &[0, 1],
            Self::Webcam => &[3, 1],
            Self::SunnyPhone => &[2, 1],
            Self::DimTablet => &[0, 3],
        }
    }

    pub(crate) fn camera(self) -> CameraModel {
        match self {
            Self::OfficeHd => CameraModel {
                sub_sampling: 8.0,
                point_spread: 0.45,
                blur: 0.5,
                key: 0.20,
                motion: 1.0,
                shot: 6e-4,
                read: 0.004,
                white_balance: [1.0, 1.0, 1.0],
                white_jitter: 0.03,
                saturation: 1.08,
                contrast: 0.08,
                denoise: 0.0,
                sharpen: 0.5,
                quality: 90.0,
            },
            Self::Webcam => CameraModel {
                sub_sampling: 2.0,
                point_spread: 0.55,
                blur: 1.3,
                key: 0.18,
                motion: 2.0,
                shot: 2.5e-3,
                read: 0.012,
                white_balance: [1.06, 1.0, 0.92],
                white_jitter: 0.05,
                saturation: 0.85,
                contrast: 0.0,
                denoise: 0.6,
                sharpen: 0.2,
                quality: 55.0,
            },
            Self::SunnyPhone => CameraModel {
                sub_sampling: 8.0,
                point_spread: 0.40,
                blur: 0.4,
                key: 0.24,
                motion: 1.0,
                shot: 4e-4,
                read: 0.003,
                white_balance: [0.96, 1.0, 1.06],
                white_jitter: 0.03,
                saturation: 1.28,
                contrast: 0.2,
                denoise: 0.3,
                sharpen: 1.1,
                quality: 80.0,
            },
            Self::DimTablet => CameraModel {
                sub_sampling: 3.0,
                point_spread: 0.60,
                blur: 0.9,
                key: 0.13,
                motion: 3.0,
                shot: 4e-3,
                read: 0.018,
                white_balance: [1.10, 1.0, 0.84],
                white_jitter: 0.06,
                saturation: 0.95,
                contrast: 0.05,
                denoise: 0.9,
                sharpen: 0.4,
                quality: 68.0,
            },
        }
    }

    pub(crate) fn lighting(self) -> Lighting {
        match self {
            Self::OfficeHd => Lighting {
                lamps: 2,
                azimuth: [10.0, 60.0],
                elevation: [10.0, 45.0],
                temperature: [4800.0, 6500.0],
                intensity: [0.8, 1.6],
                ambient: [0.25, 0.5],
            },
            Self::Webcam => Lighting {
                lamps: 2,
                azimuth: [0.0, 40.0],
                elevation: [35.0, 75.0],
                temperature: [3600.0, 4600.0],
                intensity: [0.6, 1.2],
                ambient: [0.3, 0.6],
            },
            Self::SunnyPhone => Lighting {
                lamps: 1,
                azimuth: [30.0, 80.0],
                elevation: [10.0, 40.0],
                temperature: [5600.0, 7500.0],
                intensity: [1.2, 2.4],
                ambient: [0.15, 0.4],
            },
            Self::DimTablet => Lighting {
                lamps: 2,
                azimuth: [20.0, 75.0],
                elevation: [0.0, 50.0],
                temperature: [2700.0, 3400.0],
                intensity: [0.7, 1.8],
                ambient: [0.08, 0.25],
            },
        }
    }
}

/// Sensor, optics and processing of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CameraModel {
    /// Sensor pixels skipped per output pixel, the source of moiré.
    pub(crate) sub_sampling: f32,
    /// Point spread, sensor pixels.
    pub(crate) point_spread: f32,
    /// Optical blur, output pixels.
    pub(crate) blur: f32,
    /// Mean luminance that the exposure brings the face to.
    pub(crate) key: f32,
    /// Longest motion blur, output pixels.
    pub(crate) motion: f32,
    /// Noise variance is `shot · signal + read²`.
    pub(crate) shot: f32,
    pub(crate) read: f32,
    pub(crate) white_balance: [f32; 3],
    pub(crate) white_jitter: f32,
    pub(crate) saturation: f32,
    pub(crate) contrast: f32,
    /// Denoising blur, output pixels.
    pub(crate) denoise: f32,
    /// Gain of the unsharp mask.
    pub(crate) sharpen: f32,
    /// JPEG quality.
    pub(crate) quality: f32,
}

impl CameraModel {
    /// The camera of the victim's portrait.
    pub(crate) fn enrolment() -> Self {
        Self {
            sub_sampling: 1.0,
            point_spread: 0.5,
            blur: 0.4,
            key: 0.22,
            motion: 0.0,
            shot: 3e-4,
            read: 0.002,
            white_balance: [1.0; 3],
            white_jitter: 0.02,
            saturation: 1.05,
            contrast: 0.05,
            denoise: 0.0,
            sharpen: 0.4,
            quality: 94.0,
        }
    }
}

/// Ranges from which a scene's light is drawn. Angles in degrees, intensity as irradiance / π.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lighting {
    pub(crate) lamps: usize,
    pub(crate) azimuth: [f32; 2],
    pub(crate) elevation: [f32; 2],
    pub(crate) temperature: [f32; 2],
    pub(crate) intensity: [f32; 2],
    pub(crate) ambient: [f32; 2],
}

impl Lighting {
    /// Soft daylight for the victim's portrait.
    pub(crate) fn enrolment() -> Self {
        Self {
            lamps: 2,
            azimuth: [10.0, 50.0],
            elevation: [15.0, 45.0],
            temperature: [4500.0, 6500.0],
            intensity: [0.5, 0.9],
            ambient: [0.5, 0.8],
        }
    }

    /// One of three sessions: the same kind of place at another hour, with its own third of the azimuths and colour
    /// temperatures.
    pub(crate) fn in_session(mut self, session: u8) -> Self {
        let third = |[low, high]: [f32; 2], k: u8| {
            let step = (high - low) / 3.0;
            [low + step * f32::from(k), low + step * f32::from(k + 1)]
        };
        let session = session.min(2);
        self.azimuth = third(self.azimuth, session);
        self.temperature = third(self.temperature, 2 - session);
        self
    }
}

/// A value from a range.
pub(crate) fn within(draw: &mut Stream, [low, high]: [f32; 2]) -> f32 {
    draw.uniform(low, high)
}
