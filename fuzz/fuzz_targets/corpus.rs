//! Running text: WikiText, plain text, sentences, whole words.
#![no_main]

use core_tensor::text::corpus::{WordVocabulary, plain_text, sentences, wikitext};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("text", bytes);
    let documents = [wikitext(&path).unwrap_or_default(), plain_text(&path).into_iter().collect()].concat();
    for paragraph in documents.iter().flat_map(|document| &document.paragraphs) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(sentences(paragraph).into_iter().flat_map(words).collect::<Vec<_>>(), words(paragraph));
        if let Ok(known) = WordVocabulary::of(paragraph, 1) {
            assert!(known.ids(paragraph).iter().all(|&id| (id as usize) < known.words().len()));
        }
    }
});
