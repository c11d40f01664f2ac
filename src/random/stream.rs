//! A registry of all random draws of the library and the program.

/// Sample numbers below this are for copies of a picture (noisy ones, masks); the rest are reserved for other draws.
pub const COPIES: u32 = 0xFFFF_0000;

/// What separates a draw from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// For a picture: `count` samples from `first` on, each from this element on.
    Samples { first: u32, count: u32, element: usize },
    /// Independent of a picture: `count` keys from `first` on; a picture's hash equals one only by chance.
    Keys { first: u64, count: u64 },
    /// For a picture: a separate seed, the caller's seed XOR this.
    Seed(u64),
}

/// One sample of a picture.
const fn sample(first: u32) -> Kept {
    Kept::Samples { first, count: 1, element: 0 }
}

/// One key: this word in ASCII.
const fn word(word: [u8; 8]) -> Kept {
    Kept::Keys { first: u64::from_be_bytes(word), count: 1 }
}

/// A separate seed for this name: its FNV-1a hash.
const fn named(name: &str) -> Kept {
    let (name, mut hash, mut i) = (name.as_bytes(), 0xCBF2_9CE4_8422_2325_u64, 0);
    while i < name.len() {
        hash = (hash ^ name[i] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        i += 1;
    }
    Kept::Seed(hash)
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident = $kept:expr,)*) => {
        /// A draw by purpose; no two draw the same numbers from one seed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stream {
            $($(#[$doc])* $name,)*
        }

        impl Stream {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            const fn kept(self) -> Kept {
                match self {
                    $(Self::$name => $kept,)*
                }
            }
        }
    };
}

streams! {
    /// Copies of a picture that a method explains: the draw's number is the copy's.
    Copies = Kept::Samples { first: 0, count: COPIES, element: 0 },
    /// Shifts of the mask of meaningful perturbation: the draw's number is the iteration's.
    MaskShift = Kept::Samples { first: 0, count: COPIES, element: 1 << 31 },
    /// Pixel orders with which the deletion test compares.
    DeletionOrders = Kept::Samples { first: u32::MAX - 64, count: 5, element: 0 },
    /// The part of a detector's data to which a picture belongs.
    DetectorSplit = sample(u32::MAX - 7),
    /// Positions of the patches of decoys.
    DecoyPlaces = sample(u32::MAX - 4),
    /// The small noise of the stability test.
    SmallNoise = sample(u32::MAX - 3),
    /// Starting points of attacks.
    AttackStart = sample(u32::MAX - 2),
    /// The initial mask of RelEx.
    RelexMask = sample(u32::MAX - 1),
    /// Noise baselines.
    Baseline = sample(u32::MAX),
    /// Parameters of randomised nets: the key is the layer's position; draw 0 is for weights, scales and slopes, draw 1 for
    /// biases and shifts.
    Layers = Kept::Keys { first: 0, count: 1 << 32 },
    /// Initial weights of a detector: the key is the layer's number.
    DetectorWeights = Kept::Keys { first: u64::from_be_bytes(*b"detect\0\0"), count: 1 << 8 },
    /// Orders of a detector's samples: the draw's number is the epoch's.
    DetectorOrder = word(*b"detect_o"),
    /// Resamples of an area under a curve.
    AucBootstrap = word(*b"auc_boot"),
    /// Resamples of a mean.
    Bootstrap = word(*b"bootstra"),
    /// Classes of mosaics: the draw's number is the mosaic's.
    MosaicClasses = word(*b"mosaicsC"),
    /// Pictures of mosaics: the draw's number is the mosaic's.
    MosaicPictures = word(*b"mosaicsP"),
    /// The order of the pictures of a data set.
    Shuffle = word(*b"shuffled"),
    /// The metric `dwsol`.
    Dwsol = named("dwsol"),
    /// The metric `infidelity`.
    Infidelity = named("infidelity"),
    /// The metric `max_sensitivity`.
    MaxSensitivity = named("max_sensitivity"),
    /// The metric `road`.
    Road = named("road"),
    /// The metric `sensitivity_n`.
    SensitivityN = named("sensitivity_n"),
    /// The metric `stability`.
    Stability = named("stability"),
}

impl Stream {
    /// Standard normal deviates of draw `n` for the picture with this key (0 if the stream is independent of pictures).
    pub fn normals(self, seed: u64, key: u64, n: u32, out: &mut [f32]) {
        let (seed, key, sample, start) = self.at(seed, key, n);
        super::fill_normals(seed, key, sample, start, out);
    }

    /// Numbers uniform in (0, 1), as [`Stream::normals`].
    pub fn uniforms(self, seed: u64, key: u64, n: u32, out: &mut [f32]) {
        let (seed, key, sample, start) = self.at(seed, key, n);
        super::fill_uniforms(seed, key, sample, start, out);
    }

    /// Seed, key, sample and first element.
    fn at(self, seed: u64, key: u64, n: u32) -> (u64, u64, u32, usize) {
        match self.kept() {
            Kept::Samples { first, element, .. } => (seed, key, first.wrapping_add(n), element),
            Kept::Keys { first, .. } => (seed, first.wrapping_add(key), n, 0),
            Kept::Seed(own) => (seed ^ own, key, n, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_streams_share_a_number() {
        let apart = |a: (u64, u64), b: (u64, u64)| a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0;
        for (i, a) in Stream::ALL.iter().enumerate() {
            for b in &Stream::ALL[..i] {
                let differ = match (a.kept(), b.kept()) {
                    (Kept::Samples { first, count, element }, Kept::Samples { first: f, count: c, element: e }) => {
                        apart((first.into(), count.into()), (f.into(), c.into())) || element.abs_diff(e) >= 1 << 31
                    }
                    (Kept::Keys { first, count }, Kept::Keys { first: f, count: c }) => apart((first, count), (f, c)),
                    (Kept::Seed(own), Kept::Seed(other)) => own != other,
                    _ => true,
                };
                assert!(differ, "{a:?} and {b:?}");
            }
        }
        assert!(Stream::ALL.iter().all(|s| s.kept() != Kept::Seed(0)));
    }

    /// Records of earlier runs are reproducible only while these stay the same.
    #[test]
    fn numbers_are_pinned() {
        let at = |stream: Stream| stream.at(0, 0, 0);
        for (stream, below) in [
            (Stream::Baseline, 0),
            (Stream::RelexMask, 1),
            (Stream::AttackStart, 2),
            (Stream::SmallNoise, 3),
            (Stream::DecoyPlaces, 4),
            (Stream::DetectorSplit, 7),
            (Stream::DeletionOrders, 64),
        ] {
            assert_eq!(at(stream), (0, 0, u32::MAX - below, 0), "{stream:?}");
        }
        for (stream, key) in [
            (Stream::Layers, 0),
            (Stream::DetectorWeights, 0x6465_7465_6374_0000),
            (Stream::DetectorOrder, 0x6465_7465_6374_5f6f),
            (Stream::AucBootstrap, 0x6175_635f_626f_6f74),
            (Stream::Bootstrap, 0x626f_6f74_7374_7261),
            (Stream::MosaicClasses, 0x6d6f_7361_6963_7343),
            (Stream::MosaicPictures, 0x6d6f_7361_6963_7350),
            (Stream::Shuffle, 0x7368_7566_666c_6564),
        ] {
            assert_eq!(at(stream), (0, key, 0, 0), "{stream:?}");
        }
        assert_eq!(Stream::MaskShift.at(7, 9, 5), (7, 9, 5, 1 << 31));
        assert_eq!(Stream::Copies.at(7, 9, 5), (7, 9, 5, 0));
        assert_eq!(Stream::DeletionOrders.at(7, 9, 4), (7, 9, u32::MAX - 60, 0));
        assert_eq!(Stream::DetectorWeights.at(7, 2, 0), (7, 0x6465_7465_6374_0002, 0, 0));
        // FNV-1a of the empty string and of `a`, as published by its authors.
        assert_eq!(named(""), Kept::Seed(0xCBF2_9CE4_8422_2325));
        assert_eq!(named("a"), Kept::Seed(0xAF63_DC4C_8601_EC8C));
    }
}
