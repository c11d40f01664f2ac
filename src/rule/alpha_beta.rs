//! LRP-αβ (Bach et al. 2015, equation 60): positive and negative contributions are distributed separately.

use super::layer::{Bias, Halves, Layer, Parted, STABILISER, lost, sum};
use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Value};

/// `z₊` as in [`super::ZPlus`], `z₋ = W⁻x⁺ + W⁺x⁻ + b⁻`;
/// `R_in = α(x⁺ ∘ W⁺ᵀs₊ + x⁻ ∘ W⁻ᵀs₊) − β(x⁺ ∘ W⁻ᵀs₋ + x⁻ ∘ W⁺ᵀs₋)`; for layers with weights.
#[derive(Debug, Clone, Copy)]
pub struct AlphaBeta {
    alpha: f64,
    beta: f64,
    bias: Bias,
}

impl AlphaBeta {
    /// The rule with `alpha − beta = 1`.
    ///
    /// # Errors
    /// When `beta` is negative or `alpha` is not `beta + 1`.
    pub fn new(alpha: f64, beta: f64, bias: Bias) -> Result<Self> {
        let suits = beta >= 0.0 && beta.is_finite() && (alpha - beta - 1.0).abs() <= 1e-12 * alpha.abs();
        if suits {
            return Ok(Self { alpha, beta, bias });
        }
        Err(Error::settings(format!(
            "alpha_beta keeps relevance where α − β = 1 and β ≥ 0, not with {alpha} and {beta}"
        )))
    }
}

impl Rule for AlphaBeta {
    fn id(&self) -> String {
        format!("alpha_beta({:?},{:?},{:?})", self.alpha, self.beta, self.bias)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let layer = Layer::of(b, id, "alpha_beta")?;
        let bias = |part: fn(f64) -> f64| layer.bias(self.bias).map(|own| own.iter().map(|&v| part(v)).collect());
        let raised = Parted::new(&layer, Part::Positive, Part::Negative, bias(|v| v.max(0.0)));
        let lowered = Parted::new(&layer, Part::Negative, Part::Positive, bias(|v| v.min(0.0)));
        let x = Halves::of(b, id)?;
        let mut sides = [None; 2];
        let (mut down, mut kept, mut given) = (None, None, Vec::with_capacity(2));
        for ((side, factor), way) in sides.iter_mut().zip([self.alpha, -self.beta]).zip([&raised, &lowered]) {
            if factor == 0.0 {
                continue;
            }
            let z = way.forward(b, x)?;
            let s = b.divide(up, z, STABILISER)?;
            let s = b.scale(s, factor)?;
            *side = Some(way.back(b, x, s)?);
            let here = way.kept(b, s)?;
            kept = sum(b, kept, here)?;
            given.push((z, s));
        }
        for side in sides {
            down = sum(b, down, side)?;
        }
        let down = down.ok_or_else(|| Error::settings("alpha_beta without α or β"))?;
        Ok(NodeShares { down: vec![Some(down)], bias: kept, lost: Some(lost(b, up, &given)?) })
    }
}
