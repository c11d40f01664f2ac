//! Programs that a caller writes: several forward passes, functions of numbers, layers with other weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::{Net, machines};
use reference::cases::{Geometry, Numbers};
use verilume::engine::{Batch, Copies, Engine, Settings, Task};
use verilume::graph::{Factor, Graph, GraphBuilder, NodeId, Op, Part, Smooth};
use verilume::program::{Builder, ConvLayer, Elementwise, Score};
use verilume::rule::{Composite, pull_back};
use verilume::tensor::{Precision, Shape, Tensor, Window};
use verilume::{ErrorKind, Result};

fn twin() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

fn map(salt: u64, shape: Shape) -> Tensor {
    let numbers = Numbers::Reals.maps(salt, 1, shape);
    Tensor::f64(shape.dims(), numbers.data).unwrap()
}

/// A net whose input is `shape`, for programs that use nothing of it.
fn bare(shape: Shape) -> Graph {
    let mut b = GraphBuilder::new(shape);
    let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
    b.finish(flat).unwrap()
}

fn run(
    engine: &mut Engine,
    graph: &Graph,
    x: &Batch,
    loads: &[Vec<Tensor>],
    build: impl FnOnce(&mut Builder<'_>) -> Result<()>,
) -> Result<Vec<Vec<Tensor>>> {
    let targets = vec![0; x.len()];
    let task = Task { x, targets: &targets, copies: &Copies::one(), loads };
    engine.evaluate_once(graph, &task, build).map(|o| o.stores)
}

#[test]
fn functions_of_numbers() {
    let shape = Shape::new(11, 3, 5);
    let graph = bare(shape);
    let with_zeros = |t: Tensor| {
        let v = t.to_f64().iter().enumerate().map(|(i, &v)| if i % 7 == 0 { 0.0 } else { v }).collect();
        Tensor::f64(shape.dims(), v).unwrap()
    };
    let (a, b) = (with_zeros(map(1, shape)), with_zeros(map(2, shape)));
    let stabilised = |z: f64| if z < 0.0 { z - 0.25 } else { z + 0.25 };
    type Want = fn(f64, f64) -> f64;
    let cases: [(Elementwise, Want); 5] = [
        (Elementwise::Mul, |a, b| a * b),
        (Elementwise::Sub, |a, b| a - b),
        (Elementwise::Divide(0.0), |a, b| if b == 0.0 { 0.0 } else { a / b }),
        (Elementwise::Scale(-1.5), |a, _| -1.5 * a),
        (Elementwise::Smooth(Smooth::Abs), |a, _| a.abs()),
    ];
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let x = Batch::of(vec![a.clone(), b.clone()]).unwrap();
        let loads = [vec![a.clone(), b.clone()], vec![b.clone(), a.clone()]];
        let stores = run(&mut engine, &graph, &x, &loads, |w| {
            let values = [w.load(0, shape)?, w.load(1, shape)?];
            for (slot, (op, _)) in cases.iter().enumerate() {
                let out = w.elementwise(*op, values[..op.arity()].to_vec())?;
                w.store(out, slot)?;
            }
            let divided = w.divide(values[0], values[1], 0.25)?;
            w.store(divided, cases.len())?;
            let negative = w.negative(values[0])?;
            w.store(negative, cases.len() + 1)
        })
        .unwrap();
        let tolerance = if settings.precision == Precision::F64 { 1e-15 } else { 3e-7 };
        let check = |slot: usize, want: &dyn Fn(f64, f64) -> f64| {
            for (item, (a, b)) in [(&a, &b), (&b, &a)].into_iter().enumerate() {
                let got = stores[slot][item].to_f64().into_owned();
                for (i, got) in got.iter().enumerate() {
                    let want = want(a.at(i), b.at(i));
                    let close = (got - want).abs() <= tolerance * want.abs().max(1e-6);
                    assert!(close, "{settings:?}, function {slot}, element {i}: {got} for {want}");
                }
            }
        };
        for (slot, (_, want)) in cases.iter().enumerate() {
            check(slot, want);
        }
        check(cases.len(), &|a, b| a / stabilised(b));
        check(cases.len() + 1, &|a, _| a.min(0.0));
    }
}

#[test]
fn channels_are_filled_and_scaled() {
    let shape = Shape::new(19, 2, 3);
    let (graph, x) = (bare(shape), Batch::of(vec![map(3, shape)]).unwrap());
    let weights = Numbers::Reals.fill(4, 19, 2);
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let stores = run(&mut engine, &graph, &x, &[], |w| {
            let constant = w.fill(shape, weights.clone())?;
            let mean = w.spatial_mean(constant)?;
            let input = w.output(w.graph().input());
            let scaled = w.scale_channels(mean, input)?;
            let product = w.mul(constant, input)?;
            // What lies in the unused lanes of the last block must not leak into sums over channels.
            let total = w.weighted_channel_sum(mean, scaled)?;
            w.store(scaled, 0)?;
            w.store(product, 1)?;
            w.store(total, 2)
        })
        .unwrap();
        for i in 0..shape.len() {
            let (scaled, product) = (stores[0][0].at(i), stores[1][0].at(i));
            let close = (scaled - product).abs() <= 1e-6 * product.abs();
            assert!(close && product != 0.0, "{settings:?}: {scaled} and {product}");
        }
        let want: f64 = (0..19).map(|c| weights[c] * weights[c] * x.items()[0].at(c * 6)).sum();
        assert!((stores[2][0].at(0) - want).abs() <= 1e-5 * want.abs());
    }
}

#[test]
fn layers_with_parts_of_their_weights() {
    type Of = fn(f64) -> f64;
    let parts: [(Part, Of); 6] = [
        (Part::Positive, |w| w.max(0.0)),
        (Part::Negative, |w| w.min(0.0)),
        (Part::Square, |w| w * w),
        (Part::Ones, |_| 1.0),
        (Part::PositiveRaised(Factor::from(0.25)), |w| w + 0.25 * w.max(0.0)),
        (Part::NegativeRaised(Factor::from(0.25)), |w| w + 0.25 * w.min(0.0)),
    ];
    let geometry = Geometry { c: 5, k: 18, ..Geometry::default() };
    let Op::Conv(conv) = geometry.conv(Numbers::Reals) else { panic!() };
    let input = Shape::new(5, 6, 7);
    let layer = ConvLayer {
        name: "own".into(),
        weight: conv.weight.clone(),
        bias: None,
        window: conv.window,
        groups: 1,
        input,
        output: Shape::new(18, 6, 7),
    };
    let graph = bare(input);
    let x = Batch::of(vec![map(5, input)]).unwrap();
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let stores = run(&mut engine, &graph, &x, &[], |w| {
            let picture = w.output(w.graph().input());
            for (i, (part, of)) in parts.iter().enumerate() {
                let values: Vec<f64> = conv.weight.to_f64().iter().map(|&v| of(v)).collect();
                let plain = reference::weight_f64(conv.weight.dims(), &values);
                let plain = Arc::new(ConvLayer { weight: plain, ..layer.clone() });
                for (j, layer) in [layer.with(*part, None), plain].into_iter().enumerate() {
                    let there = w.conv(Arc::clone(&layer), picture)?;
                    let back = w.conv_adjoint_of(layer, there)?;
                    w.store(back, 2 * i + j)?;
                }
            }
            Ok(())
        })
        .unwrap();
        for (pair, (part, _)) in stores.chunks(2).zip(&parts) {
            let (got, want) = (pair[0][0].to_f64(), pair[1][0].to_f64());
            let largest = want.iter().fold(0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.0);
            for (g, w) in got.iter().zip(want.iter()) {
                assert!((g - w).abs() <= 1e-5 * largest, "{settings:?} {part:?}: {g} for {w}");
            }
        }
    }
}

/// The whole net on a second input, in the same program: its gradient is that of the second input alone.
#[test]
fn a_second_forward_pass_is_the_net_on_another_input() {
    let mut engine = twin();
    for name in nets::SMALL {
        let net = Net::small(name);
        let graph = &net.graph;
        let other: Vec<Tensor> = (0..net.x.len()).map(|i| map(40 + i as u64, net.x.shape())).collect();
        let gradient = |w: &mut Builder<'_>, slot: usize| {
            let seed = w.seed(Score::Logit);
            let signal = pull_back(w, &Composite::gradient(), graph.output(), seed, graph.input())?;
            w.store(signal, slot)
        };
        let stores = run(&mut engine, graph, &net.x, std::slice::from_ref(&other), |w| {
            let first = w.forward();
            let baseline = w.load(0, graph.input_shape())?;
            w.replace(graph.input(), baseline)?;
            gradient(w, 1)?;
            w.enter(first);
            gradient(w, 0)
        })
        .unwrap();
        let alone = |engine: &mut Engine, x: &Batch| run(engine, graph, x, &[], |w| gradient(w, 0)).unwrap().remove(0);
        let other = Batch::of(other).unwrap();
        for (got, x) in stores.iter().zip([&net.x, &other]) {
            for (got, want) in got.iter().zip(alone(&mut engine, x)) {
                assert!(want.to_f64().iter().any(|&v| v != 0.0), "{name}");
                assert_eq!(got, &want, "{name}");
            }
        }
    }
}

fn loads_in(engine: &mut Engine, net: &Net, node: NodeId, factor: f64) -> Vec<Vec<Tensor>> {
    let activations = engine.node_outputs(&net.graph, &net.x, &[node]).unwrap().remove(0);
    let scale = |t: Tensor| Tensor::f64(t.dims(), t.to_f64().iter().map(|v| factor * v).collect()).unwrap();
    vec![(0..net.x.len()).map(|i| scale(activations.item(i).unwrap())).collect()]
}

/// Only the layers behind a stage run on what replaces it, and backward stops there.
#[test]
fn a_replaced_stage_runs_only_what_is_behind_it() {
    let mut engine = twin();
    let net = Net::small("resnet_basic");
    let graph = &net.graph;
    let (_, stage) = graph.stages()[1].clone();
    let build = |w: &mut Builder<'_>| {
        let given = w.load(0, graph.node(stage).shape)?;
        w.replace(stage, given)?;
        let seed = w.seed(Score::Logit);
        let signal = pull_back(w, &Composite::gradient(), graph.output(), seed, stage)?;
        w.store(signal, 0)
    };
    let program = {
        let mut w = Builder::new(graph, verilume::program::Decided::Here).unwrap();
        build(&mut w).unwrap();
        w.finish()
    };
    assert!(program.steps().iter().all(|s| s.kind() != "perturb"), "the layers before the stage run");
    // The same numbers in its place change nothing.
    let same = loads_in(&mut engine, &net, stage, 1.0);
    let targets = &net.targets;
    let task = Task { x: &net.x, targets, copies: &Copies::one(), loads: &same };
    let outcome = engine.evaluate_once(graph, &task, build).unwrap();
    let logits = engine.forward(graph, &net.x).unwrap();
    for (i, got) in outcome.logits.iter().enumerate() {
        assert_eq!(got[0], logits.item(i).unwrap().to_f64().into_owned());
        assert_eq!(outcome.scores[i][0], got[0][targets[i]]);
    }
    // Others do, by what the gradient says.
    let (h, slope) = (1e-6, &outcome.stores[0]);
    let near = loads_in(&mut engine, &net, stage, 1.0 + h);
    let changed = engine.evaluate_once(graph, &Task { loads: &near, ..task }, build).unwrap();
    for (i, (slope, given)) in slope.iter().zip(&same[0]).enumerate() {
        let along: f64 = slope.to_f64().iter().zip(given.to_f64().iter()).map(|(s, a)| s * a).sum();
        let difference = (changed.scores[i][0] - outcome.scores[i][0]) / h;
        assert!((along - difference).abs() <= 1e-4 * along.abs().max(1e-3), "{along} for {difference}");
    }
}

#[test]
fn mistakes_are_refused() {
    let graph = bare(Shape::new(3, 4, 4));
    let x = Batch::of(vec![map(6, Shape::new(3, 4, 4))]).unwrap();
    let mut engine = twin();
    let kind = |r: Result<Vec<Vec<Tensor>>>| r.unwrap_err().kind();
    let load = |w: &mut Builder<'_>| {
        let v = w.load(0, Shape::new(3, 4, 4))?;
        w.store(v, 0)
    };
    assert_eq!(kind(run(&mut engine, &graph, &x, &[], load)), ErrorKind::Settings);
    let small = vec![vec![map(7, Shape::new(3, 2, 2))]];
    assert_eq!(kind(run(&mut engine, &graph, &x, &small, load)), ErrorKind::Settings);
    let right = vec![vec![map(7, Shape::new(3, 4, 4))]];
    assert!(run(&mut engine, &graph, &x, &right, load).is_ok());

    let mut w = Builder::new(&graph, verilume::program::Decided::Here).unwrap();
    let picture = w.output(graph.input());
    let other = w.load(0, Shape::new(3, 2, 2)).unwrap();
    assert!(w.mul(picture, other).is_err());
    assert!(w.elementwise(Elementwise::Mul, vec![picture]).is_err());
    assert!(w.replace(graph.input(), other).is_err());
    assert!(w.fill(Shape::new(3, 2, 2), vec![0.0; 2]).is_err());
    assert!(w.fill(Shape::new(1, 2, 2), vec![f64::NAN]).is_err());
    assert!(w.scale_channels(other, picture).is_err());
    let Op::Conv(conv) = (Geometry { c: 3, k: 4, ..Geometry::default() }).conv(Numbers::Reals) else { panic!() };
    let layer = ConvLayer {
        name: "own".into(),
        weight: conv.weight.clone(),
        bias: Some(vec![0.0; 3].into()),
        window: Window::square(3, 1, 1),
        groups: 1,
        input: Shape::new(3, 4, 4),
        output: Shape::new(4, 4, 4),
    };
    assert!(w.conv(Arc::new(layer.clone()), picture).is_err(), "a bias for three of four channels");
    let layer = ConvLayer { bias: None, output: Shape::new(4, 5, 5), ..layer };
    assert!(w.conv(Arc::new(layer), picture).is_err(), "an output of another size");
    let whole = conv.weight.part(Part::Ones);
    assert!(whole.scaled(&[1.0; 4]).is_err());
}
