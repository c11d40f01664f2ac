//! Moves patches of pictures as far as one convolution and its activation allow: the plain data that a device receives
//! and returns, and the optimiser's steps on a patch's pixels.
//!
//! Patches do not influence each other, so each is a small independent problem.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::program::{self, ConvLayer};
use crate::tensor::functions::log;
use crate::tensor::{Shape, Tensor};

/// A picture's first layer: a convolution of its pixels and, after it, a clamp.
#[derive(Debug, Clone)]
pub(crate) struct Stem {
    /// The convolution; its input is the picture.
    pub layer: std::sync::Arc<ConvLayer>,
    /// The clamp on its outputs, if any.
    pub clamp: Option<program::Range>,
}

impl Stem {
    /// Most elements of the layer's outputs that patches may influence; with more, a patch is not a small problem.
    const MOST_ELEMENTS: usize = 1 << 18;

    /// Whether patches of `side` pixels can be moved through this layer.
    pub fn suits(&self, side: usize) -> bool {
        let [k, c, kh, kw] = self.layer.weight.dims();
        let positions = |a: usize| (side + self.layer.window.span()[a]).div_ceil(self.layer.window.stride[a]) + 1;
        let elements = [positions(0), positions(1), k].iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        self.layer.groups == 1
            && elements.is_some_and(|n| n <= Self::MOST_ELEMENTS)
            && [k.next_multiple_of(64), c, kh, kw]
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .is_some_and(|n| n < 1 << 31)
    }

    /// Refuses a layer and pictures that do not match; devices rely on this.
    pub fn check(&self, pictures: &[Tensor]) -> Result<()> {
        self.layer.check()?;
        let suits = |t: &Tensor| *t.dims() == self.layer.input.dims();
        if self.layer.groups == 1 && pictures.iter().all(suits) {
            return Ok(());
        }
        Err(Error::model(format!("layer '{}' does not take the pictures by itself", self.layer.name)))
    }

    /// The error when its outputs are too large.
    pub fn overflow(&self) -> Error {
        Error::device(format!("a number overflowed or became NaN; it began at layer '{}'", self.layer.name))
    }
}

/// A patch of a picture and its direction.
#[derive(Debug, Clone)]
pub(crate) struct PatchMove {
    /// Index of the picture.
    pub item: usize,
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub columns: Range<usize>,
    /// 1 towards brighter pixels, −1 towards darker ones.
    pub sign: f64,
}

/// Patches, their constraints, and how they are moved.
#[derive(Debug)]
pub(crate) struct PatchTask<'a> {
    /// The layer whose outputs may change by at most `limits`.
    pub stem: &'a Stem,
    /// `[C, H, W]` each.
    pub pictures: &'a [Tensor],
    /// Largest allowed change of an output, one number per picture.
    pub limits: &'a [f64],
    /// Smallest value of each channel.
    pub low: &'a [f64],
    /// Largest value of each channel.
    pub high: &'a [f64],
    /// The patches.
    pub places: &'a [PatchMove],
    /// The optimiser's settings.
    pub ascent: Ascent,
}

impl PatchTask<'_> {
    /// Refuses parts that do not match; devices rely on this.
    pub fn check(&self) -> Result<()> {
        self.stem.check(self.pictures)?;
        let Shape { c, h, w } = self.stem.layer.input;
        let inside = |p: &PatchMove| {
            let within = |r: &Range<usize>, extent: usize| r.start < r.end && r.end <= extent;
            p.item < self.pictures.len() && within(&p.rows, h) && within(&p.columns, w)
        };
        let ranges = self.low.len() == c && self.high.len() == c && self.low.iter().zip(self.high).all(|(l, h)| l < h);
        let limits = self.limits.len() == self.pictures.len() && self.limits.iter().all(|l| *l >= 0.0);
        if ranges && limits && self.places.iter().all(inside) {
            return Ok(());
        }
        Err(Error::settings("patches, limits and ranges do not suit the pictures"))
    }
}

/// A patch after its move.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    /// `[C, rows, columns]`, in the device's precision.
    pub pixels: Vec<f64>,
    /// Whether it was moved back towards the picture to satisfy its limit.
    pub shrunk: bool,
    /// Largest change of an output, computed in double precision.
    pub change: f64,
}

/// Adam (Kingma, Ba 2015) with its usual constants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ascent {
    /// Number of steps.
    pub iterations: usize,
    /// Step size.
    pub lr: f64,
}

/// Decay of both moments.
pub(crate) const BETA: [f64; 2] = [0.9, 0.999];
/// Added to the divisor.
pub(crate) const EPSILON: f64 = 1e-8;
/// The penalty's weight grows by this factor at a step that violates the constraint, from 1 up to the limit.
pub(crate) const PENALTY: [f64; 2] = [1.3, 1e6];
/// Pixels start at least this share of their range away from its ends, where the change of variable is flat.
pub(crate) const INSIDE: f64 = 1e-3;
/// Share of the limit that a move may use in the device's precision; the rest is for rounding.
pub(crate) const USED: f64 = 1.0 - 1e-4;
/// Halvings of the bisection.
pub(crate) const HALVINGS: usize = 24;

/// The pixels of one patch during optimisation: maximises `‖((x̃−x)s)⁺‖₁ − λ‖(|F(x̃)−F(x)|−ε)⁺‖₁` over `x̃ = low +
/// (high−low)·(1+tanh w)/2` by Adam on `w`.
///
/// At `x̃ = x` the first term's derivative is taken as 1, its right-hand limit; otherwise nothing would ever move.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    sign: f64,
    lr: f64,
    /// Half the range of each pixel.
    half: Vec<f64>,
    /// Difference between the pixel and its starting value; non-zero only at the ends of the range.
    offset: Vec<f64>,
    /// `tanh w` at the start.
    first: Vec<f64>,
    w: Vec<f64>,
    mean: Vec<f64>,
    square: Vec<f64>,
    /// `x̃ − x` so far.
    pub delta: Vec<f64>,
    penalty: f64,
    /// `βᵗ` for both moments.
    decay: [f64; 2],
}

impl Mover {
    /// Starts at `pixels` with the given ranges, one per pixel.
    pub fn new(pixels: &[f64], low: &[f64], high: &[f64], sign: f64, lr: f64) -> Self {
        let n = pixels.len();
        let mut mover = Self {
            sign,
            lr,
            half: low.iter().zip(high).map(|(l, h)| 0.5 * (h - l)).collect(),
            offset: Vec::with_capacity(n),
            first: Vec::with_capacity(n),
            w: Vec::with_capacity(n),
            mean: vec![0.0; n],
            square: vec![0.0; n],
            delta: Vec::with_capacity(n),
            penalty: 1.0,
            decay: [1.0; 2],
        };
        for (i, &x) in pixels.iter().enumerate() {
            let range = high[i] - low[i];
            let share = (x - low[i]) / range;
            let start = share.clamp(INSIDE, 1.0 - INSIDE);
            let offset = if start == share { 0.0 } else { low[i] + start * range - x };
            let y = 2.0 * start - 1.0;
            let w = 0.5 * log((1.0 + y) / (1.0 - y));
            mover.offset.push(offset);
            mover.w.push(w);
            mover.first.push(tanh(w));
            mover.delta.push(offset);
        }
        mover
    }

    /// One step, given the derivative of `‖(|F(x̃)−F(x)|−ε)⁺‖₁` with respect to each pixel and whether the norm is
    /// above 0.
    #[inline(always)]
    pub fn step(&mut self, gradient: &[f64], violated: bool) {
        self.decay = [self.decay[0] * BETA[0], self.decay[1] * BETA[1]];
        let correct = [1.0 / (1.0 - self.decay[0]), 1.0 / (1.0 - self.decay[1])];
        let n = self.w.len();
        let (w, mean, square, delta) =
            (&mut self.w[..n], &mut self.mean[..n], &mut self.square[..n], &mut self.delta[..n]);
        let (half, first, offset, gradient) = (&self.half[..n], &self.first[..n], &self.offset[..n], &gradient[..n]);
        for i in 0..n {
            let t = tanh(w[i]);
            let gain = if delta[i] * self.sign >= 0.0 { self.sign } else { 0.0 };
            let g = (self.penalty * gradient[i] - gain) * half[i] * (1.0 - t * t);
            mean[i] = BETA[0] * mean[i] + (1.0 - BETA[0]) * g;
            square[i] = BETA[1] * square[i] + (1.0 - BETA[1]) * g * g;
            w[i] -= self.lr * (mean[i] * correct[0]) / ((square[i] * correct[1]).sqrt() + EPSILON);
            delta[i] = offset[i] + half[i] * (tanh(w[i]) - first[i]);
        }
        if violated {
            self.penalty = (self.penalty * PENALTY[0]).min(PENALTY[1]);
        }
    }
}

/// Hyperbolic tangent accurate to 1e-15, with the same bits on every machine, in code that the compiler can vectorise.
#[inline(always)]
fn tanh(x: f64) -> f64 {
    // 1.5·2^52: adding it rounds to the nearest integer, which is then in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    // Beyond 20 the result is ±1 in double precision.
    let x = 2.0 * x.clamp(-20.0, 20.0);
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = (x - k * LN2[0]) - k * LN2[1];
    let mut p = 1.0 / 6_227_020_800.0;
    for c in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    let e = p * f64::from_bits((rounded.to_bits() << 52).wrapping_add(1023 << 52));
    (e - 1.0) / (e + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tangent_is_accurate() {
        for i in -5000..=5000 {
            let x = f64::from(i) * 0.0051;
            let d = (tanh(x) - x.tanh()).abs();
            assert!(d <= 1e-15, "tanh({x}): error {d:e}");
        }
    }

    /// Without a constraint, pixels move to the end of their range; under a constraint that is active only there, they
    /// turn back.
    #[test]
    fn pixels_go_where_they_are_sent() {
        for sign in [1.0, -1.0] {
            let mut mover = Mover::new(&[0.2, -2.0, 3.0], &[-2.0; 3], &[3.0; 3], sign, 0.1);
            assert_eq!(mover.delta[0], 0.0, "a pixel inside its range starts where it is");
            for _ in 0..60 {
                mover.step(&[0.0; 3], false);
            }
            assert!(mover.delta[0] * sign > 1.5, "{:?}", mover.delta);
            let there = mover.delta.clone();
            for _ in 0..60 {
                mover.step(&[10.0 * sign; 3], true);
            }
            assert!(mover.delta[0] * sign < there[0] * sign, "{:?}", mover.delta);
        }
    }
}
