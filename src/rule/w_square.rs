//! The w² rule of deep Taylor decomposition (Montavon et al. 2017, section 4.1): relevance in proportion to squared
//! weights, independent of the inputs.

use super::layer::{Layer, STABILISER, lost};
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Value};

/// `R_in = W²ᵀ(R / ΣW²)`, with sums over the taps inside the picture; for layers with weights. Biases are ignored.
#[derive(Debug, Clone, Copy)]
pub struct WSquare;

impl Rule for WSquare {
    fn id(&self) -> String {
        "w_square".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        spread(&Layer::of(b, id, "w_square")?, Part::Square, up, b)
    }
}

/// Distributes relevance in proportion to a part of the weights, independent of the inputs.
pub(super) fn spread(layer: &Layer, part: Part, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
    let layer = layer.with(part, None);
    let shape = layer.input();
    let ones = b.fill(shape, vec![1.0; shape.c])?;
    let z = layer.forward(b, ones)?;
    let s = b.divide(up, z, STABILISER)?;
    let down = layer.adjoint(b, s)?;
    Ok(NodeShares { down: vec![Some(down)], bias: None, lost: Some(lost(b, up, &[(z, s)])?) })
}
