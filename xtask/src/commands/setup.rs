//! `cargo xtask setup`: libtorch in place, so that plain cargo works afterwards.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::libtorch::{self, Outcome, Recipe, Request};
use crate::workspace::Workspace;

/// Put libtorch 2.11.0 into `.libtorch/`: linked to where LIBTORCH or Python has it, else fetched and verified
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to put it instead of the checkout's `.libtorch`
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Folder with the archives already downloaded; uses no network
    #[arg(long)]
    from: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// Another recipe than the built-in one (see xtask/libtorch.toml), for a mirror
    #[arg(long)]
    recipe: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    let recipe = Recipe::read(args.recipe.as_deref())?;
    let target = args.dir.clone().unwrap_or_else(|| workspace.libtorch());
    let outcome = libtorch::ensure(
        &Request {
            target: target.clone(),
            named: workspace.libtorch_of_user(),
            ask_python: asks_python(),
            from: args.from.clone(),
            force: args.force,
        },
        &recipe,
    )
    .map_err(|error| on_this_platform(error, &recipe))?;
    let version = &recipe.version;
    match outcome {
        Outcome::Present => println!("libtorch {version} is in order in {}", target.display()),
        Outcome::Linked(found) => {
            println!("libtorch {version} in {} is linked to {}", target.display(), found.display());
        }
        Outcome::Fetched(source) => println!("libtorch {version} from {source} is in {}", target.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that libtorch is there before a command that builds against it; says nothing when it is.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let recipe = Recipe::read(None)?;
    let request = Request {
        target: workspace.libtorch(),
        named: workspace.libtorch_of_user(),
        ask_python: asks_python(),
        from: None,
        force: false,
    };
    libtorch::ensure(&request, &recipe).map_err(|error| on_this_platform(error, &recipe))?;
    Ok(())
}

/// tch takes any value, even an empty one, for a yes.
fn asks_python() -> bool {
    env::var_os("LIBTORCH_USE_PYTORCH").is_some()
}

/// The archives of the recipe are built for Linux on x86-64; elsewhere only what the user names can work.
fn on_this_platform(error: anyhow::Error, recipe: &Recipe) -> anyhow::Error {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return error;
    }
    error.context(format!(
        "set-up fetches libtorch for Linux on x86-64 only: install libtorch {} and set LIBTORCH to its folder",
        recipe.version
    ))
}
