//! A cascade of soft and hard forests, layer by layer.
//!
//! cargo run --release -p forest --example cascade

use forest::synthetic::blobs;
use forest::{DeepForestParams, Forest, HardForestParams, HardKind, SoftForestParams};
use ndarray::aview1;

fn main() -> forest::Result<()> {
    let (x, y) = blobs(2000, 10, 8, 2.5, 1);
    let (test_x, test_y) = blobs(2000, 10, 8, 2.5, 2);
    let soft = SoftForestParams::default().batch(64);
    let hard = |kind| Forest::Hard(HardForestParams { kind, ..HardForestParams::default() });
    for (name, forests) in [
        ("15 soft trees a layer", vec![Forest::Soft(Box::new(soft))]),
        (
            "random and completely random trees, 100 each a layer",
            vec![hard(HardKind::RandomForest), hard(HardKind::CompletelyRandom)],
        ),
    ] {
        let params = DeepForestParams { forests, max_layers: 4, ..DeepForestParams::default() };
        let model = params.fit(x.view(), aview1(&y))?;
        println!(
            "{name}: test accuracy {:.3}, {} layers kept, out-of-fold scores {:.3?}, {} trees, {} numbers",
            model.score(test_x.view(), aview1(&test_y))?,
            model.layers(),
            model.layer_scores(),
            model.trees(),
            model.scalars()
        );
    }
    Ok(())
}
