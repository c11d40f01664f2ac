//! [`Record`]: what one method said about one input.

use serde::{Deserialize, Serialize};

use crate::map::Gap;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Why there is no result.
    pub error: Option<String>,
}

impl Record {
    /// An input that could not be used.
    pub fn failed(input: impl Into<String>, index: Option<usize>, error: impl Into<String>) -> Self {
        Self {
            input: input.into(),
            index,
            method: None,
            target: None,
            target_label: None,
            score: None,
            prediction: Vec::new(),
            gap: None,
            notes: Vec::new(),
            seconds: 0.0,
            peak_bytes: 0,
            files: Vec::new(),
            error: Some(error.into()),
        }
    }
}
