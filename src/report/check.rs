//! The results of `verilume check`: tests, verdicts, the numbers behind them, and the pictures that show them.

use serde::{Deserialize, Serialize};

use super::{ModelUsed, Prediction};
pub use crate::reliability::check::{Finding, Threshold, Verdict};

/// A kind of test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestUsed {
    /// Name in records.
    pub id: String,
    /// Name in running text.
    pub title: String,
    /// The question that it answers, as one sentence.
    pub question: String,
    /// Authors, year, title, venue.
    pub paper: String,
}

/// A method that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChecked {
    /// Its name, followed by `-2`, `-3` … for repeats.
    pub id: String,
    /// With all parameters.
    pub spec: String,
}

/// One picture with its findings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PictureChecked {
    /// Path as given or found.
    pub input: String,
    /// Row of an array.
    pub index: Option<usize>,
    /// The five best classes, best first.
    pub prediction: Vec<Prediction>,
    /// The tests' findings; empty if `error` is set.
    pub findings: Vec<Finding>,
    /// Why the picture could not be checked.
    pub error: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Version of the program.
    pub version: String,
    /// The net.
    pub model: ModelUsed,
    /// Device and precision.
    pub device: String,
    /// Seed of every draw.
    pub seed: u64,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// The tests that were run, in order.
    pub tests: Vec<TestUsed>,
    /// The methods, in order.
    pub methods: Vec<MethodChecked>,
    /// The pictures, in order.
    pub pictures: Vec<PictureChecked>,
    /// Settings that were assumed because neither the files nor the options give them.
    #[serde(default)]
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Version of this format, [`RECORD_VERSION`](super::RECORD_VERSION).
    #[serde(default)]
    pub record_version: u32,
}
