//! A page to explore maps in: one HTML file that needs nothing else.

use super::similarity::doubles;
use super::{Anchor, Background, Error, Motion, Placer, Result, ShiftGrid, ShiftMaps, Similarity, Sprite};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, Rgba, RgbaImage};
use serde_json::{Value, json};
use std::io::Cursor;
use std::path::Path;
use tch::Kind;

/// A page with an object to drag, maps of any number of models side by side under one colour scale, any position as the anchor,
/// any layer, cross-sections, profiles and predictions, one object at a time or the mean of all. Works from disk, by mouse, touch and
/// keyboard.
///
/// Features are kept projected on their first principal components, in 16 bits, so that the page can compute the similarity to any
/// anchor; it shows the largest error of the projection over the five anchors of the paper.
#[derive(Debug)]
pub struct Page {
    title: String,
    caption: String,
    grid: ShiftGrid,
    placer: Placer,
    config: PageConfig,
    classes: Vec<String>,
    objects: Vec<Value>,
    layers: Vec<String>,
    models: Vec<Value>,
}

/// What a page may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageConfig {
    /// Principal components kept, at most; 2.7 bytes of page a component, position, layer, object and model. Default 16.
    pub components: i64,
}

impl Default for PageConfig {
    fn default() -> Self {
        Self { components: 16 }
    }
}

const TEMPLATE: &str = include_str!("template.html");

impl Page {
    /// A page without objects and models. `classes` names predictions; those without a name are shown as numbers.
    ///
    /// # Errors
    /// Fewer than one component; a grid at fractions of a pixel or a motion other than [`Motion::Paste`], which the page cannot
    /// show.
    pub fn new(
        title: &str,
        caption: &str,
        grid: ShiftGrid,
        placer: Placer,
        classes: &[String],
        config: PageConfig,
    ) -> Result<Self> {
        if config.components < 1 {
            return Err(Error::setting("components", "at least 1", config.components));
        }
        if grid.subdivisions() > 1 {
            return Err(Error::setting("subdivisions", "1 on a page", grid.subdivisions()));
        }
        if placer.motion != Motion::Paste {
            return Err(Error::setting("motion", "Paste on a page", format!("{:?}", placer.motion)));
        }
        Ok(Self {
            title: title.into(),
            caption: caption.into(),
            grid,
            placer,
            config,
            classes: classes.to_vec(),
            objects: Vec::new(),
            layers: Vec::new(),
            models: Vec::new(),
        })
    }

    /// Adds an object, as [`Placer`] shows it.
    ///
    /// # Errors
    /// Another size than the grid's objects, or neither one nor three channels; an object after the first model.
    pub fn object(&mut self, name: &str, object: &Sprite) -> Result<&mut Self> {
        if !self.models.is_empty() {
            return Err(Error::setting("objects", "all before the first model", "one after it"));
        }
        self.placer.check(object, &self.grid)?;
        let picture = picture(object)?;
        self.objects.push(json!({"name": name, "picture": picture}));
        Ok(self)
    }

    /// Adds a model: its maps of each object in their order, and a word on it, such as its accuracy. All models have the same
    /// layers.
    ///
    /// # Errors
    /// Another number of maps than objects, other layers than the first model's, maps of another grid, another measure than
    /// [`Similarity::Cosine`], which is what the page computes, features of norm 0, a feature of which the components
    /// kept hold nothing, a predicted class above 32767.
    pub fn model(&mut self, name: &str, note: &str, maps: &[&ShiftMaps]) -> Result<&mut Self> {
        if maps.len() != self.objects.len() || maps.is_empty() {
            let expected = format!("{} maps, one an object, at least one", self.objects.len());
            return Err(Error::shape(format!("model `{name}`"), expected, format!("{} maps", maps.len())));
        }
        let mut entries = Vec::new();
        let mut known = self.layers.clone();
        for map in maps {
            let layers: Vec<String> = map.layers().map(str::to_owned).collect();
            if known.is_empty() {
                known.clone_from(&layers);
            }
            if layers != known || layers.is_empty() {
                let (expected, found) = (format!("layers {known:?}"), format!("{layers:?}"));
                return Err(Error::shape(format!("model `{name}`"), expected, found));
            }
            if map.grid() != &self.grid {
                let size = |grid: &ShiftGrid| format!("{} × {} positions", grid.rows(), grid.columns());
                return Err(Error::shape(format!("model `{name}`"), size(&self.grid), size(map.grid())));
            }
            if map.measure() != Similarity::Cosine {
                return Err(Error::setting("similarity", "Cosine on a page", format!("{:?}", map.measure())));
            }
            entries.push(self.entry(map, &known)?);
        }
        self.layers = known;
        self.models.push(json!({"name": name, "note": note, "maps": entries}));
        Ok(self)
    }

    /// The page.
    ///
    /// # Errors
    /// A page without any model.
    pub fn html(&self) -> Result<String> {
        if self.models.is_empty() {
            return Err(Error::setting("models", "at least one", 0));
        }
        let start = self.grid.position(self.grid.index(Anchor::Centre)?);
        let data = json!({
            "title": self.title, "caption": self.caption, "rows": self.grid.rows(), "columns": self.grid.columns(),
            "step": self.grid.stride(), "offset": self.grid.offset(0), "canvas": self.grid.canvas(),
            "object": self.grid.object(), "start": start, "background": colour(&self.placer.background),
            "classes": self.classes, "objects": self.objects, "layers": self.layers, "models": self.models,
        });
        // Nothing in the data may end the script element that holds it.
        Ok(TEMPLATE.replace("@DATA@", &data.to_string().replace('<', "\\u003c")))
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// As [`html`](Self::html), and a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.html()?).map_err(|source| Error::Write { path: path.into(), source })
    }

    fn entry(&self, maps: &ShiftMaps, known: &[String]) -> Result<Value> {
        let mut layers = serde_json::Map::new();
        for layer in known {
            layers.insert(layer.clone(), self.projected(maps, layer)?);
        }
        let mut entry = json!({"layers": layers});
        if let Some(found) = maps.predictions() {
            let narrowed = |class: &i64| {
                let beyond = |_| Error::setting("class", format!("at most {} on a page", i16::MAX), class);
                i16::try_from(*class).map_err(beyond)
            };
            let classes: Vec<i16> = found.classes.iter().map(narrowed).collect::<Result<_>>()?;
            let classes: Vec<u8> = classes.into_iter().flat_map(i16::to_le_bytes).collect();
            let largest = |row: &[f32]| (255.0 * row.iter().copied().fold(0.0, f32::max)).round() as u8;
            let probability: Vec<u8> = found.probabilities.chunks_exact(found.class_count).map(largest).collect();
            entry["classes"] = STANDARD.encode(classes).into();
            entry["probability"] = STANDARD.encode(probability).into();
        }
        Ok(entry)
    }

    /// Unit vectors on their principal components: `X ≈ Y Vᵀ` with Y as small as asked for, so that `X Xᵀ ≈ Y Yᵀ`.
    fn projected(&self, maps: &ShiftMaps, layer: &str) -> Result<Value> {
        // Refuses features without a direction, by position.
        let exact: Vec<_> = Anchor::FIVE.iter().map(|anchor| maps.similarity(layer, *anchor)).collect::<Result<_>>()?;
        let features = maps.features(layer)?.f_to_kind(Kind::Double)?;
        let norms = features.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?;
        let unit = features / norms;
        let [positions, length] = [unit.size()[0], unit.size()[1]];
        let kept = self.config.components.min(length).min(positions);
        let projected = if length <= positions {
            let (_, vectors) = unit.f_transpose(0, 1)?.f_matmul(&unit)?.f_linalg_eigh("L")?;
            unit.f_matmul(&vectors.f_narrow(1, length - kept, kept)?)?
        } else {
            let (values, vectors) = unit.f_matmul(&unit.f_transpose(0, 1)?)?.f_linalg_eigh("L")?;
            let first = positions - kept;
            vectors.f_narrow(1, first, kept)? * values.f_narrow(0, first, kept)?.f_clamp_min(0.0)?.f_sqrt()?
        };
        let largest = projected.f_abs()?.f_max()?.double_value(&[]);
        let rounded = (projected * (32767.0 / largest)).f_round()?;
        let held = doubles(&rounded.f_abs()?.f_amax([1_i64], false)?)?;
        if let Some(index) = held.iter().position(|largest| *largest == 0.0) {
            let position = self.grid.position(index);
            let expected = format!("more: they hold nothing of layer `{layer}` at position {position:?}");
            return Err(Error::setting("components", expected, kept));
        }
        let mut error = 0.0_f64;
        for (map, anchor) in exact.iter().zip(Anchor::FIVE) {
            let reference = rounded.f_narrow(0, self.grid.index(anchor)? as i64, 1)?;
            let position = |index: usize| self.grid.position(index);
            let shown = Similarity::Cosine.to_anchors(layer, &rounded, &reference, &position)?.swap_remove(0);
            let gap = shown.iter().zip(&map.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            error = error.max(gap);
        }
        let bytes: Vec<u8> =
            doubles(&rounded.f_reshape([-1])?)?.into_iter().flat_map(|value| (value as i16).to_le_bytes()).collect();
        Ok(json!({"components": kept, "error": error, "data": STANDARD.encode(bytes)}))
    }
}

/// A data URL of the object with its transparency.
fn picture(object: &Sprite) -> Result<String> {
    let (picture, [height, width]) = (object.picture(), object.picture().size());
    let channels = picture.channels();
    if channels != 1 && channels != 3 {
        return Err(Error::shape("object on a page", "1 or 3 channels", channels.to_string()));
    }
    let byte = |value: f32| (255.0 * value.clamp(0.0, 1.0)).round() as u8;
    let image = RgbaImage::from_fn(width as u32, height as u32, |column, row| {
        let place = row as usize * width + column as usize;
        let value = |channel: usize| byte(picture.values()[(channel % channels) * height * width + place]);
        Rgba([value(0), value(1), value(2), byte(object.alpha()[place])])
    });
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner())))
}

/// The background as a CSS colour: its mean where it is a picture.
fn colour(background: &Background) -> String {
    let values: Vec<f32> = match background {
        Background::Colour(values) => values.clone(),
        Background::Picture(picture) => {
            let plane = picture.size()[0] * picture.size()[1];
            picture.values().chunks_exact(plane).map(|plane| plane.iter().sum::<f32>() / plane.len() as f32).collect()
        }
    };
    let byte = |channel: usize| {
        let value = if values.is_empty() { 0.0 } else { values[channel % values.len()] };
        (255.0 * value.clamp(0.0, 1.0)).round() as u8
    };
    format!("rgb({}, {}, {})", byte(0), byte(1), byte(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariance::{Picture, ShiftStudy};
    use indexmap::IndexMap;
    use tch::Tensor;

    fn study() -> ShiftStudy {
        let grid = ShiftGrid::new([9, 8], [3, 3], 1).unwrap();
        ShiftStudy::new(grid, Placer::on_colour(vec![0.25])).classified_by("rows")
    }

    fn sums(images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let sum = |axis: i64| images.sum_dim_intlist([1, axis].as_slice(), false, Kind::Float);
        Ok(vec![("rows".into(), sum(3)), ("columns".into(), sum(2))])
    }

    fn object() -> Sprite {
        Sprite::opaque(Picture::new(1, [3, 3], (1..=9).map(|value| value as f32 / 9.0).collect()).unwrap())
    }

    fn page(components: i64) -> Page {
        let study = study();
        let title = "A </script> in a title";
        let config = PageConfig { components };
        Page::new(title, "c", study.grid, study.placer.clone(), &["first".to_owned()], config).unwrap()
    }

    fn data(page: &Page) -> Value {
        let html = page.html().unwrap();
        let start = html.find(r#"id="data">"#).unwrap() + 10;
        let end = start + html[start..].find("</script>").unwrap();
        serde_json::from_str(&html[start..end]).unwrap()
    }

    #[test]
    fn the_page_holds_what_reconstructs_every_map() {
        let maps = study().run(&sums, &object()).unwrap();
        let mut page = page(16);
        page.object("ramp", &object()).unwrap().model("sums", "exact", &[&maps]).unwrap();
        let data = data(&page);
        assert_eq!(data["title"], "A </script> in a title");
        assert_eq!((&data["rows"], &data["columns"], &data["step"]), (&json!(7), &json!(6), &json!(1)));
        assert_eq!((&data["offset"], &data["start"]), (&json!([0, 0]), &json!([2, 2])));
        assert_eq!(data["background"], "rgb(64, 64, 64)");
        for layer in ["rows", "columns"] {
            // All components are there, so that only 16 bits are left: 1 / 32767 of unit vectors of a few components.
            let error = data["models"][0]["maps"][0]["layers"][layer]["error"].as_f64().unwrap();
            assert!(error < 1e-4, "{layer}: {error}");
        }
        let classes = data["models"][0]["maps"][0]["classes"].as_str().unwrap();
        assert_eq!(STANDARD.decode(classes).unwrap().len(), 2 * 42);
    }

    #[test]
    fn fewer_components_have_an_error_that_is_told() {
        let maps = study().run(&sums, &object()).unwrap();
        let mut page = page(1);
        page.object("ramp", &object()).unwrap().model("sums", "", &[&maps]).unwrap();
        let error = data(&page)["models"][0]["maps"][0]["layers"]["rows"]["error"].as_f64().unwrap();
        // One component makes all vectors parallel: what is missing is the largest drop of a map.
        let drop = |anchor| maps.similarity("rows", anchor).unwrap().values.iter().copied().fold(1.0, f64::min);
        let expected = Anchor::FIVE.map(|anchor| 1.0 - drop(anchor)).into_iter().fold(0.0, f64::max);
        assert!((error - expected).abs() < 1e-3, "{error} {expected}");
    }

    #[test]
    fn components_that_hold_nothing_of_a_feature_are_too_few() {
        // The first row shows one thing, the other six another, at right angles to it: that is the first component.
        let grid = study().grid;
        let shown = |index: usize| if grid.position(index)[0] == 0 { [1.0_f32, 0.0] } else { [0.0, 1.0] };
        let features: Vec<f32> = (0..grid.len()).flat_map(shown).collect();
        let features = Tensor::from_slice(&features).view([-1, 2]);
        let features = IndexMap::from([("rows".to_owned(), features)]);
        let maps = ShiftMaps::new(grid, features, Similarity::Cosine, None).unwrap();
        let mut few = page(1);
        let error = few.object("ramp", &object()).unwrap().model("two", "", &[&maps]).unwrap_err().to_string();
        let expected = "more: they hold nothing of layer `rows` at position [0, 0]";
        assert_eq!(error, format!("components is 1, expected {expected}"));
        let mut enough = page(2);
        enough.object("ramp", &object()).unwrap().model("two", "", &[&maps]).unwrap();
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let maps = study().run(&sums, &object()).unwrap();
        let mut page = page(4);
        assert!(page.html().unwrap_err().to_string().contains("models"));
        assert!(page.model("early", "", &[&maps]).unwrap_err().to_string().contains("one an object"));
        page.object("ramp", &object()).unwrap();
        let small = ShiftStudy { grid: ShiftGrid::new([9, 8], [3, 3], 2).unwrap(), ..study() };
        let other = small.run(&sums, &object()).unwrap();
        assert!(page.model("other grid", "", &[&other]).unwrap_err().to_string().contains("positions"));
        // Refused for its grid: its layers are not those of the page.
        let rows = |images: &Tensor| Ok(sums(images)?.into_iter().take(1).collect());
        let narrow = small.run(&rows, &object()).unwrap();
        assert!(page.model("one layer", "", &[&narrow]).unwrap_err().to_string().contains("positions"));
        let euclidean = ShiftStudy { similarity: Similarity::Euclidean, ..study() }.run(&sums, &object()).unwrap();
        let error = page.model("distances", "", &[&euclidean]).unwrap_err();
        assert_eq!(error.to_string(), "similarity is Euclidean, expected Cosine on a page");
        page.model("sums", "", &[&maps]).unwrap();
        let fewer = study().run(&rows, &object()).unwrap();
        assert!(page.model("fewer layers", "", &[&fewer]).unwrap_err().to_string().contains("columns"));
        assert!(page.object("late", &object()).is_err());
        let study = study();
        let config = PageConfig { components: 0 };
        assert!(Page::new("", "", study.grid, study.placer, &[], config).is_err());
        assert!(page.write(Path::new("/no/such/folder/page.html")).is_err());
    }

    /// Always the last of so many classes.
    fn last_of(classes: i64) -> impl Fn(&Tensor) -> Result<Vec<(String, Tensor)>> {
        move |images| {
            let logits = Tensor::zeros([images.size()[0], classes], (Kind::Float, tch::Device::Cpu));
            let _ = logits.narrow(1, classes - 1, 1).fill_(1.0);
            Ok(vec![("rows".to_owned(), logits)])
        }
    }

    #[test]
    fn classes_beyond_sixteen_bits_are_refused() {
        let mut page = page(1);
        page.object("ramp", &object()).unwrap();
        let maps = study().run(&last_of(32769), &object()).unwrap();
        let error = page.model("one too many", "", &[&maps]).unwrap_err();
        assert_eq!(error.to_string(), "class is 32768, expected at most 32767 on a page");
        let maps = study().run(&last_of(32768), &object()).unwrap();
        page.model("just enough", "", &[&maps]).unwrap();
        let classes = data(&page)["models"][0]["maps"][0]["classes"].clone();
        let bytes = STANDARD.decode(classes.as_str().unwrap()).unwrap();
        assert_eq!(bytes, i16::MAX.to_le_bytes().repeat(42));
    }

    #[test]
    fn a_part_of_a_grid_begins_where_the_part_does() {
        let grid = ShiftGrid::new([19, 20], [3, 3], 2).unwrap().window([3, 1], [4, 5]).unwrap();
        let study = ShiftStudy { grid, ..study() };
        let maps = study.run(&sums, &object()).unwrap();
        let mut page = Page::new("", "", grid, study.placer, &[], PageConfig::default()).unwrap();
        page.object("ramp", &object()).unwrap().model("sums", "", &[&maps]).unwrap();
        let data = data(&page);
        assert_eq!((&data["rows"], &data["columns"], &data["step"]), (&json!(4), &json!(5), &json!(2)));
        // Pixels, as the object's place on the canvas is offset + step · position.
        assert_eq!(data["offset"], json!([6, 2]));
    }

    #[test]
    fn the_template_names_nothing_outside_itself() {
        for outside in ["http:", "https:", "<link", "@import", "url(", "src=\""] {
            assert!(!TEMPLATE.contains(outside), "{outside}");
        }
    }
}
