//! Relevance unchanged: what an activation does in LRP (Bach et al. 2015, section 2).

use super::Rule;
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// `R_in = R`; for activations only.
#[derive(Debug, Clone, Copy)]
pub struct Pass;

impl Rule for Pass {
    fn id(&self) -> String {
        "pass".into()
    }

    fn pull(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let node = b.graph().node(id);
        match node.op {
            Op::Relu | Op::Clamp { .. } => Ok(vec![up]),
            _ => Err(Error::model(format!("pass is a rule for activations, '{}' is {}", node.name, node.op.kind()))),
        }
    }
}
