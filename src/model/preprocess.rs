//! The preprocessing each family of nets was trained with.

use crate::image::{Interpolation, Preprocess};

/// ImageNet's mean and standard deviation, as torchvision has them.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// torchvision's ImageNet nets: short side 256 bilinear, centre crop 224. Grey pictures take the mean of the channels'
/// constants.
pub(super) fn imagenet(channels: usize) -> Preprocess {
    Preprocess { resize: 256, crop: [224; 2], ..small(channels, 224) }
}

/// Pictures of `side` pixels with ImageNet's mean and standard deviation.
pub(super) fn small(channels: usize, side: usize) -> Preprocess {
    let [mean, std] = IMAGENET.map(|v| if channels == 3 { v.to_vec() } else { vec![v.iter().sum::<f64>() / 3.0] });
    Preprocess { resize: side, crop: [side; 2], interpolation: Interpolation::Bilinear, mean, std, channels }
}

/// EfficientNet-Lite: short side 32 pixels more than the crop, bicubic, values in [−1, 1].
pub(super) fn lite(channels: usize, side: usize) -> Preprocess {
    Preprocess {
        resize: side + 32,
        crop: [side; 2],
        interpolation: Interpolation::Bicubic,
        mean: vec![0.5; channels],
        std: vec![0.5; channels],
        channels,
    }
}

/// Grey pictures of `side` pixels, values in [0, 1].
pub(super) fn grey(side: usize) -> Preprocess {
    Preprocess {
        resize: side,
        crop: [side; 2],
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0],
        std: vec![1.0],
        channels: 1,
    }
}

/// Vectors of `len` numbers, which are given as arrays, never as pictures.
pub(super) fn vector(len: usize) -> Preprocess {
    Preprocess {
        resize: 0,
        crop: [1; 2],
        interpolation: Interpolation::Nearest,
        mean: vec![0.0; len],
        std: vec![1.0; len],
        channels: len,
    }
}
