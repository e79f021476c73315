//! Networks of bytes (`header ff data`). What is read is written and read again.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use quant::fractrain::Int8Model;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    if let Ok(model) = Int8Model::read(&folder.put("a.safetensors", safetensors(bytes))) {
        let [once, again] = ["b.safetensors", "c.safetensors"].map(|name| folder.root().join(name));
        model.write(&once).expect("a model that was read");
        let read = Int8Model::read(&once).expect("what was written");
        assert_eq!(read.bytes(), model.bytes());
        read.write(&again).expect("a model that was read");
        assert_eq!(std::fs::read(once).expect("a file"), std::fs::read(again).expect("a file"));
    }
});
