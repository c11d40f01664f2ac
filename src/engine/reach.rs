//! Bounds how large the numbers inside a net can become. An infinity that is clipped by an upper bound, as in ReLU6,
//! shows in no result; where one is possible, the values are checked before they are clipped.

use std::sync::Arc;

use super::{Batch, Copies, Engine, ProgramRun, Script, script};
use crate::device::{Perturbation, Sum};
use crate::error::Result;
use crate::graph::{Activation, Graph, Node, NodeId, Op};
use crate::program::{Builder, Decided, Statistic};
use crate::tensor::{Precision, Tensor};

/// Bound on the magnitude of any normal draw.
const LARGEST_DRAW: f64 = 6.0;

/// Programs watch the numbers that may overflow for pictures of magnitudes up to this. For larger ones there is an
/// extra pass.
const USUAL: f64 = 1e6;

/// How large the numbers inside a net can become.
#[derive(Debug)]
pub(super) struct Reach {
    /// By node: the largest sum of weight magnitudes of an output, and the largest bias magnitude.
    gains: Vec<[f64; 2]>,
    /// The largest number of the device's precision.
    most: f64,
    /// Nodes whose outputs every program checks itself, if it computes them.
    pub watched: Vec<NodeId>,
}

/// Whether the node clips large numbers: an infinite operand gives a finite result.
fn clips(node: &Node) -> bool {
    let ends = [f64::INFINITY, f64::NEG_INFINITY];
    match node.op.activation() {
        Some(f @ (Activation::Clamp { .. } | Activation::PRelu { .. })) => f.bounds()[1].is_finite(),
        Some(Activation::Smooth(f)) => ends.iter().any(|&end| f.value(end).is_finite()),
        None => matches!(node.op, Op::Softmax { .. } | Op::Divide),
    }
}

/// A bound that is not a number (0 · ∞) bounds nothing.
fn known(bound: f64) -> f64 {
    if bound.is_nan() { f64::INFINITY } else { bound }
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
    /// For a net and a device's precision.
    pub fn of(graph: &Graph, precision: Precision) -> Self {
        let most = match precision {
            Precision::F32 => f64::from(f32::MAX),
            Precision::F64 => f64::MAX,
        };
        let cut = graph.ids().any(|id| clips(graph.node(id)));
        let gains = if cut { Self::gains(graph) } else { Vec::new() };
        let mut reach = Self { gains, most, watched: Vec::new() };
        reach.watched = reach.beyond(graph, USUAL).collect();
        reach.watched.sort_unstable();
        reach.watched.dedup();
        reach
    }

    fn gains(graph: &Graph) -> Vec<[f64; 2]> {
        let gain = |id: NodeId| {
            let node = graph.node(id);
            let (weight, bias) = match &node.op {
                Op::Linear(linear) => (&linear.weight, &linear.bias),
                _ => match node.conv() {
                    Some(conv) => (&conv.weight, &conv.bias),
                    None => return [1.0, 0.0],
                },
            };
            let mut row = vec![0.0f64; weight.row_len()];
            let sums = (0..weight.rows()).map(|k| {
                weight.read(k, 0..row.len(), &mut row);
                row.iter().map(|w| w.abs()).sum()
            });
            let most = largest(sums);
            [most, largest(bias.iter().flat_map(|bias| bias.iter().copied()))]
        };
        graph.ids().map(gain).collect()
    }

    /// Nodes whose outputs are clipped and may overflow if the picture's magnitudes are at most `input`, except those
    /// already watched.
    fn beyond(&self, graph: &Graph, input: f64) -> impl Iterator<Item = NodeId> {
        let mut bounds: Vec<f64> = Vec::with_capacity(self.gains.len());
        let mut beyond = Vec::new();
        for (id, [gain, bias]) in graph.ids().zip(&self.gains) {
            let node = graph.node(id);
            let before = node.inputs.iter().map(|i| bounds[i.index()]);
            let before: f64 = match &node.op {
                Op::Add => before.sum(),
                Op::Mul => known(before.product()),
                Op::Divide => f64::INFINITY,
                Op::Reduce(reduce) => {
                    let from = node.inputs.first().map_or(node.shape, |&i| graph.node(i).shape);
                    let terms = from.len() / node.shape.len();
                    largest(before) * reduce.factor(from) * terms as f64
                }
                Op::Input
                | Op::Conv(_)
                | Op::Linear(_)
                | Op::BatchNorm(_)
                | Op::Affine(_)
                | Op::Standardise(_)
                | Op::Relu
                | Op::Clamp { .. }
                | Op::Smooth(_)
                | Op::PRelu(_)
                | Op::MaxPool(_)
                | Op::GlobalMaxPool
                | Op::ChannelMax
                | Op::AvgPool { .. }
                | Op::AdaptiveAvgPool { .. }
                | Op::Softmax { .. }
                | Op::Flatten
                | Op::Concat
                | Op::Subsample { .. }
                | Op::Resize(_)
                | Op::Slice { .. }
                | Op::Shuffle { .. }
                | Op::Pad { .. }
                | Op::PadChannels { .. } => largest(before),
            };
            // An infinite divisor makes 0.
            let clipped = match &node.op {
                Op::Divide => node.inputs.get(1),
                _ => node.inputs.first().filter(|_| clips(node)),
            };
            beyond.extend(clipped.filter(|x| bounds[x.index()] >= self.most));
            if let Op::Softmax { .. } = &node.op {
                bounds.push(1.0);
                continue;
            }
            // Of n numbers with variance 1 none exceeds √n.
            if let Op::Standardise(norm) = &node.op {
                bounds.push((norm.count(node.shape) as f64).sqrt());
                continue;
            }
            bounds.push(match node.op.activation() {
                Some(f) => f.reach(before),
                None if id == graph.input() => input,
                None => known(before * gain) + bias,
            });
        }
        beyond.into_iter().filter(|node| !self.watched.contains(node))
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
        let precision = self.device.describe().precision;
        let reach = self.reaches.entry(graph.id()).or_insert_with(|| Arc::new(Reach::of(graph, precision)));
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
    use crate::graph::{GraphBuilder, Linear, Smooth, SoftClamp, Weight};
    use crate::program::Score;
    use crate::tensor::{Shape, Tensor};

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
            // The largest factor that passes; a picture that overflows.
            assert!(engine.forward(&net(1e38, cut.clone()), &x).is_ok());
            let wild = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3e38, 0.0]).unwrap()]).unwrap();
            assert!(engine.forward(&net(2.0, cut.clone()), &wild).is_err());
        }
        let logits = engine.forward(&net(1e38, relu6), &x).unwrap();
        assert_eq!(logits.to_f64()[..], [6.0, 4.0]);
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

    #[test]
    fn an_infinite_divisor_is_an_error() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        for (factor, fine) in [(1e38, true), (2e38, false)] {
            let mut b = GraphBuilder::new(Shape::vector(2));
            let weight = Weight::owned([2, 2, 1, 1], &[factor, 0.0, 0.0, 1.0]).unwrap();
            let first = b.push("first", Op::Linear(Linear { weight, bias: None }), &[b.input()]).unwrap();
            let out = b.push("out", Op::Divide, &[b.input(), first]).unwrap();
            match engine.forward(&b.finish(out).unwrap(), &x) {
                Ok(_) => assert!(fine),
                Err(e) => assert!(!fine && e.to_string().contains("layer 'first'"), "{e}"),
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
