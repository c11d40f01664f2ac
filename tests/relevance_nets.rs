//! Relevance on the published nets with random weights: what reaches the pixels, what biases keep and what is lost on the
//! way sum to the score.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::Net;
use verilume::engine::{Engine, Settings};
use verilume::graph::Graph;
use verilume::method::conservation;
use verilume::program::Score;
use verilume::rule::{Bias, GateShare, Preset, Relevance};
use verilume::tensor::{Precision, Shape};

/// The largest share of the score that may be unaccounted for.
const MOST: f64 = 1e-6;

/// The balance of each of `presets` on a picture of noise of `side` by `side`.
fn keeps_relevance(name: &str, side: usize, presets: &[(&'static str, Preset)]) {
    let net = Net::random(name, Shape::new(3, side, side), 1);
    let settings = Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let score = engine.forward(&net.graph, &net.x).unwrap().at(net.targets[0]);
    let (low, high) = (net.preprocess.black(), net.preprocess.white());
    let rules = Relevance { epsilon: 1e-6, gamma: 0.25, bias: Bias::Keep, gate: GateShare::Nothing, low, high };
    let mut failures = Vec::new();
    for &(rule, preset) in presets {
        let maps = net.explain(&mut engine, &format!("lrp:preset={rule}"), Score::Logit, 0).unwrap();
        let shares = maps[0].shares.unwrap();
        let composite = rules.composite(preset).unwrap();
        let layers = conservation(&mut engine, &net.graph, &net.x, &net.targets, &composite).unwrap().remove(0);
        // The map says of its losses only what is left over; the layers name each.
        let lost: f64 = layers.iter().map(|layer| layer.lost).sum();
        let kept: f64 = layers.iter().map(|layer| layer.bias).sum();
        let [missed, bias] = [shares.input + kept + lost - score, shares.bias - kept].map(|v| (v / score).abs());
        let most = layers.iter().max_by(|a, b| a.lost.abs().total_cmp(&b.lost.abs())).unwrap();
        let worst = layers.iter().max_by(|a, b| a.gap().total_cmp(&b.gap())).unwrap();
        let largest = layers.iter().fold(0.0f64, |m, layer| m.max(layer.magnitude));
        println!(
            "| {name} | {rule} | {score:.3} | {:.3e} | {kept:.3e} | {lost:.3e} | {missed:.1e} | {:.1e} {} | {} | {largest:.1e} |",
            shares.input,
            worst.gap(),
            worst.name,
            most.name
        );
        let within = missed <= MOST && bias <= MOST && worst.gap() <= 1e-9;
        if !within {
            failures.push(format!("{name}, {rule}: {missed:e} of the score, biases {bias:e}, in one layer {worst:?}"));
        }
        assert!(largest > 0.0 && layers.len() == visited(&net.graph), "{name}, {rule}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Nodes behind the picture that relevance reaches: not those that lead to nothing but gates.
fn visited(graph: &Graph) -> usize {
    let mut reached = vec![false; graph.nodes().len()];
    reached[graph.output().index()] = true;
    for id in graph.ids().rev() {
        let inputs = graph.node(id).inputs.iter().enumerate().filter(|(i, _)| graph.gate(id) != Some(*i));
        let inputs: Vec<usize> = inputs.map(|(_, input)| input.index()).collect();
        let here = reached[id.index()];
        inputs.into_iter().for_each(|input| reached[input] |= here);
    }
    reached.iter().filter(|reached| **reached).count() - 1
}

/// All presets.
const ALL: &[(&str, Preset)] = &Preset::ALL;

#[test]
fn mobilenet_v2() {
    keeps_relevance("mobilenet_v2", 64, ALL);
}

#[test]
fn mobilenet_v3_small() {
    keeps_relevance("mobilenet_v3_small", 64, ALL);
}

#[test]
fn mobilenet_v3_large() {
    keeps_relevance("mobilenet_v3_large", 64, ALL);
}

#[test]
fn efficientnet_b0() {
    keeps_relevance("efficientnet_b0", 64, ALL);
}

#[test]
fn densenet121() {
    keeps_relevance("densenet121", 64, ALL);
}

#[test]
fn shufflenet_v2() {
    keeps_relevance("shufflenet_v2_x1_0", 64, ALL);
}

#[test]
fn regnet_y_400mf() {
    keeps_relevance("regnet_y_400mf", 64, ALL);
}

#[test]
fn convnext_tiny() {
    keeps_relevance("convnext_tiny", 64, ALL);
}

#[test]
fn squeezenet1_1() {
    keeps_relevance("squeezenet1_1", 64, ALL);
}

#[test]
fn googlenet() {
    keeps_relevance("googlenet", 64, ALL);
}

#[test]
fn inception_v3() {
    keeps_relevance("inception_v3", 80, ALL);
}

#[test]
fn resnet8() {
    keeps_relevance("resnet8", 32, ALL);
}
