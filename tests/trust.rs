//! The tests of trust on nets whose outcome is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::path::Path;
use std::sync::Arc;

use nets::Net;
use verilume::engine::Settings;
use verilume::method::Spec;
use verilume::program::Score;
use verilume::reliability::check::{
    Checked, Checker, Finding, PanelKind, Test, TestOptions, Threshold, Verdict, registry,
};
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
    let options = TestOptions { seed: 0, score: Score::Logit, preprocess: &net.preprocess, load: &nothing, tests };
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
}
