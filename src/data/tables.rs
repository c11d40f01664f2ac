//! Tables that say something of files, row by row.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::text;
use csv::StringRecord;
use unicode_normalization::UnicodeNormalization;

use super::paths;
use super::source::Source;

/// What a table says, by file and row of an array. Files are compared by their [`key`].
#[derive(Debug)]
pub struct Table<T> {
    entries: HashMap<(String, Option<usize>), T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T> Table<T> {
    /// The place of what is said of a row of `file`, or of all of it.
    pub fn entry(&mut self, file: &str, row: Option<usize>) -> Entry<'_, (String, Option<usize>), T> {
        self.entries.entry((key(file), row))
    }

    /// What is said of row `row` of `source`, else what is said of all of it.
    pub fn get(&self, source: &Source, row: Option<usize>) -> Option<&T> {
        names(source).into_iter().find_map(|name| {
            let whole = self.entries.get(&(name.clone(), None));
            row.and_then(|row| self.entries.get(&(name, Some(row)))).or(whole)
        })
    }

    /// How many of the table's files are not among `sources`.
    pub fn strangers(&self, sources: &[Source]) -> usize {
        let known: HashSet<String> = sources.iter().flat_map(names).collect();
        let files: HashSet<&String> = self.entries.keys().map(|(file, _)| file).collect();
        files.into_iter().filter(|file| !known.contains(*file)).count()
    }
}

/// The form in which a table's files and sources are compared: a normal path, composed characters (NFC), `/` between parts.
fn key(file: &str) -> String {
    paths::normal(Path::new(&file.replace('\\', "/"))).to_string_lossy().nfc().collect()
}

/// What a table may call a source: its path as it was given or found, its path below the folder, its file's name.
fn names(source: &Source) -> [String; 3] {
    let name = source.path.file_name().unwrap_or_default().to_string_lossy();
    [key(&source.shown), key(&source.relative.to_string_lossy()), key(&name)]
}

/// The lines of the table at `path`, each with its number or what is wrong with it.
///
/// # Errors
/// When the file cannot be read or is not text.
pub fn lines(path: &Path) -> Result<Vec<(usize, std::result::Result<StringRecord, csv::Error>)>> {
    let text = text::read(path)?;
    let mut table = csv::ReaderBuilder::new();
    let mut table = table.has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut lines = Vec::new();
    // The reader counts an empty line only once it is past the line after it.
    let (mut number, mut counted) = (1, 0);
    loop {
        let start = usize::try_from(table.position().byte()).unwrap_or(counted).clamp(counted, text.len());
        let empty = text[start..].bytes().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        number += text[counted..start + empty].bytes().filter(|&b| b == b'\n').count();
        counted = start + empty;
        let mut line = StringRecord::new();
        let read = table.read_record(&mut line);
        let at = number;
        match read {
            Ok(false) => return Ok(lines),
            Ok(true) => lines.push((at, Ok(line))),
            Err(e) => lines.push((at, Err(e))),
        }
    }
}

/// The number of a row in a cell.
///
/// # Errors
/// When the cell is no whole number.
pub fn row(cell: &str) -> Result<usize> {
    cell.parse().map_err(|_| Error::settings(format!("'{cell}' is not a row number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_key_however_it_is_spelled() {
        for file in ["lab/a.png", "./lab/a.png", "lab//./a.png", "lab/sub/../a.png", "lab\\a.png"] {
            assert_eq!(key(file), "lab/a.png", "{file}");
        }
        assert_eq!(key("e\u{301}.png"), key("\u{e9}.png"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(key(&here.join("a.png").to_string_lossy()), "a.png");
    }
}
