//! The reference implementations against PyTorch in double precision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reference;

use std::path::Path;

use reference::{Dense, ReluRule, backward, forward};
use safetensors::{Dtype, SafeTensors};
use verilume::graph::Graph;
use verilume::model::Model;
use verilume::tensor::Shape;

fn dense(file: &SafeTensors, name: &str) -> Dense {
    let view = file.tensor(name).unwrap();
    let shape = match *view.shape() {
        [_, c, h, w] => Shape::new(c, h, w),
        [_, c] => Shape::vector(c),
        ref other => panic!("{name} has shape {other:?}"),
    };
    let data = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        other => panic!("{name} is {other:?}"),
    };
    Dense::new(shape, data)
}

fn assert_close(what: &str, got: &Dense, want: &Dense) {
    want.assert_informative(what);
    assert_eq!((got.shape, got.n()), (want.shape, want.n()), "{what}");
    let scale = want.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let d = got.data.iter().zip(&want.data).map(|(g, w)| (g - w).abs());
    let worst = d.fold(0.0f64, |m, d| if d.is_nan() { f64::NAN } else { m.max(d) });
    println!("{what}: {:.1e}", worst / scale);
    assert!(worst <= 1e-5 * scale, "{what}: off by {worst:e} of {scale:e}");
}

fn check(net: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small");
    let bytes = std::fs::read(folder.join(format!("{net}.cases.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let x = dense(&file, "input");
    let targets = file.tensor("target").unwrap();
    let targets = targets.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize);
    let model = Model::open(&folder.join(format!("{net}.weights.safetensors")), None).unwrap();
    let unfolded = model.unfolded().resized(x.shape).unwrap();
    let folded = model.graph(x.shape).unwrap();
    let graphs: [(&str, &Graph); 2] = [("as stored", &unfolded), ("folded", &folded)];
    for (form, graph) in graphs {
        let outputs = forward(graph, &x);
        let logits = &outputs[graph.output().index()];
        assert_close(&format!("{net} {form}, logits"), logits, &dense(&file, "logits"));
        let mut seed = Dense::zeros(x.n(), logits.shape);
        targets.clone().enumerate().for_each(|(n, t)| *seed.at_mut(n, t, 0, 0) = 1.0);
        let rules = [ReluRule::Vjp, ReluRule::Guided, ReluRule::Deconvnet];
        for (rule, name) in rules.into_iter().zip(["gradient", "guided_backprop", "deconvnet"]) {
            let back = backward(graph, &outputs, graph.output(), seed.clone(), rule);
            assert_close(&format!("{net} {form}, {name}"), &back[0], &dense(&file, name));
        }
    }
}

#[test]
fn vgg() {
    check("vgg");
}

#[test]
fn vgg_with_batch_norm() {
    check("vgg_bn");
}

#[test]
fn resnet_of_basic_blocks() {
    check("resnet_basic");
}

#[test]
fn resnet_of_bottlenecks() {
    check("resnet_bottleneck");
}

#[test]
fn resnext() {
    check("resnext");
}

/// Depthwise convolutions, "SAME" padding and ReLU6, on the first picture only.
#[test]
#[cfg(feature = "embedded-model")]
fn efficientnet_lite() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/real/efficientnet-lite0.cases.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let x = dense(&file, "input").item(0);
    let target = i64::from_le_bytes(file.tensor("target").unwrap().data().as_chunks().0[0]) as usize;
    let graph = Model::embedded().unwrap().graph(x.shape).unwrap();
    let outputs = forward(&graph, &x);
    let logits = &outputs[graph.output().index()];
    assert_close("lite, logits", logits, &dense(&file, "logits").item(0));
    let mut seed = Dense::zeros(1, logits.shape);
    seed.data[target] = 1.0;
    let back = backward(&graph, &outputs, graph.output(), seed, ReluRule::Vjp);
    assert_close("lite, gradient", &back[0], &dense(&file, "gradient").item(0));
}
