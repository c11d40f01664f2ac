//! The epilogue: operations on a sum before it is stored.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::cpu::isa::{Isa, all_finite};
use crate::graph::Smooth;

/// The epilogue of one copy. All pointers are to that copy's values; null means absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish<T> {
    /// One number per channel, padded to whole blocks. Sums start from it.
    pub bias: *const T,
    /// Added to the sum.
    pub add: *const T,
    /// The sum is clamped to `[lo, hi]`.
    pub clamp: Option<[T; 2]>,
    /// Set where a number that is not finite is clamped.
    pub clamped_infinity: *const AtomicBool,
    /// Receives 1 where the value before clamping lies strictly inside `bits_range`.
    pub bits: *mut u8,
    pub bits_range: [T; 2],
    /// Zero where the bit is 0.
    pub gate: *const u8,
    /// Factor of the result.
    pub times: *const T,
    /// Applied to whole bands once they are stored.
    pub smooth: Option<Smooth>,
    /// Receives the slopes of `smooth`.
    pub slopes: *mut T,
}

/// The values of one copy that a convolution reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyView<T> {
    pub read: *const T,
    pub written: *mut T,
    pub finish: Finish<T>,
}

// SAFETY: pointers are to values of one step; tasks write disjoint parts and read what earlier steps wrote.
unsafe impl<T> Send for CopyView<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for CopyView<T> {}

impl<T> CopyView<T> {
    /// Bias of a written block; zeros if there is none.
    #[inline(always)]
    pub unsafe fn bias<I: Isa<T = T>>(&self, block: usize) -> I::V {
        // SAFETY: the bias is padded to whole blocks.
        unsafe {
            match self.finish.bias.is_null() {
                true => I::zero(),
                false => I::load(self.finish.bias.add(block * I::LANES)),
            }
        }
    }
}

/// Finishes and stores vectors of one copy's result.
pub(super) struct CopyOut<I: Isa> {
    written: *mut I::T,
    finish: Finish<I::T>,
    bounds: Option<[I::V; 2]>,
    range: [I::V; 2],
}

impl<I: Isa> CopyOut<I> {
    #[inline(always)]
    pub unsafe fn new(view: &CopyView<I::T>) -> Self {
        // SAFETY: the caller has the instruction set's features.
        unsafe {
            Self {
                written: view.written,
                finish: view.finish,
                bounds: view.finish.clamp.map(|[lo, hi]| [I::splat(lo), I::splat(hi)]),
                range: [I::splat(view.finish.bits_range[0]), I::splat(view.finish.bits_range[1])],
            }
        }
    }

    /// Finishes `v` and stores it as vector `index` of the result.
    #[inline(always)]
    pub unsafe fn put(&self, index: usize, mut v: I::V) {
        let finish = &self.finish;
        // SAFETY: the caller's index lies inside the result, and all values of an epilogue have its shape.
        unsafe {
            if !finish.add.is_null() {
                v = I::add(v, I::load(finish.add.add(index * I::LANES)));
            }
            if !finish.bits.is_null() {
                I::store_bits(finish.bits, index, I::between(v, self.range[0], self.range[1]));
            }
            if let Some([lo, hi]) = self.bounds {
                if !all_finite::<I>(v) && !finish.clamped_infinity.is_null() {
                    (*finish.clamped_infinity).store(true, Ordering::Relaxed);
                }
                v = I::clamp(v, lo, hi);
            }
            if !finish.gate.is_null() {
                v = I::keep(v, I::load_bits(finish.gate, index));
            }
            if !finish.times.is_null() {
                v = I::mul(v, I::load(finish.times.add(index * I::LANES)));
            }
            I::store(self.written.add(index * I::LANES), v);
        }
    }
}
