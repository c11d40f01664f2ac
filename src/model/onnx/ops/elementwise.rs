//! Functions of single elements, and sums, products and quotients.

use super::inputs::{Inputs, mapped_constant};
use crate::error::{Error, Result};
use crate::graph::{Affine, Op, Smooth};
use crate::model::onnx::constant::Constant;
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{Importer, Signal, Value};
use crate::model::onnx::maps::Spread;
use crate::model::onnx::scalar::{Binary, Scalar};
use crate::model::onnx::view::{Dim, View, whole};

pub(super) const SOFTPLUS: Smooth = Smooth::Softplus { beta: 1.0, threshold: f64::INFINITY };

/// `scale · x + shift`.
pub(super) fn scaled(im: &mut Importer, signal: &Signal, scale: f64, shift: f64, name: &str) -> Result<Signal> {
    let x = im.formula(signal)?;
    Ok(Signal { scalar: Scalar::affine(&x, scale, shift, name), view: signal.view.clone() })
}

pub(super) fn clipped(im: &mut Importer, signal: &Signal, lo: f64, hi: f64, name: &str) -> Result<Signal> {
    if lo == f64::NEG_INFINITY && hi == f64::INFINITY {
        return Ok(signal.clone());
    }
    if !(lo < hi) {
        return Err(Error::model(format!("bounds {lo} and {hi} leave nothing between them")));
    }
    let x = im.formula(signal)?;
    Ok(Signal { scalar: Scalar::clip(&x, lo, hi, name), view: signal.view.clone() })
}

/// The signal with constants added and multiplied: `scale` and `shift` of its elements.
pub(super) fn with_constants(
    im: &mut Importer,
    signal: &Signal,
    constant: &Constant,
    name: &str,
    multiply: bool,
) -> Result<Signal> {
    let dims = crate::model::onnx::constant::broadcast(&signal.dims(), &constant.dims)?;
    let signal = im.expanded(signal, &dims, &format!("{name}.repeated"))?;
    match im.spread(constant, &signal)? {
        Spread::One(v) if multiply => scaled(im, &signal, v, 0.0, name),
        Spread::One(v) => scaled(im, &signal, 1.0, v, name),
        Spread::Channels(v) => {
            let node = im.node_of(&signal)?;
            im.no_void(node)?;
            let affine = if multiply { Affine::product(v) } else { Affine::sum(v) };
            Ok(Signal::of(im.affine(node, affine, name)?, signal.view))
        }
        Spread::Elements(v) if !multiply => {
            let node = im.node_of(&signal)?;
            im.no_void(node)?;
            let node = im.add(name, Op::Affine(Affine::sum(v)), &[node])?;
            Ok(Signal::of(node, signal.view))
        }
        Spread::Elements(_) => {
            let long = |axis: &usize| signal.view.axes[*axis].iter().any(|a| a.dim != Dim::Picture);
            let [axis] = (0..signal.view.rank()).filter(long).collect::<Vec<_>>()[..] else {
                return Err(Error::model("factors that differ from position to position are not supported"));
            };
            // A flattened map: as a vector it has a channel for each of them.
            let vector = im.arranged(&signal, &[axis], &format!("{name}.vector"))?;
            let atoms = whole(Dim::Channel, im.shape(vector).c);
            let flat = Signal::of(vector, signal.view.with_axis(axis, atoms));
            with_constants(im, &flat, constant, name, multiply)
        }
    }
}

/// `a + sign · b`.
pub(super) fn sum(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, sign: f64, name: &str) -> Result<Signal> {
    match (a, b) {
        (Some(Value::Signal(a)), Some(Value::Signal(b))) => {
            let b = if sign < 0.0 { scaled(im, b, -1.0, 0.0, &format!("{name}.negative"))? } else { b.clone() };
            im.combined(Binary::Add, a, &b, name)
        }
        (Some(Value::Signal(a)), Some(Value::Constant(b))) => {
            with_constants(im, a, &mapped_constant(b, |v| sign * v), name, false)
        }
        (Some(Value::Constant(a)), Some(Value::Signal(b))) => {
            let b = if sign < 0.0 { scaled(im, b, -1.0, 0.0, &format!("{name}.negative"))? } else { b.clone() };
            with_constants(im, &b, a, name, false)
        }
        _ => Err(Error::model("an input is missing")),
    }
}

pub(super) fn product(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, name: &str) -> Result<Signal> {
    match (a, b) {
        (Some(Value::Signal(a)), Some(Value::Signal(b))) => im.combined(Binary::Mul, a, b, name),
        (Some(Value::Signal(signal)), Some(Value::Constant(constant)))
        | (Some(Value::Constant(constant)), Some(Value::Signal(signal))) => {
            with_constants(im, signal, constant, name, true)
        }
        _ => Err(Error::model("an input is missing")),
    }
}

pub(super) fn quotient(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, name: &str) -> Result<Signal> {
    match (a, b) {
        (Some(Value::Signal(a)), Some(Value::Signal(b))) => im.combined(Binary::Divide, a, b, name),
        (Some(Value::Signal(a)), Some(Value::Constant(b))) => {
            if b.to_real().contains(&0.0) {
                return Err(Error::model("a division by 0"));
            }
            with_constants(im, a, &mapped_constant(b, |v| 1.0 / v), name, true)
        }
        (Some(Value::Constant(a)), Some(Value::Signal(b))) => {
            let below = im.smooth(b, Smooth::Power { exponent: -1.0 }, &format!("{name}.reciprocal"))?;
            with_constants(im, &below, a, name, true)
        }
        _ => Err(Error::model("an input is missing")),
    }
}

/// `Max` and `Min` with constants.
pub(super) fn bounded(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (mut signal, mut bounds) = (None, Vec::new());
    for value in x.0.iter().flatten() {
        match value {
            Value::Signal(s) if signal.is_none() => signal = Some(s.clone()),
            Value::Signal(_) => {
                return Err(Error::model("of two inputs that depend on the picture it is not supported"));
            }
            Value::Constant(c) => bounds.push(
                c.single()
                    .ok_or_else(|| Error::model("bounds that differ from element to element are not supported"))?,
            ),
        }
    }
    let mut signal = signal.ok_or_else(|| Error::model("input 0 is missing"))?;
    for bound in bounds {
        let (lo, hi) = if node.op == "Max" { (bound, f64::INFINITY) } else { (f64::NEG_INFINITY, bound) };
        signal = clipped(im, &signal, lo, hi, &node.name)?;
    }
    Ok(signal)
}

/// Formulas of the same elements of a node, of signals and single constants.
pub(super) fn formulas(im: &mut Importer, values: &[Option<&Value>]) -> Result<(Vec<std::rc::Rc<Scalar>>, View)> {
    let refuse = || Error::model("a choice between other elements is not supported");
    let first = values.iter().find_map(|v| match v {
        Some(Value::Signal(s)) => Some(s.clone()),
        _ => None,
    });
    let first = first.ok_or_else(refuse)?;
    let base = im.formula(&first)?;
    let mut all = Vec::new();
    for value in values {
        all.push(match value {
            Some(Value::Signal(s)) if s.view == first.view => {
                let formula = im.formula(s)?;
                if formula.base != base.base {
                    return Err(refuse());
                }
                formula
            }
            Some(Value::Constant(c)) => Scalar::affine(&base, 0.0, c.single().ok_or_else(refuse)?, ""),
            _ => return Err(refuse()),
        });
    }
    Ok((all, first.view))
}

pub(super) fn compared(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (all, view) = formulas(im, &[x.get(0), x.get(1)])?;
    let (a, b) = if node.op.starts_with("Greater") { (&all[0], &all[1]) } else { (&all[1], &all[0]) };
    Ok(Signal { scalar: Scalar::above(node.op.ends_with("OrEqual"), a, b, &node.name), view })
}

pub(super) fn chosen(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    if let Some(Value::Constant(condition)) = x.get(0) {
        let taken = condition.single().ok_or_else(|| Error::model("a choice element by element is not supported"))?;
        return x.signal(if taken != 0.0 { 1 } else { 2 }).cloned();
    }
    let (all, view) = formulas(im, &[x.get(0), x.get(1), x.get(2)])?;
    Ok(Signal { scalar: Scalar::choose(&all[0], &all[1], &all[2], name), view })
}

pub(super) fn power(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    match (x.get(0), x.get(1)) {
        (Some(Value::Signal(a)), Some(Value::Constant(b))) => match b.single() {
            Some(1.0) => Ok(a.clone()),
            Some(exponent) => im.smooth(a, Smooth::Power { exponent }, name),
            None => Err(Error::model("exponents that differ from element to element are not supported")),
        },
        (Some(Value::Constant(a)), Some(Value::Signal(b))) => match a.single().filter(|&v| v > 0.0) {
            Some(base) => {
                let inner = scaled(im, b, base.ln(), 0.0, &format!("{name}.exponent"))?;
                im.smooth(&inner, Smooth::Exp, name)
            }
            None => Err(Error::model("powers of anything but one positive number are not supported")),
        },
        (Some(Value::Signal(a)), Some(Value::Signal(b))) => {
            let log = im.smooth(a, Smooth::Log, &format!("{name}.log"))?;
            let product = im.combined(Binary::Mul, b, &log, &format!("{name}.product"))?;
            im.smooth(&product, Smooth::Exp, name)
        }
        _ => Err(Error::model("an input is missing")),
    }
}

pub(super) fn hard_sigmoid(im: &mut Importer, signal: &Signal, alpha: f64, beta: f64, name: &str) -> Result<Signal> {
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && (beta - 0.5).abs() < 1e-6 {
        return im.smooth(signal, Smooth::HardSigmoid, name);
    }
    let inner = scaled(im, signal, alpha, beta, &format!("{name}.inner"))?;
    clipped(im, &inner, 0.0, 1.0, name)
}

pub(super) fn prelu(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    let signal = x.signal(0)?;
    match im.spread(x.constant(1)?, signal)? {
        Spread::One(slope) => im.smooth(signal, Smooth::LeakyRelu { slope }, name),
        Spread::Channels(slopes) => {
            let node = im.node_of(signal)?;
            im.no_void(node)?;
            Ok(Signal::of(im.add(name, Op::PRelu(slopes.into()), &[node])?, signal.view.clone()))
        }
        Spread::Elements(_) => Err(Error::model("slopes that differ from position to position are not supported")),
    }
}
