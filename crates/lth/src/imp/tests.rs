use super::*;
use crate::criterion::{FilterNorm, Magnitude, Rank, Scores};
use crate::rewind::copies;
use crate::schedule::PruningSchedule;
use core_tensor::checkpoint::state_of;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use std::cell::RefCell;
use tch::{Device, no_grad};

fn lenet() -> nn::VarStore {
    let store = nn::VarStore::new(Device::Cpu);
    Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard).unwrap();
    store
}

fn config(rounds: u32) -> ImpConfig {
    ImpConfig { rounds, source: Some("test".into()), ..ImpConfig::default() }
}

fn collect(imp: &mut Imp, mut train: impl FnMut(u32, &MaskSet) -> Result<()>) -> Result<Vec<Ticket>> {
    let mut tickets = Vec::new();
    while let Some(ticket) = imp.next_round(&mut train)? {
        tickets.push(ticket);
    }
    Ok(tickets)
}

/// A training that moves weights in a way that depends on the round.
fn shift(store: &nn::VarStore) -> impl FnMut(u32, &MaskSet) -> Result<()> {
    let weights = crate::trainable_variables(store);
    move |round, mask| {
        for (_, weight) in &weights {
            let places = weight.detach().view(-1).cumsum(0, None::<tch::Kind>).view(weight.size().as_slice());
            no_grad(|| weight.shallow_clone().copy_(&(places * (1.0 + f64::from(round))).sin()));
        }
        mask.apply(&weights)
    }
}

#[test]
fn without_training_the_rounds_are_the_one_shot_ladder() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let mut seen = Vec::new();
    let mut imp = Imp::new(config(4), &store, &start, &Magnitude).unwrap();
    let tickets = collect(&mut imp, |round, mask| {
        seen.push((round, mask.survivors()));
        Ok(())
    })
    .unwrap();
    let weights = Prunable::default().select_from(&store).unwrap();
    let mut left = 265_200; // 266,200 weights but for the classifier's 1,000
    for (rounds, ticket) in (1..).zip(&tickets) {
        restore(&start, &store).unwrap();
        let ladder = PruningSchedule::Iterative { rate: 0.2, rounds };
        assert_eq!(*ticket.mask(), ladder.prune(&weights, &Magnitude, &Selector::global()).unwrap());
        left -= (0.2 * f64::from(left)).round_ties_even() as i32;
        assert_eq!(ticket.mask().survivors(), left as usize);
    }
    assert_eq!(seen, [(0, 265_200), (1, 212_160), (2, 169_728), (3, 135_782)]);
    assert_eq!(tickets.len(), 4);
}

#[test]
fn every_round_trains_the_masked_start_weights() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let weights = crate::trainable_variables(&store);
    let mut shifting = shift(&store);
    let mut imp = Imp::new(config(3), &store, &start, &Magnitude).unwrap();
    collect(&mut imp, |round, mask| {
        let expected = Ticket::new(mask.clone(), &start, MaskRecord::default(), Rewind::Init, 0)?.materialise()?;
        assert!(weights.iter().all(|(name, weight)| weight.equal(&expected[name])), "round {round}");
        shifting(round, mask)
    })
    .unwrap();
}

#[test]
fn a_search_rewinds_although_its_start_is_the_models_live_state() {
    let store = lenet();
    let before = copies(&state_of(&store));
    for first_round in [FirstRound::TrainFirst, FirstRound::PruneImmediately] {
        restore(&before, &store).unwrap();
        let config = ImpConfig { first_round, ..config(3) };
        let live = state_of(&store);
        let tickets = collect(&mut Imp::new(config, &store, &live, &Magnitude).unwrap(), shift(&store)).unwrap();
        assert!(!live["fc1.weight"].equal(&before["fc1.weight"]));
        for (name, tensor) in tickets.iter().flat_map(Ticket::start) {
            assert!(tensor.equal(&before[name]), "{name}");
        }
    }
}

#[test]
fn all_tickets_of_a_search_share_one_copy_of_its_start() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let folder = tempfile::tempdir().unwrap();
    let search = || Imp::new(config(2), &store, &start, &Magnitude).unwrap().in_folder(folder.path());
    let place = |ticket: &Ticket| ticket.start()["fc1.weight"].data_ptr();
    // Found, then read from the folder.
    for _ in 0..2 {
        let tickets = collect(&mut search(), shift(&store)).unwrap();
        assert_eq!(place(&tickets[0]), place(&tickets[1]));
        assert_ne!(place(&tickets[0]), start["fc1.weight"].data_ptr());
        assert!(tickets[1].start()["fc1.weight"].equal(&start["fc1.weight"]));
    }
}

#[test]
fn rounds_start_from_the_running_statistics_too() {
    let store = nn::VarStore::new(Device::Cpu);
    Architecture::cifar_resnet(8, 10).unwrap().build(&store.root(), &Standard).unwrap();
    let start = copies(&state_of(&store));
    let statistics: Vec<_> = store.variables().into_keys().filter(|name| name.contains("running_")).collect();
    assert_eq!(statistics.len(), 2 * 9);
    // Equal weights all go by their place, so that layers ranked together would be emptied.
    let config = ImpConfig { prunable: Prunable::conv_only(), selector: Selector::per_layer(), ..config(3) };
    let mut imp = Imp::new(config, &store, &start, &Magnitude).unwrap();
    let mut rounds = 0;
    collect(&mut imp, |_, mask| {
        let variables = store.variables();
        for (name, variable) in variables.iter().filter(|(name, _)| mask.get(name).is_none()) {
            assert!(variable.equal(&start[name]), "{name}");
        }
        no_grad(|| variables.into_values().for_each(|mut variable| drop(variable.fill_(7.0))));
        rounds += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(rounds, 3);
}

#[test]
fn an_interrupted_search_goes_on_where_it_stopped() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let undisturbed = collect(&mut Imp::new(config(4), &store, &start, &Magnitude).unwrap(), shift(&store)).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let search = || Imp::new(config(4), &store, &start, &Magnitude).unwrap().in_folder(folder.path());
    let mut training = shift(&store);
    let failing = |round, mask: &MaskSet| {
        if round == 2 {
            return Err(Error::setting("disk", "not full", "full"));
        }
        training(round, mask)
    };
    let failed = collect(&mut search(), failing).unwrap_err().to_string();
    assert_eq!(failed, "training of round 2: disk is full, expected not full");

    let (rounds, mut training) = (RefCell::new(Vec::new()), shift(&store));
    let tickets = collect(&mut search(), |round, mask| {
        rounds.borrow_mut().push(round);
        training(round, mask)
    })
    .unwrap();
    assert_eq!(*rounds.borrow(), [2, 3]);
    assert!(tickets.iter().zip(&undisturbed).all(|(a, b)| a.mask() == b.mask()));

    // All there: nothing is trained again.
    let again = collect(&mut search(), |round, _| panic!("round {round} is on disk")).unwrap();
    assert!(again.iter().zip(&undisturbed).all(|(a, b)| a.mask() == b.mask()));
}

#[test]
fn a_folder_that_is_not_there_is_made_before_anything_is_trained() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let folder = tempfile::tempdir().unwrap();
    let search = |path: PathBuf| Imp::new(config(1), &store, &start, &Magnitude).unwrap().in_folder(path);
    let rounds = folder.path().join("run/rounds");
    collect(&mut search(rounds.clone()), |_, _| Ok(())).unwrap();
    assert!(rounds.join("round-1.safetensors").exists());
    // A folder cannot lie in a file.
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let refused = collect(&mut search(file.join("rounds")), |_, _| panic!("trained for nothing")).unwrap_err();
    assert!(refused.to_string().contains("create failed"), "{refused}");
}

#[test]
fn rounds_of_another_search_are_refused() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let folder = tempfile::tempdir().unwrap();
    let first = |config: ImpConfig, start: &NamedTensors| {
        Imp::new(config, &store, start, &Magnitude)
            .unwrap()
            .in_folder(folder.path())
            .next_round(shift(&store))
            .map(drop)
    };
    first(config(2), &start).unwrap();
    let refused = first(ImpConfig { source: Some("other".into()), ..config(2) }, &start).unwrap_err().to_string();
    assert!(refused.contains("round-1.safetensors: expected a ticket of"), "{refused}");
    let mut moved = copies(&start);
    let _ = moved["fc1.bias"].f_add_scalar_(1.0).unwrap();
    let refused = first(config(2), &moved).unwrap_err().to_string();
    assert!(refused.contains("its start weights differ in `fc1.bias`"), "{refused}");
    std::fs::write(folder.path().join("round-1.safetensors"), b"half a file").unwrap();
    assert!(first(config(2), &start).unwrap_err().to_string().contains("round-1.safetensors"));
}

#[test]
fn rounds_of_other_settings_are_refused() {
    let store = lenet();
    let start = copies(&state_of(&store));
    let folder = tempfile::tempdir().unwrap();
    let search = |config: ImpConfig| {
        let mut imp = Imp::new(config, &store, &start, &Magnitude).unwrap().in_folder(folder.path());
        collect(&mut imp, shift(&store)).map(|tickets| tickets.len())
    };
    assert_eq!(search(config(2)).unwrap(), 2);
    let refused = search(ImpConfig { rate: 0.5, ..config(2) }).unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, Error::File { .. }));
    let expected = "round-1.safetensors: its mask keeps 212160 of 265200, expected 132600 at a rate of 0.5";
    assert!(said.ends_with(expected), "{said}");
    let selector = Selector { min_per_layer: 29_999, ..Selector::global() };
    let said = search(ImpConfig { selector, ..config(2) }).unwrap_err().to_string();
    assert!(said.ends_with("of `fc2.weight`, expected at least 29999"), "{said}");
    // More rounds continue the same search.
    assert_eq!(search(config(3)).unwrap(), 3);
}

/// Scores two neighbours as one, and does not tell.
struct Pairs;

impl Criterion for Pairs {
    fn name(&self) -> String {
        "pairs".into()
    }

    fn score(&self, weights: &[NamedTensor], _: Option<&MaskSet>) -> Result<Scores> {
        let pairs = |weight: &tch::Tensor| weight.detach().abs().view([-1, 2]);
        let sum = |(_, weight): &NamedTensor| pairs(weight).sum_dim_intlist(1_i64, false, tch::Kind::Float);
        Ok(Scores::of(weights, weights.iter().map(sum), Rank::Value))
    }
}

#[test]
fn searches_by_groups_of_weights_go_on_and_are_counted_where_the_groups_are_known() {
    let filters = FilterNorm::default();
    // 300 and 100 filters.
    let counted = "round-1.safetensors: its mask keeps 320 of 400, expected 200 at a rate of 0.5";
    let criteria: [(&dyn Criterion, Option<&str>); 2] = [(&filters, Some(counted)), (&Pairs, None)];
    for (criterion, refused) in criteria {
        let store = lenet();
        let start = copies(&state_of(&store));
        let folder = tempfile::tempdir().unwrap();
        let search = |rate| {
            let config = ImpConfig { rate, selector: Selector::per_layer(), ..config(2) };
            Imp::new(config, &store, &start, criterion).unwrap().in_folder(folder.path())
        };
        let found = collect(&mut search(0.2), shift(&store)).unwrap();
        let again = collect(&mut search(0.2), |round, _| panic!("round {round} is on disk")).unwrap();
        assert_eq!(again.len(), 2);
        assert!(again.iter().zip(&found).all(|(a, b)| a.mask() == b.mask()));
        let other = collect(&mut search(0.5), |round, _| panic!("round {round} is on disk"));
        match (other, refused) {
            (Err(error), Some(reason)) => assert!(error.to_string().ends_with(reason), "{error}"),
            (Ok(tickets), None) => assert_eq!(tickets.len(), 2),
            (other, _) => panic!("{}: {other:?}", criterion.name()),
        }
    }
}

#[test]
fn a_first_round_that_prunes_at_once_ranks_the_weights_as_they_are() {
    let store = lenet();
    let start = copies(&state_of(&store));
    shift(&store)(0, &MaskSet::ones_like(&[])).unwrap();
    let weights = Prunable::default().select_from(&store).unwrap();
    let expected = PruningSchedule::Iterative { rate: 0.2, rounds: 1 }.prune(&weights, &Magnitude, &Selector::global());
    let config = ImpConfig { first_round: FirstRound::PruneImmediately, ..config(1) };
    let tickets =
        collect(&mut Imp::new(config, &store, &start, &Magnitude).unwrap(), |_, _| panic!("trained")).unwrap();
    assert_eq!(*tickets[0].mask(), expected.unwrap());
    assert!(tickets[0].start()["fc1.weight"].equal(&start["fc1.weight"]));
}

#[test]
fn settings_and_weights_that_do_not_fit_are_refused() {
    let store = lenet();
    let start = copies(&state_of(&store));
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(Imp::new(ImpConfig { rate, ..config(2) }, &store, &start, &Magnitude).is_err());
    }
    let selector = Selector::layer_densities([("fc1.weight".to_owned(), 0.5)].into_iter().collect());
    let refused = Imp::new(ImpConfig { selector, ..config(2) }, &store, &start, &Magnitude).unwrap_err().to_string();
    assert_eq!(refused, "amount is Rate(0.2), expected `AsScoped` with given densities");
    let other = NamedTensors::new();
    for first_round in [FirstRound::TrainFirst, FirstRound::PruneImmediately] {
        let refused = Imp::new(ImpConfig { first_round, ..config(2) }, &store, &other, &Magnitude);
        assert!(matches!(refused, Err(Error::OtherArchitecture { .. })));
    }
}
