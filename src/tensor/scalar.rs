//! The two floating-point types in which the CPU computes.

use serde::{Deserialize, Serialize};

/// The precision in which the engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE double precision: the reference for tests (CPU only).
    F64,
}

impl Precision {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        })
    }
}

/// The number types of the CPU kernels.
pub trait Scalar:
    bytemuck::Pod
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::AddAssign
    + Send
    + Sync
{
    /// Its precision.
    const PRECISION: Precision;
    /// Zero.
    const ZERO: Self;
    /// Rounded from double precision.
    fn from_f64(x: f64) -> Self;
    /// Widened to double precision (exact).
    fn to_f64(self) -> f64;
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The square root, rounded once; NaN of negative numbers.
    fn sqrt(self) -> Self;
}

macro_rules! scalar {
    ($t:ty, $p:ident) => {
        impl Scalar for $t {
            const PRECISION: Precision = Precision::$p;
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                <$t>::mul_add(self, a, b)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
        }
    };
}
scalar!(f32, F32);
scalar!(f64, F64);
