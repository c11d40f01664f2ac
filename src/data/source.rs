//! From command-line arguments to the list of files to explain and the names of their results.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::error::Error;
use crate::report::Stamp;
use ::image::ImageFormat;
use glob::{MatchOptions, Pattern};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use walkdir::{DirEntry, WalkDir};

use super::arrays::{ArrayFile, extension};
use super::files;
use super::lists;
use super::own::Own;
use super::paths;
use super::room::Room;
use crate::text::counted;

/// Extensions of pictures besides those listed by the codecs.
const OTHER_PICTURES: [&str; 4] = ["jpe", "jfi", "jif", "dib"];
/// Most names listed in a sentence.
const NAMED: usize = 3;

/// One file to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its location.
    pub path: PathBuf,
    /// Its path in records and messages.
    pub shown: String,
    /// Its path relative to the folder or pattern that led to it; for a file given by name, its full normal path.
    pub relative: PathBuf,
    /// Path relative to the output folder, with which the names of its results begin.
    pub stem: PathBuf,
    /// The file's stamp when it was found.
    pub stamp: Option<Stamp>,
    /// Why it cannot be used, if that is known before it is opened.
    pub refused: Option<String>,
    /// Whether it is a result of an earlier run and was given by name.
    pub is_result: bool,
    /// Number of trailing parts of its path that the results' names keep at least.
    kept: usize,
}

impl Source {
    /// A file found in a folder or by a pattern.
    fn found(path: PathBuf, relative: PathBuf) -> Self {
        let kept = relative.components().count().max(1);
        Self { relative, kept, ..Self::named(path) }
    }

    /// A file given by name.
    pub fn named(path: PathBuf) -> Self {
        let target = path.read_link().ok().filter(|_| !path.exists());
        let shown = paths::shown(&path);
        Self {
            refused: target.map(|to| format!("{shown}: the link leads nowhere (to {})", paths::shown(&to))),
            shown,
            relative: paths::normal(&path),
            stem: PathBuf::new(),
            stamp: Stamp::of(&path),
            path,
            is_result: false,
            kept: 1,
        }
    }

    fn refused(name: &str, why: String) -> Self {
        Self { refused: Some(why), ..Self::named(PathBuf::from(name)) }
    }

    /// Whether it is an array of inputs, judged by its name.
    pub fn is_array(&self) -> bool {
        ArrayFile::is_array(&self.path)
    }
}

/// Everything named on the command line.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The files to explain, in order.
    pub sources: Vec<Source>,
    /// Files in folders that are neither pictures nor arrays.
    pub ignored: usize,
    /// The first of them.
    first_ignored: Vec<String>,
    /// Folders that hold results of this program.
    result_folders: Vec<String>,
    /// Results of earlier runs.
    results: usize,
    /// Links that lead back to a folder above them.
    loops: Vec<String>,
    /// Files that were named more than once.
    repeats: usize,
}

/// Finds the files. Results of this program are not taken from folders, patterns and lists. That excludes folders with
/// its manifest or records (except one given by name), files named in records, and anything in `out` below a folder
/// given by name. Lists keep to `room`.
pub fn find(named: &[OsString], out: &Path, room: Room) -> Inputs {
    let mut found = Inputs::default();
    let own = Own::new(out);
    for name in named {
        if name == "-" {
            let list = lists::read(&mut std::io::stdin().lock(), room);
            match list.and_then(|list| lists::names(&list)) {
                Ok(names) => names.iter().for_each(|name| found.add(name, By::List, &own)),
                Err(why) => found.sources.push(Source::refused("-", format!("standard input: {why}"))),
            }
        } else {
            found.add(name, By::Argument, &own);
        }
    }
    found.drop_repeats();
    found.name_stems();
    found
}

/// The origin of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// `*`, `?` and `[` in a name that is not a file are wildcards, and results are wanted.
    Argument,
    /// Names are literal; results are left out, as in folders.
    List,
}

/// Whether a name has the extension of a picture.
fn is_picture(path: &Path) -> bool {
    extension(path).is_some_and(|e| {
        ImageFormat::from_extension(&e).is_some_and(|format| format.reading_enabled())
            || OTHER_PICTURES.contains(&e.as_str())
    })
}

/// Whether a name is that of a file in which macOS stores metadata of another file or of a folder.
fn is_of_macos(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b"._") || name == b".DS_Store"
}

impl Inputs {
    fn add(&mut self, name: &OsStr, by: By, own: &Own) {
        let path = PathBuf::from(name);
        let pattern = name.to_str().filter(|name| by == By::Argument && name.contains(['*', '?', '[']));
        if path.is_dir() {
            self.add_folder(&path, &paths::shown(&path), own);
        } else if let Some(pattern) = pattern.filter(|_| !path.exists() && !path.is_symlink()) {
            self.add_pattern(pattern, own);
        } else {
            let is_result = own.result(&path).is_some();
            match by {
                By::List if is_of_macos(&path) => self.ignore(&path),
                By::List if is_result => self.results += 1,
                _ => self.sources.push(Source { is_result, ..Source::named(path) }),
            }
        }
    }

    fn ignore(&mut self, path: &Path) {
        self.ignored += 1;
        if self.first_ignored.len() < NAMED {
            self.first_ignored.push(paths::shown(path));
        }
    }

    /// Whether to descend into a folder that was not given by name.
    fn enters(&mut self, folder: &Path, own: &Own) -> bool {
        let is_out = own.is_out(folder);
        if own.holds_results(folder) || is_out && folder.read_dir().is_ok_and(|entries| entries.flatten().any(shows)) {
            self.result_folders.push(paths::shown(folder));
            return false;
        }
        !is_out
    }

    /// Adds a file found in a folder or by a pattern, unless it is a result. Attacked pictures are results that may be
    /// wanted: only those in the output folder are left out, since no other result folder is entered unless given by
    /// name.
    fn take(&mut self, path: PathBuf, relative: PathBuf, own: &Own) {
        if own.result(&path).is_some_and(|result| !result.attacked || result.out) {
            self.results += 1;
        } else {
            self.sources.push(Source::found(path, relative));
        }
    }

    /// The files below `folder`, ordered by name. Links are followed, except those that lead back.
    fn walk(&mut self, folder: &Path, own: &Own) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let enters = |found: &mut Self, entry: &DirEntry| {
            entry.depth() == 0 || !entry.file_type().is_dir() || found.enters(entry.path(), own)
        };
        let mut walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            match entry {
                Ok(entry) if !enters(self, &entry) => walk.skip_current_dir(),
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => files.push(entry.into_path()),
                Err(e) => match e.path() {
                    Some(path) if e.loop_ancestor().is_some() => self.loops.push(paths::shown(path)),
                    Some(path) if path.is_symlink() => files.push(path.to_owned()),
                    path => {
                        let at = paths::shown(path.unwrap_or(folder));
                        self.sources.push(Source::refused(&at, e.to_string()));
                    }
                },
            }
        }
        files
    }

    fn add_folder(&mut self, folder: &Path, name: &str, own: &Own) {
        let (sources, ignored, results) = (self.sources.len(), self.ignored, self.results);
        let files = self.walk(folder, own);
        // Checked after the files: another shard writing here announces its results before they exist.
        own.holds_results(folder);
        for path in files {
            // A dangling link may have pointed to a folder; a hidden one is an editor's lock.
            let dangles = path.is_symlink() && !path.exists();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let suits = if dangles { !hidden } else { is_picture(&path) || ArrayFile::is_array(&path) };
            if suits && !is_of_macos(&path) {
                let relative = path.strip_prefix(folder).unwrap_or(&path).to_owned();
                self.take(path, relative, own);
            } else if !own.is_book(&path) {
                self.ignore(&path);
            }
        }
        if self.sources.len() == sources {
            let others = self.ignored - ignored;
            let results = match self.results - results {
                0 => String::new(),
                n => format!(", {} of earlier runs", counted(n, "result")),
            };
            let why = format!("{name}: the folder has no picture and no array ({others} other files{results})");
            self.sources.push(Source::refused(name, why));
        }
    }

    fn add_pattern(&mut self, pattern: &str, own: &Own) {
        let before = [self.sources.len(), self.results];
        match self.expand(pattern, own) {
            Err(e) => self.sources.push(Source::refused(pattern, format!("{pattern}: {e}"))),
            Ok((literal, paths)) => {
                for path in paths {
                    let relative = path.strip_prefix(&literal).unwrap_or(&path).to_owned();
                    self.take(path, relative, own);
                }
                if [self.sources.len(), self.results] == before {
                    let why = format!("{pattern}: no file matches this pattern");
                    self.sources.push(Source::refused(pattern, why));
                }
            }
        }
    }

    /// The files that match a pattern, and its last literal folder: results keep their paths relative to it. If a part
    /// of the pattern exists as a name, it is taken literally.
    fn expand(&mut self, pattern: &str, own: &Own) -> Result<(PathBuf, Vec<PathBuf>), glob::PatternError> {
        let (mut literal, mut spelled) = (PathBuf::new(), true);
        let mut places = vec![PathBuf::new()];
        let parts: Vec<Component> = Path::new(pattern).components().collect();
        for (i, part) in parts.iter().enumerate() {
            let text = part.as_os_str().to_string_lossy();
            let is_last = i + 1 == parts.len();
            let is_pattern = text.contains(['*', '?', '[']);
            let mut next = Vec::new();
            for place in places {
                let named = place.join(part);
                if !is_pattern || named.symlink_metadata().is_ok() {
                    next.push(named);
                    continue;
                }
                spelled = false;
                if text == "**" {
                    next.extend(self.folders(&place, own));
                } else {
                    next.extend(self.matching(&place, &Pattern::new(&text)?, is_last, own));
                }
            }
            places = next;
            if spelled {
                literal.push(part);
            }
        }
        // Two `**` can match a file in several ways.
        let mut seen = HashSet::new();
        places.retain(|place| place.symlink_metadata().is_ok() && !place.is_dir() && seen.insert(place.clone()));
        Ok((literal, places))
    }

    /// `place` and all folders below it.
    fn folders(&mut self, place: &Path, own: &Own) -> Vec<PathBuf> {
        let mut folders = vec![place.to_owned()];
        let mut walk = WalkDir::new(here(place)).min_depth(1).follow_links(true).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            match entry {
                Ok(entry) if !entry.file_type().is_dir() => {}
                Ok(entry) if !self.enters(entry.path(), own) => walk.skip_current_dir(),
                Ok(entry) => {
                    let below = entry.path().strip_prefix(here(place)).unwrap_or(entry.path());
                    folders.push(place.join(below));
                }
                Err(e) => match e.path() {
                    Some(path) if e.loop_ancestor().is_some() => self.loops.push(paths::shown(path)),
                    // The rest of the pattern says whether a dangling link is wanted.
                    Some(path) if path.is_symlink() => {}
                    path => {
                        let at = paths::shown(path.unwrap_or(place));
                        self.sources.push(Source::refused(&at, e.to_string()));
                    }
                },
            }
        }
        folders
    }

    /// The entries of `place` that match: files if this is the last part of the pattern, else folders.
    fn matching(&mut self, place: &Path, pattern: &Pattern, is_last: bool, own: &Own) -> Vec<PathBuf> {
        let entries = match here(place).read_dir() {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Vec::new();
            }
            Err(e) => {
                self.sources.push(Source::refused(&paths::shown(place), Error::io(place, e).to_string()));
                return Vec::new();
            }
        };
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names.retain(|name| pattern.matches_with(&name.to_string_lossy(), MatchOptions::new()));
        let mut matching = Vec::new();
        for name in names {
            let path = place.join(&name);
            match (path.is_dir(), is_last) {
                (true, false) if self.enters(&path, own) => matching.push(path),
                (false, true) if is_of_macos(&path) && !pattern.as_str().starts_with('.') => self.ignore(&path),
                (false, true) => matching.push(path),
                _ => {}
            }
        }
        matching
    }

    /// Explains a path that is named twice only once. Two links to one file are two paths.
    fn drop_repeats(&mut self) {
        let before = self.sources.len();
        let mut seen = HashSet::new();
        self.sources.retain(|s| seen.insert(paths::normal(&s.path)));
        self.repeats += before - self.sources.len();
    }

    /// Chooses stems that do not collide. Paths with equal endings keep as many folders as needed to distinguish them;
    /// equal stems in one folder keep their extension and, if that is not enough, get numbers. Long stems are cut.
    fn name_stems(&mut self) {
        let ends = self.told_apart();
        let full: Vec<PathBuf> = ends.iter().map(|path| files::fitting(path)).collect();
        let bare: Vec<PathBuf> = ends.iter().map(|path| files::fitting(&path.with_extension(""))).collect();
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
        // Result names of an array's rows consist of its stem and the row number.
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
    /// For each source, the part of its path that distinguishes it from all others.
    fn told_apart(&self) -> Vec<PathBuf> {
        let normal = |part: &Component| matches!(part, Component::Normal(_));
        let whole = |source: &Source| -> PathBuf {
            let path = paths::normal(&source.path);
            // Folders above the working folder have names too.
            let path = if path.starts_with("..") { paths::full(&path) } else { path };
            path.components().filter(normal).collect()
        };
        let whole: Vec<PathBuf> = self.sources.iter().map(whole).collect();
        let mut kept: Vec<usize> = self.sources.iter().map(|s| s.kept).collect();
        let end = |path: &PathBuf, kept: usize| -> PathBuf {
            path.components().skip(path.components().count().saturating_sub(kept)).collect()
        };
        loop {
            let mut alike: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
            whole.iter().enumerate().for_each(|(i, path)| alike.entry(end(path, kept[i])).or_default().push(i));
            let mut longer = false;
            for i in alike.into_values().filter(|alike| alike.len() > 1).flatten() {
                if kept[i] < whole[i].components().count() {
                    kept[i] += 1;
                    longer = true;
                }
            }
            if !longer {
                return whole.iter().zip(kept).map(|(path, kept)| end(path, kept)).collect();
            }
        }
    }

    /// What was left out, one sentence each.
    pub fn left_out(&self) -> Vec<String> {
        let some = |names: &[String], all: usize| {
            let more = if all > names.len().min(NAMED) { ", …" } else { "" };
            format!("{}{more}", names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "))
        };
        let mut said = Vec::new();
        match self.ignored {
            0 => {}
            1 => said.push(format!(
                "1 file that is neither a picture nor an array is left out: {}",
                some(&self.first_ignored, 1)
            )),
            n => said.push(format!(
                "{n} files that are neither pictures nor arrays are left out: {}",
                some(&self.first_ignored, n)
            )),
        }
        let be = |n: usize| if n == 1 { "is" } else { "are" };
        if !self.result_folders.is_empty() {
            let n = self.result_folders.len();
            let names = some(&self.result_folders, n);
            said.push(format!("{} with results of this program {} left out: {names}", counted(n, "folder"), be(n)));
        }
        if self.results > 0 {
            let n = self.results;
            said.push(format!("{} of earlier runs {} left out", counted(n, "result"), be(n)));
        }
        if !self.loops.is_empty() {
            let n = self.loops.len();
            let names = some(&self.loops, n);
            said.push(format!("{} back to a folder above {} left out: {names}", counted(n, "link"), be(n)));
        }
        if self.repeats > 0 {
            let n = self.repeats;
            let names = if n == 1 {
                "1 path that was named before is".into()
            } else {
                format!("{n} paths that were named before are")
            };
            said.push(format!("{names} taken once"));
        }
        match self.sources.iter().filter(|source| source.is_result).count() {
            0 => {}
            n => said.push(format!(
                "{} of the inputs {} of earlier runs",
                n,
                if n == 1 { "is a result" } else { "are results" }
            )),
        }
        said
    }
}

/// Whether a folder entry is not hidden.
fn shows(entry: std::fs::DirEntry) -> bool {
    !entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// The empty path is the working folder.
fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Part `part` of `of`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Number of this part.
    pub part: u64,
    /// Number of parts.
    pub of: u64,
}

impl Shard {
    /// Parses `i/n`.
    ///
    /// # Errors
    /// When `text` is not a shard; one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a shard; with n parts they are 1/n to n/n");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let (part, of) = (part.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if (1..=of).contains(&part) { Ok(Self { part, of }) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// Keeps the sources of `shard`. They are assigned by their paths relative to their common folder: the same files are
/// assigned alike on every machine, however they were named.
pub fn deal(sources: &mut Vec<Source>, shard: Shard) {
    let whole: Vec<PathBuf> = sources.iter().filter(|s| s.refused.is_none()).map(|s| paths::normal(&s.path)).collect();
    // A single file does not reveal the folder that it shares with others.
    let mut above = if whole.len() > 1 { whole[0].clone() } else { PathBuf::new() };
    for path in &whole {
        while path == &above || !path.starts_with(&above) {
            above.pop();
        }
    }
    sources.retain(|source| {
        let path = paths::normal(&source.path);
        let below = path.strip_prefix(&above).unwrap_or(&path);
        let text: String = below.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/").nfc().collect();
        let digest = Sha256::digest(text.as_bytes());
        let hash = digest.iter().take(8).fold(0u64, |n, &b| n << 8 | u64::from(b));
        hash % shard.of == shard.part - 1
    });
}

/// The error of a source that was refused before it was opened, or that does not exist.
pub fn usable(source: &Source) -> crate::error::Result<()> {
    match &source.refused {
        Some(why) => Err(Error::input(why.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(mut inputs: Inputs) -> Vec<String> {
        inputs.name_stems();
        inputs.sources.iter().map(|s| s.stem.to_str().unwrap().to_owned()).collect()
    }

    fn found(path: &str, relative: &str) -> Source {
        Source::found(path.into(), relative.into())
    }

    fn named(path: &str) -> Source {
        Source::named(path.into())
    }

    #[test]
    fn equal_stems_keep_their_extension() {
        let sources = vec![
            found("a/x.png", "x.png"),
            found("a/x.jpg", "x.jpg"),
            found("c/y.v1.png", "sub/y.v1.png"),
            found("d/z.npy", "z.npy"),
            found("d/z.0.png", "z.0.png"),
            found("d/z.one.png", "z.one.png"),
        ];
        let want = ["x.png", "x.jpg", "c/y.v1", "z", "z.0.png", "z.one"];
        assert_eq!(stems(Inputs { sources, ..Inputs::default() }), want);
    }

    #[test]
    fn stems_keep_the_folders_that_tell_them_apart() {
        let sources = ["p1/img.png", "./p2/img.png", "p2/other.png", "p2/img.jpg", "q/p1/img.png"].map(named).into();
        assert_eq!(stems(Inputs { sources, ..Inputs::default() }), ["p1/img", "p2/img", "other", "img", "q/p1/img"]);
        let sources = vec![found("a/1.png", "1.png"), found("b/1.png", "1.png"), found("b/s/2.png", "s/2.png")];
        assert_eq!(stems(Inputs { sources, ..Inputs::default() }), ["a/1", "b/1", "s/2"]);
    }

    #[test]
    fn long_stems_are_cut_and_stay_different() {
        let names = ["a".repeat(251), "a".repeat(250), format!("{}b", "a".repeat(250)), "漢".repeat(83)];
        let sources = names.iter().map(|name| named(&format!("{name}.png"))).collect();
        let stems = stems(Inputs { sources, ..Inputs::default() });
        assert_eq!(stems.iter().collect::<HashSet<_>>().len(), 4);
        assert!(stems.iter().all(|stem| stem.len() <= files::STEM_BYTES), "{stems:?}");
    }

    #[test]
    fn shards_do_not_ask_how_a_file_was_named() {
        let shard = |sources: &[Source]| -> Vec<u64> {
            let part = |source: &Source| {
                (1..=5).find(|&part| {
                    let mut dealt = sources.to_vec();
                    deal(&mut dealt, Shard { part, of: 5 });
                    dealt.contains(source)
                })
            };
            sources.iter().map(|source| part(source).unwrap()).collect()
        };
        let paths = ["p1/img.png", "p2/img.png", "p3/a/img.png", "p4/img.png", "p4/e\u{301}.png"];
        let want = shard(&paths.map(|path| found(&format!("in/{path}"), path)));
        assert!(want.iter().collect::<HashSet<_>>().len() > 1);
        let here = std::env::current_dir().unwrap();
        for way in ["", "./", "in/", "./in/../in/", "/mnt/other/", &format!("{}/", here.display())] {
            assert_eq!(shard(&paths.map(|path| named(&format!("{way}{path}")))), want, "{way}");
        }
        assert_eq!(shard(&paths.map(|path| named(&format!("in/{path}").replace("e\u{301}", "\u{e9}")))), want);
        assert_eq!(shard(&[named("p1/img.png")]), want[..1]);
    }

    #[test]
    fn shards() {
        assert_eq!(Shard::parse("2/3"), Ok(Shard { part: 2, of: 3 }));
        assert!(["0/3", "4/3", "1/0", "1", "a/b"].iter().all(|t| Shard::parse(t).is_err()));
    }
}
