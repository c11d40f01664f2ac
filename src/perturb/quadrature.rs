//! Rules for the integral over the path from a baseline (α = 0) to the picture (α = 1).

use std::fmt;
use std::str::FromStr;

use super::MOST_COPIES;
use crate::error::{Error, Result};

/// A rule that puts `n` points on [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Quadrature {
    /// `(k + ½) / n`, equal weights.
    #[default]
    Midpoint,
    /// `k / n`, equal weights.
    Left,
    /// `(k + 1) / n`, equal weights.
    Right,
    /// `k / (n − 1)`, weights `1 / (n − 1)`, halved at both ends; needs two points.
    Trapezoid,
    /// Gauss–Legendre: exact for polynomials up to degree `2n − 1`.
    GaussLegendre,
}

impl Quadrature {
    /// Every rule.
    pub const ALL: [Quadrature; 5] =
        [Quadrature::Midpoint, Quadrature::Left, Quadrature::Right, Quadrature::Trapezoid, Quadrature::GaussLegendre];

    /// Name as in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Quadrature::Midpoint => "midpoint",
            Quadrature::Left => "left",
            Quadrature::Right => "right",
            Quadrature::Trapezoid => "trapezoid",
            Quadrature::GaussLegendre => "gausslegendre",
        }
    }

    /// Points and weights `(alphas, weights)`, `n` of each; alphas ascending, weights summing to 1.
    ///
    /// # Errors
    /// When `n` is 0, or 1 for [`Quadrature::Trapezoid`], or above [`MOST_COPIES`] (2¹⁴ for [`Quadrature::GaussLegendre`]).
    pub fn points(self, n: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let least = if self == Quadrature::Trapezoid { 2 } else { 1 };
        if n < least {
            return Err(Error::settings(format!("the rule {self} needs at least {least} steps, got {n}")));
        }
        // Newton's method takes time that grows with the square of the points.
        let most = if self == Quadrature::GaussLegendre { 1 << 14 } else { MOST_COPIES };
        if n > most {
            return Err(Error::settings(format!("the rule {self} takes at most {most} steps, got {n}")));
        }
        let equal = |shift: f64| ((0..n).map(|k| (k as f64 + shift) / n as f64).collect(), vec![1.0 / n as f64; n]);
        Ok(match self {
            Quadrature::Midpoint => equal(0.5),
            Quadrature::Left => equal(0.0),
            Quadrature::Right => equal(1.0),
            Quadrature::Trapezoid => {
                let gaps = (n - 1) as f64;
                let weight = |k| if k == 0 || k == n - 1 { 0.5 / gaps } else { 1.0 / gaps };
                ((0..n).map(|k| k as f64 / gaps).collect(), (0..n).map(weight).collect())
            }
            Quadrature::GaussLegendre => gauss_legendre(n),
        })
    }
}

impl fmt::Display for Quadrature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Quadrature {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Quadrature::ALL.into_iter().find(|rule| rule.name() == name).ok_or_else(|| {
            let names = Quadrature::ALL.map(Quadrature::name).join(", ");
            Error::settings(format!("no integration rule is named '{name}'; the rules are {names}"))
        })
    }
}

/// `P_n(t)` and its derivative, by the three-term recurrence.
fn legendre(n: usize, t: f64) -> (f64, f64) {
    let (mut before, mut p) = (0.0, 1.0);
    for k in 0..n {
        let k = k as f64;
        (before, p) = (p, ((2.0 * k + 1.0) * t * p - k * before) / (k + 1.0));
    }
    (p, n as f64 * (t * p - before) / (t * t - 1.0))
}

/// Nodes `½(1 + t)` and weights `½w`, where `t` are the roots of `P_n`, found by Newton's method, and
/// `w = 2 / ((1 − t²) P'_n(t)²)`.
fn gauss_legendre(n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut alphas, mut weights) = (vec![0.5; n], vec![0.0; n]);
    for i in 0..n.div_ceil(2) {
        // The roots are symmetric: only those t ≥ 0 are sought, from Tricomi's first guess.
        let middle = 2 * i + 1 == n;
        let mut t = if middle { 0.0 } else { (std::f64::consts::PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos() };
        for _ in 0..32 {
            let (p, slope) = legendre(n, t);
            let step = p / slope;
            t -= step;
            if step.abs() <= 1e-16 {
                break;
            }
        }
        let (_, slope) = legendre(n, t);
        let weight = 1.0 / ((1.0 - t * t) * slope * slope);
        (alphas[n - 1 - i], alphas[i]) = (0.5 + 0.5 * t, 0.5 - 0.5 * t);
        (weights[n - 1 - i], weights[i]) = (weight, weight);
    }
    (alphas, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integral(rule: Quadrature, n: usize, f: impl Fn(f64) -> f64) -> f64 {
        let (alphas, weights) = rule.points(n).unwrap();
        assert_eq!((alphas.len(), weights.len()), (n, n));
        alphas.iter().zip(&weights).map(|(&a, w)| f(a) * w).sum()
    }

    fn close(got: &[f64], want: &[f64], tolerance: f64) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= tolerance, "{got:?} for {want:?}");
        }
    }

    #[test]
    fn names_round_trip_and_errors_list_the_choices() {
        for rule in Quadrature::ALL {
            assert_eq!(rule.to_string().parse::<Quadrature>().unwrap(), rule);
        }
        let message = "simpson".parse::<Quadrature>().unwrap_err().to_string();
        assert!(Quadrature::ALL.iter().all(|r| message.contains(r.name())), "{message}");
    }

    #[test]
    fn equal_steps_are_where_their_names_say() {
        assert_eq!(Quadrature::Midpoint.points(2).unwrap(), (vec![0.25, 0.75], vec![0.5; 2]));
        assert_eq!(Quadrature::Left.points(2).unwrap(), (vec![0.0, 0.5], vec![0.5; 2]));
        assert_eq!(Quadrature::Right.points(2).unwrap(), (vec![0.5, 1.0], vec![0.5; 2]));
        assert_eq!(Quadrature::Trapezoid.points(3).unwrap(), (vec![0.0, 0.5, 1.0], vec![0.25, 0.5, 0.25]));
        assert_eq!(Quadrature::Trapezoid.points(2).unwrap(), (vec![0.0, 1.0], vec![0.5, 0.5]));
    }

    #[test]
    fn too_few_steps_are_an_error() {
        for rule in Quadrature::ALL {
            assert!(rule.points(0).is_err());
            assert_eq!(rule.points(1).is_err(), rule == Quadrature::Trapezoid);
        }
    }

    #[test]
    fn gauss_legendre_gives_the_tabulated_values() {
        let half = |t: &[f64]| t.iter().map(|t| 0.5 + 0.5 * t).collect::<Vec<_>>();
        let (a, w) = Quadrature::GaussLegendre.points(1).unwrap();
        assert_eq!((a, w), (vec![0.5], vec![1.0]));
        let (a, w) = Quadrature::GaussLegendre.points(2).unwrap();
        let t = 1.0 / 3f64.sqrt();
        close(&a, &half(&[-t, t]), 1e-15);
        close(&w, &[0.5, 0.5], 1e-15);
        let (a, w) = Quadrature::GaussLegendre.points(3).unwrap();
        let t = 0.6f64.sqrt();
        close(&a, &half(&[-t, 0.0, t]), 1e-15);
        close(&w, &[5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0], 1e-15);
        let (a, w) = Quadrature::GaussLegendre.points(5).unwrap();
        let r = 2.0 * (10f64 / 7.0).sqrt();
        let (near, far) = ((5.0 - r).sqrt() / 3.0, (5.0 + r).sqrt() / 3.0);
        close(&a, &half(&[-far, -near, 0.0, near, far]), 1e-15);
        let s = 13.0 * 70f64.sqrt();
        let (large, small) = ((322.0 + s) / 1800.0, (322.0 - s) / 1800.0);
        close(&w, &[small, large, 64.0 / 225.0, large, small], 1e-15);
    }

    #[test]
    fn gauss_legendre_is_exact_up_to_its_degree() {
        for n in [1, 2, 3, 4, 5, 8, 16, 17, 50, 64, 301] {
            for degree in 0..2 * n {
                let got = integral(Quadrature::GaussLegendre, n, |a| a.powi(degree as i32));
                let d = (got - 1.0 / (degree + 1) as f64).abs();
                assert!(d <= 1e-14, "n = {n}, degree {degree}: error {d:e}");
            }
            let past = integral(Quadrature::GaussLegendre, n, |a| a.powi(2 * n as i32));
            assert!(n > 8 || (past - 1.0 / (2 * n + 1) as f64).abs() > 1e-13);
        }
    }

    #[test]
    fn every_rule_weighs_one_in_ascending_order() {
        for rule in Quadrature::ALL {
            for n in [2, 3, 7, 50, 1000] {
                let d = (integral(rule, n, |_| 1.0) - 1.0).abs();
                assert!(d <= 1e-12, "{rule} with {n} steps: {d:e}");
                let (alphas, _) = rule.points(n).unwrap();
                assert!(alphas.is_sorted_by(|a, b| a < b) && alphas[0] >= 0.0 && alphas[n - 1] <= 1.0);
            }
        }
    }
}
