use super::*;
use crate::invariance::Picture;

fn object() -> Sprite {
    Sprite::opaque(Picture::new(1, [2, 3], (1..=6).map(|value| value as f32).collect()).unwrap())
}

fn study() -> ShiftStudy {
    let grid = ShiftGrid::new([7, 8], [2, 3], 1).unwrap();
    ShiftStudy { batch: 5, ..ShiftStudy::new(grid, Placer::on_colour(vec![0.5])) }
}

/// Sums over rows and over columns: two layers that see where the object is.
fn sums(images: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let sum = |axis: i64| images.sum_dim_intlist([1, axis].as_slice(), false, Kind::Float);
    Ok(vec![("rows".into(), sum(3)), ("columns".into(), sum(2))])
}

#[test]
fn zero_shift_is_one_and_the_map_is_symmetric_in_its_anchor() {
    let maps = study().run(&sums, &object()).unwrap();
    let (a, b) = ([1, 2], [4, 0]);
    let from_a = maps.similarity("columns", Anchor::At(a)).unwrap();
    let from_b = maps.similarity("columns", Anchor::At(b)).unwrap();
    // 64-bit sums of eight products.
    assert!((from_a.at(a[0], a[1]) - 1.0).abs() < 1e-12);
    assert!((from_a.at(b[0], b[1]) - from_b.at(a[0], a[1])).abs() < 1e-12);
    // Columns do not see rows.
    assert!((from_a.at(5, 2) - 1.0).abs() < 1e-12 && from_a.at(1, 0) < 0.999);
}

#[test]
fn streaming_gives_what_keeping_gives() {
    let study = study();
    let maps = study.run(&sums, &object()).unwrap();
    let streamed = study.stream(&sums, &object(), &Anchor::FIVE).unwrap();
    for (layer, list) in &streamed {
        for (map, anchor) in list.iter().zip(Anchor::FIVE) {
            assert_eq!(*map, maps.similarity(layer, anchor).unwrap());
        }
    }
    let mut means = MeanMaps::new();
    means.add(&streamed, &Anchor::FIVE).unwrap();
    means.add(&streamed, &Anchor::FIVE).unwrap();
    assert!(means.add(&streamed, &Anchor::FIVE[..4]).unwrap_err().to_string().contains("one an anchor"));
    let means = means.finish();
    assert_eq!(means.len(), 10);
    assert_eq!(means[2].map.values, streamed["rows"][2].values);
    let (mean, deviation) = means[2].mean_similarity();
    assert!((mean - streamed["rows"][2].mean()).abs() < 1e-12 && deviation < 1e-12);
}

#[test]
fn an_object_whose_maps_do_not_fit_leaves_the_means_as_they_were() {
    let map = |size: [usize; 2]| SimilarityMap::new(size, [0, 0], vec![1.0; size[0] * size[1]]).unwrap();
    let maps = |second: [usize; 2]| {
        IndexMap::from([("first".to_owned(), vec![map([2, 2])]), ("second".to_owned(), vec![map(second)])])
    };
    let mut means = MeanMaps::new();
    means.add(&maps([2, 2]), &[Anchor::TopLeft]).unwrap();
    let error = means.add(&maps([2, 3]), &[Anchor::TopLeft]).unwrap_err().to_string();
    assert_eq!(error, "map of layer `second`: expected [2, 2], found [2, 3]");
    assert!(means.finish().iter().all(|mean| mean.global_drops.len() == 1));
}

#[test]
fn batches_do_not_change_a_map() {
    let one = ShiftStudy { batch: 1, ..study() }.run(&sums, &object()).unwrap();
    let many = ShiftStudy { batch: 1000, ..study() }.run(&sums, &object()).unwrap();
    assert_eq!(one.features("rows").unwrap(), many.features("rows").unwrap());
    assert!(ShiftStudy { batch: 0, ..study() }.run(&sums, &object()).is_err());
}

#[test]
fn no_graph_is_kept() {
    let weight = Tensor::ones([1], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let learned = |images: &Tensor| Ok(vec![("f".to_owned(), images.flatten(1, -1) * &weight)]);
    let maps = study().run(&learned, &object()).unwrap();
    assert!(!maps.features("f").unwrap().requires_grad());
    let mut graphs = 0;
    let count = |_, features: Vec<(String, Tensor)>| {
        graphs += usize::from(features[0].1.requires_grad());
        Ok(())
    };
    study().visit(&learned, &object(), count).unwrap();
    assert_eq!(graphs, 0);
    let elsewhere = maps.features("f").unwrap() * &weight;
    assert!(elsewhere.requires_grad());
    let features = IndexMap::from([("f".to_owned(), elsewhere)]);
    let maps = ShiftMaps::new(study().grid, features, Similarity::Cosine, None).unwrap();
    assert!(!maps.features("f").unwrap().requires_grad());
}

#[test]
fn a_constant_classifier_never_changes_its_mind() {
    let constant = |images: &Tensor| {
        let batch = images.size()[0];
        Ok(vec![("logits".to_owned(), Tensor::from_slice(&[0_f32, 2., 1.]).repeat([batch, 1]))])
    };
    let maps = study().classified_by("logits").run(&constant, &object()).unwrap();
    let changes = maps.one_step_changes(1).unwrap();
    assert_eq!((changes.top1_change, changes.mean_absolute_change), (0.0, 0.0));
    assert_eq!(maps.flips_along_rows().unwrap(), 0.0);
    assert_eq!(maps.predictions().unwrap().accuracy(1), 1.0);
    assert_eq!(maps.agreement(Anchor::Centre).unwrap().mean(), 1.0);
    assert!(maps.one_step_changes(3).unwrap_err().to_string().starts_with("class"));
}

#[test]
fn features_without_direction_or_number_name_layer_and_position() {
    let dark = |images: &Tensor| Ok(vec![("dark".to_owned(), images.flatten(1, -1) * 0.0)]);
    let maps = study().run(&dark, &object()).unwrap();
    let error = maps.similarity("dark", Anchor::TopLeft).unwrap_err();
    assert!(matches!(error, Error::ZeroNorm { ref layer, position: [0, 0] } if layer == "dark"), "{error}");
    assert!(matches!(study().stream(&dark, &object(), &[Anchor::Centre]), Err(Error::ZeroNorm { .. })));
    // NaN at the seventh position only: row 1, column 0 of six.
    let broken = std::cell::Cell::new(0);
    let nan = |images: &Tensor| {
        let flat = images.flatten(1, -1);
        let start = broken.replace(broken.get() + images.size()[0]);
        if (start..start + images.size()[0]).contains(&6) {
            let _ = flat.get(6 - start).fill_(f64::NAN);
        }
        Ok(vec![("f".to_owned(), flat)])
    };
    let error = study().run(&nan, &object()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { position: [1, 0], .. }), "{error}");
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let maps = study().run(&sums, &object()).unwrap();
    let error = maps.similarity("fc", Anchor::Centre).unwrap_err().to_string();
    assert_eq!(error, r#"no layer `fc`; the layers are ["rows", "columns"]"#);
    assert!(maps.agreement(Anchor::Centre).unwrap_err().to_string().contains("classifier"));
    let flat = |images: &Tensor| Ok(vec![("f".to_owned(), images.shallow_clone())]);
    assert!(study().run(&flat, &object()).unwrap_err().to_string().contains("features of layer `f`"));
    let error = study().classified_by("fc").run(&sums, &object()).unwrap_err();
    assert!(matches!(error, Error::UnknownLayer { .. }));
    assert!(study().stream(&sums, &object(), &[Anchor::At([9, 9])]).is_err());
    assert!(study().stream(&sums, &object(), &[]).is_err());
}
