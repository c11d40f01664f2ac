//! RelEx (Lim, Lee, Kim 2021): the mask that preserves the prediction on noisy copies while its complement destroys it.

use crate::engine::{self, Batch, Draws, Engine, Script, Task};
use crate::error::{Error, Result};
use crate::graph::{Factor, Graph};
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::descent::{Course, in_groups};
use crate::method::{Entry, Method, MethodPreset, Parameter, ParameterValues, Promise, When, numbers_of};
use crate::optimiser::Momentum;
use crate::perturb::noise::{self, MOST_DRAWS};
use crate::program::{Builder, Score, Statistic};
use crate::random::Stream;
use crate::rule::{Composite, pull_back};
use crate::tensor::{Precision, Shape, Tensor, rounding};

pub(crate) const ENTRY: Entry = Entry {
    id: "relex",
    aliases: &[],
    title: "RelEx",
    paper: "Lim, Lee, Kim 2021: Building reliable explanations of unreliable neural networks: locally smoothing perspective \
            of model interpretation, CVPR",
    summary: "the mask m in [0,1] that minimises ⟨−log p(m ∘ xᵢ) − λ₂ log(1 − p((1−m) ∘ xᵢ) + 1e-7)⟩ + λ₁‖m‖₁ over noisy \
              copies xᵢ, drawn anew in each iteration; p is the target's softmax probability, whatever the score",
    passes: "2 · copies · iterations forward and as many backward (preset=paper 5000, preset=quick 480)",
    parameters: &[
        Parameter { key: "copies", unit: "copies", default: "50", help: "noisy copies of the picture in an iteration" },
        Parameter {
            key: "noise",
            unit: "share of max x − min x",
            default: "0.1",
            help: "standard deviation of the noise",
        },
        Parameter { key: "iterations", unit: "steps", default: "50", help: "steps of gradient descent" },
        Parameter {
            key: "init",
            unit: "uniform|V",
            default: "uniform",
            help: "the mask at first: drawn from 0 to 0.01, or V everywhere",
        },
        Parameter {
            key: "lr",
            unit: "mask a step",
            default: "0.1",
            help: "learning rate, at most 1e12; the gradient is divided by its L2 norm",
        },
        Parameter { key: "momentum", unit: "1", default: "0.99", help: "share of the velocity that stays" },
        Parameter {
            key: "l1",
            unit: "1|auto",
            default: "1e-4",
            help: "λ₁, weight of the mask's size, at most 1e12; auto: 1e-4 · 150528/size of the input, this project's own choice for \
                   inputs much smaller than 3x224x224",
        },
        Parameter {
            key: "l2", unit: "1", default: "1", help: "λ₂, weight of what the complement loses, at most 1e12"
        },
        Parameter {
            key: "preset",
            unit: "paper|quick",
            default: "paper",
            help: "paper: the defaults, 5000 passes; quick: copies=8, iterations=30, 480 passes, this project's own choice",
        },
    ],
    promises: &[(Promise::NotNegative, When::Always)],
    draws: When::Always,
    caution: "a sparse mask can keep a prediction without showing the object, and it is fitted to the one class it is given",
    build: |values, context| Ok(Box::new(RelEx::new(values, context.seed)?)),
};

/// See the help of `preset`.
pub(crate) const PRESETS: [MethodPreset; 2] = [("paper", &[]), ("quick", &[("copies", "8"), ("iterations", "30")])];

/// The initial mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Drawn uniformly from 0 to 0.01.
    Uniform,
    /// One value everywhere.
    Value(f64),
}

/// Weight of `‖m‖₁`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SizeWeight {
    /// As given.
    Given(f64),
    /// 1e-4 for an input of 3x224x224, more for smaller ones: `1e-4 · 150528 / size`.
    Auto,
}

impl SizeWeight {
    fn of(self, input: Shape) -> f64 {
        match self {
            SizeWeight::Given(l1) => l1,
            SizeWeight::Auto => 1e-4 * 150_528.0 / input.len() as f64,
        }
    }
}

/// Minimises `⟨−log p_t(m ∘ xᵢ) − λ₂ log(1 − p_t((1−m) ∘ xᵢ) + 1e-7)⟩ + λ₁‖m‖₁` over masks from 0 to 1 of the picture's shape.
#[derive(Debug, Clone)]
pub struct RelEx {
    /// Noisy copies per iteration.
    pub copies: usize,
    /// Standard deviation of the noise as a share of the picture's range.
    pub noise: f64,
    /// Number of steps.
    pub iterations: usize,
    /// The initial mask.
    pub init: Init,
    /// Learning rate.
    pub lr: f64,
    /// Share of the velocity that is kept.
    pub momentum: f64,
    /// `λ₁`.
    pub l1: SizeWeight,
    /// `λ₂`.
    pub l2: f64,
    /// Seed of all draws.
    pub seed: u64,
}

/// The mask found for one picture.
#[derive(Debug, Clone)]
pub struct FoundMask {
    /// `[C, H, W]` from 0 to 1.
    pub mask: Tensor,
    /// Objective before each step.
    pub objectives: Vec<f64>,
}

/// The objective at one picture's mask.
#[derive(Debug, Clone)]
pub struct RelexEvaluation {
    /// Its value.
    pub objective: f64,
    /// Its gradient with respect to the mask.
    pub gradient: Vec<f64>,
}

impl RelEx {
    /// # Errors
    /// When a value is out of its range.
    fn new(values: &ParameterValues, seed: u64) -> Result<Self> {
        let init = match values.text("init")? {
            "uniform" => Init::Uniform,
            _ => match values.parse::<f64>("init")? {
                v if (0.0..=1.0).contains(&v) => Init::Value(v),
                _ => return Err(values.refused("init", "a mask lies between 0 and 1")),
            },
        };
        let l1 = match values.text("l1")? {
            "auto" => SizeWeight::Auto,
            _ => SizeWeight::Given(values.weight("l1")?),
        };
        let [copies, iterations] = [values.count("copies")?, values.count("iterations")?];
        if copies == 0 {
            return Err(values.refused("copies", "there must be at least 1"));
        }
        if copies * iterations > MOST_DRAWS {
            return Err(Error::settings(format!(
                "relex: {copies} copies in each of {iterations} iterations are too many"
            )));
        }
        let momentum = values.not_negative("momentum")?;
        if momentum >= 1.0 {
            return Err(values.refused("momentum", "it must be less than 1"));
        }
        let [noise, lr, l2] = [values.not_negative("noise")?, values.weight("lr")?, values.weight("l2")?];
        Ok(Self { copies, noise, iterations, init, lr, momentum, l1, l2, seed })
    }

    /// The mask of each picture, for its target.
    ///
    /// # Errors
    /// When shapes or targets do not match, memory is not enough or a number is not finite.
    pub fn masks(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<FoundMask>> {
        engine::check(graph, x, targets)?;
        // Mask, velocity, gradient, and the first two in other precision; the engine accounts for transfers.
        let bytes = 5 * x.shape().len() * size_of::<f64>();
        in_groups((ENTRY.id, self.iterations), engine, (x, targets), bytes, |engine, x, targets, course| {
            self.group(engine, graph, (x, targets), course)
        })
    }

    fn group(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets): (&Batch, &[usize]),
        course: Course,
    ) -> Result<Vec<FoundMask>> {
        let len = x.shape().len();
        let mut masks: Vec<Vec<f64>> = x.keys().iter().map(|&key| self.start(key, len)).collect();
        let mut descents = vec![Momentum::new(self.lr, self.momentum, len); x.len()];
        let mut objectives = vec![Vec::with_capacity(self.iterations); x.len()];
        for iteration in 0..self.iterations {
            let evaluations = self.objective(engine, graph, (x, targets), &masks, iteration)?;
            course.report(engine, iteration + 1, evaluations.iter().map(|e| e.objective));
            for (i, RelexEvaluation { objective, mut gradient }) in evaluations.into_iter().enumerate() {
                objectives[i].push(objective);
                let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                // A zero gradient has no direction.
                if norm > 0.0 {
                    gradient.iter_mut().for_each(|g| *g /= norm);
                }
                descents[i].step(&mut masks[i], &gradient);
                masks[i].iter_mut().for_each(|m| *m = m.clamp(0.0, 1.0));
            }
        }
        let precision = engine.describe().precision;
        let found = masks.into_iter().zip(objectives);
        found
            .map(|(mask, objectives)| {
                Ok(FoundMask { mask: Tensor::rounded(x.shape().dims(), mask, precision)?, objectives })
            })
            .collect()
    }

    /// The initial mask of the picture with this key.
    fn start(&self, key: u64, len: usize) -> Vec<f64> {
        match self.init {
            Init::Value(v) => vec![v; len],
            Init::Uniform => {
                let mut draws = vec![0f32; len];
                Stream::RelexMask.uniforms(self.seed, key, 0, &mut draws);
                draws.into_iter().map(|u| 0.01 * f64::from(u)).collect()
            }
        }
    }

    /// The objective at the given masks (one per picture, in its C order) on the copies of one iteration.
    ///
    /// # Errors
    /// As [`RelEx::masks`].
    pub fn objective(
        &self,
        engine: &mut Engine,
        graph: &Graph,
        (x, targets): (&Batch, &[usize]),
        masks: &[Vec<f64>],
        iteration: usize,
    ) -> Result<Vec<RelexEvaluation>> {
        let shape = x.shape();
        let mask = |m: &Vec<f64>| Tensor::f64(shape.dims(), m.clone());
        let loads = [masks.iter().map(mask).collect::<Result<Vec<_>>>()?];
        let first = iteration.saturating_mul(self.copies);
        let copies = noise::gaussian_from(x, first, self.copies, self.noise, self.seed)?;
        let task = Task { x, targets, copies: &copies, loads: &loads };
        let outcome = engine.evaluate(graph, &RelexScript { l2: self.l2.into() }, &task)?;
        let l1 = self.l1.of(shape);
        let stored = outcome.stores.first().map_or(&[][..], Vec::as_slice);
        let mut evaluations = Vec::with_capacity(x.len());
        for (i, kept) in stored.chunks(self.copies).enumerate() {
            let of_copy = |(kept, lost): (&Tensor, &f64)| {
                -Score::LogProb.linked(graph.link(), &kept.to_f64(), targets[i]).0 - self.l2 * lost
            };
            let mean = kept.iter().zip(&outcome.scores[i]).map(of_copy).sum::<f64>() / self.copies as f64;
            let size = l1 * masks[i].iter().map(|m| m.abs()).sum::<f64>();
            // The derivative of |m| at 0 is taken as 0.
            let slope = |m: f64| if m == 0.0 { 0.0 } else { l1 * m.signum() };
            let gradient = outcome.maps[i].to_f64().iter().zip(&masks[i]).map(|(g, &m)| g + slope(m)).collect();
            evaluations.push(RelexEvaluation { objective: mean + size, gradient });
        }
        Ok(evaluations)
    }
}

/// Two forward passes per copy, on `m ∘ x` and on `(1 − m) ∘ x`. Stores the logits of the first and aggregates `x ∘ (λ₂
/// ∂log(1 − p + 1e-7) − ∂log p)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RelexScript {
    l2: Factor,
}

impl Script for RelexScript {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let (input, output) = (b.graph().input(), b.graph().output());
        let plain = b.forward();
        let x = b.output(input);
        let shape = b.shape(x);
        let mask = b.load(0, shape)?;

        let kept = b.mul(x, mask)?;
        b.replace(input, kept)?;
        let logits = b.output(output);
        b.store(logits, 0)?;
        let seed = b.seed(Score::LogProb);
        let keep = pull_back(b, &Composite::gradient(), output, seed, input)?;

        b.enter(plain);
        let ones = b.fill(shape, vec![1.0; shape.c])?;
        let complement = b.sub(ones, mask)?;
        let dropped = b.mul(x, complement)?;
        b.replace(input, dropped)?;
        let seed = b.seed(Score::LogOthers);
        let lose = pull_back(b, &Composite::gradient(), output, seed, input)?;

        let lose = b.scale(lose, self.l2.get())?;
        let signal = b.sub(lose, keep)?;
        let gradient = b.mul(x, signal)?;
        b.aggregate(gradient, Statistic::Sum)
    }
}

impl Method for RelEx {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let found = self.masks(engine, graph, x, targets)?;
        let map = |((found, &target), (picture, draws)): ((FoundMask, &usize), (&Tensor, &Draws))| {
            let map = Map::new(found.mask, Sign::Unsigned, Space::Input, target, ENTRY.id);
            // Zeros without noise are unchanged by any mask.
            let nothing = self.noise * draws.range == 0.0 && (0..picture.len()).all(|i| picture.at(i) == 0.0);
            if nothing { map.blank() } else { map.settled(rounding(1.0, Precision::F64)) }
        };
        Ok(found.into_iter().zip(targets).zip(x.items().iter().zip(x.draws())).map(map).collect())
    }
}
