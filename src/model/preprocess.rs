//! The picture preparation that each family of nets was trained with.

use crate::image::{Interpolation, Preprocess};
#[cfg(feature = "onnx")]
use crate::tensor::Shape;

/// ImageNet's mean and standard deviation, as in torchvision.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// The preparation that is assumed for a family.
pub(super) struct Preparation {
    pub(super) preprocess: Preprocess,
    /// Its name; empty if there is nothing to prepare.
    pub(super) name: &'static str,
}

impl Preparation {
    /// Of pictures; inputs of other channels are given as arrays, and nothing is prepared.
    fn of(preprocess: Preprocess, name: &'static str) -> Self {
        let name = if preprocess.takes_pictures() { name } else { "" };
        Self { preprocess, name }
    }
}

/// torchvision's ImageNet nets: short side 256 bilinear, centre crop 224. Grey pictures use the mean of the channels'
/// constants.
pub(super) fn imagenet(channels: usize) -> Preparation {
    let small = small(channels, 224).preprocess;
    Preparation::of(Preprocess { resize: 256, ..small }, "ImageNet")
}

/// Short side `resize` bilinear, centre crop `side`, values in [−1, 1]. This is what ImageNet's mean and standard
/// deviation and then torchvision's `transform_input` make of a picture.
pub(super) fn symmetric(channels: usize, [side, resize]: [usize; 2]) -> Preparation {
    let small = small(channels, side).preprocess;
    let preprocess = Preprocess { resize, mean: vec![0.5; channels], std: vec![0.5; channels], ..small };
    Preparation::of(preprocess, "levels from -1 to 1")
}

/// torchvision's ImageNet nets with other sizes: short side `resize`, centre crop `side`, ImageNet's mean and standard
/// deviation.
pub(super) fn torchvision(channels: usize, [side, resize]: [usize; 2], interpolation: Interpolation) -> Preparation {
    let small = small(channels, side).preprocess;
    Preparation::of(Preprocess { resize, interpolation, ..small }, "ImageNet")
}

/// timm's ImageNet nets: short side `resize` bicubic, centre crop `side`, ImageNet's mean and standard deviation.
pub(super) fn timm(channels: usize, [side, resize]: [usize; 2]) -> Preparation {
    let small = small(channels, side).preprocess;
    let preprocess = Preprocess { resize, interpolation: Interpolation::Bicubic, ..small };
    Preparation::of(preprocess, "ImageNet as timm has it")
}

/// Pictures of `side` pixels with ImageNet's mean and standard deviation.
pub(super) fn small(channels: usize, side: usize) -> Preparation {
    let [mean, std] =
        IMAGENET.map(|v| if channels == 3 { v.to_vec() } else { vec![v.iter().sum::<f64>() / 3.0; channels] });
    let preprocess =
        Preprocess { resize: side, crop: [side; 2], interpolation: Interpolation::Bilinear, mean, std, channels };
    Preparation::of(preprocess, "ImageNet's mean and std")
}

/// EfficientNet-Lite: short side 32 pixels more than the crop, bicubic, values in [−1, 1].
pub(super) fn lite(channels: usize, side: usize) -> Preparation {
    let preprocess = Preprocess {
        resize: side + 32,
        crop: [side; 2],
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5; channels],
        std: vec![0.5; channels],
        channels,
    };
    Preparation::of(preprocess, "TensorFlow's EfficientNet-Lite")
}

/// Grey pictures of `side` pixels, values in [0, 1].
pub(super) fn grey(side: usize) -> Preparation {
    let preprocess = Preprocess {
        resize: side,
        crop: [side; 2],
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0],
        std: vec![1.0],
        channels: 1,
    };
    Preparation { preprocess, name: "levels from 0 to 1" }
}

/// Vectors of `len` numbers, which are given only as arrays, never as pictures.
pub(super) fn vector(len: usize) -> Preparation {
    let preprocess = Preprocess {
        resize: 0,
        crop: [1; 2],
        interpolation: Interpolation::Nearest,
        mean: vec![0.0; len],
        std: vec![1.0; len],
        channels: len,
    };
    Preparation { preprocess, name: "" }
}

/// The preparation for a graph that takes inputs of `shape` in such numbers. Pictures above 64 pixels are resized to 8/7 of
/// the crop, as 256 is of 224.
#[cfg(feature = "onnx")]
pub(super) fn of_graph(shape: Shape, levels: super::onnx::Levels) -> Preparation {
    use super::onnx::Levels;
    if !matches!(shape.c, 1 | 3) || shape.plane() == 1 {
        return vector(shape.c);
    }
    let side = shape.h.min(shape.w);
    let resize = if side > 64 { (side * 8).div_ceil(7) } else { side };
    let base = Preprocess { resize, crop: [shape.h, shape.w], ..small(shape.c, side).preprocess };
    let flat = |mean: f64, std: f64, name| {
        let preprocess = Preprocess { mean: vec![mean; shape.c], std: vec![std; shape.c], ..base.clone() };
        Preparation { preprocess, name }
    };
    match levels {
        Levels::Bytes => flat(0.0, 1.0 / 255.0, "levels from 0 to 255, which the graph scales itself"),
        Levels::Unit => flat(0.0, 1.0, "levels from 0 to 1, which the graph normalises itself"),
        Levels::Unknown => Preparation { preprocess: base, name: "ImageNet" },
    }
}
