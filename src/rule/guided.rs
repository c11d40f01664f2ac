//! Guided backpropagation (Springenberg et al. 2015): an activation passes the positive part of the signal, and only where
//! it was active itself.

use super::Rule;
use crate::error::Result;
use crate::graph::NodeId;
use crate::program::{Builder, Value};

/// `max(up, 0)` where the activation was active; for activations only.
#[derive(Debug, Clone, Copy)]
pub struct Guided;

impl Rule for Guided {
    fn id(&self) -> String {
        "guided".into()
    }

    fn pull(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let bits = b.active(node)?;
        let positive = b.positive(up)?;
        Ok(vec![b.gate(positive, bits)?])
    }
}
