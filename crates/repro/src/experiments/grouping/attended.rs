//! Where attention falls among clutter, beside attention that sees nothing and attention that sees ink alone.

use super::scenes::{Parts, box_mask, ink_in_cells};
use crate::Metrics;
use tch::{Kind, Tensor};

/// What scenes hold, each `[scenes, 1, positions]`.
struct Places {
    /// Share of the character's box in each position.
    boxes: Tensor,
    /// The character's ink in full pixels.
    glyph: Tensor,
    /// The scraps' ink in full pixels.
    scraps: Tensor,
}

/// Of attention `[scenes, groups, height, width]`, all relative to uniform attention:
///
/// - `mass`, `mass_best`: attention inside the character's box, mean over groups and of the best group;
/// - `glyph_ink`, `scrap_ink`: attention at a pixel of the character's ink and at one of the scraps', mean over groups;
/// - `mass_blind`, `glyph_ink_blind`, `scrap_ink_blind`: the same of the mean over all scenes of each group's map, which
///   knows nothing of the scene that it is laid over;
/// - `mass_of_ink`, `glyph_ink_of_ink`, `scrap_ink_of_ink`: the same of attention in proportion to ink, whoever's it is.
pub(super) fn measure(attention: &Tensor, parts: &[Parts]) -> anyhow::Result<Metrics> {
    let places = Places::of(parts, attention.size()[3] as usize);
    let attention = attention.flatten(2, -1).to_kind(Kind::Double);
    let blind = attention.mean_dim(0, true, Kind::Double);
    let ink = &places.glyph + &places.scraps;
    let of_ink = &ink / ink.sum_dim_intlist(-1, true, Kind::Double);
    let best = places.masses(&attention)?.into_iter().fold(0.0, f64::max);
    let mut metrics = Metrics::from([("mass_best".to_owned(), best)]);
    for (suffix, maps) in [("", &attention), ("_blind", &blind), ("_of_ink", &of_ink)] {
        let masses = places.masses(maps)?;
        metrics.insert(format!("mass{suffix}"), masses.iter().sum::<f64>() / masses.len() as f64);
        metrics.insert(format!("glyph_ink{suffix}"), at_ink(maps, &places.glyph));
        metrics.insert(format!("scrap_ink{suffix}"), at_ink(maps, &places.scraps));
    }
    Ok(metrics)
}

impl Places {
    fn of(parts: &[Parts], side: usize) -> Self {
        let stacked = |cells: &dyn Fn(&Parts) -> Vec<f64>| {
            let values: Vec<f64> = parts.iter().flat_map(cells).collect();
            Tensor::from_slice(&values).view([parts.len() as i64, 1, (side * side) as i64])
        };
        Self {
            boxes: stacked(&|parts: &Parts| box_mask(parts.corner, side)),
            glyph: stacked(&|parts: &Parts| ink_in_cells(&parts.glyph_ink, side)),
            scraps: stacked(&|parts: &Parts| ink_in_cells(&parts.scrap_ink, side)),
        }
    }

    /// Of each group of maps, attention inside the box relative to the box's share of the canvas.
    fn masses(&self, maps: &Tensor) -> anyhow::Result<Vec<f64>> {
        let inside = (maps * &self.boxes).sum_dim_intlist(-1, false, Kind::Double);
        let area = self.boxes.mean(Kind::Double).double_value(&[]);
        Ok(Vec::<f64>::try_from(inside.mean_dim(0, false, Kind::Double) / area)?)
    }
}

/// Attention at a pixel of `ink [scenes, 1, positions]` over that of uniform maps, mean over groups. Maps are
/// `[scenes or 1, groups, positions]`, and all pixels of a position share its attention alike.
fn at_ink(maps: &Tensor, ink: &Tensor) -> f64 {
    let (groups, positions) = (maps.size()[1], maps.size()[2]);
    let sum = |tensor: &Tensor| tensor.sum(Kind::Double).double_value(&[]);
    sum(&(maps * ink)) * positions as f64 / (sum(ink) * groups as f64)
}

#[cfg(test)]
mod tests {
    use super::super::scenes::CANVAS;
    use super::*;

    /// A character at the top left and a scrap at the bottom right, and the other way round; a pixel of ink each.
    fn scenes() -> Vec<Parts> {
        let pixel = |at: usize| {
            let mut ink = vec![0; CANVAS * CANVAS];
            ink[at] = 255;
            ink
        };
        let (first, last) = (0, CANVAS * CANVAS - 1);
        vec![
            Parts { corner: [0, 0], glyph_ink: pixel(first), scrap_ink: pixel(last) },
            Parts { corner: [12, 12], glyph_ink: pixel(last), scrap_ink: pixel(first) },
        ]
    }

    /// One group's maps of 8 × 8 that put all attention on one position of each scene.
    fn maps(positions: [usize; 2]) -> Tensor {
        let mut values = vec![0.0_f32; 2 * 64];
        for (scene, position) in positions.into_iter().enumerate() {
            values[scene * 64 + position] = 1.0;
        }
        Tensor::from_slice(&values).view([2, 1, 8, 8])
    }

    fn close(metrics: &Metrics, expected: &[(&str, f64)]) {
        for (name, value) in expected {
            assert!((metrics[*name] - value).abs() < 1e-12, "{name}: {} instead of {value}", metrics[*name]);
        }
    }

    #[test]
    fn attention_on_the_character_is_told_from_its_mean_over_scenes() {
        let metrics = measure(&maps([0, 63]), &scenes()).unwrap();
        // A box is 400 of 1,024 pixels, and a position 1 of 64. The mean map has half of its attention at either end.
        close(&metrics, &[("mass", 2.56), ("mass_best", 2.56), ("mass_blind", 1.28)]);
        close(&metrics, &[("glyph_ink", 64.0), ("scrap_ink", 0.0)]);
        close(&metrics, &[("glyph_ink_blind", 32.0), ("scrap_ink_blind", 32.0)]);
    }

    #[test]
    fn attention_on_scraps_is_seen_as_such() {
        let metrics = measure(&maps([63, 0]), &scenes()).unwrap();
        close(&metrics, &[("mass", 0.0), ("mass_blind", 1.28), ("glyph_ink", 0.0), ("scrap_ink", 64.0)]);
    }

    #[test]
    fn uniform_attention_is_one_everywhere_and_ink_draws_attention_in_proportion() {
        let uniform = Tensor::from_slice(&[1.0_f64 / 64.0; 2 * 2 * 64]).view([2, 2, 8, 8]);
        let metrics = measure(&uniform, &scenes()).unwrap();
        for name in ["mass", "mass_best", "mass_blind", "glyph_ink", "scrap_ink", "glyph_ink_blind"] {
            close(&metrics, &[(name, 1.0)]);
        }
        // Half of the ink is the character's, all in one position of its box.
        close(&metrics, &[("mass_of_ink", 1.28), ("glyph_ink_of_ink", 32.0), ("scrap_ink_of_ink", 32.0)]);
    }
}
