//! DenseNet-121 to -201 (Huang 2017) with torchvision's names, which timm uses too.

use super::assembly::{Assembly, ConvSpec};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("densenet121", "densenet [6,12,24,16]"),
    ("densenet161", "densenet [6,12,36,24]"),
    ("densenet169", "densenet [6,12,32,32]"),
    ("densenet201", "densenet [6,12,48,32]"),
];

/// A published net.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Layers of each block.
    depths: [usize; 4],
    stem: usize,
    /// Channels that each layer adds.
    growth: usize,
}

const fn variant(name: &'static str, depths: [usize; 4], stem: usize, growth: usize) -> Variant {
    Variant { name, depths, stem, growth }
}

pub(super) const VARIANTS: [Variant; 4] = [
    variant("densenet121", [6, 12, 24, 16], 64, 32),
    variant("densenet161", [6, 12, 36, 24], 96, 48),
    variant("densenet169", [6, 12, 32, 32], 64, 32),
    variant("densenet201", [6, 12, 48, 32], 64, 32),
];

/// Ratio of a layer's inner channels to those that it adds.
const BOTTLENECK: usize = 4;

/// Name of a layer; blocks and layers count from 1.
fn layer_name(block: usize, layer: usize) -> String {
    format!("features.denseblock{block}.denselayer{layer}")
}

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["features.conv0.weight", "features.denseblock1.denselayer1.norm1.weight"];
    Ok(names.iter().all(|n| tensors.has(n)))
}

/// Norm and ReLU, which come before each convolution.
fn active(net: &mut Assembly<'_>, norm: &str, relu: &str, x: NodeId) -> Result<NodeId> {
    let x = net.batch_norm(norm, x)?;
    net.relu(relu, x)
}

/// The channels that a layer adds, after those that it reads.
fn layer(net: &mut Assembly<'_>, name: &str, x: NodeId, growth: usize) -> Result<NodeId> {
    let mut y = active(net, &format!("{name}.norm1"), &format!("{name}.relu1"), x)?;
    y = net.conv(&format!("{name}.conv1"), y, ConvSpec::plain(Some(1), 1).to(BOTTLENECK * growth))?;
    y = active(net, &format!("{name}.norm2"), &format!("{name}.relu2"), y)?;
    y = net.conv(&format!("{name}.conv2"), y, ConvSpec::plain(Some(3), 1).to(growth))?;
    net.op(format!("{name}.concat"), Op::Concat, &[x, y])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| VARIANTS.iter().find(|v| v.name == net));
    let depth = |block| (1..).take_while(|&i| tensors.has(&format!("{}.conv1.weight", layer_name(block, i)))).count();
    let depths = drafted.map_or_else(|| [1, 2, 3, 4].map(depth), |v| v.depths);
    if let Some(empty) = depths.iter().position(|&n| n == 0) {
        let name = layer_name(empty + 1, 1);
        return Err(Error::model(format!("tensor '{name}.conv1.weight' is missing; expected shape [*, *, 1, 1]")));
    }
    let (stem, growth) = drafted.map_or((0, 0), |v| (v.stem, v.growth));
    let channels = Assembly::picture_channels(tensors, "features.conv0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    let names = ["features.conv0", "features.norm0", "features.relu0"];
    x = net.conv_norm(names, x, ConvSpec::plain(Some(7), 2).to(stem), Some(&Op::Relu))?;
    x = net.op("features.pool0", Op::MaxPool(Window::square(3, 2, 1)), &[x])?;
    for (block, &layers) in (1..).zip(&depths) {
        for i in 1..=layers {
            x = layer(&mut net, &layer_name(block, i), x, growth)?;
        }
        if block < depths.len() {
            let name = format!("features.transition{block}");
            x = active(&mut net, &format!("{name}.norm"), &format!("{name}.relu"), x)?;
            net.builder.stage(format!("stage{block}"), x);
            x = net.conv(&format!("{name}.conv"), x, ConvSpec::plain(Some(1), 1).to(net.channels(x) / 2))?;
            let halved = Op::AvgPool { window: Window::square(2, 2, 0), count_padding: true };
            x = net.op(format!("{name}.pool"), halved, &[x])?;
        }
    }
    x = active(&mut net, "features.norm5", "features.relu5", x)?;
    net.builder.stage(format!("stage{}", depths.len()), x);
    let graph = net.classified("classifier", x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let form = format!("densenet [{}]", listed.join(","));
    let assumed = vec!["relu", "max-pool after the stem", "average pools between blocks", "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::imagenet(channels)))
}
