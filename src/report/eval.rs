//! What `verilume eval` measured: one line a picture, and what the lines come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ModelUsed, Stamp};
use crate::reliability::bootstrap::{Bootstrap, Estimate};

/// One picture, and what each method's map of it measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Path of the file as it was given or found; `mosaic` for a mosaic.
    pub input: String,
    /// Row of an array, or number of the mosaic.
    pub index: Option<usize>,
    /// The pictures of a mosaic: top left, top right, bottom left, bottom right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// True class; on a mosaic the class asked for, which is that of one of its cells.
    pub label: Option<usize>,
    /// Its name.
    pub label_name: Option<String>,
    /// Class that the net gives the highest score.
    pub prediction: Option<usize>,
    /// Its name.
    pub prediction_name: Option<String>,
    /// Whether the prediction is the true class; on a mosaic, whether it is the class of a cell.
    pub correct: Option<bool>,
    /// Class explained.
    pub target: Option<usize>,
    /// Its name.
    pub target_name: Option<String>,
    /// By method, what was measured.
    pub methods: BTreeMap<String, Measured>,
    /// What was left out of the picture's description, such as boxes outside of the crop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why the picture could not be used.
    pub error: Option<String>,
    /// Equal for lines made with the same model, preparation, methods, metrics and description of the picture.
    pub settings: String,
    /// The files as they were found.
    pub stamps: Vec<Option<Stamp>>,
    /// What was assumed because neither the files nor the options say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// What is probably not as the user meant it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this form, [`RECORD_VERSION`](super::RECORD_VERSION); 0 for lines from before it was written.
    #[serde(default)]
    pub record_version: u32,
}

impl Evaluated {
    /// Failures on this picture: the picture's own, methods' and metrics'.
    pub fn failures(&self) -> usize {
        usize::from(self.error.is_some())
            + self.methods.values().map(|m| usize::from(m.error.is_some()) + m.errors.len()).sum::<usize>()
    }
}

/// What was measured of one method on one picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds that the map took; a batch's time is shared equally by its pictures.
    pub seconds: f64,
    /// By output, the number; `None` where it has no meaning on this picture.
    pub readings: BTreeMap<String, Option<f64>>,
    /// What is to be said of the map, by name, such as `all_zero` or what the method measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// By metric, why there is no number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
    /// Why there is no map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which way a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smaller ones.
    Lower,
    /// Larger ones.
    Higher,
    /// Neither.
    Neither,
}

/// A method or a metric with all its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its name in records, `-2`, `-3` … behind it when it was asked for again.
    pub id: String,
    /// What the command line would have to say for it.
    pub spec: String,
    /// Authors, year, title, venue.
    pub paper: String,
}

/// The mean of one output of one metric over the maps of one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The method; `None` for what the net alone does.
    pub method: Option<String>,
    /// The metric; `None` for what the net alone does.
    pub metric: Option<String>,
    /// The number's name.
    pub output: String,
    /// Which way it is better.
    pub better: Direction,
    /// Mean over pictures and its bootstrap interval; `None` when no picture has the number.
    pub estimate: Option<Estimate>,
    /// The estimate's mean; `None` when no picture has the number.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Pictures that have the number.
    #[serde(default)]
    pub n: usize,
    /// Pictures on which it could not be measured.
    pub failed: usize,
    /// How the method differs from the first one, on pictures that both have; `None` for the first.
    pub difference: Option<Difference>,
    /// What was assumed because neither the files nor the options say it; in a summary, said of what the net alone does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// What is probably not as the user meant it, one sentence each; in a summary, said of what the net alone does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A paired difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The method it is taken from: this method's number less that method's.
    pub against: String,
    /// Mean over pictures and its bootstrap interval.
    pub estimate: Option<Estimate>,
}

/// A whole run. It says nothing of time, so that equal runs have equal summaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Of the program.
    pub version: String,
    /// The net.
    pub model: ModelUsed,
    /// How pictures became numbers.
    pub preprocessing: serde_json::Value,
    /// The data as they were named.
    pub data: Vec<String>,
    /// What was measured on: `pictures`, or `mosaics` and their size.
    pub kind: String,
    /// Pictures or mosaics.
    pub pictures: usize,
    /// Those that could not be used.
    pub failed: usize,
    /// Which class was explained.
    pub target: String,
    /// Which score of a class was explained.
    pub score: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Where, and in which numbers, it was computed.
    pub device: String,
    /// The methods, in order.
    pub methods: Vec<Asked>,
    /// The metrics, in order.
    pub metrics: Vec<Asked>,
    /// How intervals were made.
    pub bootstrap: Bootstrap,
    /// The net's accuracy, then every method's scores.
    pub scores: Vec<Score>,
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
