//! Base64 (RFC 4648, section 4), for pictures and checksums inside a page.

use std::fmt::{self, Display, Write};

/// Displays its bytes in Base64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base64<'a>(pub &'a [u8]);

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes encoded at a time; a multiple of three.
const RUN: usize = 3 * 1024;

impl Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(RUN / 3 * 4);
        for run in self.0.chunks(RUN) {
            text.clear();
            for three in run.chunks(3) {
                let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
                let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                for i in 0..4 {
                    let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize] as char;
                    text.write_char(if i <= three.len() { letter } else { '=' })?;
                }
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(Base64(plain.as_bytes()).to_string(), coded);
        }
        assert_eq!(Base64(&[0xfb, 0xff, 0xfe]).to_string(), "+//+");
        let long = vec![0u8; RUN + 1];
        assert_eq!(Base64(&long).to_string().len(), (RUN + 3) / 3 * 4);
    }
}
