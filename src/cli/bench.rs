//! `verilume bench`: how long a call takes.

use anyhow::Result;
use serde::Serialize;

use crate::cli::args::BenchArgs;
use crate::cli::computing;
use crate::cli::exit::ExitCode;
use crate::cli::measured_net::MeasuredNet;
use crate::cli::tables::table;
use crate::cli::talk::{self, InputProgress, StandardOutput, Voice};
use crate::cli::timing::CallSeconds;
use crate::device::cpu::Convolution;
use crate::engine::{Engine, Settings};
use crate::run::{Listener, Named, Said, methods, precision_name};

/// Nothing could be measured.
const NOTHING_DONE: u8 = 2;
/// Some combinations failed.
const SOME_FAILED: u8 = 1;

/// One combination, measured.
#[derive(Debug, Serialize)]
struct BenchRow {
    model: String,
    method: String,
    spec: String,
    batch: usize,
    threads: usize,
    device: String,
    kernels: String,
    precision: String,
    conv: Convolution,
    /// The pictures' c × h × w.
    input: [usize; 3],
    /// Bytes that were allowed.
    memory: Option<u64>,
    seed: u64,
    median_s: f64,
    p10_s: f64,
    p90_s: f64,
    peak_bytes: u64,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let methods = methods(&args.methods)?;
    let settings = computing::settings(&args.resources, None)?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    // What is missing is said once, before the first combination.
    computing::open(&settings, voice)?;
    let net = MeasuredNet::new(&args.measured, args.resources.seed)?;
    for named in &methods {
        net.method(&named.spec)?;
    }
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    let combinations: Vec<_> = methods
        .iter()
        .flat_map(|m| args.batch.iter().map(move |&b| (m, b)))
        .flat_map(|(m, b)| threads.iter().map(move |&t| (m, b, t)))
        .collect();
    let progress = InputProgress::new(voice);
    progress.begin(combinations.len());
    Said::of_net(&net.model).tell(&progress);
    progress.say(&format!(
        "{}: noise of {}, class {}, 1 call untimed, {} timed",
        net.model.name(),
        net.graph.input_shape(),
        net.target(),
        args.repeat
    ));
    let mut answer = StandardOutput::default();
    let mut rows = Vec::new();
    for &(named, batch, threads) in &combinations {
        let what =
            format!("{} batch {batch}{}", named.id, threads.map_or_else(String::new, |t| format!(" threads {t}")));
        progress.at(&what);
        // Through the options' own checks, each number of threads by itself.
        let settings = computing::settings(&args.resources, threads)?;
        let case = Combination { named, batch, settings: &settings, repeat: args.repeat };
        match measure(&net, &case, &what, &progress) {
            Ok(row) => {
                progress.step(&format!("{what}: {:.4} s", row.median_s));
                if args.json {
                    let line = serde_json::to_string(&row)?;
                    progress.bar().aside(|| answer.line(&line))?;
                }
                rows.push(row);
            }
            Err(e) => {
                if args.quiet {
                    talk::say(&format!("{what}: {e}"));
                }
                progress.step(&format!("{what}: failed: {e}"));
            }
        }
    }
    progress.finish();
    if !args.json && !rows.is_empty() {
        answer.line(&described(&rows))?;
    }
    Ok(match (rows.len(), combinations.len()) {
        (0, _) => ExitCode::from(NOTHING_DONE),
        (done, all) if done < all => ExitCode::from(SOME_FAILED),
        _ => ExitCode::SUCCESS,
    })
}

/// One combination.
struct Combination<'a> {
    named: &'a Named,
    batch: usize,
    settings: &'a Settings,
    repeat: usize,
}

/// An engine of its own for each combination, so that its memory is that combination's.
fn measure(net: &MeasuredNet, case: &Combination<'_>, what: &str, progress: &InputProgress) -> Result<BenchRow> {
    let &Combination { named, batch, settings, repeat } = case;
    let mut engine = Engine::new(settings)?;
    let method = net.method(&named.spec)?;
    let x = net.batch(batch, settings, progress)?;
    let targets = vec![net.target(); batch];
    let mut calls = 0;
    let times = CallSeconds::of(repeat, || {
        method.explain(&mut engine, &net.graph, &x, &targets)?;
        calls += 1;
        progress.at(&format!("{what}: {calls} of {} calls", repeat + 1));
        Ok(())
    })?;
    let on = engine.describe();
    Ok(BenchRow {
        model: net.model.name().into(),
        method: named.id.clone(),
        spec: named.spec.to_string(),
        batch,
        threads: on.threads,
        device: on.device,
        kernels: on.kernels,
        precision: precision_name(settings).into(),
        conv: settings.convolution,
        input: net.graph.input_shape().dims(),
        memory: settings.memory,
        seed: net.seed,
        median_s: times.median(),
        p10_s: times.quantile(0.1),
        p90_s: times.quantile(0.9),
        peak_bytes: engine.peak_bytes(),
    })
}

fn described(rows: &[BenchRow]) -> String {
    let header = [
        "model",
        "method",
        "device",
        "kernels",
        "precision",
        "batch",
        "threads",
        "median s",
        "p10 s",
        "p90 s",
        "peak MiB",
    ];
    let row = |r: &BenchRow| {
        [
            r.model.clone(),
            r.spec.clone(),
            r.device.clone(),
            r.kernels.clone(),
            r.precision.clone(),
            r.batch.to_string(),
            r.threads.to_string(),
            format!("{:.5}", r.median_s),
            format!("{:.5}", r.p10_s),
            format!("{:.5}", r.p90_s),
            format!("{:.1}", r.peak_bytes as f64 / f64::from(1 << 20)),
        ]
    };
    table(header, rows.iter().map(row), 5)
}
