//! NVIDIA GPUs, through libraries found at run time.

mod arguments;
mod emulated;
mod probe;
mod runtime;
mod source;

pub use probe::{CudaReport, Driver, Nvrtc, probe};
