//! Feature maps in channel blocks: `[⌈c / lanes⌉][h][w][lanes]`, unused lanes of the last block zero.

use crate::program::Form;
use crate::tensor::Shape;

/// Elements of a dense value, including unused lanes.
pub(super) const fn elements(shape: Shape, lanes: usize) -> usize {
    shape.c.div_ceil(lanes) * shape.h * shape.w * lanes
}

/// Position of an element.
#[inline(always)]
pub(super) const fn index(shape: Shape, lanes: usize, c: usize, pixel: usize) -> usize {
    (c / lanes * shape.h * shape.w + pixel) * lanes + c % lanes
}

/// Bytes of a value.
pub(super) const fn bytes(form: Form, lanes: usize, scalar: usize) -> usize {
    match form {
        Form::Dense(shape) => elements(shape, lanes) * scalar,
        Form::Bits(shape) => elements(shape, lanes) / 8,
        Form::Winners(shape, width) => elements(shape, lanes) * width.bytes(),
    }
}
