//! A trained network with everything needed to use it: how pictures are cut, what threshold, and where that came from.

use super::data::{Crop, PixelBox};
use super::error::{Error, Result};
use super::metrics::{Criterion, Dev, Threshold};
use super::model::{Backbone, PlainBackbone, Proxy, ProxyConfig, ProxyFas, WithContext};
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
    /// Whether the [`PlainBackbone`] sees the whole picture, see [`WithContext`]; files that do not say have one that does
    /// not. Of a backbone of one's own it says nothing.
    #[serde(default)]
    pub context: bool,
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
    /// A detector on a [`PlainBackbone`], in its [context](DetectorConfig::context) or not, with random weights, to be
    /// trained or loaded into.
    ///
    /// # Errors
    /// [`Error::BadParam`] for settings out of range.
    pub fn new(config: DetectorConfig) -> Result<Self> {
        let width = config.width;
        // A file's header says it before anything else is known of it.
        if !(1..=4096).contains(&width) {
            return Err(Error::BadParam { name: "width", expected: "1 to 4096", value: width as f64 });
        }
        let context = config.context;
        Self::with_backbone(config, move |path| plain(path, width, context))
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

fn plain(path: &nn::Path, width: i64, context: bool) -> Box<dyn Backbone> {
    let plain = Box::new(PlainBackbone::new(path, &Standard, width));
    if context { Box::new(WithContext::new(&(path / "context"), &Standard, plain)) } else { plain }
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
mod tests;
