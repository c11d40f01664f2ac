//! Word of how far a long method has come.

use super::Engine;

/// How far a method has come with one call for all its pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// The method's id.
    pub method: &'a str,
    /// Units of work done: masks, windows, iterations. A call begins at 0.
    pub done: usize,
    /// Units of work of the whole call, at most: a method may stop before.
    pub total: usize,
    /// What a method that minimises or maximises something has reached, where there is one number for it.
    pub objective: Option<f64>,
}

/// Hears of progress, on the thread that runs the engine.
pub type Observer = Box<dyn FnMut(&Progress<'_>) + Send>;

impl Engine {
    /// Tells `observer` from now on, and no one else, how far long methods have come. What they compute does not depend
    /// on it.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Passes word to whoever observes; methods call it at the start with nothing done and after each piece of work.
    pub fn progress(&mut self, progress: &Progress<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(progress);
        }
    }
}
