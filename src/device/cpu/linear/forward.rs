//! Forward: `out[k] = bias[k] + Σ_c W[k][c] x[c]`.

use std::ops::Range;

use super::super::isa::{CpuKernel, Isa};
use super::stored::{Bf16, DeviceNumbers, F16, Stored, WeightSource};
use super::{BLOCK_ROWS, COLUMNS, COPIES, LINE_BYTES, ROWS, row};
use crate::device::Spare;
use crate::graph::Weight;
use crate::tensor::Scalar;

/// The most copies, at most `left`, whose sums fit the registers: with 32, 6 copies of [`ROWS`] rows, a vector of weights of
/// each row and one of the input.
#[inline(always)]
const fn together<I: Isa>(left: usize) -> usize {
    match left {
        6.. if I::REGISTERS >= 32 => 6,
        4.. if I::REGISTERS >= 32 => 4,
        3.. if I::REGISTERS < 32 => 3,
        2.. => 2,
        _ => 1,
    }
}

/// How many of a row's two chains of sums fit the registers, for this many copies.
#[inline(always)]
const fn chains<I: Isa>(copies: usize) -> usize {
    if copies == 1 || copies == 2 && I::REGISTERS >= 32 { 2 } else { 1 }
}

/// Offsets of input vectors to read, as (even, odd) pairs, because the two are accumulated separately. Vectors that are zero
/// in every copy are dropped if that saves a quarter or more.
///
/// # Safety
/// `x` holds the layer's columns for each copy, `x_step` numbers apart.
pub(in super::super) unsafe fn live<I: Isa>(
    weight: &Weight,
    x: *const I::T,
    x_step: usize,
    copies: usize,
    spare: &mut Spare,
) -> Vec<[usize; 2]> {
    let pairs = weight.row_len() / (2 * I::LANES);
    let mut all = spare.of((0..pairs).map(|i| [2 * i * I::LANES, (2 * i + 1) * I::LANES]));
    if matches!(WeightSource::of::<I>(weight), WeightSource::Scratch) {
        return all;
    }
    let is_live = |at: usize| {
        (0..copies).any(|n| {
            // SAFETY: whole vectors of columns.
            let numbers = unsafe { std::slice::from_raw_parts(x.add(n * x_step + at), I::LANES) };
            numbers.iter().any(|&x| x != I::T::ZERO)
        })
    };
    let (mut halves, mut dead) = ([spare.take(pairs), spare.take(pairs)], [0, I::LANES]);
    for at in (0..2 * pairs * I::LANES).step_by(I::LANES) {
        let half = at / I::LANES % 2;
        if is_live(at) {
            halves[half].push(at);
        } else {
            dead[half] = at;
        }
    }
    let [mut even, mut odd] = halves;
    // The lists are traversed together, so the longer one counts. Scattered vectors are read more slowly than
    // consecutive ones. With more than three quarters of them, nothing is gained.
    let count = even.len().max(odd.len());
    if 4 * count <= 3 * pairs {
        // The shorter list lacks at least one vector, whose products are zero.
        even.resize(count, dead[0]);
        odd.resize(count, dead[1]);
        all.clear();
        all.extend(even.iter().zip(&odd).map(|(&even, &odd)| [even, odd]));
    }
    spare.keep(even);
    spare.keep(odd);
    all
}

/// `out[k] = bias[k] + Σ_c W[k][c] x[c]` for some rows and all copies.
///
/// Each lane sums every `2 · LANES`-th product. Then lanes are added pairwise, then the tail. This order depends only
/// on the row's length. The product of a finite weight and zero does not change a sum, so it does not matter which of
/// them are dropped.
pub(in super::super) struct LinearForward<'a, I: Isa> {
    pub weight: &'a Weight,
    pub bias: *const I::T,
    pub x: *const I::T,
    pub x_step: usize,
    pub out: *mut I::T,
    pub out_step: usize,
    pub copies: usize,
    pub rows: Range<usize>,
    /// From [`live`].
    pub live: &'a [[usize; 2]],
    /// [`scratch`](super::scratch) numbers.
    pub scratch: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for LinearForward<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the weights are where the place says.
        unsafe {
            match WeightSource::of::<I>(self.weight) {
                WeightSource::Numbers(stored) => self.all::<DeviceNumbers>(Some(stored)),
                WeightSource::F16(stored) => self.all::<F16>(Some(stored)),
                WeightSource::Bf16(stored) => self.all::<Bf16>(Some(stored)),
                WeightSource::Scratch => self.all::<DeviceNumbers>(None),
            }
        }
    }
}

impl<I: Isa> LinearForward<'_, I> {
    /// Pairs of vectors of a block.
    const PAIRS: usize = COLUMNS / (2 * I::LANES);

    #[inline(always)]
    unsafe fn all<S: Stored<I>>(&self, stored: Option<*const u8>) {
        for first in self.rows.clone().step_by(BLOCK_ROWS) {
            let rows = first..self.rows.end.min(first + BLOCK_ROWS);
            for copy in (0..self.copies).step_by(COPIES) {
                // SAFETY: the device gives pointers to vectors of the layer's lengths for each copy and enough scratch.
                unsafe { self.block::<S>(stored, &rows, copy..self.copies.min(copy + COPIES)) };
            }
        }
    }

    #[inline(always)]
    unsafe fn block<S: Stored<I>>(&self, stored: Option<*const u8>, rows: &Range<usize>, copies: Range<usize>) {
        let columns = self.weight.row_len();
        let whole = columns / (2 * I::LANES) * 2 * I::LANES;
        // SAFETY: as for `all`; packed inputs and then sums, `[copy][row][chain]` vectors, follow the converted
        // weights.
        unsafe {
            let packed = self.scratch.add(ROWS * COLUMNS);
            let sums = packed.add(COPIES * COLUMNS);
            let sum_at = |n: usize, r: usize| sums.add((n * BLOCK_ROWS + r) * 2 * I::LANES);
            for i in 0..copies.len() * BLOCK_ROWS * 2 {
                I::store(sums.add(i * I::LANES), I::zero());
            }
            for first in (0..self.live.len()).step_by(Self::PAIRS) {
                let pairs = &self.live[first..self.live.len().min(first + Self::PAIRS)];
                let mut n = 0;
                while n < copies.len() {
                    let p = together::<I>(copies.len() - n);
                    self.pack(pairs, copies.start + n..copies.start + n + p, packed.add(n * COLUMNS));
                    n += p;
                }
                for quad in (0..rows.len()).step_by(ROWS) {
                    // Rows past the end repeat the last one; their sums are dropped.
                    let k = |r: usize| rows.end.min(rows.start + quad + r + 1) - 1;
                    let mut w = [std::ptr::null(); ROWS];
                    for (r, w) in w.iter_mut().enumerate() {
                        *w = match stored {
                            Some(stored) => stored.add(k(r) * columns * S::BYTES),
                            None => {
                                // All vectors are live.
                                let block = pairs[0][0]..pairs[0][0] + pairs.len() * 2 * I::LANES;
                                let start = block.start * S::BYTES;
                                let numbers = row::<I::T>(self.weight, k(r), block, self.scratch.add(r * COLUMNS));
                                numbers.cast::<u8>().wrapping_sub(start)
                            }
                        };
                    }
                    let (next, next_pairs) = match stored {
                        Some(stored) => self.next::<S>(stored, rows, rows.start + quad + ROWS, first, copies.end),
                        None => (w, pairs),
                    };
                    let (mut n, mut fetched) = (0, 0);
                    while n < copies.len() {
                        let p = together::<I>(copies.len() - n);
                        let (x, sums) = (packed.add(n * COLUMNS).cast_const(), sum_at(n, quad));
                        if p == copies.len() {
                            dots_of::<I, S, ROWS>(p, &w, x, pairs, &next, next_pairs, sums);
                        } else {
                            // The next weights are prefetched two rows at a time, then the current ones, which costs
                            // nothing.
                            let some = if fetched < ROWS { &next[fetched..] } else { &w };
                            dots_of::<I, S, 2>(p, &w, x, pairs, &[some[0], some[1]], next_pairs, sums);
                            fetched += 2;
                        }
                        n += p;
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
                    // A sum of −0 becomes +0, so that it does not matter which products with zeros were added or left
                    // out.
                    *self.out.add(n * self.out_step + k) = sum + I::T::ZERO + bias;
                }
            }
        }
    }

    /// The rows and vectors whose products come after those of the rows before `at` in the block from pair `first` on:
    /// at most as many vectors as that block has.
    #[inline(always)]
    unsafe fn next<S: Stored<I>>(
        &self,
        stored: *const u8,
        rows: &Range<usize>,
        mut at: usize,
        first: usize,
        copies_end: usize,
    ) -> ([*const u8; ROWS], &[[usize; 2]]) {
        let mut first = first;
        if at >= rows.end {
            at = rows.start;
            first += Self::PAIRS;
            if first >= self.live.len() {
                first = 0;
                if copies_end == self.copies {
                    at = rows.end;
                }
            }
        }
        let pairs = &self.live[first..self.live.len().min(first + Self::PAIRS)];
        let row = |r: usize| {
            let k = (at + r).min(self.weight.rows() - 1);
            stored.wrapping_add(k * self.weight.row_len() * S::BYTES)
        };
        (std::array::from_fn(row), pairs)
    }

    /// Copies of `x` side by side: `[chain][pair][copy]` if chains are summed one after the other, else
    /// `[pair][chain][copy]`.
    #[inline(always)]
    unsafe fn pack(&self, pairs: &[[usize; 2]], copies: Range<usize>, mut to: *mut I::T) {
        let chains = chains::<I>(copies.len());
        // SAFETY: `x` holds the pairs' vectors for each copy, `to` has room for them.
        unsafe {
            for first in (0..2).step_by(chains) {
                for pair in pairs {
                    for &c in &pair[first..first + chains] {
                        for n in copies.clone() {
                            I::store(to, I::load(self.x.add(n * self.x_step + c)));
                            to = to.add(I::LANES);
                        }
                    }
                }
            }
        }
    }
}

/// [`dots`] for `copies` copies, a number from [`together`].
#[inline(always)]
unsafe fn dots_of<I: Isa, S: Stored<I>, const FETCH: usize>(
    copies: usize,
    w: &[*const u8; ROWS],
    x: *const I::T,
    pairs: &[[usize; 2]],
    next: &[*const u8; FETCH],
    next_pairs: &[[usize; 2]],
    sums: *mut I::T,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match copies {
            6 if I::REGISTERS >= 32 => dots::<I, S, 6, 1, FETCH>(w, x, pairs, next, next_pairs, sums),
            4 if I::REGISTERS >= 32 => dots::<I, S, 4, 1, FETCH>(w, x, pairs, next, next_pairs, sums),
            3 if I::REGISTERS < 32 => dots::<I, S, 3, 1, FETCH>(w, x, pairs, next, next_pairs, sums),
            2 if I::REGISTERS < 32 => dots::<I, S, 2, 1, FETCH>(w, x, pairs, next, next_pairs, sums),
            2 => dots::<I, S, 2, 2, FETCH>(w, x, pairs, next, next_pairs, sums),
            _ => dots::<I, S, 1, 2, FETCH>(w, x, pairs, next, next_pairs, sums),
        }
    }
}

/// Adds products of `ROWS` rows with `P` copies, packed for `H` halves at a time, to `sums`, `[copy][row of a
/// block][chain]`; prefetches the next weights meanwhile.
#[inline(always)]
unsafe fn dots<I: Isa, S: Stored<I>, const P: usize, const H: usize, const FETCH: usize>(
    w: &[*const u8; ROWS],
    mut x: *const I::T,
    pairs: &[[usize; 2]],
    next: &[*const u8; FETCH],
    next_pairs: &[[usize; 2]],
    sums: *mut I::T,
) {
    // SAFETY: rows hold the pairs' vectors, `x` as many for each copy; sums are those of a block.
    unsafe {
        let at = |n: usize, r: usize, half: usize| sums.add(((n * BLOCK_ROWS + r) * 2 + half) * I::LANES);
        let last = next_pairs.len() - 1;
        for first in (0..2).step_by(H) {
            let mut sum = [[[I::zero(); H]; ROWS]; P];
            for (n, sum) in sum.iter_mut().enumerate() {
                for (r, sum) in sum.iter_mut().enumerate() {
                    for (h, sum) in sum.iter_mut().enumerate() {
                        *sum = I::load(at(n, r, first + h));
                    }
                }
            }
            for (i, pair) in pairs.iter().enumerate() {
                for h in 0..H {
                    // If a line holds both vectors of a pair, it is prefetched once.
                    if first + h == 0 || I::LANES * S::BYTES >= LINE_BYTES {
                        let c = next_pairs.get_unchecked(i.min(last))[first + h] * S::BYTES;
                        for next in next {
                            I::prefetch_far(next.wrapping_add(c));
                        }
                    }
                    let mut weights = [I::zero(); ROWS];
                    for (weight, w) in weights.iter_mut().zip(w) {
                        *weight = S::load(w.wrapping_add(pair[first + h] * S::BYTES));
                    }
                    for sum in &mut sum {
                        let v = I::load(x);
                        x = x.add(I::LANES);
                        for (sum, &weight) in sum.iter_mut().zip(&weights) {
                            sum[h] = I::fma(weight, v, sum[h]);
                        }
                    }
                }
            }
            for (n, sum) in sum.iter().enumerate() {
                for (r, sum) in sum.iter().enumerate() {
                    for (h, &sum) in sum.iter().enumerate() {
                        I::store(at(n, r, first + h), sum);
                    }
                }
            }
        }
    }
}
