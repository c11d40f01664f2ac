//! Moves patches through one convolution; each patch's part of the layer stays in the first-level cache for all its
//! steps.
//!
//! Vectors hold output channels. Signals are ±1 at outputs beyond their limits and 0 at most outputs, whose adjoint is
//! skipped.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::isa::{CpuKernel, Isa};
use crate::device::patch::{Ascent, HALVINGS, Moved, Mover, PatchMove, PatchTask, Stem, USED};
use crate::error::Result;
use crate::tensor::{Scalar, Shape, Tensor};

/// Patches per task.
const TOGETHER: usize = 4;

impl<I: Isa> Cpu<I> {
    pub(super) fn stem_largest(&self, stem: &Stem, pictures: &[Tensor]) -> Result<Vec<f64>> {
        let reader = PatchReader::<I::T>::new(stem, I::LANES);
        pictures
            .iter()
            .map(|picture| {
                let picture = typed::<I::T>(picture);
                let rows = self.collect(reader.output.h, |row| {
                    let mut out = 0.0;
                    let kernel = Largest::<I> { reader: &reader, picture: &picture, row, out: &mut out };
                    // SAFETY: the picture has the layer's input shape; features were detected.
                    unsafe { I::run(kernel) };
                    out
                });
                let largest = rows.into_iter().fold(0.0, larger);
                if f64::is_finite(largest) { Ok(largest) } else { Err(stem.overflow()) }
            })
            .collect()
    }

    pub(super) fn patches(&self, task: &PatchTask<'_>) -> Result<Vec<Moved>> {
        let reader = PatchReader::<I::T>::new(task.stem, I::LANES);
        let pictures: Vec<Vec<I::T>> = task.pictures.iter().map(typed).collect();
        let moved = self.collect(task.places.len().div_ceil(TOGETHER), |t| {
            let places = &task.places[t * TOGETHER..task.places.len().min((t + 1) * TOGETHER)];
            let mut all = Vec::with_capacity(places.len());
            for place in places.iter().take_while(|_| !self.cancel.is_cancelled()) {
                let mut out = None;
                let kernel = Move::<I> {
                    reader: &reader,
                    picture: &pictures[place.item],
                    place,
                    limit: task.limits[place.item],
                    low: task.low,
                    high: task.high,
                    ascent: task.ascent,
                    out: &mut out,
                };
                // SAFETY: the picture has the layer's input shape and holds the place; features were detected.
                unsafe { I::run(kernel) };
                all.extend(out);
            }
            all
        });
        self.cancel.check()?;
        let moved: Vec<Moved> = moved.into_iter().flatten().collect();
        match moved.iter().all(|m| m.change.is_finite()) {
            true => Ok(moved),
            false => Err(task.stem.overflow()),
        }
    }

    /// The results of `task` for every index below `tasks`, in order.
    fn collect<R: Send>(&self, tasks: usize, task: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.install(|| (0..tasks).into_par_iter().with_max_len(1).map(task).collect()),
            _ => (0..tasks).map(task).collect(),
        }
    }
}

/// The larger of two numbers; a NaN is kept.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if b <= a || a.is_nan() { a } else { b }
}

/// Whether `v` is NaN, for any scalar type.
#[inline(always)]
#[allow(clippy::eq_op, reason = "nothing else is unequal to itself")]
fn is_nan<T: Scalar>(v: T) -> bool {
    v != v
}

fn typed<T: Scalar>(tensor: &Tensor) -> Vec<T> {
    let mut numbers = vec![T::ZERO; tensor.len()];
    tensor.write_to(&mut numbers);
    numbers
}

/// The convolution, in the order in which patches read it.
pub(super) struct PatchReader<T> {
    input: Shape,
    output: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Rows of padding above and columns to the left.
    pads: [usize; 2],
    /// Output channels, including unused lanes.
    lanes: usize,
    /// `[kh·kw, c, lanes]`.
    weight: Vec<T>,
    /// `[lanes]`.
    bias: Vec<T>,
    /// `[kh·kw, c, k]`.
    exact: Vec<f64>,
    exact_bias: Vec<f64>,
    /// Ends of the clamp.
    range: [f64; 2],
}

impl<T: Scalar> PatchReader<T> {
    /// For a stem with one group of channels.
    pub fn new(stem: &Stem, lanes: usize) -> Self {
        let layer = &stem.layer;
        let [k, c, kh, kw] = layer.weight.dims();
        let all = layer.weight.to_f64();
        let padded = k.next_multiple_of(lanes);
        let taps = kh * kw;
        let mut weight = vec![T::ZERO; taps * c * padded];
        let mut exact = vec![0.0; taps * c * k];
        for (row, numbers) in all.chunks_exact(c * taps).enumerate() {
            for (i, &w) in numbers.iter().enumerate() {
                let at = i % taps * c + i / taps;
                weight[at * padded + row] = T::from_f64(w);
                exact[at * k + row] = w;
            }
        }
        let exact_bias = layer.bias.as_ref().map_or_else(|| vec![0.0; k], |b| b.to_vec());
        let mut bias: Vec<T> = exact_bias.iter().map(|&b| T::from_f64(b)).collect();
        bias.resize(padded, T::ZERO);
        let pads = layer.window.pads(layer.input.h, layer.input.w);
        Self {
            input: layer.input,
            output: layer.output,
            kernel: layer.window.kernel,
            stride: layer.window.stride,
            dilation: layer.window.dilation,
            pads: [pads[0][0], pads[1][0]],
            lanes: padded,
            weight,
            bias,
            exact,
            exact_bias,
            range: stem.clamp.map_or([f64::NEG_INFINITY, f64::INFINITY], |r| [r.lo, r.hi]),
        }
    }

    /// Positions along `axis` whose windows overlap the elements of `span`.
    fn meets(&self, axis: usize, span: &Range<usize>) -> Range<usize> {
        let extent = [self.output.h, self.output.w][axis];
        let reach = (self.kernel[axis] - 1) * self.dilation[axis];
        let first = (span.start + self.pads[axis]).saturating_sub(reach).div_ceil(self.stride[axis]);
        let end = (span.end - 1 + self.pads[axis]) / self.stride[axis] + 1;
        first.min(extent)..end.min(extent)
    }

    /// The element along `axis` under tap `tap` of the window at `position`.
    fn under(&self, axis: usize, position: usize, tap: usize) -> Option<usize> {
        let extent = [self.input.h, self.input.w][axis];
        let at = (position * self.stride[axis] + tap * self.dilation[axis]).checked_sub(self.pads[axis])?;
        (at < extent).then_some(at)
    }

    /// The elements under the window at `[y, x]` with their taps, in order.
    fn window(&self, [y, x]: [usize; 2], out: &mut Vec<(usize, [usize; 2])>) {
        out.clear();
        for ky in 0..self.kernel[0] {
            let Some(row) = self.under(0, y, ky) else { continue };
            for kx in 0..self.kernel[1] {
                if let Some(column) = self.under(1, x, kx) {
                    out.push((ky * self.kernel[1] + kx, [row, column]));
                }
            }
        }
    }
}

/// Sums of the convolution at one position, given its window, before the clamp.
///
/// # Safety
/// `out` holds all lanes; the picture has the layer's input shape; the machine has the features of `I`.
#[inline(always)]
unsafe fn sums<I: Isa>(reader: &PatchReader<I::T>, picture: &[I::T], window: &[(usize, [usize; 2])], out: &mut [I::T]) {
    out.copy_from_slice(&reader.bias);
    let (c, plane, lanes) = (reader.input.c, reader.input.plane(), reader.lanes);
    for &(tap, [row, column]) in window {
        for channel in 0..c {
            let weights = &reader.weight[(tap * c + channel) * lanes..][..lanes];
            // SAFETY: both slices hold `lanes` numbers, a multiple of a vector's.
            unsafe {
                let x = I::splat(picture[channel * plane + row * reader.input.w + column]);
                for i in (0..lanes).step_by(I::LANES) {
                    let sum = I::fma(I::load(weights.as_ptr().add(i)), x, I::load(out.as_ptr().add(i)));
                    I::store(out.as_mut_ptr().add(i), sum);
                }
            }
        }
    }
}

/// Largest magnitude of the layer's outputs in one row.
pub(super) struct Largest<'a, I: Isa> {
    pub reader: &'a PatchReader<I::T>,
    pub picture: &'a [I::T],
    pub row: usize,
    pub out: &'a mut f64,
}

impl<I: Isa> CpuKernel<I> for Largest<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let reader = self.reader;
        let [low, high] = reader.range.map(I::T::from_f64);
        let mut row = vec![I::T::ZERO; reader.lanes];
        let mut most = vec![I::T::ZERO; reader.lanes];
        let mut window = Vec::new();
        for column in 0..reader.output.w {
            reader.window([self.row, column], &mut window);
            // SAFETY: the caller's features; slices of all lanes.
            unsafe { sums::<I>(reader, self.picture, &window, &mut row) };
            for (most, &sum) in most.iter_mut().zip(&row) {
                let sum = if sum < low { low } else { sum };
                let sum = if sum > high { high } else { sum };
                let size = if sum < I::T::ZERO { I::T::ZERO - sum } else { sum };
                // A NaN is kept.
                *most = if size <= *most || is_nan(*most) { *most } else { size };
            }
        }
        *self.out = most[..reader.output.c].iter().fold(0.0, |m, v| larger(m, v.to_f64()));
    }
}

/// Moves one patch.
pub(super) struct Move<'a, I: Isa> {
    pub reader: &'a PatchReader<I::T>,
    pub picture: &'a [I::T],
    pub place: &'a PatchMove,
    pub limit: f64,
    pub low: &'a [f64],
    pub high: &'a [f64],
    pub ascent: Ascent,
    pub out: &'a mut Option<Moved>,
}

/// A tap inside the patch for a position of the footprint: start of the pixel's numbers and of the tap's weights.
#[derive(Clone, Copy)]
struct PatchTap {
    pixel: u32,
    weights: u32,
}

impl<I: Isa> CpuKernel<I> for Move<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let Self { reader, picture, place, limit, low, high, ascent, out } = self;
        let (c, w, plane, lanes) = (reader.input.c, reader.input.w, reader.input.plane(), reader.lanes);
        let (rows, columns) = (reader.meets(0, &place.rows), reader.meets(1, &place.columns));
        let width = place.columns.len();
        // Pixels in the order y, x, c.
        let pixels: Vec<[usize; 2]> =
            place.rows.clone().flat_map(|y| place.columns.clone().map(move |x| [y, x])).collect();
        let number = |[y, x]: [usize; 2], channel: usize| picture[channel * plane + y * w + x].to_f64();
        let start: Vec<f64> = pixels.iter().flat_map(|&at| (0..c).map(move |k| number(at, k))).collect();
        let bounds = |ends: &[f64]| -> Vec<f64> { pixels.iter().flat_map(|_| ends.iter().copied()).collect() };
        let [low, high] = [bounds(low), bounds(high)];
        let positions: Vec<[usize; 2]> = rows.flat_map(|y| columns.clone().map(move |x| [y, x])).collect();

        // The sums on the picture, and the taps of each position that are inside the patch.
        let mut before = vec![I::T::ZERO; positions.len() * lanes];
        let mut taps: Vec<PatchTap> = Vec::new();
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(positions.len());
        let mut window = Vec::new();
        for (&at, before) in positions.iter().zip(before.chunks_exact_mut(lanes)) {
            reader.window(at, &mut window);
            // SAFETY: the caller's features; slices of all lanes.
            unsafe { sums::<I>(reader, picture, &window, before) };
            let first = taps.len();
            for &(tap, [y, x]) in &window {
                if place.rows.contains(&y) && place.columns.contains(&x) {
                    let pixel = (y - place.rows.start) * width + x - place.columns.start;
                    taps.push(PatchTap { pixel: (pixel * c) as u32, weights: (tap * c * lanes) as u32 });
                }
            }
            spans.push(first..taps.len());
        }
        let mut field = Field::<I> {
            c,
            lanes,
            weight: &reader.weight,
            taps: &taps,
            spans: &spans,
            before: &before,
            range: reader.range.map(I::T::from_f64),
            moves: vec![I::T::ZERO; start.len()],
            gradient: vec![I::T::ZERO; start.len() * I::LANES],
        };

        let mut mover = Mover::new(&start, &low, &high, place.sign, ascent.lr);
        let mut gradient = vec![0.0; start.len()];
        let scalar = I::T::from_f64(limit);
        for _ in 0..ascent.iterations {
            field.moves.iter_mut().zip(&mover.delta).for_each(|(m, &d)| *m = I::T::from_f64(d));
            // SAFETY: the caller's features; the field's slices were made for this patch.
            let violated = unsafe { field.pull(scalar) };
            if violated {
                for (g, lanes) in gradient.iter_mut().zip(field.gradient.chunks_exact(I::LANES)) {
                    *g = lanes.iter().map(|v| v.to_f64()).sum();
                }
            } else {
                gradient.fill(0.0);
            }
            mover.step(&gradient, violated);
        }

        field.moves.iter_mut().zip(&mover.delta).for_each(|(m, &d)| *m = I::T::from_f64(d));
        // SAFETY: as above.
        let mut share = unsafe { field.share(I::T::from_f64(limit * USED)) };
        let (moved, change) = loop {
            let at = |i: usize| {
                let to = (start[i] + share * mover.delta[i]).clamp(low[i].min(start[i]), high[i].max(start[i]));
                I::T::from_f64(to).to_f64()
            };
            let moved: Vec<f64> = (0..start.len()).map(at).collect();
            let change = change(reader, picture, &positions, &taps, &spans, &start, &moved);
            if change <= limit || share == 0.0 {
                break (moved, change);
            }
            share = if share > 1e-6 { 0.9 * share } else { 0.0 };
        };
        let planes = (0..c).flat_map(|k| moved.iter().skip(k).step_by(c).copied()).collect();
        *out = Some(Moved { pixels: planes, shrunk: share < 1.0, change });
    }
}

/// The layer around one patch.
struct Field<'a, I: Isa> {
    c: usize,
    lanes: usize,
    weight: &'a [I::T],
    taps: &'a [PatchTap],
    /// Taps of each position.
    spans: &'a [Range<usize>],
    /// Sums without a move, `[position, lanes]`.
    before: &'a [I::T],
    range: [I::T; 2],
    /// `x̃ − x`, `[pixel, c]`.
    moves: Vec<I::T>,
    /// `[pixel, c, a vector's lanes]`.
    gradient: Vec<I::T>,
}

impl<I: Isa> Field<'_, I> {
    /// Writes the derivative of `‖(|F(x̃)−F(x)|−ε)⁺‖₁` to `gradient`; returns whether any output is beyond its limit.
    #[inline(always)]
    unsafe fn pull(&mut self, limit: I::T) -> bool {
        self.gradient.fill(I::T::ZERO);
        let mut violated = 0;
        for position in 0..self.spans.len() {
            let mut first = 0;
            // SAFETY: groups of vectors lie inside the lanes.
            unsafe {
                while first + 4 * I::LANES <= self.lanes {
                    violated |= self.group::<4>(position, first, limit);
                    first += 4 * I::LANES;
                }
                while first < self.lanes {
                    violated |= self.group::<1>(position, first, limit);
                    first += I::LANES;
                }
            }
        }
        violated != 0
    }

    /// Sums at `position` for `N` vectors of channels from `first` on, starting from `start`.
    #[inline(always)]
    unsafe fn sums<const N: usize>(&self, position: usize, first: usize, start: [I::V; N]) -> [I::V; N] {
        let mut sums = start;
        for tap in &self.taps[self.spans[position].clone()] {
            // SAFETY: a tap's pixel has `c` moves, its weights `c` times the lanes.
            unsafe {
                let moves = self.moves.as_ptr().add(tap.pixel as usize);
                let weights = self.weight.as_ptr().add(tap.weights as usize + first);
                for channel in 0..self.c {
                    let x = I::splat(*moves.add(channel));
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = I::fma(I::load(weights.add(channel * self.lanes + n * I::LANES)), x, *sum);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn group<const N: usize>(&mut self, position: usize, first: usize, limit: I::T) -> u32 {
        // SAFETY: `first` and `N` vectors lie inside the lanes of each position and tap.
        unsafe {
            let before = self.before.as_ptr().add(position * self.lanes + first);
            let mut start = [I::zero(); N];
            for (n, start) in start.iter_mut().enumerate() {
                *start = I::load(before.add(n * I::LANES));
            }
            let sums = self.sums::<N>(position, first, start);
            let (low, high) = (I::splat(self.range[0]), I::splat(self.range[1]));
            let infinity = I::T::from_f64(f64::INFINITY);
            let (above, below) = (I::splat(limit), I::splat(I::T::ZERO - limit));
            let (most, least) = (I::splat(infinity), I::splat(I::T::ZERO - infinity));
            let one = I::splat(I::T::from_f64(1.0));
            let mut violated = 0;
            for n in 0..N {
                let change = I::sub(I::clamp(sums[n], low, high), I::clamp(start[n], low, high));
                let (up, down) = (I::between(change, above, most), I::between(change, least, below));
                violated |= up | down;
                if up | down == 0 {
                    continue;
                }
                let active = I::between(sums[n], low, high);
                if (up | down) & active == 0 {
                    continue;
                }
                let signal = I::sub(I::keep(one, up & active), I::keep(one, down & active));
                for tap in &self.taps[self.spans[position].clone()] {
                    let weights = self.weight.as_ptr().add(tap.weights as usize + first + n * I::LANES);
                    let gradient = self.gradient.as_mut_ptr().add(tap.pixel as usize * I::LANES);
                    for channel in 0..self.c {
                        let at = gradient.add(channel * I::LANES);
                        I::store(at, I::fma(I::load(weights.add(channel * self.lanes)), signal, I::load(at)));
                    }
                }
            }
            violated
        }
    }

    /// The largest share of the move (1, or accurate to 2⁻²⁴) that keeps every output within its limit.
    #[inline(always)]
    unsafe fn share(&self, limit: I::T) -> f64 {
        let mut slopes = vec![I::T::ZERO; self.before.len()];
        for position in 0..self.spans.len() {
            for first in (0..self.lanes).step_by(I::LANES) {
                // SAFETY: the vector lies inside the lanes.
                unsafe {
                    let [slope] = self.sums::<1>(position, first, [I::zero()]);
                    I::store(slopes.as_mut_ptr().add(position * self.lanes + first), slope);
                }
            }
        }
        // SAFETY: the caller's features.
        if unsafe { self.holds(&slopes, 1.0, limit) } {
            return 1.0;
        }
        // An output's change grows with the share, so if a share is within the limits, every smaller one is.
        let (mut good, mut bad) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (good + bad);
            // SAFETY: as above.
            if unsafe { self.holds(&slopes, middle, limit) } { good = middle } else { bad = middle }
        }
        good
    }

    /// Whether every output stays within its limit for `share` of the move.
    #[inline(always)]
    unsafe fn holds(&self, slopes: &[I::T], share: f64, limit: I::T) -> bool {
        let infinity = I::T::from_f64(f64::INFINITY);
        let mut violated = 0;
        // SAFETY: both slices hold the same whole vectors.
        unsafe {
            let (low, high) = (I::splat(self.range[0]), I::splat(self.range[1]));
            let (above, below) = (I::splat(limit), I::splat(I::T::ZERO - limit));
            let (most, least) = (I::splat(infinity), I::splat(I::T::ZERO - infinity));
            let share = I::splat(I::T::from_f64(share));
            for i in (0..slopes.len()).step_by(I::LANES) {
                let before = I::load(self.before.as_ptr().add(i));
                let after = I::fma(I::load(slopes.as_ptr().add(i)), share, before);
                let change = I::sub(I::clamp(after, low, high), I::clamp(before, low, high));
                violated |= I::between(change, above, most) | I::between(change, least, below);
            }
        }
        violated == 0
    }
}

/// Largest change of an output in double precision.
#[inline(always)]
fn change<T: Scalar>(
    reader: &PatchReader<T>,
    picture: &[T],
    positions: &[[usize; 2]],
    taps: &[PatchTap],
    spans: &[Range<usize>],
    start: &[f64],
    moved: &[f64],
) -> f64 {
    let (c, k, lanes) = (reader.input.c, reader.output.c, reader.lanes);
    let [low, high] = reader.range;
    let (mut before, mut after) = (vec![0.0; k], vec![0.0; k]);
    let mut window = Vec::new();
    let mut most = 0.0f64;
    for (&at, span) in positions.iter().zip(spans) {
        before.copy_from_slice(&reader.exact_bias);
        reader.window(at, &mut window);
        for &(tap, [row, column]) in &window {
            for channel in 0..c {
                let x = picture[channel * reader.input.plane() + row * reader.input.w + column].to_f64();
                for (sum, w) in before.iter_mut().zip(&reader.exact[(tap * c + channel) * k..][..k]) {
                    *sum += w * x;
                }
            }
        }
        after.copy_from_slice(&before);
        for tap in &taps[span.clone()] {
            for channel in 0..c {
                let i = tap.pixel as usize + channel;
                let d = moved[i] - start[i];
                for (sum, w) in after.iter_mut().zip(&reader.exact[(tap.weights as usize / lanes + channel) * k..][..k])
                {
                    *sum += w * d;
                }
            }
        }
        for (a, b) in after.iter().zip(&before) {
            let a = if *a < low {
                low
            } else if *a > high {
                high
            } else {
                *a
            };
            let b = if *b < low {
                low
            } else if *b > high {
                high
            } else {
                *b
            };
            most = larger(most, (a - b).abs());
        }
    }
    most
}
