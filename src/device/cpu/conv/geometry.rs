//! One description for a convolution and its adjoint: output positions, and the input taps each of them sums.
//!
//! The adjoint of a convolution with stride `s` splits into `s_y · s_x` sub-grids of its output (the convolution's
//! input). Within one sub-grid every position sums the same taps of the signal at stride 1, so there are no products
//! with inserted zeros.

use crate::tensor::{Shape, Window};

/// Forward or backward to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PassDirection {
    /// Input to output.
    Forward,
    /// Signal at the output to signal at the input.
    Adjoint,
}

/// A tap: its kernel element, and where it reads relative to a position's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tap {
    /// Kernel row and column.
    pub kernel: [usize; 2],
    /// Row and column read, relative to `position · read_step`.
    pub at: [isize; 2],
}

/// Positions `origin + step · i` of the result, `i` in `0..extent`, which all sum `taps`.
#[derive(Debug, Clone)]
pub(crate) struct SubGrid {
    /// First row and column.
    pub origin: [usize; 2],
    /// Rows and columns of this sub-grid.
    pub extent: [usize; 2],
    /// The taps that are summed; empty if no tap reaches these positions.
    pub taps: Vec<Tap>,
}

/// The whole result as sub-grids.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    /// Shape read.
    pub read: Shape,
    /// Shape written.
    pub written: Shape,
    /// Distance in the output between neighbouring positions of a sub-grid.
    pub write_step: [usize; 2],
    /// Distance in the input between neighbouring positions of a sub-grid.
    pub read_step: [usize; 2],
    /// The sub-grids; together they cover the output exactly once.
    pub grids: Vec<SubGrid>,
}

impl Geometry {
    /// The geometry of a convolution from `input` to `output` by `window`.
    pub fn new(window: &Window, input: Shape, output: Shape, direction: PassDirection) -> Self {
        let pads = window.pads(input.h, input.w);
        let kernel_elements =
            || (0..window.kernel[0]).flat_map(move |ky| (0..window.kernel[1]).map(move |kx| [ky, kx]));
        match direction {
            PassDirection::Forward => {
                let at = |k: usize, a: usize| (k * window.dilation[a]) as isize - pads[a][0] as isize;
                let taps = kernel_elements().map(|k| Tap { kernel: k, at: [at(k[0], 0), at(k[1], 1)] }).collect();
                Self {
                    read: input,
                    written: output,
                    write_step: [1, 1],
                    read_step: window.stride,
                    grids: vec![SubGrid { origin: [0, 0], extent: [output.h, output.w], taps }],
                }
            }
            PassDirection::Adjoint => {
                let size = [input.h, input.w];
                // Input position p receives output position o through kernel element k when o·stride + k·dilation − pad = p.
                let at = |origin: usize, k: usize, a: usize| {
                    let d = origin as isize + pads[a][0] as isize - (k * window.dilation[a]) as isize;
                    let stride = window.stride[a] as isize;
                    (d.rem_euclid(stride) == 0).then(|| d.div_euclid(stride))
                };
                let mut grids = Vec::new();
                for y in 0..window.stride[0].min(size[0]) {
                    for x in 0..window.stride[1].min(size[1]) {
                        let taps = kernel_elements()
                            .filter_map(|k| Some(Tap { kernel: k, at: [at(y, k[0], 0)?, at(x, k[1], 1)?] }))
                            .collect();
                        let extent =
                            [(size[0] - y).div_ceil(window.stride[0]), (size[1] - x).div_ceil(window.stride[1])];
                        grids.push(SubGrid { origin: [y, x], extent, taps });
                    }
                }
                Self { read: output, written: input, write_step: window.stride, read_step: [1, 1], grids }
            }
        }
    }

    /// Rows and columns read relative to positions' bases: `[[first row, last row], [first column, last column]]`.
    pub fn reach(&self) -> [[isize; 2]; 2] {
        let mut reach = [[0; 2]; 2];
        for tap in self.grids.iter().flat_map(|g| &g.taps) {
            for (a, range) in reach.iter_mut().enumerate() {
                range[0] = range[0].min(tap.at[a]);
                range[1] = range[1].max(tap.at[a]);
            }
        }
        reach
    }

    /// The largest sub-grid's extent.
    pub fn extent(&self) -> [usize; 2] {
        self.grids.iter().fold([0, 0], |m, g| [m[0].max(g.extent[0]), m[1].max(g.extent[1])])
    }

    /// Whether every position reads inside the picture, so that no halo is needed.
    pub fn stays_inside(&self) -> bool {
        self.grids.iter().all(|g| {
            g.taps.iter().all(|t| {
                (0..2).all(|a| {
                    let size = [self.read.h, self.read.w][a] as isize;
                    let last = (g.extent[a].saturating_sub(1) * self.read_step[a]) as isize;
                    t.at[a] >= 0 && last + t.at[a] < size
                })
            })
        })
    }
}
