//! What a run has to say: the journal, standard output, and what became of each source.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use verilume::map::{percent, showing_nothing};
use verilume::report::{FileStatus, Journal, Line, Record, Status};

use crate::inputs::Source;
use crate::keeper::{Keeper, Kept};
use crate::paths;
use crate::plan::Reply;
use crate::said::{Noticed, Said};
use crate::talk::{Answer, Beside, counted, message};

/// Characters of an input's path in the table.
const PATH_CHARACTERS: usize = 44;

#[derive(Default)]
struct Tally {
    items: usize,
    made: usize,
    skipped: usize,
    failed: HashSet<Option<usize>>,
    error: Option<String>,
}

impl Kept for Line {
    fn files(&self) -> &[String] {
        &self.record.files
    }

    fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    fn on_disk(&mut self, bytes: Vec<u64>) {
        self.record.bytes = bytes;
    }

    fn lost(&mut self, why: String) -> bool {
        let fine = self.record.error.is_none();
        self.record.error.get_or_insert(why);
        fine
    }
}

/// What became of every source.
#[derive(Clone)]
struct Tallies(Arc<Mutex<Vec<Tally>>>);

impl Tallies {
    fn all(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, at: usize, line: &Line) {
        let tally = &mut self.all()[at];
        match &line.record.error {
            Some(why) => {
                tally.failed.insert(line.record.index);
                tally.error.get_or_insert_with(|| why.clone());
            }
            None => tally.made += 1,
        }
    }
}

/// Keeps the records of a run.
pub struct Book {
    keeper: Keeper<Line>,
    tallies: Tallies,
    /// Settings of records that no method made.
    input_settings: String,
    /// Where the sources are.
    places: Vec<Option<String>>,
    /// What every record says of the run.
    pub said: Said,
}

/// Shows records as a table or as lines of JSON.
struct Shown {
    answer: Answer,
    reply: Reply,
    widths: [usize; 2],
    headed: bool,
    /// Whether a method shares the score out, so that there is a column of what reached the pixels.
    shares: bool,
}

impl Book {
    /// An empty book over `sources`, which are at `places`, writing to `journal`; `methods` by id, with whether they share
    /// the score out.
    pub fn new(
        journal: Journal,
        (reply, beside): (Reply, Beside),
        sources: &[Source],
        methods: &[(String, bool)],
        input_settings: String,
        places: Vec<Option<String>>,
        said: Said,
    ) -> Self {
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        // Room for the row number of an array.
        let path = longest(&mut sources.iter().map(|s| s.shown.chars().count() + if s.is_array() { 6 } else { 0 }));
        let widths = [path.clamp(5, PATH_CHARACTERS), longest(&mut methods.iter().map(|(id, _)| id.len())).max(6)];
        let tallies = sources.iter().map(|_| Tally { items: 1, ..Tally::default() }).collect();
        let tallies = Tallies(Arc::new(Mutex::new(tallies)));
        let shares = methods.iter().any(|(_, shares)| *shares);
        let mut shown = Shown { answer: Answer::default(), reply, widths, headed: false, shares };
        let late = tallies.clone();
        // What was taken for done is a failure where its files have vanished before they were on disk.
        let listener = move |at: usize, line: &Line, lost: bool| {
            if lost {
                let tally = &mut late.all()[at];
                tally.made -= 1;
                tally.failed.insert(line.record.index);
                tally.error = tally.error.take().or_else(|| line.record.error.clone());
            }
            beside.aside(|| shown.show(&line.record))
        };
        Self { keeper: Keeper::new(journal, Box::new(listener)), tallies, input_settings, places, said }
    }

    /// Writes down what is left. Nothing can be added any more.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn close(&mut self) -> Result<()> {
        self.keeper.close()
    }

    /// Hash of the place of source `at`.
    pub fn place(&self, at: usize) -> Option<String> {
        self.places.get(at).cloned().flatten()
    }

    /// Source `at` has `items` rows.
    pub fn set_items(&mut self, at: usize, items: usize) {
        self.tallies.all()[at].items = items;
    }

    /// A result that an earlier run has left.
    pub fn skip(&mut self, at: usize) {
        self.tallies.all()[at].skipped += 1;
    }

    /// A failure that an earlier run has recorded.
    pub fn still_failed(&mut self, at: usize, row: usize, why: &str) {
        let tally = &mut self.tallies.all()[at];
        tally.failed.insert(Some(row));
        tally.error.get_or_insert_with(|| why.to_owned());
    }

    /// Records that an input is unusable; `noticed` is what there is to say of it.
    pub fn fail(
        &mut self,
        at: usize,
        source: &Source,
        row: Option<usize>,
        (why, noticed): (&str, Noticed),
    ) -> Result<()> {
        let Noticed { assumed, warnings, .. } = noticed;
        let record = Record { assumed, warnings, ..Record::failed(source.shown.clone(), row, why) };
        let settings = self.input_settings.clone();
        self.add(at, Line { record, settings, stamp: source.stamp, place: self.place(at), part: None })
    }

    /// Records a result: its files are on disk and it is in the journal before anybody sees it.
    pub fn add(&mut self, at: usize, mut line: Line) -> Result<()> {
        self.said.write(&mut line.record.assumed, &mut line.record.warnings);
        self.tallies.count(at, &line);
        self.keeper.add(at, line)
    }

    /// One sentence about source `at`, for progress.
    pub fn summary(&self, at: usize, source: &Source) -> String {
        let tally = &self.tallies.all()[at];
        match (&tally.error, tally.made) {
            (Some(why), 0) => format!("failed: {why}"),
            (Some(_), made) => {
                let made = counted(made, "map");
                format!("{}: {made}, {} of {} inputs failed", source.shown, tally.failed.len(), tally.items)
            }
            (None, 0) => format!("{}: done before", source.shown),
            (None, made) => format!("{}: {}", source.shown, counted(made, "map")),
        }
    }

    /// What became of every source.
    pub fn statuses(&self, sources: &[Source]) -> Vec<FileStatus> {
        let status = |(tally, source): (&Tally, &Source)| FileStatus {
            input: source.shown.clone(),
            status: match (tally.failed.is_empty(), tally.made) {
                (false, _) => Status::Failed,
                (true, 0) => Status::Skipped,
                (true, _) => Status::Done,
            },
            items: tally.items,
            failed_items: if tally.failed.contains(&None) { tally.items } else { tally.failed.len() },
            error: tally.error.clone(),
        };
        self.tallies.all().iter().zip(sources).map(status).collect()
    }

    /// Maps made, results left by an earlier run, sources with a failure.
    pub fn totals(&self) -> (usize, usize, usize) {
        let sum = |f: fn(&Tally) -> usize| self.tallies.all().iter().map(f).sum();
        (sum(|t| t.made), sum(|t| t.skipped), sum(|t| usize::from(!t.failed.is_empty())))
    }
}

impl Shown {
    fn show(&mut self, record: &Record) -> Result<()> {
        if self.reply == Reply::Json {
            return self.answer.line(&serde_json::to_string(record)?);
        }
        let [path, method] = self.widths;
        if !self.headed {
            self.headed = true;
            let pixels = if self.shares { format!("  {:>8}", "pixels") } else { String::new() };
            self.answer.line(&format!(
                "{:path$}  {:method$}  {:>10}  {:>8}{pixels}  {:>8}  target",
                "input", "method", "score", "gap", "seconds"
            ))?;
        }
        let row = record.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = shortened(&format!("{}{row}", paths::one_line(&record.input)), path);
        if let Some(why) = &record.error {
            let method = record.method.as_deref().map_or_else(String::new, |m| format!("{m}: "));
            return self.answer.line(&format!("{input:path$}  failed: {method}{}", message(why)));
        }
        let dash = || "-".to_string();
        let target = match (record.target, &record.target_label) {
            (Some(i), Some(label)) => format!("{i} {label}"),
            (Some(i), None) => i.to_string(),
            (None, _) => dash(),
        };
        let nothing = showing_nothing(&record.notes).map_or_else(String::new, |words| format!("  ({words})"));
        let pixels = |share: String| if self.shares { format!("  {share:>8}") } else { String::new() };
        let reached = record.shares.and_then(|shares| shares.relative());
        self.answer.line(&format!(
            "{input:path$}  {:method$}  {:>10}  {:>8}{}  {:>8.3}  {target}{nothing}",
            record.method.as_deref().unwrap_or("-"),
            record.score.map_or_else(dash, |s| format!("{s:.4}")),
            record.gap.as_ref().and_then(|g| g.relative).map_or_else(dash, |r| format!("{r:.1e}")),
            pixels(reached.map_or_else(dash, |[input, ..]| percent(input))),
            record.seconds,
        ))
    }
}

/// The end of a text that is too long, since paths differ there.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        text.to_owned()
    } else {
        format!("…{}", text.chars().skip(count + 1 - width).collect::<String>())
    }
}
