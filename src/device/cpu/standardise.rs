//! Standardisation over groups of channels, and its adjoint.

use std::ops::Range;

use super::isa::{CpuKernel, Isa};
use super::layout::index;
use super::repeated::MOST_LANES;
use crate::device::Spare;
use crate::graph::Standardise;
use crate::tensor::{Scalar, Shape};

/// The numbers of one copy. Forward, `x` is standardised; back, it is the signal.
pub(super) struct Normed<I: Isa> {
    pub norm: Standardise,
    pub shape: Shape,
    pub x: *const I::T,
    pub way: NormWay<I::T>,
    pub out: *mut I::T,
}

/// Which way a standardisation is computed.
#[derive(Clone, Copy)]
pub(super) enum NormWay<T> {
    /// Inverse deviations are written, unless null.
    Forward { scale: *mut T },
    /// Inverse deviations are read; the standardised numbers are null where deviations are constants.
    Adjoint { y: *const T, scale: *const T },
}

/// A group's mean, and the two numbers that make its results: forward the factor alone.
#[derive(Clone, Copy)]
struct GroupNumbers<T> {
    mean: T,
    /// Back, ⟨s ∘ y⟩.
    along: T,
    scale: T,
}

impl<I: Isa> Normed<I> {
    fn channels(&self) -> usize {
        self.shape.c / self.norm.groups
    }

    fn share(&self) -> I::T {
        I::T::from_f64(1.0 / self.norm.count(self.shape) as f64)
    }

    /// Bits of the lanes of block `block` that hold channels.
    #[inline(always)]
    fn used(&self, block: usize) -> u32 {
        2u32.pow(I::LANES.min(self.shape.c - block * I::LANES) as u32) - 1
    }

    /// Position of group `g`'s numbers at `pixel` among means.
    fn moment(&self, g: usize, pixel: usize) -> usize {
        index(self.norm.moments(self.shape), I::LANES, g, if self.norm.across_positions { 0 } else { pixel })
    }

    /// Adds the terms of the second sum at a vector to `sum`: squares of deviations, or signal times output.
    #[inline(always)]
    unsafe fn second(&self, sum: I::V, at: usize, mean: I::V, used: u32) -> I::V {
        // SAFETY: the vector lies inside the values.
        unsafe {
            let x = I::load(self.x.add(at));
            match self.way {
                NormWay::Forward { .. } => {
                    let d = I::keep(I::sub(x, mean), used);
                    I::fma(d, d, sum)
                }
                NormWay::Adjoint { y, .. } if y.is_null() => sum,
                NormWay::Adjoint { y, .. } => I::fma(x, I::load(y.add(at)), sum),
            }
        }
    }

    /// Writes the results of a vector.
    #[inline(always)]
    unsafe fn finish(&self, at: usize, [mean, along, scale]: [I::V; 3], used: u32) {
        // SAFETY: as for `second`.
        unsafe {
            let mut d = I::sub(I::load(self.x.add(at)), mean);
            if let NormWay::Adjoint { y, .. } = self.way
                && !y.is_null()
            {
                d = I::sub(d, I::mul(I::load(y.add(at)), along));
            }
            I::store(self.out.add(at), I::keep(I::mul(d, scale), used));
        }
    }

    /// The second sum of group `g` made into its numbers.
    #[inline(always)]
    unsafe fn numbers(&self, g: usize, pixel: usize, mean: I::T, second: I::T) -> GroupNumbers<I::T> {
        let at = self.moment(g, pixel);
        // SAFETY: the moment lies inside the values of deviations.
        unsafe {
            match self.way {
                NormWay::Forward { scale: to } => {
                    let variance = second.to_f64() / self.norm.count(self.shape) as f64;
                    // Squares that overflow would be hidden by a factor of 0.
                    let scale = if variance.is_finite() { 1.0 / (variance + self.norm.eps).sqrt() } else { f64::NAN };
                    let scale = I::T::from_f64(scale);
                    if !to.is_null() {
                        *to.add(at) = scale;
                    }
                    GroupNumbers { mean, along: I::T::ZERO, scale }
                }
                NormWay::Adjoint { scale, .. } => {
                    GroupNumbers { mean, along: second * self.share(), scale: *scale.add(at) }
                }
            }
        }
    }

    /// Zeros the inverse deviations of all groups at some positions, for the sake of unused lanes.
    unsafe fn clear(&self, pixels: Range<usize>) {
        let NormWay::Forward { scale } = self.way else { return };
        if scale.is_null() {
            return;
        }
        let small = self.norm.moments(self.shape);
        for block in 0..small.c.div_ceil(I::LANES) {
            for pixel in pixels.clone() {
                // SAFETY: the moments hold these vectors.
                unsafe { I::store(scale.add((block * small.plane() + pixel) * I::LANES), I::zero()) };
            }
        }
    }

    /// Zeros the unused lanes of the inverse deviations of groups over all positions.
    unsafe fn clear_rest(&self) {
        let NormWay::Forward { scale } = self.way else { return };
        if scale.is_null() {
            return;
        }
        for g in self.norm.groups..self.norm.groups.next_multiple_of(I::LANES) {
            // SAFETY: the moments hold whole vectors.
            unsafe { *scale.add(self.moment(g, 0)) = I::T::ZERO };
        }
    }
}

/// The sum of a vector's lanes, in order.
#[inline(always)]
unsafe fn lanes<I: Isa>(v: I::V) -> I::T {
    let mut numbers = [I::T::ZERO; MOST_LANES];
    // SAFETY: vectors have at most `MOST_LANES` lanes.
    unsafe { I::store(numbers.as_mut_ptr(), v) };
    let mut sum = I::T::ZERO;
    for &number in numbers.iter().take(I::LANES) {
        sum += number;
    }
    sum
}

/// Each of some positions by itself.
pub(super) struct EachPosition<I: Isa> {
    pub of: Normed<I>,
    pub pixels: Range<usize>,
}

impl<I: Isa> CpuKernel<I> for EachPosition<I> {
    #[inline(always)]
    unsafe fn call(self) {
        let (of, plane) = (&self.of, self.of.shape.plane());
        let blocks = of.shape.c.div_ceil(I::LANES);
        let at = |block: usize, pixel: usize| (block * plane + pixel) * I::LANES;
        // SAFETY: the device gives pointers to values of the shape and its moments.
        unsafe {
            of.clear(self.pixels.clone());
            for pixel in self.pixels.clone() {
                if of.norm.groups == 1 {
                    let mut sum = I::zero();
                    for block in 0..blocks {
                        sum = I::add(sum, I::load(of.x.add(at(block, pixel))));
                    }
                    let mean = lanes::<I>(sum) * of.share();
                    let mut second = I::zero();
                    for block in 0..blocks {
                        second = of.second(second, at(block, pixel), I::splat(mean), of.used(block));
                    }
                    let group = of.numbers(0, pixel, mean, lanes::<I>(second));
                    let all = [group.mean, group.along, group.scale].map(|v| I::splat(v));
                    for block in 0..blocks {
                        of.finish(at(block, pixel), all, of.used(block));
                    }
                    continue;
                }
                for block in 0..blocks {
                    I::store(of.out.add(at(block, pixel)), I::zero());
                }
                for g in 0..of.norm.groups {
                    let channels = g * of.channels()..(g + 1) * of.channels();
                    let place = |c: usize| index(of.shape, I::LANES, c, pixel);
                    let mut sum = I::T::ZERO;
                    for c in channels.clone() {
                        sum += *of.x.add(place(c));
                    }
                    let mean = sum * of.share();
                    let mut second = I::T::ZERO;
                    for c in channels.clone() {
                        let x = *of.x.add(place(c));
                        second += match of.way {
                            NormWay::Forward { .. } => (x - mean) * (x - mean),
                            NormWay::Adjoint { y, .. } if y.is_null() => I::T::ZERO,
                            NormWay::Adjoint { y, .. } => x * *y.add(place(c)),
                        };
                    }
                    let group = of.numbers(g, pixel, mean, second);
                    for c in channels {
                        let mut d = *of.x.add(place(c)) - group.mean;
                        if let NormWay::Adjoint { y, .. } = of.way
                            && !y.is_null()
                        {
                            d = d - *y.add(place(c)) * group.along;
                        }
                        *of.out.add(place(c)) = d * group.scale;
                    }
                }
            }
        }
    }
}

/// All positions of a copy together, for some groups.
pub(super) struct AllPositions<'a, I: Isa> {
    pub of: Normed<I>,
    pub lists: &'a mut Spare,
    /// As [`AllPositions::together`] divides them.
    pub groups: Range<usize>,
}

impl<I: Isa> AllPositions<'_, I> {
    /// The fewest groups with whole vectors of channels; all groups where that needs more.
    pub fn together(norm: Standardise, shape: Shape) -> usize {
        let channels = shape.c / norm.groups;
        (1..norm.groups).find(|n| (n * channels).is_multiple_of(I::LANES)).unwrap_or(norm.groups)
    }
}

impl<I: Isa> CpuKernel<I> for AllPositions<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let (of, groups) = (&self.of, self.groups.clone());
        let (plane, channels) = (of.shape.plane(), of.channels());
        let blocks = groups.start * channels / I::LANES..(groups.end * channels).div_ceil(I::LANES);
        // Position of a lane's group among those of the task.
        let group = |block: usize, i: usize| (block * I::LANES + i) / channels - groups.start;
        // A vector with the number of each lane's group.
        let spread = |numbers: &[I::T], block: usize| {
            let of_lane = |i: usize| numbers[group(block, i).min(numbers.len() - 1)];
            let all: [I::T; MOST_LANES] = std::array::from_fn(of_lane);
            // SAFETY: vectors have at most `MOST_LANES` lanes.
            unsafe { I::load(all.as_ptr()) }
        };
        let gather = |sums: &mut [I::T], block: usize, sum: I::V| {
            let mut all = [I::T::ZERO; MOST_LANES];
            // SAFETY: as above.
            unsafe { I::store(all.as_mut_ptr(), sum) };
            for (i, &v) in all.iter().enumerate().take(I::LANES.min(of.shape.c - block * I::LANES)) {
                sums[group(block, i)] += v;
            }
        };
        // SAFETY: as for `EachPosition`.
        unsafe {
            if groups.end == of.norm.groups {
                of.clear_rest();
            }
            let lists = self.lists;
            let mut zeros = || lists.of((0..groups.len()).map(|_| I::T::ZERO));
            let [mut means, mut seconds, mut along, mut scales] = std::array::from_fn(|_| zeros());
            for block in blocks.clone() {
                let mut sum = I::zero();
                for pixel in 0..plane {
                    sum = I::add(sum, I::load(of.x.add((block * plane + pixel) * I::LANES)));
                }
                gather(&mut means, block, sum);
            }
            means.iter_mut().for_each(|mean| *mean = *mean * of.share());
            for block in blocks.clone() {
                let (mean, used, mut second) = (spread(&means, block), of.used(block), I::zero());
                for pixel in 0..plane {
                    second = of.second(second, (block * plane + pixel) * I::LANES, mean, used);
                }
                gather(&mut seconds, block, second);
            }
            for (i, g) in groups.clone().enumerate() {
                let numbers = of.numbers(g, 0, means[i], seconds[i]);
                (along[i], scales[i]) = (numbers.along, numbers.scale);
            }
            for block in blocks {
                let all = [&means, &along, &scales].map(|numbers| spread(numbers, block));
                for pixel in 0..plane {
                    of.finish((block * plane + pixel) * I::LANES, all, of.used(block));
                }
            }
            [means, seconds, along, scales].into_iter().for_each(|numbers| lists.keep(numbers));
        }
    }
}
