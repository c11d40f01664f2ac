//! Windows over maps: their padding, and pools.

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::model::onnx::arithmetic;
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{Importer, Signal};
use crate::tensor::{Padding, Shape, Window};

/// Kernel, strides, dilations and padding of a node for a map of `rows` and `columns`.
pub(super) fn window(node: &Node, kernel: [usize; 2], shape: Shape, axes: usize) -> Result<Window> {
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
    // Refuses what reaches too far before anything is computed from it.
    Window { padding: Padding::Same, ..window }.output(shape.h, shape.w)?;
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
pub(super) fn with_padding(im: &Importer, x: NodeId, window: Window, value: impl Fn(f64) -> bool) -> (NodeId, Window) {
    let (Some(padded), Padding::Explicit { top, bottom, left, right }) = (im.padding(x), window.padding) else {
        return (x, window);
    };
    let sides = [padded.rows, padded.columns].concat();
    // In ceil mode a window may start in a map's last rows, but not in padding.
    if !value(padded.value) || window.ceil || sides.iter().any(|&n| n < 0) {
        return (x, window);
    }
    let more = |n: usize, side: usize| n + sides[side].unsigned_abs();
    let padding =
        Padding::Explicit { top: more(top, 0), bottom: more(bottom, 1), left: more(left, 2), right: more(right, 3) };
    (padded.source, Window { padding, ..window })
}

pub(super) fn pool(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
