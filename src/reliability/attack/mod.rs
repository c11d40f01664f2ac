//! Attacks: find inputs near a picture on which a net predicts something else, or predicts the same with a different
//! saliency map.
//!
//! - [`fgsm`] and [`pgd`] attack the prediction.
//! - [`MapAttack`] attacks the map and preserves the prediction.
//!
//! All move within the L∞ [`Ball`] of ε around the picture, intersected with the range of valid pixels, by steps along
//! the sign of a gradient. Draws depend only on (seed, picture, element); results do not depend on batches or threads.
//! [`quantise`] rounds the results to levels of 0 to 255, so that a picture file can hold them, without leaving the
//! ball.

mod ball;
mod field;
mod map;
mod objective;
mod prediction;
mod quantise;
mod spec;

pub use ball::{Ball, PictureLength, linf, linf_levels};
pub use map::{Base, MapAttack, MapEvaluation};
pub use objective::{Magnitude, MapTarget, Objective, PixelRegion};
pub use prediction::{Goal, Pgd, Stop, fgsm, pgd};
pub use quantise::{Quantised, quantise};
pub use spec::{Attack, AttackContext, AttackEntry, AttackKind, AttackSpec, Wanted, registry};

use crate::engine::Batch;
use crate::error::{Error, Result};
use crate::random::Stream;
use crate::score::top;
use crate::tensor::Tensor;

/// The starting point of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartPoint {
    /// At the picture.
    #[default]
    Picture,
    /// At a point drawn uniformly from the ball around it.
    Random,
}

/// The result of an attack on one picture.
#[derive(Debug, Clone)]
pub struct Adversarial {
    /// `[C, H, W]` in the net's space, in the shape and precision of the original picture.
    pub picture: Tensor,
    /// Logits of the net on the original picture and on this one.
    pub logits: [Vec<f64>; 2],
    /// Whether it fulfils the attack's promise while the original picture does not: another prediction, or the same one
    /// with a map farther from (or nearer to) the reference. By how much, `objective` says; it may be little.
    pub succeeded: bool,
    /// The objective that the attack maximises, on the original picture and on this one.
    pub objective: [f64; 2],
    /// `max |x′ − x|` in normalised units.
    pub linf: f64,
    /// Number of steps to the result; 0 for the starting point.
    pub iterations: usize,
}

impl Adversarial {
    /// The class predicted on the original picture and on this one: largest logit; of equal ones, the first.
    pub fn predicted(&self) -> [usize; 2] {
        self.logits.each_ref().map(|logits| top(logits).unwrap_or(0))
    }
}

/// One number from 0 to 1 per element of the picture with this key.
fn start_draws(seed: u64, key: u64, len: usize) -> Vec<f32> {
    let mut draws = vec![0f32; len];
    Stream::AttackStart.uniforms(seed, key, 0, &mut draws);
    draws
}

/// Bytes that an attack holds per picture: point, gradient, bounds, best, and transfers to and from the device.
fn bytes(x: &Batch) -> usize {
    12 * x.shape().len() * size_of::<f64>()
}

/// Refuses meaningless numbers of steps.
fn check_iterations(iterations: usize) -> Result<()> {
    const MOST: usize = 1 << 20;
    if (1..=MOST).contains(&iterations) {
        return Ok(());
    }
    Err(Error::settings(format!("iterations={iterations}: there must be at least 1 and at most {MOST}")))
}

/// `values + step · sign(direction)`; where the slope is zero, nothing moves.
fn step(values: &mut [f64], direction: &[f64], step: &[f64], plane: usize) {
    for (i, (v, d)) in values.iter_mut().zip(direction).enumerate() {
        if *d != 0.0 {
            *v += step[i / plane] * d.signum();
        }
    }
}
