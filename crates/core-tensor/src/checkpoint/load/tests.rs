use super::*;
use crate::checkpoint::{Rename, Tolerance};
use tch::{Device, nn};

/// One convolution, one batch norm, one head of two classes.
fn model() -> VarStore {
    let variables = VarStore::new(Device::Cpu);
    let root = variables.root();
    nn::conv2d(&root / "conv1", 1, 2, 3, nn::ConvConfig { bias: false, ..Default::default() });
    nn::batch_norm2d(&root / "bn1", 2, Default::default());
    nn::linear(&root / "fc", 2, 2, Default::default());
    variables
}

const NAMES: [&str; 7] =
    ["bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.weight", "conv1.weight", "fc.bias", "fc.weight"];

/// A state of sevens that fits the model, each name with `prefix` before it.
fn sevens(prefix: &str) -> IndexMap<String, Tensor> {
    let model = model().variables();
    let mut state: IndexMap<_, _> =
        model.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.detach().full_like(7.0))).collect();
    state.sort_keys();
    state
}

fn sum(variables: &VarStore, name: &str) -> f64 {
    variables.variables()[name].sum(Kind::Double).double_value(&[])
}

/// Copies of all values, to tell whether a refusal touched any.
fn snapshot(variables: &VarStore) -> IndexMap<String, Tensor> {
    let mut values: IndexMap<_, _> =
        variables.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    values.sort_keys();
    values
}

fn assert_untouched(variables: &VarStore, before: &IndexMap<String, Tensor>) {
    for (name, tensor) in variables.variables() {
        assert!(tensor.equal(&before[&name]), "{name} changed");
    }
}

#[test]
fn a_state_that_fits_is_loaded_whole() {
    let variables = model();
    let report = load_state(&variables, &sevens(""), &LoadPolicy::strict()).unwrap();
    assert_eq!(report, LoadReport { loaded: NAMES.map(String::from).to_vec(), ..Default::default() });
    // Two filters of 1 × 3 × 3 sevens.
    assert_eq!(sum(&variables, "conv1.weight"), 2.0 * 9.0 * 7.0);
    assert!(variables.variables()["conv1.weight"].requires_grad());
}

#[test]
fn missing_and_unexpected_names_are_refused_together_and_nothing_is_copied() {
    let variables = model();
    let before = snapshot(&variables);
    let mut state = sevens("");
    state.shift_remove("fc.bias");
    state.insert("head.weight".into(), Tensor::from(1.0));
    let error = load_state(&variables, &state, &LoadPolicy::strict()).unwrap_err();
    let Error::Names { missing, unexpected } = error else { panic!("{error}") };
    assert_eq!((missing, unexpected), (vec!["fc.bias".to_owned()], vec!["head.weight".to_owned()]));
    assert_untouched(&variables, &before);
}

#[test]
fn another_shape_is_refused_with_both_shapes_and_nothing_is_copied() {
    let variables = model();
    let before = snapshot(&variables);
    let mut state = sevens("");
    state["fc.weight"] = Tensor::zeros([1000, 2], (Kind::Float, Device::Cpu));
    let message = load_state(&variables, &state, &LoadPolicy::strict()).unwrap_err().to_string();
    assert_eq!(message, "`fc.weight`: expected Float [2, 2], found Float [1000, 2]");
    assert_untouched(&variables, &before);
}

#[test]
fn integers_do_not_pass_for_weights_but_half_precision_does() {
    let variables = model();
    let mut state = sevens("");
    state["fc.bias"] = state["fc.bias"].to_kind(Kind::Int64);
    let message = load_state(&variables, &state, &LoadPolicy::strict()).unwrap_err().to_string();
    assert_eq!(message, "`fc.bias`: expected Float [2], found Int64 [2]");
    state["fc.bias"] = state["fc.bias"].to_kind(Kind::Half);
    load_state(&variables, &state, &LoadPolicy::strict()).unwrap();
    assert_eq!(sum(&variables, "fc.bias"), 14.0);
    assert_eq!(variables.variables()["fc.bias"].kind(), Kind::Float);
}

#[test]
fn batch_counters_are_tolerated_and_data_parallel_prefixes_stripped() {
    let variables = model();
    let mut state = sevens("module.");
    state.insert("module.bn1.num_batches_tracked".into(), Tensor::from(100_i64));
    let report = load_state(&variables, &state, &LoadPolicy::strict()).unwrap();
    assert_eq!(report.loaded, NAMES);
    assert_eq!(report.ignored, ["module.bn1.num_batches_tracked"]);
}

#[test]
fn an_exact_name_is_never_stripped() {
    let variables = VarStore::new(Device::Cpu);
    nn::linear(variables.root() / "model", 1, 1, Default::default());
    let state = IndexMap::from_iter(
        ["model.bias", "model.weight"]
            .map(|name| (name.to_owned(), variables.variables()[name].detach().full_like(7.0))),
    );
    let report = load_state(&variables, &state, &LoadPolicy::strict()).unwrap();
    assert_eq!(report.loaded, ["model.bias", "model.weight"]);
}

#[test]
fn a_momentum_contrast_file_gives_its_query_encoder_without_the_projection_head() {
    let variables = model();
    let head_before = sum(&variables, "fc.weight");
    let mut state = sevens("module.encoder_q.");
    state.retain(|name, _| !name.contains("fc."));
    state.insert("module.encoder_q.fc.0.weight".into(), Tensor::zeros([8, 2], (Kind::Float, Device::Cpu)));
    state.insert("module.encoder_q.bn1.num_batches_tracked".into(), Tensor::from(5_i64));
    state.extend(sevens("module.encoder_k."));
    state.insert("module.queue".into(), Tensor::zeros([8, 16], (Kind::Float, Device::Cpu)));
    let policy = LoadPolicy { select: Some("encoder_q.".into()), ..LoadPolicy::without(["fc."]) };
    let report = load_state(&variables, &state, &policy).unwrap();
    assert_eq!(report.loaded, NAMES[..5]);
    assert_eq!((report.missing.len(), report.unexpected.len(), report.mismatched.len()), (0, 0, 0));
    assert_eq!(sum(&variables, "conv1.weight"), 126.0);
    assert_eq!(sum(&variables, "fc.weight"), head_before);
}

#[test]
fn overlap_loads_what_fits_and_reports_the_rest() {
    let variables = model();
    let mut state = sevens("");
    state["fc.weight"] = Tensor::zeros([1000, 2], (Kind::Float, Device::Cpu));
    state.shift_remove("fc.bias");
    state.insert("extra".into(), Tensor::from(1.0));
    let report = load_state(&variables, &state, &LoadPolicy::overlap()).unwrap();
    assert_eq!(report.loaded, NAMES[..5]);
    assert_eq!(report.missing, ["fc.bias"]);
    assert_eq!(report.unexpected, ["extra"]);
    let [mismatch] = report.mismatched.as_slice() else { panic!("{report:?}") };
    assert_eq!((mismatch.name.as_str(), mismatch.found.as_str()), ("fc.weight", "Float [1000, 2]"));
}

#[test]
fn a_file_of_which_nothing_fits_is_refused_even_by_overlap() {
    let variables = model();
    let state = IndexMap::from([("other.weight".to_owned(), Tensor::from(1.0))]);
    let error = load_state(&variables, &state, &LoadPolicy::overlap()).unwrap_err();
    let Error::Names { missing, unexpected } = error else { panic!("{error}") };
    assert_eq!((missing.len(), unexpected), (NAMES.len(), vec!["other.weight".to_owned()]));
}

#[test]
fn a_file_whose_shapes_all_differ_is_refused_by_shape_even_by_overlap() {
    let variables = VarStore::new(Device::Cpu);
    nn::linear(variables.root() / "fc", 2, 2, Default::default());
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let state = IndexMap::from([("fc.bias".to_owned(), zeros(&[3])), ("fc.weight".to_owned(), zeros(&[3, 2]))]);
    let error = load_state(&variables, &state, &LoadPolicy::overlap()).unwrap_err().to_string();
    assert_eq!(error, "`fc.bias`: expected Float [2], found Float [3] (and 1 more that differ)");
}

#[test]
fn tolerances_reach_only_as_far_as_their_prefixes() {
    let variables = model();
    let mut state = sevens("");
    state.shift_remove("fc.bias");
    let under = |prefix: &str| Tolerance::Under(vec![prefix.into()]);
    let policy = LoadPolicy { missing: under("fc."), ..LoadPolicy::strict() };
    assert_eq!(load_state(&variables, &state, &policy).unwrap().missing, ["fc.bias"]);
    state.shift_remove("bn1.bias");
    let error = load_state(&variables, &state, &policy).unwrap_err();
    assert!(matches!(error, Error::Names { missing, .. } if missing == ["bn1.bias"]));
}

#[test]
fn two_tensors_for_one_variable_are_refused_under_any_policy() {
    let variables = model();
    let mut state = sevens("");
    state.extend(sevens("module."));
    let error = load_state(&variables, &state, &LoadPolicy::overlap()).unwrap_err().to_string();
    assert!(error.contains("both `bn1.bias` and `module.bn1.bias`"), "{error}");
}

#[test]
fn renamed_segments_find_their_variables() {
    let variables = model();
    let state = sevens("").into_iter().map(|(name, tensor)| (name.replace("fc.", "linear."), tensor)).collect();
    let policy = LoadPolicy { rename: Rename::from_shortcut_style(), ..LoadPolicy::strict() };
    assert_eq!(load_state(&variables, &state, &policy).unwrap().loaded, NAMES);
}

#[test]
fn comparing_lists_every_difference_and_copies_nothing() {
    let variables = model();
    let before = snapshot(&variables);
    let mut state = sevens("");
    state["fc.weight"] = Tensor::zeros([1000, 2], (Kind::Float, Device::Cpu));
    state.shift_remove("fc.bias");
    let report = compare_state(&variables, &state, &LoadPolicy::strict()).unwrap();
    assert_eq!((report.loaded.len(), report.missing.len(), report.mismatched.len()), (5, 1, 1));
    assert_untouched(&variables, &before);
}
