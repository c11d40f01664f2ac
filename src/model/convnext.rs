//! ConvNeXt (Liu 2022) and ConvNeXt V2 (Woo 2023) with torchvision's names.

use super::assembly::{Assembly, ConvSpec, GELU, Pad};
use super::names::Dialect;
use super::tensors::Tensors;
use super::{BuiltNet, USUALLY_ASSUMED, preprocess};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::image::Interpolation;
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("convnext_tiny", "convnext [3,3,9,3]"),
    ("convnext_small", "convnext [3,3,27,3]"),
    ("convnext_base", "convnext [3,3,27,3]"),
    ("convnext_large", "convnext [3,3,27,3]"),
    ("convnext_xlarge", "convnext [3,3,27,3]"),
    ("convnext_atto", "convnext [2,2,6,2]"),
    ("convnext_atto_ols", "convnext [2,2,6,2]"),
    ("convnext_femto", "convnext [2,2,6,2]"),
    ("convnext_femto_ols", "convnext [2,2,6,2]"),
    ("convnext_pico", "convnext [2,2,6,2]"),
    ("convnext_pico_ols", "convnext [2,2,6,2]"),
    ("convnext_nano", "convnext [2,2,8,2]"),
    ("convnext_nano_ols", "convnext [2,2,8,2]"),
    ("convnextv2_atto", "convnext-v2 [2,2,6,2]"),
    ("convnextv2_femto", "convnext-v2 [2,2,6,2]"),
    ("convnextv2_pico", "convnext-v2 [2,2,6,2]"),
    ("convnextv2_nano", "convnext-v2 [2,2,8,2]"),
    ("convnextv2_tiny", "convnext-v2 [3,3,9,3]"),
    ("convnextv2_small", "convnext-v2 [3,3,27,3]"),
    ("convnextv2_base", "convnext-v2 [3,3,27,3]"),
    ("convnextv2_large", "convnext-v2 [3,3,27,3]"),
    ("convnextv2_huge", "convnext-v2 [3,3,27,3]"),
];

/// Names of the same nets elsewhere.
pub(super) const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "timm",
        tells: &[
            "stem.0.weight",
            "stages.0.blocks.0.conv_dw.weight",
            "stages.0.blocks.0.norm.weight",
            "head.norm.weight",
        ],
        rules: &[
            ("stem", "features.0"),
            ("stages.0.blocks", "features.1"),
            ("stages.1.downsample", "features.2"),
            ("stages.1.blocks", "features.3"),
            ("stages.2.downsample", "features.4"),
            ("stages.2.blocks", "features.5"),
            ("stages.3.downsample", "features.6"),
            ("stages.3.blocks", "features.7"),
            ("head.norm", "classifier.0"),
            ("features.#.#.conv_dw", "features.{0}.{1}.block.0"),
            ("features.#.#.norm", "features.{0}.{1}.block.2"),
            ("features.#.#.mlp.fc1", "features.{0}.{1}.block.3"),
            ("features.#.#.mlp.fc2", "features.{0}.{1}.block.5"),
            ("features.#.#.mlp.grn", "features.{0}.{1}.grn"),
            ("features.#.#.gamma", "features.{0}.{1}.layer_scale"),
        ],
    },
    // The authors' code.
    Dialect {
        name: "ConvNeXt",
        tells: &["downsample_layers.0.0.weight", "stages.0.0.dwconv.weight", "stages.0.0.norm.weight", "norm.weight"],
        rules: &[
            ("downsample_layers.0", "features.0"),
            ("downsample_layers.1", "features.2"),
            ("downsample_layers.2", "features.4"),
            ("downsample_layers.3", "features.6"),
            ("stages.0", "features.1"),
            ("stages.1", "features.3"),
            ("stages.2", "features.5"),
            ("stages.3", "features.7"),
            ("norm", "classifier.0"),
            ("features.#.#.dwconv", "features.{0}.{1}.block.0"),
            ("features.#.#.norm", "features.{0}.{1}.block.2"),
            ("features.#.#.pwconv1", "features.{0}.{1}.block.3"),
            ("features.#.#.pwconv2", "features.{0}.{1}.block.5"),
            ("features.#.#.gamma", "features.{0}.{1}.layer_scale"),
            ("features.#.#.grn.gamma", "features.{0}.{1}.grn.weight"),
            ("features.#.#.grn.beta", "features.{0}.{1}.grn.bias"),
        ],
    },
    Dialect {
        name: TRANSFORMERS,
        tells: &["embeddings.patch_embeddings.weight", "encoder.stages.0.layers.0.dwconv.weight", "layernorm.weight"],
        rules: &[
            ("embeddings.patch_embeddings", "features.0.0"),
            ("embeddings.layernorm", "features.0.1"),
            ("layernorm", "classifier.0"),
            ("encoder.stages.1.downsampling_layer", "features.2"),
            ("encoder.stages.2.downsampling_layer", "features.4"),
            ("encoder.stages.3.downsampling_layer", "features.6"),
            ("encoder.stages.0.layers", "features.1"),
            ("encoder.stages.1.layers", "features.3"),
            ("encoder.stages.2.layers", "features.5"),
            ("encoder.stages.3.layers", "features.7"),
            ("features.#.#.dwconv", "features.{0}.{1}.block.0"),
            ("features.#.#.layernorm", "features.{0}.{1}.block.2"),
            ("features.#.#.pwconv1", "features.{0}.{1}.block.3"),
            ("features.#.#.pwconv2", "features.{0}.{1}.block.5"),
            ("features.#.#.layer_scale_parameter", "features.{0}.{1}.layer_scale"),
        ],
    },
];

/// Its last layer norm has another eps.
const TRANSFORMERS: &str = "transformers";

/// A published net that is drafted: name, blocks and channels of each stage.
pub(super) type Variant = (&'static str, [usize; 4], [usize; 4]);

pub(super) const VARIANTS: [Variant; 2] =
    [("convnext_tiny", [3, 3, 9, 3], [96, 192, 384, 768]), ("convnext_small", [3, 3, 27, 3], [96, 192, 384, 768])];

/// Ratio of a block's inner channels to those at its ends.
const EXPANSION: usize = 4;

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["features.0.0.weight", "features.0.1.weight", "features.1.0.block.0.weight", "classifier.0.weight"];
    Ok(names.iter().all(|n| tensors.has(n)))
}

fn block(net: &mut Assembly<'_>, name: &str, x: NodeId) -> Result<NodeId> {
    let c = net.channels(x);
    let mut y = net.conv(&format!("{name}.block.0"), x, ConvSpec::plain(Some(7), 1).depthwise(c).with_bias())?;
    y = net.layer_norm(&format!("{name}.block.2"), y, 1e-6)?;
    y = net.positionwise(&format!("{name}.block.3"), y, EXPANSION * c)?;
    y = net.op(format!("{name}.block.4"), GELU, &[y])?;
    let is_second = net.tensors.has(&format!("{name}.grn.weight"));
    if is_second {
        y = net.response_norm(&format!("{name}.grn"), y, 1e-6)?;
    }
    y = net.positionwise(&format!("{name}.block.5"), y, c)?;
    if !is_second {
        y = net.layer_scale(&format!("{name}.layer_scale"), y)?;
    }
    net.op(format!("{name}.add"), Op::Add, &[y, x])
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let drafted = tensors.drafted().and_then(|net| VARIANTS.iter().find(|(name, ..)| *name == net));
    let has = |stage: usize, i: usize| tensors.has(&format!("features.{}.{i}.block.0.weight", 2 * stage + 1));
    let depths = drafted.map_or_else(|| [0, 1, 2, 3].map(|s| (0..).take_while(|&i| has(s, i)).count()), |v| v.1);
    if let Some(empty) = depths.iter().position(|&n| n == 0) {
        let stage = 2 * empty + 1;
        return Err(Error::model(format!(
            "tensor 'features.{stage}.0.block.0.weight' is missing; expected shape [*, 1, 7, 7]"
        )));
    }
    let widths = drafted.map_or([0; 4], |v| v.2);
    for (stage, &blocks) in depths.iter().enumerate() {
        for name in (0..blocks).map(|i| format!("features.{}.{i}", 2 * stage + 1)) {
            // A factor a channel has as many dimensions as its writer likes; timm's small nets have convolutions.
            tensors.unsqueeze(&format!("{name}.layer_scale"), 3);
            ["weight", "bias"].iter().for_each(|part| tensors.as_vector(&format!("{name}.grn.{part}")));
            ["3", "5"].iter().for_each(|at| tensors.squeeze(&format!("{name}.block.{at}.weight"), 2));
        }
    }
    let is_second = tensors.has("features.1.0.grn.weight");
    let last_eps = if tensors.dialect == TRANSFORMERS { 1e-12 } else { 1e-6 };
    let channels = Assembly::picture_channels(tensors, "features.0.0.weight");
    let tensor = "features.0.0.weight";
    let width = drafted.map(|v| v.2[0]).or_else(|| tensors.shape(tensor).and_then(|dims| dims.first().copied()));
    // The sides to which torchvision resizes for tiny, small, and base and large.
    let side = match (width, depths[2]) {
        (Some(..=96), ..=9) => 236,
        (Some(..=96), _) => 230,
        _ => 232,
    };
    let preparation = preprocess::torchvision(channels, [224, side], Interpolation::Bilinear);
    if tensors.has("head.pre_logits.fc.weight") {
        return Err(Error::model(
            "tensor 'head.pre_logits.fc.weight': a ConvNeXt with two layers in its head, whose activation names do not tell; \
             export the net as ONNX",
        ));
    }
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-6);
    let mut x = net.builder.input();
    let patches = |side, out| ConvSpec::plain(Some(side), side).to(out).padded(Pad::Rows(0)).with_bias();
    for (stage, (blocks, out)) in depths.into_iter().zip(widths).enumerate() {
        let name = format!("features.{}", 2 * stage);
        if stage == 0 {
            // timm's small nets may have two convolutions that overlap.
            let overlaps = matches!(net.tensors.shape(&format!("{name}.1.weight")), Some([_, _, _, _]));
            let convolutions =
                if overlaps { vec![ConvSpec::plain(Some(3), 2).with_bias(); 2] } else { vec![patches(4, out)] };
            let norm = convolutions.len();
            for (i, spec) in convolutions.into_iter().enumerate() {
                x = net.conv(&format!("{name}.{i}"), x, spec)?;
            }
            x = net.layer_norm(&format!("{name}.{norm}"), x, 1e-6)?;
        } else {
            x = net.layer_norm(&format!("{name}.0"), x, 1e-6)?;
            x = net.conv(&format!("{name}.1"), x, patches(2, out))?;
        }
        for i in 0..blocks {
            x = block(&mut net, &format!("features.{}.{i}", 2 * stage + 1), x)?;
        }
        net.builder.stage(format!("stage{}", stage + 1), x);
    }
    x = net.op("avgpool", Op::AdaptiveAvgPool { out: [1; 2] }, &[x])?;
    x = net.layer_norm("classifier.0", x, last_eps)?;
    x = net.op("classifier.1", Op::Flatten, &[x])?;
    x = net.head(x, &[("classifier.2", 1000)], &Op::Relu)?;
    let graph = net.builder.finish(x)?;
    let listed: Vec<String> = depths.iter().map(usize::to_string).collect();
    let version = if is_second { "convnext-v2" } else { "convnext" };
    let form = format!("{version} [{}]", listed.join(","));
    let eps = if last_eps < 1e-6 { "layer-norm eps 1e-6, of the last norm 1e-12" } else { "layer-norm eps 1e-6" };
    let assumed = vec!["gelu", USUALLY_ASSUMED, eps];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preparation))
}
