//! Gradients with respect to a net's parameters: weights and biases.

use super::{Composite, pull_back_observed};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// Gradients of one layer's weight and bias.
#[derive(Debug, Clone, Copy)]
pub struct WeightGradient {
    /// The convolution or linear layer.
    pub node: NodeId,
    /// One number per weight, `[k, c / groups · kh, kw]`.
    pub weight: Value,
    /// One number per bias, if the layer has one.
    pub bias: Option<Value>,
}

/// Gradients of the weights and biases of every layer on a path from the picture to `from`, in graph order, where
/// `signal` is the gradient at the output of `from`. Each is for one copy of one picture; the caller sums over a batch.
///
/// # Errors
/// When `signal` does not have the shape of `from`'s output, or a batch norm has not been folded: its trained numbers
/// are not those of its equivalent convolution.
pub fn weight_gradients(b: &mut Builder<'_>, from: NodeId, signal: Value) -> Result<Vec<WeightGradient>> {
    let (graph, mut found) = (b.graph(), Vec::new());
    let to = graph.input();
    pull_back_observed(b, &Composite::gradient(), (from, signal), to, &mut |b, id, up, _| {
        let node = graph.node(id);
        let bias = match &node.op {
            Op::Conv(conv) => match &conv.bias {
                Some(bias) if bias.len() == node.shape.c => Some(b.bias_adjoint(up)?),
                // One number per element.
                Some(_) => Some(up),
                None => None,
            },
            Op::Linear(linear) => linear.bias.as_ref().map(|_| up),
            Op::Affine(affine) if affine.scale.len() == node.shape.c && affine.shift.len() == node.shape.c => {
                Some(b.bias_adjoint(up)?)
            }
            Op::BatchNorm(_) => {
                return Err(Error::model(format!("node '{}': fold batch norms before training", node.name)));
            }
            _ => return Ok(()),
        };
        found.push(WeightGradient { node: id, weight: b.weight_adjoint(id, up)?, bias });
        Ok(())
    })?;
    found.reverse();
    Ok(found)
}
