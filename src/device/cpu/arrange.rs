//! Moves numbers between layouts and places: dense ↔ blocks, flattening, slices, paddings, concatenations.

use super::layout::index;
use super::repeated::MOST_LANES;
use crate::device::Spare;
use crate::tensor::functions::exp;
use crate::tensor::{AxisMove, Moves, Scalar, Shape};

/// Dense `[c][h][w]` to blocks; unused lanes become zero.
pub(super) fn block<T: Scalar>(dense: &[T], shape: Shape, lanes: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    for (c, plane) in dense.chunks_exact(shape.plane()).enumerate() {
        for (pixel, &v) in plane.iter().enumerate() {
            out[index(shape, lanes, c, pixel)] = v;
        }
    }
}

/// Blocks to dense `[c][h][w]`, each number turned into another type.
pub(super) fn unblock<T: Copy, U>(blocks: &[T], shape: Shape, lanes: usize, out: &mut [U], turn: impl Fn(T) -> U) {
    for (c, plane) in out.chunks_exact_mut(shape.plane()).enumerate() {
        for (pixel, v) in plane.iter_mut().enumerate() {
            *v = turn(blocks[index(shape, lanes, c, pixel)]);
        }
    }
}

/// Numbers of `x` at other places of block `block` of `out`, zeros in between.
pub(super) fn moved<T: Scalar>(
    x: &[T],
    from: Shape,
    moves: Moves,
    (out, block): (&mut [T], usize),
    to: Shape,
    lanes: usize,
    lists: &mut Spare,
) {
    let used = lanes.min(to.c - block * lanes);
    let mut all = [None; MOST_LANES];
    all[..used].iter_mut().enumerate().for_each(|(i, source)| *source = moves.channel(block * lanes + i, from.c));
    let sources = &all[..used];
    // Whole vectors move where every lane keeps its place.
    let whole = sources[0].filter(|first| first.is_multiple_of(lanes));
    let whole = whole.filter(|first| sources.iter().enumerate().all(|(i, source)| *source == Some(first + i)));
    let stays = moves.axes[1..] == [AxisMove::SAME; 2] && (from.h, from.w) == (to.h, to.w);
    if let Some(first) = whole.filter(|_| stays && used == lanes) {
        let source = index(from, lanes, first, 0);
        out.copy_from_slice(&x[source..source + out.len()]);
        return;
    }
    out.fill(T::ZERO);
    let columns = lists.of((0..to.w).map(|x| moves.axes[2].source(x, from.w)));
    for y in 0..to.h {
        let Some(row) = moves.axes[1].source(y, from.h) else { continue };
        if let Some(first) = whole {
            for (x_, column) in columns.iter().enumerate() {
                let Some(column) = column else { continue };
                let source = index(from, lanes, first, row * from.w + column);
                // A last block may lie beside other channels.
                out[(y * to.w + x_) * lanes..][..used].copy_from_slice(&x[source..source + used]);
            }
            continue;
        }
        for (lane, source) in sources.iter().enumerate() {
            let Some(source) = source else { continue };
            let source = index(from, lanes, *source, row * from.w);
            for (x_, column) in columns.iter().enumerate() {
                let Some(column) = column else { continue };
                out[(y * to.w + x_) * lanes + lane] = x[source + column * lanes];
            }
        }
    }
    lists.keep(columns);
}

/// Block `block` of the concatenation `out` of `parts` along the channels.
pub(super) fn concatenated<'a, T: Scalar>(
    parts: impl Iterator<Item = (&'a [T], Shape)>,
    (out, block): (&mut [T], usize),
    to: Shape,
    lanes: usize,
) {
    let (first, used) = (block * lanes, lanes.min(to.c - block * lanes));
    let mut at = 0;
    for (x, from) in parts {
        let (start, end) = (at.max(first), (at + from.c).min(first + used));
        if start == first && end == first + lanes && (first - at).is_multiple_of(lanes) {
            // A whole block, which lies as it will lie.
            let source = index(from, lanes, first - at, 0);
            out.copy_from_slice(&x[source..source + out.len()]);
            return;
        }
        for c in start..end {
            let source = index(from, lanes, c - at, 0);
            for (pixel, out) in out.chunks_exact_mut(lanes).enumerate() {
                out[c - first] = x[source + pixel * lanes];
            }
        }
        at += from.c;
    }
    out.chunks_exact_mut(lanes).for_each(|pixel| pixel[used..].fill(T::ZERO));
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

/// Softmax over each of `groups` groups of channels at each pixel, in double precision.
pub(super) fn softmax<T: Scalar>(x: &[T], shape: Shape, groups: usize, lanes: usize, out: &mut [T], lists: &mut Spare) {
    out.fill(T::ZERO);
    let size = shape.c / groups;
    let mut powers = lists.zeros(size);
    for pixel in 0..shape.plane() {
        for g in 0..groups {
            let place = |c: usize| index(shape, lanes, g * size + c, pixel);
            let number = |c: usize| x[place(c)].to_f64();
            // A NaN stays.
            let top = (1..size).map(number).fold(number(0), |top, v| if v <= top { top } else { v });
            powers.iter_mut().enumerate().for_each(|(c, power)| *power = exp(number(c) - top));
            let total: f64 = powers.iter().sum();
            powers.iter().enumerate().for_each(|(c, power)| out[place(c)] = T::from_f64(power / total));
        }
    }
    lists.keep(powers);
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
