//! What a threshold buys: error, zeros and bits of one layer, beside pruning and rounding at the same number of bits.
//!
//! `cargo run --release -p quant --example compress_matrix`

use quant::smartdeal::{Baseline, DecomposeConfig, LayerShape, SdLayer, smallest_scheme, storage};
use rand::{Rng, SeedableRng};

fn main() -> Result<(), quant::Error> {
    // A 3×3 convolution whose kernel rows are smooth, as trained ones are.
    let shape = LayerShape::Conv { out_channels: 64, in_channels: 64, kernel: [3, 3] };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    let mut weights = Vec::with_capacity(shape.weights());
    for _ in 0..shape.weights() / 3 {
        let common = normal();
        weights.extend([(); 3].map(|()| 0.0589 * (0.8 * common + 0.6 * normal())));
    }

    println!("theta   zeros   ratio   error | at the same bits: k-means  8 bits  powers of 2  low rank");
    for theta in [0.004, 0.01, 0.02, 0.04, 0.08] {
        let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(theta))?.with_basis_bits(8)?;
        let bits = storage(&layer, smallest_scheme(&layer)?)?;
        let rivals = [
            Baseline::PruneKMeans { bits: 4 },
            Baseline::PruneUniform { bits: 8 },
            Baseline::PrunePowersOfTwo { bits: 4 },
            Baseline::LowRank,
        ];
        print!(
            "{theta:<6} {:5.1} %  {:5.1}   {:.3} |",
            100.0 * layer.stats().element_sparsity(),
            bits.compression_ratio(),
            layer.relative_error(&weights)?
        );
        for rival in rivals {
            let other = rival.approximate(&weights, &shape, bits.total_bits())?;
            print!("   {:.3}", other.relative_error(&weights));
        }
        println!();
    }
    Ok(())
}
