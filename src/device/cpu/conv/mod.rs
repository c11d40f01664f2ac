//! Convolution and its adjoint on channel blocks.
//!
//! [`choice`] selects the algorithm of a convolution. Each algorithm is in its own file. Results do not depend on the
//! division of work into bands, parts, threads or batches.

mod bands;
mod choice;
mod depthwise;
mod direct;
mod epilogue;
mod geometry;
mod narrow;
mod packing;
mod problem;
mod skipping;
mod winograd;

use std::ops::Range;

use bands::Band;
use choice::{Algorithm, Choice};
pub(crate) use epilogue::{CopyView, Finish};
pub(crate) use geometry::PassDirection;
use geometry::{Geometry, Tap};
use packing::Packing;
pub(crate) use problem::Arithmetic;
use problem::{Planned, Problem};
use winograd::TileBatch;

use super::isa::{CpuKernel, Isa};
use super::memory::Shared;
use super::pointwise::Activate;
use crate::device::Spare;
use crate::graph::WeightId;
use crate::program::{ConvLayer, LastAdjoint, Zeros};

/// When the last adjoint runs once per picture.
///
/// From 4 copies per picture on, summing a large signal and running one adjoint takes less time than one adjoint per
/// copy. Summing one element moves about 20 bytes (read in single precision, sum read and written in double) and takes
/// about a nanosecond. An adjoint does some tens of multiply-adds in that time. The signal is larger than the map, so
/// its sum leaves the caches sooner. A 3×3 stem of three channels has 27 multiply-adds per element, a 7×7 one 147.
pub(crate) const LAST_ADJOINT: LastAdjoint = LastAdjoint::EachPicture { least_copies: 4, least_products: 64 };

/// Tasks per thread up to which bands are split by channels. With two, a thread that finishes early takes another.
const BAND_TASKS: usize = 2;
/// Tasks per thread up to which batches of tiles are split by channels. Every part transforms the batch's input again.
const BATCH_TASKS: usize = 1;

/// The plan of a convolution (or adjoint) for one input shape.
#[derive(Debug, Clone)]
pub(crate) struct ConvPlan {
    geometry: Geometry,
    algorithm: Algorithm,
    /// Name of the algorithm, for reports.
    pub name: &'static str,
    /// Identifies the packed weights.
    pub key: PackKey,
    /// Packed weights, in elements.
    pub packed_len: usize,
    /// Scratch of one task, in elements.
    pub scratch_len: usize,
    /// Most parts into which the written channels can be split.
    parts: usize,
}

/// Identifies packed weights: equal keys mean equal numbers in equal order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PackKey {
    weight: WeightId,
    direction: PassDirection,
    groups: usize,
    algorithm: &'static str,
    /// The kernel elements that each sub-grid sums, in order.
    taps: std::sync::Arc<[Vec<Tap>]>,
}

impl PackKey {
    /// The weight that is packed.
    pub fn weight(&self) -> WeightId {
        self.weight
    }
}

impl ConvPlan {
    pub fn new<I: Isa>(layer: &ConvLayer, direction: PassDirection, arithmetic: Arithmetic, zeros: Zeros) -> Self {
        let geometry = Geometry::new(&layer.window, layer.input, layer.output, direction);
        let problem = Problem { layer, geometry: &geometry, arithmetic, zeros };
        let Choice { name, plan, .. } = Choice::of::<I>(&problem);
        let Planned { algorithm, packed_len, scratch_len, parts } = plan(&problem);
        let key = PackKey {
            weight: layer.weight.id(),
            direction,
            groups: layer.groups,
            algorithm: name,
            taps: geometry.grids.iter().map(|g| g.taps.clone()).collect(),
        };
        Self { geometry, algorithm, name, key, packed_len, scratch_len, parts }
    }

    /// Packs the weights for this plan into `out` (`packed_len` elements), on the calling thread if there is no pool.
    pub fn pack<I: Isa>(
        &self,
        layer: &ConvLayer,
        direction: PassDirection,
        pool: Option<&rayon::ThreadPool>,
        out: &mut [I::T],
    ) {
        let packing = Packing::new(layer, direction, &self.geometry, I::LANES, pool);
        match &self.algorithm {
            Algorithm::Direct(direct) => direct.pack(&packing, out),
            Algorithm::Depthwise(depthwise) => depthwise.pack(&packing, out),
            Algorithm::Skipping(skipping) => skipping.pack(&packing, out),
            Algorithm::Winograd(winograd) => winograd.pack(&packing, out),
            Algorithm::Narrow(narrow) => narrow.pack(&packing, out),
        }
    }
}

/// A convolution of all copies of a chunk, cut into tasks.
pub(crate) struct ConvWork<'a, I: Isa> {
    plan: &'a ConvPlan,
    weights: Shared<I::T>,
    copies: &'a [CopyView<I::T>],
    /// Bands of all copies, or batches of tiles.
    pieces: usize,
    /// Parts of the written channels.
    parts: usize,
}

impl<'a, I: Isa> ConvWork<'a, I> {
    /// Divides the work among this many threads.
    pub fn new(plan: &'a ConvPlan, weights: Shared<I::T>, copies: &'a [CopyView<I::T>], threads: usize) -> Self {
        let (pieces, tasks) = match &plan.algorithm {
            Algorithm::Winograd(winograd) => (winograd.batches(copies.len()), BATCH_TASKS),
            banded => (copies.len() * banded.bands().map_or(0, |bands| bands.count()), BAND_TASKS),
        };
        // Few large pieces are split by channels, so that every thread has work.
        let parts = (tasks * threads).div_ceil(pieces).clamp(1, plan.parts);
        Self { plan, weights, copies, pieces, parts }
    }

    /// Whether the tasks apply the epilogue's activation. Winograd's tasks do not write whole bands; their activation is a
    /// separate pass.
    pub fn activates(&self) -> bool {
        self.plan.algorithm.bands().is_some()
    }

    /// Independent tasks.
    pub fn tasks(&self) -> usize {
        self.pieces * self.parts
    }

    /// Runs one of the tasks.
    ///
    /// # Safety
    /// The copies have the plan's shapes, `scratch` has its length, the weights were packed by it, and the machine has the
    /// features of `I`.
    pub unsafe fn run(&self, task: usize, scratch: *mut I::T, lists: &mut Spare) {
        let &Self { plan, copies, pieces, parts, .. } = self;
        let (piece, part) = (task / parts, task % parts);
        let share = part * plan.parts / parts..(part + 1) * plan.parts / parts;
        let (geometry, weights) = (&plan.geometry, self.weights.get().cast_const());
        // SAFETY: the caller's promise.
        unsafe {
            if let Algorithm::Winograd(winograd) = &plan.algorithm {
                let tiles = copies.len() * winograd.tiles();
                let tiles = piece * tiles / pieces..(piece + 1) * tiles / pieces;
                I::run(TileBatch::<I> { plan: winograd, geometry, weights, copies, tiles, share, scratch });
            } else if let Some(bands) = plan.algorithm.bands() {
                let view = copies[piece / bands.count()];
                let (rows, columns) = bands.span(piece % bands.count());
                let blocks = plan.algorithm.blocks(share.clone());
                let positions = bands.positions(geometry, &rows, &columns);
                let band = Band { geometry, bands, weights, view, scratch, rows, columns, share };
                let mut taps = lists.take(geometry.grids.iter().map(|grid| grid.taps.len()).max().unwrap_or(0));
                I::run(BandTask::<I> { algorithm: &plan.algorithm, band, taps: &mut taps });
                lists.keep(taps);
                activate::<I>(&view, geometry.written.plane(), blocks, positions);
            }
        }
    }
}

/// Applies the epilogue's activation to positions of channel blocks, which are still in the cache.
///
/// # Safety
/// The copy's values are stored there, and the machine has the features of `I`.
unsafe fn activate<I: Isa>(view: &CopyView<I::T>, plane: usize, blocks: Range<usize>, positions: Range<usize>) {
    let Some(f) = view.finish.smooth else { return };
    for block in blocks {
        let first = (block * plane + positions.start) * I::LANES;
        let slopes = view.finish.slopes;
        // SAFETY: blocks and positions lie inside the copy's values.
        unsafe {
            let slopes = if slopes.is_null() { slopes } else { slopes.add(first) };
            let numbers = view.written.add(first);
            I::run(Activate::<I> { f, numbers, slopes, count: positions.len() * I::LANES });
        }
    }
}

/// One band, by any algorithm that has bands.
struct BandTask<'a, I: Isa> {
    algorithm: &'a Algorithm,
    band: Band<'a, I>,
    /// Memory for the offsets of a sub-grid's taps.
    taps: &'a mut Vec<isize>,
}

impl<I: Isa> CpuKernel<I> for BandTask<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the device gives pointers to whole copies of the plan's shapes and scratch of `scratch_len`. Loops stay inside
        // them because bands, shares and sub-grids stay inside the plan's extents.
        unsafe {
            match self.algorithm {
                Algorithm::Direct(direct) => direct.run(&self.band, self.taps),
                Algorithm::Depthwise(depthwise) => depthwise.run(&self.band, self.taps),
                Algorithm::Skipping(skipping) => skipping.run(&self.band, self.taps),
                Algorithm::Narrow(narrow) => narrow.run(&self.band, self.taps),
                Algorithm::Winograd(_) => {}
            }
        }
    }
}
