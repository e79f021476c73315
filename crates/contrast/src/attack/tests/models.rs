//! Models whose robustness is known.

use std::cell::Cell;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, nn, nn::ModuleT};

/// `z = W x + b` of three pixels and two classes: `W = [[1, −2, .5], [−.5, .25, 1]]`, `b = (.1, −.1)`.
pub(crate) fn linear(kind: Kind) -> impl Fn(&Tensor) -> Tensor {
    let weights = Tensor::from_slice(&[1.0, -2.0, 0.5, -0.5, 0.25, 1.0]).reshape([2, 3]).to_kind(kind);
    let bias = Tensor::from_slice(&[0.1, -0.1]).to_kind(kind);
    move |x| x.flatten(1, -1).matmul(&weights.tr()) + &bias
}

/// A point of class 0 and one of class 1, with their labels.
pub(crate) fn points(kind: Kind) -> (Tensor, Tensor) {
    let images = Tensor::from_slice(&[0.5, 0.4, 0.6, 0.02, 0.99, 0.5]).reshape([2, 3]).to_kind(kind);
    (images, Tensor::from_slice(&[0_i64, 1]))
}

/// Logits of three classes and four pixels whose sign is flipped, with probability `share`, for every call and example anew.
pub(crate) fn flipping(share: f64) -> impl Fn(&Tensor) -> Tensor {
    let (weights, calls) = (uniform(&[3, 4], 1, (-1.0, 1.0), Kind::Double), Cell::new(0));
    move |x| {
        calls.set(calls.get() + 1);
        let kept = uniform(&[x.size()[0], 1], calls.get(), (0.0, 1.0), Kind::Double).ge(share);
        x.matmul(&weights.tr()) * (kept.to_kind(Kind::Double) * 2.0 - 1.0)
    }
}

/// Random numbers in `[low, high)`.
pub(crate) fn uniform(shape: &[i64], seed: u64, (low, high): (f64, f64), kind: Kind) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(low..high)).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(kind)
}

/// Convolution, batch norm, ReLU, and a linear layer: 1 × 6 × 6 images, five classes, weights from the seed.
#[derive(Debug)]
pub(crate) struct SmallNet {
    pub(crate) store: nn::VarStore,
    layers: nn::SequentialT,
}

impl SmallNet {
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        let mut store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let conv = nn::ConvConfig { padding: 1, ..Default::default() };
        let layers = nn::seq_t()
            .add(nn::conv2d(&root / "conv", 1, 6, 3, conv))
            .add(nn::batch_norm2d(&root / "norm", 6, Default::default()))
            .add_fn(|x| x.relu().flatten(1, -1))
            .add(nn::linear(&root / "fc", 6 * 36, 5, Default::default()));
        if kind == Kind::Double {
            store.double();
        }
        tch::no_grad(|| {
            let mut variables: Vec<_> = store.variables().into_iter().collect();
            variables.sort_by(|a, b| a.0.cmp(&b.0));
            for (index, (name, mut variable)) in variables.into_iter().enumerate() {
                let range =
                    if name.ends_with("running_var") || name == "norm.weight" { (0.5, 1.5) } else { (-0.5, 0.5) };
                variable.copy_(&uniform(&variable.size(), seed * 100 + index as u64, range, kind));
            }
        });
        Self { store, layers }
    }

    pub(crate) fn eval(&self) -> impl Fn(&Tensor) -> Tensor {
        |x| self.layers.forward_t(x, false)
    }

    pub(crate) fn train(&self) -> impl Fn(&Tensor) -> Tensor {
        |x| self.layers.forward_t(x, true)
    }

    /// Images and the net's own answers as labels, so that clean accuracy is 1.
    pub(crate) fn data(&self, count: i64, seed: u64, kind: Kind) -> (Tensor, Tensor) {
        let images = uniform(&[count, 1, 6, 6], seed, (0.0, 1.0), kind);
        let labels = tch::no_grad(|| self.eval()(&images)).argmax(-1, false);
        (images, labels)
    }

    /// Every parameter's and statistic's values, and whether it wants a gradient and has one.
    pub(crate) fn fingerprint(&self) -> Vec<(String, Vec<f64>, bool, bool)> {
        let mut all: Vec<_> = self.store.variables().into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter()
            .map(|(name, tensor)| {
                let values = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap();
                (name, values, tensor.requires_grad(), tensor.grad().defined())
            })
            .collect()
    }
}

/// Largest difference of two tensors.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// A tensor's values.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}
