//! The curve of training, and pictures.

use super::super::PAPER;
use super::super::arms::{ATTENTIVE, FIXED_LAMBDA, LossChoice, POOLED, Scene};
use super::super::learning::{ATTENTION, NEIGHBOURS};
use super::View;
use crate::Run;
use crate::section::{Axis, Curve, Media, Picture, Series};

impl View<'_> {
    pub(super) fn curve(&self) -> Curve {
        let series = |name: &str, head, lambda| {
            let label = self.params(Scene::Plain, LossChoice::Margin, head, lambda).label();
            let history = self.results.history("metric", |run| run.paper == PAPER && run.kind == label);
            Series::over_epochs(name, &history)
        };
        Curve {
            title: "Margin loss while training".into(),
            caption: "Mean over groups and batches of an epoch; bands are 95 % t-intervals over seeds.".into(),
            x: Axis::linear("epoch"),
            y: Axis::linear("margin loss"),
            series: vec![
                series("pooled", POOLED, 0.0),
                series("attentive, λ 0", ATTENTIVE, 0.0),
                series(&format!("attentive, λ {FIXED_LAMBDA}"), ATTENTIVE, FIXED_LAMBDA),
            ],
            levels: Vec::new(),
        }
    }

    /// Of the first seed's runs.
    pub(super) fn pictures(&self) -> anyhow::Result<Vec<Picture>> {
        let mut pictures = Vec::new();
        for (scene, lambda) in [(Scene::Plain, 0.0), (Scene::Plain, FIXED_LAMBDA), (Scene::Cluttered, FIXED_LAMBDA)] {
            let label = self.params(scene, LossChoice::Margin, ATTENTIVE, lambda).label();
            let first = |run: &Run| run.paper == PAPER && run.kind == label && run.seed == 0;
            for finished in self.results.finished(first) {
                pictures.push(Picture {
                    title: format!("What each group looks at: {} characters, λ = {lambda}", scene.name()),
                    caption:
                        "Each row a character never seen: the image, then the image lit by each group's attention, \
                              scaled to its own maximum."
                            .into(),
                    alt: "rows of characters with bright and dark places, one column a group".into(),
                    media: Media::Png(std::fs::read(finished.artifact(ATTENTION)?)?),
                });
                if lambda > 0.0 {
                    pictures.push(Picture {
                        title: format!("Nearest neighbours: {} characters, λ = {lambda}", scene.name()),
                        caption:
                            "The query on the left, its eight nearest to the right: green of its class, red of another."
                                .into(),
                        alt: "rows of characters with green and red frames".into(),
                        media: Media::Png(std::fs::read(finished.artifact(NEIGHBOURS)?)?),
                    });
                }
            }
        }
        Ok(pictures)
    }
}
