//! Cascades in files (`header ff numbers`). What is read can predict, and is written as it came.
#![no_main]

use ::forest::DeepForest;
use fuzz::forest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = DeepForest::from_bytes(&forest(bytes)) {
        let again = model.to_bytes().expect("a model that was read");
        let read = DeepForest::from_bytes(&again).expect("what was written");
        assert_eq!(read.to_bytes().ok(), Some(again));
        let _ = model.predict_proba(ndarray::Array2::zeros((1, 2)).view());
    }
});
