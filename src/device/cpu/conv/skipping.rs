//! Direct convolutions that skip multiplications by zero.
//!
//! About half of a ReLU's output, forward or backward, is exactly zero. At most a quarter of the output of a 2×2
//! max-pool's adjoint is non-zero ([`Zeros`](crate::program::Zeros)). Here the sums of two neighbouring positions for
//! some channel blocks are kept in registers. The non-zero numbers that they read are taken one at a time, each times a
//! row of weights in the first-level cache. To fit there, weights are used in slabs of [`ROWS`] rows; between slabs,
//! sums are kept in scratch. Weights are finite, so only zeros are left out.
//!
//! A row of weights serves both positions if both numbers are non-zero, so those rows come first within a slab.
//! Otherwise sums run as in all direct convolutions (block, tap, channel). Pairs are the positions 2i and 2i + 1 of a
//! row: bands of a single row are cut between pairs.

use std::mem::MaybeUninit;

use super::bands::{Band, Bands, Input, TileAt};
use super::epilogue::CopyOut;
use super::packing::{BlockRun, Packing, runs};
use super::problem::{Planned, Problem};
use crate::device::cpu::isa::Isa;
use crate::tensor::Scalar;

/// Rows of weights in a slab: the number of bits in a word. With eight blocks of AVX-512 they take 32 KiB, an entire
/// first-level cache. The non-zero numbers use half of them or fewer.
const ROWS: usize = 64;
/// Most bytes of a band's sums. They stay in the second-level cache (1 MiB where this was tuned), together with the
/// input.
const SUM_BYTES: usize = 256 << 10;
/// Minimum positions of a band; with fewer, reading a slab does not pay.
const LEAST_POSITIONS: usize = 128;
/// Bands of a copy, if they are long enough: threads share even a single picture.
const BANDS: usize = 8;

/// The plan of one convolution.
#[derive(Debug, Clone)]
pub(super) struct Skipping {
    pub bands: Bands,
    pub runs: Vec<BlockRun>,
}

impl Skipping {
    /// For one group and whole vectors of read channels.
    pub fn plan<I: Isa>(problem: &Problem<'_>) -> Planned<Self> {
        let geometry = problem.geometry;
        let (read, blocks) = (geometry.read.c, geometry.written.c.div_ceil(I::LANES));
        let taps: Vec<usize> = geometry.grids.iter().map(|grid| grid.taps.len()).collect();
        // Blocks of one position map to few sets of a cache: with a single slab, few are written at a time.
        let single = taps.iter().max().unwrap_or(&0) * read <= ROWS;
        let count = blocks.div_ceil(if single { I::SKIP_BLOCKS.min(4) } else { I::SKIP_BLOCKS });
        let spans = (0..count).map(|i| (i * blocks / count..(i + 1) * blocks / count, 0..read));
        let (runs, packed_len) = runs(&taps, I::LANES, spans);
        let width = runs.iter().map(|run| run.blocks).max().unwrap_or(0) * I::LANES;
        // The start of a band decides which positions form a pair, and so affects bits. It depends only on the shape
        // and the instruction set.
        let mut sums = 0;
        let bands = Bands::new::<I>(geometry, read / I::LANES, |rows, [all, row]| {
            let fits = SUM_BYTES / (width * row * size_of::<I::T>()).max(1);
            let shared = all.div_ceil((all * row / LEAST_POSITIONS).clamp(1, BANDS));
            let rows = rows.min(fits).min(shared).max(1);
            let rows = if row == 1 { rows.next_multiple_of(2) } else { rows };
            sums = rows * row * width;
            rows
        });
        let (scratch_len, parts) = (bands.padded_len + sums, runs.len());
        Planned { algorithm: Self { bands, runs }, packed_len, scratch_len, parts }
    }

    pub fn pack<T: Scalar>(&self, packing: &Packing<'_, T>, out: &mut [T]) {
        packing.pack_runs(&self.runs, out);
    }

    #[inline(always)]
    pub unsafe fn run<I: Isa>(&self, band: &Band<'_, I>, taps: &mut Vec<isize>) {
        // SAFETY: the caller's promise; the run has as many blocks as its tiles.
        unsafe {
            let input = band.input(0..band.geometry.read.c / I::LANES);
            for run in &self.runs[band.share.clone()] {
                match run.blocks {
                    1 => blocks::<I, 1>(band, run, input, taps),
                    2 => blocks::<I, 2>(band, run, input, taps),
                    3 => blocks::<I, 3>(band, run, input, taps),
                    4 => blocks::<I, 4>(band, run, input, taps),
                    5 => blocks::<I, 5>(band, run, input, taps),
                    6 => blocks::<I, 6>(band, run, input, taps),
                    7 => blocks::<I, 7>(band, run, input, taps),
                    _ => blocks::<I, 8>(band, run, input, taps),
                }
            }
        }
    }
}

/// Some taps of some blocks: [`ROWS`] rows of weights or fewer.
struct Slab<T> {
    /// The input offsets relative to a position's base; only the first `count` are valid.
    from: [isize; ROWS],
    count: usize,
    weights: *const T,
    first: bool,
    last: bool,
}

/// All positions of a band, for one run of `Q` blocks.
#[inline(always)]
unsafe fn blocks<I: Isa, const Q: usize>(
    band: &Band<'_, I>,
    run: &BlockRun,
    input: Input<I::T>,
    taps: &mut Vec<isize>,
) {
    for (grid, &offset) in band.geometry.grids.iter().zip(&run.offsets) {
        band.offsets(grid, input, taps);
        let all = band.geometry.read.c / I::LANES * taps.len();
        let mut first = 0;
        loop {
            let count = (all - first).min(ROWS / I::LANES);
            let mut from = [0; ROWS];
            for (i, from) in (first..first + count).zip(&mut from) {
                *from = (i / taps.len() * input.block) as isize + taps[i % taps.len()];
            }
            let slab = Slab {
                from,
                count,
                // SAFETY: the run's rows follow one another in this order.
                weights: unsafe { band.weights.add(offset + first * I::LANES * Q * I::LANES) },
                first: first == 0,
                last: first + count == all,
            };
            // SAFETY: tiles have the positions that are left; scratch holds the band's sums.
            unsafe {
                let (out, block) = (CopyOut::<I>::new(&band.view), run.first_block);
                let mut sums = band.scratch.add(band.bands.padded_len);
                for mut line in band.lines(grid, input) {
                    while line.left() > 0 {
                        if line.left() >= 2 {
                            let TileAt { x, index } = line.take(2);
                            let x = [x, x.add(input.pixel)];
                            positions::<I, 2, Q>(band, &slab, x, [block, index], sums, &out);
                            sums = sums.add(2 * Q * I::LANES);
                        } else {
                            let TileAt { x, index } = line.take(1);
                            positions::<I, 1, Q>(band, &slab, [x], [block, index], sums, &out);
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

/// One slab of `P` neighbouring positions for `Q` blocks, from the first block and from a vector within each on.
#[inline(always)]
unsafe fn positions<I: Isa, const P: usize, const Q: usize>(
    band: &Band<'_, I>,
    slab: &Slab<I::T>,
    x: [*const I::T; P],
    [block, index]: [usize; 2],
    sums: *mut I::T,
    out: &CopyOut<I>,
) {
    // SAFETY: reads at the slab's taps, rows of weights of numbers that were read, these positions' sums in scratch;
    // writes those or `P · Q` vectors of the copy.
    unsafe {
        let mut sum = [[I::zero(); Q]; P];
        if !slab.first {
            for (p, sum) in sum.iter_mut().enumerate() {
                for (q, sum) in sum.iter_mut().enumerate() {
                    *sum = I::load(sums.add((p * Q + q) * I::LANES));
                }
            }
        } else if !band.view.finish.bias.is_null() {
            for q in 0..Q {
                let bias = I::load(band.view.finish.bias.add((block + q) * I::LANES));
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
        // Finished from memory: the loop is too long to be unrolled, and indexing would keep the sums out of registers.
        for (p, sum) in sum.iter().enumerate() {
            for (q, &sum) in sum.iter().enumerate() {
                I::store(sums.add((p * Q + q) * I::LANES), sum);
            }
        }
        if slab.last {
            let (plane, step) = (band.geometry.written.plane(), band.geometry.write_step[1]);
            for q in 0..Q {
                for p in 0..P {
                    let sum = I::load(sums.add((p * Q + q) * I::LANES));
                    out.put((block + q) * plane + index + p * step, sum);
                }
            }
        }
    }
}

/// Adds the rows of weights of all non-zero numbers: first those where both positions have one, then the others.
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
        // Not a loop: the compiler might not unroll it, and the sums would be in memory.
        add_alone::<I, Q>(&mut sum[0], live[0], numbers, weights);
        if P == 2 {
            add_alone::<I, Q>(&mut sum[P - 1], live[P - 1], numbers.add(ROWS), weights);
        }
    }
}

/// Adds the rows of weights of one position's numbers selected by `live`, in order.
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
