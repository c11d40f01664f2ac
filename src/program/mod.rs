//! Forward pass, score and backward pass as one list of primitives that a device runs.
//!
//! A program is built node by node ([`Builder`]), fused, and laid out in memory ([`Plan`]) before it runs, so its
//! memory use is known in advance. Only forward values that a backward rule requests are kept.

mod builder;
mod closing;
mod lower;
mod plan;
mod prelu;
mod score;
mod step;
mod watch;
mod work;
mod zeros;

use std::sync::Arc;

pub use builder::{Builder, Decided, Deviation, Forward};
pub use closing::{Closing, LastAdjoint};
pub use plan::{Place, Plan};
pub use score::{Score, softmax};
pub use step::{Elementwise, Epilogue, Role, Step};
pub use work::{StepPass, Work};
pub use zeros::Zeros;

use crate::error::{Error, Result};
use crate::graph::{NodeId, Part, Weight};
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

/// The contents of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Numbers.
    Dense(Shape),
    /// One bit per number.
    Bits(Shape),
    /// For each pooled element, the winning tap of its window (`ky · kw + kx`); windows of up to 65536 taps.
    Winners(Shape, WinnerWidth),
}

impl Form {
    /// Shape of the numbers, or of the elements that the bits or winners refer to.
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

/// An interval; an infinite end means no bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Range {
    /// The range in which a ReLU is active: above zero.
    pub const POSITIVE: Self = Self { lo: 0.0, hi: f64::INFINITY };
    /// Below zero.
    pub const NEGATIVE: Self = Self { lo: f64::NEG_INFINITY, hi: 0.0 };

    /// Whether it contains zero, with its ends included.
    pub(crate) const fn holds_zero(self) -> bool {
        self.lo <= 0.0 && 0.0 <= self.hi
    }
}

/// A convolution between known shapes.
#[derive(Debug, Clone)]
pub struct ConvLayer {
    /// The node's name.
    pub name: String,
    /// `[k, c / groups, kh, kw]`.
    pub weight: Weight,
    /// One number per output channel, or one per element of the output.
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
    /// Refuses a weight, bias and shapes that do not match; devices rely on this.
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

    /// The same layer with a part of its weight and another bias.
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
    /// One number per output.
    pub bias: Option<Arc<[f64]>>,
}

impl LinearLayer {
    /// Refuses a weight and bias that do not match; devices rely on this.
    pub(crate) fn check(&self) -> Result<()> {
        let [k, _, kh, kw] = self.weight.dims();
        if [kh, kw] == [1, 1] && self.bias.as_ref().is_none_or(|b| b.len() == k) {
            return Ok(());
        }
        Err(Error::model(format!("layer '{}': weight and bias do not suit each other", self.name)))
    }

    /// The same layer with a part of its weight and another bias.
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

/// How the signals of a picture's copies are aggregated into one map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Weighted sum; the weights of a picture's copies are passed to the run (1/n for a mean).
    Sum,
    /// Weighted sum of squares.
    SumOfSquares,
    /// Unbiased variance; weights are ignored.
    Variance,
    /// Maximum minus minimum; weights are ignored.
    Range,
}

impl Statistic {
    /// Whether it needs two running values.
    pub const fn has_two(self) -> bool {
        matches!(self, Statistic::Variance | Statistic::Range)
    }
}

/// The factor of a finished statistic, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Times {
    /// No factor.
    One,
    /// The unperturbed picture.
    Input,
    /// The picture minus its baseline, for copies on a path from a baseline.
    InputMinusBaseline,
}

/// A list of primitives and the forms of its values.
#[derive(Debug, Clone)]
pub struct Program {
    steps: Vec<Step>,
    /// For each step, the node that it computes or sends a signal back through.
    nodes: Vec<Option<NodeId>>,
    forms: Vec<Form>,
    /// One past the largest slot that its author stores to; watched values are stored behind it.
    slots: usize,
}

impl Program {
    /// In the order of execution.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The node that step `i` computes or sends a signal back through; `None` for a score, a statistic or a result.
    pub fn node(&self, i: usize) -> Option<NodeId> {
        self.nodes.get(i).copied().flatten()
    }

    /// One past the largest slot that a method stores to. What is stored behind it says whether the watched values are
    /// finite ([`Builder::watch`]).
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Form of each value.
    pub fn forms(&self) -> &[Form] {
        &self.forms
    }
}
