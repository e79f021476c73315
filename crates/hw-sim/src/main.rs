//! `hw-sim`: what a network costs on an accelerator, from the command line.

mod cli;

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let output = cli::Cli::parse().run()?;
    // A closed pipe (`hw-sim … | head`) is no error.
    use std::io::Write as _;
    match std::io::stdout().write_all(output.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
