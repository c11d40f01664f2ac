//! The command line of Verilume. The library does the work; this program reads options, finds files and reports.

mod args;
mod arrays;
mod attack;
mod bench;
mod book;
mod check;
mod completions;
mod computing;
mod data;
mod detector;
mod doctor;
mod drawing;
mod eval;
mod explain;
mod inputs;
mod items;
#[cfg(feature = "cuda")]
mod kernels;
mod kindermans;
mod listing;
mod methods;
mod model;
mod outputs;
mod paths;
mod patterns;
mod plan;
mod profile;
mod resume;
mod runner;
mod said;
mod stream;
mod subject;
mod talk;
mod targets;
mod tests_of_trust;
mod timeline;
mod timing;
mod values;
mod verdicts;
mod verify;

use std::process::ExitCode;

use args::{Cli, Command};

/// Wrong usage, or nothing could be done.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::read().command {
        Command::Explain(args) => explain::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Attack(args) => attack::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Profile(args) => profile::run(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "cuda")]
        Command::Kernels(args) => kernels::run(&args),
        Command::Patterns(args) => patterns::run(&args),
        Command::Detector(args) => detector::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|e| {
        talk::say(&format!("error: {e}"));
        ExitCode::from(UNUSABLE)
    })
}
