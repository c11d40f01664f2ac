//! Methods that optimise masks: gradients against finite differences, presets, refusals, and what the masks found do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nets::{Net, build};
use safetensors::SafeTensors;
use verilume::ErrorKind;
use verilume::engine::{Batch, Engine, Progress, Settings};
use verilume::graph::{Graph, GraphBuilder, Linear, Op, Weight};
use verilume::map::Map;
use verilume::method::haf::{Haf, Keep, Preserved, Want};
use verilume::method::relex::{Init, RelEx, SizeWeight};
use verilume::model::Model;
use verilume::program::{Score, softmax};
use verilume::reliability::bootstrap::Bootstrap;
use verilume::tensor::resample::Upsample;
use verilume::tensor::{Precision, Shape, Tensor};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn engine(precision: Precision) -> Engine {
    Engine::new(&Settings { precision, threads: Some(2), ..Settings::default() }).unwrap()
}

fn haf() -> Haf {
    Haf {
        score: Score::Logit,
        form: Preserved::Class,
        iterations: 5,
        lambda: 0.5,
        lr: 0.05,
        keep: Keep::Last,
        upsample: Upsample::Bilinear,
    }
}

fn relex() -> RelEx {
    RelEx {
        copies: 3,
        noise: 0.1,
        iterations: 4,
        init: Init::Uniform,
        lr: 0.1,
        momentum: 0.99,
        l1: SizeWeight::Given(1e-4),
        l2: 1.0,
        seed: 3,
    }
}

/// Numbers in (0.3, 1.1) that look drawn.
fn scattered(len: usize, salt: usize) -> Vec<f64> {
    (0..len).map(|i| 0.3 + 0.8 * ((i * 7919 + salt * 104_729) % 10_007) as f64 / 10_007.0).collect()
}

/// The slope along `direction` by differences around `at`, compared with the gradient's; steps over kinks are rare enough
/// that the smallest of some step widths shows none.
fn assert_slope(what: &str, gradient: &[f64], direction: &[f64], mut at: impl FnMut(f64) -> f64) {
    let slope: f64 = gradient.iter().zip(direction).map(|(g, d)| g * d).sum();
    let errors: Vec<f64> = [1e-5, 1e-6, 1e-7, 1e-8]
        .iter()
        .map(|&h| ((at(h) - at(-h)) / (2.0 * h) - slope).abs() / slope.abs().max(1e-3))
        .collect();
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{what}: slope {slope:.6}, errors {errors:?}");
    assert!(least <= 1e-6, "{what}: slope {slope}, errors {errors:?}");
}

fn moved(masks: &[f64], direction: &[f64], h: f64) -> Vec<f64> {
    masks.iter().zip(direction).map(|(m, d)| m + h * d).collect()
}

#[test]
fn the_gradient_of_haf_is_that_of_its_objective() {
    for name in ["vgg", "resnet_basic", "resnext"] {
        let net = Net::small(name);
        let mut engine = engine(Precision::F64);
        let reference = engine.forward(&net.graph, &net.x).unwrap();
        let len = net.graph.stages().iter().map(|s| net.graph.node(s.1).shape.len()).sum();
        let masks: Vec<Vec<f64>> = (0..net.x.len()).map(|i| scattered(len, i)).collect();
        for (score, form) in
            [(Score::Logit, Preserved::Class), (Score::LogProb, Preserved::Class), (Score::Logit, Preserved::Vector)]
        {
            let haf = Haf { score, form, ..haf() };
            let here = (&net.x, &net.targets[..], &reference);
            let mut at = |m: &[Vec<f64>], want| haf.objective(&mut engine, &net.graph, here, m, want).unwrap();
            let gradients = at(&masks, Want::Gradient);
            assert_eq!(gradients[0].gradient.len(), len);
            let mut first = 0;
            for (stage, node) in net.graph.stages() {
                let size = net.graph.node(*node).shape.len();
                // One stage is moved at a time: each has its own share of the gradient.
                let direction: Vec<f64> = (0..len)
                    .map(|i| if (first..first + size).contains(&i) { (i % 7) as f64 - 3.0 } else { 0.0 })
                    .collect();
                for i in 0..net.x.len() {
                    assert_slope(
                        &format!("{name} {score:?} {form:?} {stage}"),
                        &gradients[i].gradient,
                        &direction,
                        |h| {
                            let mut all = masks.clone();
                            all[i] = moved(&masks[i], &direction, h);
                            at(&all, Want::Value)[i].objective
                        },
                    );
                }
                first += size;
            }
        }
    }
}

#[test]
fn the_gradient_of_relex_is_that_of_its_objective() {
    for name in ["vgg", "resnet_basic"] {
        let net = Net::small(name);
        let mut engine = engine(Precision::F64);
        let len = net.x.shape().len();
        let masks: Vec<Vec<f64>> = (0..net.x.len()).map(|i| scattered(len, i + 5)).collect();
        for l2 in [0.0, 1.0, 2.5] {
            let relex = RelEx { l2, l1: SizeWeight::Given(1e-2), ..relex() };
            let mut at =
                |m: &[Vec<f64>]| relex.objective(&mut engine, &net.graph, (&net.x, &net.targets), m, 7).unwrap();
            let gradients = at(&masks);
            let direction: Vec<f64> = (0..len).map(|i| (i % 5) as f64 - 2.0).collect();
            for i in 0..net.x.len() {
                assert_slope(&format!("{name} l2={l2}"), &gradients[i].gradient, &direction, |h| {
                    let mut all = masks.clone();
                    all[i] = moved(&masks[i], &direction, h);
                    at(&all)[i].objective
                });
            }
        }
    }
}

/// The objective once more, from the definition: noise drawn here, forward passes by the plain engine.
#[test]
fn the_objective_of_relex_is_its_definition() {
    let net = Net::small("vgg_bn");
    let mut engine = engine(Precision::F64);
    let len = net.x.shape().len();
    let relex = RelEx { l2: 0.7, l1: SizeWeight::Auto, ..relex() };
    let masks: Vec<Vec<f64>> = (0..net.x.len()).map(|i| scattered(len, i)).collect();
    let iteration = 11;
    let got = relex.objective(&mut engine, &net.graph, (&net.x, &net.targets), &masks, iteration).unwrap();
    for (i, got) in got.iter().enumerate() {
        let x = net.x.items()[i].to_f64().into_owned();
        let (lo, hi) = x.iter().fold((f64::MAX, f64::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        let mut sum = 0.0;
        for copy in 0..relex.copies {
            let mut z = vec![0f32; len];
            let sample = (iteration * relex.copies + copy) as u32;
            verilume::random::fill_normals(relex.seed, net.x.keys()[i], sample, 0, &mut z);
            let noisy: Vec<f64> = x.iter().zip(&z).map(|(x, z)| x + 0.1 * (hi - lo) * f64::from(*z)).collect();
            let mut p = |factor: &dyn Fn(f64) -> f64| {
                let masked = noisy.iter().zip(&masks[i]).map(|(x, &m)| factor(m) * x).collect();
                let masked = Tensor::f64(net.x.shape().dims(), masked).unwrap();
                let logits = engine.forward(&net.graph, &Batch::of(vec![masked]).unwrap()).unwrap();
                softmax(&logits.to_f64())[net.targets[i]]
            };
            sum -= p(&|m| m).ln() + 0.7 * (1.0 - p(&|m| 1.0 - m) + 1e-7).ln();
        }
        let size: f64 = masks[i].iter().sum();
        let want = sum / relex.copies as f64 + 1e-4 * 150_528.0 / len as f64 * size;
        let within = (got.objective - want).abs() <= 1e-9 * want.abs();
        assert!(within, "{} for {want}", got.objective);
    }
}

#[test]
fn the_best_masks_are_those_of_the_lowest_objective() {
    let net = Net::small("vgg");
    let mut engine = engine(Precision::F64);
    // Steps too large to fall all the way.
    let wild = Haf { lr: 0.4, iterations: 12, ..haf() };
    let last = wild.stage_masks(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
    let best = Haf { keep: Keep::Best, ..wild.clone() };
    let best = best.stage_masks(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
    let reference = engine.forward(&net.graph, &net.x).unwrap();
    let whole = |found: &[verilume::method::haf::StageMasks]| -> Vec<Vec<f64>> {
        found.iter().map(|f| f.masks.iter().flat_map(|m| m.to_f64().into_owned()).collect()).collect()
    };
    let here = (&net.x, &net.targets[..], &reference);
    let of_last = wild.objective(&mut engine, &net.graph, here, &whole(&last), Want::Value).unwrap();
    let of_best = wild.objective(&mut engine, &net.graph, here, &whole(&best), Want::Value).unwrap();
    for i in 0..net.x.len() {
        assert_eq!(last[i].objectives, best[i].objectives);
        assert_eq!(last[i].objectives.len(), 13);
        assert_eq!(last[i].objectives.last(), Some(&of_last[i].objective));
        let least = last[i].objectives.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(of_best[i].objective, least);
        assert_eq!((best[i].score, best[i].masked_score), (last[i].score, of_best[i].score));
    }
    assert!(of_best.iter().zip(&of_last).any(|(best, last)| best.objective < last.objective), "nothing to tell apart");
}

/// The map's gap is measured on the masks that were kept.
#[test]
fn what_haf_preserves_is_reported() {
    let net = Net::small("resnet_basic");
    let mut engine = engine(Precision::F64);
    let maps = net.explain(&mut engine, "haf:iterations=5", Score::Logit, 0).unwrap();
    let found = haf().stage_masks(&mut engine, &net.graph, &net.x, &net.targets).unwrap();
    let stages = net.graph.stages();
    for (map, found) in maps.iter().zip(&found) {
        let gap = map.gap.as_ref().unwrap();
        assert_eq!(gap.promise, "preservation");
        assert_eq!(gap.value, found.masked_score - found.score);
        assert_eq!(gap.relative, Some(gap.value.abs() / found.score.abs()));
        assert_eq!(map.values.dims(), [net.x.shape().h, net.x.shape().w]);
        assert!(map.values.to_f64().iter().all(|v| (0.0..=1.0 + 1e-12).contains(v)));
        assert_eq!(found.masks.len(), stages.len());
        for (mask, (_, node)) in found.masks.iter().zip(stages) {
            assert_eq!(mask.dims(), net.graph.node(*node).shape.dims());
            assert!(mask.to_f64().iter().all(|&m| m >= 0.0));
        }
    }
}

#[test]
fn masks_of_relex_lie_between_0_and_1_and_depend_on_the_seed() {
    let net = Net::small("vgg");
    let mut engine = engine(Precision::F32);
    let mut masks = |spec: &str, seed| -> Vec<Map> { net.explain(&mut engine, spec, Score::Logit, seed).unwrap() };
    let some = masks("relex:copies=2,iterations=6", 1);
    for map in &some {
        assert_eq!(map.values.dims(), net.x.shape().dims());
        assert!(map.values.to_f64().iter().all(|m| (0.0..=1.0).contains(m)));
    }
    let start = masks("relex:iterations=0", 1);
    assert!(start[0].values.to_f64().iter().all(|m| (0.0..=0.01).contains(m)));
    assert_ne!(start[0].values, start[1].values, "each picture has draws of its own");
    assert_ne!(masks("relex:copies=2,iterations=6", 2)[0].values, some[0].values);
    let still = |seed| -> Vec<Map> {
        net.explain(
            &mut self::engine(Precision::F32),
            "relex:copies=1,noise=0,init=0.5,iterations=2",
            Score::Logit,
            seed,
        )
        .unwrap()
    };
    assert_eq!(still(1)[0].values, still(2)[0].values, "nothing is drawn that counts");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let net = Net::small("vgg");
    for (spec, part) in [
        ("haf:form=both", "form=both"),
        ("haf:keep=first", "keep=first"),
        ("haf:upsample=none", "upsample=none"),
        ("haf:lambda=-1", "lambda=-1"),
        ("haf:lr=nan", "lr=NaN"),
        ("haf:iterations=-1", "iterations=-1"),
        ("haf:preset=slow", "paper and quick"),
        ("relex:copies=0", "copies=0"),
        ("relex:copies=1048576,iterations=1048576", "1e7 at most"),
        ("relex:init=2", "init=2"),
        ("relex:init=some", "init=some"),
        ("relex:momentum=1", "momentum=1"),
        ("relex:noise=-0.1", "noise=-0.1"),
        ("relex:l1=inf", "l1=inf"),
        ("relex:l2=none", "l2=none"),
        ("relex:preset=slow", "paper and quick"),
    ] {
        let error = build(spec, Score::Logit, 0, &net.preprocess).map(|_| ()).expect_err(spec);
        assert_eq!(error.kind(), ErrorKind::Settings, "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    for (spec, part) in [
        ("meaningful_perturbation:beta=0.5", "beta=0.5"),
        ("meaningful_perturbation:grid=0", "grid=0"),
        ("meaningful_perturbation:blur=0", "blur=0"),
        ("meaningful_perturbation:smooth=0", "smooth=0"),
        ("meaningful_perturbation:init=-1", "init=-1"),
        ("meaningful_perturbation:jitter=inf", "jitter=inf"),
        ("extremal_perturbation:area=0", "area=0"),
        ("extremal_perturbation:area=1", "area=1"),
        ("extremal_perturbation:levels=1", "levels=1"),
        ("extremal_perturbation:momentum=1", "momentum=1"),
        ("extremal_perturbation:growth=10", "growth=10"),
        ("extremal_perturbation:step=0", "step=0"),
    ] {
        let error = build(spec, Score::Logit, 0, &net.preprocess).map(|_| ()).expect_err(spec);
        assert_eq!(error.kind(), ErrorKind::Settings, "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    let error = build("haf:form=vector", Score::Prob, 0, &net.preprocess).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("the score must be the logit"), "{error}");
}

/// One hidden layer of positions; `stages` are named.
fn chain(stages: &[&str]) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(2, 3, 3));
    let left = b.push("left", Op::Relu, &[b.input()]).unwrap();
    let right = b.push("right", Op::Clamp { lo: -1.0, hi: 1.0 }, &[b.input()]).unwrap();
    let sum = b.push("sum", Op::Add, &[left, right]).unwrap();
    let flat = b.push("flatten", Op::Flatten, &[sum]).unwrap();
    let weight = Weight::owned([3, 18, 1, 1], &(0..54).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    let fc = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[flat]).unwrap();
    for (name, id) in [("left", left), ("sum", sum)] {
        if stages.contains(&name) {
            b.stage(name, id);
        }
    }
    b.finish(fc).unwrap()
}

#[test]
fn nets_without_fitting_stages_are_refused() {
    let x = Batch::new(&Tensor::f32([1, 2, 3, 3], (0..18).map(|i| i as f32 / 9.0 - 1.0).collect()).unwrap()).unwrap();
    let mut engine = engine(Precision::F64);
    let mut refusal = |stages: &[&str]| haf().stage_masks(&mut engine, &chain(stages), &x, &[1]);
    let error = refusal(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(error.to_string().contains("no stages"), "{error}");
    let error = refusal(&["left", "sum"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    assert!(error.to_string().contains("'left'"), "{error}");
    assert_eq!(refusal(&["sum"]).unwrap()[0].masks.len(), 1);
}

#[test]
fn progress_is_told_with_the_objective() {
    let net = Net::small("vgg");
    for (spec, total) in [
        ("haf:iterations=4", 4),
        ("relex:copies=2,iterations=3", 3),
        ("meaningful_perturbation:iterations=3", 3),
        ("extremal_perturbation:iterations=3", 3),
    ] {
        let mut engine = engine(Precision::F64);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        engine.observe(Box::new(move |p: &Progress<'_>| {
            ear.lock().unwrap().push((p.method.to_string(), p.done, p.total, p.objective));
        }));
        net.explain(&mut engine, spec, Score::Logit, 0).unwrap();
        let heard = heard.lock().unwrap();
        let method = spec.split(':').next().unwrap();
        assert!(heard.iter().all(|h| h.0 == method && h.2 == total), "{heard:?}");
        assert_eq!((heard[0].1, heard[0].3), (0, None), "a call begins at 0");
        assert!(heard[1..].iter().all(|h| h.3.is_some()));
        assert!(heard.windows(2).all(|w| w[0].1 <= w[1].1), "{heard:?}");
        assert_eq!(heard.last().unwrap().1, total);
    }
}

/// The first pictures of the CIFAR-10 test set and the class that the net sees on each.
fn cifar(engine: &mut Engine, count: usize) -> (Arc<Graph>, Batch, Vec<usize>) {
    let folder = PathBuf::from(DATA.unwrap());
    let model = Model::open(&folder.join("cifar10-resnet20.safetensors"), None).unwrap();
    let bytes = std::fs::read(folder.join("cifar10-test-1000.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let images = file.tensor("images").unwrap().data().to_vec();
    let prepared =
        images.chunks(3 * 32 * 32).take(count).map(|p| model.preprocess().from_u8(p, 32, 32).unwrap().tensor);
    let x = Batch::of(prepared.collect()).unwrap();
    let graph = model.graph(x.shape()).unwrap();
    let logits = engine.forward(&graph, &x).unwrap().to_f64().into_owned();
    let best = |l: &[f64]| (0..l.len()).max_by(|&a, &b| l[a].total_cmp(&l[b])).unwrap();
    let targets = logits.chunks(graph.classes()).map(best).collect();
    (graph, x, targets)
}

/// How many pictures the figures are of; `VERILUME_PICTURES=50 cargo test --release --test masks figures -- --nocapture`
/// measures more.
fn pictures(few: usize) -> usize {
    std::env::var("VERILUME_PICTURES").map_or(few, |n| n.parse().unwrap())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = values.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// Softmax probability of each picture's target on `factor(m) ∘ x`.
fn probabilities(
    engine: &mut Engine,
    graph: &Graph,
    (x, targets): (&Batch, &[usize]),
    masks: &[Map],
    factor: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let masked = |(x, map): (&Tensor, &Map)| {
        let values = x.to_f64().iter().zip(map.values.to_f64().iter()).map(|(x, &m)| factor(m) * x).collect();
        Tensor::rounded(x.dims(), values, Precision::F32).unwrap()
    };
    let masked = Batch::of(x.items().iter().zip(masks).map(masked).collect()).unwrap();
    let logits = engine.forward(graph, &masked).unwrap().to_f64().into_owned();
    logits.chunks(graph.classes()).zip(targets).map(|(l, &t)| softmax(l)[t]).collect()
}

/// Without steps a map is what descent starts from.
#[test]
fn perturbations_start_where_they_say() {
    let net = Net::small("vgg_bn");
    let mut engine = engine(Precision::F64);
    let mut maps = |spec: &str| net.explain(&mut engine, spec, Score::Logit, 0).unwrap();
    for map in maps("meaningful_perturbation:iterations=0,init=0.25") {
        assert!(map.values.to_f64().iter().all(|m| (m - 0.75).abs() <= 1e-12), "1 − M");
    }
    for map in maps("meaningful_perturbation:iterations=0") {
        // A centred circle: symmetric, and nowhere greater than in the middle.
        let values = map.values.to_f64();
        let [h, w] = [map.values.dims()[0], map.values.dims()[1]];
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            let v = values[y * w + x];
            assert!((v - values[(h - 1 - y) * w + w - 1 - x]).abs() <= 1e-12);
            assert!(v <= values[h / 2 * w + w / 2] + 1e-12);
        }
    }
    for map in maps("extremal_perturbation:iterations=0,area=0.3") {
        let mean = mean(map.values.to_f64().iter().copied());
        let gap = map.gap.as_ref().unwrap();
        assert_eq!((&*gap.promise, gap.relative), ("area", Some(gap.value.abs() / 0.3)));
        assert!((gap.value - (mean - 0.3)).abs() <= 1e-12);
        assert!(mean > 0.3 && map.values.to_f64().iter().all(|m| (0.0..=0.5).contains(m)));
    }
}

/// Share of windows of a tenth of the steps whose mean lies below that of the window before.
fn falling(objectives: &[f64]) -> f64 {
    let size = (objectives.len() / 10).max(1);
    let means: Vec<f64> = objectives.chunks_exact(size).map(|w| mean(w.iter().copied())).collect();
    means.windows(2).filter(|w| w[1] < w[0]).count() as f64 / (means.len() - 1) as f64
}

fn describe(objectives: &[Vec<f64>]) -> Vec<f64> {
    (0..objectives[0].len()).map(|k| mean(objectives.iter().map(|o| o[k]))).collect()
}

/// The mask keeps the class and its complement loses it: paired over pictures, surely.
#[needs::shared_data]
#[test]
fn figures_of_relex() {
    let mut engine = engine(Precision::F32);
    for (preset, few) in [("paper", 4), ("quick", 20)] {
        let (graph, x, targets) = cifar(&mut engine, pictures(few));
        let start = std::time::Instant::now();
        let spec = format!("relex:preset={preset}");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        engine.observe(Box::new(move |p: &Progress<'_>| ear.lock().unwrap().extend(p.objective)));
        let preprocess = Net::small("vgg").preprocess;
        let method = build(&spec, Score::Logit, 1, &preprocess).unwrap();
        let maps = method.explain(&mut engine, &graph, &x, &targets).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let mut p = |factor: fn(f64) -> f64| probabilities(&mut engine, &graph, (&x, &targets), &maps, factor);
        let (whole, kept, lost) = (p(|_| 1.0), p(|m| m), p(|m| 1.0 - m));
        let objectives = heard.lock().unwrap().clone();
        let size = mean(maps.iter().map(|m| mean(m.values.to_f64().iter().copied())));
        let paired = |a: &[f64]| {
            let differences: Vec<f64> = a.iter().zip(&lost).map(|(a, lost)| a - lost).collect();
            Bootstrap::new(0).mean(&differences).unwrap().unwrap()
        };
        let (from_whole, from_kept) = (paired(&whole), paired(&kept));
        let of = |p: &[f64]| mean(p.iter().copied());
        println!(
            "{spec} on {} pictures: mean p(x) {:.4}, p(m∘x) {:.4}, p((1−m)∘x) {:.4}; p(x) − p((1−m)∘x) {from_whole:.3?}, p(m∘x) − \
             p((1−m)∘x) {from_kept:.3?}; mean m {size:.4}, objective {:.3} to {:.3}, falling in {:.0} %, {seconds:.1} s\n{objectives:.3?}",
            x.len(),
            of(&whole),
            of(&kept),
            of(&lost),
            objectives[0],
            objectives.last().unwrap(),
            100.0 * falling(&objectives)
        );
        assert!(from_whole.low.unwrap() > 0.0, "{spec}: p(x) − p((1−m)∘x) {from_whole:?}");
        assert!(from_kept.low.unwrap() > 0.0, "{spec}: p(m∘x) − p((1−m)∘x) {from_kept:?}");
        // The last objective is of other copies than the first; it falls all the same.
        assert!(objectives.last().unwrap() < &objectives[0]);
    }
}

#[needs::shared_data]
#[test]
fn figures_of_haf() {
    let mut engine = engine(Precision::F32);
    let (graph, x, targets) = cifar(&mut engine, pictures(10));
    let rows = [
        ("paper", Haf { iterations: 30, ..haf() }, 0.15),
        ("lambda=0.05,iterations=100", Haf { iterations: 100, lambda: 0.05, ..haf() }, 0.03),
        ("quick", Haf { iterations: 10, lr: 0.15, ..haf() }, f64::INFINITY),
    ];
    for (name, haf, most) in rows {
        let start = std::time::Instant::now();
        let found = haf.stage_masks(&mut engine, &graph, &x, &targets).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let miss = mean(found.iter().map(|f| (f.masked_score - f.score).abs()));
        let score = mean(found.iter().map(|f| f.score.abs()));
        let share = mean(found.iter().map(|f| (f.masked_score - f.score).abs() / f.score.abs()));
        let objectives = describe(&found.iter().map(|f| f.objectives.clone()).collect::<Vec<_>>());
        println!(
            "haf {name} on {} pictures: mean |f(x;M) − f(x)| {miss:.4} of mean |f(x)| {score:.4}: {:.2} % (mean of shares \
             {:.2} %), objective {:.2} to {:.2}, falling in {:.0} %, {seconds:.1} s\n{objectives:.2?}",
            x.len(),
            100.0 * miss / score,
            100.0 * share,
            objectives[0],
            objectives.last().unwrap(),
            100.0 * falling(&objectives)
        );
        assert!(miss <= most * score, "{name}: {miss} of {score}");
        assert!(objectives.last().unwrap() < &objectives[0]);
        assert!(falling(&objectives) >= 0.9, "{name}: {objectives:?}");
    }
}

#[needs::shared_data]
#[test]
fn figures_of_perturbations() {
    let mut engine = engine(Precision::F32);
    let (graph, x, targets) = cifar(&mut engine, pictures(5));
    for spec in [
        "meaningful_perturbation:preset=paper",
        "meaningful_perturbation:preset=quick",
        "extremal_perturbation:preset=paper",
        "extremal_perturbation:preset=quick",
    ] {
        let start = std::time::Instant::now();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        engine.observe(Box::new(move |p: &Progress<'_>| ear.lock().unwrap().extend(p.objective)));
        let method = build(spec, Score::Logit, 1, &Net::small("vgg").preprocess).unwrap();
        let maps = method.explain(&mut engine, &graph, &x, &targets).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let objectives = heard.lock().unwrap().clone();
        let (first, last) = (objectives[0], *objectives.last().unwrap());
        let size = mean(maps.iter().map(|m| mean(m.values.to_f64().iter().copied())));
        println!(
            "{spec} on {} pictures: objective {first:.4} to {last:.4}, mean of the map {size:.4}, {seconds:.1} s",
            x.len()
        );
        assert!(last < first, "{spec}: {objectives:?}");
        if let Some(gap) = &maps[0].gap {
            let worst = maps.iter().filter_map(|m| m.gap.as_ref()?.relative).fold(0.0, f64::max);
            println!("worst gap of the {}: {:.1} %", gap.promise, 100.0 * worst);
            assert!(worst <= 0.5, "{spec}: {worst}");
        }
    }
}
