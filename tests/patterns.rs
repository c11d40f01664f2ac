//! PatternNet and PatternAttribution: patterns against covariances taken directly, maps against loops, files that do not
//! suit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nets::{Net, build};
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::{Conv, Graph, GraphBuilder, Linear, Op, Weight};
use verilume::image::{Interpolation, Preprocess};
use verilume::method::patterns::{Estimator, Fit, Patterns};
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor, Window};

fn double() -> Engine {
    Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap()
}

fn numbers(n: usize, salt: usize) -> Vec<f32> {
    let one = |i: usize| {
        let mut h =
            (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (salt as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
        h = (h ^ (h >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((h >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    (0..n).map(one).collect()
}

fn biases(n: usize, salt: usize) -> Option<Arc<[f64]>> {
    Some(numbers(n, salt).into_iter().map(|v| f64::from(v) * 0.3).collect())
}

/// A grouped convolution with stride and padding, a pool, a linear layer; `shift` moves what the first layer expects.
fn small(salt: usize) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(2, 7, 6));
    let weight = Weight::owned([4, 1, 3, 3], &numbers(36, salt)).unwrap();
    let window = Window::square(3, 2, 1);
    let conv = Op::Conv(Conv { weight, bias: biases(4, salt + 1), window, groups: 2 });
    let mut at = b.push("conv", conv, &[b.input()]).unwrap();
    at = b.push("relu", Op::Relu, &[at]).unwrap();
    let n = b.shape(at).len();
    at = b.push("flatten", Op::Flatten, &[at]).unwrap();
    let weight = Weight::owned([3, n, 1, 1], &numbers(3 * n, salt + 2)).unwrap();
    at = b.push("fc", Op::Linear(Linear { weight, bias: biases(3, salt + 3) }), &[at]).unwrap();
    b.finish(at).unwrap()
}

fn preprocess() -> Preprocess {
    let (mean, std) = (vec![0.5; 2], vec![0.25; 2]);
    Preprocess { resize: 0, crop: [7, 6], interpolation: Interpolation::Bilinear, mean, std, channels: 2 }
}

fn pictures(n: usize, shift: f32) -> Vec<Tensor> {
    let one = |i| Tensor::f32([2, 7, 6], numbers(84, 1000 + i).into_iter().map(|v| v + shift).collect()).unwrap();
    (0..n).map(one).collect()
}

fn fitted(graph: &Graph, data: &[Tensor], estimator: Estimator, batch: usize, threads: usize) -> Patterns {
    let mut engine = double();
    let mut fit = Fit::new(graph, estimator, threads).unwrap();
    for items in data.chunks(batch) {
        fit.add(&mut engine, graph, &Batch::of(items.to_vec()).unwrap()).unwrap();
    }
    assert_eq!(fit.pictures(), data.len());
    fit.finish(graph, BTreeMap::new()).unwrap()
}

/// `(sample, output)` of every position of every neuron of a layer, from the engine's feature maps.
fn samples(graph: &Graph, data: &[Tensor], name: &str, k: usize) -> Vec<(Vec<f64>, f64)> {
    let id = graph.find(name).unwrap();
    let node = graph.node(id);
    let out = double().node_outputs(graph, &Batch::of(data.to_vec()).unwrap(), &[node.inputs[0], id]).unwrap();
    let mut all = Vec::new();
    for i in 0..data.len() {
        let (x, y) = (out[0].item(i).unwrap(), out[1].item(i).unwrap());
        if name == "fc" {
            all.push((x.to_f64().into_owned(), y.at(k)));
            continue;
        }
        // Group k/2 reads channel k/2.
        for (row, column) in (0..node.shape.h).flat_map(|r| (0..node.shape.w).map(move |c| (r, c))) {
            let mut patch = Vec::new();
            for (ky, kx) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                let (r, c) = (2 * row as isize + ky - 1, 2 * column as isize + kx - 1);
                let inside = (0..7).contains(&r) && (0..6).contains(&c);
                patch.push(if inside { x.at((k / 2 * 7 + r as usize) * 6 + c as usize) } else { 0.0 });
            }
            all.push((patch, y.at((k * node.shape.h + row) * node.shape.w + column)));
        }
    }
    all
}

/// Two passes: means first, then the mean of the products of deviations.
fn covariance(samples: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let n = samples.len() as f64;
    let y_mean = samples.iter().map(|s| s.1).sum::<f64>() / n;
    (0..samples[0].0.len())
        .map(|j| {
            let x_mean = samples.iter().map(|s| s.0[j]).sum::<f64>() / n;
            samples.iter().map(|s| (s.0[j] - x_mean) * (s.1 - y_mean)).sum::<f64>() / n
        })
        .collect()
}

fn weight(graph: &Graph, name: &str) -> (usize, Vec<f64>) {
    match &graph.node(graph.find(name).unwrap()).op {
        Op::Conv(Conv { weight, .. }) | Op::Linear(Linear { weight, .. }) => (weight.row_len(), weight.to_f64()),
        _ => panic!("{name} has no weight"),
    }
}

#[test]
fn patterns_are_covariances() {
    let graph = small(1);
    let data = pictures(60, 0.0);
    for estimator in [Estimator::Relu, Estimator::Linear] {
        let patterns = fitted(&graph, &data, estimator, 7, 2);
        assert!(patterns.provenance.dead.is_empty(), "{:?}", patterns.provenance.dead);
        for (name, neurons) in [("conv", 4), ("fc", 3)] {
            let (row, w) = weight(&graph, name);
            for k in 0..neurons {
                let mut kept = samples(&graph, &data, name, k);
                let all = kept.len();
                if estimator == Estimator::Relu {
                    kept.retain(|s| s.1 > 0.0);
                    assert!(kept.len() < all, "{name} {k}: every sample counts");
                }
                assert!(kept.len() > 5);
                let covariance = covariance(&kept);
                let scale: f64 = covariance.iter().zip(&w[k * row..]).map(|(c, w)| c * w).sum();
                let got = &patterns.layer(name).unwrap()[k * row..][..row];
                for (g, c) in got.iter().zip(&covariance) {
                    assert!((g - c / scale).abs() <= 1e-9, "{estimator} {name} {k}: {g} for {}", c / scale);
                }
                let product: f64 = got.iter().zip(&w[k * row..]).map(|(a, w)| a * w).sum();
                assert!((product - 1.0).abs() < 1e-12, "wᵀa = {product}");
            }
        }
        // However the pictures come and whoever does the work.
        for (batch, threads) in [(1, 1), (60, 3), (13, 2)] {
            assert_eq!(fitted(&graph, &data, estimator, batch, threads), patterns);
        }
    }
}

/// All data shifted, the first layer's bias making up for it: the patterns stay (without padding, which is not shifted).
#[test]
fn patterns_survive_a_shift_of_the_data() {
    let net = |shift: f64| {
        let w = numbers(5 * 84, 3);
        let own = biases(5, 4).unwrap();
        let bias = (0..5).map(|k| own[k] - shift * w[k * 84..][..84].iter().map(|&v| f64::from(v)).sum::<f64>());
        let mut b = GraphBuilder::new(Shape::new(2, 7, 6));
        let mut at = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
        let weight = Weight::owned([5, 84, 1, 1], &w).unwrap();
        at = b.push("fc", Op::Linear(Linear { weight, bias: Some(bias.collect()) }), &[at]).unwrap();
        at = b.push("relu", Op::Relu, &[at]).unwrap();
        let weight = Weight::owned([3, 5, 1, 1], &numbers(15, 5)).unwrap();
        at = b.push("top", Op::Linear(Linear { weight, bias: biases(3, 6) }), &[at]).unwrap();
        b.finish(at).unwrap()
    };
    let (plain, shifted) = (net(0.0), net(-1.0));
    for estimator in [Estimator::Relu, Estimator::Linear] {
        let before = fitted(&plain, &pictures(300, 0.0), estimator, 50, 2);
        let after = fitted(&shifted, &pictures(300, -1.0), estimator, 50, 2);
        for name in ["fc", "top"] {
            let (a, b) = (before.layer(name).unwrap(), after.layer(name).unwrap());
            let scale = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs() / scale));
            // The pictures are single precision: shifting them rounds.
            assert!(worst <= 1e-5, "{estimator} {name}: {worst:e}");
        }
    }
}

fn written(patterns: &Patterns, folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, patterns.to_bytes().unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn maps_are_gradients_with_patterns_for_weights() {
    let graph = small(1);
    let data = pictures(60, 0.0);
    let patterns = fitted(&graph, &data, Estimator::Relu, 8, 2);
    let folder = tempfile::tempdir().unwrap();
    let file = written(&patterns, folder.path(), "p.safetensors");
    assert_eq!(Patterns::open(Path::new(&file)).unwrap(), patterns);
    let x = Batch::of(pictures(3, 0.0)).unwrap();
    let mut engine = double();
    let conv = graph.find("conv").unwrap();
    let shape = graph.node(conv).shape;
    let pre = &engine.node_outputs(&graph, &x, &[conv]).unwrap()[0];
    for (method, attribution) in [("pattern_net", false), ("pattern_attribution", true)] {
        let stand_in = |name: &str| -> (usize, Vec<f64>) {
            let ((row, w), a) = (weight(&graph, name), patterns.layer(name).unwrap());
            (row, w.iter().zip(a).map(|(w, a)| if attribution { w * a } else { *a }).collect())
        };
        let ((n, fc), (_, kernel)) = (stand_in("fc"), stand_in("conv"));
        let built = build(&format!("{method}:patterns=({file})"), Score::Logit, 0, &preprocess()).unwrap();
        for target in 0..3 {
            let maps = built.explain(&mut engine, &graph, &x, &[target; 3]).unwrap();
            for (i, map) in maps.iter().enumerate() {
                let pre = pre.item(i).unwrap();
                let mut want = vec![0.0; 84];
                for e in 0..n {
                    let (k, row, column) = (e / shape.plane(), e % shape.plane() / shape.w, e % shape.w);
                    if pre.at(e) <= 0.0 {
                        continue;
                    }
                    for (ky, kx) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                        let (r, c) = (2 * row as isize + ky - 1, 2 * column as isize + kx - 1);
                        if (0..7).contains(&r) && (0..6).contains(&c) {
                            let to = (k / 2 * 7 + r as usize) * 6 + c as usize;
                            want[to] += fc[target * n + e] * kernel[k * 9 + (3 * ky + kx) as usize];
                        }
                    }
                }
                let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for (g, w) in map.values.to_f64().iter().zip(&want) {
                    assert!((g - w).abs() <= 1e-12 * scale, "{method} {target}: {g} for {w}");
                }
            }
        }
    }
}

#[test]
fn patterns_of_other_nets_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (graph, other) = (small(1), small(9));
    let data = pictures(20, 0.0);
    let file = written(&fitted(&other, &data, Estimator::Relu, 8, 1), folder.path(), "other.safetensors");
    let x = Batch::of(pictures(1, 0.0)).unwrap();
    let method = build(&format!("pattern_net:patterns=({file})"), Score::Logit, 0, &preprocess()).unwrap();
    let error = method.explain(&mut double(), &graph, &x, &[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(
        error.to_string().contains("other weights") && error.to_string().contains("verilume patterns fit"),
        "{error}"
    );
    assert!(method.explain(&mut double(), &other, &x, &[0]).is_ok());
    // None given, no file, no patterns in it, cut off.
    let error = |spec: &str| build(spec, Score::Logit, 0, &preprocess()).map(|_| ()).unwrap_err();
    assert!(error("pattern_attribution").to_string().contains("verilume patterns fit"));
    assert_eq!(error("pattern_net:patterns=nowhere").kind(), ErrorKind::Io);
    let weights = "tests/golden/small/vgg.weights.safetensors";
    assert!(error(&format!("pattern_net:patterns={weights}")).to_string().contains("not a file of patterns"));
    let whole = std::fs::read(&file).unwrap();
    for n in [0, 7, 100, whole.len() - 1] {
        assert!(Patterns::from_bytes(&whole[..n]).is_err(), "{n} bytes");
    }
    // Too few pictures.
    let mut fit = Fit::new(&graph, Estimator::Relu, 1).unwrap();
    fit.add(&mut double(), &graph, &x).unwrap();
    assert_eq!(fit.finish(&graph, BTreeMap::new()).unwrap_err().kind(), ErrorKind::Input);
}

/// Neurons that never vary have no direction; a class without one is refused.
#[test]
fn dead_neurons_are_counted() {
    let mut b = GraphBuilder::new(Shape::new(2, 7, 6));
    let at = b.push("flatten", Op::Flatten, &[b.input()]).unwrap();
    let mut w = numbers(3 * 84, 3);
    w[..84].fill(0.0);
    let weight = Weight::owned([3, 84, 1, 1], &w).unwrap();
    // Class 0 is constant, class 1 never above 0.
    let bias: Option<Arc<[f64]>> = Some(vec![1.0, -1e3, 0.0].into());
    let at = b.push("fc", Op::Linear(Linear { weight, bias }), &[at]).unwrap();
    let graph = b.finish(at).unwrap();
    let patterns = fitted(&graph, &pictures(30, 0.0), Estimator::Relu, 8, 1);
    assert_eq!(patterns.provenance.dead, BTreeMap::from([("fc".to_string(), 2)]));
    let linear = fitted(&graph, &pictures(30, 0.0), Estimator::Linear, 8, 1);
    assert_eq!(linear.provenance.dead, BTreeMap::from([("fc".to_string(), 1)]));
    let folder = tempfile::tempdir().unwrap();
    let file = written(&patterns, folder.path(), "p.safetensors");
    let method = build(&format!("pattern_net:patterns=({file})"), Score::Logit, 0, &preprocess()).unwrap();
    let x = Batch::of(pictures(1, 0.0)).unwrap();
    assert!(method.explain(&mut double(), &graph, &x, &[2]).is_ok());
    let error = method.explain(&mut double(), &graph, &x, &[1]).unwrap_err();
    assert!(error.to_string().contains("class 1 has no pattern"), "{error}");
}

/// Convolutions, residual sums, pools: the nets of the golden files, in single precision too.
#[test]
fn patterns_fit_convolutional_nets() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vgg_bn", "resnext"] {
        let net = Net::small(name);
        for precision in [Precision::F32, Precision::F64] {
            let mut engine = Engine::new(&Settings { precision, threads: Some(2), ..Settings::default() }).unwrap();
            // Few pictures: not every class has two on which its logit is above 0.
            let mut fit = Fit::new(&net.graph, Estimator::Linear, 2).unwrap();
            fit.add(&mut engine, &net.graph, &net.x).unwrap();
            let patterns = fit.finish(&net.graph, BTreeMap::new()).unwrap();
            let file = written(&patterns, folder.path(), "p.safetensors");
            let read = Patterns::open(Path::new(&file)).unwrap();
            assert_eq!(read.provenance, patterns.provenance);
            for method in ["pattern_net", "pattern_attribution"] {
                let built = build(&format!("{method}:patterns=({file})"), Score::Prob, 0, &net.preprocess).unwrap();
                let maps = built.explain(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
                assert!(maps.iter().all(|m| m.values.to_f64().iter().any(|&v| v != 0.0)), "{name} {method}");
            }
        }
    }
}

#[cfg(feature = "cli")]
mod command_line {
    use super::*;
    use std::process::{Command, Output};

    fn verilume(folder: &Path, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_verilume")).current_dir(folder).args(args).output().unwrap()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn patterns_are_fitted_and_used() {
        let folder = tempfile::tempdir().unwrap();
        let golden = |file: &str| std::fs::canonicalize(Path::new("tests/golden/small").join(file)).unwrap();
        let (model, other) = (golden("vgg.weights.safetensors"), golden("vgg_bn.weights.safetensors"));
        let (model, other) = (model.to_str().unwrap(), other.to_str().unwrap());
        let cases = golden("vgg.cases.safetensors");
        let cases = cases.to_str().unwrap();
        let here = folder.path();
        let done = verilume(here, &["patterns", "fit", "--data", cases, "--model", model, "-o", "p.safetensors"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(text(&done.stderr).contains("2 pictures"), "{}", text(&done.stderr));
        assert!(done.stdout.is_empty());
        let first = std::fs::read(here.join("p.safetensors")).unwrap();
        let fit = |out: &str, more: &[&str]| {
            let args = [&["patterns", "fit", "--data", cases, "--model", model, "-q", "-o", out], more].concat();
            let done = verilume(here, &args);
            assert!(done.stderr.is_empty(), "{}", text(&done.stderr));
            std::fs::read(here.join(out)).unwrap()
        };
        assert_eq!(fit("again.safetensors", &["--threads", "1"]), first, "the same bytes");
        assert_ne!(fit("linear.safetensors", &["--estimator", "linear"]), first);
        let explain = |model: &str, method: &str| {
            verilume(
                here,
                &["explain", cases, "--model", model, "-m", method, "--format", "npy", "-o", "out", "--json"],
            )
        };
        let done = explain(model, "pattern_net:patterns=p.safetensors");
        assert!(done.status.success(), "{}", text(&done.stderr));
        let done = explain(other, "pattern_net:patterns=p.safetensors");
        assert_ne!(done.status.code(), Some(0));
        let said = text(&done.stdout) + &text(&done.stderr);
        assert!(said.contains("other weights"), "{said}");
        let done = explain(model, "pattern_net");
        assert_eq!(done.status.code(), Some(2));
        assert!(text(&done.stderr).contains("verilume patterns fit"), "{}", text(&done.stderr));
        let one = ["patterns", "fit", "--data", cases, "--model", model, "--limit", "1", "-o", "one.safetensors"];
        let done = verilume(here, &one);
        assert_eq!(done.status.code(), Some(2));
        assert!(text(&done.stderr).contains("1 pictures are too few"), "{}", text(&done.stderr));
        assert!(!here.join("one.safetensors").exists());
    }
}
