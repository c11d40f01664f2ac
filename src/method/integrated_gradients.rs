//! Integrated gradients (Sundararajan et al. 2017): the gradient averaged along the straight path from a baseline, times
//! the way from the baseline.

use super::{Entry, Method, Parameter, Promise, When, input_maps};
use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::Preprocess;
use crate::map::{Gap, Map, Sign};
use crate::perturb::baseline::Baseline;
use crate::perturb::quadrature::Quadrature;
use crate::program::{Score, Statistic, Times};
use crate::tensor::Tensor;

pub(super) const ENTRY: Entry = Entry {
    id: "integrated_gradients",
    aliases: &["ig"],
    title: "Integrated gradients",
    paper: "Sundararajan, Taly, Yan 2017: Axiomatic attribution for deep networks, ICML, equation 1",
    summary: "(x − b) ∘ ∫₀¹ g(b + α(x − b)) dα, a weighted sum over steps",
    passes: "steps forward, steps backward; 2 forward for the gap",
    parameters: &[
        Parameter { key: "steps", unit: "points", default: "50", help: "points on the path" },
        Parameter {
            key: "rule",
            unit: "midpoint|left|right|trapezoid|gausslegendre",
            default: "midpoint",
            help: "quadrature: where the points lie and what they weigh",
        },
        Parameter {
            key: "baseline",
            unit: "zero|black|white|mean|noise|blur:SIGMA|value:V|file:PATH",
            default: "zero",
            help: "where the path starts: zeros in the net's space, preprocessed black or white, the picture's mean colour, \
                   uniform noise, the blurred picture, one value, a picture",
        },
    ],
    promises: &[(Promise::Completeness, When::Always)],
    draws: When::With("baseline", "noise"),
    caution: "depends on the baseline: pixels that look like it get nothing",
    build: |values, context| {
        let baseline: Baseline = values.text("baseline")?.parse()?;
        let file = match &baseline {
            Baseline::File(path) => Some((context.load)(path)?),
            _ => None,
        };
        let rule: Quadrature = values.parse("rule")?;
        let (alphas, weights) = rule.points(values.count("steps")?).map_err(|e| e.within(ENTRY.id))?;
        Ok(Box::new(IntegratedGradients {
            score: context.score,
            alphas,
            weights,
            baseline,
            file,
            preprocess: context.preprocess.clone(),
            seed: context.seed,
        }))
    },
};

/// `(x − b) ∘ Σ_k w_k g(b + α_k (x − b))`.
struct IntegratedGradients {
    score: Score,
    alphas: Vec<f64>,
    weights: Vec<f64>,
    baseline: Baseline,
    file: Option<Tensor>,
    preprocess: Preprocess,
    seed: u64,
}

impl Method for IntegratedGradients {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let baselines = self
            .baseline
            .tensors(x, &self.preprocess, self.file.as_ref(), self.seed)
            .map_err(|e| e.within(ENTRY.id))?;
        let start = Batch::of(baselines.clone())?;
        let perturbation = Perturbation::Path { alphas: self.alphas.clone(), baselines };
        let job = Job {
            copies: Copies { perturbation, weights: self.weights.clone() },
            statistic: Statistic::Sum,
            times: Times::InputMinusBaseline,
            ..Job::gradient(self.score)
        };
        let mut maps = input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)?;
        let ends = [engine.forward(graph, x)?, engine.forward(graph, &start)?];
        for (i, map) in maps.iter_mut().enumerate() {
            let [here, there] = &ends;
            let score =
                |logits: &Tensor| -> Result<f64> { Ok(self.score.evaluate(&logits.item(i)?.to_f64(), targets[i]).0) };
            let difference = score(here)? - score(there)?;
            let value = map.values.to_f64().iter().sum::<f64>() - difference;
            if !value.is_finite() {
                return Err(Error::device("the scores at the path's ends are not finite"));
            }
            // A path between equal scores has no scale of its own.
            let relative = Some(value.abs() / difference.abs()).filter(|share| share.is_finite());
            map.gap = Some(Gap { promise: "completeness".into(), value, relative });
        }
        Ok(maps)
    }
}
