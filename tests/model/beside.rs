//! What the metadata and the files beside the weights say of a net, and what is assumed.

use super::families::published;
use super::*;

#[test]
fn what_names_and_shapes_do_not_say_is_assumed() {
    let assumed = |layout: &Layout| loaded(layout).assumed(&[]);
    let resnet18 = resnet(false, [1, 1, 1, 1], 4, 4, 1, 1000);
    let found = assumed(&resnet18);
    for what in [
        "relu",
        "max-pool after the stem",
        "no dilation, no anti-aliasing, means over all positions before the head",
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

/// `model.safetensors` is what every net of a hub is called: its folder then tells what the tensors do not.
#[test]
fn a_file_of_the_usual_name_is_called_as_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let open = |place: &str, tensors: &[u8]| {
        let path = folder.path().join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, tensors).unwrap();
        Model::open(&path, None).unwrap()
    };
    let (either, plain) = (
        file(&filled(&lite([1, 2, 2, 3, 3, 4, 1], [8; 7], 8, 1, 3))),
        file(&filled(&resnet(false, [2, 2, 2, 2], 4, 4, 1, 10))),
    );
    let cached = |name: &str| format!("models--timm--{name}.in1k/snapshots/0123abcd/model.safetensors");
    for place in ["tf_efficientnet_lite0/model.safetensors".to_string(), cached("tf_efficientnet_lite0")] {
        let model = open(&place, &either);
        assert!(model.architecture().starts_with("efficientnet-lite ["), "{}", model.architecture());
        assert!(model.warnings().is_empty());
        assert_eq!(model.assumed(&[])[0], "the family that the file or its folder is named after");
        // The folder itself is the same net.
        let whole = Model::open(folder.path().join(&place).parent().unwrap(), None).unwrap();
        assert_eq!(whole.architecture(), model.architecture());
    }
    for place in ["resnetblur18/pytorch_model.safetensors".to_string(), cached("resnetaa18")] {
        says(&open(&place, &plain).warnings().join("; "), &["low-pass"]);
    }
    // A name that holds two published ones, or that of another net, tells nothing.
    for place in ["tf_efficientnet_lite0_and_resnet50", "tf_efficientnet_lite3", "mine_for_tf_efficientnet_b0"] {
        assert_eq!(open(&format!("{place}/model.safetensors"), &either).warnings().len(), 1, "{place}");
    }
    says(&open("cafferesnet18/model.safetensors", &plain).warnings().join("; "), &["stride", "pool"]);
    // A file with a name of its own keeps it.
    assert!(open("resnetblur18/mine.safetensors", &plain).warnings().is_empty());
    assert_eq!(open("tf_efficientnet_lite0/mine.safetensors", &either).warnings().len(), 1);
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
    for name in ["resnetblur18", "resnetaa50", "mobilenetv4_hybrid_medium"] {
        says(
            &refusal(&format!(r#"{{"architecture": "{name}"}}"#)),
            &["model.safetensors", "config.json", name, "--arch"],
        );
    }
    let transformers = r#"{"architectures": ["ViTForImageClassification"], "model_type": "vit"}"#;
    says(&refusal(transformers), &["ViTForImageClassification", "--arch"]);
    says(&refusal(r#"{"architecture": "resnet34"}"#), &["resnet34", "resnet-basic [2,2,2,2]"]);
    says(&refusal(r#"{"architecture": "vgg11"}"#), &["'features.0.weight'", "vgg, as config.json says"]);
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

/// A folder with the weights of a small ResNet-18 for `classes` classes, and the files that a test puts beside them.
struct Hub(tempfile::TempDir);

impl Hub {
    fn new(classes: usize) -> Self {
        let hub = Self(tempfile::tempdir().unwrap());
        hub.put("model.safetensors", &file(&filled(&resnet(false, [2, 2, 2, 2], 4, 4, 1, classes))));
        hub
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn take(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).unwrap();
    }

    fn open(&self) -> Model {
        Model::open(self.0.path(), None).unwrap()
    }

    fn why(&self) -> String {
        let error = Model::open(self.0.path(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model, "{error}");
        error.to_string()
    }
}

/// Short side, crop and filter of a preparation.
fn sizes(model: &Model) -> (usize, [usize; 2], Interpolation) {
    let p = model.preprocess();
    (p.resize, p.crop, p.interpolation)
}

fn near(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (a, b) in found.iter().zip(wanted) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{found:?} for {wanted:?}");
    }
}

#[test]
fn preprocessors_of_transformers_say_how_pictures_are_prepared() {
    use Interpolation::{Bicubic, Bilinear, Lanczos, Nearest};
    let hub = Hub::new(10);
    let with = |more: &str| {
        let text = format!(r#"{{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1], {more}}}"#);
        hub.put("preprocessor_config.json", text.as_bytes());
        hub.open()
    };
    // What is written for ResNet and ConvNeXt, MobileNet, ViT and EfficientNet, and in older files; whether it warns.
    let cases = [
        (r#""crop_pct": 0.875, "size": {"shortest_edge": 224}, "resample": 3"#, (256, [224; 2], Bicubic), false),
        (
            r#""image_processor_type": "ConvNextImageProcessor", "size": 224, "resample": 2"#,
            (256, [224; 2], Bilinear),
            false,
        ),
        (r#""crop_pct": 0.95, "size": {"shortest_edge": 224}, "resample": 3"#, (235, [224; 2], Bicubic), false),
        (r#""crop_pct": 0.875, "size": {"shortest_edge": 384}, "resample": 3"#, (384, [384; 2], Bicubic), true),
        (
            r#""size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 192}, "resample": 2"#,
            (256, [224, 192], Bilinear),
            false,
        ),
        (r#""size": 232, "do_center_crop": true, "crop_size": 224, "resample": 2"#, (232, [224; 2], Bilinear), false),
        (r#""size": {"height": 224, "width": 224}, "resample": 1"#, (224, [224; 2], Lanczos), true),
        (r#""size": [96, 96], "resample": 0, "do_center_crop": false"#, (96, [96; 2], Nearest), true),
        (r#""size": 160, "resample": 2"#, (160, [160; 2], Bilinear), true),
        (r#""do_resize": false, "crop_size": 128"#, (128, [128; 2], Bilinear), true),
        (r#""do_resize": false"#, (256, [224; 2], Bilinear), false),
    ];
    for (text, wanted, warns) in cases {
        let model = with(text);
        assert_eq!(sizes(&model), wanted, "{text}");
        assert_eq!(model.default_input(), Shape::new(3, wanted.1[0], wanted.1[1]), "{text}");
        assert_eq!((model.preprocess().mean[0], model.preprocess().std[2]), (0.5, 0.1));
        let warned =
            model.warnings().iter().any(|w| w.contains("preprocessor_config.json") && w.contains("short side"));
        assert_eq!(warned, warns, "{text}: {:?}", model.warnings());
        says(&model.read_beside()[0], &["preprocessor_config.json: ", "mean, std"]);
        if wanted.0 != 256 || text.contains("crop_pct") {
            assert!(!model.assumed(&[]).iter().any(|a| a.contains("size")), "{text}: {:?}", model.assumed(&[]));
        }
    }
    // A filter that is not done is said.
    let model = with(r#""size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 4"#);
    assert!(model.warnings()[0].contains("filter 4"), "{:?}", model.warnings());

    // Levels: neither normalised nor scaled, scaled otherwise, shifted, divided twice.
    let levels = |text: &str| {
        hub.put("preprocessor_config.json", format!("{{{text}}}").as_bytes());
        let p = hub.open().preprocess().clone();
        (p.mean, p.std)
    };
    let given = r#""image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1]"#;
    let (mean, std) = levels(&format!(r#"{given}, "do_normalize": false"#));
    near(&mean, &[0.0; 3]);
    near(&std, &[1.0; 3]);
    let (mean, std) = levels(&format!(r#"{given}, "rescale_factor": 0.00392156862745098, "do_rescale": true"#));
    assert_eq!((mean, std), (vec![0.5, 0.4, 0.3], vec![0.2, 0.3, 0.1]));
    let (mean, std) = levels(r#""image_mean": [123.675, 116.28, 103.53], "image_std": 58.395, "do_rescale": false"#);
    near(&mean, &[0.485, 0.456, 0.406]);
    near(&std, &[0.229; 3]);
    let (mean, std) = levels(r#""do_normalize": false, "rescale_factor": 0.00784313725490196, "rescale_offset": true"#);
    near(&mean, &[0.5; 3]);
    near(&std, &[0.5; 3]);
    let (mean, std) = levels(&format!(r#"{given}, "image_processor_type": "EfficientNetImageProcessor""#));
    near(&mean, &[0.5, 0.4, 0.3]);
    near(&std, &[0.04, 0.09, 0.01]);

    // What is damaged names the file and the key.
    for (text, parts) in [
        ("{", &["not JSON"][..]),
        (r#"{"image_mean": "grey"}"#, &["`image_mean`"]),
        (r#"{"image_mean": [0.5, 0.5]}"#, &["`mean` has 2 numbers", "3 channels"]),
        (r#"{"image_std": [0.5, 0.5, 0]}"#, &["`std` holds 0"]),
        (r#"{"image_mean": 0, "size": {"longest_edge": 3}}"#, &["`size`"]),
        (r#"{"image_mean": 0, "size": -7}"#, &["`size`"]),
        (r#"{"image_mean": 0, "crop_size": "big"}"#, &["`crop_size`"]),
        (r#"{"image_mean": 0, "crop_pct": 8.75}"#, &["`crop_pct`"]),
        (r#"{"image_mean": 0, "resample": "bicubic"}"#, &["`resample`"]),
        (r#"{"image_mean": 0, "do_resize": 1}"#, &["`do_resize`"]),
        (r#"{"image_mean": 0, "rescale_factor": 0}"#, &["`rescale_factor`"]),
        (r#"{"image_mean": 0, "do_flip_channel_order": true}"#, &["`do_flip_channel_order`", "BGR"]),
    ] {
        hub.put("preprocessor_config.json", text.as_bytes());
        says(&hub.why(), &[&["preprocessor_config.json", "--arch"][..], parts].concat());
        let model = Model::open(hub.0.path(), Some("resnet")).unwrap();
        says(&model.warnings()[0], &["preprocessor_config.json", "ignored because --arch is given"]);
    }
    // One that is about sounds is none.
    hub.put("preprocessor_config.json", br#"{"sampling_rate": 16000, "size": 7}"#);
    assert!(hub.open().read_beside().is_empty());
}

#[test]
fn the_first_source_that_says_something_counts() {
    let hub = Hub::new(3);
    let sources = |model: &Model| -> Vec<String> {
        model.read_beside().iter().map(|line| line.split(':').next().unwrap().to_string()).collect()
    };
    hub.put("imagenet_classes.txt", b"x\ny\nz\n");
    let model = hub.open();
    assert_eq!((model.labels().get(1), sources(&model)), (Some("y"), vec!["imagenet_classes.txt".to_string()]));
    hub.put("classes.txt", "a\r\nb\r\nc\r\n\r\n".as_bytes());
    hub.put("labels.txt", "\u{feff}ä\nö\nü".as_bytes());
    assert_eq!(hub.open().labels().get(1), Some("ö"));
    hub.put("config.json", br#"{"model_type": "resnet", "id2label": {"0": "cat", "1": "dog", "2": "cow"}}"#);
    let model = hub.open();
    assert_eq!(model.labels().get(1), Some("dog"));
    assert_eq!(sources(&model), ["config.json", "labels.txt", "classes.txt", "imagenet_classes.txt"]);
    says(&model.read_beside()[1], &["class names (overruled by config.json)"]);
    // A preprocessor's size goes before the net's; what it does not say comes from there.
    hub.put(
        "preprocessor_config.json",
        br#"{"size": 100, "do_center_crop": true, "crop_size": 96, "image_mean": 0.25}"#,
    );
    hub.put(
        "config.json",
        br#"{"architecture": "resnet18", "input_size": [3, 64, 64], "crop_pct": 1.0, "mean": 0.5, "std": 0.125,
            "interpolation": "bicubic", "num_classes": 3}"#,
    );
    let model = hub.open();
    assert_eq!(sizes(&model), (100, [96; 2], Interpolation::Bicubic));
    assert_eq!((model.preprocess().mean[1], model.preprocess().std[1]), (0.25, 0.125));
    assert_eq!(model.assumed(&[]), [""; 0]);
    hub.take("preprocessor_config.json");
    assert_eq!(sizes(&hub.open()), (64, [64; 2], Interpolation::Bicubic));

    // A list of another length need not be about this net: it is left out and said. id2label is about it.
    hub.take("config.json");
    hub.put("labels.txt", b"one\ntwo\n");
    let model = hub.open();
    assert_eq!(model.labels().get(1), Some("b"), "the next list counts");
    says(&model.warnings()[0], &["labels.txt names 2 classes", "have 3", "ignored"]);
    for (bytes, part) in
        [(&b"a\n\nb"[..], "line 2 is empty"), (b"\xff\xfe\x00", "labels.txt"), (b"a\nb\xff\nc", "line 2")]
    {
        hub.put("labels.txt", bytes);
        let model = hub.open();
        says(&model.warnings()[0], &["labels.txt", part, "ignored"]);
        assert_eq!(model.labels().get(1), Some("b"));
    }
    hub.put("labels.txt", b"");
    assert!(hub.open().warnings().is_empty());
    hub.put("config.json", br#"{"model_type": "resnet", "id2label": {"0": "cat", "1": "dog"}}"#);
    says(&hub.why(), &["config.json names 2 classes", "have 3"]);
}

#[test]
fn configs_of_transformers_name_families() {
    let hub = Hub::new(3);
    let with = |more: &str| {
        hub.put("config.json", format!(r#"{{"architectures": ["ResNetForImageClassification"]{more}}}"#).as_bytes());
    };
    with(r#", "model_type": "resnet", "hidden_act": "relu", "downsample_in_bottleneck": false, "num_channels": 3"#);
    let model = hub.open();
    says(&model.read_beside()[0], &["ResNetForImageClassification"]);
    assert_eq!(model.assumed(&[]), ["preparation: ImageNet"]);
    with(r#", "downsample_in_bottleneck": true"#);
    says(&hub.why(), &["changes the net by `downsample_in_bottleneck=true`"]);
    with(r#", "hidden_act": "gelu""#);
    says(&hub.why(), &["hidden_act"]);
    hub.put("config.json", br#"{"architectures": ["ViTForImageClassification"]}"#);
    says(&hub.why(), &["ViTForImageClassification", "net of transformers, which is not read"]);
    hub.put("config.json", br#"{"architectures": ["RegNetForImageClassification"]}"#);
    says(&hub.why(), &["read as regnet, as config.json says"]);
}

#[test]
fn weights_of_torchvision_have_their_own_sizes() {
    use Interpolation::{Bicubic, Bilinear};
    let hub = Hub::new(10);
    let with = |weights: &str| {
        hub.put("config.json", format!(r#"{{"architecture": "resnet18", "weights": "{weights}"}}"#).as_bytes());
        hub.open()
    };
    assert_eq!(sizes(&with("ResNet18_Weights.IMAGENET1K_V2")), (232, [224; 2], Bilinear));
    assert_eq!(with("IMAGENET1K_V2").assumed(&[]), ["preparation: ImageNet (mean, std)"]);
    assert_eq!(sizes(&with("IMAGENET1K_V1")), (256, [224; 2], Bilinear));
    assert_eq!(sizes(&with("IMAGENET1K_SWAG_E2E_V1")), (384, [384; 2], Bicubic));
    near(&with("IMAGENET1K_FEATURES").preprocess().std, &[1.0 / 255.0; 3]);
    says(&with("MINE").warnings()[0], &["'MINE'", "no table"]);
    hub.put(
        "preprocessor_config.json",
        br#"{"size": 100, "do_center_crop": true, "crop_size": 96, "image_mean": 0.25}"#,
    );
    assert_eq!(sizes(&with("IMAGENET1K_V2")), (100, [96; 2], Bilinear), "the table comes last");
    hub.take("preprocessor_config.json");
    // timm's: 0.95 of the side, cubic.
    let timm = br#"{"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95,
        "interpolation": "bicubic"}}"#;
    hub.put("config.json", timm);
    assert_eq!(sizes(&hub.open()), (235, [224; 2], Bicubic));
}

/// The net in `bytes` with metadata.
fn told(bytes: &[u8], metadata: &str) -> Result<Model, Error> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let header = header.replacen('{', &format!(r#"{{"__metadata__":{metadata},"#), 1);
    load(with_header(&header, &bytes[8 + length..]))
}

#[test]
fn what_a_net_does_with_its_input_is_done_by_the_preparation() {
    let [mean, std] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
    let [googlenet, mobilenet] = ["googlenet", "mobilenet_v2"].map(|net| published(net, &[]));
    let levels = |metadata: &str| {
        let p = told(&googlenet, metadata).unwrap().preprocess().clone();
        (p.mean, p.std)
    };
    for text in ["true", "True"] {
        let (m, s) = levels(&format!(r#"{{"transform_input":"{text}"}}"#));
        near(&m, &[0.5; 3]);
        near(&s, &[0.5; 3]);
    }
    // As torchvision's net does it: other normalised pictures become other numbers.
    let (m, s) = levels(r#"{"transform_input":"true","mean":"[0.1, 0.2, 0.3]","std":"[0.4, 0.5, 0.6]"}"#);
    for c in 0..3 {
        for level in [0.0, 0.3, 1.0] {
            let normalised = (level - [0.1, 0.2, 0.3][c]) / [0.4, 0.5, 0.6][c];
            let wanted = normalised * (std[c] / 0.5) + (mean[c] - 0.5) / 0.5;
            near(&[(level - m[c]) / s[c]], &[wanted]);
        }
    }
    let (m, s) = levels(r#"{"transform_input":"false"}"#);
    near(&m, &mean);
    near(&s, &std);
    let why = |bytes: &[u8], metadata: &str| told(bytes, metadata).unwrap_err().to_string();
    says(&why(&googlenet, r#"{"transform_input":"perhaps"}"#), &["the metadata", "`transform_input`"]);
    says(&why(&mobilenet, r#"{"transform_input":"true"}"#), &["transform_input=true", "not read of mobilenet-v2"]);
    told(&mobilenet, r#"{"transform_input":"False"}"#).unwrap();
}

#[test]
fn nets_that_differ_in_width_alone_are_told_apart() {
    for (tensors, name, parts) in [
        ("efficientnet_b2", "efficientnet_b1", &["'efficientnet_b1'", "the widths of efficientnet_b2"][..]),
        ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", &["the widths of shufflenet_v2_x0_5"]),
    ] {
        let bytes = published(tensors, &[]);
        let why = told(&bytes, &format!(r#"{{"architecture":"{name}"}}"#)).unwrap_err().to_string();
        says(&why, &[&["the metadata says"][..], parts].concat());
        let right = told(&bytes, &format!(r#"{{"architecture":"{tensors}"}}"#)).unwrap();
        assert!(right.warnings().is_empty());
    }
}
