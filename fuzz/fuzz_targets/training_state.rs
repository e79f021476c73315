//! A training to resume (`header ff data`). A file that is refused leaves the network as it was.
#![no_main]

use core_tensor::checkpoint::state_of;
use core_tensor::data::Batch;
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::Standard;
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use tch::Device;
use tch::nn::VarStore;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("training.safetensors", safetensors(bytes));
    let store = VarStore::new(Device::Cpu);
    let config = ConvNetConfig { in_channels: 1, widths: vec![1], classes: 2 };
    let network = Architecture::ConvNet(config).build(&store.root(), &Standard).expect("a network");
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).expect("an optimizer");
    let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
    let mut trainer: Trainer<'_, Batch> = Trainer::new(config, &mut objective, &mut optimizer).expect("a trainer");
    let before = state_of(&store).into_values().map(|tensor| tensor.copy()).collect::<Vec<_>>();
    if trainer.restore::<serde_json::Value>(&path, &store).is_err() {
        assert!(state_of(&store).into_values().eq(before));
    }
});
