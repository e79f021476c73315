//! As good as the dense network: where a ticket still is, and where no longer.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Whether a sub-network matches the dense one (Chen et al., arXiv 2012.06908, footnote 7): its mean score is at least the
/// dense mean less one standard deviation of the dense scores. Higher scores are better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// Mean score of the sub-network.
    pub mean: f64,
    /// Mean score of the dense network.
    pub dense_mean: f64,
    /// Standard deviation of the dense scores, with `n − 1` in the denominator.
    pub dense_std: f64,
}

impl Matching {
    /// # Errors
    /// No score of the sub-network, fewer than two of the dense one (which leave its deviation open), or one that is not
    /// finite.
    pub fn new(scores: &[f64], dense: &[f64]) -> Result<Self> {
        if scores.is_empty() {
            return Err(Error::setting("scores", "at least one", 0));
        }
        if dense.len() < 2 {
            return Err(Error::setting("dense scores", "at least two, for their standard deviation", dense.len()));
        }
        if let Some(score) = scores.iter().chain(dense).find(|score| !score.is_finite()) {
            return Err(Error::setting("scores", "finite numbers", score));
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let dense_mean = mean(dense);
        let squares: f64 = dense.iter().map(|score| (score - dense_mean).powi(2)).sum();
        Ok(Self { mean: mean(scores), dense_mean, dense_std: (squares / (dense.len() - 1) as f64).sqrt() })
    }

    /// How far the mean lies above the line; matching when it is not negative.
    pub fn margin(&self) -> f64 {
        self.mean - (self.dense_mean - self.dense_std)
    }

    /// Whether it matches.
    pub fn holds(&self) -> bool {
        self.margin() >= 0.0
    }
}

/// Where the largest matching sparsity lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    /// The largest sparsity that matches; none when none does. The paper's figure.
    pub matching: Option<f64>,
    /// The next larger sparsity that was tried, which does not match; none when the largest tried one matches.
    pub failing: Option<f64>,
    /// The smallest sparsity that does not match. Below [`matching`](Self::matching) where the curve crosses the line more
    /// than once, which noise alone can do.
    pub first_failing: Option<f64>,
}

/// Looks for the largest matching sparsity among those tried, given as `(sparsity, scores)`.
///
/// # Errors
/// No sparsity, one outside `[0, 1]` or there twice, and all that [`Matching::new`] refuses.
pub fn largest_matching(curve: &[(f64, Vec<f64>)], dense: &[f64]) -> Result<Bracket> {
    if curve.is_empty() {
        return Err(Error::setting("curve", "at least one sparsity", 0));
    }
    if let Some((sparsity, _)) = curve.iter().find(|(sparsity, _)| !(0.0..=1.0).contains(sparsity)) {
        return Err(Error::setting("sparsity", "in [0, 1]", sparsity));
    }
    let mut tried: Vec<_> = curve.iter().collect();
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some(pair) = tried.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::setting("sparsity", "each once", pair[0].0));
    }
    let verdicts = tried.iter().map(|(sparsity, scores)| Ok((*sparsity, Matching::new(scores, dense)?.holds())));
    let verdicts: Vec<(f64, bool)> = verdicts.collect::<Result<_>>()?;
    let last = verdicts.iter().rposition(|(_, holds)| *holds);
    Ok(Bracket {
        matching: last.map(|last| verdicts[last].0),
        failing: verdicts.get(last.map_or(0, |last| last + 1)).map(|(sparsity, _)| *sparsity),
        first_failing: verdicts.iter().find(|(_, holds)| !holds).map(|(sparsity, _)| *sparsity),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean 90, standard deviation 2: the line is at 88.
    const DENSE: [f64; 3] = [88.0, 90.0, 92.0];

    #[test]
    fn one_standard_deviation_below_still_matches() {
        let found = Matching::new(&[87.0, 89.0], &DENSE).unwrap();
        assert_eq!((found.mean, found.dense_mean, found.dense_std), (88.0, 90.0, 2.0));
        assert!(found.holds());
        assert!(!Matching::new(&[87.9], &DENSE).unwrap().holds());
        assert!(Matching::new(&DENSE, &DENSE).unwrap().holds());
    }

    #[test]
    fn the_limit_is_bracketed_by_what_was_tried() {
        let curve = |scores: &[(f64, f64)]| scores.iter().map(|(s, score)| (*s, vec![*score])).collect::<Vec<_>>();
        let of = |scores: &[(f64, f64)]| largest_matching(&curve(scores), &DENSE).unwrap();
        let bracket = |matching, failing, first_failing| Bracket { matching, failing, first_failing };
        assert_eq!(of(&[(0.8, 80.0), (0.2, 90.0), (0.5, 89.0)]), bracket(Some(0.5), Some(0.8), Some(0.8)));
        assert_eq!(of(&[(0.2, 80.0), (0.5, 89.0), (0.8, 80.0)]), bracket(Some(0.5), Some(0.8), Some(0.2)));
        assert_eq!(of(&[(0.2, 89.0), (0.5, 88.0)]), bracket(Some(0.5), None, None));
        assert_eq!(of(&[(0.2, 8.0), (0.5, 8.0)]), bracket(None, Some(0.2), Some(0.2)));
    }

    #[test]
    fn scores_that_say_nothing_are_refused() {
        let refused = |scores: &[f64], dense: &[f64]| Matching::new(scores, dense).unwrap_err().to_string();
        assert_eq!(refused(&[], &DENSE), "scores is 0, expected at least one");
        assert_eq!(refused(&[1.0], &[1.0]), "dense scores is 1, expected at least two, for their standard deviation");
        assert_eq!(refused(&[f64::NAN], &DENSE), "scores is NaN, expected finite numbers");
        let curve = [(0.5, vec![1.0]), (0.5, vec![2.0])];
        assert_eq!(largest_matching(&curve, &DENSE).unwrap_err().to_string(), "sparsity is 0.5, expected each once");
        assert!(largest_matching(&[(1.5, vec![1.0])], &DENSE).is_err());
        assert!(largest_matching(&[], &DENSE).is_err());
    }
}
