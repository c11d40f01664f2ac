//! Parts of pictures taken away, as plain data.

use crate::tensor::Tensor;

/// Rows and columns of a picture; what lies beyond its edges does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rectangle {
    /// First row and column.
    pub corner: [usize; 2],
    /// Rows and columns.
    pub size: [usize; 2],
}

/// One rectangle a copy, in place of whose pixels others stand.
#[derive(Debug, Clone)]
pub struct Boxes {
    /// One a copy, the same for all pictures.
    pub boxes: Vec<Rectangle>,
    /// What stands there: one `[C, H, W]` a picture.
    pub fills: Vec<Tensor>,
}

/// One mask a copy by which all channels are multiplied, each a piece of a small grid of numbers that is enlarged
/// bilinearly (half-pixel centres, the border repeated).
#[derive(Debug, Clone)]
pub struct Masks {
    /// Rows and columns of the grids.
    pub grid: [usize; 2],
    /// Rows and columns they are enlarged to, at least the picture's.
    pub size: [usize; 2],
    /// By picture and copy.
    pub masks: Vec<Vec<GridMask>>,
}

/// One of [`Masks`].
#[derive(Debug, Clone, PartialEq)]
pub struct GridMask {
    /// The grid's numbers, rows first.
    pub values: Vec<f64>,
    /// Row and column of the enlarged grid at which the picture begins.
    pub corner: [usize; 2],
}

impl Masks {
    /// Whether there is a grid for each of `copies` of `pictures` that covers `[H, W]`.
    pub(crate) fn cover(&self, pictures: usize, copies: usize, [h, w]: [usize; 2]) -> bool {
        let ends = |at: usize, extent: usize, end: usize| at.checked_add(extent).is_some_and(|e| e <= end);
        let covers = |m: &GridMask| {
            self.grid[0].checked_mul(self.grid[1]) == Some(m.values.len())
                && !m.values.is_empty()
                && ends(m.corner[0], h, self.size[0])
                && ends(m.corner[1], w, self.size[1])
        };
        self.masks.len() == pictures && self.masks.iter().all(|m| m.len() == copies && m.iter().all(covers))
    }
}
