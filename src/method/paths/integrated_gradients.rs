//! Integrated gradients (Sundararajan et al. 2017): the gradient averaged along the straight path from a baseline,
//! times the difference from the baseline.

use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::shared::from_baseline::{self, BaselineStart, Gaps};
use crate::method::{Entry, Method, Parameter, When, input_maps};
use crate::perturb::quadrature::Quadrature;
use crate::program::{Score, Statistic, Times};

pub(crate) const ENTRY: Entry = Entry {
    id: "integrated_gradients",
    aliases: &["ig"],
    title: "Integrated gradients",
    paper: "Sundararajan, Taly, Yan 2017: Axiomatic attribution for deep networks, ICML, equation 1",
    summary: "(x − b) ∘ ∫₀¹ g(b + α(x − b)) dα, a weighted sum over steps",
    passes: "steps forward, steps backward; 2 forward with gap=yes",
    parameters: &[
        Parameter { key: "steps", unit: "points", default: "50", help: "points on the path" },
        Parameter {
            key: "rule",
            unit: "midpoint|left|right|trapezoid|gausslegendre",
            default: "midpoint",
            help: "quadrature: where the points lie and what they weigh",
        },
        from_baseline::PARAMETER,
        from_baseline::GAP,
    ],
    promises: &from_baseline::PROMISES,
    draws: When::With("baseline", "noise"),
    caution: "depends on the baseline: pixels that look like it get nothing",
    build: |values, context| {
        let start = BaselineStart::new(values, context)?;
        let rule: Quadrature = values.parse("rule")?;
        let (alphas, weights) = rule.points(values.count("steps")?).map_err(|e| e.within(ENTRY.id))?;
        let gaps = Gaps::new(ENTRY.id, values)?;
        Ok(Box::new(IntegratedGradients { score: context.score, alphas, weights, start, gaps }))
    },
};

/// `(x − b) ∘ Σ_k w_k g(b + α_k (x − b))`.
struct IntegratedGradients {
    score: Score,
    alphas: Vec<f64>,
    weights: Vec<f64>,
    start: BaselineStart,
    gaps: Gaps,
}

impl Method for IntegratedGradients {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let baselines = self.start.tensors(x).map_err(|e| e.within(ENTRY.id))?;
        let start = Batch::of(baselines.clone())?;
        let perturbation = Perturbation::Path { alphas: self.alphas.clone(), baselines };
        let job = Job {
            copies: Copies { perturbation, weights: self.weights.clone() },
            statistic: Statistic::Sum,
            times: Times::InputMinusBaseline,
            ..Job::gradient(self.score)
        };
        let mut maps = input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)?;
        let sums: Vec<f64> = maps.iter().map(|map| map.values.to_f64().iter().sum()).collect();
        let gaps =
            self.gaps.of(&sums, || from_baseline::differences(engine, graph, self.score, x, start.items(), targets))?;
        maps.iter_mut().zip(gaps).for_each(|(map, gap)| map.gap = gap);
        Ok(from_baseline::settled(maps, x, start.items()))
    }
}
