//! What a net expects of a picture, as plain data.

use serde::{Deserialize, Serialize};

/// How a picture is resized; the filters widen when a picture shrinks (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Cubic filter, a = −0.5.
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos,
}

/// From picture to input: resize, centre crop, then `(value / 255 − mean) / std` for each channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Pixels of the short side after resizing; 0 leaves the size alone.
    pub resize: usize,
    /// Rows and columns of the centre crop.
    pub crop: [usize; 2],
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from the value in [0, 1], one number a channel.
    pub mean: Vec<f64>,
    /// Divides the difference, one number a channel.
    pub std: Vec<f64>,
    /// 3 (red, green, blue) or 1 (grey). A net on plain vectors has as many as its input and takes no pictures.
    pub channels: usize,
}

/// ImageNet's mean and standard deviation, as torchvision has them.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

impl Preprocess {
    /// torchvision's ImageNet nets: short side 256 bilinear, centre crop 224. Grey pictures take the mean of the
    /// channels' constants.
    pub fn imagenet(channels: usize) -> Self {
        Self { resize: 256, crop: [224; 2], ..Self::small(channels, 224) }
    }

    /// Pictures of `side` pixels with ImageNet's mean and standard deviation.
    pub fn small(channels: usize, side: usize) -> Self {
        let [mean, std] = IMAGENET.map(|v| if channels == 3 { v.to_vec() } else { vec![v.iter().sum::<f64>() / 3.0] });
        Self { resize: side, crop: [side; 2], interpolation: Interpolation::Bilinear, mean, std, channels }
    }

    /// EfficientNet-Lite: short side 32 pixels more than the crop, bicubic, values in [−1, 1].
    pub fn lite(channels: usize, side: usize) -> Self {
        Self {
            resize: side + 32,
            crop: [side; 2],
            interpolation: Interpolation::Bicubic,
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
            channels,
        }
    }

    /// Grey pictures of `side` pixels, values in [0, 1].
    pub fn grey(side: usize) -> Self {
        Self {
            resize: side,
            crop: [side; 2],
            interpolation: Interpolation::Bilinear,
            mean: vec![0.0],
            std: vec![1.0],
            channels: 1,
        }
    }

    /// Vectors of `len` numbers, which are given as arrays, never as pictures.
    pub fn vector(len: usize) -> Self {
        Self {
            resize: 0,
            crop: [1; 2],
            interpolation: Interpolation::Nearest,
            mean: vec![0.0; len],
            std: vec![1.0; len],
            channels: len,
        }
    }

    /// Whether the net takes pictures at all.
    pub fn takes_pictures(&self) -> bool {
        matches!(self.channels, 1 | 3)
    }

    /// The input that stands for `value` (0 … 255) in `channel`.
    pub fn normalise(&self, value: u8, channel: usize) -> f64 {
        (f64::from(value) / 255.0 - self.mean[channel]) / self.std[channel]
    }

    /// The value (0 … 255, not rounded) that an input stands for in `channel`. Rounded and clamped it is the exact
    /// inverse of [`Preprocess::normalise`], also after the input was rounded to single precision.
    pub fn denormalise(&self, input: f64, channel: usize) -> f64 {
        (input * self.std[channel] + self.mean[channel]) * 255.0
    }

    /// The input that stands for 0, one number a channel.
    pub fn black(&self) -> Vec<f64> {
        (0..self.channels).map(|c| self.normalise(0, c)).collect()
    }

    /// The input that stands for 255, one number a channel.
    pub fn white(&self) -> Vec<f64> {
        (0..self.channels).map(|c| self.normalise(255, c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_value_survives_single_precision() {
        for p in [Preprocess::imagenet(3), Preprocess::imagenet(1), Preprocess::lite(3, 224), Preprocess::grey(28)] {
            for c in 0..p.channels {
                for value in 0..=255 {
                    let single = p.normalise(value, c) as f32;
                    assert_eq!(p.denormalise(f64::from(single), c).round(), f64::from(value));
                }
                assert_eq!(p.black()[c], p.normalise(0, c));
                assert_eq!(p.white()[c], p.normalise(255, c));
            }
        }
    }
}
