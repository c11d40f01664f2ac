//! A net with one output is a sigmoid: class 1 has its logit, class 0 the logit with the sign changed, for every method,
//! metric, attack and test.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod nets;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use nets::Net;
use serde_json::Value;
use verilume::engine::{Engine, Settings};
use verilume::graph::{Graph, GraphBuilder, Linear, Link, Op, Weight};
use verilume::map::Map;
use verilume::method::{Context, Entry, Spec, registry};
use verilume::program::Score;
use verilume::reliability::randomise::{layers, randomised};
use verilume::tensor::{Precision, Shape};

/// `net` with the first of its outputs alone.
fn first_output(net: &Graph) -> Graph {
    let mut builder = GraphBuilder::new(net.input_shape());
    for id in net.ids().skip(1) {
        let node = net.node(id);
        let op = match &node.op {
            Op::Linear(l) if id == net.output() => {
                let row: Vec<f32> = l.weight.to_f64()[..l.weight.row_len()].iter().map(|&v| v as f32).collect();
                let weight = Weight::owned([1, row.len(), 1, 1], &row).unwrap();
                Op::Linear(Linear { weight, bias: l.bias.as_ref().map(|b| b[..1].into()) })
            }
            op => op.clone(),
        };
        builder.push(node.name.clone(), op, &node.inputs).unwrap();
    }
    net.stages().iter().for_each(|(name, id)| builder.stage(name.clone(), *id));
    builder.finish(net.output()).unwrap()
}

fn maps(engine: &mut Engine, graph: &Graph, net: &Net, (spec, score): (&str, Score), target: usize) -> Vec<Map> {
    let load = |path: &Path| panic!("{}", path.display());
    let context = Context { seed: 3, score, preprocess: &net.preprocess, load: &load };
    let method = Spec::parse(spec).unwrap().build(&context).unwrap();
    let what = format!("{spec} {score:?} for {target}");
    method.explain(engine, graph, &net.x, &vec![target; net.x.len()]).unwrap_or_else(|e| panic!("{what}: {e}"))
}

fn sigma(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[test]
fn two_classes_have_the_logit_and_its_negative() {
    let net = Net::small("resnet_basic");
    let one = first_output(&net.graph);
    let two = one.two_classes().unwrap();
    assert_eq!((one.classes(), one.link()), (1, Link::Sigmoid));
    assert_eq!((two.classes(), two.link()), (2, Link::Sigmoid));
    assert_eq!((two.parameters(), two.nodes().len()), (one.parameters(), one.nodes().len()));
    assert_eq!((net.graph.link(), net.graph.two_classes().unwrap().classes()), (Link::Softmax, net.graph.classes()));
    let resized = two.resized(two.input_shape()).unwrap().fold().unwrap().softened(10.0).unwrap();
    assert_eq!((resized.link(), resized.classes()), (Link::Sigmoid, 2));
    for settings in nets::machines() {
        let mut engine = Engine::new(&settings).unwrap();
        let z = engine.forward(&one, &net.x).unwrap().to_f64().into_owned();
        let both = engine.forward(&two, &net.x).unwrap().to_f64().into_owned();
        let want: Vec<f64> = z.iter().flat_map(|&z| [-z, z]).collect();
        assert_eq!(both, want, "{settings:?}");
    }
    // A net with a ReLU at its output says nothing of its other class.
    let mut builder = GraphBuilder::new(Shape::vector(3));
    let weight = Weight::owned([1, 3, 1, 1], &[1.0, 2.0, 3.0]).unwrap();
    let fc = builder.push("fc", Op::Linear(Linear { weight, bias: None }), &[builder.input()]).unwrap();
    let relu = builder.push("end", Op::Relu, &[fc]).unwrap();
    let why = builder.finish(relu).unwrap().two_classes().unwrap_err().to_string();
    assert!(why.contains("'end'") && why.contains("one output"), "{why}");
}

/// Signs are changed in the stored bits, whatever they encode.
#[test]
fn mirrored_weights_are_exact() {
    let numbers = [1.5f64, -0.25, 0.0, 1e-3];
    let weight = Weight::owned([1, 4, 1, 1], &numbers.map(|v| v as f32)).unwrap();
    let own = weight.to_f64();
    let want: Vec<f64> = own.iter().map(|v| -v).chain(own.iter().copied()).collect();
    assert_eq!(weight.mirrored().unwrap().to_f64(), want);
    let scaled = weight.scaled(&[3.0]).unwrap();
    let own = scaled.to_f64();
    let want: Vec<f64> = own.iter().map(|v| -v).chain(own.iter().copied()).collect();
    assert_eq!(scaled.mirrored().unwrap().to_f64(), want);
    assert!(weight.mirrored().unwrap().mirrored().is_err());
}

/// A method with few copies and steps.
fn few(entry: &Entry) -> String {
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

/// Class 1's maps are those of the one logit, number for number; those of class 0 have the score with the sign changed.
#[test]
fn every_method_explains_the_one_logit() {
    let net = Net::small("resnet_basic");
    let one = first_output(&net.graph);
    let two = one.two_classes().unwrap();
    let mut engine = Engine::new(&Settings { threads: Some(2), ..Settings::default() }).unwrap();
    for entry in registry().iter().filter(|entry| entry.required().is_none()) {
        for score in [Score::Logit, Score::Prob, Score::LogProb] {
            if entry.id == "haf" && score != Score::Logit {
                continue;
            }
            let spec = few(entry);
            let alone = maps(&mut engine, &one, &net, (&spec, score), 0);
            let yes = maps(&mut engine, &two, &net, (&spec, score), 1);
            for (alone, yes) in alone.iter().zip(&yes) {
                assert_eq!(alone.values, yes.values, "{spec} {score:?}");
                assert_eq!(yes.target, 1);
                let gaps = [alone, yes].map(|m| m.gap.as_ref().map(|g| g.value));
                assert_eq!(gaps[0], gaps[1], "{spec} {score:?}");
            }
        }
    }
    let drawn = [&one, &two].map(|graph| randomised(graph, &layers(graph)[..1], 5).unwrap());
    let [alone, yes] =
        [(&drawn[0], 0), (&drawn[1], 1)].map(|(g, t)| maps(&mut engine, g, &net, ("gradient", Score::Logit), t));
    assert_eq!(alone[0].values, yes[0].values, "a randomised net");
    assert_eq!(drawn[1].link(), Link::Sigmoid);
}

#[test]
fn gradients_are_those_of_a_sigmoid() {
    let net = Net::small("resnet_basic");
    let two = first_output(&net.graph).two_classes().unwrap();
    let mut engine = Engine::new(&Settings { precision: Precision::F64, ..Settings::default() }).unwrap();
    let z = engine.forward(&two, &net.x).unwrap().to_f64().into_owned();
    let plain = maps(&mut engine, &two, &net, ("gradient", Score::Logit), 1);
    for (target, sign) in [(0, -1.0), (1, 1.0)] {
        for score in [Score::Logit, Score::Prob, Score::LogProb] {
            let found = maps(&mut engine, &two, &net, ("gradient", score), target);
            for (i, (found, plain)) in found.iter().zip(&plain).enumerate() {
                let z = sign * z[2 * i + 1];
                let slope = sign
                    * match score {
                        Score::Prob => sigma(z) * sigma(-z),
                        Score::LogProb => sigma(-z),
                        _ => 1.0,
                    };
                let plain = plain.values.to_f64();
                let size = plain.iter().fold(0.0f64, |m, p| m.max(p.abs()));
                for (f, p) in found.values.to_f64().iter().zip(plain.iter()) {
                    assert!((f - slope * p).abs() <= 1e-13 * size, "{score:?} {target}: {f} for {}", slope * p);
                }
            }
        }
    }
}

/// The kernels of a GPU score one output as the CPU does.
#[cfg(feature = "cuda")]
#[test]
fn emulated_kernels_know_the_sigmoid() {
    let net = Net::small("vgg");
    let two = first_output(&net.graph).two_classes().unwrap();
    let mut cpu = Engine::new(&Settings { precision: Precision::F64, ..Settings::default() }).unwrap();
    let mut gpu = Engine::new(&nets::gpu(1)).unwrap();
    for score in [Score::Logit, Score::Prob, Score::LogProb] {
        for target in [0, 1] {
            let [want, found] =
                [&mut cpu, &mut gpu].map(|engine| maps(engine, &two, &net, ("gradient", score), target));
            for (want, found) in want.iter().zip(&found) {
                let (want, found) = (want.values.to_f64(), found.values.to_f64());
                let size = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let apart = want.iter().zip(found.iter()).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                assert!(size > 0.0 && apart <= 1e-3 * size, "{score:?} {target}: {apart} of {size}");
            }
        }
    }
}

/// A folder with the net of one output and its picture.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/one-output");
    for name in ["one.safetensors", "p.png"] {
        std::fs::copy(cases.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).args(["--device", "cpu"]).stdin(Stdio::null());
    command.output().unwrap()
}

fn told(output: &Output) -> Vec<Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let lines = output.stdout.split(|&b| b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn explained(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    told(&run(folder, &[&["explain", "p.png", "--model", "one.safetensors", "--json"], arguments].concat()))
}

/// The numbers of a `.npy` file of single precision.
fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn map(folder: &Path, record: &Value) -> Vec<f32> {
    let files = record["files"].as_object().map_or_else(
        || record["files"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        |o| o.values().map(|v| v.as_str().unwrap().to_owned()).collect(),
    );
    let file = files.into_iter().find(|f| f.ends_with(".npy")).unwrap();
    npy(&folder.join(file))
}

#[test]
fn prob_is_the_sigmoid_and_its_gradient() {
    let folder = folder();
    let folder = folder.path();
    let methods = ["-m", "gradient", "-m", "ig", "--format", "npy", "-o", "out"];
    let records =
        |score: &str, target: &str| explained(folder, &[&methods[..], &["--score", score, "-t", target]].concat());
    let logit = records("logit", "top1");
    let z = logit[0]["score"].as_f64().unwrap();
    assert!((z - 0.2349).abs() < 5e-5, "{z}");
    assert_eq!((logit[0]["target"].as_u64(), logit[0]["target_label"].as_str()), (Some(1), Some("yes")));
    assert_eq!(logit[0]["prediction"][1]["score"].as_f64(), Some(-z));
    let plain: Vec<f32> = map(folder, &logit[0]);
    let prob = records("prob", "top1");
    let p = prob[0]["score"].as_f64().unwrap();
    assert!((p - 0.5584).abs() < 1e-4 && (p - sigma(z)).abs() < 1e-12, "{p}");
    let gradient = map(folder, &prob[0]);
    let size = plain.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
    assert!(size > 0.0);
    for (g, w) in gradient.iter().zip(&plain) {
        let want = p * (1.0 - p) * f64::from(*w);
        assert!((f64::from(*g) - want).abs() <= 1e-5 * size, "{g} for {want}");
    }
    assert!(map(folder, &prob[1]).iter().any(|&v| v != 0.0), "integrated gradients");
    let not = records("logprob", "0");
    assert!((not[0]["score"].as_f64().unwrap() - sigma(-z).ln()).abs() < 1e-12);
    assert_eq!(not[0]["target_label"].as_str(), Some("not"));
    for (g, w) in map(folder, &not[0]).iter().zip(&plain) {
        let want = -p * f64::from(*w);
        assert!((f64::from(*g) - want).abs() <= 1e-5 * size, "{g} for {want}");
    }
    assert_eq!(records("logit", "least")[0]["target"].as_u64(), Some(0));
    assert_eq!(records("logit", "top:2").len(), 4);
    let beyond = run(folder, &["explain", "p.png", "--model", "one.safetensors", "-t", "2", "-o", "beyond"]);
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("class 2 does not exist, the net has 2 (0 to 1)"));
    // Masks are weighed with probabilities that differ.
    for method in ["rise:n=20", "score_cam", "relex:preset=quick", "meaningful_perturbation:preset=quick"] {
        let found = explained(folder, &["-m", method, "--format", "npy", "-o", "out"]);
        let values = map(folder, &found[0]);
        assert!(values.iter().any(|v| *v != values[0]), "{method}");
    }
}

#[test]
fn labels_are_two_lines_or_the_name_of_class_one() {
    let folder = folder();
    let folder = folder.path();
    let with = |text: &str| {
        std::fs::write(folder.join("labels.txt"), text).unwrap();
        run(
            folder,
            &[
                "explain",
                "p.png",
                "--model",
                "one.safetensors",
                "--json",
                "--labels",
                "labels.txt",
                "-t",
                "0",
                "-o",
                "out",
            ],
        )
    };
    let label = |text: &str| told(&with(text))[0]["target_label"].as_str().unwrap().to_owned();
    assert_eq!(label("cat\n"), "not cat");
    assert_eq!(label("dog\ncat\n"), "dog");
    let three = with("a\nb\nc\n");
    assert_eq!(three.status.code(), Some(2));
    let said = String::from_utf8_lossy(&three.stderr).into_owned();
    assert!(said.contains("3 names for a net of 2 classes") && said.contains("the name of class 1 alone"), "{said}");
    let named = explained(folder, &["-t", "yes", "-o", "out"]);
    assert_eq!(named[0]["target"].as_u64(), Some(1));
    let info = run_plain(folder, &["model", "info", "--model", "one.safetensors", "--json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((info["classes"].as_u64(), info["link"].as_str()), (Some(2), Some("sigmoid")));
    let described = run_plain(folder, &["model", "info", "--model", "one.safetensors"]);
    assert!(String::from_utf8_lossy(&described.stdout).contains("one output"));
}

fn run_plain(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Curves of a sigmoid are no constant, and a test that asks for another class has none to ask for.
#[test]
fn tests_and_metrics_use_the_sigmoid() {
    let folder = folder();
    let folder = folder.path();
    let check = run(
        folder,
        &[
            "check",
            "p.png",
            "--model",
            "one.safetensors",
            "-m",
            "gradient",
            "-m",
            "rise:n=30",
            "--score",
            "prob",
            "--json",
            "-o",
            "report",
        ],
    );
    assert!(matches!(check.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&check.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("report/check.json")).unwrap()).unwrap();
    let text = report.to_string();
    assert!(text.contains("the net has one output"), "wrong_class: {text}");
    let mut values = Vec::new();
    collect(&report, "deletion", &mut values);
    assert!(!values.is_empty() && values.iter().all(|&v| v != 0.0), "curves of a constant: {values:?}");

    std::fs::create_dir_all(folder.join("data/not")).unwrap();
    std::fs::create_dir_all(folder.join("data/yes")).unwrap();
    std::fs::copy(folder.join("p.png"), folder.join("data/yes/p.png")).unwrap();
    std::fs::copy(folder.join("p.png"), folder.join("data/not/q.png")).unwrap();
    let eval = run(
        folder,
        &[
            "eval",
            "--data",
            "data",
            "--model",
            "one.safetensors",
            "-m",
            "gradient",
            "-m",
            "rise:n=30",
            "--metric",
            "deletion",
            "--json",
            "-o",
            "measured",
        ],
    );
    assert!(eval.status.success(), "{}", String::from_utf8_lossy(&eval.stderr));
    let attack = run(
        folder,
        &[
            "attack",
            "p.png",
            "--model",
            "one.safetensors",
            "-a",
            "pgd:iterations=10,epsilon=0.03",
            "--json",
            "-o",
            "attacked",
        ],
    );
    let record = &told(&attack)[0];
    let [before, after] = ["prediction_before", "prediction_after"].map(|key| &record[key]);
    for prediction in [before, after] {
        let p: f64 = prediction.as_array().unwrap().iter().map(|c| c["score"].as_f64().unwrap()).sum();
        assert!((p - 1.0).abs() < 1e-12, "σ(z) + σ(−z) = {p}");
    }
    assert_eq!(before[0]["index"].as_u64(), Some(1));
    assert!(before[0]["score"].as_f64().unwrap() > 0.5584 - 1e-3);
    let (first, last) = (record["objective_before"].as_f64().unwrap(), record["objective_after"].as_f64().unwrap());
    assert!(last > first, "the cross-entropy rose from {first} to {last}");
}

/// Measured values of a test, wherever they are in a report.
fn collect(value: &Value, test: &str, found: &mut Vec<f64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| collect(v, test, found)),
        Value::Object(fields) => {
            if fields.get("test").or(fields.get("id")).and_then(Value::as_str) == Some(test)
                && let Some(v) = fields.get("value").and_then(Value::as_f64)
            {
                found.push(v);
            }
            fields.values().for_each(|v| collect(v, test, found));
        }
        _ => {}
    }
}
