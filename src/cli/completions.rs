//! `verilume completions`.

use anyhow::Result;

use crate::cli::args::{Cli, CompletionsArgs};
use crate::cli::talk::StandardOutput;

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::parser(), "verilume", &mut script);
    Ok(StandardOutput::default().line(String::from_utf8_lossy(&script).trim_end())?)
}
