//! Orders the values of a map.

/// Indices of `values` in descending order; of equal values, the first in C order. Zeros of either sign are equal.
pub fn ranking(values: &[f64]) -> Vec<u32> {
    let mut keyed: Vec<(u64, u32)> = values.iter().zip(0..).map(|(&v, i)| (!ascending(v), i)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, i)| i).collect()
}

/// An integer that grows with `v`: comparing integers is much faster than comparing by a closure.
fn ascending(v: f64) -> u64 {
    // Minus zero becomes zero.
    let bits = (v + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// Rank of each number, 1 for the smallest; equal numbers get the mean of their ranks.
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let order = ranking(values);
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| values[a as usize] == values[b as usize]) {
        // Counted from the largest: positions start .. start + run of n.
        let rank = (values.len() - start) as f64 - (run.len() - 1) as f64 / 2.0;
        run.iter().for_each(|&i| ranks[i as usize] = rank);
        start += run.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_comes_first_and_ties_keep_their_order() {
        let values = [0.0, -1.0, 3.0, -0.0, 3.0, f64::MIN_POSITIVE, -2.5];
        assert_eq!(ranking(&values), [2, 4, 5, 0, 3, 1, 6]);
        let mut many: Vec<f64> = (0..500u64).map(|i| (i * 7919 % 263) as f64 - 131.0).collect();
        many.extend([1e-300, -1e-300, 1e300, -1e300]);
        let found = ranking(&many);
        let mut want: Vec<u32> = (0..many.len() as u32).collect();
        want.sort_by(|&a, &b| many[b as usize].partial_cmp(&many[a as usize]).unwrap());
        assert_eq!(found, want);
        assert!(ranking(&[]).is_empty());
    }

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(average_ranks(&[10.0, 20.0, 10.0, -5.0]), [2.5, 4.0, 2.5, 1.0]);
        assert_eq!(average_ranks(&[1.0; 3]), [2.0; 3]);
    }
}
