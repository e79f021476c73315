//! How much of a label a linear probe reads from embeddings.

use tch::{Device, Kind, Tensor};
use vision::fas::model::{Columns, FasData};

/// Accuracies on held-out recordings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Probed {
    /// Of the probe.
    pub(super) accuracy: f64,
    /// Of naming the most frequent class without looking.
    pub(super) chance: f64,
}

/// Reads a column of a set's attributes from its embeddings: fitted on every other recording, tried on the rest.
pub(super) fn probe(embedding: &Tensor, data: &FasData, column: Columns) -> anyhow::Result<Probed> {
    let raw: Vec<i64> = (0..data.len()).map(|at| data.attribute(at, column)).collect();
    let side = |which: u64| {
        let positions = data.positions_where(|_, sample| sample.video.is_some_and(|video| video % 2 == which));
        Tensor::from_slice(&positions)
    };
    ridge(embedding, &classes(&raw), [side(0), side(1)])
}

/// Values as class numbers 0, 1, …
fn classes(raw: &[i64]) -> Vec<i64> {
    let mut known = raw.to_vec();
    known.sort_unstable();
    known.dedup();
    raw.iter().map(|value| known.partition_point(|other| other < value) as i64).collect()
}

/// A ridge classifier on standardised embeddings, of the positions to fit on and those held out.
fn ridge(embedding: &Tensor, labels: &[i64], [fit, held_out]: [Tensor; 2]) -> anyhow::Result<Probed> {
    let count = labels.len() as i64;
    let features = embedding.to_kind(Kind::Double);
    let centred = &features - features.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let scale = centred.square().mean_dim([0_i64].as_slice(), true, Kind::Double).sqrt() + 1e-6;
    let bias = Tensor::ones([count, 1], (Kind::Double, Device::Cpu));
    let features = Tensor::cat(&[centred / scale, bias], 1);
    let truth = Tensor::from_slice(labels);
    let classes = labels.iter().max().map_or(1, |largest| largest + 1);
    let targets = truth.one_hot(classes).to_kind(Kind::Double);
    let (seen, width) = (features.index_select(0, &fit), features.size()[1]);
    let gram = seen.tr().matmul(&seen) + Tensor::eye(width, (Kind::Double, Device::Cpu)) * 1.0;
    let weights = Tensor::f_linalg_solve(&gram, &seen.tr().matmul(&targets.index_select(0, &fit)), true)?;
    let found = features.index_select(0, &held_out).matmul(&weights).argmax(1, false);
    let expected = truth.index_select(0, &held_out);
    let correct = found.eq_tensor(&expected).to_kind(Kind::Double).mean(Kind::Double);
    let most_frequent = expected.bincount::<Tensor>(None, 0).max().int64_value(&[]);
    Ok(Probed { accuracy: correct.double_value(&[]), chance: most_frequent as f64 / expected.size()[0] as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_class_numbers_in_their_order() {
        assert_eq!(classes(&[1_000_003, 7, 7, 2_000_000]), [1, 0, 0, 2]);
    }

    #[test]
    fn what_is_in_an_embedding_is_read_and_what_is_not_is_left_to_chance() {
        let labels = [0, 0, 0, 0, 0, 0, 1, 1, 1];
        let halves = || [Tensor::from_slice(&[0_i64, 2, 6, 8]), Tensor::from_slice(&[1_i64, 3, 4, 5, 7])];
        let embedding = Tensor::from_slice(&labels).view([9, 1]).to_kind(Kind::Float);
        let told = ridge(&embedding, &labels, halves()).unwrap();
        // Of the five held out, four are of the first class.
        assert_eq!(told, Probed { accuracy: 1.0, chance: 0.8 });
        let silent = ridge(&embedding.zeros_like(), &labels, [halves()[0].narrow(0, 0, 3), halves()[1].copy()]);
        assert_eq!(silent.unwrap(), Probed { accuracy: 0.8, chance: 0.8 });
    }
}
