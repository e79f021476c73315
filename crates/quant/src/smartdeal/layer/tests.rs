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
