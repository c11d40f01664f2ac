//! Operations on constants: arithmetic on shapes, and on weights.

use super::constant::{Constant, Numbers, Places, axes_of, axis_of, broadcast, broadcast_steps, count, spend};
use super::file::Node;
use crate::error::{Error, Result};
use crate::graph::Smooth;
use crate::tensor::functions::normal;

/// Most axes of an array.
const MOST_AXES: usize = 32;

/// Products of a matrix product that count as one computed number.
const PRODUCTS: usize = 1 << 8;

/// The outputs of a node all of whose inputs are constants.
pub(super) fn compute(node: &Node, inputs: &[Option<&Constant>]) -> Result<Vec<Constant>> {
    let x = |i: usize| -> Result<&Constant> {
        inputs.get(i).copied().flatten().ok_or_else(|| Error::model(format!("input {i} is missing")))
    };
    let one = |c: Result<Constant>| c.map(|c| vec![c]);
    match node.op.as_str() {
        "Constant" => one(constant(node)),
        "Identity" | "Dropout" => one(x(0).cloned()),
        "Cast" => one(cast(x(0)?, node.int("to", 1))),
        "CastLike" => one(if x(1)?.is_whole() { cast(x(0)?, 7) } else { cast(x(0)?, 1) }),
        "Shape" => {
            let dims: Vec<i64> = x(0)?.dims.iter().map(|&d| d as i64).collect();
            one(Ok(Constant::list(shape_part(node, dims))))
        }
        "Size" => one(Ok(Constant::whole(vec![], vec![x(0)?.len() as i64]))),
        "Reshape" => {
            let to = target(&x(0)?.dims, &x(1)?.to_whole()?, node.int("allowzero", 0) != 0)?;
            one(Ok(x(0)?.with_dims(to)))
        }
        "Flatten" => {
            let dims = &x(0)?.dims;
            let axis = flatten_axis(node, dims.len())?;
            let to = vec![dims[..axis].iter().product(), dims[axis..].iter().product()];
            one(Ok(x(0)?.with_dims(to)))
        }
        "Squeeze" => {
            let to = squeezed(&x(0)?.dims, axes(node, inputs.get(1).copied().flatten())?.as_deref())?;
            one(Ok(x(0)?.with_dims(to)))
        }
        "Unsqueeze" => {
            let axes = axes(node, inputs.get(1).copied().flatten())?;
            let to = unsqueezed(&x(0)?.dims, &axes.ok_or_else(|| Error::model("it has no axes"))?)?;
            one(Ok(x(0)?.with_dims(to.iter().map(|d| d.unwrap_or(1)).collect())))
        }
        "Transpose" => one(x(0)?.transposed(&permutation(node, x(0)?.dims.len())?)),
        "Expand" => {
            let to = sizes(&x(1)?.to_whole()?)?;
            one(x(0)?.expanded(&broadcast(&x(0)?.dims, &to)?))
        }
        "Concat" => one(concat(node, inputs)),
        "Gather" => one(gather(node, x(0)?, x(1)?)),
        "Slice" => one(slice(node, inputs)),
        "Split" => split(node, inputs),
        "Tile" => one(tile(x(0)?, &x(1)?.to_whole()?)),
        "Range" => one(range(x(0)?, x(1)?, x(2)?)),
        "ConstantOfShape" => {
            let dims = sizes(&x(0)?.to_whole()?)?;
            let n = count(&dims)?;
            let value = match node.attributes.get("value").and_then(|a| a.t.as_ref()) {
                Some(tensor) => Constant::read(tensor, no_external)?,
                None => Constant::scalar(0.0),
            };
            one(match &value.numbers {
                Numbers::Whole(v) if v.len() == 1 => Ok(Constant::whole(dims, vec![v[0]; n])),
                _ => {
                    let v = value.single().ok_or_else(|| Error::model("its value is not one number"))?;
                    Ok(Constant::real(dims, vec![v; n]))
                }
            })
        }
        "Where" => one(choose(x(0)?, x(1)?, x(2)?)),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Equal" | "Less" | "LessOrEqual" | "Greater"
        | "GreaterOrEqual" | "And" | "Or" | "Xor" => one(binary(&node.op, node, x(0)?, x(1)?)),
        "Sum" | "Max" | "Min" | "Mean" => {
            let mut all = x(0)?.clone();
            for i in 1..inputs.len() {
                let op = if node.op == "Mean" { "Sum" } else { &node.op };
                all = binary(op, node, &all, x(i)?)?;
            }
            one(if node.op == "Mean" { unary(&all, |v| v / inputs.len() as f64) } else { Ok(all) })
        }
        "Neg" | "Abs" | "Sign" | "Not" | "Floor" | "Ceil" | "Round" => one(keeps_kind(&node.op, x(0)?)),
        "Sqrt" => one(unary(x(0)?, f64::sqrt)),
        "Reciprocal" => one(unary(x(0)?, |v| 1.0 / v)),
        "Exp" => one(unary(x(0)?, |v| Smooth::Exp.value(v))),
        "Log" => one(unary(x(0)?, f64::ln)),
        "Tanh" => one(unary(x(0)?, |v| Smooth::Tanh.value(v))),
        "Sigmoid" => one(unary(x(0)?, |v| Smooth::Sigmoid.value(v))),
        "Relu" => one(unary(x(0)?, |v| v.max(0.0))),
        "Softplus" => one(unary(x(0)?, |v| v.max(0.0) + (-v.abs()).exp().ln_1p())),
        "Erf" => one(unary(x(0)?, |v| 2.0 * normal(v * std::f64::consts::SQRT_2)[0] - 1.0)),
        "Clip" => {
            let bound = |i: usize, name: &str, default: f64| match inputs.get(i).copied().flatten() {
                Some(c) => c.single().ok_or_else(|| Error::model("a bound that is not one number")),
                None if node.attributes.contains_key(name) => Ok(node.float(name, 0.0)),
                None => Ok(default),
            };
            let (lo, hi) = (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?);
            one(match &x(0)?.numbers {
                Numbers::Whole(v) => {
                    count(&x(0)?.dims)?;
                    let clipped = v.iter().map(|&v| (v as f64).max(lo).min(hi) as i64).collect();
                    Ok(Constant::whole(x(0)?.dims.clone(), clipped))
                }
                _ => unary(x(0)?, |v| v.max(lo).min(hi)),
            })
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL2" | "ReduceL1"
        | "ReduceSumSquare" => one(reduce(node, x(0)?, inputs.get(1).copied().flatten())),
        super::supported::STANDARDISE => one(standardised(node, x(0)?)),
        "MatMul" => one(matmul(x(0)?, x(1)?)),
        "Gemm" => one(gemm(node, inputs)),
        "BatchNormalization" => one(batch_norm(node, inputs)),
        op => {
            Err(super::supported::unsupported(op).unwrap_or_else(|| Error::model("it is not supported on constants")))
        }
    }
}

fn no_external(_: &super::wire::TensorProto) -> Result<prost::bytes::Bytes> {
    Err(Error::model("an attribute whose numbers are in another file"))
}

fn constant(node: &Node) -> Result<Constant> {
    let Some((kind, attribute)) = node.attributes.iter().next() else {
        return Err(Error::model("it has no value"));
    };
    match kind.as_str() {
        "value" => match &attribute.t {
            Some(tensor) => Constant::read(tensor, no_external),
            None => Err(Error::model("it has no value")),
        },
        "sparse_value" => match &attribute.sparse_tensor {
            Some(sparse) => Constant::read_sparse(sparse, no_external),
            None => Err(Error::model("it has no value")),
        },
        "value_float" => Ok(Constant::scalar(f64::from(attribute.f))),
        "value_int" => Ok(Constant::whole(vec![], vec![attribute.i])),
        "value_floats" => {
            let numbers: Vec<f64> = attribute.floats.iter().map(|&v| f64::from(v)).collect();
            Ok(Constant::real(vec![numbers.len()], numbers))
        }
        "value_ints" => Ok(Constant::list(attribute.ints.clone())),
        other => Err(Error::model(format!("a constant given as {other} is not supported"))),
    }
}

/// The part of a shape that `Shape` with start and end gives.
pub(super) fn shape_part(node: &Node, dims: Vec<i64>) -> Vec<i64> {
    let n = dims.len() as i64;
    let place = |i: i64| if i < 0 { (i.saturating_add(n)).max(0) } else { i.min(n) } as usize;
    let (start, end) = (place(node.int("start", 0)), place(node.int("end", i64::MAX)));
    if start < end { dims[start..end].to_vec() } else { Vec::new() }
}

/// Sizes from whole numbers.
pub(super) fn sizes(numbers: &[i64]) -> Result<Vec<usize>> {
    let size = |&n: &i64| usize::try_from(n).map_err(|_| Error::model(format!("a size of {n}")));
    numbers.iter().map(size).collect()
}

/// The axes that a node names as an attribute or as an input.
pub(super) fn axes(node: &Node, input: Option<&Constant>) -> Result<Option<Vec<i64>>> {
    match (input, node.ints("axes")) {
        (Some(input), _) => Ok(Some(input.to_whole()?.to_vec())),
        (None, Some(axes)) => Ok(Some(axes.to_vec())),
        (None, None) => Ok(None),
    }
}

/// The first axis that `Flatten` joins to the second of its result.
pub(super) fn flatten_axis(node: &Node, rank: usize) -> Result<usize> {
    let axis = node.int("axis", 1);
    if axis == rank as i64 { Ok(rank) } else { axis_of(axis, rank) }
}

/// The shape that a `Reshape` of `from` to `to` gives.
pub(super) fn target(from: &[usize], to: &[i64], zero_is_zero: bool) -> Result<Vec<usize>> {
    if to.len() > MOST_AXES {
        return Err(Error::model(format!("an array of {} axes is not supported", to.len())));
    }
    let refuse = || Error::model(format!("{from:?} cannot be reshaped to {to:?}"));
    let total = from.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(refuse)?;
    let mut dims = Vec::with_capacity(to.len());
    let mut open = None;
    for (axis, &size) in to.iter().enumerate() {
        dims.push(match size {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !zero_is_zero => *from.get(axis).ok_or_else(refuse)?,
            size => usize::try_from(size).map_err(|_| refuse())?,
        });
    }
    let product = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(refuse)?;
    if let Some(axis) = open {
        if product == 0 || !total.is_multiple_of(product) {
            return Err(refuse());
        }
        dims[axis] = total / product;
    } else if product != total {
        return Err(refuse());
    }
    Ok(dims)
}

/// Positions of the axes that stay.
pub(super) fn kept(dims: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let gone: Vec<usize> = match axes {
        Some(axes) => axes_of(axes, dims.len())?,
        None => (0..dims.len()).filter(|&a| dims[a] == 1).collect(),
    };
    if let Some(&axis) = gone.iter().find(|&&a| dims[a] != 1) {
        return Err(Error::model(format!("axis {axis} of {dims:?} is longer than 1")));
    }
    Ok((0..dims.len()).filter(|a| !gone.contains(a)).collect())
}

fn squeezed(dims: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
    Ok(kept(dims, axes)?.into_iter().map(|a| dims[a]).collect())
}

/// `items` with `None` at the places of new axes.
pub(super) fn unsqueezed<T: Clone>(items: &[T], axes: &[i64]) -> Result<Vec<Option<T>>> {
    let rank = items.len() + axes.len();
    let new = axes_of(axes, rank)?;
    let mut rest = items.iter().cloned();
    let all: Vec<Option<T>> = (0..rank).map(|a| if new.contains(&a) { None } else { rest.next() }).collect();
    if all.iter().flatten().count() != items.len() {
        return Err(Error::model(format!("new axes {axes:?} name one twice")));
    }
    Ok(all)
}

/// The order of axes that `Transpose` gives.
pub(super) fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>> {
    let Some(perm) = node.ints("perm").filter(|p| !p.is_empty()) else { return Ok((0..rank).rev().collect()) };
    let perm: Vec<usize> = perm.iter().map(|&a| axis_of(a, rank)).collect::<Result<_>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(Error::model(format!("{perm:?} is not an order of {rank} axes")));
    }
    Ok(perm)
}

fn cast(x: &Constant, to: i64) -> Result<Constant> {
    count(&x.dims)?;
    let numbers = match to {
        1 | 10 | 11 | 16 => match &x.numbers {
            Numbers::Whole(v) => Numbers::Real(v.iter().map(|&v| v as f64).collect()),
            other => other.clone(),
        },
        9 => Numbers::Whole(x.to_real().iter().map(|&v| i64::from(v != 0.0)).collect()),
        2..=7 | 12 | 13 => match &x.numbers {
            Numbers::Whole(v) => Numbers::Whole(v.clone()),
            _ => Numbers::Whole(x.to_real().iter().map(|&v| v as i64).collect()),
        },
        _ => return Err(Error::model(format!("a cast to number type {to} is not supported"))),
    };
    Ok(Constant { dims: x.dims.clone(), numbers })
}

fn concat(node: &Node, inputs: &[Option<&Constant>]) -> Result<Constant> {
    let all: Vec<&Constant> = inputs.iter().copied().flatten().collect();
    let Some(first) = all.first() else { return Err(Error::model("it has no inputs")) };
    let axis = axis_of(node.int("axis", 1), first.dims.len())?;
    let alike = |c: &&Constant| {
        c.dims.len() == first.dims.len() && (0..c.dims.len()).all(|a| a == axis || c.dims[a] == first.dims[a])
    };
    if !all.iter().all(alike) {
        return Err(Error::model("its inputs have other shapes"));
    }
    let mut dims = first.dims.clone();
    dims[axis] = all.iter().map(|c| c.dims[axis]).sum();
    count(&dims)?;
    let outer: usize = dims[..axis].iter().product();
    let inner = |c: &Constant| c.dims[axis..].iter().product::<usize>();
    if all.iter().all(|c| c.is_whole()) {
        let parts = all.iter().map(|c| c.to_whole().map(|v| (v, inner(c)))).collect::<Result<Vec<_>>>()?;
        let numbers =
            (0..outer).flat_map(|o| parts.iter().flat_map(move |(v, n)| v[o * n..(o + 1) * n].iter().copied()));
        return Ok(Constant::whole(dims, numbers.collect()));
    }
    let parts: Vec<_> = all.iter().map(|c| (c.to_real(), inner(c))).collect();
    let numbers = (0..outer).flat_map(|o| parts.iter().flat_map(move |(v, n)| v[o * n..(o + 1) * n].iter().copied()));
    Ok(Constant::real(dims, numbers.collect()))
}

/// Indices on an axis of size `n`, negative ones from the end.
pub(super) fn places(indices: &[i64], n: usize) -> Result<Vec<usize>> {
    let place = |&i: &i64| {
        let from_end = if i < 0 { i.checked_add(n as i64) } else { Some(i) };
        let found = from_end.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < n);
        found.ok_or_else(|| Error::model(format!("there is no index {i} of {n}")))
    };
    indices.iter().map(place).collect()
}

/// Elements at `at` along `axis`, which is replaced by `shape`.
fn taken(x: &Constant, axis: usize, at: &[usize], shape: &[usize]) -> Result<Constant> {
    let mut dims = x.dims.clone();
    dims.splice(axis..=axis, shape.iter().copied());
    let outer: usize = x.dims[..axis].iter().product();
    let inner: usize = x.dims[axis + 1..].iter().product();
    let n = x.dims[axis];
    let places =
        (0..outer).flat_map(|o| at.iter().flat_map(move |&i| (0..inner).map(move |j| (o * n + i) * inner + j)));
    x.picked(dims, places)
}

fn gather(node: &Node, x: &Constant, at: &Constant) -> Result<Constant> {
    let axis = axis_of(node.int("axis", 0), x.dims.len())?;
    taken(x, axis, &places(&at.to_whole()?, x.dims[axis])?, &at.dims)
}

/// For each axis that a `Slice` cuts the indices that it takes.
pub(super) fn cuts(node: &Node, inputs: &[Option<&Constant>], dims: &[usize]) -> Result<Vec<(usize, Vec<usize>)>> {
    let given = |i: usize, name: &str| -> Result<Option<Vec<i64>>> {
        match inputs.get(i).copied().flatten() {
            Some(c) => Ok(Some(c.to_whole()?.to_vec())),
            None => Ok(node.ints(name).map(<[i64]>::to_vec)),
        }
    };
    let missing = |what: &str| Error::model(format!("its {what} are missing"));
    let starts = given(1, "starts")?.ok_or_else(|| missing("starts"))?;
    let ends = given(2, "ends")?.ok_or_else(|| missing("ends"))?;
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = given(3, "axes")?.unwrap_or(all);
    let steps = given(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Error::model("starts, ends, axes and steps of different numbers"));
    }
    axes_of(&axes, dims.len())?;
    let mut cuts = Vec::new();
    for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = axis_of(axis, dims.len())?;
        let n = dims[axis] as i64;
        let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
        let (start, end) = (from_end(start), from_end(end));
        let mut at = Vec::new();
        if step > 0 {
            let (start, end) = (start.clamp(0, n), end.clamp(0, n));
            at.extend((start..end).step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(|i| i as usize));
        } else if step < 0 {
            let (mut i, end) = (start.min(n - 1), end.max(-1));
            while i > end && i >= 0 {
                at.push(i as usize);
                i = i.saturating_add(step);
            }
        } else {
            return Err(Error::model("a step of 0"));
        }
        cuts.push((axis, at));
    }
    Ok(cuts)
}

fn slice(node: &Node, inputs: &[Option<&Constant>]) -> Result<Constant> {
    let Some(Some(x)) = inputs.first() else { return Err(Error::model("input 0 is missing")) };
    let mut x = (*x).clone();
    for (axis, at) in cuts(node, inputs, &x.dims)? {
        x = taken(&x, axis, &at, &[at.len()])?;
    }
    Ok(x)
}

/// Sizes of the parts of a `Split`.
pub(super) fn parts(node: &Node, given: Option<&Constant>, n: usize) -> Result<Vec<usize>> {
    let sizes = match given {
        Some(c) => sizes(&c.to_whole()?)?,
        None => match node.ints("split") {
            Some(split) => sizes(split)?,
            None => {
                let parts = usize::try_from(node.int("num_outputs", node.outputs.len() as i64)).unwrap_or(0);
                if parts == 0 || parts != node.outputs.len() {
                    return Err(Error::model(format!("{} outputs of a split into {parts} parts", node.outputs.len())));
                }
                let size = n.div_ceil(parts);
                (0..parts).map(|i| size.min(n.saturating_sub(i * size))).collect()
            }
        },
    };
    if sizes.iter().try_fold(0usize, |a, &b| a.checked_add(b)) != Some(n) {
        return Err(Error::model(format!("parts of {sizes:?} do not make {n}")));
    }
    Ok(sizes)
}

fn split(node: &Node, inputs: &[Option<&Constant>]) -> Result<Vec<Constant>> {
    let Some(Some(x)) = inputs.first() else { return Err(Error::model("input 0 is missing")) };
    let axis = axis_of(node.int("axis", 0), x.dims.len())?;
    let mut first = 0;
    let parts = parts(node, inputs.get(1).copied().flatten(), x.dims[axis])?;
    parts
        .into_iter()
        .map(|n| {
            let at: Vec<usize> = (first..first + n).collect();
            first += n;
            taken(x, axis, &at, &[n])
        })
        .collect()
}

fn tile(x: &Constant, repeats: &[i64]) -> Result<Constant> {
    let repeats = sizes(repeats)?;
    if repeats.len() != x.dims.len() {
        return Err(Error::model("one number of repeats for each axis"));
    }
    let mut x = x.clone();
    for (axis, &n) in repeats.iter().enumerate() {
        let size = x.dims[axis];
        count(&[size, n])?;
        let at: Vec<usize> = (0..n).flat_map(|_| 0..size).collect();
        x = taken(&x, axis, &at, &[at.len()])?;
    }
    Ok(x)
}

fn range(start: &Constant, limit: &Constant, delta: &Constant) -> Result<Constant> {
    let number = |c: &Constant| c.single().ok_or_else(|| Error::model("a bound that is not one number"));
    let (first, end, step) = (number(start)?, number(limit)?, number(delta)?);
    let n = ((end - first) / step).ceil();
    if !n.is_finite() {
        return Err(Error::model("a range without end"));
    }
    let n = count(&[n.max(0.0) as usize])?;
    let numbers = (0..n).map(|i| first + i as f64 * step);
    if start.is_whole() && delta.is_whole() {
        return Ok(Constant::list(numbers.map(|v| v as i64).collect()));
    }
    Ok(Constant::real(vec![n], numbers.collect()))
}

fn choose(condition: &Constant, yes: &Constant, no: &Constant) -> Result<Constant> {
    let dims = broadcast(&broadcast(&condition.dims, &yes.dims)?, &no.dims)?;
    count(&dims)?;
    let [condition, yes, no] = [condition.expanded(&dims)?, yes.expanded(&dims)?, no.expanded(&dims)?];
    let condition = condition.to_real();
    if yes.is_whole() && no.is_whole() {
        let (yes, no) = (yes.to_whole()?, no.to_whole()?);
        let numbers = condition.iter().zip(yes.iter().zip(no.iter()));
        return Ok(Constant::whole(dims, numbers.map(|(&c, (&y, &n))| if c != 0.0 { y } else { n }).collect()));
    }
    let (yes, no) = (yes.to_real(), no.to_real());
    let numbers = condition.iter().zip(yes.iter().zip(no.iter()));
    Ok(Constant::real(dims, numbers.map(|(&c, (&y, &n))| if c != 0.0 { y } else { n }).collect()))
}

fn unary(x: &Constant, f: impl Fn(f64) -> f64) -> Result<Constant> {
    count(&x.dims)?;
    Ok(Constant::real(x.dims.clone(), x.to_real().iter().map(|&v| f(v)).collect()))
}

fn keeps_kind(op: &str, x: &Constant) -> Result<Constant> {
    if let Numbers::Whole(v) = &x.numbers {
        count(&x.dims)?;
        let f = |v: i64| match op {
            "Neg" => v.wrapping_neg(),
            "Abs" => v.wrapping_abs(),
            "Sign" => v.signum(),
            "Not" => i64::from(v == 0),
            _ => v,
        };
        return Ok(Constant::whole(x.dims.clone(), v.iter().map(|&v| f(v)).collect()));
    }
    unary(x, |v| match op {
        "Neg" => -v,
        "Abs" => v.abs(),
        "Sign" if v == 0.0 => 0.0,
        "Sign" => v.signum(),
        "Floor" => v.floor(),
        "Ceil" => v.ceil(),
        _ => v.round_ties_even(),
    })
}

fn binary(op: &str, node: &Node, a: &Constant, b: &Constant) -> Result<Constant> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let n = count(&dims)?;
    let places = |c: &Constant| -> Result<Places> { Ok(Places::new(&dims, &broadcast_steps(&c.dims, &dims)?)) };
    let pairs = places(a)?.zip(places(b)?);
    if let (Numbers::Whole(x), Numbers::Whole(y)) = (&a.numbers, &b.numbers) {
        let f = |x: i64, y: i64| -> Result<i64> {
            let overflow = || Error::model(format!("{op} of {x} and {y} is too large or has no value"));
            match op {
                "Add" | "Sum" => x.checked_add(y),
                "Sub" => x.checked_sub(y),
                "Mul" => x.checked_mul(y),
                "Div" => x.checked_div(y),
                // As Python's, or with `fmod` as C's.
                "Mod" if node.int("fmod", 0) != 0 => x.checked_rem(y),
                "Mod" => x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
                "Pow" => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
                "Max" => Some(x.max(y)),
                "Min" => Some(x.min(y)),
                "Equal" => Some(i64::from(x == y)),
                "Less" => Some(i64::from(x < y)),
                "LessOrEqual" => Some(i64::from(x <= y)),
                "Greater" => Some(i64::from(x > y)),
                "GreaterOrEqual" => Some(i64::from(x >= y)),
                "And" => Some(i64::from(x != 0 && y != 0)),
                "Or" => Some(i64::from(x != 0 || y != 0)),
                _ => Some(i64::from((x != 0) != (y != 0))),
            }
            .ok_or_else(overflow)
        };
        let numbers: Result<Vec<i64>> = pairs.map(|(i, j)| f(x[i], y[j])).collect();
        return Ok(Constant::whole(dims, numbers?));
    }
    let (x, y) = (a.to_real(), b.to_real());
    let truth = |op: &str| matches!(op, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual");
    if truth(op) {
        let f = |x: f64, y: f64| match op {
            "Equal" => x == y,
            "Less" => x < y,
            "LessOrEqual" => x <= y,
            "Greater" => x > y,
            _ => x >= y,
        };
        return Ok(Constant::whole(dims, pairs.map(|(i, j)| i64::from(f(x[i], y[j]))).collect()));
    }
    let f = |x: f64, y: f64| -> Result<f64> {
        Ok(match op {
            "Add" | "Sum" => x + y,
            "Sub" => x - y,
            "Mul" => x * y,
            "Div" => x / y,
            "Mod" => x % y,
            "Pow" => x.powf(y),
            "Max" => x.max(y),
            "Min" => x.min(y),
            _ => return Err(Error::model("it is not supported on real numbers")),
        })
    };
    let mut numbers = Vec::with_capacity(n);
    for (i, j) in pairs {
        numbers.push(f(x[i], y[j])?);
    }
    Ok(Constant::real(dims, numbers))
}

/// Numbers less their mean over axes, divided by their deviation.
fn standardised(node: &Node, x: &Constant) -> Result<Constant> {
    let rank = x.dims.len();
    let over = axes_of(node.ints("axes").unwrap_or_default(), rank)?;
    let n: usize = over.iter().map(|&a| x.dims[a]).product();
    let perm: Vec<usize> = (0..rank).filter(|a| !over.contains(a)).chain(over.iter().copied()).collect();
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, &a)| back[a] = i);
    let sorted = x.transposed(&perm)?;
    let eps = node.float("epsilon", 0.0);
    let mut numbers = sorted.to_real().to_vec();
    for part in numbers.chunks_exact_mut(n.max(1)) {
        let mean = part.iter().sum::<f64>() / n as f64;
        let variance = part.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
        part.iter_mut().for_each(|v| *v = (*v - mean) / (variance + eps).sqrt());
    }
    Constant::real(sorted.dims, numbers).transposed(&back)
}

fn reduce(node: &Node, x: &Constant, given: Option<&Constant>) -> Result<Constant> {
    let axes = axes(node, given)?.filter(|a| !a.is_empty());
    let rank = x.dims.len();
    let over: Vec<usize> = match &axes {
        Some(axes) => axes_of(axes, rank)?,
        None if node.int("noop_with_empty_axes", 0) != 0 => return Ok(x.clone()),
        None => (0..rank).collect(),
    };
    let rest: Vec<usize> = (0..rank).filter(|a| !over.contains(a)).collect();
    let perm: Vec<usize> = rest.iter().chain(&over).copied().collect();
    let sorted = x.transposed(&perm)?;
    let n: usize = over.iter().map(|&a| x.dims[a]).product();
    let keep = node.int("keepdims", 1) != 0;
    let dims: Vec<usize> = (0..rank)
        .filter(|a| keep || !over.contains(a))
        .map(|a| if over.contains(&a) { 1 } else { x.dims[a] })
        .collect();
    if n == 0 {
        return Err(Error::model("nothing to reduce"));
    }
    if let (Numbers::Whole(v), "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd") = (&sorted.numbers, &*node.op) {
        let f = |part: &[i64]| match &*node.op {
            "ReduceSum" => part.iter().try_fold(0i64, |a, &b| a.checked_add(b)),
            "ReduceProd" => part.iter().try_fold(1i64, |a, &b| a.checked_mul(b)),
            "ReduceMax" => part.iter().copied().max(),
            _ => part.iter().copied().min(),
        };
        let numbers: Option<Vec<i64>> = v.chunks_exact(n).map(f).collect();
        return Ok(Constant::whole(dims, numbers.ok_or_else(|| Error::model("its result is too large"))?));
    }
    let f = |part: &[f64]| match &*node.op {
        "ReduceMean" => part.iter().sum::<f64>() / n as f64,
        "ReduceSum" => part.iter().sum(),
        "ReduceProd" => part.iter().product(),
        "ReduceMax" => part.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "ReduceMin" => part.iter().copied().fold(f64::INFINITY, f64::min),
        "ReduceL1" => part.iter().map(|v| v.abs()).sum(),
        "ReduceL2" => part.iter().map(|v| v * v).sum::<f64>().sqrt(),
        _ => part.iter().map(|v| v * v).sum(),
    };
    Ok(Constant::real(dims, sorted.to_real().chunks_exact(n).map(f).collect()))
}

fn matmul(a: &Constant, b: &Constant) -> Result<Constant> {
    let (&[m, k], &[l, n]) = (&a.dims[..], &b.dims[..]) else {
        return Err(Error::model("products of constants with other than two axes are not supported"));
    };
    if k != l {
        return Err(Error::model(format!("shapes {:?} and {:?} do not go together", a.dims, b.dims)));
    }
    product([m, k, n], &a.to_real(), &b.to_real())
}

fn product([m, k, n]: [usize; 3], a: &[f64], b: &[f64]) -> Result<Constant> {
    count(&[m, n])?;
    let products = m.saturating_mul(n).saturating_mul(k);
    spend(products / PRODUCTS)?;
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..k {
            let factor = a[i * k + j];
            let row = &mut out[i * n..(i + 1) * n];
            row.iter_mut().zip(&b[j * n..(j + 1) * n]).for_each(|(o, v)| *o += factor * v);
        }
    }
    Ok(Constant::real(vec![m, n], out))
}

fn gemm(node: &Node, inputs: &[Option<&Constant>]) -> Result<Constant> {
    let x = |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| Error::model(format!("input {i} is missing")));
    let turned = |c: &Constant, flag: &str| {
        if c.dims.len() == 2 && node.int(flag, 0) != 0 { c.transposed(&[1, 0]) } else { Ok(c.clone()) }
    };
    let y = matmul(&turned(x(0)?, "transA")?, &turned(x(1)?, "transB")?)?;
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let y = unary(&y, |v| alpha * v)?;
    match inputs.get(2).copied().flatten() {
        None => Ok(y),
        Some(c) => binary("Add", node, &y, &unary(c, |v| beta * v)?),
    }
}

fn batch_norm(node: &Node, inputs: &[Option<&Constant>]) -> Result<Constant> {
    let x = |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| Error::model(format!("input {i} is missing")));
    let data = x(0)?;
    let channels = *data.dims.get(1).ok_or_else(|| Error::model("numbers without channels"))?;
    let plane: usize = data.dims[2..].iter().product();
    let numbers = data.to_real();
    let vectors: Vec<_> = (1..5).map(|i| x(i).map(Constant::to_real)).collect::<Result<_>>()?;
    if vectors.iter().any(|v| v.len() != channels) || plane == 0 {
        return Err(Error::model(format!("numbers a channel that do not fit {channels} channels")));
    }
    let eps = node.float("epsilon", 1e-5);
    // While training, mean and variance are those of the numbers themselves.
    let training = node.int("training_mode", 0) != 0;
    let batch = data.dims[0];
    let mut out = vec![0.0; count(&data.dims)?];
    let [gamma, beta, mean, variance] = &vectors[..] else { return Err(Error::model("four numbers a channel")) };
    let of_channels = gamma.iter().zip(beta.iter()).zip(mean.iter().zip(variance.iter()));
    for (c, ((gamma, beta), (mean, variance))) in of_channels.enumerate() {
        let places = || (0..batch).flat_map(|n| (0..plane).map(move |p| (n * channels + c) * plane + p));
        let n = (batch * plane) as f64;
        let (mean, variance) = if training {
            let mean = places().map(|i| numbers[i]).sum::<f64>() / n;
            (mean, places().map(|i| (numbers[i] - mean).powi(2)).sum::<f64>() / n)
        } else {
            (*mean, *variance)
        };
        let scale = gamma / (variance + eps).sqrt();
        for i in places() {
            out[i] = (numbers[i] - mean) * scale + beta;
        }
    }
    Ok(Constant::real(data.dims.clone(), out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::onnx::constant::steps;

    #[test]
    fn shapes_are_computed_as_onnx_says() {
        assert_eq!(target(&[2, 3, 4], &[0, -1], false).unwrap(), [2, 12]);
        assert_eq!(target(&[2, 3, 4], &[0, 0, -1], false).unwrap(), [2, 3, 4]);
        assert!(target(&[2, 3, 4], &[5, -1], false).is_err());
        assert!(target(&[2, 3, 4], &[-1, -1], false).is_err());
        assert_eq!(steps(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(unsqueezed(&[5, 6], &[0, -1]).unwrap(), [None, Some(5), Some(6), None]);
        assert!(unsqueezed(&[5, 6], &[0, 0]).is_err());
    }
}
