//! LRP at a standardisation (Ali et al. 2022, section 4.2): the deviation is held constant, so the node is linear.

use super::layer::{STABILISER, lost};
use super::{NodeShares, Rule};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Deviation, Value};

/// `x ∘ Aᵀ(R / y)` with `y = A x`, `A = r (I − M)`, where `M` takes the mean of a group and `r = 1/√(variance + eps)` is a
/// constant; for standardisations.
#[derive(Debug, Clone, Copy)]
pub struct Held;

impl Rule for Held {
    fn id(&self) -> String {
        "held".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let node = b.graph().node(id);
        if !matches!(node.op, Op::Standardise(_)) {
            let kind = node.op.kind();
            return Err(Error::model(format!("held is a rule for standardisations, '{}' is {kind}", node.name)));
        }
        let (x, y) = (b.input(id, 0), b.output(id));
        let s = b.divide(up, y, STABILISER)?;
        let back = b.standardise_adjoint(id, s, Deviation::Held)?;
        let down = b.mul(x, back)?;
        Ok(NodeShares { down: vec![Some(down)], bias: None, lost: Some(lost(b, up, &[(y, s)])?) })
    }
}
