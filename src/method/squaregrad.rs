//! Mean squared gradient of n noisy copies (Hooker et al. 2019).

use std::sync::Arc;

use super::{Entry, Method, Parameter, Promise, input_maps};
use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::perturb::noise;
use crate::program::{Score, Statistic};

pub(super) const ENTRY: Entry = Entry {
    id: "squaregrad",
    aliases: &[],
    title: "SmoothGrad squared",
    paper: "Hooker, Erhan, Kindermans, Kim 2019: A benchmark for interpretability methods (ROAR), NeurIPS",
    summary: "mean squared gradient of n noisy copies",
    passes: "n forward, n backward",
    parameters: &[
        Parameter { key: "n", unit: "copies", default: "50", help: "noisy copies of the picture" },
        Parameter {
            key: "sigma",
            unit: "share of max x − min x",
            default: "0.15",
            help: "standard deviation of the noise",
        },
    ],
    promises: &[Promise::NotNegative],
    caution: "without sign: evidence for and against look alike",
    build: |values, context| {
        Ok(Box::new(SquareGrad {
            score: context.score,
            n: values.parse("n")?,
            sigma: values.parse("sigma")?,
            seed: context.seed,
        }))
    },
};

/// Mean squared gradient of n noisy copies.
struct SquareGrad {
    score: Score,
    n: usize,
    sigma: f64,
    seed: u64,
}

impl Method for SquareGrad {
    fn explain(&self, engine: &mut Engine, graph: &Arc<Graph>, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let copies = noise::gaussian(x, self.n, self.sigma, self.seed)?;
        let job = Job { copies, statistic: Statistic::SumOfSquares, ..Job::gradient(self.score) };
        input_maps(engine, graph, &job, x, targets, Sign::Unsigned, ENTRY.id)
    }
}
