use super::*;
use crate::Error;
use tch::{Device, nn};

fn model() -> VarStore {
    let variables = VarStore::new(Device::Cpu);
    let root = variables.root();
    nn::conv2d(&root / "conv1", 3, 4, 3, Default::default());
    nn::batch_norm2d(&root / "layer1" / 0 / "bn1", 4, Default::default());
    nn::batch_norm1d(&root / "bn1", 4, nn::BatchNormConfig { affine: false, ..Default::default() });
    variables
}

#[test]
fn every_batch_norm_has_a_counter_and_names_are_sorted() {
    let state = state_of(&model());
    let names: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "bn1.num_batches_tracked",
            "bn1.running_mean",
            "bn1.running_var",
            "conv1.bias",
            "conv1.weight",
            "layer1.0.bn1.bias",
            "layer1.0.bn1.num_batches_tracked",
            "layer1.0.bn1.running_mean",
            "layer1.0.bn1.running_var",
            "layer1.0.bn1.weight",
        ]
    );
    let counter = &state["layer1.0.bn1.num_batches_tracked"];
    assert_eq!((counter.kind(), counter.size(), counter.int64_value(&[])), (Kind::Int64, vec![], 0));
    assert!(!state["conv1.weight"].requires_grad());
}

#[test]
fn a_saved_model_comes_back_bit_for_bit_and_is_the_same_file_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let header = Header::new("test.model", 1, serde_json::json!({"epoch": 3, "seed": u64::MAX}));
    let (saved, loaded) = (model(), model());
    save_variables(&first, &saved, &header).unwrap();
    save_variables(&second, &saved, &header).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());

    let report = load_variables(&first, &loaded, &LoadPolicy::strict()).unwrap();
    assert_eq!(report.loaded.len(), 8);
    for (name, tensor) in saved.variables() {
        assert!(tensor.equal(&loaded.variables()[&name]), "{name}");
    }
}

#[test]
fn a_truncated_file_leaves_the_model_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let variables = model();
    save_variables(&path, &variables, &Header::new("test.model", 1, ())).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let before: Vec<_> = state_of(&variables).into_iter().map(|(_, tensor)| tensor.copy()).collect();
    let error = load_variables(&path, &variables, &LoadPolicy::strict()).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    assert!(state_of(&variables).values().zip(&before).all(|(now, then)| now.equal(then)));
}

#[test]
fn a_checkpoint_of_pytorch_is_recognised_by_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, include_bytes!("../pickle/data/nested.pth")).unwrap();
    let variables = VarStore::new(Device::Cpu);
    nn::linear(variables.root() / "fc", 2, 2, Default::default());
    let report = load_variables(&path, &variables, &LoadPolicy::strict()).unwrap();
    assert_eq!(report.loaded, ["fc.bias", "fc.weight"]);
    assert_eq!(Vec::<f32>::try_from(&variables.variables()["fc.bias"]).unwrap(), [7.0, 8.0]);

    std::fs::write(&path, include_bytes!("../pickle/data/legacy.pth")).unwrap();
    let error = read_state(&path).unwrap_err().to_string();
    assert!(error.contains("model.bin") && error.contains("format before 1.6"), "{error}");
}
