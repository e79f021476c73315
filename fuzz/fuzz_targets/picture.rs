//! Pictures as sprites and as frames, decoded by their content.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::fas::data::read_frame;
use vision::invariance::Sprite;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("sprite.png", bytes);
    if let Ok(sprite) = Sprite::open(&path) {
        let [height, width] = sprite.picture().size();
        assert_eq!(sprite.alpha().len(), height * width);
        let _ = sprite.resized([4, 4]);
    }
    let _ = read_frame(&path);
});
