//! AlexNet (Krizhevsky 2014, "one weird trick") with torchvision's names.

use super::assembly::{Assembly, ConvSpec, Pad};
use super::tensors::Tensors;
use super::{BuiltNet, preprocess};
use crate::error::Result;
use crate::graph::Op;
use crate::tensor::{Shape, Window};

/// Convolutions: position in `features`, channels, kernel, stride, padding, and whether a pool follows the ReLU.
const FEATURES: [(usize, usize, usize, usize, usize, bool); 5] = [
    (0, 64, 11, 4, 2, true),
    (3, 192, 5, 1, 2, true),
    (6, 384, 3, 1, 1, false),
    (8, 256, 3, 1, 1, false),
    (10, 256, 3, 1, 1, true),
];

pub(super) fn recognise(tensors: &Tensors) -> Result<bool> {
    let names = ["features.0.weight", "features.3.weight", "features.10.weight"];
    let stem = matches!(tensors.shape(names[0]), Some([_, _, 11, 11]));
    Ok(names.iter().all(|n| tensors.has(n)) && stem)
}

pub(super) fn build(tensors: &mut Tensors) -> Result<BuiltNet> {
    let channels = Assembly::picture_channels(tensors, "features.0.weight");
    let mut net = Assembly::new(tensors, Shape::new(channels, 224, 224), 1e-5);
    let mut x = net.builder.input();
    let mut stages = 0;
    for (position, out, kernel, stride, rows, pooled) in FEATURES {
        let spec = ConvSpec::plain(Some(kernel), stride).to(out).padded(Pad::Rows(rows)).with_bias();
        x = net.conv(&format!("features.{position}"), x, spec)?;
        x = net.relu(format!("features.{}", position + 1), x)?;
        if pooled {
            stages += 1;
            net.builder.stage(format!("stage{stages}"), x);
            x = net.op(format!("features.{}", position + 2), Op::MaxPool(Window::square(3, 2, 0)), &[x])?;
        }
    }
    let bins = net.bins(net.channels(x), 6)?;
    x = net.pooled(bins, x)?;
    x = net.head(x, &[("classifier.1", 4096), ("classifier.4", 4096), ("classifier.6", 1000)], &Op::Relu)?;
    let graph = net.builder.finish(x)?;
    let assumed = vec!["relu", "max-pools", "strides and padding of torchvision's AlexNet"];
    Ok(BuiltNet::of_pictures(graph, "alexnet", assumed, preprocess::imagenet(channels)))
}
