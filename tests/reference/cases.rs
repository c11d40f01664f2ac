//! Operations to try: every kind, with the extents at which kernels break.

use std::sync::Arc;

use verilume::graph::{
    Affine, BatchNorm, Conv, Encoding, Graph, GraphBuilder, Linear, NodeId, Op, Over, Reduce, Standardise, Weight,
};
use verilume::tensor::{Interpolation, Padding, Resize, ResizeTo, Shape, Window};

use super::{Dense, weight_f64};

/// Which numbers fill inputs and weights; all of them are single-precision numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Small enough for every sum of products to be exact in single precision.
    Integers,
    /// Uniform in [-1, 1).
    Reals,
}

/// Equal arguments give equal bits, other arguments unrelated ones.
pub fn scrambled(salt: u64, i: usize) -> u64 {
    let mut z = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(i as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Numbers {
    /// `count` numbers: integers from `-largest` to `largest`, or reals.
    pub fn fill(self, salt: u64, count: usize, largest: i64) -> Vec<f64> {
        let number = |i| {
            let bits = scrambled(salt, i);
            match self {
                Numbers::Integers => (bits % (2 * largest as u64 + 1)) as i64 as f64 - largest as f64,
                Numbers::Reals => ((bits >> 40) as f64 - 8_388_608.0) / 8_388_608.0,
            }
        };
        (0..count).map(number).collect()
    }

    /// Feature maps.
    pub fn maps(self, salt: u64, n: usize, shape: Shape) -> Dense {
        Dense::new(shape, self.fill(salt, n * shape.len(), 8))
    }
}

/// One operation inside a graph.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is unusual about it.
    pub name: String,
    /// `input → … → node → Flatten`, where … only selects or moves numbers.
    pub graph: Arc<Graph>,
    /// The operation under test.
    pub node: NodeId,
    /// Pictures in the batch.
    pub n: usize,
}

impl Case {
    /// `input → op → Flatten`.
    pub fn of(name: impl Into<String>, n: usize, input: Shape, op: Op) -> Self {
        Self::wired(name, n, input, op, |b| vec![b.input()])
    }

    /// As [`Case::of`], with the operation's inputs chosen by `wire`.
    pub fn wired(
        name: impl Into<String>,
        n: usize,
        input: Shape,
        op: Op,
        wire: impl FnOnce(&mut GraphBuilder) -> Vec<NodeId>,
    ) -> Self {
        let mut builder = GraphBuilder::new(input);
        let inputs = wire(&mut builder);
        let node = builder.push("op", op, &inputs).unwrap();
        let output = builder.push("flatten", Op::Flatten, &[node]).unwrap();
        Self { name: name.into(), graph: Arc::new(builder.finish(output).unwrap()), node, n }
    }

    /// The operation under test.
    pub fn op(&self) -> &Op {
        &self.graph.node(self.node).op
    }
}

/// Geometry of a convolution; the default is a 3×3 window with stride 1, padding 1.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub c: usize,
    pub k: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    pub padding: Padding,
    pub groups: usize,
    pub bias: bool,
}

impl Default for Geometry {
    fn default() -> Self {
        let padding = Padding::all(1);
        Self { c: 3, k: 9, kernel: [3; 2], stride: [1; 2], dilation: [1; 2], padding, groups: 1, bias: true }
    }
}

impl Geometry {
    /// The convolution, with weights from `numbers`.
    pub fn conv(&self, numbers: Numbers) -> Op {
        let [kh, kw] = self.kernel;
        let dims = [self.k, self.c / self.groups, kh, kw];
        let weight = weight_f64(dims, &numbers.fill(11, dims.iter().product(), 3));
        Op::Conv(Conv {
            weight,
            bias: self.bias.then(|| numbers.fill(12, self.k, 9).into()),
            window: Window {
                kernel: self.kernel,
                stride: self.stride,
                dilation: self.dilation,
                padding: self.padding,
                ceil: false,
            },
            groups: self.groups,
        })
    }
}

/// Channel counts around the widths of vectors.
pub const CHANNELS: [usize; 11] = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 40];
/// Extents around the widths of tiles.
pub const EXTENTS: [usize; 7] = [1, 5, 13, 14, 15, 28, 29];

const fn sides(top: usize, bottom: usize, left: usize, right: usize) -> Padding {
    Padding::Explicit { top, bottom, left, right }
}

/// Convolutions and linear layers.
pub fn convolutions(numbers: Numbers) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: &str, n: usize, [h, w]: [usize; 2], g: Geometry| {
        let name = format!("{what}: {n}x{}x{h}x{w} {g:?}", g.c);
        cases.push(Case::of(name, n, Shape::new(g.c, h, w), g.conv(numbers)));
    };
    let plain = Geometry::default();
    for (i, c) in CHANNELS.into_iter().enumerate() {
        let k = CHANNELS[(i + 4) % CHANNELS.len()];
        add("channels", 1 + i % 2 * 2, [5, 7], Geometry { c, k, ..plain });
        add("pointwise", 1, [3, 5], Geometry { c, k, kernel: [1; 2], padding: Padding::all(0), bias: false, ..plain });
        add("depthwise", 3 - i % 2 * 2, [5, 14], Geometry { c, k: c, groups: c, ..plain });
    }
    for (c, k) in [(1, 17), (2, 33), (3, 40), (4, 16), (40, 3), (33, 1)] {
        add("few channels", 1, [7, 13], Geometry { c, k, ..plain });
        let stem = Geometry { c, k, kernel: [7; 2], stride: [2; 2], padding: Padding::all(3), ..plain };
        add("few channels, stride 2", 1, [11, 17], stem);
    }
    for (c, k) in [(16, 16), (32, 32), (8, 64), (64, 8)] {
        add("whole vectors", 1, [6, 14], Geometry { c, k, ..plain });
    }
    for extent in EXTENTS {
        add("width", 1, [3, extent], Geometry { k: 17, ..plain });
        add("height", 3, [extent, 5], Geometry { k: 7, bias: false, ..plain });
        add("width, stride 2", 1, [5, extent], Geometry { k: 8, stride: [2; 2], ..plain });
        add("width, depthwise", 1, [3, extent], Geometry { c: 17, k: 17, groups: 17, ..plain });
        let pointwise = Geometry { c: 9, kernel: [1; 2], padding: Padding::all(0), ..plain };
        add("width, pointwise", 1, [1, extent], pointwise);
    }
    for size in 1..=7 {
        for stride in [1, 2] {
            let padding = Padding::all(size / 2);
            let g = Geometry { kernel: [size; 2], stride: [stride; 2], padding, ..plain };
            add("kernel", 1, [11, 13], g);
            add("kernel, no padding", 1, [7, 11], Geometry { padding: Padding::all(0), ..g });
        }
    }
    for (kernel, padding) in [
        ([1, 7], sides(0, 0, 3, 3)),
        ([7, 1], sides(3, 3, 0, 0)),
        ([2, 5], sides(1, 0, 2, 2)),
        ([4, 3], sides(1, 2, 1, 1)),
    ] {
        for stride in [[1, 1], [2, 1], [1, 3]] {
            add("oblong kernel", 1, [9, 13], Geometry { kernel, padding, stride, ..plain });
        }
    }
    for (kernel, stride, input) in [
        (1, [2, 2], [7, 9]),
        (3, [3, 2], [11, 13]),
        (7, [2, 2], [23, 29]),
        (11, [4, 4], [27, 31]),
        (2, [3, 5], [11, 13]),
    ] {
        let padding = Padding::all(kernel / 4);
        add("stride", 1, input, Geometry { kernel: [kernel; 2], stride, padding, ..plain });
    }
    for padding in [sides(0, 1, 2, 0), sides(2, 0, 0, 1), sides(0, 0, 0, 2), sides(3, 4, 5, 3)] {
        for stride in [1, 2] {
            add("uneven padding", 3, [5, 7], Geometry { padding, stride: [stride; 2], ..plain });
        }
    }
    for size in [1, 2, 3, 5] {
        for stride in [1, 2, 3] {
            for input in [[7, 8], [8, 13]] {
                let g = Geometry { kernel: [size; 2], stride: [stride; 2], padding: Padding::Same, ..plain };
                add("same padding", 1, input, g);
            }
        }
    }
    for (dilation, pad) in [([2, 2], 2), ([3, 1], 1), ([1, 2], 0), ([2, 3], 4)] {
        for stride in [1, 2] {
            let g = Geometry { dilation, stride: [stride; 2], padding: Padding::all(pad), ..plain };
            add("dilation", 1, [13, 11], g);
        }
    }
    for (c, k, groups) in [(8, 12, 2), (9, 15, 3), (16, 32, 8), (16, 16, 4), (34, 34, 2), (32, 32, 2), (66, 33, 33)] {
        add("groups", 1, [5, 7], Geometry { c, k, groups, ..plain });
        add("groups, stride 2", 3, [5, 6], Geometry { c, k, groups, stride: [2; 2], bias: false, ..plain });
    }
    for (c, multiplier) in [(7, 2), (3, 3), (16, 2), (1, 8)] {
        add("depth multiplier", 1, [5, 7], Geometry { c, k: c * multiplier, groups: c, ..plain });
    }
    for c in [7, 16, 33] {
        let g = Geometry { c, k: c, groups: c, kernel: [5; 2], padding: Padding::Same, ..plain };
        add("depthwise 5x5", 1, [7, 15], g);
        add("depthwise 5x5, stride 2", 3, [8, 15], Geometry { stride: [2; 2], ..g });
        add("depthwise 3x3, stride 2", 1, [9, 14], Geometry { stride: [2; 2], kernel: [3; 2], ..g });
        add("depthwise, dilation 2", 1, [9, 14], Geometry { dilation: [2; 2], kernel: [3; 2], ..g });
    }
    add("whole picture", 3, [5, 3], Geometry { c: 7, k: 10, kernel: [5, 3], padding: Padding::all(0), ..plain });
    add("one pixel", 1, [1, 1], Geometry { c: 17, k: 31, ..plain });
    for (c, k) in [(1, 1), (7, 3), (17, 31), (40, 10), (257, 33)] {
        for (n, bias) in [(1, true), (3, false)] {
            let linear = Linear {
                weight: weight_f64([k, c, 1, 1], &numbers.fill(13, k * c, 3)),
                bias: bias.then(|| numbers.fill(14, k, 9).into()),
            };
            cases.push(Case::of(format!("linear: {n}x{c} to {k}"), n, Shape::vector(c), Op::Linear(linear)));
        }
    }
    // More than one block of rows, columns and copies.
    let (n, c, k) = (18, 1100, 70);
    let linear = Linear { weight: weight_f64([k, c, 1, 1], &numbers.fill(13, k * c, 3)), bias: None };
    cases.push(Case::of(format!("linear: {n}x{c} to {k}"), n, Shape::vector(c), Op::Linear(linear)));
    // More than one band of rows.
    for stride in [1, 2] {
        let g = Geometry { c: 33, k: 17, stride: [stride; 2], ..plain };
        let name = format!("bands: 1x33x24x130 {g:?}");
        cases.push(Case::of(name, 1, Shape::new(33, 24, 130), g.conv(numbers)));
    }
    cases
}

/// Linear layers whose weights are stored in every encoding, at aligned and odd places.
pub fn stored(numbers: Numbers) -> Vec<Case> {
    let (c, k) = (37, 19);
    // Eighths are numbers of every encoding.
    let values: Vec<f64> = numbers.fill(21, k * c, 3).iter().map(|v| (v * 8.0).round() / 8.0).collect();
    let bytes = |encoding| -> Vec<u8> {
        let each = |v: &f64| match encoding {
            Encoding::F16 => half::f16::from_f64(*v).to_le_bytes().to_vec(),
            Encoding::Bf16 => half::bf16::from_f64(*v).to_le_bytes().to_vec(),
            Encoding::F32 => (*v as f32).to_le_bytes().to_vec(),
            Encoding::F64 => v.to_le_bytes().to_vec(),
        };
        values.iter().flat_map(each).collect()
    };
    let mut cases = Vec::new();
    for encoding in [Encoding::F16, Encoding::Bf16, Encoding::F32, Encoding::F64] {
        for odd in [0, 1] {
            let stored = bytes(encoding);
            // A multiple of eight in memory, plus one byte where the place is to be odd.
            let mut all = vec![0u8; 8 + stored.len() + odd];
            let start = all.as_ptr().align_offset(8) + odd;
            all[start..start + stored.len()].copy_from_slice(&stored);
            let weight = Weight::stored([k, c, 1, 1], Arc::new(all), start, encoding).unwrap();
            let linear = Linear { weight, bias: Some(numbers.fill(22, k, 9).into()) };
            let name = format!("linear: {} at {odd} of 8", encoding.name());
            cases.push(Case::of(name, 3, Shape::vector(c), Op::Linear(linear)));
        }
    }
    cases
}

/// Pools.
pub fn pools() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |n: usize, input: Shape, op: Op| cases.push(Case::of(format!("{n}x{input} {op:?}"), n, input, op));
    let mut windows = vec![
        (Window::square(2, 2, 0), [8, 14]),
        (Window::square(2, 2, 0), [7, 13]),
        (Window::square(3, 2, 1), [13, 15]),
        (Window::square(3, 1, 1), [5, 7]),
        (Window::square(3, 2, 0), [8, 7]),
        (Window::square(2, 2, 1), [5, 4]),
        (Window::square(5, 3, 2), [11, 13]),
        (Window::square(1, 2, 0), [5, 7]),
        (Window::square(7, 7, 0), [7, 7]),
        (Window { kernel: [2, 3], stride: [1, 2], ..Window::square(1, 1, 0) }, [7, 29]),
        (Window { kernel: [1, 7], stride: [1, 1], ..Window::square(1, 1, 0) }, [3, 13]),
        (Window { padding: sides(0, 1, 2, 0), ..Window::square(3, 2, 0) }, [9, 11]),
        (Window { padding: Padding::Same, ..Window::square(3, 2, 0) }, [8, 13]),
        (Window { dilation: [2, 1], ..Window::square(3, 1, 1) }, [9, 11]),
    ];
    let ceil: Vec<_> = windows.iter().map(|&(w, input)| (Window { ceil: true, ..w }, input)).collect();
    windows.extend(ceil);
    windows.push((Window { ceil: true, ..Window::square(3, 2, 1) }, [6, 28]));
    // More than 256 taps: a winner's number takes two bytes.
    windows.push((Window::square(17, 3, 0), [23, 19]));
    windows.push((Window::square(17, 2, 8), [19, 23]));
    windows.push((Window { ceil: true, ..Window::square(2, 3, 0) }, [6, 8]));
    windows.push((Window { ceil: true, ..Window::square(3, 2, 0) }, [2, 5]));
    for (i, (window, [h, w])) in windows.into_iter().enumerate() {
        let input = Shape::new(CHANNELS[i % CHANNELS.len()], h, w);
        add(1 + i % 2 * 2, input, Op::MaxPool(window));
        for count_padding in [true, false] {
            add(3 - i % 2 * 2, input, Op::AvgPool { window, count_padding });
        }
    }
    for c in CHANNELS {
        add(1, Shape::new(c, 5, 7), Op::MaxPool(Window::square(3, 2, 1)));
        add(3, Shape::new(c, 7, 7), Op::AdaptiveAvgPool { out: [1, 1] });
    }
    for (input, out) in
        [([13, 9], [6, 6]), ([7, 7], [7, 7]), ([5, 3], [7, 7]), ([1, 1], [3, 2]), ([29, 14], [1, 3]), ([4, 8], [2, 2])]
    {
        add(1, Shape::new(9, input[0], input[1]), Op::AdaptiveAvgPool { out });
    }
    cases
}

/// Everything else.
pub fn pointwise(numbers: Numbers) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, c) in CHANNELS.into_iter().enumerate() {
        let (n, shape) = (1 + i % 2 * 2, Shape::new(c, 5, EXTENTS[(i + 4) % EXTENTS.len()]));
        let mut add = |op: Op| cases.push(Case::of(format!("{n}x{shape} {}", op.kind()), n, shape, op));
        add(Op::Relu);
        add(Op::Clamp { lo: 0.0, hi: 6.0 });
        add(Op::Clamp { lo: -0.5, hi: 0.25 });
        add(batch_norm(c, numbers));
        add(Op::Flatten);
        add(Op::Subsample { stride: [2, 2] });
        add(Op::Subsample { stride: [1, 3] });
        add(Op::PadChannels { before: i % 3, after: 4 });
        add(Op::Add);
        add(Op::Concat);
        add(Op::Affine(Affine { scale: numbers.fill(25, c, 2).into(), shift: numbers.fill(26, c, 5).into() }));
        add(Op::Affine(Affine::product([0.5])));
        add(Op::Slice { first: c / 3, channels: c - c / 3 - usize::from(c > 2) });
        add(Op::Pad { rows: [1, 2], columns: [0, 3] });
        add(Op::Pad { rows: [-1, 2], columns: [2, 0] });
        add(Op::GlobalMaxPool);
        add(Op::ChannelMax);
        for over in [Over::Channels, Over::Positions, Over::Everything] {
            // One sum of integers may be zero, which shows nothing.
            if over == Over::Everything && numbers == Numbers::Integers {
                continue;
            }
            add(Op::Reduce(Reduce { over, mean: i % 2 == 0 }));
        }
        for interpolation in [Interpolation::Nearest, Interpolation::Linear, Interpolation::LinearAligned] {
            add(Op::Resize(Resize { to: ResizeTo::Factor([2, 1]), interpolation }));
            add(Op::Resize(Resize { to: ResizeTo::Size([3, 7]), interpolation }));
        }
        for groups in [1, 2, 3, 4, c].into_iter().filter(|g| c.is_multiple_of(*g)) {
            add(Op::Shuffle { groups });
            if groups < c {
                add(Op::Softmax { groups });
            }
            for across_positions in [false, true] {
                let norm = Standardise { groups, across_positions, eps: 0.125 };
                if norm.count(shape) > 1 {
                    add(Op::Standardise(norm));
                }
            }
        }
        let relu = |b: &mut GraphBuilder| b.push("relu", Op::Relu, &[b.input()]).unwrap();
        let mut wired = |what: &str, op: Op, wire: &dyn Fn(&mut GraphBuilder) -> Vec<NodeId>| {
            cases.push(Case::wired(format!("{n}x{shape} {what}"), n, shape, op, wire));
        };
        wired("x + relu(x)", Op::Add, &|b| vec![b.input(), relu(b)]);
        let first = |b: &mut GraphBuilder| b.push("first", Op::Slice { first: 0, channels: 1 }, &[b.input()]).unwrap();
        let most = |b: &mut GraphBuilder| b.push("most", Op::GlobalMaxPool, &[b.input()]).unwrap();
        wired("x · relu(x)", Op::Mul, &|b| vec![b.input(), relu(b)]);
        for (kind, op) in [("·", Op::Mul), ("+", Op::Add)] {
            wired(&format!("x {kind} [c,1,1]"), op.clone(), &|b| vec![b.input(), most(b)]);
            wired(&format!("[c,1,1] {kind} x"), op.clone(), &|b| vec![most(b), b.input()]);
            wired(&format!("x {kind} [1,h,w]"), op.clone(), &|b| vec![b.input(), first(b)]);
            wired(&format!("[1,h,w] {kind} [c,1,1]"), op.clone(), &|b| vec![first(b), most(b)]);
            let least = |b: &mut GraphBuilder| {
                let most = most(b);
                b.push("least", Op::Slice { first: 0, channels: 1 }, &[most]).unwrap()
            };
            wired(&format!("x {kind} [1,1,1]"), op, &|b| vec![b.input(), least(b)]);
        }
        wired("x + x", Op::Add, &|b| vec![b.input(); 2]);
        wired("x + relu(x) + clamp(x)", Op::Add, &|b| {
            vec![b.input(), relu(b), b.push("clamp", Op::Clamp { lo: -2.0, hi: 3.0 }, &[b.input()]).unwrap()]
        });
        wired("x, relu(x) beside each other", Op::Concat, &|b| vec![b.input(), relu(b)]);
        wired("x twice between paddings", Op::Concat, &|b| {
            let wide = b.push("wide", Op::PadChannels { before: 1, after: 2 }, &[b.input()]).unwrap();
            vec![wide, b.input(), b.input()]
        });
    }
    for (i, c) in CHANNELS.into_iter().enumerate() {
        let (n, shape) = (1 + i % 2 * 2, Shape::new(c, 5, EXTENTS[(i + 4) % EXTENTS.len()]));
        for interpolation in [Interpolation::Reflected, Interpolation::Replicated] {
            let to = [shape.h + 3, shape.w + 1];
            if interpolation.reaches(shape.h, to[0]) && interpolation.reaches(shape.w, to[1]) {
                let op = Op::Resize(Resize { to: ResizeTo::Size(to), interpolation });
                cases.push(Case::of(format!("{n}x{shape} {}", interpolation.name()), n, shape, op));
            }
        }
    }
    cases
}

/// A batch norm; with integers its scales are powers of two and nothing is rounded.
pub fn batch_norm(c: usize, numbers: Numbers) -> Op {
    let of = |salt, largest| numbers.fill(salt, c, largest);
    let (variance, eps): (Vec<f64>, f64) = match numbers {
        Numbers::Integers => (of(17, 1).iter().map(|v| 4f64.powf(*v)).collect(), 0.0),
        Numbers::Reals => (of(17, 1).iter().map(|v| v.abs() + 0.1).collect(), 1e-5),
    };
    Op::BatchNorm(BatchNorm {
        gamma: of(15, 2).into(),
        beta: of(16, 5).into(),
        mean: of(18, 3).into(),
        variance: variance.into(),
        eps,
    })
}

/// Every case.
pub fn all(numbers: Numbers) -> Vec<Case> {
    [convolutions(numbers), pools(), pointwise(numbers)].concat()
}

/// Small nets with shortcuts, branches and everything that may be fused; on integers every number in them is exact.
pub fn nets(numbers: Numbers) -> Vec<Arc<Graph>> {
    let conv = |c, k, stride: usize, groups| {
        Geometry { c, k, stride: [stride; 2], groups, bias: false, ..Geometry::default() }.conv(numbers)
    };
    let pointwise = |c, k, stride: usize| {
        let g = Geometry { c, k, kernel: [1; 2], stride: [stride; 2], padding: Padding::all(0), ..Geometry::default() };
        g.conv(numbers)
    };
    let linear = |c: usize, k: usize| {
        let weight = weight_f64([k, c, 1, 1], &numbers.fill(19, k * c, 2));
        Op::Linear(Linear { weight, bias: Some(numbers.fill(20, k, 5).into()) })
    };
    type Net<'a> = (Shape, Box<dyn Fn(&mut GraphBuilder) -> NodeId + 'a>);
    let nets: [Net; 4] = [
        (
            Shape::new(3, 13, 11),
            Box::new(|b| {
                let mut at = b.input();
                let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
                at = push("stem", conv(3, 8, 2, 1), &[at]);
                at = push("stem.norm", batch_norm(8, numbers), &[at]);
                at = push("stem.relu", Op::Relu, &[at]);
                let pooled = push("stem.pool", Op::MaxPool(Window::square(3, 2, 1)), &[at]);
                at = push("a.conv", conv(8, 17, 2, 1), &[pooled]);
                at = push("a.norm", batch_norm(17, numbers), &[at]);
                let down = push("a.down", pointwise(8, 17, 2), &[pooled]);
                at = push("a.add", Op::Add, &[at, down]);
                at = push("a.relu", Op::Relu, &[at]);
                at = push("pool", Op::AvgPool { window: Window::square(2, 2, 0), count_padding: true }, &[at]);
                at = push("flatten", Op::Flatten, &[at]);
                push("fc", linear(17, 5), &[at])
            }),
        ),
        (
            Shape::new(2, 9, 7),
            Box::new(|b| {
                let mut at = b.input();
                let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
                at = push("stem", conv(2, 7, 1, 1), &[at]);
                at = push("stem.relu", Op::Relu, &[at]);
                let short = push("short", Op::Subsample { stride: [2; 2] }, &[at]);
                let short = push("short.wide", Op::PadChannels { before: 3, after: 4 }, &[short]);
                at = push("conv", conv(7, 14, 2, 7), &[at]);
                at = push("add", Op::Add, &[short, at]);
                at = push("relu6", Op::Clamp { lo: 0.0, hi: 60.0 }, &[at]);
                at = push("flatten", Op::Flatten, &[at]);
                push("fc", linear(14 * 5 * 4, 3), &[at])
            }),
        ),
        (
            Shape::new(3, 8, 8),
            Box::new(|b| {
                let x = b.input();
                let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
                let normed = push("norm first", batch_norm(3, numbers), &[x]);
                let left = push("left", pointwise(3, 5, 1), &[normed]);
                let right = push("right", conv(3, 9, 1, 3), &[normed]);
                let both = push("both", Op::Concat, &[left, right, normed]);
                let relu = push("relu", Op::Relu, &[both]);
                let small = push("small", Op::AdaptiveAvgPool { out: [2, 4] }, &[relu]);
                let normed = push("norm after pool", batch_norm(17, numbers), &[small]);
                let flat = push("flatten", Op::Flatten, &[normed]);
                let hidden = push("hidden", linear(17 * 8, 9), &[flat]);
                let gate = push("hidden.relu", Op::Relu, &[hidden]);
                push("fc", linear(9, 4), &[gate])
            }),
        ),
        (
            Shape::new(8, 7, 5),
            Box::new(|b| {
                // A feature map with several readers, two of them the same node, and a branch that leads nowhere.
                let x = b.input();
                let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
                let stem = push("stem", conv(8, 8, 1, 1), &[x]);
                let relu = push("relu", Op::Relu, &[stem]);
                push("nowhere", pointwise(8, 3, 1), &[relu]);
                let twice = push("twice", Op::Add, &[relu, relu, stem]);
                let inner = push("inner", pointwise(8, 8, 1), &[twice]);
                let sum = push("sum", Op::Add, &[inner, relu]);
                let pooled = push("pool", Op::MaxPool(Window { ceil: true, ..Window::square(2, 2, 0) }), &[sum]);
                let flat = push("flatten", Op::Flatten, &[pooled]);
                push("fc", linear(8 * 4 * 3, 2), &[flat])
            }),
        ),
    ];
    let finish = |(input, wire): &Net| {
        let mut builder = GraphBuilder::new(*input);
        let output = wire(&mut builder);
        Arc::new(builder.finish(output).unwrap())
    };
    nets.iter().map(finish).collect()
}
