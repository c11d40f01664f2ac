//! ONNX's operations on signals, one function each.

mod elementwise;
mod inputs;
mod layers;
mod moves;
mod norms;
mod reduce;
mod resize;
mod windows;

use super::arithmetic::{self, shape_part};
use super::constant::{Constant, axes_of, axis_of};
use super::file::Node;
use super::import::{Importer, Signal, Value};
use super::scalar::{Binary, Scalar};
use super::supported::{STANDARDISE, unsupported};
use super::view::View;
use crate::error::{Error, Result};
use crate::graph::{Op, Smooth};
use elementwise::{
    SOFTPLUS, bounded, chosen, clipped, compared, hard_sigmoid, power, prelu, product, quotient, scaled, sum,
};
use inputs::Inputs;
use layers::{conv, gemm, matmul};
use moves::{concat, gathered, pad, reshaped, sliced, space_to_depth, split};
use norms::{batch_norm, group_norm, instance_norm, layer_norm, lp_normalised, lrn, standardised};
use reduce::{reduced, softmax};
use resize::resized;
use windows::pool;

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
        "Cast" => match node.int("to", 0) {
            _ if node.keeps_numbers() => one(Ok(x.signal(0)?.clone())),
            to => {
                Err(Error::model(format!("a cast of numbers that depend on the picture to type {to} is not supported")))
            }
        },
        // Signals are real numbers.
        "CastLike" => match (x.get(0), x.get(1)) {
            (Some(Value::Signal(_)), Some(Value::Constant(like))) if like.is_whole() => {
                Err(Error::model("whole numbers of what depends on the picture are not supported"))
            }
            (Some(value), Some(_)) => Ok(vec![value.clone()]),
            _ => Err(Error::model("an input is missing")),
        },
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
            let axes = axes_of(axes, signal.view.rank())?;
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
