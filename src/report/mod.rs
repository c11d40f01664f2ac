//! What a run leaves behind besides pictures: one line of JSON a result, and a manifest of the whole run.

mod journal;
mod manifest;
mod record;

pub use journal::{Journal, Line};
pub use manifest::{FileStatus, Manifest, MethodUsed, ModelUsed, Status};
pub use record::{Prediction, Record};

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where a file is written before it takes the place of `path`: beside it, so that the rename is atomic.
pub fn partial_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

/// Writes `bytes` to `path` so that a reader sees the old file or the whole new one.
///
/// # Errors
/// When the folder cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial_path(path);
    let written = std::fs::File::create(&partial).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| std::fs::rename(&partial, path)).map_err(|e| Error::io(path, e))
}
