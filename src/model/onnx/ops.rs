//! ONNX's operations on signals, one function each.

use super::arithmetic::{self, shape_part};
use super::constant::{Constant, axis_of};
use super::file::Node;
use super::import::{Importer, Padded, Signal, Spread, Value, flat_indices};
use super::scalar::{Binary, Scalar};
use super::supported::{STANDARDISE, unsupported};
use super::view::{Atom, Dim, MAP, View, extent, indices, whole};
use crate::error::{Error, Result};
use crate::graph::{
    Affine, BatchNorm, Conv, Linear, LocalResponseNorm, NodeId, Op, Over, Reduce, Smooth, Standardise, Weight,
};
use crate::model::tensors::finite;
use crate::tensor::{Interpolation, Padding, Resize, ResizeTo, Shape, Window};

/// Inputs of a node.
struct Inputs<'i>(&'i [Option<Value>]);

impl Inputs<'_> {
    fn get(&self, i: usize) -> Option<&Value> {
        self.0.get(i).and_then(Option::as_ref)
    }

    fn signal(&self, i: usize) -> Result<&Signal> {
        match self.get(i) {
            Some(Value::Signal(signal)) => Ok(signal),
            Some(Value::Constant(_)) => {
                Err(Error::model(format!("input {i} does not depend on the picture; it should")))
            }
            None => Err(Error::model(format!("input {i} is missing"))),
        }
    }

    fn constant(&self, i: usize) -> Result<&Constant> {
        self.optional(i)?.ok_or_else(|| Error::model(format!("input {i} is missing")))
    }

    /// A constant that may be left out.
    fn optional(&self, i: usize) -> Result<Option<&Constant>> {
        match self.get(i) {
            Some(Value::Constant(constant)) => Ok(Some(constant)),
            Some(Value::Signal(_)) => {
                Err(Error::model(format!("input {i} depends on the picture; that is not supported")))
            }
            None => Ok(None),
        }
    }

    /// All constants, `None` for signals.
    fn constants(&self) -> Vec<Option<&Constant>> {
        self.0
            .iter()
            .map(|v| match v {
                Some(Value::Constant(c)) => Some(c),
                _ => None,
            })
            .collect()
    }
}

/// The outputs of a node that depends on the picture.
pub(super) fn build(im: &mut Importer, node: &Node, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
    let x = Inputs(inputs);
    let name = node.name.as_str();
    let one = |signal: Result<Signal>| signal.map(|s| vec![Value::Signal(s)]);
    if im.taken_off.is_some() && im.taken_off.as_deref() == node.outputs.first().map(String::as_str) {
        return taken_off(node, x.signal(0)?);
    }
    match node.op.as_str() {
        "Identity" | "Dropout" => {
            if node.op == "Dropout" && x.optional(2)?.and_then(Constant::single).is_some_and(|t| t != 0.0) {
                return Err(Error::model("it drops at random (training_mode is set)"));
            }
            one(Ok(x.signal(0)?.clone()))
        }
        "Cast" => match node.int("to", 1) {
            1 | 10 | 11 | 16 => one(Ok(x.signal(0)?.clone())),
            to => {
                Err(Error::model(format!("a cast of numbers that depend on the picture to type {to} is not supported")))
            }
        },
        "CastLike" => one(Ok(x.signal(0)?.clone())),
        "Shape" => {
            let dims = x.signal(0)?.dims().into_iter().map(|d| d as i64).collect();
            Ok(vec![Value::Constant(Constant::list(shape_part(node, dims)))])
        }
        "Size" => {
            let size: usize = x.signal(0)?.dims().iter().product();
            Ok(vec![Value::Constant(Constant::whole(vec![], vec![size as i64]))])
        }
        "Conv" => one(conv(im, node, &x)),
        "Gemm" => one(gemm(im, node, &x)),
        "MatMul" => one(matmul(im, &x, name)),
        "BatchNormalization" => one(batch_norm(im, node, &x)),
        "InstanceNormalization" => one(instance_norm(im, node, &x)),
        "GroupNormalization" => one(group_norm(im, node, &x)),
        "LayerNormalization" => one(layer_norm(im, node, &x)),
        STANDARDISE => {
            let signal = x.signal(0)?;
            let axes = node.ints("axes").unwrap_or_default();
            let axes = axes.iter().map(|&a| signal.axis(a)).collect::<Result<Vec<_>>>()?;
            one(standardised(im, signal, &axes, node.float("epsilon", 0.0), name))
        }
        "LRN" => one(lrn(im, node, &x)),
        "LpNormalization" => one(lp_normalised(im, node, &x)),
        "MaxPool" | "AveragePool" => one(pool(im, node, &x)),
        "GlobalAveragePool" | "GlobalMaxPool" => {
            let signal = x.signal(0)?;
            let map = im.map(signal, name)?;
            let mean = node.op == "GlobalAveragePool";
            let op = if mean { Op::AdaptiveAvgPool { out: [1; 2] } } else { Op::GlobalMaxPool };
            let out = im.add(name, op, &[map])?;
            one(Ok(im.seen(out, signal.view.rank())))
        }
        "Add" => one(sum(im, x.get(0), x.get(1), 1.0, name)),
        "Sub" => one(sum(im, x.get(0), x.get(1), -1.0, name)),
        "Mul" => one(product(im, x.get(0), x.get(1), name)),
        "Div" => one(quotient(im, x.get(0), x.get(1), name)),
        "Sum" | "Mean" => {
            let mut all = x.get(0).cloned();
            for i in 1..inputs.len() {
                all = Some(Value::Signal(sum(im, all.as_ref(), x.get(i), 1.0, &format!("{name}.{i}"))?));
            }
            let Some(Value::Signal(all)) = all else { return Err(Error::model("input 0 is missing")) };
            one(if node.op == "Mean" { scaled(im, &all, 1.0 / inputs.len() as f64, 0.0, name) } else { Ok(all) })
        }
        "Max" | "Min" => one(bounded(im, node, &x)),
        "Pow" => one(power(im, &x, name)),
        "Neg" => one(scaled(im, x.signal(0)?, -1.0, 0.0, name)),
        "Sqrt" => one(im.smooth(x.signal(0)?, Smooth::Power { exponent: 0.5 }, name)),
        "Reciprocal" => one(im.smooth(x.signal(0)?, Smooth::Power { exponent: -1.0 }, name)),
        "Exp" => one(im.smooth(x.signal(0)?, Smooth::Exp, name)),
        "Log" => one(im.smooth(x.signal(0)?, Smooth::Log, name)),
        "Abs" => one(im.smooth(x.signal(0)?, Smooth::Abs, name)),
        "Sigmoid" => one(im.smooth(x.signal(0)?, Smooth::Sigmoid, name)),
        "Tanh" => one(im.smooth(x.signal(0)?, Smooth::Tanh, name)),
        "Softplus" => one(im.smooth(x.signal(0)?, SOFTPLUS, name)),
        "LeakyRelu" => one(im.smooth(x.signal(0)?, Smooth::LeakyRelu { slope: node.float("alpha", 0.01) }, name)),
        "Elu" => one(im.smooth(x.signal(0)?, Smooth::Elu { alpha: node.float("alpha", 1.0) }, name)),
        "Selu" => {
            let alpha = node.float("alpha", 1.673_263_2);
            let elu = im.smooth(x.signal(0)?, Smooth::Elu { alpha }, &format!("{name}.elu"))?;
            one(scaled(im, &elu, node.float("gamma", 1.050_701), 0.0, name))
        }
        "Celu" => {
            let alpha = node.float("alpha", 1.0);
            let inner = scaled(im, x.signal(0)?, 1.0 / alpha, 0.0, &format!("{name}.inner"))?;
            let elu = im.smooth(&inner, Smooth::Elu { alpha: 1.0 }, &format!("{name}.elu"))?;
            one(scaled(im, &elu, alpha, 0.0, name))
        }
        "Softsign" => {
            let signal = x.signal(0)?;
            let abs = im.smooth(signal, Smooth::Abs, &format!("{name}.abs"))?;
            let below = scaled(im, &abs, 1.0, 1.0, &format!("{name}.below"))?;
            one(im.combined(Binary::Divide, signal, &below, name))
        }
        "Mish" => {
            let signal = x.signal(0)?;
            let plus = im.smooth(signal, SOFTPLUS, &format!("{name}.softplus"))?;
            let gate = im.smooth(&plus, Smooth::Tanh, &format!("{name}.tanh"))?;
            one(im.combined(Binary::Mul, signal, &gate, name))
        }
        "Swish" => {
            let signal = x.signal(0)?;
            let inner = scaled(im, signal, node.float("alpha", 1.0), 0.0, &format!("{name}.inner"))?;
            let gate = im.smooth(&inner, Smooth::Sigmoid, &format!("{name}.sigmoid"))?;
            one(im.combined(Binary::Mul, signal, &gate, name))
        }
        "HardSigmoid" => one(hard_sigmoid(im, x.signal(0)?, node.float("alpha", 0.2), node.float("beta", 0.5), name)),
        "HardSwish" => one(im.smooth(x.signal(0)?, Smooth::HardSwish, name)),
        "Gelu" => {
            let f = match node.word("approximate", "none")? {
                "none" => Smooth::Gelu,
                "tanh" => Smooth::GeluTanh,
                other => return Err(Error::model(format!("there is no GELU approximated by {other}"))),
            };
            one(im.smooth(x.signal(0)?, f, name))
        }
        "Erf" => {
            let signal = x.signal(0)?;
            let of = im.formula(signal)?;
            one(Ok(Signal { scalar: Scalar::erf(&of, name), view: signal.view.clone() }))
        }
        "Relu" => one(clipped(im, x.signal(0)?, 0.0, f64::INFINITY, name)),
        "Clip" => {
            let bound = |i: usize, attribute: &str, default: f64| -> Result<f64> {
                match x.optional(i)? {
                    Some(c) => c.single().ok_or_else(|| Error::model("a bound that is not one number")),
                    None if node.attributes.contains_key(attribute) => Ok(node.float(attribute, 0.0)),
                    None => Ok(default),
                }
            };
            let (lo, hi) = (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?);
            // The largest numbers of single precision stand for no bound.
            let lo = if lo <= -f64::from(f32::MAX) { f64::NEG_INFINITY } else { lo };
            let hi = if hi >= f64::from(f32::MAX) { f64::INFINITY } else { hi };
            one(clipped(im, x.signal(0)?, lo, hi, name))
        }
        "PRelu" => one(prelu(im, &x, name)),
        "Softmax" => one(softmax(im, node, x.signal(0)?)),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" => {
            one(reduced(im, node, &x))
        }
        "Concat" => one(concat(im, node, &x)),
        "Split" => split(im, node, &x),
        "Slice" => one(sliced(im, node, &x)),
        "Gather" => one(gathered(im, node, &x)),
        "Pad" => one(pad(im, node, &x)),
        "Reshape" => {
            let signal = x.signal(0)?;
            let to = arithmetic::target(&signal.dims(), &x.constant(1)?.to_whole()?, node.int("allowzero", 0) != 0)?;
            one(reshaped(im, signal, &to, name))
        }
        "Flatten" => {
            let signal = x.signal(0)?;
            let dims = signal.dims();
            let axis = arithmetic::flatten_axis(node, dims.len())?;
            let to = [dims[..axis].iter().product(), dims[axis..].iter().product()];
            one(reshaped(im, signal, &to, name))
        }
        "Squeeze" => {
            let signal = x.signal(0)?;
            let axes = arithmetic::axes(node, x.optional(1)?)?;
            let kept = arithmetic::kept(&signal.dims(), axes.as_deref())?;
            one(Ok(Signal { view: signal.view.transposed(&kept), ..signal.clone() }))
        }
        "Unsqueeze" => {
            let signal = x.signal(0)?;
            let axes = arithmetic::axes(node, x.optional(1)?)?.ok_or_else(|| Error::model("it has no axes"))?;
            let axes = arithmetic::unsqueezed(&signal.view.axes, &axes)?;
            let axes = axes.into_iter().map(Option::unwrap_or_default).collect();
            one(Ok(Signal { view: View { axes }, ..signal.clone() }))
        }
        "Transpose" => {
            let signal = x.signal(0)?;
            let perm = arithmetic::permutation(node, signal.view.rank())?;
            one(Ok(Signal { view: signal.view.transposed(&perm), ..signal.clone() }))
        }
        "Expand" => {
            let signal = x.signal(0)?;
            let to = arithmetic::sizes(&x.constant(1)?.to_whole()?)?;
            let to = super::constant::broadcast(&signal.dims(), &to)?;
            one(im.expanded(signal, &to, name))
        }
        "SpaceToDepth" => one(space_to_depth(im, node, x.signal(0)?)),
        "Resize" | "Upsample" => one(resized(im, node, &x)),
        "Where" => one(chosen(im, &x, name)),
        "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => one(compared(im, node, &x)),
        op => Err(unsupported(op).unwrap_or_else(|| Error::model("this operation is not supported on the picture"))),
    }
}

const SOFTPLUS: Smooth = Smooth::Softplus { beta: 1.0, threshold: f64::INFINITY };

/// The function at the end, which `--score` computes.
fn taken_off(node: &Node, signal: &Signal) -> Result<Vec<Value>> {
    if matches!(node.op.as_str(), "Softmax" | "LogSoftmax") {
        let rank = signal.view.rank();
        let axis = node.int("axis", if node.opset < 13 { 1 } else { -1 });
        let first = axis_of(axis, rank)?;
        let axes = if node.opset < 13 { first..rank } else { first..first + 1 };
        let dims = signal.dims();
        let other = (0..rank).any(|a| !axes.contains(&a) && dims[a] > 1 && !signal.view.has_pictures(a));
        if other {
            return Err(Error::model(format!("it is over axis {axis} of {dims:?}, which are not all classes")));
        }
    }
    Ok(vec![Value::Signal(signal.clone())])
}

/// `scale · x + shift`.
fn scaled(im: &mut Importer, signal: &Signal, scale: f64, shift: f64, name: &str) -> Result<Signal> {
    let x = im.formula(signal)?;
    Ok(Signal { scalar: Scalar::affine(&x, scale, shift, name), view: signal.view.clone() })
}

fn clipped(im: &mut Importer, signal: &Signal, lo: f64, hi: f64, name: &str) -> Result<Signal> {
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
fn with_constants(
    im: &mut Importer,
    signal: &Signal,
    constant: &Constant,
    name: &str,
    multiply: bool,
) -> Result<Signal> {
    let dims = super::constant::broadcast(&signal.dims(), &constant.dims)?;
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
        Spread::Elements(_) => Err(Error::model("factors that differ from position to position are not supported")),
    }
}

fn mapped_constant(constant: &Constant, f: impl Fn(f64) -> f64) -> Constant {
    Constant::real(constant.dims.clone(), constant.to_real().iter().map(|&v| f(v)).collect())
}

/// `a + sign · b`.
fn sum(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, sign: f64, name: &str) -> Result<Signal> {
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

fn product(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, name: &str) -> Result<Signal> {
    match (a, b) {
        (Some(Value::Signal(a)), Some(Value::Signal(b))) => im.combined(Binary::Mul, a, b, name),
        (Some(Value::Signal(signal)), Some(Value::Constant(constant)))
        | (Some(Value::Constant(constant)), Some(Value::Signal(signal))) => {
            with_constants(im, signal, constant, name, true)
        }
        _ => Err(Error::model("an input is missing")),
    }
}

fn quotient(im: &mut Importer, a: Option<&Value>, b: Option<&Value>, name: &str) -> Result<Signal> {
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
fn bounded(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
fn formulas(im: &mut Importer, values: &[Option<&Value>]) -> Result<(Vec<std::rc::Rc<Scalar>>, View)> {
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

fn compared(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (all, view) = formulas(im, &[x.get(0), x.get(1)])?;
    let (a, b) = if node.op.starts_with("Greater") { (&all[0], &all[1]) } else { (&all[1], &all[0]) };
    Ok(Signal { scalar: Scalar::above(node.op.ends_with("OrEqual"), a, b, &node.name), view })
}

fn chosen(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    if let Some(Value::Constant(condition)) = x.get(0) {
        let taken = condition.single().ok_or_else(|| Error::model("a choice element by element is not supported"))?;
        return x.signal(if taken != 0.0 { 1 } else { 2 }).cloned();
    }
    let (all, view) = formulas(im, &[x.get(0), x.get(1), x.get(2)])?;
    Ok(Signal { scalar: Scalar::choose(&all[0], &all[1], &all[2], name), view })
}

fn power(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
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

fn hard_sigmoid(im: &mut Importer, signal: &Signal, alpha: f64, beta: f64, name: &str) -> Result<Signal> {
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && (beta - 0.5).abs() < 1e-6 {
        return im.smooth(signal, Smooth::HardSigmoid, name);
    }
    let inner = scaled(im, signal, alpha, beta, &format!("{name}.inner"))?;
    clipped(im, &inner, 0.0, 1.0, name)
}

fn prelu(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    let signal = x.signal(0)?;
    match im.spread(x.constant(1)?, signal)? {
        Spread::One(slope) => im.smooth(signal, Smooth::LeakyRelu { slope }, name),
        Spread::Channels(slopes) => {
            let node = im.node_of(signal)?;
            Ok(Signal::of(im.add(name, Op::PRelu(slopes.into()), &[node])?, signal.view.clone()))
        }
        Spread::Elements(_) => Err(Error::model("slopes that differ from position to position are not supported")),
    }
}

/// The name of a layer: that of its weight without `.weight`, else the node's.
fn layer_name(node: &Node, input: usize) -> String {
    let weight = node.input(input).and_then(|name| name.strip_suffix(".weight"));
    weight.unwrap_or(&node.name).to_owned()
}

/// A weight whose numbers are finite.
fn weight(constant: &Constant, dims: [usize; 4]) -> Result<Weight> {
    if let super::constant::Numbers::Stored(bytes, encoding) = &constant.numbers {
        finite(bytes, *encoding, &constant.dims).map_err(|what| Error::model(format!("its weight holds {what}")))?;
    } else if constant.to_real().iter().any(|v| !v.is_finite()) {
        return Err(Error::model("its weight holds a number that is not finite"));
    }
    constant.weight(dims)
}

fn bias_of(x: &Inputs, input: usize, outputs: usize) -> Result<Option<std::sync::Arc<[f64]>>> {
    match x.optional(input)? {
        Some(bias) if bias.len() == outputs => Ok(Some(bias.to_real())),
        Some(bias) => Err(Error::model(format!("a bias of {} numbers for {outputs} outputs", bias.len()))),
        None => Ok(None),
    }
}

/// Kernel, strides, dilations and padding of a node for a map of `rows` and `columns`.
fn window(node: &Node, kernel: [usize; 2], shape: Shape, axes: usize) -> Result<Window> {
    let pair = |name: &str| -> Result<[usize; 2]> {
        match node.ints(name) {
            None => Ok([1; 2]),
            Some(values) if values.len() == axes => {
                let v = arithmetic::sizes(values)?;
                Ok([v[0], v.get(1).copied().unwrap_or(1)])
            }
            Some(values) => Err(Error::model(format!("{name} {values:?} for {axes} axes"))),
        }
    };
    let (stride, dilation) = (pair("strides")?, pair("dilations")?);
    if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
        return Err(Error::model("a kernel, stride or dilation of 0"));
    }
    let ceil = node.int("ceil_mode", 0) != 0;
    let window = Window { kernel, stride, dilation, padding: Padding::all(0), ceil };
    let padding = match node.word("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {
            let pads = match node.ints("pads") {
                None => vec![0; 2 * axes],
                Some(pads) if pads.len() == 2 * axes => arithmetic::sizes(pads)
                    .map_err(|_| Error::model(format!("negative padding {pads:?} is not supported")))?,
                Some(pads) => return Err(Error::model(format!("pads {pads:?} for {axes} axes"))),
            };
            match pads[..] {
                [top, left, bottom, right] => Padding::Explicit { top, bottom, left, right },
                [top, bottom] => Padding::Explicit { top, bottom, left: 0, right: 0 },
                _ => return Err(Error::model("pads of other than two axes")),
            }
        }
        "VALID" => Padding::all(0),
        "SAME_UPPER" => Padding::Same,
        "SAME_LOWER" => {
            let [[a, b], [c, d]] = Window { padding: Padding::Same, ..window }.pads(shape.h, shape.w);
            Padding::Explicit { top: b, bottom: a, left: d, right: c }
        }
        other => return Err(Error::model(format!("auto_pad {other} is not supported"))),
    };
    let ceil = ceil && padding != Padding::Same;
    Ok(Window { padding, ceil, ..window })
}

/// The map before a padding with zeros, and the window that pads as much more.
fn with_padding(im: &Importer, x: NodeId, window: Window, value: impl Fn(f64) -> bool) -> (NodeId, Window) {
    let (Some(padded), Padding::Explicit { top, bottom, left, right }) = (im.padding(x), window.padding) else {
        return (x, window);
    };
    let sides = [padded.rows, padded.columns].concat();
    if !value(padded.value) || sides.iter().any(|&n| n < 0) {
        return (x, window);
    }
    let more = |n: usize, side: usize| n + sides[side].unsigned_abs();
    let padding =
        Padding::Explicit { top: more(top, 0), bottom: more(bottom, 1), left: more(left, 2), right: more(right, 3) };
    (padded.source, Window { padding, ..window })
}

fn conv(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (signal, w) = (x.signal(0)?, x.constant(1)?);
    let name = layer_name(node, 1);
    let axes = w.dims.len().saturating_sub(2);
    if !(1..=2).contains(&axes) || signal.view.rank() != axes + 2 {
        return Err(Error::model(format!(
            "a weight of shape {:?} on an array of shape {:?} is not supported",
            w.dims,
            signal.dims()
        )));
    }
    let kernel = [w.dims[2], w.dims.get(3).copied().unwrap_or(1)];
    if let Some(stated) = node.ints("kernel_shape")
        && stated.iter().map(|&n| usize::try_from(n).ok()).ne(w.dims[2..].iter().map(|&n| Some(n)))
    {
        return Err(Error::model(format!("kernel_shape {stated:?} for a weight of shape {:?}", w.dims)));
    }
    let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
    if axes == 1
        && let Some(made) = conv_over_channels(im, node, x, &name)?
    {
        return Ok(made);
    }
    let source = im.arranged(signal, &[1, 2, 3][..axes + 1], &format!("{name}.input"))?;
    let shape = im.shape(source);
    let window = window(node, kernel, shape, axes)?;
    let (source, window) = with_padding(im, source, window, |v| v == 0.0);
    im.no_void(source)?;
    let weight = weight(w, [w.dims[0], w.dims[1], kernel[0], kernel[1]])?;
    let bias = bias_of(x, 2, w.dims[0])?;
    let out = im.add(&name, Op::Conv(Conv { weight, bias, window, groups }), &[source])?;
    Ok(im.seen(out, signal.view.rank()))
}

/// A convolution along the axis that holds the channels of a vector (efficient channel attention), as a linear layer.
fn conv_over_channels(im: &mut Importer, node: &Node, x: &Inputs, name: &str) -> Result<Option<Signal>> {
    let (signal, w) = (x.signal(0)?, x.constant(1)?);
    let shape = im.shape_of(signal);
    let over = signal.view.is_whole(2, shape) == Some(Dim::Channel);
    if !over || !signal.view.axes[1].is_empty() || shape.plane() != 1 || w.dims[..2] != [1, 1] {
        return Ok(None);
    }
    let window = window(node, [w.dims[2], 1], Shape::new(1, shape.c, 1), 1)?;
    let [out, _] = window.output(shape.c, 1)?;
    let [[before, _], _] = window.pads(shape.c, 1);
    let taps = w.to_real();
    let mut matrix = vec![0.0; out * shape.c];
    for o in 0..out {
        for (t, &tap) in taps.iter().enumerate() {
            let at = (o * window.stride[0] + t * window.dilation[0]).checked_sub(before).filter(|&i| i < shape.c);
            if let Some(i) = at {
                matrix[o * shape.c + i] = tap;
            }
        }
    }
    let weight = weight(&Constant::real(vec![out, shape.c], matrix), [out, shape.c, 1, 1])?;
    let bias = bias_of(x, 2, 1)?.map(|b| vec![b[0]; out].into());
    let source = im.node_of(signal)?;
    let node = im.linear(source, Linear { weight, bias }, name)?;
    Ok(Some(Signal::of(node, signal.view.with_axis(2, whole(Dim::Channel, out)))))
}

/// A linear layer along `axis`: `rows` holds the weight `[outputs, inputs]`.
fn linear(
    im: &mut Importer,
    signal: &Signal,
    axis: usize,
    (rows, bias): (&Constant, Option<std::sync::Arc<[f64]>>),
    name: &str,
) -> Result<Signal> {
    let [outputs, inputs] = rows.dims[..] else {
        return Err(Error::model(format!("a weight of shape {:?} is not supported", rows.dims)));
    };
    if signal.dims()[axis] != inputs {
        return Err(Error::model(format!(
            "a weight of {inputs} inputs on axis {axis} of an array of shape {:?}",
            signal.dims()
        )));
    }
    let shape = im.shape_of(signal);
    let atoms = signal.view.axes[axis].clone();
    let source = im.node_of(signal)?;
    im.no_void(source)?;
    let of_channels = atoms.iter().all(|a| a.dim == Dim::Channel) && inputs == shape.c;
    let alone = (0..signal.view.rank()).all(|a| a == axis || signal.view.axes[a].iter().all(|a| a.dim == Dim::Picture));
    let all = alone && atoms.iter().all(|a| a.dim != Dim::Picture) && inputs == shape.len();
    let (source, order) = if of_channels {
        (source, indices(&atoms))
    } else if all {
        (im.add(&format!("{name}.flatten"), Op::Flatten, &[source])?, flat_indices(&atoms, shape))
    } else {
        return Err(Error::model(format!(
            "products over axis {axis} of an array of shape {:?}, which is not the channels, are not supported",
            signal.dims()
        )));
    };
    // Input `order[j]` of the map is input j of the weight.
    let rows = if order.iter().copied().eq(0..inputs) {
        rows.clone()
    } else {
        let mut from = vec![0; inputs];
        order.iter().enumerate().for_each(|(j, &at)| from[at] = j);
        rows.picked(vec![outputs, inputs], (0..outputs).flat_map(|o| from.iter().map(move |&j| o * inputs + j)))
    };
    let weight = weight(&rows, [outputs, inputs, 1, 1])?;
    let node = if im.shape(source).plane() == 1 {
        im.linear(source, Linear { weight, bias }, name)?
    } else {
        let conv = Conv { weight, bias, window: Window::square(1, 1, 0), groups: 1 };
        im.add(name, Op::Conv(conv), &[source])?
    };
    Ok(Signal::of(node, signal.view.with_axis(axis, whole(Dim::Channel, outputs))))
}

fn gemm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (a, b) = (x.signal(0)?, x.constant(1)?);
    if a.view.rank() != 2 || b.dims.len() != 2 {
        return Err(Error::model(format!("shapes {:?} and {:?}; expected two axes each", a.dims(), b.dims)));
    }
    let a =
        if node.int("transA", 0) != 0 { Signal { view: a.view.transposed(&[1, 0]), ..a.clone() } } else { a.clone() };
    let rows = if node.int("transB", 0) != 0 { b.clone() } else { b.transposed(&[1, 0]) };
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let rows = if alpha == 1.0 { rows } else { mapped_constant(&rows, |v| alpha * v) };
    let name = layer_name(node, 1);
    let outputs = rows.dims[0];
    if let Some(Value::Constant(c)) = x.get(2)
        && (c.len() == 1 || c.len() == outputs && c.dims.last() == Some(&outputs))
    {
        let numbers = c.to_real();
        let bias = (0..outputs).map(|i| beta * numbers[if numbers.len() == 1 { 0 } else { i }]).collect();
        return linear(im, &a, 1, (&rows, Some(bias)), &name);
    }
    let y = linear(im, &a, 1, (&rows, None), &name)?;
    match x.get(2) {
        None => Ok(y),
        Some(Value::Constant(c)) => {
            with_constants(im, &y, &mapped_constant(c, |v| beta * v), &format!("{name}.bias"), false)
        }
        Some(Value::Signal(c)) => {
            let c = scaled(im, c, beta, 0.0, &format!("{name}.scaled"))?;
            im.combined(Binary::Add, &y, &c, &format!("{name}.sum"))
        }
    }
}

fn matmul(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    let flat = |c: &Constant| -> Result<Constant> {
        let rank = c.dims.len();
        if rank < 2 || c.dims[..rank - 2].iter().any(|&d| d != 1) {
            return Err(Error::model(format!("a matrix of shape {:?} is not supported", c.dims)));
        }
        Ok(c.with_dims(c.dims[rank - 2..].to_vec()))
    };
    match (x.get(0), x.get(1)) {
        (Some(Value::Signal(a)), Some(Value::Constant(b))) => {
            let axis = a.axis(-1)?;
            linear(im, a, axis, (&flat(b)?.transposed(&[1, 0]), None), name)
        }
        (Some(Value::Constant(a)), Some(Value::Signal(b))) => {
            let axis = b.axis(-2)?;
            linear(im, b, axis, (&flat(a)?, None), name)
        }
        (Some(Value::Signal(_)), Some(Value::Signal(_))) => {
            Err(Error::model("products of two arrays that both depend on the picture (attention) are not supported"))
        }
        _ => Err(Error::model("an input is missing")),
    }
}

/// Channels of a signal whose axis 1 they are.
fn channels_at_1(im: &Importer, signal: &Signal) -> Result<usize> {
    let shape = im.shape_of(signal);
    if signal.view.rank() < 2 {
        return Err(Error::model(format!("an array of shape {:?} has no channels", signal.dims())));
    }
    Ok(match signal.view.is_whole(1, shape) {
        Some(Dim::Channel) => shape.c,
        _ => signal.dims()[1],
    })
}

fn vector(x: &Inputs, i: usize, what: &str, n: usize) -> Result<std::sync::Arc<[f64]>> {
    let c = x.constant(i)?;
    if c.len() != n {
        return Err(Error::model(format!("{what} has {} numbers for {n} channels", c.len())));
    }
    Ok(c.to_real())
}

fn batch_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    if node.int("training_mode", 0) != 0 || node.opset < 14 && node.outputs.iter().skip(1).any(|o| !o.is_empty()) {
        return Err(Error::model("it takes the statistics of the batch (training mode): export the net for inference"));
    }
    if node.opset < 9 && node.int("spatial", 1) == 0 {
        return Err(Error::model("statistics for each position (spatial = 0) are not supported"));
    }
    let signal = x.signal(0)?;
    let c = channels_at_1(im, signal)?;
    let eps = node.float("epsilon", 1e-5);
    let norm = BatchNorm {
        gamma: vector(x, 1, "scale", c)?,
        beta: vector(x, 2, "bias", c)?,
        mean: vector(x, 3, "mean", c)?,
        variance: vector(x, 4, "variance", c)?,
        eps,
    };
    if norm.variance.iter().any(|v| !(v + eps > 0.0)) {
        return Err(Error::model("a variance that is negative or 0"));
    }
    let name = layer_name(node, 1);
    if signal.view.is_whole(1, im.shape_of(signal)) == Some(Dim::Channel) || c == 1 && im.shape_of(signal).c == 1 {
        let source = im.node_of(signal)?;
        im.no_void(source)?;
        let out = im.add(&name, Op::BatchNorm(norm), &[source])?;
        return Ok(Signal::of(out, signal.view.clone()));
    }
    // Its channels are parts of others (a flattened map): constants on these.
    let (scale, shift) = norm.affine();
    let mut dims = vec![1; signal.view.rank()];
    dims[1] = c;
    let y = with_constants(im, signal, &Constant::real(dims.clone(), scale), &format!("{name}.scale"), true)?;
    with_constants(im, &y, &Constant::real(dims, shift), &name, false)
}

/// Mean 0 and variance 1 over `axes`.
fn standardised(im: &mut Importer, signal: &Signal, axes: &[usize], eps: f64, name: &str) -> Result<Signal> {
    let shape = im.shape_of(signal);
    let atoms: Vec<Atom> = axes.iter().flat_map(|&a| signal.view.axes[a].iter().copied()).collect();
    let size = |dim: Dim| atoms.iter().filter(|a| a.dim == dim).map(|a| a.size).product::<usize>();
    let positions = size(Dim::Row) * size(Dim::Column);
    let refuse = || {
        Error::model(format!(
            "a normalisation over axes {axes:?} of an array of shape {:?} is not supported",
            signal.dims()
        ))
    };
    if size(Dim::Picture) != 1 || (positions != 1 && positions != shape.plane()) {
        return Err(refuse());
    }
    let inner: Vec<Atom> = atoms.iter().copied().filter(|a| a.dim == Dim::Channel).collect();
    let groups = shape.c / size(Dim::Channel);
    let (x, view) = im.regrouped(signal, &inner, &format!("{name}.grouped"))?;
    im.no_void(x)?;
    let across_positions = positions == shape.plane() && shape.plane() > 1;
    let out = im.add(name, Op::Standardise(Standardise { groups, across_positions, eps }), &[x])?;
    Ok(Signal::of(out, view))
}

/// `constant` along axis `axis` of an array of rank `rank`.
fn along(constant: &Constant, axis: usize, rank: usize) -> Constant {
    let mut dims = vec![1; rank];
    dims[axis] = constant.len();
    constant.with_dims(dims)
}

fn scaled_and_shifted(
    im: &mut Importer,
    y: &Signal,
    scale: &Constant,
    shift: Option<&Constant>,
    name: &str,
) -> Result<Signal> {
    let y = with_constants(im, y, scale, &format!("{name}.scale"), true)?;
    match shift {
        Some(shift) => with_constants(im, &y, shift, &format!("{name}.shift"), false),
        None => Ok(y),
    }
}

fn instance_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let axes: Vec<usize> = (2..rank).collect();
    let name = layer_name(node, 1);
    let y = standardised(im, signal, &axes, node.float("epsilon", 1e-5), &format!("{name}.standardise"))?;
    let n = signal.dims().get(1).copied().unwrap_or(0);
    if x.constant(1)?.len() != n || x.constant(2)?.len() != n {
        return Err(Error::model(format!("scale and bias do not have {n} numbers")));
    }
    scaled_and_shifted(im, &y, &along(x.constant(1)?, 1, rank), Some(&along(x.constant(2)?, 1, rank)), &name)
}

fn group_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let dims = signal.dims();
    let groups = usize::try_from(node.int("num_groups", 0)).unwrap_or(0);
    if dims.len() < 2 || groups == 0 || !dims[1].is_multiple_of(groups) {
        return Err(Error::model(format!("{groups} groups of an array of shape {dims:?}")));
    }
    let name = layer_name(node, 1);
    let inner = dims[1] / groups;
    let split: Vec<usize> = [&[dims[0], groups, inner], &dims[2..]].concat();
    let grouped = reshaped(im, signal, &split, &name)?;
    let axes: Vec<usize> = (2..split.len()).collect();
    let y = standardised(im, &grouped, &axes, node.float("epsilon", 1e-5), &format!("{name}.standardise"))?;
    let y = reshaped(im, &y, &dims, &name)?;
    let spread = |c: &Constant| -> Result<Constant> {
        let per_channel = match c.len() {
            n if n == dims[1] && node.opset >= 21 => c.clone(),
            // Up to opset 20 one number for each group.
            n if n == groups && node.opset < 21 => c.picked(vec![dims[1]], (0..dims[1]).map(|i| i / inner)),
            n => {
                return Err(Error::model(format!(
                    "scale or bias of {n} numbers for {groups} groups of {inner} channels"
                )));
            }
        };
        Ok(along(&per_channel, 1, dims.len()))
    };
    scaled_and_shifted(im, &y, &spread(x.constant(1)?)?, Some(&spread(x.constant(2)?)?), &name)
}

fn layer_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let first = signal.axis(node.int("axis", -1))?;
    let axes: Vec<usize> = (first..rank).collect();
    let name = layer_name(node, 1);
    let y = standardised(im, signal, &axes, node.float("epsilon", 1e-5), &format!("{name}.standardise"))?;
    scaled_and_shifted(im, &y, x.constant(1)?, x.optional(2)?, &name)
}

fn lrn(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let size = usize::try_from(node.int("size", 0)).unwrap_or(0);
    if size.is_multiple_of(2) {
        return Err(Error::model(format!("sums over an even number of channels ({size}) are not supported")));
    }
    let map = im.map(signal, &node.name)?;
    let norm = LocalResponseNorm {
        size,
        alpha: node.float("alpha", 1e-4),
        beta: node.float("beta", 0.75),
        k: node.float("bias", 1.0),
    };
    let out = im.normalised_locally(&node.name, map, norm)?;
    Ok(im.seen(out, signal.view.rank()))
}

fn lp_normalised(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    if node.int("p", 2) != 2 {
        return Err(Error::model("only the Euclidean norm (p = 2) is supported"));
    }
    let signal = x.signal(0)?;
    let axis = signal.axis(node.int("axis", -1))?;
    let name = &node.name;
    let square = im.smooth(signal, Smooth::Power { exponent: 2.0 }, &format!("{name}.square"))?;
    let sum = reduce_over(im, &square, &[axis], Kind::Sum, &format!("{name}.sum"))?;
    let norm = im.smooth(&sum, Smooth::Power { exponent: 0.5 }, &format!("{name}.norm"))?;
    im.combined(Binary::Divide, signal, &norm, name)
}

fn pool(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    if !(3..=4).contains(&rank) {
        return Err(Error::model(format!("a pool of an array of shape {:?} is not supported", signal.dims())));
    }
    let name = node.name.as_str();
    let axes = rank - 2;
    let kernel = match node.ints("kernel_shape") {
        Some(k) if k.len() == axes => arithmetic::sizes(k)?,
        _ => return Err(Error::model("kernel_shape is missing or has another number of axes")),
    };
    let source = im.arranged(signal, &[1, 2, 3][..rank - 1], &format!("{name}.input"))?;
    let shape = im.shape(source);
    let window = window(node, [kernel[0], kernel.get(1).copied().unwrap_or(1)], shape, axes)?;
    let out = if node.op == "MaxPool" {
        // Numbers that never win are the pool's own padding.
        let (source, window) = with_padding(im, source, window, |v| v < -1e30);
        im.no_void(source)?;
        im.add(name, Op::MaxPool(window), &[source])?
    } else {
        im.no_void(source)?;
        let count_padding = node.int("count_include_pad", 0) != 0;
        if window.dilation != [1; 2] {
            return Err(Error::model("means over dilated windows are not supported"));
        }
        if window.taps() == 1 && window.stride == [1; 2] && window.padding == Padding::all(0) {
            source
        } else {
            im.add(name, Op::AvgPool { window, count_padding }, &[source])?
        }
    };
    Ok(im.seen(out, rank))
}

fn softmax(im: &mut Importer, node: &Node, signal: &Signal) -> Result<Signal> {
    let rank = signal.view.rank();
    let axis = axis_of(node.int("axis", if node.opset < 13 { 1 } else { -1 }), rank)?;
    let axes = if node.opset < 13 { axis..rank } else { axis..axis + 1 };
    let atoms: Vec<Atom> = axes.flat_map(|a| signal.view.axes[a].iter().copied()).collect();
    if atoms.iter().any(|a| a.dim != Dim::Channel) {
        return Err(Error::model(format!(
            "over positions of an array of shape {:?} it is not supported; over channels it is",
            signal.dims()
        )));
    }
    let size: usize = atoms.iter().map(|a| a.size).product();
    let groups = im.shape_of(signal).c / size;
    let (x, view) = im.regrouped(signal, &atoms, &format!("{}.grouped", node.name))?;
    im.no_void(x)?;
    let out = im.add(&node.name, Op::Softmax { groups }, &[x])?;
    Ok(Signal::of(out, view))
}

/// What a reduction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mean,
    Sum,
    Max,
}

fn reduced(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let axes = arithmetic::axes(node, x.optional(1)?)?.filter(|a| !a.is_empty());
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&a| signal.axis(a)).collect::<Result<_>>()?,
        None if node.int("noop_with_empty_axes", 0) != 0 => return Ok(signal.clone()),
        None => (0..rank).collect(),
    };
    let name = node.name.as_str();
    let inner = |what: &str| format!("{name}.{what}");
    let y = match node.op.as_str() {
        "ReduceMean" => reduce_over(im, signal, &axes, Kind::Mean, name)?,
        "ReduceSum" => reduce_over(im, signal, &axes, Kind::Sum, name)?,
        "ReduceMax" => reduce_over(im, signal, &axes, Kind::Max, name)?,
        "ReduceMin" => {
            let negative = scaled(im, signal, -1.0, 0.0, &inner("negative"))?;
            let most = reduce_over(im, &negative, &axes, Kind::Max, &inner("max"))?;
            scaled(im, &most, -1.0, 0.0, name)?
        }
        "ReduceL1" => {
            let abs = im.smooth(signal, Smooth::Abs, &inner("abs"))?;
            reduce_over(im, &abs, &axes, Kind::Sum, name)?
        }
        op => {
            let square = im.smooth(signal, Smooth::Power { exponent: 2.0 }, &inner("square"))?;
            let sum = reduce_over(im, &square, &axes, Kind::Sum, &inner("sum"))?;
            if op == "ReduceL2" { im.smooth(&sum, Smooth::Power { exponent: 0.5 }, name)? } else { sum }
        }
    };
    if node.int("keepdims", 1) != 0 {
        return Ok(y);
    }
    let kept: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).collect();
    Ok(Signal { view: y.view.transposed(&kept), ..y })
}

/// A reduction over axes, which stay with size 1.
fn reduce_over(im: &mut Importer, signal: &Signal, axes: &[usize], kind: Kind, name: &str) -> Result<Signal> {
    let atoms: Vec<Atom> = axes.iter().flat_map(|&a| signal.view.axes[a].iter().copied()).collect();
    let refuse =
        || Error::model(format!("over axes {axes:?} of an array of shape {:?} it is not supported", signal.dims()));
    if atoms.is_empty() {
        return Ok(signal.clone());
    }
    let shape = im.shape_of(signal);
    let size = |dim: Dim| atoms.iter().filter(|a| a.dim == dim).map(|a| a.size).product::<usize>();
    if size(Dim::Picture) != 1 {
        return Err(Error::model("it is over the pictures of a batch"));
    }
    let (c, h, w) = (size(Dim::Channel), size(Dim::Row), size(Dim::Column));
    if (h != 1 && h != shape.h) || (w != 1 && w != shape.w) {
        return Err(refuse());
    }
    let mut x = im.node_of(signal)?;
    im.no_void(x)?;
    let mut view = signal.view.clone();
    axes.iter().for_each(|&a| view.axes[a].clear());
    let whole_positions = h == shape.h && w == shape.w && shape.plane() > 1;
    if c == shape.c && c > 1 && (whole_positions || shape.plane() == 1) && kind != Kind::Max {
        let over = Over::Everything;
        let x = im.add(name, Op::Reduce(Reduce { over, mean: kind == Kind::Mean }), &[x])?;
        return Ok(Signal::of(x, view));
    }
    let last = c == 1;
    let inner = |what: &str, last: bool| if last { name.to_owned() } else { format!("{name}.{what}") };
    if whole_positions {
        let op = match kind {
            Kind::Mean => Op::AdaptiveAvgPool { out: [1; 2] },
            Kind::Sum => Op::Reduce(Reduce { over: Over::Positions, mean: false }),
            Kind::Max => Op::GlobalMaxPool,
        };
        x = im.add(&inner("positions", last), op, &[x])?;
    } else if h * w > 1 {
        let window = Window { kernel: [h, w], ..Window::square(1, 1, 0) };
        x = match kind {
            Kind::Max => im.add(&inner("positions", last), Op::MaxPool(window), &[x])?,
            _ => im.add(
                &inner("positions", last && kind == Kind::Mean),
                Op::AvgPool { window, count_padding: true },
                &[x],
            )?,
        };
        if kind == Kind::Sum {
            x = im.affine(x, Affine::product([(h * w) as f64]), &inner("positions.sum", last))?;
        }
    }
    if c == 1 {
        return Ok(Signal::of(x, view));
    }
    if c == shape.c {
        let op = match kind {
            Kind::Max => Op::ChannelMax,
            _ => Op::Reduce(Reduce { over: Over::Channels, mean: kind == Kind::Mean }),
        };
        return Ok(Signal::of(im.add(name, op, &[x])?, view));
    }
    if kind == Kind::Max || c > 64 {
        return Err(refuse());
    }
    // A part of the channels: slices of the rest, added.
    let parts: Vec<Atom> = atoms.iter().copied().filter(|a| a.dim == Dim::Channel).collect();
    let outer: Vec<Atom> = view.flat().into_iter().filter(|a| a.dim == Dim::Channel).collect();
    let order: Vec<usize> =
        indices(&parts).into_iter().flat_map(|p| indices(&outer).into_iter().map(move |o| p + o)).collect();
    let sorted = im.channels(x, &order, &format!("{name}.grouped"))?;
    let rest = shape.c / c;
    let mut terms = Vec::new();
    for i in 0..c {
        terms.push(im.add(&format!("{name}.{i}"), Op::Slice { first: i * rest, channels: rest }, &[sorted])?);
    }
    let mut y = im.add(&inner("sum", kind == Kind::Sum), Op::Add, &terms)?;
    if kind == Kind::Mean {
        y = im.affine(y, Affine::product([1.0 / c as f64]), name)?;
    }
    // The channels that are left are those of `outer`, in order.
    let mut step = rest;
    let mut strides = Vec::new();
    for atom in &outer {
        step /= atom.size;
        strides.push((*atom, step));
    }
    for axis in &mut view.axes {
        for atom in axis.iter_mut().filter(|a| a.dim == Dim::Channel) {
            let found = strides
                .iter()
                .find(|(old, _)| old.stride <= atom.stride && atom.stride * atom.size <= old.stride * old.size);
            let (old, new) = found.ok_or_else(refuse)?;
            atom.stride = atom.stride / old.stride * new;
        }
    }
    Ok(Signal::of(y, view))
}

fn concat(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let name = node.name.as_str();
    let values: Vec<&Value> = x.0.iter().flatten().collect();
    let Some(rank) = values.iter().find_map(|v| match v {
        Value::Signal(s) => Some(s.view.rank()),
        Value::Constant(_) => None,
    }) else {
        return Err(Error::model("it has no inputs"));
    };
    let axis = axis_of(node.int("axis", 1), rank)?;
    let mut signals: Vec<Signal> = Vec::new();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for value in values {
        match value {
            Value::Signal(s) if s.view.rank() != rank => return Err(Error::model("inputs of different ranks")),
            Value::Signal(s) if after.is_empty() => signals.push(s.clone()),
            Value::Constant(c) if c.dims.get(axis) == Some(&0) => {}
            Value::Constant(c) if c.dims.len() == rank && c.to_real().iter().all(|&v| v == 0.0) => {
                if signals.is_empty() { before.push(c.dims[axis]) } else { after.push(c.dims[axis]) }
            }
            _ => return Err(Error::model("constants other than zeros at either end are not supported")),
        }
    }
    let lies_alike = |s: &Signal| {
        let shape = im.shape_of(s);
        let this = s.view.axes[axis].is_empty() && shape.c == 1 || s.view.is_whole(axis, shape) == Some(Dim::Channel);
        let first = &signals[0].view;
        this && (0..rank).all(|a| a == axis || s.view.axes[a] == first.axes[a])
    };
    let positions = |s: &Signal| [im.shape_of(s).h, im.shape_of(s).w];
    let alike = signals.iter().all(lies_alike) && signals.iter().all(|s| positions(s) == positions(&signals[0]));
    let (parts, along): (Vec<NodeId>, Dim) = if alike {
        let nodes = signals.iter().map(|s| im.node_of(s)).collect::<Result<_>>()?;
        (nodes, Dim::Channel)
    } else {
        let along = axis.checked_sub(1).and_then(|a| MAP.get(a)).filter(|_| (2..=4).contains(&rank));
        let along = *along.ok_or_else(|| Error::model(format!("along axis {axis} of {rank} it is not supported")))?;
        let mut nodes = Vec::new();
        for (i, s) in signals.iter().enumerate() {
            nodes.push(im.map(s, &format!("{name}.{i}"))?);
        }
        (nodes, along)
    };
    for &part in &parts {
        im.no_void(part)?;
    }
    let (before, after): (usize, usize) = (before.iter().sum(), after.iter().sum());
    let mut out = match (along, &parts[..]) {
        (_, [only]) => *only,
        (Dim::Channel, parts) => im.add(name, Op::Concat, parts)?,
        (_, parts) => {
            // Along rows or columns: each among zeros, added.
            let extents: Vec<usize> = parts.iter().map(|&p| extent(im.shape(p), along)).collect();
            let total: usize = extents.iter().sum();
            let (mut terms, mut first) = (Vec::new(), 0);
            for (i, (&part, &n)) in parts.iter().zip(&extents).enumerate() {
                let sides = [first as isize, (total - first - n) as isize];
                let (rows, columns) = if along == Dim::Row { (sides, [0; 2]) } else { ([0; 2], sides) };
                terms.push(im.add(&format!("{name}.part{i}"), Op::Pad { rows, columns }, &[part])?);
                first += n;
            }
            im.add(name, Op::Add, &terms)?
        }
    };
    if before + after > 0 {
        if along != Dim::Channel {
            return Err(Error::model("zeros along rows or columns are not supported"));
        }
        out = im.add(&format!("{name}.zeros"), Op::PadChannels { before, after }, &[out])?;
    }
    if alike {
        let atoms = whole(Dim::Channel, im.shape(out).c);
        return Ok(Signal::of(out, signals[0].view.with_axis(axis, atoms)));
    }
    Ok(im.seen(out, rank))
}

/// The elements `at` along `axis`.
fn taken(im: &mut Importer, signal: &Signal, axis: usize, at: &[usize], name: &str) -> Result<Signal> {
    let n = signal.dims()[axis];
    if at.iter().copied().eq(0..n) {
        return Ok(signal.clone());
    }
    if at.is_empty() {
        return Err(Error::model("it leaves nothing"));
    }
    let shape = im.shape_of(signal);
    let atoms = signal.view.axes[axis].clone();
    if atoms.iter().all(|a| a.dim == Dim::Channel) && n == shape.c {
        let order = indices(&atoms);
        let order: Vec<usize> = at.iter().map(|&i| order[i]).collect();
        let x = im.node_of(signal)?;
        im.no_void(x)?;
        let node = im.channels(x, &order, name)?;
        return Ok(Signal::of(node, signal.view.with_axis(axis, whole(Dim::Channel, at.len()))));
    }
    match signal.view.is_whole(axis, shape) {
        Some(dim @ (Dim::Row | Dim::Column)) => {
            let step = if at.len() > 1 { at[1].wrapping_sub(at[0]) } else { 1 };
            let regular = at.windows(2).all(|w| w[1] == w[0] + step) && step > 0 && step <= n;
            if !regular {
                return Err(Error::model("rows or columns in another order are not supported"));
            }
            let x = im.node_of(signal)?;
            im.no_void(x)?;
            let end = at[at.len() - 1] + 1;
            let sides = [at[0], n - end];
            let (rows, columns) = if dim == Dim::Row { (sides, [0; 2]) } else { ([0; 2], sides) };
            let mut node = im.cropped(x, rows, columns, name)?;
            if step > 1 {
                let stride = if dim == Dim::Row { [step, 1] } else { [1, step] };
                node = im.add(&format!("{name}.every"), Op::Subsample { stride }, &[node])?;
            }
            Ok(Signal::of(node, signal.view.with_axis(axis, whole(dim, at.len()))))
        }
        _ => {
            // A part of the channels, the other parts whole.
            let parts: Vec<Atom> = atoms;
            if parts.iter().any(|a| a.dim != Dim::Channel) {
                return Err(Error::model(format!(
                    "a part of axis {axis} of an array of shape {:?} is not supported",
                    signal.dims()
                )));
            }
            let (x, view) = im.regrouped(signal, &parts, &format!("{name}.grouped"))?;
            im.no_void(x)?;
            let inner = n;
            let outer = shape.c / inner;
            let order: Vec<usize> = (0..outer).flat_map(|o| at.iter().map(move |&i| o * inner + i)).collect();
            let node = im.channels(x, &order, name)?;
            let mut axes = view.axes;
            for (a, atoms) in axes.iter_mut().enumerate() {
                for atom in atoms.iter_mut().filter(|atom| a != axis && atom.dim == Dim::Channel) {
                    atom.stride = atom.stride / inner * at.len();
                }
            }
            axes[axis] = whole(Dim::Channel, at.len());
            Ok(Signal::of(node, View { axes }))
        }
    }
}

fn split(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Vec<Value>> {
    let signal = x.signal(0)?;
    let axis = signal.axis(node.int("axis", 0))?;
    let sizes = arithmetic::parts(node, x.optional(1)?, signal.dims()[axis])?;
    let mut first = 0;
    let mut outputs = Vec::new();
    for (i, n) in sizes.into_iter().enumerate() {
        let at: Vec<usize> = (first..first + n).collect();
        outputs.push(Value::Signal(taken(im, signal, axis, &at, &format!("{}.{i}", node.name))?));
        first += n;
    }
    Ok(outputs)
}

fn sliced(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let mut signal = x.signal(0)?.clone();
    for i in 1..x.0.len() {
        x.optional(i)?;
    }
    for (axis, at) in arithmetic::cuts(node, &x.constants(), &signal.dims())? {
        signal = taken(im, &signal, axis, &at, &node.name)?;
    }
    Ok(signal)
}

fn gathered(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (signal, at) = (x.signal(0)?, x.constant(1)?);
    let axis = signal.axis(node.int("axis", 0))?;
    let places = arithmetic::places(&at.to_whole()?, signal.dims()[axis])?;
    let y = taken(im, signal, axis, &places, &node.name)?;
    if at.dims.len() > 1 {
        let dims = y.dims();
        let to: Vec<usize> = [&dims[..axis], &at.dims, &dims[axis + 1..]].concat();
        return reshaped(im, &y, &to, &node.name);
    }
    if at.dims.is_empty() {
        let kept: Vec<usize> = (0..y.view.rank()).filter(|&a| a != axis).collect();
        return Ok(Signal { view: y.view.transposed(&kept), ..y });
    }
    Ok(y)
}

fn pad(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let mode = node.word("mode", "constant")?;
    let pads = match node.ints("pads").or(node.ints("paddings")) {
        Some(pads) => pads.to_vec(),
        None => x.constant(1)?.to_whole()?.to_vec(),
    };
    let axes: Vec<usize> = match x.optional(3)? {
        Some(axes) => axes.to_whole()?.iter().map(|&a| signal.axis(a)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Error::model(format!("{} numbers of padding for {} axes", pads.len(), axes.len())));
    }
    if pads.iter().all(|&n| n == 0) {
        return Ok(signal.clone());
    }
    if mode != "constant" {
        return Err(Error::model(format!("padding by {mode} is not supported")));
    }
    let value = match x.optional(2)? {
        Some(c) if c.len() == 0 => 0.0,
        Some(c) => c.single().ok_or_else(|| Error::model("a padding of several numbers"))?,
        None => node.float("value", 0.0),
    };
    let mut sides = vec![[0isize; 2]; rank];
    for (i, &axis) in axes.iter().enumerate() {
        let side = |n: i64| isize::try_from(n).map_err(|_| Error::model(format!("a padding of {n}")));
        sides[axis] = [side(pads[i])?, side(pads[i + axes.len()])?];
    }
    let shape = im.shape_of(signal);
    // The axis of the map that each axis is; one of size 1 is that of its place in [n, c, h, w] if nothing else is.
    let mut dims: Vec<Option<Dim>> = (0..rank).map(|a| signal.view.is_whole(a, shape)).collect();
    for axis in 0..rank {
        if signal.view.axes[axis].is_empty() && sides[axis] != [0; 2] {
            let free = MAP.into_iter().filter(|d| extent(shape, *d) == 1 && !dims.contains(&Some(*d)));
            dims[axis] = free.into_iter().next();
        }
    }
    let of = |dim: Dim| (0..rank).find(|&a| dims[a] == Some(dim)).map_or([0; 2], |a| sides[a]);
    if (0..rank).any(|a| sides[a] != [0; 2] && dims[a].is_none()) {
        return Err(Error::model(format!(
            "padding {pads:?} of an array of shape {:?} is not supported",
            signal.dims()
        )));
    }
    let (channels, rows, columns) = (of(Dim::Channel), of(Dim::Row), of(Dim::Column));
    let name = node.name.as_str();
    let mut source = im.node_of(signal)?;
    if channels != [0; 2] {
        let [Ok(before), Ok(after)] = channels.map(usize::try_from) else {
            return Err(Error::model("negative padding of channels is not supported"));
        };
        if value != 0.0 {
            return Err(Error::model("padding channels with other numbers than 0 is not supported"));
        }
        im.no_void(source)?;
        source = im.add(&format!("{name}.channels"), Op::PadChannels { before, after }, &[source])?;
    }
    let node = if rows == [0; 2] && columns == [0; 2] {
        source
    } else {
        im.no_void(source)?;
        im.padded(Padded { source, rows, columns, value }, name)?
    };
    let mut view = signal.view.clone();
    for axis in 0..rank {
        if let Some(dim) = dims[axis].filter(|_| sides[axis] != [0; 2]) {
            view.axes[axis] = whole(dim, extent(im.shape(node), dim));
        }
    }
    Ok(Signal::of(node, view))
}

fn reshaped(im: &mut Importer, signal: &Signal, to: &[usize], name: &str) -> Result<Signal> {
    if let Some(view) = signal.view.reshaped(to) {
        return Ok(Signal { view, ..signal.clone() });
    }
    // In the order of channels, rows and columns a flattened map can be cut anywhere.
    let shape = im.shape_of(signal);
    let ordered = flat_indices(&signal.view.of_map(), shape);
    if ordered.iter().copied().eq(0..shape.len()) && im.pictures == 1 {
        let x = im.node_of(signal)?;
        im.no_void(x)?;
        let flat = im.add(&format!("{name}.flatten"), Op::Flatten, &[x])?;
        let view = View { axes: vec![whole(Dim::Channel, shape.len())] }.reshaped(to);
        if let Some(view) = view {
            return Ok(Signal::of(flat, view));
        }
    }
    Err(Error::model(format!("a reshape of {:?} to {to:?} is not supported", signal.dims())))
}

fn space_to_depth(im: &mut Importer, node: &Node, signal: &Signal) -> Result<Signal> {
    let dims = signal.dims();
    let b = usize::try_from(node.int("blocksize", 0)).unwrap_or(0);
    if dims.len() != 4 || b == 0 || !dims[2].is_multiple_of(b) || !dims[3].is_multiple_of(b) {
        return Err(Error::model(format!("blocks of {b} in an array of shape {dims:?}")));
    }
    let [n, c, h, w] = [dims[0], dims[1], dims[2] / b, dims[3] / b];
    let split = reshaped(im, signal, &[n, c, h, b, w, b], &node.name)?;
    let turned = Signal { view: split.view.transposed(&[0, 3, 5, 1, 2, 4]), ..split };
    reshaped(im, &turned, &[n, b * b * c, h, w], &node.name)
}

fn resized(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let dims = signal.dims();
    if dims.len() != 4 {
        return Err(Error::model(format!("resizing an array of shape {dims:?} is not supported")));
    }
    let (scales, to) = if node.op == "Upsample" || node.opset < 11 {
        let scales = match node.attributes.get("scales") {
            Some(a) => a.floats.iter().map(|&v| f64::from(v)).collect(),
            None => x.constant(1)?.to_real().to_vec(),
        };
        (Some(scales), None)
    } else {
        let filled = |i: usize| x.optional(i).map(|c| c.filter(|c| c.len() > 0));
        (filled(2)?.map(|c| c.to_real().to_vec()), filled(3)?.map(Constant::to_whole).transpose()?)
    };
    if node.ints("axes").is_some_and(|axes| axes.len() != 4) {
        return Err(Error::model("sizes for some axes only are not supported"));
    }
    if node.word("keep_aspect_ratio_policy", "stretch")? != "stretch" {
        return Err(Error::model("keeping the aspect ratio is not supported"));
    }
    let (size, scale): (Vec<usize>, Vec<f64>) = match (&scales, &to) {
        (_, Some(to)) if to.len() == 4 => {
            let size = arithmetic::sizes(to)?;
            let scale = size.iter().zip(&dims).map(|(&s, &d)| s as f64 / d as f64).collect();
            (size, scale)
        }
        (Some(scales), None) if scales.len() == 4 => {
            let size = scales.iter().zip(&dims).map(|(s, &d)| (s * d as f64).floor() as usize).collect();
            (size, scales.clone())
        }
        _ => return Err(Error::model("it needs four scales or four sizes")),
    };
    if size[0] != dims[0] || size[1] != dims[1] {
        return Err(Error::model("resizing pictures or channels is not supported"));
    }
    let linear = match node.word("mode", "nearest")? {
        "nearest" => false,
        "linear" | "bilinear" => true,
        other => return Err(Error::model(format!("mode {other} is not supported"))),
    };
    if linear && node.int("antialias", 0) != 0 && scale.iter().any(|&s| s < 1.0) {
        return Err(Error::model("antialias is not supported"));
    }
    let old = node.op == "Upsample" || node.opset < 11;
    let coordinates = node.word("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" })?;
    let nearest = node.word("nearest_mode", if old { "floor" } else { "round_prefer_floor" })?;
    // Where row o of the result lies in the map, as ONNX says: elements with their shares.
    let wanted = |n: usize, out: usize, s: f64| -> Result<Vec<Vec<(usize, f64)>>> {
        (0..out)
            .map(|o| {
                let o = o as f64;
                let at = match coordinates {
                    "half_pixel" => (o + 0.5) / s - 0.5,
                    "pytorch_half_pixel" => {
                        if out > 1 {
                            (o + 0.5) / s - 0.5
                        } else {
                            0.0
                        }
                    }
                    "asymmetric" => o / s,
                    "align_corners" => {
                        if out > 1 {
                            o * (n as f64 - 1.0) / (out as f64 - 1.0)
                        } else {
                            0.0
                        }
                    }
                    other => {
                        return Err(Error::model(format!("coordinate_transformation_mode {other} is not supported")));
                    }
                };
                let most = n as f64 - 1.0;
                if linear {
                    let at = at.clamp(0.0, most);
                    let (low, part) = (at.floor(), at - at.floor());
                    return Ok(vec![(low as usize, 1.0 - part), ((low + 1.0).min(most) as usize, part)]);
                }
                let at = match nearest {
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    "round_prefer_floor" => (at - 0.5).ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    other => return Err(Error::model(format!("nearest_mode {other} is not supported"))),
                };
                Ok(vec![(at.clamp(0.0, most) as usize, 1.0)])
            })
            .collect()
    };
    let (rows, columns) = (wanted(dims[2], size[2], scale[2])?, wanted(dims[3], size[3], scale[3])?);
    let source = im.map(signal, &format!("{}.input", node.name))?;
    let (from, to) = (im.shape(source), Shape::new(dims[1], size[2], size[3]));
    let dense = |terms: &[(usize, f64)], n: usize| {
        let mut all = vec![0.0; n];
        terms.iter().for_each(|(i, share)| all[*i] += share);
        all
    };
    let same = |interpolation: Interpolation, want: &[Vec<(usize, f64)>], n: usize| {
        let blend = interpolation.blend(n, want.len());
        want.iter().enumerate().all(|(o, terms)| {
            let (a, b) = (dense(terms, n), dense(&blend.terms(o).collect::<Vec<_>>(), n));
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6)
        })
    };
    let kinds = [Interpolation::Nearest, Interpolation::Linear, Interpolation::LinearAligned];
    let kind = kinds.into_iter().find(|&k| same(k, &rows, from.h) && same(k, &columns, from.w));
    let Some(interpolation) = kind else {
        return Err(Error::model(format!(
            "{} by {coordinates} to this size is not supported",
            if linear { "linear" } else { nearest }
        )));
    };
    let factor = [to.h, to.w].iter().zip([from.h, from.w]).all(|(a, b)| a.is_multiple_of(b));
    let to = if factor && to_is_scale(&scales) {
        ResizeTo::Factor([to.h / from.h, to.w / from.w])
    } else {
        ResizeTo::Size([to.h, to.w])
    };
    let out = im.add(&node.name, Op::Resize(Resize { to, interpolation }), &[source])?;
    Ok(im.seen(out, 4))
}

fn to_is_scale(scales: &Option<Vec<f64>>) -> bool {
    scales.is_some()
}
