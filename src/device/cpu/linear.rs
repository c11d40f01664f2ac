//! Linear layers, straight from the stored weights `[k][c]`: no packed copy.
//!
//! Both directions are bound by reading the weights, so each weight is read from memory once for a whole chunk of copies and
//! then serves some copies at a time from registers. Weights that are not stored as numbers of the device (half precision,
//! scaled rows, the double-precision twin) are converted a block at a time.

use std::ops::Range;

use super::isa::{Isa, Kernel};
use crate::graph::Weight;
use crate::tensor::Scalar;

/// Rows whose sums are computed together.
const ROWS: usize = 4;
/// Rows of a block; a task takes whole blocks.
pub(super) const BLOCK_ROWS: usize = 16;
/// Columns of a block, and of an adjoint's task; a multiple of `2 · LANES`.
pub(super) const COLUMNS: usize = 1024;
/// Copies whose sums are kept close to the core together.
const COPIES: usize = 16;
/// Rows of an adjoint's block.
const ADJOINT_ROWS: usize = 32;

/// Scratch numbers of a task: converted weights, and sums of all copies.
pub(super) const fn scratch(lanes: usize) -> usize {
    ROWS * COLUMNS + BLOCK_ROWS * COPIES * 2 * lanes
}

/// Scratch numbers of an adjoint's task.
pub(super) const ADJOINT_SCRATCH: usize = (ADJOINT_ROWS + COPIES) * COLUMNS;

/// Numbers of the weight, in place or converted into scratch.
#[inline(always)]
unsafe fn row<T: Scalar>(weight: &Weight, k: usize, columns: Range<usize>, scratch: *mut T) -> *const T {
    match weight.in_place::<T>() {
        Some(all) => all[k * weight.row_len() + columns.start..].as_ptr(),
        None => {
            // SAFETY: scratch holds a block's row.
            let out = unsafe { std::slice::from_raw_parts_mut(scratch, columns.len()) };
            weight.read(k, columns, out);
            scratch
        }
    }
}

/// `out[k] = bias[k] + Σ_c W[k][c] x[c]` for some rows and all copies.
///
/// Each lane sums every `2 · LANES`-th product, then lanes are added pairwise, then the tail: an order that depends on the
/// row's length only.
pub(super) struct Forward<'a, I: Isa> {
    pub weight: &'a Weight,
    pub bias: *const I::T,
    pub x: *const I::T,
    pub x_step: usize,
    pub out: *mut I::T,
    pub out_step: usize,
    pub copies: usize,
    pub rows: Range<usize>,
    /// [`scratch`] numbers.
    pub scratch: *mut I::T,
}

impl<I: Isa> Kernel<I> for Forward<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        for first in self.rows.clone().step_by(BLOCK_ROWS) {
            let rows = first..self.rows.end.min(first + BLOCK_ROWS);
            for copy in (0..self.copies).step_by(COPIES) {
                // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and enough scratch.
                unsafe { self.block(&rows, copy..self.copies.min(copy + COPIES)) };
            }
        }
    }
}

impl<I: Isa> Forward<'_, I> {
    #[inline(always)]
    unsafe fn block(&self, rows: &Range<usize>, copies: Range<usize>) {
        let columns = self.weight.row_len();
        let whole = columns / (2 * I::LANES) * 2 * I::LANES;
        // SAFETY: as for `call`; sums are `[copy][row][half]` vectors behind the converted weights.
        unsafe {
            let sums = self.scratch.add(ROWS * COLUMNS);
            let sum_at = |n: usize, r: usize| sums.add((n * BLOCK_ROWS + r) * 2 * I::LANES);
            for i in 0..copies.len() * BLOCK_ROWS * 2 {
                I::store(sums.add(i * I::LANES), I::zero());
            }
            for first in (0..whole).step_by(COLUMNS) {
                let block = first..whole.min(first + COLUMNS);
                for quad in (0..rows.len()).step_by(ROWS) {
                    let mut w = [std::ptr::null(); ROWS];
                    for (r, w) in w.iter_mut().enumerate() {
                        // Rows past the end repeat the last one; their sums are dropped.
                        let k = rows.end.min(rows.start + quad + r + 1) - 1;
                        *w = row::<I::T>(self.weight, k, block.clone(), self.scratch.add(r * COLUMNS));
                    }
                    let mut n = 0;
                    while n < copies.len() {
                        let x = self.x.add((copies.start + n) * self.x_step + first);
                        if I::PIXELS >= 14 && copies.len() - n >= 3 {
                            dots::<I, 3>(&w, x, self.x_step, block.len(), sum_at(n, quad));
                            n += 3;
                        } else {
                            dots::<I, 1>(&w, x, self.x_step, block.len(), sum_at(n, quad));
                            n += 1;
                        }
                    }
                }
            }
            for (r, k) in rows.clone().enumerate() {
                let tail = row::<I::T>(self.weight, k, whole..columns, self.scratch);
                let bias = if self.bias.is_null() { I::T::ZERO } else { *self.bias.add(k) };
                for (i, n) in copies.clone().enumerate() {
                    let halves = sum_at(i, r);
                    let mut lanes = [I::T::ZERO; 16];
                    I::store(lanes.as_mut_ptr(), I::add(I::load(halves), I::load(halves.add(I::LANES))));
                    let mut width = I::LANES / 2;
                    while width > 0 {
                        for i in 0..width {
                            lanes[i] += lanes[i + width];
                        }
                        width /= 2;
                    }
                    let mut sum = lanes[0];
                    for c in whole..columns {
                        sum += *tail.add(c - whole) * *self.x.add(n * self.x_step + c);
                    }
                    *self.out.add(n * self.out_step + k) = sum + bias;
                }
            }
        }
    }
}

/// Adds `len` products of `ROWS` rows with `P` copies to `sums`, `[copy][row of a block][half]`.
#[inline(always)]
unsafe fn dots<I: Isa, const P: usize>(
    w: &[*const I::T; ROWS],
    x: *const I::T,
    x_step: usize,
    len: usize,
    sums: *mut I::T,
) {
    // SAFETY: rows and vectors hold `len` numbers, a multiple of `2 · LANES`; sums are those of a block.
    unsafe {
        let at = |n: usize, r: usize, half: usize| sums.add(((n * BLOCK_ROWS + r) * 2 + half) * I::LANES);
        let mut sum = [[[I::zero(); 2]; ROWS]; P];
        for (n, sum) in sum.iter_mut().enumerate() {
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [I::load(at(n, r, 0)), I::load(at(n, r, 1))];
            }
        }
        for c in (0..len).step_by(2 * I::LANES) {
            for half in 0..2 {
                let c = c + half * I::LANES;
                let mut weights = [I::zero(); ROWS];
                for (weight, w) in weights.iter_mut().zip(w) {
                    *weight = I::load(w.add(c));
                }
                for (n, sum) in sum.iter_mut().enumerate() {
                    let x = I::load(x.add(n * x_step + c));
                    for (sum, &weight) in sum.iter_mut().zip(&weights) {
                        sum[half] = I::fma(weight, x, sum[half]);
                    }
                }
            }
        }
        for (n, sum) in sum.iter().enumerate() {
            for (r, sum) in sum.iter().enumerate() {
                I::store(at(n, r, 0), sum[0]);
                I::store(at(n, r, 1), sum[1]);
            }
        }
    }
}

/// `out[c] = Σ_k W[k][c] s[k]` for some columns and all copies, rows in order. Rows in which no copy has a signal are skipped.
pub(super) struct Adjoint<'a, I: Isa> {
    pub weight: &'a Weight,
    pub s: *const I::T,
    pub s_step: usize,
    pub out: *mut I::T,
    pub out_step: usize,
    pub copies: usize,
    /// At most [`COLUMNS`].
    pub columns: Range<usize>,
    /// [`ADJOINT_SCRATCH`] numbers.
    pub scratch: *mut I::T,
}

impl<I: Isa> Kernel<I> for Adjoint<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let count = self.columns.len();
        // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and enough scratch.
        unsafe {
            let sums = self.scratch.add(ADJOINT_ROWS * COLUMNS);
            for first in (0..self.copies).step_by(COPIES) {
                let copies = first..self.copies.min(first + COPIES);
                for i in 0..copies.len() * COLUMNS {
                    *sums.add(i) = I::T::ZERO;
                }
                for k in (0..self.weight.rows()).step_by(ADJOINT_ROWS) {
                    self.rows(k..self.weight.rows().min(k + ADJOINT_ROWS), &copies, sums);
                }
                for (i, n) in copies.enumerate() {
                    let out = self.out.add(n * self.out_step + self.columns.start);
                    for c in 0..count {
                        // A sum of −0 becomes +0, as if its rows without a signal had been added or skipped alike.
                        *out.add(c) = *sums.add(i * COLUMNS + c) + I::T::ZERO;
                    }
                }
            }
        }
    }
}

impl<I: Isa> Adjoint<'_, I> {
    /// Adds some rows to the sums of some copies.
    #[inline(always)]
    unsafe fn rows(&self, rows: Range<usize>, copies: &Range<usize>, sums: *mut I::T) {
        let count = self.columns.len();
        // SAFETY: as for `call`.
        unsafe {
            let mut w = [std::ptr::null(); ADJOINT_ROWS];
            let mut s = [[I::T::ZERO; COPIES]; ADJOINT_ROWS];
            let mut live = 0;
            for k in rows {
                for (s, n) in s[live].iter_mut().zip(copies.clone()) {
                    *s = *self.s.add(n * self.s_step + k);
                }
                if s[live][..copies.len()].iter().any(|&s| s != I::T::ZERO) {
                    w[live] = row::<I::T>(self.weight, k, self.columns.clone(), self.scratch.add(live * COLUMNS));
                    live += 1;
                }
            }
            let (w, s) = (&w[..live], &s[..live]);
            let mut c = 0;
            while c < count {
                let mut n = 0;
                while n < copies.len() {
                    let left = copies.len() - n;
                    let sums = sums.add(n * COLUMNS + c);
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if ($p <= 2 || I::PIXELS >= 14) && left >= $p {
                                if count - c >= 4 * I::LANES {
                                    add_rows::<I, $p, 4>(w, s, c, n, sums);
                                } else {
                                    add_rows_tail::<I>(w, s, c..count, n..n + $p, sums);
                                }
                                n += $p;
                                continue;
                            })+
                        };
                    }
                    step!(6, 4, 2, 1);
                }
                c += 4 * I::LANES;
            }
        }
    }
}

/// Adds rows to the sums of `P` copies from copy `n` on, `Q` vectors of columns from `c` on.
#[inline(always)]
unsafe fn add_rows<I: Isa, const P: usize, const Q: usize>(
    w: &[*const I::T],
    s: &[[I::T; COPIES]],
    c: usize,
    n: usize,
    sums: *mut I::T,
) {
    // SAFETY: rows and sums hold these columns.
    unsafe {
        let at = |p: usize, q: usize| sums.add(p * COLUMNS + q * I::LANES);
        let mut sum = [[I::zero(); Q]; P];
        for (p, sum) in sum.iter_mut().enumerate() {
            for (q, sum) in sum.iter_mut().enumerate() {
                *sum = I::load(at(p, q));
            }
        }
        for (w, s) in w.iter().zip(s) {
            let mut weights = [I::zero(); Q];
            for (q, weight) in weights.iter_mut().enumerate() {
                *weight = I::load(w.add(c + q * I::LANES));
            }
            for (p, sum) in sum.iter_mut().enumerate() {
                let signal = I::splat(s[n + p]);
                for q in 0..Q {
                    sum[q] = I::fma(signal, weights[q], sum[q]);
                }
            }
        }
        for (p, sum) in sum.iter().enumerate() {
            for (q, &sum) in sum.iter().enumerate() {
                I::store(at(p, q), sum);
            }
        }
    }
}

/// As [`add_rows`], for columns that fill no four vectors; whole vectors are fused like all others.
#[inline(always)]
unsafe fn add_rows_tail<I: Isa>(
    w: &[*const I::T],
    s: &[[I::T; COPIES]],
    columns: Range<usize>,
    copies: Range<usize>,
    sums: *mut I::T,
) {
    let whole = columns.start + columns.len() / I::LANES * I::LANES;
    for (p, n) in copies.enumerate() {
        for (&w, s) in w.iter().zip(s) {
            // SAFETY: as for `add_rows`.
            unsafe {
                let (signal, sums) = (I::splat(s[n]), sums.add(p * COLUMNS));
                for c in (columns.start..whole).step_by(I::LANES) {
                    let to = sums.add(c - columns.start);
                    I::store(to, I::fma(signal, I::load(w.add(c)), I::load(to)));
                }
                for c in whole..columns.end {
                    let to = sums.add(c - columns.start);
                    *to = s[n] * *w.add(c) + *to;
                }
            }
        }
    }
}
