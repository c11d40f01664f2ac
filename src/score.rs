//! Which class wins: one rule for ties, everywhere.

/// Order of two scores. Zeros of either sign are equal.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// Classes by score, best first; of equal scores the smaller index goes first.
pub fn best_first(scores: &[f64]) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..scores.len()).collect();
    classes.sort_by(|&a, &b| order(scores[b], scores[a]).then(a.cmp(&b)));
    classes
}

/// The class with the highest score; of equal scores the smaller index.
pub fn top(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| order(scores[a], scores[b]).then(b.cmp(&a)))
}

/// The class with the least score; of equal scores the smaller index.
pub fn least(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| order(scores[a], scores[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_index() {
        assert_eq!(best_first(&[1.0, 3.0, 3.0, -1.0]), [1, 2, 0, 3]);
        assert_eq!((top(&[1.0, 3.0, 3.0, -1.0]), top(&[])), (Some(1), None));
        assert_eq!((best_first(&[-0.0, 0.0]), top(&[-0.0, 0.0]), least(&[0.0, -0.0])), (vec![0, 1], Some(0), Some(0)));
    }
}
