//! The record of an attack on an input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{Prediction, RECORD_VERSION, Stamp};
use crate::run::keeper::RecordLine;

/// Similarity of one method's maps before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapsCompared {
    /// The method, with all parameters.
    pub method: String,
    /// Number of top pixels.
    pub k: usize,
    /// Share of the top pixels that the maps have in common, for the exact numbers; `None` if a map is constant,
    /// because its top is then arbitrary.
    pub top_k_intersection: Option<f64>,
    /// Spearman's rank correlation; `None` if a map is constant.
    pub spearman: Option<f64>,
    /// The same for the picture of levels.
    pub top_k_intersection_png: Option<f64>,
    /// The same for the picture of levels.
    pub spearman_png: Option<f64>,
    /// Notes on the map before, such as `all_zero`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<(String, f64)>,
    /// Notes on the map after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes_after: Vec<(String, f64)>,
}

/// One attack on one input, or why it failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttackRecord {
    /// The input's path as given or found.
    pub input: String,
    /// Row of an array; `None` for a picture.
    pub index: Option<usize>,
    /// The attack's name, followed by `-2`, `-3` … for repeats; `None` if the input is unusable.
    pub attack: Option<String>,
    /// Every parameter's value.
    pub parameters: BTreeMap<String, String>,
    /// The class to move away from, or the class whose map was attacked.
    pub target: Option<usize>,
    /// Its name.
    pub target_label: Option<String>,
    /// The class aimed for, if any.
    pub wanted: Option<usize>,
    /// Its name.
    pub wanted_label: Option<String>,
    /// The five best classes of the original.
    pub prediction_before: Vec<Prediction>,
    /// Those of the exact adversarial input.
    pub prediction_after: Vec<Prediction>,
    /// Those of the picture of levels.
    pub prediction_png: Option<Vec<Prediction>>,
    /// Whether the prediction changed.
    pub flipped: Option<bool>,
    /// Whether the attack fulfils its promise.
    pub succeeded: Option<bool>,
    /// Whether the prediction on the picture of levels differs.
    pub flipped_png: Option<bool>,
    /// Whether the picture's prediction fulfils the attack's promise.
    pub succeeded_png: Option<bool>,
    /// The objective that the attack maximises, on the original.
    pub objective_before: Option<f64>,
    /// The same on the adversarial input.
    pub objective_after: Option<f64>,
    /// Number of steps to the result.
    pub iterations: Option<usize>,
    /// Largest change of a number, in normalised units.
    pub linf: Option<f64>,
    /// The same, in levels.
    pub linf_levels: Option<f64>,
    /// Largest change in the picture of levels, in normalised units.
    pub linf_png: Option<f64>,
    /// The same, in levels.
    pub linf_png_levels: Option<f64>,
    /// Maps before and after.
    pub maps: Vec<MapsCompared>,
    /// Seconds of the attack; a batch's time is divided equally among its items.
    pub seconds: f64,
    /// Peak memory of the engine so far, in bytes.
    pub peak_bytes: u64,
    /// Files written.
    pub files: Vec<String>,
    /// Their sizes, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u64>,
    /// Why there is no result.
    pub error: Option<String>,
    /// Settings that were assumed because neither the files nor the options give them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of this format; 0 for records that predate the field.
    #[serde(default)]
    pub record_version: u32,
}

/// A record in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackLine {
    /// The record.
    #[serde(flatten)]
    pub record: AttackRecord,
    /// The file's stamp when it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// Hash of its location in the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Key of the partial raw files in which rows of an array are stored until all are done.
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
