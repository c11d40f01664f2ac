//! Maps of published nets are the same bits whatever the threads, the batch, the chunks and the memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use nets::{Net, bits, build, named_as_enough};
use verilume::engine::{Batch, Engine, Settings};
use verilume::program::Score;
use verilume::tensor::{Precision, Shape};

const METHODS: [&str; 3] = ["gradient", "smoothgrad:n=3", "lrp"];

/// With the kernels that this machine takes.
fn one_result(name: &str, precisions: &[Precision]) {
    // Odd sizes, and more copies than fit at one time under the smallest limit.
    let net = Net::random(name, Shape::new(3, 37, 33), 2);
    for &precision in precisions {
        let settings = Settings { precision, threads: Some(2), ..Settings::default() };
        let maps = |settings: &Settings, spec: &str| -> (Vec<Vec<u64>>, u64) {
            let mut engine = Engine::new(settings).unwrap();
            let maps = net.explain(&mut engine, spec, Score::Logit, 3).unwrap();
            (maps.iter().map(bits).collect(), engine.peak_bytes())
        };
        for spec in METHODS {
            let what = format!("{name}, {spec}, {} {}", settings.kernels, settings.precision);
            let (want, _) = maps(&Settings { threads: Some(1), ..settings.clone() }, spec);
            let (three, most) = maps(&Settings { threads: Some(3), ..settings.clone() }, spec);
            assert!(three == want, "{what}: three threads");
            let least = named_as_enough(&settings, &net, spec);
            for limit in [least, least + most.saturating_sub(least) / 3] {
                let (limited, peak) = maps(&Settings { memory: Some(limit), ..settings.clone() }, spec);
                assert!(limited == want, "{what}: {limit} bytes");
                assert!(peak <= limit, "{what}: {peak} of {limit} bytes");
            }
            let mut engine = Engine::new(&settings).unwrap();
            let method = build(spec, Score::Logit, 3, &net.preprocess).unwrap();
            let alone = Batch::of(vec![net.x.items()[1].clone()]).unwrap();
            let map = method.explain(&mut engine, &net.graph, &alone, &net.targets[1..2]).unwrap().remove(0);
            assert!(bits(&map) == want[1], "{what}: a picture alone");
        }
    }
}

#[test]
fn mobilenet_v3_small() {
    one_result("mobilenet_v3_small", &[Precision::F64, Precision::F32]);
}

#[test]
fn efficientnet_b0() {
    one_result("efficientnet_b0", &[Precision::F32]);
}

#[test]
fn shufflenet_v2() {
    one_result("shufflenet_v2_x1_0", &[Precision::F64, Precision::F32]);
}

#[test]
fn densenet121() {
    one_result("densenet121", &[Precision::F32]);
}

#[test]
fn convnext_tiny() {
    one_result("convnext_tiny", &[Precision::F32]);
}
