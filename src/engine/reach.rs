//! Bounds how large the numbers inside a net can become. An infinity that a function makes finite shows in no result: ∞
//! before a ReLU6 or a sigmoid, −∞ before a ReLU or a max-pool, ∞ as a divisor. Where one is possible, the numbers are
//! checked before it: by the program itself for pictures of usual magnitudes, by an extra pass for larger ones. Where only
//! a −∞ can be hidden, or a divisor, what counts is how numbers grow along a single path of weights, with a margin of 2²⁰
//! for sums: the certain bound grows so much from layer to layer that it would name every ReLU of a deep net. A device may
//! notice infinities that it clamps; then clamps need no check.

use std::sync::Arc;

use super::{Batch, Copies, Engine, ProgramRun, Script, script};
use crate::device::{Perturbation, Sum};
use crate::error::Result;
use crate::graph::{Activation, Graph, Node, NodeId, Op};
use crate::program::{Builder, Decided, Statistic};
use crate::tensor::{Precision, Tensor};

/// Bound on the magnitude of any normal draw.
const LARGEST_DRAW: f64 = 6.0;

/// By how much sums may exceed a single one of their terms where only a −∞ or a divisor could be hidden.
const MARGIN: f64 = (1u64 << 20) as f64;

/// What a layer with weights does to the range of its inputs.
#[derive(Debug, Clone, Copy)]
struct Gain {
    /// Largest sums of an output's positive weights, of the magnitudes of its negative ones, and of all.
    sums: [f64; 3],
    /// Largest magnitude of a weight.
    largest: f64,
    /// Smallest and largest bias.
    bias: [f64; 2],
}

/// Which range of a node's numbers is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// The one that no number leaves.
    Certain,
    /// The one in which numbers grow along single paths of weights.
    Path,
}

impl Gain {
    fn of(node: &Node) -> Option<Self> {
        let (weight, bias) = match &node.op {
            Op::Linear(linear) => (&linear.weight, &linear.bias),
            _ => node.conv().map(|conv| (&conv.weight, &conv.bias))?,
        };
        let mut row = vec![0.0f64; weight.row_len()];
        let (mut sums, mut largest) = ([0.0f64; 3], 0.0f64);
        for k in 0..weight.rows() {
            weight.read(k, 0..row.len(), &mut row);
            let [mut rise, mut fall] = [0.0f64; 2];
            for &w in &row {
                rise += w.max(0.0);
                fall -= w.min(0.0);
                largest = largest.max(w.abs());
            }
            sums = [sums[0].max(rise), sums[1].max(fall), sums[2].max(rise + fall)];
        }
        let none: &[f64] = &[0.0];
        let bias = bias.as_deref().unwrap_or(none).iter();
        let bias = bias.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], b| [low.min(*b), high.max(*b)]);
        Some(Self { sums, largest, bias })
    }

    fn through(&self, [low, high]: [f64; 2], span: Span) -> [f64; 2] {
        let (down, up) = ((-low).max(0.0), high.max(0.0));
        let all = if span == Span::Certain { self.sums[2] } else { self.largest.max(1.0) };
        let within = times(all, down.max(up));
        let [rise, fall, _] = self.sums;
        let far = |of_rise: f64, of_fall: f64| (times(rise, of_rise) + times(fall, of_fall)).min(within);
        [self.bias[0] - far(down, up), self.bias[1] + far(up, down)]
    }
}

/// Product of bounds: nothing times anything is nothing.
fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// Smallest and largest of `numbers`.
fn ends(numbers: impl IntoIterator<Item = f64>) -> [f64; 2] {
    numbers.into_iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
}

/// Programs watch the numbers that may overflow for pictures of magnitudes up to this. For larger ones there is an
/// extra pass.
const USUAL: f64 = 1e4;

/// How large the numbers inside a net can become.
#[derive(Debug)]
pub(super) struct Reach {
    /// The layers with weights, by node; none if no node hides an infinity.
    layers: Vec<Option<Gain>>,
    /// The largest number of the device's precision.
    most: f64,
    /// Whether the device notices infinities that it clamps.
    clamps_are_noticed: bool,
    /// Nodes whose outputs every program checks itself, if it computes them.
    pub watched: Vec<NodeId>,
    /// Whether the watched nodes are known.
    settled: bool,
}

/// What a node hides of its first input: −∞ (`[true, _]`) or ∞ (`[_, true]`) that show in no output.
fn hides(node: &Node, clamps_are_noticed: bool) -> [bool; 2] {
    match (&node.op, node.op.activation()) {
        (_, Some(Activation::Clamp { .. })) if clamps_are_noticed => [false; 2],
        (Op::Softmax { .. }, _) => [true; 2],
        (_, Some(f)) => f.hides(),
        (op, None) => [op.takes_maxima(), false],
    }
}

/// Largest magnitude of `numbers`.
fn largest(numbers: impl IntoIterator<Item = f64>) -> f64 {
    numbers.into_iter().fold(0.0, |most: f64, v| most.max(v.abs()))
}

/// Largest magnitude in `tensors`.
fn largest_in<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    largest(tensors.into_iter().flat_map(|t| (0..t.len()).map(|i| t.at(i))))
}

/// Bound on the magnitudes in a copy if those in a picture are at most `pictures`.
fn largest_of_copies(copies: &Copies, pictures: f64) -> f64 {
    match &copies.perturbation {
        Perturbation::None => pictures,
        Perturbation::Noise { sigmas, .. } => pictures + LARGEST_DRAW * largest(sigmas.iter().copied()),
        Perturbation::Path { alphas, baselines } => {
            let share = largest(alphas.iter().map(|alpha| alpha.abs() + (1.0 - alpha).abs()));
            share * pictures.max(largest_in(baselines))
        }
        Perturbation::Boxes(boxes) => pictures.max(largest_in(&boxes.fills)),
        Perturbation::Masks(masks) => {
            pictures * largest(masks.masks.iter().flatten().flat_map(|mask| mask.values.iter().copied()))
        }
        Perturbation::Others(others) => largest_in(others.iter().flatten()),
    }
}

impl Reach {
    /// For a net and a device.
    pub fn of(graph: &Graph, precision: Precision, clamps_are_noticed: bool) -> Self {
        let most = match precision {
            Precision::F32 => f64::from(f32::MAX),
            Precision::F64 => f64::MAX,
        };
        let any = graph.nodes().iter().skip(1).any(|node| {
            let [low, high] = hides(node, clamps_are_noticed);
            let before = graph.node(node.inputs[0]).op.activation();
            let bounded = before.is_some_and(|f| f.bounds()[0].is_finite());
            high || (low && !bounded) || matches!(node.op, Op::Divide)
        });
        let layers = if any { graph.nodes().iter().map(Gain::of).collect() } else { Vec::new() };
        let mut reach = Self { layers, most, clamps_are_noticed, watched: Vec::new(), settled: false };
        reach.watched = reach.beyond(graph, USUAL);
        reach.settled = true;
        reach
    }

    /// The range of each node's numbers if the picture's magnitudes are at most `input`.
    fn ranges(&self, graph: &Graph, input: f64, span: Span) -> Vec<[f64; 2]> {
        let mut all: Vec<[f64; 2]> = Vec::with_capacity(self.layers.len());
        for (id, gain) in graph.ids().zip(&self.layers) {
            let node = graph.node(id);
            let of = |i: usize| all[node.inputs[i].index()];
            let inputs = || node.inputs.iter().map(|i| all[i.index()]);
            let range = match &node.op {
                _ if id == graph.input() => [-input, input],
                Op::Add => inputs().fold([0.0; 2], |[low, high], [l, h]| [low + l, high + h]),
                Op::Mul => {
                    let ([a, b], [c, d]) = (of(0), of(1));
                    ends([times(a, c), times(a, d), times(b, c), times(b, d)])
                }
                Op::Divide => {
                    let ([a, b], [c, d]) = (of(0), of(1));
                    if c <= 0.0 && d >= 0.0 {
                        [f64::NEG_INFINITY, f64::INFINITY]
                    } else {
                        ends([a / c, a / d, b / c, b / d])
                    }
                }
                Op::Reduce(reduce) => {
                    let from = graph.node(node.inputs[0]).shape;
                    let terms = (from.len() / node.shape.len()) as f64 * reduce.factor(from);
                    of(0).map(|end| end * terms)
                }
                Op::Softmax { .. } => [0.0, 1.0],
                // Of n numbers with variance 1 none exceeds √n.
                Op::Standardise(norm) => {
                    let most = (norm.count(node.shape) as f64).sqrt();
                    [-most, most]
                }
                op => match (op.activation(), gain) {
                    (Some(f), _) => f.range(of(0)),
                    (None, Some(gain)) => gain.through(of(0), span),
                    // Pools, moves, padding with zeros.
                    (None, None) => ends(inputs().flatten().chain([0.0])),
                },
            };
            all.push(range);
        }
        all
    }

    /// Nodes with outputs that are hidden by what reads them and may overflow if the picture's magnitudes are at most
    /// `input`, except those that are watched.
    fn beyond(&self, graph: &Graph, input: f64) -> Vec<NodeId> {
        // The ranges only grow with the picture, so what a usual one could make overflow is watched.
        if self.layers.is_empty() || (self.settled && input <= USUAL) {
            return Vec::new();
        }
        let most = self.most;
        let certain = self.ranges(graph, input, Span::Certain);
        let path = self.ranges(graph, input, Span::Path);
        let mut beyond = Vec::new();
        for id in graph.ids().skip(1) {
            let node = graph.node(id);
            // A bound on the numbers that no weights exceed would name the ReLUs of every deep net.
            let exceeds = |i: NodeId, low: bool, high: bool| {
                let [from, to] = path[i.index()].map(|end| end * MARGIN);
                let [least, largest] = certain[i.index()];
                (low && least <= -most && from <= -most) || (high && largest >= most && to >= most)
            };
            let [low, high] = hides(node, self.clamps_are_noticed);
            let first = node.inputs[0];
            let [least, largest] = certain[first.index()];
            let hidden = match (low, high) {
                (_, true) => largest >= most || (low && least <= -most),
                (low, false) => exceeds(first, low, false),
            };
            if hidden {
                beyond.push(first);
            }
            // What is divided by ∞ is 0.
            if let (Op::Divide, Some(&divisor)) = (&node.op, node.inputs.get(1))
                && exceeds(divisor, true, true)
            {
                beyond.push(divisor);
            }
        }
        beyond.sort_unstable();
        beyond.dedup();
        beyond.retain(|node| !self.watched.contains(node));
        beyond
    }
}

/// A node's outputs, summed over copies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Summed(NodeId);

impl Script for Summed {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        b.aggregate(b.output(self.0), Statistic::Sum)
    }
}

impl Engine {
    /// Refuses pictures, copies and loads for which a number overflows before it is clipped; `run` is about to be
    /// computed on them.
    pub(super) fn refuse_hidden_overflow(&mut self, run: &ProgramRun<'_>) -> Result<()> {
        let (graph, x) = (run.graph, run.x);
        let reach = self.reach(graph);
        for node in reach.beyond(graph, largest_of_copies(run.copies, largest_in(&x.items))) {
            self.look_at(graph, x, run.copies, node)?;
        }
        // A load with a picture's shape may replace a picture.
        let dims = graph.input_shape().dims();
        for load in run.loads.iter().filter(|load| load.iter().all(|t| t.dims() == dims)) {
            for node in reach.beyond(graph, largest_in(load)) {
                self.look_at(graph, &Batch::of(load.clone())?, &Copies::one(), node)?;
            }
        }
        Ok(())
    }

    /// How large the numbers inside a net can become; computed once.
    pub(super) fn reach(&mut self, graph: &Graph) -> Arc<Reach> {
        if self.reaches.len() >= script::MOST && !self.reaches.contains_key(&graph.id()) {
            self.reaches.clear();
        }
        let (precision, noticed) = (self.device.precision(), self.device.notices_clamped_infinities());
        let reach = self.reaches.entry(graph.id()).or_insert_with(|| Arc::new(Reach::of(graph, precision, noticed)));
        Arc::clone(reach)
    }

    /// Computes the outputs of `node` on every copy; an output that is not finite is an error. The outputs are summed,
    /// so that many copies need no more memory than one.
    fn look_at(&mut self, graph: &Graph, x: &Batch, copies: &Copies, node: NodeId) -> Result<()> {
        let (plan, _) = self.plan(graph, Decided::Here, 1, &Summed(node))?;
        let (targets, last) = (vec![0; x.len()], copies.weights.len().saturating_sub(1));
        let run = ProgramRun::plain(&plan, graph, x, &targets, copies);
        let sums = vec![(Statistic::Sum, graph.node(node).shape.len()); x.len()];
        self.run_all(&run, sums, |harvest, slots| {
            for slot in slots.iter().filter(|slot| slot.copy == last) {
                harvest.sums[slot.item] = Sum::default();
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Kernels;
    use crate::engine::{ScoreScript, Settings, Task};
    use crate::graph::{Conv, GraphBuilder, Linear, LocalResponseNorm, Smooth, SoftClamp, Weight};
    use crate::program::Score;
    use crate::tensor::{Shape, Tensor, Window};

    /// Two layers with a clipping step between them; the first multiplies by `factor`.
    fn net(factor: f32, cut: Op) -> Graph {
        let mut b = GraphBuilder::new(Shape::vector(2));
        let linear = |w: [f32; 4]| Op::Linear(Linear { weight: Weight::owned([2, 2, 1, 1], &w).unwrap(), bias: None });
        let first = b.push("first", linear([factor, 0.0, 0.0, 1.0]), &[b.input()]).unwrap();
        let cut = b.push("cut", cut, &[first]).unwrap();
        let out = b.push("out", linear([1.0, 0.0, 0.0, 1.0]), &[cut]).unwrap();
        b.finish(out).unwrap()
    }

    #[test]
    fn an_infinity_that_is_cut_back_is_an_error() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        let relu6 = Op::Clamp { lo: 0.0, hi: 6.0 };
        for cut in [relu6.clone(), Op::Smooth(Smooth::SoftClamp(SoftClamp { lo: 0.0, hi: 6.0, beta: 2.0 }))] {
            let why = engine.forward(&net(2e38, cut.clone()), &x).unwrap_err().to_string();
            assert!(why.contains("layer 'first'"), "{why}");
            // As large as it may be, and a picture of more than the net takes.
            assert!(engine.forward(&net(1e38, cut.clone()), &x).is_ok());
            let wild = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3e38, 0.0]).unwrap()]).unwrap();
            assert!(engine.forward(&net(2.0, cut.clone()), &wild).is_err());
        }
        let logits = engine.forward(&net(1e38, relu6), &x).unwrap();
        assert_eq!(logits.to_f64()[..], [6.0, 4.0]);
    }

    /// −∞ before a ReLU, a max-pool and other functions that make it finite; ∞ as a divisor.
    #[test]
    fn an_infinity_that_shows_nowhere_is_an_error() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        let functions = [
            Op::Relu,
            Op::ChannelMax,
            Op::Smooth(Smooth::Elu { alpha: 1.0 }),
            Op::Smooth(Smooth::Softplus { beta: 1.0, threshold: 20.0 }),
            Op::Smooth(Smooth::Exp),
            Op::Smooth(Smooth::Power { exponent: -1.0 }),
        ];
        for cut in functions {
            let net = |factor: f32| {
                let mut b = GraphBuilder::new(Shape::vector(2));
                let weight = Weight::owned([2, 2, 1, 1], &[factor, 0.0, 0.0, 1.0]).unwrap();
                let first = b.push("first", Op::Linear(Linear { weight, bias: None }), &[b.input()]).unwrap();
                let cut = b.push("cut", cut.clone(), &[first]).unwrap();
                b.finish(cut).unwrap()
            };
            let why = engine.forward(&net(-2e38), &x).unwrap_err().to_string();
            assert!(why.contains("layer 'first'"), "{cut:?}: {why}");
            assert!(engine.forward(&net(-1e37), &x).is_ok(), "{cut:?}");
        }
        let quotient = |factor: f32| {
            let mut b = GraphBuilder::new(Shape::vector(2));
            let weight = Weight::owned([2, 2, 1, 1], &[factor, 0.0, 0.0, 1.0]).unwrap();
            let divisor = b.push("divisor", Op::Linear(Linear { weight, bias: None }), &[b.input()]).unwrap();
            let out = b.push("out", Op::Divide, &[b.input(), divisor]).unwrap();
            b.finish(out).unwrap()
        };
        let why = engine.forward(&quotient(2e38), &x).unwrap_err().to_string();
        assert!(why.contains("layer 'divisor'"), "{why}");
        assert!(engine.forward(&quotient(1e37), &x).is_ok());
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![0.0, 4.0]).unwrap()]).unwrap();
        let mut b = GraphBuilder::new(Shape::vector(2));
        let log = b.push("log", Op::Smooth(Smooth::Log), &[b.input()]).unwrap();
        let relu = b.push("relu", Op::Relu, &[log]).unwrap();
        let why = engine.forward(&b.finish(relu).unwrap(), &x).unwrap_err().to_string();
        assert!(why.contains("layer 'log'"), "{why}");
    }

    /// Nothing of a deep net, or of a net with local response normalisation, is looked at.
    #[test]
    fn usual_nets_are_not_looked_at() {
        let mut b = GraphBuilder::new(Shape::new(8, 9, 9));
        let mut at = b.input();
        let norm = LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0 };
        at = b.local_response_norm("lrn", at, norm).unwrap();
        for i in 0..60 {
            // Of both signs, and so large that signals grow.
            let weights: Vec<f32> = (0..576).map(|k| if (k * 7 + i) % 3 == 0 { -0.33 } else { 0.33 }).collect();
            let weight = Weight::owned([8, 8, 3, 3], &weights).unwrap();
            let conv = Conv { weight, bias: None, window: Window::square(3, 1, 1), groups: 1 };
            at = b.push(format!("conv{i}"), Op::Conv(conv), &[at]).unwrap();
            at = b.push(format!("relu{i}"), Op::Relu, &[at]).unwrap();
        }
        let at = b.push("most", Op::GlobalMaxPool, &[at]).unwrap();
        let graph = b.finish(at).unwrap();
        let reach = Reach::of(&graph, Precision::F32, false);
        assert!(reach.watched.is_empty());
        assert!(!reach.beyond(&graph, 1e34).is_empty());
    }

    #[test]
    fn an_infinity_of_a_copy_is_an_error() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let tensor = |v: f32| Tensor::f32([2, 1, 1], vec![v, 0.0]).unwrap();
        let x = Batch::of(vec![tensor(3.0)]).unwrap();
        let graph = net(4.0, Op::Clamp { lo: 0.0, hi: 6.0 });
        let weights = vec![0.5; 2];
        for (other, fine) in [(1e38, false), (1e30, true)] {
            let other = tensor(other);
            for perturbation in [
                Perturbation::Path { alphas: vec![0.0, 1.0], baselines: vec![other.clone()] },
                Perturbation::Others(vec![vec![tensor(3.0), other.clone()]]),
            ] {
                let copies = Copies { perturbation, weights: weights.clone() };
                let task = Task { x: &x, targets: &[0], copies: &copies, loads: &[] };
                match engine.evaluate(&graph, &ScoreScript(Score::Logit), &task) {
                    Ok(_) => assert!(fine),
                    Err(e) => assert!(!fine && e.to_string().contains("layer 'first'"), "{e}"),
                }
            }
            let task = Task { x: &x, targets: &[0], copies: &Copies::one(), loads: &[vec![other]] };
            let made = engine.evaluate_once(&graph, &task, |b| {
                let load = b.load(0, Shape::vector(2))?;
                b.replace(graph.input(), load)?;
                b.score(Score::Logit);
                Ok(())
            });
            assert_eq!(made.is_ok(), fine);
        }
    }

    /// A picture of usual size costs one pass, however large the bound is; what a later pass replaces is watched too.
    #[test]
    fn programs_watch_their_own_numbers() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        let graph = net(1e38, Op::Smooth(Smooth::Sigmoid));
        let ((), profile) = engine.profile(|e| e.forward(&graph, &x).map(drop)).unwrap();
        assert_eq!(profile.chunks.len(), 1);
        // A program that does not compute the number does not watch it.
        let outputs = engine.node_outputs(&net(2e38, Op::Smooth(Smooth::Sigmoid)), &x, &[graph.input()]).unwrap();
        assert_eq!(outputs[0].to_f64()[..], [3.0, 4.0]);
        let task = Task { x: &x, targets: &[0], copies: &Copies::one(), loads: &[] };
        for (factor, fine) in [(1.0, true), (2.0, false)] {
            let made = engine.evaluate_once(&graph, &task, |b| {
                let more = b.scale(b.output(graph.input()), factor)?;
                b.replace(graph.input(), more)?;
                b.score(Score::Logit);
                Ok(())
            });
            match made {
                Ok(outcome) => assert!(fine && outcome.stores.is_empty()),
                Err(e) => assert!(!fine && e.to_string().contains("layer 'first'"), "{e}"),
            }
        }
    }

    /// A sum that overflows downwards is 0 behind a ReLU, fused into its layer or on its own.
    #[test]
    fn an_infinity_below_a_relu_is_an_error() {
        let x = Batch::of(vec![Tensor::f32([2, 3, 3], vec![1.0; 18]).unwrap()]).unwrap();
        let conv = |w: [f32; 2]| {
            let weight = Weight::owned([1, 2, 1, 1], &w).unwrap();
            Op::Conv(crate::graph::Conv {
                weight,
                bias: None,
                window: crate::tensor::Window::square(1, 1, 0),
                groups: 1,
            })
        };
        for kernels in [Kernels::Auto, Kernels::Portable] {
            let mut engine = Engine::new(&Settings { kernels, ..Settings::default() }).unwrap();
            for (weights, fine) in [([-1e38, -1e38], true), ([-2e38, -2e38], false)] {
                for apart in [false, true] {
                    let mut b = GraphBuilder::new(Shape::new(2, 3, 3));
                    let first = b.push("first", conv(weights), &[b.input()]).unwrap();
                    let moved = if apart { b.push("moved", Op::Flatten, &[first]).unwrap() } else { first };
                    let relu = b.push("relu", Op::Relu, &[moved]).unwrap();
                    let out = b.push("out", Op::Flatten, &[relu]).unwrap();
                    match engine.forward(&b.finish(out).unwrap(), &x) {
                        Ok(logits) => assert!(fine && logits.to_f64().iter().all(|&v| v == 0.0)),
                        Err(e) => assert!(!fine && e.to_string().contains("layer 'first'"), "{e}"),
                    }
                }
            }
        }
    }

    /// The check stays within the memory bound, however many copies there are.
    #[test]
    fn many_copies_are_looked_at_in_little_memory() {
        let mut engine = Engine::new(&Settings { memory: Some(1 << 20), ..Settings::default() }).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        let graph = net(4e37, Op::Clamp { lo: 0.0, hi: 6.0 });
        let copies = 150_000;
        let perturbation = Perturbation::Noise { seed: 0, first: 0, images: vec![1], sigmas: vec![0.5] };
        let copies = Copies { perturbation, weights: vec![1.0 / f64::from(copies); copies as usize] };
        engine.look_at(&graph, &x, &copies, graph.ids().nth(1).unwrap()).unwrap();
    }
}
