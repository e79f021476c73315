//! Clean images, attacked ones, and the difference for the eye.

use super::cases::RADIUS;
use super::evaluate::{Subject, pgd};
use crate::RunContext;
use contrast::attack::{Attack, Goal};
use tch::{Kind, Tensor};

/// Images in a picture.
const COLUMNS: i64 = 10;
/// Height of an image in the picture, about.
const HEIGHT: i64 = 84;
/// Grey pixels between images.
const GAP: i64 = 2;

/// Saves the first test images, clean, attacked by PGD, and their difference from −ε (black) to ε (white).
pub(super) fn save(subject: &Subject, seed: u64, name: &str, context: &mut RunContext) -> anyhow::Result<()> {
    let (images, labels) = subject.block(0, COLUMNS as usize);
    let model = |images: &Tensor| (subject.logits)(images);
    let attack = pgd(RADIUS, subject.measure.steps);
    let moved = attack.run(&model, &images, &Goal::untargeted(&labels), seed)?.images;
    let rows = [&images, &moved, &difference(&images, &moved)].map(row);
    let picture = (Tensor::cat(&rows, 1).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    context.save_artifact(name, |path| {
        // The encoder goes by the file's extension, which a temporary name need not have.
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("picture.png");
        tch::vision::image::save(&picture, &file)?;
        std::fs::copy(&file, path)?;
        Ok(())
    })
}

/// `(x' − x) / 2ε + ½`.
pub(super) fn difference(images: &Tensor, moved: &Tensor) -> Tensor {
    (moved - images) / (2.0 * RADIUS) + 0.5
}

/// Images side by side, magnified, as `[3, height, width]`.
fn row(images: &Tensor) -> Tensor {
    let [_, _, height, width] = [0, 1, 2, 3].map(|axis| images.size()[axis]);
    let zoom = (HEIGHT / height).max(1);
    let large = images.upsample_nearest2d([height * zoom, width * zoom], None, None);
    let framed = large.pad([GAP, GAP, GAP, GAP], "constant", 0.5);
    let line = Tensor::cat(&framed.unbind(0), 2);
    if line.size()[0] == 1 { line.repeat([3, 1, 1]) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_row_is_as_wide_as_its_images_and_keeps_their_values() {
        let images = (Tensor::arange(10 * 4, (Kind::Float, Device::Cpu)) / 40.0).view([10, 1, 2, 2]);
        let row = row(&images);
        assert_eq!(row.size(), [3, HEIGHT + 2 * GAP, 10 * (HEIGHT + 2 * GAP)]);
        assert_eq!(row.double_value(&[0, GAP, GAP]), 0.0);
        // The second image's first pixel is 4/40.
        let second = row.double_value(&[2, GAP + 1, HEIGHT + 3 * GAP + 2]);
        assert!((second - 0.1).abs() < 1e-6, "{second}");
    }

    #[test]
    fn the_budget_spans_black_to_white() {
        let images = Tensor::from_slice(&[0.5_f32, 0.5, 0.5]);
        let moved = Tensor::from_slice(&[0.5 - RADIUS as f32, 0.5, 0.5 + RADIUS as f32]);
        let found = difference(&images, &moved);
        // f32 differences of numbers near .5, divided by .06.
        assert!((found - Tensor::from_slice(&[0.0_f32, 0.5, 1.0])).abs().max().double_value(&[]) < 1e-5);
    }
}
