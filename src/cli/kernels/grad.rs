//! `verilume kernels grad`: whether adjoints are transposes, and gradients slopes.

use anyhow::Result;

use super::cases::{CaseKind, Fill, KernelCase, Numbers};
use super::measure::Trial;
use super::test::{CaseVerdict, chosen, engines, report};
use crate::cli::args::kernels::TestArgs;
use crate::cli::exit::ExitCode;
use crate::engine::{Batch, Engine, Settings};
use crate::tensor::Tensor;

/// Length of the step of finite differences; the twin's operations are linear, piecewise linear or smooth.
const STEP: f64 = 1e-6;
/// What double precision loses in such a difference, of the numbers' magnitude.
const LOST: f64 = 1e-8;

/// Runs the command.
pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let mut cases = chosen(args.filter.as_deref())?;
    cases.retain(|case| matches!(case.kind, CaseKind::Op { .. }));
    let (settings, mut engines) = engines(args)?;
    let mut twin = Engine::new(&settings.twin())?;
    let mut verdicts = Vec::new();
    for case in &cases {
        let decides = matches!(case.kind, CaseKind::Op { decides: true, .. });
        let what = if decides { "slope" } else { "transpose" };
        for (device, engine) in &mut engines {
            let failure = match compare(case, engine, &mut twin, &settings, decides) {
                Ok(failure) => failure,
                Err(e) => Some(e.to_string()),
            };
            verdicts.push(CaseVerdict { case: case.name.clone(), device: device.clone(), what, failure });
        }
    }
    report(verdicts, args.on.json)
}

fn compare(
    case: &KernelCase,
    engine: &mut Engine,
    twin: &mut Engine,
    settings: &Settings,
    decides: bool,
) -> crate::Result<Option<String>> {
    let fill = Fill { numbers: Numbers::Reals, magnitudes: false };
    let trial = Trial { case, numbers: Numbers::Reals };
    let (got, truth) = (trial.run(engine)?, trial.truth(twin, settings)?);
    let (graph, node) = case.graph(fill)?;
    let x = fill.maps(1, case.n, case.input)?.to_f64().into_owned();
    let s = fill.maps(2, case.n, graph.node(node).shape)?.to_f64().into_owned();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| p * q).sum::<f64>();
    let sizes = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| (p * q).abs()).sum::<f64>();
    let [c, h, w] = case.input.dims();
    let outputs = |engine: &mut Engine, x: Vec<f64>| -> crate::Result<Vec<f64>> {
        let x = Batch::new(&Tensor::f64([case.n, c, h, w], x)?)?;
        Ok(engine.node_outputs(&graph, &x, &[node])?[0].to_f64().into_owned())
    };
    let (forward_limits, backward_limits) = (&truth[0].1, &truth[1].1);
    let (one, other, allowed) = if decides {
        let d = fill.maps(5, case.n, case.input)?.to_f64().into_owned();
        let moved = |sign: f64| x.iter().zip(&d).map(|(x, d)| x + sign * STEP * d).collect::<Vec<_>>();
        let (above, below) = (outputs(twin, moved(1.0))?, outputs(twin, moved(-1.0))?);
        let slope = (dot(&above, &s) - dot(&below, &s)) / (2.0 * STEP);
        let back = &got[1].values;
        (dot(back, &d), slope, sizes(backward_limits, &d) + LOST * (sizes(back, &d) + sizes(&above, &s)))
    } else {
        // What is left without the constant part is linear.
        let constant = outputs(engine, vec![0.0; x.len()])?;
        let linear: Vec<f64> = got[0].values.iter().zip(&constant).map(|(a, b)| a - b).collect();
        let back = &got[1].values;
        (dot(&linear, &s), dot(&x, back), 2.0 * sizes(forward_limits, &s) + sizes(&x, backward_limits))
    };
    let within = (one - other).abs() <= allowed + f64::EPSILON * (one.abs() + other.abs()) * x.len() as f64;
    Ok((!within).then(|| format!("{one:e} is not {other:e}, allowed {allowed:.1e}")))
}
