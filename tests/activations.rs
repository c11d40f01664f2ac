//! Activations against PyTorch's, on every set of kernels, and every rule on nets of them against computations by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;
mod reference;

use std::sync::Arc;

use nets::{gpu, machines};
use reference::weight_f64;
use verilume::engine::{Batch, Copies, DeviceChoice, Engine, Job, Pullback, Settings, Start, Task};
use verilume::graph::{Affine, Conv, Graph, GraphBuilder, Linear, NodeId, Op, Smooth};
use verilume::method::conservation;
use verilume::program::Score;
use verilume::rule::{Bias, Composite, ConstantTerms, DeepLift, GateShare, Preset, Relevance, Select, pull_back};
use verilume::tensor::{Precision, Shape, Tensor, Window};

/// The activation of a line of the golden files.
fn activation(name: &str, parameters: &str) -> Op {
    let given: Vec<f64> = match parameters {
        "-" => Vec::new(),
        list => list.split(',').map(|v| v.parse().unwrap()).collect(),
    };
    Op::Smooth(match (name, &given[..]) {
        ("sigmoid", []) => Smooth::Sigmoid,
        ("silu", []) => Smooth::Silu,
        ("hard_sigmoid", []) => Smooth::HardSigmoid,
        ("hard_swish", []) => Smooth::HardSwish,
        ("tanh", []) => Smooth::Tanh,
        ("gelu", []) => Smooth::Gelu,
        ("gelu_tanh", []) => Smooth::GeluTanh,
        ("leaky_relu", &[slope]) => Smooth::LeakyRelu { slope },
        ("elu", &[alpha]) => Smooth::Elu { alpha },
        ("softplus", &[beta, threshold]) => Smooth::Softplus { beta, threshold },
        ("exp", []) => Smooth::Exp,
        ("log", []) => Smooth::Log,
        ("abs", []) => Smooth::Abs,
        ("power", &[exponent]) => Smooth::Power { exponent },
        ("prelu", slopes) => return Op::PRelu(slopes.into()),
        _ => panic!("{name} with {parameters}"),
    })
}

/// What PyTorch says of one activation at many numbers.
struct Golden {
    op: Op,
    name: String,
    x: Vec<f64>,
    value: Vec<f64>,
    slope: Vec<f64>,
}

fn golden_values() -> Vec<Golden> {
    let mut all: Vec<Golden> = Vec::new();
    for line in include_str!("golden/activations/values.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let name = format!("{} {}", fields[0], fields[1]);
        if all.last().is_none_or(|last| last.name != name) {
            let [x, value, slope] = [const { Vec::new() }; 3];
            all.push(Golden { op: activation(fields[0], fields[1]), name, x, value, slope });
        }
        let golden = all.last_mut().unwrap();
        let [x, value, slope] = [2, 3, 4].map(|i| f64::from_bits(u64::from_str_radix(fields[i], 16).unwrap()));
        golden.x.push(x);
        golden.value.push(value);
        golden.slope.push(slope);
    }
    assert_eq!(all.len(), 26);
    all
}

/// `input → op → flatten`.
fn alone(op: &Op, shape: Shape) -> Graph {
    let mut b = GraphBuilder::new(shape);
    let node = b.push("op", op.clone(), &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[node]).unwrap();
    b.finish(flat).unwrap()
}

/// `n` maps that hold `numbers` over and over.
fn maps(numbers: &[f64], n: usize, shape: Shape, precision: Precision) -> Tensor {
    let [c, h, w] = shape.dims();
    let all = (0..n * shape.len()).map(|i| numbers[i % numbers.len()]).collect();
    Tensor::rounded([n, c, h, w], all, precision).unwrap()
}

/// Values on `n` maps and what ones at the output become at the input.
fn values_and_slopes(engine: &mut Engine, op: &Op, x: &[f64], n: usize, shape: Shape, to: Precision) -> [Vec<f64>; 2] {
    let graph = alone(op, shape);
    let node = graph.find("op").unwrap();
    let batch = Batch::new(&maps(x, n, shape, to)).unwrap();
    let values = engine.node_outputs(&graph, &batch, &[node]).unwrap();
    let (signal, rules) = (maps(&[1.0], n, shape, to), Composite::gradient());
    let way = Pullback { from: node, signal: &signal, rules: &rules, to: graph.input() };
    let slopes = engine.pullback(&graph, &batch, &way).unwrap();
    [values.iter().flat_map(|t| t.to_f64().into_owned()).collect(), slopes.to_f64().into_owned()]
}

/// Odd sizes, one position, one channel, batch 1 and 5.
const SHAPES: [(usize, Shape); 5] = [
    (1, Shape { c: 1, h: 1, w: 1 }),
    (5, Shape { c: 1, h: 7, w: 11 }),
    (1, Shape { c: 53, h: 1, w: 1 }),
    (1, Shape { c: 17, h: 5, w: 13 }),
    (5, Shape { c: 9, h: 3, w: 5 }),
];

#[test]
fn values_and_slopes_are_pytorchs() {
    let unit = 2f64.powi(-24);
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for golden in golden_values() {
            for (n, shape) in SHAPES {
                let [values, slopes] =
                    values_and_slopes(&mut engine, &golden.op, &golden.x, n, shape, settings.precision);
                assert_eq!((values.len(), slopes.len()), (n * shape.len(), n * shape.len()));
                for (i, (value, slope)) in values.into_iter().zip(slopes).enumerate() {
                    let at = i % golden.x.len();
                    let [x, y, dy] = [golden.x[at], golden.value[at], golden.slope[at]];
                    // PyTorch's own rounding is absolute where it subtracts from 1; a function's input is rounded too.
                    let own = 4e-16 * x.abs().max(1.0);
                    let limits = match settings.precision {
                        Precision::F64 => [1e-12 * y.abs() + own, 1e-12 * dy.abs() + 10.0 * own],
                        Precision::F32 => {
                            [8.0 * unit * (y.abs() + (x * dy).abs()) + own, 16.0 * unit * dy.abs().max(1.0)]
                        }
                    };
                    for (what, got, want, limit) in [("value", value, y, limits[0]), ("slope", slope, dy, limits[1])] {
                        assert!(
                            (got - want).abs() <= limit,
                            "{what} of {} at {x}, {} of {shape}: {got:e} for {want:e}",
                            golden.name,
                            engine.describe().kernels
                        );
                    }
                }
            }
        }
    }
}

/// One text for all instruction sets: no bit differs in single precision, on the emulated GPU neither.
#[test]
fn bits_do_not_depend_on_the_instruction_set() {
    let mut engines: Vec<Engine> =
        machines().iter().filter(|s| s.precision == Precision::F32).map(|s| Engine::new(s).unwrap()).collect();
    if needs::found!(cxx) {
        engines.push(Engine::new(&gpu(0)).unwrap());
    }
    // Numbers of every exponent and sign.
    let mut numbers: Vec<f64> = (0..512u32)
        .map(|i| f64::from(f32::from_bits((i << 23) | (i.wrapping_mul(0x9E37_79B9) >> 9))))
        .filter(|x| x.is_finite())
        .collect();
    numbers.extend((-400..400).map(|i| f64::from(i) / 16.0));
    let slopes = [0.25, -0.5, 0.0, 1.5, 0.125, -0.0625, 0.75];
    let ops = Smooth::examples().into_iter().map(Op::Smooth).chain([Op::PRelu(slopes.into())]);
    for op in ops {
        // A result that is not finite is refused.
        let defined = |x: &f64| match &op {
            Op::Smooth(f) => [f.value(*x), f.slope(*x)].iter().all(|v| v.abs() < 1e38),
            _ => true,
        };
        let numbers: Vec<f64> = numbers.iter().copied().filter(defined).collect();
        let shape = Shape::new(7, numbers.len().div_ceil(7 * 5), 5);
        let mut bits = engines.iter_mut().map(|engine| {
            let both = values_and_slopes(engine, &op, &numbers, 1, shape, Precision::F32);
            // A sum that begins with zero loses the sign of a negative one.
            both.map(|numbers| numbers.iter().map(|v| (v + 0.0).to_bits()).collect::<Vec<_>>())
        });
        let want = bits.next().unwrap();
        for (i, got) in bits.enumerate() {
            for (what, got, want) in [("value", &got[0], &want[0]), ("slope", &got[1], &want[1])] {
                let first = got.iter().zip(want).position(|(g, w)| g != w);
                assert!(first.is_none(), "{op:?}: {what} {first:?} on the {i}-th other device");
            }
        }
    }
}

/// Multiples of 1/64 that look drawn, as in the script of the golden files.
fn drawn(salt: i64, count: usize) -> Vec<f64> {
    (0..count as i64).map(|i| ((i * 37 + salt * 53 + i * i * 11) % 97 - 48) as f64 / 64.0).collect()
}

/// Whether a function's slope has no bound, or only positive numbers have a value.
fn wild(op: &Op) -> bool {
    matches!(op, Op::Smooth(Smooth::Exp | Smooth::Log | Smooth::Power { .. }))
}

/// Numbers from 0.75 to 1.25 in place of those at `x`, if the operation is wild.
fn tamed(b: &mut GraphBuilder, name: &str, op: &Op, x: NodeId) -> NodeId {
    if !wild(op) {
        return x;
    }
    let tanh = b.push(format!("{name}.tanh"), Op::Smooth(Smooth::Tanh), &[x]).unwrap();
    let affine = Affine { scale: [0.25].into(), shift: [1.0].into() };
    b.push(format!("{name}.affine"), Op::Affine(affine), &[tanh]).unwrap()
}

/// Two convolutions and a linear layer, with an activation after each convolution.
fn net(first: &Op, second: &Op) -> Graph {
    let conv = |[k, c]: [usize; 2], stride, salt| {
        let weight = weight_f64([k, c, 3, 3], &drawn(salt, k * c * 9));
        Op::Conv(Conv {
            weight,
            bias: Some(drawn(salt + 1, k).into()),
            window: Window::square(3, stride, 1),
            groups: 1,
        })
    };
    let mut b = GraphBuilder::new(Shape::new(3, 5, 7));
    let at = b.push("conv1", conv([5, 3], 1, 1), &[b.input()]).unwrap();
    let at = tamed(&mut b, "act1", first, at);
    let at = b.push("act1", first.clone(), &[at]).unwrap();
    let at = b.push("conv2", conv([4, 5], 2, 3), &[at]).unwrap();
    let at = tamed(&mut b, "act2", second, at);
    let at = b.push("act2", second.clone(), &[at]).unwrap();
    let at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let linear = Linear { weight: weight_f64([3, 48, 1, 1], &drawn(5, 144)), bias: Some(drawn(6, 3).into()) };
    let at = b.push("fc", Op::Linear(linear), &[at]).unwrap();
    b.finish(at).unwrap()
}

/// The net with one activation; a PReLU has slopes for the five channels of the first and the four of the second.
fn net_of(op: &Op) -> Graph {
    match op {
        Op::PRelu(slopes) if slopes.len() > 1 => net(&Op::PRelu(slopes[..5].into()), &Op::PRelu(slopes[5..].into())),
        op => net(op, op),
    }
}

fn pictures() -> Vec<Tensor> {
    let numbers: Vec<f64> = drawn(7, 2 * 105).iter().map(|v| 2.0 * v).collect();
    numbers.chunks(105).map(|x| Tensor::f64([3, 5, 7], x.to_vec()).unwrap()).collect()
}

/// Largest difference as a share of the largest reference; NaN stays NaN.
fn error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let top = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(top > 0.0, "the reference is all zeros");
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, |m: f64, d| if d <= m { m } else { d }) / top
}

#[test]
fn gradients_of_nets_are_pytorchs() {
    let x = Batch::of(pictures()).unwrap();
    let mut devices = machines();
    devices.extend(needs::found!(cxx).then(|| gpu(1)));
    for settings in devices {
        let mut engine = Engine::new(&settings).unwrap();
        let tolerance = if settings.precision == Precision::F64 { 1e-10 } else { 1e-5 };
        let lines: Vec<&str> = include_str!("golden/activations/nets.txt").lines().collect();
        assert_eq!(lines.len(), 56);
        for both in lines.chunks(2) {
            let fields: Vec<Vec<&str>> = both.iter().map(|line| line.split(' ').collect()).collect();
            let graph = net_of(&activation(fields[0][0], fields[0][1]));
            let answer = engine.explain(&graph, &Job::gradient(Score::Logit), &x, &[1, 1]).unwrap();
            let all = engine.forward(&graph, &x).unwrap().to_f64().into_owned();
            for (i, fields) in fields.iter().enumerate() {
                let numbers: Vec<f64> = fields[2..].iter().map(|v| v.parse().unwrap()).collect();
                let (logits, gradient) = numbers.split_at(3);
                let off = [error(&all[3 * i..3 * i + 3], logits), error(&answer.maps[i].to_f64(), gradient)];
                let within = off.iter().all(|off| *off <= tolerance);
                assert!(within, "{} {}: {off:?} on {settings:?}", fields[0], fields[1]);
            }
        }
    }
}

/// Every function, and PReLUs.
fn every_activation() -> Vec<Op> {
    let slopes: Arc<[f64]> = [0.25, -0.5, 0.0, 1.5, 0.125, -0.0625, 0.75, 0.5, -0.25].into();
    let all = Smooth::examples().into_iter().map(Op::Smooth);
    all.chain([Op::PRelu(slopes), Op::PRelu([0.375].into())]).collect()
}

#[test]
fn relevance_is_kept() {
    let x = Batch::of(pictures()).unwrap();
    let mut engine = Engine::new(&Settings { precision: Precision::F64, ..Settings::default() }).unwrap();
    for op in every_activation() {
        let graph = net_of(&op);
        let ends = (vec![-3.0; 3], vec![3.0; 3]);
        for preset in [
            Preset::Epsilon,
            Preset::EpsilonPlus,
            Preset::EpsilonPlusFlat,
            Preset::EpsilonGammaBox,
            Preset::EpsilonAlpha2Beta1,
            Preset::Gamma,
        ] {
            let (low, high) = ends.clone();
            let rules = Relevance { epsilon: 1e-6, gamma: 0.25, bias: Bias::Keep, gate: GateShare::Nothing, low, high }
                .composite(preset)
                .unwrap();
            for layers in conservation(&mut engine, &graph, &x, &[1, 2], &rules).unwrap() {
                let pixels: f64 =
                    layers.iter().filter(|l| graph.node(l.node).inputs[0] == graph.input()).map(|l| l.r_in).sum();
                let kept: f64 = layers.iter().map(|l| l.bias + l.lost).sum();
                let scale = layers.iter().map(|l| l.magnitude).fold(layers[0].r_out.abs(), f64::max);
                let gap = (pixels + kept - layers[0].r_out).abs() / scale;
                assert!(gap <= 1e-9, "{op:?} under {preset:?}: {gap:e}");
                // Activations pass everything on.
                for layer in layers.iter().filter(|l| graph.node(l.node).op.activation().is_some()) {
                    assert_eq!((layer.bias, layer.lost, layer.gap()), (0.0, 0.0, 0.0), "{op:?} under {preset:?}");
                }
            }
        }
    }
}

const FIRST: [[f64; 2]; 4] = [[1.0, -0.5], [-0.75, 0.25], [0.5, 1.5], [-2.0, 0.75]];
const FIRST_BIAS: [f64; 4] = [0.25, 0.5, -0.75, 0.125];
const SECOND: [[f64; 4]; 2] = [[1.5, -1.0, 0.5, 0.75], [-0.25, 2.0, -1.25, -0.5]];
const SECOND_BIAS: [f64; 2] = [0.5, -0.25];
const X: [f64; 2] = [0.75, -1.25];
const EPSILON: f64 = 0.125;

/// Two linear layers with an activation between them.
fn small_net(op: &Op) -> Graph {
    let mut b = GraphBuilder::new(Shape::vector(2));
    let linear = |dims: [usize; 2], weight: &[f64], bias: &[f64]| {
        Op::Linear(Linear { weight: weight_f64([dims[0], dims[1], 1, 1], weight), bias: Some(bias.into()) })
    };
    let bias = FIRST_BIAS.map(|v| v + raised(op));
    let first = b.push("first", linear([4, 2], FIRST.as_flattened(), &bias), &[b.input()]).unwrap();
    let act = b.push("act", op.clone(), &[first]).unwrap();
    let second = b.push("second", linear([2, 4], SECOND.as_flattened(), &SECOND_BIAS), &[act]).unwrap();
    b.finish(second).unwrap()
}

/// What the biases of the first layer have more, so that all its outputs are positive where they must be.
fn raised(op: &Op) -> f64 {
    if wild(op) { 3.0 } else { 0.0 }
}

fn hidden(op: &Op, x: [f64; 2]) -> [f64; 4] {
    [0, 1, 2, 3].map(|j| FIRST[j][0] * x[0] + FIRST[j][1] * x[1] + FIRST_BIAS[j] + raised(op))
}

/// A signal at the first layer's outputs sent back to the input.
fn back(signal: [f64; 4]) -> Vec<f64> {
    (0..2).map(|i| (0..4).map(|j| FIRST[j][i] * signal[j]).sum()).collect()
}

/// Value and slope of the `j`-th hidden unit at `z`.
fn by_hand(op: &Op, j: usize, z: f64) -> [f64; 2] {
    match op {
        Op::Smooth(f) => [f.value(z), f.slope(z)],
        Op::PRelu(slopes) => {
            let slope = if z > 0.0 { 1.0 } else { slopes[j % slopes.len()] };
            [slope * z, slope]
        }
        _ => panic!("{}", op.kind()),
    }
}

#[test]
fn rules_are_those_by_hand() {
    let slopes: Arc<[f64]> = [0.25, -0.5, 0.125, 1.5].into();
    let ops = Smooth::examples().into_iter().map(Op::Smooth);
    let ops: Vec<Op> = ops.chain([Op::PRelu(slopes), Op::PRelu([0.375].into())]).collect();
    let x0 = [-0.5, 0.25];
    let picture = || Batch::of(vec![Tensor::f64([2, 1, 1], X.to_vec()).unwrap()]).unwrap();
    let baseline = [vec![Tensor::f64([2, 1, 1], x0.to_vec()).unwrap()]];
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        for op in &ops {
            let net = small_net(op);
            let (z, z0) = (hidden(op, X), hidden(op, x0));
            assert!(z.iter().any(|z| *z > 0.0) && z.iter().any(|z| (*z < 0.0) != wild(op)));
            let (f, df) = (|j: usize| by_hand(op, j, z[j])[0], |j: usize| by_hand(op, j, z[j])[1]);
            for (target, up) in SECOND.into_iter().enumerate() {
                let close = |what: &str, got: &[f64], want: &[f64]| {
                    let tolerance = if settings.precision == Precision::F64 { 1e-12 } else { 1e-5 };
                    assert_eq!(got.len(), want.len(), "{what}");
                    for (got, want) in got.iter().zip(want) {
                        let off = (got - want).abs();
                        assert!(off <= tolerance * want.abs().max(1.0), "{what} of {op:?}: {got} for {want}");
                    }
                };
                let each = |f: &dyn Fn(usize) -> f64| back([f(0), f(1), f(2), f(3)]);
                let mut map = |rules: Composite, start: Start| {
                    let job = Job { rules, start, ..Job::gradient(Score::Logit) };
                    engine.explain(&net, &job, &picture(), &[target]).unwrap().maps[0].to_f64().into_owned()
                };
                close("gradient", &map(Composite::gradient(), Start::Gradient), &each(&|j| up[j] * df(j)));
                let soft = matches!(op, Op::Smooth(Smooth::SoftClamp(_)));
                let active = |j: usize| f64::from(u8::from(soft || z[j] > 0.0));
                let guided = each(&|j| up[j].max(0.0) * df(j) * active(j));
                close("guided", &map(Composite::guided(), Start::Gradient), &guided);
                let deconvnet = each(&|j| up[j].max(0.0));
                close("deconvnet", &map(Composite::deconvnet(), Start::Gradient), &deconvnet);
                // The median lies between the second and the third.
                let mut products: Vec<f64> = (0..4).map(|j| f(j) * up[j]).collect();
                products.sort_by(f64::total_cmp);
                let median = (products[1] + products[2]) / 2.0;
                let passes = |j: usize| if f(j) * up[j] > median { up[j] * df(j) } else { 0.0 };
                close("rectified", &map(Composite::rectified(0.5), Start::Gradient), &each(&passes));

                let y = (0..4).map(|j| up[j] * f(j)).sum::<f64>() + SECOND_BIAS[target];
                let stabilised = |z: f64| if z < 0.0 { z - EPSILON } else { z + EPSILON };
                let relevance = Relevance {
                    epsilon: EPSILON,
                    gamma: 0.25,
                    bias: Bias::Keep,
                    gate: GateShare::Nothing,
                    low: Vec::new(),
                    high: Vec::new(),
                };
                let r = each(&|j| f(j) * up[j] * y / stabilised(y) / stabilised(z[j]));
                let r: Vec<f64> = r.iter().zip(X).map(|(r, x)| r * x).collect();
                close("epsilon", &map(relevance.composite(Preset::Epsilon).unwrap(), Start::Relevance), &r);

                let x = picture();
                let task = Task { x: &x, targets: &[target], copies: &Copies::one(), loads: &baseline };
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
                let ratio = |j: usize| up[j] * (f(j) - by_hand(op, j, z0[j])[0]) / (z[j] - z0[j]);
                close("deep_lift", &outcome.unwrap().stores[0][0].to_f64(), &each(&ratio));

                let task = Task { loads: &[], ..task };
                let outcome = engine.evaluate_once(&net, &task, |b| {
                    let graph = b.graph();
                    let seed = b.seed(Score::Logit);
                    let rules = Composite::new(vec![(Select::Every, Arc::new(ConstantTerms::of(graph, 1)))]);
                    let gradient = pull_back(b, &rules, graph.output(), seed, graph.input())?;
                    let term = b.mul(gradient, b.output(graph.input()))?;
                    b.store(term, 0)
                });
                let sum = outcome.unwrap().stores.iter().map(|s| s[0].to_f64().iter().sum::<f64>()).sum();
                close("input and constants", &[sum], &[y]);
            }
        }
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let shape = [Shape::new(3, 2, 2)];
    let refused = |op: Op| op.output(&shape).unwrap_err().to_string();
    assert!(refused(Op::Smooth(Smooth::Elu { alpha: -1.0 })).contains("elu with alpha -1"));
    assert!(refused(Op::Smooth(Smooth::Softplus { beta: 0.0, threshold: 20.0 })).contains("beta 0"));
    assert!(refused(Op::PRelu([0.1, 0.2].into())).contains("2 numbers for 3 channels"));
    assert!(refused(Op::PRelu([f64::NAN].into())).contains("slope NaN"));
    assert!(Op::PRelu([0.1, 0.2, 0.3].into()).output(&shape).is_ok());
}

/// A run in which a function meets a number without a value fails and names the node; a root's slope at 0 is 0.
#[test]
fn numbers_without_a_value_are_refused() {
    let shape = Shape::new(3, 1, 2);
    let power = |exponent| Op::Smooth(Smooth::Power { exponent });
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let log = Op::Smooth(Smooth::Log);
        for (op, x) in [(log.clone(), 0.0), (log, -1.0), (power(-1.0), 0.0), (power(-2.5), 0.0), (power(1.3), -1.0)] {
            let batch = Batch::new(&maps(&[1.0, x, 2.0], 1, shape, settings.precision)).unwrap();
            let graph = alone(&op, shape);
            for why in [
                engine.forward(&graph, &batch).unwrap_err().to_string(),
                engine.explain(&graph, &Job::gradient(Score::Logit), &batch, &[0]).unwrap_err().to_string(),
            ] {
                assert!(why.contains("'op'"), "{op:?}: {why}");
            }
        }
        for exponent in [0.25, 0.5, 0.75, 0.1] {
            let both = values_and_slopes(&mut engine, &power(exponent), &[0.0, 1.0], 1, shape, settings.precision);
            assert_eq!((both[0][..2].to_vec(), both[1][0]), (vec![0.0, 1.0], 0.0), "{exponent}");
        }
    }
}

/// Decisions of PReLUs are counted and can be given.
#[test]
fn a_prelu_decides() {
    let graph = net_of(&Op::PRelu([0.375].into()));
    let x = Batch::of(pictures()).unwrap();
    let settings = Settings { device: DeviceChoice::Cpu, precision: Precision::F64, ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let decisions = engine.decisions(&graph, &x).unwrap();
    assert_eq!(decisions[0].nodes.len(), 2);
    let job = Job::gradient(Score::Logit);
    let plain = engine.explain(&graph, &job, &x, &[1, 1]).unwrap();
    let under = engine.explain_under(&graph, &job, &x, &[1, 1], &decisions).unwrap();
    assert_eq!(plain.maps[0].to_f64(), under.maps[0].to_f64());
    // The other picture's decisions give another map.
    let swapped = vec![decisions[1].clone(), decisions[0].clone()];
    let other = engine.explain_under(&graph, &job, &x, &[1, 1], &swapped).unwrap();
    assert_ne!(plain.maps[0].to_f64(), other.maps[0].to_f64());
}
