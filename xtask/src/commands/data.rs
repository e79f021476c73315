//! `cargo xtask data list|fetch|verify`: the data sets below one root.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::datasets::{self, Catalogue, DataSet, Outcome, State};
use crate::workspace::Workspace;

/// List, fetch and verify the data sets that experiments ask for
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Root of the data sets; default: $REPRO_DATA, else `data/` of the checkout
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// Another catalogue than the built-in one (see xtask/datasets.toml), for mirrors
    #[arg(long, global = true)]
    catalogue: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Say which sets there are and which are here
    List,
    /// Get sets (all that can be fetched, if none is named)
    Fetch {
        sets: Vec<String>,
        /// Take them from this folder; uses no network
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// Compare every byte of what is here with the published checksums
    Verify { sets: Vec<String> },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = Workspace::current()?.data_root(args.data.as_deref());
    let catalogue = Catalogue::read(args.catalogue.as_deref())?;
    let all_well = match &args.action {
        Action::List => {
            // A reader that has seen enough (`| head`) is no error.
            let _ = io::stdout().write_all(list(&catalogue, &root).as_bytes());
            true
        }
        Action::Fetch { sets, from } => fetch(&chosen(&catalogue, sets)?, &root, from.as_deref()),
        Action::Verify { sets } => verify(&chosen(&catalogue, sets)?, &root, !sets.is_empty()),
    };
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sets named, or all that can be fetched.
fn chosen<'a>(catalogue: &'a Catalogue, names: &[String]) -> Result<Vec<&'a DataSet>> {
    if names.is_empty() {
        return Ok(catalogue.sets.iter().filter(|set| set.is_fetchable()).collect());
    }
    names.iter().map(|name| catalogue.find(name)).collect()
}

fn list(catalogue: &Catalogue, root: &Path) -> String {
    let mut text = format!("data root: {}\n", root.display());
    for set in &catalogue.sets {
        let state = match datasets::glance(set, root) {
            State::Present { layout, .. } => format!("here ({layout})"),
            State::Packed { archive } => format!(
                "packed: `cargo xtask data fetch {} --from {}` unpacks it",
                set.name,
                archive.parent().unwrap_or(root).display()
            ),
            State::Broken { reason } => format!("not complete: {reason}"),
            State::Absent if set.is_fetchable() => format!("not here: `cargo xtask data fetch {}`", set.name),
            State::Absent => {
                format!("not here: yours to bring, into {}", root.join(set.layouts[0].folder()).display())
            }
        };
        text += &format!("{:<14} {state}\n{:14} {}; licence: {}\n", set.name, "", set.title, set.licence);
    }
    text
}

fn fetch(sets: &[&DataSet], root: &Path, from: Option<&Path>) -> bool {
    let mut all_well = true;
    for set in sets {
        match datasets::fetch(set, root, from) {
            Ok(Outcome::Present(folder)) => println!("{}: here and whole in {}", set.name, folder.display()),
            Ok(Outcome::Fetched(folder, source)) => {
                println!("{}: in {}, from {source}", set.name, folder.display());
            }
            Err(error) => {
                all_well = false;
                eprintln!("{}: {}", set.name, super::with_reasons(&error));
            }
        }
    }
    all_well
}

fn verify(sets: &[&DataSet], root: &Path, named: bool) -> bool {
    let mut all_well = true;
    for set in sets {
        match datasets::verify(set, root) {
            State::Present { layout, folder, pinned: true } => {
                println!("{}: verified ({layout} in {})", set.name, folder.display());
            }
            State::Present { layout, folder, pinned: false } => {
                println!("{}: complete ({layout} in {}); no checksum is published for it", set.name, folder.display())
            }
            State::Broken { reason } => {
                all_well = false;
                println!("{}: BROKEN: {reason}", set.name);
            }
            State::Packed { archive } => {
                all_well &= !named;
                println!("{}: packed in {}", set.name, archive.display());
            }
            State::Absent => {
                all_well &= !named;
                println!("{}: not here", set.name);
            }
        }
    }
    all_well
}
