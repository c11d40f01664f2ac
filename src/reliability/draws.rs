//! Random draws of metrics. They depend only on (seed, metric, picture, draw, element).

use crate::engine::Batch;
use crate::error::{Error, Result};
use crate::random::Stream;
use crate::tensor::Tensor;

/// The noise added to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Normal deviates; the size is their standard deviation.
    Gaussian,
    /// Uniform within ± the size.
    Uniform,
}

impl std::str::FromStr for Noise {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "gaussian" => Ok(Noise::Gaussian),
            "uniform" => Ok(Noise::Uniform),
            _ => Err(Error::settings(format!("no noise is named '{s}'; there are gaussian and uniform"))),
        }
    }
}

/// The draws of one metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricDraws {
    pub stream: Stream,
    pub seed: u64,
}

impl MetricDraws {
    /// `len` numbers of draw `sample` for the picture with this key: standard normal, or uniform in −1 to 1.
    pub fn noise(self, noise: Noise, key: u64, sample: u32, len: usize) -> Vec<f32> {
        let mut out = vec![0.0; len];
        match noise {
            Noise::Gaussian => self.stream.normals(self.seed, key, sample, &mut out),
            Noise::Uniform => {
                self.stream.uniforms(self.seed, key, sample, &mut out);
                out.iter_mut().for_each(|u| *u = 2.0 * *u - 1.0);
            }
        }
        out
    }

    /// Picture `i` of `x` with noise of `size` times its own range.
    pub fn noisy(self, noise: Noise, x: &Batch, i: usize, sample: u32, size: f64) -> Result<Tensor> {
        let picture = &x.items()[i];
        let draws = self.noise(noise, x.keys()[i], sample, picture.len());
        let size = size * range(picture);
        let values = draws.iter().enumerate().map(|(e, &z)| picture.at(e) + size * f64::from(z)).collect();
        Tensor::rounded(picture.dims(), values, picture.precision())
    }

    /// `n` of `total` positions in C order; every subset is equally likely.
    pub fn subset(self, key: u64, sample: u32, total: usize, n: usize) -> Vec<u32> {
        let mut uniforms = vec![0.0; total];
        self.stream.uniforms(self.seed, key, sample, &mut uniforms);
        let mut keyed: Vec<(u32, u32)> = uniforms.iter().zip(0..).map(|(u, i)| (u.to_bits(), i)).collect();
        if n < total {
            keyed.select_nth_unstable(n);
        }
        let mut chosen: Vec<u32> = keyed.into_iter().take(n).map(|(_, i)| i).collect();
        chosen.sort_unstable();
        chosen
    }
}

/// Largest minus smallest number of a picture.
pub(crate) fn range(picture: &Tensor) -> f64 {
    let values = picture.to_f64();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    high - low
}

/// The number of a draw.
///
/// # Errors
/// When it is too large.
pub(crate) fn sample(i: usize) -> Result<u32> {
    u32::try_from(i).map_err(|_| Error::settings(format!("{i} draws of one picture")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_have_their_size_and_cover_all_alike() {
        let draws = MetricDraws { stream: Stream::SensitivityN, seed: 7 };
        let mut times = [0; 10];
        for sample in 0..2000 {
            let set = draws.subset(3, sample, 10, 4);
            assert_eq!(set.len(), 4);
            assert!(set.windows(2).all(|p| p[0] < p[1]));
            set.iter().for_each(|&i| times[i as usize] += 1);
        }
        // 800 expected, standard deviation 22.
        assert!(times.iter().all(|&n| (700..900).contains(&n)), "{times:?}");
        assert_eq!(draws.subset(3, 0, 5, 5), [0, 1, 2, 3, 4]);
        assert_ne!(draws.subset(3, 0, 50, 5), draws.subset(4, 0, 50, 5));
        assert_ne!(draws.subset(3, 0, 50, 5), MetricDraws { stream: Stream::Dwsol, ..draws }.subset(3, 0, 50, 5));
    }

    #[test]
    fn noise_has_its_size() {
        let draws = MetricDraws { stream: Stream::Stability, seed: 1 };
        let uniform = draws.noise(Noise::Uniform, 5, 0, 4000);
        assert!(uniform.iter().all(|u| u.abs() < 1.0));
        let variance = |v: &[f32]| v.iter().map(|u| f64::from(u * u)).sum::<f64>() / v.len() as f64;
        assert!((variance(&uniform) - 1.0 / 3.0).abs() < 0.03);
        assert!((variance(&draws.noise(Noise::Gaussian, 5, 0, 4000)) - 1.0).abs() < 0.1);
    }
}
