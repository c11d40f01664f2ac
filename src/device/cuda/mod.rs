//! NVIDIA GPUs, through libraries found at run time. So far they are looked for, not computed on.

mod probe;

pub use probe::{CudaReport, Driver, Nvrtc, probe};
