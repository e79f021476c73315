//! `cargo xtask doc`: the workspace's documentation.

use std::process::ExitCode;

use anyhow::Result;

use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, then `cargo doc --workspace --no-deps`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Handed to cargo doc (`--open`, …)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    let mut cargo = workspace.cargo();
    cargo.args(["doc", "--workspace", "--no-deps"]).args(&args.rest);
    process::replace_with(cargo)
}
