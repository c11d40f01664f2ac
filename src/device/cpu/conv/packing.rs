//! Weights in the order in which tiles read them.

use std::ops::Range;

use super::geometry::{Geometry, PassDirection, SubGrid};
use super::problem::read_by;
use crate::device::threads::for_each;
use crate::program::ConvLayer;
use crate::tensor::Scalar;

/// Neighbouring blocks of written channels that are computed together.
#[derive(Debug, Clone)]
pub(super) struct BlockRun {
    pub first_block: usize,
    pub blocks: usize,
    /// Channels read by any of them.
    pub channels: Range<usize>,
    /// Where the weights of each sub-grid start, in elements.
    pub offsets: Vec<usize>,
}

/// Runs of `blocks` whose inputs are `channels`, and the elements of their packed weights. `points` is the number of
/// products per pair of channels, for each sub-grid.
pub(super) fn runs(
    points: &[usize],
    lanes: usize,
    blocks: impl Iterator<Item = (Range<usize>, Range<usize>)>,
) -> (Vec<BlockRun>, usize) {
    let mut len = 0;
    let mut start = |elements| {
        len += elements;
        len - elements
    };
    let runs = blocks.map(|(blocks, channels)| BlockRun {
        first_block: blocks.start,
        blocks: blocks.len(),
        offsets: points.iter().map(|points| start(points * channels.len() * blocks.len() * lanes)).collect(),
        channels,
    });
    let runs = runs.collect();
    (runs, len)
}

/// A layer's weights during packing.
pub(super) struct Packing<'a, T> {
    pub geometry: &'a Geometry,
    pub lanes: usize,
    pub pool: Option<&'a rayon::ThreadPool>,
    direction: PassDirection,
    groups: usize,
    dims: [usize; 4],
    weights: Vec<T>,
}

impl<'a, T: Scalar> Packing<'a, T> {
    /// Reads the weights of `layer`, on the calling thread if there is no pool.
    pub fn new(
        layer: &ConvLayer,
        direction: PassDirection,
        geometry: &'a Geometry,
        lanes: usize,
        pool: Option<&'a rayon::ThreadPool>,
    ) -> Self {
        let (groups, dims, row_len) = (layer.groups, layer.weight.dims(), layer.weight.row_len());
        let mut weights = vec![T::ZERO; layer.weight.len()];
        let rows = weights.chunks_mut(row_len).enumerate().collect();
        for_each(rows, pool, |(k, row)| layer.weight.read(k, 0..row_len, row));
        Self { geometry, lanes, pool, direction, groups, dims, weights }
    }

    /// The weight of one kernel element between two channels of one group.
    #[inline]
    pub fn weight(&self, written: usize, read: usize, kernel: [usize; 2]) -> T {
        let (k, c) = match self.direction {
            PassDirection::Forward => (written, read),
            PassDirection::Adjoint => (read, written),
        };
        let [_, per_row, kh, kw] = self.dims;
        self.weights[((k * per_row + c % per_row) * kh + kernel[0]) * kw + kernel[1]]
    }

    /// Packs the weights of runs, `[run][sub-grid][read block][tap][read channel][written block][lane]`.
    pub fn pack_runs(&self, runs: &[BlockRun], out: &mut [T]) {
        let mut shares = Vec::new();
        let mut rest = out;
        for run in runs {
            for grid in &self.geometry.grids {
                let mut c = run.channels.start;
                while c < run.channels.end {
                    let read = c..run.channels.end.min((c / self.lanes + 1) * self.lanes);
                    c = read.end;
                    let len = grid.taps.len() * read.len() * run.blocks * self.lanes;
                    shares.push((run, grid, read, take(&mut rest, len)));
                }
            }
        }
        for_each(shares, self.pool, |(run, grid, read, share)| self.pack_block(run, grid, read, share));
    }

    fn pack_block(&self, run: &BlockRun, grid: &SubGrid, read: Range<usize>, share: &mut [T]) {
        let lanes = run.first_block * self.lanes..(run.first_block + run.blocks) * self.lanes;
        // Unused lanes read no channels.
        let seen = |written| {
            if written < self.geometry.written.c { read_by(self.geometry, self.groups, written) } else { 0..0 }
        };
        let lanes: Vec<_> = lanes.map(|written| (written, seen(written))).collect();
        let reads = grid.taps.iter().flat_map(|tap| read.clone().map(move |read| (tap, read)));
        for ((tap, read), vectors) in reads.zip(share.chunks_mut(lanes.len())) {
            for (out, (written, seen)) in vectors.iter_mut().zip(&lanes) {
                *out = if seen.contains(&read) { self.weight(*written, read, tap.kernel) } else { T::ZERO };
            }
        }
    }
}

/// The channel blocks of neighbouring runs.
pub(super) fn blocks_of(runs: &[BlockRun]) -> Range<usize> {
    let first = runs.first().map_or(0, |run| run.first_block);
    first..runs.last().map_or(first, |run| run.first_block + run.blocks)
}

/// Splits the first `len` numbers off.
pub(super) fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (share, behind) = std::mem::take(rest).split_at_mut(len);
    *rest = behind;
    share
}
