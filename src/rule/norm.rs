//! Relevance in proportion to each input's share of a sum or mean: LRP for residual additions and average pools.

use super::layer::{STABILISER, lost};
use super::{NodeShares, Rule, Vjp};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Value};

/// `x ∘ (∂y/∂x)ᵀ(R / y)`; for sums, average pools and resizings.
#[derive(Debug, Clone, Copy)]
pub struct Norm;

impl Rule for Norm {
    fn id(&self) -> String {
        "norm".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let node = b.graph().node(id);
        if !matches!(node.op, Op::Add | Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } | Op::Resize(_) | Op::Reduce(_))
        {
            let kind = node.op.kind();
            return Err(Error::model(format!(
                "norm is a rule for sums, average pools and resizings, '{}' is {kind}",
                node.name
            )));
        }
        let y = b.output(id);
        let s = b.divide(up, y, STABILISER)?;
        let back = Vjp.pull(id, s, b)?;
        let down = (0..).zip(back).map(|(i, back)| b.mul(b.input(id, i), back).map(Some)).collect::<Result<_>>()?;
        Ok(NodeShares { down, bias: None, lost: Some(lost(b, up, &[(y, s)])?) })
    }
}
