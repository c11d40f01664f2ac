//! Nets of inverted residual blocks with timm's names: MobileNetV2 to V4, MNASNet, EfficientNet and their kin. Kinds of blocks, channels, kernels and gates are read from the tensors; strides and activations are those
//! of the published net whose stages have these kernels and gates.
//!
//! TensorFlow's weights (`tf_...`) have the same names and shapes, other padding and another batch-norm eps.

use super::assembly::{Assembly, ConvSpec, HARD_SIGMOID, HARD_SWISH, Pad, RELU6, SIGMOID, SILU};
use super::names::Dialect;
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::{Error, Result};
use crate::graph::{Node, NodeId, Op};
use crate::tensor::Shape;

/// A stage as the tensors of its first block tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Depthwise convolutions of this kernel, with or without gates.
    Deep(usize),
    DeepGated(usize),
    /// Full convolutions that expand, of this kernel.
    Fused(usize),
    /// One convolution a block.
    Plain,
    /// MobileNetV4's blocks: a depthwise convolution before or after the expansion, both or none.
    Universal,
}

use Stage::{Deep, DeepGated, Fused, Plain, Universal};

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Relu,
    Relu6,
    Swish,
    Silu,
    Sigmoid,
    HardSigmoid,
}

impl Act {
    const fn op(self) -> Op {
        match self {
            Self::Relu => Op::Relu,
            Self::Relu6 => RELU6,
            Self::Swish => HARD_SWISH,
            Self::Silu => SILU,
            Self::Sigmoid => SIGMOID,
            Self::HardSigmoid => HARD_SIGMOID,
        }
    }
}

/// Published nets with the same stages.
struct Kind {
    /// Name of the family in the table of architectures.
    family: &'static str,
    form: &'static str,
    stages: &'static [Stage],
    /// Blocks of each stage, if only those are known.
    depths: &'static [&'static [usize]],
    strides: &'static [usize],
    /// Activation of the stem and the head; of the stages up to `early`, of later ones.
    ends: Act,
    early: (usize, Act),
    late: Act,
    /// Activation and gate of squeeze-and-excitation.
    gate: [Act; 2],
    /// Whether TensorFlow's weights have the same tensors.
    is_twin: bool,
    /// Whether blocks of one convolution, or of a depthwise and a pointwise one, have an activation at their end and no
    /// shortcut.
    is_straight: bool,
}

const STRIDES: &[usize] = &[1, 2, 2, 2, 1, 2, 1];
const SILU_GATE: [Act; 2] = [Act::Silu, Act::Sigmoid];
const RELU_GATE: [Act; 2] = [Act::Relu, Act::Sigmoid];
const HARD_GATE: [Act; 2] = [Act::Relu, Act::HardSigmoid];

const fn kind(family: &'static str, form: &'static str, stages: &'static [Stage], act: Act) -> Kind {
    let gate = if matches!(act, Act::Silu) { SILU_GATE } else { RELU_GATE };
    Kind {
        family,
        form,
        stages,
        depths: &[],
        strides: STRIDES,
        ends: act,
        early: (0, act),
        late: act,
        gate,
        is_twin: false,
        is_straight: false,
    }
}

/// A HardCoRe-NAS (Nayman 2021): MobileNetV3 with other blocks.
const fn hardcore(stages: &'static [Stage], depths: &'static [&'static [usize]]) -> Kind {
    let kind = kind(FAMILY, "hardcorenas", stages, Act::Swish);
    Kind { depths, early: (3, Act::Relu), gate: HARD_GATE, ..kind }
}

/// A MobileNetV4 of convolutions (Qin 2024).
const fn mobilenet_v4(stages: &'static [Stage], depths: &'static [&'static [usize]]) -> Kind {
    let kind = kind(FAMILY, "mobilenet-v4", stages, Act::Relu);
    Kind { depths, strides: &[2, 2, 2, 2, 1], is_straight: true, ..kind }
}

/// Name of the family of nets that have no other.
pub(super) const FAMILY: &str = "timm-mobile";

static KINDS: [Kind; 17] = [
    Kind {
        depths: &[&[1, 2, 3, 4, 3, 3, 1], &[1, 3, 4, 5, 4, 4, 1], &[1, 3, 5, 6, 5, 5, 1]],
        ..kind("mobilenet-v2", "mobilenet-v2", &[Deep(3); 7], Act::Relu6)
    },
    Kind {
        depths: &[&[1, 3, 3, 3, 2, 4, 1]],
        ..kind(FAMILY, "mnasnet", &[Deep(3), Deep(3), Deep(5), Deep(5), Deep(3), Deep(5), Deep(3)], Act::Relu)
    },
    Kind {
        depths: &[&[1, 2, 3, 4, 2, 3, 1]],
        ..kind(
            FAMILY,
            "semnasnet",
            &[Deep(3), Deep(3), DeepGated(5), Deep(3), DeepGated(3), DeepGated(5), Deep(3)],
            Act::Relu,
        )
    },
    Kind {
        depths: &[&[1, 3, 4, 4, 4, 4, 1]],
        ..kind(FAMILY, "spnasnet or fbnet", &[Deep(3), Deep(3), Deep(5), Deep(5), Deep(5), Deep(5), Deep(3)], Act::Relu)
    },
    Kind {
        is_twin: true,
        ..kind(
            "efficientnet",
            "efficientnet",
            &[DeepGated(3), DeepGated(3), DeepGated(5), DeepGated(3), DeepGated(5), DeepGated(5), DeepGated(3)],
            Act::Silu,
        )
    },
    Kind {
        depths: &[&[1, 2, 3, 4, 2, 3, 1]],
        ends: Act::Swish,
        early: (3, Act::Relu),
        gate: HARD_GATE,
        is_twin: true,
        ..kind(
            "mobilenet-v3",
            "mobilenet-v3-large",
            &[Deep(3), Deep(3), DeepGated(5), Deep(3), DeepGated(3), DeepGated(5), Plain],
            Act::Swish,
        )
    },
    Kind {
        depths: &[&[1, 2, 3, 2, 3, 1]],
        strides: &[2, 2, 2, 1, 2, 1],
        ends: Act::Swish,
        early: (2, Act::Relu),
        gate: HARD_GATE,
        is_twin: true,
        ..kind(
            "mobilenet-v3",
            "mobilenet-v3-small",
            &[DeepGated(3), Deep(3), DeepGated(5), DeepGated(5), DeepGated(5), Plain],
            Act::Swish,
        )
    },
    Kind {
        is_twin: true,
        ..kind(
            FAMILY,
            "efficientnet-v2",
            &[Plain, Fused(3), Fused(3), DeepGated(3), DeepGated(3), DeepGated(3), DeepGated(3)],
            Act::Silu,
        )
    },
    Kind {
        // The larger ones have no shortcut in their first stage.
        depths: &[&[1, 2, 4, 5, 4, 2]],
        is_twin: true,
        ..kind(FAMILY, "efficientnet-edge", &[Fused(3), Fused(3), Fused(3), Deep(5), Deep(5), Deep(5)], Act::Relu)
    },
    hardcore(&[Deep(3), Deep(5), Deep(5), DeepGated(5), DeepGated(5), DeepGated(5), Plain], &[&[1, 2, 2, 2, 2, 2, 1]]),
    hardcore(&[Deep(3), Deep(5), Deep(5), Deep(5), Deep(5), DeepGated(5), Plain], &[&[1, 3, 3, 4, 4, 3, 1]]),
    hardcore(&[Deep(3), Deep(5), Deep(5), Deep(5), DeepGated(5), DeepGated(5), Plain], &[&[1, 2, 4, 4, 4, 3, 1]]),
    hardcore(
        &[Deep(3), DeepGated(5), DeepGated(5), DeepGated(5), DeepGated(3), DeepGated(5), Plain],
        &[&[1, 2, 3, 4, 4, 4, 1], &[1, 2, 2, 4, 4, 4, 1]],
    ),
    hardcore(
        &[Deep(3), DeepGated(5), DeepGated(5), DeepGated(5), DeepGated(5), DeepGated(5), Plain],
        &[&[1, 2, 4, 2, 4, 4, 1]],
    ),
    // PP-LCNet (Cui 2021).
    Kind {
        depths: &[&[1, 2, 2, 2, 4, 2]],
        strides: &[1, 2, 2, 2, 1, 2],
        gate: HARD_GATE,
        is_straight: true,
        ..kind(FAMILY, "lcnet", &[Deep(3), Deep(3), Deep(3), Deep(3), Deep(5), DeepGated(5)], Act::Swish)
    },
    mobilenet_v4(&[Plain, Plain, Universal, Universal, Plain], &[&[2, 2, 6, 6, 1]]),
    mobilenet_v4(&[Fused(3), Universal, Universal, Universal, Plain], &[&[1, 2, 8, 11, 1], &[1, 2, 11, 13, 1]]),
];

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("mnasnet_050", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet_075", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet_100", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet_140", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet0_5", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet0_75", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet1_0", "mnasnet [1,3,3,3,2,4,1]"),
    ("mnasnet1_3", "mnasnet [1,3,3,3,2,4,1]"),
    ("semnasnet_050", "semnasnet [1,2,3,4,2,3,1]"),
    ("semnasnet_075", "semnasnet [1,2,3,4,2,3,1]"),
    ("semnasnet_100", "semnasnet [1,2,3,4,2,3,1]"),
    ("semnasnet_140", "semnasnet [1,2,3,4,2,3,1]"),
    ("spnasnet_100", "spnasnet or fbnet [1,3,4,4,4,4,1]"),
    ("fbnetc_100", "spnasnet or fbnet [1,3,4,4,4,4,1]"),
    ("efficientnet_es", "efficientnet-edge [1,2,4,5,4,2]"),
    ("efficientnet_v2_s", "efficientnet-v2 [2,4,4,6,9,15]"),
    ("efficientnet_v2_m", "efficientnet-v2 [3,5,5,7,14,18,5]"),
    ("efficientnet_v2_l", "efficientnet-v2 [4,7,7,10,19,25,7]"),
    ("efficientnetv2_s", "efficientnet-v2 [2,4,4,6,9,15]"),
    ("efficientnetv2_m", "efficientnet-v2 [3,5,5,7,14,18,5]"),
    ("efficientnetv2_l", "efficientnet-v2 [4,7,7,10,19,25,7]"),
    ("efficientnetv2_rw_t", "efficientnet-v2 [2,4,4,6,9,14]"),
    ("hardcorenas_a", "hardcorenas [1,2,2,2,2,2,1]"),
    ("hardcorenas_b", "hardcorenas [1,3,3,4,4,3,1]"),
    ("hardcorenas_c", "hardcorenas [1,2,4,4,4,3,1]"),
    ("hardcorenas_d", "hardcorenas [1,2,3,4,4,4,1]"),
    ("hardcorenas_e", "hardcorenas [1,2,4,2,4,4,1]"),
    ("hardcorenas_f", "hardcorenas [1,2,2,4,4,4,1]"),
    ("lcnet_035", "lcnet [1,2,2,2,4,2]"),
    ("lcnet_050", "lcnet [1,2,2,2,4,2]"),
    ("lcnet_075", "lcnet [1,2,2,2,4,2]"),
    ("lcnet_100", "lcnet [1,2,2,2,4,2]"),
    ("lcnet_150", "lcnet [1,2,2,2,4,2]"),
    ("mobilenetv4_conv_small_035", "mobilenet-v4 [2,2,6,6,1]"),
    ("mobilenetv4_conv_small_050", "mobilenet-v4 [2,2,6,6,1]"),
    ("mobilenetv4_conv_small", "mobilenet-v4 [2,2,6,6,1]"),
    ("mobilenetv4_conv_medium", "mobilenet-v4 [1,2,8,11,1]"),
    ("mobilenetv4_conv_large", "mobilenet-v4 [1,2,11,13,1]"),
];

/// Published names of TensorFlow's weights; the pruned nets are made of these.
pub(super) const PUBLISHED_OF_TENSORFLOW: &[(&str, &str)] = &[
    ("tf_efficientnet_b0", "efficientnet [1,2,2,3,3,4,1]"),
    ("tf_efficientnet_b1", "efficientnet [2,3,3,4,4,5,2]"),
    ("tf_efficientnet_b2", "efficientnet [2,3,3,4,4,5,2]"),
    ("tf_efficientnet_b3", "efficientnet [2,3,3,5,5,6,2]"),
    ("tf_efficientnet_b4", "efficientnet [2,4,4,6,6,8,2]"),
    ("tf_efficientnet_b5", "efficientnet [3,5,5,7,7,9,3]"),
    ("tf_efficientnet_b6", "efficientnet [3,6,6,8,8,11,3]"),
    ("tf_efficientnet_b7", "efficientnet [4,7,7,10,10,13,4]"),
    ("efficientnet_b1_pruned", "pruned-efficientnet [2,3,3,4,4,5,2]"),
    ("efficientnet_b2_pruned", "pruned-efficientnet [2,3,3,4,4,5,2]"),
    ("efficientnet_b3_pruned", "pruned-efficientnet [2,3,3,5,5,6,2]"),
    ("tf_efficientnet_es", "efficientnet-edge [1,2,4,5,4,2]"),
    ("tf_efficientnetv2_s", "efficientnet-v2 [2,4,4,6,9,15]"),
    ("tf_efficientnetv2_m", "efficientnet-v2 [3,5,5,7,14,18,5]"),
    ("tf_efficientnetv2_l", "efficientnet-v2 [4,7,7,10,19,25,7]"),
    ("tf_efficientnetv2_b0", "efficientnet-v2 [1,2,2,3,5,8]"),
    ("tf_efficientnetv2_b1", "efficientnet-v2 [2,3,3,4,6,9]"),
    ("tf_efficientnetv2_b2", "efficientnet-v2 [2,3,3,4,6,10]"),
    ("tf_efficientnetv2_b3", "efficientnet-v2 [2,3,3,5,7,12]"),
    ("tf_mobilenetv3_large_100", "mobilenet-v3-large [1,2,3,4,2,3,1]"),
    ("tf_mobilenetv3_large_075", "mobilenet-v3-large [1,2,3,4,2,3,1]"),
    ("tf_mobilenetv3_small_100", "mobilenet-v3-small [1,2,3,2,3,1]"),
    ("tf_mobilenetv3_small_075", "mobilenet-v3-small [1,2,3,2,3,1]"),
];

/// torchvision's name for the EfficientNetV2 dialects.
const V2_OF_TORCHVISION: &str = "torchvision's EfficientNetV2";

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "torchvision's MNASNet",
        tells: &["layers.0.weight", "layers.8.0.layers.0.weight", "layers.14.weight"],
        rules: &[
            ("layers.#.#.layers.0", "blocks.{0-7}.{1}.conv_pw"),
            ("layers.#.#.layers.1", "blocks.{0-7}.{1}.bn1"),
            ("layers.#.#.layers.3", "blocks.{0-7}.{1}.conv_dw"),
            ("layers.#.#.layers.4", "blocks.{0-7}.{1}.bn2"),
            ("layers.#.#.layers.6", "blocks.{0-7}.{1}.conv_pwl"),
            ("layers.#.#.layers.7", "blocks.{0-7}.{1}.bn3"),
            ("layers.0", "conv_stem"),
            ("layers.1", "bn1"),
            ("layers.3", "blocks.0.0.conv_dw"),
            ("layers.4", "blocks.0.0.bn1"),
            ("layers.6", "blocks.0.0.conv_pw"),
            ("layers.7", "blocks.0.0.bn2"),
            ("layers.14", "conv_head"),
            ("layers.15", "bn2"),
        ],
    },
    Dialect {
        name: V2_OF_TORCHVISION,
        tells: &["features.0.0.weight", "features.1.0.block.0.0.weight", "features.2.0.block.1.0.weight"],
        rules: &[
            ("features.0.0", "conv_stem"),
            ("features.0.1", "bn1"),
            ("features.1.#.block.0.0", "blocks.0.{0}.conv"),
            ("features.1.#.block.0.1", "blocks.0.{0}.bn1"),
            ("features.2.#.block.0.0", "blocks.1.{0}.conv_exp"),
            ("features.2.#.block.0.1", "blocks.1.{0}.bn1"),
            ("features.2.#.block.1.0", "blocks.1.{0}.conv_pwl"),
            ("features.2.#.block.1.1", "blocks.1.{0}.bn2"),
            ("features.3.#.block.0.0", "blocks.2.{0}.conv_exp"),
            ("features.3.#.block.0.1", "blocks.2.{0}.bn1"),
            ("features.3.#.block.1.0", "blocks.2.{0}.conv_pwl"),
            ("features.3.#.block.1.1", "blocks.2.{0}.bn2"),
            ("features.#.#.block.0.0", "blocks.{0-1}.{1}.conv_pw"),
            ("features.#.#.block.0.1", "blocks.{0-1}.{1}.bn1"),
            ("features.#.#.block.1.0", "blocks.{0-1}.{1}.conv_dw"),
            ("features.#.#.block.1.1", "blocks.{0-1}.{1}.bn2"),
            ("features.#.#.block.2.fc1", "blocks.{0-1}.{1}.se.conv_reduce"),
            ("features.#.#.block.2.fc2", "blocks.{0-1}.{1}.se.conv_expand"),
            ("features.#.#.block.3.0", "blocks.{0-1}.{1}.conv_pwl"),
            ("features.#.#.block.3.1", "blocks.{0-1}.{1}.bn3"),
            ("features.#.0", "conv_head"),
            ("features.#.1", "bn2"),
        ],
    },
];

/// Depths and stages of a file.
fn stages(tensors: &Tensors) -> Vec<(usize, Stage)> {
    let block = |stage: usize, i: usize| -> Option<Stage> {
        let side = |conv: &str| tensors.shape(&format!("blocks.{stage}.{i}.{conv}.weight"))?.last().copied();
        let gated = tensors.has(&format!("blocks.{stage}.{i}.se.conv_reduce.weight"));
        let deep = side("conv_dw").map(|side| if gated { DeepGated(side) } else { Deep(side) });
        let others = [side("conv_exp").map(Fused), side("conv").map(|_| Plain), side("pw_exp.conv").map(|_| Universal)];
        others.into_iter().fold(deep, Option::or)
    };
    let stage = |stage: usize| Some(((0..).take_while(|&i| block(stage, i).is_some()).count(), block(stage, 0)?));
    (0..).map_while(stage).collect()
}

/// The kind of a file.
fn found(tensors: &Tensors) -> Option<&'static Kind> {
    if !["conv_stem.weight", "bn1.running_mean", "conv_head.weight"].iter().all(|n| tensors.has(n)) {
        return None;
    }
    let (depths, stages): (Vec<usize>, Vec<Stage>) = stages(tensors).into_iter().unzip();
    // The small EfficientNetV2 lacks the last stage.
    let same = |kind: &Kind| kind.stages == stages || kind.form == "efficientnet-v2" && kind.stages[..6] == stages;
    let mut kinds = KINDS.iter().filter(|kind| same(kind));
    kinds.find(|kind| kind.depths.is_empty() || kind.depths.contains(&&depths[..]))
}

/// Whether the file is a net of `family` with timm's names.
pub(super) fn is_of(tensors: &Tensors, family: &str) -> bool {
    found(tensors).is_some_and(|kind| kind.family == family)
}

/// Nets that have no other family.
pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    Ok(is_of(tensors, FAMILY))
}

/// Nets of which TensorFlow's weights have the same tensors.
pub(super) fn recognise_tensorflow(tensors: &Tensors) -> Result<bool> {
    Ok(found(tensors).is_some_and(|kind| kind.is_twin))
}

/// What tensors do not tell of a block.
#[derive(Clone, Copy)]
struct Block<'a> {
    stride: usize,
    pad: Pad,
    act: &'a Op,
    gate: &'a [Op; 2],
    is_straight: bool,
}

/// A block: kind by its tensors. A shortcut joins where the shapes allow it.
fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, of: Block<'_>) -> Result<NodeId> {
    let has = |net: &Assembly<'_>, conv: &str| net.tensors.has(&format!("{name}.{conv}.weight"));
    let is_universal = has(net, "pw_exp.conv");
    let y = if is_universal { universal(net, name, x, of)? } else { inverted(net, name, x, of)? };
    if of.stride == 1 && net.channels(x) == net.channels(y) && (is_universal || !of.is_straight) {
        return net.op(format!("{name}.add"), Op::Add, &[y, x]);
    }
    Ok(y)
}

/// The convolutions of an inverted residual block, or of a simpler one.
fn inverted(net: &mut Assembly<'_>, name: &str, x: NodeId, of: Block<'_>) -> Result<NodeId> {
    let has = |net: &Assembly<'_>, conv: &str| net.tensors.has(&format!("{name}.{conv}.weight"));
    let mut norms = 0;
    let mut layer = |net: &mut Assembly<'_>, conv: &str, x, spec: ConvSpec, act: Option<&Op>| {
        norms += 1;
        let names = [format!("{name}.{conv}"), format!("{name}.bn{norms}"), format!("{name}.act{norms}")];
        net.conv_norm(names.each_ref().map(String::as_str), x, spec.padded(of.pad), act)
    };
    let (point, full) = (ConvSpec::plain(Some(1), 1), ConvSpec::plain(None, of.stride));
    let (mut y, mut last, mut end) = (x, "conv_pwl", None);
    if has(net, "conv_dw") {
        if has(net, "conv_pwl") {
            y = layer(net, "conv_pw", y, point, Some(of.act))?;
        } else {
            (last, end) = ("conv_pw", of.is_straight.then_some(of.act));
        }
        let channels = net.channels(y);
        y = layer(net, "conv_dw", y, full.depthwise(channels), Some(of.act))?;
    } else if has(net, "conv_exp") {
        y = layer(net, "conv_exp", y, full, Some(of.act))?;
    } else {
        return layer(net, "conv", y, full, Some(of.act));
    }
    if has(net, "se.conv_reduce") {
        let names = ["conv_reduce", "conv_expand"].map(|conv| format!("{name}.se.{conv}"));
        let functions = [&of.gate[0], &of.gate[1]];
        y = net.gated(&format!("{name}.se"), names.each_ref().map(String::as_str), y, 0, functions)?;
    }
    layer(net, last, y, point, end)
}

/// The convolutions of MobileNetV4's block. The stride is that of the depthwise convolution in the middle, or else of the
/// first one.
fn universal(net: &mut Assembly<'_>, name: &str, x: NodeId, of: Block<'_>) -> Result<NodeId> {
    let [has_start, has_middle] =
        ["dw_start", "dw_mid"].map(|part| net.tensors.has(&format!("{name}.{part}.conv.weight")));
    let layer = |net: &mut Assembly<'_>, part: &str, x, spec: ConvSpec, act: Option<&Op>| {
        let names = ["conv", "bn", "act"].map(|end| format!("{name}.{part}.{end}"));
        net.conv_norm(names.each_ref().map(String::as_str), x, spec.padded(of.pad), act)
    };
    let deep = |net: &Assembly<'_>, x, stride| ConvSpec::plain(None, stride).depthwise(net.channels(x));
    let point = ConvSpec::plain(Some(1), 1);
    let mut y = x;
    if has_start {
        let spec = deep(net, y, if has_middle { 1 } else { of.stride });
        y = layer(net, "dw_start", y, spec, None)?;
    }
    y = layer(net, "pw_exp", y, point, Some(of.act))?;
    if has_middle {
        let spec = deep(net, y, of.stride);
        y = layer(net, "dw_mid", y, spec, Some(of.act))?;
    }
    layer(net, "pw_proj", y, point, None)
}

/// The net that `tensors` hold, with `pad` and `eps`.
fn built(tensors: &mut Tensors, pad: Pad, eps: f64, assumed: Vec<&'static str>) -> Result<BuiltNet> {
    let Some(kind) = found(tensors) else {
        return Err(Error::model(
            "tensor 'conv_stem.weight' is missing, or its stages are of no known net of inverted residual blocks",
        ));
    };
    let depths: Vec<usize> = stages(tensors).into_iter().map(|(depth, _)| depth).collect();
    let channels = Assembly::picture_channels(tensors, "conv_stem.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), eps);
    let (ends, gate) = (kind.ends.op(), kind.gate.map(Act::op));
    let mut x = net.builder.input();
    x = net.conv_norm(["conv_stem", "bn1", "act1"], x, ConvSpec::plain(Some(3), 2).padded(pad), Some(&ends))?;
    let mut resolutions = 0;
    for (stage, &blocks) in depths.iter().enumerate() {
        let act = if stage < kind.early.0 { kind.early.1 } else { kind.late }.op();
        if kind.strides[stage] > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        for i in 0..blocks {
            let stride = if i == 0 { kind.strides[stage] } else { 1 };
            let of = Block { stride, pad, act: &act, gate: &gate, is_straight: kind.is_straight };
            x = block(&mut net, &format!("blocks.{stage}.{i}"), x, of)?;
        }
    }
    let point = ConvSpec::plain(Some(1), 1);
    if net.tensors.has("bn2.running_mean") {
        x = net.conv_norm(["conv_head", "bn2", "act2"], x, point.padded(pad), Some(&ends))?;
        net.builder.stage(format!("stage{}", resolutions + 1), x);
    } else {
        // MobileNetV3 and V4 have their last convolution after the pool.
        net.builder.stage(format!("stage{}", resolutions + 1), x);
        x = net.op("global_pool", Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
        if net.tensors.has("norm_head.running_mean") {
            x = net.conv_norm(["conv_head", "norm_head", "act2"], x, point, Some(&ends))?;
        } else {
            x = net.conv("conv_head", x, point.with_bias())?;
            x = net.op("act2", ends, &[x])?;
        }
    }
    let graph = net.classified("classifier", x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    // Widths of published nets are multiples of 8.
    let is_uneven = |node: &Node| matches!(&node.op, Op::Conv(conv) if !conv.weight.dims()[0].is_multiple_of(8));
    let mut ends = graph.nodes().iter().filter(|node| node.name.ends_with("conv_pwl"));
    let pruned = if kind.form == "efficientnet" && ends.any(is_uneven) { "pruned-" } else { "" };
    let form = format!("{pruned}{} [{}]", kind.form, listed.join(","));
    Ok(BuiltNet::of_pictures(graph, form, assumed, preprocess::timm(channels, [224, 256])))
}

/// timm's own weights; torchvision's, where they have other names for the same.
pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let is_v2 = tensors.dialect == V2_OF_TORCHVISION;
    let (eps, named) = if is_v2 { (1e-3, "batch-norm eps 1e-3") } else { (1e-5, "batch-norm eps 1e-5") };
    let is_twin = found(tensors).is_some_and(|kind| kind.is_twin);
    if is_twin && tensors.dialect.is_empty() && !tensors.told {
        tensors.warn(format!(
            "taken for weights that were trained in PyTorch, but files of TensorFlow's weights (timm's tf_...) have the same \
             names and shapes and differ in padding and batch-norm eps: --arch {TENSORFLOW} reads them",
        ));
    }
    built(
        tensors,
        Pad::Half,
        eps,
        vec!["activations and strides of the published net", "padding: symmetric", USUALLY_ASSUMED, named],
    )
}

/// The family of TensorFlow's weights, as `--arch` names it.
pub(super) const TENSORFLOW: &str = "tf-mobile";

/// TensorFlow's weights.
pub(super) fn build_tensorflow(tensors: &mut Tensors) -> Result<BuiltNet> {
    let assumed = vec![
        "activations and strides of the published net",
        "padding: TensorFlow's same",
        USUALLY_ASSUMED,
        "batch-norm eps 1e-3",
    ];
    built(tensors, Pad::Same, 1e-3, assumed)
}
