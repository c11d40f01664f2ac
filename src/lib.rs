//! Explains image classifiers where they run.
pub mod device;
pub mod engine;
pub mod error;
pub mod graph;
pub mod image;
pub mod map;
pub mod method;
pub mod model;
pub mod perturb;
pub mod program;
pub mod random;
#[cfg(feature = "pictures")]
pub mod render;
pub mod report;
pub mod rule;
pub mod tensor;
pub use error::{Error, ErrorKind, Result};
