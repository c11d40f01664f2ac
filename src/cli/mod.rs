//! The command line of Verilume. The rest of the library does the work; this reads options, finds files and reports.
//!
//! The program `verilume` consists of [`program`] alone, so that a host can offer the same program from its own library.

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

use std::ffi::OsString;
use std::sync::OnceLock;

use args::{Cli, Command};
pub use check::check_items;
use exit::ExitCode;
pub use listing::{methods_json, methods_text, metrics_json};
pub use tests_of_trust::json as tests_json;

use crate::engine::Settings;
use crate::model::{Model, Setting};
use crate::run::Named;
use crate::session::Session;
use crate::{Error, ErrorKind, Result};

/// What was typed, the program's name first.
static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// The words of the command line after the program's name.
fn words() -> impl Iterator<Item = &'static OsString> {
    WORDS.get().into_iter().flatten().skip(1)
}

/// Runs the program on `words`, its name first; returns its exit code. It answers on standard output and standard error,
/// catches Ctrl-C, and leaves the process by itself where `words` have no meaning or ask for help: it is for a process
/// that does nothing else.
#[must_use]
pub fn program(words: Vec<OsString>) -> u8 {
    silence_decoders();
    interrupt::outlive_limits();
    let mut command = Cli::read(WORDS.get_or_init(|| words)).command;
    bounds::settle(&mut command);
    answer(command).number()
}

/// Keeps panics of picture decoders, which become errors of their picture, off standard error.
pub fn silence_decoders() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        // A decoder's panic is an error of its picture.
        if !crate::image::is_decoding() {
            told(what);
        }
    }));
}

fn answer(command: Command) -> ExitCode {
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
        let kind = e.downcast_ref::<Error>().map(Error::kind);
        (if kind == Some(ErrorKind::Kernel) { talk::say_log } else { talk::say })(&format!("error: {e}"));
        ExitCode::from(if kind == Some(ErrorKind::Cancelled) { interrupt::INTERRUPTED } else { exit::UNUSABLE })
    })
}

/// A net that options opened.
pub struct Opened {
    /// The net on an engine, with its preparation and labels.
    pub session: Session,
    /// The engine's settings.
    pub settings: Settings,
    /// What the options say of the net's preparation.
    pub given: Vec<Setting>,
}

/// Opens a net as `verilume explain` does: `options` are its options on the net, its preparation, the score and the
/// engine, such as `--model=resnet50.safetensors`.
///
/// # Errors
/// With the sentence of the command line.
pub fn open(options: &[OsString]) -> Result<Opened> {
    let words = ["verilume", "explain", "--quiet"].map(OsString::from).into_iter().chain(options.iter().cloned());
    let mut command = Cli::parse(words.chain(["-".into()])).map_err(|e| Error::settings(first_sentence(&e)))?.command;
    bounds::settle(&mut command);
    let Command::Explain(args) = command else { return Err(Error::settings("these are not options of a net")) };
    let (session, settings) = args.shared.open(args.score).map_err(library_error)?;
    Ok(Opened { session, settings, given: args.shared.given() })
}

/// The methods that `texts` name; the command's own choice for `model` when there is none.
///
/// # Errors
/// When a text is not the name of a method with valid parameters.
pub fn named_methods(model: &Model, texts: &[String]) -> Result<Vec<Named>> {
    if texts.is_empty() { plan::default_methods(model).map_err(library_error) } else { crate::run::methods(texts) }
}

/// What is wrong with an option, without the advice to ask for help.
fn first_sentence(e: &clap::Error) -> String {
    let text = e.render().to_string();
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// The library's error that a command ended with; one of the command's own is about its options.
pub(crate) fn library_error(e: anyhow::Error) -> Error {
    e.downcast::<Error>().unwrap_or_else(|e| Error::settings(e.to_string()))
}
