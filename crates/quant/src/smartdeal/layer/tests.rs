use super::*;
use crate::smartdeal::BlockRule;
use rand::{Rng, SeedableRng};

pub(super) fn random_weights(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| ((0..6).map(|_| rng.random::<f32>()).sum::<f32>() - 3.0) * 0.08).collect()
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let layout = Layout::new(LayerShape::Linear { out_features: 1, in_features: 9 }, BlockRule::Reference).unwrap();
    let basis = || Basis::Float(vec![0.0; 9]);
    assert!(SdLayer::from_parts(layout, vec![0; 9], basis()).is_ok());
    assert!(matches!(SdLayer::from_parts(layout, vec![0; 8], basis()), Err(Error::Shape { .. })));
    assert!(matches!(SdLayer::from_parts(layout, vec![0; 9], Basis::Float(vec![])), Err(Error::Shape { .. })));
    assert!(matches!(SdLayer::from_parts(layout, vec![i8::MIN; 9], basis()), Err(Error::OffLadder { .. })));
    let nan = Basis::Float(vec![f32::NAN; 9]);
    assert!(matches!(SdLayer::from_parts(layout, vec![0; 9], nan), Err(Error::NotFinite { .. })));
}

#[test]
fn parts_that_no_file_could_hold_are_refused() {
    let layout = Layout::new(LayerShape::Linear { out_features: 1, in_features: 9 }, BlockRule::Reference).unwrap();
    let with = |bits, scale, value| {
        let basis = Basis::Fixed { bits, scale, values: vec![value; 9] };
        match SdLayer::from_parts(layout, vec![0; 9], basis) {
            Err(Error::Config { name, .. }) => name,
            other => other.map_or("another error", |_| "a layer"),
        }
    };
    assert_eq!([with(8, 0.01, 127), with(8, 0.01, -127), with(16, 0.01, 32767)], ["a layer"; 3]);
    assert_eq!([with(8, 0.01, 128), with(8, 0.01, -128), with(16, 0.01, i16::MIN)], ["basis value"; 3]);
    assert_eq!([with(0, 0.01, 0), with(1, 0.01, 0), with(17, 0.01, 0)], ["basis_bits"; 3]);
    assert_eq!([with(8, 0.0, 0), with(8, -1.0, 0), with(8, f32::NAN, 0)], ["basis scale"; 3]);
    // Blocks of no rows, a matrix that is too short, and one without columns.
    for broken in [Layout { block_rows: 0, ..layout }, Layout { rows: 2, ..layout }, Layout { columns: 0, ..layout }] {
        let refused = SdLayer::from_parts(broken, vec![0; 9], Basis::Float(vec![0.0; 9]));
        assert!(matches!(refused, Err(Error::Shape { .. })), "{broken:?}");
    }
}
