//! PatternNet and PatternAttribution (Kindermans et al. 2018, section 4): the gradient with each layer's weight w
//! replaced by its pattern a, or by w ∘ a.

use std::collections::HashMap;
use std::sync::Arc;

use super::{NodeShares, Rule, Vjp};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op, Weight};
use crate::program::{Builder, ConvLayer, LinearLayer, Value};

/// The gradient with these weights in place of the layers' own.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Unique among patterns.
    pub name: String,
    /// One weight, of the same shape, for every convolution, batch norm, affine and linear layer.
    pub weights: HashMap<NodeId, Weight>,
}

impl Rule for Pattern {
    fn id(&self) -> String {
        format!("pattern {}", self.name)
    }

    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let weight = || {
            let name = &b.graph().node(node).name;
            self.weights.get(&node).cloned().ok_or_else(|| Error::settings(format!("'{name}' has no pattern")))
        };
        match b.graph().node(node).op {
            Op::Conv(_) | Op::BatchNorm(_) | Op::Affine(_) => {
                let layer = ConvLayer { weight: weight()?, bias: None, ..(*b.conv_layer(node)?).clone() };
                Ok(vec![b.conv_adjoint_of(Arc::new(layer), up)?].into())
            }
            Op::Linear(_) => {
                let layer = LinearLayer { weight: weight()?, bias: None, ..(*b.linear_layer(node)?).clone() };
                Ok(vec![b.linear_adjoint_of(Arc::new(layer), up)?].into())
            }
            _ => Vjp.share(node, up, b),
        }
    }
}
