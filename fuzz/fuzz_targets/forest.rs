//! Soft forests in files (`header ff numbers`). What is read can predict, and is written as it came.
#![no_main]

use ::forest::{Evaluation, SoftForest, SoftForestRegressor};
use fuzz::{Folder, forest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = forest(bytes);
    if let Ok(model) = SoftForest::from_bytes(&file) {
        let again = model.to_bytes().expect("a model that was read");
        let read = SoftForest::from_bytes(&again).expect("what was written");
        assert_eq!(read.to_bytes().ok(), Some(again));
        let mut output = vec![0.0; model.classes()];
        let _ = model.predict_one(&[0.5; 2], Evaluation::Exact, &mut output);
        let _ = model.predict_one(&[0.5; 2], Evaluation::Skip { below: 0.1 }, &mut output);
    }
    let folder = Folder::new();
    let _ = SoftForestRegressor::load(folder.put("forest", &file));
});
