//! The adjoint that ends a sum over copies is taken once a picture where that is less work, and it is the same map.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::machines;
use verilume::device::Perturbation;
use verilume::engine::{At, Batch, Copies, DeviceChoice, Engine, Job, Profile, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::method::{Context, Spec};
use verilume::model::Model;
use verilume::program::{Score, Statistic, Times};
use verilume::random;
use verilume::tensor::{Precision, Shape, Tensor, Window};

const INPUT: Shape = Shape { c: 3, h: 19, w: 17 };
const TARGETS: [usize; 2] = [1, 4];

/// A stem of `kernel` × `kernel` and stride 2, and some layers behind it.
struct Stem {
    graph: Graph,
    node: NodeId,
    window: Window,
    output: Shape,
    /// `[k, c, kh, kw]`.
    weight: Vec<f32>,
}

fn numbers(len: usize, stream: u32, scale: f32) -> Vec<f32> {
    let mut numbers = vec![0f32; len];
    random::fill_normals(7, 0, stream, 0, &mut numbers);
    numbers.iter().map(|v| v * scale).collect()
}

fn stem(kernel: usize, scale: f32) -> Stem {
    let conv = |values: &[f32], [k, c, kernel]: [usize; 3], window| {
        let weight = Weight::owned([k, c, kernel, kernel], values).unwrap();
        Op::Conv(Conv { weight, bias: Some(vec![0.25; k].into()), window, groups: 1 })
    };
    let (weight, window) = (numbers(20 * 3 * kernel * kernel, 1, scale), Window::square(kernel, 2, kernel / 2));
    let mut b = GraphBuilder::new(INPUT);
    let node = b.push("stem", conv(&weight, [20, 3, kernel], window), &[b.input()]).unwrap();
    let x = b.push("relu1", Op::Relu, &[node]).unwrap();
    let x = b.push("pool", Op::MaxPool(Window::square(3, 2, 1)), &[x]).unwrap();
    let second = conv(&numbers(8 * 20 * 9, 2, 0.1), [8, 20, 3], Window::square(3, 1, 1));
    let x = b.push("second", second, &[x]).unwrap();
    let x = b.push("relu2", Op::Relu, &[x]).unwrap();
    let x = b.push("mean", Op::AdaptiveAvgPool { out: [1, 1] }, &[x]).unwrap();
    let x = b.push("flatten", Op::Flatten, &[x]).unwrap();
    let fc = Linear { weight: Weight::owned([5, 8, 1, 1], &numbers(40, 3, 1.0)).unwrap(), bias: None };
    let x = b.push("fc", Op::Linear(fc), &[x]).unwrap();
    let graph = b.finish(x).unwrap();
    let output = graph.node(node).shape;
    Stem { graph, node, window, output, weight }
}

impl Stem {
    /// The adjoint straight from its definition, or with all numbers positive.
    fn adjoint(&self, signal: &[f64], of: impl Fn(f64) -> f64) -> Vec<f64> {
        let (k, [stride, _], pad) = (self.window.kernel[0], self.window.stride, self.window.kernel[0] / 2);
        let mut map = vec![0.0; INPUT.len()];
        for (at, s) in signal.iter().enumerate() {
            let (o, y, x) = (at / self.output.plane(), at % self.output.plane() / self.output.w, at % self.output.w);
            for (tap, c) in (0..k * k).flat_map(|tap| (0..INPUT.c).map(move |c| (tap, c))) {
                let (row, column) = (y * stride + tap / k, x * stride + tap % k);
                if (pad..pad + INPUT.h).contains(&row) && (pad..pad + INPUT.w).contains(&column) {
                    let w = f64::from(self.weight[(o * INPUT.c + c) * k * k + tap]);
                    map[(c * INPUT.h + row - pad) * INPUT.w + column - pad] += of(w * s);
                }
            }
        }
        map
    }
}

/// Two pictures.
fn pictures() -> Batch {
    Batch::new(&Tensor::f32([2, INPUT.c, INPUT.h, INPUT.w], numbers(2 * INPUT.len(), 4, 1.0)).unwrap()).unwrap()
}

/// `n` other pictures in the place of each, with weights that are no powers of two.
fn others(n: usize) -> (Vec<Vec<Tensor>>, Vec<f64>) {
    let other = |i: usize| Tensor::f32(INPUT.dims(), numbers(INPUT.len(), 10 + i as u32, 1.0)).unwrap();
    let others = (0..2).map(|item| (0..n).map(|copy| other(item * n + copy)).collect()).collect();
    (others, (0..n).map(|copy| 0.3 - 0.11 * copy as f64).collect())
}

fn sum_of(n: usize) -> Job {
    let (others, weights) = others(n);
    Job { copies: Copies { perturbation: Perturbation::Others(others), weights }, ..Job::gradient(Score::Logit) }
}

/// Signals that went back through the stem, and those of them that did so in a program of their own.
fn through_the_stem(profile: &Profile) -> (usize, usize) {
    let mut through = (0, 0);
    for chunk in &profile.chunks {
        let steps: Vec<_> = chunk.plan.steps().iter().map(|s| (s.kind(), s.layer())).collect();
        assert_eq!(steps.len(), chunk.steps.len());
        if steps.contains(&("conv_adjoint", Some("stem"))) {
            through.0 += chunk.copies;
            if steps == [("load", None), ("conv_adjoint", Some("stem")), ("store", None)] {
                through.1 += chunk.copies;
            }
        }
    }
    through
}

/// The bytes that the message of a refused limit names as enough.
fn enough(settings: &Settings, stem: &Stem, job: &Job, x: &Batch) -> u64 {
    let mut engine = Engine::new(&Settings { memory: Some(1), ..settings.clone() }).unwrap();
    let message = engine.explain(&stem.graph, job, x, &TARGETS).unwrap_err().to_string();
    let (_, rest) = message.split_once("one copy needs ").unwrap();
    let mebibytes: f64 = rest.split_once(" MiB").unwrap().0.parse().unwrap();
    (mebibytes * f64::from(1 << 20)).ceil() as u64
}

fn numbers_of(map: &Tensor) -> Vec<f64> {
    map.to_f64().into_owned()
}

#[test]
fn the_sum_of_adjoints_is_the_adjoint_of_the_sum() {
    let (stem, x, n) = (stem(7, 0.1), pictures(), 6);
    let (others, weights) = others(n);
    for settings in machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let on = engine.describe();
        let u = if on.precision == Precision::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 };
        let (answer, profile) = engine.profile(|e| e.explain(&stem.graph, &sum_of(n), &x, &TARGETS)).unwrap();
        if on.device == "cpu" {
            assert_eq!(through_the_stem(&profile), (2, 2), "once a picture");
        }
        for (item, map) in answer.maps.iter().enumerate() {
            let x = Batch::of(others[item].clone()).unwrap();
            let targets = vec![TARGETS[item]; n];
            let at_stem = Job { at: At::Node(stem.node), ..Job::gradient(Score::Logit) };
            let signals = engine.explain(&stem.graph, &at_stem, &x, &targets).unwrap().maps;
            let alone = engine.explain(&stem.graph, &Job::gradient(Score::Logit), &x, &targets).unwrap().maps;
            let weighted = |tensors: &[Tensor]| {
                let mut sum = vec![0.0; tensors[0].len()];
                for (tensor, w) in tensors.iter().zip(&weights) {
                    sum.iter_mut().zip(numbers_of(tensor)).for_each(|(sum, v)| *sum += w * v);
                }
                sum
            };
            let sizes: Vec<Tensor> = signals
                .iter()
                .zip(&weights)
                .map(|(s, w)| {
                    let sizes = stem.adjoint(&numbers_of(s), f64::abs);
                    Tensor::f64(INPUT.dims(), sizes.iter().map(|v| v * w.signum()).collect()).unwrap()
                })
                .collect();
            let (want, by_copies, sizes) =
                (stem.adjoint(&weighted(&signals), |v| v), weighted(&alone), weighted(&sizes));
            // A sum of 20 · 7 · 7 products at most, of numbers rounded once before and once behind; sums of n in f64.
            let share = (980.0 + 4.0) * u + n as f64 * f64::EPSILON;
            assert!(want.iter().all(|v| *v != 0.0));
            for (i, got) in numbers_of(map).iter().enumerate() {
                let bound = share * sizes[i];
                let near = (got - want[i]).abs() <= bound && (got - by_copies[i]).abs() <= 2.0 * bound;
                assert!(near, "{on:?}: {got} for {} and {}, within {bound}", want[i], by_copies[i]);
            }
        }
    }
}

/// Against the gradients of copies made here, in double precision.
#[test]
fn smoothgrad_and_integrated_gradients_by_hand() {
    let (stem, x) = (stem(7, 0.1), pictures());
    let settings = Settings { precision: Precision::F64, threads: Some(1), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let preprocess = Model::random("resnet20", 0).unwrap().preprocess().clone();
    let load = |_: &std::path::Path| unreachable!();
    let context = Context { seed: 3, score: Score::Prob, preprocess: &preprocess, load: &load };
    let n = 5;
    for spec in ["smoothgrad:n=5,sigma=0.2", "ig:steps=5"] {
        let method = Spec::parse(spec).unwrap().build(&context).unwrap();
        let (maps, profile) = engine.profile(|e| method.explain(e, &stem.graph, &x, &TARGETS)).unwrap();
        assert_eq!(through_the_stem(&profile), (2, 2), "{spec}");
        for (item, map) in maps.iter().enumerate() {
            let picture = numbers_of(&x.items()[item]);
            let sigma = 0.2 * x.draws()[item].range;
            let copies = (0..n).map(|copy| {
                let mut z = vec![0f32; picture.len()];
                random::fill_normals(3, x.keys()[item], copy, 0, &mut z);
                let alpha = (f64::from(copy) + 0.5) / f64::from(n);
                let noisy = picture.iter().zip(&z).map(|(x, &z)| sigma.mul_add(f64::from(z), *x));
                let on_path = picture.iter().map(|x| alpha * x);
                let numbers = if spec.starts_with("ig") { on_path.collect() } else { noisy.collect() };
                Tensor::f64(INPUT.dims(), numbers).unwrap()
            });
            let copies = Batch::of(copies.collect()).unwrap();
            let job = Job::gradient(Score::Prob);
            let gradients = engine.explain(&stem.graph, &job, &copies, &vec![TARGETS[item]; n as usize]).unwrap().maps;
            let gradients: Vec<Vec<f64>> = gradients.iter().map(numbers_of).collect();
            let want: Vec<f64> = (0..picture.len())
                .map(|i| {
                    let mean = gradients.iter().map(|g| g[i]).sum::<f64>() / f64::from(n);
                    if spec.starts_with("ig") { mean * picture[i] } else { mean }
                })
                .collect();
            let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.0);
            for (got, want) in map.values.to_f64().iter().zip(&want) {
                let near = (got - want).abs() <= 1e-12 * largest;
                assert!(near, "{spec}: {got} for {want}");
            }
        }
    }
}

#[test]
fn the_same_bits_however_it_is_cut() {
    let (stem, x, n) = (stem(7, 0.1), pictures(), 9);
    for settings in machines() {
        let explain = |settings: &Settings, x: &Batch, job: &Job, targets: &[usize]| {
            let mut engine = Engine::new(settings).unwrap();
            let (answer, profile) = engine.profile(|e| e.explain(&stem.graph, job, x, targets)).unwrap();
            let most = profile.chunks.iter().map(|c| c.copies).max().unwrap();
            (answer.maps, most, engine.peak_bytes())
        };
        let job = Job { times: Times::Input, ..sum_of(n) };
        let (want, all, _) = explain(&settings, &x, &job, &TARGETS);
        let mut sizes = vec![all];
        for threads in [1, 2, 3] {
            let settings = Settings { threads: Some(threads), ..settings.clone() };
            let (maps, most, peak) = explain(&settings, &x, &job, &TARGETS);
            assert!(maps == want, "{threads} threads");
            sizes.push(most);
            let least = enough(&settings, &stem, &job, &x);
            assert!(least < peak);
            for limit in [least, least + (peak - least) / 3, least + (peak - least) * 2 / 3] {
                let limited = Settings { memory: Some(limit), ..settings.clone() };
                let (maps, most, peak) = explain(&limited, &x, &job, &TARGETS);
                assert!(maps == want, "{threads} threads, {limit} bytes");
                assert!(peak <= limit, "{peak} of {limit} bytes");
                sizes.push(most);
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        assert!(sizes.len() > 2, "chunks of {sizes:?} copies only");
        for item in 0..2 {
            let Perturbation::Others(others) = &job.copies.perturbation else { unreachable!() };
            let perturbation = Perturbation::Others(vec![others[item].clone()]);
            let copies = Copies { perturbation, ..job.copies.clone() };
            let alone = Job { copies, ..job.clone() };
            let x = Batch::of(vec![x.items()[item].clone()]).unwrap();
            assert!(explain(&settings, &x, &alone, &TARGETS[item..=item]).0[0] == want[item], "picture {item} alone");
        }
    }
}

/// Under a pass's own decisions the backward pass is the same.
#[test]
fn under_decisions_of_another_pass() {
    let (stem, x) = (stem(7, 0.1), pictures());
    let mut engine = Engine::new(&Settings { device: DeviceChoice::Cpu, ..Settings::default() }).unwrap();
    let copies = Copies { perturbation: Perturbation::None, weights: vec![0.25; 4] };
    let job = Job { copies, ..Job::gradient(Score::Logit) };
    let decisions = engine.decisions(&stem.graph, &x).unwrap();
    let want = engine.explain(&stem.graph, &job, &x, &TARGETS).unwrap().maps;
    let under = |e: &mut Engine| e.explain_under(&stem.graph, &job, &x, &TARGETS, &decisions);
    let (answer, profile) = engine.profile(under).unwrap();
    assert_eq!(through_the_stem(&profile), (2, 2));
    assert!(answer.maps == want);
    // Four quarters of one gradient are that gradient.
    let plain = engine.explain(&stem.graph, &Job::gradient(Score::Logit), &x, &TARGETS).unwrap().maps;
    assert!(plain == want);
}

/// Where it would cost more, or is not the same, nothing changes.
#[test]
fn what_is_left_alone() {
    let (large, small, x) = (stem(7, 0.1), stem(3, 0.1), pictures());
    let mut engine = Engine::new(&Settings { device: DeviceChoice::Cpu, ..Settings::default() }).unwrap();
    let mut through = |stem: &Stem, job: &Job| {
        let (_, profile) = engine.profile(|e| e.explain(&stem.graph, job, &x, &TARGETS)).unwrap();
        through_the_stem(&profile)
    };
    assert_eq!(through(&large, &sum_of(8)), (2, 2));
    assert_eq!(through(&small, &sum_of(8)), (16, 0), "27 multiply-adds a number");
    assert_eq!(through(&large, &sum_of(2)), (4, 0), "two copies");
    assert_eq!(through(&large, &Job::gradient(Score::Logit)), (2, 0));
    for statistic in [Statistic::SumOfSquares, Statistic::Variance, Statistic::Range] {
        assert_eq!(through(&large, &Job { statistic, ..sum_of(8) }), (16, 0), "{statistic:?}");
    }
}

/// A stem with such weights overflows on the way back only.
#[test]
fn an_overflow_behind_the_sum_is_named() {
    let stem = stem(7, 5e37);
    let x = Batch::new(&Tensor::f32([1, INPUT.c, INPUT.h, INPUT.w], vec![0.0; INPUT.len()]).unwrap()).unwrap();
    let mut engine = Engine::new(&Settings { device: DeviceChoice::Cpu, ..Settings::default() }).unwrap();
    let copies = Copies { perturbation: Perturbation::None, weights: vec![1e3; 4] };
    let job = Job { copies, ..Job::gradient(Score::Logit) };
    let error = engine.explain(&stem.graph, &job, &x, &TARGETS[..1]).unwrap_err().to_string();
    assert!(error.ends_with("it began at layer 'stem' (conv_adjoint)"), "{error}");
}
