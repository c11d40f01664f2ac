//! The CPU kernels by instruction set. The build script reads this file too, so that tests know the machine's features.

#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as detected;

/// Other architectures do not have these features.
#[cfg(not(target_arch = "x86_64"))]
macro_rules! detected {
    ($name:tt) => {
        false
    };
}

/// The kernels of the CPU device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kernels {
    /// The fastest that the machine supports.
    #[default]
    Auto,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2, FMA, F16C.
    Avx2,
    /// Plain Rust.
    Portable,
}

/// A CPU feature and how it is detected.
pub type Feature = (&'static str, fn() -> bool);

/// Properties of a set of kernels.
#[derive(Debug, Clone, Copy)]
pub struct InstructionSet {
    /// Name, as in `--kernels` and reports.
    pub name: &'static str,
    /// The machine's required features, in words.
    pub needs: &'static str,
    /// The machine's required features.
    pub features: &'static [Feature],
}

macro_rules! features {
    ($($name:tt),*) => {
        &[$(($name, || detected!($name))),*]
    };
}

impl Kernels {
    /// The fastest first.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Avx512, Self::Avx2, Self::Portable];

    /// The table of instruction sets.
    pub const fn set(self) -> InstructionSet {
        match self {
            Self::Auto => InstructionSet { name: "auto", needs: "", features: &[] },
            Self::Avx512 => InstructionSet {
                name: "avx512",
                needs: "AVX-512 (F, BW, DQ, VL)",
                features: features!("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma", "f16c"),
            },
            Self::Avx2 => InstructionSet {
                name: "avx2",
                needs: "AVX2 with FMA and F16C",
                features: features!("avx2", "fma", "f16c"),
            },
            Self::Portable => InstructionSet { name: "portable", needs: "", features: &[] },
        }
    }

    /// Whether this machine can run them.
    pub fn run_here(self) -> bool {
        self.set().features.iter().all(|(_, here)| here())
    }

    /// The kernels if this machine can run them; for `Auto`, the fastest that it can run.
    pub fn here(self) -> Option<Self> {
        match self {
            Self::Auto => Self::ALL.into_iter().find(|&kernels| kernels != Self::Auto && kernels.run_here()),
            named => named.run_here().then_some(named),
        }
    }
}
