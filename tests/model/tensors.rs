//! Encodings of tensors, and tensors that are missing, surplus or misshaped.

use super::*;

pub(crate) fn small_resnet() -> BTreeMap<String, Tensor> {
    filled(&resnet(false, [1, 1, 1, 1], 4, 4, 1, 5))
}

#[test]
fn half_precisions_and_doubles_are_read() {
    let layout = mlp(&[4, 3, 2]);
    let weights = |model: &Model| -> Vec<f64> {
        model
            .unfolded()
            .nodes()
            .iter()
            .filter_map(|n| match &n.op {
                Op::Linear(l) => Some(l.weight.to_f64()),
                _ => None,
            })
            .flatten()
            .collect()
    };
    let single = weights(&loaded(&layout));
    type Convert = fn(f32) -> Vec<u8>;
    let cases: [(&'static str, &str, Convert, f64); 3] = [
        ("F16", "f16", |x| half::f16::from_f32(x).to_le_bytes().to_vec(), 1e-3),
        ("BF16", "bf16", |x| half::bf16::from_f32(x).to_le_bytes().to_vec(), 1e-2),
        ("F64", "f64", |x| f64::from(x).to_le_bytes().to_vec(), 0.0),
    ];
    for (dtype, encoding, convert, tolerance) in cases {
        let mut tensors = filled(&layout);
        for t in tensors.values_mut() {
            let values: Vec<f32> = t.data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            *t = Tensor { dtype, shape: t.shape.clone(), data: values.into_iter().flat_map(convert).collect() };
        }
        let model = load(file(&tensors)).unwrap();
        assert_eq!(model.encodings().keys().collect::<Vec<_>>(), [&encoding]);
        for (a, b) in weights(&model).iter().zip(&single) {
            assert!((a - b).abs() <= tolerance * b.abs(), "{dtype}: {a} for {b}");
        }
    }
}

#[test]
fn only_batch_counters_may_be_surplus() {
    let mut tensors = small_resnet();
    let counter = Tensor { dtype: "I64", shape: vec![], data: 7i64.to_le_bytes().to_vec() };
    tensors.insert("layer1.0.bn1.num_batches_tracked".into(), counter.clone());
    load(file(&tensors)).unwrap();

    // Counters that were converted with all the rest, and such as never were numbers of batches.
    for (dtype, bytes) in
        [("I32", 4), ("F32", 4), ("F16", 2), ("BF16", 2), ("F64", 8), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1)]
    {
        for shape in [vec![], vec![1], vec![2, 3]] {
            let n: usize = shape.iter().product();
            let counter = Tensor { dtype, shape, data: vec![0xff; n * bytes] };
            let mut other = tensors.clone();
            other.insert("layer1.0.bn1.num_batches_tracked".into(), counter);
            let model = load(file(&other)).unwrap();
            assert_eq!(model.encodings().keys().collect::<Vec<_>>(), [&"f32"], "{dtype}");
        }
    }

    let mut elsewhere = tensors.clone();
    elsewhere.insert("fc.num_batches_tracked".into(), counter);
    says(&refused(file(&elsewhere)), &["'fc.num_batches_tracked'", "no place"]);

    tensors.insert("layer1.0.se.weight".into(), tensors["fc.bias"].clone());
    tensors.insert("layer1.0.se.bias".into(), tensors["fc.bias"].clone());
    says(&refused(file(&tensors)), &["'layer1.0.se.bias'", "1 other"]);
}

#[test]
fn missing_and_misshaped_tensors_are_named() {
    let whole = small_resnet();
    for name in whole.keys() {
        let mut tensors = whole.clone();
        tensors.remove(name);
        // A head may have no bias.
        if name == "fc.bias" {
            load(file(&tensors)).unwrap();
            continue;
        }
        let message = refused(file(&tensors));
        // Without these the file does not look like a ResNet at all, or has a layer less.
        let tells = ["conv1.weight", "layer1.0.conv1.weight"].contains(&name.as_str());
        if tells {
            let first = format!("most like resnet, but tensor '{name}' is missing");
            says(&message, &["no known architecture", "resnet", "vgg", "mlp", "ONNX", &first]);
        } else if name == "fc.weight" {
            says(&message, &["no head"]);
        } else {
            says(&message, &[&format!("'{name}'"), "missing", "expected"]);
        }
    }
    let mut tensors = whole.clone();
    let n = 4 * 4 * 5 * 3 * 4;
    tensors.insert("layer1.0.conv2.weight".into(), Tensor { dtype: "F32", shape: vec![4, 4, 5, 3], data: vec![0; n] });
    says(&refused(file(&tensors)), &["'layer1.0.conv2.weight'", "5x3"]);

    let mut tensors = whole.clone();
    tensors.insert("fc.weight".into(), Tensor { dtype: "F32", shape: vec![5, 31], data: vec![0; 5 * 31 * 4] });
    says(&refused(file(&tensors)), &["'fc.weight'", "[5, 31]", "[*, 32]"]);

    // A net for small pictures: torchvision's names, another stem; whether it has a pool is not known.
    let mut tensors = whole.clone();
    tensors.insert("conv1.weight".into(), Tensor { dtype: "F32", shape: vec![4, 3, 3, 3], data: vec![0; 432] });
    let small = load(file(&tensors)).unwrap();
    says(&small.warnings()[0], &["3x3", "max-pool", "ONNX"]);
    assert_eq!((small.default_input(), small.architecture()), (Shape::new(3, 32, 32), "resnet-basic-small [1,1,1,1]"));
    tensors.insert("conv1.weight".into(), Tensor { dtype: "F32", shape: vec![4, 3, 5, 5], data: vec![0; 1200] });
    says(&refused(file(&tensors)), &["'conv1.weight'", "[4, 3, 5, 5]", "[*, 3, 7, 7]"]);

    let mut tensors = whole;
    tensors.insert("bn1.weight".into(), Tensor { dtype: "I32", shape: vec![4], data: vec![0; 16] });
    says(&refused(file(&tensors)), &["'bn1.weight'", "I32", "F32"]);
}

#[test]
fn misplaced_vgg_layers_are_named() {
    let mut layout = vgg(&[8, 0, 16, 0], false, 1, 4, 3);
    for (name, _) in &mut layout {
        *name = name.replace("features.3.", "features.5.");
    }
    says(&refused(file(&filled(&layout))), &["'features.5.weight'", "position 2"]);
    let mut layout = vgg(&[8, 0, 16, 0], false, 1, 4, 3);
    for (name, shape) in &mut layout {
        if name == "classifier.0.weight" {
            shape[1] = 17;
        }
    }
    says(&refused(file(&filled(&layout))), &["'classifier.0.weight'", "17 inputs", "16 channels"]);
}

#[test]
fn numbers_that_are_not_finite_are_found() {
    let cases: [(&'static str, Vec<u8>, &str); 5] = [
        ("F32", f32::NAN.to_le_bytes().to_vec(), "NaN"),
        ("F32", f32::NEG_INFINITY.to_le_bytes().to_vec(), "infinity"),
        ("F16", half::f16::INFINITY.to_le_bytes().to_vec(), "infinity"),
        ("BF16", half::bf16::NAN.to_le_bytes().to_vec(), "NaN"),
        ("F64", f64::NAN.to_le_bytes().to_vec(), "NaN"),
    ];
    for (dtype, bad, what) in cases {
        let mut tensors = small_resnet();
        let t = tensors.get_mut("layer2.0.conv1.weight").unwrap();
        let n: usize = t.shape.iter().product();
        let size = bad.len();
        let mut data = vec![0; n * size];
        // [k, c, y, x] = [2, 1, 0, 2] of [8, 4, 3, 3]
        let at = ((2 * 4 + 1) * 3) * 3 + 2;
        data[at * size..(at + 1) * size].copy_from_slice(&bad);
        *t = Tensor { dtype, shape: t.shape.clone(), data };
        says(&refused(file(&tensors)), &["'layer2.0.conv1.weight'", what, "[2, 1, 0, 2]"]);
    }
    let mut tensors = small_resnet();
    let t = tensors.get_mut("bn1.running_var").unwrap();
    t.data[8..12].copy_from_slice(&(-1.0f32).to_le_bytes());
    says(&refused(file(&tensors)), &["'bn1.running_var'", "-1", "[2]", "variance"]);
}

#[test]
fn every_zero_dimension_is_refused() {
    for (name, tensor) in small_resnet() {
        for axis in 0..tensor.shape.len() {
            let mut tensors = small_resnet();
            let mut shape = tensor.shape.clone();
            shape[axis] = 0;
            tensors.insert(name.clone(), Tensor { dtype: "F32", shape, data: Vec::new() });
            refused(file(&tensors));
        }
    }
}
