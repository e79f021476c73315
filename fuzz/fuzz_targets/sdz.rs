//! Compressed networks, checksums mended. What is read is written and read again.
#![no_main]

use fuzz::{Folder, sdz};
use libfuzzer_sys::fuzz_target;
use quant::smartdeal::SdzModel;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    if let Ok(model) = SdzModel::read(&folder.put("a.sdz", sdz(bytes))) {
        let again = folder.root().join("b.sdz");
        if model.write(&again, None).is_ok() {
            let read = SdzModel::read(&again).expect("what was written");
            assert!(read.records.keys().eq(model.records.keys()));
            for (name, layer) in read.layers() {
                assert_eq!(Some(layer.codes()), model.layer(name).map(|layer| layer.codes()));
            }
        }
    }
});
