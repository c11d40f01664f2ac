//! Nets under the names that different projects give to their tensors: right numbers, or a refusal or a warning.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod drawn;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use drawn::{apart, drawn, norm};
use serde_json::Value;
use verilume::Error;
use verilume::engine::{Batch, Engine, Job, Settings};
use verilume::model::Model;
use verilume::program::Score;
use verilume::tensor::{Precision, Shape, Tensor};

/// Names and shapes of a file, and its numbers.
type File = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn cases() -> BTreeMap<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/names.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn counts(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The file of a case; weights and masks are drawn from the names.
fn file(case: &Value) -> File {
    let tensors = case["tensors"].as_object().unwrap().iter();
    tensors
        .map(|(name, shape)| {
            let shape = counts(shape);
            let numbers = drawn(name, &shape);
            (name.clone(), (shape, numbers))
        })
        .collect()
}

fn bytes(file: &File) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, numbers)) in file {
        let from = data.len();
        data.extend(numbers.iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn read(file: &File, arch: Option<&str>) -> Result<Model, Error> {
    Model::from_bytes("net", Arc::new(bytes(file)), arch)
}

fn refused(file: &File, parts: &[&str]) {
    let message = read(file, None).unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(message.contains(part), "'{part}' is not in: {message}"));
}

/// Logits, and the gradient of `class`, for the drawn input.
fn answers(model: &Model, size: &[usize], class: usize) -> (Vec<f64>, Vec<f64>) {
    let graph = model.graph(Shape::new(size[0], size[1], size[2])).unwrap();
    let shape = [1, size[0], size[1], size[2]];
    let x = Batch::new(&Tensor::f32(shape, drawn("input", &shape)).unwrap()).unwrap();
    let mut engine =
        Engine::new(&Settings { precision: Precision::F64, threads: Some(2), ..Settings::default() }).unwrap();
    let logits = engine.node_outputs(&graph, &x, &[graph.output()]).unwrap()[0].to_f64().into_owned();
    let maps = engine.explain(&graph, &Job::gradient(Score::Logit), &x, &[class]).unwrap().maps;
    (logits, maps[0].to_f64().into_owned())
}

#[test]
fn nets_answer_as_their_projects_do() {
    for (name, case) in cases() {
        let model = read(&file(&case), case["arch"].as_str()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let class = case["class"].as_u64().unwrap() as usize;
        let (logits, gradient) = answers(&model, &counts(&case["input"]), class);
        let wanted = |key: &str| serde_json::from_value::<Vec<f64>>(case[key].clone()).unwrap();
        let at: Vec<f64> = (0..256).map(|i| gradient[7919 * i % gradient.len()]).collect();
        let error = [
            apart(&logits, &wanted("logits")),
            apart(&at, &wanted("gradient")),
            apart(&[norm(&gradient)], &[case["norm"].as_f64().unwrap()]),
        ];
        println!("{name}: {} {error:?} {:?}", model.architecture(), model.warnings());
        assert!(error.iter().all(|e| *e <= 1e-10), "{name}: {error:?}");
        // Names do not hold everything.
        assert!(case["arch"].is_string() || !model.assumed(&[]).is_empty(), "{name}");
    }
}

/// Pruned nets are those of TensorFlow's weights, and only where widths are uneven.
#[test]
fn pruned_nets_are_told_by_their_widths() {
    let cases = cases();
    for (case, pad, form) in [
        ("timm efficientnet pruned", "same", "pruned-efficientnet [2,3,3,4,4,5,2]"),
        ("tf efficientnet", "symmetric", "efficientnet [1,2,2,3,3,4,1]"),
    ] {
        let name = if pad == "same" { "efficientnet_b1_pruned" } else { "efficientnet_b0_pruned" };
        let model = Model::from_bytes(name, Arc::new(bytes(&file(&cases[case]))), None).unwrap();
        assert_eq!(model.architecture(), form);
        assert!(model.assumed(&[]).iter().any(|what| what.starts_with("padding") && what.contains(pad)), "{case}");
    }
}

/// Files with the names of a case, and one thing that would change the numbers.
#[test]
fn what_may_be_another_net_is_refused_or_said() {
    let cases = cases();
    let plain = |name: &str| file(&cases[name]);
    let with = |case: &str, name: &str, shape: &[usize]| {
        let mut file = plain(case);
        file.insert(name.into(), (shape.to_vec(), vec![0.5; shape.iter().product()]));
        file
    };
    let warns = |file: &File, parts: &[&str]| {
        let warnings = read(file, None).unwrap().warnings().join("; ");
        parts.iter().for_each(|part| assert!(warnings.contains(part), "'{part}' is not in: {warnings}"));
    };
    // Within a block, at the top, in the head: what has no place.
    refused(&with("chenyaofo", "layer1.0.cbam.conv.weight", &[1, 2, 7, 7]), &["layer1.0.cbam.conv.weight", "no place"]);
    // A second convolution along the channels, with a function between both; an even number of taps.
    refused(&with("timm ecaresnet", "layer1.0.se.conv2.weight", &[1, 8, 3]), &["layer1.0.se.conv2.weight", "no place"]);
    refused(&with("timm ecaresnet", "layer1.0.se.conv.weight", &[1, 1, 4]), &["layer1.0.se.conv.weight", "odd"]);
    // A third path of a selective kernel.
    refused(
        &with("timm skresnet", "layer1.0.conv1.paths.2.conv.weight", &[64, 32, 3, 3]),
        &["layer1.0.conv1.paths.2.conv.weight", "no place"],
    );
    refused(
        &with("prefix", "module._orig_mod.attention.scale", &[512]),
        &["module._orig_mod.attention.scale", "no place"],
    );
    refused(&with("timm convnext", "head.pre_logits.fc.weight", &[8, 320]), &["head.pre_logits.fc.weight", "ONNX"]);
    refused(&with("kuangliu", "linear2.weight", &[3, 24]), &["order", "linear2.weight", "ONNX"]);
    refused(&with("timm mnasnet", "blocks.1.0.se.conv_reduce.weight", &[4, 48, 1, 1]), &["mnasnet", "--arch"]);
    // Group norms have no means; the first convolution of a pre-activation net has no norm after it.
    let mut other = plain("chenyaofo");
    other.retain(|name, _| !name.contains("running_"));
    refused(&other, &["running_mean", "missing"]);
    let mut other = plain("kuangliu");
    other.retain(|name, _| !name.starts_with("bn1."));
    refused(&other, &["bn1", "missing"]);
    // A shape of another rank, more taps than channels need.
    let mut other = plain("senet bottleneck");
    other.insert("layer1.0.conv2.weight".into(), (vec![64], vec![0.5; 64]));
    refused(&other, &["read as resnet", "layer1.0.conv2.weight", "[64]"]);
    refused(&with("timm ecaresnet", "layer1.0.se.conv.weight", &[1, 1, 33]), &["layer1.0.se.conv.weight", "up to 31"]);
    refused(&with("timm res2net", "layer1.0.convs.0.weight", &[13, 13, 3, 3]), &["layer1.0.convs.0.weight", "[13, 13"]);
    // Published nets with the same tensors and another place of the pool.
    warns(&plain("timm resnest"), &["ResNeSt-fast", "ONNX"]);
    assert!(read(&plain("timm resnest of groups"), None).unwrap().warnings().is_empty());
    // Where names were translated, the message says so.
    let mut other = plain("transformers convnext");
    other.retain(|name, _| !name.ends_with("stages.0.layers.0.pwconv1.bias"));
    refused(&other, &["features.1.0.block.3.bias", "names of transformers"]);
    // TensorFlow's weights have the same names.
    for name in ["timm mobilenetv3", "timm tinynet", "timm efficientnet_es"] {
        warns(&plain(name), &["--arch tf-mobile"]);
    }
    // The name of a file tells one of two families; what it cannot tell is said.
    let called = |case: &str, name: &str| Model::from_bytes(name, Arc::new(bytes(&plain(case))), None).unwrap();
    let told = called("tf mobilenetv3", "tf_mobilenetv3_small_075.in1k");
    assert!(
        told.warnings().is_empty() && told.assumed(&[]).iter().any(|said| said.contains("named after")),
        "{told:?}"
    );
    let (class, size) = (cases["tf mobilenetv3"]["class"].as_u64().unwrap() as usize, [3, 65, 70]);
    let (logits, _) = answers(&told, &size, class);
    let wanted: Vec<f64> = serde_json::from_value(cases["tf mobilenetv3"]["logits"].clone()).unwrap();
    assert!(apart(&logits, &wanted) <= 1e-10);
    assert!(!called("timm mobilenetv3", "mobilenetv3_small_050").warnings().is_empty());
    // Whole parts of the name, under any prefix.
    let wrapped: File = plain("tf mobilenetv3").into_iter().map(|(name, t)| (format!("module.{name}"), t)).collect();
    for name in ["timm_tf_mobilenetv3_small_075_ns", "TF-MobileNetV3-Small-075"] {
        let model = Model::from_bytes(name, Arc::new(bytes(&wrapped)), None).unwrap();
        assert!(apart(&answers(&model, &size, class).0, &wanted) <= 1e-10, "{name}");
    }
    // Paddings of transformers' EfficientNet are those of the published size.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes(&plain("transformers efficientnet"))).unwrap();
    let padded = |blocks: &str| {
        let config =
            format!(r#"{{"architectures": ["EfficientNetForImageClassification"], "depthwise_padding": {blocks}}}"#);
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        Model::open(folder.path(), None)
    };
    assert!(padded("[]").is_ok());
    assert!(padded("[5]").unwrap_err().to_string().contains("depthwise_padding"));
    let blurred = called("timm resnet10t", "resnetblur18.bt_in1k");
    assert!(blurred.warnings().iter().any(|said| said.contains("low-pass")), "{blurred:?}");
    // A net that scales its own input, a copy of the weights, and what training keeps.
    warns(&with("prefix", "mean", &[1, 3, 1, 1]), &["'mean' is left out", "normalises"]);
    let mut copied = plain("chenyaofo");
    let copy: Vec<_> = copied.iter().map(|(name, tensor)| (format!("ema.{name}"), tensor.clone())).collect();
    let n = copy.len();
    copied.extend(copy);
    warns(&copied, &["'ema.bn1.bias'", &format!("(and {} others) are left out", n - 1)]);
    // Layers of a list that leave no place for an activation.
    let mut joined = plain("two linear layers");
    for kind in ["weight", "bias"] {
        let tensor = joined.remove(&format!("fc.3.{kind}")).unwrap();
        joined.insert(format!("fc.1.{kind}"), tensor);
    }
    refused(&joined, &["no place for an activation", "ONNX"]);
    // No head; a LeNet that may have padding; a stem that may have a pool.
    let mut backbone = plain("prefix");
    backbone.retain(|name, _| !name.contains(".fc."));
    refused(&backbone, &["no head"]);
    let mut grey = plain("lenet of colours");
    grey.insert("conv1.weight".into(), (vec![6, 1, 5, 5], vec![0.5; 150]));
    warns(&grey, &["padding 2", "ONNX"]);
    let mut small = plain("prefix");
    small.insert("module._orig_mod.conv1.weight".into(), (vec![64, 3, 3, 3], vec![0.01; 1728]));
    warns(&small, &["max-pool", "ONNX"]);
    // A small net of numbered layers, whose pools names do not hold.
    let sequential: File = [("0", vec![8, 1, 3, 3]), ("3", vec![16, 8, 3, 3]), ("7", vec![10, 400])]
        .into_iter()
        .map(|(name, shape)| (format!("{name}.weight"), (shape.clone(), vec![0.5; shape.iter().product()])))
        .collect();
    refused(&sequential, &["no known architecture", "ONNX"]);
}
