//! Forward, score and backward as one list of primitives that a device carries out.
//!
//! A program is built node by node ([`Builder`]), fused and laid out in memory ([`Plan`]) before it runs, so its bytes are
//! known beforehand. Only forward values that a backward rule named are kept.

mod builder;
mod closing;
mod lower;
mod plan;
mod score;
mod work;
mod zeros;

use std::sync::Arc;

pub use builder::{Builder, Decided, Forward};
pub use closing::{Closing, LastAdjoint};
pub use plan::{Place, Plan};
pub use score::{Score, softmax};
pub use work::{Pass, Work};
pub use zeros::Zeros;

use crate::error::{Error, Result};
use crate::graph::{Link, NodeId, Part, SoftClamp, Weight};
use crate::tensor::{Shape, Window};

/// A value of a program, one for each copy of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// Position in [`Program::forms`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Numbers.
    Dense(Shape),
    /// One bit a number.
    Bits(Shape),
    /// For each pooled element, which tap of its window won (`ky · kw + kx`); windows of up to 65536 taps.
    Winners(Shape, WinnerWidth),
}

impl Form {
    /// Shape of what it tells about.
    pub const fn shape(self) -> Shape {
        match self {
            Form::Dense(s) | Form::Bits(s) | Form::Winners(s, _) => s,
        }
    }
}

/// Bytes of one winner's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WinnerWidth {
    /// Windows of up to 256 taps.
    One,
    /// Larger windows.
    Two,
}

impl WinnerWidth {
    /// Bytes.
    pub const fn bytes(self) -> usize {
        match self {
            WinnerWidth::One => 1,
            WinnerWidth::Two => 2,
        }
    }
}

/// An interval; infinite where nothing bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Range {
    /// Where a ReLU is active: above zero.
    pub const POSITIVE: Self = Self { lo: 0.0, hi: f64::INFINITY };
}

/// A convolution between known shapes.
#[derive(Debug, Clone)]
pub struct ConvLayer {
    /// The node's name.
    pub name: String,
    /// `[k, c / groups, kh, kw]`.
    pub weight: Weight,
    /// One number an output channel, or one an element of the output.
    pub bias: Option<Arc<[f64]>>,
    /// Kernel, stride, dilation, padding.
    pub window: Window,
    /// Channel groups.
    pub groups: usize,
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
}

impl ConvLayer {
    /// Refuses a weight, bias and shapes that do not suit each other; devices rely on them.
    pub(crate) fn check(&self) -> Result<()> {
        let [k, c, kh, kw] = self.weight.dims();
        let [h, w] = self.window.output(self.input.h, self.input.w)?;
        let suits = self.groups > 0
            && c.checked_mul(self.groups) == Some(self.input.c)
            && k.is_multiple_of(self.groups)
            && self.window.kernel == [kh, kw]
            && self.output == Shape::new(k, h, w)
            && self.bias.as_ref().is_none_or(|b| b.len() == k || b.len() == self.output.len());
        if suits {
            return Ok(());
        }
        Err(Error::model(format!("layer '{}': weight, bias and shapes do not suit each other", self.name)))
    }

    /// The same layer with some part of its weight's numbers and another bias.
    pub fn with(&self, part: Part, bias: Option<Arc<[f64]>>) -> Arc<Self> {
        Arc::new(Self { weight: self.weight.part(part), bias, ..self.clone() })
    }
}

/// A linear layer.
#[derive(Debug, Clone)]
pub struct LinearLayer {
    /// The node's name.
    pub name: String,
    /// `[k, c, 1, 1]`.
    pub weight: Weight,
    /// One number an output.
    pub bias: Option<Arc<[f64]>>,
}

impl LinearLayer {
    /// Refuses a weight and bias that do not suit each other; devices rely on them.
    pub(crate) fn check(&self) -> Result<()> {
        let [k, _, kh, kw] = self.weight.dims();
        if [kh, kw] == [1, 1] && self.bias.as_ref().is_none_or(|b| b.len() == k) {
            return Ok(());
        }
        Err(Error::model(format!("layer '{}': weight and bias do not suit each other", self.name)))
    }

    /// The same layer with some part of its weight's numbers and another bias.
    pub fn with(&self, part: Part, bias: Option<Arc<[f64]>>) -> Arc<Self> {
        Arc::new(Self { weight: self.weight.part(part), bias, ..self.clone() })
    }
}

/// A pooling window between known shapes.
#[derive(Debug, Clone, Copy)]
pub struct PoolLayer {
    /// Kernel, stride, padding.
    pub window: Window,
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
}

/// What happens to a convolution's sums before they are stored, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Epilogue {
    /// Add this value.
    pub add: Option<Value>,
    /// Record where the number lies strictly inside the range.
    pub bits: Option<(Value, Range)>,
    /// Clamp to the range.
    pub clamp: Option<Range>,
    /// Zero where the bit is not set.
    pub gate: Option<Value>,
}

/// A function of one or two numbers, element by element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elementwise {
    /// `a · b`.
    Mul,
    /// `a − b`.
    Sub,
    /// `a / (b + δ·sign(b))` with `sign(0) = +1`; 0 where that divides by zero.
    Divide(f64),
    /// `k · a`.
    Scale(f64),
    /// `|a|`.
    Abs,
    /// `a²`.
    Square,
    /// `a / b`, and the third number where `|b|` is below this threshold.
    RatioOr(f64),
    /// A clamp with rounded corners.
    SoftClamp(SoftClamp),
    /// Its derivative.
    SoftClampSlope(SoftClamp),
}

impl Elementwise {
    /// Numbers it takes.
    pub const fn arity(self) -> usize {
        match self {
            Elementwise::RatioOr(_) => 3,
            Elementwise::Mul | Elementwise::Sub | Elementwise::Divide(_) => 2,
            Elementwise::Scale(_)
            | Elementwise::Abs
            | Elementwise::Square
            | Elementwise::SoftClamp(_)
            | Elementwise::SoftClampSlope(_) => 1,
        }
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Elementwise::Mul => "mul",
            Elementwise::Sub => "sub",
            Elementwise::Divide(_) => "divide",
            Elementwise::Scale(_) => "scale",
            Elementwise::Abs => "abs",
            Elementwise::Square => "square",
            Elementwise::RatioOr(_) => "ratio_or",
            Elementwise::SoftClamp(_) => "soft_clamp",
            Elementwise::SoftClampSlope(_) => "soft_clamp_slope",
        }
    }
}

/// How the signals of a picture's copies become one map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Weighted sum; the weights of a picture's copies are given with the run (1/n for a mean).
    Sum,
    /// Weighted sum of squares.
    SumOfSquares,
    /// Unbiased variance, weights ignored.
    Variance,
    /// Largest less smallest, weights ignored.
    Range,
}

impl Statistic {
    /// Whether it is computed from two running numbers.
    pub const fn has_two(self) -> bool {
        matches!(self, Statistic::Variance | Statistic::Range)
    }
}

/// What a finished statistic is multiplied by, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Times {
    /// Nothing.
    One,
    /// The unperturbed picture.
    Input,
    /// The picture less its baseline, for copies on a path from one.
    InputMinusBaseline,
}

/// One primitive. Every value is written by one step; fields are `x` for an input, `s` for a signal on its way back, `out` for
/// the result.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // fields are named above
pub enum Step {
    /// The copy's pixels.
    Perturb {
        out: Value,
    },
    /// Numbers given with the run, one tensor a picture.
    Load {
        slot: usize,
        out: Value,
    },
    /// Decisions of this node given with the run.
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
    /// The signal sent back through a convolution's linear part, then the epilogue.
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
    /// Gradient of a convolution's weight, `[k, c / groups · kh, kw]`: sums over positions of `s` times what each tap read.
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
    /// Numbers cut to the range; a NaN stays.
    Clamp {
        x: Value,
        range: Range,
        out: Value,
    },
    /// Bit set where the number lies strictly inside the range.
    Inside {
        x: Value,
        range: Range,
        out: Value,
    },
    /// Bit set where the number is not within the lower share `q` of the copy's numbers: above their quantile.
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
    /// A function of the values' numbers, element by element.
    Elementwise {
        op: Elementwise,
        xs: Vec<Value>,
        out: Value,
    },
    /// One number a channel, the same everywhere, or one an element.
    Fill {
        values: Arc<[f64]>,
        out: Value,
    },
    /// `weights[c] · x[c]`.
    ScaleChannels {
        weights: Value,
        x: Value,
        out: Value,
    },
    /// Largest number of each window and, if somebody reads them, which tap it was (the first of equals).
    MaxPool {
        layer: PoolLayer,
        x: Value,
        out: Value,
        winners: Option<Value>,
    },
    /// The winners, except that the preferred tap wins wherever its number is as great.
    PreferWinners {
        layer: PoolLayer,
        x: Value,
        winners: Value,
        preferred: Value,
        out: Value,
    },
    /// Each signal to its window's winner; windows that share a winner add up.
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
    /// Each signal divided among its window's elements.
    AvgPoolAdjoint {
        layer: PoolLayer,
        count_padding: bool,
        s: Value,
        out: Value,
    },
    /// Mean over as many bins an axis as `out` has rows and columns.
    AdaptiveAvgPool {
        x: Value,
        out: Value,
    },
    /// Each signal divided among its bin's elements.
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
    /// Channels of all inputs in order.
    Concat {
        xs: Vec<Value>,
        out: Value,
    },
    /// Channels from `first` on, as many as `out` has; channels beyond the input are zero.
    Channels {
        x: Value,
        first: isize,
        out: Value,
    },
    /// Every `stride`-th row and column.
    Subsample {
        x: Value,
        stride: [usize; 2],
        out: Value,
    },
    /// Its adjoint: zeros in between.
    SubsampleAdjoint {
        s: Value,
        stride: [usize; 2],
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
    /// Hands numbers out, one tensor a copy.
    Store {
        x: Value,
        slot: usize,
    },
    /// Hands decisions out.
    StoreDecisions {
        x: Value,
        node: NodeId,
    },
}

impl Step {
    /// Values read.
    pub fn reads(&self) -> Vec<Value> {
        let epilogue = |x: &Value, e: &Epilogue| [Some(*x), e.add, e.gate].into_iter().flatten().collect();
        match self {
            Step::Perturb { .. } | Step::Load { .. } | Step::LoadDecisions { .. } | Step::Fill { .. } => Vec::new(),
            Step::Conv { x, epilogue: e, .. } => epilogue(x, e),
            Step::ConvAdjoint { s, epilogue: e, .. } => epilogue(s, e),
            Step::Add { a, b, .. } => vec![*a, *b],
            Step::Gate { s, bits, .. } => vec![*s, *bits],
            Step::MaxPoolAdjoint { s, winners, .. } => vec![*s, *winners],
            Step::ConvWeightAdjoint { x, s, .. } | Step::LinearWeightAdjoint { x, s, .. } => vec![*x, *s],
            Step::PreferWinners { x, winners, preferred, .. } => vec![*x, *winners, *preferred],
            Step::Concat { xs, .. } | Step::Elementwise { xs, .. } => xs.clone(),
            Step::WeightedChannelSum { weights, x, .. } | Step::ScaleChannels { weights, x, .. } => vec![*weights, *x],
            Step::Linear { x, .. }
            | Step::Clamp { x, .. }
            | Step::Inside { x, .. }
            | Step::AboveQuantile { x, .. }
            | Step::MaxPool { x, .. }
            | Step::AvgPool { x, .. }
            | Step::AdaptiveAvgPool { x, .. }
            | Step::Flatten { x, .. }
            | Step::Channels { x, .. }
            | Step::Subsample { x, .. }
            | Step::SpatialMean { x, .. }
            | Step::Aggregate { x, .. }
            | Step::Store { x, .. }
            | Step::StoreDecisions { x, .. } => vec![*x],
            Step::LinearAdjoint { s, .. }
            | Step::AvgPoolAdjoint { s, .. }
            | Step::AdaptiveAvgPoolAdjoint { s, .. }
            | Step::Unflatten { s, .. }
            | Step::SubsampleAdjoint { s, .. } => vec![*s],
            Step::Head { logits, .. } => vec![*logits],
        }
    }

    /// Values written.
    pub fn writes(&self) -> Vec<Value> {
        match self {
            Step::Conv { out, epilogue: e, .. } | Step::ConvAdjoint { out, epilogue: e, .. } => {
                [Some(*out), e.bits.map(|b| b.0)].into_iter().flatten().collect()
            }
            Step::MaxPool { out, winners, .. } => [Some(*out), *winners].into_iter().flatten().collect(),
            Step::Head { seed, .. } => seed.iter().copied().collect(),
            Step::Aggregate { .. } | Step::Store { .. } | Step::StoreDecisions { .. } => Vec::new(),
            Step::Perturb { out }
            | Step::Load { out, .. }
            | Step::LoadDecisions { out, .. }
            | Step::Linear { out, .. }
            | Step::LinearAdjoint { out, .. }
            | Step::ConvWeightAdjoint { out, .. }
            | Step::LinearWeightAdjoint { out, .. }
            | Step::Add { out, .. }
            | Step::Clamp { out, .. }
            | Step::Inside { out, .. }
            | Step::AboveQuantile { out, .. }
            | Step::Gate { out, .. }
            | Step::Elementwise { out, .. }
            | Step::Fill { out, .. }
            | Step::ScaleChannels { out, .. }
            | Step::PreferWinners { out, .. }
            | Step::MaxPoolAdjoint { out, .. }
            | Step::AvgPool { out, .. }
            | Step::AvgPoolAdjoint { out, .. }
            | Step::AdaptiveAvgPool { out, .. }
            | Step::AdaptiveAvgPoolAdjoint { out, .. }
            | Step::Flatten { out, .. }
            | Step::Unflatten { out, .. }
            | Step::Concat { out, .. }
            | Step::Channels { out, .. }
            | Step::Subsample { out, .. }
            | Step::SubsampleAdjoint { out, .. }
            | Step::SpatialMean { out, .. }
            | Step::WeightedChannelSum { out, .. } => vec![*out],
        }
    }

    /// Whether it does something besides writing values.
    pub fn has_effect(&self) -> bool {
        matches!(self, Step::Head { .. } | Step::Aggregate { .. } | Step::Store { .. } | Step::StoreDecisions { .. })
    }

    /// Values read whose memory the (first) result may take over, because each element is read before it is written.
    pub fn overwrites(&self) -> Vec<Value> {
        match self {
            // A convolution reads its input's neighbourhood, so the input itself cannot be overwritten.
            Step::Conv { epilogue, x: read, .. } | Step::ConvAdjoint { epilogue, s: read, .. } => {
                epilogue.add.into_iter().filter(|add| add != read).collect()
            }
            Step::Add { a, b, .. } => vec![*a, *b],
            Step::Clamp { x, .. } => vec![*x],
            Step::Gate { s, .. } => vec![*s],
            Step::Elementwise { xs, .. } => xs.clone(),
            Step::ScaleChannels { x, .. } => vec![*x],
            _ => Vec::new(),
        }
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

    /// What is done to the step's sums before they are stored, in order: `bias`, `add`, `bits`, `clamp`, `gate`.
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
        ];
        parts.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect()
    }

    /// Lower-case name of the primitive.
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
            Step::ScaleChannels { .. } => "scale_channels",
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
            Step::Channels { .. } => "channels",
            Step::Subsample { .. } => "subsample",
            Step::SubsampleAdjoint { .. } => "subsample_adjoint",
            Step::SpatialMean { .. } => "spatial_mean",
            Step::WeightedChannelSum { .. } => "weighted_channel_sum",
            Step::Head { .. } => "head",
            Step::Aggregate { .. } => "aggregate",
            Step::Store { .. } => "store",
            Step::StoreDecisions { .. } => "store_decisions",
        }
    }
}

/// A list of primitives and the forms of its values.
#[derive(Debug, Clone)]
pub struct Program {
    steps: Vec<Step>,
    /// For each step the node that it computes or sends a signal back through.
    nodes: Vec<Option<NodeId>>,
    forms: Vec<Form>,
}

impl Program {
    /// In the order of execution.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The node that step `i` computes or sends a signal back through; none for a score, a statistic or a result.
    pub fn node(&self, i: usize) -> Option<NodeId> {
        self.nodes.get(i).copied().flatten()
    }

    /// Form of each value.
    pub fn forms(&self) -> &[Form] {
        &self.forms
    }
}
