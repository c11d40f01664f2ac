//! Operands that are repeated to fill a larger map, and the sums over what they stand for.

use std::ops::Range;

use super::isa::{CpuKernel, Isa};
use super::layout::index;
use crate::tensor::{Repeat, Scalar, Shape};

/// Most lanes of a vector.
pub(super) const MOST_LANES: usize = 16;

/// How one operand's numbers reach the vectors of a block of channels.
#[derive(Clone, Copy)]
pub(super) enum Lanes {
    /// A vector of its own.
    Vector,
    /// One number for all lanes.
    One,
    /// The number at an offset of its own for each lane.
    Gathered([usize; MOST_LANES]),
}

/// An operand on a block of channels: from one position to the next its numbers lie `step` further.
#[derive(Clone, Copy)]
pub(super) struct Operand<T> {
    pub at: *const T,
    pub lanes: Lanes,
    pub step: usize,
}

impl<T: Scalar> Operand<T> {
    /// The operand at `at`, a map of `own`, on block `block` of the map that it fills.
    pub fn new<I: Isa<T = T>>(at: *const T, own: Shape, repeat: Repeat, block: usize) -> Self {
        let step = if repeat.positions { I::LANES } else { 0 };
        let first = block * I::LANES;
        let offset = |channel: usize| index(own, I::LANES, (channel / repeat.group).min(own.c - 1), 0);
        let (lanes, start) = match repeat.group {
            1 => (Lanes::Vector, offset(first)),
            _ if own.c == 1 => (Lanes::One, 0),
            _ => (Lanes::Gathered(std::array::from_fn(|i| offset(first + i))), 0),
        };
        Self { at: at.wrapping_add(start), lanes, step }
    }

    /// Its numbers at position `pixel`.
    ///
    /// # Safety
    /// The operand fills the block, and the position is inside.
    #[inline(always)]
    pub unsafe fn vector<I: Isa<T = T>>(&self, pixel: usize) -> I::V {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.lanes {
                Lanes::Vector => I::load(self.at.add(pixel * self.step)),
                Lanes::One => I::splat(*self.at.add(pixel * self.step)),
                Lanes::Gathered(_) => I::load(self.load::<I>(pixel).as_ptr()),
            }
        }
    }

    /// Its numbers at position `pixel`, in the first `LANES` places.
    ///
    /// # Safety
    /// The operand fills the block, and the position is inside.
    #[inline(always)]
    pub unsafe fn load<I: Isa<T = T>>(&self, pixel: usize) -> [T; MOST_LANES] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = self.at.add(pixel * self.step);
            let mut numbers = [T::ZERO; MOST_LANES];
            match &self.lanes {
                Lanes::Vector => I::store(numbers.as_mut_ptr(), I::load(at)),
                Lanes::One => I::store(numbers.as_mut_ptr(), I::splat(*at)),
                Lanes::Gathered(offsets) => {
                    for (number, offset) in numbers.iter_mut().zip(offsets).take(I::LANES) {
                        *number = *at.add(*offset);
                    }
                }
            }
            numbers
        }
    }
}

/// A sum of numbers, or of products of two, for each number of `out`.
pub(super) struct Contract<I: Isa> {
    pub x: *const I::T,
    /// Or null.
    pub y: *const I::T,
    /// Shape of both.
    pub whole: Shape,
    pub to: Shape,
    pub out: *mut I::T,
}

impl<I: Isa> Contract<I> {
    /// `sum` plus the terms of a vector.
    #[inline(always)]
    unsafe fn plus(&self, sum: I::V, at: usize) -> I::V {
        // SAFETY: the vector lies inside both values.
        unsafe {
            let x = I::load(self.x.add(at));
            if self.y.is_null() { I::add(sum, x) } else { I::fma(x, I::load(self.y.add(at)), sum) }
        }
    }
}

/// Sums over positions, and over groups of channels: blocks in order, within a group channel after channel.
pub(super) struct OverPositions<I: Isa> {
    pub of: Contract<I>,
    pub group: usize,
    /// Of channels; all of them unless a group is one channel.
    pub blocks: Range<usize>,
}

impl<I: Isa> CpuKernel<I> for OverPositions<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let (of, plane) = (&self.of, self.of.whole.plane());
        // SAFETY: the device gives pointers to values of the two shapes.
        unsafe {
            if self.group > 1 {
                for block in 0..of.to.c.div_ceil(I::LANES) {
                    I::store(of.out.add(block * I::LANES), I::zero());
                }
            }
            for block in self.blocks.clone() {
                let mut sum = I::zero();
                for pixel in 0..plane {
                    sum = of.plus(sum, (block * plane + pixel) * I::LANES);
                }
                if self.group == 1 {
                    I::store(of.out.add(block * I::LANES), sum);
                    continue;
                }
                let mut sums = [I::T::ZERO; MOST_LANES];
                I::store(sums.as_mut_ptr(), sum);
                for (lane, sum) in sums.iter().enumerate().take(I::LANES.min(of.whole.c - block * I::LANES)) {
                    *of.out.add((block * I::LANES + lane) / self.group) += *sum;
                }
            }
        }
    }
}

/// Sums over groups of channels at each of some positions.
pub(super) struct OverChannels<I: Isa> {
    pub of: Contract<I>,
    pub group: usize,
    pub pixels: Range<usize>,
}

impl<I: Isa> CpuKernel<I> for OverChannels<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let (of, plane) = (&self.of, self.of.whole.plane());
        // SAFETY: as for `OverPositions`.
        unsafe {
            for pixel in self.pixels.clone() {
                if of.to.c == 1 {
                    // Lanes of all blocks, then the lanes in order.
                    let mut sum = I::zero();
                    for block in 0..of.whole.c.div_ceil(I::LANES) {
                        sum = of.plus(sum, (block * plane + pixel) * I::LANES);
                    }
                    let mut lanes = [I::T::ZERO; MOST_LANES];
                    I::store(lanes.as_mut_ptr(), sum);
                    let mut total = I::T::ZERO;
                    for &lane in lanes.iter().take(I::LANES) {
                        total += lane;
                    }
                    I::store(of.out.add(pixel * I::LANES), I::zero());
                    *of.out.add(pixel * I::LANES) = total;
                    continue;
                }
                for block in 0..of.to.c.div_ceil(I::LANES) {
                    I::store(of.out.add((block * plane + pixel) * I::LANES), I::zero());
                }
                for channel in 0..of.whole.c {
                    let at = index(of.whole, I::LANES, channel, pixel);
                    let x = *of.x.add(at);
                    let term = if of.y.is_null() { x } else { x * *of.y.add(at) };
                    *of.out.add(index(of.to, I::LANES, channel / self.group, pixel)) += term;
                }
            }
        }
    }
}
