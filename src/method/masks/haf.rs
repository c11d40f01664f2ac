//! Output-preserving hierarchical masks (Wang, Su, Zhang, Hu 2020): each stage's activations are multiplied by a mask;
//! the smallest masks that preserve the score show what it depends on.

use crate::engine::{Batch, Copies, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::map::{Gap, Map, MapDims, Sign, Space};
use crate::method::shared::descent::{Course, in_groups};
use crate::method::{Entry, Method, MethodPreset, Parameter, Promise, When, pixels_of};
use crate::optimiser::Adam;
use crate::program::{Builder, Score};
use crate::rule::{Composite, pull_back};
use crate::tensor::resample::{Upsample, upsample};
use crate::tensor::{Precision, Shape, Tensor, rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "haf",
    aliases: &[],
    title: "HAF (output-preserving hierarchical masks)",
    paper: "Wang, Su, Zhang, Hu 2020: Learning reliable visual saliency for model explanations, IEEE Transactions on \
            Multimedia; the text is not public: this form follows its abstract and a public re-implementation",
    summary: "masks M_t ≥ 0 on the stages' activations that minimise (f(x;M) − f(x))² + λ Σ_t ‖M_t‖₁ / √(h_t w_t); the map is \
              the mean over stages of the upsampled channel means, each over its maximum",
    passes: "iterations + 2 forward, iterations backward (preset=paper 30, preset=quick 10 iterations)",
    parameters: &[
        Parameter { key: "iterations", unit: "steps", default: "30", help: "steps of Adam" },
        Parameter { key: "lambda", unit: "1", default: "0.5", help: "weight of the masks' size, at most 1e12" },
        Parameter { key: "lr", unit: "mask a step", default: "0.05", help: "learning rate of Adam, at most 1e12" },
        Parameter {
            key: "form",
            unit: "class|vector",
            default: "class",
            help: "what is to stay: the target's score, or all logits (‖f(x;M) − f(x)‖²)",
        },
        Parameter {
            key: "keep",
            unit: "last|best",
            default: "last",
            help: "which masks are kept: the last, or those of the lowest objective",
        },
        Parameter {
            key: "upsample",
            unit: "bilinear|nearest",
            default: "bilinear",
            help: "how a stage's mask comes to the input's size",
        },
        Parameter {
            key: "preset",
            unit: "paper|quick",
            default: "paper",
            help: "paper: the defaults, 30 passes; quick: iterations=10, lr=0.15, a third of the passes",
        },
    ],
    promises: &[(Promise::NotNegative, When::Always), (Promise::Preservation, When::Always)],
    draws: When::Never,
    caution: "with --score prob, or where scores are small, λ must be far smaller or every mask ends at 0; start at 1, \
              clamping at 0, learning rate, 30 iterations and λ=0.5 are this project's own choice; the score is kept only \
              as well as λ and the iterations allow: see the gap",
    build: |values, context| Ok(Box::new(Haf::new(values, context.score)?)),
};

/// See the help of `preset`.
pub(crate) const PRESETS: [MethodPreset; 2] = [("paper", &[]), ("quick", &[("iterations", "10"), ("lr", "0.15")])];

/// What the masks must preserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preserved {
    /// The score of the target.
    Class,
    /// All logits.
    Vector,
}

/// Which masks are the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those after the last step.
    Last,
    /// Those with the lowest objective.
    Best,
}

/// Minimises `(f_c(x;M) − f_c(x))² + λ Σ_t ‖M_t‖₁ / √(h_t w_t)` over the masks `M_t ≥ 0` of all stages.
#[derive(Debug, Clone)]
pub struct Haf {
    /// `f_c`.
    pub score: Score,
    /// What is preserved.
    pub form: Preserved,
    /// Steps of Adam.
    pub iterations: usize,
    /// `λ`.
    pub lambda: f64,
    /// Learning rate.
    pub lr: f64,
    /// Which masks are kept.
    pub keep: Keep,
    /// How the masks are upsampled to the input's size.
    pub upsample: Upsample,
}

/// The masks found for one picture.
#[derive(Debug, Clone)]
pub struct StageMasks {
    /// `[c_t, h_t, w_t]` by stage, shallow to deep; not negative.
    pub masks: Vec<Tensor>,
    /// Objective before each step, and of the final masks.
    pub objectives: Vec<f64>,
    /// `f_c(x)`.
    pub score: f64,
    /// `f_c(x;M)`.
    pub masked_score: f64,
}

/// The objective for some masks of one picture.
#[derive(Debug, Clone)]
pub struct HafEvaluation {
    /// Its value.
    pub objective: f64,
    /// Its gradient with respect to the masks, all stages in order; empty if not requested.
    pub gradient: Vec<f64>,
    /// `f_c(x;M)`.
    pub score: f64,
}

/// Whether a gradient is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// Value and gradient.
    Gradient,
    /// The value alone.
    Value,
}

impl Haf {
    /// # Errors
    /// When a value is out of its range.
    pub(crate) fn new(values: &crate::method::ParameterValues, score: Score) -> Result<Self> {
        let form = match values.text("form")? {
            "class" => Preserved::Class,
            "vector" => Preserved::Vector,
            _ => return Err(values.refused("form", "there are class and vector")),
        };
        if form == Preserved::Vector && score != Score::Logit {
            return Err(values.refused("form", "it preserves the logits, so the score must be the logit"));
        }
        let keep = match values.text("keep")? {
            "last" => Keep::Last,
            "best" => Keep::Best,
            _ => return Err(values.refused("keep", "there are last and best")),
        };
        let upsample = values.parse("upsample")?;
        if upsample == Upsample::None {
            return Err(values.refused(
                "upsample",
                "stages of different sizes can only be merged at the input's: bilinear or nearest",
            ));
        }
        let [lambda, lr] = [values.weight("lambda")?, values.weight("lr")?];
        let iterations = values.count("iterations")?;
        for (key, still) in [("iterations", iterations == 0), ("lr", lr == 0.0)] {
            if still {
                return Err(values.refused(key, "the masks stay at 1, so the map can only be the same everywhere"));
            }
        }
        Ok(Self { score, form, iterations, lambda, lr, keep, upsample })
    }

    /// The masks of every stage, per picture, for its target.
    ///
    /// # Errors
    /// When the net has no stages or a path bypasses one of them, shapes or targets do not match, memory is not enough
    /// or a number is not finite.
    pub fn stage_masks(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        x: &Batch,
        targets: &[usize],
    ) -> Result<Vec<StageMasks>> {
        let stages = Stages::of(graph)?;
        // Masks, two moments, gradient, resulting masks; the engine accounts for transfers.
        let bytes = 5 * stages.len() * size_of::<f64>();
        in_groups((ENTRY.id, self.iterations), engine, (x, targets), bytes, |engine, x, targets, course| {
            self.group(engine, graph, &stages, (x, targets), course)
        })
    }

    fn group(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        stages: &Stages,
        (x, targets): (&Batch, &[usize]),
        course: Course,
    ) -> Result<Vec<StageMasks>> {
        let reference = engine.forward(graph, x)?;
        let mut masks = vec![vec![1.0; stages.len()]; x.len()];
        let mut adams = vec![Adam::new(self.lr, stages.len()); x.len()];
        let mut objectives = vec![Vec::with_capacity(self.iterations + 1); x.len()];
        let mut best: Vec<Option<(HafEvaluation, Vec<f64>)>> = vec![None; x.len()];
        for iteration in 0..=self.iterations {
            let want = if iteration < self.iterations { Want::Gradient } else { Want::Value };
            let evaluations = self.evaluate(engine, graph, stages, (x, targets, &reference), &masks, want)?;
            course.report(engine, iteration, evaluations.iter().map(|e| e.objective));
            for (i, mut here) in evaluations.into_iter().enumerate() {
                objectives[i].push(here.objective);
                let gradient = std::mem::take(&mut here.gradient);
                let better = match (self.keep, &best[i]) {
                    (Keep::Last, _) => want == Want::Value,
                    (Keep::Best, None) => true,
                    (Keep::Best, Some((before, _))) => here.objective < before.objective,
                };
                if better {
                    best[i] = Some((here, masks[i].clone()));
                }
                if want == Want::Gradient {
                    adams[i].step(&mut masks[i], &gradient);
                    masks[i].iter_mut().for_each(|m| *m = m.max(0.0));
                }
            }
        }
        let precision = engine.describe().precision;
        let found = best.into_iter().flatten().zip(objectives).enumerate();
        found
            .map(|(i, ((evaluation, masks), objectives))| {
                let score = self.score.linked(graph.link(), &reference.item(i)?.to_f64(), targets[i]).0;
                let masks = stages.split(&masks);
                let masks = masks.map(|(shape, m)| Tensor::rounded(shape.dims(), m.to_vec(), precision));
                Ok(StageMasks {
                    masks: masks.collect::<Result<_>>()?,
                    objectives,
                    score,
                    masked_score: evaluation.score,
                })
            })
            .collect()
    }

    /// The objective at the given masks (per picture: the masks of all stages, concatenated); `reference` are the net's
    /// logits on the pictures themselves.
    ///
    /// # Errors
    /// As [`Haf::stage_masks`].
    pub fn objective(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets, reference): (&Batch, &[usize], &Tensor),
        masks: &[Vec<f64>],
        want: Want,
    ) -> Result<Vec<HafEvaluation>> {
        let stages = Stages::of(graph)?;
        if masks.len() != x.len() || masks.iter().any(|m| m.len() != stages.len()) {
            return Err(Error::settings(format!("{} pictures need masks of {} numbers", x.len(), stages.len())));
        }
        self.evaluate(engine, graph, &stages, (x, targets, reference), masks, want)
    }

    fn evaluate(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        stages: &Stages,
        (x, targets, reference): (&Batch, &[usize], &Tensor),
        masks: &[Vec<f64>],
        want: Want,
    ) -> Result<Vec<HafEvaluation>> {
        let mut loads: Vec<Vec<Tensor>> = vec![Vec::with_capacity(x.len()); stages.nodes.len()];
        for masks in masks {
            for (load, (shape, m)) in loads.iter_mut().zip(stages.split(masks)) {
                load.push(Tensor::f64(shape.dims(), m.to_vec())?);
            }
        }
        loads.push((0..x.len()).map(|i| reference.item(i)).collect::<Result<_>>()?);
        let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
        let mut outcome = engine.evaluate(graph, &HafScript { score: self.score, form: self.form, want }, &task)?;
        (0..x.len())
            .map(|i| {
                let logits = &outcome.logits[i][0];
                let at = |logits: &[f64]| self.score.linked(graph.link(), logits, targets[i]).0;
                let there = reference.item(i)?;
                let there = there.to_f64();
                let score = at(logits);
                // The backward signal times `factor` is the gradient of the squared miss.
                let (miss, factor) = match self.form {
                    Preserved::Class => {
                        let d = score - at(&there);
                        (d * d, 2.0 * d)
                    }
                    Preserved::Vector => {
                        let squares = logits.iter().zip(there.iter()).map(|(a, b)| (a - b) * (a - b));
                        // A single output enters both logits, −z and z.
                        let times = if graph.is_paired() { graph.classes() as f64 } else { 1.0 };
                        (squares.sum::<f64>() / times, 2.0 / times)
                    }
                };
                let (mut size, mut gradient) = (0.0, Vec::new());
                for (t, (shape, m)) in stages.split(&masks[i]).enumerate() {
                    let weight = self.lambda / (shape.plane() as f64).sqrt();
                    size += weight * m.iter().map(|m| m.abs()).sum::<f64>();
                    if want == Want::Gradient {
                        let signal = std::mem::replace(&mut outcome.stores[t][i], Tensor::f64([0], Vec::new())?);
                        // The derivative of |m| at 0 is taken as 0.
                        let slope = |m: f64| if m == 0.0 { 0.0 } else { weight * m.signum() };
                        gradient.extend(signal.to_f64().iter().zip(m).map(|(s, &m)| factor * s + slope(m)));
                    }
                }
                Ok(HafEvaluation { objective: miss + size, gradient, score })
            })
            .collect()
    }

    /// `[H, W]`: mean over stages of the upsampled channel means, each divided by its maximum; a stage whose masks are
    /// all zero adds nothing.
    fn fuse(&self, masks: &[Tensor], to: [usize; 2]) -> Result<Vec<f64>> {
        let mut map = vec![0.0; to[0] * to[1]];
        for mask in masks {
            let &[c, h, w] = mask.dims() else { return Err(Error::model("a stage's mask has not the axes [C, H, W]")) };
            let mut mean = vec![0.0; h * w];
            for channel in mask.to_f64().chunks(h * w) {
                mean.iter_mut().zip(channel).for_each(|(sum, m)| *sum += m / c as f64);
            }
            let large = upsample(&mean, [h, w], to, self.upsample)?;
            let top = large.iter().copied().fold(0.0, f64::max);
            // Masks start at 1, so a maximum within rounding of 0 counts as zero and must not be divided by.
            if top > rounding(1.0, Precision::F64) {
                map.iter_mut().zip(&large).for_each(|(sum, m)| *sum += m / top / masks.len() as f64);
            }
        }
        Ok(map)
    }
}

/// Loads one mask per stage (slots by stage) and the logits to preserve (the last slot). Stores the factors of a mask's
/// gradient: the signal at the masked stage times the activations before the mask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HafScript {
    score: Score,
    form: Preserved,
    want: Want,
}

impl Script for HafScript {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let stages = Stages::of(b.graph())?;
        let mut places = Vec::with_capacity(stages.nodes.len());
        for (t, &(node, shape)) in stages.nodes.iter().enumerate() {
            let activations = b.output(node);
            let mask = b.load(t, shape)?;
            let masked = b.mul(activations, mask)?;
            b.replace(node, masked)?;
            places.push((node, activations, mask));
        }
        let output = b.graph().output();
        let score_gradient = match self.want {
            Want::Value => {
                b.score(self.score);
                return Ok(());
            }
            Want::Gradient => b.seed(self.score),
        };
        let mut signal = match self.form {
            Preserved::Class => score_gradient,
            Preserved::Vector => {
                let logits = b.output(output);
                let reference = b.load(stages.nodes.len(), b.shape(logits))?;
                b.sub(logits, reference)?
            }
        };
        let mut from = output;
        for (t, &(node, activations, mask)) in places.iter().enumerate().rev() {
            signal = pull_back(b, &Composite::gradient(), from, signal, node)?;
            let gradient = b.mul(signal, activations)?;
            b.store(gradient, t)?;
            signal = b.mul(signal, mask)?;
            from = node;
        }
        Ok(())
    }
}

impl Method for Haf {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(pixels_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let to = [x.shape().h, x.shape().w];
        let found = self.stage_masks(engine, graph, x, targets)?;
        let precision = engine.describe().precision;
        let map = |(found, &target): (StageMasks, &usize)| {
            let values = Tensor::rounded(to, self.fuse(&found.masks, to)?, precision)?;
            let value = found.masked_score - found.score;
            let relative = Some(value.abs() / found.score.abs()).filter(|share| share.is_finite());
            let gap = Some(Gap { promise: "preservation".into(), value, relative });
            Ok(Map { gap, ..Map::new(values, Sign::Unsigned, Space::Input, target, ENTRY.id) })
        };
        found.into_iter().zip(targets).map(map).collect()
    }
}

/// The stages that are masked, shallow to deep.
#[derive(Debug)]
struct Stages {
    nodes: Vec<(NodeId, Shape)>,
}

impl Stages {
    /// # Errors
    /// When there are none, or a path from picture to logits bypasses one of them: the signal at one stage would then
    /// not cover everything that depends on the stage before.
    fn of(graph: &Graph) -> Result<Self> {
        let mut nodes: Vec<NodeId> = graph.stages().iter().map(|s| s.1).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            return Err(Error::settings("haf masks the stages of a net, and this net has no stages"));
        }
        if !nodes.iter().any(|&node| graph.has_positions(node)) {
            return Err(Error::settings("haf shows where a net looks, and no stage of this net has positions"));
        }
        for &node in &nodes {
            if !is_passed_by_all(graph, node) {
                let name = &graph.node(node).name;
                return Err(Error::settings(format!(
                    "haf needs stages that all ways through the net pass; '{name}' is not one"
                )));
            }
        }
        Ok(Self { nodes: nodes.into_iter().map(|n| (n, graph.node(n).shape)).collect() })
    }

    /// Number of elements in all masks of one picture.
    fn len(&self) -> usize {
        self.nodes.iter().map(|(_, shape)| shape.len()).sum()
    }

    /// A picture's masks by stage.
    fn split<'a>(&'a self, masks: &'a [f64]) -> impl Iterator<Item = (Shape, &'a [f64])> {
        let mut rest = masks;
        self.nodes.iter().map(move |&(_, shape)| {
            let (mask, after) = rest.split_at(shape.len());
            rest = after;
            (shape, mask)
        })
    }
}

/// Whether every path from the picture to the logits passes `node`.
fn is_passed_by_all(graph: &Graph, node: NodeId) -> bool {
    let mut around = vec![false; graph.nodes().len()];
    around[graph.input().index()] = graph.input() != node;
    for id in graph.ids().skip(1) {
        around[id.index()] = id != node && graph.node(id).inputs.iter().any(|i| around[i.index()]);
    }
    !around[graph.output().index()]
}
