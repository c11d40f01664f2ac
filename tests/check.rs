//! The tests of trust on nets whose outcome is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::path::Path;
use std::sync::Arc;

use nets::Net;
use verilume::engine::Settings;
use verilume::method::Spec;
use verilume::program::Score;
use verilume::reliability::check::{Checked, Checker, Finding, Options, PanelKind, Test, Threshold, Verdict, registry};
use verilume::tensor::Tensor;
use verilume::{Error, Result};

fn nothing(path: &Path) -> Result<Tensor> {
    Err(Error::input(format!("{} is not there", path.display())))
}

fn check(
    net: &Net,
    graph: &Arc<verilume::graph::Graph>,
    tests: Vec<&'static Test>,
    methods: &[&str],
    threads: usize,
) -> Checked {
    let options = Options { seed: 0, score: Score::Logit, preprocess: &net.preprocess, load: &nothing, tests };
    let settings = Settings { threads: Some(threads), ..Settings::default() };
    let mut checker = Checker::new(Arc::clone(graph), options, &settings).unwrap();
    let methods: Vec<(String, Spec)> = methods.iter().map(|m| (m.to_string(), Spec::parse(m).unwrap())).collect();
    let mut heard = 0;
    let checked = checker.check(&net.x.items()[0], &methods, &mut |_, _| heard += 1).unwrap();
    assert!(heard > 0);
    checked
}

fn find<'c>(checked: &'c Checked, test: &str, method: &str) -> &'c Finding {
    checked.findings.iter().find(|f| f.test == test && f.method == method).unwrap_or_else(|| panic!("{test} {method}"))
}

#[test]
fn every_test_says_something_of_every_method() {
    let net = Net::small("vgg_bn");
    let methods = ["gradient", "integrated_gradients:steps=8", "guided_backprop", "grad_cam", "pattern_net"];
    let checked = check(&net, &net.graph, registry().iter().collect(), &methods, 2);
    assert_eq!(checked.findings.len(), registry().len() * 5);
    for f in &checked.findings {
        match f.verdict {
            Verdict::NotApplicable => assert!(f.value.is_none() && !f.detail.is_empty(), "{f:?}"),
            verdict => assert_eq!(f.threshold.unwrap().judge(f.value.unwrap()), verdict, "{f:?}"),
        }
    }
    assert_eq!(find(&checked, "constant_shift", "gradient").verdict, Verdict::Pass);
    assert_eq!(find(&checked, "picture_shift", "gradient").verdict, Verdict::Pass);
    assert_eq!(find(&checked, "constant_shift", "integrated_gradients:steps=8").verdict, Verdict::Fail);
    assert_eq!(find(&checked, "completeness", "gradient").verdict, Verdict::NotApplicable);
    // A method that cannot be made says why, and the others go on.
    assert!(find(&checked, "wrong_class", "pattern_net").detail.contains("patterns"));
    for kind in
        [PanelKind::Original, PanelKind::Shifted, PanelKind::WrongClass, PanelKind::Randomised, PanelKind::Noisy]
    {
        assert!(checked.panels.iter().any(|p| p.kind == kind && p.method == "gradient"), "{kind:?}");
//! `verilume check` as a person or a script meets it.
#![cfg(all(feature = "cli", feature = "embedded-model", feature = "jpeg"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
use std::process::{Command, Output, Stdio};
use serde_json::Value;
use verilume::report::check::{CheckReport, Verdict};
/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = option_env!("VERILUME_TEST_DATA");
fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verilume"));
    command.current_dir(folder).arg("check").args(arguments).stdin(Stdio::null()).output().unwrap()
fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap()
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
fn picture(path: &Path, seed: u32) {
    let level = |x: u32, y: u32, c: u32| (x * (7 + seed) + y * 13 + c * 85 + (x * y + seed) % 31) as u8;
    image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([0, 1, 2].map(|c| level(x, y, c)))).save(path).unwrap();
fn report(folder: &Path) -> CheckReport {
    serde_json::from_slice(&std::fs::read(folder.join("verilume-check/check.json")).unwrap()).unwrap()
/// So small that the embedded net takes milliseconds.
const SMALL: [&str; 4] = ["--size", "32", "-m", "gradient"];
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
    let page = std::fs::read_to_string(folder.path().join("verilume-check/check.html")).unwrap();
    assert!(page.contains("not checked") && page.contains("2 more could not be used"));
    let output = check(folder.path(), &[&SMALL[..], &["bad.png"]].concat());
    assert_eq!(code(&output), 2);
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
fn verdicts_do_not_depend_on_threads() {
    let net = Net::small("vgg");
    let run = |threads| check(&net, &net.graph, registry().iter().collect(), &["gradient", "smoothgrad:n=4"], threads);
    assert_eq!(run(1).findings, run(2).findings);
}

/// A net of one linear layer: its gradient is the weight, whatever the picture; noise and attacks cannot move it.
#[test]
fn a_linear_net_is_stable_and_complete() {
    use verilume::graph::{GraphBuilder, Linear, Op, Weight};
    let net = Net::small("vgg");
    let shape = net.graph.input_shape();
    let mut b = GraphBuilder::new(shape);
    let flat = b.push("flat", Op::Flatten, &[b.input()]).unwrap();
    let mut weights = vec![0f32; 3 * shape.len()];
    verilume::random::fill_normals(3, 0, 0, 0, &mut weights);
    let weight = Weight::owned([3, shape.len(), 1, 1], &weights).unwrap();
    let out = b.push("fc", Op::Linear(Linear { weight, bias: None }), &[flat]).unwrap();
    let graph = Arc::new(b.finish(out).unwrap());
    let methods = ["gradient", "integrated_gradients:steps=4,baseline=zero", "input_x_gradient"];
    let checked = check(&net, &graph, registry().iter().collect(), &methods, 2);
    let noise = find(&checked, "noise", "gradient");
    assert!(noise.verdict != Verdict::Fail && noise.value.is_none_or(|v| v == 1.0), "{noise:?}");
    let attack = find(&checked, "map_attack", "gradient");
    assert_eq!(attack.verdict, Verdict::NotApplicable, "{attack:?}");
    let complete = find(&checked, "completeness", methods[1]);
    assert_eq!(complete.verdict, Verdict::Pass, "{complete:?}");
    // Deleting what gradient times input calls important is the quickest way on a linear net.
    assert_eq!(find(&checked, "deletion", "input_x_gradient").verdict, Verdict::Pass);
    let shift = find(&checked, "picture_shift", "input_x_gradient");
    assert_eq!(shift.verdict, Verdict::Fail, "{shift:?}");
    assert!(shift.notes.iter().any(|(name, value)| name.contains("f'") && *value <= 1e-10));
}

#[test]
fn no_number_passes_no_bound() {
    assert_eq!(Threshold::AtMost(1.0).judge(f64::NAN), Verdict::Fail);
    assert_eq!(Threshold::AtLeast(0.0).judge(f64::NAN), Verdict::Fail);
    assert_eq!(Threshold::AtMost(1.0).judge(1.0), Verdict::Pass);
fn maps_are_drawn_of_so_many_pictures() {
    let folder = tempfile::tempdir().unwrap();
    (0..3).for_each(|i| picture(&folder.path().join(format!("{i}.png")), i));
    let output = check(folder.path(), &[&SMALL[..], &["0.png", "1.png", "2.png", "--drawn", "1"]].concat());
    assert_eq!(code(&output), 0);
    let page = std::fs::read_to_string(folder.path().join("verilume-check/check.html")).unwrap();
    assert!(page.contains("the maps of 2 of the pictures are left out"));
#[cfg_attr(not(shared_data), ignore = "needs the data that VERILUME_TEST_DATA names")]
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
