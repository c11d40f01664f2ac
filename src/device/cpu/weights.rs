//! Gradients of weights: a layer's input times the signal at its output, summed over positions.
//!
//! Lanes are output channels: a gradient `[k, c / groups · kh, kw]` is stored in channel blocks like every other value,
//! and one vector of the signal serves several input channels at a time. Each number is one sum, row by row and column
//! by column of the output, for every tile and task.

use std::ops::Range;

use super::isa::{CpuKernel, Isa};
use super::{Cpu, CpuValues};
use crate::program::{ConvLayer, Value};

/// Most input channels whose sums are computed together.
const MOST_CHANNELS: usize = 8;

impl<I: Isa> Cpu<I> {
    /// One task per copy, block of output channels and tap.
    pub(super) fn conv_weight_adjoint(&self, layer: &ConvLayer, x: Value, s: Value, out: Value, v: &CpuValues<'_, I>) {
        let [_, _, kh, kw] = layer.weight.dims();
        let blocks = layer.output.c.div_ceil(I::LANES);
        self.each(v.copies * blocks * kh * kw, |t, _| {
            let (n, rest) = (t / (blocks * kh * kw), t % (blocks * kh * kw));
            let (block, tap) = (rest / (kh * kw), rest % (kh * kw));
            let kernel = WeightTap::<I> {
                layer,
                x: v.at::<I::T>(x, n).cast_const(),
                s: v.at::<I::T>(s, n).cast_const(),
                out: v.at(out, n),
                block,
                tap: [tap / kw, tap % kw],
            };
            // SAFETY: values have the layer's shapes; a task writes its own tap of its own block; features were detected.
            unsafe { I::run(kernel) };
        });
    }

    /// One task per copy and block of outputs.
    pub(super) fn linear_weight_adjoint(&self, x: Value, s: Value, out: Value, v: &CpuValues<'_, I>) {
        let columns = v.shape(out).h;
        self.blocks(out, v, |n, b| {
            // SAFETY: block `b` lies inside the values; features were detected.
            unsafe {
                I::run(Outer::<I> {
                    x: v.at::<I::T>(x, n).cast_const(),
                    s: v.at::<I::T>(s, n).add(b * I::LANES).cast_const(),
                    out: v.at::<I::T>(out, n).add(b * columns * I::LANES),
                    columns,
                });
            }
        });
    }
}

/// One tap of the kernels of one block of output channels.
struct WeightTap<'a, I: Isa> {
    layer: &'a ConvLayer,
    x: *const I::T,
    s: *const I::T,
    out: *mut I::T,
    block: usize,
    tap: [usize; 2],
}

impl<I: Isa> CpuKernel<I> for WeightTap<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let layer = self.layer;
        let [k, per_group, kh, kw] = layer.weight.dims();
        let [ys, xs] = [self.inside(0), self.inside(1)];
        let lanes = self.block * I::LANES..k.min((self.block + 1) * I::LANES);
        let rows = k / layer.groups;
        // SAFETY: the gradient has `per_group · kh · kw` vectors a block; channels below are those of the layer's input.
        unsafe {
            let to = |c: usize| {
                self.out.add(((self.block * per_group + c) * kh * kw + self.tap[0] * kw + self.tap[1]) * I::LANES)
            };
            for c in 0..per_group {
                I::store(to(c), I::zero());
            }
            // A block may contain channels of several groups, which read different inputs.
            for group in lanes.start / rows..=(lanes.end - 1) / rows {
                let own = lanes.start.max(group * rows)..lanes.end.min((group + 1) * rows);
                let bits = own.fold(0u32, |bits, lane| bits | 1 << (lane % I::LANES));
                let mut c = 0;
                while c < per_group {
                    let channel = group * per_group + c;
                    // Channels of one block are adjacent.
                    let room = (per_group - c).min(I::LANES - channel % I::LANES).min(MOST_CHANNELS);
                    macro_rules! step {
                        ($($p:literal),+) => {
                            $(if room >= $p {
                                for (i, sum) in self.sums::<$p>(channel, &ys, &xs).into_iter().enumerate() {
                                    let to = to(c + i);
                                    I::store(to, I::add(I::load(to), I::keep(sum, bits)));
                                }
                                c += $p;
                                continue;
                            })+
                        };
                    }
                    step!(8, 4, 2, 1);
                }
            }
        }
    }
}

impl<I: Isa> WeightTap<'_, I> {
    /// Rows (axis 0) or columns of the output for which this tap is inside the input.
    fn inside(&self, axis: usize) -> Range<usize> {
        let (window, input, output) = (&self.layer.window, self.layer.input, self.layer.output);
        let before = window.pads(input.h, input.w)[axis][0];
        let (extent, outputs) = if axis == 0 { (input.h, output.h) } else { (input.w, output.w) };
        let (reach, stride) = (self.tap[axis] * window.dilation[axis], window.stride[axis]);
        let first = before.saturating_sub(reach).div_ceil(stride).min(outputs);
        let end = (extent + before).saturating_sub(reach).div_ceil(stride).min(outputs);
        first..end.max(first)
    }

    /// Sums of `P` input channels from `channel` on, over the positions `ys` × `xs` of the output.
    #[inline(always)]
    unsafe fn sums<const P: usize>(&self, channel: usize, ys: &Range<usize>, xs: &Range<usize>) -> [I::V; P] {
        let (window, input, output) = (&self.layer.window, self.layer.input, self.layer.output);
        let pads = window.pads(input.h, input.w);
        let read =
            |axis: usize, o: usize| o * window.stride[axis] + self.tap[axis] * window.dilation[axis] - pads[axis][0];
        // SAFETY: the positions read are inside the input, those of the signal inside the output.
        unsafe {
            let mut sums = [I::zero(); P];
            if xs.is_empty() {
                return sums;
            }
            let x = self.x.add(channel / I::LANES * input.plane() * I::LANES + channel % I::LANES);
            let s = self.s.add(self.block * output.plane() * I::LANES);
            for y in ys.clone() {
                let x = x.add((read(0, y) * input.w + read(1, xs.start)) * I::LANES);
                let s = s.add((y * output.w + xs.start) * I::LANES);
                for i in 0..xs.len() {
                    let signal = I::load(s.add(i * I::LANES));
                    let x = x.add(i * window.stride[1] * I::LANES);
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = I::fma(I::splat(*x.add(p)), signal, *sum);
                    }
                }
            }
            sums
        }
    }
}

/// `out[c] = x[c] · s` for one block of outputs.
struct Outer<I: Isa> {
    x: *const I::T,
    s: *const I::T,
    out: *mut I::T,
    columns: usize,
}

impl<I: Isa> CpuKernel<I> for Outer<I> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: `x` holds the columns, `s` a vector, `out` a vector a column.
        unsafe {
            let s = I::load(self.s);
            for c in 0..self.columns {
                I::store(self.out.add(c * I::LANES), I::mul(I::splat(*self.x.add(c)), s));
            }
        }
    }
}
