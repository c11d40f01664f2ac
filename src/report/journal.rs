//! [`Journal`]: the records of a run, one line of JSON each; it survives a kill at any moment. Lines have any one type,
//! such as [`Line`] or [`Evaluated`](super::eval::Evaluated).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Partial, Record};
use crate::error::{Error, ErrorKind, Result, read_file};

/// Size and time of a file; if they differ, the file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Size.
    pub bytes: u64,
    /// Time of the last change, nanoseconds since 1970.
    pub modified: u64,
}

impl Stamp {
    /// The stamp of the file at `path`, if it can be read.
    pub fn of(path: &Path) -> Option<Self> {
        let file = path.metadata().ok()?;
        let time = file.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Self { bytes: file.len(), modified: u64::try_from(time.as_nanos()).ok()? })
    }
}

/// A record and the settings under which it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Fingerprint: equal for records made with the same model, preprocessing, method and output settings.
    pub settings: String,
    /// The input's stamp when it was found; `None` if it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// Hash of the input's location in the file system, which distinguishes inputs with the same relative path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Key of the partial raw files in which rows of an array are stored until all are done
    /// ([`of_rows`](super::of_rows)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

/// The fields of a journal line that matter for resuming, for every command.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct About {
    /// The input's path as given or found.
    pub input: String,
    /// Row of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Files written.
    pub files: Vec<String>,
    /// Their sizes, if the line has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u64>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As in [`Line`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// As in [`Line`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// As in [`Line`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

/// A line of a journal: its text and its contents.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry<T> {
    /// The line without its line break.
    pub text: Vec<u8>,
    /// The fields common to all commands.
    pub about: About,
    /// The full contents; `None` for a line of another command.
    pub line: Option<T>,
}

/// An append-only file of lines.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The lines in `path`. A missing file has none; a truncated last line, which is all that a kill can leave, is
    /// ignored.
    ///
    /// # Errors
    /// When the file cannot be read, or any other line is not a record: the file has then been changed by someone else,
    /// and the message says which line. After removing the line or the file, a run can go on.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
        lines(path, |line| serde_json::from_slice(line))
    }

    /// As [`read`](Self::read), with lines of other commands and the text of each line.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn entries<T: DeserializeOwned>(path: &Path) -> Result<Vec<JournalEntry<T>>> {
        lines(path, |text| {
            let about = serde_json::from_slice(text)?;
            Ok(JournalEntry { text: text.to_owned(), about, line: serde_json::from_slice(text).ok() })
        })
    }

    /// Creates a journal at `path` that contains only `kept`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start<T: Serialize>(path: &Path, kept: &[T]) -> Result<Self> {
        let kept: Vec<Vec<u8>> = kept.iter().map(encode).collect::<Result<_>>()?;
        Self::start_with(path, kept.iter().map(|line| line.trim_ascii_end()))
    }

    /// As [`start`](Self::start), with the lines as text.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with<'a>(path: &Path, kept: impl Iterator<Item = &'a [u8]>) -> Result<Self> {
        let (partial, mut file) = Partial::create(path)?;
        let mut bytes = Vec::new();
        kept.for_each(|line| bytes.extend([line, b"\n"].concat()));
        let fail = |e| Error::io(path, e);
        file.write_all(&bytes).map_err(fail)?;
        // On disk before it replaces its predecessor.
        file.sync_all().or_else(unless_unsupported).map_err(fail)?;
        partial.place()?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends lines; they are in the file when this returns.
    ///
    /// # Errors
    /// When the file cannot be written, or has been removed or replaced.
    pub fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend(encode(line)?);
        }
        // One write for whole lines: a kill leaves at most one torn line, the last.
        self.file.write_all(&bytes).map_err(|e| Error::io(&self.path, e))?;
        self.check()
    }

    /// Waits until the lines are on disk.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().or_else(unless_unsupported).map_err(|e| Error::io(&self.path, e))?;
        self.check()
    }

    /// Lines in a file that has lost its path would be lost.
    fn check(&self) -> Result<()> {
        let there = self.path.symlink_metadata().ok();
        let own = self.file.metadata().map_err(|e| Error::io(&self.path, e))?;
        if there.is_some_and(|there| is_same(&there, &own)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "{}: somebody has removed or replaced this file while the run was writing to it",
                self.path.display()
            ),
        ))
    }
}

/// Whether both belong to one file.
#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Whether both may belong to one file.
#[cfg(not(unix))]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    a.is_file() && a.len() == b.len()
}

/// Some file systems do not support syncing.
pub fn unless_unsupported(e: std::io::Error) -> std::io::Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    if matches!(e.kind(), InvalidInput | Unsupported) { Ok(()) } else { Err(e) }
}

/// Parses each line of `path`; see [`Journal::read`].
fn lines<T>(path: &Path, parse: impl Fn(&[u8]) -> serde_json::Result<T>) -> Result<Vec<T>> {
    if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    let bytes = read_file(path)?;
    let mut lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    // The rest after the last line break: empty, or a line that was not completed.
    let torn = lines.pop().unwrap_or_default();
    let whole = lines.iter().enumerate().map(|(i, line)| {
        parse(line).map_err(|e| {
            Error::input(format!("{}: line {} is not a valid record ({e}); fix or delete it", path.display(), i + 1))
        })
    });
    let mut whole: Vec<T> = whole.collect::<Result<_>>()?;
    whole.extend(parse(torn).ok());
    Ok(whole)
}

fn encode<T: Serialize>(line: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).map_err(|e| Error::settings(format!("a record is not JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(input: &str, index: Option<usize>) -> Line {
        Line { record: Record::failed(input, index, "no"), settings: "ab".into(), ..Line::default() }
    }

    #[test]
    fn a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        assert_eq!(Journal::read::<Line>(&path).unwrap(), []);
        let line = |input: &str| line(input, Some(3));
        let mut journal = Journal::start(&path, &[line("a")]).unwrap();
        journal.append(&[line("b")]).unwrap();
        journal.file.write_all(b"{\"input\":\"c\",\"ind").unwrap();
        assert_eq!(Journal::read::<Line>(&path).unwrap(), [line("a"), line("b")]);
        let kept: Vec<Line> = Journal::read(&path).unwrap();
        Journal::start(&path, &kept).unwrap().append(&[line("d")]).unwrap();
        assert_eq!(Journal::read::<Line>(&path).unwrap().len(), 3);
    }

    #[test]
    fn damage_that_no_kill_leaves_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let line = encode(&line("a", None)).unwrap();
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
