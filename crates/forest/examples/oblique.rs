//! Trains on two tilted half planes, explains one decision in words, and writes the first tree as an SVG.
//!
//! cargo run --release -p forest --example oblique -- tree.svg

use forest::synthetic::oblique_xor;
use forest::{Drawing, Leafness, Names, Optimiser, Regularisers, SoftForestParams};
use ndarray::aview1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = oblique_xor(2000, 4, 0.6, 1);
    let (test_x, test_y) = oblique_xor(1000, 4, 0.6, 2);
    let forest = SoftForestParams::default()
        .trees(5)
        .depth(5)
        .epochs(40)
        .batch(64)
        .leafness(Leafness::Logit { init: 0.0 })
        .regularisers(Regularisers { size: 3e-3, ..Regularisers::default() })
        .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() })
        .fit(x.view(), aview1(&y))?;
    println!("accuracy {:.3}", forest.score(test_x.view(), aview1(&test_y))?);
    println!("{:#?}", forest.complexity());
    println!("leafness by depth {:.2?}", forest.leafness_by_depth());
    println!("importance {:.2?}", forest.feature_importance(test_x.view())?);
    let names = Names {
        columns: ["north", "east", "noise", "more noise"].map(str::to_owned).to_vec(),
        classes: ["same side", "other side"].map(str::to_owned).to_vec(),
    };
    let row = test_x.row(0).to_vec();
    println!("{}", forest.explain(&row, 2)?.to_text(&names));
    println!("{}", forest.tree_rules(0, &names)?);
    if let Some(path) = std::env::args().nth(1) {
        let drawing = Drawing { names, image: None };
        std::fs::write(path, forest.tree_svg(0, &drawing)?)?;
    }
    Ok(())
}
