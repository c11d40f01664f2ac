//! What the metadata and the files beside the weights say of a net, and what is assumed.

use super::*;

#[test]
fn what_names_and_shapes_do_not_say_is_assumed() {
    let assumed = |layout: &Layout| loaded(layout).assumed(&[]);
    let resnet18 = resnet(false, [1, 1, 1, 1], 4, 4, 1, 1000);
    let found = assumed(&resnet18);
    for what in [
        "relu",
        "max-pool after the stem",
        "no dilation",
        "no anti-aliasing",
        "batch-norm eps 1e-5",
        "preparation: ImageNet",
        "class names: ImageNet",
    ] {
        assert!(found.iter().any(|a| a == what), "{what}: {found:?}");
    }
    assert_eq!(assumed(&mlp(&[784, 12, 10])), ["relu", "preparation: levels from 0 to 1", "class names: digits"]);
    assert_eq!(assumed(&mlp(&[7, 3])), [""; 0]);
    let model = loaded(&resnet18);
    assert!(model.warnings().is_empty());
    // What the caller replaces is not assumed.
    let left = model.assumed(&[Setting::Mean, Setting::Std, Setting::Labels]);
    assert_eq!(left.last().unwrap(), "preparation: ImageNet (size, interpolation)");
    let told = Model::from_bytes("net", Arc::new(file(&filled(&resnet18))), Some("resnet")).unwrap();
    assert_eq!(told.assumed(&[]), ["preparation: ImageNet", "class names: ImageNet"]);
    // Two families share all names: one line says so, unless the family is given.
    let either = file(&filled(&lite([1, 2, 2, 3, 3, 4, 1], [8; 7], 8, 1, 3)));
    let model = load(either.clone()).unwrap();
    assert_eq!(model.warnings().len(), 1);
    says(&model.warnings()[0], &["--arch efficientnet-lite", "--arch timm-efficientnet-lite", "padding"]);
    assert!(model.assumed(&[]).contains(&"padding: TensorFlow's same".to_string()));
    for (arch, start) in [("Timm_EfficientNet_Lite", "timm-"), ("efficientnet lite", "efficientnet-lite [")] {
        let model = Model::from_bytes("net", Arc::new(either.clone()), Some(arch)).unwrap();
        assert!(model.warnings().is_empty() && model.architecture().starts_with(start), "{}", model.architecture());
    }
}

#[test]
fn metadata_and_config_say_what_a_net_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    let tensors = filled(&resnet(false, [2, 2, 2, 2], 4, 4, 1, 10));
    std::fs::write(&path, file(&tensors)).unwrap();
    let with = |text: &str, arch: Option<&str>| {
        std::fs::write(&config, text).unwrap();
        Model::open(&path, arch)
    };
    let refusal = |text: &str| with(text, None).unwrap_err().to_string();

    let timm = r#"{"architecture": "resnet18", "num_classes": 10, "global_pool": "avg", "pretrained_cfg": {"tag": "a1_in1k",
        "input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1], "num_classes": 1000}}"#;
    let model = with(timm, None).unwrap();
    let wanted = Preprocess {
        resize: 168,
        crop: [160; 2],
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5, 0.4, 0.3],
        std: vec![0.2, 0.3, 0.1],
        channels: 3,
    };
    assert_eq!(model.preprocess(), &wanted);
    assert_eq!(model.default_input(), Shape::new(3, 160, 160));
    assert_eq!(model.assumed(&[]), [""; 0]);
    assert!(model.warnings().is_empty());
    says(&model.read_beside()[0], &["config.json", "resnet18", "mean", "bicubic"]);

    // A net that is not read, one of other depths, classes or means, and one that is changed.
    for name in ["resnetblur18", "resnetaa50", "mobilenetv2_100"] {
        says(
            &refusal(&format!(r#"{{"architecture": "{name}"}}"#)),
            &["model.safetensors", "config.json", name, "--arch"],
        );
    }
    let transformers = r#"{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}"#;
    says(&refusal(transformers), &["ResNetForImageClassification", "--arch"]);
    says(&refusal(r#"{"architecture": "resnet34"}"#), &["resnet34", "resnet-basic [2,2,2,2]"]);
    says(&refusal(r#"{"architecture": "vgg11"}"#), &["'classifier.0.weight'", "vgg, as config.json says"]);
    says(&refusal(r#"{"architecture": "resnet18", "num_classes": 7}"#), &["7 classes", "have 10"]);
    says(&refusal(r#"{"architecture": "resnet18", "mean": [0.5, 0.5]}"#), &["`mean`", "3 channels"]);
    says(&refusal(r#"{"architecture": "resnet18", "model_args": {"output_stride": 8}}"#), &["output_stride=8"]);
    says(&refusal(r#"{"architecture": "resnet18", "global_pool": "max"}"#), &["global_pool=max"]);
    says(&refusal(r#"{"architecture": "resnet18", "act_layer": "gelu"}"#), &["act_layer"]);
    says(
        &refusal(r#"{"architecture": "resnet18", "input_size": [1, 32, 32]}"#),
        &["`input_size`", "1 channels", "has 3"],
    );
    says(&refusal(r#"{"architecture": "resnet18", "in_chans": 1}"#), &["`in_chans`", "1 channels"]);
    says(&refusal(r#"{"architecture": "resnet18", "num_classes": 10, "num_labels": 7}"#), &["contradicts itself"]);
    says(&refusal(r#"{"architecture": "resnet18", "label_names": ["a", "b"]}"#), &["names 2 classes"]);
    says(&refusal("{"), &["config.json", "not JSON"]);
    // To whom the net is told by the caller, none of that is an obstacle, and it is said.
    for text in [transformers, r#"{"architecture": "resnet34"}"#, "{"] {
        let model = with(text, Some("resnet")).unwrap();
        says(&model.warnings()[0], &["config.json", "ignored because --arch is given"]);
        assert_eq!(model.preprocess().mean, [0.485, 0.456, 0.406]);
    }
    // What is about something else says nothing.
    let model = with(r#"{"mean": "none", "epochs": 3}"#, None).unwrap();
    assert!(model.read_beside().is_empty() && model.warnings().is_empty());

    let named = |size: &str| format!(r#"{{"architecture": "resnet18", {size}}}"#);
    let resized = |model: &Model| (model.preprocess().crop, model.preprocess().resize);
    let model = with(&named(r#""input_size": [3, 160, 160]"#), None).unwrap();
    assert_eq!(resized(&model), ([160; 2], 182));
    assert!(model.assumed(&[]).contains(&"crop_pct 0.875".to_string()), "{:?}", model.assumed(&[]));
    assert!(!model.assumed(&[Setting::Size]).contains(&"crop_pct 0.875".to_string()));
    let told = with(&named(r#""input_size": [3, 160, 160], "crop_pct": 0.875"#), None).unwrap();
    assert!(!told.assumed(&[]).iter().any(|what| what.contains("crop_pct")));
    // Metadata go before the file beside.
    let (bytes, text) =
        (std::fs::read(&path).unwrap(), r#"{"architecture":"resnet18.a1_in1k","std":"[0.25]","format":"pt"}"#);
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header =
        std::str::from_utf8(&bytes[8..8 + length]).unwrap().replacen('{', &format!(r#"{{"__metadata__":{text},"#), 1);
    std::fs::write(&path, with_header(&header, &bytes[8 + length..])).unwrap();
    let model = with(timm, None).unwrap();
    assert_eq!((model.preprocess().std.as_slice(), model.preprocess().mean[0]), ([0.25; 3].as_slice(), 0.5));
    assert_eq!(model.read_beside().len(), 2);
    assert!(model.read_beside()[1].contains("std (overruled by the metadata)"), "{:?}", model.read_beside());
    says(&refusal(r#"{"architecture": "resnet34"}"#), &["config.json", "resnet34"]);
    std::fs::remove_file(&config).unwrap();
    let model = Model::open(&path, None).unwrap();
    assert_eq!(model.assumed(&[]), ["preparation: ImageNet (mean, size, interpolation)"]);

    // One says the share that is cut, the other the size.
    let header = header.replacen(r#""std":"[0.25]""#, r#""crop_pct":"1.0""#, 1);
    std::fs::write(&path, with_header(&header, &bytes[8 + length..])).unwrap();
    assert_eq!(resized(&with(&named(r#""input_size": [3, 160, 160]"#), None).unwrap()), ([160; 2], 160));
    assert_eq!(
        resized(&with(&named(r#""input_size": [3, 160, 160], "crop_pct": 0.5"#), None).unwrap()),
        ([160; 2], 160)
    );
}
