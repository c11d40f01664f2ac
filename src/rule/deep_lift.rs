//! DeepLIFT's rescale rule (Shrikumar, Greenside, Kundaje 2017, section 3.5.1): an activation multiplies the signal by
//! Δout/Δin, the slope between its values on the picture and on the baseline.
//!
//! Linear nodes send the signal back through their adjoint. A max-pool's window sends up·Δout to one element: the
//! picture's winner where Δout ≥ 0, the baseline's where Δout < 0 (the picture's, if it is among the baseline's
//! maxima). Every element divides the sum that it receives by its own Δ. Then Σ multiplier·Δ is the same before and
//! after every node. Only the rule for activations is from the paper; that for pools is this project's own. A product
//! takes the mean of both orders in which its operands can change; a standardisation is such a product.

use super::{NodeShares, Rule, Vjp};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op, Standardise};
use crate::program::{Builder, Elementwise, Forward, Value};

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

impl DeepLift {
    /// The mean of both orders in which a product's operands can change: each operand's multiplier is the mean of the
    /// other on picture and baseline, and `ā·Δb + b̄·Δa = Δ(a·b)`.
    fn product(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let mut down = Vec::with_capacity(2);
        for (i, other) in [(0, 1), (1, 0)] {
            let factor = self.mean(node, other, b)?;
            let shape = b.shape(b.input(node, i));
            down.push(b.product_adjoint(up, factor, shape)?);
        }
        Ok(down.into())
    }

    /// A quotient is the product of `a` and `1/b`, and `Δ(1/b) = −Δb/(b b₀)`.
    fn quotient(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        b.enter(self.baseline);
        let before = b.input(node, 1);
        b.enter(self.picture);
        let after = b.input(node, 1);
        let shape = b.shape(up);
        let [over, under] = [0, 1].map(|i| b.shape(b.input(node, i)));
        let [a, c] = [self.mean(node, 0, b)?, self.mean(node, 1, b)?];
        let square = b.mul(before, after)?;
        // The mean of 1/b and 1/b₀ is that of b and b₀ over their product.
        let inverse = b.elementwise(Elementwise::Quotient, vec![c, square])?;
        let first = b.product_adjoint(up, inverse, over)?;
        let share = b.repeated(Elementwise::Quotient, vec![up, square], shape)?;
        let second = b.product_adjoint(share, a, under)?;
        Ok(vec![first, b.scale(second, -1.0)?].into())
    }

    /// The mean of `node`'s `i`-th input on picture and baseline.
    fn mean(&self, node: NodeId, i: usize, b: &mut Builder<'_>) -> Result<Value> {
        b.enter(self.baseline);
        let before = b.input(node, i);
        b.enter(self.picture);
        let sum = b.add(b.input(node, i), before)?;
        b.scale(sum, 0.5)
    }

    /// `y = d ∘ r` with `d = x − ⟨x⟩`, `r = (⟨d²⟩ + eps)^(−½)` is a product of which one operand is a function of the other:
    /// `Δy = r̄·Δd + d̄·Δr`, `Δr = −(r r₀)²/(r + r₀)·Δ⟨d²⟩`, `Δ⟨d²⟩ = 2⟨d̄ ∘ Δd⟩`, with means over picture and baseline. All
    /// three are exact, and nothing cancels.
    fn standardisation(&self, node: NodeId, norm: Standardise, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        let shape = b.shape(up);
        let (small, count) = (norm.moments(shape), norm.count(shape) as f64);
        let centred = |b: &mut Builder<'_>| -> Result<[Value; 2]> {
            let (x, scale) = (b.input(node, 0), b.inverse_deviation(node)?);
            let sum = b.contract(vec![x], small)?;
            let mean = b.scale(sum, 1.0 / count)?;
            Ok([b.repeated(Elementwise::Sub, vec![x, mean], shape)?, scale])
        };
        b.enter(self.baseline);
        let [d0, r0] = centred(b)?;
        b.enter(self.picture);
        let [d1, r1] = centred(b)?;
        let twice_d = b.add(d0, d1)?;
        let both = b.add(r0, r1)?;
        let r_mean = b.scale(both, 0.5)?;
        // (r r₀)²/(r + r₀) times ⟨up ∘ d̄⟩, with the factors 2 of both means of d.
        let product = b.mul(r0, r1)?;
        let square = b.mul(product, product)?;
        let slope = b.divide(square, both, 0.0)?;
        let along = b.contract(vec![up, twice_d], small)?;
        let along = b.mul(slope, along)?;
        let along = b.scale(along, 0.5 / count)?;
        let first = b.repeated(Elementwise::Mul, vec![up, r_mean], shape)?;
        let second = b.repeated(Elementwise::Mul, vec![twice_d, along], shape)?;
        let signal = b.sub(first, second)?;
        // Back through d = x − ⟨x⟩.
        let sum = b.contract(vec![signal], small)?;
        let mean = b.scale(sum, 1.0 / count)?;
        Ok(vec![b.repeated(Elementwise::Sub, vec![signal, mean], shape)?].into())
    }
}

impl Rule for DeepLift {
    fn id(&self) -> String {
        format!("deep_lift({:?}, {:?})", self.picture, self.baseline)
    }

    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> Result<NodeShares> {
        match b.graph().node(node).op {
            Op::Mul => return self.product(node, up, b),
            Op::Divide => return self.quotient(node, up, b),
            Op::Softmax { .. } => {
                let name = &b.graph().node(node).name;
                return Err(Error::model(format!(
                    "deep_lift has no rule for a softmax inside a net, which '{name}' is"
                )));
            }
            Op::Standardise(norm) => return self.standardisation(node, norm, up, b),
            _ => {}
        }
        let down = Vjp.pull(node, up, b)?;
        let (moved, d_in) = match b.graph().node(node).op {
            Op::Relu | Op::Clamp { .. } | Op::Smooth(_) | Op::PRelu(_) => {
                let [d_in, d_out] = self.differences(node, b)?;
                (b.mul(up, d_out)?, d_in)
            }
            Op::MaxPool(_) | Op::GlobalMaxPool | Op::ChannelMax => {
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
            | Op::Affine(_)
            | Op::Standardise(_)
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Mul
            | Op::Divide
            | Op::Softmax { .. }
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::Resize(_)
            | Op::Reduce(_)
            | Op::Slice { .. }
            | Op::Shuffle { .. }
            | Op::Pad { .. }
            | Op::PadChannels { .. } => return Ok(down.into()),
        };
        let ratio = |gradient| b.ratio_or(moved, d_in, gradient, SMALLEST_DIFFERENCE);
        Ok(down.into_iter().map(ratio).collect::<Result<Vec<_>>>()?.into())
    }
}
