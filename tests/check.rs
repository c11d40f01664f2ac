//! `verilume check` as a person or a script meets it.
#![cfg(all(feature = "cli", feature = "embedded-model", feature = "jpeg"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use verilume::report::check::{CheckReport, Verdict};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = needs::test_data!();

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).arg("check").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn picture(path: &Path, seed: u32) {
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed) + y * 13 + c * 85 + (x * y + seed) % 31) as u8;
    image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
}

fn report(folder: &Path) -> CheckReport {
    serde_json::from_slice(&std::fs::read(folder.join("verilume-check/check.json")).unwrap()).unwrap()
}

/// So small that the embedded net takes milliseconds.
const SMALL: [&str; 4] = ["--size", "32", "-m", "gradient"];

#[test]
fn a_picture_gives_a_table_a_page_and_every_number() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a & <b>.png"), 1);
    let output = check(folder.path(), &[&SMALL[..], &["a & <b>.png", "-m", "grad_cam"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let report = report(folder.path());
    assert_eq!(report.methods.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["gradient", "grad_cam"]);
    assert_eq!(report.pictures.len(), 1);
    assert_eq!(report.pictures[0].prediction.len(), 5);
    let findings = &report.pictures[0].findings;
    assert_eq!(findings.len(), report.tests.len() * 2);
    assert!(findings.iter().any(|f| f.verdict != Verdict::NotApplicable));

    let table = text(&output.stdout);
    let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    let tests: Vec<&str> = report.tests.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(heads, [&["method"], &tests[..]].concat());
    assert!(table.contains("\ngradient ") && table.contains("\ngrad_cam "));
    assert!(report.tests.iter().all(|t| table.contains(&t.question)));

    let page = std::fs::read_to_string(folder.path().join("verilume-check/check.html")).unwrap();
    assert!(page.contains("a &#38; &#60;b&#62;.png") && !page.contains("<b>.png"));
    assert!(page.contains("data:image/") && page.contains(&report.model.sha256));
    assert!(page.contains("verilume check --size 32 -m gradient &#39;a &#38; &#60;b&#62;.png&#39; -m grad_cam"));
}

#[test]
fn a_broken_picture_takes_no_other_along() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("good.png"), 2);
    std::fs::write(folder.path().join("bad.png"), b"no picture").unwrap();
    let output = check(folder.path(), &[&SMALL[..], &["bad.png", "good.png", "gone.png", "--json"]].concat());
    assert_eq!(code(&output), 1);
    let report = report(folder.path());
    let errors: Vec<bool> = report.pictures.iter().map(|p| p.error.is_some()).collect();
    assert_eq!(errors, [true, false, true]);
    let lines = lines(&output);
    assert_eq!(lines.len(), report.tests.len() + 2);
    for line in &lines {
        let failed = line["input"] != "good.png";
        assert_eq!((line["test"].is_null(), line["error"].is_string()), (failed, failed), "{line}");
    }
    let page = std::fs::read_to_string(folder.path().join("verilume-check/check.html")).unwrap();
    assert!(page.contains("not checked") && page.contains("2 more could not be used"));

    let output = check(folder.path(), &[&SMALL[..], &["bad.png"]].concat());
    assert_eq!(code(&output), 2);
}

#[test]
fn verdicts_decide_the_exit_code_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 3);
    let arguments = ["a.png", "--size", "32", "-m", "guided_backprop", "--json", "--format", "json"];
    let output = check(folder.path(), &arguments);
    assert_eq!(code(&output), 0);
    assert!(!folder.path().join("verilume-check/check.html").exists());
    let fails = lines(&output).iter().any(|line| line["verdict"] == "fail");
    let output = check(folder.path(), &[&arguments[..], &["--fail-on-verdict"]].concat());
    assert_eq!(code(&output), i32::from(fails));
}

#[test]
fn tests_can_be_listed_and_chosen() {
    let folder = tempfile::tempdir().unwrap();
    picture(&folder.path().join("a.png"), 4);
    let listed: Value = serde_json::from_slice(&check(folder.path(), &["--list-tests", "--json"]).stdout).unwrap();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"wrong_class"));
    let shown = check(folder.path(), &["--list-tests"]);
    assert!(ids.iter().all(|id| text(&shown.stdout).contains(id)));

    let output = check(folder.path(), &[&SMALL[..], &["a.png", "--tests", "wrong_class"]].concat());
    assert_eq!(code(&output), 0);
    assert_eq!(report(folder.path()).tests.len(), 1);
    let output = check(folder.path(), &[&SMALL[..], &["a.png", "--tests", "wrong_clas"]].concat());
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("wrong_class"), "{}", text(&output.stderr));
    for wrong in [&["--kindermans"][..], &[], &["a.png", "-m", "gradiant"]] {
        assert_eq!(code(&check(folder.path(), wrong)), 2, "{wrong:?}");
    }
}

#[test]
fn maps_are_drawn_of_so_many_pictures() {
    let folder = tempfile::tempdir().unwrap();
    (0..3).for_each(|i| picture(&folder.path().join(format!("{i}.png")), i));
    let output = check(folder.path(), &[&SMALL[..], &["0.png", "1.png", "2.png", "--drawn", "1"]].concat());
    assert_eq!(code(&output), 0);
    let page = std::fs::read_to_string(folder.path().join("verilume-check/check.html")).unwrap();
    assert!(page.contains("the maps of 2 of the pictures are left out"));
}

#[needs::shared_data]
#[test]
fn the_table_of_kindermans_is_as_the_paper_has_it() {
    let data = Path::new(DATA.unwrap());
    let (model, digits) = (data.join("mnist-mlp-1024x3.safetensors"), data.join("mnist-test-1000.safetensors"));
    let folder = tempfile::tempdir().unwrap();
    let named = |path: &Path| path.to_str().unwrap().to_owned();
    let (model, digits) = (named(&model), named(&digits));
    let arguments = ["--kindermans", "--model", &model, "--data", &digits, "--explained", "2"];
    let output = check(folder.path(), &[&arguments[..], &["--json", "--fail-on-verdict"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let cells = lines(&output);
    assert!(cells.len() > 30);
    for cell in cells {
        assert_eq!(cell["stayed"], cell["expected"], "{cell}");
    }
}
