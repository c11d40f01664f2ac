//! Writes the journal of a run in the background: many records at a time, each once its files are on disk.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::data::paths;
use crate::error::{self, Error, Result};
use crate::report::{Journal, Line, of_rows, unless_unsupported};

/// Most files that are synced together.
const TOGETHER: usize = 64;
/// Longest time that a record waits for others.
const LONGEST: Duration = Duration::from_millis(500);

/// A line of a journal.
pub trait RecordLine: Serialize + Send + 'static {
    /// Key that only lines of this command have.
    const KEY: &'static str;
    /// Row of an array.
    fn index(&self) -> Option<usize>;
    /// The method or attack; `None` for an unusable input.
    fn maker(&self) -> Option<&str>;
    /// Why there is no result.
    fn error(&self) -> Option<&str>;
    /// Whether the result fulfils the promise.
    fn succeeded(&self) -> bool {
        true
    }
    /// Turns it into a failure after the fact.
    fn fail(&mut self, why: String);
    /// Its assumptions and warnings.
    fn remarks(&mut self) -> (&mut Vec<String>, &mut Vec<String>);
    /// Files written.
    fn files(&self) -> &[String];
    /// Key of raw files that are not in place yet.
    fn part(&self) -> Option<&str>;
    /// Records that all files are on disk, with these sizes.
    fn on_disk(&mut self, bytes: Vec<u64>);
    /// Records that a file has vanished or could not be written; returns whether the line was a success before.
    fn lost(&mut self, why: String) -> bool {
        let fine = self.error().is_none();
        if fine {
            self.fail(why);
        }
        fine
    }
}

impl RecordLine for Line {
    const KEY: &'static str = "method";

    fn index(&self) -> Option<usize> {
        self.record.index
    }

    fn maker(&self) -> Option<&str> {
        self.record.method.as_deref()
    }

    fn error(&self) -> Option<&str> {
        self.record.error.as_deref()
    }

    fn fail(&mut self, why: String) {
        self.record.error = Some(why);
    }

    fn remarks(&mut self) -> (&mut Vec<String>, &mut Vec<String>) {
        (&mut self.record.assumed, &mut self.record.warnings)
    }

    fn files(&self) -> &[String] {
        &self.record.files
    }

    fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    fn on_disk(&mut self, bytes: Vec<u64>) {
        self.record.bytes = bytes;
    }
}

/// Receives each line of a source once it is in the journal, and whether its result was lost on the way.
pub type LineListener<L> = Box<dyn FnMut(usize, &L, bool) -> Result<()> + Send>;

/// Takes lines and writes them in order.
pub struct Keeper<L> {
    way: KeepingWay<L>,
}

enum KeepingWay<L> {
    Beside {
        to: Sender<(usize, L)>,
        thread: JoinHandle<Result<()>>,
    },
    /// Used if no thread can be started.
    Inline(Box<Desk<L>>),
    Closed,
}

impl<L: RecordLine> Keeper<L> {
    /// Writes to `journal`, then calls `listener`.
    pub fn new(journal: Journal, listener: LineListener<L>) -> Self {
        let desk = Desk { journal, listener, waiting: Vec::new(), files: 0, since: Instant::now() };
        let (to, from) = mpsc::channel();
        let (hand_over, take_over) = mpsc::channel::<Desk<L>>();
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || match take_over.recv() {
            Ok(desk) => desk.serve(&from),
            Err(_) => Ok(()),
        });
        Self {
            way: match thread {
                Ok(thread) => match hand_over.send(desk) {
                    Ok(()) => KeepingWay::Beside { to, thread },
                    Err(mpsc::SendError(desk)) => KeepingWay::Inline(Box::new(desk)),
                },
                Err(_) => KeepingWay::Inline(Box::new(desk)),
            },
        }
    }

    /// Adds a line of source `at`.
    ///
    /// # Errors
    /// When an earlier one could not be written.
    pub fn add(&mut self, at: usize, line: L) -> Result<()> {
        match &mut self.way {
            KeepingWay::Beside { to, .. } => match to.send((at, line)) {
                Ok(()) => Ok(()),
                // The thread has ended; closing returns its error.
                Err(_) => self.close(),
            },
            KeepingWay::Inline(desk) => desk.take(at, line),
            KeepingWay::Closed => Err(Error::settings("the journal is closed")),
        }
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn close(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.way, KeepingWay::Closed) {
            KeepingWay::Beside { to, thread } => {
                drop(to);
                thread.join().unwrap_or_else(|_| Err(Error::device("the journal's thread has ended")))
            }
            KeepingWay::Inline(mut desk) => desk.pass(),
            KeepingWay::Closed => Ok(()),
        }
    }
}

struct Desk<L> {
    journal: Journal,
    listener: LineListener<L>,
    waiting: Vec<(usize, L)>,
    files: usize,
    /// Arrival of the first pending line.
    since: Instant,
}

impl<L: RecordLine> Desk<L> {
    fn serve(mut self, from: &Receiver<(usize, L)>) -> Result<()> {
        loop {
            let next = match self.waiting.is_empty() {
                true => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => from.recv_timeout(LONGEST.saturating_sub(self.since.elapsed())),
            };
            match next {
                Ok((at, line)) => self.take(at, line)?,
                Err(RecvTimeoutError::Timeout) => self.pass()?,
                Err(RecvTimeoutError::Disconnected) => return self.pass(),
            }
        }
    }

    fn take(&mut self, at: usize, line: L) -> Result<()> {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.files += line.files().len().max(1);
        self.waiting.push((at, line));
        if self.files >= TOGETHER || self.since.elapsed() >= LONGEST { self.pass() } else { Ok(()) }
    }

    /// Syncs the files, then writes their records.
    fn pass(&mut self) -> Result<()> {
        self.files = 0;
        let mut folders = BTreeSet::new();
        let mut sizes = HashMap::new();
        let mut losses = Vec::with_capacity(self.waiting.len());
        for (_, line) in &mut self.waiting {
            let mut bytes = Vec::with_capacity(line.files().len());
            let mut lost = None;
            for name in line.files() {
                let path = paths::named(name);
                let size = sizes.entry(path.clone()).or_insert_with(|| synced(&path, line.part()));
                match size {
                    Ok(size) => bytes.push(*size),
                    Err(why) => lost = Some(why.clone()),
                }
                folders.insert(path.parent().map(Path::to_owned).unwrap_or_default());
            }
            losses.push(match lost {
                None => {
                    line.on_disk(bytes);
                    false
                }
                Some(why) => line.lost(why),
            });
        }
        folders.iter().for_each(|folder| sync_folder(folder));
        let (ats, lines): (Vec<usize>, Vec<L>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        self.journal.append(&lines)?;
        self.journal.sync()?;
        ats.into_iter().zip(&lines).zip(losses).try_for_each(|((at, line), lost)| (self.listener)(at, line, lost))
    }
}

/// Syncs a file and returns its size.
fn synced(path: &PathBuf, part: Option<&str>) -> std::result::Result<u64, String> {
    // Rows of an array are in a partial file until all are written.
    let parts = part.map(|key| of_rows(path, key));
    let places = parts.iter().chain([path]);
    let file = places.map(|place| error::open_file(place)).reduce(std::result::Result::or);
    let file = file.unwrap_or_else(|| error::open_file(path)).map_err(|e| e.to_string())?;
    let done = flush(&file).or_else(unless_unsupported).and_then(|()| file.metadata());
    done.map(|there| there.len()).map_err(|e| Error::io(path, e).to_string())
}

#[cfg(unix)]
fn flush(file: &File) -> std::io::Result<()> {
    file.sync_data()
}

/// Only a file opened for writing can be synced.
#[cfg(not(unix))]
fn flush(_: &File) -> std::io::Result<()> {
    Ok(())
}

/// Best effort: durable names matter less than complete results.
#[cfg(unix)]
fn sync_folder(folder: &Path) {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Record;
    use std::sync::{Arc, Mutex};

    #[test]
    fn lines_come_in_order_and_know_what_became_of_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let listener = Box::new(move |at, line: &Line, lost| {
            hears.lock().unwrap().push((at, lost && line.record.error.is_some()));
            Ok(())
        });
        let mut keeper = Keeper::new(Journal::start::<Line>(&path, &[]).unwrap(), listener);
        let line = |name: &str| {
            let files = vec![folder.path().join(name).display().to_string()];
            let record = Record { files, error: None, ..Record::failed(name, None, "") };
            Line { record, settings: "s".into(), ..Line::default() }
        };
        for i in 0..150 {
            std::fs::write(folder.path().join(format!("{i}.npy")), vec![0; i]).unwrap();
            keeper.add(i, line(&format!("{i}.npy"))).unwrap();
        }
        keeper.add(150, line("gone.npy")).unwrap();
        keeper.close().unwrap();
        let lines: Vec<Line> = Journal::read(&path).unwrap();
        assert_eq!(lines.len(), 151);
        assert!(lines[..150].iter().enumerate().all(|(i, line)| line.record.bytes == [i as u64]));
        assert!(lines[150].record.error.as_ref().unwrap().contains("gone.npy"));
        let expected: Vec<_> = (0..151).map(|i| (i, i == 150)).collect();
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn a_journal_that_was_removed_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut keeper = Keeper::<Line>::new(Journal::start::<Line>(&path, &[]).unwrap(), Box::new(|_, _, _| Ok(())));
        std::fs::remove_file(&path).unwrap();
        assert!(keeper.close().unwrap_err().to_string().contains("removed or replaced"));
    }
}
