//! Gradients of weights and biases: against loops in double precision on every set of kernels, exactly on small integers and
//! within rounding on reals; through a small net against differences of its loss.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::machines;
use reference::cases::{self, Case, Geometry, Numbers};
use reference::{Dense, weight_f64};
use verilume::ErrorKind;
use verilume::engine::{Batch, Copies, Engine, Settings, Task};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op};
use verilume::program::{Builder, Decided, Score};
use verilume::rule::weight_gradients;
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// Sums of products and of their magnitudes: by picture the gradient of the weight, `[k, c / groups · kh, kw]`.
fn reference(op: &Op, x: &Dense, up: &Dense) -> [Dense; 2] {
    match op {
        Op::Linear(linear) => {
            let [k, c, ..] = linear.weight.dims();
            let product = Dense::from_fn(x.n(), Shape::new(k, c, 1), |n, k, c, _| up.at(n, k, 0, 0) * x.at(n, c, 0, 0));
            [product.clone(), product.map(f64::abs)]
        }
        Op::Conv(conv) => {
            let [k, c, kh, kw] = conv.weight.dims();
            let (window, pads) = (&conv.window, conv.window.pads(x.shape.h, x.shape.w));
            let shape = Shape::new(k, c * kh, kw);
            let sum = |of: &dyn Fn(f64) -> f64| {
                Dense::from_fn(x.n(), shape, |n, ko, row, kx| {
                    let (ci, ky) = (ko / (k / conv.groups) * c + row / kh, row % kh);
                    let mut sum = 0.0;
                    for y in 0..up.shape.h {
                        for col in 0..up.shape.w {
                            let iy = (y * window.stride[0] + ky * window.dilation[0]).checked_sub(pads[0][0]);
                            let ix = (col * window.stride[1] + kx * window.dilation[1]).checked_sub(pads[1][0]);
                            if let (Some(iy), Some(ix)) = (iy, ix)
                                && iy < x.shape.h
                                && ix < x.shape.w
                            {
                                sum += of(up.at(n, ko, y, col) * x.at(n, ci, iy, ix));
                            }
                        }
                    }
                    sum
                })
            };
            [sum(&|v| v), sum(&f64::abs)]
        }
        _ => panic!("{} has no weight", op.kind()),
    }
}

/// Gradients of weight and bias of `node` for a signal at its output.
fn gradients(
    engine: &mut Engine,
    graph: &Graph,
    node: NodeId,
    x: &Dense,
    up: &Dense,
    precision: Precision,
) -> [Dense; 2] {
    let tensors = |d: &Dense| -> Vec<Tensor> {
        (0..d.n()).map(|i| Tensor::rounded(d.shape.dims(), d.item(i).data, precision).unwrap()).collect()
    };
    let batch = Batch::of(tensors(x)).unwrap();
    let (targets, copies, loads) = (vec![0; x.n()], Copies::one(), [tensors(up)]);
    let task = Task { x: &batch, targets: &targets, copies: &copies, loads: &loads };
    let outcome = engine.evaluate_once(graph, &task, |b| {
        let signal = b.load(0, up.shape)?;
        let weight = b.weight_adjoint(node, signal)?;
        b.store(weight, 0)?;
        let bias = b.bias_adjoint(signal)?;
        b.store(bias, 1)
    });
    let stores = outcome.unwrap().stores;
    let dense = |all: &[Tensor]| Dense::from_tensor(&Tensor::stack(all).unwrap());
    [dense(&stores[0]), dense(&stores[1])]
}

fn check(engine: &mut Engine, settings: &Settings, case: &Case, numbers: Numbers, salt: u64) -> Result<(), String> {
    let x = numbers.maps(salt, case.n, case.graph.input_shape());
    let up = numbers.maps(salt + 1, case.n, case.graph.node(case.node).shape);
    let unit = match settings.precision {
        Precision::F32 => 2f64.powi(-24),
        Precision::F64 => 2f64.powi(-53),
    };
    let per_unit = |terms: usize| match numbers {
        Numbers::Integers => 0.0,
        Numbers::Reals => (terms + 2) as f64 * (unit + f64::EPSILON),
    };
    let [weight, bias] = gradients(engine, &case.graph, case.node, &x, &up, settings.precision);
    let who = format!("{:?} {}, {numbers:?}, {}", settings.kernels, settings.precision, case.name);
    let [want, magnitude] = reference(case.op(), &x, &up);
    assert_eq!((weight.shape, weight.n()), (want.shape, want.n()), "{who}");
    let plane = up.shape.plane();
    for (i, (g, w)) in weight.data.iter().zip(&want.data).enumerate() {
        let within = (g - w).abs() <= per_unit(plane) * magnitude.data[i];
        if !within {
            return Err(format!("{who}: weight {i}: {g} for {w}"));
        }
    }
    for (i, g) in bias.data.iter().enumerate() {
        let sums = &up.data[i * plane..(i + 1) * plane];
        let (sum, size) = (sums.iter().sum::<f64>(), sums.iter().map(|v| v.abs()).sum::<f64>());
        // A mean times the number of positions.
        let within = (g - sum).abs() <= (plane + 4) as f64 * (unit + f64::EPSILON) * size;
        if !within {
            return Err(format!("{who}: bias {i}: {g} for {sum}"));
        }
    }
    Ok(())
}

fn has_weight(case: &Case) -> bool {
    matches!(case.op(), Op::Conv(_) | Op::Linear(_))
}

#[test]
fn every_convolution_and_linear_layer_on_every_machine() {
    let mut count = 0;
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for numbers in [Numbers::Integers, Numbers::Reals] {
            let cases = cases::convolutions(numbers);
            let failures: Vec<String> = cases
                .iter()
                .filter(|c| has_weight(c))
                .enumerate()
                .filter_map(|(i, case)| {
                    count += 1;
                    check(&mut engine, &settings, case, numbers, 500 + 2 * i as u64).err()
                })
                .collect();
            assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
        }
    }
    assert!(count > 400, "{count} cases");
}

#[test]
fn strides_padding_dilation_and_groups_together() {
    let window = |kernel, stride, dilation, padding, groups, c, k| Geometry {
        c,
        k,
        kernel,
        stride,
        dilation,
        padding,
        groups,
        ..Geometry::default()
    };
    let uneven = Padding::Explicit { top: 2, bottom: 0, left: 0, right: 3 };
    let cases = [
        (window([3, 2], [2, 3], [2, 1], uneven, 3, 6, 9), [9, 11]),
        (window([2, 5], [1, 2], [3, 2], Padding::Same, 1, 19, 5), [13, 12]),
        // Blocks of output channels that hold several groups, and groups that hold several blocks.
        (window([3, 3], [2, 2], [1, 1], Padding::all(1), 5, 15, 35), [7, 6]),
        (window([1, 3], [1, 1], [1, 2], Padding::all(0), 2, 34, 66), [5, 9]),
        (window([3, 3], [1, 1], [1, 1], Padding::all(1), 21, 21, 42), [6, 6]),
        // No tap but one sees the input.
        (window([3, 3], [4, 4], [5, 5], Padding::all(5), 1, 3, 4), [1, 1]),
        (window([1, 1], [1, 2], [1, 1], Padding::Explicit { top: 0, bottom: 0, left: 1, right: 0 }, 1, 2, 2), [1, 1]),
    ];
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for numbers in [Numbers::Integers, Numbers::Reals] {
            for (i, (geometry, [h, w])) in cases.iter().enumerate() {
                let case = Case::of(format!("{geometry:?}"), 3, Shape::new(geometry.c, *h, *w), geometry.conv(numbers));
                check(&mut engine, &settings, &case, numbers, 900 + 2 * i as u64).unwrap();
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_batch_threads_or_memory() {
    let geometry = Geometry { c: 5, k: 21, ..Geometry::default() };
    let case = Case::of("conv", 7, Shape::new(5, 9, 8), geometry.conv(Numbers::Reals));
    let (x, up) = (
        Numbers::Reals.maps(1, 7, case.graph.input_shape()),
        Numbers::Reals.maps(2, 7, case.graph.node(case.node).shape),
    );
    let run = |threads: usize, memory: Option<u64>, x: &Dense, up: &Dense| {
        let mut engine = Engine::new(&Settings { threads: Some(threads), memory, ..Settings::default() }).unwrap();
        gradients(&mut engine, &case.graph, case.node, x, up, Precision::F32)
    };
    let all = run(2, None, &x, &up);
    assert_eq!(run(1, None, &x, &up), all);
    assert_eq!(run(3, Some(1 << 20), &x, &up), all);
    for i in 0..7 {
        let alone = run(2, None, &x.item(i), &up.item(i));
        assert_eq!(alone, [all[0].item(i), all[1].item(i)]);
    }
}

/// Grouped, dilated and strided convolutions, pools and two linear layers, with the given numbers as parameters.
fn small(parameters: &[f64]) -> Graph {
    let mut rest = parameters;
    let mut take = |n: usize| {
        let (own, after) = rest.split_at(n);
        rest = after;
        own.to_vec()
    };
    let mut conv = |k: usize, c: usize, window: Window, groups: usize| {
        let dims = [k, c / groups, window.kernel[0], window.kernel[1]];
        let weight = weight_f64(dims, &take(dims.iter().product()));
        Op::Conv(Conv { weight, bias: Some(take(k).into()), window, groups })
    };
    let mut b = GraphBuilder::new(Shape::new(2, 9, 8));
    let first = conv(4, 2, Window { dilation: [1, 2], ..Window::square(3, 1, 2) }, 2);
    let second = conv(6, 4, Window { stride: [1, 2], ..Window::square(3, 1, 1) }, 1);
    let x = b.push("first", first, &[b.input()]).unwrap();
    let x = b.push("relu", Op::Relu, &[x]).unwrap();
    let pooled = b.push("pool", Op::MaxPool(Window::square(2, 2, 0)), &[x]).unwrap();
    let x = b.push("second", second, &[pooled]).unwrap();
    let x = b.push("relu6", Op::Clamp { lo: 0.0, hi: 6.0 }, &[x]).unwrap();
    let x = b.push("average", Op::AvgPool { window: Window::square(2, 1, 0), count_padding: false }, &[x]).unwrap();
    let x = b.push("flatten", Op::Flatten, &[x]).unwrap();
    let n = b.shape(x).len();
    let mut linear = |b: &mut GraphBuilder, name: &str, x: NodeId, k: usize, c: usize| {
        let weight = weight_f64([k, c, 1, 1], &take(k * c));
        b.push(name, Op::Linear(Linear { weight, bias: Some(take(k).into()) }), &[x]).unwrap()
    };
    let x = linear(&mut b, "hidden", x, 5, n);
    let x = b.push("relu.2", Op::Relu, &[x]).unwrap();
    let x = linear(&mut b, "fc", x, 3, 5);
    assert!(rest.is_empty(), "{} parameters too many", rest.len());
    b.finish(x).unwrap()
}

#[test]
fn gradients_are_the_differences_of_the_loss() {
    const COUNT: usize = 36 + 4 + 216 + 6 + 5 * 24 + 5 + 15 + 3;
    let parameters: Vec<f64> = Numbers::Reals.fill(31, COUNT, 1).iter().map(|v| 0.5 * v).collect();
    let targets = [0, 2, 1];
    let x = Numbers::Reals.maps(32, 3, Shape::new(2, 9, 8));
    let x = Batch::new(&x.to_tensor()).unwrap();
    let mut engine =
        Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap();
    let graph = small(&parameters);
    assert_eq!(graph.parameters(), COUNT);
    let task = Task { x: &x, targets: &targets, copies: &Copies::one(), loads: &[] };
    let stores = engine.evaluate_once(&graph, &task, |b| {
        let seed = b.seed(Score::LogProb);
        let layers = weight_gradients(b, graph.output(), seed)?;
        let names: Vec<&str> = layers.iter().map(|l| graph.node(l.node).name.as_str()).collect();
        assert_eq!(names, ["first", "second", "hidden", "fc"]);
        for (i, layer) in layers.iter().enumerate() {
            b.store(layer.weight, 2 * i)?;
            b.store(layer.bias.unwrap(), 2 * i + 1)?;
        }
        Ok(())
    });
    let stores = stores.unwrap().stores;
    let gradient: Vec<f64> = stores
        .iter()
        .flat_map(|all| {
            let mut sum = vec![0.0; all[0].len()];
            all.iter().for_each(|t| sum.iter_mut().zip(t.to_f64().iter()).for_each(|(s, g)| *s += g));
            sum
        })
        .collect();
    assert_eq!(gradient.len(), COUNT);
    let mut loss = |parameters: &[f64]| {
        let graph = small(parameters);
        let logits = engine.forward(&graph, &x).unwrap();
        engine.forget(&graph);
        let log = |(i, &t): (usize, &usize)| Score::LogProb.evaluate(&logits.item(i).unwrap().to_f64(), t).0;
        targets.iter().enumerate().map(log).sum::<f64>()
    };
    let size = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let mut silent = 0;
    for (i, &g) in gradient.iter().enumerate() {
        let h = 1e-6;
        let mut moved = parameters.clone();
        moved[i] += h;
        let above = loss(&moved);
        moved[i] -= 2.0 * h;
        let difference = (above - loss(&moved)) / (2.0 * h);
        let within = (g - difference).abs() <= 1e-7 * size;
        assert!(within, "parameter {i}: {g} for {difference}");
        silent += usize::from(g == 0.0);
    }
    assert!(silent < COUNT / 2, "{silent} of {COUNT} gradients are zero");
}

#[test]
fn a_net_that_is_forgotten_holds_no_memory() {
    let shape = Shape::new(64, 16, 16);
    let settings = Settings { threads: Some(1), memory: Some(64 << 20), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let x = Batch::new(&Numbers::Reals.maps(40, 1, shape).to_tensor()).unwrap();
    let mut peaks = Vec::new();
    let mut first = None;
    for _ in 0..12 {
        let geometry = Geometry { c: 64, k: 64, ..Geometry::default() };
        let case = Case::of("conv", 1, shape, geometry.conv(Numbers::Reals));
        let logits = engine.forward(&case.graph, &x).unwrap();
        engine.forget(&case.graph);
        peaks.push(engine.peak_bytes());
        // The same numbers under other names; and a net may be run again after it was forgotten.
        assert_eq!(*first.get_or_insert(logits.clone()), logits);
        assert_eq!(engine.forward(&case.graph, &x).unwrap(), logits);
        engine.forget(&case.graph);
    }
    assert!(peaks.iter().all(|&p| p == peaks[0]), "{peaks:?}");
}

#[test]
fn what_does_not_suit_is_refused() {
    let case = Case::of("conv", 1, Shape::new(3, 5, 6), Geometry::default().conv(Numbers::Reals));
    let graph = Arc::clone(&case.graph);
    let mut b = Builder::new(&graph, Decided::Here).unwrap();
    let x = b.output(graph.input());
    let out = b.output(case.node);
    assert!(b.weight_adjoint(case.node, out).is_ok());
    for wrong in
        [b.weight_adjoint(case.node, x), b.weight_adjoint(graph.output(), out), b.weight_adjoint(graph.input(), x)]
    {
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Model);
    }
    let layer = b.conv_layer(case.node).unwrap();
    assert!(b.conv_weight_adjoint_of(Arc::clone(&layer), out, out).is_err());
    assert!(b.conv_weight_adjoint_of(layer, x, x).is_err());
    assert!(weight_gradients(&mut b, case.node, x).is_err());
}
