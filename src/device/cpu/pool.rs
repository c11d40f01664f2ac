//! Pools and their adjoints; one task per channel block of a picture.

use super::isa::{CpuKernel, Isa};
use crate::device::{Lists, Spare};
use crate::program::{PoolLayer, WinnerWidth};
use crate::tensor::{Blend, Scalar, Shape};

/// Rows or columns `[start, end)` that window `i` covers, clipped to the input, and the tap of the first.
#[inline(always)]
fn clip(i: usize, stride: usize, pad: usize, kernel: usize, dilation: usize, size: usize) -> (usize, usize) {
    let start = (i * stride) as isize - pad as isize;
    let d = dilation as isize;
    let first = if start < 0 { (-start + d - 1) / d } else { 0 };
    let last = (size as isize - start + d - 1) / d;
    (first.min(kernel as isize) as usize, last.clamp(0, kernel as isize) as usize)
}

/// A pooling window resolved for one input shape.
#[derive(Clone, Copy)]
struct Walk {
    layer: PoolLayer,
    pads: [[usize; 2]; 2],
}

impl Walk {
    fn new(layer: PoolLayer) -> Self {
        Self { layer, pads: layer.window.pads(layer.input.h, layer.input.w) }
    }

    /// Taps `[first, last)` of output row or column `i` on axis `a` that lie inside the input.
    #[inline(always)]
    fn taps(&self, i: usize, a: usize) -> (usize, usize) {
        let w = &self.layer.window;
        let size = [self.layer.input.h, self.layer.input.w][a];
        clip(i, w.stride[a], self.pads[a][0], w.kernel[a], w.dilation[a], size)
    }

    /// Input row or column of a tap that lies inside.
    #[inline(always)]
    fn input(&self, i: usize, tap: usize, a: usize) -> usize {
        i * self.layer.window.stride[a] + tap * self.layer.window.dilation[a] - self.pads[a][0]
    }

    /// Windows that cover input row or column `i` on axis `a`, in order, with the tap through which each reads it.
    fn covering(&self, i: usize, a: usize) -> impl Iterator<Item = (usize, usize)> {
        let w = &self.layer.window;
        let (stride, dilation, span) = (w.stride[a], w.dilation[a], w.span()[a]);
        let at = i + self.pads[a][0];
        let windows = [self.layer.output.h, self.layer.output.w][a];
        let first = (at + 1).saturating_sub(span).div_ceil(stride);
        (first..windows.min(at / stride + 1))
            .map(move |window| (window, at - window * stride))
            .filter(move |(_, offset)| offset.is_multiple_of(dilation))
            .map(move |(window, offset)| (window, offset / dilation))
    }

    /// The divisor of an average pool at output `(y, x)`.
    #[inline(always)]
    fn divisor(&self, y: usize, x: usize, count_padding: bool) -> usize {
        let axis = |i: usize, a: usize| {
            let (first, last) = self.taps(i, a);
            if !count_padding {
                return last - first;
            }
            // Padding counts, but the part of a partial last window beyond the padding does not.
            let w = &self.layer.window;
            let size = [self.layer.input.h, self.layer.input.w][a];
            let start = i * w.stride[a];
            let end = (start + w.span()[a]).min(size + self.pads[a][0] + self.pads[a][1]);
            (end - start).div_ceil(w.dilation[a])
        };
        axis(y, 0) * axis(x, 1)
    }
}

/// Maximum over windows of one channel block.
pub(super) struct Max<I: Isa> {
    pub layer: PoolLayer,
    pub x: *const I::T,
    pub out: *mut I::T,
    pub winners: *mut u8,
    pub width: WinnerWidth,
}

impl<I: Isa> CpuKernel<I> for Max<I> {
    #[inline(always)]
    // A NaN must win and stay, using comparisons that become vector instructions.
    #[allow(clippy::neg_cmp_op_on_partial_ord, clippy::eq_op, clippy::needless_range_loop)]
    unsafe fn call(self) {
        let walk = Walk::new(self.layer);
        let Shape { h, w, .. } = self.layer.output;
        let kernel = self.layer.window.kernel;
        // SAFETY: pointers are to one channel block of values of the layer's shapes; taps are clipped to the input.
        unsafe {
            for y in 0..h {
                let (y0, y1) = walk.taps(y, 0);
                for x in 0..w {
                    let (x0, x1) = walk.taps(x, 1);
                    let mut best = [I::T::ZERO; 16];
                    let mut winner = [0u16; 16];
                    let mut fresh = true;
                    for ky in y0..y1 {
                        for kx in x0..x1 {
                            let pixel = walk.input(y, ky, 0) * self.layer.input.w + walk.input(x, kx, 1);
                            let v = self.x.add(pixel * I::LANES);
                            let tap = (ky * kernel[1] + kx) as u16;
                            for lane in 0..I::LANES {
                                let v = *v.add(lane);
                                let wins = fresh || !(v <= best[lane]) && best[lane] == best[lane];
                                best[lane] = if wins { v } else { best[lane] };
                                winner[lane] = if wins { tap } else { winner[lane] };
                            }
                            fresh = false;
                        }
                    }
                    let at = (y * w + x) * I::LANES;
                    for lane in 0..I::LANES {
                        *self.out.add(at + lane) = best[lane];
                    }
                    if self.winners.is_null() {
                        continue;
                    }
                    match self.width {
                        WinnerWidth::One => {
                            for lane in 0..I::LANES {
                                *self.winners.add(at + lane) = winner[lane] as u8;
                            }
                        }
                        WinnerWidth::Two => {
                            for lane in 0..I::LANES {
                                *self.winners.cast::<u16>().add(at + lane) = winner[lane];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Winners of one channel block; ties are decided by the preferred winners.
pub(super) struct Prefer<I: Isa> {
    pub layer: PoolLayer,
    pub x: *const I::T,
    pub winners: *const u8,
    pub preferred: *const u8,
    pub width: WinnerWidth,
    pub out: *mut u8,
}

impl<I: Isa> CpuKernel<I> for Prefer<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let walk = Walk::new(self.layer);
        let Shape { h, w, .. } = self.layer.output;
        let columns = self.layer.window.kernel[1];
        // SAFETY: as for `Max`; a tap is read only if it lies inside the input.
        unsafe {
            for y in 0..h {
                let (y0, y1) = walk.taps(y, 0);
                for x in 0..w {
                    let (x0, x1) = walk.taps(x, 1);
                    for at in (y * w + x) * I::LANES..(y * w + x + 1) * I::LANES {
                        let tap = |from: *const u8| match self.width {
                            WinnerWidth::One => u16::from(*from.add(at)),
                            WinnerWidth::Two => *from.cast::<u16>().add(at),
                        };
                        let number = |tap: u16| {
                            let (ky, kx) = (usize::from(tap) / columns, usize::from(tap) % columns);
                            let inside = (y0..y1).contains(&ky) && (x0..x1).contains(&kx);
                            let pixel = || walk.input(y, ky, 0) * self.layer.input.w + walk.input(x, kx, 1);
                            inside.then(|| *self.x.add(pixel() * I::LANES + at % I::LANES))
                        };
                        let (own, preferred) = (tap(self.winners), tap(self.preferred));
                        let tied = matches!((number(own), number(preferred)), (Some(a), Some(b)) if a == b);
                        let chosen = if tied { preferred } else { own };
                        match self.width {
                            WinnerWidth::One => *self.out.add(at) = chosen as u8,
                            WinnerWidth::Two => *self.out.cast::<u16>().add(at) = chosen,
                        }
                    }
                }
            }
        }
    }
}

/// Sends signals to the winners of one channel block: every element sums the windows that it won, in order.
pub(super) struct MaxAdjoint<'a, I: Isa> {
    pub layer: PoolLayer,
    pub lists: &'a mut Spare,
    pub s: *const I::T,
    pub winners: *const u8,
    pub width: WinnerWidth,
    pub out: *mut I::T,
}

impl<I: Isa> MaxAdjoint<'_, I> {
    /// Bit `i` is set if `tap` won lane `i` of window `at`.
    #[inline(always)]
    unsafe fn won(&self, at: usize, tap: usize) -> u32 {
        // SAFETY: the window lies inside the winners.
        unsafe {
            match self.width {
                WinnerWidth::One => I::equal_bytes(self.winners.add(at * I::LANES), tap as u8),
                WinnerWidth::Two => {
                    let winners = self.winners.cast::<u16>().add(at * I::LANES);
                    (0..I::LANES).fold(0, |bits, i| bits | u32::from(usize::from(*winners.add(i)) == tap) << i)
                }
            }
        }
    }
}

impl<I: Isa> CpuKernel<I> for MaxAdjoint<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let walk = Walk::new(self.layer);
        let Shape { w: windows, .. } = self.layer.output;
        let Shape { h, w, .. } = self.layer.input;
        let taps = self.layer.window.kernel[1];
        // Winners inside the padding (in unused lanes, or in decisions passed to the run) belong to no element.
        let columns = Lists::new(&mut *self.lists, w, |x| walk.covering(x, 1));
        let rows = Lists::new(&mut *self.lists, h, |y| walk.covering(y, 0));
        for y in 0..h {
            let rows = rows.get(y);
            for x in 0..w {
                let columns = columns.get(x);
                // SAFETY: as for `Max`.
                unsafe {
                    let mut sum = I::zero();
                    for &(row, ky) in rows {
                        for &(column, kx) in columns {
                            let at = row * windows + column;
                            let won = self.won(at, ky * taps + kx);
                            sum = I::add(sum, I::keep(I::load(self.s.add(at * I::LANES)), won));
                        }
                    }
                    I::store(self.out.add((y * w + x) * I::LANES), sum);
                }
            }
        }
        rows.keep(&mut *self.lists);
        columns.keep(&mut *self.lists);
    }
}

/// Mean over windows of one channel block, or its adjoint.
pub(super) struct Average<I: Isa> {
    pub layer: PoolLayer,
    pub count_padding: bool,
    pub adjoint: bool,
    pub from: *const I::T,
    pub to: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for Average<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let walk = Walk::new(self.layer);
        let Shape { h, w, .. } = self.layer.output;
        // SAFETY: pointers are to one channel block of values of the layer's shapes; taps are clipped to the input.
        unsafe {
            let written = if self.adjoint { self.layer.input } else { self.layer.output };
            std::ptr::write_bytes(self.to, 0, written.plane() * I::LANES);
            for y in 0..h {
                let (y0, y1) = walk.taps(y, 0);
                for x in 0..w {
                    let (x0, x1) = walk.taps(x, 1);
                    let scale = I::splat(I::T::from_f64(1.0 / walk.divisor(y, x, self.count_padding) as f64));
                    let out = (y * w + x) * I::LANES;
                    let mut sum = I::zero();
                    let signal = if self.adjoint { I::mul(I::load(self.from.add(out)), scale) } else { sum };
                    for ky in y0..y1 {
                        for kx in x0..x1 {
                            let pixel = walk.input(y, ky, 0) * self.layer.input.w + walk.input(x, kx, 1);
                            let at = pixel * I::LANES;
                            if self.adjoint {
                                I::store(self.to.add(at), I::add(I::load(self.to.add(at)), signal));
                            } else {
                                sum = I::add(sum, I::load(self.from.add(at)));
                            }
                        }
                    }
                    if !self.adjoint {
                        I::store(self.to.add(out), I::mul(sum, scale));
                    }
                }
            }
        }
    }
}

/// Mean over `⌊i·n/out⌋ .. ⌈(i+1)·n/out⌉` of one channel block, or its adjoint.
pub(super) struct Adaptive<I: Isa> {
    pub input: Shape,
    pub output: Shape,
    pub adjoint: bool,
    pub from: *const I::T,
    pub to: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for Adaptive<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let bin = |i: usize, size: usize, out: usize| (i * size / out, ((i + 1) * size).div_ceil(out));
        // SAFETY: pointers are to one channel block of values of the given shapes; bins lie inside the input.
        unsafe {
            let written = if self.adjoint { self.input } else { self.output };
            std::ptr::write_bytes(self.to, 0, written.plane() * I::LANES);
            for y in 0..self.output.h {
                let (y0, y1) = bin(y, self.input.h, self.output.h);
                for x in 0..self.output.w {
                    let (x0, x1) = bin(x, self.input.w, self.output.w);
                    let scale = I::splat(I::T::from_f64(1.0 / ((y1 - y0) * (x1 - x0)) as f64));
                    let out = (y * self.output.w + x) * I::LANES;
                    let mut sum = I::zero();
                    let signal = if self.adjoint { I::mul(I::load(self.from.add(out)), scale) } else { sum };
                    for row in y0..y1 {
                        for column in x0..x1 {
                            let at = (row * self.input.w + column) * I::LANES;
                            if self.adjoint {
                                I::store(self.to.add(at), I::add(I::load(self.to.add(at)), signal));
                            } else {
                                sum = I::add(sum, I::load(self.from.add(at)));
                            }
                        }
                    }
                    if !self.adjoint {
                        I::store(self.to.add(out), I::mul(sum, scale));
                    }
                }
            }
        }
    }
}

/// Weighted sums over rows and columns of one channel block.
pub(super) struct Resample<'a, I: Isa> {
    pub blends: &'a [Blend; 2],
    pub lists: &'a mut Spare,
    pub from_columns: usize,
    pub from: *const I::T,
    pub to: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for Resample<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let [rows, columns] = self.blends;
        let across = Lists::new(&mut *self.lists, columns.len(), |x| numbers::<I::T>(columns, x));
        let down = Lists::new(&mut *self.lists, rows.len(), |y| numbers::<I::T>(rows, y));
        // SAFETY: pointers are to one channel block of values with the blends' rows and columns.
        unsafe {
            for y in 0..rows.len() {
                for x in 0..columns.len() {
                    let mut sum = I::zero();
                    for &(row, weight) in down.get(y) {
                        let mut along = I::zero();
                        for &(column, weight) in across.get(x) {
                            let at = (row * self.from_columns + column) * I::LANES;
                            along = I::fma(I::splat(weight), I::load(self.from.add(at)), along);
                        }
                        sum = I::fma(I::splat(weight), along, sum);
                    }
                    I::store(self.to.add((y * columns.len() + x) * I::LANES), sum);
                }
            }
        }
        across.keep(&mut *self.lists);
        down.keep(&mut *self.lists);
    }
}

/// The terms of a blend's output.
fn numbers<T: Scalar>(blend: &Blend, o: usize) -> impl Iterator<Item = (usize, T)> + '_ {
    blend.terms(o).map(|(source, weight)| (source, T::from_f64(weight)))
}

/// Mean over the plane of one channel block, as a vector.
pub(super) struct PlaneMean<I: Isa> {
    pub x: *const I::T,
    pub plane: usize,
    pub out: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for PlaneMean<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: pointers are to one channel block and one vector.
        unsafe {
            let mut sum = I::zero();
            for pixel in 0..self.plane {
                sum = I::add(sum, I::load(self.x.add(pixel * I::LANES)));
            }
            let scale = I::splat(I::T::from_f64(1.0 / self.plane as f64));
            I::store(self.out, I::mul(sum, scale));
        }
    }
}
