//! The caller's options for the CPU's kernels.

use serde::{Deserialize, Serialize};

use super::conv::{Arithmetic, PassDirection};
use super::sets::Kernels;
use crate::error::{Error, Result};

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.set().name)
    }
}

impl std::str::FromStr for Kernels {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let names = || Kernels::ALL.map(|kernels| kernels.set().name).join(", ");
        let named = Kernels::ALL.into_iter().find(|kernels| kernels.set().name == s);
        named.ok_or_else(|| Error::settings(format!("no CPU kernels are named '{s}'; there are {}", names())))
    }
}

/// How accurately convolutions are computed in single precision. It concerns large 3×3 convolutions of stride 1 on the CPU, and
/// the backward pass on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convolution {
    /// `Fast` on a CPU, `Exact` on a GPU.
    #[default]
    Auto,
    /// CPU: Winograd's transforms, forward and backward. They have a quarter of the products and a few times the rounding error.
    /// GPU: signals on their way back are multiplied in TF32. That is harmless for a plain gradient (ReLU masks are already
    /// fixed), not for rules that compare or threshold signals.
    Fast,
    /// CPU: plain sums in the forward pass, so that ReLU masks are as accurate as single precision can make them. Winograd's
    /// transforms in the backward pass, which is linear and cannot flip a mask. GPU: single precision's accuracy both ways.
    Exact,
}

impl Convolution {
    pub(super) fn arithmetic(self, direction: PassDirection) -> Arithmetic {
        match (self, direction) {
            (Convolution::Exact, PassDirection::Forward) => Arithmetic::Direct,
            _ => Arithmetic::Transformed,
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
