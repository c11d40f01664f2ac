//! GhostNet (Han 2020) with timm's names, of any width.

use super::assembly::{Assembly, ConvSpec, HARD_SIGMOID};
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[("ghostnet_050", FORM), ("ghostnet_100", FORM), ("ghostnet_130", FORM)];

const FORM: &str = "ghostnet";

/// Blocks and stride of each stage; the last one is a single convolution.
const STAGES: [[usize; 2]; 9] = [[1, 1], [1, 2], [1, 1], [1, 2], [1, 1], [1, 2], [5, 1], [1, 2], [4, 1]];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["conv_stem.weight", "blocks.0.0.ghost1.primary_conv.0.weight", "blocks.9.0.conv.weight"];
    let is_second = tensors.names().any(|name| name.contains(".short_conv."));
    Ok(names.iter().all(|n| tensors.has(n)) && !is_second)
}

/// A ghost module: a pointwise convolution, and beside its channels those that a depthwise one makes of them.
fn ghost(net: &mut Assembly<'_>, name: &str, x: NodeId, act: Option<&Op>) -> Result<NodeId> {
    let first = net.conv_012(&format!("{name}.primary_conv"), x, ConvSpec::plain(Some(1), 1), act)?;
    let spec = ConvSpec::plain(None, 1).depthwise(net.channels(first));
    let second = net.conv_012(&format!("{name}.cheap_operation"), first, spec, act)?;
    net.op(format!("{name}.concat"), Op::Concat, &[first, second])
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize) -> Result<NodeId> {
    let mut y = ghost(net, &format!("{name}.ghost1"), x, Some(&Op::Relu))?;
    if stride > 1 {
        let spec = ConvSpec::plain(None, stride).depthwise(net.channels(y));
        let names = ["conv_dw", "bn_dw"].map(|part| format!("{name}.{part}"));
        y = net.conv_norm([&names[0], &names[1], ""], y, spec, None)?;
    }
    if net.tensors.has(&format!("{name}.se.conv_reduce.weight")) {
        let convs = ["conv_reduce", "conv_expand"].map(|conv| format!("{name}.se.{conv}"));
        let convs = convs.each_ref().map(String::as_str);
        y = net.gated(&format!("{name}.se"), convs, y, 0, [&Op::Relu, &HARD_SIGMOID])?;
    }
    y = ghost(net, &format!("{name}.ghost2"), y, None)?;
    let mut shortcut = x;
    if net.tensors.has(&format!("{name}.shortcut.0.weight")) {
        let part = |i: usize| format!("{name}.shortcut.{i}");
        let spec = ConvSpec::plain(None, stride).depthwise(net.channels(x));
        shortcut = net.conv_norm([&part(0), &part(1), ""], x, spec, None)?;
        shortcut = net.conv_norm([&part(2), &part(3), ""], shortcut, ConvSpec::plain(Some(1), 1), None)?;
    }
    net.op(format!("{name}.add"), Op::Add, &[y, shortcut])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let channels = Assembly::picture_channels(tensors, "conv_stem.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let (point, act) = (ConvSpec::plain(Some(1), 1), Some(&Op::Relu));
    let mut x = net.builder.input();
    x = net.conv_norm(["conv_stem", "bn1", "act1"], x, ConvSpec::plain(Some(3), 2), act)?;
    let mut resolutions = 0;
    for (stage, [blocks, stride]) in STAGES.into_iter().enumerate() {
        if stride > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        for i in 0..blocks {
            x = block(&mut net, &format!("blocks.{stage}.{i}"), x, stride)?;
        }
    }
    x = net.conv_norm(["blocks.9.0.conv", "blocks.9.0.bn1", "blocks.9.0.act"], x, point, act)?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    x = net.op("global_pool", Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
    x = net.conv("conv_head", x, point.with_bias())?;
    x = net.relu("act2", x)?;
    let graph = net.classified("classifier", x)?;
    let assumed = vec!["relu", "strides of GhostNet", "hard sigmoid in gates", USUALLY_ASSUMED, "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::timm(channels, [224, 256])))
}
