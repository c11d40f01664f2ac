//! Moves between feature maps: which number of one lies where in another.

use super::Shape;

/// Element `o` of an axis is element `(o · step + first) / every` of the source, if that is a whole number and inside;
/// else it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AxisMove {
    /// Elements of the source from one element of the result to the next.
    pub step: usize,
    /// Where the result's first element lies, in `every`-ths of an element.
    pub first: isize,
    /// Elements of the result from one element of the source to the next.
    pub every: usize,
}

impl AxisMove {
    /// Every element stays where it is.
    pub const SAME: Self = Self { step: 1, first: 0, every: 1 };

    /// The result begins with element `first` of the source; a negative one puts zeros before.
    pub const fn from(first: isize) -> Self {
        Self { first, ..Self::SAME }
    }

    /// Every `step`-th element, from the first.
    pub const fn by(step: usize) -> Self {
        Self { step, ..Self::SAME }
    }

    /// The move of a signal in the opposite direction.
    pub const fn adjoint(self) -> Self {
        Self { step: self.every, first: -self.first, every: self.step }
    }

    /// The element of a source of `extent` elements that lies at `o`.
    #[inline]
    pub const fn source(self, o: usize, extent: usize) -> Option<usize> {
        let at = (o * self.step) as isize + self.first;
        if at < 0 || !(at as usize).is_multiple_of(self.every) || at as usize / self.every >= extent {
            return None;
        }
        Some(at as usize / self.every)
    }
}

/// A map whose numbers are those of another, each at most once, or zero: a slice, a padding, a subsampling, a shuffle
/// of channels, or the adjoint of one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moves {
    /// Channels, rows, columns.
    pub axes: [AxisMove; 3],
    /// Channels of the source are read as this many rows of a matrix, in the order of its columns. 1 leaves their order.
    pub groups: usize,
}

impl Moves {
    /// Every number stays where it is.
    pub const SAME: Self = Self { axes: [AxisMove::SAME; 3], groups: 1 };

    /// A move along the channels only.
    pub const fn channels(axis: AxisMove) -> Self {
        Self { axes: [axis, AxisMove::SAME, AxisMove::SAME], groups: 1 }
    }

    /// The move of a signal from a map of `to` back to the source.
    pub fn adjoint(self, to: Shape) -> Self {
        let groups = if self.groups == 1 { 1 } else { to.c / self.groups };
        Self { axes: self.axes.map(AxisMove::adjoint), groups }
    }

    /// The channel of a source of `channels` that lies at `c`.
    #[inline]
    pub const fn channel(&self, c: usize, channels: usize) -> Option<usize> {
        match self.axes[0].source(c, channels) {
            Some(c) => Some(c % self.groups * (channels / self.groups) + c / self.groups),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjoints_send_every_number_back() {
        for (axis, from, to) in [
            (AxisMove::from(3), 9, 4),
            (AxisMove::from(-2), 5, 9),
            (AxisMove::by(3), 10, 4),
            (AxisMove { step: 2, first: 1, every: 1 }, 9, 4),
        ] {
            for o in 0..to {
                if let Some(i) = axis.source(o, from) {
                    assert_eq!(axis.adjoint().source(i, to), Some(o), "{axis:?} at {o}");
                }
            }
            let sent = (0..from).filter(|&i| axis.adjoint().source(i, to).is_some()).count();
            assert_eq!(sent, (0..to).filter(|&o| axis.source(o, from).is_some()).count());
        }
        let shuffle = Moves { groups: 3, ..Moves::SAME };
        let order: Vec<usize> = (0..12).map(|c| shuffle.channel(c, 12).unwrap()).collect();
        assert_eq!(order[..6], [0, 4, 8, 1, 5, 9]);
        let back = shuffle.adjoint(Shape::vector(12));
        assert!((0..12).all(|c| back.channel(order[c], 12) == Some(c)));
    }
}
