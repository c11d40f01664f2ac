//! MobileNetV3 (Howard 2019), large and small, with torchvision's names, of any width.

use super::assembly::{Assembly, ConvSpec, HARD_SIGMOID, HARD_SWISH};
use super::inverted::Inverted;
use super::tensors::Tensors;
use super::{BuiltNet, preprocess, timm_mobile};
use crate::error::Result;
use crate::graph::Op;
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("mobilenet_v3_large", "mobilenet-v3-large"),
    ("mobilenet_v3_small", "mobilenet-v3-small"),
    ("mobilenetv3_large_100", "mobilenet-v3-large [1,2,3,4,2,3,1]"),
    ("mobilenetv3_large_075", "mobilenet-v3-large [1,2,3,4,2,3,1]"),
    ("mobilenetv3_small_100", "mobilenet-v3-small [1,2,3,2,3,1]"),
    ("mobilenetv3_small_075", "mobilenet-v3-small [1,2,3,2,3,1]"),
    ("mobilenetv3_small_050", "mobilenet-v3-small [1,2,3,2,3,1]"),
];

/// A block: side of its kernel, channels inside and at the end, stride; whether it has a gate, and hard-swish in place
/// of ReLU.
type Block = (usize, usize, usize, usize, bool, bool);

struct Size {
    form: &'static str,
    blocks: &'static [Block],
    /// Channels that the head reads.
    ends: usize,
    /// Channels of its hidden linear layer.
    hidden: usize,
}

const SIZES: [Size; 2] = [
    Size {
        form: "mobilenet-v3-large",
        blocks: &[
            (3, 16, 16, 1, false, false),
            (3, 64, 24, 2, false, false),
            (3, 72, 24, 1, false, false),
            (5, 72, 40, 2, true, false),
            (5, 120, 40, 1, true, false),
            (5, 120, 40, 1, true, false),
            (3, 240, 80, 2, false, true),
            (3, 200, 80, 1, false, true),
            (3, 184, 80, 1, false, true),
            (3, 184, 80, 1, false, true),
            (3, 480, 112, 1, true, true),
            (3, 672, 112, 1, true, true),
            (5, 672, 160, 2, true, true),
            (5, 960, 160, 1, true, true),
            (5, 960, 160, 1, true, true),
        ],
        ends: 960,
        hidden: 1280,
    },
    Size {
        form: "mobilenet-v3-small",
        blocks: &[
            (3, 16, 16, 2, true, false),
            (3, 72, 24, 2, false, false),
            (3, 88, 24, 1, false, false),
            (5, 96, 40, 2, true, true),
            (5, 240, 40, 1, true, true),
            (5, 240, 40, 1, true, true),
            (5, 120, 48, 1, true, true),
            (5, 144, 48, 1, true, true),
            (5, 288, 96, 2, true, true),
            (5, 576, 96, 1, true, true),
            (5, 576, 96, 1, true, true),
        ],
        ends: 576,
        hidden: 1024,
    },
];

/// Channels of the stem; the last convolution has this many times the channels that it reads.
const STEM: usize = 16;
const HEAD: usize = 6;

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let last = ["features.12.0.weight", "features.16.0.weight"].iter().any(|n| tensors.has(n));
    let is_torchvision = last && ["features.0.0.weight", "features.1.block.0.0.weight"].iter().all(|n| tensors.has(n));
    Ok(is_torchvision || timm_mobile::is_of(tensors, "mobilenet-v3"))
}

/// Channels of a squeezed signal: a quarter, in steps of eight.
fn squeezed(expanded: usize) -> usize {
    let quarter = expanded / 4;
    let near = (quarter + 4) / 8 * 8;
    if near.max(8) * 10 < quarter * 9 { near + 8 } else { near.max(8) }
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    if timm_mobile::is_of(tensors, "mobilenet-v3") {
        return timm_mobile::build(tensors);
    }
    let is_large = match tensors.drafted() {
        Some(net) => net.ends_with("large"),
        None => tensors.has("features.16.0.weight"),
    };
    let size = &SIZES[usize::from(!is_large)];
    let channels = Assembly::picture_channels(tensors, "features.0.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-3);
    let mut x = net.builder.input();
    x = net.conv_012("features.0", x, ConvSpec::plain(Some(3), 2).to(STEM), Some(&HARD_SWISH))?;
    let mut resolutions = 0;
    for (i, &(kernel, expanded, out, stride, gated, swish)) in (1..).zip(size.blocks) {
        if stride > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        let block = Inverted {
            expanded,
            out,
            kernel,
            stride,
            squeezed: gated.then(|| squeezed(expanded)),
            activation: if swish { &HARD_SWISH } else { &Op::Relu },
            gate: [&Op::Relu, &HARD_SIGMOID],
            expands: i > 1,
        };
        x = block.build(&mut net, &format!("features.{i}"), x)?;
    }
    let head = ConvSpec::plain(Some(1), 1).to(HEAD * net.channels(x));
    x = net.conv_012(&format!("features.{}", size.blocks.len() + 1), x, head, Some(&HARD_SWISH))?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    x = net.pooled(1, x)?;
    let hidden = match net.tensors.shape("classifier.0.weight") {
        Some(&[hidden, inputs]) => hidden * size.ends != inputs * size.hidden,
        _ => false,
    };
    if hidden {
        net.tensors.warn(
            "the hidden layer of the head has not the published net's size, but its activation is taken to be hard-swish all \
             the same; if it is another, the numbers are others",
        );
    }
    x = net.head(x, &[("classifier.0", size.hidden), ("classifier.3", 1000)], &HARD_SWISH)?;
    let graph = net.builder.finish(x)?;
    let assumed = vec!["relu, hard-swish, hard-sigmoid", "no dilation", "batch-norm eps 1e-3"];
    Ok(BuiltNet::of_pictures(graph, size.form, assumed, preprocess::imagenet(channels)))
}
