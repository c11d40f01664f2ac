//! Maps as pictures.

use image::RgbImage;
use verilume::Result;
use verilume::image::Picture;
use verilume::map::Map;
use verilume::render::{self, Look};

use crate::args::Format;

/// What a person asked about the look of maps.
pub fn look(winsorise: Option<f64>) -> Look {
    let mut look = Look::default();
    if let Some(percent) = winsorise {
        look.winsorise = percent;
    }
    look
}

/// One map, as an overlay or a heatmap.
pub fn draw(format: Format, view: &Picture, map: &Map, look: &Look) -> Result<RgbImage> {
    match format {
        Format::Heatmap => render::heatmap(map, look),
        _ => render::overlay(view, map, look),
    }
}

/// The picture and all its maps side by side.
pub fn sheet(view: &Picture, maps: &[(String, Map)], look: &Look) -> Result<RgbImage> {
    let maps: Vec<(String, &Map)> = maps.iter().map(|(name, map)| (name.clone(), map)).collect();
    render::grid(view, &maps, look)
}
