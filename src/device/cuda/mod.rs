//! NVIDIA GPUs, through libraries found at run time.

mod probe;

pub use probe::{CudaReport, Driver, Nvrtc, probe};
