//! Nets that are not needed any more.

use std::collections::HashSet;

use super::Engine;
use crate::graph::{Graph, Op};

impl Engine {
    /// Gives back what is kept for `graph`: its programs and its packed weights. A net whose weights change makes new ones at
    /// every step; without this they would pile up. A net that is run again, or another that shares its weights, gets its own
    /// anew; no result depends on it.
    pub fn forget(&mut self, graph: &Graph) {
        self.plans.forget(graph.id());
        let weights = graph.nodes().iter().filter_map(|node| match &node.op {
            Op::Linear(linear) => Some(&linear.weight),
            _ => node.conv().map(|conv| &conv.weight),
        });
        let weights: HashSet<u64> = weights.map(|weight| weight.id().stored()).collect();
        self.device.forget(&weights);
    }
}
