//! Weights in the order in which the tiles read them.

use std::ops::Range;

use super::narrow::Narrow;
use super::skipping;
use super::winograd::Winograd;
use super::{ConvPlan, Direction, Geometry, Products};
use crate::device::cpu::isa::Isa;
use crate::device::threads::for_each;
use crate::program::{ConvLayer, Zeros};
use crate::tensor::Scalar;

/// Which written channels are computed together, and from which read channels.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// Every channel sees only itself.
    Depthwise,
    /// One or two channel blocks each.
    Groups(Vec<Group>),
    /// Some channel blocks each; zeros of what is read are skipped.
    Skipping(Vec<Group>),
    /// Transformed tiles.
    Winograd(Winograd),
    /// A lane is a read channel.
    Narrow(Narrow),
}

/// Some neighbouring blocks of written channels.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub first_block: usize,
    pub blocks: usize,
    /// Read channels that any of them sees.
    pub channels: Range<usize>,
    /// Where the weights of each sub-grid start, in elements.
    pub offsets: Vec<usize>,
}

/// Channels of a convolution as seen by one direction.
pub(super) struct Channels {
    pub written: usize,
    written_per_group: usize,
    read_per_group: usize,
}

impl Channels {
    pub fn new(layer: &ConvLayer, direction: Direction) -> Self {
        let k = layer.output.c;
        let c = layer.input.c;
        let (written, read) = match direction {
            Direction::Forward => (k, c),
            Direction::Adjoint => (c, k),
        };
        Self { written, written_per_group: written / layer.groups, read_per_group: read / layer.groups }
    }

    fn read_by(&self, written: usize) -> Range<usize> {
        let group = written / self.written_per_group;
        group * self.read_per_group..(group + 1) * self.read_per_group
    }
}

impl Form {
    /// The form and the number of packed elements.
    pub fn new<I: Isa>(
        layer: &ConvLayer,
        direction: Direction,
        products: Products,
        zeros: Zeros,
        geometry: &Geometry,
    ) -> (Self, usize) {
        let channels = Channels::new(layer, direction);
        let skipping = skipping::groups::<I>(layer, &channels, geometry, zeros);
        if products == Products::Few
            && !(skipping.is_some() && skipping::few_left(zeros))
            && let Some((winograd, len)) = Winograd::new::<I>(layer, direction, geometry)
        {
            return (Form::Winograd(winograd), len);
        }
        let lanes = I::LANES;
        if let Some((narrow, len)) = Narrow::new(layer, geometry, lanes) {
            return (Form::Narrow(narrow), len);
        }
        if let Some((groups, len)) = skipping {
            return (Form::Skipping(groups), len);
        }
        let blocks = channels.written.div_ceil(lanes);
        let taps: usize = geometry.grids.iter().map(|g| g.taps.len()).sum();
        if layer.groups > 1 && channels.read_per_group == 1 && channels.written_per_group == 1 {
            return (Form::Depthwise, blocks * taps * lanes);
        }
        let mut groups = Vec::new();
        let mut len = 0;
        let mut block = 0;
        while block < blocks {
            // Two dense blocks share what is read; blocks of different groups would multiply zeros.
            let count = if layer.groups == 1 { (blocks - block).min(2) } else { 1 };
            let last = ((block + count) * lanes).min(channels.written) - 1;
            let range = channels.read_by(block * lanes).start..channels.read_by(last).end;
            let mut offsets = Vec::with_capacity(geometry.grids.len());
            for grid in &geometry.grids {
                offsets.push(len);
                len += grid.taps.len() * range.len() * count * lanes;
            }
            groups.push(Group { first_block: block, blocks: count, channels: range, offsets });
            block += count;
        }
        (Form::Groups(groups), len)
    }
}

/// Packs all weights of `layer`.
pub(super) fn pack<I: Isa>(
    plan: &ConvPlan,
    layer: &ConvLayer,
    direction: Direction,
    pool: Option<&rayon::ThreadPool>,
    out: &mut [I::T],
) {
    let channels = Channels::new(layer, direction);
    let [_, per_row, kh, kw] = layer.weight.dims();
    let row_len = layer.weight.row_len();
    let mut rows = vec![I::T::ZERO; layer.weight.len()];
    for_each(rows.chunks_mut(row_len).enumerate().collect(), pool, |(k, row)| layer.weight.read(k, 0..row_len, row));
    let element = |written: usize, read: usize, kernel: [usize; 2]| {
        let (k, c) = match direction {
            Direction::Forward => (written, read),
            Direction::Adjoint => (read, written),
        };
        rows[((k * per_row + c % per_row) * kh + kernel[0]) * kw + kernel[1]]
    };
    let grids = &plan.geometry.grids;
    match &plan.form {
        Form::Depthwise => {
            let taps: Vec<_> = grids.iter().flat_map(|g| &g.taps).collect();
            // Without a tap nothing is packed.
            for (b, out) in out.chunks_mut((taps.len() * I::LANES).max(1)).enumerate() {
                for (tap, out) in taps.iter().zip(out.chunks_mut(I::LANES)) {
                    for (lane, out) in out.iter_mut().enumerate() {
                        let c = b * I::LANES + lane;
                        *out = if c < channels.written { element(c, c, tap.kernel) } else { I::T::ZERO };
                    }
                }
            }
        }
        Form::Winograd(winograd) => {
            let mut shares = Vec::with_capacity(winograd.groups.len());
            let mut rest = &mut out[..plan.packed_len];
            for (i, group) in winograd.groups.iter().enumerate() {
                let end = winograd.groups.get(i + 1).map_or(plan.packed_len, |next| next.offsets[0]);
                let (share, behind) = rest.split_at_mut(end - group.offsets[0]);
                shares.push((group, share));
                rest = behind;
            }
            for_each(shares, pool, |(group, share)| {
                winograd.pack_group(&plan.geometry, group, I::LANES, channels.written, element, share);
            });
        }
        Form::Narrow(narrow) => narrow.pack(&plan.geometry, I::LANES, element, &mut out[..plan.packed_len]),
        Form::Groups(groups) | Form::Skipping(groups) => {
            // Groups, their sub-grids and the read blocks of these follow one another in `out`.
            let mut shares = Vec::new();
            let mut rest = &mut out[..plan.packed_len];
            for group in groups {
                for grid in grids {
                    let mut c = group.channels.start;
                    while c < group.channels.end {
                        let read = c..group.channels.end.min((c / I::LANES + 1) * I::LANES);
                        c = read.end;
                        let (share, behind) = rest.split_at_mut(grid.taps.len() * read.len() * group.blocks * I::LANES);
                        shares.push((group, grid, read, share));
                        rest = behind;
                    }
                }
            }
            for_each(shares, pool, |(group, grid, channels_read, share)| {
                let reads = grid.taps.iter().flat_map(|tap| channels_read.clone().map(move |read| (tap, read)));
                for ((tap, read), vectors) in reads.zip(share.chunks_mut(group.blocks * I::LANES)) {
                    for (i, out) in vectors.iter_mut().enumerate() {
                        let written = group.first_block * I::LANES + i;
                        let sees = written < channels.written && channels.read_by(written).contains(&read);
                        *out = if sees { element(written, read, tap.kernel) } else { I::T::ZERO };
                    }
                }
            });
        }
    }
}
