//! Measures metrics over labelled pictures: groups of pictures go through the net, the methods and the metrics; each
//! gets a line in the journal.

mod metrics;
mod units;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

pub use metrics::{Measure, choose};
pub use units::{Content, Unit, UnitKind, Units};

use super::ledger::{Earlier, lock};
use super::recorded::{PICTURES, ROWS, SMALL};
use super::said::Said;
use super::settings::{Named, build, common, many_passes, precision_name};
use super::{InputWork, Listener, hopeless, too_small};
use crate::cancel::Cancel;
use crate::data::{
    DataRequest, Drawn, Event, Item, ItemPosition, LabelledBoxes, LabelledData, NetInput, PictureReader, Room, files,
    paths,
};
use crate::engine::{Batch, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::image::{Placement, Preprocess};
use crate::map::Map;
use crate::method::Method;
use crate::model::{InputForm, Setting};
use crate::reliability::bootstrap::Bootstrap;
use crate::reliability::metric::{Case, Needs, Readings, Region};
use crate::reliability::mosaic;
use crate::report::eval::{Asked, Difference, Direction, Evaluated, MeanScore, Measured, Summary};
use crate::report::{Journal, RECORD_VERSION, replace};
use crate::session::{Noticed, Session};
use crate::tensor::{Shape, Tensor};
use crate::text::counted;

/// Options of an evaluation: data, methods, metrics and output.
pub struct EvalOptions {
    /// Folders, patterns and arrays of labelled pictures.
    pub data: Vec<OsString>,
    /// A table of classes, used instead of names and tensors.
    pub labels_csv: Option<PathBuf>,
    /// A table of boxes.
    pub boxes: Option<PathBuf>,
    /// Whether pictures without a class are used.
    pub unlabelled: bool,
    /// Whether their order is shuffled with the session's seed.
    pub shuffle: bool,
    /// Most pictures to use.
    pub limit: Option<usize>,
    /// Pictures, with or without boxes, or mosaics of them.
    pub kind: UnitKind,
    /// The methods, one map each.
    pub methods: Vec<Named>,
    /// The metrics.
    pub metrics: Vec<Measure>,
    /// Whether to explain the true class, if known, rather than the predicted one.
    pub explain_label: bool,
    /// Folder for results.
    pub out: PathBuf,
    /// Whether to reuse results of an earlier run.
    pub earlier: Earlier,
    /// The settings with which the session's engine was opened.
    pub settings: Settings,
    /// Settings of the preparation that the user gave.
    pub given: Vec<Setting>,
}

/// A method under evaluation.
struct EvaluatedMethod {
    id: String,
    method: Box<dyn Method>,
    /// Whether it has produced a map in this run.
    proven: bool,
}

/// A picture in the net's space, and its annotations.
pub struct ShownPicture {
    /// Position of the unit.
    at: usize,
    input: Tensor,
    /// The true class; on a mosaic, the target class.
    label: Option<usize>,
    /// The classes that count as a correct prediction.
    right: Vec<usize>,
    regions: Vec<Region>,
    notes: Vec<String>,
    /// Remarks made while it was read.
    noticed: Noticed,
}

/// A picture, the net's output for it, and its line so far.
struct ScoredUnit {
    shown: ShownPicture,
    target: usize,
    line: Evaluated,
}

/// Measures methods over labelled pictures.
pub struct Evaluation<'a> {
    session: &'a mut Session,
    options: EvalOptions,
    methods: Vec<EvaluatedMethod>,
    data: Arc<LabelledData>,
    units: Arc<Units>,
    journal: Journal,
    said: Said,
    small: bool,
    /// Whether the net has processed a picture.
    proven: bool,
    /// Whether a picture had a box, now or in an earlier run.
    boxed: bool,
    /// Each unit's line, once it exists.
    lines: Vec<Option<Evaluated>>,
    summary_path: PathBuf,
    _lock: File,
}

impl<'a> Evaluation<'a> {
    /// Finds the pictures and their classes, locks the folder of results and examines its contents.
    ///
    /// # Errors
    /// When there are no pictures, a method has no meaning, a table cannot be read, the folder is not writable, or
    /// another run is writing to it.
    pub fn open(session: &'a mut Session, options: EvalOptions, listener: &dyn Listener) -> Result<Self> {
        let (model, seed) = (session.model(), session.seed());
        if model.default_input() == Shape::vector(model.default_input().c) {
            return Err(Error::settings(format!(
                "{}: metrics ask where a map points, and a net on vectors has no places",
                model.name()
            )));
        }
        if options.explain_label && options.unlabelled {
            return Err(Error::settings("--target label: with --unlabelled there may be none"));
        }
        let built = build(session, &options.methods)?;
        let out = &options.out;
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let lock = lock(&out.join(".eval.lock"), out)?;
        let wanted = DataRequest {
            data: &options.data,
            labels_csv: options.labels_csv.as_deref(),
            boxes: options.boxes.as_deref(),
            unlabelled: options.unlabelled,
            shuffle: options.shuffle.then_some(seed),
            limit: options.limit,
            out,
            room: Room { allowed: options.settings.memory },
        };
        let data = LabelledData::find(&wanted, session.labels(), session.model().classes())?;
        let mut all = common(session, &options.settings)?;
        all["labels"] = session.labels().iter().collect::<Vec<_>>().into();
        all["target"] = target_name(&options).into();
        all["score"] = session.explained().name().into();
        all["kind"] = options.kind.name().into();
        all["methods"] = options.methods.iter().map(|m| m.spec.to_string()).collect::<Vec<_>>().into();
        all["files"] = built.iter().map(|b| b.files.as_str()).collect::<Vec<_>>().into();
        all["metrics"] = options.metrics.iter().map(|m| m.spec.to_string()).collect::<Vec<_>>().into();
        let units = Units::new(&data, options.kind, seed, &all)?;

        listener.begin(units.all.len());
        let mut said = Said::new(session, &options.given);
        said.tell(listener);
        session.labels().numbers().into_iter().for_each(|sentence| listener.say(&sentence));
        many_passes(&options.methods).for_each(|line| listener.say(&line));
        data.left_out.iter().for_each(|sentence| listener.say(sentence));
        match data.boxes.as_ref().map_or(0, |boxes| boxes.strangers(&data.sources)) {
            0 => {}
            n => {
                let path = data.boxes.as_ref().map(LabelledBoxes::path).unwrap_or(Path::new(""));
                listener.say(&format!("{}: {} not among the data", path.display(), counted(n, "file")));
            }
        }
        if data.strangers > 0 {
            listener.say(&format!("--labels-csv: {} not among the data", counted(data.strangers, "file")));
        }
        let path = out.join("eval.jsonl");
        let settled = settle(Journal::read::<Evaluated>(&path)?, &units, options.earlier == Earlier::Resume);
        if settled.outdated > 0 {
            listener.say(&super::outdated(settled.outdated));
        }
        if settled.dropped > 0 {
            listener.say(&format!("{} of an earlier run left out", counted(settled.dropped, "mosaic")));
        }
        // A summary says that a run has ended, so an earlier run's must not stay next to this run's lines.
        let summary_path = out.join("summary.json");
        if let Some(kept) = files::set_aside(&summary_path, |summary| summary["data"] == json!(shown(&options.data)))? {
            listener.say(&format!("the summary of other data is kept as {}", kept.display()));
        }
        match std::fs::remove_file(&summary_path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&summary_path, e)),
            _ => {}
        }
        settled.done.iter().flatten().for_each(|line| said.remember(&line.assumed, &line.warnings));
        let journal = Journal::start(&path, &settled.kept)?;
        let named = options.methods.iter().zip(built);
        let ready =
            named.map(|(named, built)| EvaluatedMethod { id: named.id.clone(), method: built.method, proven: false });
        let methods = ready.collect();
        let small = session.preparation().crop.iter().product::<usize>() <= SMALL;
        let (data, units, lines) = (Arc::new(data), Arc::new(units), settled.done);
        // Boxes of completed pictures are not looked up again.
        let (proven, boxed) = (false, lines.iter().any(Option::is_some));
        Ok(Self {
            session,
            options,
            methods,
            data,
            units,
            journal,
            said,
            small,
            proven,
            boxed,
            lines,
            summary_path,
            _lock: lock,
        })
    }

    /// The pictures, without those that an earlier run completed.
    pub fn stream(&self) -> Pictures {
        Pictures {
            data: Arc::clone(&self.data),
            units: Arc::clone(&self.units),
            done: self.lines.iter().map(Option::is_some).collect(),
            reader: PictureReader::default(),
            preprocess: self.session.preparation().clone(),
            input: self.session.model().input_form(),
            room: Room { allowed: self.options.settings.memory },
            at: 0,
            state: Next::Begin,
        }
    }

    /// Summarises. If `ended`, the outcome of the run, is Ok, also writes the summary file, which says that all
    /// pictures were processed.
    ///
    /// # Errors
    /// The error in `ended`, and when files cannot be written.
    pub fn close(mut self, ended: Result<()>, listener: &dyn Listener) -> Result<(Summary, Vec<Evaluated>)> {
        let closed = self.journal.sync();
        ended?;
        closed?;
        let Self { session, options, mut said, lines, proven, boxed, .. } = self;
        if options.kind == UnitKind::Boxed && proven && !boxed {
            listener
                .say("--boxes: no picture has a box with a pixel inside the net's input; see the names in the table");
        }
        let lines: Vec<Evaluated> = lines.into_iter().flatten().collect();
        if matches!(options.kind, UnitKind::Pictures | UnitKind::Boxed) {
            lines.iter().filter_map(|line| line.correct).for_each(|right| said.count(right));
            said.judge(session.model().classes(), listener);
        }
        let asked = options.methods.iter().map(|m| Asked {
            id: m.id.clone(),
            spec: m.spec.to_string(),
            paper: m.spec.entry.paper.into(),
        });
        let asked: Vec<Asked> = asked.collect();
        let bootstrap = Bootstrap::new(session.seed());
        let device = session.engine().describe();
        let preprocessing = serde_json::to_value(session.preparation());
        let summary = Summary {
            version: env!("CARGO_PKG_VERSION").into(),
            model: session.model_used(),
            preprocessing: preprocessing.map_err(|e| Error::settings(format!("the preparation is not JSON: {e}")))?,
            data: shown(&options.data),
            kind: options.kind.name().into(),
            pictures: lines.len(),
            failed: lines.iter().filter(|l| l.error.is_some()).count(),
            target: target_name(&options).into(),
            score: session.explained().name().into(),
            seed: session.seed(),
            device: format!("{} ({}), {}", device.device, device.kernels, precision_name(&options.settings)),
            scores: scores(&lines, &asked, &options.metrics, &bootstrap, &said)?,
            methods: asked,
            metrics: options.metrics.iter().map(Measure::asked).collect(),
            bootstrap,
            warnings: said.all(),
            assumed: said.all_assumed(),
            record_version: RECORD_VERSION,
        };
        let bytes = serde_json::to_vec_pretty(&summary);
        let mut bytes = bytes.map_err(|e| Error::settings(format!("the summary is not JSON: {e}")))?;
        bytes.push(b'\n');
        replace(&self.summary_path, &bytes)?;
        Ok((summary, lines))
    }

    /// Scores pictures and selects the class to explain; pictures that the net cannot take are recorded as failures and
    /// left out.
    fn score(&mut self, shown: Vec<ShownPicture>, listener: &dyn Listener) -> Result<Vec<ScoredUnit>> {
        let noticed: Vec<Noticed> = shown.iter().map(|s| self.said.of_noticed(&s.noticed)).collect();
        noticed.iter().for_each(|noticed| self.said.note(noticed, listener));
        let inputs: Vec<&Tensor> = shown.iter().map(|s| &s.input).collect();
        let all = self.session.score(&inputs);
        let mut scored = Vec::new();
        for ((shown, noticed), made) in shown.into_iter().zip(noticed).zip(all) {
            let mut line = self.line(shown.at);
            line.assumed.extend(noticed.assumed);
            line.warnings.extend(noticed.warnings);
            too_small(&made, &mut self.proven, &self.data.sources)?;
            self.boxed |= !shown.regions.is_empty();
            let best = match made {
                Ok(made) => made.top(),
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => {
                    line.error = Some(e.to_string());
                    self.add(shown.at, line, listener)?;
                    continue;
                }
            };
            let target = shown.label.filter(|_| self.options.explain_label).unwrap_or(best);
            line.label = shown.label;
            line.label_name = shown.label.and_then(|class| self.session.label(class));
            line.prediction = Some(best);
            line.prediction_name = self.session.label(best);
            line.correct = shown.label.map(|_| shown.right.contains(&best));
            line.target = Some(target);
            line.target_name = self.session.label(target);
            line.notes.clone_from(&shown.notes);
            scored.push(ScoredUnit { shown, target, line });
        }
        Ok(scored)
    }

    /// Values of one metric on the maps of method `m`, each with the position of its picture: measured together or, if
    /// that fails, one by one.
    fn measure(
        &mut self,
        graph: &Graph,
        m: usize,
        metric: usize,
        scored: &[ScoredUnit],
        maps: &[(usize, Map)],
    ) -> Vec<(usize, Result<Readings>)> {
        let columns = self.options.metrics[metric].columns.len();
        let suits = |s: &ShownPicture| match self.options.metrics[metric].spec.entry.needs {
            Needs::Maps => true,
            Needs::Labels => s.label.is_some(),
            Needs::Regions => !s.regions.is_empty(),
            Needs::Mosaic => s.regions.iter().any(|r| r.class != s.regions[0].class),
        };
        let (some, others): (Vec<_>, Vec<_>) = maps.iter().partition(|(i, _)| suits(&scored[*i].shown));
        let none = |(i, _): &(usize, Map)| (*i, Ok(vec![None; columns]));
        let mut read: Vec<_> = others.into_iter().map(none).collect();
        if some.is_empty() {
            return read;
        }
        match self.readings(graph, m, metric, scored, &some) {
            Ok(readings) => read.extend(some.iter().map(|(i, _)| *i).zip(readings.into_iter().map(Ok))),
            Err(e) if some.len() == 1 => read.push((some[0].0, Err(e))),
            Err(_) => {
                for one in some {
                    let alone = self.readings(graph, m, metric, scored, &[one]);
                    let first = |mut all: Vec<Readings>| all.pop().unwrap_or_default();
                    read.push((one.0, alone.map(first)));
                }
            }
        }
        read
    }

    fn readings(
        &mut self,
        graph: &Graph,
        m: usize,
        metric: usize,
        scored: &[ScoredUnit],
        maps: &[&(usize, Map)],
    ) -> Result<Vec<Readings>> {
        let shown: Vec<&ScoredUnit> = maps.iter().map(|(i, _)| &scored[*i]).collect();
        let x = Batch::of(shown.iter().map(|s| s.shown.input.clone()).collect())?;
        let targets: Vec<usize> = shown.iter().map(|s| s.target).collect();
        let labels: Option<Vec<usize>> = shown.iter().map(|s| s.shown.label).collect();
        let regions: Vec<Vec<Region>> = shown.iter().map(|s| s.shown.regions.clone()).collect();
        let maps: Vec<Map> = maps.iter().map(|(_, map)| map.clone()).collect();
        let preprocess = self.session.preparation().clone();
        let case = Case {
            graph,
            preprocess: &preprocess,
            x: &x,
            targets: &targets,
            labels: labels.as_deref(),
            regions: regions.iter().any(|r| !r.is_empty()).then_some(&regions[..]),
            method: self.methods[m].method.as_ref(),
            maps: &maps,
            seed: self.session.seed(),
        };
        let metric = &self.options.metrics[metric];
        let readings = metric.metric.measure(self.session.engine(), &case)?;
        let columns = metric.columns.len();
        if readings.len() != maps.len() || readings.iter().any(|r| r.len() != columns) {
            return Err(Error::device(format!("{}: not {columns} numbers for each of {} maps", metric.id, maps.len())));
        }
        let odd = readings.iter().flat_map(|r| r.iter().zip(&metric.columns));
        match odd.filter_map(|(v, c)| Some((v.filter(|v| !v.is_finite())?, c))).next() {
            Some((v, column)) => Err(Error::device(format!("{} is {v}", column.name))),
            None => Ok(readings),
        }
    }

    /// An empty line.
    fn line(&self, at: usize) -> Evaluated {
        let unit = &self.units.all[at];
        Evaluated {
            input: unit.input.clone(),
            index: unit.index,
            parts: unit.parts.clone(),
            settings: unit.settings.clone(),
            stamps: unit.stamps.clone(),
            assumed: self.said.assumed.clone(),
            warnings: self.said.warnings.clone(),
            record_version: RECORD_VERSION,
            ..Evaluated::default()
        }
    }

    /// Adds a line: it is in the journal before anyone is notified.
    fn add(&mut self, at: usize, line: Evaluated, listener: &dyn Listener) -> Result<()> {
        self.journal.append(std::slice::from_ref(&line))?;
        let name = self.units.all[at].name();
        if let Some(why) = &line.error {
            // Most errors name the file.
            let named = why.contains(&self.units.all[at].input);
            listener.say(&if named { format!("failed: {why}") } else { format!("{name}: failed: {why}") });
        }
        for (method, measured) in &line.methods {
            let map = measured.error.iter().map(|why| (method.clone(), why));
            let metrics = measured.errors.iter().map(|(metric, why)| (format!("{method}, {metric}"), why));
            for (what, why) in map.chain(metrics) {
                listener.say(&format!("{name}: {what}: {why}"));
            }
        }
        for note in &line.notes {
            listener.say(&format!("{name}: {note}"));
        }
        let said = match (&line.error, line.correct) {
            (Some(_), _) => "failed",
            (None, Some(true)) => "right",
            (None, Some(false)) => "wrong",
            (None, None) => "done",
        };
        listener.pass(&format!("{name}: {said}"));
        self.lines[at] = Some(line);
        Ok(())
    }
}

impl InputWork for Evaluation<'_> {
    type Input = ShownPicture;

    fn name(&self, at: usize) -> String {
        self.units.all[at].name()
    }

    fn together(&self, (at, _): ItemPosition) -> usize {
        match self.units.all[at].index {
            _ if !self.small => 1,
            Some(_) => ROWS,
            None => PICTURES,
        }
    }

    fn joins(&self, first: &ShownPicture, next: &ShownPicture) -> bool {
        first.input.dims() == next.input.dims()
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.session.cancel_with(cancel);
    }

    fn failed(&mut self, (at, _): ItemPosition, why: Error, listener: &dyn Listener) -> Result<()> {
        let line = Evaluated { error: Some(why.to_string()), ..self.line(at) };
        self.add(at, line, listener)
    }

    fn skipped(&mut self, (at, _): ItemPosition, listener: &dyn Listener) {
        listener.pass(&format!("{}: done before", self.name(at)));
    }

    /// Runs net, methods and metrics on pictures of one shape.
    fn group(&mut self, shown: Vec<(ItemPosition, ShownPicture)>, listener: &dyn Listener) -> Result<()> {
        let mut scored = self.score(shown.into_iter().map(|(_, shown)| shown).collect(), listener)?;
        let Some(first) = scored.first() else { return Ok(()) };
        let graph = self.session.graph(first.shown.input.dims())?;
        for m in 0..self.methods.len() {
            let inputs: Vec<&Tensor> = scored.iter().map(|s| &s.shown.input).collect();
            let targets: Vec<usize> = scored.iter().map(|s| s.target).collect();
            let made = self.session.explain_timed(self.methods[m].method.as_ref(), &inputs, &targets);
            let mut measured = Vec::with_capacity(made.len());
            let mut maps = Vec::new();
            for (i, (made, seconds)) in made.into_iter().enumerate() {
                let ready = &mut self.methods[m];
                hopeless(&made, &mut ready.proven, &graph, &self.data.sources).map_err(|e| e.within(&ready.id))?;
                let mut one = Measured { seconds, ..Measured::default() };
                match made {
                    Ok(map) => {
                        one.notes = map.all_notes();
                        maps.push((i, map));
                    }
                    Err(e) => one.error = Some(e.to_string()),
                }
                measured.push(one);
            }
            for metric in 0..self.options.metrics.len() {
                for (i, read) in self.measure(&graph, m, metric, &scored, &maps) {
                    let metric = &self.options.metrics[metric];
                    match read {
                        Ok(readings) => {
                            let names = metric.columns.iter().map(|c| c.name.clone());
                            measured[i].readings.extend(names.zip(readings));
                        }
                        Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                        Err(e) => {
                            measured[i].errors.insert(metric.id.clone(), e.to_string());
                        }
                    }
                }
            }
            for (s, measured) in scored.iter_mut().zip(measured) {
                s.line.methods.insert(self.methods[m].id.clone(), measured);
            }
        }
        scored.into_iter().try_for_each(|s| self.add(s.shown.at, s.line, listener))
    }

    fn end(&mut self, _: usize) -> Result<Option<String>> {
        Ok(None)
    }
}

enum Next {
    Begin,
    Input,
    End,
}

/// Reads and prepares the units' pictures, in order.
pub struct Pictures {
    data: Arc<LabelledData>,
    units: Arc<Units>,
    done: Vec<bool>,
    reader: PictureReader,
    preprocess: Preprocess,
    input: InputForm,
    room: Room,
    at: usize,
    state: Next,
}

impl Iterator for Pictures {
    type Item = Event<ShownPicture>;

    fn next(&mut self) -> Option<Event<ShownPicture>> {
        let units = Arc::clone(&self.units);
        let (at, unit) = (self.at, units.all.get(self.at)?);
        let place = (at, unit.index);
        Some(match self.state {
            Next::Begin => {
                self.state = Next::Input;
                Event::Begin(at, None)
            }
            Next::Input => {
                self.state = Next::End;
                if self.done[at] { Event::Skipped(place) } else { Event::Input(place, self.show(at, unit)) }
            }
            Next::End => {
                (self.at, self.state) = (at + 1, Next::Begin);
                Event::End(at)
            }
        })
    }
}

impl Pictures {
    /// Reads and prepares a unit's picture.
    fn show(&mut self, at: usize, unit: &Unit) -> Result<ShownPicture> {
        let data = Arc::clone(&self.data);
        let preprocess = self.preprocess.clone();
        let net = NetInput { preprocess: &preprocess, input: self.input, room: self.room };
        match unit.content {
            Content::Picture(example) => {
                let example = &data.examples[example];
                let label = example.class.clone().map_err(Error::input)?;
                let item = self.reader.item(&data, example, net)?;
                let (regions, notes) = match &data.boxes {
                    None => (Vec::new(), Vec::new()),
                    Some(boxes) => {
                        let drawn = boxes.of(&data.sources[example.source], example.row).map_err(Error::input)?;
                        let placement = placement(&item)?;
                        let places: Vec<Option<Region>> = drawn.iter().map(|b| b.place(&placement)).collect();
                        let note = |b: &Drawn| {
                            format!("the crop leaves nothing of the box of class {} at {:?}", b.class, b.edges)
                        };
                        let lost = drawn.iter().zip(&places).filter(|(_, place)| place.is_none());
                        let notes = lost.map(|(b, _)| note(b)).collect();
                        (places.into_iter().flatten().collect(), notes)
                    }
                };
                let right = label.into_iter().collect();
                let noticed = item.noticed;
                Ok(ShownPicture { at, input: item.input, label, right, regions, notes, noticed })
            }
            Content::Mosaic { number, cells, size } => {
                let mut views = Vec::with_capacity(cells.len());
                let mut noticed = Noticed::default();
                let mut classes = [0; mosaic::CELLS];
                for (class, &cell) in classes.iter_mut().zip(&cells) {
                    let example = &data.examples[cell];
                    let item = self.reader.item(&data, example, net)?;
                    views.push(item.view(&preprocess)?);
                    noticed.extend(item.noticed);
                    *class = example.class.clone().map_err(Error::input)?.unwrap_or_default();
                }
                let pictures = [&views[0], &views[1], &views[2], &views[3]];
                let interpolation = preprocess.interpolation;
                let (picture, regions) = mosaic::compose(pictures, classes, size, interpolation)?;
                let as_it_is =
                    Preprocess { resize: 0, crop: [picture.height(), picture.width()], ..preprocess.clone() };
                let input = as_it_is.apply(&picture)?.tensor;
                let label = Some(classes[number % mosaic::CELLS]);
                Ok(ShownPicture { at, input, label, right: classes.to_vec(), regions, notes: Vec::new(), noticed })
            }
        }
    }
}

/// Position of an item's picture in its input; for numbers that were never a picture, the whole input.
fn placement(item: &Item) -> Result<Placement> {
    match (item.placement, item.dims.as_slice()) {
        (Some(placement), _) => Ok(placement),
        (None, &[_, h, w]) => Ok(Placement::identity([h, w])),
        (None, dims) => Err(Error::input(format!("an input of shape {dims:?} has no place for a box"))),
    }
}

fn target_name(options: &EvalOptions) -> &'static str {
    if options.explain_label { "label" } else { "predicted" }
}

fn shown(names: &[OsString]) -> Vec<String> {
    names.iter().map(|name| paths::shown(Path::new(name))).collect()
}

/// The results of an earlier run.
struct Settled {
    /// By unit, its line if it need not be recomputed.
    done: Vec<Option<Evaluated>>,
    /// Lines for the new journal.
    kept: Vec<Evaluated>,
    /// Number of lines made with other settings.
    outdated: usize,
    /// Number of mosaics from other draws.
    dropped: usize,
}

/// Sorts the lines of an earlier run. Lines of pictures outside this run stay; failures are tried again; without
/// `resume`, everything is recomputed.
fn settle(lines: Vec<Evaluated>, units: &Units, resume: bool) -> Settled {
    let key = |input: &str, index: Option<usize>, parts: &[String]| (input.to_owned(), index, parts.to_vec());
    let places: HashMap<_, usize> =
        units.all.iter().enumerate().map(|(at, u)| (key(&u.input, u.index, &u.parts), at)).collect();
    let mut settled = Settled { done: vec![None; units.all.len()], kept: Vec::new(), outdated: 0, dropped: 0 };
    for line in lines {
        match places.get(&key(&line.input, line.index, &line.parts)) {
            // Mosaics are drawn per run: without `resume`, those of other draws are dropped.
            None if !resume && !line.parts.is_empty() => settled.dropped += 1,
            None => settled.kept.push(line),
            Some(_) if !resume => {}
            Some(&at) => {
                let unit = &units.all[at];
                // A changed file invalidates the result; if a change cannot be detected, the result counts.
                let unchanged = unit.stamps.iter().zip(&line.stamps).all(|(now, then)| now.is_none() || now == then);
                let same = line.settings == unit.settings && unchanged;
                settled.outdated += usize::from(!same);
                if same && line.failures() == 0 {
                    settled.done[at] = Some(line);
                }
            }
        }
    }
    settled.kept.extend(settled.done.iter().flatten().cloned());
    settled
}

/// The net's accuracy, then the scores of each method, metrics in order.
fn scores(
    lines: &[Evaluated],
    methods: &[Asked],
    metrics: &[Measure],
    bootstrap: &Bootstrap,
    said: &Said,
) -> Result<Vec<MeanScore>> {
    let right: Vec<f64> = lines.iter().filter_map(|l| l.correct).map(|c| f64::from(u8::from(c))).collect();
    let accuracy = bootstrap.mean(&right)?;
    let mut scores = vec![MeanScore {
        method: None,
        metric: None,
        output: "accuracy".into(),
        better: Direction::Higher,
        mean: accuracy.map(|e| e.mean),
        n: accuracy.map_or(0, |e| e.n),
        estimate: accuracy,
        failed: lines.iter().filter(|l| l.error.is_some()).count(),
        difference: None,
        assumed: said.all_assumed(),
        warnings: said.all(),
    }];
    let column = |method: &Asked, name: &str| -> Vec<Option<f64>> {
        lines.iter().map(|l| l.methods.get(&method.id)?.readings.get(name).copied().flatten()).collect()
    };
    for (m, method) in methods.iter().enumerate() {
        for metric in metrics {
            let failed = lines.iter().filter_map(|l| l.methods.get(&method.id));
            let failed = failed.filter(|of| of.error.is_some() || of.errors.contains_key(&metric.id)).count();
            for output in &metric.columns {
                let values = column(method, &output.name);
                let difference = match methods.first() {
                    Some(first) if m > 0 => Some(Difference {
                        against: first.id.clone(),
                        estimate: bootstrap.difference(&values, &column(first, &output.name))?,
                    }),
                    _ => None,
                };
                let estimate = bootstrap.mean(&values.into_iter().flatten().collect::<Vec<f64>>())?;
                scores.push(MeanScore {
                    method: Some(method.id.clone()),
                    metric: Some(metric.id.clone()),
                    output: output.name.clone(),
                    better: output.better,
                    mean: estimate.map(|e| e.mean),
                    n: estimate.map_or(0, |e| e.n),
                    estimate,
                    failed,
                    difference,
                    assumed: Vec::new(),
                    warnings: Vec::new(),
                });
            }
        }
    }
    Ok(scores)
}
