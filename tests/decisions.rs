//! Decisions of activations and pools: counted between precisions, and handed from one run to another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "embedded-model", feature = "png"))]

use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::image::{DecodeLimits, Picture};
use verilume::model::Model;
use verilume::program::Score;
use verilume::tensor::Precision;

#[test]
fn under_equal_decisions_single_precision_is_close_to_double() {
    let model = Model::embedded().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/chelsea.png");
    let picture = Picture::open(path, &DecodeLimits::default()).unwrap();
    let x = Batch::of(vec![model.preprocess().apply(&picture).unwrap().tensor]).unwrap();
    let graph = model.graph(model.default_input()).unwrap();
    let engine = |precision| Engine::new(&Settings { precision, ..Settings::default() }).unwrap();
    let (mut single, mut double) = (engine(Precision::F32), engine(Precision::F64));
    let (job, target) = (Job::gradient(Score::Logit), [282]);

    let decided = double.decisions(&graph, &x).unwrap();
    let want = double.explain(&graph, &job, &x, &target).unwrap().maps.swap_remove(0);
    let again = double.explain_under(&graph, &job, &x, &target, &decided).unwrap().maps.swap_remove(0);
    assert_eq!(again, want, "a run under its own decisions is the same run");

    let (flips, all) = single.decisions(&graph, &x).unwrap()[0].flips(&decided[0]);
    println!("{flips} of {all} decisions differ in single precision");
    assert_eq!(decided[0].flips(&decided[0]), (0, all));
    let activations = graph.nodes().iter().filter(|n| matches!(n.op.kind(), "relu" | "clamp"));
    assert_eq!(all, activations.map(|n| n.shape.len()).sum::<usize>());

    let got = single.explain_under(&graph, &job, &x, &target, &decided).unwrap().maps.swap_remove(0);
    let (got, want) = (got.to_f64(), want.to_f64());
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0);
    for (i, (g, w)) in got.iter().zip(want.iter()).enumerate() {
        assert!((g - w).abs() <= 1e-4 * largest, "element {i}: {g} for {w}");
    }
}
