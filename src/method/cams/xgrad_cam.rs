//! XGrad-CAM (Fu et al. 2020): channels weighted by their mean gradient, positions weighted by their activation.

use crate::error::Result;
use crate::method::shared::cam::{self, GradientCam, Reading};
use crate::method::{Entry, When};
use crate::program::{Builder, Value};

pub(crate) const ENTRY: Entry = Entry {
    id: "xgrad_cam",
    aliases: &["xgradcam"],
    title: "XGrad-CAM",
    paper: "Fu, Hu, Dong, Guo, Gao, Li 2020: Axiom-based Grad-CAM, BMVC",
    summary: "relu Σ_k w_k A_k with w_k = Σ (G_k ∘ A_k) / (Σ A_k + 1e-7), G = ∂f/∂A",
    passes: "1 forward, 1 backward to the layer",
    parameters: &cam::PARAMETERS,
    promises: &cam::PROMISES,
    draws: When::Never,
    caution: "the 1e-7 is this project's own choice; at a layer without a ReLU a channel's activations may sum to nearly \
              zero, and its weight then says nothing",
    build: |values, context| Ok(Box::new(GradientCam::new(ENTRY.id, XGradCamReading, values, context)?)),
};

/// Keeps the denominator away from zero.
const EPSILON: f64 = 1e-7;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct XGradCamReading;

impl Reading for XGradCamReading {
    fn read(&self, b: &mut Builder<'_>, activation: Value, gradient: Value) -> Result<Value> {
        let product = b.mul(gradient, activation)?;
        let shares = cam::spatial_sum(b, product)?;
        let total = cam::spatial_sum(b, activation)?;
        let total = cam::plus(b, total, EPSILON)?;
        let weights = b.divide(shares, total, 0.0)?;
        b.weighted_channel_sum(weights, activation)
    }
}
