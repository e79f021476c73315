//! Retrieval by queries that were moved.

use crate::Metrics;
use std::collections::BTreeMap;
use tch::Tensor;
use vision::grouping::{Conv4, Evaluator};

/// By how many pixels: one, and the network's total stride.
pub(super) const SHIFTS: [i64; 2] = [1, Conv4::STRIDE];
/// The metric of queries as they are.
pub(super) const STILL: &str = "half_r1";

/// The metric of queries moved by so many pixels.
pub(super) fn metric(pixels: i64) -> String {
    format!("{STILL}_moved_{pixels}")
}

/// R@1 of every other image of a class among the rest, which stay where they are: as they are, and moved by each of
/// [`SHIFTS`], mean over up, down, left and right.
pub(super) fn measure(
    images: &Tensor,
    labels: &[i64],
    embed: &dyn Fn(&Tensor) -> anyhow::Result<Tensor>,
) -> anyhow::Result<Metrics> {
    let [asked, rest] = halves(labels);
    let of = |positions: &[usize]| -> Vec<i64> { positions.iter().map(|&position| labels[position]).collect() };
    let (query_labels, gallery_labels) = (of(&asked), of(&rest));
    let gallery = embed(&pick(images, &rest))?;
    let queries = pick(images, &asked);
    let recall = |queries: &Tensor| -> anyhow::Result<f64> {
        let seen = embed(queries)?;
        let report = Evaluator::new([1]).evaluate_query_gallery(&seen, &query_labels, &gallery, &gallery_labels)?;
        Ok(report.recall[0].1)
    };
    let mut metrics = Metrics::from([(STILL.to_owned(), recall(&queries)?)]);
    for pixels in SHIFTS {
        let directions = [[pixels, 0], [-pixels, 0], [0, pixels], [0, -pixels]];
        let mut sum = 0.0;
        for direction in directions {
            sum += recall(&moved(&queries, direction))?;
        }
        metrics.insert(metric(pixels), sum / directions.len() as f64);
    }
    Ok(metrics)
}

/// Positions of the first, third, fifth … item of every class, and those of the others.
fn halves(labels: &[i64]) -> [Vec<usize>; 2] {
    let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
    let mut halves = [Vec::new(), Vec::new()];
    for (position, &label) in labels.iter().enumerate() {
        let count = seen.entry(label).or_default();
        halves[*count % 2].push(position);
        *count += 1;
    }
    halves
}

fn pick(images: &Tensor, positions: &[usize]) -> Tensor {
    let index: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
    images.index_select(0, &Tensor::from_slice(&index))
}

/// `[n, channels, height, width]` moved down and to the right; what comes in from outside is 0.
fn moved(images: &Tensor, [down, right]: [i64; 2]) -> Tensor {
    let size = images.size();
    let reach = down.abs().max(right.abs());
    let framed = images.pad([reach; 4], "constant", 0.0);
    framed.narrow(2, reach - down, size[2]).narrow(3, reach - right, size[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Tensor {
        Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([1, 1, 2, 3])
    }

    fn pixels(image: &Tensor) -> Vec<f32> {
        Vec::<f32>::try_from(image.flatten(0, -1)).unwrap()
    }

    #[test]
    fn images_move_and_leave_zeros_behind() {
        assert_eq!(pixels(&moved(&image(), [0, 1])), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(pixels(&moved(&image(), [0, -2])), [3.0, 0.0, 0.0, 6.0, 0.0, 0.0]);
        assert_eq!(pixels(&moved(&image(), [1, 0])), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(pixels(&moved(&image(), [-1, 0])), [4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn halves_take_turns_within_a_class() {
        assert_eq!(halves(&[7, 7, 5, 7, 5, 7]), [vec![0, 2, 3], vec![1, 4, 5]]);
    }

    #[test]
    fn an_embedding_that_cannot_see_where_ink_is_loses_nothing_and_one_that_can_does() {
        // Two classes of two images each: ink of 1 or of 2 in the middle of 12 × 12, where no shift pushes it out.
        let mut values = vec![0.0_f32; 4 * 144];
        for (image, ink) in [1.0, 1.0, 2.0, 2.0].into_iter().enumerate() {
            values[image * 144 + 6 * 12 + 6] = ink;
        }
        let (images, labels) = (Tensor::from_slice(&values).view([4, 1, 12, 12]), [0, 0, 1, 1]);
        let total = |images: &Tensor| anyhow::Ok(images.flatten(1, -1).sum_dim_intlist(-1, true, tch::Kind::Float));
        let metrics = measure(&images, &labels, &total).unwrap();
        assert_eq!([metrics[STILL], metrics[&metric(1)], metrics[&metric(4)]], [1.0; 3]);
        // Of the pixel in the middle alone nothing is left once it has moved: both queries are nearest to the smaller ink.
        let middle = |images: &Tensor| anyhow::Ok(images.narrow(2, 6, 1).narrow(3, 6, 1).flatten(1, -1));
        let metrics = measure(&images, &labels, &middle).unwrap();
        assert_eq!([metrics[STILL], metrics[&metric(1)], metrics[&metric(4)]], [1.0, 0.5, 0.5]);
    }
}
