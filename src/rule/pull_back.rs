//! The backward pass: sends a signal through a net, node by node, each by its rule.

use super::{Composite, NodeShares};
use crate::error::{Error, Result};
use crate::graph::NodeId;
use crate::program::{Builder, Value};

/// The signal at `to`, given `signal` at the output of `from` and `rules` for all nodes in between.
///
/// # Errors
/// When a rule refuses a node or sends a signal of the wrong shape, `signal` does not have the shape of `from`'s
/// output, or `to` is not upstream of `from`.
pub fn pull_back(b: &mut Builder<'_>, rules: &Composite, from: NodeId, signal: Value, to: NodeId) -> Result<Value> {
    pull_back_observed(b, rules, (from, signal), to, &mut |_, _, _, _| Ok(()))
}

/// As [`pull_back`] of `(from, signal)`; `observe(builder, node, up, shares)` is called for each node with the signal
/// that arrives and where it goes, last node first.
///
/// # Errors
/// As [`pull_back`], and the errors of `observe`.
pub fn pull_back_observed(
    b: &mut Builder<'_>,
    rules: &Composite,
    (from, signal): (NodeId, Value),
    to: NodeId,
    observe: &mut dyn FnMut(&mut Builder<'_>, NodeId, Value, &NodeShares) -> Result<()>,
) -> Result<Value> {
    let graph = b.graph();
    graph.check(from)?;
    graph.check(to)?;
    b.expect_signal(from, signal)?;
    // Signals matter only on paths that lead to `to`.
    let mut leads = vec![false; graph.nodes().len()];
    leads[to.index()] = true;
    for id in graph.ids().skip(to.index() + 1) {
        leads[id.index()] = graph.node(id).inputs.iter().any(|i| leads[i.index()]);
    }
    let mut signals: Vec<Option<Value>> = vec![None; graph.nodes().len()];
    signals[from.index()] = Some(signal);
    for id in graph.ids().rev() {
        if id <= to || !leads[id.index()] {
            continue;
        }
        let Some(up) = signals[id.index()] else { continue };
        let node = graph.node(id);
        b.pull(Some(id));
        let shares =
            rules.select(graph, id)?.share(id, up, b).map_err(|e| e.within(format!("node '{}'", node.name)))?;
        observe(b, id, up, &shares)?;
        let down = shares.down;
        if down.len() != node.inputs.len() {
            return Err(Error::model(format!("node '{}': a rule must send one signal to each input", node.name)));
        }
        for (&input, s) in node.inputs.iter().zip(down) {
            let Some(s) = s else { continue };
            b.expect_signal(input, s).map_err(|e| e.within(format!("node '{}'", node.name)))?;
            signals[input.index()] = Some(match signals[input.index()] {
                None => s,
                Some(before) => b.add(before, s)?,
            });
        }
    }
    b.pull(None);
    let shape = graph.node(to).shape;
    match signals[to.index()] {
        Some(signal) => Ok(signal),
        // Every rule on the way sent nothing.
        None if leads[from.index()] => b.fill(shape, vec![0.0; shape.c]),
        None => {
            Err(Error::settings(format!("'{}' does not influence '{}'", graph.node(to).name, graph.node(from).name)))
        }
    }
}
