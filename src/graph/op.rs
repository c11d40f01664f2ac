//! The operations of nodes, and the shapes of their outputs.

use std::sync::Arc;

use super::{Activation, Smooth, Weight};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Window};

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
    /// Sum of all inputs.
    Add,
    /// Feature map to vector, order c, h, w.
    Flatten,
    /// Inputs concatenated along the channels.
    Concat,
    /// Every `stride`-th row and column, from the first.
    Subsample {
        /// Distance between the rows and columns that are kept.
        stride: [usize; 2],
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
            Op::Relu => "relu",
            Op::Clamp { .. } => "clamp",
            Op::Smooth(f) => f.names()[0],
            Op::PRelu(_) => "prelu",
            Op::MaxPool(_) => "max_pool",
            Op::AvgPool { .. } => "avg_pool",
            Op::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Op::Add => "add",
            Op::Flatten => "flatten",
            Op::Concat => "concat",
            Op::Subsample { .. } => "subsample",
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
            | Op::MaxPool(_)
            | Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Add
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::PadChannels { .. } => None,
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
            Op::Input => unreachable_input(),
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
            Op::AdaptiveAvgPool { out: [h, w] } => {
                if *h == 0 || *w == 0 {
                    return Err(Error::model("an adaptive pool to nothing"));
                }
                Ok(Shape::new(x.c, *h, *w))
            }
            Op::Add => match inputs.iter().find(|&&s| s != x) {
                Some(odd) => Err(Error::model(format!("cannot add {x} and {odd}"))),
                None => Ok(x),
            },
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

fn unreachable_input() -> Result<Shape> {
    Err(Error::model("the input's shape is given, not computed"))
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
