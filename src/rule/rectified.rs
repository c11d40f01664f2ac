//! RectGrad's rule (Kim et al. 2019, equation 3): an activation passes a signal only where the two together count.

use super::Rule;
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// `up` where `activation · up` lies above its `q`-quantile over the layer of one picture; for activations only. A clamp's
/// activation counts as 0 where it is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Rectified {
    /// Share of the layer that passes nothing, 0 to 1.
    pub q: f64,
}

impl Rule for Rectified {
    fn id(&self) -> String {
        format!("rectified({:?})", self.q)
    }

    fn pull(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let node = b.graph().node(id);
        let mut product = b.mul(b.output(id), up)?;
        match node.op {
            Op::Relu => {}
            Op::Clamp { .. } => {
                let bits = b.active(id)?;
                product = b.gate(product, bits)?;
            }
            _ => {
                let kind = node.op.kind();
                return Err(Error::model(format!("rectified is a rule for activations, '{}' is {kind}", node.name)));
            }
        }
        let bits = b.above_quantile(product, self.q)?;
        Ok(vec![b.gate(up, bits)?])
    }
}
