//! Explains many inputs: groups of inputs go through the net and the methods; results go into files and the ledger.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::drawing::{self, SheetPanel};
use super::earlier::{self, Finder, Past, StemsInUse};
use super::explained;
use super::ledger::{Earlier, Settle, Show, Totals};
use super::recorded::{Recorded, RunRequest, Seen};
use super::resume::{Current, Demands, Done, Known};
use super::settings::{BuiltMethod, Named, build, common, fingerprint};
use super::{InputWork, Listener, hopeless};
use crate::cancel::Cancel;
use crate::data::files::{self, RawFormat};
use crate::data::{ArrayFile, Item, ItemPosition, ItemStream, Room, Shard, Source, TargetChoice, paths};
use crate::engine::Settings;
use crate::error::{Error, Result, read_file};
use crate::map::{Map, showing_nothing};
use crate::method::{Method, Promise};
use crate::model::Setting;
use crate::render::Look;
use crate::report::{Line, MethodUsed, Record};
use crate::session::{Noticed, Session};
use crate::tensor::Tensor;
use crate::text::{counted, hex};

/// Most letters of a name that fit on a sheet.
const DRAWN_LETTERS: usize = 30;

/// A kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The map in colour over the picture (.png).
    Overlay,
    /// The map in colour (.png).
    Heatmap,
    /// One sheet per input: the picture and all methods' maps side by side (.png).
    Grid,
    /// The raw map, f32 (.npy).
    Npy,
    /// The raw map, f32, as tensor `map` (.safetensors).
    Safetensors,
}

impl Format {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Format::Overlay => "overlay",
            Format::Heatmap => "heatmap",
            Format::Grid => "grid",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
        }
    }

    /// The raw format, if it stores raw maps.
    fn raw(self) -> Option<RawFormat> {
        match self {
            Format::Npy => Some(RawFormat::Npy),
            Format::Safetensors => Some(RawFormat::Safetensors),
            Format::Grid | Format::Overlay | Format::Heatmap => None,
        }
    }
}

/// Options of an explain run: inputs, methods and output.
#[derive(Debug, Clone)]
pub struct ExplainOptions {
    /// Pictures, folders, patterns, lists (`-`), arrays.
    pub inputs: Vec<OsString>,
    /// The methods, one map each.
    pub methods: Vec<Named>,
    /// The class: `top1`, `top:K`, `least`, an index, a label, or `file:FILE`.
    pub target: String,
    /// Kinds of files written.
    pub formats: Vec<Format>,
    /// Percentile of the magnitude that gets the strongest colour; the default one if not given.
    pub winsorise: Option<f64>,
    /// Folder for results.
    pub out: PathBuf,
    /// Whether to reuse results of an earlier run.
    pub earlier: Earlier,
    /// The part of the inputs to process; all if not given.
    pub shard: Option<Shard>,
    /// The settings with which the session's engine was opened.
    pub settings: Settings,
    /// Settings of the preparation that the user gave.
    pub given: Vec<Setting>,
    /// Other files that the run reads; no result may replace them.
    pub read: Vec<PathBuf>,
}

/// A method that is ready to run.
struct ReadyMethod {
    id: String,
    /// Fingerprint of everything that its results depend on.
    settings: String,
    method: Box<dyn Method>,
    /// Whether it has produced a map in this run.
    proven: bool,
}

/// Explains many inputs.
pub struct Explain<'a> {
    run: Recorded<'a, Line>,
    options: ExplainOptions,
    /// Whether file names contain the class.
    several: bool,
    methods: Vec<ReadyMethod>,
    look: Look,
    /// Settings in records that do not belong to a method.
    input_settings: String,
}

impl<'a> Explain<'a> {
    /// Finds the inputs, locks the folder of results and examines its contents. `show` receives the inputs and returns
    /// the function that displays records.
    ///
    /// # Errors
    /// When there are no inputs, a method or target has no meaning, the folder is not writable, or another run is
    /// writing to it.
    pub fn open(
        session: &'a mut Session,
        mut options: ExplainOptions,
        show: impl FnOnce(&[Source]) -> Show<Line>,
        listener: &dyn Listener,
    ) -> Result<Self> {
        options.formats.sort_unstable();
        options.formats.dedup();
        if options.methods.is_empty() {
            return Err(Error::settings("no methods"));
        }
        let room = Room { allowed: options.settings.memory };
        let target = TargetChoice::parse(&options.target)?;
        let targets = target.resolve(session.labels(), session.model().classes(), room)?;
        let common = all_depend_on(session, &options, &target)?;
        let methods = ready(session, &options, common.clone())?;
        let input_settings = fingerprint(&common);
        let current = Current {
            methods: methods.iter().map(|m| (m.id.clone(), m.settings.clone())).collect(),
            inputs: input_settings.clone(),
        };
        let sheets = options.formats.contains(&Format::Grid);
        let demands = Demands {
            maps: targets.count(),
            one_file_an_array: options.formats.iter().any(|format| format.raw().is_some()),
            one_sheet_an_item: sheets,
        };
        let settle = |past: &Past<Line>, sources: &[Source], finder: &Finder<'_>, names: &StemsInUse<'_>| {
            let rows =
                |s: &Source| s.is_array().then(|| ArrayFile::open(&s.path, room).map_or(0, |array| array.rows()));
            let rows: Vec<Option<usize>> = sources.iter().map(rows).collect();
            let known = Known { sources, rows: &rows, finder, names };
            Done::settle(&past.entries, &past.standing, known, &current, demands)
        };
        let used = options.methods.iter().zip(&methods).map(|(named, ready)| MethodUsed {
            id: named.id.clone(),
            name: named.spec.entry.id.to_string(),
            spec: named.spec.to_string(),
            parameters: named.spec.values().iter().map(|(key, value)| (key.into(), value.into())).collect(),
            settings: ready.settings.clone(),
        });
        let asked = RunRequest {
            command: "explain",
            inputs: &options.inputs,
            out: &options.out,
            shard: options.shard,
            settings: &options.settings,
            given: &options.given,
            read: &options.read,
            target: &options.target,
            score: session.explained().name(),
            formats: options.formats.iter().map(|format| format.name().to_owned()).collect(),
            methods: &options.methods,
            ids: methods.iter().map(|m| m.id.clone()).collect(),
            warnings: Vec::new(),
            others: if sheets { &[earlier::SHEET] } else { &[] },
        };
        let resumes = options.earlier == Earlier::Resume;
        let settle = resumes.then_some(&settle as &Settle<'_, Line>);
        let run = Recorded::open(session, (asked, used.collect()), (&target, targets), settle, show, listener)?;
        let mut look = Look::default();
        look.percentile = options.winsorise.or(look.percentile);
        let several = matches!(target, TargetChoice::Top(_));
        Ok(Self { run, options, several, methods, look, input_settings })
    }

    /// The inputs, without those that an earlier run completed.
    pub fn stream(&self) -> ItemStream {
        let (done, methods) = (Arc::clone(&self.run.done), self.methods.len());
        self.run.stream(Box::new(move |source: &Source, row: Option<usize>| {
            (0..methods).all(|m| done.has(&source.shown, row, m))
                || row.is_some_and(|row| done.failure(&source.shown, row).is_some())
        }))
    }

    /// Number of sources.
    pub fn inputs(&self) -> usize {
        self.run.sources.len()
    }

    /// Writes what is pending. If `ended`, the outcome of the run, is Ok, also writes the manifest, which says that all
    /// inputs were processed.
    ///
    /// # Errors
    /// The error in `ended`, and when files cannot be written.
    pub fn close(self, ended: Result<()>, listener: &dyn Listener) -> Result<Totals> {
        self.run.close(ended, listener)
    }

    /// Number of maps of this input that an earlier run made.
    fn made_before(&self, at: ItemPosition) -> usize {
        let (source, row) = at;
        let shown = &self.run.sources[source].shown;
        (0..self.methods.len()).filter(|&m| self.run.done.has(shown, row, m)).count() * self.run.targets.count()
    }

    fn wants(&self, format: Format) -> bool {
        self.options.formats.contains(&format)
    }

    /// Rows of an array that have a map by method `m` already, and the locations of raw files from an interrupted run.
    fn left(&self, source: &Source, m: usize, count: usize) -> (Vec<bool>, Vec<PathBuf>) {
        let done: Vec<bool> = (0..count).map(|row| self.run.done.has(&source.shown, Some(row), m)).collect();
        let failed = |row: usize| self.run.done.failure(&source.shown, row).is_some();
        let mut files = Vec::new();
        if done.contains(&true) && (0..count).any(|row| !done[row] && !failed(row)) {
            for format in self.options.formats.iter().filter_map(|format| format.raw()) {
                let name = |rank| self.named(&source.stem, m, &format!("top{}", rank + 1), format.extension());
                files.extend((0..self.run.targets.count()).map(name));
            }
        }
        (done, files)
    }

    /// Path of a result of method `m`.
    fn named(&self, stem: &Path, m: usize, target: &str, extension: &str) -> PathBuf {
        let id = self.methods[m].id.as_str();
        let parts = if self.several { vec![id, target, extension] } else { vec![id, extension] };
        files::path(&self.options.out, stem, &parts)
    }

    fn line(&self, at: usize, record: Record, settings: String, part: Option<String>) -> Line {
        Line { record, settings, stamp: self.run.sources[at].stamp, place: self.run.ledger.place(at), part }
    }

    fn fail(&mut self, (at, row): ItemPosition, why: &Error, noticed: Noticed) -> Result<()> {
        let Noticed { assumed, warnings, .. } = noticed;
        let failed = Record::failed(self.run.sources[at].shown.clone(), row, why.to_string());
        let line = self.line(at, Record { assumed, warnings, ..failed }, self.input_settings.clone(), None);
        self.run.add(at, line)
    }

    /// One map per item for its `rank`-th target, and the seconds per map.
    fn explain(&mut self, m: usize, items: &[&Seen], rank: usize) -> Vec<(Result<Map>, f64)> {
        let inputs: Vec<&Tensor> = items.iter().map(|s| &s.item.input).collect();
        let targets: Vec<usize> = items.iter().map(|s| s.targets[rank]).collect();
        self.run.session.explain_timed(self.methods[m].method.as_ref(), &inputs, &targets)
    }

    /// A class on a sheet: its name, preceded by its index if the name alone is ambiguous.
    fn sheet_name(&self, class: usize) -> String {
        let Some(name) = self.run.session.labels().get(class) else { return class.to_string() };
        let others = (0..self.run.session.model().classes()).filter(|&other| other != class);
        let same = others.filter_map(|other| self.run.session.labels().get(other)).any(|other| other == name);
        let plain = !same && name.chars().count() <= DRAWN_LETTERS && crate::render::is_drawable(name);
        if plain { name.to_owned() } else { format!("{class} {name}") }
    }

    fn record(&self, s: &Seen, m: usize, rank: usize, seconds: f64) -> Record {
        let shown = &self.run.sources[s.item.source].shown;
        explained::of_seen(self.run.session, &self.run.ledger.said, (shown, s), (&self.methods[m].id, rank), seconds)
    }

    /// Writes one map in the requested formats; returns the file names.
    fn store(&mut self, s: &Seen, m: usize, rank: usize, map: &Map) -> Result<Vec<String>> {
        let class = map.target.to_string();
        let named = |stem: &Path, target: &str, extension: &str| self.named(stem, m, target, extension);
        let rank = format!("top{}", rank + 1);
        let several_rows = self.run.several_rows();
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
                // Rows have different classes, so an array's files are named by rank.
                Some(raw) if several_rows => named(&self.run.sources[s.item.source].stem, &rank, raw.extension()),
                Some(raw) => named(&s.item.stem, &class, raw.extension()),
            };
            self.run.ledger.spare(&path)?;
            planned.push((format, raw, path));
        }
        if planned.iter().any(|(_, raw, _)| raw.is_some()) {
            map.fits_single_precision()?;
        }
        let mut files = Vec::new();
        for (format, raw, path) in planned {
            match raw {
                None => {
                    let view = s.item.view(self.run.session.preparation())?;
                    let map = s.item.drawn(map, self.run.session.preparation())?;
                    files::write_png(&path, &drawing::draw(format, &view, &map, &self.look)?)?;
                }
                Some(raw) => {
                    let raw_map = s.item.raw(map)?;
                    self.run.write((&path, raw), m, s.item.row, (raw_map.dims(), &raw_map.to_f32()))?;
                }
            }
            files.push(paths::shown(&path));
        }
        Ok(files)
    }

    fn sheet(&self, s: &Seen, panels: &[SheetPanel]) -> Result<crate::image::Picture> {
        let drawn = |p: &SheetPanel| {
            let map = s.item.drawn(&p.map, self.run.session.preparation())?;
            Ok(SheetPanel { name: p.name.clone(), caption: p.caption.clone(), map })
        };
        let panels = panels.iter().map(drawn).collect::<Result<Vec<_>>>()?;
        let top = s.scored.top();
        let score = s.scored.scores.get(top).copied().unwrap_or_default();
        let title = format!("{} ({} {score:.3})", self.sheet_name(top), self.run.session.explained().name());
        drawing::sheet(&title, &s.item.view(self.run.session.preparation())?, &panels, &self.look)
    }
}

impl InputWork for Explain<'_> {
    type Input = Item;

    fn name(&self, at: usize) -> String {
        self.run.sources[at].shown.clone()
    }

    fn together(&self, at: ItemPosition) -> usize {
        self.run.together(at)
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.run.session.cancel_with(cancel);
    }

    fn begin(&mut self, at: usize, array: Option<(usize, bool)>) -> Result<()> {
        let Some(array) = array else { return Ok(()) };
        let source = &self.run.sources[at];
        let left: Vec<_> = (0..self.methods.len()).map(|m| self.left(source, m, array.0)).collect();
        self.run.begin(at, array, |m| left[m].clone())
    }

    fn failed(&mut self, at: ItemPosition, why: Error, _: &dyn Listener) -> Result<()> {
        self.run.ledger.skip(at.0, self.made_before(at));
        self.fail(at, &why, Noticed::default())
    }

    fn skipped(&mut self, at: ItemPosition, _: &dyn Listener) {
        let (source, row) = at;
        match row.and_then(|row| Some((row, self.run.done.failure(&self.run.sources[source].shown, row)?))) {
            Some((row, why)) => self.run.ledger.still_failed(source, row, why),
            None => self.run.ledger.skip(source, self.methods.len() * self.run.targets.count()),
        }
    }

    /// Runs all methods on items of one shape.
    fn group(&mut self, items: Vec<(ItemPosition, Item)>, listener: &dyn Listener) -> Result<()> {
        self.run.write_held()?;
        items.iter().for_each(|(at, _)| self.run.ledger.skip(at.0, self.made_before(*at)));
        let mut seen = Vec::new();
        for (at, scored) in self.run.score(items, listener)? {
            match scored {
                Ok(scored) => seen.push(scored),
                Err((e, noticed)) => self.fail(at, &e, noticed)?,
            }
        }
        let sheets = self.wants(Format::Grid);
        let mut panels: Vec<Vec<SheetPanel>> = seen.iter().map(|_| Vec::new()).collect();
        let mut held = Vec::new();
        for m in 0..self.methods.len() {
            let todo: Vec<usize> = (0..seen.len())
                .filter(|&i| {
                    let item = &seen[i].item;
                    !self.run.done.has(&self.run.sources[item.source].shown, item.row, m)
                })
                .collect();
            for rank in 0..self.run.targets.count() {
                let some: Vec<&Seen> = todo.iter().map(|&i| &seen[i]).collect();
                for (&i, (made, seconds)) in todo.iter().zip(self.explain(m, &some, rank)) {
                    let s = &seen[i];
                    let graph = self.run.session.graph(s.item.input.dims())?;
                    let ready = &mut self.methods[m];
                    let judged = hopeless(&made, &mut ready.proven, &graph, &self.run.sources);
                    if let Err(e) = judged.map_err(|e| e.within(&ready.id)) {
                        // The run ends; the maps made so far have records.
                        held.drain(..).try_for_each(|(at, line)| self.run.add(at, line))?;
                        self.run.write_held()?;
                        return Err(e);
                    }
                    let mut record = self.record(s, m, rank, seconds);
                    match made.and_then(|map| Ok((self.store(s, m, rank, &map)?, map))) {
                        Ok((files, map)) => {
                            explained::describe(&mut record, &map);
                            if let Some(warning) = explained::places(&graph, &self.methods[m].id, &map) {
                                self.run.ledger.said.add(&warning, listener);
                                record.warnings.push(warning);
                            }
                            record.files = files;
                            if sheets {
                                panels[i].push(SheetPanel {
                                    name: self.methods[m].id.clone(),
                                    caption: captioned(self.sheet_name(s.targets[rank]), &record),
                                    map,
                                });
                            }
                        }
                        Err(e) => record.error = Some(e.to_string()),
                    }
                    let raw = self.options.formats.iter().any(|format| format.raw().is_some());
                    let part = if raw { self.run.part(m) } else { None };
                    let settings = self.methods[m].settings.clone();
                    held.push((s.item.source, self.line(s.item.source, record, settings, part)));
                }
            }
            if !sheets {
                held.drain(..).try_for_each(|(at, line)| self.run.add(at, line))?;
            }
        }
        for (s, panels) in seen.iter().zip(panels).filter(|(_, panels)| !panels.is_empty()) {
            let path = files::path(&self.options.out, &s.item.stem, &["grid", "png"]);
            let sheet = self.run.ledger.spare(&path).and_then(|()| self.sheet(s, &panels));
            let sheet = sheet.and_then(|sheet| files::write_png(&path, &sheet));
            let records = held.iter_mut().map(|(at, line)| (*at, &mut line.record));
            for (_, record) in records.filter(|(at, r)| *at == s.item.source && r.index == s.item.row) {
                match &sheet {
                    Ok(()) => record.files.push(paths::shown(&path)),
                    Err(e) => record.error = record.error.take().or_else(|| Some(e.to_string())),
                }
            }
        }
        held.into_iter().try_for_each(|(at, line)| self.run.add(at, line))
    }

    fn end(&mut self, at: usize) -> Result<Option<String>> {
        self.run.end()?;
        let (tally, shown) = (self.run.ledger.tally(at), &self.run.sources[at].shown);
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

/// The settings that all results depend on, whatever the method.
fn all_depend_on(session: &mut Session, options: &ExplainOptions, target: &TargetChoice) -> Result<Value> {
    let mut all = common(session, &options.settings)?;
    all["target"] = match target {
        // The file's contents matter, not its name.
        TargetChoice::File(path) => format!("file:{}", hex(&Sha256::digest(read_file(path)?))).into(),
        _ => options.target.clone().into(),
    };
    all["score"] = session.explained().name().into();
    all["formats"] = options.formats.iter().map(|format| format.name()).collect();
    all["winsorise"] = json!(options.winsorise);
    Ok(all)
}

/// Builds the methods, each with the fingerprint of everything its results depend on.
fn ready(session: &Session, options: &ExplainOptions, common: Value) -> Result<Vec<ReadyMethod>> {
    let mut settings = common;
    settings["labels"] = session.labels().iter().collect();
    let built = build(session, &options.methods)?;
    if options.formats.contains(&Format::Grid) {
        // A sheet shows all methods.
        settings["sheet"] = options.methods.iter().map(|m| m.spec.to_string()).collect();
        settings["sheet_files"] = built.iter().map(|b| b.files.as_str()).collect();
    }
    let ready = options.methods.iter().zip(built).map(|(named, BuiltMethod { method, files })| {
        settings["method"] = named.spec.to_string().into();
        settings["files"] = files.into();
        ReadyMethod { id: named.id.clone(), settings: fingerprint(&settings), method, proven: false }
    });
    Ok(ready.collect())
}

/// Whether a method distributes the score over the pixels, so that records say how much reached them.
pub fn shares_out(named: &Named) -> bool {
    named.spec.promises().contains(&Promise::Conservation)
}

/// A target's name under its map, with a note if the map highlights nothing.
fn captioned(target: String, record: &Record) -> String {
    match showing_nothing(&record.notes) {
        Some(words) => format!("{target} ({words})"),
        None => target,
    }
}
