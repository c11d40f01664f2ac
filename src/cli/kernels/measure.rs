//! Runs a case on an engine, and says how far results may be from the truth.

use super::cases::{COPIES, CaseKind, Fill, KernelCase, Numbers, pictures};
use crate::Result;
use crate::device::cpu::Convolution;
use crate::device::{Perturbation, Products};
use crate::engine::{Batch, Copies, Engine, Job, Pullback, Settings, Start, Task};
use crate::graph::{Graph, Op};
use crate::program::{Score, Statistic};
use crate::rule::Composite;
use crate::tensor::Tensor;

/// Unit roundoff of single precision.
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;
/// More standard deviations than the generator's normal deviates reach.
const FARTHEST: f64 = 7.0;
/// Roundings of a softmax and what is made of it.
const OF_SOFTMAX: f64 = 64.0;

/// A result with its name.
pub struct NamedValues {
    pub name: &'static str,
    pub values: Vec<f64>,
}

fn part(name: &'static str, values: impl Into<Vec<f64>>) -> NamedValues {
    NamedValues { name, values: values.into() }
}

/// Largest relative error of the products of a tensor-core convolution, forward and back.
///
/// TF32 and half precision have 11 significant bits, bfloat16 has 8: each factor is off by half a unit at most. Of two TF32
/// parts the last bits and the product of the smaller parts are lost: three times 2⁻²².
fn product_errors(settings: &Settings) -> [f64; 2] {
    let split = 3.0 * 2f64.powi(-22);
    let eleven = 2.0 * 2f64.powi(-11) + 2f64.powi(-22);
    match (settings.products, settings.convolution) {
        (Products::F32, Convolution::Fast) => [split, eleven],
        (Products::F32, _) => [split; 2],
        (Products::Tf32 | Products::F16, _) => [eleven; 2],
        (Products::Bf16, _) => [2.0 * 2f64.powi(-8) + 2f64.powi(-16); 2],
    }
}

/// A case with its numbers.
pub struct Trial<'a> {
    pub case: &'a KernelCase,
    pub numbers: Numbers,
}

impl Trial<'_> {
    fn fill(&self, magnitudes: bool) -> Fill {
        Fill { numbers: self.numbers, magnitudes }
    }

    /// What `engine` answers.
    pub fn run(&self, engine: &mut Engine) -> Result<Vec<NamedValues>> {
        self.parts(engine, false)
    }

    fn parts(&self, engine: &mut Engine, magnitudes: bool) -> Result<Vec<NamedValues>> {
        let case = self.case;
        let fill = self.fill(magnitudes);
        let (graph, node) = case.graph(fill)?;
        let decides = matches!(case.kind, CaseKind::Op { decides: true, .. });
        let x = Batch::new(&self.fill(magnitudes && !decides).maps(1, case.n, case.input)?)?;
        match &case.kind {
            CaseKind::Op { .. } => {
                let forward = engine.node_outputs(&graph, &x, &[node])?;
                let signal = fill.maps(2, case.n, graph.node(node).shape)?;
                let rules = Composite::gradient();
                let way = Pullback { from: node, signal: &signal, rules: &rules, to: graph.input() };
                let backward = engine.pullback(&graph, &x, &way)?;
                let forward = forward.iter().flat_map(|t| t.to_f64().into_owned()).collect::<Vec<_>>();
                Ok(vec![part("forward", forward), part("backward", backward.to_f64())])
            }
            CaseKind::Steps { write, magnitude, other } => {
                let write = magnitude.filter(|_| magnitudes).unwrap_or(*write);
                let loads = [pictures(fill, 3, case.n, case.input)?, pictures(fill, 4, case.n, *other)?];
                let task = Task { x: &x, targets: &vec![0; case.n], copies: &Copies::one(), loads: &loads };
                let outcome = engine.evaluate_once(&graph, &task, |b| {
                    let loaded = [b.load(0, case.input)?, b.load(1, *other)?];
                    let result = write(b, loaded)?;
                    b.store(result, 0)
                })?;
                Ok(vec![part("result", stored(&outcome.stores))])
            }
            CaseKind::Weights { .. } => {
                let shape = graph.node(node).shape;
                let loads = [pictures(fill, 2, case.n, shape)?];
                let task = Task { x: &x, targets: &vec![0; case.n], copies: &Copies::one(), loads: &loads };
                let outcome = engine.evaluate_once(&graph, &task, |b| {
                    let signal = b.load(0, shape)?;
                    let gradient = b.weight_adjoint(node, signal)?;
                    b.store(gradient, 0)
                })?;
                Ok(vec![part("weights", stored(&outcome.stores))])
            }
            CaseKind::Copies { perturbation, statistic, .. } => {
                let given = perturbation(self.fill(false), case.n, case.input)?;
                let (x, perturbation, weights, statistic) = if magnitudes {
                    // At least as large as any copy.
                    (around(&x, &given)?, Perturbation::None, vec![1.0], Statistic::Sum)
                } else {
                    (x, given, vec![1.0, 2.0, 1.0], *statistic)
                };
                let copies = Copies { perturbation, weights };
                let job = Job { start: Start::Relevance, copies, statistic, ..Job::gradient(Score::Logit) };
                explained(engine, &graph, &job, &x, &targets(case, &graph))
            }
            CaseKind::Score { score, .. } => {
                explained(engine, &graph, &Job::gradient(*score), &x, &targets(case, &graph))
            }
        }
    }

    /// The truth with, for each number, how far it may be missed.
    pub fn truth(&self, twin: &mut Engine, tested: &Settings) -> Result<Vec<(NamedValues, Vec<f64>)>> {
        let truth = self.parts(twin, false)?;
        let limits = self.limits(twin, &truth, tested)?;
        Ok(truth.into_iter().zip(limits).collect())
    }

    fn limits(&self, twin: &mut Engine, truth: &[NamedValues], tested: &Settings) -> Result<Vec<Vec<f64>>> {
        let case = self.case;
        let (graph, node) = case.graph(self.fill(false))?;
        let products = match &graph.node(node).op {
            Op::Conv(_) | Op::Linear(_) => product_errors(tested),
            _ => [0.0; 2],
        };
        let rounding = (case.terms + 2) as f64 * (UNIT + f64::EPSILON);
        let units = products.map(|error| rounding + error);
        let exact = self.numbers == Numbers::Integers;
        let times = |values: &[f64], unit: f64| values.iter().map(|v| v.abs() * unit).collect::<Vec<_>>();
        Ok(match &case.kind {
            CaseKind::Op { op, .. } => {
                let op = op(self.fill(false))?;
                let rounds = matches!(
                    op,
                    Op::AvgPool { .. }
                        | Op::AdaptiveAvgPool { .. }
                        | Op::Smooth(_)
                        | Op::Standardise(_)
                        | Op::Resize(_)
                        | Op::Softmax { .. }
                );
                let units = if exact && !rounds { [0.0; 2] } else { units };
                if let Op::Standardise(_) | Op::Softmax { .. } = op {
                    // No number is more than a few deviations large, and every result adds up those of its group.
                    let most = |t: &NamedValues| t.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    return Ok(truth.iter().map(|t| vec![16.0 * units[0] * most(t); t.values.len()]).collect());
                }
                let magnitudes = self.parts(twin, true)?;
                let mut limits: Vec<Vec<f64>> =
                    magnitudes.iter().zip(units).map(|(m, unit)| times(&m.values, unit)).collect();
                if matches!(op, Op::Smooth(_)) {
                    // Small values and slopes are differences of numbers like the largest.
                    for (limits, m) in limits.iter_mut().zip(&magnitudes) {
                        let largest = m.values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
                        limits.iter_mut().for_each(|limit| *limit += 4.0 * UNIT * largest);
                    }
                }
                limits
            }
            CaseKind::Steps { magnitude: None, .. } => truth.iter().map(|t| times(&t.values, units[0])).collect(),
            CaseKind::Steps { .. } | CaseKind::Weights { .. } => {
                self.parts(twin, true)?.iter().map(|m| times(&m.values, units[0])).collect()
            }
            CaseKind::Copies { statistic, perturbation, .. } => {
                let drawn = perturbation(self.fill(false), case.n, case.input)?;
                let inexact = matches!(drawn, Perturbation::Noise { .. } | Perturbation::Masks(_));
                if exact && !inexact && *statistic != Statistic::Variance {
                    // Only the result is rounded to single precision.
                    return Ok(truth.iter().map(|t| times(&t.values, 4.0 * UNIT)).collect());
                }
                let magnitudes = self.parts(twin, true)?;
                let [logits, maps] = [&magnitudes[0].values, &magnitudes[1].values];
                // A few more roundings make the copy.
                let unit = units[0] + 8.0 * UNIT;
                let scores = logits.iter().flat_map(|m| vec![m * unit; COPIES]).collect();
                let off = unit + units[1] + 2.0 * UNIT;
                let map = |m: &f64| match statistic {
                    Statistic::Sum => 4.0 * m * off,
                    Statistic::SumOfSquares => 4.0 * 2.0 * m * m * off * (1.0 + off),
                    // Deviations are twice a number at most, their errors too, and few copies are many over one less.
                    Statistic::Variance => 16.0 * m * m * off * (1.0 + off),
                    // A difference of two numbers.
                    Statistic::Range => 4.0 * m * off,
                };
                vec![scores, maps.iter().map(map).collect()]
            }
            CaseKind::Score { score, .. } => {
                let (strong, _) = case.graph(self.fill(true))?;
                let forward = |twin: &mut Engine, graph, magnitudes| -> Result<Tensor> {
                    let x = Batch::new(&self.fill(magnitudes).maps(1, case.n, case.input)?)?;
                    twin.forward(graph, &x)
                };
                let (logits, sizes) = (forward(twin, &graph, false)?, forward(twin, &strong, true)?);
                let Op::Linear(layer) = &graph.node(node).op else { return Ok(Vec::new()) };
                let (weights, classes) = (layer.weight.to_f64(), graph.classes());
                let (mut scores, mut maps) = (Vec::new(), Vec::new());
                for (i, &target) in targets(case, &graph).iter().enumerate() {
                    let row = |t: &Tensor| t.to_f64()[i * classes..(i + 1) * classes].to_vec();
                    let (value, gradient) = score.evaluate(&row(&logits), target);
                    // What each logit may be off, when products are not rounded on integers.
                    let size = row(&sizes).iter().fold(0.0f64, |m, v| m.max(*v));
                    let off = if exact { 0.0 } else { units[0] * size };
                    let soft = if *score == Score::Logit { 0.0 } else { OF_SOFTMAX * UNIT };
                    let slope: f64 = gradient.iter().map(|g| g.abs()).sum();
                    scores.push(2.0 * slope * off + soft * (1.0 + value.abs()) + UNIT * value.abs());
                    maps.extend((0..case.input.len()).map(|c| {
                        let seed = |j: usize| {
                            // Rounded products of integers with what is no integer.
                            let back = if exact && *score == Score::Logit { 0.0 } else { units[1] };
                            gradient[j].abs() * (back + soft) + if soft > 0.0 { 4.0 * off + soft } else { 0.0 }
                        };
                        (0..classes).map(|j| weights[j * case.input.len() + c].abs() * seed(j)).sum::<f64>()
                    }));
                }
                vec![scores, maps]
            }
        })
    }
}

fn targets(case: &KernelCase, graph: &Graph) -> Vec<usize> {
    (0..case.n).map(|i| (3 + 2 * i) % 11 % graph.classes()).collect()
}

fn explained(engine: &mut Engine, graph: &Graph, job: &Job, x: &Batch, targets: &[usize]) -> Result<Vec<NamedValues>> {
    let answer = engine.explain(graph, job, x, targets)?;
    let maps: Vec<f64> = answer.maps.iter().flat_map(|map| map.to_f64().into_owned()).collect();
    Ok(vec![part("scores", answer.scores.concat()), part("map", maps)])
}

fn stored(stores: &[Vec<Tensor>]) -> Vec<f64> {
    stores.iter().flatten().flat_map(|t| t.to_f64().into_owned()).collect()
}

/// Pictures of magnitudes that no copy exceeds.
fn around(x: &Batch, perturbation: &Perturbation) -> Result<Batch> {
    let more = |i: usize, at: usize| match perturbation {
        Perturbation::None | Perturbation::Masks(_) => 0.0,
        Perturbation::Noise { sigmas, .. } => FARTHEST * sigmas[i],
        Perturbation::Path { baselines, .. } => 2.0 * baselines[i].at(at).abs(),
        Perturbation::Boxes(boxes) => boxes.fills[i].at(at).abs(),
        Perturbation::Others(others) => others[i].iter().map(|o| o.at(at).abs()).sum(),
    };
    let wide = x.items().iter().enumerate().map(|(i, picture)| {
        let values = picture.to_f64().iter().enumerate().map(|(at, v)| v.abs() + more(i, at)).collect();
        Tensor::f64(picture.dims(), values)
    });
    Batch::of(wide.collect::<Result<_>>()?)
}

/// Where `got` is farthest beyond its limits, if it is; NaN is beyond any.
pub fn excess(got: &[f64], truth: &[f64], limits: &[f64]) -> Option<String> {
    if got.len() != truth.len() || limits.len() != truth.len() {
        return Some(format!("{} numbers in place of {}", got.len(), truth.len()));
    }
    if truth.iter().all(|t| *t == 0.0) {
        return Some("the truth is all zeros, which proves nothing".into());
    }
    let mut worst: Option<(f64, usize)> = None;
    for (i, ((g, t), limit)) in got.iter().zip(truth).zip(limits).enumerate() {
        let off = (g - t).abs();
        if !(off <= *limit) {
            let by = if off.is_nan() { f64::INFINITY } else { off - limit };
            if worst.is_none_or(|(most, _)| by > most) {
                worst = Some((by, i));
            }
        }
    }
    let (_, i) = worst?;
    Some(format!("number {i} is {:e} in place of {:e}, allowed {:.1e}", got[i], truth[i], limits[i]))
}
