//! [`Partial`]: files being written, and the remains of those whose run has died.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Suffix of every partial file's name.
const ENDING: &str = ".partial";
/// Suffix of a partial file that a later run may continue.
const ROWS: &str = ".rows.partial";
/// Longest file name on most file systems, in bytes.
const LONGEST: usize = 255;
/// Extensions of files that this program names itself.
const WRITTEN: &[&[u8]] = &[b"csv", b"html", b"json", b"jsonl", b"npy", b"png", b"safetensors"];
/// Extension of a partial file whose own extension, chosen by the user, is not one of these.
const OWN: &[u8] = b"verilume";

/// A file being written. It is in the same folder as its destination, so that the rename is atomic.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    partial: PathBuf,
    stays: bool,
}

impl Partial {
    /// Creates a partial file for `path`, and the file to write to. If it is dropped before [`place`](Self::place), it
    /// is removed.
    ///
    /// # Errors
    /// When there is something other than a regular file, or the folder is not writable.
    pub fn create(path: &Path) -> Result<(Self, File)> {
        Self::fresh(path, beside(path, &format!(".{}{ENDING}", std::process::id())), false)
    }

    /// As [`create`](Self::create), but when dropped, its contents stay at [`of_rows`], so that a later run can
    /// continue it. Earlier contents are discarded.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_rows(path: &Path, key: &str) -> Result<(Self, File)> {
        Self::fresh(path, of_rows(path, key), true)
    }

    /// Continues the file left by [`create_rows`](Self::create_rows), or takes a finished file back into the partial
    /// state; `None` if there is neither.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn open_rows(path: &Path, key: &str) -> Result<Option<(Self, File)>> {
        let partial = of_rows(path, key);
        if !is_regular(&partial) {
            if !is_regular(path) {
                return Ok(None);
            }
            std::fs::rename(path, &partial).map_err(|e| Error::io(path, e))?;
        }
        let file = File::options().read(true).write(true).open(&partial).map_err(|e| Error::io(path, e))?;
        Ok(Some((Self { path: path.to_owned(), partial, stays: true }, file)))
    }

    fn fresh(path: &Path, partial: PathBuf, stays: bool) -> Result<(Self, File)> {
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(Error::input(format!("{}: something that is not a regular file is here", path.display())));
        }
        let create = || File::options().read(true).write(true).create_new(true).open(&partial);
        let created = create().or_else(|e| match e.kind() {
            // Left by a dead run, or created by someone else; a link is removed, not followed.
            std::io::ErrorKind::AlreadyExists => std::fs::remove_file(&partial).and_then(|()| create()),
            _ => Err(e),
        });
        let file = created.map_err(|e| Error::io(path, e))?;
        Ok((Self { path: path.to_owned(), partial, stays }, file))
    }

    /// Moves the file, which is closed by now, to its destination.
    ///
    /// # Errors
    /// When there is something other than a file, or the folder is not writable.
    pub fn place(mut self) -> Result<()> {
        let placed = std::fs::rename(&self.partial, &self.path).map_err(|e| Error::io(&self.path, e));
        // After the rename, the partial name no longer exists.
        self.stays |= placed.is_ok();
        placed
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Where the rows of a file at `path` are stored until all are there. Rows of the same array with the same settings
/// have the same `key`, 16 hexadecimal digits.
pub fn of_rows(path: &Path, key: &str) -> PathBuf {
    beside(path, &format!(".{key}{ROWS}"))
}

/// `.NAME<ending>`; if the name is too long for that, its hash and extension. A name without a known extension gets one
/// that identifies this program.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let own = if is_written(name.as_encoded_bytes()) { "" } else { ".verilume" };
    let ending = format!("{own}{ending}");
    let mut hidden = OsString::from(".");
    if name.len() + ending.len() < LONGEST {
        hidden.push(name);
    } else {
        let digest = Sha256::digest(name.as_encoded_bytes());
        hidden.push(digest[..8].iter().map(|b| format!("{b:02x}")).collect::<String>());
        hidden.push(".");
        hidden.push(path.extension().unwrap_or_default());
    }
    hidden.push(ending);
    path.with_file_name(hidden)
}

/// Partial files in `folder` that do not belong to a running process on this machine: the remains of killed runs. Other
/// files, even hidden ones, are not included.
pub fn left_in(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut left: Vec<PathBuf> =
        entries.filter(|e| is_left(&e.file_name())).map(|e| e.path()).filter(|path| is_regular(path)).collect();
    left.sort();
    left
}

/// The parts before and after the last dot. Names need not be text.
fn at_last_dot(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Whether a name has an extension of this program's files.
fn is_written(name: &[u8]) -> bool {
    at_last_dot(name)
        .is_some_and(|(stem, extension)| !stem.is_empty() && (WRITTEN.contains(&extension) || extension == OWN))
}

fn is_left(name: &OsStr) -> bool {
    let Some(name) = name.as_encoded_bytes().strip_prefix(b".") else { return false };
    if let Some((name, key)) = name.strip_suffix(ROWS.as_bytes()).and_then(at_last_dot) {
        return key.len() == 16 && key.iter().all(u8::is_ascii_hexdigit) && is_written(name);
    }
    let process = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u32>().ok();
    match name.strip_suffix(ENDING.as_bytes()).and_then(at_last_dot) {
        Some((name, digits)) => process(digits).is_some_and(|id| !is_running(id)) && is_written(name),
        None => false,
    }
}

/// If it cannot be determined, the process counts as dead: locks decide the rest.
fn is_running(process: u32) -> bool {
    process == std::process::id() || Path::new(&format!("/proc/{process}")).exists()
}

/// Whether there is a regular file, not a link to one, at `path`.
fn is_regular(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.is_file())
}

/// Writes `bytes` to `path` such that a reader sees either the old file or the complete new one.
///
/// # Errors
/// When the folder is not writable.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let (partial, mut file) = Partial::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io(path, e))?;
    drop(file);
    partial.place()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_form_are_left_over() {
        for name in [
            ".x.gradient.npy.4294967295.partial",
            ".records.jsonl.4294967295.partial",
            ".x.npy.0123456789abcdef.rows.partial",
            "..x.gradient.npy.4294967295.partial",
            "..x.npy.0123456789abcdef.rows.partial",
            ".x.dat.verilume.4294967295.partial",
        ] {
            assert!(is_left(OsStr::new(name)), "{name}");
        }
        let own = format!(".x.npy.{}.partial", std::process::id());
        for name in [
            "x.npy.4294967295.partial",
            ".x.npy.partial",
            ".x.txt.4294967295.partial",
            "..npy.4294967295.partial",
            ".x.npy.12ab.partial",
            ".x.npy.0123.rows.partial",
            ".npy.4294967295.partial",
            &own,
        ] {
            assert!(!is_left(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn whatever_a_file_is_called_what_is_left_of_it_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = ["x.npy", ".x.npy", "patterns.dat", "patterns", ".npy"].map(OsString::from).to_vec();
        names.push(OsString::from(format!("{}.dat", "n".repeat(LONGEST - 4))));
        #[cfg(unix)]
        names.push(std::os::unix::ffi::OsStringExt::from_vec(b"\xff.npy".to_vec()));
        for name in names {
            let path = folder.path().join(name);
            for ending in [".4294967295.partial", ".0123456789abcdef.rows.partial"] {
                let hidden = beside(&path, ending);
                let name = hidden.file_name().unwrap();
                assert!(is_left(name) && name.len() <= LONGEST, "{}", hidden.display());
            }
        }
    }

    #[test]
    fn long_names_have_room_beside_them() {
        let name = format!("{}.npy", "n".repeat(LONGEST - 4));
        let folder = tempfile::tempdir().unwrap();
        replace(&folder.path().join(&name), b"whole").unwrap();
        assert_eq!(std::fs::read(folder.path().join(&name)).unwrap(), b"whole");
        let hidden = of_rows(&folder.path().join(&name), "0123456789abcdef");
        assert!(is_left(hidden.file_name().unwrap()), "{}", hidden.display());
    }

    #[cfg(unix)]
    #[test]
    fn links_at_the_name_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("x.npy"), folder.path().join("other"));
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, beside(&path, &format!(".{}{ENDING}", std::process::id()))).unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap()),
            (b"whole".to_vec(), b"precious".to_vec())
        );
        let kinds = [folder.path().join("device")];
        std::os::unix::fs::symlink("/dev/null", &kinds[0]).unwrap();
        assert!(replace(&kinds[0], b"").unwrap_err().to_string().contains("not a regular file"));
    }
}
