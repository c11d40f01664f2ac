//! Shares of counted cases, with their uncertainty.

use serde::{Deserialize, Serialize};

/// The normal distribution's 97.5th percentile.
const Z: f64 = 1.959_963_984_540_054;

/// With fewer cases, a share says little about a net.
const FEW: usize = 20;

/// Counts of correct and of all cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Correct cases.
    pub right: usize,
    /// All cases.
    pub of: usize,
}

impl Share {
    /// Counts one more case.
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.of += 1;
    }

    /// The 95 % interval `[low, high]` of the share: the score interval of Wilson 1927, "Probable inference, the law of
    /// succession, and statistical inference", JASA 22. For no cases it is `[0, 1]`.
    pub fn interval(self) -> [f64; 2] {
        if self.of == 0 {
            return [0.0, 1.0];
        }
        let n = self.of as f64;
        let p = self.right as f64 / n;
        let centre = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
    }

    /// Whether the share is no better than guessing among `classes` classes: its interval contains `1 / classes` or
    /// lies below it. False for fewer than 20 cases.
    pub fn is_guessing(self, classes: usize) -> bool {
        self.of >= FEW && self.interval()[0] <= 1.0 / classes.max(2) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    #[test]
    fn published_intervals() {
        for (right, of, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let [found_low, found_high] = Share { right, of }.interval();
            assert!((found_low - low).abs() < 5e-5 && (found_high - high).abs() < 5e-5, "{right} of {of}");
        }
        assert_eq!(Share::default().interval(), [0.0, 1.0]);
        let [low, high] = Share { right: 9, of: 9 }.interval();
        assert!(high == 1.0 && (low - 9.0 / (9.0 + Z * Z)).abs() < 1e-12);
    }

    #[test]
    fn guessing_is_told_from_knowing() {
        assert!(Share { right: 115, of: 1000 }.is_guessing(10));
        assert!(Share { right: 2, of: 1000 }.is_guessing(10));
        assert!(!Share { right: 130, of: 1000 }.is_guessing(10));
        // So few cases decide nothing; and 0 of 20 is consistent with guessing among a thousand classes.
        assert!(!Share { right: 0, of: 19 }.is_guessing(10) && Share { right: 0, of: 20 }.is_guessing(1000));
        assert!(!Share { right: 1, of: 20 }.is_guessing(1000));
        assert!(Share { right: 10, of: 20 }.is_guessing(1));
    }
}
