//! EfficientNet-Lite 0–4 (Liu & Tan 2020) with timm's names.
//!
//! Inverted residual blocks with ReLU6 and without squeeze-and-excitation. Two families are published with these names and
//! shapes: timm's `tf_efficientnet_lite0` … `4` with TensorFlow's padding and batch-norm eps, and timm's own
//! `efficientnet_lite0` … `4` with symmetric padding and PyTorch's eps. Other families (MobileNetV2, MNASNet …) use the
//! same names with other depths and are not read.

use super::assembly::{Assembly, ConvSpec, Groups, Pad, RELU6};
use super::preprocess::{self, Preparation};
use super::tensors::Tensors;
use super::{BuiltNet, Labels};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// TensorFlow's family, as `--arch` names it.
pub(super) const TENSORFLOW: &str = "efficientnet-lite";

/// timm's own family, as `--arch` names it.
pub(super) const TIMM: &str = "timm-efficientnet-lite";

/// Stride of the first block of each stage.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// Side of the depthwise kernels of each stage.
const KERNELS: [usize; 7] = [3, 3, 5, 3, 5, 5, 3];

/// Channels of the published nets' stem and head, and what an expanding block multiplies its input's channels by.
const STEM: usize = 32;
const HEAD: usize = 1280;
const EXPANSION: usize = 6;

/// Stages after which the resolution drops; the last resolution ends with the head.
const STAGE_ENDS: [usize; 4] = [0, 1, 2, 4];

/// A published size.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Blocks of each stage.
    pub(super) depths: [usize; 7],
    /// Output channels of each stage.
    pub(super) widths: [usize; 7],
    /// Picture side of TensorFlow's family.
    side: usize,
    /// Crop side and resized short side of timm's family.
    timm: [usize; 2],
}

const fn variant(name: &'static str, depths: [usize; 7], widths: [usize; 7], side: usize, timm: [usize; 2]) -> Variant {
    Variant { name, depths, widths, side, timm }
}

pub(super) const VARIANTS: [Variant; 5] = [
    variant("efficientnet-lite0", [1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320], 224, [224, 256]),
    variant("efficientnet-lite1", [1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320], 240, [240, 272]),
    variant("efficientnet-lite2", [1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352], 260, [260, 292]),
    variant("efficientnet-lite3", [1, 3, 3, 5, 5, 6, 1], [24, 32, 48, 96, 136, 232, 384], 280, [300, 331]),
    variant("efficientnet-lite4", [1, 4, 4, 6, 6, 8, 1], [24, 32, 56, 112, 160, 272, 448], 300, [380, 412]),
];

/// Depths of other families with the same tensor names.
const OTHERS: [([usize; 7], &str); 5] = [
    ([1, 2, 3, 4, 3, 3, 1], "timm's mobilenetv2_100 and its other widths"),
    ([1, 3, 4, 5, 4, 4, 1], "timm's mobilenetv2_110d"),
    ([1, 3, 5, 6, 5, 5, 1], "timm's mobilenetv2_120d"),
    ([1, 3, 3, 3, 2, 4, 1], "timm's mnasnet_100 and its other widths"),
    ([1, 3, 4, 4, 4, 4, 1], "timm's spnasnet_100 and fbnetc_100"),
];

/// What the tensors of a block's stage do not say, or, in a draft, what they would.
struct Stage {
    stride: usize,
    /// Side of the depthwise kernel; `None` takes the weight's.
    kernel: Option<usize>,
    out: usize,
    expands: bool,
}

/// How the two families differ.
struct FamilyTraits {
    /// Prefix of the sizes' names.
    prefix: &'static str,
    pad: Pad,
    eps: f64,
    /// Side and preparation of a size; `None` if no size matches.
    prepare: fn(usize, Option<&Variant>) -> Preparation,
    assumed: &'static [&'static str],
}

const OF_TENSORFLOW: FamilyTraits = FamilyTraits {
    prefix: "",
    pad: Pad::Same,
    eps: 1e-3,
    prepare: |channels, variant| preprocess::lite(channels, variant.map_or(224, |v| v.side)),
    assumed: &["relu6", "padding: TensorFlow's same", "batch-norm eps 1e-3"],
};

const OF_TIMM: FamilyTraits = FamilyTraits {
    prefix: "timm-",
    pad: Pad::Half,
    eps: 1e-5,
    prepare: |channels, variant| preprocess::timm(channels, variant.map_or([224, 256], |v| v.timm)),
    assumed: &["relu6", "padding: symmetric", "batch-norm eps 1e-5"],
};

fn listed(depths: [usize; 7]) -> String {
    format!("[{}]", depths.map(|n| n.to_string()).join(","))
}

/// The published size that is drafted.
fn drafted(tensors: &Tensors) -> Option<&'static Variant> {
    tensors.drafted().and_then(|net| VARIANTS.iter().find(|v| v.name == net))
}

/// Blocks of each stage.
fn depths(tensors: &Tensors) -> [usize; 7] {
    if let Some(variant) = drafted(tensors) {
        return variant.depths;
    }
    let block = |stage: usize, block: usize| tensors.has(&format!("blocks.{stage}.{block}.conv_dw.weight"));
    std::array::from_fn(|stage| (0..).take_while(|&i| block(stage, i)).count())
}

/// Published names and the form that each stands for.
pub(super) const PUBLISHED_OF_TENSORFLOW: &[(&str, &str)] = &[
    ("tf_efficientnet_lite0", "efficientnet-lite [1,2,2,3,3,4,1]"),
    ("tf_efficientnet_lite1", "efficientnet-lite [1,3,3,4,4,5,1]"),
    ("tf_efficientnet_lite2", "efficientnet-lite [1,3,3,4,4,5,1]"),
    ("tf_efficientnet_lite3", "efficientnet-lite [1,3,3,5,5,6,1]"),
    ("tf_efficientnet_lite4", "efficientnet-lite [1,4,4,6,6,8,1]"),
];

/// Published names and the form that each stands for.
pub(super) const PUBLISHED_OF_TIMM: &[(&str, &str)] = &[
    ("efficientnet_lite0", "timm-efficientnet-lite [1,2,2,3,3,4,1]"),
    ("efficientnet_lite1", "timm-efficientnet-lite [1,3,3,4,4,5,1]"),
    ("efficientnet_lite2", "timm-efficientnet-lite [1,3,3,4,4,5,1]"),
    ("efficientnet_lite3", "timm-efficientnet-lite [1,3,3,5,5,6,1]"),
    ("efficientnet_lite4", "timm-efficientnet-lite [1,4,4,6,6,8,1]"),
];

/// Whether the tensors belong to a Lite.
///
/// # Errors
/// When the names are a Lite's, but no Lite has these depths or kernels; the message names the families that do.
pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    if !["conv_stem.weight", "blocks.0.0.conv_dw.weight", "conv_head.weight"].iter().all(|n| tensors.has(n)) {
        return Ok(false);
    }
    let depths = depths(tensors);
    if let Some(stage) = depths.iter().position(|&n| n == 0) {
        return Err(missing(stage));
    }
    let kernel = |stage: usize, i: usize| tensors.shape(&format!("blocks.{stage}.{i}.conv_dw.weight"))?.last().copied();
    let kernels = (0..7).all(|stage| (0..depths[stage]).all(|i| kernel(stage, i) == Some(KERNELS[stage])));
    if kernels && VARIANTS.iter().any(|v| v.depths == depths) {
        return Ok(true);
    }
    let other = OTHERS.iter().find(|(of, _)| *of == depths);
    let other =
        other.map_or_else(String::new, |(_, names)| format!("; {names} have these, with other activations or padding"));
    let what = if VARIANTS.iter().any(|v| v.depths == depths) { "kernels" } else { "depths" };
    Err(Error::model(format!(
        "the names are those of an EfficientNet-Lite, but none has stages of {} blocks with these {what}{other}; --arch \
         {TENSORFLOW} or --arch {TIMM} reads the file as one all the same",
        listed(depths)
    )))
}

fn missing(stage: usize) -> Error {
    Error::model(format!("tensor 'blocks.{stage}.0.conv_dw.weight' is missing; expected shape [*, 1, *, *]"))
}

impl FamilyTraits {
    /// How a convolution pads, strides and groups here; the kernel comes from the weight.
    fn spec(&self, stride: usize, groups: Groups, kernel: Option<usize>) -> ConvSpec {
        ConvSpec { groups, ..ConvSpec::plain(kernel, stride).padded(self.pad) }
    }

    fn block(&self, net: &mut Assembly<'_>, name: &str, x: NodeId, stage: Stage) -> Result<NodeId> {
        let Stage { stride, kernel, out, expands } = stage;
        let point = self.spec(1, Groups::One, Some(1));
        let depth = self.spec(stride, Groups::Depthwise, kernel);
        // The n-th convolution with its norm and, but for the last, its activation.
        let layer = |net: &mut Assembly<'_>, n: usize, conv: &str, x, spec, act: Option<&Op>| {
            let names = [format!("{name}.{conv}"), format!("{name}.bn{n}"), format!("{name}.relu{n}")];
            net.conv_norm(names.each_ref().map(String::as_str), x, spec, act)
        };
        let end = if expands {
            let wide = EXPANSION * net.channels(x);
            let mut y = layer(net, 1, "conv_pw", x, point.to(wide), Some(&RELU6))?;
            y = layer(net, 2, "conv_dw", y, depth.to(wide), Some(&RELU6))?;
            layer(net, 3, "conv_pwl", y, point.to(out), None)?
        } else {
            let y = layer(net, 1, "conv_dw", x, depth.to(net.channels(x)), Some(&RELU6))?;
            layer(net, 2, "conv_pw", y, point.to(out), None)?
        };
        if stride == 1 && net.channels(x) == net.channels(end) {
            return net.op(format!("{name}.add"), Op::Add, &[end, x]);
        }
        Ok(end)
    }

    fn build(&self, tensors: &mut Tensors) -> Result<BuiltNet> {
        let depths = depths(tensors);
        let ends: [usize; 7] = std::array::from_fn(|stage| {
            let end = |conv: &str| tensors.shape(&format!("blocks.{stage}.0.{conv}.weight"));
            end("conv_pwl").or(end("conv_pw")).and_then(|s| s.first().copied()).unwrap_or(0)
        });
        if let Some(stage) = depths.iter().position(|&n| n == 0) {
            return Err(missing(stage));
        }
        let drafted = drafted(tensors);
        let variant = drafted.or_else(|| VARIANTS.iter().find(|v| v.depths == depths && v.widths == ends));
        let channels = Assembly::picture_channels(tensors, "conv_stem.weight");
        let preparation = (self.prepare)(channels, variant);
        let [h, w] = preparation.preprocess.crop;

        let mut net = Assembly::new(tensors, Shape::new(channels, h, w), self.eps);
        let mut x = net.builder.input();
        let stem = self.spec(2, Groups::One, None).to(STEM);
        x = net.conv_norm(["conv_stem", "bn1", "relu1"], x, stem, Some(&RELU6))?;
        let mut resolutions = 0;
        for (stage, &blocks) in depths.iter().enumerate() {
            for i in 0..blocks {
                let name = format!("blocks.{stage}.{i}");
                let of = Stage {
                    stride: if i == 0 { STRIDES[stage] } else { 1 },
                    kernel: drafted.map(|_| KERNELS[stage]),
                    out: drafted.map_or(0, |v| v.widths[stage]),
                    expands: drafted.map_or_else(|| net.tensors.has(&format!("{name}.conv_pwl.weight")), |_| stage > 0),
                };
                x = self.block(&mut net, &name, x, of)?;
            }
            if STAGE_ENDS.contains(&stage) {
                resolutions += 1;
                net.builder.stage(format!("stage{resolutions}"), x);
            }
        }
        let head = self.spec(1, Groups::One, Some(1)).to(HEAD);
        x = net.conv_norm(["conv_head", "bn2", "relu2"], x, head, Some(&RELU6))?;
        net.builder.stage(format!("stage{}", resolutions + 1), x);
        x = net.pooled(1, x)?;
        x = net.head(x, &[("classifier", 1000)], &Op::Relu)?;
        let graph = net.builder.finish(x)?;
        let form = format!("{}efficientnet-lite {}", self.prefix, listed(depths));
        Ok(BuiltNet {
            architecture: variant.map_or_else(|| form.clone(), |v| format!("{}{}", self.prefix, v.name)),
            form,
            preparation,
            labels: Labels::for_pictures(graph.classes()),
            graph,
            assumed: self.assumed.to_vec(),
        })
    }
}

/// TensorFlow's family.
pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    OF_TENSORFLOW.build(tensors)
}

/// timm's own family.
pub(super) fn build_timm(tensors: &mut Tensors) -> Result<BuiltNet> {
    OF_TIMM.build(tensors)
}
