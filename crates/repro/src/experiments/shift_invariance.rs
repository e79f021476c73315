//! Shift invariance of CNN features (arXiv 2011.04127), on small networks trained here.
//!
//! ```text
//! net        trains one network on objects near the centre, then moves unseen objects over the whole frame
//! borders    one convolution with random weights under two paddings
//! published  a checkpoint of the user's, at the paper's own sizes (paper tier)
//! ```

mod claims;
mod measure;
mod network;
mod page;
mod placed;
mod published;

use super::images::ImageSet;
use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};
use network::{Head, Pool};
use serde::{Deserialize, Serialize};

const PAPER: &str = "shift-invariance";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 2;

/// The experiment.
pub(super) struct ShiftInvariance;

/// A network, its training and what is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Net {
    data: ImageSet,
    head: Head,
    pool: Pool,
    train_images: usize,
    epochs: u64,
    batch: usize,
    peak: f64,
    /// Test images at the centre, for accuracy and consistency.
    test_images: usize,
    /// Test objects moved over the frame, at whose centre their accuracy is noted too.
    objects: usize,
}

impl Net {
    /// The six networks that every tier compares.
    fn six() -> [(Head, Pool); 6] {
        let blur = Pool::Blur(4);
        [
            (Head::Flatten, Pool::Max),
            (Head::Flatten, blur),
            (Head::Average, Pool::Max),
            (Head::Average, blur),
            (Head::Average, Pool::Circular),
            (Head::Average, Pool::Polyphase),
        ]
    }

    fn is(&self, head: Head, pool: Pool) -> bool {
        self.head == head && self.pool == pool
    }
}

impl Experiment for ShiftInvariance {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "What Does CNN Shift Invariance Look Like? A Visualization Study"
    }

    fn reference(&self) -> &'static str {
        "Lee, Yang, Wang, ECCV 2020 workshop, arXiv 2011.04127; Zhang, arXiv 1904.11486; Chaman, Dokmanić, arXiv 2011.14214"
    }

    fn idea(&self) -> &'static str {
        "A convolution moves its output with its input, so the features of an object should not depend on where it is. They do: \
         strides alias, borders and flattened heads leak position. The paper moves an object over every position of the frame \
         and shows what happens to the features, a few pixels away and across the whole frame, with and without anti-aliasing."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        if ask.tier == Tier::Paper {
            published::plan(ask, &mut plan)?;
            return Ok(plan);
        }
        let data = ImageSet::grey(&ask.data)?;
        let standard = ask.tier == Tier::Standard;
        let (train_images, epochs, objects, seeds) = if standard { (10_000, 8, 40, 3) } else { (2000, 4, 10, 2) };
        // Differences between plain and blurred networks vary with the seed.
        let compared_seeds = if standard { 6 } else { seeds };
        plan.data.push(data.describe(train_images));
        plan.data.push(DataUse { set: "one convolution with random weights".into(), source: DataSource::Generator });
        let mut nets = Net::six().to_vec();
        if standard {
            nets.extend([2, 3, 5].map(|kernel| (Head::Average, Pool::Blur(kernel))));
        }
        for seed in ask.seeds(compared_seeds) {
            let more = !ask.seeds(seeds).any(|own| own == seed);
            for &(head, pool) in nets.iter().filter(|(_, pool)| !more || claims::compares(*pool)) {
                let net =
                    Net { data, head, pool, train_images, epochs, batch: 128, peak: 2e-3, test_images: 1000, objects };
                // Seconds on a busy core: training, and 441 positions an object through the network and the classifiers.
                let effort = (train_images as u64 * epochs) as f64 / 1250.0 + 0.65 * objects as f64;
                plan.add_weighted(ask.run(PAPER, "net", seed, &net)?.at_revision(REVISION), effort);
            }
            if !more {
                plan.add_weighted(ask.run(PAPER, "borders", seed, &())?.at_revision(REVISION), 0.05);
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "net" => measure::net(&run.params()?, run.seed, context),
            "borders" => measure::borders(run.seed, context.device().into()),
            "published" => published::measure(&run.params()?, context),
            other => anyhow::bail!("no run of kind `{other}`"),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}
