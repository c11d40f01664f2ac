//! Lists of paths.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::text;

use super::paths;
use super::room::{Room, size};

/// Bytes of a list that are read between two checks of the memory bound.
const STEP: usize = 1 << 20;
/// Bytes of memory per byte of a list: a name is held several times, in forms for comparison.
const HELD: u64 = 8;
/// Longest possible name in bytes; no system has longer paths. Input without an end of name within this length is not a
/// list.
const LONGEST_NAME: usize = 64 << 10;

/// Reads a list within `room`. Input that cannot be a list is not read to its end.
///
/// # Errors
/// When it cannot be read, exceeds `room`, or its first bytes are not those of a list.
pub fn read(file: &mut impl Read, room: Room) -> Result<Vec<u8>> {
    let mut list = Vec::new();
    loop {
        let before = list.len();
        let step = if before == 0 { LONGEST_NAME } else { STEP };
        let read = file.by_ref().take(step as u64).read_to_end(&mut list);
        read.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?;
        if list.len() - before < step {
            return Ok(list);
        }
        if before == 0 && !begins(&list) {
            return Err(not_a_list());
        }
        room.check(|| format!("a list of {} or more", size(list.len() as u64)), HELD * list.len() as u64)?;
    }
}

/// Whether a list may begin with `start`, which may be cut off anywhere.
fn begins(start: &[u8]) -> bool {
    let Some(end) = start.iter().rposition(|&b| b == 0 || b == b'\n') else { return false };
    // A UTF-16 letter has its zero before or after it.
    !start.contains(&0) || [&start[..=end], &start[..end]].iter().any(|part| names(part).is_ok())
}

fn not_a_list() -> Error {
    Error::input(
        "the list has zero bytes that do not end paths, or no end of a line; a list has a path a line, in UTF-8 or UTF-16, or \
         ends each path with a zero byte (find -print0)",
    )
}

/// The names in a list: one per line in UTF-8 or UTF-16, or, if it contains zero bytes, each terminated by one.
///
/// # Errors
/// When it has zero bytes that do not terminate paths.
pub fn names(list: &[u8]) -> Result<Vec<OsString>> {
    let plain = text::unmarked(list)?;
    if !plain.contains(&0) {
        return Ok(lines(&plain));
    }
    if let Cow::Borrowed(plain) = plain {
        let ended = ended_by_zeros(plain);
        // UTF-16 letters may look like one-byte paths, but not all such paths exist, and none contains a line break.
        let wins = |text: &String| ended.is_none() || text.contains('\n') && text::is_only_reading(text, plain);
        if let Some(text) = text::utf16_by_zeros(plain).filter(wins) {
            return Ok(lines(text.as_bytes()));
        }
        if let Some(names) = ended {
            return Ok(names.into_iter().filter(|name| !name.trim_ascii().is_empty()).map(os).collect());
        }
    }
    Err(not_a_list())
}

fn os(name: &[u8]) -> OsString {
    paths::from_bytes(name.to_vec())
}

fn lines(text: &[u8]) -> Vec<OsString> {
    let lines = text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.trim_ascii().is_empty()).map(os).collect()
}

/// The parts of `list` before each zero byte, if each can be a path.
fn ended_by_zeros(list: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names: Vec<&[u8]> = list.split(|&b| b == 0).collect();
    names.pop_if(|last| last.is_empty());
    let exists = |name: &[u8]| Path::new(&os(name)).symlink_metadata().is_ok();
    let clean = |name: &[u8]| {
        let text = std::str::from_utf8(name);
        text.is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')))
    };
    let whole = |name: &[u8]| !name.is_empty() && !name.starts_with(b"\n") && !name.ends_with(b"\n");
    // Single letters count as paths only if such files exist; the folders "." and "/" always do.
    let letter = |name: &[u8]| name.len() == 1 && (matches!(name, b"." | b"/") || !exists(name));
    let letters = names.windows(2).any(|two| two.iter().all(|n| n.len() == 1) && two.iter().any(|n| letter(n)));
    let all = names.iter().all(|name| whole(name) && (clean(name) || exists(name)));
    (all && !letters).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(list: &[u8]) -> Vec<String> {
        names(list).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn lists_end_names_with_lines_or_zeros() {
        assert_eq!(named(b"a b\r\n\nc"), ["a b", "c"]);
        assert_eq!(named(b"a\nb\0c\r\0"), ["a\nb", "c\r"]);
        // Zeros at every eighth byte, as UTF-16 might have them.
        assert_eq!(named(b"./a.png\0./b.png\0"), ["./a.png", "./b.png"]);
        assert_eq!(named(b"q\0"), ["q"]);
        assert!(named(b"").is_empty() && named(b"\n\n").is_empty());
    }

    #[test]
    fn a_list_without_an_end_is_not_read_to_it() {
        let room = Room { allowed: Some(64 << 20) };
        for byte in [0, b'a', 255] {
            assert!(read(&mut std::io::repeat(byte), room).is_err(), "{byte}");
        }
        struct ListLines;
        impl Read for ListLines {
            fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
                bytes.fill(b'a');
                bytes.iter_mut().step_by(2).for_each(|b| *b = b'\n');
                Ok(bytes.len())
            }
        }
        assert_eq!(read(&mut ListLines, room).unwrap_err().kind(), ErrorKind::Limit);
        let long: String = (0..20_000).map(|i| format!("folder/picture {i}.png\n")).collect();
        let wide: Vec<u8> = long.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for list in [long.as_bytes(), &wide, long.replace('\n', "\0").as_bytes(), b"", b"x.png"] {
            assert_eq!(read(&mut &list[..], room).unwrap(), list);
        }
    }

    #[test]
    fn lists_are_never_split_into_letters() {
        for text in ["x.png", "x.png\r\n", "a/x.png\nb/é.png\n", "/a/x.png", "../漢/x.png\r\n", "照片/x.png"] {
            let want: Vec<&str> = text.lines().collect();
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes = |text: &str| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
                assert_eq!(named(&bytes(text)), want, "{text:?}");
                assert_eq!(named(&bytes(&format!("\u{feff}{text}"))), want, "{text:?}");
            }
            assert_eq!(named(format!("\u{feff}{text}").as_bytes()), want, "{text:?}");
        }
        let utf32: Vec<u8> = "x.png\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let utf16: Vec<u8> = "x.png\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mixed = [b"a.png\n".as_slice(), &utf16, b"c"].concat();
        let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for list in [&utf32, &mixed, &picture[..], &utf16[1..], b"\xff\xfex\0\0\0", b"a.png\nb\0.png\n", b"\x01\0\x02"]
        {
            assert!(names(list).is_err(), "{list:?}");
        }
    }
}
