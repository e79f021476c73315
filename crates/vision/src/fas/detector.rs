//! A trained network with everything needed to use it: how pictures are cut, what threshold, and where that came from.

use super::data::{Crop, PixelBox};
use super::error::{Error, Result};
use super::metrics::{Criterion, Dev, Threshold};
use super::model::{Backbone, PlainBackbone, Proxy, ProxyConfig, ProxyFas};
use super::panel::Panel;
use core_tensor::checkpoint::{Header, LoadPolicy, SafetensorsFile, load_variables, save_variables};
use core_tensor::nn::Standard;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

const SCHEMA: &str = "vision.fas.detector";

/// What a saved detector says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// Branches and attention.
    pub network: ProxyConfig,
    /// Width of the [`PlainBackbone`]; of a backbone of one's own it says nothing.
    pub width: i64,
    /// Pixels across of the network's input: RGB, 8 bit over 255; two or more of the backbone's strides.
    pub size: u32,
    /// Side of the square that is cut out, as a multiple of the longer side of the face box.
    pub crop_scale: f64,
    /// Scores of at least this are live.
    pub threshold: f64,
    /// How the threshold was chosen.
    pub criterion: Criterion,
    /// On what it was chosen, in words.
    pub development_set: String,
    /// Faces of fewer pixels across are not judged. 64 unless there is a reason.
    pub smallest_face: f64,
    /// Pictures whose mean brightness (0 to 1) lies outside are not judged.
    pub brightness: [f64; 2],
    /// Pictures whose sharpness (mean squared difference of neighbours, of luma in 0 to 1) is less are not judged.
    pub least_sharpness: f64,
    /// Pictures of which the attention is less sure, by [`Assessment::uncertainty`], are not judged: such as a high
    /// quantile of what it is on the development set. `None`, as in files that do not say, judges them all.
    #[serde(default)]
    pub most_uncertainty: Option<f64>,
}

impl DetectorConfig {
    /// How pictures become the network's input, in training too.
    pub fn crop(&self) -> Crop {
        Crop { scale: self.crop_scale, size: self.size }
    }
}

/// What a detector decides. A decision is a value, never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// A living face.
    Live,
    /// An attack.
    Spoof,
    /// Not to be judged, and why.
    Unsure(Reason),
}

/// Why a picture is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The face is too small.
    SmallFace,
    /// Too dark or too bright.
    Exposure,
    /// Too blurred.
    Blur,
    /// The network is too unsure of what it says.
    Uncertain,
}

/// What a detector says about a picture.
#[derive(Debug)]
pub struct Assessment {
    /// Probability of being live, as the network says.
    pub score: f64,
    /// The decision at the detector's threshold.
    pub decision: Decision,
    /// Mean standard deviation of the attention, for attentions that know it.
    pub uncertainty: Option<f64>,
    /// Predicted maps, `[1, channels, height, width]`.
    pub cues: IndexMap<Proxy, Tensor>,
    /// The picture that the network saw, `[3, size, size]`.
    pub seen: Tensor,
}

impl Assessment {
    /// What the network saw and predicted, side by side, as a PNG file.
    ///
    /// # Errors
    /// libtorch's.
    pub fn explain(&self) -> Result<Vec<u8>> {
        Panel::cues(&self.seen, &self.cues, 96)?.png()
    }
}

/// A network, its preprocessing and its threshold.
#[derive(Debug)]
pub struct Detector {
    store: VarStore,
    network: ProxyFas,
    config: DetectorConfig,
    threshold: Threshold<Dev>,
}

impl Detector {
    /// A detector on a [`PlainBackbone`] with random weights, to be trained or loaded into.
    ///
    /// # Errors
    /// [`Error::BadParam`] for settings out of range.
    pub fn new(config: DetectorConfig) -> Result<Self> {
        let width = config.width;
        // A file's header says it before anything else is known of it.
        if !(1..=4096).contains(&width) {
            return Err(Error::BadParam { name: "width", expected: "1 to 4096", value: width as f64 });
        }
        Self::with_backbone(config, plain(width))
    }

    /// The same on a backbone of one's own, which `backbone` makes under the path that it is given.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_backbone(
        config: DetectorConfig,
        backbone: impl FnOnce(&nn::Path) -> Box<dyn Backbone>,
    ) -> Result<Self> {
        let refuse = |name, expected, value| Err(Error::BadParam { name, expected, value });
        config.network.validate()?;
        if !(8..=1024).contains(&config.size) {
            return refuse("size", "8 to 1024", f64::from(config.size));
        }
        if !(config.crop_scale > 0.0 && config.crop_scale.is_finite()) {
            return refuse("crop_scale", "above 0", config.crop_scale);
        }
        let [darkest, brightest] = config.brightness;
        for (name, value) in [
            ("smallest_face", config.smallest_face),
            ("brightness", darkest),
            ("brightness", brightest),
            ("least_sharpness", config.least_sharpness),
        ] {
            if !value.is_finite() {
                return refuse(name, "finite", value);
            }
        }
        if darkest > brightest {
            return refuse("brightness", "the least first", darkest);
        }
        if let Some(most) = config.most_uncertainty {
            if !(most >= 0.0 && most.is_finite()) {
                return refuse("most_uncertainty", "finite and at least 0", most);
            }
            if !config.network.attention.knows_uncertainty() {
                return refuse("most_uncertainty", "none with an attention that knows no uncertainty", most);
            }
        }
        let threshold = Threshold::saved(config.threshold, config.criterion)?;
        let store = VarStore::new(Device::Cpu);
        let backbone = backbone(&(store.root() / "backbone"));
        let (size, stride) = (i64::from(config.size), backbone.stride());
        if stride < 1 || size % stride != 0 || size / stride < 2 {
            return refuse("size", "two or more of the backbone's strides", f64::from(config.size));
        }
        let network = ProxyFas::new(&store.root(), &Standard, backbone, config.network.clone())?;
        Ok(Self { store, network, config, threshold })
    }

    /// On another device, where it is trained and assesses from now on; it starts on the CPU.
    #[must_use]
    pub fn to_device(mut self, device: Device) -> Self {
        self.store.set_device(device);
        self
    }

    /// The network, for training.
    pub fn network(&self) -> &ProxyFas {
        &self.network
    }

    /// The network's variables.
    pub fn store(&self) -> &VarStore {
        &self.store
    }

    /// What it says about itself.
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// Takes a threshold from a development set, which is described in words.
    pub fn set_threshold(&mut self, threshold: Threshold<Dev>, development_set: &str) {
        self.config.threshold = threshold.value();
        self.config.criterion = threshold.criterion();
        self.config.development_set = development_set.into();
        self.threshold = threshold;
    }

    /// Writes weights and configuration to one safetensors file.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a threshold or a criterion that is not finite, which the header could not hold; a file
    /// that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let limit = match self.config.criterion {
            Criterion::AtApcer(limit) | Criterion::AtBpcer(limit) | Criterion::Fixed(limit) => limit,
            Criterion::Eer | Criterion::MinHter => 0.0,
        };
        for (name, value) in [("threshold", self.config.threshold), ("criterion", limit)] {
            if !value.is_finite() {
                return Err(Error::BadParam { name, expected: "finite", value });
            }
        }
        Ok(save_variables(path, &self.store, &Header::new(SCHEMA, 1, &self.config))?)
    }

    /// Reads what [`save`](Self::save) wrote of a detector on a [`PlainBackbone`].
    ///
    /// # Errors
    /// A file that is missing, malformed, or of something else.
    pub fn load(path: &Path) -> Result<Self> {
        let (file, config) = opened(path)?;
        is_square(&file, path, "backbone.block4.conv.weight", config.width.saturating_mul(2))?;
        Self::filled(path, Self::new(config)?)
    }

    /// Reads what [`save`](Self::save) wrote of a detector on a backbone of one's own, made as
    /// [`with_backbone`](Self::with_backbone) makes it.
    ///
    /// # Errors
    /// As [`load`](Self::load); a backbone of other variables than the file's.
    pub fn load_with(path: &Path, backbone: impl FnOnce(&nn::Path) -> Box<dyn Backbone>) -> Result<Self> {
        let (_, config) = opened(path)?;
        Self::filled(path, Self::with_backbone(config, backbone)?)
    }

    fn filled(path: &Path, detector: Self) -> Result<Self> {
        load_variables(path, &detector.store, &LoadPolicy::strict())?;
        Ok(detector)
    }

    /// Judges the face in a picture; without a box, the largest square in its middle is the face's.
    ///
    /// # Errors
    /// [`Error::BadShape`] for an empty picture or a box that is not finite, [`Error::BoxOutside`] for a box that does
    /// not overlap it.
    pub fn assess(&self, picture: &image::RgbImage, face: Option<PixelBox>) -> Result<Assessment> {
        let crop = self.config.crop();
        let square = crop.square(picture.dimensions(), face)?;
        let pixels = crop.resample(picture, square).into_raw();
        let (brightness, sharpness) = quality(&pixels, self.config.size as usize);
        let side = i64::from(self.config.size);
        let seen = Tensor::from_slice(&pixels).view([side, side, 3]).permute([2, 0, 1]).contiguous();
        let seen = seen.to_kind(Kind::Float) / 255.0;
        let input = seen.unsqueeze(0).to_device(self.store.device());
        let out = tch::no_grad(|| self.network.forward(&input, false))?;
        let score = out.score().double_value(&[0]);
        let uncertainty = (!out.sigma.is_empty()).then(|| {
            out.sigma.values().map(|sigma| sigma.mean(Kind::Double).double_value(&[])).sum::<f64>()
                / out.sigma.len() as f64
        });
        let face_pixels = square[2] / if face.is_some() { self.config.crop_scale } else { 1.0 };
        let decision = if face_pixels < self.config.smallest_face {
            Decision::Unsure(Reason::SmallFace)
        } else if !(self.config.brightness[0]..=self.config.brightness[1]).contains(&brightness) {
            Decision::Unsure(Reason::Exposure)
        } else if sharpness < self.config.least_sharpness {
            Decision::Unsure(Reason::Blur)
        } else if self.config.most_uncertainty.zip(uncertainty).is_some_and(|(most, found)| found > most) {
            Decision::Unsure(Reason::Uncertain)
        } else if score >= self.threshold.value() {
            Decision::Live
        } else {
            Decision::Spoof
        };
        let cues = out.maps.into_iter().map(|(proxy, map)| (proxy, map.to_device(Device::Cpu))).collect();
        Ok(Assessment { score, decision, uncertainty, cues, seen })
    }
}

fn plain(width: i64) -> impl FnOnce(&nn::Path) -> Box<dyn Backbone> {
    move |path| Box::new(PlainBackbone::new(path, &Standard, width))
}

/// A detector's file and what its header says, with branches as long as it says.
fn opened(path: &Path) -> Result<(SafetensorsFile, DetectorConfig)> {
    let file = SafetensorsFile::open(path)?;
    let config = Header::<DetectorConfig>::from_metadata(file.metadata(), SCHEMA, 1, path)?.content;
    is_square(&file, path, "live.block1.conv.weight", config.network.features)?;
    Ok((file, config))
}

/// Sizes that the file's weights do not have could ask for gigabytes of network before they are compared.
fn is_square(file: &SafetensorsFile, path: &Path, largest: &str, side: i64) -> Result<()> {
    let found = file.tensors().get(largest).map(|info| info.shape.clone());
    if found.as_deref() == Some(&[side, side, 3, 3]) {
        return Ok(());
    }
    let expected = format!("`{largest}` of shape [{side}, {side}, 3, 3]");
    let found = found.map_or("none".into(), |shape| format!("{shape:?}"));
    Err(Error::unreadable(path, format!("expected {expected}, found {found}")))
}

/// Mean luma and mean squared difference of neighbours in a row, of pixels of three bytes.
fn quality(pixels: &[u8], size: usize) -> (f64, f64) {
    let luma: Vec<f64> = pixels
        .chunks_exact(3)
        .map(|p| (0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])) / 255.0)
        .collect();
    let mean = luma.iter().sum::<f64>() / luma.len() as f64;
    let squares: f64 = luma.chunks_exact(size).flat_map(|row| row.windows(2).map(|w| (w[1] - w[0]).powi(2))).sum();
    (mean, squares / (size * (size - 1)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::metrics::Scored;
    use crate::fas::model::{Attention, FasData};
    use core_tensor::nn::{Conv2dConfig, LayerFactory, Module};

    fn config() -> DetectorConfig {
        DetectorConfig {
            network: ProxyConfig { features: 4, attention: Attention::LogitNormal, ..ProxyConfig::default() },
            width: 2,
            size: 16,
            crop_scale: 1.1,
            threshold: 0.5,
            criterion: Criterion::Eer,
            development_set: "none".into(),
            smallest_face: 20.0,
            brightness: [0.05, 0.95],
            least_sharpness: 1e-6,
            most_uncertainty: None,
        }
    }

    fn picture() -> image::RgbImage {
        image::RgbImage::from_fn(60, 40, |x, y| image::Rgb([(4 * x) as u8, (5 * y) as u8, 90]))
    }

    #[test]
    fn a_detector_survives_its_file_and_answers_the_same() {
        let detector = Detector::new(config()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detector.safetensors");
        detector.save(&path).unwrap();
        let back = Detector::load(&path).unwrap();
        assert_eq!(back.config(), detector.config());
        let face = Some(PixelBox { x: 10.0, y: 5.0, width: 25.0, height: 30.0 });
        let (one, other) = (detector.assess(&picture(), face).unwrap(), back.assess(&picture(), face).unwrap());
        assert_eq!((one.score, one.decision), (other.score, other.decision));
        assert!(one.uncertainty.is_some() && one.cues.len() == 3);
        assert!(one.explain().unwrap().starts_with(b"\x89PNG"));
        let mut endless = back;
        endless.config.threshold = f64::INFINITY;
        assert!(matches!(endless.save(&path), Err(Error::BadParam { name: "threshold", .. })));
        endless.set_threshold(Threshold::saved(0.5, Criterion::Fixed(f64::NAN)).unwrap(), "none");
        assert!(matches!(endless.save(&path), Err(Error::BadParam { name: "criterion", .. })));
        std::fs::write(&path, b"no detector").unwrap();
        assert!(Detector::load(&path).is_err());
    }

    #[test]
    fn a_detector_sees_what_it_would_be_trained_on() {
        let detector = Detector::new(config()).unwrap();
        let face = Some(PixelBox { x: 10.0, y: 5.0, width: 25.0, height: 30.0 });
        let crop = detector.config().crop().cut(&picture(), face).unwrap();
        let data = FasData::from_pictures(&[crop], vec![Scored::live(0.0)]).unwrap();
        let seen = detector.assess(&picture(), face).unwrap().seen;
        assert_eq!(seen.unsqueeze(0), data.batch(&[0]).input);
    }

    /// Somebody's own: two convolutions, a third of the picture's side.
    #[derive(Debug)]
    struct Two([Module; 2]);

    impl Two {
        fn boxed(path: &nn::Path) -> Box<dyn Backbone> {
            let layer =
                |name: &str, inputs, stride| Standard.conv2d(&(path / name), Conv2dConfig::new(inputs, 5, 3, stride));
            Box::new(Self([layer("first", 3, 3), layer("second", 5, 1)]))
        }
    }

    impl Backbone for Two {
        fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
            self.0.iter().fold(input.shallow_clone(), |feature, layer| layer.forward_t(&feature, train).relu())
        }

        fn channels(&self) -> i64 {
            5
        }

        fn stride(&self) -> i64 {
            3
        }
    }

    #[test]
    fn a_backbone_of_ones_own_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detector.safetensors");
        let settings = || DetectorConfig { size: 18, width: 0, ..config() };
        let detector = Detector::with_backbone(settings(), Two::boxed).unwrap().to_device(Device::Cpu);
        detector.save(&path).unwrap();
        let back = Detector::load_with(&path, Two::boxed).unwrap();
        assert_eq!(back.config(), detector.config());
        let scores = [&detector, &back].map(|one| one.assess(&picture(), None).unwrap().score);
        assert_eq!(scores[0], scores[1]);
        assert_eq!(back.assess(&picture(), None).unwrap().cues[&Proxy::Depth].size(), [1, 1, 6, 6]);
        let plain = Detector::load(&path).unwrap_err().to_string();
        assert!(plain.contains("`backbone.block4.conv.weight`") && plain.ends_with("found none"), "{plain}");
        let other = Detector::load_with(&path, |path| {
            let _ = Standard.conv2d(&(path / "third"), Conv2dConfig::new(3, 3, 1, 1));
            Two::boxed(path)
        });
        assert!(other.is_err());
        let odd = Detector::with_backbone(DetectorConfig { size: 16, ..settings() }, Two::boxed);
        assert!(matches!(odd, Err(Error::BadParam { name: "size", .. })), "{odd:?}");
    }

    #[test]
    fn a_detector_that_is_too_unsure_does_not_judge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detector.safetensors");
        // Untrained, every σ is e^−1.5 = 0.223.
        let decide = |most| {
            let detector = Detector::new(DetectorConfig { most_uncertainty: most, ..config() }).unwrap();
            detector.save(&path).unwrap();
            let back = Detector::load(&path).unwrap();
            assert_eq!(back.config().most_uncertainty, most);
            back.assess(&picture(), None).unwrap()
        };
        assert!((decide(None).uncertainty.unwrap() - (-1.5_f64).exp()).abs() < 1e-6);
        assert_eq!(decide(Some(0.2)).decision, Decision::Unsure(Reason::Uncertain));
        for judged in [Some(0.3), None] {
            assert!(!matches!(decide(judged).decision, Decision::Unsure(_)), "{judged:?}");
        }
        for most in [-0.1, f64::NAN, f64::INFINITY] {
            let refused = Detector::new(DetectorConfig { most_uncertainty: Some(most), ..config() });
            assert!(matches!(refused, Err(Error::BadParam { name: "most_uncertainty", .. })), "{most}");
        }
        let network = ProxyConfig { attention: Attention::Sigmoid, ..config().network };
        let blind = Detector::new(DetectorConfig { most_uncertainty: Some(0.3), network, ..config() });
        assert!(matches!(blind, Err(Error::BadParam { name: "most_uncertainty", .. })));
    }

    #[test]
    fn a_file_that_says_nothing_of_uncertainty_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detector.safetensors");
        let detector = Detector::new(config()).unwrap();
        let mut header = serde_json::to_value(config()).unwrap();
        assert!(header.as_object_mut().unwrap().remove("most_uncertainty").is_some());
        save_variables(&path, &detector.store, &Header::new(SCHEMA, 1, header)).unwrap();
        assert_eq!(Detector::load(&path).unwrap().config(), &config());
    }

    #[test]
    fn sizes_that_only_the_header_has_are_refused_before_a_network_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detector.safetensors");
        let narrow = Detector::new(config()).unwrap();
        let wide = DetectorConfig { width: 4096, ..config() };
        let long = DetectorConfig { network: ProxyConfig { features: 4096, ..config().network }, ..config() };
        for (settings, shapes) in [
            (wide, "`backbone.block4.conv.weight` of shape [8192, 8192, 3, 3], found [4, 4, 3, 3]"),
            (long, "`live.block1.conv.weight` of shape [4096, 4096, 3, 3], found [4, 4, 3, 3]"),
        ] {
            save_variables(&path, &narrow.store, &Header::new(SCHEMA, 1, settings)).unwrap();
            let refused = Detector::load(&path).unwrap_err().to_string();
            assert!(refused.contains(shapes), "{refused}");
        }
    }

    #[test]
    fn decisions_follow_the_threshold_and_poor_pictures_are_not_judged() {
        let face = Some(PixelBox { x: 10.0, y: 5.0, width: 25.0, height: 30.0 });
        let decide = |change: &dyn Fn(&mut DetectorConfig), picture: &image::RgbImage| {
            let mut settings = config();
            change(&mut settings);
            Detector::new(settings).unwrap().assess(picture, face).unwrap().decision
        };
        assert_eq!(decide(&|c| c.threshold = 0.0, &picture()), Decision::Live);
        assert_eq!(decide(&|c| c.threshold = 1.1, &picture()), Decision::Spoof);
        assert_eq!(decide(&|c| c.smallest_face = 64.0, &picture()), Decision::Unsure(Reason::SmallFace));
        assert_eq!(decide(&|_| (), &image::RgbImage::new(60, 40)), Decision::Unsure(Reason::Exposure));
        let flat = image::RgbImage::from_pixel(60, 40, image::Rgb([120; 3]));
        assert_eq!(decide(&|_| (), &flat), Decision::Unsure(Reason::Blur));
    }

    #[test]
    fn boxes_outside_and_settings_out_of_range_are_refused() {
        let detector = Detector::new(config()).unwrap();
        let outside = Some(PixelBox { x: 100.0, y: 5.0, width: 25.0, height: 30.0 });
        assert!(matches!(detector.assess(&picture(), outside), Err(Error::BoxOutside { .. })));
        assert!(matches!(detector.assess(&image::RgbImage::new(0, 0), None), Err(Error::BadShape { .. })));
        let endless = Some(PixelBox { x: 0.0, y: 5.0, width: f64::INFINITY, height: 30.0 });
        assert!(matches!(detector.assess(&picture(), endless), Err(Error::BadShape { what: "face box", .. })));
        for settings in [
            DetectorConfig { size: 1028, ..config() },
            DetectorConfig { width: 4097, ..config() },
            DetectorConfig { network: ProxyConfig { features: 4097, ..config().network }, ..config() },
            DetectorConfig { smallest_face: f64::NAN, ..config() },
            DetectorConfig { least_sharpness: f64::NAN, ..config() },
            DetectorConfig { brightness: [0.95, 0.05], ..config() },
            DetectorConfig { size: 18, ..config() },
            DetectorConfig { width: 0, ..config() },
            DetectorConfig { crop_scale: 0.0, ..config() },
            DetectorConfig { threshold: f64::NAN, ..config() },
        ] {
            assert!(matches!(Detector::new(settings), Err(Error::BadParam { .. })));
        }
    }
}
