//! The page of `vision::invariance` in a real browser: dragged by mouse and finger, moved by keys, asked for its numbers. Without
//! Chromium it says so and passes.

#[path = "support/browser.rs"]
mod browser;

use browser::Browser;
use indexmap::IndexMap;
use serde_json::{Value, json};
use std::path::Path;
use tch::Tensor;
use vision::invariance::{
    Anchor, Page, PageConfig, Picture, Placer, ShiftGrid, ShiftMaps, ShiftStudy, Similarity, Sprite,
};

impl Browser {
    fn open(&mut self, path: &Path, fragment: &str) {
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.call("Page.navigate", json!({"url": format!("file://{}{fragment}", path.display())}));
        self.settle();
    }

    /// Waits until the page has drawn what it was last told.
    fn settle(&mut self) {
        let drawn = "new Promise(done => { const look = () => document.body && document.body.dataset.ready === 'yes' ? \
             requestAnimationFrame(() => requestAnimationFrame(() => done(true))) : setTimeout(look, 5); look(); })";
        assert_eq!(self.value(drawn), true);
    }

    /// A place within an element, 0 to 1, in pixels of the window.
    fn place(&mut self, selector: &str, x: f64, y: f64) -> [f64; 2] {
        let expression = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
             const b = e.getBoundingClientRect(); return [b.left + {x} * b.width, b.top + {y} * b.height]; }})()"
        );
        let found = self.value(&expression);
        [0, 1].map(|axis| found[axis].as_f64().unwrap())
    }

    fn mouse(&mut self, kind: &str, [x, y]: [f64; 2]) {
        let buttons = u8::from(kind != "mouseReleased");
        let parameters = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", parameters);
    }

    fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }

    fn choose(&mut self, menu: &str, value: &str) {
        self.value(&format!(
            "(() => {{ const e = document.getElementById({menu:?}); e.value = {value:?}; \
             e.dispatchEvent(new Event('change')); }})()"
        ));
        self.settle();
    }

    fn position(&mut self) -> Value {
        self.settle();
        self.value("[document.body.dataset.row, document.body.dataset.column].map(Number)")
    }

    /// The similarity that a model's panel shows.
    fn shown(&mut self, model: usize) -> f64 {
        let expression = format!("Number(document.querySelectorAll('canvas.map')[{model}].dataset.value)");
        self.value(&expression).as_f64().unwrap()
    }
}

fn object(side: usize) -> Sprite {
    let values = (1..=side * side).map(|value| (value % 17) as f32 / 17.0).collect();
    Sprite::opaque(Picture::new(1, [side, side], values).unwrap())
}

/// Features of a made-up model: waves of the position.
fn waves(grid: ShiftGrid, layers: usize, length: i64, pace: f64) -> ShiftMaps {
    let features = (0..layers).map(|layer| {
        let positions = (0..grid.len()).flat_map(|index| {
            let [row, column] = grid.position(index).map(|at| at as f64);
            (0..length).map(move |place| {
                let turn = pace * (1.0 + layer as f64) * (row * ((place % 7) as f64) + column * ((place % 5) as f64));
                (2.0 + (turn / 40.0 + place as f64).sin()) as f32
            })
        });
        let values: Vec<f32> = positions.collect();
        (format!("layer{}", layer + 1), Tensor::from_slice(&values).view([grid.len() as i64, length]))
    });
    ShiftMaps::new(grid, features.collect(), Similarity::Cosine, Some("layer1")).unwrap()
}

#[test]
fn the_object_follows_mouse_finger_and_keys_and_the_numbers_are_those_of_the_maps() {
    let Some(mut browser) = Browser::start() else { return };
    let study = ShiftStudy::new(ShiftGrid::new([40, 40], [20, 20], 1).unwrap(), Placer::on_colour(vec![0.0]));
    let maps: Vec<ShiftMaps> = [0.2, 0.6].map(|pace| waves(study.grid, 2, 12, pace)).into();
    let mut page = Page::new("t", "c", study.grid, study.placer, &[], PageConfig::default()).unwrap();
    page.object("first", &object(20)).unwrap().object("second", &object(20)).unwrap();
    page.model("slow", "", &[&maps[0], &maps[1]]).unwrap().model("fast", "", &[&maps[1], &maps[0]]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    page.write(&path).unwrap();

    browser.open(&path, "");
    assert_eq!(browser.position(), json!([9, 9]), "starts at the published centre");
    assert_eq!(browser.value("document.getElementById('error').textContent"), "");

    // Dragged by its middle, a quarter of the frame down and an eighth to the left: 10 and 5 of 40 pixels.
    let [x, y] = browser.place("#scene", 19.0 / 40.0, 19.0 / 40.0);
    let side = browser.value("document.getElementById('scene').getBoundingClientRect().width").as_f64().unwrap();
    browser.mouse("mousePressed", [x, y]);
    for share in [0.3, 0.7, 1.0] {
        browser.mouse("mouseMoved", [x - side * share / 8.0, y + side * share / 4.0]);
    }
    assert_eq!(browser.position(), json!([19, 4]), "follows the mouse");
    browser.mouse("mouseReleased", [x - side / 8.0, y + side / 4.0]);
    browser.mouse("mouseMoved", [x, y]);
    assert_eq!(browser.position(), json!([19, 4]), "stays when let go");

    // The number shown is the similarity of the anchor and this place; all 12 components are kept, in 16 bits.
    let exact = |maps: &ShiftMaps, layer: &str, anchor: [usize; 2], at: [usize; 2]| {
        maps.similarity(layer, Anchor::At(anchor)).unwrap().at(at[0], at[1])
    };
    for (model, maps) in maps.iter().enumerate() {
        let gap = browser.shown(model) - exact(maps, "layer1", [9, 9], [19, 4]);
        assert!(gap.abs() < 1e-3, "{gap}");
    }

    // Beyond the frame it stops at the edge.
    let [x, y] = browser.place("#scene", 14.0 / 40.0, 29.0 / 40.0);
    browser.mouse("mousePressed", [x, y]);
    browser.mouse("mouseMoved", [x - side, y - side]);
    browser.mouse("mouseReleased", [x - side, y - side]);
    assert_eq!(browser.position(), json!([0, 0]));

    for key in ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"] {
        browser.key(key);
    }
    assert_eq!(browser.position(), json!([1, 1]));
    browser.key("a");
    browser.settle();
    assert_eq!(browser.value("document.body.dataset.anchor"), "1,1");
    assert!((browser.shown(0) - 1.0).abs() < 1e-9, "the anchor is like itself");

    // A finger on a map goes where it points.
    let [x, y] = browser.place("canvas.map", 12.5 / 21.0, 7.5 / 21.0);
    browser.call("Input.dispatchTouchEvent", json!({"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}));
    browser.call("Input.dispatchTouchEvent", json!({"type": "touchEnd", "touchPoints": []}));
    assert_eq!(browser.position(), json!([7, 12]));
    let gap = browser.shown(1) - exact(&maps[1], "layer1", [1, 1], [7, 12]);
    assert!(gap.abs() < 1e-3, "{gap}");

    browser.choose("layer", "layer2");
    browser.choose("object", "1");
    let gap = browser.shown(0) - exact(&maps[1], "layer2", [1, 1], [7, 12]);
    assert!(gap.abs() < 1e-3, "{gap}");

    // Beside the objects their mean: of similarities, and of whether the class is that at the anchor.
    browser.choose("object", "2");
    let mean = maps.iter().map(|maps| exact(maps, "layer2", [1, 1], [7, 12])).sum::<f64>() / 2.0;
    assert!((browser.shown(0) - mean).abs() < 1e-3 && (browser.shown(1) - mean).abs() < 1e-3, "{mean}");
    let alike = maps.iter().filter(|maps| {
        let at = |position| maps.predictions().unwrap().classes[study.grid.index(Anchor::At(position)).unwrap()];
        at([7, 12]) == at([1, 1])
    });
    let share = 50 * alike.count();
    let rows = browser.value("document.querySelector('table').innerText");
    let rows = rows.as_str().unwrap();
    assert!(rows.contains(&format!("class as at the anchor\t{share} %")), "{share} % in {rows:?}");
    browser.choose("view", "prediction");
    assert_eq!(browser.value("document.getElementById('error').textContent"), "");
    // The darkest colour of the legend is there, as it is not where classes have colours of their own.
    let darkest = "document.getElementById('legend').getContext('2d').getImageData(0, 0, 1, 1).data[3]";
    assert_eq!(browser.value(darkest), 255);
    browser.choose("object", "0");
    assert_eq!(browser.value(darkest), 0);
    browser.choose("object", "2");
    browser.choose("view", "similarity");
    let fragment = browser.value("location.hash");
    browser.open(&path, fragment.as_str().unwrap());
    assert_eq!(browser.value("document.getElementById('object').selectedOptions[0].text"), "mean of all");
    browser.choose("object", "1");

    // The address holds the state: opened again, it is the same page.
    let fragment = browser.value("location.hash");
    browser.open(&path, fragment.as_str().unwrap());
    assert_eq!(browser.position(), json!([7, 12]));
    assert_eq!(browser.value("document.body.dataset.layer + document.body.dataset.anchor"), "layer21,1");
    // A nonsensical one does no harm.
    browser.open(&path, "#row=-4&column=900&layer=x&object=7&floor=high");
    assert_eq!(browser.position(), json!([9, 9]));
    for view in ["difference", "prediction"] {
        browser.choose("view", view);
        assert_eq!(browser.value("document.getElementById('error').textContent"), "", "{view}");
    }
}

#[test]
fn the_mean_of_objects_is_one_of_their_pictures_too_and_models_without_classes_show_none() {
    let Some(mut browser) = Browser::start() else { return };
    let study = ShiftStudy::new(ShiftGrid::new([40, 40], [20, 20], 1).unwrap(), Placer::on_colour(vec![0.0]));
    let maps = waves(study.grid, 1, 12, 0.2);
    let without = IndexMap::from([("layer1".to_owned(), maps.features("layer1").unwrap().shallow_clone())]);
    let without = ShiftMaps::new(study.grid, without, Similarity::Cosine, None).unwrap();
    // White, but for the right half of one and the left half of the other, which one sees through.
    let half = |left: f32| {
        let alpha = (0..400).map(|at| if at % 20 < 10 { left } else { 1.0 - left }).collect();
        Sprite::new(Picture::new(1, [20, 20], vec![1.0; 400]).unwrap(), alpha).unwrap()
    };
    let mut page = Page::new("t", "c", study.grid, study.placer, &[], PageConfig::default()).unwrap();
    page.object("left", &half(1.0)).unwrap().object("right", &half(0.0)).unwrap();
    page.model("silent", "", &[&without, &without]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    page.write(&path).unwrap();
    browser.open(&path, "#object=2");
    let grey = |browser: &mut Browser, column: usize| {
        let scale = "const scene = document.getElementById('scene'), side = scene.width / 40;";
        let pixel =
            format!("[...scene.getContext('2d').getImageData(Math.round(side * {column}), side * 19, 1, 1).data][0]");
        browser.value(&format!("(() => {{ {scale} return {pixel}; }})()")).as_f64().unwrap()
    };
    // Columns 9 to 28 hold the objects: half of white on either side.
    for column in [12, 25] {
        let found = grey(&mut browser, column);
        assert!((found - 127.5).abs() < 2.0, "{found} in column {column}");
    }
    browser.choose("object", "0");
    assert_eq!([12, 25].map(|column| grey(&mut browser, column)), [255.0, 0.0]);
    for object in ["0", "2"] {
        browser.choose("object", object);
        browser.choose("view", "prediction");
        let drawn = "document.querySelector('canvas.map').getContext('2d').getImageData(3, 3, 1, 1).data[3] + \
                     document.getElementById('legend').getContext('2d').getImageData(0, 0, 1, 1).data[3]";
        assert_eq!(browser.value(drawn), 0, "nothing is drawn of what the model does not say");
        browser.choose("view", "similarity");
    }
}

#[test]
fn four_models_of_five_layers_on_64_by_64_positions_stay_small_and_quick() {
    let grid = ShiftGrid::new([96, 96], [33, 33], 1).unwrap();
    assert_eq!(grid.len(), 64 * 64);
    let mut page = Page::new("large", "", grid, Placer::on_colour(vec![0.0]), &[], PageConfig::default()).unwrap();
    page.object("object", &object(33)).unwrap();
    for model in 0..4 {
        let maps = waves(grid, 5, 24, 0.1 + 0.2 * f64::from(model));
        page.model(&format!("model {model}"), "", &[&maps]).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    page.write(&path).unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes <= 5_000_000, "{bytes} bytes");

    let Some(mut browser) = Browser::start() else { return };
    // The best of three: other work on the machine delays a paint, and nothing hurries it.
    let mut paints = Vec::new();
    for _ in 0..3 {
        browser.open(&path, "");
        let paint = "(performance.getEntriesByName('first-contentful-paint')[0] || {startTime: -1}).startTime";
        paints.push(browser.value(paint).as_f64().unwrap());
    }
    eprintln!("{bytes} bytes, first contentful paint after {paints:.0?} ms");
    assert!(paints.iter().any(|paint| (0.0..=1000.0).contains(paint)), "{paints:?} ms");
}
