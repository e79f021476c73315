//! A score and what it belongs to.

use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The score of one presentation; higher is more live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The score. NaN or infinite means that no score could be acquired.
    pub score: f64,
    /// Whether a living person was in front of the camera.
    pub bona_fide: bool,
    /// Species of the attack, such as `print` or, with its instrument, `print/laser`.
    pub species: Option<String>,
    /// Who was pictured. Intervals resample people, and thresholds refuse a test set with people of their own.
    pub subject: Option<u32>,
    /// Which recording, for pooling frames.
    pub video: Option<u64>,
}

impl Scored {
    /// A bona fide presentation.
    pub fn live(score: f64) -> Self {
        Self { score, bona_fide: true, species: None, subject: None, video: None }
    }

    /// An attack of a species.
    pub fn attack(score: f64, species: &str) -> Self {
        Self { score, bona_fide: false, species: Some(species.into()), subject: None, video: None }
    }

    /// Of a person.
    #[must_use]
    pub fn of(mut self, subject: u32) -> Self {
        self.subject = Some(subject);
        self
    }

    /// In a recording.
    #[must_use]
    pub fn in_video(mut self, video: u64) -> Self {
        self.video = Some(video);
        self
    }

    /// The species cut to its first `level` parts: `print/laser` at level 1 is `print`. All for level 0.
    pub(crate) fn species_at(&self, level: usize) -> String {
        let name = self.species.as_deref().unwrap_or("unnamed");
        if level == 0 { name.into() } else { name.split('/').take(level).collect::<Vec<_>>().join("/") }
    }
}

/// Makes one score of a recording's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// The mean.
    Mean,
    /// The largest.
    Max,
    /// The median; of an even number, the mean of the middle two.
    Median,
}

/// One score a recording, in the order in which recordings first appear, with species and person of its first frame.
/// Scores without a recording stay as they are; frames without a finite score are left out unless a recording has no
/// other.
///
/// # Errors
/// [`Error::BadLabel`] where frames of a recording disagree on being bona fide.
pub fn pool_videos(scores: &[Scored], pool: Pool) -> Result<Vec<Scored>> {
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    let mut groups: Vec<(Scored, Vec<f64>)> = Vec::new();
    for (index, scored) in scores.iter().enumerate() {
        let known = scored.video.and_then(|video| places.get(&video).copied());
        if let Some(place) = known {
            let (first, frames) = &mut groups[place];
            if first.bona_fide != scored.bona_fide {
                return Err(Error::BadLabel { index, value: f64::from(u8::from(scored.bona_fide)) });
            }
            frames.push(scored.score);
        } else {
            if let Some(video) = scored.video {
                places.insert(video, groups.len());
            }
            groups.push((scored.clone(), vec![scored.score]));
        }
    }
    let pooled = |(mut first, mut frames): (Scored, Vec<f64>)| {
        frames.retain(|score| score.is_finite());
        frames.sort_unstable_by(f64::total_cmp);
        let count = frames.len();
        first.score = match (count, pool) {
            (0, _) => f64::NAN,
            (_, Pool::Mean) => frames.iter().sum::<f64>() / count as f64,
            (_, Pool::Max) => frames[count - 1],
            (_, Pool::Median) => 0.5 * (frames[(count - 1) / 2] + frames[count / 2]),
        };
        first
    };
    Ok(groups.into_iter().map(pooled).collect())
}
