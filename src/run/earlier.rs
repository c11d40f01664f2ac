//! What earlier runs left in a folder of results: whose files are there, and which names are free.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::data::{Source, leave_behind, left_behind, paths};
use crate::error::{Error, Result, open_file};
use crate::method;
use crate::reliability::attack;
use crate::report::{About, Journal, JournalEntry, left_in, of_rows};
use crate::text::{counted, hex};

/// Takes the place of a method's id in a sheet's name.
pub const SHEET: &str = "grid";

/// Hash of a file's location; for a link, of the link, not of its target. `None` if it is unknown.
pub fn place_of(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().ok()?.join(path.file_name()?);
    Some(hex(&Sha256::digest(place.as_os_str().as_encoded_bytes())[..8]))
}

/// Finds the source that a journal line is about.
pub struct Finder<'a> {
    sources: &'a [Source],
    places: &'a [Option<String>],
    by_text: HashMap<&'a str, usize>,
    by_place: HashMap<&'a str, usize>,
}

impl<'a> Finder<'a> {
    /// Searches `sources`, whose locations are `places`.
    pub fn new(sources: &'a [Source], places: &'a [Option<String>]) -> Self {
        let by_text = sources.iter().enumerate().map(|(at, s)| (s.shown.as_str(), at)).collect();
        let by_place = places.iter().enumerate().filter_map(|(at, p)| Some((p.as_deref()?, at))).collect();
        Self { sources, places, by_text, by_place }
    }

    /// The source with the same path, if it is the same file, else the one at the same location.
    pub fn source(&self, about: &About) -> Option<usize> {
        if let Some(&at) = self.by_text.get(about.input.as_str()) {
            let same_place = match (&about.place, &self.places[at]) {
                (Some(then), Some(now)) => then == now,
                // A line from before locations were recorded.
                _ => true,
            };
            // The whole project may have been moved.
            if same_place || about.stamp.is_some() && about.stamp == self.sources[at].stamp {
                return Some(at);
            }
        }
        match &about.place {
            Some(place) => self.by_place.get(place.as_str()).copied(),
            None => self.by_place.get(place_of(&paths::named(&about.input))?.as_str()).copied(),
        }
    }
}

/// A folder of results.
pub struct Results {
    out: PathBuf,
}

/// A line's files, by path relative to the folder of results, if all exist with their recorded sizes.
pub type Standing = Option<Vec<String>>;

impl Results {
    /// The folder `out`, which exists.
    pub fn new(out: &Path) -> Self {
        Self { out: out.canonicalize().unwrap_or_else(|_| out.to_owned()) }
    }

    /// The files of a line without an error.
    pub fn standing(&self, about: &About) -> Standing {
        if about.error.is_some() || !about.bytes.is_empty() && about.bytes.len() != about.files.len() {
            return None;
        }
        self.each(about).collect()
    }

    /// For each file of a line, its path relative to the folder of results, if it exists with its recorded size.
    fn each<'f>(&'f self, about: &'f About) -> impl Iterator<Item = Option<String>> + 'f {
        let sizes = about.bytes.iter().map(|&n| Some(n)).chain(std::iter::repeat(None));
        about.files.iter().zip(sizes).map(|(file, size)| self.find(file, size, about.part.as_deref()))
    }

    /// Path relative to the folder of results of a file whose line may name it relative to another working directory.
    fn find(&self, file: &str, size: Option<u64>, part: Option<&str>) -> Option<String> {
        let path = paths::named(file);
        let suits = |path: &Path| {
            let is =
                |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && size.is_none_or(|size| m.len() == size));
            is(path) || part.is_some_and(|key| is(&of_rows(path, key)))
        };
        let below = |path: &Path| {
            let place = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
            Some(paths::shown(place.strip_prefix(&self.out).ok()?))
        };
        if let Some(name) = below(&path).filter(|_| suits(&path)) {
            return Some(name);
        }
        let mut rest = path.components();
        loop {
            let name = rest.as_path();
            if name.is_relative() && !name.as_os_str().is_empty() && suits(&self.out.join(name)) {
                return Some(paths::shown(name));
            }
            rest.next()?;
        }
    }

    /// The lines of all journals in the folder other than `own`.
    pub fn others(&self, own: &Path) -> Vec<About> {
        let entries = self.out.read_dir().into_iter().flatten().flatten();
        let journals = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("records.") && name.ends_with(".jsonl") && Some(&*entry.file_name()) != own.file_name()
        });
        // Damage is reported by the run that writes the journal.
        journals.flat_map(|journal| Journal::read(&journal.path()).unwrap_or_default()).collect()
    }
}

/// The journals of a folder.
pub struct Past<T> {
    /// The lines of the journal that this run continues.
    pub entries: Vec<JournalEntry<T>>,
    /// Their files.
    pub standing: Vec<Standing>,
    /// Lines of the folder's other journals, and lines that earlier runs dropped, and their files.
    others: Vec<(About, Vec<String>)>,
    /// Position in `others` of the first dropped line.
    dropped: usize,
}

impl<T: DeserializeOwned> Past<T> {
    /// Reads the journal `own`, in which this command's lines have the key `key`, and the folder's other journals.
    ///
    /// # Errors
    /// When `own` is damaged.
    pub fn read(results: &Results, own: &Path, key: &str) -> Result<Self> {
        let entries = Journal::entries(own)?;
        let has_key =
            |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok_and(|line| line.get(key).is_some());
        let damaged = |entry: &JournalEntry<T>| entry.line.is_none() && has_key(&entry.text);
        if let Some(at) = entries.iter().position(damaged) {
            let why = format!("{}: line {} is not a valid record; fix or delete it", own.display(), at + 1);
            return Err(Error::input(why));
        }
        let standing = entries.iter().map(|entry: &JournalEntry<T>| results.standing(&entry.about)).collect();
        let others = results.others(own).into_iter();
        let others = others.filter_map(|about| Some((results.standing(&about)?, about)));
        let mut others: Vec<_> = others.map(|(files, about)| (about, files)).collect();
        let dropped = others.len();
        let mut past = Self { entries, standing, others: Vec::new(), dropped };
        let recorded = past.standing.iter().flatten().chain(others.iter().map(|(_, files)| files)).flatten();
        let recorded: HashSet<&String> = recorded.collect();
        let left = left_behind(&results.out).into_iter().map(|about| {
            let files: Vec<String> = results.each(&about).flatten().filter(|file| !recorded.contains(file)).collect();
            (about, files)
        });
        let left: Vec<_> = left.filter(|(_, files)| !files.is_empty()).collect();
        others.extend(left);
        past.others = others;
        Ok(past)
    }

    fn lines(&self) -> impl Iterator<Item = (&About, &[String])> {
        let own = self.entries.iter().zip(&self.standing);
        let own = own.filter_map(|(entry, files)| Some((&entry.about, files.as_deref()?)));
        own.chain(self.others.iter().map(|(about, files)| (about, files.as_slice())))
    }

    /// The names in use that a run over `ids` might write.
    pub fn names<'a>(&'a self, ids: HashSet<&'a str>) -> StemsInUse<'a> {
        StemsInUse::new(self.lines(), ids)
    }

    /// Results of inputs that are not part of this run.
    pub fn of_others(&self, results: &Results, finder: &Finder) -> HashSet<PathBuf> {
        let lines = self.lines().filter(|(about, _)| finder.source(about).is_none());
        lines.flat_map(|(_, files)| files).map(|file| results.out.join(paths::named(file))).collect()
    }
}

/// The stems in use: for each, the lines with a file whose name begins with it.
pub struct StemsInUse<'a> {
    /// By stem: position of the line, and whether a row number follows.
    begun: HashMap<String, Vec<(usize, bool)>>,
    abouts: Vec<&'a About>,
    /// Ids of this run's methods or attacks.
    ids: HashSet<&'a str>,
}

/// The stem in a result's name and its author. The picture of a row also has the stem of its array.
struct ResultName<'f> {
    stem: &'f str,
    of_row: Option<&'f str>,
    id: &'f str,
}

impl<'f> ResultName<'f> {
    /// Parses `<stem>.<id>.<more>` or `<stem>.<row>.<id>.<more>`; the last part that can be an id is the id.
    fn of(file: &'f str) -> Option<Self> {
        let part = |dot: usize| file[dot + 1..].split('.').next().unwrap_or_default();
        let (dot, _) = file.rmatch_indices('.').find(|&(dot, _)| is_id(part(dot)))?;
        let stem = &file[..dot];
        let row = stem.rsplit_once('.').filter(|(_, row)| !row.is_empty() && row.bytes().all(|b| b.is_ascii_digit()));
        Some(Self { stem, of_row: row.map(|(array, _)| array), id: part(dot) })
    }
}

/// Whether a part of a name identifies the author: a method or an attack, numbered or not, or a sheet.
fn is_id(part: &str) -> bool {
    let numbered = part.rsplit_once('-').filter(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let id = numbered.map_or(part, |(id, _)| id);
    id == SHEET || method::registry().iter().any(|e| e.id == id) || attack::registry().iter().any(|e| e.id == id)
}

impl<'a> StemsInUse<'a> {
    /// Collects names from lines and their files; `ids` are this run's.
    pub fn new(lines: impl Iterator<Item = (&'a About, &'a [String])>, ids: HashSet<&'a str>) -> Self {
        let mut names = Self { begun: HashMap::new(), abouts: Vec::new(), ids };
        for (about, files) in lines {
            let at = names.abouts.len();
            names.abouts.push(about);
            for named in files.iter().filter_map(|file| ResultName::of(file)) {
                names.begun.entry(named.stem.to_owned()).or_default().push((at, false));
                let rows = named.of_row.map(|stem| names.begun.entry(stem.to_owned()).or_default());
                rows.into_iter().for_each(|lines| lines.push((at, true)));
            }
        }
        names
    }

    /// Whether this run may write `file` for this source.
    pub fn claims(&self, file: &str, source: &Source) -> bool {
        let stem = paths::shown(&source.stem);
        ResultName::of(file).is_some_and(|named| {
            let own = named.stem == stem || source.is_array() && named.of_row == Some(&stem);
            own && self.ids.contains(named.id)
        })
    }

    /// Renames stems of sources whose results would replace those of another input; returns what to report.
    pub fn keep_apart(&self, sources: &mut [Source], places: &[Option<String>]) -> Vec<String> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        let unnamed = sources.to_vec();
        let finder = Finder::new(&unnamed, places);
        let owners: Vec<Option<usize>> = self.abouts.iter().map(|about| finder.source(about)).collect();
        let mut taken: HashSet<PathBuf> = sources.iter().map(|s| s.stem.clone()).collect();
        let mut said = Vec::new();
        for (at, source) in sources.iter_mut().enumerate() {
            // A source that cannot be opened has no results.
            if source.refused.is_some() || source.path.metadata().is_err() {
                continue;
            }
            let is_array = source.is_array();
            let users = |stem: &Path| {
                let begun = self.begun.get(&paths::shown(stem)).into_iter().flatten();
                begun.filter(move |(_, row)| !row || is_array).map(|&(line, _)| line)
            };
            let first = source.stem.clone();
            let numbered = |n: usize| {
                let mut stem = first.clone().into_os_string();
                if n > 1 {
                    stem.push(format!("-{n}"));
                }
                PathBuf::from(stem)
            };
            let foreign = |stem: &Path| users(stem).find(|&line| owners[line] != Some(at));
            let Some(other) = foreign(&first) else {
                // A source that an earlier run renamed keeps its name.
                let own = (2..).map(numbered).take_while(|stem| users(stem).next().is_some());
                let mut own = own.filter(|stem| foreign(stem).is_none());
                if users(&first).next().is_none()
                    && let Some(stem) = own.next()
                    && taken.insert(stem.clone())
                {
                    source.stem = stem;
                }
                continue;
            };
            let free = |stem: &PathBuf| foreign(stem).is_none() && !taken.contains(stem);
            if let Some(stem) = (2..).map(numbered).find(free) {
                let [was, is] = [&first, &stem].map(|stem| paths::shown(stem));
                let other = &self.abouts[other].input;
                said.push(format!("{}: results of {other} are named {was} here; these are named {is}", source.shown));
                taken.insert(stem.clone());
                source.stem = stem;
            }
        }
        said
    }
}

/// Shortens a list of renamed sources to its first lines.
pub fn renamed(mut lines: Vec<String>) -> Vec<String> {
    const MOST: usize = 3;
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    lines.extend((more > 0).then(|| format!("and {} more are named otherwise", counted(more, "input"))));
    lines
}

/// Lines of earlier runs to keep, and the number of those to drop.
pub struct Stay {
    pub kept: Vec<Vec<u8>>,
    pub dropped: usize,
    /// Keys of partial raw files that these lines rely on.
    pub parts: HashSet<String>,
}

impl<T> Past<T> {
    /// Files in the folder without a record once only the lines `kept` remain, by location; files of this run's journal
    /// are noted in the ledger before their lines go.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn leave(&self, results: &Results, kept: &[Vec<u8>]) -> Result<HashSet<PathBuf>> {
        let kept: HashSet<&[u8]> = kept.iter().map(Vec::as_slice).collect();
        let (mut recorded, mut left, mut lines) = (HashSet::new(), HashSet::new(), Vec::new());
        for entry in &self.entries {
            let files: Vec<String> = results.each(&entry.about).flatten().collect();
            if kept.contains(entry.text.as_slice()) {
                recorded.extend(files);
            } else if !files.is_empty() {
                left.extend(files);
                lines.push(entry.about.clone());
            }
        }
        leave_behind(&results.out, lines)?;
        let (others, dropped) = self.others.split_at(self.dropped);
        recorded.extend(others.iter().flat_map(|(_, files)| files).cloned());
        left.extend(dropped.iter().flat_map(|(_, files)| files).cloned());
        Ok(left.difference(&recorded).map(|file| results.out.join(paths::named(file))).collect())
    }

    /// Keys of partial raw files that other journals rely on.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        self.others.iter().filter_map(|(about, _)| about.part.clone())
    }

    /// Sorts the lines for a command that starts over. `again` says whether a line about one of this run's inputs is
    /// about a result that will be recomputed.
    pub fn stay(&self, finder: &Finder, names: &StemsInUse, again: impl Fn(&JournalEntry<T>) -> bool) -> Stay {
        let mut stay = Stay { kept: Vec::new(), dropped: 0, parts: HashSet::new() };
        for (entry, standing) in self.entries.iter().zip(&self.standing) {
            let source = finder.source(&entry.about).map(|at| &finder.sources[at]);
            if source.is_some() && again(entry) {
                continue;
            }
            let replaced = |file: &String| source.is_some_and(|source| names.claims(file, source));
            let stands = |files: &Vec<String>| !files.iter().any(replaced);
            if entry.about.error.is_some() || standing.as_ref().is_some_and(stands) {
                stay.kept.push(entry.text.clone());
                stay.parts.extend(entry.about.part.clone());
            } else {
                stay.dropped += 1;
            }
        }
        stay
    }
}

/// Removes the partial files of killed runs from the folders that this run writes to, unless another run is working
/// there. Partial rows of arrays stay if their key is `needed`.
pub fn sweep(results: &Results, own_lock: &Path, sources: &[Source], needed: &HashSet<String>) {
    let mut folders: HashSet<PathBuf> = sources.iter().map(|s| results.out.join(&s.stem)).collect();
    folders = folders.iter().filter_map(|stem| Some(stem.parent()?.to_owned())).collect();
    folders.insert(results.out.clone());
    // Listed before the locks are checked: files of a run that starts later are not in the list.
    let left: Vec<PathBuf> = folders.iter().flat_map(|folder| left_in(folder)).collect();
    if left.is_empty() || someone_else(&results.out, own_lock) {
        return;
    }
    let is_needed = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        needed.iter().any(|key| name.ends_with(&format!(".{key}.rows.partial")))
    };
    for path in left.into_iter().filter(|path| !is_needed(path)) {
        // A file that cannot be removed does no harm.
        let _ = std::fs::remove_file(path);
    }
}

/// Whether another run holds, or may hold, a lock of this folder.
fn someone_else(out: &Path, own_lock: &Path) -> bool {
    let entries = out.read_dir().into_iter().flatten().flatten();
    let locks = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with('.') && name.ends_with(".lock") && Some(&*entry.file_name()) != own_lock.file_name()
    });
    locks.into_iter().any(|entry| match open_file(&entry.path()) {
        Ok(file) => file.try_lock().is_err(),
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_stem_row_and_method() {
        let of = |file: &'static str| ResultName::of(file).map(|n| (n.stem, n.of_row, n.id));
        assert_eq!(of("sub/x.gradient.npy"), Some(("sub/x", None, "gradient")));
        assert_eq!(of("x.gradient-2.281.heatmap.png"), Some(("x", None, "gradient-2")));
        assert_eq!(of("a.12.grad_cam.png"), Some(("a.12", Some("a"), "grad_cam")));
        assert_eq!(of("photo.gradient.pgd.png"), Some(("photo.gradient", None, "pgd")));
        assert_eq!(of("x.grid.png"), Some(("x", None, "grid")));
        assert_eq!(of("x.png"), None);
    }
}
