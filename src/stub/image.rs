use crate::error::{Error, Result};
use crate::tensor::Tensor;
use serde::Serialize;
use std::path::Path;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preprocess {
    pub resize: usize,
    pub crop: [usize; 2],
    pub interpolation: Interpolation,
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    pub channels: usize,
}
#[derive(Debug, Clone)]
pub struct Picture(pub ::image::RgbImage);
#[derive(Debug, Clone)]
pub struct DecodeLimits {
    pub max_side: u32,
}
impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_side: 20_000 }
    }
}
#[derive(Debug, Clone)]
pub struct Prepared {
    pub tensor: Tensor,
    pub view: Picture,
}
impl Picture {
    pub fn open(path: impl AsRef<Path>, limits: &DecodeLimits) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let bad = |e: &dyn std::fmt::Display| Error::input(format!("{}: {e}", path.display()));
        let mut reader =
            ::image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
        let mut bounds = ::image::Limits::default();
        bounds.max_image_width = Some(limits.max_side);
        bounds.max_image_height = Some(limits.max_side);
        reader.limits(bounds);
        Ok(Self(reader.decode().map_err(|e| bad(&e))?.to_rgb8()))
    }
}
impl Preprocess {
    pub fn apply(&self, picture: &Picture) -> Result<Prepared> {
        let [h, w] = self.crop;
        let small =
            ::image::imageops::resize(&picture.0, w as u32, h as u32, ::image::imageops::FilterType::Triangle);
        let mut v = Vec::new();
        for c in 0..self.channels {
            for p in small.pixels() {
                v.push(((f64::from(p.0[c]) / 255.0 - self.mean[c]) / self.std[c]) as f32);
            }
        }
        Ok(Prepared { tensor: Tensor::f32([self.channels, h, w], v)?, view: Picture(small) })
    }
    pub fn from_u8(&self, pixels: &[u8], dims: [usize; 3]) -> Result<Prepared> {
        let [c, h, w] = dims;
        let picture = ::image::RgbImage::from_fn(w as u32, h as u32, |x, y| {
            let at = |k: usize| pixels[(k.min(c - 1) * h + y as usize) * w + x as usize];
            ::image::Rgb([at(0), at(1), at(2)])
        });
        self.apply(&Picture(picture))
    }
    pub fn invert(&self, x: &Tensor) -> Result<Picture> {
        let &[c, h, w] = x.dims() else { return Err(Error::input("not a picture")) };
        Ok(Picture(::image::RgbImage::from_fn(w as u32, h as u32, |i, j| {
            let at = |k: usize| {
                let k = k.min(c - 1);
                let v = x.at((k * h + j as usize) * w + i as usize) * self.std[k] + self.mean[k];
                (v * 255.0).clamp(0.0, 255.0) as u8
            };
            ::image::Rgb([at(0), at(1), at(2)])
        })))
    }
}
