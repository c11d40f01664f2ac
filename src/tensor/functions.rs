//! Exponential, logarithm, powers, hyperbolic tangent and normal distribution, by polynomials of this project's own.
//!
//! They use only operations that IEEE 754 rounds correctly (`+ − × ÷`) and moves of bits, so that a result has the same
//! bits on every machine and instruction set: no library of the platform is called and nothing is contracted. There
//! are no branches, only choices between two numbers, so that loops over them become vector code. The same text for
//! GPUs is `kernels/functions.cuh`. `tests/golden/functions` has the scripts for the coefficients and for the table of
//! correctly rounded values.
//!
//! Errors are at most a few units in the last place over the whole range, with overflow to ∞, underflow through
//! subnormal numbers to 0, and NaN for NaN.

use super::Scalar;

/// A number type for which the functions are defined: its polynomials and its layout.
pub(crate) trait Elementary: Scalar {
    /// `(eʳ − 1 − r) / r²` for `|r| ≤ ln 2 / 2`, the constant first.
    const EXP: &'static [Self];
    /// `(2 atanh(s) / s − 2) / s²` in `s²`, for `(1 + s) / (1 − s)` from √½ to √2.
    const LOG: &'static [Self];
    /// `e^(x²/2) P(Z > x) / u` in `t = 2u − 1`, with `u = 4 / (4 + x)`.
    const NORMAL: &'static [Self];
    /// 1.5 times the number from which on all numbers are whole: added and subtracted, it rounds to a whole number.
    const WHOLE: Self;
    /// ln 2 with so few bits that products with exponents are exact, and the rest.
    const LN_2: [Self; 2];
    /// `eˣ` is 0 below and ∞ above.
    const EXP_RANGE: [Self; 2];
    /// `P(Z > x)` is 0 above.
    const NORMAL_END: Self;
    /// The smallest normal number.
    const TINY: Self;
    /// A power of two that makes subnormal numbers normal, and its exponent.
    const LIFT: [Self; 2];

    /// `2ⁿ` for a whole `n` whose power is a normal number; another number for other `n`.
    fn power_of_two(n: Self) -> Self;
    /// `(k, m)` with `self = 2ᵏ m` and m from √½ to √2, for positive normal numbers; other numbers for others.
    fn exponent_and_rest(self) -> (Self, Self);
    /// The number without the lower half of its bits, so that its square is exact.
    fn upper(self) -> Self;
}

macro_rules! layout {
    ($mantissa:literal, $bias:literal, $root_of_half:literal, $lower:literal) => {
        #[inline(always)]
        fn power_of_two(n: Self) -> Self {
            // The last bits of the sum are n.
            Self::from_bits((n + Self::WHOLE).to_bits().wrapping_add($bias) << $mantissa)
        }
        #[inline(always)]
        fn exponent_and_rest(self) -> (Self, Self) {
            let moved = self.to_bits().wrapping_add(($bias << $mantissa) - $root_of_half);
            let exponent = Self::from_bits(Self::WHOLE.to_bits().wrapping_add(moved >> $mantissa));
            let rest = Self::from_bits((moved & ((1 << $mantissa) - 1)).wrapping_add($root_of_half));
            (exponent - (Self::WHOLE + $bias as Self), rest)
        }
        #[inline(always)]
        fn upper(self) -> Self {
            Self::from_bits(self.to_bits() & !$lower)
        }
    };
}

impl Elementary for f32 {
    const EXP: &'static [f32] = &[5.0e-01, 1.6666667e-01, 4.1666464e-02, 8.3333108e-03, 1.3933751e-03, 1.9891103e-04];
    const LOG: &'static [f32] = &[6.6666685e-01, 3.998876e-01, 2.9580986e-01];
    const NORMAL: &'static [f32] = &[
        1.8882128e-01,
        1.5197415e-01,
        9.678417e-02,
        4.663075e-02,
        1.5101617e-02,
        1.881_803_3e-3,
        -8.808935e-04,
        -3.9232841e-04,
        4.870046e-05,
        3.074579e-05,
    ];
    const WHOLE: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const EXP_RANGE: [f32; 2] = [-104.0, 89.0];
    const NORMAL_END: f32 = 14.5;
    const TINY: f32 = f32::MIN_POSITIVE;
    const LIFT: [f32; 2] = [33_554_432.0, 25.0];

    layout!(23, 127, 0x3f35_04f3, 0xfff);
}

impl Elementary for f64 {
    const EXP: &'static [f64] = &[
        5.0e-01,
        1.666666666666667e-01,
        4.166666666666667e-02,
        8.33333333332607e-03,
        1.3888888888883703e-03,
        1.9841269875048905e-04,
        2.480158732571076e-05,
        2.755725511097889e-06,
        2.755727343657049e-07,
        2.510533724466521e-08,
        2.091477283224809e-09,
    ];
    const LOG: &'static [f64] = &[
        6.66666666666667e-01,
        3.999999999989889e-01,
        2.8571428626253836e-01,
        2.2222211089379496e-01,
        1.818289243253687e-01,
        1.5331611722055008e-01,
        1.4617807153417325e-01,
    ];
    const NORMAL: &'static [f64] = &[
        1.8882128260393788e-01,
        1.5197416049297302e-01,
        9.678435018555363e-02,
        4.66304644899143e-02,
        1.509914372273405e-02,
        1.8850472416821929e-03,
        -8.699230918468313e-04,
        -4.077046144052744e-04,
        3.333607808958295e-05,
        5.777373386435065e-05,
        -4.770645707838708e-07,
        -8.786171892533634e-06,
        1.7916653979101183e-07,
        1.480044560419998e-06,
        -1.5742450075770581e-07,
        -2.553909553803136e-07,
        6.79526276275889e-08,
        3.874404775589417e-08,
        -2.1354712612921537e-08,
        -3.32173485639176e-09,
        4.9071383668087435e-09,
        -4.795527311181672e-10,
        -6.312946754417929e-10,
        1.8180346310882533e-10,
    ];
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    const EXP_RANGE: [f64; 2] = [-746.0, 710.0];
    const NORMAL_END: f64 = 38.7;
    const TINY: f64 = f64::MIN_POSITIVE;
    const LIFT: [f64; 2] = [18_014_398_509_481_984.0, 54.0];

    layout!(52, 1023, 0x3fe6_a09e_667f_3bcd, 0x7ff_ffff);
}

/// `c[0] + c[1] x + c[2] x² + …`
#[inline(always)]
fn polynomial<T: Elementary>(x: T, c: &[T]) -> T {
    let Some((&last, rest)) = c.split_last() else { return T::ZERO };
    rest.iter().rev().fold(last, |y, &c| y * x + c)
}

/// The number `x` in the type's precision.
#[inline(always)]
fn of<T: Scalar>(x: f64) -> T {
    T::from_f64(x)
}

/// `|x|`.
#[inline(always)]
fn magnitude<T: Scalar>(x: T) -> T {
    if x < T::ZERO { T::ZERO - x } else { x }
}

/// `min(max(x, low), high)`; a NaN stays.
#[inline(always)]
pub(crate) fn clamped<T: Scalar>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The nearest whole number, for small numbers.
#[inline(always)]
fn whole<T: Elementary>(x: T) -> T {
    (x + T::WHOLE) - T::WHOLE
}

/// `(n, eʳ − 1)` with `x + rest = n ln 2 + r`, for a `rest` that is much smaller than x.
#[inline(always)]
fn reduced<T: Elementary>(x: T, rest: T) -> (T, T) {
    let n = whole(x * of(std::f64::consts::LOG2_E));
    let r = (x - n * T::LN_2[0]) - (n * T::LN_2[1] - rest);
    (n, r + r * r * polynomial(r, T::EXP))
}

/// `2ⁿ y`, rounded once.
#[inline(always)]
fn scaled<T: Elementary>(y: T, n: T) -> T {
    let half = whole(n * of(0.5));
    y * T::power_of_two(half) * T::power_of_two(n - half)
}

/// `e^(x + rest)`, for a `rest` that is much smaller than x.
#[inline(always)]
fn exp_of_sum<T: Elementary>(x: T, rest: T) -> T {
    let (n, grown) = reduced(clamped(x, T::EXP_RANGE[0], T::EXP_RANGE[1]), rest);
    scaled(of::<T>(1.0) + grown, n)
}

/// `eˣ`.
#[inline(always)]
pub(crate) fn exp<T: Elementary>(x: T) -> T {
    exp_of_sum(x, T::ZERO)
}

/// `eˣ − 1`.
#[inline(always)]
pub(crate) fn expm1<T: Elementary>(x: T) -> T {
    // Below −60 it is −1; above 2⁶⁴ the 1 does not count.
    let (n, grown) = reduced(clamped(x, of(-60.0), T::EXP_RANGE[1]), T::ZERO);
    let one = T::power_of_two(T::ZERO - if n > of(64.0) { of(64.0) } else { n });
    scaled(grown + (of::<T>(1.0) - one), n)
}

/// `ln(x) + rest`, for a `rest` that is much smaller than 1.
#[inline(always)]
fn log_of<T: Elementary>(x: T, rest: T) -> T {
    let subnormal = x < T::TINY;
    let (k, m) = (if subnormal { x * T::LIFT[0] } else { x }).exponent_and_rest();
    let k = if subnormal { k - T::LIFT[1] } else { k };
    // m = 1 + f = (1 + s) / (1 − s), and ln m = 2 atanh(s) = f − (f²/2 − s (f²/2 + s² P(s²))).
    let f = m - of(1.0);
    let s = f / (f + of(2.0));
    let square = s * s;
    let half = of::<T>(0.5) * f * f;
    let more = s * (half + square * polynomial(square, T::LOG));
    let log = k * T::LN_2[0] - ((half - (more + (k * T::LN_2[1] + rest))) - f);
    let log = if x < of(f64::INFINITY) { log } else { x };
    let log = if x < T::ZERO { of(f64::NAN) } else { log };
    if x == T::ZERO { of(f64::NEG_INFINITY) } else { log }
}

/// Natural logarithm; −∞ of 0, NaN of negative numbers.
#[inline(always)]
pub(crate) fn log<T: Elementary>(x: T) -> T {
    log_of(x, T::ZERO)
}

/// `ln(1 + x)`.
#[inline(always)]
pub(crate) fn log1p<T: Elementary>(x: T) -> T {
    let one = of::<T>(1.0);
    let sum = one + x;
    // What the sum's rounding lost.
    let lost = if x < one { x - (sum - one) } else { one - (sum - x) };
    log_of(sum, lost / sum)
}

/// `x` to the power `exponent`, at most a thousand. Of a negative number: that of its magnitude if the exponent is whole,
/// with its sign if that is odd; NaN if it is not whole. Of 0: 0, or ∞ for a negative exponent.
#[inline(always)]
pub(crate) fn power<T: Elementary>(x: T, exponent: f64) -> T {
    let one = of::<T>(1.0);
    // So few bits that its product with the number's exponent is exact, and the rest.
    let high = of::<T>(exponent).upper();
    let low = of::<T>(exponent - high.to_f64());
    let a = magnitude(x);
    let subnormal = a < T::TINY;
    let (k, m) = (if subnormal { a * T::LIFT[0] } else { a }).exponent_and_rest();
    let k = if subnormal { k - T::LIFT[1] } else { k };
    let n = whole(high * k);
    let rest = (high * k - n) + low * k;
    let (more, grown) = reduced(rest * of(std::f64::consts::LN_2) + (high + low) * log(m), T::ZERO);
    let far = T::EXP_RANGE.map(|end| whole(end * of(1.8)));
    let inside = scaled(one + grown, clamped(n + more, far[0], far[1]));
    let at_the_ends = if exponent > 0.0 { a } else { one / a };
    let y = if a > T::ZERO && a < of(f64::INFINITY) { inside } else { at_the_ends };
    let odd = if exponent % 2.0 == 0.0 { y } else { T::ZERO - y };
    let negative = if exponent % 1.0 == 0.0 { odd } else { of(f64::NAN) };
    if x < T::ZERO { negative } else { y }
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<T: Elementary>(x: T) -> T {
    let t = expm1(magnitude(x) * of(-2.0));
    let y = (T::ZERO - t) / (t + of(2.0));
    if x < T::ZERO { T::ZERO - y } else { y }
}

/// `1 / (1 + e⁻ˣ)`, exact to the last digits where it is small.
#[inline(always)]
pub(crate) fn sigmoid<T: Elementary>(x: T) -> T {
    let e = exp(T::ZERO - magnitude(x));
    let one = of::<T>(1.0);
    (if x < T::ZERO { e } else { one }) / (one + e)
}

/// [`sigmoid`] and what it lacks of 1.
#[inline(always)]
pub(crate) fn sigmoids<T: Elementary>(x: T) -> [T; 2] {
    let e = exp(T::ZERO - magnitude(x));
    let near = of::<T>(1.0) / (of::<T>(1.0) + e);
    let far = e * near;
    if x < T::ZERO { [far, near] } else { [near, far] }
}

/// Derivative of [`sigmoid`].
#[inline(always)]
pub(crate) fn sigmoid_slope<T: Elementary>(x: T) -> T {
    let e = exp(T::ZERO - magnitude(x));
    let sum = of::<T>(1.0) + e;
    e / (sum * sum)
}

/// `ln(1 + e^(beta x)) / beta`.
#[inline(always)]
pub(crate) fn softplus<T: Elementary>(x: T, beta: T) -> T {
    let positive = if x < T::ZERO { T::ZERO } else { x };
    positive + log1p(exp(T::ZERO - beta * magnitude(x))) / beta
}

/// The standard normal distribution: `P(Z ≤ x)`, exact to the last digits where it is small, and `e^(−x²/2)`.
#[inline(always)]
pub(crate) fn normal<T: Elementary>(x: T) -> [T; 2] {
    let a = magnitude(x);
    let a = if a > T::NORMAL_END { T::NORMAL_END } else { a };
    // The square and what its rounding lost (Dekker).
    let square = a * a;
    let (high, low) = (a.upper(), a - a.upper());
    let lost = ((high * high - square) + (high * low + high * low)) + low * low;
    let bell = exp_of_sum(square * of(-0.5), lost * of(-0.5));
    let u = of::<T>(4.0) / (of::<T>(4.0) + a);
    // t = 2u − 1, rounded less.
    let t = of::<T>(1.0) - of::<T>(0.5) * a * u;
    let tail = bell * (u * polynomial(t, T::NORMAL));
    [if x < T::ZERO { tail } else { of::<T>(1.0) - tail }, bell]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by name.
    fn value<T: Elementary>(name: &str, x: T) -> T {
        match name {
            "exp" => exp(x),
            "expm1" => expm1(x),
            "log" => log(x),
            "log1p" => log1p(x),
            "tanh" => tanh(x),
            "sigmoid" => sigmoid(x),
            "sigmoid_slope" => sigmoid_slope(x),
            "softplus" => softplus(x, of(1.0)),
            "normal" => normal(x)[0],
            "bell" => normal(x)[1],
            _ => panic!("no function is named {name}"),
        }
    }

    const NAMES: [&str; 10] =
        ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sigmoid_slope", "softplus", "normal", "bell"];

    /// Numbers between `a` and `b`, whose bits are given, in units of the last place.
    fn steps(sign: u32, a: u64, b: u64) -> u64 {
        let signed = |v: u64| if v >> sign == 1 { -((v & !(1 << sign)) as i64) } else { v as i64 };
        signed(a).abs_diff(signed(b))
    }

    #[test]
    fn values_are_the_correctly_rounded_ones_but_for_a_few_units() {
        let table = include_str!("../../tests/golden/functions/table.txt");
        for name in NAMES {
            for (width, sign) in [("f32", 31), ("f64", 63)] {
                let mut worst = 0;
                let mut count = 0;
                for line in table.lines() {
                    let fields: Vec<&str> = line.split(' ').collect();
                    let [of, format, x, want] = fields[..] else { panic!("{line}") };
                    if (of, format) != (name, width) {
                        continue;
                    }
                    let [x, want] = [x, want].map(|bits| u64::from_str_radix(bits, 16).unwrap());
                    let got = match width {
                        "f32" => u64::from(value(name, f32::from_bits(x as u32)).to_bits()),
                        _ => value(name, f64::from_bits(x)).to_bits(),
                    };
                    let off = steps(sign, got, want);
                    assert!(off <= 3, "{name} {width} of {x:x}: {got:x} for {want:x}");
                    worst = worst.max(off);
                    count += 1;
                }
                assert!(count >= 50, "{count} values of {name}");
                println!("{name} {width}: at most {worst} of {count}");
            }
        }
    }

    #[test]
    fn values_are_those_of_the_platform() {
        type Platform = fn(f64) -> f64;
        let platform: [(&str, Platform, [f64; 2]); 5] = [
            ("exp", f64::exp, [-745.0, 709.0]),
            ("expm1", f64::exp_m1, [-50.0, 709.0]),
            ("log", f64::ln, [1e-300, 1e3]),
            ("log1p", f64::ln_1p, [-0.999, 1e3]),
            ("tanh", f64::tanh, [-20.0, 20.0]),
        ];
        for (name, f, [low, high]) in platform {
            for i in 0..20_000 {
                let x = low + (high - low) * (f64::from(i) + 0.37) / 20_000.0;
                let (got, want) = (value(name, x), f(x));
                assert!(steps(63, got.to_bits(), want.to_bits()) <= 4, "{name} of {x}: {got:e} for {want:e}");
            }
        }
    }

    #[test]
    fn single_precision_is_double_precision_rounded_but_for_a_few_units() {
        for name in NAMES {
            // Every exponent and sign, with other bits drawn.
            for i in 0..1u32 << 16 {
                let x = f32::from_bits((i << 16) | (i.wrapping_mul(0x9E37_79B9) >> 16));
                if x.is_nan() {
                    continue;
                }
                let (got, want) = (value(name, x), value(name, f64::from(x)) as f32);
                if want.is_nan() {
                    assert!(got.is_nan(), "{name} of {x}: {got}");
                    continue;
                }
                let off = steps(31, u64::from(got.to_bits()), u64::from(want.to_bits()));
                assert!(off <= 5, "{name} of {x}: {got:e} for {want:e}");
            }
        }
    }

    const EXPONENTS: [f64; 10] = [0.75, 0.1, 1.0, 1.3, 2.0, 7.0, -0.3, -1.0, -2.5, -4.0];

    #[test]
    fn powers_are_those_of_the_platform() {
        for exponent in EXPONENTS {
            let most = 4 + exponent.abs() as u64;
            for i in 0..20_000 {
                let x = 2f64.powf((f64::from(i) / 10_000.0 - 1.0) * 1074.0 / exponent.abs().max(1.0));
                let x = if i % 2 == 0 && exponent % 1.0 == 0.0 { -x } else { x };
                let (got, want) = (power(x, exponent), x.powf(exponent));
                // The smallest numbers have few bits.
                let off = steps(63, got.to_bits(), want.to_bits());
                assert!(off <= most, "{x}^{exponent}: {got:e} for {want:e}");
                let single = x as f32;
                if single == 0.0 {
                    continue;
                }
                let (got, want) = (power(single, exponent), f64::from(single).powf(exponent) as f32);
                let off = steps(31, u64::from(got.to_bits()), u64::from(want.to_bits()));
                assert!(off <= most, "{single}^{exponent}, single: {got:e} for {want:e}");
            }
        }
    }

    #[test]
    fn powers_at_the_ends() {
        fn check<T: Elementary>() {
            let [infinity, nan] = [f64::INFINITY, f64::NAN].map(of::<T>);
            for exponent in EXPONENTS {
                let (zero, end) = if exponent > 0.0 { (T::ZERO, infinity) } else { (infinity, T::ZERO) };
                assert!(power(T::ZERO, exponent) == zero && power(infinity, exponent) == end, "{exponent}");
                assert!(power(nan, exponent).to_f64().is_nan(), "{exponent}");
                assert_eq!(power(of::<T>(-2.0), exponent).to_f64().is_nan(), exponent % 1.0 != 0.0, "{exponent}");
            }
            assert!(power(of::<T>(2.0), 1000.0) > of(1e37) && power(of::<T>(0.5), 1000.0) < of(1e-37));
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn special_numbers() {
        fn check<T: Elementary>() {
            let [zero, one, infinity, nan] = [0.0, 1.0, f64::INFINITY, f64::NAN].map(of::<T>);
            let minus = T::ZERO - infinity;
            for name in NAMES {
                assert!(value(name, nan).to_f64().is_nan(), "{name} of NaN");
            }
            for (name, at_minus, at_zero, at_infinity) in [
                ("exp", zero, one, infinity),
                ("expm1", zero - one, zero, infinity),
                ("log", nan, minus, infinity),
                ("log1p", nan, zero, infinity),
                ("tanh", zero - one, zero, one),
                ("sigmoid", zero, of(0.5), one),
                ("sigmoid_slope", zero, of(0.25), zero),
                ("softplus", zero, log(of(2.0)), infinity),
                ("normal", zero, value("normal", zero), one),
                ("bell", zero, one, zero),
            ] {
                for (x, want) in [(minus, at_minus), (zero, at_zero), (infinity, at_infinity)] {
                    let got = value(name, x);
                    let both = got.to_f64().is_nan() && want.to_f64().is_nan();
                    assert!(got == want || both, "{name} of {x:?}: {got:?} for {want:?}");
                }
            }
            assert!(value("log1p", zero - one) == minus);
        }
        check::<f32>();
        check::<f64>();
    }
}
