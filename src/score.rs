//! Orders classes by score. Of equal scores the class of the smaller index comes first; zeros of either sign are equal.

use std::cmp::Ordering;

fn order(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// All classes by falling score (`[classes]`, logits or any other); of equal scores, the smaller index first.
pub fn best_first(scores: &[f64]) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..scores.len()).collect();
    classes.sort_by(|&a, &b| order(scores[b], scores[a]));
    classes
}

/// The class with the largest score; of equal scores, the smallest index. `None` if `scores` is empty.
pub fn top(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| order(scores[b], scores[a]))
}

/// The class with the smallest score; of equal scores, the smallest index. `None` if `scores` is empty.
pub fn least(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| order(scores[a], scores[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_index() {
        assert_eq!(best_first(&[1.0, 3.0, 3.0, -1.0]), [1, 2, 0, 3]);
        assert_eq!((best_first(&[-0.0, 0.0]), least(&[0.0, -0.0])), (vec![0, 1], Some(0)));
        assert_eq!((top(&[1.0, 3.0, 3.0]), top(&[-0.0, 0.0]), top(&[-1.0, -0.0, 0.0])), (Some(1), Some(0), Some(1)));
        assert_eq!((top(&[]), least(&[])), (None, None));
    }
}
