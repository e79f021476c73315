//! A published set from its folder to its error rates: a made-up one in OULU-NPU's layout.

use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Schedule};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{TrainConfig, Trainer};
use image::{Rgb, RgbImage};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, nn::VarStore};
use vision::fas::Error;
use vision::fas::data::{Crop, Fold, Frames, Presentation, Split, check_disjoint, oulu_npu};
use vision::fas::metrics::{Criterion, DevScores, EvalOptions, Pool, Scored, TestScores, evaluate, pool_videos};
use vision::fas::model::{
    Augment, FasData, FasSource, LossWeights, PlainBackbone, ProxyConfig, ProxyFas, ProxyObjective, Sampling,
    proxy_loss, weight_decay,
};

const CROP: Crop = Crop { scale: 1.1, size: 16 };
const FRAMES: u32 = 3;

/// A frame of 64 × 48 with a face under the point between its eyes, of the colour of skin or not quite, on grey.
fn frame([x, y]: [f64; 2], user: u32, file: u32) -> RgbImage {
    let shade = 2 * (user % 10) as u8;
    let face = if file == 1 { [190 + shade, 130, 100] } else { [140, 130, 150 + shade] };
    RgbImage::from_fn(64, 48, |column, row| {
        let place = [(f64::from(column) - x) / 9.0, (f64::from(row) - y - 4.0) / 12.0];
        if place[0].hypot(place[1]) < 1.0 { Rgb(face) } else { Rgb([110 + 3 * shade; 3]) }
    })
}

/// Lists, frames and eyes of the first protocol: a live video, a print and a replay of each person.
fn write_set(root: &Path) {
    let lists = root.join("Protocols/Protocol_1");
    fs::create_dir_all(&lists).unwrap();
    for (part, session, users) in [("Train", 1, 1..5), ("Dev", 2, 21..23), ("Test", 3, 36..39)] {
        let mut list = String::new();
        for user in users {
            for (label, file) in [("+1", 1), ("-1", 2), ("-2", 4)] {
                let name = format!("1_{session}_{user:02}_{file}");
                list += &format!("{label},{name}\n");
                let folder = root.join(format!("{part}_files/{name}"));
                fs::create_dir_all(&folder).unwrap();
                let mut eyes = String::new();
                for at in 0..FRAMES {
                    let x = 48 - at;
                    eyes += &format!("{at},{},20,{},20\n", x - 4, x + 4);
                    let picture = frame([f64::from(x), 20.0], user, file);
                    picture.save(folder.join(format!("{at:03}.png"))).unwrap();
                }
                fs::write(root.join(format!("{part}_files/{name}.txt")), eyes).unwrap();
            }
        }
        fs::write(lists.join(format!("{part}.txt")), list).unwrap();
    }
}

fn network(store: &VarStore, config: ProxyConfig) -> ProxyFas {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 4));
    ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap()
}

fn scored(network: &ProxyFas, data: &FasData) -> Vec<Scored> {
    let all: Vec<i64> = (0..data.len() as i64).collect();
    let out = tch::no_grad(|| network.forward(&data.batch(&all).input, false)).unwrap();
    let scores = Vec::<f64>::try_from(out.score().to_kind(Kind::Double)).unwrap();
    pool_videos(&data.scored(&scores).unwrap(), Pool::Mean).unwrap()
}

#[test]
fn a_published_folder_trains_a_network_and_is_measured() {
    let root = tempfile::tempdir().unwrap();
    write_set(root.path());
    let part = |split| oulu_npu(root.path(), Fold { protocol: 1, fold: None }, split).unwrap();
    let parts = [Split::Train, Split::Dev, Split::Test].map(part);
    assert_eq!(parts.each_ref().map(Vec::len), [12, 6, 9]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        check_disjoint(&parts[one], &parts[other]).unwrap();
    }
    assert!(matches!(check_disjoint(&parts[0], &parts[0]), Err(Error::IdentityLeak { ids }) if ids.len() == 4));

    let cut = |part: &Vec<Presentation>| FasData::from_presentations(part, Frames::All, CROP).unwrap();
    let [train, dev, test] = parts.each_ref().map(cut);
    assert_eq!([train.len(), dev.len(), test.len()], [36, 18, 27]);
    // The face fills the crop's middle in every frame, wherever it was: the first person's skin has red 192.
    let middle = train.batch(&[0, 1, 2]).input.narrow(2, 6, 4).narrow(3, 6, 4).select(1, 0) * 255.0;
    assert!((middle - 192.0).abs().max().double_value(&[]) < 1e-3);

    let store = VarStore::new(Device::Cpu);
    let binary = ProxyConfig { proxies: Vec::new(), features: 4, ..ProxyConfig::default() };
    let network = network(&store, binary);
    let source = FasSource::new(&train, (12, 20), (Sampling::Pairs, Augment::default()), 0).unwrap();
    let mut objective = ProxyObjective::new(&network, LossWeights::default(), None);
    let mut optimizer = Adam::new(weight_decay(&store, 5e-4), AdamConfig::default()).unwrap();
    let config = TrainConfig { epochs: 4, seed: 0, schedule: Schedule::Constant { peak: 1e-2 } };
    Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&source).unwrap();

    let threshold = DevScores::new(scored(&network, &dev)).unwrap().threshold(Criterion::Eer).unwrap();
    let tested = scored(&network, &test);
    assert_eq!(tested.len(), 9);
    let options = EvalOptions { bootstrap: 0, ..EvalOptions::default() };
    let report = evaluate(&TestScores::new(tested).unwrap(), &threshold, &options).unwrap();
    let species: Vec<&str> = report.species.iter().map(|rate| rate.species.as_str()).collect();
    assert_eq!(species, ["print", "replay"]);
    // Colour alone tells these faces apart, so that only a broken chain could miss it.
    assert!(report.auc > 0.95, "{report}");
}

#[test]
fn a_network_with_cues_says_which_maps_it_needs() {
    let pictures = [RgbImage::new(16, 16), RgbImage::new(16, 16)];
    let data = FasData::from_pictures(&pictures, vec![Scored::live(0.0), Scored::attack(0.0, "print")]).unwrap();
    let store = VarStore::new(Device::Cpu);
    let network = network(&store, ProxyConfig { features: 4, ..ProxyConfig::default() });
    let batch = data.batch(&[0, 1]);
    let out = network.forward(&batch.input, true).unwrap();
    let refused = proxy_loss(&out, &batch.targets, false).unwrap_err().to_string();
    assert_eq!(refused, "target maps: expected depth, found none");
}
