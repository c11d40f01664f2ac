//! Functions of single elements, kept as formulas until their values are needed, so that a GELU or SiLU that is written
//! out as five nodes is found again whatever its form.

use std::cell::Cell;
use std::rc::Rc;

use crate::graph::{NodeId, Smooth};
use crate::tensor::functions::normal;

/// Largest formula; a larger one is computed in parts.
const MOST_TERMS: usize = 48;

/// How far two functions that are the same may be apart, as shares of the value and of the variable: constants are stored in
/// single precision.
const SAME: [f64; 2] = [1e-6, 2e-7];

/// A function of the elements of a node.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) kind: Kind,
    /// Of the node of the file that it is the output of.
    pub(super) name: String,
    /// The node whose elements are the variable.
    pub(super) base: NodeId,
    size: usize,
    /// The node with its values, once there is one.
    pub(super) made: Cell<Option<NodeId>>,
}

/// The formula.
#[derive(Debug)]
pub(super) enum Kind {
    /// The variable.
    Base,
    /// `scale · x + shift`.
    Affine { scale: f64, shift: f64, of: Rc<Scalar> },
    /// `min(max(x, lo), hi)`.
    Clip { lo: f64, hi: f64, of: Rc<Scalar> },
    /// A function of the engine.
    Function(Smooth, Rc<Scalar>),
    /// The error function.
    Erf(Rc<Scalar>),
    /// Of two.
    Binary(Binary, Rc<Scalar>, Rc<Scalar>),
    /// 1 where the first is larger, else 0; with `true` where it is equal too.
    Above(bool, Rc<Scalar>, Rc<Scalar>),
    /// The second where the first is not 0, else the third.
    Choose(Rc<Scalar>, Rc<Scalar>, Rc<Scalar>),
}

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Mul,
    Divide,
}

/// What a formula turned out to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Known {
    Relu,
    Clamp(f64, f64),
    Smooth(Smooth),
    /// `outer · GELU(scale · x + shift)`.
    Gelu {
        scale: f64,
        shift: f64,
        outer: f64,
    },
}

impl Scalar {
    /// The elements of `node` themselves.
    pub(super) fn base(node: NodeId) -> Rc<Self> {
        Rc::new(Self { kind: Kind::Base, name: String::new(), base: node, size: 1, made: Cell::new(Some(node)) })
    }

    fn new(kind: Kind, name: &str, base: NodeId, size: usize) -> Rc<Self> {
        Rc::new(Self { kind, name: name.to_owned(), base, size, made: Cell::new(None) })
    }

    /// `scale · x + shift`.
    pub(super) fn affine(of: &Rc<Self>, scale: f64, shift: f64, name: &str) -> Rc<Self> {
        if let Kind::Affine { scale: inner, shift: constant, of } = &of.kind {
            let kind = Kind::Affine { scale: scale * inner, shift: scale * constant + shift, of: of.clone() };
            return Self::new(kind, name, of.base, of.size + 1);
        }
        Self::new(Kind::Affine { scale, shift, of: of.clone() }, name, of.base, of.size + 1)
    }

    /// `min(max(x, lo), hi)`.
    pub(super) fn clip(of: &Rc<Self>, lo: f64, hi: f64, name: &str) -> Rc<Self> {
        if let Kind::Clip { lo: l, hi: h, of } = &of.kind {
            let (both_lo, both_hi) = (l.max(lo), h.min(hi));
            if both_lo < both_hi {
                let kind = Kind::Clip { lo: both_lo, hi: both_hi, of: of.clone() };
                return Self::new(kind, name, of.base, of.size + 1);
            }
        }
        Self::new(Kind::Clip { lo, hi, of: of.clone() }, name, of.base, of.size + 1)
    }

    /// A function of the engine.
    pub(super) fn function(of: &Rc<Self>, f: Smooth, name: &str) -> Rc<Self> {
        Self::new(Kind::Function(f, of.clone()), name, of.base, of.size + 1)
    }

    /// The error function.
    pub(super) fn erf(of: &Rc<Self>, name: &str) -> Rc<Self> {
        Self::new(Kind::Erf(of.clone()), name, of.base, of.size + 1)
    }

    /// An operation on two functions of the same elements.
    pub(super) fn binary(op: Binary, a: &Rc<Self>, b: &Rc<Self>, name: &str) -> Rc<Self> {
        Self::new(Kind::Binary(op, a.clone(), b.clone()), name, a.base, a.size + b.size + 1)
    }

    /// 1 where `a` is above `b`, or with `equal` not below, else 0.
    pub(super) fn above(equal: bool, a: &Rc<Self>, b: &Rc<Self>, name: &str) -> Rc<Self> {
        Self::new(Kind::Above(equal, a.clone(), b.clone()), name, a.base, a.size + b.size + 1)
    }

    /// `yes` where `test` is not 0, else `no`.
    pub(super) fn choose(test: &Rc<Self>, yes: &Rc<Self>, no: &Rc<Self>, name: &str) -> Rc<Self> {
        let size = test.size + yes.size + no.size + 1;
        Self::new(Kind::Choose(test.clone(), yes.clone(), no.clone()), name, test.base, size)
    }

    /// Whether the formula is too long to go on with.
    pub(super) fn is_long(&self) -> bool {
        self.size > MOST_TERMS
    }

    /// The value at `x`.
    fn at(&self, x: f64) -> f64 {
        match &self.kind {
            Kind::Base => x,
            Kind::Affine { scale, shift, of } => scale * of.at(x) + shift,
            Kind::Clip { lo, hi, of } => of.at(x).max(*lo).min(*hi),
            Kind::Function(f, of) => f.value(of.at(x)),
            Kind::Erf(of) => 2.0 * normal(of.at(x) * std::f64::consts::SQRT_2)[0] - 1.0,
            Kind::Above(equal, a, b) => {
                let (a, b) = (a.at(x), b.at(x));
                if a > b || *equal && a == b { 1.0 } else { 0.0 }
            }
            Kind::Choose(test, yes, no) => {
                if test.at(x) != 0.0 {
                    yes.at(x)
                } else {
                    no.at(x)
                }
            }
            Kind::Binary(op, a, b) => {
                let (a, b) = (a.at(x), b.at(x));
                match op {
                    Binary::Add => a + b,
                    Binary::Mul => a * b,
                    Binary::Divide => a / b,
                }
            }
        }
    }

    /// The function of the engine that has these values, if one has.
    pub(super) fn known(&self) -> Option<Known> {
        match &self.kind {
            Kind::Base => return None,
            Kind::Clip { lo, hi, of } if matches!(of.kind, Kind::Base) => {
                return Some(if [*lo, *hi] == [0.0, f64::INFINITY] { Known::Relu } else { Known::Clamp(*lo, *hi) });
            }
            Kind::Function(f, of) if matches!(of.kind, Kind::Base) => return Some(Known::Smooth(*f)),
            _ => {}
        }
        if self.is_affine() {
            return None;
        }
        let points = self.points();
        let own: Vec<f64> = points.iter().map(|&x| self.at(x)).collect();
        let same = |f: &dyn Fn(f64) -> f64| {
            points.iter().zip(&own).all(|(&x, y)| (f(x) - y).abs() <= SAME[0] * y.abs() + SAME[1] * x.abs())
        };
        if same(&|x| x.max(0.0)) {
            return Some(Known::Relu);
        }
        if same(&|x| x.clamp(0.0, 6.0)) {
            return Some(Known::Clamp(0.0, 6.0));
        }
        let slope = -self.at(-1.0);
        let smooth = [
            Smooth::Sigmoid,
            Smooth::Silu,
            Smooth::HardSigmoid,
            Smooth::HardSwish,
            Smooth::Tanh,
            Smooth::Gelu,
            Smooth::GeluTanh,
            Smooth::Elu { alpha: 1.0 },
            Smooth::Softplus { beta: 1.0, threshold: f64::INFINITY },
            Smooth::Abs,
            Smooth::LeakyRelu { slope },
        ];
        if let Some(f) = smooth.into_iter().find(|f| f.checked().is_ok() && same(&|x| f.value(x))) {
            return Some(Known::Smooth(f));
        }
        // The argument of an error function tells that of the GELU.
        let (scale, shift) = self.argument()?;
        let (scale, shift) = (scale * std::f64::consts::SQRT_2, shift * std::f64::consts::SQRT_2);
        let gelu = |x: f64| Smooth::Gelu.value(scale * x + shift);
        let largest = points.iter().copied().fold(0.0, |a: f64, x| if gelu(x).abs() > gelu(a).abs() { x } else { a });
        let outer = self.at(largest) / gelu(largest);
        (outer.is_finite() && same(&|x| outer * gelu(x))).then_some(Known::Gelu { scale, shift, outer })
    }

    /// Where the formula is compared: close together where functions bend, near 0, far out, and around every place where an
    /// argument inside passes 0 or a bound.
    fn points(&self) -> Vec<f64> {
        let near = (-41..=41).map(|i| f64::from(i) * 0.1907 + 0.013);
        let small = (1..=24).map(|i| 2f64.powi(-i) * 1.1);
        let far = [9.0, 11.0, 15.0, 19.0, 23.0, 31.0, 49.0, 99.0, 130.0, 254.0, 257.0, 1e3, 1e4, 7e4, 1e6, 1e9];
        let mut points: Vec<f64> = near.chain(small.clone()).chain(small.map(|x| -x)).collect();
        points.extend(far.into_iter().chain(far.map(|x| -x)));
        let mut places = Vec::new();
        self.places(&mut places);
        for (place, width) in places.into_iter().filter(|(p, w)| p.is_finite() && w.is_finite()) {
            points.extend([-6.0, -1.0, -0.2, -1e-3, 1e-3, 0.2, 1.0, 6.0].map(|step| place + step * width));
        }
        points
    }

    /// Places where an argument is 0 or at a bound, with the width over which it changes by 1.
    fn places(&self, found: &mut Vec<(f64, f64)>) {
        match &self.kind {
            Kind::Base => {}
            Kind::Affine { scale, shift, of } => {
                if *scale != 0.0 {
                    found.push((-shift / scale, 1.0 / scale.abs()));
                }
                found.push((*shift, 0.1));
                of.places(found);
            }
            Kind::Clip { lo, hi, of } => {
                found.extend([(*lo, 0.1), (*hi, 0.1), (-lo, 0.1), (-hi, 0.1)]);
                of.places(found);
            }
            Kind::Function(_, of) | Kind::Erf(of) => of.places(found),
            Kind::Binary(_, a, b) | Kind::Above(_, a, b) => [a, b].into_iter().for_each(|f| f.places(found)),
            Kind::Choose(test, yes, no) => [test, yes, no].into_iter().for_each(|f| f.places(found)),
        }
    }

    /// Factor and constant of the argument of the first error function in the formula.
    fn argument(&self) -> Option<(f64, f64)> {
        match &self.kind {
            Kind::Base => None,
            Kind::Erf(of) => match &of.kind {
                Kind::Base => Some((1.0, 0.0)),
                Kind::Affine { scale, shift, of } if matches!(of.kind, Kind::Base) => Some((*scale, *shift)),
                _ => None,
            },
            Kind::Affine { of, .. } | Kind::Clip { of, .. } | Kind::Function(_, of) => of.argument(),
            Kind::Binary(_, a, b) | Kind::Above(_, a, b) => a.argument().or_else(|| b.argument()),
            Kind::Choose(test, yes, no) => [test, yes, no].into_iter().find_map(|f| f.argument()),
        }
    }

    /// Whether it is a sum and products with constants.
    fn is_affine(&self) -> bool {
        match &self.kind {
            Kind::Base => true,
            Kind::Affine { of, .. } => of.is_affine(),
            Kind::Binary(Binary::Add, a, b) => a.is_affine() && b.is_affine(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphBuilder, Smooth};
    use crate::tensor::Shape;

    #[test]
    fn functions_are_found_whatever_their_form() {
        let x = Scalar::base(GraphBuilder::new(Shape::vector(1)).input());
        let half = |of: &Rc<Scalar>| Scalar::affine(of, 0.5, 0.0, "half");
        let erf = Scalar::erf(&Scalar::affine(&x, 1.0 / f64::from(2f32.sqrt()), 0.0, "d"), "erf");
        let one = Scalar::affine(&erf, 1.0, 1.0, "one");
        let forms = [
            half(&Scalar::binary(Binary::Mul, &x, &one, "m")),
            Scalar::binary(Binary::Mul, &half(&x), &one, "m"),
            Scalar::binary(Binary::Mul, &half(&one), &x, "m"),
        ];
        assert!(forms.iter().all(|f| f.known() == Some(Known::Smooth(Smooth::Gelu))));
        // Of three times the variable.
        let three = Scalar::affine(&x, 3.0, 0.0, "three");
        let inner = Scalar::affine(&three, std::f64::consts::FRAC_1_SQRT_2, 0.0, "d");
        let product =
            Scalar::binary(Binary::Mul, &three, &Scalar::affine(&Scalar::erf(&inner, "e"), 1.0, 1.0, "o"), "m");
        let Some(Known::Gelu { scale, shift, outer }) = product.known() else { panic!("a GELU of 3x") };
        assert!((scale - 3.0).abs() < 1e-12 && shift == 0.0 && (outer - 2.0).abs() < 1e-9);
        let gate = Scalar::function(&x, Smooth::Sigmoid, "s");
        assert_eq!(Scalar::binary(Binary::Mul, &gate, &x, "m").known(), Some(Known::Smooth(Smooth::Silu)));
        // Another sharpness is another function.
        let quick = Scalar::function(&Scalar::affine(&x, 1.702, 0.0, "a"), Smooth::Sigmoid, "s");
        assert_eq!(Scalar::binary(Binary::Mul, &quick, &x, "m").known(), None);
        let shifted = Scalar::clip(&Scalar::affine(&x, 1.0, 3.0, "p"), 0.0, 6.0, "c");
        let product = Scalar::affine(&Scalar::binary(Binary::Mul, &x, &shifted, "m"), 1.0 / 6.0, 0.0, "d");
        assert_eq!(product.known(), Some(Known::Smooth(Smooth::HardSwish)));
        assert_eq!(Scalar::affine(&x, 1.0, 0.0, "same").known(), None);
        // A softplus that is the identity above a threshold.
        let steep = Scalar::above(false, &x, &Scalar::affine(&x, 0.0, 20.0, "c"), "g");
        let plus = Scalar::function(&x, Smooth::Softplus { beta: 1.0, threshold: f64::INFINITY }, "p");
        let Some(Known::Smooth(Smooth::Softplus { .. })) = Scalar::choose(&steep, &x, &plus, "w").known() else {
            panic!("a softplus")
        };
        let positive = Scalar::above(false, &x, &Scalar::affine(&x, 0.0, 0.0, "c"), "g");
        assert_eq!(Scalar::binary(Binary::Mul, &x, &positive, "r").known(), Some(Known::Relu));
        assert_eq!(positive.known(), None);
        // A bound far out is one.
        let wide = Scalar::clip(&Scalar::affine(&x, 1.0, 0.0, "a"), 0.0, 20.0, "c");
        assert_eq!(wide.known(), None);
        // Near Relu, Abs and the identity, but none of them.
        let sharp = Scalar::function(&Scalar::affine(&x, 1000.0, 0.0, "k"), Smooth::Sigmoid, "s");
        assert_eq!(Scalar::binary(Binary::Mul, &x, &sharp, "m").known(), None);
        let square = Scalar::function(&x, Smooth::Power { exponent: 2.0 }, "q");
        let root = Scalar::function(&Scalar::affine(&square, 1.0, 1e-12, "e"), Smooth::Power { exponent: 0.5 }, "r");
        assert_eq!(root.known(), None);
        let none = Scalar::affine(&x, 0.0, 0.0, "z");
        for threshold in [-0.17, 0.012, 3.3] {
            let above = Scalar::above(false, &x, &Scalar::affine(&x, 0.0, threshold, "c"), "g");
            assert_eq!(Scalar::choose(&above, &x, &none, "w").known(), None, "{threshold}");
        }
        let six = Scalar::clip(&Scalar::clip(&x, 0.0, f64::INFINITY, "a"), f64::NEG_INFINITY, 6.0, "b");
        assert_eq!(six.known(), Some(Known::Clamp(0.0, 6.0)));
    }
}
