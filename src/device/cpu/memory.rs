//! Aligned memory and pointers that worker threads share.

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Error, Result};

/// Zeroed bytes that start at a page boundary, in huge pages if the system has them: feature maps are traversed with
/// strides of many pages.
pub(super) struct Buffer {
    bytes: Option<MmapMut>,
}

impl Buffer {
    const ALIGN: usize = 64;

    /// An empty buffer.
    pub const fn empty() -> Self {
        Self { bytes: None }
    }

    /// `len` zeroed bytes.
    ///
    /// # Errors
    /// When the system cannot provide that many.
    pub fn new(len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let bytes = MmapOptions::new().len(len).map_anon();
        let bytes = bytes.map_err(|_| Error::limit(format!("the system does not give {} MiB of memory", len >> 20)))?;
        // Only a hint; the system may have no huge pages.
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(memmap2::Advice::HugePage);
        Ok(Self { bytes: Some(bytes) })
    }

    /// Frees the bytes if there are more than `most`.
    pub fn shrink(&mut self, most: usize) {
        if self.len() > most {
            *self = Self::empty();
        }
    }

    /// Ensures at least `least` bytes; growing loses the contents.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn grow(&mut self, least: usize) -> Result<()> {
        if self.len() < least {
            *self = Self::empty();
            *self = Self::new(least)?;
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |b| b.len())
    }

    /// Start of the bytes, which must not be written through two pointers at once.
    pub fn pointer(&self) -> *mut u8 {
        let start = self.bytes.as_ref().map(|b| b.as_ptr().cast_mut());
        start.unwrap_or(std::ptr::without_provenance_mut(Self::ALIGN))
    }

    /// The bytes as numbers.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        // An empty slice of bytes need not be aligned for numbers.
        let Some(bytes) = self.bytes.as_deref_mut() else { return &mut [] };
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::cast_slice_mut(&mut bytes[..whole])
    }
}

/// A pointer shared by the tasks of a step; each writes its own part.
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

    /// The pointer `n` elements further on.
    ///
    /// # Safety
    /// As for [`pointer::add`].
    pub unsafe fn add(self, n: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(n) }
    }
}
