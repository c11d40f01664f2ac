//! [`Record`]: what one method said about one input.

use serde::{Deserialize, Serialize};

use super::RECORD_VERSION;
use crate::map::{Gap, Shares};

/// A class among the best for an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the class.
    pub index: usize,
    /// Its name, where names are known.
    pub label: Option<String>,
    /// Its score, of the kind asked for.
    pub score: f64,
}

/// One result, or the reason why there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The input's path as it was given or found.
    pub input: String,
    /// Row of an array; `None` for a picture.
    pub index: Option<usize>,
    /// The method's name, `-2`, `-3` … behind it when it was asked for again; `None` when the input is unusable.
    pub method: Option<String>,
    /// Class explained.
    pub target: Option<usize>,
    /// Its name, where names are known.
    pub target_label: Option<String>,
    /// Its score, of the kind asked for.
    pub score: Option<f64>,
    /// The best five classes, best first.
    pub prediction: Vec<Prediction>,
    /// How far the map is from what the method promises.
    pub gap: Option<Gap>,
    /// What else the method measured, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// Seconds the method took; a batch's time is shared equally by its items.
    pub seconds: f64,
    /// Most memory the engine has held so far, bytes.
    pub peak_bytes: u64,
    /// Files written.
    pub files: Vec<String>,
    /// Their sizes, one each; none for records from before they were written down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u64>,
    /// Why there is no result.
    pub error: Option<String>,
    /// How the score was shared out, for methods that share it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// What was assumed because neither the files nor the options say it, such as `preparation: ImageNet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// What is probably not as the user meant it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this form, [`RECORD_VERSION`](super::RECORD_VERSION); 0 for records from before it was written.
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
