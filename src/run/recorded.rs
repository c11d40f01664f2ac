//! The common part of runs with records: from the names of inputs to an open ledger, rows that wait for their array's
//! files, and the manifest at the end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::json;

use super::keeper::RecordLine;
use super::ledger::{Ledger, RunFolder, Settle, Show, Totals};
use super::resume::Done;
use super::said::Said;
use super::settings::{Named, fingerprint, manifest, many_passes};
use super::{Listener, too_small};
use crate::data::files::{RawFile, RawFiles, RawFormat};
use crate::data::{Item, ItemPosition, ItemStream, NetInput, Room, Shard, Skip, Source, TargetChoice, Targets, find};
use crate::engine::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Setting;
use crate::report::{Manifest, MethodUsed};
use crate::session::{Noticed, Scored, Session};
use crate::tensor::Tensor;

/// Rows of an array per group.
pub(super) const ROWS: usize = 16;
/// Small pictures per group.
pub(super) const PICTURES: usize = 8;
/// Most elements per channel of a small picture.
pub(super) const SMALL: usize = 64 * 64;

/// The parameters of a run with records.
pub(super) struct RunRequest<'o> {
    pub command: &'static str,
    pub inputs: &'o [std::ffi::OsString],
    pub out: &'o Path,
    pub shard: Option<Shard>,
    pub settings: &'o Settings,
    pub given: &'o [Setting],
    /// Other files that the run reads.
    pub read: &'o [PathBuf],
    pub target: &'o str,
    pub score: &'o str,
    pub formats: Vec<String>,
    /// Methods for which a high number of passes is reported.
    pub methods: &'o [Named],
    /// Ids of what runs, as in file names and records.
    pub ids: Vec<String>,
    /// Other ids that file names may contain.
    pub others: &'o [&'o str],
    /// Warnings about the request.
    pub warnings: Vec<String>,
}

/// The array whose rows are being processed.
struct Rows {
    single: bool,
    files: RawFiles,
    /// By method or attack, the key of its raw files; empty for a single input.
    keys: Vec<String>,
}

/// A run with records.
pub(super) struct Recorded<'a, L> {
    pub session: &'a mut Session,
    pub sources: Arc<[Source]>,
    pub targets: Targets,
    /// The completed results of earlier runs.
    pub done: Arc<Done>,
    pub ledger: Ledger<L>,
    room: Room,
    small: bool,
    /// Whether the net has processed an input.
    proven: bool,
    rows: Option<Rows>,
    /// Lines that wait until the array's files are in place: records must not claim files that are not there.
    held: Vec<(usize, L)>,
    manifest: Manifest,
    started: Instant,
}

impl<'a, L: RecordLine + DeserializeOwned> Recorded<'a, L> {
    /// Finds the inputs, locks the folder of results and examines its contents.
    pub fn open(
        session: &'a mut Session,
        (asked, used): (RunRequest<'_>, Vec<MethodUsed>),
        (target, mut targets): (&TargetChoice, Targets),
        settle: Option<&Settle<'_, L>>,
        show: impl FnOnce(&[Source]) -> Show<L>,
        listener: &dyn Listener,
    ) -> Result<Self> {
        let started = Instant::now();
        let folder = RunFolder::lock(asked.out, asked.command, asked.shard)?;
        let room = Room { allowed: asked.settings.memory };
        let found = find(asked.inputs, asked.out, room);
        let (ignored, left_out) = (found.ignored, found.left_out());
        let mut sources = found.sources;
        if sources.is_empty() {
            return Err(Error::settings("no inputs"));
        }
        targets.know(&sources)?;
        let table = if let TargetChoice::File(path) = target { Some(path) } else { None };
        let inputs = sources.iter().map(|s| &s.path);
        let read: HashSet<PathBuf> =
            inputs.chain(asked.read).chain(table).filter_map(|path| path.canonicalize().ok()).collect();
        let ids: Vec<&str> = asked.ids.iter().map(String::as_str).chain(asked.others.iter().copied()).collect();
        let found = folder.find::<L>(&mut sources, &ids, asked.shard, settle)?;
        listener.begin(sources.len());
        let mut said = Said::new(session, asked.given);
        said.warnings.extend(asked.warnings);
        said.tell(listener);
        said.remember(&found.done.said.assumed, &found.done.said.warnings);
        left_out.iter().for_each(|sentence| listener.say(sentence));
        if !matches!(target, TargetChoice::Top1 | TargetChoice::Top(_) | TargetChoice::Least) {
            session.labels().numbers().into_iter().for_each(|sentence| listener.say(&sentence));
        }
        many_passes(asked.methods).for_each(|line| listener.say(&line));
        found.sentences.iter().for_each(|sentence| listener.say(sentence));
        let classes = session.model().classes();
        if let TargetChoice::Top(k) = target
            && *k > classes
        {
            listener.say(&format!("--target top:{k}: all {classes} classes of the net are explained"));
        }
        let sources: Arc<[Source]> = sources.into();
        let shown = show(&sources);
        let (ledger, done, sentences) = found.start(Arc::clone(&sources), &ids, read, said, shown)?;
        sentences.iter().for_each(|sentence| listener.say(sentence));
        let what = (used, asked.target, asked.score);
        let shard = asked.shard.map(|shard| shard.to_string());
        let mut manifest = manifest(session, asked.command, asked.settings, what, asked.formats, shard)?;
        manifest.ignored_files = ignored;
        let small = session.preparation().crop.iter().product::<usize>() <= SMALL;
        let (proven, rows, held) = (false, None, Vec::new());
        Ok(Self { session, sources, targets, done, ledger, room, small, proven, rows, held, manifest, started })
    }

    /// The inputs, except those that `skip` excludes.
    pub fn stream(&self, skip: Skip) -> ItemStream {
        let (preprocess, input) = (self.session.preparation(), self.session.model().input_form());
        ItemStream::new(Arc::clone(&self.sources), NetInput { preprocess, input, room: self.room }).but(skip)
    }

    /// Most inputs in a group whose first is `at`.
    pub fn together(&self, (_, row): ItemPosition) -> usize {
        match row {
            Some(_) => ROWS,
            None if self.small => PICTURES,
            None => 1,
        }
    }

    /// Begins an array. Raw files of an interrupted run are continued: for method or attack `m`, `left` returns the
    /// rows that count and the locations of the files.
    pub fn begin(
        &mut self,
        at: usize,
        (count, single): (usize, bool),
        left: impl Fn(usize) -> (Vec<bool>, Vec<PathBuf>),
    ) -> Result<()> {
        self.ledger.set_items(at, count);
        let mut rows = Rows { single, files: RawFiles::new(count), keys: Vec::new() };
        for (m, used) in self.manifest.methods.iter().enumerate().filter(|_| !single) {
            let key = fingerprint(&json!([used.settings, self.sources[at].stamp, count]));
            let (done, files) = left(m);
            files.iter().try_for_each(|path| rows.files.go_on(path, &key, &done))?;
            rows.keys.push(key);
        }
        self.rows = Some(rows);
        Ok(())
    }

    /// Whether the current inputs are rows of an array that share one raw file.
    pub fn several_rows(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| !rows.single)
    }

    /// The key of the raw files of method or attack `m`, if they hold rows.
    pub fn part(&self, m: usize) -> Option<String> {
        self.rows.as_ref().and_then(|rows| rows.keys.get(m).cloned())
    }

    /// Writes raw numbers of method or attack `m` to `path`: as a file, or as a row of the array's file.
    pub fn write(
        &mut self,
        (path, raw): (&Path, RawFormat),
        m: usize,
        row: Option<usize>,
        (dims, values): (&[usize], &[f32]),
    ) -> Result<()> {
        match &mut self.rows {
            Some(rows) if !rows.single => {
                rows.files.push((path, Some(&rows.keys[m])), raw, row.unwrap_or(0), dims, values)
            }
            _ => {
                let mut file = RawFile::create((path, None), raw, None, dims)?;
                file.push(0, values)?;
                file.finish()
            }
        }
    }

    /// Adds a line about source `at`. Lines of rows wait until the next group, or until the array's files are in place.
    pub fn add(&mut self, at: usize, line: L) -> Result<()> {
        match self.rows {
            Some(_) => self.held.push((at, line)),
            None => self.ledger.add(at, line)?,
        }
        Ok(())
    }

    /// Writes the pending lines of the previous group.
    pub fn write_held(&mut self) -> Result<()> {
        std::mem::take(&mut self.held).into_iter().try_for_each(|(at, line)| self.ledger.add(at, line))
    }

    /// Ends a source: moves an array's files into place.
    pub fn end(&mut self) -> Result<()> {
        if let Some(rows) = self.rows.take()
            && let Err(e) = rows.files.finish()
        {
            self.held.iter_mut().for_each(|(_, line)| line.fail(e.to_string()));
        }
        self.write_held()
    }

    /// Runs the net on items. Each item has its own error, returned with the remarks on it.
    pub fn score(
        &mut self,
        items: Vec<(ItemPosition, Item)>,
        listener: &dyn Listener,
    ) -> Result<Vec<(ItemPosition, SeenOrFailed)>> {
        items.iter().for_each(|(_, item)| self.ledger.said.hear(item, listener));
        let inputs: Vec<&Tensor> = items.iter().map(|(_, item)| &item.input).collect();
        let scored = self.session.score(&inputs);
        let mut all = Vec::with_capacity(items.len());
        for ((at, item), scored) in items.into_iter().zip(scored) {
            too_small(&scored, &mut self.proven, &self.sources)?;
            let targets = |scored: &Scored| self.targets.of(&self.sources[at.0], at.1, &scored.logits);
            let seen = scored.and_then(|scored| Ok((targets(&scored)?, scored)));
            all.push((
                at,
                match seen {
                    Ok((targets, scored)) => {
                        let class = self.targets.listed(&targets).or(item.label);
                        class.into_iter().for_each(|class| self.ledger.said.count(class == scored.top()));
                        Ok(Seen { item, scored, targets })
                    }
                    Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                    Err(e) => Err((e, self.ledger.said.of_item(&item))),
                },
            ));
        }
        Ok(all)
    }

    /// Writes what is pending. If `ended`, the outcome of the run, is Ok, also writes the manifest, which says that all
    /// inputs were processed.
    pub fn close(mut self, ended: Result<()>, listener: &dyn Listener) -> Result<Totals> {
        let closed = self.ledger.close();
        ended.and(closed)?;
        self.ledger.said.judge(self.session.model().classes(), listener);
        self.ledger.left_over().into_iter().for_each(|sentence| self.ledger.said.add(&sentence, listener));
        let mut manifest = self.manifest;
        manifest.assumed = self.ledger.said.all_assumed();
        manifest.warnings = self.ledger.said.all();
        manifest.files = self.ledger.statuses();
        manifest.seconds = self.started.elapsed().as_secs_f64();
        manifest.write(self.ledger.manifest())?;
        Ok(self.ledger.totals())
    }
}

/// A scored item, or its error and the remarks on it.
type SeenOrFailed = std::result::Result<Seen, (Error, Noticed)>;

/// An item and the net's output for it.
pub(super) struct Seen {
    pub item: Item,
    pub scored: Scored,
    /// Classes explained or attacked.
    pub targets: Vec<usize>,
}
