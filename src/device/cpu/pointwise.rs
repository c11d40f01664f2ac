//! Element-by-element primitives, a run of vectors at a time.

use super::isa::{Isa, Kernel};

/// What is done to each vector.
pub(super) enum Pointwise<T> {
    /// `a + b`.
    Add(*const T, *const T),
    /// `min(max(a, lo), hi)`.
    Clamp(*const T, [T; 2]),
    /// `a` where the bit is set.
    Gate(*const T, *const u8),
}

/// Applies `what` to vectors `first .. first + count`.
pub(super) struct Apply<I: Isa> {
    pub what: Pointwise<I::T>,
    pub out: *mut I::T,
    pub first: usize,
    pub count: usize,
}

impl<I: Isa> Kernel<I> for Apply<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the device gives pointers to values that hold these vectors.
        unsafe {
            for v in self.first..self.first + self.count {
                let i = v * I::LANES;
                let result = match self.what {
                    Pointwise::Add(a, b) => I::add(I::load(a.add(i)), I::load(b.add(i))),
                    Pointwise::Clamp(a, [lo, hi]) => I::clamp(I::load(a.add(i)), I::splat(lo), I::splat(hi)),
                    Pointwise::Gate(a, bits) => I::keep(I::load(a.add(i)), I::load_bits(bits, v)),
                };
                I::store(self.out.add(i), result);
            }
        }
    }
}

/// Bits of vectors `first .. first + count`: set where a number lies strictly inside the range.
pub(super) struct Inside<I: Isa> {
    pub x: *const I::T,
    pub range: [I::T; 2],
    pub bits: *mut u8,
    pub first: usize,
    pub count: usize,
}

impl<I: Isa> Kernel<I> for Inside<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the device gives pointers to values that hold these vectors.
        unsafe {
            let [lo, hi] = self.range.map(|x| I::splat(x));
            for v in self.first..self.first + self.count {
                I::store_bits(self.bits, v, I::between(I::load(self.x.add(v * I::LANES)), lo, hi));
            }
        }
    }
}
