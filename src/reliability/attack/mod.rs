//! Attacks: pictures next to a picture on which a net predicts something else, or predicts the same and its saliency map
//! shows something else.
//!
//! - [`fgsm`] and [`pgd`] attack the prediction.
//! - [`MapAttack`] attacks the map and keeps the prediction.
//!
//! All move within the L∞ [`Ball`] of ε around the picture, cut by what pictures can hold, by steps along the sign of a
//! gradient. Draws depend on (seed, picture, element) and nothing else; results do not depend on batches or threads.
//! [`quantise`] rounds what they find to levels of 0 to 255, so that a picture file can hold it, without leaving the ball.

mod ball;
mod field;
mod map;
mod objective;
mod prediction;
mod quantise;
mod spec;

pub use ball::{Ball, Size, linf, linf_levels};
pub use map::{Base, Evaluation, MapAttack};
pub use objective::{Magnitude, MapTarget, Objective, Region};
pub use prediction::{Goal, Pgd, Stop, fgsm, pgd};
pub use quantise::{Quantised, quantise};
pub use spec::{Attack, Context, Entry, Kind, Spec, Wanted, registry};

use crate::engine::{Batch, Engine, Progress};
use crate::error::{Error, Result};
use crate::random::Stream;
use crate::score::top;
use crate::tensor::Tensor;

/// Where an attack begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the picture.
    #[default]
    Picture,
    /// At a point drawn uniformly from the ball around it.
    Random,
}

/// What an attack found for one picture.
#[derive(Debug, Clone)]
pub struct Adversarial {
    /// `[C, H, W]` in the net's space, in the shape and precision of the original picture.
    pub picture: Tensor,
    /// Logits of the net on the original picture and on this one.
    pub logits: [Vec<f64>; 2],
    /// Whether it is what the attack promises, and the original picture was not: another prediction, or the same one with a map
    /// that is farther from (or nearer to) what it was to be moved from (or to), be it by little: `objective` says how much.
    pub succeeded: bool,
    /// What the attack makes large, on the original picture and on this one.
    pub objective: [f64; 2],
    /// `max |x′ − x|` in normalised units.
    pub linf: f64,
    /// Steps that led to it; 0 for the point where the attack began.
    pub iterations: usize,
}

impl Adversarial {
    /// The class predicted on the original picture and on this one: the one of the largest logit, of equal ones the first.
    pub fn predicted(&self) -> [usize; 2] {
        self.logits.each_ref().map(|logits| top(logits).unwrap_or(0))
    }
}

/// One number from 0 to 1 for each element of the picture with this key.
fn start_draws(seed: u64, key: u64, len: usize) -> Vec<f32> {
    let mut draws = vec![0f32; len];
    Stream::AttackStart.uniforms(seed, key, 0, &mut draws);
    draws
}

/// Bytes that the pictures worked on together may hold on the host.
const MOST_BYTES: usize = 256 << 20;

/// Runs `attack` on as many pictures at a time as fit, each with the positions of its pictures in `x`, and tells how far it
/// has come: `attack` is handed a function that hears of each iteration.
fn in_groups<T>(
    (method, iterations): (&str, usize),
    engine: &mut Engine,
    x: &Batch,
    mut attack: impl FnMut(&mut Engine, &Batch, std::ops::Range<usize>, &Told<'_>) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    // Point, gradient, bounds, best, and what goes to the device and comes back.
    let bytes = 12 * x.shape().len() * size_of::<f64>();
    let most = engine.together(bytes, MOST_BYTES / bytes.max(1));
    let groups = x.len().div_ceil(most);
    let total = groups * iterations;
    engine.progress(&Progress { method, done: 0, total, objective: None });
    let told = |group: usize| Told { method, before: group * iterations, total };
    let mut kept = |engine: &mut Engine, x: &Batch, range: std::ops::Range<usize>, group: usize| {
        engine.keeping((method, bytes * x.len()), |engine| attack(engine, x, range, &told(group)))
    };
    if groups == 1 {
        return kept(engine, x, 0..x.len(), 0);
    }
    let mut all = Vec::with_capacity(x.len());
    for (group, items) in x.items().chunks(most).enumerate() {
        let first = group * most;
        all.extend(kept(engine, &Batch::of(items.to_vec())?, first..first + items.len(), group)?);
    }
    Ok(all)
}

/// Where one group of pictures stands within a call.
struct Told<'a> {
    method: &'a str,
    before: usize,
    total: usize,
}

impl Told<'_> {
    fn iteration(&self, engine: &mut Engine, done: usize, objectives: impl Iterator<Item = f64>) {
        let (sum, count) = objectives.fold((0.0, 0u32), |(sum, count), o| (sum + o, count + 1));
        let objective = (count > 0).then(|| sum / f64::from(count));
        engine.progress(&Progress { method: self.method, done: self.before + done, total: self.total, objective });
    }
}

/// Refuses numbers of steps that mean nothing.
fn check_iterations(iterations: usize) -> Result<()> {
    const MOST: usize = 1 << 20;
    if (1..=MOST).contains(&iterations) {
        return Ok(());
    }
    Err(Error::settings(format!("iterations={iterations}: there must be at least 1 and at most {MOST}")))
}

/// `values + step · sign(direction)`; where there is no slope nothing moves.
fn step(values: &mut [f64], direction: &[f64], step: &[f64], plane: usize) {
    for (i, (v, d)) in values.iter_mut().zip(direction).enumerate() {
        if *d != 0.0 {
            *v += step[i / plane] * d.signum();
        }
    }
}
