//! Single operations, forward and back, against PyTorch in double precision; `tests/golden/ops.py` makes the file. Single
//! precision is held to bounds computed from the sizes of numbers and the lengths of sums.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::path::Path;

use nets::machines;
use reference::bounds::{backward_bound, forward_bounds};
use reference::{Dense, ReluRule, backward, forward, weight_f64};
use safetensors::SafeTensors;
use verilume::engine::{Batch, Engine, Pullback};
use verilume::graph::{Affine, Conv, Graph, GraphBuilder, LocalResponseNorm, NodeId, Op, Over, Reduce, Standardise};
use verilume::rule::Composite;
use verilume::tensor::{Interpolation, Padding, Precision, Resize, ResizeTo, Shape, Tensor, Window};

/// The same numbers as in the script.
fn numbers(salt: usize, count: usize) -> Vec<f64> {
    (0..count).map(|i| (((i * 37 + salt * 53 + 11) % 101) as f64 - 50.0) / 32.0).collect()
}

fn conv(k: usize, c: usize, window: Window, groups: usize) -> Op {
    let dims = [k, c, window.kernel[0], window.kernel[1]];
    let weight = weight_f64(dims, &numbers(3, dims.iter().product()));
    Op::Conv(Conv { weight, bias: Some(numbers(4, k).into()), window, groups })
}

fn window(kernel: [usize; 2], [top, bottom, left, right]: [usize; 4]) -> Window {
    Window { kernel, padding: Padding::Explicit { top, bottom, left, right }, ..Window::square(1, 1, 0) }
}

fn affine(c: usize) -> Op {
    Op::Affine(Affine { scale: numbers(3, c).into(), shift: numbers(4, c).into() })
}

/// The resizing of a case that is one.
fn resize(name: &str) -> Option<Resize> {
    let (to, interpolation) = match name {
        "resize_nearest" => (ResizeTo::Factor([2, 3]), Interpolation::Nearest),
        "resize_nearest_smaller" => (ResizeTo::Size([2, 4]), Interpolation::Nearest),
        "resize_linear" => (ResizeTo::Size([4, 7]), Interpolation::Linear),
        "resize_linear_smaller" => (ResizeTo::Size([2, 2]), Interpolation::Linear),
        "resize_aligned" => (ResizeTo::Size([5, 2]), Interpolation::LinearAligned),
        _ => return None,
    };
    Some(Resize { to, interpolation })
}

/// Builds each case on the builder's input; the result is its last node.
fn build(name: &str, b: &mut GraphBuilder) -> NodeId {
    let (x, shape) = (b.input(), b.shape(b.input()));
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    let groups = if shape.c.is_multiple_of(3) { 3 } else { 1 };
    let mean = Op::AdaptiveAvgPool { out: [1, 1] };
    let first = Op::Slice { first: 0, channels: 1 };
    let standardise = |groups, across_positions, eps| Op::Standardise(Standardise { groups, across_positions, eps });
    if let Some(resize) = resize(name) {
        return push("op", Op::Resize(resize), &[x]);
    }
    let lrn = |size, alpha, beta, k| Some(LocalResponseNorm { size, alpha, beta, k });
    let norm = match name {
        "lrn" => lrn(5, 0.7, 0.75, 1.0),
        "lrn_even" => lrn(4, 0.3, 0.5, 2.0),
        "lrn_one" => lrn(1, 0.3, 1.3, 0.5),
        "lrn_of_all" => lrn(40, 9.0, 1.0, 1.0),
        _ => None,
    };
    if let Some(norm) = norm {
        return b.local_response_norm("op", x, norm).unwrap();
    }
    match name {
        "channel_max" => push("op", Op::ChannelMax, &[x]),
        "norm_channels" => b.norm("op", x, Over::Channels).unwrap(),
        "norm_positions" => b.norm("op", x, Over::Positions).unwrap(),
        "norm_everything" => b.norm("op", x, Over::Everything).unwrap(),
        "norm_of_zeros" => {
            let less = push("less", Op::Affine(Affine::sum([-1.25])), &[x]);
            let relu = push("relu", Op::Relu, &[less]);
            b.norm("op", relu, Over::Channels).unwrap()
        }
        "power_positions" => {
            let relu = push("relu", Op::Relu, &[x]);
            let base = push("base", Op::Affine(Affine::sum([0.5])), &[relu]);
            let first = push("first", first, &[x]);
            b.power("op", base, first).unwrap()
        }
        "power_channels" => {
            let mean = push("mean", mean, &[x]);
            let square = push("square", Op::Mul, &[mean, mean]);
            let base = push("base", Op::Affine(Affine::sum([0.25])), &[square]);
            b.power("op", base, x).unwrap()
        }
        "mul_channels" | "add_channels" => {
            let mean = push("mean", mean, &[x]);
            push("op", if name == "mul_channels" { Op::Mul } else { Op::Add }, &[x, mean])
        }
        "mul_positions" => {
            let first = push("first", first, &[x]);
            push("op", Op::Mul, &[x, first])
        }
        "add_positions" => {
            let first = push("first", first, &[x]);
            push("op", Op::Add, &[first, x])
        }
        "mul_equal" => {
            let relu = push("relu", Op::Relu, &[x]);
            push("op", Op::Mul, &[x, relu])
        }
        "mul_both" | "add_both" => {
            let first = push("first", first, &[x]);
            let mean = push("mean", mean, &[x]);
            let op = if name == "mul_both" { Op::Mul } else { Op::Add };
            push("op", op, &if name == "mul_both" { [first, mean] } else { [mean, first] })
        }
        "mul_one" => {
            let mean = push("mean", mean, &[x]);
            let one = push("one", first, &[mean]);
            push("op", Op::Mul, &[x, one])
        }
        "divide_channels" => {
            let mean = push("mean", mean, &[x]);
            let square = push("square", Op::Mul, &[mean, mean]);
            let divisor = push("divisor", Op::Affine(Affine::sum([0.5])), &[square]);
            push("op", Op::Divide, &[x, divisor])
        }
        "divide_positions" => {
            let first = push("first", first, &[x]);
            let relu = push("relu", Op::Relu, &[x]);
            let divisor = push("divisor", Op::Affine(Affine::sum([0.25])), &[relu]);
            push("op", Op::Divide, &[first, divisor])
        }
        "softmax" => push("op", Op::Softmax { groups: 1 }, &[x]),
        "softmax_groups" => {
            let size = if shape.c.is_multiple_of(3) { 3 } else { 1 };
            push("op", Op::Softmax { groups: shape.c / size }, &[x])
        }
        "reduce_channels" => push("op", Op::Reduce(Reduce { over: Over::Channels, mean: false }), &[x]),
        "reduce_positions" => push("op", Op::Reduce(Reduce { over: Over::Positions, mean: true }), &[x]),
        "reduce_everything" => push("op", Op::Reduce(Reduce { over: Over::Everything, mean: true }), &[x]),
        "affine" => push("op", affine(shape.c), &[x]),
        "affine_scalars" => {
            let scaled = push("scaled", Op::Affine(Affine::product([0.75])), &[x]);
            push("op", Op::Affine(Affine::sum([-0.5])), &[scaled])
        }
        "affine_elements" => {
            push("op", Op::Affine(Affine { scale: [0.75].into(), shift: numbers(4, shape.len()).into() }), &[x])
        }
        "slice" => push("op", Op::Slice { first: shape.c / 2, channels: shape.c - shape.c / 2 }, &[x]),
        "split" => {
            let mut part = |c: usize| push(&format!("part {c}"), Op::Slice { first: c, channels: 1 }, &[x]);
            let parts: Vec<NodeId> = (0..shape.c).rev().map(&mut part).collect();
            push("op", Op::Concat, &parts)
        }
        "shuffle" => push("op", Op::Shuffle { groups }, &[x]),
        "pad" => push("op", Op::Pad { rows: [1, 3], columns: [2, 0] }, &[x]),
        "crop" => {
            let padded = push("padded", Op::Pad { rows: [2, 1], columns: [1, 2] }, &[x]);
            push("op", Op::Pad { rows: [1, -2], columns: [-1, 1] }, &[padded])
        }
        "global_max" => push("op", Op::GlobalMaxPool, &[x]),
        "layer_norm" => {
            let norm = push("norm", standardise(1, false, 1e-6), &[x]);
            push("op", affine(shape.c), &[norm])
        }
        "layer_norm_all" => push("op", standardise(1, true, 1e-3), &[x]),
        "group_norm" => {
            let norm = push("norm", standardise(groups, true, 1e-5), &[x]);
            push("op", affine(shape.c), &[norm])
        }
        "instance_norm" => push("op", standardise(shape.c, true, 1e-2), &[x]),
        "avg_pool_1x1" => push("op", Op::AvgPool { window: Window::square(1, 1, 0), count_padding: true }, &[x]),
        "avg_pool_flags" | "avg_pool_inside" => {
            let window = Window { ceil: true, ..Window::square(3, 2, 1) };
            push("op", Op::AvgPool { window, count_padding: name == "avg_pool_flags" }, &[x])
        }
        "conv_asymmetric" => push("op", conv(4, shape.c, window([2, 3], [1, 3, 2, 0]), 1), &[x]),
        "conv_dilated" => {
            let window = Window { dilation: [2; 2], stride: [2, 1], ..window([3; 2], [2; 4]) };
            push("op", conv(5, shape.c, window, 1), &[x])
        }
        "conv_grouped" => push("op", conv(2 * shape.c, 1, window([3; 2], [1; 4]), shape.c), &[x]),
        "linear_last" => push("op", conv(7, shape.c, window([1; 2], [0; 4]), 1), &[x]),
        "pool_conv_head" => {
            let mean = push("mean", mean, &[x]);
            push("op", conv(7, shape.c, window([1; 2], [0; 4]), 1), &[mean])
        }
        _ => panic!("no graph for {name}"),
    }
}

/// Fails where a number is off by more than its bound.
fn close(what: &str, got: &Dense, want: &Dense, bound: impl Fn(usize) -> f64) {
    assert_eq!((got.shape, got.n()), (want.shape, want.n()), "{what}");
    for (i, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
        let near = (g - w).abs() <= bound(i);
        assert!(near, "{what}: number {i} is {g:e} in place of {w:e}, allowed {:e}", bound(i));
    }
}

/// The largest number, and 1 at least.
fn size(d: &Dense) -> f64 {
    d.data.iter().fold(1.0, |m, v| m.max(v.abs()))
}

/// Output and gradient of an engine.
fn run(engine: &mut Engine, precision: Precision, graph: &Graph, node: NodeId, x: &Dense, up: &Dense) -> [Dense; 2] {
    let tensor = |d: &Dense| {
        let [c, h, w] = d.shape.dims();
        Tensor::rounded([d.n(), c, h, w], d.data.clone(), precision).unwrap()
    };
    let x = Batch::new(&tensor(x)).unwrap();
    let y = engine.node_outputs(graph, &x, &[node]).unwrap().remove(0);
    let (signal, rules) = (tensor(up), Composite::gradient());
    let way = Pullback { from: node, signal: &signal, rules: &rules, to: graph.input() };
    let g = engine.pullback(graph, &x, &way).unwrap();
    [Dense::from_tensor(&y), Dense::from_tensor(&g)]
}

#[test]
fn operations_are_those_of_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ops.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let dense = |name: &str| {
        let view = file.tensor(name).unwrap();
        let &[_, c, h, w] = view.shape() else { panic!("{name} has shape {:?}", view.shape()) };
        let data = view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Dense::new(Shape::new(c, h, w), data)
    };
    let mut engines: Vec<(Precision, Engine)> =
        machines().iter().map(|s| (s.precision, Engine::new(s).unwrap())).collect();
    let mut names = file.names();
    names.retain(|name| name.ends_with(".y"));
    names.sort_unstable();
    assert!(names.len() > 100);
    let mut widest = 0.0f64;
    for name in names {
        let key = name.trim_end_matches(".y");
        let (case, dims) = key.split_once('.').unwrap();
        let dims: Vec<usize> = dims.split('x').map(|d| d.parse().unwrap()).collect();
        let shape = Shape::new(dims[1], dims[2], dims[3]);
        let x = Dense::new(shape, numbers(1, dims[0] * shape.len()));
        let (want_y, want_g) = (dense(name), dense(&format!("{key}.g")));
        let mut b = GraphBuilder::new(shape);
        let node = build(case, &mut b);
        let up = Dense::new(b.shape(node), numbers(2, want_y.data.len()));
        let flat = b.push("flatten", Op::Flatten, &[node]).unwrap();
        let graph = b.finish(flat).unwrap();
        let outputs = forward(&graph, &x);
        let back = backward(&graph, &outputs, node, up.clone(), ReluRule::Vjp);
        let fine = [&want_y, &want_g].map(|want| 1e-12 * size(want));
        close(&format!("{key}, reference"), &outputs[node.index()], &want_y, |_| fine[0]);
        close(&format!("{key}, reference, gradient"), &back[0], &want_g, |_| fine[1]);
        // The reference rounds too.
        let unit = 2f64.powi(-24) + f64::EPSILON;
        let bounds = forward_bounds(&graph, &outputs, unit);
        let of_gradient = backward_bound(&graph, (&outputs, &bounds), (node, &up), unit);
        let bounds = [&bounds[node.index()], &of_gradient];
        for (bound, want) in bounds.iter().zip([&want_y, &want_g]) {
            widest = bound.data.iter().fold(widest, |m, b| m.max(b / size(want)));
        }
        // A batch of one and one of five, of which the last ones are pictures that the file has.
        for n in [1, 5] {
            let of = |d: &Dense| {
                let items: Vec<f64> = (0..n).flat_map(|i| d.item(i % d.n()).data).collect();
                Dense::new(d.shape, items)
            };
            let [x, up, want_y, want_g] = [&x, &up, &want_y, &want_g].map(of);
            let bounds = bounds.map(of);
            for (precision, engine) in &mut engines {
                let what = format!("{key}, batch {n}, {} {precision}", engine.describe().kernels);
                let [y, g] = run(engine, *precision, &graph, node, &x, &up);
                let allowed = |k: usize, i: usize| match precision {
                    Precision::F64 => fine[k],
                    // PyTorch rounds too.
                    Precision::F32 => bounds[k].data[i] + fine[k],
                };
                close(&what, &y, &want_y, |i| allowed(0, i));
                close(&format!("{what}, gradient"), &g, &want_g, |i| allowed(1, i));
            }
        }
    }
    println!("the widest bound is {widest:.1e} of the largest number");
    assert!(widest <= 1e-2, "{widest:e}: a bound that allows anything");
}
