//! VGG (Simonyan & Zisserman 2015) with torchvision's names, with or without batch norm.

use super::assembly::{Assembly, BiasPresence, ConvSpec};
use super::names::Dialect;
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
    let own_head = ["features.0.weight", "classifier.0.weight", "classifier.6.weight"].iter().all(|n| tensors.has(n));
    // All else in `features` has a number for its only name.
    let plain = |name: &str| match name.strip_prefix("features.").map(|rest| rest.split_once('.')) {
        Some(Some((at, kind))) => at.bytes().all(|b| b.is_ascii_digit()) && !kind.contains('.'),
        Some(None) => false,
        None => true,
    };
    let found: Vec<usize> = convolutions(tensors).into_iter().map(|(position, _)| position).collect();
    let is_published = DEPTHS.iter().any(|(_, depths)| [2, 3].iter().any(|step| found == positions(*depths, *step)));
    Ok(own_head || is_published && tensors.names().all(plain))
}

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[Dialect {
    name: "timm",
    tells: &["features.0.weight", "pre_logits.fc1.weight", "head.fc.weight"],
    rules: &[("pre_logits.fc1", "classifier.0"), ("pre_logits.fc2", "classifier.3"), ("head.fc", "classifier.6")],
}];

/// Positions of the convolutions of a net with `depths` in its stages; each takes `step` positions, a pool takes one.
fn positions(depths: [usize; 5], step: usize) -> Vec<usize> {
    let starts = depths.iter().scan(0, |next, n| Some(std::mem::replace(next, *next + step * n + 1)));
    starts.zip(depths).flat_map(|(start, n)| (0..n).map(move |i| start + step * i)).collect()
}

/// Positions in `features` that hold a convolution, ascending, with its channels in a published net.
fn convolutions(tensors: &Tensors) -> Vec<(usize, usize)> {
    if let Some(net) = tensors.drafted() {
        let step = if net.ends_with("_bn") { 3 } else { 2 };
        let depths = DEPTHS.iter().find(|(name, _)| net.starts_with(name)).map_or([0; 5], |(_, depths)| *depths);
        let widths = depths.into_iter().zip(WIDTHS).flat_map(|(n, width)| std::iter::repeat_n(width, n));
        return positions(depths, step).into_iter().zip(widths).collect();
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
    if convolutions.is_empty() {
        return Err(Error::model("tensor 'features.0.weight' is missing; expected shape [*, *, 3, 3]"));
    }
    // timm's first linear layers are convolutions over all positions.
    ["classifier.0.weight", "classifier.3.weight"].iter().for_each(|name| tensors.flatten(name));
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
        let spec = ConvSpec { bias: BiasPresence::Optional, ..ConvSpec::plain(None, 1).to(width) };
        x = net.conv(&format!("features.{position}"), x, spec)?;
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
    let bins = net.bins(net.channels(x), 7)?;
    x = net.pooled(bins, x)?;
    x = net.head(x, &[("classifier.0", 4096), ("classifier.3", 4096), ("classifier.6", 1000)], &Op::Relu)?;
    let is_timm = net.tensors.dialect == "timm";
    let mut graph = net.builder.finish(x)?;
    // Five pools make one position of 32 pixels a side.
    let side = if pools == 4 && bins < 7 { 32 * bins } else { 224 };
    if side != 224 {
        graph = graph.resized(Shape::new(channels, side, side))?;
    }
    let norm = if norms > 0 { ", batch norm" } else { "" };
    let mut assumed = vec!["relu", "max-pools"];
    if norms > 0 {
        assumed.push("batch-norm eps 1e-5");
    }
    if is_timm {
        assumed.push("at most 7x7 positions before the linear layers");
    }
    let architecture = format!("vgg ({} conv{norm})", convolutions.len());
    Ok(BuiltNet {
        form: architecture.clone(),
        architecture,
        assumed,
        preparation: if side == 224 { preprocess::imagenet(channels) } else { preprocess::small(channels, side) },
        labels: if side == 32 { Labels::cifar(graph.classes()) } else { Labels::for_pictures(graph.classes()) },
        graph,
    })
}
