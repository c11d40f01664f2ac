//! Gaussian noise around a picture.

use super::MOST_COPIES;
use crate::device::Perturbation;
use crate::engine::{Batch, Copies};
use crate::error::{Error, Result};

/// `n` copies of each picture with independent normal noise of standard deviation `share · (max x − min x)`.
///
/// Draws depend on (seed, picture, copy, element) and nothing else.
///
/// # Errors
/// When there are no copies or more than [`MOST_COPIES`], or the share is negative or not finite.
pub fn gaussian(x: &Batch, n: usize, share: f64, seed: u64) -> Result<Copies> {
    if !(1..=MOST_COPIES).contains(&n) {
        return Err(Error::settings(format!("n={n} copies; there must be at least 1 and at most {MOST_COPIES}")));
    }
    if !(share >= 0.0 && share.is_finite()) {
        return Err(Error::settings(format!("sigma={share} must be a share of the picture's range, 0 or more")));
    }
    let range = |i: usize| {
        let values = x.items()[i].to_f64();
        let (lo, hi) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        hi - lo
    };
    let sigmas = (0..x.len()).map(|i| share * range(i)).collect();
    Ok(Copies {
        perturbation: Perturbation::Noise { seed, images: x.keys().to_vec(), sigmas },
        weights: vec![1.0 / n as f64; n],
    })
}
