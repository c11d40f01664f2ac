//! `verilume eval`: opens the net, goes through the data, sums up.

mod metrics;
mod run;
mod summary;
mod units;

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::json;
use verilume::report::eval::{Asked, Evaluated, Score, Summary};
use verilume::report::{Journal, ModelUsed, Versioned, replace};
use verilume::tensor::Shape;

use crate::args::{EvalArgs, MosaicSize, TargetArg};
use crate::computing;
use crate::data::{Data, Reader, Wanted};
use crate::explain::lock;
use crate::listing;
use crate::methods;
use crate::outputs;
use crate::paths;
use crate::plan;
use crate::said::Said;
use crate::talk::{Answer, Progress, Voice, counted};
use metrics::Measure;
use run::{Method, Runner};
use units::{Kind, Units};

/// Nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Something failed.
const SOME_FAILED: u8 = 1;

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    let mut answer = Answer::default();
    if args.list_metrics {
        let text = if args.json { listing::metrics_json().to_string() } else { listing::metrics_text() };
        answer.line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let kind = match (args.mosaics, args.mosaic_size, &args.boxes) {
        (Some(count), size, _) => Kind::Mosaics {
            count,
            size: match size {
                MosaicSize::Native => verilume::reliability::mosaic::Size::Native,
                MosaicSize::Double => verilume::reliability::mosaic::Size::Double,
            },
        },
        (None, _, Some(_)) => Kind::Boxed,
        (None, _, None) => Kind::Pictures,
    };
    let mut named = plan::methods(&args.methods)?;
    let metrics = metrics::choose(&args.metrics, kind, args.unlabelled)?;
    let target = args.target.unwrap_or(match kind {
        Kind::Mosaics { .. } => TargetArg::Label,
        _ => TargetArg::Predicted,
    });
    if target == TargetArg::Label && args.unlabelled {
        bail!("--target label: with --unlabelled there may be none");
    }
    let settings = computing::settings(&args.resources, args.threads)?;
    let model = plan::open_model(&args.model)?;
    if model.default_input() == Shape::vector(model.default_input().c) {
        bail!("{}: metrics ask where a map points, and a net on vectors has no places", model.name());
    }
    if named.is_empty() {
        named = plan::default_methods(&model)?;
    }
    let preprocess = plan::preparation(&model, &args.preparation)?;
    let labels = plan::labels(&model, &args.preparation)?;
    let (score, seed) = (plan::score(args.score), args.resources.seed);
    let (built, noticed) = methods::build(&named, seed, score, &preprocess)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let mut engine = computing::open(&settings, voice)?;
    std::fs::create_dir_all(&args.out).map_err(|e| verilume::Error::io(&args.out, e))?;
    let _lock = lock(&args.out.join(".eval.lock"), &args.out)?;
    let wanted = Wanted {
        data: &args.data,
        labels_csv: args.labels_csv.as_deref(),
        boxes: args.boxes.as_deref(),
        unlabelled: args.unlabelled,
        shuffle: args.shuffle.then_some(seed),
        limit: args.limit,
        out: &args.out,
    };
    let data = Data::find(&wanted, &labels, model.classes())?;
    let mut common = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": model.sha256(), "architecture": model.architecture(),
        "preprocessing": preprocess, "labels": labels.iter().collect::<Vec<_>>(), "target": target_name(target),
        "score": plan::score_name(score), "seed": seed, "kind": kind.name(),
        "methods": named.iter().map(|m| m.spec.to_string()).collect::<Vec<_>>(),
        "files": built.iter().map(|b| b.files.as_str()).collect::<Vec<_>>(),
        "metrics": metrics.iter().map(|m| m.spec.to_string()).collect::<Vec<_>>(),
    });
    computing::note(&mut common, &settings, &engine)?;
    let units = Units::new(&data, kind, seed, &common)?;

    let mut progress = Progress::new(voice, units.all.len());
    engine.observe(progress.listener());
    let mut said = Said::new(&model, &preprocess, &args.preparation);
    said.of_files(noticed);
    said.tell(&progress);
    plan::many_passes(&named).for_each(|line| progress.say(&line));
    data.left_out.iter().for_each(|sentence| progress.say(sentence));
    if let Some(boxes) = &data.boxes {
        match boxes.strangers(&data.sources) {
            0 => {}
            n => progress.say(&format!("{}: {} not among the data", boxes.path().display(), counted(n, "file"))),
        }
    }
    if data.strangers > 0 {
        progress.say(&format!("--labels-csv: {} not among the data", counted(data.strangers, "file")));
    }
    let path = args.out.join("eval.jsonl");
    let settled = settle(Journal::read::<Evaluated>(&path)?, &units, args.resume);
    if settled.outdated > 0 {
        progress.say(&format!("{} earlier results have other settings and are made again", settled.outdated));
    }
    if settled.dropped > 0 {
        progress.say(&format!("{} of an earlier run left out", counted(settled.dropped, "mosaic")));
    }
    // A summary says that a run has ended: one of an earlier run must not stand beside this run's lines.
    let summary_path = args.out.join("summary.json");
    let data_named: Vec<String> = args.data.iter().map(|name| paths::shown(std::path::Path::new(name))).collect();
    if let Some(kept) = outputs::set_aside(&summary_path, |summary| summary["data"] == json!(data_named))? {
        progress.say(&format!("the summary of other data is kept as {}", kept.display()));
    }
    match std::fs::remove_file(&summary_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(verilume::Error::io(&summary_path, e).into());
        }
        _ => {}
    }
    settled.done.iter().flatten().for_each(|line| said.remember(&line.assumed, &line.warnings));
    let journal = Journal::start(&path, &settled.kept)?;
    let device = engine.describe();
    let methods = named.iter().zip(built).map(|(named, built)| Method::new(named.id.clone(), built.method));
    let mut runner = Runner {
        model: &model,
        preprocess: &preprocess,
        labels: &labels,
        engine,
        data: &data,
        reader: Reader::default(),
        units: &units,
        methods: methods.collect(),
        metrics: &metrics,
        target,
        seed,
        journal,
        said,
        lines: settled.done,
    };
    let ended = runner.all(&mut progress);
    let closed = runner.journal.sync();
    progress.finish();
    ended?;
    closed?;

    let mut said = runner.said;
    if matches!(kind, Kind::Pictures | Kind::Boxed) {
        runner.lines.iter().flatten().filter_map(|line| line.correct).for_each(|right| said.count(right));
        said.judge(model.classes(), &progress);
    }
    let lines: Vec<Evaluated> = runner.lines.into_iter().flatten().collect();
    let asked: Vec<Asked> = named
        .iter()
        .map(|m| Asked { id: m.id.clone(), spec: m.spec.to_string(), paper: m.spec.entry.paper.into() })
        .collect();
    let bootstrap = verilume::reliability::bootstrap::Bootstrap::new(seed);
    let summary = Summary {
        version: env!("CARGO_PKG_VERSION").into(),
        model: ModelUsed {
            name: model.name().into(),
            architecture: model.architecture().into(),
            sha256: model.sha256().into(),
        },
        preprocessing: serde_json::to_value(&preprocess)?,
        data: data_named,
        kind: kind.name().into(),
        pictures: lines.len(),
        failed: lines.iter().filter(|l| l.error.is_some()).count(),
        target: target_name(target).into(),
        score: plan::score_name(score).into(),
        seed,
        device: format!("{} ({}), {}", device.device, device.kernels, computing::precision_name(&settings)),
        scores: summary::scores(&lines, &asked, &metrics, &bootstrap, &said)?,
        methods: asked,
        metrics: metrics.iter().map(Measure::asked).collect(),
        bootstrap,
        warnings: said.all(),
        assumed: said.all_assumed(),
        record_version: verilume::report::RECORD_VERSION,
    };
    let mut bytes = serde_json::to_vec_pretty(&summary)?;
    bytes.push(b'\n');
    replace(&summary_path, &bytes)?;
    if args.json {
        for score in &summary.scores {
            // Each line is read by itself.
            let (assumed, warnings) = (summary.assumed.clone(), summary.warnings.clone());
            let score = Score { assumed, warnings, ..score.clone() };
            answer.line(&serde_json::to_string(&Versioned::new(score))?)?;
        }
    } else {
        answer.line(&summary::table(&summary, &lines))?;
    }
    let failures: usize = lines.iter().map(Evaluated::failures).sum();
    if failures > 0 && voice == Voice::Normal {
        progress.say(&format!("{} in {}", counted(failures, "failure"), path.display()));
    }
    let measured = lines.iter().flat_map(|l| l.methods.values()).any(|m| !m.readings.is_empty());
    Ok(match (measured, failures) {
        (false, _) => ExitCode::from(NOTHING_DONE),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(SOME_FAILED),
    })
}

fn target_name(target: TargetArg) -> &'static str {
    match target {
        TargetArg::Predicted => "predicted",
        TargetArg::Label => "label",
    }
}

/// What an earlier run has left.
struct Settled {
    /// By unit, its line where it need not be made again.
    done: Vec<Option<Evaluated>>,
    /// Lines for the new journal.
    kept: Vec<Evaluated>,
    /// Lines that were made with other settings.
    outdated: usize,
    /// Mosaics of other draws.
    dropped: usize,
}

/// Sorts out the lines of an earlier run. Those of pictures that this run leaves out stay; failures are tried again, and without
/// `resume` so is everything.
fn settle(lines: Vec<Evaluated>, units: &Units, resume: bool) -> Settled {
    let key = |input: &str, index: Option<usize>, parts: &[String]| (input.to_owned(), index, parts.to_vec());
    let places: HashMap<_, usize> =
        units.all.iter().enumerate().map(|(at, u)| (key(&u.input, u.index, &u.parts), at)).collect();
    let mut settled = Settled { done: vec![None; units.all.len()], kept: Vec::new(), outdated: 0, dropped: 0 };
    for line in lines {
        match places.get(&key(&line.input, line.index, &line.parts)) {
            // A mosaic is drawn by its run: without `resume` those of other draws go.
            None if !resume && !line.parts.is_empty() => settled.dropped += 1,
            None => settled.kept.push(line),
            Some(_) if !resume => {}
            Some(&at) => {
                let unit = &units.all[at];
                // Of what was changed nothing counts; where nobody can tell, everything does.
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
