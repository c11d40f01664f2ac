//! RepVGG (Ding 2021) with timm's names: blocks that add a 3×3 convolution, a 1×1 one and, where shapes allow it, the
//! block's input, each with a norm.

use super::assembly::{Assembly, ConvSpec, Groups};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("repvgg_a0", "repvgg [2,4,14,1]"),
    ("repvgg_a1", "repvgg [2,4,14,1]"),
    ("repvgg_a2", "repvgg [2,4,14,1]"),
    ("repvgg_b0", "repvgg [4,6,16,1]"),
    ("repvgg_b1", "repvgg [4,6,16,1]"),
    ("repvgg_b1g4", "repvgg [4,6,16,1]"),
    ("repvgg_b2", "repvgg [4,6,16,1]"),
    ("repvgg_b2g4", "repvgg [4,6,16,1]"),
    ("repvgg_b3", "repvgg [4,6,16,1]"),
    ("repvgg_b3g4", "repvgg [4,6,16,1]"),
];

/// Stages, the resolution of each half that of the one before.
const STAGES: usize = 4;

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["stem.conv_kxk.conv.weight", "stem.conv_1x1.conv.weight", "stages.0.0.conv_kxk.conv.weight"];
    Ok(names.iter().all(|n| tensors.has(n)))
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize) -> Result<NodeId> {
    let part = |net: &mut Assembly<'_>, branch: &str, side| {
        let spec = ConvSpec { groups: Groups::Inferred(1), ..ConvSpec::plain(Some(side), stride) };
        let names = ["conv", "bn"].map(|part| format!("{name}.{branch}.{part}"));
        net.conv_norm([&names[0], &names[1], ""], x, spec, None)
    };
    let mut sum = part(net, "conv_kxk", 3)?;
    let point = part(net, "conv_1x1", 1)?;
    sum = net.op(format!("{name}.add"), Op::Add, &[sum, point])?;
    if net.tensors.has(&format!("{name}.identity.running_mean")) {
        let same = net.batch_norm(&format!("{name}.identity"), x)?;
        sum = net.op(format!("{name}.add_identity"), Op::Add, &[sum, same])?;
    }
    net.relu(format!("{name}.act"), sum)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let channels = Assembly::picture_channels(tensors, "stem.conv_kxk.conv.weight");
    let has = |stage: usize, i: usize| tensors.has(&format!("stages.{stage}.{i}.conv_kxk.conv.weight"));
    let depths: Vec<usize> = (0..STAGES).map(|stage| (0..).take_while(|&i| has(stage, i)).count()).collect();
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    x = block(&mut net, "stem", x, 2)?;
    net.builder.stage("stage1", x);
    for (stage, &blocks) in depths.iter().enumerate() {
        // A stage without blocks fails on its first one, and the error names the missing tensor.
        for i in 0..blocks.max(1) {
            x = block(&mut net, &format!("stages.{stage}.{i}"), x, if i == 0 { 2 } else { 1 })?;
        }
        net.builder.stage(format!("stage{}", stage + 2), x);
    }
    let graph = net.classified("head.fc", x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let assumed = vec!["relu", "batch-norm eps 1e-5"];
    let form = format!("repvgg [{}]", listed.join(","));
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::timm(channels, [224, 256])))
}
