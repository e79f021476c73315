//! A built-in network as a SCALE-Sim topology file: `export_topology resnet50 > resnet50.csv`.

use hw_sim::networks::builtin;
use hw_sim::scalesim::Topology;

fn main() -> Result<(), hw_sim::HwError> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "resnet50".into());
    print!("{}", Topology::from_workload(&builtin(&name)?)?.to_csv());
    Ok(())
}
