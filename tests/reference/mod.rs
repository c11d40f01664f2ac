//! Every operation and its vector-Jacobian product, in double precision, straight from the definitions.
//!
//! Loops over dense `[n, c, h, w]` arrays and nothing clever: what devices compute is compared with this, and this is
//! compared with finite differences.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod bounds;
pub mod cases;

use verilume::graph::{Affine, BatchNorm, Conv, Graph, Linear, NodeId, Op, Smooth, Standardise};
use verilume::tensor::{Data, Interpolation, Resize, Shape, Tensor, Window};

/// A batch of feature maps, `data` in order n, c, h, w.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Shape of one item.
    pub shape: Shape,
    /// The numbers of all items.
    pub data: Vec<f64>,
}

impl Dense {
    pub fn new(shape: Shape, data: Vec<f64>) -> Self {
        assert!(!shape.is_empty() && data.len().is_multiple_of(shape.len()), "{} numbers for {shape}", data.len());
        Self { shape, data }
    }

    pub fn zeros(n: usize, shape: Shape) -> Self {
        Self::new(shape, vec![0.0; n * shape.len()])
    }

    /// From the coordinates `(n, c, y, x)` of each element.
    pub fn from_fn(n: usize, shape: Shape, f: impl Fn(usize, usize, usize, usize) -> f64) -> Self {
        let mut out = Self::zeros(n, shape);
        out.for_each_index(|out, b, c, y, x| *out.at_mut(b, c, y, x) = f(b, c, y, x));
        out
    }

    /// From `[n, c, h, w]`, or `[n, c]` for vectors.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        let shape = match *tensor.dims() {
            [_, c, h, w] => Shape::new(c, h, w),
            [_, c] => Shape::vector(c),
            ref dims => panic!("not a batch of feature maps: {dims:?}"),
        };
        Self::new(shape, tensor.to_f64().into_owned())
    }

    /// As `[n, c, h, w]` in double precision.
    pub fn to_tensor(&self) -> Tensor {
        let [c, h, w] = self.shape.dims();
        Tensor::new([self.n(), c, h, w], Data::F64(self.data.clone())).unwrap()
    }

    /// Items.
    pub fn n(&self) -> usize {
        self.data.len() / self.shape.len()
    }

    /// One item as a batch of one.
    pub fn item(&self, n: usize) -> Self {
        let size = self.shape.len();
        Self::new(self.shape, self.data[n * size..(n + 1) * size].to_vec())
    }

    fn position(&self, n: usize, c: usize, y: usize, x: usize) -> usize {
        assert!(c < self.shape.c && y < self.shape.h && x < self.shape.w);
        ((n * self.shape.c + c) * self.shape.h + y) * self.shape.w + x
    }

    pub fn at(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        self.data[self.position(n, c, y, x)]
    }

    pub fn at_mut(&mut self, n: usize, c: usize, y: usize, x: usize) -> &mut f64 {
        let position = self.position(n, c, y, x);
        &mut self.data[position]
    }

    fn for_each_index(&mut self, mut f: impl FnMut(&mut Self, usize, usize, usize, usize)) {
        for n in 0..self.n() {
            for c in 0..self.shape.c {
                for y in 0..self.shape.h {
                    for x in 0..self.shape.w {
                        f(self, n, c, y, x);
                    }
                }
            }
        }
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(self.shape, self.data.iter().map(|&v| f(v)).collect())
    }

    /// Elementwise; shapes must agree.
    pub fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        assert_eq!((self.shape, self.data.len()), (other.shape, other.data.len()));
        Self::new(self.shape, self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect())
    }

    /// Inner product over the whole batch.
    pub fn dot(&self, other: &Self) -> f64 {
        self.zip(other, |a, b| a * b).data.iter().sum()
    }

    /// Fails the test where nothing could be learnt from comparing with this.
    pub fn assert_informative(&self, what: &str) {
        assert!(self.data.iter().any(|&v| v != 0.0), "{what}: the reference is all zeros");
    }
}

/// What a ReLU (and a clamp, as a ReLU with two gates) does with what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReluRule {
    /// The gradient.
    Vjp,
    /// Guided backprop: only what is positive, gated by the forward.
    Guided,
    /// Deconvnet: only what is positive, not gated.
    Deconvnet,
}

impl ReluRule {
    pub const ALL: [ReluRule; 3] = [ReluRule::Vjp, ReluRule::Guided, ReluRule::Deconvnet];

    fn back(self, open: bool, up: f64) -> f64 {
        match self {
            ReluRule::Vjp if open => up,
            ReluRule::Guided if open => up.max(0.0),
            ReluRule::Deconvnet => up.max(0.0),
            ReluRule::Vjp | ReluRule::Guided => 0.0,
        }
    }
}

/// Position in the input of tap `k` of window `o` on one axis, or `None` in the padding.
fn tap(window: &Window, axis: usize, pads: [[usize; 2]; 2], o: usize, k: usize, extent: usize) -> Option<usize> {
    (o * window.stride[axis] + k * window.dilation[axis]).checked_sub(pads[axis][0]).filter(|&i| i < extent)
}

/// Positions of a window's taps inside the input, in order.
fn taps(window: &Window, input: Shape, y: usize, x: usize) -> Vec<[usize; 2]> {
    let pads = window.pads(input.h, input.w);
    let mut inside = Vec::new();
    for ky in 0..window.kernel[0] {
        for kx in 0..window.kernel[1] {
            let iy = tap(window, 0, pads, y, ky, input.h);
            let ix = tap(window, 1, pads, x, kx, input.w);
            if let (Some(iy), Some(ix)) = (iy, ix) {
                inside.push([iy, ix]);
            }
        }
    }
    inside
}

/// Calls `f(n, [k, y, x], [c, y, x], w)` for every product of a convolution: item, output, input, weight.
fn for_each_product(
    conv: &Conv,
    input: Shape,
    out: Shape,
    n: usize,
    mut f: impl FnMut(usize, [usize; 3], [usize; 3], f64),
) {
    let [k, c, kh, kw] = conv.weight.dims();
    let weight = conv.weight.to_f64();
    let pads = conv.window.pads(input.h, input.w);
    let group_out = k / conv.groups;
    for b in 0..n {
        for ko in 0..k {
            for y in 0..out.h {
                for x in 0..out.w {
                    for ci in 0..c {
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let iy = tap(&conv.window, 0, pads, y, ky, input.h);
                                let ix = tap(&conv.window, 1, pads, x, kx, input.w);
                                if let (Some(iy), Some(ix)) = (iy, ix) {
                                    let channel = (ko / group_out) * c + ci;
                                    let w = weight[((ko * c + ci) * kh + ky) * kw + kx];
                                    f(b, [ko, y, x], [channel, iy, ix], w);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn conv_forward(conv: &Conv, x: &Dense, out: Shape) -> Dense {
    let mut z = Dense::from_fn(x.n(), out, |_, k, _, _| conv.bias.as_ref().map_or(0.0, |b| b[k]));
    for_each_product(conv, x.shape, out, x.n(), |n, o, i, w| {
        *z.at_mut(n, o[0], o[1], o[2]) += w * x.at(n, i[0], i[1], i[2]);
    });
    z
}

fn conv_vjp(conv: &Conv, input: Shape, up: &Dense) -> Dense {
    let mut dx = Dense::zeros(up.n(), input);
    for_each_product(conv, input, up.shape, up.n(), |n, o, i, w| {
        *dx.at_mut(n, i[0], i[1], i[2]) += w * up.at(n, o[0], o[1], o[2]);
    });
    dx
}

fn linear_forward(linear: &Linear, x: &Dense) -> Dense {
    let (weight, c) = (linear.weight.to_f64(), x.shape.c);
    Dense::from_fn(x.n(), Shape::vector(linear.weight.rows()), |n, k, _, _| {
        let products: f64 = (0..c).map(|c_| weight[k * c + c_] * x.at(n, c_, 0, 0)).sum();
        products + linear.bias.as_ref().map_or(0.0, |b| b[k])
    })
}

fn linear_vjp(linear: &Linear, input: Shape, up: &Dense) -> Dense {
    let (weight, c) = (linear.weight.to_f64(), input.c);
    Dense::from_fn(up.n(), input, |n, c_, _, _| {
        (0..linear.weight.rows()).map(|k| weight[k * c + c_] * up.at(n, k, 0, 0)).sum()
    })
}

fn batch_norm_slope(b: &BatchNorm, c: usize) -> f64 {
    b.gamma[c] / (b.variance[c] + b.eps).sqrt()
}

/// Where the maximum of a window lies: the first of equal elements; a NaN wins over any number.
fn winner(window: &Window, x: &Dense, n: usize, c: usize, y: usize, column: usize) -> [usize; 2] {
    let inside = taps(window, x.shape, y, column);
    let mut best = *inside.first().expect("every window holds an element");
    for &at in &inside[1..] {
        let (old, new) = (x.at(n, c, best[0], best[1]), x.at(n, c, at[0], at[1]));
        if new > old || (new.is_nan() && !old.is_nan()) {
            best = at;
        }
    }
    best
}

/// Elements that an average divides by, as PyTorch counts them: all taps that lie inside the input or, if padding
/// counts, inside the padded input; what a last, partial window lacks beyond the padding never counts.
fn divisor(window: &Window, count_padding: bool, input: Shape, y: usize, x: usize) -> f64 {
    if !count_padding {
        return taps(window, input, y, x).len() as f64;
    }
    let pads = window.pads(input.h, input.w);
    let axis = |a: usize, o: usize, extent: usize| {
        let padded = pads[a][0] + extent + pads[a][1];
        (0..window.kernel[a]).filter(|k| o * window.stride[a] + k * window.dilation[a] < padded).count()
    };
    (axis(0, y, input.h) * axis(1, x, input.w)) as f64
}

/// First row and row past the last of bin `o` of `out`, on an axis of `n`.
fn bin(o: usize, out: usize, n: usize) -> std::ops::Range<usize> {
    o * n / out..((o + 1) * n).div_ceil(out)
}

/// Positions of the elements that an average pool adds up, and what it divides by.
fn averaged(op: &Op, input: Shape, y: usize, x: usize) -> (Vec<[usize; 2]>, f64) {
    match op {
        Op::AvgPool { window, count_padding } => {
            (taps(window, input, y, x), divisor(window, *count_padding, input, y, x))
        }
        Op::AdaptiveAvgPool { out } => {
            let columns = bin(x, out[1], input.w);
            let all: Vec<_> = bin(y, out[0], input.h).flat_map(|iy| columns.clone().map(move |ix| [iy, ix])).collect();
            let count = all.len() as f64;
            (all, count)
        }
        _ => panic!("{} is no average", op.kind()),
    }
}

/// The number of `d` that element `(n, c, y, x)` of a larger map reads.
fn repeated(d: &Dense, n: usize, c: usize, y: usize, x: usize) -> f64 {
    let one = d.shape.plane() == 1;
    d.at(n, if d.shape.c == 1 { 0 } else { c }, if one { 0 } else { y }, if one { 0 } else { x })
}

/// The sum of a larger map over everything that reads the same number of a map of `shape`.
fn summed(all: &Dense, shape: Shape) -> Dense {
    let (mut out, mut all, one) = (Dense::zeros(all.n(), shape), all.clone(), shape.plane() == 1);
    all.for_each_index(|all, n, c, y, x| {
        let at = (if shape.c == 1 { 0 } else { c }, if one { 0 } else { y }, if one { 0 } else { x });
        *out.at_mut(n, at.0, at.1, at.2) += all.at(n, c, y, x);
    });
    out
}

/// Softmax over the channels of each group at each position.
fn softmax(x: &Dense, groups: usize) -> Dense {
    let norm = Standardise { groups, across_positions: false, eps: 1.0 };
    let powers = x.map(f64::exp);
    powers.zip(&over_group(&norm, &powers, |sum, v| sum + v), |power, sum| power / sum)
}

/// For each element `f` folded over all elements of its group, beginning with zero.
fn over_group(norm: &Standardise, d: &Dense, f: impl Fn(f64, f64) -> f64) -> Dense {
    let size = d.shape.c / norm.groups;
    let key = |n: usize, c: usize, y: usize, x: usize| {
        let at = if norm.across_positions { 0 } else { y * d.shape.w + x };
        (n * norm.groups + c / size) * d.shape.plane() + at
    };
    let mut folded = vec![0.0; d.n() * norm.groups * d.shape.plane()];
    d.clone().for_each_index(|d, n, c, y, x| {
        let at = key(n, c, y, x);
        folded[at] = f(folded[at], d.at(n, c, y, x));
    });
    Dense::from_fn(d.n(), d.shape, |n, c, y, x| folded[key(n, c, y, x)])
}

/// The mean of each element's group.
fn group_mean(norm: &Standardise, d: &Dense) -> Dense {
    let count = norm.count(d.shape) as f64;
    over_group(norm, d, |sum, v| sum + v).map(|sum| sum / count)
}

/// Numbers less their mean, and inverse deviations.
fn moments(norm: &Standardise, d: &Dense) -> [Dense; 2] {
    let centred = d.zip(&group_mean(norm, d), |v, mean| v - mean);
    let variance = group_mean(norm, &centred.map(|v| v * v));
    [centred, variance.map(|v| 1.0 / (v + norm.eps).sqrt())]
}

/// The source of an element of an axis that begins with element `first` of the source.
fn shifted(o: usize, first: isize, extent: usize) -> Option<usize> {
    o.checked_add_signed(first).filter(|&i| i < extent)
}

/// For an operation that moves numbers, the element of the input of shape `from` that lies at `[c, y, x]`.
fn source(op: &Op, from: Shape, [c, y, x]: [usize; 3]) -> Option<[usize; 3]> {
    match op {
        Op::Slice { first, .. } => Some([c + first, y, x]),
        Op::Shuffle { groups } => Some([c % groups * (from.c / groups) + c / groups, y, x]),
        Op::Pad { rows, columns } => Some([c, shifted(y, -rows[0], from.h)?, shifted(x, -columns[0], from.w)?]),
        _ => panic!("{} moves nothing", op.kind()),
    }
}

/// Elements of an axis of `n` and their weights, of which element `o` of `out` is the sum.
fn blended(interpolation: Interpolation, n: usize, out: usize, o: usize) -> Vec<(usize, f64)> {
    let at = match interpolation {
        Interpolation::Nearest => return vec![(o * n / out, 1.0)],
        Interpolation::Linear => (n as f64 / out as f64 * (o as f64 + 0.5) - 0.5).clamp(0.0, (n - 1) as f64),
        Interpolation::LinearAligned if out == 1 => 0.0,
        Interpolation::LinearAligned => ((n - 1) * o) as f64 / (out - 1) as f64,
        Interpolation::Reflected | Interpolation::Replicated => {
            let (last, at) = (n as isize - 1, o as isize - ((out - n) / 2) as isize);
            let mirrored = if at < 0 {
                -at
            } else if at > last {
                2 * last - at
            } else {
                at
            };
            let nearest = at.clamp(0, last);
            let source = if interpolation == Interpolation::Reflected { mirrored } else { nearest };
            return vec![(source as usize, 1.0)];
        }
    };
    // The hat function around each element.
    (0..n).map(|i| (i, (1.0 - (at - i as f64).abs()).max(0.0))).filter(|(_, w)| *w > 0.0).collect()
}

/// Elements of the input and their weights, of which the element at `(y, x)` of a resized map is the sum.
fn resized(resize: &Resize, input: Shape, out: Shape, y: usize, x: usize) -> Vec<([usize; 2], f64)> {
    let columns = blended(resize.interpolation, input.w, out.w, x);
    let rows = blended(resize.interpolation, input.h, out.h, y).into_iter();
    rows.flat_map(|(iy, a)| columns.iter().map(move |&(ix, b)| ([iy, ix], a * b)).collect::<Vec<_>>()).collect()
}

/// The output of one operation for `inputs`.
pub fn op_forward(op: &Op, inputs: &[&Dense]) -> Dense {
    let shapes: Vec<Shape> = inputs.iter().map(|d| d.shape).collect();
    let out = op.output(&shapes).unwrap();
    let x = inputs[0];
    match op {
        Op::Conv(conv) => conv_forward(conv, x, out),
        Op::Linear(linear) => linear_forward(linear, x),
        Op::BatchNorm(b) => Dense::from_fn(x.n(), out, |n, c, y, col| {
            (x.at(n, c, y, col) - b.mean[c]) * batch_norm_slope(b, c) + b.beta[c]
        }),
        Op::Affine(a) => Dense::from_fn(x.n(), out, |n, c, y, col| {
            let at = |v: &[f64]| match v.len() {
                1 => v[0],
                len if len == out.c => v[c],
                _ => v[(c * out.h + y) * out.w + col],
            };
            x.at(n, c, y, col) * at(&a.scale) + at(&a.shift)
        }),
        Op::Standardise(norm) => {
            let [centred, scale] = moments(norm, x);
            centred.zip(&scale, |v, scale| v * scale)
        }
        Op::Mul => {
            Dense::from_fn(x.n(), out, |n, c, y, col| repeated(x, n, c, y, col) * repeated(inputs[1], n, c, y, col))
        }
        Op::Divide => {
            Dense::from_fn(x.n(), out, |n, c, y, col| repeated(x, n, c, y, col) / repeated(inputs[1], n, c, y, col))
        }
        Op::Softmax { groups } => softmax(x, *groups),
        Op::Reduce(reduce) => {
            let factor = if reduce.mean { out.len() as f64 / x.shape.len() as f64 } else { 1.0 };
            summed(x, out).map(|v| v * factor)
        }
        Op::GlobalMaxPool => {
            let whole = Window { kernel: [x.shape.h, x.shape.w], ..Window::square(1, 1, 0) };
            op_forward(&Op::MaxPool(whole), inputs)
        }
        Op::ChannelMax => Dense::from_fn(x.n(), out, |n, _, y, col| x.at(n, largest_channel(x, n, y, col), y, col)),
        Op::Smooth(f) => x.map(|v| scalar(*f, v)[0]),
        Op::Resize(resize) => Dense::from_fn(x.n(), out, |n, c, y, col| {
            resized(resize, x.shape, out, y, col).iter().map(|&([iy, ix], w)| w * x.at(n, c, iy, ix)).sum()
        }),
        Op::Slice { .. } | Op::Shuffle { .. } | Op::Pad { .. } => Dense::from_fn(x.n(), out, |n, c, y, col| {
            source(op, x.shape, [c, y, col]).map_or(0.0, |[c, y, col]| x.at(n, c, y, col))
        }),
        Op::Relu => x.map(|v| if v < 0.0 { 0.0 } else { v }),
        Op::Clamp { lo, hi } => x.map(|v| v.clamp(*lo, *hi)),
        Op::MaxPool(window) => Dense::from_fn(x.n(), out, |n, c, y, col| {
            let [iy, ix] = winner(window, x, n, c, y, col);
            x.at(n, c, iy, ix)
        }),
        Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } => Dense::from_fn(x.n(), out, |n, c, y, col| {
            let (positions, divisor) = averaged(op, x.shape, y, col);
            positions.iter().map(|&[iy, ix]| x.at(n, c, iy, ix)).sum::<f64>() / divisor
        }),
        Op::Add => Dense::from_fn(x.n(), out, |n, c, y, col| inputs.iter().map(|d| repeated(d, n, c, y, col)).sum()),
        Op::Flatten => Dense::new(out, x.data.clone()),
        Op::Concat => {
            let items = (0..x.n()).flat_map(|n| inputs.iter().flat_map(move |d| d.item(n).data));
            Dense::new(out, items.collect())
        }
        Op::Subsample { stride } => {
            Dense::from_fn(x.n(), out, |n, c, y, col| x.at(n, c, y * stride[0], col * stride[1]))
        }
        Op::PadChannels { before, .. } => Dense::from_fn(x.n(), out, |n, c, y, col| {
            c.checked_sub(*before).filter(|&c| c < x.shape.c).map_or(0.0, |c| x.at(n, c, y, col))
        }),
        _ => panic!("no reference for {}", op.kind()),
    }
}

/// The first of the largest channels of a position.
fn largest_channel(x: &Dense, n: usize, y: usize, col: usize) -> usize {
    (1..x.shape.c).fold(0, |best, c| if x.at(n, c, y, col) > x.at(n, best, y, col) { c } else { best })
}

/// Value and slope of a function, by the platform's.
pub fn scalar(f: Smooth, x: f64) -> [f64; 2] {
    match f {
        Smooth::Exp => [x.exp(); 2],
        Smooth::Log => [x.ln(), 1.0 / x],
        Smooth::Abs => [x.abs(), if x == 0.0 { 0.0 } else { x.signum() }],
        Smooth::Power { exponent } if x == 0.0 && exponent < 1.0 => [x.powf(exponent), 0.0],
        Smooth::Power { exponent } => [x.powf(exponent), exponent * x.powf(exponent - 1.0)],
        _ => panic!("no reference for {f:?}"),
    }
}

/// What `up` at the output of one operation becomes at each of its inputs.
pub fn op_vjp(op: &Op, inputs: &[&Dense], up: &Dense, rule: ReluRule) -> Vec<Dense> {
    let x = inputs[0];
    let mut dx = Dense::zeros(x.n(), x.shape);
    let mut up_indices = up.clone();
    match op {
        Op::Conv(conv) => dx = conv_vjp(conv, x.shape, up),
        Op::Linear(linear) => dx = linear_vjp(linear, x.shape, up),
        Op::BatchNorm(b) => {
            dx = Dense::from_fn(x.n(), x.shape, |n, c, y, col| up.at(n, c, y, col) * batch_norm_slope(b, c));
        }
        Op::Relu => dx = x.zip(up, |z, up| rule.back(z > 0.0, up)),
        Op::Clamp { lo, hi } => dx = x.zip(up, |z, up| rule.back(*lo < z && z < *hi, up)),
        Op::MaxPool(window) => up_indices.for_each_index(|up, n, c, y, col| {
            let [iy, ix] = winner(window, x, n, c, y, col);
            *dx.at_mut(n, c, iy, ix) += up.at(n, c, y, col);
        }),
        Op::AvgPool { .. } | Op::AdaptiveAvgPool { .. } => up_indices.for_each_index(|up, n, c, y, col| {
            let (positions, divisor) = averaged(op, x.shape, y, col);
            for [iy, ix] in positions {
                *dx.at_mut(n, c, iy, ix) += up.at(n, c, y, col) / divisor;
            }
        }),
        Op::Add => return inputs.iter().map(|d| summed(up, d.shape)).collect(),
        Op::Mul => {
            let times = |other: &Dense| {
                Dense::from_fn(up.n(), up.shape, |n, c, y, col| up.at(n, c, y, col) * repeated(other, n, c, y, col))
            };
            return vec![summed(&times(inputs[1]), x.shape), summed(&times(x), inputs[1].shape)];
        }
        Op::Softmax { groups } => {
            let y = softmax(x, *groups);
            let norm = Standardise { groups: *groups, across_positions: false, eps: 1.0 };
            let along = over_group(&norm, &up.zip(&y, |up, y| up * y), |sum, v| sum + v);
            dx = up.zip(&along, |up, along| up - along).zip(&y, |d, y| d * y);
        }
        Op::Divide => {
            let by = |n, c, y, col| repeated(inputs[1], n, c, y, col);
            let over = Dense::from_fn(up.n(), up.shape, |n, c, y, col| up.at(n, c, y, col) / by(n, c, y, col));
            let under = Dense::from_fn(up.n(), up.shape, |n, c, y, col| {
                -up.at(n, c, y, col) * repeated(x, n, c, y, col) / (by(n, c, y, col) * by(n, c, y, col))
            });
            return vec![summed(&over, x.shape), summed(&under, inputs[1].shape)];
        }
        Op::Reduce(reduce) => {
            let factor = if reduce.mean { up.shape.len() as f64 / x.shape.len() as f64 } else { 1.0 };
            dx = Dense::from_fn(x.n(), x.shape, |n, c, y, col| repeated(up, n, c, y, col) * factor);
        }
        Op::Affine(a) => {
            let scale = |c: usize| a.scale[if a.scale.len() == 1 { 0 } else { c }];
            dx = Dense::from_fn(x.n(), x.shape, |n, c, y, col| up.at(n, c, y, col) * scale(c));
        }
        Op::Standardise(norm) => {
            let [centred, scale] = moments(norm, x);
            let own = centred.zip(&scale, |v, scale| v * scale);
            let along = group_mean(norm, &up.zip(&own, |up, own| up * own));
            let less = up.zip(&group_mean(norm, up), |up, mean| up - mean);
            dx = less
                .zip(&own.zip(&along, |own, along| own * along), |less, v| less - v)
                .zip(&scale, |v, scale| v * scale);
        }
        Op::GlobalMaxPool => {
            let whole = Window { kernel: [x.shape.h, x.shape.w], ..Window::square(1, 1, 0) };
            return op_vjp(&Op::MaxPool(whole), inputs, up, rule);
        }
        Op::ChannelMax => up_indices.for_each_index(|up, n, _, y, col| {
            *dx.at_mut(n, largest_channel(x, n, y, col), y, col) += up.at(n, 0, y, col);
        }),
        Op::Smooth(f) => dx = x.zip(up, |v, up| scalar(*f, v)[1] * up),
        Op::Resize(resize) => up_indices.for_each_index(|up, n, c, y, col| {
            for ([iy, ix], w) in resized(resize, x.shape, up.shape, y, col) {
                *dx.at_mut(n, c, iy, ix) += w * up.at(n, c, y, col);
            }
        }),
        Op::Slice { .. } | Op::Shuffle { .. } | Op::Pad { .. } => up_indices.for_each_index(|up, n, c, y, col| {
            if let Some([ic, iy, ix]) = source(op, x.shape, [c, y, col]) {
                *dx.at_mut(n, ic, iy, ix) += up.at(n, c, y, col);
            }
        }),
        Op::Flatten => dx = Dense::new(x.shape, up.data.clone()),
        Op::Concat => {
            let firsts = inputs.iter().scan(0, |next, d| {
                *next += d.shape.c;
                Some(*next - d.shape.c)
            });
            let part =
                |first: usize, d: &Dense| Dense::from_fn(d.n(), d.shape, |n, c, y, col| up.at(n, first + c, y, col));
            return firsts.zip(inputs).map(|(first, d)| part(first, d)).collect();
        }
        Op::Subsample { stride } => up_indices.for_each_index(|up, n, c, y, col| {
            *dx.at_mut(n, c, y * stride[0], col * stride[1]) += up.at(n, c, y, col);
        }),
        Op::PadChannels { before, .. } => {
            dx = Dense::from_fn(x.n(), x.shape, |n, c, y, col| up.at(n, before + c, y, col));
        }
        _ => panic!("no reference for {}", op.kind()),
    }
    vec![dx]
}

/// Outputs of all nodes, in order.
pub fn forward(graph: &Graph, x: &Dense) -> Vec<Dense> {
    assert_eq!(graph.input_shape(), x.shape);
    let mut outputs = vec![x.clone()];
    for node in &graph.nodes()[1..] {
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        outputs.push(op_forward(&node.op, &inputs));
    }
    outputs
}

/// What `seed` at the output of `node` becomes at every node's output (zeros where nothing arrives).
pub fn backward(graph: &Graph, outputs: &[Dense], node: NodeId, seed: Dense, rule: ReluRule) -> Vec<Dense> {
    backward_with(graph, outputs, node, seed, |op, inputs, up| op_vjp(op, inputs, up, rule))
}

/// As [`backward`] with magnitudes for weights and seed: the sums of |products| that bound its rounding error.
pub fn backward_magnitude(graph: &Graph, outputs: &[Dense], node: NodeId, seed: &Dense, rule: ReluRule) -> Vec<Dense> {
    backward_with(graph, outputs, node, seed.map(f64::abs), |op, inputs, up| vjp_magnitude(op, inputs, up, rule))
}

fn backward_with(
    graph: &Graph,
    outputs: &[Dense],
    from: NodeId,
    seed: Dense,
    share: impl Fn(&Op, &[&Dense], &Dense) -> Vec<Dense>,
) -> Vec<Dense> {
    let mut back: Vec<Dense> = outputs.iter().map(|d| Dense::zeros(d.n(), d.shape)).collect();
    assert_eq!((back[from.index()].shape, back[from.index()].n()), (seed.shape, seed.n()));
    back[from.index()] = seed;
    for id in graph.ids().skip(1).rev().filter(|&id| id <= from) {
        let node = graph.node(id);
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let parts = share(&node.op, &inputs, &back[id.index()]);
        for (input, part) in node.inputs.iter().zip(parts) {
            back[input.index()] = back[input.index()].zip(&part, |a, b| a + b);
        }
    }
    back
}

/// For each of [`op_vjp`]'s numbers the sum of |products| that bounds its rounding error; `up` holds magnitudes.
pub fn vjp_magnitude(op: &Op, inputs: &[&Dense], up: &Dense, rule: ReluRule) -> Vec<Dense> {
    let absolute: Vec<Dense> = inputs.iter().map(|d| d.map(f64::abs)).collect();
    let sizes: Vec<&Dense> = absolute.iter().collect();
    match op {
        // Products and quotients have their factors among the inputs.
        Op::Mul => op_vjp(op, &sizes, up, rule),
        Op::Divide => op_vjp(op, &sizes, up, rule).iter().map(|d| d.map(f64::abs)).collect(),
        Op::Smooth(_) => op_vjp(op, inputs, up, rule).iter().map(|d| d.map(f64::abs)).collect(),
        Op::Softmax { groups } => {
            let y = softmax(inputs[0], *groups);
            let norm = Standardise { groups: *groups, across_positions: false, eps: 1.0 };
            let along = over_group(&norm, &up.zip(&y, |up, y| up * y), |sum, v| sum + v);
            vec![up.zip(&along, |up, along| up + along).zip(&y, |d, y| d * y)]
        }
        Op::Standardise(norm) => {
            let [scale, most, own] = standardised(norm, inputs[0]);
            let signal = most_of(norm, up);
            // The errors of output and deviation weigh as their sizes do.
            let rest =
                scale.zip(&most, |scale, most| scale * most).zip(&own, |size, own| 1.0 + 3.0 * size * (1.0 + own));
            let sum = own.zip(&signal, |own, signal| signal * (1.0 + own * own));
            vec![sum.zip(&scale, |sum, scale| sum * scale).zip(&rest, |sum, rest| sum * rest)]
        }
        _ => op_vjp(&op_magnitude(op), inputs, up, rule),
    }
}

/// For each output of `op` the sum of |products| that bounds its rounding error.
pub fn forward_magnitude(op: &Op, inputs: &[&Dense]) -> Dense {
    let absolute: Vec<Dense> = inputs.iter().map(|d| d.map(f64::abs)).collect();
    if let Op::Softmax { groups } = op {
        return softmax(inputs[0], *groups);
    }
    if let Op::Smooth(_) = op {
        return op_forward(op, inputs).map(f64::abs);
    }
    if let Op::Standardise(norm) = op {
        let [scale, most, own] = standardised(norm, inputs[0]);
        return scale.zip(&most, |scale, most| scale * most).zip(&own, |size, own| size * (1.0 + own * own));
    }
    op_forward(&op_magnitude(op), &absolute.iter().collect::<Vec<_>>())
}

/// The largest magnitude in each element's group.
fn most_of(norm: &Standardise, d: &Dense) -> Dense {
    over_group(norm, d, |most, v| most.max(v.abs()))
}

/// What bounds the errors of a standardisation of `x`: its inverse deviations, and the largest of `x` and of its output in
/// each group. Of one number the mean is that number, so that nothing is rounded.
fn standardised(norm: &Standardise, x: &Dense) -> [Dense; 3] {
    let [centred, scale] = moments(norm, x);
    let own = most_of(norm, &centred.zip(&scale, |v, scale| v * scale));
    let scale = if norm.count(x.shape) == 1 { scale.map(|_| 0.0) } else { scale };
    [scale, most_of(norm, x), own]
}

/// Whether `op` only selects and moves numbers, so that nothing is rounded.
pub fn forward_is_exact(op: &Op) -> bool {
    matches!(
        op,
        Op::Relu
            | Op::Clamp { .. }
            | Op::MaxPool(_)
            | Op::GlobalMaxPool
            | Op::ChannelMax
            | Op::Slice { .. }
            | Op::Shuffle { .. }
            | Op::Pad { .. }
            | Op::Flatten
            | Op::Concat
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
    )
}

/// Whether `op` divides, so that integers do not stay integers.
pub fn op_divides(op: &Op) -> bool {
    matches!(
        op,
        Op::AvgPool { .. }
            | Op::AdaptiveAvgPool { .. }
            | Op::Standardise(_)
            | Op::Resize(_)
            | Op::Reduce(_)
            | Op::Divide
            | Op::Softmax { .. }
    )
}

/// `op` with every trained number replaced by its magnitude: on magnitudes it gives the sum of |products| that bounds
/// the rounding error of `op`, and its vector-Jacobian product gives the same for the backward pass.
pub fn op_magnitude(op: &Op) -> Op {
    let absolute = |b: &std::sync::Arc<[f64]>| b.iter().map(|v| v.abs()).collect();
    match op {
        Op::Conv(conv) => Op::Conv(Conv {
            weight: weight_f64(conv.weight.dims(), &conv.weight.to_f64().iter().map(|w| w.abs()).collect::<Vec<_>>()),
            bias: conv.bias.as_ref().map(absolute),
            ..conv.clone()
        }),
        Op::Linear(linear) => Op::Linear(Linear {
            weight: weight_f64(
                linear.weight.dims(),
                &linear.weight.to_f64().iter().map(|w| w.abs()).collect::<Vec<_>>(),
            ),
            bias: linear.bias.as_ref().map(absolute),
        }),
        // |x| |slope| + |mean| |slope| + |beta|.
        Op::BatchNorm(b) => Op::BatchNorm(BatchNorm {
            gamma: absolute(&b.gamma),
            beta: absolute(&b.beta),
            mean: b.mean.iter().map(|m| -m.abs()).collect(),
            ..b.clone()
        }),
        Op::Affine(a) => Op::Affine(Affine { scale: absolute(&a.scale), shift: absolute(&a.shift) }),
        other => other.clone(),
    }
}

/// A weight of exactly these numbers.
pub fn weight_f64(dims: [usize; 4], values: &[f64]) -> verilume::graph::Weight {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    verilume::graph::Weight::stored(dims, std::sync::Arc::new(bytes), 0, verilume::graph::Encoding::F64).unwrap()
}

/// Most roundings on the way to one output of `op`, forward or backward: terms of its longest sum, and the steps of
/// each term.
pub fn op_terms(op: &Op, inputs: &[&Dense], out: &Dense) -> usize {
    let x = inputs[0].shape;
    match op {
        Op::Conv(conv) => {
            let [k, c, kh, kw] = conv.weight.dims();
            kh * kw * c.max(k / conv.groups) + 1
        }
        Op::Linear(linear) => linear.weight.rows().max(x.c) + 1,
        Op::BatchNorm(_) => 4,
        Op::MaxPool(window) => window.taps(),
        Op::AvgPool { window, .. } => window.taps() + 1,
        // A bin of the input, or all the bins that share one element.
        Op::AdaptiveAvgPool { .. } => {
            let axis = |n: usize, o: usize| (n.div_ceil(o) + 1).max(o.div_ceil(n) + 1);
            axis(x.h, out.shape.h) * axis(x.w, out.shape.w) + 1
        }
        Op::Add | Op::Concat => inputs.len() + out.shape.len() / x.len(),
        // The adjoint sums over what an operand is repeated for.
        Op::Mul => 2 + out.shape.len() / inputs.iter().map(|d| d.shape.len()).min().unwrap_or(1),
        Op::Affine(_) => 2,
        Op::Standardise(norm) => 2 * norm.count(x) + 8,
        Op::GlobalMaxPool => x.plane(),
        Op::ChannelMax => x.c,
        Op::Reduce(_) => x.len() / out.shape.len() + 2,
        // Functions are within a few units.
        Op::Smooth(_) => 8,
        Op::Softmax { .. } => 2 * x.c + 16,
        Op::Divide => 4 + out.shape.len() / inputs.iter().map(|d| d.shape.len()).min().unwrap_or(1),
        // Two neighbours forward; back, all that lie between two elements. The weights are rounded too.
        Op::Resize(_) => 16 + 4 * (out.shape.h.div_ceil(x.h) + 1) * (out.shape.w.div_ceil(x.w) + 1),
        _ => 1,
    }
}
