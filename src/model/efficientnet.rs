//! EfficientNet B0 to B7 (Tan & Le 2019) with torchvision's names.

use super::assembly::{Assembly, ConvSpec, SIGMOID, SILU};
use super::inverted::Inverted;
use super::tensors::Tensors;
use super::{BuiltNet, preprocess, timm_mobile};
use crate::error::{Error, Result};
use crate::image::Interpolation;
use crate::tensor::Shape;

/// Published names and the form that each stands for.
pub(super) const PUBLISHED: &[(&str, &str)] = &[
    ("efficientnet_b0", "efficientnet [1,2,2,3,3,4,1]"),
    ("efficientnet_b1", "efficientnet [2,3,3,4,4,5,2]"),
    ("efficientnet_b2", "efficientnet [2,3,3,4,4,5,2]"),
    ("efficientnet_b3", "efficientnet [2,3,3,5,5,6,2]"),
    ("efficientnet_b4", "efficientnet [2,4,4,6,6,8,2]"),
    ("efficientnet_b5", "efficientnet [3,5,5,7,7,9,3]"),
    ("efficientnet_b6", "efficientnet [3,6,6,8,8,11,3]"),
    ("efficientnet_b7", "efficientnet [4,7,7,10,10,13,4]"),
    ("tinynet_a", "efficientnet [2,3,3,4,4,5,2]"),
];

/// A published size.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Blocks of each stage.
    pub(super) depths: [usize; 7],
    /// Output channels of the stem, each stage and the head.
    pub(super) widths: [usize; 9],
    /// Crop side and resized short side of pictures; from B5 on, batch norms have eps 1e-3.
    sides: [usize; 2],
    eps: f64,
}

const fn variant(name: &'static str, depths: [usize; 7], widths: [usize; 9], sides: [usize; 2], eps: f64) -> Variant {
    Variant { name, depths, widths, sides, eps }
}

#[rustfmt::skip]
pub(super) const VARIANTS: [Variant; 8] = [
    variant("efficientnet_b0", [1, 2, 2, 3, 3, 4, 1], [32, 16, 24, 40, 80, 112, 192, 320, 1280], [224, 256], 1e-5),
    variant("efficientnet_b1", [2, 3, 3, 4, 4, 5, 2], [32, 16, 24, 40, 80, 112, 192, 320, 1280], [240, 256], 1e-5),
    variant("efficientnet_b2", [2, 3, 3, 4, 4, 5, 2], [32, 16, 24, 48, 88, 120, 208, 352, 1408], [288, 288], 1e-5),
    variant("efficientnet_b3", [2, 3, 3, 5, 5, 6, 2], [40, 24, 32, 48, 96, 136, 232, 384, 1536], [300, 320], 1e-5),
    variant("efficientnet_b4", [2, 4, 4, 6, 6, 8, 2], [48, 24, 32, 56, 112, 160, 272, 448, 1792], [380, 384], 1e-5),
    variant("efficientnet_b5", [3, 5, 5, 7, 7, 9, 3], [48, 24, 40, 64, 128, 176, 304, 512, 2048], [456, 456], 1e-3),
    variant("efficientnet_b6", [3, 6, 6, 8, 8, 11, 3], [56, 32, 40, 72, 144, 200, 344, 576, 2304], [528, 528], 1e-3),
    variant("efficientnet_b7", [4, 7, 7, 10, 10, 13, 4], [64, 32, 48, 80, 160, 224, 384, 640, 2560], [600, 600], 1e-3),
];

/// Side of the depthwise kernels, stride of the first block, and expansion of each stage.
pub(super) const STAGES: [[usize; 3]; 7] =
    [[3, 1, 1], [3, 2, 6], [5, 2, 6], [3, 2, 6], [5, 1, 6], [5, 2, 6], [3, 1, 6]];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["features.0.0.weight", "features.1.0.block.1.fc1.weight", "features.8.0.weight"];
    Ok(names.iter().all(|n| tensors.has(n)) || timm_mobile::is_of(tensors, "efficientnet"))
}

/// Channels of the stem and depths, which tell a size.
fn size(tensors: &Tensors) -> Result<&'static Variant> {
    if let Some(variant) = tensors.drafted().and_then(|net| VARIANTS.iter().find(|v| v.name == net)) {
        return Ok(variant);
    }
    let has = |stage: usize, block: usize| tensors.has(&format!("features.{stage}.{block}.block.0.0.weight"));
    let depths = [1, 2, 3, 4, 5, 6, 7].map(|stage| (0..).take_while(|&block| has(stage, block)).count());
    if let Some(stage) = depths.iter().position(|&n| n == 0) {
        let first = stage + 1;
        return Err(Error::model(format!(
            "tensor 'features.{first}.0.block.0.0.weight' is missing; expected shape [*, *, *, *]"
        )));
    }
    let head = tensors.shape("features.8.0.weight").and_then(|shape| shape.first().copied());
    let mut sizes = VARIANTS.iter().filter(|v| v.depths == depths);
    let first = sizes.clone().next();
    sizes.find(|v| Some(v.widths[8]) == head).or(first).ok_or_else(|| {
        let listed = depths.map(|n| n.to_string()).join(",");
        Error::model(format!("the names are those of an EfficientNet, but none has stages of [{listed}] blocks"))
    })
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    if timm_mobile::is_of(tensors, "efficientnet") {
        return timm_mobile::build(tensors);
    }
    let size = size(tensors)?;
    let channels = Assembly::picture_channels(tensors, "features.0.0.weight");
    let preparation = preprocess::torchvision(channels, size.sides, Interpolation::Bicubic);
    let [h, w] = preparation.preprocess.crop;
    let mut net = Assembly::new(tensors, Shape::new(channels, h, w), size.eps);
    let [stem, widths @ .., head] = size.widths;
    let mut x = net.builder.input();
    x = net.conv_012("features.0", x, ConvSpec::plain(Some(3), 2).to(stem), Some(&SILU))?;
    let mut resolutions = 0;
    for (stage, (([kernel, first, expansion], blocks), out)) in
        (1..).zip(STAGES.into_iter().zip(size.depths).zip(widths))
    {
        if first > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        for i in 0..blocks {
            let block = Inverted {
                expanded: expansion * net.channels(x),
                out,
                kernel,
                stride: if i == 0 { first } else { 1 },
                squeezed: Some(net.channels(x) / 4),
                activation: &SILU,
                gate: [&SILU, &SIGMOID],
                expands: expansion > 1,
            };
            x = block.build(&mut net, &format!("features.{stage}.{i}"), x)?;
        }
    }
    x = net.conv_012("features.8", x, ConvSpec::plain(Some(1), 1).to(head), Some(&SILU))?;
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    let graph = net.classified("classifier.1", x)?;
    let form = format!("efficientnet [{}]", size.depths.map(|n| n.to_string()).join(","));
    let assumed =
        vec!["silu", "symmetric padding", if size.eps < 1e-4 { "batch-norm eps 1e-5" } else { "batch-norm eps 1e-3" }];
    Ok(BuiltNet::of_pictures(graph, form, assumed, preparation))
}
