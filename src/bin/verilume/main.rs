//! The command line of Verilume. The library does the work; this program reads options, finds files and reports.

mod args;
mod attack;
mod bench;
mod bounds;
mod check;
mod completions;
mod computing;
mod detector;
mod doctor;
mod eval;
mod exit;
mod explain;
mod interrupt;
#[cfg(feature = "cuda")]
mod kernels;
mod kindermans;
mod listing;
mod measured_net;
mod model;
mod patterns;
mod plan;
mod profile;
mod records;
mod steps;
mod tables;
mod talk;
mod tests_of_trust;
mod timeline;
mod timing;
mod values;
mod verdicts;
mod verify;

use std::process::ExitCode;

use args::{Cli, Command};
use verilume::ErrorKind;

fn main() -> ExitCode {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        // A decoder's panic is an error of its picture.
        if !verilume::image::is_decoding() {
            told(what);
        }
    }));
    interrupt::outlive_limits();
    let mut command = Cli::read().command;
    bounds::settle(&mut command);
    let done = match command {
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
        let kind = e.downcast_ref::<verilume::Error>().map(verilume::Error::kind);
        (if kind == Some(ErrorKind::Kernel) { talk::say_log } else { talk::say })(&format!("error: {e}"));
        ExitCode::from(if kind == Some(ErrorKind::Cancelled) { interrupt::INTERRUPTED } else { exit::UNUSABLE })
    })
}
