//! Winograd's minimal filtering F(4×4, 3×3) for 3×3 convolutions at stride 1, forward and adjoint (Lavin & Gray 2016).
//!
//! A tile of 4×4 results takes 36 products a channel pair instead of 144. In a batch of tiles every 6×6 patch of the input
//! is transformed once (`Bᵀ d B`). Then, for each pair of written channel blocks, 36 small matrix products sum over the
//! read channels in order. Their results are transformed back (`Aᵀ m A`) and finished. Tiles are independent, so results
//! do not depend on how they were cut into batches.

use std::ops::Range;

use super::direct::accumulate;
use super::epilogue::{CopyOut, CopyView};
use super::geometry::Geometry;
use super::packing::{BlockRun, Packing, runs, take};
use super::problem::{Planned, Problem};
use crate::device::cpu::isa::{CpuKernel, Isa};
use crate::device::threads::for_each;
use crate::tensor::Scalar;

/// Results of a tile on one axis.
pub(super) const M: usize = 4;
/// Elements of a transformed tile on one axis.
const N: usize = 6;
/// Products of a tile.
const POINTS: usize = N * N;
/// Bytes of a batch's transformed input that should stay in a nearby cache.
const BATCH_BYTES: usize = 1 << 20;
/// Minimum and maximum register tiles (of [`Isa::PIXELS`]) in a batch. Every batch reads all weights, so it has at
/// least two.
const REGISTER_TILES: [usize; 2] = [2, 4];

/// `G`: a filter `g` becomes `G g Gᵀ`.
const G: [[f64; 3]; N] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// The plan of one convolution.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    /// One or two blocks each.
    runs: Vec<BlockRun>,
    /// Row and column read by a tile's first result through its first tap.
    first: [isize; 2],
    /// Tile rows and columns of one copy.
    tiles: [usize; 2],
    /// Channel blocks read.
    blocks: usize,
    /// Most tiles of a batch.
    most: usize,
}

impl Winograd {
    /// For a 3×3 convolution of stride 1 in one group: its geometry has one sub-grid.
    pub fn plan<I: Isa>(problem: &Problem<'_>) -> Planned<Self> {
        let (geometry, grid) = (problem.geometry, &problem.geometry.grids[0]);
        let least = |a: usize| grid.taps.iter().map(|t| t.at[a]).min().unwrap_or(0);
        let read = geometry.read.c;
        let (blocks, written) = (read.div_ceil(I::LANES), geometry.written.c.div_ceil(I::LANES));
        let pairs = (0..written).step_by(2).map(|first| (first..written.min(first + 2), 0..read));
        let (runs, packed_len) = runs(&[POINTS], I::LANES, pairs);
        let tile_bytes = POINTS * blocks * I::LANES * size_of::<I::T>();
        let [fewest, most] = REGISTER_TILES.map(|tiles| tiles * I::PIXELS);
        let most = (BATCH_BYTES / tile_bytes).clamp(fewest, most);
        let most = most / I::PIXELS * I::PIXELS;
        let tiles = grid.extent.map(|n| n.div_ceil(M));
        let scratch_len = POINTS * (blocks + 2) * most * I::LANES;
        let parts = runs.len();
        let algorithm = Self { runs, first: [least(0), least(1)], tiles, blocks, most };
        Planned { algorithm, packed_len, scratch_len, parts }
    }

    /// Tiles of one copy.
    pub fn tiles(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Batches into which the tiles of all copies are cut.
    pub fn batches(&self, copies: usize) -> usize {
        (copies * self.tiles()).div_ceil(self.most)
    }

    /// Transformed weights, `[run][point][read channel][written lane]`.
    pub fn pack<T: Scalar>(&self, packing: &Packing<'_, T>, out: &mut [T]) {
        let mut rest = out;
        let len = |run: &BlockRun| POINTS * run.channels.len() * run.blocks * packing.lanes;
        let shares = self.runs.iter().map(|run| (run, take(&mut rest, len(run)))).collect();
        for_each(shares, packing.pool, |(run, share)| self.pack_run(packing, run, share));
    }

    fn pack_run<T: Scalar>(&self, packing: &Packing<'_, T>, run: &BlockRun, out: &mut [T]) {
        let width = run.blocks * packing.lanes;
        let panel = run.channels.len() * width;
        let first = run.first_block * packing.lanes;
        let present = width.min(packing.geometry.written.c - first);
        for read in run.channels.clone() {
            // All lanes at once: the locations of a channel's points are a power of two apart, so a cache keeps few of
            // them, and each of their lines is best written whole.
            let mut g = [[[0.0; WIDEST]; 3]; 3];
            for tap in &packing.geometry.grids[0].taps {
                let at = [tap.at[0] - self.first[0], tap.at[1] - self.first[1]];
                let filters = &mut g[at[0] as usize][at[1] as usize][..present];
                for (lane, filter) in filters.iter_mut().enumerate() {
                    *filter = packing.weight(first + lane, read, tap.kernel).to_f64();
                }
            }
            let rows: [[[f64; WIDEST]; 3]; N] =
                std::array::from_fn(|i| std::array::from_fn(|x| combine(&G[i], [&g[0][x], &g[1][x], &g[2][x]])));
            for (i, [a, b, c]) in rows.iter().enumerate() {
                for (j, column) in G.iter().enumerate() {
                    let values = combine(column, [a, b, c]);
                    let at = (i * N + j) * panel + read * width;
                    out[at..at + width].iter_mut().zip(&values).for_each(|(out, &v)| *out = T::from_f64(v));
                }
            }
        }
    }
}

/// Lanes of two channel blocks of the widest vectors.
const WIDEST: usize = 32;

/// `Σ_i k[i] · v[i]`, lane by lane.
fn combine(k: &[f64; 3], v: [&[f64; WIDEST]; 3]) -> [f64; WIDEST] {
    std::array::from_fn(|lane| k[0] * v[0][lane] + k[1] * v[1][lane] + k[2] * v[2][lane])
}

/// Some tiles of all copies, and a share of the written channels.
pub(super) struct TileBatch<'a, I: Isa> {
    pub plan: &'a Winograd,
    pub geometry: &'a Geometry,
    pub weights: *const I::T,
    pub copies: &'a [CopyView<I::T>],
    /// Numbered through all copies.
    pub tiles: Range<usize>,
    /// Indices of runs.
    pub share: Range<usize>,
    pub scratch: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for TileBatch<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let count = self.tiles.len();
        // SAFETY: the device gives pointers to whole copies of the geometry's shapes, the packed weights and
        // `scratch_len` elements of scratch; tiles lie inside the pictures' tile grid.
        unsafe {
            let transformed = self.scratch;
            let sums = self.scratch.add(POINTS * self.plan.blocks * count * I::LANES);
            for t in 0..count {
                self.transform_input(t, transformed);
            }
            for run in &self.plan.runs[self.share.clone()] {
                match run.blocks {
                    2 => self.blocks::<2>(run, transformed, sums),
                    _ => self.blocks::<1>(run, transformed, sums),
                }
            }
        }
    }
}

impl<I: Isa> TileBatch<'_, I> {
    /// Copy, tile row and tile column of the batch's tile `t`.
    #[inline(always)]
    fn place(&self, t: usize) -> (usize, usize, usize) {
        let (copy, rest) = ((self.tiles.start + t) / self.plan.tiles(), (self.tiles.start + t) % self.plan.tiles());
        (copy, rest / self.plan.tiles[1], rest % self.plan.tiles[1])
    }

    /// `Bᵀ d B` of every channel block of one tile, to `[point][block][tile]`.
    #[inline(always)]
    unsafe fn transform_input(&self, t: usize, to: *mut I::T) {
        let (copy, ty, tx) = self.place(t);
        let read = self.geometry.read;
        let (h, w) = (read.h as isize, read.w as isize);
        let y0 = (ty * M) as isize + self.plan.first[0];
        let x0 = (tx * M) as isize + self.plan.first[1];
        let inside = y0 >= 0 && x0 >= 0 && y0 + N as isize <= h && x0 + N as isize <= w;
        let count = self.tiles.len();
        let point = self.plan.blocks * count * I::LANES;
        // SAFETY: elements outside the picture are replaced by zeros; the result's places lie in scratch.
        unsafe {
            for block in 0..self.plan.blocks {
                let plane = self.copies[copy].read.add(block * read.plane() * I::LANES);
                let mut columns = [[I::zero(); N]; N];
                for (x, column) in columns.iter_mut().enumerate() {
                    let mut d = [I::zero(); N];
                    for (y, d) in d.iter_mut().enumerate() {
                        let at = (y0 + y as isize, x0 + x as isize);
                        if inside || (at.0 >= 0 && at.0 < h && at.1 >= 0 && at.1 < w) {
                            *d = I::load(plane.offset((at.0 * w + at.1) * I::LANES as isize));
                        }
                    }
                    *column = input_line::<I>(d);
                }
                let out = to.add((block * count + t) * I::LANES);
                for y in 0..N {
                    let d = columns.map(|column| column[y]);
                    for (x, v) in input_line::<I>(d).into_iter().enumerate() {
                        I::store(out.add((y * N + x) * point), v);
                    }
                }
            }
        }
    }

    /// The products of one run of `Q` blocks, and their results.
    #[inline(always)]
    unsafe fn blocks<const Q: usize>(&self, run: &BlockRun, transformed: *const I::T, sums: *mut I::T) {
        let count = self.tiles.len();
        let point = self.plan.blocks * count * I::LANES;
        let panel = run.channels.len() * Q * I::LANES;
        // SAFETY: as for `call`; sums are `[point][q][tile]`.
        unsafe {
            let weights = self.weights.add(run.offsets[0]);
            for e in 0..POINTS {
                let x = transformed.add(e * point);
                let w = weights.add(e * panel);
                let to = sums.add(e * Q * count * I::LANES);
                let mut t = 0;
                while t < count {
                    let left = count - t;
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if $p <= I::PIXELS && left >= $p && (left != 16 || $p <= 8) {
                                let mut sum = [[I::zero(); Q]; $p];
                                let source = x.add(t * I::LANES);
                                accumulate::<I, $p, Q, 1>(&mut sum, source, count * I::LANES, I::LANES, &[0], &run.channels, w);
                                for (p, sum) in sum.iter().enumerate() {
                                    for (q, &v) in sum.iter().enumerate() {
                                        I::store(to.add((q * count + t + p) * I::LANES), v);
                                    }
                                }
                                t += $p;
                                continue;
                            })+
                        };
                    }
                    step!(14, 8, 7, 6, 4, 2, 1);
                }
            }
            for t in 0..count {
                for q in 0..Q {
                    self.transform_back(
                        t,
                        run.first_block + q,
                        sums.add((q * count + t) * I::LANES),
                        Q * count * I::LANES,
                    );
                }
            }
        }
    }

    /// `Aᵀ m A` of one tile and written channel block, finished and stored where it lies inside the picture.
    #[inline(always)]
    unsafe fn transform_back(&self, t: usize, block: usize, sums: *const I::T, point: usize) {
        let (copy, ty, tx) = self.place(t);
        let written = self.geometry.written;
        let view = &self.copies[copy];
        // SAFETY: as for `call`; results outside the picture are dropped.
        unsafe {
            let out = CopyOut::<I>::new(view);
            let bias = view.bias::<I>(block);
            let mut columns = [[I::zero(); M]; N];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut m = [I::zero(); N];
                for (y, m) in m.iter_mut().enumerate() {
                    *m = I::load(sums.add((y * N + x) * point));
                }
                *column = output_line::<I>(m);
            }
            let rows = (written.h - ty * M).min(M);
            let kept = (written.w - tx * M).min(M);
            for y in 0..rows {
                let line = output_line::<I>(columns.map(|column| column[y]));
                let index = block * written.plane() + (ty * M + y) * written.w + tx * M;
                for (x, &v) in line[..kept].iter().enumerate() {
                    out.put(index + x, I::add(v, bias));
                }
            }
        }
    }
}

/// One line of `Bᵀ d`.
#[inline(always)]
unsafe fn input_line<I: Isa>(d: [I::V; N]) -> [I::V; N] {
    // SAFETY: the caller has the instruction set's features.
    unsafe {
        let c = |x: f64| I::splat(I::T::from_f64(x));
        let (two, minus_two, four, minus_four, minus_five) = (c(2.0), c(-2.0), c(4.0), c(-4.0), c(-5.0));
        let even = I::fma(minus_four, d[2], d[4]);
        let odd = I::fma(minus_four, d[1], d[3]);
        let even2 = I::sub(d[4], d[2]);
        let odd2 = I::sub(d[3], d[1]);
        [
            I::fma(four, d[0], I::fma(minus_five, d[2], d[4])),
            I::add(even, odd),
            I::sub(even, odd),
            I::fma(two, odd2, even2),
            I::fma(minus_two, odd2, even2),
            I::fma(four, d[1], I::fma(minus_five, d[3], d[5])),
        ]
    }
}

/// One line of `Aᵀ m`.
#[inline(always)]
unsafe fn output_line<I: Isa>(m: [I::V; N]) -> [I::V; M] {
    // SAFETY: the caller has the instruction set's features.
    unsafe {
        let c = |x: f64| I::splat(I::T::from_f64(x));
        let (two, four, eight) = (c(2.0), c(4.0), c(8.0));
        let near = I::add(m[1], m[2]);
        let near_odd = I::sub(m[1], m[2]);
        let far = I::add(m[3], m[4]);
        let far_odd = I::sub(m[3], m[4]);
        [
            I::add(m[0], I::add(near, far)),
            I::fma(two, far_odd, near_odd),
            I::fma(four, far, near),
            I::add(I::fma(eight, far_odd, near_odd), m[5]),
        ]
    }
}
