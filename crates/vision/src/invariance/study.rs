//! An object at every position, and what a network makes of it.

use super::consistency::{Neighbours, flips};
use super::scene::floats;
use super::{
    Anchor, Error, FeatureExtractor, Placer, Result, ShiftGrid, Similarity, SimilarityMap, Sprite, statistics,
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How a study is made.
///
/// ```
/// use tch::{Kind, Tensor};
/// use vision::invariance::{Anchor, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};
///
/// let object = Sprite::opaque(Picture::new(1, [2, 2], vec![1.0; 4])?);
/// let study = ShiftStudy::new(ShiftGrid::new([6, 6], [2, 2], 1)?, Placer::on_colour(vec![0.0]));
/// // A "network" that only looks at the sums over rows: where the object is, up or down, is all that it sees.
/// let sums = |images: &Tensor| Ok(vec![("rows".into(), images.sum_dim_intlist([1_i64, 3].as_slice(), false, Kind::Float))]);
/// let maps = study.run(&sums, &object)?;
/// let map = maps.similarity("rows", Anchor::TopLeft)?;
/// let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6; // single precision
/// assert!(near(map.at(0, 4), 1.0) && near(map.at(1, 0), 0.5) && near(map.at(4, 0), 0.0));
/// # Ok::<(), vision::invariance::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftStudy {
    /// The positions.
    pub grid: ShiftGrid,
    /// How images are made.
    pub placer: Placer,
    /// Images a forward pass. Default 256.
    pub batch: usize,
    /// How features are compared. Default cosine.
    pub similarity: Similarity,
    /// The layer whose features are logits, for predictions. Default none.
    pub classifier: Option<String>,
}

/// Features of one object at every position.
#[derive(Debug)]
pub struct ShiftMaps {
    grid: ShiftGrid,
    similarity: Similarity,
    /// `[positions, length]` by layer.
    features: IndexMap<String, Tensor>,
    predictions: Option<Predictions>,
}

/// What a classifier says at every position.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Class numbers, row by row of the grid.
    pub classes: Vec<i64>,
    /// Probabilities `[positions, classes]`, row by row.
    pub probabilities: Vec<f32>,
    /// How many classes there are.
    pub class_count: usize,
}

impl Predictions {
    fn from_logits(logits: &Tensor) -> Result<Self> {
        let size = logits.size();
        let &[_, class_count] = size.as_slice() else {
            return Err(Error::shape("logits", "[positions, classes]", format!("{size:?}")));
        };
        let classes = logits.f_argmax(1, false)?.f_to_device(tch::Device::Cpu)?;
        let mut numbers = vec![0_i64; classes.numel()];
        classes.f_copy_data(&mut numbers, classes.numel())?;
        let probabilities = floats(&logits.f_softmax(1, Kind::Float)?)?;
        Ok(Self { classes: numbers, probabilities, class_count: class_count as usize })
    }

    /// The probability of one class at every position.
    ///
    /// # Errors
    /// A class that there is not.
    pub fn probability(&self, class: usize) -> Result<Vec<f64>> {
        if class >= self.class_count {
            return Err(Error::setting("class", format!("below {}", self.class_count), class));
        }
        Ok(self.probabilities.chunks_exact(self.class_count).map(|row| f64::from(row[class])).collect())
    }

    /// Share of positions at which `class` is predicted.
    pub fn accuracy(&self, class: i64) -> f64 {
        self.classes.iter().filter(|found| **found == class).count() as f64 / self.classes.len().max(1) as f64
    }
}

impl ShiftStudy {
    /// With the defaults.
    pub fn new(grid: ShiftGrid, placer: Placer) -> Self {
        Self { grid, placer, batch: 256, similarity: Similarity::Cosine, classifier: None }
    }

    /// With predictions from this layer.
    #[must_use]
    pub fn classified_by(mut self, layer: &str) -> Self {
        self.classifier = Some(layer.into());
        self
    }

    /// The features of one object at every position, kept: for any anchor, position classifiers, pages.
    ///
    /// # Errors
    /// Parts that do not fit; features that are not finite; an extractor that changes its layers or lacks the classifier.
    pub fn run(&self, extractor: &dyn FeatureExtractor, object: &Sprite) -> Result<ShiftMaps> {
        let mut parts = IndexMap::<String, Vec<Tensor>>::new();
        self.visit(extractor, object, |_, features| {
            features.into_iter().for_each(|(layer, tensor)| parts.entry(layer).or_default().push(tensor));
            Ok(())
        })?;
        let joined = parts.into_iter().map(|(layer, parts)| Ok((layer, Tensor::f_cat(&parts, 0)?)));
        ShiftMaps::new(self.grid, joined.collect::<Result<_>>()?, self.similarity, self.classifier.as_deref())
    }

    /// The features batch by batch, without a graph, each with the grid index of its first position: nothing is kept.
    ///
    /// # Errors
    /// As [`run`](Self::run), and those of `each`.
    pub fn visit(
        &self,
        extractor: &dyn FeatureExtractor,
        object: &Sprite,
        mut each: impl FnMut(usize, Vec<(String, Tensor)>) -> Result<()>,
    ) -> Result<()> {
        if self.batch == 0 {
            return Err(Error::setting("batch", "at least 1", 0));
        }
        for start in (0..self.grid.len()).step_by(self.batch) {
            let range = start..(start + self.batch).min(self.grid.len());
            let features = detached(extractor.features(&self.placer.images(object, &self.grid, range.clone())?)?);
            for (layer, tensor) in &features {
                check_features(layer, tensor, range.len())?;
            }
            each(start, features)?;
        }
        Ok(())
    }

    /// The maps of one object to fixed anchors, layer by layer, without keeping features: memory does not grow with the grid
    /// but for the maps themselves.
    ///
    /// # Errors
    /// As [`run`](Self::run), an anchor outside the grid, features of norm 0.
    pub fn stream(
        &self,
        extractor: &dyn FeatureExtractor,
        object: &Sprite,
        anchors: &[Anchor],
    ) -> Result<IndexMap<String, Vec<SimilarityMap>>> {
        let places = anchors.iter().map(|anchor| self.grid.index(*anchor)).collect::<Result<Vec<_>>>()?;
        let images = places.iter().map(|&place| self.placer.images(object, &self.grid, place..place + 1));
        let images = images.collect::<Result<Vec<_>>>()?;
        if images.is_empty() {
            return Err(Error::setting("anchors", "at least one", "none"));
        }
        let references: IndexMap<String, Tensor> =
            detached(extractor.features(&Tensor::f_cat(&images, 0)?)?).into_iter().collect();
        for (layer, tensor) in &references {
            check_features(layer, tensor, places.len())?;
            // Norms of the anchors are checked as those of positions.
            self.similarity.to_anchors(layer, tensor, tensor, &|index| self.grid.position(places[index]))?;
        }
        let mut values = IndexMap::<String, Vec<Vec<f64>>>::new();
        self.visit(extractor, object, |start, features| {
            for (layer, tensor) in features {
                let reference = references.get(&layer).ok_or_else(|| changed(&layer))?;
                let position = |index: usize| self.grid.position(start + index);
                let lists = self.similarity.to_anchors(&layer, &tensor, reference, &position)?;
                let kept = values.entry(layer).or_insert_with(|| vec![Vec::new(); places.len()]);
                kept.iter_mut().zip(lists).for_each(|(kept, list)| kept.extend(list));
            }
            Ok(())
        })?;
        let size = [self.grid.rows(), self.grid.columns()];
        let maps = values.into_iter().map(|(layer, lists)| {
            let map = |(list, &place)| SimilarityMap::new(size, self.grid.position(place), list);
            Ok((layer, lists.into_iter().zip(&places).map(map).collect::<Result<_>>()?))
        });
        maps.collect()
    }
}

/// Without the graph that made them, which would keep every activation of the network.
fn detached(features: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    features.into_iter().map(|(layer, tensor)| (layer, tensor.detach())).collect()
}

fn changed(layer: &str) -> Error {
    Error::shape("layers of an extractor", "the same for every batch", format!("`{layer}` in some"))
}

fn check_features(layer: &str, tensor: &Tensor, batch: usize) -> Result<()> {
    let size = tensor.size();
    if size.len() != 2 || size[0] != batch as i64 || size[1] == 0 {
        let expected = format!("[{batch}, length]");
        return Err(Error::shape(format!("features of layer `{layer}`"), expected, format!("{size:?}")));
    }
    Ok(())
}

impl ShiftMaps {
    /// Features computed elsewhere, such as by [`reuse`](super::reuse): `[positions, length]` by layer, in the order of the grid.
    /// They are kept without a graph.
    ///
    /// # Errors
    /// Another number of positions, a feature that is not finite, a classifier that is not among the layers.
    pub fn new(
        grid: ShiftGrid,
        features: IndexMap<String, Tensor>,
        similarity: Similarity,
        classifier: Option<&str>,
    ) -> Result<Self> {
        let features: IndexMap<String, Tensor> = detached(features.into_iter().collect()).into_iter().collect();
        for (layer, tensor) in &features {
            check_features(layer, tensor, grid.len())?;
            let sums = tensor.f_isfinite()?.f_all_dim(1, false)?.f_to_kind(Kind::Float)?;
            if let Some(index) = floats(&sums)?.iter().position(|finite| *finite == 0.0) {
                return Err(Error::NotFinite { layer: layer.clone(), position: grid.position(index) });
            }
        }
        let maps = Self { grid, similarity, features, predictions: None };
        let predictions = classifier.map(|layer| Predictions::from_logits(maps.features(layer)?)).transpose()?;
        Ok(Self { predictions, ..maps })
    }

    /// The positions.
    pub fn grid(&self) -> &ShiftGrid {
        &self.grid
    }

    /// How features are compared.
    pub fn measure(&self) -> Similarity {
        self.similarity
    }

    /// The names of the layers.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.features.keys().map(String::as_str)
    }

    /// `[positions, length]`.
    ///
    /// # Errors
    /// A layer that there is not.
    pub fn features(&self, layer: &str) -> Result<&Tensor> {
        let unknown = || Error::UnknownLayer { name: layer.into(), known: self.features.keys().cloned().collect() };
        self.features.get(layer).ok_or_else(unknown)
    }

    /// What the classifier said, when the study has one.
    pub fn predictions(&self) -> Option<&Predictions> {
        self.predictions.as_ref()
    }

    /// The map of a layer to an anchor.
    ///
    /// # Errors
    /// A layer that there is not, an anchor outside the grid, features of norm 0.
    pub fn similarity(&self, layer: &str, anchor: Anchor) -> Result<SimilarityMap> {
        let (features, place) = (self.features(layer)?, self.grid.index(anchor)?);
        let reference = features.f_narrow(0, place as i64, 1)?;
        let position = |index: usize| self.grid.position(index);
        let list = self.similarity.to_anchors(layer, features, &reference, &position)?.swap_remove(0);
        SimilarityMap::new([self.grid.rows(), self.grid.columns()], self.grid.position(place), list)
    }

    /// Agreement of the predicted class with that at the anchor: 1 or 0 at every position.
    ///
    /// # Errors
    /// A study without a classifier, an anchor outside the grid.
    pub fn agreement(&self, anchor: Anchor) -> Result<SimilarityMap> {
        let predictions = self.classified()?;
        let place = self.grid.index(anchor)?;
        let same = |class: &i64| f64::from(u8::from(*class == predictions.classes[place]));
        let values = predictions.classes.iter().map(same).collect();
        SimilarityMap::new([self.grid.rows(), self.grid.columns()], self.grid.position(place), values)
    }

    /// P(top-1 change) and mean absolute change over one-step shifts (Azulay and Weiss, JMLR 20, 2019), of the probability
    /// of `class`.
    ///
    /// # Errors
    /// A study without a classifier, a class that there is not.
    pub fn one_step_changes(&self, class: usize) -> Result<Neighbours> {
        let predictions = self.classified()?;
        Ok(Neighbours::over(&self.grid, &predictions.classes, &predictions.probability(class)?))
    }

    /// How often the prediction flips along a row from left to right, averaged over rows: Azulay and Weiss' first jaggedness.
    ///
    /// # Errors
    /// A study without a classifier.
    pub fn flips_along_rows(&self) -> Result<f64> {
        Ok(flips(&self.grid, &self.classified()?.classes))
    }

    fn classified(&self) -> Result<&Predictions> {
        let missing = || Error::setting("classifier", "a layer of logits, for predictions", "none");
        self.predictions.as_ref().ok_or_else(missing)
    }
}

/// Maps added up object by object, so that millions of images leave a few maps behind.
#[derive(Debug, Clone, Default)]
pub struct MeanMaps {
    sums: IndexMap<(String, Anchor), Sum>,
}

#[derive(Debug, Clone)]
struct Sum {
    map: SimilarityMap,
    /// The mean of each object's map: what the paper logs, divided by the number of positions.
    means: Vec<f64>,
    local: Vec<f64>,
    jaggedness: Vec<f64>,
}

/// A layer's maps to one anchor over many objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanMap {
    /// The layer.
    pub layer: String,
    /// The anchor.
    pub anchor: Anchor,
    /// Mean over objects, position by position.
    pub map: SimilarityMap,
    /// `global_drop` of each object.
    pub global_drops: Vec<f64>,
    /// `local_drop(1)` of each object.
    pub local_drops: Vec<f64>,
    /// `jaggedness` of each object.
    pub jaggedness: Vec<f64>,
}

impl MeanMap {
    /// Mean and standard deviation over objects of the mean similarity, as the paper's logs have them.
    pub fn mean_similarity(&self) -> (f64, f64) {
        let means: Vec<f64> = self.global_drops.iter().map(|drop| 1.0 - drop).collect();
        (statistics::mean(&means), statistics::deviation(&means))
    }
}

impl MeanMaps {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object's maps, as [`ShiftStudy::stream`] gives them for `anchors`.
    ///
    /// # Errors
    /// Another number of maps than anchors, maps of another size than those before. Nothing is added then.
    pub fn add(&mut self, maps: &IndexMap<String, Vec<SimilarityMap>>, anchors: &[Anchor]) -> Result<()> {
        for (layer, list) in maps {
            if list.len() != anchors.len() {
                let (expected, found) = (format!("{}, one an anchor", anchors.len()), list.len().to_string());
                return Err(Error::shape(format!("maps of layer `{layer}`"), expected, found));
            }
            for (map, &anchor) in list.iter().zip(anchors) {
                let before = self.sums.get(&(layer.clone(), anchor)).map(|sum| sum.map.size);
                if let Some(size) = before.filter(|size| *size != map.size) {
                    let (expected, found) = (format!("{size:?}"), format!("{:?}", map.size));
                    return Err(Error::shape(format!("map of layer `{layer}`"), expected, found));
                }
            }
        }
        for (layer, list) in maps {
            for (map, &anchor) in list.iter().zip(anchors) {
                let empty = || Sum {
                    map: SimilarityMap { values: vec![0.0; map.values.len()], ..map.clone() },
                    means: Vec::new(),
                    local: Vec::new(),
                    jaggedness: Vec::new(),
                };
                let sum = self.sums.entry((layer.clone(), anchor)).or_insert_with(empty);
                sum.map.values.iter_mut().zip(&map.values).for_each(|(sum, value)| *sum += value);
                sum.means.push(map.mean());
                sum.local.push(map.local_drop(1));
                sum.jaggedness.push(map.jaggedness());
            }
        }
        Ok(())
    }

    /// The means, in the order of layers and anchors.
    pub fn finish(self) -> Vec<MeanMap> {
        let mean = |((layer, anchor), mut sum): ((String, Anchor), Sum)| {
            let objects = sum.means.len() as f64;
            sum.map.values.iter_mut().for_each(|value| *value /= objects);
            let global_drops = sum.means.into_iter().map(|mean| 1.0 - mean).collect();
            MeanMap { layer, anchor, map: sum.map, global_drops, local_drops: sum.local, jaggedness: sum.jaggedness }
        };
        self.sums.into_iter().map(mean).collect()
    }
}

#[cfg(test)]
mod tests;
