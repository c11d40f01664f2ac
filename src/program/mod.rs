//! Forward, score and backward as one list of primitives that a device carries out.
//!
//! A program is built node by node ([`Builder`]), fused and laid out in memory ([`Plan`]) before it runs, so its bytes are
//! known beforehand. Only forward values that a backward rule named are kept.

mod builder;
mod closing;
mod lower;
mod plan;
mod score;
mod step;
mod work;
mod zeros;

use std::sync::Arc;

pub use builder::{Builder, Decided, Forward};
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

    /// Whether zero lies in it, its ends included.
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
