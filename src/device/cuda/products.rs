//! In which numbers tensor cores multiply.

use super::geometry::Direction;

/// In which numbers tensor cores multiply; sums are single precision always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Products {
    /// As accurate as single precision: two TF32 parts of each number, three products. With [`Accuracy::Forward`] signals
    /// on their way back are multiplied in TF32.
    #[default]
    F32,
    /// TF32: ten bits of mantissa.
    Tf32,
    /// Half precision: ten bits of mantissa, nothing beyond 65504.
    F16,
    /// bfloat16: seven bits of mantissa.
    Bf16,
}

/// Which directions [`Products::F32`] computes accurately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Accuracy {
    /// The forward pass, which decides which units are active; the way back, linear once that is decided, in TF32.
    #[default]
    Forward,
    /// Both.
    Both,
}

/// Products of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kernels {
    forward: Products,
    adjoint: Products,
}

impl Kernels {
    pub fn new(products: Products, accuracy: Accuracy) -> Self {
        let adjoint = match (products, accuracy) {
            (Products::F32, Accuracy::Forward) => Products::Tf32,
            _ => products,
        };
        Self { forward: products, adjoint }
    }

    /// The tensor-core kernel of a direction.
    pub const fn conv(&self, direction: Direction) -> &'static str {
        let products = match direction {
            Direction::Forward => self.forward,
            Direction::Adjoint => self.adjoint,
        };
        match products {
            Products::F32 => "conv_tf32x3",
            Products::Tf32 => "conv_tf32",
            Products::F16 => "conv_f16",
            Products::Bf16 => "conv_bf16",
        }
    }

    /// What both directions multiply in, for reports.
    pub fn name(&self) -> String {
        let name = |products: Products| match products {
            Products::F32 => "tf32x3",
            Products::Tf32 => "tf32",
            Products::F16 => "f16",
            Products::Bf16 => "bf16",
        };
        if self.forward == self.adjoint {
            name(self.forward).into()
        } else {
            format!("{} forward, {} back", name(self.forward), name(self.adjoint))
        }
    }
}
