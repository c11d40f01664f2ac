//! What `verilume check` found: tests, verdicts, the numbers behind them, and the pictures that show them.

use serde::{Deserialize, Serialize};

use super::{ModelUsed, Prediction};
pub use crate::reliability::check::{Finding, Threshold, Verdict};

/// A kind of test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Name in records.
    pub id: String,
    /// Name in prose.
    pub title: String,
    /// The question that it answers, in one sentence.
    pub question: String,
    /// Authors, year, title, venue.
    pub paper: String,
}

/// A method that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChecked {
    /// Its name, `-2`, `-3` … behind it when it was asked for again.
    pub id: String,
    /// With all parameters.
    pub spec: String,
}

/// One picture, its verdicts and what they were seen on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PictureChecked {
    /// Path as it was given or found.
    pub input: String,
    /// Row of an array.
    pub index: Option<usize>,
    /// The best five classes, best first.
    pub prediction: Vec<Prediction>,
    /// What the tests said; empty where `error` is set.
    pub findings: Vec<Finding>,
    /// Why the picture could not be checked.
    pub error: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Of the program.
    pub version: String,
    /// The net.
    pub model: ModelUsed,
    /// Where and in which numbers it was computed.
    pub device: String,
    /// Of every draw.
    pub seed: u64,
    /// Of the whole run.
    pub seconds: f64,
    /// The tests made, in order.
    pub tests: Vec<Test>,
    /// The methods, in order.
    pub methods: Vec<MethodChecked>,
    /// The pictures, in order.
    pub pictures: Vec<PictureChecked>,
    /// What was assumed because neither the files nor the options say it.
    #[serde(default)]
    pub assumed: Vec<String>,
    /// What is probably not as the user meant it, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Version of this form, [`RECORD_VERSION`](super::RECORD_VERSION).
    #[serde(default)]
    pub record_version: u32,
}
