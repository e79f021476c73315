//! `repro`: all papers.
//!
//! Experiments live in the program, not in the library, which knows no method: who brings a paper of their own takes the
//! library alone. Of libtorch that uses nothing but the question whether a GPU is there.

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
