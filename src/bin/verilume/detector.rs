//! `verilume detector`: trains and applies detectors of attacked pictures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use verilume::engine::{Batch, Engine};
use verilume::graph::Graph;
use verilume::image::Preprocess;
use verilume::method::{Context, Spec};
use verilume::model::{Labels, Model};
use verilume::program::Score;
use verilume::reliability::auc::Interval;
use verilume::reliability::bootstrap::Bootstrap;
use verilume::reliability::detector::{
    Attack, Detector, Example, Features, Kind, Laboratory, Origin, Part, Provenance, Rounding, SIDE, Specimen,
    Training, Verdict, train,
};
use verilume::report::{Versioned, replace};
use verilume::tensor::{Shape, Tensor};
use verilume::{Error, ErrorKind};

use crate::args::{ApplyArgs, DetectorArgs, DetectorCommand, TrainArgs};
use crate::computing;
use crate::inputs::{self, Inputs, Source};
use crate::items::{self, Net};
use crate::outputs;
use crate::paths;
use crate::plan;
use crate::said::{Noticed, Said};
use crate::stream::{Read, Stream, usual_shape};
use crate::talk::{Answer, Progress, Voice, counted, message};
use crate::targets::best_first;

/// Some inputs could not be used.
const SOME_FAILED: u8 = 1;
/// Nothing could be done.
const NOTHING_DONE: u8 = 2;

/// Pictures that go through the net together; each has some attacked versions beside it.
const TOGETHER: usize = 16;

/// Runs the command.
pub fn run(args: &DetectorArgs) -> Result<ExitCode> {
    match &args.command {
        DetectorCommand::Train(args) => train_one(args),
        DetectorCommand::Apply(args) => apply(args),
    }
}

/// The features of a detector for one net, and what is to be said of the files that they are made with.
fn features(spec: &Spec, preprocess: &Preprocess, seed: u64) -> Result<(Features, Noticed)> {
    let noticed = RefCell::default();
    let load = |path: &Path| items::load(path, preprocess, &noticed);
    let context = Context { seed, score: Score::Logit, preprocess, load: &load };
    let features = Features::new(spec, &context, SIDE).map_err(|e| e.within(format!("-m {spec}")))?;
    Ok((features, noticed.into_inner()))
}

/// Examples in the making.
struct Collection<'a> {
    model: &'a Model,
    preprocess: &'a Preprocess,
    features: &'a Features,
    kinds: &'a [Kind],
    seed: u64,
    engine: Engine,
    /// The net for inputs of the size that most have.
    graph: Option<Arc<Graph>>,
    specimens: Vec<Specimen>,
    failed: usize,
    said: Said,
}

/// A picture, its attacked version and its class, where these are known.
type Pair = (Tensor, Option<Tensor>, Option<usize>);

impl Collection<'_> {
    /// The input if it has the size of those before it; the first makes the net.
    fn fitting(&mut self, input: Tensor) -> verilume::Result<Tensor> {
        let &[c, h, w] = input.dims() else {
            return Err(Error::input(format!("an input of shape {:?}", input.dims())));
        };
        let graph = match &self.graph {
            Some(graph) => graph,
            None => self.graph.insert(self.model.graph(Shape::new(c, h, w))?),
        };
        match graph.input_shape() {
            shape if input.dims() == shape.dims() => Ok(input),
            shape => Err(Error::input(format!("an input of shape {:?} among those of {shape}", input.dims()))),
        }
    }

    /// A picture and, where they are given, its attacked version.
    fn pair(&mut self, clean: Read, attacked: Option<Read>, progress: &Progress) -> verilume::Result<Pair> {
        let both = [Some(&clean), attacked.as_ref()].into_iter().flatten();
        both.filter_map(|read| read.item.as_ref().ok()).for_each(|item| self.said.hear(item, progress));
        let item = clean.item?;
        let clean = self.fitting(item.input)?;
        let attacked = attacked.map(|read| self.fitting(read.item?.input)).transpose()?;
        Ok((clean, attacked, item.label))
    }

    fn add(&mut self, pairs: Vec<Pair>) -> Result<()> {
        let Some(graph) = self.graph.clone().filter(|_| !pairs.is_empty()) else { return Ok(()) };
        let labels: Vec<Option<usize>> = pairs.iter().map(|pair| pair.2).collect();
        let (clean, attacked): (Vec<Tensor>, Vec<Option<Tensor>>) =
            pairs.into_iter().map(|(clean, attacked, _)| (clean, attacked)).unzip();
        let attacked: Option<Vec<Tensor>> = attacked.into_iter().collect();
        let laboratory = Laboratory {
            graph: &graph,
            preprocess: self.preprocess,
            features: self.features,
            kinds: self.kinds,
            seed: self.seed,
        };
        let found = laboratory.specimens(&mut self.engine, &Batch::of(clean)?, attacked.as_deref())?;
        for (specimen, label) in found.iter().zip(labels) {
            label.into_iter().for_each(|label| self.said.count(label == specimen.predicted));
        }
        self.specimens.extend(found);
        Ok(())
    }

    fn of(&self, part: Part) -> impl Iterator<Item = &Specimen> {
        self.specimens.iter().filter(move |s| s.part == part)
    }

    /// Clean ones, and attacked ones of the kinds that are learnt.
    fn examples(&self, part: Part) -> Vec<Example> {
        let mut all = Vec::new();
        for specimen in self.of(part) {
            all.push(Example { maps: specimen.clean.clone(), attacked: false });
            let learnt = specimen.attacked.iter().zip(self.kinds).filter(|(_, kind)| !kind.held_out);
            all.extend(learnt.filter_map(|(maps, _)| Some(Example { maps: maps.clone()?, attacked: true })));
        }
        all
    }
}

/// What became of one kind of attacked versions.
#[derive(Serialize)]
struct KindRow {
    attack: String,
    held_out: bool,
    /// Pictures that were attacked, and those of them on which the prediction changed.
    tried: usize,
    flipped: usize,
    /// Clean and attacked pictures that the AUC is of.
    test: [usize; 2],
    auc: Option<Interval>,
}

/// What `train` says.
#[derive(Serialize)]
struct Trained {
    detector: String,
    model: String,
    method: String,
    pictures: Pictures,
    failed: usize,
    epochs: usize,
    best_epoch: usize,
    validation_auc: f64,
    seed: u64,
    attacks: Vec<KindRow>,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assumed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Pictures of each part.
#[derive(Serialize)]
struct Pictures {
    training: usize,
    validation: usize,
    test: usize,
}

fn train_one(args: &TrainArgs) -> Result<ExitCode> {
    let started = Instant::now();
    if args.attack.is_empty() && args.attacked.is_empty() {
        bail!("a detector needs attacked pictures: give --attack or --attacked");
    }
    if !(args.lr > 0.0 && args.lr.is_finite()) {
        bail!("--lr {}: a learning rate is a number above 0", args.lr);
    }
    let spec = Spec::parse(&args.method)?;
    let model = plan::open_model(&args.model)?;
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let seed = args.resources.seed;
    let (features, noticed) = features(&spec, &preprocess, seed)?;
    let settings = computing::settings(&args.resources, args.threads)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut engine = computing::open(&settings, voice)?;
    let kinds = kinds(args)?;
    let [clean, given] = [&args.data, &args.attacked].map(|named| found(named, &args.out));
    let left_out = [clean.left_out(), given.left_out()].concat();
    let [clean, given] = [clean.sources, given.sources];
    let model_file = args.model.model.as_deref().and_then(|name| Path::new(name).canonicalize().ok());
    if model_file.is_some() && args.out.canonicalize().ok() == model_file {
        bail!("--out {}: this is the model's file", args.out.display());
    }
    let mut progress = Progress::new(voice, clean.len());
    engine.observe(progress.listener());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed);
    said.tell(&progress);
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let net = Net { preprocess: &preprocess, input: model.default_input() };
    let graph = usual_shape(&clean, net).and_then(|shape| model.graph(shape).ok());
    let mut collection = Collection {
        model: &model,
        preprocess: &preprocess,
        features: &features,
        kinds: &kinds,
        seed,
        engine,
        graph,
        specimens: Vec::new(),
        failed: 0,
        said,
    };
    collect(args, &mut collection, (&clean, &given), net, &mut progress)?;
    collection.said.judge(model.classes(), &progress);
    let (examples, validation) = (collection.examples(Part::Training), collection.examples(Part::Validation));
    let training = Training { epochs: args.epochs, patience: args.patience, lr: args.lr, seed, ..Training::default() };
    let trained = train(&mut collection.engine, &examples, &validation, &training).map_err(|e| match e.kind() {
        ErrorKind::Input => e.within("--data"),
        _ => e,
    })?;
    let (epochs, best) = (trained.epochs.len(), trained.best);
    let validation_auc = trained.epochs.get(best).map_or(0.5, |e| e.validation_auc);
    let parts = [Part::Training, Part::Validation, Part::Test];
    let on = collection.engine.describe();
    let data: Vec<String> = args.data.iter().map(|name| paths::shown(Path::new(name))).collect();
    let mut notes = collection.said.notes();
    notes.insert("data".into(), data.join(", "));
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION").into(),
        method: spec.to_string(),
        seed,
        model: [model.name().into(), model.architecture().into()],
        model_sha256: model.sha256().into(),
        input: collection.graph.as_ref().map_or([0; 3], |g| g.input_shape().dims()),
        preprocess: preprocess.clone(),
        attacks: kinds.iter().filter(|k| !k.held_out).map(|k| k.origin.to_string()).collect(),
        pictures: parts.map(|part| collection.of(part).count()),
        examples: parts.map(|part| {
            let all = collection.examples(part);
            let attacked = all.iter().filter(|e| e.attacked).count();
            [all.len() - attacked, attacked]
        }),
        training,
        epochs: [epochs, best + 1],
        validation_auc,
        test: BTreeMap::new(),
        computed_in: [computing::precision_name(&settings).into(), on.kernels],
        notes,
    };
    let mut detector = Detector::new(trained, provenance);
    let attacks = measured(&mut collection, &detector, &kinds)?;
    let tested = attacks.iter().filter_map(|row| Some((row.attack.clone(), row.auc?)));
    detector.provenance.test = tested.collect();
    outputs::make_room(&args.out)?;
    if args.out.exists() {
        progress.say(&format!("{}: the file of an earlier run is replaced", args.out.display()));
    }
    replace(&args.out, &detector.to_bytes()?)?;
    progress.finish();
    let [training, validation, test] = detector.provenance.pictures;
    let report = Trained {
        detector: paths::shown(&args.out),
        model: model.name().into(),
        method: detector.provenance.method.clone(),
        pictures: Pictures { training, validation, test },
        failed: collection.failed,
        epochs,
        best_epoch: best + 1,
        validation_auc,
        seed,
        attacks,
        seconds: started.elapsed().as_secs_f64(),
        warnings: collection.said.all(),
        assumed: collection.said.all_assumed(),
    };
    let text = if args.json { serde_json::to_string(&Versioned::new(&report))? } else { table(&report) };
    Answer::default().line(&text)?;
    Ok(if collection.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

/// The files that were named, without the one that is written.
fn found(named: &[std::ffi::OsString], out: &Path) -> Inputs {
    let own = out.canonicalize().ok();
    let mut found = inputs::find(named, out);
    found.sources.retain(|s| own.is_none() || s.path.canonicalize().ok() != own);
    found
}

fn kinds(args: &TrainArgs) -> Result<Vec<Kind>> {
    let rounding = if args.unrounded { Rounding::None } else { Rounding::Levels };
    let made = |option: &str, text: &String, held_out: bool| -> Result<Kind> {
        let attack = Attack::parse(text, rounding, args.resources.seed).map_err(|e| e.within(option))?;
        Ok(Kind { origin: Origin::Made(attack), held_out })
    };
    let mut kinds = args.attack.iter().map(|text| made("--attack", text, false)).collect::<Result<Vec<_>>>()?;
    if !args.attacked.is_empty() {
        let names: Vec<String> = args.attacked.iter().map(|name| paths::shown(Path::new(name))).collect();
        kinds.push(Kind { origin: Origin::Given(names.join(", ")), held_out: false });
    }
    for text in &args.holdout_attack {
        kinds.push(made("--holdout-attack", text, true)?);
    }
    Ok(kinds)
}

/// Makes the examples, picture after picture; what cannot be used is said and counted.
fn collect(
    args: &TrainArgs,
    collection: &mut Collection<'_>,
    (clean, given): (&[Source], &[Source]),
    net: Net<'_>,
    progress: &mut Progress,
) -> Result<()> {
    let mut attacked = (!args.attacked.is_empty()).then(|| Stream::new(given, net));
    let mut pairs = Vec::new();
    let (mut left, mut before) = (args.limit.unwrap_or(usize::MAX), 0);
    for read in Stream::new(clean, net) {
        if left == 0 {
            break;
        }
        let source = &clean[read.source];
        (before..read.source).for_each(|at| progress.step(&clean[at].shown));
        before = read.source;
        progress.at(&match read.row {
            Some(row) => format!("{} [{row}]", source.shown),
            None => source.shown.clone(),
        });
        let partner = match &mut attacked {
            None => None,
            Some(stream) => match stream.next() {
                None => bail!("--attacked has fewer pictures than --data: they belong together one by one"),
                partner => partner,
            },
        };
        match collection.pair(read, partner, progress) {
            Ok(pair) => {
                pairs.push(pair);
                left -= 1;
            }
            Err(e) => {
                collection.failed += 1;
                progress.say(&format!("left out: {e}"));
            }
        }
        if pairs.len() == TOGETHER {
            collection.add(std::mem::take(&mut pairs))?;
        }
    }
    if left > 0 && attacked.is_some_and(|mut stream| stream.next().is_some()) {
        bail!("--attacked has more pictures than --data: they belong together one by one");
    }
    collection.add(pairs)?;
    if collection.specimens.is_empty() {
        bail!("--data: there is no picture that can be used");
    }
    Ok(())
}

/// How well each kind is told apart on the test part.
fn measured(collection: &mut Collection<'_>, detector: &Detector, kinds: &[Kind]) -> Result<Vec<KindRow>> {
    let bootstrap = Bootstrap::new(collection.seed);
    let mut rows = Vec::new();
    for (k, kind) in kinds.iter().enumerate() {
        let auc = detector.test(&mut collection.engine, &collection.specimens, k, &bootstrap)?;
        let count = |wanted: &dyn Fn(&Specimen) -> bool| collection.specimens.iter().filter(|&s| wanted(s)).count();
        rows.push(KindRow {
            attack: kind.origin.to_string(),
            held_out: kind.held_out,
            tried: count(&|s| s.tried[k]),
            flipped: count(&|s| s.attacked[k].is_some()),
            test: [count(&|s| s.part == Part::Test), count(&|s| s.part == Part::Test && s.attacked[k].is_some())],
            auc,
        });
    }
    Ok(rows)
}

fn table(report: &Trained) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["attack", "learnt", "tried", "flipped", "test clean", "attacked", "AUC", "95 % interval"]);
    for row in &report.attacks {
        let (auc, interval) = row
            .auc
            .map_or(("-".into(), "-".into()), |a| (format!("{:.4}", a.auc), format!("{:.4} to {:.4}", a.low, a.high)));
        table.add_row([
            row.attack.clone(),
            if row.held_out { "no" } else { "yes" }.into(),
            row.tried.to_string(),
            row.flipped.to_string(),
            row.test[0].to_string(),
            row.test[1].to_string(),
            auc,
            interval,
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let Pictures { training, validation, test } = &report.pictures;
    format!(
        "{}\n\n{} of {} on {training} training, {validation} validation and {test} test pictures; epoch {} of {} kept \
         (validation AUC {:.4}); {:.0} s; in {}",
        table.trim_fmt(),
        report.method,
        report.model,
        report.best_epoch,
        report.epochs,
        report.validation_auc,
        report.seconds,
        report.detector
    )
}

/// What `apply` says of one input.
#[derive(Serialize)]
struct Judged {
    input: String,
    index: Option<usize>,
    /// The class that the net predicts.
    prediction: Option<usize>,
    prediction_label: Option<String>,
    /// Probability that it was attacked, where attacked pictures are as many as clean ones.
    probability: Option<f64>,
    /// Its log odds.
    log_odds: Option<f64>,
    /// Whether the probability reaches the threshold.
    attacked: Option<bool>,
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assumed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A detector at work.
struct Watch<'a> {
    detector: &'a Detector,
    features: Features,
    graph: Arc<Graph>,
    engine: Engine,
    labels: &'a Labels,
    sources: &'a [Source],
    args: &'a ApplyArgs,
    answer: Answer,
    headed: bool,
    done: usize,
    failed: usize,
    said: Said,
}

/// Source, row, input, the class where it is known, and what is to be said of the input.
type Waiting = (usize, Option<usize>, Tensor, Option<usize>, Noticed);

impl Watch<'_> {
    fn judge(&mut self, inputs: &[Waiting]) -> verilume::Result<Vec<(usize, Verdict)>> {
        let x = Batch::of(inputs.iter().map(|i| i.2.clone()).collect())?;
        let logits = self.engine.forward(&self.graph, &x)?;
        let predicted: Vec<usize> = (0..x.len())
            .map(|i| Ok(best_first(&logits.item(i)?.to_f64()).first().copied().unwrap_or(0)))
            .collect::<verilume::Result<_>>()?;
        let maps = self.features.of(&mut self.engine, &self.graph, &x, &predicted)?;
        let verdicts = self.detector.scores(&mut self.engine, &maps)?;
        Ok(predicted.into_iter().zip(verdicts).collect())
    }

    /// Judges a group; where that fails, one by one, so that none fails because of another.
    fn group(&mut self, inputs: Vec<Waiting>, progress: &Progress) -> Result<()> {
        if inputs.is_empty() {
            return Ok(());
        }
        match self.judge(&inputs) {
            Ok(found) => {
                for ((source, row, _, label, noticed), (class, verdict)) in inputs.into_iter().zip(found) {
                    label.iter().for_each(|&label| self.said.count(label == class));
                    let Noticed { assumed, warnings, .. } = self.written(noticed);
                    self.say(
                        Judged {
                            input: self.sources[source].shown.clone(),
                            index: row,
                            prediction: Some(class),
                            prediction_label: self.labels.get(class).map(str::to_owned),
                            probability: Some(verdict.probability),
                            log_odds: Some(verdict.log_odds),
                            attacked: Some(verdict.probability >= self.args.threshold),
                            error: None,
                            assumed,
                            warnings,
                        },
                        progress,
                    )?;
                }
                Ok(())
            }
            Err(e) if inputs.len() == 1 => inputs
                .into_iter()
                .try_for_each(|(source, row, .., noticed)| self.fail((source, row), (&e, noticed), progress)),
            Err(_) => inputs.into_iter().try_for_each(|input| self.group(vec![input], progress)),
        }
    }

    /// What there is to say of the run, then what was noticed of an input.
    fn written(&self, mut noticed: Noticed) -> Noticed {
        self.said.write(&mut noticed.assumed, &mut noticed.warnings);
        noticed
    }

    fn fail(
        &mut self,
        (source, row): (usize, Option<usize>),
        (error, noticed): (&Error, Noticed),
        progress: &Progress,
    ) -> Result<()> {
        let Noticed { assumed, warnings, .. } = self.written(noticed);
        let judged = Judged {
            input: self.sources[source].shown.clone(),
            index: row,
            prediction: None,
            prediction_label: None,
            probability: None,
            log_odds: None,
            attacked: None,
            error: Some(error.to_string()),
            assumed,
            warnings,
        };
        self.say(judged, progress)
    }

    fn say(&mut self, judged: Judged, progress: &Progress) -> Result<()> {
        *(if judged.error.is_none() { &mut self.done } else { &mut self.failed }) += 1;
        if self.args.json {
            let line = serde_json::to_string(&Versioned::new(&judged))?;
            return progress.aside(|| self.answer.line(&line));
        }
        if !self.headed {
            self.headed = true;
            progress.aside(|| self.answer.line("attacked  probability  input  (prediction)"))?;
        }
        let row = judged.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = format!("{}{row}", paths::one_line(&judged.input));
        let line = match (&judged.error, judged.probability, judged.attacked, judged.prediction) {
            (None, Some(p), Some(attacked), Some(class)) => {
                let label = judged.prediction_label.unwrap_or_else(|| class.to_string());
                format!("{:8}  {p:>11.4}  {input}  ({label})", if attacked { "yes" } else { "no" })
            }
            (why, ..) => format!("failed    {:>11}  {input}: {}", "-", message(why.as_deref().unwrap_or(""))),
        };
        progress.aside(|| self.answer.line(&line))
    }
}

fn apply(args: &ApplyArgs) -> Result<ExitCode> {
    if !(0.0..=1.0).contains(&args.threshold) {
        bail!("--threshold {}: a probability lies between 0 and 1", args.threshold);
    }
    let detector = Detector::open(&args.detector).map_err(|e| e.within("--detector"))?;
    let model = plan::open_model(&args.model)?;
    let preprocess = plan::preparation(&model, &args.preparation)?;
    detector
        .check(model.sha256(), &preprocess)
        .map_err(|e| e.within(format!("--detector {}", args.detector.display())))?;
    // The same weights can be read as two nets.
    if detector.provenance.model[1] != model.architecture() {
        bail!(
            "--detector {}: trained on maps of a net read as {}, not as {}",
            args.detector.display(),
            detector.provenance.model[1],
            model.architecture()
        );
    }
    let labels = plan::labels(&model, &args.preparation)?;
    let spec = Spec::parse(&detector.provenance.method)?;
    let (features, noticed) = features(&spec, &preprocess, detector.provenance.seed)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut engine = computing::open(&computing::settings(&args.resources, args.threads)?, voice)?;
    let [c, h, w] = detector.provenance.input;
    let graph = model.graph(Shape::new(c, h, w))?;
    let found = inputs::find(&args.inputs, Path::new(""));
    let left_out = found.left_out();
    let sources = found.sources;
    let mut progress = Progress::new(voice, sources.len());
    engine.observe(progress.listener());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed);
    said.tell(&progress);
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let net = Net { preprocess: &preprocess, input: model.default_input() };
    let mut watch = Watch {
        detector: &detector,
        features,
        graph,
        engine,
        labels: &labels,
        sources: &sources,
        args,
        answer: Answer::default(),
        headed: false,
        done: 0,
        failed: 0,
        said,
    };
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut before = 0;
    for Read { source, row, item } in Stream::new(&sources, net) {
        if source != before {
            watch.group(std::mem::take(&mut waiting), &progress)?;
            (before..source).for_each(|at| progress.step(&sources[at].shown));
            before = source;
        }
        let shape = [c, h, w];
        let mut noticed = Noticed::default();
        if let Ok(item) = &item {
            watch.said.hear(item, &progress);
            noticed = watch.said.of(item);
        }
        let input = item.and_then(|item| match item.input.dims() == shape {
            true => Ok((item.input, item.label)),
            false => Err(Error::input(format!(
                "{}: an input of shape {:?}; the detector was trained on {shape:?}",
                sources[source].shown,
                item.input.dims()
            ))),
        });
        match input {
            Ok((input, label)) => waiting.push((source, row, input, label, noticed)),
            Err(e) => {
                // Records keep the order of the inputs.
                watch.group(std::mem::take(&mut waiting), &progress)?;
                watch.fail((source, row), (&e, noticed), &progress)?;
            }
        }
        if waiting.len() == TOGETHER {
            watch.group(std::mem::take(&mut waiting), &progress)?;
        }
    }
    watch.group(waiting, &progress)?;
    progress.finish();
    watch.said.judge(model.classes(), &progress);
    if !args.quiet {
        let failed = if watch.failed > 0 { format!(", {} failed", watch.failed) } else { String::new() };
        crate::talk::say(&format!("{} judged{failed}", counted(watch.done, "picture")));
    }
    Ok(match (watch.done, watch.failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(NOTHING_DONE),
        _ => ExitCode::from(SOME_FAILED),
    })
}
