//! The work itself: inputs in groups through the net and the attacks, results into files and the book.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use verilume::Error;
use verilume::engine::{Batch, Engine};
use verilume::graph::Graph;
use verilume::image::{Picture, Preprocess};
use verilume::map::{Map, channel_mean_abs};
use verilume::model::{Labels, Model};
use verilume::program::Score;
use verilume::reliability::attack::{Adversarial, Attack, Quantised, Wanted, linf_levels, quantise};
use verilume::reliability::similarity::{spearman, top_k_intersection};
use verilume::report::{FileStatus, Journal, Prediction, RECORD_VERSION, Stamp, Status};
use verilume::tensor::{Shape, Tensor};

use super::record::{AttackLine, AttackRecord, MapsCompared, Table};
use super::{Compared, Ready, parameters};
use crate::args::attack::AttackFormat;
use crate::arrays::ArrayFile;
use crate::inputs::Source;
use crate::items::{Item, Net, fit};
use crate::keeper::Keeper;
use crate::methods::fingerprint;
use crate::outputs::{self, RawFile, RawFiles, RawFormat};
use crate::paths;
use crate::runner::hopeless;
use crate::said::{Noticed, Said};
use crate::talk::{Answer, Beside, Progress};
use crate::targets::{Targets, best_first, least};

/// Rows of an array that go through the net together.
const ROWS: usize = 16;
/// Pictures that go through the net together when they are small.
const PICTURES: usize = 8;
/// Elements of one channel up to which a picture is small.
const SMALL: usize = 64 * 64;
/// Classes that a record lists.
const LISTED: usize = 5;

#[derive(Default)]
struct Tally {
    items: usize,
    made: usize,
    succeeded: usize,
    failed: HashSet<Option<usize>>,
    error: Option<String>,
}

/// What became of every source.
#[derive(Clone)]
struct Tallies(Arc<Mutex<Vec<Tally>>>);

impl Tallies {
    fn all(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, at: usize, record: &AttackRecord) {
        let tally = &mut self.all()[at];
        match &record.error {
            Some(why) => {
                tally.failed.insert(record.index);
                tally.error.get_or_insert_with(|| why.clone());
            }
            None => {
                tally.made += 1;
                tally.succeeded += usize::from(record.succeeded == Some(true));
            }
        }
    }
}

/// Keeps the records of a run.
pub struct Book {
    keeper: Keeper<AttackLine>,
    tallies: Tallies,
    /// Where the sources are.
    places: Vec<Option<String>>,
    /// What every record says of the run.
    pub said: Said,
}

impl Book {
    /// An empty book over sources at `places`; without a table records are shown as JSON.
    pub fn new(
        journal: Journal,
        table: Option<Table>,
        beside: Beside,
        places: Vec<Option<String>>,
        said: Said,
    ) -> Self {
        let tallies = places.iter().map(|_| Tally { items: 1, ..Tally::default() }).collect();
        let tallies = Tallies(Arc::new(Mutex::new(tallies)));
        let (late, mut table, mut answer) = (tallies.clone(), table, Answer::default());
        // What was taken for done is a failure where its files have vanished before they were on disk.
        let listener = move |at: usize, line: &AttackLine, lost: bool| {
            let record = &line.record;
            if lost {
                let tally = &mut late.all()[at];
                tally.made -= 1;
                tally.succeeded -= usize::from(record.succeeded == Some(true));
                tally.failed.insert(record.index);
                tally.error = tally.error.take().or_else(|| record.error.clone());
            }
            beside.aside(|| match &mut table {
                None => answer.line(&serde_json::to_string(record)?),
                Some(table) => {
                    if let Some(heading) = table.heading() {
                        answer.line(&heading)?;
                    }
                    answer.line(&table.line(record))
                }
            })
        };
        Self { keeper: Keeper::new(journal, Box::new(listener)), tallies, places, said }
    }

    /// Records a result: its files are on disk and it is in the journal before anybody sees it.
    fn add(
        &mut self,
        at: usize,
        mut record: AttackRecord,
        (stamp, part): (Option<Stamp>, Option<String>),
    ) -> Result<()> {
        self.said.write(&mut record.assumed, &mut record.warnings);
        self.tallies.count(at, &record);
        let place = self.places.get(at).cloned().flatten();
        self.keeper.add(at, AttackLine { record, stamp, place, part })
    }

    /// Writes down what is left. Nothing can be added any more.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn close(&mut self) -> Result<()> {
        self.keeper.close()
    }

    /// What became of every source.
    pub fn statuses(&self, sources: &[Source]) -> Vec<FileStatus> {
        let status = |(tally, source): (&Tally, &Source)| FileStatus {
            input: source.shown.clone(),
            status: if tally.failed.is_empty() { Status::Done } else { Status::Failed },
            items: tally.items,
            failed_items: if tally.failed.contains(&None) { tally.items } else { tally.failed.len() },
            error: tally.error.clone(),
        };
        self.tallies.all().iter().zip(sources).map(status).collect()
    }

    /// Attacks made, those that succeeded, sources with a failure.
    pub fn totals(&self) -> (usize, usize, usize) {
        let sum = |f: fn(&Tally) -> usize| self.tallies.all().iter().map(f).sum();
        (sum(|t| t.made), sum(|t| t.succeeded), sum(|t| usize::from(!t.failed.is_empty())))
    }

    fn summary(&self, at: usize, source: &Source) -> String {
        let tally = &self.tallies.all()[at];
        match (&tally.error, tally.made) {
            (Some(why), 0) => format!("failed: {why}"),
            (Some(_), made) => {
                format!("{}: {made} done, {} of {} inputs failed", source.shown, tally.failed.len(), tally.items)
            }
            (None, made) => format!("{}: {} of {made} succeeded", source.shown, tally.succeeded),
        }
    }
}

/// An item and what the net makes of it.
struct Scored {
    item: Item,
    logits: Vec<f64>,
    class: usize,
}

/// What came of one attack on one item, and how long it took.
type Attacked = (verilume::Result<Adversarial>, f64);

/// What was found for item `at`, as numbers and, where one is wanted, as a picture and what the net sees of it.
struct Outcome {
    at: usize,
    found: Adversarial,
    quantised: Option<verilume::Result<(Picture, Tensor)>>,
}

/// The array that a group of rows comes from.
struct Rows {
    single: bool,
    files: RawFiles,
    /// By attack, the key of its raw files; none for a single input.
    keys: Vec<String>,
}

/// Position of a source, what is to be recorded of it, and the key of the raw files that it counts on.
type Held = (usize, AttackRecord, Option<String>);

/// Everything a run holds while it goes through its inputs.
pub struct Runner<'a> {
    pub model: &'a Model,
    pub preprocess: &'a Preprocess,
    pub labels: &'a Labels,
    pub targets: Targets,
    pub engine: Engine,
    pub attacks: &'a mut [Ready],
    pub compared: Vec<Compared>,
    pub formats: Vec<AttackFormat>,
    pub out: &'a Path,
    pub sources: &'a [Source],
    /// Files that no result may take the place of.
    pub read: HashSet<PathBuf>,
    /// Results of other inputs.
    pub others: HashSet<PathBuf>,
    pub book: Book,
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
            match Item::picture(at, source, self.net()) {
                Ok(item) => {
                    self.book.said.hear(&item, progress);
                    waiting.push(item);
                }
                Err(e) => {
                    self.fail(at, None, &e.to_string())?;
                    progress.step(&self.book.summary(at, source));
                }
            }
            if waiting.len() >= most {
                self.pictures(std::mem::take(&mut waiting), progress)?;
            }
        }
        self.pictures(waiting, progress)
    }

    fn net(&self) -> Net<'_> {
        Net { preprocess: self.preprocess, input: self.model.default_input() }
    }

    fn fail(&mut self, at: usize, row: Option<usize>, why: &str) -> Result<()> {
        let record = AttackRecord::failed(&self.sources[at].shown, row, why);
        self.book.add(at, record, (self.sources[at].stamp, None))
    }

    /// As [`fail`](Self::fail), of an input that could be read.
    fn fail_item(&mut self, item: &Item, why: &str) -> Result<()> {
        let Noticed { assumed, warnings, .. } = self.book.said.of(item);
        let source = &self.sources[item.source];
        let record = AttackRecord { assumed, warnings, ..AttackRecord::failed(&source.shown, item.row, why) };
        self.book.add(item.source, record, (source.stamp, None))
    }

    fn pictures(&mut self, items: Vec<Item>, progress: &mut Progress) -> Result<()> {
        let at: Vec<usize> = items.iter().map(|i| i.source).collect();
        let held = self.group(items, None)?;
        self.write_down(held)?;
        for at in at {
            progress.step(&self.book.summary(at, &self.sources[at]));
        }
        Ok(())
    }

    fn array(&mut self, at: usize, source: &Source, progress: &mut Progress) -> Result<()> {
        let mut array = match ArrayFile::open(&source.path) {
            Ok(array) => array,
            Err(e) => return self.fail(at, None, &e.to_string()),
        };
        if !array.has_levels()
            && let Err(e) = fit(array.dims(), self.model.default_input())
        {
            return self.fail(at, None, &e.within(&source.shown).to_string());
        }
        let count = array.rows();
        self.book.tallies.all()[at].items = count;
        let key = |ready: &Ready| fingerprint(&serde_json::json!([ready.settings, source.stamp, count]));
        let keys = if array.is_single() { Vec::new() } else { self.attacks.iter().map(key).collect() };
        let mut rows = Rows { single: array.is_single(), files: RawFiles::new(count), keys };
        let mut last = Vec::new();
        for first in (0..count).step_by(ROWS) {
            // Until the array's files are in place records count on their parts. The last group waits: that they could not
            // be put there is recorded.
            self.write_down(std::mem::take(&mut last))?;
            progress.at(&format!("{} [{first} of {count}]", source.shown));
            let mut items = Vec::new();
            for row in first..count.min(first + ROWS) {
                let item = Item::row(at, source, &mut array, row, self.net());
                match item {
                    Ok(item) => {
                        self.book.said.hear(&item, progress);
                        items.push(item);
                    }
                    Err(e) => self.fail(at, Some(row), &e.to_string())?,
                }
            }
            last = self.group(items, Some(&mut rows))?;
        }
        if let Err(e) = rows.files.finish() {
            for (_, record, _) in &mut last {
                record.error = Some(e.to_string());
            }
        }
        self.write_down(last)
    }

    fn write_down(&mut self, records: Vec<Held>) -> Result<()> {
        let stamp = |at: usize| self.sources[at].stamp;
        records.into_iter().try_for_each(|(at, record, part)| self.book.add(at, record, (stamp(at), part)))
    }

    /// Runs all attacks on items of one shape. Returns the records that have to wait until files are complete.
    fn group(&mut self, mut items: Vec<Item>, mut rows: Option<&mut Rows>) -> Result<Vec<Held>> {
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let graph = match input_shape(&first.input).and_then(|shape| self.model.graph(shape)) {
            Ok(graph) => graph,
            Err(e) => {
                for item in &items {
                    self.fail_item(item, &e.to_string())?;
                }
                return Ok(Vec::new());
            }
        };
        // Files hold single precision: what is attacked is what they can hold, so that epsilon holds for them.
        for item in &mut items {
            item.input = Tensor::f32(item.input.dims(), item.input.to_f32().into_owned())?;
        }
        let scored = self.score(&graph, items)?;
        if scored.is_empty() {
            return Ok(Vec::new());
        }
        let originals: Vec<&Tensor> = scored.iter().map(|s| &s.item.input).collect();
        let mut before = Vec::new();
        for m in 0..self.compared.len() {
            let maps = self.maps(&graph, m, &originals, &scored);
            for map in &maps {
                match map {
                    Ok(_) => self.compared[m].proven = true,
                    Err(e) if !self.compared[m].proven && hopeless(e, &graph, self.sources) => {
                        anyhow::bail!("-m {}: {e}", self.compared[m].spec);
                    }
                    Err(_) => {}
                }
            }
            before.push(maps);
        }
        let mut held = Vec::new();
        for a in 0..self.attacks.len() {
            let wanted: Vec<Option<usize>> = scored.iter().map(|s| self.wanted(a, s)).collect();
            let every: Vec<usize> = (0..scored.len()).collect();
            let mut records = Vec::with_capacity(scored.len());
            let mut outcomes = Vec::with_capacity(scored.len());
            for (i, (made, seconds)) in self.attack(&graph, a, &scored, &wanted, &every).into_iter().enumerate() {
                match &made {
                    Ok(_) => self.attacks[a].proven = true,
                    Err(e) if !self.attacks[a].proven && hopeless(e, &graph, self.sources) => {
                        return made.map(|_| Vec::new()).map_err(|e| e.within(&self.attacks[a].id).into());
                    }
                    Err(_) => {}
                }
                let mut record = self.record(a, &scored[i], wanted[i], seconds);
                match made {
                    Ok(found) => {
                        self.describe(&scored[i], &found, &mut record);
                        outcomes.push(Outcome { at: i, found, quantised: None });
                    }
                    Err(e) => record.error = Some(e.to_string()),
                }
                records.push(record);
            }
            if self.formats.contains(&AttackFormat::Png) {
                self.quantise(&graph, a, &scored, &mut outcomes, &mut records);
            }
            for outcome in &outcomes {
                let (s, record) = (&scored[outcome.at], &mut records[outcome.at]);
                if let Err(e) = self.write(outcome, (a, s), rows.as_deref_mut(), record) {
                    record.error = Some(e.to_string());
                }
            }
            for (m, maps) in before.iter().enumerate() {
                self.compare(&graph, (m, a), &scored, maps, &outcomes, &mut records);
            }
            let raw = self.formats.iter().any(|&format| format != AttackFormat::Png);
            let part = rows.as_deref().filter(|_| raw).and_then(|rows| rows.keys.get(a).cloned());
            held.extend(scored.iter().zip(records).map(|(s, record)| (s.item.source, record, part.clone())));
            if rows.is_none() {
                self.write_down(std::mem::take(&mut held))?;
            }
        }
        Ok(held)
    }

    /// The net's logits and the class attacked; items that it cannot take are recorded and left out.
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
                let logits = logits.to_f64().into_owned();
                let class = self.targets.of(source, item.row, &logits)?.first().copied();
                Ok((class.ok_or_else(|| Error::model("the net has no classes"))?, logits))
            });
            match made {
                Ok((class, logits)) => {
                    let predicted = best_first(&logits).first().copied();
                    self.book.said.compare(&item, self.targets.listed(&[class]), predicted);
                    scored.push(Scored { item, logits, class });
                }
                Err(e) => self.fail_item(&item, &e.to_string())?,
            }
        }
        Ok(scored)
    }

    fn forward(&mut self, graph: &Graph, inputs: &[&Tensor]) -> verilume::Result<Tensor> {
        self.engine.forward(graph, &batch(inputs)?)
    }

    /// The class that an attack wants to be predicted.
    fn wanted(&self, a: usize, s: &Scored) -> Option<usize> {
        match self.attacks[a].attack.wanted() {
            None | Some(Wanted::Other) => None,
            Some(Wanted::Class(_)) => self.attacks[a].wanted,
            Some(Wanted::Least) => least(&s.logits),
        }
    }

    /// One result for each of the items `which`.
    fn attack(
        &mut self,
        graph: &Graph,
        a: usize,
        scored: &[Scored],
        wanted: &[Option<usize>],
        which: &[usize],
    ) -> Vec<Attacked> {
        let started = Instant::now();
        let inputs: Vec<&Tensor> = which.iter().map(|&i| &scored[i].item.input).collect();
        let classes: Vec<usize> = which.iter().map(|&i| wanted[i].unwrap_or(scored[i].class)).collect();
        let (engine, attack) = (&mut self.engine, &self.attacks[a].attack);
        let made = batch(&inputs).and_then(|x| attack.run(engine, graph, self.preprocess, &x, &classes));
        let seconds = started.elapsed().as_secs_f64() / which.len().max(1) as f64;
        match made {
            Ok(found) => found.into_iter().map(|found| (Ok(found), seconds)).collect(),
            Err(e) if which.len() <= 1 => vec![(Err(e), seconds)],
            Err(_) => which.iter().flat_map(|&i| self.attack(graph, a, scored, wanted, &[i])).collect(),
        }
    }

    /// A map of each input, one for each of the items.
    fn maps(&mut self, graph: &Graph, m: usize, inputs: &[&Tensor], items: &[Scored]) -> Vec<verilume::Result<Map>> {
        let classes: Vec<usize> = items.iter().map(|s| s.class).collect();
        self.maps_of(graph, m, inputs, &classes)
    }

    fn maps_of(
        &mut self,
        graph: &Graph,
        m: usize,
        inputs: &[&Tensor],
        classes: &[usize],
    ) -> Vec<verilume::Result<Map>> {
        if inputs.is_empty() {
            return Vec::new();
        }
        let (engine, method) = (&mut self.engine, &self.compared[m].method);
        let made = batch(inputs).and_then(|x| method.explain(engine, graph, &x, classes));
        match made {
            Ok(maps) if maps.len() == inputs.len() => maps.into_iter().map(Ok).collect(),
            Ok(_) => inputs.iter().map(|_| Err(Error::device("a method gave too few maps"))).collect(),
            Err(e) if inputs.len() == 1 => vec![Err(e)],
            // One bad input must not take its neighbours along.
            Err(_) => {
                let each = inputs.iter().zip(classes);
                each.flat_map(|(input, &class)| self.maps_of(graph, m, &[input], &[class])).collect()
            }
        }
    }

    fn record(&self, a: usize, s: &Scored, wanted: Option<usize>, seconds: f64) -> AttackRecord {
        let ready = &self.attacks[a];
        let noticed = self.book.said.of(&s.item);
        AttackRecord {
            assumed: noticed.assumed,
            input: self.sources[s.item.source].shown.clone(),
            index: s.item.row,
            attack: Some(ready.id.clone()),
            parameters: parameters(&ready.spec),
            target: Some(s.class),
            warnings: noticed.warnings,
            target_label: self.label(s.class),
            wanted,
            wanted_label: wanted.and_then(|class| self.label(class)),
            prediction_before: self.prediction(&s.logits),
            seconds,
            peak_bytes: self.engine.peak_bytes(),
            record_version: RECORD_VERSION,
            ..AttackRecord::default()
        }
    }

    fn label(&self, class: usize) -> Option<String> {
        self.labels.get(class).map(str::to_owned)
    }

    fn prediction(&self, logits: &[f64]) -> Vec<Prediction> {
        let p = Score::Prob.of_all(self.model.unfolded().link(), logits);
        let of = |&index: &usize| Prediction { index, label: self.label(index), score: p[index] };
        best_first(logits).iter().take(LISTED).map(of).collect()
    }

    /// Fills in what the attack itself says.
    fn describe(&self, s: &Scored, found: &Adversarial, record: &mut AttackRecord) {
        let [was, is] = found.predicted();
        record.prediction_after = self.prediction(&found.logits[1]);
        record.flipped = Some(was != is);
        record.succeeded = Some(found.succeeded);
        record.objective_before = Some(found.objective[0]);
        record.objective_after = Some(found.objective[1]);
        record.iterations = Some(found.iterations);
        record.linf = Some(found.linf);
        record.linf_levels = linf_levels(&found.picture, &s.item.input, self.preprocess).ok();
    }

    /// Makes pictures of levels and fills in what the net says of them.
    fn quantise(
        &mut self,
        graph: &Graph,
        a: usize,
        scored: &[Scored],
        outcomes: &mut [Outcome],
        records: &mut [AttackRecord],
    ) {
        for outcome in outcomes {
            let s = &scored[outcome.at];
            let made = self.quantised(graph, (a, s), &outcome.found.picture);
            if let Ok((q, logits)) = &made {
                let record = &mut records[outcome.at];
                let (is, was) = (best_first(logits).first().copied(), best_first(&s.logits).first().copied());
                record.flipped_png = Some(is != was);
                record.succeeded_png = Some(match (&self.attacks[a].attack, record.wanted) {
                    (Attack::Map(_), _) => is == was,
                    (_, Some(class)) => is == Some(class),
                    (_, None) => is != Some(s.class),
                });
                record.prediction_png = Some(self.prediction(logits));
                record.linf_png = Some(q.linf);
                record.linf_png_levels = Some(q.linf_levels);
            }
            outcome.quantised = Some(made.and_then(|(q, _)| {
                let seen = q.tensor.reshape(s.item.input.dims())?;
                Ok((q.picture, seen))
            }));
        }
    }

    /// The picture of levels and the net's logits on it.
    fn quantised(
        &mut self,
        graph: &Graph,
        (a, s): (usize, &Scored),
        adversarial: &Tensor,
    ) -> verilume::Result<(Quantised, Vec<f64>)> {
        let dims = s.item.drawn_dims(self.preprocess)?;
        let [original, adversarial] = [&s.item.input, adversarial].map(|t| t.clone().reshape(dims));
        let epsilon = self.attacks[a].attack.epsilon();
        let q = quantise(&original?, &adversarial?, epsilon, self.preprocess)
            .map_err(|e| e.within("no .png can be written"))?;
        let seen = q.tensor.clone().reshape(s.item.input.dims())?;
        let logits = self.forward(graph, &[&seen])?.item(0)?.to_f64().into_owned();
        Ok((q, logits))
    }

    fn write(
        &self,
        outcome: &Outcome,
        (a, s): (usize, &Scored),
        mut rows: Option<&mut Rows>,
        record: &mut AttackRecord,
    ) -> verilume::Result<()> {
        let id = self.attacks[a].id.as_str();
        let several = rows.as_deref().is_some_and(|rows| !rows.single);
        for &format in &self.formats {
            let raw = match format {
                AttackFormat::Npy => RawFormat::Npy,
                AttackFormat::Safetensors => RawFormat::SafetensorsInput,
                AttackFormat::Png => {
                    let picture = match &outcome.quantised {
                        Some(Ok((picture, _))) => picture,
                        Some(Err(e)) => return Err(Error::new(e.kind(), e.to_string())),
                        None => continue,
                    };
                    let path = outputs::path(self.out, &s.item.stem, &[id, "png"]);
                    self.spare(&path)?;
                    outputs::write_png(&path, picture)?;
                    record.files.push(paths::shown(&path));
                    continue;
                }
            };
            let stem = if several { &self.sources[s.item.source].stem } else { &s.item.stem };
            let path = outputs::path(self.out, stem, &[id, raw.extension()]);
            self.spare(&path)?;
            let values = outcome.found.picture.to_f32();
            match rows.as_deref_mut() {
                Some(rows) if several => {
                    let row = s.item.row.unwrap_or(0);
                    rows.files.push((&path, Some(&rows.keys[a])), raw, row, &s.item.dims, &values)?
                }
                _ => {
                    let mut file = RawFile::create((&path, None), raw, None, &s.item.dims)?;
                    file.push(0, &values)?;
                    file.finish()?;
                }
            }
            record.files.push(paths::shown(&path));
        }
        Ok(())
    }

    /// Refuses a result in the place of a file that this run reads.
    fn spare(&self, path: &Path) -> verilume::Result<()> {
        match path.canonicalize() {
            Ok(place) if self.read.contains(&place) => Err(Error::input(format!(
                "{}: the result would take the place of a file that this run reads; give another folder with -o",
                path.display()
            ))),
            Ok(place) if self.others.contains(&place) => Err(Error::input(format!(
                "{}: the result would take the place of another input's; give another folder with -o",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// How alike the maps of the originals, the adversarial inputs and their pictures are.
    fn compare(
        &mut self,
        graph: &Graph,
        (m, a): (usize, usize),
        scored: &[Scored],
        before: &[verilume::Result<Map>],
        outcomes: &[Outcome],
        records: &mut [AttackRecord],
    ) {
        // Numbers first, then pictures, in the order of the outcomes.
        let seen = |o: &Outcome| o.quantised.as_ref().and_then(|q| q.as_ref().ok()).is_some();
        let mut inputs: Vec<&Tensor> = outcomes.iter().map(|o| &o.found.picture).collect();
        inputs.extend(outcomes.iter().flat_map(|o| o.quantised.iter().flatten().map(|(_, seen)| seen)));
        let numbers = outcomes.iter().map(|o| scored[o.at].class);
        let pictures = outcomes.iter().filter(|o| seen(o)).map(|o| scored[o.at].class);
        let classes: Vec<usize> = numbers.chain(pictures).collect();
        let mut maps = self.maps_of(graph, m, &inputs, &classes);
        let mut of_pictures = maps.split_off(outcomes.len()).into_iter();
        for (outcome, after) in outcomes.iter().zip(maps) {
            let png = if seen(outcome) { of_pictures.next() } else { None };
            let (s, record) = (&scored[outcome.at], &mut records[outcome.at]);
            let compared = match &before[outcome.at] {
                Ok(before) => self.alike((m, a, s), before, after, png),
                Err(e) => Err(Error::new(e.kind(), e.to_string())),
            };
            match compared {
                Ok(compared) => record.maps.push(compared),
                Err(e) => {
                    let why = format!("-m {}: {e}", self.compared[m].spec);
                    record.error.get_or_insert(why);
                }
            }
        }
    }

    fn alike(
        &self,
        (m, a, s): (usize, usize, &Scored),
        before: &Map,
        after: verilume::Result<Map>,
        png: Option<verilume::Result<Map>>,
    ) -> verilume::Result<MapsCompared> {
        // One number a pixel, where the input has pixels.
        let plane = |map: &Map| {
            let drawn = s.item.drawn(map, self.preprocess);
            channel_mean_abs(&drawn.as_ref().unwrap_or(map).values)
        };
        let original = plane(before)?;
        let pixels = s.item.input.len() / s.item.input.dims().first().copied().unwrap_or(1).max(1);
        let k = match &self.attacks[a].attack {
            // The attack's own k where the map has the pixels that it counts.
            Attack::Map(attack) if original.len() == pixels => attack.objective.top_k(pixels),
            _ => (original.len() / 50).max(1),
        };
        let share = k as f64 / original.len() as f64;
        let of = |map: Map| -> verilume::Result<(Option<f64>, Option<f64>)> {
            let map = plane(&map)?;
            let spearman = spearman(&original, &map)?;
            let top = spearman.map(|_| top_k_intersection(&original, &map, share)).transpose()?;
            Ok((top, spearman))
        };
        let after = after?;
        let notes_after = after.all_notes();
        let (top_k_intersection, spearman) = of(after)?;
        let png = png.transpose()?.map(of).transpose()?;
        Ok(MapsCompared {
            method: self.compared[m].spec.clone(),
            k,
            top_k_intersection,
            spearman,
            top_k_intersection_png: png.and_then(|p| p.0),
            spearman_png: png.and_then(|p| p.1),
            notes: before.all_notes(),
            notes_after,
        })
    }
}

fn batch(inputs: &[&Tensor]) -> verilume::Result<Batch> {
    Batch::of(inputs.iter().map(|&t| t.clone()).collect())
}

fn input_shape(input: &Tensor) -> verilume::Result<Shape> {
    match *input.dims() {
        [c, h, w] => Ok(Shape::new(c, h, w)),
        _ => Err(Error::input(format!("an input of shape {:?}", input.dims()))),
    }
}
