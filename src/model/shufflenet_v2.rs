//! ShuffleNet V2 (Ma 2018) with torchvision's names, of any width.

use super::assembly::{Assembly, ConvSpec};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::{NodeId, Op};
use crate::tensor::{Shape, Window};

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("shufflenet_v2_x0_5", FORM),
    ("shufflenet_v2_x1_0", FORM),
    ("shufflenet_v2_x1_5", FORM),
    ("shufflenet_v2_x2_0", FORM),
];

const FORM: &str = "shufflenet-v2";

/// Channels of the published nets after each stage and after the last convolution.
pub(super) const WIDTHS: [(&str, [usize; 4]); 4] = [
    ("shufflenet_v2_x0_5", [48, 96, 192, 1024]),
    ("shufflenet_v2_x1_0", [116, 232, 464, 1024]),
    ("shufflenet_v2_x1_5", [176, 352, 704, 1024]),
    ("shufflenet_v2_x2_0", [244, 488, 976, 2048]),
];

/// Channels of the stem.
const STEM: usize = 24;

/// Stages, and blocks of each; the first halves the resolution.
const STAGES: [(&str, usize); 3] = [("stage2", 4), ("stage3", 8), ("stage4", 4)];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["conv1.0.weight", "stage2.0.branch1.0.weight", "stage2.0.branch2.0.weight", "conv5.0.weight"];
    Ok(names.iter().all(|n| tensors.has(n)))
}

/// A convolution of `branch` at position `at`, with its norm and perhaps a ReLU.
fn layer(
    net: &mut Assembly<'_>,
    branch: &str,
    at: usize,
    x: NodeId,
    spec: ConvSpec,
    relu: Option<&Op>,
) -> Result<NodeId> {
    let [conv, norm, act] = [0, 1, 2].map(|i| format!("{branch}.{}", at + i));
    net.conv_norm([&conv, &norm, &act], x, spec, relu)
}

/// The branch with three convolutions.
fn second(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, out: usize) -> Result<NodeId> {
    let (branch, point) = (format!("{name}.branch2"), ConvSpec::plain(Some(1), 1).to(out));
    let y = layer(net, &branch, 0, x, point, Some(&Op::Relu))?;
    let y = layer(net, &branch, 3, y, ConvSpec::plain(Some(3), stride).depthwise(net.channels(y)), None)?;
    layer(net, &branch, 5, y, point, Some(&Op::Relu))
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize, out: usize) -> Result<NodeId> {
    let half = out / 2;
    let parts = if stride == 1 {
        // Half of the channels pass unchanged.
        let channels = net.channels(x) / 2;
        let mut slice = |part: &str, first| net.op(format!("{name}.{part}"), Op::Slice { first, channels }, &[x]);
        let (kept, read) = (slice("kept", 0)?, slice("read", channels)?);
        [kept, second(net, name, read, 1, half)?]
    } else {
        let branch = format!("{name}.branch1");
        let y = layer(net, &branch, 0, x, ConvSpec::plain(Some(3), stride).depthwise(net.channels(x)), None)?;
        let y = layer(net, &branch, 2, y, ConvSpec::plain(Some(1), 1).to(half), Some(&Op::Relu))?;
        [y, second(net, name, x, stride, half)?]
    };
    let all = net.op(format!("{name}.concat"), Op::Concat, &parts)?;
    net.op(format!("{name}.shuffle"), Op::Shuffle { groups: 2 }, &[all])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| WIDTHS.iter().find(|(name, _)| *name == net));
    let [widths @ .., last] = drafted.map_or([0; 4], |(_, widths)| *widths);
    let channels = Assembly::picture_channels(tensors, "conv1.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    x = net.conv_012("conv1", x, ConvSpec::plain(Some(3), 2).to(STEM), Some(&Op::Relu))?;
    net.builder.stage("stage1", x);
    x = net.op("maxpool", Op::MaxPool(Window::square(3, 2, 1)), &[x])?;
    for ((name, blocks), out) in STAGES.into_iter().zip(widths) {
        for i in 0..blocks {
            x = block(&mut net, &format!("{name}.{i}"), x, if i == 0 { 2 } else { 1 }, out)?;
        }
        if name != "stage4" {
            net.builder.stage(name, x);
        }
    }
    x = net.conv_012("conv5", x, ConvSpec::plain(Some(1), 1).to(last), Some(&Op::Relu))?;
    net.builder.stage("stage4", x);
    let graph = net.classified("fc", x)?;
    let assumed = vec!["relu", "max-pool after the stem", "shuffles of two groups", "batch-norm eps 1e-5"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::imagenet(channels)))
}
