//! Decodes TIFF files, including kinds that `image` does not support: palettes, YCbCr and floating-point samples.
//!
//! Levels follow Pillow's `convert("RGB")`: grey floating-point samples are clipped to 0 … 255, not scaled, with a
//! remark; colours premultiplied by alpha are divided by it. Signed and 32-bit samples, which Pillow clips too, are
//! refused if one is outside 0 … 255, because their white level is unknown.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::{TiffError, TiffFormatError, TiffUnsupportedError};

use super::DecodeLimits;
use super::ifd::Ifd;
use crate::error::{Error, Result};

const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const COLOUR_MAP: u16 = 320;
const COEFFICIENTS: u16 = 529;
const REFERENCE: u16 = 532;

/// Values of [`PHOTOMETRIC`].
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

/// Value of [`EXTRA_SAMPLES`] for premultiplied alpha.
const ASSOCIATED_ALPHA: f64 = 1.0;

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::input(format!("unsupported kind of TIFF picture: {what}"))
}

fn complaint(error: TiffError) -> Error {
    match error {
        TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::input("truncated TIFF picture: the file ends before the picture does")
        }
        TiffError::LimitsExceeded => Error::limit("the TIFF picture needs more memory than the limit allows"),
        TiffError::UnsupportedError(TiffUnsupportedError::ChromaSubsampling) => {
            unsupported("YCbCr with fewer samples of colour than of brightness, not compressed as JPEG")
        }
        TiffError::UnsupportedError(e) => unsupported(e),
        TiffError::FormatError(TiffFormatError::TiffSignatureNotFound) => {
            Error::input("broken TIFF picture: no header")
        }
        e => Error::input(format!("broken TIFF picture: {e}")),
    }
}

/// The first number of a tag, if present.
fn first(ifd: &Ifd, tag: u16) -> Option<u16> {
    ifd.numbers(tag)?.next().map(|n| n as u16)
}

/// The same file, with `number` as the only value of an existing tag.
fn with(bytes: &[u8], ifd: &Ifd, tag: u16, number: u16) -> Result<Vec<u8>> {
    let place = ifd.place(tag).filter(|&(_, length, _)| matches!(length, 2 | 4 | 8));
    let (at, length, big_endian) = place.ok_or_else(|| unsupported(format!("tag {tag} has no single number")))?;
    let mut copy = bytes.to_vec();
    let value = &mut copy[at..at + length];
    value.fill(0);
    let word = if big_endian { &mut value[length - 2..] } else { &mut value[..2] };
    word.copy_from_slice(&if big_endian { number.to_be_bytes() } else { number.to_le_bytes() });
    Ok(copy)
}

/// Samples of pixels, row by row; those of a pixel are adjacent.
struct Samples {
    pixels: usize,
    each: usize,
    numbers: DecodingResult,
}

/// A decoded TIFF picture.
pub(super) struct Decoded {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Packed RGB.
    pub(super) rgb: Vec<u8>,
    /// A remark about it.
    pub(super) remark: Option<&'static str>,
}

/// The first picture of a TIFF file.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits, turned: bool) -> Result<Decoded> {
    let ifd = Ifd::read(bytes).ok_or_else(|| Error::input("broken TIFF picture: no header"))?;
    if first(&ifd, FILL_ORDER).is_some_and(|order| order != 1) {
        return Err(unsupported("its bits are stored in reverse order"));
    }
    let photometric = first(&ifd, PHOTOMETRIC);
    let float = first(&ifd, SAMPLE_FORMAT) == Some(3);
    let associated = ifd.numbers(EXTRA_SAMPLES).is_some_and(|mut extra| extra.next() == Some(ASSOCIATED_ALPHA));
    // The decoder treats palette indices as levels, and would invert floating-point samples around 0.5.
    let file = if photometric == Some(PALETTE) || float && photometric == Some(WHITE_IS_ZERO) {
        if bytes.len() as u64 > limits.decoded_bytes {
            return Err(Error::limit("the TIFF picture needs more memory than the limit allows"));
        }
        Cow::from(with(bytes, &ifd, PHOTOMETRIC, BLACK_IS_ZERO)?)
    } else {
        Cow::from(bytes)
    };
    let mut budget = Limits::default();
    budget.decoding_buffer_size = usize::try_from(limits.decoded_bytes).unwrap_or(usize::MAX);
    budget.intermediate_buffer_size = budget.decoding_buffer_size;
    let mut decoder = Decoder::new(Cursor::new(file.as_ref())).map_err(complaint)?.with_limits(budget);
    let (width, height) = decoder.dimensions().map_err(complaint)?;
    if width == 0 || height == 0 {
        return Err(Error::input(format!("the TIFF picture has no pixels ({width}x{height})")));
    }
    let colours = decoder.colortype().map_err(complaint)?;
    let samples = u64::from(colours.num_samples());
    let row = (u64::from(width) * samples * u64::from(colours.bit_depth())).div_ceil(8);
    let rgb = (u64::from(width) * u64::from(height)).saturating_mul(3);
    // At most a row of strips is decompressed besides the picture.
    let copies = file.len() as u64 * u64::from(matches!(file, Cow::Owned(_)));
    let decoded = row.saturating_mul(u64::from(height)).saturating_add(rgb);
    let upright = rgb.saturating_mul(1 + u64::from(turned));
    limits.check(width, height, copies.saturating_add(decoded.max(upright)))?;
    let layout = decoder.image_buffer_layout().map_err(complaint)?;
    let mut numbers = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut numbers).map_err(complaint)?;
    if numbers.as_buffer(0).byte_len() < layout.complete_len {
        return Err(Error::limit("the TIFF picture needs more memory than the limit allows"));
    }
    let pixels = width as usize * height as usize;
    if colours.bit_depth() < 8 {
        numbers = unpacked(numbers, width as usize, colours.bit_depth(), colours.num_samples())?;
    }
    let mut samples = Samples { pixels, each: usize::from(colours.num_samples()), numbers };
    if layout.planes > 1 {
        samples.interleave()?;
    }
    let rgb = match colours {
        ColorType::Gray(bits) | ColorType::Multiband { bit_depth: bits, .. } if photometric == Some(PALETTE) => {
            painted(&samples.indices(bits)?, &ifd, bits)?
        }
        ColorType::Gray(bits) => grey(&samples, bits)?,
        ColorType::Multiband { num_samples: 2, .. } if ifd.has(EXTRA_SAMPLES) => {
            colour(&samples.levels()?, samples.each, 1, associated)
        }
        ColorType::GrayA(_) => colour(&samples.levels()?, samples.each, 1, associated),
        ColorType::RGB(_) => colour(&samples.levels()?, samples.each, 3, false),
        ColorType::RGBA(_) => colour(&samples.levels()?, samples.each, 3, associated),
        ColorType::CMYK(_) => inks(&samples.levels()?),
        ColorType::YCbCr(_) => brightness_and_colour(&samples.levels()?, &ifd),
        other => return Err(unsupported(format!("{other:?}"))),
    };
    if rgb.len() != pixels * 3 {
        return Err(Error::input("broken TIFF picture: its samples do not fill it"));
    }
    let remark = if matches!(colours, ColorType::Gray(_)) { cut(&samples) } else { None };
    Ok(Decoded { width: width as usize, height: height as usize, rgb, remark })
}

/// Unpacks samples of less than a byte to one per byte; rows start at byte boundaries.
fn unpacked(numbers: DecodingResult, width: usize, bits: u8, samples: u16) -> Result<DecodingResult> {
    let (DecodingResult::U8(packed), 1 | 2 | 4, 1) = (numbers, bits, samples) else {
        return Err(unsupported(format!("samples of {bits} bits")));
    };
    let per_byte = 8 / usize::from(bits);
    let mask = (1u16 << bits) - 1;
    let one = |byte: u8, i: usize| (u16::from(byte) >> (8 - usize::from(bits) * (i + 1)) & mask) as u8;
    let row = |row: &[u8]| (0..width).map(|x| one(row[x / per_byte], x % per_byte)).collect::<Vec<u8>>();
    Ok(DecodingResult::U8(packed.chunks_exact(width.div_ceil(per_byte)).flat_map(row).collect()))
}

impl Samples {
    /// Interleaves consecutive planes into pixels.
    fn interleave(&mut self) -> Result<()> {
        fn mixed<T: Copy>(planes: &[T], pixels: usize, each: usize) -> Vec<T> {
            (0..pixels).flat_map(|i| (0..each).filter_map(move |c| planes.get(c * pixels + i).copied())).collect()
        }
        match &mut self.numbers {
            DecodingResult::U8(v) => *v = mixed(v, self.pixels, self.each),
            DecodingResult::U16(v) => *v = mixed(v, self.pixels, self.each),
            _ => return Err(unsupported("planes of numbers other than levels of 8 or 16 bits")),
        }
        Ok(())
    }

    /// 8-bit levels; the high bytes of 16-bit ones.
    fn levels(&self) -> Result<Cow<'_, [u8]>> {
        match &self.numbers {
            DecodingResult::U8(v) => Ok(v.into()),
            DecodingResult::U16(v) => Ok(v.iter().map(|n| (n >> 8) as u8).collect()),
            _ => Err(unsupported("several channels of numbers other than levels of 8 or 16 bits")),
        }
    }

    fn indices(&self, bits: u8) -> Result<Cow<'_, [u8]>> {
        match &self.numbers {
            DecodingResult::U8(v) if self.each == 1 => Ok(v.into()),
            // The sample after an index is its opacity.
            DecodingResult::U8(v) => Ok(v.iter().step_by(self.each).copied().collect()),
            _ => Err(unsupported(format!("a palette of {bits} bits"))),
        }
    }
}

/// Samples that are levels.
///
/// # Errors
/// When one is outside 0 to 255.
fn bytes<T: Copy + TryInto<u8>>(numbers: &[T], what: &str) -> Result<Vec<u8>> {
    let levels: Option<Vec<u8>> = numbers.iter().map(|&n| n.try_into().ok()).collect();
    levels.ok_or_else(|| unsupported(format!("{what}, some beyond 0 to 255; save it with 8 or 16 bits, unsigned")))
}

/// The remark on grey samples that are clipped.
fn cut(samples: &Samples) -> Option<&'static str> {
    let beyond = |n: &f32| !(0.0..256.0).contains(n);
    let DecodingResult::F32(v) = &samples.numbers else { return None };
    if v.iter().any(beyond) {
        return Some("floating-point numbers beyond 0 to 255 are cut");
    }
    let shares = v.iter().all(|n| *n <= 1.0) && v.iter().any(|n| n.fract() != 0.0);
    shares.then_some(
        "floating-point numbers from 0 to 1 are taken as levels from 0 to 255, which makes the picture black",
    )
}

fn grey(samples: &Samples, bits: u8) -> Result<Vec<u8>> {
    fn triple(levels: impl Iterator<Item = u8>) -> Vec<u8> {
        levels.flat_map(|v| [v; 3]).collect()
    }
    Ok(match &samples.numbers {
        DecodingResult::U8(v) if bits < 8 => {
            let top = (1u16 << bits) - 1;
            triple(v.iter().map(|&n| (u16::from(n) * (255 / top)) as u8))
        }
        // Casts clip, and turn NaN into 0.
        DecodingResult::F32(v) => triple(v.iter().map(|&n| n as u8)),
        DecodingResult::I16(v) => triple(bytes(v, "signed grey numbers of 16 bits")?.into_iter()),
        DecodingResult::I32(v) => triple(bytes(v, "signed grey numbers of 32 bits")?.into_iter()),
        DecodingResult::U32(v) => triple(bytes(v, "grey numbers of 32 bits")?.into_iter()),
        DecodingResult::U8(_) | DecodingResult::U16(_) => triple(samples.levels()?.iter().copied()),
        DecodingResult::I8(_) => return Err(unsupported("signed numbers of 8 bits")),
        _ => return Err(unsupported(format!("numbers of {bits} bits"))),
    })
}

/// The first `used` samples of each pixel; the last sample is alpha, by which colours may be premultiplied.
fn colour(levels: &[u8], each: usize, used: usize, associated: bool) -> Vec<u8> {
    let one = |pixel: &[u8]| {
        let alpha = u16::from(pixel[used.min(pixel.len() - 1)]);
        let level = |i: usize| {
            let level = u16::from(pixel[i.min(used - 1)]);
            // Fully transparent colours are black.
            let divided = || (255 * u32::from(level)).checked_div(u32::from(alpha)).unwrap_or(0).min(255) as u8;
            if associated { divided() } else { level as u8 }
        };
        [level(0), level(1), level(2)]
    };
    levels.chunks_exact(each.max(used)).flat_map(one).collect()
}

/// Cyan, magenta, yellow and black.
fn inks(levels: &[u8]) -> Vec<u8> {
    let one = |&[c, m, y, k]: &[u8; 4]| {
        let paper = i32::from(255 - k);
        [c, m, y].map(|ink| {
            // ink · paper / 255, rounded.
            let product = i32::from(ink) * paper + 128;
            (paper - ((product + (product >> 8)) >> 8)).clamp(0, 255) as u8
        })
    };
    levels.as_chunks().0.iter().flat_map(one).collect()
}

/// Converts palette indices, using the high bytes of the table's 16-bit colours.
fn painted(indices: &[u8], ifd: &Ifd, bits: u8) -> Result<Vec<u8>> {
    let size = 1usize << bits.min(8);
    let table = ifd.numbers(COLOUR_MAP).filter(|table| table.len() >= 3 * size);
    let table = table.ok_or_else(|| Error::input("broken TIFF picture: its palette is missing or too short"))?;
    let table: Vec<f64> = table.take(3 * size).collect();
    let entry = |i: usize| [0, 1, 2].map(|c| (table[c * size + i] as u16 >> 8) as u8);
    let colours: Vec<[u8; 3]> = (0..size).map(entry).collect();
    Ok(indices.iter().flat_map(|&i| colours[usize::from(i) % size]).collect())
}

/// Converts YCbCr, with the file's luma coefficients and its black and white levels.
fn brightness_and_colour(levels: &[u8], ifd: &Ifd) -> Vec<u8> {
    let said = |tag, n| {
        let numbers: Vec<f64> = ifd.numbers(tag).filter(|v| v.len() == n)?.collect();
        numbers.iter().all(|v| v.is_finite()).then_some(numbers)
    };
    let luma = said(COEFFICIENTS, 3).filter(|luma| luma[1] > 0.0).unwrap_or_else(|| vec![0.299, 0.587, 0.114]);
    let range = said(REFERENCE, 6).filter(|range| (0..3).all(|i| range[2 * i + 1] > range[2 * i]));
    let range = range.unwrap_or_else(|| vec![0.0, 255.0, 128.0, 255.0, 128.0, 255.0]);
    let scaled = |v: u8, i: usize, full: f64| (f64::from(v) - range[2 * i]) * full / (range[2 * i + 1] - range[2 * i]);
    let one = |&[y, cb, cr]: &[u8; 3]| {
        let (y, cb, cr) = (scaled(y, 0, 255.0), scaled(cb, 1, 127.0), scaled(cr, 2, 127.0));
        let r = y + cr * (2.0 - 2.0 * luma[0]);
        let b = y + cb * (2.0 - 2.0 * luma[2]);
        let g = (y - luma[0] * r - luma[2] * b) / luma[1];
        [r, g, b].map(|v| v.round().clamp(0.0, 255.0) as u8)
    };
    levels.as_chunks().0.iter().flat_map(one).collect()
}
