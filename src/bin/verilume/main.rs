//! The command line of Verilume. The library does the work; this program reads options, finds files and reports.

mod args;
mod arrays;
mod attack;
mod bench;
mod book;
mod bounds;
mod check;
mod completions;
mod computing;
mod data;
mod detector;
mod doctor;
mod drawing;
mod earlier;
mod eval;
mod explain;
mod inputs;
mod items;
mod keeper;
#[cfg(feature = "cuda")]
mod kernels;
mod kindermans;
mod listing;
mod lists;
mod methods;
mod model;
mod npy;
mod outputs;
mod own;
mod paths;
mod patterns;
mod plan;
mod profile;
mod resume;
mod room;
mod runner;
mod said;
mod stream;
mod subject;
mod tables;
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
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        // A decoder's panic is an error of its picture.
        if !verilume::image::is_decoding() {
            told(what);
        }
    }));
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
        let is_log = e.downcast_ref::<verilume::Error>().is_some_and(|e| e.kind() == verilume::ErrorKind::Kernel);
        (if is_log { talk::say_log } else { talk::say })(&format!("error: {e}"));
        ExitCode::from(UNUSABLE)
    })
}
