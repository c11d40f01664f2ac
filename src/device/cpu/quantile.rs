//! Marks the numbers of a feature map that exceed a quantile of all of them.

use super::{arrange, layout};
use crate::device::Spare;
use crate::tensor::{Scalar, Shape};

/// The `q`-quantile, with linear interpolation; NaN sorts above all numbers.
fn quantile<T: Scalar>(numbers: &mut [T], q: f64) -> f64 {
    let Some(last) = numbers.len().checked_sub(1) else { return f64::NAN };
    let rank = q * last as f64;
    let below = (rank.floor() as usize).min(last);
    let order = |a: &T, b: &T| a.to_f64().total_cmp(&b.to_f64());
    let (_, &mut low, above) = numbers.select_nth_unstable_by(below, order);
    let low = low.to_f64();
    match above.iter().map(|x| x.to_f64()).min_by(f64::total_cmp) {
        // Equal neighbours give exactly their value, so that a number equal to the quantile does not exceed it.
        Some(high) if high > low => low + (high - low) * (rank - below as f64),
        _ => low,
    }
}

/// Writes one bit per number of the blocks `x`: set where it is not at most the `q`-quantile.
///
/// # Safety
/// `bits` has room for one bit per number of `x`, a multiple of eight, and nothing else accesses them.
pub(super) unsafe fn above<T: Scalar>(x: &[T], shape: Shape, lanes: usize, q: f64, bits: *mut u8, lists: &mut Spare) {
    let mut numbers = lists.zeros(shape.len());
    arrange::unblock(x, shape, lanes, &mut numbers, T::to_f64);
    let threshold = quantile(&mut numbers, q);
    lists.keep(numbers);
    // SAFETY: as the caller promises.
    let bits = unsafe { std::slice::from_raw_parts_mut(bits, x.len() / 8) };
    bits.fill(0);
    for c in 0..shape.c {
        for pixel in 0..shape.plane() {
            let at = layout::index(shape, lanes, c, pixel);
            let within = x[at].to_f64() <= threshold;
            bits[at / 8] |= u8::from(!within) << (at % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys() {
        let numbers = [10.0, 1.0, 3.0, 2.0, 4.0];
        // numpy.quantile([10, 1, 3, 2, 4], [0, 0.25, 0.6, 0.95, 1])
        for (q, want) in [(0.0, 1.0), (0.25, 2.0), (0.6, 3.4), (0.95, 8.8), (1.0, 10.0)] {
            assert!((quantile(&mut numbers.clone(), q) - want).abs() < 1e-12, "{q}");
        }
        assert_eq!(quantile(&mut [7.0f32], 0.98), 7.0);
        assert!(quantile::<f32>(&mut [], 0.5).is_nan());
    }
}
