//! What kernels are tried on: one operation each, at the shapes where kernels break.

use std::sync::Arc;

use crate::Result;
use crate::device::{Boxes, GridMask, Masks, Perturbation, Rectangle};
use crate::graph::{
    Affine, BatchNorm, Conv, Encoding, Graph, GraphBuilder, Linear, NodeId, Op, Smooth, Standardise, Weight,
};
use crate::program::{Builder, Elementwise, Range, Score, Statistic, Value};
use crate::tensor::{Interpolation, Padding, Precision, Resize, ResizeTo, Shape, Tensor, Window};

/// Which numbers fill inputs and weights; all of them are single-precision numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// So small that every sum of products is exact.
    Integers,
    /// Uniform in [-1, 1).
    Reals,
}

/// Where numbers come from.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    pub numbers: Numbers,
    /// Whether their signs are taken away: sums of magnitudes bound rounding errors.
    pub magnitudes: bool,
}

impl Fill {
    /// `count` numbers: integers from `-largest` to `largest`, or reals. Another salt gives other numbers.
    pub fn numbers(self, salt: u64, count: usize, largest: u64) -> Vec<f64> {
        let number = |i: usize| {
            let mut z =
                salt.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(i as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z ^= z >> 31;
            let number = match self.numbers {
                Numbers::Integers => (z % (2 * largest + 1)) as f64 - largest as f64,
                Numbers::Reals => ((z >> 40) as f64 - 8_388_608.0) / 8_388_608.0,
            };
            if self.magnitudes { number.abs() } else { number }
        };
        (0..count).map(number).collect()
    }

    /// `n` feature maps.
    pub fn maps(self, salt: u64, n: usize, shape: Shape) -> Result<Tensor> {
        let [c, h, w] = shape.dims();
        Tensor::rounded([n, c, h, w], self.numbers(salt, n * shape.len(), 8), Precision::F32)
    }

    fn weight(self, dims: [usize; 4]) -> Result<Weight> {
        let values = self.numbers(11, dims.iter().product(), 3);
        let bytes: Vec<u8> = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
        Weight::stored(dims, Arc::new(bytes), 0, Encoding::F32)
    }
}

/// Writes an operation down.
type MakeOp = Box<dyn Fn(Fill) -> Result<Op>>;
/// Writes a program of two loaded values.
type Write = fn(&mut Builder<'_>, [Value; 2]) -> Result<Value>;

/// What a case runs.
pub enum CaseKind {
    /// An operation of a graph, forward and backward.
    Op {
        op: MakeOp,
        /// Whether its slope depends on its input, whose signs must stay then.
        decides: bool,
    },
    /// Steps that only rules and methods write.
    Steps {
        write: Write,
        /// What bounds its error when run on magnitudes; the result itself if none.
        magnitude: Option<Write>,
        /// Shape of the second number.
        other: Shape,
    },
    /// Gradients of a convolution's weights.
    Weights { op: MakeOp },
    /// Copies, the first layer, its adjoint, and a statistic over the copies.
    Copies { op: MakeOp, perturbation: fn(Fill, usize, Shape) -> Result<Perturbation>, statistic: Statistic },
    /// A score of a linear layer and its gradient.
    Score { op: MakeOp, score: Score },
}

/// Something to try in each mode.
pub struct KernelCase {
    pub name: String,
    /// Pictures.
    pub n: usize,
    pub input: Shape,
    /// Products in the longest sum.
    pub terms: usize,
    pub kind: CaseKind,
}

/// Copies of each picture in [`CaseKind::Copies`].
pub const COPIES: usize = 3;

impl KernelCase {
    /// `input → op → flatten`, and the operation's node.
    pub fn graph(&self, fill: Fill) -> Result<(Graph, NodeId)> {
        let mut b = GraphBuilder::new(self.input);
        let node = match &self.kind {
            CaseKind::Steps { .. } => b.input(),
            CaseKind::Op { op, .. }
            | CaseKind::Weights { op }
            | CaseKind::Copies { op, .. }
            | CaseKind::Score { op, .. } => {
                let op = op(fill)?;
                let twice = matches!(op, Op::Add | Op::Mul | Op::Concat);
                let mut input = b.input();
                // A function of positive numbers only.
                if matches!(op, Op::Smooth(f) if !f.value(-1.5).is_finite() || !f.value(0.0).is_finite()) {
                    input = b.push("size", Op::Smooth(Smooth::Abs), &[input])?;
                    input = b.push("above", Op::Affine(Affine::sum([1.0])), &[input])?;
                }
                b.push("op", op, &vec![input; if twice { 2 } else { 1 }])?
            }
        };
        let flat = b.push("flatten", Op::Flatten, &[node])?;
        Ok((b.finish(flat)?, node))
    }
}

/// A convolution's geometry.
#[derive(Clone, Copy)]
struct CaseGeometry {
    c: usize,
    k: usize,
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    padding: Padding,
    groups: usize,
}

const PLAIN: CaseGeometry =
    CaseGeometry { c: 3, k: 9, kernel: [3; 2], stride: 1, dilation: 1, padding: sides([1, 1, 1, 1]), groups: 1 };

const fn sides([top, bottom, left, right]: [usize; 4]) -> Padding {
    Padding::Explicit { top, bottom, left, right }
}

impl CaseGeometry {
    fn op(self) -> MakeOp {
        let CaseGeometry { c, k, kernel, stride, dilation, padding, groups } = self;
        let window = Window { kernel, stride: [stride; 2], dilation: [dilation; 2], padding, ceil: false };
        Box::new(move |fill| {
            let weight = fill.weight([k, c / groups, kernel[0], kernel[1]])?;
            Ok(Op::Conv(Conv { weight, bias: Some(fill.numbers(12, k, 9).into()), window, groups }))
        })
    }

    /// Of the longest sum forward or back.
    fn terms(&self) -> usize {
        self.kernel[0] * self.kernel[1] * (self.c / self.groups).max(self.k / self.groups) + 1
    }
}

fn linear(c: usize, k: usize) -> MakeOp {
    Box::new(move |fill| {
        let bias = Some(fill.numbers(14, k, 9).into());
        Ok(Op::Linear(Linear { weight: fill.weight([k, c, 1, 1])?, bias }))
    })
}

/// Every case.
pub fn all() -> Vec<KernelCase> {
    let mut cases = Vec::new();
    convolutions(&mut cases);
    pools_and_moves(&mut cases);
    steps(&mut cases);
    copies(&mut cases);
    for score in [Score::Logit, Score::Prob, Score::LogProb, Score::LogOthers] {
        let name = format!("head {score:?}: 17 to 11, batch 3").to_lowercase();
        let kind = CaseKind::Score { op: linear(17, 11), score };
        cases.push(KernelCase { name, n: 3, input: Shape::vector(17), terms: 18, kind });
        // One logit has a sigmoid.
        let name = format!("head {score:?}: 17 to 1, batch 3").to_lowercase();
        let kind = CaseKind::Score { op: linear(17, 1), score };
        cases.push(KernelCase { name, n: 3, input: Shape::vector(17), terms: 18, kind });
    }
    cases
}

fn convolutions(cases: &mut Vec<KernelCase>) {
    let mut add = |what: &str, n: usize, [h, w]: [usize; 2], g: CaseGeometry| {
        let name = format!("conv {what}: {} to {} of {h}x{w}, batch {n}", g.c, g.k);
        let input = Shape::new(g.c, h, w);
        let kind = CaseKind::Op { op: g.op(), decides: false };
        cases.push(KernelCase { name, n, input, terms: g.terms(), kind });
    };
    let one = CaseGeometry { kernel: [1; 2], padding: sides([0; 4]), ..PLAIN };
    let strided = CaseGeometry { stride: 2, ..PLAIN };
    add("1x1", 1, [3, 5], CaseGeometry { c: 17, k: 40, ..one });
    add("1x1", 3, [7, 13], CaseGeometry { c: 64, k: 33, ..one });
    add("1x1 stride 2", 3, [7, 9], CaseGeometry { c: 16, k: 65, stride: 2, ..one });
    add("3x3", 3, [5, 7], CaseGeometry { c: 7, k: 9, ..PLAIN });
    add("3x3", 1, [13, 11], CaseGeometry { c: 33, k: 70, ..PLAIN });
    add("3x3 stride 2", 3, [9, 14], CaseGeometry { c: 16, k: 40, ..strided });
    add(
        "7x7 stride 2 of a picture",
        1,
        [23, 29],
        CaseGeometry { k: 16, kernel: [7; 2], padding: sides([3; 4]), ..strided },
    );
    add("3x3 of a picture", 3, [11, 13], CaseGeometry { k: 17, ..PLAIN });
    add("3x3 of grey", 1, [9, 7], CaseGeometry { c: 1, k: 8, ..PLAIN });
    add("groups 2", 1, [5, 7], CaseGeometry { c: 34, k: 34, groups: 2, ..PLAIN });
    add("groups 2 of whole tiles", 1, [5, 6], CaseGeometry { c: 64, k: 64, groups: 2, ..PLAIN });
    add("groups 3 stride 2", 3, [5, 6], CaseGeometry { c: 9, k: 15, groups: 3, ..strided });
    add("depthwise", 3, [5, 14], CaseGeometry { c: 17, k: 17, groups: 17, ..PLAIN });
    let five = CaseGeometry { kernel: [5; 2], padding: sides([2; 4]), ..PLAIN };
    add("depthwise 5x5 stride 2", 1, [8, 15], CaseGeometry { c: 33, k: 33, groups: 33, stride: 2, ..five });
    add("depth multiplier 2", 1, [5, 7], CaseGeometry { c: 7, k: 14, groups: 7, ..PLAIN });
    add("dilation 2", 1, [13, 11], CaseGeometry { c: 8, k: 17, dilation: 2, padding: sides([2; 4]), ..PLAIN });
    add("uneven padding", 3, [5, 7], CaseGeometry { c: 8, k: 9, padding: sides([0, 1, 2, 0]), ..PLAIN });
    add("uneven padding stride 2", 1, [8, 7], CaseGeometry { c: 8, k: 9, padding: sides([2, 0, 0, 1]), ..strided });
    add("same padding stride 2", 1, [8, 13], CaseGeometry { c: 9, k: 16, padding: Padding::Same, ..strided });
    add("1x7", 1, [9, 13], CaseGeometry { c: 8, k: 8, kernel: [1, 7], padding: sides([0, 0, 3, 3]), ..PLAIN });
    add("one pixel", 1, [1, 1], CaseGeometry { c: 17, k: 31, ..PLAIN });
    add("stepped over", 2, [5, 5], CaseGeometry { c: 20, k: 20, stride: 3, ..one });
    for (n, c, k) in [(1, 1, 1), (3, 17, 31), (1, 257, 33), (18, 300, 70)] {
        let kind = CaseKind::Op { op: linear(c, k), decides: false };
        let name = format!("linear: {c} to {k}, batch {n}");
        cases.push(KernelCase { name, n, input: Shape::vector(c), terms: c.max(k) + 1, kind });
    }
    for (what, g) in [
        ("3x3", CaseGeometry { c: 7, k: 17, ..PLAIN }),
        ("1x1 stride 2", CaseGeometry { c: 16, k: 9, stride: 2, ..one }),
        ("depthwise", CaseGeometry { c: 9, k: 9, groups: 9, ..PLAIN }),
    ] {
        let name = format!("weight gradient {what}: {} to {} of 7x9, batch 3", g.c, g.k);
        cases.push(KernelCase {
            name,
            n: 3,
            input: Shape::new(g.c, 7, 9),
            terms: 64,
            kind: CaseKind::Weights { op: g.op() },
        });
    }
}

fn pools_and_moves(cases: &mut Vec<KernelCase>) {
    let mut add = |what: &str, n: usize, input: Shape, terms: usize, decides: bool, op: Op| {
        let kind = CaseKind::Op { op: Box::new(move |_| Ok(op.clone())), decides };
        cases.push(KernelCase { name: format!("{what}: {input}, batch {n}"), n, input, terms, kind });
    };
    let ceil = |w: Window| Window { ceil: true, ..w };
    let average = |window, count_padding| Op::AvgPool { window, count_padding };
    add("max pool 3 stride 2", 3, Shape::new(17, 13, 11), 9, true, Op::MaxPool(Window::square(3, 2, 1)));
    add("max pool 2 ceil", 1, Shape::new(9, 7, 5), 4, true, Op::MaxPool(ceil(Window::square(2, 2, 0))));
    add("max pool 5 overlapping", 1, Shape::new(8, 9, 14), 25, true, Op::MaxPool(Window::square(5, 1, 2)));
    add("average pool 3 stride 2", 3, Shape::new(17, 13, 11), 18, false, average(Window::square(3, 2, 1), true));
    add("average pool 2 ceil", 1, Shape::new(9, 7, 5), 8, false, average(ceil(Window::square(2, 2, 0)), false));
    for (input, out) in [(Shape::new(33, 7, 7), [1, 1]), (Shape::new(9, 13, 9), [6, 6]), (Shape::new(8, 5, 3), [7, 7])]
    {
        let what = format!("adaptive average pool to {}x{}", out[0], out[1]);
        add(&what, 1, input, 2 * input.plane() + 49, false, Op::AdaptiveAvgPool { out });
    }
    let odd = Shape::new(17, 5, 13);
    add("relu", 3, odd, 2, true, Op::Relu);
    add("clamp", 3, odd, 2, true, Op::Clamp { lo: -0.5, hi: 6.0 });
    for f in Smooth::examples() {
        let parameters: String = f.named_parameters().map(|(name, value)| format!(" {name} {value}")).collect();
        add(&format!("{}{parameters}", f.names()[0].replace('_', " ")), 3, odd, 8, true, Op::Smooth(f));
    }
    let slopes = (0..odd.c).map(|i| (i as f64 - 4.0) / 8.0).collect();
    add("prelu", 3, odd, 2, true, Op::PRelu(slopes));
    add("add", 3, odd, 3, false, Op::Add);
    // It is the square of its input here, whose slope depends on it.
    add("mul", 3, odd, 4, true, Op::Mul);
    add("affine", 3, odd, 3, false, Op::Affine(Affine { scale: [0.5].into(), shift: [2.0].into() }));
    add("slice", 3, odd, 2, false, Op::Slice { first: 5, channels: 9 });
    add("shuffle", 3, Shape::new(18, 5, 13), 2, false, Op::Shuffle { groups: 3 });
    add("pad and crop", 3, odd, 2, false, Op::Pad { rows: [2, -1], columns: [-3, 1] });
    let resize = |to, interpolation| Op::Resize(Resize { to: ResizeTo::Size(to), interpolation });
    add("resize to the nearest", 3, odd, 8, false, resize([10, 7], Interpolation::Nearest));
    add("resize linearly", 3, odd, 32, false, resize([9, 31], Interpolation::Linear));
    add("resize linearly, aligned", 1, odd, 32, false, resize([3, 14], Interpolation::LinearAligned));
    add("softmax", 3, Shape::new(18, 5, 13), 24, true, Op::Softmax { groups: 3 });
    add("global max pool", 3, odd, 65, true, Op::GlobalMaxPool);
    add("channel max", 3, odd, 17, true, Op::ChannelMax);
    let norm = |groups, across_positions| Op::Standardise(Standardise { groups, across_positions, eps: 0.01 });
    add("layer norm", 3, odd, 2 * 17 + 8, true, norm(1, false));
    add("layer norm in groups", 1, Shape::new(18, 5, 13), 2 * 6 + 8, true, norm(3, false));
    add("group norm", 3, Shape::new(18, 5, 13), 2 * 6 * 65 + 8, true, norm(3, true));
    add("instance norm", 3, odd, 2 * 65 + 8, true, norm(17, true));
    add("concat", 3, odd, 3, false, Op::Concat);
    add("flatten", 3, odd, 2, false, Op::Flatten);
    add("subsample", 3, odd, 2, false, Op::Subsample { stride: [2, 3] });
    add("pad channels", 3, odd, 2, false, Op::PadChannels { before: 3, after: 4 });
    let norm = |fill: Fill| {
        let c = 17;
        let variance: Vec<f64> = match fill.numbers {
            Numbers::Integers => vec![4.0; c],
            Numbers::Reals => fill.numbers(17, c, 1).iter().map(|v| v.abs() + 0.1).collect(),
        };
        let eps = if fill.numbers == Numbers::Integers { 0.0 } else { 1e-5 };
        let [gamma, beta, mean] = [(15, 2), (16, 5), (18, 3)].map(|(salt, largest)| fill.numbers(salt, c, largest));
        // Magnitudes are added where numbers are subtracted.
        let mean: Vec<f64> = if fill.magnitudes { mean.iter().map(|m| -m).collect() } else { mean };
        Ok(Op::BatchNorm(BatchNorm {
            gamma: gamma.into(),
            beta: beta.into(),
            mean: mean.into(),
            variance: variance.into(),
            eps,
        }))
    };
    let kind = CaseKind::Op { op: Box::new(norm), decides: false };
    cases.push(KernelCase { name: format!("batch norm: {odd}, batch 3"), n: 3, input: odd, terms: 8, kind });
}

fn steps(cases: &mut Vec<KernelCase>) {
    let input = Shape::new(17, 5, 7);
    let mut add = |name: &str, other: Shape, terms: usize, write: Write, magnitude: Option<Write>| {
        let kind = CaseKind::Steps { write, magnitude, other };
        cases.push(KernelCase { name: format!("{name}: {input}, batch 3"), n: 3, input, terms, kind });
    };
    add("mul", input, 2, |b, [x, y]| b.mul(x, y), None);
    add("sub", input, 2, |b, [x, y]| b.sub(x, y), Some(|b, [x, y]| b.add(x, y)));
    // A denominator that is no difference, and whose stabiliser does not cancel it.
    add("divide", input, 8, |b, [x, y]| b.divide(x, y, 0.25), None);
    add("ratio", input, 8, |b, [x, y]| b.ratio_or(x, y, x, 0.25), None);
    add(
        "quotient",
        input,
        8,
        |b, [x, y]| {
            // Far from zero.
            let far = b.fill(Shape::new(17, 5, 7), vec![16.5; 17])?;
            let divisor = b.add(y, far)?;
            b.elementwise(Elementwise::Quotient, vec![x, divisor])
        },
        None,
    );
    add("scale", input, 3, |b, [x, _]| b.scale(x, 0.5), None);
    add("positive", input, 1, |b, [x, _]| b.positive(x), None);
    add("negative", input, 1, |b, [x, _]| b.negative(x), None);
    add(
        "fill",
        input,
        2,
        |b, [x, _]| {
            let fill = b.fill(Shape::new(17, 5, 7), vec![0.5; 17])?;
            b.mul(x, fill)
        },
        None,
    );
    add(
        "inside",
        input,
        1,
        |b, [x, y]| {
            let bits = b.inside(x, Range { lo: -0.5, hi: 0.75 })?;
            b.gate(y, bits)
        },
        None,
    );
    add(
        "above quantile",
        input,
        1,
        |b, [x, y]| {
            let bits = b.above_quantile(x, 0.7)?;
            b.gate(y, bits)
        },
        None,
    );
    add("channels", input, 1, |b, [x, _]| b.channels(x, 3, Shape::new(9, 5, 7)), None);
    let mul: Write = |b, [x, y]| b.repeated(Elementwise::Mul, vec![y, x], Shape::new(17, 5, 7));
    add("repeated mul", Shape::new(1, 5, 7), 2, mul, None);
    let sub: Write = |b, [x, y]| b.repeated(Elementwise::Sub, vec![x, y], Shape::new(17, 5, 7));
    let sum: Write = |b, [x, y]| b.add_repeated(x, y);
    add("repeated sub", Shape::vector(17), 2, sub, Some(sum));
    add("repeated add", Shape::vector(1), 2, sum, Some(sum));
    let channels: Write = |b, [x, y]| b.contract(vec![x, y], Shape::new(1, 5, 7));
    add("contract channels", input, 20, channels, Some(channels));
    let positions: Write = |b, [x, _]| b.contract(vec![x], Shape::vector(17));
    add("contract positions", input, 40, positions, Some(positions));
    let all: Write = |b, [x, y]| b.contract(vec![x, y], Shape::vector(1));
    add("contract all", input, 5 * 7 * 17 + 2, all, Some(all));
    add("scale channels", Shape::vector(17), 2, |b, [x, y]| b.scale_channels(y, x), None);
    add("spatial mean", input, 40, |b, [x, _]| b.spatial_mean(x), Some(|b, [x, _]| b.spatial_mean(x)));
    let weighted: Write = |b, [x, y]| b.weighted_channel_sum(y, x);
    add("weighted channel sum", Shape::vector(17), 20, weighted, Some(weighted));
    add("bias gradient", input, 40, |b, [x, _]| b.bias_adjoint(x), Some(|b, [x, _]| b.bias_adjoint(x)));
}

fn copies(cases: &mut Vec<KernelCase>) {
    type Perturb = fn(Fill, usize, Shape) -> Result<Perturbation>;
    let perturbations: [(&str, Perturb); 6] = [
        ("none", |_, _, _| Ok(Perturbation::None)),
        ("noise", |_, n, _| {
            Ok(Perturbation::Noise { seed: 7, first: 0, images: (1..=n as u64).collect(), sigmas: vec![0.25; n] })
        }),
        ("path", |fill, n, shape| {
            Ok(Perturbation::Path { alphas: vec![0.0, 0.5, 1.0], baselines: pictures(fill, 31, n, shape)? })
        }),
        ("boxes", |fill, n, shape| {
            let rectangle = |at: usize| Rectangle { corner: [at, 2 * at], size: [3, 4] };
            let boxes = (0..COPIES).map(rectangle).collect();
            Ok(Perturbation::Boxes(Boxes { boxes, fills: pictures(fill, 32, n, shape)? }))
        }),
        ("masks", |_, n, shape| {
            let mask = |k: usize| GridMask { values: (0..9).map(|i| ((i + k) % 2) as f64).collect(), corner: [k, 1] };
            let masks = vec![(0..COPIES).map(mask).collect(); n];
            Ok(Perturbation::Masks(Masks { grid: [3, 3], size: [shape.h + 4, shape.w + 4], masks }))
        }),
        ("others", |fill, n, shape| {
            let of = |i: usize| pictures(fill, 33 + i as u64, COPIES, shape);
            Ok(Perturbation::Others((0..n).map(of).collect::<Result<_>>()?))
        }),
    ];
    let three = CaseGeometry { k: 8, ..PLAIN };
    let seven = CaseGeometry { k: 8, kernel: [7; 2], stride: 2, padding: sides([3; 4]), ..PLAIN };
    for (which, perturbation) in perturbations {
        for statistic in [Statistic::Sum, Statistic::SumOfSquares, Statistic::Variance, Statistic::Range] {
            // Equal copies do not vary.
            if which == "none" && statistic.has_two() {
                continue;
            }
            let g = if statistic == Statistic::Sum { three } else { seven };
            let size = if statistic == Statistic::Sum { "3x3" } else { "7x7 stride 2" };
            let name = format!("copies {which}, first and last layer {size}, {statistic:?}: 3 of 11x13, batch 2")
                .to_lowercase();
            let kind = CaseKind::Copies { op: g.op(), perturbation, statistic };
            cases.push(KernelCase { name, n: 2, input: Shape::new(3, 11, 13), terms: g.terms(), kind });
        }
    }
}

/// `n` pictures, each by itself.
pub fn pictures(fill: Fill, salt: u64, n: usize, shape: Shape) -> Result<Vec<Tensor>> {
    let all = fill.maps(salt, n, shape)?;
    (0..n).map(|i| all.item(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_graphs_are_sound() {
        let cases = all();
        let mut names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        for case in &cases {
            for magnitudes in [false, true] {
                case.graph(Fill { numbers: Numbers::Reals, magnitudes }).unwrap();
            }
        }
    }
}
