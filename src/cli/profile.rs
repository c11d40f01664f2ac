//! `verilume profile`: where the time of a call goes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::cli::args::ProfileArgs;
use crate::cli::computing;
use crate::cli::measured_net::MeasuredNet;
use crate::cli::steps::{Rate, StepKey, StepRow};
use crate::cli::tables::{align, plain, table};
use crate::cli::talk::{InputProgress, StandardOutput, Voice};
use crate::cli::timeline;
use crate::cli::timing::CallSeconds;
use crate::data::paths;
use crate::device::cpu::Convolution;
use crate::device::cpu::peaks::{self, Peaks};
use crate::engine::{Engine, Profile};
use crate::program::{Plan, StepPass, Work};
use crate::report::replace;
use crate::run::{Listener, Said, precision_name};
use crate::text;

/// Steps taken together.
#[derive(Debug, Serialize)]
struct Total {
    name: String,
    steps: usize,
    ms: f64,
    /// Of the time of all steps.
    time_share: f64,
    flops: u64,
    bytes: u64,
    gflop_s: f64,
    gb_s: f64,
    /// Sum of the times that the steps' limits would take (of a step, at most the time taken), by the time taken.
    roofline_share: Option<f64>,
}

impl Total {
    fn new(name: &str, rows: &[&StepRow], all_ms: f64) -> Self {
        let ms: f64 = rows.iter().map(|r| r.ms).sum();
        let (flops, bytes) = rows.iter().fold((0, 0), |(f, b), r| (f + r.rate.flops, b + r.rate.bytes));
        let ideal_ms: Option<f64> = rows.iter().map(|r| Some(r.rate.roofline_share?.min(1.0) * r.ms)).sum();
        let by = |amount: f64, by: f64| if by > 0.0 { amount / by } else { 0.0 };
        Self {
            name: name.into(),
            steps: rows.len(),
            ms,
            time_share: by(ms, all_ms),
            flops,
            bytes,
            gflop_s: by(flops as f64 / 1e6, ms),
            gb_s: by(bytes as f64 / 1e6, ms),
            roofline_share: ideal_ms.map(|ideal_ms| by(ideal_ms, ms)),
        }
    }
}

#[derive(Debug, Serialize)]
struct ProfileReport {
    model: String,
    method: String,
    spec: String,
    target: usize,
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
    repeat: usize,
    /// Of the CPU.
    peaks: Option<Peaks>,
    peak_bytes: u64,
    /// Median of the whole call.
    total_ms: f64,
    /// Sum of the steps' medians.
    steps_ms: f64,
    steps: Vec<StepRow>,
    by_kernel: Vec<Total>,
    by_pass: Vec<Total>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<ProfileComparison>,
}

/// How an earlier profile relates to this one.
#[derive(Debug, Serialize)]
struct ProfileComparison {
    file: String,
    old_total_ms: f64,
    total_ratio: f64,
    old_steps_ms: f64,
    steps_ratio: f64,
    /// Steps that only one of the two has.
    unmatched: usize,
}

/// What is read of an earlier profile.
#[derive(Debug, Deserialize)]
struct EarlierProfile {
    model: String,
    spec: String,
    batch: usize,
    threads: usize,
    precision: String,
    device: String,
    kernels: String,
    conv: Convolution,
    input: [usize; 3],
    memory: Option<u64>,
    total_ms: f64,
    steps_ms: f64,
    steps: Vec<StepRow>,
}

impl EarlierProfile {
    /// What was measured otherwise.
    fn apart(&self, now: &ProfileReport) -> Vec<&'static str> {
        let settings = [
            ("net", self.model != now.model),
            ("method", self.spec != now.spec),
            ("batch", self.batch != now.batch),
            ("size", self.input != now.input),
            ("device", self.device != now.device),
            ("set of kernels", self.kernels != now.kernels),
            ("precision", self.precision != now.precision),
            ("--conv", self.conv != now.conv),
            ("--memory", self.memory != now.memory),
            ("number of threads", self.threads != now.threads),
        ];
        settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// Runs the command.
pub fn run(args: &ProfileArgs) -> Result<()> {
    spare(args)?;
    let earlier = args.compare.as_deref().map(read).transpose()?;
    let voice = if args.quiet { Voice::Quiet } else { Voice::Normal };
    let progress = InputProgress::new(voice);
    let settings = computing::settings(&args.resources, args.threads)?;
    let net = MeasuredNet::new(&args.measured, args.resources.seed)?;
    Said::of_net(&net.model).tell(&progress);
    let spec = args.method.parse()?;
    let method = net.method(&spec)?;
    let mut engine = computing::open(&settings, voice)?;
    let on = engine.describe();
    let x = net.batch(args.batch, &settings, &progress)?;
    // What a GPU can do at best is not known here, and kernels that are emulated have no roof.
    let peaks = if on.device == "cpu" {
        progress.say(&format!("measuring what {} can do at best", threads(on.threads)));
        Some(peaks::measure(on.precision, settings.kernels, on.threads)?)
    } else {
        None
    };

    let targets = vec![net.target(); args.batch];
    progress.say(&format!(
        "{} {spec}: noise of {}, class {}, 1 call untimed, {} timed",
        net.model.name(),
        net.graph.input_shape(),
        net.target(),
        args.repeat
    ));
    let mut calls = Vec::new();
    for timed in 0..=args.repeat {
        let ((), profile) = engine.profile(|e| method.explain(e, &net.graph, &x, &targets).map(drop))?;
        if timed > 0 {
            calls.push(profile);
        }
    }
    let mut steps = rows(&engine, &calls, peaks.as_ref());
    let total_ms = CallSeconds::new(calls.iter().map(|c| c.elapsed.as_secs_f64() * 1e3).collect()).median();
    let steps_ms: f64 = steps.iter().map(|r| r.ms).sum();
    let by_kernel = totals(&steps, steps_ms, |r| &r.kernel);
    let by_pass = totals(&steps, steps_ms, |r| &r.pass);
    let mut report = ProfileReport {
        model: net.model.name().into(),
        method: spec.entry.id.into(),
        spec: spec.to_string(),
        target: net.target(),
        batch: args.batch,
        threads: on.threads,
        device: on.device,
        kernels: on.kernels,
        precision: precision_name(&settings).into(),
        conv: settings.convolution,
        input: net.graph.input_shape().dims(),
        memory: settings.memory,
        seed: net.seed,
        repeat: args.repeat,
        peaks,
        peak_bytes: engine.peak_bytes(),
        total_ms,
        steps_ms,
        steps: Vec::new(),
        by_kernel,
        by_pass,
        compared: None,
    };
    if let (Some(earlier), Some(path)) = (earlier, &args.compare) {
        let apart = earlier.apart(&report);
        if !apart.is_empty() {
            progress.say(&format!("{} was made with another {}", path.display(), apart.join(", ")));
        }
        report.compared = Some(compare(&earlier, &mut steps, path, &report));
    }
    let title = format!("{} {}", report.model, report.spec);
    let timeline = calls.last().map(|last| timeline::json(&title, last, &plans(&calls), &steps).to_string());
    report.steps = steps;
    progress.finish();
    answer(args, &report)?;
    match (&args.trace, timeline) {
        (Some(path), Some(timeline)) => write(path, &timeline),
        _ => Ok(()),
    }
}

/// Refuses to write over the model's file, over files of other programs, and twice to one file.
fn spare(args: &ProfileArgs) -> Result<()> {
    let json = args.json.as_deref().filter(|path| path.as_os_str() != "-");
    let is_profile = |path: &Path| read(path).is_ok();
    let is_timeline = |path: &Path| {
        let parsed = crate::data::files::json(path);
        parsed.is_some_and(|text| text.get("traceEvents").is_some())
    };
    let model = args.measured.model.model.as_deref().and_then(|name| Path::new(name).canonicalize().ok());
    let is_own = |option: &str, path: &Path| if option == "--json" { is_profile(path) } else { is_timeline(path) };
    for (option, path) in [("--json", json), ("--trace", args.trace.as_deref())] {
        let Some(path) = path else { continue };
        if model.is_some() && path.canonicalize().ok() == model {
            bail!("{option} {}: this is the model's file", path.display());
        }
        if path.is_file() && !is_own(option, path) {
            bail!("{option} {}: this file is not an earlier one of this option; give another name", path.display());
        }
    }
    match (json, &args.trace) {
        (Some(json), Some(trace)) if paths::full(json) == paths::full(trace) => {
            bail!("--json and --trace both name {}; give each a file of its own", json.display())
        }
        _ => Ok(()),
    }
}

fn answer(args: &ProfileArgs, report: &ProfileReport) -> Result<()> {
    let mut answer = StandardOutput::default();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(report)?;
        if path.as_os_str() == "-" {
            return Ok(answer.line(&text)?);
        }
        // What was measured is shown whether or not it can be written.
        answer.line(&described(report))?;
        return write(path, &text);
    }
    Ok(answer.line(&described(report))?)
}

fn read(path: &Path) -> Result<EarlierProfile> {
    let text = text::read(path)?;
    serde_json::from_str(&text).map_err(|e| anyhow!("{} is not a profile's JSON: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    Ok(replace(path, text.as_bytes())?)
}

/// The programs of all calls in the order of their first run.
fn plans(calls: &[Profile]) -> Vec<Arc<Plan>> {
    let mut plans: Vec<Arc<Plan>> = Vec::new();
    for chunk in calls.iter().flat_map(|c| &c.chunks) {
        if !plans.iter().any(|p| Arc::ptr_eq(p, &chunk.plan)) {
            plans.push(Arc::clone(&chunk.plan));
        }
    }
    plans
}

fn rows(engine: &Engine, calls: &[Profile], peaks: Option<&Peaks>) -> Vec<StepRow> {
    let scalar_bytes = engine.describe().precision.bytes();
    let mut rows = Vec::new();
    for (program, plan) in plans(calls).iter().enumerate() {
        let passes = StepPass::of(plan.steps());
        for (position, step) in plan.steps().iter().enumerate() {
            let of_call = |call: &Profile| {
                let chunks = call.chunks.iter().filter(|c| Arc::ptr_eq(&c.plan, plan));
                chunks.map(|c| c.steps[position].as_secs_f64()).sum::<f64>()
            };
            let seconds = CallSeconds::new(calls.iter().map(of_call).collect()).median();
            let work = Work::of(step, plan.program().forms(), scalar_bytes);
            let chunks = calls[0].chunks.iter().filter(|c| Arc::ptr_eq(&c.plan, plan));
            let (flops, bytes) =
                chunks.fold((0, 0), |(f, b), c| (f + work.chunk_flops(c.copies), b + work.chunk_bytes(c.copies)));
            let shape = |v: Option<&crate::program::Value>| v.map(|&v| plan.form(v).shape().dims());
            let (read, written) = (shape(step.reads().first()), shape(step.writes().first()));
            rows.push(StepRow {
                program,
                position,
                pass: passes[position].name().into(),
                primitive: step.kind().into(),
                fused: step.fused().into_iter().map(String::from).collect(),
                layer: step.layer().map(String::from),
                kernel: engine.kernel(plan, position).into(),
                input: read.or(written).unwrap_or_default(),
                output: written.or(read).unwrap_or_default(),
                ms: seconds * 1e3,
                rate: Rate::new(flops, bytes, seconds, peaks),
                old_ms: None,
                ratio: None,
            });
        }
    }
    rows
}

/// Steps of equal name taken together, the longest first.
fn totals(rows: &[StepRow], all_ms: f64, name: impl Fn(&StepRow) -> &String) -> Vec<Total> {
    let mut groups: Vec<(&String, Vec<&StepRow>)> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|(n, _)| *n == name(row)) {
            Some((_, group)) => group.push(row),
            None => groups.push((name(row), vec![row])),
        }
    }
    let mut totals: Vec<Total> = groups.iter().map(|(name, group)| Total::new(name, group, all_ms)).collect();
    totals.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    totals
}

/// Fills in what each step took in an earlier profile. The n-th step of a kind, layer and shape meets the n-th of then.
fn compare(earlier: &EarlierProfile, steps: &mut [StepRow], path: &Path, report: &ProfileReport) -> ProfileComparison {
    let mut then: HashMap<StepKey, std::collections::VecDeque<f64>> = HashMap::new();
    for row in &earlier.steps {
        then.entry(row.key()).or_default().push_back(row.ms);
    }
    let mut unmatched = 0;
    for row in steps {
        row.old_ms = then.get_mut(&row.key()).and_then(|times| times.pop_front());
        row.ratio = row.old_ms.filter(|&old| old > 0.0).map(|old| row.ms / old);
        unmatched += usize::from(row.old_ms.is_none());
    }
    let by = |now: f64, then: f64| if then > 0.0 { now / then } else { 0.0 };
    ProfileComparison {
        file: path.display().to_string(),
        old_total_ms: earlier.total_ms,
        total_ratio: by(report.total_ms, earlier.total_ms),
        old_steps_ms: earlier.steps_ms,
        steps_ratio: by(report.steps_ms, earlier.steps_ms),
        unmatched: unmatched + then.values().map(|t| t.len()).sum::<usize>(),
    }
}

fn described(r: &ProfileReport) -> String {
    let shape = |[c, h, w]: [usize; 3]| if h * w == 1 { c.to_string() } else { format!("{c}x{h}x{w}") };
    let mut steps = plain();
    let mut header = vec!["step", "pass", "primitive", "layer", "kernel", "in", "out"];
    let names = header.len();
    header.extend(["ms", "% time", "GFLOP/s", "GB/s", "% roof", "bound"]);
    if r.compared.is_some() {
        header.extend(["old ms", "ratio"]);
    }
    steps.set_header(header);
    for row in &r.steps {
        let mut cells = vec![
            if row.program > 0 { format!("{}.{}", row.program, row.position) } else { row.position.to_string() },
            row.pass.clone(),
            row.name(),
            row.layer.clone().unwrap_or_default(),
            row.kernel.clone(),
            shape(row.input),
            shape(row.output),
            format!("{:.3}", row.ms),
            percent(if r.steps_ms > 0.0 { row.ms / r.steps_ms } else { 0.0 }),
            format!("{:.1}", row.rate.gflop_s),
            format!("{:.1}", row.rate.gb_s),
            row.rate.roofline_share.map_or_else(unknown, percent),
            row.rate.bound.clone().unwrap_or_else(unknown),
        ];
        if r.compared.is_some() {
            cells.push(row.old_ms.map_or_else(unknown, |ms| format!("{ms:.3}")));
            cells.push(row.ratio.map_or_else(unknown, |ratio| format!("{ratio:.2}")));
        }
        steps.add_row(cells);
    }
    align(&mut steps, names);
    let mut text = format!(
        "{}\n\n{}\n\n{}\n\ncall {:.3} ms (median of {}), steps {:.3} ms, {} on {} with {}, batch {}, peak {:.1} MiB",
        steps.trim_fmt(),
        totals_table("kernel", &r.by_kernel),
        totals_table("pass", &r.by_pass),
        r.total_ms,
        r.repeat,
        r.steps_ms,
        r.kernels,
        r.device,
        threads(r.threads),
        r.batch,
        r.peak_bytes as f64 / f64::from(1 << 20),
    );
    text.push_str(&match &r.peaks {
        Some(p) => format!(
            "\nroof {:.0} GFLOP/s, memory {:.1} GB/s (read {:.1}, triad {:.1})",
            p.fma_gflop_s,
            p.memory_gb_s(),
            p.read_gb_s,
            p.triad_gb_s,
        ),
        None if r.device == "emulated" => "\ntimes are those of the CPU that emulates a GPU".into(),
        None => "\nroof not known for this device".into(),
    });
    if let Some(c) = &r.compared {
        text.push_str(&format!(
            "\nagainst {}: call {:.2} of {:.3} ms, steps {:.2} of {:.3} ms, {} steps without counterpart",
            c.file, c.total_ratio, c.old_total_ms, c.steps_ratio, c.old_steps_ms, c.unmatched
        ));
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

fn unknown() -> String {
    "-".into()
}

fn threads(n: usize) -> String {
    if n == 1 { "1 thread".into() } else { format!("{n} threads") }
}

fn totals_table(what: &str, totals: &[Total]) -> String {
    let row = |t: &Total| {
        [
            t.name.clone(),
            t.steps.to_string(),
            format!("{:.3}", t.ms),
            percent(t.time_share),
            format!("{:.1}", t.gflop_s),
            format!("{:.1}", t.gb_s),
            t.roofline_share.map_or_else(unknown, percent),
        ]
    };
    table([what, "steps", "ms", "% time", "GFLOP/s", "GB/s", "% roof"], totals.iter().map(row), 1)
}
