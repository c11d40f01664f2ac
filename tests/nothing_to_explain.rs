//! Maps with nothing in them, scores that hardly reach the pixels, and settings that cannot say anything: what is zero is told
//! apart from what is small, and both are said.
#![cfg(all(feature = "cli", feature = "embedded-model"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use image::Rgb;
use serde_json::Value;
use verilume::engine::{Batch, Engine, Settings};
use verilume::graph::{Graph, GraphBuilder, Linear, Op, Weight};
use verilume::image::Preprocess;
use verilume::map::Map;
use verilume::method::{Context, Spec};
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// Runs the program in `folder`; it must not panic.
fn verilume(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    let output = command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

/// The numbers of a `.npy` file in single precision.
fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[header..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn write_npy(path: &Path, shape: &str, values: &[f32]) {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

fn plain(path: &Path, colour: [u8; 3]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(40, 40, Rgb(colour)).save(path).unwrap();
}

fn busy(path: &Path) {
    let level = |x: u32, y: u32, c: u32| (x * 9 + y * 13 + c * 85 + (x * y) % 31) as u8;
    image::RgbImage::from_fn(40, 40, |x, y| Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
}

/// Methods that compare a picture with what a constant one is itself.
const COMPARING: [&str; 9] = [
    "blur_ig:steps=4",
    "ig:steps=2,baseline=blur:3",
    "ig:steps=2,baseline=mean",
    "guided_ig:steps=2,baseline=mean",
    "deep_lift:baseline=blur:2",
    "occlusion:window=16,stride=16,fill=blur:3",
    "meaningful_perturbation:iterations=2",
    "extremal_perturbation:iterations=2",
    "smooth:n=2,sigma=0,base=(blur_ig:steps=2)",
];

#[test]
fn a_constant_picture_compared_with_its_blur_or_mean_gives_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let colours = [("white", [255; 3]), ("odd", [37, 101, 203])];
    for (name, colour) in colours {
        plain(&folder.path().join(format!("{name}.png")), colour);
    }
    for precision in ["f32", "f64"] {
        let mut arguments =
            vec!["explain", "white.png", "odd.png", "--size", "32", "--format", "heatmap,npy", "-o", "out"];
        arguments.extend(["--precision", precision]);
        COMPARING.iter().for_each(|method| arguments.extend(["-m", method]));
        let output = verilume(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let table = stdout(&output);
        assert_eq!(table.lines().filter(|l| l.ends_with("(blank)")).count(), 2 * COMPARING.len(), "{table}");
        let records = lines(&std::fs::read(folder.path().join("out/records.jsonl")).unwrap());
        assert_eq!(records.len(), 2 * COMPARING.len());
        for record in records {
            let notes = record["notes"].as_array().unwrap();
            assert!(notes.iter().any(|n| n[0] == "all_zero" && n[1] == 0.0), "{record}");
            assert!(record["gap"].is_null() || record["gap"]["relative"].is_null(), "{record}");
            for file in record["files"].as_array().unwrap() {
                let path = folder.path().join(file.as_str().unwrap());
                if path.extension().unwrap() == "npy" {
                    assert!(npy(&path).iter().all(|&v| v == 0.0), "{file}");
                } else {
                    let picture = image::open(&path).unwrap().to_rgb8();
                    let first = picture.get_pixel(0, 0);
                    assert!(picture.pixels().all(|p| p == first), "{file}");
                }
            }
        }
    }
}

/// A net of one linear layer on `[1, 8, 8]`, its weights `size` and twice that in turn.
fn linear(size: f32) -> Graph {
    let mut b = GraphBuilder::new(Shape::new(1, 8, 8));
    let flat = b.push("flat", Op::Flatten, &[b.input()]).unwrap();
    let weights: Vec<f32> = (0..128u8).map(|i| size * f32::from(1 + i % 2)).collect();
    let weight = Weight::owned([2, 64, 1, 1], &weights).unwrap();
    let out = b.push("out", Op::Linear(Linear { weight, bias: None }), &[flat]).unwrap();
    b.finish(out).unwrap()
}

fn map(engine: &mut Engine, graph: &Graph, spec: &str, x: &Batch) -> Map {
    let preprocess = Preprocess {
        resize: 0,
        crop: [8, 8],
        interpolation: verilume::image::Interpolation::Bilinear,
        mean: vec![0.5],
        std: vec![0.5],
        channels: 1,
    };
    let load = |_: &Path| panic!("no file is named");
    let context = Context { seed: 1, score: Score::Logit, preprocess: &preprocess, load: &load };
    let method = Spec::parse(spec).unwrap().build(&context).unwrap();
    method.explain(engine, graph, x, &[0]).unwrap().remove(0)
}

#[test]
fn a_map_that_is_only_small_is_not_zero() {
    let ramp: Vec<f32> = (0..64u8).map(|i| 1.0 + f32::from(i) / 64.0).collect();
    // One pixel that differs by a level of 255.
    let mut nearly = vec![2.64f32; 64];
    nearly[20] -= 0.0174;
    for precision in [Precision::F32, Precision::F64] {
        let mut engine = Engine::new(&Settings { precision, ..Settings::default() }).unwrap();
        for picture in [&ramp, &nearly] {
            let x = Batch::of(vec![Tensor::f32([1, 8, 8], picture.clone()).unwrap()]).unwrap();
            for size in [1.0, 1e-20] {
                let graph = linear(size);
                for spec in [
                    "blur_ig:steps=4",
                    "blur_ig:steps=4,sigma=0.2",
                    "ig:steps=2,baseline=blur:1",
                    "guided_ig:steps=2,baseline=mean",
                    "deep_lift:baseline=mean",
                    "occlusion:window=2,stride=2,fill=mean",
                    "rise:n=20,grid=4",
                ] {
                    let map = map(&mut engine, &graph, spec, &x);
                    assert!(!map.is_zero() && map.all_notes().is_empty(), "{spec}, weights of {size}, {precision}");
                }
            }
        }
    }
}

#[test]
fn spreads_of_equal_maps_are_zero() {
    let x: Vec<f32> = (0..64u8).map(|i| f32::from(i) / 64.0).collect();
    let x = Batch::of(vec![Tensor::f32([1, 8, 8], x).unwrap()]).unwrap();
    let mut engine = Engine::new(&Settings::default()).unwrap();
    let graph = linear(0.1);
    for spec in ["vargrad:n=5", "vargrad:n=5,sigma=3"] {
        assert!(map(&mut engine, &graph, spec, &x).is_zero(), "{spec}");
    }
    assert!(!map(&mut engine, &graph, "squaregrad:n=5", &x).is_zero());
    // Of zeros every mask leaves the same: nothing is told apart, whatever the masks.
    let zeros = Batch::of(vec![Tensor::f32([1, 8, 8], vec![0.0; 64]).unwrap()]).unwrap();
    let blind = map(&mut engine, &graph, "rise:n=20,grid=4", &zeros);
    assert!(blind.is_zero() || blind.all_notes().iter().any(|(name, _)| name == "constant"));
    for spec in ["relex:copies=2,iterations=2", "occlusion:window=2,stride=2", "ig:steps=2"] {
        assert!(map(&mut engine, &graph, spec, &zeros).is_zero(), "{spec}");
    }
}

#[test]
fn check_judges_no_map_of_zeros() {
    let folder = tempfile::tempdir().unwrap();
    plain(&folder.path().join("white.png"), [255; 3]);
    let arguments = ["check", "white.png", "--size", "32", "-m", "blur_ig:steps=4", "--json", "-o", "out"];
    let output = verilume(folder.path(), &arguments);
    let findings = lines(&output.stdout);
    assert_eq!(findings.len(), 9, "{}", stderr(&output));
    for finding in findings {
        assert_eq!(finding["verdict"], "not_applicable", "{finding}");
        assert_eq!(finding["detail"], "the map is zero everywhere", "{finding}");
    }
    assert!(std::fs::read_to_string(folder.path().join("out/check.html")).unwrap().contains(": blank"));
}

#[test]
fn eval_counts_no_order_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    plain(&folder.path().join("d/0/black.png"), [0; 3]);
    let metrics = [
        "deletion",
        "insertion",
        "road",
        "pixel_flipping",
        "sparseness",
        "complexity",
        "fidelity",
        "infidelity:n=2",
        "max_sensitivity:n=1",
        "stability:n=1",
        "sensitivity_n:subsets=3",
    ];
    let mut arguments = vec!["eval", "--data", "d", "--size", "32", "-m", "ig:steps=4,baseline=black", "-o", "out"];
    metrics.iter().for_each(|metric| arguments.extend(["--metric", metric]));
    let output = verilume(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("1 of 1 maps: blank"), "{}", stdout(&output));
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/summary.json")).unwrap()).unwrap();
    let scores = summary["scores"].as_array().unwrap();
    let of_maps: Vec<&Value> = scores.iter().filter(|s| !s["metric"].is_null()).collect();
    assert!(of_maps.len() >= metrics.len());
    for score in of_maps {
        assert!(score["mean"].is_null() && score["n"] == 0 && score["estimate"].is_null(), "{score}");
    }
    assert_eq!(scores[0]["n"], 1);
    let line = &lines(&std::fs::read(folder.path().join("out/eval.jsonl")).unwrap())[0];
    assert_eq!(line["methods"]["integrated_gradients"]["notes"][0][0], "all_zero", "{line}");
}

#[test]
fn a_layer_of_one_position_is_named() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("p.png"));
    let arguments = [
        "explain",
        "p.png",
        "--size",
        "32",
        "-m",
        "grad_cam",
        "-m",
        "eigen_cam",
        "-m",
        "grad_cam:layer=stage3",
        "--format",
        "npy",
        "-o",
        "out",
    ];
    let output = verilume(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("one position"), "{}", stderr(&output));
    let records = lines(&std::fs::read(folder.path().join("out/records.jsonl")).unwrap());
    for record in &records[..2] {
        let name = |n: &Value| n[0] == "one_position" && n[1].is_number();
        assert!(record["notes"].as_array().unwrap().iter().any(name), "{record}");
        assert!(record["warnings"][0].as_str().unwrap().contains("layer="), "{record}");
    }
    let table = stdout(&output);
    let said: Vec<bool> =
        table.lines().skip(1).map(|l| l.ends_with("(one position)") || l.ends_with("(blank)")).collect();
    assert_eq!(said[..2], [true, true], "{table}");
    assert!(records[2]["warnings"].is_null(), "{}", records[2]);
}

#[test]
fn a_map_that_is_the_same_everywhere_is_said() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("p.png"));
    let arguments =
        ["explain", "p.png", "--size", "32", "-m", "occlusion:window=99,stride=9", "--format", "npy", "-o", "out"];
    let output = verilume(folder.path(), &arguments);
    assert!(stdout(&output).trim_end().ends_with("(the same everywhere)"), "{}", stdout(&output));
    let record = &lines(&std::fs::read(folder.path().join("out/records.jsonl")).unwrap())[0];
    let note = record["notes"].as_array().unwrap().iter().find(|n| n[0] == "constant").unwrap().clone();
    let values = npy(&folder.path().join("out/p.occlusion.npy"));
    assert!(values.iter().all(|&v| v == values[0]) && note[1].as_f64().unwrap() as f32 == values[0], "{note}");
}

#[test]
fn relevance_says_how_the_score_was_shared_out() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("p.png"));
    let methods = ["lrp", "lrp:preset=epsilon", "lrp:preset=gamma", "deep_taylor", "excitation_backprop", "gradient"];
    let mut arguments = vec!["explain", "p.png", "--size", "64", "--format", "npy", "-o", "out"];
    methods.iter().for_each(|method| arguments.extend(["-m", method]));
    let output = verilume(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.lines().next().unwrap().contains("  pixels  "), "{table}");
    assert!(table.lines().nth(1).unwrap().contains(" %  "), "{table}");
    let records = lines(&std::fs::read(folder.path().join("out/records.jsonl")).unwrap());
    for (record, method) in records.iter().zip(methods) {
        if method == "gradient" {
            assert!(record["shares"].is_null());
            continue;
        }
        let part = |key: &str| record["shares"][key].as_f64().unwrap();
        let whole = if method == "excitation_backprop" { 1.0 } else { record["score"].as_f64().unwrap() };
        let sum = part("input") + part("bias") + part("lost");
        assert!((sum - whole).abs() <= 1e-5 * whole.abs(), "{method}: {sum} of {whole}");
        let lost = -record["gap"]["value"].as_f64().unwrap();
        assert!((part("lost") - lost).abs() <= 1e-9 * whole.abs(), "{method}");
        let file = folder.path().join(record["files"][0].as_str().unwrap());
        let map: f64 = npy(&file).iter().map(|&v| f64::from(v)).sum();
        assert!((part("input") - map).abs() <= 1e-4 * whole.abs(), "{method}: {} in a map of {map}", part("input"));
    }
    let arguments = [
        "check",
        "p.png",
        "--size",
        "64",
        "--tests",
        "completeness",
        "--json",
        "-m",
        "lrp",
        "-m",
        "excitation_backprop",
        "-o",
        "c",
    ];
    let output = verilume(folder.path(), &arguments);
    for (finding, record) in lines(&output.stdout).iter().zip([&records[0], &records[4]]) {
        let detail = finding["detail"].as_str().unwrap();
        let part = |key: &str| record["shares"][key].as_f64().unwrap();
        let whole = part("input") + part("bias") + part("lost");
        let share = part("input") / whole;
        let (word, verdict) = match ((part("lost") / whole).abs() > 0.05, share.abs() < 0.5) {
            (true, _) => ("loses ", "fail"),
            (false, true) => ("conserves the score; ", "not_applicable"),
            (false, false) => ("conserves the score; ", "pass"),
        };
        assert!(detail.starts_with(word) && detail.contains(" % of it reached the pixels, "), "{detail}");
        assert_eq!(finding["verdict"], verdict, "{finding}, share {share}");
        assert_eq!(finding["notes"][0][0], "share of the score that reached the pixels", "{finding}");
        assert!((finding["notes"][0][1].as_f64().unwrap() - share).abs() <= 1e-6, "{finding}");
    }
}

#[test]
fn check_says_that_the_gap_was_left_out() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("p.png"));
    let arguments = [
        "check",
        "p.png",
        "--size",
        "32",
        "--tests",
        "completeness",
        "--json",
        "-m",
        "ig:steps=2,gap=no",
        "-m",
        "gradient",
        "-o",
        "o",
    ];
    let output = verilume(folder.path(), &arguments);
    let findings = lines(&output.stdout);
    assert!(findings.iter().all(|f| f["verdict"] == "not_applicable"));
    assert!(findings[0]["detail"].as_str().unwrap().contains("gap=no"), "{}", findings[0]);
    assert!(findings[1]["detail"].as_str().unwrap().contains("promises nothing"), "{}", findings[1]);
}

#[test]
fn settings_that_can_say_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    busy(&folder.path().join("p.png"));
    for (method, part) in [
        ("decoy:epsilon=0", "can only be blank"),
        ("decoy:epsilon=0,arm=noise", "can only be blank"),
        ("rect_grad:q=1", "can only be blank"),
        ("vargrad:sigma=0", "can only be blank"),
        ("smooth:base=(vargrad:sigma=0)", "can only be blank"),
        ("haf:iterations=0", "the same everywhere"),
        ("haf:lr=0", "the same everywhere"),
        ("haf:lambda=1e158", "haf:lambda=1e158: it can be 1e12 at most"),
        ("haf:lr=1e300", "1e12 at most"),
        ("relex:l1=1e158", "1e12 at most"),
        ("relex:l2=1e158", "1e12 at most"),
        ("meaningful_perturbation:tv=1e158", "1e12 at most"),
        ("meaningful_perturbation:l1=1e158", "1e12 at most"),
        ("extremal_perturbation:lambda=1e158", "1e12 at most"),
        ("extremal_perturbation:growth=100", "beyond 1e12"),
        ("decoy:lr=1e158", "1e12 at most"),
        ("smooth:n=10000,base=(smooth:n=10000,base=(smoothgrad:n=10000))", "smooth:n=10000,base=smooth:"),
        ("decoy:base=(smoothgrad:n=1000000)", "passes of the net for one map"),
        ("relex:copies=100000,iterations=100000", "relex:copies=100000,iterations=100000"),
    ] {
        let output = verilume(folder.path(), &["explain", "p.png", "--size", "32", "-m", method, "-o", "out"]);
        assert_eq!(output.status.code(), Some(2), "{method}: {}", stdout(&output));
        assert!(stderr(&output).contains(part), "{method}: {}", stderr(&output));
    }
    // Where a setting does not matter it is not refused.
    let kept = ["explain", "p.png", "--size", "32", "-m", "decoy:epsilon=0,arm=none", "--format", "npy", "-o", "kept"];
    assert_eq!(verilume(folder.path(), &kept).status.code(), Some(0));
}

#[test]
fn many_passes_are_said_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing to work on: what is said comes first.
    std::fs::write(folder.path().join("p.png"), b"no picture").unwrap();
    let method = "smooth:n=40,base=(smooth:n=25)";
    let arguments = ["explain", "p.png", "--size", "32", "-m", method, "--format", "npy", "-o", "out"];
    let output = verilume(folder.path(), &arguments);
    assert!(stderr(&output).contains("smooth: about 1000 passes of the net for each map"), "{}", stderr(&output));
}

#[test]
fn patterns_want_pictures_that_vary() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::create_dir_all(folder.path().join("same")).unwrap();
        busy(&folder.path().join(format!("same/{name}.png")));
    }
    let arguments = ["patterns", "fit", "--size", "32", "--data", "same", "-o", "p.safetensors"];
    let output = verilume(folder.path(), &arguments);
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("the 3 pictures are all the same"), "{}", stderr(&output));
    assert!(!folder.path().join("p.safetensors").exists());
}

#[test]
fn numbers_that_overflow_before_a_relu6_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let wild: Vec<f32> = (0..3 * 32 * 32).map(|i| if i % 7 < 3 { 3e38 } else { -3e38 }).collect();
    write_npy(&folder.path().join("wild.npy"), "3, 32, 32", &wild);
    let output = verilume(folder.path(), &["explain", "wild.npy", "-m", "gradient", "--format", "npy", "-o", "out"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    let said = stderr(&output) + &stdout(&output);
    assert!(said.contains("overflowed") && said.contains("layer '"), "{said}");
}
