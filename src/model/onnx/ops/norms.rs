//! Normalisations.

use super::elementwise::with_constants;
use super::inputs::{Inputs, layer_name};
use super::moves::reshaped;
use super::reduce::{Kind, reduce_over};
use crate::error::{Error, Result};
use crate::graph::{BatchNorm, LocalResponseNorm, Op, Smooth, Standardise};
use crate::model::onnx::constant::Constant;
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{ACROSS, Importer, Signal};
use crate::model::onnx::scalar::Binary;
use crate::model::onnx::view::{Atom, Dim};

/// Channels of a signal whose axis 1 they are.
pub(super) fn channels_at_1(im: &Importer, signal: &Signal) -> Result<usize> {
    let shape = im.shape_of(signal);
    if signal.view.rank() < 2 {
        return Err(Error::model(format!("an array of shape {:?} has no channels", signal.dims())));
    }
    Ok(match signal.view.is_whole(1, shape) {
        Some(Dim::Channel) => shape.c,
        _ => signal.dims()[1],
    })
}

pub(super) fn vector(x: &Inputs, i: usize, what: &str, n: usize) -> Result<std::sync::Arc<[f64]>> {
    let c = x.constant(i)?;
    if c.len() != n {
        return Err(Error::model(format!("{what} has {} numbers for {n} channels", c.len())));
    }
    Ok(c.to_real())
}

pub(super) fn batch_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
pub(super) fn standardised(im: &mut Importer, signal: &Signal, axes: &[usize], eps: f64, name: &str) -> Result<Signal> {
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
    if size(Dim::Picture) != 1 {
        return Err(Error::model(format!("it is {ACROSS}")));
    }
    if positions != 1 && positions != shape.plane() {
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
pub(super) fn along(constant: &Constant, axis: usize, rank: usize) -> Constant {
    let mut dims = vec![1; rank];
    dims[axis] = constant.len();
    constant.with_dims(dims)
}

pub(super) fn scaled_and_shifted(
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

pub(super) fn instance_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    if rank < 3 {
        return Err(Error::model(format!("an array of {rank} axes has no positions")));
    }
    let axes: Vec<usize> = (2..rank).collect();
    let name = layer_name(node, 1);
    let y = standardised(im, signal, &axes, node.float("epsilon", 1e-5), &format!("{name}.standardise"))?;
    let n = signal.dims().get(1).copied().unwrap_or(0);
    if x.constant(1)?.len() != n || x.constant(2)?.len() != n {
        return Err(Error::model(format!("scale and bias do not have {n} numbers")));
    }
    scaled_and_shifted(im, &y, &along(x.constant(1)?, 1, rank), Some(&along(x.constant(2)?, 1, rank)), &name)
}

pub(super) fn group_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
            n if n == groups && node.opset < 21 => c.picked(vec![dims[1]], (0..dims[1]).map(|i| i / inner))?,
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

pub(super) fn layer_norm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let first = signal.axis(node.int("axis", -1))?;
    let axes: Vec<usize> = (first..rank).collect();
    let name = layer_name(node, 1);
    let y = standardised(im, signal, &axes, node.float("epsilon", 1e-5), &format!("{name}.standardise"))?;
    scaled_and_shifted(im, &y, x.constant(1)?, x.optional(2)?, &name)
}

pub(super) fn lrn(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let size = usize::try_from(node.int("size", 0)).unwrap_or(0);
    if size.is_multiple_of(2) {
        return Err(Error::model(format!("sums over an even number of channels ({size}) are not supported")));
    }
    let map = im.map(signal, &node.name)?;
    if size > 2 * im.shape(map).c + 1 {
        return Err(Error::model(format!("sums over {size} channels of {}", im.shape(map).c)));
    }
    let norm = LocalResponseNorm {
        size,
        alpha: node.float("alpha", 1e-4),
        beta: node.float("beta", 0.75),
        k: node.float("bias", 1.0),
    };
    let out = im.normalised_locally(&node.name, map, norm)?;
    Ok(im.seen(out, signal.view.rank()))
}

pub(super) fn lp_normalised(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
