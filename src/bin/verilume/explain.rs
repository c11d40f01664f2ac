//! `verilume explain`: opens the net, goes through the inputs, closes the books.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use verilume::device::Description;
use verilume::engine::Engine;
use verilume::error::read_file;
use verilume::image::Preprocess;
use verilume::method::Promise;
use verilume::model::{Labels, Model};
use verilume::report::{Journal, Line, Manifest, MethodUsed, ModelUsed};

use crate::args::{ExplainArgs, Format};
use crate::arrays::ArrayFile;
use crate::book::Book;
use crate::computing;
use crate::drawing;
use crate::earlier::{self, Finder, Names, Past, Results};
use crate::inputs::{self, Source};
use crate::listing;
use crate::methods::{self, fingerprint, hex};
use crate::outputs;
use crate::own;
use crate::plan::{self, Earlier, Plan};
use crate::resume::{Current, Demands, Done, Known};
use crate::runner::{Ready, Runner};
use crate::said::{Noticed, Said};
use crate::talk::{Answer, Progress, Voice, counted};
use crate::targets::{TargetChoice, Targets};

/// Nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Some inputs failed.
const SOME_FAILED: u8 = 1;

/// How often a lock is tried.
const LOOKS: usize = 10;

/// Runs the command.
pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    if args.list_methods {
        let text = if args.json { listing::methods_json().to_string() } else { listing::methods_text() };
        Answer::default().line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let mut plan = Plan::new(args)?;
    let model = plan::open_model(&args.model)?;
    if plan.methods.is_empty() {
        plan.methods = plan::default_methods(&model)?;
    }
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let labels = plan::labels(&model, &args.preparation)?;
    let mut targets = plan.target.resolve(&labels, model.classes())?;
    let mut engine = computing::open(&plan.settings, plan.voice)?;
    let common = common(&plan, &model, &preprocess, &engine)?;
    let (methods, noticed) = ready(&plan, common.clone(), &preprocess, &labels)?;
    std::fs::create_dir_all(&plan.out).map_err(|e| verilume::Error::io(&plan.out, e))?;
    let lock_path = out_file(&plan, ".records", "lock");
    let _lock = lock(&lock_path, &plan.out)?;

    let found = inputs::find(&plan.inputs, &plan.out);
    let (ignored, left_out) = (found.ignored, found.left_out());
    let mut sources = found.sources;
    if sources.is_empty() {
        bail!("no inputs");
    }
    targets.know(&sources);
    let read = read_files(args, &plan, &sources);
    let records = out_file(&plan, "records", "jsonl");
    let results = Results::new(&plan.out);
    let past = Past::<Line>::read(&results, &records, "method")?;
    let mut own_names: HashSet<&str> = methods.iter().map(|m| m.id.as_str()).collect();
    if plan.wants(Format::Grid) {
        own_names.insert(earlier::SHEET);
    }
    let names = past.names(own_names);
    let mut places: Vec<Option<String>> = sources.iter().map(|s| earlier::place_of(&s.path)).collect();
    let renamed = names.keep_apart(&mut sources, &places);
    if let Some(shard) = plan.shard {
        inputs::deal(&mut sources, shard);
        places = sources.iter().map(|s| earlier::place_of(&s.path)).collect();
    }
    let finder = Finder::new(&sources, &places);
    let input_settings = fingerprint(&common);
    let current = Current {
        methods: methods.iter().map(|m| (m.id.clone(), m.settings.clone())).collect(),
        inputs: input_settings.clone(),
    };
    let done = match plan.earlier {
        Earlier::Resume => settle(&plan, &past, (&sources, &finder, &names), &current, &targets),
        Earlier::Forget => {
            let again = |line: &Line| {
                line.record.method.as_ref().is_none_or(|method| current.methods.iter().any(|(id, _)| id == method))
            };
            let stay = past.stay(&finder, &names, |entry| entry.line.as_ref().is_some_and(again));
            Done::nothing_but(stay)
        }
    };
    let others = past.of_others(&results, &finder);
    let mut progress = Progress::new(plan.voice, sources.len());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed);
    said.tell(&progress);
    said.remember(&done.said.assumed, &done.said.warnings);
    engine.observe(progress.listener());
    left_out.iter().for_each(|sentence| progress.say(sentence));
    plan::many_passes(&plan.methods).for_each(|line| progress.say(&line));
    if done.outdated > 0 {
        progress.say(&format!("{} earlier results have other settings and are made again", done.outdated));
    }
    earlier::say(&renamed, &progress);
    earlier::say_dropped(done.dropped, &progress);
    if let TargetChoice::Top(k) = plan.target
        && k > model.classes()
    {
        progress.say(&format!("--target top:{k}: all {} classes of the net are explained", model.classes()));
    }
    let manifest_path = out_file(&plan, "manifest", "json");
    // A manifest says that a run has ended: one of an earlier run must not stand beside this run's records.
    if let Some(kept) = outputs::set_aside(&manifest_path, |manifest| manifest["command"] == "explain")? {
        progress.say(&format!("the manifest of another command is kept as {}", kept.display()));
    }
    match std::fs::remove_file(&manifest_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(verilume::Error::io(&manifest_path, e).into()),
        _ => {}
    }
    let shares = |named: &plan::Named| named.spec.promises().contains(&Promise::Conservation);
    let ids: Vec<(String, bool)> = plan.methods.iter().map(|named| (named.id.clone(), shares(named))).collect();
    own::announce(&plan.out, "explain", &sources, ids.iter().map(|(id, _)| id.as_str()).chain([earlier::SHEET]))?;
    let journal = Journal::start_with(&records, done.kept.iter().map(Vec::as_slice))?;
    earlier::sweep(&results, &lock_path, &sources, &done.parts.iter().cloned().chain(past.parts()).collect());
    let showing = (plan.reply, progress.beside());
    let book = Book::new(journal, showing, &sources, &ids, input_settings, places.clone(), said);
    let mut manifest = manifest(&plan, &model, &preprocess, &methods, engine.describe())?;

    let look = drawing::look(plan.winsorise);
    let mut runner = Runner {
        plan: &plan,
        model: &model,
        preprocess: &preprocess,
        labels: &labels,
        targets,
        engine,
        methods,
        look,
        done,
        book,
        sources: &sources,
        read,
        others,
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
    let (made, skipped, failed) = runner.book.totals();
    if plan.voice == Voice::Normal {
        let skipped = if skipped > 0 { format!(", {skipped} done before") } else { String::new() };
        let failed = if failed > 0 { format!(", {failed} of {} inputs failed", sources.len()) } else { String::new() };
        progress.say(&format!("{} in {}{skipped}{failed}", counted(made, "map"), plan.out.display()));
    }
    Ok(match (made + skipped, failed) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(NOTHING_DONE),
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// `DIR/<name>.<ext>`, with the shard in its name.
fn out_file(plan: &Plan, name: &str, extension: &str) -> PathBuf {
    plan.out.join(match plan.shard {
        Some(shard) => format!("{name}.{}-of-{}.{extension}", shard.part, shard.of),
        None => format!("{name}.{extension}"),
    })
}

/// Files that no result may take the place of.
fn read_files(args: &ExplainArgs, plan: &Plan, sources: &[Source]) -> HashSet<PathBuf> {
    let mut paths: Vec<&Path> = sources.iter().map(|s| s.path.as_path()).collect();
    paths.extend(args.model.model.as_deref().map(Path::new));
    paths.extend(args.preparation.labels.as_deref());
    if let TargetChoice::File(path) = &plan.target {
        paths.push(path);
    }
    paths.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

/// Keeps other runs from writing to the same records in `out` until it is dropped.
pub fn lock(path: &Path, out: &Path) -> Result<File> {
    // Of a link nobody knows where it leads, and a pipe would be waited for.
    if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        bail!("{}: this is no regular file", path.display());
    }
    let options = File::options().create(true).truncate(false).write(true).open(path);
    let file = options.map_err(|e| verilume::Error::io(path, e))?;
    // A run that starts may look at this lock for a moment.
    for _ in 0..LOOKS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            // There are file systems without locks.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    bail!("another run is writing to {}", out.display())
}

/// Every setting that results depend on, whatever the method.
fn common(plan: &Plan, model: &Model, preprocess: &Preprocess, engine: &Engine) -> Result<serde_json::Value> {
    let target = match &plan.target {
        TargetChoice::File(path) => {
            // The file's content counts, not its name.
            let content = read_file(path)?;
            format!("file:{}", hex(&Sha256::digest(content)))
        }
        _ => plan.target_text.clone(),
    };
    let mut common = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": model.sha256(), "architecture": model.architecture(),
        "preprocessing": preprocess, "target": target, "score": plan.score_name(), "seed": plan.seed,
        "formats": format_names(plan), "winsorise": plan.winsorise,
    });
    computing::note(&mut common, &plan.settings, engine)?;
    Ok(common)
}

fn format_names(plan: &Plan) -> Vec<String> {
    plan.formats.iter().map(|f| format!("{f:?}").to_lowercase()).collect()
}

/// The methods, built, with the fingerprint of everything their results depend on, and what is to be said of their files.
fn ready(
    plan: &Plan,
    common: serde_json::Value,
    preprocess: &Preprocess,
    labels: &Labels,
) -> Result<(Vec<Ready>, Noticed)> {
    let mut settings = common;
    settings["labels"] = labels.iter().collect();
    if plan.wants(Format::Grid) {
        // A sheet shows all methods.
        settings["sheet"] = plan.methods.iter().map(|m| m.spec.to_string()).collect();
    }
    let (built, noticed) = methods::build(&plan.methods, plan.seed, plan.score, preprocess)?;
    if plan.wants(Format::Grid) {
        settings["sheet_files"] = built.iter().map(|b| b.files.as_str()).collect();
    }
    let ready = plan.methods.iter().zip(built).map(|(named, built)| {
        settings["method"] = named.spec.to_string().into();
        settings["files"] = built.files.into();
        Ready { id: named.id.clone(), settings: fingerprint(&settings), method: built.method, proven: false }
    });
    Ok((ready.collect(), noticed))
}

/// What of the journal still counts.
fn settle(
    plan: &Plan,
    past: &Past<Line>,
    (sources, finder, names): (&[Source], &Finder, &Names),
    current: &Current,
    targets: &Targets,
) -> Done {
    let rows = |s: &Source| s.is_array().then(|| ArrayFile::open(&s.path).map_or(0, |array| array.rows()));
    let rows: Vec<Option<usize>> = sources.iter().map(rows).collect();
    let demands = Demands {
        maps: targets.count(),
        one_file_an_array: plan.wants(Format::Npy) || plan.wants(Format::Safetensors),
        one_sheet_an_item: plan.wants(Format::Grid),
    };
    let known = Known { sources, rows: &rows, finder, names };
    Done::settle(&past.entries, &past.standing, known, current, demands)
}

fn manifest(
    plan: &Plan,
    model: &Model,
    preprocess: &Preprocess,
    methods: &[Ready],
    description: Description,
) -> Result<Manifest> {
    let used = plan.methods.iter().zip(methods).map(|(named, ready)| MethodUsed {
        id: named.id.clone(),
        name: named.spec.entry.id.to_string(),
        spec: named.spec.to_string(),
        parameters: named.spec.values().iter().map(|(key, value)| (key.into(), value.into())).collect(),
        settings: ready.settings.clone(),
    });
    Ok(Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        command: "explain".into(),
        model: ModelUsed {
            name: model.name().into(),
            architecture: model.architecture().into(),
            sha256: model.sha256().into(),
        },
        preprocessing: serde_json::to_value(preprocess)?,
        methods: used.collect(),
        target: plan.target_text.clone(),
        score: plan.score_name().into(),
        seed: plan.seed,
        device: description.device,
        kernels: description.kernels,
        precision: computing::precision_name(&plan.settings).into(),
        threads: description.threads,
        memory_bytes: plan.settings.memory,
        formats: format_names(plan),
        shard: plan.shard.map(|s| s.to_string()),
        ignored_files: 0,
        seconds: 0.0,
        files: Vec::new(),
        assumed: Vec::new(),
        warnings: Vec::new(),
        record_version: verilume::report::RECORD_VERSION,
    })
}
