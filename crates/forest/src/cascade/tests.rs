use super::*;
use crate::HardForestParams;
use serde_json::{Value, json};

/// A cascade of two folds of hard trees behind 2 x 2 windows on 3 x 4 images, as its file's header and numbers.
fn stored() -> Result<(Value, Vec<f32>)> {
    let (x, labels) = crate::synthetic::blobs(40, 12, 2, 4.0, 1);
    let hard = Forest::Hard(HardForestParams { trees: 3, ..HardForestParams::default() });
    let scanning = Scanning {
        height: 3,
        width: 4,
        windows: vec![Window { size: 2, stride: 1 }],
        forests: vec![hard.clone()],
        pool: 1,
        fit_windows: 2,
    };
    let params = DeepForestParams {
        forests: vec![hard],
        folds: 2,
        max_layers: 1,
        scanning: Some(scanning),
        ..DeepForestParams::default()
    };
    store::from_bytes(KIND, &params.fit(x.view(), ndarray::aview1(&labels))?.to_bytes()?)
}

/// Moves the last tree of a forest's first fold to the front of its second: the file's numbers stay in order.
fn move_a_tree(forest: &mut Value) {
    let folds = &mut forest["Hard"];
    let tree = folds[0]["trees"].as_array_mut().and_then(Vec::pop);
    if let (Some(tree), Some(trees)) = (tree, folds[1]["trees"].as_array_mut()) {
        trees.insert(0, tree);
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() -> Result<()> {
    let (good, numbers) = stored()?;
    let model = DeepForest::from_bytes(&store::to_bytes(KIND, &good, &numbers)?)?;
    model.predict_proba(Array2::zeros((1, 12)).view())?;
    #[allow(clippy::type_complexity)]
    let table: [(fn(&mut Value), &str); 7] = [
        (|header| header["scanner"]["settings"]["height"] = json!(4), "scanned samples"),
        (|header| header["scanner"]["settings"]["width"] = json!(3), "scanned samples"),
        (|header| header["scanner"]["settings"]["height"] = json!(u64::MAX), "scanned samples"),
        (|header| header["columns"] = json!(11), "scanned samples"),
        (|header| move_a_tree(&mut header["layers"][0][0]), "differ in their trees"),
        (|header| move_a_tree(&mut header["scanner"]["grains"][0][0]), "differ in their trees"),
        (|header| header["classes"] = json!(3), "differ in their classes"),
    ];
    for (index, (edit, said)) in table.into_iter().enumerate() {
        let mut header = good.clone();
        edit(&mut header);
        assert_ne!(header, good, "{index}");
        match DeepForest::from_bytes(&store::to_bytes(KIND, &header, &numbers)?) {
            Err(ForestError::Malformed(what)) => assert!(what.contains(said), "{index}: {what}"),
            other => panic!("{index}: {other:?}"),
        }
    }
    Ok(())
}
