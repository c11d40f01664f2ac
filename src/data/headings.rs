//! Table headings: identifies each column.

use crate::error::{Error, Result};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// A file's name.
    File,
    /// A row number of an array.
    Row,
    /// A class.
    Class,
    /// Edges of a box.
    Left,
    Top,
    Right,
    Bottom,
    /// Size of a box.
    Width,
    Height,
}

use Column::{Bottom, Class, File, Height, Left, Right, Row, Top, Width};

/// Synonyms.
const FILES: [&str; 11] =
    ["file", "files", "filename", "path", "filepath", "image", "images", "img", "picture", "photo", "input"];
const ROWS: [&str; 2] = ["row", "rows"];
const CLASSES: [&str; 10] =
    ["label", "labels", "class", "classes", "target", "targets", "category", "synset", "classname", "classid"];
/// Words that qualify other words and, alone, are ambiguous.
const EITHER: [&str; 6] = ["index", "idx", "id", "number", "name", "names"];
/// Corners and sizes. The other columns determine the meaning of `x1` and `y1`.
const EDGES: [(Column, &[&str]); 6] = [
    (Left, &["left", "x0", "xmin", "minx", "x"]),
    (Top, &["top", "y0", "ymin", "miny", "y"]),
    (Right, &["right", "x2", "xmax", "maxx"]),
    (Bottom, &["bottom", "y2", "ymax", "maxy"]),
    (Width, &["width", "w"]),
    (Height, &["height", "h"]),
];

fn words(cell: &str) -> Vec<String> {
    let words = cell.split(['_', ' ', '-']).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

/// What a column with this name may hold; empty if it is not a known column name.
fn meanings(cell: &str) -> Vec<Column> {
    let words = words(cell);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let known = |word: &String| {
        let word = word.as_str();
        FILES.contains(&word) || ROWS.contains(&word) || CLASSES.contains(&word) || EITHER.contains(&word)
    };
    if words.is_empty() || !words.iter().all(known) {
        return Vec::new();
    }
    match () {
        () if has(&CLASSES) => vec![Class],
        () if has(&ROWS) => vec![Row],
        () if has(&FILES) => vec![File],
        () if has(&["name", "names"]) => vec![File, Class],
        () => vec![Row, Class],
    }
}

/// The edge or size of a box that a cell names, given all `cells`.
fn edge(cell: &str, cells: &[&str]) -> Option<Column> {
    let name = words(cell).concat();
    // Corners are numbered from 0 or from 1.
    let from_one = |other: &str| cells.iter().any(|cell| words(cell).concat() == other);
    match name.as_str() {
        "x1" => Some(if from_one("x2") { Left } else { Right }),
        "y1" => Some(if from_one("y2") { Top } else { Bottom }),
        name => EDGES.iter().find(|(_, names)| names.contains(&name)).map(|&(column, _)| column),
    }
}

/// Whether the first line of a table of classes is a heading: it names a class column, and `is_class` accepts none of its
/// cells.
pub fn is_of_classes(cells: &[&str], is_class: impl Fn(&str) -> bool) -> bool {
    let names = |cell: &&str| meanings(cell).contains(&Class);
    cells.iter().any(names) && !cells.iter().any(|cell| meanings(cell) != [File] && is_class(cell))
}

/// The columns of a table of classes.
///
/// # Errors
/// When they are not understood, or ambiguous.
pub fn of_classes(cells: &[&str]) -> Result<Vec<Column>> {
    let possible: Vec<Vec<Column>> = cells.iter().map(|cell| meanings(cell)).collect();
    one_way(&possible, class_sets()).ok_or_else(|| refused(cells, "`label`, `file,label` or `file,row,label`"))
}

/// The columns of a table of boxes.
///
/// # Errors
/// When they are not understood, or ambiguous.
pub fn of_boxes(cells: &[&str]) -> Result<Vec<Column>> {
    let wanted = "`file,class,left,top,right,bottom` or `file,row,class,left,top,right,bottom` (or `width,height` for \
                  `right,bottom`)";
    let edges: Vec<Option<Column>> = cells.iter().map(|cell| edge(cell, cells)).collect();
    let mut found: Vec<Column> = edges.iter().flatten().copied().collect();
    found.sort_by_key(|column| *column as u8);
    let box_of = [[Left, Top, Right, Bottom], [Left, Top, Width, Height]];
    let others = |(cell, edge): (&&str, &Option<Column>)| edge.is_none().then(|| meanings(cell));
    let others: Vec<Vec<Column>> = cells.iter().zip(&edges).filter_map(others).collect();
    let sets = class_sets().filter(|set| set.len() > 1);
    let columns = one_way(&others, sets).filter(|_| box_of.iter().any(|set| found == set));
    let mut columns = columns.ok_or_else(|| refused(cells, wanted))?.into_iter();
    Ok(edges.into_iter().filter_map(|edge| edge.or_else(|| columns.next())).collect())
}

fn class_sets() -> impl Iterator<Item = &'static [Column]> {
    [&[Class][..], &[File, Class], &[File, Row, Class]].into_iter()
}

fn refused(cells: &[&str], wanted: &str) -> Error {
    Error::settings(format!("the heading names the columns `{}`; expected {wanted}", cells.join(",")))
}

/// The unique assignment of columns to one of the `sets`, given their `possible` meanings.
fn one_way(possible: &[Vec<Column>], sets: impl Iterator<Item = &'static [Column]>) -> Option<Vec<Column>> {
    fn ways(possible: &[Vec<Column>], left: &[Column]) -> Vec<Vec<Column>> {
        let Some((first, rest)) = possible.split_first() else { return vec![Vec::new()] };
        let some = first.iter().filter(|column| left.contains(column));
        some.flat_map(|&column| {
            let left: Vec<Column> = left.iter().copied().filter(|&other| other != column).collect();
            ways(rest, &left).into_iter().map(move |way| [vec![column], way].concat())
        })
        .collect()
    }
    let mut found: Vec<Vec<Column>> =
        sets.filter(|set| set.len() == possible.len()).flat_map(|set| ways(possible, set)).collect();
    found.pop().filter(|_| found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(line: &str) -> Vec<&str> {
        line.split(',').collect()
    }

    #[test]
    fn headings_of_classes_say_the_order() {
        for (line, want) in [
            ("label", &[Class][..]),
            ("index", &[Class]),
            ("file,label", &[File, Class]),
            ("Label,File Name", &[Class, File]),
            ("image_id,class_index", &[File, Class]),
            ("file,index", &[File, Class]),
            ("file,row,label", &[File, Row, Class]),
            ("file,label,index", &[File, Class, Row]),
            ("index,label,path", &[Row, Class, File]),
        ] {
            assert!(is_of_classes(&cells(line), |_| false), "{line}");
            assert_eq!(of_classes(&cells(line)).unwrap(), want, "{line}");
        }
        for line in ["file,label,class", "index,label", "file,split,label", "file,id,index", "a,b,c,label", "name,name"]
        {
            let why = of_classes(&cells(line)).unwrap_err().to_string();
            assert!(why.contains(line) && why.contains("file,row,label"), "{why}");
        }
        assert!(is_of_classes(&["file", "label"], |cell| cell == "file"));
        assert!(!is_of_classes(&["file", "3"], |cell| cell == "3") && !is_of_classes(&["x.png", "tabby"], |_| false));
    }

    #[test]
    fn headings_of_boxes_say_the_order() {
        for (line, want) in [
            ("file,class,left,top,right,bottom", &[File, Class, Left, Top, Right, Bottom][..]),
            ("file,class,left,right,top,bottom", &[File, Class, Left, Right, Top, Bottom]),
            ("file,row,class,x0,y0,x1,y1", &[File, Row, Class, Left, Top, Right, Bottom]),
            ("file,class,x1,y1,x2,y2", &[File, Class, Left, Top, Right, Bottom]),
            ("xmin,ymin,width,height,label,file", &[Left, Top, Width, Height, Class, File]),
            ("filename,class,x_min,y_min,x_max,y_max", &[File, Class, Left, Top, Right, Bottom]),
            ("file,label,x,y,w,h", &[File, Class, Left, Top, Width, Height]),
        ] {
            assert_eq!(of_boxes(&cells(line)).unwrap(), want, "{line}");
        }
        for line in [
            "file,class,cx,cy,width,height",
            "file,class,left,top,width,bottom",
            "file,class,left,left,right,bottom",
            "file,width,height,class,xmin,ymin,xmax,ymax",
            "left,top,right,bottom",
        ] {
            assert!(of_boxes(&cells(line)).unwrap_err().to_string().contains("left,top,right,bottom"), "{line}");
        }
    }
}
