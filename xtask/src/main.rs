//! `cargo xtask <command>`: from a bare clone to a working tree, and from there to the report.
//!
//! This crate knows libtorch and data sets as *files to be put in place* and drives cargo; it never links libtorch,
//! so that it builds in seconds on a machine that has nothing yet. Downloads go through the tools that such a machine
//! has (`curl`, `pip`, `apt-get`), everything fetched is checked against a pinned SHA-256 (but pytorch.org's archive, of
//! which none is published: it has TLS and its members' CRC-32), assembled in a staging folder and renamed into place at
//! the end: whatever interrupts it, what is in place is whole.

mod commands;
mod datasets;
mod digest;
mod disk;
mod download;
mod libtorch;
mod process;
mod progress;
mod staging;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{bench, ci, data, doc, repro, setup, test};

/// Sets up libtorch and data, then drives cargo.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Data(data::Args),
    Repro(repro::Args),
    Test(test::Args),
    Bench(bench::Args),
    Doc(doc::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Repro(args) => repro::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doc(args) => doc::run(&args),
        Command::Ci(args) => ci::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", commands::with_reasons(&error));
        ExitCode::FAILURE
    })
}
