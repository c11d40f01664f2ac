//! [`Picture`]: packed 8-bit RGB.

use super::resize::{self, Interpolation};
use crate::error::{Error, Result};

/// A picture of packed 8-bit RGB, rows from the top, three bytes per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
    original_size: [usize; 2],
    damage: Option<&'static str>,
}

impl Picture {
    /// From packed RGB bytes.
    ///
    /// # Errors
    /// When `rgb` does not hold exactly `width * height * 3` bytes, or the picture is empty.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if bytes != Some(rgb.len()) || rgb.is_empty() {
            return Err(Error::input(format!("{} bytes are not an RGB picture of {width}x{height}", rgb.len())));
        }
        Ok(Self { width, height, rgb, original_size: [height, width], damage: None })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// When the picture is empty.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Result<Self> {
        Self::new(width, height, colour.repeat(width.saturating_mul(height)))
    }

    /// The same picture, marked as cropped from one of `size` = `[h, w]`.
    #[must_use]
    pub(crate) fn cut_from(mut self, size: [usize; 2]) -> Self {
        self.original_size = size;
        self
    }

    /// The same picture, marked as coming from a damaged file; `what` is the damage.
    #[must_use]
    #[cfg(feature = "pictures")]
    pub(crate) fn damaged(mut self, what: &'static str) -> Self {
        self.damage = Some(what);
        self
    }

    /// The damage to the pixels of the file from which this picture was decoded, if they could be decoded nevertheless.
    pub fn damage(&self) -> Option<&'static str> {
        self.damage
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Packed RGB bytes, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// `[h, w]` of the upright picture from which this one was resized and cropped; its own size if it was not.
    pub fn original_size(&self) -> [usize; 2] {
        self.original_size
    }

    /// Colour at row `y`, column `x`; `None` outside.
    pub fn pixel(&self, y: usize, x: usize) -> Option<[u8; 3]> {
        (y < self.height && x < self.width).then(|| {
            let at = (y * self.width + x) * 3;
            [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
        })
    }

    /// The packed bytes, for writing.
    #[cfg(feature = "pictures")]
    pub(crate) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// One grey plane `[height, width]`: ITU-R 601 luma in the fixed point of Pillow's `convert("L")`.
    pub fn grey(&self) -> Vec<u8> {
        self.rgb
            .chunks_exact(3)
            .map(|p| {
                let sum = 19595 * u32::from(p[0]) + 38470 * u32::from(p[1]) + 7471 * u32::from(p[2]) + 0x8000;
                (sum >> 16) as u8
            })
            .collect()
    }

    /// The picture scaled to `width` x `height`, bit for bit as Pillow's `resize`.
    ///
    /// # Errors
    /// When the new size is empty.
    pub fn resized(&self, width: usize, height: usize, interpolation: Interpolation) -> Result<Picture> {
        let whole = resize::ResizedPart { offset: [0, 0], size: [height, width] };
        let rgb = resize::resize(&self.rgb, [self.height, self.width], 3, [height, width], whole, interpolation);
        Ok(Picture::new(width, height, rgb)?.cut_from(self.original_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_fill_the_picture() {
        assert!(Picture::new(2, 2, vec![0; 12]).is_ok());
        for (w, h, n) in [(2, 2, 11), (0, 2, 0), (usize::MAX, 2, 6)] {
            assert!(Picture::new(w, h, vec![0; n]).is_err(), "{w}x{h}");
        }
    }

    #[test]
    fn grey_is_pillows_luma() {
        // [Image.new("RGB", (1, 1), c).convert("L").getpixel((0, 0)) for c in ...]
        for (colour, grey) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([255, 255, 255], 255)] {
            assert_eq!(Picture::filled(1, 1, colour).unwrap().grey(), [grey]);
        }
    }
}
