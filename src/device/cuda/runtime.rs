//! Where kernels run: an NVIDIA GPU, or this machine in its place.

use std::time::Duration;

use super::arguments::{Address, Packed};
use super::source::TranslationUnit;
use crate::error::{Error, Result};

/// What a launch is made of: blocks, threads of each, and bytes of memory that a block's threads share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
}

/// What a runtime computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// `cuda:0`, `emulated`.
    pub device: String,
    /// The GPU's own, or `C++ on this machine`.
    pub name: String,
    /// `sm_90a`, `host`.
    pub architecture: String,
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes that are free now; none if unknown.
    pub free_bytes: Option<u64>,
}

/// Why memory was not given.
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

    /// Gives memory back.
    fn free(&mut self, at: Address);

    /// Copies numbers to the device.
    ///
    /// # Errors
    /// When the device fails, also in a launch before.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Waits for all launches before, then copies numbers from the device.
    ///
    /// # Errors
    /// When the device fails, also in a launch before.
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

    /// Waits for everything that was queued.
    ///
    /// # Errors
    /// When something of it failed.
    fn wait(&mut self) -> Result<()>;

    /// Notes the time at which the stream gets here.
    ///
    /// # Errors
    /// When the device fails.
    fn mark(&mut self) -> Result<()>;

    /// Waits, and gives the times from each mark to the next since the last call; all marks are forgotten.
    ///
    /// # Errors
    /// When the device fails.
    fn elapsed(&mut self) -> Result<Vec<Duration>>;
}
