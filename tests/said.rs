//! What is noticed of a file is said of every result that depends on it, and of no other.
#![cfg(all(feature = "cli", feature = "jpeg"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;
use verilume::image::Picture;

const SIDE: usize = 24;
/// What is said of arrays whose channels come last.
const ORDER: &str = "height x width x channel";

fn plain(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command with a small net on pictures of 24x24 pixels.
fn run(folder: &Path, name: &[&str], arguments: &[&str]) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/resnet_basic.weights.safetensors");
    let net = ["--model", model.to_str().unwrap(), "--size", "24:24", "--threads", "1"];
    plain(folder, &[name, arguments, &net].concat())
}

fn code(output: &Output) -> i32 {
    let stderr = stderr(output);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// How many sentences of a list hold `word`.
fn count(list: &Value, word: &str) -> usize {
    let sentences = list.as_array().map(Vec::as_slice).unwrap_or_default();
    sentences.iter().filter(|sentence| sentence.as_str().unwrap().contains(word)).count()
}

fn level(i: usize) -> u8 {
    ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8
}

fn picture(path: &Path) {
    let levels = (0..SIDE * SIDE * 3).map(level).collect();
    let picture = Picture::new(SIDE, SIDE, levels).unwrap();
    std::fs::write(path, verilume::render::png(&picture).unwrap()).unwrap();
}

/// A JPEG file of which a part is missing although it ends as it should.
fn damaged(path: &Path) {
    let picture = Picture::new(90, 70, (0..90 * 70 * 3).map(level).collect()).unwrap();
    let whole = verilume::render::jpeg(&picture, 90).unwrap();
    let mut cut = whole.len() * 2 / 3;
    cut -= usize::from(whole[cut - 1] == 0xFF);
    std::fs::write(path, [&whole[..cut], b"\xff\xd9"].concat()).unwrap();
}

/// Labelled pictures whose channels come last or first.
fn labelled(path: &Path, rows: usize, last: bool) {
    let at = |i: usize| {
        let (picture, x, y, c) = (i / (3 * SIDE * SIDE), i % SIDE, i / SIDE % SIDE, i / (SIDE * SIDE) % 3);
        ((x * (7 + picture) + y * (13 + 3 * picture) + c * 85 + (x * y + picture) % 31) % 256) as u8
    };
    let images: Vec<u8> = (0..rows * SIDE * SIDE * 3).map(at).collect();
    let labels: Vec<u8> = (0..rows).map(|i| i as u8 % 4).collect();
    let dims = if last { vec![rows, SIDE, SIDE, 3] } else { vec![rows, 3, SIDE, SIDE] };
    let views = [
        ("images", TensorView::new(Dtype::U8, dims, &images).unwrap()),
        ("labels", TensorView::new(Dtype::U8, vec![rows], &labels).unwrap()),
    ];
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// Numbers as a .npy file.
fn npy(path: &Path, shape: &[usize], values: &[f32]) {
    let extents = shape.iter().map(|d| format!("{d},")).collect::<String>();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    let numbers: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &numbers].concat()).unwrap();
}

#[test]
fn what_is_noticed_of_the_cells_of_a_mosaic_is_said() {
    let folder = tempfile::tempdir().unwrap();
    labelled(&folder.path().join("data.safetensors"), 8, true);
    let arguments = ["--data", "data.safetensors", "-m", "gradient", "--metric", "grid_pointing", "--mosaics", "1"];
    let output = run(folder.path(), &["eval"], &[&arguments[..], &["--json", "-o", "out"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let kept = lines(&std::fs::read(folder.path().join("out/eval.jsonl")).unwrap());
    assert_eq!(count(&kept[0]["assumed"], ORDER), 1, "{}", kept[0]);
    assert_eq!(count(&json(&folder.path().join("out/summary.json"))["assumed"], ORDER), 1);
    for score in lines(&output.stdout) {
        assert_eq!(count(&score["assumed"], ORDER), 1, "{score}");
    }
}

#[test]
fn a_resumed_run_says_what_the_results_of_before_say() {
    let folder = tempfile::tempdir().unwrap();
    labelled(&folder.path().join("data.safetensors"), 4, true);
    damaged(&folder.path().join("cut.jpg"));
    let eval = ["--data", "data.safetensors", "-m", "gradient", "--metric", "sparseness", "--resume", "-o", "measured"];
    let explain = ["data.safetensors", "cut.jpg", "-m", "gradient", "--format", "npy", "--resume", "-o", "out"];
    let mut said = Vec::new();
    for _ in 0..2 {
        let output = run(folder.path(), &["eval"], &eval);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let summary = json(&folder.path().join("measured/summary.json"));
        let output = run(folder.path(), &["explain"], &explain);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let manifest = json(&folder.path().join("out/manifest.json"));
        assert_eq!((count(&summary["assumed"], ORDER), count(&manifest["assumed"], ORDER)), (1, 1));
        assert_eq!(count(&manifest["warnings"], "damaged"), 1);
        said.push([summary["assumed"].clone(), manifest["assumed"].clone(), manifest["warnings"].clone()]);
    }
    assert_eq!(said[0], said[1]);
}

#[test]
fn a_file_that_then_fails_is_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    damaged(&folder.path().join("cut.jpg"));
    std::fs::write(folder.path().join("classes.csv"), "other.png,1\n").unwrap();
    for (command, more) in [("explain", ["-m", "gradient"]), ("attack", ["-a", "fgsm"])] {
        let arguments = ["cut.jpg", "-t", "file:classes.csv", "--json", "-o", command];
        let output = run(folder.path(), &[command], &[&arguments[..], &more].concat());
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("cut.jpg: the data of the JPEG file are damaged"), "{}", stderr(&output));
        let record = &lines(&output.stdout)[0];
        assert!(record["error"].is_string() && count(&record["warnings"], "damaged") == 1, "{record}");
        let manifest = json(&folder.path().join(command).join("manifest.json"));
        assert_eq!(count(&manifest["warnings"], "damaged"), 1);
    }
}

#[test]
fn files_of_parameters_are_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    damaged(&folder.path().join("cut.jpg"));
    picture(&folder.path().join("x.png"));
    let method = ["x.png", "--json", "-m", "ig:steps=2,baseline=file:cut.jpg"];
    for (command, more) in [("explain", &["--format", "npy"][..]), ("check", &["--tests", "completeness"])] {
        let output = run(folder.path(), &[command], &[&method[..], more, &["-o", command]].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stderr(&output).matches("cut.jpg: the data").count(), 1, "{}", stderr(&output));
        assert_eq!(count(&lines(&output.stdout)[0]["warnings"], "cut.jpg: the data"), 1);
    }
    let attack = ["x.png", "--json", "-a", "manipulate:target=map:cut.png,iterations=1", "-o", "attacked"];
    std::fs::rename(folder.path().join("cut.jpg"), folder.path().join("cut.png")).unwrap();
    let output = run(folder.path(), &["attack"], &attack);
    assert!(stderr(&output).contains("cut.png: the data"), "{}", stderr(&output));
}

#[test]
fn numbers_of_parameters_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"));
    let mut plane = vec![0.0; SIDE * SIDE];
    plane[..9].fill(1.0);
    plane[SIDE + 7] = f32::NAN;
    npy(&folder.path().join("mask.npy"), &[SIDE, SIDE], &plane);
    let mut whole = vec![0.5; 3 * SIDE * SIDE];
    whole[5] = f32::INFINITY;
    npy(&folder.path().join("base.npy"), &[3, SIDE, SIDE], &whole);
    let cases = [
        ("attack", "-a", "target_region:region=mask:mask.npy", "mask.npy: element 31 is NaN"),
        ("attack", "-a", "manipulate:target=map:mask.npy", "mask.npy: element 31 is NaN"),
        ("attack", "-a", "manipulate:target=file:base.npy", "base.npy: element 5 is infinite"),
        ("explain", "-m", "ig:baseline=file:base.npy", "base.npy: element 5 is infinite"),
        ("check", "-m", "deep_lift:baseline=file:base.npy", "base.npy: element 5 is infinite"),
    ];
    for (command, option, spec, why) in cases {
        let output = run(folder.path(), &[command], &["x.png", option, spec]);
        assert_eq!(code(&output), 2, "{spec}");
        assert!(stderr(&output).contains(why), "{spec}: {}", stderr(&output));
    }
}

#[test]
fn verdicts_and_judgements_speak_of_their_own_input() {
    let folder = tempfile::tempdir().unwrap();
    damaged(&folder.path().join("a.jpg"));
    picture(&folder.path().join("x.png"));
    labelled(&folder.path().join("data.safetensors"), 48, false);
    labelled(&folder.path().join("attacked.safetensors"), 48, true);
    let check = ["a.jpg", "x.png", "-m", "gradient", "--tests", "wrong_class", "--json"];
    let output = run(folder.path(), &["check"], &check);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let own = |line: &Value| count(&line["warnings"], "a.jpg") == usize::from(line["input"] == "a.jpg");
    let found = lines(&output.stdout);
    assert!(found.len() == 2 && found.iter().all(own), "{found:?}");

    let train = ["--data", "data.safetensors", "--attacked", "attacked.safetensors", "-m", "gradient", "--epochs", "1"];
    let more = ["--attack", "fgsm:epsilon=64/255", "--json", "-o", "detector.safetensors"];
    let output = run(folder.path(), &["detector", "train"], &[&train[..], &more].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    // Attacked pictures are read too.
    assert_eq!(
        count(&lines(&output.stdout)[0]["assumed"], &format!("attacked.safetensors: order of bytes: {ORDER}")),
        1
    );
    let apply = ["a.jpg", "x.png", "--detector", "detector.safetensors", "--json"];
    let output = run(folder.path(), &["detector", "apply"], &apply);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let found = lines(&output.stdout);
    assert!(found.len() == 2 && found.iter().all(own), "{found:?}");
}

/// Two layers: z = relu(a) − relu(b) + 0.5 of the inputs a, b and c.
fn one_output(path: &Path) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (first, second) = (bytes(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]), bytes(&[1.0, -1.0]));
    let (zeros, half) = (bytes(&[0.0; 2]), bytes(&[0.5]));
    let views = [
        ("0.weight", vec![2, 3], &first),
        ("0.bias", vec![2], &zeros),
        ("2.weight", vec![1, 2], &second),
        ("2.bias", vec![1], &half),
    ];
    let views = views.map(|(name, dims, bytes)| (name, TensorView::new(Dtype::F32, dims, bytes).unwrap()));
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_net_with_one_output_is_verified_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    one_output(&at("net.safetensors"));
    npy(&at("x.npy"), &[2, 3], &[2.0, 1.0, 0.0, 0.0, 3.0, 1.0]);
    npy(&at("one.npy"), &[3], &[2.0, 1.0, 0.0]);
    let verify = |input: &str, shape: &[usize], values: &[f32]| {
        npy(&at("y.npy"), shape, values);
        let arguments = ["model", "verify", "--model", "net.safetensors", "--input", input, "--logits", "y.npy"];
        plain(folder.path(), &[&arguments[..], &["--json"]].concat())
    };
    let fine: [(&str, &[usize], &[f32]); 5] = [
        ("x.npy", &[2, 1], &[1.5, -2.5]),
        ("x.npy", &[2], &[1.5, -2.5]),
        ("x.npy", &[2, 2], &[-1.5, 1.5, 2.5, -2.5]),
        ("one.npy", &[1], &[1.5]),
        ("one.npy", &[2], &[-1.5, 1.5]),
    ];
    for (input, shape, values) in fine {
        let output = verify(input, shape, values);
        assert_eq!(code(&output), 0, "{shape:?}: {}", stderr(&output));
        let report = &lines(&output.stdout)[0];
        assert_eq!((&report["passed"], &report["classes"]), (&true.into(), &2.into()), "{report}");
        assert_eq!(report["record_version"], verilume::report::RECORD_VERSION);
    }
    assert_eq!(code(&verify("x.npy", &[2, 1], &[1.5, 2.5])), 1);
    let output = verify("x.npy", &[3, 1], &[1.5, -2.5, 0.0]);
    assert!(code(&output) == 2 && stderr(&output).contains("logits of 3 inputs"), "{}", stderr(&output));
    let output = verify("x.npy", &[3], &[1.5, -2.5, 0.0]);
    assert!(code(&output) == 2 && stderr(&output).contains("one output"), "{}", stderr(&output));
}

#[test]
fn verify_is_bounded_as_other_commands_are() {
    let folder = tempfile::tempdir().unwrap();
    one_output(&folder.path().join("net.safetensors"));
    npy(&folder.path().join("x.npy"), &[3], &[2.0, 1.0, 0.0]);
    npy(&folder.path().join("y.npy"), &[1], &[1.5]);
    let arguments = ["model", "verify", "--model", "net.safetensors", "--input", "x.npy", "--logits", "y.npy"];
    let output = plain(folder.path(), &[&arguments[..], &["--threads", "100000"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("--threads 100000"), "{}", stderr(&output));
    // More than two million numbers, of which --memory allows none.
    npy(&folder.path().join("large.npy"), &[1 << 21], &vec![1.0; 1 << 21]);
    let arguments = ["model", "verify", "--model", "net.safetensors", "--input", "large.npy", "--logits", "y.npy"];
    let output = plain(folder.path(), &[&arguments[..], &["--memory", "2MiB"]].concat());
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
}

/// What a baseline's numbers overflow to is cut back by the net's ReLU6, and would show nowhere.
#[cfg(feature = "embedded-model")]
#[test]
fn a_baseline_that_overflows_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"));
    npy(&folder.path().join("b.npy"), &[3, 32, 32], &[3.3e38; 3 * 32 * 32]);
    let explain = ["explain", "x.png", "--size", "32:32", "--format", "npy", "--json", "-o", "out", "-m"];
    for method in ["deep_lift:baseline=file:b.npy", "ig:baseline=file:b.npy,steps=2,gap=no"] {
        let output = plain(folder.path(), &[&explain[..], &[method]].concat());
        assert_eq!(code(&output), 2, "{method}: {}", stderr(&output));
        let error = lines(&output.stdout)[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("overflowed"), "{method}: {error}");
    }
}
