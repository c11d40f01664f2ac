//! Convolution and its adjoint on channel blocks.
//!
//! (What follows is the direct kernel; [`skipping`], [`winograd`] and [`narrow`] have orders of their own.) A result tile of `P` neighbouring pixels times `Q` channel blocks lives in registers while all taps and read channels
//! are summed in one fixed order (block, tap, channel). That order is the same for every tile shape, so results do not
//! depend on how work was cut into bands, parts, threads or batches.

mod geometry;
mod narrow;
mod pack;
mod skipping;
mod winograd;

use std::ops::Range;

pub(crate) use geometry::{Direction, Geometry, Tap};
pub(crate) use pack::{Form, Group};
pub(crate) use winograd::WinogradTask;

use super::isa::{Isa, Kernel};
use crate::graph::WeightId;
use crate::program::{ConvLayer, LastAdjoint, Zeros};
use narrow::Narrow;

/// Bytes that a band of rows reads, its halo's rows not counted, so that they stay in the second-level cache (1 MiB where this
/// was tuned).
const BAND_BYTES: usize = 384 << 10;

/// When the last adjoint runs once a picture.
///
/// From 4 copies of a picture on, summing a large signal and one adjoint take less time than an adjoint a copy. Summing one
/// element moves about 20 bytes (read in single precision, sum read and written in double) and takes about a nanosecond. An
/// adjoint does some tens of multiply-adds in that time. The signal is larger than the map, so its sum leaves the caches
/// sooner. A 3×3 stem of three channels has 27 multiply-adds per element, a 7×7 one 147.
pub(crate) const LAST_ADJOINT: LastAdjoint = LastAdjoint::EachPicture { least_copies: 4, least_products: 64 };

/// How one convolution (or adjoint) is computed for one input shape.
#[derive(Debug, Clone)]
pub(crate) struct ConvPlan {
    pub geometry: Geometry,
    pub form: Form,
    /// Names the packed weights.
    pub key: PackKey,
    /// Packed weights, in elements.
    pub packed_len: usize,
    /// Whether positions are computed as one long row (1×1, stride 1: neighbours are independent).
    flat: bool,
    /// Whether a zero-padded copy of each band is read.
    halo: Option<Halo>,
    /// Rows (columns if flat) of one band.
    band: usize,
    /// Where scratch holds sums that wait for more.
    sums_at: usize,
    /// Scratch of one task, in elements.
    pub scratch_len: usize,
}

/// Whether products may be saved at the price of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Products {
    /// One for each tap and channel.
    Plain,
    /// As few as transforms allow.
    Few,
}

/// Names packed weights: equal keys mean equal numbers in equal order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PackKey {
    weight: WeightId,
    direction: Direction,
    groups: usize,
    form: std::mem::Discriminant<Form>,
    /// The kernel elements that each sub-grid sums, in order.
    taps: std::sync::Arc<[Vec<Tap>]>,
}

impl PackKey {
    /// Whose packed form it names.
    pub fn weight(&self) -> WeightId {
        self.weight
    }

    fn new(layer: &ConvLayer, direction: Direction, form: &Form, geometry: &Geometry) -> Self {
        Self {
            weight: layer.weight.id(),
            direction,
            groups: layer.groups,
            form: std::mem::discriminant(form),
            taps: geometry.grids.iter().map(|g| g.taps.clone()).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Halo {
    /// First row and column read relative to a position's base.
    first: [isize; 2],
    /// Rows read beyond a band's.
    extra_rows: usize,
    /// Columns of the padded copy.
    width: usize,
}

impl ConvPlan {
    pub fn new<I: Isa>(layer: &ConvLayer, direction: Direction, products: Products, zeros: Zeros) -> Self {
        let geometry = Geometry::new(&layer.window, layer.input, layer.output, direction);
        let (form, packed_len) = Form::new::<I>(layer, direction, products, zeros, &geometry);
        let key = PackKey::new(layer, direction, &form, &geometry);
        let extent = geometry.extent();
        let flat = geometry.stays_inside()
            && geometry.grids.len() == 1
            && geometry.grids[0].taps.len() == 1
            && geometry.write_step == [1, 1]
            && geometry.read_step == [1, 1]
            && (geometry.read.h, geometry.read.w) == (geometry.written.h, geometry.written.w);
        let blocks = if matches!(form, Form::Depthwise) { 1 } else { geometry.read.c.div_ceil(I::LANES) };
        let element = size_of::<I::T>();
        let halo = (!geometry.stays_inside()).then(|| {
            let reach = geometry.reach();
            Halo {
                first: [reach[0][0], reach[1][0]],
                extra_rows: (reach[0][1] - reach[0][0]) as usize,
                width: extent[1].saturating_sub(1) * geometry.read_step[1] + (reach[1][1] - reach[1][0]) as usize + 1,
            }
        });
        let row_bytes = match &halo {
            Some(h) => blocks * h.width * I::LANES * element * geometry.read_step[0],
            None if flat => blocks * I::LANES * element,
            None => blocks * geometry.read.w * I::LANES * element * geometry.read_step[0],
        };
        let rows = if flat { extent[0] * extent[1] } else { extent[0] };
        let mut band = (BAND_BYTES / row_bytes.max(1)).max(1);
        if flat {
            band = band.next_multiple_of(I::PIXELS);
        }
        // Bands of nearly equal size.
        let bands = rows.div_ceil(band).max(1);
        band = rows.div_ceil(bands).max(1);
        if flat {
            band = band.next_multiple_of(I::PIXELS);
        }
        let mut sums = 0;
        if let Form::Skipping(groups) = &form {
            (band, sums) = skipping::band::<I>(groups, band, if flat { 1 } else { extent[1] }, rows);
        }
        let sums_at =
            halo.map_or(0, |h| blocks * ((band - 1) * geometry.read_step[0] + h.extra_rows + 1) * h.width * I::LANES);
        let scratch_len = match &form {
            Form::Winograd(winograd) => winograd.scratch_len(I::LANES),
            _ => sums_at + sums,
        };
        Self { geometry, form, key, packed_len, flat, halo, band, sums_at, scratch_len }
    }

    /// Independent pieces of one picture's result.
    pub fn bands(&self) -> usize {
        let [h, w] = self.geometry.extent();
        (if self.flat { h * w } else { h }).div_ceil(self.band)
    }

    /// Ways to split the written channels, at most.
    pub fn parts(&self, lanes: usize) -> usize {
        match &self.form {
            Form::Depthwise => self.geometry.written.c.div_ceil(lanes),
            Form::Groups(groups) | Form::Skipping(groups) => groups.len(),
            Form::Winograd(winograd) => winograd.groups.len(),
            Form::Narrow(_) => 1,
        }
    }

    /// Packs the weights for this plan into `out` (`packed_len` elements), on the calling thread if there is no pool.
    pub fn pack<I: Isa>(
        &self,
        layer: &ConvLayer,
        direction: Direction,
        pool: Option<&rayon::ThreadPool>,
        out: &mut [I::T],
    ) {
        pack::pack::<I>(self, layer, direction, pool, out);
    }
}

/// What happens to a sum before it is stored. All pointers are to one picture's values; null means absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish<T> {
    /// One number a channel, padded to whole blocks.
    pub bias: *const T,
    /// Added to the sum.
    pub add: *const T,
    /// Clamped to `[lo, hi]` (infinite where nothing is clamped).
    pub clamp: Option<[T; 2]>,
    /// Receives 1 where the value before clamping lies strictly between these.
    pub bits: *mut u8,
    pub bits_range: [T; 2],
    /// Zero where the bit is 0, applied last.
    pub gate: *const u8,
}

/// What a convolution reads and writes of one copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyView<T> {
    pub read: *const T,
    pub written: *mut T,
    pub finish: Finish<T>,
}

// SAFETY: pointers are to values of one step; tasks write disjoint parts and read what earlier steps wrote.
unsafe impl<T> Send for CopyView<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for CopyView<T> {}

/// One band and one share of the channels of one picture's result.
pub(crate) struct Task<'a, I: Isa> {
    pub plan: &'a ConvPlan,
    pub weights: *const I::T,
    pub view: CopyView<I::T>,
    pub scratch: *mut I::T,
    pub band: usize,
    /// Indices into the plan's groups, or channel blocks of a depthwise convolution.
    pub share: Range<usize>,
}

/// Where a tile reads: pointer to the first position's base, and distances in elements.
#[derive(Clone, Copy)]
struct Source<T> {
    base: *const T,
    block: usize,
    row: usize,
    pixel: usize,
    /// Row and column of `base` in the picture's coordinates.
    origin: [isize; 2],
}

impl<I: Isa> Kernel<I> for Task<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let geometry = &self.plan.geometry;
        let extent = geometry.extent();
        let (rows, columns) = if self.plan.flat {
            let last = (extent[0] * extent[1]).min((self.band + 1) * self.plan.band);
            (0..1, self.band * self.plan.band..last)
        } else {
            (self.band * self.plan.band..extent[0].min((self.band + 1) * self.plan.band), 0..extent[1])
        };
        // SAFETY: the device gives pointers to whole pictures of the plan's shapes and scratch of `scratch_len`; the loops
        // below stay inside them because bands, shares and sub-grids stay inside the plan's extents.
        unsafe {
            match &self.plan.form {
                Form::Groups(groups) => {
                    let all = 0..geometry.read.c.div_ceil(I::LANES);
                    let source = self.source(all, &rows);
                    let mut taps = Vec::new();
                    for group in &groups[self.share.clone()] {
                        match (group.blocks, geometry.read_step[1]) {
                            (2, 1) => self.group::<2, 1>(group, source, &rows, &columns, &mut taps),
                            (2, 2) => self.group::<2, 2>(group, source, &rows, &columns, &mut taps),
                            (2, _) => self.group::<2, ANY>(group, source, &rows, &columns, &mut taps),
                            (_, 1) => self.group::<1, 1>(group, source, &rows, &columns, &mut taps),
                            (_, 2) => self.group::<1, 2>(group, source, &rows, &columns, &mut taps),
                            _ => self.group::<1, ANY>(group, source, &rows, &columns, &mut taps),
                        }
                    }
                }
                Form::Skipping(groups) => {
                    let source = self.source(0..geometry.read.c / I::LANES, &rows);
                    let mut taps = Vec::new();
                    for group in &groups[self.share.clone()] {
                        match group.blocks {
                            1 => self.skipping::<1>(group, source, &rows, &columns, &mut taps),
                            2 => self.skipping::<2>(group, source, &rows, &columns, &mut taps),
                            3 => self.skipping::<3>(group, source, &rows, &columns, &mut taps),
                            4 => self.skipping::<4>(group, source, &rows, &columns, &mut taps),
                            5 => self.skipping::<5>(group, source, &rows, &columns, &mut taps),
                            6 => self.skipping::<6>(group, source, &rows, &columns, &mut taps),
                            7 => self.skipping::<7>(group, source, &rows, &columns, &mut taps),
                            _ => self.skipping::<8>(group, source, &rows, &columns, &mut taps),
                        }
                    }
                }
                Form::Narrow(narrow) => {
                    let source = self.source(0..geometry.read.c.div_ceil(I::LANES), &rows);
                    match narrow.width {
                        1 => self.narrow::<1>(narrow, source, &rows, &columns),
                        3 => self.narrow::<3>(narrow, source, &rows, &columns),
                        _ => self.narrow::<{ narrow::MOST_CHANNELS }>(narrow, source, &rows, &columns),
                    }
                }
                // Tiles are tasks of their own kind.
                Form::Winograd(_) => {}
                Form::Depthwise => {
                    let mut taps = Vec::new();
                    for block in self.share.clone() {
                        let source = self.source(block..block + 1, &rows);
                        self.depthwise(block, source, &rows, &columns, &mut taps);
                    }
                }
            }
        }
    }
}

impl<I: Isa> Task<'_, I> {
    /// The input itself, or a zero-padded copy of what this band reads of the given channel blocks.
    #[inline(always)]
    unsafe fn source(&self, blocks: Range<usize>, rows: &Range<usize>) -> Source<I::T> {
        let geometry = &self.plan.geometry;
        let (height, width) = (geometry.read.h as isize, geometry.read.w as isize);
        let plane = geometry.read.h * geometry.read.w * I::LANES;
        // SAFETY: offsets stay inside the picture (clipped below) and inside `scratch_len` elements of scratch.
        unsafe {
            let Some(halo) = self.plan.halo else {
                return Source {
                    base: self.view.read.add(blocks.start * plane),
                    block: plane,
                    row: geometry.read.w * I::LANES,
                    pixel: geometry.read_step[1] * I::LANES,
                    origin: [0, 0],
                };
            };
            let copied = (rows.len() - 1) * geometry.read_step[0] + halo.extra_rows + 1;
            let first_row = (rows.start * geometry.read_step[0]) as isize + halo.first[0];
            let line = halo.width * I::LANES;
            let left = (-halo.first[1]).clamp(0, halo.width as isize) as usize;
            let from = (halo.first[1]).max(0);
            let inside = (width - from).clamp(0, (halo.width - left) as isize) as usize;
            for (b, block) in blocks.clone().enumerate() {
                for r in 0..copied {
                    let to = self.scratch.add((b * copied + r) * line);
                    let y = first_row + r as isize;
                    if y < 0 || y >= height || inside == 0 {
                        std::ptr::write_bytes(to, 0, line);
                        continue;
                    }
                    std::ptr::write_bytes(to, 0, left * I::LANES);
                    let source = self.view.read.add(block * plane + (y * width + from) as usize * I::LANES);
                    std::ptr::copy_nonoverlapping(source, to.add(left * I::LANES), inside * I::LANES);
                    let tail = left + inside;
                    std::ptr::write_bytes(to.add(tail * I::LANES), 0, (halo.width - tail) * I::LANES);
                }
            }
            Source {
                base: self.scratch,
                block: copied * line,
                row: line,
                pixel: geometry.read_step[1] * I::LANES,
                origin: [first_row, halo.first[1]],
            }
        }
    }

    /// Element offsets of a sub-grid's taps from a position's base in `source`.
    #[inline(always)]
    fn offsets(&self, grid: usize, source: Source<I::T>, rows: &Range<usize>, taps: &mut Vec<isize>) {
        let first = (rows.start * self.plan.geometry.read_step[0]) as isize;
        taps.clear();
        taps.extend(self.plan.geometry.grids[grid].taps.iter().map(|t| {
            let row = if self.plan.halo.is_some() { first + t.at[0] - source.origin[0] } else { t.at[0] };
            row * source.row as isize + (t.at[1] - source.origin[1]) * I::LANES as isize
        }));
    }

    #[inline(always)]
    unsafe fn group<const Q: usize, const STEP: usize>(
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
            // SAFETY: the group's offset lies inside the packed weights.
            let weights = unsafe { self.weights.add(group.offsets[g]) };
            for i in rows.start..rows.end.min(grid.extent[0]) {
                let base_row = if self.plan.halo.is_some() { i - rows.start } else { i } * geometry.read_step[0];
                let end = if self.plan.flat { columns.end } else { columns.end.min(grid.extent[1]) };
                let mut j = columns.start;
                let y = grid.origin[0] + i * geometry.write_step[0];
                while j < end {
                    let at = TileAt {
                        // SAFETY: row and column lie inside what `source` covers.
                        x: unsafe { source.base.add(base_row * source.row + j * source.pixel) },
                        index: y * geometry.written.w + grid.origin[1] + j * geometry.write_step[1],
                        block: group.first_block,
                    };
                    let left = end - j;
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if $p <= I::PIXELS && ($p < 6 || I::PIXELS.is_multiple_of($p)) && left >= $p {
                                // SAFETY: `left` positions follow.
                                unsafe { self.tile::<$p, Q, STEP>(at, source, taps, &group.channels, weights) };
                                j += $p;
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
    unsafe fn tile<const P: usize, const Q: usize, const STEP: usize>(
        &self,
        at: TileAt<I::T>,
        source: Source<I::T>,
        taps: &[isize],
        channels: &Range<usize>,
        weights: *const I::T,
    ) {
        // SAFETY: reads `P` positions of the source at every tap, the packed weights of one group in order, and writes
        // `P · Q` vectors of the picture; all inside by the caller's loops.
        unsafe {
            let mut sum = [[I::zero(); Q]; P];
            if !self.view.finish.bias.is_null() {
                for q in 0..Q {
                    let bias = I::load(self.view.finish.bias.add((at.block + q) * I::LANES));
                    for row in &mut sum {
                        row[q] = bias;
                    }
                }
            }
            accumulate::<I, P, Q, STEP>(&mut sum, at.x, source.block, source.pixel, taps, channels, weights);
            self.store::<P, Q>(at, sum);
        }
    }

    #[inline(always)]
    unsafe fn store<const P: usize, const Q: usize>(&self, at: TileAt<I::T>, sum: [[I::V; Q]; P]) {
        let plane = self.plan.geometry.written.h * self.plan.geometry.written.w;
        let step = self.plan.geometry.write_step[1];
        // SAFETY: as for `tile`.
        unsafe {
            let out = Out::<I>::new(&self.view);
            for q in 0..Q {
                for (p, sum) in sum.iter().enumerate() {
                    out.put((at.block + q) * plane + at.index + p * step, sum[q]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow<const C: usize>(
        &self,
        narrow: &Narrow,
        source: Source<I::T>,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) {
        let geometry = &self.plan.geometry;
        let mut taps = Vec::new();
        for (g, grid) in geometry.grids.iter().enumerate() {
            self.offsets(g, source, rows, &mut taps);
            // SAFETY: the sub-grid's offset lies inside the packed weights.
            let weights = unsafe { self.weights.add(narrow.offsets[g]) };
            for i in rows.start..rows.end.min(grid.extent[0]) {
                let base_row = if self.plan.halo.is_some() { i - rows.start } else { i } * geometry.read_step[0];
                let y = grid.origin[0] + i * geometry.write_step[0];
                let end = if self.plan.flat { columns.end } else { columns.end.min(grid.extent[1]) };
                let mut j = columns.start;
                while j < end {
                    let at = TileAt {
                        // SAFETY: row and column lie inside what `source` covers.
                        x: unsafe { source.base.add(base_row * source.row + j * source.pixel) },
                        index: y * geometry.written.w + grid.origin[1] + j * geometry.write_step[1],
                        block: 0,
                    };
                    let left = end - j;
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if left >= $p {
                                // SAFETY: `left` positions follow.
                                unsafe { self.narrow_tile::<$p, C>(at, source, &taps, weights) };
                                j += $p;
                                continue;
                            })+
                        };
                    }
                    step!(4, 2, 1);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow_tile<const P: usize, const C: usize>(
        &self,
        at: TileAt<I::T>,
        source: Source<I::T>,
        taps: &[isize],
        weights: *const I::T,
    ) {
        // SAFETY: as for `tile`; `C` vectors of weights were packed for each read block and tap.
        unsafe {
            let mut sum = [[I::zero(); C]; P];
            let mut w = weights;
            for block in 0..self.plan.geometry.read.c.div_ceil(I::LANES) {
                let x = at.x.add(block * source.block);
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
            let bias = match self.view.finish.bias.is_null() {
                true => I::zero(),
                false => I::load(self.view.finish.bias),
            };
            let mut tile = [[bias; 1]; P];
            for (sum, tile) in sum.iter().zip(&mut tile) {
                let mut four = [I::zero(); 4];
                four[..C].copy_from_slice(sum);
                tile[0] = I::add(I::sum_lanes(four), bias);
            }
            self.store::<P, 1>(at, tile);
        }
    }

    #[inline(always)]
    unsafe fn depthwise(
        &self,
        block: usize,
        source: Source<I::T>,
        rows: &Range<usize>,
        columns: &Range<usize>,
        taps: &mut Vec<isize>,
    ) {
        let geometry = &self.plan.geometry;
        let per_block: usize = geometry.grids.iter().map(|g| g.taps.len()).sum::<usize>() * I::LANES;
        let mut before = 0;
        for (g, grid) in geometry.grids.iter().enumerate() {
            self.offsets(g, source, rows, taps);
            // SAFETY: blocks times taps vectors were packed.
            let weights = unsafe { self.weights.add(block * per_block + before) };
            before += grid.taps.len() * I::LANES;
            for i in rows.start..rows.end.min(grid.extent[0]) {
                let base_row = if self.plan.halo.is_some() { i - rows.start } else { i } * geometry.read_step[0];
                let y = grid.origin[0] + i * geometry.write_step[0];
                let end = if self.plan.flat { columns.end } else { columns.end.min(grid.extent[1]) };
                let mut j = columns.start;
                while j < end {
                    let at = TileAt {
                        // SAFETY: row and column lie inside what `source` covers.
                        x: unsafe { source.base.add(base_row * source.row + j * source.pixel) },
                        index: y * geometry.written.w + grid.origin[1] + j * geometry.write_step[1],
                        block,
                    };
                    // SAFETY: the positions follow; one vector of weights a tap was packed.
                    unsafe {
                        if end - j >= 4 {
                            self.depthwise_tile::<4>(at, source.pixel, taps, weights);
                            j += 4;
                        } else {
                            self.depthwise_tile::<1>(at, source.pixel, taps, weights);
                            j += 1;
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn depthwise_tile<const P: usize>(
        &self,
        at: TileAt<I::T>,
        pixel: usize,
        taps: &[isize],
        weights: *const I::T,
    ) {
        // SAFETY: as for `tile`.
        unsafe {
            let bias = match self.view.finish.bias.is_null() {
                true => I::zero(),
                false => I::load(self.view.finish.bias.add(at.block * I::LANES)),
            };
            let mut sum = [[bias; 1]; P];
            for (t, &tap) in taps.iter().enumerate() {
                let w = I::load(weights.add(t * I::LANES));
                for (p, sum) in sum.iter_mut().enumerate() {
                    sum[0] = I::fma(I::load(at.x.offset(tap).add(p * pixel)), w, sum[0]);
                }
            }
            self.store::<P, 1>(at, sum);
        }
    }
}

/// Finishes and stores vectors of one copy's result.
struct Out<I: Isa> {
    written: *mut I::T,
    finish: Finish<I::T>,
    bounds: Option<[I::V; 2]>,
    range: [I::V; 2],
}

impl<I: Isa> Out<I> {
    #[inline(always)]
    unsafe fn new(view: &CopyView<I::T>) -> Self {
        // SAFETY: the caller has the instruction set's features.
        unsafe {
            Self {
                written: view.written,
                finish: view.finish,
                bounds: view.finish.clamp.map(|[lo, hi]| [I::splat(lo), I::splat(hi)]),
                range: [I::splat(view.finish.bits_range[0]), I::splat(view.finish.bits_range[1])],
            }
        }
    }

    /// Vector `index` of the result is `v`, finished.
    #[inline(always)]
    unsafe fn put(&self, index: usize, mut v: I::V) {
        let finish = &self.finish;
        // SAFETY: the caller's index lies inside the result, and all values of an epilogue have its shape.
        unsafe {
            if !finish.add.is_null() {
                v = I::add(v, I::load(finish.add.add(index * I::LANES)));
            }
            if !finish.bits.is_null() {
                I::store_bits(finish.bits, index, I::between(v, self.range[0], self.range[1]));
            }
            if let Some([lo, hi]) = self.bounds {
                v = I::clamp(v, lo, hi);
            }
            if !finish.gate.is_null() {
                v = I::keep(v, I::load_bits(finish.gate, index));
            }
            I::store(self.written.add(index * I::LANES), v);
        }
    }
}

/// Where a tile is: base of its first position, index of its first vector within a channel block, first channel block.
#[derive(Clone, Copy)]
struct TileAt<T> {
    x: *const T,
    index: usize,
    block: usize,
}

/// A distance between neighbouring positions that is only known at run time.
const ANY: usize = 0;

/// Adds all read channels and taps, in this order, to a tile's sums. Neighbouring positions read `STEP` pixels apart (or
/// [`ANY`]: `pixel` elements), which the compiler must know, lest addresses take up all registers.
#[inline(always)]
unsafe fn accumulate<I: Isa, const P: usize, const Q: usize, const STEP: usize>(
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
