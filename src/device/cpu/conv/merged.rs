//! Adjoints onto few channels (the pixels of a picture), several pixels to a vector.
//!
//! A channel block of 3 channels leaves most lanes idle. Here the lanes of one vector are the channels of `fy × fx`
//! neighbouring pixels: for a strided convolution one stride's worth, otherwise 2×2. All of them sum over the union of
//! their taps; where a pixel does not see a tap its weight is 0.

use super::Direction;
use super::geometry::{Geometry, SubGrid, Tap};
use crate::program::ConvLayer;
use crate::tensor::Scalar;

/// How pixels share vectors.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    /// Rows and columns of pixels in one vector.
    pub factor: [usize; 2],
    /// Channels of a pixel.
    pub channels: usize,
    /// Read channels.
    pub read: usize,
    /// For each tap of the union, which kernel element each pixel of the vector sees there.
    kernels: Vec<Vec<Option<[usize; 2]>>>,
}

impl Merged {
    /// The plan, the geometry in units of merged pixels and the packed weights' elements, if the adjoint is onto so few
    /// channels that several pixels fit into `lanes`.
    pub fn new(
        layer: &ConvLayer,
        direction: Direction,
        geometry: &Geometry,
        lanes: usize,
    ) -> Option<(Self, Geometry, usize)> {
        let stride = geometry.write_step;
        let factor = if stride == [1, 1] { [2, 2] } else { stride };
        let channels = geometry.written.c;
        let fits = factor[0] * factor[1] * channels <= lanes;
        let whole = (0..2).all(|a| factor[a].is_multiple_of(stride[a]));
        let [h, w] = [geometry.written.h, geometry.written.w];
        if direction != Direction::Adjoint || layer.groups != 1 || !fits || !whole || h < factor[0] || w < factor[1] {
            return None;
        }
        // A pixel at `factor · i + p` lies in the sub-grid of `p mod stride`, at position `(factor · i + p) / stride`.
        let mut union: Vec<[isize; 2]> = Vec::new();
        let mut seen: Vec<(usize, [isize; 2], [usize; 2])> = Vec::new();
        for p in 0..factor[0] * factor[1] {
            let pixel = [p / factor[1], p % factor[1]];
            let origin = [pixel[0] % stride[0], pixel[1] % stride[1]];
            let grid = geometry.grids.iter().find(|g| g.origin == origin)?;
            for tap in &grid.taps {
                let at = [0, 1].map(|a| tap.at[a] + (pixel[a] / stride[a]) as isize);
                if !union.contains(&at) {
                    union.push(at);
                }
                seen.push((p, at, tap.kernel));
            }
        }
        union.sort_unstable();
        let kernels: Vec<Vec<Option<[usize; 2]>>> = union
            .iter()
            .map(|at| {
                let of = |p: usize| seen.iter().find(|s| s.0 == p && s.1 == *at).map(|s| s.2);
                (0..factor[0] * factor[1]).map(of).collect()
            })
            .collect();
        let taps = union.iter().map(|&at| Tap { kernel: [0, 0], at }).collect();
        let merged = Geometry {
            read: geometry.read,
            written: geometry.written,
            write_step: factor,
            read_step: [factor[0] / stride[0], factor[1] / stride[1]],
            grids: vec![SubGrid { origin: [0, 0], extent: [h.div_ceil(factor[0]), w.div_ceil(factor[1])], taps }],
        };
        let read = geometry.read.c;
        let len = kernels.len() * read * lanes;
        Some((Self { factor, channels, read, kernels }, merged, len))
    }

    /// Weights in the order of the sums: channel block, tap, channel, lane.
    pub fn pack<T: Scalar>(&self, lanes: usize, element: impl Fn(usize, usize, [usize; 2]) -> T, out: &mut [T]) {
        let mut vectors = out.chunks_mut(lanes);
        for block in (0..self.read).step_by(lanes) {
            for kernels in &self.kernels {
                for read in block..self.read.min(block + lanes) {
                    let Some(vector) = vectors.next() else { return };
                    vector.fill(T::ZERO);
                    for (p, kernel) in kernels.iter().enumerate() {
                        let Some(kernel) = *kernel else { continue };
                        for c in 0..self.channels {
                            vector[p * self.channels + c] = element(c, read, kernel);
                        }
                    }
                }
            }
        }
    }
}
