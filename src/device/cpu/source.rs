//! Pixels of perturbed copies, and what copies leave in their picture's map.

use super::isa::{Isa, Kernel};
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

/// One channel of one copy.
pub(super) struct Perturb<'a, I: Isa> {
    pub picture: &'a [I::T],
    pub shape: Shape,
    pub channel: usize,
    pub copy: &'a Copy<'a, I::T>,
    /// The whole copy in blocks.
    pub out: *mut I::T,
}

impl<I: Isa> Kernel<I> for Perturb<'_, I> {
    #[inline(always)]
    unsafe fn call(self) {
        let plane = self.shape.plane();
        let start = self.channel * plane;
        let picture = &self.picture[start..start + plane];
        let mut z = [0f32; 64];
        for first in (0..plane).step_by(64) {
            let count = (plane - first).min(64);
            if let Copy::Noise { seed, image, sample, .. } = *self.copy {
                random::fill_normals(seed, image, sample, start + first, &mut z[..count]);
            }
            for (i, &z) in z[..count].iter().enumerate() {
                let pixel = first + i;
                let x = picture[pixel];
                let v = match *self.copy {
                    Copy::Same => x,
                    Copy::Noise { sigma, .. } => sigma.mul_add(I::T::from_f64(f64::from(z)), x),
                    Copy::Path { alpha, baseline } => {
                        let b = baseline[start + pixel];
                        alpha.mul_add(x - b, b)
                    }
                };
                // SAFETY: the copy holds every channel's plane.
                unsafe { *self.out.add(index(self.shape, I::LANES, self.channel, pixel)) = v };
            }
        }
    }
}

/// One picture's running statistic, about to take in one more copy.
pub(super) struct Fold {
    pub first: Shared<f64>,
    pub second: Shared<f64>,
    /// Copies, this one included.
    pub count: usize,
    pub weight: f64,
}

impl Fold {
    /// Takes in one channel of a copy's signal.
    ///
    /// # Safety
    /// The statistic has the signal's shape, and nobody else uses this channel of it.
    pub unsafe fn channel<T: Scalar>(
        &self,
        signal: &[T],
        shape: Shape,
        lanes: usize,
        channel: usize,
        statistic: Statistic,
    ) {
        for pixel in 0..shape.plane() {
            let g = signal[index(shape, lanes, channel, pixel)].to_f64();
            // SAFETY: as the caller promises; the second part is only touched where the statistic has one.
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
                }
            }
        }
    }
}
