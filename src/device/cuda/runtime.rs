//! The place where kernels run: an NVIDIA GPU, or an emulation on this machine.

use std::time::Duration;

use super::arguments::{Address, Packed};
use super::source::TranslationUnit;
use crate::error::{Error, Result};

/// The shape of a launch: blocks, threads per block, and bytes of shared memory per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
}

/// Properties of a runtime's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// `cuda:0`, `emulated`.
    pub device: String,
    /// The GPU's name, or `C++ on this machine`.
    pub name: String,
    /// `sm_90a`, `host`.
    pub architecture: String,
    /// Multiprocessors.
    pub processors: usize,
    /// Free bytes at present; `None` if unknown.
    pub free_bytes: Option<u64>,
}

/// Why memory was not provided.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is not enough left.
    OutOfMemory,
    /// Something else went wrong.
    Failed(Error),
}

/// Memory, copies and launches, all in order on one stream.
pub(crate) trait Runtime: Send {
    /// What it computes on.
    fn machine(&self) -> Machine;

    /// Reserves memory, aligned to 256 bytes; its contents are arbitrary.
    ///
    /// # Errors
    /// When there is too little left or the device fails.
    fn allocate(&mut self, bytes: usize) -> Result<Address, Refusal>;

    /// Frees memory.
    fn free(&mut self, at: Address);

    /// Copies numbers to the device.
    ///
    /// # Errors
    /// When the device fails, including in an earlier launch.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Waits for all earlier launches, then copies numbers from the device.
    ///
    /// # Errors
    /// When the device fails, including in an earlier launch.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Compiles the unit if this has not been done yet, and queues one of its kernels.
    ///
    /// # Errors
    /// When the unit does not compile (the error holds the compiler's log) or the launch is refused.
    fn launch(
        &mut self,
        unit: &'static TranslationUnit,
        kernel: &'static str,
        launch: Launch,
        arguments: Packed<'_>,
    ) -> Result<()>;

    /// Waits for everything in the queue.
    ///
    /// # Errors
    /// When any of it failed.
    fn wait(&mut self) -> Result<()>;

    /// Records the time at which the stream gets here.
    ///
    /// # Errors
    /// When the device fails.
    fn mark(&mut self) -> Result<()>;

    /// Waits, and returns the times between consecutive marks since the last call; all marks are cleared.
    ///
    /// # Errors
    /// When the device fails.
    fn elapsed(&mut self) -> Result<Vec<Duration>>;
}
