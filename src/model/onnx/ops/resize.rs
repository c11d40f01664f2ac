//! Maps of another size.

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::model::onnx::arithmetic;
use crate::model::onnx::constant::{self, Constant};
use crate::model::onnx::file::Node;
use crate::model::onnx::import::{Importer, Signal};
use crate::tensor::{Interpolation, Resize, ResizeTo, Shape};

pub(super) fn resized(im: &mut Importer, node: &Node, x: &Inputs) -> Result<Signal> {
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
    if node.ints("axes").is_some_and(|axes| axes != [0, 1, 2, 3]) {
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
            let size = scales.iter().zip(&dims).map(|(s, &d)| (*s as f32 * d as f32).floor() as usize).collect();
            (size, scales.clone())
        }
        _ => return Err(Error::model("it needs four scales or four sizes")),
    };
    if size[0] != dims[0] || size[1] != dims[1] {
        return Err(Error::model("resizing pictures or channels is not supported"));
    }
    let to = ResizeTo::Size([size[2], size[3]]);
    let shape = Shape::new(dims[1], dims[2], dims[3]);
    Resize { to, interpolation: Interpolation::Nearest }.output(shape)?.checked()?;
    constant::spend(size[2].saturating_add(size[3]))?;
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
    // Elements with their shares, each once.
    let merged = |terms: Vec<(usize, f64)>| {
        let mut all: Vec<(usize, f64)> = Vec::new();
        for (i, share) in terms {
            match all.iter_mut().find(|(j, _)| *j == i) {
                Some((_, sum)) => *sum += share,
                None => all.push((i, share)),
            }
        }
        all.retain(|(_, share)| share.abs() >= 1e-6);
        all.sort_by_key(|(i, _)| *i);
        all
    };
    let same = |interpolation: Interpolation, want: &[Vec<(usize, f64)>], n: usize| {
        let blend = interpolation.blend(n, want.len());
        want.iter().enumerate().all(|(o, terms)| {
            let (a, b) = (merged(terms.clone()), merged(blend.terms(o).collect()));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6)
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
    let to = if factor && scales.is_some() {
        ResizeTo::Factor([to.h / from.h, to.w / from.w])
    } else {
        ResizeTo::Size([to.h, to.w])
    };
    let out = im.add(&node.name, Op::Resize(Resize { to, interpolation }), &[source])?;
    Ok(im.seen(out, 4))
}
