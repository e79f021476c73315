//! Published weights into a BERT (`header ff data`). A file that is refused leaves the network as it was.
#![no_main]

use core_tensor::checkpoint::state_of;
use core_tensor::networks::bert::{Bert, BertConfig, load_weights};
use core_tensor::nn::Standard;
use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use tch::Device;
use tch::nn::VarStore;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("model.safetensors", safetensors(bytes));
    let store = VarStore::new(Device::Cpu);
    let config = BertConfig {
        hidden_size: 2,
        num_attention_heads: 1,
        num_hidden_layers: 1,
        intermediate_size: 2,
        max_position_embeddings: 2,
        ..BertConfig::tiny(3)
    };
    let _model = Bert::encoder_only(&store.root(), &Standard, &config).expect("a network");
    let before = state_of(&store).into_values().map(|tensor| tensor.copy()).collect::<Vec<_>>();
    if load_weights(&path, &store).is_err() {
        assert!(state_of(&store).into_values().eq(before));
    }
});
