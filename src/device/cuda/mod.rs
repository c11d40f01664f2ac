//! NVIDIA GPUs, through libraries found at run time.

mod arguments;
mod cache;
mod driver;
mod library;
mod nvrtc;
mod probe;
mod runtime;
mod search;
mod source;

pub(crate) use probe::usable;
pub use probe::{CudaReport, Driver, Nvrtc, probe};
