//! Computes the pixels of copies with parts removed.

use std::collections::BTreeMap;

use super::isa::{CpuKernel, Isa};
use super::layout::index;
use super::{Cpu, CpuValues};
use crate::device::{Boxes, Chunk, Masks, Rectangle};
use crate::program::Value;
use crate::tensor::resample::taps;
use crate::tensor::{Scalar, Shape, Tensor};

/// For each output, two neighbours in a grid's row or column, and the weight of the second.
type GridTaps<T> = Vec<(usize, usize, T)>;

/// The modification of one copy.
enum Away<'a, T> {
    /// Other pixels inside a rectangle.
    Box { inside: Rectangle, fill: &'a [T] },
    /// Multiplication with a mask.
    Mask { values: Vec<T>, columns: usize, corner: [usize; 2], taps: &'a [GridTaps<T>; 2] },
}

/// One channel of one copy.
struct Masked<'a, I: Isa> {
    picture: &'a [I::T],
    shape: Shape,
    channel: usize,
    away: &'a Away<'a, I::T>,
    /// The whole copy in blocks.
    out: *mut I::T,
}

impl<I: Isa> Masked<'_, I> {
    /// Writes `f(x, y, column, element)` at every pixel.
    #[inline(always)]
    unsafe fn each(&self, f: impl Fn(I::T, usize, usize, usize) -> I::T) {
        let start = self.channel * self.shape.plane();
        for y in 0..self.shape.h {
            for x in 0..self.shape.w {
                let pixel = y * self.shape.w + x;
                let v = f(self.picture[start + pixel], y, x, start + pixel);
                // SAFETY: the copy holds every channel's plane.
                unsafe { *self.out.add(index(self.shape, I::LANES, self.channel, pixel)) = v };
            }
        }
    }
}

impl<I: Isa> CpuKernel<I> for Masked<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: as for `each`.
        unsafe {
            match self.away {
                Away::Box { inside: Rectangle { corner, size }, fill } => self.each(|v, y, x, element| {
                    let within = y >= corner[0] && y - corner[0] < size[0] && x >= corner[1] && x - corner[1] < size[1];
                    if within { fill[element] } else { v }
                }),
                Away::Mask { values, columns, corner, taps: [rows, across] } => {
                    let one = I::T::from_f64(1.0);
                    self.each(|v, y, x, _| {
                        let ((y0, y1, fy), (x0, x1, fx)) = (rows[y + corner[0]], across[x + corner[1]]);
                        let along =
                            |row: usize| (one - fx) * values[row * columns + x0] + fx * values[row * columns + x1];
                        ((one - fy) * along(y0) + fy * along(y1)) * v
                    });
                }
            }
        }
    }
}

impl<I: Isa> Cpu<I> {
    /// Pixels of copies with rectangles replaced.
    pub(super) fn boxes(&self, boxes: &Boxes, out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>) {
        let fills = typed::<I>(chunk, &boxes.fills);
        let fill = |item: usize| fills.get(&item).map_or(&[][..], Vec::as_slice);
        let away = chunk.slots.iter().map(|s| Away::Box { inside: boxes.boxes[s.copy], fill: fill(s.item) });
        self.taken_away(&away.collect::<Vec<_>>(), out, v, chunk);
    }

    /// Pixels of copies multiplied with masks.
    pub(super) fn masks(&self, masks: &Masks, out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>) {
        let typed_taps = |axis: usize| -> GridTaps<I::T> {
            let all = taps(masks.grid[axis], masks.size[axis]).into_iter();
            all.map(|(low, high, weight)| (low, high, I::T::from_f64(weight))).collect()
        };
        let taps = [typed_taps(0), typed_taps(1)];
        let away = chunk.slots.iter().map(|s| {
            let mask = &masks.masks[s.item][s.copy];
            let values = mask.values.iter().map(|&v| I::T::from_f64(v)).collect();
            Away::Mask { values, columns: masks.grid[1], corner: mask.corner, taps: &taps }
        });
        self.taken_away(&away.collect::<Vec<_>>(), out, v, chunk);
    }

    fn taken_away(&self, away: &[Away<'_, I::T>], out: Value, v: &CpuValues<'_, I>, chunk: &Chunk<'_>) {
        let shape = v.shape(out);
        let pictures = typed::<I>(chunk, chunk.pictures);
        if !shape.c.is_multiple_of(I::LANES) {
            // SAFETY: every task writes its own copy.
            self.each(v.copies, |n, _| unsafe { v.slice_mut(out, n) }.fill(I::T::ZERO));
        }
        self.each(v.copies * shape.c, |t, _| {
            let (n, channel) = (t / shape.c, t % shape.c);
            let Some(picture) = pictures.get(&chunk.slots[n].item) else { return };
            let kernel = Masked::<I> { picture, shape, channel, away: &away[n], out: v.at(out, n) };
            // SAFETY: the copy holds the shape; features were detected.
            unsafe { I::run(kernel) };
        });
    }
}

/// Pictures of the chunk, each converted once.
fn typed<I: Isa>(chunk: &Chunk<'_>, all: &[Tensor]) -> BTreeMap<usize, Vec<I::T>> {
    let mut typed = BTreeMap::new();
    for slot in chunk.slots {
        typed.entry(slot.item).or_insert_with(|| {
            let mut numbers = vec![I::T::ZERO; all[slot.item].len()];
            all[slot.item].write_to(&mut numbers);
            numbers
        });
    }
    typed
}
