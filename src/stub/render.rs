use crate::image::Picture;
use super::map::Map;
use crate::error::Result;
use ::image::RgbImage;
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub winsorise: f64,
}
pub fn heatmap(map: &Map, _: &Look) -> Result<RgbImage> {
    let d = map.values.dims();
    let (h, w) = (d[d.len() - 2], d[d.len() - 1]);
    Ok(RgbImage::from_fn(w as u32, h as u32, |x, y| {
        let v = map.values.at(y as usize * w + x as usize).abs();
        ::image::Rgb([(v * 255.0) as u8; 3])
    }))
}
pub fn overlay(picture: &Picture, _: &Map, _: &Look) -> Result<RgbImage> {
    Ok(RgbImage::new(picture.width() as u32, picture.height() as u32))
}
pub fn grid(picture: &Picture, maps: &[(String, &Map)], _: &Look) -> Result<RgbImage> {
    Ok(RgbImage::new(picture.width() as u32 * (1 + maps.len() as u32), picture.height() as u32))
}
