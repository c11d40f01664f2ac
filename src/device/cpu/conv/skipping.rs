//! Direct convolutions that multiply nothing by zero.
//!
//! About half of what leaves a ReLU, forward or backward, is exactly zero, and at most a quarter of what leaves the adjoint of
//! a 2×2 pooling is anything else ([`Zeros`]). Here the sums of two neighbouring positions for some channel blocks live in
//! registers, and the numbers that they read are taken one at a time, zeros left out, each times a row of weights that lies
//! in the first-level cache. To stay there, weights are taken in slabs of [`ROWS`] rows; between slabs sums wait in scratch.
//! Weights are finite, so nothing but zeros is left out.
//!
//! A row of weights serves both positions where neither reads a zero, so those rows come first within a slab; otherwise
//! sums run as in all direct convolutions (block, tap, channel). Pairs are the positions 2i and 2i + 1 of a line: bands of a
//! single line are cut between pairs.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::pack::{Channels, Group};
use super::{Geometry, Out, Source, Task};
use crate::device::cpu::isa::Isa;
use crate::program::{ConvLayer, Zeros};

/// Blocks below which a row of weights is too short to be worth the search for it.
const LEAST_BLOCKS: usize = 3;
/// Rows of weights in a slab: as many as a word has bits. With eight blocks of AVX-512 they take 32 KiB, a whole first-level
/// cache, of which the numbers at hand name half or less.
const ROWS: usize = 64;
/// Sums of a band that should stay in the second-level cache (1 MiB where this was tuned) beside what is read.
const SUM_BYTES: usize = 256 << 10;
/// Positions of a band that pay for reading a slab.
const LEAST_POSITIONS: usize = 128;

/// Whether so few numbers are not zero that fewer products are left than by Winograd's transforms, or few more, and no
/// transforms.
pub(super) fn few_left(zeros: Zeros) -> bool {
    matches!(zeros, Zeros::AllButOneIn(3..))
}

/// The groups of written channels and the packed weights' elements, if zeros are to be expected and worth skipping.
pub(super) fn groups<I: Isa>(
    layer: &ConvLayer,
    channels: &Channels,
    geometry: &Geometry,
    zeros: Zeros,
) -> Option<(Vec<Group>, usize)> {
    let (read, blocks) = (geometry.read.c, channels.written.div_ceil(I::LANES));
    let pays = I::SKIPS > 0 && (zeros == Zeros::Many || few_left(zeros)) && layer.groups == 1;
    if !pays || !read.is_multiple_of(I::LANES) || blocks < LEAST_BLOCKS {
        return None;
    }
    // Blocks of one position fall into few sets of a cache: with a single slab, few are written at a time.
    let taps = geometry.grids.iter().map(|g| g.taps.len()).max().unwrap_or(0);
    let most = if taps * read <= ROWS { I::SKIPS.min(4) } else { I::SKIPS };
    let count = blocks.div_ceil(most);
    let mut groups = Vec::with_capacity(count);
    let mut len = 0;
    for i in 0..count {
        let (first_block, end) = (i * blocks / count, (i + 1) * blocks / count);
        let mut offsets = Vec::with_capacity(geometry.grids.len());
        for grid in &geometry.grids {
            offsets.push(len);
            len += grid.taps.len() * read * (end - first_block) * I::LANES;
        }
        groups.push(Group { first_block, blocks: end - first_block, channels: 0..read, offsets });
    }
    Some((groups, len))
}

/// Rows (columns if flat, where `row` is 1) of a band, and elements of its sums: about `band` at most, `row` positions each,
/// `rows` in all. Where a band starts decides which positions are a pair, and so bits: it is a matter of the shape and the
/// instruction set alone.
pub(super) fn band<I: Isa>(groups: &[Group], band: usize, row: usize, rows: usize) -> (usize, usize) {
    let width = groups.iter().map(|g| g.blocks).max().unwrap_or(0) * I::LANES;
    let fits = SUM_BYTES / (width * row * size_of::<I::T>()).max(1);
    // A few bands, so that threads share even a single picture.
    let shared = rows.div_ceil((rows * row / LEAST_POSITIONS).clamp(1, 8));
    let band = band.min(fits).min(shared).max(1);
    let band = if row == 1 { band.next_multiple_of(2) } else { band };
    (band, band * row * width)
}

/// Some taps of some blocks: [`ROWS`] rows of weights or fewer.
struct Slab<T> {
    /// What is read, relative to a position's base; the first `count` count.
    from: [isize; ROWS],
    count: usize,
    weights: *const T,
    first: bool,
    last: bool,
}

/// Where positions are written: the first of the blocks, and the first position's vector within a block.
#[derive(Clone, Copy)]
struct At {
    block: usize,
    index: usize,
}

impl<I: Isa> Task<'_, I> {
    /// All positions of the band, for one group of `Q` channel blocks.
    #[inline(always)]
    pub(super) unsafe fn skipping<const Q: usize>(
        &self,
        group: &Group,
        source: Source<I::T>,
        rows: &Range<usize>,
        columns: &Range<usize>,
        taps: &mut Vec<isize>,
    ) {
        let geometry = &self.plan.geometry;
        for (g, grid) in geometry.grids.iter().enumerate() {
            self.offsets(g, source, rows, taps);
            let all = geometry.read.c / I::LANES * taps.len();
            let end = if self.plan.flat { columns.end } else { columns.end.min(grid.extent[1]) };
            let mut first = 0;
            loop {
                let count = (all - first).min(ROWS / I::LANES);
                let mut from = [0; ROWS];
                for (i, from) in (first..first + count).zip(&mut from) {
                    *from = (i / taps.len() * source.block) as isize + taps[i % taps.len()];
                }
                let slab = Slab {
                    from,
                    count,
                    // SAFETY: the group's rows follow one another in this order.
                    weights: unsafe { self.weights.add(group.offsets[g] + first * I::LANES * Q * I::LANES) },
                    first: first == 0,
                    last: first + count == all,
                };
                // SAFETY: bands and sub-grids stay inside the plan's extents; scratch holds the band's sums.
                unsafe {
                    let out = Out::<I>::new(&self.view);
                    let mut sums = self.scratch.add(self.plan.sums_at);
                    for i in rows.start..rows.end.min(grid.extent[0]) {
                        let base = if self.plan.halo.is_some() { i - rows.start } else { i } * geometry.read_step[0];
                        let x = source.base.add(base * source.row);
                        let y = grid.origin[0] + i * geometry.write_step[0];
                        let line = y * geometry.written.w + grid.origin[1];
                        let mut j = columns.start;
                        while j < end {
                            let x = x.add(j * source.pixel);
                            let at = At { block: group.first_block, index: line + j * geometry.write_step[1] };
                            if end - j >= 2 {
                                self.positions::<2, Q>(&slab, [x, x.add(source.pixel)], at, sums, &out);
                                j += 2;
                                sums = sums.add(2 * Q * I::LANES);
                            } else {
                                self.positions::<1, Q>(&slab, [x], at, sums, &out);
                                j += 1;
                                sums = sums.add(Q * I::LANES);
                            }
                        }
                    }
                }
                first += count;
                if first == all {
                    break;
                }
            }
        }
    }

    /// One slab of `P` neighbouring positions for `Q` blocks.
    #[inline(always)]
    unsafe fn positions<const P: usize, const Q: usize>(
        &self,
        slab: &Slab<I::T>,
        x: [*const I::T; P],
        at: At,
        sums: *mut I::T,
        out: &Out<I>,
    ) {
        // SAFETY: reads at the slab's taps, rows of weights of numbers that were read, these positions' sums in scratch;
        // writes those or `P · Q` vectors of the picture.
        unsafe {
            let mut sum = [[I::zero(); Q]; P];
            if !slab.first {
                for (p, sum) in sum.iter_mut().enumerate() {
                    for (q, sum) in sum.iter_mut().enumerate() {
                        *sum = I::load(sums.add((p * Q + q) * I::LANES));
                    }
                }
            } else if !self.view.finish.bias.is_null() {
                for q in 0..Q {
                    let bias = I::load(self.view.finish.bias.add((at.block + q) * I::LANES));
                    for sum in &mut sum {
                        sum[q] = bias;
                    }
                }
            }
            if slab.count == ROWS / I::LANES {
                add_live::<I, P, Q>(&mut sum, x, &slab.from, ROWS / I::LANES, slab.weights);
            } else {
                add_live::<I, P, Q>(&mut sum, x, &slab.from, slab.count, slab.weights);
            }
            // Finished from memory: the loop is too long to be unrolled, and sums that it indexed would not be in registers.
            for (p, sum) in sum.iter().enumerate() {
                for (q, &sum) in sum.iter().enumerate() {
                    I::store(sums.add((p * Q + q) * I::LANES), sum);
                }
            }
            if slab.last {
                let (plane, step) = (self.plan.geometry.written.plane(), self.plan.geometry.write_step[1]);
                for q in 0..Q {
                    for p in 0..P {
                        let sum = I::load(sums.add((p * Q + q) * I::LANES));
                        out.put((at.block + q) * plane + at.index + p * step, sum);
                    }
                }
            }
        }
    }
}

/// Adds the rows of weights of all numbers that are not zero: first where both positions have one, then the others.
#[inline(always)]
unsafe fn add_live<I: Isa, const P: usize, const Q: usize>(
    sum: &mut [[I::V; Q]; P],
    x: [*const I::T; P],
    from: &[isize; ROWS],
    count: usize,
    weights: *const I::T,
) {
    // SAFETY: `count` vectors can be read at each position; every bit that is set names one of their numbers and a row of
    // weights.
    unsafe {
        let mut numbers = MaybeUninit::<[[I::T; ROWS]; P]>::uninit();
        let numbers = numbers.as_mut_ptr().cast::<I::T>();
        let mut live = [0u64; P];
        for (v, &from) in from.iter().enumerate().take(count) {
            for p in 0..P {
                let vector = I::load(x[p].offset(from));
                live[p] |= u64::from(I::nonzero(vector)) << (v * I::LANES);
                I::store(numbers.add(p * ROWS + v * I::LANES), vector);
            }
        }
        if P == 2 {
            let mut both = live[0] & live[P - 1];
            while both != 0 {
                let at = both.trailing_zeros() as usize;
                both &= both - 1;
                let x = [I::splat(*numbers.add(at)), I::splat(*numbers.add(ROWS + at))];
                let row = weights.add(at * Q * I::LANES);
                for q in 0..Q {
                    let weight = I::load(row.add(q * I::LANES));
                    for (sum, &x) in sum.iter_mut().zip(&x) {
                        sum[q] = I::fma(x, weight, sum[q]);
                    }
                }
            }
            let both = live[0] & live[P - 1];
            live.iter_mut().for_each(|live| *live &= !both);
        }
        // Not a loop, which the compiler might leave one: then sums would live in memory.
        add_alone::<I, Q>(&mut sum[0], live[0], numbers, weights);
        if P == 2 {
            add_alone::<I, Q>(&mut sum[P - 1], live[P - 1], numbers.add(ROWS), weights);
        }
    }
}

/// Adds the rows of weights of one position's numbers that `live` names, in order.
#[inline(always)]
unsafe fn add_alone<I: Isa, const Q: usize>(
    sum: &mut [I::V; Q],
    mut live: u64,
    numbers: *const I::T,
    weights: *const I::T,
) {
    while live != 0 {
        let at = live.trailing_zeros() as usize;
        live &= live - 1;
        // SAFETY: every bit that is set names a number and a row of weights.
        unsafe {
            let x = I::splat(*numbers.add(at));
            let row = weights.add(at * Q * I::LANES);
            for (q, sum) in sum.iter_mut().enumerate() {
                *sum = I::fma(x, I::load(row.add(q * I::LANES)), *sum);
            }
        }
    }
}
