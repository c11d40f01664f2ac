//! Which classes to explain.

use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::Labels;
use crate::score::{best_first, least};

use super::arrays::{ArrayFile, extension};
use super::headings::{self, Column};
use super::room::Room;
use super::source::Source;
use super::tables::{self, Table};
use crate::text::counted;

/// The value of `--target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetChoice {
    /// The best class.
    Top1,
    /// The best K classes, one map each.
    Top(usize),
    /// The class with the lowest score.
    Least,
    /// A class by index.
    Index(usize),
    /// A class by name.
    Label(String),
    /// A file of classes.
    File(PathBuf),
}

impl TargetChoice {
    /// Parses the text of the option.
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

    /// Checks the choice for a net with `classes` classes named `labels`.
    pub fn resolve(&self, labels: &Labels, classes: usize, room: Room) -> Result<Targets> {
        Ok(match self {
            Self::Top1 => Targets::Top(1),
            Self::Top(k) => Targets::Top((*k).min(classes)),
            Self::Least => Targets::Least,
            Self::Index(i) => Targets::Fixed(named(&i.to_string(), labels, classes).map_err(|e| e.within("--target"))?),
            Self::Label(name) => {
                let index = labels.find(name).map_err(|e| match name.strip_prefix("top") {
                    Some(k) if k.parse::<usize>().is_ok() => e.within(format!("--target {name} (or top:{k})")),
                    _ => e.within("--target"),
                })?;
                Targets::Fixed(checked(index, classes)?)
            }
            Self::File(path) => Targets::Listed(ListedClasses::open(path, labels, classes, room)?),
        })
    }
}

fn checked(index: usize, classes: usize) -> Result<usize> {
    if index < classes { Ok(index) } else { Err(no_class(index, classes)) }
}

fn no_class(index: impl std::fmt::Display, classes: usize) -> Error {
    Error::settings(format!("class {index} does not exist, the net has {classes} (0 to {})", classes - 1))
}

/// The classes of an input to explain.
#[derive(Debug)]
pub enum Targets {
    /// The best few.
    Top(usize),
    /// The class with the lowest score.
    Least,
    /// Always the same.
    Fixed(usize),
    /// As listed in a file.
    Listed(ListedClasses),
}

impl Targets {
    /// Tells it the inputs, before any class is requested.
    ///
    /// # Errors
    /// When a file lists two classes for an input, or its list does not match the inputs.
    pub fn know(&mut self, sources: &[Source]) -> Result<()> {
        let Targets::Listed(listed) = self else { return Ok(()) };
        listed.know(sources)?;
        listed.first_wrong.take().map_or(Ok(()), |why| Err(Error::settings(why)))
    }

    /// Number of maps per input and method.
    pub fn count(&self) -> usize {
        if let Targets::Top(k) = self { *k } else { 1 }
    }

    /// The class that the file lists for an input, out of the result of [`of`](Self::of).
    pub fn listed(&self, classes: &[usize]) -> Option<usize> {
        if matches!(self, Targets::Listed(_)) { classes.first().copied() } else { None }
    }

    /// Classes for an input with `logits`; `row` is its row in an array.
    pub fn of(&self, source: &Source, row: Option<usize>, logits: &[f64]) -> Result<Vec<usize>> {
        match self {
            Targets::Top(k) => Ok(best_first(logits).into_iter().take(*k).collect()),
            Targets::Least => Ok(least(logits).into_iter().collect()),
            Targets::Fixed(index) => Ok(vec![*index]),
            Targets::Listed(listed) => Ok(vec![listed.of(source, row)?]),
        }
    }
}

/// Classes listed in a file.
#[derive(Debug)]
pub struct ListedClasses {
    path: PathBuf,
    /// Class by file and row, or the error.
    by_file: Table<Class>,
    by_row: Vec<Result<usize, String>>,
    room: Room,
    /// Why the first invalid class is invalid.
    first_wrong: Option<String>,
}

/// The class in a line of a table.
#[derive(Debug)]
struct Class {
    /// The class, or the error.
    class: Result<usize, String>,
    line: usize,
}

impl ListedClasses {
    /// As [`Listed::read`], but refuses a file with an unknown class, or with two classes for one input.
    fn open(path: &Path, labels: &Labels, classes: usize, room: Room) -> Result<Self> {
        let mut listed = Self::read(path, labels, classes, room)?;
        match listed.first_wrong.take() {
            Some(why) => Err(Error::settings(why)),
            None => Ok(listed),
        }
    }

    /// Reads classes from lines `label`, `file,label` or `file,row,label`, or from the tensor `labels` of a
    /// .safetensors file. An unknown class or a second class for a file is an error only for the inputs concerned.
    pub fn read(path: &Path, labels: &Labels, classes: usize, room: Room) -> Result<Self> {
        let path_of = path.to_owned();
        let mut listed = Self { path: path_of, by_file: Table::default(), by_row: Vec::new(), room, first_wrong: None };
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
        // The columns of a heading, and the line after the last one of a list.
        let (mut columns, mut next) = (None, 1);
        for (n, (line, cells)) in tables::lines(path)?.into_iter().enumerate() {
            let at = |why: &dyn std::fmt::Display| Error::settings(format!("{}, line {line}: {why}", path.display()));
            let cells = cells.map_err(|e| at(&e))?;
            let cells: Vec<&str> = cells.iter().collect();
            let breaks: usize = cells.iter().map(|cell| cell.matches('\n').count()).sum();
            let expected = std::mem::replace(&mut next, line + breaks + 1);
            if n == 0 && headings::is_of_classes(&cells, |cell| named(cell, labels, classes).is_ok()) {
                columns = Some(headings::of_classes(&cells).map_err(|e| at(&e))?);
                continue;
            }
            let usual: &[Column] = match cells.len() {
                1 => &[Column::Class],
                2 => &[Column::File, Column::Class],
                3 => &[Column::File, Column::Row, Column::Class],
                _ => return Err(at(&"expected `label`, `file,label` or `file,row,label`")),
            };
            let order = columns.as_deref().unwrap_or(usual);
            if order.len() != cells.len() {
                return Err(at(&format!("{} cells under a heading of {}", cells.len(), order.len())));
            }
            let cell = |column| order.iter().position(|&c| c == column).map(|at| cells[at]);
            let row = cell(Column::Row).map(tables::row).transpose().map_err(|e| at(&e))?;
            let label = cell(Column::Class).unwrap_or_default();
            let Some(file) = cell(Column::File) else {
                // A missing label would shift all later ones.
                if line != expected || label.is_empty() {
                    let empty = if label.is_empty() { line } else { expected };
                    return Err(Error::settings(format!("{}: line {empty} is empty", path.display())));
                }
                let class = named(label, labels, classes).map_err(|e| at(&e).to_string());
                listed.first_wrong = listed.first_wrong.take().or_else(|| class.clone().err());
                listed.by_row.push(class);
                if !listed.by_file.is_empty() {
                    return Err(at(&"a label alone in a table of files"));
                }
                continue;
            };
            if !listed.by_row.is_empty() {
                return Err(at(&"a file in a list of labels"));
            }
            let class = named(label, labels, classes).map_err(|e| at(&e).to_string());
            listed.first_wrong = listed.first_wrong.take().or_else(|| class.clone().err());
            listed.add(file, row, Class { class, line });
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

    /// Finds names in the table that match several of `sources`, and sources with two classes under two names.
    ///
    /// # Errors
    /// When a list of labels does not have one label per row of the only array.
    pub fn know(&mut self, sources: &[Source]) -> Result<()> {
        self.by_file.know(sources);
        for keys in self.by_file.twice(sources) {
            let mut said =
                |key| self.by_file.by_key(key).and_then(|of| Some((of.class.as_ref().ok().copied()?, of.line)));
            let [Some((a, first)), Some((b, second))] = [said(&keys[0]), said(&keys[1])] else { continue };
            if a == b {
                continue;
            }
            let path = self.path.display();
            let [(one, _), (other, _)] = &keys;
            let why = format!(
                "{path}: {one} and {other} are one file, which has class {a} in line {first} and class {b} in line {second}"
            );
            self.first_wrong.get_or_insert_with(|| why.clone());
            for key in &keys {
                self.by_file.by_key(key).into_iter().for_each(|of| of.class = Err(why.clone()));
            }
        }
        if self.by_row.is_empty() {
            return Ok(());
        }
        let arrays: Vec<&Source> = sources.iter().filter(|source| source.is_array()).collect();
        let labels = counted(self.by_row.len(), "label");
        let fail = |why: String| Err(Error::settings(format!("{}: {why}", self.path.display())));
        match arrays.as_slice() {
            [array] => match ArrayFile::open(&array.path, self.room).map(|array| array.rows()) {
                Ok(rows) if rows != self.by_row.len() => {
                    fail(format!("{labels} for {} of {}", counted(rows, "row"), array.shown))
                }
                // An error in the array is reported where it is read.
                _ => Ok(()),
            },
            [] => fail(format!("{labels} without files, but there is no array whose rows they could be of")),
            all => fail(format!(
                "{labels} without files, but there are {} arrays; write `file,row,label` lines",
                all.len()
            )),
        }
    }

    /// How many of the table's files are not among `sources`.
    pub fn strangers(&self, sources: &[Source]) -> usize {
        self.by_file.strangers(sources)
    }

    /// The class of a source, or of one of its rows.
    pub fn of(&self, source: &Source, row: Option<usize>) -> Result<usize> {
        let listed = self.by_file.get(source, row);
        let listed = listed.map_err(|why| Error::input(format!("{}: {why}", self.path.display())))?;
        let listed = listed.map(|said| &said.class);
        let in_order = row.and_then(|row| self.by_row.get(row));
        match listed.or(in_order) {
            Some(class) => class.clone().map_err(Error::input),
            None => {
                let row = row.map_or_else(String::new, |r| format!(", row {r}"));
                Err(Error::input(format!("{} lists no class for {}{row}", self.path.display(), source.shown)))
            }
        }
    }
}

/// The class in a table cell, by index or by label.
///
/// # Errors
/// When there is no such class, or when a number is the index of one class and the name of another. Names supplied by
/// the user take precedence over indices.
pub fn named(cell: &str, labels: &Labels, classes: usize) -> Result<usize> {
    let Ok(index) = cell.parse::<usize>() else { return checked(labels.find(cell)?, classes) };
    match labels.called_by_number(cell).as_slice() {
        [] if labels.numbers().is_none() => checked(index, classes),
        [class] if *class == index || labels.are_given() => checked(*class, classes),
        _ if labels.are_given() => checked(labels.find(cell)?, classes),
        [] => checked(index, classes),
        [class, ..] => {
            let of_index = labels.get(index).map_or_else(String::new, |name| format!(", named '{name}'"));
            Err(Error::settings(format!(
                "'{cell}' is the index of one class{of_index}, and the name of class {class}; with --labels FILE the names decide"
            )))
        }
    }
}

/// The class given by a number in a tensor `labels`.
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

    fn labels(names: &[&str]) -> Labels {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, names.join("\n")).unwrap();
        Labels::from_file(&path, names.len()).unwrap()
    }

    fn read(text: &str) -> Result<ListedClasses> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        std::fs::write(&path, text).unwrap();
        ListedClasses::read(&path, &labels(&["a", "b", "c", "d", "e"]), 5, Room::default())
    }

    #[test]
    fn a_heading_says_which_column_is_what() {
        let source = Source::named("r.npy".into());
        for table in
            ["file,row,label\nr.npy,0,3", "file,label,index\nr.npy,3,0", "label,row,path\n3,0,r.npy", "r.npy,0,3"]
        {
            assert_eq!(read(table).unwrap().of(&source, Some(0)).unwrap(), 3, "{table}");
            assert!(read(table).unwrap().of(&source, Some(3)).is_err(), "{table}");
        }
        for (table, word) in [
            ("file,split,label\nr.npy,0,3", "expected `label`"),
            ("file,label\nr.npy,0,3", "line 2: 3 cells under a heading of 2"),
            ("1\nr.npy,2", "line 2"),
            ("r.npy,2\n1", "line 2"),
        ] {
            assert!(read(table).unwrap_err().to_string().contains(word), "{table}");
        }
    }

    #[test]
    fn a_list_with_an_empty_line_is_refused() {
        for (list, line) in [("1\n\n2\n", 2), ("\n1\n2", 1), ("label\n1\n2\n \n3", 4), ("1\n2\n\n\n3", 3)] {
            let why = read(list).unwrap_err().to_string();
            assert!(why.contains(&format!("line {line} is empty")), "{list:?}: {why}");
        }
        assert_eq!(read("label\n1\n2\n\n\n").unwrap().by_row, [Ok(1), Ok(2)]);
    }

    #[test]
    fn two_names_of_a_file_do_not_give_it_two_classes() {
        let mut source = Source::named("d/x/1.png".into());
        source.relative = "x/1.png".into();
        let know = |table: &str| {
            let mut listed = read(table).unwrap();
            listed.know(std::slice::from_ref(&source)).unwrap();
            listed.of(&source, None).map_err(|e| e.to_string())
        };
        assert_eq!(know("d/x/1.png,3\nx/1.png,3"), Ok(3));
        let why = know("d/x/1.png,3\ny.png,0\nx/1.png,4").unwrap_err();
        assert!(why.contains("line 1") && why.contains("line 3"), "{why}");
    }

    #[test]
    fn a_number_is_not_the_index_of_one_class_and_the_name_of_another() {
        let given = labels(&["1", "2", "3"]);
        assert_eq!([named("1", &given, 3).unwrap(), named("3", &given, 3).unwrap()], [0, 2]);
        // An index that is not a name would mean a class that has a name already.
        assert!(named("0", &given, 3).is_err() && given.numbers().is_some_and(|said| said.contains("1 is class 0")));
        assert_eq!(
            TargetChoice::parse("1")
                .unwrap()
                .resolve(&given, 3, Room::default())
                .unwrap()
                .of(&Source::named("x".into()), None, &[])
                .unwrap(),
            [0]
        );
        // Names that come with the net do not decide.
        let net = Labels::of(["1", "2", "3"].map(String::from).to_vec());
        let why = named("1", &net, 3).unwrap_err().to_string();
        assert!(why.contains("named '2'") && why.contains("class 0") && why.contains("--labels"), "{why}");
        assert_eq!(named("0", &net, 3).unwrap(), 0);
        let own = Labels::digits(10);
        assert_eq!(named("7", &own, 10).unwrap(), 7);
    }
}
