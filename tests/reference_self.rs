//! The reference implementations against finite differences and values worked out by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use reference::cases::{self, Case, Numbers};
use reference::{
    Dense, ReluRule, backward, backward_magnitude, forward, forward_magnitude, op_divides, op_forward, op_vjp,
};
use verilume::graph::{GraphBuilder, Linear, NodeId, Op};
use verilume::tensor::{Shape, Window};

/// Numbers in (-3, 3), no two of them and none and 0 closer than a step of finite differences.
fn apart(n: usize, shape: Shape) -> Dense {
    let count = n * shape.len();
    let value = |i: usize| (((i * 7919 + 13) % count) as f64 + 0.37) / count as f64 * 6.0 - 3.0;
    Dense::new(shape, (0..count).map(value).collect())
}

fn moved(x: &Dense, direction: &Dense, step: f64) -> Dense {
    x.zip(direction, |x, d| x + step * d)
}

/// `⟨u, f(x + h d) − f(x − h d)⟩ / 2h`, where f is the output of `node`.
fn slope(case: &Case, x: &Dense, direction: &Dense, u: &Dense) -> f64 {
    const H: f64 = 1e-5;
    let at = |step: f64| forward(&case.graph, &moved(x, direction, step))[case.node.index()].dot(u);
    (at(H) - at(-H)) / (2.0 * H)
}

#[test]
fn vector_jacobian_products_are_slopes_in_random_directions() {
    for case in cases::all(Numbers::Reals) {
        let x = apart(case.n, case.graph.input_shape());
        let outputs = forward(&case.graph, &x);
        let out = &outputs[case.node.index()];
        let u = Numbers::Reals.maps(31, case.n, out.shape);
        let d = Numbers::Reals.maps(32, case.n, x.shape);
        let back = backward(&case.graph, &outputs, case.node, u.clone(), ReluRule::Vjp);
        let (got, want) = (back[0].dot(&d), slope(&case, &x, &d, &u));
        let scale = out.map(f64::abs).dot(&u.map(f64::abs)).max(1.0);
        assert!((got - want).abs() <= 1e-8 * scale, "{}: {got} for {want}", case.name);
        out.assert_informative(&case.name);
        back[0].assert_informative(&case.name);
    }
}

#[test]
fn vector_jacobian_products_are_slopes_in_every_coordinate() {
    for case in cases::all(Numbers::Reals) {
        let x = apart(1, case.graph.input_shape());
        if x.data.len() > 150 {
            continue;
        }
        let outputs = forward(&case.graph, &x);
        let u = Numbers::Reals.maps(33, 1, outputs[case.node.index()].shape);
        let back = backward(&case.graph, &outputs, case.node, u.clone(), ReluRule::Vjp);
        for i in 0..x.data.len() {
            let mut d = Dense::zeros(1, x.shape);
            d.data[i] = 1.0;
            let (got, want) = (back[0].data[i], slope(&case, &x, &d, &u));
            assert!((got - want).abs() <= 1e-7 * want.abs().max(1.0), "{}, element {i}: {got} for {want}", case.name);
        }
    }
}

#[test]
fn gradients_of_whole_nets_are_slopes_at_every_node() {
    for graph in cases::nets(Numbers::Reals) {
        let x = apart(2, graph.input_shape());
        let outputs = forward(&graph, &x);
        let u = Numbers::Reals.maps(34, 2, outputs[graph.output().index()].shape);
        let back = backward(&graph, &outputs, graph.output(), u.clone(), ReluRule::Vjp);
        for id in graph.ids() {
            // What follows `id` is run again from a moved output; earlier nodes keep theirs.
            // Zeros behind a ReLU stay: pools that see several of them have no slope there.
            let d = Numbers::Reals.maps(35, 2, outputs[id.index()].shape);
            let d = outputs[id.index()].zip(&d, |v, d| if v == 0.0 { 0.0 } else { d });
            let at = |step: f64| {
                let mut all = outputs.clone();
                all[id.index()] = moved(&outputs[id.index()], &d, step);
                for next in graph.ids().skip(id.index() + 1) {
                    let node = graph.node(next);
                    let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &all[i.index()]).collect();
                    all[next.index()] = op_forward(&node.op, &inputs);
                }
                all[graph.output().index()].dot(&u)
            };
            let (got, want) = (back[id.index()].dot(&d), (at(1e-6) - at(-1e-6)) / 2e-6);
            let name = &graph.node(id).name;
            assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{name}: {got} for {want}");
        }
    }
}

fn row(values: &[f64]) -> Dense {
    Dense::new(Shape::new(1, 1, values.len()), values.to_vec())
}

fn run(op: Op, x: &Dense) -> Dense {
    op_forward(&op, &[x])
}

fn avg(window: Window, count_padding: bool) -> Op {
    Op::AvgPool { window, count_padding }
}

#[test]
fn convolutions_correlate_and_do_not_flip() {
    let g =
        cases::Geometry { c: 1, k: 1, kernel: [1, 3], padding: verilume::tensor::Padding::Same, ..Default::default() };
    let Op::Conv(conv) = g.conv(Numbers::Integers) else { unreachable!() };
    let conv = verilume::graph::Conv {
        weight: reference::weight_f64([1, 1, 1, 3], &[1.0, 10.0, 100.0]),
        bias: Some([0.5].into()),
        ..conv
    };
    let z = run(Op::Conv(conv.clone()), &row(&[1.0, 2.0, 3.0]));
    assert_eq!(z.data, [210.5, 321.5, 32.5]);
    let d = op_vjp(&Op::Conv(conv), &[&row(&[0.0; 3])], &row(&[1.0, 0.0, 0.0]), ReluRule::Vjp);
    assert_eq!(d[0].data, [10.0, 100.0, 0.0]);
}

#[test]
fn groups_see_their_own_channels_only() {
    let g = cases::Geometry {
        c: 4,
        k: 4,
        groups: 2,
        kernel: [1; 2],
        padding: verilume::tensor::Padding::all(0),
        ..Default::default()
    };
    let Op::Conv(conv) = g.conv(Numbers::Integers) else { unreachable!() };
    let weight = reference::weight_f64([4, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let conv = verilume::graph::Conv { weight, bias: None, ..conv };
    let x = Dense::new(Shape::vector(4), vec![1.0, 10.0, 100.0, 1000.0]);
    assert_eq!(run(Op::Conv(conv), &x).data, [21.0, 43.0, 6500.0, 8700.0]);
}

#[test]
fn average_pools_divide_as_pytorch_does() {
    let x = row(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let w = |kernel, stride, pad: usize, ceil| Window {
        kernel: [1, kernel],
        stride: [1, stride],
        padding: verilume::tensor::Padding::Explicit { top: 0, bottom: 0, left: pad, right: pad },
        ceil,
        ..Window::square(1, 1, 0)
    };
    assert_eq!(run(avg(w(3, 2, 1, false), true), &x).data, [1.0, 3.0, 3.0]);
    assert_eq!(run(avg(w(3, 2, 1, false), false), &x).data, [1.5, 3.0, 4.5]);
    // A last, partial window: padding counts, what lies past it does not.
    assert_eq!(run(avg(w(2, 2, 0, true), true), &x).data, [1.5, 3.5, 5.0]);
    assert_eq!(run(avg(w(4, 3, 1, true), true), &x).data, [6.0 / 4.0, 12.0 / 4.0]);
    assert_eq!(run(avg(w(4, 4, 1, true), true), &x).data, [6.0 / 4.0, 9.0 / 3.0]);
    assert_eq!(run(avg(w(4, 4, 1, true), false), &x).data, [2.0, 4.5]);
}

#[test]
fn adaptive_pools_overlap_their_bins() {
    let x = row(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let pool = |out| run(Op::AdaptiveAvgPool { out: [1, out] }, &x).data;
    assert_eq!(pool(1), [3.0]);
    assert_eq!(pool(2), [2.0, 4.0]);
    assert_eq!(pool(3), [1.5, 3.0, 4.5]);
    assert_eq!(pool(5), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(pool(7), [1.0, 1.5, 2.5, 3.0, 3.5, 4.5, 5.0]);
}

#[test]
fn max_pools_take_the_first_of_equals_and_never_padding() {
    let pool = Op::MaxPool(Window { kernel: [1, 2], stride: [1, 1], ..Window::square(1, 1, 0) });
    let x = row(&[2.0, 2.0, 1.0, 1.0]);
    assert_eq!(run(pool.clone(), &x).data, [2.0, 2.0, 1.0]);
    let back = op_vjp(&pool, &[&x], &row(&[1.0, 10.0, 100.0]), ReluRule::Vjp);
    assert_eq!(back[0].data, [1.0, 10.0, 100.0, 0.0]);
    let negative = Dense::new(Shape::new(1, 2, 2), vec![-1.0, -2.0, -3.0, -4.0]);
    assert_eq!(run(Op::MaxPool(Window::square(3, 1, 1)), &negative).data, [-1.0; 4]);
    let square = Dense::new(Shape::new(1, 2, 2), vec![0.0; 4]);
    let back = op_vjp(&Op::MaxPool(Window::square(2, 2, 0)), &[&square], &row(&[3.0]), ReluRule::Vjp);
    assert_eq!(back[0].data, [3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn nan_passes_through() {
    let x = row(&[1.0, f64::NAN, 3.0, 4.0]);
    let pool = Op::MaxPool(Window { kernel: [1, 2], stride: [1, 1], ..Window::square(1, 1, 0) });
    let nan = |d: Dense| d.data.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
    assert_eq!(nan(run(pool, &x)), [true, true, false]);
    assert_eq!(nan(run(Op::Relu, &x)), [false, true, false, false]);
    assert_eq!(nan(run(Op::Clamp { lo: 0.0, hi: 6.0 }, &x)), [false, true, false, false]);
}

#[test]
fn relu_rules_gate_as_their_papers_say() {
    let x = row(&[-1.0, -1.0, 0.0, 0.0, 2.0, 2.0]);
    let up = row(&[3.0, -3.0, 3.0, -3.0, 3.0, -3.0]);
    let back = |op: Op, rule| op_vjp(&op, &[&x], &up, rule)[0].data.clone();
    assert_eq!(back(Op::Relu, ReluRule::Vjp), [0.0, 0.0, 0.0, 0.0, 3.0, -3.0]);
    assert_eq!(back(Op::Relu, ReluRule::Guided), [0.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
    assert_eq!(back(Op::Relu, ReluRule::Deconvnet), [3.0, 0.0, 3.0, 0.0, 3.0, 0.0]);
    let clamp = Op::Clamp { lo: -1.0, hi: 2.0 };
    assert_eq!(back(clamp.clone(), ReluRule::Vjp), [0.0, 0.0, 3.0, -3.0, 0.0, 0.0]);
    assert_eq!(back(clamp.clone(), ReluRule::Guided), [0.0, 0.0, 3.0, 0.0, 0.0, 0.0]);
    assert_eq!(back(clamp, ReluRule::Deconvnet), [3.0, 0.0, 3.0, 0.0, 3.0, 0.0]);
}

#[test]
fn gradients_add_up_where_a_node_is_read_twice() {
    let mut b = GraphBuilder::new(Shape::vector(2));
    let weight = reference::weight_f64([1, 4, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
    let both = b.push("both", Op::Concat, &[b.input(), b.input()]).unwrap();
    let fc = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[both]).unwrap();
    let graph = b.finish(fc).unwrap();
    let x = Dense::new(Shape::vector(2), vec![1.0, 10.0]);
    let outputs = forward(&graph, &x);
    assert_eq!(outputs[fc.index()].data, [64.0]);
    let seed = Dense::new(Shape::vector(1), vec![1.0]);
    assert_eq!(backward(&graph, &outputs, fc, seed, ReluRule::Vjp)[0].data, [4.0, 6.0]);
}

#[test]
fn folding_batch_norms_keeps_the_function() {
    for graph in cases::nets(Numbers::Reals) {
        let folded = graph.fold().unwrap();
        let kind = |id: NodeId| folded.node(id).op.kind();
        assert!(folded.ids().all(|id| kind(id) != "batch_norm"));
        let x = apart(2, graph.input_shape());
        let (a, b) = (forward(&graph, &x), forward(&folded, &x));
        let (a, b) = (&a[graph.output().index()], &b[folded.output().index()]);
        a.assert_informative("logits");
        let scale = a.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (a, b) in a.data.iter().zip(&b.data) {
            assert!((a - b).abs() <= 1e-12 * scale, "{a} became {b}");
        }
    }
}

/// The largest power of two (at most 1) that divides every element.
fn grain(d: &Dense) -> f64 {
    let of = |v: f64| (0..60).map(|k| 0.5f64.powi(k)).find(|g| (v / g).fract() == 0.0).unwrap();
    d.data.iter().fold(1.0, |g, &v| of(v).min(g))
}

/// Sums of |products| that stay below 2^24 grains are exact in single precision in whatever order they are added.
fn assert_exact_in_single_precision(what: &str, magnitude: &Dense, grain: f64) {
    let largest = magnitude.data.iter().fold(0.0f64, |m, &v| m.max(v));
    assert!(largest / grain <= 16_777_216.0, "{what}: {largest} in steps of {grain}");
}

#[test]
fn integer_cases_are_exact_in_single_precision() {
    for case in cases::all(Numbers::Integers).iter().filter(|case| !op_divides(case.op())) {
        let x = Numbers::Integers.maps(36, case.n, case.graph.input_shape());
        let outputs = forward(&case.graph, &x);
        let inputs: Vec<&Dense> = case.graph.node(case.node).inputs.iter().map(|i| &outputs[i.index()]).collect();
        let out = &outputs[case.node.index()];
        assert_exact_in_single_precision(&case.name, &forward_magnitude(case.op(), &inputs), grain(out));
        let seed = Numbers::Integers.maps(37, case.n, out.shape);
        for rule in ReluRule::ALL {
            let back = backward(&case.graph, &outputs, case.node, seed.clone(), rule);
            let magnitude = backward_magnitude(&case.graph, &outputs, case.node, &seed, rule);
            assert_exact_in_single_precision(&case.name, &magnitude[0], grain(&back[0]));
        }
    }
}

#[test]
fn integer_nets_are_exact_in_single_precision() {
    for (i, graph) in cases::nets(Numbers::Integers).iter().enumerate() {
        let x = Numbers::Integers.maps(50 + i as u64, 3, graph.input_shape());
        let outputs = forward(graph, &x);
        for id in graph.ids().skip(1) {
            let node = graph.node(id);
            let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
            // An average is a sum of its terms divided by a power of two.
            let grain = grain(&outputs[id.index()]);
            assert_exact_in_single_precision(&node.name, &forward_magnitude(&node.op, &inputs), grain);
        }
        let seed = Numbers::Integers.maps(60, 3, outputs[graph.output().index()].shape);
        for rule in ReluRule::ALL {
            let back = backward(graph, &outputs, graph.output(), seed.clone(), rule);
            let magnitude = backward_magnitude(graph, &outputs, graph.output(), &seed, rule);
            for id in graph.ids() {
                let what = format!("net {i}, {rule:?}, {}", graph.node(id).name);
                assert_exact_in_single_precision(&what, &magnitude[id.index()], grain(&back[id.index()]));
            }
        }
    }
}
