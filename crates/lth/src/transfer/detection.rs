//! A small single-stage detection head on a backbone's feature map.

use core_tensor::data::BatchSource;
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, Module, Network};
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn, no_grad};

use super::precision::{AveragePrecision, Detection, Object, average_precision};
use super::scenes::SceneBatch;
use super::taps::FeatureMap;
use crate::{Error, Result};

/// Settings of a [`Detector`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionConfig {
    /// Channels of the head, at least 1.
    pub width: i64,
    /// Classes of objects, at least 1.
    pub classes: i64,
    /// Exponent of the focal loss, 0 for plain cross-entropy. Default 2 (Lin et al., arXiv 1708.02002).
    pub focus: f64,
    /// Weight of the cells with an object in the focal loss, in `(0, 1)`. Default 0.25 (the same).
    pub balance: f64,
    /// Of boxes of one class that overlap more than this, the better one stays. Default 0.6 (FCOS).
    pub overlap: f64,
    /// Detections kept of an image. Default 100, as the evaluation looks at.
    pub most: usize,
}

impl DetectionConfig {
    /// The papers' settings, for a head of `width` channels.
    pub fn new(width: i64, classes: i64) -> Self {
        Self { width, classes, focus: 2.0, balance: 0.25, overlap: 0.6, most: 100 }
    }

    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("width", self.width), ("classes", self.classes)] {
            if value < 1 {
                return Err(Error::setting(setting, "at least 1", value));
            }
        }
        if !(self.focus >= 0.0 && self.focus.is_finite()) {
            return Err(Error::setting("focus", "at least 0", self.focus));
        }
        if !(self.balance > 0.0 && self.balance < 1.0) {
            return Err(Error::setting("balance", "in (0, 1)", self.balance));
        }
        if !(0.0..=1.0).contains(&self.overlap) {
            return Err(Error::setting("overlap", "in [0, 1]", self.overlap));
        }
        if self.most == 0 {
            return Err(Error::setting("most", "at least 1", 0));
        }
        Ok(())
    }
}

/// Boxes without anchors, after FCOS (Tian et al., arXiv 1904.01355) on a single feature map: each cell says for each class
/// whether an object's centre lies in it, and how far its four edges are away, in cells.
///
/// As an [`Objective`] it minimises the focal loss over cells and classes, divided by the number of objects, plus the mean
/// of `1 − IoU` over the cells with an object. A batch without an object teaches that there is none: its focal loss is
/// divided by 1, and boxes cost nothing.
pub struct Detector<'a> {
    backbone: &'a dyn Network,
    map: FeatureMap,
    hidden: Module,
    norm: Module,
    classes: Module,
    edges: Module,
    config: DetectionConfig,
    /// Pixels of a cell, `[height, width]`.
    cell: [f64; 2],
}

impl std::fmt::Debug for Detector<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Detector").field("map", &self.map).field("config", &self.config).finish_non_exhaustive()
    }
}

/// A head's two maps.
struct Maps {
    /// Logits `[batch, cells, classes]`.
    classes: Tensor,
    /// Distances to left, top, right and bottom from the cell's middle, in pixels, `[batch, cells, 4]`.
    edges: Tensor,
}

impl<'a> Detector<'a> {
    /// Makes a head under `path`, for images of `[channels, height, width]` and the feature map `tap`.
    ///
    /// # Errors
    /// A setting outside its range, or no feature map of that name.
    pub fn new(
        path: &nn::Path,
        factory: &dyn LayerFactory,
        backbone: &'a dyn Network,
        (tap, image): (&str, [i64; 3]),
        config: DetectionConfig,
    ) -> Result<Self> {
        config.validate()?;
        let map = FeatureMap::probe(backbone, tap, image, path.device())?;
        let cell = [image[1] as f64 / map.size[0] as f64, image[2] as f64 / map.size[1] as f64];
        let hidden = factory.conv2d(&(path / "hidden"), Conv2dConfig::new(map.channels, config.width, 3, 1));
        let norm = factory.batch_norm2d(&(path / "norm"), BatchNormConfig::new(config.width));
        let output = |outputs| Conv2dConfig { bias: true, ..Conv2dConfig::new(config.width, outputs, 1, 1) };
        let classes = factory.conv2d(&(path / "classes"), output(config.classes));
        let edges = factory.conv2d(&(path / "edges"), output(4));
        Ok(Self { backbone, map, hidden, norm, classes, edges, config, cell })
    }

    fn maps(&self, input: &Tensor, train: bool) -> Result<Maps> {
        let map = self.map.of(self.backbone, input, train)?;
        if map.size()[2..] != self.map.size {
            let expected = format!("a map of {:?}, as for the images the head was made for", self.map.size);
            return Err(Error::mismatch(&self.map.name, expected, format!("{:?}", &map.size()[2..])));
        }
        let hidden = self.norm.forward_t(&self.hidden.forward_t(&map, train), train).relu();
        let rows = |map: Tensor| map.flatten(2, 3).transpose(1, 2);
        // A shift of −4 starts every cell at a chance of 2 %, since few hold an object.
        let classes = rows(self.classes.forward_t(&hidden, train)) - 4.0;
        // Positive, one cell at the start, bounded so that a wild start cannot overflow.
        let edges = rows(self.edges.forward_t(&hidden, train)).clamp(-6.0, 6.0).exp();
        let [height, width] = self.cell;
        let scale = Tensor::from_slice(&[width, height, width, height]).to_kind(Kind::Float).to_device(edges.device());
        Ok(Maps { classes, edges: edges * scale })
    }

    /// The cell in which an object's centre lies, and the middle of that cell, `[x, y]` in pixels.
    fn cell_of(&self, object: &Object) -> (i64, [f64; 2]) {
        let [left, top, right, bottom] = object.corners;
        let [height, width] = self.cell;
        let place = |middle: f64, cell: f64, count: i64| ((middle / cell) as i64).clamp(0, count - 1);
        let column = place(0.5 * (left + right), width, self.map.size[1]);
        let row = place(0.5 * (top + bottom), height, self.map.size[0]);
        (row * self.map.size[1] + column, [(column as f64 + 0.5) * width, (row as f64 + 0.5) * height])
    }

    fn losses(&self, batch: &SceneBatch) -> Result<Loss> {
        let Maps { classes, edges } = self.maps(&batch.input, true)?;
        let (cells, kinds) = (self.map.size[0] * self.map.size[1], self.config.classes);
        let (mut hot, mut places, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (image, objects) in batch.objects.iter().enumerate() {
            for object in objects {
                let class = object.class as i64;
                if class >= kinds {
                    return Err(Error::mismatch("an object's class", format!("below {kinds}"), class.to_string()));
                }
                let (cell, [x, y]) = self.cell_of(object);
                let place = image as i64 * cells + cell;
                let [left, top, right, bottom] = object.corners;
                hot.push(place * kinds + class);
                places.push(place);
                // A middle outside a narrow box would ask for a negative distance, which no cell can say.
                wanted.extend([x - left, y - top, right - x, bottom - y].map(|edge| edge.max(0.0) as f32));
            }
        }
        let (device, objects) = (classes.device(), places.len());
        let mut target = classes.zeros_like().flatten(0, -1);
        if objects > 0 {
            target = target.f_index_fill(0, &Tensor::from_slice(&hot).to_device(device), 1.0)?;
        }
        let logits = classes.flatten(0, -1);
        let plain =
            logits.f_binary_cross_entropy_with_logits(&target, None::<Tensor>, None::<Tensor>, tch::Reduction::None)?;
        let chance = logits.sigmoid();
        let both: Tensor = &chance * &target;
        let wrong: Tensor = &chance + &target - both * 2.0;
        // Roots are infinitely steep at 0, where one who is sure would have gradients of NaN.
        let root = self.config.focus > 0.0 && self.config.focus < 1.0;
        let wrong = if root { wrong.clamp_min(1e-12) } else { wrong };
        let weight: Tensor = &target * (2.0 * self.config.balance - 1.0) + (1.0 - self.config.balance);
        let focal =
            (weight * wrong.pow_tensor_scalar(self.config.focus) * plain).sum(Kind::Float) / objects.max(1) as f64;
        let overlap = if objects > 0 {
            let found = edges.flatten(0, 1).f_index_select(0, &Tensor::from_slice(&places).to_device(device))?;
            let wanted = Tensor::from_slice(&wanted).view([-1, 4]).to_device(device);
            let ones = Tensor::ones([objects as i64], (Kind::Float, device));
            (ones - iou_of_edges(&found, &wanted)).mean(Kind::Float)
        } else {
            // Edges stay part of the loss, with gradients of 0.
            edges.sum(Kind::Float) * 0.0
        };
        let parts = vec![("focal", focal.detach()), ("box", overlap.detach())];
        Ok(Loss { total: focal + overlap, parts })
    }

    /// What is in each image of a batch, the best first.
    ///
    /// # Errors
    /// Images of another size than the head was made for, [`Error::NotFinite`] for a network that says NaN, or what
    /// libtorch refuses.
    pub fn detect(&self, input: &Tensor) -> Result<Vec<Vec<Detection>>> {
        let Maps { classes, edges } = no_grad(|| self.maps(input, false))?;
        let host = |tensor: Tensor| tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).flatten(1, -1);
        let scores: Vec<Vec<f32>> = host(classes.sigmoid()).try_into()?;
        let edges: Vec<Vec<f32>> = host(edges).try_into()?;
        for (tensor, rows) in [("scores", &scores), ("edges", &edges)] {
            let broken = rows.iter().flatten().copied().enumerate().find(|(_, value)| !value.is_finite());
            if let Some((index, value)) = broken {
                return Err(Error::NotFinite { tensor: tensor.to_owned(), index, value });
            }
        }
        Ok(scores.iter().zip(&edges).map(|(scores, edges)| self.of_image(scores, edges)).collect())
    }

    fn of_image(&self, scores: &[f32], edges: &[f32]) -> Vec<Detection> {
        let kinds = self.config.classes as usize;
        let mut order: Vec<usize> = (0..scores.len()).filter(|&place| scores[place] > 0.01).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let [height, width] = self.cell;
        let columns = self.map.size[1] as usize;
        let mut kept = Vec::<Detection>::new();
        // Enough that what is left after overlapping boxes are gone still fills the list.
        for place in order.into_iter().take(self.config.most.saturating_mul(10)) {
            if kept.len() == self.config.most {
                break;
            }
            let (cell, class) = (place / kinds, place % kinds);
            let (x, y) = (((cell % columns) as f64 + 0.5) * width, ((cell / columns) as f64 + 0.5) * height);
            let edge = |side: usize| f64::from(edges[cell * 4 + side]);
            let object = Object { class, corners: [x - edge(0), y - edge(1), x + edge(2), y + edge(3)] };
            let covered =
                |other: &Detection| other.object.class == class && other.object.iou(&object) > self.config.overlap;
            if !kept.iter().any(covered) {
                kept.push(Detection { object, score: scores[place].into() });
            }
        }
        kept
    }

    /// Average precision on a whole set.
    ///
    /// # Errors
    /// What keeps the set from being read, or a set without an object.
    pub fn evaluate(&self, source: &dyn BatchSource<Batch = SceneBatch>) -> Result<AveragePrecision> {
        let (mut objects, mut found) = (Vec::new(), Vec::new());
        for batch in source.epoch(0)? {
            let batch = batch?;
            found.extend(self.detect(&batch.input)?);
            objects.extend(batch.objects);
        }
        average_precision(&objects, &found)
    }
}

/// IoU of boxes given by their distances from a point inside both, `[n, 4]` each; gradients flow.
fn iou_of_edges(a: &Tensor, b: &Tensor) -> Tensor {
    let size = |edges: &Tensor| {
        let [left, top, right, bottom] = [0, 1, 2, 3].map(|side| edges.select(1, side));
        (left + right) * (top + bottom)
    };
    let both = size(&a.minimum(b));
    let either = size(a) + size(b) - &both;
    both / either.clamp_min(1e-6)
}

impl Objective<SceneBatch> for Detector<'_> {
    fn loss(&mut self, batch: &SceneBatch, _progress: &Progress) -> core_tensor::Result<Loss> {
        self.losses(batch).map_err(in_step)
    }
}

/// An error of this crate inside a training step, which can only report the core's.
pub(super) fn in_step(error: Error) -> core_tensor::Error {
    match error {
        Error::Core(error) => error,
        Error::Torch(error) => core_tensor::Error::Torch(error),
        other => core_tensor::Error::Observer { observer: "downstream head".to_owned(), source: Box::new(other) },
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

    fn backbone(store: &nn::VarStore) -> Box<dyn Network> {
        core_tensor::seed::seed_libtorch(0, core_tensor::seed::Purpose::Initialisation, 0);
        let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8, 8], classes: 2 };
        Architecture::ConvNet(config).build(&(store.root() / "backbone"), &Standard).unwrap()
    }

    fn detector<'a>(store: &nn::VarStore, backbone: &'a dyn Network) -> Detector<'a> {
        let config = DetectionConfig::new(8, SceneGenerator::OBJECT_CLASSES);
        Detector::new(&(store.root() / "head"), &Standard, backbone, ("conv3", [1, 32, 32]), config).unwrap()
    }

    #[test]
    fn boxes_by_their_edges_overlap_as_by_their_corners() {
        let edges = |values: [f32; 4]| Tensor::from_slice(&values).view([1, 4]);
        let found = iou_of_edges(&edges([2.0, 1.0, 3.0, 4.0]), &edges([1.0, 2.0, 5.0, 2.0])).double_value(&[0]);
        let object = |[left, top, right, bottom]: [f64; 4]| Object { class: 0, corners: [-left, -top, right, bottom] };
        let expected = object([2.0, 1.0, 3.0, 4.0]).iou(&object([1.0, 2.0, 5.0, 2.0]));
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn what_the_maps_say_is_what_is_detected() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let detector = detector(&store, backbone.as_ref());
        // 8 × 8 cells of 4 pixels. Cell (1, 2), whose middle is (10, 6), sees class 3; its neighbour sees the same box, less
        // surely, and is left out; another class at the same place stays.
        let kinds = 7;
        let (mut scores, mut edges) = (vec![0.0_f32; 64 * kinds], vec![1.0_f32; 64 * 4]);
        let mut say = |cell: usize, class: usize, score: f32, distances: [f32; 4]| {
            scores[cell * kinds + class] = score;
            edges[cell * 4..cell * 4 + 4].copy_from_slice(&distances);
        };
        say(10, 3, 0.9, [6.0, 4.0, 6.0, 4.0]);
        say(11, 3, 0.8, [10.0, 4.0, 2.0, 4.0]);
        say(12, 5, 0.7, [14.0, 4.0, 0.5, 4.0]);
        let found = detector.of_image(&scores, &edges);
        let corners: Vec<_> = found.iter().map(|found| (found.object.class, found.object.corners)).collect();
        assert_eq!(corners, [(3, [4.0, 2.0, 16.0, 10.0]), (5, [4.0, 2.0, 18.5, 10.0])]);
        assert!((found[0].score - 0.9).abs() < 1e-6);
        let object = Object { class: 3, corners: [4.0, 2.0, 16.0, 10.0] };
        assert_eq!(detector.cell_of(&object), (10, [10.0, 6.0]));
        // Without a limit.
        let mut all = detector;
        all.config.most = usize::MAX;
        assert_eq!(all.of_image(&scores, &edges), found);
    }

    #[test]
    fn a_few_steps_learn_something() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let mut detector = detector(&store, backbone.as_ref());
        let scenes = SceneGenerator { side: 32, ..SceneGenerator::default() }.scenes(32, 0).unwrap();
        let loader = SceneLoader::training(scenes.clone(), 16, 0).unwrap();
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let config = TrainConfig { epochs: 6, seed: 0, schedule: Schedule::Constant { peak: 0.02 } };
        let mut trainer = Trainer::new(config, &mut detector, &mut optimizer).unwrap();
        let losses: Vec<_> = (0..6).map(|_| trainer.fit_epoch(&loader).unwrap().1.metrics["loss"]).collect();
        assert!(losses.last().unwrap() < &losses[0], "{losses:?}");
        let found = detector.evaluate(&SceneLoader::evaluation(scenes, 16).unwrap()).unwrap();
        assert!((0.0..=1.0).contains(&found.ap) && found.ap <= found.ap50);
    }

    /// Sixteen scenes whose objects nobody has marked.
    fn without_objects() -> SceneBatch {
        let scenes = SceneGenerator { side: 32, ..SceneGenerator::default() }.scenes(16, 0).unwrap();
        let mut batch = SceneLoader::evaluation(scenes, 16).unwrap().epoch(0).unwrap().next().unwrap().unwrap();
        batch.objects.iter_mut().for_each(Vec::clear);
        batch
    }

    #[test]
    fn a_batch_without_an_object_teaches_that_there_is_none() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let detector = detector(&store, backbone.as_ref());
        let batch = without_objects();
        let loss = detector.losses(&batch).unwrap();
        let part = |name: &str| loss.parts.iter().find(|(found, _)| *found == name).unwrap().1.double_value(&[]);
        // ¾·p²·−ln(1 − p) of every cell and class, divided by 1; −ln(1 − σ(z)) is softplus(z).
        let logits = detector.maps(&batch.input, true).unwrap().classes.to_kind(Kind::Double);
        let expected = (logits.sigmoid().square() * logits.softplus() * 0.75).sum(Kind::Double).double_value(&[]);
        assert!((part("focal") / expected - 1.0).abs() < 1e-4, "{} {expected}", part("focal"));
        assert_eq!(part("box"), 0.0);
        loss.total.backward();
        let gradient = |name: &str| store.variables()[name].grad();
        assert_eq!(gradient("head.edges.bias").abs().max().double_value(&[]), 0.0);
        assert!(gradient("head.classes.bias").min().double_value(&[]) > 0.0);
    }

    #[test]
    fn an_object_is_asked_of_its_own_cell_class_and_edges() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let detector = detector(&store, backbone.as_ref());
        let mut batch = without_objects();
        // Its middle (10, 7) lies in cell (1, 2) of 8 × 8, whose own middle is (10, 6).
        let object = Object { class: 3, corners: [4.0, 2.0, 16.0, 12.0] };
        batch.objects[1].push(object);
        let loss = detector.losses(&batch).unwrap();
        let part = |name: &str| loss.parts.iter().find(|(found, _)| *found == name).unwrap().1.double_value(&[]);
        let Maps { classes, edges } = detector.maps(&batch.input, true).unwrap();
        let edge = |side: i64| edges.double_value(&[1, 10, side]);
        let found = Object { class: 3, corners: [10.0 - edge(0), 6.0 - edge(1), 10.0 + edge(2), 6.0 + edge(3)] };
        assert!((part("box") - (1.0 - found.iou(&object))).abs() < 1e-5, "{} {found:?}", part("box"));
        // Of ¾·p²·−ln(1 − p) everywhere, the object's own place costs ¼·(1 − p)²·−ln p instead.
        let logits = classes.to_kind(Kind::Double);
        let ground = logits.sigmoid().square() * logits.softplus() * 0.75;
        let chance = logits.sigmoid().double_value(&[1, 10, 3]);
        let own = -0.25 * (1.0 - chance).powi(2) * chance.ln();
        let expected = ground.sum(Kind::Double).double_value(&[]) - ground.double_value(&[1, 10, 3]) + own;
        assert!((part("focal") / expected - 1.0).abs() < 1e-4, "{} {expected}", part("focal"));
    }

    #[test]
    fn a_detector_that_is_sure_has_finite_gradients_whatever_its_focus() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let mut detector = detector(&store, backbone.as_ref());
        let mut batch = without_objects();
        batch.objects[1].push(Object { class: 3, corners: [4.0, 2.0, 16.0, 12.0] });
        // As `f32`, chances are 1, right at the object, or 0, right everywhere else.
        for (bias, focus) in [30.0, -200.0].into_iter().flat_map(|bias| [0.0, 0.01, 0.5, 1.0, 2.0].map(|f| (bias, f))) {
            let _ = no_grad(|| store.variables()["head.classes.bias"].shallow_clone().fill_(bias));
            detector.config.focus = focus;
            detector.losses(&batch).unwrap().total.backward();
            // What comes after the feature map has no gradient.
            let variables = crate::trainable_variables(&store).into_iter();
            for (name, mut variable) in variables.filter(|(_, variable)| variable.grad().defined()) {
                assert_eq!(variable.grad().isfinite().all().int64_value(&[]), 1, "{name}, {focus}, {bias}");
                variable.zero_grad();
            }
        }
    }

    #[test]
    fn images_of_another_size_and_broken_weights_are_refused() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let detector = detector(&store, backbone.as_ref());
        let image = |side: i64| Tensor::ones([1, 1, side, side], (Kind::Float, Device::Cpu));
        assert_eq!(detector.detect(&image(32)).unwrap().len(), 1);
        let error = detector.detect(&image(64)).unwrap_err().to_string();
        assert!(error.starts_with("`conv3`: expected a map of [8, 8]") && error.ends_with("found [16, 16]"), "{error}");
        let _ = no_grad(|| store.variables()["head.classes.bias"].shallow_clone().fill_(f64::NAN));
        assert!(matches!(detector.detect(&image(32)), Err(Error::NotFinite { index: 0, .. })));
    }

    #[test]
    fn settings_and_objects_out_of_range_are_refused() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = backbone(&store);
        let plain = DetectionConfig::new(8, 2);
        let refused = |config: DetectionConfig| config.validate().unwrap_err().to_string();
        assert_eq!(refused(DetectionConfig { width: 0, ..plain }), "width is 0, expected at least 1");
        assert_eq!(refused(DetectionConfig { balance: 1.0, ..plain }), "balance is 1, expected in (0, 1)");
        assert_eq!(refused(DetectionConfig { focus: f64::NAN, ..plain }), "focus is NaN, expected at least 0");
        let detector =
            Detector::new(&(store.root() / "two"), &Standard, backbone.as_ref(), ("conv3", [1, 32, 32]), plain)
                .unwrap();
        let scenes = SceneGenerator { side: 32, ..SceneGenerator::default() }.scenes(16, 0).unwrap();
        let batch = SceneLoader::evaluation(scenes, 16).unwrap().epoch(0).unwrap().next().unwrap().unwrap();
        assert!(detector.losses(&batch).unwrap_err().to_string().starts_with("`an object's class`: expected below 2"));
    }
}
