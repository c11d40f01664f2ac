//! Aligned memory and pointers that worker threads share.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use crate::error::{Error, Result};

/// Zeroed bytes at a multiple of 64.
pub(super) struct Buffer {
    pointer: *mut u8,
    len: usize,
}

// SAFETY: the buffer owns its bytes.
unsafe impl Send for Buffer {}
// SAFETY: shared references only read the pointer and the length.
unsafe impl Sync for Buffer {}

impl Buffer {
    const ALIGN: usize = 64;

    /// No bytes.
    pub const fn empty() -> Self {
        Self { pointer: std::ptr::without_provenance_mut(Self::ALIGN), len: 0 }
    }

    /// `len` zeroed bytes.
    ///
    /// # Errors
    /// When the system does not give that many.
    pub fn new(len: usize) -> Result<Self> {
        let refused = || Error::limit(format!("the system does not give {} MiB of memory", len >> 20));
        if len == 0 {
            return Ok(Self::empty());
        }
        let layout = Layout::from_size_align(len, Self::ALIGN).map_err(|_| refused())?;
        // SAFETY: the layout is not empty.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() { Err(refused()) } else { Ok(Self { pointer, len }) }
    }

    /// Gives the bytes back if there are more than `most`.
    pub fn shrink(&mut self, most: usize) {
        if self.len > most {
            *self = Self::empty();
        }
    }

    /// At least `least` bytes; what was there is lost if there were fewer.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn grow(&mut self, least: usize) -> Result<()> {
        if self.len < least {
            *self = Self::empty();
            *self = Self::new(least)?;
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn pointer(&self) -> *mut u8 {
        self.pointer
    }

    /// The bytes as numbers.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised bytes are owned and borrowed mutably.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.pointer, self.len) };
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::cast_slice_mut(&mut bytes[..whole])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::from_size_align(self.len, Self::ALIGN)
            && self.len > 0
        {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.pointer, layout) };
        }
    }
}

/// A pointer that tasks of one step share; each writes a part of its own.
#[derive(Debug)]
pub(super) struct Shared<T>(pub *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: tasks of a step write disjoint parts and read only what earlier steps wrote.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer itself.
    pub fn get(self) -> *mut T {
        self.0
    }

    /// Pointer `n` elements on.
    ///
    /// # Safety
    /// As for [`pointer::add`].
    pub unsafe fn add(self, n: usize) -> *mut T {
        // SAFETY: passed on.
        unsafe { self.0.add(n) }
    }
}
