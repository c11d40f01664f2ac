//! MobileNetV2 (Sandler 2018) with torchvision's names, of any width.

use super::assembly::{Assembly, ConvSpec, Pad, RELU6};
use super::names::Dialect;
use super::tensors::Tensors;
use super::{BuiltNet, preprocess, timm_mobile};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("mobilenet_v2", FORM),
    ("mobilenetv2_035", "mobilenet-v2 [1,2,3,4,3,3,1]"),
    ("mobilenetv2_050", "mobilenet-v2 [1,2,3,4,3,3,1]"),
    ("mobilenetv2_075", "mobilenet-v2 [1,2,3,4,3,3,1]"),
    ("mobilenetv2_100", "mobilenet-v2 [1,2,3,4,3,3,1]"),
    ("mobilenetv2_140", "mobilenet-v2 [1,2,3,4,3,3,1]"),
    ("mobilenetv2_110d", "mobilenet-v2 [1,3,4,5,4,4,1]"),
    ("mobilenetv2_120d", "mobilenet-v2 [1,3,5,6,5,5,1]"),
];

const FORM: &str = "mobilenet-v2";

/// Whose weights are TensorFlow's: padding and batch-norm eps are others.
const TRANSFORMERS: &str = "transformers";

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[Dialect {
    name: TRANSFORMERS,
    tells: &[
        "conv_stem.first_conv.convolution.weight",
        "layer.0.expand_1x1.convolution.weight",
        "conv_1x1.convolution.weight",
    ],
    rules: &[
        ("conv_stem.first_conv.convolution", "features.0.0"),
        ("conv_stem.first_conv.normalization", "features.0.1"),
        ("conv_stem.conv_3x3.convolution", "features.1.conv.0.0"),
        ("conv_stem.conv_3x3.normalization", "features.1.conv.0.1"),
        ("conv_stem.reduce_1x1.convolution", "features.1.conv.1"),
        ("conv_stem.reduce_1x1.normalization", "features.1.conv.2"),
        ("layer.#.expand_1x1.convolution", "features.{0+2}.conv.0.0"),
        ("layer.#.expand_1x1.normalization", "features.{0+2}.conv.0.1"),
        ("layer.#.conv_3x3.convolution", "features.{0+2}.conv.1.0"),
        ("layer.#.conv_3x3.normalization", "features.{0+2}.conv.1.1"),
        ("layer.#.reduce_1x1.convolution", "features.{0+2}.conv.2"),
        ("layer.#.reduce_1x1.normalization", "features.{0+2}.conv.3"),
        ("conv_1x1.convolution", "features.18.0"),
        ("conv_1x1.normalization", "features.18.1"),
    ],
}];

/// Stages: expansion, channels at the end, blocks, stride of the first block.
const STAGES: [[usize; 4]; 7] =
    [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]];

/// Channels of the stem and of the last convolution.
const STEM: usize = 32;
const HEAD: usize = 1280;

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["features.0.0.weight", "features.1.conv.0.0.weight", "features.2.conv.1.0.weight"];
    Ok(names.iter().all(|n| tensors.has(n)) || timm_mobile::is_of(tensors, "mobilenet-v2"))
}

/// Expansion if there is one, depthwise convolution, projection, and the shortcut where shapes allow it.
fn block(
    net: &mut Assembly<'_>,
    name: &str,
    x: NodeId,
    [expansion, out, stride]: [usize; 3],
    pad: Pad,
) -> Result<NodeId> {
    let (mut y, mut next) = (x, 0);
    if expansion > 1 {
        let wide = expansion * net.channels(x);
        y = net.conv_012(&format!("{name}.conv.0"), y, ConvSpec::plain(Some(1), 1).to(wide), Some(&RELU6))?;
        next = 1;
    }
    let depthwise = ConvSpec::plain(Some(3), stride).depthwise(net.channels(y)).padded(pad);
    y = net.conv_012(&format!("{name}.conv.{next}"), y, depthwise, Some(&RELU6))?;
    let [conv, norm] = [1, 2].map(|i| format!("{name}.conv.{}", next + i));
    y = net.conv_norm([&conv, &norm, ""], y, ConvSpec::plain(Some(1), 1).to(out), None)?;
    if stride == 1 && net.channels(x) == net.channels(y) {
        y = net.op(format!("{name}.add"), Op::Add, &[y, x])?;
    }
    Ok(y)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    if timm_mobile::is_of(tensors, "mobilenet-v2") {
        return timm_mobile::build(tensors);
    }
    let channels = Assembly::picture_channels(tensors, "features.0.0.weight");
    let is_tensorflow = tensors.dialect == TRANSFORMERS;
    let (pad, eps) = if is_tensorflow { (Pad::Same, 1e-3) } else { (Pad::Half, 1e-5) };
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), eps);
    let mut x = net.builder.input();
    x = net.conv_012("features.0", x, ConvSpec::plain(Some(3), 2).to(STEM).padded(pad), Some(&RELU6))?;
    let (mut position, mut resolutions) = (1, 0);
    for [expansion, out, blocks, first] in STAGES {
        for i in 0..blocks {
            let stride = if i == 0 { first } else { 1 };
            if stride > 1 {
                resolutions += 1;
                net.builder.stage(format!("stage{resolutions}"), x);
            }
            x = block(&mut net, &format!("features.{position}"), x, [expansion, out, stride], pad)?;
            position += 1;
        }
    }
    x = net.conv_012(&format!("features.{position}"), x, ConvSpec::plain(Some(1), 1).to(HEAD), Some(&RELU6))?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    let graph = net.classified("classifier.1", x)?;
    if is_tensorflow {
        let assumed = vec!["relu6", "strides of MobileNetV2", "padding: TensorFlow's same", "batch-norm eps 1e-3"];
        return Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::symmetric(channels, [224, 256])));
    }
    let assumed = vec!["relu6", "strides and padding of torchvision's MobileNetV2", "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::imagenet(channels)))
}
