//! Decodes picture files, including hostile ones.
//!
//! The format is determined by content, never by the file name. Colours follow Pillow's `convert("RGB")`: alpha is
//! dropped, not blended; 16-bit levels keep their high byte; colour profiles are not applied; of an animation, the
//! first frame is taken. Unlike in Pillow's plain `open`, the orientation in EXIF or XMP is applied.

use std::cell::Cell;
use std::io::{Cursor, Read};
use std::panic::catch_unwind;
use std::path::Path;

use image::error::{ImageError, LimitErrorKind, UnsupportedErrorKind};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Picture, orientation};
use crate::error::{Error, Result, open_file};

/// Limits on a picture file; checked against its header before anything of that size is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Total number of pixels.
    pub pixels: u64,
    /// Most bytes that decoding holds besides the file: the picture in the file's own sample type, the decoder's
    /// buffers, and the copies that convert it to RGB and turn it upright. Metadata have limits of their own, a few
    /// MiB.
    pub decoded_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl Default for DecodeLimits {
    /// 32768 pixels per side, 256 million in total, 1 GiB for decoding, 512 MiB for the file.
    fn default() -> Self {
        Self { width: 32_768, height: 32_768, pixels: 256_000_000, decoded_bytes: 1 << 30, file_bytes: 512 << 20 }
    }
}

impl DecodeLimits {
    pub(super) fn check(&self, width: u32, height: u32, bytes: u64) -> Result<()> {
        let (w, h) = (u64::from(width), u64::from(height));
        if w as usize > self.width || h as usize > self.height {
            return Err(Error::limit(format!(
                "a picture of {w}x{h} pixels exceeds the limit of {}x{}",
                self.width, self.height
            )));
        }
        if w * h > self.pixels {
            return Err(Error::limit(format!(
                "a picture of {w}x{h} = {} pixels exceeds the limit of {} pixels",
                w * h,
                self.pixels
            )));
        }
        if bytes > self.decoded_bytes {
            return Err(Error::limit(format!(
                "a picture of {w}x{h} pixels needs {bytes} bytes to be decoded, the limit is {}",
                self.decoded_bytes
            )));
        }
        Ok(())
    }

    fn check_file(&self, bytes: u64) -> Result<()> {
        if bytes > self.file_bytes {
            return Err(Error::limit(format!("the file exceeds the limit of {} bytes", self.file_bytes)));
        }
        Ok(())
    }
}

/// Name of a format in messages.
fn name(format: ImageFormat) -> String {
    match format {
        ImageFormat::WebP => "WebP".to_string(),
        other => format!("{other:?}").to_uppercase(),
    }
}

/// The formats that this build can decode, as a list for messages.
fn known_formats() -> String {
    ImageFormat::all().filter(ImageFormat::reading_enabled).map(name).collect::<Vec<_>>().join(", ")
}

/// One sentence for a decoder's error on a file of `format`.
fn complaint(error: ImageError, format: ImageFormat) -> Error {
    let name = name(format);
    match error {
        ImageError::Limits(e) if matches!(e.kind(), LimitErrorKind::Unsupported { .. }) => {
            Error::input(format!("unusable {name} picture: {e}"))
        }
        ImageError::Limits(_) => Error::limit(format!("the {name} picture needs more memory than the limit allows")),
        ImageError::Unsupported(e) => match e.kind() {
            UnsupportedErrorKind::Format(_) => {
                Error::input(format!("{name} pictures are not supported (supported: {})", known_formats()))
            }
            _ => Error::input(format!("unsupported kind of {name} picture: {e}")),
        },
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::input(format!("truncated {name} picture: the file ends before the picture does"))
        }
        e => {
            // The source describes the error without repeating the format.
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Error::input(format!("broken {name} picture: {}", first_line(&cause)))
        }
    }
}

/// Decoders' messages may have several lines; one is enough.
fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

/// Whether a JPEG file reaches its end-of-image marker.
///
/// The decoder silently fills missing data with grey, so the markers must be followed here: segments by their lengths
/// (an embedded thumbnail has an end marker of its own), entropy-coded data byte by byte.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    const END: u8 = 0xD9;
    let mut at = 2;
    while at + 1 < bytes.len() {
        if bytes[at] != 0xFF {
            // Outside a scan, these are stray bytes between segments, which decoders skip.
            at += 1;
            continue;
        }
        match bytes[at + 1] {
            END => return true,
            // Fill bytes before a marker.
            0xFF => at += 1,
            // A stuffed zero, or a marker without a segment.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// Most bytes that decoding holds besides the file.
fn held_bytes(decoder: &impl ImageDecoder, file: &[u8], format: ImageFormat, turned: bool) -> u64 {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let (decoded, rgb) = (decoder.total_bytes(), pixels.saturating_mul(3));
    let within = match format {
        // The decoder holds a copy of the file and, for progressive files, all coefficients.
        ImageFormat::Jpeg if is_progressive(file) => rgb.saturating_mul(2).saturating_add(file.len() as u64),
        ImageFormat::Jpeg => file.len() as u64,
        // Frames are composed on a canvas.
        ImageFormat::WebP | ImageFormat::Gif => pixels.saturating_mul(4),
        _ => 0,
    };
    let converted = if decoder.color_type() == image::ColorType::Rgb8 { 0 } else { rgb };
    decoded.saturating_add(within.max(converted)).max(rgb.saturating_mul(1 + u64::from(turned)))
}

/// Whether a JPEG file sends its coefficients in several scans.
fn is_progressive(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, kind, high, low]) = bytes.get(at..at + 4) {
        match kind {
            0xC0 | 0xC1 | 0xDA => return false,
            0xC2 => return true,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // A file that is not understood gets the higher estimate.
    true
}

/// Packed RGB levels, alpha dropped.
fn into_rgb(image: DynamicImage) -> Vec<u8> {
    let high = |v: &u16| (v >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageLuma8(i) => i.as_raw().iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(i) => i.as_raw().chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgba8(i) => i.as_raw().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma16(i) => i.as_raw().iter().flat_map(|v| [high(v); 3]).collect(),
        DynamicImage::ImageLumaA16(i) => i.as_raw().chunks_exact(2).flat_map(|p| [high(&p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(i) => i.as_raw().iter().map(high).collect(),
        DynamicImage::ImageRgba16(i) => {
            i.as_raw().chunks_exact(4).flat_map(|p| [high(&p[0]), high(&p[1]), high(&p[2])]).collect()
        }
        // Floating-point samples: 0 to 1 becomes 0 to 255.
        other => other.into_rgb8().into_raw(),
    }
}

thread_local! {
    /// Whether this thread decodes a picture.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is decoding a picture: a panic there becomes an error of [`Picture::decode`], so a program's
/// panic hook need not report it.
#[must_use]
pub fn is_decoding() -> bool {
    WITHIN.get()
}

impl Picture {
    /// Decodes a picture file held in memory.
    ///
    /// # Errors
    /// Input when the bytes are not a picture of a supported format, are truncated or broken; limit when the header
    /// exceeds `limits`.
    pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
        // A third-party decoder may panic on a hostile file; its state is not used afterwards.
        let decoded = WITHIN.with(|within| {
            let outer = within.replace(true);
            let decoded = catch_unwind(|| Self::decoded(bytes, limits));
            within.set(outer);
            decoded
        });
        decoded.unwrap_or_else(|_| Err(Error::input("broken picture: its decoder fails on it")))
    }

    fn decoded(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
        if bytes.is_empty() {
            return Err(Error::input("the file is empty"));
        }
        limits.check_file(bytes.len() as u64)?;
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| Error::input(format!("unreadable picture: {e}")))?;
        // `image` does not know the magic number of BigTIFF.
        if cfg!(feature = "tiff") && (bytes.starts_with(b"II\x2b\0") || bytes.starts_with(b"MM\0\x2b")) {
            reader.set_format(ImageFormat::Tiff);
        }
        let Some(format) = reader.format() else {
            let text = std::str::from_utf8(bytes).is_ok_and(|t| !t.contains('\0'));
            let what = if text { ", but text" } else { "" };
            return Err(Error::input(format!("not a picture{what} (supported: {})", known_formats())));
        };
        let orientation = orientation::find(bytes, format);
        let turned = orientation > 4;
        #[cfg(feature = "tiff")]
        if format == ImageFormat::Tiff {
            let super::tiff::Decoded { width, height, rgb, remark } = super::tiff::decode(bytes, limits, turned)?;
            let (rgb, width, height) = orientation::upright(rgb, width, height, orientation);
            let picture = Picture::new(width, height, rgb)?;
            return Ok(match remark {
                Some(remark) => picture.damaged(remark),
                None => picture,
            });
        }
        let mut budget = image::Limits::no_limits();
        budget.max_alloc = Some(limits.decoded_bytes);
        reader.limits(budget);
        let decoder = reader.into_decoder().map_err(|e| complaint(e, format))?;
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::input(format!("the {} picture has no pixels ({width}x{height})", name(format))));
        }
        let held = held_bytes(&decoder, bytes, format, turned);
        limits.check(width, height, held)?;
        if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
            return Err(Error::input("truncated JPEG picture: the file ends before the picture does"));
        }
        #[cfg(feature = "png")]
        if format == ImageFormat::Png
            && let Some(kind) = orientation::damaged_chunk(bytes)
        {
            let kind = kind.escape_ascii();
            return Err(Error::input(format!("broken PNG picture: the checksum of its chunk {kind} is wrong")));
        }
        let image = DynamicImage::from_decoder(decoder).map_err(|e| complaint(e, format))?;
        let (rgb, width, height) = orientation::upright(into_rgb(image), width as usize, height as usize, orientation);
        let picture = Picture::new(width, height, rgb)?;
        let damaged = format == ImageFormat::Jpeg && !super::scans::are_whole(bytes);
        Ok(if damaged {
            picture.damaged("the data of the JPEG file are damaged: parts of the picture may be wrong")
        } else {
            picture
        })
    }

    /// Decodes the picture file at `path`.
    ///
    /// # Errors
    /// As [`Picture::decode`], with the path before the message, and when the file cannot be read.
    pub fn open(path: impl AsRef<Path>, limits: &DecodeLimits) -> Result<Picture> {
        let path = path.as_ref();
        let file = open_file(path)?;
        let known = file.metadata().map_err(|e| Error::io(path, e))?.len();
        limits.check_file(known).map_err(|e| e.within(path.display()))?;
        let mut bytes = Vec::new();
        // A file may grow while it is read.
        file.take(limits.file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
        Self::decode(&bytes, limits).map_err(|e| e.within(path.display()))
    }
}
