//! The features of a network at every position of an object, with every distinct patch computed once.
//!
//! A convolutional network computes most of its early cells again and again: a cell that does not see the object is the same
//! whatever the position, and one that sees the object but no border is the same for every position one stride further. Here a
//! layer's activations over *all* positions are one table of distinct cells.
//!
//! Two cells are the same when they see the same pixels, and for square windows that is decided axis by axis. A row of pixels is
//! named by what it shows (the object's third row, background); a row of cells is named by the tuple of names in its window,
//! with a name of its own for what lies beyond the border. Equal tuples are equal cells, so borders are exact without any
//! reasoning about receptive fields, and the number of tuples says what there is to gain. A cell is a pair of a row's and a
//! column's name; a pair of which one does not see the object does not see it at all, and becomes a background cell.
//!
//! Later layers see everything, so that nothing is shared any more. From the layer at which that is cheaper, maps are put
//! together position by position, some at a time, each core at its own.
//!
//! Convolutions of 3 × 3 with stride 1 take a third of the multiplications or less, on tables as on maps, where channels are many
//! ([Winograd](https://arxiv.org/abs/1509.09308)). Batch norms are folded into the convolutions.
//!
//! ```
//! use core_tensor::networks::{Architecture, ConvNetConfig};
//! use core_tensor::{checkpoint::state_of, nn::Standard};
//! use tch::{Device, nn};
//! use vision::invariance::reuse::ConvProgram;
//! use vision::invariance::{NetworkProbe, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};
//!
//! let store = nn::VarStore::new(Device::Cpu);
//! let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![8, 8], classes: 3 });
//! let network = architecture.build(&store.root(), &Standard)?;
//! let study = ShiftStudy::new(ShiftGrid::new([24, 24], [6, 6], 1)?, Placer::on_colour(vec![0.2]));
//! let object = Sprite::opaque(Picture::new(1, [6, 6], (0..36).map(|value| value as f32 / 36.0).collect())?);
//!
//! let program = ConvProgram::from_state(&architecture, &state_of(&store))?;
//! let reused = program.run(&study, &object, &["avgpool"])?;
//! let naive = study.run(&NetworkProbe::new(network.as_ref(), &["avgpool"], [1, 24, 24])?, &object)?;
//! let gap = (reused.features("avgpool")? - naive.features("avgpool")?).abs().max();
//! assert!(gap.double_value(&[]) < 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod axis;
mod networks;
mod ready;
mod step;
mod table;
mod winograd;
mod workers;

pub use networks::Head;
pub use step::Step;

use super::scene::Background;
use super::{Error, Motion, Result, ShiftGrid, ShiftMaps, ShiftStudy, Sprite};
use axis::Axis;
use indexmap::IndexMap;
use ready::Tail;
use step::Cost;
use table::Table;
use tch::{Tensor, no_grad};
use winograd::Room;

/// A convolutional network as a list of steps, followed by global average pooling (`avgpool`) and, with a head, a linear
/// classifier (`logits`).
#[derive(Debug)]
pub struct ConvProgram {
    steps: Vec<Step>,
    head: Option<Head>,
}

/// What reuse saves.
#[derive(Debug, Clone, PartialEq)]
pub struct Savings {
    /// Multiply-accumulates of the plain evaluation.
    pub naive: f64,
    /// Multiply-accumulates with reuse, Winograd's changes of basis included.
    pub reused: f64,
    /// Top-level steps that are computed on distinct cells; the rest is computed position by position.
    pub shared_steps: usize,
}

/// Values of the largest table; larger grids are done in bands of rows.
const TABLE_VALUES: usize = 1 << 26;

impl ConvProgram {
    /// A network of these steps.
    ///
    /// # Errors
    /// A weight that is not `[outputs, inputs, side, side]`, a bias or head of another length, a window or stride of 0, max
    /// pooling with more padding than half its window, a tap within a sum, two layers of one name.
    pub fn new(steps: Vec<Step>, head: Option<Head>) -> Result<Self> {
        steps.iter().try_for_each(|step| step.check(true))?;
        if let Some(head) = &head {
            head.check(steps.iter().rev().find_map(Step::outputs))?;
        }
        let program = Self { steps, head };
        let layers = program.layers();
        if let Some((_, twice)) = layers.iter().enumerate().find(|(at, name)| layers[..*at].contains(*name)) {
            return Err(Error::setting("tap", "a name that no other layer has", format!("`{twice}`")));
        }
        Ok(program)
    }

    /// The names of the layers: taps, `avgpool`, and `logits` with a head.
    pub fn layers(&self) -> Vec<String> {
        let taps = self.steps.iter().filter_map(|step| match step {
            Step::Tap(name) => Some(name.clone()),
            _ => None,
        });
        let ends = ["avgpool", "logits"].into_iter().take(1 + usize::from(self.head.is_some()));
        taps.chain(ends.map(str::to_owned)).collect()
    }

    /// The features of a study at every position: what [`ShiftStudy::run`] gives for the network, to rounding.
    ///
    /// # Errors
    /// A layer that there is not, parts that do not fit, steps of a fraction of a pixel, maps that shrink to nothing.
    pub fn run(&self, study: &ShiftStudy, object: &Sprite, layers: &[&str]) -> Result<ShiftMaps> {
        let known = self.layers();
        if let Some(name) = layers.iter().find(|name| !known.iter().any(|known| known == *name)) {
            return Err(Error::UnknownLayer { name: (*name).into(), known });
        }
        study.placer.check(object, &study.grid)?;
        let mut parts = IndexMap::<&str, Vec<Tensor>>::new();
        let band = self.band(study, object)?;
        for start in (0..study.grid.rows()).step_by(band) {
            let rows = band.min(study.grid.rows() - start);
            let grid = study.grid.window([start, 0], [rows, study.grid.columns()])?;
            let plan = self.plan(&study.placer.motion, &study.placer.background, &grid, object)?;
            let found = no_grad(|| self.run_band(&plan, study, &grid, object, layers))?;
            found.into_iter().for_each(|(layer, tensor)| parts.entry(layer).or_default().push(tensor));
        }
        let joined = layers.iter().map(|layer| Ok(((*layer).to_owned(), Tensor::f_cat(&parts[layer], 0)?)));
        ShiftMaps::new(study.grid, joined.collect::<Result<_>>()?, study.similarity, study.classifier.as_deref())
    }

    /// What reuse saves in a study.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn savings(&self, study: &ShiftStudy, object: &Sprite) -> Result<Savings> {
        study.placer.check(object, &study.grid)?;
        let band = self.band(study, object)?;
        let mut sum = Savings { naive: 0.0, reused: 0.0, shared_steps: 0 };
        for start in (0..study.grid.rows()).step_by(band) {
            let grid = study.grid.window([start, 0], [band.min(study.grid.rows() - start), study.grid.columns()])?;
            let plan = self.plan(&study.placer.motion, &study.placer.background, &grid, object)?;
            sum.naive += plan.naive;
            sum.reused += plan.reused;
            sum.shared_steps = sum.shared_steps.max(plan.shared);
        }
        Ok(sum)
    }

    /// The network on whole images, for checking and for the layers in which nothing is shared.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        no_grad(|| {
            let mut found = Vec::new();
            let map = core_tensor::nn::channels_last(images);
            let tail = Tail::plain(&self.steps, self.head.as_ref());
            tail.run(map, &mut Room::default(), &mut |name, tensor| found.push((name.to_owned(), tensor)))?;
            Ok(found)
        })
    }

    /// Rows of positions whose tables fit.
    fn band(&self, study: &ShiftStudy, object: &Sprite) -> Result<usize> {
        let mut band = study.grid.rows();
        loop {
            let grid = study.grid.window([0, 0], [band, study.grid.columns()])?;
            let plan = self.plan(&study.placer.motion, &study.placer.background, &grid, object)?;
            if plan.largest <= TABLE_VALUES || band == 1 {
                return Ok(band);
            }
            band = band.div_ceil(2);
        }
    }

    /// Counts distinct cells, and decides how many steps are worth sharing.
    fn plan(&self, motion: &Motion, background: &Background, grid: &ShiftGrid, object: &Sprite) -> Result<Plan> {
        if grid.subdivisions() > 1 {
            return Err(Error::NotConvolutional {
                network: "a study at fractions of a pixel".into(),
                reason: "each fraction shows other pixels; run it naively".into(),
            });
        }
        let pixels = axis::pixels(motion, matches!(background, Background::Colour(_)), grid);
        let positions = grid.len() as f64;
        let (mut rows, mut columns) = (pixels[0].clone(), pixels[1].clone());
        let mut channels = object.picture().channels();
        let mut costs = Vec::new();
        for step in &self.steps {
            costs.push(step.count(&mut rows, &mut columns, &mut channels)?);
        }
        let total = |shared: usize, table: fn(&Cost) -> f64| {
            let maps = costs[shared..].iter().map(|cost| cost.quick * positions);
            costs[..shared].iter().map(table).chain(maps).sum::<f64>()
        };
        let effort = |shared: &usize| total(*shared, |cost| cost.effort);
        // What costs nothing by this count is still done on fewer cells.
        let shared = (0..=costs.len()).rev().min_by(|a, b| effort(a).total_cmp(&effort(b))).unwrap_or(0);
        Ok(Plan {
            pixels,
            shared,
            naive: costs.iter().map(|cost| cost.plain * positions).sum(),
            reused: total(shared, |cost| cost.shared),
            largest: costs[..shared].iter().map(|cost| cost.largest).max().unwrap_or(0),
        })
    }

    fn run_band<'a>(
        &self,
        plan: &Plan,
        study: &ShiftStudy,
        grid: &ShiftGrid,
        object: &Sprite,
        layers: &[&'a str],
    ) -> Result<Vec<(&'a str, Tensor)>> {
        let mut table = Table::of_pixels(plan.pixels.clone(), &study.placer, grid, object)?;
        let mut found = Vec::new();
        let (shared, rest) = self.steps.split_at(plan.shared);
        for step in shared {
            if let Step::Tap(name) = step {
                if let Some(layer) = layers.iter().find(|layer| *layer == name) {
                    found.push((*layer, table.means(grid)?));
                }
                continue;
            }
            table = step.on_table(table)?;
        }
        let needed = |name: &str| layers.iter().find(|layer| **layer == name).copied();
        let tail = ["avgpool", "logits"].into_iter().any(|name| needed(name).is_some())
            || rest.iter().any(|step| matches!(step, Step::Tap(name) if needed(name).is_some()));
        if !tail {
            return Ok(found);
        }
        let mut parts = IndexMap::<&str, Vec<Tensor>>::new();
        let mut keep = |name: &str, tensor: Tensor| {
            if let Some(layer) = needed(name) {
                parts.entry(layer).or_default().push(tensor);
            }
        };
        let head = self.head.as_ref();
        if rest.is_empty() {
            Tail::plain(rest, head).pooled(table.means(grid)?, &mut keep)?;
        } else {
            let batch = study.batch.max(1);
            let batches = grid.len().div_ceil(batch);
            let tail = Tail::quick(rest, head, table.side())?;
            let states = (0..workers::count(batches)).map(|_| Ok((tail.another(), table.shared_copy(false)?)));
            let found = workers::run(states.collect::<Result<_>>()?, batches, |(tail, table), pieces| {
                let mut room = Room::default();
                let one = |piece: usize| {
                    let start = piece * batch;
                    let maps = table.maps(grid, start..(start + batch).min(grid.len()))?;
                    let mut found = Vec::new();
                    tail.run(maps, &mut room, &mut |name, tensor| found.push((name.to_owned(), tensor)))?;
                    Ok((piece, found))
                };
                pieces.map(one).collect()
            })?;
            found.into_iter().flatten().for_each(|(name, tensor)| keep(&name, tensor));
        }
        for (layer, parts) in parts {
            found.push((layer, Tensor::f_cat(&parts, 0)?));
        }
        Ok(found)
    }
}

struct Plan {
    pixels: [Axis; 2],
    shared: usize,
    naive: f64,
    reused: f64,
    largest: usize,
}

#[cfg(test)]
mod tests;
