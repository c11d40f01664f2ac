//! Integrated gradients (Sundararajan et al. 2017): the gradient averaged along the straight path from a baseline,
//! times the difference from the baseline.

use crate::device::Perturbation;
use crate::engine::{Batch, Copies, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign};
use crate::method::shared::from_baseline::{self, BaselineStart, Gaps};
use crate::method::{Entry, Method, Parameter, When, input_maps, numbers_of};
use crate::perturb::quadrature::Quadrature;
use crate::program::{Score, Times};

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
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let spare = engine.spare();
        let baselines = self.start.tensors(spare, x).map_err(|e| e.within(ENTRY.id))?;
        let (alphas, weights) = (spare.of(self.alphas.iter().copied()), spare.of(self.weights.iter().copied()));
        let copies = Copies { perturbation: Perturbation::Path { alphas, baselines }, weights };
        let job = Job { times: Times::InputMinusBaseline, ..Job::of_copies(self.score, copies) };
        let mut maps = input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)?;
        if let Perturbation::Path { baselines, .. } = &job.copies.perturbation {
            let sums = engine.spare().of(maps.iter().map(|map| map.values.each().sum()));
            let mut gaps = self.gaps.of(engine, sums, |engine| {
                from_baseline::differences(engine, graph, self.score, x, baselines, targets)
            })?;
            maps.iter_mut().zip(gaps.drain(..)).for_each(|(map, gap)| map.gap = gap);
            engine.spare().keep(gaps);
            maps = from_baseline::settled(maps, x, baselines);
        }
        job.copies.keep_in(engine.spare());
        Ok(maps)
    }
}
