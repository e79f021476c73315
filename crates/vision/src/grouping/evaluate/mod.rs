//! How good an embedding is for retrieval: Recall@K, R-precision, MAP@R, MAP, NMI.

mod clustering;
mod ranks;

pub use clustering::{KMeans, normalised_mutual_information};

use super::search::{Panels, host_rows};
use super::{Distance, Error, Result};
use ranks::{Limits, Outcome, Sides, rank};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Tensor;

/// Computes retrieval metrics exactly.
///
/// All of them follow from the ranks of a query's own class among its neighbours, so nothing else is kept: no list of
/// neighbours, no matrix of distances. With R the number of other items of the query's class in the gallery:
///
/// | metric | of a query |
/// |---|---|
/// | Recall@K | 1 if the nearest item of its class is among the K nearest, else 0 (CMC@K, not the recall of information retrieval) |
/// | R-precision | share of its class among the R nearest |
/// | MAP@R | `1/R · Σ_{k ≤ R} rel(k) · precision(k)` |
/// | MAP | the same without the cut at R |
///
/// Queries with R = 0 are left out and counted. Ties are ordered by position in the gallery; see
/// [`RetrievalIndex`](super::RetrievalIndex) for what makes them exact.
///
/// ```
/// use tch::Tensor;
/// use vision::grouping::Evaluator;
///
/// let points = Tensor::from_slice(&[0.0_f32, 1.0, 2.1, 3.3, 6.0, 6.4, 7.5]).view([7, 1]);
/// let report = Evaluator::new([1, 2, 4]).evaluate(&points, &[0, 0, 1, 0, 1, 1, 0])?;
/// assert!((report.recall_at(1).unwrap() - 4.0 / 7.0).abs() < 1e-12);
/// assert!((report.map_at_r - 0.341270).abs() < 1e-6);
/// # Ok::<(), vision::grouping::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluator {
    /// The K of Recall@K, each at most the size of the gallery. CUB-200 and Cars-196: 1, 2, 4, 8; Stanford Online Products:
    /// 1, 10, 100, 1000; In-Shop: 1, 10, 20, 30, 40.
    pub recall_at: Vec<usize>,
    /// What near means.
    #[serde(default)]
    pub distance: Distance,
    /// Whether MAP over the whole gallery is wanted; it has to follow every item of a class to its rank.
    #[serde(default)]
    pub average_precision: bool,
    /// Whether to cluster, and how. By far the most expensive metric on large sets.
    #[serde(default)]
    pub clustering: Option<KMeans>,
}

/// What an [`Evaluator`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrievalReport {
    /// K and Recall@K, in the order asked for.
    pub recall: Vec<(usize, f64)>,
    /// Mean R-precision.
    pub r_precision: f64,
    /// Mean average precision at R.
    pub map_at_r: f64,
    /// Mean average precision, if asked for.
    pub map: Option<f64>,
    /// Normalised mutual information of each k-means start, if asked for; its mean and spread are what to report.
    pub nmi: Vec<f64>,
    /// Queries that count.
    pub queries: usize,
    /// Queries left out because nothing of their class is in the gallery.
    pub without_relevant: usize,
    /// Every query that counts.
    pub outcomes: Vec<QueryOutcome>,
}

/// The metrics of one query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QueryOutcome {
    /// Its position among the queries.
    pub query: usize,
    /// Its class.
    pub class: i64,
    /// R, the items of its class in the gallery.
    pub relevant: usize,
    /// Rank of the nearest of them, from 1; `None` beyond the largest K (and R).
    pub best_rank: Option<usize>,
    /// R-precision.
    pub r_precision: f64,
    /// Average precision at R.
    pub ap_at_r: f64,
    /// Average precision, if asked for.
    pub ap: Option<f64>,
}

impl Evaluator {
    /// Recall at these K, R-precision and MAP@R by Euclidean distance.
    pub fn new(recall_at: impl Into<Vec<usize>>) -> Self {
        let (distance, average_precision, clustering) = (Distance::Euclidean, false, None);
        Self { recall_at: recall_at.into(), distance, average_precision, clustering }
    }

    /// Every item of a set is a query against all others.
    ///
    /// # Errors
    /// Another number of labels than vectors; fewer than two vectors; a K of 0 or above the gallery, which is one smaller than
    /// the set; NaN or infinity; a vector of norm zero with [`Distance::Cosine`]; no class with two items.
    pub fn evaluate(&self, embeddings: &Tensor, labels: &[i64]) -> Result<RetrievalReport> {
        let rows = host_rows("embeddings", embeddings)?;
        check_labels("labels", rows.count, labels)?;
        self.check(rows.count - 1)?;
        let order = by_class(labels);
        let set = Panels::pack(&rows, &order, self.distance)?;
        drop(rows);
        let sides = Sides { queries: &set, query_order: &order, query_labels: labels, gallery: None };
        let nmi = match &self.clustering {
            Some(clustering) => clustering.information(embeddings, labels)?,
            None => Vec::new(),
        };
        self.report(labels, rank(&sides, self.limits()), nmi)
    }

    /// Queries against a gallery of other items.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate); vectors of two lengths.
    pub fn evaluate_query_gallery(
        &self,
        queries: &Tensor,
        query_labels: &[i64],
        gallery: &Tensor,
        gallery_labels: &[i64],
    ) -> Result<RetrievalReport> {
        let (asked, rows) = (host_rows("queries", queries)?, host_rows("gallery", gallery)?);
        check_labels("query labels", asked.count, query_labels)?;
        check_labels("gallery labels", rows.count, gallery_labels)?;
        if asked.dim != rows.dim {
            return Err(Error::shape("queries", format!("vectors of {} numbers", rows.dim), asked.dim.to_string()));
        }
        self.check(rows.count)?;
        let (query_order, gallery_order) = (by_class(query_labels), by_class(gallery_labels));
        let set = Panels::pack(&rows, &gallery_order, self.distance)?;
        let asked = set.pack_queries(&asked, &query_order, self.distance)?;
        drop(rows);
        let gallery_side = Some((&set, gallery_order.as_slice(), gallery_labels));
        let sides = Sides { queries: &asked, query_order: &query_order, query_labels, gallery: gallery_side };
        let nmi = match &self.clustering {
            Some(clustering) => clustering.information(gallery, gallery_labels)?,
            None => Vec::new(),
        };
        self.report(query_labels, rank(&sides, self.limits()), nmi)
    }

    fn limits(&self) -> Limits {
        let first = self.recall_at.iter().copied().max().unwrap_or(0);
        Limits { first, follow_all: self.average_precision }
    }

    fn check(&self, gallery: usize) -> Result<()> {
        if gallery == 0 {
            return Err(Error::Empty("gallery"));
        }
        for &k in &self.recall_at {
            match k {
                0 => return Err(Error::setting("recall_at", "at least 1", 0)),
                k if k > gallery => return Err(Error::TooManyNeighbours { k, gallery }),
                _ => {}
            }
        }
        Ok(())
    }

    fn report(&self, labels: &[i64], ranked: Vec<Option<Outcome>>, nmi: Vec<f64>) -> Result<RetrievalReport> {
        let without_relevant = ranked.iter().filter(|outcome| outcome.is_none()).count();
        let outcomes: Vec<QueryOutcome> = ranked
            .into_iter()
            .enumerate()
            .filter_map(|(query, outcome)| {
                let Outcome { relevant, best_rank, r_precision, ap_at_r, ap } = outcome?;
                Some(QueryOutcome { query, class: labels[query], relevant, best_rank, r_precision, ap_at_r, ap })
            })
            .collect();
        let queries = outcomes.len();
        if queries == 0 {
            return Err(Error::NothingRelevant { queries: without_relevant });
        }
        let mean = |of: &dyn Fn(&QueryOutcome) -> f64| outcomes.iter().map(of).sum::<f64>() / queries as f64;
        let recall = |&k: &usize| (k, mean(&|outcome| f64::from(outcome.found_within(k))));
        Ok(RetrievalReport {
            recall: self.recall_at.iter().map(recall).collect(),
            r_precision: mean(&|outcome| outcome.r_precision),
            map_at_r: mean(&|outcome| outcome.ap_at_r),
            map: self.average_precision.then(|| mean(&|outcome| outcome.ap.unwrap_or(0.0))),
            nmi,
            queries,
            without_relevant,
            outcomes,
        })
    }
}

impl QueryOutcome {
    /// Whether an item of its class is among the `k` nearest.
    pub fn found_within(&self, k: usize) -> bool {
        self.best_rank.is_some_and(|rank| rank <= k)
    }
}

impl RetrievalReport {
    /// Recall@K for a K that was asked for.
    pub fn recall_at(&self, k: usize) -> Option<f64> {
        self.recall.iter().find(|(asked, _)| *asked == k).map(|(_, recall)| *recall)
    }

    /// Half the width of the 95 % interval of Recall@K over queries, by the normal approximation; queries of a class are not
    /// independent, so it is a lower bound.
    pub fn recall_half_width(&self, k: usize) -> Option<f64> {
        let recall = self.recall_at(k)?;
        Some(1.96 * (recall * (1.0 - recall) / self.queries as f64).sqrt())
    }

    /// Queries and mean Recall@1, R-precision and MAP@R of every class.
    pub fn by_class(&self) -> BTreeMap<i64, (usize, [f64; 3])> {
        let mut classes: BTreeMap<i64, (usize, [f64; 3])> = BTreeMap::new();
        for outcome in &self.outcomes {
            let (count, sums) = classes.entry(outcome.class).or_default();
            *count += 1;
            let values = [f64::from(outcome.found_within(1)), outcome.r_precision, outcome.ap_at_r];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        for (count, sums) in classes.values_mut() {
            sums.iter_mut().for_each(|sum| *sum /= *count as f64);
        }
        classes
    }
}

fn check_labels(what: &'static str, rows: usize, labels: &[i64]) -> Result<()> {
    if labels.len() != rows {
        return Err(Error::shape(what, format!("{rows}, one a vector"), labels.len().to_string()));
    }
    Ok(())
}

/// Positions sorted by class, then by position, so that a class is one range.
fn by_class(labels: &[i64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..labels.len() as u32).collect();
    order.sort_by_key(|&position| labels[position as usize]);
    order
}

#[cfg(test)]
mod tests;
