//! Omniglot's table of labels, beside as many images as it has lines.
#![no_main]

use core_tensor::data::{OmniglotSide, omniglot};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("labels.csv", bytes);
    let rows = bytes.iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1) as u32;
    let header = [&[0, 0, 8, 3][..], &rows.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
    folder.put("images28-idx3-ubyte.gz", [header, vec![7; rows as usize]].concat());
    if let Ok(set) = omniglot(&folder.root(), OmniglotSide::Small) {
        let classes = set.classes().len() as i64;
        assert!(set.targets().iter().all(|label| (0..classes).contains(label)));
    }
});
