//! Softmax and reductions.

use super::elementwise::scaled;
use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::graph::{Affine, Op, Over, Reduce, Smooth};
use crate::model::onnx::arithmetic;
use crate::model::onnx::constant::{axes_of, axis_of};
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{ACROSS, Importer, Signal};
use crate::model::onnx::view::{Atom, Dim, indices};
use crate::tensor::Window;

pub(super) fn softmax(im: &mut Importer, node: &Node, signal: &Signal) -> Result<Signal> {
    let rank = signal.view.rank();
    let axis = axis_of(node.int("axis", if node.opset < 13 { 1 } else { -1 }), rank)?;
    let axes = if node.opset < 13 { axis..rank } else { axis..axis + 1 };
    let atoms: Vec<Atom> = axes.flat_map(|a| signal.view.axes[a].iter().copied()).collect();
    if atoms.iter().any(|a| a.dim == Dim::Picture) {
        return Err(Error::model(format!("it is {ACROSS}")));
    }
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
pub(super) enum Kind {
    Mean,
    Sum,
    Max,
}

pub(super) fn reduced(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let axes = arithmetic::axes(node, x.optional(1)?)?.filter(|a| !a.is_empty());
    let axes: Vec<usize> = match axes {
        Some(axes) => axes_of(&axes, rank)?,
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
pub(super) fn reduce_over(
    im: &mut Importer,
    signal: &Signal,
    axes: &[usize],
    kind: Kind,
    name: &str,
) -> Result<Signal> {
    let atoms: Vec<Atom> = axes.iter().flat_map(|&a| signal.view.axes[a].iter().copied()).collect();
    let refuse =
        || Error::model(format!("over axes {axes:?} of an array of shape {:?} it is not supported", signal.dims()));
    if atoms.is_empty() {
        return Ok(signal.clone());
    }
    let shape = im.shape_of(signal);
    let size = |dim: Dim| atoms.iter().filter(|a| a.dim == dim).map(|a| a.size).product::<usize>();
    if size(Dim::Picture) != 1 {
        return Err(Error::model(format!("it is {ACROSS}")));
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
