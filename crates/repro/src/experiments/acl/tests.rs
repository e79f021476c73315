use super::*;
use crate::{DataRoot, Device, Tier};
use std::collections::BTreeSet;

fn ask(tier: Tier, seeds: Option<u64>) -> Ask {
    let data = DataRoot::at(std::path::Path::new("no-such-folder"));
    Ask { tier, seeds, device: Device::Cpu, data }
}

#[test]
fn every_fine_tuning_finds_the_encoder_that_its_name_says() {
    for tier in [Tier::Quick, Tier::Standard] {
        let plan = AclExperiment.plan(&ask(tier, Some(2))).unwrap();
        for planned in &plan.runs {
            let run = &planned.run;
            let needed =
                run.needs.get("encoder").map(|id| plan.runs.iter().find(|other| other.run.id() == *id).unwrap());
            if cases::is_pretraining(&run.kind) {
                assert!(needed.is_none());
                run.params::<pretrain::PretrainParams>().unwrap();
                continue;
            }
            run.params::<fine_tune::TuningParams>().unwrap();
            match needed {
                None => assert!(run.kind.contains("from none"), "{}", run.kind),
                Some(encoder) => {
                    assert_eq!(encoder.run.seed, run.seed);
                    let name = encoder.run.kind.trim_start_matches("pre-training ");
                    assert!(run.kind.contains(&format!("from {name},")), "{} needs {name}", run.kind);
                }
            }
        }
        let kinds: BTreeSet<_> = plan.runs.iter().map(|planned| (planned.run.kind.clone(), planned.run.seed)).collect();
        assert_eq!(kinds.len(), plan.runs.len(), "no two runs of a seed share a name");
    }
}

#[test]
fn without_results_every_claim_is_there_and_not_run() {
    for tier in [Tier::Quick, Tier::Standard, Tier::Paper] {
        let section = AclExperiment.judge(&ask(tier, None), &Results::default()).unwrap();
        assert!(!section.claims.is_empty());
        assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"), "{tier}");
    }
}

#[test]
fn the_paper_tier_needs_its_data() {
    assert!(AclExperiment.plan(&ask(Tier::Paper, None)).unwrap().runs.is_empty());
}
