//! What a run has to say: the journal, standard output, and what became of each source.

use std::collections::HashSet;

use anyhow::Result;
use verilume::report::{FileStatus, Journal, Line, Record, Status};

use crate::inputs::Source;
use crate::paths;
use crate::plan::Reply;
use crate::said::Said;
use crate::talk::{Answer, Progress, counted};

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

/// Keeps the records of a run.
pub struct Book {
    journal: Journal,
    answer: Answer,
    reply: Reply,
    widths: [usize; 2],
    tallies: Vec<Tally>,
    headed: bool,
    /// Settings of records that no method made.
    input_settings: String,
    /// What every record says of the run.
    pub said: Said,
}

impl Book {
    /// An empty book over `sources`, writing to `journal`.
    pub fn new(
        journal: Journal,
        reply: Reply,
        sources: &[Source],
        ids: &[String],
        input_settings: String,
        said: Said,
    ) -> Self {
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        // Room for the row number of an array.
        let path = longest(&mut sources.iter().map(|s| s.shown.chars().count() + if s.is_array() { 6 } else { 0 }));
        let widths = [path.clamp(5, PATH_CHARACTERS), longest(&mut ids.iter().map(String::len)).max(6)];
        let tallies = sources.iter().map(|_| Tally { items: 1, ..Tally::default() }).collect();
        Self { journal, answer: Answer::default(), reply, widths, tallies, headed: false, input_settings, said }
    }

    /// Source `at` has `items` rows.
    pub fn set_items(&mut self, at: usize, items: usize) {
        self.tallies[at].items = items;
    }

    /// A result that an earlier run has left.
    pub fn skip(&mut self, at: usize) {
        self.tallies[at].skipped += 1;
    }

    /// A failure that an earlier run has recorded.
    pub fn still_failed(&mut self, at: usize, row: usize, why: &str) {
        self.tallies[at].failed.insert(Some(row));
        self.tallies[at].error.get_or_insert_with(|| why.to_owned());
    }

    /// Records that an input is unusable.
    pub fn fail(
        &mut self,
        at: usize,
        source: &Source,
        row: Option<usize>,
        why: &str,
        progress: &Progress,
    ) -> Result<()> {
        let record = Record::failed(source.shown.clone(), row, why);
        let settings = self.input_settings.clone();
        self.add(at, Line { record, settings, stamp: source.stamp }, progress)
    }

    /// Records a result: it is in the journal before anybody sees it.
    pub fn add(&mut self, at: usize, mut line: Line, progress: &Progress) -> Result<()> {
        line.record.assumed.clone_from(&self.said.assumed);
        line.record.warnings.splice(..0, self.said.warnings.iter().cloned());
        self.journal.append(&line)?;
        let tally = &mut self.tallies[at];
        match &line.record.error {
            Some(why) => {
                tally.failed.insert(line.record.index);
                tally.error.get_or_insert_with(|| why.clone());
            }
            None => tally.made += 1,
        }
        progress.aside(|| self.show(&line.record))
    }

    fn show(&mut self, record: &Record) -> Result<()> {
        if self.reply == Reply::Json {
            return self.answer.line(&serde_json::to_string(record)?);
        }
        let [path, method] = self.widths;
        if !self.headed {
            self.headed = true;
            let heads = ["input", "method", "score", "gap", "seconds", "target"];
            self.answer.line(&format!(
                "{:path$}  {:method$}  {:>10}  {:>8}  {:>8}  {}",
                heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
            ))?;
        }
        let row = record.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = shortened(&format!("{}{row}", paths::one_line(&record.input)), path);
        if let Some(why) = &record.error {
            let method = record.method.as_deref().map_or_else(String::new, |m| format!("{m}: "));
            return self.answer.line(&format!("{input:path$}  failed: {method}{}", paths::one_line(why)));
        }
        let dash = || "-".to_string();
        let target = match (record.target, &record.target_label) {
            (Some(i), Some(label)) => format!("{i} {label}"),
            (Some(i), None) => i.to_string(),
            (None, _) => dash(),
        };
        self.answer.line(&format!(
            "{input:path$}  {:method$}  {:>10}  {:>8}  {:>8.3}  {target}",
            record.method.as_deref().unwrap_or("-"),
            record.score.map_or_else(dash, |s| format!("{s:.4}")),
            record.gap.as_ref().and_then(|g| g.relative).map_or_else(dash, |r| format!("{r:.1e}")),
            record.seconds,
        ))
    }

    /// One sentence about source `at`, for progress.
    pub fn summary(&self, at: usize, source: &Source) -> String {
        let tally = &self.tallies[at];
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
        self.tallies.iter().zip(sources).map(status).collect()
    }

    /// Maps made, results left by an earlier run, sources with a failure.
    pub fn totals(&self) -> (usize, usize, usize) {
        let sum = |f: fn(&Tally) -> usize| self.tallies.iter().map(f).sum();
        (sum(|t| t.made), sum(|t| t.skipped), sum(|t| usize::from(!t.failed.is_empty())))
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
