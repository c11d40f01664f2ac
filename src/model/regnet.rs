//! RegNet X and Y (Radosavovic 2020) with torchvision's names. Y has gates, X has none.

use super::assembly::{Assembly, ConvSpec, Groups, SIGMOID};
use super::names::Dialect;
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("regnet_y_400mf", "regnet-y [1,3,6,6]"),
    ("regnet_y_800mf", "regnet-y [1,3,8,2]"),
    ("regnet_y_1_6gf", "regnet-y [2,6,17,2]"),
    ("regnet_y_3_2gf", "regnet-y [2,5,13,1]"),
    ("regnet_y_8gf", "regnet-y [2,4,10,1]"),
    ("regnet_y_16gf", "regnet-y [2,4,11,1]"),
    ("regnet_y_32gf", "regnet-y [2,5,12,1]"),
    ("regnet_x_400mf", "regnet-x [1,2,7,12]"),
    ("regnet_x_800mf", "regnet-x [1,3,7,5]"),
    ("regnet_x_1_6gf", "regnet-x [2,4,10,2]"),
    ("regnet_x_3_2gf", "regnet-x [2,6,15,2]"),
    ("regnet_x_8gf", "regnet-x [2,5,15,1]"),
    ("regnet_x_16gf", "regnet-x [2,6,13,1]"),
    ("regnet_x_32gf", "regnet-x [2,7,13,1]"),
    ("regnetx_002", "regnet-x [1,1,4,7]"),
    ("regnetx_004", "regnet-x [1,2,7,12]"),
    ("regnetx_004_tv", "regnet-x [1,2,7,12]"),
    ("regnetx_006", "regnet-x [1,3,5,7]"),
    ("regnetx_008", "regnet-x [1,3,7,5]"),
    ("regnetx_016", "regnet-x [2,4,10,2]"),
    ("regnetx_032", "regnet-x [2,6,15,2]"),
    ("regnetx_040", "regnet-x [2,5,14,2]"),
    ("regnetx_064", "regnet-x [2,4,10,1]"),
    ("regnetx_080", "regnet-x [2,5,15,1]"),
    ("regnetx_120", "regnet-x [2,5,11,1]"),
    ("regnetx_160", "regnet-x [2,6,13,1]"),
    ("regnetx_320", "regnet-x [2,7,13,1]"),
    ("regnety_002", "regnet-y [1,1,4,7]"),
    ("regnety_004", "regnet-y [1,3,6,6]"),
    ("regnety_006", "regnet-y [1,3,7,4]"),
    ("regnety_008", "regnet-y [1,3,8,2]"),
    ("regnety_008_tv", "regnet-y [1,3,8,2]"),
    ("regnety_016", "regnet-y [2,6,17,2]"),
    ("regnety_032", "regnet-y [2,5,13,1]"),
    ("regnety_040", "regnet-y [2,6,12,2]"),
    ("regnety_064", "regnet-y [2,7,14,2]"),
    ("regnety_080", "regnet-y [2,4,10,1]"),
    ("regnety_080_tv", "regnet-y [2,4,10,1]"),
    ("regnety_120", "regnet-y [2,5,11,1]"),
    ("regnety_160", "regnet-y [2,4,11,1]"),
    ("regnety_320", "regnet-y [2,5,12,1]"),
];

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "timm",
        tells: &["stem.conv.weight", "s1.b1.conv1.conv.weight", "s4.b1.conv1.conv.weight"],
        rules: &[
            ("stem.conv", "stem.0"),
            ("stem.bn", "stem.1"),
            ("s#.b#.conv1.conv", "trunk_output.block{0}.block{0}-{1-1}.f.a.0"),
            ("s#.b#.conv1.bn", "trunk_output.block{0}.block{0}-{1-1}.f.a.1"),
            ("s#.b#.conv2.conv", "trunk_output.block{0}.block{0}-{1-1}.f.b.0"),
            ("s#.b#.conv2.bn", "trunk_output.block{0}.block{0}-{1-1}.f.b.1"),
            ("s#.b#.conv3.conv", "trunk_output.block{0}.block{0}-{1-1}.f.c.0"),
            ("s#.b#.conv3.bn", "trunk_output.block{0}.block{0}-{1-1}.f.c.1"),
            ("s#.b#.se", "trunk_output.block{0}.block{0}-{1-1}.f.se"),
            ("s#.b#.downsample.conv", "trunk_output.block{0}.block{0}-{1-1}.proj.0"),
            ("s#.b#.downsample.bn", "trunk_output.block{0}.block{0}-{1-1}.proj.1"),
        ],
    },
    Dialect {
        name: "transformers",
        tells: &["embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.2.attention.0.weight"],
        rules: &[
            ("embedder.embedder.convolution", "stem.0"),
            ("embedder.embedder.normalization", "stem.1"),
            ("encoder.stages.#.layers.#.layer.0.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.a.0"),
            ("encoder.stages.#.layers.#.layer.0.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.a.1"),
            ("encoder.stages.#.layers.#.layer.1.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.b.0"),
            ("encoder.stages.#.layers.#.layer.1.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.b.1"),
            ("encoder.stages.#.layers.#.layer.2.attention.0", "trunk_output.block{0+1}.block{0+1}-{1}.f.se.fc1"),
            ("encoder.stages.#.layers.#.layer.2.attention.2", "trunk_output.block{0+1}.block{0+1}-{1}.f.se.fc2"),
            ("encoder.stages.#.layers.#.layer.3.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.c.0"),
            ("encoder.stages.#.layers.#.layer.3.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.c.1"),
            ("encoder.stages.#.layers.#.shortcut.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.proj.0"),
            ("encoder.stages.#.layers.#.shortcut.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.proj.1"),
        ],
    },
    Dialect {
        name: "transformers",
        tells: &["embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.2.convolution.weight"],
        rules: &[
            ("embedder.embedder.convolution", "stem.0"),
            ("embedder.embedder.normalization", "stem.1"),
            ("encoder.stages.#.layers.#.layer.0.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.a.0"),
            ("encoder.stages.#.layers.#.layer.0.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.a.1"),
            ("encoder.stages.#.layers.#.layer.1.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.b.0"),
            ("encoder.stages.#.layers.#.layer.1.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.b.1"),
            ("encoder.stages.#.layers.#.layer.2.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.f.c.0"),
            ("encoder.stages.#.layers.#.layer.2.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.f.c.1"),
            ("encoder.stages.#.layers.#.shortcut.convolution", "trunk_output.block{0+1}.block{0+1}-{1}.proj.0"),
            ("encoder.stages.#.layers.#.shortcut.normalization", "trunk_output.block{0+1}.block{0+1}-{1}.proj.1"),
        ],
    },
];

/// A published net: name, blocks and channels of each stage, channels of a group.
pub(super) type Variant = (&'static str, [usize; 4], [usize; 4], usize);

/// Those that are drafted: the small ones.
pub(super) const VARIANTS: [Variant; 6] = [
    ("regnet_y_400mf", [1, 3, 6, 6], [48, 104, 208, 440], 8),
    ("regnet_y_800mf", [1, 3, 8, 2], [64, 144, 320, 784], 16),
    ("regnet_y_1_6gf", [2, 6, 17, 2], [48, 120, 336, 888], 24),
    ("regnet_x_400mf", [1, 2, 7, 12], [32, 64, 160, 400], 16),
    ("regnet_x_800mf", [1, 3, 7, 5], [64, 128, 288, 672], 16),
    ("regnet_x_1_6gf", [2, 4, 10, 2], [72, 168, 408, 912], 24),
];

/// Channels of the stem.
const STEM: usize = 32;

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    // A stem of 7x7 is that of a ResNet whose names transformers gives to both.
    let stem = matches!(tensors.shape("stem.0.weight"), Some([_, _, 3, 3]));
    Ok(stem && tensors.has("trunk_output.block1.block1-0.f.a.0.weight"))
}

/// Name of a block; stages count from 1.
fn block_name(stage: usize, block: usize) -> String {
    format!("trunk_output.block{stage}.block{stage}-{block}")
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, of: (usize, usize, usize, bool)) -> Result<NodeId> {
    let (stride, out, group, gated) = of;
    let mut layer = |part: &str, x, spec, relu| net.conv_012(&format!("{name}.{part}"), x, spec, relu);
    let point = ConvSpec::plain(Some(1), 1).to(out);
    let grouped = ConvSpec { groups: Groups::Inferred(group), ..ConvSpec::plain(Some(3), stride).to(out) };
    let mut y = layer("f.a", x, point, Some(&Op::Relu))?;
    y = layer("f.b", y, grouped, Some(&Op::Relu))?;
    if gated {
        // A quarter of the channels that the block reads.
        let squeezed = (net.channels(x) as f64 / 4.0).round_ties_even() as usize;
        y = net.excited(&format!("{name}.f.se"), y, squeezed, [&Op::Relu, &SIGMOID])?;
    }
    y = net.conv_012(&format!("{name}.f.c"), y, point, None)?;
    let mut shortcut = x;
    if stride != 1 || net.channels(x) != net.channels(y) {
        shortcut = net.conv_012(&format!("{name}.proj"), x, ConvSpec::plain(Some(1), stride).to(out), None)?;
    }
    let sum = net.op(format!("{name}.add"), Op::Add, &[shortcut, y])?;
    net.relu(format!("{name}.activation"), sum)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| VARIANTS.iter().find(|(name, ..)| *name == net));
    let has = |stage, i, part: &str| tensors.has(&format!("{}.f.{part}.weight", block_name(stage, i)));
    let depth = |stage| (0..).take_while(|&i| has(stage, i, "a.0")).count();
    let depths = drafted.map_or_else(|| [1, 2, 3, 4].map(depth), |v| v.1);
    let gated = drafted.map_or_else(|| has(1, 0, "se.fc1"), |v| v.0.contains("_y_"));
    if let Some(empty) = depths.iter().position(|&n| n == 0) {
        let name = block_name(empty + 1, 0);
        return Err(Error::model(format!("tensor '{name}.f.a.0.weight' is missing; expected shape [*, *, 1, 1]")));
    }
    let (widths, group) = drafted.map_or(([0; 4], 1), |v| (v.2, v.3));
    let channels = Assembly::picture_channels(tensors, "stem.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    x = net.conv_012("stem", x, ConvSpec::plain(Some(3), 2).to(STEM), Some(&Op::Relu))?;
    for ((stage, blocks), out) in (1..).zip(depths).zip(widths) {
        for i in 0..blocks {
            let stride = if i == 0 { 2 } else { 1 };
            x = block(&mut net, &block_name(stage, i), x, (stride, out, group, gated))?;
        }
        net.builder.stage(format!("stage{stage}"), x);
    }
    let graph = net.classified("fc", x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let form = format!("regnet-{} [{}]", if gated { "y" } else { "x" }, listed.join(","));
    let assumed = vec!["relu", "strides of torchvision's RegNet", "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::imagenet(channels)))
}
