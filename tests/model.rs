//! Weights files: every architecture is recognised, every damaged file is refused with a sentence that helps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verilume::graph::{Bytes, Dump, Op};
use verilume::image::{Interpolation, Preprocess};
use verilume::model::{ARCHITECTURES, Labels, Model, Setting, blueprint, known_nets};
use verilume::tensor::{Padding, Shape};
use verilume::{Error, ErrorKind};

/// Folder of the data that is not part of the repository.
const DATA: Option<&str> = option_env!("VERILUME_TEST_DATA");

/// Names and shapes of a weights file.
type Layout = Vec<(String, Vec<usize>)>;

#[derive(Clone)]
struct Tensor {
    dtype: &'static str,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// A safetensors file, written by hand so that it can be wrong.
fn file(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, t) in tensors {
        let from = data.len();
        data.extend_from_slice(&t.data);
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [from, data.len()] }),
        );
    }
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

/// Weights for a layout: variances of one, all else small multiples of a hash, as f32.
fn filled(layout: &Layout) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for (name, shape) in layout {
        let n: usize = shape.iter().product();
        let value = |i: usize| if name.ends_with("running_var") { 1.0f32 } else { ((i * 37) % 101) as f32 / 512.0 };
        let data = (0..n).flat_map(|i| value(i).to_le_bytes()).collect();
        assert!(
            tensors.insert(name.clone(), Tensor { dtype: "F32", shape: shape.clone(), data }).is_none(),
            "{name} twice"
        );
    }
    tensors
}

fn load(bytes: Vec<u8>) -> Result<Model, Error> {
    let bytes: Bytes = Arc::new(bytes);
    Model::from_bytes("net", bytes, None)
}

fn loaded(layout: &Layout) -> Model {
    load(file(&filled(layout))).unwrap()
}

/// The error of a file that must be refused; it names the file and is the model's fault.
fn refused(bytes: Vec<u8>) -> String {
    let error = load(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    assert!(error.to_string().starts_with("net: "), "{error}");
    error.to_string()
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small").join(format!("{name}.weights.safetensors"))
}

fn conv(layout: &mut Layout, name: &str, shape: [usize; 4]) {
    layout.push((format!("{name}.weight"), shape.to_vec()));
}

fn norm(layout: &mut Layout, name: &str, channels: usize) {
    for kind in ["weight", "bias", "running_mean", "running_var"] {
        layout.push((format!("{name}.{kind}"), vec![channels]));
    }
}

fn linear(layout: &mut Layout, name: &str, k: usize, c: usize) {
    layout.push((format!("{name}.weight"), vec![k, c]));
    layout.push((format!("{name}.bias"), vec![k]));
}

/// torchvision's VGG with widths divided by `thin`; `0` in `cfg` is a pool.
fn vgg(cfg: &[usize], batch_norm: bool, thin: usize, hidden: usize, classes: usize) -> Layout {
    let (mut layout, mut index, mut c) = (Layout::new(), 0, 3);
    for &v in cfg {
        if v == 0 {
            index += 1;
            continue;
        }
        let k = v / thin;
        conv(&mut layout, &format!("features.{index}"), [k, c, 3, 3]);
        layout.push((format!("features.{index}.bias"), vec![k]));
        if batch_norm {
            norm(&mut layout, &format!("features.{}", index + 1), k);
        }
        index += if batch_norm { 3 } else { 2 };
        c = k;
    }
    linear(&mut layout, "classifier.0", hidden, c * 49);
    linear(&mut layout, "classifier.3", hidden, hidden);
    linear(&mut layout, "classifier.6", classes, hidden);
    layout
}

/// torchvision's `_make_layer` for stem width `stem`, `width_per_group` and `groups`.
fn resnet(bottleneck: bool, depths: [usize; 4], stem: usize, inner: usize, groups: usize, classes: usize) -> Layout {
    let mut layout = Layout::new();
    conv(&mut layout, "conv1", [stem, 3, 7, 7]);
    norm(&mut layout, "bn1", stem);
    let mut c = stem;
    for (i, &depth) in depths.iter().enumerate() {
        let planes = stem << i;
        for j in 0..depth {
            let name = format!("layer{}.{j}", i + 1);
            let out = if bottleneck { planes * 4 } else { planes };
            let width = (inner << i) * groups;
            let shapes = if bottleneck {
                vec![[width, c, 1, 1], [width, width / groups, 3, 3], [out, width, 1, 1]]
            } else {
                vec![[out, c, 3, 3], [out, out, 3, 3]]
            };
            for (n, shape) in shapes.into_iter().enumerate() {
                conv(&mut layout, &format!("{name}.conv{}", n + 1), shape);
                norm(&mut layout, &format!("{name}.bn{}", n + 1), shape[0]);
            }
            if j == 0 && (i > 0 || c != out) {
                conv(&mut layout, &format!("{name}.downsample.0"), [out, c, 1, 1]);
                norm(&mut layout, &format!("{name}.downsample.1"), out);
            }
            c = out;
        }
    }
    linear(&mut layout, "fc", classes, c);
    layout
}

fn alexnet(thin: usize, classes: usize) -> Layout {
    let mut layout = Layout::new();
    let convs = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)];
    for (index, k, c, side) in convs {
        let (k, c) = (k / thin, if c == 3 { 3 } else { c / thin });
        conv(&mut layout, &format!("features.{index}"), [k, c, side, side]);
        layout.push((format!("features.{index}.bias"), vec![k]));
    }
    linear(&mut layout, "classifier.1", 4096 / thin, 256 / thin * 36);
    linear(&mut layout, "classifier.4", 4096 / thin, 4096 / thin);
    linear(&mut layout, "classifier.6", classes, 4096 / thin);
    layout
}

fn lite(depths: [usize; 7], widths: [usize; 7], head: usize, expansion: usize, classes: usize) -> Layout {
    let mut layout = Layout::new();
    let kernels = [3, 3, 5, 3, 5, 5, 3];
    conv(&mut layout, "conv_stem", [32, 3, 3, 3]);
    norm(&mut layout, "bn1", 32);
    let mut c = 32;
    for s in 0..7 {
        for b in 0..depths[s] {
            let (name, k, side) = (format!("blocks.{s}.{b}"), widths[s], kernels[s]);
            if s == 0 {
                conv(&mut layout, &format!("{name}.conv_dw"), [c, 1, side, side]);
                norm(&mut layout, &format!("{name}.bn1"), c);
                conv(&mut layout, &format!("{name}.conv_pw"), [k, c, 1, 1]);
                norm(&mut layout, &format!("{name}.bn2"), k);
            } else {
                let wide = c * expansion;
                conv(&mut layout, &format!("{name}.conv_pw"), [wide, c, 1, 1]);
                norm(&mut layout, &format!("{name}.bn1"), wide);
                conv(&mut layout, &format!("{name}.conv_dw"), [wide, 1, side, side]);
                norm(&mut layout, &format!("{name}.bn2"), wide);
                conv(&mut layout, &format!("{name}.conv_pwl"), [k, wide, 1, 1]);
                norm(&mut layout, &format!("{name}.bn3"), k);
            }
            c = k;
        }
    }
    conv(&mut layout, "conv_head", [head, c, 1, 1]);
    norm(&mut layout, "bn2", head);
    linear(&mut layout, "classifier", classes, head);
    layout
}

fn cifar(n: usize, widths: [usize; 3]) -> Layout {
    let mut layout = Layout::new();
    conv(&mut layout, "conv1", [widths[0], 3, 3, 3]);
    norm(&mut layout, "bn1", widths[0]);
    let mut c = widths[0];
    for (i, &k) in widths.iter().enumerate() {
        for j in 0..n {
            let name = format!("layer{}.{j}", i + 1);
            for (m, c) in [(1, c), (2, k)] {
                conv(&mut layout, &format!("{name}.conv{m}"), [k, c, 3, 3]);
                norm(&mut layout, &format!("{name}.bn{m}"), k);
            }
            c = k;
        }
    }
    linear(&mut layout, "linear", 10, c);
    layout
}

fn mlp(widths: &[usize]) -> Layout {
    let mut layout = Layout::new();
    for (i, pair) in widths.windows(2).enumerate() {
        linear(&mut layout, &(2 * i).to_string(), pair[1], pair[0]);
    }
    layout
}

/// Trained numbers of a layout: what PyTorch counts as parameters.
fn trained(layout: &Layout) -> usize {
    layout.iter().filter(|(name, _)| !name.contains(".running_")).map(|(_, s)| s.iter().product::<usize>()).sum()
}

fn stages(model: &Model) -> Vec<(String, String, [usize; 3])> {
    let graph = model.graph(model.default_input()).unwrap();
    let stage = |(name, id): &(String, _)| {
        let node = graph.node(*id);
        (name.clone(), node.name.clone(), node.shape.dims())
    };
    graph.stages().iter().map(stage).collect()
}

fn stage_planes(model: &Model) -> Vec<usize> {
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

const VGG: [(&[usize], usize, usize); 4] = [
    (&[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0], 8, 132_863_336),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0], 10, 133_047_848),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0], 13, 138_357_544),
    (&[64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0], 16, 143_667_240),
];

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
    for name in ["resnetblur18", "resnetaa50", "mobilenetv4_conv_small"] {
        says(
            &refusal(&format!(r#"{{"architecture": "{name}"}}"#)),
            &["model.safetensors", "config.json", name, "--arch"],
        );
    }
    let transformers = r#"{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}"#;
    says(&refusal(transformers), &["ResNetForImageClassification", "--arch"]);
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

fn small_resnet() -> BTreeMap<String, Tensor> {
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
fn hostile_files_are_refused() {
    let good = file(&small_resnet());
    for cut in [1, 7, 8, 9, 100, good.len() / 2, good.len() - 1] {
        refused(good[..cut].to_vec());
    }
    says(&refused(good[..good.len() - 1].to_vec()), &["truncated"]);
    says(&refused([&good[..], &[0]].concat()), &["surplus bytes"]);
    says(&refused(Vec::new()), &["empty"]);
    refused(vec![0; 64]);
    refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec());
    refused((0..997u32).map(|i| (i * 31 % 251) as u8).collect());
    says(&refused(b"PK\x03\x04archive/data.pkl".to_vec()), &["pickled"]);
    says(&refused([&u64::MAX.to_le_bytes()[..], b"{}"].concat()), &["header"]);
    says(&refused([&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()), &["header"]);
    says(&refused(with_header("{}", &[])), &["no tensors"]);
    refused(with_header("[]", &[]));
    refused(with_header("{\"a\": 1}", &[]));
    refused(with_header("{\"a\": {\"dtype\": \"F32\"", &[]));
    refused(with_header(&"[".repeat(1 << 16), &[]));
    refused(with_header(&format!("{{\"a\":{}", "{\"a\":".repeat(1 << 16)), &[]));
    let one = |dtype: &str, shape: &str, from: u64, to: u64, data: usize| {
        let tensor = format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}");
        refused(with_header(&format!("{{\"0.weight\":{tensor}}}"), &vec![0; data]))
    };
    one("F32", "[2,2]", 0, 8, 8);
    one("F32", "[2,2]", 4, 20, 20);
    one("F32", "[2,2]", 16, 0, 16);
    one("F32", "[2,2]", 0, u64::MAX, 16);
    one("F32", "[18446744073709551615,18446744073709551615]", 0, 4, 4);
    one("F32", "[4611686018427387904,4]", 0, 0, 0);
    one("F32", "[-1,4]", 0, 4, 4);
    one("F32", "[1e30,4]", 0, 4, 4);
    one("F8_E4M3", "[2,2]", 0, 4, 4);
    one("Q7", "[2,2]", 0, 4, 4);
    says(&one("F32", "[0,4]", 0, 0, 0), &["'0.weight'", "[0, 4]"]);
    says(&one("F32", "[4,0]", 0, 0, 0), &["'0.weight'"]);
    one("F32", "[0,0]", 0, 0, 0);
    says(&one("I64", "[2,2]", 0, 32, 32), &["I64"]);
    // Offsets whose sum with the header's length overflows.
    let huge = 1u64 << 61;
    let tensors: Vec<String> = (0..7)
        .map(|i| {
            format!(
                "\"{i}.weight\":{{\"dtype\":\"U8\",\"shape\":[{huge}],\"data_offsets\":[{},{}]}}",
                i * huge,
                (i + 1) * huge
            )
        })
        .collect();
    refused(with_header(&format!("{{{}}}", tensors.join(",")), &[0; 8]));
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

#[test]
fn paths_that_are_no_weights_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = Model::open(folder.path(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    says(&error.to_string(), &["folder", folder.path().to_str().unwrap()]);
    let absent = folder.path().join("absent.safetensors");
    assert_eq!(Model::open(&absent, None).unwrap_err().kind(), ErrorKind::Io);
    let empty = folder.path().join("empty.safetensors");
    std::fs::write(&empty, []).unwrap();
    let error = Model::open(&empty, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    says(&error.to_string(), &["empty.safetensors", "the file is empty"]);
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
fn labels_are_found_by_name_and_synonym() {
    let labels = Labels::for_pictures(1000);
    assert_eq!(labels.len(), 1000);
    assert_eq!(labels.find("tabby").unwrap(), 281);
    assert_eq!(labels.find("Great_White  SHARK").unwrap(), 2);
    let miss = labels.find("golden retreiver").unwrap_err();
    assert_eq!(miss.kind(), ErrorKind::Settings);
    says(&miss.to_string(), &["golden retreiver", "golden retriever"]);
    says(&labels.find("terrier").unwrap_err().to_string(), &["toy terrier"]);
    assert!(labels.find("").is_err());
    assert!(labels.find(&"x".repeat(1 << 20)).is_err());
    assert_eq!(Labels::numbered(20).find("class 17").unwrap(), 17);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.txt");
    std::fs::write(&path, "tench, Tinca tinca\r\nCrane\ncrane, heron\n\n").unwrap();
    let labels = Labels::from_file(&path, 3).unwrap();
    assert_eq!(labels.find("tinca TINCA").unwrap(), 0);
    assert_eq!(labels.find("Crane").unwrap(), 1);
    assert_eq!(labels.find("heron").unwrap(), 2);
    says(&Labels::from_file(&path, 4).unwrap_err().to_string(), &["labels.txt", "3 names", "4 classes"]);
    std::fs::write(&path, "a\n\nA").unwrap();
    says(&Labels::from_file(&path, 3).unwrap_err().to_string(), &["line 2"]);
    std::fs::write(&path, "A\nA").unwrap();
    says(&Labels::from_file(&path, 2).unwrap().find("a").unwrap_err().to_string(), &["0 and 1"]);

    let mut model = loaded(&mlp(&[4, 3]));
    assert!(model.set_labels(Labels::numbered(2)).is_err());
    model.set_labels(Labels::numbered(3)).unwrap();
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

#[test]
#[cfg_attr(not(shared_data), ignore = "needs the data that VERILUME_TEST_DATA names")]
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

/// Every operation by its definition, in double precision, one picture at a time.
fn evaluate(graph: &verilume::graph::Graph, input: &[f64]) -> Vec<f64> {
    use verilume::tensor::Window;
    /// For each output position the taps that lie inside the input, as (tap, input position).
    fn taps(window: &Window, x: Shape) -> Vec<Vec<(usize, usize)>> {
        let [h, w] = window.output(x.h, x.w).unwrap();
        let pads = window.pads(x.h, x.w);
        let place = |o: usize, k: usize, axis: usize, n: usize| {
            (o * window.stride[axis] + k * window.dilation[axis]).checked_sub(pads[axis][0]).filter(|&i| i < n)
        };
        let mut all = Vec::new();
        for (oy, ox) in (0..h).flat_map(|oy| (0..w).map(move |ox| (oy, ox))) {
            let mut here = Vec::new();
            for (ky, kx) in (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))) {
                if let (Some(y), Some(z)) = (place(oy, ky, 0, x.h), place(ox, kx, 1, x.w)) {
                    here.push((ky * window.kernel[1] + kx, y * x.w + z));
                }
            }
            all.push(here);
        }
        all
    }
    let mut values: Vec<Vec<f64>> = vec![input.to_vec()];
    for node in &graph.nodes()[1..] {
        let x = &values[node.inputs[0].index()];
        let from = graph.node(node.inputs[0]).shape;
        let plane = |c: usize| &x[c * from.plane()..(c + 1) * from.plane()];
        let bias = |b: &Option<Arc<[f64]>>, k: usize| b.as_ref().map_or(0.0, |b| b[k]);
        let mut y = Vec::with_capacity(node.shape.len());
        match &node.op {
            Op::Conv(conv) => {
                let (weight, taps) = (conv.weight.to_f64(), taps(&conv.window, from));
                let [k, c, kh, kw] = conv.weight.dims();
                for o in 0..k {
                    let first = o / (k / conv.groups) * c;
                    let start = y.len();
                    y.resize(start + taps.len(), bias(&conv.bias, o));
                    for i in 0..c {
                        let (kernel, plane) = (&weight[(o * c + i) * kh * kw..], plane(first + i));
                        for (out, taps) in y[start..].iter_mut().zip(&taps) {
                            *out += taps.iter().map(|&(t, p)| kernel[t] * plane[p]).sum::<f64>();
                        }
                    }
                }
            }
            Op::Linear(linear) => {
                let weight = linear.weight.to_f64();
                for (k, row) in weight.chunks(from.c).enumerate() {
                    y.push(bias(&linear.bias, k) + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
                }
            }
            Op::BatchNorm(norm) => {
                for c in 0..from.c {
                    let scale = norm.gamma[c] / (norm.variance[c] + norm.eps).sqrt();
                    y.extend(plane(c).iter().map(|v| (v - norm.mean[c]) * scale + norm.beta[c]));
                }
            }
            Op::Relu => y.extend(x.iter().map(|v| v.max(0.0))),
            Op::Clamp { lo, hi } => y.extend(x.iter().map(|v| v.clamp(*lo, *hi))),
            Op::MaxPool(window) => {
                let taps = taps(window, from);
                let largest = |plane: &[f64], taps: &[(usize, usize)]| {
                    taps.iter().map(|&(_, p)| plane[p]).fold(f64::NEG_INFINITY, f64::max)
                };
                (0..from.c).for_each(|c| y.extend(taps.iter().map(|t| largest(plane(c), t))));
            }
            Op::AvgPool { window, count_padding } => {
                let taps = taps(window, from);
                // Zeros of a window that reaches beyond the padding do not count; none does here.
                let count = |taps: &[(usize, usize)]| if *count_padding { window.taps() } else { taps.len() } as f64;
                let mean = |plane: &[f64], taps: &[(usize, usize)]| {
                    taps.iter().map(|&(_, p)| plane[p]).sum::<f64>() / count(taps)
                };
                (0..from.c).for_each(|c| y.extend(taps.iter().map(|t| mean(plane(c), t))));
            }
            Op::Concat => node.inputs.iter().for_each(|i| y.extend(&values[i.index()])),
            Op::AdaptiveAvgPool { out: [h, w] } => {
                let bin = |i: usize, n: usize, out: usize| i * n / out..((i + 1) * n).div_ceil(out);
                for (c, oy, ox) in (0..from.c).flat_map(|c| (0..h * w).map(move |o| (c, o / w, o % w))) {
                    let (rows, columns) = (bin(oy, from.h, *h), bin(ox, from.w, *w));
                    let count = (rows.len() * columns.len()) as f64;
                    let sum: f64 = rows.flat_map(|r| plane(c)[r * from.w..][columns.clone()].iter()).sum();
                    y.push(sum / count);
                }
            }
            Op::Add => y.extend(x.iter().zip(&values[node.inputs[1].index()]).map(|(a, b)| a + b)),
            Op::Flatten => y.extend(x),
            Op::Smooth(f) => y.extend(x.iter().map(|v| f.value(*v))),
            Op::Mul => {
                let (other, gate) = (&values[node.inputs[1].index()], graph.node(node.inputs[1]).shape);
                assert_eq!(gate, Shape::vector(from.c), "{}", node.name);
                (0..from.c).for_each(|c| y.extend(plane(c).iter().map(|v| v * other[c])));
            }
            Op::Affine(affine) => {
                let of = |v: &[f64], c: usize| if v.len() == 1 { v[0] } else { v[c] };
                for c in 0..from.c {
                    y.extend(plane(c).iter().map(|v| of(&affine.scale, c) * v + of(&affine.shift, c)));
                }
            }
            Op::Standardise(norm) => {
                assert!(norm.groups == 1 && !norm.across_positions);
                y.resize(x.len(), 0.0);
                for at in 0..from.plane() {
                    let all = || (0..from.c).map(|c| x[c * from.plane() + at]);
                    let mean = all().sum::<f64>() / from.c as f64;
                    let variance = all().map(|v| (v - mean) * (v - mean)).sum::<f64>() / from.c as f64;
                    for c in 0..from.c {
                        let i = c * from.plane() + at;
                        y[i] = (x[i] - mean) / (variance + norm.eps).sqrt();
                    }
                }
            }
            Op::Slice { first, channels } => (*first..first + channels).for_each(|c| y.extend(plane(c))),
            Op::Shuffle { groups } => {
                let columns = from.c / groups;
                (0..from.c).for_each(|o| y.extend(plane(o % groups * columns + o / groups)));
            }
            Op::Subsample { stride: [sy, sx] } => {
                for c in 0..from.c {
                    let rows = (0..from.h).step_by(*sy);
                    y.extend(rows.flat_map(|r| (0..from.w).step_by(*sx).map(move |q| plane(c)[r * from.w + q])));
                }
            }
            Op::PadChannels { before, after } => {
                y.resize(before * from.plane(), 0.0);
                y.extend(x);
                y.resize(y.len() + after * from.plane(), 0.0);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(y.len(), node.shape.len(), "{}", node.name);
        values.push(y);
    }
    values.swap_remove(graph.output().index())
}

/// The first `pictures` logits of a golden file, with batch norms folded and not, against the net read from `model`.
fn answers_as_pytorch(model: &Model, cases: &Path, pictures: usize) {
    let bytes = std::fs::read(cases).unwrap();
    let cases = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> (Vec<usize>, Vec<f64>) {
        let tensor = cases.tensor(name).unwrap();
        let values = tensor.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
        (tensor.shape().to_vec(), values.collect())
    };
    let ((dims, input), (_, logits)) = (read("input"), read("logits"));
    let shape = Shape::new(dims[1], dims[2], dims[3]);
    let folded = model.graph(shape).unwrap();
    let largest = logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0);
    for (x, wanted) in input.chunks(shape.len()).zip(logits.chunks(model.classes())).take(pictures) {
        for graph in [&*folded, &model.unfolded().resized(shape).unwrap()] {
            let found = evaluate(graph, x);
            for (k, (a, b)) in found.iter().zip(wanted).enumerate() {
                assert!((a - b).abs() <= 1e-6 * largest, "{model:?}: logit {k} is {a}, expected {b}");
            }
        }
    }
}

#[test]
fn golden_nets_answer_as_pytorch() {
    for name in ["vgg", "vgg_bn", "resnet_basic", "resnet_bottleneck", "resnext"] {
        let path = golden(name);
        let model = Model::open(&path, None).unwrap();
        answers_as_pytorch(&model, &path.with_file_name(format!("{name}.cases.safetensors")), 3);
    }
}

#[cfg(feature = "embedded-model")]
#[test]
fn embedded_net_answers_as_pytorch() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/real/efficientnet-lite0.cases.safetensors");
    answers_as_pytorch(&Model::embedded().unwrap(), &cases, 1);
}

#[test]
#[cfg_attr(not(shared_data), ignore = "needs the data that VERILUME_TEST_DATA names")]
fn trained_cifar_net_answers_as_pytorch() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::open(&Path::new(DATA.unwrap()).join("cifar10-resnet20.safetensors"), None).unwrap();
    answers_as_pytorch(&model, &root.join("tests/golden/real/cifar10-resnet20.cases.safetensors"), 2);
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
fn published(net: &str, more: &[(&str, &[usize])]) -> Vec<u8> {
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
    assert_eq!(unread, ["vgg", "alexnet", "timm-mobile", "tf-mobile", "mobilenet-v1", "repvgg", "lenet"]);
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

#[test]
fn random_nets_compute_numbers_of_order_one() {
    for (net, architecture) in [
        ("resnet20", "cifar-resnet20 [3,3,3]"),
        ("resnet110", "cifar-resnet110 [18,18,18]"),
        ("mlp", "mlp 784-1024-1024-1024-10"),
        ("efficientnet-lite0", "efficientnet-lite0"),
        ("resnet8", "cifar-resnet8 [1,1,1]"),
        ("mobilenet_v2", "mobilenet-v2"),
        ("densenet121", "densenet [6,12,24,16]"),
        ("squeezenet1_1", "squeezenet 1.1"),
        ("googlenet", "googlenet"),
        ("shufflenet_v2_x1_0", "shufflenet-v2"),
        ("regnet_y_400mf", "regnet-y [1,3,6,6]"),
        ("regnet_x_400mf", "regnet-x [1,2,7,12]"),
        ("mobilenet_v3_small", "mobilenet-v3-small"),
        ("mobilenet_v3_large", "mobilenet-v3-large"),
        ("efficientnet_b0", "efficientnet [1,2,2,3,3,4,1]"),
        ("convnext_tiny", "convnext [3,3,9,3]"),
    ] {
        let model = Model::random(net, 7).unwrap();
        assert_eq!((model.name(), model.architecture()), (net, architecture));
        assert_eq!(model.sha256(), Model::random(net, 7).unwrap().sha256());
        assert_ne!(model.sha256(), Model::random(net, 8).unwrap().sha256());
        let shape = model.default_input();
        let shape = Shape::new(shape.c, shape.h.min(64), shape.w.min(64));
        let input: Vec<f64> = (0..shape.len()).map(|i| ((i * 7919) % 997) as f64 / 300.0 - 1.6).collect();
        let logits = evaluate(&model.graph(shape).unwrap(), &input);
        let size = (logits.iter().map(|v| v * v).sum::<f64>() / logits.len() as f64).sqrt();
        assert!((1e-2..1e2).contains(&size), "{net}: {size}");
    }
}
