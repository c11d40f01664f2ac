//! Nets of inverted residual blocks with timm's names: MobileNetV2, MobileNetV3, MNASNet, EfficientNet and their
//! kin. Kinds of blocks, channels, kernels and gates are read from the tensors; strides and activations are those
//! of the published net whose stages have these kernels and gates.
//!
//! TensorFlow's weights (`tf_...`) have the same names and shapes, other padding and another batch-norm eps.

use super::assembly::{Assembly, ConvSpec, HARD_SIGMOID, HARD_SWISH, Pad, RELU6, SIGMOID, SILU};
use super::names::Dialect;
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::Shape;

/// A stage as its tensors tell it: kind and kernel of its first block, and whether its last block has a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Depthwise convolutions of this kernel, with or without gates.
    Deep(usize),
    DeepGated(usize),
    /// Full convolutions that expand, of this kernel.
    Fused(usize),
    /// One convolution a block.
    Plain,
}

use Stage::{Deep, DeepGated, Fused, Plain};

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
    }
}

/// Name of the family of nets that have no other.
pub(super) const FAMILY: &str = "timm-mobile";

static KINDS: [Kind; 9] = [
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
        is_twin: true,
        ..kind(FAMILY, "efficientnet-edge", &[Fused(3), Fused(3), Fused(3), Deep(5), Deep(5), Deep(5)], Act::Relu)
    },
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
    ("efficientnetv2_rw_s", "efficientnet-v2 [2,4,4,6,9,15]"),
];

/// Published names of TensorFlow's weights.
pub(super) const PUBLISHED_OF_TENSORFLOW: &[(&str, &str)] = &[
    ("tf_efficientnet_b0", "efficientnet [1,2,2,3,3,4,1]"),
    ("tf_efficientnet_b1", "efficientnet [2,3,3,4,4,5,2]"),
    ("tf_efficientnet_b2", "efficientnet [2,3,3,4,4,5,2]"),
    ("tf_efficientnet_b3", "efficientnet [2,3,3,5,5,6,2]"),
    ("tf_efficientnet_b4", "efficientnet [2,4,4,6,6,8,2]"),
    ("tf_efficientnet_b5", "efficientnet [3,5,5,7,7,9,3]"),
    ("tf_efficientnet_b6", "efficientnet [3,6,6,8,8,11,3]"),
    ("tf_efficientnet_b7", "efficientnet [4,7,7,10,10,13,4]"),
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
        deep.or_else(|| side("conv_exp").map(Fused)).or_else(|| side("conv").map(|_| Plain))
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

/// A block: kind by its tensors. A shortcut joins where the shapes allow it.
fn block(net: &mut Assembly<'_>, name: &str, x: NodeId, of: (usize, Pad, &Op, &[Op; 2])) -> Result<NodeId> {
    let (stride, pad, act, gate) = of;
    let has = |net: &Assembly<'_>, conv: &str| net.tensors.has(&format!("{name}.{conv}.weight"));
    let mut norms = 0;
    let mut layer = |net: &mut Assembly<'_>, conv: &str, x, spec: ConvSpec, act: Option<&Op>| {
        norms += 1;
        let names = [format!("{name}.{conv}"), format!("{name}.bn{norms}"), format!("{name}.act{norms}")];
        net.conv_norm(names.each_ref().map(String::as_str), x, spec.padded(pad), act)
    };
    let (point, full) = (ConvSpec::plain(Some(1), 1), ConvSpec::plain(None, stride));
    let (mut y, mut last) = (x, "conv_pwl");
    if has(net, "conv_dw") {
        if has(net, "conv_pwl") {
            y = layer(net, "conv_pw", y, point, Some(act))?;
        } else {
            last = "conv_pw";
        }
        let channels = net.channels(y);
        y = layer(net, "conv_dw", y, full.depthwise(channels), Some(act))?;
    } else if has(net, "conv_exp") {
        y = layer(net, "conv_exp", y, full, Some(act))?;
    } else {
        y = layer(net, "conv", y, full, Some(act))?;
        last = "";
    }
    if has(net, "se.conv_reduce") {
        let names = ["conv_reduce", "conv_expand"].map(|conv| format!("{name}.se.{conv}"));
        y = net.gated(&format!("{name}.se"), names.each_ref().map(String::as_str), y, 0, [&gate[0], &gate[1]])?;
    }
    if !last.is_empty() {
        y = layer(net, last, y, point, None)?;
    }
    if stride == 1 && net.channels(x) == net.channels(y) {
        y = net.op(format!("{name}.add"), Op::Add, &[y, x])?;
    }
    Ok(y)
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
            x = block(&mut net, &format!("blocks.{stage}.{i}"), x, (stride, pad, &act, &gate))?;
        }
    }
    let point = ConvSpec::plain(Some(1), 1);
    if net.tensors.has("bn2.running_mean") {
        x = net.conv_norm(["conv_head", "bn2", "act2"], x, point.padded(pad), Some(&ends))?;
        net.builder.stage(format!("stage{}", resolutions + 1), x);
    } else {
        // MobileNetV3 has its last convolution after the pool.
        net.builder.stage(format!("stage{}", resolutions + 1), x);
        x = net.op("global_pool", Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
        x = net.conv("conv_head", x, point.with_bias())?;
        x = net.op("act2", ends, &[x])?;
    }
    let graph = net.classified("classifier", x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let form = format!("{} [{}]", kind.form, listed.join(","));
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
    built(tensors, Pad::Half, eps, vec!["activations and strides of the published net", "padding: symmetric", named])
}

/// The family of TensorFlow's weights, as `--arch` names it.
pub(super) const TENSORFLOW: &str = "tf-mobile";

/// TensorFlow's weights.
pub(super) fn build_tensorflow(tensors: &mut Tensors) -> Result<BuiltNet> {
    let assumed =
        vec!["activations and strides of the published net", "padding: TensorFlow's same", "batch-norm eps 1e-3"];
    built(tensors, Pad::Same, 1e-3, assumed)
}
