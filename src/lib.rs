//! Explains image classifiers where they run.
pub mod device;
pub mod error;
pub mod graph;
pub mod image;
pub mod map;
pub mod model;
pub mod report;
#[cfg(feature = "pictures")]
mod stub;
pub mod tensor;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "pictures")]
pub use stub::{engine, method, render};
