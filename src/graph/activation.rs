//! Scalar functions between layers: everything that rules and devices need to know about them.
//!
//! A function is one entry of the table in [`Smooth::visit`], and two kernels of its names in `kernels/smooth.cu`.

use crate::error::{Error, Result};
use crate::tensor::functions::{
    Elementary, clamped, exp, expm1, log, normal, power, sigmoid, sigmoid_slope, sigmoids, softplus, tanh,
};

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
    /// Inputs below 0 are multiplied by their channel's slope. Whether an input is above 0 is a decision.
    PRelu {
        /// The smallest slope.
        least: f64,
        /// The largest slope.
        most: f64,
    },
    /// Any other function. Its slope is computed from its input; no decision is recorded.
    Smooth(Smooth),
}

impl Activation {
    /// Lower and upper bound of its values; infinite where there is none.
    pub fn bounds(self) -> [f64; 2] {
        match self {
            Activation::Clamp { lo, hi } => [lo, hi],
            Activation::PRelu { most, .. } => [if most > 0.0 { f64::NEG_INFINITY } else { 0.0 }, f64::INFINITY],
            Activation::Smooth(f) => f.facts().bounds,
        }
    }

    /// Whether it never decreases, i.e. its slope is never negative.
    pub const fn rises(self) -> bool {
        match self {
            Activation::Clamp { .. }
            | Activation::Smooth(
                Smooth::SoftClamp(_)
                | Smooth::Sigmoid
                | Smooth::HardSigmoid
                | Smooth::Tanh
                | Smooth::Elu { .. }
                | Smooth::Exp
                | Smooth::Log,
            ) => true,
            Activation::PRelu { least: slope, .. } | Activation::Smooth(Smooth::LeakyRelu { slope }) => slope >= 0.0,
            // At a low threshold it falls visibly from ln(1 + eᵗ) to t.
            Activation::Smooth(Smooth::Softplus { threshold, .. }) => threshold >= STEEP,
            Activation::Smooth(Smooth::Power { exponent }) => exponent > 0.0 && exponent % 2.0 != 0.0,
            Activation::Smooth(Smooth::Silu | Smooth::HardSwish | Smooth::Gelu | Smooth::GeluTanh | Smooth::Abs) => {
                false
            }
        }
    }

    /// The range of its values on inputs from `low` to `high`.
    pub(crate) fn range(self, [low, high]: [f64; 2]) -> [f64; 2] {
        let f = match self {
            Activation::Clamp { lo, hi } => return [low, high].map(|x| x.max(lo).min(hi)),
            Activation::PRelu { least, most } => {
                let all = [low, high].map(|x| if x > 0.0 { [x; 2] } else { [least * x, most * x] });
                let all = all.as_flattened().iter().filter(|v| !v.is_nan());
                return all.fold([0.0; 2], |[low, high]: [f64; 2], v| [low.min(*v), high.max(*v)]);
            }
            Activation::Smooth(f) => f,
        };
        let [least, most] = self.bounds();
        // At −∞ a function that rises has its least value, which some formulas do not give. A NaN shows in the results,
        // so it needs no bound.
        let value = |x: f64| match f.value(x) {
            _ if x == f64::NEG_INFINITY && self.rises() => least,
            v if v.is_nan() => f.value(0.0),
            v => v,
        };
        let [first, last] = [low, high].map(value);
        let last = if most.is_finite() { most } else { last };
        let pole = if low <= 0.0 && high >= 0.0 { f.value(0.0) } else { first };
        match f {
            _ if self.rises() => [first, last],
            Smooth::Power { exponent } if exponent < 0.0 && pole.is_finite() => [first.min(last), first.max(last)],
            _ => [least, first.max(last).max(pole)],
        }
    }

    /// Whether its value at −∞, and at ∞, is finite.
    pub(crate) fn hides(self) -> [bool; 2] {
        match self {
            Activation::Clamp { lo, hi } => [lo.is_finite(), hi.is_finite()],
            Activation::PRelu { .. } => [false; 2],
            Activation::Smooth(f) => [f64::NEG_INFINITY, f64::INFINITY].map(|x| f.value(x).is_finite()),
        }
    }
}

/// A function of one number whose slope is computed from its input. Where it has a corner, its slope is PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Smooth {
    /// A clamp with rounded corners: `Graph::softened` replaces ReLUs and clamps by it.
    SoftClamp(SoftClamp),
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x · sigmoid(x)` (swish).
    Silu,
    /// `min(max(x + 3, 0), 6) / 6`; slope 0 at the corners.
    HardSigmoid,
    /// `x · hard_sigmoid(x)`; slope 0 at −3 and 1 at 3.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x · P(Z ≤ x)` for a standard normal Z, which is `x (1 + erf(x / √2)) / 2`.
    Gelu,
    /// GELU by `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
    GeluTanh,
    /// `x` above 0, `slope · x` from 0 down.
    LeakyRelu {
        /// Slope at and below 0.
        slope: f64,
    },
    /// `x` above 0, `alpha (eˣ − 1)` from 0 down.
    Elu {
        /// Slope at 0, and how far below 0 values get.
        alpha: f64,
    },
    /// `ln(1 + e^(beta x)) / beta`; `x` itself where `beta x` exceeds the threshold.
    Softplus {
        /// Sharpness.
        beta: f64,
        /// Beyond it the function is `x`.
        threshold: f64,
    },
    /// `eˣ`.
    Exp,
    /// Natural logarithm. There is none of 0 and of negative numbers: a run in which it meets one fails.
    Log,
    /// `|x|`; slope 0 at 0.
    Abs,
    /// `x` to the power `exponent`. Of a negative number: that of its magnitude if the exponent is whole, with its sign if
    /// that is odd. There is none of 0 to a negative power, and none of a negative number if the exponent is not whole:
    /// a run that meets one fails. The slope at 0 is 0 for exponents between 0 and 1, where it is infinite, so that a norm
    /// has the gradient 0 at 0.
    Power {
        /// Not 0, and at most 1000 in magnitude.
        exponent: f64,
    },
}

/// Properties of a function.
pub(crate) struct Facts {
    /// Lower-case names of the function and of its derivative.
    pub names: [&'static str; 2],
    /// Its parameters with their names, in the order in which kernels take them; an empty name marks an unused slot.
    pub parameters: [(&'static str, f64); 3],
    /// Whether the parameters make sense.
    pub sound: bool,
    /// Lower and upper bound of its values.
    pub bounds: [f64; 2],
    /// Whether its value at 0 is 0, in every precision.
    pub keeps_zero: bool,
    /// Whether its slope jumps somewhere.
    pub corners: bool,
}

/// Code that is compiled once for each function, in one precision.
pub(crate) trait Visitor<T> {
    /// The result.
    type Out;
    /// Does it, with the function's value and slope.
    fn visit(self, facts: Facts, value: impl Fn(T) -> T, slope: impl Fn(T) -> T) -> Self::Out;
}

/// No parameter.
const NONE: (&str, f64) = ("", 0.0);
/// No bound.
const FREE: f64 = f64::INFINITY;
/// Thresholds of a softplus from which on its jump there is below a millionth.
const STEEP: f64 = 15.0;
/// `1 / √(2π)`.
const PEAK: f64 = 0.398_942_280_401_432_7;
/// `√(2/π)`.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// Coefficient of GELU's cubic term.
const GELU_CUBE: f64 = 0.044_715;

impl Smooth {
    /// Does something with the function. This is the table of all functions.
    #[inline(always)]
    pub(crate) fn visit<T: Elementary, V: Visitor<T>>(self, v: V) -> V::Out {
        let of = T::from_f64;
        let (zero, one) = (T::ZERO, of(1.0));
        let facts = |names, parameters, bounds, keeps_zero| Facts {
            names,
            parameters,
            sound: true,
            bounds,
            keeps_zero,
            corners: false,
        };
        match self {
            Smooth::SoftClamp(SoftClamp { lo, hi, beta }) => {
                let parameters = [("lo", lo), ("hi", hi), ("beta", beta)];
                let sound = lo < hi && beta > 0.0 && beta.is_finite();
                let facts = facts(["soft_clamp", "soft_clamp_slope"], parameters, [lo, hi], false);
                let [rises, ends] = [lo.is_finite(), hi.is_finite()];
                let [lo, hi, beta] = [lo, hi, beta].map(of);
                let value = move |x: T| {
                    let risen = if rises { lo + softplus(x - lo, beta) } else { x };
                    if ends { risen - softplus(x - hi, beta) } else { risen }
                };
                let slope = move |x: T| {
                    let [low, low_rest] = if rises { sigmoids(beta * (x - lo)) } else { [one, zero] };
                    let [high, high_rest] = if ends { sigmoids(beta * (x - hi)) } else { [zero, one] };
                    // Above the upper end both are nearly 1: what they lack is subtracted.
                    if high > low_rest { high_rest - low_rest } else { low - high }
                };
                v.visit(Facts { sound, ..facts }, value, slope)
            }
            Smooth::Sigmoid => {
                let facts = facts(["sigmoid", "sigmoid_slope"], [NONE; 3], [0.0, 1.0], false);
                v.visit(facts, sigmoid, sigmoid_slope)
            }
            Smooth::Silu => {
                let facts = facts(["silu", "silu_slope"], [NONE; 3], [-0.278_464_542_761_074, FREE], true);
                let slope = move |x: T| {
                    let [s, rest] = sigmoids(x);
                    s * (one + x * rest)
                };
                v.visit(facts, |x| x * sigmoid(x), slope)
            }
            Smooth::HardSigmoid => {
                let facts = facts(["hard_sigmoid", "hard_sigmoid_slope"], [NONE; 3], [0.0, 1.0], false);
                let slope = move |x: T| if x > of(-3.0) && x < of(3.0) { one / of(6.0) } else { zero };
                v.visit(Facts { corners: true, ..facts }, hard_sigmoid, slope)
            }
            Smooth::HardSwish => {
                let facts = facts(["hard_swish", "hard_swish_slope"], [NONE; 3], [-0.375, FREE], true);
                let slope = move |x: T| {
                    let rising = if x > of(-3.0) { x / of(3.0) + of(0.5) } else { zero };
                    if x < of(3.0) { rising } else { one }
                };
                v.visit(Facts { corners: true, ..facts }, |x| x * hard_sigmoid(x), slope)
            }
            Smooth::Tanh => {
                let facts = facts(["tanh", "tanh_slope"], [NONE; 3], [-1.0, 1.0], true);
                v.visit(facts, tanh, move |x: T| of(4.0) * sigmoid_slope(x + x))
            }
            Smooth::Gelu => {
                let facts = facts(["gelu", "gelu_slope"], [NONE; 3], [-0.169_971_207_479_904, FREE], true);
                let slope = move |x: T| {
                    let [below, bell] = normal(x);
                    below + x * (of(PEAK) * bell)
                };
                v.visit(facts, |x| x * normal(x)[0], slope)
            }
            Smooth::GeluTanh => {
                let names = ["gelu_tanh", "gelu_tanh_slope"];
                let facts = facts(names, [NONE; 3], [-0.170_040_750_571_5, FREE], true);
                // (1 + tanh u) / 2 = sigmoid(2u); beyond 40 the slope is 0 or 1, and nothing overflows.
                let twice = move |x: T| of(2.0 * GELU_SCALE) * (x + of(GELU_CUBE) * (x * x * x));
                let slope = move |x: T| {
                    let x = clamped(x, of(-40.0), of(40.0));
                    let inner = of(2.0 * GELU_SCALE) * (one + of(3.0 * GELU_CUBE) * (x * x));
                    sigmoid(twice(x)) + x * (inner * sigmoid_slope(twice(x)))
                };
                v.visit(facts, move |x| x * sigmoid(twice(x)), slope)
            }
            Smooth::LeakyRelu { slope } => {
                let low = if slope > 0.0 { -FREE } else { 0.0 };
                let names = ["leaky_relu", "leaky_relu_slope"];
                let facts = facts(names, [("slope", slope), NONE, NONE], [low, FREE], true);
                let (sound, corners) = (slope.is_finite(), slope != 1.0);
                let slope = of(slope);
                let value = move |x: T| if x > zero { x } else { slope * x };
                v.visit(Facts { sound, corners, ..facts }, value, move |x| if x > zero { one } else { slope })
            }
            Smooth::Elu { alpha } => {
                let facts = facts(["elu", "elu_slope"], [("alpha", alpha), NONE, NONE], [-alpha, FREE], true);
                let (sound, corners) = (alpha >= 0.0 && alpha.is_finite(), alpha != 1.0);
                let alpha = of(alpha);
                let value = move |x: T| if x > zero { x } else { alpha * expm1(x) };
                v.visit(Facts { sound, corners, ..facts }, value, move |x| if x > zero { one } else { alpha * exp(x) })
            }
            Smooth::Softplus { beta, threshold } => {
                let parameters = [("beta", beta), ("threshold", threshold), NONE];
                let sound = beta > 0.0 && beta.is_finite() && threshold > 0.0;
                let facts = facts(["softplus", "softplus_slope"], parameters, [0.0, FREE], false);
                let facts = Facts { corners: threshold < STEEP, ..facts };
                let [beta, threshold] = [beta, threshold].map(of);
                let value = move |x: T| if beta * x > threshold { x } else { softplus(x, beta) };
                let slope = move |x: T| if beta * x > threshold { one } else { sigmoid(beta * x) };
                v.visit(Facts { sound, ..facts }, value, slope)
            }
            Smooth::Exp => v.visit(facts(["exp", "exp_slope"], [NONE; 3], [0.0, FREE], false), exp, exp),
            Smooth::Log => {
                let facts = facts(["log", "log_slope"], [NONE; 3], [-FREE, FREE], false);
                v.visit(facts, log, move |x| one / x)
            }
            Smooth::Abs => {
                let facts = facts(["abs", "abs_slope"], [NONE; 3], [0.0, FREE], true);
                let sign = move |x: T| if x < zero { zero - one } else { zero };
                let value = move |x: T| if x > zero { x } else { zero - x };
                v.visit(Facts { corners: true, ..facts }, value, move |x| if x > zero { one } else { sign(x) })
            }
            Smooth::Power { exponent } => {
                let odd = exponent % 1.0 == 0.0 && exponent % 2.0 != 0.0;
                let bounds = [if odd { -FREE } else { 0.0 }, FREE];
                let parameters = [("exponent", exponent), NONE, NONE];
                let facts = facts(["power", "power_slope"], parameters, bounds, exponent > 0.0);
                let facts = Facts { sound: exponent != 0.0 && exponent.abs() <= 1000.0, ..facts };
                powers(exponent, facts, v)
            }
        }
    }

    /// Its properties.
    pub(crate) fn facts(self) -> Facts {
        struct Known;
        impl Visitor<f64> for Known {
            type Out = Facts;
            fn visit(self, facts: Facts, _: impl Fn(f64) -> f64, _: impl Fn(f64) -> f64) -> Facts {
                facts
            }
        }
        self.visit(Known)
    }

    /// Its value and its derivative at `x`.
    pub(crate) fn at<T: Elementary>(self, x: T) -> [T; 2] {
        struct At<T>(T);
        impl<T: Elementary> Visitor<T> for At<T> {
            type Out = [T; 2];
            fn visit(self, _: Facts, value: impl Fn(T) -> T, slope: impl Fn(T) -> T) -> [T; 2] {
                [value(self.0), slope(self.0)]
            }
        }
        self.visit(At(x))
    }

    /// Its value at `x`.
    pub fn value(self, x: f64) -> f64 {
        self.at(x)[0]
    }

    /// Its derivative at `x`.
    pub fn slope(self, x: f64) -> f64 {
        self.at(x)[1]
    }

    /// Lower-case names of the function and of its derivative.
    pub fn names(self) -> [&'static str; 2] {
        self.facts().names
    }

    /// Its parameters, in the order in which kernels take them; padded with zeros.
    pub fn parameters(self) -> [f64; 3] {
        self.facts().parameters.map(|(_, value)| value)
    }

    /// The names and values of its parameters.
    pub fn named_parameters(self) -> impl Iterator<Item = (&'static str, f64)> {
        self.facts().parameters.into_iter().filter(|(name, _)| !name.is_empty())
    }

    /// Refuses parameters for which the function does not exist.
    pub(crate) fn checked(self) -> Result<Self> {
        if self.facts().sound {
            return Ok(self);
        }
        let given: Vec<String> = self.named_parameters().map(|(name, value)| format!("{name} {value}")).collect();
        Err(Error::model(format!("there is no {} with {}", self.names()[0], given.join(", "))))
    }

    /// Examples of every kind, with usual parameters.
    pub fn examples() -> Vec<Self> {
        let soft = |lo, hi| Smooth::SoftClamp(SoftClamp { lo, hi, beta: 3.0 });
        vec![
            soft(0.0, f64::INFINITY),
            soft(0.0, 6.0),
            soft(-1.5, 2.0),
            soft(f64::NEG_INFINITY, 1.0),
            Smooth::Sigmoid,
            Smooth::Silu,
            Smooth::HardSigmoid,
            Smooth::HardSwish,
            Smooth::Tanh,
            Smooth::Gelu,
            Smooth::GeluTanh,
            Smooth::LeakyRelu { slope: 0.125 },
            Smooth::LeakyRelu { slope: -0.5 },
            Smooth::Elu { alpha: 1.0 },
            Smooth::Elu { alpha: 0.75 },
            Smooth::Softplus { beta: 1.0, threshold: 20.0 },
            Smooth::Softplus { beta: 2.5, threshold: f64::INFINITY },
            Smooth::Exp,
            Smooth::Log,
            Smooth::Abs,
        ]
        .into_iter()
        .chain([2.0, 3.0, -1.0, 0.5, -0.5, 0.25, 0.75, 1.3, -2.5, 5.0].map(|exponent| Smooth::Power { exponent }))
        .collect()
    }
}

/// Does something with a power. Usual exponents are products, roots and quotients, which are exact to the last digits; each
/// has its own text, so that loops become vector code.
#[inline(always)]
fn powers<T: Elementary, V: Visitor<T>>(exponent: f64, facts: Facts, v: V) -> V::Out {
    let of = T::from_f64;
    let one = of(1.0);
    // Where the slope at 0 is infinite.
    let flat = |x: T, slope: T| if x == T::ZERO { x } else { slope };
    if exponent == 1.0 {
        v.visit(facts, |x| x, move |_| one)
    } else if exponent == 2.0 {
        v.visit(facts, |x| x * x, |x| x + x)
    } else if exponent == 3.0 {
        v.visit(facts, |x| x * x * x, move |x| of(3.0) * (x * x))
    } else if exponent == -1.0 {
        v.visit(facts, move |x| one / x, move |x| of(-1.0) / x / x)
    } else if exponent == 0.5 {
        v.visit(facts, T::sqrt, move |x| flat(x, of(0.5) / x.sqrt()))
    } else if exponent == -0.5 {
        v.visit(facts, move |x| one / x.sqrt(), move |x| of(-0.5) / x / x.sqrt())
    } else if exponent == 0.25 {
        let slope = move |x: T| flat(x, of(0.25) / (x.sqrt() * x.sqrt().sqrt()));
        v.visit(facts, |x: T| x.sqrt().sqrt(), slope)
    } else if exponent == 0.75 {
        let slope = move |x: T| flat(x, of(0.75) / x.sqrt().sqrt());
        v.visit(facts, |x: T| x.sqrt() * x.sqrt().sqrt(), slope)
    } else {
        let slope = move |x: T| of(exponent) * power(x, exponent - 1.0);
        let slope = move |x: T| if exponent > 0.0 && exponent < 1.0 { flat(x, slope(x)) } else { slope(x) };
        v.visit(facts, move |x| power(x, exponent), slope)
    }
}

/// `min(max(x + 3, 0), 6) / 6`.
#[inline(always)]
fn hard_sigmoid<T: Elementary>(x: T) -> T {
    clamped(x + T::from_f64(3.0), T::ZERO, T::from_f64(6.0)) / T::from_f64(6.0)
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
        Smooth::SoftClamp(*self).value(x)
    }

    /// Its derivative at `x`.
    pub fn slope(&self, x: f64) -> f64 {
        Smooth::SoftClamp(*self).slope(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether its slope has no bound.
    fn is_wild(f: Smooth) -> bool {
        matches!(f, Smooth::Exp | Smooth::Log | Smooth::Power { .. })
    }

    #[test]
    fn what_is_said_of_functions_holds() {
        for f in Smooth::examples() {
            assert_eq!(f.checked().unwrap(), f);
            let facts = f.facts();
            let [mut least, mut most] = [f64::INFINITY, f64::NEG_INFINITY];
            let wild = is_wild(f);
            let far = [-1e9, 1e-16, 1e9].into_iter().filter(|_| wild);
            for x in (-8000..=8000).map(|i| f64::from(i) / 400.0 + 1e-3).chain(far) {
                if wild && !f.value(x).is_finite() {
                    // Only positive numbers have a logarithm, a root; and e to the power 1e9 is beyond all numbers.
                    assert!(f == Smooth::Exp || x < 0.0, "{f:?} at {x}");
                    continue;
                }
                let h = if wild { 1e-4 * x.abs() } else { 1e-5 };
                let slope = (f.value(x + h) - f.value(x - h)) / (2.0 * h);
                let within = if wild { 1e-6 * (slope.abs() + (f.value(x) / x).abs()) } else { 1e-8 };
                assert!((f.slope(x) - slope).abs() <= within, "{f:?} at {x}: {} for {slope}", f.slope(x));
                (least, most) = (least.min(f.value(x)), most.max(f.value(x)));
                for ends in [[x, x], [x, x.abs() + 1.0], [-x.abs(), x.abs()], [f64::NEG_INFINITY, f64::INFINITY]] {
                    let [low, high] = Activation::Smooth(f).range(ends);
                    let slack = 1e-12 * f.value(x).abs() + 1e-15;
                    let within = low - slack <= f.value(x) && f.value(x) <= high + slack;
                    assert!(within, "{f:?} at {x}: not within {low} to {high}");
                }
            }
            let [lo, hi] = facts.bounds;
            assert!(lo - 1e-12 <= least && most <= hi + 1e-12, "{f:?}: {least} to {most}");
            // Bounds are met: otherwise rules would take less for granted than they may.
            assert!(lo.is_infinite() || least <= lo + 1e-3, "{f:?}: {least} for {lo}");
            assert!(hi.is_infinite() || most >= hi - 1e-3, "{f:?}: {most} for {hi}");
            assert!(!facts.keeps_zero || (f.value(0.0), f.at(0.0f32)[0]) == (0.0, 0.0), "{f:?}");
        }
    }

    #[test]
    fn far_numbers_and_nan_stay_what_they_are() {
        for f in Smooth::examples() {
            assert!(f.at(f32::NAN)[0].is_nan(), "{f:?}");
            // A slope without a bound has no end far away either.
            if is_wild(f) {
                continue;
            }
            let [lo, hi] = f.facts().bounds;
            for x in [3e38f32, 1e30, 1e20, 1e9, 3000.0] {
                for (x, end) in [(x, hi), (-x, lo)] {
                    let [value, slope] = f.at(x);
                    assert!(value.is_finite() && slope.is_finite(), "{f:?} at {x}: {value}, {slope}");
                    assert!(!end.is_finite() || slope == 0.0 || value > 1.0, "{f:?} at {x}: slope {slope}");
                }
            }
        }
    }

    /// Where a power's slope is infinite it is 0 by convention, so that a norm has the gradient 0 at 0.
    #[test]
    fn powers_at_zero() {
        for exponent in [0.25, 0.5, 0.75, 0.1, 1.3, 2.0, 3.0, 5.0] {
            assert_eq!(Smooth::Power { exponent }.at(0.0f32), [0.0; 2], "{exponent}");
            assert_eq!(Smooth::Power { exponent }.at(0.0f64), [0.0; 2], "{exponent}");
        }
        assert_eq!(Smooth::Power { exponent: 1.0 }.at(0.0f64), [0.0, 1.0]);
        assert_eq!(Smooth::Power { exponent: -3.0 }.at(-2.0f64), [-0.125, -0.1875]);
        for (f, x) in [(Smooth::Log, 0.0), (Smooth::Log, -1.0), (Smooth::Power { exponent: -2.5 }, 0.0)] {
            assert!(!f.value(x).is_finite(), "{f:?}");
        }
    }

    #[test]
    fn parameters_without_a_meaning_are_refused() {
        let soft = |lo, hi, beta| Smooth::SoftClamp(SoftClamp { lo, hi, beta });
        for f in [
            soft(1.0, 1.0, 2.0),
            soft(0.0, 6.0, 0.0),
            soft(0.0, f64::NAN, 1.0),
            Smooth::LeakyRelu { slope: f64::NAN },
            Smooth::LeakyRelu { slope: f64::INFINITY },
            Smooth::Elu { alpha: -1.0 },
            Smooth::Elu { alpha: f64::INFINITY },
            Smooth::Softplus { beta: 0.0, threshold: 20.0 },
            Smooth::Softplus { beta: -1.0, threshold: 20.0 },
            Smooth::Softplus { beta: 1.0, threshold: f64::NAN },
            Smooth::Softplus { beta: 1.0, threshold: 0.0 },
            Smooth::Power { exponent: 0.0 },
            Smooth::Power { exponent: f64::NAN },
            Smooth::Power { exponent: f64::INFINITY },
        ] {
            let why = f.checked().unwrap_err().to_string();
            assert!(why.contains(f.names()[0]), "{why}");
        }
    }
}
