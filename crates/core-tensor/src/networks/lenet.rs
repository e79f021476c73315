//! The two LeNets of the pruning literature.

use crate::nn::{Conv2dConfig, Init, LayerFactory, LinearConfig, Module, Network, PoolConfig, Tap};
use tch::{Tensor, nn};

/// 784-300-100-classes, ReLU: 266,610 parameters for ten classes. Names `fc1`, `fc2`, `fc3`.
#[derive(Debug)]
pub struct LeNet300100 {
    fc1: Module,
    fc2: Module,
    fc3: Module,
}

impl LeNet300100 {
    /// Kaiming-normal weights, zero biases. Takes `[batch, 1, 28, 28]` or `[batch, 784]`.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, classes: i64) -> Self {
        let linear = |name: &str, inputs, outputs| {
            let config = LinearConfig { init: Init::KaimingNormalFanIn, ..LinearConfig::new(inputs, outputs) };
            factory.linear(&(path / name), config)
        };
        Self { fc1: linear("fc1", 784, 300), fc2: linear("fc2", 300, 100), fc3: linear("fc3", 100, classes) }
    }

    fn hidden(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut hidden = self.fc1.forward_t(&input.flatten(1, -1), train).relu_();
        tap("fc1", &hidden);
        hidden = self.fc2.forward_t(&hidden, train).relu_();
        tap("fc2", &hidden);
        hidden
    }
}

impl Network for LeNet300100 {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        self.fc3.forward_t(&self.hidden(input, train, tap), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        self.hidden(input, train, &mut |_, _| {})
    }

    fn feature_size(&self) -> i64 {
        100
    }

    fn classifier(&self) -> &str {
        "fc3"
    }
}

/// Caffe's LeNet-5 on 28 × 28 grey images: 431,080 parameters for ten classes. Names `conv1`, `conv2`, `fc1`, `fc2`.
#[derive(Debug)]
pub struct LeNet5 {
    conv1: Module,
    pool1: Module,
    conv2: Module,
    pool2: Module,
    fc1: Module,
    fc2: Module,
}

impl LeNet5 {
    /// Kaiming-normal weights, zero biases.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, classes: i64) -> Self {
        let conv = |name: &str, inputs, outputs| {
            let config = Conv2dConfig { padding: 0, bias: true, ..Conv2dConfig::new(inputs, outputs, 5, 1) };
            factory.conv2d(&(path / name), config)
        };
        let linear = |name: &str, inputs, outputs| {
            let config = LinearConfig { init: Init::KaimingNormalFanIn, ..LinearConfig::new(inputs, outputs) };
            factory.linear(&(path / name), config)
        };
        let pool = |channels| factory.max_pool2d(PoolConfig { channels, kernel: 2, stride: 2, padding: 0 });
        Self {
            conv1: conv("conv1", 1, 20),
            pool1: pool(20),
            conv2: conv("conv2", 20, 50),
            pool2: pool(50),
            fc1: linear("fc1", 800, 500),
            fc2: linear("fc2", 500, classes),
        }
    }

    fn hidden(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = self.pool1.forward_t(&self.conv1.forward_t(input, train).relu_(), train);
        tap("conv1", &map);
        map = self.pool2.forward_t(&self.conv2.forward_t(&map, train).relu_(), train);
        tap("conv2", &map);
        let hidden = self.fc1.forward_t(&map.flatten(1, -1), train).relu_();
        tap("fc1", &hidden);
        hidden
    }
}

impl Network for LeNet5 {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        self.fc2.forward_t(&self.hidden(input, train, tap), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        self.hidden(input, train, &mut |_, _| {})
    }

    fn feature_size(&self) -> i64 {
        500
    }

    fn classifier(&self) -> &str {
        "fc2"
    }
}
