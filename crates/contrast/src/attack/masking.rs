//! Do the gradients tell the truth? Checks after Carlini et al. 2019, "On Evaluating Adversarial Robustness"
//! (arXiv 1902.06705), and the warnings that AutoAttack gives.
//!
//! A defence that hides its gradient makes gradient attacks fail without being robust. None of these checks proves that it
//! does not; each catches a known way of doing it.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::report::{Accuracy, chunks, standing_of};
use super::run::Subject;
use super::{Adversarial, Apgd, ApgdTargeted, Attack, Ball, Error, Goal, Norm, Pgd, RandomPoints, Result, Square};

/// How much work the checks may do; every number is at least 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskingConfig {
    /// Steps of PGD, also run with twice as many. 20 by default.
    pub steps: usize,
    /// Restarts compared with one. 5 by default.
    pub restarts: usize,
    /// Queries of the square attack. 1000 by default; AutoAttack takes 5000.
    pub queries: usize,
    /// Random points of the ball. 100 by default; Carlini et al. suggest many thousands.
    pub points: usize,
    /// Steps of APGD. 100 by default.
    pub apgd_steps: usize,
    /// Images that go through the model at a time. 250 by default.
    pub batch: usize,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self { steps: 20, restarts: 5, queries: 1000, points: 100, apgd_steps: 100, batch: 250 }
    }
}

impl MaskingConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting that is 0.
    pub fn validate(&self) -> Result<()> {
        let settings = [
            ("batch", self.batch),
            ("steps", self.steps),
            ("restarts", self.restarts),
            ("queries", self.queries),
            ("points", self.points),
            ("apgd_steps", self.apgd_steps),
        ];
        match settings.into_iter().find(|(_, value)| *value == 0) {
            Some((setting, value)) => Err(Error::setting(setting, "at least 1", value)),
            None => Ok(()),
        }
    }
}

/// One look for masked gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is looked at, such as `white box beats black box`.
    pub name: String,
    /// Whether all is well; none when it could not be run.
    pub passed: Option<bool>,
    /// The figures.
    pub evidence: String,
}

impl Check {
    fn new(name: &str, passed: bool, evidence: String) -> Self {
        Self { name: name.to_owned(), passed: Some(passed), evidence }
    }

    fn not_run(name: &str, reason: &str) -> Self {
        Self { name: name.to_owned(), passed: None, evidence: reason.to_owned() }
    }
}

struct Looks<'a> {
    model: &'a dyn Classifier,
    images: &'a Tensor,
    labels: &'a Tensor,
    clean: Vec<bool>,
    batch: usize,
    seed: u64,
}

/// An attack's robust accuracy on the examples, and its mean loss where it has one.
struct Look {
    standing: Vec<bool>,
    loss: f64,
}

impl Look {
    fn share(&self) -> f64 {
        Accuracy::of(&self.standing).share()
    }
}

impl Looks<'_> {
    fn at(&self, attack: &dyn Attack) -> Result<Look> {
        let (mut standing, mut loss) = (Vec::new(), 0.0);
        for (x, y) in chunks(self.images, self.labels, self.batch) {
            let found: Adversarial = attack.run(self.model, &x, &Goal::untargeted(&y), self.seed)?;
            standing.extend(standing_of(&found.success)?);
            loss += found.loss.map_or(0.0, |loss| loss.sum(Kind::Double).double_value(&[]));
        }
        standing.iter_mut().zip(&self.clean).for_each(|(standing, &clean)| *standing &= clean);
        let count = standing.len().max(1) as f64;
        Ok(Look { standing, loss: loss / count })
    }
}

/// Runs the checks on a model in `ball`; `undefended` is a twin trained without a defence, if there is one.
///
/// Robust accuracies may differ by so much, or by one example where that is more:
///
/// | check | tolerance |
/// |---|---|
/// | `converged`, `restarts add little`, `targeted and untargeted agree` | half a point |
/// | `white box beats black box`, `Square adds nothing to the gradient attacks` | 0.2 points, as AutoAttack |
/// | `iterations beat one step`, `white box beats noise`, `… transfer`, `an unbounded attack wins` | none, not one example |
///
/// Besides, twice the steps change the loss of a PGD that has converged by less than 1 %, and no gradient is exactly zero.
/// What is asked of determinism, logits and the number of classes is AutoAttack's.
///
/// # Errors
/// As [`Attack::run`]; a setting outside its range before the first look.
pub fn gradient_masking(
    model: &dyn Classifier,
    undefended: Option<&dyn Classifier>,
    images: &Tensor,
    labels: &Tensor,
    ball: Ball,
    config: &MaskingConfig,
    seed: u64,
) -> Result<Vec<Check>> {
    config.validate()?;
    let goal = Goal::untargeted(labels);
    let subject = Subject::new(model, &ball, images, &goal)?;
    if images.numel() == 0 {
        return Ok(Vec::new());
    }
    let count = images.size()[0] as usize;
    let (half_a_point, fifth_of_a_point) = (tolerance(0.005, count), tolerance(0.002, count));
    let (mut clean, mut logits) = (Vec::new(), Vec::new());
    for (x, y) in chunks(images, labels, config.batch) {
        let answer = subject.logits(&x, 0)?;
        clean.extend(standing_of(&Goal::untargeted(&y).reached(&answer))?);
        logits.push(answer);
    }
    let logits = Tensor::cat(&logits, 0);
    let looks = Looks { model, images, labels, clean, batch: config.batch, seed };
    let mut checks = vec![
        deterministic(&subject, &looks, &logits)?,
        logits_not_probabilities(&logits),
        gradient_alive(&subject, &looks)?,
        enough_classes(subject.classes()),
    ];
    let pgd = Pgd::new(ball).with_steps(config.steps);
    let fgsm = looks.at(&Pgd::fgsm(ball))?;
    let once = looks.at(&pgd.clone().stopping_early())?;
    let (single, iterated) = (fgsm.share(), once.share());
    checks.push(Check::new(
        "iterations beat one step",
        iterated <= single,
        format!("{iterated:.4} after {} steps, {single:.4} after one", config.steps),
    ));

    let (short, long) = (looks.at(&pgd)?, looks.at(&pgd.clone().with_steps(2 * config.steps))?);
    let change = (long.loss - short.loss).abs() / short.loss.abs().max(1e-12);
    checks.push(Check::new(
        "converged",
        long.share() >= short.share() - half_a_point && change < 0.01,
        format!(
            "{:.4} after {} steps, {:.4} after twice as many; the loss changes by {:.2} %",
            short.share(),
            config.steps,
            long.share(),
            100.0 * change
        ),
    ));

    let often = looks.at(&pgd.with_restarts(config.restarts).stopping_early())?;
    checks.push(Check::new(
        "restarts add little",
        often.share() >= iterated - half_a_point,
        format!("{:.4} of {} restarts, {iterated:.4} of one", often.share(), config.restarts),
    ));

    let apgd = looks.at(&Apgd::new(ball).with_steps(config.apgd_steps))?;
    let white = apgd.share();
    let square = Square::new(ball).with_queries(config.queries);
    // Windows need images; vectors have none in L2 and L1.
    let square = match square.shape(images) {
        Ok(_) => Some(looks.at(&square)?),
        Err(_) => None,
    };
    let no_windows = "Square needs images of at least 3 × 3";
    checks.push(match &square {
        Some(square) => beats_black_box(&apgd, square, config.queries, fifth_of_a_point),
        None => Check::not_run(BEATS_BLACK_BOX, no_windows),
    });

    let mut gradients: Vec<bool> = apgd.standing.iter().zip(&often.standing).map(|(apgd, pgd)| *apgd && *pgd).collect();
    if subject.classes() >= 4 {
        let targeted = ApgdTargeted { apgd: Apgd::dlr(ball).with_steps(config.apgd_steps), targets: 3 };
        let targeted = looks.at(&targeted)?;
        gradients.iter_mut().zip(&targeted.standing).for_each(|(all, &one)| *all &= one);
        checks.push(Check::new(
            "targeted and untargeted agree",
            targeted.share() <= white + half_a_point,
            format!(
                "{:.4} under targeted APGD, {white:.4} under untargeted, {:.4} under their union",
                targeted.share(),
                Accuracy::of(&gradients).share()
            ),
        ));
    } else {
        checks.push(Check::not_run("targeted and untargeted agree", "needs four classes"));
    }
    checks.push(match &square {
        Some(square) => adds_nothing(&gradients, square, fifth_of_a_point),
        None => Check::not_run(ADDS_NOTHING, no_windows),
    });

    let random = looks.at(&RandomPoints::new(ball, config.points))?;
    checks.push(Check::new(
        "white box beats noise",
        iterated <= random.share(),
        format!("{iterated:.4} under PGD, {:.4} under the worst of {} random points", random.share(), config.points),
    ));

    checks.push(match undefended {
        Some(source) => {
            let attack = Pgd::new(ball).with_steps(config.steps);
            let mut standing = Vec::new();
            for (x, y) in chunks(images, labels, config.batch) {
                let goal = Goal::untargeted(&y);
                let found = attack.run(source, &x, &goal, seed)?;
                standing.extend(standing_of(&goal.reached(&subject.logits(&found.images, 0)?))?);
            }
            standing.iter_mut().zip(&looks.clean).for_each(|(standing, &clean)| *standing &= clean);
            let transferred = Accuracy::of(&standing).share();
            Check::new(
                "white box beats transfer",
                iterated <= transferred,
                format!("{iterated:.4} under PGD, {transferred:.4} under the undefended twin's examples"),
            )
        }
        None => Check::not_run("white box beats transfer", "no undefended twin was given"),
    });

    checks.push(grey(&looks, ball, config, subject.classes())?);
    Ok(checks)
}

const BEATS_BLACK_BOX: &str = "white box beats black box";
const ADDS_NOTHING: &str = "Square adds nothing to the gradient attacks";

/// By how much two robust accuracies may differ: `share`, or one example where that is more; the last digits do not count.
fn tolerance(share: f64, examples: usize) -> f64 {
    (1.0 / examples as f64).max(share) + 1e-12
}

fn beats_black_box(apgd: &Look, square: &Look, queries: usize, tolerance: f64) -> Check {
    let (white, black) = (apgd.share(), square.share());
    let evidence = format!("{white:.4} under APGD, {black:.4} under Square with {queries} queries");
    Check::new(BEATS_BLACK_BOX, white <= black + tolerance, evidence)
}

/// `gradients` tells which examples stand against all gradient attacks.
fn adds_nothing(gradients: &[bool], square: &Look, tolerance: f64) -> Check {
    let both: Vec<bool> = gradients.iter().zip(&square.standing).map(|(a, b)| *a && *b).collect();
    let added = Accuracy::of(gradients).share() - Accuracy::of(&both).share();
    Check::new(ADDS_NOTHING, added <= tolerance, format!("it breaks another {added:.4} of all examples"))
}

/// Five passes: equal numbers of right answers, and normalised logits less than 1e-4 apart.
fn deterministic(subject: &Subject, looks: &Looks, first: &Tensor) -> Result<Check> {
    let normalised = |logits: &Tensor| {
        let length = logits.linalg_norm(2, [1].as_slice(), true, logits.kind());
        logits / (length + 1e-10)
    };
    let right = Accuracy::of(&looks.clean).correct;
    let (mut counts, mut distance) = (vec![right], 0.0_f64);
    for _ in 1..5 {
        let (mut correct, mut again) = (0, Vec::new());
        for (x, y) in chunks(looks.images, looks.labels, looks.batch) {
            let logits = subject.logits(&x, 0)?;
            correct += Accuracy::of(&standing_of(&Goal::untargeted(&y).reached(&logits))?).correct;
            again.push(logits);
        }
        let apart = normalised(first) - normalised(&Tensor::cat(&again, 0));
        distance = distance.max(apart.linalg_norm(2, [1].as_slice(), false, first.kind()).max().double_value(&[]));
        counts.push(correct);
    }
    let passed = counts.iter().all(|&count| count == right) && distance < 1e-4;
    Ok(Check::new(
        "the model is deterministic",
        passed,
        format!("right answers of five passes {counts:?}, logits up to {distance:.1e} apart"),
    ))
}

/// Probabilities lie between 0 and 1 and add up to 1.
fn logits_not_probabilities(logits: &Tensor) -> Check {
    let (max, min) = (logits.max().double_value(&[]), logits.min().double_value(&[]));
    let sums = logits.sum_dim_intlist([1].as_slice(), false, logits.kind());
    let off = (sums - 1.0).abs().max().double_value(&[]);
    let probabilities = max < 1.0 + 1e-5 && min > -1e-5 && off < 1e-5;
    Check::new("the output is logits", !probabilities, format!("outputs lie in [{min:.4}, {max:.4}]"))
}

/// The share of examples whose cross-entropy has no gradient at all at the image.
fn gradient_alive(subject: &Subject, looks: &Looks) -> Result<Check> {
    let mut dead = 0;
    for (x, y) in chunks(looks.images, looks.labels, looks.batch) {
        let goal = Goal::untargeted(&y);
        let loss = |logits: &Tensor| super::Loss::CrossEntropy.values(logits, &goal, logits);
        let gradient = subject.evaluate(&x, 0, loss)?.gradient;
        let largest = gradient.abs().flatten(1, -1).amax([1].as_slice(), false);
        dead += largest.eq(0.0).sum(Kind::Int64).int64_value(&[]);
    }
    let share = dead as f64 / looks.clean.len().max(1) as f64;
    Ok(Check::new("the gradient is alive", dead == 0, format!("exactly zero on {share:.4} of the examples")))
}

fn enough_classes(classes: i64) -> Check {
    let evidence = format!("{classes}; the DLR loss needs 3, its targeted form 4");
    Check::new("enough classes", classes >= 4, evidence)
}

/// At an Linf budget of half the box every image can be made the same grey, so no more than the largest class stands.
fn grey(looks: &Looks, ball: Ball, config: &MaskingConfig, classes: i64) -> Result<Check> {
    let name = "an unbounded attack wins";
    if ball.norm != Norm::Linf {
        return Ok(Check::not_run(name, "in Linf only"));
    }
    let radius = 0.5 * (ball.high - ball.low);
    let wide = ball.with_radius(radius);
    let standing = looks.at(&Pgd::new(wide).with_steps(2 * config.steps).stopping_early())?.share();
    let one_hot = looks.labels.one_hot(classes).sum_dim_intlist([0].as_slice(), false, Kind::Int64);
    let largest = one_hot.max().int64_value(&[]) as f64 / looks.clean.len().max(1) as f64;
    let evidence = format!("{standing:.4} at budget {radius}, largest class {largest:.4}");
    Ok(Check::new(name, standing <= largest, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look after which the first `standing` of `examples` stand.
    fn scripted(standing: usize, examples: usize) -> Look {
        Look { standing: (0..examples).map(|place| place < standing).collect(), loss: 0.0 }
    }

    #[test]
    fn square_may_win_by_one_example_of_a_small_set_and_by_a_fifth_of_a_point_of_a_large_one() {
        for (examples, allowed) in [(24, 1), (500, 1), (1000, 2), (1499, 2)] {
            let tolerance = tolerance(0.002, examples);
            let half = examples / 2;
            for won in 0..5 {
                let (apgd, square) = (scripted(half, examples), scripted(half - won, examples));
                let checks =
                    [beats_black_box(&apgd, &square, 10, tolerance), adds_nothing(&apgd.standing, &square, tolerance)];
                for check in checks {
                    assert_eq!(check.passed, Some(won <= allowed), "{won} of {examples}: {check:?}");
                }
            }
        }
    }
}
