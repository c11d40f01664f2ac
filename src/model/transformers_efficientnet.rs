//! EfficientNet B0 to B7 with transformers' names: TensorFlow's weights.
//!
//! transformers pads as TensorFlow does at the published size of each net, and keeps these paddings at other sizes.

use super::assembly::{Assembly, ConvSpec, Pad, SIGMOID, SILU};
use super::efficientnet::{STAGES, VARIANTS, Variant};
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::image::Interpolation;
use crate::tensor::{Padding, Shape};

/// Crop sides of B0 to B7.
const SIDES: [usize; 8] = [224, 240, 260, 300, 380, 456, 528, 600];

/// Name of the family.
pub(super) const FAMILY: &str = "transformers-efficientnet";

const STEM: &str = "embeddings.convolution";
const TOP: &str = "encoder.top_conv";

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = [STEM, TOP, "encoder.blocks.0.depthwise_conv.depthwise_conv"];
    Ok(names.iter().all(|n| tensors.has(&format!("{n}.weight"))))
}

/// Blocks of all stages together.
fn blocks(tensors: &Tensors) -> usize {
    (0..).take_while(|i| tensors.has(&format!("encoder.blocks.{i}.projection.project_conv.weight"))).count()
}

/// The published net with as many blocks in all, and the side of its pictures.
fn size(tensors: &Tensors) -> Result<(&'static Variant, usize)> {
    let top = tensors.shape(&format!("{TOP}.weight")).and_then(|shape| shape.first().copied());
    let found = VARIANTS.iter().zip(SIDES).find(|(v, _)| {
        let [.., head] = v.widths;
        Some(head) == top && v.depths.iter().sum::<usize>() == blocks(tensors)
    });
    found.ok_or_else(|| {
        let blocks = blocks(tensors);
        Error::model(format!(
            "the names are those of transformers' EfficientNet, but none has {blocks} blocks and such a head"
        ))
    })
}

/// A block on `x`: expansion if it has one, depthwise convolution, gate, projection, and the shortcut of all but the
/// first block of a stage.
fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, spec: ConvSpec, is_first: bool) -> Result<NodeId> {
    let part = |net: &mut Assembly<'_>, part: &str, kind: &str, x, spec: ConvSpec, act: Option<&Op>| {
        let names = ["conv", "norm", "bn", "act"].map(|end| format!("{name}.{part}.{kind}_{end}"));
        let [conv, norm, bn, act_name] = names.each_ref().map(String::as_str);
        let norm = if kind == "depthwise" { norm } else { bn };
        net.conv_norm([conv, norm, act_name], x, spec, act)
    };
    let point = ConvSpec::plain(Some(1), 1);
    let mut y = x;
    if net.tensors.has(&format!("{name}.expansion.expand_conv.weight")) {
        y = part(net, "expansion", "expand", y, point, Some(&SILU))?;
    }
    let deep = spec.depthwise(net.channels(y));
    y = part(net, "depthwise_conv", "depthwise", y, deep, Some(&SILU))?;
    let gate = format!("{name}.squeeze_excite");
    let convs = ["reduce", "expand"].map(|conv| format!("{gate}.{conv}"));
    y = net.gated(&gate, convs.each_ref().map(String::as_str), y, 0, [&SILU, &SIGMOID])?;
    y = part(net, "projection", "project", y, point, None)?;
    if is_first { Ok(y) } else { net.op(format!("{name}.add"), Op::Add, &[y, x]) }
}

/// Positions of the blocks of `graph` with a stride whose padding is the same on both sides.
pub(super) fn centred(graph: &Graph) -> Vec<usize> {
    let position =
        |name: &str| name.strip_prefix("encoder.blocks.")?.split_once(".depthwise_conv.depthwise_conv")?.0.parse().ok();
    let strided = graph.nodes().iter().filter_map(|node| {
        let window = node.conv()?.window;
        let same = matches!(window.padding, Padding::Explicit { top, bottom, .. } if top == bottom);
        (window.stride != [1; 2] && same).then(|| position(&node.name))?
    });
    strided.collect()
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    if !tensors.has(&format!("{TOP}.weight")) {
        return Err(Error::model(format!("tensor '{TOP}.weight' is missing; expected shape [*, *, 1, 1]")));
    }
    let (size, side) = size(tensors)?;
    let channels = Assembly::picture_channels(tensors, &format!("{STEM}.weight"));
    let preparation = preprocess::torchvision(channels, [side; 2], Interpolation::Bicubic);
    let mut net = Assembly::new(tensors, Shape::new(channels, side, side), 1e-3);
    let mut x = net.builder.input();
    let strided = |net: &Assembly<'_>, x, kernel, stride| {
        let spec = ConvSpec::plain(Some(kernel), stride);
        if stride > 1 && net.side(x).is_multiple_of(2) { spec.padded(Pad::Late) } else { spec }
    };
    let spec = strided(&net, x, 3, 2);
    x = net.conv_norm([STEM, "embeddings.batchnorm", "embeddings.activation"], x, spec, Some(&SILU))?;
    let (mut resolutions, mut position) = (0, 0);
    for ([kernel, first, _], depth) in STAGES.into_iter().zip(size.depths) {
        if first > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        for i in 0..depth {
            let spec = strided(&net, x, kernel, if i == 0 { first } else { 1 });
            x = block(&mut net, &format!("encoder.blocks.{position}"), x, spec, i == 0)?;
            position += 1;
        }
    }
    x =
        net.conv_norm([TOP, "encoder.top_bn", "encoder.top_activation"], x, ConvSpec::plain(Some(1), 1), Some(&SILU))?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    let graph = net.classified("classifier", x)?;
    let form = format!("efficientnet [{}]", size.depths.map(|n| n.to_string()).join(","));
    let assumed =
        vec!["silu", "padding: TensorFlow's same at the published size", USUALLY_ASSUMED, "batch-norm eps 1e-3"];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preparation))
}
