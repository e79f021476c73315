//! Reads a published set and says what it is: how long it took, its classes, its channel statistics.
//!
//! `cargo run --release -p core-tensor --example data_reading -- fashion-mnist data/fashion-mnist`
//!
//! Kinds: `mnist`, `fashion-mnist`, `cifar-10`, `cifar-100` (binary), `images` (folders `train/<class>` and
//! `test/<class>` or `val/<class>`, all of one size), `omniglot` (28 × 28).

use std::path::Path;
use std::time::Instant;

use core_tensor::data::{
    Dataset, Framing, OmniglotSide, Splits, cifar10, cifar100, fashion_mnist, image_folders, mnist, omniglot,
};

fn describe(name: &str, set: &Dataset) {
    let statistics = set.statistics();
    println!("{name}: {:?} of {}", set.images().size(), set.origin());
    println!("  {} classes from {:?} to {:?}", set.classes().len(), set.classes().first(), set.classes().last());
    println!("  mean {:.4?}, standard deviation {:.4?}", statistics.mean, statistics.std);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [kind, folder] = arguments.as_slice() else {
        return Err("expected a kind and a folder".into());
    };
    let folder = Path::new(folder);
    let start = Instant::now();
    let splits = match kind.as_str() {
        "mnist" => mnist(folder)?,
        "fashion-mnist" => fashion_mnist(folder)?,
        "cifar-10" => cifar10(folder)?,
        "cifar-100" => cifar100(folder)?,
        "images" => image_folders(folder, Framing::Same, "images")?,
        "omniglot" => {
            describe("all", &omniglot(folder, OmniglotSide::Small)?);
            return Ok(());
        }
        other => return Err(format!("unknown kind `{other}`").into()),
    };
    let Splits { train, test } = splits;
    let tensors = (train.images(), train.labels(), test.images(), test.labels());
    println!("read to tensors in {:.3} s", start.elapsed().as_secs_f64());
    drop(tensors);
    describe("train", &train);
    describe("test", &test);
    Ok(())
}
