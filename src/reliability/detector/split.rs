//! Which pictures a detector is trained on, chosen on, and measured on.

use std::collections::HashMap;

use crate::random;

/// What a picture is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Weights are fitted to it.
    Training,
    /// The best epoch is chosen by it.
    Validation,
    /// Nothing is chosen by it.
    Test,
}

/// Number in the generator of the split's draws; the key of a picture takes the place of the picture.
const SPLIT: u32 = u32::MAX - 7;

/// The part of each picture, given by its key ([`crate::engine::Batch::keys`]): three fifths of the different pictures are for
/// training, a fifth for validation, a fifth for the test. Equal pictures are of one part, and neither their order nor how
/// they were read matters.
pub fn split(keys: &[u64], seed: u64) -> Vec<Part> {
    let mut different = keys.to_vec();
    different.sort_unstable();
    different.dedup();
    let draw = |key: u64| {
        let mut draw = [0f32];
        random::fill_uniforms(seed, key, SPLIT, 0, &mut draw);
        draw[0]
    };
    let mut drawn: Vec<(f32, u64)> = different.iter().map(|&key| (draw(key), key)).collect();
    drawn.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let n = drawn.len();
    let part = |i: usize| match i {
        _ if i < (3 * n).div_ceil(5) => Part::Training,
        _ if i < (4 * n).div_ceil(5) => Part::Validation,
        _ => Part::Test,
    };
    let parts: HashMap<u64, Part> = drawn.iter().enumerate().map(|(i, d)| (d.1, part(i))).collect();
    keys.iter().map(|key| parts.get(key).copied().unwrap_or(Part::Test)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pictures_are_of_one_part_whatever_their_order() {
        let keys: Vec<u64> = (0..100u64).map(|i| (i / 2).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let parts = split(&keys, 3);
        assert!(parts.chunks(2).all(|twins| twins[0] == twins[1]));
        let count = |part| parts.iter().filter(|&&p| p == part).count();
        assert_eq!([Part::Training, Part::Validation, Part::Test].map(count), [60, 20, 20]);
        let mut reversed: Vec<u64> = keys.clone();
        reversed.reverse();
        let mut again = split(&reversed, 3);
        again.reverse();
        assert_eq!(again, parts);
        assert_ne!(split(&keys, 4), parts);
        assert!(split(&[], 0).is_empty());
    }
}
