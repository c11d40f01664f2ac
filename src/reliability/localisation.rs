//! Compares where a map points with where an object is.

/// A rectangle in the net's input, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Location of a class: an annotated box, or its cell in a mosaic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Index of the class.
    pub class: usize,
    /// Its location.
    pub bounds: Bounds,
}

impl Bounds {
    /// Whether a pixel lies inside.
    pub fn contains(&self, y: usize, x: usize) -> bool {
        let within = |at: usize, start: usize, extent: usize| at >= start && at - start < extent;
        within(y, self.top, self.height) && within(x, self.left, self.width)
    }

    /// Whether a pixel lies inside, or within `margin` pixels (Euclidean) of it.
    pub fn is_near(&self, y: usize, x: usize, margin: f64) -> bool {
        if self.area() == 0 {
            return false;
        }
        let away = |at: usize, start: usize, extent: usize| {
            (start as f64 - at as f64).max(at as f64 - (start + extent - 1) as f64).max(0.0)
        };
        away(y, self.top, self.height).hypot(away(x, self.left, self.width)) <= margin
    }

    /// Number of pixels inside.
    pub fn area(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// Intersection over union, 0 to 1; 0 if both are empty.
    pub fn iou(&self, other: &Bounds) -> f64 {
        let overlap = |a: usize, n: usize, b: usize, m: usize| {
            a.saturating_add(n).min(b.saturating_add(m)).saturating_sub(a.max(b))
        };
        let tall = overlap(self.top, self.height, other.top, other.height);
        let wide = overlap(self.left, self.width, other.left, other.width);
        let both = (tall * wide) as f64;
        let union = (self.area() + other.area()) as f64 - both;
        if union > 0.0 { both / union } else { 0.0 }
    }
}

/// The box around the largest 4-connected component of pixels with at least `threshold` times the largest value
/// (`values` is an `[H, W]` plane of `[h, w]` pixels); of equally large components, the first in C order. `None` if no
/// value is positive.
pub fn largest_component(values: &[f64], [h, w]: [usize; 2], threshold: f64) -> Option<Bounds> {
    let largest = values.iter().copied().fold(0.0, f64::max);
    if !(largest > 0.0) {
        return None;
    }
    let limit = threshold * largest;
    // Even with a threshold of 0, a pixel must be positive.
    let mut open: Vec<bool> = values.iter().map(|&v| v >= limit && v > 0.0).collect();
    let mut best: Option<(usize, Bounds)> = None;
    let mut stack = Vec::new();
    for start in 0..h * w {
        if !std::mem::take(&mut open[start]) {
            continue;
        }
        stack.push(start);
        let (mut size, mut rows, mut columns) = (0, (h, 0), (w, 0));
        while let Some(i) = stack.pop() {
            let (y, x) = (i / w, i % w);
            size += 1;
            rows = (rows.0.min(y), rows.1.max(y));
            columns = (columns.0.min(x), columns.1.max(x));
            let neighbours =
                [(y > 0, i.wrapping_sub(w)), (y + 1 < h, i + w), (x > 0, i.wrapping_sub(1)), (x + 1 < w, i + 1)];
            for (_, j) in neighbours.into_iter().filter(|(inside, _)| *inside) {
                if std::mem::take(&mut open[j]) {
                    stack.push(j);
                }
            }
        }
        if best.is_none_or(|(n, _)| size > n) {
            let bounds =
                Bounds { top: rows.0, left: columns.0, height: rows.1 - rows.0 + 1, width: columns.1 - columns.0 + 1 };
            best = Some((size, bounds));
        }
    }
    best.map(|(_, bounds)| bounds)
}

/// Share of the sum of positive values that lies in any of `boxes`, 0 to 1 (`values` is an `[H, W]` plane, `w` pixels
/// wide); `None` if no value is positive.
pub fn positive_share(values: &[f64], w: usize, boxes: &[Bounds]) -> Option<f64> {
    let largest = values.iter().copied().fold(0.0, f64::max);
    if !(largest > 0.0) {
        return None;
    }
    let (mut all, mut inside) = (0.0, 0.0);
    for (i, v) in values.iter().enumerate().filter(|(_, v)| **v > 0.0) {
        // Divided by the largest, because the sum of large numbers would overflow.
        let v = v / largest;
        all += v;
        if boxes.iter().any(|b| b.contains(i / w, i % w)) {
            inside += v;
        }
    }
    Some(inside / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(top: usize, left: usize, height: usize, width: usize) -> Bounds {
        Bounds { top, left, height, width }
    }

    #[test]
    fn boxes_overlap() {
        let a = bounds(0, 0, 4, 4);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(a.iou(&bounds(2, 2, 4, 4)), 4.0 / 28.0);
        assert_eq!(a.iou(&bounds(4, 0, 4, 4)), 0.0);
        assert_eq!(bounds(1, 1, 0, 5).iou(&bounds(1, 1, 0, 5)), 0.0);
        assert!(a.contains(3, 3) && !a.contains(4, 0) && !bounds(1, 1, 1, 1).contains(0, 1));
        assert!(a.is_near(5, 3, 2.0) && !a.is_near(6, 3, 2.0) && !a.is_near(5, 5, 2.0) && a.is_near(5, 5, 3.0));
        assert!(!bounds(1, 1, 0, 3).is_near(1, 1, 9.0));
    }

    #[test]
    fn components_are_4_connected() {
        #[rustfmt::skip]
        let values = [
            9.0, 0.0, 5.0, 5.0,
            0.0, 9.0, 0.0, 5.0,
            1.0, 9.0, 0.0, 0.0,
        ];
        // The nines touch only at a corner: three fives are more than two nines.
        assert_eq!(largest_component(&values, [3, 4], 0.5), Some(bounds(0, 2, 2, 2)));
        assert_eq!(largest_component(&values, [3, 4], 0.9), Some(bounds(1, 1, 2, 1)));
        // Three and three: the first wins.
        assert_eq!(largest_component(&values, [3, 4], 0.1), Some(bounds(0, 2, 2, 2)));
        assert_eq!(largest_component(&[-1.0, 0.0], [1, 2], 0.2), None);
        assert_eq!(largest_component(&[2.0; 6], [2, 3], 1.0), Some(bounds(0, 0, 2, 3)));
        assert_eq!(largest_component(&[0.0, 3.0, 0.0], [1, 3], 0.0), Some(bounds(0, 1, 1, 1)));
        assert_eq!(largest_component(&[3.0], [1, 1], 0.5), Some(bounds(0, 0, 1, 1)));
    }

    #[test]
    fn energy_is_positive() {
        let values = [1.0, -5.0, 3.0, 4.0];
        assert_eq!(positive_share(&values, 2, &[bounds(0, 0, 2, 1)]), Some(0.5));
        // Pixels in several boxes count once.
        assert_eq!(positive_share(&values, 2, &[bounds(0, 0, 2, 1), bounds(0, 0, 2, 2)]), Some(1.0));
        assert_eq!(positive_share(&[-1.0, 0.0], 2, &[bounds(0, 0, 1, 2)]), None);
        assert_eq!(positive_share(&[1e308; 4], 2, &[bounds(0, 0, 1, 2)]), Some(0.5));
    }
}
