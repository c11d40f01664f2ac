//! What a caller may choose about the CPU's kernels.

use serde::{Deserialize, Serialize};

use super::conv::{Direction, Products};
use crate::error::{Error, Result};

/// Which kernels the CPU device uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kernels {
    /// The fastest the machine has.
    #[default]
    Auto,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2, FMA, F16C.
    Avx2,
    /// Plain Rust.
    Portable,
}

impl std::str::FromStr for Kernels {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Kernels::Auto),
            "avx512" => Ok(Kernels::Avx512),
            "avx2" => Ok(Kernels::Avx2),
            "portable" => Ok(Kernels::Portable),
            _ => {
                Err(Error::settings(format!("no CPU kernels are named '{s}'; there are auto, avx512, avx2, portable")))
            }
        }
    }
}

/// How accurately convolutions are computed in single precision: the CPU's large 3×3 ones of stride 1, and the way back on a
/// GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convolution {
    /// `Fast` on a CPU, `Exact` on a GPU.
    #[default]
    Auto,
    /// CPU: by Winograd's transforms, forward and backward: a quarter of the products, a few times the rounding error. GPU:
    /// signals on their way back are multiplied in TF32, which does no harm to a plain gradient, whose decisions are taken
    /// by then, but to whatever compares or cuts signals.
    Fast,
    /// CPU: forward by plain sums, so that activations are decided as well as single precision can; backward by Winograd's
    /// transforms, which are linear and cannot flip a decision. GPU: single precision's accuracy both ways.
    Exact,
}

impl Convolution {
    pub(super) fn products(self, direction: Direction) -> Products {
        match (self, direction) {
            (Convolution::Exact, Direction::Forward) => Products::Plain,
            _ => Products::Few,
        }
    }
}

impl std::str::FromStr for Convolution {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Convolution::Auto),
            "fast" => Ok(Convolution::Fast),
            "exact" => Ok(Convolution::Exact),
            _ => Err(Error::settings(format!("no way to convolve is named '{s}'; there are auto, fast and exact"))),
        }
    }
}
