//! Linear layers, straight from the stored weights `[k][c]`: no packed copy.
//!
//! Both directions are bound by reading the weights, so each weight is read once for a whole chunk of copies. Weights that
//! are not stored as numbers of the device (half precision, scaled rows, the double-precision twin) are converted a few
//! rows at a time.

use std::ops::Range;

use super::isa::{Isa, Kernel};
use crate::graph::Weight;
use crate::tensor::Scalar;

/// Rows whose sums are computed together.
pub(super) const ROWS: usize = 4;
/// Columns of an adjoint's task.
pub(super) const COLUMNS: usize = 512;
/// Copies whose adjoint sums are kept in the first-level cache together.
const COPIES: usize = 8;

/// Numbers of the weight, in place or converted into scratch.
#[inline(always)]
unsafe fn row<T: Scalar>(weight: &Weight, k: usize, columns: Range<usize>, scratch: *mut T) -> *const T {
    match weight.in_place::<T>() {
        Some(all) => all[k * weight.row_len() + columns.start..].as_ptr(),
        None => {
            // SAFETY: scratch holds a row.
            let out = unsafe { std::slice::from_raw_parts_mut(scratch, columns.len()) };
            weight.read(k, columns, out);
            scratch
        }
    }
}

/// `out[k] = bias[k] + Σ_c W[k][c] x[c]` for some rows and all copies.
pub(super) struct Forward<'a, I: Isa> {
    pub weight: &'a Weight,
    pub bias: *const I::T,
    pub x: *const I::T,
    pub x_step: usize,
    pub out: *mut I::T,
    pub out_step: usize,
    pub copies: usize,
    pub rows: Range<usize>,
    /// `ROWS` rows.
    pub scratch: *mut I::T,
}

impl<I: Isa> Kernel<I> for Forward<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let columns = self.weight.row_len();
        // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and scratch for `ROWS` rows.
        unsafe {
            let mut k = self.rows.start;
            while k < self.rows.end {
                let count = (self.rows.end - k).min(ROWS);
                let mut w = [std::ptr::null(); ROWS];
                for (r, w) in w.iter_mut().enumerate() {
                    // Rows past the end repeat the last one; their sums are dropped.
                    *w = row::<I::T>(self.weight, k + r.min(count - 1), 0..columns, self.scratch.add(r * columns));
                }
                for n in 0..self.copies {
                    let sums = dots::<I>(&w, self.x.add(n * self.x_step), columns);
                    for (r, &sum) in sums[..count].iter().enumerate() {
                        let bias = if self.bias.is_null() { I::T::ZERO } else { *self.bias.add(k + r) };
                        *self.out.add(n * self.out_step + k + r) = sum + bias;
                    }
                }
                k += count;
            }
        }
    }
}

/// Products of `ROWS` rows with one vector. Each lane sums every `2 · LANES`-th product, then lanes are added pairwise,
/// then the tail: an order that depends on the length only.
#[inline(always)]
unsafe fn dots<I: Isa>(w: &[*const I::T; ROWS], x: *const I::T, len: usize) -> [I::T; ROWS] {
    // SAFETY: rows and vector hold `len` numbers.
    unsafe {
        let mut sum = [[I::zero(); 2]; ROWS];
        let step = 2 * I::LANES;
        let whole = len / step * step;
        let mut c = 0;
        while c < whole {
            for half in 0..2 {
                let at = c + half * I::LANES;
                let x = I::load(x.add(at));
                for (sum, w) in sum.iter_mut().zip(w) {
                    sum[half] = I::fma(I::load(w.add(at)), x, sum[half]);
                }
            }
            c += step;
        }
        let mut out = [I::T::ZERO; ROWS];
        for ((out, sum), w) in out.iter_mut().zip(&sum).zip(w) {
            let mut lanes = [I::T::ZERO; 16];
            I::store(lanes.as_mut_ptr(), I::add(sum[0], sum[1]));
            let mut width = I::LANES / 2;
            while width > 0 {
                for i in 0..width {
                    lanes[i] += lanes[i + width];
                }
                width /= 2;
            }
            *out = lanes[0];
            for c in whole..len {
                *out += *w.add(c) * *x.add(c);
            }
        }
        out
    }
}

/// `out[c] = Σ_k W[k][c] s[k]` for some columns and all copies, rows in order; rows whose signal is 0 are skipped.
pub(super) struct Adjoint<'a, I: Isa> {
    pub weight: &'a Weight,
    pub s: *const I::T,
    pub s_step: usize,
    pub out: *mut I::T,
    pub out_step: usize,
    pub copies: usize,
    /// Starts at a multiple of the lanes.
    pub columns: Range<usize>,
    /// `COLUMNS · (COPIES + 1)` numbers.
    pub scratch: *mut I::T,
}

/// Scratch numbers of an adjoint's task.
pub(super) const ADJOINT_SCRATCH: usize = COLUMNS * (COPIES + 1);

impl<I: Isa> Kernel<I> for Adjoint<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let count = self.columns.len();
        let whole = count / I::LANES * I::LANES;
        // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and enough scratch.
        unsafe {
            let sums = self.scratch.add(COLUMNS);
            let mut first = 0;
            while first < self.copies {
                let copies = (self.copies - first).min(COPIES);
                for i in 0..copies * COLUMNS {
                    *sums.add(i) = I::T::ZERO;
                }
                for k in 0..self.weight.rows() {
                    let live = (0..copies).any(|n| *self.s.add((first + n) * self.s_step + k) != I::T::ZERO);
                    if !live {
                        continue;
                    }
                    let w = row::<I::T>(self.weight, k, self.columns.clone(), self.scratch);
                    for n in 0..copies {
                        let s = *self.s.add((first + n) * self.s_step + k);
                        if s == I::T::ZERO {
                            continue;
                        }
                        let sum = sums.add(n * COLUMNS);
                        let signal = I::splat(s);
                        let mut c = 0;
                        while c < whole {
                            let v = I::fma(signal, I::load(w.add(c)), I::load(sum.add(c)));
                            I::store(sum.add(c), v);
                            c += I::LANES;
                        }
                        for c in whole..count {
                            *sum.add(c) = s * *w.add(c) + *sum.add(c);
                        }
                    }
                }
                for n in 0..copies {
                    let out = self.out.add((first + n) * self.out_step + self.columns.start);
                    std::ptr::copy_nonoverlapping(sums.add(n * COLUMNS), out, count);
                }
                first += copies;
            }
        }
    }
}
