//! Inputs one after the other, whatever they come from.

use verilume::Result;

use crate::arrays::ArrayFile;
use crate::inputs::Source;
use crate::items::{Item, Net};

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
