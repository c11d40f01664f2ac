//! Safe calls with arguments that make no sense are errors: no panic, no access outside a value's memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use verilume::ErrorKind;
use verilume::engine::{At, Batch, Engine, Job, Pullback, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::program::{Builder, Decided, Score, Statistic, Value};
use verilume::rule::{Composite, NodeShares, Rule, Select, Vjp, pull_back};
use verilume::tensor::{Padding, Shape, Tensor, Window};

/// `input 2x6x6 → conv 3x6x6 → relu → pool 3x3x3 → average 3x1x1 → flatten → fc 4`.
fn net() -> Graph {
    let mut b = GraphBuilder::new(Shape::new(2, 6, 6));
    let weight = Weight::owned([3, 2, 3, 3], &[0.5; 54]).unwrap();
    let linear = Weight::owned([4, 3, 1, 1], &[0.25; 12]).unwrap();
    let mut at = b.input();
    for (name, op) in [
        ("conv", Op::Conv(Conv { weight, bias: None, window: Window::square(3, 1, 1), groups: 1 })),
        ("relu", Op::Relu),
        ("pool", Op::MaxPool(Window::square(2, 2, 0))),
        ("average", Op::AvgPool { window: Window::square(3, 1, 0), count_padding: true }),
        ("flatten", Op::Flatten),
        ("fc", Op::Linear(Linear { weight: linear, bias: None })),
    ] {
        at = b.push(name, op, &[at]).unwrap();
    }
    b.finish(at).unwrap()
}

fn batch(shape: Shape) -> Batch {
    Batch::of(vec![Tensor::f32(shape.dims(), vec![1.0; shape.len()]).unwrap()]).unwrap()
}

/// A rule that sends whatever its function makes.
#[derive(Debug, Clone, Copy)]
struct Lie(&'static str, fn(NodeId, Value, &mut Builder<'_>) -> verilume::Result<Vec<Value>>);

impl Rule for Lie {
    fn id(&self) -> String {
        self.0.into()
    }

    fn share(&self, node: NodeId, up: Value, b: &mut Builder<'_>) -> verilume::Result<NodeShares> {
        Ok((self.1)(node, up, b)?.into())
    }
}

#[test]
fn lying_rules_are_refused() {
    let graph = net();
    let x = batch(graph.input_shape());
    let lies = [
        // What arrives at an activation, sent on from it as something else.
        Lie("bits for numbers", |node, _, b| Ok(vec![b.active(node)?])),
        Lie("another shape", |_, up, b| Ok(vec![b.spatial_mean(up)?])),
        Lie("the picture's shape", |_, _, b| Ok(vec![b.output(b.graph().input())])),
        Lie("a sum of two shapes", |_, up, b| {
            let picture = b.output(b.graph().input());
            Ok(vec![b.add(up, picture)?])
        }),
        Lie("a gate of numbers", |_, up, b| Ok(vec![b.gate(up, up)?])),
        Lie("a gate for bits", |node, _, b| {
            let bits = b.active(node)?;
            Ok(vec![b.gate(bits, bits)?])
        }),
        Lie("a larger gate", |node, up, b| {
            let mean = b.spatial_mean(up)?;
            let bits = b.active(node)?;
            Ok(vec![b.gate(mean, bits)?])
        }),
        Lie("a rectified bit", |node, _, b| {
            let bits = b.active(node)?;
            Ok(vec![b.positive(bits)?])
        }),
        Lie("another node's convolution", |_, _, b| {
            let (conv, picture) = (b.graph().find("conv")?, b.output(b.graph().input()));
            Ok(vec![b.conv_adjoint(conv, picture)?])
        }),
        Lie("another node's linear layer", |_, up, b| Ok(vec![b.linear_adjoint(b.graph().find("fc")?, up)?])),
        Lie("another node's pool", |_, up, b| Ok(vec![b.max_pool_adjoint(b.graph().find("pool")?, up)?])),
        Lie("another node's average", |_, up, b| Ok(vec![b.fixed_adjoint(b.graph().find("average")?, up)?])),
        Lie("another node's vector", |_, up, b| Ok(vec![b.fixed_adjoint(b.graph().find("flatten")?, up)?])),
        Lie("channels beyond", |_, up, b| Ok(vec![b.channels(up, 1, b.shape(up))?])),
        Lie("channels at infinity", |_, up, b| Ok(vec![b.channels(up, usize::MAX, b.shape(up))?])),
        Lie("a larger plane", |_, up, b| Ok(vec![b.channels(up, 0, Shape::new(3, 60, 60))?])),
        Lie("weights of another length", |_, up, b| Ok(vec![b.weighted_channel_sum(up, up)?])),
        Lie("a mean of bits", |node, _, b| {
            let bits = b.active(node)?;
            Ok(vec![b.spatial_mean(bits)?])
        }),
        Lie("bits as a map", |node, up, b| {
            let bits = b.active(node)?;
            b.aggregate(bits, Statistic::Sum)?;
            Ok(vec![up])
        }),
        Lie("bits as a result", |node, up, b| {
            let bits = b.active(node)?;
            b.store(bits, 0)?;
            Ok(vec![up])
        }),
        Lie("a tensor of absurd shape", |_, _, b| Ok(vec![b.load(0, Shape::new(usize::MAX, 2, 1))?])),
        Lie("a value of another program", |_, _, b| {
            let mut other = Builder::new(b.graph(), Decided::Here)?;
            let mut value = other.seed(Score::Logit);
            for _ in 0..100 {
                value = other.positive(value)?;
            }
            Ok(vec![value])
        }),
        Lie("no signal", |_, _, _| Ok(Vec::new())),
        Lie("two signals", |_, up, _| Ok(vec![up, up])),
    ];
    let mut engine = Engine::new(&Settings::default()).unwrap();
    for lie in lies {
        let rules = Composite::new(vec![(Select::Activations, Arc::new(lie)), (Select::Every, Arc::new(Vjp))]);
        let job = Job { rules, ..Job::gradient(Score::Logit) };
        let error = engine.explain(&graph, &job, &x, &[1]).map(|_| ()).expect_err(lie.0);
        assert_eq!(error.kind(), ErrorKind::Model, "{}: {error}", lie.0);
        assert!(error.to_string().contains("'relu'"), "{}: {error}", lie.0);
    }
    // The signal itself may lie.
    let mut b = Builder::new(&graph, Decided::Here).unwrap();
    let picture = b.output(graph.input());
    let error = pull_back(&mut b, &Composite::gradient(), graph.output(), picture, graph.input()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
}

#[test]
fn absurd_shapes_are_refused_as_nodes_are_added() {
    const HUGE: usize = usize::MAX;
    let input = Shape::new(2, 6, 6);
    let window = Window::square(2, 1, 0);
    let weight = || Weight::owned([2, 1, 1, 1], &[1.0; 2]).unwrap();
    let conv = |window, groups| Op::Conv(Conv { weight: weight(), bias: None, window, groups });
    let pad = |top, right| Padding::Explicit { top, bottom: 0, left: 0, right };
    for op in [
        Op::PadChannels { before: HUGE, after: 1 },
        Op::PadChannels { before: HUGE / 72, after: HUGE / 72 },
        Op::AdaptiveAvgPool { out: [HUGE, HUGE] },
        Op::AdaptiveAvgPool { out: [1 << 40, 1] },
        Op::MaxPool(Window { kernel: [HUGE, HUGE], ..window }),
        Op::MaxPool(Window { kernel: [1 << 20, 1 << 20], padding: Padding::all(1 << 20), ..window }),
        Op::MaxPool(Window { dilation: [HUGE, 2], kernel: [3, 3], ..window }),
        Op::MaxPool(Window { stride: [HUGE, HUGE], padding: Padding::Same, ..window }),
        Op::MaxPool(Window { padding: pad(HUGE, 0), ..window }),
        Op::AvgPool { window: Window { padding: pad(0, HUGE), ..window }, count_padding: true },
        Op::AvgPool { window: Window { padding: pad(1 << 24, 1 << 24), ..window }, count_padding: false },
        conv(Window { padding: pad(HUGE, HUGE), ..Window::square(1, 1, 0) }, 2),
        conv(Window::square(1, 1, 0), HUGE),
        Op::Subsample { stride: [0, 1] },
    ] {
        let error = GraphBuilder::new(input).push("op", op.clone(), &[net().input()]);
        assert_eq!(error.map(|_| ()).expect_err(op.kind()).kind(), ErrorKind::Model, "{op:?}");
    }
    for shape in [Shape::new(0, 3, 3), Shape::new(1, 0, 3), Shape::new(HUGE, 2, 2), Shape::new(1 << 20, 1 << 20, 1)] {
        let mut b = GraphBuilder::new(shape);
        assert_eq!(b.push("flatten", Op::Flatten, &[b.input()]).unwrap_err().kind(), ErrorKind::Model, "{shape}");
    }
    for shape in [Shape::vector(0), Shape::vector(HUGE)] {
        let b = GraphBuilder::new(shape);
        let logits = b.input();
        assert_eq!(b.finish(logits).unwrap_err().kind(), ErrorKind::Model, "{shape}");
    }
    for dims in [[0, 3, 3], [3, 0, 3], [3, 3, 0]] {
        let empty = Tensor::f32(dims, Vec::new()).unwrap();
        assert_eq!(Batch::of(vec![empty]).unwrap_err().kind(), ErrorKind::Input, "{dims:?}");
    }
}

#[test]
fn nodes_of_other_graphs_are_refused() {
    let graph = net();
    let foreign = {
        let mut b = GraphBuilder::new(Shape::vector(3));
        let mut at = b.input();
        for i in 0..20 {
            at = b.push(format!("relu {i}"), Op::Relu, &[at]).unwrap();
        }
        at
    };
    let mut b = GraphBuilder::new(Shape::vector(3));
    let relu = b.push("relu", Op::Relu, &[b.input()]).unwrap();
    b.stage("elsewhere", foreign);
    assert!(b.finish(relu).unwrap_err().to_string().contains("elsewhere"));
    assert_eq!(GraphBuilder::new(Shape::vector(3)).finish(foreign).unwrap_err().kind(), ErrorKind::Model);

    let x = batch(graph.input_shape());
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let job = Job { at: At::Node(foreign), ..Job::gradient(Score::Logit) };
    assert_eq!(engine.explain(&graph, &job, &x, &[0]).unwrap_err().kind(), ErrorKind::Settings);
    assert_eq!(engine.node_outputs(&graph, &x, &[graph.output(), foreign]).unwrap_err().kind(), ErrorKind::Settings);
    let signal = Tensor::f32([1, 4, 1, 1], vec![1.0; 4]).unwrap();
    let rules = Composite::gradient();
    for (from, to) in [(foreign, graph.input()), (graph.output(), foreign)] {
        let error = engine.pullback(&graph, &x, &Pullback { from, signal: &signal, rules: &rules, to }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{error}");
    }
}
