//! Mean gradient of n noisy copies (Smilkov et al. 2017).

use std::sync::Arc;

use super::{Entry, Method, Parameter, input_maps};
use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::perturb::noise;
use crate::program::{Score, Statistic};

pub(super) const ENTRY: Entry = Entry {
    id: "smoothgrad",
    aliases: &[],
    title: "SmoothGrad",
    paper: "Smilkov, Thorat, Kim, Viégas, Wattenberg 2017: SmoothGrad, arXiv 1706.03825",
    summary: "mean gradient of n noisy copies",
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
    promises: &[],
    caution: "the mean of signed gradients can cancel where copies disagree",
    build: |values, context| {
        Ok(Box::new(SmoothGrad {
            score: context.score,
            n: values.parse("n")?,
            sigma: values.parse("sigma")?,
            seed: context.seed,
        }))
    },
};

/// Mean gradient of n noisy copies.
struct SmoothGrad {
    score: Score,
    n: usize,
    sigma: f64,
    seed: u64,
}

impl Method for SmoothGrad {
    fn explain(&self, engine: &mut Engine, graph: &Arc<Graph>, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let copies = noise::gaussian(x, self.n, self.sigma, self.seed)?;
        let job = Job { copies, statistic: Statistic::Sum, ..Job::gradient(self.score) };
        input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)
    }
}
