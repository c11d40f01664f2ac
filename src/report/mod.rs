//! The textual output of a run: one line of JSON per result, and a manifest of the whole run.

pub mod check;
pub mod eval;
pub mod figures;
#[cfg(feature = "html")]
pub mod html;
mod journal;
mod manifest;
mod partial;
mod record;
mod tally;

pub use journal::{About, Journal, JournalEntry, Line, Stamp, unless_unsupported};
pub use manifest::{FileStatus, Manifest, MethodUsed, ModelUsed, Status};
pub use partial::{Partial, left_in, of_rows, replace};
pub use record::{Prediction, Record};
pub use tally::Tally;

/// Format version of records, manifests and summaries. Within a version, keys are only added.
pub const RECORD_VERSION: u32 = 1;

/// Output for other programs, with the version of its format.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Versioned<T> {
    /// The contents.
    #[serde(flatten)]
    of: T,
    record_version: u32,
}

impl<T> Versioned<T> {
    /// `of`, in the current format.
    pub fn new(of: T) -> Self {
        Self { of, record_version: RECORD_VERSION }
    }
}
