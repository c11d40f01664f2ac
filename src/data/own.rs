//! Finds results of this program among the files, so that later runs do not take them as inputs.
//!
//! A folder of results is recognised by its manifest or records. A result in it is recognised by the records, and by
//! the file `.results.jsonl`, to which each run writes what it is about to produce. That file outlives records that a
//! later run replaces, keeps the names of those records' files, and also covers what a killed run left.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::{Error, Result, open_file, regular_or_free};
use crate::report::{About, Journal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arrays::extension;
use super::paths;

/// The file in which runs announce their results.
const LEDGER: &str = ".results.jsonl";
/// The files by which a folder of results is recognised, except those of shards.
const USUAL: [&str; 6] = [LEDGER, "manifest.json", "records.jsonl", "check.json", "eval.jsonl", "summary.json"];
/// Bytes of a file that are read to identify its author.
const HEAD_BYTES: u64 = 64 << 20;

/// A line of the ledger: results are named by a stem and the id of a method or attack.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LedgerLine {
    command: String,
    stems: Vec<String>,
    ids: Vec<String>,
    /// Inputs whose names look like results.
    inputs: Vec<String>,
    /// Files that had the name of a result before the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    foreign: Vec<String>,
}

/// A line of the ledger about files whose record a later run has replaced.
#[derive(Debug, Serialize, Deserialize)]
struct LeftLine {
    left: About,
}

/// The contents of a folder's ledger, by command.
#[derive(Debug, Default)]
struct LedgerNames {
    stems: HashSet<String>,
    ids: HashSet<String>,
}

/// The fields of a journal line that matter here, for every command.
#[derive(Deserialize)]
struct Written {
    /// Only attacks have it.
    attack: Option<String>,
    #[serde(default)]
    files: Vec<String>,
}

/// A folder that may hold results.
#[derive(Debug, Default)]
struct SearchedFolder {
    /// Whether all its files were examined, not just those with the usual names.
    listed: bool,
    /// Whether it contains a manifest or records of this program.
    ours: bool,
    /// Whether it is the output folder of this run or inside it.
    out: bool,
    /// Results named by journals, by path relative to the folder, and whether an attack made them.
    files: HashMap<PathBuf, bool>,
    names: HashMap<String, LedgerNames>,
    /// Files that have a result's name but are not results.
    others: HashSet<String>,
}

/// The origin of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultMaker {
    /// Whether it is an attacked picture rather than a map.
    pub attacked: bool,
    /// Whether it is in this run's output folder.
    pub out: bool,
}

/// Distinguishes results from inputs.
pub struct Own {
    out: Option<PathBuf>,
    folders: RefCell<HashMap<PathBuf, Rc<SearchedFolder>>>,
}

impl Own {
    /// For a run that writes to `out`.
    pub fn new(out: &Path) -> Self {
        Self { out: out.canonicalize().ok(), folders: RefCell::default() }
    }

    /// Whether `folder` is this run's output folder.
    pub fn is_out(&self, folder: &Path) -> bool {
        self.out.is_some() && folder.canonicalize().ok() == self.out
    }

    /// Whether `folder` holds a manifest or records of this program.
    pub fn holds_results(&self, folder: &Path) -> bool {
        self.folder(&paths::full(folder), true).ours
    }

    /// Whether `path` is one of the files in which this program records the results of a folder.
    pub fn is_book(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of = |stem: &str, end: &str| name.starts_with(stem) && name.ends_with(end);
        let lock = name == ".check.lock" || name == ".eval.lock" || of(".records.", "lock");
        let book =
            USUAL.contains(&&*name) || name == "check.html" || of("records.", ".jsonl") || of("manifest.", ".json");
        lock || name == LEDGER || book && path.parent().is_some_and(|folder| self.holds_results(folder))
    }

    /// The origin of result `path`; `None` for any other file.
    pub fn result(&self, path: &Path) -> Option<ResultMaker> {
        let suits = extension(path).is_some_and(|e| ["png", "npy", "safetensors"].contains(&e.as_str()));
        if !suits {
            return None;
        }
        if is_fitted(path) {
            return Some(ResultMaker { attacked: false, out: false });
        }
        let path = paths::full(path);
        path.ancestors().skip(1).find_map(|above| {
            let folder = self.folder(above, false);
            let attacked = folder.names(path.strip_prefix(above).ok()?)?;
            Some(ResultMaker { attacked, out: folder.out })
        })
    }

    fn folder(&self, folder: &Path, listed: bool) -> Rc<SearchedFolder> {
        if let Some(known) = self.folders.borrow().get(folder).filter(|known| known.listed >= listed) {
            return known.clone();
        }
        let mut found = SearchedFolder::open(folder, listed);
        found.out = found.ours
            && (self.out.as_ref()).is_some_and(|out| folder.canonicalize().is_ok_and(|f| f.starts_with(out)));
        let found = Rc::new(found);
        self.folders.borrow_mut().insert(folder.to_owned(), found.clone());
        found
    }
}

impl SearchedFolder {
    fn open(path: &Path, listed: bool) -> Self {
        let mut found = Self { listed, ..Self::default() };
        let names: Vec<String> = if listed {
            let entries = path.read_dir().into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        } else {
            USUAL.iter().filter(|name| path.join(name).is_file()).map(|&name| name.to_owned()).collect()
        };
        for name in names {
            let file = path.join(&name);
            let of = |stem: &str, end: &str| name.starts_with(stem) && name.ends_with(end);
            if of("manifest.", ".json") || name == "check.json" || name == "summary.json" {
                found.ours |= is_manifest(&file);
            } else if name == "eval.jsonl" {
                found.ours |= is_journal(&file);
            } else if of("records.", ".jsonl") && is_journal(&file) {
                found.ours = true;
                for line in Journal::read::<Written>(&file).unwrap_or_default() {
                    let place = |name: &String| Some((place(path, &paths::named(name))?, line.attack.is_some()));
                    found.files.extend(line.files.iter().filter_map(place));
                }
            } else if name == LEDGER {
                for entry in ledger::<LedgerLine>(&file) {
                    found.ours = true;
                    let names = found.names.entry(entry.command).or_default();
                    names.stems.extend(entry.stems);
                    names.ids.extend(entry.ids);
                    found.others.extend(entry.inputs);
                    found.others.extend(entry.foreign);
                }
            }
        }
        found
    }

    /// If `path`, relative to the folder, has a result's name: whether an attack made it. Else `None`.
    fn names(&self, path: &Path) -> Option<bool> {
        if let Some(&attacked) = self.files.get(path) {
            return Some(attacked);
        }
        let text = paths::shown(path);
        if self.others.contains(&text) {
            return None;
        }
        let suits =
            |names: &LedgerNames| is_named(&text, |stem| names.stems.contains(stem), |id| names.ids.contains(id));
        self.names.iter().find_map(|(command, names)| suits(names).then(|| command == "attack"))
    }
}

/// Whether `text` is a stem followed by a valid ending.
fn is_named(text: &str, is_stem: impl Fn(&str) -> bool, is_id: impl Fn(&str) -> bool) -> bool {
    text.match_indices('.').any(|(dot, _)| is_stem(&text[..dot]) && is_end(&text[dot + 1..], &is_id))
}

/// Whether `text` is a valid ending: row number, id, class or rank, `heatmap`, extension.
fn is_end(text: &str, is_id: impl Fn(&str) -> bool) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = text.split('.').peekable();
    let _row = parts.next_if(|part| digits(part));
    let id = parts.next().is_some_and(is_id);
    let _class = parts.next_if(|part| digits(part.strip_prefix("top").unwrap_or(part)));
    let _kind = parts.next_if_eq(&"heatmap");
    id && parts.next().is_some() && parts.next().is_none()
}

/// Path relative to `folder` of `file`, as named in a journal. The journal's run may have had another working folder,
/// and the folder may have been moved since.
fn place(folder: &Path, file: &Path) -> Option<PathBuf> {
    let file = paths::full(file);
    if let Ok(below) = file.strip_prefix(folder) {
        return Some(below.to_owned());
    }
    let mut parts = file.components();
    while parts.next().is_some() {
        let below = parts.as_path();
        if !below.as_os_str().is_empty() && folder.join(below).is_file() {
            return Some(below.to_owned());
        }
    }
    None
}

fn head(path: &Path) -> Option<BufReader<std::io::Take<File>>> {
    Some(BufReader::new(open_file(path).ok()?.take(HEAD_BYTES)))
}

/// Whether a JSON file states a version of this program and a net.
fn is_manifest(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct ModelHash {
        sha256: String,
    }
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "version")]
        _version: String,
        model: ModelHash,
    }
    let read = head(path).and_then(|head| serde_json::from_reader::<_, Head>(head).ok());
    read.is_some_and(|head| head.model.sha256.len() == 64)
}

/// Whether the first line of a file is a record of this program.
fn is_journal(path: &Path) -> bool {
    let mut line = Vec::new();
    let read = head(path).is_some_and(|mut head| head.read_until(b'\n', &mut line).is_ok());
    let record = serde_json::from_slice::<serde_json::Value>(&line).unwrap_or_default();
    let has = |key: &str| record.get(key).is_some();
    let maps = (has("method") || has("attack")) && has("files") && has("seconds") && has("peak_bytes");
    read && has("input") && has("index") && has("error") && (maps || has("methods") && has("settings"))
}

/// Whether a file named like an input holds fitted patterns or a detector.
fn is_fitted(path: &Path) -> bool {
    extension(path).is_some_and(|e| e == "safetensors") && holds_fit(path)
}

/// Whether a file of any name holds fitted patterns or a detector.
pub fn holds_fit(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "__metadata__", default)]
        metadata: HashMap<String, String>,
    }
    let read = || {
        let mut file = head(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        serde_json::from_reader::<_, Head>(file.take(u64::from_le_bytes(length))).ok()
    };
    read().is_some_and(|head| head.metadata.keys().any(|key| key.starts_with("verilume.")))
}

/// The lines of a ledger that have the fields of `T`.
fn ledger<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let mut bytes = Vec::new();
    let read = open_file(path).is_ok_and(|mut file| file.read_to_end(&mut bytes).is_ok());
    let lines = bytes.split(|&b| b == b'\n').filter(|_| read);
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// An input whose results are announced.
pub struct Announced<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// The prefix of its results' names.
    pub stem: &'a Path,
    /// Whether it is a result of an earlier run.
    pub is_result: bool,
}

/// Records which results a run of `command` over `inputs` may leave in `out`, before there are any. Returns the files
/// there that have the name of a result, are not inputs, and were not made by any run.
///
/// # Errors
/// When the folder is not writable.
pub fn announce<'a>(
    out: &Path,
    command: &str,
    inputs: &[Announced<'_>],
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashSet<PathBuf>> {
    let path = out.join(LEDGER);
    regular_or_free(&path)?;
    // If another shard announces results at the same time, the worst case is that they are announced twice.
    let out = paths::full(out);
    let folder = SearchedFolder::open(&out, true);
    let none = LedgerNames::default();
    let before = folder.names.get(command).unwrap_or(&none);
    let ids: Vec<&str> = ids.collect();
    let now: HashSet<String> = inputs.iter().map(|input| paths::shown(input.stem)).collect();
    let new = |all: &mut dyn Iterator<Item = String>, known: &HashSet<String>| -> Vec<String> {
        let mut seen = HashSet::new();
        all.filter(|name| !known.contains(name) && seen.insert(name.clone())).collect()
    };
    let mut entry = LedgerLine {
        command: command.to_owned(),
        stems: new(&mut inputs.iter().map(|input| paths::shown(input.stem)), &before.stems),
        ids: new(&mut ids.iter().map(|&id| id.to_owned()), &before.ids),
        inputs: Vec::new(),
        foreign: Vec::new(),
    };
    // An input that has a result's name but is not one yet is spared for good.
    let is_stem = |stem: &str| before.stems.contains(stem) || now.contains(stem);
    let is_id = |id: &str| before.ids.contains(id) || ids.contains(&id);
    let below = inputs.iter().filter(|input| !input.is_result);
    let below = below.filter_map(|input| Some(paths::shown(paths::full(input.path).strip_prefix(&out).ok()?)));
    let named: Vec<String> = below.filter(|text| is_named(text, is_stem, is_id)).collect();
    let folders: HashSet<PathBuf> =
        inputs.iter().filter_map(|input| Some(out.join(input.stem).parent()?.to_owned())).collect();
    let mut foreign = HashMap::new();
    for file in folders.iter().flat_map(|folder| folder.read_dir().into_iter().flatten().flatten()) {
        let place = file.path();
        let Ok(below) = place.strip_prefix(&out) else { continue };
        let text = paths::shown(below);
        let is_result = is_named(&text, |stem| now.contains(stem), |id| ids.contains(&id));
        if is_result && !named.contains(&text) && folder.names(below).is_none() {
            foreign.insert(text, place);
        }
    }
    let is_new = |text: &String| !folder.others.contains(text);
    entry.foreign = foreign.keys().filter(|text| is_new(text)).cloned().collect();
    entry.foreign.sort();
    entry.inputs = named.into_iter().filter(is_new).collect();
    let foreign = foreign.into_values().collect();
    if [&entry.stems, &entry.ids, &entry.inputs, &entry.foreign].iter().all(|all| all.is_empty()) {
        return Ok(foreign);
    }
    append(&path, &[entry])?;
    Ok(foreign)
}

/// The files that stay in `out` although a later run replaced their records, as their lines had them.
pub fn left_behind(out: &Path) -> Vec<About> {
    ledger::<LeftLine>(&out.join(LEDGER)).into_iter().map(|line| line.left).collect()
}

/// Notes that the files of these lines stay in `out`, whose records are about to be replaced.
///
/// # Errors
/// When the folder is not writable.
pub fn leave_behind(out: &Path, lines: Vec<About>) -> Result<()> {
    let path = out.join(LEDGER);
    regular_or_free(&path)?;
    let known: HashSet<About> = left_behind(out).into_iter().collect();
    let new = lines.into_iter().filter(|about| !known.contains(about));
    append(&path, &new.map(|left| LeftLine { left }).collect::<Vec<_>>())
}

/// Appends lines to a ledger.
fn append(path: &Path, entries: &[impl Serialize]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    // A line cut off by a killed run must not merge with the first one.
    let mut lines = vec![b'\n'];
    for entry in entries {
        lines.extend(serde_json::to_vec(entry).map_err(|e| Error::settings(format!("{LEDGER}: {e}")))?);
        lines.push(b'\n');
    }
    let fail = |e| Error::io(path, e);
    let mut file = File::options().create(true).append(true).open(path).map_err(fail)?;
    file.write_all(&lines).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_results() {
        let end = |text: &str| is_end(text, |id| id == "grad_cam" || id == "grid");
        for text in
            ["grad_cam.png", "3.grad_cam.npy", "grad_cam.281.heatmap.png", "grad_cam.top2.safetensors", "0.grid.png"]
        {
            assert!(end(text), "{text}");
        }
        for text in ["png", "grad_cam", "lrp.png", "grad_cam.x.png", "a.grad_cam.png", "grad_cam.281.png.png"] {
            assert!(!end(text), "{text}");
        }
    }

    #[test]
    fn a_file_that_no_run_has_made_is_foreign_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let pictures = [out.join("un.png"), out.join("sub/x.png")];
        let announced = |path, stem| Announced { path, stem: Path::new(stem), is_result: false };
        let sources = [announced(&pictures[0], "un"), announced(&pictures[1], "sub/x")];
        let foreign = |command: &str, id: &str| {
            let mut names: Vec<String> = announce(out, command, &sources, [id].into_iter())
                .unwrap()
                .iter()
                .map(|path| paths::shown(path.strip_prefix(paths::full(out)).unwrap()))
                .collect();
            names.sort();
            names
        };
        std::fs::create_dir(out.join("sub")).unwrap();
        for name in ["un.gradient.npy", "sub/x.gradient.281.png", "other.gradient.png", "un.png"] {
            std::fs::write(out.join(name), "precious").unwrap();
        }
        for _ in 0..2 {
            assert_eq!(foreign("explain", "gradient"), ["sub/x.gradient.281.png", "un.gradient.npy"]);
        }
        // A file written after its announcement is a result.
        std::fs::write(out.join("un.gradient.png"), "map").unwrap();
        assert_eq!(foreign("explain", "gradient").len(), 2);
        assert!(Own::new(out).result(&out.join("un.gradient.png")).is_some());
        assert!(Own::new(out).result(&out.join("un.gradient.npy")).is_none());
        std::fs::write(out.join("un.fgsm.png"), "precious").unwrap();
        assert_eq!(foreign("attack", "fgsm"), ["un.fgsm.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_or_pipe_in_the_place_of_the_ledger_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (out, other) = (folder.path().join("out"), folder.path().join("other"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, out.join(LEDGER)).unwrap();
        let sources = [Announced { path: Path::new("x.png"), stem: Path::new("x"), is_result: false }];
        let announced = || announce(&out, "explain", &sources, ["gradient"].into_iter()).unwrap_err().to_string();
        assert!(announced().contains("not a regular file"));
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        std::fs::remove_file(out.join(LEDGER)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(out.join(LEDGER)).status().unwrap().success());
        assert!(announced().contains("not a regular file"));
    }

    #[test]
    fn a_file_of_another_program_is_no_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let ours = |text: &str| {
            let path = folder.path().join("manifest.json");
            std::fs::write(&path, text).unwrap();
            is_manifest(&path)
        };
        assert!(ours(&format!(r#"{{"version": "0.1.0", "model": {{"name": "x", "sha256": "{}"}}}}"#, "0".repeat(64))));
        for text in [r#"{"name": "page", "version": "1"}"#, r#"{"version": "1", "model": "x"}"#, "[]", "", "no JSON"] {
            assert!(!ours(text), "{text}");
        }
    }
}
