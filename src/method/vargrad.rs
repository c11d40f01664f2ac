//! Unbiased variance of the gradient over n noisy copies (Adebayo et al. 2018).

use std::sync::Arc;

use super::{Entry, Method, Parameter, Promise, input_maps};
use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::perturb::noise;
use crate::program::{Score, Statistic};

pub(super) const ENTRY: Entry = Entry {
    id: "vargrad",
    aliases: &[],
    title: "VarGrad",
    paper: "Adebayo, Gilmer, Goodfellow, Kim 2018: Local explanation methods for deep neural networks lack sensitivity to parameter values, ICLR workshop",
    summary: "unbiased variance of the gradient over n noisy copies",
    passes: "n forward, n backward",
    parameters: &[
        Parameter { key: "n", unit: "copies", default: "50", help: "noisy copies of the picture, at least 2" },
        Parameter {
            key: "sigma",
            unit: "share of max x − min x",
            default: "0.15",
            help: "standard deviation of the noise",
        },
    ],
    promises: &[Promise::NotNegative],
    caution: "independent of the mean gradient: shows where the slope changes, not where it is large",
    build: |values, context| {
        Ok(Box::new(VarGrad {
            score: context.score,
            n: values.parse("n")?,
            sigma: values.parse("sigma")?,
            seed: context.seed,
        }))
    },
};

/// Unbiased variance of the gradient over n noisy copies.
struct VarGrad {
    score: Score,
    n: usize,
    sigma: f64,
    seed: u64,
}

impl Method for VarGrad {
    fn explain(&self, engine: &mut Engine, graph: &Arc<Graph>, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let copies = noise::gaussian(x, self.n, self.sigma, self.seed)?;
        let job = Job { copies, statistic: Statistic::Variance, ..Job::gradient(self.score) };
        input_maps(engine, graph, &job, x, targets, Sign::Unsigned, ENTRY.id)
    }
}
