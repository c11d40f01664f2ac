//! Operations that move numbers: concatenations, slices, padding, reshapes.

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::model::onnx::arithmetic;
use crate::model::onnx::constant::{self, axes_of, axis_of};
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{ACROSS, Importer, Padded, Signal, Value};
use crate::model::onnx::maps::flat_indices;
use crate::model::onnx::view::{Atom, Dim, MAP, View, extent, indices, whole};
use crate::tensor::{Interpolation, Resize, ResizeTo, Shape};

pub(super) fn concat(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
    // Maps beside one another along a new axis: the channels of each follow those of the one before.
    let stacked = |s: &Signal| s.view.axes[axis].is_empty() && s.view == signals[0].view;
    if signals.len() > 1
        && before.is_empty()
        && after.is_empty()
        && signals.iter().all(|s| stacked(s) && im.shape_of(s) == im.shape_of(&signals[0]))
    {
        let channels = im.shape_of(&signals[0]).c;
        let parts = signals.iter().map(|s| im.node_of(s)).collect::<Result<Vec<_>>>()?;
        parts.iter().try_for_each(|&part| im.no_void(part))?;
        let out = im.add(name, Op::Concat, &parts)?;
        let atom = Atom { dim: Dim::Channel, size: parts.len(), stride: channels };
        let view = signals[0].view.with_axis(axis, vec![atom]);
        return Ok(Signal::of(out, view));
    }
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
pub(super) fn taken(im: &mut Importer, signal: &Signal, axis: usize, at: &[usize], name: &str) -> Result<Signal> {
    let n = signal.dims()[axis];
    if at.iter().copied().eq(0..n) {
        return Ok(signal.clone());
    }
    if at.is_empty() {
        return Err(Error::model("it leaves nothing"));
    }
    let shape = im.shape_of(signal);
    let atoms = signal.view.axes[axis].clone();
    if atoms.iter().any(|a| a.dim == Dim::Picture) {
        return Err(Error::model(format!("it chooses {ACROSS}")));
    }
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
            let step = if at.len() > 1 { at[1].saturating_sub(at[0]) } else { 1 };
            let regular = step > 0 && at.windows(2).all(|w| w[1].checked_sub(w[0]) == Some(step));
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

pub(super) fn split(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Vec<Value>> {
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

pub(super) fn sliced(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let mut signal = x.signal(0)?.clone();
    for i in 1..x.0.len() {
        x.optional(i)?;
    }
    for (axis, at) in arithmetic::cuts(node, &x.constants(), &signal.dims())? {
        signal = taken(im, &signal, axis, &at, &node.name)?;
    }
    Ok(signal)
}

pub(super) fn gathered(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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

pub(super) fn pad(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
    let signal = x.signal(0)?;
    let rank = signal.view.rank();
    let mode = node.word("mode", "constant")?;
    let pads = match node.ints("pads").or(node.ints("paddings")) {
        Some(pads) => pads.to_vec(),
        None => x.constant(1)?.to_whole()?.to_vec(),
    };
    let axes: Vec<usize> = match x.optional(3)? {
        Some(axes) => axes_of(&axes.to_whole()?, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Error::model(format!("{} numbers of padding for {} axes", pads.len(), axes.len())));
    }
    if pads.iter().all(|&n| n == 0) {
        return Ok(signal.clone());
    }
    let mirrored = match mode {
        "constant" => None,
        "reflect" => Some(Interpolation::Reflected),
        "edge" => Some(Interpolation::Replicated),
        _ => return Err(Error::model(format!("padding by {mode} is not supported"))),
    };
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
    if let Some(interpolation) = mirrored {
        let sides = [rows, columns].map(|[before, after]| (usize::try_from(before).ok(), usize::try_from(after).ok()));
        let [(Some(top), Some(bottom)), (Some(left), Some(right))] = sides else {
            return Err(Error::model(format!("negative padding {pads:?} by {mode} is not supported")));
        };
        let odd_last = |before: usize, after: usize| after == before || after == before + 1;
        if channels != [0; 2] || !odd_last(top, bottom) || !odd_last(left, right) {
            return Err(Error::model(format!("padding {pads:?} by {mode} is not supported; equal sides are")));
        }
        im.no_void(source)?;
        let to = ResizeTo::Size([shape.h + top + bottom, shape.w + left + right]);
        let node = im.add(name, Op::Resize(Resize { to, interpolation }), &[source])?;
        return Ok(Signal::of(node, resized_view(&signal.view, &dims, im.shape(node))));
    }
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
    Ok(Signal::of(node, resized_view(&signal.view, &dims, im.shape(node))))
}

/// `view` of a map that now has the shape `shape`; `dims` are the axes of the map that its axes are, as wholes.
fn resized_view(view: &View, dims: &[Option<Dim>], shape: Shape) -> View {
    let axes = view.axes.iter().zip(dims);
    View {
        axes: axes
            .map(|(atoms, dim)| dim.map_or_else(|| atoms.clone(), |dim| whole(dim, extent(shape, dim))))
            .collect(),
    }
}

pub(super) fn reshaped(im: &mut Importer, signal: &Signal, to: &[usize], name: &str) -> Result<Signal> {
    if let Some(view) = signal.view.reshaped(to) {
        return Ok(Signal { view, ..signal.clone() });
    }
    // In the order of channels, rows and columns a flattened map can be cut anywhere.
    let shape = im.shape_of(signal);
    constant::count(&shape.dims())?;
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

pub(super) fn space_to_depth(im: &mut Importer, node: &Node, signal: &Signal) -> Result<Signal> {
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
