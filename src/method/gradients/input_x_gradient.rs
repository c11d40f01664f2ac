//! Picture times gradient, element by element (Shrikumar et al. 2016).

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::{Entry, Method, When, input_maps};
use crate::program::{Score, Times};

pub(crate) const ENTRY: Entry = Entry {
    id: "input_x_gradient",
    aliases: &[],
    title: "Input × gradient",
    paper: "Shrikumar, Greenside, Shcherbina, Kundaje 2016: Not just a black box, arXiv 1605.01713",
    summary: "x ∘ g, the first-order share of each pixel in the score",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "changes when the same picture is shifted and the net compensates (Kindermans 2017)",
    build: |_, context| Ok(Box::new(InputXGradient(context.score))),
};

/// x ∘ ∂f/∂x.
struct InputXGradient(Score);

impl Method for InputXGradient {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        let job = Job { times: Times::Input, ..Job::gradient(self.0) };
        input_maps(engine, graph, &job, x, targets, Sign::Signed, ENTRY.id)
    }
}
