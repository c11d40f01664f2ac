//! ResNet (He 2016), Wide-ResNet (Zagoruyko 2016) and ResNeXt (Xie 2017) with torchvision's names.
//!
//! As in torchvision, the stride of a bottleneck is in its 3×3 convolution.

use super::assembly::{Assembly, ConvSpec, Groups};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("resnet18", "resnet-basic [2,2,2,2]"),
    ("resnet34", "resnet-basic [3,4,6,3]"),
    ("resnet26", "resnet-bottleneck [2,2,2,2]"),
    ("resnet50", "resnet-bottleneck [3,4,6,3]"),
    ("resnet101", "resnet-bottleneck [3,4,23,3]"),
    ("resnet152", "resnet-bottleneck [3,8,36,3]"),
    ("resnet200", "resnet-bottleneck [3,24,36,3]"),
    ("wide_resnet50_2", "wide-resnet-bottleneck [3,4,6,3]"),
    ("wide_resnet101_2", "wide-resnet-bottleneck [3,4,23,3]"),
    ("resnext50_32x4d", "resnext-bottleneck 32x4d [3,4,6,3]"),
    ("resnext101_32x4d", "resnext-bottleneck 32x4d [3,4,23,3]"),
    ("resnext101_32x8d", "resnext-bottleneck 32x8d [3,4,23,3]"),
    ("resnext101_32x16d", "resnext-bottleneck 32x16d [3,4,23,3]"),
    ("resnext101_32x32d", "resnext-bottleneck 32x32d [3,4,23,3]"),
    ("resnext101_64x4d", "resnext-bottleneck 64x4d [3,4,23,3]"),
];

/// A published net that can be drafted.
pub(super) struct Variant {
    pub(super) name: &'static str,
    depths: [usize; 4],
    /// Channels within the first layer's bottlenecks, and groups; `None` for basic blocks.
    bottleneck: Option<[usize; 2]>,
}

const fn variant(name: &'static str, depths: [usize; 4], bottleneck: Option<[usize; 2]>) -> Variant {
    Variant { name, depths, bottleneck }
}

pub(super) const VARIANTS: [Variant; 10] = [
    variant("resnet18", [2, 2, 2, 2], None),
    variant("resnet34", [3, 4, 6, 3], None),
    variant("resnet50", [3, 4, 6, 3], Some([64, 1])),
    variant("resnet101", [3, 4, 23, 3], Some([64, 1])),
    variant("resnet152", [3, 8, 36, 3], Some([64, 1])),
    variant("wide_resnet50_2", [3, 4, 6, 3], Some([128, 1])),
    variant("wide_resnet101_2", [3, 4, 23, 3], Some([128, 1])),
    variant("resnext50_32x4d", [3, 4, 6, 3], Some([128, 32])),
    variant("resnext101_32x8d", [3, 4, 23, 3], Some([256, 32])),
    variant("resnext101_64x4d", [3, 4, 23, 3], Some([256, 64])),
];

/// Channels of the first layer's blocks in a published net, and how many times as wide the end of its bottlenecks is.
const WIDTH: usize = 64;
const EXPANSION: usize = 4;

/// A block of a published net, or its number of convolutions in a file.
#[derive(Clone, Copy)]
struct Block {
    convolutions: usize,
    stride: usize,
    /// Channels within the block, and at its end.
    widths: [usize; 2],
    groups: usize,
}

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"].iter().all(|n| tensors.has(n)))
}

/// Number of blocks of a layer.
pub(super) fn depth(tensors: &Tensors, layer: usize) -> usize {
    (0..).take_while(|block| tensors.has(&format!("layer{layer}.{block}.conv1.weight"))).count()
}

/// Convolutions of the residual branch of block `name`: a ReLU between any two, none after the last.
fn branch(net: &mut Assembly<'_>, name: &str, x: NodeId, block: Block) -> Result<NodeId> {
    let Block { convolutions, stride, widths: [inner, end], groups } = block;
    let mut y = x;
    for i in 1..=convolutions {
        let spec = match (convolutions, i) {
            (2, 1) => ConvSpec::plain(None, stride).to(end),
            (2, _) => ConvSpec::plain(None, 1).to(end),
            (_, 2) => ConvSpec { groups: Groups::Inferred(inner / groups), ..ConvSpec::plain(None, stride).to(inner) },
            _ => ConvSpec::plain(Some(1), 1).to(if i == 1 { inner } else { end }),
        };
        y = net.conv(&format!("{name}.conv{i}"), y, spec)?;
        y = net.batch_norm(&format!("{name}.bn{i}"), y)?;
        if i < convolutions {
            y = net.relu(format!("{name}.relu{i}"), y)?;
        }
    }
    Ok(y)
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, block: Block) -> Result<NodeId> {
    let Block { convolutions, stride, widths: [_, end], .. } = block;
    let y = branch(net, name, x, block)?;
    let projection = format!("{name}.downsample.0");
    let projected =
        stride != 1 || net.channels(x) != net.channels(y) || net.tensors.has(&format!("{projection}.weight"));
    let mut shortcut = x;
    if projected {
        shortcut = net.conv(&projection, x, ConvSpec::plain(Some(1), stride).to(end))?;
        shortcut = net.batch_norm(&format!("{name}.downsample.1"), shortcut)?;
    }
    let sum = net.op(format!("{name}.add"), Op::Add, &[y, shortcut])?;
    net.relu(format!("{name}.relu{convolutions}"), sum)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| VARIANTS.iter().find(|v| v.name == net));
    let has_bottlenecks = drafted.map_or_else(|| tensors.has("layer1.0.conv3.weight"), |v| v.bottleneck.is_some());
    let convolutions = if has_bottlenecks { 3 } else { 2 };
    let depths = drafted.map_or_else(|| [1, 2, 3, 4].map(|layer| depth(tensors, layer)), |v| v.depths);
    if let Some(empty) = depths.iter().position(|&n| n == 0) {
        let layer = empty + 1;
        return Err(Error::model(format!(
            "tensor 'layer{layer}.0.conv1.weight' is missing; expected shape [*, *, *, *]"
        )));
    }
    let dims = |name: &str| match tensors.shape(name) {
        Some(&[k, c, _, _]) => (k, c),
        _ => (0, 0),
    };
    let kind = if convolutions == 2 {
        "resnet-basic".to_string()
    } else {
        // Inside, a plain bottleneck is a quarter as wide as at its end.
        let (width, seen) = dims("layer1.0.conv2.weight");
        match (width.checked_div(seen), dims("layer1.0.conv3.weight").0) {
            (Some(groups), _) if groups > 1 => format!("resnext-bottleneck {groups}x{seen}d"),
            (_, end) if width.checked_mul(4) != Some(end) => "wide-resnet-bottleneck".to_string(),
            _ => "resnet-bottleneck".to_string(),
        }
    };
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let architecture = format!("{kind} [{}]", listed.join(","));

    let channels = Assembly::picture_channels(tensors, "conv1.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    // Nets for small pictures use the same names with a 3×3 stem and no pool; they must not be taken for this one.
    x = net.conv("conv1", x, ConvSpec::plain(Some(7), 2).to(WIDTH))?;
    x = net.batch_norm("bn1", x)?;
    x = net.relu("relu", x)?;
    x = net.op("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x])?;
    for (layer, &blocks) in (1..).zip(&depths) {
        for i in 0..blocks {
            let [inner, groups] = drafted.and_then(|v| v.bottleneck).unwrap_or([WIDTH, 1]);
            let end = if has_bottlenecks { EXPANSION * WIDTH } else { WIDTH };
            let of = Block {
                convolutions,
                stride: if layer > 1 && i == 0 { 2 } else { 1 },
                widths: [inner, end].map(|width| width << (layer - 1)),
                groups,
            };
            x = block(&mut net, &format!("layer{layer}.{i}"), x, of)?;
        }
        net.builder.stage(format!("layer{layer}"), x);
    }
    let graph = net.classified("fc", x)?;
    let mut assumed = vec!["relu", "max-pool after the stem", "no dilation", "no anti-aliasing", "batch-norm eps 1e-5"];
    if convolutions == 3 {
        assumed.push("stride in the 3x3 convolution of a bottleneck");
    }
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed,
        preparation: preprocess::imagenet(channels),
        labels: Labels::for_pictures(graph.classes()),
        graph,
    })
}
