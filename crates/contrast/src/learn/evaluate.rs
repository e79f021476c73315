//! What frozen features are worth: nearest neighbours and retrieval, without training anything.

use super::error::{Error, Result, check_temperature};
use super::moco::unit_rows;
use super::nt_xent::{Layout, check, partners, rows_at_a_time};
use core_tensor::data::{Batch, BatchSource};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Feature vectors with class labels.
#[derive(Debug)]
pub struct Features {
    /// `[samples, features]`, `f32`.
    pub vectors: Tensor,
    /// `[samples]`, `i64`.
    pub labels: Tensor,
}

impl Features {
    /// What `encode` makes of every image of epoch 0 of a source, without gradients. Give it an encoder in evaluation mode:
    /// `|images| network.features(images, false)`.
    ///
    /// # Errors
    /// Data that cannot be read, no batch at all, or features that are not `[batch, features]` or not finite.
    pub fn extract(encode: impl Fn(&Tensor) -> Tensor, source: &dyn BatchSource<Batch = Batch>) -> Result<Self> {
        let (mut vectors, mut labels) = (Vec::new(), Vec::new());
        for batch in source.epoch(0)? {
            let batch = batch?;
            vectors.push(no_grad(|| encode(&batch.input)));
            labels.push(batch.target);
        }
        if vectors.is_empty() {
            return Err(Error::setting("source", "at least one batch", "an empty one"));
        }
        Self::new(Tensor::f_cat(&vectors, 0)?, Tensor::f_cat(&labels, 0)?)
    }

    /// Takes vectors and their labels.
    ///
    /// # Errors
    /// Shapes or kinds that do not fit, numbers that are not finite.
    pub fn new(vectors: Tensor, labels: Tensor) -> Result<Self> {
        let size = vectors.size();
        if size.len() != 2 || vectors.f_kind()? != Kind::Float {
            let found = format!("{:?} {size:?}", vectors.f_kind()?);
            return Err(Error::mismatch("features", "Float [samples, features]", found));
        }
        if labels.size() != [size[0]] || labels.kind() != Kind::Int64 {
            let found = format!("{:?} {:?}", labels.kind(), labels.size());
            return Err(Error::LabelMismatch { expected: format!("Int64 [{}]", size[0]), found });
        }
        check_finite("features", &vectors)?;
        Ok(Self { vectors, labels })
    }

    /// How many.
    pub fn len(&self) -> i64 {
        self.vectors.size()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Refuses NaN and infinities, naming the first row that has one.
pub(crate) fn check_finite(name: &str, rows: &Tensor) -> Result<()> {
    if rows.numel() == 0 || rows.f_isfinite()?.f_all()?.int64_value(&[]) == 1 {
        return Ok(());
    }
    let broken = rows.f_isfinite()?.f_logical_not()?.flatten(1, -1).f_any_dim(1, false)?;
    Err(Error::NotFinite { name: name.into(), row: broken.to_kind(Kind::Int64).argmax(0, false).int64_value(&[]) })
}

/// Settings of [`knn_accuracy`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnnConfig {
    /// Neighbours that vote. Default 200, as MoCo's CIFAR-10 monitor.
    pub neighbours: i64,
    /// Temperature τ of a vote's weight `exp(cosine/τ)`. Default 0.1, as MoCo's monitor.
    pub temperature: f64,
}

impl Default for KnnConfig {
    fn default() -> Self {
        Self { neighbours: 200, temperature: 0.1 }
    }
}

/// Accuracy (%) of weighted nearest neighbours by cosine on frozen features (Wu et al., arXiv 1805.01978, section 3.4): each
/// of the `neighbours` nearest training vectors votes for its class with weight `exp(cosine/τ)`; ties go to the lower
/// class number. With fewer training vectors than `neighbours`, all vote. Weights are taken relative to the nearest
/// neighbour's, which changes no vote and keeps the nearest's own at 1.
///
/// # Errors
/// Settings outside their range, empty sets, features of different lengths, labels outside `0..classes`.
pub fn knn_accuracy(train: &Features, test: &Features, classes: i64, config: KnnConfig) -> Result<f64> {
    check_temperature(config.temperature)?;
    if config.neighbours < 1 {
        return Err(Error::setting("neighbours", "at least 1", config.neighbours));
    }
    check_labels(train, classes)?;
    check_labels(test, classes)?;
    let (ours, theirs) = (test.vectors.size(), train.vectors.size());
    if ours[1] != theirs[1] {
        return Err(Error::mismatch("test features", format!("[_, {}]", theirs[1]), format!("{ours:?}")));
    }
    let bank = unit_rows(&train.vectors)?.f_tr()?.f_contiguous()?;
    let neighbours = config.neighbours.min(train.len());
    let mut correct = 0;
    // A block's similarities stay small: 512 · 50,000 · 4 bytes = 100 MB.
    for start in (0..test.len()).step_by(512) {
        let count = 512.min(test.len() - start);
        let queries = unit_rows(&test.vectors.narrow(0, start, count))?;
        let (similarity, index) = queries.f_mm(&bank)?.f_topk(neighbours, 1, true, false)?;
        // Relative to a cosine of 1 all weights would be 0 where even the nearest is far.
        let nearest = similarity.f_amax([1].as_slice(), true)?;
        let weights = ((similarity - nearest) / config.temperature).f_exp()?;
        let voted = train.labels.f_index_select(0, &index.f_view([-1])?)?.f_view_as(&index)?;
        let mut votes = Tensor::f_zeros([count, classes], (queries.kind(), queries.device()))?;
        let votes = votes.f_scatter_add_(1, &voted, &weights)?;
        let hits = votes.argmax(1, false).f_eq_tensor(&test.labels.narrow(0, start, count))?;
        correct += hits.sum(Kind::Int64).int64_value(&[]);
    }
    Ok(100.0 * correct as f64 / test.len() as f64)
}

/// Refuses empty sets and labels outside `0..classes`.
pub(crate) fn check_labels(features: &Features, classes: i64) -> Result<()> {
    if features.is_empty() {
        return Err(Error::LabelMismatch { expected: "at least one sample".into(), found: "none".into() });
    }
    let (low, high) = (features.labels.min().int64_value(&[]), features.labels.max().int64_value(&[]));
    if low < 0 || high >= classes {
        let expected = format!("class numbers in 0..{classes}");
        return Err(Error::LabelMismatch { expected, found: format!("numbers from {low} to {high}") });
    }
    Ok(())
}

/// Share (%) of views whose most similar other view, by cosine, is the other view of their image: a scalar tensor, so that it
/// can be a loss's part. Of equally similar views the first counts. Like [`nt_xent`](super::nt_xent) it never holds the whole
/// similarity matrix of more than 512 views.
///
/// # Errors
/// [`Error::ViewsLayout`] as [`nt_xent`](super::nt_xent).
pub fn retrieval_top1(embeddings: &Tensor, layout: Layout) -> Result<Tensor> {
    let rows = check(embeddings, 1.0)?;
    no_grad(|| {
        let unit = unit_rows(&embeddings.detach())?;
        let transposed = unit.f_tr()?;
        let most = rows_at_a_time(rows);
        let mut nearest = Vec::new();
        for start in (0..rows).step_by(most as usize) {
            let similarity = unit.narrow(0, start, most.min(rows - start)).f_mm(&transposed)?;
            let _ = similarity.f_diagonal(start, 0, 1)?.f_fill_(f64::NEG_INFINITY)?;
            nearest.push(similarity.argmax(1, false));
        }
        let hits = Tensor::f_cat(&nearest, 0)?.f_eq_tensor(&partners(rows, layout, embeddings.device())?)?;
        Ok(hits.to_kind(Kind::Float).mean(Kind::Float) * 100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::seed::{Purpose, generator};
    use proptest::prelude::*;
    use rand::Rng;

    fn features(vectors: &[f32], width: i64, labels: &[i64]) -> Features {
        Features::new(Tensor::from_slice(vectors).view([-1, width]), Tensor::from_slice(labels)).unwrap()
    }

    #[test]
    fn retrieval_of_crossed_views_is_zero_and_of_equal_ones_is_all() {
        // (1, 0) and (.6, .8) are partners, but (.8, .6) is nearer to (1, 0), and so on for all four.
        let crossed = Tensor::from_slice(&[1.0, 0.0, 0.6, 0.8, 0.0, 1.0, 0.8, 0.6]).view([4, 2]);
        assert_eq!(retrieval_top1(&crossed, Layout::Interleaved).unwrap().double_value(&[]), 0.0);
        let eye = Tensor::eye(3, (Kind::Float, tch::Device::Cpu));
        let equal = Tensor::cat(&[&eye, &(&eye * 7.0)], 0);
        assert_eq!(retrieval_top1(&equal, Layout::Stacked).unwrap().double_value(&[]), 100.0);
        // A stretched tetrahedron: partners have inner product 1.69 − 2, others −1.69. All are negative, so a diagonal
        // that is set to 0 instead of being left out would always win.
        let corners = [1.3, 1.0, 1.0, 1.3, -1.0, -1.0, -1.3, 1.0, -1.0, -1.3, -1.0, 1.0];
        let corners = Tensor::from_slice(&corners).view([4, 3]);
        assert_eq!(retrieval_top1(&corners, Layout::Interleaved).unwrap().double_value(&[]), 100.0);
    }

    #[test]
    fn retrieval_of_many_views_takes_blocks_of_which_each_leaves_out_its_own_diagonal() {
        // So much noise that some partners are nearest and some are not.
        let (views, noise) = (spread(700, 5, 1), spread(700, 5, 2));
        let views = Tensor::cat(&[&views, &(&views + noise * 0.3)], 0);
        let unit = unit_rows(&views).unwrap();
        let whole = unit.matmul(&unit.tr());
        let _ = whole.diagonal(0, 0, 1).fill_(f64::NEG_INFINITY);
        let nearest = Vec::<i64>::try_from(whole.argmax(1, false)).unwrap();
        let hits =
            nearest.iter().enumerate().filter(|(view, nearest)| (view + 700) % 1400 == **nearest as usize).count();
        assert!((100..1300).contains(&hits), "{hits}");
        let found = retrieval_top1(&views, Layout::Stacked).unwrap().double_value(&[]);
        assert!((found - 100.0 * hits as f64 / 1400.0).abs() < 1e-4, "{found} %, {hits} by the whole matrix");
    }

    /// Vectors of uniform numbers from −1 to 1.
    fn spread(rows: i64, width: i64, seed: u64) -> Tensor {
        let mut rng = generator(seed, Purpose::Data, 0);
        let values: Vec<f64> = (0..rows * width).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_slice(&values).view([rows, width])
    }

    #[test]
    fn weights_decide_a_vote_that_counts_do_not() {
        // One neighbour of class 0 with cosine 1, two of class 1 with cosine .6: e^(1/τ) against 2·e^(.6/τ).
        let train = features(&[2.0, 0.0, 0.6, 0.8, 0.6, -0.8], 2, &[0, 1, 1]);
        let test = features(&[1.0, 0.0], 2, &[0]);
        let accuracy = |temperature| knn_accuracy(&train, &test, 2, KnnConfig { neighbours: 3, temperature }).unwrap();
        // τ = .1: e^10 > 2·e^6. τ = 1: e < 2·e^.6 = 3.64.
        assert_eq!((accuracy(0.1), accuracy(1.0)), (100.0, 0.0));
        assert_eq!(knn_accuracy(&train, &test, 2, KnnConfig { neighbours: 1, temperature: 1.0 }).unwrap(), 100.0);
    }

    #[test]
    fn neighbours_that_are_all_far_still_vote() {
        // Cosines .1 and .2 with classes 0 and 1: e^(−900) and e^(−800) are both 0 in single precision.
        let train = features(&[0.1, 0.99_f32.sqrt(), 0.2, 0.96_f32.sqrt()], 2, &[0, 1]);
        let test = features(&[1.0, 0.0], 2, &[1]);
        for temperature in [1e-3, 1e-6, 1e-30] {
            let config = KnnConfig { neighbours: 2, temperature };
            assert_eq!(knn_accuracy(&train, &test, 2, config).unwrap(), 100.0, "{temperature}");
        }
    }

    #[test]
    fn what_cannot_vote_is_refused() {
        let good = features(&[1.0, 0.0], 2, &[1]);
        let refuse = |train: &Features, test: &Features, config| knn_accuracy(train, test, 2, config).unwrap_err();
        let default = KnnConfig::default();
        assert!(matches!(refuse(&features(&[1.0, 0.0], 2, &[2]), &good, default), Error::LabelMismatch { .. }));
        assert!(matches!(refuse(&good, &features(&[1.0, 0.0], 2, &[-1]), default), Error::LabelMismatch { .. }));
        assert!(matches!(refuse(&features(&[1.0], 1, &[0]), &good, default), Error::Mismatch { .. }));
        let none = KnnConfig { neighbours: 0, ..default };
        assert!(matches!(refuse(&good, &good, none), Error::Setting { setting: "neighbours", .. }));
        let cold = KnnConfig { temperature: 0.0, ..default };
        assert!(matches!(refuse(&good, &good, cold), Error::InvalidTemperature { .. }));
        let nan = Features::new(Tensor::from_slice(&[1.0_f32, f32::NAN]).view([2, 1]), Tensor::from_slice(&[0_i64, 0]));
        assert!(matches!(nan, Err(Error::NotFinite { row: 1, .. })));
        let double = Features::new(Tensor::from_slice(&[1.0, 2.0]).view([2, 1]), Tensor::from_slice(&[0_i64, 0]));
        assert!(matches!(double, Err(Error::Mismatch { name, .. }) if name == "features"));
        let short = Features::new(Tensor::from_slice(&[1.0_f32, 2.0]).view([2, 1]), Tensor::from_slice(&[0_i64]));
        assert!(matches!(short, Err(Error::LabelMismatch { .. })));
    }

    proptest! {
        #[test]
        fn the_nearest_neighbour_of_a_training_vector_is_itself(seed in 0_u64..1000, count in 2_i64..30) {
            // Directions (cos, sin) at distinct angles: no two are parallel.
            let step = 3.0 / count as f64;
            let angles: Vec<f64> = (0..count).map(|i| i as f64 * step + seed as f64 * 1e-3).collect();
            let vectors: Vec<f32> = angles.iter().flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
            let labels: Vec<i64> = (0..count).map(|i| i % 3).collect();
            let all = features(&vectors, 2, &labels);
            let config = KnnConfig { neighbours: 1, temperature: 0.1 };
            prop_assert_eq!(knn_accuracy(&all, &all, 3, config).unwrap(), 100.0);
        }
    }
}
