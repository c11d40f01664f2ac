//! The primitives: what each one does, reads and writes, and its name.

use std::sync::Arc;

use super::{ConvLayer, LinearLayer, PoolLayer, Range, Score, Statistic, Value};
use crate::graph::{Link, NodeId, Smooth, Standardise};
use crate::tensor::{Blend, Moves};

/// Operations on a convolution's sums before they are stored, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Epilogue {
    /// Add this value.
    pub add: Option<Value>,
    /// Record where the number is strictly inside the range.
    pub bits: Option<(Value, Range)>,
    /// Clamp to the range.
    pub clamp: Option<Range>,
    /// Zero where the bit is not set.
    pub gate: Option<Value>,
    /// Multiply by this value.
    pub times: Option<Value>,
    /// Apply this activation and, if a value is named, store its slopes there.
    pub smooth: Option<(Smooth, Option<Value>)>,
}

impl Epilogue {
    /// Whether nothing may follow: a gate, a factor or an activation is the last operation.
    pub(super) fn is_closed(&self) -> bool {
        self.gate.is_some() || self.times.is_some() || self.smooth.is_some()
    }

    /// Whether it is at most a sum of two.
    pub(super) fn is_sum(&self) -> bool {
        Epilogue { add: None, ..*self } == Epilogue::default()
    }
}

/// A function of one, two or three numbers, element by element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elementwise {
    /// `a · b`.
    Mul,
    /// `a − b`.
    Sub,
    /// `a / (b + δ·sign(b))` with `sign(0) = +1`; 0 where the divisor is zero, NaN where it is infinite.
    Divide(f64),
    /// `a / b`.
    Quotient,
    /// `k · a`.
    Scale(f64),
    /// `a / b`, or the third number where `|b|` is below this threshold.
    RatioOr(f64),
    /// An activation.
    Smooth(Smooth),
    /// Its derivative.
    Slope(Smooth),
}

impl Elementwise {
    /// Number of operands.
    pub const fn arity(self) -> usize {
        match self {
            Elementwise::RatioOr(_) => 3,
            Elementwise::Mul | Elementwise::Sub | Elementwise::Divide(_) | Elementwise::Quotient => 2,
            Elementwise::Scale(_) | Elementwise::Smooth(_) | Elementwise::Slope(_) => 1,
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Elementwise::Mul => "mul",
            Elementwise::Sub => "sub",
            Elementwise::Divide(_) => "divide",
            Elementwise::Quotient => "quotient",
            Elementwise::Scale(_) => "scale",
            Elementwise::RatioOr(_) => "ratio_or",
            Elementwise::Smooth(f) => f.names()[0],
            Elementwise::Slope(f) => f.names()[1],
        }
    }

    /// Whether the result is zero where all operands are zero.
    pub fn keeps_zero(self) -> bool {
        match self {
            Elementwise::Mul
            | Elementwise::Sub
            | Elementwise::Divide(_)
            | Elementwise::Scale(_)
            | Elementwise::RatioOr(_) => true,
            Elementwise::Quotient => false,
            Elementwise::Smooth(f) => f.facts().keeps_zero,
            Elementwise::Slope(_) => false,
        }
    }

    /// Its parameters, in the order in which kernels take them; padded with zeros.
    pub fn parameters(self) -> [f64; 3] {
        match self {
            Elementwise::Mul | Elementwise::Sub | Elementwise::Quotient => [0.0; 3],
            Elementwise::Divide(p) | Elementwise::Scale(p) | Elementwise::RatioOr(p) => [p, 0.0, 0.0],
            Elementwise::Smooth(f) | Elementwise::Slope(f) => f.parameters(),
        }
    }
}

/// How a step uses a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads it.
    Read,
    /// Reads it, each element before writing the same element of the result, so the result may take over its memory.
    Taken,
    /// Writes it.
    Written,
}

/// A primitive. Every value is written by one step. Fields: `x` is an input, `s` a backward signal, `out` the result.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // fields are named above
pub enum Step {
    /// The copy's pixels.
    Perturb {
        out: Value,
    },
    /// Numbers passed to the run, one tensor per picture.
    Load {
        slot: usize,
        out: Value,
    },
    /// Decisions of this node passed to the run.
    LoadDecisions {
        node: NodeId,
        out: Value,
    },
    /// Cross-correlation plus bias, then the epilogue.
    Conv {
        layer: Arc<ConvLayer>,
        x: Value,
        out: Value,
        epilogue: Epilogue,
    },
    /// Sends a signal back through a convolution's linear part, then the epilogue.
    ConvAdjoint {
        layer: Arc<ConvLayer>,
        s: Value,
        out: Value,
        epilogue: Epilogue,
    },
    /// `W x + b`.
    Linear {
        layer: Arc<LinearLayer>,
        x: Value,
        out: Value,
    },
    /// `Wᵀ s`.
    LinearAdjoint {
        layer: Arc<LinearLayer>,
        s: Value,
        out: Value,
    },
    /// Gradient of a convolution's weight, `[k, c / groups · kh, kw]`: sums over positions of `s` times the number read
    /// by each tap.
    ConvWeightAdjoint {
        layer: Arc<ConvLayer>,
        x: Value,
        s: Value,
        out: Value,
    },
    /// Gradient of a linear layer's weight, `s xᵀ` as `[k, c, 1]`.
    LinearWeightAdjoint {
        layer: Arc<LinearLayer>,
        x: Value,
        s: Value,
        out: Value,
    },
    Add {
        a: Value,
        b: Value,
        out: Value,
    },
    /// Numbers clipped to the range; a NaN stays.
    Clamp {
        x: Value,
        range: Range,
        out: Value,
    },
    /// Bit set where the number is strictly inside the range.
    Inside {
        x: Value,
        range: Range,
        out: Value,
    },
    /// Bit set where the number exceeds the `q`-quantile of the copy's numbers.
    AboveQuantile {
        x: Value,
        q: f64,
        out: Value,
    },
    /// Zero where the bit is not set.
    Gate {
        s: Value,
        bits: Value,
        out: Value,
    },
    /// An elementwise function. An operand with fewer channels or one position is repeated (`Shape::repeated_in`).
    Elementwise {
        op: Elementwise,
        xs: Vec<Value>,
        out: Value,
    },
    /// One constant per channel, or one per element.
    Fill {
        values: Arc<[f64]>,
        out: Value,
    },
    /// Sum of one number, or of the product of two, over the channels and positions that each number of `out` stands for
    /// (`Shape::repeated_in`).
    Contract {
        xs: Vec<Value>,
        out: Value,
    },
    /// Largest number of each window and, if anything reads them, the winning tap (the first of equals).
    MaxPool {
        layer: PoolLayer,
        x: Value,
        out: Value,
        winners: Option<Value>,
    },
    /// The winners, except that the preferred tap wins ties.
    PreferWinners {
        layer: PoolLayer,
        x: Value,
        winners: Value,
        preferred: Value,
        out: Value,
    },
    /// Sends each signal to its window's winner; windows that share a winner add up.
    MaxPoolAdjoint {
        layer: PoolLayer,
        s: Value,
        winners: Value,
        out: Value,
    },
    /// Mean of each window.
    AvgPool {
        layer: PoolLayer,
        count_padding: bool,
        x: Value,
        out: Value,
    },
    /// Divides each signal among its window's elements.
    AvgPoolAdjoint {
        layer: PoolLayer,
        count_padding: bool,
        s: Value,
        out: Value,
    },
    /// Mean over bins; `out` has one element per bin.
    AdaptiveAvgPool {
        x: Value,
        out: Value,
    },
    /// Divides each signal among its bin's elements.
    AdaptiveAvgPoolAdjoint {
        s: Value,
        out: Value,
    },
    /// Feature map to vector, order c, h, w.
    Flatten {
        x: Value,
        out: Value,
    },
    /// Vector to feature map, order c, h, w.
    Unflatten {
        s: Value,
        out: Value,
    },
    /// Channels of all inputs, in order.
    Concat {
        xs: Vec<Value>,
        out: Value,
    },
    /// Weighted sums over rows, and of these over columns.
    Resample {
        x: Value,
        /// Rows and columns of `out`.
        blends: Arc<[Blend; 2]>,
        out: Value,
    },
    /// Numbers of `x` at other places, zeros in between.
    Move {
        x: Value,
        moves: Moves,
        out: Value,
    },
    /// Softmax over each of as many groups of channels, at each position.
    Softmax {
        groups: usize,
        x: Value,
        out: Value,
    },
    /// Mean 0 and variance 1 in each group and, if anything reads it, `1/√(variance + eps)`.
    Standardise {
        norm: Standardise,
        x: Value,
        out: Value,
        scale: Option<Value>,
    },
    /// `scale ∘ (s − ⟨s⟩)` with the mean over a group; with the standardised `y` also less `scale ∘ y ∘ ⟨s ∘ y⟩`, which
    /// makes it the gradient.
    StandardiseAdjoint {
        norm: Standardise,
        s: Value,
        y: Option<Value>,
        scale: Value,
        out: Value,
    },
    /// Mean over each channel's plane, a vector.
    SpatialMean {
        x: Value,
        out: Value,
    },
    /// Sum over channels of `weights[c] · x[c]`, one channel.
    WeightedChannelSum {
        weights: Value,
        x: Value,
        out: Value,
    },
    /// Scores the logits (in double precision) and starts the backward pass.
    Head {
        logits: Value,
        score: Score,
        link: Link,
        seed: Option<Value>,
    },
    /// Folds the value into the picture's map.
    Aggregate {
        x: Value,
        statistic: Statistic,
    },
    /// Returns numbers, one tensor per copy.
    Store {
        x: Value,
        slot: usize,
    },
    /// Returns decisions.
    StoreDecisions {
        x: Value,
        node: NodeId,
    },
}

impl Step {
    /// Calls `f` for every value that the step touches, in order: first those it reads, then those it writes.
    pub fn operands(&self, mut f: impl FnMut(Role, Value)) {
        let read = |v: &Value| (Role::Read, *v);
        let taken = |v: &Value| (Role::Taken, *v);
        let written = |v: &Value| (Role::Written, *v);
        let mut tell = |operands: &[(Role, Value)]| operands.iter().for_each(|&(role, v)| f(role, v));
        match self {
            Step::Perturb { out }
            | Step::Load { out, .. }
            | Step::LoadDecisions { out, .. }
            | Step::Fill { out, .. } => {
                tell(&[written(out)]);
            }
            Step::Conv { x, out, epilogue: e, .. } | Step::ConvAdjoint { s: x, out, epilogue: e, .. } => {
                tell(&[read(x)]);
                // A convolution reads its input's neighbourhood, so the input itself cannot be overwritten.
                e.add.iter().for_each(|add| tell(&[if add == x { read(add) } else { taken(add) }]));
                e.gate.iter().for_each(|gate| tell(&[read(gate)]));
                e.times.iter().for_each(|times| tell(&[if times == x { read(times) } else { taken(times) }]));
                tell(&[written(out)]);
                e.bits.iter().for_each(|(bits, _)| tell(&[written(bits)]));
                e.smooth.iter().filter_map(|(_, slope)| slope.as_ref()).for_each(|slope| tell(&[written(slope)]));
            }
            Step::Linear { x, out, .. }
            | Step::LinearAdjoint { s: x, out, .. }
            | Step::Inside { x, out, .. }
            | Step::AboveQuantile { x, out, .. }
            | Step::AvgPool { x, out, .. }
            | Step::AvgPoolAdjoint { s: x, out, .. }
            | Step::AdaptiveAvgPool { x, out }
            | Step::AdaptiveAvgPoolAdjoint { s: x, out }
            | Step::Flatten { x, out }
            | Step::Unflatten { s: x, out }
            | Step::Resample { x, out, .. }
            | Step::Softmax { x, out, .. }
            | Step::Move { x, out, .. }
            | Step::SpatialMean { x, out } => tell(&[read(x), written(out)]),
            Step::ConvWeightAdjoint { x: a, s: b, out, .. }
            | Step::LinearWeightAdjoint { x: a, s: b, out, .. }
            | Step::MaxPoolAdjoint { s: a, winners: b, out, .. }
            | Step::WeightedChannelSum { weights: a, x: b, out } => tell(&[read(a), read(b), written(out)]),
            Step::Clamp { x, out, .. } => tell(&[taken(x), written(out)]),
            Step::Add { a, b, out } => tell(&[taken(a), taken(b), written(out)]),
            Step::Gate { s, bits, out } => tell(&[taken(s), read(bits), written(out)]),
            Step::Elementwise { xs, out, .. } => {
                xs.iter().for_each(|x| tell(&[taken(x)]));
                tell(&[written(out)]);
            }
            Step::Concat { xs, out } | Step::Contract { xs, out } => {
                xs.iter().for_each(|x| tell(&[read(x)]));
                tell(&[written(out)]);
            }
            Step::MaxPool { x, out, winners, .. } => {
                tell(&[read(x), written(out)]);
                winners.iter().for_each(|w| tell(&[written(w)]));
            }
            Step::Standardise { x, out, scale, .. } => {
                tell(&[read(x), written(out)]);
                scale.iter().for_each(|scale| tell(&[written(scale)]));
            }
            Step::StandardiseAdjoint { s, y, scale, out, .. } => {
                tell(&[read(s)]);
                y.iter().for_each(|y| tell(&[read(y)]));
                tell(&[read(scale), written(out)]);
            }
            Step::PreferWinners { x, winners, preferred, out, .. } => {
                tell(&[read(x), read(winners), read(preferred), written(out)]);
            }
            Step::Head { logits, seed, .. } => {
                tell(&[read(logits)]);
                seed.iter().for_each(|seed| tell(&[written(seed)]));
            }
            Step::Aggregate { x, .. } | Step::Store { x, .. } | Step::StoreDecisions { x, .. } => tell(&[read(x)]),
        }
    }

    fn of_role(&self, is: impl Fn(Role) -> bool) -> Vec<Value> {
        let mut found = Vec::new();
        self.operands(|role, v| found.extend(is(role).then_some(v)));
        found
    }

    /// Values read, in order; a value that is read twice occurs twice.
    pub fn reads(&self) -> Vec<Value> {
        self.of_role(|role| role != Role::Written)
    }

    /// Values written; the result first.
    pub fn writes(&self) -> Vec<Value> {
        self.of_role(|role| role == Role::Written)
    }

    /// Values read whose memory the result may take over.
    pub fn overwrites(&self) -> Vec<Value> {
        self.of_role(|role| role == Role::Taken)
    }

    /// Whether zeros in the operands give zeros in the result. Bits, winners and sums over positions always do. A
    /// device that pads its layout with zeros must restore them where this is false.
    pub fn keeps_zero(&self) -> bool {
        match self {
            Step::Elementwise { op, .. } => op.keeps_zero(),
            Step::Clamp { range, .. } => range.holds_zero(),
            Step::Conv { epilogue, .. } | Step::ConvAdjoint { epilogue, .. } => {
                epilogue.clamp.is_none_or(Range::holds_zero)
                    && epilogue.smooth.is_none_or(|(f, slope)| slope.is_none() && f.facts().keeps_zero)
            }
            _ => true,
        }
    }

    /// Whether it has effects besides writing values.
    pub fn has_effect(&self) -> bool {
        matches!(self, Step::Head { .. } | Step::Aggregate { .. } | Step::Store { .. } | Step::StoreDecisions { .. })
    }

    /// Name of the layer whose weights the step applies or differentiates by.
    pub fn layer(&self) -> Option<&str> {
        match self {
            Step::Conv { layer, .. } | Step::ConvAdjoint { layer, .. } | Step::ConvWeightAdjoint { layer, .. } => {
                Some(&layer.name)
            }
            Step::Linear { layer, .. }
            | Step::LinearAdjoint { layer, .. }
            | Step::LinearWeightAdjoint { layer, .. } => Some(&layer.name),
            _ => None,
        }
    }

    /// The fused operations on the step's sums, in order: `bias`, `add`, `bits`, `clamp`, `gate`, `times`, an
    /// activation and its slope by their names.
    pub fn fused(&self) -> Vec<&'static str> {
        let (bias, e) = match self {
            Step::Conv { layer, epilogue, .. } => (layer.bias.is_some(), *epilogue),
            Step::ConvAdjoint { epilogue, .. } => (false, *epilogue),
            Step::Linear { layer, .. } => (layer.bias.is_some(), Epilogue::default()),
            _ => return Vec::new(),
        };
        let parts = [
            (bias, "bias"),
            (e.add.is_some(), "add"),
            (e.bits.is_some(), "bits"),
            (e.clamp.is_some(), "clamp"),
            (e.gate.is_some(), "gate"),
            (e.times.is_some(), "times"),
            (e.smooth.is_some(), e.smooth.map_or("", |(f, _)| f.names()[0])),
            (e.smooth.is_some_and(|(_, slope)| slope.is_some()), e.smooth.map_or("", |(f, _)| f.names()[1])),
        ];
        parts.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect()
    }

    /// Name of the primitive: lower case, unique among the primitives. Reports and devices use it.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Perturb { .. } => "perturb",
            Step::Load { .. } => "load",
            Step::LoadDecisions { .. } => "load_decisions",
            Step::Conv { .. } => "conv",
            Step::ConvAdjoint { .. } => "conv_adjoint",
            Step::Linear { .. } => "linear",
            Step::LinearAdjoint { .. } => "linear_adjoint",
            Step::ConvWeightAdjoint { .. } => "conv_weight_adjoint",
            Step::LinearWeightAdjoint { .. } => "linear_weight_adjoint",
            Step::Add { .. } => "add",
            Step::Clamp { .. } => "clamp",
            Step::Inside { .. } => "inside",
            Step::AboveQuantile { .. } => "above_quantile",
            Step::Gate { .. } => "gate",
            Step::Elementwise { op, .. } => op.name(),
            Step::Fill { .. } => "fill",
            Step::Contract { .. } => "contract",
            Step::MaxPool { .. } => "max_pool",
            Step::PreferWinners { .. } => "prefer_winners",
            Step::MaxPoolAdjoint { .. } => "max_pool_adjoint",
            Step::AvgPool { .. } => "avg_pool",
            Step::AvgPoolAdjoint { .. } => "avg_pool_adjoint",
            Step::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Step::AdaptiveAvgPoolAdjoint { .. } => "adaptive_avg_pool_adjoint",
            Step::Flatten { .. } => "flatten",
            Step::Unflatten { .. } => "unflatten",
            Step::Concat { .. } => "concat",
            Step::Resample { .. } => "resample",
            Step::Move { .. } => "move",
            Step::Softmax { .. } => "softmax",
            Step::Standardise { .. } => "standardise",
            Step::StandardiseAdjoint { .. } => "standardise_adjoint",
            Step::SpatialMean { .. } => "spatial_mean",
            Step::WeightedChannelSum { .. } => "weighted_channel_sum",
            Step::Head { .. } => "head",
            Step::Aggregate { .. } => "aggregate",
            Step::Store { .. } => "store",
            Step::StoreDecisions { .. } => "store_decisions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_keep_zero_says_so() {
        let [x, y, out] = [0, 1, 2].map(Value);
        let keeps = |op: Elementwise| Step::Elementwise { op, xs: vec![x; op.arity()], out }.keeps_zero();
        assert!(keeps(Elementwise::Mul) && keeps(Elementwise::RatioOr(1.0)) && keeps(Elementwise::Divide(0.0)));
        for f in Smooth::examples() {
            // Padding must be restored wherever a number there would not stay zero.
            assert!(!keeps(Elementwise::Smooth(f)) || f.value(0.0) == 0.0, "{f:?}");
            assert!(!keeps(Elementwise::Slope(f)) || f.slope(0.0) == 0.0, "{f:?}");
        }
        let clamp = |lo, hi| Step::Clamp { x, range: Range { lo, hi }, out };
        assert!(clamp(0.0, 6.0).keeps_zero() && !clamp(0.5, 6.0).keeps_zero() && !clamp(-2.0, -1.0).keeps_zero());
        let gate = Step::Gate { s: x, bits: y, out };
        assert!(gate.keeps_zero());
        assert_eq!((gate.reads(), gate.overwrites(), gate.writes()), (vec![x, y], vec![x], vec![out]));
    }
}
