use crate::error::{Error, Result};
use crate::image::Picture;
use crate::map::Map;
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub percentile: Option<f64>,
}
pub struct Shade;
pub struct Legend;
impl From<&Shade> for Legend {
    fn from(_: &Shade) -> Self {
        Self
    }
}
pub struct Cell {
    pub picture: Picture,
    pub name: String,
    pub caption: String,
    pub legend: Option<Legend>,
}
pub struct Sheet {
    pub title: String,
    pub subtitle: String,
    pub cells: Vec<Cell>,
}
impl Sheet {
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Self {
        Self { title: title.into(), subtitle: subtitle.into(), cells: Vec::new() }
    }
}
pub fn shade(_: &Map, _: &Look) -> Result<Shade> {
    Ok(Shade)
}
pub fn heatmap(map: &Map, _: &Look) -> Result<Picture> {
    let d = map.values.dims();
    Picture::filled(d[d.len() - 1], d[d.len() - 2], [200, 30, 30])
}
pub fn overlay(view: &Picture, _: &Map, _: &Look) -> Result<Picture> {
    Ok(view.clone())
}
pub fn grid(sheet: &Sheet) -> Result<Picture> {
    Picture::filled(sheet.cells.iter().map(|c| c.picture.width()).sum(), sheet.cells[0].picture.height(), [9; 3])
}
pub fn png(picture: &Picture) -> Result<Vec<u8>> {
    let (w, h) = (picture.width() as u32, picture.height() as u32);
    let image = ::image::RgbImage::from_raw(w, h, picture.rgb().to_vec()).ok_or_else(|| Error::input("size"))?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ::image::ImageFormat::Png).map_err(|e| Error::input(e.to_string()))?;
    Ok(bytes.into_inner())
}
