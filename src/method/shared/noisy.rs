//! Common part of SmoothGrad, its square and VarGrad: a statistic over the gradients of noisy copies.

use crate::engine::{Batch, Engine, Job};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::map::{Map, MapDims, Sign};
use crate::method::{Context, Method, Parameter, ParameterValues, input_maps, numbers_of};
use crate::perturb::noise;
use crate::program::{Score, Statistic};

/// Their parameters; `copies` documents `n`.
pub(crate) const fn parameters(copies: &'static str) -> [Parameter; 2] {
    [
        Parameter { key: "n", unit: "copies", default: "50", help: copies },
        Parameter {
            key: "sigma",
            unit: "share of max x − min x",
            default: "0.15",
            help: "standard deviation of the noise",
        },
    ]
}

/// One statistic over the gradients of n noisy copies.
struct Noisy {
    id: &'static str,
    statistic: Statistic,
    sign: Sign,
    score: Score,
    n: usize,
    sigma: f64,
    seed: u64,
}

/// The method `id` with the given values.
pub(crate) fn build(
    id: &'static str,
    statistic: Statistic,
    sign: Sign,
    values: &ParameterValues,
    context: &Context<'_>,
) -> Result<Box<dyn Method>> {
    let (n, sigma): (usize, f64) = (values.count("n")?, values.parse("sigma")?);
    if statistic == Statistic::Variance && sigma == 0.0 {
        return Err(Error::settings(format!(
            "{id}:sigma=0: copies without noise are all the same, so the map can only be blank"
        )));
    }
    Ok(Box::new(Noisy { id, statistic, sign, score: context.score, n, sigma, seed: context.seed }))
}

impl Method for Noisy {
    fn map_dims(&self, graph: &Graph) -> Result<MapDims> {
        Ok(numbers_of(graph))
    }

    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let copies = noise::gaussian_within(engine.spare(), x, 0, self.n, self.sigma, self.seed)?;
        let job = Job { statistic: self.statistic, ..Job::of_copies(self.score, copies) };
        let maps = input_maps(engine, graph, &job, x, targets, self.sign, self.id);
        job.copies.keep_in(engine.spare());
        maps
    }
}
