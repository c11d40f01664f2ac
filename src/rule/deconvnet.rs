//! The deconvolutional net (Zeiler & Fergus 2014): an activation passes the positive part of the signal, wherever it was
//! active itself or not.

use super::Rule;
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// `max(up, 0)`; for activations only.
#[derive(Debug, Clone, Copy)]
pub struct Deconvnet;

impl Rule for Deconvnet {
    fn id(&self) -> String {
        "deconvnet".into()
    }

    fn pull(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let node = b.graph().node(node);
        match node.op {
            Op::Relu | Op::Clamp { .. } => Ok(vec![b.positive(up)?]),
            _ => {
                Err(Error::model(format!("deconvnet is a rule for activations, '{}' is {}", node.name, node.op.kind())))
            }
        }
    }
}
