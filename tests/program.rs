//! What programs come to before they run: fusion, what is kept, and where it lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use nets::{Net, machines};
use proptest::prelude::*;
use proptest::test_runner::Config;
use reference::cases::{Geometry, Numbers, batch_norm, nets as mixed_nets, scrambled};
use reference::{Dense, ReluRule, backward, forward, weight_f64};
use verilume::device::cpu::{Convolution, Kernels};
use verilume::engine::{Batch, Copies, DeviceChoice, Engine, Job, Pullback, Task};
use verilume::graph::{Graph, GraphBuilder, Linear, NodeId, Op, Over, Reduce, Smooth};
use verilume::program::{Builder, Decided, Elementwise, Form, Plan, Program, Score, Statistic, Step, Value, Zeros};
use verilume::rule::{Composite, pull_back};
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// A device of 8 lanes and 4 bytes a number.
fn bytes_of(form: Form) -> usize {
    let elements = |s: Shape| s.c.div_ceil(8) * 8 * s.plane();
    match form {
        Form::Dense(s) => elements(s) * 4,
        Form::Bits(s) => elements(s) / 8,
        Form::Winners(s, width) => elements(s) * width.bytes(),
    }
}

fn gradient_of(graph: &Graph, rules: &Composite, to: NodeId, decided: Decided) -> Program {
    let mut b = Builder::new(graph, decided).unwrap();
    let seed = b.seed(Score::Logit);
    let signal = pull_back(&mut b, rules, graph.output(), seed, to).unwrap();
    b.aggregate(signal, Statistic::Sum).unwrap();
    b.finish()
}

fn gradient(graph: &Graph, rules: &Composite) -> Program {
    gradient_of(graph, rules, graph.input(), Decided::Here)
}

fn kinds(program: &Program) -> Vec<&'static str> {
    program.steps().iter().map(Step::kind).collect()
}

fn conv(c: usize, k: usize) -> Op {
    Geometry { c, k, ..Geometry::default() }.conv(Numbers::Reals)
}

fn linear(c: usize, k: usize) -> Op {
    let weight = weight_f64([k, c, 1, 1], &Numbers::Reals.fill(19, k * c, 2));
    Op::Linear(Linear { weight, bias: Some(Numbers::Reals.fill(20, k, 5).into()) })
}

fn residual() -> Graph {
    let mut b = GraphBuilder::new(Shape::new(3, 8, 8));
    let x = b.input();
    let stem = b.push("stem", conv(3, 8), &[x]).unwrap();
    let stem = b.push("stem.relu", Op::Relu, &[stem]).unwrap();
    let inner = b.push("inner", conv(8, 8), &[stem]).unwrap();
    let sum = b.push("sum", Op::Add, &[inner, stem]).unwrap();
    let relu = b.push("relu", Op::Clamp { lo: 0.0, hi: 6.0 }, &[sum]).unwrap();
    let pool = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[relu]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
    let fc = b.push("fc", linear(8, 4), &[flat]).unwrap();
    b.finish(fc).unwrap()
}

const RESIDUAL_STEPS: [&str; 14] = [
    "perturb",
    "conv",
    "conv",
    "adaptive_avg_pool",
    "flatten",
    "linear",
    "head",
    "linear_adjoint",
    "unflatten",
    "adaptive_avg_pool_adjoint",
    "gate",
    "conv_adjoint",
    "conv_adjoint",
    "aggregate",
];

#[test]
fn convolutions_take_in_what_follows_them() {
    let graph = residual();
    let program = gradient(&graph, &Composite::gradient());
    assert_eq!(kinds(&program), RESIDUAL_STEPS);
    let [Step::Conv { epilogue: stem, .. }, Step::Conv { epilogue: sum, x, .. }] = &program.steps()[1..3] else {
        panic!()
    };
    assert!(stem.clamp.is_some() && stem.bits.is_some() && stem.add.is_none());
    assert_eq!(sum.add, Some(*x), "the shortcut");
    assert_eq!(sum.clamp.unwrap().hi, 6.0);
    assert_eq!(sum.bits.unwrap().1, sum.clamp.unwrap());
    let Step::ConvAdjoint { epilogue, s, .. } = &program.steps()[11] else { panic!() };
    assert_eq!((epilogue.add, epilogue.gate), (Some(*s), stem.bits.map(|b| b.0)), "the shortcut's signal and the gate");
    let Step::ConvAdjoint { epilogue, .. } = &program.steps()[12] else { panic!() };
    assert_eq!(*epilogue, Default::default());
}

#[test]
fn rectified_signals_are_fused_too() {
    let graph = residual();
    let guided = gradient(&graph, &Composite::guided());
    let mut with_clamp = RESIDUAL_STEPS.to_vec();
    with_clamp.insert(10, "clamp");
    assert_eq!(kinds(&guided), with_clamp);
    let Step::ConvAdjoint { epilogue, .. } = &guided.steps()[12] else { panic!() };
    assert!(epilogue.clamp.is_some() && epilogue.gate.is_some() && epilogue.add.is_some());

    let deconvnet = gradient(&graph, &Composite::deconvnet());
    let replaced: Vec<&str> = RESIDUAL_STEPS.iter().map(|&k| if k == "gate" { "clamp" } else { k }).collect();
    assert_eq!(kinds(&deconvnet), replaced);
    let no_bits = |f: &Form| !matches!(f, Form::Bits(_));
    let written: Vec<Form> =
        deconvnet.steps().iter().flat_map(Step::writes).map(|v| deconvnet.forms()[v.index()]).collect();
    assert!(written.iter().all(no_bits), "deconvnet does not ask who was active");
}

/// Convolutions of every algorithm, each with an activation, and sums of two.
fn smooth(f: Smooth) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(3, 12, 11));
    let mut node = b.input();
    let layer = |c, k, kernel, stride, groups| {
        let (kernel, padding) = ([kernel; 2], Padding::all(kernel / 2));
        Geometry { c, k, kernel, stride: [stride; 2], padding, groups, ..Geometry::default() }.conv(Numbers::Reals)
    };
    for (i, conv) in [
        layer(3, 20, 3, 2, 1),
        layer(20, 24, 1, 1, 1),
        layer(24, 24, 3, 1, 24),
        layer(24, 17, 3, 1, 1),
        layer(17, 3, 1, 1, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let conv = b.push(format!("conv{i}"), conv, &[node]).unwrap();
        node = b.push(format!("smooth{i}"), Op::Smooth(f), &[conv]).unwrap();
    }
    let last = b.push("last", layer(3, 3, 1, 1, 1), &[node]).unwrap();
    let sum = b.push("sum", Op::Add, &[last, node]).unwrap();
    let smooth = b.push("smooth", Op::Smooth(f), &[sum]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[smooth]).unwrap();
    b.finish(flat).unwrap()
}

/// A convolution with the same activation twice.
fn smooth_twice(f: Smooth) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(3, 12, 11));
    let conv = b.push("conv", conv(3, 8), &[b.input()]).unwrap();
    let once = b.push("once", Op::Smooth(f), &[conv]).unwrap();
    let twice = b.push("twice", Op::Smooth(f), &[once]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[twice]).unwrap();
    b.finish(flat).unwrap()
}

#[test]
fn activations_and_their_slopes_are_fused() {
    let graph = smooth(Smooth::Gelu);
    let program = gradient(&graph, &Composite::gradient());
    let fused: Vec<Vec<&str>> = program.steps().iter().map(Step::fused).filter(|f| !f.is_empty()).collect();
    let forward = |add: &[&'static str]| [&["bias"][..], add, &["gelu", "gelu_slope"]].concat();
    let mut expected = vec![forward(&[]); 5];
    expected.push(forward(&["add"]));
    // Adjoints onto three channels take no factor.
    expected.push(vec!["add"]);
    expected.extend(vec![vec!["times"]; 4]);
    assert_eq!(fused, expected);
    assert!(!kinds(&program).iter().any(|kind| kind.starts_with("gelu")), "{:?}", kinds(&program));
    // The second of two equal activations in a row is computed on its own, and so is its slope.
    let twice = gradient(&smooth_twice(Smooth::Gelu), &Composite::gradient());
    let apart: Vec<&str> = kinds(&twice).into_iter().filter(|kind| kind.starts_with("gelu")).collect();
    assert_eq!(apart, ["gelu", "gelu_slope"]);
    // Scores alone want no slopes.
    let mut b = Builder::new(&graph, Decided::Here).unwrap();
    b.score(Score::Logit);
    assert!(b.finish().steps().iter().all(|step| !step.fused().contains(&"gelu_slope")));
}

/// A slope that is not of the activation after the convolution, or comes before it, needs the convolution's sums.
#[test]
fn other_slopes_keep_the_input() {
    let graph = smooth_twice(Smooth::Silu);
    let x = graph.find("conv").unwrap();
    let mut b = Builder::new(&graph, Decided::Here).unwrap();
    let other = b.elementwise(Elementwise::Slope(Smooth::Gelu), vec![b.output(x)]).unwrap();
    b.store(other, 0).unwrap();
    b.store(b.output(graph.find("once").unwrap()), 1).unwrap();
    let program = b.finish();
    assert_eq!(kinds(&program), ["perturb", "conv", "silu", "gelu_slope", "store", "store"]);
    assert!(reads_what_is_written(&program));
}

/// Whether every value is written before it is read.
fn reads_what_is_written(program: &Program) -> bool {
    let mut written = std::collections::HashSet::new();
    program.steps().iter().all(|step| {
        let known = step.reads().iter().all(|v| written.contains(v));
        written.extend(step.writes());
        known
    })
}

/// A value that is repeated to fill the result cannot give the result its memory, although both have as many bytes.
#[test]
fn repeated_operands_are_not_written_over() {
    for shape in [Shape::new(12, 1, 1), Shape::new(5, 1, 2), Shape::new(16, 1, 1)] {
        let mut b = GraphBuilder::new(shape);
        let x = b.input();
        let mean = b.push("mean", Op::Reduce(Reduce { over: Over::Everything, mean: true }), &[x]).unwrap();
        let centred = b.push("product", Op::Mul, &[mean, x]).unwrap();
        let flat = b.push("flatten", Op::Flatten, &[centred]).unwrap();
        let graph = b.finish(flat).unwrap();
        let numbers: Vec<f64> = (0..shape.len()).map(|i| 1.0 + i as f64).collect();
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        for settings in machines() {
            let x = Tensor::f32([1, shape.c, shape.h, shape.w], numbers.iter().map(|&v| v as f32).collect()).unwrap();
            let mut engine = Engine::new(&settings).unwrap();
            let job = Job::gradient(Score::Logit);
            let map = engine.explain(&graph, &job, &Batch::new(&x).unwrap(), &[1]).unwrap().maps.remove(0);
            for (i, &got) in map.to_f64().iter().enumerate() {
                let want = numbers[1] / n + if i == 1 { mean } else { 0.0 };
                assert!((got - want).abs() <= 1e-5 * want, "{shape} at {i}: {got} for {want} on {settings:?}");
            }
        }
    }
}

/// As the steps on their own, bit for bit: a reader of an activation's input keeps it from being fused.
#[test]
fn fused_activations_compute_what_they_say() {
    let x = Numbers::Reals.fill(3, 2 * 3 * 12 * 11, 1);
    let functions = [Smooth::Gelu, Smooth::Sigmoid];
    for (f, graph) in functions.into_iter().flat_map(|f| [(f, smooth(f)), (f, smooth_twice(f))]) {
        for settings in machines() {
            let x = Tensor::f32([2, 3, 12, 11], x.iter().map(|&v| v as f32).collect()).unwrap();
            let x = Batch::new(&x).unwrap();
            let mut engine = Engine::new(&settings).unwrap();
            let task = Task { x: &x, targets: &[1, 5], copies: &Copies::one(), loads: &[] };
            let mut run = |apart: bool| {
                engine
                    .evaluate_once(&graph, &task, |b| {
                        let seed = b.seed(Score::Logit);
                        let signal = pull_back(b, &Composite::gradient(), graph.output(), seed, graph.input())?;
                        b.store(signal, 0)?;
                        let inputs = graph.ids().filter(|&id| matches!(graph.node(id).op, Op::Smooth(_)));
                        inputs.filter(|_| apart).enumerate().try_for_each(|(i, id)| b.store(b.input(id, 0), i + 1))
                    })
                    .unwrap()
            };
            let (fused, apart) = (run(false), run(true));
            let inputs = graph.nodes().iter().filter(|node| matches!(node.op, Op::Smooth(_))).count();
            assert_eq!((fused.stores.len(), apart.stores.len()), (1, 1 + inputs));
            assert_eq!(fused.logits, apart.logits, "{f:?} on {settings:?}");
            for (fused, apart) in fused.stores[0].iter().zip(&apart.stores[0]) {
                assert!(fused.to_f64().iter().any(|&v| v != 0.0));
                assert_eq!(fused.to_f64(), apart.to_f64(), "{f:?} on {settings:?}");
            }
        }
    }
}

#[test]
fn what_two_read_is_not_fused_away() {
    let mut b = GraphBuilder::new(Shape::new(3, 8, 8));
    let stem = b.push("stem", conv(3, 8), &[b.input()]).unwrap();
    let relu = b.push("relu", Op::Relu, &[stem]).unwrap();
    // Reads the convolution before and after its ReLU.
    let both = b.push("both", Op::Add, &[stem, relu]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[both]).unwrap();
    let graph = b.finish(flat).unwrap();
    let program = gradient(&graph, &Composite::gradient());
    assert!(kinds(&program).contains(&"clamp"), "{:?}", kinds(&program));
    assert!(kinds(&program).contains(&"add"));
}

#[test]
fn steps_nobody_needs_are_left_out() {
    let graph = residual();
    let mut b = Builder::new(&graph, Decided::Here).unwrap();
    let stem = b.output(graph.find("stem.relu").unwrap());
    b.store(stem, 0).unwrap();
    assert_eq!(kinds(&b.finish()), ["perturb", "conv", "store"]);
    // Only the layers above the stage are sent through backward.
    let program = gradient_of(&graph, &Composite::gradient(), graph.find("stem.relu").unwrap(), Decided::Here);
    assert_eq!(kinds(&program).iter().filter(|k| **k == "conv_adjoint").count(), 1);
    let Step::Conv { epilogue, .. } = &program.steps()[1] else { panic!() };
    assert!(epilogue.bits.is_none(), "nobody asks whether the stem was active");
    // Decisions that are given are not made.
    let program = gradient_of(&graph, &Composite::gradient(), graph.input(), Decided::Elsewhere);
    let made = program.steps().iter().any(|s| matches!(s, Step::Conv { epilogue, .. } if epilogue.bits.is_some()));
    assert!(!made);
    assert_eq!(kinds(&program).iter().filter(|k| **k == "load_decisions").count(), 2);
}

/// Pointwise steps of trained architectures that stay: those after steps other than convolutions.
#[test]
fn real_architectures_are_fused() {
    for name in nets::SMALL {
        let graph = Net::small(name).graph;
        let program = gradient(&graph, &Composite::gradient());
        let written_by: BTreeMap<Value, &Step> =
            program.steps().iter().flat_map(|s| s.writes().into_iter().map(move |v| (v, s))).collect();
        let mut reads = BTreeMap::new();
        program.steps().iter().flat_map(Step::reads).for_each(|v| *reads.entry(v).or_insert(0) += 1);
        let mut left = 0;
        for step in program.steps() {
            let inputs = match step {
                Step::Clamp { x, .. } | Step::Inside { x, .. } => vec![*x],
                Step::Gate { s, .. } => vec![*s],
                Step::Add { a, b, .. } => vec![*a, *b],
                _ => continue,
            };
            left += 1;
            for v in inputs {
                let fusable = matches!(written_by[&v], Step::Conv { .. } | Step::ConvAdjoint { .. }) && reads[&v] == 1;
                assert!(!fusable, "{name}: {} after {}", step.kind(), written_by[&v].kind());
            }
        }
        println!("{name}: {} steps, {left} of them pointwise", program.steps().len());
    }
}

/// Defined at and last used at, for each value that is written.
fn lifetimes(program: &Program) -> BTreeMap<Value, (usize, usize)> {
    let mut lives = BTreeMap::new();
    for (i, step) in program.steps().iter().enumerate() {
        for v in step.reads() {
            let life: &mut (usize, usize) =
                lives.get_mut(&v).unwrap_or_else(|| panic!("step {i} reads {v:?} too early"));
            life.1 = i;
        }
        for v in step.writes() {
            assert!(lives.insert(v, (i, i)).is_none(), "step {i} writes {v:?} again");
        }
    }
    lives
}

/// Bytes alive together at most, what is taken over counted once.
fn most_alive(plan: &Plan) -> usize {
    let lives = lifetimes(plan.program());
    let alive = |i: usize| {
        let places: BTreeMap<usize, usize> = lives
            .iter()
            .filter(|(_, life)| life.0 <= i && i <= life.1)
            .map(|(v, _)| (plan.place(*v).offset, plan.place(*v).bytes))
            .collect();
        places.values().sum()
    };
    (0..plan.steps().len()).map(alive).max().unwrap()
}

fn assert_little_is_wasted(name: &str, plan: &Plan) {
    let alive = most_alive(plan);
    println!("{name}: arena {} bytes, {alive} alive together", plan.copy_bytes());
    assert!(
        plan.copy_bytes() >= alive && plan.copy_bytes() <= alive * 5 / 4,
        "{name}: {} for {alive}",
        plan.copy_bytes()
    );
}

/// Forms that are kept from the forward pass for the backward pass.
fn kept(program: &Program) -> Vec<Form> {
    let head = program.steps().iter().position(|s| matches!(s, Step::Head { .. })).unwrap();
    let lives = lifetimes(program);
    lives.iter().filter(|(_, life)| life.0 < head && life.1 > head).map(|(v, _)| program.forms()[v.index()]).collect()
}

#[test]
fn a_gradient_keeps_bits_and_winners() {
    let mut b = GraphBuilder::new(Shape::new(3, 8, 8));
    let mut at = b.input();
    for (name, op) in [
        ("one", conv(3, 8)),
        ("one.relu", Op::Relu),
        ("pool", Op::MaxPool(Window::square(2, 2, 0))),
        ("two", conv(8, 8)),
        ("two.relu", Op::Relu),
        ("flatten", Op::Flatten),
        ("fc", linear(128, 5)),
    ] {
        at = b.push(name, op, &[at]).unwrap();
    }
    let graph = b.finish(at).unwrap();
    let program = gradient(&graph, &Composite::gradient());
    let bytes: usize = kept(&program).into_iter().map(bytes_of).sum();
    // One bit for 8 x 8 x 8 and 8 x 4 x 4 numbers, one byte for 8 x 4 x 4 pooled ones.
    assert_eq!(bytes, 64 + 16 + 128);
    // Most is held while the first convolution runs: 3 channels (as 8) and 8 channels of 64 numbers, and its bits.
    let plan = Plan::new(program, bytes_of);
    assert_eq!(most_alive(&plan), 8 * 64 * 4 + 8 * 64 * 4 + 64);
    assert_little_is_wasted("small", &plan);

    for name in nets::SMALL {
        let program = gradient(&Net::small(name).graph, &Composite::gradient());
        let kept = kept(&program);
        assert_little_is_wasted(name, &Plan::new(program, bytes_of));
        assert!(kept.len() > 4 && kept.iter().all(|f| !matches!(f, Form::Dense(_))), "{name}: {kept:?}");
    }
}

/// Fails unless values that are alive together lie apart, save for a result that takes over what dies under it.
fn assert_places_are_apart(plan: &Plan) {
    let lives: Vec<(Value, (usize, usize))> = lifetimes(plan.program()).into_iter().collect();
    for &(v, _) in &lives {
        let place = plan.place(v);
        assert!(place.bytes >= bytes_of(plan.form(v)) && place.offset + place.bytes <= plan.copy_bytes());
        assert!(place.offset.is_multiple_of(64));
    }
    for (i, &(a, life_a)) in lives.iter().enumerate() {
        for &(b, life_b) in &lives[i + 1..] {
            if life_a.1 < life_b.0 || life_b.1 < life_a.0 {
                continue;
            }
            let [p, q] = [a, b].map(|v| plan.place(v));
            if p.offset + p.bytes <= q.offset || q.offset + q.bytes <= p.offset {
                continue;
            }
            let (first, end, second, start) =
                if life_a.0 < life_b.0 { (a, life_a.1, b, life_b.0) } else { (b, life_b.1, a, life_a.0) };
            let step = &plan.steps()[start];
            let takes_over = end == start && step.overwrites().contains(&first) && step.writes()[0] == second && p == q;
            assert!(takes_over, "{first:?} and {second:?} overlap at step {start} ({})", step.kind());
            // What is taken over must be read element by element and in no other way.
            let readings = step.reads().iter().filter(|&&v| v == first).count();
            assert!(readings == 1 || matches!(step, Step::Add { .. }), "step {start} ({})", step.kind());
        }
    }
}

/// A net of feature maps of one shape that read each other at random.
fn tangle(salt: u64, nodes: usize) -> Arc<Graph> {
    let shape = Shape::new(5, 6, 7);
    let draw = |i: usize, below: usize| (scrambled(salt, i) % below as u64) as usize;
    let mut b = GraphBuilder::new(shape);
    let mut maps = vec![b.input()];
    for i in 0..nodes {
        // Mostly the latest nodes, so that chains arise.
        let pick = |k: usize| maps[maps.len() - 1 - draw(10 * i + k, maps.len().min(if k == 0 { 2 } else { 6 }))];
        let (op, inputs) = match draw(10 * i + 5, 10) {
            0..=2 => (conv(5, 5), vec![pick(0)]),
            3 | 4 => (Op::Relu, vec![pick(0)]),
            5 => (Op::Clamp { lo: -0.5, hi: 2.0 }, vec![pick(0)]),
            6 => (batch_norm(5, Numbers::Reals), vec![pick(0)]),
            7 => (Op::MaxPool(Window::square(3, 1, 1)), vec![pick(0)]),
            8 => (Op::Add, vec![pick(0), pick(1)]),
            _ => (Op::Add, vec![pick(1), pick(2), pick(0)]),
        };
        maps.push(b.push(format!("node {i}"), op, &inputs).unwrap());
    }
    let flat = b.push("flatten", Op::Flatten, &[maps[maps.len() - 1]]).unwrap();
    let fc = b.push("fc", linear(shape.len(), 3), &[flat]).unwrap();
    Arc::new(b.finish(fc).unwrap())
}

fn composites() -> [(ReluRule, Composite); 3] {
    [
        (ReluRule::Vjp, Composite::gradient()),
        (ReluRule::Guided, Composite::guided()),
        (ReluRule::Deconvnet, Composite::deconvnet()),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn live_values_never_overlap(salt in any::<u64>(), nodes in 1usize..25) {
        let graph = tangle(salt, nodes);
        for (_, rules) in composites() {
            for decided in [Decided::Here, Decided::Elsewhere] {
                let to = graph.input();
                let mut b = Builder::new(&graph, decided).unwrap();
                let seed = b.seed(Score::Prob);
                let Ok(signal) = pull_back(&mut b, &rules, graph.output(), seed, to) else { continue };
                b.aggregate(signal, Statistic::Sum).unwrap();
                assert_places_are_apart(&Plan::new(b.finish(), bytes_of));
            }
        }
        // All outputs at once, and all decisions.
        let mut b = Builder::new(&graph, Decided::Here).unwrap();
        for (slot, id) in graph.ids().enumerate() {
            let out = b.output(id);
            b.store(out, slot).unwrap();
        }
        b.store_decisions().unwrap();
        assert_places_are_apart(&Plan::new(b.finish(), bytes_of));
    }
}

/// Packed weights are kept by id: a batch norm must be the same convolution in every program and at every size.
#[test]
fn batch_norms_keep_their_weight_id() {
    let mut b = GraphBuilder::new(Shape::new(3, 8, 8));
    let relu = b.push("relu", Op::Relu, &[b.input()]).unwrap();
    let norm = b.push("norm", batch_norm(3, Numbers::Reals), &[relu]).unwrap();
    let pool = b.push("pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[norm]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[pool]).unwrap();
    let graph = b.finish(flat).unwrap();
    let resized = graph.resized(Shape::new(3, 9, 5)).unwrap();
    let ids = |graph: &Graph| -> Vec<verilume::graph::WeightId> {
        let program = gradient(graph, &Composite::gradient());
        let of = |step: &Step| match step {
            Step::Conv { layer, .. } | Step::ConvAdjoint { layer, .. } => Some(layer.weight.id()),
            _ => None,
        };
        program.steps().iter().filter_map(of).collect()
    };
    let first = ids(&graph);
    assert_eq!(first, [first[0]; 2]);
    assert_eq!(ids(&graph), first);
    assert_eq!(ids(&resized), first);
}

#[test]
fn steps_know_their_nodes() {
    let graph = residual();
    let program = gradient(&graph, &Composite::gradient());
    let name = |i: usize| program.node(i).map_or("-", |id| graph.node(id).name.as_str());
    let names: Vec<&str> = (0..program.steps().len()).map(name).collect();
    let there = ["input", "stem", "inner", "pool", "flatten", "fc"];
    let back = ["fc", "flatten", "pool", "relu", "inner", "stem"];
    assert_eq!(names, [&there[..], &["-"], &back[..], &["-"]].concat());
}

#[test]
fn places_of_known_nets_are_apart() {
    let graphs = nets::SMALL.map(|name| Net::small(name).graph).into_iter().chain(mixed_nets(Numbers::Reals));
    for graph in graphs {
        for (_, rules) in composites() {
            assert_places_are_apart(&Plan::new(gradient(&graph, &rules), bytes_of));
        }
    }
}

/// The tangles run: whatever was fused and laid over what, the numbers are those of the definitions.
#[test]
fn tangled_nets_compute_what_they_say() {
    let mut engines: Vec<_> = machines().iter().map(|s| (s.precision, Engine::new(s).unwrap())).collect();
    for salt in 0..60 {
        let graph = tangle(salt, 3 + salt as usize % 20);
        let x = Numbers::Reals.maps(salt, 2, graph.input_shape());
        let outputs = forward(&graph, &x);
        let Some(logits) = outputs.last() else { panic!() };
        let seed = Numbers::Reals.maps(salt + 1, 2, logits.shape);
        for (precision, engine) in &mut engines {
            let tensor = |d: &Dense| {
                let [c, h, w] = d.shape.dims();
                Tensor::rounded([d.n(), c, h, w], d.data.clone(), *precision).unwrap()
            };
            let x = Batch::new(&tensor(&x)).unwrap();
            let tolerance = if precision.bytes() == 8 { 1e-11 } else { 2e-3 };
            let close = |what: &str, got: &Tensor, want: &Dense| {
                let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
                let scale = norm(&mut want.data.iter().copied());
                let difference = norm(&mut got.to_f64().iter().zip(&want.data).map(|(g, w)| g - w));
                let within = difference <= tolerance * scale;
                assert!(within, "net {salt}, {precision}, {what}: {difference:e} of {scale:e}");
            };
            close("logits", &engine.node_outputs(&graph, &x, &[graph.output()]).unwrap()[0], logits);
            for (rule, composite) in composites() {
                let want = backward(&graph, &outputs, graph.output(), seed.clone(), rule);
                let signal = tensor(&seed);
                let way = Pullback { from: graph.output(), signal: &signal, rules: &composite, to: graph.input() };
                match engine.pullback(&graph, &x, &way) {
                    Ok(got) => close(&format!("{rule:?}"), &got, &want[0]),
                    Err(e) => assert!(want[0].data.iter().all(|&v| v == 0.0), "net {salt}: {e}"),
                }
            }
        }
    }
}

#[test]
fn zeros_are_known_where_a_relu_or_a_pooling_leaves_them() {
    let conv = |c, k, size: usize| {
        let padding = Padding::all(size / 2);
        Geometry { c, k, kernel: [size; 2], padding, ..Geometry::default() }.conv(Numbers::Reals)
    };
    let mut b = GraphBuilder::new(Shape::new(3, 16, 16));
    let mut at = b.input();
    for (name, op) in [
        ("one", conv(3, 64, 3)),
        ("one.relu", Op::Relu),
        ("two", conv(64, 64, 1)),
        ("two.relu", Op::Relu),
        ("three", conv(64, 64, 3)),
        ("three.relu", Op::Relu),
        ("pool", Op::MaxPool(Window::square(2, 2, 0))),
        ("four", conv(64, 48, 1)),
        ("flatten", Op::Flatten),
    ] {
        at = b.push(name, op, &[at]).unwrap();
    }
    let graph = Arc::new(b.finish(at).unwrap());
    let x =
        Batch::new(&Tensor::rounded([1, 3, 16, 16], Numbers::Reals.fill(1, 768, 8), Precision::F32).unwrap()).unwrap();
    for settings in machines().into_iter().filter(|m| m.device == DeviceChoice::Auto || m.device == DeviceChoice::Cpu) {
        let mut engine = Engine::new(&settings).unwrap();
        let job = Job::gradient(Score::default());
        let (_, profile) = engine.profile(|engine| engine.explain(&graph, &job, &x, &[0])).unwrap();
        let plan = profile.chunks[0].plan.clone();
        let mut found = Vec::new();
        for (i, step) in plan.steps().iter().enumerate() {
            if let Step::Conv { x: read, .. } | Step::ConvAdjoint { s: read, .. } = step {
                found.push((step.kind(), step.layer().unwrap(), plan.zeros(*read), engine.kernel(&plan, i)));
            }
        }
        let vectors = engine.describe().kernels != Kernels::Portable.set().name;
        let skipping = |otherwise| if vectors { "skipping" } else { otherwise };
        let few = match settings.convolution {
            Convolution::Fast if vectors => "winograd",
            _ => skipping("direct"),
        };
        let want = [
            ("conv", "one", Zeros::Unknown, "direct"),
            ("conv", "two", Zeros::Many, skipping("direct")),
            ("conv", "three", Zeros::Many, few),
            // Most of what a pooling lets through is not zero.
            ("conv", "four", Zeros::Unknown, "direct"),
            ("conv_adjoint", "four", Zeros::Unknown, "direct"),
            ("conv_adjoint", "three", Zeros::AllButOneIn(4), skipping("direct")),
            ("conv_adjoint", "two", Zeros::Many, skipping("direct")),
            ("conv_adjoint", "one", Zeros::Many, "narrow"),
        ];
        assert_eq!(found, want, "{:?}", engine.describe());
    }
}
