//! `cargo xtask ci`: what has to hold before a change goes in.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Format, lints, documentation and tests, all with warnings denied; stops at the first that fails
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    for component in ["fmt", "clippy"] {
        if !workspace.cargo().args([component, "--version"]).output().is_ok_and(|output| output.status.success()) {
            bail!("cargo {component} is missing: `rustup component add rustfmt clippy`");
        }
    }
    let begun = Instant::now();
    step("format", cargo(&workspace, &["fmt", "--all", "--check"]))?;
    setup::ensure(&workspace)?;
    step("lints", cargo(&workspace, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    let mut doc = cargo(&workspace, &["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    step("documentation", doc)?;
    step("tests", cargo(&workspace, &["test", "--workspace"]))?;
    // In a workspace's build every feature that one crate asks for is on, and what none asks for is off.
    let options = ["clippy", "-p", "forest", "--all-features", "--all-targets", "--", "--deny", "warnings"];
    step("lints of optional parts", cargo(&workspace, &options))?;
    step("tests of optional parts", cargo(&workspace, &["test", "-p", "forest", "--all-features"]))?;
    let bare = ["clippy", "-p", "core-tensor", "--no-default-features", "--", "--deny", "warnings"];
    step("core-tensor without libtorch", cargo(&workspace, &bare))?;
    links_no_libtorch(&workspace, &["hw-sim", "forest"])?;
    println!("ci: all steps passed in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Refuses crates that are promised to need no libtorch and come to depend on it.
fn links_no_libtorch(workspace: &Workspace, crates: &[&str]) -> Result<()> {
    for name in crates {
        let tree = ["tree", "-p", name, "--edges", "normal,build", "--prefix", "none"];
        let output = cargo(workspace, &tree).output().context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo tree -p {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        if String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with("torch-sys ")) {
            bail!("{name} depends on torch-sys: see `cargo tree -p {name} --invert torch-sys`");
        }
    }
    Ok(())
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command.args(arguments);
    command
}

fn step(name: &str, mut command: Command) -> Result<()> {
    println!("ci: {name}");
    let begun = Instant::now();
    let status = command.status().context("cannot run cargo")?;
    if process::exit_code(status) != ExitCode::SUCCESS {
        bail!("{name}: failed ({status}), see above");
    }
    println!("ci: {name} passed in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
