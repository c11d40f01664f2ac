//! Shapes of feature maps and sliding windows over them.

use crate::error::{Error, Result};

/// Shape of one picture's feature map: channels, rows, columns. A vector is `c × 1 × 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

/// Most elements of a feature map, such that the bytes of whole programs fit into `usize`.
const MOST_ELEMENTS: u64 = 1 << 36;

/// Largest extent or step of a window.
const MOST_REACH: usize = 1 << 24;

impl Shape {
    /// The same shape, if it is valid for a feature map.
    ///
    /// # Errors
    /// When it is empty or has more than 2³⁶ elements.
    pub fn checked(self) -> Result<Self> {
        match self.c.checked_mul(self.h).and_then(|n| n.checked_mul(self.w)) {
            Some(0) => Err(Error::model(format!("the shape {self} is empty"))),
            Some(n) if n as u64 <= MOST_ELEMENTS => Ok(self),
            _ => Err(Error::model(format!("the shape {self} is too large"))),
        }
    }

    /// `c × h × w`.
    pub const fn new(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w }
    }

    /// A vector of `c` elements.
    pub const fn vector(c: usize) -> Self {
        Self { c, h: 1, w: 1 }
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.c * self.h * self.w
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.c == 0 || self.h == 0 || self.w == 0
    }

    /// Elements of one channel.
    pub const fn plane(&self) -> usize {
        self.h * self.w
    }

    /// `[c, h, w]`.
    pub const fn dims(&self) -> [usize; 3] {
        [self.c, self.h, self.w]
    }

    /// How a map of this shape fills one of shape `whole`: each channel stands for a group of neighbouring channels, each
    /// position for itself or the only one for all. `None` if it does not.
    pub const fn repeated_in(&self, whole: Shape) -> Option<Repeat> {
        let alike = self.h == whole.h && self.w == whole.w;
        if self.is_empty() || !whole.c.is_multiple_of(self.c) || !(alike || self.plane() == 1) {
            return None;
        }
        Some(Repeat { group: whole.c / self.c, positions: alike })
    }

    /// The shape of an elementwise function of two maps where a map of one channel, or of one position, is repeated.
    pub fn joined(self, other: Shape) -> Option<Shape> {
        let c = if self.c == 1 { other.c } else { self.c };
        let [h, w] = if self.plane() == 1 { [other.h, other.w] } else { [self.h, self.w] };
        let joined = Shape::new(c, h, w);
        let fills = |s: Shape| s.repeated_in(joined).is_some_and(|r| r.group == 1 || s.c == 1);
        (fills(self) && fills(other)).then_some(joined)
    }
}

/// How a smaller map is repeated to fill a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repeat {
    /// Channels of the larger map that read one channel.
    pub group: usize,
    /// Whether every position has a number of its own.
    pub positions: bool,
}

impl Repeat {
    /// Whether the shapes are equal.
    pub const fn is_whole(self) -> bool {
        self.group == 1 && self.positions
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

/// How a window's input is padded with zeros (for max-pooling, with nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Rows above and below, columns left and right.
    Explicit {
        /// Rows above.
        top: usize,
        /// Rows below.
        bottom: usize,
        /// Columns to the left.
        left: usize,
        /// Columns to the right.
        right: usize,
    },
    /// TensorFlow's "SAME": output `ceil(input / stride)`, with an odd row or column at the bottom or right.
    Same,
}

impl Padding {
    /// The same padding on all four sides.
    pub const fn all(n: usize) -> Self {
        Padding::Explicit { top: n, bottom: n, left: n, right: n }
    }
}

/// A sliding window, axes `[y, x]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Number of taps.
    pub kernel: [usize; 2],
    /// Distance between windows.
    pub stride: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Padding of the input.
    pub padding: Padding,
    /// Whether a final partial window counts (pooling only).
    pub ceil: bool,
}

impl Window {
    /// A square window without dilation, equal padding on all sides.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], padding: Padding::all(padding), ceil: false }
    }

    /// Total number of taps.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Rows or columns from a window's first tap to its last, inclusive.
    pub const fn span(&self) -> [usize; 2] {
        [(self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1]
    }

    /// Padding before and after on each axis, `[[top, bottom], [left, right]]`, for an input of `h × w`.
    pub fn pads(&self, h: usize, w: usize) -> [[usize; 2]; 2] {
        match self.padding {
            Padding::Explicit { top, bottom, left, right } => [[top, bottom], [left, right]],
            Padding::Same => {
                let axis = |n: usize, a: usize| {
                    let out = n.div_ceil(self.stride[a]);
                    let total = ((out.saturating_sub(1)) * self.stride[a] + self.span()[a]).saturating_sub(n);
                    [total / 2, total - total / 2]
                };
                [axis(h, 0), axis(w, 1)]
            }
        }
    }

    /// Rows and columns of the output for an input of `h × w`.
    ///
    /// # Errors
    /// When kernel, stride or dilation is zero, the window does not fit into the padded input, or a number is too
    /// large.
    pub fn output(&self, h: usize, w: usize) -> Result<[usize; 2]> {
        if self.kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) {
            return Err(Error::model(format!(
                "a window needs kernel, stride and dilation of at least 1, got {self:?}"
            )));
        }
        let reach = |a: usize| self.kernel[a].checked_mul(self.dilation[a]);
        let taps = self.kernel[0].checked_mul(self.kernel[1]);
        let sides = match self.padding {
            Padding::Explicit { top, bottom, left, right } => [top, bottom, left, right],
            Padding::Same => [0; 4],
        };
        let sizes =
            [reach(0), reach(1), taps].into_iter().chain(sides.into_iter().chain(self.stride).chain([h, w]).map(Some));
        if sizes.into_iter().any(|n| n.is_none_or(|n| n > MOST_REACH)) {
            return Err(Error::model(format!("{self:?} on an input of {h}x{w} reaches too far")));
        }
        let pads = self.pads(h, w);
        let axis = |n: usize, a: usize| -> Result<usize> {
            let padded = n + pads[a][0] + pads[a][1];
            let span = self.span()[a];
            // In ceil mode a single window may extend beyond the input, by less than a stride (as in PyTorch).
            if self.ceil && n > 0 && padded < span && span - padded < self.stride[a] {
                return Ok(1);
            }
            if n == 0 || padded < span {
                return Err(Error::model(format!(
                    "a window of {} {} does not fit into an input of {h}x{w} (padded to {padded})",
                    span,
                    if a == 0 { "rows" } else { "columns" }
                )));
            }
            let room = padded - span;
            let mut out = room / self.stride[a] + 1;
            // A partial window counts only if it starts inside the input or its leading padding (as in PyTorch).
            if self.ceil && !room.is_multiple_of(self.stride[a]) && out * self.stride[a] < n + pads[a][0] {
                out += 1;
            }
            Ok(out)
        };
        Ok([axis(h, 0)?, axis(w, 1)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_pytorch() {
        assert_eq!(Window::square(7, 2, 3).output(224, 224).unwrap(), [112, 112]);
        assert_eq!(Window::square(3, 2, 1).output(112, 17).unwrap(), [56, 9]);
        let ceil = Window { ceil: true, ..Window::square(3, 2, 0) };
        assert_eq!(ceil.output(8, 7).unwrap(), [4, 3]);
        // PyTorch drops a last window that would start in the trailing padding.
        let padded = Window { ceil: true, ..Window::square(2, 2, 1) };
        assert_eq!(padded.output(5, 4).unwrap(), [3, 3]);
        assert!(Window::square(5, 1, 0).output(4, 9).is_err());
        assert_eq!(ceil.output(2, 4).unwrap(), [1, 2]);
        assert!(ceil.output(1, 4).is_err());
    }

    #[test]
    fn same_padding_puts_the_odd_row_last() {
        let w = Window { padding: Padding::Same, ..Window::square(3, 2, 0) };
        assert_eq!(w.pads(224, 225), [[0, 1], [1, 1]]);
        assert_eq!(w.output(224, 225).unwrap(), [112, 113]);
        let w5 = Window { padding: Padding::Same, ..Window::square(5, 2, 0) };
        assert_eq!(w5.pads(28, 14), [[1, 2], [1, 2]]);
    }
}
