//! Input invariance: which explanations stay when all data are shifted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nets;

use std::sync::Arc;

use nets::{Net, build};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use verilume::engine::{Batch, Engine, Settings};
use verilume::model::Model;
use verilume::program::Score;
use verilume::random;
use verilume::reliability::invariance::{SAME_OUTPUT, Shift, Shifted, shifted_preprocess};
use verilume::reliability::kindermans::{Subject, table};
use verilume::tensor::{Precision, Shape, Tensor};

fn engine(precision: Precision) -> Engine {
    Engine::new(&Settings { precision, threads: Some(2), ..Settings::default() }).unwrap()
}

/// Pictures between 0 and 1, the range of the digits.
fn uniform(shape: Shape, n: u64) -> Batch {
    let picture = |key: u64| {
        let mut values = vec![0f32; shape.len()];
        random::fill_uniforms(1, key, 0, 0, &mut values);
        Tensor::f32(shape.dims(), values).unwrap()
    };
    Batch::of((0..n).map(picture).collect()).unwrap()
}

/// An MLP of these widths with random weights.
fn mlp(widths: &[usize]) -> Model {
    let mut tensors = Vec::new();
    for (i, pair) in widths.windows(2).enumerate() {
        let draw = |sample: u32, n: usize, size: f32| {
            let mut values = vec![0f32; n];
            random::fill_normals(5, i as u64, sample, 0, &mut values);
            values.iter().flat_map(|v| (v * size).to_le_bytes()).collect::<Vec<u8>>()
        };
        let weight = draw(0, pair[0] * pair[1], (2.0 / pair[0] as f32).sqrt());
        tensors.push((format!("fc{}.weight", i + 1), vec![pair[1], pair[0]], weight));
        tensors.push((format!("fc{}.bias", i + 1), vec![pair[1]], draw(1, pair[1], 0.1)));
    }
    let views = tensors
        .iter()
        .map(|(name, dims, raw)| (name.as_str(), TensorView::new(Dtype::F32, dims.clone(), raw).unwrap()));
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    Model::from_bytes("mlp", Arc::new(bytes), None).unwrap()
}

#[test]
fn the_outcome_table_of_the_paper_holds_on_any_mlp() {
    let model = mlp(&[144, 48, 48, 10]);
    let graph = model.graph(model.default_input()).unwrap();
    let all = uniform(graph.input_shape(), 24);
    let subject = Subject {
        graph: &graph,
        preprocess: model.preprocess(),
        x: &all.part(0..2).unwrap(),
        data: &[all.part(0..12).unwrap(), all.part(12..24).unwrap()],
        seed: 0,
    };
    let shifts = [Shift::Constant(-1.0), Shift::CheckeredBox, Shift::drawing(graph.input_shape()).unwrap()];
    let cells = table(&mut engine(Precision::F64), &mut engine(Precision::F32), &subject, &shifts).unwrap();
    assert_eq!(cells.len(), 13 * 3);
    for cell in &cells {
        assert!(cell.output <= SAME_OUTPUT, "{cell:?}");
        assert_eq!(cell.stayed, Some(cell.expected), "{cell:?}");
        // Neither outcome is a matter of the threshold.
        assert!(if cell.expected { cell.change <= 1e-9 } else { cell.least_change >= 1e-2 }, "{cell:?}");
    }
}

#[test]
fn verdicts_on_a_net_with_padding() {
    let net = Net::small("vgg_bn");
    let mut double = engine(Precision::F64);
    for (shift, zero_stays, black_stays) in [(Shift::Constant(-1.0), false, true), (Shift::CheckeredBox, false, false)]
    {
        let shifted = Shifted::new(&net.graph, &shift).unwrap();
        let preprocess = shifted_preprocess(&net.preprocess, shifted.shift());
        for (spec, stays) in [
            ("gradient", true),
            ("guided_backprop", true),
            ("grad_cam", true),
            ("smoothgrad:n=4", true),
            ("relex:preset=quick,iterations=2", false),
            ("integrated_gradients:baseline=zero,steps=4", zero_stays),
            ("integrated_gradients:baseline=black,steps=4", black_stays),
            ("input_x_gradient", false),
        ] {
            let before = build(spec, Score::Logit, 0, &net.preprocess).unwrap();
            let after = build(spec, Score::Logit, 0, &preprocess).unwrap();
            for c in shifted.compare(&mut double, &net.x, &net.targets, [&*before, &*after]).unwrap() {
                assert!(c.output <= SAME_OUTPUT, "{spec}: {}", c.output);
                assert_eq!(c.stayed(), Some(stays), "{spec} under {}: {:?}", shift.name(), c.change);
            }
        }
    }
}

/// A constant shift moves black by itself and leaves everything that is relative to it.
#[test]
fn preparation_follows_the_shift() {
    let net = Net::small("vgg_bn");
    let shift = Shift::Constant(-1.0).tensor(net.graph.input_shape()).unwrap();
    let moved = shifted_preprocess(&net.preprocess, &shift);
    for (before, after) in net.preprocess.black().iter().zip(moved.black()) {
        assert!((before - 1.0 - after).abs() <= f64::from(f32::EPSILON) * after.abs());
    }
}

#[test]
fn draws_belong_to_the_picture_that_is_shifted() {
    let net = Net::small("vgg");
    let shifted = Shifted::new(&net.graph, &Shift::CheckeredBox).unwrap();
    let moved = shifted.pictures(&net.x).unwrap();
    assert_eq!(moved.draws(), net.x.draws());
    assert_ne!(moved.items()[0].to_f64(), net.x.items()[0].to_f64());
    assert!(net.x.part(0..0).is_err() && net.x.part(0..99).is_err());
    assert_eq!(net.x.part(1..2).unwrap().draws()[0], net.x.draws()[1]);
}
