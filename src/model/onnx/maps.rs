//! How arrays of any rank become maps of channels, rows and columns, and how two of them go together.

use super::constant::{self, Constant};
use super::import::{Importer, Signal};
use super::scalar::{Binary, Scalar};
use super::view::{Atom, Dim, MAP, View, extent, indices, whole};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::tensor::{Interpolation, Resize, ResizeTo, Shape};

/// Most pieces into which channels are cut to bring them into another order.
const MOST_PIECES: usize = 4096;

/// Numbers of a constant as they fall on a map.
pub(super) enum Spread {
    One(f64),
    Channels(Vec<f64>),
    Elements(Vec<f64>),
}

impl Importer<'_> {
    /// Channels `order` of `x`.
    pub(super) fn channels(&mut self, x: NodeId, order: &[usize], name: &str) -> Result<NodeId> {
        let c = self.shape(x).c;
        if order.iter().copied().eq(0..c) {
            return Ok(x);
        }
        self.no_void(x)?;
        // Of a matrix read by columns, the second channel is the second row's first.
        if let Some(&columns) = order.get(1).filter(|&&n| order.len() == c && n > 0 && c.is_multiple_of(n)) {
            let groups = c / columns;
            if order.iter().enumerate().all(|(i, &at)| at == (i % groups) * columns + i / groups) {
                return self.add(name, Op::Shuffle { groups }, &[x]);
            }
        }
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &at in order {
            match runs.last_mut() {
                Some((first, n)) if *first + *n == at => *n += 1,
                _ => runs.push((at, 1)),
            }
        }
        if runs.len() > MOST_PIECES {
            return Err(Error::model(format!("channels in an order of {} pieces are not supported", runs.len())));
        }
        let alone = runs.len() == 1;
        let mut pieces = Vec::new();
        for (i, (first, channels)) in runs.into_iter().enumerate() {
            let piece = if alone { name.to_owned() } else { format!("{name}.{i}") };
            pieces.push(self.add(&piece, Op::Slice { first, channels }, &[x])?);
        }
        if alone { Ok(pieces[0]) } else { self.add(name, Op::Concat, &pieces) }
    }

    /// The node whose channels, rows and columns are these axes of the signal; no other axis may be longer than 1.
    pub(super) fn arranged(&mut self, signal: &Signal, axes: &[usize], name: &str) -> Result<NodeId> {
        let shape = self.shape_of(signal);
        let view = &signal.view;
        let atoms = |i: usize| axes.get(i).map_or_else(Vec::new, |&axis| view.axes[axis].clone());
        let own: [Vec<Atom>; 3] = [atoms(0), atoms(1), atoms(2)];
        let others = (0..view.rank()).filter(|axis| !axes.contains(axis));
        let refuse = |what: &str| {
            Err(Error::model(format!(
                "an array of shape {:?}, {what}, is not a map of channels, rows and columns",
                view.dims()
            )))
        };
        for axis in others {
            if view.axes[axis].iter().any(|a| a.dim != Dim::Picture) {
                return refuse(&format!("whose axis {axis} is not of pictures"));
            }
        }
        if own.iter().flatten().any(|a| a.dim == Dim::Picture) {
            return refuse("with several pictures on other axes than the first");
        }
        let x = self.node_of(signal)?;
        let rows = [Dim::Row, Dim::Column].map(|dim| whole(dim, extent(shape, dim)));
        let in_place = own[1] == rows[0] && own[2] == rows[1];
        if in_place && own[0].iter().all(|a| a.dim == Dim::Channel) {
            return self.channels(x, &indices(&own[0]), name);
        }
        self.no_void(x)?;
        if own[1].is_empty() && own[2].is_empty() {
            let flat = self.add(&format!("{name}.flatten"), Op::Flatten, &[x])?;
            let order = flat_indices(&own[0], shape);
            return self.channels(flat, &order, name);
        }
        if let Some(node) = self.blocks(x, &own, name)? {
            return Ok(node);
        }
        refuse("whose axes are made of parts of others")
    }

    /// Blocks of positions as channels (space to depth): rows and columns are every `stride`-th of the map.
    fn blocks(&mut self, x: NodeId, own: &[Vec<Atom>; 3], name: &str) -> Result<Option<NodeId>> {
        let shape = self.shape(x);
        let block = |atoms: &[Atom], dim: Dim| match atoms {
            [a] if a.dim == dim && a.size * a.stride == extent(shape, dim) => Some(a.stride),
            [] if extent(shape, dim) == 1 => Some(1),
            _ => None,
        };
        let (Some(by), Some(bx)) = (block(&own[1], Dim::Row), block(&own[2], Dim::Column)) else { return Ok(None) };
        let inner = |dim: Dim, size: usize| {
            let parts: Vec<&Atom> = own[0].iter().filter(|a| a.dim == dim).collect();
            match parts[..] {
                [] => size == 1,
                [a] => a.size == size && a.stride == 1,
                _ => false,
            }
        };
        if !inner(Dim::Row, by) || !inner(Dim::Column, bx) || by * bx > 256 {
            return Ok(None);
        }
        let mut pieces = Vec::new();
        for y in 0..by {
            for z in 0..bx {
                let cut = self.cropped(x, [y, 0], [z, 0], &format!("{name}.crop"))?;
                pieces.push(self.add(&format!("{name}.piece"), Op::Subsample { stride: [by, bx] }, &[cut])?);
            }
        }
        let blocks = self.add(&format!("{name}.blocks"), Op::Concat, &pieces)?;
        // Channels of the blocks: row within the block, column within the block, channel.
        let mut order = vec![0];
        for atom in &own[0] {
            let step = match atom.dim {
                Dim::Row => bx * shape.c,
                Dim::Column => shape.c,
                _ => atom.stride,
            };
            order = order.iter().flat_map(|&i| (0..atom.size).map(move |j| i + j * step)).collect();
        }
        self.channels(blocks, &order, name).map(Some)
    }

    /// Rows and columns cut off.
    pub(super) fn cropped(&mut self, x: NodeId, rows: [usize; 2], columns: [usize; 2], name: &str) -> Result<NodeId> {
        if rows == [0; 2] && columns == [0; 2] {
            return Ok(x);
        }
        let less = |n: [usize; 2]| n.map(|n| -(n as isize));
        self.add(name, Op::Pad { rows: less(rows), columns: less(columns) }, &[x])
    }

    /// The map `[n, c, h, w]`, `[n, c, l]` or `[n, c]` of a signal, and how such maps are seen.
    pub(super) fn map(&mut self, signal: &Signal, name: &str) -> Result<NodeId> {
        let rank = signal.view.rank();
        if !(2..=4).contains(&rank) {
            return Err(Error::model(format!("an array of {rank} axes ({:?}) is not supported here", signal.dims())));
        }
        let node = self.arranged(signal, &[1, 2, 3][..rank - 1], name)?;
        self.no_void(node)?;
        Ok(node)
    }

    /// A map seen with `rank` axes: pictures, channels, rows, columns.
    pub(super) fn seen(&self, node: NodeId, rank: usize) -> Signal {
        Signal::of(node, View::of(self.pictures, self.shape(node), &MAP[..rank.saturating_sub(1).min(3)]))
    }

    /// The signal's channels with the parts `outer` before the parts `inner`, and its view then.
    pub(super) fn regrouped(&mut self, signal: &Signal, inner: &[Atom], name: &str) -> Result<(NodeId, View)> {
        let mut outer: Vec<Atom> = signal.view.flat().into_iter().filter(|a| a.dim == Dim::Channel).collect();
        outer = split_off(&outer, inner).ok_or_else(|| Error::model("its channels are divided in another way"))?;
        outer.sort_by_key(|a| std::cmp::Reverse(a.stride));
        let all: Vec<Atom> = outer.iter().chain(inner).copied().collect();
        let x = self.node_of(signal)?;
        let node = self.channels(x, &indices(&all), name)?;
        let mut step = 1;
        let mut moved: Vec<(Atom, usize)> = Vec::new();
        for atom in all.iter().rev() {
            moved.push((*atom, step));
            step *= atom.size;
        }
        let mut axes = signal.view.axes.clone();
        for axis in &mut axes {
            let mut parts = Vec::new();
            for atom in axis.iter() {
                if atom.dim != Dim::Channel {
                    parts.push(*atom);
                    continue;
                }
                parts.extend(
                    remapped(*atom, &moved).ok_or_else(|| Error::model("its channels are divided in another way"))?,
                );
            }
            *axis = parts;
        }
        let dims: Vec<usize> = axes.iter().map(|axis| axis.iter().map(|a| a.size).product()).collect();
        let view = View { axes };
        let view = view.reshaped(&dims).unwrap_or(view);
        Ok((node, view))
    }

    /// The numbers of a constant as they fall on a signal of the same or a larger shape.
    pub(super) fn spread(&self, constant: &Constant, signal: &Signal) -> Result<Spread> {
        if let Some(one) = constant.single() {
            return Ok(Spread::One(one));
        }
        let dims = signal.dims();
        let steps = constant::broadcast_steps(&constant.dims, &dims)?;
        let mut parts: Vec<(Atom, usize)> = Vec::new();
        for (axis, &step) in steps.iter().enumerate().filter(|(_, step)| **step > 0) {
            let mut step = step;
            for atom in signal.view.axes[axis].iter().rev() {
                parts.push((*atom, step));
                step *= atom.size;
            }
        }
        if parts.iter().any(|(a, _)| a.dim == Dim::Picture) {
            return Err(Error::model("constants that differ from picture to picture are not supported"));
        }
        let numbers = constant.to_real();
        let shape = self.shape_of(signal);
        let at = |place: [usize; 3]| {
            let index = |dim: Dim| match dim {
                Dim::Channel => place[0],
                Dim::Row => place[1],
                _ => place[2],
            };
            numbers[parts.iter().map(|(a, step)| index(a.dim) / a.stride % a.size * step).sum::<usize>()]
        };
        if parts.iter().all(|(a, _)| a.dim == Dim::Channel) {
            return Ok(Spread::Channels((0..shape.c).map(|c| at([c, 0, 0])).collect()));
        }
        let mut all = Vec::with_capacity(constant::count(&shape.dims())?);
        for c in 0..shape.c {
            for y in 0..shape.h {
                all.extend((0..shape.w).map(|x| at([c, y, x])));
            }
        }
        // Often ones: as numbers for all, or for channels, where they are.
        let plane = shape.plane();
        let firsts: Vec<f64> = all.iter().step_by(plane).copied().collect();
        let of_channels = all.chunks_exact(plane).zip(&firsts).all(|(part, first)| part.iter().all(|v| v == first));
        Ok(match of_channels {
            true if firsts.iter().all(|v| *v == firsts[0]) => Spread::One(firsts[0]),
            true => Spread::Channels(firsts),
            false => Spread::Elements(all),
        })
    }

    /// The signal repeated along axes of size 1 to fill `dims`.
    pub(super) fn expanded(&mut self, signal: &Signal, dims: &[usize], name: &str) -> Result<Signal> {
        let before = dims.len().checked_sub(signal.view.rank());
        let before = before.ok_or_else(|| Error::model(format!("{:?} does not fill {dims:?}", signal.dims())))?;
        let mut view = signal.view.clone();
        view.axes.splice(0..0, std::iter::repeat_n(Vec::new(), before));
        let own = view.dims();
        let wider: Vec<usize> = (0..dims.len()).filter(|&a| own[a] != dims[a]).collect();
        if wider.is_empty() {
            return Ok(Signal { scalar: signal.scalar.clone(), view });
        }
        if wider.iter().any(|&a| own[a] != 1) {
            return Err(Error::model(format!("{own:?} does not fill {dims:?}")));
        }
        // Each longer axis takes the axis of the map that stands at its place in [n, c, h, w].
        let x = self.arranged(signal, &(1 - before.min(1)..signal.view.rank()).collect::<Vec<_>>(), name);
        let (Ok(x), true) = (x, dims.len() <= 4 && dims.len() >= 2) else {
            return Err(Error::model(format!("repeating an array of shape {own:?} to {dims:?} is not supported")));
        };
        let shape = self.shape(x);
        let canonical = View::of(self.pictures, shape, &MAP[..dims.len() - 1]);
        if canonical.dims()[1..] != own[1..] || dims[0] != own[0].max(self.pictures) {
            return Err(Error::model(format!("repeating an array of shape {own:?} to {dims:?} is not supported")));
        }
        let size = |i: usize| dims.get(i).copied().unwrap_or(1);
        let node = self.repeated(x, Shape::new(size(1), size(2), size(3)), name)?;
        Ok(self.seen(node, dims.len()))
    }

    /// A map with one channel, one row or one column repeated to fill `to`.
    pub(super) fn repeated(&mut self, x: NodeId, to: Shape, name: &str) -> Result<NodeId> {
        let mut x = x;
        if [self.shape(x).h, self.shape(x).w] != [to.h, to.w] {
            let resize = Resize { to: ResizeTo::Size([to.h, to.w]), interpolation: Interpolation::Nearest };
            x = self.add(&format!("{name}.positions"), Op::Resize(resize), &[x])?;
        }
        if self.shape(x).c != to.c {
            if to.c > MOST_PIECES {
                return Err(Error::model(format!("repeating a channel {} times is not supported", to.c)));
            }
            constant::spend(to.c)?;
            x = self.add(&format!("{name}.channels"), Op::Concat, &vec![x; to.c])?;
        }
        Ok(x)
    }

    /// A sum, product or quotient of two signals.
    pub(super) fn combined(&mut self, op: Binary, a: &Signal, b: &Signal, name: &str) -> Result<Signal> {
        let rank = a.view.rank().max(b.view.rank());
        let widen = |signal: &Signal| {
            let mut view = signal.view.clone();
            view.axes.splice(0..0, std::iter::repeat_n(Vec::new(), rank - signal.view.rank()));
            Signal { scalar: signal.scalar.clone(), view }
        };
        let (a, b) = (widen(a), widen(b));
        if a.scalar.base == b.scalar.base && a.view == b.view {
            let (x, y) = (self.formula(&a)?, self.formula(&b)?);
            if x.base == y.base {
                return Ok(Signal { scalar: Scalar::binary(op, &x, &y, name), view: a.view });
            }
        }
        let dims = constant::broadcast(&a.dims(), &b.dims())?;
        if let Some(view) = self.fits(&a, &b) {
            let (x, y) = (self.node_of(&a)?, self.node_of(&b)?);
            self.no_void(x)?;
            self.no_void(y)?;
            return self.joined(op, [x, y], view, name);
        }
        // The same parts of a map, but for the order of its channels.
        if let Some(moved) = self.aligned(&b, &a, name)? {
            return self.combined(op, &a, &moved, name);
        }
        // Not the same parts of a map: as [n, c, h, w] both.
        if !(2..=4).contains(&rank) {
            return Err(Error::model(format!(
                "arrays of shapes {:?} and {:?} that lie differently",
                a.dims(),
                b.dims()
            )));
        }
        let (x, y) = (self.map(&a, &format!("{name}.left"))?, self.map(&b, &format!("{name}.right"))?);
        let seen = View::of(self.pictures, Shape::new(1, 1, 1), &MAP[..rank - 1]);
        let size = |i: usize| dims.get(i).copied().unwrap_or(1);
        let mut view = seen;
        for axis in 1..rank {
            view.axes[axis] = whole(MAP[axis - 1], size(axis));
        }
        self.joined(op, [x, y], view, name)
    }

    /// `signal` with its channels in the order of those of `other`, if that makes both lie alike.
    fn aligned(&mut self, signal: &Signal, other: &Signal, name: &str) -> Result<Option<Signal>> {
        let of_channels = |view: &View, axis: usize| -> Vec<Atom> {
            view.axes[axis].iter().copied().filter(|a| a.dim == Dim::Channel).collect()
        };
        let mut order: Vec<(usize, usize)> = vec![(0, 0)];
        let mut moved = false;
        for axis in 0..signal.view.rank() {
            let (own, wanted) = (of_channels(&signal.view, axis), of_channels(&other.view, axis));
            let sizes = |atoms: &[Atom]| atoms.iter().map(|a| a.size).collect::<Vec<_>>();
            if sizes(&own) != sizes(&wanted) {
                return Ok(None);
            }
            moved |= own != wanted;
            for (from, to) in own.iter().zip(&wanted) {
                order = order
                    .iter()
                    .flat_map(|&(old, new)| (0..from.size).map(move |i| (old + i * from.stride, new + i * to.stride)))
                    .collect();
            }
        }
        if !moved || order.len() != self.shape_of(signal).c || order.len() != self.shape_of(other).c {
            return Ok(None);
        }
        order.sort_by_key(|&(_, new)| new);
        let x = self.node_of(signal)?;
        let old: Vec<usize> = order.into_iter().map(|(old, _)| old).collect();
        let node = self.channels(x, &old, &format!("{name}.order"))?;
        let mut view = signal.view.clone();
        for (own, wanted) in view.axes.iter_mut().zip(&other.view.axes) {
            let mut strides = wanted.iter().filter(|a| a.dim == Dim::Channel).map(|a| a.stride);
            for atom in own.iter_mut().filter(|a| a.dim == Dim::Channel) {
                atom.stride = strides.next().unwrap_or(atom.stride);
            }
        }
        Ok(Some(Signal::of(node, view)))
    }

    /// The view of an elementwise operation on two signals, if both lie alike.
    fn fits(&self, a: &Signal, b: &Signal) -> Option<View> {
        let (s, t) = (self.shape_of(a), self.shape_of(b));
        let axes = a.view.axes.iter().zip(&b.view.axes).map(|(x, y)| match (x.is_empty(), y.is_empty()) {
            (true, _) => Some(y.clone()),
            (_, true) => Some(x.clone()),
            _ => (x == y).then(|| x.clone()),
        });
        let view = View { axes: axes.collect::<Option<_>>()? };
        // An axis that one of them lacks, it lacks as a whole.
        let alike = MAP.iter().all(|&dim| {
            let (n, m) = (extent(s, dim), extent(t, dim));
            n == m || n == 1 || m == 1
        });
        let size = |dim: Dim| view.axes.iter().flatten().filter(|a| a.dim == dim).map(|a| a.size).product::<usize>();
        let whole = MAP.iter().all(|&dim| size(dim) == extent(s, dim).max(extent(t, dim)));
        let pictures: usize = view.axes.iter().flatten().filter(|a| a.dim == Dim::Picture).map(|a| a.size).product();
        (alike && whole && pictures <= self.pictures).then_some(view)
    }

    fn joined(&mut self, op: Binary, [x, y]: [NodeId; 2], view: View, name: &str) -> Result<Signal> {
        let (s, t) = (self.shape(x), self.shape(y));
        let (mut x, mut y) = (x, y);
        if s.joined(t).is_none() {
            let to = Shape::new(s.c.max(t.c), s.h.max(t.h), s.w.max(t.w));
            let positions = |shape: Shape| Shape::new(shape.c, to.h, to.w);
            if s.plane() != 1 {
                x = self.repeated(x, positions(s), &format!("{name}.left"))?;
            }
            if t.plane() != 1 {
                y = self.repeated(y, positions(t), &format!("{name}.right"))?;
            }
        }
        let op = match op {
            Binary::Add => Op::Add,
            Binary::Mul => Op::Mul,
            Binary::Divide => Op::Divide,
        };
        let node = self.add(name, op, &[x, y])?;
        Ok(Signal::of(node, view))
    }
}

/// For each step along `atoms` the index in the flattened map.
pub(super) fn flat_indices(atoms: &[Atom], shape: Shape) -> Vec<usize> {
    let step = |dim: Dim| match dim {
        Dim::Channel => shape.plane(),
        Dim::Row => shape.w,
        _ => 1,
    };
    let moved: Vec<Atom> = atoms.iter().map(|a| Atom { stride: a.stride * step(a.dim), ..*a }).collect();
    indices(&moved)
}

/// The parts of `all` that are not in `inner`; `None` if `inner` is not made of parts of `all`.
fn split_off(all: &[Atom], inner: &[Atom]) -> Option<Vec<Atom>> {
    let mut rest: Vec<Atom> = all.to_vec();
    for part in inner {
        let at = rest.iter().position(|a| {
            part.stride >= a.stride
                && part.stride.is_multiple_of(a.stride)
                && a.size.is_multiple_of(part.stride / a.stride * part.size)
        })?;
        let a = rest.remove(at);
        let below = part.stride / a.stride;
        let above = a.size / (below * part.size);
        if above > 1 {
            rest.push(Atom { size: above, stride: part.stride * part.size, ..a });
        }
        if below > 1 {
            rest.push(Atom { size: below, ..a });
        }
    }
    Some(rest)
}

/// The parts of an axis of channels after those in `moved` got other strides.
fn remapped(atom: Atom, moved: &[(Atom, usize)]) -> Option<Vec<Atom>> {
    let (mut parts, mut left) = (Vec::new(), atom.size);
    let mut sorted: Vec<&(Atom, usize)> = moved.iter().collect();
    sorted.sort_by_key(|(a, _)| a.stride);
    let mut stride = atom.stride;
    while left > 1 {
        let (old, new) = sorted.iter().find(|(a, _)| a.stride <= stride && stride < a.stride * a.size)?;
        let below = stride / old.stride;
        if !stride.is_multiple_of(old.stride) || !old.size.is_multiple_of(below) {
            return None;
        }
        let size = (old.size / below).min(left);
        if !left.is_multiple_of(size) {
            return None;
        }
        parts.push(Atom { size, stride: new * below, ..atom });
        left /= size;
        stride *= size;
    }
    parts.reverse();
    Some(parts)
}
