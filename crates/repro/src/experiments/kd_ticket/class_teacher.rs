//! A teacher that knows classes and no images: the control of what a soft label says about the single image.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::nn::Network;
use tch::{Kind, Tensor, no_grad};

/// Gives each image the mean soft label of the class into which a network puts it.
pub(super) struct ClassTeacher<'a> {
    network: &'a dyn Network,
    /// Classes × classes: a row a class, logits whose softmax at the temperature is the mean.
    rows: Tensor,
}

impl<'a> ClassTeacher<'a> {
    /// Means of the network's soft labels at `temperature` over one pass of `images`.
    pub(super) fn new(
        network: &'a dyn Network,
        images: &dyn BatchSource<Batch = Batch>,
        temperature: f64,
    ) -> anyhow::Result<Self> {
        let mut sums: Option<Tensor> = None;
        for batch in images.epoch(0)? {
            let batch = batch?;
            let logits = no_grad(|| network.forward(&batch.input, false));
            let classes = logits.size()[1];
            let sums = sums.get_or_insert_with(|| Tensor::zeros([classes, classes], (Kind::Float, logits.device())));
            let soft = (&logits / temperature).softmax(1, Kind::Float);
            let _ = sums.index_add_(0, &logits.argmax(1, false), &soft);
        }
        let sums = sums.ok_or_else(|| anyhow::anyhow!("no images to average soft labels over"))?;
        // A class into which no image was put has no mean; if one is put there later, its label is the class alone.
        let counts = sums.sum_dim_intlist(1, true, Kind::Float);
        let class_alone = Tensor::eye(sums.size()[0], (Kind::Float, sums.device()));
        let means = (&sums / counts.clamp_min(1e-6)).where_self(&counts.gt(0.0), &class_alone);
        Ok(Self { network, rows: means.clamp_min(1e-30).log() * temperature })
    }

    /// Logits, images × classes.
    pub(super) fn logits(&self, input: &Tensor) -> Tensor {
        self.rows.index_select(0, &self.network.forward(input, false).argmax(1, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::Tap;
    use tch::Device;

    /// Takes its input for logits.
    #[derive(Debug)]
    struct Given;

    impl Network for Given {
        fn forward_tapped(&self, input: &Tensor, _: bool, _: Tap) -> Tensor {
            input.shallow_clone()
        }

        fn features(&self, input: &Tensor, _: bool) -> Tensor {
            input.shallow_clone()
        }

        fn feature_size(&self) -> i64 {
            3
        }

        fn classifier(&self) -> &str {
            "none"
        }
    }

    struct Two(Tensor);

    impl BatchSource for Two {
        type Batch = Batch;

        fn batches_per_epoch(&self) -> u64 {
            2
        }

        fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
            let half = |from: i64| {
                let input = self.0.slice(0, from, from + 2, 1);
                Ok(Batch { input, target: Tensor::zeros([2], (Kind::Int64, Device::Cpu)), index: vec![0, 1] })
            };
            Ok(Box::new([half(0), half(2)].into_iter()))
        }
    }

    #[test]
    fn labels_are_the_means_of_classes_over_all_batches() {
        // Probabilities at temperature 2, as logits: three images of class 0, one of class 1, none of class 2.
        let soft = [[0.6_f32, 0.3, 0.1], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1]];
        let logits = Tensor::from_slice2(&soft).log() * 2.0;
        let teacher = ClassTeacher::new(&Given, &Two(logits.copy()), 2.0).unwrap();
        let asked = Tensor::from_slice2(&[[0.0_f32, 1.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 9.0]]);
        let found = (teacher.logits(&asked) / 2.0).softmax(1, Kind::Float);
        let wanted = Tensor::from_slice2(&[[0.2_f32, 0.7, 0.1], [0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]);
        assert!((found - wanted).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn without_images_there_is_no_teacher() {
        struct Nothing;
        impl BatchSource for Nothing {
            type Batch = Batch;
            fn batches_per_epoch(&self) -> u64 {
                0
            }
            fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
                Ok(Box::new(std::iter::empty()))
            }
        }
        assert!(ClassTeacher::new(&Given, &Nothing, 4.0).is_err());
    }
}
