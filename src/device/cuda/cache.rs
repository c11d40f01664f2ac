//! A disk cache of compiled units, so that a kernel is not compiled in every run.
//!
//! An entry is a file named after its key: a magic text, the key, the lengths of image and log, their SHA-256, then
//! both. Anything else counts as absent. Nothing here is an error: the worst case is to compile again.
//!
//! A file's modification time is the time of its last use. [`trim`] keeps the most recently used files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::open_file;

/// Environment variable with the folder; if set but empty, it disables the cache.
const FOLDER: &str = "VERILUME_CACHE_DIR";
/// Changes when the meaning of entries or options does.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"VLMKERN1";
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + DIGEST_BYTES + 2 * size_of::<u64>() + DIGEST_BYTES;
/// No unit comes near this size.
const MOST_BYTES: u64 = 256 << 20;

/// Identifies the inputs of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageKey([u8; DIGEST_BYTES]);

impl ImageKey {
    /// The key of some texts in order; their boundaries matter.
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
    /// The user's cache: `VERILUME_CACHE_DIR`, else `verilume` in the user's cache folder.
    pub fn of_user() -> Self {
        Self { folder: folder(|name| std::env::var_os(name)) }
    }

    /// A cache in `folder`, which is created with the first entry.
    #[cfg(test)]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    /// Image and log, if they are present and intact.
    pub fn get(&self, key: &ImageKey) -> Option<(Vec<u8>, String)> {
        let path = self.folder.as_ref()?.join(key.file());
        let file = open_file(&path).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        let found = parse(key, &bytes)?;
        used(&path);
        Some(found)
    }

    /// Stores image and log if the folder is writable.
    pub fn put(&self, key: &ImageKey, image: &[u8], log: &str) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Some(folder) = &self.folder else { return };
        if std::fs::create_dir_all(folder).is_err() {
            return;
        }
        // Others may write the same entry now: each writes its own file and renames it atomically.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(TRIM_EVERY) {
            trim(folder, BOUNDS, part);
        }
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

/// Limits on a folder of compiled files.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheLimits {
    /// Bytes in all.
    pub bytes: u64,
    /// Files that were not used for longer are removed.
    pub unused: Duration,
    /// Files used within this time stay in any case, as a process may be using them.
    pub spared: Duration,
}

/// All kernels of one version for one device take a few per cent of this.
pub(super) const BOUNDS: CacheLimits =
    CacheLimits { bytes: 256 << 20, unused: Duration::from_secs(30 * 24 * 3600), spared: Duration::from_secs(3600) };

/// Folders are trimmed before the first file that a process adds, and then after every this many additions.
pub(super) const TRIM_EVERY: usize = 64;

/// What a file of the cache's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheFile<'a> {
    /// It belongs to the entry of that name.
    Of(&'a str),
    /// It was never finished, if no process is at it.
    Unfinished,
}

/// Marks a file as used now.
pub(super) fn used(path: &Path) {
    // If that is not allowed, the file's age counts from its creation.
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Removes from `folder` what was not used for long, what was left unfinished, and of the rest what was used longest ago until
/// it fits. `part` knows the cache's own files by their names; others stay.
///
/// Other processes may read and add meanwhile: what they use is spared, what they find gone they make again.
pub(super) fn trim(folder: &Path, bounds: CacheLimits, part: impl Fn(&str) -> Option<CacheFile<'_>>) {
    struct CacheEntry {
        unused: Duration,
        bytes: u64,
        paths: Vec<PathBuf>,
    }
    let Ok(files) = std::fs::read_dir(folder) else { return };
    let now = SystemTime::now();
    let mut entries = BTreeMap::<String, CacheEntry>::new();
    for file in files.flatten() {
        let name = file.file_name();
        let (Some(name), Ok(metadata)) = (name.to_str(), file.metadata()) else { continue };
        let Some(part) = part(name) else { continue };
        let unused = metadata.modified().ok().and_then(|time| now.duration_since(time).ok()).unwrap_or_default();
        match part {
            CacheFile::Of(entry) => {
                let empty = || CacheEntry { unused, bytes: 0, paths: Vec::new() };
                let entry = entries.entry(entry.into()).or_insert_with(empty);
                entry.unused = entry.unused.min(unused);
                entry.bytes += metadata.len();
                entry.paths.push(file.path());
            }
            CacheFile::Unfinished if unused > bounds.spared => remove(&file.path()),
            CacheFile::Unfinished => {}
        }
    }
    let mut entries: Vec<CacheEntry> = entries.into_values().collect();
    entries.sort_by_key(|entry| entry.unused);
    let mut bytes = 0u64;
    for entry in entries {
        bytes = bytes.saturating_add(entry.bytes);
        if entry.unused > bounds.spared && (entry.unused > bounds.unused || bytes > bounds.bytes) {
            entry.paths.iter().for_each(|path| remove(path));
        }
    }
}

/// A file that cannot be removed stays.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
}

/// Whether a text is the digits of a key.
pub(super) fn is_key(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Which part of an entry a name is.
fn part(name: &str) -> Option<CacheFile<'_>> {
    let (key, rest) = name.split_once('.')?;
    match rest.strip_prefix("kernel") {
        _ if !is_key(key, 2 * DIGEST_BYTES) => None,
        Some("") => Some(CacheFile::Of(name)),
        Some(writer) if writer.starts_with('.') => Some(CacheFile::Unfinished),
        _ => None,
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

fn head(key: &ImageKey, image: &[u8], log: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(MAGIC);
    head.extend(key.0);
    head.extend((image.len() as u64).to_le_bytes());
    head.extend((log.len() as u64).to_le_bytes());
    head.extend(digest(image, log.as_bytes()));
    head
}

fn parse(key: &ImageKey, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
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

    fn entry() -> (ImageKey, Vec<u8>, &'static str) {
        (ImageKey::of(&[b"text", b"sm_90a"]), (0..=255).cycle().take(3001).collect(), "ptxas info: 7 registers\n")
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("not/yet"));
        let (key, image, log) = entry();
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &image, log);
        assert_eq!(cache.get(&key), Some((image, log.into())));
        assert_eq!(cache.get(&ImageKey::of(&[b"text", b"sm_80"])), None);
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
                assert_ne!(ImageKey::of(one), ImageKey::of(other), "{one:?} {other:?}");
            }
            assert_eq!(ImageKey::of(one), ImageKey::of(one));
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
        let other = ImageKey::of(&[b"other"]);
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

    /// Makes a file of `bytes` that was used so many hours ago.
    fn aged(path: &Path, bytes: usize, hours: u64) {
        std::fs::write(path, vec![0; bytes]).unwrap();
        let time = SystemTime::now() - Duration::from_secs(3600 * hours);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_trimmed_folder_keeps_what_was_used_last_and_what_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let key = |i: usize| format!("{i:064x}.kernel");
        let hours = [800, 600, 10, 9, 2, 0, 0];
        hours.iter().enumerate().for_each(|(i, &hours)| aged(&place(&key(i)), 100, hours));
        let others = ["notes.txt", "0.kernel", &format!("{:064x}.kernels", 1), &format!("{:063x}.kernel", 1)];
        others.iter().for_each(|name| aged(&place(name), 1000, 5000));
        let unfinished = [key(8) + ".4711.0", key(9) + ".4712.0"];
        aged(&place(&unfinished[0]), 100, 2);
        aged(&place(&unfinished[1]), 100, 0);
        let left = || (0..hours.len()).filter(|&i| place(&key(i)).exists()).collect::<Vec<_>>();
        let trimmed = |bytes| trim(folder.path(), CacheLimits { bytes, ..BOUNDS }, part);
        trimmed(u64::MAX);
        assert_eq!(left(), [1, 2, 3, 4, 5, 6], "33 days without use");
        assert!(!place(&unfinished[0]).exists() && place(&unfinished[1]).exists());
        trimmed(600);
        assert_eq!(left().len(), 6);
        trimmed(450);
        assert_eq!(left(), [3, 4, 5, 6]);
        // Those of the last hour stay.
        trimmed(0);
        assert_eq!(left(), [5, 6]);
        assert!(others.iter().all(|name| place(name).exists()));
        trim(&place("nowhere"), BOUNDS, part);
    }

    #[test]
    fn parts_of_an_entry_stay_or_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        ["a.so", "b.so"].iter().for_each(|name| aged(&place(name), 10, 3));
        aged(&place("a.sum"), 10, 2);
        aged(&place("b.sum"), 10, 4);
        trim(folder.path(), CacheLimits { bytes: 20, ..BOUNDS }, |name| Some(CacheFile::Of(name.split_once('.')?.0)));
        let left = ["a.so", "a.sum", "b.so", "b.sum"].map(|name| place(name).exists());
        assert_eq!(left, [true, true, false, false]);
    }

    #[test]
    fn entries_that_are_read_are_kept_and_additions_trim() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf());
        let (key, image, log) = entry();
        cache.put(&key, &image, log);
        let path = folder.path().join(key.file());
        let stale = folder.path().join(format!("{:064x}.kernel", 7));
        aged(&stale, 100, 24 * 31);
        let long_ago = SystemTime::now() - Duration::from_secs(3600 * 24 * 29);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert!(cache.get(&key).is_some());
        assert!(path.metadata().unwrap().modified().unwrap() > long_ago + Duration::from_secs(3600));
        for i in 0..TRIM_EVERY {
            cache.put(&ImageKey::of(&[&i.to_le_bytes()]), b"", "");
        }
        assert!(!stale.exists() && cache.get(&key).is_some());
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
