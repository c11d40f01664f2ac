//! LRP-z⁺ (Montavon et al. 2017, section 4.2; Zhang et al. 2016, equation 8): relevance in proportion to positive
//! contributions.

use super::layer::{Bias, Halves, Layer, Parted, STABILISER, is_layer, is_not_negative, lost, share};
use super::{NodeShares, Rule, Vjp};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op, Part};
use crate::program::{Builder, Value};

/// `z = W⁺x⁺ + W⁻x⁻ + b⁺`, `R_in = x⁺ ∘ W⁺ᵀs + x⁻ ∘ W⁻ᵀs`; for layers with weights, and for sums and averages, whose
/// weights are positive and known.
///
/// Both papers assume non-negative inputs; the terms with `x⁻` extend the rule to signed ones.
#[derive(Debug, Clone, Copy)]
pub struct ZPlus {
    /// Whether the bias receives relevance.
    pub bias: Bias,
}

impl Rule for ZPlus {
    fn id(&self) -> String {
        format!("z_plus({:?})", self.bias)
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let node = b.graph().node(id);
        match node.op {
            Op::Add => sum(id, up, b),
            Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } | Op::Resize(_) | Op::Reduce(_) => average(id, up, b),
            _ if is_layer(b.graph(), id) => {
                let layer = Layer::of(b, id, "z_plus")?;
                let bias = layer.bias(self.bias).map(|own| own.iter().map(|v| v.max(0.0)).collect());
                let x = Halves::of(b, id)?;
                share(b, &Parted::new(&layer, Part::Positive, Part::Negative, bias), x, up)
            }
            _ => Err(Error::model(format!(
                "z_plus is a rule for layers with weights, sums and averages, '{}' is {}",
                node.name,
                node.op.kind()
            ))),
        }
    }
}

/// Distributes by each input's positive part, as a share of their sum.
fn sum(id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
    let inputs = &b.graph().node(id).inputs;
    let mut parts = Vec::with_capacity(inputs.len());
    for (i, &input) in inputs.iter().enumerate() {
        let x = b.input(id, i);
        parts.push(if is_not_negative(b, input) { x } else { b.positive(x)? });
    }
    let [first, rest @ ..] = &parts[..] else { return Err(Error::model("a sum of nothing")) };
    let mut z = *first;
    for &part in rest {
        z = b.add_repeated(z, part)?;
    }
    let s = b.divide(up, z, STABILISER)?;
    let back = Vjp.pull(id, s, b)?;
    let down = parts.into_iter().zip(back).map(|(part, s)| b.mul(part, s).map(Some)).collect::<Result<_>>()?;
    Ok(NodeShares { down, bias: None, lost: Some(lost(b, up, &[(z, s)])?) })
}

/// Distributes by each element's positive part, as a share of its window's sum.
fn average(id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
    let input = b.graph().node(id).inputs[0];
    let x = b.input(id, 0);
    let (x, z) = if is_not_negative(b, input) {
        (x, b.output(id))
    } else {
        let positive = b.positive(x)?;
        let here = b.forward();
        b.replace(input, positive)?;
        let z = b.output(id);
        b.enter(here);
        (positive, z)
    };
    let s = b.divide(up, z, STABILISER)?;
    let back = Vjp.pull(id, s, b)?;
    let down = back.into_iter().map(|back| b.mul(x, back).map(Some)).collect::<Result<_>>()?;
    Ok(NodeShares { down, bias: None, lost: Some(lost(b, up, &[(z, s)])?) })
}
