//! How well maps are predicted, beside what would be said without looking at the picture.

use tch::{Kind, Tensor};
use vision::fas::model::{Proxy, ProxyTargets};

/// What is predicted, and what a prediction that sees no picture reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    /// Of the network.
    pub(super) network: f64,
    /// Of the mean or most frequent map of the training part.
    pub(super) blind: f64,
}

/// Mean squared errors on the pictures of one class, the network's and those of the training part's mean map of that class.
///
/// By the literature's label the other class's map is 0, which a network that knows the class gets right without knowing
/// anything of depth or reflection.
pub(super) fn error_within(live: bool, proxy: Proxy, predicted: &Tensor, [train, dev]: [&ProxyTargets; 2]) -> Compared {
    let rows = rows_of(&dev.live, live);
    let truth = dev.maps[&proxy].index_select(0, &rows);
    let error = |guess: &Tensor| (guess - &truth).square().mean(Kind::Double).double_value(&[]);
    Compared {
        network: error(&predicted.index_select(0, &rows)),
        blind: error(&mean_map(&train.maps[&proxy], &train.live, live).unsqueeze(0)),
    }
}

/// Errors of depth face by face, which a mean over faces hides: a network that takes a face for an attack says no depth at
/// all, and few such faces outweigh all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FaceByFace {
    /// The mean squared error that half of the living faces stay below.
    pub(super) median: Compared,
    /// The share of living faces whose prediction is nearer to 0 everywhere than to the training part's mean face.
    pub(super) flat: f64,
}

pub(super) fn depth_face_by_face(predicted: &Tensor, [train, dev]: [&ProxyTargets; 2]) -> FaceByFace {
    let rows = rows_of(&dev.live, true);
    let (truth, guess) = (dev.maps[&Proxy::Depth].index_select(0, &rows), predicted.index_select(0, &rows));
    let mean_face = mean_map(&train.maps[&Proxy::Depth], &train.live, true).unsqueeze(0);
    let by_face = |off: Tensor| off.square().flatten(1, -1).mean_dim([1_i64].as_slice(), false, Kind::Double);
    // The lower of the two in the middle of an even number.
    let median = |errors: Tensor| errors.median().double_value(&[]);
    let flat = by_face(guess.shallow_clone()).lt_tensor(&by_face(&guess - &mean_face));
    FaceByFace {
        median: Compared { network: median(by_face(&guess - &truth)), blind: median(by_face(&mean_face - &truth)) },
        flat: flat.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]),
    }
}

/// Accuracies of the material's pixels, the network's and those of a template that is told which pictures are live: at every
/// pixel the class of the largest share in the training part's live pictures or attacks.
pub(super) fn material(predicted: &Tensor, [train, dev]: [&ProxyTargets; 2]) -> Compared {
    let truth = dev.maps[&Proxy::Material].argmax(1, false);
    let template =
        |live: bool| mean_map(&train.maps[&Proxy::Material], &train.live, live).argmax(0, false).unsqueeze(0);
    let told = template(true).where_self(&dev.live.gt(0.5).view([-1, 1, 1]), &template(false));
    let accuracy = |found: &Tensor| found.eq_tensor(&truth).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    Compared { network: accuracy(&predicted.argmax(1, false)), blind: accuracy(&told) }
}

/// Positions of live pictures or of attacks.
fn rows_of(labels: &Tensor, live: bool) -> Tensor {
    let chosen = if live { labels.gt(0.5) } else { labels.lt(0.5) };
    chosen.nonzero().squeeze_dim(1)
}

/// `[channels, height, width]`.
fn mean_map(maps: &Tensor, labels: &Tensor, live: bool) -> Tensor {
    maps.index_select(0, &rows_of(labels, live)).mean_dim([0_i64].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps of one row of two pixels, by sample and channel.
    fn targets(proxy: Proxy, live: &[f32], maps: &[f32]) -> ProxyTargets {
        let maps = Tensor::from_slice(maps).view([live.len() as i64, -1, 1, 2]);
        ProxyTargets { live: Tensor::from_slice(live), maps: [(proxy, maps)].into_iter().collect() }
    }

    #[test]
    fn attacks_count_nothing_in_the_depth_of_faces() {
        let train = targets(Proxy::Depth, &[1.0, 1.0, 0.0], &[0.5, 0.25, 1.0, 0.25, 9.0, 9.0]);
        let dev = targets(Proxy::Depth, &[0.0, 1.0], &[0.0, 0.0, 1.0, 0.25]);
        let predicted = Tensor::from_slice(&[7.0_f32, 7.0, 1.0, 0.75]).view([2, 1, 1, 2]);
        // The mean face is .75, .25: errors of .25² / 2 and of .5² / 2.
        let found = error_within(true, Proxy::Depth, &predicted, [&train, &dev]);
        assert_eq!(found, Compared { network: 0.125, blind: 0.031_25 });
        // The attacks' mean of 9 is far from 0, and so is 7.
        let found = error_within(false, Proxy::Depth, &predicted, [&train, &dev]);
        assert_eq!(found, Compared { network: 49.0, blind: 81.0 });
    }

    #[test]
    fn one_face_taken_for_an_attack_leaves_the_median_alone() {
        let train = targets(Proxy::Depth, &[1.0, 0.0], &[0.75, 0.25, 9.0, 9.0]);
        let dev = targets(Proxy::Depth, &[0.0, 1.0, 1.0, 1.0], &[0.0, 0.0, 1.0, 0.25, 1.0, 0.25, 0.75, 0.75]);
        let predicted = Tensor::from_slice(&[7.0_f32, 7.0, 1.0, 0.25, 0.0, 0.0, 0.75, 0.5]).view([4, 1, 1, 2]);
        // Errors of 0, (1 + .0625) / 2 and .03125; of the mean face .03125, .03125 and .125. The second is flat.
        let found = depth_face_by_face(&predicted, [&train, &dev]);
        assert_eq!(found.median, Compared { network: 0.031_25, blind: 0.031_25 });
        assert!((found.flat - 1.0 / 3.0).abs() < 1e-12, "{}", found.flat);
    }

    #[test]
    fn the_template_of_a_material_knows_the_class_and_no_picture() {
        let of = |classes: [usize; 2]| {
            let mut map = [0.0_f32; 14];
            classes.into_iter().enumerate().for_each(|(pixel, class)| map[2 * class + pixel] = 1.0);
            map
        };
        // Two of three live pictures have skin at both pixels; attacks have paper, then display.
        let train =
            targets(Proxy::Material, &[1.0, 1.0, 1.0, 0.0], &[of([1, 1]), of([1, 1]), of([1, 6]), of([2, 3])].concat());
        let dev = targets(Proxy::Material, &[1.0, 0.0], &[of([1, 6]), of([2, 3])].concat());
        let predicted = &dev.maps[&Proxy::Material];
        assert_eq!(material(predicted, [&train, &dev]), Compared { network: 1.0, blind: 0.75 });
        let background = targets(Proxy::Material, &[1.0, 0.0], &[of([0, 0]), of([0, 0])].concat());
        assert_eq!(material(&background.maps[&Proxy::Material], [&train, &dev]).network, 0.0);
    }
}
