//! What attacks on classifiers share: the trait, the result, and the model behind its checks.

use std::cell::Cell;

use tch::{Device, Kind, Tensor};

use super::classifier::Classifier;
use super::loss::{Loss, of_class};
use super::pgd::{check_all_finite, check_finite, input_gradient};
use super::{Ball, Error, Goal, Norm, Result};

/// An attack on classifiers.
pub trait Attack: std::fmt::Debug {
    /// Its name in reports, such as `pgd-linf`.
    fn name(&self) -> String;

    /// The budget. An attack for the least perturbation keeps to it too: what it found beyond does not count as success.
    fn ball(&self) -> Ball;

    /// The same attack with another budget, steps in proportion: what a curve over budgets is drawn with.
    fn with_radius(&self, radius: f64) -> Box<dyn Attack>;

    /// Checks the settings without running: what a series of attacks asks first, so that no result is lost to a later
    /// attack's setting. By default the ball alone.
    ///
    /// # Errors
    /// The first setting outside its range.
    fn check(&self) -> Result<()> {
        self.ball().validate()
    }

    /// What is legal on `images`, `[batch, …]`, but probably not meant, in words. By default what the ball says.
    fn advice(&self, images: &Tensor) -> Vec<String> {
        let _ = images;
        self.ball().advice().into_iter().collect()
    }

    /// Attacks `images`, `[batch, …]` inside the box.
    ///
    /// # Errors
    /// Settings outside their range, images outside the box, labels that do not fit or are on another device, a model
    /// that is in training mode, returns no logits or none that are finite.
    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial>;
}

/// What an attack found, example by example.
#[derive(Debug)]
pub struct Adversarial {
    /// The perturbed images, inside ball and box. Where an attack for the least perturbation fails, the image itself.
    pub images: Tensor,
    /// Whether the goal was reached, `[batch]` of booleans. Of a random model at one look, which may be luck where an attack
    /// takes many: [`AutoAttack`](super::AutoAttack) and [`Evaluator`](super::Evaluator) ask once more.
    pub success: Tensor,
    /// The size of each perturbation in the ball's norm, `[batch]` in double precision.
    pub distance: Tensor,
    /// The final value of what the attack maximises, `[batch]`, where it has one. −∞ where the goal was reached before the
    /// loss was asked for: by no change at all, or on the way to an earlier class.
    pub loss: Option<Tensor>,
    /// Images that went forward through the model.
    pub forward: u64,
    /// Images that went backward through it.
    pub backward: u64,
}

impl Adversarial {
    /// The share of examples on which the attack failed, in `[0, 1]`: robust accuracy, for an untargeted goal. 1 of no
    /// examples.
    pub fn survivors(&self) -> f64 {
        let count = self.success.numel() as f64;
        1.0 - self.success.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]) / count.max(1.0)
    }
}

/// How many images go through an attack's loop together on a CPU. A thousand at once leave activations of tens of megabytes
/// a layer, which fall out of the caches and, unless the allocator keeps freed memory, are mapped anew at every step. On small
/// residual nets parts of 128 took a tenth to a quarter less time than parts of 64; 256 gained up to 8 % more, for twice the memory.
const PART: i64 = 128;

/// Checks everything, then attacks the images in parts, since no example depends on the others.
pub(crate) fn in_parts(
    model: &dyn Classifier,
    ball: &Ball,
    images: &Tensor,
    goal: &Goal,
    attack: impl Fn(&Subject, &Tensor, &Goal) -> Result<Adversarial>,
) -> Result<Adversarial> {
    in_placed_parts(model, ball, images, goal, |subject, images, goal, _| attack(subject, images, goal))
}

/// The same for an attack that has more of every example than its image: it is told each part's first place.
pub(crate) fn in_placed_parts(
    model: &dyn Classifier,
    ball: &Ball,
    images: &Tensor,
    goal: &Goal,
    attack: impl Fn(&Subject, &Tensor, &Goal, i64) -> Result<Adversarial>,
) -> Result<Adversarial> {
    let subject = Subject::new(model, ball, images, goal)?;
    let images = images.detach();
    if images.numel() == 0 || ball.radius == 0.0 {
        return subject.unmoved(&images, goal, ball.norm);
    }
    let count = images.size()[0];
    let parts = if images.device() == Device::Cpu { (count + PART - 1) / PART } else { 1 };
    let found = (0..parts).map(|part| {
        let (start, end) = (part * count / parts, (part + 1) * count / parts);
        attack(&subject, &images.narrow(0, start, end - start), &goal.narrow(start, end - start), start)
    });
    let found = found.collect::<Result<Vec<_>>>()?;
    let join = |of: fn(&Adversarial) -> &Tensor| Tensor::f_cat(&found.iter().map(of).collect::<Vec<_>>(), 0);
    let losses: Option<Vec<&Tensor>> = found.iter().map(|part| part.loss.as_ref()).collect();
    Ok(Adversarial {
        images: join(|part| &part.images)?,
        success: join(|part| &part.success)?,
        distance: join(|part| &part.distance)?,
        loss: losses.map(|losses| Tensor::f_cat(&losses, 0)).transpose()?,
        forward: subject.forward.get(),
        backward: subject.backward.get(),
    })
}

/// A model under attack: checks every answer and counts them.
pub(crate) struct Subject<'a> {
    model: &'a dyn Classifier,
    classes: i64,
    forward: Cell<u64>,
    backward: Cell<u64>,
}

/// Logits, and a loss of them with its gradient with respect to the images. All detached.
pub(crate) struct Evaluation {
    pub(crate) logits: Tensor,
    pub(crate) loss: Tensor,
    pub(crate) gradient: Tensor,
}

impl<'a> Subject<'a> {
    /// Checks budget, images, labels, and that the model is in evaluation mode. For a batch that is not empty.
    pub(crate) fn new(model: &'a dyn Classifier, ball: &Ball, images: &Tensor, goal: &Goal) -> Result<Self> {
        ball.validate()?;
        ball.check_images(images)?;
        let mut subject = Self { model, classes: 0, forward: Cell::new(0), backward: Cell::new(0) };
        let examples = images.size()[0];
        if images.numel() == 0 {
            goal.check(examples, i64::MAX, images.device())?;
            return Ok(subject);
        }
        // One image alone, and beside its negative: a batch norm in training mode tells them apart.
        let alone = images.narrow(0, 0, 1).detach();
        let pair = Tensor::cat(&[&alone, &(alone.neg() + (ball.low + ball.high))], 0).clamp(ball.low, ball.high);
        let answer = tch::no_grad(|| model.logits(&pair));
        let (kind, logits) = (answer.f_kind()?, as_the_images(&answer, images)?);
        subject.forward.set(2);
        let shape = logits.size();
        let &[2, classes] = shape.as_slice() else {
            return Err(Error::LogitsShape { expected: "[2, classes]".to_owned(), found: format!("{shape:?}") });
        };
        subject.classes = classes;
        check_finite("logits", &logits, 0)?;
        goal.check(examples, classes, images.device())?;
        if !model.is_random() {
            let by_itself = subject.logits(&alone, 0)?;
            let difference = (logits.narrow(0, 0, 1) - by_itself).abs().max().double_value(&[]);
            // Another batch size is another kernel and rounds otherwise, by some 1e-6, and by a last digit or two in half
            // precision; statistics of a batch of one differ by far more than this.
            let share = match kind {
                Kind::Half => 4.0 / 1024.0,
                Kind::BFloat16 => 4.0 / 128.0,
                _ => 1e-3,
            };
            if difference > share * logits.abs().max().double_value(&[]) + 1e-6 {
                return Err(Error::TrainingMode { difference });
            }
        }
        Ok(subject)
    }

    /// Number of classes; 0 for an empty batch.
    pub(crate) fn classes(&self) -> i64 {
        self.classes
    }

    /// Whether the same images may get other logits the next time.
    pub(crate) fn is_random(&self) -> bool {
        self.model.is_random()
    }

    /// Checked logits without a graph.
    pub(crate) fn logits(&self, images: &Tensor, step: usize) -> Result<Tensor> {
        let logits = self.counted(tch::no_grad(|| self.model.logits(images)), images)?;
        check_finite("logits", &logits, step)?;
        Ok(logits)
    }

    /// Checked logits, a loss `[batch]` of them, and the gradient of its sum.
    pub(crate) fn evaluate(
        &self,
        images: &Tensor,
        step: usize,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Evaluation> {
        let input = images.detach().set_requires_grad(true);
        let logits = tch::with_grad(|| self.counted(self.model.logits(&input), images))?;
        let found =
            tch::with_grad(|| loss(&logits)).and_then(|value| Ok((input_gradient(&value, &input)?, value.detach())));
        let logits = logits.detach();
        let (gradient, loss) = match found {
            Ok(found) => found,
            Err(error) => {
                // Logits that are not finite come first, whatever a loss says of them.
                check_finite("logits", &logits, step)?;
                return Err(error);
            }
        };
        check_all_finite(&[("logits", &logits), ("gradient", &gradient), ("loss", &loss)], step)?;
        self.backward.set(self.backward.get() + images.size()[0] as u64);
        Ok(Evaluation { logits, loss, gradient })
    }

    /// Of every class `c` in turn the differences `z_c − z_y` of checked logits, `[batch]`, and the gradient of their sum, both
    /// detached. One pass forward, and one backward a class.
    pub(crate) fn differences(
        &self,
        images: &Tensor,
        labels: &Tensor,
        step: usize,
        mut each: impl FnMut(i64, &Tensor, &Tensor),
    ) -> Result<()> {
        let input = images.detach().set_requires_grad(true);
        let examples = images.size()[0];
        let (logits, own) = tch::with_grad(|| {
            let logits = self.counted(self.model.logits(&input), images)?;
            check_finite("logits", &logits.detach(), step)?;
            let own = of_class(&logits, labels);
            Ok::<_, Error>((logits, own))
        })?;
        if !logits.requires_grad() {
            return Err(Error::NoGradient);
        }
        for class in 0..self.classes {
            let difference = tch::with_grad(|| logits.select(1, class) - &own);
            // The graph is kept for the next class.
            let gradient = Tensor::f_run_backward(&[&difference], &[&input], true, false)?.remove(0);
            if !gradient.defined() {
                return Err(Error::NoGradient);
            }
            check_finite("gradient", &gradient, step)?;
            self.backward.set(self.backward.get() + examples as u64);
            each(class, &difference.detach(), &gradient);
        }
        Ok(())
    }

    /// Attack losses of `images` without a graph.
    pub(crate) fn loss_value(&self, logits: &Tensor, loss: &Loss, goal: &Goal, clean: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| loss.values(logits, goal, clean))
    }

    /// Logits `[batch, classes]` of the images' kind, on their device. Whether they are finite is not looked at.
    fn counted(&self, logits: Tensor, images: &Tensor) -> Result<Tensor> {
        let examples = images.size()[0];
        self.forward.set(self.forward.get() + examples as u64);
        if logits.size() != [examples, self.classes] {
            let expected = format!("[{examples}, {}]", self.classes);
            return Err(Error::LogitsShape { expected, found: format!("{:?}", logits.size()) });
        }
        as_the_images(&logits, images)
    }

    /// The result for perturbed images whose success is known.
    pub(crate) fn finish(
        &self,
        clean: &Tensor,
        images: Tensor,
        success: Tensor,
        loss: Option<Tensor>,
        norm: Norm,
    ) -> Adversarial {
        let distance = norm.size(&(&images - clean));
        let (forward, backward) = (self.forward.get(), self.backward.get());
        Adversarial { images, success, distance, loss, forward, backward }
    }

    /// The result where nothing can be moved: an empty batch, or a budget of 0.
    pub(crate) fn unmoved(&self, clean: &Tensor, goal: &Goal, norm: Norm) -> Result<Adversarial> {
        let success = if clean.numel() == 0 {
            Tensor::zeros([clean.size()[0]], (Kind::Bool, clean.device()))
        } else {
            goal.reached(&self.logits(clean, 0)?)
        };
        Ok(self.finish(clean, clean.copy(), success, None, norm))
    }
}

/// Logits beside what attacks compute of the images. Differentiable; the tensor itself where nothing differs.
fn as_the_images(logits: &Tensor, images: &Tensor) -> Result<Tensor> {
    Ok(logits.f_to(images.device())?.f_totype(images.kind())?)
}

/// The examples still under attack: their places in the whole batch.
pub(crate) struct Standing {
    places: Tensor,
}

impl Standing {
    /// All of `examples`.
    pub(crate) fn all(examples: i64, device: tch::Device) -> Self {
        Self { places: Tensor::arange(examples, (Kind::Int64, device)) }
    }

    /// Those that are 0 or false in `done`.
    pub(crate) fn without(done: &Tensor) -> Self {
        Self { places: places_of(&done.logical_not()) }
    }

    /// Their places in the whole batch.
    pub(crate) fn places(&self) -> &Tensor {
        &self.places
    }

    /// How many.
    pub(crate) fn len(&self) -> i64 {
        self.places.size()[0]
    }

    /// Rows of a tensor of the whole batch.
    pub(crate) fn rows(&self, whole: &Tensor) -> Tensor {
        whole.index_select(0, &self.places)
    }

    /// Drops those that are not 0 in `done`, which has one entry for each still standing, and returns the places that stay,
    /// among those that stood.
    pub(crate) fn drop(&mut self, done: &Tensor) -> Tensor {
        let stay = places_of(&done.logical_not());
        self.places = self.places.index_select(0, &stay);
        stay
    }
}

/// Advice without repetitions, in the order given.
pub(crate) fn each_once(advice: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for words in advice {
        if !all.contains(&words) {
            all.push(words);
        }
    }
    all
}

/// Places of true entries.
pub(crate) fn places_of(mask: &Tensor) -> Tensor {
    mask.nonzero().squeeze_dim(1)
}

/// Whether any entry of a mask is true.
pub(crate) fn any(mask: &Tensor) -> bool {
    mask.any().int64_value(&[]) != 0
}
