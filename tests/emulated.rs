//! The engine on the kernels of a GPU, run on the CPU: every method on every small net beside the CPU device, the same
//! random bits, and maps that depend on nothing but what was asked.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use nets::{Net, SMALL, bits, build, gpu, machines, named_as_enough};
use reference::{Dense, ReluRule, forward, forward_is_exact, op_forward, op_magnitude, op_terms, op_vjp, weight_f64};
use verilume::device::cpu::Convolution;
use verilume::device::{Boxes, Decisions, GridMask, Masks, Perturbation, Products, Rectangle};
use verilume::engine::{Batch, Copies, DeviceChoice, Engine, Job, Settings, Task};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::method::{Entry, registry};
use verilume::perturb::decoy::DecoyMasks::Lattice;
use verilume::perturb::decoy::{Decoy, Generator, Recipe, first_activation};
use verilume::program::Score;
use verilume::random;
use verilume::tensor::{Precision, Shape, Tensor, Window};

/// A method with few copies and steps.
fn brief(entry: &Entry) -> String {
    let few = entry.parameters.iter().filter_map(|p| match p.key {
        "preset" if p.unit.contains("quick") => Some("preset=quick".to_string()),
        "n" if p.default.parse::<usize>().is_ok() => Some("n=3".into()),
        "steps" => Some("steps=3".into()),
        "copies" | "iterations" => Some(format!("{}=2", p.key)),
        "window" | "stride" if entry.id == "occlusion" => Some(format!("{}=12", p.key)),
        _ => None,
    });
    let few: Vec<String> = few.collect();
    if few.is_empty() { entry.id.into() } else { format!("{}:{}", entry.id, few.join(",")) }
}

/// `‖a − b‖ / ‖b‖`; NaN where `b` is zero.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    let norm = |x: f64, (p, q): (&f64, &f64)| x + (p - q).powi(2);
    let size: f64 = b.iter().map(|v| v * v).sum();
    (a.iter().zip(b.iter()).fold(0.0, norm) / size).sqrt()
}

/// How far single precision is from double on the CPU, by any of its kernels: sums in other orders, Winograd's transforms.
fn spread(net: &Net, spec: &str, truth: &[Tensor]) -> f64 {
    let single = machines().into_iter().filter(|s| s.precision == Precision::F32 && s.device == DeviceChoice::Auto);
    let maps = |s| net.explain(&mut Engine::new(&s).unwrap(), spec, Score::Logit, 1).unwrap();
    single
        .flat_map(|s| maps(s).into_iter().zip(truth).map(|(m, t)| apart(&m.values, t)).collect::<Vec<_>>())
        .fold(0.0, f64::max)
}

/// How far double precision is carried by changes of the picture as large as the error that one layer may make, the
/// rounding of its longest sum: far, where that is enough to change what an activation decides.
fn shaken(net: &Net, double: &mut Engine, spec: &str, truth: &[Tensor]) -> f64 {
    let terms = net.graph.nodes().iter().filter_map(|n| match &n.op {
        Op::Conv(c) => Some(c.weight.row_len()),
        Op::Linear(l) => Some(l.weight.row_len()),
        _ => None,
    });
    let error = (terms.max().unwrap() + 2) as f64 * 2f64.powi(-24);
    let mut worst = 0.0f64;
    for salt in 1..9u64 {
        let moved = net.x.items().iter().map(|x| {
            let shake = |(i, v): (usize, &f64)| {
                let draw = (i as u64 + 1).wrapping_mul(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1) >> 33;
                v * (1.0 + (draw as f64 / f64::from(1u32 << 30) - 1.0) * error)
            };
            Tensor::f64(x.dims(), x.to_f64().iter().enumerate().map(shake).collect()).unwrap()
        });
        let moved = Batch::of(moved.collect()).unwrap().drawn_as(&net.x).unwrap();
        let method = build(spec, Score::Logit, 1, &net.preprocess).unwrap();
        let maps = method.explain(double, &net.graph, &moved, &net.targets).unwrap();
        maps.iter().zip(truth).for_each(|(m, t)| worst = worst.max(apart(&m.values, t)));
    }
    worst
}

#[needs::cxx]
#[test]
fn every_method_agrees_with_the_cpu() {
    let mut failures = Vec::new();
    let (mut cases, mut flips) = (0, 0);
    for name in SMALL {
        let net = Net::small(name);
        let mut emulated = Engine::new(&gpu(0)).unwrap();
        let mut double =
            Engine::new(&Settings { precision: Precision::F64, device: DeviceChoice::Cpu, ..Settings::default() })
                .unwrap();
        for entry in registry().iter().filter(|e| e.required().is_none()) {
            let spec = brief(entry);
            let truth = match net.explain(&mut double, &spec, Score::Logit, 1) {
                Ok(maps) => maps.into_iter().map(|m| m.values).collect::<Vec<_>>(),
                Err(e) => {
                    let same = net.explain(&mut emulated, &spec, Score::Logit, 1).unwrap_err();
                    assert_eq!(same.to_string(), e.to_string(), "{name} {spec}");
                    continue;
                }
            };
            let maps = net.explain(&mut emulated, &spec, Score::Logit, 1).unwrap();
            let limit = spread(&net, &spec, &truth).max(1e-7);
            let worst = maps.iter().zip(&truth).map(|(m, t)| apart(&m.values, t)).fold(0.0f64, f64::max);
            cases += 1;
            // Four times: another order of sums is another draw from what rounding can do.
            if worst <= 4.0 * limit {
                continue;
            }
            let limit = shaken(&net, &mut double, &spec, &truth);
            println!("{name} {spec}: {worst:.1e}, a shaken picture's {limit:.1e}");
            flips += 1;
            if !(worst <= 4.0 * limit) {
                failures.push(format!("{name} {spec}: {worst:e} of {limit:e}"));
            }
        }
    }
    println!("{cases} cases, {flips} of them with other decisions");
    // Two of a hundred may have met a tie; more would be no accident.
    assert!(50 * flips <= cases, "{flips} of {cases}");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Pictures with odd rows, so that the generator's blocks of four straddle them.
fn pictures(shape: Shape) -> Batch {
    let one = |n: usize| {
        let numbers = (0..shape.len()).map(|i| ((i * 37 + n * 11) % 101) as f32 / 32.0 - 1.5).collect();
        Tensor::f32(shape.dims(), numbers).unwrap()
    };
    Batch::of(vec![one(0), one(1)]).unwrap()
}

/// A first layer that passes pixels on.
fn passing_on(shape: Shape) -> (Graph, NodeId) {
    let mut b = GraphBuilder::new(shape);
    let mut weight = vec![0f32; shape.c * shape.c * 9];
    (0..shape.c).for_each(|c| weight[(c * shape.c + c) * 9 + 4] = 1.0);
    let weight = Weight::owned([shape.c, shape.c, 3, 3], &weight).unwrap();
    let conv = Op::Conv(Conv { weight, bias: None, window: Window::square(3, 1, 1), groups: 1 });
    let same = b.push("same", conv, &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[same]).unwrap();
    (b.finish(flat).unwrap(), same)
}

/// Every kind of perturbation.
fn perturbations(x: &Batch) -> Vec<Perturbation> {
    let Shape { c: _, h, w } = x.shape();
    let others: Vec<Tensor> = x.items().iter().rev().cloned().collect();
    let boxes = [([0, 0], [2, 3]), ([1, 2], [h, 1]), ([h - 1, w - 1], [4, 4])];
    let boxes = boxes.map(|(corner, size)| Rectangle { corner, size }).to_vec();
    let grid = |n: usize| GridMask {
        values: (0..6).map(|i| ((i * 5 + n * 3) % 7) as f64 / 6.0).collect(),
        corner: [n % 3, (n + 1) % 2],
    };
    let masks = (0..x.len()).map(|i| (0..3).map(|n| grid(3 * i + n)).collect()).collect();
    vec![
        Perturbation::None,
        Perturbation::Noise { seed: 0x9_8765_4321, first: 7, images: x.keys(), sigmas: vec![0.3, 1.7] },
        Perturbation::Path { alphas: vec![0.0, 0.3, 1.0], baselines: others.clone() },
        Perturbation::Boxes(Boxes { boxes, fills: others }),
        Perturbation::Masks(Masks { grid: [2, 3], size: [h + 2, w + 1], masks }),
    ]
}

/// Bits of every copy's pixels: stored, and as the first layer reads them.
fn copies_of(engine: &mut Engine, x: &Batch, perturbation: &Perturbation) -> [Vec<Vec<u64>>; 2] {
    let (graph, same) = passing_on(x.shape());
    let copies = Copies { perturbation: perturbation.clone(), weights: vec![1.0; 3] };
    let targets = vec![0; x.len()];
    [graph.input(), same].map(|node| {
        let task = Task { x, targets: &targets, copies: &copies, loads: &[] };
        let outcome = engine.evaluate_once(&graph, &task, |b| {
            let pixels = b.output(node);
            b.store(pixels, 0)
        });
        // A sum that begins with zero loses the sign of a negative one.
        let bits = |t: &Tensor| t.to_f64().iter().map(|v| (v + 0.0).to_bits()).collect();
        outcome.unwrap().stores[0].iter().map(bits).collect()
    })
}

#[needs::cxx]
#[test]
fn copies_have_the_bits_of_the_cpu() {
    let cpu = Settings { device: DeviceChoice::Cpu, threads: Some(2), ..Settings::default() };
    for shape in [Shape::new(3, 9, 7), Shape::new(1, 5, 5), Shape::new(3, 11, 18), Shape::new(2, 1, 3)] {
        let x = pictures(shape);
        for perturbation in perturbations(&x) {
            let want = copies_of(&mut Engine::new(&cpu).unwrap(), &x, &perturbation);
            assert_eq!(want[0], want[1], "{shape}, {perturbation:?}, on the CPU");
            for seed in [0, 1, 5] {
                let got = copies_of(&mut Engine::new(&gpu(seed)).unwrap(), &x, &perturbation);
                for (what, got, want) in [("stored", &got[0], &want[0]), ("read", &got[1], &want[1])] {
                    for (n, (got, want)) in got.iter().zip(want).enumerate() {
                        let first = got.iter().zip(want).position(|(g, w)| g != w);
                        assert!(first.is_none(), "{shape}, {what}, copy {n}, number {first:?}: {perturbation:?}");
                    }
                    assert_eq!(got.len(), want.len());
                }
            }
            if let Perturbation::Noise { seed, first, images, sigmas } = &perturbation {
                for (n, bits) in want[0].iter().enumerate() {
                    let (item, sample) = (n / 3, first + (n % 3) as u32);
                    let mut z = vec![0f32; shape.len()];
                    random::fill_normals(*seed, images[item], sample, 0, &mut z);
                    let sigma = sigmas[item] as f32;
                    let pixels = x.items()[item].to_f64();
                    let drawn = z.iter().zip(pixels.iter()).map(|(z, &x)| sigma.mul_add(*z, x as f32));
                    let drawn: Vec<u64> = drawn.map(|v| f64::from(v).to_bits()).collect();
                    assert!(*bits == drawn, "{shape}, copy {n}");
                }
            }
        }
    }
}

/// Methods that take every way through the engine.
const METHODS: [&str; 7] =
    ["gradient", "smoothgrad:n=5", "vargrad:n=5", "lrp", "grad_cam", "decoy", "relex:preset=quick,iterations=2"];

fn maps(engine: &mut Engine, net: &Net, spec: &str) -> Vec<Vec<u64>> {
    let maps = net.explain(engine, spec, Score::Prob, 5).unwrap_or_else(|e| panic!("{spec}: {e}"));
    maps.iter().map(bits).collect()
}

#[needs::cxx]
#[test]
fn maps_do_not_depend_on_order_memory_or_batch() {
    let net = Net::small("vgg_bn");
    for spec in METHODS {
        let mut engine = Engine::new(&gpu(0)).unwrap();
        let want = maps(&mut engine, &net, spec);
        let unlimited = engine.peak_bytes();
        let enough = named_as_enough(&gpu(0), &net, spec);
        println!("{spec}: {enough} bytes are enough, {unlimited} are held without a limit");
        assert!(enough <= unlimited, "{spec}");
        for (seed, limit) in [(1, enough), (2, enough + (unlimited - enough) / 2), (3, unlimited)] {
            let mut engine = Engine::new(&Settings { memory: Some(limit), ..gpu(seed) }).unwrap();
            assert!(maps(&mut engine, &net, spec) == want, "{spec}: order {seed}, {limit} bytes");
            let peak = engine.peak_bytes();
            assert!(peak <= limit, "{spec} held {peak} bytes of {limit}");
        }
        let method = build(spec, Score::Prob, 5, &net.preprocess).unwrap();
        let reversed = Batch::of(net.x.items().iter().rev().cloned().collect()).unwrap();
        let targets: Vec<usize> = net.targets.iter().rev().copied().collect();
        let maps = method.explain(&mut engine, &net.graph, &reversed, &targets).unwrap();
        assert!(maps.iter().rev().map(bits).eq(want.iter().cloned()), "{spec} in reverse order");
        let alone = net.x.part(1..2).unwrap();
        let maps = method.explain(&mut engine, &net.graph, &alone, &net.targets[1..2]).unwrap();
        assert!(bits(&maps[0]) == want[1], "{spec}, a picture alone");
    }
}

/// How far a way of multiplying may be off, forward and back.
struct Errors {
    products: Products,
    convolution: Convolution,
    forward: f64,
    back: f64,
    /// Below this size numbers keep fewer bits.
    floor: f64,
}

/// Of two parts of 11 bits each the last bits and the product of the smaller ones are lost; else each factor is rounded.
const ERRORS: [Errors; 5] = {
    const SPLIT: f64 = 3.0 / (1u64 << 22) as f64;
    const ELEVEN: f64 = 2.0 / (1u64 << 11) as f64 + 1.0 / (1u64 << 22) as f64;
    const EIGHT: f64 = 2.0 / (1u64 << 8) as f64 + 1.0 / (1u64 << 16) as f64;
    const HALF: f64 = 1.0 / (1u64 << 14) as f64;
    const fn of(products: Products, convolution: Convolution, forward: f64, back: f64, floor: f64) -> Errors {
        Errors { products, convolution, forward, back, floor }
    }
    [
        of(Products::F32, Convolution::Exact, SPLIT, SPLIT, 0.0),
        of(Products::F32, Convolution::Fast, SPLIT, ELEVEN, 0.0),
        of(Products::Tf32, Convolution::Fast, ELEVEN, ELEVEN, 0.0),
        of(Products::F16, Convolution::Fast, ELEVEN, ELEVEN, HALF),
        of(Products::Bf16, Convolution::Fast, EIGHT, EIGHT, 0.0),
    ]
};

/// Rounding of the sums of one operation, relative to the sum of magnitudes.
fn sums(op: &Op, inputs: &[&Dense], out: &Dense) -> f64 {
    // The reference is rounded too; two more for a batch norm folded into weights.
    (op_terms(op, inputs, out) + 4) as f64 * (2f64.powi(-24) + f64::EPSILON)
}

fn multiplies(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::Linear(_))
}

/// `op` with every weight at least `floor` in size.
fn floored(op: &Op, floor: f64) -> Op {
    let raise = |weight: &Weight| {
        weight_f64(weight.dims(), &weight.to_f64().iter().map(|w| w.abs().max(floor)).collect::<Vec<_>>())
    };
    match op_magnitude(op) {
        Op::Conv(conv) => Op::Conv(Conv { weight: raise(&conv.weight), ..conv }),
        Op::Linear(linear) => Op::Linear(Linear { weight: raise(&linear.weight), ..linear }),
        other => other,
    }
}

/// The numbers below which weights and signals keep fewer bits: batch norms are folded into weights.
fn floors(graph: &Graph, floor: f64) -> [f64; 2] {
    let mut ends = [1.0f64, 1.0];
    for node in graph.nodes() {
        if let Op::BatchNorm(b) = &node.op {
            for (gamma, variance) in b.gamma.iter().zip(b.variance.iter()) {
                let slope = gamma.abs() / (variance + b.eps).sqrt();
                ends = [ends[0].min(slope), ends[1].max(slope)];
            }
        }
    }
    [floor / ends[0], floor * ends[1]]
}

/// Of every number of a forward pass how far it may be off.
fn forward_errors(graph: &Graph, outputs: &[Dense], by: &Errors) -> Vec<Dense> {
    let [weights, signals] = floors(graph, by.floor);
    let mut errors = vec![outputs[0].map(|_| 0.0)];
    for node in &graph.nodes()[1..] {
        let of = |all: &[Dense]| -> Vec<Dense> { node.inputs.iter().map(|i| all[i.index()].clone()).collect() };
        let (inputs, passed) = (of(outputs), of(&errors));
        let inputs: Vec<&Dense> = inputs.iter().collect();
        let passed: Vec<&Dense> = passed.iter().collect();
        let out = &outputs[errors.len()];
        if forward_is_exact(&node.op) {
            errors.push(op_forward(&node.op, &passed).map(|e| e.max(0.0)));
            continue;
        }
        let op = if multiplies(&node.op) { floored(&node.op, weights) } else { op_magnitude(&node.op) };
        let zeros: Vec<Dense> = passed.iter().map(|d| d.map(|_| 0.0)).collect();
        let constant = op_forward(&op, &zeros.iter().collect::<Vec<_>>());
        let brought = op_forward(&op, &passed).zip(&constant, |a, b| a - b);
        let sizes: Vec<Dense> =
            inputs.iter().zip(&passed).map(|(x, e)| x.zip(e, |x, e| (x.abs() + e).max(signals))).collect();
        let magnitude = op_forward(&op, &sizes.iter().collect::<Vec<_>>());
        let unit = sums(&node.op, &inputs, out) + if multiplies(&node.op) { by.forward } else { 0.0 };
        errors.push(brought.zip(&magnitude, |e, m| e + unit * m));
    }
    errors
}

/// The gradient under fixed decisions, and of each of its numbers how far it may be off.
fn gradient_with_errors(graph: &Graph, outputs: &[Dense], seed: &Dense, by: &Errors) -> [Dense; 2] {
    let [weights, signals] = floors(graph, by.floor);
    let mut back: Vec<[Dense; 2]> = outputs.iter().map(|d| [d.map(|_| 0.0), d.map(|_| 0.0)]).collect();
    back[graph.output().index()][0] = seed.clone();
    for id in graph.ids().skip(1).rev() {
        let node = graph.node(id);
        let inputs: Vec<&Dense> = node.inputs.iter().map(|i| &outputs[i.index()]).collect();
        let [up, error] = back[id.index()].clone();
        let op = if multiplies(&node.op) { floored(&node.op, weights) } else { op_magnitude(&node.op) };
        let unit = sums(&node.op, &inputs, &outputs[id.index()]) + if multiplies(&node.op) { by.back } else { 0.0 };
        let size = up.zip(&error, |u, e| if u == 0.0 && e == 0.0 { 0.0 } else { (u.abs() + e).max(signals) });
        let parts = op_vjp(&node.op, &inputs, &up, ReluRule::Vjp);
        let brought = op_vjp(&op, &inputs, &error, ReluRule::Vjp);
        let magnitude = op_vjp(&op, &inputs, &size, ReluRule::Vjp);
        for (i, input) in node.inputs.iter().enumerate() {
            let [signal, error] = &mut back[input.index()];
            *signal = signal.zip(&parts[i], |a, b| a + b);
            *error = error.zip(&brought[i], |a, b| a + b).zip(&magnitude[i], |a, m| a + unit * m);
        }
    }
    back.swap_remove(0)
}

/// Fails where decisions differ although the numbers they are made of are farther apart than they may be off; how many
/// differ.
fn differing(graph: &Graph, outputs: &[Dense], errors: &[Dense], item: usize, [got, want]: [&Decisions; 2]) -> usize {
    let mut count = 0;
    for (id, taken) in &got.nodes {
        let node = graph.node(*id);
        let (x, e) = (&outputs[node.inputs[0].index()], &errors[node.inputs[0].index()]);
        for (i, (a, b)) in taken.iter().zip(&want.nodes[id]).enumerate().filter(|(_, (a, b))| a != b) {
            count += 1;
            let (c, y, column) = (i / node.shape.plane(), i / node.shape.w % node.shape.h, i % node.shape.w);
            let (margin, limit) = match &node.op {
                Op::MaxPool(window) => {
                    let pads = window.pads(x.shape.h, x.shape.w);
                    let of = |tap: u16, d: &Dense| {
                        let tap = [tap as usize / window.kernel[1], tap as usize % window.kernel[1]];
                        let at = |axis: usize, o: usize| {
                            o * window.stride[axis] + tap[axis] * window.dilation[axis] - pads[axis][0]
                        };
                        d.at(item, c, at(0, y), at(1, column))
                    };
                    ((of(*a, x) - of(*b, x)).abs(), of(*a, e) + of(*b, e))
                }
                Op::Clamp { lo, hi } => {
                    let v = x.at(item, c, y, column);
                    ((v - lo).abs().min((v - hi).abs()), e.at(item, c, y, column))
                }
                _ => (x.at(item, c, y, column).abs(), e.at(item, c, y, column)),
            };
            assert!(margin <= limit, "{}: number {i} of picture {item}: {margin:e} of {limit:e}", node.name);
        }
    }
    count
}

#[needs::cxx]
#[test]
fn gradients_under_decisions_are_within_their_bound() {
    let double = Settings { precision: Precision::F64, device: DeviceChoice::Cpu, ..Settings::default() };
    for name in SMALL {
        let net = Net::small(name);
        let x = Dense::from_tensor(&Tensor::stack(net.x.items()).unwrap());
        let outputs = forward(&net.graph, &x);
        let mut seed = outputs[net.graph.output().index()].map(|_| 0.0);
        net.targets.iter().enumerate().for_each(|(n, &target)| *seed.at_mut(n, target, 0, 0) = 1.0);
        let decisions = Engine::new(&double).unwrap().decisions(&net.graph, &net.x).unwrap();
        for by in &ERRORS {
            let settings = Settings { products: by.products, convolution: by.convolution, ..gpu(1) };
            let what = format!("{name}, {:?} {:?}", by.products, by.convolution);
            let mut engine = Engine::new(&settings).unwrap();
            let errors = forward_errors(&net.graph, &outputs, by);
            let own = engine.decisions(&net.graph, &net.x).unwrap();
            let flips: usize =
                (0..net.x.len()).map(|n| differing(&net.graph, &outputs, &errors, n, [&own[n], &decisions[n]])).sum();
            let job = Job::gradient(Score::Logit);
            let answer = engine.explain_under(&net.graph, &job, &net.x, &net.targets, &decisions).unwrap();
            let got = Dense::from_tensor(&Tensor::stack(&answer.maps).unwrap());
            let [want, limit] = gradient_with_errors(&net.graph, &outputs, &seed, by);
            want.assert_informative(&what);
            let mut most = 0.0f64;
            for (i, ((g, w), limit)) in got.data.iter().zip(&want.data).zip(&limit.data).enumerate() {
                // The map is rounded once more.
                let limit = limit + 2f64.powi(-24) * (w.abs() + limit);
                let off = (g - w).abs();
                assert!(off <= limit, "{what}: number {i}: {g:e} for {w:e}, limit {limit:e}");
                most = most.max(off / limit.max(f64::MIN_POSITIVE));
            }
            println!("{what}: {:.1e} off, {most:.0e} of the bound, {flips} decisions differ", {
                let difference: f64 = got.zip(&want, |a, b| (a - b).powi(2)).data.iter().sum();
                let size: f64 = want.data.iter().map(|v| v * v).sum();
                (difference / size).sqrt()
            });
        }
    }
}

/// Patches go where the CPU moves them, keep to their constraint in double precision and to their range.
#[needs::cxx]
#[test]
fn decoys_are_those_of_the_cpu() {
    let cpu = Settings { device: DeviceChoice::Cpu, threads: Some(2), ..Settings::default() };
    let double = Settings { precision: Precision::F64, ..cpu.clone() };
    for name in SMALL {
        let net = Net::small(name);
        let node = first_activation(&net.graph).unwrap();
        let outputs = |pictures: Vec<Tensor>| -> Vec<Vec<f64>> {
            let x = Batch::of(pictures).unwrap();
            let all = Engine::new(&double).unwrap().node_outputs(&net.graph, &x, &[node]).unwrap();
            (0..x.len()).map(|i| all[0].item(i).unwrap().to_f64().into_owned()).collect()
        };
        let range = [net.preprocess.black(), net.preprocess.white()];
        let recipe =
            Recipe { node, patch: 3, stride: 3, masks: Lattice, epsilon: 0.02, iterations: 60, lr: 0.1, seed: 1 };
        let made = |settings: &Settings, wanted: &[(usize, usize)]| {
            let mut engine = Engine::new(settings).unwrap();
            let generator = Generator::new(&mut engine, &net.graph, &net.x, range.clone(), recipe).unwrap();
            let decoys = generator.make(&mut engine, wanted).unwrap();
            (decoys, generator.limits().to_vec())
        };
        let wanted: Vec<(usize, usize)> = (0..net.x.len()).flat_map(|i| [(i, 0), (i, 3)]).collect();
        let (want, limits) = made(&cpu, &wanted);
        let (got, own) = made(&gpu(1), &wanted);
        assert_eq!(own, limits, "{name}: the largest outputs");
        let (again, _) = made(&gpu(2), &wanted);
        let before = outputs(net.x.items().to_vec());
        let after = outputs(got.iter().map(|d| d.picture.clone()).collect());
        let mut worst = 0.0f64;
        for (n, &(item, number)) in wanted.iter().enumerate() {
            let what = format!("{name}, picture {item}, decoy {number}");
            assert!(got[n].picture == again[n].picture, "{what}: the order of threads shows");
            let change = before[item].iter().zip(&after[n]).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(change <= limits[item] * (1.0 + 1e-6), "{what}: {change} of {}", limits[item]);
            assert!(got[n].change <= 1.0 && got[n].change > 0.0, "{what}: {}", got[n].change);
            let x = net.x.items()[item].to_f64();
            let plane = net.x.shape().plane();
            for (i, (&x, &z)) in x.iter().zip(got[n].picture.to_f64().iter()).enumerate() {
                let (low, high) = (range[0][i / plane].min(x) - 1e-6, range[1][i / plane].max(x) + 1e-6);
                assert!(z >= low && z <= high, "{what}: {z} for {x}");
            }
            let moved = |d: &Decoy| {
                Tensor::f64([x.len()], d.picture.to_f64().iter().zip(x.iter()).map(|(z, x)| z - x).collect())
            };
            let off = apart(&moved(&got[n]).unwrap(), &moved(&want[n]).unwrap());
            worst = worst.max(off);
        }
        println!("{name}: moves {worst:.1e} from those of the CPU");
        // Sums of the layer have the same bits, those of its adjoint another order.
        assert!(worst <= 1e-5, "{name}: moves are {worst:e} from those of the CPU");
    }
}
