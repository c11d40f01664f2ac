//! The results table of "The (un)reliability of saliency methods" (Kindermans et al. 2017, sections 3 and 4), measured
//! on a net and its data: which methods keep their explanation when all data are shifted.

use std::collections::BTreeMap;

use super::invariance::{Shift, Shifted, shifted_preprocess};
use crate::engine::{Batch, Engine};
use crate::error::Result;
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::method::patterns::{self, Estimator, Fit};
use crate::method::{Context, Method, Spec};
use crate::program::Score;
use crate::score::top;

/// How a row's method is built.
#[derive(Debug, Clone, Copy)]
enum How {
    /// From a spec, as on the command line.
    Spec(&'static str),
    PatternNet,
    PatternAttribution,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct KindermansRow {
    name: &'static str,
    how: How,
    /// Whether it is expected to stay the same, under a constant shift and under one that varies over pixels.
    expected: [bool; 2],
}

const fn row(name: &'static str, spec: &'static str, expected: [bool; 2]) -> KindermansRow {
    KindermansRow { name, how: How::Spec(spec), expected }
}

/// The paper's methods, then others whose result follows from theirs.
const ROWS: &[KindermansRow] = &[
    row("gradient", "gradient", [true, true]),
    row("guided_backprop", "guided_backprop", [true, true]),
    row("deconvnet", "deconvnet", [true, true]),
    KindermansRow { name: "pattern_net", how: How::PatternNet, expected: [true, true] },
    KindermansRow { name: "pattern_attribution", how: How::PatternAttribution, expected: [true, true] },
    row("ig, baseline black", "integrated_gradients:baseline=black", [true, false]),
    row("ig, baseline zero", "integrated_gradients:baseline=zero", [false, false]),
    row("input_x_gradient", "input_x_gradient", [false, false]),
    row("lrp, zero root", "lrp:preset=epsilon,epsilon=0,bias=zero", [false, false]),
    row("smoothgrad", "smoothgrad:n=10", [true, true]),
    row("smooth of guided_backprop", "smooth:base=guided_backprop,n=10", [true, true]),
    row("smooth of ig, black", "smooth:base=(integrated_gradients:baseline=black),n=10", [true, false]),
    row("smooth of input_x_gradient", "smooth:base=input_x_gradient,n=10", [false, false]),
];

/// A method under a shift.
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftedMethod {
    /// The row's name.
    pub method: &'static str,
    /// The shift's name.
    pub shift: &'static str,
    /// Whether the explanation should stay the same, according to the paper or by implication.
    pub expected: bool,
    /// Whether it stayed the same on every picture (double precision); `None` if that could not be decided.
    pub stayed: Option<bool>,
    /// Largest |E' − E| / max |E| among the pictures, in double precision.
    pub change: f64,
    /// The smallest one: a method fails by at least this.
    pub least_change: f64,
    /// The largest one in single precision, where rounding alone flips decisions.
    pub change_f32: f64,
    /// Largest |f'(x + m) − f(x)| / max |f(x)|, in double precision.
    pub output: f64,
}

/// The net and data of the measurement.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The net.
    pub graph: &'a Graph,
    /// How its pictures are prepared.
    pub preprocess: &'a Preprocess,
    /// Pictures to explain.
    pub x: &'a Batch,
    /// Pictures for fitting patterns, in batches.
    pub data: &'a [Batch],
    /// Seed of every draw.
    pub seed: u64,
}

/// The whole table for `shifts`, row by row: the top class of each picture is explained before and after. `double`
/// computes in double precision and decides; `single` computes in single precision.
///
/// # Errors
/// The errors of the methods; patterns, for instance, need at least two pictures.
pub fn table(
    double: &mut Engine,
    single: &mut Engine,
    subject: &Subject<'_>,
    shifts: &[Shift],
) -> Result<Vec<ShiftedMethod>> {
    let classes = subject.graph.classes();
    let logits = double.forward(subject.graph, subject.x)?.to_f64().into_owned();
    let targets: Vec<usize> = logits.chunks(classes).filter_map(top).collect();
    let mut cells = Vec::new();
    let plain = [double as &mut Engine, single]
        .map(|engine| fitted(engine, subject.graph, subject.data.iter().map(|b| Ok(b.clone()))));
    let [plain64, plain32] = plain;
    let plain = [plain64?, plain32?];
    for shift in shifts {
        let shifted = Shifted::new(subject.graph, shift)?;
        let preprocess = shifted_preprocess(subject.preprocess, shifted.shift());
        let moved = || subject.data.iter().map(|b| shifted.pictures(b));
        let moved =
            [fitted(double, shifted.shifted_graph(), moved())?, fitted(single, shifted.shifted_graph(), moved())?];
        for row in ROWS {
            let measure = |engine: &mut Engine, i: usize| {
                let before = make(row.how, subject.preprocess, &plain[i], subject.seed)?;
                let after = make(row.how, &preprocess, &moved[i], subject.seed)?;
                shifted.compare(engine, subject.x, &targets, [&*before, &*after])
            };
            let compared = measure(double, 0)?;
            let rounded = measure(single, 1)?;
            let changes =
                |c: &[super::invariance::Compared]| -> Vec<f64> { c.iter().filter_map(|c| c.change).collect() };
            let all: Option<Vec<bool>> = compared.iter().map(|c| c.stayed()).collect();
            let uniform = matches!(shift, Shift::Constant(_));
            cells.push(ShiftedMethod {
                method: row.name,
                shift: shift.name(),
                expected: row.expected[usize::from(!uniform)],
                stayed: all.map(|all| all.into_iter().all(|stayed| stayed)),
                change: changes(&compared).into_iter().fold(0.0, f64::max),
                least_change: changes(&compared).into_iter().fold(f64::INFINITY, f64::min),
                change_f32: changes(&rounded).into_iter().fold(0.0, f64::max),
                output: compared.iter().map(|c| c.output).fold(0.0, f64::max),
            });
        }
    }
    // Sorted by row.
    cells.sort_by_key(|c| ROWS.iter().position(|r| r.name == c.method));
    Ok(cells)
}

fn fitted(engine: &mut Engine, graph: &Graph, data: impl Iterator<Item = Result<Batch>>) -> Result<patterns::Patterns> {
    let mut fit = Fit::new(graph, Estimator::Relu, engine.describe().threads)?;
    for batch in data {
        fit.add(engine, graph, &batch?)?;
    }
    fit.finish(graph, BTreeMap::new())
}

fn make(how: How, preprocess: &Preprocess, patterns: &patterns::Patterns, seed: u64) -> Result<Box<dyn Method>> {
    let spec = match how {
        How::PatternNet => return Ok(patterns::pattern_net(patterns.clone(), Score::Logit)),
        How::PatternAttribution => return Ok(patterns::pattern_attribution(patterns.clone(), Score::Logit)),
        How::Spec(spec) => spec,
    };
    let load = |path: &std::path::Path| {
        Err(crate::Error::settings(format!("{}: no method of this table reads a file", path.display())))
    };
    Spec::parse(spec)?.build(&Context { seed, score: Score::Logit, preprocess, load: &load })
}
