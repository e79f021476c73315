//! One number a seed, and the arithmetic that keeps pairs together.

use std::collections::BTreeMap;

use crate::run::RunId;

/// What was measured, one number a seed, with the runs that it comes from and the reasons for what is missing.
///
/// Arms of an experiment share seeds, so differences are taken seed by seed: that is what makes a test paired.
///
/// ```
/// use repro::Samples;
/// let ticket = Samples::of([(0, 81.4), (1, 81.5), (2, 82.0)]);
/// let plain = Samples::of([(0, 80.5), (1, 80.8), (2, 81.1)]);
/// let gain: Vec<f64> = ticket.minus(&plain).values();
/// assert!(gain.iter().all(|&points| points > 0.5));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    by_seed: BTreeMap<u64, Sample>,
    missing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    value: f64,
    runs: Vec<RunId>,
}

impl Samples {
    /// Numbers that come from no run, such as closed forms.
    pub fn of(values: impl IntoIterator<Item = (u64, f64)>) -> Self {
        let by_seed = values.into_iter().map(|(seed, value)| (seed, Sample { value, runs: Vec::new() })).collect();
        Self { by_seed, missing: Vec::new() }
    }

    /// Adds a seed's number.
    pub fn insert(&mut self, seed: u64, value: f64, runs: impl IntoIterator<Item = RunId>) {
        self.by_seed.insert(seed, Sample { value, runs: runs.into_iter().collect() });
    }

    /// Says why a number is not there.
    pub fn miss(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.missing.contains(&reason) {
            self.missing.push(reason);
        }
    }

    /// Per seed, `self − other`. A seed that only one side has is left out.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a - b)
    }

    /// Per seed, `self / other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a / b)
    }

    /// Per seed, `f(self, other)`.
    #[must_use]
    pub fn combine(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let mut out = Self { by_seed: BTreeMap::new(), missing: self.missing.clone() };
        other.missing.iter().for_each(|reason| out.miss(reason));
        for (&seed, a) in &self.by_seed {
            if let Some(b) = other.by_seed.get(&seed) {
                let mut runs = a.runs.clone();
                runs.extend(b.runs.iter().filter(|run| !a.runs.contains(run)).cloned());
                out.insert(seed, f(a.value, b.value), runs);
            }
        }
        out
    }

    /// Per seed, the value of the candidate, a score with a value, whose score is highest; the first of equal ones. A seed that some
    /// candidate does not have is left out.
    ///
    /// A choice made seed by seed is part of what an interval over seeds covers, where one made for all of them is not.
    #[must_use]
    pub fn of_best(candidates: &[(Self, Self)]) -> Self {
        let Some(((score, value), others)) = candidates.split_first() else { return Self::default() };
        let (mut top, mut chosen) = (score.clone(), score.combine(value, |_, value| value));
        for (score, value) in others {
            let better = score.combine(&top, |new, old| if new > old { 1.0 } else { 0.0 });
            let next = better.combine(value, |_, value| value);
            chosen = next.combine(&chosen, |_, old| old);
            for (seed, sample) in &mut chosen.by_seed {
                if better.by_seed[seed].value > 0.0 {
                    sample.value = next.by_seed[seed].value;
                }
            }
            top = score.combine(&top, f64::max);
        }
        chosen
    }

    /// Per seed, the largest of those that there are; a seed needs one of them.
    #[must_use]
    pub fn of_largest(all: &[Self]) -> Self {
        let mut largest = Self::default();
        for samples in all {
            samples.missing.iter().for_each(|reason| largest.miss(reason));
            for (&seed, Sample { value, runs }) in &samples.by_seed {
                let known = largest.by_seed.entry(seed).or_insert(Sample { value: *value, runs: Vec::new() });
                known.value = known.value.max(*value);
                let new = runs.iter().filter(|run| !known.runs.contains(run)).cloned().collect::<Vec<_>>();
                known.runs.extend(new);
            }
        }
        largest
    }

    /// Per seed, `f(self)`.
    #[must_use]
    pub fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        self.by_seed.values_mut().for_each(|sample| sample.value = f(sample.value));
        self
    }

    /// The numbers in the order of their seeds.
    pub fn values(&self) -> Vec<f64> {
        self.by_seed.values().map(|sample| sample.value).collect()
    }

    /// The seeds, ascending.
    pub fn seeds(&self) -> Vec<u64> {
        self.by_seed.keys().copied().collect()
    }

    /// Every run that a number comes from, once.
    pub fn runs(&self) -> Vec<RunId> {
        let mut runs = Vec::new();
        for run in self.by_seed.values().flat_map(|sample| &sample.runs) {
            if !runs.contains(run) {
                runs.push(run.clone());
            }
        }
        runs
    }

    /// Why numbers are missing, each reason once.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_takes_the_candidate_that_scores_best_with_it() {
        let of = |values: [f64; 3]| Samples::of((0..).zip(values));
        let first = (of([0.5, 0.9, 0.5]), of([1.0, 2.0, 3.0]));
        let second = (of([0.6, 0.8, 0.5]), of([10.0, 20.0, 30.0]));
        let third = (of([0.5, 0.95, 0.1]), of([100.0, 200.0, 300.0]));
        assert_eq!(Samples::of_best(&[first.clone(), second.clone(), third]).values(), [10.0, 200.0, 3.0]);
        // Seeds that one candidate lacks have no choice, and what it misses is said.
        let mut gone = Samples::of([(1, 0.95)]);
        gone.miss("the run of seed 0 failed");
        let found = Samples::of_best(&[first, (gone, second.1)]);
        assert_eq!((found.seeds(), found.values()), (vec![1], vec![20.0]));
        assert_eq!(found.missing(), ["the run of seed 0 failed"]);
        assert_eq!(Samples::of_best(&[]), Samples::default());
    }

    #[test]
    fn the_largest_is_of_whatever_a_seed_has() {
        let run = |digit: &str| RunId::try_from(digit.repeat(16)).unwrap();
        let (mut all, mut some) = (Samples::of([(0, 0.2)]), Samples::default());
        all.insert(1, 0.3, [run("a")]);
        all.insert(2, 0.4, [run("b")]);
        some.insert(1, 0.5, [run("c"), run("a")]);
        some.insert(2, 0.1, [run("d")]);
        some.miss("the run of seed 0 failed");
        let found = Samples::of_largest(&[all, some]);
        assert_eq!((found.seeds(), found.values()), (vec![0, 1, 2], vec![0.2, 0.5, 0.4]));
        assert_eq!(found.runs(), [run("a"), run("c"), run("b"), run("d")]);
        assert_eq!(found.missing(), ["the run of seed 0 failed"]);
        assert_eq!(Samples::of_largest(&[]), Samples::default());
    }

    #[test]
    fn differences_pair_by_seed_and_carry_runs_and_reasons() {
        let run = |digit: &str| RunId::try_from(digit.repeat(16)).unwrap();
        let (mut a, mut b) = (Samples::default(), Samples::default());
        a.insert(0, 5.0, [run("a")]);
        a.insert(1, 6.0, [run("b")]);
        b.insert(1, 2.0, [run("c"), run("b")]);
        b.insert(2, 9.0, [run("d")]);
        b.miss("run of seed 0 failed");
        let difference = a.minus(&b);
        assert_eq!((difference.seeds(), difference.values()), (vec![1], vec![4.0]));
        assert_eq!(difference.runs(), [run("b"), run("c")]);
        assert_eq!(difference.missing(), ["run of seed 0 failed"]);
        assert_eq!(a.over(&b).map(|ratio| ratio * 100.0).values(), [300.0]);
    }
}
