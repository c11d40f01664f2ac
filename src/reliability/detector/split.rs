//! Splits pictures for training, validation and test.

use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// The part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SplitPart {
    /// Used to fit the weights.
    Training,
    /// Used to select the best epoch.
    Validation,
    /// Used for no decision.
    Test,
}

/// The part of the picture with this key ([`crate::engine::Batch::keys`]), drawn at random: training (three fifths of
/// all pictures), validation or test (a fifth each). Equal pictures are in one part, however often, where and in which
/// order they are read.
pub fn part(key: u64, seed: u64) -> SplitPart {
    let mut draw = [0f32];
    Stream::DetectorSplit.uniforms(seed, key, 0, &mut draw);
    match draw[0] {
        d if d < 0.6 => SplitPart::Training,
        d if d < 0.8 => SplitPart::Validation,
        _ => SplitPart::Test,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_drawn_by_key() {
        let keys: Vec<u64> = (0..5000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let count = |part_: SplitPart, seed| keys.iter().filter(|&&k| part(k, seed) == part_).count() as f64 / 5000.0;
        for (p, share) in [(SplitPart::Training, 0.6), (SplitPart::Validation, 0.2), (SplitPart::Test, 0.2)] {
            // Four standard deviations are at most 0.028.
            let within = (count(p, 3) - share).abs() < 0.028;
            assert!(within, "{p:?} {}", count(p, 3));
        }
        assert!(keys.iter().all(|&k| part(k, 3) == part(k, 3)));
        assert!(keys.iter().any(|&k| part(k, 3) != part(k, 4)));
    }
}
