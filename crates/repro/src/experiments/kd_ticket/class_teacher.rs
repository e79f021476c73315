//! Teachers that know classes and no images: the controls of what a soft label says.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::nn::Network;
use tch::{Kind, Tensor, no_grad};

/// Gives each image the soft label of its true class.
pub(super) struct ClassTeacher {
    /// Classes × classes: a row a class, logits whose softmax at the temperature is the soft label.
    rows: Tensor,
}

impl ClassTeacher {
    /// The means of the network's soft labels within true classes, at `temperature`, over one pass of `images`.
    pub(super) fn of_means(
        network: &dyn Network,
        images: &dyn BatchSource<Batch = Batch>,
        temperature: f64,
    ) -> anyhow::Result<Self> {
        let sums = sums_of_soft_labels(network, images, temperature)?;
        // A class without images has no mean; if one comes later, its label is the class alone.
        let counts = sums.sum_dim_intlist(1, true, Kind::Float);
        let class_alone = Tensor::eye(sums.size()[0], (Kind::Float, sums.device()));
        let means = (&sums / counts.clamp_min(1e-6)).where_self(&counts.gt(0.0), &class_alone);
        Ok(Self::of_labels(&means, temperature))
    }

    /// The network's confidence, which is its mean soft label of the true class over one pass of `images`, for the true
    /// class; what is left for all others alike.
    pub(super) fn uniform(
        network: &dyn Network,
        images: &dyn BatchSource<Batch = Batch>,
        temperature: f64,
    ) -> anyhow::Result<Self> {
        let sums = sums_of_soft_labels(network, images, temperature)?;
        let total = |sums: &Tensor| sums.sum(Kind::Double).double_value(&[]);
        // A soft label sums to 1, so that all of them sum to the number of images.
        let confidence = total(&sums.diag(0)) / total(&sums);
        let classes = sums.size()[0];
        let other = (1.0 - confidence) / (classes - 1) as f64;
        let mut labels = Tensor::full([classes, classes], other, (Kind::Float, sums.device()));
        let _ = labels.fill_diagonal_(confidence, false);
        Ok(Self::of_labels(&labels, temperature))
    }

    fn of_labels(labels: &Tensor, temperature: f64) -> Self {
        Self { rows: labels.clamp_min(1e-30).log() * temperature }
    }

    /// Logits, images × classes.
    pub(super) fn logits(&self, batch: &Batch) -> Tensor {
        self.rows.index_select(0, &batch.target)
    }
}

/// The network's soft labels at `temperature` over one pass of `images`, added up within true classes: classes × classes.
fn sums_of_soft_labels(
    network: &dyn Network,
    images: &dyn BatchSource<Batch = Batch>,
    temperature: f64,
) -> anyhow::Result<Tensor> {
    let mut sums: Option<Tensor> = None;
    for batch in images.epoch(0)? {
        let batch = batch?;
        let logits = no_grad(|| network.forward(&batch.input, false));
        let classes = logits.size()[1];
        let sums = sums.get_or_insert_with(|| Tensor::zeros([classes, classes], (Kind::Float, logits.device())));
        let soft = (&logits / temperature).softmax(1, Kind::Float);
        let _ = sums.index_add_(0, &batch.target, &soft);
    }
    sums.ok_or_else(|| anyhow::anyhow!("no images to average soft labels over"))
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

    /// Four images in two batches.
    struct Four {
        logits: Tensor,
        labels: Tensor,
    }

    impl BatchSource for Four {
        type Batch = Batch;

        fn batches_per_epoch(&self) -> u64 {
            2
        }

        fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
            let half = |from: i64| {
                let part = |tensor: &Tensor| tensor.slice(0, from, from + 2, 1);
                Ok(Batch { input: part(&self.logits), target: part(&self.labels), index: vec![0, 1] })
            };
            Ok(Box::new([half(0), half(2)].into_iter()))
        }
    }

    /// Soft labels at temperature 2, as logits: two images of class 0, two of class 1, none of class 2. The network puts the
    /// last into class 0.
    fn images() -> Four {
        let soft = [[0.6_f32, 0.3, 0.1], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1]];
        Four { logits: Tensor::from_slice2(&soft).log() * 2.0, labels: Tensor::from_slice(&[0_i64, 0, 1, 1]) }
    }

    /// Whether images of classes 1, 0 and 2 get these soft labels at temperature 2.
    fn teaches(teacher: &ClassTeacher, wanted: [[f32; 3]; 3]) -> bool {
        let input = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
        let batch = Batch { input, target: Tensor::from_slice(&[1_i64, 0, 2]), index: vec![0, 1, 2] };
        let found = (teacher.logits(&batch) / 2.0).softmax(1, Kind::Float);
        // A logarithm and its inverse in single precision.
        (found - Tensor::from_slice2(&wanted)).abs().max().double_value(&[]) < 1e-6
    }

    #[test]
    fn labels_are_the_means_of_true_classes_over_all_batches() {
        let teacher = ClassTeacher::of_means(&Given, &images(), 2.0).unwrap();
        assert!(teaches(&teacher, [[0.45, 0.45, 0.1], [0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]));
    }

    #[test]
    fn uniform_labels_have_the_mean_confidence_and_share_the_rest() {
        let teacher = ClassTeacher::uniform(&Given, &images(), 2.0).unwrap();
        // The true classes' soft labels are 0.6, 0.8, 0.7 and 0.2, with a mean of 0.575; half of the rest is 0.2125.
        let (confidence, other) = (0.575, 0.2125);
        let wanted = [[other, confidence, other], [confidence, other, other], [other, other, confidence]];
        assert!(teaches(&teacher, wanted));
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
        assert!(ClassTeacher::of_means(&Given, &Nothing, 4.0).is_err());
        assert!(ClassTeacher::uniform(&Given, &Nothing, 4.0).is_err());
    }
}
