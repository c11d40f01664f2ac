//! Guided backpropagation (Springenberg et al. 2015): an activation sends back the gradient of the positive part of the
//! signal. A ReLU or clamp passes it where it was active; a smooth activation multiplies it by its slope.

use super::activation::rising;
use super::{NodeShares, Rule, Vjp};
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Builder, Value};

/// `max(up, 0)` times the activation's derivative; for activations that never decrease.
#[derive(Debug, Clone, Copy)]
pub struct Guided;

impl Rule for Guided {
    fn id(&self) -> String {
        "guided".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        rising(b, id, "guided")?;
        let positive = b.positive(up)?;
        Vjp.share(id, positive, b)
    }
}
