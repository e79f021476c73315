//! Masks of a ResNet-50 compared, and its published checkpoints loaded.
//!
//! | bench | target |
//! |---|---|
//! | `transfer/compare_resnet50` | 10 ms, and a tenth of the boolean tensors of `peers/mask_analysis.py` |
//! | `transfer/load_torchvision_resnet50` | 0.5 s |

// Criterion's macro makes a public function without a word.
#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use benches::record;
use core_tensor::checkpoint::state_of;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use criterion::{Criterion, criterion_group, criterion_main};
use lth::transfer::{MaskComparison, Pretrained, Profile};
use lth::{MaskSet, Prunable};
use tch::{Device, Tensor, nn};

fn resnet50() -> nn::VarStore {
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let _network = Architecture::imagenet_resnet(50, 1000).unwrap().build(&store.root(), &Standard).unwrap();
    store
}

fn masks(criterion: &mut Criterion) {
    let store = resnet50();
    let weights = Prunable::conv_only().except(["conv1.weight"]).select_from(&store).unwrap();
    // As the peer makes them: of the weights at place p those whose `step` p mod 2147483647 mod 10 is below `tenths`.
    let some = |step: i64, tenths: i64| {
        let mask = |(name, weight): &(String, Tensor)| {
            let places = Tensor::arange(weight.numel() as i64, (tch::Kind::Int64, Device::Cpu));
            let kept = (places * step).remainder(2_147_483_647).remainder(10).lt(tenths);
            (name.clone(), kept.to_kind(tch::Kind::Uint8).view(weight.size().as_slice()))
        };
        MaskSet::from_tensors(&weights.iter().map(mask).collect::<Vec<_>>()).unwrap()
    };
    let (a, b) = (some(48_271, 3), some(69_621, 5));
    let found = MaskComparison::new(&a, &b).unwrap();
    record("transfer/compare_resnet50", "jaccard", found.jaccard());
    record("transfer/compare_resnet50", "hamming", found.hamming());
    let mut group = criterion.benchmark_group("transfer");
    group.sample_size(20);
    group.bench_function("compare_resnet50", |bencher| {
        bencher.iter(|| {
            let found = MaskComparison::new(&a, &b).unwrap();
            let layers: f64 = found.layers.iter().map(|layer| layer.jaccard()).sum();
            black_box((found.jaccard(), found.hamming(), found.jaccard_by_chance(), layers))
        });
    });
    group.bench_function("profile_resnet50", |bencher| bencher.iter(|| black_box(Profile::of(&a).zero_kernels())));
    group.finish();
}

/// The weights as `torch.save` writes a state dict: one stored member a tensor, and a pickle that names them.
fn write_checkpoint(path: &Path, store: &nn::VarStore) {
    let mut file = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    let text = |pickle: &mut Vec<u8>, value: &str| {
        pickle.push(b'X');
        pickle.extend((value.len() as u32).to_le_bytes());
        pickle.extend(value.as_bytes());
    };
    let number = |pickle: &mut Vec<u8>, value: i64| {
        pickle.push(b'J');
        pickle.extend((value as i32).to_le_bytes());
    };
    let tensors: Vec<_> = state_of(store).into_iter().filter(|(_, tensor)| tensor.kind() == tch::Kind::Float).collect();
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut pickle, name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, tensor.numel() as i64);
        pickle.extend(b"tQK\x00(");
        tensor.size().iter().for_each(|size| number(&mut pickle, *size));
        pickle.extend(b"t(");
        tensor.contiguous().stride().iter().for_each(|stride| number(&mut pickle, *stride));
        pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    file.start_file("resnet50/data.pkl", options).unwrap();
    file.write_all(&pickle).unwrap();
    for (key, (_, tensor)) in tensors.iter().enumerate() {
        let mut bytes = vec![0; tensor.numel() * 4];
        tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
        file.start_file(format!("resnet50/data/{key}"), options).unwrap();
        file.write_all(&bytes).unwrap();
    }
    file.start_file("resnet50/version", options).unwrap();
    file.write_all(b"3\n").unwrap();
    file.finish().unwrap();
}

fn loading(criterion: &mut Criterion) {
    let store = resnet50();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet50.pth");
    write_checkpoint(&path, &store);
    let mut group = criterion.benchmark_group("transfer");
    group.sample_size(10);
    group.bench_function("load_torchvision_resnet50", |bencher| {
        bencher.iter(|| black_box(Pretrained::Torchvision.load(&path, &store, ["fc."]).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, masks, loading);
criterion_main!(benches);
