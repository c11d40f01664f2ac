//! Nets that are not needed any more.

use std::collections::HashSet;

use super::{Engine, Key};
use crate::graph::{Graph, Op};

impl Key {
    /// Id of the graph it names a program of.
    fn graph(&self) -> u64 {
        match self {
            Key::Scores(graph, _) | Key::Outputs(graph, _) | Key::Decisions(graph) | Key::Task(graph, _) => *graph,
            Key::Overflow(graph, _) => *graph,
            Key::Job { graph, .. } | Key::Pullback { graph, .. } => *graph,
        }
    }
}

impl Engine {
    /// Gives back what is kept for `graph`: its programs and its packed weights. A net whose weights change makes new ones at
    /// every step; without this they would pile up. A net that is run again, or another that shares its weights, gets its own
    /// anew; no result depends on it.
    pub fn forget(&mut self, graph: &Graph) {
        self.plans.retain(|(key, _), _| key.graph() != graph.id());
        let weights = graph.nodes().iter().filter_map(|node| match &node.op {
            Op::Linear(linear) => Some(&linear.weight),
            _ => node.conv().map(|conv| &conv.weight),
        });
        let weights: HashSet<u64> = weights.map(|weight| weight.id().stored()).collect();
        self.device.forget(&weights);
    }
}
