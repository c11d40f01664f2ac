//! The tensor-core kernels of each direction.

use super::geometry::PassDirection;
use crate::device::Products;
use crate::device::cpu::Convolution;

/// Products of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProductKernels {
    forward: Products,
    adjoint: Products,
}

impl ProductKernels {
    /// Both ways alike, but for [`Convolution::Fast`]: the way back in TF32 where the forward pass is accurate.
    pub fn new(products: Products, convolution: Convolution) -> Self {
        let adjoint = match (products, convolution) {
            (Products::F32, Convolution::Fast) => Products::Tf32,
            _ => products,
        };
        Self { forward: products, adjoint }
    }

    /// The tensor-core kernel of a direction.
    pub const fn conv(&self, direction: PassDirection) -> &'static str {
        let products = match direction {
            PassDirection::Forward => self.forward,
            PassDirection::Adjoint => self.adjoint,
        };
        match products {
            Products::F32 => "conv_tf32x3",
            Products::Tf32 => "conv_tf32",
            Products::F16 => "conv_f16",
            Products::Bf16 => "conv_bf16",
        }
    }

    /// The same with a tile four times as large, where there is one: products in several parts have no registers for it.
    pub const fn wide(&self, direction: PassDirection) -> Option<&'static str> {
        let products = match direction {
            PassDirection::Forward => self.forward,
            PassDirection::Adjoint => self.adjoint,
        };
        match products {
            Products::F32 => None,
            Products::Tf32 => Some("conv_tf32_wide"),
            Products::F16 => Some("conv_f16_wide"),
            Products::Bf16 => Some("conv_bf16_wide"),
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
