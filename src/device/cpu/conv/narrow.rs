//! Convolutions onto few channels, such as the last adjoint of a net: a lane is a *read* channel.
//!
//! A vector of 3 written channels would leave most lanes unused. Here every written number has a vector of partial sums
//! over read blocks and taps, in order. The lanes of the vector are added at the end. Four pixels' vectors are kept in
//! registers.

use super::bands::{Band, Bands, TileAt};
use super::geometry::SubGrid;
use super::packing::Packing;
use super::problem::{Planned, Problem};
use crate::device::cpu::isa::Isa;
use crate::tensor::Scalar;

/// Most written channels; [`Isa::sum_lanes`] takes this many vectors.
pub(super) const MOST_CHANNELS: usize = 4;

/// The plan of one convolution.
#[derive(Debug, Clone)]
pub(super) struct Narrow {
    pub bands: Bands,
    /// Vectors of weights per tap and read block: one per written channel, possibly padded with zeros.
    width: usize,
    /// Where the weights of each sub-grid start, in elements.
    offsets: Vec<usize>,
}

impl Narrow {
    pub fn plan<I: Isa>(problem: &Problem<'_>) -> Planned<Self> {
        let geometry = problem.geometry;
        let (blocks, written) = (geometry.read.c.div_ceil(I::LANES), geometry.written.c);
        let width = if written == 2 { 3 } else { written };
        let mut packed_len = 0;
        let offset = |grid: &SubGrid| {
            let offset = packed_len;
            packed_len += blocks * grid.taps.len() * width * I::LANES;
            offset
        };
        let offsets = geometry.grids.iter().map(offset).collect();
        let bands = Bands::new::<I>(geometry, blocks, |rows, _| rows);
        let scratch_len = bands.padded_len;
        Planned { algorithm: Self { bands, width, offsets }, packed_len, scratch_len, parts: 1 }
    }

    /// In the order of the sums: `[sub-grid][read block][tap][written channel][lane]`.
    pub fn pack<T: Scalar>(&self, packing: &Packing<'_, T>, out: &mut [T]) {
        let lanes = packing.lanes;
        let (read, written) = (packing.geometry.read.c, packing.geometry.written.c);
        let mut numbers = out.iter_mut();
        for grid in &packing.geometry.grids {
            for block in 0..read.div_ceil(lanes) {
                for tap in &grid.taps {
                    for to in 0..self.width {
                        for (from, number) in (block * lanes..(block + 1) * lanes).zip(&mut numbers) {
                            let there = to < written && from < read;
                            *number = if there { packing.weight(to, from, tap.kernel) } else { T::ZERO };
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    pub unsafe fn run<I: Isa>(&self, band: &Band<'_, I>, taps: &mut Vec<isize>) {
        // SAFETY: the caller's promise; as many vectors of weights were packed as tiles have channels.
        unsafe {
            match self.width {
                1 => self.channels::<I, 1>(band, taps),
                3 => self.channels::<I, 3>(band, taps),
                _ => self.channels::<I, MOST_CHANNELS>(band, taps),
            }
        }
    }

    #[inline(always)]
    unsafe fn channels<I: Isa, const C: usize>(&self, band: &Band<'_, I>, taps: &mut Vec<isize>) {
        // SAFETY: a sub-grid's offset lies inside the packed weights; tiles have the positions that are left.
        unsafe {
            let input = band.input(0..band.geometry.read.c.div_ceil(I::LANES));
            for (grid, &offset) in band.geometry.grids.iter().zip(&self.offsets) {
                band.offsets(grid, input, taps);
                let weights = band.weights.add(offset);
                for mut line in band.lines(grid, input) {
                    while line.left() > 0 {
                        match line.left() {
                            4.. => tile::<I, 4, C>(band, line.take(4), input.block, taps, weights),
                            2.. => tile::<I, 2, C>(band, line.take(2), input.block, taps, weights),
                            _ => tile::<I, 1, C>(band, line.take(1), input.block, taps, weights),
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<I: Isa, const P: usize, const C: usize>(
    band: &Band<'_, I>,
    at: TileAt<I::T>,
    block_step: usize,
    taps: &[isize],
    weights: *const I::T,
) {
    // SAFETY: reads `P` positions at every tap; `C` vectors of weights were packed for each read block and tap; writes `P`
    // vectors of the copy.
    unsafe {
        let mut sum = [[I::zero(); C]; P];
        let mut w = weights;
        for block in 0..band.geometry.read.c.div_ceil(I::LANES) {
            let x = at.x.add(block * block_step);
            for &tap in taps {
                let x = x.offset(tap);
                let mut weights = [I::zero(); C];
                for (c, weight) in weights.iter_mut().enumerate() {
                    *weight = I::load(w.add(c * I::LANES));
                }
                for (p, sum) in sum.iter_mut().enumerate() {
                    let x = I::load(x.add(p * I::LANES));
                    for c in 0..C {
                        sum[c] = I::fma(x, weights[c], sum[c]);
                    }
                }
                w = w.add(C * I::LANES);
            }
        }
        let bias = band.view.bias::<I>(0);
        let mut tile = [[bias; 1]; P];
        for (sum, tile) in sum.iter().zip(&mut tile) {
            let mut four = [I::zero(); 4];
            four[..C].copy_from_slice(sum);
            tile[0] = I::add(I::sum_lanes(four), bias);
        }
        band.store::<P, 1>(0, at.index, tile);
    }
}
