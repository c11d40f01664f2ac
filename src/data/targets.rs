//! Which classes to explain.

use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::Labels;
use crate::score::{best_first, least};

use super::arrays::{ArrayFile, extension};
use super::room::Room;
use super::source::Source;
use super::tables::{self, Table};

/// What `--target` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetChoice {
    /// The best class.
    Top1,
    /// The best K classes, a map each.
    Top(usize),
    /// The least likely class.
    Least,
    /// A class by index.
    Index(usize),
    /// A class by name.
    Label(String),
    /// A file of classes.
    File(PathBuf),
}

impl TargetChoice {
    /// From the text of the option.
    pub fn parse(text: &str) -> Result<Self> {
        let number = |t: &str| t.parse::<usize>().ok();
        match text {
            "top1" => return Ok(Self::Top1),
            "least" => return Ok(Self::Least),
            "" => return Err(Error::settings("--target is empty")),
            _ => {}
        }
        if let Some(k) = text.strip_prefix("top:") {
            let k = number(k).filter(|&k| k > 0);
            return k
                .map(Self::Top)
                .ok_or_else(|| Error::settings(format!("--target {text}: top:K needs a whole number of at least 1")));
        }
        if let Some(path) = text.strip_prefix("file:") {
            if path.is_empty() {
                return Err(Error::settings("--target file: needs the path of a file"));
            }
            return Ok(Self::File(path.into()));
        }
        Ok(number(text).map_or_else(|| Self::Label(text.to_owned()), Self::Index))
    }

    /// Meaningful for a net with `classes` classes named `labels`.
    pub fn resolve(&self, labels: &Labels, classes: usize, room: Room) -> Result<Targets> {
        Ok(match self {
            Self::Top1 => Targets::Top(1),
            Self::Top(k) => Targets::Top((*k).min(classes)),
            Self::Least => Targets::Least,
            Self::Index(i) => Targets::Fixed(checked(*i, classes)?),
            Self::Label(name) => {
                let index = labels.find(name).map_err(|e| match name.strip_prefix("top") {
                    Some(k) if k.parse::<usize>().is_ok() => e.within(format!("--target {name} (or top:{k})")),
                    _ => e.within("--target"),
                })?;
                Targets::Fixed(checked(index, classes)?)
            }
            Self::File(path) => Targets::Listed(Listed::open(path, labels, classes, room)?),
        })
    }
}

fn checked(index: usize, classes: usize) -> Result<usize> {
    if index < classes { Ok(index) } else { Err(no_class(index, classes)) }
}

fn no_class(index: impl std::fmt::Display, classes: usize) -> Error {
    Error::settings(format!("class {index} does not exist, the net has {classes} (0 to {})", classes - 1))
}

/// Which classes of an input are explained.
#[derive(Debug)]
pub enum Targets {
    /// The best few.
    Top(usize),
    /// The least likely.
    Least,
    /// Always the same.
    Fixed(usize),
    /// As a file says.
    Listed(Listed),
}

impl Targets {
    /// Hears which inputs there are, before any class is asked for.
    pub fn know(&mut self, sources: &[Source]) {
        if let Targets::Listed(listed) = self {
            listed.know(sources);
        }
    }

    /// Number of maps an input gives with one method.
    pub fn count(&self) -> usize {
        if let Targets::Top(k) = self { *k } else { 1 }
    }

    /// The class that a file says for an input, of those that [`of`](Self::of) gave.
    pub fn listed(&self, classes: &[usize]) -> Option<usize> {
        if matches!(self, Targets::Listed(_)) { classes.first().copied() } else { None }
    }

    /// Classes for an input with `logits`; `row` counts the rows of an array.
    pub fn of(&self, source: &Source, row: Option<usize>, logits: &[f64]) -> Result<Vec<usize>> {
        match self {
            Targets::Top(k) => Ok(best_first(logits).into_iter().take(*k).collect()),
            Targets::Least => Ok(least(logits).into_iter().collect()),
            Targets::Fixed(index) => Ok(vec![*index]),
            Targets::Listed(listed) => Ok(vec![listed.of(source, row)?]),
        }
    }
}

/// Classes from a file.
#[derive(Debug)]
pub struct Listed {
    path: PathBuf,
    /// Class by file and row, or why there is none.
    by_file: Table<Class>,
    by_row: Vec<Result<usize, String>>,
    /// Why the first class that is none is none.
    first_wrong: Option<String>,
}

/// What a line of a table says.
#[derive(Debug)]
struct Class {
    /// The class, or why there is none.
    class: Result<usize, String>,
    line: usize,
}

impl Listed {
    /// As [`Listed::read`], refusing a file with a class that the net has not, or with two classes for one file.
    fn open(path: &Path, labels: &Labels, classes: usize, room: Room) -> Result<Self> {
        let mut listed = Self::read(path, labels, classes, room)?;
        match listed.first_wrong.take() {
            Some(why) => Err(Error::settings(why)),
            None => Ok(listed),
        }
    }

    /// Classes from `label`, `file,label` or `file,row,label` lines, or from the tensor `labels` of a .safetensors file. A
    /// class that the net has not, and a second class of a file, is an error only of those that it is asked for.
    pub fn read(path: &Path, labels: &Labels, classes: usize, room: Room) -> Result<Self> {
        let mut listed =
            Self { path: path.to_owned(), by_file: Table::default(), by_row: Vec::new(), first_wrong: None };
        if extension(path).is_some_and(|e| e == "safetensors") {
            let array = ArrayFile::open(path, room)?;
            let found = array
                .labels()
                .map_err(|e| e.within(path.display()))?
                .ok_or_else(|| Error::settings(format!("{}: the file has no tensor `labels`", path.display())))?;
            for &i in found {
                let class = label(i, classes).map_err(|e| e.within(path.display()).to_string());
                listed.first_wrong = listed.first_wrong.or_else(|| class.clone().err());
                listed.by_row.push(class);
            }
            return Ok(listed);
        }
        for (n, (line, cells)) in tables::lines(path)?.into_iter().enumerate() {
            let at = |why: &dyn std::fmt::Display| Error::settings(format!("{}, line {line}: {why}", path.display()));
            let cells = cells.map_err(|e| at(&e))?;
            let cells: Vec<&str> = cells.iter().collect();
            let names_a_class = |word: &str| {
                ["label", "labels", "class", "target", "index", "idx", "id", "name"]
                    .contains(&word.to_ascii_lowercase().as_str())
            };
            let is_class = |c: &str| named(c, labels, classes).is_ok();
            let is_heading =
                n == 0 && cells.last().is_some_and(|c| c.split(['_', ' ']).all(names_a_class) && !is_class(c));
            if is_heading {
                continue;
            }
            let mut class = |cell: &str| {
                let class = named(cell, labels, classes).map_err(|e| at(&e).to_string());
                listed.first_wrong = listed.first_wrong.take().or_else(|| class.clone().err());
                class
            };
            match cells.as_slice() {
                [label] => {
                    let class = class(label);
                    listed.by_row.push(class);
                }
                [file, label] => {
                    let class = class(label);
                    listed.add(file, None, Class { class, line });
                }
                [file, row, label] => {
                    let row = tables::row(row).map_err(|e| at(&e))?;
                    let class = class(label);
                    listed.add(file, Some(row), Class { class, line });
                }
                _ => return Err(at(&"expected `label`, `file,label` or `file,index,label`")),
            }
        }
        Ok(listed)
    }

    fn add(&mut self, file: &str, row: Option<usize>, new: Class) {
        match self.by_file.entry(file, row) {
            Entry::Vacant(free) => {
                free.insert(new);
            }
            Entry::Occupied(mut said) => {
                let said = said.get_mut();
                match (&said.class, &new.class) {
                    (Ok(a), Ok(b)) if a != b => {
                        let row = row.map_or_else(String::new, |row| format!(", row {row},"));
                        let why = format!(
                            "{}: {file}{row} has class {a} in line {} and class {b} in line {}",
                            self.path.display(),
                            said.line,
                            new.line
                        );
                        self.first_wrong.get_or_insert_with(|| why.clone());
                        said.class = Err(why);
                    }
                    (Ok(_), Err(_)) => *said = new,
                    _ => {}
                }
            }
        }
    }

    /// Finds out which names of the table mean several of `sources`.
    pub fn know(&mut self, sources: &[Source]) {
        self.by_file.know(sources);
    }

    /// How many of the table's files are not among `sources`.
    pub fn strangers(&self, sources: &[Source]) -> usize {
        self.by_file.strangers(sources)
    }

    /// The class of a source, or of a row of it.
    pub fn of(&self, source: &Source, row: Option<usize>) -> Result<usize> {
        let listed = self.by_file.get(source, row);
        let listed = listed.map_err(|why| Error::input(format!("{}: {why}", self.path.display())))?;
        let listed = listed.map(|said| &said.class);
        let in_order = row.and_then(|row| self.by_row.get(row));
        match listed.or(in_order) {
            Some(class) => class.clone().map_err(Error::input),
            None => {
                let row = row.map_or_else(String::new, |r| format!(", row {r}"));
                Err(Error::input(format!("{} says no class for {}{row}", self.path.display(), source.shown)))
            }
        }
    }
}

/// The class that a table's cell names, by index or by label.
pub fn named(cell: &str, labels: &Labels, classes: usize) -> Result<usize> {
    let index = cell.parse().map_or_else(|_| labels.find(cell), Ok);
    index.and_then(|i| checked(i, classes))
}

/// The class that a number of a tensor `labels` is.
pub fn label(number: i64, classes: usize) -> Result<usize> {
    usize::try_from(number).map_or_else(|_| Err(no_class(number, classes)), |i| checked(i, classes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_option() {
        assert_eq!(TargetChoice::parse("top1").unwrap(), TargetChoice::Top1);
        assert_eq!(TargetChoice::parse("top:3").unwrap(), TargetChoice::Top(3));
        assert_eq!(TargetChoice::parse("281").unwrap(), TargetChoice::Index(281));
        assert_eq!(TargetChoice::parse("tabby cat").unwrap(), TargetChoice::Label("tabby cat".into()));
        assert!(TargetChoice::parse("top:0").is_err() && TargetChoice::parse("").is_err());
        assert!(TargetChoice::parse("file:").is_err());
    }
}
