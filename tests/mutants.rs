//! Mistakes planted in the kernels' text, one at a time: each must be noticed, by the emulated device or by the numbers.
//! The text as it is passes the very same checks.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use reference::cases::{Case, Geometry, Numbers};
use reference::{Dense, ReluRule, backward, backward_magnitude, forward, forward_magnitude, op_terms};
use tempfile::TempDir;
use verilume::Result;
use verilume::device::cpu::{Convolution, Kernels};
use verilume::device::{Boxes, Perturbation, Rectangle};
use verilume::engine::{Batch, Copies, DeviceChoice, Engine, Job, Pullback, Settings, Task};
use verilume::graph::{Graph, GraphBuilder, NodeId, Op, Smooth, Standardise};
use verilume::program::{Score, Statistic};
use verilume::rule::Composite;
use verilume::tensor::{Interpolation, Padding, Resize, ResizeTo, Shape, Tensor, Window};

/// One mistake.
struct Mutant {
    /// What it breaks.
    breaks: &'static str,
    file: &'static str,
    /// What is replaced; it occurs `times`.
    text: &'static str,
    with: &'static str,
    times: usize,
    /// What notices it.
    check: Check,
}

type Check = fn(&Truth, &mut Engine) -> Outcome;
/// What is wrong.
type Outcome = Result<(), String>;

const fn mutant(
    breaks: &'static str,
    file: &'static str,
    text: &'static str,
    with: &'static str,
    check: Check,
) -> Mutant {
    Mutant { breaks, file, text, with, times: 1, check }
}

const MUTANTS: &[Mutant] = &[
    mutant(
        "a stage is read before all threads' copies have landed",
        "conv.cu",
        "        sync();\n        if (d + STAGES - 1 < depths) {",
        "        if (d + STAGES - 1 < depths) {",
        net,
    ),
    mutant(
        "copies are waited for one stage too late",
        "conv.cu",
        "copies_wait<STAGES - 2>();",
        "copies_wait<STAGES - 1>();",
        net,
    ),
    mutant("copies are not waited for", "conv.cu", "copies_wait<STAGES - 2>();", "", net),
    mutant(
        "the stage that is read is filled",
        "conv.cu",
        "(d + STAGES - 1) % STAGES * STAGE",
        "(d + STAGES) % STAGES * STAGE",
        net,
    ),
    mutant("another stage is read", "conv.cu", "stages + d % STAGES * STAGE", "stages + (d + 1) % STAGES * STAGE", net),
    mutant(
        "rows lie closer than they were put",
        "conv.cu",
        "rows[(i * 16 + g + (e & 1) * 8) * PITCH",
        "rows[(i * 16 + g + (e & 1) * 8) * DEPTH",
        net,
    ),
    mutant(
        "copies are read at the distance of the results",
        "conv.cu",
        "(i64)copy * a.x_stride",
        "(i64)copy * a.out_stride",
        net,
    ),
    mutant(
        "copies overlap in the result",
        "conv.cu",
        "a.out[(i64)copy * a.out_stride",
        "a.out[(i64)copy * (a.out_stride - 1)",
        net,
    ),
    mutant("one channel too many is written", "conv.cu", "k >= a.k) continue", "k > a.k) continue", net),
    mutant(
        "bits of channels lie elsewhere in their word",
        "conv.cu",
        "<< (j * 8 + 2 * t + h)",
        "<< (j * 8 + t + h)",
        net,
    ),
    mutant(
        "numbers are gated by another word",
        "conv.cu",
        "pixel * words + channel / 32];",
        "pixel * words + channel / 64];",
        net,
    ),
    mutant(
        "rows and columns of taps are exchanged",
        "conv.cu",
        "(a.first[0] + walk.y * a.every[0]) * a.kernel[1] + a.first[1] + walk.x * a.every[1]",
        "(a.first[0] + walk.x * a.every[0]) * a.kernel[1] + a.first[1] + walk.y * a.every[1]",
        net,
    ),
    mutant(
        "the walk over rows has the wrong sign",
        "conv.cu",
        "rows[i].y + walk.y * a.step[0]",
        "rows[i].y - walk.y * a.step[0]",
        net,
    ),
    mutant(
        "sums of earlier depths are lost",
        "conv.cu",
        "totals[i][j][e] += sums[i][j][e];",
        "totals[i][j][e] = sums[i][j][e];",
        net,
    ),
    mutant("sums of earlier depths count again", "conv.cu", "sums[i][j][e] = 0.0f;", "", net),
    mutant(
        "the smaller parts of what is read are left out",
        "conv.cu",
        "mma_tf32(sums[i][j], al[i], b[j]);",
        "",
        products,
    ),
    mutant("the smaller parts of weights are left out", "conv.cu", "mma_tf32(sums[i][j], a[i], bl[j]);", "", products),
    mutant(
        "padding is not zero",
        "conv.cu",
        "const bool there = inside && c < a.c;",
        "const bool there = c < a.c;",
        net,
    ),
    mutant("a ReLU is active at zero", "conv.cu", "v > e.inside[0]", "v >= e.inside[0]", products),
    mutant(
        "the tile is filled before it is cleared",
        "first.cu",
        "tile[i] = 0.0f;\n        sync();",
        "tile[i] = 0.0f;",
        draws,
    ),
    mutant(
        "the tile is read before it is made",
        "first.cu",
        "    sync();\n\n    const int row = threadIdx.x >> 4",
        "    const int row = threadIdx.x >> 4",
        net,
    ),
    Mutant {
        times: 2,
        ..mutant("Philox multiplies by another constant", "first.cu", "0xD2511F53u", "0xD2511F55u", draws)
    },
    mutant("the last block of a row is not drawn", "first.cu", "(end - start + 6) / 4", "(end - start + 3) / 4", draws),
    mutant("lanes of other words are joined", "first.cu", "shuffle_xor(bits, 4)", "shuffle_xor(bits, 8)", net),
    mutant(
        "the mean moves too little (Welford)",
        "last.cu",
        "delta / copy.count",
        "delta / (copy.count + 1)",
        statistics,
    ),
    mutant("half of the lanes do not count", "last.cu", "int mask = 16; mask", "int mask = 8; mask", net),
    mutant("positions between strides are read", "last.cu", "row < 0 || row % a.stride[0] ||", "row < 0 ||", net),
    mutant("the last of equals wins", "pool.cu", "!(v <= best)", "!(v < best)", pools),
    mutant(
        "the first window over a pixel is left out",
        "pool.cu",
        "reach + stride - 1",
        "reach + 2 * stride - 1",
        pools,
    ),
    mutant("means divide by one element more", "pool.cu", "at < end &&", "at <= end &&", pools),
    mutant(
        "sums of a block are read before they are there",
        "reduce.cu",
        "if (threadIdx.x < half) slots[threadIdx.x] += slots[threadIdx.x + half];\n        sync();\n    }\n    const T",
        "if (threadIdx.x < half) slots[threadIdx.x] += slots[threadIdx.x + half];\n    }\n    sync();\n    const T",
        reductions,
    ),
    mutant(
        "rows of threads are summed before they are there",
        "reduce.cu",
        "slots[threadIdx.x] = sum;\n    sync();",
        "slots[threadIdx.x] = sum;",
        reductions,
    ),
    mutant(
        "the quantile is the number before",
        "reduce.cu",
        "before + bins[bin] <= (u32)rank",
        "before + bins[bin] < (u32)rank",
        reductions,
    ),
    mutant(
        "neighbouring lanes do not count",
        "reduce.cu",
        "int mask = 16; mask > 0",
        "int mask = 16; mask > 1",
        reductions,
    ),
    mutant(
        "an operand that is repeated has another's groups",
        "pointwise.cu",
        "const int group = a.group[k];",
        "const int group = a.group[0];",
        repeats,
    ),
    mutant(
        "one of the positions is read by all",
        "pointwise.cu",
        "i / a.channels * (a.channels / group)",
        "0 * (a.channels / group)",
        repeats,
    ),
    mutant(
        "the second factor is left out of a sum",
        "reduce.cu",
        "a.y ? fmaf(x[at], y[at], sum) : sum + x[at]",
        "sum + x[at]",
        repeats,
    ),
    mutant(
        "a sum ends with the first position",
        "reduce.cu",
        "i < a.group * a.plane; i += 128",
        "i < a.group; i += 128",
        repeats,
    ),
    mutant(
        "a softmax reads its neighbours' group",
        "reduce.cu",
        "i % a.groups * a.group;\n    const float* x = a.x + (i64)blockIdx.y * a.x_stride + at;",
        "i % a.groups;\n    const float* x = a.x + (i64)blockIdx.y * a.x_stride + at;",
        softmaxes,
    ),
    mutant("weights of columns are left out", "pool.cu", "fmaf(columns[2 * k + 1], x[", "fmaf(1.0f, x[", sizes),
    mutant(
        "channels are shuffled the other way",
        "move.cu",
        "c % a.groups * (a.from[0] / a.groups) + c / a.groups",
        "c",
        moves,
    ),
    mutant("what lies between strides is read", "move.cu", "at >= 0 && at % every == 0 &&", "at >= 0 &&", moves),
    mutant(
        "padding reads what is not there",
        "move.cu",
        "c >= 0 && row >= 0 && column >= 0",
        "c >= 0 && row >= 0",
        moves,
    ),
    mutant(
        "deviations are not centred",
        "reduce.cu",
        "const float d = x[of_group(a, i)] - mean;",
        "const float d = x[of_group(a, i)];",
        norms,
    ),
    mutant("eps is left out", "reduce.cu", "sqrt(variance + a.eps)", "sqrt(variance)", norms),
    mutant("the deviation is a constant on the way back", "reduce.cu", "d = d - y[at] * along;", ";", norms),
    mutant(
        "groups lie beside their place",
        "reduce.cu",
        "blockIdx.x % a.groups * a.group + i % a.group",
        "blockIdx.x % a.groups + i % a.group",
        norms,
    ),
    mutant(
        "the rest of ln 2 is left out",
        "functions.cuh",
        "(n * Elementary<T>::ln_2_rest - rest)",
        "(T(0) - rest)",
        activations,
    ),
    mutant("a square's rounding counts for nothing", "functions.cuh", "lost * T(-0.5)", "T(0)", activations),
    mutant(
        "what 1 + x lost counts for nothing",
        "functions.cuh",
        "log_of(sum, lost / sum)",
        "log_of(sum, T(0))",
        activations,
    ),
    mutant("the tail is on the other side", "functions.cuh", "x < T(0) ? tail", "x > T(0) ? tail", activations),
    mutant(
        "a leaky ReLU passes zero",
        "smooth.cu",
        "SMOOTH(leaky_relu_slope, x > 0",
        "SMOOTH(leaky_relu_slope, x >= 0",
        activations,
    ),
    mutant("a corner belongs to the inside", "smooth.cu", "return x < 3.0f ?", "return x <= 3.0f ?", activations),
    mutant("parameters are exchanged", "smooth.cu", "soft(x, p, q, r)", "soft(x, q, p, r)", activations),
    mutant("a large number's cube overflows", "smooth.cu", "x = clamped(x, -40.0f, 40.0f);", "", activations),
    mutant(
        "the rest of an exponent is left out",
        "functions.cuh",
        "(n_of_power - n) + low * k",
        "(n_of_power - n)",
        activations,
    ),
    mutant(
        "an odd power loses its sign",
        "functions.cuh",
        "== exponent ? y : T(0) - y",
        "== exponent ? y : y",
        activations,
    ),
    mutant(
        "a root's slope at zero is infinite",
        "smooth.cu",
        "p < 1.0 && x == 0.0f",
        "p < 0.0 && x == 0.0f",
        activations,
    ),
    mutant("a magnitude has a slope at zero", "smooth.cu", "x < 0.0f ? -1.0f", "x <= 0.0f ? -1.0f", activations),
    mutant("a group reads another's channels", "direct.cu", "channel / a.k * a.c", "channel / a.c * a.c", groups),
    mutant(
        "a word of bits lands beside its place",
        "direct.cu",
        "pixel * words + channel / 32] = bits;",
        "pixel * words + channel / 32 + 1] = bits;",
        net,
    ),
];

/// Seeds of the order in which threads run.
const SEEDS: [u64; 3] = [0, 1, 2];

/// Set for the process in which kernels are compiled: libraries of mutants must not stay where others look for them.
const INSIDE: &str = "VERILUME_MUTANTS_INSIDE";

#[needs::cxx]
#[test]
fn every_mutant_is_noticed() {
    if std::env::var_os(INSIDE).is_none() {
        let cache = TempDir::new().unwrap();
        let name = "every_mutant_is_noticed";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("VERILUME_CACHE_DIR", cache.path()).env(INSIDE, "1");
        assert!(command.status().unwrap().success());
        return;
    }
    let truth = Truth::new();
    let sound = TempDir::new().unwrap();
    write_kernels(sound.path(), None);
    let all: [(&str, Check); 13] = [
        ("net", net),
        ("products", products),
        ("groups", groups),
        ("pools", pools),
        ("draws", draws),
        ("statistics", statistics),
        ("reductions", reductions),
        ("repeats", repeats),
        ("moves", moves),
        ("norms", norms),
        ("sizes", sizes),
        ("activations", activations),
        ("softmaxes", softmaxes),
    ];
    let failures = Mutex::new(Vec::new());
    each_on_two_threads(all.len(), |i| {
        if let Err(what) = noticed(&truth, sound.path(), all[i].1) {
            failures.lock().unwrap().push(format!("the kernels as they are fail {}: {what}", all[i].0));
        }
    });
    assert!(failures.lock().unwrap().is_empty(), "{failures:#?}");
    each_on_two_threads(MUTANTS.len(), |i| {
        let mutant = &MUTANTS[i];
        let folder = TempDir::new().unwrap();
        write_kernels(folder.path(), Some(mutant));
        match noticed(&truth, folder.path(), mutant.check) {
            // One that does not compile shows nothing.
            Err(what) if !what.contains("does not compile") => {
                println!("{}: {}: {}", mutant.file, mutant.breaks, what.lines().next().unwrap_or_default());
            }
            other => failures.lock().unwrap().push(format!("{}: {}: {other:?}", mutant.file, mutant.breaks)),
        }
    });
    assert!(failures.lock().unwrap().is_empty(), "not noticed: {failures:#?}");
    println!("{} mutants", MUTANTS.len());
}

fn each_on_two_threads(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    work(i);
                }
            });
        }
    });
}

/// All kernels into `folder`, one of them changed.
fn write_kernels(folder: &Path, mutant: Option<&Mutant>) {
    let mut found = false;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        if let Some(m) = mutant.filter(|m| *name == *m.file) {
            assert_eq!(text.matches(m.text).count(), m.times, "{}: {}: {}", m.file, m.breaks, m.text);
            text = text.replace(m.text, m.with);
            found = true;
        }
        std::fs::write(folder.join(name), text).unwrap();
    }
    assert_eq!(found, mutant.is_some());
}

/// What the check says of the kernels in `folder`, under some seed.
fn noticed(truth: &Truth, folder: &Path, check: Check) -> Outcome {
    SEEDS.iter().try_for_each(|&seed| {
        let settings = Settings {
            device: DeviceChoice::Emulated(seed),
            kernel_dir: Some(folder.to_path_buf()),
            convolution: Convolution::Exact,
            threads: Some(1),
            ..Settings::default()
        };
        check(truth, &mut Engine::new(&settings).map_err(said)?)
    })
}

fn said(e: verilume::Error) -> String {
    e.to_string()
}

/// What the checks compare with, computed once.
struct Truth {
    net: Arc<Graph>,
    x: Dense,
    /// Outputs of every node.
    outputs: Vec<Dense>,
    seed: Dense,
    /// The seed at every node.
    back: Vec<Dense>,
    copies: Copies,
    /// Variance of the gradient over the copies.
    variance: Vec<Tensor>,
    noise: Copies,
    /// The noisy copies and what the first layer makes of them.
    drawn: Vec<Vec<Tensor>>,
    /// Values and slopes of every function.
    activations: Vec<[Tensor; 2]>,
}

impl Truth {
    fn new() -> Self {
        let net = small_net();
        let x = Numbers::Integers.maps(1, 2, net.input_shape());
        let outputs = forward(&net, &x);
        let seed = Numbers::Integers.maps(2, 2, outputs[net.output().index()].shape);
        let back = backward(&net, &outputs, net.output(), seed.clone(), ReluRule::Vjp);
        let settings = Settings { device: DeviceChoice::Cpu, kernels: Kernels::Portable, ..Settings::default() };
        let mut cpu = Engine::new(&settings).unwrap();
        let boxes = (0..5).map(|i| Rectangle { corner: [2 * i, i], size: [5, 4] }).collect();
        let fills = tensors(&Numbers::Integers.maps(3, 2, net.input_shape()));
        let copies = Copies { perturbation: Perturbation::Boxes(Boxes { boxes, fills }), weights: vec![0.2; 5] };
        let variance = explain(&mut cpu, &net, &x, &copies).unwrap();
        let images = vec![11, 0x1_0000_0007];
        let noise = Perturbation::Noise { seed: 5 << 33 | 9, first: 3, images, sigmas: vec![0.5, 2.0] };
        let noise = Copies { perturbation: noise, weights: vec![1.0; 2] };
        let drawn = draw(&mut cpu, &noise).unwrap();
        let activations = Smooth::examples().into_iter().map(|f| activation(&mut cpu, f).unwrap()).collect();
        Self { net, x, outputs, seed, back, copies, variance, noise, drawn, activations }
    }
}

fn tensors(d: &Dense) -> Vec<Tensor> {
    let one = |n| Tensor::f32(d.shape.dims(), d.item(n).data.iter().map(|&v| v as f32).collect()).unwrap();
    (0..d.n()).map(one).collect()
}

fn batch(d: &Dense) -> Batch {
    Batch::of(tensors(d)).unwrap()
}

/// Every family of convolutions, on integers exact: few channels, tensor cores with more than one word of bits and more
/// than eight depths, groups.
fn small_net() -> Arc<Graph> {
    let mut b = GraphBuilder::new(Shape::new(3, 13, 11));
    let conv = |c, k, stride: usize, groups| {
        Geometry { c, k, stride: [stride; 2], groups, ..Geometry::default() }.conv(Numbers::Integers)
    };
    let mut at = b.input();
    at = b.push("stem", conv(3, 40, 2, 1), &[at]).unwrap();
    at = b.push("stem.relu", Op::Relu, &[at]).unwrap();
    at = b.push("a", conv(40, 72, 1, 1), &[at]).unwrap();
    at = b.push("a.relu", Op::Relu, &[at]).unwrap();
    let pool = b.push("pool", Op::MaxPool(Window::square(3, 2, 1)), &[at]).unwrap();
    at = b.push("b", conv(72, 72, 1, 36), &[pool]).unwrap();
    at = b.push("b.relu", Op::Relu, &[at]).unwrap();
    at = b.push("sum", Op::Add, &[at, pool]).unwrap();
    at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let weight = reference::weight_f64([5, 72 * 12, 1, 1], &Numbers::Integers.fill(4, 5 * 72 * 12, 2));
    let linear = verilume::graph::Linear { weight, bias: Some(Numbers::Integers.fill(5, 5, 9).into()) };
    let fc = b.push("fc", Op::Linear(linear), &[at]).unwrap();
    Arc::new(b.finish(fc).unwrap())
}

/// Fails where a number is farther from the truth than `limit` says; a NaN always is.
fn compare(what: &str, got: &Dense, want: &Dense, limit: impl Fn(usize) -> f64) -> Outcome {
    want.assert_informative(what);
    if (got.shape, got.n()) != (want.shape, want.n()) {
        return Err(format!("{what}: {} x {} for {} x {}", got.n(), got.shape, want.n(), want.shape));
    }
    for (i, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
        let within = (g - w).abs() <= limit(i);
        if !within {
            return Err(format!("{what}: number {i}: {g:e} for {w:e}, limit {:e}", limit(i)));
        }
    }
    Ok(())
}

fn pull(engine: &mut Engine, graph: &Graph, x: &Dense, [from, to]: [NodeId; 2], seed: &Dense) -> Result<Dense, String> {
    let [c, h, w] = seed.shape.dims();
    let signal = Tensor::f32([seed.n(), c, h, w], seed.data.iter().map(|&v| v as f32).collect()).unwrap();
    let way = Pullback { from, signal: &signal, rules: &Composite::gradient(), to };
    engine.pullback(graph, &batch(x), &way).map(|t| Dense::from_tensor(&t)).map_err(said)
}

/// Every node of the net and every signal in it, exactly.
fn net(truth: &Truth, engine: &mut Engine) -> Outcome {
    let ids: Vec<NodeId> = truth.net.ids().collect();
    let outputs = engine.node_outputs(&truth.net, &batch(&truth.x), &ids).map_err(said)?;
    for (id, got) in ids.iter().zip(&outputs) {
        compare(&truth.net.node(*id).name, &Dense::from_tensor(got), &truth.outputs[id.index()], |_| 0.0)?;
    }
    for &to in ids.iter().filter(|&&id| id < truth.net.output()) {
        let got = pull(engine, &truth.net, &truth.x, [truth.net.output(), to], &truth.seed)?;
        compare(&format!("signal at {}", truth.net.node(to).name), &got, &truth.back[to.index()], |_| 0.0)?;
    }
    Ok(())
}

/// A case forward and back, within the rounding that its sums and products allow.
fn check_case(engine: &mut Engine, case: &Case, numbers: Numbers, per_product: f64) -> Outcome {
    let x = numbers.maps(6, case.n, case.graph.input_shape());
    let outputs = forward(&case.graph, &x);
    let out = &outputs[case.node.index()];
    let inputs: Vec<&Dense> = case.graph.node(case.node).inputs.iter().map(|i| &outputs[i.index()]).collect();
    let terms = (op_terms(case.op(), &inputs, out) + case.graph.nodes().len() + 2) as f64;
    let exact = numbers == Numbers::Integers && !reference::op_divides(case.op());
    let unit = if exact { 0.0 } else { terms * (2f64.powi(-24) + f64::EPSILON) + per_product };
    let got = engine.node_outputs(&case.graph, &batch(&x), &[case.node]).map_err(said)?;
    let magnitude = forward_magnitude(case.op(), &inputs);
    compare(&case.name, &Dense::from_tensor(&got[0]), out, |i| unit * magnitude.data[i])?;
    // From behind the ReLU, if there is one.
    let from = case.graph.output();
    let seed = numbers.maps(7, case.n, outputs[from.index()].shape);
    let want = backward(&case.graph, &outputs, from, seed.clone(), ReluRule::Vjp).swap_remove(0);
    let magnitude = backward_magnitude(&case.graph, &outputs, from, &seed, ReluRule::Vjp).swap_remove(0);
    let got = pull(engine, &case.graph, &x, [from, case.graph.input()], &seed)?;
    compare(&format!("{}, back", case.name), &got, &want, |i| unit * magnitude.data[i])
}

/// Products of reals in two parts, and a ReLU whose inputs are exactly zero here and there.
fn products(_: &Truth, engine: &mut Engine) -> Outcome {
    let pointwise = Geometry { c: 24, k: 33, kernel: [1; 2], padding: Padding::all(0), ..Geometry::default() };
    let case = Case::of("pointwise", 2, Shape::new(24, 5, 7), pointwise.conv(Numbers::Reals));
    // Of two parts of 11 bits each the last bits and the product of the smaller ones are lost.
    check_case(engine, &case, Numbers::Reals, 3.0 * 2f64.powi(-22))?;
    let mut b = GraphBuilder::new(Shape::new(24, 5, 7));
    let conv = b.push("conv", pointwise.conv(Numbers::Integers), &[b.input()]).unwrap();
    let relu = b.push("relu", Op::Relu, &[conv]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[relu]).unwrap();
    let graph = Arc::new(b.finish(flat).unwrap());
    let x = Numbers::Integers.maps(6, 2, graph.input_shape());
    assert!(forward(&graph, &x)[conv.index()].data.contains(&0.0), "no ReLU reads a zero");
    check_case(engine, &Case { name: "before a ReLU".into(), graph, node: conv, n: 2 }, Numbers::Integers, 0.0)
}

fn groups(_: &Truth, engine: &mut Engine) -> Outcome {
    let geometry = Geometry { c: 9, k: 15, groups: 3, stride: [2, 1], ..Geometry::default() };
    let case = Case::of("groups", 3, Shape::new(9, 5, 7), geometry.conv(Numbers::Integers));
    check_case(engine, &case, Numbers::Integers, 0.0)
}

/// Products and sums of operands of which one is repeated.
fn repeats(_: &Truth, engine: &mut Engine) -> Outcome {
    for op in [Op::Mul, Op::Add] {
        let case = Case::wired("channels", 2, Shape::new(5, 18, 19), op.clone(), |b| {
            vec![b.input(), b.push("most", Op::GlobalMaxPool, &[b.input()]).unwrap()]
        });
        check_case(engine, &case, Numbers::Integers, 0.0)?;
        let case = Case::wired("positions", 2, Shape::new(37, 3, 5), op, |b| {
            vec![b.push("first", Op::Slice { first: 1, channels: 1 }, &[b.input()]).unwrap(), b.input()]
        });
        check_case(engine, &case, Numbers::Integers, 0.0)?;
    }
    Ok(())
}

/// Numbers at other places.
fn moves(_: &Truth, engine: &mut Engine) -> Outcome {
    for op in [
        Op::Shuffle { groups: 2 },
        Op::Slice { first: 1, channels: 3 },
        Op::Pad { rows: [1, -2], columns: [-1, 2] },
        Op::Subsample { stride: [2, 3] },
    ] {
        let case = Case::of(format!("{op:?}"), 2, Shape::new(6, 7, 5), op);
        check_case(engine, &case, Numbers::Integers, 0.0)?;
    }
    Ok(())
}

/// Maps in other sizes.
fn sizes(_: &Truth, engine: &mut Engine) -> Outcome {
    for interpolation in Interpolation::ALL {
        let to = if interpolation.reaches(7, 4) { [9, 4] } else { [9, 8] };
        let op = Op::Resize(Resize { to: ResizeTo::Size(to), interpolation });
        let case = Case::of(format!("{op:?}"), 2, Shape::new(5, 6, 7), op);
        check_case(engine, &case, Numbers::Reals, 0.0)?;
    }
    Ok(())
}

/// Softmax in groups.
fn softmaxes(_: &Truth, engine: &mut Engine) -> Outcome {
    let case = Case::of("softmax", 2, Shape::new(6, 3, 5), Op::Softmax { groups: 2 });
    check_case(engine, &case, Numbers::Reals, 0.0)
}

/// Layer norm and group norm.
fn norms(_: &Truth, engine: &mut Engine) -> Outcome {
    for (groups, across_positions) in [(1, false), (3, true)] {
        let op = Op::Standardise(Standardise { groups, across_positions, eps: 0.25 });
        let case = Case::of(format!("{op:?}"), 2, Shape::new(6, 13, 11), op);
        check_case(engine, &case, Numbers::Reals, 0.0)?;
    }
    Ok(())
}

fn pools(_: &Truth, engine: &mut Engine) -> Outcome {
    let window = Window::square(3, 2, 1);
    let ceil = Window { ceil: true, ..Window::square(3, 2, 1) };
    for op in [
        Op::MaxPool(window),
        Op::MaxPool(Window::square(17, 3, 8)),
        Op::AvgPool { window, count_padding: false },
        Op::AvgPool { window: ceil, count_padding: true },
        Op::AdaptiveAvgPool { out: [2, 3] },
    ] {
        let case = Case::of(format!("{op:?}"), 2, Shape::new(5, 18, 19), op);
        check_case(engine, &case, Numbers::Integers, 0.0)?;
    }
    Ok(())
}

fn explain(engine: &mut Engine, net: &Graph, x: &Dense, copies: &Copies) -> Result<Vec<Tensor>, String> {
    let job = Job { copies: copies.clone(), statistic: Statistic::Variance, ..Job::gradient(Score::Logit) };
    engine.explain(net, &job, &batch(x), &[1, 3]).map(|a| a.maps).map_err(said)
}

/// The variance of a gradient that is exact on every copy.
fn statistics(truth: &Truth, engine: &mut Engine) -> Outcome {
    let maps = explain(engine, &truth.net, &truth.x, &truth.copies)?;
    let dense = |maps: &[Tensor]| Dense::from_tensor(&Tensor::stack(maps).unwrap());
    let want = dense(&truth.variance);
    let largest = want.data.iter().fold(0.0f64, |m, v| m.max(*v));
    compare("variance", &dense(&maps), &want, |_| 1e-6 * largest)
}

/// Noisy copies, stored and read by a first layer that passes them on.
fn draw(engine: &mut Engine, noise: &Copies) -> Result<Vec<Vec<Tensor>>, String> {
    let shape = Shape::new(3, 9, 7);
    let mut b = GraphBuilder::new(shape);
    let mut weight = vec![0.0; 3 * 27];
    (0..3).for_each(|c| weight[c * 27 + c * 9 + 4] = 1.0);
    let weight = reference::weight_f64([3, 3, 3, 3], &weight);
    let conv = verilume::graph::Conv { weight, bias: None, window: Window::square(3, 1, 1), groups: 1 };
    let same = b.push("same", Op::Conv(conv), &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[same]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = batch(&Numbers::Reals.maps(8, 2, shape));
    let mut all = Vec::new();
    for node in [graph.input(), same] {
        let task = Task { x: &x, targets: &[0, 0], copies: noise, loads: &[] };
        let outcome = engine.evaluate_once(&graph, &task, |b| {
            let pixels = b.output(node);
            b.store(pixels, 0)
        });
        all.extend(outcome.map_err(said)?.stores);
    }
    Ok(all)
}

/// The same bits as on the CPU.
fn draws(truth: &Truth, engine: &mut Engine) -> Outcome {
    for (what, (got, want)) in ["stored", "read"].iter().zip(draw(engine, &truth.noise)?.iter().zip(&truth.drawn)) {
        if got != want {
            return Err(format!("noisy copies, {what}: other bits"));
        }
    }
    Ok(())
}

/// Values and slopes of a function at corners, small and large numbers.
fn activation(engine: &mut Engine, f: Smooth) -> Result<[Tensor; 2], String> {
    let numbers = (-96..96).map(|i| i as f32 / 16.0).chain((0..64).map(|i| (i as f32 - 31.5) * 2f32.powi(i % 32)));
    // Some whose squares are rounded.
    let numbers = numbers.chain((-64..64).map(|i| i as f32 * 0.173));
    let defined = |x: f32| [f.value(x.into()), f.slope(x.into())].iter().all(|v| v.abs() < 1e38);
    let numbers = numbers.chain([1e-30, -1e-30, 3e30, -3e30, 1e-12, -1e-12, 1e-5, -3e4]);
    let numbers: Vec<f32> = numbers.map(|x| if defined(x) { x } else { 1.0 }).collect();
    let shape = Shape::new(1, 4, numbers.len() / 4);
    let mut b = GraphBuilder::new(shape);
    let node = b.push("op", Op::Smooth(f), &[b.input()]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[node]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = Batch::of(vec![Tensor::f32(shape.dims(), numbers).unwrap()]).unwrap();
    let value = engine.node_outputs(&graph, &x, &[node]).map_err(said)?.swap_remove(0);
    let [c, h, w] = shape.dims();
    let signal = Tensor::f32([1, c, h, w], vec![1.0; shape.len()]).unwrap();
    let way = Pullback { from: node, signal: &signal, rules: &Composite::gradient(), to: graph.input() };
    Ok([value, engine.pullback(&graph, &x, &way).map_err(said)?])
}

/// The same bits as on the CPU.
fn activations(truth: &Truth, engine: &mut Engine) -> Outcome {
    for (f, want) in Smooth::examples().into_iter().zip(&truth.activations) {
        let got = activation(engine, f)?;
        for (what, got, want) in [("value", &got[0], &want[0]), ("slope", &got[1], &want[1])] {
            let pairs = got.to_f64().into_owned().into_iter().zip(want.to_f64().into_owned());
            if let Some((got, want)) = pairs.into_iter().find(|(g, w)| g != w) {
                return Err(format!("{what} of {f:?}: {got:e} for {want:e}"));
            }
        }
    }
    Ok(())
}

/// Means, sums over channels, a quantile and a score of one feature map.
fn reductions(_: &Truth, engine: &mut Engine) -> Outcome {
    let shape = Shape::new(40, 5, 7);
    let mut b = GraphBuilder::new(shape);
    let flat = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
    let graph = b.finish(flat).unwrap();
    let x = Numbers::Reals.maps(9, 1, shape);
    let task = Task { x: &batch(&x), targets: &[17], copies: &Copies::one(), loads: &[] };
    let outcome = engine
        .evaluate_once(&graph, &task, |b| {
            let pixels = b.output(graph.input());
            let means = b.spatial_mean(pixels)?;
            b.store(means, 0)?;
            let sum = b.weighted_channel_sum(means, pixels)?;
            b.store(sum, 1)?;
            let above = b.above_quantile(pixels, 0.3)?;
            let above = b.gate(pixels, above)?;
            b.store(above, 2)?;
            b.score(Score::LogProb);
            Ok(())
        })
        .map_err(said)?;
    let stored = |slot: usize| Dense::from_tensor(&Tensor::stack(&outcome.stores[slot]).unwrap());
    let plane = shape.plane();
    let unit = 2f64.powi(-24);
    let mean = |channel: &[f64]| channel.iter().sum::<f64>() / plane as f64;
    let size = |channel: &[f64]| channel.iter().map(|v| v.abs()).sum::<f64>() / plane as f64;
    let channels: Vec<&[f64]> = x.data.chunks(plane).collect();
    let means = Dense::new(Shape::vector(40), channels.iter().map(|c| mean(c)).collect());
    let limits: Vec<f64> = channels.iter().map(|c| (plane + 2) as f64 * unit * size(c)).collect();
    compare("means", &stored(0), &means, |i| limits[i])?;
    let means = stored(0).data;
    let sum = |f: &dyn Fn(f64) -> f64| {
        Dense::from_fn(1, Shape::new(1, 5, 7), |_, _, y, col| (0..40).map(|c| f(means[c] * x.at(0, c, y, col))).sum())
    };
    let magnitude = sum(&f64::abs);
    compare("a sum over channels", &stored(1), &sum(&|v| v), |i| 42.0 * unit * magnitude.data[i])?;
    let mut sorted = x.data.clone();
    sorted.sort_by(f64::total_cmp);
    // Of 1400 numbers the one with 419 before it lies below the quantile.
    let above = x.map(|v| if v > sorted[419] { v } else { 0.0 });
    compare("what lies above a quantile", &stored(2), &above, |_| 0.0)?;
    let total: f64 = x.data.iter().map(|v| v.exp()).sum();
    let score = x.data[17] - total.ln();
    let within = (outcome.scores[0][0] - score).abs() <= 1e-12;
    if within { Ok(()) } else { Err(format!("score {} for {score}", outcome.scores[0][0])) }
}
