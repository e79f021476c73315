//! Hugging Face's `config.json`. What is valid is written and read again, and its layers have heads and neurons.
#![no_main]

use core_tensor::networks::bert::BertConfig;
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    if let Ok(config) = BertConfig::from_file(&folder.put("config.json", bytes)) {
        let again = folder.put("again.json", serde_json::to_vec(&config).expect("a config that was read"));
        assert_eq!(BertConfig::from_file(&again).expect("what was written"), config);
        if config.num_attention_heads.max(config.intermediate_size) < 1 << 16 {
            assert!(!config.heads(0).is_empty() && !config.neurons(0).is_empty());
        }
    }
});
