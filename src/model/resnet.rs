//! ResNet (He 2016), Wide-ResNet (Zagoruyko 2016) and ResNeXt (Xie 2017) with torchvision's names.
//!
//! As torchvision has it, the stride of a bottleneck sits in its 3×3 convolution.

use super::assembly::{Assembly, Bias, ConvSpec, Groups};
use super::tensors::Tensors;
use super::{Built, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

pub(super) fn recognise(tensors: &Tensors) -> bool {
    ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"].iter().all(|n| tensors.has(n))
}

/// Number of blocks of a layer.
pub(super) fn depth(tensors: &Tensors, layer: usize) -> usize {
    (0..).take_while(|block| tensors.has(&format!("layer{layer}.{block}.conv1.weight"))).count()
}

/// Convolutions of the residual branch of block `name`: a ReLU between any two, none after the last.
fn branch(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, convolutions: usize) -> Result<NodeId> {
    let mut y = x;
    for i in 1..=convolutions {
        let spec = match (convolutions, i) {
            (2, 1) => ConvSpec::plain(None, stride),
            (2, _) => ConvSpec::plain(None, 1),
            (_, 2) => ConvSpec { groups: Groups::Inferred, ..ConvSpec::plain(None, stride) },
            _ => ConvSpec::plain(Some(1), 1),
        };
        y = net.conv(&format!("{name}.conv{i}"), y, spec)?;
        y = net.batch_norm(&format!("{name}.bn{i}"), y)?;
        if i < convolutions {
            y = net.relu(format!("{name}.relu{i}"), y)?;
        }
    }
    Ok(y)
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, convolutions: usize) -> Result<NodeId> {
    let y = branch(net, name, x, stride, convolutions)?;
    let projection = format!("{name}.downsample.0");
    let projected =
        stride != 1 || net.channels(x) != net.channels(y) || net.tensors.has(&format!("{projection}.weight"));
    let mut shortcut = x;
    if projected {
        shortcut = net.conv(&projection, x, ConvSpec::plain(Some(1), stride))?;
        shortcut = net.batch_norm(&format!("{name}.downsample.1"), shortcut)?;
    }
    let sum = net.op(format!("{name}.add"), Op::Add, &[y, shortcut])?;
    net.relu(format!("{name}.relu{convolutions}"), sum)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<Built> {
    let convolutions = if tensors.has("layer1.0.conv3.weight") { 3 } else { 2 };
    let depths: Vec<usize> = (1..=4).map(|layer| depth(tensors, layer)).collect();
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
        // A plain bottleneck is a quarter as wide within as it is at its end.
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
    // Nets for small pictures carry the same names with a 3×3 stem and no pool: they must not pass for this one.
    x = net.conv("conv1", x, ConvSpec::plain(Some(7), 2))?;
    x = net.batch_norm("bn1", x)?;
    x = net.relu("relu", x)?;
    x = net.op("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x])?;
    for (layer, &blocks) in (1..).zip(&depths) {
        for i in 0..blocks {
            let stride = if layer > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut net, &format!("layer{layer}.{i}"), x, stride, convolutions)?;
        }
        net.builder.stage(format!("layer{layer}"), x);
    }
    x = net.pooled(1, x)?;
    x = net.linear("fc", x, Bias::Present)?;
    let graph = net.builder.finish(x)?;
    Ok(Built {
        architecture,
        preprocess: preprocess::imagenet(channels),
        labels: Labels::for_pictures(graph.classes()),
        graph,
    })
}
