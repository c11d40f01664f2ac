//! Sheets: a picture and many of its maps side by side, with names, figures and colour bars.

use serde::Serialize;

use super::colormap::Palette;
use super::heatmap::Shade;
use super::text::{self, Stroke};
use crate::error::{Error, Result};
use crate::image::{Interpolation, Picture};

/// Colours of the paper and the ink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// Dark ink on white.
    #[default]
    Light,
    /// Light ink on near-black.
    Dark,
}

impl Theme {
    /// Paper, ink, faint ink, hairlines.
    fn colours(self) -> [[u8; 3]; 4] {
        match self {
            Theme::Light => [[255, 255, 255], [24, 26, 32], [96, 102, 114], [214, 217, 223]],
            Theme::Dark => [[20, 22, 27], [236, 238, 242], [150, 156, 168], [58, 62, 71]],
        }
    }
}

/// The meaning of a cell's colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Legend {
    /// The palette.
    pub palette: Palette,
    /// The value at its first colour.
    pub low: f64,
    /// The value at its last colour.
    pub high: f64,
}

impl From<&Shade> for Legend {
    fn from(shade: &Shade) -> Self {
        Self { palette: shade.palette, low: shade.low, high: shade.high }
    }
}

/// One picture of a sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The picture, scaled to fit.
    pub picture: Picture,
    /// First line below it.
    pub name: String,
    /// Second line below it, fainter.
    pub caption: String,
    /// A colour bar below that.
    pub legend: Option<Legend>,
}

/// A sheet of pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    /// First line, such as the prediction. Left out when empty.
    pub title: String,
    /// Second line, fainter. Left out when empty.
    pub subtitle: String,
    /// The pictures, in row-major order.
    pub cells: Vec<Cell>,
    /// Cells per row; `None`: about as many as there are rows, 4 to 6.
    pub columns: Option<usize>,
    /// `[h, w]` of the area for one picture, in pixels.
    pub cell_size: [usize; 2],
    /// Colours of the paper and the ink.
    pub theme: Theme,
}

impl Sheet {
    /// A sheet without cells, with areas of 224 x 224 pixels.
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            subtitle: subtitle.into(),
            cells: Vec::new(),
            columns: None,
            cell_size: [224, 224],
            theme: Theme::Light,
        }
    }
}

/// Pixels around the sheet and between the cells.
const MARGIN: usize = 20;
/// Pixels between a picture and its name.
const GAP: usize = 6;
/// Height of a colour bar.
const BAR: usize = 8;
/// Most pixels of a sheet.
const MOST_PIXELS: usize = 200_000_000;

/// Copies `picture` to row `y`, column `x`; the caller has made sure that it fits.
fn paste(sheet: &mut Picture, [y, x]: [usize; 2], picture: &Picture) {
    let (columns, row) = (sheet.width(), picture.width() * 3);
    for (i, line) in picture.rgb().chunks_exact(row).enumerate() {
        sheet.rgb_mut()[((y + i) * columns + x) * 3..][..row].copy_from_slice(line);
    }
}

/// `picture` scaled to the largest size that fits into `[h, w]`, with its proportions kept.
fn fit(picture: &Picture, [h, w]: [usize; 2]) -> Result<Picture> {
    let (ph, pw) = (picture.height(), picture.width());
    let (to_h, to_w) = if ph * w > pw * h { (h, (pw * h / ph).max(1)) } else { ((ph * w / pw).max(1), w) };
    if (to_h, to_w) == (ph, pw) {
        return Ok(picture.clone());
    }
    // Enlarged maps keep hard pixel borders; shrunk pictures must not alias.
    let filter = if to_h > ph { Interpolation::Nearest } else { Interpolation::Lanczos };
    picture.resized(to_w, to_h, filter)
}

/// The value at an end of a colour bar.
fn figure(v: f64) -> String {
    match v.abs() {
        0.0 => "0".into(),
        a if (0.01..1000.0).contains(&a) => format!("{v:.3}"),
        _ => format!("{v:.1e}"),
    }
}

/// Draws `sheet`.
///
/// # Errors
/// Settings when there are no cells or no columns, or the area for a picture is empty; limit when the sheet would
/// exceed 200 million pixels.
pub fn grid(sheet: &Sheet) -> Result<Picture> {
    let cells = sheet.cells.len();
    let columns = sheet.columns.unwrap_or_else(|| ((cells as f64).sqrt().ceil() as usize).clamp(4, 6).min(cells));
    if cells == 0 || columns == 0 || sheet.cell_size.contains(&0) {
        return Err(Error::settings("a sheet needs at least one picture, one column and room for the picture"));
    }
    let columns = columns.min(cells);
    let rows = cells.div_ceil(columns);
    let [h, w] = sheet.cell_size;
    let legend = if sheet.cells.iter().any(|c| c.legend.is_some()) { GAP + BAR + text::LINE } else { 0 };
    let below = GAP + 2 * text::LINE + legend;
    let heads = [&sheet.title, &sheet.subtitle].into_iter().filter(|t| !t.is_empty()).count();
    let head = if heads == 0 { 0 } else { heads * (text::LINE + 4) + MARGIN };
    let side = |n: usize, each: usize, extra: usize| {
        each.checked_add(MARGIN).and_then(|s| s.checked_mul(n)).and_then(|s| s.checked_add(MARGIN + extra))
    };
    let (width, height) = match (side(columns, w, 0), side(rows, h.saturating_add(below), head)) {
        (Some(width), Some(height)) if width.checked_mul(height).is_some_and(|n| n <= MOST_PIXELS) => (width, height),
        _ => return Err(Error::limit(format!("a sheet of {rows}x{columns} cells of {h}x{w} pixels is too large"))),
    };
    let [paper, ink, faint, hairline] = sheet.theme.colours();
    let mut drawn = Picture::filled(width, height, paper)?;
    let room = width - 2 * MARGIN;
    let mut y = MARGIN;
    for (line, colour, stroke) in [(&sheet.title, ink, Stroke::Strong), (&sheet.subtitle, faint, Stroke::Plain)] {
        if !line.is_empty() {
            text::draw(&mut drawn, [y, MARGIN], &text::fitted(line, room), colour, stroke);
            y += text::LINE + 4;
        }
    }
    if heads > 0 {
        let rule = Picture::filled(room, 1, hairline)?;
        paste(&mut drawn, [y + 3, MARGIN], &rule);
        y += MARGIN;
    }
    for (i, cell) in sheet.cells.iter().enumerate() {
        let top = y + i / columns * (h + below + MARGIN);
        let left = MARGIN + i % columns * (w + MARGIN);
        let picture = fit(&cell.picture, sheet.cell_size)?;
        paste(&mut drawn, [top + (h - picture.height()) / 2, left + (w - picture.width()) / 2], &picture);
        let mut line = top + h + GAP;
        text::draw(&mut drawn, [line, left], &text::fitted(&cell.name, w), ink, Stroke::Strong);
        line += text::LINE;
        text::draw(&mut drawn, [line, left], &text::fitted(&cell.caption, w), faint, Stroke::Plain);
        line += text::LINE + GAP;
        if let Some(legend) = cell.legend {
            let start = if legend.palette == Palette::Diverging { -1.0 } else { 0.0 };
            let step = (1.0 - start) / (w.max(2) - 1) as f64;
            let row: Vec<u8> = (0..w).flat_map(|x| legend.palette.colour(start + step * x as f64)).collect();
            paste(&mut drawn, [line, left], &Picture::new(w, BAR, row.repeat(BAR))?);
            line += BAR;
            let (low, high) = (figure(legend.low), figure(legend.high));
            if text::width(&low) + text::width(&high) < w {
                text::draw(&mut drawn, [line, left], &low, faint, Stroke::Plain);
                text::draw(&mut drawn, [line, left + w - text::width(&high)], &high, faint, Stroke::Plain);
            }
        }
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: usize, height: usize) -> Cell {
        Cell {
            picture: Picture::filled(width, height, [200, 30, 30]).unwrap(),
            name: "gradient".into(),
            caption: "a caption that is much too long for the room it has".into(),
            legend: Some(Legend { palette: Palette::Diverging, low: -0.5, high: 0.5 }),
        }
    }

    #[test]
    fn cells_of_any_shape_fit() {
        let mut sheet = Sheet::new("Chelsea: tabby 0.53", "");
        sheet.cells = [(224, 224), (7, 7), (500, 20), (3, 900), (1, 1)].map(|(w, h)| cell(w, h)).to_vec();
        for cell_size in [[224, 224], [60, 100], [5, 3]] {
            for columns in [None, Some(1), Some(3), Some(50)] {
                let drawn = grid(&Sheet { cell_size, columns, theme: Theme::Dark, ..sheet.clone() }).unwrap();
                assert!(drawn.width() > cell_size[1] && drawn.height() > cell_size[0]);
            }
        }
        let drawn = grid(&sheet).unwrap();
        assert_eq!(drawn.width(), 4 * (224 + MARGIN) + MARGIN);
        let painted = drawn.rgb().chunks_exact(3).filter(|p| *p == [200, 30, 30]).count();
        assert!(painted >= 3 * 224 * 224, "{painted}");
    }

    #[test]
    fn a_sheet_of_nothing_is_an_error() {
        let empty = Sheet::new("", "");
        assert_eq!(grid(&empty).unwrap_err().kind(), crate::ErrorKind::Settings);
        let one = Sheet { cells: vec![cell(4, 4)], ..empty };
        assert!(grid(&Sheet { columns: Some(0), ..one.clone() }).is_err());
        assert_eq!(grid(&Sheet { cell_size: [usize::MAX; 2], ..one }).unwrap_err().kind(), crate::ErrorKind::Limit);
    }
}
