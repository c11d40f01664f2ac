//! Draws maps as pictures.

use super::Format;
use crate::error::Result;
use crate::image::Picture;
use crate::map::Map;
use crate::render::{self, Cell, Legend, Look, Sheet};

/// One map, as an overlay or a heatmap.
pub fn draw(format: Format, view: &Picture, map: &Map, look: &Look) -> Result<Picture> {
    match format {
        Format::Heatmap => render::heatmap(map, look),
        _ => render::overlay(view, map, look),
    }
}

/// A map on a sheet.
pub struct SheetPanel {
    /// The method's name.
    pub name: String,
    /// The explained class.
    pub caption: String,
    /// The map.
    pub map: Map,
}

/// The picture and all its maps side by side.
pub fn sheet(title: &str, view: &Picture, panels: &[SheetPanel], look: &Look) -> Result<Picture> {
    let mut sheet = Sheet::new(title, "");
    sheet.cells.push(Cell { picture: view.clone(), name: "input".into(), caption: String::new(), legend: None });
    for panel in panels {
        sheet.cells.push(Cell {
            picture: render::overlay(view, &panel.map, look)?,
            name: panel.name.clone(),
            caption: panel.caption.clone(),
            legend: Some(Legend::from(&render::shade(&panel.map, look)?)),
        });
    }
    render::grid(&sheet)
}
