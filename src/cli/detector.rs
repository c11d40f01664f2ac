//! `verilume detector`: trains and applies detectors of attacked pictures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::args::{ApplyArgs, DetectorArgs, DetectorCommand, TrainArgs};
use crate::cli::exit;
use crate::cli::exit::ExitCode;
use crate::cli::plan;
use crate::cli::records::json;
use crate::cli::tables::table;
use crate::cli::talk::{Bar, InputProgress, StandardOutput};
use crate::data::{Inputs, Item, ItemPosition, ItemStream, NetInput, Source, files, find, paths};
use crate::method::{Context, Spec};
use crate::program::Score;
use crate::reliability::auc::Interval;
use crate::reliability::bootstrap::Bootstrap;
use crate::reliability::detector::{
    Detector, DetectorProvenance, Example, Features, Rounding, SIDE, Specimen, SpecimenAttack, SpecimenKind,
    SpecimenOrigin, SplitPart, Training, train,
};
use crate::report::{Versioned, replace};
use crate::run::{self, Gather, InputWork, Listener, Paired, Said, Specimens, precision_name};
use crate::score::top;
use crate::session::{Noticed, Session};
use crate::tensor::Tensor;
use crate::text::{counted, message, one_line};
use crate::{Cancel, Error, ErrorKind};

/// Pictures that go through the net together; each has some attacked versions beside it.
const TOGETHER: usize = 16;

/// Runs the command.
pub fn run(args: &DetectorArgs) -> Result<ExitCode> {
    match &args.command {
        DetectorCommand::Train(args) => train_one(args),
        DetectorCommand::Apply(args) => apply(args),
    }
}

/// The features of a detector for one net.
fn features(session: &Session, spec: &Spec, seed: u64) -> Result<Features> {
    let load = |path: &Path| session.read(path);
    let context = Context { seed, score: Score::Logit, preprocess: session.preparation(), load: &load };
    Ok(Features::new(spec, &context, SIDE).map_err(|e| e.within(format!("-m {spec}")))?)
}

/// What was gathered for a detector.
type Collection<'a> = Gather<'a, Specimens<'a>>;

fn of(all: &[Specimen], part: SplitPart) -> impl Iterator<Item = &Specimen> {
    all.iter().filter(move |s| s.part == part)
}

/// Clean ones, and attacked ones of the kinds that are learnt.
fn examples(specimens: &[Specimen], kinds: &[SpecimenKind], part: SplitPart) -> Vec<Example> {
    let mut all = Vec::new();
    for specimen in of(specimens, part) {
        all.push(Example { maps: specimen.clean.clone(), attacked: false });
        let learnt = specimen.attacked.iter().zip(kinds).filter(|(_, kind)| !kind.held_out);
        all.extend(learnt.filter_map(|(maps, _)| Some(Example { maps: maps.clone()?, attacked: true })));
    }
    all
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
struct TrainedReport {
    detector: String,
    model: String,
    method: String,
    pictures: PictureCounts,
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
struct PictureCounts {
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
    let shared = &args.shared;
    let (mut session, settings) = shared.open(Score::Logit)?;
    let seed = session.seed();
    let features = features(&session, &spec, seed)?;
    let kinds = kinds(args)?;
    let [mut clean, mut given] = [&args.data, &args.attacked].map(|named| find(named, &args.out, shared.room()));
    plan::spare(&args.out, &args.shared.model, &[&clean.sources, &given.sources])?;
    [&mut clean, &mut given].into_iter().for_each(|found| leave_out(found, &args.out));
    let left_out = [clean.left_out(), given.left_out()].concat();
    let progress = InputProgress::new(shared.voice());
    progress.begin(clean.sources.len());
    progress.observer().into_iter().for_each(|observer| session.engine().observe(observer));
    let mut said = Said::new(&session, &shared.given());
    said.warnings.extend(kinds.iter().filter_map(|kind| match &kind.origin {
        SpecimenOrigin::Made(attack) => attack.beyond(session.preparation()),
        SpecimenOrigin::Given(_) => None,
    }));
    said.tell(&progress);
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let preprocess = session.preparation().clone();
    let net = NetInput { preprocess: &preprocess, input: session.model().input_form(), room: shared.room() };
    let [clean, given]: [Arc<[Source]>; 2] = [clean.sources.into(), given.sources.into()];
    let attacked = (!args.attacked.is_empty()).then(|| ItemStream::new(given, net));
    let mut stream = Paired::new(ItemStream::new(Arc::clone(&clean), net), attacked);
    let sink = Specimens { preprocess: &preprocess, features: &features, kinds: &kinds, seed, all: Vec::new() };
    let mut collection: Collection<'_> = Gather::new(&mut session, clean, net, args.limit, said, sink);
    run::drive(&mut stream, &mut collection, &progress)?;
    if stream.short {
        bail!("--attacked has fewer pictures than --data: they belong together one by one");
    }
    if collection.wants_more() && stream.is_long() {
        bail!("--attacked has more pictures than --data: they belong together one by one");
    }
    if collection.sink.all.is_empty() {
        bail!("--data: there is no picture that can be used");
    }
    let classes = collection.session().model().classes();
    collection.said.judge(classes, &progress);
    let [examples_of, validation] =
        [SplitPart::Training, SplitPart::Validation].map(|part| examples(&collection.sink.all, &kinds, part));
    let training = Training { epochs: args.epochs, patience: args.patience, lr: args.lr, seed, ..Training::default() };
    let trained =
        train(collection.session().engine(), &examples_of, &validation, &training).map_err(|e| match e.kind() {
            ErrorKind::Input => e.within("--data"),
            _ => e,
        })?;
    let (epochs, best) = (trained.epochs.len(), trained.best);
    let validation_auc = trained.epochs.get(best).map_or(0.5, |e| e.validation_auc);
    let parts = [SplitPart::Training, SplitPart::Validation, SplitPart::Test];
    let on = collection.session().engine().describe();
    let used = collection.session().model_used();
    let data: Vec<String> = args.data.iter().map(|name| paths::shown(Path::new(name))).collect();
    let mut notes = collection.said.notes();
    notes.insert("data".into(), data.join(", "));
    let provenance = DetectorProvenance {
        version: env!("CARGO_PKG_VERSION").into(),
        method: spec.to_string(),
        seed,
        model: [used.name.clone(), used.architecture],
        model_sha256: used.sha256,
        input: collection.graph.as_ref().map_or([0; 3], |g| g.input_shape().dims()),
        preprocess: preprocess.clone(),
        attacks: kinds.iter().filter(|k| !k.held_out).map(|k| k.origin.to_string()).collect(),
        pictures: parts.map(|part| of(&collection.sink.all, part).count()),
        examples: parts.map(|part| {
            let all = examples(&collection.sink.all, &kinds, part);
            let attacked = all.iter().filter(|e| e.attacked).count();
            [all.len() - attacked, attacked]
        }),
        training,
        epochs: [epochs, best + 1],
        validation_auc,
        test: BTreeMap::new(),
        computed_in: [precision_name(&settings).into(), on.kernels],
        notes,
    };
    let mut detector = Detector::new(trained, provenance);
    let attacks = measured(&mut collection, &detector, &kinds)?;
    let tested = attacks.iter().filter_map(|row| Some((row.attack.clone(), row.auc?)));
    detector.provenance.test = tested.collect();
    files::make_room(&args.out)?;
    if args.out.exists() {
        progress.say(&format!("{}: the file of an earlier run is replaced", args.out.display()));
    }
    replace(&args.out, &detector.to_bytes()?)?;
    progress.finish();
    let [training, validation, test] = detector.provenance.pictures;
    let report = TrainedReport {
        detector: paths::shown(&args.out),
        model: used.name,
        method: detector.provenance.method.clone(),
        pictures: PictureCounts { training, validation, test },
        failed: collection.counts[1],
        epochs,
        best_epoch: best + 1,
        validation_auc,
        seed,
        attacks,
        seconds: started.elapsed().as_secs_f64(),
        warnings: collection.said.all(),
        assumed: collection.said.all_assumed(),
    };
    let text = if args.json { serde_json::to_string(&Versioned::new(&report))? } else { described(&report) };
    StandardOutput::default().line(&text)?;
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::SOME_FAILED) })
}

/// Leaves out the file that is written: that of an earlier run is no data.
fn leave_out(found: &mut Inputs, out: &Path) {
    let own = out.canonicalize().ok();
    found.sources.retain(|s| own.is_none() || s.path.canonicalize().ok() != own);
}

fn kinds(args: &TrainArgs) -> Result<Vec<SpecimenKind>> {
    let rounding = if args.unrounded { Rounding::None } else { Rounding::Levels };
    let made = |option: &str, text: &String, held_out: bool| -> Result<SpecimenKind> {
        let attack = SpecimenAttack::parse(text, rounding, args.shared.resources.seed).map_err(|e| e.within(option))?;
        Ok(SpecimenKind { origin: SpecimenOrigin::Made(attack), held_out })
    };
    let mut kinds = args.attack.iter().map(|text| made("--attack", text, false)).collect::<Result<Vec<_>>>()?;
    if !args.attacked.is_empty() {
        let names: Vec<String> = args.attacked.iter().map(|name| paths::shown(Path::new(name))).collect();
        kinds.push(SpecimenKind { origin: SpecimenOrigin::Given(names.join(", ")), held_out: false });
    }
    for text in &args.holdout_attack {
        kinds.push(made("--holdout-attack", text, true)?);
    }
    Ok(kinds)
}

/// How well each kind is told apart on the test part.
fn measured(collection: &mut Collection<'_>, detector: &Detector, kinds: &[SpecimenKind]) -> Result<Vec<KindRow>> {
    let bootstrap = Bootstrap::new(collection.sink.seed);
    let mut rows = Vec::new();
    for (k, kind) in kinds.iter().enumerate() {
        let auc = {
            let specimens = std::mem::take(&mut collection.sink.all);
            let auc = detector.test(collection.session().engine(), &specimens, k, &bootstrap);
            collection.sink.all = specimens;
            auc?
        };
        let count = |wanted: &dyn Fn(&Specimen) -> bool| collection.sink.all.iter().filter(|&s| wanted(s)).count();
        rows.push(KindRow {
            attack: kind.origin.to_string(),
            held_out: kind.held_out,
            tried: count(&|s| s.tried[k]),
            flipped: count(&|s| s.attacked[k].is_some()),
            test: [
                count(&|s| s.part == SplitPart::Test),
                count(&|s| s.part == SplitPart::Test && s.attacked[k].is_some()),
            ],
            auc,
        });
    }
    Ok(rows)
}

fn described(report: &TrainedReport) -> String {
    let row = |row: &KindRow| {
        let (auc, interval) = row
            .auc
            .map_or(("-".into(), "-".into()), |a| (format!("{:.4}", a.auc), format!("{:.4} to {:.4}", a.low, a.high)));
        let [tried, flipped, clean, attacked] =
            [row.tried, row.flipped, row.test[0], row.test[1]].map(|n| n.to_string());
        let learnt = if row.held_out { "no" } else { "yes" };
        [row.attack.clone(), learnt.into(), tried, flipped, clean, attacked, auc, interval]
    };
    let header = ["attack", "learnt", "tried", "flipped", "test clean", "attacked", "AUC", "95 % interval"];
    let PictureCounts { training, validation, test } = &report.pictures;
    format!(
        "{}\n\n{} of {} on {training} training, {validation} validation and {test} test pictures; epoch {} of {} kept \
         (validation AUC {:.4}); {:.0} s; in {}",
        table(header, report.attacks.iter().map(row), 2),
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
    session: &'a mut Session,
    sources: Arc<[Source]>,
    args: &'a ApplyArgs,
    bar: Bar,
    answer: StandardOutput,
    headed: bool,
    done: usize,
    failed: usize,
    said: Said,
}

impl Watch<'_> {
    fn blank(&self, (source, row): ItemPosition, mut noticed: Noticed) -> Judged {
        self.said.write(&mut noticed.assumed, &mut noticed.warnings);
        Judged {
            input: self.sources[source].shown.clone(),
            index: row,
            prediction: None,
            prediction_label: None,
            probability: None,
            log_odds: None,
            attacked: None,
            error: None,
            assumed: noticed.assumed,
            warnings: noticed.warnings,
        }
    }

    fn say(&mut self, judged: Judged) -> crate::Result<()> {
        *(if judged.error.is_none() { &mut self.done } else { &mut self.failed }) += 1;
        if self.args.json {
            let line = json(&Versioned::new(&judged))?;
            return self.bar.aside(|| self.answer.line(&line));
        }
        if !self.headed {
            self.headed = true;
            self.bar.aside(|| self.answer.line("attacked  probability  input  (prediction)"))?;
        }
        let row = judged.index.map_or_else(String::new, |i| format!("[{i}]"));
        let input = format!("{}{row}", one_line(&judged.input));
        let line = match (&judged.error, judged.probability, judged.attacked, judged.prediction) {
            (None, Some(p), Some(attacked), Some(class)) => {
                let label = judged.prediction_label.unwrap_or_else(|| class.to_string());
                format!("{:8}  {p:>11.4}  {input}  ({label})", if attacked { "yes" } else { "no" })
            }
            (why, ..) => format!("failed    {:>11}  {input}: {}", "-", message(why.as_deref().unwrap_or(""))),
        };
        self.bar.aside(|| self.answer.line(&line))
    }
}

impl InputWork for Watch<'_> {
    type Input = Item;

    fn name(&self, at: usize) -> String {
        self.sources[at].shown.clone()
    }

    fn together(&self, _: ItemPosition) -> usize {
        TOGETHER
    }

    fn joins(&self, first: &Item, next: &Item) -> bool {
        first.source == next.source
    }

    fn cancel_with(&mut self, cancel: &Cancel) {
        self.session.cancel_with(cancel);
    }

    fn group(&mut self, items: Vec<(ItemPosition, Item)>, listener: &dyn Listener) -> crate::Result<()> {
        items.iter().for_each(|(_, item)| self.said.hear(item, listener));
        let inputs: Vec<&Tensor> = items.iter().map(|(_, item)| &item.input).collect();
        let (detector, features) = (self.detector, &self.features);
        let wanted = detector.provenance.input;
        let judged = self.session.together(&inputs, |engine, graph, x, _| {
            if x.shape().dims() != wanted {
                let dims = x.shape().dims();
                let why = format!("an input of shape {dims:?}; the detector was trained on {wanted:?}");
                return Err(Error::input(why));
            }
            let logits = engine.forward(graph, x)?;
            let predicted = (0..x.len()).map(|i| Ok(top(&logits.item(i)?.to_f64()).unwrap_or(0)));
            let predicted = predicted.collect::<crate::Result<Vec<usize>>>()?;
            let maps = features.of(engine, graph, x, &predicted)?;
            Ok(predicted.into_iter().zip(detector.scores(engine, &maps)?).collect())
        });
        for ((at, item), (judged, _)) in items.into_iter().zip(judged) {
            let mut line = self.blank(at, self.said.of_item(&item));
            match judged {
                Ok((class, verdict)) => {
                    item.label.into_iter().for_each(|label| self.said.count(label == class));
                    line.prediction = Some(class);
                    line.prediction_label = self.session.label(class);
                    line.probability = Some(verdict.probability);
                    line.log_odds = Some(verdict.log_odds);
                    line.attacked = Some(verdict.probability >= self.args.threshold);
                }
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) if item.input.dims() != wanted => line.error = Some(e.within(&line.input).to_string()),
                Err(e) => line.error = Some(e.to_string()),
            }
            self.say(line)?;
        }
        Ok(())
    }

    fn failed(&mut self, at: ItemPosition, why: Error, _: &dyn Listener) -> crate::Result<()> {
        let line = Judged { error: Some(why.to_string()), ..self.blank(at, Noticed::default()) };
        self.say(line)
    }

    fn end(&mut self, at: usize) -> crate::Result<Option<String>> {
        Ok(Some(self.name(at)))
    }
}

fn apply(args: &ApplyArgs) -> Result<ExitCode> {
    if !(0.0..=1.0).contains(&args.threshold) {
        bail!("--threshold {}: a probability lies between 0 and 1", args.threshold);
    }
    let detector = Detector::open(&args.detector).map_err(|e| e.within("--detector"))?;
    let within = |e: Error| e.within(format!("--detector {}", args.detector.display()));
    let shared = &args.shared;
    let (mut session, _) = shared.open(Score::Logit)?;
    let model = session.model();
    detector.check(model.sha256(), session.preparation()).map_err(within)?;
    // The same weights can be read as two nets.
    if detector.provenance.model[1] != model.architecture() {
        bail!(
            "--detector {}: trained on maps of a net read as {}, not as {}",
            args.detector.display(),
            detector.provenance.model[1],
            model.architecture()
        );
    }
    let spec = Spec::parse(&detector.provenance.method)?;
    let features = features(&session, &spec, detector.provenance.seed)?;
    session.graph(&detector.provenance.input)?;
    let found = find(&args.inputs, Path::new(""), shared.room());
    let left_out = found.left_out();
    let sources: Arc<[Source]> = found.sources.into();
    let progress = InputProgress::new(shared.voice());
    progress.begin(sources.len());
    progress.observer().into_iter().for_each(|observer| session.engine().observe(observer));
    let said = Said::new(&session, &shared.given());
    said.tell(&progress);
    left_out.iter().for_each(|sentence| progress.say(sentence));
    let net = NetInput { preprocess: session.preparation(), input: session.model().input_form(), room: shared.room() };
    let stream = ItemStream::new(Arc::clone(&sources), net);
    let mut watch = Watch {
        detector: &detector,
        features,
        session: &mut session,
        sources,
        args,
        bar: progress.bar(),
        answer: StandardOutput::default(),
        headed: false,
        done: 0,
        failed: 0,
        said,
    };
    run::drive(stream, &mut watch, &progress)?;
    progress.finish();
    watch.said.judge(watch.session.model().classes(), &progress);
    let failed = if watch.failed > 0 { format!(", {} failed", watch.failed) } else { String::new() };
    progress.say(&format!("{} judged{failed}", counted(watch.done, "picture")));
    Ok(exit::of(watch.done, watch.failed))
}
