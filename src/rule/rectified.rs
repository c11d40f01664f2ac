//! RectGrad's rule (Kim et al. 2019, equation 3): an activation passes a signal only where their product is large.

use super::activation::activation;
use super::{NodeShares, Rule, Vjp};
use crate::error::Result;
use crate::graph::{Activation, NodeId};
use crate::program::{Builder, Value};

/// `up` where `activation · up` exceeds its `q`-quantile over the layer of one picture. A clamp's activation counts as 0
/// where it is clipped. The paper is about ReLUs, whose slope is 1 where they are active: other activations multiply
/// what they pass by their slope.
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
        let f = activation(b, id, "rectified")?;
        let mut product = b.mul(b.output(id), up)?;
        if matches!(f, Activation::Clamp { lo, hi } if [lo, hi] != [0.0, f64::INFINITY]) {
            let bits = b.active(id)?;
            product = b.gate(product, bits)?;
        }
        let bits = b.above_quantile(product, self.q)?;
        let passed = b.gate(up, bits)?;
        match f {
            Activation::Clamp { .. } => Ok(vec![passed].into()),
            Activation::PRelu { .. } | Activation::Smooth(_) => Vjp.share(id, passed, b),
        }
    }
}
