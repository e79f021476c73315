//! IDX arrays, plain and gzipped. What is read is written and read again.
#![no_main]

use core_tensor::data::parse_idx;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(array) = parse_idx(Path::new("f"), bytes) {
        assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
        let mut again = vec![0, 0, 8, array.shape.len() as u8];
        again.extend(array.shape.iter().flat_map(|&length| (length as u32).to_be_bytes()));
        again.extend(&array.values);
        assert_eq!(parse_idx(Path::new("f"), &again).ok(), Some(array));
    }
});
