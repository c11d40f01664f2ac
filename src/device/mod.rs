//! Where programs run.

#[cfg(feature = "cuda")]
pub mod cuda;
