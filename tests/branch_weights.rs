//! A softmax inside a net, whose numbers weigh the branches: every rule at it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::build;
use reference::cases::{Geometry, Numbers};
use reference::weight_f64;
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine, Pullback, Settings};
use verilume::graph::{Graph, GraphBuilder, Linear, NodeId, Op};
use verilume::image::Preprocess;
use verilume::map::Map;
use verilume::method::conservation;
use verilume::program::Score;
use verilume::rule::{Bias, Composite, GateShare, Preset, Relevance};
use verilume::tensor::{Padding, Precision, Shape, Tensor};

const INPUT: Shape = Shape { c: 3, h: 8, w: 7 };

fn conv(c: usize, k: usize, side: usize, salt: u64) -> Op {
    let g = Geometry { c, k, kernel: [side; 2], padding: Padding::all(side / 2), ..Geometry::default() };
    let Op::Conv(mut conv) = g.conv(Numbers::Reals) else { panic!() };
    conv.weight = weight_f64(conv.weight.dims(), &Numbers::Reals.fill(salt, conv.weight.len(), 1));
    conv.bias = Some(Numbers::Reals.fill(salt + 1, k, 1).into());
    Op::Conv(conv)
}

fn fc(c: usize, k: usize, salt: u64) -> Op {
    let weight = weight_f64([k, c, 1, 1], &Numbers::Reals.fill(salt, k * c, 1));
    Op::Linear(Linear { weight, bias: Some(Numbers::Reals.fill(salt + 1, k, 1).into()) })
}

/// Two branches of six channels; each channel of each has a weight, and the two of a channel sum to one (selective kernels).
fn selective(activation: Option<Op>) -> Arc<Graph> {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.input();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    let [mut near, mut far] =
        [("near", 3, 1), ("far", 5, 3)].map(|(name, side, salt)| push(name, conv(3, 6, side, salt), &[x]));
    if let Some(op) = activation {
        near = push("near.act", op.clone(), &[near]);
        far = push("far.act", op, &[far]);
    }
    let both = push("both", Op::Add, &[near, far]);
    let mean = push("mean", Op::AdaptiveAvgPool { out: [1, 1] }, &[both]);
    let scores = push("scores", conv(6, 12, 1, 5), &[mean]);
    let weights = push("weights", Op::Softmax { groups: 6 }, &[scores]);
    // Channels 2 i and 2 i + 1 belong to channel i of the branches.
    let apart = push("apart", Op::Shuffle { groups: 6 }, &[weights]);
    let of_near = push("of near", Op::Slice { first: 0, channels: 6 }, &[apart]);
    let of_far = push("of far", Op::Slice { first: 6, channels: 6 }, &[apart]);
    let near = push("weighed near", Op::Mul, &[near, of_near]);
    let far = push("weighed far", Op::Mul, &[of_far, far]);
    let sum = push("sum", Op::Add, &[near, far]);
    let flat = push("flatten", Op::Flatten, &[sum]);
    let logits = push("fc", fc(6 * INPUT.plane(), 4, 7), &[flat]);
    b.stage("sum", sum);
    Arc::new(b.finish(logits).unwrap())
}

fn pictures() -> Batch {
    Batch::new(&Numbers::Reals.maps(21, 2, INPUT).to_tensor()).unwrap()
}

fn preprocess() -> Preprocess {
    Preprocess { mean: vec![0.5; 3], std: vec![0.5; 3], ..nets::Net::small("vgg").preprocess }
}

fn engine() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

const TARGETS: [usize; 2] = [1, 3];

fn explain(graph: &Graph, spec: &str, score: Score) -> verilume::Result<Vec<Map>> {
    build(spec, score, 1, &preprocess())?.explain(&mut engine(), graph, &pictures(), &TARGETS)
}

fn rules(gate: GateShare) -> Relevance {
    Relevance { epsilon: 1e-6, gamma: 0.25, bias: Bias::Keep, gate, low: vec![-1.0; 3], high: vec![1.0; 3] }
}

#[test]
fn gradients_are_slopes() {
    let graph = selective(Some(Op::Smooth(verilume::graph::Smooth::Silu)));
    let map = &explain(&graph, "gradient", Score::Logit).unwrap()[0];
    let x = pictures().items()[0].to_f64().into_owned();
    let at = |i: usize, by: f64| {
        let mut moved = x.clone();
        moved[i] += by;
        let moved = Batch::of(vec![Tensor::f64(INPUT.dims(), moved).unwrap()]).unwrap();
        engine().forward(&graph, &moved).unwrap().at(TARGETS[0])
    };
    let values = map.values.to_f64();
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, value) in values.iter().enumerate().step_by(5) {
        let slope = (at(i, 1e-5) - at(i, -1e-5)) / 2e-5;
        assert!((slope - value).abs() <= 1e-7 * largest, "{i}: {value} for {slope}");
    }
}

/// The weights are gates, also where their channels have been moved. They get nothing, or half, which then passes the
/// softmax unchanged; all is accounted for.
#[test]
fn relevance_takes_the_weights_for_gates() {
    let graph = selective(Some(Op::Relu));
    let id = |name: &str| graph.find(name).unwrap();
    assert_eq!([graph.gate(id("weighed near")), graph.gate(id("weighed far"))], [Some(1), Some(0)]);
    let mut engine = engine();
    let x = pictures();
    let scores = engine.forward(&graph, &x).unwrap();
    for (name, preset) in Preset::ALL {
        for (gate, share) in [(GateShare::Nothing, "zero"), (GateShare::Half, "split")] {
            let composite = rules(gate).composite(preset).unwrap();
            let maps = explain(&graph, &format!("lrp:preset={name},gate={share}"), Score::Logit).unwrap();
            let pictures = conservation(&mut engine, &graph, &x, &TARGETS, &composite).unwrap();
            for (i, (map, layers)) in maps.iter().zip(&pictures).enumerate() {
                let shares = map.shares.as_ref().unwrap();
                let score = scores.to_f64()[4 * i + TARGETS[i]];
                let lost: f64 = layers.iter().map(|layer| layer.lost).sum();
                let missed = shares.input + shares.bias + lost - score;
                let size = layers.iter().fold(0.0f64, |m, layer| m.max(layer.magnitude));
                assert!(missed.abs() <= 1e-9 * size, "{name}, {share}: {shares:?}, lost {lost}, of {score}");
                // A branch that gets nothing is not visited.
                let of = |name: &str| layers.iter().find(|layer| layer.node == id(name));
                let arrived = of("weights").map_or(0.0, |layer| layer.magnitude);
                assert_eq!(arrived > 0.0, gate == GateShare::Half, "{name}, {share}: {arrived} at the softmax");
                let [before, after] = ["scores", "weights"].map(|name| of(name).map_or(0.0, |layer| layer.r_out));
                assert!((before - after).abs() <= 1e-12 * arrived, "{name}, {share}: {after} becomes {before}");
            }
        }
    }
    let signal = Numbers::Reals.maps(31, 2, Shape::vector(12)).to_tensor();
    let composite = rules(GateShare::Half).composite(Preset::EpsilonPlus).unwrap();
    let way = Pullback { from: id("weights"), signal: &signal, rules: &composite, to: id("scores") };
    assert_eq!(engine.pullback(&graph, &x, &way).unwrap().to_f64(), signal.to_f64());
}

#[test]
fn differences_are_refused_by_name() {
    let error = explain(&selective(Some(Op::Relu)), "deep_lift", Score::Logit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    let said = error.to_string();
    assert!(said.contains("deep_lift") && said.contains("softmax") && said.contains("'weights'"), "{said}");
}

#[test]
fn constants_are_complete() {
    for activation in [None, Some(Op::Relu), Some(Op::Smooth(verilume::graph::Smooth::HardSwish))] {
        let graph = selective(activation.clone());
        for score in [Score::Logit, Score::Prob, Score::LogProb] {
            for map in explain(&graph, "full_grad", score).unwrap() {
                let gap = map.gap.unwrap();
                assert!(gap.value.abs() <= 1e-9, "{activation:?}, {score:?}: {gap:?}");
            }
        }
    }
}

/// A softmax is not an activation of one number: rules for activations take its gradient.
#[test]
fn rules_for_activations_take_its_gradient() {
    let graph = selective(Some(Op::Relu));
    let [weights, scores] = ["weights", "scores"].map(|name| graph.find(name).unwrap());
    let signal = Numbers::Reals.maps(33, 2, Shape::vector(12)).to_tensor();
    let back = |rules: Composite| {
        let way = Pullback { from: weights, signal: &signal, rules: &rules, to: scores };
        engine().pullback(&graph, &pictures(), &way).unwrap().to_f64().into_owned()
    };
    let y = engine().node_outputs(&graph, &pictures(), &[weights]).unwrap().remove(0).to_f64().into_owned();
    let gradient = back(Composite::gradient());
    for (i, slope) in gradient.iter().enumerate() {
        let other = i ^ 1;
        let want = y[i] * y[other] * (signal.to_f64()[i] - signal.to_f64()[other]);
        assert!((slope - want).abs() <= 1e-14, "{i}: {slope} for {want}");
    }
    for rules in [Composite::guided(), Composite::deconvnet(), Composite::rectified(0.98)] {
        let id = rules.id();
        assert_eq!(back(rules), gradient, "{id}");
    }
}
