//! EfficientNet-Lite 0–4 (Liu & Tan 2020) with timm's names of `tf_efficientnet_lite0` … `4`.
//!
//! Inverted residual blocks with ReLU6 and without squeeze-and-excitation; TensorFlow's padding and batch-norm eps.

use super::assembly::{Assembly, Bias, ConvSpec, Groups, Pad};
use super::tensors::Tensors;
use super::{Built, Labels, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// Stride of the first block of each stage.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// Stages after which the resolution falls; the last resolution ends with the head.
const STAGE_ENDS: [usize; 4] = [0, 1, 2, 4];

/// Name, picture side, blocks and output channels of each stage.
pub(super) type Variant = (&'static str, usize, [usize; 7], [usize; 7]);

pub(super) const VARIANTS: [Variant; 5] = [
    ("efficientnet-lite0", 224, [1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320]),
    ("efficientnet-lite1", 240, [1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320]),
    ("efficientnet-lite2", 260, [1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352]),
    ("efficientnet-lite3", 280, [1, 3, 3, 5, 5, 6, 1], [24, 32, 48, 96, 136, 232, 384]),
    ("efficientnet-lite4", 300, [1, 4, 4, 6, 6, 8, 1], [24, 32, 56, 112, 160, 272, 448]),
];

pub(super) fn recognise(tensors: &Tensors) -> bool {
    ["conv_stem.weight", "blocks.0.0.conv_dw.weight", "conv_head.weight"].iter().all(|n| tensors.has(n))
}

/// How a convolution pads, strides and groups here; the kernel comes from the weight.
fn spec(stride: usize, groups: Groups, kernel: Option<usize>) -> ConvSpec {
    ConvSpec { kernel, stride, pad: Pad::Same, groups, bias: Bias::Absent }
}

fn conv_norm(net: &mut Assembly<'_>, conv: &str, norm: &str, x: NodeId, spec: ConvSpec) -> Result<NodeId> {
    let y = net.conv(conv, x, spec)?;
    net.batch_norm(norm, y)
}

fn relu6(net: &mut Assembly<'_>, name: impl Into<String>, x: NodeId) -> Result<NodeId> {
    net.op(name, Op::Clamp { lo: 0.0, hi: 6.0 }, &[x])
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, stride: usize) -> Result<NodeId> {
    let point = spec(1, Groups::One, Some(1));
    let depth = spec(stride, Groups::Depthwise, None);
    let mut y = x;
    let end = if net.tensors.has(&format!("{name}.conv_pwl.weight")) {
        y = conv_norm(net, &format!("{name}.conv_pw"), &format!("{name}.bn1"), y, point)?;
        y = relu6(net, format!("{name}.relu1"), y)?;
        y = conv_norm(net, &format!("{name}.conv_dw"), &format!("{name}.bn2"), y, depth)?;
        y = relu6(net, format!("{name}.relu2"), y)?;
        conv_norm(net, &format!("{name}.conv_pwl"), &format!("{name}.bn3"), y, point)?
    } else {
        y = conv_norm(net, &format!("{name}.conv_dw"), &format!("{name}.bn1"), y, depth)?;
        y = relu6(net, format!("{name}.relu1"), y)?;
        conv_norm(net, &format!("{name}.conv_pw"), &format!("{name}.bn2"), y, point)?
    };
    if stride == 1 && net.channels(x) == net.channels(end) {
        return net.op(format!("{name}.add"), Op::Add, &[end, x]);
    }
    Ok(end)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<Built> {
    let blocks_of =
        |stage: usize| (0..).take_while(|block| tensors.has(&format!("blocks.{stage}.{block}.conv_dw.weight"))).count();
    let depths: [usize; 7] = std::array::from_fn(blocks_of);
    let ends: [usize; 7] = std::array::from_fn(|stage| {
        let end = |conv: &str| tensors.shape(&format!("blocks.{stage}.0.{conv}.weight"));
        end("conv_pwl").or(end("conv_pw")).and_then(|s| s.first().copied()).unwrap_or(0)
    });
    if let Some(stage) = depths.iter().position(|&n| n == 0) {
        return Err(Error::model(format!(
            "tensor 'blocks.{stage}.0.conv_dw.weight' is missing; expected shape [*, 1, *, *]"
        )));
    }
    let variant = VARIANTS.iter().find(|v| v.2 == depths && v.3 == ends);
    let side = variant.map_or(224, |v| v.1);

    let channels = Assembly::picture_channels(tensors, "conv_stem.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, side, side), 1e-3);
    let mut x = net.builder.input();
    x = conv_norm(&mut net, "conv_stem", "bn1", x, spec(2, Groups::One, None))?;
    x = relu6(&mut net, "relu1", x)?;
    let mut resolutions = 0;
    for (stage, &blocks) in depths.iter().enumerate() {
        for i in 0..blocks {
            let stride = if i == 0 { STRIDES[stage] } else { 1 };
            x = block(&mut net, &format!("blocks.{stage}.{i}"), x, stride)?;
        }
        if STAGE_ENDS.contains(&stage) {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
    }
    x = conv_norm(&mut net, "conv_head", "bn2", x, spec(1, Groups::One, Some(1)))?;
    x = relu6(&mut net, "relu2", x)?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    x = net.pooled(1, x)?;
    x = net.linear("classifier", x, Bias::Present)?;
    let graph = net.builder.finish(x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    Ok(Built {
        architecture: variant.map_or_else(|| format!("efficientnet-lite [{}]", listed.join(",")), |v| v.0.to_string()),
        preprocess: preprocess::lite(channels, side),
        labels: Labels::for_pictures(graph.classes()),
        graph,
    })
}
