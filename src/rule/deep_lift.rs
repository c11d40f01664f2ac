//! DeepLIFT's rescale rule (Shrikumar, Greenside, Kundaje 2017, section 3.5.1): an activation multiplies the signal by
//! Δout/Δin, the slope between its values on the picture and on the baseline.
//!
//! Linear nodes send the signal back through their adjoint. A max-pool's window sends up·Δout to one element: the
//! picture's winner where Δout ≥ 0, the baseline's where Δout < 0 (the picture's, if it is among the baseline's
//! maxima). Every element divides the sum that it receives by its own Δ. Then Σ multiplier·Δ is the same before and
//! after every node. Only the rule for activations is from the paper; that for pools is this project's own.

use super::{NodeShares, Rule, Vjp};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::program::{Builder, Forward, Value};

/// Below this |Δin|, the quotient is replaced by the gradient.
const SMALLEST_DIFFERENCE: f64 = 1e-10;

/// The rescale rule between two forward passes of one program.
#[derive(Debug, Clone, Copy)]
pub struct DeepLift {
    /// The pass on the picture, through which signals are pulled back.
    pub picture: Forward,
    /// The pass on the baseline.
    pub baseline: Forward,
}

impl DeepLift {
    /// The difference of `node`'s only input between picture and baseline, and that of its output.
    fn differences(&self, node: NodeId, b: &mut Builder<'_>) -> Result<[Value; 2]> {
        b.enter(self.baseline);
        let before = [b.input(node, 0), b.output(node)];
        b.enter(self.picture);
        let after = [b.input(node, 0), b.output(node)];
        Ok([b.sub(after[0], before[0])?, b.sub(after[1], before[1])?])
    }
}

impl Rule for DeepLift {
    fn id(&self) -> String {
        format!("deep_lift({:?}, {:?})", self.picture, self.baseline)
    }

    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let down = Vjp.pull(node, up, b)?;
        let (moved, d_in) = match b.graph().node(node).op {
            Op::Relu | Op::Clamp { .. } | Op::Smooth(_) | Op::PRelu(_) => {
                let [d_in, d_out] = self.differences(node, b)?;
                (b.mul(up, d_out)?, d_in)
            }
            Op::MaxPool(_) => {
                let here = b.winners(node)?;
                b.enter(self.baseline);
                let there = b.winners_preferring(node, here)?;
                b.enter(self.picture);
                let [d_in, d_out] = self.differences(node, b)?;
                let (rise, fall) = (b.positive(d_out)?, b.negative(d_out)?);
                let (rise, fall) = (b.mul(up, rise)?, b.mul(up, fall)?);
                let risen = b.max_pool_adjoint_under(node, here, rise)?;
                let fallen = b.max_pool_adjoint_under(node, there, fall)?;
                (b.add(risen, fallen)?, d_in)
            }
            Op::Input
            | Op::Conv(_)
            | Op::Linear(_)
            | Op::BatchNorm(_)
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::PadChannels { .. } => return Ok(down.into()),
        };
        let ratio = |gradient| b.ratio_or(moved, d_in, gradient, SMALLEST_DIFFERENCE);
        Ok(down.into_iter().map(ratio).collect::<Result<Vec<_>>>()?.into())
    }
}
