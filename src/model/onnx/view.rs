//! How an array of any rank, as ONNX has it, lies in a feature map of channels, rows and columns.
//!
//! A reshape or transposition of a signal only changes its view: nothing is computed until an operation needs its
//! input in another form.

use crate::tensor::Shape;

/// An axis of a feature map, or the axis of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dim {
    Picture,
    Channel,
    Row,
    Column,
}

/// The three axes of a feature map.
pub(super) const MAP: [Dim; 3] = [Dim::Channel, Dim::Row, Dim::Column];

/// A part of an axis of the map: `size` indices, which are `stride` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Atom {
    pub(super) dim: Dim,
    pub(super) size: usize,
    pub(super) stride: usize,
}

/// For each axis of an array the atoms that it runs over, the slowest first. Axes of size 1 have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) axes: Vec<Vec<Atom>>,
}

/// The whole axis `dim` of `size`.
pub(super) fn whole(dim: Dim, size: usize) -> Vec<Atom> {
    if size == 1 { Vec::new() } else { vec![Atom { dim, size, stride: 1 }] }
}

/// Size of the axis `dim` of a map.
pub(super) fn extent(shape: Shape, dim: Dim) -> usize {
    match dim {
        Dim::Picture => 1,
        Dim::Channel => shape.c,
        Dim::Row => shape.h,
        Dim::Column => shape.w,
    }
}

/// Joins neighbours that run on without a gap.
fn merged(atoms: impl IntoIterator<Item = Atom>) -> Vec<Atom> {
    let mut all: Vec<Atom> = Vec::new();
    for atom in atoms.into_iter().filter(|a| a.size != 1) {
        match all.last_mut() {
            Some(last) if last.dim == atom.dim && last.stride == atom.stride * atom.size => {
                (last.size, last.stride) = (last.size * atom.size, atom.stride);
            }
            _ => all.push(atom),
        }
    }
    all
}

impl View {
    /// `[pictures, axes of the map in this order]`.
    pub(super) fn of(pictures: usize, shape: Shape, order: &[Dim]) -> Self {
        let mut axes = vec![whole(Dim::Picture, pictures)];
        axes.extend(order.iter().map(|&dim| whole(dim, extent(shape, dim))));
        Self { axes }
    }

    /// Sizes of the axes.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.iter().map(|a| a.size).product()).collect()
    }

    /// Number of axes.
    pub(super) fn rank(&self) -> usize {
        self.axes.len()
    }

    /// The same elements in the same order with other axes; `None` if an axis would cut through a part.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        let mut rest: Vec<Atom> = self.axes.iter().flatten().copied().rev().collect();
        let mut axes = Vec::with_capacity(dims.len());
        for &size in dims {
            let (mut axis, mut need) = (Vec::new(), size);
            while need > 1 {
                let atom = rest.pop()?;
                if need.is_multiple_of(atom.size) {
                    axis.push(atom);
                    need /= atom.size;
                } else if atom.size.is_multiple_of(need) {
                    let inner = atom.size / need;
                    axis.push(Atom { size: need, stride: atom.stride * inner, ..atom });
                    rest.push(Atom { size: inner, ..atom });
                    need = 1;
                } else {
                    return None;
                }
            }
            axes.push(merged(axis));
        }
        rest.is_empty().then_some(Self { axes })
    }

    /// Axes in another order.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        Self { axes: perm.iter().map(|&axis| self.axes[axis].clone()).collect() }
    }

    /// All atoms in order, neighbours joined.
    pub(super) fn flat(&self) -> Vec<Atom> {
        merged(self.axes.iter().flatten().copied())
    }

    /// All atoms but those of pictures.
    pub(super) fn of_map(&self) -> Vec<Atom> {
        merged(self.axes.iter().flatten().copied().filter(|a| a.dim != Dim::Picture))
    }

    /// The axis of the map that axis `axis` is, whole and in order; `None` if it is anything else. An axis of size 1 is
    /// none.
    pub(super) fn is_whole(&self, axis: usize, shape: Shape) -> Option<Dim> {
        match self.axes[axis][..] {
            [Atom { dim, size, stride: 1 }] if dim != Dim::Picture && size == extent(shape, dim) => Some(dim),
            _ => None,
        }
    }

    /// The same view of a map whose axes `from` became `to` as wholes.
    pub(super) fn with_axis(&self, axis: usize, atoms: Vec<Atom>) -> Self {
        let mut axes = self.axes.clone();
        axes[axis] = atoms;
        Self { axes }
    }

    /// Whether axis `axis` runs over pictures.
    pub(super) fn has_pictures(&self, axis: usize) -> bool {
        self.axes[axis].iter().any(|a| a.dim == Dim::Picture)
    }
}

/// For each step along `atoms`, all of one axis of the map, the index on that axis.
pub(super) fn indices(atoms: &[Atom]) -> Vec<usize> {
    let mut all = vec![0];
    for atom in atoms {
        all = all.iter().flat_map(|&i| (0..atom.size).map(move |j| i + j * atom.stride)).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_two_reshapes_and_a_transposition() {
        let shape = Shape::new(6, 5, 7);
        let view = View::of(1, shape, &MAP);
        let split = view.reshaped(&[1, 2, 3, 5, 7]).unwrap();
        let back = split.transposed(&[0, 2, 1, 3, 4]).reshaped(&[1, 6, 5, 7]).unwrap();
        assert_eq!(back.dims(), [1, 6, 5, 7]);
        assert_eq!(indices(&back.axes[1]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(back.is_whole(1, shape), None);
        assert_eq!(back.is_whole(2, shape), Some(Dim::Row));
    }

    #[test]
    fn axes_that_cut_through_a_part_are_no_view() {
        let view = View::of(1, Shape::new(6, 5, 7), &MAP).transposed(&[0, 2, 3, 1]);
        assert!(view.reshaped(&[1, 35, 6]).is_some());
        assert!(view.reshaped(&[1, 10, 21]).is_none());
        assert!(view.reshaped(&[1, 5, 7, 5]).is_none());
        assert_eq!(
            view.reshaped(&[1, 35, 6]).unwrap().transposed(&[0, 2, 1]).reshaped(&[1, 6, 5, 7]).unwrap().dims(),
            [1, 6, 5, 7]
        );
    }
}
