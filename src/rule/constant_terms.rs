//! The gradient that hands out, on its way, what each node's constant adds to the score (Srinivas & Fleuret 2019,
//! equation 3): b ∘ G of every bias, G the gradient at the layer's output.
//!
//! A clamp that holds its output at a bound adds a constant too: where it is not active its output o is a bias in all but
//! name, and the term is o ∘ G. With a ReLU it is zero.

use super::{Rule, Vjp};
use crate::error::Result;
use crate::graph::{Graph, NodeId, Op};
use crate::program::{Builder, Value};

/// The gradient; the constant terms of `nodes[i]` are stored in slot `first_slot + i`.
#[derive(Debug, Clone)]
pub struct ConstantTerms {
    /// Slot of the first node's terms.
    pub first_slot: usize,
    /// Nodes with a constant, in order.
    pub nodes: Vec<NodeId>,
}

impl ConstantTerms {
    /// All nodes of `graph` that add a constant: biases, batch norms' shifts, bounds of clamps.
    pub fn of(graph: &Graph, first_slot: usize) -> Self {
        let adds = |id: &NodeId| {
            let node = graph.node(*id);
            match &node.op {
                Op::Linear(linear) => linear.bias.is_some(),
                Op::Clamp { .. } => true,
                _ => node.conv().is_some_and(|conv| conv.bias.is_some()),
            }
        };
        Self { first_slot, nodes: graph.ids().filter(adds).collect() }
    }
}

impl Rule for ConstantTerms {
    fn id(&self) -> String {
        "constant_terms".into()
    }

    fn pull(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        if let Some(slot) = self.nodes.iter().position(|&n| n == node) {
            let here = b.graph().node(node);
            let constant = match &here.op {
                Op::Clamp { .. } => {
                    let (bits, out) = (b.active(node)?, b.output(node));
                    let moving = b.gate(out, bits)?;
                    Some(b.sub(out, moving)?)
                }
                Op::Linear(linear) => linear.bias.clone().map(|bias| b.fill(here.shape, bias)).transpose()?,
                _ => {
                    let bias = here.conv().and_then(|conv| conv.bias.clone());
                    bias.map(|bias| b.fill(here.shape, bias)).transpose()?
                }
            };
            if let Some(constant) = constant {
                let term = b.mul(up, constant)?;
                b.store(term, self.first_slot + slot)?;
            }
        }
        Vjp.pull(node, up, b)
    }
}
