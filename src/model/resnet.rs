//! ResNet (He 2016), Wide-ResNet (Zagoruyko 2016) and ResNeXt (Xie 2017) with torchvision's names.
//!
//! As in torchvision, the stride of a bottleneck is in its 3×3 convolution. Besides: stems of one 3×3 convolution and three
//! or four layers for small pictures (kuangliu, option B of He 2016), and timm's variants, as far as tensors tell them: stems
//! of three convolutions (C, S, T), shortcuts that average first (D), a convolution for the stem's pool, gates (SE, ECA), and
//! what `resnet_blocks` has for the 3×3 convolution. Also the nets of SENet's authors.

use super::assembly::{Assembly, ConvSpec, Groups, SIGMOID};
use super::names::Dialect;
use super::resnet_blocks::{Middle, along_channels, has_pool_after, hierarchical, selective, split};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, USUALLY_ASSUMED, preprocess};
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
    ("resnet50c", "resnet-bottleneck-c [3,4,6,3]"),
    ("resnet50_v1c", "resnet-bottleneck-c [3,4,6,3]"),
    ("resnet101_v1c", "resnet-bottleneck-c [3,4,23,3]"),
    ("resnet152_v1c", "resnet-bottleneck-c [3,8,36,3]"),
    ("resnet50s", "resnet-bottleneck-c [3,4,6,3]"),
    ("resnet50_v1s", "resnet-bottleneck-c [3,4,6,3]"),
    ("resnet101_v1s", "resnet-bottleneck-c [3,4,23,3]"),
    ("resnet152_v1s", "resnet-bottleneck-c [3,8,36,3]"),
    ("resnet10t", "resnet-basic-d [1,1,1,1]"),
    ("resnet18d", "resnet-basic-d [2,2,2,2]"),
    ("resnet34d", "resnet-basic-d [3,4,6,3]"),
    ("resnet14t", "resnet-bottleneck-d [1,1,1,1]"),
    ("resnet26d", "resnet-bottleneck-d [2,2,2,2]"),
    ("resnet26t", "resnet-bottleneck-d [2,2,2,2]"),
    ("resnet50d", "resnet-bottleneck-d [3,4,6,3]"),
    ("resnet50_v1d", "resnet-bottleneck-d [3,4,6,3]"),
    ("resnet50t", "resnet-bottleneck-d [3,4,6,3]"),
    ("resnet101d", "resnet-bottleneck-d [3,4,23,3]"),
    ("resnet101_v1d", "resnet-bottleneck-d [3,4,23,3]"),
    ("resnet152d", "resnet-bottleneck-d [3,8,36,3]"),
    ("resnet152_v1d", "resnet-bottleneck-d [3,8,36,3]"),
    ("resnet200d", "resnet-bottleneck-d [3,24,36,3]"),
    ("resnext50d_32x4d", "resnext-bottleneck-d 32x4d [3,4,6,3]"),
    ("seresnet18", "se-resnet-basic [2,2,2,2]"),
    ("seresnet34", "se-resnet-basic [3,4,6,3]"),
    ("seresnet50", "se-resnet-bottleneck [3,4,6,3]"),
    ("seresnet101", "se-resnet-bottleneck [3,4,23,3]"),
    ("seresnet152", "se-resnet-bottleneck [3,8,36,3]"),
    ("seresnext50_32x4d", "se-resnext-bottleneck 32x4d [3,4,6,3]"),
    ("seresnext101_32x4d", "se-resnext-bottleneck 32x4d [3,4,23,3]"),
    ("seresnext101_32x8d", "se-resnext-bottleneck 32x8d [3,4,23,3]"),
    ("seresnext101d_32x8d", "se-resnext-bottleneck-d 32x8d [3,4,23,3]"),
    ("seresnext101_64x4d", "se-resnext-bottleneck 64x4d [3,4,23,3]"),
    ("seresnet152d", "se-resnet-bottleneck-d [3,8,36,3]"),
    ("resnetrs50", "se-resnet-bottleneck-d [3,4,6,3]"),
    ("resnetrs101", "se-resnet-bottleneck-d [3,4,23,3]"),
    ("resnetrs152", "se-resnet-bottleneck-d [3,8,36,3]"),
    ("resnetrs200", "se-resnet-bottleneck-d [3,24,36,3]"),
    ("seresnet50t", "se-resnet-bottleneck-d [3,4,6,3]"),
    ("seresnet200d", "se-resnet-bottleneck-d [3,24,36,3]"),
    ("seresnet269d", "se-resnet-bottleneck-d [3,30,48,8]"),
    ("seresnext26d_32x4d", "se-resnext-bottleneck-d 32x4d [2,2,2,2]"),
    ("seresnext26t_32x4d", "se-resnext-bottleneck-d 32x4d [2,2,2,2]"),
    ("resnetrs270", "se-resnet-bottleneck-d [4,29,53,4]"),
    ("resnetrs350", "se-resnet-bottleneck-d [4,36,72,4]"),
    ("resnetrs420", "se-resnet-bottleneck-d [4,44,87,4]"),
    ("ecaresnet26t", "eca-resnet-bottleneck-d [2,2,2,2]"),
    ("ecaresnet50d", "eca-resnet-bottleneck-d [3,4,6,3]"),
    ("ecaresnet50d_pruned", "eca-wide-resnet-bottleneck-d [3,4,6,3]"),
    ("ecaresnet50t", "eca-resnet-bottleneck-d [3,4,6,3]"),
    ("ecaresnetlight", "eca-resnet-bottleneck-d [1,1,11,3]"),
    ("ecaresnet101d", "eca-resnet-bottleneck-d [3,4,23,3]"),
    ("ecaresnet101d_pruned", "eca-wide-resnet-bottleneck-d [3,4,23,3]"),
    ("ecaresnet200d", "eca-resnet-bottleneck-d [3,24,36,3]"),
    ("ecaresnet269d", "eca-resnet-bottleneck-d [3,30,48,8]"),
    ("ecaresnext26t_32x4d", "eca-resnext-bottleneck-d 32x4d [2,2,2,2]"),
    ("ecaresnext50t_32x4d", "eca-resnext-bottleneck-d 32x4d [2,2,2,2]"),
    ("legacy_seresnet18", "senet-basic [2,2,2,2]"),
    ("legacy_seresnet34", "senet-basic [3,4,6,3]"),
    ("legacy_seresnet50", "senet-bottleneck [3,4,6,3]"),
    ("legacy_seresnet101", "senet-bottleneck [3,4,23,3]"),
    ("legacy_seresnet152", "senet-bottleneck [3,8,36,3]"),
    ("legacy_seresnext26_32x4d", "senet-bottleneck [2,2,2,2]"),
    ("legacy_seresnext50_32x4d", "senet-bottleneck [3,4,6,3]"),
    ("legacy_seresnext101_32x4d", "senet-bottleneck [3,4,23,3]"),
    ("legacy_senet154", "senet-bottleneck-c [3,8,36,3]"),
    ("skresnet18", "sknet-basic [2,2,2,2]"),
    ("skresnet34", "sknet-basic [3,4,6,3]"),
    ("skresnext50_32x4d", "sknet-bottleneck [3,4,6,3]"),
    ("res2net50_26w_4s", "res2net-bottleneck [3,4,6,3]"),
    ("res2net50_48w_2s", "res2net-bottleneck [3,4,6,3]"),
    ("res2net50_14w_8s", "res2net-bottleneck [3,4,6,3]"),
    ("res2net50_26w_6s", "res2net-bottleneck [3,4,6,3]"),
    ("res2net50_26w_8s", "res2net-bottleneck [3,4,6,3]"),
    ("res2net101_26w_4s", "res2net-bottleneck [3,4,23,3]"),
    ("res2next50", "res2net-bottleneck [3,4,6,3]"),
    ("res2net50d", "res2net-bottleneck-d [3,4,6,3]"),
    ("res2net101d", "res2net-bottleneck-d [3,4,23,3]"),
    ("resnest14d", "resnest-bottleneck-d [1,1,1,1]"),
    ("resnest26d", "resnest-bottleneck-d [2,2,2,2]"),
    ("resnest50d", "resnest-bottleneck-d [3,4,6,3]"),
    ("resnest50d_4s2x40d", "resnest-bottleneck-d [3,4,6,3]"),
    ("resnest50d_1s4x24d", "resnest-bottleneck-d [3,4,6,3]"),
    ("resnest101e", "resnest-bottleneck-d [3,4,23,3]"),
    ("resnest200e", "resnest-bottleneck-d [3,24,36,3]"),
    ("resnest269e", "resnest-bottleneck-d [3,30,48,8]"),
];

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[
    // kuangliu's pytorch-cifar; akamaster's nets with option B.
    Dialect {
        name: "pytorch-cifar",
        tells: &["conv1.weight", "layer2.0.shortcut.0.weight"],
        rules: &[("*.shortcut", "downsample")],
    },
    Dialect {
        name: "transformers",
        tells: &["embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight"],
        rules: &[
            ("embedder.embedder.convolution", "conv1"),
            ("embedder.embedder.normalization", "bn1"),
            ("encoder.stages.#.layers.#.layer.#.convolution", "layer{0+1}.{1}.conv{2+1}"),
            ("encoder.stages.#.layers.#.layer.#.normalization", "layer{0+1}.{1}.bn{2+1}"),
            ("encoder.stages.#.layers.#.shortcut.convolution", "layer{0+1}.{1}.downsample.0"),
            ("encoder.stages.#.layers.#.shortcut.normalization", "layer{0+1}.{1}.downsample.1"),
        ],
    },
    Dialect {
        name: "nn.Sequential",
        tells: &["0.weight", "1.running_mean", "4.0.conv1.weight", "7.0.conv1.weight"],
        rules: &[("0", "conv1"), ("1", "bn1"), ("4", "layer1"), ("5", "layer2"), ("6", "layer3"), ("7", "layer4")],
    },
    Dialect {
        name: "SKNet",
        tells: &["layer1.0.conv1.bn.weight", "layer1.0.conv2.paths.1.conv.weight"],
        rules: SELECTIVE,
    },
    Dialect {
        name: "SKNet",
        tells: &["layer1.0.conv2.bn.weight", "layer1.0.conv1.paths.1.conv.weight"],
        rules: SELECTIVE,
    },
    // The nets of SENet's authors (Hu 2018), as pretrainedmodels and timm's legacy_… have them.
    Dialect {
        name: SENET,
        tells: &["layer0.conv3.weight", "layer1.0.se_module.fc1.weight"],
        rules: &[
            ("layer0.conv1", "conv1.0"),
            ("layer0.bn1", "conv1.1"),
            ("layer0.conv2", "conv1.3"),
            ("layer0.bn2", "conv1.4"),
            ("layer0.conv3", "conv1.6"),
            ("layer0.bn3", "bn1"),
            ("*.se_module", "se"),
        ],
    },
    Dialect {
        name: SENET,
        tells: &["layer0.conv1.weight", "layer1.0.se_module.fc1.weight"],
        rules: &[("layer0.conv1", "conv1"), ("layer0.bn1", "bn1"), ("*.se_module", "se")],
    },
    // weiaicunzai's pytorch-cifar100.
    Dialect {
        name: "pytorch-cifar100",
        tells: &["conv1.0.weight", "conv2_x.0.residual_function.0.weight"],
        rules: &[
            ("conv1.0", "conv1"),
            ("conv1.1", "bn1"),
            ("conv#_x.#.shortcut", "layer{0-1}.{1}.downsample"),
            ("conv#_x.#.residual_function.0", "layer{0-1}.{1}.conv1"),
            ("conv#_x.#.residual_function.1", "layer{0-1}.{1}.bn1"),
            ("conv#_x.#.residual_function.3", "layer{0-1}.{1}.conv2"),
            ("conv#_x.#.residual_function.4", "layer{0-1}.{1}.bn2"),
            ("conv#_x.#.residual_function.6", "layer{0-1}.{1}.conv3"),
            ("conv#_x.#.residual_function.7", "layer{0-1}.{1}.bn3"),
        ],
    },
];

/// timm's names of a selective kernel: the first path stands for the convolution.
const SELECTIVE: &[(&str, &str)] = &[
    ("*.conv#.conv", "conv{0}"),
    ("*.conv#.bn", "bn{0}"),
    ("*.conv#.paths.0.conv", "conv{0}"),
    ("*.conv#.paths.0.bn", "bn{0}"),
    ("*.conv#.paths.1.conv", "conv{0}b"),
    ("*.conv#.paths.1.bn", "bn{0}b"),
    ("*.conv#.attn", "attn{0}"),
];

/// Its pool has no padding, and a bottleneck with one group has its stride in the first convolution.
const SENET: &str = "SENet";

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
    middle: Middle,
}

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let has_stem = ["conv1.weight", "conv1.0.weight"].iter().any(|n| tensors.has(n));
    // Without layer 4 and shortcuts with weights it is a net for small pictures.
    let told =
        |name: &str| name.starts_with("layer4.") || name.contains(".downsample.") || name.ends_with(".conv3.weight");
    // transformers gives ResNets and RegNets the same names.
    let is_regnet = tensors.dialect == "transformers" && !matches!(tensors.shape("conv1.weight"), Some([_, _, 7, 7]));
    Ok(has_stem && !is_regnet && tensors.has("layer1.0.conv1.weight") && tensors.names().any(told))
}

/// Number of blocks of a layer.
pub(super) fn depth(tensors: &Tensors, layer: usize) -> usize {
    (0..).take_while(|block| tensors.has(&format!("layer{layer}.{block}.conv1.weight"))).count()
}

/// Convolutions of the residual branch of block `name`, with ReLU between them.
fn branch(net: &mut Assembly<'_>, name: &str, x: NodeId, block: Block) -> Result<NodeId> {
    let Block { convolutions, stride, widths: [inner, end], groups, middle } = block;
    let mut y = x;
    // The first of two, the second of three.
    let wide = convolutions - 1;
    let is_caffe = convolutions == 3 && net.tensors.dialect == SENET && {
        let rows = |i: usize, axis: usize| net.tensors.shape(&format!("{name}.conv{i}.weight"))?.get(axis).copied();
        rows(1, 0) == rows(2, 1)
    };
    for i in 1..=convolutions {
        if i == wide && middle != Middle::Plain {
            y = match middle {
                Middle::Selective => selective(net, name, i, y, stride)?,
                Middle::Hierarchical => hierarchical(net, name, y, stride)?,
                _ => split(net, name, y, stride)?,
            };
            continue;
        }
        let [first, second] = if is_caffe { [stride, 1] } else { [1, stride] };
        let spec = match (convolutions, i) {
            (2, 1) => ConvSpec::plain(None, stride).to(end),
            (2, _) => ConvSpec::plain(None, 1).to(end),
            (_, 2) => ConvSpec { groups: Groups::Inferred(inner / groups), ..ConvSpec::plain(None, second).to(inner) },
            (_, 1) => ConvSpec::plain(Some(1), first).to(inner),
            _ => ConvSpec::plain(Some(1), 1).to(end),
        };
        y = net.conv(&format!("{name}.conv{i}"), y, spec)?;
        y = net.batch_norm(&format!("{name}.bn{i}"), y)?;
        // SENet's basic blocks have one before the gate too.
        if i < convolutions || (convolutions == 2 && net.tensors.dialect == SENET) {
            y = net.relu(format!("{name}.relu{i}"), y)?;
        }
    }
    Ok(y)
}

/// The shortcut of block `name` from `x` to `end` channels: `x` itself, a convolution with its norm, or an average over
/// 2×2 positions before one (D), which has position 0.
fn shortcut(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, [end, seen]: [usize; 2]) -> Result<NodeId> {
    let part = |i: usize| format!("{name}.downsample.{i}");
    let has = |net: &Assembly<'_>, i: usize| net.tensors.has(&format!("{}.weight", part(i)));
    if has(net, 2) {
        let mut y = x;
        if stride > 1 {
            // The last position of an odd side is averaged alone.
            let window = Window { ceil: true, ..Window::square(2, stride, 0) };
            y = net.op(part(0), Op::AvgPool { window, count_padding: false }, &[x])?;
        }
        y = net.conv(&part(1), y, ConvSpec::plain(Some(1), 1))?;
        return net.batch_norm(&part(2), y);
    }
    if stride == 1 && net.channels(x) == seen && !has(net, 0) {
        return Ok(x);
    }
    let side = (net.tensors.dialect != SENET).then_some(1);
    let y = net.conv(&part(0), x, ConvSpec::plain(side, stride).to(end))?;
    net.batch_norm(&part(1), y)
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, block: Block) -> Result<NodeId> {
    let Block { convolutions, stride, widths: [_, end], .. } = block;
    let mut y = branch(net, name, x, block)?;
    if net.tensors.has(&format!("{name}.se.fc1.weight")) {
        y = net.excited(&format!("{name}.se"), y, 0, [&Op::Relu, &SIGMOID])?;
    } else if net.tensors.has(&format!("{name}.se.conv.weight")) {
        y = along_channels(net, &format!("{name}.se"), y)?;
    }
    let seen = net.channels(y);
    let shortcut = shortcut(net, name, x, stride, [end, seen])?;
    let sum = net.op(format!("{name}.add"), Op::Add, &[y, shortcut])?;
    let last = if convolutions == 2 && net.tensors.dialect == SENET { 3 } else { convolutions };
    net.relu(format!("{name}.relu{last}"), sum)
}

/// What the stem is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stem {
    /// 7×7 with stride 2, and a pool.
    Wide,
    /// 3×3, three times, the first with stride 2, and a pool.
    Deep,
    /// 3×3, for small pictures.
    Small,
}

/// The stem on `x`, to the first layer's input.
fn stem(net: &mut Assembly<'_>, mut x: NodeId, stem: Stem) -> Result<NodeId> {
    match stem {
        Stem::Wide => x = net.conv("conv1", x, ConvSpec::plain(Some(7), 2).to(WIDTH))?,
        Stem::Small => x = net.conv("conv1", x, ConvSpec::plain(Some(3), 1))?,
        Stem::Deep => {
            for (i, stride) in [(0, 2), (3, 1)] {
                let names = [i, i + 1, i + 2].map(|at| format!("conv1.{at}"));
                x = net.conv_norm(
                    names.each_ref().map(String::as_str),
                    x,
                    ConvSpec::plain(Some(3), stride),
                    Some(&Op::Relu),
                )?;
            }
            x = net.conv("conv1.6", x, ConvSpec::plain(Some(3), 1))?;
        }
    }
    x = net.batch_norm("bn1", x)?;
    x = net.relu("relu", x)?;
    if stem == Stem::Small {
        return Ok(x);
    }
    if net.tensors.has("maxpool.0.weight") {
        return net.conv_012("maxpool", x, ConvSpec::plain(Some(3), 2), Some(&Op::Relu));
    }
    let window = if net.tensors.dialect == SENET {
        Window { ceil: true, ..Window::square(3, 2, 0) }
    } else {
        Window::square(3, 2, 1)
    };
    net.op("maxpool", Op::MaxPool(window), &[x])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| VARIANTS.iter().find(|v| v.name == net));
    let has_bottlenecks = drafted.map_or_else(|| tensors.has("layer1.0.conv3.weight"), |v| v.bottleneck.is_some());
    let convolutions = if has_bottlenecks { 3 } else { 2 };
    let kernel = match tensors.shape("conv1.weight") {
        Some(&[_, _, 3, 3]) => Stem::Small,
        _ if tensors.has("conv1.0.weight") => Stem::Deep,
        _ => Stem::Wide,
    };
    let has_four = kernel != Stem::Small || tensors.names().any(|name| name.starts_with("layer4."));
    let mut depths =
        drafted.map_or_else(|| [1, 2, 3, 4].map(|layer| depth(tensors, layer)).to_vec(), |v| v.depths.to_vec());
    if !has_four {
        depths.truncate(3);
    }
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
    let middle = Middle::of(tensors);
    let is_senet = tensors.dialect == SENET;
    let gates = if is_senet {
        ""
    } else if tensors.has("layer1.0.se.fc1.weight") {
        "se-"
    } else if tensors.has("layer1.0.se.conv.weight") {
        "eca-"
    } else {
        ""
    };
    let frame = if is_senet { "senet" } else { middle.net() };
    let assumed_of_blocks = middle.assumed(tensors);
    let averages = tensors.has("layer2.0.downsample.2.weight");
    let letter = match (kernel, averages) {
        (Stem::Small, _) => "-small",
        (_, true) => "-d",
        (Stem::Deep, false) => "-c",
        (Stem::Wide, false) => "",
    };
    let kind = if convolutions == 2 {
        format!("{gates}{frame}-basic{letter}")
    } else if is_senet || middle != Middle::Plain {
        format!("{gates}{frame}-bottleneck{letter}")
    } else {
        // Inside, a plain bottleneck is a quarter as wide as at its end.
        let (width, seen) = dims("layer1.0.conv2.weight");
        match (width.checked_div(seen), dims("layer1.0.conv3.weight").0) {
            (Some(groups), _) if groups > 1 => format!("{gates}resnext-bottleneck{letter} {groups}x{seen}d"),
            (_, end) if width.checked_mul(4) != Some(end) => format!("{gates}wide-resnet-bottleneck{letter}"),
            _ => format!("{gates}resnet-bottleneck{letter}"),
        }
    };
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let architecture = format!("{kind} [{}]", listed.join(","));

    let is_small = kernel == Stem::Small;
    let first = if kernel == Stem::Deep { "conv1.0.weight" } else { "conv1.weight" };
    let channels = Assembly::picture_channels(tensors, first);
    let side = if is_small { 32 } else { 224 };
    // Those repositories have no other such nets.
    if is_small && has_four && tensors.dialect != "pytorch-cifar" && tensors.dialect != "pytorch-cifar100" {
        tensors.warn(
            "a stem of 3x3 is taken to have stride 1 and no max-pool, as nets for small pictures have it; tensors do not say so: if \
             the net has another stride or a pool there, its numbers are others, and ONNX is the way",
        );
    }
    if middle == Middle::Split && !tensors.told && has_pool_after(tensors) {
        tensors.warn(
            "taken for ResNeSt, which averages after the convolution of a block, but files of ResNeSt-fast have the same names and \
             shapes and average before it: ONNX is the way for those",
        );
    }
    let mut net = Assembly::new(tensors, Shape::new(channels, side, side), 1e-5);
    let mut x = net.builder.input();
    x = stem(&mut net, x, kernel)?;
    for (layer, &blocks) in (1..).zip(&depths) {
        for i in 0..blocks {
            let [inner, groups] = drafted.and_then(|v| v.bottleneck).unwrap_or([WIDTH, 1]);
            let end = if has_bottlenecks { EXPANSION * WIDTH } else { WIDTH };
            let of = Block {
                convolutions,
                stride: if layer > 1 && i == 0 { 2 } else { 1 },
                widths: [inner, end].map(|width| width << (layer - 1)),
                groups,
                middle,
            };
            x = block(&mut net, &format!("layer{layer}.{i}"), x, of)?;
        }
        net.builder.stage(format!("layer{layer}"), x);
    }
    let graph = net.classified("fc", x)?;
    let pool = if is_small { "stride 1 and no max-pool in the stem" } else { "max-pool after the stem" };
    let mut assumed = vec!["relu", pool, USUALLY_ASSUMED, "batch-norm eps 1e-5"];
    if averages {
        assumed.push("average pools before the convolutions of shortcuts");
    }
    if kernel == Stem::Deep {
        assumed.push("stride 2 in the first convolution of the stem");
    }
    match gates {
        "eca-" => assumed.push("sigmoid in gates, zeros beyond the first and last channel"),
        _ if is_senet || gates == "se-" => assumed.push("relu and sigmoid in gates"),
        _ => {}
    }
    assumed.extend(assumed_of_blocks);
    if is_senet {
        assumed.push("no padding in the max-pool, stride in the first convolution of a bottleneck with one group");
    } else if convolutions == 3 && middle == Middle::Plain {
        assumed.push("stride in the 3x3 convolution of a bottleneck");
    }
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed,
        preparation: if is_small { preprocess::small(channels, 32) } else { preprocess::imagenet(channels) },
        labels: if is_small { Labels::cifar(graph.classes()) } else { Labels::for_pictures(graph.classes()) },
        graph,
    })
}
