//! A small segmentation head on a backbone's feature map, and the mean intersection over union.

use core_tensor::data::BatchSource;
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, Module, Network};
use core_tensor::train::{Loss, Objective, Progress};
use tch::{Kind, Reduction, Tensor, nn, no_grad};

use super::scenes::SceneBatch;
use super::taps::FeatureMap;
use crate::{Error, Result};

/// The label of pixels that count neither in the loss nor in the score, as in Pascal VOC.
pub const IGNORED: i64 = 255;

/// A class for every pixel: 3 × 3 convolution, batch norm, ReLU, 1 × 1 convolution, bilinear up-sampling, on one feature map
/// of a backbone that any [`Network`] may be.
///
/// As an [`Objective`] it minimises the mean cross-entropy over pixels.
pub struct Segmenter<'a> {
    backbone: &'a dyn Network,
    map: FeatureMap,
    hidden: Module,
    norm: Module,
    output: Module,
    classes: i64,
}

impl std::fmt::Debug for Segmenter<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter
            .debug_struct("Segmenter")
            .field("map", &self.map)
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}

impl<'a> Segmenter<'a> {
    /// Makes a head of `width` channels under `path`, for images of `[channels, height, width]` and the feature map `tap`.
    ///
    /// # Errors
    /// No feature map of that name, less than two classes or one channel, or so many classes that one of them would be
    /// [`IGNORED`].
    pub fn new(
        path: &nn::Path,
        factory: &dyn LayerFactory,
        backbone: &'a dyn Network,
        (tap, image): (&str, [i64; 3]),
        (width, classes): (i64, i64),
    ) -> Result<Self> {
        if width < 1 || classes < 2 {
            return Err(Error::setting("width and classes", "at least 1 and 2", format!("{width} and {classes}")));
        }
        if classes > IGNORED {
            return Err(Error::setting("classes", format!("at most {IGNORED}, the label of ignored pixels"), classes));
        }
        let map = FeatureMap::probe(backbone, tap, image, path.device())?;
        let hidden = factory.conv2d(&(path / "hidden"), Conv2dConfig::new(map.channels, width, 3, 1));
        let norm = factory.batch_norm2d(&(path / "norm"), BatchNormConfig::new(width));
        let output = Conv2dConfig { bias: true, ..Conv2dConfig::new(width, classes, 1, 1) };
        let output = factory.conv2d(&(path / "output"), output);
        Ok(Self { backbone, map, hidden, norm, output, classes })
    }

    /// Logits `[batch, classes, height, width]` in the images' resolution.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.map.of(self.backbone, input, train)?;
        let hidden = self.norm.forward_t(&self.hidden.forward_t(&map, train), train).relu();
        let logits = self.output.forward_t(&hidden, train);
        Ok(logits.f_upsample_bilinear2d(&input.size()[2..], false, None, None)?)
    }

    /// The confusion of a whole set.
    ///
    /// # Errors
    /// What keeps the set from being read, labels outside the classes, or logits that are not finite, which have no largest.
    pub fn evaluate(&self, source: &dyn BatchSource<Batch = SceneBatch>) -> Result<Confusion> {
        let mut confusion = Confusion::new(self.classes);
        for batch in source.epoch(0)? {
            let batch = batch?;
            let logits = no_grad(|| self.forward(&batch.input, false))?;
            let broken = logits.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
            if broken > 0 {
                return Err(Error::mismatch("logits", "finite numbers", format!("{broken} that are not")));
            }
            confusion.add(&logits.argmax(1, false), &batch.labels)?;
        }
        Ok(confusion)
    }
}

impl Objective<SceneBatch> for Segmenter<'_> {
    fn loss(&mut self, batch: &SceneBatch, _progress: &Progress) -> core_tensor::Result<Loss> {
        let logits = self.forward(&batch.input, true).map_err(super::detection::in_step)?;
        let counted = batch.labels.f_ne(IGNORED)?.any().int64_value(&[]) != 0;
        let loss = if counted {
            logits.f_cross_entropy_loss(&batch.labels, None::<Tensor>, Reduction::Mean, IGNORED, 0.0)?
        } else {
            // The mean over no pixel is no number.
            logits.f_mul_scalar(0.0)?.f_sum(logits.kind())?
        };
        Ok(Loss::single("pixel_cross_entropy", loss))
    }
}

/// How often a pixel of each class was taken for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: i64,
    /// Row: what it is. Column: what it was taken for.
    counts: Vec<i64>,
}

impl Confusion {
    /// Nothing seen yet. Of more than 255 classes, the one that is [`IGNORED`] never counts.
    pub fn new(classes: i64) -> Self {
        Self { classes, counts: vec![0; (classes * classes).max(0) as usize] }
    }

    /// Counts pixels; those whose label is [`IGNORED`] do not count.
    ///
    /// # Errors
    /// Tensors of different shapes, or a class outside the range.
    pub fn add(&mut self, found: &Tensor, labels: &Tensor) -> Result<()> {
        if found.size() != labels.size() {
            return Err(Error::mismatch("pixels found", format!("{:?}", labels.size()), format!("{:?}", found.size())));
        }
        let counted = labels.f_ne(IGNORED)?;
        let (found, labels) = (found.f_masked_select(&counted)?, labels.f_masked_select(&counted)?);
        if labels.numel() == 0 {
            return Ok(());
        }
        for (name, classes) in [("classes found", &found), ("labels", &labels)] {
            let (least, most) = (classes.min().int64_value(&[]), classes.max().int64_value(&[]));
            if least < 0 || most >= self.classes {
                return Err(Error::mismatch(
                    name,
                    format!("classes below {}", self.classes),
                    format!("{least} to {most}"),
                ));
            }
        }
        let both = (labels.to_kind(Kind::Int64) * self.classes + found.to_kind(Kind::Int64)).flatten(0, -1);
        let counts = both.f_bincount(None::<Tensor>, self.classes * self.classes)?;
        let counts = Vec::<i64>::try_from(counts.to_device(tch::Device::Cpu))?;
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += count;
        }
        Ok(())
    }

    /// `TP / (TP + FP + FN)` of each class; none for a class that is neither there nor found.
    pub fn ious(&self) -> Vec<Option<f64>> {
        let at = |row: i64, column: i64| self.counts[(row * self.classes + column) as usize];
        (0..self.classes)
            .map(|class| {
                let hits = at(class, class);
                let is: i64 = (0..self.classes).map(|other| at(class, other)).sum();
                let taken: i64 = (0..self.classes).map(|other| at(other, class)).sum();
                let either = is + taken - hits;
                (either > 0).then(|| hits as f64 / either as f64)
            })
            .collect()
    }

    /// The mean over the classes that are there or found.
    ///
    /// # Errors
    /// No pixel counted.
    pub fn mean_iou(&self) -> Result<f64> {
        let ious: Vec<f64> = self.ious().into_iter().flatten().collect();
        if ious.is_empty() {
            return Err(Error::setting("pixels", "at least one", 0));
        }
        Ok(ious.iter().sum::<f64>() / ious.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::{SceneGenerator, SceneLoader};
    use core_tensor::networks::{Architecture, ConvNetConfig};
    use core_tensor::nn::Standard;
    use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
    use core_tensor::train::{TrainConfig, Trainer};
    use tch::Device;

    #[test]
    fn the_mean_iou_is_that_of_the_confusion_worked_out_by_hand() {
        // 3 and 5 right, one of each taken for the other; one pixel ignored: (3/5 + 5/7)/2.
        let labels = Tensor::from_slice(&[0_i64, 0, 0, 0, 1, 1, 1, 1, 1, 1, 255]);
        let found = Tensor::from_slice(&[0_i64, 0, 0, 1, 0, 1, 1, 1, 1, 1, 0]);
        let mut confusion = Confusion::new(2);
        confusion.add(&found, &labels).unwrap();
        assert_eq!(confusion.counts, [3, 1, 1, 5]);
        assert!((confusion.mean_iou().unwrap() - (3.0 / 5.0 + 5.0 / 7.0) / 2.0).abs() < 1e-15);
        // A class that nobody sees counts neither way; parts add up.
        let mut wider = Confusion::new(3);
        wider.add(&found.narrow(0, 0, 4), &labels.narrow(0, 0, 4)).unwrap();
        wider.add(&found.narrow(0, 4, 7), &labels.narrow(0, 4, 7)).unwrap();
        assert_eq!(wider.mean_iou().unwrap(), confusion.mean_iou().unwrap());
        assert_eq!(wider.ious()[2], None);
    }

    #[test]
    fn labels_outside_the_classes_are_refused() {
        let classes = |values: &[i64]| Tensor::from_slice(values);
        let mut confusion = Confusion::new(2);
        let error = confusion.add(&classes(&[0]), &classes(&[2])).unwrap_err().to_string();
        assert_eq!(error, "`labels`: expected classes below 2, found 2 to 2");
        assert!(confusion.add(&classes(&[0, 1]), &classes(&[1])).is_err());
        assert!(confusion.mean_iou().is_err());
        confusion.add(&classes(&[7]), &classes(&[IGNORED])).unwrap();
        assert!(confusion.mean_iou().is_err());
    }

    #[test]
    fn the_label_of_ignored_pixels_is_no_class() {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8], classes: 2 };
        let backbone = Architecture::ConvNet(config).build(&(store.root() / "backbone"), &Standard).unwrap();
        let build = |name: &str, classes| {
            let path = store.root() / name;
            Segmenter::new(&path, &Standard, backbone.as_ref(), ("conv2", [1, 32, 32]), (8, classes))
        };
        let error = build("wide", 256).unwrap_err().to_string();
        assert_eq!(error, "classes is 256, expected at most 255, the label of ignored pixels");
        assert_eq!(build("most", 255).unwrap().classes, 255);
    }

    #[test]
    fn a_few_steps_learn_something_and_unknown_maps_are_named() {
        core_tensor::seed::seed_libtorch(0, core_tensor::seed::Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8], classes: 2 };
        let backbone = Architecture::ConvNet(config).build(&(store.root() / "backbone"), &Standard).unwrap();
        let build = |tap| {
            let path = store.root() / "head";
            Segmenter::new(&path, &Standard, backbone.as_ref(), (tap, [1, 32, 32]), (8, SceneGenerator::PIXEL_CLASSES))
        };
        let error = build("layer9").unwrap_err().to_string();
        assert_eq!(error, "`layer9` fits no tensor; there are [\"conv1\", \"conv2\"]");
        let mut segmenter = build("conv2").unwrap();
        let scenes = SceneGenerator { side: 32, ..SceneGenerator::default() }.scenes(32, 0).unwrap();
        let loader = SceneLoader::training(scenes.clone(), 16, 0).unwrap();
        let mut batch = loader.epoch(0).unwrap().next().unwrap().unwrap();
        assert_eq!(segmenter.forward(&batch.input, false).unwrap().size(), [16, 8, 32, 32]);
        batch.labels = batch.labels.full_like(IGNORED);
        assert_eq!(segmenter.loss(&batch, &Progress::default()).unwrap().total.double_value(&[]), 0.0);
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let config = TrainConfig { epochs: 4, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
        let mut trainer = Trainer::new(config, &mut segmenter, &mut optimizer).unwrap();
        // ln 8 is chance; most pixels are ground, which is learned first.
        let losses: Vec<_> = (0..4).map(|_| trainer.fit_epoch(&loader).unwrap().1.metrics["loss"]).collect();
        assert!(losses.last().unwrap() < &1.0 && losses.last().unwrap() < &losses[0], "{losses:?}");
        let score = segmenter.evaluate(&SceneLoader::evaluation(scenes, 16).unwrap()).unwrap().mean_iou().unwrap();
        assert!((0.0..=1.0).contains(&score));
        let _ = no_grad(|| store.variables()["head.output.bias"].shallow_clone().fill_(f64::NAN));
        let error = segmenter.evaluate(&loader).unwrap_err().to_string();
        assert!(error.starts_with("`logits`: expected finite numbers, found "), "{error}");
    }
}
