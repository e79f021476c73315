//! How much memory a global selection takes beside the weights. A test binary of its own, because the figure is the
//! whole process's.
#![cfg(target_os = "linux")]

use lth::criterion::{Criterion, Magnitude};
use lth::{Amount, Selector};
use tch::{Device, Kind, Tensor};

/// A field of `/proc/self/status` in bytes.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn selecting_among_the_weights_of_a_resnet_50_takes_less_than_a_fifth_of_their_memory() {
    // 25.5 million weights in 50 tensors. The promise is at most 1 × the weights; masks and histograms are far less.
    let weights: Vec<_> = (0..50)
        .map(|layer| {
            let places = Tensor::arange(510_000, (Kind::Float, Device::Cpu));
            (format!("layer{layer}.weight"), (places * f64::from(layer + 1)).sin())
        })
        .collect();
    let bytes = 50 * 510_000 * 4;
    let before = memory("VmRSS");
    assert!(before > bytes);
    // The peak so far may be above the present use; forget it.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let scores = Magnitude.score(&weights, None).unwrap();
    let mask = Selector::global().prune(&scores, Amount::Rate(0.8), None).unwrap();
    let extra = memory("VmHWM").saturating_sub(before);
    assert_eq!(mask.survivors(), 5_100_000);
    assert!(extra < bytes / 5, "{extra} bytes beside {bytes} of weights");
}
