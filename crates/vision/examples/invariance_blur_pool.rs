//! Compares blur pools with the outputs that `benches/peers/invariance_blur_pool.py --write FILE` made with the published package:
//!
//! ```text
//! cargo run -p vision --example invariance_blur_pool -- FILE
//! ```

use anyhow::Context;
use core_tensor::checkpoint::read_safetensors;
use std::path::PathBuf;
use vision::invariance::{BlurConfig, BlurPadding, BlurPool2d};

fn main() -> anyhow::Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).context("usage: invariance_blur_pool FILE")?);
    let tensors = read_safetensors(&file)?;
    let (mut compared, mut largest) = (0, 0.0_f64);
    for (name, expected) in tensors.iter().filter(|(name, _)| !name.starts_with("input")) {
        let parts: Vec<&str> = name.split('.').collect();
        let &[mode, kernel, side] = parts.as_slice() else { anyhow::bail!("`{name}` is no padding.kernel.side") };
        let padding = match mode {
            "reflect" => BlurPadding::Reflect,
            "replicate" => BlurPadding::Replicate,
            "zero" => BlurPadding::Zeros,
            other => anyhow::bail!("unknown padding `{other}`"),
        };
        let input = tensors.get(&format!("input.{side}")).with_context(|| format!("no input of side {side}"))?;
        let pool = BlurPool2d::new(input.size()[1], BlurConfig { kernel: kernel.parse()?, padding, stride: 2 })?;
        let found = pool.pool(input)?;
        anyhow::ensure!(found.size() == expected.size(), "{name}: {:?}, expected {:?}", found.size(), expected.size());
        largest = largest.max((found - expected).abs().max().double_value(&[]));
        compared += 1;
    }
    println!("{compared} outputs compared, largest difference {largest:e}");
    anyhow::ensure!(compared > 0 && largest < 1e-6, "they differ");
    Ok(())
}
