//! Moves numbers between layouts: dense ↔ blocks, flattening, channels, subsampling.

use super::layout::index;
use crate::tensor::{Scalar, Shape};

/// Dense `[c][h][w]` to blocks; unused lanes become zero.
pub(super) fn block<T: Scalar>(dense: &[T], shape: Shape, lanes: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    for (c, plane) in dense.chunks_exact(shape.plane()).enumerate() {
        for (pixel, &v) in plane.iter().enumerate() {
            out[index(shape, lanes, c, pixel)] = v;
        }
    }
}

/// Blocks to dense `[c][h][w]`.
pub(super) fn unblock<T: Copy>(blocks: &[T], shape: Shape, lanes: usize, out: &mut [T]) {
    for (c, plane) in out.chunks_exact_mut(shape.plane()).enumerate() {
        for (pixel, v) in plane.iter_mut().enumerate() {
            *v = blocks[index(shape, lanes, c, pixel)];
        }
    }
}

/// Copies the channels of `x` from `first` on to all channels of `out`; channels that `x` lacks become zero.
pub(super) fn channels<T: Scalar>(x: &[T], from: Shape, first: isize, out: &mut [T], to: Shape, lanes: usize) {
    out.fill(T::ZERO);
    copy_channels(x, from, first, out, to, 0, from.c.min(to.c.saturating_add_signed(first)), lanes);
}

/// One input of a concatenation: copies all channels of `x` to `out`, from channel `at` on.
pub(super) fn append<T: Scalar>(x: &[T], from: Shape, out: &mut [T], to: Shape, at: usize, lanes: usize) {
    copy_channels(x, from, -(at as isize), out, to, at, from.c, lanes);
}

/// Copies channel `c + first` of `x` to channel `c` of `out` for `c` from `start` while the source channel is below `end`.
#[allow(clippy::too_many_arguments)] // two arrays, their shapes and the range between them
fn copy_channels<T: Scalar>(
    x: &[T],
    from: Shape,
    first: isize,
    out: &mut [T],
    to: Shape,
    start: usize,
    end: usize,
    lanes: usize,
) {
    for c in start..to.c {
        let Some(source) = c.checked_add_signed(first) else { continue };
        if source >= end {
            break;
        }
        for pixel in 0..from.plane() {
            out[index(to, lanes, c, pixel)] = x[index(from, lanes, source, pixel)];
        }
    }
}

/// `Σ_c weights[c] · x[c]` for each pixel, channels in order, written to the first lane of `out`.
pub(super) fn weighted_channel_sum<T: Scalar>(weights: &[T], x: &[T], from: Shape, lanes: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    for (pixel, out) in out.chunks_exact_mut(lanes).enumerate() {
        for (c, &weight) in weights[..from.c].iter().enumerate() {
            out[0] += weight * x[index(from, lanes, c, pixel)];
        }
    }
}

/// `values[c]` at every pixel of channel `c`.
pub(super) fn fill<T: Scalar>(values: &[T], shape: Shape, lanes: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    let plane = shape.plane();
    for c in 0..shape.c {
        for pixel in 0..plane {
            out[index(shape, lanes, c, pixel)] = values[if values.len() == shape.c { c } else { c * plane + pixel }];
        }
    }
}

/// Zeros the unused lanes of the last block.
pub(super) fn zero_unused<T: Scalar>(shape: Shape, lanes: usize, out: &mut [T]) {
    let used = shape.c % lanes;
    if used == 0 {
        return;
    }
    let last = out.len() - shape.plane() * lanes;
    out[last..].chunks_exact_mut(lanes).for_each(|pixel| pixel[used..].fill(T::ZERO));
}

/// Every `stride`-th row and column of `x`.
pub(super) fn subsample<T: Scalar>(x: &[T], from: Shape, stride: [usize; 2], out: &mut [T], to: Shape, lanes: usize) {
    each_kept(from, stride, to, lanes, |big, small| out[small..small + lanes].copy_from_slice(&x[big..big + lanes]));
}

/// Rows and columns of `s` in their original positions, with zeros in between.
pub(super) fn spread<T: Scalar>(s: &[T], from: Shape, stride: [usize; 2], out: &mut [T], to: Shape, lanes: usize) {
    out.fill(T::ZERO);
    each_kept(to, stride, from, lanes, |big, small| out[big..big + lanes].copy_from_slice(&s[small..small + lanes]));
}

fn each_kept(big: Shape, stride: [usize; 2], small: Shape, lanes: usize, mut f: impl FnMut(usize, usize)) {
    for b in 0..small.c.div_ceil(lanes) {
        for y in 0..small.h {
            for x in 0..small.w {
                let source = (b * big.h + y * stride[0]) * big.w + x * stride[1];
                f(source * lanes, ((b * small.h + y) * small.w + x) * lanes);
            }
        }
    }
}
