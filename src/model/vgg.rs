//! VGG (Simonyan & Zisserman 2015) with torchvision's names, with or without batch norm.

use super::assembly::{Assembly, BiasPresence, ConvSpec};
use super::tensors::Tensors;
use super::{BuiltNet, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("vgg11", "vgg (8 conv)"),
    ("vgg11_bn", "vgg (8 conv, batch norm)"),
    ("vgg13", "vgg (10 conv)"),
    ("vgg13_bn", "vgg (10 conv, batch norm)"),
    ("vgg16", "vgg (13 conv)"),
    ("vgg16_bn", "vgg (13 conv, batch norm)"),
    ("vgg19", "vgg (16 conv)"),
    ("vgg19_bn", "vgg (16 conv, batch norm)"),
];

/// Channels of the published nets' stages. Each stage has as many convolutions as the next number says, and a pool.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// Convolutions in each stage of a published net of that many layers, three of them linear.
const DEPTHS: [(&str, [usize; 5]); 4] =
    [("vgg11", [1, 1, 2, 2, 2]), ("vgg13", [2, 2, 2, 2, 2]), ("vgg16", [2, 2, 3, 3, 3]), ("vgg19", [2, 2, 4, 4, 4])];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["features.0.weight", "classifier.0.weight", "classifier.6.weight"].iter().all(|n| tensors.has(n)))
}

/// Positions in `features` that hold a convolution, ascending, with its channels in a published net.
fn convolutions(tensors: &Tensors) -> Vec<(usize, usize)> {
    if let Some(net) = tensors.drafted() {
        let step = if net.ends_with("_bn") { 3 } else { 2 };
        let depths = DEPTHS.iter().find(|(name, _)| net.starts_with(name)).map_or([0; 5], |(_, depths)| *depths);
        let starts = depths.iter().scan(0, |next, n| Some(std::mem::replace(next, *next + step * n + 1)));
        let stages = starts.zip(depths).zip(WIDTHS);
        return stages.flat_map(|((start, n), width)| (0..n).map(move |i| (start + step * i, width))).collect();
    }
    let index = |name: &str| -> Option<usize> {
        let index = name.strip_prefix("features.")?.strip_suffix(".weight")?.parse().ok()?;
        // A batch norm's weight is a vector.
        (tensors.shape(name)?.len() != 1).then_some(index)
    };
    let mut found: Vec<(usize, usize)> = tensors.names().filter_map(index).map(|position| (position, 0)).collect();
    found.sort_unstable();
    found
}

/// Pools have no tensors: a gap in the positions is a pool, and the last pool follows the last ReLU.
pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let convolutions = convolutions(tensors);
    let channels = Assembly::picture_channels(tensors, "features.0.weight");
    let drafted = tensors.drafted().map(|net| net.ends_with("_bn"));
    let is_conv = |position: usize| convolutions.iter().any(|(at, _)| *at == position);
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    let (mut next, mut pools, mut norms) = (0, 0, 0);
    for (i, &(position, width)) in convolutions.iter().enumerate() {
        if i > 0 && position == next + 1 {
            pools += 1;
            net.builder.stage(format!("stage{pools}"), x);
            x = net.op(format!("features.{next}"), Op::MaxPool(Window::square(2, 2, 0)), &[x])?;
        } else if position != next {
            return Err(Error::model(format!(
                "tensor 'features.{position}.weight' is misplaced: expected a convolution at position {next}, or a pool \
                 there and the convolution after it"
            )));
        }
        x = net.conv(&format!("features.{position}"), x, ConvSpec::plain(None, 1).to(width).with_bias())?;
        let mut last = position + 1;
        if drafted.unwrap_or_else(|| net.tensors.has(&format!("features.{last}.weight")) && !is_conv(last)) {
            x = net.batch_norm(&format!("features.{last}"), x)?;
            norms += 1;
            last += 1;
        }
        x = net.relu(format!("features.{last}"), x)?;
        next = last + 1;
    }
    net.builder.stage(format!("stage{}", pools + 1), x);
    x = net.op(format!("features.{next}"), Op::MaxPool(Window::square(2, 2, 0)), &[x])?;
    let bins = net.bins("classifier.0", net.channels(x), 7)?;
    x = net.pooled(bins, x)?;
    x = net.linear("classifier.0", x, BiasPresence::Present, 4096)?;
    x = net.relu("classifier.1", x)?;
    x = net.linear("classifier.3", x, BiasPresence::Present, 4096)?;
    x = net.relu("classifier.4", x)?;
    x = net.linear("classifier.6", x, BiasPresence::Present, 1000)?;
    let graph = net.builder.finish(x)?;
    let norm = if norms > 0 { ", batch norm" } else { "" };
    let mut assumed = vec!["relu", "max-pools"];
    if norms > 0 {
        assumed.push("batch-norm eps 1e-5");
    }
    let architecture = format!("vgg ({} conv{norm})", convolutions.len());
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed,
        preparation: preprocess::imagenet(channels),
        labels: Labels::for_pictures(graph.classes()),
        graph,
    })
}
