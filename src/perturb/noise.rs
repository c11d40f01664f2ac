//! Gaussian noise around a picture.

use super::MOST_COPIES;
use crate::device::{Perturbation, Spare};
use crate::engine::{Batch, Copies};
use crate::error::{Error, Result};
use crate::random;

/// Most draws per picture; higher numbers are reserved for draws of another kind ([`random::Stream`]).
pub const MOST_DRAWS: usize = random::COPIES as usize;

/// `n` copies of each picture with independent normal noise of standard deviation `share · (max x − min x)`.
///
/// Draws depend only on (seed, picture, copy, element).
///
/// # Errors
/// When there are no copies or more than [`MOST_COPIES`], or the share is negative or not finite.
pub fn gaussian(x: &Batch, n: usize, share: f64, seed: u64) -> Result<Copies> {
    gaussian_from(x, 0, n, share, seed)
}

/// As [`gaussian`] with the draws `first .. first + n`, for methods that draw repeatedly.
///
/// # Errors
/// As [`gaussian`], and when the draws' numbers exceed 32 bits.
pub fn gaussian_from(x: &Batch, first: usize, n: usize, share: f64, seed: u64) -> Result<Copies> {
    gaussian_within(&mut Spare::default(), x, first, n, share, seed)
}

/// As [`gaussian_from`], in reused memory.
pub(crate) fn gaussian_within(
    spare: &mut Spare,
    x: &Batch,
    first: usize,
    n: usize,
    share: f64,
    seed: u64,
) -> Result<Copies> {
    if !(1..=MOST_COPIES).contains(&n) {
        return Err(Error::settings(format!("n={n} copies; there must be at least 1 and at most {MOST_COPIES}")));
    }
    if !(share >= 0.0 && share.is_finite()) {
        return Err(Error::settings(format!("sigma={share} must be a share of the picture's range, 0 or more")));
    }
    let first = first.checked_add(n).filter(|&end| end <= MOST_DRAWS).and(u32::try_from(first).ok());
    let first = first.ok_or_else(|| Error::settings(format!("more than {MOST_DRAWS} noisy copies of one picture")))?;
    let sigmas = spare.of(x.draws().iter().map(|d| share * d.range));
    let images = spare.of(x.draws().iter().map(|d| d.key));
    let weights = spare.of((0..n).map(|_| 1.0 / n as f64));
    Ok(Copies { perturbation: Perturbation::Noise { seed, first, images, sigmas }, weights })
}
