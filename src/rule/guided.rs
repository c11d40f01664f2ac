//! Guided backpropagation (Springenberg et al. 2015): an activation sends back the positive part of the signal where it
//! was active, times its slope. A ReLU or clamp is active where it passes its input on; of any other activation the
//! paper says nothing: it is active where its input is positive. A soft clamp stands for a clamp and has a soft gate of
//! its own, its slope.

use super::activation::activation;
use super::{NodeShares, Rule, Vjp};
use crate::error::Result;
use crate::graph::{Activation, NodeId, Smooth};
use crate::program::{Builder, Range, Value};

/// `max(up, 0)` times the activation's derivative, 0 where it was not active.
#[derive(Debug, Clone, Copy)]
pub struct Guided;

impl Rule for Guided {
    fn id(&self) -> String {
        "guided".into()
    }

    fn share(&self, id: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let positive = b.positive(up)?;
        let passed = match activation(b, id, "guided")? {
            Activation::Clamp { .. } | Activation::Smooth(Smooth::SoftClamp(_)) => positive,
            Activation::PRelu { .. } => {
                let active = b.active(id)?;
                b.gate(positive, active)?
            }
            Activation::Smooth(_) => {
                let active = b.inside(b.input(id, 0), Range::POSITIVE)?;
                b.gate(positive, active)?
            }
        };
        Vjp.share(id, passed, b)
    }
}
