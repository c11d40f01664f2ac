//! VoVNet (Lee 2019) and VoVNet V2 (Lee 2020) with timm's names, of any width.

use super::assembly::{Assembly, ConvSpec, HARD_SIGMOID};
use super::resnet_blocks::along_channels;
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("vovnet39a", "vovnet [1,1,2,2]"),
    ("vovnet57a", "vovnet [1,1,4,3]"),
    ("ese_vovnet19b_slim_dw", "ese-vovnet [1,1,1,1]"),
    ("ese_vovnet19b_dw", "ese-vovnet [1,1,1,1]"),
    ("ese_vovnet19b_slim", "ese-vovnet [1,1,1,1]"),
    ("ese_vovnet19b", "ese-vovnet [1,1,1,1]"),
    ("ese_vovnet39b", "ese-vovnet [1,1,2,2]"),
    ("ese_vovnet57b", "ese-vovnet [1,1,4,3]"),
    ("ese_vovnet99b", "ese-vovnet [1,3,9,3]"),
    ("eca_vovnet39b", "eca-vovnet [1,1,2,2]"),
];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(["stem.0.conv.weight", "stages.0.blocks.0.conv_concat.conv.weight"].iter().all(|name| tensors.has(name)))
}

/// A 3×3 convolution, or one of each channel and one over channels; then norm and ReLU.
fn layer(net: &mut Assembly<'_>, name: &str, mut x: NodeId, stride: usize) -> Result<NodeId> {
    let part = |what: &str| format!("{name}.{what}");
    let (mut conv, mut spec) = ("conv", ConvSpec::plain(Some(3), stride));
    if net.tensors.has(&part("conv_dw.weight")) {
        x = net.conv(&part("conv_dw"), x, spec.depthwise(net.channels(x)))?;
        (conv, spec) = ("conv_pw", ConvSpec::plain(Some(1), 1));
    }
    net.conv_norm([&part(conv), &part("bn"), &part("act")], x, spec, Some(&Op::Relu))
}

/// One-shot aggregation: all layers beside each other, and one convolution over them.
fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, adds: bool) -> Result<NodeId> {
    let part = |what: &str| format!("{name}.{what}");
    let point = |net: &mut Assembly<'_>, what: &str, x| {
        let names = ["conv", "bn", "act"].map(|end| part(&format!("{what}.{end}")));
        net.conv_norm(names.each_ref().map(String::as_str), x, ConvSpec::plain(Some(1), 1), Some(&Op::Relu))
    };
    let (mut all, mut y) = (vec![x], x);
    if net.tensors.has(&part("conv_reduction.conv.weight")) {
        y = point(net, "conv_reduction", x)?;
    }
    for i in 0.. {
        let name = part(&format!("conv_mid.{i}"));
        if !["conv", "conv_dw"].iter().any(|conv| net.tensors.has(&format!("{name}.{conv}.weight"))) {
            break;
        }
        y = layer(net, &name, y, 1)?;
        all.push(y);
    }
    y = net.op(part("concat"), Op::Concat, &all)?;
    y = point(net, "conv_concat", y)?;
    if net.tensors.has(&part("attn.fc.weight")) {
        let mut gate = net.op(part("attn.avgpool"), Op::AdaptiveAvgPool { out: [1; 2] }, &[y])?;
        gate = net.conv(&part("attn.fc"), gate, ConvSpec::plain(Some(1), 1).with_bias())?;
        gate = net.op(part("attn.gate"), HARD_SIGMOID, &[gate])?;
        y = net.op(part("attn.product"), Op::Mul, &[y, gate])?;
    } else if net.tensors.has(&part("attn.conv.weight")) {
        y = along_channels(net, &part("attn"), y)?;
    }
    if adds { net.op(part("add"), Op::Add, &[y, x]) } else { Ok(y) }
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let blocks = |stage: usize| {
        let has = |i: usize| tensors.has(&format!("stages.{stage}.blocks.{i}.conv_concat.conv.weight"));
        (0..).take_while(|&i| has(i)).count()
    };
    let depths = [0, 1, 2, 3].map(blocks);
    if let Some(stage) = depths.iter().position(|&blocks| blocks == 0) {
        let name = format!("stages.{stage}.blocks.0.conv_concat.conv.weight");
        return Err(Error::model(format!("tensor '{name}' is missing; expected shape [*, *, 1, 1]")));
    }
    // The gate of a stage is in its last block.
    let has = |gate: &str| tensors.has(&format!("stages.0.blocks.{}.attn.{gate}.weight", depths[0] - 1));
    let kind = if has("fc") {
        "ese-"
    } else if has("conv") {
        "eca-"
    } else {
        ""
    };
    let channels = Assembly::picture_channels(tensors, "stem.0.conv.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    for (i, stride) in [2, 1, 2].into_iter().enumerate() {
        x = layer(&mut net, &format!("stem.{i}"), x, stride)?;
    }
    for (stage, blocks) in depths.into_iter().enumerate() {
        if stage > 0 {
            let window = Window { ceil: true, ..Window::square(3, 2, 0) };
            x = net.op(format!("stages.{stage}.pool"), Op::MaxPool(window), &[x])?;
        }
        for i in 0..blocks {
            x = block(&mut net, &format!("stages.{stage}.blocks.{i}"), x, i > 0 && !kind.is_empty())?;
        }
        net.builder.stage(format!("stage{}", stage + 1), x);
    }
    let graph = net.classified("head.fc", x)?;
    let form = format!("{kind}vovnet [{}]", depths.map(|n| n.to_string()).join(","));
    let sums = if kind.is_empty() {
        "no sums around blocks"
    } else {
        "gates by hard sigmoid (ese) or sigmoid (eca), and sums around every block of a stage but the first"
    };
    let assumed = vec!["relu", "strides and pools of VoVNet", sums, USUALLY_ASSUMED, "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::timm(channels, [224, 256])))
}
