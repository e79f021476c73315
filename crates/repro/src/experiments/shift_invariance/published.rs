//! Checkpoints of the user's, at the paper's own sizes.
//!
//! In the data root: `shift-invariance/objects/*.png` (cut-out objects with transparency), and any of
//! `shift-invariance/{resnet18,resnet50}.safetensors` and `…-antialiased.safetensors` (weights of a network with blur pools
//! of side 5, in torchvision's names).

use super::{PAPER, REVISION};
use crate::{Ask, DataSource, DataUse, Fingerprint, Metrics, Plan, RunContext};
use core_tensor::checkpoint::{LoadPolicy, load_variables, read_state};
use core_tensor::networks::Architecture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, no_grad};
use vision::invariance::{
    Anchor, AntiAlias, AntiAliasConfig, MeanMaps, Placer, Reduction, ShiftGrid, ShiftStudy, Sprite,
};

const FOLDER: &str = "shift-invariance";
/// Depths of the ResNets.
pub(super) const DEPTHS: [u32; 2] = [18, 50];

/// A checkpoint and the size of the objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    pub(super) depth: u32,
    pub(super) antialiased: bool,
    /// 125 or 75 of 224.
    pub(super) object: usize,
    /// What the checkpoint is, and what the pictures are, by name: the user may put others in their place.
    weights: Fingerprint,
    objects: BTreeMap<String, Fingerprint>,
}

impl Published {
    pub(super) fn is(&self, depth: u32, antialiased: bool, object: usize) -> bool {
        self.depth == depth && self.antialiased == antialiased && self.object == object
    }
}

/// The name of a checkpoint in [`FOLDER`].
fn checkpoint(depth: u32, antialiased: bool) -> String {
    format!("resnet{depth}{}.safetensors", if antialiased { "-antialiased" } else { "" })
}

pub(super) fn plan(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    let folder = ask.data.path().join(FOLDER);
    let mut objects = BTreeMap::new();
    for name in pictures(&folder.join("objects"))? {
        let picture = ask.data.fingerprint(&format!("{FOLDER}/objects/{name}"))?;
        objects.insert(name, picture);
    }
    for depth in DEPTHS {
        for antialiased in [false, true] {
            let file = checkpoint(depth, antialiased);
            if objects.is_empty() || !folder.join(&file).is_file() {
                continue;
            }
            let weights = ask.data.fingerprint(&format!("{FOLDER}/{file}"))?;
            for object in [125, 75] {
                let (weights, objects) = (weights.clone(), objects.clone());
                let pictures = objects.len() as f64;
                let run = Published { depth, antialiased, object, weights, objects };
                plan.add_weighted(ask.run(PAPER, "published", 0, &run)?.at_revision(REVISION), pictures);
            }
        }
    }
    let source = if plan.runs.is_empty() { DataSource::Absent } else { DataSource::Files };
    plan.data.push(DataUse { set: format!("checkpoints and {} objects of the user's", objects.len()), source });
    Ok(())
}

/// The names of the pictures of a folder, sorted; none when it is not there.
fn pictures(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".png") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn measure(params: &Published, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let folder: PathBuf = context.data().path().join(FOLDER);
    let file = folder.join(checkpoint(params.depth, params.antialiased));
    let classes = read_state(&file)?.get("fc.bias").map_or(1000, |bias| bias.size()[0]);
    let reduction = if params.antialiased { AntiAliasConfig::blur(5).reduction } else { Reduction::Plain };
    let factory = AntiAlias::new(AntiAliasConfig { reduction, ..AntiAliasConfig::default() })?;
    let mut store = VarStore::new(Device::Cpu);
    let network = Architecture::imagenet_resnet(params.depth, classes)?.build(&store.root(), &factory)?;
    factory.finish()?;
    load_variables(&file, &store, &LoadPolicy::strict())?;
    let device: Device = context.device().into();
    store.set_device(device);

    let grid = ShiftGrid::new([224; 2], [params.object; 2], 1)?;
    let study = ShiftStudy::new(grid, Placer::white_imagenet());
    let logits = |images: &tch::Tensor| {
        let logits = no_grad(|| network.forward(&images.to_device(device), false));
        Ok(vec![("fc".to_owned(), logits.to_device(Device::Cpu))])
    };
    let mut sums = MeanMaps::new();
    let total = params.objects.len() as u64;
    for (done, name) in params.objects.keys().enumerate() {
        let object = Sprite::open(&folder.join("objects").join(name))?.resized([params.object; 2])?;
        sums.add(&study.stream(&logits, &object, &Anchor::FIVE)?, &Anchor::FIVE)?;
        context.progress(done as u64 + 1, total, name);
    }
    let mut metrics = Metrics::new();
    for mean in sums.finish() {
        let anchor = mean.anchor.label();
        metrics.insert(format!("mean_{anchor}"), mean.mean_similarity().0);
        metrics.insert(format!("deviation_{anchor}"), mean.mean_similarity().1);
        metrics.insert(format!("local_drop_{anchor}"), mean.map.local_drop(2));
        metrics.insert(format!("jaggedness_{anchor}"), mean.map.jaggedness());
    }
    Ok(metrics)
}
