//! The number formats in which a GPU multiplies.

use serde::{Deserialize, Serialize};

/// The number format in which the tensor cores of a GPU multiply; sums, like everything else, are single precision. A
/// CPU multiplies in the precision of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// As accurate as single precision: each number is split into two TF32 parts, with three products. If convolutions
    /// should be fast, backward signals are multiplied in TF32.
    #[default]
    F32,
    /// TF32: ten bits of mantissa.
    Tf32,
    /// Half precision: ten bits of mantissa, numbers up to 65504.
    F16,
    /// bfloat16: seven bits of mantissa.
    Bf16,
}
