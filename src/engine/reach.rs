//! Bounds how large the numbers inside a net can become. An infinity that is clipped by an upper bound, as in ReLU6 or a
//! sigmoid, shows in no result. Where one is possible for usual pictures, programs watch the values before they are
//! clipped; where it is possible for this picture only, they are computed and checked before the program runs.

use std::sync::Arc;

use super::{Batch, Copies, Engine, ProgramRun, Script, script};
use crate::device::{Perturbation, Sum};
use crate::error::Result;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::program::{Builder, Decided, Statistic};
use crate::tensor::{Precision, Tensor};

/// Bound on the magnitude of any normal draw.
const LARGEST_DRAW: f64 = 6.0;

/// Magnitude of the pictures for which programs are prepared; usual ones lie far below it.
const USUAL: f64 = 1e4;

/// How far the numbers of a net can reach.
#[derive(Debug)]
pub(super) struct Reach {
    /// By node: the largest sum of weight magnitudes of an output, and the largest bias magnitude.
    gains: Vec<[f64; 2]>,
    /// Nodes whose outputs may be infinite before they are clipped, for usual pictures.
    pub watched: Vec<NodeId>,
}

/// Whether the node clips large numbers.
fn cuts(node: &Node) -> bool {
    matches!(node.op, Op::Softmax { .. }) || node.op.activation().is_some_and(|f| f.bounds()[1].is_finite())
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
    /// `most` is the largest finite number.
    fn of(graph: &Graph, most: f64) -> Self {
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
        let mut reach = Self { gains: Vec::new(), watched: Vec::new() };
        if graph.ids().any(|id| cuts(graph.node(id))) {
            reach.gains = graph.ids().map(gain).collect();
            reach.watched = reach.beyond(graph, USUAL, most);
        }
        reach
    }

    /// Nodes whose outputs are clipped and may exceed `most` if the picture's magnitudes are at most `input`.
    fn beyond(&self, graph: &Graph, input: f64, most: f64) -> Vec<NodeId> {
        let mut bounds: Vec<f64> = Vec::with_capacity(self.gains.len());
        let mut beyond = Vec::new();
        for (id, [gain, bias]) in graph.ids().zip(&self.gains) {
            let node = graph.node(id);
            let before = node.inputs.iter().map(|i| bounds[i.index()]);
            let before: f64 = match node.op {
                Op::Add => before.sum(),
                Op::Mul => before.product(),
                Op::Divide => f64::INFINITY,
                Op::Reduce(reduce) => {
                    let from = node.inputs.first().map_or(node.shape, |&i| graph.node(i).shape);
                    let terms = from.len() / node.shape.len();
                    largest(before) * reduce.factor(from) * terms as f64
                }
                _ => largest(before),
            };
            if cuts(node) && before >= most {
                beyond.extend(node.inputs.first());
            }
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
                None => before * gain + bias,
            });
        }
        beyond
    }
}

/// Watches nodes' outputs. The logits, which need all of them, are summed over copies, so that many copies need no more
/// memory than one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Looked(Vec<NodeId>);

impl Script for Looked {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        b.watch(&self.0);
        b.aggregate(b.output(b.graph().output()), Statistic::Sum)
    }
}

impl Engine {
    /// How far the numbers of `graph` can reach.
    pub(super) fn reach(&mut self, graph: &Graph) -> Arc<Reach> {
        if self.reaches.len() >= script::MOST && !self.reaches.contains_key(&graph.id()) {
            self.reaches.clear();
        }
        let most = self.most();
        Arc::clone(self.reaches.entry(graph.id()).or_insert_with(|| Arc::new(Reach::of(graph, most))))
    }

    /// The largest finite number.
    fn most(&self) -> f64 {
        match self.device.describe().precision {
            Precision::F32 => f64::from(f32::MAX),
            Precision::F64 => f64::MAX,
        }
    }

    /// Refuses pictures, copies and loads for which a number overflows before it is clipped, where `run`, which is about to
    /// be computed on them, does not watch it.
    pub(super) fn refuse_hidden_overflow(&mut self, run: &ProgramRun<'_>) -> Result<()> {
        let (graph, x) = (run.graph, run.x);
        let (reach, most) = (self.reach(graph), self.most());
        if reach.gains.is_empty() {
            return Ok(());
        }
        let unwatched = |input: f64| -> Vec<NodeId> {
            let beyond = reach.beyond(graph, input, most).into_iter();
            beyond.filter(|node| !reach.watched.contains(node)).collect()
        };
        self.look_at(graph, x, run.copies, unwatched(largest_of_copies(run.copies, largest_in(&x.items))))?;
        // A load with a picture's shape may replace a picture.
        let dims = graph.input_shape().dims();
        for load in run.loads.iter().filter(|load| load.iter().all(|t| t.dims() == dims)) {
            let nodes = unwatched(largest_in(load));
            if !nodes.is_empty() {
                self.look_at(graph, &Batch::of(load.clone())?, &Copies::one(), nodes)?;
            }
        }
        Ok(())
    }

    /// Computes the outputs of `nodes` on every copy; an output that is not finite is an error.
    fn look_at(&mut self, graph: &Graph, x: &Batch, copies: &Copies, nodes: Vec<NodeId>) -> Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let (plan, _) = self.plan(graph, Decided::Here, 1, &Looked(nodes))?;
        let (targets, last) = (vec![0; x.len()], copies.weights.len().saturating_sub(1));
        let run = ProgramRun::plain(&plan, graph, x, &targets, copies);
        let sums = vec![(Statistic::Sum, graph.classes()); x.len()];
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
            // As large as it may be, and a picture of more than the net takes.
            assert!(engine.forward(&net(1e38, cut.clone()), &x).is_ok());
            let wild = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3e38, 0.0]).unwrap()]).unwrap();
            assert!(engine.forward(&net(2.0, cut.clone()), &wild).is_err());
        }
        let logits = engine.forward(&net(1e38, relu6), &x).unwrap();
        assert_eq!(logits.to_f64()[..], [6.0, 4.0]);
    }

    /// A sigmoid behind a net whose numbers may overflow: the program watches it, and no other runs.
    #[test]
    fn what_may_overflow_for_usual_pictures_is_watched() {
        let mut engine = Engine::new(&Settings::default()).unwrap();
        let graph = net(1e36, Op::Smooth(Smooth::Sigmoid));
        assert_eq!(engine.reach(&graph).watched, [graph.find("first").unwrap()]);
        assert!(engine.reach(&net(1e30, Op::Smooth(Smooth::Sigmoid))).watched.is_empty());
        let x = |v: f32| Batch::of(vec![Tensor::f32([2, 1, 1], vec![v, 4.0]).unwrap()]).unwrap();
        for v in [3.0, -300.0] {
            let (logits, profile) = engine.profile(|engine| engine.forward(&graph, &x(v))).unwrap();
            assert_eq!((logits.len(), profile.chunks.len()), (2, 1));
        }
        for v in [1e3, -3e4] {
            assert!(engine.forward(&graph, &x(v)).unwrap_err().to_string().contains("layer 'first'"));
        }
        // In every pass, and stored results are the script's alone.
        let task =
            Task { x: &x(3.0), targets: &[0], copies: &Copies::one(), loads: &[vec![x(3e30).items()[0].clone()]] };
        let two = engine.evaluate_once(&graph, &task, |b| {
            b.store(b.output(graph.output()), 0)?;
            let load = b.load(0, Shape::vector(2))?;
            b.replace(graph.input(), load)?;
            b.score(Score::Logit);
            Ok(())
        });
        assert!(two.unwrap_err().to_string().contains("layer 'first'"));
        let outputs = engine.node_outputs(&graph, &x(3.0), &[graph.output()]).unwrap();
        assert_eq!((outputs.len(), outputs[0].dims()), (1, &[1, 2, 1, 1][..]));
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

    /// The check stays within the memory bound, however many copies there are.
    #[test]
    fn many_copies_are_looked_at_in_little_memory() {
        let mut engine = Engine::new(&Settings { memory: Some(1 << 20), ..Settings::default() }).unwrap();
        let x = Batch::of(vec![Tensor::f32([2, 1, 1], vec![3.0, 4.0]).unwrap()]).unwrap();
        let graph = net(4e37, Op::Clamp { lo: 0.0, hi: 6.0 });
        let copies = 150_000;
        let perturbation = Perturbation::Noise { seed: 0, first: 0, images: vec![1], sigmas: vec![0.5] };
        let copies = Copies { perturbation, weights: vec![1.0 / f64::from(copies); copies as usize] };
        engine.look_at(&graph, &x, &copies, vec![graph.ids().nth(1).unwrap()]).unwrap();
    }
}
