//! What turns a feature map into a grouped embedding, and the embedding itself.

use super::{Error, Result};
use tch::{Kind, Tensor};

/// Turns the last feature map of a network into an embedding of one or more groups.
pub trait GroupingHead: std::fmt::Debug {
    /// From `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// A feature map of another shape.
    fn forward(&self, features: &Tensor) -> Result<GroupEmbedding>;

    /// How many groups.
    fn groups(&self) -> i64;

    /// Numbers in a group's embedding.
    fn group_dim(&self) -> i64;

    /// Numbers in the whole embedding.
    fn embedding_size(&self) -> i64 {
        self.groups() * self.group_dim()
    }
}

/// A batch of embeddings, group by group, with what each group looked at.
#[derive(Debug)]
pub struct GroupEmbedding {
    groups: Tensor,
    attention: Option<Tensor>,
}

impl GroupEmbedding {
    /// Scales every group of `[batch, groups, d]` to length 1 (a vector shorter than 1e-12 is divided by 1e-12 instead).
    /// `attention` is `[batch, groups, height, width]`.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn normalised(groups: &Tensor, attention: Option<Tensor>) -> Result<Self> {
        let size = groups.size();
        if size.len() != 3 {
            return Err(Error::shape("groups", "[batch, groups, d]", format!("{size:?}")));
        }
        if let Some(attention) = &attention {
            let found = attention.size();
            if found.len() != 4 || found[..2] != size[..2] {
                let expected = format!("[{}, {}, height, width]", size[0], size[1]);
                return Err(Error::shape("attention", expected, format!("{found:?}")));
            }
        }
        Ok(Self { groups: unit(groups), attention })
    }

    /// `[batch, groups, d]`, every group of length 1.
    pub fn groups(&self) -> &Tensor {
        &self.groups
    }

    /// `[batch, d]`, one group.
    ///
    /// # Errors
    /// A group that is not there.
    pub fn group(&self, group: i64) -> Result<Tensor> {
        let count = self.groups.size()[1];
        if !(0..count).contains(&group) {
            return Err(Error::setting("group", format!("below {count}"), group));
        }
        Ok(self.groups.select(1, group))
    }

    /// `[batch, groups · d]`, what is searched: its squared Euclidean distance is `Σ_g (2 − 2 cos_g)`, so it ranks by the
    /// mean cosine over groups. Its length is √groups; it is not normalised again.
    pub fn concat(&self) -> Tensor {
        self.groups.flatten(1, -1)
    }

    /// `[batch, groups, height, width]`, non-negative, each map adding up to 1; `None` of heads that do not attend.
    pub fn attention(&self) -> Option<&Tensor> {
        self.attention.as_ref()
    }

    /// Attention resized to an image's `[height, width]`, bilinearly, for pictures.
    pub fn upsampled_attention(&self, size: [i64; 2]) -> Option<Tensor> {
        self.attention.as_ref().map(|maps| maps.upsample_bilinear2d(size, false, None, None))
    }

    /// `[batch, other batch]`: the mean over groups of the cosine, which is what retrieval ranks by.
    ///
    /// # Errors
    /// Other groups than these.
    pub fn mean_cosine_to(&self, other: &Self) -> Result<Tensor> {
        let (own, found) = (self.groups.size(), other.groups.size());
        if own[1..] != found[1..] {
            return Err(Error::shape("groups", format!("{:?}", &own[1..]), format!("{:?}", &found[1..])));
        }
        Ok(self.concat().matmul(&other.concat().tr()) / own[1] as f64)
    }

    /// Mean cosine between two groups of the same image, over images and pairs: 1 when groups are copies of each other.
    /// `None` of a single group.
    pub fn similarity_between_groups(&self) -> Option<f64> {
        let cosines = self.groups.matmul(&self.groups.transpose(1, 2));
        mean_over_pairs(&cosines)
    }

    /// Mean over images and pairs of groups of `Σ_p min(A_i[p], A_j[p])`: 1 when groups look at the same place, 0 when
    /// their places do not meet. `None` without attention or of a single group.
    pub fn attention_overlap(&self) -> Option<f64> {
        let maps = self.attention.as_ref()?.flatten(2, -1);
        let overlaps = maps.unsqueeze(1).minimum(&maps.unsqueeze(2)).sum_dim_intlist(-1, false, None::<Kind>);
        mean_over_pairs(&overlaps)
    }

    /// Mean entropy of the attention maps in nats, at most `ln(positions)`. `None` without attention.
    pub fn attention_entropy(&self) -> Option<f64> {
        let maps = self.attention.as_ref()?.flatten(2, -1);
        let terms = &maps * maps.clamp_min(1e-30).log();
        Some(-terms.sum_dim_intlist(-1, false, None::<Kind>).mean(Kind::Double).double_value(&[]))
    }
}

/// Mean of the entries above the diagonal of `[batch, groups, groups]`.
fn mean_over_pairs(pairs: &Tensor) -> Option<f64> {
    let groups = pairs.size()[1];
    let above = pairs.triu(1).sum(Kind::Double).double_value(&[]);
    let count = pairs.size()[0] * groups * (groups - 1) / 2;
    (count > 0).then(|| above / count as f64)
}

/// Each vector of the last axis divided by its length, or by 1e-12 when it is shorter.
pub(super) fn unit(vectors: &Tensor) -> Tensor {
    let norms = vectors.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12);
    vectors / norms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One image: unit vectors of three groups, two of them the same, and where two groups look.
    fn seen() -> [GroupEmbedding; 2] {
        let groups = Tensor::from_slice(&[2.0_f64, 0.0, 1.0, 0.0, 0.0, 3.0]).view([1, 3, 2]);
        let attention = Tensor::from_slice(&[0.2_f64, 0.8, 0.9, 0.1]).view([1, 2, 1, 2]);
        [(groups.shallow_clone(), None), (groups.narrow(1, 0, 2), Some(attention))]
            .map(|(groups, attention)| GroupEmbedding::normalised(&groups, attention).unwrap())
    }

    fn near(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} against {expected}");
    }

    #[test]
    fn groups_are_compared_pair_by_pair() {
        let [three, two] = seen();
        // Cosines 1, 0 and 0; then the first alone.
        near(three.similarity_between_groups(), 1.0 / 3.0);
        near(two.similarity_between_groups(), 1.0);
        // The smaller of .2 and .9, and of .8 and .1.
        near(two.attention_overlap(), 0.3);
        let entropy = |shares: [f64; 2]| -shares.map(|share| share * share.ln()).iter().sum::<f64>();
        near(two.attention_entropy(), 0.5 * (entropy([0.2, 0.8]) + entropy([0.9, 0.1])));
    }

    #[test]
    fn what_is_not_there_is_not_compared() {
        let [three, _] = seen();
        assert!(three.attention_overlap().is_none() && three.attention_entropy().is_none());
        assert!(three.upsampled_attention([2, 2]).is_none());
        let groups = Tensor::from_slice(&[3.0_f64, 4.0]).view([1, 1, 2]);
        let attention = Tensor::from_slice(&[0.5_f64, 0.5]).view([1, 1, 1, 2]);
        let one = GroupEmbedding::normalised(&groups, Some(attention)).unwrap();
        assert!(one.similarity_between_groups().is_none() && one.attention_overlap().is_none());
        let flat = Tensor::from_slice(&[0.5_f64, 0.5]).view([1, 1, 2]);
        assert!(matches!(GroupEmbedding::normalised(&groups, Some(flat)), Err(Error::Shape { .. })));
    }
}
