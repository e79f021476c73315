//! The interactive page of the first seed's networks.

use super::Net;
use super::measure::{objects, study};
use crate::section::Attachment;
use crate::{Ask, Results};
use core_tensor::checkpoint::read_safetensors;
use vision::invariance::{Page, PageConfig, ShiftMaps};

/// The layers shown, in the order of the network.
pub(super) const LAYERS: [&str; 5] = ["stage1", "stage2", "stage3", "fc6", "logits"];
/// Objects shown.
pub(super) const OBJECTS: usize = 3;

/// Where a run keeps the features of an object.
pub(super) fn artifact(object: usize) -> String {
    format!("features-{object}.safetensors")
}

/// The page, when a network of the first seed has finished.
pub(super) fn build(ask: &Ask, results: &Results) -> anyhow::Result<Option<Attachment>> {
    let nets: Vec<_> = results.finished(|run| run.kind == "net" && run.seed == 0).collect();
    let Some(first) = nets.first() else { return Ok(None) };
    let params: Net = first.run.params()?;
    let study = study()?;
    let test = params.data.load(&ask.data, 1)?.test;
    let caption = format!(
        "Small VGGs trained here on {} images of Fashion-MNIST's kind near the centre, seed 0; objects are of the test set. \
         Similarity is the cosine of features with that at the anchor (dashed). `cargo xtask repro shift-invariance` makes this page.",
        params.train_images
    );
    let title = "What shift invariance looks like";
    let mut page = Page::new(title, &caption, study.grid, study.placer.clone(), test.classes(), PageConfig::default())?;
    for (sprite, label) in objects(&test, params.objects)?.iter().take(OBJECTS) {
        page.object(&test.classes()[*label as usize], sprite)?;
    }
    for run in nets {
        let params: Net = run.run.params()?;
        let maps = (0..OBJECTS).map(|object| {
            let mut tensors = read_safetensors(&run.artifact(&artifact(object))?)?;
            let ordered = LAYERS.iter().filter_map(|layer| tensors.shift_remove_entry(*layer)).collect();
            Ok(ShiftMaps::new(study.grid, ordered, study.similarity, Some("logits"))?)
        });
        let maps = maps.collect::<anyhow::Result<Vec<_>>>()?;
        let name = format!("{}, {}", params.head.label(), params.pool.label());
        let note = format!("{:.1} % at the centre", 100.0 * run.metric("accuracy_centre")?);
        page.model(&name, &note, &maps.iter().collect::<Vec<_>>())?;
    }
    Ok(Some(Attachment {
        name: "shift-invariance.html".into(),
        title: "Drag the object: every network's maps side by side".into(),
        bytes: page.html()?.into_bytes(),
    }))
}
