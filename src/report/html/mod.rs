//! The report of a check as an HTML page: one self-contained file. Styles, script and pictures are inside, and its
//! content security policy forbids every request.
//!
//! The page suits narrow and wide screens, light and dark themes, and paper. Without its script it shows the same,
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

/// Bytes at the start of a page that contain the name of its author.
const HEAD_BYTES: u64 = 8 << 10;

/// Up to this side, a picture keeps its pixels unchanged, and the page shows them enlarged.
const SMALL_SIDE: usize = 64;

#[cfg(feature = "jpeg")]
const QUALITY: u8 = 86;

/// A picture embedded in the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    media: &'static str,
    bytes: Vec<u8>,
    width: usize,
    height: usize,
}

impl Drawing {
    /// `picture`, shrunk to [`LARGEST_SIDE`]: as JPEG if the build supports it; as PNG if that is no larger, or if the
    /// picture is so small that its pixels should be visible.
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
    /// As a `data:` URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data:{};base64,{}", self.media, Base64(&self.bytes))
    }
}

/// A method's map, drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct PagePanel {
    /// The method's id, as in [`super::check::MethodChecked`].
    pub method: String,
    /// Id of the test that shows it; empty for the map of the picture itself.
    pub test: String,
    /// A word or two for it: `original`, `wrong class`.
    pub name: String,
    /// What it shows, in one line.
    pub caption: String,
    /// The map.
    pub drawing: Drawing,
}

/// The drawings for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Plate {
    /// The picture in the net's size.
    pub picture: Drawing,
    /// Maps; those of one method in display order.
    pub panels: Vec<PagePanel>,
}

/// A report and its drawings.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The results.
    pub report: &'a CheckReport,
    /// Drawings for each picture of the report, in order. A picture without drawings, or beyond the end, is described
    /// by its numbers alone.
    pub plates: &'a [Option<Plate>],
    /// The command that made the report, for the footer.
    pub command: &'a str,
}

impl Page<'_> {
    /// Whether `path` is a page written by this program.
    pub fn is_at(path: &Path) -> bool {
        let mut head = Vec::new();
        let read = open_file(path)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| Error::io(path, e)));
        let sign = br#"<meta name="generator" content="Verilume "#;
        read.is_ok() && head.windows(sign.len()).any(|part| part == sign)
    }

    /// Writes the page. The drawings are encoded as they are written; in a report on many pictures they make up nearly
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
