//! [`Manifest`]: everything needed to reproduce the maps, and the status of each input.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::replace;
use crate::error::{Error, Result};

/// The status of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every method produced its map.
    Done,
    /// An earlier run with the same settings had completed it.
    Skipped,
    /// At least one map is missing.
    Failed,
}

/// One input file.
#[derive(Debug, Clone, Serialize)]
pub struct FileStatus {
    /// Its path as given or found.
    pub input: String,
    /// Its status.
    pub status: Status,
    /// Rows of an array; 1 for a picture.
    pub items: usize,
    /// Number of rows without a complete result.
    pub failed_items: usize,
    /// The first error.
    pub error: Option<String>,
}

/// The net that was explained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct ModelUsed {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// SHA-256 of its weights file, or of its shards one after the other.
    pub sha256: String,
    /// How its logits become probabilities: `softmax` or `sigmoid`; empty in files that do not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub head: String,
    /// What was read besides its tensors, one line per source, such as `config.json: architecture resnet50, mean`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
}

/// A method and all its parameters, defaults included.
#[derive(Debug, Clone, Serialize)]
pub struct MethodUsed {
    /// Id in its file names and records.
    pub id: String,
    /// Name in the registry.
    pub name: String,
    /// The spec for `-m` that gives the same result.
    pub spec: String,
    /// Every parameter's value.
    pub parameters: BTreeMap<String, String>,
    /// The value of [`super::Line::settings`] in this method's records.
    pub settings: String,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Manifest {
    /// Version of this library.
    pub version: String,
    /// The command, such as `explain`.
    pub command: String,
    /// The net.
    pub model: ModelUsed,
    /// How pictures were prepared.
    pub preprocessing: serde_json::Value,
    /// The methods.
    pub methods: Vec<MethodUsed>,
    /// Which classes were explained.
    pub target: String,
    /// The class score that was explained.
    pub score: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The device.
    pub device: String,
    /// The kernels it used.
    pub kernels: String,
    /// The precision.
    pub precision: String,
    /// Worker threads.
    pub threads: usize,
    /// Memory bound in bytes; `None` for no bound.
    pub memory_bytes: Option<u64>,
    /// Kinds of files written.
    pub formats: Vec<String>,
    /// `i/n` if this run processed only a part.
    pub shard: Option<String>,
    /// Files in folders that are neither pictures nor arrays.
    pub ignored_files: usize,
    /// Wall-clock time of this run.
    pub seconds: f64,
    /// Every input, in order.
    pub files: Vec<FileStatus>,
    /// Settings that were assumed because neither the files nor the options give them.
    pub assumed: Vec<String>,
    /// Probable mistakes, one sentence each.
    pub warnings: Vec<String>,
    /// Version of this format, [`RECORD_VERSION`](super::RECORD_VERSION).
    pub record_version: u32,
}

impl Manifest {
    /// Writes the manifest to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|e| Error::settings(format!("the manifest is not JSON: {e}")))?;
        bytes.push(b'\n');
        replace(path, &bytes)
    }
}
