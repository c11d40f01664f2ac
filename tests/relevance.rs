//! Relevance rules against their definitions on explicit matrices, presets against the same on whole nets, and what gets
//! lost on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod naive_lrp;
mod nets;
mod reference;

use std::sync::Arc;

use naive_lrp::{Matrix, Naive, Rules, quantile, rectified, relevance, stabilised};
use nets::{Net, SMALL, build, machines};
use reference::cases::{Geometry, Numbers, batch_norm};
use reference::{Dense, op_forward, weight_f64};
use verilume::engine::{Batch, Copies, Engine, Pullback, Settings, Task};
use verilume::graph::{Graph, GraphBuilder, Linear, NodeId, Op};
use verilume::image::{Interpolation, Preprocess};
use verilume::method::conservation;
#[cfg(feature = "embedded-model")]
use verilume::model::Model;
use verilume::program::{Builder, Decided, Score, Statistic};
use verilume::rule::{
    AlphaBeta, Bias, Composite, ConstantTerms, Contrast, Epsilon, Flat, Gamma, GateShare, Norm, Pass, Preset,
    Relevance, Rule, Select, Vjp, WSquare, ZBox, ZPlus, pull_back,
};
use verilume::tensor::{Padding, Precision, Shape, Tensor, Window};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn f64_engine() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

/// Largest difference as a share of the largest reference; NaN stays NaN.
fn error(what: &str, got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}");
    let top = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(top > 0.0, "{what}: the reference is all zeros");
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, |m: f64, d| if d <= m { m } else { d }) / top
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let error = error(what, got, want);
    let within = error <= tolerance;
    assert!(within, "{what}: {error:.2e} for {tolerance:.0e}");
}

/// `input → op → Flatten`, or with a ReLU before the operation.
struct Subject {
    name: String,
    graph: Graph,
    node: NodeId,
    x: Dense,
    /// What the operation reads.
    read: Dense,
}

fn subject(name: &str, op: Op, shape: Shape, numbers: Numbers, relu: bool) -> Subject {
    let mut b = GraphBuilder::new(shape);
    let mut at = b.input();
    if relu {
        at = b.push("relu", Op::Relu, &[at]).unwrap();
    }
    let node = b.push("node", op, &[at]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[node]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = numbers.maps(41, 1, shape);
    let read = if relu { x.map(|v| v.max(0.0)) } else { x.clone() };
    Subject { name: format!("{name}, {numbers:?}{}", if relu { ", after a ReLU" } else { "" }), graph, node, x, read }
}

/// Convolutions with padding, strides and groups, a batch norm that stayed, a linear layer.
fn subjects() -> Vec<Subject> {
    let uneven = Padding::Explicit { top: 1, bottom: 0, left: 2, right: 1 };
    let conv = Geometry { c: 3, k: 5, padding: uneven, ..Geometry::default() };
    let strided = Geometry { c: 4, k: 6, groups: 2, stride: [2, 1], kernel: [3, 2], ..Geometry::default() };
    let depthwise = Geometry { c: 9, k: 9, groups: 9, ..Geometry::default() };
    let mut out = Vec::new();
    for numbers in [Numbers::Reals, Numbers::Integers] {
        for relu in [false, true] {
            out.push(subject("conv", conv.conv(numbers), Shape::new(3, 5, 4), numbers, relu));
            out.push(subject("grouped conv", strided.conv(numbers), Shape::new(4, 5, 6), numbers, relu));
            out.push(subject("depthwise conv", depthwise.conv(numbers), Shape::new(9, 4, 3), numbers, relu));
            let (k, c) = (7, 19);
            let weight = weight_f64([k, c, 1, 1], &numbers.fill(51, k * c, 3));
            let linear = Op::Linear(Linear { weight, bias: Some(numbers.fill(52, k, 4).into()) });
            out.push(subject("linear", linear, Shape::vector(c), numbers, relu));
        }
    }
    out.push(subject("batch norm", batch_norm(5, Numbers::Reals), Shape::new(5, 3, 4), Numbers::Reals, false));
    out
}

fn pulled(engine: &mut Engine, s: &Subject, rule: Arc<dyn Rule>, r: &Dense) -> Vec<f64> {
    let rules = Composite::new(vec![(Select::Every, rule)]);
    let x = Batch::new(&s.x.to_tensor()).unwrap();
    // To what the operation reads: a ReLU in front shows that the input is not negative.
    let to = s.graph.node(s.node).inputs[0];
    let way = Pullback { from: s.node, signal: &r.to_tensor(), rules: &rules, to };
    engine.pullback(&s.graph, &x, &way).unwrap().to_f64().into_owned()
}

#[test]
fn every_rule_follows_its_definition() {
    let mut zeros = 0;
    for s in subjects() {
        assert!(s.x.data.iter().any(|&v| v < 0.0) && s.x.data.iter().any(|&v| v > 0.0), "signed inputs");
        let m = Matrix::of(&s.graph.node(s.node).op, &s.read);
        let out = s.graph.node(s.node).shape;
        let r = Numbers::Reals.maps(61, 1, out);
        let n = s.read.data.len();
        // A ReLU on the way lifts the lower bound too.
        let lifted = s.graph.find("relu").is_ok();
        let (low, high) = (vec![if lifted { 0.0 } else { -9.0 }; n], vec![10.0; n]);
        let mut rules: Vec<(Naive, Arc<dyn Rule>)> = vec![
            (Naive::WSquare, Arc::new(WSquare)),
            (Naive::Flat, Arc::new(Flat)),
            (Naive::ZBox { low, high }, Arc::new(ZBox::new(&[-9.0], &[10.0]).unwrap())),
            (Naive::Contrast, Arc::new(Contrast)),
        ];
        if matches!(s.graph.node(s.node).op, Op::BatchNorm(_)) {
            // It is no first layer.
            rules.retain(|(naive, _)| !matches!(naive, Naive::ZBox { .. }));
        }
        for (keep, bias) in [(true, Bias::Keep), (false, Bias::Zero)] {
            for epsilon in [1e-2, 1e-6, 0.5] {
                rules.push((Naive::Epsilon { epsilon, bias: keep }, Arc::new(Epsilon { epsilon, bias })));
            }
            rules.push((Naive::ZPlus { bias: keep }, Arc::new(ZPlus { bias })));
            for (alpha, beta) in [(2.0, 1.0), (1.0, 0.0), (1.5, 0.5)] {
                let ours = AlphaBeta::new(alpha, beta, bias).unwrap();
                rules.push((Naive::AlphaBeta { alpha, beta, bias: keep }, Arc::new(ours)));
            }
            for gamma in [0.25, 0.0, 3.0] {
                rules.push((Naive::Gamma { gamma, bias: keep }, Arc::new(Gamma { gamma, bias })));
            }
        }
        zeros += m.apply(&s.read.data).iter().filter(|&&z| z == 0.0).count();
        for settings in machines() {
            let mut engine = Engine::new(&settings).unwrap();
            // Sums of integers are exact, so that a sum of zero is zero everywhere; reals near zero are not compared so
            // strictly in single precision.
            let tolerance = match settings.precision {
                Precision::F64 => 1e-10,
                Precision::F32 => 2e-3,
            };
            for (naive, ours) in &rules {
                let want = naive.relevance(&m, &s.read.data, &r.data);
                let got = pulled(&mut engine, &s, Arc::clone(ours), &r);
                let what = format!("{} on {}, {:?}", ours.id(), s.name, settings.kernels);
                assert_close(&what, &got, &want, tolerance);
            }
        }
    }
    assert!(zeros > 0, "no output was zero: the sign of zero was not tried");
}

/// By hand: an output of exactly zero whose inputs cancel, and biases.
#[test]
fn a_zero_counts_as_positive_and_a_bias_keeps_its_part() {
    let weight = weight_f64([2, 2, 1, 1], &[1.0, -1.0, 1.0, 1.0]);
    let op = Op::Linear(Linear { weight, bias: Some(vec![0.0, 2.0].into()) });
    let mut s = subject("linear", op, Shape::vector(2), Numbers::Reals, false);
    s.x = Dense::new(Shape::vector(2), vec![3.0, 3.0]);
    let mut engine = f64_engine();
    let mut of =
        |rule: Arc<dyn Rule>, r: [f64; 2]| pulled(&mut engine, &s, rule, &Dense::new(Shape::vector(2), r.to_vec()));
    // z = 0: R / +0.5 = 2, shares 3·2 and −3·2.
    assert_eq!(of(Arc::new(Epsilon { epsilon: 0.5, bias: Bias::Keep }), [1.0, 0.0]), [6.0, -6.0]);
    // Nothing to divide by: nothing goes on.
    assert_eq!(of(Arc::new(Epsilon { epsilon: 0.0, bias: Bias::Keep }), [1.0, 0.0]), [0.0, 0.0]);
    // z = 3 + 3 + 2: a quarter stays with the bias, or nothing.
    assert_eq!(of(Arc::new(Epsilon { epsilon: 0.0, bias: Bias::Keep }), [0.0, 8.0]), [3.0, 3.0]);
    assert_eq!(of(Arc::new(Epsilon { epsilon: 0.0, bias: Bias::Zero }), [0.0, 8.0]), [4.0, 4.0]);
    // An output of exactly zero has no sign for γ to agree with.
    assert_eq!(of(Arc::new(Gamma { gamma: 1.0, bias: Bias::Keep }), [1.0, 0.0]), [0.0, 0.0]);
}

/// Only the taps inside the picture share: a corner of a padded 3×3 window has four of nine.
#[test]
fn taps_in_the_padding_get_nothing() {
    let weight = weight_f64([1, 1, 3, 3], &[2.0; 9]);
    let window = Window::square(3, 1, 1);
    let op = Op::Conv(verilume::graph::Conv { weight, bias: None, window, groups: 1 });
    let s = subject("conv", op, Shape::new(1, 4, 4), Numbers::Reals, false);
    let mut r = Dense::zeros(1, Shape::new(1, 4, 4));
    r.data[0] = 1.0;
    let corner: Vec<f64> = (0..16).map(|i| if [0, 1, 4, 5].contains(&i) { 0.25 } else { 0.0 }).collect();
    let mut engine = f64_engine();
    assert_close("flat", &pulled(&mut engine, &s, Arc::new(Flat), &r), &corner, 1e-6);
    assert_close("w_square", &pulled(&mut engine, &s, Arc::new(WSquare), &r), &corner, 1e-6);
}

#[test]
fn sums_and_averages_share_in_proportion() {
    let mut engine = f64_engine();
    let shape = Shape::new(3, 6, 5);
    let window = Window { padding: Padding::all(1), ..Window::square(3, 2, 1) };
    for relu in [false, true] {
        for op in [
            Op::AvgPool { window, count_padding: true },
            Op::AvgPool { window, count_padding: false },
            Op::AdaptiveAvgPool { out: [2, 3] },
        ] {
            let s = subject("average", op.clone(), shape, Numbers::Reals, relu);
            let r = Numbers::Reals.maps(62, 1, s.graph.node(s.node).shape);
            let m = Matrix::of(&op, &s.read);
            for (naive, ours) in [
                (Naive::Norm, Arc::new(Norm) as Arc<dyn Rule>),
                (Naive::ZPlus { bias: true }, Arc::new(ZPlus { bias: Bias::Zero })),
            ] {
                let want = naive.relevance(&m, &s.read.data, &r.data);
                let got = pulled(&mut engine, &s, ours, &r);
                assert_close(&format!("{naive:?}, {op:?}"), &got, &want, 1e-10);
            }
        }
    }
    // A sum of three, one of them twice.
    let mut b = GraphBuilder::new(shape);
    let relu = b.push("relu", Op::Relu, &[b.input()]).unwrap();
    let sum = b.push("sum", Op::Add, &[b.input(), relu, b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[sum]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = Numbers::Reals.maps(63, 1, shape);
    let r = Numbers::Reals.maps(64, 1, shape);
    for (rule, share) in
        [(Arc::new(Norm) as Arc<dyn Rule>, false), (Arc::new(ZPlus { bias: Bias::Keep }) as Arc<dyn Rule>, true)]
    {
        let rules = Composite::new(vec![(Select::Sums, rule), (Select::Activations, Arc::new(Pass))]);
        let way = Pullback { from: sum, signal: &r.to_tensor(), rules: &rules, to: graph.input() };
        let got = engine.pullback(&graph, &Batch::new(&x.to_tensor()).unwrap(), &way).unwrap();
        let want = x.zip(&r, |x, r| {
            let own = if share { x.max(0.0) } else { x };
            let s = stabilised(r, 2.0 * own + x.max(0.0), 1e-6);
            (2.0 * own + x.max(0.0)) * s
        });
        assert_close("sum", &got.to_f64(), &want.data, 1e-10);
    }
}

/// Two branches of which one is read again, a residual sum, every kind of node that passes relevance on.
fn mixed() -> Graph {
    let mut b = GraphBuilder::new(Shape::new(3, 11, 9));
    let conv = |c, k, stride, numbers: u64| {
        let mut op = Geometry { c, k, stride: [stride; 2], ..Geometry::default() }.conv(Numbers::Reals);
        let Op::Conv(own) = &mut op else { panic!() };
        own.weight = weight_f64(own.weight.dims(), &Numbers::Reals.fill(numbers, own.weight.len(), 1));
        own.bias = Some(Numbers::Reals.fill(numbers + 1, k, 1).into());
        op
    };
    let linear = |c, k, numbers: u64| {
        let weight = weight_f64([k, c, 1, 1], &Numbers::Reals.fill(numbers, k * c, 1));
        Op::Linear(Linear { weight, bias: Some(Numbers::Reals.fill(numbers + 1, k, 1).into()) })
    };
    let stem = b.push("stem", conv(3, 6, 1, 71), &[b.input()]).unwrap();
    let stem = b.push("stem.relu", Op::Relu, &[stem]).unwrap();
    let pool = b.push("pool", Op::MaxPool(Window::square(3, 2, 1)), &[stem]).unwrap();
    let inner = b.push("inner", conv(6, 8, 2, 73), &[pool]).unwrap();
    let norm = b.push("norm", batch_norm(8, Numbers::Reals), &[inner]).unwrap();
    let short = b.push("short", Op::Subsample { stride: [2; 2] }, &[pool]).unwrap();
    let short = b.push("wide", Op::PadChannels { before: 1, after: 1 }, &[short]).unwrap();
    let sum = b.push("sum", Op::Add, &[norm, short]).unwrap();
    let relu = b.push("sum.relu", Op::Clamp { lo: 0.0, hi: 6.0 }, &[sum]).unwrap();
    let more = b.push("more", conv(8, 4, 1, 75), &[relu]).unwrap();
    let both = b.push("both", Op::Concat, &[more, relu]).unwrap();
    let window = Window::square(2, 1, 0);
    let mean = b.push("mean", Op::AvgPool { window, count_padding: true }, &[both]).unwrap();
    let mean = b.push("adaptive", Op::AdaptiveAvgPool { out: [1, 1] }, &[mean]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[mean]).unwrap();
    let fc = b.push("fc1", linear(12, 9, 77), &[flat]).unwrap();
    let fc = b.push("fc1.relu", Op::Relu, &[fc]).unwrap();
    let fc = b.push("fc2", linear(9, 5, 79), &[fc]).unwrap();
    b.finish(fc).unwrap()
}

fn pixels() -> Preprocess {
    Preprocess {
        resize: 0,
        crop: [11, 9],
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5, 0.4, 0.55],
        std: vec![0.5, 0.4, 0.55],
        channels: 3,
    }
}

#[test]
fn presets_follow_their_rules_on_signed_pixels() {
    let graph = mixed();
    let preprocess = pixels();
    let x = Numbers::Reals.maps(81, 1, graph.input_shape()).map(|v| 0.8 * v);
    let batch = Batch::new(&x.to_tensor()).unwrap();
    let outputs = reference::forward(&graph, &x);
    let logits = &outputs[graph.output().index()];
    let ends = |colour: Vec<f64>| -> Vec<f64> { colour.iter().flat_map(|&v| vec![v; 99]).collect() };
    let (low, high) = (ends(preprocess.black()), ends(preprocess.white()));
    let mut engine = f64_engine();
    for target in [0, 3] {
        let one_hot = |height: f64| {
            let mut r = Dense::zeros(1, logits.shape);
            r.data[target] = height;
            r
        };
        let mut cases: Vec<(String, Rules, f64)> = Vec::new();
        let start = logits.data[target];
        for (name, preset) in Preset::ALL {
            for (given, epsilon, gamma, bias) in
                [("", 1e-6, 0.25, true), (",epsilon=0.05,gamma=0.7,bias=zero", 0.05, 0.7, false)]
            {
                let rules = Rules::of(preset, &low, &high, epsilon, gamma, bias);
                cases.push((format!("lrp:preset={name}{given}"), rules, start));
            }
        }
        let numbers = |v: f64| vec![v; 297];
        cases.push((
            "lrp:preset=epsilon_gamma_box,low=-2,high=1.5".into(),
            Rules::of(Preset::EpsilonGammaBox, &numbers(-2.0), &numbers(1.5), 1e-6, 0.25, true),
            start,
        ));
        let plus = |bias| Naive::ZPlus { bias };
        let first = Some(Naive::ZBox { low: low.clone(), high: high.clone() });
        let taylor = Rules { first, last: None, convolution: plus(true), linear: plus(true), sums: Naive::Norm };
        cases.push(("deep_taylor".into(), taylor, start));
        let excitation =
            Rules { first: None, last: None, convolution: plus(false), linear: plus(false), sums: plus(false) };
        cases.push(("excitation_backprop".into(), excitation.clone(), 1.0));
        cases.push(("contrastive_ebp".into(), Rules { last: Some(Naive::Contrast), ..excitation }, 1.0));
        for (spec, rules, start) in cases {
            let want = &relevance(&graph, &x, &rules, one_hot(start))[0];
            let method = build(&spec, Score::Logit, 0, &preprocess).unwrap();
            let maps = method.explain(&mut engine, &graph, &batch, &[target]).unwrap();
            assert_close(&format!("{spec}, class {target}"), &maps[0].values.to_f64(), &want.data, 1e-9);
        }
        for q in [0.98, 0.5, 0.0] {
            let want = &rectified(&graph, &x, q, one_hot(1.0))[0];
            let method = build(&format!("rect_grad:q={q}"), Score::Logit, 0, &preprocess).unwrap();
            let maps = method.explain(&mut engine, &graph, &batch, &[target]).unwrap();
            assert_close(&format!("rect_grad, q {q}"), &maps[0].values.to_f64(), &want.data, 1e-9);
        }
    }
}

/// Relevance of a probability starts at every logit, and the gap is measured against what it started from.
#[test]
fn other_scores_start_at_all_logits() {
    let graph = mixed();
    let x = Numbers::Reals.maps(81, 1, graph.input_shape());
    let outputs = reference::forward(&graph, &x);
    let logits = &outputs[graph.output().index()];
    let preprocess = pixels();
    let mut engine = f64_engine();
    for score in [Score::Prob, Score::LogProb] {
        let seed = score.evaluate(&logits.data, 2).1;
        let start = Dense::new(logits.shape, seed.iter().zip(&logits.data).map(|(g, y)| g * y).collect());
        let rules = Rules::of(Preset::EpsilonPlus, &[], &[], 1e-6, 0.25, true);
        let want = &relevance(&graph, &x, &rules, start)[0];
        let method = build("lrp", score, 0, &preprocess).unwrap();
        let maps = method.explain(&mut engine, &graph, &Batch::new(&x.to_tensor()).unwrap(), &[2]).unwrap();
        assert_close(&format!("{score:?}"), &maps[0].values.to_f64(), &want.data, 1e-9);
    }
}

/// What is known of a ReLU's output does not hold for what its readers get instead.
#[test]
fn replaced_activations_may_be_negative() {
    let s = subject(
        "conv",
        Geometry { c: 3, k: 5, ..Geometry::default() }.conv(Numbers::Reals),
        Shape::new(3, 5, 4),
        Numbers::Reals,
        true,
    );
    let m = Matrix::of(&s.graph.node(s.node).op, &s.read);
    let r = Numbers::Reals.maps(65, 1, s.graph.node(s.node).shape);
    let other = Numbers::Reals.maps(66, 1, s.read.shape);
    let want = Naive::ZPlus { bias: true }.relevance(&m, &other.data, &r.data);
    let relu = s.graph.find("relu").unwrap();
    let rules = Composite::new(vec![(Select::Every, Arc::new(ZPlus { bias: Bias::Keep }))]);
    let item = |d: &Dense| d.to_tensor().item(0).unwrap();
    let loads = [vec![item(&other)], vec![item(&r)]];
    let x = Batch::new(&s.x.to_tensor()).unwrap();
    let task = Task { x: &x, targets: &[0], copies: &Copies::one(), loads: &loads };
    let outcome = f64_engine()
        .evaluate_once(&s.graph, &task, |b| {
            let instead = b.load(0, s.read.shape)?;
            b.replace(relu, instead)?;
            let up = b.load(1, r.shape)?;
            let down = pull_back(b, &rules, s.node, up, relu)?;
            b.store(down, 0)
        })
        .unwrap();
    assert_close("replaced", &outcome.stores[0][0].to_f64(), &want, 1e-10);
}

#[test]
fn quantiles_are_those_of_the_sorted_numbers() {
    // One number, part of a block, several blocks; ties, all equal.
    for (shape, salt, equal) in [
        (Shape::vector(1), 1, false),
        (Shape::new(5, 3, 7), 2, false),
        (Shape::new(19, 4, 3), 3, false),
        (Shape::new(3, 4, 4), 4, true),
    ] {
        let mut b = GraphBuilder::new(shape);
        let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
        let graph = b.finish(flat).unwrap();
        let pictures: Vec<Dense> = (0..3)
            .map(|i| Numbers::Integers.maps(salt + 10 * i, 1, shape).map(|v| if equal { 2.0 } else { v }))
            .collect();
        let x = Batch::of(pictures.iter().map(|d| d.to_tensor().item(0).unwrap()).collect()).unwrap();
        for settings in machines() {
            let mut engine = Engine::new(&settings).unwrap();
            for q in [0.0, 0.3, 0.5, 0.98, 1.0] {
                let task = Task { x: &x, targets: &[0; 3], copies: &Copies::one(), loads: &[] };
                let outcome = engine
                    .evaluate_once(&graph, &task, |b| {
                        let x = b.output(graph.input());
                        let bits = b.above_quantile(x, q)?;
                        let ones = b.fill(shape, vec![1.0; shape.c])?;
                        let above = b.gate(ones, bits)?;
                        b.store(above, 0)
                    })
                    .unwrap();
                for (got, picture) in outcome.stores[0].iter().zip(&pictures) {
                    let threshold = quantile(&picture.data, q);
                    let want: Vec<f64> = picture.data.iter().map(|&v| f64::from(u8::from(v > threshold))).collect();
                    assert_eq!(got.to_f64()[..], want, "{shape}, {q}, {:?}", settings.kernels);
                }
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let preprocess = pixels();
    let graph = mixed();
    let x = Batch::new(&Numbers::Reals.maps(81, 1, graph.input_shape()).to_tensor()).unwrap();
    let mut engine = f64_engine();
    for (spec, part) in [
        ("lrp:preset=delta", "epsilon_plus_flat"),
        ("lrp:epsilon=-1", "epsilon=-1"),
        ("lrp:epsilon=nan", "epsilon=NaN"),
        ("lrp:gamma=inf", "gamma=inf"),
        ("lrp:bias=half", "keep and zero"),
        ("lrp:low=grey", "low=grey"),
        ("lrp:preset=epsilon_gamma_box,low=1,high=0", "cannot lie between"),
        ("lrp:preset=epsilon_gamma_box,low=nan", "cannot lie between"),
        ("rect_grad:q=1.5", "between 0 and 1"),
        ("rect_grad:q=nan", "between 0 and 1"),
    ] {
        let error = build(spec, Score::Logit, 0, &preprocess).map(|_| ()).expect_err(spec);
        assert_eq!(error.kind(), verilume::ErrorKind::Settings, "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    assert!(AlphaBeta::new(2.0, 0.5, Bias::Keep).is_err() && AlphaBeta::new(0.0, -1.0, Bias::Keep).is_err());
    // Bounds for as many channels as another net has.
    let grey = Preprocess { mean: vec![0.0], std: vec![1.0], channels: 1, ..preprocess.clone() };
    let two = Preprocess { mean: vec![0.0; 2], std: vec![1.0; 2], channels: 2, ..preprocess };
    let of = |p: &Preprocess| build("deep_taylor", Score::Logit, 0, p).unwrap();
    assert!(of(&grey).explain(&mut engine, &graph, &x, &[0]).is_ok(), "one number serves all channels");
    let error = of(&two).explain(&mut engine, &graph, &x, &[0]).unwrap_err();
    assert_eq!(error.kind(), verilume::ErrorKind::Settings, "{error}");
    // Rules for other nodes than theirs.
    let (fc, sum, relu) = (graph.find("fc1").unwrap(), graph.find("sum").unwrap(), graph.find("fc1.relu").unwrap());
    let mut pull = |rule: Arc<dyn Rule>, node: NodeId| {
        let signal = Numbers::Reals.maps(1, 1, graph.node(node).shape).to_tensor();
        let rules = Composite::new(vec![(Select::Every, rule)]);
        let way = Pullback { from: node, signal: &signal, rules: &rules, to: graph.node(node).inputs[0] };
        engine.pullback(&graph, &x, &way).map(|_| ()).unwrap_err().to_string()
    };
    assert!(pull(Arc::new(Epsilon { epsilon: 1.0, bias: Bias::Keep }), sum).contains("'sum' is add"));
    assert!(pull(Arc::new(Gamma { gamma: 1.0, bias: Bias::Keep }), relu).contains("gamma is a rule for layers"));
    assert!(pull(Arc::new(Norm), fc).contains("'fc1' is linear"));
    assert!(pull(Arc::new(Pass), fc).contains("pass is a rule for activations"));
    assert!(pull(Arc::new(ZPlus { bias: Bias::Keep }), relu).contains("z_plus"));
    assert!(pull(Arc::new(ZBox::new(&[0.0], &[1.0]).unwrap()), fc).contains("first layers"));
    // A net without activations has nothing to rectify.
    let mut b = GraphBuilder::new(Shape::vector(3));
    let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
    let bare = b.finish(flat).unwrap();
    let x = Batch::new(&Tensor::f32([1, 3, 1, 1], vec![1.0; 3]).unwrap()).unwrap();
    let method = build("rect_grad", Score::Logit, 0, &grey).unwrap();
    assert_eq!(method.explain(&mut engine, &bare, &x, &[0]).unwrap_err().kind(), verilume::ErrorKind::Settings);
}

/// Plans are kept by the rules' ids.
#[test]
fn ids_hold_every_parameter() {
    let mut ids = Vec::new();
    for bias in [Bias::Keep, Bias::Zero] {
        for value in [0.25, 0.5] {
            ids.push(Epsilon { epsilon: value, bias }.id());
            ids.push(Gamma { gamma: value, bias }.id());
            ids.push(AlphaBeta::new(1.0 + value, value, bias).unwrap().id());
            ids.push(Composite::rectified(value).id());
        }
        ids.push(ZPlus { bias }.id());
    }
    for (low, high) in [([0.0, 0.0], [1.0, 1.0]), ([0.0, -1.0], [1.0, 1.0]), ([0.0, 0.0], [1.0, 2.0])] {
        ids.push(ZBox::new(&low, &high).unwrap().id());
    }
    for first_slot in [0, 1] {
        ids.push(ConstantTerms { first_slot, nodes: Vec::new() }.id());
    }
    ids.extend([WSquare.id(), Flat.id(), Norm.id(), Pass.id(), Contrast.id(), Vjp.id()]);
    ids.extend([Composite::excitation().id(), Composite::contrastive_excitation().id()]);
    let all = ids.len();
    ids.sort();
    ids.dedup();
    ids.retain(|id| !id.is_empty());
    // RectGrad's appear once for each bias.
    assert_eq!(ids.len(), all - 2);
}

/// Behind a ReLU there are no negative inputs, so no convolution is spent on them.
#[test]
fn a_known_sign_saves_convolutions() {
    let net = Net::small("vgg");
    let layers = net.graph.nodes().iter().filter(|n| matches!(n.op, Op::Conv(_))).count();
    let numbers = Relevance {
        epsilon: 1e-6,
        gamma: 0.25,
        bias: Bias::Keep,
        gate: GateShare::Nothing,
        low: vec![-1.0],
        high: vec![1.0],
    };
    for (preset, ways, first) in [
        (Preset::Epsilon, 0, 0),
        (Preset::EpsilonPlus, 1, 2),
        (Preset::EpsilonAlpha2Beta1, 2, 4),
        (Preset::Gamma, 2, 4),
        (Preset::EpsilonGammaBox, 2, 3),
        (Preset::EpsilonPlusFlat, 1, 1),
    ] {
        let mut b = Builder::new(&net.graph, Decided::Here).unwrap();
        let seed = b.seed(Score::Logit);
        let rules = numbers.composite(preset).unwrap();
        let down = pull_back(&mut b, &rules, net.graph.output(), seed, net.graph.input()).unwrap();
        b.aggregate(down, Statistic::Sum).unwrap();
        let program = b.finish();
        let count = |kind: &str| program.steps().iter().filter(|s| s.kind() == kind).count();
        assert_eq!(count("conv"), layers + ways * (layers - 1) + first, "{preset:?}");
        let (back, first) = (ways.max(1), if preset == Preset::Epsilon { 1 } else { first });
        assert_eq!(count("conv_adjoint"), back * (layers - 1) + first, "{preset:?}");
    }
}

/// A net on some pictures, with its name and the box its pixels lie in.
struct Subnet {
    name: String,
    graph: Arc<Graph>,
    x: Batch,
    targets: Vec<usize>,
    preprocess: Preprocess,
}

impl Subnet {
    fn new(net: Net) -> Self {
        Self { name: net.name, graph: net.graph, x: net.x, targets: net.targets, preprocess: net.preprocess }
    }

    fn composites(&self) -> Vec<(String, Composite)> {
        let (low, high) = (self.preprocess.black(), self.preprocess.white());
        let numbers = Relevance {
            epsilon: 1e-6,
            gamma: 0.25,
            bias: Bias::Keep,
            gate: GateShare::Nothing,
            low: low.clone(),
            high: high.clone(),
        };
        let mut out: Vec<(String, Composite)> = Preset::ALL
            .iter()
            .map(|&(name, preset)| (format!("lrp {name}"), numbers.composite(preset).unwrap()))
            .collect();
        let coarse = Relevance { epsilon: 1e-2, ..numbers };
        out.push(("lrp epsilon, ε = 0.01".into(), coarse.composite(Preset::Epsilon).unwrap()));
        out.push(("deep_taylor".into(), Composite::deep_taylor(&low, &high).unwrap()));
        out.push(("excitation_backprop".into(), Composite::excitation()));
        out
    }
}

/// The balance of every layer holds to `1e-9` in double precision and to a hundredth in single.
fn check_conservation(net: &Subnet, settings: &[Settings]) {
    let mut failures = Vec::new();
    for (name, rules) in net.composites() {
        let mut line = format!("| {name} | {} |", net.name);
        for settings in settings {
            let mut engine = Engine::new(settings).unwrap();
            let tolerance = if settings.precision == Precision::F64 { 1e-9 } else { 1e-2 };
            let pictures = conservation(&mut engine, &net.graph, &net.x, &net.targets, &rules).unwrap();
            let (mut worst, mut total, mut lost) = (0.0f64, 0.0f64, 0.0f64);
            for layers in &pictures {
                assert!(layers.iter().any(|l| l.magnitude > 0.0 && l.node.index() == 1), "nothing arrives: {layers:?}");
                // Every node but the picture has its line.
                assert_eq!(layers.len(), net.graph.nodes().len() - 1, "{}", net.name);
                let pixels: f64 = layers
                    .iter()
                    .filter(|l| net.graph.node(l.node).inputs[0] == net.graph.input())
                    .map(|l| l.r_in)
                    .sum();
                let kept: f64 = layers.iter().map(|l| l.bias + l.lost).sum();
                total = total.max((pixels + kept - layers[0].r_out).abs() / layers[0].magnitude);
                for layer in layers {
                    let gap = layer.gap();
                    let within = gap <= tolerance;
                    if !within {
                        failures.push(format!("{name} on {}, {}: {layer:?} {gap:.1e}", net.name, settings.precision));
                    }
                    worst = if gap <= worst { worst } else { gap };
                    lost = lost.max(if layer.lost == 0.0 { 0.0 } else { layer.lost.abs() / layer.magnitude });
                }
            }
            // Where every sum but zero is shared out whole, 1e-6 takes next to nothing.
            let whole = !["lrp epsilon", "lrp gamma"].contains(&name.as_str()) || lost <= 1e-3;
            if !whole {
                failures.push(format!("{name} on {}: {lost:.1e} of a layer is lost", net.name));
            }
            line += &format!(" {worst:.1e} | {total:.1e} | {lost:.1e} |");
        }
        println!("{line}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn both() -> [Settings; 2] {
    [Precision::F64, Precision::F32].map(|precision| Settings { precision, threads: Some(2), ..Settings::default() })
}

/// Unaccounted for in the worst layer and in all, lost in the worst layer, as shares of the relevance there.
const HEADING: &str = "| rules | net | worst layer f64 | all f64 | most lost f64 | worst layer f32 | all f32 | most lost f32 |\n\
                       |---|---|---|---|---|---|---|---|";

#[test]
fn small_nets_keep_relevance() {
    println!("{HEADING}");
    for name in SMALL {
        check_conservation(&Subnet::new(Net::small(name)), &both());
    }
    let graph = Arc::new(mixed());
    let x = Batch::new(&Numbers::Reals.maps(81, 2, graph.input_shape()).to_tensor()).unwrap();
    let net = Subnet { name: "every kind of node".into(), graph, x, targets: vec![1, 4], preprocess: pixels() };
    check_conservation(&net, &both());
}

#[test]
#[cfg(feature = "embedded-model")]
fn efficientnet_lite0_keeps_relevance() {
    println!("{HEADING}");
    let model = Model::embedded().unwrap();
    let net = Net::real("efficientnet-lite0", &model);
    // Every second pixel of the first picture.
    let picture = net.x.items()[0].to_f64();
    let half = Dense::from_fn(1, Shape::new(3, 112, 112), |_, c, y, x| picture[(c * 224 + 2 * y) * 224 + 2 * x]);
    let graph = model.graph(half.shape).unwrap();
    let x = Batch::new(&half.to_tensor()).unwrap();
    let net = Subnet { graph, x, targets: net.targets[..1].to_vec(), name: net.name, preprocess: net.preprocess };
    check_conservation(&net, &both());
}

#[test]
#[cfg(feature = "embedded-model")]
fn a_random_resnet50_keeps_relevance() {
    println!("{HEADING}");
    let model = Model::random("resnet50", 5).unwrap();
    let shape = Shape::new(3, 64, 64);
    let x = Numbers::Reals.maps(91, 1, shape).map(|v| 2.0 * v);
    let graph = model.graph(shape).unwrap();
    let x = Batch::new(&x.to_tensor()).unwrap();
    let preprocess = model.preprocess().clone();
    let net = Subnet { name: "random resnet50".into(), graph, x, targets: vec![7], preprocess };
    check_conservation(&net, &both());
}

#[needs::shared_data]
#[test]
fn cifar10_resnet20_keeps_relevance() {
    println!("{HEADING}");
    let path = std::path::Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors");
    let model = verilume::model::Model::open(&path, None).unwrap();
    let mut net = Subnet::new(Net::real("cifar10-resnet20", &model));
    net.x = Batch::of(net.x.items()[..3].to_vec()).unwrap();
    net.targets.truncate(3);
    check_conservation(&net, &both());
}

/// A map's gap is what its sum and the biases' parts leave of the score.
#[test]
fn gaps_of_maps_are_what_layers_lose() {
    let mut engine = f64_engine();
    println!("| method | net | gap of the map, share of the score |\n|---|---|---|");
    for name in SMALL {
        let net = Net::small(name);
        let subnet = Subnet::new(Net::small(name));
        for (spec, rules) in [
            ("lrp:preset=epsilon,epsilon=1e-2", "lrp epsilon, ε = 0.01"),
            ("lrp:preset=epsilon_gamma_box", "lrp epsilon_gamma_box"),
            ("lrp:preset=epsilon_alpha2_beta1_flat", "lrp epsilon_alpha2_beta1_flat"),
            ("deep_taylor", "deep_taylor"),
        ] {
            let maps = net.explain(&mut engine, spec, Score::Logit, 0).unwrap();
            let composites = subnet.composites();
            let rules = &composites.iter().find(|c| c.0 == rules).unwrap().1;
            let layers = conservation(&mut engine, &net.graph, &net.x, &net.targets, rules).unwrap();
            let mut worst = 0.0f64;
            for (map, layers) in maps.iter().zip(&layers) {
                let gap = map.gap.as_ref().unwrap();
                assert_eq!(gap.promise, "conservation");
                let (score, lost) = (layers[0].r_out, layers.iter().map(|l| l.lost).sum::<f64>());
                let scale: f64 = layers.iter().map(|l| l.magnitude).fold(0.0, f64::max);
                let differs = (gap.value + lost).abs() / scale;
                let within = differs <= 1e-10;
                assert!(within, "{spec} on {name}: {gap:?}, lost {lost}");
                assert_eq!(gap.relative, Some(gap.value.abs() / score.abs()));
                worst = worst.max(gap.relative.unwrap());
            }
            println!("| {spec} | {name} | {worst:.1e} |");
        }
        // A walk ends somewhere, unless it meets a unit that only its bias excites.
        for map in net.explain(&mut engine, "excitation_backprop", Score::Prob, 0).unwrap() {
            let sum: f64 = map.values.to_f64().iter().sum();
            let gap = map.gap.as_ref().unwrap();
            println!("| excitation_backprop | {name} | {:.1e} |", gap.value.abs());
            let within = (0.95..=1.0 + 1e-9).contains(&sum) && (gap.value - (sum - 1.0)).abs() <= 1e-12;
            assert!(within, "{name}: {sum}, {gap:?}");
            assert_eq!(gap.relative, Some(gap.value.abs()));
            assert!(map.values.to_f64().iter().all(|&v| v >= 0.0));
        }
    }
}

/// Relevance without biases and stabilisers, as the papers on input invariance have it: nothing at all gets lost.
#[needs::shared_data]
#[test]
fn the_z_rule_explains_digits() {
    let folder = std::path::Path::new(DATA.unwrap());
    let model = verilume::model::Model::open(&folder.join("mnist-mlp-1024x3.safetensors"), None).unwrap();
    let bytes = std::fs::read(folder.join("mnist-test-1000.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let images = file.tensor("images").unwrap();
    let picture =
        |i: usize| images.data()[784 * i..784 * (i + 1)].iter().map(|&v| f64::from(v) / 255.0).collect::<Vec<_>>();
    let x = Dense::new(Shape::new(1, 28, 28), [picture(0), picture(1)].concat());
    let graph = model.graph(x.shape).unwrap();
    let batch = Batch::new(&x.to_tensor()).unwrap();
    let mut engine = f64_engine();
    let logits = engine.forward(&graph, &batch).unwrap();
    let method = build("lrp:preset=epsilon,epsilon=0,bias=zero", Score::Logit, 0, model.preprocess()).unwrap();
    let maps = method.explain(&mut engine, &graph, &batch, &[3, 7]).unwrap();
    for (i, (map, target)) in maps.iter().zip([3, 7]).enumerate() {
        let score = logits.at(10 * i + target);
        let mut signal = vec![0.0; 10];
        signal[target] = score;
        // Backwards by hand: x ∘ Wᵀ(R / Wx), the activations from a forward pass with biases.
        let outputs = reference::forward(&graph, &x.item(i));
        for id in graph.ids().skip(1).rev() {
            let node = graph.node(id);
            let Op::Linear(linear) = &node.op else { continue };
            let plain = Op::Linear(Linear { bias: None, ..linear.clone() });
            let read = &outputs[node.inputs[0].index()];
            let z = op_forward(&plain, &[read]);
            let s: Vec<f64> = signal.iter().zip(&z.data).map(|(r, z)| if *z == 0.0 { 0.0 } else { r / z }).collect();
            let back = reference::op_vjp(&plain, &[read], &Dense::new(z.shape, s), reference::ReluRule::Vjp);
            signal = read.data.iter().zip(&back[0].data).map(|(x, g)| x * g).collect();
        }
        assert_close(&format!("digit {i}"), &map.values.to_f64(), &signal, 1e-9);
        let gap = map.gap.as_ref().unwrap();
        let scale: f64 = map.values.to_f64().iter().map(|v| v.abs()).sum();
        let within = gap.value.abs() <= 1e-9 * scale;
        assert!(within, "{gap:?} of {score}");
    }
    // The box's bounds pass the flattening before the first layer.
    let method = build("lrp:preset=epsilon_gamma_box", Score::Logit, 0, model.preprocess()).unwrap();
    assert!(method.explain(&mut engine, &graph, &batch, &[3, 7]).is_ok());
}

/// The same bits whatever the threads, the memory and the batch.
#[test]
fn maps_do_not_depend_on_how_work_was_cut() {
    let net = Net::small("resnet_basic");
    let specs: Vec<String> = Preset::ALL
        .iter()
        .map(|(name, _)| format!("lrp:preset={name}"))
        .chain(
            ["deep_taylor", "excitation_backprop", "contrastive_ebp", "rect_grad", "rect_grad:q=0.5"].map(String::from),
        )
        .collect();
    for settings in machines() {
        let mut one = Engine::new(&Settings { threads: Some(1), ..settings.clone() }).unwrap();
        let mut three =
            Engine::new(&Settings { threads: Some(3), memory: Some(24 << 20), ..settings.clone() }).unwrap();
        for spec in &specs {
            let want = net.explain(&mut one, spec, Score::Logit, 0).unwrap();
            let got = net.explain(&mut three, spec, Score::Logit, 9).unwrap();
            let method = build(spec, Score::Logit, 0, &net.preprocess).unwrap();
            for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                assert!(nets::bits(want) == nets::bits(got) && want.gap == got.gap, "{spec}, {:?}", settings.kernels);
                let alone = Batch::of(vec![net.x.items()[i].clone()]).unwrap();
                let alone = method.explain(&mut three, &net.graph, &alone, &net.targets[i..=i]).unwrap();
                assert!(nets::bits(want) == nets::bits(&alone[0]), "{spec} alone, {:?}", settings.kernels);
            }
        }
    }
}
