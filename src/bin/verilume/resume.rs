//! What an earlier run has done already.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use verilume::report::{Line, Stamp};

use crate::inputs::Source;
use crate::paths;

/// A source of this run and its number of rows; `None` for a picture.
pub struct Known<'a> {
    pub source: &'a Source,
    pub rows: Option<usize>,
}

/// What has to be complete before a result counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Maps an item gives with one method.
    pub maps: usize,
    /// One file holds the maps of all rows of an array: it is done when all rows are.
    pub one_file_an_array: bool,
    /// One sheet shows all methods: it is done when all methods are.
    pub one_sheet_an_item: bool,
}

/// The settings of this run, as fingerprints.
#[derive(Debug)]
pub struct Current {
    /// Id and settings of each method, in order.
    pub methods: Vec<(String, String)>,
    /// Settings of records that no method made.
    pub inputs: String,
}

/// Results that need not be made again.
#[derive(Debug, Default)]
pub struct Done {
    results: HashSet<(String, Option<usize>, usize)>,
    failed: HashMap<(String, usize), String>,
    /// Lines for the new journal.
    pub kept: Vec<Line>,
    /// Earlier results that were made with other settings.
    pub outdated: usize,
}

impl Done {
    /// Whether `method` has been done for an item.
    pub fn has(&self, input: &str, row: Option<usize>, method: usize) -> bool {
        !self.results.is_empty() && self.results.contains(&(input.to_owned(), row, method))
    }

    /// Why a row of an array that is done otherwise has failed.
    pub fn failure(&self, input: &str, row: usize) -> Option<&str> {
        self.failed.get(&(input.to_owned(), row)).map(String::as_str)
    }

    /// Sorts out `lines` of the journal in `out`.
    pub fn settle(lines: Vec<Line>, sources: &[Known], current: &Current, demands: Demands, out: &Path) -> Self {
        let settings = &current.methods;
        let mut done = Self::default();
        let method = |line: &Line| settings.iter().position(|(id, _)| Some(id) == line.record.method.as_ref());
        let mut found: HashMap<(&str, Option<usize>, usize), usize> = HashMap::new();
        let mut failed: HashMap<(&str, usize), &str> = HashMap::new();
        let claims = Claims::new(sources, current, demands, out);
        let stamps: HashMap<&str, Option<Stamp>> =
            sources.iter().map(|known| (known.source.shown.as_str(), known.source.stamp)).collect();
        let unchanged = |line: &Line| {
            let input = line.record.input.as_str();
            let now = stamps.get(input).copied().unwrap_or_else(|| Stamp::of(&paths::named(input)));
            now.is_none() || now == line.stamp
        };
        let superseded = superseded(&lines);
        let mut usable = Vec::with_capacity(lines.len());
        let mut others = Vec::with_capacity(lines.len());
        for (line, superseded) in lines.iter().zip(superseded) {
            let record = &line.record;
            let m = method(line);
            let same = m.is_some_and(|m| settings[m].1 == line.settings);
            if m.is_some() && !same {
                done.outdated += 1;
            }
            let holds = record.error.is_none()
                && record.method.is_some()
                && !superseded
                && unchanged(line)
                && record.files.iter().all(|file| paths::named(file).is_file())
                && !record.files.iter().any(|file| claims.by_another(file, &record.input, m.is_some()));
            let whole = same && holds;
            usable.push(whole);
            others.push(m.is_none() && holds);
            match (m, record.index, &record.error) {
                (Some(m), _, _) if whole => *found.entry((&record.input, record.index, m)).or_default() += 1,
                (None, Some(row), Some(why))
                    if record.method.is_none() && line.settings == current.inputs && unchanged(line) =>
                {
                    failed.insert((&record.input, row), why);
                }
                _ => {}
            }
        }
        let mut here = HashSet::new();
        let mut settled_arrays = HashSet::new();
        for known in sources {
            let input = known.source.shown.as_str();
            here.insert(input);
            let rows: Vec<Option<usize>> = known.rows.map_or_else(|| vec![None], |n| (0..n).map(Some).collect());
            let complete = |row, m| found.get(&(input, row, m)).is_some_and(|&n| n >= demands.maps);
            let bad = |row: Option<usize>| row.is_some_and(|row| failed.contains_key(&(input, row)));
            let methods = 0..settings.len();
            let whole_array = known.rows.is_some() && demands.one_file_an_array;
            let array_done = |m| rows.iter().all(|&row| complete(row, m) || bad(row));
            let mut all_settled = true;
            for m in methods.clone() {
                if whole_array && !array_done(m) {
                    all_settled = false;
                    continue;
                }
                for &row in &rows {
                    let sheet = !demands.one_sheet_an_item || methods.clone().all(|m| complete(row, m));
                    if complete(row, m) && sheet {
                        done.results.insert((input.to_owned(), row, m));
                    }
                }
            }
            if whole_array && all_settled {
                settled_arrays.insert(input);
            }
        }
        for ((input, row), why) in &failed {
            if settled_arrays.contains(input) {
                done.failed.insert(((*input).to_owned(), *row), (*why).to_owned());
            }
        }
        for ((line, usable), other) in lines.iter().zip(usable).zip(others) {
            let record = &line.record;
            let result = method(line).is_some_and(|m| done.has(&record.input, record.index, m));
            let failure =
                record.method.is_none() && record.index.is_some_and(|row| done.failure(&record.input, row).is_some());
            let elsewhere = usable && !here.contains(record.input.as_str());
            if (usable && result) || failure || elsewhere || other {
                done.kept.push(line.clone());
            }
        }
        done
    }
}

/// For each line, whether a later one says that another input's result took the place of one of its files.
fn superseded(lines: &[Line]) -> Vec<bool> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut superseded: Vec<bool> = lines
        .iter()
        .rev()
        .map(|line| {
            let input = line.record.input.as_str();
            let mut lost = false;
            for file in &line.record.files {
                lost |= *owners.entry(file).or_insert(input) != input;
            }
            lost
        })
        .collect();
    superseded.reverse();
    superseded
}

/// Files that this run may write, by their names.
struct Claims<'a> {
    out: PathBuf,
    stems: HashMap<String, &'a str>,
    methods: HashSet<&'a str>,
    sheets: bool,
}

impl<'a> Claims<'a> {
    fn new(sources: &[Known<'a>], current: &'a Current, demands: Demands, out: &Path) -> Self {
        let stem = |known: &Known<'a>| (known.source.stem.to_string_lossy().into_owned(), known.source.shown.as_str());
        Self {
            out: out.canonicalize().unwrap_or_else(|_| out.to_owned()),
            stems: sources.iter().map(stem).collect(),
            methods: current.methods.iter().map(|(id, _)| id.as_str()).collect(),
            sheets: demands.one_sheet_an_item,
        }
    }

    /// Whether `file`, a result for `input`, may be written over for something else.
    fn by_another(&self, file: &str, input: &str, method_runs: bool) -> bool {
        self.claimant(file).is_some_and(|claimant| claimant != input || !method_runs)
    }

    fn claimant(&self, file: &str) -> Option<&'a str> {
        let file = paths::named(file);
        let path = file.parent()?.canonicalize().ok()?.join(file.file_name()?);
        let name = path.strip_prefix(&self.out).ok()?.to_string_lossy().into_owned();
        name.match_indices('.').find_map(|(dot, _)| {
            let claimant = self.stems.get(&name[..dot])?;
            let mut parts = name[dot + 1..].split('.');
            let first = parts.next()?;
            let is_row = first.bytes().all(|b| b.is_ascii_digit());
            let id = if is_row { parts.next()? } else { first };
            (self.methods.contains(id) || self.sheets && id == "grid").then_some(*claimant)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verilume::report::Record;

    fn line(input: &str, index: Option<usize>, method: &str, settings: &str) -> Line {
        let record = Record { error: None, method: Some(method.into()), ..Record::failed(input, index, "") };
        Line { record, settings: settings.into(), stamp: None }
    }

    #[test]
    fn an_array_with_one_file_is_done_as_a_whole() {
        let source = crate::inputs::find(&["x.npy".into()], Path::new("out")).sources.remove(0);
        let known = [Known { source: &source, rows: Some(3) }];
        let current = Current { methods: vec![("gradient".into(), "s".into())], inputs: "s".into() };
        let demands = Demands { maps: 1, one_file_an_array: true, one_sheet_an_item: false };
        let mut lines = vec![line("x.npy", Some(0), "gradient", "s"), line("x.npy", Some(1), "gradient", "old")];
        let done = Done::settle(lines.clone(), &known, &current, demands, Path::new("out"));
        assert_eq!((done.kept.len(), done.outdated), (0, 1));

        lines[1].settings = "s".into();
        lines.push(Line { record: Record::failed("x.npy", Some(2), "NaN"), settings: "s".into(), stamp: None });
        let done = Done::settle(lines.clone(), &known, &current, demands, Path::new("out"));
        assert_eq!((done.kept.len(), done.failure("x.npy", 2)), (3, Some("NaN")));

        let rows = Demands { one_file_an_array: false, ..demands };
        let done = Done::settle(lines, &known, &current, rows, Path::new("out"));
        assert!(done.has("x.npy", Some(1), 0) && !done.has("x.npy", Some(2), 0));
        assert_eq!(done.kept.len(), 2);
    }
}
