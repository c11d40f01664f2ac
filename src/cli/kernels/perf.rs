//! `verilume kernels perf`: how long the convolutions of a net take.

use anyhow::Result;
use serde::Serialize;

use super::{settings, table};
use crate::cli::args::kernels::PerfArgs;
use crate::cli::computing;
use crate::cli::talk::{StandardOutput, Voice, say};
use crate::cli::timing::CallSeconds;
use crate::engine::{Batch, Job, Profile};
use crate::model::Model;
use crate::program::{Score, Step, StepPass, Work};
use crate::random;
use crate::tensor::{Shape, Tensor};

/// A convolution of the net in one direction.
#[derive(Debug, Serialize)]
struct PerfRow {
    layer: String,
    pass: &'static str,
    kernel: &'static str,
    output: [usize; 3],
    ms: f64,
    /// Of the definition.
    gflop_s: f64,
    /// Of the device's arithmetic, where that is known.
    peak_share: Option<f64>,
}

/// Runs the command.
pub fn run(args: &PerfArgs) -> Result<()> {
    let mut engine = computing::open(&settings(&args.on)?, Voice::Normal)?;
    let model = Model::random(&args.layers, 0)?;
    let default = model.default_input();
    let shape = args.size.map_or(default, |size| Shape::new(default.c, size.crop[0], size.crop[1]));
    let graph = model.graph(shape)?;
    let mut noise = vec![0.0; shape.len()];
    random::fill_normals(0, 0, 0, 0, &mut noise);
    let x = Batch::of(vec![Tensor::f32(shape.dims(), noise)?; args.batch])?;
    let (job, targets) = (Job::gradient(Score::Logit), vec![0; args.batch]);
    let mut calls: Vec<Profile> = Vec::with_capacity(args.repeat);
    for timed in 0..=args.repeat {
        let (_, profile) = engine.profile(|e| e.explain(&graph, &job, &x, &targets).map(drop))?;
        if timed > 0 {
            calls.push(profile);
        }
    }
    let mut rows = Vec::new();
    let plan = calls.first().and_then(|call| call.chunks.first()).map(|chunk| chunk.plan.clone());
    for (plan, at, step) in plan.iter().flat_map(|p| p.steps().iter().enumerate().map(move |(i, s)| (p, i, s))) {
        if !matches!(
            step,
            Step::Conv { .. } | Step::ConvAdjoint { .. } | Step::Linear { .. } | Step::LinearAdjoint { .. }
        ) {
            continue;
        }
        let of_call = |call: &Profile| call.chunks.iter().map(|c| c.steps[at].as_secs_f64()).sum::<f64>();
        let seconds = CallSeconds::new(calls.iter().map(of_call).collect()).median();
        let work = Work::of(step, plan.program().forms(), size_of::<f32>());
        let flops = work.chunk_flops(args.batch) as f64;
        rows.push(PerfRow {
            layer: step.layer().unwrap_or_default().into(),
            pass: StepPass::of(plan.steps())[at].name(),
            kernel: engine.kernel(plan, at),
            output: step.writes().first().map_or([0; 3], |v| plan.form(*v).shape().dims()),
            ms: seconds * 1e3,
            gflop_s: if seconds > 0.0 { flops / seconds / 1e9 } else { 0.0 },
            peak_share: None,
        });
    }
    let mut answer = StandardOutput::default();
    if args.on.json {
        for row in &rows {
            answer.line(&serde_json::to_string(row)?)?;
        }
    } else {
        let cells = rows.iter().map(|r| {
            let [c, h, w] = r.output;
            let share = r.peak_share.map_or_else(|| "-".into(), |share| format!("{:.1}", share * 100.0));
            [
                r.layer.clone(),
                r.pass.into(),
                r.kernel.into(),
                format!("{c}x{h}x{w}"),
                format!("{:.3}", r.ms),
                format!("{:.2}", r.gflop_s),
                share,
            ]
        });
        answer.line(&table(["layer", "pass", "kernel", "out", "ms", "GFLOP/s", "% peak"], cells, 4))?;
    }
    if engine.describe().device == "emulated" {
        say("times are those of the CPU that emulates a GPU: they say nothing of a GPU");
    }
    Ok(())
}
