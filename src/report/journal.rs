//! [`Journal`]: the records of a run, one line of JSON each, safe against being killed at any moment. Lines are of any one
//! type, such as [`Line`] or [`Evaluated`](super::eval::Evaluated).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Record, replace};
use crate::error::{Error, Result};

/// Size and time of a file: where they differ it is not the same file any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Size.
    pub bytes: u64,
    /// Time of the last change, nanoseconds since 1970.
    pub modified: u64,
}

impl Stamp {
    /// Of the file at `path`, where it can be told.
    pub fn of(path: &Path) -> Option<Self> {
        let file = path.metadata().ok()?;
        let time = file.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Self { bytes: file.len(), modified: u64::try_from(time.as_nanos()).ok()? })
    }
}

/// A record and the settings under which it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Equal for records made with the same model, preprocessing, method and output settings.
    pub settings: String,
    /// The input as it was found; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

/// A file of lines that grows.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// What `path` holds. A missing file holds nothing; a last line that was cut off, which is all that a kill leaves
    /// behind, is left out.
    ///
    /// # Errors
    /// When the file cannot be read or any other line is no record: the file has been changed by somebody else, and the
    /// message says which line. Without the line, or without the file, a run can go on.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(path, e)),
        };
        let mut lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
        // What follows the last line end: nothing, or a line whose end was not written.
        let torn = lines.pop().unwrap_or_default();
        let record = |(i, line): (usize, &&[u8])| {
            serde_json::from_slice(line).map_err(|e| {
                Error::input(format!("{}: line {} is no record ({e}); mend or delete it", path.display(), i + 1))
            })
        };
        let whole: Vec<T> = lines.iter().enumerate().map(record).collect::<Result<_>>()?;
        Ok(whole.into_iter().chain(serde_json::from_slice(torn).ok()).collect())
    }

    /// A journal at `path` that holds `kept` and nothing else.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start<T: Serialize>(path: &Path, kept: &[T]) -> Result<Self> {
        let mut bytes = Vec::new();
        for line in kept {
            bytes.extend(encode(line)?);
        }
        replace(path, &bytes)?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line; it is in the file when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append<T: Serialize>(&mut self, line: &T) -> Result<()> {
        // One write for the whole line: a kill leaves at most one torn line, the last.
        self.file.write_all(&encode(line)?).map_err(|e| Error::io(&self.path, e))
    }
}

fn encode<T: Serialize>(line: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).map_err(|e| Error::settings(format!("a record is not JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        assert_eq!(Journal::read::<Line>(&path).unwrap(), []);
        let line =
            |input: &str| Line { record: Record::failed(input, Some(3), "no"), settings: "ab".into(), stamp: None };
        let mut journal = Journal::start(&path, &[line("a")]).unwrap();
        journal.append(&line("b")).unwrap();
        journal.file.write_all(b"{\"input\":\"c\",\"ind").unwrap();
        assert_eq!(Journal::read::<Line>(&path).unwrap(), [line("a"), line("b")]);
        let kept: Vec<Line> = Journal::read(&path).unwrap();
        Journal::start(&path, &kept).unwrap().append(&line("d")).unwrap();
        assert_eq!(Journal::read::<Line>(&path).unwrap().len(), 3);
    }

    #[test]
    fn damage_that_no_kill_leaves_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let line =
            encode(&Line { record: Record::failed("a", None, "no"), settings: "ab".into(), stamp: None }).unwrap();
        let read = |middle: &[u8]| {
            std::fs::write(&path, [&line[..], middle, &line].concat()).unwrap();
            Journal::read::<Line>(&path)
        };
        for middle in [&b"{\"input\":\"c\",\"ind\n"[..], b"\n", b"\xff\n", b"{}\n"] {
            let message = read(middle).unwrap_err().to_string();
            assert!(message.contains("records.jsonl: line 2 "), "{message}");
        }
        assert_eq!(read(b"").unwrap().len(), 2);
        // Only the line end is missing.
        std::fs::write(&path, &line[..line.len() - 1]).unwrap();
        assert_eq!(Journal::read::<Line>(&path).unwrap().len(), 1);
    }
}
