//! Shifts a 32 × 32 object over a 96 × 96 canvas through a ResNet-18, with every distinct patch computed once, and compares time and
//! features with the plain evaluation of some of the rows:
//!
//! ```text
//! cargo run --release -p vision --example invariance_reuse -- [ROWS]
//! ```

use core_tensor::checkpoint::state_of;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use std::time::Instant;
use tch::{Device, Kind, Tensor, nn};
use vision::invariance::reuse::ConvProgram;
use vision::invariance::{NetworkProbe, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};

fn main() -> anyhow::Result<()> {
    let rows: usize = std::env::args().nth(1).map_or(Ok(5), |rows| rows.parse())?;
    seed_libtorch(0, Purpose::Initialisation, 0);
    let architecture = Architecture::imagenet_resnet(18, 1000)?;
    let store = nn::VarStore::new(Device::Cpu);
    let network = architecture.build(&store.root(), &Standard)?;
    let program = ConvProgram::from_state(&architecture, &state_of(&store))?;
    let object = Tensor::f_rand([3, 32, 32], (Kind::Float, Device::Cpu))?;
    let object = Sprite::opaque(Picture::from_tensor(&object)?);
    let grid = ShiftGrid::new([96, 96], [32, 32], 1)?;
    let study = ShiftStudy { batch: 128, ..ShiftStudy::new(grid, Placer::white_imagenet()) };

    let savings = program.savings(&study, &object)?;
    println!(
        "{:.2} × fewer multiply-accumulates, {} steps shared",
        savings.naive / savings.reused,
        savings.shared_steps
    );
    let start = Instant::now();
    let reused = program.run(&study, &object, &["avgpool"])?;
    let seconds = start.elapsed().as_secs_f64();
    println!("with reuse, all {} positions: {seconds:.2} s", grid.len());

    let some = ShiftStudy { grid: grid.window([0, 0], [rows, grid.columns()])?, ..study };
    let probe = NetworkProbe::new(network.as_ref(), &["avgpool"], [3, 96, 96])?;
    let start = Instant::now();
    let naive = some.run(&probe, &object)?;
    let scaled = start.elapsed().as_secs_f64() * grid.rows() as f64 / rows as f64;
    println!("plainly, channels last, scaled up from {rows} rows: {scaled:.2} s");
    let same = reused.features("avgpool")?.narrow(0, 0, some.grid.len() as i64);
    let gap = (&same - naive.features("avgpool")?).abs().max().double_value(&[]);
    println!("largest difference {gap:.1e} of {:.2}", same.abs().max().double_value(&[]));
    Ok(())
}
