//! The work itself: pictures in groups through the net, the methods and the metrics, a line each into the journal.

use std::collections::BTreeMap;

use anyhow::Result;
use verilume::Error;
use verilume::engine::Engine;
use verilume::graph::Graph;
use verilume::image::{Placement, Preprocess};
use verilume::map::Map;
use verilume::model::{Labels, Model};
use verilume::reliability::metric::{Case, Needs, Readings, Region};
use verilume::reliability::mosaic;
use verilume::report::Journal;
use verilume::report::eval::{Evaluated, Measured};
use verilume::tensor::Tensor;

use super::metrics::Measure;
use super::units::{Content, Unit, Units};
use crate::args::TargetArg;
use crate::data::{Data, Reader};
use crate::items::{Item, Net};
use crate::runner::{self, PICTURES, ROWS, SMALL};
use crate::said::{Noticed, Said};
use crate::talk::Progress;
use crate::targets::best_first;

/// A method under evaluation.
pub struct Method {
    pub id: String,
    pub method: Box<dyn verilume::method::Method>,
    /// Whether it has made a map in this run.
    proven: bool,
}

impl Method {
    /// Under the name `id`.
    pub fn new(id: String, method: Box<dyn verilume::method::Method>) -> Self {
        Self { id, method, proven: false }
    }
}

/// Everything a run holds while it goes through its pictures.
pub struct Runner<'a> {
    pub model: &'a Model,
    pub preprocess: &'a Preprocess,
    pub labels: &'a Labels,
    pub engine: Engine,
    pub data: &'a Data,
    pub reader: Reader,
    pub units: &'a Units,
    pub methods: Vec<Method>,
    pub metrics: &'a [Measure],
    pub target: TargetArg,
    pub seed: u64,
    pub journal: Journal,
    pub said: Said,
    /// By unit, its line once there is one.
    pub lines: Vec<Option<Evaluated>>,
}

/// A picture as the net sees it, and what is known of it.
struct Shown {
    /// Position of the unit.
    at: usize,
    input: Tensor,
    /// True class; on a mosaic the class asked for.
    label: Option<usize>,
    /// Classes of which any is a right prediction.
    right: Vec<usize>,
    regions: Vec<Region>,
    notes: Vec<String>,
    /// What was noticed while it was read.
    noticed: Noticed,
}

/// A picture, what the net makes of it, and its line so far.
struct Scored {
    shown: Shown,
    target: usize,
    line: Evaluated,
}

impl Runner<'_> {
    /// Goes through all units that have no line yet.
    pub fn all(&mut self, progress: &mut Progress) -> Result<()> {
        let small = self.preprocess.crop.iter().product::<usize>() <= SMALL;
        let mut waiting: Vec<Shown> = Vec::new();
        for (at, unit) in self.units.all.iter().enumerate() {
            if self.lines[at].is_some() {
                progress.pass(&format!("{}: done before", unit.name()));
                continue;
            }
            progress.at(&unit.name());
            let mut noticed = Noticed::default();
            let shown = self.show(at, unit, &mut noticed);
            self.said.note(&noticed, progress);
            match shown {
                Ok(shown) => {
                    let shown = Shown { noticed, ..shown };
                    if waiting.first().is_some_and(|first| first.input.dims() != shown.input.dims()) {
                        self.group(std::mem::take(&mut waiting), progress)?;
                    }
                    waiting.push(shown);
                }
                Err(e) => self.fail(at, (&e.to_string(), &noticed), progress)?,
            }
            let most = match unit.index {
                _ if !small => 1,
                Some(_) => ROWS,
                None => PICTURES,
            };
            if waiting.len() >= most {
                self.group(std::mem::take(&mut waiting), progress)?;
            }
        }
        self.group(waiting, progress)
    }

    /// Reads and prepares what a unit shows. What is to be said of its files goes to `noticed`, also where it then fails.
    fn show(&mut self, at: usize, unit: &Unit, noticed: &mut Noticed) -> verilume::Result<Shown> {
        let net = Net { preprocess: self.preprocess, input: self.model.default_input() };
        match unit.content {
            Content::Picture(example) => {
                let example = &self.data.examples[example];
                let label = example.class.clone().map_err(Error::input)?;
                let item = self.reader.item(self.data, example, net)?;
                noticed.extend(self.said.of(&item));
                let (regions, notes) = match &self.data.boxes {
                    None => (Vec::new(), Vec::new()),
                    Some(boxes) => {
                        let drawn = boxes.of(&self.data.sources[example.source], example.row).map_err(Error::input)?;
                        let placement = placement(&item)?;
                        let places: Vec<Option<Region>> = drawn.iter().map(|b| b.place(&placement)).collect();
                        let note = |b: &crate::data::Drawn| {
                            format!("the crop leaves nothing of the box of class {} at {:?}", b.class, b.edges)
                        };
                        let lost = drawn.iter().zip(&places).filter(|(_, place)| place.is_none());
                        let notes = lost.map(|(b, _)| note(b)).collect();
                        (places.into_iter().flatten().collect(), notes)
                    }
                };
                let right = label.into_iter().collect();
                let noticed = Noticed::default();
                Ok(Shown { at, input: item.input, label, right, regions, notes, noticed })
            }
            Content::Mosaic { number, cells, size } => {
                let mut views = Vec::with_capacity(cells.len());
                let mut classes = [0; mosaic::CELLS];
                for (class, &cell) in classes.iter_mut().zip(&cells) {
                    let example = &self.data.examples[cell];
                    let item = self.reader.item(self.data, example, net)?;
                    noticed.extend(self.said.of(&item));
                    views.push(item.view(self.preprocess)?);
                    *class = example.class.clone().map_err(Error::input)?.unwrap_or_default();
                }
                let pictures = [&views[0], &views[1], &views[2], &views[3]];
                let interpolation = self.preprocess.interpolation;
                let (picture, regions) = mosaic::compose(pictures, classes, size, interpolation)?;
                let as_it_is =
                    Preprocess { resize: 0, crop: [picture.height(), picture.width()], ..self.preprocess.clone() };
                let input = as_it_is.apply(&picture)?.tensor;
                let label = Some(classes[number % mosaic::CELLS]);
                Ok(Shown {
                    at,
                    input,
                    label,
                    right: classes.to_vec(),
                    regions,
                    notes: Vec::new(),
                    noticed: Noticed::default(),
                })
            }
        }
    }

    /// Runs net, methods and metrics on pictures of one shape.
    fn group(&mut self, shown: Vec<Shown>, progress: &mut Progress) -> Result<()> {
        let Some(first) = shown.first() else { return Ok(()) };
        let graph = match runner::input_shape(&first.input).and_then(|shape| self.model.graph(shape)) {
            Ok(graph) => graph,
            Err(e) => {
                return shown.iter().try_for_each(|s| self.fail(s.at, (&e.to_string(), &s.noticed), progress));
            }
        };
        let mut scored = self.score(&graph, shown, progress)?;
        for m in 0..self.methods.len() {
            let inputs: Vec<&Tensor> = scored.iter().map(|s| &s.shown.input).collect();
            let targets: Vec<usize> = scored.iter().map(|s| s.target).collect();
            let method = self.methods[m].method.as_ref();
            let made = runner::maps(&mut self.engine, &graph, method, &inputs, &targets);
            let mut measured = Vec::with_capacity(made.len());
            let mut maps = Vec::new();
            for (i, (made, seconds)) in made.into_iter().enumerate() {
                let mut one = Measured { seconds, ..Measured::default() };
                match made {
                    Ok(map) => {
                        self.methods[m].proven = true;
                        one.notes = map.all_notes();
                        maps.push((i, map));
                    }
                    Err(e) if !self.methods[m].proven && runner::hopeless(&e, &graph, &self.data.sources) => {
                        return Err(e.within(&self.methods[m].id).into());
                    }
                    Err(e) => one.error = Some(e.to_string()),
                }
                measured.push(one);
            }
            for metric in self.metrics {
                for (i, read) in self.measure(&graph, m, metric, &scored, &maps) {
                    match read {
                        Ok(readings) => {
                            let names = metric.columns.iter().map(|c| c.name.clone());
                            measured[i].readings.extend(names.zip(readings));
                        }
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
        scored.into_iter().try_for_each(|s| self.add(s.shown.at, s.line, progress))
    }

    /// What the net makes of pictures, and the class that is explained; those that it cannot take are recorded and left out.
    fn score(&mut self, graph: &Graph, shown: Vec<Shown>, progress: &mut Progress) -> Result<Vec<Scored>> {
        let inputs: Vec<&Tensor> = shown.iter().map(|s| &s.input).collect();
        let together = runner::batch(&inputs).and_then(|x| self.engine.forward(graph, &x));
        let mut scored = Vec::new();
        for (i, shown) in shown.into_iter().enumerate() {
            // One bad picture must not take its neighbours along.
            let logits = match &together {
                Ok(logits) => logits.item(i),
                Err(_) => runner::batch(&[&shown.input])
                    .and_then(|x| self.engine.forward(graph, &x))
                    .and_then(|logits| logits.item(0)),
            };
            let best = match logits {
                Ok(logits) => best_first(&logits.to_f64()).first().copied().unwrap_or_default(),
                Err(e) => {
                    self.fail(shown.at, (&e.to_string(), &shown.noticed), progress)?;
                    continue;
                }
            };
            let target = match (self.target, shown.label) {
                (TargetArg::Label, Some(label)) => label,
                _ => best,
            };
            let mut line = self.line(shown.at);
            line.label = shown.label;
            line.label_name = shown.label.and_then(|class| self.name(class));
            line.prediction = Some(best);
            line.prediction_name = self.name(best);
            line.correct = shown.label.map(|_| shown.right.contains(&best));
            line.target = Some(target);
            line.target_name = self.name(target);
            line.notes.clone_from(&shown.notes);
            line.assumed.extend(shown.noticed.assumed.iter().cloned());
            line.warnings.extend(shown.noticed.warnings.iter().cloned());
            scored.push(Scored { shown, target, line });
        }
        Ok(scored)
    }

    /// Readings of one metric on the maps of method `m` (each with the position of its picture), of all together or, where that
    /// fails, of each by itself.
    fn measure(
        &mut self,
        graph: &Graph,
        m: usize,
        metric: &Measure,
        scored: &[Scored],
        maps: &[(usize, Map)],
    ) -> Vec<(usize, verilume::Result<Readings>)> {
        let suits = |s: &Shown| match metric.spec.entry.needs {
            Needs::Maps => true,
            Needs::Labels => s.label.is_some(),
            Needs::Regions => !s.regions.is_empty(),
            Needs::Mosaic => s.regions.iter().any(|r| r.class != s.regions[0].class),
        };
        let (some, others): (Vec<_>, Vec<_>) = maps.iter().partition(|(i, _)| suits(&scored[*i].shown));
        let none = |(i, _): &(usize, Map)| (*i, Ok(vec![None; metric.columns.len()]));
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
        metric: &Measure,
        scored: &[Scored],
        maps: &[&(usize, Map)],
    ) -> verilume::Result<Vec<Readings>> {
        let shown: Vec<&Scored> = maps.iter().map(|(i, _)| &scored[*i]).collect();
        let x = runner::batch(&shown.iter().map(|s| &s.shown.input).collect::<Vec<_>>())?;
        let targets: Vec<usize> = shown.iter().map(|s| s.target).collect();
        let labels: Option<Vec<usize>> = shown.iter().map(|s| s.shown.label).collect();
        let regions: Vec<Vec<Region>> = shown.iter().map(|s| s.shown.regions.clone()).collect();
        let maps: Vec<Map> = maps.iter().map(|(_, map)| map.clone()).collect();
        let case = Case {
            graph,
            preprocess: self.preprocess,
            x: &x,
            targets: &targets,
            labels: labels.as_deref(),
            regions: regions.iter().any(|r| !r.is_empty()).then_some(&regions[..]),
            method: self.methods[m].method.as_ref(),
            maps: &maps,
            seed: self.seed,
        };
        let readings = metric.metric.measure(&mut self.engine, &case)?;
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

    fn name(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    /// A line that says nothing yet.
    fn line(&self, at: usize) -> Evaluated {
        let unit = &self.units.all[at];
        Evaluated {
            input: unit.input.clone(),
            index: unit.index,
            parts: unit.parts.clone(),
            label: None,
            label_name: None,
            prediction: None,
            prediction_name: None,
            correct: None,
            target: None,
            target_name: None,
            methods: BTreeMap::new(),
            notes: Vec::new(),
            error: None,
            settings: unit.settings.clone(),
            stamps: unit.stamps.clone(),
            assumed: self.said.assumed.clone(),
            warnings: self.said.warnings.clone(),
            record_version: verilume::report::RECORD_VERSION,
        }
    }

    fn fail(&mut self, at: usize, (why, noticed): (&str, &Noticed), progress: &mut Progress) -> Result<()> {
        let mut line = Evaluated { error: Some(why.to_owned()), ..self.line(at) };
        line.assumed.extend(noticed.assumed.iter().cloned());
        line.warnings.extend(noticed.warnings.iter().cloned());
        self.add(at, line, progress)
    }

    /// Keeps a line: it is in the journal before anybody hears of it.
    fn add(&mut self, at: usize, line: Evaluated, progress: &mut Progress) -> Result<()> {
        self.journal.append(std::slice::from_ref(&line))?;
        let name = self.units.all[at].name();
        if let Some(why) = &line.error {
            progress.say(&format!("{name}: failed: {why}"));
        }
        for (method, measured) in &line.methods {
            let map = measured.error.iter().map(|why| (method.clone(), why));
            let metrics = measured.errors.iter().map(|(metric, why)| (format!("{method}, {metric}"), why));
            for (what, why) in map.chain(metrics) {
                progress.say(&format!("{name}: {what}: {why}"));
            }
        }
        for note in &line.notes {
            progress.say(&format!("{name}: {note}"));
        }
        let said = match (&line.error, line.correct) {
            (Some(_), _) => "failed",
            (None, Some(true)) => "right",
            (None, Some(false)) => "wrong",
            (None, None) => "done",
        };
        progress.pass(&format!("{name}: {said}"));
        self.lines[at] = Some(line);
        Ok(())
    }
}

/// Where an item's picture lies in its input; numbers that never were a picture are their own.
fn placement(item: &Item) -> verilume::Result<Placement> {
    match (item.placement, item.dims.as_slice()) {
        (Some(placement), _) => Ok(placement),
        (None, &[_, h, w]) => Ok(Placement::identity([h, w])),
        (None, dims) => Err(Error::input(format!("an input of shape {dims:?} has no place for a box"))),
    }
}
