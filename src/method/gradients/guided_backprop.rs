//! Guided backpropagation (Springenberg et al. 2015).

use crate::engine::{Batch, Engine, Job};
use crate::error::Result;
use crate::graph::Graph;
use crate::map::{Map, Sign};
use crate::method::{Entry, Method, When, input_maps};
use crate::program::Score;
use crate::rule::Composite;

pub(crate) const ENTRY: Entry = Entry {
    id: "guided_backprop",
    aliases: &[],
    title: "Guided backpropagation",
    paper: "Springenberg, Dosovitskiy, Brox, Riedmiller 2015: Striving for simplicity, ICLR workshop",
    summary: "backward with max(·, 0) at every active ReLU",
    passes: "1 forward, 1 backward",
    parameters: &[],
    promises: &[],
    draws: When::Never,
    caution: "close to a picture of edges; hardly depends on the class or on upper layers' weights (Adebayo 2018)",
    build: |_, context| Ok(Box::new(GuidedBackprop(context.score))),
};

/// Backward with max(·, 0) at every active ReLU.
struct GuidedBackprop(Score);

impl GuidedBackprop {
    fn plain(&self) -> Job {
        Job { rules: Composite::guided(), ..Job::gradient(self.0) }
    }
}

impl Method for GuidedBackprop {
    fn explain(&self, engine: &mut Engine, graph: &Graph, x: &Batch, targets: &[usize]) -> Result<Vec<Map>> {
        input_maps(engine, graph, &self.plain(), x, targets, Sign::Signed, ENTRY.id)
    }

    fn job(&self) -> Option<(Job, Sign)> {
        Some((self.plain(), Sign::Signed))
    }
}
