//! The kernels' text, and which kernels are made from which part of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::arguments;
use crate::error::{Error, Result};

/// One translation unit: a file, what is defined for it, and the kernels in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Names the instantiation; unique.
    pub name: &'static str,
    /// In `kernels/`.
    pub file: &'static str,
    /// Macros and their values.
    pub defines: &'static [(&'static str, &'static str)],
    /// Names are unique among all units.
    pub kernels: &'static [Kernel],
}

/// One `__global__` function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As in the source.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// Texts of `kernels/`: those compiled into the library, or files of a folder in their place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    folder: Option<PathBuf>,
}

macro_rules! embedded {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../kernels/", $file)))),+]
    };
}

const EMBEDDED: &[(&str, &str)] = embedded!["dialect.cuh", "mma.cuh", "count.cu"];

/// Headers that units include, in the order in which they need each other; `arguments.cuh` is made.
pub(crate) const HEADERS: [&str; 3] = ["arguments.cuh", "dialect.cuh", "mma.cuh"];

impl Sources {
    /// Files of `folder` in place of the embedded ones that have their names.
    ///
    /// # Errors
    /// When it is no folder or holds none of the files.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        if EMBEDDED.iter().any(|(file, _)| folder.join(file).is_file()) {
            return Ok(Self { folder: Some(folder.to_path_buf()) });
        }
        let names: Vec<&str> = EMBEDDED.iter().map(|(file, _)| *file).collect();
        Err(Error::settings(format!("{}: no kernel is here; the files are {}", folder.display(), names.join(", "))))
    }

    /// Text of a file.
    ///
    /// # Errors
    /// When it cannot be read or there is none of this name.
    pub fn text(&self, file: &str) -> Result<Cow<'static, str>> {
        if file == "arguments.cuh" {
            return Ok(arguments::header().into());
        }
        if let Some(path) = self.folder.as_ref().map(|f| f.join(file)).filter(|p| p.is_file()) {
            return std::fs::read_to_string(&path).map(Cow::from).map_err(|e| Error::io(path, e));
        }
        let known = EMBEDDED.iter().find(|(name, _)| *name == file);
        known.map(|(_, text)| Cow::from(*text)).ok_or_else(|| Error::settings(format!("there is no kernel file {file}")))
    }

    /// Names and texts of all headers.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn headers(&self) -> Result<Vec<(&'static str, Cow<'static, str>)>> {
        HEADERS.iter().map(|&name| Ok((name, self.text(name)?))).collect()
    }
}

/// Every unit there is.
pub(crate) const UNITS: &[&Unit] = &[&COUNT];

/// A kernel that counts, for tests of runtimes.
pub(crate) const COUNT: Unit = Unit {
    name: "count",
    file: "count.cu",
    defines: &[],
    kernels: &[Kernel { name: "count", threads: 128, shared_bytes: 0 }],
};
