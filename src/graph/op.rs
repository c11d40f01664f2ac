//! The operations of nodes, and the shapes of their outputs.

use std::sync::Arc;

use super::{Activation, Affine, Smooth, Weight};
use crate::error::{Error, Result};
use crate::tensor::{AxisMove, Moves, Resize, Shape, Window};

/// A convolution: cross-correlation plus bias, as in every framework.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[k, c / groups, kh, kw]`.
    pub weight: Weight,
    /// One number per output channel, or one per element of the output (`[k, h, w]` in C order).
    pub bias: Option<Arc<[f64]>>,
    /// Kernel (equal to the weight's), stride, dilation, padding.
    pub window: Window,
    /// Number of channel groups; each group reads only its own input channels.
    pub groups: usize,
}

/// A linear layer `y = W x + b` on a vector.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[k, c, 1, 1]`.
    pub weight: Weight,
    /// One number per output.
    pub bias: Option<Arc<[f64]>>,
}

/// Batch norm at inference: `gamma · (x − mean) / sqrt(variance + eps) + beta` for each channel.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// Scale, one per channel.
    pub gamma: Arc<[f64]>,
    /// Shift, one per channel.
    pub beta: Arc<[f64]>,
    /// Running mean, one per channel.
    pub mean: Arc<[f64]>,
    /// Running variance, one per channel.
    pub variance: Arc<[f64]>,
    /// Added to the variance.
    pub eps: f64,
}

/// A sum or a mean over channels, positions or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// What is added up.
    pub over: Over,
    /// Whether the sum is divided by the number of its terms.
    pub mean: bool,
}

/// What a reduction sums over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Over {
    /// The channels of each position.
    Channels,
    /// The positions of each channel.
    Positions,
    /// All numbers.
    Everything,
}

impl Reduce {
    /// Shape of the sums over a map of shape `x`.
    pub const fn to(&self, x: Shape) -> Shape {
        match self.over {
            Over::Channels => Shape::new(1, x.h, x.w),
            Over::Positions => Shape::vector(x.c),
            Over::Everything => Shape::vector(1),
        }
    }

    /// Factor of the sum over a map of shape `x`.
    pub const fn factor(&self, x: Shape) -> f64 {
        if self.mean { self.to(x).len() as f64 / x.len() as f64 } else { 1.0 }
    }
}

/// Numbers less their mean, divided by their standard deviation `√(variance + eps)`, over a group of channels.
///
/// Layer norm over the channels of each position: one group, `across_positions` false. Group norm: its groups,
/// `across_positions` true. Instance norm: as many groups as channels. Scale and shift follow as an [`Affine`] layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standardise {
    /// Number of groups of neighbouring channels.
    pub groups: usize,
    /// Whether mean and variance are those of all positions together, rather than of each position.
    pub across_positions: bool,
    /// Added to the variance; above 0.
    pub eps: f64,
}

impl Standardise {
    /// Shape of the means (and of the variances) of an input of shape `x`.
    pub const fn moments(&self, x: Shape) -> Shape {
        if self.across_positions { Shape::vector(self.groups) } else { Shape::new(self.groups, x.h, x.w) }
    }

    /// Numbers of `x` of which one mean is made.
    pub const fn count(&self, x: Shape) -> usize {
        x.len() / self.moments(x).len()
    }
}

/// The operation of a node on its inputs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// The picture.
    Input,
    /// Convolution.
    Conv(Conv),
    /// Linear layer on a vector.
    Linear(Linear),
    /// Batch norm; [`super::Graph::fold`] merges it into the convolution before it.
    BatchNorm(BatchNorm),
    /// A product and a sum with constants.
    Affine(Affine),
    /// Mean 0 and variance 1: layer norm, group norm, instance norm.
    Standardise(Standardise),
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`; ReLU6 is `0, 6`.
    Clamp {
        /// Lower bound.
        lo: f64,
        /// Upper bound.
        hi: f64,
    },
    /// Any other scalar function.
    Smooth(Smooth),
    /// `x` above 0, `slope · x` from 0 down: one slope a channel, or one for all.
    PRelu(Arc<[f64]>),
    /// Maximum over windows; padding never wins; the first of equal elements wins.
    MaxPool(Window),
    /// Maximum over all positions of a channel; the first of equal elements wins.
    GlobalMaxPool,
    /// Maximum over the channels of each position; the first of equal elements wins.
    ChannelMax,
    /// Mean over windows.
    AvgPool {
        /// Kernel, stride, padding, ceil mode.
        window: Window,
        /// Whether padded zeros count as elements.
        count_padding: bool,
    },
    /// Mean over `out` bins per axis, from `⌊i·n/out⌋` to `⌈(i+1)·n/out⌉`; `[1, 1]` is the global average.
    AdaptiveAvgPool {
        /// Rows and columns of the output.
        out: [usize; 2],
    },
    /// Sum of all inputs. One with a single channel or a single position is repeated ([`Shape::joined`]).
    Add,
    /// Product of two inputs. One with a single channel or a single position is repeated ([`Shape::joined`]), as the gates
    /// of squeeze-and-excitation are.
    Mul,
    /// Softmax over the channels of each group of neighbouring channels, at each position.
    Softmax {
        /// Number of groups.
        groups: usize,
    },
    /// Quotient of two inputs. One with a single channel or a single position is repeated ([`Shape::joined`]).
    Divide,
    /// Sums or means over channels or positions.
    Reduce(Reduce),
    /// Feature map to vector, order c, h, w.
    Flatten,
    /// Inputs concatenated along the channels.
    Concat,
    /// Every `stride`-th row and column, from the first.
    Subsample {
        /// Distance between the rows and columns that are kept.
        stride: [usize; 2],
    },
    /// Other rows and columns.
    Resize(Resize),
    /// Neighbouring channels.
    Slice {
        /// The first of them.
        first: usize,
        /// How many.
        channels: usize,
    },
    /// Channels read as a matrix of this many rows, in the order of its columns (ShuffleNet).
    Shuffle {
        /// Rows.
        groups: usize,
    },
    /// Rows and columns of zeros on each side; negative numbers cut off.
    Pad {
        /// Above and below.
        rows: [isize; 2],
        /// Left and right.
        columns: [isize; 2],
    },
    /// Zero channels before and after.
    PadChannels {
        /// Zero channels before the input's.
        before: usize,
        /// Zero channels after the input's.
        after: usize,
    },
}

impl Op {
    /// Lower-case name of the kind of operation.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Conv(_) => "conv",
            Op::Linear(_) => "linear",
            Op::BatchNorm(_) => "batch_norm",
            Op::Affine(_) => "affine",
            Op::Standardise(_) => "standardise",
            Op::Relu => "relu",
            Op::Clamp { .. } => "clamp",
            Op::Smooth(f) => f.names()[0],
            Op::PRelu(_) => "prelu",
            Op::MaxPool(_) => "max_pool",
            Op::GlobalMaxPool => "global_max_pool",
            Op::ChannelMax => "channel_max",
            Op::AvgPool { .. } => "avg_pool",
            Op::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Divide => "divide",
            Op::Softmax { .. } => "softmax",
            Op::Reduce(_) => "reduce",
            Op::Flatten => "flatten",
            Op::Concat => "concat",
            Op::Subsample { .. } => "subsample",
            Op::Resize(_) => "resize",
            Op::Slice { .. } => "slice",
            Op::Shuffle { .. } => "shuffle",
            Op::Pad { .. } => "pad",
            Op::PadChannels { .. } => "pad_channels",
        }
    }

    /// This operation as a scalar function, if it is one; rules treat it as an activation.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Op::Relu => Some(Activation::Clamp { lo: 0.0, hi: f64::INFINITY }),
            Op::Clamp { lo, hi } => Some(Activation::Clamp { lo: *lo, hi: *hi }),
            Op::Smooth(f) => Some(Activation::Smooth(*f)),
            Op::PRelu(slopes) => {
                let least = slopes.iter().copied().fold(f64::INFINITY, f64::min);
                let most = slopes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Some(Activation::PRelu { least, most })
            }
            Op::Input
            | Op::Conv(_)
            | Op::Linear(_)
            | Op::BatchNorm(_)
            | Op::Affine(_)
            | Op::Standardise(_)
            | Op::MaxPool(_)
            | Op::GlobalMaxPool
            | Op::ChannelMax
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Mul
            | Op::Divide
            | Op::Softmax { .. }
            | Op::Reduce(_)
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::Resize(_)
            | Op::Slice { .. }
            | Op::Shuffle { .. }
            | Op::Pad { .. }
            | Op::PadChannels { .. } => None,
        }
    }

    /// Where the numbers of the input go, for an operation that only moves them: each to one place at most,
    /// with zeros elsewhere. A flattening moves numbers too, but between axes.
    pub fn moves(&self) -> Option<Moves> {
        match self {
            Op::Subsample { stride: [y, x] } => {
                Some(Moves { axes: [AxisMove::SAME, AxisMove::by(*y), AxisMove::by(*x)], groups: 1 })
            }
            Op::Slice { first, .. } => Some(Moves::channels(AxisMove::from(*first as isize))),
            Op::Shuffle { groups } => Some(Moves { groups: *groups, ..Moves::SAME }),
            Op::Pad { rows: [top, _], columns: [left, _] } => {
                let axes = [AxisMove::SAME, AxisMove::from(-top), AxisMove::from(-left)];
                Some(Moves { axes, groups: 1 })
            }
            Op::PadChannels { before, .. } => Some(Moves::channels(AxisMove::from(-(*before as isize)))),
            Op::Input
            | Op::Conv(_)
            | Op::Linear(_)
            | Op::BatchNorm(_)
            | Op::Affine(_)
            | Op::Standardise(_)
            | Op::Relu
            | Op::Clamp { .. }
            | Op::Smooth(_)
            | Op::PRelu(_)
            | Op::MaxPool(_)
            | Op::GlobalMaxPool
            | Op::ChannelMax
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Mul
            | Op::Divide
            | Op::Softmax { .. }
            | Op::Reduce(_)
            | Op::Flatten
            | Op::Concat
            | Op::Resize(_) => None,
        }
    }

    /// Whether its outputs are the largest of some inputs.
    pub(crate) fn takes_maxima(&self) -> bool {
        matches!(self, Op::MaxPool(_) | Op::GlobalMaxPool | Op::ChannelMax)
    }

    /// The window of a max-pool over positions on an input of shape `x`.
    pub(crate) fn max_window(&self, x: Shape) -> Option<Window> {
        match self {
            Op::MaxPool(window) => Some(*window),
            Op::GlobalMaxPool => Some(Window { kernel: [x.h, x.w], ..Window::square(1, 1, 0) }),
            _ => None,
        }
    }

    /// Number of parameters of this operation.
    pub fn parameters(&self) -> usize {
        let trained = |weight: &Weight, bias: &Option<Arc<[f64]>>| {
            // The copies with the sign changed are not counted again.
            let copies = if weight.is_mirrored() { 2 } else { 1 };
            (weight.len() + bias.as_ref().map_or(0, |b| b.len())) / copies
        };
        match self {
            Op::Conv(c) => trained(&c.weight, &c.bias),
            Op::Linear(l) => trained(&l.weight, &l.bias),
            Op::BatchNorm(b) => 2 * b.gamma.len(),
            Op::Affine(a) => {
                let given = |v: &[f64], neutral: f64| if *v == [neutral] { 0 } else { v.len() };
                given(&a.scale, 1.0) + given(&a.shift, 0.0)
            }
            Op::PRelu(slopes) => slopes.len(),
            _ => 0,
        }
    }

    /// Multiply-adds of a forward pass, given the output's shape.
    pub fn macs(&self, out: Shape) -> usize {
        match self {
            Op::Conv(c) => out.len() * c.weight.row_len(),
            Op::Linear(l) => l.weight.len(),
            _ => 0,
        }
    }

    /// Shape of the output for inputs of the given shapes.
    ///
    /// # Errors
    /// When the inputs do not match the operation.
    pub fn output(&self, inputs: &[Shape]) -> Result<Shape> {
        inputs.iter().try_for_each(|x| x.checked().map(|_| ()))?;
        self.shape_of(inputs)?.checked()
    }

    fn shape_of(&self, inputs: &[Shape]) -> Result<Shape> {
        let arity = match self {
            Op::Input => 0..=0,
            Op::Add | Op::Concat => 1..=usize::MAX,
            Op::Mul | Op::Divide => 2..=2,
            _ => 1..=1,
        };
        if !arity.contains(&inputs.len()) {
            return Err(Error::model(format!("{} takes {arity:?} inputs, got {}", self.kind(), inputs.len())));
        }
        let Some(&x) = inputs.first() else {
            return Err(Error::model("the input's shape is given, not computed"));
        };
        let per_channel = |what: &str, n: usize, channels: usize| {
            if n == channels {
                Ok(())
            } else {
                Err(Error::model(format!("{what} has {n} numbers for {channels} channels")))
            }
        };
        let windowed = |window: &Window, c: usize| {
            let [h, w] = window.output(x.h, x.w)?;
            Ok(Shape::new(c, h, w))
        };
        match self {
            Op::Input => Err(Error::model("the input's shape is given, not computed")),
            Op::Conv(conv) => {
                let [k, c, kh, kw] = conv.weight.dims();
                if conv.groups == 0 || k % conv.groups != 0 || c.checked_mul(conv.groups) != Some(x.c) {
                    return Err(Error::model(format!(
                        "a weight of shape [{k}, {c}, {kh}, {kw}] in {} groups does not take {} channels",
                        conv.groups, x.c
                    )));
                }
                if conv.window.kernel != [kh, kw] || conv.window.ceil {
                    return Err(Error::model(format!("window {:?} on a {kh}x{kw} kernel", conv.window)));
                }
                let out = windowed(&conv.window, k)?;
                match &conv.bias {
                    Some(bias) if bias.len() != out.len() => per_channel("the bias", bias.len(), k)?,
                    _ => {}
                }
                Ok(out)
            }
            Op::Linear(linear) => {
                let [k, c, kh, kw] = linear.weight.dims();
                if x != Shape::vector(c) || [kh, kw] != [1, 1] {
                    return Err(Error::model(format!("a weight of shape [{k}, {c}] does not take an input of {x}")));
                }
                if let Some(bias) = &linear.bias {
                    per_channel("the bias", bias.len(), k)?;
                }
                Ok(Shape::vector(k))
            }
            Op::BatchNorm(b) => {
                for (what, v) in [("gamma", &b.gamma), ("beta", &b.beta), ("mean", &b.mean), ("variance", &b.variance)]
                {
                    per_channel(what, v.len(), x.c)?;
                }
                Ok(x)
            }
            Op::Affine(affine) => affine.check(x).map(|()| x),
            Op::Standardise(Standardise { groups, eps, .. }) => {
                if *groups == 0 || x.c % groups != 0 || !(*eps > 0.0 && eps.is_finite()) {
                    return Err(Error::model(format!("{} channels in {groups} groups, eps {eps}", x.c)));
                }
                Ok(x)
            }
            Op::Clamp { lo, hi } if lo.partial_cmp(hi) != Some(std::cmp::Ordering::Less) => {
                Err(Error::model(format!("clamp to [{lo}, {hi}]")))
            }
            Op::Smooth(f) => f.checked().map(|_| x),
            Op::PRelu(slopes) => {
                if slopes.len() != 1 {
                    per_channel("prelu", slopes.len(), x.c)?;
                }
                match slopes.iter().find(|slope| !slope.is_finite()) {
                    Some(slope) => Err(Error::model(format!("there is no prelu with slope {slope}"))),
                    None => Ok(x),
                }
            }
            Op::Relu | Op::Clamp { .. } => Ok(x),
            Op::MaxPool(window) | Op::AvgPool { window, .. } => {
                let out = windowed(window, x.c)?;
                let pads = window.pads(x.h, x.w);
                let hollow = |a: usize, windows: usize, extent: usize| {
                    let (start, end) = (pads[a][0], pads[a][0] + extent);
                    (0..windows).map(|o| o * window.stride[a]).any(|first| {
                        let tap = start.saturating_sub(first).div_ceil(window.dilation[a]);
                        tap >= window.kernel[a] || first + tap * window.dilation[a] >= end
                    })
                };
                if hollow(0, out.h, x.h) || hollow(1, out.w, x.w) {
                    return Err(Error::model(format!("padding {pads:?} leaves windows of {:?} empty", window.kernel)));
                }
                Ok(out)
            }
            Op::GlobalMaxPool => Ok(Shape::vector(x.c)),
            Op::ChannelMax => Ok(Shape::new(1, x.h, x.w)),
            Op::AdaptiveAvgPool { out: [h, w] } => {
                if *h == 0 || *w == 0 {
                    return Err(Error::model("an adaptive pool to nothing"));
                }
                Ok(Shape::new(x.c, *h, *w))
            }
            Op::Reduce(reduce) => Ok(reduce.to(x)),
            Op::Add | Op::Mul | Op::Divide => inputs.iter().try_fold(x, |all, &odd| {
                let kind = self.kind();
                all.joined(odd).ok_or_else(|| Error::model(format!("cannot {kind} {all} and {odd}")))
            }),
            Op::Flatten => Ok(Shape::vector(x.len())),
            Op::Concat => match inputs.iter().find(|s| (s.h, s.w) != (x.h, x.w)) {
                Some(odd) => Err(Error::model(format!("cannot concatenate {x} and {odd}"))),
                None => {
                    let channels = inputs.iter().try_fold(0usize, |sum, s| sum.checked_add(s.c));
                    Ok(Shape::new(channels.ok_or_else(too_many)?, x.h, x.w))
                }
            },
            Op::Subsample { stride: [sy, sx] } => {
                if *sy == 0 || *sx == 0 {
                    return Err(Error::model("a stride of zero"));
                }
                Ok(Shape::new(x.c, x.h.div_ceil(*sy), x.w.div_ceil(*sx)))
            }
            Op::Resize(resize) => resize.output(x),
            Op::Slice { first, channels } => match first.checked_add(*channels) {
                Some(end) if end <= x.c => Ok(Shape::new(*channels, x.h, x.w)),
                _ => Err(Error::model(format!("there are no {channels} channels from {first} on in {x}"))),
            },
            Op::Softmax { groups } => {
                if *groups == 0 || x.c % groups != 0 {
                    return Err(Error::model(format!("a softmax over {} channels in {groups} groups", x.c)));
                }
                Ok(x)
            }
            Op::Shuffle { groups } => {
                if *groups == 0 || x.c % groups != 0 {
                    return Err(Error::model(format!("{} channels cannot be shuffled in {groups} groups", x.c)));
                }
                Ok(x)
            }
            Op::Pad { rows, columns } => {
                let padded = |n: usize, [before, after]: [isize; 2]| {
                    n.checked_add_signed(before).and_then(|n| n.checked_add_signed(after)).filter(|&n| n > 0)
                };
                match (padded(x.h, *rows), padded(x.w, *columns)) {
                    (Some(h), Some(w)) => Ok(Shape::new(x.c, h, w)),
                    _ => Err(Error::model(format!(
                        "padding of {rows:?} rows and {columns:?} columns leaves nothing of {x}"
                    ))),
                }
            }
            Op::PadChannels { before, after } => {
                let channels = before.checked_add(x.c).and_then(|n| n.checked_add(*after));
                Ok(Shape::new(channels.ok_or_else(too_many)?, x.h, x.w))
            }
        }
    }
}

fn too_many() -> Error {
    Error::model("more channels than can be counted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_refuse_windows_without_an_element() {
        let shape = |window, n| Op::MaxPool(window).output(&[Shape::new(1, n, n)]);
        assert!(shape(Window::square(2, 2, 1), 4).is_ok());
        assert!(shape(Window::square(2, 2, 2), 4).is_err());
        // The taps of a dilated window may all miss a small input.
        let dilated = Window { dilation: [3; 2], ..Window::square(2, 1, 3) };
        assert!(shape(dilated, 1).is_err());
        assert!(shape(dilated, 4).is_ok());
    }
}
