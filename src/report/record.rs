//! [`Record`]: the result of one method on one input.

use serde::{Deserialize, Serialize};

use super::RECORD_VERSION;
use crate::map::{Gap, Shares};

/// One of the best classes for an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the class.
    pub index: usize,
    /// Its name, if known.
    pub label: Option<String>,
    /// Its score, of the requested kind.
    pub score: f64,
}

/// One result, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The input's path as given or found.
    pub input: String,
    /// Row of an array; `None` for a picture.
    pub index: Option<usize>,
    /// The method's name, followed by `-2`, `-3` … for repeats; `None` if the input is unusable.
    pub method: Option<String>,
    /// The explained class.
    pub target: Option<usize>,
    /// Its name, if known.
    pub target_label: Option<String>,
    /// Its score, of the requested kind.
    pub score: Option<f64>,
    /// The five best classes, best first.
    pub prediction: Vec<Prediction>,
    /// By how much the map misses the method's promise.
    pub gap: Option<Gap>,
    /// Other quantities that the method measured, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// Seconds of the method; a batch's time is divided equally among its items.
    pub seconds: f64,
    /// Peak memory of the engine so far, in bytes.
    pub peak_bytes: u64,
    /// Files written.
    pub files: Vec<String>,
    /// Their sizes, one each; empty for records that predate the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u64>,
    /// Why there is no result.
    pub error: Option<String>,
    /// How the score was distributed, for methods that distribute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// Settings that were assumed because neither the files nor the options give them, such as `preparation: ImageNet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this format, [`RECORD_VERSION`](super::RECORD_VERSION); 0 for records that predate the field.
    #[serde(default)]
    pub record_version: u32,
}

impl Record {
    /// An input that could not be used.
    pub fn failed(input: impl Into<String>, index: Option<usize>, error: impl Into<String>) -> Self {
        let record_version = RECORD_VERSION;
        Self { input: input.into(), index, error: Some(error.into()), record_version, ..Self::default() }
    }
}
