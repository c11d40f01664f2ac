//! Rules on nets whose activations are smooth, against computations by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::machines;
use reference::weight_f64;
use verilume::ErrorKind;
use verilume::engine::{Batch, Copies, Engine, Job, Start, Task};
use verilume::graph::{Graph, GraphBuilder, Linear, Op, SoftClamp};
use verilume::program::Score;
use verilume::rule::{Bias, Composite, ConstantTerms, DeepLift, GateShare, Preset, Relevance, Select, pull_back};
use verilume::tensor::{Precision, Shape, Tensor};

const FIRST: [[f64; 2]; 3] = [[1.0, -0.5], [-0.75, 0.25], [0.5, 1.5]];
const FIRST_BIAS: [f64; 3] = [0.25, 0.5, -0.75];
const SECOND: [[f64; 3]; 2] = [[1.5, -1.0, 0.5], [-0.25, 2.0, -1.25]];
const SECOND_BIAS: [f64; 2] = [0.5, -0.25];
const X: [f64; 2] = [0.75, -1.25];
const SOFT: SoftClamp = SoftClamp { lo: 0.0, hi: f64::INFINITY, beta: 2.0 };
const EPSILON: f64 = 0.125;

/// Two linear layers with a softened ReLU between them.
fn net() -> Graph {
    let mut b = GraphBuilder::new(Shape::vector(2));
    let linear = |dims: [usize; 2], weight: &[f64], bias: &[f64]| {
        Op::Linear(Linear { weight: weight_f64([dims[0], dims[1], 1, 1], weight), bias: Some(bias.into()) })
    };
    let first = b.push("first", linear([3, 2], FIRST.as_flattened(), &FIRST_BIAS), &[b.input()]).unwrap();
    let relu = b.push("relu", Op::Relu, &[first]).unwrap();
    let second = b.push("second", linear([2, 3], SECOND.as_flattened(), &SECOND_BIAS), &[relu]).unwrap();
    b.finish(second).unwrap().softened(SOFT.beta).unwrap()
}

/// What the first layer gives.
fn hidden(x: [f64; 2]) -> [f64; 3] {
    [0, 1, 2].map(|j| FIRST[j][0] * x[0] + FIRST[j][1] * x[1] + FIRST_BIAS[j])
}

fn logit(target: usize) -> f64 {
    let a = hidden(X).map(|z| SOFT.value(z));
    (0..3).map(|j| SECOND[target][j] * a[j]).sum::<f64>() + SECOND_BIAS[target]
}

/// A signal at the first layer's outputs sent back to the input.
fn back(signal: [f64; 3]) -> Vec<f64> {
    (0..2).map(|i| (0..3).map(|j| FIRST[j][i] * signal[j]).sum()).collect()
}

fn batch(x: [f64; 2]) -> Batch {
    Batch::of(vec![Tensor::f64([2, 1, 1], x.to_vec()).unwrap()]).unwrap()
}

#[track_caller]
fn assert_close(what: &str, precision: Precision, got: &[f64], want: &[f64]) {
    let tolerance = if precision == Precision::F64 { 1e-12 } else { 1e-5 };
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got} for {want}");
    }
}

#[test]
fn gradients_under_rules_are_those_by_hand() {
    let net = net();
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for (target, up) in SECOND.into_iter().enumerate() {
            let mut map = |rules: Composite, start: Start| {
                let job = Job { rules, start, ..Job::gradient(Score::Logit) };
                engine.explain(&net, &job, &batch(X), &[target]).unwrap().maps[0].to_f64().into_owned()
            };
            let z = hidden(X);
            let close = |what: &str, got: &[f64], want: &[f64]| assert_close(what, settings.precision, got, want);
            let each = |f: &dyn Fn(usize) -> f64| back([f(0), f(1), f(2)]);
            let gradient = each(&|j| up[j] * SOFT.slope(z[j]));
            close("gradient", &map(Composite::gradient(), Start::Gradient), &gradient);
            let guided = each(&|j| up[j].max(0.0) * SOFT.slope(z[j]));
            close("guided", &map(Composite::guided(), Start::Gradient), &guided);
            let deconvnet = each(&|j| up[j].max(0.0));
            close("deconvnet", &map(Composite::deconvnet(), Start::Gradient), &deconvnet);
            let relevance = Relevance {
                epsilon: EPSILON,
                gamma: 0.25,
                bias: Bias::Keep,
                gate: GateShare::Nothing,
                low: Vec::new(),
                high: Vec::new(),
            };
            let stabilised = |z: f64| if z < 0.0 { z - EPSILON } else { z + EPSILON };
            let y = logit(target);
            let r = each(&|j| SOFT.value(z[j]) * up[j] * y / stabilised(y) / stabilised(z[j]));
            let r: Vec<f64> = r.iter().zip(X).map(|(r, x)| r * x).collect();
            close("epsilon", &map(relevance.composite(Preset::Epsilon).unwrap(), Start::Relevance), &r);
        }
    }
}

#[test]
fn differences_and_constants_are_those_by_hand() {
    let (net, x0) = (net(), [-0.5, 0.25]);
    let (z, z0) = (hidden(X), hidden(x0));
    let baseline = [vec![Tensor::f64([2, 1, 1], x0.to_vec()).unwrap()]];
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for (target, up) in SECOND.into_iter().enumerate() {
            let x = batch(X);
            let task = Task { x: &x, targets: &[target], copies: &Copies::one(), loads: &baseline };
            let close = |what: &str, got: &[f64], want: &[f64]| assert_close(what, settings.precision, got, want);
            let outcome = engine.evaluate_once(&net, &task, |b| {
                let (graph, picture) = (b.graph(), b.forward());
                let given = b.load(0, graph.input_shape())?;
                let baseline = b.replace(graph.input(), given)?;
                b.enter(picture);
                let seed = b.seed(Score::Logit);
                let rules = Composite::new(vec![(Select::Every, Arc::new(DeepLift { picture, baseline }))]);
                let multiplier = pull_back(b, &rules, graph.output(), seed, graph.input())?;
                b.store(multiplier, 0)
            });
            let slope = |j: usize| up[j] * (SOFT.value(z[j]) - SOFT.value(z0[j])) / (z[j] - z0[j]);
            let got = outcome.unwrap().stores[0][0].to_f64().into_owned();
            close("deep_lift", &got, &back([0, 1, 2].map(slope)));

            let task = Task { loads: &[], ..task };
            let outcome = engine.evaluate_once(&net, &task, |b| {
                let graph = b.graph();
                let seed = b.seed(Score::Logit);
                let rules = Composite::new(vec![(Select::Every, Arc::new(ConstantTerms::of(graph, 1)))]);
                let gradient = pull_back(b, &rules, graph.output(), seed, graph.input())?;
                let term = b.mul(gradient, b.output(graph.input()))?;
                b.store(term, 0)
            });
            let stores = outcome.unwrap().stores;
            // The input, the first bias, the activation, the second bias.
            assert_eq!(stores.len(), 4);
            let implicit = |j: usize| up[j] * (SOFT.value(z[j]) - SOFT.slope(z[j]) * z[j]);
            close("the activation's term", &stores[2][0].to_f64(), &[0, 1, 2].map(implicit));
            let sum = stores.iter().map(|s| s[0].to_f64().iter().sum::<f64>()).sum();
            close("all terms", &[sum], &[logit(target)]);
        }
    }
}

#[test]
fn a_rule_without_a_meaning_is_refused() {
    let net = net();
    let mut engine = Engine::new(&machines()[0]).unwrap();
    let job = Job { rules: Composite::rectified(0.5), ..Job::gradient(Score::Logit) };
    let why = engine.explain(&net, &job, &batch(X), &[0]).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Model);
    assert!(why.to_string().contains("'relu' is soft_clamp"), "{why}");
}
