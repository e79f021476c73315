//! A checkpoint of 100 MB (25 million weights in 160 tensors, as a ResNet-50 has) written and read in both formats.
//!
//! Target: reading takes at most 0.5 s. The page cache is warm. Writing includes the sync that a checkpoint needs, so
//! that figure says as much about the disk as about the code. "Into a model" ends in libtorch's copy, one hand-over
//! between its threads a tensor: on a machine that is busy otherwise, measure with `OMP_NUM_THREADS=1`.

// Criterion's macro makes a public function without a word.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use core_tensor::checkpoint::{LoadPolicy, Metadata, PickleFile, load_state, read_safetensors, write_safetensors};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use indexmap::IndexMap;
use tch::{Device, Kind, Tensor, nn};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

const TENSORS: i64 = 160;
const ELEMENTS: i64 = 25_000_000 / TENSORS;

fn name(index: i64) -> String {
    format!("layer{index}.weight")
}

fn state() -> IndexMap<String, Tensor> {
    (0..TENSORS)
        .map(|index| (name(index), Tensor::full([ELEMENTS], index as f64, (Kind::Float, Device::Cpu))))
        .collect()
}

/// The same tensors as PyTorch saves them: an uncompressed zip of a pickle and a member a storage.
fn write_pickle(path: &Path) {
    let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    let int = |number: i64| [b"J".as_slice(), &(number as i32).to_le_bytes()].concat();
    let mut pickle = b"\x80\x02}(".to_vec();
    for index in 0..TENSORS {
        pickle.extend(text(&name(index)));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n");
        pickle.extend(text(&index.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend(int(ELEMENTS));
        pickle.extend(b"tQK\x00");
        pickle.extend(int(ELEMENTS));
        pickle.extend(b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");

    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&pickle).unwrap();
    for index in 0..TENSORS {
        zip.start_file(format!("archive/data/{index}"), options).unwrap();
        zip.write_all(&(index as f32).to_le_bytes().repeat(ELEMENTS as usize)).unwrap();
    }
    zip.finish().unwrap();
}

fn checkpoints(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("model.safetensors"), folder.path().join("model.pth"));
    let state = state();
    write_safetensors(&ours, &state, &Metadata::new()).unwrap();
    write_pickle(&theirs);

    let variables = nn::VarStore::new(Device::Cpu);
    for index in 0..TENSORS {
        let _ = variables.root().sub(format!("layer{index}")).zeros("weight", &[ELEMENTS]);
    }
    let load = |state: &IndexMap<String, Tensor>| load_state(&variables, state, &LoadPolicy::strict()).unwrap();
    let read_pickle = || PickleFile::open(&theirs).unwrap().state().unwrap();
    // What is timed is also right.
    for read in [read_safetensors(&ours).unwrap(), read_pickle()] {
        assert!(read.len() == state.len() && state.iter().all(|(name, tensor)| read[name].equal(tensor)));
    }

    let mut group = criterion.benchmark_group("checkpoint of 100 MB");
    group.sample_size(10).throughput(Throughput::Bytes(4 * (TENSORS * ELEMENTS) as u64));
    group.bench_function("safetensors: write and sync", |bencher| {
        bencher.iter(|| write_safetensors(&ours, &state, &Metadata::new()).unwrap());
    });
    group.bench_function("safetensors: read", |bencher| bencher.iter(|| read_safetensors(black_box(&ours)).unwrap()));
    group.bench_function("safetensors: read into a model", |bencher| {
        bencher.iter(|| load(&read_safetensors(&ours).unwrap()));
    });
    group.bench_function("PyTorch zip: read", |bencher| bencher.iter(read_pickle));
    group.bench_function("PyTorch zip: read into a model", |bencher| bencher.iter(|| load(&read_pickle())));
    group.finish();
}

criterion_group!(benches, checkpoints);
criterion_main!(benches);
