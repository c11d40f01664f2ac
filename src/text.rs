//! Text from files (UTF-8, or UTF-16 as written by Windows, with or without a byte order mark), and text for a
//! terminal.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result, open_file};

/// The text of the file at `path`.
///
/// # Errors
/// When the file cannot be read or is not text, see [`decode`]; the message begins with the path.
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    decode(&bytes).map_err(|e| e.within(path.display()))
}

/// Decodes `bytes` to text without a byte order mark.
///
/// # Errors
/// When they are neither UTF-8 nor UTF-16; the message names the line. Zero bytes are allowed only in UTF-16.
pub fn decode(bytes: &[u8]) -> Result<String> {
    let plain = unmarked(bytes)?;
    if let Cow::Borrowed(plain) = plain
        && let Some(text) = utf16_by_zeros(plain).filter(|text| is_only_reading(text, plain))
    {
        return Ok(text);
    }
    let line = |before: &[u8]| before.iter().filter(|&&b| b == b'\n').count() + 1;
    if let Some(at) = plain.iter().position(|&b| b == 0) {
        let line = line(&plain[..at]);
        return Err(Error::input(format!("line {line} holds a zero byte: this is not text in UTF-8 or UTF-16")));
    }
    String::from_utf8(plain.into_owned()).map_err(|e| {
        let line = line(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        Error::input(format!("line {line} is not text in UTF-8 or UTF-16"))
    })
}

/// `bytes` without a byte order mark: converted to UTF-8 (and owned) if the mark says UTF-16, else unchanged.
///
/// # Errors
/// When the mark says UTF-16 but the bytes are not.
pub fn unmarked(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(Cow::Borrowed(rest)),
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return Ok(Cow::Borrowed(bytes)),
    };
    let text = utf16(&bytes[2..], units);
    let text = text.ok_or_else(|| Error::input("the byte order mark says UTF-16, but the bytes after it are not"))?;
    Ok(Cow::Owned(text.into_bytes()))
}

/// The text of `bytes` that look like UTF-16 without a byte order mark: ASCII characters have a zero in one of their
/// two bytes. Whole texts, lines, or at least an ASCII end are recognised; `None` otherwise.
pub fn utf16_by_zeros(bytes: &[u8]) -> Option<String> {
    let zeros = |parity: usize| bytes.iter().skip(parity).step_by(2).filter(|&&b| b == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let units = if odd > even { u16::from_le_bytes } else { u16::from_be_bytes };
    if even == odd {
        return None;
    }
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let text = utf16(bytes, units).filter(|text| text.chars().all(plain))?;
    let ends = text.chars().rev().take(2).all(|c| c.is_ascii());
    (ends || is_latin(&text) || text.contains('\n')).then_some(text)
}

/// Whether `text`, found by its zeros, is the only reading of `bytes`: they are not UTF-8 with some zeros, unless one
/// byte of every pair is zero throughout.
pub fn is_only_reading(text: &str, bytes: &[u8]) -> bool {
    is_latin(text) || std::str::from_utf8(bytes).is_err()
}

fn is_latin(text: &str) -> bool {
    text.chars().all(|c| c <= '\u{ff}')
}

fn utf16(bytes: &[u8], units: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(pairs.iter().map(|&pair| units(pair))).collect::<Result<String, _>>().ok()?;
    rest.is_empty().then_some(text)
}

/// Whether a terminal would not simply show `c`, but move, colour, reverse or hide text.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn spell(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut spelled = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !acts(c) || stays(c) => spelled.push(c),
            '\n' => spelled.push_str("\\n"),
            '\r' => spelled.push_str("\\r"),
            '\t' => spelled.push_str("\\t"),
            // As in JSON, so that an escaped character in a JSON string means the same string.
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(spelled, "\\u{unit:04x}");
            }),
        }
    }
    spelled
}

/// `text` on one line, with characters that a terminal interprets escaped.
pub fn one_line(text: &str) -> String {
    spell(text, |_| false)
}

/// `text` with its line breaks and tabs; all other characters that a terminal interprets are escaped. JSON stays
/// equivalent.
pub fn harmless(text: &str) -> String {
    spell(text, |c| matches!(c, '\n' | '\t'))
}

/// `text`, or its beginning and end if it has more than `most` characters.
pub fn bounded(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let (before, after) = (most / 2, most - most / 2 - 1);
    let start: String = text.chars().take(before).collect();
    let end: String = text.chars().skip(count - after).collect();
    format!("{start}…{end}")
}

/// `1 map`, `2 maps`.
pub fn counted(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// `bytes` in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Most characters of a message.
const LONGEST: usize = 500;

/// `text` in one line of at most 500 characters.
pub fn message(text: &str) -> String {
    bounded(&one_line(text), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn every_encoding_is_the_same_text() {
        for text in ["a\nb\r\n", "wolf, café\n一上漢字 \u{1F600}\n", "label"] {
            assert_eq!(decode(text.as_bytes()).unwrap(), text);
            assert_eq!(decode(format!("\u{feff}{text}").as_bytes()).unwrap(), text);
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                assert_eq!(decode(&encoded(text, unit)).unwrap(), text);
                assert_eq!(decode(&encoded(&format!("\u{feff}{text}"), unit)).unwrap(), text);
            }
        }
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        let why = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(why(b"a\nb\0c\n").contains("line 2 holds a zero byte"));
        assert!(why(b"a\n\xe9\n").contains("line 2 is not text"));
        assert!(why(b"\xff\xfea").contains("byte order mark"));
        assert!(why(b"\xff\xfe\0\xd8").contains("byte order mark"));
        // UTF-32, with and without a mark.
        assert!(why(b"\xff\xfe\0\0a\0\0\0").contains("zero byte"));
        assert!(why(b"a\0\0\0b\0\0\0").contains("zero byte"));
        assert!(why(b"a\0b\0c").contains("zero byte"));
        // The zeros would suit UTF-16 if the rest were not UTF-8.
        assert!(why(b"abcd\n\0").contains("line 2 holds a zero byte"));
        assert!(why("é\n\0".as_bytes()).contains("zero byte"));
    }

    #[test]
    fn what_a_terminal_acts_on_is_spelled_out() {
        let hostile = "a\u{1b}[31m\u{9b}K\u{202e}gpj\u{2066}\u{200b}\u{feff}\u{e0041}\r\n\té猫";
        let spelled = one_line(hostile);
        assert_eq!(spelled, r"a\u001b[31m\u009bK\u202egpj\u2066\u200b\ufeff\udb40\udc41\r\n\té猫");
        assert_eq!(harmless("a\n\u{7f}"), "a\n\\u007f");
        let json = serde_json::to_string(&[hostile]).unwrap();
        assert!(!harmless(&json).chars().any(acts));
        assert_eq!(serde_json::from_str::<Vec<String>>(&harmless(&json)).unwrap(), [hostile]);
    }

    #[test]
    fn long_texts_keep_both_ends() {
        let long = format!("begin{}end", "é".repeat(600));
        let short = bounded(&long, 500);
        assert_eq!(short.chars().count(), 500);
        assert!(short.starts_with("begin") && short.ends_with("end") && short.contains('…'));
        assert_eq!(bounded("short", 500), "short");
    }
}
