//! Writes the seeds of the binary formats with the crates' own writers, and one of each preset and built-in network.
//!
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds

use std::path::{Path, PathBuf};

use core_tensor::checkpoint::{Header, save_variables, write_safetensors};
use core_tensor::data::Batch;
use core_tensor::networks::bert::{Bert, BertConfig};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::Standard;
use core_tensor::optim::{NamedTensors, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::text::Encoded;
use core_tensor::text::masked::{PretrainingInput, write_shards};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
use forest::synthetic::blobs;
use forest::{DeepForestParams, Forest, HardForestParams, SoftForestParams};
use fuzz::SEPARATOR;
// Where everything is built with instrumentation, its runtime is needed.
use hw_sim::{Accelerator, networks};
use libfuzzer_sys as _;
use lth::criterion::Magnitude;
use lth::structured::{CoefficientTrace, TicketMask};
use lth::{MaskRecord, Prunable, PruningSchedule, Rewind, Selector, Ticket};
use ndarray::aview1;
use quant::fractrain::{GridKind, Precision, QuantConfig, QuantFactory, export_int8};
use quant::smartdeal::{CompressPolicy, compress};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use vision::fas::model::{FasData, Policies, ProxyConfig};
use vision::fas::synth::{Domain, Generator, GeneratorConfig, Population};
use vision::fas::{Detector, DetectorConfig};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    tch::manual_seed(0);
    checkpoints()?;
    tickets()?;
    forests()?;
    faces()?;
    pictures()?;
    for name in Accelerator::presets() {
        put("accelerator", name, Accelerator::preset_text(name)?.as_bytes())?;
    }
    let mut network =
        networks::with_bits(networks::builtin("lenet5").or_else(|_| networks::builtin("resnet18"))?, [8; 3]);
    network.layers.truncate(3);
    put("workload", "first-layers", &serde_json::to_vec(&network)?)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(name), bytes)?)
}

/// A safetensors file as the targets take it: no length, and a separator behind the header.
fn put_tensors(target: &str, name: &str, file: &Path) -> Outcome {
    let bytes = std::fs::read(file)?;
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into()?) as usize);
    put(target, name, &[header, &[SEPARATOR], data].concat())
}

fn scratch() -> Outcome<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("scratch.safetensors");
    Ok((folder, file))
}

fn conv_net() -> Outcome<(VarStore, Box<dyn core_tensor::nn::Network>)> {
    let store = VarStore::new(Device::Cpu);
    let config = ConvNetConfig { in_channels: 1, widths: vec![1], classes: 2 };
    let network = Architecture::ConvNet(config).build(&store.root(), &Standard)?;
    Ok((store, network))
}

fn checkpoints() -> Outcome {
    let (folder, file) = scratch()?;
    let kinds = [Kind::Float, Kind::Int64, Kind::Bool, Kind::BFloat16, Kind::Half];
    let tensors: NamedTensors =
        kinds.into_iter().map(|kind| (format!("{kind:?}"), Tensor::ones([2, 1], (kind, Device::Cpu)))).collect();
    write_safetensors(&file, &tensors, &[("a".to_owned(), "b".to_owned())].into())?;
    put_tensors("safetensors", "kinds", &file)?;
    put("safetensors_raw", "kinds", &std::fs::read(&file)?)?;

    let (store, network) = conv_net()?;
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default())?;
    let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
    let trainer: Trainer<'_, Batch> = Trainer::new(config, &mut objective, &mut optimizer)?;
    trainer.save(&file, &store, &"kept")?;
    put_tensors("training_state", "conv-net", &file)?;

    let store = VarStore::new(Device::Cpu);
    let config = BertConfig {
        hidden_size: 2,
        num_attention_heads: 1,
        num_hidden_layers: 1,
        intermediate_size: 2,
        max_position_embeddings: 2,
        ..BertConfig::tiny(3)
    };
    Bert::encoder_only(&store.root(), &Standard, &config)?;
    save_variables(&file, &store, &Header::new("bert", 1, ()))?;
    put_tensors("bert_weights", "tiny", &file)?;
    put("bert_config", "tiny", &serde_json::to_vec(&config)?)?;

    let encoded = Encoded { ids: vec![2, 4, 3, 5, 3], types: vec![0, 0, 0, 1, 1] };
    let inputs = vec![PretrainingInput { encoded, next: None }; 2];
    write_shards(&folder.path().join("shards"), inputs.into_iter(), 2, 6)?;
    put_tensors("shards", "two", &folder.path().join("shards/inputs-00000.safetensors"))
}

fn tickets() -> Outcome {
    let (_folder, file) = scratch()?;
    let (store, _network) = conv_net()?;
    let prunable = Prunable::default();
    let weights = prunable.select_from(&store)?;
    let mask = PruningSchedule::OneShot { density: 0.5 }.prune(&weights, &Magnitude, &Selector::global())?;
    let record = MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable, source: None };
    mask.save(&file, &record)?;
    put_tensors("mask", "conv-net", &file)?;
    TicketMask { heads: mask.clone(), neurons: mask.clone() }.save(&file)?;
    put_tensors("ticket_mask", "conv-net", &file)?;
    Ticket::new(mask, &core_tensor::checkpoint::state_of(&store), record, Rewind::Step(3), 3)?.save(&file)?;
    put_tensors("ticket", "conv-net", &file)?;
    let values = NamedTensors::from([("g".to_owned(), Tensor::from_slice(&[0.5_f32, 1.0]))]);
    CoefficientTrace { steps: [(4, values)].into() }.save(&file)?;
    put_tensors("coefficient_trace", "one-step", &file)?;

    let factory = QuantFactory::new(
        QuantConfig { activation_grid: GridKind::IntegerZeroPoint, ..QuantConfig::default() },
        Precision::new(4, 8)?,
    )?;
    let store = VarStore::new(Device::Cpu);
    let config = ConvNetConfig { in_channels: 1, widths: vec![1], classes: 2 };
    let network = Architecture::ConvNet(config).build(&store.root(), &factory)?;
    // Ranges come from a training step.
    let _ = network.forward(&Tensor::randn([2, 1, 8, 8], (Kind::Float, Device::Cpu)), true);
    export_int8(&store, &factory.handle())?.write(&file)?;
    put_tensors("int8", "conv-net", &file)?;

    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    root.sub("conv").randn("weight", &[2, 2, 3, 3], 0.0, 1.0);
    root.sub("fc").randn("weight", &[4, 6], 0.0, 1.0);
    root.sub("fc").zeros("bias", &[4]);
    let (model, _) = compress(&store, &CompressPolicy::default())?;
    for (name, scheme) in [
        ("cheapest", None),
        ("bitmap", Some(quant::smartdeal::IndexScheme::Bitmap)),
        ("rows", Some(quant::smartdeal::IndexScheme::RowBitmap)),
        ("runs", Some(quant::smartdeal::IndexScheme::Rlc { run_bits: 2 })),
        ("csr", Some(quant::smartdeal::IndexScheme::Csr)),
    ] {
        model.write(&file, scheme)?;
        put("sdz", name, &std::fs::read(&file)?)?;
    }
    Ok(())
}

fn forests() -> Outcome {
    // Prefix of 28 bytes with the header's length at 12, checksum of 4 at the end.
    let input = |bytes: Vec<u8>| -> Outcome<Vec<u8>> {
        let length = u64::from_le_bytes(bytes[12..20].try_into()?) as usize;
        let (header, numbers) = bytes[28..bytes.len() - 4].split_at(length);
        Ok([header, &[SEPARATOR], numbers].concat())
    };
    let (x, y) = blobs(30, 2, 2, 3.0, 1);
    let soft = SoftForestParams { trees: 2, depth: 2, epochs: 2, batch: 8, ..SoftForestParams::default() };
    put("forest", "two-trees", &input(soft.fit(x.view(), aview1(&y))?.to_bytes()?)?)?;
    let hard = HardForestParams { trees: 2, ..HardForestParams::default() };
    let forests = vec![Forest::Soft(Box::new(soft)), Forest::Hard(hard)];
    let params = DeepForestParams { forests, folds: 2, max_layers: 2, patience: 1, ..DeepForestParams::default() };
    put("deep_forest", "soft-and-hard", &input(params.fit(x.view(), aview1(&y))?.to_bytes()?)?)
}

fn faces() -> Outcome {
    let (_folder, file) = scratch()?;
    let config = GeneratorConfig { raster: 24, crop: 8, map: 2 };
    let population = Population { domains: vec![Domain::Webcam], identities: 1, live: 1, print: 1, replay: 0, mask: 0 };
    let pictures = Generator::new(2, config)?.render_all(&population.specs())?;
    FasData::from_rendered(&pictures, config, Policies::default())?.save(&file)?;
    put_tensors("fas_data", "two", &file)?;
    let config = DetectorConfig {
        network: ProxyConfig { features: 1, ..ProxyConfig::default() },
        width: 1,
        context: true,
        size: 8,
        crop_scale: 1.2,
        threshold: 0.5,
        criterion: serde_json::from_value(serde_json::json!("eer"))?,
        development_set: "none".into(),
        smallest_face: 1.0,
        brightness: [0.0, 1.0],
        least_sharpness: 0.0,
        most_uncertainty: None,
    };
    Detector::new(config)?.save(&file)?;
    put_tensors("detector", "narrow", &file)
}

fn pictures() -> Outcome {
    let picture = image::RgbaImage::from_fn(4, 3, |x, y| image::Rgba([(60 * x) as u8, (80 * y) as u8, 9, 255]));
    let picture = image::DynamicImage::ImageRgba8(picture);
    for (name, format) in [("white.png", image::ImageFormat::Png), ("grey.jpg", image::ImageFormat::Jpeg)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        match format {
            image::ImageFormat::Png => picture.write_to(&mut bytes, format)?,
            _ => picture.to_rgb8().write_to(&mut bytes, format)?,
        }
        put("image_folder", name, bytes.get_ref())?;
        put("picture", name, bytes.get_ref())?;
    }
    Ok(())
}
