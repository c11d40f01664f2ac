//! The tag directory at the start of TIFF files and EXIF blocks, read as Pillow reads it.

use std::collections::BTreeMap;

/// Orientation tag.
pub(super) const ORIENTATION: u16 = 0x0112;
/// XMP metadata tag.
pub(super) const XMP: u16 = 700;

/// The location of a tag's value.
#[derive(Debug, Clone, Copy)]
struct TagValue {
    kind: u16,
    at: usize,
    bytes: usize,
}

/// The first directory of a TIFF file or EXIF block.
#[derive(Debug)]
pub(super) struct Ifd<'a> {
    data: &'a [u8],
    big_endian: bool,
    entries: BTreeMap<u16, TagValue>,
}

/// Bytes per element of a type.
fn unit(kind: u16) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
    }
}

impl<'a> Ifd<'a> {
    /// Reads the directory to which the header of `data` points; `None` if there is no such header. Unreadable entries
    /// are skipped.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        // Some writers swap the two bytes of the magic number.
        let (big_endian, wide) = match data.get(..4)? {
            b"II\x2a\0" | b"II\0\x2a" => (false, false),
            b"MM\0\x2a" | b"MM\x2a\0" => (true, false),
            b"II\x2b\0" => (false, true),
            b"MM\0\x2b" => (true, true),
            _ => return None,
        };
        let mut ifd = Self { data, big_endian, entries: BTreeMap::new() };
        let start = if wide { ifd.number(8, 8) } else { ifd.number(4, 4) };
        ifd.fill(usize::try_from(start?).ok()?, wide);
        Some(ifd)
    }

    fn fill(&mut self, start: usize, wide: bool) -> Option<()> {
        let (counter, record, inline) = if wide { (8, 20, 8) } else { (2, 12, 4) };
        let count = self.number(start, counter)?;
        let mut at = start.checked_add(counter)?;
        let mut total = 0u64;
        for _ in 0..count {
            let [tag, kind] = [self.number(at, 2)? as u16, self.number(at + 2, 2)? as u16];
            let elements = self.number(at + 4, inline)?;
            let value = at + 4 + inline;
            self.number(value, inline)?;
            at += record;
            let Some(unit) = unit(kind) else { continue };
            if self.entries.contains_key(&tag) || elements == 0 {
                continue;
            }
            let bytes = elements.checked_mul(unit)?;
            let place = if bytes <= inline as u64 {
                value
            } else {
                total = total.saturating_add(bytes);
                if total > self.data.len() as u64 {
                    continue;
                }
                usize::try_from(self.number(value, inline)?).ok()?
            };
            let bytes = usize::try_from(bytes).ok()?;
            // If a value lies outside the file, the rest of the directory cannot be trusted.
            self.data.get(place..place.checked_add(bytes)?)?;
            self.entries.insert(tag, TagValue { kind, at: place, bytes });
        }
        Some(())
    }

    /// The integer of `bytes` bytes at `at`.
    fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let raw = self.data.get(at..at.checked_add(bytes)?)?;
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if self.big_endian { raw.iter().fold(0, add) } else { raw.iter().rev().fold(0, add) })
    }

    /// Whether the tag is present, with any type.
    pub(super) fn has(&self, tag: u16) -> bool {
        self.entries.contains_key(&tag)
    }

    /// The bytes of a tag.
    pub(super) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let entry = self.entries.get(&tag)?;
        self.data.get(entry.at..entry.at + entry.bytes)
    }

    /// The numbers of a tag; `None` for bytes and texts. They are read lazily: a hostile tag can be as long as its
    /// file.
    pub(super) fn numbers(&self, tag: u16) -> Option<impl ExactSizeIterator<Item = f64>> {
        let entry = *self.entries.get(&tag)?;
        let size = unit(entry.kind)? as usize;
        if matches!(entry.kind, 1 | 2 | 7) {
            return None;
        }
        let signed = move |n: u64| {
            let unused = 64 - 8 * size as u32;
            ((n << unused) as i64 >> unused) as f64
        };
        let one = move |at: usize| -> Option<f64> {
            let n = self.number(at, size)?;
            Some(match entry.kind {
                3 | 4 | 13 | 16 => n as f64,
                6 | 8 | 9 => signed(n),
                5 | 10 => {
                    let [top, bottom] = [self.number(at, 4)?, self.number(at + 4, 4)?];
                    let value = |n: u64| if entry.kind == 10 { f64::from(n as u32 as i32) } else { n as f64 };
                    value(top) / value(bottom)
                }
                11 => f64::from(f32::from_bits(n as u32)),
                12 => f64::from_bits(n),
                _ => return None,
            })
        };
        let places = (entry.at..entry.at + entry.bytes).step_by(size);
        Some(places.map(move |at| one(at).unwrap_or(f64::NAN)))
    }

    /// Position, size and byte order of a tag's value, for overwriting it.
    #[cfg(feature = "tiff")]
    pub(super) fn place(&self, tag: u16) -> Option<(usize, usize, bool)> {
        let entry = self.entries.get(&tag)?;
        Some((entry.at, entry.bytes, self.big_endian))
    }
}
