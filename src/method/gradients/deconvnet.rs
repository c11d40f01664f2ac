//! Deconvolutional net (Zeiler et al. 2014).

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::{Entry, Method, When, input_maps};
use crate::program::Score;
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "deconvnet",
    aliases: &[],
    title: "Deconvolutional net",
    paper: "Zeiler, Fergus 2014: Visualizing and understanding convolutional networks, ECCV",
    summary: "backward with max(·, 0) at every ReLU instead of its gate",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "close to a picture of edges; hardly depends on the class (Nie 2018)",
    build: |_, context| Ok(Box::new(DeconvnetScript(context.score))),
};

/// Backward with max(·, 0) at every ReLU instead of its gate.
struct DeconvnetScript(Score);

impl Method for DeconvnetScript {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let job = Job { rules: Composite::deconvnet(), ..Job::gradient(self.0) };
        input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)
    }
}
