//! Weighted sums along one axis: how a map is resized.

use std::sync::Arc;

use super::Shape;
use crate::error::{Error, Result};

/// Each element of an axis as a weighted sum of elements of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// For each element of the result where its terms begin, the number of terms; then for each term the element of the
    /// source and the weight.
    table: Arc<[f64]>,
    elements: usize,
}

impl Blend {
    /// From the terms of each element of the result.
    pub fn new(terms: &[Vec<(usize, f64)>]) -> Self {
        let mut starts = vec![0.0];
        for of in terms {
            starts.push(starts[starts.len() - 1] + of.len() as f64);
        }
        let pairs = terms.iter().flatten().flat_map(|&(source, weight)| [source as f64, weight]);
        Self { table: starts.into_iter().chain(pairs).collect(), elements: terms.len() }
    }

    /// The numbers of the table, in the order in which kernels read them.
    pub fn table(&self) -> &Arc<[f64]> {
        &self.table
    }

    /// Elements of the result.
    pub const fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Elements of the source and their weights, for element `o` of the result.
    pub fn terms(&self, o: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let [start, end] = [self.table[o], self.table[o + 1]].map(|at| at as usize);
        let pairs = &self.table[self.elements + 1..];
        (start..end).map(|i| (pairs[2 * i] as usize, pairs[2 * i + 1]))
    }

    /// The sums that send a signal back to a source of `extent` elements.
    pub fn adjoint(&self, extent: usize) -> Self {
        let mut terms = vec![Vec::new(); extent];
        for o in 0..self.elements {
            self.terms(o).for_each(|(source, weight)| terms[source].push((o, weight)));
        }
        Self::new(&terms)
    }
}

/// How numbers between elements are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The element `⌊o · n / out⌋`.
    Nearest,
    /// Linear between the two nearest, with centres at half elements (PyTorch's `align_corners=False`).
    Linear,
    /// Linear between the two nearest, with the first and the last elements at the same places
    /// (PyTorch's `align_corners=True`).
    LinearAligned,
    /// The map in the middle, beyond its edges mirrored there: of an odd number of elements more, the odd one last
    /// (PyTorch's padding `reflect`).
    Reflected,
    /// The map in the middle, beyond its edges their elements (PyTorch's padding `replicate`); as `Reflected` else.
    Replicated,
}

impl Interpolation {
    /// Every one.
    pub const ALL: [Interpolation; 5] = [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::LinearAligned,
        Interpolation::Reflected,
        Interpolation::Replicated,
    ];

    /// Whether an axis of `n` elements can become one of `out`.
    pub const fn reaches(self, n: usize, out: usize) -> bool {
        match self {
            Interpolation::Nearest | Interpolation::Linear | Interpolation::LinearAligned => true,
            // A mirror shows each element once.
            Interpolation::Reflected => out >= n && (out - n).div_ceil(2) < n,
            Interpolation::Replicated => out >= n,
        }
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Interpolation::Nearest => "nearest",
            Interpolation::Linear => "linear",
            Interpolation::LinearAligned => "linear_aligned",
            Interpolation::Reflected => "reflected",
            Interpolation::Replicated => "replicated",
        }
    }

    /// Of an axis of `n` elements one of `out`.
    pub fn blend(self, n: usize, out: usize) -> Blend {
        let terms = |o: usize| {
            let at = match self {
                Interpolation::Nearest => return vec![(o * n / out, 1.0)],
                Interpolation::Linear => ((o as f64 + 0.5) * (n as f64 / out as f64) - 0.5).max(0.0),
                Interpolation::LinearAligned if out > 1 => o as f64 * ((n - 1) as f64 / (out - 1) as f64),
                Interpolation::LinearAligned => 0.0,
                Interpolation::Reflected | Interpolation::Replicated => {
                    let before = out.saturating_sub(n) / 2;
                    let inside = o.saturating_sub(before).min(n - 1);
                    let beyond = before.saturating_sub(o) + (o.saturating_sub(before)).saturating_sub(n - 1);
                    let mirrored = if o < before { beyond } else { (n - 1).saturating_sub(beyond) };
                    let at = if self == Interpolation::Replicated || beyond == 0 { inside } else { mirrored };
                    return vec![(at.min(n - 1), 1.0)];
                }
            };
            let low = (at as usize).min(n - 1);
            let share = at - low as f64;
            if low + 1 == n || share == 0.0 { vec![(low, 1.0)] } else { vec![(low, 1.0 - share), (low + 1, share)] }
        };
        Blend::new(&(0..out).map(terms).collect::<Vec<_>>())
    }
}

/// A map in another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resize {
    /// Rows and columns.
    pub to: ResizeTo,
    /// How numbers between elements are made.
    pub interpolation: Interpolation,
}

/// Which size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResizeTo {
    /// These rows and columns.
    Size([usize; 2]),
    /// This many times as many.
    Factor([usize; 2]),
}

impl Resize {
    /// Shape of the result.
    ///
    /// # Errors
    /// When it has no rows or columns, or more than 2²³.
    pub fn output(&self, x: Shape) -> Result<Shape> {
        let [h, w] = match self.to {
            ResizeTo::Size(size) => size,
            ResizeTo::Factor([y, x_]) => [x.h.saturating_mul(y), x.w.saturating_mul(x_)],
        };
        let fits = |n: usize| (1..=1usize << 23).contains(&n);
        if !fits(h) || !fits(w) || !fits(x.h) || !fits(x.w) {
            return Err(Error::model(format!("{x} cannot be resized to {h} rows and {w} columns")));
        }
        if !self.interpolation.reaches(x.h, h) || !self.interpolation.reaches(x.w, w) {
            let how = self.interpolation.name();
            return Err(Error::model(format!("{x} cannot be {how} to {h} rows and {w} columns")));
        }
        Ok(Shape::new(x.c, h, w))
    }

    /// Rows and columns of the result as sums over those of a map from `from` to `to`.
    pub fn blends(&self, from: Shape, to: Shape) -> [Blend; 2] {
        [self.interpolation.blend(from.h, to.h), self.interpolation.blend(from.w, to.w)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_mirrored_or_repeated() {
        let sources = |interpolation: Interpolation, n, out| -> Vec<usize> {
            let blend = interpolation.blend(n, out);
            (0..out).flat_map(|o| blend.terms(o).map(|(source, _)| source).collect::<Vec<_>>()).collect()
        };
        assert_eq!(sources(Interpolation::Reflected, 4, 9), [2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(sources(Interpolation::Replicated, 4, 9), [0, 0, 0, 1, 2, 3, 3, 3, 3]);
        assert!(Interpolation::Reflected.reaches(4, 9) && !Interpolation::Reflected.reaches(4, 11));
        assert!(!Interpolation::Replicated.reaches(4, 3));
    }

    #[test]
    fn weights_add_up_and_adjoints_are_transposed() {
        for interpolation in Interpolation::ALL {
            for (n, out) in
                [(1, 4), (4, 1), (5, 9), (7, 3), (3, 3)].into_iter().filter(|(n, out)| interpolation.reaches(*n, *out))
            {
                let blend = interpolation.blend(n, out);
                assert_eq!((blend.len(), blend.is_empty()), (out, false));
                let back = blend.adjoint(n);
                for o in 0..out {
                    assert!((blend.terms(o).map(|t| t.1).sum::<f64>() - 1.0).abs() <= 1e-15);
                    for (source, weight) in blend.terms(o) {
                        assert!(back.terms(source).any(|t| t == (o, weight)));
                    }
                }
            }
        }
    }
}
