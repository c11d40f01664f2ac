//! Scalar functions between layers: everything that rules and devices need to know about them.

use crate::error::{Error, Result};

/// An activation as backward rules see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `min(max(x, lo), hi)`; an infinite end means no bound. Whether an input is inside is a decision.
    Clamp {
        /// Lower bound.
        lo: f64,
        /// Upper bound.
        hi: f64,
    },
    /// A function that is differentiable everywhere, so there are no decisions.
    Smooth(Smooth),
}

impl Activation {
    /// Lower and upper bound of its values; infinite where there is none.
    pub const fn bounds(self) -> [f64; 2] {
        match self {
            Activation::Clamp { lo, hi } | Activation::Smooth(Smooth::SoftClamp(SoftClamp { lo, hi, .. })) => [lo, hi],
        }
    }

    /// Whether it never decreases, i.e. its slope is never negative. Rules that cut signals by their sign rely on it.
    pub const fn rises(self) -> bool {
        match self {
            Activation::Clamp { .. } | Activation::Smooth(Smooth::SoftClamp(_)) => true,
        }
    }
}

/// A function that is differentiable everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Smooth {
    /// A clamp with rounded corners: `Graph::softened` replaces ReLUs and clamps by it.
    SoftClamp(SoftClamp),
}

impl Smooth {
    /// Its value at `x`.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Smooth::SoftClamp(soft) => soft.value(x),
        }
    }

    /// Its derivative at `x`.
    pub fn slope(self, x: f64) -> f64 {
        match self {
            Smooth::SoftClamp(soft) => soft.slope(x),
        }
    }

    /// Lower-case names of the function and of its derivative.
    pub const fn names(self) -> [&'static str; 2] {
        match self {
            Smooth::SoftClamp(_) => ["soft_clamp", "soft_clamp_slope"],
        }
    }

    /// Refuses parameters for which the function does not exist.
    pub(super) fn checked(self) -> Result<Self> {
        match self {
            Smooth::SoftClamp(SoftClamp { lo, hi, beta }) if !(lo < hi && beta > 0.0 && beta.is_finite()) => {
                Err(Error::model(format!("a soft clamp to [{lo}, {hi}] of sharpness {beta}")))
            }
            Smooth::SoftClamp(_) => Ok(self),
        }
    }

    /// Its parameters, in the order in which kernels take them; padded with zeros.
    pub const fn parameters(self) -> [f64; 3] {
        match self {
            Smooth::SoftClamp(SoftClamp { lo, hi, beta }) => [lo, hi, beta],
        }
    }
}

/// A clamp with rounded corners: `lo + s(x − lo) − s(x − hi)` with softplus `s(t) = ln(1 + exp(β t)) / β`. With `lo =
/// 0` and no upper bound it is softplus itself, with `hi = 6` a soft ReLU6; it differs from the clamp by at most `ln 2
/// / β`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftClamp {
    /// Lower bound; −∞ for none.
    pub lo: f64,
    /// Upper bound; ∞ for none.
    pub hi: f64,
    /// Sharpness: the larger, the closer to the clamp.
    pub beta: f64,
}

impl SoftClamp {
    /// Its value at `x`.
    pub fn value(&self, x: f64) -> f64 {
        let softplus = |t: f64| t.max(0.0) + (-self.beta * t.abs()).exp().ln_1p() / self.beta;
        let risen = if self.lo.is_finite() { self.lo + softplus(x - self.lo) } else { x };
        if self.hi.is_finite() { risen - softplus(x - self.hi) } else { risen }
    }

    /// Its derivative at `x`.
    pub fn slope(&self, x: f64) -> f64 {
        let sigmoid = |t: f64| 1.0 / (1.0 + (-self.beta * t).exp());
        let rising = if self.lo.is_finite() { sigmoid(x - self.lo) } else { 1.0 };
        if self.hi.is_finite() { rising - sigmoid(x - self.hi) } else { rising }
    }
}

#[cfg(test)]
impl Smooth {
    /// Examples of every kind.
    pub(crate) fn examples() -> Vec<Self> {
        let soft = |lo, hi| Smooth::SoftClamp(SoftClamp { lo, hi, beta: 3.0 });
        // Here, so that a new kind does not compile until it is in the list.
        match soft(0.0, 6.0) {
            Smooth::SoftClamp(_) => {}
        }
        vec![soft(0.0, f64::INFINITY), soft(0.0, 6.0), soft(-1.5, 2.0), soft(f64::NEG_INFINITY, 1.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_smooth_functions_holds() {
        for f in Smooth::examples() {
            assert_eq!(f.checked().unwrap(), f);
            let [lo, hi] = Activation::Smooth(f).bounds();
            let mut rises = true;
            for x in (-800..=800).map(|i| f64::from(i) / 40.0) {
                let h = 1e-5;
                let slope = (f.value(x + h) - f.value(x - h)) / (2.0 * h);
                assert!((f.slope(x) - slope).abs() <= 1e-8, "{f:?} at {x}: {} for {slope}", f.slope(x));
                let value = f.value(x);
                assert!(lo - 1e-12 <= value && value <= hi + 1e-12, "{f:?} at {x}: {value}");
                rises &= f.slope(x) >= 0.0;
            }
            assert_eq!(Activation::Smooth(f).rises(), rises, "{f:?}");
        }
    }
}
