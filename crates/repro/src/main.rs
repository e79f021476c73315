//! `repro`: all papers.
//!
//! Experiments live in the program, not in the library: who uses the library alone, such as its tests, links no libtorch
//! and starts at once.

mod experiments;

use std::process::ExitCode;

// As if experiments lived beside the library's own modules.
use repro::*;

fn main() -> ExitCode {
    let registry = Registry {
        experiments: experiments::all(),
        prepare_worker: || tch::set_num_threads(1),
        program: "cargo xtask repro",
        versions: vec![("tch", "0.24".into()), ("libtorch", "2.11.0".into())],
    };
    repro::main_with(&registry)
}
