//! ResNet for small pictures (He 2016, section 4.2) with parameter-free ("option A") shortcuts.

use super::assembly::{Assembly, ConvSpec};
use super::resnet::depth;
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("resnet8", "cifar-resnet8 [1,1,1]"),
    ("resnet20", "cifar-resnet20 [3,3,3]"),
    ("resnet32", "cifar-resnet32 [5,5,5]"),
    ("resnet44", "cifar-resnet44 [7,7,7]"),
    ("resnet56", "cifar-resnet56 [9,9,9]"),
    ("resnet110", "cifar-resnet110 [18,18,18]"),
];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let stem = matches!(tensors.shape("conv1.weight"), Some([_, _, 3, 3]));
    let other = |name: &str| name.starts_with("layer4.") || name.contains(".downsample.") || name.contains(".conv3.");
    Ok(stem
        && ["layer1.0.conv1.weight", "layer3.0.conv1.weight"].iter().all(|n| tensors.has(n))
        && !tensors.names().any(other))
}
/// Channels of each layer of the published nets.
const WIDTHS: [usize; 3] = [16, 32, 64];

/// Blocks of each layer.
fn depths(tensors: &Tensors) -> [usize; 3] {
    // A published name says the number of layers, two a block.
    let layers = tensors.drafted().and_then(|net| net.strip_prefix("resnet")?.parse::<usize>().ok());
    layers.map_or_else(|| [1, 2, 3].map(|layer| depth(tensors, layer)), |layers| [layers / 6; 3])
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, out: usize) -> Result<NodeId> {
    let spec = ConvSpec::plain(None, 1).to(out);
    let mut y = net.conv(&format!("{name}.conv1"), x, ConvSpec { stride, ..spec })?;
    y = net.batch_norm(&format!("{name}.bn1"), y)?;
    y = net.relu(format!("{name}.relu1"), y)?;
    y = net.conv(&format!("{name}.conv2"), y, spec)?;
    y = net.batch_norm(&format!("{name}.bn2"), y)?;
    let mut shortcut = x;
    if stride != 1 {
        shortcut = net.op(format!("{name}.subsample"), Op::Subsample { stride: [stride; 2] }, &[shortcut])?;
        let (from, to) = (net.channels(x), net.channels(y));
        if to < from || (to - from) % 2 != 0 {
            return Err(Error::model(format!(
                "tensor '{name}.conv2.weight' gives {to} channels, expected {from} plus an even number"
            )));
        }
        let before = (to - from) / 2;
        let pad = Op::PadChannels { before, after: before };
        shortcut = net.op(format!("{name}.pad"), pad, &[shortcut])?;
    }
    let sum = net.op(format!("{name}.add"), Op::Add, &[y, shortcut])?;
    net.relu(format!("{name}.relu2"), sum)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let depths = depths(tensors);
    let channels = Assembly::picture_channels(tensors, "conv1.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 32, 32), 1e-5);
    let mut x = net.builder.input();
    x = net.conv("conv1", x, ConvSpec::plain(Some(3), 1).to(WIDTHS[0]))?;
    x = net.batch_norm("bn1", x)?;
    x = net.relu("relu", x)?;
    for (layer, &blocks) in (1..).zip(&depths) {
        // A missing layer fails on its first block, and the error names the missing tensor.
        for i in 0..blocks.max(1) {
            let stride = if layer > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut net, &format!("layer{layer}.{i}"), x, stride, WIDTHS[layer - 1])?;
        }
        net.builder.stage(format!("layer{layer}"), x);
    }
    x = net.pooled(1, x)?;
    x = net.head(x, &[("linear", 10)], &Op::Relu)?;
    let graph = net.builder.finish(x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let architecture = format!("cifar-resnet{} [{}]", 2 * depths.iter().sum::<usize>() + 2, listed.join(","));
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed: vec!["relu", "no max-pool", "batch-norm eps 1e-5"],
        preparation: preprocess::small(channels, 32),
        labels: Labels::cifar(graph.classes()),
        graph,
    })
}
