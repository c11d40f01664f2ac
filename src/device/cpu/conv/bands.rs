//! Bands of rows: the tasks of every algorithm that processes the positions of a copy one by one.

use std::ops::Range;

use super::epilogue::{CopyOut, CopyView};
use super::geometry::{Geometry, SubGrid};
use crate::device::cpu::isa::Isa;

/// Most bytes that a band of rows reads, without its halo's rows. They stay in the second-level cache (1 MiB where this was
/// tuned).
const BAND_BYTES: usize = 384 << 10;

/// The division of one copy's result into bands.
#[derive(Debug, Clone)]
pub(super) struct Bands {
    /// Whether positions are computed as one long row (1×1, stride 1: neighbours are independent).
    flat: bool,
    /// Set if a zero-padded copy of each band is read.
    halo: Option<Halo>,
    /// Rows of the result, and positions of each (positions of the result, and 1, if flat).
    extent: [usize; 2],
    /// Rows of one band.
    rows: usize,
    /// The zero-padded copy of a band, in elements. Scratch after it is free.
    pub padded_len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Halo {
    /// First row and column read relative to a position's base.
    first: [isize; 2],
    /// Rows read in addition to a band's.
    extra_rows: usize,
    /// Columns of the padded copy.
    width: usize,
}

impl Bands {
    /// Bands that read `blocks` channel blocks at a time. `shorten` computes the rows of a band from the rows that fit
    /// into the cache and the result's `[rows, positions per row]`.
    pub fn new<I: Isa>(geometry: &Geometry, blocks: usize, shorten: impl FnOnce(usize, [usize; 2]) -> usize) -> Self {
        let [h, w] = geometry.extent();
        let flat = geometry.stays_inside()
            && geometry.grids.len() == 1
            && geometry.grids[0].taps.len() == 1
            && geometry.write_step == [1, 1]
            && geometry.read_step == [1, 1]
            && (geometry.read.h, geometry.read.w) == (geometry.written.h, geometry.written.w);
        let halo = (!geometry.stays_inside()).then(|| {
            let reach = geometry.reach();
            Halo {
                first: [reach[0][0], reach[1][0]],
                extra_rows: (reach[0][1] - reach[0][0]) as usize,
                width: w.saturating_sub(1) * geometry.read_step[1] + (reach[1][1] - reach[1][0]) as usize + 1,
            }
        });
        let pixel_bytes = blocks * I::LANES * size_of::<I::T>();
        let row_bytes = match &halo {
            Some(halo) => pixel_bytes * halo.width * geometry.read_step[0],
            None if flat => pixel_bytes,
            None => pixel_bytes * geometry.read.w * geometry.read_step[0],
        };
        let extent = if flat { [h * w, 1] } else { [h, w] };
        let whole_tiles = |rows: usize| if flat { rows.next_multiple_of(I::PIXELS) } else { rows };
        let fits = whole_tiles((BAND_BYTES / row_bytes.max(1)).max(1));
        // Bands of nearly equal size.
        let bands = extent[0].div_ceil(fits).max(1);
        let equal = whole_tiles(extent[0].div_ceil(bands).max(1));
        let rows = shorten(equal, extent);
        let padded = |halo: Halo| blocks * halo.rows(geometry, rows) * halo.width * I::LANES;
        Self { flat, halo, extent, rows, padded_len: halo.map_or(0, padded) }
    }

    /// Bands of one copy.
    pub fn count(&self) -> usize {
        self.extent[0].div_ceil(self.rows)
    }

    /// Rows and columns of band `index`.
    pub fn span(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let own = index * self.rows..self.extent[0].min((index + 1) * self.rows);
        if self.flat { (0..1, own) } else { (own, 0..self.extent[1]) }
    }
}

impl Bands {
    /// The positions of a span, if every position of the result is computed.
    pub fn positions(&self, geometry: &Geometry, rows: &Range<usize>, columns: &Range<usize>) -> Range<usize> {
        let width = geometry.written.w;
        if self.flat { columns.clone() } else { rows.start * width..rows.end * width }
    }
}

impl Halo {
    /// Rows of the padded copy of a band with `rows` rows.
    #[inline(always)]
    fn rows(&self, geometry: &Geometry, rows: usize) -> usize {
        (rows - 1) * geometry.read_step[0] + self.extra_rows + 1
    }
}

/// One band of one copy, and a share of the written channels.
pub(super) struct Band<'a, I: Isa> {
    pub geometry: &'a Geometry,
    pub bands: &'a Bands,
    pub weights: *const I::T,
    pub view: CopyView<I::T>,
    pub scratch: *mut I::T,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// Indices of the algorithm's parts.
    pub share: Range<usize>,
}

/// A band's input: pointer to the first position's base, and distances in elements.
#[derive(Clone, Copy)]
pub(super) struct Input<T> {
    base: *const T,
    pub block: usize,
    row: usize,
    pub pixel: usize,
    /// Row and column of `base` in the picture's coordinates.
    origin: [isize; 2],
}

/// The location of a tile: base of its first position, and index of its first vector within a channel block.
#[derive(Clone, Copy)]
pub(super) struct TileAt<T> {
    pub x: *const T,
    pub index: usize,
}

/// The remaining positions of a row.
pub(super) struct RowRest<T> {
    /// Start of the row.
    start: TileAt<T>,
    /// Elements and vectors from one position to the next.
    step: [usize; 2],
    left: Range<usize>,
}

impl<T> RowRest<T> {
    /// Positions left.
    #[inline(always)]
    pub fn left(&self) -> usize {
        self.left.end - self.left.start
    }

    /// The tile of the next `positions`, of which at least as many are left.
    ///
    /// # Safety
    /// The input of [`Band::lines`] still lives.
    #[inline(always)]
    pub unsafe fn take(&mut self, positions: usize) -> TileAt<T> {
        let j = self.left.start;
        self.left.start += positions;
        // SAFETY: row and column lie inside what the input covers.
        TileAt { x: unsafe { self.start.x.add(j * self.step[0]) }, index: self.start.index + j * self.step[1] }
    }
}

impl<I: Isa> Band<'_, I> {
    /// The copy itself, or a zero-padded copy of the part that this band reads of the given channel blocks.
    #[inline(always)]
    pub unsafe fn input(&self, blocks: Range<usize>) -> Input<I::T> {
        let (geometry, rows) = (self.geometry, &self.rows);
        let (height, width) = (geometry.read.h as isize, geometry.read.w as isize);
        let plane = geometry.read.h * geometry.read.w * I::LANES;
        // SAFETY: offsets stay inside the copy (clipped below) and inside `scratch_len` elements of scratch.
        unsafe {
            let Some(halo) = self.bands.halo else {
                return Input {
                    base: self.view.read.add(blocks.start * plane),
                    block: plane,
                    row: geometry.read.w * I::LANES,
                    pixel: geometry.read_step[1] * I::LANES,
                    origin: [0, 0],
                };
            };
            let copied = halo.rows(geometry, rows.len());
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
            Input {
                base: self.scratch,
                block: copied * line,
                row: line,
                pixel: geometry.read_step[1] * I::LANES,
                origin: [first_row, halo.first[1]],
            }
        }
    }

    /// Element offsets of a sub-grid's taps from a position's base in `input`.
    #[inline(always)]
    pub fn offsets(&self, grid: &SubGrid, input: Input<I::T>, taps: &mut Vec<isize>) {
        let first = (self.rows.start * self.geometry.read_step[0]) as isize;
        let padded = self.bands.halo.is_some();
        taps.clear();
        taps.extend(grid.taps.iter().map(|t| {
            let row = if padded { first + t.at[0] - input.origin[0] } else { t.at[0] };
            row * input.row as isize + (t.at[1] - input.origin[1]) * I::LANES as isize
        }));
    }

    /// The band's rows of a sub-grid: the walk that all algorithms take over their tiles.
    #[inline(always)]
    pub fn lines(&self, grid: &SubGrid, input: Input<I::T>) -> impl Iterator<Item = RowRest<I::T>> {
        let geometry = self.geometry;
        let end = if self.bands.flat { self.columns.end } else { self.columns.end.min(grid.extent[1]) };
        let columns = self.columns.start..end;
        let first = if self.bands.halo.is_some() { self.rows.start } else { 0 };
        let [y, x] = grid.origin;
        (self.rows.start..self.rows.end.min(grid.extent[0])).map(move |i| RowRest {
            start: TileAt {
                // SAFETY: the row lies inside what `input` covers.
                x: unsafe { input.base.add((i - first) * geometry.read_step[0] * input.row) },
                index: (y + i * geometry.write_step[0]) * geometry.written.w + x,
            },
            step: [input.pixel, geometry.write_step[1]],
            left: columns.clone(),
        })
    }

    /// Finishes and stores the sums of a tile, from written block `block` on.
    #[inline(always)]
    pub unsafe fn store<const P: usize, const Q: usize>(&self, block: usize, index: usize, sum: [[I::V; Q]; P]) {
        let plane = self.geometry.written.h * self.geometry.written.w;
        let step = self.geometry.write_step[1];
        // SAFETY: `P · Q` vectors of the copy, inside by the caller's loops.
        unsafe {
            let out = CopyOut::<I>::new(&self.view);
            for q in 0..Q {
                for (p, sum) in sum.iter().enumerate() {
                    out.put((block + q) * plane + index + p * step, sum[q]);
                }
            }
        }
    }
}
