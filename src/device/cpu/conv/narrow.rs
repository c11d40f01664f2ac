//! Convolutions onto few channels, such as the last adjoint of a net: a lane is a *read* channel.
//!
//! A vector of 3 written channels would leave most lanes idle. Here every written number has a vector of sums: read blocks
//! and taps in order, and at last over the lanes. Four pixels' vectors live in registers.

use super::geometry::Geometry;
use crate::program::ConvLayer;
use crate::tensor::Scalar;

/// Written channels, at most.
pub(super) const MOST_CHANNELS: usize = 4;

/// How weights lie.
#[derive(Debug, Clone)]
pub(crate) struct Narrow {
    /// Vectors of weights a tap and read block: written channels, some of them perhaps zeros.
    pub width: usize,
    /// Where the weights of each sub-grid start, in elements.
    pub offsets: Vec<usize>,
}

impl Narrow {
    /// The plan and the packed weights' elements, if few channels are written, many read, and neighbours read neighbours.
    pub fn new(layer: &ConvLayer, geometry: &Geometry, lanes: usize) -> Option<(Self, usize)> {
        let (read, written) = (geometry.read.c, geometry.written.c);
        if layer.groups != 1 || written > MOST_CHANNELS || read < lanes || geometry.read_step[1] != 1 {
            return None;
        }
        let width = if written == 2 { 3 } else { written };
        let mut offsets = Vec::with_capacity(geometry.grids.len());
        let mut len = 0;
        for grid in &geometry.grids {
            offsets.push(len);
            len += read.div_ceil(lanes) * grid.taps.len() * width * lanes;
        }
        Some((Self { width, offsets }, len))
    }

    /// Weights in the order of the sums: sub-grid, read block, tap, written channel, lane.
    pub fn pack<T: Scalar>(
        &self,
        geometry: &Geometry,
        lanes: usize,
        element: impl Fn(usize, usize, [usize; 2]) -> T,
        out: &mut [T],
    ) {
        let (read, written) = (geometry.read.c, geometry.written.c);
        let mut numbers = out.iter_mut();
        for grid in &geometry.grids {
            for block in 0..read.div_ceil(lanes) {
                for tap in &grid.taps {
                    for to in 0..self.width {
                        for (from, number) in (block * lanes..(block + 1) * lanes).zip(&mut numbers) {
                            *number = if to < written && from < read { element(to, from, tap.kernel) } else { T::ZERO };
                        }
                    }
                }
            }
        }
    }
}
