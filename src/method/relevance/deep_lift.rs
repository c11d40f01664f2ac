//! DeepLIFT with the rescale rule (Shrikumar et al. 2017): the difference of two scores, propagated back through the
//! difference quotients between two forward passes.

use std::sync::Arc;

use crate::engine::{self, Batch, Copies, Engine, Script, Task};
use crate::error::Result;
use crate::graph::{Graph, Link};
use crate::map::{Map, MapDims, Sign, Space};
use crate::method::shared::from_baseline::{self, BaselineStart};
use crate::method::{Entry, Method, Promise, When, numbers_of};
use crate::perturb::quadrature::Quadrature;
use crate::program::{Builder, Score, Statistic};
use crate::rule::{Composite, DeepLift, Select, pull_back};
use crate::tensor::{Shape, Tensor};

pub(crate) const ENTRY: Entry = Entry {
    id: "deep_lift",
    aliases: &["deeplift"],
    title: "DeepLIFT (rescale)",
    paper: "Shrikumar, Greenside, Kundaje 2017: Learning important features through propagating activation differences, \
            ICML, section 3.5.1",
    summary: "(x − b) ∘ m, where every activation multiplies by Δout/Δin between x and baseline b; where |Δin| < 1e-10 by \
              its gradient. A pool's window sends up·Δout to one element, x's winner where Δout ≥ 0, b's where Δout < 0 (our \
              choice: complete where windows overlap)",
    passes: "2 forward, 1 backward; 2 forward more with --score prob or logprob",
    parameters: &[from_baseline::PARAMETER],
    promises: &[(Promise::Completeness, When::Always)],
    draws: When::With("baseline", "noise"),
    caution: "depends on the baseline: pixels that look like it get nothing; with --score prob or logprob the head's \
              multiplier is its gradient averaged over the line between both logit vectors (our choice)",
    build: |values, context| {
        Ok(Box::new(Rescale { score: context.score, start: BaselineStart::new(values, context)? }))
    },
};

/// `(x − b) ∘ m`.
struct Rescale {
    score: Score,
    start: BaselineStart,
}

/// Points on the line between two logit vectors; enough for logits that differ by a hundred.
const HEAD_POINTS: usize = 256;

/// One multiplier per logit, such that `Σ m · (z − z0)` is the difference of the scores: the score's gradient, averaged
/// over the line from `z0` to `z`.
fn head((score, link): (Score, Link), z: &[f64], z0: &[f64], target: usize) -> Result<Vec<f64>> {
    let mut mean = vec![0.0; z.len()];
    let (alphas, weights) = Quadrature::GaussLegendre.points(HEAD_POINTS)?;
    for (alpha, weight) in alphas.iter().zip(&weights) {
        let between: Vec<f64> = z.iter().zip(z0).map(|(z, z0)| z0 + alpha * (z - z0)).collect();
        let (_, gradient) = score.linked(link, &between, target);
        mean.iter_mut().zip(gradient).for_each(|(m, g)| *m += weight * g);
    }
    Ok(mean)
}

/// Slots of loads and stores.
const BASELINE: usize = 0;
const SEED: usize = 1;

/// The net on picture and baseline, and the multipliers between them times the difference of the inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DeepLiftScript;

impl Script for DeepLiftScript {
    type Notes = ();

    fn write(&self, b: &mut Builder<'_>) -> Result<()> {
        let graph = b.graph();
        let (input, output) = (graph.input(), graph.output());
        let picture = b.forward();
        let reference = b.load(BASELINE, graph.input_shape())?;
        let baseline = b.replace(input, reference)?;
        let logits = b.output(output);
        b.store(logits, 1)?;
        b.enter(picture);
        let logits = b.output(output);
        b.store(logits, 0)?;
        b.score(Score::Logit);
        let seed = b.load(SEED, Shape::vector(graph.classes()))?;
        let rules = Composite::new(vec![(Select::Every, Arc::new(DeepLift { picture, baseline }))]);
        let multiplier = pull_back(b, &rules, output, seed, input)?;
        let pixels = b.output(input);
        let way = b.sub(pixels, reference)?;
        let map = b.mul(multiplier, way)?;
        b.aggregate(map, Statistic::Sum)
    }
}

impl Method for Rescale {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        engine::check(graph, x, targets)?;
        let baselines = self.start.tensors(engine.spare(), x).map_err(|e| e.within(ENTRY.id))?;
        let classes = graph.classes();
        let seeds = match self.score {
            Score::Logit => targets.iter().map(|&t| self.score.evaluate(&vec![0.0; classes], t).1).collect(),
            _ => {
                let ends: Vec<&Tensor> = x.items().iter().chain(&baselines).collect();
                let logits = from_baseline::logits(engine, graph, &ends)?;
                let of =
                    |(i, &t): (usize, &usize)| head((self.score, graph.link()), &logits[i], &logits[x.len() + i], t);
                targets.iter().enumerate().map(of).collect::<Result<Vec<_>>>()?
            }
        };
        let seeds = seeds.into_iter().map(|s| Tensor::f64([classes, 1, 1], s)).collect::<Result<Vec<_>>>()?;
        let loads = [baselines, seeds];
        let task = Task { x, targets, copies: &Copies::one(), loads: &loads };
        let outcome = engine.evaluate(graph, &DeepLiftScript, &task)?;
        let score =
            |slot: usize, i: usize| self.score.linked(graph.link(), &outcome.stores[slot][i].to_f64(), targets[i]).0;
        let maps = outcome.maps.iter().enumerate().map(|(i, values)| {
            let difference = score(0, i) - score(1, i);
            let gap = from_baseline::completeness(values.to_f64().iter().sum(), difference)?;
            Ok(Map { gap: Some(gap), ..Map::new(values.clone(), Sign::Signed, Space::Input, targets[i], ENTRY.id) })
        });
        Ok(from_baseline::settled(maps.collect::<Result<_>>()?, x, &loads[BASELINE]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_multipliers_are_complete() {
        let (z, z0) = ([40.0, -3.0, 0.5], [-20.0, 1.0, 9.0]);
        for (score, link) in [Score::Logit, Score::Prob, Score::LogProb]
            .into_iter()
            .flat_map(|score| [Link::Softmax, Link::Sigmoid].map(|link| (score, link)))
        {
            for target in 0..3 {
                let m = head((score, link), &z, &z0, target).unwrap();
                let sum: f64 = (0..3).map(|j| m[j] * (z[j] - z0[j])).sum();
                let want = score.linked(link, &z, target).0 - score.linked(link, &z0, target).0;
                assert!((sum - want).abs() <= 1e-9 * want.abs().max(1.0), "{score:?} {target}: {sum} for {want}");
            }
        }
        assert_eq!(
            head((Score::Logit, Link::Softmax), &z, &z, 1).unwrap().iter().filter(|m| m.abs() > 1e-12).count(),
            1
        );
    }
}
