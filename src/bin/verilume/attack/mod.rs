//! `verilume attack`: opens the net, attacks the inputs, closes the books.

mod record;
mod runner;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use verilume::engine::{Engine, Settings};
use verilume::image::Preprocess;
use verilume::method::{self, Method};
use verilume::model::{Labels, Model};
use verilume::program::Score;
use verilume::reliability::attack::{self, Attack, Spec, Wanted};
use verilume::report::{Journal, Manifest, MethodUsed, ModelUsed};
use verilume::tensor::Tensor;

use crate::args::attack::{AttackArgs, AttackFormat};
use crate::arrays::{ArrayFile, Row};
use crate::computing;
use crate::earlier::{self, Finder, Past, Results};
use crate::explain::lock;
use crate::inputs;
use crate::items;
use crate::outputs;
use crate::own;
use crate::paths;
use crate::said::{Noticed, Said};
use crate::talk::{Answer, Progress, Voice, counted};
use crate::targets::{TargetChoice, named};
use crate::{plan, room};
use record::{AttackLine, Table};
use runner::{Book, Runner};

/// Nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Some inputs failed.
const SOME_FAILED: u8 = 1;

/// An attack that can run, under the name that its files and records carry.
pub struct Ready {
    pub id: String,
    pub spec: Spec,
    /// Fingerprint of everything its results depend on.
    pub settings: String,
    pub attack: Attack,
    /// The class that it wants, where that is the same for all inputs.
    pub wanted: Option<usize>,
    /// Whether it has run without complaint.
    pub proven: bool,
}

/// A method whose maps are compared.
pub struct Compared {
    pub spec: String,
    pub method: Box<dyn Method>,
    /// Whether it has made a map in this run.
    pub proven: bool,
}

/// Runs the command.
pub fn run(args: &AttackArgs) -> Result<ExitCode> {
    if args.list_attacks {
        let text = if args.json { attacks_json().to_string() } else { attacks_text() };
        Answer::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let specs = args.attacks.iter().map(|text| Spec::parse(text)).collect::<verilume::Result<Vec<_>>>()?;
    let methods = plan::methods(&args.methods)?;
    let target = TargetChoice::parse(&args.target)?;
    if matches!(target, TargetChoice::Top(k) if k > 1) {
        bail!("--target {}: an attack is on one class of an input", args.target);
    }
    let settings = computing::settings(&args.resources, args.threads)?;
    let model = plan::open_model(&args.model)?;
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let labels = plan::labels(&model, &args.preparation)?;
    let mut targets = target.resolve(&labels, model.classes())?;
    let seed = args.resources.seed;
    let noticed = RefCell::default();
    let mut attacks = ready(specs, (&preprocess, &noticed), &labels, model.classes(), seed)?;
    let compared = compared(&methods, &attacks, (&preprocess, &noticed), seed)?;
    let mut formats = args
        .format
        .clone()
        .unwrap_or_else(|| vec![if preprocess.takes_pictures() { AttackFormat::Png } else { AttackFormat::Npy }]);
    formats.sort_unstable();
    formats.dedup();
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut engine = computing::open(&settings, voice)?;
    std::fs::create_dir_all(&args.out).map_err(|e| verilume::Error::io(&args.out, e))?;
    let lock_path = args.out.join(".records.lock");
    let _lock = lock(&lock_path, &args.out)?;

    let found = inputs::find(&args.inputs, &args.out);
    let (ignored, left_out) = (found.ignored, found.left_out());
    let mut sources = found.sources;
    if sources.is_empty() {
        bail!("no inputs");
    }
    targets.know(&sources);
    let records = args.out.join("records.jsonl");
    let results = Results::new(&args.out);
    let past = Past::<AttackLine>::read(&results, &records, "attack")?;
    let ids: Vec<String> = attacks.iter().map(|attack| attack.id.clone()).collect();
    let names = past.names(ids.iter().map(String::as_str).collect());
    let places: Vec<Option<String>> = sources.iter().map(|s| earlier::place_of(&s.path)).collect();
    let renamed = names.keep_apart(&mut sources, &places);
    let finder = Finder::new(&sources, &places);
    let again = |line: &AttackLine| line.record.attack.as_ref().is_none_or(|attack| ids.contains(attack));
    let stay = past.stay(&finder, &names, |entry| entry.line.as_ref().is_some_and(again));
    let mut progress = Progress::new(voice, sources.len());
    engine.observe(progress.listener());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed.into_inner());
    said.tell(&progress);
    plan::many_passes(&methods).for_each(|line| progress.say(&line));
    left_out.iter().for_each(|sentence| progress.say(sentence));
    earlier::say(&renamed, &progress);
    earlier::say_dropped(stay.dropped, &progress);
    let manifest_path = args.out.join("manifest.json");
    // A manifest says that a run has ended: one of an earlier run must not stand beside this run's records.
    if let Some(kept) = outputs::set_aside(&manifest_path, |manifest| manifest["command"] == "attack")? {
        progress.say(&format!("the manifest of another command is kept as {}", kept.display()));
    }
    match std::fs::remove_file(&manifest_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(verilume::Error::io(&manifest_path, e).into()),
        _ => {}
    }
    own::announce(&args.out, "attack", &sources, ids.iter().map(String::as_str))?;
    let journal = Journal::start_with(&records, stay.kept.iter().map(Vec::as_slice))?;
    earlier::sweep(&results, &lock_path, &sources, &stay.parts.iter().cloned().chain(past.parts()).collect());
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let table = Table::new(
        longest(&mut sources.iter().map(|s| s.shown.chars().count() + if s.is_array() { 6 } else { 0 })),
        longest(&mut attacks.iter().map(|a| a.id.len())),
    );
    let book = Book::new(journal, (!args.json).then_some(table), progress.beside(), places.clone(), said);
    let mut manifest = manifest(args, &model, &preprocess, &attacks, (&settings, &engine), &formats)?;
    attacks.iter_mut().zip(&manifest.methods).for_each(|(ready, used)| ready.settings.clone_from(&used.settings));
    let mut runner = Runner {
        model: &model,
        preprocess: &preprocess,
        labels: &labels,
        targets,
        engine,
        attacks: &mut attacks,
        compared,
        formats,
        out: &args.out,
        sources: &sources,
        read: read_files(args, &target, &sources),
        others: past.of_others(&results, &finder),
        book,
    };
    let ended = runner.all(&mut progress);
    let closed = runner.book.close();
    progress.finish();
    ended.and(closed)?;

    runner.book.said.judge(model.classes(), &progress);
    manifest.assumed = runner.book.said.all_assumed();
    manifest.warnings = runner.book.said.all();
    manifest.ignored_files = ignored;
    manifest.files = runner.book.statuses(&sources);
    manifest.seconds = started.elapsed().as_secs_f64();
    manifest.write(&manifest_path)?;
    let (made, succeeded, failed) = runner.book.totals();
    let failures = if failed > 0 { format!(", {failed} of {} inputs failed", sources.len()) } else { String::new() };
    progress.say(&format!("{} in {}, {succeeded} succeeded{failures}", counted(made, "attack"), args.out.display()));
    Ok(match (made, failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(NOTHING_DONE),
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// The attacks, built, repeated names numbered.
fn ready(
    specs: Vec<Spec>,
    (preprocess, noticed): (&Preprocess, &RefCell<Noticed>),
    labels: &Labels,
    classes: usize,
    seed: u64,
) -> Result<Vec<Ready>> {
    let load = |path: &Path| items::load(path, preprocess, noticed);
    let load_map = |path: &Path| load_map(path, noticed);
    let context = attack::Context { seed, load: &load, load_map: &load_map };
    let mut times: HashMap<&'static str, usize> = HashMap::new();
    let mut all = Vec::new();
    for spec in specs {
        let name = spec.entry.id;
        let time = times.entry(name).and_modify(|n| *n += 1).or_insert(1);
        let id = if *time == 1 { name.to_string() } else { format!("{name}-{time}") };
        let attack = spec.build(&context).map_err(|e| e.within("--attack"))?;
        let wanted = match attack.wanted() {
            Some(Wanted::Class(text)) => {
                Some(named(text, labels, classes).map_err(|e| e.within(format!("--attack: {name}:target")))?)
            }
            _ => None,
        };
        all.push(Ready { id, spec, settings: String::new(), attack, wanted, proven: false });
    }
    Ok(all)
}

/// A map or a mask: the numbers of an array as they are, or the grey levels of a picture.
fn load_map(path: &Path, noticed: &RefCell<Noticed>) -> verilume::Result<Tensor> {
    if !ArrayFile::is_array(path) {
        let picture = room::open_picture(path)?;
        noticed.borrow_mut().extend(items::damage(&paths::shown(path), &picture));
        let levels = picture.grey().into_iter().map(f32::from).collect();
        return Tensor::f32([picture.height(), picture.width()], levels);
    }
    let mut array = ArrayFile::open(path)?;
    let within = |e: verilume::Error| e.within(path.display());
    // What has two axes is read as rows of vectors.
    if !array.is_single() && array.dims().len() > 1 && array.rows() > 1 {
        return Err(within(verilume::Error::settings(format!("{} maps where one is wanted", array.rows()))));
    }
    let assumed = array.assumed().map(|what| format!("{}: {what}", paths::shown(path))).into_iter().collect();
    noticed.borrow_mut().extend(Noticed { assumed, ..Noticed::default() });
    let mut rows = Vec::with_capacity(array.rows());
    for row in 0..array.rows() {
        rows.push(match array.row(row).map_err(within)? {
            Row::Normalised(tensor) => tensor,
            Row::Levels(levels) => {
                Tensor::f32(array.dims().to_vec(), levels.into_iter().map(f32::from).collect()).map_err(within)?
            }
        });
    }
    let map =
        if rows.len() > 1 { Tensor::stack(&rows) } else { rows.pop().ok_or_else(|| verilume::Error::input("no map")) };
    let map = map?;
    items::finite(&map).map_err(within)?;
    Ok(map)
}

/// The methods whose maps are compared: those asked for, or the one attacked first, or the gradient.
fn compared(
    named: &[plan::Named],
    attacks: &[Ready],
    (preprocess, noticed): (&Preprocess, &RefCell<Noticed>),
    seed: u64,
) -> Result<Vec<Compared>> {
    let mut specs: Vec<String> = named.iter().map(|n| n.spec.to_string()).collect();
    if specs.is_empty() {
        for ready in attacks {
            let base = match &ready.attack {
                Attack::Map(attack) => attack.base.spec(),
                _ => attack::Base::Gradient.spec(),
            };
            if !specs.contains(&base) {
                specs.push(base);
            }
        }
    }
    let load = |path: &Path| items::load(path, preprocess, noticed);
    let context = method::Context { seed, score: Score::Logit, preprocess, load: &load };
    let build = |spec: String| {
        let method = method::Spec::parse(&spec)?.build(&context).map_err(|e| e.within(format!("-m {spec}")))?;
        Ok(Compared { spec, method, proven: false })
    };
    specs.into_iter().map(build).collect()
}

/// Files that no result may take the place of.
fn read_files(args: &AttackArgs, target: &TargetChoice, sources: &[inputs::Source]) -> HashSet<PathBuf> {
    let mut paths: Vec<&Path> = sources.iter().map(|s| s.path.as_path()).collect();
    paths.extend(args.model.model.as_deref().map(Path::new));
    paths.extend(args.preparation.labels.as_deref());
    if let TargetChoice::File(path) = target {
        paths.push(path);
    }
    paths.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

fn manifest(
    args: &AttackArgs,
    model: &Model,
    preprocess: &Preprocess,
    attacks: &[Ready],
    (settings, engine): (&Settings, &Engine),
    formats: &[AttackFormat],
) -> Result<Manifest> {
    let mut common = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": model.sha256(), "architecture": model.architecture(),
        "preprocessing": preprocess, "target": args.target, "seed": args.resources.seed,
    });
    computing::note(&mut common, settings, engine)?;
    let used = attacks.iter().map(|ready| {
        let settings = Sha256::digest(format!("{common} {}", ready.spec).as_bytes());
        MethodUsed {
            id: ready.id.clone(),
            name: ready.spec.entry.id.to_string(),
            spec: ready.spec.to_string(),
            parameters: parameters(&ready.spec),
            settings: settings[..8].iter().map(|b| format!("{b:02x}")).collect(),
        }
    });
    let description = engine.describe();
    Ok(Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        command: "attack".into(),
        model: ModelUsed {
            name: model.name().into(),
            architecture: model.architecture().into(),
            sha256: model.sha256().into(),
        },
        preprocessing: serde_json::to_value(preprocess)?,
        methods: used.collect(),
        target: args.target.clone(),
        score: "logit".into(),
        seed: args.resources.seed,
        device: description.device,
        kernels: description.kernels,
        precision: computing::precision_name(settings).into(),
        threads: description.threads,
        memory_bytes: args.resources.memory,
        formats: formats.iter().map(|f| format!("{f:?}").to_lowercase()).collect(),
        shard: None,
        ignored_files: 0,
        seconds: 0.0,
        files: Vec::new(),
        assumed: Vec::new(),
        warnings: Vec::new(),
        record_version: verilume::report::RECORD_VERSION,
    })
}

fn parameters(spec: &Spec) -> BTreeMap<String, String> {
    spec.values().iter().map(|(key, value)| (key.into(), value.into())).collect()
}

/// Every attack with its paper and parameters, for `--help` and `--list-attacks`.
pub fn attacks_text() -> String {
    let mut text = String::from("ATTACKS\n");
    for entry in attack::registry() {
        let _ = writeln!(text, "\n  {}: {}\n      {}\n      {}", entry.id, entry.title, entry.summary, entry.paper);
        for p in entry.parameters {
            let unit = if p.unit.is_empty() { String::new() } else { format!(" [{}]", p.unit) };
            let _ = writeln!(text, "      {}={}{unit}  {}", p.key, p.default, p.help);
        }
    }
    text
}

/// The same as one JSON array.
fn attacks_json() -> serde_json::Value {
    let attacks = attack::registry().iter().map(|e| {
        let parameters = e.parameters.iter();
        let parameters: Vec<_> =
            parameters.map(|p| json!({ "key": p.key, "unit": p.unit, "default": p.default, "help": p.help })).collect();
        let kind = match e.kind {
            attack::Kind::Prediction => "prediction",
            attack::Kind::Map => "map",
        };
        json!({
            "id": e.id, "title": e.title, "summary": e.summary, "paper": e.paper, "changes": kind,
            "parameters": parameters,
        })
    });
    attacks.collect()
}
