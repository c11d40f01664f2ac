//! What a run takes for granted and warns of: nets that may be another, preparations, arrays of levels, names however written.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Logits of timm's own net, in double precision.
const RIGHT: [f32; 10] = [1.1944, 1.7955, 0.1265, 0.917, 1.3343, 1.2516, -0.4662, -2.82, -6.0428, -0.9191];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
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

fn npy(path: &Path, shape: &[usize], values: &[f32]) {
    let extents = shape.iter().map(|d| format!("{d},")).collect::<String>();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
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

fn picture(path: &Path, seed: u32) {
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed) + y * 13 + c * 85 + (x * y + seed) % 31) as u8;
    image::RgbImage::from_fn(40, 36, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
}

/// Pictures of 32 by 32 levels and their classes in one file.
fn labelled(path: &Path, classes: &[i64]) {
    let n = classes.len();
    let pixels = n * 3 * 32 * 32;
    let header = json!({
        "images": { "dtype": "U8", "shape": [n, 3, 32, 32], "data_offsets": [0, pixels] },
        "labels": { "dtype": "I64", "shape": [n], "data_offsets": [pixels, pixels + 8 * n] },
    })
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..pixels).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8));
    bytes.extend(classes.iter().flat_map(|c| c.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// A folder with timm's net and its input.
fn lite() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lite-symmetric-padding");
    for name in ["lite.safetensors", "x.npy"] {
        std::fs::copy(cases.join(name), folder.path().join(name)).unwrap();
    }
    npy(&folder.path().join("y.npy"), &[10], &RIGHT);
    folder
}

const EXPLAIN: [&str; 8] = ["explain", "x.npy", "--model", "lite.safetensors", "-m", "gradient", "--format", "npy"];

#[test]
fn a_lite_that_may_be_either_is_said_and_both_are_read() {
    let folder = lite();
    let output = run(folder.path(), &[&EXPLAIN[..], &["--json", "-o", "out"]].concat());
    assert_eq!(code(&output), 0);
    let record = &lines(&output.stdout)[0];
    assert_eq!(record["prediction"][0]["index"], 3);
    let warnings = record["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    let warning = warnings[0].as_str().unwrap();
    assert!(warning.contains("--arch efficientnet-lite or --arch timm-efficientnet-lite"), "{warning}");
    assert_eq!(stderr(&output).matches(warning).count(), 1, "{}", stderr(&output));
    let assumed = record["assumed"].as_array().unwrap();
    for what in ["relu6", "padding: TensorFlow's same", "batch-norm eps 1e-3"] {
        assert!(assumed.iter().any(|a| a == what), "{what}: {assumed:?}");
    }
    let manifest = json(&folder.path().join("out/manifest.json"));
    assert_eq!((&manifest["warnings"], &manifest["assumed"]), (&record["warnings"], &record["assumed"]));

    let told = |more: &[&str]| {
        let output = run(folder.path(), &[&EXPLAIN[..], &["--json", "-o", "told"], more].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        lines(&output.stdout).remove(0)
    };
    let check = |record: &Value, class: u64, logit: f64| {
        assert_eq!(record["prediction"][0]["index"], class, "{record}");
        assert!((record["score"].as_f64().unwrap() - logit).abs() < 1e-3, "{record}");
        assert!(record.get("warnings").is_none(), "{record}");
    };
    check(&told(&["--arch", "timm-efficientnet-lite"]), 1, 1.7955);
    check(&told(&["--arch", "efficientnet-lite"]), 3, 3.7285);
    for (name, class, logit) in [("efficientnet_lite0", 1, 1.7955), ("tf_efficientnet_lite0.in1k", 3, 3.7285)] {
        let config = json!({ "architecture": name, "num_classes": 10 }).to_string();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        check(&told(&[]), class, logit);
    }
    std::fs::write(folder.path().join("config.json"), r#"{"architecture": "mobilenetv4_hybrid_medium"}"#).unwrap();
    let output = run(folder.path(), &EXPLAIN);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("mobilenetv4_hybrid_medium") && stderr(&output).contains("--arch"),
        "{}",
        stderr(&output)
    );
    // Quiet is quiet; the record says it all the same.
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let output = run(folder.path(), &[&EXPLAIN[..], &["-q", "--json", "-o", "quiet"]].concat());
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(&lines(&output.stdout)[0]["warnings"], &record["warnings"]);
}

#[test]
fn verify_holds_logits_against_another_program() {
    let folder = lite();
    let verify = |more: &[&str]| {
        let output = run(
            folder.path(),
            &[&["model", "verify", "--model", "lite.safetensors", "--input", "x.npy"], more].concat(),
        );
        (code(&output), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    let timm = ["--arch", "timm-efficientnet-lite", "--logits", "y.npy"];
    for precision in ["f32", "f64"] {
        let (code, text, _) = verify(&[&timm[..], &["--precision", precision]].concat());
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("equal") && text.contains("the class agrees"), "{text}");
    }
    // The printed logits have four places.
    assert_eq!(verify(&[&timm[..], &["--tolerance", "1e-7"]].concat()).0, 1);
    let (code, text, warning) = verify(&["--logits", "y.npy", "--json"]);
    assert_eq!(code, 1);
    assert!(warning.contains("warning: taken for"), "{warning}");
    let report = &lines(text.as_bytes())[0];
    assert_eq!((&report["passed"], &report["classes_agree"]), (&json!(false), &json!(0)));
    assert!(report["relative_difference"].as_f64().unwrap() > 0.1, "{report}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1);

    npy(&folder.path().join("row.npy"), &[1, 10], &RIGHT);
    assert_eq!(verify(&["--arch", "timm-efficientnet-lite", "--logits", "row.npy"]).0, 0);
    npy(&folder.path().join("two.npy"), &[2, 10], &[RIGHT, RIGHT].concat());
    npy(&folder.path().join("nine.npy"), &[9], &RIGHT[..9]);
    npy(&folder.path().join("none.npy"), &[10], &[0.0; 10]);
    npy(&folder.path().join("nan.npy"), &[10], &[&[f32::NAN], &RIGHT[1..]].concat());
    let cases: [(&[&str], &str); 7] = [
        (&["--logits", "two.npy"], "logits of 2 inputs"),
        (&["--logits", "nine.npy"], "the net has 10 classes"),
        (&["--logits", "none.npy"], "all logits are 0"),
        (&["--logits", "nan.npy"], "element 0 of row 0"),
        (&["--logits", "missing.npy"], "missing.npy"),
        (&["--logits", "x.npy"], "the net has 10 classes"),
        (&["--logits", "y.npy", "--tolerance", "NaN"], "--tolerance"),
    ];
    for (arguments, why) in cases {
        let (code, _, message) = verify(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(message.contains(why), "{arguments:?}: {message}");
    }
}

#[test]
fn info_says_what_was_read_and_what_is_assumed() {
    let folder = lite();
    let info = || {
        let output = run(folder.path(), &["model", "info", "--model", "lite.safetensors", "--json"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let plain = info();
    assert_eq!((plain["warnings"].as_array().unwrap().len(), &plain["read"]), (1, &json!([])));
    let config = json!({
        "architecture": "efficientnet_lite0", "num_classes": 10,
        "pretrained_cfg": {
            "input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bilinear",
            "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
        },
        "label_names": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"],
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let told = info();
    assert_eq!(told["architecture"], "timm-efficientnet-lite [1,2,2,3,3,4,1]");
    assert_eq!((&told["assumed"], &told["input"]), (&json!([]), &json!([3, 96, 96])));
    assert_eq!(
        (&told["preprocess"]["resize"], &told["preprocess"]["interpolation"]),
        (&json!(106), &json!("bilinear"))
    );
    assert!(told["warnings"][0].as_str().unwrap().contains("mean of 123.675"), "{}", told["warnings"]);
    let shown = run(folder.path(), &["model", "info", "--model", "lite.safetensors"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("config.json: architecture efficientnet_lite0"), "{shown}");
}

#[test]
fn constants_and_arrays_of_levels_up_to_255_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 1);
    let explain = |more: &[&str]| {
        let output = run(
            folder.path(),
            &[&["explain", "--size", "32", "-m", "gradient", "--format", "npy", "--json"], more].concat(),
        );
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        (lines(&output.stdout), stderr(&output))
    };
    let (records, said) =
        explain(&["a.png", "-o", "1", "--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"]);
    let warning = records[0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("123.675") && warning.contains("255") && said.contains(warning), "{said}");
    let (records, _) = explain(&["a.png", "-o", "2", "--std", "58"]);
    assert!(records[0]["warnings"][0].as_str().unwrap().contains("standard deviation of 58"));
    let (records, said) = explain(&["a.png", "-o", "3", "--mean", "0.485,0.456,0.406", "--std", "0.229"]);
    assert!(records[0].get("warnings").is_none() && !said.contains("warning"), "{said}");

    let numbers =
        |scale: f32, shift: f32| (0..2 * 3 * 1024).map(|i| (i % 256) as f32 * scale + shift).collect::<Vec<_>>();
    npy(&folder.path().join("levels.npy"), &[2, 3, 32, 32], &numbers(1.0, 0.0));
    npy(&folder.path().join("scaled.npy"), &[2, 3, 32, 32], &numbers(1.0 / 64.0, -2.0));
    npy(&folder.path().join("units.npy"), &[2, 3, 32, 32], &numbers(1.0 / 255.0, 0.0));
    let (records, said) = explain(&["levels.npy", "scaled.npy", "units.npy"]);
    for record in &records {
        let warned = record.get("warnings").is_some();
        assert_eq!(warned, record["input"] == "levels.npy", "{record}");
    }
    assert_eq!(said.matches("warning: levels.npy: the numbers look like levels").count(), 1, "{said}");
    let manifest = json(&folder.path().join("verilume-out/manifest.json"));
    assert_eq!(manifest["warnings"].as_array().unwrap().len(), 1);
}

/// Classes that the embedded net gives the pictures of [`labelled`].
fn predicted(folder: &Path, n: usize) -> Vec<i64> {
    labelled(&folder.join("set.safetensors"), &vec![0; n]);
    let output =
        run(folder, &["explain", "set.safetensors", "--size", "32", "-m", "gradient", "--format", "npy", "--json"]);
    lines(&output.stdout).iter().map(|r| r["prediction"][0]["index"].as_i64().unwrap()).collect()
}

#[test]
fn a_net_that_only_guesses_is_warned_of_wherever_classes_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let n = 21;
    let right = predicted(folder.path(), n);
    let wrong: Vec<i64> = right.iter().map(|class| (class + 1) % 1000).collect();
    let net = ["--size", "32"];
    let sentence =
        "right on 0.0 % of 21 pictures: is the preparation, or the order of bytes, as the net expects?".to_string();
    let once = |output: &Output, expected: bool| {
        assert!(code(output) < 2, "{}", stderr(output));
        assert_eq!(stderr(output).matches(&sentence).count(), usize::from(expected), "{}", stderr(output));
    };
    let has = |warnings: &Value| warnings.as_array().is_some_and(|w| w.iter().any(|w| *w == json!(sentence)));
    for (classes, warned) in [(&wrong, true), (&right, false)] {
        let folder = tempfile::tempdir().unwrap();
        labelled(&folder.path().join("set.safetensors"), classes);
        let data =
            ["eval", "--data", "set.safetensors", "-m", "gradient", "--metric", "sparseness", "-o", "e", "--json"];
        let output = run(folder.path(), &[&data[..], &net].concat());
        once(&output, warned);
        assert_eq!(has(&json(&folder.path().join("e/summary.json"))["warnings"]), warned);
        assert_eq!(has(&lines(&output.stdout)[0]["warnings"]), warned);

        let explain = ["explain", "set.safetensors", "-m", "gradient", "--format", "npy"];
        for (out, target) in [("x", "top1"), ("y", "file:set.safetensors")] {
            let output = run(folder.path(), &[&explain[..], &["-t", target, "-o", out], &net].concat());
            once(&output, warned);
            assert_eq!(has(&json(&folder.path().join(out).join("manifest.json"))["warnings"]), warned);
        }
        let check = ["check", "set.safetensors", "-m", "gradient", "--tests", "wrong_class", "-o", "c", "--drawn", "1"];
        once(&run(folder.path(), &[&check[..], &net].concat()), warned);
        assert_eq!(has(&json(&folder.path().join("c/check.json"))["warnings"]), warned);
        let page = std::fs::read_to_string(folder.path().join("c/check.html")).unwrap();
        assert_eq!(page.contains("right on 0.0 % of 21 pictures"), warned);

        let attack = ["attack", "set.safetensors", "--attack", "fgsm", "-o", "a"];
        once(&run(folder.path(), &[&attack[..], &net].concat()), warned);
        assert_eq!(has(&json(&folder.path().join("a/manifest.json"))["warnings"]), warned);
    }
    // Fewer say nothing.
    labelled(&folder.path().join("set.safetensors"), &wrong[..19]);
    let output =
        run(folder.path(), &["explain", "set.safetensors", "-m", "gradient", "--format", "npy", "--size", "32"]);
    assert!(!stderr(&output).contains("right on"), "{}", stderr(&output));
}

/// A safetensors file of f32 tensors and, where there are any, labels.
fn tensors(path: &Path, floats: &[(&str, &[usize], Vec<f32>)], labels: &[i64]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in floats {
        let from = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] });
        header.insert((*name).to_string(), entry);
    }
    if !labels.is_empty() {
        let from = data.len();
        data.extend(labels.iter().flat_map(|c| c.to_le_bytes()));
        let entry = json!({ "dtype": "I64", "shape": [labels.len()], "data_offsets": [from, data.len()] });
        header.insert("labels".into(), entry);
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn fitted_patterns_say_what_was_assumed_and_that_the_net_only_guesses() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |n: usize, salt: u32| -> Vec<f32> {
        let level = |i: u32| ((i + salt).wrapping_mul(2_654_435_761) >> 24) as f32;
        (0..n as u32).map(|i| level(i) / 128.0 - 1.0).collect()
    };
    let layers: [(&str, &[usize], Vec<f32>); 2] =
        [("0.weight", &[16, 16], draw(256, 0)), ("2.weight", &[10, 16], draw(160, 1000))];
    tensors(&folder.path().join("net.safetensors"), &layers, &[]);
    let data = |labels: &[i64]| {
        let inputs: [(&str, &[usize], Vec<f32>); 1] = [("input", &[24, 1, 4, 4], draw(24 * 16, 5000))];
        tensors(&folder.path().join("data.safetensors"), &inputs, labels);
    };
    data(&[0; 24]);
    let explain =
        ["explain", "data.safetensors", "--model", "net.safetensors", "-m", "gradient", "--format", "npy", "--json"];
    let output = run(folder.path(), &explain);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let right: Vec<i64> = lines(&output.stdout).iter().map(|r| r["prediction"][0]["index"].as_i64().unwrap()).collect();
    let wrong: Vec<i64> = right.iter().map(|class| (class + 1) % 10).collect();
    for (labels, warned) in [(wrong, true), (right, false)] {
        data(&labels);
        let fit =
            ["patterns", "fit", "--data", "data.safetensors", "--model", "net.safetensors", "-o", "p.safetensors"];
        let output = run(folder.path(), &fit);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("right on 0.0 % of 24 pictures"), warned, "{}", stderr(&output));
        let bytes = std::fs::read(folder.path().join("p.safetensors")).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.contains("right on 0.0 %"), warned);
        assert!(text.contains("preparation: levels from 0 to 1"));
    }
}

#[test]
fn the_page_of_a_check_says_what_is_assumed() {
    let folder = lite();
    let check = [
        "check",
        "x.npy",
        "--model",
        "lite.safetensors",
        "-m",
        "gradient",
        "--tests",
        "Wrong-Class",
        "-o",
        "out",
        "--json",
    ];
    let output = run(folder.path(), &check);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&folder.path().join("out/check.json"));
    assert_eq!(report["tests"][0]["id"], "wrong_class");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(lines(&output.stdout)[0]["warnings"], report["warnings"]);
    let page = std::fs::read_to_string(folder.path().join("out/check.html")).unwrap();
    assert!(page.contains("Warning: taken for") && page.contains("relu6; padding: TensorFlow"), "{}", page.len());
}

#[test]
fn names_are_understood_however_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("7_a.png"), 1);
    let names =
        ["GradCAM", "IG:steps=2", "grad-cam", "Integrated Gradients:steps=2", "gradcam++", "guided-backprop", "LRP"];
    let methods: Vec<&str> = names.iter().flat_map(|name| ["-m", name]).collect();
    let explain = ["explain", "7_a.png", "--size", "32", "--format", "npy", "--json"];
    let output = run(folder.path(), &[&explain[..], &methods].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let found: Vec<Value> = lines(&output.stdout).iter().map(|r| r["method"].clone()).collect();
    let ids = [
        "grad_cam",
        "integrated_gradients",
        "grad_cam-2",
        "integrated_gradients-2",
        "grad_cam_pp",
        "guided_backprop",
        "lrp",
    ];
    assert_eq!(found, ids);
    let manifest = json(&folder.path().join("verilume-out/manifest.json"));
    assert_eq!(manifest["methods"][0]["name"], "grad_cam");

    let eval =
        ["eval", "--data", "7_a.png", "-m", "Gradient", "--metric", "Max-Sensitivity:N=2", "--size", "32", "-o", "e"];
    let output = run(folder.path(), &eval);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&folder.path().join("e/summary.json"))["metrics"][0]["id"], "max_sensitivity");
    let attack = ["attack", "7_a.png", "--attack", "FGSM:Target=Least", "--size", "32", "-o", "a", "--json"];
    let output = run(folder.path(), &attack);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let record = &lines(&output.stdout)[0];
    assert_eq!((&record["attack"], &record["parameters"]["target"]), (&json!("fgsm"), &json!("least")));

    let near = |arguments: &[&str], wanted: &str| {
        let output = run(folder.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    };
    near(&["explain", "7_a.png", "-m", "Guided Back Propagation"], "guided_backprop");
    near(&["eval", "--data", "7_a.png", "--metric", "Deletions"], "deletion");
    near(&["attack", "7_a.png", "--attack", "FGSMM"], "fgsm");
    near(&["check", "7_a.png", "--tests", "WrongClasses"], "wrong_class");
    near(&["bench", "--random-weights", "ResNet-19"], "resnet18");
}
