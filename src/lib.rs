//! Explains image classifiers where they run.
pub mod device;
pub mod engine;
pub mod error;
pub mod graph;
pub mod program;
pub mod random;
pub mod rule;
pub mod tensor;
pub use error::{Error, ErrorKind, Result};
