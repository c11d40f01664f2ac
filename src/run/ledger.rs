//! The ledger of a run: the lock on its folder, the results of earlier runs, the journal, and the status of each
//! source.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::earlier::{Finder, Past, Results, StemsInUse, place_of, renamed, sweep};
use super::keeper::{Keeper, RecordLine};
use super::resume::Done;
use super::said::Said;
use crate::data::{Announced, Shard, Source, announce, deal, files, paths};
use crate::error::{Error, Result, regular_or_free};
use crate::report::{FileStatus, Journal, Status};
use crate::text::counted;

/// Whether to reuse results of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// They are kept and not recomputed.
    Resume,
    /// They are ignored.
    Forget,
}

/// Attempts to take a lock.
const LOOKS: usize = 10;

/// Keeps other runs from writing to the same records in `out` until it is dropped.
///
/// # Errors
/// When another run holds it, or it cannot be made.
pub fn lock(path: &Path, out: &Path) -> Result<File> {
    regular_or_free(path)?;
    let options = File::options().create(true).truncate(false).write(true).open(path);
    let file = options.map_err(|e| Error::io(path, e))?;
    // A starting run may hold this lock for a moment.
    for _ in 0..LOOKS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Ok(()) => return Ok(file),
            // Some file systems have no locks.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(Error::io(path, e)),
        }
    }
    Err(Error::settings(format!("another run is writing to {}", out.display())))
}

/// Decides which earlier results count.
pub(super) type Settle<'s, L> = dyn Fn(&Past<L>, &[Source], &Finder<'_>, &StemsInUse<'_>) -> Done + 's;

/// A folder of results that only this run writes to.
pub(super) struct RunFolder {
    command: &'static str,
    out: PathBuf,
    records: PathBuf,
    manifest: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

/// The contents of the folder before the run begins.
pub(super) struct FoundInFolder<L> {
    folder: RunFolder,
    results: Results,
    past: Past<L>,
    places: Vec<Option<String>>,
    /// Results that need not be recomputed, and lines to keep.
    pub done: Done,
    /// Results of other inputs.
    others: HashSet<PathBuf>,
    /// Remarks on it, one sentence each.
    pub sentences: Vec<String>,
}

impl RunFolder {
    /// Creates and locks `out` for `command`; each shard has its own records.
    ///
    /// # Errors
    /// When the folder cannot be created or another run is writing to it.
    pub fn lock(out: &Path, command: &'static str, shard: Option<Shard>) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let file = |name: &str, extension: &str| {
            out.join(match shard {
                Some(shard) => format!("{name}.{}-of-{}.{extension}", shard.part, shard.of),
                None => format!("{name}.{extension}"),
            })
        };
        let lock_path = file(".records", "lock");
        let lock = lock(&lock_path, out)?;
        let (records, manifest) = (file("records", "jsonl"), file("manifest", "json"));
        Ok(Self { command, out: out.to_owned(), records, manifest, lock_path, _lock: lock })
    }

    /// Examines what earlier runs left. Sources whose results would replace those of another input are renamed; sources
    /// of other shards are dropped. `ids` are the names of this run's methods or attacks; `settle`, if given, decides
    /// which earlier results count.
    ///
    /// # Errors
    /// When the records are damaged.
    pub fn find<L: RecordLine + DeserializeOwned>(
        self,
        sources: &mut Vec<Source>,
        ids: &[&str],
        shard: Option<Shard>,
        settle: Option<&Settle<'_, L>>,
    ) -> Result<FoundInFolder<L>> {
        let results = Results::new(&self.out);
        let past = Past::<L>::read(&results, &self.records, L::KEY)?;
        let names = past.names(ids.iter().copied().collect());
        let placed = |sources: &[Source]| sources.iter().map(|s| place_of(&s.path)).collect::<Vec<_>>();
        let mut places = placed(sources);
        let mut sentences = renamed(names.keep_apart(sources, &places));
        if let Some(shard) = shard {
            deal(sources, shard);
            places = placed(sources);
        }
        let finder = Finder::new(sources, &places);
        let done = match settle {
            Some(settle) => settle(&past, sources, &finder, &names),
            None => {
                let again = |line: &L| line.maker().is_none_or(|maker| ids.contains(&maker));
                Done::nothing_but(past.stay(&finder, &names, |entry| entry.line.as_ref().is_some_and(again)))
            }
        };
        let others = past.of_others(&results, &finder);
        if done.outdated > 0 {
            sentences.insert(0, super::outdated(done.outdated));
        }
        if done.dropped > 0 {
            sentences.push(format!(
                "{} of earlier runs left out: files are gone, changed or replaced",
                counted(done.dropped, "record")
            ));
        }
        drop(finder);
        drop(names);
        Ok(FoundInFolder { folder: self, results, past, places, done, others, sentences })
    }
}

/// Displays a record once it is in the journal.
pub type Show<L> = Box<dyn FnMut(&L) -> Result<()> + Send>;

impl<L: RecordLine> FoundInFolder<L> {
    /// Opens the journal. A manifest of another command is renamed, which is reported.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn start(
        self,
        sources: Arc<[Source]>,
        ids: &[&str],
        read: HashSet<PathBuf>,
        said: Said,
        mut show: Show<L>,
    ) -> Result<(Ledger<L>, Arc<Done>, Vec<String>)> {
        let Self { folder, results, past, places, done, others, mut sentences } = self;
        // A manifest says that a run has ended, so an earlier run's must not stay next to this run's records.
        if let Some(kept) = files::set_aside(&folder.manifest, |manifest| manifest["command"] == folder.command)? {
            sentences.push(format!("the manifest of another command is kept as {}", kept.display()));
        }
        match std::fs::remove_file(&folder.manifest) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&folder.manifest, e)),
            _ => {}
        }
        let announced = sources.iter().map(|s| Announced { path: &s.path, stem: &s.stem, is_result: s.is_result });
        let foreign = announce(&folder.out, folder.command, &announced.collect::<Vec<_>>(), ids.iter().copied())?;
        let left = past.leave(&results, &done.kept)?;
        let journal = Journal::start_with(&folder.records, done.kept.iter().map(Vec::as_slice))?;
        let needed = done.parts.iter().cloned().chain(past.parts()).collect();
        sweep(&results, &folder.lock_path, &sources, &needed);
        let tallies = sources.iter().map(|_| SourceTally { items: 1, ..SourceTally::default() }).collect();
        let tallies = Tallies(Arc::new(Mutex::new(tallies)));
        let late = tallies.clone();
        let listener = move |at: usize, line: &L, lost: bool| {
            if lost {
                late.lose(at, line);
            }
            show(line)
        };
        let keeper = Keeper::new(journal, Box::new(listener));
        Ok((
            Ledger { folder, keeper, tallies, places, sources, read, others, foreign, left, said },
            Arc::new(done),
            sentences,
        ))
    }
}

/// The status of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceTally {
    /// Rows of an array; 1 for a picture.
    pub items: usize,
    /// Results made.
    pub made: usize,
    /// Those of them that fulfil their promise.
    pub succeeded: usize,
    /// Results reused from an earlier run.
    pub skipped: usize,
    /// Rows that failed; `None` stands for the whole source.
    pub failed: HashSet<Option<usize>>,
    /// The first error.
    pub error: Option<String>,
}

#[derive(Clone)]
struct Tallies(Arc<Mutex<Vec<SourceTally>>>);

impl Tallies {
    fn all(&self) -> MutexGuard<'_, Vec<SourceTally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, at: usize, line: &impl RecordLine) {
        let tally = &mut self.all()[at];
        match line.error() {
            Some(why) => {
                tally.failed.insert(line.index());
                tally.error.get_or_insert_with(|| why.to_owned());
            }
            None => {
                tally.made += 1;
                tally.succeeded += usize::from(line.succeeded());
            }
        }
    }

    /// A result that counted as made is a failure if its files vanished before they were on disk.
    fn lose(&self, at: usize, line: &impl RecordLine) {
        let tally = &mut self.all()[at];
        tally.made -= 1;
        tally.succeeded -= usize::from(line.succeeded());
        tally.failed.insert(line.index());
        tally.error = tally.error.take().or_else(|| line.error().map(str::to_owned));
    }
}

/// The totals of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Results made.
    pub made: usize,
    /// Those of them that fulfil their promise.
    pub succeeded: usize,
    /// Results reused from an earlier run.
    pub skipped: usize,
    /// Sources with a failure.
    pub failed: usize,
}

/// Keeps the records of a run: a record is shown only once it is in the journal and its files are on disk.
pub struct Ledger<L> {
    folder: RunFolder,
    keeper: Keeper<L>,
    tallies: Tallies,
    /// Locations of the sources.
    places: Vec<Option<String>>,
    sources: Arc<[Source]>,
    /// Files that this run reads.
    read: HashSet<PathBuf>,
    /// Results of other inputs.
    others: HashSet<PathBuf>,
    /// Files with names of results that were not made by any run.
    foreign: HashSet<PathBuf>,
    /// Results of earlier runs without a record.
    left: HashSet<PathBuf>,
    /// Remarks on the run, which every record carries.
    pub said: Said,
}

impl<L: RecordLine> Ledger<L> {
    /// The folder of results.
    pub fn out(&self) -> &Path {
        &self.folder.out
    }

    /// The inputs.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Hash of the location of source `at`.
    pub fn place(&self, at: usize) -> Option<String> {
        self.places.get(at).cloned().flatten()
    }

    /// Sets the number of rows of source `at`.
    pub fn set_items(&mut self, at: usize, items: usize) {
        self.tallies.all()[at].items = items;
    }

    /// Counts `n` results reused from an earlier run.
    pub fn skip(&mut self, at: usize, n: usize) {
        self.tallies.all()[at].skipped += n;
    }

    /// Counts a failure that an earlier run recorded.
    pub fn still_failed(&mut self, at: usize, row: usize, why: &str) {
        let tally = &mut self.tallies.all()[at];
        tally.failed.insert(Some(row));
        tally.error.get_or_insert_with(|| why.to_owned());
    }

    /// Adds a line about source `at`.
    ///
    /// # Errors
    /// When an earlier one could not be written.
    pub fn add(&mut self, at: usize, mut line: L) -> Result<()> {
        let (assumed, warnings) = line.remarks();
        self.said.write(assumed, warnings);
        self.tallies.count(at, &line);
        if !self.left.is_empty() {
            let written = line.files().iter().filter_map(|file| paths::named(file).canonicalize().ok());
            written.for_each(|place| _ = self.left.remove(&place));
        }
        self.keeper.add(at, line)
    }

    /// Refuses to write a result over a file that this run reads, another input's result, or a file not made by any
    /// run.
    ///
    /// # Errors
    /// Input; the message names the path.
    pub fn spare(&self, path: &Path) -> Result<()> {
        let whose = match path.canonicalize() {
            Ok(place) if self.read.contains(&place) => "of a file that this run reads",
            Ok(place) if self.others.contains(&place) => "of another input's",
            _ if self.foreign.contains(&paths::full(path)) && path.symlink_metadata().is_ok() => {
                "of a file that is not a result of this program"
            }
            _ => return Ok(()),
        };
        Err(Error::input(format!(
            "{}: the result would take the place {whose}; give another folder with -o",
            path.display()
        )))
    }

    /// The status of source `at` so far.
    pub fn tally(&self, at: usize) -> SourceTally {
        self.tallies.all()[at].clone()
    }

    /// Writes what is pending. Nothing can be added afterwards.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn close(&mut self) -> Result<()> {
        self.keeper.close()
    }

    /// A sentence about the results of earlier runs that stay in the folder without a record, if there are any.
    pub fn left_over(&self) -> Option<String> {
        let n = self.left.iter().filter(|path| path.is_file()).count();
        (n > 0).then(|| {
            format!(
                "{} of earlier runs, made with other settings or formats, {} in {} without a record",
                counted(n, "file"),
                if n == 1 { "stays" } else { "stay" },
                self.folder.out.display()
            )
        })
    }

    /// The status of every source.
    pub fn statuses(&self) -> Vec<FileStatus> {
        let status = |(tally, source): (&SourceTally, &Source)| FileStatus {
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
        self.tallies.all().iter().zip(self.sources.iter()).map(status).collect()
    }

    /// The totals of the run.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for tally in self.tallies.all().iter() {
            totals.made += tally.made;
            totals.succeeded += tally.succeeded;
            totals.skipped += tally.skipped;
            totals.failed += usize::from(!tally.failed.is_empty());
        }
        totals
    }

    /// Path of the manifest.
    pub fn manifest(&self) -> &Path {
        &self.folder.manifest
    }
}
