//! `verilume check` as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{SCORES, SharedArgs};
use crate::cli::values;
use crate::program::Score;

/// Test whether methods can be believed, on a net, picture by picture
///
/// Every test checks something that a reader of a map takes for granted, such as that another class gives another map.
/// The result is a number with a bound. Nobody knows where the net really looks: a method that passes may still be
/// wrong, and one that fails does not show what readers believe.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Pictures, folders, globs, .npy or .safetensors arrays, as `explain` takes them; `-` reads a list of paths
    #[arg(value_name = "INPUT", required_unless_present_any = ["list_tests", "kindermans"])]
    pub inputs: Vec<OsString>,

    /// Method, `name` or `name:key=value,...`; may repeat
    ///
    /// Default: gradient, input_x_gradient, integrated_gradients, smoothgrad, guided_backprop and, for nets with
    /// positions, grad_cam. `verilume explain --list-methods` lists the names.
    #[arg(short, long = "method", value_name = "METHOD")]
    pub methods: Vec<String>,

    /// Tests to run, separated by commas [default: all]
    #[arg(long, value_name = "TEST,...", value_delimiter = ',')]
    pub tests: Vec<String>,

    /// Score of the class that the methods explain
    #[arg(long, value_parser = SCORES, value_name = "SCORE", default_value = "logit")]
    pub score: Score,

    /// Folder for check.json and check.html
    #[arg(short, long = "out", value_name = "DIR", default_value = "verilume-check")]
    pub out: PathBuf,

    /// Kinds of reports to write, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "F,...", default_value = "html,json")]
    pub format: Vec<ReportFormat>,

    /// Number of pictures whose maps check.html shows; for the others it has only the numbers
    ///
    /// A map takes 10 to 20 kB. With the default methods and tests a picture takes half a megabyte.
    #[arg(long, value_name = "N", default_value = "24")]
    pub drawn: usize,

    /// Print one JSON object a finding instead of a table
    ///
    /// Keys: input, index, method, test, verdict (pass, fail, not_applicable), value, threshold (at_most or at_least),
    /// measure, detail, notes, error. An input that cannot be used gives one object with `method` and `test` null.
    #[arg(long)]
    pub json: bool,

    /// Exit with 1 when a method fails a test, for use in scripts
    #[arg(long)]
    pub fail_on_verdict: bool,

    /// List the tests with their questions and papers and exit (with --json, as JSON)
    #[arg(long)]
    pub list_tests: bool,

    /// Only measure the table of outcomes of Kindermans et al. 2017 on a net and its data
    ///
    /// Shows which methods keep their map when all data are shifted: by a constant, by a checkered box and by a
    /// drawing. Needs --data. A cell shows whether the map stayed, the largest change, and any disagreement with the
    /// paper.
    #[arg(long, requires = "data", conflicts_with_all = ["inputs", "methods", "tests", "list_tests"])]
    pub kindermans: bool,

    /// With --kindermans: pictures or arrays of the net's data, to which patterns are fitted; may repeat
    #[arg(long, value_name = "FOLDER|FILE", requires = "kindermans")]
    pub data: Vec<OsString>,

    /// With --kindermans: number of pictures to explain, the first of the data
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "8", requires = "kindermans")]
    pub explained: usize,

    #[command(flatten)]
    pub shared: SharedArgs,
}

/// A report of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A self-contained page with the maps (check.html)
    Html,
    /// All numbers (check.json)
    Json,
}

const EXAMPLES: &str = "Examples:
  verilume check cat.jpg
  verilume check photos/ -m gradient -m guided_backprop --tests wrong_class,cascading_randomisation -o report
  verilume check cat.jpg -m ig:steps=64 --fail-on-verdict --json
  verilume check --kindermans --model mlp.safetensors --data digits.safetensors

Exit code: 0 all inputs checked, with any verdicts; 1 some inputs could not be checked, or with --fail-on-verdict a
method fails a test; 2 wrong usage or nothing could be checked.";
