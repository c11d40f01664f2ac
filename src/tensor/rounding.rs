//! Bounds the rounding error of numbers that should be equal.

use super::{Precision, Tensor};

/// Units in the last place that rounding may leave in a difference of equal terms.
const MOST_ULPS: f64 = 64.0;

/// The largest difference that rounding can explain: 64 ulp of its `terms`, computed in `precision`.
#[must_use]
pub(crate) fn rounding(terms: f64, precision: Precision) -> f64 {
    let size = terms.abs();
    MOST_ULPS
        * match precision {
            Precision::F32 => f64::from((size as f32).next_up() - size as f32),
            Precision::F64 => size.next_up() - size,
        }
}

/// Whether no pair differs by more than [`rounding`] can explain.
pub(crate) fn differ_by_rounding(pairs: impl IntoIterator<Item = (f64, f64)>, precision: Precision) -> bool {
    pairs.into_iter().all(|(a, b)| a == b || (a - b).abs() <= rounding(a.abs().max(b.abs()), precision))
}

/// [`differ_by_rounding`] for the elements of two tensors, in the first one's precision.
pub(crate) fn are_equal_but_for_rounding(a: &Tensor, b: &Tensor) -> bool {
    a.len() == b.len() && differ_by_rounding((0..a.len()).map(|i| (a.at(i), b.at(i))), a.precision())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_with_the_size_of_the_terms() {
        // Ulp of 1 and of numbers up to 2: 2⁻⁵² and 2⁻²³.
        assert_eq!(rounding(1.0, Precision::F64), 64.0 * f64::EPSILON);
        assert_eq!(rounding(-1.9, Precision::F32), 64.0 * f64::from(f32::EPSILON));
        assert!(differ_by_rounding([(1.0, 1.0 + f64::EPSILON), (0.0, 0.0)], Precision::F64));
        assert!(!differ_by_rounding([(1.0, 1.0 + f64::EPSILON), (0.0, 1e-300)], Precision::F64));
        assert!(differ_by_rounding([(1.0, 1.0 + f64::EPSILON)], Precision::F32));
        let (a, b) =
            (Tensor::f32([2], vec![1.0, 0.0]).unwrap(), Tensor::f32([2], vec![1.0 + f32::EPSILON, 0.0]).unwrap());
        assert!(are_equal_but_for_rounding(&a, &b));
        assert!(!are_equal_but_for_rounding(&a, &Tensor::f32([2], vec![1.0, 1e-30]).unwrap()));
    }
}
