//! Selects the algorithm of a convolution.

use std::ops::Range;

use super::bands::Bands;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::narrow::{self, Narrow};
use super::packing::blocks_of;
use super::problem::{Arithmetic, Planned, Problem};
use super::skipping::Skipping;
use super::winograd::{self, Winograd};
use crate::device::cpu::isa::Isa;
use crate::program::Zeros;

/// Minimum written channel blocks. With fewer, a row of weights is too short to justify finding it.
const SKIPPING_LEAST_BLOCKS: usize = 3;
/// If at most one number in this many is non-zero, skipping leaves about as few products as Winograd's transforms, and
/// needs no transforms.
const SKIPPING_BEATS_TRANSFORMS: usize = 3;
/// Minimum read and written channels. With fewer, transforms cost more than they save.
const TRANSFORMS_LEAST_CHANNELS: usize = 16;

/// An algorithm with its plan.
#[derive(Debug, Clone)]
pub(super) enum Algorithm {
    Direct(Direct),
    Depthwise(Depthwise),
    Skipping(Skipping),
    Winograd(Winograd),
    Narrow(Narrow),
}

impl Algorithm {
    /// The bands of one copy. Winograd cuts the tiles of all copies instead.
    pub fn bands(&self) -> Option<&Bands> {
        match self {
            Self::Direct(Direct { bands, .. })
            | Self::Depthwise(Depthwise { bands })
            | Self::Skipping(Skipping { bands, .. })
            | Self::Narrow(Narrow { bands, .. }) => Some(bands),
            Self::Winograd(_) => None,
        }
    }

    /// The channel blocks that a share of the parts writes, if the algorithm has bands.
    pub fn blocks(&self, share: Range<usize>) -> Range<usize> {
        match self {
            Self::Direct(Direct { runs, .. }) | Self::Skipping(Skipping { runs, .. }) => blocks_of(&runs[share]),
            Self::Depthwise(_) | Self::Narrow(_) | Self::Winograd(_) => share,
        }
    }
}

/// A line of the table.
pub(super) struct Choice {
    /// Name of the algorithm in reports.
    pub name: &'static str,
    suits: fn(&Problem<'_>) -> bool,
    pub plan: fn(&Problem<'_>) -> Planned<Algorithm>,
}

impl Choice {
    /// The first line that applies.
    pub fn of<I: Isa>(problem: &Problem<'_>) -> Self {
        let [lines @ .., last] = table::<I>();
        lines.into_iter().find(|line| (line.suits)(problem)).unwrap_or(last)
    }
}

/// The algorithms in the order in which they are tried. The last one applies to every convolution.
fn table<I: Isa>() -> [Choice; 6] {
    [
        // Fewer products than with transforms, see the threshold.
        Choice {
            name: "skipping",
            suits: |p| can_skip::<I>(p) && matches!(p.zeros, Zeros::AllButOneIn(n) if n >= SKIPPING_BEATS_TRANSFORMS),
            plan: |p| Skipping::plan::<I>(p).map(Algorithm::Skipping),
        },
        // Transforms leave a quarter of the products.
        Choice {
            name: "winograd",
            suits: |p| p.arithmetic == Arithmetic::Transformed && can_transform::<I>(p),
            plan: |p| Winograd::plan::<I>(p).map(Algorithm::Winograd),
        },
        // Vectors of so few written channels would be nearly empty. Neighbouring positions must read neighbouring pixels.
        Choice {
            name: "narrow",
            suits: |p| {
                let (read, written) = (p.geometry.read.c, p.geometry.written.c);
                let few = written <= narrow::MOST_CHANNELS && read >= I::LANES;
                p.layer.groups == 1 && few && p.geometry.read_step[1] == 1
            },
            plan: |p| Narrow::plan::<I>(p).map(Algorithm::Narrow),
        },
        // Skipping leaves about half of the products.
        Choice {
            name: "skipping",
            suits: |p| can_skip::<I>(p) && p.zeros == Zeros::Many,
            plan: |p| Skipping::plan::<I>(p).map(Algorithm::Skipping),
        },
        // A block of written channels reads one block.
        Choice {
            name: "depthwise",
            suits: |p| {
                let groups = p.layer.groups;
                groups > 1 && (p.geometry.read.c, p.geometry.written.c) == (groups, groups)
            },
            plan: |p| Depthwise::plan::<I>(p).map(Algorithm::Depthwise),
        },
        Choice { name: "direct", suits: |_| true, plan: |p| Direct::plan::<I>(p).map(Algorithm::Direct) },
    ]
}

/// Whether zeros can be skipped, and rows of weights are long enough for it.
fn can_skip<I: Isa>(p: &Problem<'_>) -> bool {
    let blocks = p.geometry.written.c.div_ceil(I::LANES);
    let whole = p.geometry.read.c.is_multiple_of(I::LANES);
    I::SKIP_BLOCKS > 0 && p.layer.groups == 1 && whole && blocks >= SKIPPING_LEAST_BLOCKS
}

/// Whether Winograd's transforms can compute it, and it is large enough for them.
fn can_transform<I: Isa>(p: &Problem<'_>) -> bool {
    let (layer, window) = (p.layer, &p.layer.window);
    let [grid] = &p.geometry.grids[..] else { return false };
    let large =
        layer.input.c.min(layer.output.c) >= TRANSFORMS_LEAST_CHANNELS && grid.extent.iter().all(|&n| n >= winograd::M);
    I::WINOGRAD
        && large
        && window.kernel == [3, 3]
        && window.stride == [1, 1]
        && window.dilation == [1, 1]
        && layer.groups == 1
}
