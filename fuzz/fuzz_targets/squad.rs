//! SQuAD's JSON, cut into windows. Every answer stands where its question says.
#![no_main]

use core_tensor::text::squad::{FeatureConfig, SquadSet};
use core_tensor::text::{Casing, WordPiece};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(set) = SquadSet::parse(Path::new("f"), text) else { return };
    for question in &set.questions {
        for answer in &question.answers {
            let context: String = set.context(question).chars().skip(answer.start).collect();
            assert!(context.starts_with(&answer.text));
        }
    }
    let tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] a b ##a ##b the lake .".split(' ').map(str::to_owned).collect();
    let pieces = WordPiece::from_tokens(tokens, Casing::Lower, "fuzz").expect("a vocabulary");
    let config = FeatureConfig { most_tokens: 16, stride: 3, most_question: 4 };
    let _ = (set.features(&pieces, &config), set.training_features(&pieces, &config));
});
