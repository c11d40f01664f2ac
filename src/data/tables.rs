//! Tables with entries for files and their rows.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::text;
use csv::StringRecord;
use unicode_normalization::UnicodeNormalization;

use super::paths;
use super::source::Source;

/// Entries by file and row of an array. Files are compared by their [`key`].
#[derive(Debug)]
pub struct Table<T> {
    entries: HashMap<(String, Option<usize>), T>,
    /// Keys that match several sources.
    shared: HashMap<String, SharedKey>,
}

/// The sources that match a key.
#[derive(Debug)]
struct SharedKey {
    /// Index of the first of the [`names`] by which one matches.
    by: usize,
    /// How many match by that name.
    owners: usize,
    /// All matching sources, as shown to the user.
    sources: Vec<String>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), shared: HashMap::new() }
    }
}

impl<T> Table<T> {
    /// The entry for a row of `file`, or for the whole file.
    pub fn entry(&mut self, file: &str, row: Option<usize>) -> Entry<'_, (String, Option<usize>), T> {
        self.entries.entry((key(file), row))
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Finds file names in the table that match several of `sources`.
    pub fn know(&mut self, sources: &[Source]) {
        let mut shared: HashMap<String, SharedKey> = HashMap::new();
        let files: HashSet<&String> = self.entries.keys().map(|(file, _)| file).collect();
        for source in sources {
            let mut own = HashSet::new();
            for (by, name) in names(source).into_iter().enumerate() {
                if !files.contains(&name) || !own.insert(name.clone()) {
                    continue;
                }
                let found = shared.entry(name).or_insert(SharedKey { by, owners: 0, sources: Vec::new() });
                match by.cmp(&found.by) {
                    Ordering::Less => (found.by, found.owners) = (by, 1),
                    Ordering::Equal => found.owners += 1,
                    Ordering::Greater => {}
                }
                found.sources.push(source.shown.clone());
            }
        }
        shared.retain(|_, found| found.sources.len() > 1);
        self.shared = shared;
    }

    /// The entry for row `row` of `source`, else the one for the whole file.
    ///
    /// # Errors
    /// When the entry's name may also mean another source. A full path takes precedence over a path relative to the
    /// folder, and that over a mere file name.
    pub fn get(&self, source: &Source, row: Option<usize>) -> std::result::Result<Option<&T>, String> {
        let rows = row.map(Some).into_iter().chain([None]);
        for (row, (by, name)) in rows.flat_map(|row| names(source).into_iter().enumerate().map(move |name| (row, name)))
        {
            let Some(said) = self.entries.get(&(name.clone(), row)) else { continue };
            return match self.shared.get(&name) {
                Some(shared) if by > shared.by || shared.owners > 1 => Err(ambiguous(&name, &shared.sources)),
                _ => Ok(Some(said)),
            };
        }
        Ok(None)
    }

    /// Rows of `sources` that the table lists under two names, with both keys; names that match several sources are
    /// excluded.
    pub fn twice(&self, sources: &[Source]) -> Vec<[(String, Option<usize>); 2]> {
        let mut rows: HashMap<&str, Vec<Option<usize>>> = HashMap::new();
        self.entries.keys().for_each(|(file, row)| rows.entry(file).or_default().push(*row));
        let mut twice = Vec::new();
        for source in sources {
            let mut said: HashMap<Option<usize>, String> = HashMap::new();
            for name in names(source).into_iter().filter(|name| !self.shared.contains_key(name)) {
                for row in rows.get(name.as_str()).into_iter().flatten() {
                    match said.get(row) {
                        Some(first) if *first != name => twice.push([(first.clone(), *row), (name.clone(), *row)]),
                        Some(_) => {}
                        None => drop(said.insert(*row, name.clone())),
                    }
                }
            }
        }
        twice
    }

    /// The entry for a key.
    pub fn by_key(&mut self, key: &(String, Option<usize>)) -> Option<&mut T> {
        self.entries.get_mut(key)
    }

    /// How many of the table's files are not among `sources`.
    pub fn strangers(&self, sources: &[Source]) -> usize {
        let known: HashSet<String> = sources.iter().flat_map(names).collect();
        let files: HashSet<&String> = self.entries.keys().map(|(file, _)| file).collect();
        files.into_iter().filter(|file| !known.contains(*file)).count()
    }
}

/// Most sources that a sentence lists.
const LISTED: usize = 3;

fn ambiguous(name: &str, sources: &[String]) -> String {
    let more = if sources.len() > LISTED { format!(" and {} more", sources.len() - LISTED) } else { String::new() };
    let listed = sources[..sources.len().min(LISTED)].join(", ");
    format!("{name} may mean {listed}{more}; name each by its path")
}

/// The form in which file names are compared: a normal path, composed characters (NFC), `/` as separator.
fn key(file: &str) -> String {
    paths::normal(Path::new(&file.replace('\\', "/"))).to_string_lossy().nfc().collect()
}

/// The names under which a table may list a source: its path as given or found, its absolute path, its path relative to
/// the folder, its file name.
fn names(source: &Source) -> [String; 4] {
    let name = source.path.file_name().unwrap_or_default().to_string_lossy();
    let full = paths::full(&source.path);
    [key(&source.shown), key(&full.to_string_lossy()), key(&source.relative.to_string_lossy()), key(&name)]
}

/// The lines of the table at `path`, each with its number, or its error.
///
/// # Errors
/// When the file cannot be read or is not text.
pub fn lines(path: &Path) -> Result<Vec<(usize, std::result::Result<StringRecord, csv::Error>)>> {
    let text = text::read(path)?;
    let mut table = csv::ReaderBuilder::new();
    let mut table = table.has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut lines = Vec::new();
    // The reader counts an empty line only after the following line.
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

/// Parses a row number.
///
/// # Errors
/// When the cell is not a whole number.
pub fn row(cell: &str) -> Result<usize> {
    cell.parse().map_err(|_| Error::settings(format!("'{cell}' is not a row number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_several_files_says_nothing_of_any() {
        let source = |path: &str, relative: &str| {
            let mut source = Source::named(path.into());
            source.relative = relative.into();
            source
        };
        let sources = [source("d/x.png", "x.png"), source("d/sub/x.png", "sub/x.png"), source("e/y.png", "y.png")];
        let of = |files: &[&str], at: usize| {
            let mut table = Table::default();
            files.iter().for_each(|file| {
                table.entry(file, None).or_insert(file.len());
            });
            table.know(&sources);
            table.get(&sources[at], None).map(|found| found.copied())
        };
        assert_eq!(of(&["x.png"], 0), Ok(Some(5)));
        let why = of(&["x.png"], 1).unwrap_err();
        assert!(why.contains("d/x.png, d/sub/x.png") && why.contains("by its path"), "{why}");
        assert_eq!(of(&["x.png", "sub/x.png"], 1), Ok(Some(9)));
        assert_eq!(of(&["y.png", "x.png"], 2), Ok(Some(5)));
        assert_eq!(of(&["z.png"], 2), Ok(None));
        let two = [source("d/x.png", "d/x.png"), source("e/x.png", "e/x.png")];
        let mut table = Table::default();
        table.entry("x.png", Some(3)).or_insert(());
        table.know(&two);
        assert!(two.iter().all(|source| table.get(source, Some(3)).is_err() && table.get(source, Some(2)) == Ok(None)));
    }

    #[test]
    fn a_file_may_be_named_in_two_ways() {
        let mut sources = [Source::named("../d/x/1.png".into()), Source::named("../d/2.png".into())];
        sources[0].relative = "x/1.png".into();
        let full = paths::full(&sources[0].path).to_string_lossy().into_owned();
        let twice = |files: &[&str]| {
            let mut table = Table::default();
            files.iter().for_each(|file| {
                table.entry(file, None).or_insert(());
            });
            table.know(&sources);
            table.twice(&sources).len()
        };
        assert_eq!(twice(&["../d/x/1.png", "x/1.png"]), 1);
        assert_eq!(twice(&[&full, "1.png"]), 1);
        assert_eq!(twice(&["./../d/x/1.png", "../d/2.png", "3.png"]), 0);
        let mut table = Table::default();
        [("x/1.png", Some(1)), ("1.png", None)].iter().for_each(|(file, row)| {
            table.entry(file, *row).or_insert(*file);
        });
        // An entry for a row takes precedence over one for all rows, whatever the names.
        assert_eq!(table.get(&sources[0], Some(1)), Ok(Some(&"x/1.png")));
        assert_eq!(table.get(&sources[0], Some(2)), Ok(Some(&"1.png")));
        assert!(table.twice(&sources).is_empty());
    }

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
