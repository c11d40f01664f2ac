//! Labelled pictures: which class each one shows, according to which source, and where in the picture.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::Placement;
use crate::model::{Labels, is_synset};
use crate::random;
use crate::reliability::metric::{Bounds, Region};

use super::arrays::ArrayFile;
use super::headings::{self, Column};
use super::items::{Item, NetInput};
use super::room::Room;
use super::source::{self, Inputs, Source};
use super::tables::{self, Table};
use super::targets::{self, ListedClasses};

/// The requested data.
pub struct DataRequest<'a> {
    /// Folders, patterns, arrays.
    pub data: &'a [OsString],
    /// A table of file and class, used instead of names and tensors.
    pub labels_csv: Option<&'a Path>,
    /// A table of boxes.
    pub boxes: Option<&'a Path>,
    /// Whether pictures without a class are used.
    pub unlabelled: bool,
    /// Seed for the order; `None` keeps the order of the files.
    pub shuffle: Option<u64>,
    /// Most pictures to use.
    pub limit: Option<usize>,
    /// Folder of results, which are not data.
    pub out: &'a Path,
    /// The memory bound on inputs.
    pub room: Room,
}

/// One picture of the data.
#[derive(Debug, Clone)]
pub struct LabelledPicture {
    /// Position of its file.
    pub source: usize,
    /// Row of an array.
    pub row: Option<usize>,
    /// Its class, or why it has none. `None` only if unlabelled pictures are allowed.
    pub class: std::result::Result<Option<usize>, String>,
}

/// The pictures, in order.
pub struct LabelledData {
    /// Their files.
    pub sources: Vec<Source>,
    /// What was left out, one sentence each.
    pub left_out: Vec<String>,
    /// The pictures.
    pub examples: Vec<LabelledPicture>,
    /// Boxes around the objects, if there is a table of boxes.
    pub boxes: Option<LabelledBoxes>,
    /// Files in the table of classes that are not among the data.
    pub strangers: usize,
}

impl LabelledData {
    /// Finds files and their classes. An error in one file is reported for that file alone.
    pub fn find(wanted: &DataRequest, labels: &Labels, classes: usize) -> Result<Self> {
        let listed = wanted.labels_csv.map(|path| ListedClasses::read(path, labels, classes, wanted.room));
        let mut listed = listed.transpose().map_err(|e| e.within("--labels-csv"))?;
        let mut boxes = wanted.boxes.map(|path| LabelledBoxes::read(path, labels, classes)).transpose()?;
        let found = source::find(wanted.data, wanted.out, wanted.room);
        let left_out = found.left_out();
        let Inputs { sources, .. } = found;
        listed.iter_mut().try_for_each(|listed| listed.know(&sources)).map_err(|e| e.within("--labels-csv"))?;
        boxes.iter_mut().try_for_each(|boxes| boxes.know(&sources))?;
        let mut examples = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let example = |row, class: Result<Option<usize>>| {
                let class = match class {
                    Err(_) if wanted.unlabelled => Ok(None),
                    class => class.map_err(|e| e.to_string()),
                };
                LabelledPicture { source: at, row, class }
            };
            if let Err(e) = source::usable(source) {
                examples.push(LabelledPicture { source: at, row: None, class: Err(e.to_string()) });
            } else if source.is_array() {
                match ArrayFile::open(&source.path, wanted.room) {
                    Err(e) => examples.push(LabelledPicture { source: at, row: None, class: Err(e.to_string()) }),
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
            let mut numbered: Vec<(f32, LabelledPicture)> = order.into_iter().zip(examples).collect();
            // Stable: equal numbers keep the files' order.
            numbered.sort_by(|a, b| a.0.total_cmp(&b.0));
            examples = numbered.into_iter().map(|(_, example)| example).collect();
        }
        examples.truncate(wanted.limit.unwrap_or(usize::MAX));
        let strangers = listed.map_or(0, |listed| listed.strangers(&sources));
        Ok(Self { sources, left_out, examples, boxes, strangers })
    }

    /// `file` or `file[row]`.
    pub fn name(&self, example: &LabelledPicture) -> String {
        let shown = &self.sources[example.source].shown;
        example.row.map_or_else(|| shown.clone(), |row| format!("{shown}[{row}]"))
    }
}

/// Reads pictures in any order; arrays stay open.
#[derive(Default)]
pub struct PictureReader {
    arrays: HashMap<usize, ArrayFile>,
}

impl PictureReader {
    /// Reads the picture of `example`.
    pub fn item(&mut self, data: &LabelledData, example: &LabelledPicture, net: NetInput) -> Result<Item> {
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

/// The class named by the picture's folder, else by its file name.
fn picture_class(source: &Source, labels: &Labels, classes: usize) -> Result<usize> {
    let text = |name: Option<&std::ffi::OsStr>| name.map(|n| n.to_string_lossy().into_owned());
    let folder = text(source.relative.parent().and_then(Path::file_name));
    let stem = text(source.path.file_stem()).unwrap_or_default();
    let within = |e: Error| Error::input(format!("{}: {e}", source.shown));
    let Some(folder) = folder else { return file_class(&stem, labels, classes).map_err(|e| unknown(source, None, &e)) };
    match folder_class(&folder, labels, classes) {
        Ok(class) => Ok(class),
        // A synset can only be meant as a class.
        Err(e) if labels.of_synset(&folder).is_err() => Err(within(e)),
        Err(e) => {
            consistent(&stem, labels, classes).map_err(within)?;
            // The folder was meant to name the class, so its error is reported.
            file_class(&stem, labels, classes).map_err(|_| unknown(source, Some(&folder), &e))
        }
    }
}

fn unknown(source: &Source, folder: Option<&str>, why: &Error) -> Error {
    let shown = &source.shown;
    let names = match folder {
        Some(folder) => format!("neither its folder '{folder}' nor its file name is a class"),
        None => "its file name is not a class".to_owned(),
    };
    Error::input(format!(
        "no class is known for {shown}: {names} ({why}); give a table with --labels-csv FILE, or --unlabelled"
    ))
}

/// The number at the start of a file name, and the rest.
fn numbered(stem: &str) -> Option<(&str, &str)> {
    let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
    let rest = stem[digits..].strip_prefix(['_', '-']).filter(|_| digits > 0)?;
    Some((&stem[..digits], rest))
}

/// Refuses a file name whose number and word name different classes: the number may be a class or a mere count.
fn consistent(stem: &str, labels: &Labels, classes: usize) -> Result<()> {
    let Some((number, word)) = numbered(stem) else { return Ok(()) };
    // A second number is a count.
    let is_count = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    let Some(class) = worded(word, labels).ok().filter(|_| !is_count) else { return Ok(()) };
    match targets::named(number, labels, classes) {
        Ok(other) if other == class => Ok(()),
        _ => Err(Error::input(format!(
            "the number {number} and the name '{word}', which is class {class}, contradict each other; name the class by a \
             folder or in a table (--labels-csv FILE)"
        ))),
    }
}

/// `207`, `golden_retriever`, `n02099601`, `n02099601_golden_retriever`.
fn folder_class(name: &str, labels: &Labels, classes: usize) -> Result<usize> {
    if name.bytes().all(|b| b.is_ascii_digit()) { targets::named(name, labels, classes) } else { worded(name, labels) }
}

/// `207_1`, `golden_retriever`, `golden_retriever_12`, `n02099601_golden_retriever`; a number alone may be a mere
/// count.
fn file_class(stem: &str, labels: &Labels, classes: usize) -> Result<usize> {
    if let Some(class) = labels.of_synset(stem)? {
        return Ok(class);
    }
    consistent(stem, labels, classes)?;
    let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
    match (digits, stem[digits..].chars().next()) {
        (1.., Some('_' | '-')) => targets::named(&stem[..digits], labels, classes),
        (1.., None) => Err(Error::input(format!(
            "the number {stem} may only count files; a class is named by a folder, {stem}/, or as {stem}_1"
        ))),
        _ => worded(stem, labels),
    }
}

/// The class of a name with an optional synset id before it and an optional count after it. A known synset decides: two
/// classes are named crane.
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

/// An annotated box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The class of the object inside.
    pub class: usize,
    /// Left, top, right, bottom: edges in pixels of the upright picture.
    pub edges: [f64; 4],
}

impl Drawn {
    /// The box in the net's input; `None` if none of its pixels remain.
    pub fn place(&self, placement: &Placement) -> Option<Region> {
        let [top, left, height, width] = placement.pixels(self.edges)?;
        Some(Region { class: self.class, bounds: Bounds { top, left, height, width } })
    }
}

type DrawnBoxes = Vec<std::result::Result<Drawn, String>>;

/// Boxes by file and row.
pub struct LabelledBoxes {
    path: PathBuf,
    by_file: Table<DrawnBoxes>,
}

impl LabelledBoxes {
    /// Reads lines `file,class,left,top,right,bottom` or `file,row,class,left,top,right,bottom`, or the columns named
    /// by a heading. A class that the net lacks is an error for its file only.
    fn read(path: &Path, labels: &Labels, classes: usize) -> Result<Self> {
        use Column::{Bottom, Class, File, Height, Left, Right, Row, Top, Width};
        let mut boxes = Self { path: path.to_owned(), by_file: Table::default() };
        let mut columns = None;
        for (n, (line, cells)) in tables::lines(path).map_err(|e| e.within("--boxes"))?.into_iter().enumerate() {
            let at = |why: &dyn std::fmt::Display| {
                Error::settings(format!("--boxes {}, line {line}: {why}", path.display()))
            };
            let cells = cells.map_err(|e| at(&e))?;
            let cells: Vec<&str> = cells.iter().collect();
            // A line with a number among its edges was meant as a box.
            if n == 0 && cells.iter().rev().take(4).all(|c| c.parse::<f64>().is_err()) {
                columns = Some(headings::of_boxes(&cells).map_err(|e| at(&e))?);
                continue;
            }
            let usual: &[Column] = match cells.len() {
                6 => &[File, Class, Left, Top, Right, Bottom],
                7 => &[File, Row, Class, Left, Top, Right, Bottom],
                _ => return Err(at(&"expected `file,class,left,top,right,bottom`")),
            };
            let order = columns.as_deref().unwrap_or(usual);
            if order.len() != cells.len() {
                return Err(at(&format!("{} cells under a heading of {}", cells.len(), order.len())));
            }
            let cell = |column| order.iter().position(|&c| c == column).map(|at| cells[at]);
            let number = |column| {
                let Some(cell) = cell(column) else { return Ok(None) };
                let number = cell.parse().ok().filter(|v: &f64| v.is_finite());
                number.map(Some).ok_or_else(|| at(&format!("'{cell}' is not a number of pixels")))
            };
            let row = cell(Row).map(tables::row).transpose().map_err(|e| at(&e))?;
            let [file, class] = [File, Class].map(|column| cell(column).unwrap_or_default());
            let [left, top] = [number(Left)?.unwrap_or_default(), number(Top)?.unwrap_or_default()];
            let [width, height] = [number(Width)?.unwrap_or_default(), number(Height)?.unwrap_or_default()];
            let [right, bottom] = [number(Right)?.unwrap_or(left + width), number(Bottom)?.unwrap_or(top + height)];
            let numbers = [left, top, right, bottom];
            if left >= right || top >= bottom {
                return Err(at(&format!("a box from {left},{top} to {right},{bottom} holds nothing")));
            }
            let class = targets::named(class, labels, classes);
            let drawn = class.map(|class| Drawn { class, edges: numbers }).map_err(|e| at(&e).to_string());
            boxes.by_file.entry(file, row).or_default().push(drawn);
        }
        Ok(boxes)
    }

    /// Finds names in the table that match several of `sources`.
    ///
    /// # Errors
    /// When a source has boxes under two names, of which only one would be used.
    fn know(&mut self, sources: &[Source]) -> Result<()> {
        self.by_file.know(sources);
        match self.by_file.twice(sources).first() {
            None => Ok(()),
            Some([(one, _), (other, _)]) => Err(Error::settings(format!(
                "--boxes {}: {one} and {other} are one file; name it one way",
                self.path.display()
            ))),
        }
    }

    /// Boxes of a source, or of one of its rows; empty if the table lists none.
    ///
    /// # Errors
    /// When one of them has a class that the net lacks, or may belong to another source.
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
            LabelledBoxes::read(&path, &labels(), 5).map(drop).map_err(|e| e.to_string())
        };
        for heading in ["file,class,left,top,right,bottom", "file,label,x0,y0,x1,y1", "a.png,1,0,0,9,9"] {
            assert_eq!(read(heading), Ok(()), "{heading}");
        }
        for heading in ["file,row,class,x0,y0,x1,y1", "file,class,a,b,c,d", "file,class,cx,cy,width,height"] {
            assert!(read(heading).is_err(), "{heading}");
        }
        for wrong in ["a.png,1,0,0,9,9O", "a.png,1,0,O,9,x", "a.png,1,0,0,9,"] {
            assert!(read(wrong).unwrap_err().contains("line 1"), "{wrong}");
        }
    }

    #[test]
    fn a_heading_of_boxes_says_which_edge_is_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boxes.csv");
        let source = Source::named("a.png".into());
        for (heading, line) in [
            ("", "a.png,1,2,3,10,12"),
            ("file,class,left,right,top,bottom", "a.png,1,2,10,3,12"),
            ("xmin,ymin,width,height,label,file", "2,3,8,9,1,a.png"),
            ("file,class,x1,y1,x2,y2", "a.png,1,2,3,10,12"),
        ] {
            std::fs::write(&path, format!("{heading}\n{line}\n")).unwrap();
            let drawn = LabelledBoxes::read(&path, &labels(), 5).unwrap().of(&source, None).unwrap();
            assert_eq!(drawn, [Drawn { class: 1, edges: [2.0, 3.0, 10.0, 12.0] }], "{heading}");
        }
    }

    #[test]
    fn a_number_and_a_name_of_a_file_are_one_class() {
        let labels = labels();
        for (name, want) in [("1_golden_retriever", 1), ("0-tench_12", 0), ("3_0001", 3), ("2_cat", 2)] {
            assert_eq!(file_class(name, &labels, 5).unwrap(), want, "{name}");
        }
        for name in ["3_golden_retriever", "12_tench", "1_f_16"] {
            let why = file_class(name, &labels, 5).unwrap_err().to_string();
            assert!(why.contains(name.split('_').next().unwrap()) && why.contains("contradict"), "{name}: {why}");
        }
        let mut source = Source::named("photos/3_tench.png".into());
        let why = picture_class(&source, &labels, 5).unwrap_err().to_string();
        assert!(why.contains("contradict") && why.contains("3_tench.png"), "{why}");
        source = Source::named("photos/IMG_7.png".into());
        let why = picture_class(&source, &labels, 5).unwrap_err().to_string();
        assert!(why.contains("neither its folder 'photos'") && why.contains("--labels-csv"), "{why}");
        assert_eq!(why.matches("IMG_7.png").count(), 1, "{why}");
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
