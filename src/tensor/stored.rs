//! The header of safetensors files.

use std::collections::HashSet;

use safetensors::tensor::Metadata;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// Longest header of a safetensors file that is read, in bytes.
pub const MOST_HEADER_BYTES: usize = 16 << 20;

/// The top-level names of a header.
struct TensorNames;

impl<'de> Visitor<'de> for TensorNames {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(name) = seen.replace(name) {
                return Err(serde::de::Error::custom(format!("it names '{name}' twice")));
            }
        }
        Ok(())
    }
}

/// Reads `json`, the header of a safetensors file: names, types, shapes and offsets, which follow one another without
/// gap or overlap.
///
/// # Errors
/// When it is damaged, or names a tensor twice; one sentence.
pub fn safetensors_header(json: &[u8]) -> Result<Metadata, String> {
    let mut names = serde_json::Deserializer::from_slice(json);
    names.deserialize_map(TensorNames).map_err(|e| e.to_string())?;
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

/// As [`safetensors_header`], for a whole file in memory.
///
/// # Errors
/// The same, and when the file ends before its header does, or the header is too long.
pub fn check_safetensors(file: &[u8]) -> Result<(), String> {
    let (length, rest) = file.split_first_chunk().ok_or("the file is cut off")?;
    let length = u64::from_le_bytes(*length);
    let length = usize::try_from(length).ok().filter(|&n| n <= MOST_HEADER_BYTES);
    let header = length.ok_or("its header is too long")?;
    safetensors_header(rest.get(..header).ok_or("the file is cut off")?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_each_thing_once() {
        let entry = r#"{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
        assert!(safetensors_header(format!(r#"{{"a":{entry}}}"#).as_bytes()).is_ok());
        for (header, word) in [
            (format!(r#"{{"a":{entry},"a":{entry}}}"#), "'a' twice"),
            (format!(r#"{{"a":{entry},"b":{entry}}}"#), "offset"),
            (r#"{"a":{"dtype":"U8","shape":[2],"shape":[2],"data_offsets":[0,2]}}"#.into(), "shape"),
            (format!("{{\"a\":{}", "[".repeat(1 << 20)), ""),
            (format!("{{\"a\":{}", "{\"a\":".repeat(1 << 20)), ""),
            ("[]".into(), ""),
        ] {
            let error = safetensors_header(header.as_bytes()).unwrap_err();
            assert!(error.to_lowercase().contains(word), "{error}");
        }
    }
}
