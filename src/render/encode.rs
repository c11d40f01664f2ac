//! Encodes picture files in memory.

#[cfg(any(feature = "png", feature = "jpeg"))]
use crate::error::{Error, Result};
#[cfg(any(feature = "png", feature = "jpeg"))]
use crate::image::Picture;

#[cfg(any(feature = "png", feature = "jpeg"))]
fn write(picture: &Picture, encoder: impl image::ImageEncoder) -> Result<()> {
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::limit(format!("a side of {n} pixels cannot be encoded")));
    encoder
        .write_image(picture.rgb(), side(picture.width())?, side(picture.height())?, image::ExtendedColorType::Rgb8)
        .map_err(|e| Error::limit(format!("a {}x{} picture cannot be encoded: {e}", picture.width(), picture.height())))
}

/// The bytes of a PNG file, lossless.
///
/// # Errors
/// Limit when the picture is larger than the format allows.
#[cfg(feature = "png")]
pub fn png(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(picture, image::codecs::png::PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// The bytes of a baseline JPEG file of `quality` 1 (smallest) to 100 (best).
///
/// # Errors
/// Settings when `quality` is out of range; limit when the picture is larger than the format allows.
#[cfg(feature = "jpeg")]
pub fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>> {
    if !(1..=100).contains(&quality) {
        return Err(Error::settings(format!("a JPEG quality lies between 1 and 100, not at {quality}")));
    }
    let mut bytes = Vec::new();
    write(picture, image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality))?;
    Ok(bytes)
}

#[cfg(all(test, feature = "png", feature = "jpeg"))]
mod tests {
    use super::*;
    use crate::image::DecodeLimits;

    #[test]
    fn files_decode_to_what_was_encoded() {
        let rgb = (0..7 * 5).flat_map(|i| [i as u8 * 7, 255 - i as u8 * 3, 90]).collect();
        let picture = Picture::new(7, 5, rgb).unwrap();
        let limits = DecodeLimits::default();
        assert_eq!(Picture::decode(&png(&picture).unwrap(), &limits).unwrap(), picture);
        let lossy = Picture::decode(&jpeg(&picture, 95).unwrap(), &limits).unwrap();
        assert_eq!((lossy.width(), lossy.height()), (7, 5));
        let mean: f64 = lossy.rgb().iter().zip(picture.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        assert!(mean / 105.0 < 12.0, "{mean}");
        assert!(jpeg(&picture, 0).is_err());
        assert!(jpeg(&Picture::filled(70_000, 1, [1, 2, 3]).unwrap(), 90).is_err());
    }
}
