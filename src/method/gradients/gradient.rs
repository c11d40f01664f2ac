//! The gradient of the score with respect to the picture (Simonyan et al. 2014).

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::{Entry, Method, When, input_maps};
use crate::program::Score;

pub(crate) const ENTRY: Entry = Entry {
    id: "gradient",
    aliases: &[],
    title: "Gradient",
    paper: "Simonyan, Vedaldi, Zisserman 2014: Deep inside convolutional networks, ICLR workshop",
    summary: "g = ∂f/∂x, the score's slope at each pixel",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "noisy on deep nets; small where the score saturates",
    build: |_, context| Ok(Box::new(GradientScript(context.score))),
};

/// ∂f/∂x.
struct GradientScript(Score);

impl Method for GradientScript {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        input_maps(engine, graph, &Job::gradient(self.0), x, targets, Sign::Signed, ENTRY.id)
    }

    fn job(&self) -> Option<(Job, Sign)> {
        Some((Job::gradient(self.0), Sign::Signed))
    }
}
