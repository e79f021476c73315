//! Whole data sets: who is pictured how often, where.

use super::attacks::MaskMaterial;
use super::domain::Domain;
use super::spec::{Attack, SceneSpec};
use serde::{Deserialize, Serialize};

/// How many people a domain has and how often each is pictured. People of different domains are different people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// In which domains.
    pub domains: Vec<Domain>,
    /// People a domain. Default 40.
    pub identities: u32,
    /// Pictures of each person. Default 8.
    pub live: u32,
    /// Prints of each person, one in four with the eyes cut out. Default 4.
    pub print: u32,
    /// Displays of each person. Default 4.
    pub replay: u32,
    /// Masks of each person, materials in turn. Default 3.
    pub mask: u32,
}

impl Default for Population {
    fn default() -> Self {
        Self { domains: Domain::ALL.to_vec(), identities: 40, live: 8, print: 4, replay: 4, mask: 3 }
    }
}

impl Population {
    /// The quick tier: three domains, 16 people, 17 pictures each.
    pub fn quick() -> Self {
        Self {
            domains: vec![Domain::OfficeHd, Domain::SunnyPhone, Domain::DimTablet],
            identities: 16,
            live: 8,
            print: 3,
            replay: 3,
            mask: 3,
        }
    }

    /// Descriptions of all pictures: domain by domain, person by person. Two frames a recording, and recordings take
    /// turns over sessions and devices.
    pub fn specs(&self) -> Vec<SceneSpec> {
        let mut specs = Vec::new();
        for &domain in &self.domains {
            let first = domain as u32 * 1_000_000;
            for person in 0..self.identities {
                let mut video = 0;
                let mut add = |count: u32, attack: &dyn Fn(u32) -> Attack| {
                    for k in 0..count {
                        let mut spec = SceneSpec::new(first + person, domain, attack(k / 2), video + k / 2);
                        spec.session = ((person + video + k / 2) % 3) as u8;
                        spec.frame = (k % 2) as u8;
                        specs.push(spec);
                    }
                    video += count.div_ceil(2);
                };
                let pick = |devices: &[u8], k: u32| devices[(person + k) as usize % devices.len()];
                add(self.live, &|_| Attack::Live);
                add(self.print, &|k| {
                    let printer = pick(domain.printers(), k);
                    if (person + k) % 4 == 3 { Attack::CutPrint(printer) } else { Attack::Print(printer) }
                });
                add(self.replay, &|k| Attack::Replay(pick(domain.displays(), k)));
                add(self.mask, &|k| Attack::Mask(MaskMaterial::ALL[(person + k) as usize % 3]));
            }
        }
        specs
    }
}
