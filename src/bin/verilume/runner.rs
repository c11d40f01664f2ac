//! The work itself: inputs in groups through the net and the methods, results into files and the book.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine};
use verilume::graph::Graph;
use verilume::image::Preprocess;
use verilume::map::Map;
use verilume::method::Method;
use verilume::model::{Labels, Model};
use verilume::program::Score;
use verilume::render::Look;
use verilume::report::{Line, Prediction, Record};
use verilume::tensor::{Shape, Tensor};

use crate::args::Format;
use crate::arrays::ArrayFile;
use crate::book::Book;
use crate::drawing::{self, Panel};
use crate::inputs::Source;
use crate::items::{Item, Net, fit};
use crate::outputs::{self, RawFile, RawFiles, RawFormat};
use crate::paths;
use crate::plan::Plan;
use crate::resume::Done;
use crate::talk::Progress;
use crate::targets::{TargetChoice, Targets, best_first};

/// Rows of an array that go through the net together.
pub const ROWS: usize = 16;
/// Pictures that go through the net together when they are small.
pub const PICTURES: usize = 8;
/// Elements of one channel up to which a picture is small.
pub const SMALL: usize = 64 * 64;
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
                Ok(item) => waiting.push(item),
                Err(e) => {
                    self.book.fail(at, source, None, &e.to_string(), progress)?;
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
        self.write_down(held, progress)?;
        for at in at {
            progress.step(&self.book.summary(at, &self.sources[at]));
        }
        Ok(())
    }

    fn array(&mut self, at: usize, source: &Source, progress: &mut Progress) -> Result<()> {
        let mut array = match ArrayFile::open(&source.path) {
            Ok(array) => array,
            Err(e) => return self.book.fail(at, source, None, &e.to_string(), progress),
        };
        if !array.has_levels()
            && let Err(e) = fit(array.dims(), self.model.default_input())
        {
            return self.book.fail(at, source, None, &e.within(&source.shown).to_string(), progress);
        }
        let count = array.rows();
        self.book.set_items(at, count);
        let mut rows = Rows { single: array.is_single(), files: RawFiles::new(count) };
        let mut last = Vec::new();
        for first in (0..count).step_by(ROWS) {
            // The last group is written down after the array's files are in place: records must not promise more.
            self.write_down(std::mem::take(&mut last), progress)?;
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
                    Ok(item) => items.push(item),
                    Err(e) => self.book.fail(at, source, Some(row), &e.to_string(), progress)?,
                }
            }
            last = self.group(items, Some(&mut rows), progress)?;
        }
        if let Err(e) = rows.files.finish() {
            for (_, line) in &mut last {
                line.record.error = Some(e.to_string());
            }
        }
        self.write_down(last, progress)
    }

    fn write_down(&mut self, lines: Vec<(usize, Line)>, progress: &Progress) -> Result<()> {
        lines.into_iter().try_for_each(|(at, line)| self.book.add(at, line, progress))
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
                    self.fail(item, &e.to_string(), progress)?;
                }
                return Ok(Vec::new());
            }
        };
        let scored = self.score(&graph, items, progress)?;
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
                        // Settings that have never worked are no fault of the input: they would fail on every other.
                        Err(e) if e.kind() == ErrorKind::Settings && !self.methods[m].proven => {
                            return made.map(|_| Vec::new()).map_err(|e| e.within(&self.methods[m].id).into());
                        }
                        Err(_) => {}
                    }
                    let mut record = self.record(s, m, rank, seconds);
                    match made.and_then(|map| Ok((self.store(s, m, rank, &map, rows.as_deref_mut())?, map))) {
                        Ok((files, map)) => {
                            record.gap = map.gap.clone();
                            record.notes = map.notes.clone();
                            record.shares = map.shares;
                            record.files = files;
                            if sheets {
                                panels[i].push(Panel {
                                    name: self.methods[m].id.clone(),
                                    caption: target_text(&record),
                                    map,
                                });
                            }
                        }
                        Err(e) => record.error = Some(e.to_string()),
                    }
                    let settings = self.methods[m].settings.clone();
                    let stamp = self.sources[s.item.source].stamp;
                    held.push((s.item.source, Line { record, settings, stamp }));
                }
            }
            if !sheets && rows.is_none() {
                self.write_down(std::mem::take(&mut held), progress)?;
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

    fn fail(&mut self, item: &Item, why: &str, progress: &Progress) -> Result<()> {
        self.book.fail(item.source, &self.sources[item.source], item.row, why, progress)
    }

    /// The net's scores; items that it cannot take are recorded and left out.
    fn score(&mut self, graph: &Graph, items: Vec<Item>, progress: &Progress) -> Result<Vec<Scored>> {
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
                Ok((head(self.plan.score, &logits), self.targets.of(source, item.row, &logits)?, best_first(&logits)))
            });
            match made {
                Ok((scores, targets, best)) => {
                    self.book.said.hear(&item, self.targets.listed(&targets), best.first().copied(), progress);
                    let of = |&index: &usize| Prediction { index, label: self.label(index), score: scores[index] };
                    let prediction = best.iter().take(LISTED).map(of).collect();
                    scored.push(Scored { item, scores, targets, prediction });
                }
                Err(e) => self.fail(&item, &e.to_string(), progress)?,
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

    fn label(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    fn record(&self, s: &Scored, m: usize, rank: usize, seconds: f64) -> Record {
        let target = s.targets[rank];
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
            error: None,
            shares: None,
            assumed: Vec::new(),
            warnings: self.book.said.doubt(&s.item).into_iter().collect(),
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
        let id = self.methods[m].id.as_str();
        let several = matches!(self.plan.target, TargetChoice::Top(_));
        let class = map.target.to_string();
        let named = |stem: &Path, target: &str, extension: &str| {
            let parts = if several { vec![id, target, extension] } else { vec![id, extension] };
            outputs::path(&self.plan.out, stem, &parts)
        };
        let rank = format!("top{}", rank + 1);
        let several_rows = rows.as_deref().is_some_and(|rows| !rows.single);
        let mut planned = Vec::new();
        for &format in &self.plan.formats {
            let raw = match format {
                Format::Grid => continue,
                Format::Npy => Some(RawFormat::Npy),
                Format::Safetensors => Some(RawFormat::Safetensors),
                Format::Overlay | Format::Heatmap => None,
            };
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
                    rows.files.push(&path, raw, row, &dims, &values)?;
                }
                (Some(raw), _) => {
                    let dims = s.item.raw_dims(map);
                    let mut file = RawFile::create(&path, raw, None, &dims)?;
                    file.push(0, &dims, &map.values.to_f32())?;
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
            format!(
                "{} ({} {:.3})",
                p.label.clone().unwrap_or_else(|| p.index.to_string()),
                self.plan.score_name(),
                p.score
            )
        });
        drawing::sheet(&title, &s.item.view(self.preprocess)?, &panels, &self.look)
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

fn target_text(record: &Record) -> String {
    let index = record.target.map_or_else(String::new, |t| t.to_string());
    record.target_label.clone().unwrap_or(index)
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

/// Scores of the kind asked for, in double precision.
fn head(score: Score, logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    match score {
        Score::Logit => logits.to_vec(),
        Score::Prob => logits.iter().map(|l| (l - largest).exp() / sum).collect(),
        Score::LogProb => logits.iter().map(|l| l - largest - sum.ln()).collect(),
        Score::LogOthers => (0..logits.len()).map(|target| score.evaluate(logits, target).0).collect(),
    }
}
