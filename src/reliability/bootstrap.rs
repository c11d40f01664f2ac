//! Percentile bootstrap (Efron 1979: Bootstrap methods, Annals of Statistics; Efron & Tibshirani 1993, chapter 13): how
//! much a mean over pictures would vary for other pictures of the same kind.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Stream;

/// Settings of the intervals. Equal settings draw the same pictures for every list of the same length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Number of resamples; each draws as many pictures as there are, with replacement.
    pub resamples: u32,
    /// Share of the resamples' means inside the interval; half of the rest lies below it and half above.
    pub level: f64,
    /// Seed of the draws.
    pub seed: u64,
}

/// A mean and its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean of the values.
    pub mean: f64,
    /// Lower end; `None` for a single value, which gives no information about the spread.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Number of values.
    pub n: usize,
}

impl Bootstrap {
    /// 2000 resamples, 95 %.
    pub fn new(seed: u64) -> Self {
        Self { resamples: 2000, level: 0.95, seed }
    }

    /// The mean of `values`, one per picture, with its percentile interval; `None` for no values.
    ///
    /// # Errors
    /// Input when a value is not finite; settings when there are no resamples or the level is not between 0 and 1.
    pub fn mean(&self, values: &[f64]) -> Result<Option<Estimate>> {
        if self.resamples == 0 || !(0.0..1.0).contains(&self.level) {
            return Err(Error::settings(format!("{} resamples, level {}", self.resamples, self.level)));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::input(format!("value {at} is {}", values[at])));
        }
        let n = values.len();
        if n == 0 {
            return Ok(None);
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Ok(Some(Estimate { mean, low: None, high: None, n }));
        }
        let mut draws = vec![0.0f32; 2 * n];
        let mut means: Vec<f64> = (0..self.resamples)
            .map(|resample| {
                Stream::Bootstrap.uniforms(self.seed, 0, resample, &mut draws);
                draws.as_chunks::<2>().0.iter().map(|&pair| values[index(pair, n)]).sum::<f64>() / n as f64
            })
            .collect();
        means.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        let (low, high) = (quantile(&means, tail), quantile(&means, 1.0 - tail));
        Ok(Some(Estimate { mean, low: Some(low), high: Some(high), n }))
    }

    /// The mean of `a − b` over the pictures that have both, resampled in pairs, so that common variation cancels.
    ///
    /// # Errors
    /// As [`Bootstrap::mean`], and input when the lists differ in length.
    pub fn difference(&self, a: &[Option<f64>], b: &[Option<f64>]) -> Result<Option<Estimate>> {
        if a.len() != b.len() {
            return Err(Error::input(format!("{} values to be paired with {}", a.len(), b.len())));
        }
        let pairs: Vec<f64> = a.iter().zip(b).filter_map(|(a, b)| Some((*a)? - (*b)?)).collect();
        self.mean(&pairs)
    }
}

/// An index below `n`, from two uniform numbers of 23 bits each.
pub(super) fn index([coarse, fine]: [f32; 2], n: usize) -> usize {
    const STEP: f64 = 1.0 / (1 << 23) as f64;
    // The first number is an odd multiple of half a step; the second subdivides the step.
    let u = f64::from(coarse) - STEP / 2.0 + f64::from(fine) * STEP;
    ((u * n as f64) as usize).min(n - 1)
}

/// Quantile of `sorted` by linear interpolation (NumPy's default).
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (rank - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_have_the_binomial_interval() {
        // With two values a resample's mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4: at 40 % both ends are 1/2,
        // at 95 % they are 0 and 1.
        let values = [0.0, 1.0];
        let wide = Bootstrap::new(3).mean(&values).unwrap().unwrap();
        assert_eq!(wide, Estimate { mean: 0.5, low: Some(0.0), high: Some(1.0), n: 2 });
        let narrow = Bootstrap { level: 0.4, ..Bootstrap::new(3) }.mean(&values).unwrap().unwrap();
        assert_eq!((narrow.low, narrow.high), (Some(0.5), Some(0.5)));
        let one = Bootstrap::new(3).mean(&[7.0]).unwrap().unwrap();
        assert_eq!(one, Estimate { mean: 7.0, low: None, high: None, n: 1 });
        assert_eq!(Bootstrap::new(3).mean(&[]).unwrap(), None);
        assert!(Bootstrap::new(3).mean(&[1.0, f64::NAN]).is_err());
    }

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([1, 2, 4, 8, 16], [0, 0.1, 0.5, 0.975, 1])
        for (share, want) in [(0.0, 1.0), (0.1, 1.4), (0.5, 4.0), (0.975, 15.2), (1.0, 16.0)] {
            assert!((quantile(&[1.0, 2.0, 4.0, 8.0, 16.0], share) - want).abs() < 1e-12, "{share}");
        }
    }

    #[test]
    fn every_picture_is_drawn_equally_often() {
        let n = 7;
        let mut draws = vec![0.0f32; 140_000];
        Stream::Bootstrap.uniforms(5, 0, 0, &mut draws);
        let mut times = vec![0usize; n];
        draws.as_chunks::<2>().0.iter().for_each(|&pair| times[index(pair, n)] += 1);
        // Five standard deviations around 10000.
        assert!(times.iter().all(|&t| t.abs_diff(10_000) < 5 * 93), "{times:?}");
        assert_eq!(index([1.0 - 1.0 / (1 << 24) as f32; 2], n), n - 1);
        assert_eq!(index([1.0 / (1 << 24) as f32; 2], n), 0);
    }

    /// Intervals for means of 40 normal numbers contain the true mean about as often as stated: 95 %, minus the 1 to 2
    /// % by which percentile intervals are known to fall short at this size.
    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let bootstrap = Bootstrap { resamples: 400, ..Bootstrap::new(1) };
        let trials = 400;
        let mut held = 0;
        for trial in 0..trials {
            let mut z = [0.0f32; 40];
            crate::random::fill_normals(9, 1, trial, 0, &mut z);
            let values: Vec<f64> = z.iter().map(|z| 2.0 + f64::from(*z)).collect();
            let e = bootstrap.mean(&values).unwrap().unwrap();
            held += usize::from(e.low.unwrap() <= 2.0 && 2.0 <= e.high.unwrap());
        }
        let share = held as f64 / f64::from(trials);
        assert!((0.90..=0.975).contains(&share), "{share}");
    }

    #[test]
    fn pairs_leave_out_what_pictures_share() {
        let hard: Vec<f64> = (0..50).map(|i| f64::from(i * i % 37)).collect();
        let a: Vec<Option<f64>> = hard.iter().map(|v| Some(v + 0.25)).collect();
        let mut b: Vec<Option<f64>> = hard.iter().copied().map(Some).collect();
        b[3] = None;
        let e = Bootstrap::new(0).difference(&a, &b).unwrap().unwrap();
        assert_eq!(e, Estimate { mean: 0.25, low: Some(0.25), high: Some(0.25), n: 49 });
        assert!(Bootstrap::new(0).difference(&a, &b[1..]).is_err());
    }
}
