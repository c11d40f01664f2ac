//! A stream of inputs from pictures and rows of arrays.

use std::sync::Arc;

use super::arrays::ArrayFile;
use super::items::{Item, NetInput, fit};
use super::room::Room;
use super::source::Source;
use crate::error::{Error, Result};
use crate::image::Preprocess;
use crate::model::InputForm;
use crate::tensor::Shape;

/// Identifies an input: position of its source, and row of an array.
pub type ItemPosition = (usize, Option<usize>);

/// An item of a stream. For each source in order: its begin, its inputs, its end.
#[derive(Debug)]
pub enum Event<T> {
    /// A source begins. For an array: its number of rows, and whether it is a single input without a row axis.
    Begin(usize, Option<(usize, bool)>),
    /// One input, or why it cannot be used; without a row, this applies to the whole source.
    Input(ItemPosition, Result<T>),
    /// An input that was not requested.
    Skipped(ItemPosition),
    /// A source ends.
    End(usize),
}

/// Whether an input can be left unread.
pub type Skip = Box<dyn Fn(&Source, Option<usize>) -> bool>;

/// Goes through the sources; an array yields its rows.
pub struct ItemStream {
    sources: Arc<[Source]>,
    preprocess: Preprocess,
    input: InputForm,
    room: Room,
    skip: Skip,
    /// Whether an array whose shape the net does not take fails as a whole rather than row by row.
    whole: bool,
    at: usize,
    state: StreamState,
}

enum StreamState {
    /// The source has not begun.
    Before,
    /// The picture is still to be read.
    Picture,
    /// The source cannot be used.
    Failed(Error),
    /// An array and its next row.
    Array(Box<ArrayFile>, usize),
    /// No more inputs.
    After,
}

impl ItemStream {
    /// Starts at the first input.
    pub fn new(sources: Arc<[Source]>, net: NetInput) -> Self {
        let NetInput { preprocess, input, room } = net;
        let preprocess = preprocess.clone();
        let skip = Box::new(|_: &Source, _| false);
        Self { sources, preprocess, input, room, skip, whole: false, at: 0, state: StreamState::Before }
    }

    /// Skips inputs for which `skip` is true. Arrays whose shape the net does not take fail as a whole.
    #[must_use]
    pub fn but(self, skip: Skip) -> Self {
        Self { skip, whole: true, ..self }
    }

    fn begin(&self, source: &Source) -> StreamState {
        if !source.is_array() || source.refused.is_some() {
            return StreamState::Picture;
        }
        match ArrayFile::open(&source.path, self.room) {
            Err(e) => StreamState::Failed(e),
            Ok(array) => match fit(array.dims(), self.input) {
                Err(e) if self.whole && !array.has_levels() => StreamState::Failed(e.within(&source.shown)),
                _ => StreamState::Array(Box::new(array), 0),
            },
        }
    }
}

impl Iterator for ItemStream {
    type Item = Event<Item>;

    fn next(&mut self) -> Option<Event<Item>> {
        let sources = Arc::clone(&self.sources);
        let (at, source) = (self.at, sources.get(self.at)?);
        let net = NetInput { preprocess: &self.preprocess, input: self.input, room: self.room };
        match std::mem::replace(&mut self.state, StreamState::After) {
            StreamState::Before => {
                self.state = self.begin(source);
                let facts = match &self.state {
                    StreamState::Array(array, _) => Some((array.rows(), array.is_single())),
                    _ => None,
                };
                Some(Event::Begin(at, facts))
            }
            StreamState::Picture if (self.skip)(source, None) => Some(Event::Skipped((at, None))),
            StreamState::Picture => Some(Event::Input((at, None), Item::picture(at, source, net))),
            StreamState::Failed(e) => Some(Event::Input((at, None), Err(e))),
            StreamState::Array(mut array, row) if row < array.rows() => {
                let place = (at, Some(row));
                let event = match (self.skip)(source, Some(row)) {
                    true => Event::Skipped(place),
                    false => Event::Input(place, Item::row(at, source, &mut array, row, net)),
                };
                self.state = StreamState::Array(array, row + 1);
                Some(event)
            }
            StreamState::Array(..) | StreamState::After => {
                (self.at, self.state) = (at + 1, StreamState::Before);
                Some(Event::End(at))
            }
        }
    }
}

/// The most frequent input shape; of equally frequent ones, the first. Methods that take a single shape take this one.
pub fn usual_shape(sources: &[Source], net: NetInput) -> Option<Shape> {
    let mut shapes: Vec<(Shape, usize)> = Vec::new();
    for source in sources.iter().filter(|source| source.refused.is_none()) {
        let array = source.is_array().then(|| ArrayFile::open(&source.path, net.room));
        let (dims, rows) = match &array {
            Some(Ok(array)) if !array.has_levels() => (array.dims().to_vec(), array.rows()),
            Some(Ok(array)) => (net.preprocess.dims().to_vec(), array.rows()),
            Some(Err(_)) => continue,
            None => (net.preprocess.dims().to_vec(), 1),
        };
        let Ok(InputForm { shape, .. }) = fit(&dims, net.input) else { continue };
        match shapes.iter_mut().find(|(known, _)| *known == shape) {
            Some((_, count)) => *count += rows,
            None => shapes.push((shape, rows)),
        }
    }
    // `max_by_key` returns the last of equals.
    shapes.into_iter().rev().max_by_key(|&(_, count)| count).map(|(shape, _)| shape)
}
