//! Pixels of perturbed copies, and what copies leave in their picture's map.

use super::isa::{Isa, Kernel};
use super::layout::index;
use crate::device::Sum;
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

/// Folds one channel of one copy's signal into the picture's running statistic.
pub(super) fn fold<T: Scalar>(
    signal: &[T],
    shape: Shape,
    lanes: usize,
    channel: usize,
    weight: f64,
    statistic: Statistic,
    sum: (&mut [f64], &mut [f64], usize),
) {
    let (first, second, count) = sum;
    for (pixel, first) in first.iter_mut().enumerate() {
        let g = signal[index(shape, lanes, channel, pixel)].to_f64();
        match statistic {
            Statistic::Sum => *first += weight * g,
            Statistic::SumOfSquares => *first += weight * g * g,
            Statistic::Variance => {
                // Welford 1962.
                let delta = g - *first;
                *first += delta / count as f64;
                second[pixel] += delta * (g - *first);
            }
        }
    }
}

impl Sum {
    /// Parts of each channel: `(first, second)`; the second is empty unless the statistic needs it.
    pub(super) fn channels(&mut self, plane: usize) -> Vec<(&mut [f64], &mut [f64])> {
        let seconds: Vec<&mut [f64]> = if self.second.is_empty() {
            self.first.chunks(plane).map(|_| Default::default()).collect()
        } else {
            self.second.chunks_mut(plane).collect()
        };
        self.first.chunks_mut(plane).zip(seconds).collect()
    }
}
