use super::*;
use crate::experiments::images::ImageSet;
use crate::{DataRoot, DataSource, DataUse, Device, Tier};
use contrast::attack::Start;
use contrast::learn::Defence;
use core_tensor::data::{Dataset, ImageShape, Samples};
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
fn every_tier_measures_the_budgets_that_its_claims_are_about() {
    let paper = cases::paper(ImageSet::Cifar10);
    let of = |tier| cases::of(&ask(tier, None)).unwrap().unwrap();
    for case in [of(Tier::Quick), of(Tier::Standard), paper] {
        let budgets = &case.setting.measure.budgets;
        assert!([cases::RADIUS, cases::BEYOND].iter().all(|budget| budgets.contains(budget)), "{}", case.network);
        let ascending = budgets.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascending, "{budgets:?}");
    }
}

#[test]
fn all_images_are_labelled_where_as_many_labels_are_asked_for() {
    let names = (0..10).map(|class| class.to_string()).collect();
    // Three of every class but four of the first and two of the last.
    let labels: Vec<i64> = (0..30).map(|image| if image == 29 { 0 } else { image % 10 }).collect();
    let set = Dataset::new((0..30).collect(), ImageShape::new(1, 1, 1), labels, names, "thirty").unwrap();
    let with = |per_class| fine_tune::with_labels(&set, fine_tune::Labels { per_class }, 0);
    assert_eq!(with(3).unwrap().pixels(), set.pixels());
    let two = with(2).unwrap();
    assert_eq!(two.len(), 20);
    assert!((0..10).all(|class| two.targets().iter().filter(|label| **label == class).count() == 2));
}

#[test]
fn the_paper_tier_needs_its_data() {
    assert!(AclExperiment.plan(&ask(Tier::Paper, None)).unwrap().runs.is_empty());
}

#[test]
fn a_set_that_is_sorted_by_class_is_taken_in_turns() {
    // Three classes of four, three and four images, one after the other; a pixel says which image it is.
    let labels = vec![0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2];
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let set = Dataset::new((0..11).collect(), ImageShape::new(1, 1, 1), labels, names, "sorted").unwrap();
    let mixed = pretrain::in_turns(&set).unwrap();
    assert_eq!(mixed.pixels(), [0, 4, 7, 1, 5, 8, 2, 6, 9, 3, 10]);
    assert_eq!(mixed.targets(), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2]);
    // So what is pre-trained on, the first images, and what is probed on, those after them, hold every class alike.
    let unlabelled = mixed.take(6).unwrap();
    assert_eq!(unlabelled.balanced(2).unwrap().targets(), unlabelled.targets());
    assert_eq!(mixed.subset(&[6, 7, 8]).unwrap().targets(), [0, 1, 2]);
}

#[test]
fn the_data_goes_by_the_name_of_its_set() {
    let case = cases::of(&ask(Tier::Quick, None)).unwrap().unwrap();
    let DataUse { set, source } = case.describe_data();
    assert!(set.starts_with("generated shapes in place of Fashion-MNIST at half"), "{set}");
    assert_eq!(source, DataSource::Generator);
    let setting = pretrain::Setting { set: ImageSet::Cifar10Jpeg, ..case.setting.clone() };
    let jpeg = cases::Case { setting, ..case };
    assert!(jpeg.describe_data().set.starts_with("CIFAR-10 (JPEG)"));
}

#[test]
fn every_baseline_has_the_attack_of_its_own_paper() {
    let plan = AclExperiment.plan(&ask(Tier::Standard, Some(1))).unwrap();
    let robust = |method: &str| {
        let label = format!("{method} from none, 6000 labels");
        let run = plan.runs.iter().map(|planned| &planned.run).find(|run| run.kind == label);
        match run.unwrap().params::<fine_tune::TuningParams>().unwrap().tuning {
            fine_tune::Tuning::Robust(config) => config,
            fine_tune::Tuning::Semi { .. } | fine_tune::Tuning::LabelsAlone(_) => panic!("{method}"),
        }
    };
    assert_eq!((robust("PGD-AT").defence, robust("PGD-AT").attack.start), (Defence::PgdAt, Start::Random));
    assert_eq!(robust("MART").attack.start, Start::Nearby);
    assert_eq!(robust("TRADES 1").defence, Defence::Trades { beta: 1.0 });
    assert_eq!((robust("fast AT").defence, robust("fast AT").attack.start), (Defence::PgdAt, Start::Random));
    for (method, steps) in [("AFF", 10), ("PGD-AT", 10), ("fast AT", 1), ("MART", 10), ("TRADES 1", 10)] {
        let attack = robust(method).attack;
        assert_eq!(attack.steps, steps, "{method}");
        assert!((attack.ball.radius - cases::RADIUS).abs() < 1e-15, "{method}");
    }
}

#[test]
fn trades_starts_next_to_the_image_in_every_tier() {
    let of = |tier| cases::of(&ask(tier, None)).unwrap().unwrap();
    for case in [of(Tier::Quick), of(Tier::Standard), cases::paper(ImageSet::Cifar10)] {
        let tuned = case.tunings.iter().filter(|fine| fine.label.starts_with("AFF"));
        let starts: Vec<Start> = tuned
            .map(|fine| match &fine.params.tuning {
                fine_tune::Tuning::Robust(config) => config.attack.start,
                _ => panic!("{}", fine.label),
            })
            .collect();
        assert!(!starts.is_empty() && starts.iter().all(|start| *start == Start::Nearby), "{}", case.network);
    }
}

#[test]
fn the_control_of_pseudo_labels_differs_by_the_images_that_have_none() {
    let case = cases::of(&ask(Tier::Standard, None)).unwrap().unwrap();
    let params = |method: &str| {
        let label = cases::tuning_label(method, cases::DUAL, 600);
        &case.tunings.iter().find(|fine| fine.label == label).unwrap().params
    };
    let (stage, alone) = (params(cases::SEMI), params(cases::LABELS_ALONE));
    let fine_tune::Tuning::Semi { config, unlabelled_batch, .. } = &stage.tuning else { panic!("{stage:?}") };
    let fine_tune::Tuning::LabelsAlone(control) = &alone.tuning else { panic!("{alone:?}") };
    assert_eq!(*control, contrast::learn::SemiConfig { alpha: 0.0, ..config.clone() });
    assert_eq!(alone.batch_size, stage.batch_size + unlabelled_batch);
    let unlabelled = case.setting.unlabelled - stage.labels.count();
    let steps = [stage.epochs * (unlabelled / unlabelled_batch) as u64, alone.epochs * (600 / alone.batch_size) as u64];
    assert_eq!(steps, [328, 330]);
    // And from scratch the stage is the same.
    let label = cases::tuning_label(cases::SEMI, cases::RANDOM, 600);
    let scratch = case.tunings.iter().find(|fine| fine.label == label).unwrap();
    assert!(scratch.encoder.is_none() && scratch.params == *stage);
}

#[test]
fn what_is_smoothed_is_trained_under_its_noise_and_measured_where_claims_ask() {
    let case = cases::of(&ask(Tier::Standard, None)).unwrap().unwrap();
    let smoothed: Vec<_> =
        case.tunings.iter().filter_map(|fine| Some((fine, fine.params.certified.as_ref()?))).collect();
    let defences = smoothed.iter().map(|(fine, certified)| match &fine.params.tuning {
        fine_tune::Tuning::Robust(config) => (config.defence, certified.sigma),
        _ => panic!("{}", fine.label),
    });
    let noise = [0.12, 0.25, 0.5].map(|deviation| (Defence::Noise { deviation }, deviation));
    assert_eq!(defences.collect::<Vec<_>>(), [vec![(Defence::None, 0.25)], noise.to_vec()].concat());
    for (fine, certified) in smoothed {
        assert!(fine.encoder.is_none() && fine.params.labels.count() == 6000, "{}", fine.label);
        assert!([0.0, 0.25, 0.5, 0.75].iter().all(|radius| certified.radii.contains(radius)));
        assert!(certified.attacked.contains(&0.5) && certified.images <= case.setting.measure.attacked);
    }
}

#[test]
fn a_fine_tuning_that_is_not_smoothed_has_the_description_that_it_had_before() {
    let case = cases::of(&ask(Tier::Standard, None)).unwrap().unwrap();
    let plain = case.tunings.iter().find(|fine| fine.params.certified.is_none()).unwrap();
    let json = serde_json::to_value(&plain.params).unwrap();
    assert!(json.get("certified").is_none());
    assert_eq!(serde_json::from_value::<fine_tune::TuningParams>(json).unwrap(), plain.params);
}

#[test]
fn the_rate_of_the_paper_tier_falls_after_the_published_epochs() {
    let case = cases::paper(ImageSet::Cifar10);
    let params = &case.tunings[0].params;
    let schedule = params.schedule(100, params.epochs);
    // Epochs 1 to 14, 15 to 19, and 20 to 25, of a hundred steps each.
    for (step, rate) in [(0, 0.1), (1399, 0.1), (1400, 0.01), (1899, 0.01), (1900, 0.001), (2499, 0.001)] {
        assert!((schedule.learning_rate(step) / rate - 1.0).abs() < 1e-12, "step {step}");
    }
}
