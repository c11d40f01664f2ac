//! [`Preprocess`]: from a picture to a net's input, and exactly back.

use serde::{Deserialize, Serialize};

use super::Picture;
use super::resize::{self, Interpolation, ResizedPart};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A net's picture preparation: resize, centre crop, normalise, as in torchvision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Length of the short side after resizing; the long side follows, truncated. 0 keeps the size.
    pub resize: usize,
    /// Height and width of the centre crop. A smaller picture is padded with black.
    pub crop: [usize; 2],
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from each channel after levels are divided by 255.
    pub mean: Vec<f64>,
    /// Divides each channel afterwards.
    pub std: Vec<f64>,
    /// 3 for RGB, 1 for grey (ITU-R 601 luma, taken before resizing).
    pub channels: usize,
}

/// A picture prepared for a net.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Normalised values `[C, H, W]`, single precision.
    pub tensor: Tensor,
    /// The same pixels before normalisation (grey ones as RGB), for drawing maps over them.
    pub view: Picture,
    /// Where the picture's pixels are in the tensor.
    pub placement: Placement,
}

/// Where a picture's pixels are in the net's input. Axes are `[y, x]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Size of the picture.
    from: [usize; 2],
    /// Size after resizing.
    to: [usize; 2],
    /// First row and column of the resized picture inside the crop.
    cut: [usize; 2],
    /// Number of its rows and columns inside the crop.
    held: [usize; 2],
    /// Rows and columns of black before them.
    frame: [usize; 2],
}

impl Placement {
    /// For a picture of `size` = `[h, w]` that is used unchanged.
    pub fn identity(size: [usize; 2]) -> Self {
        Self { from: size, to: size, cut: [0; 2], held: size, frame: [0; 2] }
    }

    /// `[h, w]` of the picture.
    pub fn original(&self) -> [usize; 2] {
        self.from
    }

    /// Maps a rectangle of the picture to the net's input: `[left, top, right, bottom]`, edges in pixels from the upper
    /// left corner (the whole picture is `[0, 0, w, h]`), clipped to the crop. A rectangle outside the crop becomes
    /// empty.
    pub fn edges(&self, rectangle: [f64; 4]) -> [f64; 4] {
        std::array::from_fn(|i| {
            // Left and right are on the second axis.
            let axis = 1 - i % 2;
            let resized = rectangle[i] * self.to[axis] as f64 / self.from[axis] as f64;
            let (cut, held) = (self.cut[axis] as f64, self.held[axis] as f64);
            (resized - cut).clamp(0.0, held) + self.frame[axis] as f64
        })
    }

    /// As [`edges`](Self::edges), with each edge rounded to a pixel boundary: `[top, left, height, width]`; `None` if
    /// no pixel remains.
    pub fn pixels(&self, rectangle: [f64; 4]) -> Option<[usize; 4]> {
        let [left, top, right, bottom] = self.edges(rectangle).map(|edge| edge.round() as usize);
        (right > left && bottom > top).then(|| [top, left, bottom - top, right - left])
    }
}

/// `n / 2` rounded to the even neighbour, as Python's `round(n / 2.0)`.
fn half_to_even(n: usize) -> usize {
    let half = n / 2;
    if n % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// The crop along one axis: first source element, number of elements copied, and black padding before them.
fn centre(extent: usize, crop: usize) -> (usize, usize, usize) {
    if crop > extent { (0, extent, (crop - extent) / 2) } else { (half_to_even(extent - crop), crop, 0) }
}

/// Planes `[C, H, W]` from packed `[H, W, C]`.
fn planes(packed: &[u8], channels: usize) -> Vec<u8> {
    (0..channels).flat_map(|c| packed.iter().skip(c).step_by(channels).copied()).collect()
}

/// Packed RGB from planes `[C, H, W]` of one or three channels.
fn packed(planes: &[u8], channels: usize) -> Vec<u8> {
    let plane = planes.len() / channels;
    (0..plane).flat_map(|i| [0, 1, 2].map(|c| planes[c.min(channels - 1) * plane + i])).collect()
}

impl Preprocess {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// When the channels are not 1 or 3, mean or standard deviation does not have one usable number per channel, or the
    /// crop is empty.
    pub fn check(&self) -> Result<()> {
        if ![1, 3].contains(&self.channels) {
            return Err(Error::settings(format!("a picture has 1 or 3 channels, not {}", self.channels)));
        }
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != self.channels {
                return Err(Error::settings(format!(
                    "{} values of {name} for {} channels",
                    values.len(),
                    self.channels
                )));
            }
        }
        if let Some(bad) = self.mean.iter().find(|m| !(**m as f32).is_finite()) {
            return Err(Error::settings(format!("a mean of {bad:?} is not a number to subtract")));
        }
        if let Some(bad) = self.std.iter().find(|s| !(**s as f32 > 0.0 && (**s as f32).is_finite())) {
            return Err(Error::settings(format!("a standard deviation of {bad:?} cannot divide")));
        }
        if self.crop.contains(&0) || self.crop[0].checked_mul(self.crop[1]).is_none_or(|n| n > 1 << 28) {
            return Err(Error::settings(format!("a crop of {}x{} pixels", self.crop[0], self.crop[1])));
        }
        Ok(())
    }

    /// A warning about mean and standard deviation, in one sentence: numbers above 1 are meant for levels from 0 to
    /// 255, but here levels are from 0 to 1.
    pub fn suspicion(&self) -> Option<String> {
        let above = |values: &[f64]| values.iter().copied().find(|v| v.abs() > 1.0);
        let mean = above(&self.mean).map(|m| ("mean", m));
        let (what, value) = mean.or_else(|| above(&self.std).map(|s| ("standard deviation", s)))?;
        Some(format!(
            "a {what} of {value} is one of levels from 0 to 255; levels lie between 0 and 1 here, so it would be {:.4}",
            value / 255.0
        ))
    }

    /// Whether the net takes pictures at all; a net on plain vectors has as many channels as its input.
    pub fn takes_pictures(&self) -> bool {
        matches!(self.channels, 1 | 3)
    }

    /// `[C, H, W]` of the tensors made by [`apply`](Self::apply).
    pub fn dims(&self) -> [usize; 3] {
        [self.channels, self.crop[0], self.crop[1]]
    }

    /// The net's input for an 8-bit `level` of `channel`: `(level / 255 - mean) / std`, with each step rounded to
    /// single precision as in torchvision.
    ///
    /// # Panics
    /// When there is no such channel.
    pub fn normalise(&self, channel: usize, level: u8) -> f32 {
        (f32::from(level) / 255.0 - self.mean[channel] as f32) / self.std[channel] as f32
    }

    /// The level (0 to 255 for a real pixel) that [`normalise`](Self::normalise) maps to `value`: its inverse, exact
    /// for every 8-bit level after rounding to the nearest integer.
    ///
    /// # Panics
    /// When there is no such channel.
    pub fn denormalise(&self, channel: usize, value: f64) -> f64 {
        (value * f64::from(self.std[channel] as f32) + f64::from(self.mean[channel] as f32)) * 255.0
    }

    /// The input value of level 0, per channel.
    pub fn black(&self) -> Vec<f64> {
        (0..self.mean.len().min(self.std.len())).map(|c| f64::from(self.normalise(c, 0))).collect()
    }

    /// The input value of level 255, per channel.
    pub fn white(&self) -> Vec<f64> {
        (0..self.mean.len().min(self.std.len())).map(|c| f64::from(self.normalise(c, 255))).collect()
    }

    /// Planes `[C, H, W]` of levels as a normalised tensor.
    fn tensor(&self, levels: &[u8], h: usize, w: usize) -> Result<Tensor> {
        let values = levels
            .chunks_exact(h * w)
            .enumerate()
            .flat_map(|(c, plane)| {
                let table: [f32; 256] = std::array::from_fn(|level| self.normalise(c, level as u8));
                plane.iter().map(move |&level| table[usize::from(level)])
            })
            .collect();
        Tensor::f32([self.channels, h, w], values)
    }

    /// Where the pixels of a picture of `size` = `[h, w]` are in the net's input.
    ///
    /// # Errors
    /// When the picture is empty or the resized one would be too large.
    pub fn placement(&self, size: [usize; 2]) -> Result<Placement> {
        if size.contains(&0) {
            return Err(Error::input(format!("a picture of {}x{} pixels", size[0], size[1])));
        }
        let to = match self.resize {
            0 => size,
            side => {
                let scaled = |long: usize, short: usize| -> Result<usize> {
                    side.checked_mul(long)
                        .map(|n| n / short)
                        .filter(|&n| n <= 1 << 31)
                        .ok_or_else(|| Error::settings(format!("a short side of {side} pixels")))
                };
                if size[0] <= size[1] { [side, scaled(size[1], size[0])?] } else { [scaled(size[0], size[1])?, side] }
            }
        };
        let axes = [0, 1].map(|a| centre(to[a], self.crop[a]));
        Ok(Placement {
            from: size,
            to,
            cut: axes.map(|(first, _, _)| first),
            held: axes.map(|(_, held, _)| held),
            frame: axes.map(|(_, _, frame)| frame),
        })
    }

    /// `picture` resized, cropped and normalised.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn apply(&self, picture: &Picture) -> Result<Prepared> {
        self.check()?;
        let from = [picture.height(), picture.width()];
        let placement = self.placement(from)?;
        let ([rows, columns], [top, left]) = (placement.held, placement.frame);
        let part = ResizedPart { offset: placement.cut, size: placement.held };
        let grey;
        let pixels = if self.channels == 1 {
            grey = picture.grey();
            &grey[..]
        } else {
            picture.rgb()
        };
        let inner = resize::resize(pixels, from, self.channels, placement.to, part, self.interpolation);
        let [h, w] = self.crop;
        let framed = if [rows, columns] == self.crop {
            inner
        } else {
            let mut framed = vec![0; h * w * self.channels];
            for (y, row) in inner.chunks_exact(columns * self.channels).enumerate() {
                framed[((top + y) * w + left) * self.channels..][..row.len()].copy_from_slice(row);
            }
            framed
        };
        let levels = planes(&framed, self.channels);
        let view = Picture::new(w, h, packed(&levels, self.channels))?.cut_from(picture.original_size());
        Ok(Prepared { tensor: self.tensor(&levels, h, w)?, view, placement })
    }

    /// Prepares levels `[C, H, W]` of one or three channels with `h` rows and `w` columns. If they have the net's size
    /// already, they are only normalised; otherwise they are handled as a picture. RGB and grey are converted to what
    /// the net expects.
    ///
    /// # Errors
    /// When `levels` is neither one nor three planes of `h` x `w`, and as [`check`](Self::check).
    pub fn from_u8(&self, levels: &[u8], h: usize, w: usize) -> Result<Prepared> {
        self.check()?;
        let plane = h.checked_mul(w).filter(|&n| n > 0);
        let channels = match plane {
            Some(n) if n == levels.len() => 1,
            Some(n) if n.checked_mul(3) == Some(levels.len()) => 3,
            _ => {
                return Err(Error::input(format!(
                    "{} levels are neither one nor three channels of {h}x{w}",
                    levels.len()
                )));
            }
        };
        let picture = Picture::new(w, h, packed(levels, channels))?;
        if [h, w] != self.crop {
            return self.apply(&picture);
        }
        Preprocess { resize: 0, ..self.clone() }.apply(&picture)
    }

    /// The picture whose normalised values are `tensor` (`[C, H, W]`), rounded to the nearest level and clipped to 0 …
    /// 255; exact for the output of [`apply`](Self::apply).
    ///
    /// # Errors
    /// When the tensor does not have this preprocessing's channels, holds a NaN, and as [`check`](Self::check).
    pub fn picture(&self, tensor: &Tensor) -> Result<Picture> {
        self.check()?;
        let &[c, h, w] = tensor.dims() else {
            return Err(Error::input(format!("a tensor of shape {:?} is not a picture [C,H,W]", tensor.dims())));
        };
        if c != self.channels {
            return Err(Error::input(format!("a tensor of {c} channels where {} are expected", self.channels)));
        }
        if let Some(at) = tensor.first_not_finite() {
            return Err(Error::input(format!("element {at} of the tensor is not a finite number")));
        }
        let values = tensor.to_f64();
        let plane = (h * w).max(1);
        let levels: Vec<u8> = values
            .iter()
            .enumerate()
            .map(|(i, &v)| self.denormalise(i / plane, v).round().clamp(0.0, 255.0) as u8)
            .collect();
        Picture::new(w, h, packed(&levels, c))
    }
}

#[cfg(test)]
impl Preprocess {
    /// The preparation that most nets are trained with.
    pub(crate) fn imagenet() -> Self {
        Self {
            resize: 256,
            crop: [224, 224],
            interpolation: Interpolation::Bilinear,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            channels: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height * 3).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Picture::new(width, height, rgb).unwrap()
    }

    #[test]
    fn constants_of_levels_up_to_255_are_odd() {
        assert_eq!(Preprocess::imagenet().suspicion(), None);
        let levels = Preprocess { mean: vec![123.675, 116.28, 103.53], ..Preprocess::imagenet() };
        assert!(
            levels.suspicion().unwrap().contains("mean of 123.675") && levels.suspicion().unwrap().contains("0.4850")
        );
        let spread = Preprocess { std: vec![0.2, 58.395, 0.2], ..Preprocess::imagenet() };
        assert!(spread.suspicion().unwrap().contains("standard deviation of 58.395"));
        let plain = Preprocess { mean: vec![-1.0], std: vec![1.0], channels: 1, ..Preprocess::imagenet() };
        assert_eq!(plain.suspicion(), None);
    }

    #[test]
    fn normalising_is_torch_and_its_inverse_is_exact() {
        let p = Preprocess::imagenet();
        // ((torch.tensor(200, dtype=torch.uint8).float() / 255) - 0.485) / 0.229, and level 17 of the third channel
        assert_eq!(p.normalise(0, 200), 1.307_046_8);
        assert_eq!(p.normalise(2, 17), -1.508_148_2);
        for c in 0..3 {
            for level in 0..=255u8 {
                let back = p.denormalise(c, f64::from(p.normalise(c, level)));
                assert_eq!(back.round(), f64::from(level));
                assert!((back - f64::from(level)).abs() < 1e-3);
                let v = f64::from(p.normalise(c, level));
                assert!(p.black()[c] <= v && v <= p.white()[c]);
            }
        }
    }

    #[test]
    fn a_prepared_tensor_gives_its_view_back() {
        for channels in [1, 3] {
            let p = Preprocess {
                resize: 21,
                crop: [19, 23],
                mean: vec![0.4; channels],
                std: vec![0.3; channels],
                channels,
                ..Preprocess::imagenet()
            };
            let prepared = p.apply(&noise(41, 33)).unwrap();
            assert_eq!(prepared.tensor.dims(), [channels, 19, 23]);
            assert_eq!(prepared.view.original_size(), [33, 41]);
            let back = p.picture(&prepared.tensor).unwrap();
            assert_eq!(back.rgb(), prepared.view.rgb());
            let again = p.from_u8(&planes(prepared.view.rgb(), 3), 19, 23).unwrap();
            assert_eq!(again.tensor.dims(), prepared.tensor.dims());
            assert_eq!(again.view.rgb(), prepared.view.rgb());
            assert_eq!(again.tensor, prepared.tensor);
        }
    }

    #[test]
    fn crops_round_as_python() {
        // [int(round((n - 224) / 2.0)) for n in (225, 227, 229, 231)]
        assert_eq!([225, 227, 229, 231].map(|n| centre(n, 224).0), [0, 2, 2, 4]);
        let p = Preprocess { resize: 0, crop: [2, 2], mean: vec![0.0; 3], std: vec![1.0; 3], ..Preprocess::imagenet() };
        let picture = noise(5, 3);
        let view = p.apply(&picture).unwrap().view;
        assert_eq!(view.pixel(0, 0), picture.pixel(0, 2));
        assert_eq!(view.pixel(1, 1), picture.pixel(1, 3));
    }

    /// The white rectangle of a black picture is found where its mapped edges say.
    #[test]
    fn rectangles_are_carried_along() {
        let rectangle = [6.0, 4.0, 18.0, 20.0];
        let paint = |width: usize, height: usize| {
            let inside = |i: usize| (6..18).contains(&(i % width)) && (4..20).contains(&(i / width));
            let rgb = (0..width * height).flat_map(|i| if inside(i) { [255; 3] } else { [0; 3] }).collect();
            Picture::new(width, height, rgb).unwrap()
        };
        let none = Preprocess { mean: vec![0.0; 3], std: vec![1.0; 3], ..Preprocess::imagenet() };
        // Halved and cropped; doubled and cropped into the rectangle; padded; unchanged.
        for (resize, crop, want) in [
            (12, [10, 10], [1, 1, 8, 6]),
            (48, [20, 30], [0, 0, 20, 21]),
            (0, [40, 30], [12, 6, 16, 12]),
            (24, [24, 30], [4, 6, 16, 12]),
        ] {
            let p = Preprocess { resize, crop, ..none.clone() };
            let prepared = p.apply(&paint(30, 24)).unwrap();
            let [top, left, height, width] = prepared.placement.pixels(rectangle).unwrap();
            let white = |i: usize| prepared.view.pixel(i / crop[1], i % crop[1]).unwrap()[0] > 127;
            let inside = |i: usize| {
                (top..top + height).contains(&(i / crop[1])) && (left..left + width).contains(&(i % crop[1]))
            };
            assert!((0..crop[0] * crop[1]).all(|i| white(i) == inside(i)), "{resize} {crop:?}");
            assert_eq!([top, left, height, width], want, "{resize} {crop:?}");
        }
        let p = Preprocess { resize: 24, crop: [10, 10], ..none };
        let placement = p.placement([24, 30]).unwrap();
        assert_eq!(placement.pixels([0.0, 0.0, 9.0, 24.0]), None);
        assert_eq!(placement.pixels([0.0, 0.0, 30.0, 24.0]), Some([0, 0, 10, 10]));
        // Edges are not rounded: a quarter of a pixel stays one.
        assert_eq!(placement.edges([11.25, 7.5, 12.5, 9.0]), [1.25, 0.5, 2.5, 2.0]);
        assert!(p.placement([0, 3]).is_err());
    }

    #[test]
    fn a_small_picture_is_framed_with_black() {
        let p = Preprocess { resize: 0, crop: [5, 6], mean: vec![0.5; 3], std: vec![0.5; 3], ..Preprocess::imagenet() };
        let prepared = p.apply(&Picture::filled(9, 2, [255, 255, 255]).unwrap()).unwrap();
        let lit: Vec<bool> = (0..5).map(|y| prepared.view.pixel(y, 0) == Some([255; 3])).collect();
        assert_eq!(lit, [false, true, true, false, false]);
        assert_eq!(prepared.tensor.to_f32()[0], -1.0);
        assert_eq!(prepared.tensor.to_f32()[6], 1.0);
    }

    #[test]
    fn an_elongated_picture_costs_no_more_than_its_crop() {
        let thin = Picture::filled(30_000, 1, [9, 8, 7]).unwrap();
        let prepared = Preprocess::imagenet().apply(&thin).unwrap();
        assert_eq!(prepared.view, Picture::filled(224, 224, [9, 8, 7]).unwrap().cut_from([1, 30_000]));
    }

    #[test]
    fn settings_that_mean_nothing_are_errors() {
        let picture = noise(8, 8);
        for bad in [
            Preprocess { channels: 2, ..Preprocess::imagenet() },
            Preprocess { mean: vec![0.5], ..Preprocess::imagenet() },
            Preprocess { std: vec![1.0, 0.0, 1.0], ..Preprocess::imagenet() },
            Preprocess { mean: vec![f64::NAN; 3], ..Preprocess::imagenet() },
            Preprocess { crop: [0, 3], ..Preprocess::imagenet() },
            Preprocess { crop: [usize::MAX, 3], ..Preprocess::imagenet() },
            Preprocess { resize: usize::MAX, ..Preprocess::imagenet() },
        ] {
            let error = bad.apply(&picture).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Settings, "{error}");
        }
        let error = Preprocess::imagenet().from_u8(&[0; 13], 2, 3).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Input, "{error}");
    }
}
