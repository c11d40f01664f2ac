//! What an attack did to an input, as a record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{Prediction, RECORD_VERSION, Stamp};
use crate::run::keeper::RecordLine;

/// How alike the maps of one method are before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapsCompared {
    /// The method, with all parameters.
    pub method: String,
    /// Pixels of the top.
    pub k: usize,
    /// Share of the top pixels that the maps have in common: exact numbers; none where a map is constant, since its top is
    /// the order of rows.
    pub top_k_intersection: Option<f64>,
    /// Spearman's rank correlation; none where a map is constant.
    pub spearman: Option<f64>,
    /// The same for the picture of levels.
    pub top_k_intersection_png: Option<f64>,
    /// The same for the picture of levels.
    pub spearman_png: Option<f64>,
    /// Notes of the map before, such as `all_zero`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// Notes of the map after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes_after: Vec<(String, f64)>,
}

/// One attack on one input, or the reason why there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttackRecord {
    /// The input's path as it was given or found.
    pub input: String,
    /// Row of an array; none for a picture.
    pub index: Option<usize>,
    /// The attack's name, `-2`, `-3` … behind it when it was asked for again; none when the input is unusable.
    pub attack: Option<String>,
    /// Every parameter's value.
    pub parameters: BTreeMap<String, String>,
    /// Class that was to be left, or whose map was attacked.
    pub target: Option<usize>,
    /// Its name.
    pub target_label: Option<String>,
    /// Class that was to be predicted, where one was wanted.
    pub wanted: Option<usize>,
    /// Its name.
    pub wanted_label: Option<String>,
    /// The best five classes of the original.
    pub prediction_before: Vec<Prediction>,
    /// Those of the exact adversarial input.
    pub prediction_after: Vec<Prediction>,
    /// Those of the picture of levels.
    pub prediction_png: Option<Vec<Prediction>>,
    /// Whether the prediction changed.
    pub flipped: Option<bool>,
    /// Whether the attack did what it promises.
    pub succeeded: Option<bool>,
    /// Whether the prediction on the picture of levels is another.
    pub flipped_png: Option<bool>,
    /// Whether the picture's prediction is what the attack promises.
    pub succeeded_png: Option<bool>,
    /// What the attack makes large, on the original.
    pub objective_before: Option<f64>,
    /// The same on the adversarial input.
    pub objective_after: Option<f64>,
    /// Steps that led to the result.
    pub iterations: Option<usize>,
    /// Largest change of a number, normalised units.
    pub linf: Option<f64>,
    /// The same in levels.
    pub linf_levels: Option<f64>,
    /// Largest change in the picture of levels, normalised units.
    pub linf_png: Option<f64>,
    /// The same in levels.
    pub linf_png_levels: Option<f64>,
    /// Maps before and after.
    pub maps: Vec<MapsCompared>,
    /// Seconds of the attack; a batch's time is shared equally by its items.
    pub seconds: f64,
    /// Most memory the engine has held so far, bytes.
    pub peak_bytes: u64,
    /// Files written.
    pub files: Vec<String>,
    /// Their sizes, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u64>,
    /// Why there is no result.
    pub error: Option<String>,
    /// What was assumed because neither the files nor the options say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// What is probably not as the user meant it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this form; 0 for records from before it was written.
    #[serde(default)]
    pub record_version: u32,
}

/// A record in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackLine {
    /// The record.
    #[serde(flatten)]
    pub record: AttackRecord,
    /// The input as it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// Hash of its place in the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Key of the raw files that rows of an array lie in until all are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

impl RecordLine for AttackLine {
    const KEY: &'static str = "attack";

    fn index(&self) -> Option<usize> {
        self.record.index
    }

    fn maker(&self) -> Option<&str> {
        self.record.attack.as_deref()
    }

    fn error(&self) -> Option<&str> {
        self.record.error.as_deref()
    }

    fn succeeded(&self) -> bool {
        self.record.succeeded == Some(true)
    }

    fn fail(&mut self, why: String) {
        self.record.error = Some(why);
    }

    fn remarks(&mut self) -> (&mut Vec<String>, &mut Vec<String>) {
        (&mut self.record.assumed, &mut self.record.warnings)
    }

    fn files(&self) -> &[String] {
        &self.record.files
    }

    fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    fn on_disk(&mut self, bytes: Vec<u64>) {
        self.record.bytes = bytes;
    }
}

impl AttackRecord {
    /// An input that could not be used.
    pub fn failed(input: &str, index: Option<usize>, why: &str) -> Self {
        let record_version = RECORD_VERSION;
        Self { input: input.into(), index, error: Some(why.into()), record_version, ..Self::default() }
    }
}
