//! Describes parts of pictures that are removed, as plain data.

use crate::tensor::Tensor;

/// Rows and columns of a picture; the part beyond its edges is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rectangle {
    /// First row and column.
    pub corner: [usize; 2],
    /// Rows and columns.
    pub size: [usize; 2],
}

/// One rectangle per copy, whose pixels are replaced.
#[derive(Debug, Clone)]
pub struct Boxes {
    /// One per copy, the same for all pictures.
    pub boxes: Vec<Rectangle>,
    /// The replacement pixels: one `[C, H, W]` per picture.
    pub fills: Vec<Tensor>,
}

/// One mask per copy, multiplied with all channels. Each is cut from a small grid of numbers that is enlarged
/// bilinearly (half-pixel centres, border repeated).
#[derive(Debug, Clone)]
pub struct Masks {
    /// Height and width of the grids.
    pub grid: [usize; 2],
    /// Size to which they are enlarged, at least the picture's.
    pub size: [usize; 2],
    /// By picture and copy.
    pub masks: Vec<Vec<GridMask>>,
}

/// One of [`Masks`].
#[derive(Debug, Clone, PartialEq)]
pub struct GridMask {
    /// The grid's numbers, row by row.
    pub values: Vec<f64>,
    /// Row and column of the enlarged grid at which the picture begins.
    pub corner: [usize; 2],
}

impl Masks {
    /// Whether there is a grid for each of the `copies` of each of the `pictures` that covers `[H, W]`.
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
