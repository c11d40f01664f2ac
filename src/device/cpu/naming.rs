//! Names of the kernels that run the steps.

use super::conv::{ConvPlan, PassDirection};
use super::isa::Isa;
use super::{ConvKey, Cpu};
use crate::program::{ConvLayer, Plan, Step, Zeros};

impl<I: Isa> Cpu<I> {
    /// Name of the kernel for reports. A step and its adjoint share it, except for convolutions.
    pub(super) fn kernel_name(&self, plan: &Plan, step: &Step) -> &'static str {
        match step {
            Step::Conv { layer, x, .. } => self.conv_kernel(layer, PassDirection::Forward, plan.zeros(*x)),
            Step::ConvAdjoint { layer, s, .. } => self.conv_kernel(layer, PassDirection::Adjoint, plan.zeros(*s)),
            Step::Linear { .. } | Step::LinearAdjoint { .. } => "linear",
            Step::ConvWeightAdjoint { .. } | Step::LinearWeightAdjoint { .. } => "weights",
            Step::Add { .. }
            | Step::Clamp { .. }
            | Step::Inside { .. }
            | Step::AboveQuantile { .. }
            | Step::Gate { .. }
            | Step::Elementwise { .. } => "pointwise",
            Step::Contract { .. } => "contract",
            Step::Resample { .. } => "resample",
            Step::Softmax { .. } => "softmax",
            Step::Standardise { .. } | Step::StandardiseAdjoint { .. } => "standardise",
            Step::MaxPool { .. } | Step::PreferWinners { .. } | Step::MaxPoolAdjoint { .. } => "max_pool",
            Step::AvgPool { .. }
            | Step::AvgPoolAdjoint { .. }
            | Step::AdaptiveAvgPool { .. }
            | Step::AdaptiveAvgPoolAdjoint { .. }
            | Step::SpatialMean { .. } => "avg_pool",
            Step::Flatten { .. }
            | Step::Unflatten { .. }
            | Step::Concat { .. }
            | Step::Fill { .. }
            | Step::Move { .. } => "arrange",
            _ => step.kind(),
        }
    }

    fn conv_kernel(&self, layer: &ConvLayer, direction: PassDirection, zeros: Zeros) -> &'static str {
        match self.plans.get(&ConvKey::new(layer, direction, zeros)) {
            Some(plan) => plan.name,
            None => ConvPlan::new::<I>(layer, direction, self.convolution.arithmetic(direction), zeros).name,
        }
    }
}
