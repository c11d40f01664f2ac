//! LRP-γ (Montavon et al. 2019, section 10.2.2), generalised to signed inputs and outputs: contributions with the
//! output's sign count (1 + γ)-fold.

use super::layer::{Bias, Halves, Layer, Parted, STABILISER, lost, sum};
use super::{NodeShares, Rule};
use crate::error::Result;
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Range, Value};

/// Where the layer's output is positive, `z = (W + γW⁺)x⁺ + (W + γW⁻)x⁻ + (b + γb⁺)`; where it is negative, `z = (W +
/// γW⁻)x⁺ + (W + γW⁺)x⁻ + (b + γb⁻)`. `R_in` sums `x ∘ weightsᵀs` over the four parts. An output of exactly 0 passes no
/// relevance on. For layers with weights.
#[derive(Debug, Clone, Copy)]
pub struct Gamma {
    /// γ ≥ 0; with 0, it is the ε rule with ε = 1e-6.
    pub gamma: f64,
    /// Whether the bias receives relevance. The output whose sign decides always includes it.
    pub bias: Bias,
}

impl Rule for Gamma {
    fn id(&self) -> String {
        format!("gamma({:?},{:?})", self.gamma, self.bias)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let layer = Layer::of(b, id, "gamma")?;
        let gamma = self.gamma;
        let bias =
            |part: fn(f64) -> f64| layer.bias(self.bias).map(|own| own.iter().map(|&v| v + gamma * part(v)).collect());
        let [more, less] = [Part::PositiveRaised(gamma.into()), Part::NegativeRaised(gamma.into())];
        let ways = [
            (Parted::new(&layer, more, less, bias(|v| v.max(0.0))), Range::POSITIVE),
            (Parted::new(&layer, less, more, bias(|v| v.min(0.0))), Range { lo: f64::NEG_INFINITY, hi: 0.0 }),
        ];
        let x = Halves::of(b, id)?;
        let y = b.output(id);
        let (mut down, mut kept, mut given) = (None, None, Vec::with_capacity(2));
        for (way, range) in &ways {
            let bits = b.inside(y, *range)?;
            let z = way.forward(b, x)?;
            let s = b.divide(up, z, STABILISER)?;
            let s = b.gate(s, bits)?;
            let r = way.back(b, x, s)?;
            down = sum(b, down, Some(r))?;
            let here = way.kept(b, s)?;
            kept = sum(b, kept, here)?;
            given.push((z, s));
        }
        Ok(NodeShares { down: vec![down], bias: kept, lost: Some(lost(b, up, &given)?) })
    }
}
