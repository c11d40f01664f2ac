//! Elementwise primitives, several vectors at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use super::isa::{CpuKernel, Isa, all_finite};
use super::repeated::Operand;
use crate::graph::{Facts, Smooth, Visitor};
use crate::program::{Elementwise, Range};
use crate::tensor::Scalar;

/// The range's ends in the device's precision.
pub(super) fn bounds<T: Scalar>(range: Range) -> [T; 2] {
    [T::from_f64(range.lo), T::from_f64(range.hi)]
}

/// The operation on each vector.
pub(super) enum Pointwise<T> {
    /// `a + b`.
    Add(*const T, *const T),
    /// `min(max(a, lo), hi)`; the flag is set where a number is not finite.
    Clamp(*const T, [T; 2], *const AtomicBool),
    /// `a` where the bit is set, else 0.
    Gate(*const T, *const u8),
}

/// Applies `what` to vectors `first .. first + count`.
pub(super) struct Apply<I: Isa> {
    pub what: Pointwise<I::T>,
    pub out: *mut I::T,
    pub first: usize,
    pub count: usize,
}

impl<I: Isa> CpuKernel<I> for Apply<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the device gives pointers to values that hold these vectors.
        unsafe {
            for v in self.first..self.first + self.count {
                let i = v * I::LANES;
                let result = match self.what {
                    Pointwise::Add(a, b) => I::add(I::load(a.add(i)), I::load(b.add(i))),
                    Pointwise::Clamp(a, [lo, hi], infinity) => {
                        let a = I::load(a.add(i));
                        if !all_finite::<I>(a) {
                            (*infinity).store(true, Ordering::Relaxed);
                        }
                        I::clamp(a, I::splat(lo), I::splat(hi))
                    }
                    Pointwise::Gate(a, bits) => I::keep(I::load(a.add(i)), I::load_bits(bits, v)),
                };
                I::store(self.out.add(i), result);
            }
        }
    }
}

/// Bits of vectors `first .. first + count`: set where a number is strictly inside the range.
pub(super) struct Inside<I: Isa> {
    pub x: *const I::T,
    pub range: [I::T; 2],
    pub bits: *mut u8,
    pub first: usize,
    pub count: usize,
}

impl<I: Isa> CpuKernel<I> for Inside<I> {
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

/// An elementwise function over elements `first .. first + count`, or over the positions of a block of channels.
pub(super) struct ElementwiseTask<I: Isa> {
    pub op: Elementwise,
    pub a: *const I::T,
    /// As `a` for functions of one operand.
    pub b: *const I::T,
    /// As `b` for functions of fewer than three operands.
    pub c: *const I::T,
    pub out: *mut I::T,
    pub first: usize,
    pub count: usize,
    /// The operands where some are repeated: elements are then positions of the block at `out`.
    pub repeated: Option<RepeatedBlock<I>>,
}

/// A block of channels on which operands are repeated.
pub(super) struct RepeatedBlock<I: Isa> {
    pub operands: [Operand<I::T>; 3],
    /// Channels of the block; the other lanes become zero.
    pub used: usize,
}

/// Elements that are computed together, in memory that overlaps no value: the result may replace an operand, so a loop
/// over the values themselves could not use vectors.
const TOGETHER: usize = 64;

impl<I: Isa> ElementwiseTask<I> {
    /// `f` on every position of a block.
    #[inline(always)]
    unsafe fn on_block(&self, block: &RepeatedBlock<I>, f: impl Fn([I::T; 3]) -> I::T) {
        let [a, b, c] = &block.operands;
        let used = 2u32.pow(block.used as u32) - 1;
        for pixel in self.first..self.first + self.count {
            // SAFETY: the device gives operands that fill the block; all are read before the result is written.
            unsafe {
                let (a, b, c) = (a.load::<I>(pixel), b.load::<I>(pixel), c.load::<I>(pixel));
                let results: [I::T; 16] = std::array::from_fn(|i| f([a[i], b[i], c[i]]));
                I::store(self.out.add(pixel * I::LANES), I::keep(I::load(results.as_ptr()), used));
            }
        }
    }

    #[inline(always)]
    unsafe fn each<const N: usize>(&self, operands: [*const I::T; N], f: impl Fn([I::T; N]) -> I::T) {
        if let Some(block) = &self.repeated {
            // SAFETY: as for `on_block`.
            return unsafe { self.on_block(block, |all| f(std::array::from_fn(|k| all[k]))) };
        }
        let mut block = [[I::T::ZERO; TOGETHER]; N];
        let mut results = [I::T::ZERO; TOGETHER];
        for start in (0..self.count).step_by(TOGETHER) {
            let (first, n) = (self.first + start, TOGETHER.min(self.count - start));
            // SAFETY: the device gives pointers to values that hold these elements; `out` may be one of the others.
            unsafe {
                for (numbers, operand) in block.iter_mut().zip(operands) {
                    std::ptr::copy_nonoverlapping(operand.add(first), numbers.as_mut_ptr(), n);
                }
                for (i, result) in results.iter_mut().enumerate() {
                    *result = f(std::array::from_fn(|k| block[k][i]));
                }
                std::ptr::copy_nonoverlapping(results.as_ptr(), self.out.add(first), n);
            }
        }
    }
}

/// Replaces `count` numbers by an activation's values.
pub(super) struct Activate<I: Isa> {
    pub f: Smooth,
    pub numbers: *mut I::T,
    /// Receives the slopes; null if nothing reads them.
    pub slopes: *mut I::T,
    pub count: usize,
}

impl<I: Isa> CpuKernel<I> for Activate<I> {
    #[inline(always)]
    unsafe fn call(self) {
        self.f.visit(self);
    }
}

impl<I: Isa> Visitor<I::T> for Activate<I> {
    type Out = ();

    #[inline(always)]
    fn visit(self, _: Facts, value: impl Fn(I::T) -> I::T, slope: impl Fn(I::T) -> I::T) {
        let [mut numbers, mut slopes] = [[I::T::ZERO; TOGETHER]; 2];
        for first in (0..self.count).step_by(TOGETHER) {
            let n = TOGETHER.min(self.count - first);
            // SAFETY: the device gives pointers to values that hold these elements.
            unsafe {
                let at = self.numbers.add(first);
                std::ptr::copy_nonoverlapping(at, numbers.as_mut_ptr(), n);
                if self.slopes.is_null() {
                    numbers.iter_mut().for_each(|x| *x = value(*x));
                } else {
                    for (x, slope_at) in numbers.iter_mut().zip(&mut slopes) {
                        (*x, *slope_at) = (value(*x), slope(*x));
                    }
                    std::ptr::copy_nonoverlapping(slopes.as_ptr(), self.slopes.add(first), n);
                }
                std::ptr::copy_nonoverlapping(numbers.as_ptr(), at, n);
            }
        }
    }
}

/// An activation's values.
struct Values<I: Isa>(ElementwiseTask<I>);

impl<I: Isa> Visitor<I::T> for Values<I> {
    type Out = ();

    #[inline(always)]
    fn visit(self, _: Facts, value: impl Fn(I::T) -> I::T, _: impl Fn(I::T) -> I::T) {
        // SAFETY: as for the task itself.
        unsafe { self.0.each([self.0.a], |[x]| value(x)) };
    }
}

/// An activation's slopes.
struct Slopes<I: Isa>(ElementwiseTask<I>);

impl<I: Isa> Visitor<I::T> for Slopes<I> {
    type Out = ();

    #[inline(always)]
    fn visit(self, _: Facts, _: impl Fn(I::T) -> I::T, slope: impl Fn(I::T) -> I::T) {
        // SAFETY: as for the task itself.
        unsafe { self.0.each([self.0.a], |[x]| slope(x)) };
    }
}

impl<I: Isa> CpuKernel<I> for ElementwiseTask<I> {
    #[inline(always)]
    unsafe fn call(self) {
        if let (Elementwise::Mul, Some(block)) = (self.op, &self.repeated) {
            // Gates: the product of a block of channels, a vector at a time.
            let [a, b, _] = &block.operands;
            let used = 2u32.pow(block.used as u32) - 1;
            for pixel in self.first..self.first + self.count {
                // SAFETY: as for `on_block`.
                unsafe {
                    let product = I::mul(a.vector::<I>(pixel), b.vector::<I>(pixel));
                    I::store(self.out.add(pixel * I::LANES), I::keep(product, used));
                }
            }
            return;
        }
        let zero = I::T::ZERO;
        let (a, b, c) = (self.a, self.b, self.c);
        // SAFETY: as for `each`.
        unsafe {
            match self.op {
                Elementwise::Mul => self.each([a, b], |[a, b]| a * b),
                Elementwise::Sub => self.each([a, b], |[a, b]| a - b),
                Elementwise::Divide(delta) => {
                    let delta = I::T::from_f64(delta);
                    self.each([a, b], |[r, z]| {
                        let z = if z < zero { z - delta } else { z + delta };
                        // An infinite divisor would make 0 of everything: it gives a NaN.
                        let z = if z * zero == zero { z } else { z * zero };
                        if z == zero { zero } else { r / z }
                    });
                }
                Elementwise::Quotient => self.each([a, b], |[a, b]| a / b),
                Elementwise::Scale(k) => {
                    let k = I::T::from_f64(k);
                    self.each([a], |[a]| k * a);
                }
                Elementwise::Smooth(f) => f.visit(Values(self)),
                Elementwise::Slope(f) => f.visit(Slopes(self)),
                Elementwise::RatioOr(threshold) => {
                    let threshold = I::T::from_f64(threshold);
                    self.each([a, b, c], |[a, b, c]| if b < threshold && b > zero - threshold { c } else { a / b });
                }
            }
        }
    }
}
