//! Compiled units on disk, so that a kernel is compiled once and not in every run.
//!
//! An entry is a file named after its key: a magic text, the key, the lengths of image and log, their SHA-256, then both.
//! What is not exactly that is as good as absent. Nothing here is an error: the worst is to compile again.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::error::open_file;

/// Names the folder; set but empty it switches the cache off.
const FOLDER: &str = "VERILUME_CACHE_DIR";
/// Changes when entries or options get another meaning.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"VLMKERN1";
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + DIGEST_BYTES + 2 * size_of::<u64>() + DIGEST_BYTES;
/// No unit comes near it.
const MOST_BYTES: u64 = 256 << 20;

/// What an image was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; DIGEST_BYTES]);

impl Key {
    /// Of texts in order; where one ends and the next begins counts.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(FORMAT.to_le_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn file(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ".kernel"
    }
}

/// A folder of compiled units, or none.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Where the environment says: `VERILUME_CACHE_DIR`, else `verilume` in the user's folder for caches.
    pub fn of_user() -> Self {
        Self { folder: folder(|name| std::env::var_os(name)) }
    }

    /// In `folder`, which is made when something is put into it.
    #[cfg(test)]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    /// Image and log, if they are there and whole.
    pub fn get(&self, key: &Key) -> Option<(Vec<u8>, String)> {
        let path = self.folder.as_ref()?.join(key.file());
        let file = open_file(&path).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        parse(key, &bytes)
    }

    /// Keeps image and log if the folder can be written.
    pub fn put(&self, key: &Key, image: &[u8], log: &str) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(folder) = &self.folder else { return };
        if std::fs::create_dir_all(folder).is_err() {
            return;
        }
        // Others may write the same entry now: each writes its own file, and the name changes hands at once.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{}.{}.{number}", key.file(), std::process::id()));
        let written = std::fs::File::create_new(&temporary)
            .and_then(|mut file| {
                file.write_all(&head(key, image, log))?;
                file.write_all(image)?;
                file.write_all(log.as_bytes())
            })
            .and_then(|()| std::fs::rename(&temporary, folder.join(key.file())));
        if written.is_err() {
            std::fs::remove_file(&temporary).ok();
        }
    }
}

/// The folder that `variable` names. A relative one of the desktop's standard is ignored, as the standard says.
pub(super) fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(own) = variable(FOLDER) {
        return (!own.is_empty()).then(|| PathBuf::from(own));
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(caches?.join("verilume"))
}

fn digest(image: &[u8], log: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new().chain_update(image).chain_update(log).finalize().into()
}

fn head(key: &Key, image: &[u8], log: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(MAGIC);
    head.extend(key.0);
    head.extend((image.len() as u64).to_le_bytes());
    head.extend((log.len() as u64).to_le_bytes());
    head.extend(digest(image, log.as_bytes()));
    head
}

fn parse(key: &Key, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES)?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let (own_key, rest) = rest.split_at(DIGEST_BYTES);
    let (image_len, rest) = rest.split_first_chunk()?;
    let (log_len, sum) = rest.split_first_chunk()?;
    let image_len = usize::try_from(u64::from_le_bytes(*image_len)).ok()?;
    let log_len = usize::try_from(u64::from_le_bytes(*log_len)).ok()?;
    let (image, log) = payload.split_at_checked(image_len)?;
    let whole = magic == MAGIC && own_key == key.0 && log.len() == log_len && sum == digest(image, log);
    whole.then(|| Some((image.to_vec(), std::str::from_utf8(log).ok()?.to_owned())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> (Key, Vec<u8>, &'static str) {
        (Key::of(&[b"text", b"sm_90a"]), (0..=255).cycle().take(3001).collect(), "ptxas info: 7 registers\n")
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("not/yet"));
        let (key, image, log) = entry();
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &image, log);
        assert_eq!(cache.get(&key), Some((image, log.into())));
        assert_eq!(cache.get(&Key::of(&[b"text", b"sm_80"])), None);
        cache.put(&key, b"", "");
        assert_eq!(cache.get(&key), Some((Vec::new(), String::new())));
        let files = std::fs::read_dir(folder.path().join("not/yet")).unwrap().count();
        assert_eq!(files, 1, "a temporary file was left");
    }

    #[test]
    fn every_part_and_every_border_is_in_the_key() {
        let parts: [&[&[u8]]; 7] =
            [&[], &[b""], &[b"", b""], &[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"c", b"ab"]];
        for (i, one) in parts.iter().enumerate() {
            for other in &parts[..i] {
                assert_ne!(Key::of(one), Key::of(other), "{one:?} {other:?}");
            }
            assert_eq!(Key::of(one), Key::of(one));
        }
    }

    #[test]
    fn a_damaged_entry_is_not_there_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf());
        let (key, image, log) = entry();
        cache.put(&key, &image, log);
        let path = folder.path().join(key.file());
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), HEAD_BYTES + image.len() + log.len());
        let heard = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            cache.get(&key)
        };
        assert!(heard(&whole).is_some());
        for len in [0, 1, 7, MAGIC.len(), HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + image.len(), whole.len() - 1] {
            assert_eq!(heard(&whole[..len]), None, "cut to {len} bytes");
        }
        assert_eq!(heard(&[&whole[..], b"more"].concat()), None);
        for at in (0..HEAD_BYTES).chain([HEAD_BYTES, HEAD_BYTES + image.len() / 2, whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            assert_eq!(heard(&bytes), None, "byte {at} changed");
        }
        // Lengths that do not fit anything.
        let mut bytes = whole.clone();
        bytes[MAGIC.len() + DIGEST_BYTES..][..16].fill(0xff);
        assert_eq!(heard(&bytes), None);
        cache.put(&key, &image, log);
        assert_eq!(cache.get(&key), Some((image, log.into())));
    }

    #[test]
    fn an_entry_of_another_key_is_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf());
        let (key, image, log) = entry();
        let other = Key::of(&[b"other"]);
        cache.put(&key, &image, log);
        std::fs::rename(folder.path().join(key.file()), folder.path().join(other.file())).unwrap();
        assert_eq!(cache.get(&other), None);
        // A folder in its place neither.
        std::fs::create_dir(folder.path().join(key.file())).unwrap();
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &image, log);
        assert_eq!(cache.get(&key), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file was left");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let (key, image, log) = entry();
        for cache in [Cache::at(file.join("below")), Cache { folder: None }] {
            cache.put(&key, &image, log);
            assert_eq!(cache.get(&key), None);
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_environment_names_the_folder() {
        let of = |variables: &[(&str, &str)]| {
            folder(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let path = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/home/a");
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c"), (FOLDER, "/own")]), path("/own"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c"), (FOLDER, "")]), None);
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c")]), path("/c/verilume"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "relative")]), path("/home/a/.cache/verilume"));
        assert_eq!(of(&[home]), path("/home/a/.cache/verilume"));
        assert_eq!(of(&[("HOME", "")]), None);
        assert_eq!(of(&[]), None);
    }
}
