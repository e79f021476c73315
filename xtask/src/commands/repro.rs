//! `cargo xtask repro`: set-up, data, then the experiments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use super::setup;
use crate::datasets::{self, Catalogue, Outcome};
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, fetch what data can be had, run the experiments and write out/report.html
///
/// Everything after `repro` is handed to the experiments' own command line: papers, --tier, --data, --out, --device,
/// --seeds, --jobs, --list, --force, --strict; `cargo xtask repro --help` explains them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// A paper's data: what its quick tier reads, and what the longer tiers read besides.
/// Papers that are not here make their own data, or use what only the user can bring.
const DATA: [(&str, &[&str], &[&str]); 7] = [
    ("kd-ticket", &["fashion-mnist"], &["cifar-10"]),
    ("cv-lth", &["fashion-mnist"], &["cifar-10"]),
    ("fractrain", &["fashion-mnist"], &["cifar-10"]),
    ("smartdeal", &[], &["fashion-mnist", "cifar-10"]),
    ("deep-forest", &["fashion-mnist"], &["mnist"]),
    ("acl", &["fashion-mnist"], &["cifar-10"]),
    ("shift-invariance", &["fashion-mnist"], &[]),
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    let asked = Asked::read(&args.rest);
    let root = workspace.data_root(asked.data.as_deref());
    // A root that somebody named and that is not there is a mistake, which the experiments report: none is made of it.
    if asked.runs && (root.is_dir() || root == workspace.default_data_root()) {
        fetch_what_can_be_had(&asked.sets, &root)?;
    }
    let mut cargo = workspace.cargo();
    if root.is_dir() {
        // The experiments look where we put it, from whichever folder they are started.
        cargo.env("REPRO_DATA", std::path::absolute(&root).unwrap_or(root));
    }
    cargo.args(["run", "--release", "--package", "repro", "--", "run"]).args(&args.rest);
    process::replace_with(cargo)
}

/// As much of the experiments' arguments as decides which data to fetch. Their meaning is checked where they go.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    sets: Vec<&'static str>,
    data: Option<PathBuf>,
    /// False when only a listing or a help text is asked for.
    runs: bool,
}

impl Asked {
    fn read(arguments: &[String]) -> Self {
        let value = |name: &str| {
            arguments.iter().enumerate().find_map(|(index, argument)| {
                let rest = argument.strip_prefix(name)?;
                match rest.strip_prefix('=') {
                    Some(value) => Some(value.to_owned()),
                    None if rest.is_empty() => arguments.get(index + 1).cloned(),
                    None => None,
                }
            })
        };
        let longer = value("--tier").is_some_and(|tier| tier != "quick");
        let named = |paper: &str| arguments.iter().any(|argument| argument == paper);
        let any_named =
            DATA.iter().any(|(paper, ..)| named(paper)) || PAPERS_WITHOUT_DATA.iter().any(|paper| named(paper));
        let mut sets: Vec<&str> = DATA
            .iter()
            .filter(|(paper, ..)| !any_named || named(paper))
            .flat_map(|(_, quick, more)| quick.iter().chain(more.iter().filter(|_| longer)))
            .copied()
            .collect();
        sets.sort_unstable();
        sets.dedup();
        let runs = !arguments.iter().any(|argument| ["--list", "--help", "-h"].contains(&argument.as_str()));
        Self { sets, data: value("--data").map(PathBuf::from), runs }
    }
}

/// Papers whose experiments need nothing that can be fetched.
const PAPERS_WITHOUT_DATA: [&str; 3] = ["earlybert", "fas", "grouping"];

/// Missing data is not an error here: the experiments say what they ran on, and what they could not run.
fn fetch_what_can_be_had(names: &[&str], root: &Path) -> Result<()> {
    let catalogue = Catalogue::read(None)?;
    for name in names {
        let set = catalogue.find(name)?;
        if let datasets::State::Present { .. } = datasets::glance(set, root) {
            continue;
        }
        match datasets::fetch(set, root, None) {
            Ok(Outcome::Present(_)) => {}
            Ok(Outcome::Fetched(folder, source)) => eprintln!("{name}: in {}, from {source}", folder.display()),
            Err(error) => eprintln!("{name}: going on without it: {}", super::with_reasons(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Asked {
        Asked::read(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_quick_tier_of_everything_reads_only_fashion_mnist() {
        assert_eq!(asked(&[]).sets, ["fashion-mnist"]);
        assert_eq!(asked(&["--tier", "quick"]).sets, ["fashion-mnist"]);
    }

    #[test]
    fn a_longer_tier_of_one_paper_reads_that_papers_sets() {
        assert_eq!(asked(&["kd-ticket", "--tier", "standard"]).sets, ["cifar-10", "fashion-mnist"]);
        assert_eq!(asked(&["smartdeal", "--tier=standard"]).sets, ["cifar-10", "fashion-mnist"]);
        assert_eq!(asked(&["deep-forest", "--tier=standard"]).sets, ["fashion-mnist", "mnist"]);
        assert!(asked(&["fas", "--tier=standard"]).sets.is_empty());
    }

    #[test]
    fn the_data_root_is_read_in_both_spellings() {
        assert_eq!(asked(&["--data", "d"]).data, Some(PathBuf::from("d")));
        assert_eq!(asked(&["--data=d"]).data, Some(PathBuf::from("d")));
        assert_eq!(asked(&["--database=d"]).data, None);
    }

    #[test]
    fn a_listing_runs_nothing() {
        assert!(!asked(&["--list"]).runs);
        assert!(asked(&["kd-ticket"]).runs);
    }

    #[test]
    fn every_set_named_here_is_in_the_catalogue() {
        let catalogue = Catalogue::read(None).unwrap();
        for (_, quick, more) in DATA {
            for name in quick.iter().chain(more) {
                assert!(catalogue.find(name).unwrap().is_fetchable());
            }
        }
    }
}
