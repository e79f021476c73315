use super::*;
use crate::criterion::Magnitude;
use crate::{Prunable, PruningSchedule, Selector};
use core_tensor::checkpoint::state_of;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use tch::{Device, Kind};

fn resnet(classes: i64) -> nn::VarStore {
    let store = nn::VarStore::new(Device::Cpu);
    Architecture::cifar_resnet(8, classes).unwrap().build(&store.root(), &Standard).unwrap();
    store
}

fn ticket(store: &nn::VarStore) -> Ticket {
    let prunable = Prunable::conv_only();
    let weights = prunable.select_from(store).unwrap();
    let mask = PruningSchedule::OneShot { density: 0.3 }.prune(&weights, &Magnitude, &Selector::global()).unwrap();
    let record =
        MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable, source: Some("run".into()) };
    Ticket::new(mask, &state_of(store), record, Rewind::Step(40), 40).unwrap()
}

#[test]
fn a_ticket_survives_a_file() {
    let store = resnet(10);
    let ticket = ticket(&store);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.safetensors");
    ticket.save(&path).unwrap();
    let read = Ticket::load(&path).unwrap();
    assert_eq!((read.mask(), read.record()), (ticket.mask(), ticket.record()));
    assert_eq!(read.mask().digest(), ticket.mask().digest());
    assert_eq!(read.start().len(), ticket.start().len());
    assert!(read.start().iter().all(|(name, tensor)| tensor.equal(&ticket.start()[name])));

    // 76,720 convolution weights at one bit; the file is the dense weights plus 1/32 of that, and a header.
    let size = std::fs::metadata(&path).unwrap().len() as usize;
    let dense: usize = ticket.start().values().map(|tensor| 4 * tensor.numel()).sum();
    assert!(size < dense + 76_720 / 8 + 12_000, "{size} bytes");
}

#[test]
fn applying_a_ticket_sets_masked_weights_and_all_statistics() {
    let store = resnet(10);
    let ticket = ticket(&store);
    let other = resnet(10);
    no_grad(|| other.variables().into_values().for_each(|mut variable| drop(variable.f_add_scalar_(1.0).unwrap())));
    ticket.apply(&other).unwrap();
    let materialised = ticket.materialise().unwrap();
    for (name, variable) in other.variables() {
        assert!(variable.equal(&materialised[&name]), "{name}");
    }
    let zeros = materialised["conv1.weight"].eq(0.0).sum(Kind::Int64).int64_value(&[]);
    let mask = &ticket.mask()["conv1.weight"];
    assert!(zeros as usize >= mask.weights() - mask.survivors());
    // The ticket itself keeps the weights that the mask hides.
    assert!(ticket.start()["conv1.weight"].equal(&store.variables()["conv1.weight"]));
}

#[test]
fn a_ticket_for_another_architecture_changes_nothing() {
    let ticket = ticket(&resnet(10));
    let other = resnet(7);
    let before = copies(&state_of(&other));
    let refused = ticket.apply(&other).unwrap_err().to_string();
    assert!(refused.contains("`fc.bias` is [10] in the ticket and [7] in the model"), "{refused}");
    assert!(other.variables().iter().all(|(name, tensor)| tensor.equal(&before[name])));

    let linear = nn::VarStore::new(Device::Cpu);
    nn::linear(linear.root() / "fc", 2, 2, Default::default());
    assert!(matches!(ticket.apply(&linear), Err(Error::OtherArchitecture { .. })));
}

#[test]
fn a_ticket_goes_to_a_network_for_other_classes() {
    let (source, other) = (resnet(10), resnet(7));
    let ticket = ticket(&source);
    // Statistics of the source's own, and weights that the mask must clear.
    no_grad(|| other.variables().into_values().for_each(|mut variable| drop(variable.f_add_scalar_(1.0).unwrap())));
    let before = copies(&state_of(&other));
    let (report, _masked) = ticket.transfer(&other, Pretrained::Torchvision, ["fc."]).unwrap();
    assert!(report.missing.is_empty() && report.mismatched.is_empty() && !report.loaded.is_empty(), "{report:?}");
    let materialised = ticket.materialise().unwrap();
    for (name, variable) in other.variables() {
        let expected = if name.starts_with("fc.") { &before[&name] } else { &materialised[&name] };
        assert!(variable.equal(expected), "{name}");
    }
}

#[test]
fn a_ticket_whose_mask_or_weights_do_not_fit_another_task_changes_nothing() {
    let (source, mut other) = (resnet(10), resnet(7));
    let ticket = ticket(&source);
    let before = copies(&state_of(&other));
    let unchanged = |store: &nn::VarStore| store.variables().iter().all(|(name, tensor)| tensor.equal(&before[name]));
    // The mask covers the ten classes' head, whose weights stay behind.
    let prunable = Prunable::conv_and_linear();
    let with_head = MaskSet::ones_like(&prunable.select_from(&source).unwrap());
    let with_head = ticket.with_mask(with_head, MaskRecord { prunable, ..MaskRecord::default() }).unwrap();
    let refused = with_head.transfer(&other, Pretrained::Torchvision, ["fc."]).unwrap_err().to_string();
    assert_eq!(refused, "`fc.weight`: expected a tensor of shape [10, 64], found [7, 64]");
    assert!(unchanged(&other));
    let no_heads: [&str; 0] = [];
    assert!(ticket.transfer(&other, Pretrained::Torchvision, no_heads).is_err());
    assert!(unchanged(&other));
    other.freeze();
    assert!(ticket.transfer(&other, Pretrained::Torchvision, ["fc."]).is_err());
    assert!(unchanged(&other));
}

#[test]
fn a_mask_of_what_its_record_excepts_is_no_ticket() {
    let store = resnet(10);
    let ticket = ticket(&store);
    let excepting = MaskRecord { prunable: Prunable::conv_only().except(["conv1.weight"]), ..MaskRecord::default() };
    let refused = ticket.with_mask(ticket.mask().clone(), excepting.clone()).unwrap_err().to_string();
    assert!(refused.starts_with("`conv1.weight`: expected no mask where the record prunes"), "{refused}");
    assert!(Ticket::new(ticket.mask().clone(), ticket.start(), excepting.clone(), Rewind::Init, 0).is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.safetensors");
    let record = TicketRecord { mask: excepting, ..ticket.record().clone() };
    Ticket { record, ..ticket }.save(&path).unwrap();
    assert!(matches!(Ticket::load(&path), Err(Error::Mismatch { name, .. }) if name == "conv1.weight"));
}

#[test]
fn a_ticket_for_a_frozen_model_changes_nothing() {
    let ticket = ticket(&resnet(10));
    let mut frozen = resnet(10);
    frozen.freeze();
    let before = copies(&state_of(&frozen));
    let refused = ticket.apply(&frozen).unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, Error::Mismatch { .. }));
    assert!(said.starts_with("`conv1.weight`: expected a trainable variable, found a frozen one"), "{said}");
    assert!(frozen.variables().iter().all(|(name, tensor)| tensor.equal(&before[name])));
    frozen.unfreeze();
    ticket.apply(&frozen).unwrap();
    assert!(!frozen.variables()["conv1.weight"].equal(&before["conv1.weight"]));
}

#[test]
fn counters_of_batches_that_a_model_keeps_are_left_alone() {
    // As a model has them that loads PyTorch's state dicts by name.
    let store = resnet(10);
    let mut counter = (store.root() / "bn1").zeros_no_train("num_batches_tracked", &[]);
    let _ = counter.f_add_scalar_(3.0).unwrap();
    let weights = copies(&state_of(&store));
    let _ = counter.f_add_scalar_(4.0).unwrap();
    let ticket = ticket(&store);
    ticket.apply(&store).unwrap();
    restore(&weights, &store).unwrap();
    assert_eq!(counter.double_value(&[]), 7.0);
    assert_eq!(ticket.record().architecture, architecture_digest(&store.variables().into_iter().collect()));
    ticket.apply(&resnet(10)).unwrap();
}

#[test]
fn masks_and_weights_are_exchanged_one_at_a_time() {
    let store = resnet(10);
    let ticket = ticket(&store);
    let random = ticket.mask().shuffle_within_layers(3);
    let control = ticket.with_mask(random.clone(), MaskRecord::default()).unwrap();
    assert_eq!(control.mask(), &random);
    assert_eq!(control.start()["conv1.weight"].data_ptr(), ticket.start()["conv1.weight"].data_ptr());
    let elsewhere = ticket.with_start(&state_of(&resnet(10)), Rewind::Init, 0).unwrap();
    assert_eq!((elsewhere.mask(), elsewhere.record().start_step), (ticket.mask(), 0));
    let absent = ticket.with_start(&NamedTensors::new(), Rewind::Init, 0).unwrap_err().to_string();
    assert!(absent.contains("no such tensor"), "{absent}");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.safetensors");
    let ticket = ticket(&resnet(10));
    ticket.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let refused = Ticket::load(&path).unwrap_err().to_string();
        assert!(refused.contains("ticket.safetensors"), "{refused}");
    }
    ticket.mask().save(&path, &MaskRecord::default()).unwrap();
    assert!(Ticket::load(&path).unwrap_err().to_string().contains("expected schema `lth.ticket`, found `lth.mask`"));

    let mut other = ticket.record().clone();
    other.architecture = "0".into();
    Ticket { record: other, ..ticket }.save(&path).unwrap();
    assert!(Ticket::load(&path).unwrap_err().to_string().contains("expected weights of architecture 0"));
}
