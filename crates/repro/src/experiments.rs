//! The papers: one file each, one row each in [`all`].

mod acl;
mod chunks;
mod cv_lth;
mod deep_forest;
mod earlybert;
mod fas;
#[cfg(test)]
mod finished_runs;
mod fractrain;
mod grouping;
mod images;
mod kd_ticket;
mod shift_invariance;
mod smartdeal;
mod training;

use crate::Experiment;

/// Every experiment, in the order of the report.
pub(crate) fn all() -> Vec<Box<dyn Experiment>> {
    vec![
        Box::new(kd_ticket::KdTicket),
        Box::new(cv_lth::CvLth),
        Box::new(earlybert::EarlyBert),
        Box::new(fractrain::FracTrain),
        Box::new(smartdeal::SmartDeal),
        Box::new(deep_forest::DeepForestExperiment),
        Box::new(fas::Fas),
        Box::new(shift_invariance::ShiftInvariance),
        Box::new(grouping::Grouping),
        Box::new(acl::AclExperiment),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, DataRoot, Device, Results, Tier};

    #[test]
    fn every_tier_of_every_paper_has_a_section_before_anything_has_run() {
        let empty = tempfile::tempdir().unwrap();
        for tier in [Tier::Quick, Tier::Standard, Tier::Paper] {
            let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
            for experiment in all() {
                let section = experiment.judge(&ask, &Results::default()).unwrap();
                section.check().unwrap_or_else(|error| panic!("{}, {tier}: {error}", experiment.paper()));
                assert!(!section.claims.is_empty(), "{}, {tier}", experiment.paper());
            }
        }
    }

    /// The forecast adds the papers' efforts up: one that counted steps or trees would drown the others.
    #[test]
    fn the_quick_tier_takes_minutes_of_a_core_in_every_paper() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        for experiment in all() {
            let plan = experiment.plan(&ask).unwrap();
            let seconds: f64 = plan.runs.iter().map(|planned| planned.effort).sum();
            assert!((10.0..=320.0).contains(&seconds), "{}: {seconds} s", experiment.paper());
        }
    }
}
