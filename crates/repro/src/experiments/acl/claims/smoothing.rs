//! Randomised smoothing: what is proved beside what is attacked.

use super::super::cases::{RANDOM, SIGMA, SIGMAS, noise_method};
use super::super::certify::{BROKEN, Certified, bare_name, certified_name, standing_name};
use super::{OURS, POINTS, View};
use crate::section::{Axis, Curve, Point, Series, Table, cell};
use crate::{Claim, JudgedClaim, Relation, Samples, Test, Tier};

const COHEN: &str = "arXiv 1902.02918";

impl View<'_> {
    pub(super) fn smoothing_claims(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let holds = Claim::new("R9a", "No attack within its radius takes an image from a certified class")
            .paper("theorem 1", COHEN)
            .test(Test::every("certified images that PGD in L2 takes", Relation::AtMost(0.0)), "images");
        let trained = Claim::new("R9b", "Smoothing needs a network that was trained under noise")
            .paper("section 3.3", COHEN)
            .test(
                Test::mean(
                    "certified(trained under noise) − certified(without), σ 0.25, L2 0.25",
                    Relation::Above(0.0),
                ),
                POINTS,
            );
        let proof = Claim::new(
            "R9c",
            "What is proved of a smoothed network is more than what an attack leaves of an undefended one",
        )
        .paper("not in the paper", OURS)
        .test(Test::mean("certified(σ 0.25) − RA(standard training, PGD), L2 0.5", Relation::Above(0.0)), POINTS);
        let near = Claim::new("R9d", "Less noise leaves more accuracy: σ 0.12 against 0.5, smoothed, no attack")
            .paper("section 4", COHEN)
            .test(Test::mean("certified(σ 0.12) − certified(σ 0.5), L2 0", Relation::Above(0.0)), POINTS);
        let far = Claim::new("R9e", "… and more noise certifies further: σ 0.5 against 0.25")
            .paper("section 4", COHEN)
            .test(Test::mean("certified(σ 0.5) − certified(σ 0.25), L2 0.75", Relation::Above(0.0)), POINTS);
        if self.tier != Tier::Standard {
            return Ok([holds, trained, proof, near, far].map(|claim| claim.not_run(self.elsewhere())).into());
        }
        let certified = |sigma, radius| self.of_noise(&noise_method(sigma), &certified_name(radius));
        let undefended = |metric: &str| self.of_noise("standard training", metric);
        let broken = SIGMAS.map(|sigma| self.of_noise(&noise_method(sigma), BROKEN));
        let broken: Vec<Samples> = broken.into_iter().chain([undefended(BROKEN)]).collect::<anyhow::Result<_>>()?;
        Ok(vec![
            holds.judge(&super::fold(broken.into_iter(), |all, more| all + more))?,
            trained.judge(&certified(SIGMA, 0.25)?.minus(&undefended(&certified_name(0.25))?))?,
            proof.judge(&certified(SIGMA, 0.5)?.minus(&undefended(&bare_name(0.5))?))?,
            near.judge(&certified(0.12, 0.0)?.minus(&certified(0.5, 0.0)?))?,
            far.judge(&certified(0.5, 0.75)?.minus(&certified(SIGMA, 0.75)?))?,
        ])
    }

    fn of_noise(&self, method: &str, metric: &str) -> anyhow::Result<Samples> {
        self.tuned(method, RANDOM, self.many()).named(metric)
    }

    /// The networks that were smoothed: how they were trained, and how certified.
    fn smoothed(&self) -> Vec<(String, &Certified)> {
        let all = self.case.tunings.iter().filter_map(|fine| Some((fine, fine.params.certified.as_ref()?)));
        all.map(|(fine, certified)| {
            let method = fine.label.split(" from ").next().unwrap_or_default();
            (method.to_owned(), certified)
        })
        .collect()
    }

    /// What is certified at every radius, and what attacks leave; none where nothing was smoothed.
    pub(super) fn certificates(&self) -> anyhow::Result<Option<(Curve, Table)>> {
        let smoothed = self.smoothed();
        let Some((_, how)) = smoothed.first() else { return Ok(None) };
        let mut series = Vec::new();
        let mut rows = Vec::new();
        for (method, certified) in &smoothed {
            let points = |radii: &[f64], name: fn(f64) -> String| -> anyhow::Result<Vec<Point>> {
                let point = |&radius| Ok(Point::of(radius, &self.of_noise(method, &name(radius))?.values()));
                let points = radii.iter().map(point).collect::<anyhow::Result<Vec<_>>>()?;
                Ok(points.into_iter().flatten().collect())
            };
            let title = format!("{method}, σ {}", certified.sigma);
            series.push(Series {
                name: format!("{title}: certified"),
                points: points(&certified.radii, certified_name)?,
            });
            series.push(Series {
                name: format!("{title}: attacked"),
                points: points(&certified.attacked, standing_name)?,
            });
            let cells = |radii: &[f64], name: fn(f64) -> String| {
                let cell = |&radius| Ok(cell(&self.of_noise(method, &name(radius))?.values(), 1));
                radii.iter().map(cell).collect::<anyhow::Result<Vec<_>>>()
            };
            let mut row = vec![title];
            row.extend(cells(&certified.radii, certified_name)?);
            row.extend(cells(&certified.attacked, standing_name)?);
            row.extend(cells(&certified.attacked, bare_name)?);
            rows.push(row);
        }
        let caption = format!(
            "Of {} images a seed, {} noisy passes each, α {}. Attacked: PGD-{} in L2 on the mean probabilities of {} passes, \
             answered by {} passes of their own, where abstaining is no right answer.",
            how.images, how.smoothing.certification, how.smoothing.alpha, how.steps, how.passes, how.predictions
        );
        let mut header = vec!["training".to_owned()];
        header.extend(how.radii.iter().map(|radius| format!("certified at {radius} (%)")));
        header.extend(how.attacked.iter().map(|radius| format!("attacked, {radius} (%)")));
        header.extend(how.attacked.iter().map(|radius| format!("not smoothed, attacked, {radius} (%)")));
        let title = format!("{}: randomised smoothing", self.case.network);
        let curve = Curve {
            title: title.clone(),
            caption: format!("{caption} Bands are 95 % t-intervals over seeds."),
            x: Axis::linear("L2 radius"),
            y: Axis::linear("accuracy (%)"),
            series,
            levels: Vec::new(),
        };
        let caption = format!("{caption} Mean ± half the 95 % interval over seeds.");
        Ok(Some((curve, Table { title, caption, header, rows })))
    }
}
