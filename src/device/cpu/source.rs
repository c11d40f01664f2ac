//! Pixels of perturbed copies, and the contribution of copies to their picture's map.

use std::ops::Range;

use super::isa::{CpuKernel, Isa};
use super::layout::index;
use super::memory::Shared;
use crate::program::Statistic;
use crate::random;
use crate::tensor::{Scalar, Shape};

/// How one copy differs from its picture.
pub(super) enum Copy<'a, T> {
    Same,
    Noise { seed: u64, image: u64, sample: u32, sigma: T },
    Path { alpha: T, baseline: &'a [T] },
}

/// Pixels that are computed together.
const RUN: usize = 64;

/// Some pixels of one copy, all channels.
pub(super) struct Perturb<'a, I: Isa> {
    pub picture: &'a [I::T],
    pub shape: Shape,
    pub pixels: Range<usize>,
    pub copy: &'a Copy<'a, I::T>,
    /// The whole copy in blocks.
    pub out: *mut I::T,
}

impl<I: Isa> CpuKernel<I> for Perturb<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let plane = self.shape.plane();
        let mut z = [0f32; RUN];
        // At most 16 lanes per pixel; lanes without a channel stay zero.
        let mut block = [I::T::ZERO; 16 * RUN];
        for first_channel in (0..self.shape.c).step_by(I::LANES) {
            let channels = first_channel..self.shape.c.min(first_channel + I::LANES);
            block.fill(I::T::ZERO);
            for first in self.pixels.clone().step_by(RUN) {
                let count = (self.pixels.end - first).min(RUN);
                for (lane, channel) in channels.clone().enumerate() {
                    let start = channel * plane + first;
                    if let Copy::Noise { seed, image, sample, .. } = *self.copy {
                        random::fill_normals(seed, image, sample, start, &mut z[..count]);
                    }
                    for (i, &z) in z[..count].iter().enumerate() {
                        let x = self.picture[start + i];
                        block[i * I::LANES + lane] = match *self.copy {
                            Copy::Same => x,
                            Copy::Noise { sigma, .. } => sigma.mul_add(I::T::from_f64(f64::from(z)), x),
                            Copy::Path { alpha, baseline } => {
                                let b = baseline[start + i];
                                alpha.mul_add(x - b, b)
                            }
                        };
                    }
                }
                // SAFETY: the copy holds every block's plane.
                unsafe {
                    let to = self.out.add(index(self.shape, I::LANES, first_channel, first));
                    std::ptr::copy_nonoverlapping(block.as_ptr(), to, count * I::LANES);
                }
            }
        }
    }
}

/// One picture's running statistic, to which one more copy is added.
pub(super) struct Fold {
    pub first: Shared<f64>,
    pub second: Shared<f64>,
    /// Number of copies, including this one.
    pub count: usize,
    pub weight: f64,
}

impl Fold {
    /// Adds some pixels of one channel of a copy's signal.
    ///
    /// # Safety
    /// The statistic has the signal's shape, and nothing else accesses these pixels of it.
    pub unsafe fn pixels<T: Scalar>(
        &self,
        signal: &[T],
        shape: Shape,
        lanes: usize,
        channel: usize,
        pixels: Range<usize>,
        statistic: Statistic,
    ) {
        for pixel in pixels {
            let g = signal[index(shape, lanes, channel, pixel)].to_f64();
            // SAFETY: as the caller promises; the second part is accessed only if the statistic has one.
            unsafe {
                let first = self.first.add(channel * shape.plane() + pixel);
                match statistic {
                    Statistic::Sum => *first += self.weight * g,
                    Statistic::SumOfSquares => *first += self.weight * g * g,
                    Statistic::Variance => {
                        // Welford 1962.
                        let delta = g - *first;
                        *first += delta / self.count as f64;
                        *self.second.add(channel * shape.plane() + pixel) += delta * (g - *first);
                    }
                    Statistic::Range => {
                        let second = self.second.add(channel * shape.plane() + pixel);
                        // A NaN is kept.
                        if self.count == 1 || g > *first || g.is_nan() {
                            *first = g;
                        }
                        if self.count == 1 || g < *second || g.is_nan() {
                            *second = g;
                        }
                    }
                }
            }
        }
    }
}
