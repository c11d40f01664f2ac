//! Files of results: names, raw maps, pictures. Every file appears whole or not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use npyz::{NpyWriter, WriterBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};
use verilume::image::Picture;
use verilume::report::{Partial, replace};
use verilume::{Error, Result};

use crate::methods::hex;
use crate::paths;

/// Bytes of a stem's last part: with the number of a row (10), an id, a class or rank (10) and `.safetensors` or `.heatmap.png`
/// behind it, and what the name of a partial file adds, it fits into the 255 bytes of a file's name.
pub const STEM_BYTES: usize = 140;

/// `stem` with a last part of at most [`STEM_BYTES`]: a longer one is cut, and ends in a hash of the whole of it.
pub fn fitting(stem: &Path) -> PathBuf {
    let name = stem.file_name().unwrap_or_default().as_encoded_bytes();
    if name.len() <= STEM_BYTES {
        return stem.to_owned();
    }
    let hash = format!("~{}", &hex(&Sha256::digest(name))[..16]);
    let mut end = STEM_BYTES - hash.len();
    // Not within a character.
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

/// Makes the folder that `path` is in.
pub fn make_room(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e)),
        None => Ok(()),
    }
}

/// Writes a picture as PNG.
pub fn write_png(path: &Path, picture: &Picture) -> Result<()> {
    let bytes = verilume::render::png(picture)?;
    make_room(path)?;
    replace(path, &bytes)
}

/// How raw maps and inputs are stored.
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

enum Body {
    Npy(NpyWriter<f32, BufWriter<File>>),
    Safetensors(BufWriter<File>),
}

/// Raw maps of the rows of an array, written in order as they are made.
pub struct RawFile {
    path: PathBuf,
    partial: Partial,
    body: Body,
    row_dims: Vec<usize>,
    rows: usize,
    written: usize,
}

impl RawFile {
    /// For `rows` maps of `row_dims`, or, with `rows` `None`, for one map without an axis of rows.
    pub fn create(path: &Path, format: RawFormat, rows: Option<usize>, row_dims: &[usize]) -> Result<Self> {
        make_room(path)?;
        let shape: Vec<usize> = rows.into_iter().chain(row_dims.iter().copied()).collect();
        let fail = |e| Error::io(path, e);
        let (partial, file) = Partial::create(path)?;
        let mut file = BufWriter::new(file);
        let body = match format {
            RawFormat::Npy => {
                let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
                let options = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape);
                Body::Npy(options.writer(file).begin_nd().map_err(fail)?)
            }
            RawFormat::Safetensors | RawFormat::SafetensorsInput => {
                let bytes = shape.iter().product::<usize>() * 4;
                let name = if format == RawFormat::SafetensorsInput { "input" } else { "map" };
                let entry = json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, bytes] } });
                let mut header = entry.to_string();
                // The data must begin at a multiple of eight bytes.
                header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
                file.write_all(&(header.len() as u64).to_le_bytes()).map_err(fail)?;
                file.write_all(header.as_bytes()).map_err(fail)?;
                Body::Safetensors(file)
            }
        };
        let (path, row_dims) = (path.to_owned(), row_dims.to_vec());
        Ok(Self { path, partial, body, row_dims, rows: rows.unwrap_or(1), written: 0 })
    }

    /// Row `row`; rows that were left out before it are filled with NaN.
    pub fn push(&mut self, row: usize, dims: &[usize], values: &[f32]) -> Result<()> {
        if dims != self.row_dims {
            return Err(Error::input(format!(
                "{}: a map of shape {dims:?} among maps of shape {:?}",
                self.path.display(),
                self.row_dims
            )));
        }
        self.fill(row)?;
        self.write(values)
    }

    /// Fills up with NaN and puts the file in its place.
    pub fn finish(mut self) -> Result<()> {
        self.fill(self.rows)?;
        let done = match self.body {
            Body::Npy(writer) => writer.finish(),
            Body::Safetensors(file) => file.into_inner().map(drop).map_err(|e| e.into_error()),
        };
        done.map_err(|e| Error::io(&self.path, e))?;
        self.partial.place()
    }

    fn fill(&mut self, until: usize) -> Result<()> {
        while self.written < until {
            self.write(&vec![f32::NAN; self.row_dims.iter().product()])?;
        }
        Ok(())
    }

    fn write(&mut self, values: &[f32]) -> Result<()> {
        self.written += 1;
        let written = match &mut self.body {
            Body::Npy(writer) => writer.extend(values.iter().copied()),
            Body::Safetensors(file) => values.iter().try_for_each(|v| file.write_all(&v.to_le_bytes())),
        };
        written.map_err(|e| Error::io(&self.path, e))
    }
}

/// The raw files of one array input: one a method, rank of target and format.
pub struct RawFiles {
    rows: usize,
    open: HashMap<PathBuf, RawFile>,
}

impl RawFiles {
    /// Of an array of `rows` rows; none is open yet.
    pub fn new(rows: usize) -> Self {
        Self { rows, open: HashMap::new() }
    }

    /// Adds row `row` to the file at `path`, which begins with the first row that is added.
    pub fn push(&mut self, path: &Path, format: RawFormat, row: usize, dims: &[usize], values: &[f32]) -> Result<()> {
        if !self.open.contains_key(path) {
            self.open.insert(path.to_owned(), RawFile::create(path, format, Some(self.rows), dims)?);
        }
        match self.open.get_mut(path) {
            Some(file) => file.push(row, dims, values),
            None => Ok(()),
        }
    }

    /// Puts all files in their places.
    pub fn finish(self) -> Result<()> {
        self.open.into_values().try_for_each(RawFile::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_follows_a_stem_fits() {
        let methods = verilume::method::registry().iter().map(|entry| entry.id);
        let attacks = verilume::reliability::attack::registry().iter().map(|entry| entry.id);
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
        files.push(&path, RawFormat::Npy, 1, &[2], &[1.0, 2.0]).unwrap();
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
        let mut file = RawFile::create(&path, RawFormat::Safetensors, None, &[1, 2, 3]).unwrap();
        file.push(0, &[1, 2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        file.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let map = tensors.tensor("map").unwrap();
        assert_eq!((map.shape(), map.data()[20..].to_vec()), ([1, 2, 3].as_slice(), 5.0f32.to_le_bytes().to_vec()));
    }
}
