//! The gradient, which also outputs each node's constant contribution to the score (Srinivas & Fleuret 2019, equation
//! 3): b ∘ G for every bias, where G is the gradient at the layer's output.
//!
//! An activation f adds a constant too, its implicit bias f(x) − f'(x)·x. A clamp whose output o is at a bound adds o ∘
//! G; for a ReLU this is zero. A product z = a·b is counted twice by the gradients of its operands (a·b from each), so its
//! constant is −z; of a quotient z it is z, since they cancel. A standardisation y hardly changes with the size of its input: its constant is y ∘ ⟨y²⟩.

use std::sync::Arc;

use super::{NodeShares, Rule, Vjp};
use crate::error::Result;
use crate::graph::{Activation, Graph, Node, NodeId, Op};
use crate::program::{Builder, Elementwise, Value};
use crate::tensor::Shape;

/// The gradient; the constant terms of `nodes[i]` are stored in slot `first_slot + i`.
#[derive(Debug, Clone)]
pub struct ConstantTerms {
    /// Slot of the first node's terms.
    pub first_slot: usize,
    /// Nodes with a constant, in graph order.
    pub nodes: Vec<NodeId>,
}

impl ConstantTerms {
    /// All nodes of `graph` with a constant: biases, batch norms' shifts, bounds of clamps, smooth activations, products,
    /// quotients, softmaxes, standardisations.
    pub fn of(graph: &Graph, first_slot: usize) -> Self {
        let adds = |id: &NodeId| {
            let node = graph.node(*id);
            match node.op.activation() {
                Some(Activation::Clamp { lo, hi }) => [lo, hi].iter().any(|end| end.is_finite() && *end != 0.0),
                Some(Activation::Smooth(_)) => true,
                // Its slope times its input is its output.
                Some(Activation::PRelu { .. }) => false,
                None => {
                    matches!(node.op, Op::Mul | Op::Divide | Op::Softmax { .. } | Op::Standardise(_))
                        || bias(node).is_some()
                }
            }
        };
        Self { first_slot, nodes: graph.ids().filter(adds).collect() }
    }
}

/// The layer's bias, if it has one.
fn bias(node: &Node) -> Option<&Arc<[f64]>> {
    match &node.op {
        Op::Linear(linear) => linear.bias.as_ref(),
        _ => node.conv().and_then(|conv| conv.bias.as_ref()),
    }
}

impl Rule for ConstantTerms {
    fn id(&self) -> String {
        format!("constant_terms({}, {:?})", self.first_slot, self.nodes)
    }

    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        if let Some(slot) = self.nodes.iter().position(|&n| n == node) {
            let here = b.graph().node(node);
            let linear_part = match here.op.activation() {
                Some(Activation::Clamp { .. }) => {
                    let bits = b.active(node)?;
                    Some(b.gate(b.output(node), bits)?)
                }
                Some(Activation::PRelu { .. }) => Some(b.output(node)),
                Some(Activation::Smooth(f)) => {
                    let x = b.input(node, 0);
                    let slope = b.elementwise(Elementwise::Slope(f), vec![x])?;
                    Some(b.mul(slope, x)?)
                }
                None => match here.op {
                    Op::Mul => Some(b.scale(b.output(node), 2.0)?),
                    Op::Softmax { groups } => {
                        let (x, y, shape) = (b.input(node, 0), b.output(node), here.shape);
                        let along = b.contract(vec![x, y], Shape::new(groups, shape.h, shape.w))?;
                        let rest = b.repeated(Elementwise::Sub, vec![x, along], shape)?;
                        Some(b.mul(y, rest)?)
                    }
                    // What a gives the divisor takes back.
                    Op::Divide => Some(b.fill(here.shape, vec![0.0; here.shape.c])?),
                    Op::Standardise(norm) => {
                        let (y, shape) = (b.output(node), here.shape);
                        let squares = b.contract(vec![y, y], norm.moments(shape))?;
                        let square = b.scale(squares, 1.0 / norm.count(shape) as f64)?;
                        let constant = b.repeated(Elementwise::Mul, vec![y, square], shape)?;
                        Some(b.sub(y, constant)?)
                    }
                    _ => None,
                },
            };
            let constant = match linear_part {
                Some(part) => Some(b.sub(b.output(node), part)?),
                None => bias(here).map(|bias| b.fill(here.shape, Arc::clone(bias))).transpose()?,
            };
            if let Some(constant) = constant {
                let term = b.mul(up, constant)?;
                b.store(term, self.first_slot + slot)?;
            }
        }
        Vjp.share(node, up, b)
    }
}
