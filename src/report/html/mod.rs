//! The report of a check as a page of HTML: one file that needs nothing else. Styles, script and pictures lie inside,
//! and its policy forbids every request.
//!
//! The page is laid out for narrow and wide screens, light and dark, and paper. Without its script it shows the same,
//! unsorted and unfolded.

mod base64;
mod view;

use std::fmt::{self, Display};
use std::io::{Read, Write};
use std::path::Path;

use askama::Template;

use self::base64::Base64;
use super::check::CheckReport;
use crate::error::{Error, Result, open_file};
use crate::image::{Interpolation, Picture};
use crate::render;

/// Longest side of a drawing, pixels.
pub const LARGEST_SIDE: usize = 224;

/// Bytes at the start of a page in which it says who has written it.
const HEAD_BYTES: u64 = 8 << 10;

/// Up to this side a picture keeps its pixels as they are, and the page shows them large.
const SMALL_SIDE: usize = 64;

#[cfg(feature = "jpeg")]
const QUALITY: u8 = 86;

/// A picture as it lies in the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    media: &'static str,
    bytes: Vec<u8>,
    width: usize,
    height: usize,
}

impl Drawing {
    /// `picture`, shrunk to [`LARGEST_SIDE`]: as JPEG, where the build has it, or as PNG where that is no larger or the
    /// picture is so small that its pixels are to be seen.
    ///
    /// # Errors
    /// When the picture cannot be encoded.
    pub fn of(picture: &Picture) -> Result<Self> {
        let longest = picture.width().max(picture.height());
        let shrunk = (longest > LARGEST_SIDE).then(|| {
            let side = |n: usize| (n * LARGEST_SIDE / longest).max(1);
            picture.resized(side(picture.width()), side(picture.height()), Interpolation::Lanczos)
        });
        let shrunk = shrunk.transpose()?;
        let picture = shrunk.as_ref().unwrap_or(picture);
        let (width, height) = (picture.width(), picture.height());
        let png = Self { media: "image/png", bytes: render::png(picture)?, width, height };
        #[cfg(feature = "jpeg")]
        if longest > SMALL_SIDE {
            let jpeg = render::jpeg(picture, QUALITY)?;
            if jpeg.len() < png.bytes.len() {
                return Ok(Self { media: "image/jpeg", bytes: jpeg, width, height });
            }
        }
        Ok(png)
    }

    /// `[h, w]`, pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_small(&self) -> bool {
        self.width.max(self.height) <= SMALL_SIDE
    }
}

impl Display for Drawing {
    /// As a `data:` address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data:{};base64,{}", self.media, Base64(&self.bytes))
    }
}

/// One map of a method, drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct PagePanel {
    /// The method's id, as in [`super::check::MethodChecked`].
    pub method: String,
    /// The test that shows it, by id; empty for the map of the picture itself.
    pub test: String,
    /// What it is, in a word or two: `original`, `wrong class`.
    pub name: String,
    /// What there is to be seen, in one line.
    pub caption: String,
    /// The map.
    pub drawing: Drawing,
}

/// The drawings that belong to one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Plate {
    /// The picture as the net sees it.
    pub picture: Drawing,
    /// Maps, those of one method in the order in which they are shown.
    pub panels: Vec<PagePanel>,
}

/// A report and its drawings.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// What was found.
    pub report: &'a CheckReport,
    /// Drawings of each picture of the report, in its order; a picture that has none, or is beyond the end, is described
    /// by its numbers alone.
    pub plates: &'a [Option<Plate>],
    /// The command that made the report, for its last lines.
    pub command: &'a str,
}

impl Page<'_> {
    /// Whether a page that this program has written is at `path`.
    pub fn is_at(path: &Path) -> bool {
        let mut head = Vec::new();
        let read = open_file(path)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| Error::io(path, e)));
        let sign = br#"<meta name="generator" content="Verilume "#;
        read.is_ok() && head.windows(sign.len()).any(|part| part == sign)
    }

    /// Writes the page. The drawings are encoded as they are written; of a report on many pictures they make up nearly
    /// all of the file, some 10 to 20 kB each.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let view = view::View::of(self);
        view.write_into(out).map_err(|e| Error::io("the report", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_keep_their_proportions_and_small_ones_their_pixels() {
        let wide = Drawing::of(&Picture::filled(500, 125, [9, 90, 200]).unwrap()).unwrap();
        assert_eq!(wide.size(), [56, 224]);
        let small = Drawing::of(&Picture::filled(28, 28, [9, 90, 200]).unwrap()).unwrap();
        assert_eq!((small.size(), small.media), ([28, 28], "image/png"));
        assert!(small.is_small() && small.to_string().starts_with("data:image/png;base64,iVBORw0KGgo"));
    }

    #[cfg(feature = "jpeg")]
    #[test]
    fn the_smaller_file_is_taken() {
        let flat = Drawing::of(&Picture::filled(200, 200, [9, 90, 200]).unwrap()).unwrap();
        assert_eq!(flat.media, "image/png");
        let noise = (0..200 * 200 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let noise = Drawing::of(&Picture::new(200, 200, noise).unwrap()).unwrap();
        assert_eq!(noise.media, "image/jpeg");
    }
}
