//! The papers: one file each, one row each in [`all`].

mod acl;
mod chunks;
mod cv_lth;
mod deep_forest;
mod earlybert;
mod fas;
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
