//! Files of others are spared, and what ends a run is said once.
#![cfg(all(feature = "cli", feature = "embedded-model", unix))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_verilume")).current_dir(folder).args(arguments).output().unwrap();
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    output.stdout.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn picture(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture =
        image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * 6) as u8, (y * 6) as u8, (x * y % 251) as u8]));
    picture.save(path).unwrap();
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ["a.png", "b.png"].iter().for_each(|name| picture(&folder.path().join(name)));
    folder
}

const GRADIENT: [&str; 6] = ["explain", "-m", "gradient", "--size", "32", "--json"];

#[test]
fn a_file_that_no_run_has_made_is_not_overwritten() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("out")).unwrap();
    std::fs::write(at("out/a.gradient.npy"), "precious").unwrap();
    std::fs::write(at("out/manifest.json"), "not even JSON").unwrap();
    let arguments = [&GRADIENT[..], &["a.png", "b.png", "--format", "npy", "-o", "out"]].concat();
    for more in [&[][..], &[], &["--resume"]] {
        let output = run(folder.path(), &[&arguments[..], more].concat());
        assert_eq!(code(&output), 1, "{}", said(&output));
        let failed: Vec<Value> = lines(&output).into_iter().filter(|r| !r["error"].is_null()).collect();
        assert!(failed.len() == 1 && failed[0]["error"].as_str().unwrap().contains("a.gradient.npy"), "{failed:?}");
        assert_eq!(std::fs::read(at("out/a.gradient.npy")).unwrap(), b"precious");
    }
    assert_eq!(std::fs::read(at("out/manifest.1.json")).unwrap(), b"not even JSON");
    // A result of a run that left no record is a result.
    std::fs::remove_file(at("out/records.jsonl")).unwrap();
    std::fs::remove_file(at("out/a.gradient.npy")).unwrap();
    assert_eq!(code(&run(folder.path(), &arguments)), 0);

    std::fs::write(at("out/a.fgsm.png"), "precious").unwrap();
    let output = run(folder.path(), &["attack", "a.png", "-a", "fgsm", "--size", "32", "--json", "-o", "out"]);
    assert!(lines(&output)[0]["error"].as_str().unwrap().contains("a.fgsm.png"), "{}", said(&output));
    assert_eq!(std::fs::read(at("out/a.fgsm.png")).unwrap(), b"precious");
}

#[test]
fn a_page_of_somebody_else_is_kept() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("out")).unwrap();
    std::fs::write(at("out/check.html"), "precious").unwrap();
    let arguments =
        ["check", "a.png", "-m", "gradient", "--tests", "wrong_class", "--size", "32", "--format", "html", "-o", "out"];
    for _ in 0..2 {
        assert_eq!(code(&run(folder.path(), &arguments)), 0);
    }
    assert_eq!(std::fs::read(at("out/check.1.html")).unwrap(), b"precious");
    assert!(!at("out/check.2.html").exists());
}

#[test]
fn measurements_and_fits_write_over_nothing_of_others() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/efficientnet-lite0.safetensors");
    std::fs::copy(weights, at("net.safetensors")).unwrap();
    let profile = |more: &[&str]| {
        let common = ["profile", "--model", "net.safetensors", "-m", "gradient", "--size", "32", "--repeat", "1", "-q"];
        run(folder.path(), &[&common[..], more].concat())
    };
    let before = std::fs::read(at("net.safetensors")).unwrap();
    for (more, word) in [
        (&["--json", "net.safetensors"][..], "the model's file"),
        (&["--trace", "./net.safetensors"], "the model's file"),
        (&["--json", "a.png"], "give another name"),
        (&["--trace", "a.png"], "give another name"),
        (&["--json", "p.json", "--trace", "./p.json"], "a file of its own"),
    ] {
        let output = profile(more);
        assert!(code(&output) == 2 && said(&output).contains(word), "{more:?}: {}", said(&output));
    }
    assert_eq!(std::fs::read(at("net.safetensors")).unwrap(), before);
    for (out, word) in [("a.png", "the same file"), ("note.txt", "neither patterns nor a detector")] {
        std::fs::write(at("note.txt"), "precious").unwrap();
        let output = run(folder.path(), &["patterns", "fit", "--data", "a.png", "--size", "32", "-o", out]);
        assert!(code(&output) == 2 && said(&output).contains(word), "{out}: {}", said(&output));
    }
    let fit =
        ["detector", "train", "--data", "a.png", "--attack", "fgsm", "-m", "gradient", "--size", "32", "-o", "a.png"];
    assert!(said(&run(folder.path(), &fit)).contains("the same file"));
}

#[test]
fn what_is_too_small_for_every_picture_is_said_once() {
    let folder = folder();
    for command in [
        &["explain", "a.png", "b.png", "-m", "gradient"][..],
        &["attack", "a.png", "b.png", "-a", "fgsm"],
        &["eval", "--data", ".", "--unlabelled", "-m", "gradient", "--metric", "sparseness"],
        &["check", "a.png", "b.png", "-m", "gradient", "--tests", "wrong_class"],
    ] {
        let output =
            run(folder.path(), &[command, &["--size", "32", "--memory", "1M", "-o", "out", "--json"]].concat());
        assert_eq!((code(&output), lines(&output).len()), (2, 0), "{command:?}: {}", said(&output));
        assert_eq!(said(&output).matches("is not enough").count(), 1, "{command:?}: {}", said(&output));
        assert!(said(&output).contains("--memory"), "{}", said(&output));
    }
}

#[test]
fn baselines_that_are_not_files_are_errors() {
    let folder = folder();
    picture(&folder.path().join("base/x.png"));
    let method = ["explain", "a.png", "-m", "expected_gradients:baselines=base,n=1", "--size", "32", "-o", "out"];
    assert_eq!(code(&run(folder.path(), &method)), 0);
    assert!(Command::new("mkfifo").arg(folder.path().join("base/pipe.png")).status().unwrap().success());
    let output = run(folder.path(), &method);
    assert!(code(&output) == 2 && said(&output).contains("pipe.png"), "{}", said(&output));
    std::fs::remove_file(folder.path().join("base/pipe.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("base/zero.png")).unwrap();
    let output = run(folder.path(), &method);
    assert!(code(&output) == 2 && said(&output).contains("zero.png"), "{}", said(&output));
}

#[test]
fn an_array_in_the_order_of_fortran_that_memory_does_not_hold_is_one_error() {
    let folder = folder();
    let text = "{'descr': '<f4', 'fortran_order': True, 'shape': (40, 3, 256, 256), }";
    let text = format!("{text:117}\n");
    let header = [b"\x93NUMPY\x01\0", (text.len() as u16).to_le_bytes().as_slice(), text.as_bytes()].concat();
    std::fs::write(folder.path().join("x.npy"), header).unwrap();
    let file = std::fs::File::options().append(true).open(folder.path().join("x.npy")).unwrap();
    file.set_len(128 + 40 * 3 * 256 * 256 * 4).unwrap();
    let fit = [
        "patterns",
        "fit",
        "--data",
        "x.npy",
        "--limit",
        "3",
        "--size",
        "32",
        "--memory",
        "24M",
        "-o",
        "p.safetensors",
    ];
    let output = run(folder.path(), &fit);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert_eq!(said(&output).matches("Fortran").count(), 1, "{}", said(&output));
}

#[test]
fn boxes_of_other_files_are_said() {
    let folder = folder();
    let boxes =
        |name: &str| std::fs::write(folder.path().join("boxes.csv"), format!("{name},281,0,0,40,40\n")).unwrap();
    let eval = || {
        let metric = ["--metric", "pointing", "--boxes", "boxes.csv", "--unlabelled", "--target", "predicted"];
        run(
            folder.path(),
            &[&["eval", "--data", ".", "-m", "gradient", "--size", "32", "-o", "out"], &metric[..]].concat(),
        )
    };
    boxes("c.png");
    assert!(said(&eval()).contains("no picture has a box"));
    boxes("a.png");
    assert!(!said(&eval()).contains("no picture has a box"));
}

#[test]
fn a_write_beyond_the_limit_of_the_shell_is_said() {
    let folder = folder();
    let program = env!("CARGO_BIN_EXE_verilume");
    let command = format!("ulimit -f 1; '{program}' explain a.png -m gradient --size 96 --format npy -o out");
    let output = Command::new("sh").current_dir(folder.path()).args(["-c", &command]).output().unwrap();
    // A signal would be 128 and its number.
    assert!(output.status.code().is_some_and(|code| matches!(code, 1 | 2)), "{:?}", output.status);
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(all.contains("too large"), "{all}");
}

#[test]
fn a_list_of_labels_has_one_for_each_row_of_the_only_array() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let npy = |name: &str, rows: usize| {
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 3, 32, 32), }}");
        let text = format!("{text:117}\n");
        let header = [b"\x93NUMPY\x01\0", (text.len() as u16).to_le_bytes().as_slice(), text.as_bytes()].concat();
        let levels = (0..rows * 3 * 32 * 32).map(|i| (i * 37 % 251) as u8);
        std::fs::write(at(name), header.into_iter().chain(levels).collect::<Vec<u8>>()).unwrap();
    };
    npy("x.npy", 4);
    npy("y.npy", 4);
    let explain = |inputs: &[&str], labels: &str| {
        std::fs::write(at("labels.txt"), labels).unwrap();
        run(
            folder.path(),
            &[&GRADIENT[..], inputs, &["-t", "file:labels.txt", "--format", "npy", "-o", "out"]].concat(),
        )
    };
    let targets: Vec<Value> = lines(&explain(&["x.npy"], "5\n6\n7\n8\n")).iter().map(|r| r["target"].clone()).collect();
    assert_eq!(targets, [5, 6, 7, 8].map(Value::from));
    for (inputs, labels, word) in [
        (&["x.npy"][..], "5\n6\n7\n8\n9\n", "5 labels for 4 rows"),
        (&["x.npy"], "5\n6\n7\n", "3 labels for 4 rows"),
        (&["x.npy"], "5\n\n6\n7\n8\n", "line 2 is empty"),
        (&["x.npy", "y.npy"], "5\n6\n7\n8\n1\n2\n3\n4\n", "there are 2 arrays"),
        (&["x.npy", "y.npy"], "5\n6\n7\n8\n", "there are 2 arrays"),
        (&["a.png"], "5\n", "there is no array"),
    ] {
        let output = explain(inputs, labels);
        assert!(code(&output) == 2 && said(&output).contains(word), "{labels:?}: {}", said(&output));
    }
}

#[test]
fn an_attack_of_the_whole_range_is_warned_of() {
    let folder = folder();
    let attack = |epsilon: &str| {
        let spec = format!("fgsm:epsilon={epsilon}");
        said(&run(folder.path(), &["attack", "a.png", "-a", &spec, "--size", "32", "-o", "out"]))
    };
    assert!(attack("8").contains("whole range") && !attack("8/255").contains("whole range"));
    let fit =
        ["detector", "train", "--data", ".", "--attack", "fgsm:epsilon=8", "-m", "gradient", "--size", "32", "-o", "d"];
    assert!(said(&run(folder.path(), &fit)).contains("whole range"));
}

#[test]
fn own_books_are_not_counted_among_files_left_out() {
    let folder = folder();
    let explain = || run(folder.path(), &[&GRADIENT[..], &[".", "-o", "."]].concat());
    assert_eq!(code(&explain()), 0);
    let again = explain();
    assert!(code(&again) == 0 && !said(&again).contains("neither"), "{}", said(&again));
}

#[test]
fn a_result_whose_record_was_replaced_still_has_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    ["in", "in2", "in3"].iter().for_each(|name| picture(&folder.path().join(name).join("a.png")));
    let explain = |inputs: &[&str]| {
        let output = run(folder.path(), &[&GRADIENT[..], inputs, &["--format", "npy", "-o", "out"]].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        output
    };
    explain(&["in/a.png"]);
    let first = std::fs::read(folder.path().join("out/a.gradient.npy")).unwrap();
    // Two files of one name are kept apart by their folders, so the first result has another name from now on.
    let left = "1 file of earlier runs, made with other settings or formats, stays in out without a record";
    assert!(said(&explain(&["in/a.png", "in2/a.png"])).contains(left));
    let output = explain(&["in3/a.png"]);
    assert!(said(&output).contains("results of in/a.png are named a here; these are named a-2"), "{}", said(&output));
    assert!(folder.path().join("out/a-2.gradient.npy").is_file());
    assert_eq!(std::fs::read(folder.path().join("out/a.gradient.npy")).unwrap(), first);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/manifest.json")).unwrap()).unwrap();
    assert!(manifest["warnings"].as_array().unwrap().iter().any(|w| w == left), "{manifest}");
}

#[test]
fn results_with_other_settings_that_stay_are_counted() {
    let folder = folder();
    let explain = |more: &[&str]| {
        let output = run(folder.path(), &[&GRADIENT[..], &["a.png", "b.png", "-o", "out"], more].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        said(&output)
    };
    let stay = |said: &str| said.contains("without a record");
    assert!(!stay(&explain(&["-t", "5", "--format", "npy,overlay"])));
    // The overlay carries no class in its name, so only the raw maps of the earlier run are replaced.
    let fewer = ["-t", "3", "--format", "npy"];
    let sentence = "2 files of earlier runs, made with other settings or formats, stay in out without a record";
    for more in [&fewer[..], &[&fewer[..], &["--resume"]].concat(), &fewer] {
        assert!(explain(more).contains(sentence), "{}", explain(more));
    }
    // What is made again has a record again.
    assert!(!stay(&explain(&["-t", "5", "--format", "npy,overlay"])));
}
