//! The orientation of a picture, from EXIF or, without it, from XMP, as in Pillow's `exif_transpose`.

use std::borrow::Cow;

use image::ImageFormat;

use super::ifd::{self, Ifd};

/// Longest EXIF block that is assembled from several segments, in bytes.
const MOST_EXIF: usize = 16 << 20;

/// Longest decompressed text of a PNG chunk, in bytes.
#[cfg(feature = "png")]
const MOST_TEXT: usize = 1 << 20;

/// The same for all chunks of a file together.
#[cfg(feature = "png")]
const MOST_TEXTS: usize = 4 << 20;

/// Metadata of a file, if present.
#[derive(Default)]
struct Blocks<'a> {
    exif: Option<Cow<'a, [u8]>>,
    xmp: Option<Cow<'a, [u8]>>,
}

/// The orientation of the picture file `bytes`, 1 (upright) to 8 as in EXIF. Broken metadata are ignored.
pub(super) fn find(bytes: &[u8], format: ImageFormat) -> u8 {
    let blocks = match format {
        ImageFormat::Jpeg => jpeg(bytes),
        #[cfg(feature = "png")]
        ImageFormat::Png => png(bytes),
        ImageFormat::WebP => webp(bytes),
        ImageFormat::Tiff => {
            let xmp = Ifd::read(bytes).and_then(|ifd| ifd.bytes(ifd::XMP));
            Blocks { exif: Some(bytes.into()), xmp: xmp.map(Cow::from) }
        }
        _ => Blocks::default(),
    };
    let by_exif = blocks.exif.as_deref().and_then(exif);
    let said = by_exif.unwrap_or_else(|| blocks.xmp.as_deref().and_then(xmp));
    said.filter(|value| (1..=8).contains(value)).unwrap_or(1)
}

/// The orientation in an EXIF block; `None` if it has no such tag, `Some(None)` if the tag or the block is invalid.
fn exif(block: &[u8]) -> Option<Option<u8>> {
    let mut block = block;
    // Some writers put the marker of JPEG's segment before it, even twice.
    for _ in 0..2 {
        block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    }
    if block.is_empty() {
        return None;
    }
    let Some(ifd) = Ifd::read(block) else { return Some(None) };
    let value = || {
        let first = ifd.numbers(ifd::ORIENTATION)?.next()?;
        (1..=8).find(|&n| f64::from(n) == first)
    };
    ifd.has(ifd::ORIENTATION).then(value)
}

/// The digit after `tiff:Orientation="` or `tiff:Orientation>`.
fn xmp(text: &[u8]) -> Option<u8> {
    let key = b"tiff:Orientation";
    text.windows(key.len()).enumerate().filter(|(_, window)| *window == key).find_map(|(at, _)| {
        let rest = &text[at + key.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })
}

/// Segments of a JPEG file before its first scan.
fn jpeg(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut at = 2;
    while let Some(&[mark, kind]) = bytes.get(at..at + 2) {
        match (mark, kind) {
            (0xFF, 0xDA | 0xD9) => break,
            (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0x02..=0xFE) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { break };
                let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
                let body = bytes.get(at + 4..end).unwrap_or_default();
                if kind == 0xE1 && body.starts_with(b"Exif\0\0") {
                    // A long block continues in the next segment.
                    match &mut blocks.exif {
                        Some(block) if block.len() + body.len() > MOST_EXIF => {}
                        Some(block) => block.to_mut().extend(&body[6..]),
                        None => blocks.exif = Some(body.into()),
                    }
                } else if let Some(text) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0")
                    && kind == 0xE1
                {
                    blocks.xmp = Some(text.into());
                }
                at = end.max(at + 4);
            }
            _ => at += 1,
        }
    }
    blocks
}

/// Chunks of a PNG file, including those after the pixels.
#[cfg(feature = "png")]
fn png(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let (mut profile, mut left) = (None, MOST_TEXTS);
    for (kind, body) in chunks(bytes) {
        if kind == b"eXIf" {
            blocks.exif = Some(body.into());
            continue;
        }
        // Unneeded texts are not decompressed.
        let Some((key, rest)) = keyed(body) else { continue };
        let into = match key {
            b"exif" if kind == b"tEXt" => &mut blocks.exif,
            b"Raw profile type exif" => &mut profile,
            b"XML:com.adobe.xmp" => &mut blocks.xmp,
            _ => continue,
        };
        if let Some(text) = text(kind, rest, &mut left) {
            *into = Some(text);
        }
    }
    let profile = profile.and_then(|text| unhexed(&text));
    blocks.exif = blocks.exif.or(profile.map(Cow::from));
    blocks
}

/// Kind and body of each chunk of a PNG file.
#[cfg(feature = "png")]
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let (kind, after) = after.split_first_chunk()?;
        let (body, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after.get(4..)?;
        (kind != b"IEND").then_some((kind, body))
    })
}

/// The first chunk before the pixels whose checksum is wrong.
#[cfg(feature = "png")]
pub(super) fn damaged_chunk(bytes: &[u8]) -> Option<&[u8; 4]> {
    let mut at = 8;
    chunks(bytes).take_while(|(kind, _)| *kind != b"IDAT").find_map(|(kind, body)| {
        let end = at + 8 + body.len();
        let mut sum = flate2::Crc::new();
        sum.update(bytes.get(at + 4..end)?);
        let said = u32::from_be_bytes(*bytes.get(end..)?.first_chunk()?);
        at = end + 4;
        (sum.sum() != said).then_some(kind)
    })
}

/// Longest key of a text chunk, in bytes.
#[cfg(feature = "png")]
const MOST_KEY: usize = 79;

/// Key of a text chunk, and the rest.
#[cfg(feature = "png")]
fn keyed(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().take(MOST_KEY + 1).position(|&b| b == 0)?;
    Some((&body[..end], &body[end + 1..]))
}

/// The text of a chunk after its key. Decompressed bytes are deducted from `left`.
#[cfg(feature = "png")]
fn text<'a>(kind: &[u8; 4], rest: &'a [u8], left: &mut usize) -> Option<Cow<'a, [u8]>> {
    let end = |text: &[u8]| text.iter().position(|&b| b == 0);
    let text = match kind {
        b"tEXt" => rest.into(),
        b"zTXt" => inflated(rest.strip_prefix(b"\0")?, left)?.into(),
        b"iTXt" => {
            let (&[compressed, method], rest) = rest.split_first_chunk()?;
            let rest = &rest[end(rest)? + 1..];
            let rest = &rest[end(rest)? + 1..];
            match (compressed, method) {
                (0, _) => rest.into(),
                (_, 0) => inflated(rest, left)?.into(),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(text)
}

#[cfg(feature = "png")]
fn inflated(bytes: &[u8], left: &mut usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let (mut text, most) = (Vec::new(), MOST_TEXT.min(*left));
    let read = flate2::read::ZlibDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut text);
    *left -= text.len().min(*left);
    (read.is_ok() && text.len() <= most).then_some(text)
}

/// The bytes encoded by the hexadecimal digits from the fourth line on, as ImageMagick writes them.
#[cfg(feature = "png")]
fn unhexed(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MOST_TEXT {
        return None;
    }
    let lines = text.split(|&b| b == b'\n').skip(3).flatten();
    let digits = lines.filter(|b| !b.is_ascii_whitespace()).map(|&b| char::from(b).to_digit(16));
    let digits: Vec<u8> = digits.map(|digit| digit.map(|d| d as u8)).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Chunks of an extended WebP file that its header announces; the first of each kind is taken.
fn webp(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut announced = 0;
    while let Some((kind, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(body) = after.get(..length) else { break };
        match kind {
            b"VP8X" => announced = body.first().copied().unwrap_or(0),
            b"EXIF" if announced & 8 != 0 && blocks.exif.is_none() => blocks.exif = Some(body.into()),
            b"XMP " if announced & 4 != 0 && blocks.xmp.is_none() => blocks.xmp = Some(body.into()),
            _ => {}
        }
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    blocks
}

/// Packed RGB of `height` rows and `width` columns turned upright, with its new width and height.
pub(super) fn upright(mut rgb: Vec<u8>, width: usize, height: usize, orientation: u8) -> (Vec<u8>, usize, usize) {
    let row = width * 3;
    match orientation {
        2 => rgb.chunks_exact_mut(row).for_each(|row| row.as_chunks_mut::<3>().0.reverse()),
        3 => rgb.as_chunks_mut::<3>().0.reverse(),
        4 => {
            for y in 0..height / 2 {
                let (above, below) = rgb.split_at_mut((height - 1 - y) * row);
                above[y * row..][..row].swap_with_slice(&mut below[..row]);
            }
        }
        5..=8 => {
            let source = rgb.as_chunks::<3>().0;
            let mut turned = vec![0u8; rgb.len()];
            // Square tiles keep rows of both pictures in the cache.
            const TILE: usize = 32;
            let target = turned.as_chunks_mut::<3>().0;
            for top in (0..width).step_by(TILE) {
                for left in (0..height).step_by(TILE) {
                    for y in top..width.min(top + TILE) {
                        for x in left..height.min(left + TILE) {
                            let from_y = if matches!(orientation, 6 | 7) { height - 1 - x } else { x };
                            let from_x = if matches!(orientation, 7 | 8) { width - 1 - y } else { y };
                            target[y * height + x] = source[from_y * width + from_x];
                        }
                    }
                }
            }
            return (turned, height, width);
        }
        _ => {}
    }
    (rgb, width, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one entry, followed by its value.
    fn block(big_endian: bool, kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
        let mut block = if big_endian { b"MM\0*\0\0\0\x08".to_vec() } else { b"II*\0\x08\0\0\0".to_vec() };
        let mut number = |n: u64, bytes: usize| {
            let all = n.to_be_bytes();
            let raw = &all[8 - bytes..];
            if big_endian { block.extend(raw) } else { block.extend(raw.iter().rev()) }
        };
        for (n, bytes) in [(1, 2), (0x112, 2), (u64::from(kind), 2), (u64::from(count), 4)] {
            number(n, bytes);
        }
        if value.len() <= 4 {
            block.extend(value);
            block.resize(22, 0);
            block.extend([0; 4]);
        } else {
            number(26, 4);
            block.extend([0; 4]);
            block.extend(value);
        }
        block
    }

    /// The results of Pillow 13.0.0 for each of these blocks in a JPEG file.
    #[test]
    fn types_of_the_tag() {
        for big_endian in [false, true] {
            let turned = |n: u64, bytes: usize| {
                let all = n.to_be_bytes();
                let mut raw = all[8 - bytes..].to_vec();
                if !big_endian {
                    raw.reverse();
                }
                raw
            };
            let pair = |a: u64, b: u64| [turned(a, 4), turned(b, 4)].concat();
            for (kind, count, value, want) in [
                (3, 1, turned(6, 2), Some(Some(6))),
                (4, 1, turned(6, 4), Some(Some(6))),
                (8, 1, turned(6, 2), Some(Some(6))),
                (9, 1, turned(6, 4), Some(Some(6))),
                (13, 1, turned(6, 4), Some(Some(6))),
                (3, 2, [turned(6, 2), turned(1, 2)].concat(), Some(Some(6))),
                (4, 2, pair(8, 1), Some(Some(8))),
                (5, 1, pair(12, 2), Some(Some(6))),
                (10, 1, pair(3, 1), Some(Some(3))),
                (11, 1, turned(u64::from(6f32.to_bits()), 4), Some(Some(6))),
                (12, 1, turned(6f64.to_bits(), 8), Some(Some(6))),
                (6, 1, vec![6], Some(Some(6))),
                (1, 1, vec![6], Some(None)),
                (2, 2, b"6\0".to_vec(), Some(None)),
                (7, 1, vec![6], Some(None)),
                (3, 1, turned(0, 2), Some(None)),
                (3, 1, turned(9, 2), Some(None)),
                (4, 1, turned(0x1_0006, 4), Some(None)),
                (5, 1, pair(13, 2), Some(None)),
                (5, 1, pair(6, 0), Some(None)),
                (99, 1, vec![6], None),
                (3, 0, vec![], None),
                (4, u32::MAX, turned(6, 4), None),
            ] {
                let block = block(big_endian, kind, count, &value);
                assert_eq!(exif(&block), want, "{kind} {count} {value:?} {big_endian}");
                assert_eq!(exif(&[b"Exif\0\0", block.as_slice()].concat()), want);
                for cut in 0..block.len() {
                    let _ = exif(&block[..cut]);
                }
            }
        }
    }

    /// Ten chunks with a text that is long when decompressed, then one with a short text.
    #[cfg(feature = "png")]
    #[test]
    fn only_texts_that_are_asked_for_are_decompressed_and_not_without_end() {
        use std::io::Write;
        let zipped = |text: &[u8]| {
            let mut zip = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            zip.write_all(text).unwrap();
            zip.finish().unwrap()
        };
        let chunk =
            |kind: &[u8; 4], body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], kind, body, &[0; 4]].concat();
        let ztxt = |key: &[u8], text: &[u8]| chunk(b"zTXt", &[key, b"\0\0", &zipped(text)].concat());
        let itxt = |text: &[u8]| chunk(b"iTXt", &[&b"XML:com.adobe.xmp\0\x01\0\0\0"[..], &zipped(text)].concat());
        let long = vec![b' '; MOST_TEXT - 1];
        let file = |before: Vec<u8>| [b"\x89PNG\r\n\x1a\n".to_vec(), before, itxt(b"tiff:Orientation=\"6\"")].concat();
        let of = |bytes: &[u8]| png(bytes).xmp.map(|text| text.len());
        assert_eq!(of(&file((0..10).flat_map(|_| ztxt(b"Comment", &long)).collect())), Some(20));
        assert_eq!(of(&file((0..10).flat_map(|_| itxt(&long)).collect())), Some(MOST_TEXT - 1));
        assert_eq!(of(&file(itxt(&long))), Some(20));
        let hex = [&b"\nexif\n 2\n"[..], &vec![b'0'; MOST_TEXT]].concat();
        assert_eq!(unhexed(b"\nexif\n 2\n4d4D\n"), Some(vec![0x4d, 0x4d]));
        assert_eq!(unhexed(&hex), None);
    }

    #[test]
    fn xmp_has_two_forms() {
        for (text, want) in [
            ("<x tiff:Orientation=\"6\"/>", Some(6)),
            ("<tiff:Orientation>3</tiff:Orientation>", Some(3)),
            ("tiff:Orientation tiff:Orientation=\"8", Some(8)),
            ("<x tiff:Orientation='6'/>", None),
            ("tiff:Orientation=\"", None),
            ("", None),
        ] {
            assert_eq!(xmp(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn turns_are_those_of_exif() {
        // Rows 012 and 345; the results of `ImageOps.exif_transpose`.
        let picture: Vec<u8> = (0..6).flat_map(|n| [n; 3]).collect();
        for (orientation, width, want) in [
            (1, 3, [0, 1, 2, 3, 4, 5]),
            (2, 3, [2, 1, 0, 5, 4, 3]),
            (3, 3, [5, 4, 3, 2, 1, 0]),
            (4, 3, [3, 4, 5, 0, 1, 2]),
            (5, 2, [0, 3, 1, 4, 2, 5]),
            (6, 2, [3, 0, 4, 1, 5, 2]),
            (7, 2, [5, 2, 4, 1, 3, 0]),
            (8, 2, [2, 5, 1, 4, 0, 3]),
        ] {
            let (turned, w, h) = upright(picture.clone(), 3, 2, orientation);
            let levels: Vec<u8> = turned.chunks(3).map(|p| p[0]).collect();
            assert_eq!((levels.as_slice(), w, h), (want.as_slice(), width, 6 / width), "{orientation}");
        }
    }
}
