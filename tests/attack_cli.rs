//! `verilume attack` as a person or a script meets it: files, records, exit codes, what is said of mistakes.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Pictures of this size are seen as they are, so that levels can be compared.
const SIZE: &str = "32:32";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn attack(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, &[&["attack", "--size", SIZE], arguments].concat())
}

fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn picture(path: &Path, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed) + y * 5 + c * 85 + (x * y + seed) % 31) as u8;
    image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
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

fn numbers(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let array = npyz::NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
    (array.shape().to_vec(), array.into_vec().unwrap())
}

/// The class that `explain` finds on a file.
fn seen(folder: &Path, file: &str) -> Value {
    let arguments =
        ["explain", file, "--size", SIZE, "-m", "gradient", "--format", "npy", "-o", "seen", "--json", "-q"];
    let output = run(folder, &arguments);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output.stdout)[0]["prediction"][0]["index"].clone()
}

#[test]
fn files_hold_what_records_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("in/a.png"), 1);
    picture(&at("in/b.png"), 6);
    let attacks = [
        "-a",
        "pgd:iterations=4",
        "-a",
        "top_k:iterations=6,epsilon=4/255,step=0.5/255",
        "-a",
        "pgd:iterations=2,epsilon=0.05",
    ];
    let formats = ["--format", "npy,png,safetensors", "--json", "-o", "out", "--threads", "2"];
    let output = attack(folder.path(), &[&["in"][..], &attacks, &formats].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let records = lines(&output.stdout);
    let mut kept = lines(&std::fs::read(at("out/records.jsonl")).unwrap());
    // The journal also says which file the input was.
    for line in &mut kept {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("stamp").is_some() && line.remove("place").is_some());
    }
    assert_eq!(records, kept);
    assert_eq!(records.len(), 6);
    let mut names = BTreeSet::new();
    for record in &records {
        assert!(record["error"].is_null(), "{record}");
        let (name, id) = (record["input"].as_str().unwrap(), record["attack"].as_str().unwrap());
        names.insert((name.to_string(), id.to_string()));
        let stem = format!("out/{}.{id}", name.trim_start_matches("in/").trim_end_matches(".png"));
        let files: Vec<&str> = record["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        assert_eq!(files, ["npy", "png", "safetensors"].map(|e| format!("{stem}.{e}")));
        // Levels: 0.05 in units of half a range are 6.375.
        let most = if id == "pgd" {
            8
        } else if id == "pgd-2" {
            6
        } else {
            4
        };
        let [original, moved] = [at(name), at(&format!("{stem}.png"))].map(|p| image::open(p).unwrap().to_rgb8());
        let far = original.as_raw().iter().zip(moved.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // An attack on a map that does not succeed leaves the picture as it is.
        let moves = id != "top_k" || record["succeeded"] == true;
        assert!(far <= most && (far > 0) == moves, "{stem}: {far}");
        assert_eq!(f64::from(far), record["linf_png_levels"].as_f64().unwrap());
        let epsilon = if id == "pgd-2" { 0.05 } else { f64::from(most) / 127.5 };
        assert!(record["linf"].as_f64().unwrap() <= epsilon);
        // The embedded net's mean and standard deviation are one half.
        let (shape, values) = numbers(&at(&format!("{stem}.npy")));
        assert_eq!(shape, [3, 32, 32]);
        for (i, v) in values.iter().enumerate() {
            let level = original.as_raw()[(i % 1024) * 3 + i / 1024];
            let x = (f32::from(level) / 255.0 - 0.5) / 0.5;
            assert!(f64::from((v - x).abs()) <= epsilon * (1.0 + 1e-6) && (-1.0..=1.0).contains(v));
        }
        // What the record says of the files is what the files show.
        assert_eq!(seen(folder.path(), &format!("{stem}.png")), record["prediction_png"][0]["index"]);
        for exact in ["npy", "safetensors"] {
            assert_eq!(seen(folder.path(), &format!("{stem}.{exact}")), record["prediction_after"][0]["index"]);
        }
        let (before, after) = (&record["prediction_before"][0]["index"], &record["prediction_after"][0]["index"]);
        assert_eq!(record["flipped"], Value::Bool(before != after));
        assert_eq!(record["flipped_png"], Value::Bool(*before != record["prediction_png"][0]["index"]));
        if id == "top_k" {
            assert!(before == after, "the prediction stays");
        } else {
            assert_eq!(record["succeeded"], record["flipped"]);
        }
        assert_eq!(record["maps"][0]["method"], "gradient");
        assert_eq!(record["maps"][0]["top_k_intersection"].as_f64().unwrap() < 1.0, moves);
        assert!(record["maps"][0]["spearman_png"].is_number());
    }
    assert_eq!(names.len(), 6);
    assert!(records.iter().any(|r| r["attack"] == "top_k" && r["succeeded"] == true));
    let manifest: Value = serde_json::from_slice(&std::fs::read(at("out/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["command"], "attack");
    assert_eq!(manifest["methods"][1]["parameters"]["k"], "auto");
    assert!(manifest["files"].as_array().unwrap().iter().all(|f| f["status"] == "done"));

    // Neither threads nor neighbours change a bit.
    let alone = ["in/b.png", "-o", "alone", "--threads", "1", "--format", "npy", "-q"];
    assert_eq!(code(&attack(folder.path(), &[&alone[..], &attacks].concat())), 0);
    for id in ["pgd", "top_k", "pgd-2"] {
        let [a, b] = ["out", "alone"].map(|o| std::fs::read(at(&format!("{o}/b.{id}.npy"))).unwrap());
        assert!(a == b, "{id}");
    }
}

#[test]
fn bad_inputs_are_records_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("in/good.png"), 3);
    std::fs::write(at("in/empty.png"), b"").unwrap();
    let mut values: Vec<f32> = (0..3 * 3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    values[3 * 32 * 32 + 5] = f32::NAN;
    npy(&at("in/rows.npy"), &[3, 3, 32, 32], &values);
    // Rows that are not made of levels have none within a third of one.
    let arguments = ["in", "gone.png", "-a", "fgsm:epsilon=0.3/255", "--format", "npy,png", "--json", "-o", "out"];
    let output = attack(folder.path(), &arguments);
    assert_eq!(code(&output), 1);
    let records = lines(&output.stdout);
    let outcome: BTreeSet<(String, bool)> = records
        .iter()
        .map(|r| (format!("{}{}", r["input"].as_str().unwrap(), r["index"]), r["error"].is_null()))
        .collect();
    let expected = [
        ("gone.pngnull", false),
        ("in/empty.pngnull", false),
        ("in/good.pngnull", true),
        ("in/rows.npy0", false),
        ("in/rows.npy1", false),
        ("in/rows.npy2", false),
    ];
    assert_eq!(outcome, expected.map(|(name, good)| (name.to_string(), good)).into());
    let of_levels = records.iter().find(|r| r["index"] == 0).unwrap();
    assert!(of_levels["error"].as_str().unwrap().contains("levels"), "{of_levels}");
    assert_eq!(of_levels["files"][0], "out/rows.fgsm.npy");
    let (shape, values) = numbers(&at("out/rows.fgsm.npy"));
    assert_eq!(shape, [3, 3, 32, 32]);
    let finite = |row: usize| values[row * 3072..(row + 1) * 3072].iter().filter(|v| v.is_finite()).count();
    assert_eq!([0, 1, 2].map(finite), [3072, 0, 3072]);

    let nothing = attack(folder.path(), &["in/empty.png", "--json", "-o", "none"]);
    assert_eq!(code(&nothing), 2);
    assert_eq!(lines(&nothing.stdout).len(), 1);
}

#[test]
fn wrong_usage_names_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 0);
    let mask: Vec<f32> = vec![1.0; 30 * 30];
    npy(&folder.path().join("mask.npy"), &[30, 30], &mask);
    let cases: [(&str, &str); 16] = [
        ("pdg", "pgd"),
        ("pgd:epsilom=1", "epsilon"),
        ("pgd:epsilon=0", "above 0"),
        ("pgd:epsilon=-8/255", "above 0"),
        ("fgsm:epsilon=nan", "above 0"),
        ("pgd:epsilon=8/256", "8/255"),
        ("pgd:step=inf", "above 0"),
        ("pgd:iterations=0", "at least 1"),
        ("pgd:start=middle", "picture|random"),
        ("pgd:target=1000", "1000"),
        ("pgd:target=tigr cat", "tiger cat"),
        ("top_k:k=1024", "1024 pixels"),
        ("target_region", "region="),
        ("target_region:region=(0,0,33,4)", "outside"),
        ("target_region:region=mask:mask.npy", "[30, 30]"),
        ("manipulate:target=file:gone.png", "gone.png"),
    ];
    for (given, hint) in cases {
        let output = attack(folder.path(), &["a.png", "-a", given]);
        assert_eq!(code(&output), 2, "{given}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(hint), "{given}: {stderr}");
    }
    let output = attack(folder.path(), &["a.png", "-t", "top:3"]);
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("one class"));
}

#[test]
fn targets_regions_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("a.png"), 2);
    picture(&at("b.png"), 9);
    let mask: Vec<f32> = (0..32 * 32).map(|i| if i % 32 < 8 { 1.0 } else { 0.0 }).collect();
    npy(&at("mask.npy"), &[32, 32], &mask);
    let attacks = [
        "pgd:iterations=20,epsilon=24/255,step=3/255,target=tiger cat,stop=reached",
        "target_region:region=mask:mask.npy,iterations=4",
        "target_region:region=(0,0,32,8),iterations=4",
        "mass_centre:iterations=2,base=ig,steps=3",
        "manipulate:target=file:b.png,iterations=4",
        "manipulate:target=map:mask.npy,iterations=4",
    ];
    let named: Vec<&str> = attacks.iter().flat_map(|a| ["-a", a]).collect();
    let output =
        attack(folder.path(), &[&["a.png", "--json", "-q", "--format", "npy", "-o", "out"], &named[..]].concat());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let records = lines(&output.stdout);
    assert_eq!(records.len(), 6);
    assert_eq!((&records[0]["wanted"], &records[0]["succeeded"]), (&282.into(), &true.into()));
    assert_eq!(records[0]["prediction_after"][0]["index"], 282);
    assert!(records[0]["iterations"].as_u64().unwrap() < 20);
    for record in &records[1..] {
        assert_eq!(record["flipped"], false);
        assert!(record["objective_after"].as_f64() >= record["objective_before"].as_f64(), "{record}");
        // The maps compared are by default those attacked.
        assert_eq!(record["maps"].as_array().unwrap().len(), 2);
    }
    // One region given in two ways.
    let [a, b] = ["target_region", "target_region-2"].map(|id| numbers(&at(&format!("out/a.{id}.npy"))));
    assert_eq!(a, b);
    let list = run(folder.path(), &["attack", "--list-attacks", "--json"]);
    assert_eq!(lines(&list.stdout)[0].as_array().unwrap().len(), 6);
    let help = run(folder.path(), &["attack", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("normalised units") && help.contains("manipulate"), "{help}");
}

#[test]
fn rows_of_a_long_array_count_each_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let rows = 100;
    let values: Vec<f32> = (0..rows * 3 * 32 * 32).map(|i| ((i * 7919) % 2048) as f32 / 1024.0 - 1.0).collect();
    npy(&at("rows.npy"), &[rows, 3, 32, 32], &values);
    // The file of some older run must not be taken for this one's.
    std::fs::create_dir(at("out")).unwrap();
    std::fs::write(at("out/rows.fgsm.npy"), "older").unwrap();
    let ledger = r#"{"command":"attack","stems":["rows"],"ids":["fgsm"],"inputs":[]}"#;
    std::fs::write(at("out/.results.jsonl"), format!("{ledger}\n")).unwrap();
    let output = attack(folder.path(), &["rows.npy", "-a", "fgsm", "--format", "npy", "--json", "-q", "-o", "out"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let records = lines(&output.stdout);
    assert_eq!(records.len(), rows);
    let size = at("out/rows.fgsm.npy").metadata().unwrap().len();
    for (row, record) in records.iter().enumerate() {
        assert!(record["error"].is_null(), "{record}");
        assert_eq!((&record["index"], &record["bytes"]), (&row.into(), &serde_json::json!([size])));
    }
    let kept = lines(&std::fs::read(at("out/records.jsonl")).unwrap());
    assert!(kept.iter().all(|line| line["part"] == kept[0]["part"] && line["part"].is_string()));
    assert_eq!(numbers(&at("out/rows.fgsm.npy")).0, [rows as u64, 3, 32, 32]);
    // Nothing half made is left.
    let partial = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".partial");
    assert!(!at("out").read_dir().unwrap().any(|entry| partial(entry.unwrap().file_name())));
}
