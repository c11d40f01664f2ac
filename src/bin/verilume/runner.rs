//! The work itself: inputs in groups through the net and the methods, results into files and the book.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine};
use verilume::graph::Graph;
use verilume::image::Preprocess;
use verilume::map::{Map, ONE_POSITION, showing_nothing};
use verilume::method::Method;
use verilume::model::{Labels, Model};
use verilume::render::Look;
use verilume::report::{Line, Prediction, Record};
use verilume::tensor::{Shape, Tensor};

use crate::args::Format;
use crate::arrays::ArrayFile;
use crate::book::Book;
use crate::drawing::{self, Panel};
use crate::inputs::Source;
use crate::items::{Item, Net, fit};
use crate::methods::fingerprint;
use crate::outputs::{self, RawFile, RawFiles, RawFormat};
use crate::paths;
use crate::plan::Plan;
use crate::resume::Done;
use crate::said::Noticed;
use crate::talk::Progress;
use crate::targets::{TargetChoice, Targets, best_first};

/// Rows of an array that go through the net together.
pub const ROWS: usize = 16;
/// Pictures that go through the net together when they are small.
pub const PICTURES: usize = 8;
/// Elements of one channel up to which a picture is small.
pub const SMALL: usize = 64 * 64;
/// Letters of a name that a sheet has room for.
const DRAWN_LETTERS: usize = 30;
/// Classes that a record lists.
const LISTED: usize = 5;

/// A method that can run.
pub struct Ready {
    pub id: String,
    /// Fingerprint of everything its results depend on.
    pub settings: String,
    pub method: Box<dyn Method>,
    /// Whether it has made a map in this run.
    pub proven: bool,
}

/// An item and what the net makes of it.
struct Scored {
    item: Item,
    scores: Vec<f64>,
    targets: Vec<usize>,
    prediction: Vec<Prediction>,
}

/// The array that a group of rows comes from.
struct Rows {
    single: bool,
    files: RawFiles,
    /// By method, the key of its raw files; none for a single input.
    keys: Vec<String>,
}

/// Everything a run holds while it goes through its inputs.
pub struct Runner<'a> {
    pub plan: &'a Plan,
    pub model: &'a Model,
    pub preprocess: &'a Preprocess,
    pub labels: &'a Labels,
    pub targets: Targets,
    pub engine: Engine,
    pub methods: Vec<Ready>,
    pub look: Look,
    pub done: Done,
    pub book: Book,
    pub sources: &'a [Source],
    /// Files that no result may take the place of.
    pub read: HashSet<PathBuf>,
    /// Results of other inputs.
    pub others: HashSet<PathBuf>,
}

impl Runner<'_> {
    /// Goes through all sources.
    pub fn all(&mut self, progress: &mut Progress) -> Result<()> {
        let small = self.preprocess.crop.iter().product::<usize>() <= SMALL;
        let most = if small { PICTURES } else { 1 };
        let mut waiting: Vec<Item> = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            progress.at(&source.shown);
            if source.is_array() && source.refused.is_none() {
                self.pictures(std::mem::take(&mut waiting), progress)?;
                self.array(at, source, progress)?;
                progress.step(&self.book.summary(at, source));
                continue;
            }
            let missing = self.missing(source, None);
            (missing..self.methods.len()).for_each(|_| self.book.skip(at));
            if missing == 0 {
                progress.step(&self.book.summary(at, source));
                continue;
            }
            let net = Net { preprocess: self.preprocess, input: self.model.default_input() };
            match Item::picture(at, source, net) {
                Ok(item) => {
                    self.book.said.hear(&item, progress);
                    waiting.push(item);
                }
                Err(e) => {
                    self.book.fail(at, source, None, (&e.to_string(), Noticed::default()))?;
                    progress.step(&self.book.summary(at, source));
                }
            }
            if waiting.len() >= most {
                self.pictures(std::mem::take(&mut waiting), progress)?;
            }
        }
        self.pictures(waiting, progress)
    }

    /// Methods that have not been done for an item.
    fn missing(&self, source: &Source, row: Option<usize>) -> usize {
        (0..self.methods.len()).filter(|&m| !self.done.has(&source.shown, row, m)).count()
    }

    fn pictures(&mut self, items: Vec<Item>, progress: &mut Progress) -> Result<()> {
        let at: Vec<usize> = items.iter().map(|i| i.source).collect();
        let held = self.group(items, None, progress)?;
        self.write_down(held)?;
        for at in at {
            progress.step(&self.book.summary(at, &self.sources[at]));
        }
        Ok(())
    }

    fn array(&mut self, at: usize, source: &Source, progress: &mut Progress) -> Result<()> {
        let mut array = match ArrayFile::open(&source.path) {
            Ok(array) => array,
            Err(e) => return self.book.fail(at, source, None, (&e.to_string(), Noticed::default())),
        };
        if !array.has_levels()
            && let Err(e) = fit(array.dims(), self.model.default_input())
        {
            let why = e.within(&source.shown).to_string();
            return self.book.fail(at, source, None, (&why, Noticed::default()));
        }
        let count = array.rows();
        self.book.set_items(at, count);
        let mut rows = self.rows(at, source, &array)?;
        let mut last = Vec::new();
        for first in (0..count).step_by(ROWS) {
            // The last group is written down after the array's files are in place: records must not promise more.
            self.write_down(std::mem::take(&mut last))?;
            progress.at(&format!("{} [{first} of {count}]", source.shown));
            let mut items = Vec::new();
            for row in first..count.min(first + ROWS) {
                let missing = self.missing(source, Some(row));
                if let Some(why) = self.done.failure(&source.shown, row) {
                    self.book.still_failed(at, row, why);
                    continue;
                }
                (missing..self.methods.len()).for_each(|_| self.book.skip(at));
                if missing == 0 {
                    continue;
                }
                let net = Net { preprocess: self.preprocess, input: self.model.default_input() };
                match Item::row(at, source, &mut array, row, net) {
                    Ok(item) => {
                        self.book.said.hear(&item, progress);
                        items.push(item);
                    }
                    Err(e) => self.book.fail(at, source, Some(row), (&e.to_string(), Noticed::default()))?,
                }
            }
            last = self.group(items, Some(&mut rows), progress)?;
        }
        if let Err(e) = rows.files.finish() {
            for (_, line) in &mut last {
                line.record.error = Some(e.to_string());
            }
        }
        self.write_down(last)
    }

    /// The raw files of an array. What an interrupted run has left of them is gone on with, as far as it counts.
    fn rows(&self, at: usize, source: &Source, array: &ArrayFile) -> Result<Rows> {
        let count = array.rows();
        let mut rows = Rows { single: array.is_single(), files: RawFiles::new(count), keys: Vec::new() };
        if rows.single {
            return Ok(rows);
        }
        for (m, ready) in self.methods.iter().enumerate() {
            let key = fingerprint(&serde_json::json!([ready.settings, self.sources[at].stamp, count]));
            let done: Vec<bool> = (0..count).map(|row| self.done.has(&source.shown, Some(row), m)).collect();
            let failed = |row: usize| self.done.failure(&source.shown, row).is_some();
            if done.contains(&true) && (0..count).any(|row| !done[row] && !failed(row)) {
                for format in self.plan.formats.iter().filter_map(|&format| raw_format(format)) {
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
        let several = matches!(self.plan.target, TargetChoice::Top(_));
        let parts = if several { vec![id, target, extension] } else { vec![id, extension] };
        outputs::path(&self.plan.out, stem, &parts)
    }

    fn write_down(&mut self, lines: Vec<(usize, Line)>) -> Result<()> {
        lines.into_iter().try_for_each(|(at, line)| self.book.add(at, line))
    }

    /// Runs all methods on items of one shape. Returns the records that have to wait until files are complete.
    fn group(
        &mut self,
        items: Vec<Item>,
        mut rows: Option<&mut Rows>,
        progress: &Progress,
    ) -> Result<Vec<(usize, Line)>> {
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let graph = match input_shape(&first.input).and_then(|shape| self.model.graph(shape)) {
            Ok(graph) => graph,
            Err(e) => {
                for item in &items {
                    self.fail(item, &e.to_string())?;
                }
                return Ok(Vec::new());
            }
        };
        let scored = self.score(&graph, items)?;
        let sheets = self.plan.wants(Format::Grid);
        let mut panels: Vec<Vec<Panel>> = scored.iter().map(|_| Vec::new()).collect();
        let mut held = Vec::new();
        for m in 0..self.methods.len() {
            let todo: Vec<usize> = (0..scored.len())
                .filter(|&i| {
                    let item = &scored[i].item;
                    !self.done.has(&self.sources[item.source].shown, item.row, m)
                })
                .collect();
            for rank in 0..self.targets.count() {
                let some: Vec<&Scored> = todo.iter().map(|&i| &scored[i]).collect();
                for (&i, (made, seconds)) in todo.iter().zip(self.explain(&graph, m, &some, rank)) {
                    let s = &scored[i];
                    match &made {
                        Ok(_) => self.methods[m].proven = true,
                        Err(e) if !self.methods[m].proven && hopeless(e, &graph, self.sources) => {
                            return made.map(|_| Vec::new()).map_err(|e| e.within(&self.methods[m].id).into());
                        }
                        Err(_) => {}
                    }
                    let mut record = self.record(s, m, rank, seconds);
                    match made.and_then(|map| Ok((self.store(s, m, rank, &map, rows.as_deref_mut())?, map))) {
                        Ok((files, map)) => {
                            record.gap = map.gap.clone();
                            record.notes = map.all_notes();
                            if let Some(warning) = self.places(&graph, m, &map) {
                                self.book.said.add(&warning, progress);
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
                    let place = self.book.place(s.item.source);
                    let raw = self.plan.formats.iter().any(|&format| raw_format(format).is_some());
                    let part = rows.as_deref().filter(|_| raw).and_then(|rows| rows.keys.get(m).cloned());
                    held.push((s.item.source, Line { record, settings, stamp, place, part }));
                }
            }
            if !sheets && rows.is_none() {
                self.write_down(std::mem::take(&mut held))?;
            }
        }
        for (s, panels) in scored.iter().zip(panels).filter(|(_, panels)| !panels.is_empty()) {
            let path = outputs::path(&self.plan.out, &s.item.stem, &["grid", "png"]);
            let sheet = self.spare(&path).and_then(|()| self.sheet(s, &panels));
            let sheet = sheet.and_then(|sheet| outputs::write_png(&path, &sheet));
            let records = held.iter_mut().map(|(at, line)| (*at, &mut line.record));
            for (_, record) in records.filter(|(at, r)| *at == s.item.source && r.index == s.item.row) {
                match &sheet {
                    Ok(()) => record.files.push(paths::shown(&path)),
                    Err(e) => record.error = record.error.take().or_else(|| Some(e.to_string())),
                }
            }
        }
        Ok(held)
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

    fn fail(&mut self, item: &Item, why: &str) -> Result<()> {
        let noticed = self.book.said.of(item);
        self.book.fail(item.source, &self.sources[item.source], item.row, (why, noticed))
    }

    /// The net's scores; items that it cannot take are recorded and left out.
    fn score(&mut self, graph: &Graph, items: Vec<Item>) -> Result<Vec<Scored>> {
        let inputs: Vec<&Tensor> = items.iter().map(|i| &i.input).collect();
        let together = self.forward(graph, &inputs);
        let mut scored = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            // One bad item must not take its neighbours along.
            let logits = match &together {
                Ok(logits) => logits.item(i),
                Err(_) => self.forward(graph, &[&item.input]).and_then(|logits| logits.item(0)),
            };
            let source = &self.sources[item.source];
            let made = logits.and_then(|logits| {
                let logits = logits.to_f64();
                Ok((
                    self.plan.score.of_all(graph.link(), &logits),
                    self.targets.of(source, item.row, &logits)?,
                    best_first(&logits),
                ))
            });
            match made {
                Ok((scores, targets, best)) => {
                    self.book.said.compare(&item, self.targets.listed(&targets), best.first().copied());
                    let of = |&index: &usize| Prediction { index, label: self.label(index), score: scores[index] };
                    let prediction = best.iter().take(LISTED).map(of).collect();
                    scored.push(Scored { item, scores, targets, prediction });
                }
                Err(e) => self.fail(&item, &e.to_string())?,
            }
        }
        Ok(scored)
    }

    fn forward(&mut self, graph: &Graph, inputs: &[&Tensor]) -> verilume::Result<Tensor> {
        self.engine.forward(graph, &batch(inputs)?)
    }

    /// One map an item for its `rank`-th target, and the seconds that took.
    fn explain(
        &mut self,
        graph: &Graph,
        m: usize,
        items: &[&Scored],
        rank: usize,
    ) -> Vec<(verilume::Result<Map>, f64)> {
        let inputs: Vec<&Tensor> = items.iter().map(|s| &s.item.input).collect();
        let targets: Vec<usize> = items.iter().map(|s| s.targets[rank]).collect();
        maps(&mut self.engine, graph, self.methods[m].method.as_ref(), &inputs, &targets)
    }

    /// What a sheet calls a class: its name, after its index where the name alone could be taken for another class's.
    fn sheet_name(&self, class: usize) -> String {
        let Some(name) = self.labels.get(class) else { return class.to_string() };
        let others = (0..self.model.classes()).filter(|&other| other != class);
        let same = others.filter_map(|other| self.labels.get(other)).any(|other| other == name);
        let plain = !same && name.chars().count() <= DRAWN_LETTERS && verilume::render::is_drawable(name);
        if plain { name.to_owned() } else { format!("{class} {name}") }
    }

    fn label(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    fn record(&self, s: &Scored, m: usize, rank: usize, seconds: f64) -> Record {
        let target = s.targets[rank];
        let noticed = self.book.said.of(&s.item);
        Record {
            input: self.sources[s.item.source].shown.clone(),
            index: s.item.row,
            method: Some(self.methods[m].id.clone()),
            target: Some(target),
            target_label: self.label(target),
            score: Some(s.scores[target]),
            prediction: s.prediction.clone(),
            gap: None,
            notes: Vec::new(),
            seconds,
            peak_bytes: self.engine.peak_bytes(),
            files: Vec::new(),
            bytes: Vec::new(),
            error: None,
            shares: None,
            assumed: noticed.assumed,
            warnings: noticed.warnings,
            record_version: verilume::report::RECORD_VERSION,
        }
    }

    /// Writes one map in the formats wanted; the names of the files.
    fn store(
        &self,
        s: &Scored,
        m: usize,
        rank: usize,
        map: &Map,
        mut rows: Option<&mut Rows>,
    ) -> verilume::Result<Vec<String>> {
        let class = map.target.to_string();
        let named = |stem: &Path, target: &str, extension: &str| self.named(stem, m, target, extension);
        let rank = format!("top{}", rank + 1);
        let several_rows = rows.as_deref().is_some_and(|rows| !rows.single);
        let mut planned = Vec::new();
        for &format in &self.plan.formats {
            if format == Format::Grid {
                continue;
            }
            let raw = raw_format(format);
            let path = match raw {
                None => {
                    let both = format == Format::Heatmap && self.plan.wants(Format::Overlay);
                    named(&s.item.stem, &class, if both { "heatmap.png" } else { "png" })
                }
                // Rows have different classes: an array's files are named by rank.
                Some(raw) if several_rows => named(&self.sources[s.item.source].stem, &rank, raw.extension()),
                Some(raw) => named(&s.item.stem, &class, raw.extension()),
            };
            self.spare(&path)?;
            planned.push((format, raw, path));
        }
        let mut files = Vec::new();
        for (format, raw, path) in planned {
            match (raw, rows.as_deref_mut()) {
                (None, _) => {
                    let view = s.item.view(self.preprocess)?;
                    let map = s.item.drawn(map, self.preprocess)?;
                    outputs::write_png(&path, &drawing::draw(format, &view, &map, &self.look)?)?;
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

    /// Refuses a result in the place of a file that this run reads.
    fn spare(&self, path: &Path) -> verilume::Result<()> {
        match path.canonicalize() {
            Ok(place) if self.read.contains(&place) => Err(verilume::Error::input(format!(
                "{}: the result would take the place of a file that this run reads; give another folder with -o",
                path.display()
            ))),
            Ok(place) if self.others.contains(&place) => Err(verilume::Error::input(format!(
                "{}: the result would take the place of another input's; give another folder with -o",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    fn sheet(&self, s: &Scored, panels: &[Panel]) -> verilume::Result<verilume::image::Picture> {
        let drawn = |p: &Panel| {
            let map = s.item.drawn(&p.map, self.preprocess)?;
            Ok(Panel { name: p.name.clone(), caption: p.caption.clone(), map })
        };
        let panels = panels.iter().map(drawn).collect::<verilume::Result<Vec<_>>>()?;
        let title = s.prediction.first().map_or_else(String::new, |p| {
            format!("{} ({} {:.3})", self.sheet_name(p.index), self.plan.score_name(), p.score)
        });
        drawing::sheet(&title, &s.item.view(self.preprocess)?, &panels, &self.look)
    }
}

/// Whether what failed on one input fails on every other of `sources`. An error that names the input's shape is that input's
/// own, unless all of them have the same: the net takes no other, or all are pictures, which are prepared alike.
pub fn hopeless(e: &verilume::Error, graph: &Graph, sources: &[Source]) -> bool {
    let Shape { c, h, w } = graph.input_shape();
    match e.kind() {
        ErrorKind::Settings => true,
        ErrorKind::Shape => {
            !sources.iter().any(Source::is_array) || graph.resized(Shape::new(c, 2 * h, 2 * w)).is_err()
        }
        _ => false,
    }
}

/// One map an input, and the seconds that took. Where the method fails on all together each is tried by itself: one bad
/// input must not take its neighbours along.
pub fn maps(
    engine: &mut Engine,
    graph: &Graph,
    method: &dyn Method,
    inputs: &[&Tensor],
    targets: &[usize],
) -> Vec<(verilume::Result<Map>, f64)> {
    if inputs.is_empty() {
        return Vec::new();
    }
    let started = Instant::now();
    let made = batch(inputs).and_then(|x| method.explain(engine, graph, &x, targets));
    let seconds = started.elapsed().as_secs_f64() / inputs.len() as f64;
    match made {
        Ok(maps) if maps.len() == inputs.len() => maps.into_iter().map(|map| (Ok(map), seconds)).collect(),
        Ok(maps) => {
            let why = format!("{} maps for {} inputs", maps.len(), inputs.len());
            inputs.iter().map(|_| (Err(verilume::Error::device(why.clone())), seconds)).collect()
        }
        Err(e) if inputs.len() == 1 => vec![(Err(e), seconds)],
        Err(_) => {
            let each = inputs.iter().zip(targets);
            each.flat_map(|(&input, &target)| maps(engine, graph, method, &[input], &[target])).collect()
        }
    }
}

/// How raw maps are stored, where a format stores them.
fn raw_format(format: Format) -> Option<RawFormat> {
    match format {
        Format::Npy => Some(RawFormat::Npy),
        Format::Safetensors => Some(RawFormat::Safetensors),
        Format::Grid | Format::Overlay | Format::Heatmap => None,
    }
}

/// The name of a target under its map, with a word where the map shows nothing.
fn captioned(target: String, record: &Record) -> String {
    match showing_nothing(&record.notes) {
        Some(words) => format!("{target} ({words})"),
        None => target,
    }
}

/// Inputs of one shape, together.
pub fn batch(inputs: &[&Tensor]) -> verilume::Result<Batch> {
    Batch::of(inputs.iter().map(|&t| t.clone()).collect())
}

/// The shape of an input.
pub fn input_shape(input: &Tensor) -> verilume::Result<Shape> {
    match *input.dims() {
        [c, h, w] => Ok(Shape::new(c, h, w)),
        _ => Err(verilume::Error::input(format!("an input of shape {:?}", input.dims()))),
    }
}
