//! Files of results: names, raw maps, pictures. Every file appears whole or not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use verilume::image::Picture;
use verilume::report::{Partial, replace};
use verilume::{Error, Result};

use crate::npy;

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

/// Raw maps of the rows of an array, written in order as they are made.
pub struct RawFile {
    path: PathBuf,
    partial: Partial,
    file: BufWriter<File>,
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
        let header = match format {
            RawFormat::Npy => npy::f32_header(&shape),
            RawFormat::Safetensors | RawFormat::SafetensorsInput => {
                let bytes = shape.iter().product::<usize>() * 4;
                let name = if format == RawFormat::SafetensorsInput { "input" } else { "map" };
                let entry = json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, bytes] } });
                let mut header = entry.to_string();
                // The data must begin at a multiple of eight bytes.
                header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
                [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
            }
        };
        file.write_all(&header).map_err(fail)?;
        let (path, row_dims) = (path.to_owned(), row_dims.to_vec());
        Ok(Self { path, partial, file, row_dims, rows: rows.unwrap_or(1), written: 0 })
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
        self.file.into_inner().map_err(|e| Error::io(&self.path, e.into_error()))?;
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
        let written = values.iter().try_for_each(|v| self.file.write_all(&v.to_le_bytes()));
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
