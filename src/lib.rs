//! Explains image classifiers where they run.
pub mod error;
pub mod graph;
pub mod image;
pub mod map;
#[cfg(feature = "pictures")]
pub mod render;
pub mod tensor;
pub use error::{Error, ErrorKind, Result};
