//! MobileNetV1 (Howard 2017) with transformers' names and TensorFlow's padding, of any width.

use super::assembly::{Assembly, ConvSpec, Pad, RELU6};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::tensor::Shape;

const FORM: &str = "mobilenet-v1";

/// Strides of the depthwise convolutions; each is followed by a pointwise one.
const STRIDES: [usize; 13] = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["conv_stem.convolution.weight", "layer.0.convolution.weight", "layer.25.convolution.weight"];
    Ok(names.iter().all(|n| tensors.has(n)))
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let channels = Assembly::picture_channels(tensors, "conv_stem.convolution.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-3);
    let layer = |net: &mut Assembly<'_>, name: &str, x, spec: ConvSpec| {
        let names = ["convolution", "normalization", "activation"].map(|part| format!("{name}.{part}"));
        net.conv_norm(names.each_ref().map(String::as_str), x, spec.padded(Pad::Same), Some(&RELU6))
    };
    let mut x = net.builder.input();
    x = layer(&mut net, "conv_stem", x, ConvSpec::plain(Some(3), 2))?;
    let mut resolutions = 0;
    for (i, stride) in STRIDES.into_iter().enumerate() {
        if stride > 1 {
            resolutions += 1;
            net.builder.stage(format!("stage{resolutions}"), x);
        }
        let depthwise = ConvSpec::plain(Some(3), stride).depthwise(net.channels(x));
        x = layer(&mut net, &format!("layer.{}", 2 * i), x, depthwise)?;
        x = layer(&mut net, &format!("layer.{}", 2 * i + 1), x, ConvSpec::plain(Some(1), 1))?;
    }
    net.builder.stage(format!("stage{}", resolutions + 1), x);
    let graph = net.classified("classifier", x)?;
    let assumed = vec!["relu6", "strides of MobileNetV1", "padding: TensorFlow's same", "batch-norm eps 1e-3"];
    Ok(BuiltNet::of_pictures(graph, FORM, assumed, preprocess::symmetric(channels, [224, 256])))
}
