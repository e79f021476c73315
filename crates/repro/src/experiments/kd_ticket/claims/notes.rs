//! What a reader must know to read the claims rightly.

use super::View;
use crate::experiments::kd_ticket::cases::Case;
use crate::section::cell;
use crate::{Ask, JudgedClaim, Tier};

impl View<'_> {
    /// The notes on one network.
    pub(super) fn notes(&self, ask: &Ask, claims: &[JudgedClaim]) -> anyhow::Result<Vec<String>> {
        let mut notes = vec![denominator(self.case)];
        notes.extend(fewer_controls(self.case, ask));
        notes.extend(fewer_on_the_curve(self.case, ask));
        notes.extend(self.before_the_end()?);
        let rate: &[&str] = if self.case.kd_learning_rate { &["T2c", "T3c", "T3d"] } else { &["T2c", "T3d"] };
        let weights: &[&str] = if self.case.scans { &["T2b", "T2d", "T3a"] } else { &["T2b", "T3a"] };
        for (rewinding, compared) in [("T1b", weights), ("T1c", rate)] {
            let compared: Vec<_> = compared.iter().map(|id| self.id(id)).collect();
            let rewinding = claims.iter().find(|claim| claim.id() == self.id(rewinding));
            notes.extend(rewinding.and_then(|rewinding| evidence(self.case.network, rewinding, &compared.join(", "))));
        }
        Ok(notes)
    }

    /// What a recipe shorter than it should be leaves open.
    fn before_the_end(&self) -> anyhow::Result<Option<String>> {
        let Some(full) = self.case.full_epochs else { return Ok(None) };
        let (_, fitted) = self.results.history("train_accuracy", |run| self.is_dense(run)).pop().unwrap_or_default();
        let (fitted, tested) = (cell(&fitted, 2), cell(&self.dense()?.values(), 2));
        let (network, recipe) = (self.case.network, &self.case.recipe);
        Ok(Some(format!(
            "{network}: for time it trains for {} epochs ({} steps) instead of {full}. Dense networks are right on {fitted} % \
             of the augmented training images during the last epoch and on {tested} % of the test images after it: far from \
             fitting what it is trained on, a network of this size cannot show what rewinding does for one trained to the end.",
            recipe.epochs,
            recipe.steps(),
        )))
    }
}

/// What a case's densities are shares of.
fn denominator(case: &Case) -> String {
    let network = case.network;
    if case.unpruned.is_empty() {
        return format!("{network}: densities count the weights of every layer, the classifier's too.");
    }
    let kept = case.unpruned.join(", ");
    format!("{network}: densities leave out {kept}, which keeps all its weights; compare them with none that count it.")
}

/// That controls have fewer seeds, where they have.
fn fewer_controls(case: &Case, ask: &Ask) -> Option<String> {
    let seeds = ask.seeds(case.seeds).end;
    let controls = case.control_seeds;
    (controls < seeds).then(|| {
        format!(
            "{}: the tickets with and without soft labels and rewinding have {seeds} seeds, the controls of claims T5 the first \
             {controls} of them, for time.",
            case.network
        )
    })
}

/// That the curve's other points have fewer seeds, where they have.
fn fewer_on_the_curve(case: &Case, ask: &Ask) -> Option<String> {
    let seeds = ask.seeds(case.seeds).end;
    let few = case.curve_seeds;
    (few < seeds && !case.curve.is_empty()).then(|| {
        format!(
            "{}: claims are tested at {:.2} % density, with {seeds} seeds; the curve's other points have the first {few} of them.",
            case.network,
            100.0 * case.density
        )
    })
}

/// What passing a comparison with rewinding is worth where rewinding itself is not seen to help.
fn evidence(network: &str, rewinding: &JudgedClaim, compared: &str) -> Option<String> {
    let (id, verdict) = (rewinding.id(), rewinding.verdict());
    (verdict.as_str() != "reproduced").then(|| {
        format!(
            "{network}: {compared} compare with rewinding, or add to it. {id}, that this rewinding helps at all, is {verdict}: \
             one of them that is reproduced shows neither that soft labels match a rewinding that works nor that two gains \
             add up; one that is not reproduced stands."
        )
    })
}

/// The notes on all networks of a tier.
pub(super) fn of_tier(tier: Tier) -> Vec<String> {
    let mut notes = vec![
        "All arms of a seed share the dense network, the mask (but for the control of the mask) and the order and augmentation \
         of the data, which are others than the dense network was trained with, so differences are paired. Accuracies are \
         those of the last epoch; the test set chooses no network."
            .to_owned(),
    ];
    if tier == Tier::Standard {
        notes.push(
            "Claim T4b compares standard deviations, which hardly grow with the number of points, as ranges do: there are six \
             settings of soft labels and four rewinding points up to 20 % of the training. \"Up to 20 %\" was chosen after \
             the table had been seen. The table has the points at 50 and 80 % too, after which a sparse network has too few \
             steps left, so that they alone would decide."
                .to_owned(),
        );
        notes.push(
            "Claim T2d was added by a review, after the scan's figures had been seen. Its maximum is over all six rewinding points, \
             of which the first, at 0 %, is the original ticket, and is taken on the test images seed by seed: no search that \
             keeps to its training data does as well, so it favours rewinding."
                .to_owned(),
        );
    }
    if tier != Tier::Paper {
        notes.push(
            "LeNet-300-100's 1.15 % was chosen after three seeds of another implementation, with the same training and test images, \
             had been seen to gain from soft labels there, and not visibly at 3.52 %: that they help is said of tickets as sparse \
             as this."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::kd_ticket::cases;
    use crate::{Claim, DataRoot, Device, Relation, Samples, Test};

    fn ask(tier: Tier, seeds: Option<u64>, data: &std::path::Path) -> Ask {
        Ask { tier, seeds, device: Device::Cpu, data: DataRoot::at(data) }
    }

    #[test]
    fn reports_say_what_a_density_is_a_share_of() {
        let empty = tempfile::tempdir().unwrap();
        let cases = cases::of(&ask(Tier::Quick, None, empty.path())).unwrap();
        let note = denominator(&cases[0]);
        assert!(note.starts_with("LeNet-300-100: ") && note.contains("classifier's too"), "{note}");
    }

    #[test]
    fn controls_with_fewer_seeds_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cifar-10-jpeg")).unwrap();
        let [default, three] = [None, Some(3)].map(|seeds| ask(Tier::Standard, seeds, folder.path()));
        let cases = cases::of(&default).unwrap();
        assert_eq!(fewer_controls(&cases[0], &default), None);
        let note = fewer_controls(&cases[1], &default).unwrap();
        assert!(note.contains("have 5 seeds") && note.contains("the first 3 of them"), "{note}");
        // With three seeds asked for, all have three.
        assert_eq!(fewer_controls(&cases[1], &three), None);
    }

    #[test]
    fn points_of_the_curve_with_fewer_seeds_are_named() {
        let empty = tempfile::tempdir().unwrap();
        let [default, two] = [None, Some(2)].map(|seeds| ask(Tier::Quick, seeds, empty.path()));
        let cases = cases::of(&default).unwrap();
        let note = fewer_on_the_curve(&cases[0], &default).unwrap();
        assert!(note.contains("at 1.15 % density, with 5 seeds") && note.contains("the first 2 of them"), "{note}");
        assert_eq!(fewer_on_the_curve(&cases[0], &two), None);
    }

    #[test]
    fn comparisons_with_rewinding_are_evidence_only_where_it_helps() {
        let note = |gains: [f64; 3]| {
            let claim =
                Claim::new("T1b", "rewinding").test(Test::mean("A(WR) − A(LT)", Relation::Above(0.0)), "points");
            evidence("net", &claim.judge(&Samples::of((0..).zip(gains))).unwrap(), "T2b, T3a")
        };
        assert_eq!(note([1.0, 1.1, 0.9]), None);
        for (gains, verdict) in [([-1.0, 0.0, 1.0], "inconclusive"), ([-1.0, -1.1, -0.9], "not reproduced")] {
            let note = note(gains).unwrap();
            assert!(
                note.starts_with("net: T2b, T3a compare") && note.contains(&format!("is {verdict}: one of")),
                "{note}"
            );
        }
    }
}
