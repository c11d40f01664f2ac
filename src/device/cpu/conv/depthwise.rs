//! Depthwise convolutions: every output channel reads only its own input channel.

use super::bands::{Band, Bands, TileAt};
use super::packing::Packing;
use super::problem::{Planned, Problem};
use crate::device::cpu::isa::Isa;
use crate::tensor::Scalar;

/// The plan of one convolution.
#[derive(Debug, Clone)]
pub(super) struct Depthwise {
    pub bands: Bands,
}

impl Depthwise {
    pub fn plan<I: Isa>(problem: &Problem<'_>) -> Planned<Self> {
        let blocks = problem.geometry.written.c.div_ceil(I::LANES);
        let bands = Bands::new::<I>(problem.geometry, 1, |rows, _| rows);
        let (packed_len, scratch_len) = (blocks * problem.taps() * I::LANES, bands.padded_len);
        Planned { algorithm: Self { bands }, packed_len, scratch_len, parts: blocks }
    }

    /// `[block][tap][lane]`.
    pub fn pack<T: Scalar>(&self, packing: &Packing<'_, T>, out: &mut [T]) {
        let (lanes, written) = (packing.lanes, packing.geometry.written.c);
        let taps: Vec<_> = packing.geometry.grids.iter().flat_map(|g| &g.taps).collect();
        // Without a tap nothing is packed.
        for (b, out) in out.chunks_mut((taps.len() * lanes).max(1)).enumerate() {
            for (tap, out) in taps.iter().zip(out.chunks_mut(lanes)) {
                for (lane, out) in out.iter_mut().enumerate() {
                    let c = b * lanes + lane;
                    *out = if c < written { packing.weight(c, c, tap.kernel) } else { T::ZERO };
                }
            }
        }
    }

    #[inline(always)]
    pub unsafe fn run<I: Isa>(&self, band: &Band<'_, I>, taps: &mut Vec<isize>) {
        let per_block: usize = band.geometry.grids.iter().map(|g| g.taps.len()).sum::<usize>() * I::LANES;
        for block in band.share.clone() {
            // SAFETY: blocks times taps vectors were packed.
            unsafe {
                let input = band.input(block..block + 1);
                let mut weights = band.weights.add(block * per_block);
                for grid in &band.geometry.grids {
                    band.offsets(grid, input, taps);
                    for mut line in band.lines(grid, input) {
                        while line.left() > 0 {
                            if line.left() >= 4 {
                                tile::<I, 4>(band, block, line.take(4), input.pixel, taps, weights);
                            } else {
                                tile::<I, 1>(band, block, line.take(1), input.pixel, taps, weights);
                            }
                        }
                    }
                    weights = weights.add(grid.taps.len() * I::LANES);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<I: Isa, const P: usize>(
    band: &Band<'_, I>,
    block: usize,
    at: TileAt<I::T>,
    pixel: usize,
    taps: &[isize],
    weights: *const I::T,
) {
    // SAFETY: reads `P` positions at every tap, of which a vector of weights was packed; writes `P` vectors of the copy.
    unsafe {
        let mut sum = [[band.view.bias::<I>(block); 1]; P];
        for (t, &tap) in taps.iter().enumerate() {
            let w = I::load(weights.add(t * I::LANES));
            for (p, sum) in sum.iter_mut().enumerate() {
                sum[0] = I::fma(I::load(at.x.offset(tap).add(p * pixel)), w, sum[0]);
            }
        }
        band.store::<P, 1>(block, at.index, sum);
    }
}
