//! RectGrad's rule (Kim et al. 2019, equation 3): an activation passes a signal only where their product is large.

use super::activation::activation;
use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{Activation, NodeId};
use crate::program::{Builder, Value};

/// `up` where `activation · up` exceeds its `q`-quantile over the layer of one picture; for ReLUs and clamps. A clamp's
/// activation counts as 0 where it is clipped.
#[derive(Debug, Clone, Copy)]
pub struct Rectified {
    /// Share of the layer that passes no signal, 0 to 1.
    pub q: f64,
}

impl Rule for Rectified {
    fn id(&self) -> String {
        format!("rectified({:?})", self.q)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let cut = match activation(b, id, "rectified")? {
            Activation::Clamp { lo: 0.0, hi: f64::INFINITY } => false,
            Activation::Clamp { .. } => true,
            Activation::Smooth(_) => {
                let node = b.graph().node(id);
                return Err(Error::model(format!(
                    "rectified is a rule for ReLUs and clamps, '{}' is {}",
                    node.name,
                    node.op.kind()
                )));
            }
        };
        let mut product = b.mul(b.output(id), up)?;
        if cut {
            let bits = b.active(id)?;
            product = b.gate(product, bits)?;
        }
        let bits = b.above_quantile(product, self.q)?;
        Ok(vec![b.gate(up, bits)?].into())
    }
}
