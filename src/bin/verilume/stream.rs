//! Inputs one after the other, whatever they come from.

use verilume::Result;
use verilume::tensor::Shape;

use crate::arrays::ArrayFile;
use crate::inputs::Source;
use crate::items::{Item, Net, fit};

/// One input, or why there is none.
pub struct Read {
    /// Position of its source.
    pub source: usize,
    /// Row of an array.
    pub row: Option<usize>,
    /// The input.
    pub item: Result<Item>,
}

/// Goes through sources; an array gives its rows.
pub struct Stream<'a> {
    sources: &'a [Source],
    net: Net<'a>,
    at: usize,
    /// The array at hand and its next row.
    array: Option<(ArrayFile, usize)>,
}

impl<'a> Stream<'a> {
    /// From the first input on.
    pub fn new(sources: &'a [Source], net: Net<'a>) -> Self {
        Self { sources, net, at: 0, array: None }
    }
}

/// The shape that most inputs have, of equally many the first one's: methods that take one shape only take this one.
pub fn usual_shape(sources: &[Source], net: Net) -> Option<Shape> {
    let mut shapes: Vec<(Shape, usize)> = Vec::new();
    for source in sources.iter().filter(|source| source.refused.is_none()) {
        let array = source.is_array().then(|| ArrayFile::open(&source.path));
        let (dims, rows) = match &array {
            Some(Ok(array)) if !array.has_levels() => (array.dims().to_vec(), array.rows()),
            Some(Ok(array)) => (net.preprocess.dims().to_vec(), array.rows()),
            Some(Err(_)) => continue,
            None => (net.preprocess.dims().to_vec(), 1),
        };
        let Ok(shape) = fit(&dims, net.input) else { continue };
        match shapes.iter_mut().find(|(known, _)| *known == shape) {
            Some((_, count)) => *count += rows,
            None => shapes.push((shape, rows)),
        }
    }
    // Of equals the last is the largest.
    shapes.into_iter().rev().max_by_key(|&(_, count)| count).map(|(shape, _)| shape)
}

impl Iterator for Stream<'_> {
    type Item = Read;

    fn next(&mut self) -> Option<Read> {
        loop {
            let (at, source) = (self.at, self.sources.get(self.at)?);
            if let Some((array, row)) = &mut self.array {
                if *row < array.rows() {
                    let item = Item::row(at, source, array, *row, self.net);
                    *row += 1;
                    return Some(Read { source: at, row: Some(*row - 1), item });
                }
                self.array = None;
                self.at += 1;
                continue;
            }
            if !source.is_array() || source.refused.is_some() {
                self.at += 1;
                return Some(Read { source: at, row: None, item: Item::picture(at, source, self.net) });
            }
            match ArrayFile::open(&source.path) {
                Ok(array) => self.array = Some((array, 0)),
                Err(e) => {
                    self.at += 1;
                    return Some(Read { source: at, row: None, item: Err(e) });
                }
            }
        }
    }
}
