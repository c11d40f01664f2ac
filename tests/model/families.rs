//! Every family is recognised, and none is taken for another.

use super::*;

pub(crate) fn stages(model: &Model) -> Vec<(String, String, [usize; 3])> {
    let graph = model.graph(model.default_input()).unwrap();
    let stage = |(name, id): &(String, _)| {
        let node = graph.node(*id);
        (name.clone(), node.name.clone(), node.shape.dims())
    };
    graph.stages().iter().map(stage).collect()
}

pub(crate) fn stage_planes(model: &Model) -> Vec<usize> {
    stages(model).iter().map(|s| s.2[1]).collect()
}

#[test]
fn golden_files_load() {
    let cases = [
        // name, architecture, input, classes, parameters, number of stages
        ("vgg", "vgg (6 conv)", Shape::new(3, 32, 32), 10, 17_898, 4),
        ("vgg_bn", "vgg (5 conv, batch norm)", Shape::new(3, 24, 40), 7, 13_903, 3),
        ("resnet_basic", "resnet-basic [2,1,1,2]", Shape::new(3, 64, 64), 10, 154_130, 4),
        ("resnet_bottleneck", "resnet-bottleneck [1,2,1,1]", Shape::new(3, 64, 48), 12, 136_020, 4),
        ("resnext", "resnext-bottleneck 4x4d [1,1,1,1]", Shape::new(3, 65, 71), 9, 163_761, 4),
    ];
    for (name, architecture, input, classes, parameters, count) in cases {
        let path = golden(name);
        let model = Model::open(&path, None).unwrap();
        assert_eq!(model.architecture(), architecture);
        assert_eq!(model.name(), format!("{name}.weights"));
        assert_eq!(model.default_input(), Shape::new(3, 224, 224));
        let want = Preprocess {
            resize: 256,
            crop: [224; 2],
            interpolation: Interpolation::Bilinear,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            channels: 3,
        };
        assert_eq!(model.preprocess(), &want);
        assert_eq!(model.labels().get(1), Some("class 1"));
        assert_eq!(model.file_bytes() as u64, path.metadata().unwrap().len());
        let graph = model.graph(input).unwrap();
        assert_eq!((graph.input_shape(), graph.classes()), (input, classes), "{name}");
        assert_eq!(graph.stages().len(), count, "{name}");
        assert!(!graph.nodes().iter().any(|n| matches!(n.op, Op::BatchNorm(_))), "{name}");
        assert_eq!(model.unfolded().parameters(), parameters, "{name}");
        let last = graph.node(graph.stages().last().unwrap().1);
        assert!(matches!(last.op, Op::Relu), "{name}: a stage ends with its ReLU");
        let info = model.info(input).unwrap();
        assert_eq!((info.parameters, info.flops), (parameters, 2 * info.macs), "{name}");
        assert_eq!(info.layers.len(), model.unfolded().nodes().len());
        assert_eq!(info.encodings.keys().collect::<Vec<_>>(), [&"f32"]);
        serde_json::to_string(&info).unwrap();
    }
}

#[test]
fn sizes_share_weights() {
    let model = Model::open(&golden("resnet_basic"), None).unwrap();
    let ids = |shape| -> Vec<_> {
        let graph = model.graph(shape).unwrap();
        graph
            .nodes()
            .iter()
            .filter_map(|n| match &n.op {
                Op::Conv(c) => Some(c.weight.id()),
                Op::Linear(l) => Some(l.weight.id()),
                _ => None,
            })
            .collect()
    };
    assert_eq!(ids(Shape::new(3, 64, 64)), ids(Shape::new(3, 224, 224)));
    assert_eq!(ids(Shape::new(3, 33, 70)), ids(Shape::new(3, 224, 224)));
    let again = |s| model.graph(s).unwrap().id();
    assert_eq!(again(Shape::new(3, 33, 70)), again(Shape::new(3, 33, 70)));

    let grey = model.graph(Shape::new(1, 64, 64)).unwrap_err();
    assert_eq!(grey.kind(), ErrorKind::Input);
    says(&grey.to_string(), &["3 channels", "1x64x64"]);
    for odd in [Shape::new(3, 0, 64), Shape::new(3, usize::MAX, 1)] {
        assert!(model.graph(odd).is_err());
    }
    let vgg = Model::open(&golden("vgg"), None).unwrap();
    let small = vgg.graph(Shape::new(3, 8, 8)).unwrap_err();
    assert_eq!(small.kind(), ErrorKind::Input);
    says(&small.to_string(), &["3x8x8", "features.15"]);
}

#[test]
fn vgg_11_to_19_with_and_without_batch_norm() {
    for (cfg, convs, parameters) in VGG {
        assert_eq!(trained(&vgg(cfg, false, 1, 4096, 1000)), parameters, "the layout is torchvision's");
        for batch_norm in [false, true] {
            let layout = vgg(cfg, batch_norm, 32, 8, 1000);
            let model = loaded(&layout);
            let suffix = if batch_norm { ", batch norm" } else { "" };
            assert_eq!(model.architecture(), format!("vgg ({convs} conv{suffix})"));
            assert_eq!(model.unfolded().parameters(), trained(&layout));
            assert_eq!(stage_planes(&model), [224, 112, 56, 28, 14]);
            let graph = model.graph(model.default_input()).unwrap();
            let pools = graph.nodes().iter().filter(|n| matches!(n.op, Op::MaxPool(_))).count();
            assert_eq!(pools, 5);
            for (_, node, _) in stages(&model) {
                assert!(matches!(graph.node(graph.find(&node).unwrap()).op, Op::Relu));
            }
            assert_eq!(model.labels().get(207), Some("golden retriever"));
        }
    }
    // torchvision's numbering, told by its documentation: the ReLU before the last pool of VGG-16 is features.29.
    let model = loaded(&vgg(VGG[2].0, false, 32, 8, 10));
    assert_eq!(stages(&model)[4].1, "features.29");
}

#[test]
fn resnets_18_to_152_wide_and_resnext() {
    // bottleneck, depths, inner width of layer1 a group, groups, parameters of torchvision, architecture
    let cases = [
        (false, [2, 2, 2, 2], 64, 1, 11_689_512, "resnet-basic [2,2,2,2]"),
        (false, [3, 4, 6, 3], 64, 1, 21_797_672, "resnet-basic [3,4,6,3]"),
        (true, [3, 4, 6, 3], 64, 1, 25_557_032, "resnet-bottleneck [3,4,6,3]"),
        (true, [3, 4, 23, 3], 64, 1, 44_549_160, "resnet-bottleneck [3,4,23,3]"),
        (true, [3, 8, 36, 3], 64, 1, 60_192_808, "resnet-bottleneck [3,8,36,3]"),
        (true, [3, 4, 6, 3], 128, 1, 68_883_240, "wide-resnet-bottleneck [3,4,6,3]"),
        (true, [3, 4, 23, 3], 128, 1, 126_886_696, "wide-resnet-bottleneck [3,4,23,3]"),
        (true, [3, 4, 6, 3], 4, 32, 25_028_904, "resnext-bottleneck 32x4d [3,4,6,3]"),
        (true, [3, 4, 23, 3], 8, 32, 88_791_336, "resnext-bottleneck 32x8d [3,4,23,3]"),
        (true, [3, 4, 23, 3], 4, 64, 83_455_272, "resnext-bottleneck 64x4d [3,4,23,3]"),
    ];
    for (bottleneck, depths, inner, groups, parameters, architecture) in cases {
        assert_eq!(trained(&resnet(bottleneck, depths, 64, inner, groups, 1000)), parameters, "{architecture}");
        // A sixteenth as wide, with as many groups of as many channels where there are groups.
        let (stem, inner) = if groups == 1 { (4, inner / 16) } else { (4, inner) };
        let groups = groups / 16 + usize::from(groups == 1);
        let layout = resnet(bottleneck, depths, stem, inner, groups, 7);
        let model = loaded(&layout);
        let expected = architecture.replace("32x", "2x").replace("64x", "4x");
        assert_eq!(model.architecture(), expected);
        assert_eq!(model.unfolded().parameters(), trained(&layout), "{architecture}");
        assert_eq!(stage_planes(&model), [56, 28, 14, 7]);
        let names: Vec<String> = stages(&model).into_iter().map(|s| s.0).collect();
        assert_eq!(names, ["layer1", "layer2", "layer3", "layer4"]);
        let graph = model.graph(model.default_input()).unwrap();
        let adds = graph.nodes().iter().filter(|n| matches!(n.op, Op::Add)).count();
        assert_eq!(adds, depths.iter().sum::<usize>());
        // The stride of a bottleneck is in its second convolution.
        let strided = format!("layer2.0.conv{}", if bottleneck { 2 } else { 1 });
        let Op::Conv(conv) = &graph.node(graph.find(&strided).unwrap()).op else { panic!("{strided}") };
        assert_eq!(conv.window.stride, [2, 2]);
    }
}

#[test]
fn alexnet_loads() {
    assert_eq!(trained(&alexnet(1, 1000)), 61_100_840);
    let layout = alexnet(16, 9);
    let model = loaded(&layout);
    assert_eq!(model.architecture(), "alexnet");
    assert_eq!(model.unfolded().parameters(), trained(&layout));
    assert_eq!(
        stages(&model),
        [
            ("stage1".into(), "features.1".into(), [4, 55, 55]),
            ("stage2".into(), "features.4".into(), [12, 27, 27]),
            ("stage3".into(), "features.11".into(), [16, 13, 13]),
        ]
    );
}

#[test]
fn efficientnet_lite_0_to_4() {
    let cases = [
        ([1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320], 224, 4_652_008),
        ([1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320], 240, 5_416_680),
        ([1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352], 260, 6_092_072),
        ([1, 3, 3, 5, 5, 6, 1], [24, 32, 48, 96, 136, 232, 384], 280, 8_197_096),
        ([1, 4, 4, 6, 6, 8, 1], [24, 32, 56, 112, 160, 272, 448], 300, 13_006_568),
    ];
    for (i, (depths, widths, side, parameters)) in cases.into_iter().enumerate() {
        assert_eq!(trained(&lite(depths, widths, 1280, 6, 1000)), parameters, "the layout is timm's");
        let layout = lite(depths, widths, 24, 1, 5);
        let model = loaded(&layout);
        assert_eq!(model.architecture(), format!("efficientnet-lite{i}"));
        assert_eq!(model.default_input(), Shape::new(3, side, side));
        assert_eq!((model.preprocess().resize, model.preprocess().crop), (side + 32, [side; 2]));
        assert_eq!(model.unfolded().parameters(), trained(&layout));
        let planes = stage_planes(&model);
        let halves: Vec<usize> = (1..=5).map(|k| side.div_ceil(1 << k)).collect();
        assert_eq!(planes, halves);
        assert_eq!(stages(&model)[4].1, "relu2");
    }
    let odd = file(&filled(&lite([1, 1, 2, 1, 1, 1, 1], [8, 8, 8, 8, 8, 8, 8], 8, 2, 3)));
    let model = Model::from_bytes("net", Arc::new(odd), Some("efficientnet-lite")).unwrap();
    assert_eq!(model.architecture(), "efficientnet-lite [1,1,2,1,1,1,1]");
    let graph = model.graph(model.default_input()).unwrap();
    // Only equal channels at stride one are skipped: blocks.2.1, and the first blocks of stages 4 and 6.
    let adds: Vec<&str> = graph.nodes().iter().filter(|n| matches!(n.op, Op::Add)).map(|n| n.name.as_str()).collect();
    assert_eq!(adds, ["blocks.2.1.add", "blocks.4.0.add", "blocks.6.0.add"]);
    let Op::Conv(depthwise) = &graph.node(graph.find("blocks.2.0.conv_dw").unwrap()).op else { panic!() };
    assert_eq!((depthwise.groups, depthwise.window.stride), (16, [2, 2]));
    assert_eq!((depthwise.window.kernel, depthwise.window.padding), ([5, 5], Padding::Same));
}

/// MobileNetV2, MNASNet, Single-Path NAS and FBNet have a Lite's names, and other activations or padding.
#[test]
fn families_with_the_names_of_a_lite_are_not_taken_for_one() {
    for (depths, name) in [
        ([1, 3, 3, 3, 2, 4, 1], "mnasnet_100"),
        ([1, 3, 4, 4, 4, 4, 1], "fbnetc_100"),
        ([1, 2, 2, 3, 3, 4, 2], "depths"),
    ] {
        let bytes = file(&filled(&lite(depths, [8; 7], 8, 1, 3)));
        says(&refused(bytes.clone()), &[name, "--arch efficientnet-lite", "--arch timm-efficientnet-lite"]);
        Model::from_bytes("net", Arc::new(bytes), Some("efficientnet-lite")).unwrap();
    }
    // A Lite's depths, and kernels of another net.
    let mut layout = lite([1, 2, 2, 3, 3, 4, 1], [8; 7], 8, 1, 3);
    let kernel = layout.iter_mut().find(|(name, _)| name == "blocks.3.1.conv_dw.weight").unwrap();
    kernel.1[2..].copy_from_slice(&[5, 5]);
    says(&refused(file(&filled(&layout))), &["kernels", "--arch"]);
}

#[test]
fn cifar_resnets_load() {
    for (n, parameters) in [(1, 75_290), (3, 269_722), (9, 853_018)] {
        let layout = cifar(n, [16, 32, 64]);
        assert_eq!(trained(&layout), parameters);
        let model = loaded(&layout);
        assert_eq!(model.architecture(), format!("cifar-resnet{} [{n},{n},{n}]", 6 * n + 2));
        assert_eq!(model.default_input(), Shape::new(3, 32, 32));
        assert_eq!(model.labels().find("Horse").unwrap(), 7);
        assert_eq!(stage_planes(&model), [32, 16, 8]);
        let graph = model.graph(model.default_input()).unwrap();
        let pads: Vec<[usize; 2]> = graph
            .nodes()
            .iter()
            .filter_map(|n| match n.op {
                Op::PadChannels { before, after } => Some([before, after]),
                _ => None,
            })
            .collect();
        assert_eq!(pads, [[8, 8], [16, 16]]);
    }
}

#[test]
fn mlps_load_in_numeric_order() {
    let model = loaded(&mlp(&[784, 12, 11, 10]));
    assert_eq!(model.architecture(), "mlp 784-12-11-10");
    assert_eq!(model.default_input(), Shape::new(1, 28, 28));
    let grey = Preprocess {
        resize: 28,
        crop: [28; 2],
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0],
        std: vec![1.0],
        channels: 1,
    };
    assert_eq!(model.preprocess(), &grey);
    assert_eq!(model.labels().find("7").unwrap(), 7);
    assert_eq!(stages(&model).len(), 2);

    // 0, 2, … 10, 12: alphabetical order would put 10 before 2.
    let model = loaded(&mlp(&[9, 8, 7, 6, 5, 4, 3, 2]));
    assert_eq!(model.architecture(), "mlp 9-8-7-6-5-4-3-2");

    let model = loaded(&mlp(&[7, 5, 3]));
    assert_eq!(model.default_input(), Shape::vector(7));
    assert!(!model.preprocess().takes_pictures());
    assert_eq!(model.labels().get(2), Some("class 2"));

    let named: Layout = [("fc1", 4, 9), ("fc2", 4, 4), ("fc10", 4, 4), ("classifier", 3, 4)]
        .iter()
        .map(|&(n, k, c)| (format!("{n}.weight"), vec![k, c]))
        .collect();
    assert_eq!(loaded(&named).architecture(), "mlp 9-4-4-4-3");

    let unclear: Layout = ["hidden", "output"].iter().map(|n| (format!("{n}.weight"), vec![4, 4])).collect();
    says(&refused(file(&filled(&unclear))), &["order", "'output.weight'"]);

    let broken = refused(file(&filled(&[mlp(&[9, 4]), vec![("2.weight".into(), vec![3, 5])]].concat())));
    says(&broken, &["'2.weight'", "[3, 5]", "[*, 4]"]);
}

#[cfg(feature = "embedded-model")]
#[test]
fn embedded_model_is_what_its_readme_says() {
    let model = Model::embedded().unwrap();
    assert!(model.assumed(&[]).is_empty() && model.warnings().is_empty(), "everything is known of it");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/efficientnet-lite0.safetensors");
    let file = Model::open(&path, None).unwrap();
    assert!(file.assumed(&[]).is_empty() && file.warnings().is_empty(), "its file is as well known");
    assert_eq!((model.name(), model.architecture()), ("efficientnet-lite0", "efficientnet-lite0"));
    assert_eq!(model.unfolded().parameters(), 4_652_008);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/README.md")).unwrap();
    assert!(readme.contains(model.sha256()));
    assert_eq!(model.preprocess().interpolation, Interpolation::Bicubic);
    assert_eq!(model.labels().get(99), Some("goose"));
    let info = model.info(model.default_input()).unwrap();
    assert_eq!(info.encodings.keys().collect::<Vec<_>>(), [&"f16", &"f32"]);
    // The published figure is 407 million multiplications, classifier included.
    assert!((380_000_000..410_000_000).contains(&info.macs), "{}", info.macs);
}

#[test]
fn architectures_can_be_forced() {
    let bytes: Bytes = Arc::new(file(&filled(&mlp(&[4, 3]))));
    for known in ARCHITECTURES {
        let forced = Model::from_bytes("net", bytes.clone(), Some(known.name));
        match known.name {
            "mlp" => assert_eq!(forced.unwrap().architecture(), "mlp 4-3"),
            _ => says(&forced.unwrap_err().to_string(), &["tensor '", "missing"]),
        }
    }
    let error = Model::from_bytes("net", bytes, Some("transformer")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
    says(&error.to_string(), &["transformer", "cifar-resnet", "efficientnet-lite"]);
    let strange: Layout = vec![("encoder.0.attention.weight".into(), vec![2, 2, 2])];
    says(&refused(file(&filled(&strange))), &["encoder.0.attention.weight", "no known architecture", "alexnet"]);
}

#[test]
fn dumps_name_every_node() {
    let model = Model::open(&golden("resnext"), None).unwrap();
    let graph = model.unfolded();
    let text = graph.dump(Dump::Text);
    let dot = graph.dump(Dump::Dot);
    let json: serde_json::Value = serde_json::from_str(&graph.dump(Dump::Json)).unwrap();
    for (i, node) in graph.nodes().iter().enumerate() {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(&node.name)));
        says(&dot, &[&format!("n{i} [label=\"{}", node.name)]);
        assert_eq!(json["nodes"][i]["name"], node.name.as_str());
    }
    says(&text, &["conv 3x3 / 2, groups 4", "max_pool 3x3 / 2", "layer4", "163761"]);
    assert_eq!(json["parameters"], 163_761);
    assert_eq!(json["stages"][3]["node"], "layer4.0.relu3");
    assert_eq!(json["nodes"][1]["attributes"]["padding"], serde_json::json!([[3, 3], [3, 3]]));
    assert_eq!(dot.matches(" -> ").count(), graph.nodes().iter().map(|n| n.inputs.len()).sum::<usize>());
}

#[needs::shared_data]
#[test]
fn trained_nets_load() {
    let data = Path::new(DATA.unwrap());
    let cases = [
        ("cifar10-resnet20", "cifar-resnet20 [3,3,3]", 269_722),
        ("cifar10-resnet56", "cifar-resnet56 [9,9,9]", 853_018),
        ("mnist-mlp-1024x3", "mlp 784-1024-1024-1024-10", 2_913_290),
    ];
    for (name, architecture, parameters) in cases {
        let model = Model::open(&data.join(format!("{name}.safetensors")), None).unwrap();
        assert_eq!((model.name(), model.architecture()), (name, architecture));
        assert_eq!(model.unfolded().parameters(), parameters);
        assert_eq!(model.classes(), 10);
    }
}

#[test]
fn blueprints_are_the_nets_of_their_origin() {
    let check = |net: &str, layout: Layout| {
        let mut found: Layout = blueprint(net).unwrap().into_iter().map(|t| (t.name, t.shape)).collect();
        let mut expected = layout;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{net}");
    };
    for ((cfg, ..), depth) in VGG.into_iter().zip([11, 13, 16, 19]) {
        check(&format!("vgg{depth}"), vgg(cfg, false, 1, 4096, 1000));
        check(&format!("vgg{depth}_bn"), vgg(cfg, true, 1, 4096, 1000));
    }
    check("alexnet", alexnet(1, 1000));
    check("resnet18", resnet(false, [2, 2, 2, 2], 64, 64, 1, 1000));
    check("resnet34", resnet(false, [3, 4, 6, 3], 64, 64, 1, 1000));
    check("resnet50", resnet(true, [3, 4, 6, 3], 64, 64, 1, 1000));
    check("resnet152", resnet(true, [3, 8, 36, 3], 64, 64, 1, 1000));
    check("wide_resnet101_2", resnet(true, [3, 4, 23, 3], 64, 128, 1, 1000));
    check("resnext50_32x4d", resnet(true, [3, 4, 6, 3], 64, 4, 32, 1000));
    check("resnext101_32x8d", resnet(true, [3, 4, 23, 3], 64, 8, 32, 1000));
    check("resnext101_64x4d", resnet(true, [3, 4, 23, 3], 64, 4, 64, 1000));
    check("resnet8", cifar(1, [16, 32, 64]));
    check("resnet56", cifar(9, [16, 32, 64]));
    check("efficientnet-lite4", lite([1, 4, 4, 6, 6, 8, 1], [24, 32, 56, 112, 160, 272, 448], 1280, 6, 1000));
    check("mlp", mlp(&[784, 1024, 1024, 1024, 10]));
    known_nets().into_iter().for_each(|net| assert!(!blueprint(net).unwrap().is_empty()));
    says(&blueprint("vgg12").unwrap_err().to_string(), &["vgg12", "vgg11", "efficientnet-lite4"]);
}

/// The file of a published net with drawn weights, with or without what `more` adds.
pub(crate) fn published(net: &str, more: &[(&str, &[usize])]) -> Vec<u8> {
    let mut layout: Layout = blueprint(net).unwrap().into_iter().map(|t| (t.name, t.shape)).collect();
    layout.extend(more.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())));
    file(&filled(&layout))
}

#[test]
fn files_of_one_family_are_never_taken_for_another() {
    let mut families = std::collections::BTreeSet::new();
    for net in known_nets() {
        let numbers: usize = blueprint(net).unwrap().iter().map(|t| t.shape.iter().product::<usize>()).sum();
        // The large nets of a family have the same names as its small ones.
        if numbers > 12_000_000 && net != "inception_v3" && net != "convnext_tiny" {
            continue;
        }
        let bytes = published(net, &[]);
        let model = load(bytes.clone()).unwrap();
        let config = format!(r#"{{"architecture": "{net}"}}"#);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        // The published name says the same; those of the Lites are timm's.
        if !net.starts_with("efficientnet-lite") && net != "mlp" {
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            let told = Model::open(&path, None).unwrap();
            assert_eq!(told.architecture(), model.architecture(), "{net}");
            assert!(told.assumed(&[]).iter().all(|a| a.starts_with("preparation") || a.starts_with("class")), "{net}");
        }
        assert!(!model.assumed(&[]).is_empty(), "{net}");
        // Every other family refuses the file, even if it is forced.
        let mut readers = 0;
        for family in ARCHITECTURES {
            match Model::from_bytes("net", Arc::new(bytes.clone()), Some(family.name)) {
                Ok(read) => {
                    readers += 1;
                    let same = read.architecture().trim_start_matches("timm-") == model.architecture();
                    assert!(same, "{net} is read as {}", read.architecture());
                    families.insert(family.name);
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Model, "{net} as {}: {e}", family.name),
            }
        }
        assert_eq!(readers, if net.starts_with("efficientnet-lite") { 2 } else { 1 }, "{net}");
    }
    let unread: Vec<_> = ARCHITECTURES.iter().filter(|f| !families.contains(f.name)).map(|f| f.name).collect();
    let large = ["vgg", "alexnet"];
    // Nothing is drawn of these: tests/names.rs reads files of them.
    let undrafted = [
        "timm-mobile",
        "tf-mobile",
        "mobilenet-v1",
        "transformers-efficientnet",
        "ghostnet",
        "dla",
        "vovnet",
        "repvgg",
        "lenet",
    ];
    assert_eq!(unread, [&large[..], &undrafted].concat());
}

#[test]
fn auxiliary_classifiers_are_left_out() {
    for (net, prefix) in [("googlenet", "aux1"), ("googlenet", "aux2"), ("inception_v3", "AuxLogits")] {
        let names =
            ["conv0.conv.weight", "conv0.bn.num_batches_tracked", "fc.bias"].map(|part| format!("{prefix}.{part}"));
        let more: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[4, 3][..])).collect();
        let model = load(published(net, &more)).unwrap();
        assert_eq!(model.unfolded().parameters(), load(published(net, &[])).unwrap().unfolded().parameters());
        assert!(model.assumed(&[]).contains(&"preparation: levels from -1 to 1".to_string()));
        says(&refused(published(net, &[("other.weight", &[4, 3])])), &["other.weight", "order"]);
        says(&refused(published(net, &[("other.scale", &[4])])), &["other.scale", "no place"]);
    }
    let model = load(published("mobilenet_v2", &[("aux1.conv.weight", &[4, 3])])).unwrap();
    says(&model.warnings()[0], &["aux1.conv.weight", "left out"]);
}
