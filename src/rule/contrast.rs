//! Contrastive excitation (Zhang et al. 2016, section 3.3): excitation of a class minus its inhibition.

use super::layer::{Bias, Halves, Layer, Parted, STABILISER};
use super::{NodeShares, Rule, ZPlus};
use crate::error::Result;
use crate::graph::{NodeId, Part};
use crate::program::{Builder, Value};

/// [`ZPlus`] without bias, minus the same with `−W` in place of `W`; for layers with weights.
#[derive(Debug, Clone, Copy)]
pub struct Contrast;

impl Rule for Contrast {
    fn id(&self) -> String {
        "contrast".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let layer = Layer::of(b, id, "contrast")?;
        let x = Halves::of(b, id)?;
        let raised = ZPlus { bias: Bias::Zero }.pull(id, up, b)?;
        // With −W, every contribution and their sum change sign, so the positive part of −W collects the inhibiting
        // contributions.
        let negated = Parted::new(&layer, Part::Negative, Part::Positive, None);
        let z = negated.forward(b, x)?;
        let s = b.divide(up, z, STABILISER)?;
        let lowered = negated.back(b, x, s)?;
        let down: Vec<Value> = raised.into_iter().map(|raised| b.sub(raised, lowered)).collect::<Result<_>>()?;
        Ok(down.into())
    }
}
