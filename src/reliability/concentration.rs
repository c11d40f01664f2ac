//! How concentrated a map is.

/// Gini index of the magnitudes (Hurley, Rickard 2009): 0 if all are equal, near 1 if all but one are 0; `None` if all
/// are 0.
pub fn gini(values: &[f64]) -> Option<f64> {
    let mut sizes = shares(values)?;
    sizes.sort_unstable_by(f64::total_cmp);
    let n = sizes.len() as f64;
    // Σ (2k − n − 1) v_k / n, k from 1.
    Some(sizes.iter().enumerate().map(|(k, v)| (2.0 * k as f64 + 1.0 - n) * v).sum::<f64>() / n)
}

/// Entropy of the magnitudes as shares of their sum, in nats: 0 if all but one are 0, ln n if all n are equal; `None`
/// if all are 0.
pub fn entropy(values: &[f64]) -> Option<f64> {
    Some(shares(values)?.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum())
}

/// Magnitudes as shares of their sum.
fn shares(values: &[f64]) -> Option<Vec<f64>> {
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if !(largest > 0.0) {
        return None;
    }
    // Divided by the largest first, because the sum of large numbers would overflow.
    let total: f64 = values.iter().map(|v| v.abs() / largest).sum();
    Some(values.iter().map(|v| v.abs() / largest / total).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_reached() {
        assert_eq!(gini(&[-2.0; 4]), Some(0.0));
        assert_eq!(gini(&[0.0, 0.0, -7.0, 0.0]), Some(0.75));
        assert_eq!(gini(&[3.0]), Some(0.0));
        assert!((entropy(&[-2.0; 4]).unwrap() - 4f64.ln()).abs() < 1e-15);
        assert_eq!(entropy(&[0.0, -7.0]), Some(0.0));
        assert_eq!((gini(&[0.0; 3]), entropy(&[0.0; 3])), (None, None));
        assert!((entropy(&[1e308; 8]).unwrap() - 8f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn gini_follows_its_definition() {
        let values = [3.0, -1.0, 0.5, 2.0, -2.0, 0.0];
        let (mut differences, mut total) = (0.0, 0.0);
        for a in values {
            total += f64::abs(a);
            values.iter().for_each(|b| differences += (a.abs() - b.abs()).abs());
        }
        // Half the mean difference, divided by the mean.
        let want = differences / (2.0 * values.len() as f64 * total);
        assert!((gini(&values).unwrap() - want).abs() < 1e-15);
    }
}
