//! What methods promise, measured on every kind of net there is: a small one of each in double precision.
//!
//! `UPDATE_DOCS=1 cargo test --release --test promises` writes the table into `docs/methods.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use nets::{Net, SMALL, brief, publish};
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::Graph;
use verilume::image::Preprocess;
use verilume::map::Map;
use verilume::method::patterns::{Estimator, Fit, Patterns, pattern_attribution, pattern_net};
use verilume::method::{Context, Entry, Promise, Spec, registry};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::rule::Preset;
use verilume::tensor::{Precision, Shape, Tensor};
use verilume::{Error, ErrorKind, Result};

/// A net, one picture and the class the net gives it.
struct Subject {
    name: String,
    graph: Arc<Graph>,
    preprocess: Preprocess,
    x: Batch,
    target: usize,
}

impl Subject {
    fn new(name: &str, graph: Arc<Graph>, preprocess: Preprocess, x: Batch, engine: &mut Engine) -> Self {
        let logits = engine.forward(&graph, &x).unwrap();
        let target = (0..graph.classes()).max_by(|&a, &b| logits.at(a).total_cmp(&logits.at(b))).unwrap();
        Self { name: name.into(), graph, preprocess, x, target }
    }

    /// Random weights, a noise picture.
    fn random(name: &str, model: &Model, shape: Shape, engine: &mut Engine) -> Self {
        let mut noise = vec![0f32; shape.len()];
        random::fill_normals(7, 1, 0, 0, &mut noise);
        let x = Batch::of(vec![Tensor::f32(shape.dims(), noise).unwrap()]).unwrap();
        Self::new(name, model.graph(shape).unwrap(), model.preprocess().clone(), x, engine)
    }

    /// Patterns of the net, fitted on noise.
    fn patterns(&self, engine: &mut Engine) -> Patterns {
        let mut fit = Fit::new(&self.graph, Estimator::Relu, 2).unwrap();
        let mut noise = vec![0f32; self.x.shape().len()];
        let pictures = (0..6).map(|i| {
            random::fill_normals(8, i, 0, 0, &mut noise);
            Tensor::f32(self.x.shape().dims(), noise.clone()).unwrap()
        });
        fit.add(engine, &self.graph, &Batch::of(pictures.collect()).unwrap()).unwrap();
        fit.finish(&self.graph, BTreeMap::new()).unwrap()
    }

    fn explain(&self, engine: &mut Engine, spec: &Spec) -> Result<Map> {
        let load = |path: &Path| Err(Error::input(format!("{} is not there", path.display())));
        let context = Context { seed: 0, score: Score::Logit, preprocess: &self.preprocess, load: &load };
        Ok(spec.build(&context)?.explain(engine, &self.graph, &self.x, &[self.target])?.remove(0))
    }
}

/// One of every architecture that the loader knows.
fn subjects(engine: &mut Engine) -> Vec<Subject> {
    let mut all = Vec::new();
    for name in SMALL {
        let net = Net::small(name);
        let x = Batch::of(vec![net.x.items()[0].clone()]).unwrap();
        all.push(Subject::new(name, net.graph, net.preprocess, x, engine));
    }
    let [alexnet, cifar, mlp] = ["alexnet", "resnet20", "mlp"].map(|n| Model::random(n, 0).unwrap());
    all.push(Subject::random("alexnet", &alexnet, Shape::new(3, 64, 64), engine));
    all.push(Subject::random("resnet20", &cifar, cifar.default_input(), engine));
    all.push(Subject::random("mlp", &mlp, mlp.default_input(), engine));
    #[cfg(feature = "embedded-model")]
    all.push(Subject::random("lite0", &Model::embedded().unwrap(), Shape::new(3, 64, 64), engine));
    all
}

/// The largest share of its promise that a method may miss in double precision; none where the miss depends on how long it
/// looks (points on a path, steps of an optimiser).
fn most(promise: Promise) -> Option<f64> {
    match promise {
        Promise::FullDecomposition => Some(1e-9),
        Promise::Constraint => Some(0.0),
        _ => None,
    }
}

#[test]
fn promises_are_measured_on_every_kind_of_net() {
    let settings = Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let subjects = subjects(&mut engine);
    let mut table = String::from(
        "By how much methods miss what they promise, as a share of what was promised, in double precision on one picture (a noise\n\
         picture on nets with random weights: alexnet, resnet20, mlp). `refused`: the method has no meaning on this net.\n\n\
         | method | promise |",
    );
    subjects.iter().for_each(|s| write!(table, " {} |", s.name).unwrap());
    write!(table, "\n|---|---|{}\n", "---|".repeat(subjects.len())).unwrap();
    let mut failures = Vec::new();
    for entry in registry() {
        let spec = Spec::parse(&brief(entry)).unwrap();
        let Some(promise) = spec.promises().into_iter().find(|p| p.is_measured()) else { continue };
        write!(table, "| `{}` | {} |", brief(entry), promise.describe().split(';').next().unwrap()).unwrap();
        let mut kept = 0;
        for subject in &subjects {
            let what = format!("{} on {}", entry.id, subject.name);
            match subject.explain(&mut engine, &spec) {
                Ok(map) => {
                    let Some(gap) = map.gap else {
                        failures.push(format!("{what}: no gap was measured"));
                        continue;
                    };
                    kept += 1;
                    let share = gap.relative.unwrap_or(gap.value.abs());
                    let within = share.is_finite() && most(promise).is_none_or(|most| share <= most);
                    if !within || (entry.id == "deep_lift" && !(share <= 1e-3)) {
                        failures.push(format!("{what}: {gap:?}"));
                    }
                    // Which rounding fell where is not worth a change of the table.
                    if share < 1e-9 { table += " < 1e-9 |" } else { write!(table, " {share:.0e} |").unwrap() }
                }
                // A method that cannot run says why, in terms of settings.
                Err(e) if e.kind() == ErrorKind::Settings => table += " refused |",
                Err(e) => failures.push(format!("{what}: {e}")),
            }
        }
        // Patterns come from a file, which this test does not have.
        if kept == 0 && !entry.id.starts_with("pattern_") {
            failures.push(format!("{} ran on no net", entry.id));
        }
        table.push('\n');
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    publish("promises", &table);
}

/// A method with so few passes that it only just does what it does.
fn quickest(entry: &Entry) -> String {
    let few = [("steps", "4"), ("n", "4"), ("iterations", "2"), ("copies", "2")];
    let counts = |key: &str, default: &str| few.iter().find(|f| f.0 == key && default.parse::<usize>().is_ok());
    let mut given: Vec<String> = entry
        .parameters
        .iter()
        .filter_map(|p| counts(p.key, p.default).map(|(key, few)| format!("{key}={few}")))
        .collect();
    // One pass a channel: the last stage has a thousand.
    given.extend((entry.id == "score_cam").then(|| "layer=stage1".to_string()));
    if given.is_empty() { entry.id.into() } else { format!("{}:{}", entry.id, given.join(",")) }
}

/// Every method, and every preset of LRP, on nets with gates, norms, branches and smooth activations: numbers, promises and
/// losses that are said, or a refusal that names the operation.
/// What is wrong with the answer of a method; a refusal names a node.
fn faults(spec: &str, net: &str, map: Result<Map>, promises: &[Promise]) -> Vec<String> {
    let what = format!("{spec} on {net}");
    let map = match map {
        Ok(map) => map,
        Err(e) => {
            println!("{what}: refused, {e}");
            // Patterns of random weights may overflow, which the error says.
            let kinds = matches!(e.kind(), ErrorKind::Settings | ErrorKind::Model);
            let named = e.to_string().contains('\'') && (kinds || spec.starts_with("pattern_"));
            return if named { Vec::new() } else { vec![format!("{what}: {e}")] };
        }
    };
    let mut faults = Vec::new();
    let values = map.values.to_f64();
    if values.iter().any(|v| !v.is_finite()) {
        faults.push(format!("{what}: not finite"));
    }
    // Masks that end at 0 are blank and say so by their gap.
    if values.iter().all(|v| *v == 0.0) && !spec.starts_with("haf") {
        faults.push(format!("{what}: blank"));
    }
    for promise in promises {
        let share = map.gap.as_ref().map(|gap| gap.relative.unwrap_or(gap.value.abs()));
        let kept = match promise {
            Promise::NotNegative => values.iter().all(|v| *v >= 0.0),
            Promise::FullDecomposition => share.is_some_and(|share| share <= 1e-4),
            Promise::Constraint => share.is_some_and(|share| share <= 1e-6),
            // Single precision.
            Promise::Completeness if spec == "deep_lift" => share.is_some_and(|share| share <= 1e-3),
            Promise::Conservation => share.is_some_and(f64::is_finite) && map.shares.is_some(),
            Promise::Completeness | Promise::Preservation | Promise::Area => share.is_some_and(f64::is_finite),
        };
        if !kept {
            faults.push(format!("{what}: {promise:?}, {:?}", map.gap));
        }
    }
    faults
}

#[test]
fn every_method_runs_on_nets_of_today_or_says_why_not() {
    let settings = Settings { threads: Some(2), ..Settings::default() };
    let mut engine = Engine::new(&settings).unwrap();
    let mut failures = Vec::new();
    for name in ["mobilenet_v3_small", "efficientnet_b0", "densenet121", "shufflenet_v2_x1_0", "convnext_tiny"] {
        let subject = Subject::random(name, &Model::random(name, 0).unwrap(), Shape::new(3, 96, 96), &mut engine);
        let presets = Preset::ALL.map(|(preset, _)| format!("lrp:preset={preset}"));
        let fitted = |entry: &&Entry| entry.id.starts_with("pattern_");
        let specs = registry().iter().filter(|e| !fitted(e)).map(quickest).chain(presets);
        for spec in specs.chain(["lrp:gate=split".into()]) {
            let parsed = Spec::parse(&spec).unwrap();
            let map = subject.explain(&mut engine, &parsed);
            failures.extend(faults(&spec, name, map, &parsed.promises()));
        }
        let patterns = subject.patterns(&mut engine);
        for entry in registry().iter().filter(fitted) {
            let make = if entry.id == "pattern_net" { pattern_net } else { pattern_attribution };
            let made = make(patterns.clone(), Score::Logit);
            let map = made.explain(&mut engine, &subject.graph, &subject.x, &[subject.target]);
            let promises: Vec<Promise> = entry.promises.iter().map(|(promise, _)| *promise).collect();
            failures.extend(faults(entry.id, name, map.map(|mut maps| maps.remove(0)), &promises));
        }
        engine.forget(&subject.graph);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
