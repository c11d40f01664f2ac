//! The program as a person or a script meets it: exit codes, records, names of files, help.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Crop of the pictures: small, so that the embedded net takes milliseconds.
const SIZE: &str = "32";

fn verilume(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    verilume(folder, arguments).output().unwrap()
}

fn explain(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, &[&["explain", "--size", SIZE], arguments].concat())
}

fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn records(path: PathBuf) -> Vec<Value> {
    lines(&std::fs::read(path).unwrap())
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("out/manifest.json")).unwrap()).unwrap()
}

/// A picture unlike any other.
fn picture(path: &Path, width: u32, height: u32, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed) + y * 13 + c * 85 + (x * y + seed) % 31) as u8;
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
}

fn npy(path: &Path, shape: &[usize], values: &[f32]) {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", {
        shape.iter().map(|d| format!("{d},")).collect::<String>()
    });
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A PNG that promises 60000 x 60000 pixels and holds none.
fn huge_png(path: &Path) {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 })
        })
    };
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = 60_000u32.to_be_bytes();
    let ihdr = [b"IHDR".as_slice(), &side, &side, &[8, 2, 0, 0, 0]].concat();
    for chunk in [ihdr, b"IDAT\x78\x9c\x03\x00\x00\x00\x00\x01".to_vec(), b"IEND".to_vec()] {
        bytes.extend((chunk.len() as u32 - 4).to_be_bytes());
        bytes.extend(&chunk);
        bytes.extend(crc(&chunk).to_be_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn bad_inputs_are_records_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join("in").join(name);
    picture(&inside("good.png"), 48, 40, 1);
    picture(&inside("one.png"), 1, 1, 2);
    picture(&inside("cut.jpg"), 90, 70, 3);
    let whole = std::fs::read(inside("cut.jpg")).unwrap();
    std::fs::write(inside("cut.jpg"), &whole[..whole.len() / 3]).unwrap();
    std::fs::write(inside("empty.png"), b"").unwrap();
    std::fs::write(inside("text.png"), b"this is no picture").unwrap();
    std::fs::write(inside("notes.txt"), b"neither is this").unwrap();
    huge_png(&inside("huge.png"));
    let mut values: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    values[3 * 32 * 32 + 5] = f32::NAN;
    npy(&inside("rows.npy"), &[2, 3, 32, 32], &values);

    let arguments = ["in", "missing.png", "-m", "gradient", "--format", "overlay,npy", "--json", "-o", "out"];
    let output = explain(folder.path(), &arguments);
    assert_eq!(code(&output), 1);
    let printed = lines(&output.stdout);
    let keys = [
        "bytes",
        "error",
        "files",
        "gap",
        "index",
        "input",
        "method",
        "peak_bytes",
        "prediction",
        "record_version",
        "score",
        "seconds",
        "target",
        "target_label",
    ];
    for record in &printed {
        let mut keys = BTreeSet::from(keys);
        // Sizes of files, where there are any.
        if record["files"].as_array().unwrap().is_empty() {
            keys.remove("bytes");
        }
        assert_eq!(record.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), keys);
    }
    let outcome: BTreeMap<String, bool> = printed
        .iter()
        .map(|r| {
            let row = r["index"].as_u64().map_or_else(String::new, |i| format!("[{i}]"));
            (format!("{}{row}", r["input"].as_str().unwrap()), r["error"].is_null())
        })
        .collect();
    let expected = [
        ("in/cut.jpg", false),
        ("in/empty.png", false),
        ("in/good.png", true),
        ("in/huge.png", false),
        ("in/one.png", true),
        ("in/rows.npy[0]", true),
        ("in/rows.npy[1]", false),
        ("in/text.png", false),
        ("missing.png", false),
    ];
    assert_eq!(outcome, expected.map(|(name, good)| (name.to_string(), good)).into());
    for record in &printed {
        let good = record["error"].is_null();
        assert_eq!(record["method"] == "gradient", good, "{record}");
        assert_eq!(record["prediction"].as_array().unwrap().len(), if good { 5 } else { 0 });
        for file in record["files"].as_array().unwrap() {
            assert!(folder.path().join(file.as_str().unwrap()).is_file(), "{file}");
        }
    }
    assert_eq!(records(folder.path().join("out/records.jsonl")).len(), printed.len());

    let map = npyz::NpyFile::new(std::fs::File::open(folder.path().join("out/rows.gradient.npy")).unwrap()).unwrap();
    assert_eq!(map.shape(), [2, 3, 32, 32]);
    let map: Vec<f32> = map.into_vec().unwrap();
    let (first, second) = map.split_at(3 * 32 * 32);
    assert!(first.iter().all(|v| v.is_finite()) && first.iter().any(|&v| v != 0.0));
    assert!(second.iter().all(|v| v.is_nan()));

    let manifest = manifest(folder.path());
    assert_eq!(manifest["ignored_files"], 1);
    let failed = manifest["files"].as_array().unwrap().iter().filter(|f| f["status"] == "failed");
    assert_eq!(failed.count(), 6);
    assert_eq!(manifest["model"]["sha256"].as_str().unwrap().len(), 64);

    // Rows that were refused once are refused again, and nothing is made twice.
    let again = explain(folder.path(), &[&arguments[..], &["--resume"]].concat());
    assert_eq!(code(&again), 1);
    assert!(lines(&again.stdout).iter().all(|r| !r["error"].is_null() && r["index"].is_null()));
}

#[test]
fn nothing_done_is_another_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.png"), b"no picture").unwrap();
    let output = explain(folder.path(), &["text.png", "--json"]);
    assert_eq!(code(&output), 2);
    assert_eq!(lines(&output.stdout).len(), 1);
}

#[test]
fn wrong_usage_names_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 40, 40, 0);
    let cases: [(&[&str], &str); 11] = [
        (&["a.png", "-m", "gradeint"], "gradient"),
        (&["a.png", "-m", "smoothgrad:sigm=1"], "sigma"),
        (&["a.png", "-t", "top:0"], "top:K"),
        (&["a.png", "-t", "1000"], "1000"),
        (&["a.png", "-t", "tabby ct"], "tabby"),
        (&["a.png", "-t", "file:"], "needs the path"),
        (&["a.png", "-m", "ig:steps=-3"], "whole number"),
        (&["a.png", "--std=1e-300"], "1e-300"),
        (&["a.png", "--precision", "bf16"], "CUDA"),
        (&["a.png", "--memory", "12 parsecs"], "unit"),
        (&["a.png", "--shard", "0/2"], "1/n"),
    ];
    for (arguments, hint) in cases {
        let output = explain(folder.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(hint), "{arguments:?}: {message}");
    }
    assert!(!folder.path().join("verilume-out").exists());
    let output = explain(folder.path(), &["a.png", "a.png", "-m", "grad_cam:layer=nowhere", "-o", "out"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("'nowhere'"));
    let output = explain(folder.path(), &["a.png", "--device", "cuda:99", "-o", "out"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cuda:99"));
}

#[test]
fn resume_does_what_is_missing_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..4 {
        picture(&folder.path().join(format!("in/{i}.png")), 40, 40, i);
    }
    let done = |arguments: &[&str]| {
        let arguments =
            [&["in", "-m", "gradient", "-m", "input_x_gradient", "-o", "out", "--json"], arguments].concat();
        let output = explain(folder.path(), &arguments);
        assert_eq!(code(&output), 0);
        lines(&output.stdout).len()
    };
    assert_eq!(done(&[]), 8);
    assert_eq!(done(&["--resume"]), 0);
    assert_eq!(manifest(folder.path())["files"][0]["status"], "skipped");

    let path = folder.path().join("out/records.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
    std::fs::remove_file(folder.path().join("out/1.gradient.png")).unwrap();
    assert_eq!(done(&["--resume"]), 2);
    assert_eq!(records(path.clone()).len(), 8);

    assert_eq!(done(&["--resume", "--seed", "1"]), 8);
    assert_eq!(done(&["--seed", "1"]), 8);
    assert_eq!(records(path).len(), 8);
}

#[test]
fn a_killed_run_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..24 {
        picture(&folder.path().join(format!("in/{i}.png")), 40, 40, i);
    }
    let arguments = ["explain", "--size", "96", "in", "-o", "out", "--json"];
    let mut child = verilume(folder.path(), &arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!first.is_empty());

    let output = run(folder.path(), &[&arguments[..], &["--resume"]].concat());
    assert_eq!(code(&output), 0);
    assert!(lines(&output.stdout).len() < 24);
    let all = records(folder.path().join("out/records.jsonl"));
    let inputs: BTreeSet<&str> = all.iter().map(|r| r["input"].as_str().unwrap()).collect();
    assert_eq!((all.len(), inputs.len()), (24, 24));
}

#[test]
fn shards_are_a_partition() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..10 {
        picture(&folder.path().join(format!("in/{}/{i}.png", i % 2)), 40, 40, i);
    }
    let mut seen = Vec::new();
    for part in 1..=3 {
        let output = explain(folder.path(), &["in", "-o", "out", "--shard", &format!("{part}/3")]);
        assert_eq!(code(&output), 0);
        for record in records(folder.path().join(format!("out/records.{part}-of-3.jsonl"))) {
            seen.push(record["input"].as_str().unwrap().to_owned());
        }
        assert!(folder.path().join(format!("out/manifest.{part}-of-3.json")).is_file());
    }
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (10, 10));
}

#[test]
fn results_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["in/x.png", "in/x.bmp", "in/sub/x.png"] {
        picture(&folder.path().join(name), 40, 40, 5);
    }
    let arguments =
        ["in", "-m", "ig:steps=2", "-m", "ig:steps=3", "-t", "top:2", "--score", "prob", "--json", "-o", "out"];
    let output = explain(folder.path(), &arguments);
    assert_eq!(code(&output), 0);
    let printed = lines(&output.stdout);
    let mut files = BTreeSet::new();
    for record in &printed {
        let [file] = record["files"].as_array().unwrap().as_slice() else { panic!("{record}") };
        files.insert(file.as_str().unwrap().to_owned());
    }
    assert_eq!((printed.len(), files.len()), (12, 12));
    let best = printed[0]["prediction"][0]["index"].as_u64().unwrap();
    for stem in ["x.png", "x.bmp", "sub/x"] {
        for id in ["integrated_gradients", "integrated_gradients-2"] {
            let file = format!("out/{stem}.{id}.{best}.png");
            assert!(files.contains(&file) && folder.path().join(&file).is_file(), "{file}");
        }
    }
    let score = printed[0]["score"].as_f64().unwrap();
    assert!(0.0 < score && score < 1.0);

    // Results below the output folder are not explained in turn.
    let output = explain(folder.path(), &[".", "--json", "-o", "out"]);
    assert_eq!(lines(&output.stdout).len(), 3);
}

#[test]
fn a_list_of_paths_comes_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..2 {
        picture(&folder.path().join(format!("with space [{i}].png")), 40, 40, i);
    }
    let mut child = verilume(folder.path(), &["explain", "-", "--size", SIZE, "-q", "--format", "heatmap,grid"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"with space [0].png\n\nwith space [1].png\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(output.stderr.is_empty());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
    assert!(folder.path().join("verilume-out/with space [1].grad_cam.png").is_file());
    assert!(folder.path().join("verilume-out/with space [1].grid.png").is_file());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 40, 40, 0);
    for arguments in [&["explain", "a.png", "--size", SIZE, "--json"][..], &["explain", "--list-methods"]] {
        let mut child =
            verilume(folder.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(code(&child.wait_with_output().unwrap()), 0, "{arguments:?}");
    }
    assert!(folder.path().join("verilume-out/manifest.json").is_file());
}

#[test]
fn help_names_every_method_and_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(run(folder.path(), &["explain", "--help"]).stdout).unwrap();
    for entry in verilume::method::registry() {
        assert!(help.contains(entry.id), "{}", entry.id);
        for parameter in entry.parameters {
            assert!(help.contains(&format!("{}={}", parameter.key, parameter.default)), "{}", parameter.key);
        }
    }
    let listed = run(folder.path(), &["explain", "--list-methods", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), verilume::method::registry().len());
    let script = run(folder.path(), &["completions", "bash"]);
    assert!(String::from_utf8_lossy(&script.stdout).contains("verilume"));
}

#[test]
fn the_net_and_the_machine_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let info: Value = serde_json::from_slice(&run(folder.path(), &["model", "info", "--json"]).stdout).unwrap();
    assert_eq!((&info["classes"], &info["name"]), (&1000.into(), &"efficientnet-lite0".into()));
    let text = String::from_utf8(run(folder.path(), &["model", "info"]).stdout).unwrap();
    for layer in info["layers"].as_array().unwrap() {
        assert!(text.lines().any(|l| l.split_whitespace().next() == layer["name"].as_str()), "{layer}");
    }
    let output = run(folder.path(), &["doctor", "--json"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["embedded_model"]["ok"], &report["self_test"]["ok"]), (&true.into(), &true.into()));
    assert!(!report["cuda_driver"]["detail"].as_str().unwrap().is_empty());
}

#[test]
fn resume_knows_whose_map_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a/x.png"), 40, 40, 1);
    picture(&folder.path().join("b/x.png"), 40, 40, 2);
    let made = |arguments: &[&str]| {
        let output =
            explain(folder.path(), &[arguments, &["--format", "npy", "-o", "out", "--json", "--resume"]].concat());
        assert_eq!(code(&output), 0);
        lines(&output.stdout).len()
    };
    let map = |name: &str| std::fs::read(folder.path().join("out").join(name)).unwrap();
    assert_eq!(made(&["a/x.png", "-m", "gradient"]), 1);
    let first = map("x.gradient.npy");
    assert_eq!(made(&["b/x.png", "-m", "gradient"]), 1);
    assert_eq!(records(folder.path().join("out/records.jsonl")).len(), 2);
    assert_eq!(made(&["a/x.png", "-m", "gradient"]), 0);
    assert_eq!(map("x.gradient.npy"), first);
    assert_ne!(map("x-2.gradient.npy"), first);

    // Another method leaves the records of this one alone.
    assert_eq!(made(&["a/x.png", "-m", "input_x_gradient"]), 1);
    assert_eq!(made(&["a/x.png", "-m", "gradient"]), 0);

    // A picture that was replaced by an older one is another picture.
    picture(&folder.path().join("a/x.png"), 41, 40, 3);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    std::fs::File::options().write(true).open(folder.path().join("a/x.png")).unwrap().set_modified(old).unwrap();
    assert_eq!(made(&["a/x.png", "-m", "gradient"]), 1);
    assert_eq!(made(&["a/x.png", "-m", "gradient"]), 0);
}

#[test]
fn resume_reads_the_files_of_parameters() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 40, 40, 1);
    let made = |seed| {
        picture(&folder.path().join("base.png"), 40, 40, seed);
        let arguments = ["x.png", "-m", "ig:steps=2,baseline=file:base.png", "-o", "out", "--json", "--resume"];
        let output = explain(folder.path(), &arguments);
        assert_eq!(code(&output), 0);
        lines(&output.stdout).len()
    };
    assert_eq!([made(2), made(2), made(3), made(3)], [1, 0, 1, 0]);
}

#[test]
fn one_run_at_a_time_writes_to_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 40, 40, 1);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let lock = std::fs::File::create(out.join(".records.lock")).unwrap();
    lock.lock().unwrap();
    let output = explain(folder.path(), &["x.png", "-o", "out"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("another run is writing to out"));
    assert_eq!(code(&explain(folder.path(), &["x.png", "-o", "out", "--shard", "1/1"])), 0);
    drop(lock);
    assert_eq!(code(&explain(folder.path(), &["x.png", "-o", "out"])), 0);
}

#[test]
fn nothing_half_made_stays_behind() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 40, 40, 1);
    for name in ["x.gradient.png", "x.gradient.npy"] {
        std::fs::create_dir_all(folder.path().join("out").join(name).join("full")).unwrap();
        let format = if name.ends_with("npy") { "npy" } else { "overlay" };
        let output = explain(folder.path(), &["x.png", "-m", "gradient", "-o", "out", "--format", format]);
        assert_eq!(code(&output), 2);
    }
    let names = std::fs::read_dir(folder.path().join("out")).unwrap();
    assert!(names.into_iter().all(|e| !e.unwrap().file_name().to_string_lossy().ends_with(".partial")));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 40, 40, 1);
    for name in ["pipe.png", "pipe.npy", "pipe.safetensors"] {
        assert!(Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap().success());
    }
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.png")).unwrap();
    let output = explain(folder.path(), &[".", "-o", "out", "--json"]);
    assert_eq!(code(&output), 1);
    let printed = lines(&output.stdout);
    assert_eq!(printed.len(), 5);
    let refused = |r: &&Value| r["error"].as_str().is_some_and(|e| e.contains("not a regular file"));
    assert_eq!(printed.iter().filter(refused).count(), 4);
    let pipe = "pipe.safetensors";
    for arguments in [["--model", pipe], ["-t", "file:pipe.npy"], ["-t", "file:pipe.safetensors"], ["--labels", pipe]] {
        let output = explain(folder.path(), &[&["x.png", "-o", "out"], &arguments[..]].concat());
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not a regular file"), "{arguments:?}");
    }
}

#[test]
fn results_spare_the_inputs() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("x.png"), 40, 40, 1);
    picture(&folder.path().join("x.gradient.png"), 40, 40, 2);
    let before = std::fs::read(folder.path().join("x.gradient.png")).unwrap();
    let arguments = ["x.png", "x.gradient.png", "-m", "gradient", "-o", ".", "--json", "--format", "overlay,npy"];
    let output = explain(folder.path(), &arguments);
    assert_eq!(code(&output), 1);
    assert_eq!(std::fs::read(folder.path().join("x.gradient.png")).unwrap(), before);
    assert!(!folder.path().join("x.gradient.npy").exists());
    assert!(folder.path().join("x.gradient.gradient.png").exists());

    // Results beside the inputs are no inputs of the next run.
    for inputs in [".", "*.png"] {
        let output = explain(folder.path(), &[inputs, "-m", "input_x_gradient", "-o", ".", "--json", "--resume"]);
        assert_eq!((code(&output), lines(&output.stdout).len()), (0, 2), "{inputs}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"a\xff.png");
    picture(&folder.path().join("a.png"), 40, 40, 1);
    std::fs::rename(folder.path().join("a.png"), folder.path().join(name)).unwrap();
    let made = || {
        let output = verilume(folder.path(), &["explain", "--size", SIZE, "--json", "-m", "gradient", "--resume"])
            .arg(name)
            .output()
            .unwrap();
        assert_eq!(code(&output), 0);
        lines(&output.stdout)
    };
    let printed = made();
    assert_eq!(printed[0]["input"], "a\\xff.png");
    let map = std::ffi::OsStr::from_bytes(b"a\xff.gradient.png");
    assert!(folder.path().join("verilume-out").join(map).is_file());
    assert!(made().is_empty());
}

#[test]
fn an_array_that_does_not_fit_is_one_failure() {
    let folder = tempfile::tempdir().unwrap();
    npy(&folder.path().join("flat.npy"), &[32, 32], &[0.5; 1024]);
    let output = explain(folder.path(), &["flat.npy", "--json", "-o", "out"]);
    assert_eq!((code(&output), lines(&output.stdout).len()), (2, 1));
}

/// Kernels of this machine and numbers are of no interest here: what is said of them must hold together.
#[test]
fn bench_rows_hold_together() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "--random-weights", "resnet20", "--size", "16", "--repeat", "2", "--json"];
    let more = ["-m", "ig:steps=2", "-m", "gradient", "--batch", "1,2", "--threads", "1", "--threads", "2"];
    let output = run(folder.path(), &[&arguments[..], &more].concat());
    assert_eq!(code(&output), 0);
    let rows = lines(&output.stdout);
    let keys = [
        "batch",
        "conv",
        "device",
        "input",
        "kernels",
        "median_s",
        "memory",
        "method",
        "model",
        "p10_s",
        "p90_s",
        "peak_bytes",
        "precision",
        "seed",
        "spec",
        "threads",
    ];
    let mut combinations = BTreeSet::new();
    for row in &rows {
        assert_eq!(row.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), keys.into());
        let [p10, median, p90] = ["p10_s", "median_s", "p90_s"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < p10 && p10 <= median && median <= p90, "{row}");
        assert!(row["peak_bytes"].as_u64().unwrap() > 0);
        assert_eq!(
            (&row["model"], &row["device"], &row["precision"]),
            (&"resnet20".into(), &"cpu".into(), &"f32".into())
        );
        let method = row["method"].as_str().unwrap().to_owned();
        combinations.insert((method, row["batch"].as_u64().unwrap(), row["threads"].as_u64().unwrap()));
    }
    assert_eq!((rows.len(), combinations.len()), (8, 8));
    assert!(combinations.contains(&("integrated_gradients".into(), 2, 2)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("class 1,"), "281 modulo 10 classes");
}

#[test]
fn bench_says_what_it_cannot_measure() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |more: &[&str]| {
        let output = run(folder.path(), &[&["bench", "--random-weights", "resnet20", "--repeat", "1"], more].concat());
        (code(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, message) = bench(&["--memory", "100KiB"]);
    assert!(status == 2 && message.contains("do not suffice"), "{message}");
    let (status, message) = bench(&["--memory", "100KiB", "--quiet"]);
    assert!(status == 2 && message.contains("do not suffice"), "{message}");
    let (status, message) = bench(&["--batch", "100000000000"]);
    assert!(status == 2 && message.contains("do not fit"), "{message}");
    let (status, message) = bench(&["--kernels", "sse9"]);
    assert!(status == 2 && message.contains("portable"), "{message}");
    let (status, message) = bench(&["--threads", "0"]);
    assert!(status == 2 && message.contains("at least 1"), "{message}");
    let (status, message) = bench(&["-m", "ig:baseline=file:a.png"]);
    assert!(status == 2 && message.contains("a.png"), "{message}");
    let output = run(folder.path(), &["bench", "--random-weights", "resnet1"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("resnet18"));
}

#[test]
fn a_profile_accounts_for_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let net = ["profile", "--random-weights", "resnet20", "-m", "smoothgrad:n=3", "--batch", "2", "--repeat", "3"];
    let output = run(folder.path(), &[&net[..], &["--json", "old.json", "--trace", "trace.json"]].concat());
    assert_eq!(code(&output), 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("GFLOP/s"));
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap() };
    let old = read("old.json");
    let steps = old["steps"].as_array().unwrap();
    let sum = |key: &str, rows: &[Value]| rows.iter().map(|r| r[key].as_f64().unwrap()).sum::<f64>();

    // What happens between the steps is little, but a busy machine may do it at any time.
    let (all, total) = (sum("ms", steps), old["total_ms"].as_f64().unwrap());
    assert!(0.2 * total < all && all < 1.5 * total, "steps {all} ms of {total} ms");
    for group in ["by_kernel", "by_pass"] {
        let groups = old[group].as_array().unwrap();
        assert!((sum("ms", groups) / all - 1.0).abs() < 1e-9);
        assert_eq!(sum("flops", groups), sum("flops", steps));
        assert_eq!(sum("steps", groups) as usize, steps.len());
    }
    // 2 pictures of 3 copies each.
    let model = verilume::model::Model::random("resnet20", 0).unwrap();
    let forward = old["by_pass"].as_array().unwrap().iter().find(|t| t["name"] == "forward").unwrap();
    let macs = model.graph(model.default_input()).unwrap().macs();
    assert_eq!(forward["flops"].as_u64().unwrap(), 6 * 2 * macs as u64);
    let first = steps.iter().find(|s| s["layer"] == "conv1").unwrap();
    assert_eq!(
        (&first["pass"], &first["primitive"], &first["kernel"].is_string()),
        (&"forward".into(), &"conv".into(), &true)
    );
    assert_eq!((&first["input"], &first["output"]), (&vec![3, 32, 32].into(), &vec![16, 32, 32].into()));
    for step in steps {
        assert!(["fma", "memory"].contains(&step["bound"].as_str().unwrap()), "{step}");
        assert!(step["roofline_share"].as_f64().unwrap() >= 0.0, "{step}");
    }

    let trace = read("trace.json");
    let events = trace["traceEvents"].as_array().unwrap();
    let timed = events.iter().filter(|e| e["ph"] == "X" && e["tid"] == 2);
    assert!(timed.count() >= steps.len());
    assert!(events.iter().filter(|e| e["ph"] == "X").all(|e| e["ts"].is_number() && e["dur"].is_number()));

    let output = run(folder.path(), &[&net[..], &["--json", "--compare", "old.json", "-q"]].concat());
    assert_eq!(code(&output), 0);
    assert!(output.stderr.is_empty());
    let new: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(new["compared"]["unmatched"], 0);
    assert!(new["compared"]["total_ratio"].as_f64().unwrap() > 0.0);
    for (step, was) in new["steps"].as_array().unwrap().iter().zip(steps) {
        assert_eq!(step["old_ms"], was["ms"]);
    }
    std::fs::write(folder.path().join("other.json"), "{}").unwrap();
    let otherwise = ["--compare", "old.json", "--kernels", "portable", "--size", "24"];
    let output = run(folder.path(), &[&net[..], &otherwise].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another size, set of kernels"), "{said}");
    // What was measured is shown even if it cannot be kept.
    let output = run(folder.path(), &[&net[..], &["--trace", "no/such/folder/trace.json"]].concat());
    assert!(code(&output) == 2 && String::from_utf8_lossy(&output.stdout).contains("GFLOP/s"));
    let output = run(folder.path(), &[&net[..], &["--compare", "other.json"]].concat());
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("other.json"));
}
