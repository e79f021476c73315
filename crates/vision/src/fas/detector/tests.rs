use super::*;
use crate::fas::metrics::Scored;
use crate::fas::model::{Attention, FasData};
use core_tensor::nn::{Conv2dConfig, LayerFactory, Module};

fn config() -> DetectorConfig {
    DetectorConfig {
        network: ProxyConfig { features: 4, attention: Attention::LogitNormal, ..ProxyConfig::default() },
        width: 2,
        context: false,
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
fn a_detector_that_sees_the_whole_picture_survives_its_file() {
    let detector = Detector::new(DetectorConfig { context: true, ..config() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("detector.safetensors");
    detector.save(&path).unwrap();
    let back = Detector::load(&path).unwrap();
    assert!(back.store().variables().contains_key("backbone.context.block2.conv.weight"));
    let scores = [&detector, &back].map(|one| one.assess(&picture(), None).unwrap().score);
    assert_eq!(scores[0], scores[1]);
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
fn a_file_that_says_nothing_of_uncertainty_and_context_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("detector.safetensors");
    let detector = Detector::new(config()).unwrap();
    let mut header = serde_json::to_value(config()).unwrap();
    for unsaid in ["most_uncertainty", "context"] {
        assert!(header.as_object_mut().unwrap().remove(unsaid).is_some());
    }
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
