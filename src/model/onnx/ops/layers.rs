//! Convolutions and linear layers.

use super::elementwise::{scaled, with_constants};
use super::inputs::{Inputs, layer_name, mapped_constant};
use super::windows::{window, with_padding};
use crate::error::{Error, Result};
use crate::graph::{Conv, Linear, Op, Weight};
use crate::model::onnx::constant::{self, Constant};
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{Importer, Signal, Value};
use crate::model::onnx::maps::flat_indices;
use crate::model::onnx::scalar::Binary;
use crate::model::onnx::view::{Dim, indices, whole};
use crate::model::tensors::finite;
use crate::tensor::{Shape, Window};

/// A weight whose numbers are finite.
pub(super) fn weight(constant: &Constant, dims: [usize; 4]) -> Result<Weight> {
    if let crate::model::onnx::constant::Numbers::Stored(bytes, encoding) = &constant.numbers {
        finite(bytes, *encoding, &constant.dims).map_err(|what| Error::model(format!("its weight holds {what}")))?;
    } else if constant.to_real().iter().any(|v| !v.is_finite()) {
        return Err(Error::model("its weight holds a number that is not finite"));
    }
    constant.weight(dims)
}

pub(super) fn bias_of(x: &Inputs, input: usize, outputs: usize) -> Result<Option<std::sync::Arc<[f64]>>> {
    match x.optional(input)? {
        Some(bias) if bias.len() == outputs => Ok(Some(bias.to_real())),
        Some(bias) => Err(Error::model(format!("a bias of {} numbers for {outputs} outputs", bias.len()))),
        None => Ok(None),
    }
}

pub(super) fn conv(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
pub(super) fn conv_over_channels(im: &mut Importer, node: &Node, x: &Inputs, name: &str) -> Result<Option<Signal>> {
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
    let mut matrix = vec![0.0; constant::count(&[out, shape.c])?];
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
pub(super) fn linear(
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
        rows.picked(vec![outputs, inputs], (0..outputs).flat_map(|o| from.iter().map(move |&j| o * inputs + j)))?
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

pub(super) fn gemm(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let (a, b) = (x.signal(0)?, x.constant(1)?);
    if a.view.rank() != 2 || b.dims.len() != 2 {
        return Err(Error::model(format!("shapes {:?} and {:?}; expected two axes each", a.dims(), b.dims)));
    }
    let a =
        if node.int("transA", 0) != 0 { Signal { view: a.view.transposed(&[1, 0]), ..a.clone() } } else { a.clone() };
    let rows = if node.int("transB", 0) != 0 { b.clone() } else { b.transposed(&[1, 0])? };
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

pub(super) fn matmul(im: &mut Importer, x: &Inputs, name: &str) -> Result<Signal> {
    let flat = |c: &Constant, signal: &Signal| -> Result<Constant> {
        let rank = c.dims.len();
        if rank < 2 || rank > signal.view.rank().max(2) || c.dims[..rank - 2].iter().any(|&d| d != 1) {
            return Err(Error::model(format!("a matrix of shape {:?} is not supported", c.dims)));
        }
        Ok(c.with_dims(c.dims[rank - 2..].to_vec()))
    };
    match (x.get(0), x.get(1)) {
        (Some(Value::Signal(a)), Some(Value::Constant(b))) => {
            let axis = a.axis(-1)?;
            linear(im, a, axis, (&flat(b, a)?.transposed(&[1, 0])?, None), name)
        }
        (Some(Value::Constant(a)), Some(Value::Signal(b))) => {
            let axis = b.axis(-2)?;
            linear(im, b, axis, (&flat(a, b)?, None), name)
        }
        (Some(Value::Signal(_)), Some(Value::Signal(_))) => {
            Err(Error::model("products of two arrays that both depend on the picture (attention) are not supported"))
        }
        _ => Err(Error::model("an input is missing")),
    }
}
