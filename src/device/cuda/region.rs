//! Memory of the device that grows as it is needed.

use super::arguments::Address;
use super::runtime::{Refusal, Runtime};
use crate::error::Result;

/// Memory that grows and stays.
#[derive(Debug, Default)]
pub(super) struct GrowingMemory {
    at: Address,
    bytes: usize,
}

impl GrowingMemory {
    /// Where it starts.
    pub const fn at(&self) -> Address {
        self.at
    }

    /// Its size.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// At least `bytes`; what was in it is lost if it grows.
    pub fn reserve(&mut self, runtime: &mut dyn Runtime, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.bytes {
            self.release(runtime);
            self.at = runtime.allocate(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Nothing any more.
    pub fn release(&mut self, runtime: &mut dyn Runtime) {
        if self.bytes > 0 {
            runtime.free(self.at);
        }
        *self = Self::default();
    }
}
