//! Scores of many altered pictures, in well-filled batches.

use crate::engine::{Batch, Engine};
use crate::error::Result;
use crate::graph::Graph;
use crate::program::Score;
use crate::tensor::{Shape, Tensor};

/// Approximate bytes of pictures per batch; at least [`FEWEST`] pictures, if memory allows, and at most [`MOST`].
const TOGETHER_BYTES: usize = 8 << 20;
const FEWEST: usize = 16;
const MOST: usize = 256;

/// Collects pictures one by one and runs the net whenever a batch is full.
///
/// A picture's score does not depend on the other pictures in its batch.
pub(crate) struct Scores<'a> {
    engine: &'a mut Engine,
    graph: &'a Graph,
    score: Score,
    waiting: Vec<Tensor>,
    classes: Vec<usize>,
    scores: Vec<f64>,
    room: usize,
}

/// Pictures of `shape` per batch.
pub(crate) fn together(engine: &Engine, shape: Shape) -> usize {
    let bytes = (4 * shape.len()).max(1);
    engine.together(2 * bytes, (TOGETHER_BYTES / bytes).clamp(FEWEST, MOST))
}

impl<'a> Scores<'a> {
    pub fn new(engine: &'a mut Engine, graph: &'a Graph, score: Score) -> Self {
        let room = together(engine, graph.input_shape());
        Self { engine, graph, score, waiting: Vec::new(), classes: Vec::new(), scores: Vec::new(), room }
    }

    /// As [`Engine::spread`].
    pub fn spread<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
        self.engine.spread(items, f)
    }

    /// Adds a picture, `[C, H, W]`, and the class to score.
    ///
    /// # Errors
    /// The errors of [`Engine::forward`].
    pub fn push(&mut self, picture: Tensor, class: usize) -> Result<()> {
        self.waiting.push(picture);
        self.classes.push(class);
        if self.waiting.len() < self.room { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let logits = self.engine.forward(self.graph, &Batch::of(std::mem::take(&mut self.waiting))?)?;
        let logits = logits.to_f64();
        for (row, class) in logits.chunks(self.graph.classes()).zip(self.classes.drain(..)) {
            self.scores.push(self.score.linked(self.graph.link(), row, class).0);
        }
        Ok(())
    }

    /// The score of every picture, in order of arrival.
    ///
    /// # Errors
    /// As [`Scores::push`].
    pub fn finish(mut self) -> Result<Vec<f64>> {
        self.flush()?;
        Ok(self.scores)
    }
}
