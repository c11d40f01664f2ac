//! Determines what an earlier run has already completed.

use std::collections::{HashMap, HashSet};

use super::earlier::{Finder, Standing, Stay, StemsInUse};
use super::said::MOST_LATE;
use crate::data::Source;
use crate::report::{JournalEntry, Line};
use crate::session::Noticed;

/// The sources of this run, and the number of rows of each (`None` for a picture).
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub sources: &'a [Source],
    pub rows: &'a [Option<usize>],
    pub finder: &'a Finder<'a>,
    /// Names in use that this run may write.
    pub names: &'a StemsInUse<'a>,
}

/// What must be complete before a result counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Maps per item and method.
    pub maps: usize,
    /// One file holds the maps of all rows of an array, so an array counts only when all rows are done.
    pub one_file_an_array: bool,
    /// One sheet shows all methods, so an item counts only when all methods are done.
    pub one_sheet_an_item: bool,
}

/// The settings of this run, as fingerprints.
#[derive(Debug)]
pub struct Current {
    /// Id and settings of each method, in order.
    pub methods: Vec<(String, String)>,
    /// Settings in records that do not belong to a method.
    pub inputs: String,
}

/// Results that need not be recomputed.
#[derive(Debug, Default)]
pub struct Done {
    results: HashSet<(String, Option<usize>, usize)>,
    failed: HashMap<(String, usize), String>,
    /// Lines for the new journal.
    pub kept: Vec<Vec<u8>>,
    /// Earlier results that were made with other settings.
    pub outdated: usize,
    /// Results of other inputs, methods or commands whose files are missing, changed or replaced.
    pub dropped: usize,
    /// Keys of partial raw files that lines rely on.
    pub parts: HashSet<String>,
    /// Remarks in the results that are not recomputed.
    pub said: Noticed,
}

impl Done {
    /// Recomputes everything; lines about other results stay.
    pub fn nothing_but(stay: Stay) -> Self {
        Self { kept: stay.kept, dropped: stay.dropped, parts: stay.parts, ..Self::default() }
    }

    /// Whether `method` is done for an item.
    pub fn has(&self, input: &str, row: Option<usize>, method: usize) -> bool {
        !self.results.is_empty() && self.results.contains(&(input.to_owned(), row, method))
    }

    /// Why a row of an otherwise completed array failed.
    pub fn failure(&self, input: &str, row: usize) -> Option<&str> {
        self.failed.get(&(input.to_owned(), row)).map(String::as_str)
    }

    /// Sorts the lines of a journal, whose files are `standing`.
    pub fn settle(
        entries: &[JournalEntry<Line>],
        standing: &[Standing],
        known: Known,
        current: &Current,
        demands: Demands,
    ) -> Self {
        let settings = &current.methods;
        let mut done = Self::default();
        let method = |line: &Line| settings.iter().position(|(id, _)| Some(id) == line.record.method.as_ref());
        let whose: Vec<Option<usize>> = entries.iter().map(|entry| known.finder.source(&entry.about)).collect();
        let superseded = superseded(entries, standing, &whose);
        // By source, row and method, the number of existing maps: all, and those that do not need the array's other
        // rows.
        let mut found: HashMap<(usize, Option<usize>, usize), [usize; 2]> = HashMap::new();
        let mut failed: HashMap<(usize, usize), &str> = HashMap::new();
        let mut usable = vec![false; entries.len()];
        for (i, entry) in entries.iter().enumerate() {
            let (Some(line), Some(at)) = (&entry.line, whose[i]) else { continue };
            let record = &line.record;
            let now = known.sources[at].stamp;
            // Records identify an input by its path.
            let unchanged = (now.is_none() || now == line.stamp) && record.input == known.sources[at].shown;
            match (method(line), record.index, &record.error) {
                (Some(m), _, _) => {
                    let same = settings[m].1 == line.settings;
                    done.outdated += usize::from(!same);
                    usable[i] = same && unchanged && standing[i].is_some() && !superseded[i];
                    if usable[i] {
                        let maps = found.entry((at, record.index, m)).or_default();
                        maps[0] += 1;
                        maps[1] += usize::from(line.part.is_some());
                    }
                }
                (None, Some(row), Some(why))
                    if record.method.is_none() && line.settings == current.inputs && unchanged =>
                {
                    failed.insert((at, row), why);
                }
                _ => {}
            }
        }
        let mut settled_arrays = HashSet::new();
        for (at, source) in known.sources.iter().enumerate() {
            let input = source.shown.as_str();
            let rows: Vec<Option<usize>> = known.rows[at].map_or_else(|| vec![None], |n| (0..n).map(Some).collect());
            let maps = |row, m, of: usize| found.get(&(at, row, m)).is_some_and(|n| n[of] >= demands.maps);
            let complete = |row, m| maps(row, m, 0);
            let bad = |row: Option<usize>| row.is_some_and(|row| failed.contains_key(&(at, row)));
            let methods = 0..settings.len();
            let whole_array = known.rows[at].is_some() && demands.one_file_an_array;
            let mut all_settled = true;
            for m in methods.clone() {
                let settled = !whole_array || rows.iter().all(|&row| complete(row, m) || bad(row));
                all_settled &= settled;
                for &row in &rows {
                    let sheet = !demands.one_sheet_an_item || methods.clone().all(|m| complete(row, m));
                    // Without a key, the file with the rows of an unfinished array is unknown.
                    if sheet && complete(row, m) && (settled || maps(row, m, 1)) {
                        done.results.insert((input.to_owned(), row, m));
                    }
                }
            }
            if whole_array && all_settled {
                settled_arrays.insert(at);
            }
        }
        for ((at, row), why) in &failed {
            if settled_arrays.contains(at) {
                done.failed.insert((known.sources[*at].shown.clone(), *row), (*why).to_owned());
            }
        }
        for (i, entry) in entries.iter().enumerate() {
            let row = entry.about.index;
            let source = whose[i].map(|at| &known.sources[at]);
            let m = entry.line.as_ref().and_then(method);
            let stays = match (source, m, &entry.line) {
                (Some(source), Some(m), _) => usable[i] && done.has(&source.shown, row, m),
                (Some(source), None, Some(line)) if line.record.method.is_none() => {
                    row.is_some_and(|row| done.failure(&source.shown, row).is_some())
                }
                // A line of another method, input or command.
                _ => {
                    let replaced = |file: &String| source.is_some_and(|source| known.names.claims(file, source));
                    let stands = |files: &Vec<String>| !superseded[i] && !files.iter().any(replaced);
                    let stays = entry.about.error.is_some() || standing[i].as_ref().is_some_and(stands);
                    done.dropped += usize::from(!stays);
                    stays
                }
            };
            if stays {
                if let (Some(_), Some(_), Some(line)) = (source, m, &entry.line)
                    && done.said.assumed.len().max(done.said.warnings.len()) < MOST_LATE
                {
                    let (assumed, warnings) = (line.record.assumed.clone(), line.record.warnings.clone());
                    done.said.extend(Noticed { assumed, warnings, ..Noticed::default() });
                }
                done.kept.push(entry.text.clone());
                done.parts.extend(entry.about.part.clone());
            }
        }
        done
    }
}

/// For each line, whether a later line shows that another input's result replaced one of its files.
fn superseded(entries: &[JournalEntry<Line>], standing: &[Standing], whose: &[Option<usize>]) -> Vec<bool> {
    let mut owners: HashMap<&str, (Option<usize>, &str)> = HashMap::new();
    let mut superseded: Vec<bool> = vec![false; entries.len()];
    for i in (0..entries.len()).rev() {
        let about = &entries[i].about;
        let owner = (whose[i], if whose[i].is_some() { "" } else { about.input.as_str() });
        for file in standing[i].iter().flatten() {
            superseded[i] |= *owners.entry(file).or_insert(owner) != owner;
        }
    }
    superseded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Record;
    use std::path::Path;

    fn line(input: &str, index: Option<usize>, method: &str, settings: &str) -> Line {
        let record = Record { error: None, method: Some(method.into()), ..Record::failed(input, index, "") };
        Line { record, settings: settings.into(), ..Line::default() }
    }

    #[test]
    fn an_array_with_one_file_is_done_as_a_whole() {
        let mut sources = crate::data::find(&["x.npy".into()], Path::new("out"), crate::data::Room::default()).sources;
        sources.truncate(1);
        let places = [None];
        let finder = Finder::new(&sources, &places);
        let names = StemsInUse::new(std::iter::empty(), HashSet::new());
        let known = Known { sources: &sources, rows: &[Some(3)], finder: &finder, names: &names };
        let current = Current { methods: vec![("gradient".into(), "s".into())], inputs: "s".into() };
        let demands = Demands { maps: 1, one_file_an_array: true, one_sheet_an_item: false };
        let settle = |lines: &[Line], demands| {
            let entry = |line: &Line| {
                let text = serde_json::to_vec(line).unwrap();
                JournalEntry { about: serde_json::from_slice(&text).unwrap(), text, line: Some(line.clone()) }
            };
            let entries: Vec<JournalEntry<Line>> = lines.iter().map(entry).collect();
            let standing: Vec<Standing> = lines.iter().map(|line| line.record.error.is_none().then(Vec::new)).collect();
            Done::settle(&entries, &standing, known, &current, demands)
        };
        let mut lines = vec![line("x.npy", Some(0), "gradient", "s"), line("x.npy", Some(1), "gradient", "old")];
        let done = settle(&lines, demands);
        assert_eq!((done.kept.len(), done.outdated), (0, 1));

        // With a known partial file, each row counts on its own.
        lines[0].part = Some("0123456789abcdef".into());
        let done = settle(&lines, demands);
        assert!(done.has("x.npy", Some(0), 0) && !done.has("x.npy", Some(1), 0));
        assert_eq!((done.kept.len(), done.parts.len()), (1, 1));
        lines[0].part = None;

        lines[1].settings = "s".into();
        let failed = Record::failed("x.npy", Some(2), "NaN");
        lines.push(Line { record: failed, settings: "s".into(), ..Line::default() });
        let done = settle(&lines, demands);
        assert_eq!((done.kept.len(), done.failure("x.npy", 2)), (3, Some("NaN")));

        let done = settle(&lines, Demands { one_file_an_array: false, ..demands });
        assert!(done.has("x.npy", Some(1), 0) && !done.has("x.npy", Some(2), 0));
        assert_eq!(done.kept.len(), 2);
    }
}
