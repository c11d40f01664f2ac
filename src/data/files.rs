//! Result files: names, raw maps, pictures. Every file is written completely or not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::read_file;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::report::{Partial, replace};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::npy;
use super::paths;
use crate::text::hex;

/// Most bytes in a stem's last part. Together with a row number (10), an id, a class or rank (10), `.safetensors` or
/// `.heatmap.png`, and the suffix of a partial file, it fits into the 255 bytes of a file name.
pub const STEM_BYTES: usize = 140;

/// `stem` with a last part of at most [`STEM_BYTES`]; a longer one is cut and ends in a hash of the full part.
pub fn fitting(stem: &Path) -> PathBuf {
    let name = stem.file_name().unwrap_or_default().as_encoded_bytes();
    if name.len() <= STEM_BYTES {
        return stem.to_owned();
    }
    let hash = format!("~{}", &hex(&Sha256::digest(name))[..16]);
    let mut end = STEM_BYTES - hash.len();
    // Do not cut within a character.
    while name[end] & 0xC0 == 0x80 && end > 0 {
        end -= 1;
    }
    stem.with_file_name(paths::from_bytes([&name[..end], hash.as_bytes()].concat()))
}

/// `DIR/<stem>.<parts joined by dots>`.
pub fn path(out: &Path, stem: &Path, parts: &[&str]) -> PathBuf {
    let mut name = out.join(stem).into_os_string();
    for part in parts {
        name.push(".");
        name.push(part);
    }
    PathBuf::from(name)
}

/// Creates the folder that contains `path`.
pub fn make_room(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e)),
        None => Ok(()),
    }
}

/// Parses a JSON file; `None` if it is not JSON.
pub fn json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&read_file(path).ok()?).ok()
}

/// Renames the report of another run or program to `NAME.1.EXT` or the next free number, and returns the new name.
/// `is_same` says whether a report is about the same inputs, so that it may be replaced.
pub fn set_aside(path: &Path, is_same: impl Fn(&serde_json::Value) -> bool) -> Result<Option<PathBuf>> {
    if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let bytes = read_file(path)?;
    // A file that is not a report belongs to someone else.
    if serde_json::from_slice(&bytes).is_ok_and(|report| is_same(&report)) {
        return Ok(None);
    }
    let kept = free_beside(path);
    std::fs::rename(path, &kept).map_err(|e| Error::io(path, e))?;
    Ok(Some(kept))
}

/// `NAME.1.EXT`, or the first number that is free.
pub fn free_beside(path: &Path) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = |n: usize| path.with_extension(format!("{n}.{extension}"));
    let mut n = 1;
    while numbered(n).symlink_metadata().is_ok() {
        n += 1;
    }
    numbered(n)
}

/// Writes a picture as PNG.
pub fn write_png(path: &Path, picture: &Picture) -> Result<()> {
    let bytes = crate::render::png(picture)?;
    make_room(path)?;
    replace(path, &bytes)
}

/// File format of raw maps and inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawFormat {
    /// NumPy.
    Npy,
    /// safetensors, tensor `map`.
    Safetensors,
    /// safetensors, tensor `input`.
    SafetensorsInput,
}

impl RawFormat {
    /// Extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            RawFormat::Npy => "npy",
            RawFormat::Safetensors | RawFormat::SafetensorsInput => "safetensors",
        }
    }
}

/// Raw maps of an array's rows, each at its position in the file.
pub struct RawFile {
    path: PathBuf,
    partial: Partial,
    file: File,
    /// Bytes before the first row.
    header: u64,
    row_bytes: u64,
    /// Rows that have been written.
    filled: Vec<bool>,
}

impl RawFile {
    /// Creates a file for `rows` maps of `row_dims`; with `rows` `None`, for one map without a row axis. With a `key`,
    /// an interrupted file stays for [`go_on`](Self::go_on), and an earlier file at `path` is removed.
    pub fn create(
        (path, key): (&Path, Option<&str>),
        format: RawFormat,
        rows: Option<usize>,
        row_dims: &[usize],
    ) -> Result<Self> {
        make_room(path)?;
        let fail = |e| Error::io(path, e);
        let (partial, mut file) = match key {
            None => Partial::create(path)?,
            Some(key) => {
                // A file at `path` without partial rows next to it would count as complete, so an older one must not
                // remain.
                match std::fs::remove_file(path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
                    _ => Partial::create_rows(path, key)?,
                }
            }
        };
        let shape: Vec<usize> = rows.into_iter().chain(row_dims.iter().copied()).collect();
        let header = header(format, &shape);
        let (rows, row_bytes) = (rows.unwrap_or(1), 4 * row_dims.iter().product::<usize>() as u64);
        file.write_all(&header).map_err(fail)?;
        let header = header.len() as u64;
        file.set_len(header + rows as u64 * row_bytes).map_err(fail)?;
        Ok(Self { path: path.to_owned(), partial, file, header, row_bytes, filled: vec![false; rows] })
    }

    /// Continues the file of an interrupted run, with the rows in `filled` counted as written; `None` if there is no
    /// such file.
    pub fn go_on(path: &Path, key: &str, filled: &[bool]) -> Result<Option<Self>> {
        let Some((partial, mut file)) = Partial::open_rows(path, key)? else { return Ok(None) };
        let fail = |e| Error::io(path, e);
        let mut start = [0; 10];
        file.read_exact(&mut start).map_err(fail)?;
        let header = match start {
            [0x93, b'N', b'U', b'M', b'P', b'Y', _, _, a, b] => 10 + u64::from(u16::from_le_bytes([a, b])),
            [length @ .., _, _] => 8 + u64::from_le_bytes(length),
        };
        let row_bytes = file.metadata().map_err(fail)?.len().saturating_sub(header) / filled.len().max(1) as u64;
        Ok(Some(Self { path: path.to_owned(), partial, file, header, row_bytes, filled: filled.to_vec() }))
    }

    /// Writes row `row`.
    pub fn push(&mut self, row: usize, values: &[f32]) -> Result<()> {
        if 4 * values.len() as u64 != self.row_bytes || row >= self.filled.len() {
            return Err(Error::input(format!(
                "{}: a map of {} numbers in row {row} among {} rows of {}",
                self.path.display(),
                values.len(),
                self.filled.len(),
                self.row_bytes / 4
            )));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let at = SeekFrom::Start(self.header + row as u64 * self.row_bytes);
        let written = self.file.seek(at).and_then(|_| self.file.write_all(&bytes));
        written.map_err(|e| Error::io(&self.path, e))?;
        self.filled[row] = true;
        Ok(())
    }

    /// Fills missing rows with NaN and moves the file into place.
    pub fn finish(mut self) -> Result<()> {
        for row in 0..self.filled.len() {
            if !self.filled[row] {
                self.push(row, &vec![f32::NAN; self.row_bytes as usize / 4])?;
            }
        }
        drop(self.file);
        self.partial.place()
    }
}

/// The bytes before the numbers of an array of `shape`.
fn header(format: RawFormat, shape: &[usize]) -> Vec<u8> {
    match format {
        RawFormat::Npy => npy::f32_header(shape),
        RawFormat::Safetensors | RawFormat::SafetensorsInput => {
            let bytes = shape.iter().product::<usize>() * 4;
            let name = if format == RawFormat::SafetensorsInput { "input" } else { "map" };
            let entry = json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, bytes] } });
            let mut header = entry.to_string();
            // The data must begin at a multiple of eight bytes.
            header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
            [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
        }
    }
}

/// The raw files of one array input: one per method, target rank and format.
pub struct RawFiles {
    rows: usize,
    open: HashMap<PathBuf, RawFile>,
}

impl RawFiles {
    /// For an array of `rows` rows; no file is open yet.
    pub fn new(rows: usize) -> Self {
        Self { rows, open: HashMap::new() }
    }

    /// Continues the file at `path`, with the rows in `filled` counted as written.
    pub fn go_on(&mut self, path: &Path, key: &str, filled: &[bool]) -> Result<()> {
        if let Some(file) = RawFile::go_on(path, key, filled)? {
            self.open.insert(path.to_owned(), file);
        }
        Ok(())
    }

    /// Adds row `row` to the file at `path`, which is created with its first row.
    pub fn push(
        &mut self,
        (path, key): (&Path, Option<&str>),
        format: RawFormat,
        row: usize,
        dims: &[usize],
        values: &[f32],
    ) -> Result<()> {
        if !self.open.contains_key(path) {
            let file = RawFile::create((path, key), format, Some(self.rows), dims)?;
            self.open.insert(path.to_owned(), file);
        }
        match self.open.get_mut(path) {
            Some(file) => file.push(row, values),
            None => Ok(()),
        }
    }

    /// Moves all files into place.
    pub fn finish(self) -> Result<()> {
        self.open.into_values().try_for_each(RawFile::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";

    #[test]
    fn what_was_interrupted_is_gone_on_with() {
        for format in [RawFormat::Npy, RawFormat::Safetensors] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format!("x.{}", format.extension()));
            std::fs::write(&path, "of an older run").unwrap();
            let mut whole = RawFiles::new(3);
            (0..3).for_each(|row| whole.push((&path, Some(KEY)), format, row, &[2], &[row as f32; 2]).unwrap());
            assert!(!path.exists());
            whole.finish().unwrap();
            let expected = std::fs::read(&path).unwrap();

            let mut files = RawFiles::new(3);
            files.push((&path, Some(KEY)), format, 0, &[2], &[0.0; 2]).unwrap();
            drop(files);
            assert!(!path.exists());
            let mut files = RawFiles::new(3);
            files.go_on(&path, KEY, &[true, false, false]).unwrap();
            (1..3).for_each(|row| files.push((&path, Some(KEY)), format, row, &[2], &[row as f32; 2]).unwrap());
            files.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            assert_eq!(folder.path().read_dir().unwrap().count(), 1);

            // A row of a complete file is written again in place.
            let mut files = RawFiles::new(3);
            files.go_on(&path, KEY, &[true, false, true]).unwrap();
            assert!(files.push((&path, Some(KEY)), format, 1, &[3], &[1.0; 3]).is_err());
            files.push((&path, Some(KEY)), format, 1, &[2], &[1.0; 2]).unwrap();
            files.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected);
        }
    }

    #[test]
    fn whatever_follows_a_stem_fits() {
        let methods = crate::method::registry().iter().map(|entry| entry.id);
        let attacks = crate::reliability::attack::registry().iter().map(|entry| entry.id);
        let longest = methods.chain(attacks).map(str::len).max().unwrap();
        let end = ".4294967295".len() + 1 + longest + "-999".len() + ".4294967295".len() + ".safetensors".len();
        let partial = "..4194304.18446744073709551615.partial".len();
        assert!(STEM_BYTES + end + partial <= 255, "{longest}");
        let cut = fitting(&Path::new("sub").join("é".repeat(100)));
        assert!(cut.to_str().is_some_and(|cut| cut.starts_with("sub/éé") && cut.len() <= STEM_BYTES + 4), "{cut:?}");
    }

    #[test]
    fn rows_left_out_are_nan() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), Path::new("sub/x"), &["gradient", "npy"]);
        let mut files = RawFiles::new(4);
        files.push((&path, Some(KEY)), RawFormat::Npy, 1, &[2], &[1.0, 2.0]).unwrap();
        assert!(!path.exists());
        files.finish().unwrap();
        let array = npyz::NpyFile::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(array.shape(), [4, 2]);
        let values: Vec<f32> = array.into_vec().unwrap();
        assert!(values[0].is_nan() && values[7].is_nan());
        assert_eq!(values[2..4], [1.0, 2.0]);
    }

    #[test]
    fn safetensors_hold_the_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut file = RawFile::create((&path, None), RawFormat::Safetensors, None, &[1, 2, 3]).unwrap();
        file.push(0, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        file.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let map = tensors.tensor("map").unwrap();
        assert_eq!((map.shape(), map.data()[20..].to_vec()), ([1, 2, 3].as_slice(), 5.0f32.to_le_bytes().to_vec()));
    }
}
