//! PReLU, whose slopes differ between channels, in steps that devices have anyway.

use std::sync::Arc;

use super::{Builder, Elementwise, Range, Step, Value};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

impl Builder<'_> {
    /// `max(x, 0) + slopes ∘ min(x, 0)`.
    pub(super) fn prelu_steps(&mut self, slopes: &Arc<[f64]>, x: Value, out: Value) -> [Step; 5] {
        let shape = self.shape(out);
        let [above, below, scaled] = [0; 3].map(|_| self.dense(shape));
        let (weights, fill) = self.prelu_slopes(slopes, shape);
        [
            Step::Clamp { x, range: Range::POSITIVE, out: above },
            Step::Clamp { x, range: Range::NEGATIVE, out: below },
            fill,
            Step::Elementwise { op: Elementwise::Mul, xs: vec![below, weights], out: scaled },
            Step::Add { a: above, b: scaled, out },
        ]
    }

    /// The slopes on maps of `shape`, one a channel, and the step that writes them.
    fn prelu_slopes(&mut self, slopes: &Arc<[f64]>, shape: Shape) -> (Value, Step) {
        let values = if slopes.len() == 1 { vec![slopes[0]; shape.c].into() } else { Arc::clone(slopes) };
        let out = self.dense(Shape::vector(shape.c));
        (out, Step::Fill { values, out })
    }

    /// Sends `s` back through `node` (a PReLU): as it is where the input was above 0, times its channel's slope
    /// elsewhere.
    ///
    /// # Errors
    /// When `node` is not a PReLU, or `s` does not have the shape of its output.
    ///
    /// # Panics
    /// When the graph has no such node.
    pub fn prelu_adjoint(&mut self, node: NodeId, s: Value) -> Result<Value> {
        let here = self.graph().node(node);
        let Op::PRelu(slopes) = &here.op else { return Err(self.not("a prelu", node)) };
        self.expect_signal(node, s)?;
        let bits = self.active(node)?;
        let above = self.gate(s, bits)?;
        let below = self.sub(s, above)?;
        let (weights, fill) = self.prelu_slopes(slopes, here.shape);
        self.write(fill);
        let scaled = self.scale_channels(weights, below)?;
        self.add(above, scaled)
    }
}
