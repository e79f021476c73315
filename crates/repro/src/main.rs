//! `repro`: all papers.

use std::process::ExitCode;

use repro::Registry;

fn main() -> ExitCode {
    let registry = Registry {
        experiments: repro::experiments::all(),
        prepare_worker: || tch::set_num_threads(1),
        program: "cargo xtask repro",
        versions: vec![("tch", "0.24".into()), ("libtorch", "2.11.0".into())],
    };
    repro::main_with(&registry)
}
