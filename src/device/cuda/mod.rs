//! NVIDIA GPUs: hand-written kernels (`kernels/`), compiled by NVRTC on first use, through libraries found at run time.
//! The same kernels can be compiled as C++ for this machine, which is slow and meant for tests.
//!
//! ```text
//! Plan ─choice→ which kernel ─steps→ arguments, grid ─Runtime→ driver (NVRTC, cubin cache) | emulated (host C++)
//! ```

mod arguments;
mod cache;
mod choice;
mod constants;
mod device;
mod driver;
mod emulated;
mod geometry;
pub mod kernels;
mod layout;
mod library;
mod nvrtc;
mod patches;
mod probe;
mod products;
mod region;
mod runtime;
mod search;
mod selftest;
mod source;
mod steps;
mod tables;

use std::path::Path;

pub use probe::{CudaReport, Driver, NvrtcFound, probe};
pub use selftest::{SelfTest, self_test};

use device::CudaDevice;
use driver::Cuda;
use emulated::Emulated;
use source::Sources;

use super::cpu::Convolution;
use super::{Device, Products};
use crate::error::Result;

/// Options of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// The number format in which tensor cores multiply.
    pub products: Products,
    /// Whether the backward pass is as accurate as the forward pass.
    pub convolution: Convolution,
    /// Kernels to use instead of the library's own.
    pub kernel_dir: Option<&'a Path>,
    /// Threads of the host.
    pub threads: Option<usize>,
}

impl Wish<'_> {
    fn sources(&self) -> Result<Sources> {
        self.kernel_dir.map_or_else(|| Ok(Sources::default()), Sources::of_folder)
    }

    fn device(&self, runtime: Box<dyn runtime::Runtime>) -> Result<Box<dyn Device>> {
        let kernels = products::ProductKernels::new(self.products, self.convolution);
        Ok(Box::new(CudaDevice::new(runtime, kernels, self.host_threads())?.edited(self.kernel_dir)))
    }

    fn host_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// Emulates the kernels on this machine, with threads in the order given by `seed`.
///
/// # Errors
/// When there is no C++ compiler, or a kernel does not compile.
pub(crate) fn open_emulated(seed: u64, wish: &Wish<'_>) -> Result<Box<dyn Device>> {
    wish.device(Box::new(Emulated::new(wish.sources()?, wish.host_threads(), seed)?))
}

/// An NVIDIA GPU by number.
///
/// # Errors
/// When driver, device or compiler are missing.
pub(crate) fn open(index: usize, wish: &Wish<'_>) -> Result<Box<dyn Device>> {
    wish.device(Box::new(Cuda::open(index, wish.sources()?)?))
}

/// Whether a GPU can be used; if not, why, or `None` if there is no driver at all.
pub(crate) fn usable(index: usize) -> Result<(), Option<String>> {
    let report = probe();
    match report.missing(index) {
        None => Ok(()),
        Some(why) => Err(report.has_driver().then_some(why)),
    }
}
