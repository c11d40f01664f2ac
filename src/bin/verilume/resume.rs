//! What an earlier run has done already.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use verilume::report::Line;

use crate::inputs::Source;

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

    /// Sorts out `lines`.
    pub fn settle(lines: Vec<Line>, sources: &[Known], current: &Current, demands: Demands) -> Self {
        let settings = &current.methods;
        let mut done = Self::default();
        let method = |line: &Line| settings.iter().position(|(id, _)| Some(id) == line.record.method.as_ref());
        let mut found: HashMap<(&str, Option<usize>, usize), usize> = HashMap::new();
        let mut failed: HashMap<(&str, usize), &str> = HashMap::new();
        let mut usable = Vec::with_capacity(lines.len());
        for line in &lines {
            let record = &line.record;
            let m = method(line);
            let same = m.is_some_and(|m| settings[m].1 == line.settings);
            if m.is_some() && !same {
                done.outdated += 1;
            }
            let whole = same && record.error.is_none() && in_place(&record.input, &record.files);
            usable.push(whole);
            match (m, record.index, &record.error) {
                (Some(m), _, _) if whole => *found.entry((&record.input, record.index, m)).or_default() += 1,
                (None, Some(row), Some(why)) if record.method.is_none() && line.settings == current.inputs => {
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
        for (line, usable) in lines.iter().zip(usable) {
            let record = &line.record;
            let result = method(line).is_some_and(|m| done.has(&record.input, record.index, m));
            let failure =
                record.method.is_none() && record.index.is_some_and(|row| done.failure(&record.input, row).is_some());
            let elsewhere = usable && !here.contains(record.input.as_str());
            if (usable && result) || failure || elsewhere {
                done.kept.push(line.clone());
            }
        }
        done
    }
}

/// Whether all files are there and none is older than the input.
fn in_place(input: &str, files: &[String]) -> bool {
    let time = |path: &str| Path::new(path).metadata().and_then(|m| m.modified());
    let changed = time(input).ok();
    files.iter().all(|file| time(file).is_ok_and(|made| changed.is_none_or(|changed| changed <= made)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verilume::report::Record;

    fn line(input: &str, index: Option<usize>, method: &str, settings: &str) -> Line {
        let record = Record { error: None, method: Some(method.into()), ..Record::failed(input, index, "") };
        Line { record, settings: settings.into() }
    }

    #[test]
    fn an_array_with_one_file_is_done_as_a_whole() {
        let source = crate::inputs::find(&["x.npy".into()], Path::new("out")).sources.remove(0);
        let known = [Known { source: &source, rows: Some(3) }];
        let current = Current { methods: vec![("gradient".into(), "s".into())], inputs: "s".into() };
        let demands = Demands { maps: 1, one_file_an_array: true, one_sheet_an_item: false };
        let mut lines = vec![line("x.npy", Some(0), "gradient", "s"), line("x.npy", Some(1), "gradient", "old")];
        let done = Done::settle(lines.clone(), &known, &current, demands);
        assert_eq!((done.kept.len(), done.outdated), (0, 1));

        lines[1].settings = "s".into();
        lines.push(Line { record: Record::failed("x.npy", Some(2), "NaN"), settings: "s".into() });
        let done = Done::settle(lines.clone(), &known, &current, demands);
        assert_eq!((done.kept.len(), done.failure("x.npy", 2)), (3, Some("NaN")));

        let rows = Demands { one_file_an_array: false, ..demands };
        let done = Done::settle(lines, &known, &current, rows);
        assert!(done.has("x.npy", Some(1), 0) && !done.has("x.npy", Some(2), 0));
        assert_eq!(done.kept.len(), 2);
    }
}
