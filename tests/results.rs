//! What a folder of results promises: whose results are there, what a record says of its files, what a kill leaves, and which
//! form everything has that others read.
#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use verilume::report::check::CheckReport;
use verilume::report::eval::{Evaluated, Summary};
use verilume::report::{Journal, Line};

/// A method that takes long enough to be interrupted.
const SLOW: &str = if cfg!(debug_assertions) { "smoothgrad:n=6" } else { "smoothgrad:n=400" };

/// A small net for pictures of any size.
fn model() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/resnet_basic.weights.safetensors");
    path.to_str().unwrap().to_owned()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with the small net on pictures of 24x24 pixels; one that hangs fails.
fn run(folder: &Path, name: &str, arguments: &[&str]) -> Output {
    let model = model();
    let net = ["--model", &model, "--size", "24:24", "--threads", "1"];
    ended(command(folder, &[&[name], arguments, &net].concat()).spawn().unwrap())
}

fn ended(child: Child) -> Output {
    let id = child.id();
    let (done, wait) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    match wait.recv_timeout(Duration::from_secs(900)) {
        Ok(output) => {
            watch.join().unwrap().unwrap();
            output
        }
        Err(_) => {
            Command::new("kill").args(["-9", &id.to_string()]).status().unwrap();
            panic!("the program waits for ever");
        }
    }
}

fn explain(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, "explain", arguments)
}

fn code(output: &Output) -> i32 {
    let stderr = said(output);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

fn records(folder: &Path) -> Vec<Value> {
    lines(&read(&folder.join("out/records.jsonl")))
}

/// Input and method of each record.
fn whose(folder: &Path) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = records(folder)
        .iter()
        .map(|r| (text(&r["input"]), text(if r["method"].is_null() { &r["attack"] } else { &r["method"] })))
        .collect();
    all.sort();
    all
}

fn level(seed: usize, x: usize, y: usize, c: usize) -> u8 {
    ((x * (7 + seed) + y * (13 + 3 * seed) + c * 85 + (x * y + seed) % 31) % 256) as u8
}

fn picture(path: &Path, seed: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let colour = |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c| level(seed, x as usize, y as usize, c)));
    image::RgbImage::from_fn(24, 24, colour).save(path).unwrap();
}

/// An array of `rows` inputs of `side` pixels a side.
fn array(path: &Path, rows: usize, side: usize) {
    let values: Vec<f32> = (0..rows * 3 * side * side).map(|i| (i as f32 * 0.37).sin()).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![rows, 3, side, side], &bytes).unwrap();
    std::fs::write(path, serialize([("input", view)], None).unwrap()).unwrap();
}

/// Labelled pictures.
fn labelled(path: &Path, count: usize) {
    let images: Vec<u8> =
        (0..count * 3 * 24 * 24).map(|i| level(i / (3 * 24 * 24), i % 24, i / 24 % 24, i / 576 % 3)).collect();
    let labels: Vec<u8> = (0..count).map(|i| i as u8 % 4).collect();
    let views = [
        ("images", TensorView::new(Dtype::U8, vec![count, 3, 24, 24], &images).unwrap()),
        ("labels", TensorView::new(Dtype::U8, vec![count], &labels).unwrap()),
    ];
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

// Which input is first.

#[test]
fn the_order_of_inputs_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    array(&folder.path().join("small.safetensors"), 1, 12);
    array(&folder.path().join("large.safetensors"), 1, 24);
    let shapes = [["small.safetensors", "large.safetensors"], ["large.safetensors", "small.safetensors"]];
    for (name, more) in [
        ("explain", ["-m", "rise:n=8,grid=13", "--format", "npy"]),
        ("explain", ["-m", "blur_ig:steps=2,sigma=20", "--format", "npy"]),
        ("explain", ["-m", "ig:steps=2,baseline=blur:20", "--format", "npy"]),
        ("attack", ["-a", "top_k:epsilon=1/255,iterations=2,k=200", "--format", "npy"]),
        ("attack", ["-a", "target_region:epsilon=1/255,iterations=2,region=(0,0,13,13)", "--format", "npy"]),
        ("attack", ["-m", "rise:n=8,grid=13", "--format", "npy"]),
    ] {
        for inputs in shapes {
            let _ = std::fs::remove_dir_all(folder.path().join("out"));
            let output = run(folder.path(), name, &[&inputs[..], &more, &["-o", "out", "--json"]].concat());
            assert_eq!(code(&output), 1, "{name} {more:?}: {}", said(&output));
            let made = records(folder.path());
            let done = |input: &str| made.iter().filter(|r| r["input"] == input && r["error"].is_null()).count();
            assert_eq!([done("small.safetensors"), done("large.safetensors")], [0, 1], "{name} {more:?}");
        }
    }
    // What can work on no input stops at once, and so does what does not suit the size of all pictures.
    picture(&folder.path().join("a.png"), 1);
    picture(&folder.path().join("b.png"), 2);
    for (inputs, method) in [
        (["small.safetensors", "large.safetensors"], "grad_cam:layer=nothing"),
        (["a.png", "b.png"], "rise:n=8,grid=25"),
    ] {
        let _ = std::fs::remove_dir_all(folder.path().join("out"));
        let output = explain(folder.path(), &[&inputs[..], &["-m", method, "-o", "out", "--json"]].concat());
        assert_eq!((code(&output), records(folder.path()).len()), (2, 0), "{method}");
    }
}

#[test]
fn eval_and_check_take_inputs_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    array(&folder.path().join("a.safetensors"), 1, 12);
    array(&folder.path().join("b.safetensors"), 1, 24);
    let data = ["--data", "a.safetensors", "--data", "b.safetensors", "--unlabelled", "-m", "rise:n=8,grid=13"];
    let output = run(folder.path(), "eval", &[&data[..], &["--metric", "sparseness", "-o", "out"]].concat());
    assert_eq!(code(&output), 1, "{}", said(&output));
    let made = lines(&read(&folder.path().join("out/eval.jsonl")));
    let errors: Vec<bool> = made.iter().map(|l| l["methods"]["rise"]["error"].is_string()).collect();
    assert_eq!(errors, [true, false]);

    let check = ["a.safetensors", "b.safetensors", "-m", "rise:n=8,grid=13", "--tests", "wrong_class", "-o", "checked"];
    assert_eq!(code(&run(folder.path(), "check", &check)), 0);
    let report = json_of(&folder.path().join("checked/check.json"));
    let verdict = |i: usize| report["pictures"][i]["findings"][0]["verdict"].as_str().unwrap().to_owned();
    assert_eq!(verdict(0), "not_applicable");
    assert_ne!(verdict(1), "not_applicable");
}

// Whose results are there.

#[test]
fn results_of_other_inputs_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x/1.png"), 1);
    picture(&folder.path().join("y/1.png"), 2);
    let out = |name: &str| folder.path().join("out").join(name);
    let made = |input: &str, more: &[&str]| {
        let arguments = [&[input, "-m", "gradient", "--format", "npy", "-o", "out"], more].concat();
        let output = explain(folder.path(), &arguments);
        assert_eq!(code(&output), 0, "{}", said(&output));
        said(&output)
    };
    assert!(!made("x/1.png", &[]).contains("named"));
    let first = read(&out("1.gradient.npy"));
    let words = made("y/1.png", &[]);
    assert!(words.contains("y/1.png: results of x/1.png are named 1 here; these are named 1-2"), "{words}");
    assert_eq!(read(&out("1.gradient.npy")), first);
    assert_ne!(read(&out("1-2.gradient.npy")), first);
    let both = [("x/1.png".to_string(), "gradient".to_string()), ("y/1.png".into(), "gradient".into())];
    assert_eq!(whose(folder.path()), both);

    // Again: each replaces its own, whatever the settings.
    made("x/1.png", &["--score", "prob"]);
    made("y/1.png", &[]);
    assert_eq!(whose(folder.path()), both);
    assert!(!out("1-3.gradient.npy").exists());
    let other = |record: &Value| record["files"][0].as_str().unwrap().to_owned();
    let files: BTreeSet<String> = records(folder.path()).iter().map(other).collect();
    assert_eq!(files, ["out/1.gradient.npy".to_string(), "out/1-2.gradient.npy".into()].into());

    // Other methods and other commands leave them alone.
    let output = explain(folder.path(), &["x/1.png", "-m", "input_x_gradient", "--format", "npy", "-o", "out"]);
    assert_eq!((code(&output), records(folder.path()).len()), (0, 3));
    let attacked = ["-a", "fgsm:epsilon=1/255", "--format", "npy", "-o", "out"];
    for input in ["x/1.png", "y/1.png", "y/1.png"] {
        assert_eq!(code(&run(folder.path(), "attack", &[&[input], &attacked[..]].concat())), 0);
    }
    assert!(out("1.fgsm.npy").exists() && out("1-2.fgsm.npy").exists() && !out("1-3.fgsm.npy").exists());
    assert_eq!(records(folder.path()).len(), 5);

    // Records stay as long as their files do; that some go is said.
    std::fs::remove_file(out("1-2.gradient.npy")).unwrap();
    picture(&folder.path().join("z.png"), 3);
    assert!(made("z.png", &[]).contains("1 record of earlier runs left out"));
    assert_eq!(records(folder.path()).len(), 5);
}

#[test]
fn equal_relative_paths_are_not_equal_inputs() {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in ["x", "y"].into_iter().enumerate() {
        picture(&folder.path().join(name).join("1.png"), i);
        let output =
            explain(&folder.path().join(name), &["1.png", "-m", "gradient", "--format", "npy", "-o", "../out"]);
        assert_eq!(code(&output), 0);
    }
    assert!(folder.path().join("out/1.gradient.npy").exists() && folder.path().join("out/1-2.gradient.npy").exists());
    assert_eq!(records(folder.path()).len(), 2);
    // The same file under another path is the same input.
    let output = explain(folder.path(), &["x/1.png", "-m", "gradient", "--format", "npy", "-o", "out"]);
    assert_eq!((code(&output), records(folder.path()).len()), (0, 2));
    assert!(!folder.path().join("out/1-3.gradient.npy").exists());
}

#[test]
fn arrays_of_one_name_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (i, name) in ["x", "y"].into_iter().enumerate() {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        array(&folder.path().join(name).join("a.safetensors"), 2 + i, 16);
        let input = format!("{name}/a.safetensors");
        let output = explain(folder.path(), &[&input, "-m", "gradient", "--format", "npy,heatmap", "-o", "out"]);
        assert_eq!(code(&output), 0, "{}", said(&output));
    }
    let rows = |name: &str| npyz::NpyFile::new(&read(&folder.path().join("out").join(name))[..]).unwrap().shape()[0];
    assert_eq!([rows("a.gradient.npy"), rows("a-2.gradient.npy")], [2, 3]);
    assert!(
        folder.path().join("out/a.1.gradient.png").exists() && folder.path().join("out/a-2.2.gradient.png").exists()
    );
    assert_eq!(records(folder.path()).len(), 5);
}

#[test]
fn reports_of_other_inputs_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 1);
    picture(&folder.path().join("y.png"), 2);
    let check = |input: &str| {
        let output = run(folder.path(), "check", &[input, "-m", "gradient", "--tests", "wrong_class", "-o", "out"]);
        assert_eq!(code(&output), 0);
        said(&output)
    };
    check("x.png");
    assert!(!check("x.png").contains("kept"));
    assert!(check("y.png").contains("kept as out/check.1.json"));
    let input = |name: &str| json_of(&folder.path().join("out").join(name))["pictures"][0]["input"].clone();
    assert_eq!([input("check.json"), input("check.1.json")], ["y.png", "x.png"]);
    assert!(folder.path().join("out/check.1.html").exists());

    labelled(&folder.path().join("one.safetensors"), 2);
    labelled(&folder.path().join("two.safetensors"), 3);
    let eval = |data: &str| {
        let arguments = ["--data", data, "-m", "gradient", "--metric", "sparseness", "-o", "measured"];
        let output = run(folder.path(), "eval", &arguments);
        assert_eq!(code(&output), 0, "{}", said(&output));
        said(&output)
    };
    eval("one.safetensors");
    eval("one.safetensors");
    assert!(eval("two.safetensors").contains("kept as measured/summary.1.json"));
    assert_eq!(lines(&read(&folder.path().join("measured/eval.jsonl"))).len(), 5);
    let data = |name: &str| json_of(&folder.path().join("measured").join(name))["data"].clone();
    assert_eq!(
        [data("summary.json"), data("summary.1.json")],
        [json!(["two.safetensors"]), json!(["one.safetensors"])]
    );
}

// What is on disk.

#[test]
fn records_know_the_sizes_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 1);
    array(&folder.path().join("a.safetensors"), 3, 16);
    let arguments =
        ["x.png", "a.safetensors", "-m", "gradient", "--format", "npy,safetensors,grid,heatmap", "-o", "out"];
    assert_eq!(code(&explain(folder.path(), &arguments)), 0);
    let made = records(folder.path());
    assert_eq!(made.len(), 4);
    for record in &made {
        let files = record["files"].as_array().unwrap().iter().map(|f| folder.path().join(f.as_str().unwrap()));
        let sizes: Vec<u64> = files.map(|f| f.metadata().unwrap().len()).collect();
        assert_eq!((record["bytes"].clone(), sizes.len()), (json!(sizes), 4));
    }
    let again = || {
        let output = explain(folder.path(), &[&arguments[..], &["--resume", "--json"]].concat());
        assert_eq!(code(&output), 0);
        lines(&output.stdout).len()
    };
    assert_eq!(again(), 0);
    // A file that was cut off is no result.
    let map = folder.path().join("out/x.gradient.npy");
    let whole = read(&map);
    std::fs::write(&map, &whole[..whole.len() - 4]).unwrap();
    assert_eq!(again(), 1);
    assert_eq!(read(&map), whole);
}

/// Starts a run over many rows or pictures and waits for its first record.
fn begun(folder: &Path, arguments: &[&str]) -> Child {
    let model = model();
    let net = ["--model", &model, "--size", "24:24", "--threads", "1", "-o", "out", "--json"];
    let mut child = command(folder, &[&["explain"], arguments, &net].concat()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with('{'), "{line}");
    child
}

#[test]
fn results_that_vanish_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    (0..60).for_each(|i| picture(&folder.path().join(format!("in/{i}.png")), i));
    let mut child = begun(folder.path(), &["in", "-m", SLOW, "--format", "npy"]);
    // The run may make files meanwhile.
    let started = Instant::now();
    while std::fs::remove_dir_all(folder.path().join("out")).is_err() {
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    drop(child.stdout.take());
    let output = ended(child);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(said(&output).contains("records.jsonl: somebody has removed or replaced this file"), "{}", said(&output));
}

#[test]
fn an_interrupted_array_goes_on_at_its_row() {
    let folder = tempfile::tempdir().unwrap();
    array(&folder.path().join("a.safetensors"), 48, 24);
    let arguments = ["a.safetensors", "-m", SLOW, "--format", "npy,safetensors"];
    let mut child = begun(folder.path(), &arguments);
    child.kill().unwrap();
    child.wait().unwrap();
    let names = || -> BTreeSet<String> {
        let entries = folder.path().join("out").read_dir().unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.ends_with(".partial")).collect()
    };
    let done = records(folder.path()).len();
    assert!(0 < done && done < 48 && names().len() == 2, "{done} {:?}", names());

    // Results of another input, and of other settings, leave what is half made alone or forget it.
    picture(&folder.path().join("other.png"), 1);
    let output = explain(folder.path(), &["other.png", "-m", "gradient", "-o", "out"]);
    assert_eq!((code(&output), records(folder.path()).len(), names().len()), (0, done + 1, 2));
    let resumed = explain(folder.path(), &[&arguments[..], &["-o", "out", "--json", "--resume"]].concat());
    assert_eq!((code(&resumed), lines(&resumed.stdout).len()), (0, 48 - done));
    assert!(names().is_empty());
    assert_eq!(code(&explain(folder.path(), &[&arguments[..], &["-o", "whole"]].concat())), 0);
    for extension in ["npy", "safetensors"] {
        let name = format!("a.smoothgrad.{extension}");
        assert!(read(&folder.path().join("out").join(&name)) == read(&folder.path().join("whole").join(&name)));
    }

    // What was made of another array, or otherwise, is not gone on with.
    let mut child = begun(folder.path(), &arguments);
    child.kill().unwrap();
    child.wait().unwrap();
    array(&folder.path().join("a.safetensors"), 47, 24);
    let resumed = explain(folder.path(), &[&arguments[..], &["-o", "out", "--json", "--resume"]].concat());
    assert_eq!((code(&resumed), lines(&resumed.stdout).len()), (0, 47));
    assert!(names().is_empty());
}

#[test]
fn what_killed_runs_left_goes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("in/sub/x.png"), 1);
    let out = folder.path().join("out");
    std::fs::create_dir_all(out.join("sub")).unwrap();
    let dead = [
        "sub/.x.gradient.npy.4294967295.partial",
        ".records.jsonl.4294967295.partial",
        ".a.npy.0123456789abcdef.rows.partial",
    ];
    let others = [
        ".notes.txt.4294967295.partial",
        "x.npy.4294967295.partial",
        ".x.npy.part",
        &format!(".y.npy.{}.partial", std::process::id()),
    ];
    dead.iter().chain(&others).for_each(|name| std::fs::write(out.join(name), "half").unwrap());
    let precious = folder.path().join("precious.npy");
    std::fs::write(&precious, "precious").unwrap();
    symlink(&precious, out.join(".link.npy.4294967295.partial")).unwrap();

    // As long as another run is at work nothing is removed.
    let lock = std::fs::File::create(out.join(".records.1-of-2.lock")).unwrap();
    lock.lock().unwrap();
    let arguments = ["in", "-m", "gradient", "--format", "npy", "-o", "out"];
    assert_eq!(code(&explain(folder.path(), &arguments)), 0);
    assert!(dead.iter().chain(&others).all(|name| out.join(name).exists()));
    drop(lock);
    assert_eq!(code(&explain(folder.path(), &arguments)), 0);
    for name in dead {
        assert!(!out.join(name).exists(), "{name}");
    }
    assert!(others.iter().all(|name| out.join(name).exists()) && precious.exists());
}

// What is no file.

#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 1);
    let fifo = |name: &str| assert!(Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap().success());
    let refused = |output: Output, what: &str| {
        assert_eq!(code(&output), 2, "{what}: {}", said(&output));
        assert!(said(&output).contains("not a regular file"), "{what}: {}", said(&output));
    };
    fifo("pipe");
    fifo("pipe.safetensors");
    for more in [
        ["-m", "pattern_net:patterns=pipe.safetensors"],
        ["-m", "pattern_net:patterns=/dev/zero"],
        ["--labels", "pipe"],
        ["-t", "file:pipe"],
        ["-m", "ig:steps=2,baseline=file:pipe"],
    ] {
        refused(explain(folder.path(), &[&["x.png", "-o", "out"], &more[..]].concat()), more[1]);
    }
    refused(run(folder.path(), "detector", &["apply", "x.png", "--detector", "pipe"]), "--detector");
    refused(run(folder.path(), "eval", &["--data", "x.png", "--labels-csv", "pipe", "-o", "out"]), "--labels-csv");
    refused(run(folder.path(), "eval", &["--data", "x.png", "--boxes", "pipe", "-o", "out"]), "--boxes");
    let profile = ["profile", "--random-weights", "resnet20", "--repeat", "1", "--compare", "pipe"];
    refused(ended(command(folder.path(), &profile).spawn().unwrap()), "--compare");

    for (name, command) in [
        ("records.jsonl", "explain"),
        (".records.lock", "explain"),
        ("records.jsonl", "attack"),
        (".records.lock", "attack"),
        (".check.lock", "check"),
    ] {
        let _ = std::fs::remove_dir_all(folder.path().join("there"));
        std::fs::create_dir(folder.path().join("there")).unwrap();
        fifo(&format!("there/{name}"));
        refused(run(folder.path(), command, &["x.png", "-o", "there"]), name);
    }
    for (name, command) in [("eval.jsonl", "eval"), (".eval.lock", "eval")] {
        let _ = std::fs::remove_dir_all(folder.path().join("measured"));
        std::fs::create_dir(folder.path().join("measured")).unwrap();
        fifo(&format!("measured/{name}"));
        refused(run(folder.path(), command, &["--data", "x.png", "--unlabelled", "-o", "measured"]), name);
    }
    std::fs::create_dir(folder.path().join("linked")).unwrap();
    symlink("/dev/null", folder.path().join("linked/.records.lock")).unwrap();
    refused(explain(folder.path(), &["x.png", "-o", "linked"]), "a link to a device");
}

// Another machine's bits.

#[test]
fn kernels_are_chosen_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 1);
    let settings = |more: &[&str]| {
        let output =
            explain(folder.path(), &[&["x.png", "-m", "gradient", "--format", "npy", "-o", "out"], more].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        let manifest = json_of(&folder.path().join("out/manifest.json"));
        (manifest["kernels"].as_str().unwrap().to_owned(), records(folder.path())[0]["settings"].clone())
    };
    let (_, auto) = settings(&[]);
    let (kernels, portable) = settings(&["--kernels", "portable"]);
    assert!(kernels.contains("portable"), "{kernels}");
    assert_ne!(auto, portable);
    let check = ["x.png", "--tests", "wrong_class", "-m", "gradient", "--kernels", "portable", "-o", "checked"];
    assert_eq!(code(&run(folder.path(), "check", &check)), 0);
    let device = json_of(&folder.path().join("checked/check.json"))["device"].clone();
    assert!(device.as_str().unwrap().contains("portable"), "{device}");
    let output = explain(folder.path(), &["x.png", "--kernels", "sse9"]);
    assert_eq!(code(&output), 2);
}

// What a terminal sees.

#[test]
fn nothing_that_a_terminal_acts_on_reaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "e\u{1b}[31m\u{9b}K\u{202e}gnp\u{2066}\u{200b}";
    let inside = |name: String| folder.path().join(name);
    std::fs::copy(model(), inside(format!("{evil}.safetensors"))).unwrap();
    picture(&inside(format!("{evil}.png")), 1);
    std::fs::write(inside(format!("broken{evil}.png")), "no picture").unwrap();
    let net = format!("{evil}.safetensors");
    let count = json_info(folder.path(), &net)["classes"].as_u64().unwrap();
    let labels: String = (0..count).map(|i| format!("class {i} {evil}\n")).collect();
    std::fs::write(inside("labels.txt".into()), labels).unwrap();
    let (good, bad) = (format!("{evil}.png"), format!("broken{evil}.png"));
    let explained =
        ["explain", &good, &bad, "--model", &net, "--labels", "labels.txt", "--size", "24:24", "-m", "gradient"];
    let layer = format!("grad_cam:layer={evil}\n");
    for arguments in [
        vec!["model", "info", "--model", &net],
        vec!["model", "info", "--model", &net, "--json"],
        vec!["model", "dump", "--model", &net],
        explained.to_vec(),
        [&explained[..], &["--json", "-o", evil]].concat(),
        vec!["attack", &good, "--model", &net, "--labels", "labels.txt", "--size", "24:24", "-a", "fgsm:epsilon=1/255"],
        vec!["check", &good, &bad, "--model", &net, "--size", "24:24", "-m", "gradient", "--tests", "wrong_class"],
        vec!["eval", "--data", &good, "--unlabelled", "--model", &net, "--size", "24:24", "-m", "gradient"],
        vec!["explain", &good, "--model", &net, "-m", &layer],
        vec!["explain", &good, "--model", evil],
        vec!["explain", evil, "--option-that-is-none", evil],
        vec!["explain", "--no\u{1b}[31m"],
        vec!["bench", "--model", &net, "--repeat", "1", "--size", "24"],
    ] {
        let output = ended(command(folder.path(), &arguments).spawn().unwrap());
        code(&output);
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8(stream.clone()).unwrap();
            let acts = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{200b}".contains(c);
            assert!(!text.contains(acts), "{arguments:?}: {text:?}");
        }
    }
    // JSON is spelled out too, and still says the same.
    let output = ended(command(folder.path(), &[&explained[..], &["--json"]].concat()).spawn().unwrap());
    assert!(lines(&output.stdout).iter().any(|record| record["input"] == good));
}

fn json_info(folder: &Path, net: &str) -> Value {
    let output = ended(command(folder, &["model", "info", "--model", net, "--json"]).spawn().unwrap());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn messages_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let long = "m".repeat(4000);
    let output = explain(folder.path(), &["x.png", "-m", &long]);
    assert_eq!(code(&output), 2);
    let text = said(&output);
    let line = text.lines().next().unwrap();
    assert!(line.chars().count() <= 500 && line.starts_with("error: ") && line.contains('…'), "{line}");
}

// Formats.

/// What `value` has against a schema (draft 2020-12, the keywords used here). Keys that the schema does not describe count too.
fn complaints(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    const KNOWN: &[&str] = &[
        "$schema",
        "$id",
        "title",
        "description",
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "enum",
        "minimum",
        "additionalProperties",
    ];
    let rules = schema.as_object().unwrap();
    if let Some(key) = rules.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        panic!("{at}: this test does not know the keyword {key}");
    }
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: no type {other}"),
    };
    let suits = match &rules.get("type") {
        None => true,
        Some(Value::String(name)) => is(name),
        Some(names) => names.as_array().unwrap().iter().any(|name| is(name.as_str().unwrap())),
    };
    if !suits || rules.get("enum").is_some_and(|all| !all.as_array().unwrap().contains(value)) {
        return found.push(format!("{at}: {value}"));
    }
    if let (Some(least), Some(number)) = (rules.get("minimum"), value.as_f64())
        && number < least.as_f64().unwrap()
    {
        found.push(format!("{at}: {number} below {least}"));
    }
    if let Some(items) = value.as_array() {
        let count = |key: &str| rules.get(key).map(|n| n.as_u64().unwrap() as usize);
        if count("minItems").is_some_and(|n| items.len() < n) || count("maxItems").is_some_and(|n| items.len() > n) {
            found.push(format!("{at}: {} items", items.len()));
        }
        for (i, item) in items.iter().enumerate() {
            let first = rules.get("prefixItems").and_then(|all| all.get(i));
            if let Some(schema) = first.or(rules.get("items")) {
                complaints(schema, item, &format!("{at}[{i}]"), found);
            }
        }
    }
    if let Some(object) = value.as_object() {
        let required = rules.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let missing = required.iter().map(|key| key.as_str().unwrap()).filter(|key| !object.contains_key(*key));
        found.extend(missing.map(|key| format!("{at}: {key} is missing")));
        let properties = rules.get("properties");
        for (key, value) in object {
            let rule = properties.and_then(|p| p.get(key)).or(rules.get("additionalProperties"));
            match rule {
                Some(schema) => complaints(schema, value, &format!("{at}.{key}"), found),
                None if properties.is_some() => found.push(format!("{at}: the schema says nothing of {key}")),
                None => {}
            }
        }
    }
}

fn schema(name: &str) -> Value {
    json_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas").join(format!("{name}.json")))
}

fn valid(name: &str, values: &[Value]) {
    assert!(!values.is_empty(), "{name}: nothing to look at");
    let schema = schema(name);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for value in values {
        let mut found = Vec::new();
        complaints(&schema, value, name, &mut found);
        assert!(found.is_empty(), "{found:#?}");
        assert_eq!(value["record_version"], verilume::report::RECORD_VERSION, "{name}");
    }
}

#[test]
fn what_others_read_is_as_its_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    picture(&inside("x.png"), 1);
    std::fs::write(inside("bad.png"), "no picture").unwrap();
    array(&inside("a.safetensors"), 2, 24);
    labelled(&inside("data.safetensors"), 12);
    labelled(&inside("more.safetensors"), 48);
    let methods = ["-m", "ig:steps=2", "-m", "lrp", "-m", "rise:n=8"];
    let inputs = ["x.png", "bad.png", "a.safetensors", "--json"];
    let output = explain(folder.path(), &[&inputs[..], &methods, &["--format", "npy", "-o", "out"]].concat());
    assert_eq!(code(&output), 1);
    valid("record", &lines(&output.stdout));
    valid("record", &records(folder.path()));
    valid("manifest", &[json_of(&inside("out/manifest.json"))]);

    let attack = ["-a", "fgsm:epsilon=1/255", "-a", "top_k:epsilon=1/255,iterations=2", "-o", "out"];
    let output = run(folder.path(), "attack", &[&inputs[..], &attack].concat());
    assert_eq!(code(&output), 1);
    valid("attack-record", &lines(&output.stdout));
    let own: Vec<Value> = records(folder.path()).into_iter().filter(|r| r.get("attack").is_some()).collect();
    valid("attack-record", &own);
    valid("manifest", &[json_of(&inside("out/manifest.json"))]);

    let eval = ["--data", "data.safetensors", "-m", "gradient", "-m", "grad_cam", "--metric", "deletion", "--json"];
    let output = run(folder.path(), "eval", &[&eval[..], &["-o", "measured"]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    valid("eval-score", &lines(&output.stdout));
    valid("eval-line", &lines(&read(&inside("measured/eval.jsonl"))));
    valid("eval-summary", &[json_of(&inside("measured/summary.json"))]);

    let check = ["x.png", "bad.png", "-m", "gradient", "--tests", "wrong_class,completeness,noise", "--json"];
    let output = run(folder.path(), "check", &[&check[..], &["-o", "checked"]].concat());
    assert_eq!(code(&output), 1, "{}", said(&output));
    valid("check-finding", &lines(&output.stdout));
    valid("check-report", &[json_of(&inside("checked/check.json"))]);

    let train =
        ["train", "--data", "more.safetensors", "-m", "gradient", "--attack", "fgsm:epsilon=64/255", "--epochs", "1"];
    let output = run(folder.path(), "detector", &[&train[..], &["--json", "-o", "detector.safetensors"]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    valid("detector-trained", &lines(&output.stdout));
    let apply = ["apply", "x.png", "bad.png", "--detector", "detector.safetensors", "--json"];
    let output = run(folder.path(), "detector", &apply);
    assert_eq!(code(&output), 1, "{}", said(&output));
    valid("detector-judged", &lines(&output.stdout));

    valid("model-info", &[json_info(folder.path(), &model())]);

    let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lite-symmetric-padding");
    let [net, x] = ["lite.safetensors", "x.npy"].map(|name| net.join(name).to_str().unwrap().to_owned());
    logits(&inside("y.safetensors"));
    let verify = ["model", "verify", "--model", &net, "--input", &x, "--logits", "y.safetensors", "--json"];
    let output = ended(command(folder.path(), &verify).spawn().unwrap());
    assert_eq!(code(&output), 1, "{}", said(&output));
    valid("model-verified", &lines(&output.stdout));

    perceptron(&inside("net.safetensors"), &[144, 16, 4]);
    vectors(&inside("vectors.safetensors"), 24, 144);
    let kindermans = ["check", "--kindermans", "--model", "net.safetensors", "--data", "vectors.safetensors", "--json"];
    let output = ended(command(folder.path(), &kindermans).spawn().unwrap());
    assert_eq!(code(&output), 0, "{}", said(&output));
    valid("check-kindermans", &lines(&output.stdout));
}

/// Numbers as the tensor `name` of a file.
fn tensors(path: &Path, all: &[(String, Vec<usize>)]) {
    let numbers = |n: usize| (0..n).flat_map(|i| ((i as f32 * 0.37).sin() * 0.3).to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<Vec<u8>> = all.iter().map(|(_, dims)| numbers(dims.iter().product())).collect();
    let view = |((name, dims), bytes): (&(String, Vec<usize>), _)| {
        (name.clone(), TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap())
    };
    let views: Vec<_> = all.iter().zip(&bytes).map(|(all, bytes)| view((all, bytes))).collect();
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn logits(path: &Path) {
    tensors(path, &[("input".into(), vec![10])]);
}

fn vectors(path: &Path, rows: usize, length: usize) {
    tensors(path, &[("input".into(), vec![rows, length])]);
}

/// A multi-layer perceptron of these widths.
fn perceptron(path: &Path, widths: &[usize]) {
    let layer = |(i, pair): (usize, &[usize])| {
        let name = |what: &str| format!("{}.{what}", 2 * i);
        [(name("weight"), vec![pair[1], pair[0]]), (name("bias"), vec![pair[1]])]
    };
    tensors(path, &widths.windows(2).enumerate().flat_map(layer).collect::<Vec<_>>());
}

fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/old-formats").join(name)
}

#[test]
fn what_the_first_version_wrote_still_reads() {
    let lines: Vec<Line> = Journal::read(&old("records.jsonl")).unwrap();
    assert_eq!((lines.len(), lines[0].record.record_version, lines[0].record.bytes.len()), (2, 0, 0));
    assert!(lines[0].record.error.is_some() && lines[1].stamp.is_some() && lines[1].place.is_none());
    let evaluated: Vec<Evaluated> = Journal::read(&old("eval.jsonl")).unwrap();
    assert_eq!((evaluated.len(), evaluated[0].record_version), (1, 0));
    let summary: Summary = serde_json::from_slice(&read(&old("summary.json"))).unwrap();
    assert_eq!((summary.record_version, summary.scores.is_empty()), (0, false));
    let report: CheckReport = serde_json::from_slice(&read(&old("check.json"))).unwrap();
    assert_eq!((report.record_version, report.pictures.is_empty()), (0, false));
    // The schemas take them as well: keys are only ever added.
    let complaints = |name: &str, value: &Value| {
        let mut found = Vec::new();
        complaints(&schema(name), value, name, &mut found);
        assert!(found.is_empty(), "{found:#?}");
    };
    for (name, file) in [("record", "records.jsonl"), ("attack-record", "attacks.jsonl"), ("eval-line", "eval.jsonl")] {
        self::lines(&read(&old(file))).iter().for_each(|line| complaints(name, line));
    }
    for (name, file) in
        [("manifest", "manifest.json"), ("eval-summary", "summary.json"), ("check-report", "check.json")]
    {
        complaints(name, &json_of(&old(file)));
    }
}

#[test]
fn records_of_the_first_version_are_resumed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 1);
    array(&folder.path().join("a.safetensors"), 3, 24);
    let arguments = ["x.png", "a.safetensors", "-m", "gradient", "--format", "npy", "-o", "out"];
    assert_eq!(code(&explain(folder.path(), &arguments)), 0);
    let without = |record: &Value, keys: &[&str]| {
        let mut record = record.as_object().unwrap().clone();
        keys.iter().for_each(|key| drop(record.remove(*key)));
        format!("{}\n", Value::Object(record))
    };
    let since = ["bytes", "record_version", "shares", "assumed", "warnings", "place", "part"];
    let path = folder.path().join("out/records.jsonl");
    let then: String = records(folder.path()).iter().map(|r| without(r, &since)).collect();
    std::fs::write(&path, &then).unwrap();
    let resumed = explain(folder.path(), &[&arguments[..], &["--resume", "--json"]].concat());
    assert_eq!((code(&resumed), lines(&resumed.stdout).len()), (0, 0), "{}", said(&resumed));

    // Records of an attack, which said less then, stay beside them.
    std::fs::write(&path, [then.as_bytes(), &read(&old("attacks.jsonl"))].concat()).unwrap();
    std::fs::write(folder.path().join("out/old.fgsm.npy"), "there").unwrap();
    let resumed = explain(folder.path(), &[&arguments[..], &["--resume", "--json"]].concat());
    assert_eq!((code(&resumed), lines(&resumed.stdout).len(), records(folder.path()).len()), (0, 0, 5));
}
