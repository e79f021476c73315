//! What a picture is a picture of.

use super::attacks::{DEVICES, MaskMaterial, Shape};
use super::domain::Domain;
use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is presented to the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// The person.
    Live,
    /// A print of the person, by printer: laser, inkjet, photo.
    Print(u8),
    /// A print with the eyes cut out for the attacker's own: a partial attack.
    CutPrint(u8),
    /// A display showing the person: monitor, tablet, OLED phone, TN laptop.
    Replay(u8),
    /// A rigid mask of the person on somebody else.
    Mask(MaskMaterial),
}

/// The kinds of presentation that metrics tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Species {
    /// Bona fide.
    Live,
    /// Prints, cut ones included.
    Print,
    /// Displays.
    Replay,
    /// Masks.
    Mask,
}

impl Species {
    /// All attack species.
    pub const ATTACKS: [Self; 3] = [Self::Print, Self::Replay, Self::Mask];

    /// A name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Print => "print",
            Self::Replay => "replay",
            Self::Mask => "mask",
        }
    }
}

impl Attack {
    /// The species that it belongs to.
    pub fn species(self) -> Species {
        match self {
            Self::Live => Species::Live,
            Self::Print(_) | Self::CutPrint(_) => Species::Print,
            Self::Replay(_) => Species::Replay,
            Self::Mask(_) => Species::Mask,
        }
    }

    /// Whether it is bona fide.
    pub fn is_live(self) -> bool {
        self == Self::Live
    }
}

/// Everything that decides a picture, under a master seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SceneSpec {
    /// Who: the person, or the victim of the attack.
    pub identity: u32,
    /// Where and with what camera.
    pub domain: Domain,
    /// What is presented.
    pub attack: Attack,
    /// One of three sessions (0, 1, 2) with their own light.
    pub session: u8,
    /// Which recording of this identity: pose, light, background and device settings.
    pub video: u32,
    /// Which frame of the recording: a small change of pose, and fresh noise.
    pub frame: u8,
    /// Draws the light from another stream: the same scene under other lamps.
    pub relight: u32,
}

impl SceneSpec {
    /// The first frame of a recording in the first session.
    pub fn new(identity: u32, domain: Domain, attack: Attack, video: u32) -> Self {
        Self { identity, domain, attack, session: 0, video, frame: 0, relight: 0 }
    }

    /// Checks device and session numbers.
    ///
    /// # Errors
    /// [`Error::BadParam`], naming the first that does not exist.
    pub fn validate(&self) -> Result<()> {
        let check = |name, expected, value: u8, count: u8| {
            if value < count { Ok(()) } else { Err(Error::BadParam { name, expected, value: f64::from(value) }) }
        };
        match self.attack {
            Attack::Print(printer) | Attack::CutPrint(printer) => check("printer", "0, 1 or 2", printer, DEVICES[0])?,
            Attack::Replay(display) => check("display", "0 to 3", display, DEVICES[1])?,
            Attack::Live | Attack::Mask(_) => {}
        }
        check("session", "0, 1 or 2", self.session, 3)
    }
}

/// What is known about a picture besides its class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// What was asked for.
    pub spec: SceneSpec,
    /// Turned to the side, degrees.
    pub yaw: f32,
    /// Nodded, degrees.
    pub pitch: f32,
    /// Tilted, degrees.
    pub roll: f32,
    /// Shape of a printed sheet.
    pub shape: Shape,
    /// Melanin class of the person, 0 (least) to 3.
    pub melanin: u8,
    /// Whether an edge of the artefact may be in the picture.
    pub border: bool,
    /// The gain that metering chose.
    pub gain: f32,
}

impl Attributes {
    /// Turned left, frontal or right: less than −6°, in between, more than 6°.
    pub fn pose_bin(&self) -> u8 {
        if self.yaw < -6.0 {
            0
        } else if self.yaw <= 6.0 {
            1
        } else {
            2
        }
    }
}
