//! LRP-ε (Bach et al. 2015, equation 58): relevance in proportion to each input's contribution to the sum.

use super::layer::{Bias, Layer, kept_by_bias, lost};
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Value};

/// `z = Wx + b`, `R_in = x ∘ Wᵀs` with `s = R / (z + ε·sign(z))`; for layers with weights.
#[derive(Debug, Clone, Copy)]
pub struct Epsilon {
    /// ε, in units of the layer's output; with 0, an output of 0 passes no relevance on.
    pub epsilon: f64,
    /// Whether the bias receives relevance.
    pub bias: Bias,
}

impl Rule for Epsilon {
    fn id(&self) -> String {
        format!("epsilon({:?},{:?})", self.epsilon, self.bias)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let layer = Layer::of(b, id, "epsilon")?;
        let x = b.input(id, 0);
        let bias = layer.bias(self.bias);
        // Without its bias the sum is recomputed: subtracting would leave rounding errors where it is zero.
        let z = if bias.is_some() || layer.bias(Bias::Keep).is_none() {
            b.output(id)
        } else {
            layer.with(Part::Whole, None).forward(b, x)?
        };
        let s = b.divide(up, z, self.epsilon)?;
        let back = layer.adjoint(b, s)?;
        let down = b.mul(x, back)?;
        Ok(NodeShares {
            down: vec![Some(down)],
            bias: kept_by_bias(b, bias.as_ref(), s)?,
            lost: Some(lost(b, up, &[(z, s)])?),
        })
    }
}
