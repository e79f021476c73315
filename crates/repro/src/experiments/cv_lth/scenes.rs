//! Segmentation and detection on generated scenes, from the dense backbone and from its ticket.

use super::learning::{Length, Model, train};
use super::pretraining::{WEIGHTS, load_backbone, mask_file};
use super::settings::Settings;
use crate::{Device, Metrics, RunContext};
use core_tensor::checkpoint::read_state;
use core_tensor::data::OnDevice;
use core_tensor::nn::Standard;
use core_tensor::train::Observer;
use lth::transfer::{DetectionConfig, Detector, Matching, SceneGenerator, SceneLoader, Segmenter};
use lth::{MaskObserver, MaskSet};
use serde::{Deserialize, Serialize};

/// The run's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) settings: Settings,
}

/// The round whose ticket is tried: 48.8 %.
pub(super) const ROUND: u32 = 3;
const BATCH: usize = 16;
const WIDTH: i64 = 32;

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let settings = &params.settings;
    let scenes = settings.scenes.ok_or_else(|| anyhow::anyhow!("these settings have no scenes"))?;
    let [count, tests, steps, repeats, side] = scenes;
    let source = context.needed("source")?;
    let pretrained = read_state(&source.artifact(WEIGHTS)?)?;
    let (ticket, _) = MaskSet::load(&source.artifact(&mask_file(ROUND))?)?;
    let channels = settings.image_shape()[0];
    let generator = SceneGenerator { side, channels: channels as usize, most: 3 };
    let (scenes, test) = (generator.scenes(count, 2 * seed)?, generator.scenes(tests, 2 * seed + 1)?);
    let device = context.device().into();
    let test = OnDevice::new(SceneLoader::evaluation(test, 64)?, device);
    let image = [channels, side as i64, side as i64];

    let mut metrics = Metrics::new();
    let mut summarise = |task: &str, dense: &[f64], sparse: &[f64]| -> anyhow::Result<()> {
        let verdict = Matching::new(sparse, dense)?;
        metrics.insert(format!("{task}_dense"), verdict.dense_mean);
        metrics.insert(format!("{task}_ticket"), verdict.mean);
        metrics.insert(format!("{task}_dense_std"), verdict.dense_std);
        Ok(())
    };
    let mut scores = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for repeat in 0..repeats as u64 {
        for (arm, mask) in [None, Some(&ticket)].into_iter().enumerate() {
            for (task, scores) in scores.iter_mut().enumerate() {
                // On the CPU until the head is drawn too, so that a seed means the same weights on every device.
                let mut model = Model::new(settings, 9_000_000 + 1000 * seed + repeat, Device::Cpu)?;
                load_backbone(&pretrained, &model.store)?;
                let mut held = mask.map(|mask| MaskObserver::new(mask, &model.store)).transpose()?;
                let observers: Vec<&mut dyn Observer> = held.iter_mut().map(|held| held as &mut dyn Observer).collect();
                let loader = OnDevice::new(SceneLoader::training(scenes.clone(), BATCH, repeat)?, device);
                let (path, network) = (model.store.root() / "head", model.network.as_ref());
                let view = (settings.tap.as_str(), image);
                let score = if task == 0 {
                    let classes = (WIDTH, SceneGenerator::PIXEL_CLASSES);
                    let mut head = Segmenter::new(&path, &Standard, network, view, classes)?;
                    model.store.set_device(device);
                    train(&mut head, &model.store, &loader, observers, Length::cosine(steps as u64, 0.05, repeat))?;
                    head.evaluate(&test)?.mean_iou()?
                } else {
                    let config = DetectionConfig::new(WIDTH, SceneGenerator::OBJECT_CLASSES);
                    let mut head = Detector::new(&path, &Standard, network, view, config)?;
                    model.store.set_device(device);
                    train(&mut head, &model.store, &loader, observers, Length::cosine(steps as u64, 0.02, repeat))?;
                    head.evaluate(&test)?.ap50
                };
                scores[arm].push(100.0 * score);
            }
        }
        context.progress(repeat + 1, repeats as u64, "");
    }
    summarise("miou", &scores[0][0], &scores[0][1])?;
    summarise("ap50", &scores[1][0], &scores[1][1])?;
    Ok(metrics)
}
