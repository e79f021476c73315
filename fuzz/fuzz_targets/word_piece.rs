//! Vocabularies and texts (`vocabulary ff text`). Ids are within the vocabulary, which is written as it came.
#![no_main]

use core_tensor::text::{Casing, WordPiece};
use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [vocabulary, text] = parts(bytes);
    let folder = Folder::new();
    let path = folder.put("vocab.txt", vocabulary);
    let text = String::from_utf8_lossy(text);
    for casing in [Casing::Lower, Casing::Kept] {
        let Ok(pieces) = WordPiece::from_file(&path, casing) else { return };
        if let Ok(ids) = pieces.pieces(&text) {
            assert!(ids.iter().all(|&id| (id as usize) < pieces.len()));
            let _ = (pieces.join(&ids), pieces.encode_pair(&text, &text, 8), pieces.basic_words(&text));
        }
        let words: Vec<_> = text.split_whitespace().collect();
        if let Ok(found) = pieces.words(&words) {
            assert!(found.words.is_sorted() && found.words.iter().all(|&word| word < words.len()));
        }
        pieces.save(&path).expect("a vocabulary that was read");
        assert_eq!(WordPiece::from_file(&path, casing).expect("what was written").len(), pieces.len());
    }
});
