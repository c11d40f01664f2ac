//! Maps of many inputs: inputs in groups through the net and the methods, results into files and the ledger.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::drawing::{self, Panel};
use super::earlier::{self, Finder, Names, Past};
use super::ledger::{Earlier, Folder, Ledger, Show, Totals};
use super::resume::{Current, Demands, Done, Known};
use super::said::Said;
use super::settings::{Built, Named, build, common, fingerprint, manifest};
use super::{Listener, Work, hopeless, too_small};
use crate::cancel::Cancel;
use crate::data::files::{self, RawFile, RawFiles, RawFormat};
use crate::data::{ArrayFile, At, Item, Net, Room, Shard, Source, Stream, TargetChoice, Targets, find, paths};
use crate::engine::Settings;
use crate::error::{Error, ErrorKind, Result, read_file};
use crate::graph::Graph;
use crate::map::{Map, ONE_POSITION, showing_nothing};
use crate::method::{Method, Promise};
use crate::model::Setting;
use crate::render::Look;
use crate::report::{Line, Manifest, MethodUsed, RECORD_VERSION, Record};
use crate::session::{Noticed, Scored, Session};
use crate::tensor::Tensor;
use crate::text::{counted, hex};

/// Rows of an array that go through the net together.
pub(super) const ROWS: usize = 16;
/// Pictures that go through the net together when they are small.
pub(super) const PICTURES: usize = 8;
/// Elements of one channel up to which a picture is small.
pub(super) const SMALL: usize = 64 * 64;
/// Letters of a name that a sheet has room for.
const DRAWN_LETTERS: usize = 30;

/// A kind of file that holds a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The map in colour over the picture (.png).
    Overlay,
    /// The map in colour (.png).
    Heatmap,
    /// One sheet an input: the picture and all methods side by side (.png).
    Grid,
    /// The raw map, f32 (.npy).
    Npy,
    /// The raw map, f32, as tensor `map` (.safetensors).
    Safetensors,
}

impl Format {
    /// As records have it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Overlay => "overlay",
            Format::Heatmap => "heatmap",
            Format::Grid => "grid",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
        }
    }

    /// How raw maps are stored, where it stores them.
    fn raw(self) -> Option<RawFormat> {
        match self {
            Format::Npy => Some(RawFormat::Npy),
            Format::Safetensors => Some(RawFormat::Safetensors),
            Format::Grid | Format::Overlay | Format::Heatmap => None,
        }
    }
}

/// What to explain, how, and where results go.
#[derive(Debug, Clone)]
pub struct ExplainOptions {
    /// Pictures, folders, patterns, lists (`-`), arrays.
    pub inputs: Vec<OsString>,
    /// The methods, one map each.
    pub methods: Vec<Named>,
    /// Which class: `top1`, `top:K`, `least`, an index, a label, or `file:FILE`.
    pub target: String,
    /// Kinds of files written.
    pub formats: Vec<Format>,
    /// Percentile of the magnitude that takes the strongest colour; the usual one if not given.
    pub winsorise: Option<f64>,
    /// Folder for results.
    pub out: PathBuf,
    /// Whether results of an earlier run count.
    pub earlier: Earlier,
    /// Which part of the inputs is done; all if not given.
    pub shard: Option<Shard>,
    /// What the session's engine was opened with.
    pub settings: Settings,
    /// What the user has set of the net's preparation.
    pub given: Vec<Setting>,
    /// Files read besides the inputs, which no result may replace.
    pub read: Vec<PathBuf>,
}

/// A method that can run.
struct Ready {
    id: String,
    /// Fingerprint of everything its results depend on.
    settings: String,
    method: Box<dyn Method>,
    /// Whether it has made a map in this run.
    proven: bool,
}

/// An item and what the net makes of it.
struct Seen {
    item: Item,
    scored: Scored,
    targets: Vec<usize>,
}

/// The array whose rows come.
struct Rows {
    single: bool,
    files: RawFiles,
    /// By method, the key of its raw files; none for a single input.
    keys: Vec<String>,
}

/// Explains many inputs.
pub struct Explain<'a> {
    session: &'a mut Session,
    options: ExplainOptions,
    /// Whether a file's name has the class.
    several: bool,
    targets: Targets,
    methods: Vec<Ready>,
    look: Look,
    sources: Arc<[Source]>,
    done: Arc<Done>,
    ledger: Ledger<Line>,
    /// Settings of records that no method made.
    input_settings: String,
    small: bool,
    /// Whether the net has taken an input.
    proven: bool,
    rows: Option<Rows>,
    /// Lines that wait until the array's files are in place: records must not promise more.
    held: Vec<(usize, Line)>,
    manifest: Manifest,
    started: Instant,
}

impl<'a> Explain<'a> {
    /// Finds the inputs, locks the folder of results and looks at what is in it. `show` is told the inputs and makes what shows
    /// records.
    ///
    /// # Errors
    /// When there are no inputs, a method or target has no meaning, the folder cannot be written, or another run writes to it.
    pub fn open(
        session: &'a mut Session,
        mut options: ExplainOptions,
        show: impl FnOnce(&[Source]) -> Show<Line>,
        listener: &dyn Listener,
    ) -> Result<Self> {
        let started = Instant::now();
        options.formats.sort_unstable();
        options.formats.dedup();
        let room = Room { allowed: options.settings.memory };
        let target = TargetChoice::parse(&options.target)?;
        let classes = session.model().classes();
        let mut targets = target.resolve(session.labels(), classes, room)?;
        let common = all_depend_on(session, &options, &target)?;
        let methods = ready(session, &options, common.clone())?;
        let folder = Folder::lock(&options.out, "explain", options.shard)?;
        let found = find(&options.inputs, &options.out, room);
        let (ignored, left_out) = (found.ignored, found.left_out());
        let mut sources = found.sources;
        if sources.is_empty() {
            return Err(Error::settings("no inputs"));
        }
        targets.know(&sources)?;
        let mut read: HashSet<PathBuf> = sources.iter().filter_map(|s| s.path.canonicalize().ok()).collect();
        read.extend(options.read.iter().filter_map(|path| path.canonicalize().ok()));
        if let TargetChoice::File(path) = &target {
            read.extend(path.canonicalize().ok());
        }
        let mut ids: Vec<&str> = methods.iter().map(|m| m.id.as_str()).collect();
        if options.formats.contains(&Format::Grid) {
            ids.push(earlier::SHEET);
        }
        let input_settings = fingerprint(&common);
        let current = Current {
            methods: methods.iter().map(|m| (m.id.clone(), m.settings.clone())).collect(),
            inputs: input_settings.clone(),
        };
        let demands = Demands {
            maps: targets.count(),
            one_file_an_array: options.formats.iter().any(|format| format.raw().is_some()),
            one_sheet_an_item: options.formats.contains(&Format::Grid),
        };
        let settle = |past: &Past<Line>, sources: &[Source], finder: &Finder<'_>, names: &Names<'_>| {
            let rows =
                |s: &Source| s.is_array().then(|| ArrayFile::open(&s.path, room).map_or(0, |array| array.rows()));
            let rows: Vec<Option<usize>> = sources.iter().map(rows).collect();
            let known = Known { sources, rows: &rows, finder, names };
            Done::settle(&past.entries, &past.standing, known, &current, demands)
        };
        let resumes = options.earlier == Earlier::Resume;
        let found = folder.find::<Line>(&mut sources, &ids, options.shard, resumes.then_some(&settle))?;
        listener.begin(sources.len());
        let mut said = Said::new(session, &options.given);
        said.tell(listener);
        said.remember(&found.done.said.assumed, &found.done.said.warnings);
        left_out.iter().for_each(|sentence| listener.say(sentence));
        if !matches!(target, TargetChoice::Top1 | TargetChoice::Top(_) | TargetChoice::Least) {
            session.labels().numbers().into_iter().for_each(|sentence| listener.say(&sentence));
        }
        many_passes(&options.methods).for_each(|line| listener.say(&line));
        found.sentences.iter().for_each(|sentence| listener.say(sentence));
        if let TargetChoice::Top(k) = target
            && k > classes
        {
            listener.say(&format!("--target top:{k}: all {classes} classes of the net are explained"));
        }
        let sources: Arc<[Source]> = sources.into();
        let announced: Vec<&str> = methods.iter().map(|m| m.id.as_str()).chain([earlier::SHEET]).collect();
        let shown = show(&sources);
        let (ledger, done, sentences) = found.start(Arc::clone(&sources), &announced, read, said, shown)?;
        sentences.iter().for_each(|sentence| listener.say(sentence));
        let used = options.methods.iter().zip(&methods).map(|(named, ready)| MethodUsed {
            id: named.id.clone(),
            name: named.spec.entry.id.to_string(),
            spec: named.spec.to_string(),
            parameters: named.spec.values().iter().map(|(key, value)| (key.into(), value.into())).collect(),
            settings: ready.settings.clone(),
        });
        let what = (used.collect(), options.target.as_str(), session.explained().name());
        let formats = options.formats.iter().map(|format| format.name().to_owned()).collect();
        let shard = options.shard.map(|shard| shard.to_string());
        let mut manifest = manifest(session, "explain", &options.settings, what, formats, shard)?;
        manifest.ignored_files = ignored;
        let mut look = Look::default();
        look.percentile = options.winsorise.or(look.percentile);
        let small = session.preparation().crop.iter().product::<usize>() <= SMALL;
        Ok(Self {
            session,
            several: matches!(target, TargetChoice::Top(_)),
            targets,
            methods,
            look,
            sources,
            done,
            ledger,
            input_settings,
            small,
            proven: false,
            rows: None,
            held: Vec::new(),
            manifest,
            started,
            options,
        })
    }

    /// The inputs, without those that an earlier run has done.
    pub fn stream(&self) -> Stream {
        let (done, methods) = (Arc::clone(&self.done), self.methods.len());
        let is_done = move |source: &Source, row: Option<usize>| {
            (0..methods).all(|m| done.has(&source.shown, row, m))
                || row.is_some_and(|row| done.failure(&source.shown, row).is_some())
        };
        Stream::new(Arc::clone(&self.sources), self.net()).but(Box::new(is_done))
    }

    /// Number of sources.
    pub fn inputs(&self) -> usize {
        self.sources.len()
    }

    fn net(&self) -> Net<'_> {
        let room = Room { allowed: self.options.settings.memory };
        Net { preprocess: self.session.preparation(), input: self.session.model().default_input(), room }
    }

    /// Writes down what is left. With `ended`, how the run went, also the manifest: it says that all inputs were gone through.
    ///
    /// # Errors
    /// `ended`'s, and when files cannot be written.
    pub fn close(mut self, ended: Result<()>, listener: &dyn Listener) -> Result<Totals> {
        let closed = self.ledger.close();
        ended.and(closed)?;
        self.ledger.said.judge(self.session.model().classes(), listener);
        let mut manifest = self.manifest;
        manifest.assumed = self.ledger.said.all_assumed();
        manifest.warnings = self.ledger.said.all();
        manifest.files = self.ledger.statuses();
        manifest.seconds = self.started.elapsed().as_secs_f64();
        manifest.write(self.ledger.manifest())?;
        Ok(self.ledger.totals())
    }

    /// Methods whose map of an input is there.
    fn made_before(&self, at: At) -> usize {
        let (source, row) = at;
        let shown = &self.sources[source].shown;
        (0..self.methods.len()).filter(|&m| self.done.has(shown, row, m)).count()
    }

    fn wants(&self, format: Format) -> bool {
        self.options.formats.contains(&format)
    }

    /// The raw files of an array. What an interrupted run has left of them is gone on with, as far as it counts.
    fn rows(&self, at: usize, (count, single): (usize, bool)) -> Result<Rows> {
        let source = &self.sources[at];
        let mut rows = Rows { single, files: RawFiles::new(count), keys: Vec::new() };
        if single {
            return Ok(rows);
        }
        for (m, ready) in self.methods.iter().enumerate() {
            let key = fingerprint(&json!([ready.settings, source.stamp, count]));
            let done: Vec<bool> = (0..count).map(|row| self.done.has(&source.shown, Some(row), m)).collect();
            let failed = |row: usize| self.done.failure(&source.shown, row).is_some();
            if done.contains(&true) && (0..count).any(|row| !done[row] && !failed(row)) {
                for format in self.options.formats.iter().filter_map(|format| format.raw()) {
                    for rank in 0..self.targets.count() {
                        let path = self.named(&source.stem, m, &format!("top{}", rank + 1), format.extension());
                        rows.files.go_on(&path, &key, &done)?;
                    }
                }
            }
            rows.keys.push(key);
        }
        Ok(rows)
    }

    /// The name of a result of method `m`.
    fn named(&self, stem: &Path, m: usize, target: &str, extension: &str) -> PathBuf {
        let id = self.methods[m].id.as_str();
        let parts = if self.several { vec![id, target, extension] } else { vec![id, extension] };
        files::path(&self.options.out, stem, &parts)
    }

    fn write_down(&mut self, lines: Vec<(usize, Line)>) -> Result<()> {
        lines.into_iter().try_for_each(|(at, line)| self.ledger.add(at, line))
    }

    fn fail(&mut self, (at, row): At, why: &Error, noticed: Noticed) -> Result<()> {
        let Noticed { assumed, warnings, .. } = noticed;
        let failed = Record::failed(self.sources[at].shown.clone(), row, why.to_string());
        let record = Record { assumed, warnings, ..failed };
        let (settings, stamp, place) = (self.input_settings.clone(), self.sources[at].stamp, self.ledger.place(at));
        let line = Line { record, settings, stamp, place, part: None };
        match self.rows {
            Some(_) => self.held.push((at, line)),
            None => self.ledger.add(at, line)?,
        }
        Ok(())
    }

    /// The net's scores; items that it cannot take are recorded and left out.
    fn score(&mut self, items: Vec<(At, Item)>, listener: &dyn Listener) -> Result<Vec<Seen>> {
        items.iter().for_each(|(_, item)| self.ledger.said.hear(item, listener));
        let inputs: Vec<&Tensor> = items.iter().map(|(_, item)| &item.input).collect();
        let scored = self.session.score(&inputs);
        let mut seen = Vec::new();
        for ((at, item), scored) in items.into_iter().zip(scored) {
            let source = &self.sources[at.0];
            too_small(&scored, &mut self.proven, &self.sources)?;
            let made = scored.and_then(|scored| Ok((self.targets.of(source, at.1, &scored.logits)?, scored)));
            match made {
                Ok((targets, scored)) => {
                    let class = self.targets.listed(&targets).or(item.label);
                    class.into_iter().for_each(|class| self.ledger.said.count(class == scored.top()));
                    seen.push(Seen { item, scored, targets });
                }
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => {
                    let noticed = self.ledger.said.of_item(&item);
                    self.fail(at, &e, noticed)?;
                }
            }
        }
        Ok(seen)
    }

    /// One map an item for its `rank`-th target, and the seconds that took.
    fn explain(&mut self, m: usize, items: &[&Seen], rank: usize) -> Vec<(Result<Map>, f64)> {
        let inputs: Vec<&Tensor> = items.iter().map(|s| &s.item.input).collect();
        let targets: Vec<usize> = items.iter().map(|s| s.targets[rank]).collect();
        self.session.explain_timed(self.methods[m].method.as_ref(), &inputs, &targets)
    }

    /// What is said of a map that was read off a layer with one position: a setting, not the picture, is why it is flat.
    fn places(&self, graph: &Graph, m: usize, map: &Map) -> Option<String> {
        map.notes.iter().find(|(name, _)| name == ONE_POSITION)?;
        let id = &self.methods[m].id;
        let shape = graph.input_shape();
        let layer = graph.stages().iter().rev().find(|(_, node)| graph.node(*node).shape.plane() > 1);
        let other = layer.map_or_else(String::new, |(name, _)| format!("; layer={name} has more"));
        Some(format!(
            "{id}: its layer has one position at inputs of {}x{}, so the map says nothing of places{other}",
            shape.h, shape.w
        ))
    }

    /// What a sheet calls a class: its name, after its index where the name alone could be taken for another class's.
    fn sheet_name(&self, class: usize) -> String {
        let Some(name) = self.session.labels().get(class) else { return class.to_string() };
        let others = (0..self.session.model().classes()).filter(|&other| other != class);
        let same = others.filter_map(|other| self.session.labels().get(other)).any(|other| other == name);
        let plain = !same && name.chars().count() <= DRAWN_LETTERS && crate::render::is_drawable(name);
        if plain { name.to_owned() } else { format!("{class} {name}") }
    }

    fn record(&self, s: &Seen, m: usize, rank: usize, seconds: f64) -> Record {
        let target = s.targets[rank];
        let noticed = self.ledger.said.of_item(&s.item);
        Record {
            input: self.sources[s.item.source].shown.clone(),
            index: s.item.row,
            method: Some(self.methods[m].id.clone()),
            target: Some(target),
            target_label: self.session.label(target),
            score: Some(s.scored.scores[target]),
            prediction: self.session.prediction(&s.scored.logits, self.session.explained()),
            gap: None,
            notes: Vec::new(),
            seconds,
            peak_bytes: self.session.peak_bytes(),
            files: Vec::new(),
            bytes: Vec::new(),
            error: None,
            shares: None,
            assumed: noticed.assumed,
            warnings: noticed.warnings,
            record_version: RECORD_VERSION,
        }
    }

    /// Writes one map in the formats wanted; the names of the files.
    fn store(&mut self, s: &Seen, m: usize, rank: usize, map: &Map) -> Result<Vec<String>> {
        let class = map.target.to_string();
        let named = |stem: &Path, target: &str, extension: &str| self.named(stem, m, target, extension);
        let rank = format!("top{}", rank + 1);
        let several_rows = self.rows.as_ref().is_some_and(|rows| !rows.single);
        let mut planned = Vec::new();
        for &format in &self.options.formats {
            if format == Format::Grid {
                continue;
            }
            let raw = format.raw();
            let path = match raw {
                None => {
                    let both = format == Format::Heatmap && self.wants(Format::Overlay);
                    named(&s.item.stem, &class, if both { "heatmap.png" } else { "png" })
                }
                // Rows have different classes: an array's files are named by rank.
                Some(raw) if several_rows => named(&self.sources[s.item.source].stem, &rank, raw.extension()),
                Some(raw) => named(&s.item.stem, &class, raw.extension()),
            };
            self.ledger.spare(&path)?;
            planned.push((format, raw, path));
        }
        let mut files = Vec::new();
        for (format, raw, path) in planned {
            match (raw, &mut self.rows) {
                (None, _) => {
                    let view = s.item.view(self.session.preparation())?;
                    let map = s.item.drawn(map, self.session.preparation())?;
                    files::write_png(&path, &drawing::draw(format, &view, &map, &self.look)?)?;
                }
                (Some(raw), Some(rows)) if !rows.single => {
                    let row = s.item.row.unwrap_or(0);
                    let (dims, values) = (s.item.raw_dims(map), map.values.to_f32());
                    rows.files.push((&path, Some(&rows.keys[m])), raw, row, &dims, &values)?;
                }
                (Some(raw), _) => {
                    let dims = s.item.raw_dims(map);
                    let mut file = RawFile::create((&path, None), raw, None, &dims)?;
                    file.push(0, &map.values.to_f32())?;
                    file.finish()?;
                }
            }
            files.push(paths::shown(&path));
        }
        Ok(files)
    }

    fn sheet(&self, s: &Seen, panels: &[Panel]) -> Result<crate::image::Picture> {
        let drawn = |p: &Panel| {
            let map = s.item.drawn(&p.map, self.session.preparation())?;
            Ok(Panel { name: p.name.clone(), caption: p.caption.clone(), map })
        };
        let panels = panels.iter().map(drawn).collect::<Result<Vec<_>>>()?;
        let top = s.scored.top();
        let score = s.scored.scores.get(top).copied().unwrap_or_default();
        let title = format!("{} ({} {score:.3})", self.sheet_name(top), self.session.explained().name());
        drawing::sheet(&title, &s.item.view(self.session.preparation())?, &panels, &self.look)
    }
}

impl Work for Explain<'_> {
    type Input = Item;

    fn name(&self, at: usize) -> String {
        self.sources[at].shown.clone()
    }

    fn together(&self, (_, row): At) -> usize {
        match row {
            Some(_) => ROWS,
            None if self.small => PICTURES,
            None => 1,
        }
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.session.cancel_with(cancel);
    }

    fn begin(&mut self, at: usize, array: Option<(usize, bool)>) -> Result<()> {
        if let Some(array) = array {
            self.ledger.set_items(at, array.0);
            self.rows = Some(self.rows(at, array)?);
        }
        Ok(())
    }

    fn failed(&mut self, at: At, why: Error, _: &dyn Listener) -> Result<()> {
        self.ledger.skip(at.0, self.made_before(at));
        self.fail(at, &why, Noticed::default())
    }

    fn skipped(&mut self, at: At, _: &dyn Listener) {
        let (source, row) = at;
        match row.and_then(|row| Some((row, self.done.failure(&self.sources[source].shown, row)?))) {
            Some((row, why)) => self.ledger.still_failed(source, row, why),
            None => self.ledger.skip(source, self.methods.len()),
        }
    }

    /// Runs all methods on items of one shape.
    fn group(&mut self, items: Vec<(At, Item)>, listener: &dyn Listener) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        self.write_down(held)?;
        items.iter().for_each(|(at, _)| self.ledger.skip(at.0, self.made_before(*at)));
        let seen = self.score(items, listener)?;
        let sheets = self.wants(Format::Grid);
        let mut panels: Vec<Vec<Panel>> = seen.iter().map(|_| Vec::new()).collect();
        let mut held = Vec::new();
        for m in 0..self.methods.len() {
            let todo: Vec<usize> = (0..seen.len())
                .filter(|&i| {
                    let item = &seen[i].item;
                    !self.done.has(&self.sources[item.source].shown, item.row, m)
                })
                .collect();
            for rank in 0..self.targets.count() {
                let some: Vec<&Seen> = todo.iter().map(|&i| &seen[i]).collect();
                for (&i, (made, seconds)) in todo.iter().zip(self.explain(m, &some, rank)) {
                    let s = &seen[i];
                    let graph = self.session.graph(s.item.input.dims())?;
                    let ready = &mut self.methods[m];
                    hopeless(&made, &mut ready.proven, &graph, &self.sources).map_err(|e| e.within(&ready.id))?;
                    let mut record = self.record(s, m, rank, seconds);
                    match made.and_then(|map| Ok((self.store(s, m, rank, &map)?, map))) {
                        Ok((files, map)) => {
                            record.gap = map.gap.clone();
                            record.notes = map.all_notes();
                            if let Some(warning) = self.places(&graph, m, &map) {
                                self.ledger.said.add(&warning, listener);
                                record.warnings.push(warning);
                            }
                            record.shares = map.shares;
                            record.files = files;
                            if sheets {
                                panels[i].push(Panel {
                                    name: self.methods[m].id.clone(),
                                    caption: captioned(self.sheet_name(s.targets[rank]), &record),
                                    map,
                                });
                            }
                        }
                        Err(e) => record.error = Some(e.to_string()),
                    }
                    let settings = self.methods[m].settings.clone();
                    let stamp = self.sources[s.item.source].stamp;
                    let place = self.ledger.place(s.item.source);
                    let raw = self.options.formats.iter().any(|format| format.raw().is_some());
                    let part = self.rows.as_ref().filter(|_| raw).and_then(|rows| rows.keys.get(m).cloned());
                    held.push((s.item.source, Line { record, settings, stamp, place, part }));
                }
            }
            if !sheets && self.rows.is_none() {
                self.write_down(std::mem::take(&mut held))?;
            }
        }
        for (s, panels) in seen.iter().zip(panels).filter(|(_, panels)| !panels.is_empty()) {
            let path = files::path(&self.options.out, &s.item.stem, &["grid", "png"]);
            let sheet = self.ledger.spare(&path).and_then(|()| self.sheet(s, &panels));
            let sheet = sheet.and_then(|sheet| files::write_png(&path, &sheet));
            let records = held.iter_mut().map(|(at, line)| (*at, &mut line.record));
            for (_, record) in records.filter(|(at, r)| *at == s.item.source && r.index == s.item.row) {
                match &sheet {
                    Ok(()) => record.files.push(paths::shown(&path)),
                    Err(e) => record.error = record.error.take().or_else(|| Some(e.to_string())),
                }
            }
        }
        match self.rows {
            Some(_) => self.held.extend(held),
            None => self.write_down(held)?,
        }
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<Option<String>> {
        if let Some(rows) = self.rows.take() {
            let mut held = std::mem::take(&mut self.held);
            if let Err(e) = rows.files.finish() {
                held.iter_mut().for_each(|(_, line)| line.record.error = Some(e.to_string()));
            }
            self.write_down(held)?;
        }
        let (tally, shown) = (self.ledger.tally(at), &self.sources[at].shown);
        Ok(Some(match (&tally.error, tally.made) {
            (Some(why), 0) => format!("failed: {why}"),
            (Some(_), made) => {
                format!("{shown}: {}, {} of {} inputs failed", counted(made, "map"), tally.failed.len(), tally.items)
            }
            (None, 0) => format!("{shown}: done before"),
            (None, made) => format!("{shown}: {}", counted(made, "map")),
        }))
    }
}

/// Every setting that results depend on, whatever the method.
fn all_depend_on(session: &mut Session, options: &ExplainOptions, target: &TargetChoice) -> Result<Value> {
    let mut all = common(session, &options.settings)?;
    all["target"] = match target {
        // The file's content counts, not its name.
        TargetChoice::File(path) => format!("file:{}", hex(&Sha256::digest(read_file(path)?))).into(),
        _ => options.target.clone().into(),
    };
    all["score"] = session.explained().name().into();
    all["formats"] = options.formats.iter().map(|format| format.name()).collect();
    all["winsorise"] = json!(options.winsorise);
    Ok(all)
}

/// The methods, built, with the fingerprint of everything their results depend on.
fn ready(session: &Session, options: &ExplainOptions, common: Value) -> Result<Vec<Ready>> {
    let mut settings = common;
    settings["labels"] = session.labels().iter().collect();
    let built = build(session, &options.methods)?;
    if options.formats.contains(&Format::Grid) {
        // A sheet shows all methods.
        settings["sheet"] = options.methods.iter().map(|m| m.spec.to_string()).collect();
        settings["sheet_files"] = built.iter().map(|b| b.files.as_str()).collect();
    }
    let ready = options.methods.iter().zip(built).map(|(named, Built { method, files })| {
        settings["method"] = named.spec.to_string().into();
        settings["files"] = files.into();
        Ready { id: named.id.clone(), settings: fingerprint(&settings), method, proven: false }
    });
    Ok(ready.collect())
}

/// Passes of a method on copies above which they are said before the work begins.
const MANY_PASSES: f64 = 1000.0;

/// What is said of methods on copies of a picture that run the net very often.
pub fn many_passes(methods: &[Named]) -> impl Iterator<Item = String> {
    let many = methods.iter().filter(|m| m.spec.base().is_some() && m.spec.passes() >= MANY_PASSES);
    many.map(|m| format!("{}: about {:.0} passes of the net for each map", m.id, m.spec.passes()))
}

/// Whether a method shares the score out among the pixels, so that records tell how much reached them.
pub fn shares_out(named: &Named) -> bool {
    named.spec.promises().contains(&Promise::Conservation)
}

/// The name of a target under its map, with a word where the map shows nothing.
fn captioned(target: String, record: &Record) -> String {
    match showing_nothing(&record.notes) {
        Some(words) => format!("{target} ({words})"),
        None => target,
    }
}
