//! The results of `verilume eval`: one line per picture, and a summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ModelUsed, Stamp};
use crate::reliability::bootstrap::{Bootstrap, Estimate};

/// One picture, and the measurements of each method's map.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Path of the file as given or found; `mosaic` for a mosaic.
    pub input: String,
    /// Row of an array, or number of the mosaic.
    pub index: Option<usize>,
    /// The pictures of a mosaic: top left, top right, bottom left, bottom right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// The true class; on a mosaic, the target class, which is that of one of its cells.
    pub label: Option<usize>,
    /// Its name.
    pub label_name: Option<String>,
    /// The class with the highest score.
    pub prediction: Option<usize>,
    /// Its name.
    pub prediction_name: Option<String>,
    /// Whether the prediction is the true class; on a mosaic, whether it is the class of a cell.
    pub correct: Option<bool>,
    /// Class explained.
    pub target: Option<usize>,
    /// Its name.
    pub target_name: Option<String>,
    /// The measurements, by method.
    pub methods: BTreeMap<String, Measured>,
    /// Annotations that were ignored, such as boxes outside the crop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why the picture could not be used.
    pub error: Option<String>,
    /// Fingerprint: equal for lines made with the same model, preparation, methods, metrics and annotations.
    pub settings: String,
    /// The files' stamps when they were found.
    pub stamps: Vec<Option<Stamp>>,
    /// Settings that were assumed because neither the files nor the options give them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this format, [`RECORD_VERSION`](super::RECORD_VERSION); 0 for lines that predate the field.
    #[serde(default)]
    pub record_version: u32,
}

impl Evaluated {
    /// Number of failures on this picture: its own, and those of methods and metrics.
    pub fn failures(&self) -> usize {
        usize::from(self.error.is_some())
            + self.methods.values().map(|m| usize::from(m.error.is_some()) + m.errors.len()).sum::<usize>()
    }
}

/// The measurements of one method on one picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds for the map; a batch's time is divided equally among its pictures.
    pub seconds: f64,
    /// The number, by output; `None` if it is undefined for this picture.
    pub readings: BTreeMap<String, Option<f64>>,
    /// Notes on the map, by name, such as `all_zero` or other quantities measured by the method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// Why there is no number, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
    /// Why there is no map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which values of a number are better.
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
    /// Its name in records, followed by `-2`, `-3` … for repeats.
    pub id: String,
    /// Its spec, as on the command line.
    pub spec: String,
    /// Authors, year, title, venue.
    pub paper: String,
}

/// The mean of one output of one metric over the maps of one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanScore {
    /// The method; `None` for results of the net alone.
    pub method: Option<String>,
    /// The metric; `None` for results of the net alone.
    pub metric: Option<String>,
    /// The number's name.
    pub output: String,
    /// Which values are better.
    pub better: Direction,
    /// Mean over pictures and its bootstrap interval; `None` when no picture has the number.
    pub estimate: Option<Estimate>,
    /// The estimate's mean; `None` when no picture has the number.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Number of pictures that have the number.
    #[serde(default)]
    pub n: usize,
    /// Number of pictures for which it could not be measured.
    pub failed: usize,
    /// The difference from the first method, on pictures that have both; `None` for the first.
    pub difference: Option<Difference>,
    /// Settings that were assumed because neither the files nor the options give them; in a summary, given for results
    /// of the net alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each; in a summary, given for results of the net alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A paired difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The method that is subtracted: this method's number minus that one's.
    pub against: String,
    /// Mean over pictures and its bootstrap interval.
    pub estimate: Option<Estimate>,
}

/// A whole run. It contains no times, so that equal runs have equal summaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the program.
    pub version: String,
    /// The net.
    pub model: ModelUsed,
    /// How pictures were prepared.
    pub preprocessing: serde_json::Value,
    /// The data as named by the user.
    pub data: Vec<String>,
    /// The units: `pictures`, or `mosaics` with their size.
    pub kind: String,
    /// Number of pictures or mosaics.
    pub pictures: usize,
    /// Number of those that could not be used.
    pub failed: usize,
    /// Which class was explained.
    pub target: String,
    /// The class score that was explained.
    pub score: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Device and precision.
    pub device: String,
    /// The methods, in order.
    pub methods: Vec<Asked>,
    /// The metrics, in order.
    pub metrics: Vec<Asked>,
    /// How intervals were made.
    pub bootstrap: Bootstrap,
    /// The net's accuracy, then every method's scores.
    pub scores: Vec<MeanScore>,
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
