//! A convolution to be planned, and its requirements.

use std::ops::Range;

use super::geometry::Geometry;
use crate::program::{ConvLayer, Zeros};

/// The allowed arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// One product for each tap and channel.
    Direct,
    /// Also Winograd's transforms: fewer products, slightly larger error.
    Transformed,
}

/// One convolution, or its adjoint, for one input shape.
pub(super) struct Problem<'a> {
    pub layer: &'a ConvLayer,
    pub geometry: &'a Geometry,
    pub arithmetic: Arithmetic,
    /// Sparsity of the input.
    pub zeros: Zeros,
}

impl Problem<'_> {
    /// Taps of all sub-grids.
    pub fn taps(&self) -> usize {
        self.geometry.grids.iter().map(|g| g.taps.len()).sum()
    }
}

/// Read channels of the group to which channel `written` belongs.
pub(super) fn read_by(geometry: &Geometry, groups: usize, written: usize) -> Range<usize> {
    let group = written / (geometry.written.c / groups);
    let size = geometry.read.c / groups;
    group * size..(group + 1) * size
}

/// An algorithm's plan for one problem.
#[derive(Debug, Clone)]
pub(super) struct Planned<A> {
    pub algorithm: A,
    /// Packed weights, in elements.
    pub packed_len: usize,
    /// Scratch of one task, in elements.
    pub scratch_len: usize,
    /// Most parts into which the written channels can be split.
    pub parts: usize,
}

impl<A> Planned<A> {
    /// The same with another algorithm.
    pub fn map<B>(self, f: impl FnOnce(A) -> B) -> Planned<B> {
        let Self { algorithm, packed_len, scratch_len, parts } = self;
        Planned { algorithm: f(algorithm), packed_len, scratch_len, parts }
    }
}
