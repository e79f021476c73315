//! Average precision of detections, as COCO's evaluation counts it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What is in an image: a class and a box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its class, from 0.
    pub class: usize,
    /// `[left, top, right, bottom]`, in pixels.
    pub corners: [f64; 4],
}

/// What a detector claims to be in an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Class and box.
    pub object: Object,
    /// How sure the detector is.
    pub score: f64,
}

/// Mean average precision over classes, in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AveragePrecision {
    /// The mean over the IoU thresholds 0.50, 0.55, …, 0.95.
    pub ap: f64,
    /// At an IoU of 0.50.
    pub ap50: f64,
    /// At an IoU of 0.75.
    pub ap75: f64,
}

/// Detections of one class in one image that count, the best first.
const MOST: usize = 100;

impl Object {
    fn area(&self) -> f64 {
        let [left, top, right, bottom] = self.corners;
        (right - left) * (bottom - top)
    }

    /// Intersection over union of the boxes, whatever their classes.
    pub fn iou(&self, other: &Self) -> f64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.corners, other.corners);
        let both = (c.min(g) - a.max(e)).max(0.0) * (d.min(h) - b.max(f)).max(0.0);
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    fn is_sound(&self) -> bool {
        let [left, top, right, bottom] = self.corners;
        self.corners.iter().all(|corner| corner.is_finite()) && left <= right && top <= bottom
    }
}

/// Average precision of `detections` against `objects`, one list an image, in the same order.
///
/// In each image the detections of a class, best first, each take the object of largest IoU that is still free, if it
/// reaches the threshold. Precision is made to fall with recall and is averaged at the recalls 0, 0.01, …, 1; classes
/// without an object are left out. Objects have no `iscrowd`, areas are not told apart. Equal to `pycocotools` on such data.
///
/// # Errors
/// Unequal numbers of images, no object at all, a box whose corners are out of order or not finite, a score that is not
/// finite.
pub fn average_precision(objects: &[Vec<Object>], detections: &[Vec<Detection>]) -> Result<AveragePrecision> {
    if objects.len() != detections.len() {
        return Err(Error::setting(
            "images with detections",
            format!("{}, as with objects", objects.len()),
            detections.len(),
        ));
    }
    let claimed = detections.iter().flatten();
    if let Some(broken) = objects.iter().flatten().chain(claimed.clone().map(|d| &d.object)).find(|o| !o.is_sound()) {
        return Err(Error::setting("corners", "finite, left ≤ right, top ≤ bottom", format!("{:?}", broken.corners)));
    }
    if let Some(detection) = claimed.clone().find(|detection| !detection.score.is_finite()) {
        return Err(Error::setting("score", "a finite number", detection.score));
    }
    let mut counts = BTreeMap::<usize, usize>::new();
    for object in objects.iter().flatten() {
        *counts.entry(object.class).or_default() += 1;
    }
    if counts.is_empty() {
        return Err(Error::setting("objects", "at least one", 0));
    }
    // The evaluation's own spacing: 0.65 written otherwise is another number, and some box has exactly that IoU.
    let thresholds: Vec<f64> = (0..10).map(|step| 0.5 + (0.95 - 0.5) / 9.0 * f64::from(step)).collect();
    let mut sums = vec![0.0; thresholds.len()];
    for (&class, &count) in &counts {
        let images: Vec<_> =
            objects.iter().zip(detections).map(|(objects, found)| Image::new(class, objects, found)).collect();
        for (sum, &threshold) in sums.iter_mut().zip(&thresholds) {
            *sum += of_class(&images, threshold, count);
        }
    }
    let mean = |sum: f64| sum / counts.len() as f64;
    let ap = mean(sums.iter().sum::<f64>() / thresholds.len() as f64);
    Ok(AveragePrecision { ap, ap50: mean(sums[0]), ap75: mean(sums[5]) })
}

/// One class in one image.
struct Image {
    /// Scores, the best first.
    scores: Vec<f64>,
    /// IoU of each detection with each object.
    overlaps: Vec<Vec<f64>>,
    objects: usize,
}

impl Image {
    fn new(class: usize, objects: &[Object], detections: &[Detection]) -> Self {
        let objects: Vec<_> = objects.iter().filter(|object| object.class == class).collect();
        let mut found: Vec<_> = detections.iter().filter(|found| found.object.class == class).collect();
        // Stable: equal scores keep their order.
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(MOST);
        let overlaps =
            found.iter().map(|found| objects.iter().map(|object| found.object.iou(object)).collect()).collect();
        Self { scores: found.iter().map(|found| found.score).collect(), overlaps, objects: objects.len() }
    }

    /// Which detections take an object.
    fn hits(&self, threshold: f64) -> Vec<bool> {
        let mut free = vec![true; self.objects];
        let hit = |overlaps: &Vec<f64>| {
            // The evaluation's own guard against the rounding of a threshold of 1.
            let mut least = threshold.min(1.0 - 1e-10);
            let mut best = None;
            for (object, &overlap) in overlaps.iter().enumerate() {
                // Not `>`: of equal overlaps the last object is taken.
                if free[object] && overlap >= least {
                    (least, best) = (overlap, Some(object));
                }
            }
            best.inspect(|object| free[*object] = false).is_some()
        };
        self.overlaps.iter().map(hit).collect()
    }
}

fn of_class(images: &[Image], threshold: f64, objects: usize) -> f64 {
    let mut ranked: Vec<(f64, bool)> =
        images.iter().flat_map(|image| image.scores.iter().copied().zip(image.hits(threshold))).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut curve) = (0.0, Vec::with_capacity(ranked.len()));
    for (place, (_, hit)) in ranked.iter().enumerate() {
        hits += f64::from(u8::from(*hit));
        curve.push((hits / objects as f64, hits / (place + 1) as f64));
    }
    let mut best = 0.0_f64;
    for (_, precision) in curve.iter_mut().rev() {
        best = best.max(*precision);
        *precision = best;
    }
    let at = |recall: f64| {
        let place = curve.partition_point(|(reached, _)| *reached < recall);
        curve.get(place).map_or(0.0, |(_, precision)| *precision)
    };
    (0..=100).map(|step| at(0.01 * f64::from(step))).sum::<f64>() / 101.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(class: usize, corners: [f64; 4]) -> Object {
        Object { class, corners }
    }

    fn detection(class: usize, corners: [f64; 4], score: f64) -> Detection {
        Detection { object: object(class, corners), score }
    }

    const WHOLE: [f64; 4] = [0.0, 0.0, 100.0, 100.0];

    #[test]
    fn single_boxes_score_by_the_thresholds_they_pass() {
        let of = |corners| {
            let found = average_precision(&[vec![object(0, WHOLE)]], &[vec![detection(0, corners, 0.9)]]).unwrap();
            (found.ap, found.ap50, found.ap75)
        };
        assert_eq!(of(WHOLE), (1.0, 1.0, 1.0));
        // IoU 0.74 passes 0.50 to 0.70: five of ten thresholds.
        assert_eq!(of([0.0, 0.0, 74.0, 100.0]), (0.5, 1.0, 0.0));
        assert_eq!(of([0.0, 0.0, 40.0, 100.0]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_wrong_detection_before_a_right_one_halves_precision() {
        let far = [200.0, 200.0, 210.0, 210.0];
        let objects = [vec![object(0, WHOLE)], vec![]];
        let of = |wrong: f64| {
            average_precision(&objects, &[vec![detection(0, WHOLE, 0.5)], vec![detection(0, far, wrong)]]).unwrap().ap50
        };
        assert!((of(0.9) - 0.5).abs() < 1e-12);
        // After the last object is found, nothing counts any more.
        assert!((of(0.1) - 1.0).abs() < 1e-12);
        // A second detection of the same object is wrong, a class without objects is left out.
        let twice = [vec![detection(0, WHOLE, 0.9), detection(0, WHOLE, 0.8), detection(7, WHOLE, 1.0)], vec![]];
        assert!((average_precision(&objects, &twice).unwrap().ap50 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn half_of_the_objects_found_is_51_of_101_recalls() {
        let objects = [vec![object(0, WHOLE), object(0, [200.0, 0.0, 300.0, 100.0])]];
        let found = average_precision(&objects, &[vec![detection(0, WHOLE, 0.9)]]).unwrap();
        // Recalls 0, 0.01, …, 0.50 are reached, the other fifty are not.
        assert!((found.ap - 51.0 / 101.0).abs() < 1e-12);
    }

    /// Boxes from a linear congruential generator, which the peer script draws the same way.
    fn random_boxes() -> (Vec<Vec<Object>>, Vec<Vec<Detection>>) {
        let mut state = 12_345_u64;
        let mut draw = |below: u64| {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            (state >> 8) % below
        };
        let (mut objects, mut detections) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let mut own = Vec::new();
            for _ in 0..1 + draw(5) {
                let (class, left, top) = (draw(3) as usize, draw(60) as f64, draw(60) as f64);
                let (width, height) = (8.0 + draw(40) as f64, 8.0 + draw(40) as f64);
                own.push(object(class, [left, top, left + width, top + height]));
            }
            let mut found = Vec::new();
            for _ in 0..draw(12) {
                let near = own[draw(own.len() as u64) as usize];
                let mut shift = || draw(13) as f64 - 6.0;
                let [left, top, right, bottom] = near.corners;
                let (left, top, right, bottom) = (left + shift(), top + shift(), right + shift(), bottom + shift());
                let class = if draw(4) == 0 { draw(3) as usize } else { near.class };
                let corners = [left, top, right.max(left + 1.0), bottom.max(top + 1.0)];
                // Scores repeat, so that the order of equal ones matters.
                found.push(detection(class, corners, draw(50) as f64 / 50.0));
            }
            objects.push(own);
            detections.push(found);
        }
        (objects, detections)
    }

    #[test]
    fn random_boxes_score_as_pycocotools_says() {
        let (objects, detections) = random_boxes();
        let found = average_precision(&objects, &detections).unwrap();
        // pycocotools 2.0.11 on the same boxes: benches/peers/average_precision.py.
        let expected = [0.101_301_320_158_971_27, 0.337_827_778_225_978, 0.025_417_803_244_661_037];
        for (found, expected) in [found.ap, found.ap50, found.ap75].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn boxes_that_make_no_sense_are_refused() {
        let refused = |objects: &[Vec<Object>], detections: &[Vec<Detection>]| {
            average_precision(objects, detections).unwrap_err().to_string()
        };
        let fine = [vec![object(0, WHOLE)]];
        assert_eq!(refused(&fine, &[]), "images with detections is 0, expected 1, as with objects");
        assert_eq!(refused(&[vec![]], &[vec![]]), "objects is 0, expected at least one");
        let found = refused(&fine, &[vec![detection(0, [5.0, 0.0, 4.0, 1.0], 0.5)]]);
        assert!(found.starts_with("corners is [5.0, 0.0, 4.0, 1.0]"), "{found}");
        assert!(refused(&fine, &[vec![detection(0, WHOLE, f64::NAN)]]).starts_with("score is NaN"));
    }

    proptest! {
        #[test]
        fn rising_maps_of_scores_and_shifted_images_change_nothing(offset in -50.0..50.0_f64) {
            let (mut objects, mut detections) = random_boxes();
            let before = average_precision(&objects, &detections).unwrap();
            for found in detections.iter_mut().flatten() {
                found.score = found.score.exp();
                // Whole numbers, so that boxes stay exact.
                found.object.corners = found.object.corners.map(|corner| corner + offset.round());
            }
            for object in objects.iter_mut().flatten() {
                object.corners = object.corners.map(|corner| corner + offset.round());
            }
            let after = average_precision(&objects, &detections).unwrap();
            prop_assert!((before.ap - after.ap).abs() < 1e-12);
        }
    }
}
