//! Protocols on generated domains, shaped like the published ones.

use crate::fas::error::{Error, Result};
use crate::fas::synth::{Attack, Domain, MaskMaterial, SceneSpec, Species};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is unseen in the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Another session's light and background, as OULU-NPU's first.
    UnseenLight,
    /// Another printer or display, as its second: the first of each domain's devices trains, the others test.
    UnseenInstrument,
    /// One camera in the test only, as its third.
    UnseenCamera(Domain),
    /// All three at once, as its fourth.
    UnseenAll(Domain),
    /// One domain in the test only, with all of its people.
    LeaveOneDomainOut(Domain),
    /// One species in the test only, as SiW-M's.
    LeaveOneSpeciesOut(Species),
    /// One mask material in the test only.
    LeaveOneMaterialOut(MaskMaterial),
}

/// Positions of the pictures of each part; nobody is in two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitPlan {
    train: Vec<usize>,
    dev: Vec<usize>,
    test: Vec<usize>,
}

impl SplitPlan {
    /// Checks that no person is in two parts.
    ///
    /// # Errors
    /// [`Error::IdentityLeak`], naming all who are; [`Error::BadParam`] for a position that there is not.
    pub fn new(specs: &[SceneSpec], [train, dev, test]: [Vec<usize>; 3]) -> Result<Self> {
        if let Some(&at) = [&train, &dev, &test].into_iter().flatten().find(|&&at| at >= specs.len()) {
            let (name, expected) = ("position of a picture", "less than the number of pictures");
            return Err(Error::BadParam { name, expected, value: at as f64 });
        }
        let people = |part: &[usize]| -> BTreeSet<u32> { part.iter().map(|&at| specs[at].identity).collect() };
        let (a, b, c) = (people(&train), people(&dev), people(&test));
        let mut twice: BTreeSet<u32> = a.intersection(&b).copied().collect();
        twice.extend(a.intersection(&c));
        twice.extend(b.intersection(&c));
        if twice.is_empty() {
            Ok(Self { train, dev, test })
        } else {
            Err(Error::IdentityLeak { ids: twice.iter().map(u32::to_string).collect() })
        }
    }

    /// For training.
    pub fn train(&self) -> &[usize] {
        &self.train
    }

    /// For choosing thresholds.
    pub fn dev(&self) -> &[usize] {
        &self.dev
    }

    /// For reporting.
    pub fn test(&self) -> &[usize] {
        &self.test
    }
}

/// Whether a device is the first of its domain's; `None` for what has no device.
fn first_device(spec: &SceneSpec) -> Option<bool> {
    match spec.attack {
        Attack::Print(device) | Attack::CutPrint(device) => Some(spec.domain.printers().first() == Some(&device)),
        Attack::Replay(device) => Some(spec.domain.displays().first() == Some(&device)),
        Attack::Live | Attack::Mask(_) => None,
    }
}

impl Protocol {
    /// Sorts pictures into parts. People are train, development or test people by their number, except where whole
    /// domains are left out; pictures that fit no part are left aside.
    ///
    /// # Errors
    /// [`Error::BadProtocol`] for leaving live faces out; [`Error::EmptyClass`] where a part lacks a class.
    pub fn split(self, specs: &[SceneSpec]) -> Result<SplitPlan> {
        if self == Self::LeaveOneSpeciesOut(Species::Live) {
            return Err(Error::BadProtocol { found: format!("{self:?}"), expected: "an attack species" });
        }
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for (at, spec) in specs.iter().enumerate() {
            let part = self.part(spec);
            if let Some(part) = part {
                parts[part].push(at);
            }
        }
        for part in &parts {
            for (class, live) in [("bona fide", true), ("attack", false)] {
                if !part.iter().any(|&at| specs[at].attack.is_live() == live) {
                    return Err(Error::EmptyClass { class });
                }
            }
        }
        SplitPlan::new(specs, parts)
    }

    /// 0 train, 1 development, 2 test.
    fn part(self, spec: &SceneSpec) -> Option<usize> {
        let role = match spec.identity % 6 {
            0 => 1,
            1..=3 => 0,
            _ => 2,
        };
        let testing = role == 2;
        let fits = match self {
            Self::UnseenLight => (spec.session == 2) == testing,
            Self::UnseenInstrument => first_device(spec).is_none_or(|first| first != testing),
            Self::UnseenCamera(left_out) => (spec.domain == left_out) == testing,
            Self::UnseenAll(left_out) => {
                (spec.domain == left_out) == testing
                    && (spec.session == 2) == testing
                    && first_device(spec).is_none_or(|first| first != testing)
            }
            Self::LeaveOneDomainOut(left_out) if spec.domain == left_out => return Some(2),
            // A source domain's test people train.
            Self::LeaveOneDomainOut(_) => return Some(usize::from(role == 1)),
            Self::LeaveOneSpeciesOut(left_out) => {
                spec.attack.is_live() || (spec.attack.species() == left_out) == testing
            }
            Self::LeaveOneMaterialOut(left_out) => match spec.attack {
                Attack::Mask(material) => (material == left_out) == testing,
                Attack::Live => true,
                _ => !testing,
            },
        };
        fits.then_some(role)
    }
}
