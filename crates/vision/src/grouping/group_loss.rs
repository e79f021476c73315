//! A loss for every group, and diversity between them.

use super::{
    DiversityConfig, Embedded, Error, GroupEmbedding, GroupingHead, MetricLoss, Miner, Result, diversity_loss,
};
use core_tensor::data::Batch;
use core_tensor::seed::{Purpose, generator};
use core_tensor::train::{Loss, Objective, Progress};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What a batch without a usable pair or triplet does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNothing {
    /// It is an error.
    #[default]
    Refuse,
    /// The group adds 0, and [`GroupLossParts::silent_groups`] counts it.
    Skip,
}

/// `mean over groups of loss(group, labels) + λ · diversity` (Xu et al., arXiv 2011.08877).
///
/// The miner runs on each group's own distances, so that groups learn from different triplets. Losses with parameters
/// (the boundaries of a [`Margin`](super::Margin), proxies) are made once a group.
#[derive(Debug)]
pub struct GroupLoss {
    losses: Vec<Box<dyn MetricLoss>>,
    miner: Option<Box<dyn Miner>>,
    diversity: DiversityConfig,
    on_nothing: OnNothing,
}

/// The terms of a [`GroupLoss`].
#[derive(Debug)]
pub struct GroupLossParts {
    /// What is minimised.
    pub total: Tensor,
    /// The mean over groups of the metric loss.
    pub metric: Tensor,
    /// The diversity loss without its weight.
    pub diversity: Tensor,
    /// Groups that found no pair or triplet.
    pub silent_groups: usize,
}

impl GroupLoss {
    /// One loss a group, made by `make` from the group's number.
    ///
    /// # Errors
    /// No group, a diversity setting outside its range, what `make` refuses.
    pub fn new(
        groups: i64,
        diversity: DiversityConfig,
        mut make: impl FnMut(i64) -> Result<Box<dyn MetricLoss>>,
    ) -> Result<Self> {
        if groups < 1 {
            return Err(Error::setting("groups", "at least 1", groups));
        }
        diversity.validate()?;
        let losses = (0..groups).map(&mut make).collect::<Result<_>>()?;
        Ok(Self { losses, miner: None, diversity, on_nothing: OnNothing::Refuse })
    }

    /// Looks only at what this miner chooses.
    pub fn with_miner(self, miner: impl Miner + 'static) -> Self {
        Self { miner: Some(Box::new(miner)), ..self }
    }

    /// What happens to groups that find nothing.
    pub fn on_nothing(self, on_nothing: OnNothing) -> Self {
        Self { on_nothing, ..self }
    }

    /// The loss of a batch; `rng` is the miner's.
    ///
    /// # Errors
    /// Another number of groups, labels that do not fit, what losses and miner refuse.
    pub fn loss(&self, embedding: &GroupEmbedding, labels: &[i64], rng: &mut ChaCha8Rng) -> Result<GroupLossParts> {
        let (found, groups) = (embedding.groups().size()[1], self.losses.len());
        if found != groups as i64 {
            return Err(Error::shape("embedding", format!("{groups} groups"), format!("{found} groups")));
        }
        // Of all groups at once, so that a device is waited for once.
        let finite = embedding.groups().detach().isfinite().all().int64_value(&[]) != 0;
        let mut terms = Vec::with_capacity(groups);
        let mut silent_groups = 0;
        for (group, loss) in self.losses.iter().enumerate() {
            let vectors = embedding.group(group as i64)?;
            let batch = if finite { Embedded::of_finite(&vectors, labels)? } else { Embedded::new(&vectors, labels)? };
            let mined = self.miner.as_ref().map(|miner| miner.mine(&batch, rng)).transpose();
            terms.push(match mined.and_then(|mined| loss.loss(&batch, mined.as_ref())) {
                Err(Error::NothingMined { .. }) if self.on_nothing == OnNothing::Skip => {
                    silent_groups += 1;
                    // Still part of the graph, so that backward has something to walk.
                    vectors.sum(vectors.kind()) * 0.0
                }
                other => other?,
            });
        }
        let metric = Tensor::stack(&terms, 0).mean(None::<Kind>);
        let diversity = diversity_loss(embedding, &self.diversity);
        let total = &metric + &diversity * self.diversity.weight;
        Ok(GroupLossParts { total, metric, diversity, silent_groups })
    }
}

/// Trains a backbone, a grouping head and the parameters of the losses together: an [`Objective`] over labelled images.
///
/// `backbone` maps images to the feature map that the head sees. What the miner draws depends on the seed and the step
/// only, so that a resumed training goes on unchanged. Parts: `metric`, `diversity`, `silent_groups`.
pub struct GroupingObjective<'a> {
    backbone: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    head: &'a dyn GroupingHead,
    loss: &'a GroupLoss,
    seed: u64,
}

impl std::fmt::Debug for GroupingObjective<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { head, loss, seed, .. } = self;
        let mut debug = formatter.debug_struct("GroupingObjective");
        debug.field("head", head).field("loss", loss).field("seed", seed).finish_non_exhaustive()
    }
}

impl<'a> GroupingObjective<'a> {
    /// `backbone` runs in training mode.
    pub fn new(
        backbone: &'a dyn Fn(&Tensor) -> Result<Tensor>,
        head: &'a dyn GroupingHead,
        loss: &'a GroupLoss,
        seed: u64,
    ) -> Self {
        Self { backbone, head, loss, seed }
    }

    fn parts(&self, batch: &Batch, progress: &Progress) -> Result<GroupLossParts> {
        // Before the forward pass is under way, which reading them from a device would wait for.
        let labels = Vec::<i64>::try_from(batch.target.to_device(Device::Cpu))?;
        let embedding = self.head.forward(&(self.backbone)(&batch.input)?)?;
        self.loss.loss(&embedding, &labels, &mut generator(self.seed, Purpose::Noise, progress.step))
    }
}

impl Objective<Batch> for GroupingObjective<'_> {
    fn loss(&mut self, batch: &Batch, progress: &Progress) -> core_tensor::Result<Loss> {
        let parts = self.parts(batch, progress).map_err(Error::into_core)?;
        let named = vec![
            ("metric", parts.metric.detach()),
            ("diversity", parts.diversity.detach()),
            ("silent_groups", Tensor::from(parts.silent_groups as f64)),
        ];
        Ok(Loss { total: parts.total, parts: named })
    }
}

/// What a parameter is for, by the path it was made under: recipes give each role its own rate and decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The learned queries. Published weight decay: 1e-3 (1e-4 on large sets).
    Query,
    /// Everything else of the head. Published weight decay: that of the backbone.
    Head,
    /// Boundaries and proxies. Published: five times the rate of the weights, no decay.
    Loss,
    /// The rest. Published weight decay: 3e-4 to 3e-3.
    Backbone,
}

impl Role {
    /// The role of the parameter `name` when the head was made under the path `head` and the loss under `loss`. Whole
    /// components are compared, so that a backbone's `keypoints.weight` stays a backbone's. At the root, whose name is
    /// empty, a head has siblings: there what begins with a name that the heads of this module give, such as `query` or
    /// `value`, is its.
    ///
    /// ```
    /// use vision::grouping::Role;
    /// assert_eq!(Role::of("head.query", "head", "loss"), Role::Query);
    /// assert_eq!(Role::of("headroom.query", "head", "loss"), Role::Backbone);
    /// assert_eq!(Role::of("query", "", "loss"), Role::Query);
    /// ```
    pub fn of(name: &str, head: &str, loss: &str) -> Self {
        let under = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        let own = if head.is_empty() { Some(name).filter(|name| is_of_a_head(name)) } else { under(head) };
        match (own, under(loss)) {
            (Some("query"), _) => Self::Query,
            (Some(_), _) => Self::Head,
            (_, Some(_)) => Self::Loss,
            _ => Self::Backbone,
        }
    }
}

/// Whether a parameter's first component is one that an [`AttentiveGrouping`](super::AttentiveGrouping) or a
/// [`Baseline`](super::Baseline) gives.
fn is_of_a_head(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    let numbered = first.trim_end_matches(|character: char| character.is_ascii_digit());
    ["query", "key", "value", "output"].contains(&first)
        || numbered != first && ["squeeze", "excite"].contains(&numbered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::{
        AttentiveGrouping, AttentiveGroupingConfig, Baseline, BaselineConfig, BaselineKind, BatchHard, Contrastive,
        Conv4, DistanceWeighted, Margin, MarginConfig, MultiSimilarity, Padding, Triplet,
    };
    use core_tensor::nn::Standard;
    use tch::nn;

    fn embedding(batch: i64, groups: i64) -> GroupEmbedding {
        let wave = Tensor::arange(batch * groups * 4, (Kind::Double, Device::Cpu));
        GroupEmbedding::normalised(&(wave * 0.71).sin().view([batch, groups, 4]), None).unwrap()
    }

    fn rng() -> ChaCha8Rng {
        generator(0, Purpose::Noise, 0)
    }

    #[test]
    fn the_total_is_the_mean_over_groups_and_the_weighted_diversity() {
        let (seen, labels) = (embedding(6, 3), [0, 0, 1, 1, 2, 2]);
        let config = DiversityConfig::weighted(0.1);
        let loss = GroupLoss::new(3, config, |_| Ok(Box::new(MultiSimilarity::default()))).unwrap();
        let parts = loss.loss(&seen, &labels, &mut rng()).unwrap();
        let one = |group: i64| {
            let vectors = seen.group(group).unwrap();
            let batch = Embedded::new(&vectors, &labels).unwrap();
            MultiSimilarity::default().loss(&batch, None).unwrap().double_value(&[])
        };
        let metric = (one(0) + one(1) + one(2)) / 3.0;
        let expected = metric + 0.1 * diversity_loss(&seen, &config).double_value(&[]);
        assert!((parts.metric.double_value(&[]) - metric).abs() < 1e-12);
        assert!((parts.total.double_value(&[]) - expected).abs() < 1e-12);
    }

    #[test]
    fn each_group_is_mined_by_itself() {
        let (seen, labels) = (embedding(6, 2), [0, 0, 1, 1, 2, 2]);
        let triplet = |_| Ok(Box::new(Triplet::default()) as Box<dyn MetricLoss>);
        let loss = GroupLoss::new(2, DiversityConfig::weighted(0.0), triplet).unwrap().with_miner(BatchHard);
        let parts = loss.loss(&seen, &labels, &mut rng()).unwrap();
        let one = |group: i64| {
            let vectors = seen.group(group).unwrap();
            let batch = Embedded::new(&vectors, &labels).unwrap();
            let mined = BatchHard.mine(&batch, &mut rng()).unwrap();
            Triplet::default().loss(&batch, Some(&mined)).unwrap().double_value(&[])
        };
        assert!((parts.metric.double_value(&[]) - (one(0) + one(1)) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn batches_without_triplets_are_refused_or_counted() {
        let seen = embedding(4, 2);
        let build = || {
            let triplet = |_| Ok(Box::new(Triplet::default()) as Box<dyn MetricLoss>);
            GroupLoss::new(2, DiversityConfig::default(), triplet).unwrap().with_miner(DistanceWeighted::default())
        };
        let refused = build().loss(&seen, &[0; 4], &mut rng());
        assert!(matches!(refused, Err(Error::NothingMined { .. })));
        let parts = build().on_nothing(OnNothing::Skip).loss(&seen, &[0; 4], &mut rng()).unwrap();
        assert_eq!((parts.silent_groups, parts.metric.double_value(&[])), (2, 0.0));

        /// Says itself that there is nothing.
        #[derive(Debug)]
        struct Finicky;
        impl Miner for Finicky {
            fn mine(&self, _: &Embedded, _: &mut ChaCha8Rng) -> Result<crate::grouping::Mined> {
                Err(Error::NothingMined { kind: "triplet", reason: "none is good enough" })
            }
        }
        let triplet = |_| Ok(Box::new(Triplet::default()) as Box<dyn MetricLoss>);
        let loss = GroupLoss::new(2, DiversityConfig::default(), triplet).unwrap().with_miner(Finicky);
        assert!(matches!(loss.loss(&seen, &[0; 4], &mut rng()), Err(Error::NothingMined { .. })));
        assert_eq!(loss.on_nothing(OnNothing::Skip).loss(&seen, &[0; 4], &mut rng()).unwrap().silent_groups, 2);
    }

    #[test]
    fn counts_that_disagree_are_refused() {
        let triplet = |_| Ok(Box::new(Triplet::default()) as Box<dyn MetricLoss>);
        let loss = GroupLoss::new(3, DiversityConfig::default(), triplet).unwrap();
        assert!(matches!(loss.loss(&embedding(4, 2), &[0, 0, 1, 1], &mut rng()), Err(Error::Shape { .. })));
        assert!(matches!(loss.loss(&embedding(4, 3), &[0, 0, 1], &mut rng()), Err(Error::Shape { .. })));
        assert!(GroupLoss::new(0, DiversityConfig::default(), triplet).is_err());
        assert!(GroupLoss::new(1, DiversityConfig::weighted(f64::NAN), triplet).is_err());
    }

    #[test]
    fn roles_go_by_whole_names() {
        let role = |name| Role::of(name, "head", "loss");
        assert_eq!(role("head.key.weight"), Role::Head);
        assert_eq!(role("loss.0.beta"), Role::Loss);
        assert_eq!(role("layer1.query.weight"), Role::Backbone);
        assert_eq!(role("heads.query"), Role::Backbone);
    }

    #[test]
    fn a_head_at_the_root_is_told_from_its_siblings() {
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let config = AttentiveGroupingConfig { output_projection: true, ..AttentiveGroupingConfig::new(16, 2, 8) };
        AttentiveGrouping::new(&root, config).unwrap();
        for kind in [BaselineKind::Gate { reduction: 8 }, BaselineKind::LinearGate { reduction: 8 }] {
            let store = nn::VarStore::new(Device::Cpu);
            Baseline::new(&store.root(), BaselineConfig { kind, in_channels: 16, groups: 2, embed_dim: 8 }).unwrap();
            assert!(store.variables().keys().all(|name| Role::of(name, "", "loss") == Role::Head));
        }
        Conv4::new(&(&root / "backbone"), &Standard, 1, Padding::Zeros);
        Margin::new(&(&root / "loss" / 0), MarginConfig::new(2)).unwrap();
        for name in store.variables().keys() {
            let expected = match name.split('.').next().unwrap() {
                "query" => Role::Query,
                "backbone" => Role::Backbone,
                "loss" => Role::Loss,
                _ => Role::Head,
            };
            assert_eq!(Role::of(name, "", "loss"), expected, "{name}");
        }
        assert_eq!(Role::of("keypoints.weight", "", "loss"), Role::Backbone);
    }

    #[test]
    fn batches_of_one_kind_of_pair_are_refused_or_counted_with_any_loss_of_pairs() {
        let seen = embedding(4, 2);
        for labels in [[0; 4], [0, 1, 2, 3]] {
            let build = || {
                let contrastive = |_| Ok(Box::new(Contrastive::default()) as Box<dyn MetricLoss>);
                GroupLoss::new(2, DiversityConfig::default(), contrastive).unwrap()
            };
            let refused = build().loss(&seen, &labels, &mut rng());
            assert!(matches!(refused, Err(Error::NothingMined { .. })), "{refused:?}");
            let parts = build().on_nothing(OnNothing::Skip).loss(&seen, &labels, &mut rng()).unwrap();
            assert_eq!((parts.silent_groups, parts.metric.double_value(&[])), (2, 0.0));
        }
    }

    #[test]
    fn a_group_that_is_not_finite_is_refused_with_its_item() {
        let rows = embedding(3, 2).groups().copy();
        let _ = rows.get(1).get(1).get(3).fill_(f64::NAN);
        let seen = GroupEmbedding::normalised(&rows, None).unwrap();
        let triplet = |_| Ok(Box::new(Triplet::default()) as Box<dyn MetricLoss>);
        let loss = GroupLoss::new(2, DiversityConfig::default(), triplet).unwrap();
        let refused = loss.loss(&seen, &[0, 0, 1], &mut rng());
        assert!(matches!(refused, Err(Error::NotFinite { what: "embedding", position: 1 })), "{refused:?}");
    }
}
