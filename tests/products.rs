//! Nets of products, affine layers, standardisations and moves under every rule: what is promised is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::{brief, build, machines};
use reference::cases::{Geometry, Numbers};
use reference::weight_f64;
use verilume::engine::{At, Batch, Engine, Job, Start};
use verilume::graph::{
    Affine, Dump, Graph, GraphBuilder, Linear, LocalResponseNorm, NodeId, Op, Over, Reduce, Smooth, Standardise,
};
use verilume::image::Preprocess;
use verilume::map::{Map, Space};
use verilume::method::{conservation, registry};
use verilume::perturb::footprint::Footprint;
use verilume::program::Score;
use verilume::rule::{Bias, Composite, GateShare, Preset, Relevance, Select, ZBox};
use verilume::tensor::{Interpolation, Padding, Precision, Resize, ResizeTo, Shape, Tensor, Window};

fn conv(c: usize, k: usize, size: usize, stride: usize, salt: u64) -> Op {
    let padding = Padding::all(size / 2);
    let g = Geometry { c, k, kernel: [size; 2], stride: [stride; 2], padding, ..Geometry::default() };
    let Op::Conv(mut conv) = g.conv(Numbers::Reals) else { panic!() };
    let numbers = Numbers::Reals.fill(salt, conv.weight.len(), 1);
    let scale = (conv.weight.row_len() as f64).sqrt().recip();
    conv.weight = weight_f64(conv.weight.dims(), &numbers.iter().map(|v| v * scale).collect::<Vec<_>>());
    conv.bias = Some(Numbers::Reals.fill(salt + 1, k, 1).iter().map(|v| v / 4.0).collect());
    Op::Conv(conv)
}

fn affine(c: usize, salt: u64) -> Op {
    let of = |salt| Numbers::Reals.fill(salt, c, 1);
    let scale: Vec<f64> = of(salt).iter().map(|v| 1.0 + v / 2.0).collect();
    Op::Affine(Affine { scale: scale.into(), shift: of(salt + 1).into() })
}

/// Every operation of this kind on pictures of 3×16×15.
fn net() -> Arc<Graph> {
    let mut b = GraphBuilder::new(Shape::new(3, 16, 15));
    let x = b.input();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    let normalised = push("normalised", affine(3, 1), &[x]);
    let stem = push("stem", conv(3, 12, 3, 1, 3), &[normalised]);
    let stem = push("stem.relu", Op::Relu, &[stem]);
    let lrn = LocalResponseNorm { size: 5, alpha: 0.5, beta: 0.75, k: 1.0 };
    let stem = b.local_response_norm("stem.lrn", stem, lrn).unwrap();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    // Squeeze and excitation.
    let squeezed = push("se.pool", Op::AdaptiveAvgPool { out: [1, 1] }, &[stem]);
    let squeezed = push("se.fc", conv(12, 12, 1, 1, 5), &[squeezed]);
    let gate = push("se.gate", Op::Clamp { lo: 0.0, hi: 1.0 }, &[squeezed]);
    let excited = push("se", Op::Mul, &[stem, gate]);
    // Attention to positions.
    let where_ = push("where", conv(12, 1, 3, 1, 7), &[excited]);
    let attended = push("attended", Op::Mul, &[where_, excited]);
    // ConvNeXt's block.
    let norm =
        push("norm", Op::Standardise(Standardise { groups: 1, across_positions: false, eps: 1e-6 }), &[attended]);
    let norm = push("norm.affine", affine(12, 9), &[norm]);
    let wide = push("wide", conv(12, 24, 1, 1, 11), &[norm]);
    let wide = push("wide.relu", Op::Relu, &[wide]);
    // A gate of equal shape: neither decides.
    let left = push("left", Op::Slice { first: 0, channels: 12 }, &[wide]);
    let right = push("right", Op::Slice { first: 12, channels: 12 }, &[wide]);
    let both = push("both", Op::Mul, &[left, right]);
    let scaled = push("scaled", Op::Affine(Affine::product([0.5])), &[both]);
    let sum = push("sum", Op::Add, &[scaled, attended, gate]);
    let pooled = push("pool", Op::MaxPool(Window::square(3, 2, 1)), &[sum]);
    let group = push("group", Op::Standardise(Standardise { groups: 3, across_positions: true, eps: 1e-5 }), &[pooled]);
    let group = push("group.affine", affine(12, 13), &[group]);
    let shuffled = push("shuffled", Op::Shuffle { groups: 4 }, &[group]);
    let padded = push("padded", Op::Pad { rows: [1, -1], columns: [0, 2] }, &[shuffled]);
    let last = push("last", conv(12, 8, 3, 1, 15), &[padded]);
    let last = push("last.relu", Op::Relu, &[last]);
    let last = push(
        "larger",
        Op::Resize(Resize { to: ResizeTo::Factor([2; 2]), interpolation: Interpolation::Linear }),
        &[last],
    );
    let level = push("level", Op::Reduce(Reduce { over: Over::Channels, mean: true }), &[last]);
    let level = push("level.more", Op::Affine(Affine::sum([0.5])), &[level]);
    let last = push("quotient", Op::Divide, &[last, level]);
    // Positions by the largest channel, a power of signals, a length, a spread.
    let peak = push("peak", Op::ChannelMax, &[last]);
    let peak = push("peak.gate", Op::Smooth(Smooth::Sigmoid), &[peak]);
    let last = push("weighed", Op::Mul, &[last, peak]);
    let base = push("base", Op::Affine(Affine::sum([0.25])), &[last]);
    let exponent = push("exponent", Op::Reduce(Reduce { over: Over::Positions, mean: true }), &[last]);
    let raised = b.power("raised", base, exponent).unwrap();
    let length = b.norm("length", last, Over::Channels).unwrap();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| b.push(name, op, inputs).unwrap();
    let last = push("lengthened", Op::Add, &[raised, length]);
    let away = push("away", Op::Affine(Affine::sum([-1.0])), &[last]);
    let away = push("away.abs", Op::Smooth(Smooth::Abs), &[away]);
    let last = push("apart", Op::Add, &[last, away]);
    let most = push("most", Op::GlobalMaxPool, &[last]);
    let mean = push("mean", Op::AdaptiveAvgPool { out: [1, 1] }, &[last]);
    let all = push("all", Op::Concat, &[most, mean]);
    let weight = weight_f64([5, 16, 1, 1], &Numbers::Reals.fill(17, 80, 1));
    let fc = Op::Linear(Linear { weight, bias: Some(Numbers::Reals.fill(18, 5, 1).into()) });
    let fc = push("fc", fc, &[all]);
    b.stage("early", stem);
    b.stage("pool", pooled);
    Arc::new(b.finish(fc).unwrap())
}

fn pictures(n: usize) -> Batch {
    let numbers: Vec<f32> = Numbers::Reals.fill(21, n * 3 * 16 * 15, 1).iter().map(|&v| v as f32).collect();
    Batch::new(&Tensor::f32([n, 3, 16, 15], numbers).unwrap()).unwrap()
}

fn preprocess() -> Preprocess {
    Preprocess { mean: vec![0.5; 3], std: vec![0.5; 3], ..nets::Net::small("vgg").preprocess }
}

fn explain(engine: &mut Engine, graph: &Graph, spec: &str, score: Score) -> Vec<Map> {
    let method = build(spec, score, 1, &preprocess()).unwrap();
    method.explain(engine, graph, &pictures(2), &[1, 3]).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

fn twin() -> Engine {
    Engine::new(&machines()[0]).unwrap()
}

#[test]
fn relevance_differences_and_constants_are_complete() {
    let (graph, mut engine) = (net(), twin());
    assert_eq!(engine.describe().precision, Precision::F64);
    for graph in [graph.clone(), Arc::new(graph.fold().unwrap())] {
        let scores = engine.forward(&graph, &pictures(2)).unwrap().to_f64().into_owned();
        let scores = [scores[1], scores[5 + 3]];
        for preset in Preset::ALL.map(|(name, _)| name) {
            for gate in ["zero", "split"] {
                for bias in ["keep", "zero"] {
                    let spec = format!("lrp:preset={preset},gate={gate},bias={bias}");
                    for (map, score) in explain(&mut engine, &graph, &spec, Score::Logit).iter().zip(scores) {
                        let shares = map.shares.as_ref().unwrap_or_else(|| panic!("{spec} has no shares"));
                        let whole = shares.whole();
                        assert!((whole - score).abs() <= 1e-6 * score.abs().max(1.0), "{spec}: {shares:?} of {score}");
                    }
                }
            }
        }
        for spec in ["full_grad", "deep_lift"] {
            for score in [Score::Logit, Score::Prob, Score::LogProb] {
                for map in explain(&mut engine, &graph, spec, score) {
                    let gap = map.gap.unwrap();
                    assert!(gap.value.abs() <= 1e-9, "{spec} {score:?}: {gap:?}");
                }
            }
        }
    }
}

/// What a method of the registry does, it does here: a finite map, or its promise measured.
#[test]
fn every_method_runs_on_products() {
    let graph = Arc::new(net().fold().unwrap());
    let mut engine = Engine::new(&Default::default()).unwrap();
    for entry in registry().iter().filter(|entry| entry.required().is_none()) {
        for map in explain(&mut engine, &graph, &brief(entry), Score::Logit) {
            assert_eq!(map.values.first_not_finite(), None, "{}", entry.id);
            assert!(matches!(map.space, Space::Input), "{}", entry.id);
        }
    }
}

#[test]
fn a_product_names_its_gate() {
    let graph = net();
    let gate = |name: &str| graph.gate(graph.find(name).unwrap());
    assert_eq!((gate("se"), gate("attended"), gate("both"), gate("sum")), (Some(1), Some(0), None, None));
    let text = graph.dump(Dump::Text);
    let line = |name: &str| text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap().to_string();
    assert!(line("se").contains("mul, gate se.gate"), "{}", line("se"));
    assert!(line("both").contains("mul, gate none"), "{}", line("both"));
    let json: serde_json::Value = serde_json::from_str(&graph.dump(Dump::Json)).unwrap();
    let node = |name: &str| json["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone();
    assert_eq!(node("attended")["attributes"]["gate"], "where");
    assert!(node("both")["attributes"]["gate"].is_null());
}

/// The signal takes all, or both take half.
#[test]
fn a_gate_takes_nothing_or_half() {
    let mut b = GraphBuilder::new(Shape::new(4, 3, 2));
    let x = b.input();
    let gate = b.push("gate", Op::GlobalMaxPool, &[x]).unwrap();
    let product = b.push("product", Op::Mul, &[gate, x]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[product]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = Batch::new(&Tensor::f32([1, 4, 3, 2], (0..24).map(|i| (i * 7 % 24) as f32).collect()).unwrap()).unwrap();
    let signal = Tensor::f64([1, 4, 3, 2], (0..24).map(|i| f64::from(i) + 1.0).collect()).unwrap();
    for (share, [to_gate, to_signal]) in [(GateShare::Nothing, [0.0, 1.0]), (GateShare::Half, [0.5, 0.5])] {
        let relevance = Relevance {
            epsilon: 0.0,
            gamma: 0.25,
            bias: verilume::rule::Bias::Keep,
            gate: share,
            low: Vec::new(),
            high: Vec::new(),
        };
        let rules = relevance.composite(Preset::Epsilon).unwrap();
        let way = verilume::engine::Pullback { from: product, signal: &signal, rules: &rules, to: graph.input() };
        let down = twin().pullback(&graph, &x, &way).unwrap().to_f64().into_owned();
        let pixels = x.items()[0].to_f64().into_owned();
        for c in 0..4 {
            let plane = 6 * c..6 * (c + 1);
            let most = plane.clone().max_by(|&i, &j| pixels[i].total_cmp(&pixels[j])).unwrap();
            let sum: f64 = plane.clone().map(|i| i as f64 + 1.0).sum();
            for i in plane {
                let want = to_signal * (i as f64 + 1.0) + if i == most { to_gate * sum } else { 0.0 };
                assert!((down[i] - want).abs() <= 1e-12, "{share:?} {i}: {} for {want}", down[i]);
            }
        }
    }
}

/// The first layer behind an affine layer is the convolution, and the box of pixels is that of the affine layer's output.
#[test]
fn the_box_of_pixels_passes_through_affine_layers() {
    let graph = net();
    let id = |name: &str| graph.find(name).unwrap();
    assert!(Select::FirstLayers.matches(&graph, id("stem")));
    assert!(!Select::FirstLayers.matches(&graph, id("normalised")) && !Select::FirstLayers.matches(&graph, id("wide")));
    let x = pictures(1);
    let signal = Numbers::Reals.maps(31, 1, graph.node(id("stem")).shape).to_tensor();
    let affine = graph.node(id("normalised"));
    let Op::Affine(Affine { scale, shift }) = &affine.op else { panic!() };
    let mut inner = GraphBuilder::new(Shape::new(3, 16, 15));
    let stem = inner.push("stem", graph.node(id("stem")).op.clone(), &[inner.input()]).unwrap();
    let flat = inner.push("flatten", Op::Flatten, &[stem]).unwrap();
    let inner = inner.finish(flat).unwrap();
    let end = |v: f64| -> Vec<f64> { (0..3).map(|c| v * scale[c] + shift[c]).collect() };
    let pull = |graph: &Graph, x: &Batch, from, low: &[f64], high: &[f64], to| {
        let rules = Composite::new(vec![(Select::FirstLayers, Arc::new(ZBox::new(low, high).unwrap()))]);
        let way = verilume::engine::Pullback { from, signal: &signal, rules: &rules, to };
        twin().pullback(graph, x, &way).unwrap().to_f64().into_owned()
    };
    let moved = twin().node_outputs(&graph, &x, &[id("normalised")]).unwrap().remove(0);
    let got = pull(&graph, &x, id("stem"), &[-1.0], &[1.0], id("normalised"));
    let want = pull(&inner, &Batch::new(&moved).unwrap(), stem, &end(-1.0), &end(1.0), inner.input());
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= 1e-9, "{got} for {want}");
    }
}

#[test]
fn affine_layers_are_folded_and_shifted() {
    let (graph, mut engine) = (net(), twin());
    let folded = graph.fold().unwrap();
    assert_eq!(folded.nodes().len(), graph.nodes().len(), "no affine layer follows a convolution directly");
    let mut b = GraphBuilder::new(Shape::new(3, 5, 7));
    let at = b.push("conv", conv(3, 4, 3, 1, 1), &[b.input()]).unwrap();
    let at = b.push("norm", affine(4, 3), &[at]).unwrap();
    let at = b.push("scale", Op::Affine(Affine::product([2.0])), &[at]).unwrap();
    let at = b.push("elements", Op::Affine(Affine::sum(Numbers::Reals.fill(5, 140, 1))), &[at]).unwrap();
    let at = b.push("pool", Op::GlobalMaxPool, &[at]).unwrap();
    let small = b.finish(at).unwrap();
    let merged = small.fold().unwrap();
    assert_eq!(merged.nodes().len(), small.nodes().len() - 2);
    let x = Batch::new(&Numbers::Reals.maps(6, 2, Shape::new(3, 5, 7)).to_tensor()).unwrap();
    let [a, b] = [&small, &merged].map(|g| engine.forward(g, &x).unwrap().to_f64().into_owned());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-12), "{a:?} {b:?}");

    let shift = Numbers::Reals.maps(7, 1, Shape::new(3, 16, 15)).to_tensor().item(0).unwrap();
    let shifted = graph.shifted(&shift).unwrap();
    let x = pictures(1);
    let sum: Vec<f64> = x.items()[0].to_f64().iter().zip(shift.to_f64().iter()).map(|(a, b)| a + b).collect();
    let moved = Batch::new(&Tensor::f64([1, 3, 16, 15], sum).unwrap()).unwrap();
    let [a, b] = [(&*graph, &x), (&shifted, &moved)].map(|(g, x)| engine.forward(g, x).unwrap().to_f64().into_owned());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-9), "{a:?} {b:?}");
}

/// What a position depends on, by pictures that differ in one pixel.
#[test]
fn footprints_are_those_of_gradients() {
    let mut b = GraphBuilder::new(Shape::new(4, 6, 5));
    let x = b.input();
    let first = b.push("first", Op::Slice { first: 1, channels: 1 }, &[x]).unwrap();
    let shuffled = b.push("shuffled", Op::Shuffle { groups: 2 }, &[x]).unwrap();
    let product = b.push("product", Op::Mul, &[shuffled, first]).unwrap();
    let padded = b.push("padded", Op::Pad { rows: [2, -1], columns: [-1, 1] }, &[product]).unwrap();
    let norm = Standardise { groups: 2, across_positions: false, eps: 1e-3 };
    let norm = b.push("norm", Op::Standardise(norm), &[padded]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[norm]).unwrap();
    let graph = b.finish(flat).unwrap();
    let footprint = Footprint::of(&graph, norm).unwrap();
    // Two rows of padding above, one column cut off on the left.
    assert_eq!(footprint.positions(0, 0, 1), [2]);
    assert!(footprint.positions(0, 5, 6).is_empty());
    assert!(footprint.positions(1, 0, 1).is_empty());
    assert_eq!(footprint.positions(1, 3, 5), [2, 3]);
    assert_eq!(footprint.extent(), 1);
}

/// Batches, chunks and threads change no bit.
#[test]
fn results_do_not_depend_on_how_work_is_divided() {
    let graph = net();
    let x = pictures(5);
    for settings in machines() {
        let maps = |threads, memory| {
            let settings = verilume::engine::Settings { threads: Some(threads), memory, ..settings.clone() };
            let mut engine = Engine::new(&settings).unwrap();
            let job = Job { at: At::Input, ..Job::gradient(Score::Logit) };
            engine.explain(&graph, &job, &x, &[0, 1, 2, 3, 4]).unwrap().maps
        };
        assert!(maps(1, None) == maps(2, Some(3 << 20)), "{:?}", settings.kernels);
    }
}

/// Nothing goes to a gate, so nothing behind it is visited; a node there gets zeros, with `gate=split` its half.
#[test]
fn relevance_visits_no_gate() {
    let (graph, mut engine) = (net(), twin());
    let ends = (vec![-3.0; 3], vec![3.0; 3]);
    for gate in [GateShare::Nothing, GateShare::Half] {
        let (low, high) = ends.clone();
        let relevance = Relevance { epsilon: 1e-6, gamma: 0.25, bias: Bias::Keep, gate, low, high };
        let rules = relevance.composite(Preset::EpsilonPlus).unwrap();
        let layers = conservation(&mut engine, &graph, &pictures(2), &[1, 3], &rules).unwrap();
        let visited = |name: &str| layers[0].iter().any(|l| l.name == name);
        assert!(visited("se") && visited("stem") && visited("wide"));
        for name in ["where", "level.more", "level"] {
            assert_eq!(visited(name), gate == GateShare::Half, "{name}");
        }
        let job = Job {
            rules,
            at: At::Node(graph.find("where").unwrap()),
            start: Start::Relevance,
            ..Job::gradient(Score::Logit)
        };
        let answer = engine.explain(&graph, &job, &pictures(2), &[1, 3]).unwrap();
        for map in &answer.maps {
            assert_eq!(map.to_f64().iter().all(|&v| v == 0.0), gate == GateShare::Nothing);
        }
    }
}
