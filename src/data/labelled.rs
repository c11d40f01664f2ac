//! Labelled pictures: which class each shows, by what names it, and where it is to be seen.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::Placement;
use crate::model::{Labels, is_synset};
use crate::random;
use crate::reliability::metric::{Bounds, Region};

use super::arrays::ArrayFile;
use super::items::{Item, Net};
use super::room::Room;
use super::source::{self, Inputs, Source};
use super::tables::{self, Table};
use super::targets::{self, Listed};

/// What was asked for.
pub struct Wanted<'a> {
    /// Folders, patterns, arrays.
    pub data: &'a [OsString],
    /// A table that says which file shows what, in place of names and tensors.
    pub labels_csv: Option<&'a Path>,
    /// A table of boxes.
    pub boxes: Option<&'a Path>,
    /// Whether pictures without a class are taken.
    pub unlabelled: bool,
    /// Seed of the order, where it is not that of the files.
    pub shuffle: Option<u64>,
    /// Pictures to take at most.
    pub limit: Option<usize>,
    /// Folder of results, which are no data.
    pub out: &'a Path,
    /// What inputs may take.
    pub room: Room,
}

/// One picture of the data.
#[derive(Debug, Clone)]
pub struct Example {
    /// Position of its file.
    pub source: usize,
    /// Row of an array.
    pub row: Option<usize>,
    /// Its class, or why it has none. `None` only where pictures may go without.
    pub class: std::result::Result<Option<usize>, String>,
}

/// The pictures, in order.
pub struct Data {
    /// Their files.
    pub sources: Vec<Source>,
    /// What was left out of what was named, a sentence each.
    pub left_out: Vec<String>,
    /// The pictures.
    pub examples: Vec<Example>,
    /// Boxes around what they show, where a table says it.
    pub boxes: Option<Boxes>,
    /// Files of the table of classes that are not among the data.
    pub strangers: usize,
}

impl Data {
    /// Finds files and their classes. What is wrong with one file is its own error.
    pub fn find(wanted: &Wanted, labels: &Labels, classes: usize) -> Result<Self> {
        let listed = wanted.labels_csv.map(|path| Listed::read(path, labels, classes, wanted.room));
        let mut listed = listed.transpose().map_err(|e| e.within("--labels-csv"))?;
        let mut boxes = wanted.boxes.map(|path| Boxes::read(path, labels, classes)).transpose()?;
        let found = source::find(wanted.data, wanted.out);
        let left_out = found.left_out();
        let Inputs { sources, .. } = found;
        listed.iter_mut().for_each(|listed| listed.know(&sources));
        boxes.iter_mut().for_each(|boxes| boxes.by_file.know(&sources));
        let mut examples = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let example = |row, class: Result<Option<usize>>| {
                let class = match class {
                    Err(_) if wanted.unlabelled => Ok(None),
                    class => class.map_err(|e| e.to_string()),
                };
                Example { source: at, row, class }
            };
            if let Err(e) = source::usable(source) {
                examples.push(Example { source: at, row: None, class: Err(e.to_string()) });
            } else if source.is_array() {
                match ArrayFile::open(&source.path, wanted.room) {
                    Err(e) => examples.push(Example { source: at, row: None, class: Err(e.to_string()) }),
                    Ok(array) => {
                        let class = |row| match &listed {
                            Some(listed) => listed.of(source, Some(row)),
                            None => row_class(&array, row, classes).map_err(|e| e.within(&source.shown)),
                        };
                        examples.extend((0..array.rows()).map(|row| example(Some(row), class(row).map(Some))));
                    }
                }
            } else {
                let class = match &listed {
                    Some(listed) => listed.of(source, None),
                    None => picture_class(source, labels, classes),
                };
                examples.push(example(None, class.map(Some)));
            }
        }
        if let Some(seed) = wanted.shuffle {
            let mut order = vec![0.0f32; examples.len()];
            random::Stream::Shuffle.uniforms(seed, 0, 0, &mut order);
            let mut numbered: Vec<(f32, Example)> = order.into_iter().zip(examples).collect();
            // Stable: equal numbers keep the files' order.
            numbered.sort_by(|a, b| a.0.total_cmp(&b.0));
            examples = numbered.into_iter().map(|(_, example)| example).collect();
        }
        examples.truncate(wanted.limit.unwrap_or(usize::MAX));
        let strangers = listed.map_or(0, |listed| listed.strangers(&sources));
        Ok(Self { sources, left_out, examples, boxes, strangers })
    }

    /// `file` or `file[row]`.
    pub fn name(&self, example: &Example) -> String {
        let shown = &self.sources[example.source].shown;
        example.row.map_or_else(|| shown.clone(), |row| format!("{shown}[{row}]"))
    }
}

/// Reads pictures in any order; arrays stay open.
#[derive(Default)]
pub struct Reader {
    arrays: HashMap<usize, ArrayFile>,
}

impl Reader {
    /// The picture of `example`.
    pub fn item(&mut self, data: &Data, example: &Example, net: Net) -> Result<Item> {
        let source = &data.sources[example.source];
        let Some(row) = example.row else { return Item::picture(example.source, source, net) };
        let array = match self.arrays.entry(example.source) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(ArrayFile::open(&source.path, net.room)?),
        };
        Item::row(example.source, source, array, row, net)
    }
}

fn row_class(array: &ArrayFile, row: usize, classes: usize) -> Result<usize> {
    let labels = array.labels()?.ok_or_else(|| {
        Error::input("there is no tensor `labels`; --labels-csv can say the classes, --unlabelled does without")
    })?;
    targets::label(labels[row], classes).map_err(|e| Error::input(format!("row {row}: {e}")))
}

/// The class that the folder of a picture is named for, else the one that its file is.
fn picture_class(source: &Source, labels: &Labels, classes: usize) -> Result<usize> {
    let text = |name: Option<&std::ffi::OsStr>| name.map(|n| n.to_string_lossy().into_owned());
    let folder = text(source.relative.parent().and_then(Path::file_name));
    let stem = text(source.path.file_stem()).unwrap_or_default();
    let by_folder = folder.as_deref().map(|name| folder_class(name, labels, classes));
    match by_folder {
        Some(Ok(class)) => Ok(class),
        // A synset can be meant for nothing but the class.
        Some(Err(e)) if folder.is_some_and(|name| labels.of_synset(&name).is_err()) => Err(e),
        // The folder's name is the one that was meant to say it.
        Some(Err(e)) => file_class(&stem, labels, classes).map_err(|_| e),
        None => file_class(&stem, labels, classes),
    }
    .map_err(|e| Error::input(format!("{}: {e}", source.shown)))
}

/// `207`, `golden_retriever`, `n02099601`, `n02099601_golden_retriever`.
fn folder_class(name: &str, labels: &Labels, classes: usize) -> Result<usize> {
    if name.bytes().all(|b| b.is_ascii_digit()) { targets::named(name, labels, classes) } else { worded(name, labels) }
}

/// `207_1`, `golden_retriever`, `golden_retriever_12`, `n02099601_golden_retriever`; a number alone may just count files.
fn file_class(stem: &str, labels: &Labels, classes: usize) -> Result<usize> {
    if let Some(class) = labels.of_synset(stem)? {
        return Ok(class);
    }
    let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
    match (digits, stem[digits..].chars().next()) {
        (1.., Some('_' | '-')) => targets::named(&stem[..digits], labels, classes),
        (1.., None) => Err(Error::input(format!(
            "the number {stem} may only count files; a class is named by a folder, {stem}/, or as {stem}_1"
        ))),
        _ => worded(stem, labels),
    }
}

/// The class of a name, with or without a synset id before it and a count behind it. Where the synset is known it decides:
/// two classes are named crane.
fn worded(name: &str, labels: &Labels) -> Result<usize> {
    if let Some(class) = labels.of_synset(name)? {
        return Ok(class);
    }
    if let Ok(class) = labels.find(name) {
        return Ok(class);
    }
    if is_synset(name) {
        return Err(Error::input(format!(
            "{name} is a synset without a name, and the net's classes are not those of ImageNet-1k; write {name}_name or say \
             the classes with --labels-csv"
        )));
    }
    let bare = name.split_once('_').filter(|(head, _)| is_synset(head)).map_or(name, |(_, tail)| tail);
    let whole = labels.find(bare);
    let uncounted = bare.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '-', ' ']);
    match labels.find(uncounted) {
        Ok(class) if whole.is_err() && uncounted.len() < bare.len() => Ok(class),
        _ => whole,
    }
}

/// A box that was drawn around something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// What is inside.
    pub class: usize,
    /// Left, top, right, bottom: edges in pixels of the upright picture.
    pub edges: [f64; 4],
}

impl Drawn {
    /// Where it is in the net's input; nothing where no pixel of it is left.
    pub fn place(&self, placement: &Placement) -> Option<Region> {
        let [top, left, height, width] = placement.pixels(self.edges)?;
        Some(Region { class: self.class, bounds: Bounds { top, left, height, width } })
    }
}

type Lines = Vec<std::result::Result<Drawn, String>>;

/// Boxes by file and row.
pub struct Boxes {
    path: PathBuf,
    by_file: Table<Lines>,
}

impl Boxes {
    /// From lines `file,class,left,top,right,bottom` or `file,row,class,left,top,right,bottom`. A class that the net has not
    /// is an error of its file only.
    fn read(path: &Path, labels: &Labels, classes: usize) -> Result<Self> {
        let mut boxes = Self { path: path.to_owned(), by_file: Table::default() };
        for (n, (line, cells)) in tables::lines(path).map_err(|e| e.within("--boxes"))?.into_iter().enumerate() {
            let at = |why: &dyn std::fmt::Display| {
                Error::settings(format!("--boxes {}, line {line}: {why}", path.display()))
            };
            let cells = cells.map_err(|e| at(&e))?;
            let cells: Vec<&str> = cells.iter().collect();
            // A line with a number among its edges was meant for a box.
            if n == 0 && cells.iter().rev().take(4).all(|c| c.parse::<f64>().is_err()) {
                continue;
            }
            let (file, row, class, edges) = match cells.as_slice() {
                [file, class, edges @ ..] if edges.len() == 4 => (file, None, class, edges),
                [file, row, class, edges @ ..] if edges.len() == 4 => {
                    (file, Some(tables::row(row).map_err(|e| at(&e))?), class, edges)
                }
                _ => return Err(at(&"expected `file,class,left,top,right,bottom`")),
            };
            let mut numbers = [0.0; 4];
            for (number, cell) in numbers.iter_mut().zip(edges) {
                *number = cell
                    .parse()
                    .ok()
                    .filter(|v: &f64| v.is_finite())
                    .ok_or_else(|| at(&format!("'{cell}' is not a number of pixels")))?;
            }
            let [left, top, right, bottom] = numbers;
            if left >= right || top >= bottom {
                return Err(at(&format!("a box from {left},{top} to {right},{bottom} holds nothing")));
            }
            let class = targets::named(class, labels, classes);
            let drawn = class.map(|class| Drawn { class, edges: numbers }).map_err(|e| at(&e).to_string());
            boxes.by_file.entry(file, row).or_default().push(drawn);
        }
        Ok(boxes)
    }

    /// Boxes of a source, or of a row of it; none where the table has none.
    ///
    /// # Errors
    /// When one of them is of a class that the net has not, or may be another source's.
    pub fn of(&self, source: &Source, row: Option<usize>) -> std::result::Result<Vec<Drawn>, String> {
        let lines = self.by_file.get(source, row).map_err(|why| format!("--boxes {}: {why}", self.path.display()))?;
        lines.map_or_else(|| Ok(Vec::new()), |lines| lines.iter().cloned().collect())
    }

    /// How many of the table's files are not among `sources`.
    pub fn strangers(&self, sources: &[Source]) -> usize {
        self.by_file.strangers(sources)
    }

    /// The table.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_first_line_is_no_heading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boxes.csv");
        let read = |first: &str| {
            std::fs::write(&path, format!("{first}\na.png,1,2,3,4,5\n")).unwrap();
            Boxes::read(&path, &labels(), 5).map(drop).map_err(|e| e.to_string())
        };
        for heading in ["file,class,left,top,right,bottom", "file,row,class,x0,y0,x1,y1", "a.png,1,0,0,9,9"] {
            assert_eq!(read(heading), Ok(()), "{heading}");
        }
        for wrong in ["a.png,1,0,0,9,9O", "a.png,1,0,O,9,x", "a.png,1,0,0,9,"] {
            assert!(read(wrong).unwrap_err().contains("line 1"), "{wrong}");
        }
    }

    fn labels() -> Labels {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, "tench\ngolden retriever\nSt. Bernard, saint bernard\nf 16\nblack-footed ferret\n")
            .unwrap();
        Labels::from_file(&path, 5).unwrap()
    }

    #[test]
    fn names_say_classes() {
        let labels = labels();
        for (name, want) in [
            ("0", 0),
            ("4", 4),
            ("Golden_Retriever", 1),
            ("n02099601_golden_retriever", 1),
            ("saint bernard", 2),
            ("n00000001_black-footed_ferret", 4),
        ] {
            assert_eq!(folder_class(name, &labels, 5).unwrap(), want, "{name}");
        }
        for (name, want) in [
            ("3_0001", 3),
            ("n01440764_tench", 0),
            ("tench_12", 0),
            ("n02099601_golden_retriever-7", 1),
            ("f_16", 3),
            ("f_16_2", 3),
        ] {
            assert_eq!(file_class(name, &labels, 5).unwrap(), want, "{name}");
        }
        let why = |name: &str| file_class(name, &labels, 5).unwrap_err().to_string();
        assert!(why("0003").contains("count files"), "{}", why("0003"));
        assert!(why("7_1").contains("class 7"), "{}", why("7_1"));
        assert!(why("n01440764").contains("synset"), "{}", why("n01440764"));
        assert!(why("n01440764_tensh").contains("tench"), "{}", why("n01440764_tensh"));
        assert!(why("IMG_0003").contains("no class is named"), "{}", why("IMG_0003"));
        assert!(why("").contains("no class"));
    }
}
