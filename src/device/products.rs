//! In which numbers a GPU multiplies.

use serde::{Deserialize, Serialize};

/// In which numbers the tensor cores of a GPU multiply; their sums are single precision, as is everything else. A CPU
/// multiplies in the precision of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// As accurate as single precision: each number as two TF32 parts, three products. With convolutions that are to be
    /// fast, signals on their way back are multiplied in TF32.
    #[default]
    F32,
    /// TF32: ten bits of mantissa.
    Tf32,
    /// Half precision: ten bits of mantissa, nothing beyond 65504.
    F16,
    /// bfloat16: seven bits of mantissa.
    Bf16,
}
