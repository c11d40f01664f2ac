//! Linear layers, directly from the stored weights `[k][c]`, without a packed copy.
//!
//! Both directions are bound by reading the weights, so each weight is read from memory once for up to [`COPIES`]
//! copies, and then serves several of them at a time from registers. Blocks of rows and columns jump from page to page,
//! which hardware prefetchers do not predict, so the next weights are prefetched while the current ones are multiplied.
//! Half precision is converted while loading into registers; other weights that are not stored in the device's number
//! type (scaled rows, parts, the double-precision twin) are converted a block at a time.

mod adjoint;
mod forward;
mod stored;

use std::ops::Range;

pub(super) use adjoint::Adjoint;
pub(super) use forward::{LinearForward, live};

use crate::graph::Weight;
use crate::tensor::Scalar;

/// Rows whose sums are computed together.
const ROWS: usize = 4;
/// Rows of a block; a task consists of whole blocks.
pub(super) const BLOCK_ROWS: usize = 32;
/// Columns of a block, and of an adjoint's task; a multiple of `2 · LANES`.
pub(super) const COLUMNS: usize = 1024;
/// Copies whose sums are kept in a nearby cache together.
const COPIES: usize = 16;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Most rows in an adjoint's block: a row's vectors often map to the same set of the first-level cache as others'.
const ADJOINT_ROWS: usize = 16;

/// Scratch elements of a task: converted weights, inputs, and sums of all copies.
pub(super) const fn scratch(lanes: usize) -> usize {
    (ROWS + COPIES) * COLUMNS + BLOCK_ROWS * COPIES * 2 * lanes
}

/// Scratch elements of an adjoint's task.
pub(super) const ADJOINT_SCRATCH: usize = (ADJOINT_ROWS + COPIES) * COLUMNS;

/// Numbers of the weight, in place or converted into scratch.
#[inline(always)]
unsafe fn row<T: Scalar>(weight: &Weight, k: usize, columns: Range<usize>, scratch: *mut T) -> *const T {
    match weight.in_place::<T>() {
        Some(all) => all[k * weight.row_len() + columns.start..].as_ptr(),
        None => {
            // SAFETY: scratch holds a block's row.
            let out = unsafe { std::slice::from_raw_parts_mut(scratch, columns.len()) };
            weight.read(k, columns, out);
            scratch
        }
    }
}
