//! What a run leaves behind besides pictures: one line of JSON a result, and a manifest of the whole run.

pub mod check;
pub mod eval;
pub mod figures;
#[cfg(feature = "html")]
pub mod html;
mod journal;
mod manifest;
mod record;
mod tally;

pub use journal::{Journal, Line, Stamp};
pub use manifest::{FileStatus, Manifest, MethodUsed, ModelUsed, Status};
pub use record::{Prediction, Record};
pub use tally::Tally;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Version of the form of records, manifests and summaries. Within a version keys are only added.
pub const RECORD_VERSION: u32 = 1;

/// A file in the making. It lies beside its place, so that the rename is atomic, and goes away when it is dropped
/// before it is [put there](Self::place).
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    partial: PathBuf,
}

impl Partial {
    /// For a file at `path`, and the file to write to.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(path: &Path) -> Result<(Self, File)> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(|e| Error::io(path, e))?;
        Ok((Self { path: path.to_owned(), partial }, file))
    }

    /// Puts the file, which is closed by now, in its place.
    ///
    /// # Errors
    /// When something that is no file is there, or the folder cannot be written.
    pub fn place(self) -> Result<()> {
        std::fs::rename(&self.partial, &self.path).map_err(|e| Error::io(&self.path, e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing of that name.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Writes `bytes` to `path` so that a reader sees the old file or the whole new one.
///
/// # Errors
/// When the folder cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let (partial, mut file) = Partial::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io(path, e))?;
    drop(file);
    partial.place()
}
