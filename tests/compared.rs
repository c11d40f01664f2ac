//! Methods that compare a picture with a reference: against loops written straight from the definitions, and their promises
//! on every net.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::path::Path;
use std::sync::Arc;

use nets::{Net, SMALL, build, machines};
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, NodeId, Op, Weight};
use verilume::image::{Interpolation, Preprocess};
use verilume::map::Map;
use verilume::method::{Context, Spec};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::tensor::{Precision, Shape, Tensor, Window};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn double() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

fn single() -> Engine {
    Engine::new(&Settings { threads: Some(2), ..Settings::default() }).unwrap()
}

/// Numbers around 0, the same every time; `salt` makes others.
fn numbers(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 997) as f32 / 250.0 - 2.0).collect()
}

fn conv(dims: [usize; 4], window: Window, salt: usize, bias: bool) -> Op {
    let weight = Weight::owned(dims, &numbers(dims.iter().product(), salt).iter().map(|v| v / 3.0).collect::<Vec<_>>());
    let bias = bias.then(|| numbers(dims[0], salt + 1).into_iter().map(f64::from).collect());
    Op::Conv(Conv { weight: weight.unwrap(), bias, window, groups: 1 })
}

fn linear(k: usize, c: usize, salt: usize) -> Op {
    let weight = Weight::owned([k, c, 1, 1], &numbers(k * c, salt)).unwrap();
    Op::Linear(Linear { weight, bias: Some(numbers(k, salt + 1).into_iter().map(f64::from).collect()) })
}

/// Two convolutions, pools with overlapping windows and padding, a ReLU and a ReLU6, a linear layer.
fn overlapping() -> Arc<Graph> {
    let mut b = GraphBuilder::new(Shape::new(2, 9, 11));
    let window = Window::square(3, 1, 1);
    let mut at = b.push("conv1", conv([3, 2, 3, 3], window, 1, true), &[b.input()]).unwrap();
    at = b.push("relu1", Op::Relu, &[at]).unwrap();
    at = b.push("pool1", Op::MaxPool(Window::square(3, 2, 1)), &[at]).unwrap();
    at = b.push("conv2", conv([4, 3, 3, 3], window, 3, true), &[at]).unwrap();
    at = b.push("relu2", Op::Clamp { lo: 0.0, hi: 6.0 }, &[at]).unwrap();
    at = b.push("pool2", Op::MaxPool(Window::square(3, 1, 0)), &[at]).unwrap();
    let n = b.shape(at).len();
    at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    at = b.push("fc", linear(3, n, 5), &[at]).unwrap();
    Arc::new(b.finish(at).unwrap())
}

/// `(output, input, factor)` of every product of a convolution or a linear layer.
fn products(graph: &Graph, id: NodeId) -> Vec<(usize, usize, f64)> {
    let node = graph.node(id);
    let input = graph.node(node.inputs[0]).shape;
    match &node.op {
        Op::Linear(l) => {
            let c = input.len();
            l.weight.to_f64().iter().enumerate().map(|(i, &w)| (i / c, i % c, w)).collect()
        }
        Op::Conv(l) => {
            let [k, c, kh, kw] = l.weight.dims();
            let w = l.weight.to_f64();
            let pads = l.window.pads(input.h, input.w);
            let mut all = Vec::new();
            for (o, y, x) in places(node.shape) {
                for (i, ky, kx) in places(Shape::new(c, kh, kw)) {
                    let row = (y * l.window.stride[0] + ky) as isize - pads[0][0] as isize;
                    let column = (x * l.window.stride[1] + kx) as isize - pads[1][0] as isize;
                    if (0..input.h as isize).contains(&row) && (0..input.w as isize).contains(&column) {
                        let from = (i * input.h + row as usize) * input.w + column as usize;
                        let to = (o * node.shape.h + y) * node.shape.w + x;
                        all.push((to, from, w[((o * c + i) * kh + ky) * kw + kx]));
                    }
                }
            }
            assert_eq!(k, node.shape.c);
            all
        }
        _ => panic!("no layer"),
    }
}

fn places(s: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..s.c).flat_map(move |c| (0..s.h).flat_map(move |y| (0..s.w).map(move |x| (c, y, x))))
}

/// Elements of each window of a pool, in the order of its taps.
fn windows(graph: &Graph, id: NodeId) -> Vec<Vec<usize>> {
    let node = graph.node(id);
    let (Op::MaxPool(window), input) = (&node.op, graph.node(node.inputs[0]).shape) else { panic!("no pool") };
    let pads = window.pads(input.h, input.w);
    let one = |(c, y, x): (usize, usize, usize)| {
        let mut taps = Vec::new();
        for (_, ky, kx) in places(Shape::new(1, window.kernel[0], window.kernel[1])) {
            let row = (y * window.stride[0] + ky) as isize - pads[0][0] as isize;
            let column = (x * window.stride[1] + kx) as isize - pads[1][0] as isize;
            if (0..input.h as isize).contains(&row) && (0..input.w as isize).contains(&column) {
                taps.push((c * input.h + row as usize) * input.w + column as usize);
            }
        }
        taps
    };
    places(node.shape).map(one).collect()
}

/// What every node of a chain puts out.
fn outputs(graph: &Graph, x: &[f64]) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = vec![x.to_vec()];
    for id in graph.ids().skip(1) {
        let node = graph.node(id);
        let from = &all[node.inputs[0].index()];
        all.push(match &node.op {
            Op::Relu => from.iter().map(|v| v.max(0.0)).collect(),
            Op::Clamp { lo, hi } => from.iter().map(|v| v.clamp(*lo, *hi)).collect(),
            Op::Flatten => from.clone(),
            Op::MaxPool(_) => {
                let most = |w: Vec<usize>| w.iter().map(|&i| from[i]).fold(f64::NEG_INFINITY, f64::max);
                windows(graph, id).into_iter().map(most).collect()
            }
            Op::Conv(Conv { bias, .. }) | Op::Linear(Linear { bias, .. }) => {
                let plane = node.shape.plane();
                let start = |i: usize| bias.as_ref().map_or(0.0, |b| b[i / plane]);
                let mut out: Vec<f64> = (0..node.shape.len()).map(start).collect();
                products(graph, id).into_iter().for_each(|(to, i, w)| out[to] += w * from[i]);
                out
            }
            other => panic!("{}", other.kind()),
        });
    }
    all
}

/// `(x − x0) ∘ multipliers`, loop by loop.
fn naive_deep_lift(graph: &Graph, x: &[f64], x0: &[f64], target: usize) -> Vec<f64> {
    let (here, there) = (outputs(graph, x), outputs(graph, x0));
    let mut up = vec![0.0; graph.classes()];
    up[target] = 1.0;
    for id in graph.ids().skip(1).rev() {
        let node = graph.node(id);
        let before = node.inputs[0].index();
        let (a, b, y, y0) = (&here[before], &there[before], &here[id.index()], &there[id.index()]);
        let mut down = vec![0.0; a.len()];
        match &node.op {
            Op::Relu | Op::Clamp { .. } => {
                for i in 0..a.len() {
                    let difference = a[i] - b[i];
                    let gradient = if y[i] == a[i] && y[i] != 0.0 && y[i] != 6.0 { 1.0 } else { 0.0 };
                    down[i] = up[i] * if difference.abs() < 1e-10 { gradient } else { (y[i] - y0[i]) / difference };
                }
            }
            Op::MaxPool(_) => {
                let mut gradient = vec![0.0; a.len()];
                for (o, taps) in windows(graph, id).iter().enumerate() {
                    let first = |v: &[f64], most: f64| *taps.iter().find(|&&i| v[i] == most).unwrap();
                    let own = first(a, y[o]);
                    let other = if b[own] == y0[o] { own } else { first(b, y0[o]) };
                    gradient[own] += up[o];
                    let change = y[o] - y0[o];
                    down[if change >= 0.0 { own } else { other }] += up[o] * change;
                }
                for i in 0..a.len() {
                    let difference = a[i] - b[i];
                    down[i] = if difference.abs() < 1e-10 { gradient[i] } else { down[i] / difference };
                }
            }
            Op::Flatten => down = up.clone(),
            _ => products(graph, id).into_iter().for_each(|(o, i, w)| down[i] += w * up[o]),
        }
        up = down;
    }
    up.iter().zip(x.iter().zip(x0)).map(|(m, (x, x0))| m * (x - x0)).collect()
}

fn preprocess(shape: Shape) -> Preprocess {
    Preprocess {
        resize: 0,
        crop: [shape.h, shape.w],
        interpolation: Interpolation::Bilinear,
        mean: vec![0.5; shape.c],
        std: vec![0.25; shape.c],
        channels: shape.c,
    }
}

/// A method whose files are all `file`.
fn with_file(spec: &str, score: Score, seed: u64, p: &Preprocess, file: &Tensor) -> Box<dyn verilume::method::Method> {
    let load = |_: &Path| Ok(file.clone());
    Spec::parse(spec).unwrap().build(&Context { seed, score, preprocess: p, load: &load }).unwrap()
}

fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(scale > 0.0, "{what}: nothing is expected");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let within = (g - w).abs() <= tolerance * scale;
        assert!(within, "{what}: {g} for {w} at {i}, scale {scale:e}");
    }
}

#[test]
fn deep_lift_is_what_the_loops_say() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let pictures = [numbers(shape.len(), 11), numbers(shape.len(), 12).iter().map(|v| v.round()).collect::<Vec<_>>()];
    let baselines = [vec![0.0; shape.len()], numbers(shape.len(), 13), vec![1.0; shape.len()]];
    let mut falls = 0;
    for picture in &pictures {
        for baseline in &baselines {
            let [x, x0] = [picture, baseline].map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>());
            let [here, there] = [&x, &x0].map(|v| outputs(&graph, v));
            falls += (0..graph.nodes().len())
                .filter(|&i| matches!(graph.nodes()[i].op, Op::MaxPool(_)))
                .map(|i| here[i].iter().zip(&there[i]).filter(|(a, b)| a < b).count())
                .sum::<usize>();
            let file = Tensor::f32(shape.dims(), baseline.clone()).unwrap();
            let batch = Batch::of(vec![Tensor::f32(shape.dims(), picture.clone()).unwrap()]).unwrap();
            let method = with_file("deep_lift:baseline=file:b", Score::Logit, 0, &preprocess(shape), &file);
            for target in 0..3 {
                let want = naive_deep_lift(&graph, &x, &x0, target);
                let difference = here.last().unwrap()[target] - there.last().unwrap()[target];
                assert!((want.iter().sum::<f64>() - difference).abs() <= 1e-9 * difference.abs().max(1.0));
                for settings in machines() {
                    let mut engine = Engine::new(&settings).unwrap();
                    let map = &method.explain(&mut engine, &graph, &batch, &[target]).unwrap()[0];
                    let tolerance = if settings.precision == Precision::F64 { 1e-12 } else { 2e-4 };
                    let what = format!("{:?}, class {target}", settings.kernels);
                    close(&what, &map.values.to_f64(), &want, tolerance);
                    let gap = map.gap.as_ref().unwrap();
                    assert!(gap.value.abs() <= tolerance * difference.abs().max(1.0), "{what}: {gap:?}");
                }
            }
        }
    }
    assert!(falls > 20, "windows whose maximum falls: {falls}");
}

/// A picture that is its own baseline differs nowhere; one that differs at one element is explained by it.
#[test]
fn deep_lift_of_equal_pictures_is_zero() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let mut values = numbers(shape.len(), 11);
    let file = Tensor::f32(shape.dims(), values.clone()).unwrap();
    let method = with_file("deep_lift:baseline=file:b", Score::Logit, 0, &preprocess(shape), &file);
    let map = &method.explain(&mut double(), &graph, &Batch::of(vec![file.clone()]).unwrap(), &[1]).unwrap()[0];
    assert!(map.values.to_f64().iter().all(|&v| v == 0.0));
    assert_eq!(map.gap.as_ref().unwrap().relative, None);
    values[47] += 0.5;
    let x = Tensor::f32(shape.dims(), values).unwrap();
    let map = &method.explain(&mut double(), &graph, &Batch::of(vec![x]).unwrap(), &[1]).unwrap()[0];
    let numbers = map.values.to_f64();
    assert!(numbers.iter().enumerate().all(|(i, &v)| (v != 0.0) == (i == 47)), "{numbers:?}");
}

/// Σ x ∘ g + Σ bias terms is the score, with clamps that hold values at 6, and for every score.
#[test]
fn full_grad_is_complete() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let x: Vec<f32> = numbers(shape.len(), 21).iter().map(|v| 2.0 * v).collect();
    let clamped = outputs(&graph, &x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    let held = clamped[graph.find("relu2").unwrap().index()].iter().filter(|&&v| v == 6.0).count();
    assert!(held > 5, "{held} values are held at 6");
    let batch = Batch::of(vec![Tensor::f32(shape.dims(), x).unwrap()]).unwrap();
    for score in [Score::Logit, Score::Prob, Score::LogProb] {
        let method = build("full_grad", score, 0, &preprocess(shape)).unwrap();
        let map = &method.explain(&mut double(), &graph, &batch, &[2]).unwrap()[0];
        let gap = map.gap.as_ref().unwrap();
        assert!(gap.value.abs() <= 1e-11 * map.values.len() as f64, "{score:?}: {gap:?}");
        assert_eq!(map.values.dims(), [shape.h, shape.w]);
    }
    // By hand: one convolution's bias and the input, each rescaled by its own range.
    let mut b = GraphBuilder::new(Shape::new(1, 4, 4));
    let at = b.push("conv", conv([2, 1, 3, 3], Window::square(3, 1, 1), 2, true), &[b.input()]).unwrap();
    let at = b.push("relu", Op::Relu, &[at]).unwrap();
    let at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let at = b.push("fc", linear(2, 32, 9), &[at]).unwrap();
    let graph = b.finish(at).unwrap();
    let x = numbers(16, 5);
    let batch = Batch::of(vec![Tensor::f32([1, 4, 4], x.clone()).unwrap()]).unwrap();
    let mut engine = double();
    let gradient = &engine.explain(&graph, &Job::gradient(Score::Logit), &batch, &[1]).unwrap().maps[0];
    let out = outputs(&graph, &x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    let fc = numbers(64, 9);
    let bias = numbers(2, 3);
    let term = |i: usize| if out[1][i] > 0.0 { f64::from(bias[i / 16] * fc[32 + i]).abs() } else { 0.0 };
    let scaled = |v: Vec<f64>| {
        let (low, high) = v.iter().fold((f64::MAX, 0.0f64), |(l, h), &v| (l.min(v), h.max(v)));
        v.into_iter().map(|v| (v - low) / (high - low)).collect::<Vec<f64>>()
    };
    let input = scaled(gradient.to_f64().iter().zip(&x).map(|(g, &x)| (g * f64::from(x)).abs()).collect());
    let constant = scaled((0..32).map(term).collect());
    let want: Vec<f64> = (0..16).map(|i| input[i] + constant[i] + constant[16 + i]).collect();
    let method = build("full_grad", Score::Logit, 0, &preprocess(Shape::new(1, 4, 4))).unwrap();
    let map = &method.explain(&mut engine, &graph, &batch, &[1]).unwrap()[0];
    close("full_grad by hand", &map.values.to_f64(), &want, 1e-6);
}

/// The gradient of `target`'s logit at `point`.
fn gradient(engine: &mut Engine, graph: &Graph, point: &[f64], target: usize) -> Vec<f64> {
    let tensor = Tensor::f64(graph.input_shape().dims(), point.to_vec()).unwrap();
    let batch = Batch::of(vec![tensor]).unwrap();
    engine.explain(graph, &Job::gradient(Score::Logit), &batch, &[target]).unwrap().maps[0].to_f64().into_owned()
}

fn logit(engine: &mut Engine, graph: &Graph, point: &[f64], target: usize) -> f64 {
    let tensor = Tensor::f64(graph.input_shape().dims(), point.to_vec()).unwrap();
    engine.forward(graph, &Batch::of(vec![tensor]).unwrap()).unwrap().at(target)
}

#[test]
fn blur_ig_is_what_the_loops_say() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let values = numbers(shape.len(), 31);
    let x: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    // Every pixel a sum over the whole kernel, edges repeated.
    let blur = |sigma: f64| -> Vec<f64> {
        let radius = (4.0 * sigma).ceil() as isize;
        let weight = |d: isize| (-((d * d) as f64) / (2.0 * sigma * sigma)).exp();
        let total: f64 = (-radius..=radius).map(weight).sum();
        let at = |c: usize, y: isize, w: isize| {
            let (y, w) = (y.clamp(0, shape.h as isize - 1), w.clamp(0, shape.w as isize - 1));
            x[(c * shape.h + y as usize) * shape.w + w as usize]
        };
        let one = |(c, y, w): (usize, usize, usize)| {
            let mut sum = 0.0;
            for dy in -radius..=radius {
                for dx in -radius..=radius {
                    sum += weight(dy) * weight(dx) * at(c, y as isize + dy, w as isize + dx);
                }
            }
            sum / (total * total)
        };
        places(shape).map(one).collect()
    };
    let mut engine = double();
    let (steps, sigma) = (7, 2.5);
    let mut want = vec![0.0; x.len()];
    for k in 0..steps {
        let at = |k: f64| if k == 0.0 { x.clone() } else { blur(sigma * k / steps as f64) };
        let (near, far) = (at(k as f64), at(k as f64 + 1.0));
        let g = gradient(&mut engine, &graph, &at(k as f64 + 0.5), 1);
        (0..x.len()).for_each(|i| want[i] += g[i] * (near[i] - far[i]));
    }
    let batch = Batch::of(vec![Tensor::f32(shape.dims(), values).unwrap()]).unwrap();
    let method = build("blur_ig:steps=7,sigma=2.5", Score::Logit, 0, &preprocess(shape)).unwrap();
    let map = &method.explain(&mut engine, &graph, &batch, &[1]).unwrap()[0];
    close("blur_ig", &map.values.to_f64(), &want, 1e-10);
    let difference = logit(&mut engine, &graph, &x, 1) - logit(&mut engine, &graph, &blur(sigma), 1);
    let gap = map.gap.as_ref().unwrap();
    assert!((gap.value - (want.iter().sum::<f64>() - difference)).abs() < 1e-9 * difference.abs(), "{gap:?}");
}

#[test]
fn expected_gradients_are_what_the_loops_say() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let values = numbers(shape.len(), 41);
    let x: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    let tensor = Tensor::f32(shape.dims(), values).unwrap();
    let (key, n, seed) = (random::image_key(&tensor), 37, 9);
    let batch = Batch::of(vec![tensor]).unwrap();
    let p = preprocess(shape);
    let mut engine = double();
    // Files of a folder: their names say which they are.
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.npy", "a.png", "c.jpg", "notes.txt"] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    let file = |path: &Path| numbers(shape.len(), 50 + usize::from(path.file_name().unwrap().as_encoded_bytes()[0]));
    let load = |path: &Path| Tensor::f32(shape.dims(), file(path));
    let folder_name = folder.path().display().to_string();
    let mut maps = Vec::new();
    for source in ["noise", &folder_name] {
        let mut want = vec![0.0; x.len()];
        let mut there = 0.0;
        for s in 0..n {
            let mut draws = vec![0f32; x.len() + 2];
            random::fill_uniforms(seed, key, s, 0, &mut draws);
            let (alpha, which) = (f64::from(draws[x.len()]), f64::from(draws[x.len() + 1]));
            let (black, white) = (f64::from(p.normalise(0, 0)), f64::from(p.normalise(0, 255)));
            let b: Vec<f64> = if source == "noise" {
                draws[..x.len()].iter().map(|&u| black + (white - black) * f64::from(u)).collect()
            } else {
                let name = ["a.png", "b.npy", "c.jpg"][(3.0 * which) as usize];
                file(Path::new(name)).into_iter().map(f64::from).collect()
            };
            let point: Vec<f64> = x.iter().zip(&b).map(|(x, b)| b + alpha * (x - b)).collect();
            let g = gradient(&mut engine, &graph, &point, 0);
            (0..x.len()).for_each(|i| want[i] += g[i] * (x[i] - b[i]) / f64::from(n));
            there += logit(&mut engine, &graph, &b, 0) / f64::from(n);
        }
        let spec = Spec::parse(&format!("expected_gradients:n={n},baselines=({source})")).unwrap();
        let method = spec.build(&Context { seed, score: Score::Logit, preprocess: &p, load: &load }).unwrap();
        let map = method.explain(&mut engine, &graph, &batch, &[0]).unwrap().remove(0);
        close(source, &map.values.to_f64(), &want, 1e-11);
        let want_gap = want.iter().sum::<f64>() - (logit(&mut engine, &graph, &x, 0) - there);
        assert!((map.gap.as_ref().unwrap().value - want_gap).abs() < 1e-9, "{source}");
        maps.push(map);
    }
    assert_ne!(maps[0].values, maps[1].values);
}

#[test]
fn guided_ig_is_what_the_loops_say() {
    let graph = overlapping();
    let shape = graph.input_shape();
    let values = numbers(shape.len(), 61);
    let x: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    let batch = Batch::of(vec![Tensor::f32(shape.dims(), values).unwrap()]).unwrap();
    let mut engine = double();
    for (steps, fraction, reach, value) in [(9, 0.25, 0.02, 0.0), (6, 0.1, 0.3, -0.25), (5, 0.5, 1.0, 1.5)] {
        let start = vec![value; x.len()];
        let total: f64 = x.iter().map(|x| (x - value).abs()).sum();
        let mut at = start.clone();
        let mut want = vec![0.0; x.len()];
        for step in 1..=steps {
            let alpha = f64::from(step) / f64::from(steps);
            let point = |i: usize, a: f64| if a >= 1.0 { x[i] } else { start[i] + a * (x[i] - start[i]) };
            let g = gradient(&mut engine, &graph, &at, 2);
            let before = at.clone();
            let (low, high) = ((alpha - reach).max(0.0), (alpha + reach).min(1.0));
            for i in 0..x.len() {
                let reached = (at[i] - start[i]) / (x[i] - start[i]);
                if reached < low {
                    at[i] = point(i, low);
                }
            }
            loop {
                let excess = at.iter().zip(&x).map(|(a, x)| (a - x).abs()).sum::<f64>() - total * (1.0 - alpha);
                if excess <= 1e-9 * total {
                    break;
                }
                // The least gradients among all pixels, those at the end of the corridor counting as the largest.
                let mut order: Vec<usize> = (0..x.len()).collect();
                let size = |i: usize| if at[i] == point(i, high) { f64::INFINITY } else { g[i].abs() };
                order.sort_by(|&a, &b| size(a).total_cmp(&size(b)));
                let limit = size(order[((x.len() - 1) as f64 * fraction) as usize]);
                let moved: Vec<usize> = (0..x.len()).filter(|&i| size(i) <= limit && size(i).is_finite()).collect();
                let room: f64 = moved.iter().map(|&i| (point(i, high) - at[i]).abs()).sum();
                if room == 0.0 {
                    break;
                }
                let gamma = excess / room;
                for &i in &moved {
                    at[i] = if gamma >= 1.0 { point(i, high) } else { at[i] + gamma * (point(i, high) - at[i]) };
                }
                if gamma < 1.0 {
                    break;
                }
            }
            (0..x.len()).for_each(|i| want[i] += g[i] * (at[i] - before[i]));
        }
        close("the path's end", &at, &x, 1e-6);
        let spec = format!("guided_ig:steps={steps},fraction={fraction},max_dist={reach},baseline=value:{value}");
        let method = build(&spec, Score::Logit, 0, &preprocess(shape)).unwrap();
        let map = &method.explain(&mut engine, &graph, &batch, &[2]).unwrap()[0];
        close(&spec, &map.values.to_f64(), &want, 1e-9);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let net = Net::small("vgg");
    let refused = |spec: &str, part: &str| {
        let error = match build(spec, Score::Logit, 0, &net.preprocess) {
            Err(e) => e,
            Ok(method) => method.explain(&mut single(), &net.graph, &net.x, &net.targets).map(|_| ()).expect_err(spec),
        };
        // What the picture's shape decides is that picture's error.
        assert!(matches!(error.kind(), ErrorKind::Settings | ErrorKind::Shape), "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    };
    refused("expected_gradients:n=0", "at least one");
    refused("expected_gradients:baselines=nowhere", "neither `noise` nor a folder");
    refused("blur_ig:sigma=0", "sigma=0");
    refused("blur_ig:sigma=1e6", "larger side");
    refused("blur_ig:steps=0", "at least one");
    refused("guided_ig:fraction=0", "fraction=0");
    refused("guided_ig:max_dist=1.5", "max_dist=1.5");
    refused("guided_ig:steps=0", "at least one");
    refused("deep_lift:baseline=sky", "no baseline");
    let mut b = GraphBuilder::new(Shape::vector(6));
    let at = b.push("fc", linear(2, 6, 1), &[b.input()]).unwrap();
    let graph = b.finish(at).unwrap();
    let x = Batch::of(vec![Tensor::f32([6, 1, 1], numbers(6, 3)).unwrap()]).unwrap();
    for (spec, part) in [("full_grad", "no positions"), ("blur_ig", "cannot be blurred")] {
        let method = build(spec, Score::Logit, 0, &preprocess(Shape::vector(6))).unwrap();
        let error = method.explain(&mut single(), &graph, &x, &[0]).map(|_| ()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Settings | ErrorKind::Shape));
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
}

/// Methods, and by how much of the score (or difference) they may miss it: single and double precision.
const PROMISED: [(&str, f64, f64); 2] = [("deep_lift", 1e-3, 1e-9), ("full_grad", 1e-3, 1e-9)];

/// Sampled paths: how near they come is the net's and the steps' matter, so their gaps are shown and must be finite.
const SAMPLED: [&str; 4] = ["ig:steps", "guided_ig:steps", "blur_ig:steps", "expected_gradients:n"];

/// Gap as a share of what was promised.
fn share(map: &Map) -> f64 {
    map.gap.as_ref().unwrap().relative.unwrap_or(0.0)
}

fn worst(net: &Net, engine: &mut Engine, spec: &str) -> f64 {
    let maps = net.explain(engine, spec, Score::Logit, 1).unwrap();
    let worst = maps.iter().map(share).fold(0.0, |w: f64, v| if v.is_nan() { v } else { w.max(v) });
    assert!(maps.iter().all(|m| m.values.to_f64().iter().any(|&v| v != 0.0)), "{} {spec}", net.name);
    worst
}

fn check_promises(net: &Net, steps: usize) {
    let (mut f32_engine, mut f64_engine) = (single(), double());
    for (spec, tolerance, fine) in PROMISED {
        let (plain, twin) = (worst(net, &mut f32_engine, spec), worst(net, &mut f64_engine, spec));
        println!("| {spec} | {} | {plain:.1e} | {twin:.1e} |", net.name);
        assert!(plain <= tolerance && twin <= fine, "{spec} on {}: {plain:e} and {twin:e}", net.name);
    }
    for method in SAMPLED {
        let spec = format!("{method}={steps}");
        let plain = worst(net, &mut f32_engine, &spec);
        println!("| {spec} | {} | {plain:.1e} | |", net.name);
        assert!(plain.is_finite(), "{spec} on {}: {plain:e}", net.name);
    }
}

#[test]
fn promises_are_kept_on_small_nets() {
    println!("| method | net | worst gap f32 | f64 |\n|---|---|---|---|");
    for name in SMALL {
        let net = Net::small(name);
        check_promises(&net, 32);
        for score in [Score::Prob, Score::LogProb] {
            for map in net.explain(&mut double(), "deep_lift:baseline=mean", score, 0).unwrap() {
                assert!(share(&map) <= 1e-8, "{score:?} on {name}: {:?}", map.gap);
            }
        }
    }
}

/// With more steps the sampled paths come nearer; guided IG, which moves where the gradient happens to be small, only slowly.
#[test]
fn gaps_shrink_with_the_steps() {
    let net = Net::small("resnet_basic");
    let mut engine = single();
    let methods = [("guided_ig:steps", 10, 400, 0.9), ("blur_ig:steps", 4, 200, 0.5), ("ig:steps", 4, 200, 0.5)];
    for (method, few, many, share) in methods {
        let total = |engine: &mut Engine, n: usize| -> f64 {
            let maps = net.explain(engine, &format!("{method}={n}"), Score::Logit, 1).unwrap();
            maps.iter().map(|m| m.gap.as_ref().unwrap().value.abs()).sum()
        };
        let (coarse, fine) = (total(&mut engine, few), total(&mut engine, many));
        println!("{method}: {coarse:.2e} with {few}, {fine:.2e} with {many}");
        assert!(fine < share * coarse, "{method}: {coarse:e} with {few}, {fine:e} with {many}");
    }
}

#[test]
#[cfg(feature = "embedded-model")]
fn promises_are_kept_on_the_embedded_net() {
    check_promises(&Net::real("efficientnet-lite0", &Model::embedded().unwrap()), 4);
}

#[needs::shared_data]
#[test]
fn promises_are_kept_on_resnet20() {
    let path = Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors");
    check_promises(&Net::real("cifar10-resnet20", &Model::open(&path, None).unwrap()), 32);
}
