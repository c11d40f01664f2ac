//! Explains image classifiers where they run.
pub mod error;
pub mod graph;
pub mod model;
pub mod perturb;
pub mod random;
pub mod tensor;
pub use error::{Error, ErrorKind, Result};
