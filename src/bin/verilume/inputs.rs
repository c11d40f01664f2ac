//! From what was typed to the list of files to explain and the names of their results.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use verilume::Error;
use verilume::report::{Journal, Stamp};
use walkdir::WalkDir;

use crate::arrays::{ArrayFile, extension};
use crate::paths;
use crate::values::Shard;

const PICTURES: &[&str] =
    &["png", "jpg", "jpeg", "jpe", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// One file to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Its path in records and messages.
    pub shown: String,
    /// Its path below the folder or pattern that named it.
    pub relative: PathBuf,
    /// Path below the output folder that results begin with.
    pub stem: PathBuf,
    /// The file as it was found.
    pub stamp: Option<Stamp>,
    /// Why it cannot be used, when that is known before it is opened.
    pub refused: Option<String>,
}

impl Source {
    /// The file at `path`.
    pub fn new(path: PathBuf, relative: PathBuf) -> Self {
        let shown = paths::shown(&path);
        let stamp = Stamp::of(&path);
        Self { path, shown, relative, stem: PathBuf::new(), stamp, refused: None }
    }

    fn refused(name: &str, why: String) -> Self {
        Self { refused: Some(why), ..Self::new(PathBuf::from(name), PathBuf::from(name)) }
    }

    /// Whether it is an array of inputs, by its name.
    pub fn is_array(&self) -> bool {
        ArrayFile::is_array(&self.path)
    }
}

/// Everything named on the command line.
#[derive(Debug, Default)]
pub struct Inputs {
    /// What to explain, in order.
    pub sources: Vec<Source>,
    /// Files in folders that are neither pictures nor arrays.
    pub ignored: usize,
}

/// What is asked of a line of a journal, whichever command wrote it.
#[derive(serde::Deserialize)]
struct Written {
    #[serde(default)]
    files: Vec<String>,
}

/// Results that earlier runs have left in the output folder.
struct Results {
    out: Option<PathBuf>,
    files: OnceCell<HashSet<PathBuf>>,
}

impl Results {
    fn below(out: &Path) -> Self {
        Self { out: out.canonicalize().ok(), files: OnceCell::new() }
    }

    /// Whether `folder` is the output folder or inside it.
    fn surround(&self, folder: &Path) -> bool {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        self.out.as_ref().is_some_and(|out| folder.canonicalize().is_ok_and(|folder| folder.starts_with(out)))
    }

    /// Whether `path` is the output folder itself.
    fn are_all_of(&self, path: &Path) -> bool {
        self.out.as_ref().is_some_and(|out| path.canonicalize().is_ok_and(|path| path == *out))
    }

    /// Whether the journals name `path`.
    fn name(&self, path: &Path) -> bool {
        let files = self.files.get_or_init(|| {
            let entries = self.out.iter().filter_map(|out| out.read_dir().ok()).flatten().flatten();
            let journals = entries.map(|entry| entry.path()).filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("records.") && name.ends_with(".jsonl")
            });
            let lines = journals.flat_map(|path| Journal::read::<Written>(&path).unwrap_or_default());
            lines.flat_map(|line| line.files).filter_map(|file| paths::named(&file).canonicalize().ok()).collect()
        });
        path.canonicalize().is_ok_and(|path| files.contains(&path))
    }
}

/// Finds the files. Results in `out` are not taken from a folder: nothing below it, and where the folder is inside it,
/// nothing that its journals name.
pub fn find(named: &[OsString], out: &Path) -> Inputs {
    let mut found = Inputs::default();
    let out = Results::below(out);
    for name in named {
        if name == "-" {
            let mut list = Vec::new();
            if let Err(e) = std::io::stdin().lock().read_to_end(&mut list) {
                found.sources.push(Source::refused("-", format!("standard input: {e}")));
            }
            for name in listed(&list) {
                found.add(&paths::from_bytes(name.to_vec()), Patterns::Literal, &out);
            }
        } else {
            found.add(name, Patterns::Expand, &out);
        }
    }
    found.drop_repeats();
    found.name_stems();
    found
}

/// The names in a list: one a line, or, where it has zero bytes, one before each of them.
fn listed(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = if list.contains(&0) { 0 } else { b'\n' };
    let trimmed = move |name| if end == 0 { name } else { <[u8]>::strip_suffix(name, b"\r").unwrap_or(name) };
    list.split(move |&b| b == end).map(trimmed).filter(|name| !name.trim_ascii().is_empty())
}

/// Whether `*`, `?` and `[` in a name that is no file mean something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patterns {
    Expand,
    Literal,
}

impl Inputs {
    fn add(&mut self, name: &OsStr, patterns: Patterns, out: &Results) {
        let path = PathBuf::from(name);
        let pattern = name.to_str().filter(|name| patterns == Patterns::Expand && name.contains(['*', '?', '[']));
        if path.is_dir() {
            self.add_folder(&path, &paths::shown(&path), out);
        } else if let Some(pattern) = pattern.filter(|_| !path.exists()) {
            self.add_pattern(pattern, out);
        } else {
            let relative = path.file_name().map_or_else(|| path.clone(), PathBuf::from);
            self.sources.push(Source::new(path, relative));
        }
    }

    fn add_folder(&mut self, folder: &Path, name: &str, out: &Results) {
        let before = self.sources.len();
        let ignored = self.ignored;
        let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        let among_results = out.surround(folder);
        for entry in walk.filter_entry(|e| e.depth() == 0 || !(e.file_type().is_dir() && out.are_all_of(e.path()))) {
            match entry {
                Err(e) => {
                    let at = e.path().map_or_else(|| name.to_string(), paths::shown);
                    self.sources.push(Source::refused(&at, e.to_string()));
                }
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if among_results && out.name(entry.path()) => {}
                Ok(entry) => {
                    let path = entry.into_path();
                    let known = extension(&path).is_some_and(|e| PICTURES.contains(&e.as_str()));
                    if known || ArrayFile::is_array(&path) {
                        let relative = path.strip_prefix(folder).unwrap_or(&path).to_owned();
                        self.sources.push(Source::new(path, relative));
                    } else {
                        self.ignored += 1;
                    }
                }
            }
        }
        if self.sources.len() == before {
            let others = self.ignored - ignored;
            let why = format!("{name}: the folder has no picture and no array ({others} other files)");
            self.sources.push(Source::refused(name, why));
        }
    }

    fn add_pattern(&mut self, pattern: &str, out: &Results) {
        let before = self.sources.len();
        // Results keep their paths below the last folder that is spelled out.
        let literal: PathBuf = Path::new(pattern)
            .components()
            .take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']))
            .collect();
        let among_results = out.surround(&literal);
        let is_result = |path: &Path| if among_results { out.name(path) } else { out.surround(path) };
        match glob::glob(pattern) {
            Err(e) => self.sources.push(Source::refused(pattern, format!("{pattern}: {e}"))),
            Ok(paths) => {
                for path in paths {
                    match path {
                        Ok(path) if path.is_dir() => {}
                        Ok(path) if is_result(&path) => {}
                        Ok(path) => {
                            let relative = path.strip_prefix(&literal).unwrap_or(&path).to_owned();
                            self.sources.push(Source::new(path, relative));
                        }
                        Err(e) => {
                            let at = paths::shown(e.path());
                            self.sources.push(Source::refused(&at, e.to_string()));
                        }
                    }
                }
                if self.sources.len() == before {
                    let why = format!("{pattern}: no file has such a name");
                    self.sources.push(Source::refused(pattern, why));
                }
            }
        }
    }

    /// A file that is named twice is explained once.
    fn drop_repeats(&mut self) {
        let mut seen = HashSet::new();
        self.sources.retain(|s| seen.insert(s.path.canonicalize().unwrap_or_else(|_| s.path.clone())));
    }

    /// Stems that do not collide: equal ones keep their extension, and if that does not help they are numbered.
    fn name_stems(&mut self) {
        let clean =
            |path: &Path| -> PathBuf { path.components().filter(|c| matches!(c, Component::Normal(_))).collect() };
        let full: Vec<PathBuf> = self.sources.iter().map(|s| clean(&s.relative)).collect();
        let bare: Vec<PathBuf> = full.iter().map(|p| p.with_extension("")).collect();
        let count = |paths: &[PathBuf]| {
            let mut times: HashMap<PathBuf, usize> = HashMap::new();
            paths.iter().for_each(|p| *times.entry(p.clone()).or_default() += 1);
            times
        };
        let times = count(&bare);
        let arrays: HashSet<PathBuf> = (self.sources.iter().zip(bare.iter().zip(&full)))
            .filter(|(source, _)| source.is_array())
            .flat_map(|(_, (bare, full))| [bare.clone(), full.clone()])
            .collect();
        // Pictures of an array's rows are named by its stem and the number of the row.
        let is_row = |stem: &Path| {
            let number = stem.extension().is_some_and(|e| e.as_encoded_bytes().iter().all(u8::is_ascii_digit));
            number && arrays.contains(&stem.with_extension(""))
        };
        let free = |path: &Path| times.get(path) == Some(&1) && !is_row(path);
        let mut taken: HashSet<PathBuf> = bare.iter().filter(|p| free(p)).cloned().collect();
        for ((source, bare), full) in self.sources.iter_mut().zip(&bare).zip(full) {
            if free(bare) {
                source.stem.clone_from(bare);
                continue;
            }
            let numbered = |n: usize| {
                let mut name = full.clone().into_os_string();
                name.push(format!("-{n}"));
                PathBuf::from(name)
            };
            let free = std::iter::once(full.clone()).chain((2..).map(numbered));
            let free = free.into_iter().find(|p| !taken.contains(p) && !is_row(p));
            source.stem = free.unwrap_or(full);
            taken.insert(source.stem.clone());
        }
    }
}

/// Whether `source` belongs to `shard`: the same on every machine that gives the same relative path.
pub fn belongs(source: &Source, shard: Shard) -> bool {
    let text = source.relative.to_string_lossy().replace('\\', "/");
    let digest = Sha256::digest(text.as_bytes());
    let hash = digest.iter().take(8).fold(0u64, |n, &b| n << 8 | u64::from(b));
    hash % shard.of == shard.part - 1
}

/// The error for a source that was refused before it was opened, or that does not exist.
pub fn usable(source: &Source) -> verilume::Result<()> {
    match &source.refused {
        Some(why) => Err(Error::input(why.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_end_names_with_lines_or_zeros() {
        assert_eq!(listed(b"a b\r\n\nc").collect::<Vec<_>>(), [&b"a b"[..], b"c"]);
        assert_eq!(listed(b"a\nb\0c\r\0").collect::<Vec<_>>(), [&b"a\nb"[..], b"c\r"]);
    }

    #[test]
    fn equal_stems_keep_their_extension() {
        let source = |path: &str, relative: &str| Source::new(path.into(), relative.into());
        let mut inputs = Inputs {
            sources: vec![
                source("a/x.png", "x.png"),
                source("a/x.jpg", "x.jpg"),
                source("b/x.png", "x.png"),
                source("c/y.v1.png", "sub/y.v1.png"),
                source("d/z.npy", "z.npy"),
                source("d/z.0.png", "z.0.png"),
                source("d/z.one.png", "z.one.png"),
            ],
            ignored: 0,
        };
        inputs.name_stems();
        let stems: Vec<_> = inputs.sources.iter().map(|s| s.stem.to_str().unwrap()).collect();
        assert_eq!(stems, ["x.png", "x.jpg", "x.png-2", "sub/y.v1", "z", "z.0.png", "z.one"]);
    }
}
