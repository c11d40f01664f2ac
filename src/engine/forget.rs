//! Drops nets that are no longer needed.

use std::collections::HashSet;

use super::Engine;
use crate::device::Spare;
use crate::graph::{Graph, Op};

impl Engine {
    /// Frees the programs and packed weights cached for `graph`, and the memory kept for further calls. A net whose weights change caches new ones at every
    /// step, and without this call they would pile up. If the net, or another that shares its weights, runs again, they
    /// are rebuilt; no result depends on it.
    pub fn forget(&mut self, graph: &Graph) {
        self.plans.forget(graph.id());
        let weights = graph.nodes().iter().filter_map(|node| match &node.op {
            Op::Linear(linear) => Some(&linear.weight),
            _ => node.conv().map(|conv| &conv.weight),
        });
        let weights: HashSet<u64> = weights.map(|weight| weight.id().stored()).collect();
        self.device.forget(&weights);
        self.spare = Spare::default();
    }
}
