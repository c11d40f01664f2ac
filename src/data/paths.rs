//! Paths as lossless text, for records and messages, and in the form in which they are compared.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

/// `path` as text. Bytes that are not UTF-8 become `\x` and two digits; a backslash is doubled.
pub fn shown(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path from which [`shown`] made `text`.
pub fn named(text: &str) -> PathBuf {
    let plain = PathBuf::from(text);
    if !text.contains("\\x") || plain.exists() {
        return plain;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let behind = &rest[at + 1..];
        let byte = behind.strip_prefix('x').and_then(|digits| u8::from_str_radix(digits.get(..2)?, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(b'\\');
                rest = behind.strip_prefix('\\').unwrap_or(behind);
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    from_bytes(bytes).into()
}

/// The working folder.
static HERE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::current_dir().ok());

/// The form of `path` that is compared: without `.` and `a/..`, and relative if it is in the working folder. Links are
/// not resolved: two links to a file are two paths.
pub fn normal(path: &Path) -> PathBuf {
    let full = full(path);
    match HERE.as_ref().and_then(|here| full.strip_prefix(here).ok()) {
        Some(below) => below.to_owned(),
        None if path.is_absolute() => full,
        // The same on every machine.
        None => lexical(path),
    }
}

/// The absolute [`normal`] form of `path`.
pub fn full(path: &Path) -> PathBuf {
    HERE.as_ref().map_or_else(|| lexical(path), |here| lexical(&here.join(path)))
}

fn lexical(path: &Path) -> PathBuf {
    let mut kept = PathBuf::new();
    for part in path.components() {
        match (part, kept.components().next_back()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            // The parent of a link's target is not the link's parent.
            (Component::ParentDir, Some(Component::Normal(_))) if !kept.is_symlink() => {
                kept.pop();
            }
            _ => kept.push(part),
        }
    }
    kept
}

/// A name as the operating system gives it.
#[cfg(unix)]
pub fn from_bytes(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

/// A name as the operating system gives it.
#[cfg(not(unix))]
pub fn from_bytes(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn normal_paths_are_relative_and_short() {
        let here = std::env::current_dir().unwrap();
        for path in ["a/b.png", "./a/b.png", "a/./b.png", "a/c/../b.png", "a//b.png"] {
            assert_eq!(normal(Path::new(path)), Path::new("a/b.png"), "{path}");
            assert_eq!(normal(&here.join(path)), Path::new("a/b.png"), "{path}");
            assert_eq!(full(Path::new(path)), here.join("a/b.png"), "{path}");
        }
        assert_eq!((normal(Path::new(".")), full(Path::new("."))), (PathBuf::new(), here.clone()));
        assert_eq!(normal(Path::new("../../x")), Path::new("../../x"));
        let name = here.file_name().unwrap();
        assert_eq!(normal(&Path::new("..").join(name).join("x")), Path::new("x"));
        assert_eq!(normal(Path::new("/../x")), Path::new("/x"));
        assert_eq!(full(Path::new("/x/y")), Path::new("/x/y"));

        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::os::unix::fs::symlink("deep", folder.path().join("link")).unwrap();
        let kept = normal(&folder.path().join("link/../x"));
        assert!(kept.ends_with("link/../x"), "{}", kept.display());
    }

    #[test]
    fn no_byte_is_lost() {
        for bytes in [&b"plain.png"[..], b"a\xff\\x41.png", b"\xc3\xa9\xc3", b"\\\xfe\\\\"] {
            let path = PathBuf::from(from_bytes(bytes.to_vec()));
            assert_eq!(named(&shown(&path)), path);
        }
        assert_eq!(shown(&PathBuf::from(from_bytes(b"a\xff".to_vec()))), "a\\xff");
    }
}
