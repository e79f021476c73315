//! Whether two solutions lie in one valley of the loss (Frankle et al., arXiv 1912.05671).

use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn, no_grad};

use crate::rewind::copies;
use crate::ticket::{is_counter, restore};
use crate::{Error, Result};

/// A score along the straight line between two sets of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearPath {
    /// `(α, error)` at the weights `(1 − α)·first + α·second`, α rising from 0 to 1.
    pub points: Vec<(f64, f64)>,
}

impl LinearPath {
    /// Evaluates a model at `points` evenly spaced places, both ends included. `error` sees the model with its weights
    /// set; lower is better. Batch-norm statistics are interpolated as the weights are; the model's counters of batches
    /// (`num_batches_tracked`) stay as they are, whether an end has some or none. The model's own weights are put back,
    /// also after an error; they may be an end.
    ///
    /// Two tickets of one mask stay under it on the whole line.
    ///
    /// # Errors
    /// Fewer than three points, weights of another architecture or of two, an error that is not finite, and what
    /// `error` refuses.
    pub fn between(
        first: &NamedTensors,
        second: &NamedTensors,
        store: &nn::VarStore,
        points: usize,
        mut error: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        if points < 3 {
            return Err(Error::setting("points", "at least 3, both ends and one between", points));
        }
        let own = copies(&store.variables().into_iter().collect::<NamedTensors>());
        // Either may be the model's live state, which the walk overwrites.
        let end = |weights: &NamedTensors| copies(weights.iter().filter(|(name, _)| !is_counter(name)));
        let (first, second) = (end(first), end(second));
        let mut walk = || -> Result<Self> {
            let mut path = Vec::with_capacity(points);
            for point in 0..points {
                let alpha = point as f64 / (points - 1) as f64;
                restore(&mixed(&first, &second, alpha)?, store)?;
                let found = error()?;
                if !found.is_finite() {
                    return Err(Error::setting("error", "a finite number", found));
                }
                path.push((alpha, found));
            }
            Ok(Self { points: path })
        };
        let path = walk();
        restore(&own, store)?;
        path
    }

    /// The highest rise of the error above the mean of both ends: the instability of Frankle et al. About 0 in one valley.
    pub fn barrier(&self) -> f64 {
        let errors = || self.points.iter().map(|(_, error)| *error);
        let ends = 0.5 * (errors().next().unwrap_or(0.0) + errors().next_back().unwrap_or(0.0));
        errors().fold(f64::NEG_INFINITY, f64::max) - ends
    }
}

fn mixed(first: &NamedTensors, second: &NamedTensors, alpha: f64) -> Result<NamedTensors> {
    if let Some((name, b)) = second.iter().find(|(name, _)| !first.contains_key(*name)) {
        return Err(Error::mismatch(name, "a tensor at both ends", format!("{:?} at the second only", b.size())));
    }
    let mix = |(name, a): (&String, &Tensor)| {
        let b = second.get(name).ok_or_else(|| Error::mismatch(name, format!("{:?}", a.size()), "no such tensor"))?;
        if a.size() != b.size() {
            return Err(Error::mismatch(name, format!("{:?}", a.size()), format!("{:?}", b.size())));
        }
        // Weights read from a file lie in CPU memory, snapshots where the model lives.
        let b = b.f_to_device(a.device())?;
        // Whole numbers stay as they are.
        let mixed = if a.is_floating_point() { no_grad(|| a * (1.0 - alpha) + b * alpha) } else { a.copy() };
        Ok((name.clone(), mixed))
    };
    first.iter().map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::checkpoint::state_of;
    use core_tensor::networks::Architecture;
    use core_tensor::nn::Standard;
    use tch::{Device, Kind};

    fn weights(value: f64) -> NamedTensors {
        NamedTensors::from([("w".to_owned(), Tensor::full([2], value, (Kind::Float, Device::Cpu)))])
    }

    fn model() -> (nn::VarStore, Tensor) {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().var("w", &[2], nn::Init::Const(7.0));
        (store, weight)
    }

    #[test]
    fn a_hill_between_two_valleys_is_its_height() {
        let (store, weight) = model();
        // (w² − 1)² has its valleys at ±1 and its hill, of height 1, at 0.
        let error = || Ok((weight.double_value(&[0]).powi(2) - 1.0).powi(2));
        let path = LinearPath::between(&weights(-1.0), &weights(1.0), &store, 5, error).unwrap();
        assert_eq!(path.points, [(0.0, 0.0), (0.25, 0.5625), (0.5, 1.0), (0.75, 0.5625), (1.0, 0.0)]);
        assert_eq!(path.barrier(), 1.0);
        // On a slope from 1 to 3 the highest point is an end, 1 above the mean of both; on level ground nothing is.
        let slope =
            LinearPath::between(&weights(1.0), &weights(3.0), &store, 3, || Ok(weight.double_value(&[0]))).unwrap();
        assert_eq!(slope.barrier(), 1.0);
        let flat = LinearPath::between(&weights(1.0), &weights(3.0), &store, 3, || Ok(0.5)).unwrap();
        assert_eq!((flat.barrier(), weight.double_value(&[0])), (0.0, 7.0));
    }

    #[test]
    fn the_models_live_state_is_an_end_like_any_other() {
        let (store, weight) = model();
        let error = || Ok((weight.double_value(&[0]).powi(2) - 1.0).powi(2));
        restore(&weights(1.0), &store).unwrap();
        for (first, second) in [(weights(-1.0), state_of(&store)), (state_of(&store), weights(-1.0))] {
            let path = LinearPath::between(&first, &second, &store, 5, error).unwrap();
            assert_eq!((path.barrier(), path.points[0].1, path.points[4].1), (1.0, 0.0, 0.0));
            assert_eq!(weight.double_value(&[0]), 1.0);
        }
    }

    fn resnet(depth: u32) -> nn::VarStore {
        let store = nn::VarStore::new(Device::Cpu);
        Architecture::cifar_resnet(depth, 10).unwrap().build(&store.root(), &Standard).unwrap();
        store
    }

    #[test]
    fn counters_at_one_end_only_do_not_matter_but_other_names_do() {
        let store = resnet(8);
        // A state dict has counters, a snapshot has none.
        let (state, snapshot) = (state_of(&store), store.variables().into_iter().collect::<NamedTensors>());
        assert!(state.len() > snapshot.len());
        let deeper = state_of(&resnet(20));
        for [first, second] in [[&state, &snapshot], [&snapshot, &state]] {
            LinearPath::between(first, second, &store, 3, || Ok(0.0)).unwrap();
        }
        for [first, second] in [[&state, &deeper], [&deeper, &state]] {
            let refused = LinearPath::between(first, second, &store, 3, || Ok(0.0)).unwrap_err();
            assert!(matches!(&refused, Error::Mismatch { name, .. } if name.starts_with("layer")), "{refused}");
        }
    }

    #[test]
    fn weights_come_back_after_an_error() {
        let (store, weight) = model();
        let broken = LinearPath::between(&weights(0.0), &weights(1.0), &store, 3, || Ok(f64::NAN));
        assert!(broken.unwrap_err().to_string().starts_with("error is NaN"));
        assert_eq!(weight.double_value(&[0]), 7.0);
        assert!(LinearPath::between(&weights(0.0), &weights(1.0), &store, 2, || Ok(0.0)).is_err());
        let other = NamedTensors::from([("v".to_owned(), Tensor::from_slice(&[1_f32, 2.0]))]);
        assert!(matches!(
            LinearPath::between(&other, &other, &store, 3, || Ok(0.0)),
            Err(Error::OtherArchitecture { .. })
        ));
        assert!(matches!(
            LinearPath::between(&weights(0.0), &other, &store, 3, || Ok(0.0)),
            Err(Error::Mismatch { .. })
        ));
    }
}
