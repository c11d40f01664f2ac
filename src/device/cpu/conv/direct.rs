//! The direct algorithm. A tile of `P` neighbouring pixels times `Q` channel blocks lives in registers while all taps and read
//! channels are summed in one fixed order (block, tap, channel). The order is the same for every tile shape.

use std::ops::Range;

use super::bands::{Band, Bands, Input, TileAt};
use super::packing::{BlockRun, Packing, runs};
use super::problem::{Planned, Problem, read_by};
use crate::device::cpu::isa::Isa;
use crate::tensor::Scalar;

/// The plan of one convolution.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    pub bands: Bands,
    /// One or two blocks each.
    pub runs: Vec<BlockRun>,
}

impl Direct {
    pub fn plan<I: Isa>(problem: &Problem<'_>) -> Planned<Self> {
        let (geometry, groups) = (problem.geometry, problem.layer.groups);
        let blocks = geometry.written.c.div_ceil(I::LANES);
        // Two dense blocks share the numbers that are read. Blocks of different groups would multiply zeros.
        let together = if groups == 1 { 2 } else { 1 };
        let spans = (0..blocks).step_by(together).map(|first| {
            let blocks = first..blocks.min(first + together);
            let last = (blocks.end * I::LANES).min(geometry.written.c) - 1;
            let first = read_by(geometry, groups, first * I::LANES).start;
            (blocks, first..read_by(geometry, groups, last).end)
        });
        let taps: Vec<usize> = geometry.grids.iter().map(|grid| grid.taps.len()).collect();
        let (runs, packed_len) = runs(&taps, I::LANES, spans);
        let bands = Bands::new::<I>(geometry, geometry.read.c.div_ceil(I::LANES), |rows, _| rows);
        let (scratch_len, parts) = (bands.padded_len, runs.len());
        Planned { algorithm: Self { bands, runs }, packed_len, scratch_len, parts }
    }

    pub fn pack<T: Scalar>(&self, packing: &Packing<'_, T>, out: &mut [T]) {
        packing.pack_runs(&self.runs, out);
    }

    #[inline(always)]
    pub unsafe fn run<I: Isa>(&self, band: &Band<'_, I>, taps: &mut Vec<isize>) {
        let geometry = band.geometry;
        // SAFETY: the caller's promise; the run has as many blocks as its tiles.
        unsafe {
            let input = band.input(0..geometry.read.c.div_ceil(I::LANES));
            for run in &self.runs[band.share.clone()] {
                match (run.blocks, geometry.read_step[1]) {
                    (2, 1) => blocks::<I, 2, 1>(band, run, input, taps),
                    (2, 2) => blocks::<I, 2, 2>(band, run, input, taps),
                    (2, _) => blocks::<I, 2, ANY>(band, run, input, taps),
                    (_, 1) => blocks::<I, 1, 1>(band, run, input, taps),
                    (_, 2) => blocks::<I, 1, 2>(band, run, input, taps),
                    _ => blocks::<I, 1, ANY>(band, run, input, taps),
                }
            }
        }
    }
}

/// All positions of a band, for one run of `Q` blocks. Neighbouring positions read `STEP` pixels apart.
#[inline(always)]
unsafe fn blocks<I: Isa, const Q: usize, const STEP: usize>(
    band: &Band<'_, I>,
    run: &BlockRun,
    input: Input<I::T>,
    taps: &mut Vec<isize>,
) {
    for (grid, &offset) in band.geometry.grids.iter().zip(&run.offsets) {
        band.offsets(grid, input, taps);
        // SAFETY: the run's offset lies inside the packed weights.
        let weights = unsafe { band.weights.add(offset) };
        for mut line in band.lines(grid, input) {
            while line.left() > 0 {
                macro_rules! step {
                    ($($p:literal),+) => {
                        $(if $p <= I::PIXELS && ($p < 6 || I::PIXELS.is_multiple_of($p)) && line.left() >= $p {
                            // SAFETY: the positions are left.
                            unsafe { tile::<I, $p, Q, STEP>(band, run, line.take($p), input, taps, weights) };
                            continue;
                        })+
                    };
                }
                step!(14, 7, 6, 4, 2, 1);
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<I: Isa, const P: usize, const Q: usize, const STEP: usize>(
    band: &Band<'_, I>,
    run: &BlockRun,
    at: TileAt<I::T>,
    input: Input<I::T>,
    taps: &[isize],
    weights: *const I::T,
) {
    // SAFETY: reads `P` positions of the input at every tap, the packed weights of one run in order, and writes `P · Q`
    // vectors of the copy; all inside by the caller's loops.
    unsafe {
        let mut sum = [[I::zero(); Q]; P];
        if !band.view.finish.bias.is_null() {
            for q in 0..Q {
                let bias = I::load(band.view.finish.bias.add((run.first_block + q) * I::LANES));
                for row in &mut sum {
                    row[q] = bias;
                }
            }
        }
        accumulate::<I, P, Q, STEP>(&mut sum, at.x, input.block, input.pixel, taps, &run.channels, weights);
        band.store::<P, Q>(run.first_block, at.index, sum);
    }
}

/// A distance between neighbouring positions that is only known at run time.
const ANY: usize = 0;

/// Adds the products of all read channels and taps, in this order, to a tile's sums. Neighbouring positions read `STEP`
/// pixels apart (or [`ANY`]: `pixel` elements). The compiler must know the distance, or addresses would use up all
/// registers.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, const P: usize, const Q: usize, const STEP: usize>(
    sum: &mut [[I::V; Q]; P],
    x: *const I::T,
    block: usize,
    pixel: usize,
    taps: &[isize],
    channels: &Range<usize>,
    weights: *const I::T,
) {
    let pixel = if STEP == ANY { pixel } else { STEP * I::LANES };
    // SAFETY: the caller's tile covers `P` positions at every tap and channel, and weights for each of them in order.
    unsafe {
        let mut w = weights;
        let mut c = channels.start;
        while c < channels.end {
            let lane = c % I::LANES;
            let count = (I::LANES - lane).min(channels.end - c);
            let x = x.add(c / I::LANES * block + lane);
            for &tap in taps {
                let mut x = x.offset(tap);
                for _ in 0..count / 4 {
                    for i in 0..4 {
                        multiply::<I, P, Q>(sum, x.add(i), pixel, w.add(i * Q * I::LANES));
                    }
                    x = x.add(4);
                    w = w.add(4 * Q * I::LANES);
                }
                for _ in 0..count % 4 {
                    multiply::<I, P, Q>(sum, x, pixel, w);
                    x = x.add(1);
                    w = w.add(Q * I::LANES);
                }
            }
            c += count;
        }
    }
}

/// One read channel: `sum[p][q] += x[p] · w[q]`.
#[inline(always)]
unsafe fn multiply<I: Isa, const P: usize, const Q: usize>(
    sum: &mut [[I::V; Q]; P],
    x: *const I::T,
    pixel: usize,
    w: *const I::T,
) {
    // SAFETY: the caller's tile covers `P` positions and `Q` vectors of weights.
    unsafe {
        let mut weights = [I::zero(); Q];
        for (q, weight) in weights.iter_mut().enumerate() {
            *weight = I::load(w.add(q * I::LANES));
        }
        for (p, sum) in sum.iter_mut().enumerate() {
            let x = I::splat(*x.add(p * pixel));
            for q in 0..Q {
                sum[q] = I::fma(x, weights[q], sum[q]);
            }
        }
    }
}
