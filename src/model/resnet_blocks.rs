//! What other nets with a ResNet's frame have in a block for its 3×3 convolution or for its gate, with timm's names: SKNet (Li
//! 2019), Res2Net (Gao 2019), ResNeSt (Zhang 2020), ECA-Net (Wang 2020).

use super::assembly::{Assembly, ConvSpec, Groups, SIGMOID};
use super::tensors::Tensors;
use crate::error::{Error, Result};
use crate::graph::{Affine, NodeId, Op};
use crate::tensor::Window;

/// What stands for the 3×3 convolution of blocks, or for the first convolution of blocks with two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Middle {
    Plain,
    /// A sum of convolutions with different dilations, weighted a channel.
    Selective,
    /// Parts of the channels, each added to the next before its convolution.
    Hierarchical,
    /// A sum of parts of the channels, weighted a channel.
    Split,
}

impl Middle {
    /// What the net has, told by its first block.
    pub(super) fn of(tensors: &Tensors) -> Self {
        let has = |part: &str| tensors.has(&format!("layer1.0.{part}.weight"));
        let kinds = [
            ("conv1b", Self::Selective),
            ("conv2b", Self::Selective),
            ("convs.0", Self::Hierarchical),
            ("conv2.conv", Self::Split),
        ];
        kinds.into_iter().find(|(part, _)| has(part)).map_or(Self::Plain, |(_, kind)| kind)
    }

    /// How such nets are called.
    pub(super) const fn net(self) -> &'static str {
        match self {
            Self::Plain => "resnet",
            Self::Selective => "sknet",
            Self::Hierarchical => "res2net",
            Self::Split => "resnest",
        }
    }

    /// What no tensor says of such a net.
    pub(super) fn assumed(self, tensors: &Tensors) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Selective => Some(
                "dilations 1 and 2 in the paths of a selective kernel; a path that reads half of the channels has one group",
            ),
            Self::Hierarchical => Some("an average pool for the last part where a block makes pictures smaller"),
            Self::Split if has_pool_after(tensors) => {
                Some("average pools of 3x3 after the convolution where a block makes pictures smaller")
            }
            Self::Split => Some("average pools of 3x3 before the convolution where a block makes pictures smaller"),
        }
    }
}

/// Selective kernels in the place of convolution `i`: its paths are `conv{i}` and `conv{i}b`.
pub(super) fn selective(net: &mut Assembly<'_>, block: &str, i: usize, x: NodeId, stride: usize) -> Result<NodeId> {
    let part = |what: &str| format!("{block}.{what}");
    let channels = net.channels(x);
    // Each path reads its share of the channels, or all.
    let seen = match net.tensors.shape(&part(&format!("conv{i}.weight"))) {
        Some(&[_, seen, _, _]) => seen,
        _ => channels,
    };
    let is_split = 2 * seen == channels;
    let mut paths = Vec::new();
    for (path, suffix) in ["", "b"].into_iter().enumerate() {
        let mut y = x;
        if is_split {
            y = net.op(part(&format!("part{path}")), Op::Slice { first: path * seen, channels: seen }, &[x])?;
        }
        let spec = ConvSpec { groups: Groups::Inferred(seen), ..ConvSpec::plain(Some(3), stride) }.dilated(path + 1);
        let names = ["conv", "bn", "relu"].map(|kind| part(&format!("{kind}{i}{suffix}")));
        paths.push(net.conv_norm(names.each_ref().map(String::as_str), y, spec, Some(&Op::Relu))?);
    }
    let joined = net.op(part("paths"), Op::Concat, &paths)?;
    let sum = net.op(part("sum"), Op::Add, &paths)?;
    let point = ConvSpec::plain(Some(1), 1);
    let mut gate = net.op(part("avgpool"), Op::AdaptiveAvgPool { out: [1; 2] }, &[sum])?;
    let names = ["fc_reduce", "bn", "act"].map(|kind| part(&format!("attn{i}.{kind}")));
    gate = net.conv_norm(names.each_ref().map(String::as_str), gate, point, Some(&Op::Relu))?;
    gate = net.conv(&part(&format!("attn{i}.fc_select")), gate, point)?;
    weighted(net, block, joined, gate, [2, 1])
}

/// The sum over `radix` parts of the channels of `x`, each channel times its share: the softmax over the parts of `gate`,
/// whose channels are in `groups` groups of `radix` parts each.
fn weighted(
    net: &mut Assembly<'_>,
    block: &str,
    x: NodeId,
    gate: NodeId,
    [radix, groups]: [usize; 2],
) -> Result<NodeId> {
    let part = |what: String| format!("{block}.{what}");
    let all = net.channels(gate);
    let channels = all / radix;
    if radix * channels != all || net.channels(x) != all || !channels.is_multiple_of(groups) {
        return Err(Error::model(format!(
            "block '{block}' has {all} weights for {} channels in {radix} parts of {groups} groups",
            net.channels(x)
        )));
    }
    // The parts of a channel become neighbours.
    let mut turned = Vec::new();
    for group in 0..groups {
        let mut y = gate;
        if groups > 1 {
            let slice = Op::Slice { first: group * (all / groups), channels: all / groups };
            y = net.op(part(format!("gate{group}")), slice, &[gate])?;
        }
        turned.push(net.op(part(format!("turned{group}")), Op::Shuffle { groups: radix }, &[y])?);
    }
    let mut shares = turned[0];
    if groups > 1 {
        shares = net.op(part("turned".to_string()), Op::Concat, &turned)?;
    }
    shares = net.op(part("softmax".to_string()), Op::Softmax { groups: channels }, &[shares])?;
    shares = net.op(part("shares".to_string()), Op::Shuffle { groups: channels }, &[shares])?;
    let product = net.op(part("product".to_string()), Op::Mul, &[x, shares])?;
    let parts: Result<Vec<NodeId>> = (0..radix)
        .map(|i| net.op(part(format!("product{i}")), Op::Slice { first: i * channels, channels }, &[product]))
        .collect();
    net.op(part("weighted".to_string()), Op::Add, &parts?)
}

/// The parts of `x`, one convolution each but for the last; every part but the first of a block with stride 1 and no
/// convolution in its shortcut is added to what the one before became.
pub(super) fn hierarchical(net: &mut Assembly<'_>, block: &str, x: NodeId, stride: usize) -> Result<NodeId> {
    let part = |what: &str, i: usize| format!("{block}.{what}.{i}");
    let all = net.channels(x);
    let first = part("convs", 0);
    let width = match net.tensors.shape(&format!("{first}.weight")) {
        Some(&[width, ..]) if width > 0 && all.is_multiple_of(width) => width,
        other => {
            let shape = other.unwrap_or_default();
            return Err(Error::model(format!(
                "tensor '{first}.weight' has shape {shape:?}, whose outputs are not a part of {all} channels"
            )));
        }
    };
    let parts = all / width;
    let is_first = stride > 1
        || ["downsample.0", "downsample.1"].iter().any(|at| net.tensors.has(&format!("{block}.{at}.weight")));
    let mut made: Vec<NodeId> = Vec::new();
    for i in 0..parts {
        let mut y = net.op(part("part", i), Op::Slice { first: i * width, channels: width }, &[x])?;
        if parts > 1 && i + 1 == parts {
            // Zeros beyond the edge count, as in the published nets.
            if is_first {
                let pool = Op::AvgPool { window: Window::square(3, stride, 1), count_padding: true };
                y = net.op(part("pool", i), pool, &[y])?;
            }
        } else {
            if let Some(&before) = made.last().filter(|_| !is_first) {
                y = net.op(part("sum", i), Op::Add, &[before, y])?;
            }
            let spec = ConvSpec { groups: Groups::Inferred(width), ..ConvSpec::plain(Some(3), stride) };
            let names = [part("convs", i), part("bns", i), part("relus", i)];
            y = net.conv_norm(names.each_ref().map(String::as_str), y, spec, Some(&Op::Relu))?;
        }
        made.push(y);
    }
    net.op(format!("{block}.concat"), Op::Concat, &made)
}

/// Whether split attention has its pool behind it, as timm's nets with one group have it.
pub(super) fn has_pool_after(tensors: &Tensors) -> bool {
    let dims = |what: &str| tensors.shape(&format!("layer1.0.{what}.weight"));
    matches!((dims("conv1"), dims("conv2.fc1")), (Some([out, ..]), Some([_, seen, ..])) if out == seen)
}

/// Split attention: a convolution to `radix` times as many channels, and the weighted sum of these parts.
pub(super) fn split(net: &mut Assembly<'_>, block: &str, mut x: NodeId, stride: usize) -> Result<NodeId> {
    let part = |what: &str| format!("{block}.conv2.{what}");
    let channels = net.channels(x);
    let dims = |what: &str| match net.tensors.shape(&part(&format!("{what}.weight"))) {
        Some(&[out, seen, _, _]) if seen > 0 => [out, seen],
        _ => [channels, channels],
    };
    let ([out, _], [_, seen]) = (dims("conv"), dims("fc1"));
    let (radix, groups) = (out / channels, channels / seen);
    let pool = Op::AvgPool { window: Window::square(3, stride, 1), count_padding: true };
    let is_after = has_pool_after(net.tensors);
    if stride > 1 && !is_after {
        x = net.op(part("avd_first"), pool.clone(), &[x])?;
    }
    let spec = ConvSpec { groups: Groups::Inferred(channels), ..ConvSpec::plain(Some(3), 1) };
    let names = ["conv", "bn0", "act0"].map(part);
    let mut y = net.conv_norm(names.each_ref().map(String::as_str), x, spec, Some(&Op::Relu))?;
    let mut sum = y;
    if radix > 1 {
        let parts: Result<Vec<NodeId>> = (0..radix)
            .map(|i| net.op(part(&format!("part{i}")), Op::Slice { first: i * channels, channels }, &[y]))
            .collect();
        sum = net.op(part("sum"), Op::Add, &parts?)?;
    }
    let point = ConvSpec { groups: Groups::Inferred(channels), ..ConvSpec::plain(Some(1), 1) }.with_bias();
    let mut gate = net.op(part("avgpool"), Op::AdaptiveAvgPool { out: [1; 2] }, &[sum])?;
    let names = ["fc1", "bn1", "act1"].map(part);
    gate = net.conv_norm(names.each_ref().map(String::as_str), gate, point, Some(&Op::Relu))?;
    gate = net.conv(&part("fc2"), gate, point)?;
    if radix > 1 {
        y = weighted(net, &format!("{block}.conv2"), y, gate, [radix, groups])?;
    } else {
        gate = net.op(part("sigmoid"), SIGMOID, &[gate])?;
        y = net.op(part("product"), Op::Mul, &[y, gate])?;
    }
    if stride > 1 && is_after {
        y = net.op(part("avd_last"), pool, &[y])?;
    }
    Ok(y)
}

/// Efficient channel attention: `x` times the sigmoid of a convolution along the channels of its means, with zeros beyond the
/// first and last channel. The convolution is the sum of its taps, each a shift times a number.
pub(super) fn along_channels(net: &mut Assembly<'_>, name: &str, x: NodeId) -> Result<NodeId> {
    let part = |what: &str, i: usize| format!("{name}.{what}{i}");
    let channels = net.channels(x);
    let taps = net.tensors.taps(&format!("{name}.conv.weight"), MOST_TAPS)?;
    let means = net.op(format!("{name}.avgpool"), Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
    let zeros = taps.len() / 2;
    let padded = net.op(format!("{name}.padded"), Op::PadChannels { before: zeros, after: zeros }, &[means])?;
    let mut parts = Vec::new();
    for (first, tap) in taps.iter().enumerate() {
        let shifted = net.op(part("shifted", first), Op::Slice { first, channels }, &[padded])?;
        parts.push(net.op(part("tap", first), Op::Affine(Affine::product([*tap])), &[shifted])?);
    }
    let mut gate = net.op(format!("{name}.conv"), Op::Add, &parts)?;
    gate = net.op(format!("{name}.sigmoid"), SIGMOID, &[gate])?;
    net.op(format!("{name}.product"), Op::Mul, &[x, gate])
}

/// Most taps of a convolution along channels; published nets have up to 7.
const MOST_TAPS: usize = 31;
