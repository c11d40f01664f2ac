//! `verilume explain`: opens the net, goes through the inputs, closes the books.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use verilume::device::Description;
use verilume::engine::Engine;
use verilume::image::Preprocess;
use verilume::model::{Labels, Model};
use verilume::report::{Journal, Line, Manifest, MethodUsed, ModelUsed};

use crate::args::{ExplainArgs, Format};
use crate::arrays::ArrayFile;
use crate::book::Book;
use crate::computing;
use crate::drawing;
use crate::inputs::{self, Inputs, Source};
use crate::listing;
use crate::methods::{self, fingerprint, hex};
use crate::plan::{self, Earlier, Plan};
use crate::resume::{Current, Demands, Done, Known};
use crate::runner::{Ready, Runner};
use crate::said::Said;
use crate::talk::{Answer, Progress, Voice, counted};
use crate::targets::{TargetChoice, Targets};

/// Nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Some inputs failed.
const SOME_FAILED: u8 = 1;

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
    let targets = plan.target.resolve(&labels, model.classes())?;
    let mut engine = computing::open(&plan.settings, plan.voice)?;
    let common = common(&plan, &model, &preprocess, &engine)?;
    let methods = ready(&plan, common.clone(), &preprocess, &labels)?;
    std::fs::create_dir_all(&plan.out).map_err(|e| verilume::Error::io(&plan.out, e))?;
    let _lock = lock(&out_file(&plan, ".records", "lock"), &plan.out)?;

    let Inputs { mut sources, ignored } = inputs::find(&plan.inputs, &plan.out);
    if sources.is_empty() {
        bail!("no inputs");
    }
    let read = read_files(args, &plan, &sources);
    if let Some(shard) = plan.shard {
        sources.retain(|s| inputs::belongs(s, shard));
    }
    let records = out_file(&plan, "records", "jsonl");
    let input_settings = fingerprint(&common);
    let current = Current {
        methods: methods.iter().map(|m| (m.id.clone(), m.settings.clone())).collect(),
        inputs: input_settings.clone(),
    };
    let done = match plan.earlier {
        Earlier::Resume => settle(&plan, &sources, &current, &targets, Journal::read(&records)?),
        Earlier::Forget => Done::default(),
    };
    let mut progress = Progress::new(plan.voice, sources.len());
    let said = Said::new(&model, &preprocess, &args.preparation);
    said.tell(&progress);
    engine.observe(progress.listener());
    if ignored > 0 {
        progress.say(&format!("{ignored} files that are neither pictures nor arrays are left out"));
    }
    if done.outdated > 0 {
        progress.say(&format!("{} earlier results have other settings and are made again", done.outdated));
    }
    if let TargetChoice::Top(k) = plan.target
        && k > model.classes()
    {
        progress.say(&format!("--target top:{k}: all {} classes of the net are explained", model.classes()));
    }
    let manifest_path = out_file(&plan, "manifest", "json");
    // A manifest says that a run has ended: one of an earlier run must not stand beside this run's records.
    match std::fs::remove_file(&manifest_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(verilume::Error::io(&manifest_path, e).into()),
        _ => {}
    }
    let ids: Vec<String> = methods.iter().map(|m| m.id.clone()).collect();
    let journal = Journal::start(&records, &done.kept)?;
    let book = Book::new(journal, plan.reply, &sources, &ids, input_settings, said);
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
    };
    let ended = runner.all(&mut progress);
    progress.finish();
    ended?;
    runner.book.said.judge(model.classes(), &progress);
    manifest.assumed.clone_from(&runner.book.said.assumed);
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
    let options = File::options().create(true).truncate(false).write(true).open(path);
    let file = options.map_err(|e| verilume::Error::io(path, e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("another run is writing to {}", out.display()),
        // There are file systems without locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Every setting that results depend on, whatever the method.
fn common(plan: &Plan, model: &Model, preprocess: &Preprocess, engine: &Engine) -> Result<serde_json::Value> {
    let target = match &plan.target {
        TargetChoice::File(path) => {
            // The file's content counts, not its name.
            let content = std::fs::read(path).unwrap_or_default();
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

/// The methods, built, with the fingerprint of everything their results depend on.
fn ready(plan: &Plan, common: serde_json::Value, preprocess: &Preprocess, labels: &Labels) -> Result<Vec<Ready>> {
    let mut settings = common;
    settings["labels"] = labels.iter().collect();
    if plan.wants(Format::Grid) {
        // A sheet shows all methods.
        settings["sheet"] = plan.methods.iter().map(|m| m.spec.to_string()).collect();
    }
    let built = methods::build(&plan.methods, plan.seed, plan.score, preprocess)?;
    if plan.wants(Format::Grid) {
        settings["sheet_files"] = built.iter().map(|b| b.files.as_str()).collect();
    }
    let ready = plan.methods.iter().zip(built).map(|(named, built)| {
        settings["method"] = named.spec.to_string().into();
        settings["files"] = built.files.into();
        Ready { id: named.id.clone(), settings: fingerprint(&settings), method: built.method, proven: false }
    });
    Ok(ready.collect())
}

/// What of `lines` still counts.
fn settle(plan: &Plan, sources: &[Source], current: &Current, targets: &Targets, lines: Vec<Line>) -> Done {
    let rows = |s: &Source| s.is_array().then(|| ArrayFile::open(&s.path).map_or(0, |array| array.rows()));
    let known: Vec<Known> = sources.iter().map(|source| Known { source, rows: rows(source) }).collect();
    let demands = Demands {
        maps: targets.count(),
        one_file_an_array: plan.wants(Format::Npy) || plan.wants(Format::Safetensors),
        one_sheet_an_item: plan.wants(Format::Grid),
    };
    Done::settle(lines, &known, current, demands, &plan.out)
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
