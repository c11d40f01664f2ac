//! Reports the progress of long methods.

use super::Engine;

/// Progress of one call of a method, over all its pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// The method's id.
    pub method: &'a str,
    /// Units of work done: masks, windows or iterations. A call starts at 0.
    pub done: usize,
    /// Units of work in the whole call; an upper bound, as a method may stop early.
    pub total: usize,
    /// The current value of the objective, for methods that optimise a single number.
    pub objective: Option<f64>,
}

/// Receives progress reports, on the thread that runs the engine.
pub type Observer = Box<dyn FnMut(&Progress<'_>) + Send>;

impl Engine {
    /// Sends progress reports of long methods to `observer`, which replaces any earlier one. Results do not depend on
    /// it.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Passes a report to the observer. Methods call it at the start, with nothing done, and after each unit of work.
    pub fn progress(&mut self, progress: &Progress<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(progress);
        }
    }
}
