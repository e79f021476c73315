//! `cargo xtask test`: every test of the workspace, documentation included.

use std::process::ExitCode;

use anyhow::Result;

use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, then `cargo test --workspace` (unit, integration and documentation tests)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Handed to cargo test; with `-p CRATE` only that crate is tested
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    let mut cargo = workspace.cargo();
    cargo.arg("test");
    if !names_a_package(&args.rest) {
        cargo.arg("--workspace");
    }
    process::replace_with({
        cargo.args(&args.rest);
        cargo
    })
}

/// Whether cargo's own arguments choose packages. What follows `--` is for the tests themselves.
fn names_a_package(arguments: &[String]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| {
        argument == "--package"
            || argument.starts_with("--package=")
            || (argument.starts_with("-p") && !argument.starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_recognised_in_cargos_spellings_and_not_in_the_tests_own_arguments() {
        let read = |line: &str| names_a_package(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in ["-p lth", "-plth", "--package lth", "--doc --package=lth"] {
            assert!(read(line), "{line}");
        }
        for line in ["", "masks", "--release", "-- -p", "--profile release"] {
            assert!(!read(line), "{line}");
        }
    }
}
