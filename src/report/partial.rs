//! [`Partial`]: files in the making, and what is left of those whose run has died.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Ends the name of every file in the making.
const ENDING: &str = ".partial";
/// Ends the name of a file in the making that a later run may go on with.
const ROWS: &str = ".rows.partial";
/// Longest file name of most file systems, bytes.
const LONGEST: usize = 255;
/// Extensions of files that this program writes under names of its own.
const WRITTEN: &[&[u8]] = &[b"csv", b"html", b"json", b"jsonl", b"npy", b"png", b"safetensors"];
/// Extension that a file in the making has where its own, which the user chose, is none of these.
const OWN: &[u8] = b"verilume";

/// A file in the making. It lies beside its place, so that the rename is atomic.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    partial: PathBuf,
    stays: bool,
}

impl Partial {
    /// For a file at `path`, and the file to write to. It goes away when it is dropped before it is
    /// [put there](Self::place).
    ///
    /// # Errors
    /// When something that is no regular file is there, or the folder cannot be written.
    pub fn create(path: &Path) -> Result<(Self, File)> {
        Self::fresh(path, beside(path, &format!(".{}{ENDING}", std::process::id())), false)
    }

    /// As [`create`](Self::create), but what was written stays where [`of_rows`] says when it is dropped, so that a later
    /// run can go on with it. What was there is forgotten.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_rows(path: &Path, key: &str) -> Result<(Self, File)> {
        Self::fresh(path, of_rows(path, key), true)
    }

    /// Goes on with what [`create_rows`](Self::create_rows) has left, or takes a file that is in its place out of it again;
    /// `None` when there is neither.
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
            // Left by a dead run, or put there by somebody; a link is removed and not followed.
            std::io::ErrorKind::AlreadyExists => std::fs::remove_file(&partial).and_then(|()| create()),
            _ => Err(e),
        });
        let file = created.map_err(|e| Error::io(path, e))?;
        Ok((Self { path: path.to_owned(), partial, stays }, file))
    }

    /// Puts the file, which is closed by now, in its place.
    ///
    /// # Errors
    /// When something that is no file is there, or the folder cannot be written.
    pub fn place(mut self) -> Result<()> {
        let placed = std::fs::rename(&self.partial, &self.path).map_err(|e| Error::io(&self.path, e));
        // After the rename there is nothing of that name.
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

/// Where the rows of a file at `path` lie until all are there. Rows of the same array under the same settings have the same
/// `key`, 16 hexadecimal digits.
pub fn of_rows(path: &Path, key: &str) -> PathBuf {
    beside(path, &format!(".{key}{ROWS}"))
}

/// `.NAME<ending>`; of a name that is too long for that its hash and extension. A name by which nobody could tell whose it is
/// says so.
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

/// Files in the making in `folder` that no running process of this machine owns: what killed runs have left. Other files,
/// however hidden, are none of them.
pub fn left_in(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut left: Vec<PathBuf> =
        entries.filter(|e| is_left(&e.file_name())).map(|e| e.path()).filter(|path| is_regular(path)).collect();
    left.sort();
    left
}

/// What is before and behind the last dot. Names need not be text.
fn at_last_dot(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Whether a name has an extension by which it is known as one of this program's.
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

/// Where it cannot be told, nobody runs: locks say the rest.
fn is_running(process: u32) -> bool {
    process == std::process::id() || Path::new(&format!("/proc/{process}")).exists()
}

/// Whether a regular file, and no link to one, is at `path`.
fn is_regular(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.is_file())
}

/// Writes `bytes` to `path` so that a reader sees the old file or the whole new one.
///
/// # Errors
/// When the folder cannot be written.
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
