//! The adjoint: `out[c] = Σ_k W[k][c] s[k]`.

use std::ops::Range;

use super::super::isa::{CpuKernel, Isa};
use super::stored::{Bf16, DeviceNumbers, F16, Stored, WeightSource};
use super::{ADJOINT_ROWS, COLUMNS, COPIES, LINE_BYTES, row};
use crate::graph::Weight;
use crate::tensor::Scalar;

/// `out[c] = Σ_k W[k][c] s[k]` for some columns and all copies, rows in order. Rows whose signal is zero in every copy
/// are skipped.
pub(in super::super) struct Adjoint<'a, I: Isa> {
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

impl<I: Isa> CpuKernel<I> for Adjoint<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the weights are where the place says.
        unsafe {
            match WeightSource::of::<I>(self.weight) {
                WeightSource::Numbers(stored) => self.columns::<DeviceNumbers>(Some(stored)),
                WeightSource::F16(stored) => self.columns::<F16>(Some(stored)),
                WeightSource::Bf16(stored) => self.columns::<Bf16>(Some(stored)),
                WeightSource::Scratch => self.columns::<DeviceNumbers>(None),
            }
        }
    }
}

impl<I: Isa> Adjoint<'_, I> {
    #[inline(always)]
    unsafe fn columns<S: Stored<I>>(&self, stored: Option<*const u8>) {
        let count = self.columns.len();
        // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and enough scratch.
        unsafe {
            let sums = self.scratch.add(ADJOINT_ROWS * COLUMNS);
            for first in (0..self.copies).step_by(COPIES) {
                let copies = first..self.copies.min(first + COPIES);
                for i in 0..copies.len() * COLUMNS {
                    *sums.add(i) = I::T::ZERO;
                }
                // With many copies, more rows are worthwhile while their sums are in registers.
                let block = if copies.len() <= 4 { ADJOINT_ROWS / 2 } else { ADJOINT_ROWS };
                for k in (0..self.weight.rows()).step_by(block) {
                    self.rows::<S>(stored, k..self.weight.rows().min(k + block), &copies, sums);
                }
                for (i, n) in copies.enumerate() {
                    let out = self.out.add(n * self.out_step + self.columns.start);
                    for c in 0..count {
                        // A sum of −0 becomes +0, so that it does not matter which rows without a signal were added or
                        // skipped.
                        *out.add(c) = *sums.add(i * COLUMNS + c) + I::T::ZERO;
                    }
                }
            }
        }
    }

    /// Adds some rows to the sums of some copies.
    #[inline(always)]
    unsafe fn rows<S: Stored<I>>(
        &self,
        stored: Option<*const u8>,
        rows: Range<usize>,
        copies: &Range<usize>,
        sums: *mut I::T,
    ) {
        let count = self.columns.len();
        let whole = count / I::LANES * I::LANES;
        // SAFETY: as for `columns`.
        unsafe {
            let mut w = [std::ptr::null(); ADJOINT_ROWS];
            let mut tails = [std::ptr::null(); ADJOINT_ROWS];
            let mut s = [[I::T::ZERO; COPIES]; ADJOINT_ROWS];
            let mut live = 0;
            for k in rows {
                for (s, n) in s[live].iter_mut().zip(copies.clone()) {
                    *s = *self.s.add(n * self.s_step + k);
                }
                if s[live][..copies.len()].iter().any(|&s| s != I::T::ZERO) {
                    let scratch = self.scratch.add(live * COLUMNS);
                    if let Some(stored) = stored {
                        w[live] = stored.add((k * self.weight.row_len() + self.columns.start) * S::BYTES);
                        for line in (0..4 * I::LANES * S::BYTES).step_by(LINE_BYTES) {
                            I::prefetch_near(w[live].wrapping_add(line));
                        }
                        if whole < count {
                            let rest = self.columns.start + whole..self.columns.end;
                            tails[live] = row::<I::T>(self.weight, k, rest, scratch);
                        }
                    } else {
                        let numbers = row::<I::T>(self.weight, k, self.columns.clone(), scratch);
                        (w[live], tails[live]) = (numbers.cast(), numbers.add(whole));
                    }
                    live += 1;
                }
            }
            let (w, tails, s) = (&w[..live], &tails[..live], &s[..live]);
            for c in (0..whole).step_by(4 * I::LANES) {
                let mut n = 0;
                while n < copies.len() {
                    let left = copies.len() - n;
                    let sums = sums.add(n * COLUMNS + c);
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if ($p <= 2 || I::REGISTERS >= 32) && left >= $p {
                                if whole - c >= 4 * I::LANES {
                                    add_rows::<I, S, $p, 4>(w, s, c, n, sums);
                                } else {
                                    for q in (c..whole).step_by(I::LANES) {
                                        add_rows::<I, S, $p, 1>(w, s, q, n, sums.add(q - c));
                                    }
                                }
                                n += $p;
                                continue;
                            })+
                        };
                    }
                    step!(6, 4, 2, 1);
                }
            }
            for i in 0..copies.len() {
                for (&w, s) in tails.iter().zip(s) {
                    for c in whole..count {
                        let to = sums.add(i * COLUMNS + c);
                        *to = s[i] * *w.add(c - whole) + *to;
                    }
                }
            }
        }
    }
}

/// Adds rows to the sums of `P` copies from copy `n` on, `Q` vectors of columns from `c` on.
#[inline(always)]
unsafe fn add_rows<I: Isa, S: Stored<I>, const P: usize, const Q: usize>(
    w: &[*const u8],
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
            // Pages are so far apart that the next columns of a row must be prefetched.
            if n == 0 {
                for line in (0..Q * I::LANES * S::BYTES).step_by(LINE_BYTES) {
                    I::prefetch_near(w.wrapping_add((c + Q * I::LANES) * S::BYTES + line));
                }
            }
            let mut weights = [I::zero(); Q];
            for (q, weight) in weights.iter_mut().enumerate() {
                *weight = S::load(w.add((c + q * I::LANES) * S::BYTES));
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
