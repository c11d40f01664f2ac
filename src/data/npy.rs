//! NumPy's `.npy` files: their header, read and written.
//!
//! The header is a Python dictionary. Only the form that NumPy writes for arrays of plain numbers is accepted: three
//! keys, a string, a boolean, a tuple of integers. So there is no nesting.

use std::io::{ErrorKind, Read};

/// The contents of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Number type, such as `<f4`.
    pub descr: String,
    /// Whether the first axis varies fastest.
    pub fortran: bool,
    /// Shape.
    pub shape: Vec<usize>,
}

/// Longest header that is read; NumPy's own have a few hundred bytes.
const MOST_BYTES: u32 = 64 << 10;
/// Most axes that are read, as in NumPy.
const MOST_AXES: usize = 64;
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Reads the header and leaves `file` at the first number.
///
/// # Errors
/// When the file is not a `.npy` file, or has an unsupported format; one sentence.
pub fn read(file: &mut impl Read) -> Result<Header, String> {
    let mut exactly = |bytes: &mut [u8]| {
        file.read_exact(bytes).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => "the file is cut off".to_string(),
            _ => e.to_string(),
        })
    };
    let mut start = [0; 8];
    exactly(&mut start)?;
    if !start.starts_with(MAGIC) {
        return Err("not a .npy array".into());
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            exactly(&mut length)?;
            u32::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            exactly(&mut length)?;
            u32::from_le_bytes(length)
        }
        version => return Err(format!("a .npy array of version {version}; 1, 2 and 3 are read")),
    };
    if length > MOST_BYTES {
        return Err(format!("not a .npy array: a header of {length} bytes, more than {MOST_BYTES}"));
    }
    let mut text = vec![0; length as usize];
    exactly(&mut text)?;
    parse(&text).map_err(|why| format!("not a .npy array of numbers: {why}"))
}

/// The header of a file of little-endian single-precision numbers in C order.
pub fn f32_header(shape: &[usize]) -> Vec<u8> {
    let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // The numbers begin at a multiple of 64 bytes.
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let length = (text.len() as u16).to_le_bytes();
    [MAGIC, [1, 0].as_slice(), &length, text.as_bytes()].concat()
}

fn parse(text: &[u8]) -> Result<Header, String> {
    let mut reader = HeaderReader { text, at: 0 };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    reader.expect(b'{')?;
    while !reader.take(b'}') {
        let key = reader.text()?;
        reader.expect(b':')?;
        let again = match key.as_str() {
            "descr" if reader.peek() == Some(b'[') => return Err("its elements have fields".into()),
            "descr" => descr.replace(reader.text()?).is_some(),
            "fortran_order" => fortran.replace(reader.truth()?).is_some(),
            "shape" => shape.replace(reader.shape()?).is_some(),
            _ => return Err("its header has an unknown key; known are descr, fortran_order and shape".into()),
        };
        if again {
            return Err(format!("its header says `{key}` twice"));
        }
        if !reader.take(b',') {
            reader.expect(b'}')?;
            break;
        }
    }
    if reader.peek().is_some() {
        return Err("its header goes on after its end".into());
    }
    let lacks = |key: &str| format!("its header has no `{key}`");
    Ok(Header {
        descr: descr.ok_or_else(|| lacks("descr"))?,
        fortran: fortran.ok_or_else(|| lacks("fortran_order"))?,
        shape: shape.ok_or_else(|| lacks("shape"))?,
    })
}

struct HeaderReader<'a> {
    text: &'a [u8],
    at: usize,
}

impl HeaderReader<'_> {
    /// The next byte that is not a space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) {
            return Ok(());
        }
        Err(format!("`{}` is missing at byte {} of its header", char::from(byte), self.at))
    }

    /// A quoted string without escapes.
    fn text(&mut self) -> Result<String, String> {
        let quote = self.peek().filter(|b| matches!(b, b'\'' | b'"'));
        let quote = quote.ok_or_else(|| format!("a text is missing at byte {} of its header", self.at))?;
        let rest = &self.text[self.at + 1..];
        let length = rest.iter().position(|&b| b == quote);
        let body =
            length.map(|n| &rest[..n]).filter(|body| body.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'\\'));
        let body = body.ok_or_else(|| format!("the text at byte {} of its header is broken", self.at))?;
        self.at += body.len() + 2;
        Ok(body.iter().map(|&b| char::from(b)).collect())
    }

    fn word(&mut self) -> &[u8] {
        self.peek();
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        self.at += length;
        &rest[..length]
    }

    fn truth(&mut self) -> Result<bool, String> {
        match self.word() {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => Err("`fortran_order` in its header is neither True nor False".into()),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let broken = "`shape` in its header is not a tuple of whole numbers";
        self.expect(b'(').map_err(|_| broken)?;
        let mut shape = Vec::new();
        while !self.take(b')') {
            let word = self.word();
            // Python 2 wrote an L after long numbers.
            let digits = word.strip_suffix(b"L").unwrap_or(word);
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            shape.push(number.ok_or(broken)?);
            if shape.len() > MOST_AXES {
                return Err(format!("an array of more than {MOST_AXES} axes"));
            }
            if !self.take(b',') {
                self.expect(b')').map_err(|_| broken)?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let length = (text.len() as u32).to_le_bytes();
        [b"\x93NUMPY\x02\x00".as_slice(), &length, text.as_bytes()].concat()
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        for (text, descr, fortran, shape) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }   \n", "<f4", false, vec![4, 2]),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (7,), }\n", "|u1", true, vec![7]),
            ("{\"shape\": (), \"fortran_order\": False, \"descr\": \"<f8\"}", "<f8", false, vec![]),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 30L)}", "<f4", false, vec![4, 30]),
        ] {
            let want = Header { descr: descr.into(), fortran, shape };
            assert_eq!(read(&mut file(text).as_slice()), Ok(want), "{text}");
        }
        for shape in [vec![], vec![5], vec![3, 4], vec![1, 2, 3]] {
            let bytes = f32_header(&shape);
            let mut rest = bytes.as_slice();
            assert_eq!(read(&mut rest), Ok(Header { descr: "<f4".into(), fortran: false, shape }));
            assert!(rest.is_empty() && bytes.len().is_multiple_of(64) && bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn other_headers_are_errors() {
        for (text, word) in [
            ("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (4,)}", "fields"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': ((((4,),),),)}", "shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': [4]}", "shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}", "shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}", "shape"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (4,)}", "fortran_order"),
            ("{'descr': '<f4', 'fortran_order': False}", "shape"),
            ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", "twice"),
            ("{'descr': '<f4', 'more': False, 'shape': (4,)}", "key"),
            ("{'descr': '<f4", "broken"),
            ("{'descr': '<\\x664'}", "broken"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)} + 1", "after"),
            ("", "missing"),
            ("[[[[[[[[[[", "missing"),
        ] {
            let error = read(&mut file(text).as_slice()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let axes = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({})}}", "1,".repeat(65));
        assert!(read(&mut file(&axes).as_slice()).unwrap_err().contains("axes"));
        let long = b"\x93NUMPY\x02\x00\x00\x00\x01\x01{";
        assert!(read(&mut long.as_slice()).unwrap_err().contains("16842752 bytes"));
    }
}
