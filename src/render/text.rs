//! Draws lines of text on pictures, in a fixed-width font of Latin letters. Other letters are written as their code
//! point, `\u{732b}`, so that two names that cannot be drawn never look the same.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

use crate::image::Picture;

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;

/// Height of a line in pixels.
pub(super) const LINE: usize = HEIGHT.val();

/// Width of a character in pixels.
pub(super) const ADVANCE: usize = get_raster_width(WEIGHT, HEIGHT);

/// Stroke weight of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// As in the font.
    Plain,
    /// Drawn twice, one pixel apart.
    Strong,
}

/// Characters of the font that represent `c`.
fn spelled(c: char) -> String {
    match c {
        '\u{2212}' | '\u{2010}'..='\u{2015}' => "-".into(),
        '\u{2018}' | '\u{2019}' => "'".into(),
        '\u{201c}' | '\u{201d}' => "\"".into(),
        '\u{2026}' => "...".into(),
        c if c.is_control() => " ".into(),
        c if glyph(c).is_some() => c.into(),
        c => c.escape_unicode().to_string(),
    }
}

/// Whether `text` can be drawn literally, because the font has all of its letters.
pub fn is_drawable(text: &str) -> bool {
    text.chars().all(|c| glyph(c).is_some())
}

fn glyph(c: char) -> Option<RasterizedChar> {
    get_raster(c, WEIGHT, HEIGHT)
}

/// `text` in characters of the font, shortened to `width` pixels.
pub(super) fn fitted(text: &str, width: usize) -> String {
    let spelled: String = text.chars().map(spelled).collect();
    let room = width / ADVANCE;
    if spelled.chars().count() <= room {
        return spelled;
    }
    let dots = room.min(3);
    spelled.chars().take(room - dots).chain(std::iter::repeat_n('.', dots)).collect()
}

/// Width of `text` in pixels, once [`fitted`].
pub(super) fn width(text: &str) -> usize {
    text.chars().count() * ADVANCE
}

/// Writes `text` with its top left corner at row `y`, column `x`; parts outside the picture are clipped.
pub(super) fn draw(picture: &mut Picture, [y, x]: [usize; 2], text: &str, colour: [u8; 3], stroke: Stroke) {
    let (columns, rows) = (picture.width(), picture.height());
    let shifts: &[usize] = if stroke == Stroke::Strong { &[0, 1] } else { &[0] };
    let rgb = picture.rgb_mut();
    for (i, c) in text.chars().enumerate() {
        let Some(glyph) = glyph(c) else { continue };
        for (dy, row) in glyph.rows().enumerate() {
            for (dx, &ink) in row.iter().enumerate() {
                for shift in shifts {
                    let (py, px) = (y + dy, x + i * ADVANCE + dx + shift);
                    if ink == 0 || py >= rows || px >= columns {
                        continue;
                    }
                    for (level, tint) in rgb[(py * columns + px) * 3..][..3].iter_mut().zip(colour) {
                        let (below, above) = (i32::from(*level), i32::from(tint));
                        *level = (below + (above - below) * i32::from(ink) / 255) as u8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_its_room() {
        assert_eq!(fitted("tabby cat", 9 * ADVANCE), "tabby cat");
        assert_eq!(fitted("tabby cat", 8 * ADVANCE), "tabby...");
        assert_eq!(fitted("tabby", 2 * ADVANCE), "..");
        assert_eq!(fitted("\u{2212}1\u{2026}\u{732b}é\n", 100 * ADVANCE), "-1...\\u{732b}é ");
        // Czech, Polish and Turkish letters are in the font; Greek, Cyrillic and Chinese are not.
        assert!(is_drawable("Žluťoučký kůň, łódź, ağaç") && fitted("ąęśżğı", 6 * ADVANCE) == "ąęśżğı");
        assert!(["γάτα", "кошка", "\u{732b}", "a\u{301}", "a\nb"].iter().all(|text| !is_drawable(text)));
    }

    #[test]
    fn text_leaves_ink_and_stays_inside() {
        let mut picture = Picture::filled(20, 10, [255; 3]).unwrap();
        draw(&mut picture, [2, 3], "Wide", [0; 3], Stroke::Strong);
        draw(&mut picture, [100, 100], "out", [0; 3], Stroke::Plain);
        assert!(picture.rgb().iter().any(|&v| v < 80));
    }
}
