//! Lists of paths.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use crate::error::{Error, Result};
use crate::text;

use super::paths;

/// The names in a list: one a line in UTF-8 or UTF-16, or, where it has zero bytes, one before each of them.
///
/// # Errors
/// When it has zero bytes that do not end paths.
pub fn names(list: &[u8]) -> Result<Vec<OsString>> {
    let plain = text::unmarked(list)?;
    if !plain.contains(&0) {
        return Ok(lines(&plain));
    }
    if let Cow::Borrowed(plain) = plain {
        let ended = ended_by_zeros(plain);
        // Letters of UTF-16 may look like paths of one byte, but such paths do not all exist, and none is a line's end.
        let wins = |text: &String| ended.is_none() || text.contains('\n') && text::is_only_reading(text, plain);
        if let Some(text) = text::utf16_by_zeros(plain).filter(wins) {
            return Ok(lines(text.as_bytes()));
        }
        if let Some(names) = ended {
            return Ok(names.into_iter().filter(|name| !name.trim_ascii().is_empty()).map(os).collect());
        }
    }
    Err(Error::input(
        "the list has zero bytes that do not end paths; a list has a path a line, in UTF-8 or UTF-16, or ends each path \
         with a zero byte (find -print0)",
    ))
}

fn os(name: &[u8]) -> OsString {
    paths::from_bytes(name.to_vec())
}

fn lines(text: &[u8]) -> Vec<OsString> {
    let lines = text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.trim_ascii().is_empty()).map(os).collect()
}

/// What stands before the zeros of `list`, where each can be a path.
fn ended_by_zeros(list: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names: Vec<&[u8]> = list.split(|&b| b == 0).collect();
    names.pop_if(|last| last.is_empty());
    let exists = |name: &[u8]| Path::new(&os(name)).symlink_metadata().is_ok();
    let clean = |name: &[u8]| {
        let text = std::str::from_utf8(name);
        text.is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')))
    };
    let whole = |name: &[u8]| !name.is_empty() && !name.starts_with(b"\n") && !name.ends_with(b"\n");
    // Letters are paths only if there are files of their names; the folders "." and "/" always exist.
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
